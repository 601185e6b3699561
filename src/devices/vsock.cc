#include "devices/vsock.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kWakeToken = 0;  // no number is 0
constexpr std::uint64_t kListenerToken = 1;

bool IsSame(const GUID& one, const GUID& other) {
  return std::memcmp(&one, &other, sizeof(GUID)) == 0;
}

std::optional<std::uint32_t> PortOf(const GUID& service) {
  if (!IsSame(service, VsockPort(service.Data1))) {
    return std::nullopt;
  }
  return service.Data1;
}

std::string SocketPathOf(const std::string& path) {
  struct stat about{};
  const bool is_folder = stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
  return is_folder ? path + "/vsock" : path;
}

bool IsSocket(const std::string& path) {
  struct stat about{};
  return HostSocket::IsPath(path) && stat(path.c_str(), &about) == 0 && S_ISSOCK(about.st_mode);
}

}  // namespace

std::expected<std::unique_ptr<VsockDevice>, std::string> VsockDevice::Create(VsockOptions options,
                                                                             Report report) {
  const std::string path = SocketPathOf(options.path);
  auto listener = HostSocket::Listen(path);
  if (!listener) {
    return std::unexpected("cannot listen at \"" + path +
                           "\": " + std::generic_category().message(listener.error()));
  }
  std::unique_ptr<VsockDevice> device(
      new VsockDevice(std::move(options), path, std::move(*listener), std::move(report)));
  device->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  device->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (device->epoll_ < 0 || device->wake_ < 0 || !device->Watch(device->wake_, 0, kWakeToken) ||
      !device->Watch(device->listener_.get(), 0, kListenerToken)) {
    return std::unexpected(std::string("no more descriptors: ") +
                           std::generic_category().message(errno));
  }
  device->thread_ = std::thread(&VsockDevice::Run, device.get());
  device->teardown_ = std::thread(&VsockDevice::RunTeardown, device.get());
  return device;
}

VsockDevice::VsockDevice(VsockOptions options, std::string path, HostSocket listener, Report report)
    : options_(std::move(options)),
      path_(std::move(path)),
      report_(std::move(report)),
      listener_(std::move(listener)),
      scratch_(kVsockHeaderBytes + kVsockMostBytes) {}

VsockDevice::~VsockDevice() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) {
    Wake();
    thread_.join();
  }
  if (teardown_.joinable()) {
    teardown_.join();
  }
  for (const int descriptor : {epoll_, wake_}) {
    if (descriptor >= 0) {
      close(descriptor);
    }
  }
  unlink(path_.c_str());
}

VsockStatus VsockDevice::Status() const {
  const std::lock_guard lock(mutex_);
  VsockStatus status = status_;
  status.connections = static_cast<std::uint32_t>(connections_.size());
  return status;
}

// ---- Guests

NTSTATUS VsockDevice::Attach(PDEVICE_OBJECT device_object, HANDLE partition) {
  {
    const std::lock_guard lock(mutex_);
    guests_[partition] = device_object;
    newest_ = partition;
  }
  const NTSTATUS status = KmclPartitionSetConnectCallback(partition, OnRequest, this);
  if (!NT_SUCCESS(status)) {
    const std::lock_guard lock(mutex_);
    guests_.erase(partition);
  }
  return status;
}

void VsockDevice::Detach(HANDLE partition) {
  // Waits for a request that is being answered; none comes afterwards.
  KmclPartitionSetConnectCallback(partition, nullptr, nullptr);
  std::vector<std::shared_ptr<VsockConnection>> leaving;
  const auto is_of_guest = [partition](const auto& entry) {
    return entry.second->partition() == partition;
  };
  {
    const std::lock_guard lock(mutex_);
    guests_.erase(partition);
    for (const auto& entry : connections_) {
      if (is_of_guest(entry)) {
        leaving.push_back(entry.second);
      }
    }
  }
  for (const auto& connection : leaving) {
    connection->Leave();
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return std::ranges::none_of(connections_, is_of_guest); });
}

