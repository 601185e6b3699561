// The integration services against a guest that answers anything: in the service's form or not, to
// the question or another one, never, twice, or uncalled for; and opens and closes meanwhile. Text
// of a guest's that the host shows is UTF-8, whatever it was.
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <variant>
#include <vector>

#include "device_world.h"
#include "devices/freeze.h"
#include "devices/guest_file_copy.h"
#include "devices/guest_shutdown.h"
#include "devices/heartbeat.h"
#include "devices/integration_message.h"
#include "devices/key_values.h"
#include "devices/time_sync.h"
#include "devices/utf16.h"

namespace kmcl::devices {
namespace {

using fuzz::Input;
using namespace std::chrono_literals;

constexpr auto kPatience = 10ms;
using Bytes = std::vector<std::byte>;

void RequireUtf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto first = static_cast<std::uint8_t>(text[at]);
    const std::size_t bytes = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    FUZZ_REQUIRE(first != 0 && (first < 0x80 || (first >= 0xC2 && first < 0xF5)));
    FUZZ_REQUIRE(bytes <= text.size() - at);
    for (std::size_t i = 1; i < bytes; ++i) {
      FUZZ_REQUIRE((static_cast<std::uint8_t>(text[at + i]) & 0xC0) == 0x80);
    }
    at += bytes;
  }
}

// What a guest makes of a request. Only the thread on which packets arrive uses the input.
class Guest {
 public:
  explicit Guest(Input& input) : input_(input) {}

  void Open(Client& client, const GUID& type) {
    ChannelOptions options;
    options.interface_type = type;
    options.pipe = true;
    options.maximum_packet_bytes = 8192;
    options.incoming_pages = options.outgoing_pages = 4;
    options.on_packet = [this](ChannelView channel, Incoming packet) {
      Answer(channel, Bytes(packet.data().begin(), packet.data().end()));
    };
    auto opened = client.Open(std::move(options));
    FUZZ_REQUIRE(opened.has_value());
    channel_ = std::move(*opened);
  }
  void Close() { channel_.Reset(); }

 private:
  void Answer(ChannelView channel, const Bytes& request) {
    for (std::uint32_t left = input_.Below(8); left >= 6; --left) {
      Send(channel, Make(request));  // more than one
    }
    Send(channel, Make(request));
  }

  static void Send(ChannelView channel, Bytes packet) {
    LARGE_INTEGER now{};  // what finds no room is lost
    (void)VmbChannelSendSynchronousRequest(channel.handle(), packet.data(),
                                           static_cast<UINT32>(packet.size()), nullptr, 0, nullptr,
                                           nullptr, &now);
  }

  Bytes Make(Bytes packet) {
    IntegrationHeader header;
    FUZZ_REQUIRE(packet.size() >= sizeof header);
    std::memcpy(&header, packet.data(), sizeof header);
    FUZZ_REQUIRE(packet.size() == sizeof header + header.body_bytes);
    header.flags = kIntegrationTransaction | kIntegrationResponse;
    const auto put = [&](std::size_t offset, auto value) {
      if (packet.size() < sizeof header + offset + sizeof value) return;
      std::memcpy(packet.data() + sizeof header + offset, &value, sizeof value);
    };
    if (header.type == static_cast<std::uint16_t>(IntegrationMessage::kNegotiate)) {
      // Mostly the newest that are offered: one framework and one version.
      std::uint16_t frameworks = 0;
      std::memcpy(&frameworks, packet.data() + sizeof header, sizeof frameworks);
      IntegrationVersion versions[2];
      const std::size_t list = sizeof header + 8;
      std::memcpy(&versions[0], packet.data() + list, sizeof versions[0]);
      std::memcpy(&versions[1], packet.data() + packet.size() - sizeof versions[1],
                  sizeof versions[1]);
      put(0, std::uint32_t{1 | 1 << 16});
      put(8, versions);
    }
    static constexpr std::uint32_t kStatuses[] = {
        kIntegrationSuccess,      kIntegrationSuccess, kIntegrationSuccess,
        kIntegrationNoMoreItems,  kIntegrationFailure, kIntegrationNotSupported,
        kIntegrationAlreadyExists};
    const std::uint32_t status = input_.Below(16);
    header.status = status < std::size(kStatuses) ? kStatuses[status]
                    : status == 15                ? input_.Get<std::uint32_t>()
                                                  : kIntegrationSuccess;
    for (std::uint32_t left = input_.Below(4); left > 0; --left) {
      const std::uint32_t offset =
          input_.Below(8) == 0 ? input_.Get<std::uint16_t>() : input_.Byte();
      if (input_.Flag()) {
        put(offset, input_.Number());
      } else {
        for (const std::byte each : input_.Bytes(64)) put(offset, each);
      }
    }
    // What the header says, at times.
    switch (input_.Below(32)) {
      case 1:
        header.transaction = input_.Byte();
        break;
      case 2:
        header.type = input_.Byte();
        break;
      case 3:
        header.body_bytes = input_.Get<std::uint16_t>();
        break;
      case 4:
        header.flags = input_.Byte();
        break;
      case 5:
        packet.resize(sizeof header + input_.Get<std::uint16_t>() % 6000);
        header.body_bytes = static_cast<std::uint16_t>(packet.size() - sizeof header);
        break;
      default:
        break;
    }
    std::memcpy(packet.data(), &header, sizeof header);
    if (input_.Below(32) == 1) packet.resize(input_.Below(40));
    return packet;
  }

