#include "devices/guest_file_copy.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "devices/utf16.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;
using Kind = GuestFileCopyFailure::Kind;

constexpr IntegrationVersion kVersions[] = {{1, 1}};

enum class Operation : std::uint32_t {
  kStart = 0,
  kWrite = 1,
  kComplete = 2,
  kCancel = 3,
};

// In front of every body; the two ids behind the operation are zero.
constexpr std::size_t kHeaderBytes = 36;
constexpr std::size_t kNameOffset = 36;
constexpr std::size_t kDirectoryOffset = 556;
constexpr std::size_t kFlagsOffset = 1076;
constexpr std::size_t kFileBytesOffset = 1080;
constexpr std::size_t kStartBytes = 1088;
constexpr std::size_t kOffsetOffset = 40;
constexpr std::size_t kChunkBytesOffset = 48;
constexpr std::size_t kDataOffset = 52;
constexpr std::size_t kChunkBytes = 6144;
constexpr std::size_t kWriteBytes = kDataOffset + kChunkBytes;

constexpr std::uint32_t kOverwrite = 1;
constexpr std::uint32_t kCreateDirectory = 2;

constexpr IntegrationService kService = {
    .interface_type = kFileCopyInterface,
    .interface_instance = kFileCopyInstance,
    .friendly_name = u"Guest file copy",
    .name = "fcopy",
    .message = IntegrationMessage::kFileCopy,
    .frameworks = kNewerIntegrationFramework,
    .versions = kVersions,
    .maximum_body_bytes = kWriteBytes,
};

template <typename T>
void Put(std::vector<std::byte>& body, std::size_t offset, const T& value) {
  std::memcpy(body.data() + offset, &value, sizeof(value));
}

std::vector<std::byte> NewBody(std::size_t bytes, Operation operation) {
  std::vector<std::byte> body(bytes);
  Put(body, 0, operation);
  return body;
}

bool PutText(std::vector<std::byte>& body, std::size_t offset, std::string_view text) {
  const std::u16string units = Utf16FromText(text);
  if (units.empty() || units.size() > kMostFileCopyUnits ||
      units.find(u'\0') != std::u16string::npos) {
    return false;
  }
  std::memcpy(body.data() + offset, units.data(), units.size() * sizeof(char16_t));
  return true;
}