std::expected<std::unique_ptr<VsockGuest>, NTSTATUS> VsockGuest::Offer(
    std::shared_ptr<VsockDevice> device, PDEVICE_OBJECT device_object, HANDLE partition) {
  if (const NTSTATUS status = device->Attach(device_object, partition); !NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return std::unique_ptr<VsockGuest>(new VsockGuest(std::move(device), partition));
}

void VsockGuest::Revoke() {
  if (HANDLE const partition = std::exchange(partition_, nullptr)) {
    device_->Detach(partition);
  }
}

// On the bus thread.
NTSTATUS VsockDevice::OnRequest(PVOID context, HANDLE partition,
                                const KMCL_CONNECT_REQUEST* request) {
  return static_cast<VsockDevice*>(context)->Answer(partition, *request);
}

NTSTATUS VsockDevice::Answer(HANDLE partition, const KMCL_CONNECT_REQUEST& request) {
  const auto port = PortOf(request.ServiceId);
  const std::string path = port ? path_ + "_" + std::to_string(*port) : "";
  if (!IsSocket(path)) {
    Complain(Complaint::kPort, port ? "the guest asks for port " + std::to_string(*port) +
                                          ": there is no socket " + path
                                    : "the guest asks for a service that is no port");
    return STATUS_OBJECT_NAME_NOT_FOUND;
  }
  return Begin({.partition = partition,
                .service = request.ServiceId,
                .endpoint = request.EndpointId,
                .path = path},
               HostSocket());
}

NTSTATUS VsockDevice::Begin(VsockConnection::Settings settings, HostSocket socket) {
  std::shared_ptr<VsockConnection> connection;
  const bool from_guest = !settings.path.empty();
  {
    const std::lock_guard lock(mutex_);
    const auto guest = guests_.find(settings.partition);
    if (guest == guests_.end()) {
      return STATUS_NO_SUCH_DEVICE;
    }
    if (connections_.size() < options_.most_connections) {
      settings.device_object = guest->second;
      settings.times = options_.times;
      settings.ring = [this](std::uint64_t number) { Ring(number); };
      if (settings.number == 0) {
        settings.number = next_number_++;
      }
      connection = std::make_shared<VsockConnection>(std::move(settings), std::move(socket));
      connections_[connection->number()] = connection;
    }
  }
  if (connection == nullptr) {
    Complain(Complaint::kFull,
             "a connection is refused: " + std::to_string(options_.most_connections) + " are open");
    return STATUS_INSUFFICIENT_RESOURCES;
  }
  const NTSTATUS status = connection->Offer();
  if (!NT_SUCCESS(status)) {
    {
      const std::lock_guard lock(mutex_);
      connections_.erase(connection->number());
    }
    changed_.notify_all();
    Complain(Complaint::kOffer,
             std::string(from_guest ? "a connection of the guest's" : "a connection to the guest") +
                 " cannot be offered: " + KmclStatusName(status));
  }
  return status;
}

void VsockDevice::Ring(std::uint64_t number) {
  {
    const std::lock_guard lock(mutex_);
    rung_.push_back(number);
  }
  Wake();
}

void VsockDevice::Wake() const {
  const std::uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));  // fails only when it is readable for ever already
}

// Each complaint is a connection that was refused, or that broke.
void VsockDevice::Complain(Complaint kind, const std::string& line) {
  std::uint64_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = ++complaints_[static_cast<std::size_t>(kind)];
    ++(kind == Complaint::kFault ? status_.broken : status_.refused);
  }
  if (std::has_single_bit(count) && report_) {
    report_("vsock: " + line + (count == 1 ? "" : " (" + std::to_string(count) + " so far)"));
  }
}

// ---- The device's thread

void VsockDevice::Run() {
  epoll_event events[64];
  while (TakeRung()) {
    const int count = epoll_wait(epoll_, events, 64, ready_.empty() ? TimeLeft() : 0);
    for (int i = 0; i < count; ++i) {
      OnEvent(events[i].data.u64, events[i].events);
    }
    LookAtDeadlines();
    for (const std::uint64_t number : std::exchange(ready_, {})) {
      Pump(number);
    }
    if (accept_again_) {
      AcceptCallers();
    }
  }
  callers_.clear();
}

