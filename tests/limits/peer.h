// The other process of a test: a function in a fork of this one, with a line to talk over.
//
// Only from a process without threads: what they hold would stay held in the child for ever.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <type_traits>

namespace kmcl::limits {

// One end of the line. Words arrive whole and in order.
class Line {
 public:
  explicit Line(int fd) : fd_(fd) {}

  template <typename Word>
  void Say(const Word& word) const {
    static_assert(std::is_trivially_copyable_v<Word>);
    SayBytes(&word, sizeof word);
  }
  // Nothing when the other end is gone, or silent for two minutes.
  template <typename Word>
  std::optional<Word> Hear() const {
    static_assert(std::is_trivially_copyable_v<Word>);
    Word word{};
    if (!HearBytes(&word, sizeof word)) return std::nullopt;
    return word;
  }

 private:
  void SayBytes(const void* bytes, std::size_t count) const;
  bool HearBytes(void* bytes, std::size_t count) const;

  int fd_;
};

class Peer {
 public:
  // Forks; the child runs `body` and exits with what it returns. The program ends if the system has
  // no process to give.
  explicit Peer(const std::function<int(const Line&)>& body);
  // Kills it if it still runs.
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  pid_t pid() const { return pid_; }
  Line line() const { return Line(fd_); }
  // Waits for its end: the exit status, or 128 and the signal that ended it.
  int Wait();
  // Somebody else sees to its end from now on; pid() stays.
  void Leave() { ends_it_ = false; }

 private:
  pid_t pid_ = -1;
  bool ends_it_ = true;
  int fd_ = -1;
};

}  // namespace kmcl::limits
