#include "devices/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "devices/test_bus.h"

namespace kmcl::devices {
namespace {

FileRequest RequestOf(FileRequestKind kind, std::uint64_t value, std::size_t data_bytes) {
  return {static_cast<std::uint32_t>(kind), static_cast<std::uint32_t>(data_bytes), value};
}

// Outlives the server and with it the device, which writes there until it is gone.
struct Directory {
  Directory() {
    std::string pattern = testing::TempDir() + "file-device-XXXXXX";
    path = mkdtemp(pattern.data());
    descriptor = open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  ~Directory() {
    close(descriptor);
    std::filesystem::remove_all(path);
  }
  std::filesystem::path path;
  int descriptor = -1;
};

class FileTest : public testing::Test {
 protected:
  FileTest() { client_.emplace(server_.address(), kFileInterface, 4096); }

  FileReceipt Ask(FileRequestKind kind, std::uint64_t value, std::string_view data = {}) {
    return ReadAs<FileReceipt>(client_->Request(Packet(RequestOf(kind, value, data.size()), data)));
  }
  FileStatus StatusOf(FileRequestKind kind, std::uint64_t value, std::string_view data = {}) {
    return static_cast<FileStatus>(Ask(kind, value, data).reply.status);
  }
  std::size_t EntryCount() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(directory_.path), {}));
  }
  std::string Content(const std::string& name) const {
    std::ifstream file(directory_.path / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const Directory directory_;
  Event gone_;
  std::unique_ptr<FileDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = FileDevice::Offer(device_object, partition,
                                                       directory_.descriptor, nullptr);
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] {
                       device_.reset();
                       gone_.Set();
                     }};
  std::optional<TestClient> client_;
};

TEST_F(FileTest, StoresAFileAndVouchesForItsContent) {
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 3, "a.txt"), FileStatus::kStored);
  EXPECT_EQ(Ask(FileRequestKind::kChunk, 0, "ab").reply.value, 2u);
  EXPECT_EQ(Ask(FileRequestKind::kChunk, 2, "c").reply.value, 3u);
  const FileReceipt receipt = Ask(FileRequestKind::kFinish, 3);
  EXPECT_EQ(receipt.reply.status, static_cast<std::uint32_t>(FileStatus::kStored));
  EXPECT_EQ(receipt.reply.value, 3u);
  Sha256Digest digest{};
  std::memcpy(digest.data(), receipt.sha256, digest.size());
  EXPECT_EQ(HexDigits(digest), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Content("a.txt"), "abc");
  EXPECT_EQ(EntryCount(), 1u);
}

TEST_F(FileTest, StoresAnEmptyFile) {
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 0, "empty"), FileStatus::kStored);
  EXPECT_EQ(StatusOf(FileRequestKind::kFinish, 0), FileStatus::kStored);
  EXPECT_EQ(std::filesystem::file_size(directory_.path / "empty"), 0u);
}

TEST_F(FileTest, RefusesANameWithASlashAndWritesNothing) {
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 3, "../a"), FileStatus::kNameRefused);
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 0, "abc"), FileStatus::kNameRefused);
  EXPECT_EQ(StatusOf(FileRequestKind::kFinish, 3), FileStatus::kNameRefused);
  EXPECT_EQ(EntryCount(), 0u);
}

TEST_F(FileTest, RefusesChunksBeforeABegin) {
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 0, "abc"), FileStatus::kNotBegun);
  EXPECT_EQ(StatusOf(FileRequestKind::kFinish, 0), FileStatus::kNotBegun);
}

TEST_F(FileTest, GivesEveryLaterChunkTheFirstRefusal) {
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 9, "a"), FileStatus::kStored);
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 3, "abc"), FileStatus::kOutOfOrder);
  EXPECT_EQ(EntryCount(), 0u);
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 0, "abc"), FileStatus::kOutOfOrder);
  EXPECT_EQ(StatusOf(FileRequestKind::kFinish, 9), FileStatus::kOutOfOrder);
  EXPECT_EQ(StatusOf(FileRequestKind::kAbort, 0), FileStatus::kStored);
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 0, "abc"), FileStatus::kNotBegun);
}

TEST_F(FileTest, RefusesMalformedRequests) {
  EXPECT_EQ(ReadAs<FileReply>(client_->Request({})).status,
            static_cast<std::uint32_t>(FileStatus::kMalformed));
  EXPECT_EQ(StatusOf(static_cast<FileRequestKind>(99), 0), FileStatus::kMalformed);
  // Claims more bytes than came: four, which a ring rounds up to eight.
  for (const std::size_t claimed : {9, 16, 24, 1000}) {
    const auto request = RequestOf(FileRequestKind::kBegin, 0, claimed);
    EXPECT_EQ(ReadAs<FileReply>(client_->Request(Packet(request, "name"))).status,
              static_cast<std::uint32_t>(FileStatus::kMalformed))
        << claimed;
  }
  EXPECT_EQ(EntryCount(), 0u);
}

TEST_F(FileTest, AnAbortLeavesNothingBehind) {
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 9, "a"), FileStatus::kStored);
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 0, "abc"), FileStatus::kStored);
  EXPECT_EQ(EntryCount(), 1u);
  EXPECT_EQ(StatusOf(FileRequestKind::kAbort, 0), FileStatus::kStored);
  EXPECT_EQ(EntryCount(), 0u);
}

TEST_F(FileTest, AClientThatLeavesInTheMiddleLeavesNoHalfFile) {
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 9, "a"), FileStatus::kStored);
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 0, "abc"), FileStatus::kStored);
  EXPECT_EQ(EntryCount(), 1u);
  client_.reset();
  ASSERT_TRUE(gone_.Wait());
  EXPECT_EQ(EntryCount(), 0u);
}

TEST_F(FileTest, ASecondBeginDropsTheFirstFile) {
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 9, "a"), FileStatus::kStored);
  EXPECT_EQ(StatusOf(FileRequestKind::kBegin, 1, "b"), FileStatus::kStored);
  EXPECT_EQ(EntryCount(), 1u);
  EXPECT_EQ(StatusOf(FileRequestKind::kChunk, 0, "x"), FileStatus::kStored);
  EXPECT_EQ(StatusOf(FileRequestKind::kFinish, 1), FileStatus::kStored);
  EXPECT_EQ(Content("b"), "x");
  EXPECT_EQ(EntryCount(), 1u);
}

}  // namespace
}  // namespace kmcl::devices
