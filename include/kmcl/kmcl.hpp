// kmcl/kmcl.hpp - KMCL for C++: the C functions of kmcl/kmcl.h and kmcl/endpoint.h as objects.
//
// Header-only and thin: every object is one handle, every function one C function, and what the C
// manual says about order, threads and levels holds here word for word. What is added:
//   * handles end with their owner: Server, Client, Channel, Packet, Incoming;
//   * callbacks are lambdas, bytes are spans, failures are std::expected<T, kmcl::Status>;
//   * a request can be awaited: auto answer = co_await channel.Request(bytes).
// Anything that has no name here is done on the handle (Channel::handle) by the C function.
//
// Callbacks run on the library's threads, as the C manual says. One that throws ends the program:
// there is no frame above it that could catch. Functions here throw nothing but std::bad_alloc.
//
// C++23; compiled with g++ 12 and clang 19 in the tests.
#ifndef KMCL_KMCL_HPP
#define KMCL_KMCL_HPP

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kmcl {

// ---- Statuses.

// An NTSTATUS that knows its name.
class Status {
 public:
  constexpr Status(NTSTATUS value = STATUS_SUCCESS) : value_(value) {}  // NOLINT: a status is one
  constexpr NTSTATUS value() const { return value_; }
  constexpr bool ok() const { return NT_SUCCESS(value_); }
  const char* name() const { return KmclStatusName(value_); }
  friend constexpr bool operator==(Status, Status) = default;

 private:
  NTSTATUS value_;
};

template <typename T = void>
using Expected = std::expected<T, Status>;

inline Expected<> ToExpected(NTSTATUS status) {
  if (NT_SUCCESS(status)) return {};
  return std::unexpected(Status(status));
}

// Bytes of a string or of one object without pointers, for the functions that send.
inline std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// ---- Incoming packets.

// One received packet. Retires it: with Complete, or without an answer when it is destroyed. Move
// it to where the answer will be made, on any thread.
class Incoming {
 public:
  Incoming(VMBPACKETCOMPLETION packet, std::span<std::byte> data, UINT32 flags)
      : packet_(packet), data_(data), flags_(flags) {}
  Incoming(Incoming&& other) noexcept
      : packet_(std::exchange(other.packet_, nullptr)), data_(other.data_), flags_(other.flags_) {}
  Incoming& operator=(Incoming&& other) noexcept {
    if (this != &other) {
      Complete();
      packet_ = std::exchange(other.packet_, nullptr);
      data_ = other.data_;
      flags_ = other.flags_;
    }
    return *this;
  }
  ~Incoming() { Complete(); }

  // The library's, valid until the packet is retired. Rounded up to a multiple of 8 (not in a
  // pipe).
  std::span<const std::byte> data() const { return data_; }
  bool has_external_data() const {
    return (flags_ & VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA) != 0;
  }
  // VmbChannelInitSetClientContextSize (ChannelOptions::context_bytes); nullptr without.
  void* context() const { return VmbChannelPacketGetClientContext(packet_); }

  // VmbChannelPacketComplete; the answer is copied. Once; afterwards nothing happens.
  void Complete(std::span<const std::byte> answer = {}) {
    if (packet_ == nullptr) return;
    VmbChannelPacketComplete(std::exchange(packet_, nullptr), const_cast<std::byte*>(answer.data()),
                             static_cast<UINT32>(answer.size()));
  }
  // VmbChannelPacketFail.
  void Fail() {
    if (packet_ != nullptr) VmbChannelPacketFail(std::exchange(packet_, nullptr));
  }
  // VmbChannelPacketDeferToPassive: inside of the packet callback only.
  void DeferToPassive() {
    if (packet_ != nullptr) VmbChannelPacketDeferToPassive(std::exchange(packet_, nullptr));
  }

  VMBPACKETCOMPLETION handle() const { return packet_; }
  // The C functions retire it from now on.
  VMBPACKETCOMPLETION Release() { return std::exchange(packet_, nullptr); }

 private:
  VMBPACKETCOMPLETION packet_;
  std::span<std::byte> data_;
  UINT32 flags_;
};

// ---- Channels.

class ChannelView;
class RequestAwaiter;

// A channel that somebody else owns: what callbacks get. To be copied freely, while the channel
// lives.
class ChannelView {
 public:
  explicit ChannelView(VMBCHANNEL handle = nullptr) : handle_(handle) {}
  VMBCHANNEL handle() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }

  // VmbChannelEnable, Disable, Start, Pause. Not from a callback.
  Expected<> Enable() const { return ToExpected(VmbChannelEnable(handle_)); }
  void Disable() const { VmbChannelDisable(handle_); }
  void Start() const { VmbChannelStart(handle_); }
  void Pause() const { VmbChannelPause(handle_); }

  GUID interface_instance() const {
    GUID instance{};
    VmbChannelGetInterfaceInstance(handle_, &instance);
    return instance;
  }
  KMCL_CHANNEL_COUNTERS counters() const {
    KMCL_CHANNEL_COUNTERS counters{};
    counters.Size = sizeof counters;
    KmclChannelQueryCounters(handle_, &counters);
    return counters;
  }

  // Sends one packet and forgets it. Queued like every send while the ring is full or the channel
  // not open.
  Expected<> Send(std::span<const std::byte> data) const {
    VMBPACKET const packet = VmbPacketAllocate(handle_);
    if (packet == nullptr) return std::unexpected(Status(STATUS_INSUFFICIENT_RESOURCES));
    const NTSTATUS status = VmbPacketSend(packet, const_cast<std::byte*>(data.data()),
                                          static_cast<UINT32>(data.size()), nullptr, 0);
    if (!NT_SUCCESS(status)) VmbPacketFree(packet);
    return ToExpected(status);
  }

  // co_await channel.Request(bytes): sends a transaction; Expected<std::vector<std::byte>> is its
  // answer, a copy. The coroutine goes on inside of the packet's completion routine: on the
  // channel's dispatch thread at DISPATCH_LEVEL, so it must not block there, nor call what no
  // callback may call; on the channel's worker when the channel is closed (STATUS_DEVICE_REMOVED).
  // When the send fails it goes on at once, where it was. `data` is read at the co_await and not
  // kept.
  RequestAwaiter Request(std::span<const std::byte> data) const;

  // VmbChannelSendSynchronousRequest with WAIT_FOR_COMPLETION: blocks, a client's only. The
  // answer's bytes, or STATUS_BUFFER_TOO_SMALL when `answer` holds only their beginning. Without a
  // timeout it waits for as long as the channel lives.
  Expected<std::size_t> Call(std::span<const std::byte> data, std::span<std::byte> answer,
                             std::optional<std::chrono::nanoseconds> timeout = std::nullopt) const {
    UINT32 bytes = static_cast<UINT32>(answer.size() & ~std::size_t{7});
    LARGE_INTEGER relative{};
    if (timeout) relative.QuadPart = -(timeout->count() + 99) / 100;
    const NTSTATUS status = VmbChannelSendSynchronousRequest(
        handle_, const_cast<std::byte*>(data.data()), static_cast<UINT32>(data.size()), nullptr,
        VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, answer.data(), &bytes,
        timeout ? &relative : nullptr);
    if (status != STATUS_SUCCESS) return std::unexpected(Status(status));
    return bytes;
  }

 protected:
  VMBCHANNEL handle_;
};

