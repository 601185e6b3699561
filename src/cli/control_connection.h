// One connection to a running `vmbus vm`, at either end: lines of text over a Unix socket, each
// with at most one file descriptor. What the lines say is JSON, and in docs/vmbus.md.
#pragma once

#include <sys/un.h>

#include <cstddef>
#include <expected>
#include <optional>
#include <string>

namespace kmcl::cli {

// Nothing when the path is empty or too long for a socket.
std::optional<sockaddr_un> SocketAddressOf(const std::string& path);

// A descriptor that closes itself; -1 is none.
class OwnedDescriptor {
 public:
  explicit OwnedDescriptor(int descriptor = -1) : descriptor_(descriptor) {}
  OwnedDescriptor(OwnedDescriptor&& other) noexcept : descriptor_(other.Release()) {}
  OwnedDescriptor& operator=(OwnedDescriptor&& other) noexcept;
  ~OwnedDescriptor();
  int get() const { return descriptor_; }
  int Release();

 private:
  int descriptor_;
};

// Used by one thread at a time, except for Abort, FinishWriting and AwaitOtherEndDone.
class ControlConnection {
 public:
  // Lines longer than `most_bytes` are refused. Owns `socket`.
  ControlConnection(OwnedDescriptor socket, std::size_t most_bytes);

  struct Line {
    std::string text;  // without its end
    OwnedDescriptor descriptor;
  };
  // Blocks. Nothing at the end of the connection, after an error, and for a line that is too long.
  std::optional<Line> Read();
  // `text` without an end of line. False when the other end has gone. `descriptor` of -1 is none,
  // and stays the caller's.
  bool Write(std::string text, int descriptor = -1);

  // Ends the connection: a Read or Write that blocks returns. Any thread.
  void Abort() const;
  // Nothing is written any more, which the other end can see; it may still answer. Any thread.
  void FinishWriting() const;
  // Waits until the other end writes nothing any more, or has gone: true. False when the descriptor
  // `stop` was readable first. Any thread.
  bool AwaitOtherEndDone(int stop) const;

 private:
  bool Fill();

  const OwnedDescriptor socket_;
  const std::size_t most_bytes_;
  std::string received_;
  OwnedDescriptor descriptor_;  // came with received_
};

}  // namespace kmcl::cli
