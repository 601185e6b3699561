#include "transport/kvm/synic.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "log.h"
#include "wire/messages.h"

namespace kmcl::transport::kvm {
namespace {

// Words are little-endian in the format.
static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kEnable = 1;
constexpr std::uint64_t kVersion = 1;

constexpr std::uint64_t kSintVector = 0xFF;
constexpr std::uint64_t kSintMasked = 1 << 16;
constexpr std::uint64_t kSintAutoEoi = 1 << 17;
constexpr std::uint64_t kSintPolling = 1 << 18;
constexpr std::uint64_t kSintBits = kSintVector | kSintMasked | kSintAutoEoi | kSintPolling;
constexpr std::uint64_t kFirstVector = 16;

// A page has 256 bytes for each source: one message, or 2,048 flags (VMBus reference 4.2).
constexpr std::size_t kSourceBytes = 256;
constexpr std::size_t kFlagBits = kSourceBytes * 8;

// Offsets in a message slot.
constexpr std::size_t kSlotType = 0;
constexpr std::size_t kSlotSize = 4;
constexpr std::size_t kSlotFlags = 5;
constexpr std::size_t kSlotSender = 8;
constexpr std::size_t kSlotPayload = 16;
static_assert(kSlotPayload + kMaximumMessageBytes == kSourceBytes);

constexpr std::uint32_t kTypeNone = 0;
constexpr std::uint32_t kTypeVmbus = 1;
constexpr std::uint8_t kMessagePending = 1;

// The only way to the words that both sides write.
std::atomic_ref<std::uint32_t> Type(std::byte* slot) {
  return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(slot + kSlotType));
}
std::atomic_ref<std::uint8_t> Flags(std::byte* slot) {
  return std::atomic_ref(*reinterpret_cast<std::uint8_t*>(slot + kSlotFlags));
}
std::atomic_ref<std::uint64_t> FlagWord(std::byte* flags, std::size_t index) {
  return std::atomic_ref(reinterpret_cast<std::uint64_t*>(flags)[index]);
}

}  // namespace

Synic::Synic(const GuestMemory& memory, Hardware& hardware, std::uint32_t processor_count)
    : memory_(memory), hardware_(hardware) {
  for (std::uint32_t index = 0; index < processor_count; ++index) {
    controllers_.push_back(std::make_unique<Controller>());
  }
}

// ---- Registers

std::optional<std::uint64_t> Synic::ReadRegister(std::uint32_t processor,
                                                 std::uint32_t index) const {
  const Controller& controller = *controllers_.at(processor);
  MutexLock lock(controller.mutex);
  if (index >= msr::kSint0 && index <= msr::kSint15) return controller.sint[index - msr::kSint0];
  switch (index) {
    case msr::kScontrol:
      return controller.control;
    case msr::kSversion:
      return kVersion;
    case msr::kSiefp:
      return controller.siefp;
    case msr::kSimp:
      return controller.simp;
    case msr::kEom:
      return 0;
    default:
      return std::nullopt;
  }
}

bool Synic::WriteRegister(std::uint32_t processor, std::uint32_t index, std::uint64_t value) {
  Controller& controller = *controllers_.at(processor);
  std::optional<std::uint8_t> vector;
  {
    MutexLock lock(controller.mutex);
    if (index >= msr::kSint0 && index <= msr::kSint15) {
      const bool is_masked = (value & kSintMasked) != 0;
      if ((value & kSintVector) < kFirstVector && !is_masked) return false;
      // There is nobody who could end the interrupt by itself; CPUID says so (deprecate auto-EOI).
      if ((value & kSintAutoEoi) != 0 && !is_masked && faults_.Count()) {
        Log(LogLevel::kWarning,
            "kvm: processor %u wants automatic EOI for SINT %u, which it does not get", processor,
            index - msr::kSint0);
      }
      controller.sint[index - msr::kSint0] = value & kSintBits;
    } else {
      switch (index) {
        case msr::kScontrol:
          controller.control = value & kEnable;
          break;
        case msr::kSiefp:
          controller.siefp = value;
          controller.flags = PartOfPage(value);
          break;
        case msr::kSimp:
          controller.simp = value;
          controller.slot = PartOfPage(value);
          break;
        case msr::kEom:  // the slot may be free now
          break;
        default:
          return false;
      }
    }
    if (Deliver(controller)) vector = Vector(controller);
  }
  if (vector) hardware_.RaiseInterrupt(processor, *vector);
  return true;
}

void Synic::SetPages(std::uint32_t processor, std::uint64_t control, std::uint64_t simp,
                     std::uint64_t siefp) {
  Controller& controller = *controllers_.at(processor);
  {
    MutexLock lock(controller.mutex);
    controller.control = control & kEnable;
    controller.sint[wire::kVmbusSint] = kFirstVector;
    controller.simp = simp;
    controller.slot = PartOfPage(simp);
    controller.siefp = siefp;
    controller.flags = PartOfPage(siefp);
    (void)Deliver(controller);
  }
  hardware_.RaiseInterrupt(processor, kFirstVector);
}