// The awaitable of ChannelView::Request. Used where it is made.
class [[nodiscard]] RequestAwaiter {
 public:
  RequestAwaiter(VMBCHANNEL channel, std::span<const std::byte> data)
      : channel_(channel), data_(data) {}
  RequestAwaiter(const RequestAwaiter&) = delete;
  RequestAwaiter& operator=(const RequestAwaiter&) = delete;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) noexcept {
    waiting_ = waiting;
    VMBPACKET const packet = VmbPacketAllocate(channel_);
    if (packet == nullptr) {
      answer_ = std::unexpected(Status(STATUS_INSUFFICIENT_RESOURCES));
      return false;
    }
    VmbPacketSetPointer(packet, this);
    VmbPacketSetCompletionRoutine(packet, OnDone);
    const NTSTATUS status = VmbPacketSend(packet, const_cast<std::byte*>(data_.data()),
                                          static_cast<UINT32>(data_.size()), nullptr,
                                          VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION);
    // From here on the coroutine may have gone on and ended, and this object with it.
    if (NT_SUCCESS(status)) return true;
    VmbPacketFree(packet);
    answer_ = std::unexpected(Status(status));
    return false;
  }
  Expected<std::vector<std::byte>> await_resume() { return std::move(answer_); }

 private:
  static VOID OnDone(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes) noexcept {
    auto& self = *static_cast<RequestAwaiter*>(VmbPacketGetPointer(packet));
    VmbPacketFree(packet);
    if (NT_SUCCESS(status)) {
      const auto* const first = static_cast<const std::byte*>(buffer);
      self.answer_->assign(first, first + bytes);
    } else {
      self.answer_ = std::unexpected(Status(status));
    }
    self.waiting_.resume();
  }

  VMBCHANNEL channel_;
  std::span<const std::byte> data_;
  std::coroutine_handle<> waiting_;
  Expected<std::vector<std::byte>> answer_;
};

