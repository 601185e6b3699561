// The two ways in: which transport an address means.
#include "transport/link.h"

#include "transport/address.h"
#include "transport/bells.h"
#include "transport/local_link.h"
#include "transport/shm_link.h"
#include "transport/shm_listener.h"
#include "transport/transfer.h"

namespace kmcl::transport {

Result<Transfer> Link::Export() const { return std::unexpected(Error::kSaveUnsupported); }

void Link::OnContact(wire::ProcessorIndex) {}
void Link::ListenTo(wire::ChannelId, bool) {}

std::optional<wire::PageNumber> Link::FirstMissing(std::span<const wire::PageNumber>) const {
  return std::nullopt;
}

Result<Transfer> Listener::Export() const { return std::unexpected(Error::kSaveUnsupported); }

Result<std::unique_ptr<Listener>> Listen(const std::string& address) {
  const Result<Address> parsed = ParseAddress(address);
  if (!parsed) return std::unexpected(parsed.error());
  switch (parsed->kind) {
    case Address::Kind::kLocal:
      return ListenLocal(parsed->name);
    case Address::Kind::kUnix:
      return ListenShm(parsed->name);
  }
  return std::unexpected(Error::kAddressMalformed);
}

Result<std::unique_ptr<ClientLink>> Dial(const std::string& address, const DialOptions& options) {
  const Result<Address> parsed = ParseAddress(address);
  if (!parsed) return std::unexpected(parsed.error());
  if (options.bell_count < 1 || options.bell_count > kMaximumBellCount) {
    return std::unexpected(Error::kFieldOutOfRange);
  }
  switch (parsed->kind) {
    case Address::Kind::kLocal:
      return DialLocal(parsed->name, options);
    case Address::Kind::kUnix:
      return DialShm(parsed->name, options);
  }
  return std::unexpected(Error::kAddressMalformed);
}

}  // namespace kmcl::transport
