// The file device: the server's end of one file channel (file_protocol.h), storing files in a
// directory.
//
// Packets are only noted on the thread that delivers them; a writer thread of the device's own
// opens, writes, renames and answers, in order. The transaction quota bounds how many requests wait
// for it: at the quota KMCL leaves packets in the ring, the ring fills, and the sender feels the
// disk.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "devices/file_protocol.h"
#include "devices/received_file.h"
#include "devices/server_channel.h"

namespace kmcl::devices {

inline constexpr UINT32 kFileTransactionQuota = 64;  // requests at a time

// Made and destroyed by whoever owns the partition's devices, on a thread that may block.
class FileDevice {
 public:
  // A file was stored, or not: one line for people. Called on the writer thread.
  using Report = std::function<void(const std::string& line)>;

  // Offers the device to `partition`. `directory` is an open directory that must outlive the
  // device. May be called from PartitionArrived.
  static std::expected<std::unique_ptr<FileDevice>, NTSTATUS> Offer(PDEVICE_OBJECT device_object,
                                                                    HANDLE partition, int directory,
                                                                    Report report);
  ~FileDevice();

  // Saving: the device holds still until Resume, or goes and leaves an unfinished file to its
  // successor. Restore makes one elsewhere of what was saved; a status of KMCL's, or
  // STATUS_DATA_ERROR.
  std::expected<std::vector<std::byte>, NTSTATUS> Save();
  void Resume();
  static std::expected<std::unique_ptr<FileDevice>, NTSTATUS> Restore(
      PDEVICE_OBJECT device_object, HANDLE partition, int directory, Report report,
      std::span<const std::byte> saved);

  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke();

 private:
  // A packet that waits for the writer, or (packet null) the note that the channel was closed.
  struct Work {
    VMBPACKETCOMPLETION packet = nullptr;
    const std::byte* bytes = nullptr;  // KMCL's copy, valid until the packet is completed
    UINT32 byte_count = 0;
  };

  FileDevice(int directory, Report report);
  // Without its writer, and not offered.
  static std::expected<std::unique_ptr<FileDevice>, NTSTATUS> Make(PDEVICE_OBJECT device_object,
                                                                   HANDLE partition, int directory,
                                                                   Report report);
  bool TakeSaved(std::span<const std::byte> own);
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                       UINT32 buffer_bytes, UINT32 flags);
  static NTSTATUS OnOpened(VMBCHANNEL channel);
  static VOID OnClosed(VMBCHANNEL channel);

  // Any thread.
  bool Post(const Work& work);

  // The writer thread's.
  void RunWriter();
  std::optional<Work> TakeWork();
  void Serve(const Work& work);
  void Begin(const Work& work, const FileRequest& request);
  void Store(const Work& work, const FileRequest& request);
  void Finish(const Work& work, const FileRequest& request);
  void Abort(const Work& work);
  void Drop(const char* why);
  void Answer(const Work& work, const FileFailure& outcome);

  const int directory_;
  const Report report_;

  std::mutex mutex_;
  std::condition_variable work_posted_;
  std::condition_variable close_served_;
  // Under mutex_. Room for the quota's packets and one close.
  std::array<Work, kFileTransactionQuota + 1> queue_{};
  std::size_t queue_begin_ = 0;
  std::size_t queue_length_ = 0;
  std::uint64_t closes_posted_ = 0;
  std::uint64_t closes_served_ = 0;
  bool stopping_ = false;
  bool saved_ = false;  // a successor may have the unfinished file

  // The writer thread's.
  std::optional<ReceivedFile> file_;
  std::optional<FileFailure>
      failure_;  // of the file that was being received; further chunks get it too
  std::uint64_t bytes_written_ = 0;  // of the last file
  bool must_rehash_ = false;         // file_ comes from a predecessor

  ChannelHandle channel_;
  std::thread writer_;
};

}  // namespace kmcl::devices
