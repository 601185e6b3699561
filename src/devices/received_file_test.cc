#include "devices/received_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace kmcl::devices {
namespace {

std::span<const std::byte> BytesOf(std::string_view text) { return std::as_bytes(std::span(text)); }

class ReceivedFileTest : public testing::Test {
 protected:
  ReceivedFileTest() {
    std::string pattern = testing::TempDir() + "received-XXXXXX";
    path_ = mkdtemp(pattern.data());
    directory_ = open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  ~ReceivedFileTest() override {
    close(directory_);
    std::filesystem::remove_all(path_);
  }

  std::size_t EntryCount() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }
  std::string Content(const std::string& name) const {
    std::ifstream file(path_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path path_;
  int directory_ = -1;
};

TEST_F(ReceivedFileTest, StandsUnderItsNameOnlyWhenItIsWhole) {
  auto file = ReceivedFile::Create(directory_, "a.txt", 6);
  ASSERT_TRUE(file.has_value());
  ASSERT_TRUE(file->Append(0, BytesOf("abc")).has_value());
  ASSERT_TRUE(file->Append(3, BytesOf("def")).has_value());
  EXPECT_FALSE(std::filesystem::exists(path_ / "a.txt"));
  const auto digest = file->Commit(6);
  ASSERT_TRUE(digest.has_value());
  EXPECT_EQ(Content("a.txt"), "abcdef");
  EXPECT_EQ(HexDigits(*digest), "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
  EXPECT_EQ(EntryCount(), 1u);
}

TEST_F(ReceivedFileTest, LeavesNothingBehindWhenItIsGivenUp) {
  {
    auto file = ReceivedFile::Create(directory_, "a.txt", 6);
    ASSERT_TRUE(file.has_value());
    ASSERT_TRUE(file->Append(0, BytesOf("abc")).has_value());
    EXPECT_EQ(EntryCount(), 1u);
  }
  EXPECT_EQ(EntryCount(), 0u);
}

TEST_F(ReceivedFileTest, RefusesNamesThatAreNotPlain) {
  const std::string too_long(256, 'x');
  const std::string_view with_nul("a\0b", 3);
  for (const std::string_view name :
       {std::string_view(""), std::string_view("."), std::string_view(".."),
        std::string_view("a/b"), std::string_view("/etc/passwd"), std::string_view("../x"),
        std::string_view("a\nb"), with_nul, std::string_view(".vmbus-1-1.part"),
        std::string_view(too_long)}) {
    const auto file = ReceivedFile::Create(directory_, name, 1);
    ASSERT_FALSE(file.has_value()) << name;
    EXPECT_EQ(file.error().status, FileStatus::kNameRefused) << name;
  }
  EXPECT_EQ(EntryCount(), 0u);
  EXPECT_TRUE(IsPlainFileName(std::string(255, 'x')));
  EXPECT_TRUE(IsPlainFileName("..a"));
}

TEST_F(ReceivedFileTest, TakesContentOnlyInOrderAndOnlyAsMuchAsWasAnnounced) {
  auto file = ReceivedFile::Create(directory_, "a", 4);
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->Append(1, BytesOf("a")).error().status, FileStatus::kOutOfOrder);
  ASSERT_TRUE(file->Append(0, BytesOf("abc")).has_value());
  EXPECT_EQ(file->Append(0, BytesOf("a")).error().status, FileStatus::kOutOfOrder);
  EXPECT_EQ(file->Append(3, BytesOf("de")).error().status, FileStatus::kBeyondSize);
  EXPECT_EQ(file->Commit(3).error().status, FileStatus::kIncomplete);
  EXPECT_EQ(file->Commit(4).error().status, FileStatus::kIncomplete);
  EXPECT_EQ(file->bytes_written(), 3u);
}

TEST_F(ReceivedFileTest, RefusesASizeThatNoFileHas) {
  EXPECT_EQ(ReceivedFile::Create(directory_, "a", UINT64_MAX).error().status,
            FileStatus::kSizeRefused);
}

TEST_F(ReceivedFileTest, ReplacesALinkAndNotWhatItPointsTo) {
  std::ofstream(path_ / "outside") << "kept";
  std::filesystem::create_symlink("outside", path_ / "link");
  auto file = ReceivedFile::Create(directory_, "link", 3);
  ASSERT_TRUE(file.has_value());
  ASSERT_TRUE(file->Append(0, BytesOf("new")).has_value());
  ASSERT_TRUE(file->Commit(3).has_value());
  EXPECT_EQ(Content("outside"), "kept");
  EXPECT_EQ(Content("link"), "new");
  EXPECT_FALSE(std::filesystem::is_symlink(path_ / "link"));
}

TEST_F(ReceivedFileTest, ReportsWhatTheSystemSays) {
  std::filesystem::create_directory(path_ / "taken");
  auto file = ReceivedFile::Create(directory_, "taken", 0);
  ASSERT_TRUE(file.has_value());
  const auto digest = file->Commit(0);
  ASSERT_FALSE(digest.has_value());
  EXPECT_EQ(digest.error().status, FileStatus::kSystem);
  EXPECT_EQ(digest.error().error_number, EISDIR);
}

TEST_F(ReceivedFileTest, ReportsADirectoryThatIsGone) {
  std::filesystem::create_directory(path_ / "gone");
  const int gone = open((path_ / "gone").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  std::filesystem::remove(path_ / "gone");
  const auto file = ReceivedFile::Create(gone, "a", 1);
  close(gone);
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().status, FileStatus::kSystem);
  EXPECT_EQ(file.error().error_number, ENOENT);
}

// A file size limit makes write fail in the middle, as a full disk does.
TEST_F(ReceivedFileTest, ReportsThatTheDiskTakesNoMore) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_NE(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  const rlimit small{4096, before.rlim_max};
  auto file = ReceivedFile::Create(directory_, "a", 10000);
  ASSERT_TRUE(file.has_value());
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto written = file->Append(0, BytesOf(std::string(10000, 'x')));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(written.has_value());
  EXPECT_EQ(written.error().status, FileStatus::kSystem);
  EXPECT_EQ(written.error().error_number, EFBIG);
}

}  // namespace
}  // namespace kmcl::devices
