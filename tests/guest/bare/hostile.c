// A guest that does everything that it should not, in an order that chance and `seed` decide, and
// between any two of these things uses one channel as it should be used: that has to go on working.
//   seed=N      which sequence
//   attacks=N   how many (default: without end), or how often the channel is used without them
//   version=N   of the protocol, major << 16 | minor (default 5.3)
//   calm=1      no attacks: only the channel; without `attacks`, until a key is pressed
#include <stddef.h>

#include "bus.h"

#define ECHO_CLASS 0x799d7bf1u
#define ECHO_DATA 1u
#define STEADY_GPADL 0x7FFFFFFFu
#define VICTIM_RINGS 16u
#define VICTIM_PAGES 16u

static uint8_t steady_rings[2 * RING_PAGES * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
static uint8_t victim_rings[VICTIM_RINGS][VICTIM_PAGES * PAGE_BYTES]
    __attribute__((aligned(PAGE_BYTES)));
static uint32_t version;
static struct channel steady;
static uint64_t echoes;
static uint64_t reconnects;
static uint64_t slowest;

// ---- What has to go on working

static void open_steady(void) {
  const struct offer* const offer = find_offer(ECHO_CLASS);
  if (offer == NULL) fail("there is no echo device", 0);
  if (!open_channel(&steady, offer, steady_rings, STEADY_GPADL))
    fail("the echo channel does not open", 0);
}

// Pages that are none are refused at once, and in a list that begins with good ones.
static void describe_no_memory(void) {
  const struct offer* const offer = find_offer(ECHO_CLASS);
  if (offer == NULL) fail("there is no echo device", 0);
  const uint8_t* const beyond = (const uint8_t*)0xF0000000;
  post_gpadl(offer->channel, STEADY_GPADL - 1, beyond, 4);
  await_message(GPADL_CREATED, 12, STEADY_GPADL - 1);
  if (word_of(last_message, 16) == 0) fail("a page that is none was taken", (uint64_t)beyond);
  post_gpadl(offer->channel, STEADY_GPADL - 1, steady_rings, 4);
  await_message(GPADL_CREATED, 12, STEADY_GPADL - 1);
  if (word_of(last_message, 16) != 0) fail("a page that is one was not taken", 0);
}

static void use_steady(void) {
  static uint8_t sent[512];
  static uint8_t received[sizeof sent];
  const uint32_t bytes = 8 + 8 * random_below((sizeof sent - 8) / 8);
  random_bytes(sent, bytes);
  const uint32_t header[2] = {ECHO_DATA, bytes - 8};
  copy_bytes(sent, header, sizeof header);
  copy_bytes(received, sent, bytes);
  const uint64_t begin = cycles();
  if (!ask(&steady, received, bytes)) fail("the echo does not come", echoes);
  if (!same_bytes(sent, received, bytes)) fail("the echo is not what was sent", echoes);
  const uint64_t took = cycles() - begin;
  if (took > slowest) slowest = took;
  ++echoes;
}

// ---- Numbers to be wrong with

static uint32_t some_channel(void) {
  if (one_in(8)) return (uint32_t)random_number();
  const uint32_t channel =
      one_in(4) ? random_below(70) : offers[random_below(MAXIMUM_OFFERS)].channel;
  return channel == steady.channel ? 0 : channel;
}
// One that is offered, or 0.
static uint32_t some_victim(void) {
  for (uint32_t tries = 0; tries < 20; ++tries) {
    const uint32_t channel = offers[random_below(8)].channel;
    if (channel != 0 && channel != steady.channel) return channel;
  }
  return 0;
}
static uint32_t some_gpadl(void) {
  return one_in(10) ? (uint32_t)random_number() / 2 : random_below(24);
}
static uint64_t some_page(void) {
  switch (random_below(6)) {
    case 0:
      return random_number();
    case 1:
      return random_below(1 << 20);
    case 2:
      return ~0ull >> random_below(30);
    default:
      return (uint64_t)victim_rings / PAGE_BYTES + random_below(VICTIM_RINGS * VICTIM_PAGES);
  }
}

// Goes out as it is, unless it would end what has to go on working.
static void post_wrong(const void* message, uint32_t bytes) {
  const uint32_t type = word_of(message, 0);
  if (type == INITIATE_CONTACT || type == UNLOAD || type == PAUSE) return;
  if (bytes >= 12 && word_of(message, 8) == steady.channel &&
      (type == CLOSE_CHANNEL || type == REL_ID_RELEASED)) {
    return;
  }
  if (type == GPADL_TEARDOWN && bytes >= 16 && word_of(message, 12) == STEADY_GPADL) return;
  if (post_raw(one_in(2) ? 1 : 4, 1, bytes, message, bytes) == HV_INSUFFICIENT_BUFFERS)
    take_messages();
}

// ---- The attacks

static void send_rubbish(void) {
  uint8_t message[MESSAGE_BYTES];
  for (uint32_t count = random_below(20); count > 0; --count) {
    random_bytes(message, sizeof message);
    const uint32_t head[5] = {random_below(34), 0, some_channel(), some_gpadl(), some_gpadl()};
    copy_bytes(message, head, one_in(3) ? 12 : sizeof head);
    post_wrong(message, one_in(2) ? MESSAGE_BYTES : random_below(MESSAGE_BYTES + 1));
  }
}

// Lists of pages that hold together in no, some or all respects, in pieces that do not fit.
static void send_gpadls(void) {
  for (uint32_t count = 1 + random_below(6); count > 0; --count) {
    struct {
      uint32_t type, padding, channel, gpadl;
      uint16_t range_bytes, range_count;
      uint32_t words[55];
    } header = {GPADL_HEADER, 0, some_channel(), some_gpadl(), 0, 1, {0}};
    const uint32_t pages = random_below(26);
    header.range_bytes = (uint16_t)(one_in(3) ? random_number() : 8 + 8 * pages);
    if (one_in(4)) header.range_count = (uint16_t)(one_in(2) ? random_number() : random_below(5));
    header.words[0] = one_in(3) ? (uint32_t)random_number() : pages * PAGE_BYTES;
    header.words[1] = one_in(3) ? (uint32_t)random_number() : 0;
    for (uint32_t index = 0; index < pages; ++index) {
      const uint64_t page = some_page();
      copy_bytes(&header.words[2 + 2 * index], &page, sizeof page);
    }
    post_wrong(&header, one_in(4) ? 20 + random_below(220) : 28 + 8 * pages);
    for (uint32_t bodies = random_below(4); bodies > 0; --bodies) {
      uint8_t body[MESSAGE_BYTES];
      random_bytes(body, sizeof body);
      const uint32_t head[4] = {GPADL_BODY, 0, 0, one_in(4) ? some_gpadl() : header.gpadl};
      copy_bytes(body, head, sizeof head);
      post_wrong(body, 16 + 8 * random_below(29));
    }
    if (one_in(3)) {
      uint32_t open[37] = {
          OPEN_CHANNEL,           0, header.channel, 1, header.gpadl, random_below(3),
          random_below(pages + 2)};
      post_wrong(open, sizeof open);
    }
    if (one_in(3)) {
      const uint32_t teardown[4] = {GPADL_TEARDOWN, 0, some_channel(), some_gpadl()};
      post_wrong(teardown, sizeof teardown);
    }
  }
}

// Indices as a ring has them, or not.
static void scribble_control(uint8_t* control) {
  static const uint32_t offsets[] = {0, 4, 8, 12, 0x40, 0xFF8};
  for (uint32_t count = 1 + random_below(6); count > 0; --count) {
    volatile uint32_t* const word =
        (volatile uint32_t*)(control + (one_in(8) ? random_below(PAGE_BYTES / 4) * 4
                                                  : offsets[random_below(6)]));
    *word = one_in(4) ? (uint32_t)random_number() : random_below(5 * PAGE_BYTES) & ~7u;
  }
}
static void scribble(uint8_t* rings) {
  for (uint32_t count = 1 + random_below(8); count > 0; --count) {
    uint8_t* const page = rings + random_below(VICTIM_PAGES) * PAGE_BYTES;
    switch (random_below(3)) {
      case 0:
        scribble_control(page);
        break;
      case 1: {
        // A packet that might be one.
        const uint16_t packet[8] = {(uint16_t)random_below(16), (uint16_t)random_below(8),
                                    (uint16_t)random_below(300), (uint16_t)random_below(2)};
        copy_bytes(page + random_below(500) * 8, packet, sizeof packet);
        break;
      }
      default:
        random_bytes(page + random_below(3072), 64 + random_below(960));
    }
  }
}

// Opens a channel as it should be, or nearly, and then is at its rings.
static void ruin_a_channel(void) {
  const uint32_t channel = some_victim();
  if (channel == 0) return;
  uint8_t* const rings = victim_rings[random_below(VICTIM_RINGS)];
  const uint32_t gpadl = 0x1000 + random_below(1 << 20);
  const uint32_t pages = 2 + random_below(VICTIM_PAGES - 1);
  const uint32_t downstream = one_in(6) ? random_below(20) : 1 + random_below(pages - 1);
  fill_bytes(rings, 0, VICTIM_PAGES * PAGE_BYTES);
  if (one_in(3)) scribble(rings);
  rings[0x40] = 1;
  if (downstream < VICTIM_PAGES) rings[downstream * PAGE_BYTES + 0x40] = 1;
  post_gpadl(channel, gpadl, rings, pages);
  uint32_t open[37] = {OPEN_CHANNEL, 0,     channel,
                       gpadl,        gpadl, one_in(6) ? (uint32_t)random_number() : random_below(2),
                       downstream};
  post_wrong(open, sizeof open);
  for (uint32_t count = random_below(12); count > 0; --count) {
    if (one_in(3)) take_messages();
    scribble(rings);
    // A little that may be right: a write index further on.
    if (one_in(2)) *(volatile uint32_t*)rings = 24 + 8 * random_below(64);
    signal(0x2000 | channel);
  }
  if (one_in(3)) {
    const uint32_t modify[4] = {22, 0, channel, random_below(3)};
    post_wrong(modify, sizeof modify);
  }
  const uint32_t teardown[4] = {GPADL_TEARDOWN, 0, channel, gpadl};
  const uint32_t close[3] = {CLOSE_CHANNEL, 0, channel};
  const uint32_t release[3] = {REL_ID_RELEASED, 0, channel};
  for (uint32_t count = random_below(5); count > 0; --count) {
    switch (random_below(4)) {
      case 0:
        post_wrong(teardown, sizeof teardown);
        break;
      case 1:
        if (one_in(8)) post_wrong(release, sizeof release);
        break;
      default:
        post_wrong(close, sizeof close);
    }
    scribble(rings);
  }
}

static void signal_without_end(void) {
  for (uint32_t count = random_below(300); count > 0; --count) {
    const uint64_t connection =
        one_in(4) ? random_number() : 0x2000 | (one_in(2) ? some_channel() : some_victim());
    const uint64_t flag = one_in(8) ? random_number() << 32 : 0;
    hypercall(HV_SIGNAL_EVENT_FAST, connection | flag, 0);
  }
}

static void call_wrongly(void) {
  static uint8_t input[2 * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
  for (uint32_t count = random_below(30); count > 0; --count) {
    random_bytes(input + PAGE_BYTES - 256, 512);
    uint64_t control = one_in(4) ? random_number() : 0x5C + random_below(2);
    if (one_in(4)) control |= 1ull << random_below(64);
    uint64_t address = (uint64_t)input + PAGE_BYTES - (one_in(2) ? 256 : random_below(300));
    if (one_in(3)) address = one_in(2) ? random_number() : ~0ull - random_below(512);
    // The end of memory, wherever it is.
    if (one_in(6)) address = (1ull << (20 + random_below(12))) - random_below(512);
    const uint32_t status = (uint32_t)hypercall(control, address, random_number()) & 0xFFFF;
    if (status == HV_SUCCESS && (control & 0xFFFF) == 0x5C) ++counts.posted;
  }
  const uint8_t empty[MESSAGE_BYTES] = {0};
  post_raw((uint32_t)random_number(), 1, 16, empty, 16);
  post_raw(1, (uint32_t)random_number(), 16, empty, 16);
  post_raw(1, 1, (uint32_t)random_number(), empty, MESSAGE_BYTES);
}

static void write_wrong_registers(void) {
  uint64_t value;
  for (uint32_t count = random_below(30); count > 0; --count) {
    const uint32_t index =
        one_in(4) ? 0x40000000 + random_below(0x200) : 0x40000080 + random_below(0x20);
    read_msr(index, &value);
    value = one_in(2) ? random_number()
                      : (random_below(1 << 20) * (uint64_t)PAGE_BYTES) << random_below(30);
    switch (index) {
      case MSR_HYPERCALL:
        // Not the bit that makes it stay, and not over what is the program's.
        value = (value & ~3ull) | 1ull << 40 | (value & 1);
        break;
      case MSR_SIMP:
      case MSR_SIEFP:
      case 0x40000021:  // the reference counter's page
      case 0x40000073:  // the assist page
        value |= 1ull << 40 | 1;
        break;
      default:
        break;
    }
    // Timers, crash, reset and the like are none of the bus's.
    const bool is_known = index <= 0x40000002 || index == 0x40000021 || index == 0x40000073 ||
                          (index >= 0x40000080 && index <= 0x4000009F);
    if (is_known || index > 0x40000130) write_msr(index, value);
    if (one_in(3)) signal(steady.connection);
  }
  set_up_hyperv();
}

// Makes the host say more than is taken.
static void flood(void) {
  uint32_t header[7] = {GPADL_HEADER, 0, 0, 1, 1 << 16 | 16, 0, 0};
  for (uint32_t count = 100 + random_below(one_in(20) ? 5000 : 400); count > 0; --count) {
    header[2] = one_in(2) ? 0 : some_channel();
    header[3] = some_gpadl();
    if (post_raw(1, 1, sizeof header, header, sizeof header) == HV_INSUFFICIENT_BUFFERS &&
        one_in(50))
      break;
  }
}

static void start_over(void) {
  ++reconnects;
  const uint32_t unload[2] = {UNLOAD, 0};
  if (one_in(2)) post(unload, sizeof unload);
  if (one_in(2)) {
    const uint32_t close[3] = {CLOSE_CHANNEL, 0, steady.channel};
    post(close, sizeof close);
  }
  for (uint32_t count = random_below(4); count > 0; --count) {
    const uint32_t contact[10] = {INITIATE_CONTACT, 0, version, random_below(3), 2};
    post_raw(one_in(2) ? 1 : 4, 1, sizeof contact, contact, sizeof contact);
    if (one_in(2)) send_rubbish();
  }
  connect_bus(version);
  open_steady();
}

static void attack(void) {
  switch (random_below(16)) {
    case 0:
    case 1:
    case 2:
      return send_rubbish();
    case 3:
    case 4:
    case 5:
      return send_gpadls();
    case 6:
    case 7:
    case 8:
    case 9:
      return ruin_a_channel();
    case 10:
    case 11:
      return signal_without_end();
    case 12:
      return call_wrongly();
    case 13:
      return write_wrong_registers();
    case 14:
      return one_in(3) ? flood() : send_rubbish();
    default:
      return one_in(2) ? start_over() : send_gpadls();
  }
}

static void tell(const char* what, uint64_t number) {
  print(what);
  print_number(number);
  print("\n");
}

void guest_main(const char* command_line) {
  const uint64_t seed = option(command_line, "seed", 1);
  const uint64_t attacks = option(command_line, "attacks", 0);
  const bool is_calm = option(command_line, "calm", 0) != 0;
  version = (uint32_t)option(command_line, "version", 0x50003);
  seed_random(seed);
  set_up_hyperv();
  connect_bus(version);
  describe_no_memory();
  open_steady();
  print("connected\n");
  for (uint64_t number = 0; attacks != 0 ? number < attacks : !is_calm || !key_pressed();
       ++number) {
    if (!is_calm) attack();
    take_messages();
    release_rescinded();
    use_steady();
  }
  tell("seed ", seed);
  tell("messages ", counts.posted);
  tell("refused at once ", counts.refused_posts);
  tell("answers ", counts.taken);
  tell("rescinds ", counts.rescinds);
  tell("reconnects ", reconnects);
  tell("slowest echo, cycles ", slowest);
  tell("echoes ", echoes);
}