inline RequestAwaiter ChannelView::Request(std::span<const std::byte> data) const {
  return RequestAwaiter(handle_, data);
}

// A coroutine that nobody waits for: runs at once, goes on wherever what it awaits takes it.
struct Detached {
  struct promise_type {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

// What a channel is to be, set in its Init window. A field that is left as it is leaves KMCL's
// default.
struct ChannelOptions {
  GUID interface_type{};
  std::optional<GUID> interface_instance{};  // needed at a server; at a client: this one only
  std::u16string friendly_name{};
  std::uint32_t maximum_packet_bytes = 0;
  std::uint32_t context_bytes = 0;   // of Incoming::context
  std::uint32_t incoming_pages = 0;  // a client's rings: both or none
  std::uint32_t outgoing_pages = 0;
  bool pipe = false;             // pipe mode, at both ends (a server also offers it so)
  bool passive_packets = false;  // VmbChannelSetIncomingProcessingAtPassive
  bool start = true;             // a server's channel is started when it is offered

  // Callbacks; those that are not set do what NULL does in C. on_opened: a failure undoes the open.
  std::function<Status(ChannelView)> on_opened{};
  std::function<void(ChannelView)> on_closed{};
  std::function<void(ChannelView)> on_suspend{};
  std::function<void(ChannelView)> on_started{};
  std::function<void(ChannelView)> on_post_started{};
  std::function<void(ChannelView, Incoming)> on_packet{};
  std::function<void(ChannelView, std::uint32_t)> on_batch_end{};
  std::function<void(ChannelView, Status)> on_open_failed{};  // EvtChannelPnpFailure
  // Whatever else is to be set in the Init window, by the C functions. Runs last.
  std::function<Status(VMBCHANNEL)> configure{};
};

// One end of a channel, owned: disabled and cleaned up with this object, which waits for the end of
// its callbacks. So it is not destroyed in one of them.
class Channel : public ChannelView {
 public:
  Channel() = default;
  Channel(Channel&& other) noexcept
      : ChannelView(std::exchange(other.handle_, nullptr)), state_(std::move(other.state_)) {}
  Channel& operator=(Channel&& other) noexcept {
    if (this != &other) {
      Reset();
      handle_ = std::exchange(other.handle_, nullptr);
      state_ = std::move(other.state_);
    }
    return *this;
  }
  ~Channel() { Reset(); }

  // Allocated and configured, Disabled. `partition` is a server's.
  static Expected<Channel> Make(PDEVICE_OBJECT device, bool is_server, HANDLE partition,
                                ChannelOptions options) {
    Channel channel;
    channel.state_ = std::make_unique<ChannelOptions>(std::move(options));
    if (NTSTATUS status = VmbChannelAllocate(device, is_server, &channel.handle_);
        !NT_SUCCESS(status)) {
      return std::unexpected(Status(status));
    }
    VmbChannelSetPointer(channel.handle_, channel.state_.get());
    if (const Status status = channel.Configure(is_server, partition); !status.ok()) {
      return std::unexpected(status);
    }
    return channel;
  }

  void Reset() {
    if (handle_ == nullptr) return;
    VmbChannelDisable(handle_);
    VmbChannelCleanup(std::exchange(handle_, nullptr));
    state_.reset();
  }

 private:
  static ChannelOptions& StateOf(VMBCHANNEL channel) {
    return *static_cast<ChannelOptions*>(VmbChannelGetPointer(channel));
  }

