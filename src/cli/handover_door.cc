#include "cli/handover_door.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>

#include "cli/output.h"

namespace kmcl::cli {
namespace {

// Empty for a bus that is not a socket file.
std::string DoorOf(const std::string& bus) {
  constexpr std::string_view kScheme = "unix:";
  return bus.starts_with(kScheme) ? bus.substr(kScheme.size()) + ".handover" : "";
}

std::optional<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return std::nullopt;
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

HandoverDoor::HandoverDoor(const std::string& bus, std::function<bool(int socket)> serve)
    : path_(DoorOf(bus)), serve_(std::move(serve)) {
  if (!path_.empty()) {
    stop_ = eventfd(0, EFD_CLOEXEC);
    thread_ = std::thread(&HandoverDoor::Run, this);
  }
}

HandoverDoor::~HandoverDoor() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  if (stop_ >= 0) {
    close(stop_);
  }
}

int HandoverDoor::Open() {
  const auto address = AddressOf(path_);
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  // bind() gives the file the mode of the socket. Whoever left a file there is gone: the bus is ours.
  const bool opened = address && listener >= 0 && fchmod(listener, 0600) == 0 &&
                      (unlink(path_.c_str()) == 0 || errno == ENOENT) &&
                      bind(listener, reinterpret_cast<const sockaddr*>(&*address),
                           sizeof(*address)) == 0 &&
                      listen(listener, 1) == 0;
  if (opened) {
    return listener;
  }
  PrintError(fmt::format("vmbus serve: no handover, because of {}: {}\n", path_,
                         address ? std::generic_category().message(errno) : "its length"));
  if (listener >= 0) {
    close(listener);
  }
  return -1;
}

bool HandoverDoor::AwaitCaller(int listener) const {
  pollfd waits[] = {{listener, POLLIN, 0}, {stop_, POLLIN, 0}};
  while (poll(waits, 2, -1) < 0 && errno == EINTR) {
  }
  return waits[1].revents == 0;
}

void HandoverDoor::Run() {
  while (true) {
    const int listener = Open();
    if (listener < 0) {
      return;
    }
    int caller = -1;
    bool stopping = false;
    while (caller < 0 && !stopping) {
      stopping = !AwaitCaller(listener);
      if (!stopping) {
        caller = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      }
    }
    unlink(path_.c_str());
    close(listener);
    if (stopping) {
      return;
    }
    const bool gone = serve_(caller);
    close(caller);
    if (gone) {
      return;
    }
  }
}

Outcome<int> KnockAtDoor(const std::string& bus) {
  const std::string path = DoorOf(bus);
  if (path.empty()) {
    return Fail(kExitUsage,
                fmt::format("\"{}\" cannot be handed over: only unix:PATH can", bus));
  }
  const auto address = AddressOf(path);
  if (!address) {
    return Fail(kExitUsage, fmt::format("{} is too long for a socket", path));
  }
  const int caller = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (caller >= 0 && connect(caller, reinterpret_cast<const sockaddr*>(&*address),
                             sizeof(*address)) == 0) {
    return caller;
  }
  const int error = errno;
  if (caller >= 0) {
    close(caller);
  }
  if (error == EACCES || error == EPERM) {
    return Fail(kExitFailure, fmt::format("{} is served by another user", bus));
  }
  return Fail(kExitFailure,
              fmt::format("no vmbus serve to take over at {} ({}): start without --handover", bus,
                          std::generic_category().message(error)));
}

}  // namespace kmcl::cli
