#include "devices/file.h"

#include <cstring>
#include <utility>

namespace kmcl::devices {

namespace {

// In front of the saved channel, followed by both names.
struct SavedFile {
  std::uint64_t has_file = 0;
  std::uint64_t announced_bytes = 0;
  std::uint64_t file_bytes_written = 0;
  std::uint64_t bytes_written = 0;
  std::uint32_t temporary_name_bytes = 0;
  std::uint32_t name_bytes = 0;
  std::uint32_t has_failure = 0;
  std::uint32_t failure_status = 0;
  std::int32_t failure_error = 0;
  std::uint32_t reserved = 0;
};

std::size_t NameBytes(const SavedFile& own) {
  return std::size_t{own.temporary_name_bytes} + own.name_bytes;
}

}  // namespace

std::expected<std::unique_ptr<FileDevice>, NTSTATUS> FileDevice::Offer(PDEVICE_OBJECT device_object,
                                                                       HANDLE partition,
                                                                       int directory,
                                                                       Report report) {
  auto device = Make(device_object, partition, directory, std::move(report));
  if (!device) {
    return device;
  }
  FileDevice& made = **device;
  made.writer_ = std::thread(&FileDevice::RunWriter, &made);
  if (const NTSTATUS status = OfferServerChannel(made.channel_.get()); !NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return device;
}

// Once the channel is paused every request was answered, so the writer is idle.
std::expected<std::vector<std::byte>, NTSTATUS> FileDevice::Save() {
  const auto channel = SaveServerChannel(channel_.get());
  if (!channel) {
    return std::unexpected(channel.error());
  }
  const std::lock_guard lock(mutex_);
  saved_ = true;
  SavedFile own;
  own.bytes_written = bytes_written_;
  std::string names;
  if (file_) {
    const ReceivedFile::Unfinished unfinished = file_->Describe();
    own.has_file = 1;
    own.announced_bytes = unfinished.announced_bytes;
    own.file_bytes_written = unfinished.bytes_written;
    own.temporary_name_bytes = static_cast<std::uint32_t>(unfinished.temporary_name.size());
    own.name_bytes = static_cast<std::uint32_t>(unfinished.name.size());
    names = unfinished.temporary_name + unfinished.name;
  }
  if (failure_) {
    own.has_failure = 1;
    own.failure_status = static_cast<std::uint32_t>(failure_->status);
    own.failure_error = failure_->error_number;
  }
  const auto head = std::as_bytes(std::span(&own, 1));
  const auto text = std::as_bytes(std::span(names));
  std::vector<std::byte> saved(head.begin(), head.end());
  saved.insert(saved.end(), text.begin(), text.end());
  saved.insert(saved.end(), channel->begin(), channel->end());
  return saved;
}

void FileDevice::Resume() {
  {
    const std::lock_guard lock(mutex_);
    saved_ = false;
  }
  VmbChannelStart(channel_.get());
}

std::expected<std::unique_ptr<FileDevice>, NTSTATUS> FileDevice::Restore(
    PDEVICE_OBJECT device_object, HANDLE partition, int directory, Report report,
    std::span<const std::byte> saved) {
  SavedFile own;
  if (saved.size() < sizeof(own)) {
    return std::unexpected(STATUS_DATA_ERROR);
  }
  std::memcpy(&own, saved.data(), sizeof(own));
  if (NameBytes(own) > saved.size() - sizeof(own)) {
    return std::unexpected(STATUS_DATA_ERROR);
  }
  auto device = Make(device_object, partition, directory, std::move(report));
  if (!device) {
    return device;
  }
  FileDevice& made = **device;
  if (!made.TakeSaved(saved.first(sizeof(own) + NameBytes(own)))) {
    return std::unexpected(STATUS_DATA_ERROR);
  }
  {
    const std::lock_guard lock(made.mutex_);
    made.saved_ = true;  // until it is certain that the file is ours: Opened says so
  }
  made.writer_ = std::thread(&FileDevice::RunWriter, &made);
  const NTSTATUS status =
      RestoreServerChannel(made.channel_.get(), saved.subspan(sizeof(own) + NameBytes(own)));
  if (!NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return device;
}

bool FileDevice::TakeSaved(std::span<const std::byte> own_bytes) {
  SavedFile own;
  std::memcpy(&own, own_bytes.data(), sizeof(own));
  bytes_written_ = own.bytes_written;
  if (own.has_failure != 0) {
    failure_ = FileFailure{static_cast<FileStatus>(own.failure_status), own.failure_error};
  }
  if (own.has_file == 0) {
    return true;
  }
  const std::string names(reinterpret_cast<const char*>(own_bytes.data()) + sizeof(own),
                          NameBytes(own));
  auto file = ReceivedFile::Reopen(directory_, {names.substr(0, own.temporary_name_bytes),
                                                names.substr(own.temporary_name_bytes),
                                                own.announced_bytes, own.file_bytes_written});
  if (!file) {
    return false;
  }
  file_.emplace(std::move(*file));
  must_rehash_ = true;
  return true;
}

NTSTATUS FileDevice::OnOpened(VMBCHANNEL channel) {
  auto* self = static_cast<FileDevice*>(VmbChannelGetPointer(channel));
  const std::lock_guard lock(self->mutex_);
  self->saved_ = false;
  return STATUS_SUCCESS;
}

std::expected<std::unique_ptr<FileDevice>, NTSTATUS> FileDevice::Make(PDEVICE_OBJECT device_object,
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
  settings.opened = OnOpened;
  settings.closed = OnClosed;
  auto channel = MakeServerChannel(device_object, partition, settings, device.get());
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  VmbChannelSetTransactionQuota(device->channel_.get(), kFileTransactionQuota);
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
  if (file_ && saved_) {
    file_->Release();
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
  if (must_rehash_) {
    must_rehash_ = false;
    if (const auto rehashed = file_->Rehash(); !rehashed) {
      failure_ = rehashed.error();
      Drop(FileStatusText(static_cast<std::uint32_t>(failure_->status)));
    }
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
  must_rehash_ = false;
  {
    const std::lock_guard lock(mutex_);
    if (file_ && saved_) {
      file_->Release();
      file_.reset();
    }
  }
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
