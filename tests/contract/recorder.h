// What happened to one channel, in order: every callback, completion routine and returned call adds
// an event. Tests wait for events, compare their order, and hold a callback at one of them (a
// gate).
//
// Any thread may use it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace kmcl::contract {

// Everything that a test waits for comes within this time, or the test fails. Nothing waits for it
// to pass.
inline constexpr std::chrono::seconds kDeadline{10};

struct Event {
  std::string name;    // "packet 3", "Suspend", "done 7 STATUS_SUCCESS"
  std::string detail;  // "len=16 irql=2", words that not every test wants to spell out
};

class Recorder {
 public:
  // Adds an event. Then runs what On() gave for the name, and waits while a gate is set for it.
  void Record(const std::string& name, const std::string& detail = "");

  // True when the event has been recorded `count` times, at the latest when the deadline has
  // passed.
  bool Wait(const std::string& name, int count);

  std::vector<Event> Events() const;

  // The next event of this name holds its thread until Release, or until the deadline, which is
  // recorded as an event "gate timed out".
  void Gate(const std::string& name);
  void Release(const std::string& name);
  void ReleaseAll();

  // Runs `action` in the thread that records the event, each time.
  void On(const std::string& name, std::function<void()> action);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Event> events_;
  std::map<std::string, int> counts_;
  std::set<std::string> gates_;
  std::map<std::string, std::function<void()>> actions_;
  bool open_for_good_ = false;
};

}  // namespace kmcl::contract