  Input& input_;
  Channel channel_;
};

// What the host does is chosen before the guest begins to choose.
struct Wish {
  std::uint8_t kind = 0;
  std::uint8_t pool = 0;
  std::string key;
  std::string value;
};

class Service {
 public:
  virtual ~Service() = default;
  virtual NTSTATUS Offer(PDEVICE_OBJECT device_object, HANDLE partition) = 0;
  virtual GUID type() const = 0;
  virtual void Do(const Wish& wish) = 0;
  virtual IntegrationStatus Status() const = 0;
  virtual void Drop() = 0;
};

template <typename Device>
class ServiceOf : public Service {
 public:
  IntegrationStatus Status() const override {
    if constexpr (requires { device_->Status().channel; }) {
      return device_->Status().channel;
    } else {
      return device_->Status();
    }
  }
  void Drop() override { device_.reset(); }

 protected:
  NTSTATUS Keep(std::expected<std::unique_ptr<Device>, NTSTATUS> made) {
    if (!made) return made.error();
    device_ = std::move(*made);
    return STATUS_SUCCESS;
  }
  static void Heard(const std::string& line) { RequireUtf8(line); }
  std::unique_ptr<Device> device_;
};

class KeyValues final : public ServiceOf<KeyValueDevice> {
  NTSTATUS Offer(PDEVICE_OBJECT device_object, HANDLE partition) override {
    return Keep(KeyValueDevice::Offer(device_object, partition, Heard));
  }
  GUID type() const override { return kKeyValueInterface; }
  void Do(const Wish& wish) override {
    const auto pool = static_cast<KeyValuePool>(wish.pool % 4);
    switch (wish.kind % 5) {
      case 0:
        if (const auto value = device_->Get(pool, wish.key, kPatience)) RequireUtf8(*value);
        return;
      case 1:
        (void)device_->Set(pool, wish.key, wish.value, kPatience);
        return;
      case 2:
        (void)device_->Delete(pool, wish.key, kPatience);
        return;
      case 3: {
        const auto all = device_->Enumerate(pool, kPatience);
        if (!all) return;
        FUZZ_REQUIRE(all->size() <= kMostKeyValues);
        for (const KeyValue& each : *all) {
          RequireUtf8(each.key);
          RequireUtf8(each.value);
        }
        return;
      }
      default: {
        const auto found = device_->Addresses(wish.key, kPatience);
        if (!found) return;
        for (const auto* list :
             {&found->addresses, &found->subnets, &found->gateways, &found->dns_servers}) {
          for (const std::string& each : *list) RequireUtf8(each);
        }
        return;
      }
    }
  }
};

class Freezing final : public ServiceOf<FreezeDevice> {
  NTSTATUS Offer(PDEVICE_OBJECT device_object, HANDLE partition) override {
    return Keep(FreezeDevice::Offer(device_object, partition,
                                    {.maximum_frozen = 5ms, .thaw_timeout = kPatience}, Heard));
  }
  GUID type() const override { return kFreezeInterface; }
  void Do(const Wish& wish) override {
    if (wish.kind % 2 == 0) {
      (void)device_->Freeze(kPatience);
    } else {
      (void)device_->Thaw();
    }
    (void)device_->Status();
  }
};

class Heartbeat final : public ServiceOf<HeartbeatDevice> {
  NTSTATUS Offer(PDEVICE_OBJECT device_object, HANDLE partition) override {
    return Keep(HeartbeatDevice::Offer(device_object, partition, {.interval = 1ms, .lost_after = 2},
                                       Heard, {}));
  }
  GUID type() const override { return kHeartbeatInterface; }
  void Do(const Wish& wish) override {
    const auto before = device_->Status();
    (void)fuzz::Soon(std::chrono::milliseconds(wish.kind % 8), [&] {
      const auto now = device_->Status();
      return now.beats + now.missed + now.wrong > before.beats + before.missed + before.wrong;
    });
  }
};

