// A Unix stream socket of the host's, closed with its owner.
#pragma once

#include <chrono>
#include <expected>
#include <string>
#include <utility>

namespace kmcl::devices {

class HostSocket {
 public:
  HostSocket() = default;
  explicit HostSocket(int descriptor) : descriptor_(descriptor) {}
  HostSocket(HostSocket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  HostSocket& operator=(HostSocket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~HostSocket() { Close(); }

  int get() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }
  void Close();

  // Connects to the listener at `path`; blocks while its backlog is full, up to `timeout`. An errno
  // on failure (EAGAIN: that long).
  static std::expected<HostSocket, int> Connect(const std::string& path,
                                                std::chrono::milliseconds timeout);
  // Listens at `path`, for this user only and without blocking. A socket that nobody serves any
  // more is replaced; EADDRINUSE when somebody does.
  static std::expected<HostSocket, int> Listen(const std::string& path);
  // The next connection, which does not block; an errno when there is none.
  std::expected<HostSocket, int> Accept() const;

  // Whether `path` fits into a socket's address.
  static bool IsPath(const std::string& path);

 private:
  int descriptor_ = -1;
};

}  // namespace kmcl::devices