  Status Configure(bool is_server, HANDLE partition) {
    const ChannelOptions& o = *state_;
    Status result;
    const auto set = [&result](auto&& function, auto... arguments) {
      if (result.ok()) result = function(arguments...);
    };
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS states;
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&states);
    if (o.on_opened) {
      states.EvtChannelOpened = [](VMBCHANNEL c) noexcept -> NTSTATUS {
        return StateOf(c).on_opened(ChannelView(c)).value();
      };
    }
    if (o.on_closed) {
      states.EvtChannelClosed = [](VMBCHANNEL c) noexcept { StateOf(c).on_closed(ChannelView(c)); };
    }
    if (o.on_suspend) {
      states.EvtChannelSuspend = [](VMBCHANNEL c) noexcept {
        StateOf(c).on_suspend(ChannelView(c));
      };
    }
    if (o.on_started) {
      states.EvtChannelStarted = [](VMBCHANNEL c) noexcept {
        StateOf(c).on_started(ChannelView(c));
      };
    }
    if (o.on_post_started) {
      states.EvtChannelPostStarted = [](VMBCHANNEL c) noexcept {
        StateOf(c).on_post_started(ChannelView(c));
      };
    }
    set(VmbChannelInitSetStateChangeCallbacks, handle_, &states);
    if (o.on_packet) {
      set(VmbChannelInitSetProcessPacketCallbacks, handle_, &OnPacket,
          o.on_batch_end ? &OnBatchEnd : nullptr);
    }
    if (!o.friendly_name.empty()) {
      UNICODE_STRING name{};
      RtlInitUnicodeString(&name, reinterpret_cast<PCWSTR>(o.friendly_name.c_str()));
      set(VmbChannelInitSetFriendlyName, handle_, &name);
    }
    if (o.maximum_packet_bytes != 0) {
      set(VmbChannelInitSetMaximumPacketSize, handle_, o.maximum_packet_bytes);
    }
    if (o.context_bytes != 0) set(VmbChannelInitSetClientContextSize, handle_, o.context_bytes);
    if (o.pipe) set(VmbChannelInitSetFlags, handle_, UINT32{VMBUS_CHANNEL_INIT_FLAG_IS_PIPE});
    VmbChannelSetIncomingProcessingAtPassive(handle_, o.passive_packets);
    if (is_server) {
      if (!o.interface_instance) return STATUS_INVALID_PARAMETER;
      if (o.pipe) {
        set(VmbServerChannelInitSetFlags, handle_,
            UINT32{VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE});
      }
      set(VmbServerChannelInitSetVmbusHandle, handle_, partition);
      set(VmbServerChannelInitSetTargetInterfaceId, handle_, o.interface_type,
          *o.interface_instance);
    } else {
      if (o.incoming_pages != 0 || o.outgoing_pages != 0) {
        set(VmbClientChannelInitSetRingBufferPageCount, handle_, o.incoming_pages,
            o.outgoing_pages);
      }
      set(VmbClientChannelInitSetTargetPnp, handle_, &o.interface_type,
          o.interface_instance ? &*o.interface_instance : nullptr,
          o.on_open_failed ? &OnOpenFailed : nullptr);
    }
    if (o.configure && result.ok()) result = o.configure(handle_);
    return result;
  }

  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes,
                       UINT32 flags) noexcept {
    StateOf(channel).on_packet(ChannelView(channel),
                               Incoming(packet, {static_cast<std::byte*>(buffer), bytes}, flags));
  }
  static VOID OnBatchEnd(VMBCHANNEL channel, UINT32 packets) noexcept {
    StateOf(channel).on_batch_end(ChannelView(channel), packets);
  }
  static VOID OnOpenFailed(VMBCHANNEL channel, NTSTATUS status) noexcept {
    StateOf(channel).on_open_failed(ChannelView(channel), status);
  }

  std::unique_ptr<ChannelOptions> state_;  // at an address that stays: the callbacks' context
};

// An outgoing packet, to be sent again and again without allocating. Idle when it is destroyed.
class Packet {
 public:
  // On completion: its status, and the answer's bytes (of a transaction), which are valid during
  // the call.
  using Done = std::function<void(Packet&, Status, std::span<const std::byte>)>;