std::byte* Synic::PartOfPage(std::uint64_t page_register) {
  if ((page_register & kEnable) == 0) return nullptr;
  std::byte* const page = memory_.Window(wire::PageNumber{page_register / wire::kPageBytes}, 1);
  if (page != nullptr) return page + wire::kVmbusSint * kSourceBytes;
  if (faults_.Count()) {
    Log(LogLevel::kWarning, "kvm: a SynIC page at 0x%llx is none of the guest's memory",
        static_cast<unsigned long long>(page_register));
  }
  return nullptr;
}

void Synic::Reset() {
  for (const auto& each : controllers_) {
    Controller& controller = *each;
    MutexLock lock(controller.mutex);
    controller.control = 0;
    controller.siefp = 0;
    controller.simp = 0;
    controller.sint.fill(kSintReset);
    controller.slot = nullptr;
    controller.flags = nullptr;
    controller.messages.clear();
    controller.missed_flags = {};
  }
}

// ---- Delivery

bool Synic::IsOn(const Controller& controller) {
  return (controller.control & kEnable) != 0 &&
         (controller.sint[wire::kVmbusSint] & kSintMasked) == 0;
}

std::optional<std::uint8_t> Synic::Vector(const Controller& controller) {
  const std::uint64_t sint = controller.sint[wire::kVmbusSint];
  if ((sint & kSintPolling) != 0) return std::nullopt;
  return static_cast<std::uint8_t>(sint & kSintVector);
}

bool Synic::Deliver(Controller& controller) {
  if (!IsOn(controller)) return false;
  const bool has_flags = DeliverMissedFlags(controller);
  const bool has_message = DeliverMessage(controller);
  return has_flags || has_message;
}

// The guest takes a message by exchanging the type for 0 and only then looks whether another one is
// pending; if so, it writes EOM (VMBus reference 4.3). Here pending is set and only then the type
// looked at again. All four are sequentially consistent, so one of the two sees the other: the slot
// is found free here, or the guest writes EOM, which leads here.
bool Synic::DeliverMessage(Controller& controller) {
  std::byte* const slot = controller.slot;
  if (slot == nullptr || controller.messages.empty()) return false;
  if (Type(slot).load(std::memory_order_acquire) != kTypeNone) {
    Flags(slot).fetch_or(kMessagePending, std::memory_order_seq_cst);
    if (Type(slot).load(std::memory_order_seq_cst) != kTypeNone) return false;
  }
  const Message& message = controller.messages.front();
  const auto size = static_cast<std::uint8_t>(message.bytes);
  std::memcpy(slot + kSlotPayload, message.payload.data(), message.bytes);
  std::memset(slot + kSlotSender, 0, sizeof(std::uint64_t));
  std::memcpy(slot + kSlotSize, &size, sizeof size);
  // Before the type: who takes this message is to ask for the next one.
  Flags(slot).store(controller.messages.size() > 1 ? kMessagePending : 0,
                    std::memory_order_relaxed);
  // Release, for the guest's acquire when it looks whether there is a message.
  Type(slot).store(kTypeVmbus, std::memory_order_seq_cst);
  controller.messages.pop_front();
  return true;
}

bool Synic::DeliverMissedFlags(Controller& controller) {
  if (controller.flags == nullptr) return false;
  bool is_new = false;
  for (std::size_t index = 0; index < controller.missed_flags.size(); ++index) {
    const std::uint64_t missed = std::exchange(controller.missed_flags[index], 0);
    if (missed == 0) continue;
    is_new |= (FlagWord(controller.flags, index).fetch_or(missed) & missed) != missed;
  }
  return is_new;
}

void Synic::PostMessage(std::uint32_t processor, std::span<const std::byte> message) {
  KMCL_CHECK(message.size() <= kMaximumMessageBytes);
  Controller& controller = *controllers_.at(processor);
  std::optional<std::uint8_t> vector;
  {
    MutexLock lock(controller.mutex);
    Message& queued = controller.messages.emplace_back();
    queued.bytes = message.size();
    std::ranges::copy(message, queued.payload.begin());
    if (Deliver(controller)) vector = Vector(controller);
  }
  if (vector) hardware_.RaiseInterrupt(processor, *vector);
}

std::size_t Synic::waiting_messages(std::uint32_t processor) const {
  const Controller& controller = *controllers_.at(processor);
  MutexLock lock(controller.mutex);
  return controller.messages.size();
}

void Synic::Forget() {
  for (const auto& each : controllers_) {
    Controller& controller = *each;
    MutexLock lock(controller.mutex);
    controller.messages.clear();
    controller.missed_flags = {};
  }
}

void Synic::SetEventFlag(std::uint32_t processor, std::uint32_t flag) {
  KMCL_CHECK(flag < kFlagBits);
  Controller& controller = *controllers_.at(processor);
  const std::uint64_t bit = std::uint64_t{1} << flag % 64;
  std::optional<std::uint8_t> vector;
  {
    MutexLock lock(controller.mutex);
    if (!IsOn(controller) || controller.flags == nullptr) {
      controller.missed_flags[flag / 64] |= bit;
      return;
    }
    // Who finds the flag set need not raise: whoever set it did, or is about to, and the guest has
    // not taken the flag since. Sequentially consistent with the guest's locked test-and-clear.
    if ((FlagWord(controller.flags, flag / 64).fetch_or(bit) & bit) != 0) return;
    vector = Vector(controller);
  }
  if (vector) hardware_.RaiseInterrupt(processor, *vector);
}

}  // namespace kmcl::transport::kvm
