// vmbus guest: asks a running `vmbus vm` about its guest, or to do something with it.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "cli/commands.h"
#include "cli/control_connection.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"

namespace kmcl::cli {
namespace {

constexpr std::size_t kMostAnswerBytes = std::size_t{16} * 1024 * 1024;

struct GuestOptions {
  JsonSink json;
  std::string control;
  Json request = Json::object();
  std::string file;  // to copy
  bool wait = false;
  unsigned wait_seconds = 120;
  bool await_driver = false;  // after the request
};

Outcome<OwnedDescriptor> Connect(const std::string& path) {
  if (path.empty()) {
    return Fail(kExitUsage, "no machine was named: give --control PATH or set KMCL_CONTROL");
  }
  const auto address = SocketAddressOf(path);
  if (!address) {
    return Fail(kExitUsage, fmt::format("\"{}\" is too long for a socket", path));
  }
  OwnedDescriptor made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (made.get() < 0 ||
      connect(made.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0) {
    return Fail(kExitLost, fmt::format("no machine answers at {}: {}", path,
                                       std::generic_category().message(errno)));
  }
  return made;
}

// The machine's end of the connection goes when the machine does, and a guest that reboots leaves
// it standing.
bool WaitForTheEnd(int socket, unsigned seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd waiting{socket, POLLIN, 0};
    const int ready = left.count() > 0 ? poll(&waiting, 1, static_cast<int>(left.count())) : 0;
    if (ready == 0) {
      return false;
    }
    char byte = 0;
    if (ready > 0 && recv(socket, &byte, 1, MSG_DONTWAIT) <= 0 && errno != EINTR) {
      return true;
    }
  }
}

std::string Describe(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Control characters would be commands to a terminal, and the text is the guest's.
std::string Printable(std::string text) {
  for (char& letter : text) {
    if (static_cast<unsigned char>(letter) < 0x20 || letter == 0x7F) {
      letter = '?';
    }
  }
  return text;
}

std::string DescribeServices(const Json& answer) {
  std::string text;
  for (const auto& [name, service] : answer["services"].items()) {
    text += Bold(name) + ":";
    for (const auto& [key, value] : service.items()) {
      text += fmt::format(" {}={}", key, Printable(Describe(value)));
    }
    text += "\n";
  }
  return text.empty() ? "the guest has not connected to the bus\n" : text;
}

std::string DescribeDevices(const Json& answer) {
  std::string text;
  for (const auto& [name, state] : answer["devices"].items()) {
    text += fmt::format("{}: {}\n", Bold(name), Printable(Describe(state)));
  }
  return text;
}

std::string DescribeAnswer(const Json& answer) {
  if (answer.contains("services")) {
    return DescribeServices(answer);
  }
  if (answer.contains("devices")) {
    return DescribeDevices(answer);
  }
  if (answer.contains("pairs")) {
    std::string text;
    for (const auto& [key, value] : answer["pairs"].items()) {
      text += Printable(key) + "=" + Printable(Describe(value)) + "\n";
    }
    return text;
  }
  if (answer.contains("value")) {
    return Printable(Describe(answer["value"])) + "\n";
  }
  if (answer.contains("addresses")) {
    std::string text;
    for (const Json& address : answer["addresses"]) {
      text += Printable(Describe(address)) + "\n";
    }
    return text;
  }
  if (answer.contains("sha256")) {
    return fmt::format("copied {} bytes, sha256 {}\n", answer.value("bytes", std::uint64_t{0}),
                       Describe(answer["sha256"]));
  }
  return "done\n";
}

Outcome<Json> Ask(ControlConnection& connection, const Json& request, int descriptor = -1) {
  std::optional<ControlConnection::Line> line;
  if (connection.Write(request.dump(-1, ' ', false, Json::error_handler_t::replace), descriptor)) {
    line = connection.Read();
  }
  Json answer = line ? Json::parse(line->text, nullptr, false) : Json();
  if (!answer.is_object()) {
    return Fail(kExitLost, "the machine went away, or has no answer");
  }
  if (!answer.value("ok", false)) {
    return Fail(kExitFailure, Printable(Describe(answer.value("error", Json("it failed")))));
  }
  return answer;
}

// Of "heartbeat=100".
std::string NameOf(const Json& device) {
  const std::string text = Describe(device);
  return text.substr(0, text.find('='));
}

// Lines from standard input to the machine, and its answers to standard output.
int RunRequests(const GuestOptions& options) {
  auto socket = Connect(options.control);
  if (!socket) {
    return ReportFailure("guest", options.json, socket.error());
  }
  ControlConnection connection(std::move(*socket), kMostAnswerBytes);
  int exit_code = kExitSuccess;
  for (std::string request; std::getline(std::cin, request);) {
    const auto answer =
        connection.Write(request) ? connection.Read() : std::optional<ControlConnection::Line>();
    if (!answer) {
      return ReportFailure("guest", options.json,
                           {kExitLost, "the machine went away, or has no answer"});
    }
    Print(answer->text + "\n");
    const Json object = Json::parse(answer->text, nullptr, false);
    if (!object.is_object() || !object.value("ok", false)) {
      exit_code = kExitFailure;
    }
  }
  return exit_code;
}

// Talks to the machine on a thread of its own, as this one takes Ctrl-C. What can be cancelled ends
// with the machine's word on it; otherwise the machine goes on with what it was asked.
Outcome<Json> UnlessInterrupted(const std::function<Outcome<Json>()>& talk,
                                const ControlConnection& connection, bool can_be_cancelled) {
  std::optional<Outcome<Json>> result;
  std::atomic<bool> done{false};
  std::thread talker([&] {
    result = talk();
    done.store(true);
    MainWait::Get().Wake();
  });
  MainWait::Get().Until([&] { return done.load(); });
  const bool was_interrupted = !done.load();
  if (was_interrupted) {
    can_be_cancelled ? connection.FinishWriting() : connection.Abort();
  }
  talker.join();
  if (!was_interrupted) {
    return *std::move(result);
  }
  if (!can_be_cancelled) {
    return Fail(kExitInterrupted, "interrupted; the machine goes on with what it was asked");
  }
  if (!*result) {
    return Fail(kExitInterrupted, "interrupted: " + result->error().message);
  }
  return *std::move(result);  // it was done before
}

int RunGuest(const GuestOptions& options) {
  const auto fail = [&](const Failure& failure) {
    return ReportFailure("guest", options.json, failure);
  };
  Json request = options.request;
  OwnedDescriptor file;
  if (!options.file.empty()) {
    file = OwnedDescriptor(open(options.file.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) {
      return fail({kExitFailure, fmt::format("cannot read {}: {}", options.file,
                                             std::generic_category().message(errno))});
    }
    if (!request.contains("name")) {
      request["name"] = std::filesystem::path(options.file).filename().string();
    }
  }
  auto socket = Connect(options.control);
  if (!socket) {
    return fail(socket.error());
  }
  const int descriptor = socket->get();
  ControlConnection connection(std::move(*socket), kMostAnswerBytes);
  const auto answered = UnlessInterrupted(
      [&]() -> Outcome<Json> {
        auto answer = Ask(connection, request, file.get());
        if (answer && options.await_driver) {
          answer =
              Ask(connection, {{"request", "device-await"}, {"device", NameOf(request["device"])}});
        }
        if (answer && options.wait && !WaitForTheEnd(descriptor, options.wait_seconds)) {
          return Fail(kExitFailure,
                      fmt::format("the machine still runs after {} seconds", options.wait_seconds));
        }
        return answer;
      },
      connection, !options.file.empty());
  if (!answered) {
    return fail(answered.error());
  }
  const Json& answer = *answered;
  Json object = {{"command", "guest"}};
  object.update(answer);
  options.json.Emit(object);
  if (options.json.text()) {
    Print(DescribeAnswer(answer));
  }
  return kExitSuccess;
}

constexpr const char* kFooter = R"(
The machine is a running `vmbus vm --control PATH`, and has the devices that are
asked: heartbeat, shutdown, timesync, kvp, vss, fcopy. The guest answers kvp,
freeze, thaw and copy with daemons of its own (Debian's hyperv-daemons).

Example:
  vmbus guest --control /tmp/vm status
  vmbus guest --control /tmp/vm kvp get OSName
  vmbus guest --control /tmp/vm shutdown --wait)";

}  // namespace

void AddGuest(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<GuestOptions>();
  CLI::App* guest = app.add_subcommand("guest", "Ask a running vmbus vm about its guest");
  guest->footer(kFooter);
  guest->require_subcommand(1);
  guest->add_option("--control", options->control, "The machine's control socket")
      ->envname("KMCL_CONTROL")
      ->type_name("PATH");
  AddJsonOptions(*guest, options->json);
  const auto add = [&chosen, options](CLI::App& parent, const char* name, const char* help,
                                      const char* request) {
    CLI::App* const made = parent.add_subcommand(name, help);
    made->fallthrough();
    made->callback([options, &chosen, request] {
      options->request["request"] = request;
      chosen = [options] { return RunGuest(*options); };
    });
    return made;
  };
  const auto add_text = [options](CLI::App* command, const char* option, const char* member,
                                  const char* help) {
    return command->add_option_function<std::string>(
        option, [options, member](const std::string& text) { options->request[member] = text; },
        help);
  };
  const auto add_flag = [options](CLI::App* command, const char* flag, const char* member,
                                  const char* help) {
    command->add_flag_callback(flag, [options, member] { options->request[member] = true; }, help);
  };

  add(*guest, "status", "Heartbeat, versions and counts of every service", "status");
  CLI::App* const shutdown = add(*guest, "shutdown", "Have the guest power off", "shutdown");
  CLI::App* const reboot = add(*guest, "reboot", "Have the guest reboot", "reboot");
  CLI::App* const hibernate = add(*guest, "hibernate", "Have the guest hibernate", "hibernate");
  for (CLI::App* const command : {shutdown, reboot, hibernate}) {
    add_flag(command, "--force", "force", "Also if its programs object");
    add_text(command, "--reason", "reason", "Shown in the guest");
  }
  shutdown->add_flag("--wait", options->wait, "Return when the machine has ended");
  shutdown->add_option("--wait-seconds", options->wait_seconds, "How long to wait for that")
      ->capture_default_str();
  add(*guest, "time", "Have the guest set its clock to ours", "time");
  add(*guest, "freeze", "Freeze the guest's file systems, for at most a minute", "freeze");
  add(*guest, "thaw", "Thaw them", "thaw");

  CLI::App* const kvp = guest->add_subcommand("kvp", "Key/value pairs, and addresses");
  kvp->require_subcommand(1);
  kvp->fallthrough();
  constexpr const char* kPool = "external, guest, auto or host";
  CLI::App* const get = add(*kvp, "get", "One value of the guest's (pool: auto)", "kvp-get");
  add_text(get, "key", "key", "Its key")->required();
  add_text(get, "--pool", "pool", kPool);
  CLI::App* const set = add(*kvp, "set", "Leave a pair for the guest (pool: external)", "kvp-set");
  add_text(set, "key", "key", "Its key")->required();
  add_text(set, "value", "value", "Its value")->required();
  add_text(set, "--pool", "pool", kPool);
  CLI::App* const erase = add(*kvp, "delete", "Remove a pair (pool: external)", "kvp-delete");
  add_text(erase, "key", "key", "Its key")->required();
  add_text(erase, "--pool", "pool", kPool);
  CLI::App* const list = add(*kvp, "list", "All pairs of a pool (auto)", "kvp-list");
  add_text(list, "--pool", "pool", kPool);
  CLI::App* const ip = add(*kvp, "ip", "The guest's addresses", "kvp-ip");
  add_text(ip, "--adapter", "adapter", "Those of the adapter with this hardware address");

  CLI::App* const copy = add(*guest, "copy", "Copy a file into the guest", "copy");
  copy->add_option("file", options->file, "The file")->required();
  add_text(copy, "directory", "directory", "Where to, in the guest (/tmp)");
  add_text(copy, "--name", "name", "Under which name");
  add_flag(copy, "--overwrite", "overwrite", "Replace a file of that name");
  add_flag(copy, "--create", "create", "Make the directory if it is missing");

  CLI::App* const device = guest->add_subcommand("device", "What the bus offers, while it runs");
  device->require_subcommand(1);
  device->fallthrough();
  CLI::App* const plug = add(*device, "add", "Offer another device", "device-add");
  add_text(plug, "device", "device", "Its name, as for `vmbus vm --device`")->required();
  plug->add_flag("--wait", options->await_driver, "Return when the guest's driver has answered it");
  CLI::App* const unplug = add(*device, "remove", "Take a device away", "device-remove");
  add_text(unplug, "device", "device", "Its name")->required();
  add(*device, "list", "What is offered, and whether the guest's drivers have taken it",
      "device-list");

  CLI::App* const requests = guest->add_subcommand(
      "requests", "Send requests of one's own: a line of JSON each, from standard input");
  requests->fallthrough();
  requests->callback([options, &chosen] { chosen = [options] { return RunRequests(*options); }; });
}

}  // namespace kmcl::cli
