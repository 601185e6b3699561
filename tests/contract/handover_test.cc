// A server replaced by another one (kmcl/handover.h), both in this process, over a real socket.
#include <kmcl/handover.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "bus_fixture.h"
#include "driver_channel.h"
#include "payload.h"

namespace kmcl::contract {

namespace {

constexpr GUID kType{0x0A0B0C0D, 1, 2, {3}};
constexpr GUID kInstance{0x0D0C0B0A, 1, 2, {3}};

// One server of a program: it offers one echoing channel to each partition, and knows how to give
// them away and take them back.
class Program {
 public:
  ~Program() {
    std::map<HANDLE, std::unique_ptr<DriverChannel>> left;
    {
      const std::lock_guard lock(mutex_);
      left.swap(channels_);  // PartitionGone may be taking others
    }
    for (auto& [handle, channel] : left) Remove(channel.get());
    KmclServerDestroy(server_);
  }

  KMCL_ENDPOINT_OPTIONS Endpoint() {
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.Context = this;
    options.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
      auto* const self = static_cast<Program*>(context);
      VMBCHANNEL const channel = self->Make(server, partition);
      EXPECT_EQ(Status(VmbChannelEnable(channel)), STATUS_SUCCESS);
      VmbChannelStart(channel);
    };
    options.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) {
      auto* const self = static_cast<Program*>(context);
      std::unique_ptr<DriverChannel> channel;
      {
        const std::lock_guard lock(self->mutex_);
        channel = std::move(self->channels_[partition]);
        self->channels_.erase(partition);
        ++self->gone_;
      }
      if (channel != nullptr) self->Remove(channel.get());
    };
    return options;
  }

  NTSTATUS Serve(const std::string& address) {
    const KMCL_ENDPOINT_OPTIONS options = Endpoint();
    return KmclServerCreate(address.c_str(), &options, &server_);
  }

  NTSTATUS HandOver(int socket, ULONG timeout = 10'000) {
    KMCL_HANDOVER_OPTIONS options;
    KmclHandOverOptionsInit(&options);
    options.Timeout = timeout;
    options.Context = this;
    options.Save = [](PVOID context, KMCL_SERVER, const VOID** state, SIZE_T* bytes) {
      auto* const self = static_cast<Program*>(context);
      const NTSTATUS status = self->Save();
      *state = self->state_.data();
      *bytes = self->state_.size();
      return status;
    };
    options.Resume = [](PVOID context, KMCL_SERVER) {
      auto* const self = static_cast<Program*>(context);
      ++self->resumed;
      for (auto& [handle, channel] : self->channels_) VmbChannelStart(channel->handle());
    };
    return KmclServerHandOver(server_, socket, &options);
  }

  NTSTATUS TakeOver(int socket, ULONG timeout = 10'000) {
    KMCL_TAKEOVER_OPTIONS options;
    KmclTakeOverOptionsInit(&options);
    options.Timeout = timeout;
    options.Context = this;
    options.Restore = [](PVOID context, KMCL_SERVER server, const VOID* state, SIZE_T bytes) {
      return static_cast<Program*>(context)->Restore(server, static_cast<const std::byte*>(state),
                                                     bytes);
    };
    const KMCL_ENDPOINT_OPTIONS endpoint = Endpoint();
    return KmclServerTakeOver(socket, &endpoint, &options, &server_);
  }

  DriverChannel* only_channel() {
    const std::lock_guard lock(mutex_);
    return channels_.empty() ? nullptr : channels_.begin()->second.get();
  }
  HANDLE only_partition() {
    const std::lock_guard lock(mutex_);
    return channels_.begin()->first;
  }
  KMCL_SERVER server() { return server_; }

  std::atomic<int> resumed = 0;
  std::atomic<int> gone_ = 0;
  NTSTATUS save_status = STATUS_SUCCESS;
  NTSTATUS restore_status = STATUS_SUCCESS;

