// Datagrams that carry descriptors over a Unix socket, and how to be safe from those of a stranger.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "result.h"
#include "transport/descriptor.h"

namespace kmcl::transport {

inline constexpr std::size_t kMaximumPassedDescriptors = 32;

struct ReceivedDatagram {
  enum class Status { kDatagram, kNothing, kEnd };
  Status status = Status::kNothing;
  std::size_t bytes = 0;
  bool truncated = false;  // longer than the buffer, or with more descriptors than were wanted
  // Some of those that were wanted found no place in our process: it has as many as it may have. No
  // peer can bring that about by what it sends.
  bool out_of_descriptors = false;
  std::vector<Descriptor> descriptors;
};

// Takes one datagram, without waiting, and at most `maximum_descriptors` (up to 32) descriptors
// with it; the kernel drops the others. With 0, none ever enters our process. An empty datagram
// reads as the end: nobody sends one in earnest.
ReceivedDatagram ReceiveDatagram(int socket, std::span<std::byte> buffer,
                                 std::size_t maximum_descriptors);

// Sends one datagram, without waiting and without SIGPIPE. The descriptors stay the caller's.
// kWouldBlock: the socket is full. kPeerGone. kPermissionDenied: the peer takes no
// descriptors any more. kOutOfDescriptors: too many of this user's are on their way already.
// kSystemCall: logged.
[[nodiscard]] Result<void> SendDatagram(int socket, std::span<const std::byte> datagram,
                                        std::span<const Descriptor> descriptors = {});

// Lets the kernel refuse descriptors that the peer wants to send from now on (Linux 6.16). Dropping
// one can take as long as its last owner wishes, a TCP socket that lingers for instance.
void RefuseDescriptors(int socket);

// Closes descriptors that a stranger made, or holds too, on a thread of their own. close() of a
// file in a FUSE file system waits for whoever serves it, and the last close() of a file that an
// epoll watches waits for a lock of that epoll, which the stranger can hold for as long as it
// likes.
void CloseForeign(Descriptor descriptor);
void CloseForeign(std::vector<Descriptor> descriptors);
// How many of these threads have not finished. Any thread.
std::size_t ForeignClosingsUnderWay();
// So many of them, for as long as clients hold them up, and a listener lets no other client in.
inline constexpr std::size_t kMostForeignClosings = 256;

}  // namespace kmcl::transport
