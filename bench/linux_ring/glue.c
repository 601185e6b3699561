/* A channel of Linux's for the benchmark: it has a ring, and nothing else works. */
#include <linux/hyperv.h>

int hv_ringbuffer_init(struct hv_ring_buffer_info* ring, struct page* pages, u32 page_count,
                       u32 max_packet);

static void* g_mapping;
void* linux_ring_mapping(void) { return g_mapping; }

/* The other end polls, and has masked its bell: nobody comes here. */
void vmbus_setevent(struct vmbus_channel* channel) {
  (void)channel;
  abort();
}

struct vmbus_channel* linux_ring_create(void* mapping, u32 data_bytes, bool outbound,
                                        u32 largest_packet) {
  struct vmbus_channel* const channel = aligned_alloc(64, (sizeof(*channel) + 63) / 64 * 64);
  if (channel == NULL) return NULL;
  memset(channel, 0, sizeof(*channel));
  g_mapping = mapping;
  if (hv_ringbuffer_init(outbound ? &channel->outbound : &channel->inbound, mapping,
                         data_bytes / PAGE_SIZE + 1, largest_packet) != 0) {
    free(channel);
    return NULL;
  }
  return channel;
}

void linux_ring_mask(struct vmbus_channel* channel) {
  WRITE_ONCE(channel->inbound.ring_buffer->interrupt_mask, 1);
}

bool linux_ring_empty(const struct vmbus_channel* channel) {
  return READ_ONCE(channel->inbound.ring_buffer->write_index) == channel->inbound.priv_read_index;
}
