// What people and programs write to the vmbus command: command lines of every option that there is,
// lists of devices, interface types, lines of the control socket, and kernel files. They are read,
// and nothing that they ask for is begun.
#include <sys/socket.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/control_connection.h"
#include "cli/guest_devices.h"
#include "cli/guest_requests.h"
#include "cli/interface_names.h"
#include "input.h"
#include "vmm/boot_image.h"

namespace kmcl::cli {
namespace {

using fuzz::Input;

std::string AnyText(Input& input, std::size_t most = 40) {
  const auto bytes = input.Bytes(most);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Line {
  Line() {
    app.require_subcommand(1);
    for (const auto add : {AddServe, AddList, AddPing, AddCopy, AddCat, AddPerf, AddGenerate, AddVm,
                           AddGuest, AddBind, AddUnbind, AddStatus}) {
      add(app, chosen);
    }
  }
  CLI::App app{"", "vmbus"};
  Command chosen;
};

// As often as not a value that an option takes.
std::string AnyValue(Input& input) {
  static constexpr const char* kValues[] = {"unix:/tmp/bus",
                                            "uio:",
                                            "local:x",
                                            "0",
                                            "1",
                                            "-1",
                                            "64",
                                            "4096",
                                            "1M",
                                            "1.5",
                                            "1e9",
                                            "poll",
                                            "sleep",
                                            "both",
                                            "stream",
                                            "echo,kvp",
                                            "-",
                                            "--",
                                            "",
                                            "4Gi",
                                            "heartbeat=100",
                                            "vsock",
                                            "18446744073709551616"};
  if (input.Below(4) == 0) return AnyText(input);
  return kValues[input.Below(std::size(kValues))];
}

void CommandLine(Input& input) {
  Line line;
  std::vector<std::string> words;
  const CLI::App* command = &line.app;
  // Down to a command, or to a command's command.
  for (int depth = 0; depth < 3; ++depth) {
    const auto below = command->get_subcommands([](const CLI::App*) { return true; });
    if (below.empty() || input.Below(8) == 0) break;
    command = below[input.Byte() % below.size()];
    words.push_back(command->get_name());
  }
  const auto options = command->get_options();
  while (!input.empty() && words.size() < 30) {
    const std::uint32_t what = input.Below(8);
    if (what < 5 && !options.empty()) {
      const CLI::Option* option = options[input.Byte() % options.size()];
      std::string name = option->get_name();
      if (input.Below(4) != 0) {
        words.push_back(std::move(name));
        if (!option->get_positional() && input.Flag()) words.push_back(AnyValue(input));
      } else {
        words.push_back(name + "=" + AnyValue(input));
      }
    } else {
      words.push_back(AnyValue(input));
    }
  }
  std::ranges::reverse(words);  // as CLI11 wants them
  try {
    line.app.parse(words);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    FUZZ_REQUIRE(line.app.exit(error, out, out) >= 0);
    return;
  }
  FUZZ_REQUIRE(line.chosen != nullptr);
}

void Names(Input& input) {
  const std::string text = AnyText(input, 200);
  GuestDeviceChoice choice;
  (void)AddGuestDevices(choice, text);
  if (const auto guid = GuidFromText(text)) {
    FUZZ_REQUIRE(GuidFromText(GuidText(*guid)).has_value());
    (void)InterfaceName(*guid);
  }
  (void)InterfaceFromText(text);
  (void)SocketAddressOf(text);
}

// What comes over the control socket, with no guest there.
void Control(Input& input) {
  static constexpr const char* kMembers[] = {"request", "pool",      "key",    "value",
                                             "adapter", "device",    "name",   "directory",
                                             "create",  "overwrite", "reason", "force"};
  static constexpr const char* kRequests[] = {
      "status",    "shutdown", "reboot",        "hibernate",    "time",
      "kvp-get",   "kvp-set",  "kvp-list",      "kvp-delete",   "kvp-ip",
      "freeze",    "thaw",     "copy",          "device-add",   "kvp",
      "heartbeat", "echo",     "device-remove", "device-await", "device-list"};
  std::string line;
  if (input.Flag()) {
    Json request = {{"request", kRequests[input.Below(std::size(kRequests))]}};
    for (std::uint32_t left = input.Below(5); left > 0; --left) {
      Json& member = request[kMembers[input.Below(std::size(kMembers))]];
      switch (input.Below(4)) {
        case 0:
          member = input.Number();
          break;
        case 1:
          member = input.Flag();
          break;
        case 2:
          member = Json::array({kRequests[input.Below(std::size(kRequests))], nullptr});
          break;
        default:
          member = input.Flag() ? AnyText(input) : "guest";
          break;
      }
    }
    line = request.dump(-1, ' ', false, Json::error_handler_t::replace);
  } else {
    line = AnyText(input, 2000);
  }
  int ends[2];
  FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  OwnedDescriptor writer(ends[0]);
  ControlConnection connection(OwnedDescriptor(ends[1]), 1000);
  line += '\n';
  FUZZ_REQUIRE(send(writer.get(), line.data(), line.size(), MSG_NOSIGNAL) ==
               static_cast<ssize_t>(line.size()));
  writer = OwnedDescriptor();
  while (const auto read = connection.Read()) {
    FUZZ_REQUIRE(read->text.size() <= 1000);
    ControlSocket::Request request{.json = Json::parse(read->text, nullptr, false),
                                   .descriptor = read->descriptor.get(),
                                   .await_client_done = [](int) { return true; }};
    // Sockets would be made for it.
    if (!request.json.is_object() || read->text.find("vsock") != std::string::npos) continue;
    GuestDevices devices({}, [](const std::string&) {});
    const Json answer = AnswerGuestRequest(devices, request);
    FUZZ_REQUIRE(answer.is_object() && answer.contains("ok"));
    (void)answer.dump(-1, ' ', false, Json::error_handler_t::replace);
    devices.RevokeAll();
  }
}

template <typename T>
void Put(std::vector<std::byte>& file, std::size_t offset, T value) {
  if (offset + sizeof value <= file.size()) std::memcpy(&file[offset], &value, sizeof value);
}

// A file that looks like a kernel at first.
void Kernel(Input& input) {
  std::vector<std::byte> file(input.Get<std::uint16_t>() % 8192);
  const bool is_elf = input.Flag();
  if (is_elf) {
    constexpr std::uint8_t kIdent[] = {0x7F, 'E', 'L', 'F', 2, 1, 1};
    for (std::size_t i = 0; i < std::size(kIdent); ++i) Put(file, i, kIdent[i]);
    Put(file, 16, std::uint16_t{2});
    Put(file, 18, std::uint16_t{62});
    Put(file, 24, std::uint64_t{0x1000000});
    Put(file, 32, std::uint64_t{64});
    Put(file, 54, std::uint16_t{56});
    const std::uint16_t segments = input.Below(4);
    Put(file, 56, segments);
    for (std::size_t i = 0; i < segments; ++i) {
      const std::size_t at = 64 + 56 * i;
      Put(file, at, std::uint32_t{1});
      Put(file, at + 8, std::uint64_t{input.Get<std::uint16_t>()});
      Put(file, at + 24, std::uint64_t{0x1000000} * (1 + i));
      Put(file, at + 32, std::uint64_t{input.Get<std::uint16_t>()});
      Put(file, at + 40, std::uint64_t{input.Get<std::uint16_t>()});
    }
  } else {
    Put(file, 0x1F1, input.Byte());
    Put(file, 0x1FE, std::uint16_t{0xAA55});
    Put(file, 0x200, std::uint16_t{0x66EB});
    Put(file, 0x202, std::uint32_t{0x53726448});
    Put(file, 0x206, std::uint16_t{0x020F});
    Put(file, 0x211, std::uint8_t{1});
    Put(file, 0x22C, std::uint32_t{0x7FFFFFFF});
    Put(file, 0x236, std::uint16_t{1});
    Put(file, 0x238, std::uint32_t{2047});
    Put(file, 0x258, std::uint64_t{0x1000000});
    Put(file, 0x260, std::uint32_t{0x2000000});
  }
  while (!input.empty()) {
    const std::size_t at = input.Get<std::uint16_t>() % 0x280;
    if (input.Flag()) {
      Put(file, at, input.Byte());
    } else {
      Put(file, at, input.Get<std::uint64_t>());
    }
  }
  const auto image = vmm::ParseKernel(std::move(file));
  if (!image) return;
  FUZZ_REQUIRE(!image->segments.empty());
  bool entry_is_inside = false;
  for (const auto& segment : image->segments) {
    FUZZ_REQUIRE(segment.file_offset <= image->file.size());
    FUZZ_REQUIRE(segment.file_bytes <= image->file.size() - segment.file_offset);
    FUZZ_REQUIRE(segment.file_bytes <= segment.memory_bytes);
    FUZZ_REQUIRE(segment.address >= vmm::BootImage::kMinimumAddress);
    FUZZ_REQUIRE(segment.memory_bytes <= vmm::BootImage::kAddressEnd - segment.address);
    FUZZ_REQUIRE(image->BytesOf(segment).size() == segment.file_bytes);
    entry_is_inside |=
        image->entry >= segment.address && image->entry - segment.address < segment.memory_bytes;
  }
  FUZZ_REQUIRE(entry_is_inside);
  FUZZ_REQUIRE(image->end() <= vmm::BootImage::kAddressEnd);
}

}  // namespace
}  // namespace kmcl::cli

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kmcl::fuzz::Input input(data, size);
  switch (input.Below(8)) {
    case 0:
      kmcl::cli::Names(input);
      break;
    case 1:
      kmcl::cli::Control(input);
      break;
    case 2:
    case 3:
      kmcl::cli::Kernel(input);
      break;
    default:
      kmcl::cli::CommandLine(input);
      break;
  }
  return 0;
}
