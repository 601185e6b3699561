// The two ways in: which transport an address means.
#include "transport/link.h"

#include "transport/address.h"
#include "transport/bells.h"
#include "transport/local_link.h"
#include "transport/shm_link.h"
#include "transport/shm_listener.h"
#include "transport/transfer.h"
#include "transport/uio/kernel_link.h"
#include "wire/gpa_range.h"

namespace kmcl::transport {

Result<Transfer> Link::Export() const { return std::unexpected(Error::kSaveUnsupported); }

void Link::OnContact(wire::ProcessorIndex) {}
void Link::ListenTo(wire::ChannelId, bool) {}

std::optional<wire::PageNumber> Link::FirstMissing(std::span<const wire::PageNumber>) const {
  return std::nullopt;
}

Result<ClientRings> ClientLink::MakeRings(wire::ChannelId, std::uint32_t outgoing_pages,
                                          std::uint32_t incoming_pages) {
  const auto run = AllocatePages(outgoing_pages + incoming_pages);
  if (!run) return std::unexpected(run.error());
  const auto ranges = wire::GpaRangeList::OfPages(run->first, run->count);
  auto mapping = ranges ? MapRings(ranges->pages(), outgoing_pages)
                        : Result<RingMapping>(std::unexpected(ranges.error()));
  if (!mapping) {
    FreePages(*run);
    return std::unexpected(mapping.error());
  }
  return ClientRings{.run = *run,
                     .downstream_page = outgoing_pages,
                     .mapping = std::move(*mapping),
                     .in_use = false};
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
    case Address::Kind::kUio:
      break;  // the host serves it
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
    case Address::Kind::kUio:
      return uio::KernelLink::Dial(uio::KernelBus(), parsed->instance, options);
  }
  return std::unexpected(Error::kAddressMalformed);
}

}  // namespace kmcl::transport
