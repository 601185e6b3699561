#include "devices/file.h"

#include <cstring>
#include <utility>

namespace kmcl::devices {

std::expected<std::unique_ptr<FileDevice>, NTSTATUS> FileDevice::Offer(PDEVICE_OBJECT device_object,
                                                                       HANDLE partition,
                                                                       int directory,
                                                                       Report report) {
  std::unique_ptr<FileDevice> device(new FileDevice(directory, std::move(report)));
  ServerChannelSettings settings;
  settings.interface_type = kFileInterface;
  settings.interface_instance = kFileInstance;
  settings.friendly_name = u"File";
  settings.maximum_packet_bytes = kFileMaximumPacketBytes;
  settings.process_packet = OnPacket;
  settings.closed = OnClosed;
  auto channel = MakeServerChannel(device_object, partition, settings, device.get());
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  VmbChannelSetTransactionQuota(device->channel_.get(), kFileTransactionQuota);
  device->writer_ = std::thread(&FileDevice::RunWriter, device.get());
  if (const NTSTATUS status = OfferServerChannel(device->channel_.get()); !NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return device;
}

FileDevice::FileDevice(int directory, Report report)
    : directory_(directory), report_(std::move(report)) {}

// The channel's teardown waits for packets that only the writer can complete, so the writer goes
// last.
FileDevice::~FileDevice() {
  channel_.reset();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_posted_.notify_one();
  if (writer_.joinable()) {
    writer_.join();
  }
}

KMCL_CHANNEL_COUNTERS FileDevice::Revoke() {
  VmbChannelDisable(channel_.get());
  return QueryCounters(channel_.get());
}

VOID FileDevice::OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                          UINT32 buffer_bytes, UINT32 /*flags*/) {
  auto* self = static_cast<FileDevice*>(VmbChannelGetPointer(channel));
  const Work work{packet, static_cast<const std::byte*>(buffer), buffer_bytes};
  if (!self->Post(work)) {  // cannot happen while KMCL keeps the quota
    FileReply reply{static_cast<std::uint32_t>(FileStatus::kBusy), 0, 0};
    VmbChannelPacketComplete(packet, &reply, sizeof(reply));
  }
}

// The peer has gone, and every packet was answered: what it did not finish goes too. Waits, so that
// a re-opened channel starts clean and a revoked one leaves nothing behind.
VOID FileDevice::OnClosed(VMBCHANNEL channel) {
  auto* self = static_cast<FileDevice*>(VmbChannelGetPointer(channel));
  std::unique_lock lock(self->mutex_);
  const std::uint64_t number = ++self->closes_posted_;
  lock.unlock();
  self->Post({});
  lock.lock();
  self->close_served_.wait(lock, [&] { return self->closes_served_ >= number; });
}

bool FileDevice::Post(const Work& work) {
  {
    const std::lock_guard lock(mutex_);
    if (queue_length_ == queue_.size()) {
      return false;
    }
    queue_[(queue_begin_ + queue_length_) % queue_.size()] = work;
    ++queue_length_;
    if (queue_length_ > 1) {
      return true;  // the writer is awake, or about to be
    }
  }
  work_posted_.notify_one();
  return true;
}

void FileDevice::RunWriter() {
  while (const std::optional<Work> work = TakeWork()) {
    if (work->packet != nullptr) {
      Serve(*work);
      continue;
    }
    Drop("the client closed the channel");
    failure_.reset();
    {
      const std::lock_guard lock(mutex_);
      ++closes_served_;
    }
    close_served_.notify_all();
  }
}

std::optional<FileDevice::Work> FileDevice::TakeWork() {
  std::unique_lock lock(mutex_);
  work_posted_.wait(lock, [this] { return queue_length_ > 0 || stopping_; });
  if (queue_length_ == 0) {
    return std::nullopt;
  }
  const Work work = queue_[queue_begin_];
  queue_begin_ = (queue_begin_ + 1) % queue_.size();
  --queue_length_;
  return work;
}

void FileDevice::Serve(const Work& work) {
  FileRequest request;
  if (work.byte_count < sizeof(request)) {
    return Answer(work, {FileStatus::kMalformed, 0});
  }
  std::memcpy(&request, work.bytes, sizeof(request));
  if (request.data_bytes > work.byte_count - sizeof(request)) {
    return Answer(work, {FileStatus::kMalformed, 0});
  }
  switch (static_cast<FileRequestKind>(request.kind)) {
    case FileRequestKind::kBegin:
      return Begin(work, request);
    case FileRequestKind::kChunk:
      return Store(work, request);
    case FileRequestKind::kFinish:
      return Finish(work, request);
    case FileRequestKind::kAbort:
      return Abort(work);
  }
  Answer(work, {FileStatus::kMalformed, 0});
}

void FileDevice::Begin(const Work& work, const FileRequest& request) {
  Drop("another one was begun");
  failure_.reset();
  bytes_written_ = 0;
  const std::string_view name(reinterpret_cast<const char*>(work.bytes) + sizeof(request),
                              request.data_bytes);
  auto file = ReceivedFile::Create(directory_, name, request.value);
  if (!file) {
    failure_ = file.error();
    if (report_) {
      report_(std::string("refused a file: ") +
              FileStatusText(static_cast<std::uint32_t>(file.error().status)));
    }
    return Answer(work, file.error());
  }
  file_.emplace(std::move(*file));
  Answer(work, {FileStatus::kStored, 0});
}

void FileDevice::Store(const Work& work, const FileRequest& request) {
  if (!file_) {
    return Answer(work, failure_.value_or(FileFailure{FileStatus::kNotBegun, 0}));
  }
  const std::span<const std::byte> content(work.bytes + sizeof(request), request.data_bytes);
  const auto written = file_->Append(request.value, content);
  bytes_written_ = file_->bytes_written();
  if (!written) {
    failure_ = written.error();
    Drop(FileStatusText(static_cast<std::uint32_t>(failure_->status)));
    return Answer(work, *failure_);
  }
  Answer(work, {FileStatus::kStored, 0});
}

void FileDevice::Finish(const Work& work, const FileRequest& request) {
  if (!file_) {
    return Answer(work, failure_.value_or(FileFailure{FileStatus::kNotBegun, 0}));
  }
  const auto digest = file_->Commit(request.value);
  if (!digest) {
    failure_ = digest.error();
    Drop(FileStatusText(static_cast<std::uint32_t>(failure_->status)));
    return Answer(work, *failure_);
  }
  if (report_) {
    report_("stored " + file_->name() + " (" + std::to_string(file_->bytes_written()) + " bytes)");
  }
  file_.reset();
  FileReceipt receipt;
  receipt.reply = {static_cast<std::uint32_t>(FileStatus::kStored), 0, bytes_written_};
  std::memcpy(receipt.sha256, digest->data(), digest->size());
  VmbChannelPacketComplete(work.packet, &receipt, sizeof(receipt));
}

void FileDevice::Abort(const Work& work) {
  Drop("the client gave it up");
  failure_.reset();
  Answer(work, {FileStatus::kStored, 0});
}

// Forgets the unfinished file, if there is one, and removes what was written of it.
void FileDevice::Drop(const char* why) {
  if (file_ && report_) {
    report_("dropped " + file_->name() + " after " + std::to_string(file_->bytes_written()) +
            " bytes: " + why);
  }
  file_.reset();
}

void FileDevice::Answer(const Work& work, const FileFailure& outcome) {
  FileReply reply{static_cast<std::uint32_t>(outcome.status),
                  static_cast<std::uint32_t>(outcome.error_number), bytes_written_};
  VmbChannelPacketComplete(work.packet, &reply, sizeof(reply));
}

}  // namespace kmcl::devices
