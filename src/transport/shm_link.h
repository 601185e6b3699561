// The shm transport: two processes, a Unix SOCK_SEQPACKET socket and a memfd. The socket carries
// the hello, the welcome, and then control messages, nothing else (docs/transports.md).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "transport/basic_link.h"
#include "transport/descriptor.h"
#include "transport/handshake.h"
#include "transport/link.h"
#include "transport/transfer.h"

namespace kmcl::transport {

// The server's end. Born with the accepted socket; Receive reads the hello and answers it.
class ShmServerLink final : public BasicLink<Link> {
 public:
  explicit ShmServerLink(Descriptor socket) : BasicLink(MessageSocket(std::move(socket))) {}

  Result<void> Send(std::span<const std::byte> message) override;  // kNotConnected before ready()
  ReceivedMessage Receive(std::span<std::byte> buffer) override;
  void Refuse(const char* reason) override;
  Result<Transfer> Export() const override;

  // Goes on where another process left the link. kMessageTooShort, kMessageTooLong for what is no
  // unsent message.
  [[nodiscard]] Result<void> Resume(PartitionMemory memory, Bells bells,
                                    const std::vector<std::span<const std::byte>>& unsent);

 private:
  void TakeHello();
  void RefuseWith(WelcomeStatus status, const char* reason);
};

// Sends a refusal and hangs up, for a socket that never becomes a link. Never blocks.
void RefuseConnection(Descriptor socket, const char* reason);

// See Dial.
[[nodiscard]] Result<std::unique_ptr<ClientLink>> DialShm(const std::string& path,
                                                          const DialOptions& options);

}  // namespace kmcl::transport