 private:
  VMBCHANNEL Make(KMCL_SERVER server, HANDLE partition) {
    VMBCHANNEL handle = nullptr;
    EXPECT_EQ(Status(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &handle)),
              STATUS_SUCCESS);
    auto channel = std::make_unique<DriverChannel>(true);
    channel->set_handle(handle);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS states = DriverChannel::StateCallbacks();
    EXPECT_EQ(Status(VmbServerChannelInitSetVmbusHandle(handle, partition)), STATUS_SUCCESS);
    VmbServerChannelInitSetTargetInterfaceId(handle, kType, kInstance);
    VmbChannelInitSetStateChangeCallbacks(handle, &states);
    VmbChannelInitSetProcessPacketCallbacks(handle, DriverChannel::ProcessPacket,
                                            DriverChannel::ProcessingComplete);
    VmbServerChannelInitSetSaveRestorePacketCallbacks(handle, DriverChannel::SavePacket,
                                                      DriverChannel::RestorePacket);
    const std::lock_guard lock(mutex_);
    channels_[partition] = std::move(channel);
    return handle;
  }

  static void Remove(DriverChannel* channel) {
    channel->CompleteAll();
    VmbChannelDisable(channel->handle());
    VmbChannelCleanup(channel->handle());
  }

  // For each channel: the partition's handle, the size of its save, the save.
  NTSTATUS Save() {
    state_.clear();
    if (!NT_SUCCESS(save_status)) return save_status;
    const std::lock_guard lock(mutex_);
    for (auto& [partition, channel] : channels_) {
      VmbChannelPause(channel->handle());
      NTSTATUS status = VmbChannelSaveBegin(channel->handle());
      if (!NT_SUCCESS(status)) return status;
      std::vector<std::byte> buffer(1 << 20);
      ULONG filled = 0;
      ULONG required = 0;
      status = VmbChannelSaveContinue(channel->handle(), buffer.data(), 1 << 20, &filled, &required);
      VmbChannelSaveEnd(channel->handle());
      if (!NT_SUCCESS(status)) return status;
      const UINT64 words[2] = {reinterpret_cast<UINT64>(partition), filled};
      const auto* const head = reinterpret_cast<const std::byte*>(words);
      state_.insert(state_.end(), head, head + sizeof words);
      state_.insert(state_.end(), buffer.begin(), buffer.begin() + filled);
    }
    return STATUS_SUCCESS;
  }

  NTSTATUS Restore(KMCL_SERVER server, const std::byte* state, SIZE_T bytes) {
    while (bytes > 0) {
      UINT64 words[2];
      std::memcpy(words, state, sizeof words);
      state += sizeof words;
      std::vector<std::byte> save(state, state + words[1]);
      state += words[1];
      bytes -= sizeof words + words[1];
      VMBCHANNEL const channel = Make(server, reinterpret_cast<HANDLE>(words[0]));
      NTSTATUS status =
          VmbChannelRestoreFromBuffer(channel, save.data(), static_cast<ULONG>(save.size()));
      if (!NT_SUCCESS(status)) return status;
      status = VmbChannelEnable(channel);
      if (!NT_SUCCESS(status)) return status;
      VmbChannelStart(channel);
    }
    return restore_status;
  }

  KMCL_SERVER server_ = nullptr;
  std::mutex mutex_;
  std::map<HANDLE, std::unique_ptr<DriverChannel>> channels_;
  std::vector<std::byte> state_;
};