// All of `bytes`, or why not: an errno, 0 at the end of the file.
std::expected<void, int> ReadAll(int descriptor, std::uint64_t offset, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = pread(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return std::unexpected(got < 0 ? errno : 0);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

// A guest creates the folders that a separator follows (Linux' daemon; seen).
std::string AsCreated(std::string_view directory) {
  std::string text(directory);
  if (!text.empty() && !text.ends_with('/') && !text.ends_with('\\')) {
    text += text.find('\\') == std::string::npos ? '/' : '\\';
  }
  return text;
}

GuestFileCopyFailure OfGuest(const IntegrationFailure& failure) {
  return {Kind::kGuest, failure, 0};
}

}  // namespace

std::string GuestFileCopyFailureText(const GuestFileCopyFailure& failure) {
  switch (failure.kind) {
    case Kind::kGuest:
      return IntegrationFailureText(failure.guest);
    case Kind::kName:
      return "the name or the directory is empty, too long, or not a plain name";
    case Kind::kRead:
      return failure.error_number != 0 ? std::string("the file cannot be read: ") +
                                             std::generic_category().message(failure.error_number)
                                       : "the file became shorter while it was copied";
    case Kind::kBusy:
      return "another file is being copied";
    case Kind::kCancelled:
      return "it was cancelled";
  }
  return "";
}

std::expected<std::unique_ptr<GuestFileCopyDevice>, NTSTATUS> GuestFileCopyDevice::Offer(
    PDEVICE_OBJECT device_object, HANDLE partition, Report report) {
  std::unique_ptr<GuestFileCopyDevice> device(new GuestFileCopyDevice);
  auto channel = IntegrationChannel::Offer(device_object, partition, kService, std::move(report));
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  return device;
}

std::expected<void, GuestFileCopyFailure> GuestFileCopyDevice::Ask(
    std::uint64_t agreement, const std::vector<std::byte>& body, const std::atomic<bool>* cancelled,
    std::chrono::milliseconds timeout) {
  const auto reply = channel_->Ask(agreement, [&body] { return body; }, timeout, cancelled);
  if (!reply && reply.error().kind == IntegrationFailure::Kind::kGivenUp) {
    return std::unexpected(GuestFileCopyFailure{Kind::kCancelled, {}, 0});
  }
  if (!reply) {
    return std::unexpected(OfGuest(reply.error()));
  }
  if (reply->status != kIntegrationSuccess) {
    return std::unexpected(
        OfGuest({IntegrationFailure::Kind::kRefused, IntegrationState::kReady, reply->status}));
  }
  return {};
}

std::expected<GuestFileCopied, GuestFileCopyFailure> GuestFileCopyDevice::Copy(
    int descriptor, const GuestFile& file, const std::atomic<bool>* cancelled,
    std::chrono::milliseconds timeout) {
  const std::unique_lock turn(copying_, std::try_to_lock);
  if (!turn) {
    return std::unexpected(GuestFileCopyFailure{Kind::kBusy, {}, 0});
  }
  const auto agreement = channel_->Agreement();
  if (!agreement) {
    return std::unexpected(OfGuest(agreement.error()));
  }
  struct stat information{};
  if (fstat(descriptor, &information) != 0) {
    return std::unexpected(GuestFileCopyFailure{Kind::kRead, {}, errno});
  }
  if (!S_ISREG(information.st_mode)) {
    return std::unexpected(GuestFileCopyFailure{Kind::kRead, {}, EINVAL});
  }
  const auto bytes = static_cast<std::uint64_t>(information.st_size);

  auto start = NewBody(kStartBytes, Operation::kStart);
  if (file.name.find_first_of("/\\") != std::string_view::npos ||
      !PutText(start, kNameOffset, file.name) ||
      !PutText(start, kDirectoryOffset,
               file.create_directory ? AsCreated(file.directory) : std::string(file.directory))) {
    return std::unexpected(GuestFileCopyFailure{Kind::kName, {}, 0});
  }
  Put(start, kFlagsOffset,
      (file.overwrite ? kOverwrite : 0) | (file.create_directory ? kCreateDirectory : 0));
  Put(start, kFileBytesOffset, bytes);
  // Not cancelled when it is refused: there is nothing to remove but, perhaps, a file of that name
  // that was there before.
  if (const auto started = Ask(agreement->number, start, cancelled, timeout); !started) {
    return std::unexpected(started.error());
  }
  auto copied = Transfer(agreement->number, descriptor, bytes, cancelled, timeout);
  if (!copied) {
    // Who has cancelled does not wait for a guest that may be stuck.
    const bool is_cancelled = copied.error().kind == Kind::kCancelled;
    (void)Ask(agreement->number, NewBody(kHeaderBytes, Operation::kCancel), nullptr,
              is_cancelled ? 0ms : timeout);
  }
  return copied;
}

std::expected<GuestFileCopied, GuestFileCopyFailure> GuestFileCopyDevice::Transfer(
    std::uint64_t agreement, int descriptor, std::uint64_t bytes,
    const std::atomic<bool>* cancelled, std::chrono::milliseconds timeout) {
  GuestFileCopied copied;
  Sha256 hash;
  auto body = NewBody(kWriteBytes, Operation::kWrite);
  while (copied.bytes < bytes) {
    const auto chunk = std::span(body).subspan(
        kDataOffset,
        static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, bytes - copied.bytes)));
    if (const auto read = ReadAll(descriptor, copied.bytes, chunk); !read) {
      return std::unexpected(GuestFileCopyFailure{Kind::kRead, {}, read.error()});
    }
    hash.Update(chunk);
    Put(body, kOffsetOffset, copied.bytes);
    Put(body, kChunkBytesOffset, static_cast<std::uint32_t>(chunk.size()));
    if (const auto written = Ask(agreement, body, cancelled, timeout); !written) {
      return std::unexpected(written.error());
    }
    copied.bytes += chunk.size();
  }
  if (const auto complete =
          Ask(agreement, NewBody(kHeaderBytes, Operation::kComplete), cancelled, timeout);
      !complete) {
    return std::unexpected(complete.error());
  }
  copied.digest = hash.Finish();
  return copied;
}

}  // namespace kmcl::devices
