// The guest's end of the bus, as far as a program without an operating system wants it: messages,
// and one channel at a time. What the host says out of turn (offers, rescinds) is noted.
#ifndef KMCL_TESTS_BARE_BUS_H
#define KMCL_TESTS_BARE_BUS_H

#include "machine.h"

enum {
  OFFER_CHANNEL = 1,
  RESCIND_CHANNEL_OFFER = 2,
  REQUEST_OFFERS = 3,
  ALL_OFFERS_DELIVERED = 4,
  OPEN_CHANNEL = 5,
  OPEN_CHANNEL_RESULT = 6,
  CLOSE_CHANNEL = 7,
  GPADL_HEADER = 8,
  GPADL_BODY = 9,
  GPADL_CREATED = 10,
  GPADL_TEARDOWN = 11,
  GPADL_TORNDOWN = 12,
  REL_ID_RELEASED = 13,
  INITIATE_CONTACT = 14,
  VERSION_RESPONSE = 15,
  UNLOAD = 16,
  PAUSE = 27,
};

#define MESSAGE_BYTES 240u
#define HV_POST_MESSAGE 0x5Cull
#define HV_SIGNAL_EVENT_FAST 0x1005Dull
#define HV_SUCCESS 0u
#define HV_INVALID_CONNECTION 0x12u
#define HV_INSUFFICIENT_BUFFERS 0x13u

// What the host offers now. Number 0: an empty place.
struct offer {
  uint32_t channel;
  uint32_t connection;
  uint32_t class_start;  // the first word of its class
};
#define MAXIMUM_OFFERS 64u
extern struct offer offers[MAXIMUM_OFFERS];

extern struct counts {
  uint64_t posted, refused_posts, taken, offers, rescinds;
} counts;

// Whatever `bytes` says, once; the hypercall's status.
uint32_t post_raw(uint32_t connection, uint32_t type, uint32_t claimed_bytes, const void* bytes,
                  uint32_t byte_count);
// Until the host has it, taking what it says meanwhile.
void post(const void* message, uint32_t bytes);

// Takes what the host has said. `take_message` only one; false when there is none.
bool take_message(void);
void take_messages(void);
// Waits for one of this type whose word at `offset` is `value`; it stands in last_message then.
void await_message(uint32_t type, uint32_t offset, uint32_t value);
extern uint8_t last_message[MESSAGE_BYTES];
// Gives the numbers of rescinded channels back, which the host waits for.
void release_rescinded(void);
uint32_t word_of(const void* message, uint32_t offset);

// From the beginning: contact, and all offers. Whatever was before, and was asked for before.
void connect_bus(uint32_t version);
const struct offer* find_offer(uint32_t class_start);

// A channel that is used as it should be. Its rings are its own, in one run of pages.
#define RING_PAGES 5u
struct channel {
  uint32_t channel;
  uint32_t connection;
  uint32_t gpadl;
  uint8_t* rings;  // control and data of the outgoing one, then of the incoming one
};
bool open_channel(struct channel* channel, const struct offer* offer, uint8_t* rings,
                  uint32_t gpadl);
// Posts what describes `pages` pages from `memory` on as one range.
void post_gpadl(uint32_t channel, uint32_t gpadl, const uint8_t* memory, uint32_t pages);
void signal(uint32_t connection);

// Sends a packet that wants a completion, and waits for that. Its payload replaces `payload`; false
// when it does not come, or is not of that length.
bool ask(struct channel* channel, void* payload, uint32_t bytes);

#endif