  static Expected<std::unique_ptr<Packet>> Make(ChannelView channel, Done done) {
    VMBPACKET const handle = VmbPacketAllocate(channel.handle());
    if (handle == nullptr) return std::unexpected(Status(STATUS_INSUFFICIENT_RESOURCES));
    return std::unique_ptr<Packet>(new Packet(handle, std::move(done)));
  }
  ~Packet() { VmbPacketFree(handle_); }
  Packet(const Packet&) = delete;
  Packet& operator=(const Packet&) = delete;

  VMBPACKET handle() const { return handle_; }
  // VmbPacketSend; a transaction is done when the other end has answered it.
  Expected<> Send(std::span<const std::byte> data) { return Send(data, 0); }
  Expected<> SendTransaction(std::span<const std::byte> data) {
    return Send(data, VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION);
  }

 private:
  Packet(VMBPACKET handle, Done done) : handle_(handle), done_(std::move(done)) {
    VmbPacketSetPointer(handle_, this);
    VmbPacketSetCompletionRoutine(handle_, OnDone);
  }
  Expected<> Send(std::span<const std::byte> data, UINT32 flags) {
    return ToExpected(VmbPacketSend(handle_, const_cast<std::byte*>(data.data()),
                                    static_cast<UINT32>(data.size()), nullptr, flags));
  }
  static VOID OnDone(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes) noexcept {
    auto& self = *static_cast<Packet*>(VmbPacketGetPointer(packet));
    if (self.done_) self.done_(self, status, {static_cast<const std::byte*>(buffer), bytes});
  }

  VMBPACKET handle_;
  Done done_;
};

// ---- Endpoints.

// One connected client, as its server sees it: to whom a channel is offered.
class Partition {
 public:
  Partition(KMCL_SERVER server, HANDLE handle) : server_(server), handle_(handle) {}
  HANDLE handle() const { return handle_; }
  KMCL_PARTITION_INFORMATION information() const {
    KMCL_PARTITION_INFORMATION information{};
    KmclPartitionQuery(handle_, &information);
    return information;
  }
  // A channel, offered: allocated, configured, enabled and (ChannelOptions::start) started.
  Expected<Channel> Offer(ChannelOptions options) const {
    const bool start = options.start;
    auto channel =
        Channel::Make(KmclServerDeviceObject(server_), true, handle_, std::move(options));
    if (!channel) return channel;
    if (const auto enabled = channel->Enable(); !enabled) return std::unexpected(enabled.error());
    if (start) channel->Start();
    return channel;
  }

 private:
  KMCL_SERVER server_;
  HANDLE handle_;
};

struct ServerOptions {
  std::string address{};  // empty: KMCL_BUS
  // A client has come. On the bus thread: offer, do not wait. What it returns lives until the
  // client has gone, and is destroyed on a passive thread: the place for its channels.
  std::function<std::shared_ptr<void>(Partition)> on_arrived{};
  std::uint32_t dispatch_threads = 1;
  std::uint32_t spin_microseconds = KMCL_SPIN_NEVER;
  std::uint32_t maximum_partitions = 0;        // 0: the default
  std::uint64_t maximum_partition_memory = 0;  // 0: the default
};

