// The file copy service: puts a file of the host's into the guest ("guest services", VMBus device
// reference 1.8). The guest stores it with a daemon in its user space.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "devices/integration_channel.h"
#include "devices/sha256.h"

namespace kmcl::devices {

inline constexpr GUID kFileCopyInterface = {
    0x34d14be3, 0xdee4, 0x41c8, {0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92}};
inline constexpr GUID kFileCopyInstance = {
    0xeb765408, 0x105f, 0x49b6, {0xb4, 0xaa, 0xc1, 0x23, 0xb6, 0x4d, 0x17, 0xd4}};

// UTF-16 units of a name or a directory, the NUL not counted.
inline constexpr std::size_t kMostFileCopyUnits = 259;

struct GuestFile {
  std::string_view name;       // in the guest, without a directory; UTF-8
  std::string_view directory;  // in the guest: "/tmp"
  bool overwrite = false;
  bool create_directory = false;
};

struct GuestFileCopied {
  std::uint64_t bytes = 0;
  Sha256Digest digest{};  // of what was sent
};

// Why a file was not copied.
struct GuestFileCopyFailure {
  enum class Kind {
    kGuest,  // `guest` says why
    kName,   // the name or the directory is empty or too long, or the name has a slash
    kRead,   // the host's file cannot be read: `error_number`, 0 if it became shorter
    kBusy,   // another file is being copied
    kCancelled,
  };
  Kind kind{};
  IntegrationFailure guest{};
  int error_number = 0;
};
std::string GuestFileCopyFailureText(const GuestFileCopyFailure& failure);

// Made and destroyed by whoever owns the partition's devices, on a thread that may block. Its
// functions may be called on any thread.
class GuestFileCopyDevice {
 public:
  using Report = IntegrationChannel::Report;
  static constexpr std::chrono::milliseconds kTimeout{35'000};  // Linux' own limit is 30 s

  // Offers the device to `partition`. May be called from PartitionArrived. `report` may be empty.
  static std::expected<std::unique_ptr<GuestFileCopyDevice>, NTSTATUS> Offer(
      PDEVICE_OBJECT device_object, HANDLE partition, Report report);
  // No thread is in Copy, unless Stop was called.
  ~GuestFileCopyDevice() = default;

  // Copies the regular file `descriptor` from its beginning, at the length that it has now. Blocks,
  // at most `timeout` for each chunk of 6 KiB. After a failure the guest is told to remove what it
  // has. `cancelled`, unless null, is the flag by which Cancel ends this copy, at once: a guest
  // that does not answer at that moment finds the word to remove the file when it does. Only if it
  // had not even said yes to the file there is no such word, as the file could be another one, and
  // an empty one may stay.
  std::expected<GuestFileCopied, GuestFileCopyFailure> Copy(
      int descriptor, const GuestFile& file, const std::atomic<bool>* cancelled = nullptr,
      std::chrono::milliseconds timeout = kTimeout);
  // Before that copy, or while it runs, on another thread.
  void Cancel(std::atomic<bool>& cancelled) { channel_->GiveUp(cancelled); }

  IntegrationStatus Status() const { return channel_->Status(); }
  // Lets Copy return, for good.
  void Stop() { channel_->Stop(); }
  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke() { return channel_->Revoke(); }

 private:
  GuestFileCopyDevice() = default;
  std::expected<void, GuestFileCopyFailure> Ask(std::uint64_t agreement,
                                                const std::vector<std::byte>& body,
                                                const std::atomic<bool>* cancelled,
                                                std::chrono::milliseconds timeout);
  std::expected<GuestFileCopied, GuestFileCopyFailure> Transfer(std::uint64_t agreement,
                                                                int descriptor, std::uint64_t bytes,
                                                                const std::atomic<bool>* cancelled,
                                                                std::chrono::milliseconds timeout);

  std::mutex copying_;  // held for the time of a copy; never waited for
  std::unique_ptr<IntegrationChannel> channel_;
};

}  // namespace kmcl::devices
