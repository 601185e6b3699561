// What travels on a file channel: a client sends one file at a time, the server stores it.
//
// Every request is a transaction: a FileRequest, then `data_bytes` bytes. Ring packets are rounded
// up to 8 bytes, so the request carries the exact length itself.
//
//   kind     value          data           completed with, and when
//   kBegin   size of file   base name      FileReply, when a temporary file stands ready
//   kChunk   offset         file content   FileReply, when the content was written
//   kFinish  size of file   -              FileReceipt, when the file is on disk under its name
//   kAbort   -              -              FileReply, when nothing of the file is left
//
// Chunks come in order and without gaps; many may be on their way at once. After a refusal every
// further chunk and the finish are refused with the same reason, until kAbort or the next kBegin. A
// kBegin drops an unfinished file, and so does closing the channel.
#pragma once

#include <kmcl/kmcl.h>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace kmcl::devices {

static_assert(std::endian::native == std::endian::little, "packets carry little-endian numbers");

// Made for this device with a random generator; no other device has them.
inline constexpr GUID kFileInterface = {
    0x852f99bc, 0x1e95, 0x47e7, {0x99, 0x07, 0x00, 0x26, 0x4c, 0xcc, 0x7f, 0xa3}};
inline constexpr GUID kFileInstance = {
    0xc4a55e56, 0x34eb, 0x4222, {0x91, 0xbe, 0xaf, 0xfd, 0x08, 0x73, 0xab, 0xca}};

enum class FileRequestKind : std::uint32_t {
  kBegin = 1,
  kChunk = 2,
  kFinish = 3,
  kAbort = 4,
};

struct FileRequest {
  std::uint32_t kind = 0;        // FileRequestKind
  std::uint32_t data_bytes = 0;  // that follow, exactly
  std::uint64_t value = 0;       // size or offset, see the table
};
static_assert(sizeof(FileRequest) == 16 && offsetof(FileRequest, value) == 8);

inline constexpr std::uint32_t kFileMaximumChunkBytes = 256 * 1024;
inline constexpr std::uint32_t kFileMaximumPacketBytes =
    sizeof(FileRequest) + kFileMaximumChunkBytes;
inline constexpr std::uint32_t kFileMaximumNameBytes = 255;    // NAME_MAX
inline constexpr std::uint64_t kFileMaximumBytes = INT64_MAX;  // off_t

enum class FileStatus : std::uint32_t {
  kStored = 0,
  kMalformed = 1,    // not a request of this protocol
  kNameRefused = 2,  // not a plain base name
  kSizeRefused = 3,  // larger than a file can be
  kNotBegun = 4,     // no file is being received
  kOutOfOrder = 5,   // the offset is not where the last chunk ended
  kBeyondSize = 6,   // more content than was announced
  kIncomplete = 7,   // finished with less content than was announced, or another size
  kSystem = 8,       // the server's system refused; error_number says why
  kBusy = 9,         // more requests at a time than the device takes
};

struct FileReply {
  std::uint32_t status = 0;        // FileStatus
  std::uint32_t error_number = 0;  // errno of the server, for kSystem
  std::uint64_t value = 0;         // bytes of the file that were written so far
};
static_assert(sizeof(FileReply) == 16);

struct FileReceipt {
  FileReply reply;
  std::uint8_t sha256[32] = {};  // of the bytes that were written, hashed as they were written
};
static_assert(sizeof(FileReceipt) == 48 && offsetof(FileReceipt, sha256) == 16);

// One clause for people. Unknown numbers (the other end's fault) have one too.
const char* FileStatusText(std::uint32_t status);

}  // namespace kmcl::devices
