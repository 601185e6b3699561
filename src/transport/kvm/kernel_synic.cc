#include "transport/kvm/kernel_synic.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>

#include "errno_text.h"
#include "log.h"
#include "transport/kvm/enlightenments.h"
#include "wire/messages.h"

namespace kmcl::transport::kvm {
namespace {

constexpr std::uint32_t kLegacyPins = 16;  // of the two PICs
constexpr std::uint32_t kIoApicPins = 24;
constexpr std::uint32_t kPicPins = 8;
constexpr std::uint32_t kFirstSintLine = kIoApicPins;  // the first that no legacy device has
constexpr std::uint64_t kSintReset = 0x10000;
constexpr std::uint64_t kFastHypercall = 1 << 16;
constexpr std::uint64_t kSignalEvent = 0x005D;
constexpr std::uint64_t kCodeMask = 0xFFFF;

Error LogFailure(const char* what) {
  Log(LogLevel::kError, "kvm: %s: %s", what, ErrnoText(errno).words());
  return Error::kSystemCall;
}

Result<Descriptor> MakeEvent() {
  Descriptor event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return std::unexpected(Error::kOutOfDescriptors);
  return event;
}

}  // namespace

bool KernelSynic::IsThere(int kvm) {
  return ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_HYPERV_SYNIC2) > 0 &&
         ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD_RESAMPLE) > 0;
}

Result<std::unique_ptr<KernelSynic>> KernelSynic::Create(int vm, std::span<const int> processors,
                                                         Synic& synic) {
  std::unique_ptr<KernelSynic> made(new KernelSynic(vm, processors, synic));
  made->epoll_ = Descriptor(epoll_create1(EPOLL_CLOEXEC));
  auto stop = MakeEvent();
  if (!made->epoll_ || !stop) return std::unexpected(Error::kOutOfDescriptors);
  made->stop_ = *std::move(stop);
  for (std::size_t index = 0; index < processors.size(); ++index) {
    auto raise = MakeEvent();
    auto ended = MakeEvent();
    if (!raise || !ended) return std::unexpected(Error::kOutOfDescriptors);
    made->raise_.push_back(*std::move(raise));
    made->ended_.push_back(*std::move(ended));
  }
  return made;
}

KernelSynic::~KernelSynic() {
  if (!thread_.joinable()) return;
  (void)eventfd_write(stop_.get(), 1);
  thread_.join();
}

// ---- Starting

Result<void> KernelSynic::Start() {
  // The controllers first: KVM computes from the routing whose interrupts' ends are told, and
  // counts only those that are on.
  for (const int processor : processors_) {
    kvm_enable_cap synic{};
    synic.cap = KVM_CAP_HYPERV_SYNIC2;
    if (ioctl(processor, KVM_ENABLE_CAP, &synic) != 0) {
      return std::unexpected(LogFailure("turning the SynIC on"));
    }
  }
  if (const auto routed = SetRouting(); !routed) return routed;
  for (std::uint32_t index = 0; index < processors_.size(); ++index) {
    if (const auto connected = ConnectLine(index); !connected) return connected;
  }
  epoll_event stop{.events = EPOLLIN, .data = {.u64 = processors_.size()}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stop_.get(), &stop) != 0) {
    return std::unexpected(LogFailure("epoll_ctl"));
  }
  try {
    thread_ = std::thread([this] { WaitForEnds(); });
  } catch (const std::exception&) {
    return std::unexpected(Error::kOutOfMemory);
  }
  return {};
}

Result<void> KernelSynic::SetRouting() {
  std::vector<kvm_irq_routing_entry> entries;
  const auto add_pin = [&](std::uint32_t line, std::uint32_t chip, std::uint32_t pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = line;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
    entries.push_back(entry);
  };
  for (std::uint32_t line = 0; line < kIoApicPins; ++line) {
    if (line < kLegacyPins) {
      add_pin(line, line < kPicPins ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
              line % kPicPins);
    }
    add_pin(line, KVM_IRQCHIP_IOAPIC, line);
  }
  for (std::uint32_t index = 0; index < processors_.size(); ++index) {
    kvm_irq_routing_entry entry{};
    entry.gsi = kFirstSintLine + index;
    entry.type = KVM_IRQ_ROUTING_HV_SINT;
    entry.u.hv_sint.vcpu = index;
    entry.u.hv_sint.sint = wire::kVmbusSint;
    entries.push_back(entry);
  }
  const std::size_t bytes = sizeof(kvm_irq_routing) + entries.size() * sizeof entries[0];
  std::vector<std::uint64_t> storage((bytes + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t));
  auto* const routing = reinterpret_cast<kvm_irq_routing*>(storage.data());
  routing->nr = static_cast<std::uint32_t>(entries.size());
  std::memcpy(reinterpret_cast<std::byte*>(storage.data()) + sizeof *routing, entries.data(),
              entries.size() * sizeof entries[0]);
  if (ioctl(vm_, KVM_SET_GSI_ROUTING, routing) != 0) {
    return std::unexpected(LogFailure("routing the SynIC's interrupts"));
  }
  return {};
}

