// The echo device and the file device against a client that asks for anything in any order: every
// request is answered once, by what the protocol has for it, and whatever is asked for, files
// appear in one folder only. And what such a device had saved, spoilt, before another one is made
// of it.
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <vector>

#include "device_world.h"
#include "devices/echo.h"
#include "devices/echo_protocol.h"
#include "devices/file.h"
#include "devices/file_protocol.h"

namespace kmcl::devices {
namespace {

using fuzz::Input;
namespace fs = std::filesystem;

// A folder in a folder: what leaves the inner one is seen.
class Folders {
 public:
  Folders() {
    char name[] = "/tmp/kmcl-fuzz-XXXXXX";
    FUZZ_REQUIRE(mkdtemp(name) != nullptr);
    outer_ = name;
    fs::create_directory(outer_ + "/in");
    inner_ = open((outer_ + "/in").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_REQUIRE(inner_ >= 0);
  }
  ~Folders() {
    close(inner_);
    fs::remove_all(outer_);
  }
  int inner() const { return inner_; }
  // Takes away what was stored. `unfinished`: what was not, too.
  void Clear() {
    FUZZ_REQUIRE(std::distance(fs::directory_iterator(outer_), {}) == 1);
    for (const auto& entry : fs::directory_iterator(outer_ + "/in")) {
      FUZZ_REQUIRE(entry.is_regular_file());
      // Nothing unfinished is left behind by a client that has gone.
      FUZZ_REQUIRE(!entry.path().filename().string().starts_with(kTemporaryPrefixOfFiles));
      fs::remove(entry.path());
    }
  }

 private:
  static constexpr std::string_view kTemporaryPrefixOfFiles = ".vmbus-";
  std::string outer_;
  int inner_ = -1;
};

Folders& TheFolders() {
  static Folders folders;
  return folders;
}

// One of the two, and what it was asked.
class Asked {
 public:
  Asked(Input& input, ChannelView channel, std::uint32_t most)
      : input_(input), channel_(channel), most_(most) {}