// The serving end of a bus. Destroying it disconnects everybody and waits for all callbacks.
class Server {
 public:
  static Expected<Server> Create(ServerOptions options) {
    Server server;
    server.state_ = std::make_unique<State>();
    State& state = *server.state_;
    state.on_arrived = std::move(options.on_arrived);
    KMCL_ENDPOINT_OPTIONS c;
    KmclEndpointOptionsInit(&c);
    c.DispatchThreads = options.dispatch_threads;
    c.SpinMicroseconds = options.spin_microseconds;
    if (options.maximum_partitions != 0) c.MaximumPartitions = options.maximum_partitions;
    if (options.maximum_partition_memory != 0) {
      c.MaximumPartitionMemory = options.maximum_partition_memory;
    }
    c.Context = &state;
    c.PartitionArrived = [](PVOID context, KMCL_SERVER at, HANDLE partition) noexcept {
      static_cast<State*>(context)->Arrive(at, partition);
    };
    c.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) noexcept {
      static_cast<State*>(context)->Leave(partition);
    };
    const NTSTATUS status = KmclServerCreate(
        options.address.empty() ? nullptr : options.address.c_str(), &c, &state.handle);
    if (!NT_SUCCESS(status)) return std::unexpected(Status(status));
    return server;
  }
  Server(Server&&) = default;
  Server& operator=(Server&&) = default;

  KMCL_SERVER handle() const { return state_->handle; }
  PDEVICE_OBJECT device_object() const { return KmclServerDeviceObject(state_->handle); }

 private:
  Server() = default;

  struct State {
    ~State() {
      // The channels first, while their partitions are still there to be told.
      for (;;) {
        std::shared_ptr<void> last;
        const std::lock_guard lock(mutex);
        closing = true;
        if (of_partition.empty()) break;
        last = std::move(of_partition.begin()->second);
        of_partition.erase(of_partition.begin());
      }
      KmclServerDestroy(handle);
    }
    void Arrive(KMCL_SERVER server, HANDLE partition) {
      {
        const std::lock_guard lock(mutex);
        if (closing || !on_arrived) return;
      }
      auto kept = on_arrived(Partition(server, partition));
      const std::lock_guard lock(mutex);
      of_partition[partition] = std::move(kept);
    }
    void Leave(HANDLE partition) {
      std::shared_ptr<void> gone;  // destroyed after the lock
      const std::lock_guard lock(mutex);
      const auto found = of_partition.find(partition);
      if (found == of_partition.end()) return;
      gone = std::move(found->second);
      of_partition.erase(found);
    }

    KMCL_SERVER handle = nullptr;
    std::function<std::shared_ptr<void>(Partition)> on_arrived;
    std::mutex mutex;
    std::map<HANDLE, std::shared_ptr<void>> of_partition;
    bool closing = false;
  };
  std::unique_ptr<State> state_;
};

struct ClientOptions {
  std::string address{};  // empty: KMCL_BUS
  std::uint32_t dispatch_threads = 1;
  std::uint32_t spin_microseconds = KMCL_SPIN_NEVER;
  std::uint64_t maximum_donated_memory = 0;  // 0: the default
};

// The connecting end. Its channels go before it.
class Client {
 public:
  static Expected<Client> Connect(const ClientOptions& options = {}) {
    KMCL_ENDPOINT_OPTIONS c;
    KmclEndpointOptionsInit(&c);
    c.DispatchThreads = options.dispatch_threads;
    c.SpinMicroseconds = options.spin_microseconds;
    if (options.maximum_donated_memory != 0)
      c.MaximumDonatedMemory = options.maximum_donated_memory;
    KMCL_CLIENT handle = nullptr;
    const NTSTATUS status =
        KmclClientConnect(options.address.empty() ? nullptr : options.address.c_str(), &c, &handle);
    if (!NT_SUCCESS(status)) return std::unexpected(Status(status));
    return Client(handle);
  }

  KMCL_CLIENT handle() const { return handle_.get(); }
  PDEVICE_OBJECT device_object() const { return KmclClientDeviceObject(handle()); }
  bool is_connected() const { return KmclClientIsConnected(handle()) != FALSE; }
  std::uint32_t version() const { return KmclClientVersion(handle()); }

  // Every offer that stands.
  std::vector<KMCL_OFFER> Offers() const {
    std::vector<KMCL_OFFER> offers;
    ULONG count = 0;
    NTSTATUS status = KmclClientQueryOffers(handle(), nullptr, 0, &count);
    while (status == STATUS_BUFFER_TOO_SMALL) {  // again when more were offered meanwhile
      offers.resize(count);
      status =
          KmclClientQueryOffers(handle(), offers.data(), static_cast<ULONG>(offers.size()), &count);
    }
    offers.resize(NT_SUCCESS(status) ? count : 0);
    return offers;
  }

  // A channel, enabled: bound to the offer, or waiting for it. What is sent before it is open is
  // queued.
  Expected<Channel> Open(ChannelOptions options) const {
    auto channel = Channel::Make(device_object(), false, nullptr, std::move(options));
    if (!channel) return channel;
    if (const auto enabled = channel->Enable(); !enabled) return std::unexpected(enabled.error());
    return channel;
  }

 private:
  struct Destroy {
    void operator()(KMCL_CLIENT client) const { KmclClientDestroy(client); }
  };
  explicit Client(KMCL_CLIENT handle) : handle_(handle) {}
  std::unique_ptr<KMCL_CLIENT_OBJECT, Destroy> handle_;
};

}  // namespace kmcl

#endif  // KMCL_KMCL_HPP