Result<void> KernelSynic::ConnectLine(std::uint32_t processor) {
  kvm_irqfd line{};
  line.fd = static_cast<std::uint32_t>(raise_[processor].get());
  line.gsi = kFirstSintLine + processor;
  line.flags = KVM_IRQFD_FLAG_RESAMPLE;
  line.resamplefd = static_cast<std::uint32_t>(ended_[processor].get());
  epoll_event ended{.events = EPOLLIN | EPOLLET, .data = {.u64 = processor}};
  if (ioctl(vm_, KVM_IRQFD, &line) != 0 ||
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, ended_[processor].get(), &ended) != 0) {
    return std::unexpected(LogFailure("connecting the SynIC's interrupts"));
  }
  return {};
}

// ---- Running

void KernelSynic::WaitForEnds() {
  std::array<epoll_event, 16> events;
  while (true) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int index = 0; index < count; ++index) {
      const std::uint64_t processor = events[static_cast<std::size_t>(index)].data.u64;
      if (processor >= processors_.size()) return;
      // The slot may be free now; or not, as event flags end interrupts, too.
      (void)synic_.WriteRegister(static_cast<std::uint32_t>(processor), msr::kEom, 0);
    }
  }
}

void KernelSynic::RaiseInterrupt(std::uint32_t processor) {
  (void)eventfd_write(raise_[processor].get(), 1);
}

bool KernelSynic::Connect(std::uint32_t connection, int event) {
  kvm_hyperv_eventfd route{};
  route.conn_id = connection;
  route.fd = event;
  if (ioctl(vm_, KVM_HYPERV_EVENTFD, &route) == 0) return true;
  if (!routes_refused_.exchange(true)) {
    Log(LogLevel::kWarning, "kvm: signals of connection 0x%x leave the kernel: %s", connection,
        ErrnoText(errno).words());
  }
  return false;
}

void KernelSynic::Disconnect(std::uint32_t connection) {
  kvm_hyperv_eventfd route{};
  route.conn_id = connection;
  route.fd = -1;
  route.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
  if (ioctl(vm_, KVM_HYPERV_EVENTFD, &route) != 0) {
    Log(LogLevel::kError, "kvm: connection 0x%x cannot be disconnected: %s", connection,
        ErrnoText(errno).words());
  }
}

bool KernelSynic::HandleExit(std::uint32_t processor, kvm_run& run, GuestBus& bus) {
  kvm_hyperv_exit& exit = run.hyperv;
  switch (exit.type) {
    case KVM_EXIT_HYPERV_SYNIC:
      synic_.SetPages(processor, exit.u.synic.control, exit.u.synic.msg_page,
                      exit.u.synic.evt_page);
      return true;
    case KVM_EXIT_HYPERV_HCALL: {
      std::uint64_t control = exit.u.hcall.input;
      // KVM has fetched this one's parameter from memory already.
      if ((control & kCodeMask) == kSignalEvent) control |= kFastHypercall;
      exit.u.hcall.result = static_cast<std::uint64_t>(bus.Call(control, exit.u.hcall.params[0]));
      return true;
    }
    default:
      return false;
  }
}

void KernelSynic::Reset() {
  struct {
    std::uint32_t count;
    std::uint32_t padding;
    kvm_msr_entry entry;
  } request{};
  static_assert(sizeof request == sizeof(kvm_msrs) + sizeof(kvm_msr_entry));
  request.count = 1;
  for (const int processor : processors_) {
    const auto write = [&](std::uint32_t index, std::uint64_t value) {
      request.entry.index = index;
      request.entry.data = value;
      if (ioctl(processor, KVM_SET_MSRS, &request) == 1) return;
      Log(LogLevel::kError, "kvm: register 0x%x cannot be reset", index);
    };
    write(msr::kSimp, 0);
    write(msr::kSiefp, 0);
    for (std::uint32_t sint = msr::kSint0; sint <= msr::kSint15; ++sint) write(sint, kSintReset);
    write(msr::kVpAssistPage, 0);
    write(msr::kReferenceTsc, 0);
    write(msr::kHypercall, 0);
    write(msr::kGuestOsId, 0);
  }
}

}  // namespace kmcl::transport::kvm