class Handover : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "kmcl-handover-" + std::to_string(getpid());
    std::filesystem::create_directories(directory_);
    address_ = "unix:" + (directory_ / "bus").string();
    program_ = std::make_unique<Program>();
    ASSERT_EQ(Status(program_->Serve(address_)), STATUS_SUCCESS);
    ASSERT_EQ(Status(KmclClientConnect(address_.c_str(), nullptr, &client_)), STATUS_SUCCESS);
    VMBCHANNEL handle = nullptr;
    ASSERT_EQ(Status(VmbChannelAllocate(KmclClientDeviceObject(client_), FALSE, &handle)),
              STATUS_SUCCESS);
    channel_.set_handle(handle);
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS states = DriverChannel::StateCallbacks();
    VmbChannelInitSetStateChangeCallbacks(handle, &states);
    VmbChannelInitSetProcessPacketCallbacks(handle, DriverChannel::ProcessPacket,
                                            DriverChannel::ProcessingComplete);
    VmbClientChannelInitSetTargetPnp(handle, &kType, &kInstance, DriverChannel::PnpFailure);
    ASSERT_EQ(Status(VmbChannelEnable(handle)), STATUS_SUCCESS);
    ASSERT_TRUE(channel_.recorder().Wait("PostStarted", 1));
    NewSockets();
  }
  void TearDown() override {
    VmbChannelDisable(channel_.handle());
    VmbChannelCleanup(channel_.handle());
    KmclClientDestroy(client_);
    program_.reset();
    CloseSockets();
    EXPECT_FALSE(std::filesystem::exists(directory_ / "bus"));
    std::filesystem::remove_all(directory_);
  }

  void NewSockets() {
    CloseSockets();
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets_), 0);
  }
  void CloseSockets() {
    for (int& each : sockets_) {
      if (each >= 0) close(each);
      each = -1;
    }
  }

  // A packet that wants an answer and frees itself.
  void Send(std::uint32_t number) {
    auto* const packet = new DriverPacket;
    packet->channel = &channel_;
    packet->number = number;
    packet->frees_itself = true;
    packet->handle = VmbPacketAllocate(channel_.handle());
    VmbPacketSetPointer(packet->handle, packet);
    VmbPacketSetCompletionRoutine(packet->handle, DriverChannel::PacketDone);
    std::vector<std::byte> payload = MakePayload(number, 64);
    ASSERT_EQ(Status(VmbPacketSend(packet->handle, payload.data(), 64, nullptr, kWait)),
              STATUS_SUCCESS);
  }
  testing::AssertionResult Answered(std::uint32_t number) {
    if (channel_.recorder().Wait("done " + std::to_string(number) + " STATUS_SUCCESS", 1)) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "no answer to " << number;
  }

  // Both sides at once; the old program is destroyed after a success.
  std::pair<Status, Status> Replace(Program& by) {
    NTSTATUS given = STATUS_UNSUCCESSFUL;
    std::thread old([&] { given = program_->HandOver(sockets_[0]); });
    const NTSTATUS taken = by.TakeOver(sockets_[1]);
    old.join();
    return {given, taken};
  }

  std::filesystem::path directory_;
  std::string address_;
  std::unique_ptr<Program> program_;
  KMCL_CLIENT client_ = nullptr;
  DriverChannel channel_{false};
  int sockets_[2] = {-1, -1};
};

TEST_F(Handover, TheClientNoticesNothing) {
  std::uint32_t next = 1;
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 20; ++i) Send(next++);
    const HANDLE before = program_->only_partition();
    auto successor = std::make_unique<Program>();
    NewSockets();
    std::atomic<bool> stop = false;
    std::thread load([&] {
      while (!stop && next < 100'000) {
        Send(next++);
        std::this_thread::yield();
      }
    });
    const auto [given, taken] = Replace(*successor);
    stop = true;
    load.join();
    ASSERT_EQ(given, STATUS_SUCCESS);
    ASSERT_EQ(taken, STATUS_SUCCESS);
    EXPECT_EQ(successor->only_partition(), before);
    program_ = std::move(successor);
    for (int i = 0; i < 20; ++i) Send(next++);
    ASSERT_TRUE(Answered(next - 1));
  }
  for (std::uint32_t number = 1; number < next; ++number) ASSERT_TRUE(Answered(number));
  for (const Event& event : channel_.recorder().Events()) EXPECT_NE(event.name, "Suspend");
  EXPECT_TRUE(KmclClientIsConnected(client_));
  // New clients find the new server.
  KMCL_CLIENT another = nullptr;
  ASSERT_EQ(Status(KmclClientConnect(address_.c_str(), nullptr, &another)), STATUS_SUCCESS);
  KmclClientDestroy(another);
}

