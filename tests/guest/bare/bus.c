#include "bus.h"

#include <stddef.h>

struct offer offers[MAXIMUM_OFFERS];
struct counts counts;
uint8_t last_message[MESSAGE_BYTES];

uint32_t word_of(const void* message, uint32_t offset) {
  uint32_t word;
  copy_bytes(&word, (const uint8_t*)message + offset, sizeof word);
  return word;
}

// ---- Out

uint32_t post_raw(uint32_t connection, uint32_t type, uint32_t claimed_bytes, const void* bytes,
                  uint32_t byte_count) {
  static struct {
    uint32_t connection, reserved, type, bytes;
    uint8_t payload[MESSAGE_BYTES];
  } input __attribute__((aligned(256)));
  input.connection = connection;
  input.type = type;
  input.bytes = claimed_bytes;
  copy_bytes(input.payload, bytes, byte_count);
  ++counts.posted;
  const uint32_t status = (uint32_t)hypercall(HV_POST_MESSAGE, (uint64_t)&input, 0) & 0xFFFF;
  if (status != HV_SUCCESS) ++counts.refused_posts;
  return status;
}

void post(const void* message, uint32_t bytes) {
  const uint64_t begin = cycles();
  for (;;) {
    const uint32_t status = post_raw(1, 1, bytes, message, bytes);
    if (status == HV_SUCCESS) return;
    if (status != HV_INSUFFICIENT_BUFFERS) fail("a message was not taken", status);
    take_messages();
    if (cycles() - begin > CYCLES_TO_GIVE_UP) fail("no room for a message", word_of(message, 0));
  }
}

// ---- In

struct slot {
  volatile uint32_t type;
  uint8_t bytes;
  volatile uint8_t flags;
  uint16_t reserved;
  uint64_t sender;
  uint8_t payload[MESSAGE_BYTES];
};

static struct offer* place_of(uint32_t channel) {
  for (uint32_t index = 0; index < MAXIMUM_OFFERS; ++index) {
    if (offers[index].channel == channel) return &offers[index];
  }
  return NULL;
}

static uint32_t rescinded[MAXIMUM_OFFERS];
static uint32_t rescinded_count;

void release_rescinded(void) {
  while (rescinded_count > 0) {
    const uint32_t message[3] = {REL_ID_RELEASED, 0, rescinded[--rescinded_count]};
    post(message, sizeof message);
  }
}

static void note(void) {
  switch (word_of(last_message, 0)) {
    case OFFER_CHANNEL: {
      ++counts.offers;
      struct offer* const place = place_of(0);
      if (place == NULL) fail("more offers than there are devices", counts.offers);
      place->channel = word_of(last_message, 184);
      place->connection = word_of(last_message, 192);
      place->class_start = word_of(last_message, 8);
      return;
    }
    case RESCIND_CHANNEL_OFFER: {
      ++counts.rescinds;
      const uint32_t channel = word_of(last_message, 8);
      struct offer* const place = place_of(channel);
      if (place != NULL) *place = (struct offer){0};
      if (rescinded_count == MAXIMUM_OFFERS) fail("more rescinds than offers", channel);
      rescinded[rescinded_count++] = channel;
      return;
    }
    default:
      return;
  }
}

bool take_message(void) {
  struct slot* const slot = (struct slot*)(message_page + 0x200);
  const uint32_t type = slot->type;
  if (type == 0) return false;
  __asm__ volatile("" : : : "memory");
  copy_bytes(last_message, slot->payload, MESSAGE_BYTES);
  __atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
  if ((slot->flags & 1) != 0) write_msr(MSR_EOM, 0);
  ++counts.taken;
  note();
  return true;
}

void take_messages(void) {
  while (take_message()) {
  }
}

void await_message(uint32_t type, uint32_t offset, uint32_t value) {
  const uint64_t begin = cycles();
  for (;;) {
    if (take_message() && word_of(last_message, 0) == type &&
        (offset == 0 || word_of(last_message, offset) == value)) {
      return;
    }
    if (cycles() - begin > CYCLES_TO_GIVE_UP) fail("the host does not answer with", type);
  }
}

// ---- The connection

static void contact(uint32_t version) {
  const struct {
    uint32_t type, padding, version, processor;
    uint8_t sint, vtl, unused[2];
    uint32_t features;
    uint64_t pages[2];
  } message = {.type = INITIATE_CONTACT, .version = version, .sint = 2};
  const uint64_t begin = cycles();
  while (post_raw(4, 1, sizeof message, &message, sizeof message) != HV_SUCCESS) {
    take_messages();
    if (cycles() - begin > CYCLES_TO_GIVE_UP) fail("nobody takes a contact", version);
  }
}

void connect_bus(uint32_t version) {
  // No such version: its refusal comes after every answer to what was asked before.
  contact(0x00FF0000);
  do {
    await_message(VERSION_RESPONSE, 0, 0);
  } while (last_message[8] != 0);
  for (uint32_t index = 0; index < MAXIMUM_OFFERS; ++index) offers[index].channel = 0;
  rescinded_count = 0;
  contact(version);
  await_message(VERSION_RESPONSE, 0, 0);
  if (last_message[8] == 0) fail("the host does not speak version", version);
  const uint32_t request[2] = {REQUEST_OFFERS, 0};
  post(request, sizeof request);
  await_message(ALL_OFFERS_DELIVERED, 0, 0);
}

