// One file on its way into a directory: written under a temporary name, hashed as it is written,
// given its own name when it is whole. It knows nothing of channels.
//
// The sender is not trusted: names, offsets and sizes are checked here, on values that nobody else
// can change. Used by one thread at a time; every call may block on the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>

#include "devices/file_protocol.h"
#include "devices/sha256.h"

namespace kmcl::devices {

// Why a file is refused, as the sender is told.
struct FileFailure {
  FileStatus status = FileStatus::kSystem;
  int error_number = 0;  // errno, for kSystem
};

// Begins the temporary names. A sender cannot choose such a name.
inline constexpr std::string_view kTemporaryPrefix = ".vmbus-";

// A plain base name: 1 to 255 bytes, no '/', no control characters, not "." or "..", and not one of
// our temporary names.
bool IsPlainFileName(std::string_view name);

class ReceivedFile {
 public:
  // Creates the temporary file. `directory` is an open directory, borrowed until the file is gone.
  static std::expected<ReceivedFile, FileFailure> Create(int directory, std::string_view name,
                                                         std::uint64_t bytes);
  ReceivedFile(ReceivedFile&& other) noexcept;
  ReceivedFile& operator=(ReceivedFile&&) = delete;
  // Removes the temporary file unless it was committed.
  ~ReceivedFile();

  // Writes and hashes the next bytes. `offset` must be bytes_written().
  std::expected<void, FileFailure> Append(std::uint64_t offset, std::span<const std::byte> content);

  // The file is complete: flushes it to disk and gives it its name, replacing a file of that name.
  // `bytes` must be its size. Nothing may follow.
  std::expected<Sha256Digest, FileFailure> Commit(std::uint64_t bytes);

  // Handing an unfinished file over: what another process needs to go on with it, and giving up this
  // side's part in it (the temporary file stays). Reopen does not hash what is there; Rehash must be
  // called once before anything else, and may take as long as reading the file.
  struct Unfinished {
    std::string temporary_name;
    std::string name;
    std::uint64_t announced_bytes = 0;
    std::uint64_t bytes_written = 0;
  };
  Unfinished Describe() const;
  void Release() { temporary_name_.clear(); }
  static std::expected<ReceivedFile, FileFailure> Reopen(int directory,
                                                         const Unfinished& unfinished);
  std::expected<void, FileFailure> Rehash();

  const std::string& name() const { return name_; }
  std::uint64_t bytes_written() const { return bytes_written_; }

 private:
  ReceivedFile(int directory, int file, std::string temporary_name, std::string_view name,
               std::uint64_t bytes);

  int directory_;               // borrowed
  int file_;                    // owned; -1 when moved from
  std::string temporary_name_;  // empty once committed
  std::string name_;
  std::uint64_t announced_bytes_;
  std::uint64_t bytes_written_ = 0;
  Sha256 hash_;
};

}  // namespace kmcl::devices