  void AskEcho() {
    const EchoHeader header{.kind = input_.Below(8) == 0 ? input_.Number() : 1 + input_.Below(2),
                            .bytes = input_.Number()};
    const auto answer = Ask(header, input_.Flag() ? header.bytes % 70'000 : input_.Byte());
    if (!answer) return;
    EchoHeader reply;
    FUZZ_REQUIRE(answer->size() >= sizeof reply);
    std::memcpy(&reply, answer->data(), sizeof reply);
    FUZZ_REQUIRE(reply.bytes <= answer->size() - sizeof reply);
    FUZZ_REQUIRE(reply.kind >= 1 && reply.kind <= 3);
    if (reply.kind == static_cast<std::uint32_t>(EchoKind::kData)) {
      FUZZ_REQUIRE(is_cut_ || reply.bytes == header.bytes);
    }
  }

  void AskFile() {
    FileRequest request{.kind = input_.Below(16) == 0 ? input_.Number() : 1 + input_.Below(4),
                        .data_bytes = 0,
                        .value = input_.Number()};
    std::size_t data_bytes = input_.Byte();
    if (request.kind == static_cast<std::uint32_t>(FileRequestKind::kChunk) &&
        input_.Below(4) != 0) {
      request.value = written_;  // in order
    }
    if (request.kind == static_cast<std::uint32_t>(FileRequestKind::kFinish) &&
        input_.Below(4) != 0) {
      request.value = announced_;
    }
    if (request.kind == static_cast<std::uint32_t>(FileRequestKind::kBegin)) {
      announced_ = request.value;
      data_bytes = 1 + input_.Below(12);
    }
    if (input_.Below(8) == 0) request.value = input_.Get<std::uint64_t>();
    request.data_bytes =
        input_.Below(8) == 0 ? input_.Number() : static_cast<std::uint32_t>(data_bytes);
    const auto answer = Ask(request, data_bytes);
    if (!answer) return;
    FileReply reply;
    FUZZ_REQUIRE(answer->size() >= sizeof reply);
    std::memcpy(&reply, answer->data(), sizeof reply);
    FUZZ_REQUIRE(reply.status <= static_cast<std::uint32_t>(FileStatus::kBusy));
    (void)FileStatusText(reply.status);
    written_ = reply.value;
  }

 private:
  // `data_bytes` of the input, and zeros, behind the head. Nothing: no answer was asked for, or the
  // packet does not fit the channel.
  template <typename Head>
  std::optional<std::vector<std::byte>> Ask(const Head& head, std::size_t data_bytes) {
    std::vector<std::byte> packet(sizeof head + data_bytes);
    std::memcpy(packet.data(), &head, sizeof head);
    const auto bytes = input_.Bytes(std::min<std::size_t>(data_bytes, 64));
    std::copy(bytes.begin(), bytes.end(), packet.begin() + sizeof head);
    is_cut_ = input_.Below(32) == 1;
    if (is_cut_) packet.resize(input_.Below(24));
    const bool wants_answer = input_.Below(4) != 0;
    std::vector<std::byte> answer(70'000);
    auto answer_bytes = static_cast<UINT32>(answer.size());
    LARGE_INTEGER limit;
    limit.QuadPart = -100'000'000;  // 10 s: an answer that does not come is a fault
    const NTSTATUS status = VmbChannelSendSynchronousRequest(
        channel_.handle(), packet.data(), static_cast<UINT32>(packet.size()), nullptr,
        wants_answer ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0,
        wants_answer ? answer.data() : nullptr, wants_answer ? &answer_bytes : nullptr, &limit);
    // What the channel cannot carry does not leave; all else is served.
    FUZZ_REQUIRE(status == (packet.size() > most_ ? STATUS_INVALID_PARAMETER_3 : STATUS_SUCCESS));
    if (status != STATUS_SUCCESS || !wants_answer) return std::nullopt;
    answer.resize(answer_bytes);
    return answer;
  }

  Input& input_;
  ChannelView channel_;
  const std::uint32_t most_;  // bytes of a packet
  std::uint64_t announced_ = 0;
  std::uint64_t written_ = 0;
  bool is_cut_ = false;  // what was asked last
};

void Spoil(Input& input, std::vector<std::byte>& bytes) {
  for (std::uint32_t left = input.Below(4); left > 0 && !bytes.empty(); --left) {
    bytes[input.Get<std::uint16_t>() % bytes.size()] = static_cast<std::byte>(input.Byte());
  }
  if (input.Below(8) == 1) bytes.resize(input.Get<std::uint16_t>() % (bytes.size() + 1));
}

// `Device` is offered by `offer` and made again by `restore`, of what it had saved.
template <typename Device, typename Offer, typename Restore>
void Serve(Input& input, const GUID& type, std::uint32_t most, Offer offer, Restore restore,
           void (Asked::*ask)()) {
  std::unique_ptr<Device> device;
  PDEVICE_OBJECT object = nullptr;
  HANDLE arrived = nullptr;
  fuzz::DeviceServer server(
      [&](PDEVICE_OBJECT device_object, HANDLE partition) {
        auto made = offer(device_object, partition);
        FUZZ_REQUIRE(made.has_value());
        device = std::move(*made);
        object = device_object;
        arrived = partition;
      },
      [&] { device.reset(); });
  Client client = server.Connect();
  for (int opens = 1 + (input.Below(8) == 1 ? 1 : 0); opens > 0; --opens) {
    ChannelOptions options;
    options.interface_type = type;
    options.maximum_packet_bytes = most;
    auto opened = client.Open(std::move(options));
    FUZZ_REQUIRE(opened.has_value());
    Asked asked(input, *opened, most);
    for (int steps = 0; steps < 40 && !input.empty(); ++steps) {
      if (input.Below(32) != 1) {
        (asked.*ask)();
        continue;
      }
      auto saved = device->Save();
      FUZZ_REQUIRE(saved.has_value());
      Spoil(input, *saved);
      // The one that stands has the offer: what is made of the bytes can only be refused, or go.
      (void)restore(object, arrived, *saved);
      device->Resume();
    }
  }
}

}  // namespace
}  // namespace kmcl::devices

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kmcl::devices;
  kmcl::fuzz::QuietLog();
  kmcl::fuzz::Input input(data, size);
  if (input.Flag()) {
    Serve<EchoDevice>(
        input, kEchoInterface, kEchoMaximumPacketBytes,
        [](PDEVICE_OBJECT object, HANDLE partition) {
          return EchoDevice::Offer(object, partition);
        },
        [](PDEVICE_OBJECT object, HANDLE partition, std::span<const std::byte> saved) {
          return EchoDevice::Restore(object, partition, saved);
        },
        &Asked::AskEcho);
  } else {
    const int folder = TheFolders().inner();
    Serve<FileDevice>(
        input, kFileInterface, kFileMaximumPacketBytes,
        [&](PDEVICE_OBJECT object, HANDLE partition) {
          return FileDevice::Offer(object, partition, folder, {});
        },
        [&](PDEVICE_OBJECT object, HANDLE partition, std::span<const std::byte> saved) {
          return FileDevice::Restore(object, partition, folder, {}, saved);
        },
        &Asked::AskFile);
    TheFolders().Clear();
  }
  return 0;
}
