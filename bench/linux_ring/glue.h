// How the benchmark reaches Linux's ring_buffer.c. The functions that are not ours are that file's.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct vmbus_channel;  // opaque here

struct kvec {
  void* iov_base;
  std::size_t iov_len;
};

// The kernel's names, and the wire's layout.
struct vmpacket_descriptor {
  std::uint16_t type;
  std::uint16_t offset8;
  std::uint16_t len8;
  std::uint16_t flags;
  std::uint64_t trans_id;
};

// A channel with one ring: the control page at `mapping` and the data behind it, twice in a row.
// Sets the ring's first state. nullptr: no memory.
vmbus_channel* linux_ring_create(void* mapping, std::uint32_t data_bytes, bool outbound,
                                 std::uint32_t largest_packet);
void linux_ring_mask(vmbus_channel* channel);
bool linux_ring_empty(const vmbus_channel* channel);

int hv_ringbuffer_write(vmbus_channel* channel, const kvec* parts, std::uint32_t count,
                        std::uint64_t request_id, std::uint64_t* transaction_id);
vmpacket_descriptor* hv_pkt_iter_first(vmbus_channel* channel);
vmpacket_descriptor* __hv_pkt_iter_next(vmbus_channel* channel, const vmpacket_descriptor* packet);
void hv_pkt_iter_close(vmbus_channel* channel);
int hv_ringbuffer_read(vmbus_channel* channel, void* buffer, std::uint32_t buffer_bytes,
                       std::uint32_t* packet_bytes, std::uint64_t* request_id, bool raw);

}  // extern "C"
