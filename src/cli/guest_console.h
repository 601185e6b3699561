// Where a guest's serial console goes to and comes from: this terminal, a file, or nowhere.
//
// On a terminal, Ctrl-A is the key before a command: X leaves the machine, a second Ctrl-A sends
// one to the guest.
#pragma once

#include <termios.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "cli/outcome.h"

namespace kmcl::cli {

class GuestConsole {
 public:
  // `where` is "stdio", "none" or a file, which is emptied first. With `output_is_taken`, stdio's
  // output goes to standard error, as standard output is for something else.
  static Outcome<std::unique_ptr<GuestConsole>> Open(const std::string& where,
                                                     bool output_is_taken);
  ~GuestConsole();
  GuestConsole(const GuestConsole&) = delete;
  GuestConsole& operator=(const GuestConsole&) = delete;

  // What the guest sent. Any thread, one at a time. Blocks while nobody reads the output.
  void Put(std::byte byte);
  // No Put blocks from now on.
  void Abandon() { abandoned_.store(true); }

  // Starts reading standard input, and makes a terminal raw until the end. `input` gets what is for
  // the guest and returns false when nobody wants more of it; `leave` is called when the user wants
  // to leave. Both on a thread of the console's own. Does nothing unless the console is stdio.
  Outcome<void> StartInput(std::function<bool(std::span<const std::byte>)> input,
                           std::function<void()> leave);
  // Waits until neither is called any more. `input` must not be blocked for ever. The terminal is
  // as before.
  void StopInput();

  // The terminal as before, if it is raw: for a process that ends on the spot, also in a handler of
  // a signal.
  static void RestoreTerminal();

 private:
  GuestConsole() = default;
  void ReadInput();
  // What of `bytes` is for the guest; none when the user leaves.
  std::optional<std::string> Interpret(std::span<const std::byte> bytes);

  int output_ = -1;
  bool owns_output_ = false;
  bool is_stdio_ = false;
  std::atomic<bool> abandoned_{false};

  int stop_ = -1;              // an eventfd
  bool has_terminal_ = false;  // whose keys mean something
  std::function<bool(std::span<const std::byte>)> input_;
  std::function<void()> leave_;
  std::thread reader_;
  bool after_key_ = false;  // the reader's
};

}  // namespace kmcl::cli
