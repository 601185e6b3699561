#include "transport/kvm/guest_bus.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "log.h"
#include "transport/kvm/guest_link.h"

namespace kmcl::transport::kvm {
namespace {

// A guest that does not take its messages is not listened to. All offers there can be, and more.
constexpr std::size_t kMostUntakenMessages = 4096;

}  // namespace

// Borrows the bus only by a shared pointer: it may outlive everything but the machine.
class GuestBus::GuestListener final : public Listener {
 public:
  explicit GuestListener(std::shared_ptr<GuestBus> bus) : bus_(std::move(bus)) {}
  ~GuestListener() override { bus_->StopListening(); }

  int fd() const override { return bus_->arrival_.get(); }
  const std::string& address() const override { return address_; }
  Result<std::unique_ptr<Link>> Accept() override { return bus_->Accept(); }

 private:
  const std::shared_ptr<GuestBus> bus_;
  const std::string address_ = "kvm";
};

Result<std::shared_ptr<GuestBus>> GuestBus::Create(GuestMemory& memory, Synic& synic,
                                                   std::uint32_t processor_count,
                                                   SignalRoutes* routes) {
  Descriptor arrival(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!arrival) return std::unexpected(Error::kOutOfDescriptors);
  return std::shared_ptr<GuestBus>(
      new GuestBus(memory, synic, processor_count, routes, std::move(arrival)));
}

// ---- The guest's

HypercallStatus GuestBus::Call(std::uint64_t control, std::uint64_t input) {
  const auto call = ParseHypercall(memory_, control, input);
  HypercallStatus status = HypercallStatus::kSuccess;
  if (!call) {
    status = call.error();
  } else if (const auto* message = std::get_if<PostMessage>(&*call)) {
    messages_.fetch_add(1, std::memory_order_relaxed);
    status = Post(*message);
  } else {
    signals_.fetch_add(1, std::memory_order_relaxed);
    status = Signal(std::get<SignalEvent>(*call));
  }
  // To be told to try again is no fault.
  if (status == HypercallStatus::kSuccess || status == HypercallStatus::kInsufficientBuffers) {
    return status;
  }
  if (const auto count = refused_calls_.Count()) {
    Log(LogLevel::kInfo, "kvm: hypercall 0x%llx (0x%llx) refused with 0x%x; %llu refused so far",
        static_cast<unsigned long long>(control), static_cast<unsigned long long>(input),
        static_cast<unsigned>(status), static_cast<unsigned long long>(*count));
  }
  return status;
}

GuestBus::Counts GuestBus::counts() const {
  std::shared_ptr<GuestSession> session;
  {
    MutexLock lock(mutex_);
    session = session_;
  }
  return {.messages = messages_.load(std::memory_order_relaxed),
          .signals = signals_.load(std::memory_order_relaxed),
          .refused = refused_calls_.count(),
          .routed_channels = session == nullptr ? 0 : session->routed()};
}

HypercallStatus GuestBus::Post(const PostMessage& message) {
  if (message.connection != wire::kMessageConnection &&
      message.connection != wire::kMultiClientMessageConnection) {
    return HypercallStatus::kInvalidConnection;
  }
  const std::uint32_t processor = message_processor_.load(std::memory_order_relaxed);
  if (synic_.waiting_messages(processor) >= kMostUntakenMessages) {
    return HypercallStatus::kInsufficientBuffers;
  }
  const auto session = SessionForMessage();
  if (!session) {
    return session.error() == Error::kNoBus ? HypercallStatus::kInvalidConnection
                                            : HypercallStatus::kInsufficientBuffers;
  }
  switch ((*session)->Post(message.message())) {
    case GuestSession::Posted::kDone:
      return HypercallStatus::kSuccess;
    // One that ends at this moment: the next try finds another.
    case GuestSession::Posted::kEnded:
    case GuestSession::Posted::kFull:
      return HypercallStatus::kInsufficientBuffers;
  }
  return HypercallStatus::kInvalidConnection;
}

HypercallStatus GuestBus::Signal(const SignalEvent& event) {
  const auto channel = wire::ChannelOfEvent(event.connection);
  if (!channel) return HypercallStatus::kInvalidConnection;
  std::shared_ptr<GuestSession> session;
  {
    MutexLock lock(mutex_);
    session = session_;
  }
  if (session == nullptr || !session->Signal(*channel)) return HypercallStatus::kInvalidConnection;
  return HypercallStatus::kSuccess;
}

Result<std::shared_ptr<GuestSession>> GuestBus::SessionForMessage() {
  {
    MutexLock lock(mutex_);
    if (!listening_) return std::unexpected(Error::kNoBus);
    if (session_ != nullptr && !session_->ended()) return session_;
  }
  auto made = GuestSession::Create(processor_count_, routes_);
  if (!made) return std::unexpected(made.error());
  {
    MutexLock lock(mutex_);
    if (!listening_) return std::unexpected(Error::kNoBus);
    // Another processor was faster.
    if (session_ != nullptr && !session_->ended()) return session_;
    session_ = *made;
    accepted_ = false;
  }
  (void)eventfd_write(arrival_.get(), 1);
  return made;
}

// ---- The server's

std::unique_ptr<Listener> GuestBus::Listen() {
  MutexLock lock(mutex_);
  KMCL_CHECK(!listening_);
  listening_ = true;
  return std::make_unique<GuestListener>(shared_from_this());
}

void GuestBus::StopListening() {
  MutexLock lock(mutex_);
  listening_ = false;
  if (session_ != nullptr && !accepted_) session_.reset();  // nobody has listened to it
}

std::unique_ptr<Link> GuestBus::Accept() {
  eventfd_t count = 0;
  (void)eventfd_read(arrival_.get(), &count);
  MutexLock lock(mutex_);
  if (session_ == nullptr || accepted_) return nullptr;
  accepted_ = true;
  ++links_;
  return std::make_unique<GuestLink>(shared_from_this(), session_);
}

void GuestBus::OnLinkGone() {
  MutexLock lock(mutex_);
  --links_;
  changed_.NotifyAll();
}

void GuestBus::Reset() {
  std::shared_ptr<GuestSession> ended;
  {
    MutexLock lock(mutex_);
    ended = std::move(session_);
  }
  if (ended != nullptr) ended->End();
  MutexLock lock(mutex_);
  while (links_ > 0) changed_.Wait(mutex_);
  message_processor_.store(0, std::memory_order_relaxed);
}

}  // namespace kmcl::transport::kvm
