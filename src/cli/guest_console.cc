#include "cli/guest_console.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <system_error>

namespace kmcl::cli {
namespace {

constexpr unsigned char kCommandKey = 0x01;  // Ctrl-A

// The one terminal that standard input can be, as it was; written before the flag is set.
termios terminal_before{};
std::atomic<bool> terminal_is_raw{false};

}  // namespace

Outcome<std::unique_ptr<GuestConsole>> GuestConsole::Open(const std::string& where,
                                                          bool output_is_taken) {
  std::unique_ptr<GuestConsole> console(new GuestConsole);
  if (where == "stdio") {
    console->is_stdio_ = true;
    console->output_ = output_is_taken ? STDERR_FILENO : STDOUT_FILENO;
  } else if (where != "none") {
    console->output_ = open(where.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (console->output_ < 0) {
      return Fail(kExitFailure, fmt::format("cannot write {}: {}", where,
                                            std::generic_category().message(errno)));
    }
    console->owns_output_ = true;
  }
  return console;
}

GuestConsole::~GuestConsole() {
  StopInput();
  if (owns_output_) {
    close(output_);
  }
}

void GuestConsole::Put(std::byte byte) {
  if (output_ < 0) {
    return;
  }
  while (write(output_, &byte, 1) != 1 && !abandoned_.load()) {
    if (errno == EAGAIN) {
      pollfd room{output_, POLLOUT, 0};
      (void)poll(&room, 1, -1);
    } else if (errno != EINTR) {
      return;  // the reader has gone, or the disk is full: the guest goes on
    }
  }
}

Outcome<void> GuestConsole::StartInput(std::function<bool(std::span<const std::byte>)> input,
                                       std::function<void()> leave) {
  if (!is_stdio_) {
    return {};
  }
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (stop_ < 0) {
    return Fail(kExitFailure, fmt::format("no descriptor for the console: {}",
                                          std::generic_category().message(errno)));
  }
  termios settings{};
  if (tcgetattr(STDIN_FILENO, &settings) == 0) {
    has_terminal_ = true;
    terminal_before = settings;
    terminal_is_raw.store(true);
    cfmakeraw(&settings);
    settings.c_oflag |= OPOST;  // what the host says ends its lines as ever
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &settings);
  }
  input_ = std::move(input);
  leave_ = std::move(leave);
  reader_ = std::thread(&GuestConsole::ReadInput, this);
  return {};
}

void GuestConsole::StopInput() {
  if (reader_.joinable()) {
    const std::uint64_t one = 1;
    (void)!write(stop_, &one, sizeof(one));
    reader_.join();
  }
  if (stop_ >= 0) {
    close(stop_);
    stop_ = -1;
  }
  RestoreTerminal();
}

void GuestConsole::RestoreTerminal() {
  if (terminal_is_raw.exchange(false)) {
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
  }
}

void GuestConsole::ReadInput() {
  std::array<std::byte, 256> buffer;
  for (;;) {
    std::array<pollfd, 2> wanted = {pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{stop_, POLLIN, 0}};
    if (poll(wanted.data(), wanted.size(), -1) < 0 && errno != EINTR) {
      return;
    }
    if (wanted[1].revents != 0) {
      return;
    }
    if (wanted[0].revents == 0) {
      continue;
    }
    const ssize_t count = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count <= 0) {
      return;  // the end of the input is not the end of the guest
    }
    const auto for_guest = Interpret(std::span(buffer).first(static_cast<std::size_t>(count)));
    if (!for_guest) {
      leave_();
      return;
    }
    if (!input_(std::as_bytes(std::span(*for_guest)))) {
      return;
    }
  }
}

std::optional<std::string> GuestConsole::Interpret(std::span<const std::byte> bytes) {
  std::string for_guest;
  for (const std::byte byte : bytes) {
    const auto character = std::to_integer<unsigned char>(byte);
    if (!has_terminal_) {
      for_guest.push_back(static_cast<char>(character));  // a pipe has no keys
    } else if (after_key_) {
      after_key_ = false;
      if (character == 'x' || character == 'X') {
        return std::nullopt;
      }
      if (character == kCommandKey) {
        for_guest.push_back(static_cast<char>(character));
      }
    } else if (character == kCommandKey) {
      after_key_ = true;
    } else {
      for_guest.push_back(static_cast<char>(character));
    }
  }
  return for_guest;
}

}  // namespace kmcl::cli