TEST_F(Handover, AFailureOfEitherSideLeavesEverythingAsItWas) {
  Send(1);
  Program successor;
  // The new one cannot restore.
  successor.restore_status = STATUS_DEVICE_BUSY;
  auto [given, taken] = Replace(successor);
  EXPECT_EQ(given, STATUS_CONNECTION_DISCONNECTED);
  EXPECT_EQ(taken, STATUS_DEVICE_BUSY);
  EXPECT_EQ(program_->resumed, 1);
  EXPECT_EQ(successor.gone_, 1);
  Send(2);
  ASSERT_TRUE(Answered(2));
  // The old one cannot save.
  NewSockets();
  program_->save_status = STATUS_DEVICE_BUSY;
  std::tie(given, taken) = Replace(successor);
  EXPECT_EQ(given, STATUS_DEVICE_BUSY);
  EXPECT_EQ(taken, STATUS_CONNECTION_DISCONNECTED);
  program_->save_status = STATUS_SUCCESS;
  Send(3);
  ASSERT_TRUE(Answered(3));
  // The new one dies, or never answers.
  NewSockets();
  shutdown(sockets_[1], SHUT_RDWR);
  EXPECT_EQ(Status(program_->HandOver(sockets_[0])), STATUS_CONNECTION_DISCONNECTED);
  Send(4);
  ASSERT_TRUE(Answered(4));
  NewSockets();
  EXPECT_EQ(Status(program_->HandOver(sockets_[0], 50)), STATUS_DEVICE_NOT_READY);
  EXPECT_EQ(program_->resumed, 4);
  Send(5);
  ASSERT_TRUE(Answered(5));
  // And then it works.
  NewSockets();
  auto fit = std::make_unique<Program>();
  std::tie(given, taken) = Replace(*fit);
  EXPECT_EQ(given, STATUS_SUCCESS);
  EXPECT_EQ(taken, STATUS_SUCCESS);
  EXPECT_EQ(Status(program_->HandOver(sockets_[0])), STATUS_INVALID_DEVICE_STATE);
  program_ = std::move(fit);
  Send(6);
  ASSERT_TRUE(Answered(6));
}

TEST_F(Handover, StrangeBytesAreNoServer) {
  Program successor;
  const auto told = [&](const void* bytes, std::size_t count) {
    NewSockets();
    EXPECT_EQ(send(sockets_[0], bytes, count, 0), static_cast<ssize_t>(count));
    return Status(successor.TakeOver(sockets_[1], 1000));
  };
  char zeros[64] = {};
  EXPECT_EQ(told(zeros, sizeof zeros), STATUS_DATA_ERROR);
  // A message of the right shape, of another version, and an empty state.
  unsigned char head[24] = {'K', 'M', 'H', 'O', 9, 0, 1, 0};
  EXPECT_EQ(told(head, sizeof head), STATUS_REVISION_MISMATCH);
  head[4] = 1;
  EXPECT_EQ(told(head, sizeof head), STATUS_DATA_ERROR);
  NewSockets();
  EXPECT_EQ(Status(successor.TakeOver(sockets_[1], 20)), STATUS_DEVICE_NOT_READY);
  close(sockets_[0]);
  sockets_[0] = -1;
  EXPECT_EQ(Status(successor.TakeOver(sockets_[1], 1000)), STATUS_CONNECTION_DISCONNECTED);
}

TEST_F(Handover, ArgumentsAreChecked) {
  KMCL_HANDOVER_OPTIONS give;
  KmclHandOverOptionsInit(&give);
  EXPECT_EQ(Status(KmclServerHandOver(nullptr, sockets_[0], &give)), STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(Status(KmclServerHandOver(program_->server(), -1, &give)), STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclServerHandOver(program_->server(), sockets_[0], nullptr)),
            STATUS_INVALID_PARAMETER_3);
  EXPECT_EQ(Status(KmclServerHandOver(program_->server(), sockets_[0], &give)),
            STATUS_INVALID_PARAMETER_3);
  KMCL_TAKEOVER_OPTIONS take;
  KmclTakeOverOptionsInit(&take);
  KMCL_SERVER server = nullptr;
  EXPECT_EQ(Status(KmclServerTakeOver(-1, nullptr, &take, &server)), STATUS_INVALID_PARAMETER_1);
  KMCL_ENDPOINT_OPTIONS bad{};
  EXPECT_EQ(Status(KmclServerTakeOver(sockets_[1], &bad, &take, &server)),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(Status(KmclServerTakeOver(sockets_[1], nullptr, &take, &server)),
            STATUS_INVALID_PARAMETER_3);
  take.Restore = [](PVOID, KMCL_SERVER, const VOID*, SIZE_T) { return STATUS_SUCCESS; };
  EXPECT_EQ(Status(KmclServerTakeOver(sockets_[1], nullptr, &take, nullptr)),
            STATUS_INVALID_PARAMETER_4);
}

TEST(HandoverLocal, ALocalBusCannotBeHandedOver) {
  Program program;
  ASSERT_EQ(Status(program.Serve("local:handover")), STATUS_SUCCESS);
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
  EXPECT_EQ(Status(program.HandOver(sockets[0])), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(program.resumed, 1);
  close(sockets[0]);
  close(sockets[1]);
}

}  // namespace

}  // namespace kmcl::contract