const struct offer* find_offer(uint32_t class_start) {
  for (uint32_t index = 0; index < MAXIMUM_OFFERS; ++index) {
    if (offers[index].channel != 0 && offers[index].class_start == class_start)
      return &offers[index];
  }
  return NULL;
}

// ---- A channel

void post_gpadl(uint32_t channel, uint32_t gpadl, const uint8_t* memory, uint32_t pages) {
  struct {
    uint32_t type, padding, channel, gpadl;
    uint16_t range_bytes, range_count;
    uint32_t byte_count, byte_offset;
    uint32_t page_numbers[2 * 26];  // of two words each, on a boundary of one
  } header = {GPADL_HEADER,       0, channel, gpadl, (uint16_t)(8 + 8 * pages), 1,
              pages * PAGE_BYTES, 0, {0}};
  for (uint32_t index = 0; index < pages; ++index) {
    const uint64_t number = (uint64_t)memory / PAGE_BYTES + index;
    header.page_numbers[2 * index] = (uint32_t)number;
    header.page_numbers[2 * index + 1] = (uint32_t)(number >> 32);
  }
  post(&header, 28 + 8 * pages);
}

bool open_channel(struct channel* channel, const struct offer* offer, uint8_t* rings,
                  uint32_t gpadl) {
  *channel = (struct channel){offer->channel, offer->connection, gpadl, rings};
  fill_bytes(rings, 0, 2 * RING_PAGES * PAGE_BYTES);
  post_gpadl(channel->channel, gpadl, rings, 2 * RING_PAGES);
  await_message(GPADL_CREATED, 12, gpadl);
  if (word_of(last_message, 16) != 0) return false;
  for (uint32_t ring = 0; ring < 2; ++ring) rings[ring * RING_PAGES * PAGE_BYTES + 0x40] = 1;
  uint32_t message[37] = {OPEN_CHANNEL, 0, channel->channel, gpadl, gpadl, 0, RING_PAGES};
  post(message, sizeof message);
  await_message(OPEN_CHANNEL_RESULT, 12, gpadl);
  return word_of(last_message, 16) == 0;
}

void signal(uint32_t connection) { hypercall(HV_SIGNAL_EVENT_FAST, connection, 0); }

#define DATA_BYTES ((RING_PAGES - 1) * PAGE_BYTES)
struct control {
  volatile uint32_t write, read, mask, pending;
};
static struct control* control_of(uint8_t* ring) { return (struct control*)ring; }

// Where the data ends it begins again.
static void copy_in(uint8_t* ring, uint32_t at, const void* from, uint32_t bytes) {
  at %= DATA_BYTES;
  const uint32_t first = bytes < DATA_BYTES - at ? bytes : DATA_BYTES - at;
  copy_bytes(ring + PAGE_BYTES + at, from, first);
  copy_bytes(ring + PAGE_BYTES, (const uint8_t*)from + first, bytes - first);
}
static void copy_out(const uint8_t* ring, uint32_t at, void* to, uint32_t bytes) {
  at %= DATA_BYTES;
  const uint32_t first = bytes < DATA_BYTES - at ? bytes : DATA_BYTES - at;
  copy_bytes(to, ring + PAGE_BYTES + at, first);
  copy_bytes((uint8_t*)to + first, ring + PAGE_BYTES, bytes - first);
}

bool ask(struct channel* channel, void* payload, uint32_t bytes) {
  static uint64_t transaction;
  uint8_t* const outgoing = channel->rings;
  uint8_t* const incoming = channel->rings + RING_PAGES * PAGE_BYTES;
  const uint32_t begin = control_of(outgoing)->write;
  const uint32_t length = 16 + bytes;
  ++transaction;
  const uint16_t descriptor[4] = {6, 2, (uint16_t)(length / 8), 1};
  copy_in(outgoing, begin, descriptor, sizeof descriptor);
  copy_in(outgoing, begin + 8, &transaction, sizeof transaction);
  copy_in(outgoing, begin + 16, payload, bytes);
  const uint64_t trailer = (uint64_t)begin << 32;
  copy_in(outgoing, begin + length, &trailer, sizeof trailer);
  __atomic_store_n(&control_of(outgoing)->write, (begin + length + 8) % DATA_BYTES,
                   __ATOMIC_SEQ_CST);
  if (control_of(outgoing)->mask == 0) signal(channel->connection);

  const uint64_t asked = cycles();
  uint32_t at = control_of(incoming)->read;
  while (__atomic_load_n(&control_of(incoming)->write, __ATOMIC_ACQUIRE) == at) {
    take_messages();
    if (cycles() - asked > CYCLES_TO_GIVE_UP) return false;
  }
  uint16_t answer[4];
  uint64_t answered;
  copy_out(incoming, at, answer, sizeof answer);
  copy_out(incoming, at + 8, &answered, sizeof answered);
  copy_out(incoming, at + 16, payload, bytes);
  at = (at + answer[2] * 8u + 8) % DATA_BYTES;
  __atomic_store_n(&control_of(incoming)->read, at, __ATOMIC_SEQ_CST);
  return answer[0] == 0xB && answered == transaction && answer[2] * 8u == length;
}
