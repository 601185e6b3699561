#include "devices/received_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <utility>
#include <vector>

namespace kmcl::devices {
namespace {

std::unexpected<FileFailure> Refuse(FileStatus status) {
  return std::unexpected(FileFailure{status, 0});
}

std::unexpected<FileFailure> RefuseBySystem(int error_number) {
  return std::unexpected(FileFailure{FileStatus::kSystem, error_number});
}

// Unique within the process; O_EXCL settles it with other processes.
std::string NextTemporaryName() {
  static std::atomic<unsigned> counter{0};
  return std::string(kTemporaryPrefix) + std::to_string(getpid()) + "-" +
         std::to_string(counter.fetch_add(1, std::memory_order_relaxed)) + ".part";
}

}  // namespace

bool IsPlainFileName(std::string_view name) {
  if (name.empty() || name.size() > kFileMaximumNameBytes || name == "." || name == ".." ||
      name.starts_with(kTemporaryPrefix)) {
    return false;
  }
  return std::ranges::none_of(name, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '/' || byte < 0x20 || byte == 0x7f;
  });
}

std::expected<ReceivedFile, FileFailure> ReceivedFile::Create(int directory, std::string_view name,
                                                              std::uint64_t bytes) {
  if (!IsPlainFileName(name)) {
    return Refuse(FileStatus::kNameRefused);
  }
  if (bytes > kFileMaximumBytes) {
    return Refuse(FileStatus::kSizeRefused);
  }
  // A leftover of a killed server with our process id may hold a name; its successors do not.
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string temporary_name = NextTemporaryName();
    const int file = openat(directory, temporary_name.c_str(),
                            O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file >= 0) {
      return ReceivedFile(directory, file, std::move(temporary_name), name, bytes);
    }
    if (errno != EEXIST) {
      return RefuseBySystem(errno);
    }
  }
  return RefuseBySystem(EEXIST);
}

ReceivedFile::ReceivedFile(int directory, int file, std::string temporary_name,
                           std::string_view name, std::uint64_t bytes)
    : directory_(directory),
      file_(file),
      temporary_name_(std::move(temporary_name)),
      name_(name),
      announced_bytes_(bytes) {}

ReceivedFile::ReceivedFile(ReceivedFile&& other) noexcept
    : directory_(other.directory_),
      file_(std::exchange(other.file_, -1)),
      temporary_name_(std::exchange(other.temporary_name_, {})),
      name_(std::move(other.name_)),
      announced_bytes_(other.announced_bytes_),
      bytes_written_(other.bytes_written_),
      hash_(std::move(other.hash_)) {}

ReceivedFile::Unfinished ReceivedFile::Describe() const {
  return {temporary_name_, name_, announced_bytes_, bytes_written_};
}

std::expected<ReceivedFile, FileFailure> ReceivedFile::Reopen(int directory,
                                                              const Unfinished& unfinished) {
  if (!IsPlainFileName(unfinished.name) || !unfinished.temporary_name.starts_with(kTemporaryPrefix) ||
      unfinished.temporary_name.contains('/') ||
      unfinished.bytes_written > unfinished.announced_bytes) {
    return Refuse(FileStatus::kNameRefused);
  }
  const int file =
      openat(directory, unfinished.temporary_name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) {
    return RefuseBySystem(errno);
  }
  ReceivedFile reopened(directory, file, unfinished.temporary_name, unfinished.name,
                        unfinished.announced_bytes);
  reopened.bytes_written_ = unfinished.bytes_written;
  return reopened;
}

std::expected<void, FileFailure> ReceivedFile::Rehash() {
  std::vector<std::byte> buffer(1 << 20);
  std::uint64_t at = 0;
  while (at < bytes_written_) {
    const std::size_t wanted = std::min<std::uint64_t>(buffer.size(), bytes_written_ - at);
    const ssize_t got = pread(file_, buffer.data(), wanted, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return RefuseBySystem(got < 0 ? errno : EIO);
    }
    hash_.Update(std::span(buffer).first(static_cast<std::size_t>(got)));
    at += static_cast<std::uint64_t>(got);
  }
  if (lseek(file_, static_cast<off_t>(at), SEEK_SET) < 0) {
    return RefuseBySystem(errno);
  }
  return {};
}

ReceivedFile::~ReceivedFile() {
  if (!temporary_name_.empty()) {
    unlinkat(directory_, temporary_name_.c_str(), 0);
  }
  if (file_ >= 0) {
    close(file_);
  }
}

std::expected<void, FileFailure> ReceivedFile::Append(std::uint64_t offset,
                                                      std::span<const std::byte> content) {
  if (offset != bytes_written_) {
    return Refuse(FileStatus::kOutOfOrder);
  }
  if (content.size() > announced_bytes_ - bytes_written_) {
    return Refuse(FileStatus::kBeyondSize);
  }
  std::span<const std::byte> rest = content;
  while (!rest.empty()) {
    const ssize_t written = write(file_, rest.data(), rest.size());
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return RefuseBySystem(errno);
    }
    rest = rest.subspan(static_cast<std::size_t>(written));
  }
  hash_.Update(content);
  bytes_written_ += content.size();
  return {};
}

std::expected<Sha256Digest, FileFailure> ReceivedFile::Commit(std::uint64_t bytes) {
  if (bytes_written_ != announced_bytes_ || bytes != announced_bytes_) {
    return Refuse(FileStatus::kIncomplete);
  }
  // The content first, the name second: after a crash the name never stands for less than the file.
  if (fdatasync(file_) != 0 ||
      renameat(directory_, temporary_name_.c_str(), directory_, name_.c_str()) != 0) {
    return RefuseBySystem(errno);
  }
  temporary_name_.clear();
  return hash_.Finish();
}

}  // namespace kmcl::devices
