#include "devices/guest_file_copy.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <future>

#include "devices/test_guest.h"
#include "devices/utf16.h"

namespace kmcl::devices {
namespace {

using namespace std::chrono_literals;
using Kind = GuestFileCopyFailure::Kind;
using Bytes = std::vector<std::byte>;

class HostFile {
 public:
  explicit HostFile(const std::string& content) : descriptor_(memfd_create("host-file", 0)) {
    EXPECT_EQ(write(descriptor_, content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
  }
  ~HostFile() { close(descriptor_); }
  HostFile(const HostFile&) = delete;
  HostFile& operator=(const HostFile&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

class GuestFileCopyTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Eventually([this] { return device_->Status().state == IntegrationState::kReady; }));
  }
  auto CopyLater(const HostFile& file, const std::atomic<bool>* cancelled = nullptr) {
    return std::async(std::launch::async, [this, &file, cancelled] {
      return device_->Copy(file.descriptor(), {.name = "täst", .directory = "/tmp"}, cancelled,
                           10s);
    });
  }
  Bytes Expect(std::uint32_t operation, std::size_t bytes, std::uint32_t status = 0) {
    auto request = guest_.Take();
    EXPECT_EQ(BodyAs<std::uint32_t>(request), operation);
    EXPECT_EQ(request.size(), 20 + bytes);
    guest_.Answer(request, status);
    return request;
  }

  std::unique_ptr<GuestFileCopyDevice> device_;
  TestServer server_{[this](PDEVICE_OBJECT device_object, HANDLE partition) {
                       auto device = GuestFileCopyDevice::Offer(device_object, partition, {});
                       ASSERT_TRUE(device.has_value()) << KmclStatusName(device.error());
                       device_ = std::move(*device);
                     },
                     [this] { device_.reset(); }};
  TestGuest guest_{server_.address(), kFileCopyInterface, {{{3, 0}}, {{1, 1}}}};
};

TEST_F(GuestFileCopyTest, CopiesAFileChunkByChunk) {
  std::string content;
  for (int i = 0; content.size() < 15'000; ++i) content += std::to_string(i);
  const HostFile file(content);
  auto result = CopyLater(file);
  const auto start = Expect(0, 1088);
  EXPECT_EQ(TextFromUtf16(std::span(start).subspan(20 + 36)), "täst");
  EXPECT_EQ(TextFromUtf16(std::span(start).subspan(20 + 556)), "/tmp");
  EXPECT_EQ(BodyAs<std::uint32_t>(start, 1076), 0u);
  EXPECT_EQ(BodyAs<std::uint64_t>(start, 1080), content.size());
  std::string arrived;
  while (arrived.size() < content.size()) {
    const auto chunk = Expect(1, 6196);
    EXPECT_EQ(BodyAs<std::uint64_t>(chunk, 40), arrived.size());
    const auto bytes = BodyAs<std::uint32_t>(chunk, 48);
    ASSERT_GT(bytes, 0u);
    ASSERT_LE(bytes, 6144u);
    arrived.append(reinterpret_cast<const char*>(chunk.data()) + 20 + 52, bytes);
  }
  Expect(2, 36);
  const auto copied = result.get();
  ASSERT_TRUE(copied.has_value());
  EXPECT_EQ(arrived, content);
  EXPECT_EQ(copied->bytes, content.size());
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(content)));
  EXPECT_EQ(copied->digest, hash.Finish());
}

// Two of the longest answers do not fit into the guest's ring.
TEST_F(GuestFileCopyTest, AsksOnlyWhenTheGuestHasRoomForTheAnswer) {
  constexpr int kChunks = 3000;
  const HostFile file(std::string(std::size_t{kChunks} * 6144, 'x'));
  auto result = CopyLater(file);
  for (int message = 0; message < kChunks + 2; ++message) {
    ASSERT_TRUE(guest_.AnswerIfThereIsRoom(guest_.Take())) << "message " << message;
  }
  EXPECT_TRUE(result.get().has_value());
}

TEST_F(GuestFileCopyTest, CopiesAnEmptyFile) {
  const HostFile file("");
  auto result = CopyLater(file);
  Expect(0, 1088);
  Expect(2, 36);
  EXPECT_EQ(result.get()->bytes, 0u);
}

TEST_F(GuestFileCopyTest, LeavesAFileAloneThatExists) {
  const HostFile file("x");
  auto result = CopyLater(file);
  Expect(0, 1088, kIntegrationAlreadyExists);
  const auto refused = result.get();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(GuestFileCopyFailureText(refused.error()),
            "the guest refused: the file exists already (0x80070050)");
  EXPECT_EQ(guest_.waiting(), 0u);
}

TEST_F(GuestFileCopyTest, CancelsWhenTheDiskIsFull) {
  const HostFile file("x");
  auto result = CopyLater(file);
  Expect(0, 1088);
  Expect(1, 6196, kIntegrationDiskFull);
  Expect(3, 36);
  EXPECT_EQ(result.get().error().guest.status, kIntegrationDiskFull);
}

TEST_F(GuestFileCopyTest, CancelsWhenAskedTo) {
  const HostFile file(std::string(100'000, 'x'));
  std::atomic<bool> cancelled = false;
  auto result = CopyLater(file, &cancelled);
  Expect(0, 1088);
  guest_.Take();  // a chunk, and does not answer
  device_->Cancel(cancelled);
  EXPECT_EQ(result.get().error().kind, Kind::kCancelled);
  Expect(3, 36);
}

TEST_F(GuestFileCopyTest, CancelsNothingThatTheGuestHasNotTaken) {
  const HostFile file("x");
  std::atomic<bool> cancelled = false;
  auto result = CopyLater(file, &cancelled);
  const auto start = guest_.Take();
  device_->Cancel(cancelled);
  EXPECT_EQ(result.get().error().kind, Kind::kCancelled);
  guest_.Answer(start);  // late
  ASSERT_TRUE(Eventually([this] { return device_->Status().counts.late == 1; }));
  EXPECT_EQ(guest_.waiting(), 0u);
}

TEST_F(GuestFileCopyTest, ACopyThatIsCancelledBeforeItBeginsSendsNothing) {
  const HostFile file("x");
  std::atomic<bool> cancelled = false;
  device_->Cancel(cancelled);
  EXPECT_EQ(CopyLater(file, &cancelled).get().error().kind, Kind::kCancelled);
  EXPECT_EQ(guest_.waiting(), 0u);
}

TEST_F(GuestFileCopyTest, NoticesThatTheFileBecameShorter) {
  const HostFile file(std::string(10'000, 'x'));
  auto result = CopyLater(file);
  const auto start = guest_.Take();
  ASSERT_EQ(ftruncate(file.descriptor(), 0), 0);
  guest_.Answer(start);
  Expect(3, 36);
  const auto failed = result.get();
  EXPECT_EQ(failed.error().kind, Kind::kRead);
  EXPECT_EQ(failed.error().error_number, 0);
}

TEST_F(GuestFileCopyTest, SendsNoNameThatIsNone) {
  const HostFile file("x");
  for (const std::string& name : {std::string(), std::string("a/b"), std::string(260, 'n')}) {
    const auto refused = device_->Copy(file.descriptor(), {.name = name, .directory = "/"});
    EXPECT_EQ(refused.error().kind, Kind::kName);
  }
  EXPECT_EQ(device_->Copy(-1, {.name = "a", .directory = "/"}).error().kind, Kind::kRead);
  EXPECT_EQ(guest_.waiting(), 0u);
}

TEST_F(GuestFileCopyTest, NamesADirectoryToBeCreatedWithASeparatorBehindIt) {
  const HostFile file("");
  for (const auto& [directory, sent] :
       {std::pair{u8"/new/one", u"/new/one/"}, std::pair{u8"/new/", u"/new/"},
        std::pair{u8"C:\\new", u"C:\\new\\"}}) {
    auto result = std::async(std::launch::async, [&] {
      return device_->Copy(file.descriptor(),
                           {.name = "a",
                            .directory = reinterpret_cast<const char*>(directory),
                            .create_directory = true});
    });
    const auto start = Expect(0, 1088);
    const std::u16string expected(sent);
    EXPECT_EQ(std::memcmp(start.data() + 20 + 556, expected.c_str(), expected.size() * 2 + 2), 0);
    EXPECT_EQ(BodyAs<std::uint32_t>(start, 1076), 2u);
    Expect(2, 36);
    EXPECT_TRUE(result.get().has_value());
  }
}

TEST_F(GuestFileCopyTest, EndsWhenTheGuestCloses) {
  const HostFile file(std::string(10'000, 'x'));
  auto result = CopyLater(file);
  Expect(0, 1088);
  guest_.Take();
  guest_.Close();
  EXPECT_EQ(result.get().error().guest.kind, IntegrationFailure::Kind::kClosed);
}

}  // namespace
}  // namespace kmcl::devices
