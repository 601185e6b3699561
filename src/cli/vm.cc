// vmbus vm: a machine with a Linux guest.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "cli/commands.h"
#include "cli/control_socket.h"
#include "cli/guest_console.h"
#include "cli/guest_devices.h"
#include "cli/guest_requests.h"
#include "cli/main_wait.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "devices/sha256.h"
#include "vmm/call_filter.h"
#include "vmm/machine.h"

namespace kmcl::cli {
namespace {

struct VmOptions {
  JsonSink json;
  std::string kernel;
  std::string initrd;
  std::string command_line = "console=ttyS0 panic=-1";
  std::uint64_t memory_bytes = std::uint64_t{512} << 20;
  unsigned cpus = 2;
  std::string console = "stdio";
  bool no_reboot = false;
  GuestDeviceChoice devices;
  std::string control;  // empty: no socket
  std::string maximum_version;
  std::string synic = "auto";
  bool no_seccomp = false;
};

// The whole of a file.
Outcome<std::vector<std::byte>> ReadFile(const std::string& path) {
  constexpr std::uint64_t kLimit = std::uint64_t{4} << 30;
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat about{};
  if (descriptor < 0 || fstat(descriptor, &about) != 0) {
    const int why = errno;
    if (descriptor >= 0) {
      close(descriptor);
    }
    return Fail(kExitFailure,
                fmt::format("cannot read {}: {}", path, std::generic_category().message(why)));
  }
  if (!S_ISREG(about.st_mode) || static_cast<std::uint64_t>(about.st_size) >= kLimit) {
    close(descriptor);
    return Fail(kExitFailure, fmt::format("{} is no file of less than 4 GiB", path));
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(about.st_size));
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = read(descriptor, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  close(descriptor);
  if (done < bytes.size()) {
    return Fail(kExitFailure, fmt::format("cannot read all of {}", path));
  }
  return bytes;
}

// A connection of the guest's takes some descriptors, and 256 of them more than what programs are
// given to begin with. What the user may not have is not asked for.
void RaiseDescriptorLimit() {
  constexpr rlim_t kWanted = 8192;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < kWanted) {
    limit.rlim_cur = std::min(limit.rlim_max, kWanted);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

void Say(const std::string& line) { PrintError(line + "\n"); }

ULONG SynicOf(const std::string& name) {
  return name == "kernel" ? KMCL_KVM_SYNIC_KERNEL
         : name == "user" ? KMCL_KVM_SYNIC_USER
                          : KMCL_KVM_SYNIC_AUTO;
}

// Of "5.3", which the command line has checked; 0 for none.
ULONG VersionOf(const std::string& text) {
  const auto dot = text.find('.');
  return dot == std::string::npos ? 0
                                  : static_cast<ULONG>(std::stoul(text.substr(0, dot)) << 16 |
                                                       std::stoul(text.substr(dot + 1)));
}

const char* NameOf(vmm::MachineEnd end) {
  switch (end) {
    case vmm::MachineEnd::kPowerOff:
      return "power-off";
    case vmm::MachineEnd::kReset:
      return "reset";
    case vmm::MachineEnd::kStopped:
      return "stopped";
    case vmm::MachineEnd::kFailed:
      return "failed";
  }
  return "";
}

// Runs the guest on a thread of its own, again after each reset if that is wanted, while this
// thread waits for it and for signals.
class Running {
 public:
  Running(vmm::Machine& machine, bool no_reboot) : machine_(machine), no_reboot_(no_reboot) {}

  vmm::MachineEnd Wait() {
    std::thread runner([this] {
      vmm::MachineEnd end = machine_.Run();
      while (end == vmm::MachineEnd::kReset && !no_reboot_) {
        resets_.fetch_add(1);
        PrintError(fmt::format("the guest was reset: {}\n", machine_.cause()));
        end = machine_.Run();
      }
      end_ = end;
      done_.store(true);
      MainWait::Get().Wake();
    });
    MainWait::Get().Until([this] { return done_.load(); });
    machine_.Stop();
    runner.join();
    return end_;
  }

  std::uint64_t resets() const { return resets_.load(); }

 private:
  vmm::Machine& machine_;
  const bool no_reboot_;
  vmm::MachineEnd end_ = vmm::MachineEnd::kFailed;  // the runner's until it is done
  std::atomic<bool> done_{false};
  std::atomic<std::uint64_t> resets_{0};
};

Json Describe(const KMCL_KVM_COUNTERS& counters) {
  return {{"synic", counters.Synic == KMCL_KVM_SYNIC_KERNEL ? "kernel" : "user"},
          {"messages", counters.Messages},
          {"signal_exits", counters.Signals},
          {"refused", counters.Refused}};
}

// From here on nothing is opened. Everything else of this process, the guest's CPUs first, runs
// without the calls that are taken from it.
Outcome<void> GiveUpCalls() {
  static_assert(vmm::kForbiddenCallExit == kExitForbidden);
  if (!vmm::CanRestrictCalls()) {
    PrintError("built with sanitizers: the machine's system calls are not filtered\n");
    return {};
  }
  // The library behind the digests reads its settings from files when it is used for the first
  // time.
  (void)devices::Sha256().Finish();
  if (const auto restricted = vmm::RestrictCalls(&GuestConsole::RestoreTerminal); !restricted) {
    return Fail(kExitFailure, restricted.error() + " (--no-seccomp runs without)");
  }
  return {};
}

int RunVm(const VmOptions& options) {
  JsonSink json = options.json;
  if (!json.Open()) {
    return kExitFailure;
  }
  const auto fail = [&](const Failure& failure, const Json& details = Json::object()) {
    return ReportFailure("vm", json, failure, details);
  };
  vmm::MachinePlan plan;
  plan.memory_bytes = options.memory_bytes;
  plan.cpu_count = options.cpus;
  plan.command_line = options.command_line;
  auto kernel = ReadFile(options.kernel);
  if (!kernel) {
    return fail(kernel.error());
  }
  plan.kernel = std::move(*kernel);
  if (!options.initrd.empty()) {
    auto initrd = ReadFile(options.initrd);
    if (!initrd) {
      return fail(initrd.error());
    }
    plan.initrd = std::move(*initrd);
  }
  auto console = GuestConsole::Open(options.console, !json.text());
  if (!console) {
    return fail(console.error());
  }
  plan.console = [&console](std::byte byte) { (*console)->Put(byte); };
  GuestDeviceOptions device_options;
  device_options.choice = options.devices;
  // Asked of by devices only once the guest runs, and so has a clock.
  const vmm::Machine* clock = nullptr;
  device_options.timesync.reference_time = [&clock] { return clock->ReferenceTime(); };
  GuestDevices devices(device_options, Say);
  if (const auto prepared = devices.Prepare(); !prepared) {
    return fail({kExitFailure, prepared.error()});
  }
  RaiseDescriptorLimit();
  KmclEndpointOptionsInit(&plan.bus.endpoint);
  plan.bus.endpoint.MaximumVersion = VersionOf(options.maximum_version);
  devices.Serve(plan.bus.endpoint);
  plan.bus.synic = SynicOf(options.synic);
  auto machine = vmm::Machine::Create(std::move(plan));
  if (!machine) {
    return fail({kExitFailure, machine.error()});
  }
  clock = machine->get();
  std::unique_ptr<ControlSocket> control;
  if (!options.control.empty()) {
    auto listening =
        ControlSocket::Listen(options.control, [&devices](const ControlSocket::Request& request) {
          return AnswerGuestRequest(devices, request);
        });
    if (!listening) {
      return fail(listening.error());
    }
    control = std::move(*listening);
  }
  if (const auto started = (*console)->StartInput(
          [&](std::span<const std::byte> bytes) { return (*machine)->SendInput(bytes); },
          [&] { (*machine)->Stop(); });
      !started) {
    return fail(started.error());
  }
  MainWait::Get().BeforeLeaving(&GuestConsole::RestoreTerminal);
  if (!options.no_seccomp) {
    if (const auto given_up = GiveUpCalls(); !given_up) {
      return fail(given_up.error());
    }
  }
  Running running(**machine, options.no_reboot);
  const vmm::MachineEnd end = running.Wait();
  (*console)->Abandon();
  (*machine)->CloseInput();
  (*console)->StopInput();
  if (control) {
    control->Close();
  }
  devices.RevokeAll();
  control.reset();

  Json details = {{"end", NameOf(end)}, {"resets", running.resets()}};
  details.update(devices.Summary());
  details["bus"] = Describe((*machine)->counters());
  switch (end) {
    case vmm::MachineEnd::kFailed:
      return fail({kExitFailure, (*machine)->cause()}, details);
    case vmm::MachineEnd::kStopped:
      return fail({kExitInterrupted, "left while the guest was running"}, details);
    case vmm::MachineEnd::kPowerOff:
    case vmm::MachineEnd::kReset:
      break;
  }
  Json object = {{"command", "vm"}, {"ok", true}};
  object.update(details);
  json.Emit(object);
  PrintError(end == vmm::MachineEnd::kReset
                 ? fmt::format("the guest was reset: {}\n", (*machine)->cause())
                 : std::string("the guest powered off\n"));
  return end == vmm::MachineEnd::kReset ? kExitReset : kExitSuccess;
}

}  // namespace

void AddVm(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<VmOptions>();
  CLI::App* vm = app.add_subcommand("vm", "Boot a Linux guest");
  AddJsonOptions(*vm, options->json);
  vm->add_option("--kernel", options->kernel, "The kernel: a bzImage, as in /boot, or a vmlinux")
      ->required();
  vm->add_option("--initrd", options->initrd, "Its initial file system");
  vm->add_option("--cmdline", options->command_line, "Its command line")->capture_default_str();
  vm->add_option("--memory", options->memory_bytes, "The guest's memory, as in 512M or 2G")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("512M");
  vm->add_option("--cpus", options->cpus, "How many CPUs it has")
      ->capture_default_str()
      ->check(CLI::Range(1u, vmm::kMaximumCpus));
  vm->add_option("--console", options->console,
                 "The guest's serial port: stdio, none, or a file for its output")
      ->capture_default_str();
  vm->add_option_function<std::vector<std::string>>(
        "--device",
        [options](const std::vector<std::string>& lists) {
          for (const std::string& names : lists) {
            if (const auto added = AddGuestDevices(options->devices, names); !added) {
              throw CLI::ValidationError("--device", "there is no device " + added.error());
            }
          }
        },
        "What the bus offers to it: names with commas, of " + GuestDeviceNames())
      ->type_name("NAME,...");
  vm->add_option("--control", options->control,
                 "Where `vmbus guest` finds this machine: a socket's path")
      ->envname("KMCL_CONTROL");
  vm->add_option("--max-version", options->maximum_version,
                 "The newest version of the bus protocol that it is granted, as in 5.3")
      ->check(CLI::IsMember({"2.4", "3.0", "4.0", "4.1", "5.0", "5.1", "5.2", "5.3", "6.0"}));
  vm->add_option("--synic", options->synic,
                 "Who emulates its interrupt controllers: auto, kernel or user")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "kernel", "user"}));
  vm->add_flag("--no-reboot", options->no_reboot, "End when the guest resets itself");
  vm->add_flag("--no-seccomp", options->no_seccomp,
               "Let the machine make any system call, for debugging");
  vm->footer(R"(
A terminal becomes the guest's: Ctrl-A X leaves, Ctrl-A Ctrl-A sends Ctrl-A.
The exit code is 0 when the guest powers off, and 4 for a reset with --no-reboot.
The machine has only the system calls that it needs; one that makes another
ends with exit code 5.

Example:
  vmbus vm --kernel /boot/vmlinuz --initrd /boot/initrd.img --device echo,heartbeat)");
  vm->callback([options, &chosen] { chosen = [options] { return RunVm(*options); }; });
}

}  // namespace kmcl::cli