// In milliseconds, up to the next deadline; -1 without one.
int VsockDevice::TimeLeft() const {
  std::optional<Clock::time_point> next;
  const auto look = [&next](Clock::time_point until) {
    next = std::min(until, next.value_or(until));
  };
  for (const auto& [number, until] : deadlines_) {
    look(until);
  }
  for (const auto& [number, caller] : callers_) {
    look(caller.until);
  }
  if (!next) {
    return -1;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
}

// Edges: each is looked at until there is nothing more, and what has ended may stay readable.
bool VsockDevice::Watch(int descriptor, std::uint64_t number, std::uint64_t kind) const {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET | (kind == kSocket && number != 0 ? EPOLLOUT | EPOLLRDHUP : 0);
  event.data.u64 = number * kKinds + kind;
  return epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

// What was rung since is ready. False: the device ends.
bool VsockDevice::TakeRung() {
  std::uint64_t ignored = 0;
  (void)!read(wake_, &ignored, sizeof(ignored));
  const std::lock_guard lock(mutex_);
  ready_.insert(rung_.begin(), rung_.end());
  rung_.clear();
  return !stopping_;
}

void VsockDevice::OnEvent(std::uint64_t token, std::uint32_t events) {
  if (token == kWakeToken) {
    return;  // TakeRung looks in any case
  }
  if (token == kListenerToken) {
    AcceptCallers();
    return;
  }
  const std::uint64_t number = token / kKinds;
  if (const auto caller = callers_.find(number); caller != callers_.end()) {
    Hear(number, caller->second);
    return;
  }
  if (token % kKinds == kSocket) {
    if (const auto connection = Find(number)) {
      connection->OnSocketEvents(events);
    }
  }
  ready_.insert(number);
}

std::shared_ptr<VsockConnection> VsockDevice::Find(std::uint64_t number) const {
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(number);
  return found == connections_.end() ? nullptr : found->second;
}

void VsockDevice::Pump(std::uint64_t number) {
  const auto connection = Find(number);
  if (connection == nullptr || connection->has_ended()) {
    return;
  }
  const auto now = Clock::now();
  const VsockConnection::Outcome outcome = connection->Pump(now, progress_, scratch_);
  if (outcome.opened) {
    progress_ = now;
    const std::lock_guard lock(mutex_);
    ++(connection->is_host_initiated() ? status_.from_host : status_.from_guest);
  }
  if (outcome.turn == VsockConnection::Turn::kEnded ||
      (outcome.opened && !WatchConnection(*connection))) {
    End(connection);
    return;
  }
  if (outcome.deadline) {
    deadlines_[number] = *outcome.deadline;
  } else {
    deadlines_.erase(number);
  }
  // What became ready before it was watched gives no edge.
  if (outcome.turn == VsockConnection::Turn::kMore || outcome.opened) {
    ready_.insert(number);
  }
}

bool VsockDevice::WatchConnection(const VsockConnection& connection) const {
  const std::uint64_t number = connection.number();
  return (connection.is_host_initiated() || Watch(connection.socket(), number, kSocket)) &&
         Watch(connection.incoming(), number, kIncoming) &&
         Watch(connection.outgoing(), number, kOutgoing);
}

void VsockDevice::LookAtDeadlines() {
  const auto now = Clock::now();
  for (const auto& [number, until] : deadlines_) {
    if (until <= now) {
      ready_.insert(number);
    }
  }
  if (const auto retry = deadlines_.find(0); retry != deadlines_.end() && retry->second <= now) {
    deadlines_.erase(retry);
    accept_again_ = true;
  }
  const auto late =
      std::erase_if(callers_, [now](const auto& entry) { return entry.second.until <= now; });
  for (std::size_t i = 0; i < late; ++i) {
    Complain(Complaint::kCaller, "a connection of the host's has not said whereto");
  }
}

void VsockDevice::End(const std::shared_ptr<VsockConnection>& connection) {
  connection->SetEnded();
  deadlines_.erase(connection->number());
  for (const int descriptor : {connection->incoming(), connection->outgoing()}) {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);  // fails when it never was in there
  }
  const std::string fault = connection->fault();
  const bool was_opened = connection->was_opened();
  const bool from_host = connection->is_host_initiated();
  {
    const std::lock_guard lock(mutex_);
    status_.bytes_to_host += connection->bytes_to_host();
    status_.bytes_to_guest += connection->bytes_to_guest();
    ended_.push_back(connection);
  }
  changed_.notify_all();
  if (!fault.empty()) {
    Complain(was_opened ? Complaint::kFault : Complaint::kOffer,
             std::string(from_host ? "a connection to the guest" : "a connection of the guest's") +
                 " is ended: " + fault);
  }
}

// ---- Tearing down, which waits for others

void VsockDevice::RunTeardown() {
  for (;;) {
    std::shared_ptr<VsockConnection> connection;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !ended_.empty(); });
      if (ended_.empty()) {
        return;
      }
      connection = std::move(ended_.front());
      ended_.pop_front();
    }
    connection->Revoke();
    {
      const std::lock_guard lock(mutex_);
      connections_.erase(connection->number());
    }
    changed_.notify_all();
  }
}

}  // namespace kmcl::devices