class Time final : public ServiceOf<TimeSyncDevice> {
  NTSTATUS Offer(PDEVICE_OBJECT device_object, HANDLE partition) override {
    TimeSyncOptions options{.interval = 2ms};
    options.reference_time = [] { return std::uint64_t{1}; };
    return Keep(TimeSyncDevice::Offer(device_object, partition, options, Heard));
  }
  GUID type() const override { return kTimeSyncInterface; }
  void Do(const Wish&) override { (void)device_->SetTime(kPatience); }
};

class Shutdown final : public ServiceOf<ShutdownDevice> {
  NTSTATUS Offer(PDEVICE_OBJECT device_object, HANDLE partition) override {
    return Keep(ShutdownDevice::Offer(device_object, partition, Heard));
  }
  GUID type() const override { return kShutdownInterface; }
  void Do(const Wish& wish) override {
    (void)device_->Request(
        static_cast<ShutdownKind>(wish.kind % 3),
        {.force = wish.pool % 2 != 0, .reason = wish.value, .timeout = kPatience});
  }
};

class FileCopy final : public ServiceOf<GuestFileCopyDevice> {
  NTSTATUS Offer(PDEVICE_OBJECT device_object, HANDLE partition) override {
    return Keep(GuestFileCopyDevice::Offer(device_object, partition, Heard));
  }
  GUID type() const override { return kFileCopyInterface; }
  void Do(const Wish& wish) override {
    const int file = memfd_create("kmcl-fuzz", MFD_CLOEXEC);
    FUZZ_REQUIRE(file >= 0 && ftruncate(file, wish.kind * 100) == 0);
    const auto copied = device_->Copy(
        file, {.name = wish.key, .directory = wish.value, .overwrite = wish.pool % 2 != 0}, {},
        kPatience);
    FUZZ_REQUIRE(!copied || copied->bytes == wish.kind * 100u);
    if (!copied) (void)GuestFileCopyFailureText(copied.error());
    close(file);
  }
};

std::unique_ptr<Service> AnyService(Input& input) {
  switch (input.Below(6)) {
    case 0:
      return std::make_unique<Heartbeat>();
    case 1:
      return std::make_unique<Time>();
    case 2:
      return std::make_unique<Shutdown>();
    case 3:
      return std::make_unique<KeyValues>();
    case 4:
      return std::make_unique<Freezing>();
    default:
      return std::make_unique<FileCopy>();
  }
}

std::string AnyText(Input& input) {
  const auto bytes = input.Bytes(40);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void Serve(Input& input) {
  const std::unique_ptr<Service> service = AnyService(input);
  std::vector<Wish> wishes(1 + input.Below(4));
  for (Wish& wish : wishes) {
    wish = {.kind = input.Byte(), .pool = input.Byte(), .key = AnyText(input), .value = {}};
    if (wish.key.empty()) wish.key = "key";
    wish.value = input.Below(8) == 0 ? AnyText(input) : "/value";
  }
  const bool opens_again = input.Below(8) == 1;
  bool offered = false;
  const GUID type = service->type();
  fuzz::DeviceServer server(
      [&](PDEVICE_OBJECT device_object, HANDLE partition) {
        offered = service->Offer(device_object, partition) == STATUS_SUCCESS;
      },
      [&] { service->Drop(); });
  Client client = server.Connect();
  Guest guest(input);
  const auto open = [&] {
    guest.Open(client, type);
    FUZZ_REQUIRE(offered);
    (void)fuzz::Soon(kPatience, [&] {
      const auto state = service->Status().state;
      return state != IntegrationState::kNotOpen && state != IntegrationState::kNegotiating;
    });
  };
  open();
  for (const Wish& wish : wishes) service->Do(wish);
  guest.Close();
  if (opens_again) {
    open();
    service->Do(wishes.front());
    guest.Close();
  }
  (void)IntegrationStateText(service->Status().state);
}

// The parsers alone, which takes no bus.
void Parse(Input& input) {
  if (input.Flag()) {
    const auto bytes = input.Rest();
    RequireUtf8(TextFromUtf16(bytes));
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::u16string wide = Utf16FromText(text);
    RequireUtf8(TextFromUtf16(std::as_bytes(std::span(wide))));
    return;
  }
  const auto packet = input.Rest();
  const auto answer = ParseIntegrationAnswer(packet);
  if (!answer) return;
  FUZZ_REQUIRE(answer->body.size() <= packet.size());
  (void)IntegrationStatusText(answer->status);
  constexpr IntegrationVersion kVersions[] = {{1, 0}, {3, 0}};
  if (const auto choice = ParseChoice(answer->body, kIntegrationFrameworks, kVersions)) {
    RequireUtf8(VersionText(choice->framework) + VersionText(choice->message));
  }
}

}  // namespace
}  // namespace kmcl::devices

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::QuietLog();
  kmcl::fuzz::Input input(data, size);
  if (input.Below(4) == 0) {
    kmcl::devices::Parse(input);
  } else {
    kmcl::devices::Serve(input);
  }
  return 0;
}
