// vmbus cat: two of them, and what goes through between.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>

#include "process.h"

namespace kmcl::tests {
namespace {

// A descriptor that is closed with its holder.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) { EXPECT_GE(number, 0); }
  ~Descriptor() { Close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }
  void Close() {
    if (number_ >= 0) close(std::exchange(number_, -1));
  }

 private:
  int number_;
};

struct Pipe {
  Pipe() : Pipe(Make()) {}
  Descriptor read_end;
  Descriptor write_end;

 private:
  static std::array<int, 2> Make() {
    std::array<int, 2> ends{-1, -1};
    EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    return ends;
  }
  explicit Pipe(std::array<int, 2> ends) : read_end(ends[0]), write_end(ends[1]) {}
};

class VmbusCat : public testing::Test {
 protected:
  std::string Generate(const std::string& name, const std::string& bytes, const char* seed) {
    const std::string path = files_.File(name);
    EXPECT_EQ(RunVmbus({"generate", path, "--bytes", bytes, "--seed", seed}).exit_code, 0);
    return path;
  }
  static int Open(const std::string& path) { return open(path.c_str(), O_RDONLY | O_CLOEXEC); }
  static int Create(const std::string& path) {
    return open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  }
  // A listener that clients can connect to.
  std::unique_ptr<Process> Listen(const StartOptions& options,
                                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"cat", "--listen", "--bus", address_, "--ready-fd", "3"};
    words.insert(words.end(), more.begin(), more.end());
    auto listener = std::make_unique<Process>(words, options);
    EXPECT_EQ(listener->NextLine(), "ready " + address_);
    return listener;
  }
  std::unique_ptr<Process> Connect(const StartOptions& options,
                                   const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"cat", "--bus", address_};
    words.insert(words.end(), more.begin(), more.end());
    return std::make_unique<Process>(words, options);
  }
  // Both inputs are files, and so are both outputs.
  void Exchange(const std::string& of_listener, const std::string& of_client) {
    const std::string at_listener = files_.File("at-listener");
    const std::string at_client = files_.File("at-client");
    {
      const Descriptor listener_in(Open(of_listener));
      const Descriptor listener_out(Create(at_listener));
      const Descriptor client_in(Open(of_client));
      const Descriptor client_out(Create(at_client));
      const auto listener =
          Listen({.input = listener_in.number(), .output = listener_out.number()});
      const Finished client =
          Connect({.input = client_in.number(), .output = client_out.number()})->Wait();
      EXPECT_EQ(client.exit_code, 0) << client.error;
      EXPECT_EQ(client.error, "");
      const Finished server = listener->Wait();
      EXPECT_EQ(server.exit_code, 0) << server.error;
      EXPECT_EQ(server.error, "");
    }
    const std::string same = "cmp '" + of_client + "' '" + at_listener + "' && cmp '" +
                             of_listener + "' '" + at_client + "'";
    EXPECT_EQ(std::system(same.c_str()), 0);
  }

  TemporaryDirectory files_;
  std::string address_ = "unix:" + files_.File("bus");
};

// Nothing more comes, so that nobody would ever notice by writing.
TEST_F(VmbusCat, EndsWhenNobodyReadsItsOutputAnyMore) {
  Pipe silent;
  Pipe answers;
  const auto listener = Listen({.input = silent.read_end.number()});
  const auto client = Connect({.output = answers.write_end.number()});
  answers.write_end.Close();
  ASSERT_EQ(write(silent.write_end.number(), "hello", 5), 5);
  char got[5];
  ASSERT_EQ(read(answers.read_end.number(), got, sizeof got), 5);
  answers.read_end.Close();
  const Finished ended = client->Wait();
  EXPECT_EQ(ended.exit_code, 1);
  EXPECT_NE(ended.error.find("nobody reads it any more"), std::string::npos) << ended.error;
}

TEST_F(VmbusCat, MovesBigFilesBothWaysAtOnce) {
  Exchange(Generate("one", "300M", "1"), Generate("two", "200000001", "2"));
}

TEST_F(VmbusCat, MovesFilesOfAwkwardSizes) {
  const std::string empty = files_.File("empty");
  WriteFile(empty, "");
  for (const char* bytes : {"1", "7", "16383", "16384", "16385", "100003"}) {
    const std::string file = Generate(bytes, bytes, "3");
    Exchange(empty, file);
    Exchange(file, empty);
  }
  Exchange(empty, empty);
}

TEST_F(VmbusCat, TheEndOfOneDirectionLeavesTheOtherOpen) {
  Pipe to_listener;
  Pipe from_client;
  const auto listener = Listen({.input = to_listener.read_end.number()});
  to_listener.read_end.Close();
  // The client's input is empty: its direction ends at once.
  const auto client = Connect({.output = from_client.write_end.number()});
  from_client.write_end.Close();
  const std::string text = "said long after the other end has finished";
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(write(to_listener.write_end.number(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
    std::string heard(text.size(), '\0');
    for (std::size_t at = 0; at < heard.size();) {
      pollfd look{.fd = from_client.read_end.number(), .events = POLLIN, .revents = 0};
      ASSERT_EQ(poll(&look, 1, 10'000), 1);
      const ssize_t got = read(look.fd, &heard[at], heard.size() - at);
      ASSERT_GT(got, 0);
      at += static_cast<std::size_t>(got);
    }
    EXPECT_EQ(heard, text);
  }
  to_listener.write_end.Close();
  EXPECT_EQ(client->Wait().exit_code, 0);
  EXPECT_EQ(listener->Wait().exit_code, 0);
}

// Somebody who does not read stops somebody who writes: pipes, packets and ring fill, and then the
// sender's input is not read any more. Once read, everything is there.
TEST_F(VmbusCat, AReaderWhoDoesNotReadHoldsTheWriterBack) {
  Pipe to_client;
  Pipe from_listener;
  const auto listener = Listen({.output = from_listener.write_end.number()});
  from_listener.write_end.Close();
  const auto client = Connect({.input = to_client.read_end.number()});
  to_client.read_end.Close();
  ASSERT_EQ(fcntl(to_client.write_end.number(), F_SETFL, O_NONBLOCK), 0);
  constexpr std::size_t kMuch = 64 << 20;
  const std::string block(65536, 'x');
  std::size_t accepted = 0;
  while (accepted < kMuch) {
    pollfd look{.fd = to_client.write_end.number(), .events = POLLOUT, .revents = 0};
    if (poll(&look, 1, 500) != 1) break;  // nobody has read for half a second: it is full
    const ssize_t put = write(look.fd, block.data(), block.size());
    ASSERT_GT(put, 0);
    accepted += static_cast<std::size_t>(put);
  }
  EXPECT_LT(accepted, std::size_t{4} << 20);
  to_client.write_end.Close();
  std::size_t heard = 0;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = read(from_listener.read_end.number(), buffer.data(), buffer.size());
    ASSERT_GE(got, 0);
    if (got == 0) break;
    heard += static_cast<std::size_t>(got);
  }
  EXPECT_EQ(heard, accepted);
  EXPECT_EQ(client->Wait().exit_code, 0);
  EXPECT_EQ(listener->Wait().exit_code, 0);
}

TEST_F(VmbusCat, CtrlCEndsItAndTheOtherEndIsTold) {
  for (const bool interrupt_listener : {true, false}) {
    Pipe to_listener;  // never written, never closed before the end
    Pipe to_client;
    Pipe from_client;
    const auto listener = Listen({.input = to_listener.read_end.number()});
    const auto client =
        Connect({.input = to_client.read_end.number(), .output = from_client.write_end.number()});
    // One byte through, so that both are at work.
    ASSERT_EQ(write(to_listener.write_end.number(), "x", 1), 1);
    char byte = 0;
    ASSERT_EQ(read(from_client.read_end.number(), &byte, 1), 1);
    (interrupt_listener ? listener : client)->Signal(SIGINT);
    EXPECT_EQ(listener->Wait().exit_code, interrupt_listener ? 130 : 3);
    EXPECT_EQ(client->Wait().exit_code, interrupt_listener ? 3 : 130);
  }
}

TEST_F(VmbusCat, CtrlCEndsAListenerThatNobodyCameTo) {
  const auto listener = Listen({});
  listener->Signal(SIGTERM);
  EXPECT_EQ(listener->Wait().exit_code, 130);
}

TEST_F(VmbusCat, AnEndThatIsKilledLeavesTheOtherWithThree) {
  Pipe to_listener;
  Pipe to_client;
  Pipe from_client;
  const auto listener = Listen({.input = to_listener.read_end.number()});
  const auto client =
      Connect({.input = to_client.read_end.number(), .output = from_client.write_end.number()});
  ASSERT_EQ(write(to_listener.write_end.number(), "x", 1), 1);
  char byte = 0;
  ASSERT_EQ(read(from_client.read_end.number(), &byte, 1), 1);
  client->Signal(SIGKILL);
  const Finished finished = listener->Wait();
  EXPECT_EQ(finished.exit_code, 3) << finished.error;
}

TEST_F(VmbusCat, AnOutputThatNobodyReadsIsAFailure) {
  Pipe from_listener;
  const auto listener = Listen({.output = from_listener.write_end.number()});
  from_listener.write_end.Close();
  from_listener.read_end.Close();
  const std::string file = Generate("data", "1M", "1");
  const Descriptor input(Open(file));
  const auto client = Connect({.input = input.number()});
  const Finished finished = listener->Wait();
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_NE(finished.error.find("cannot write the output"), std::string::npos) << finished.error;
  EXPECT_EQ(client->Wait().exit_code, 3);
}

TEST_F(VmbusCat, ServesTheFirstWhoOpensAndNotWhoOnlyLooks) {
  const std::string type = "11111111-2222-3333-4444-555555555555";
  const auto listener = Listen({}, {"--type", type});
  const Finished list = RunVmbus({"list", "--bus", address_});
  EXPECT_NE(list.out.find(type), std::string::npos) << list.out;
  EXPECT_NE(list.out.find("pipe"), std::string::npos) << list.out;
  EXPECT_EQ(Connect({})->Wait().exit_code, 1);  // another type
  const std::string summary = files_.File("summary");
  EXPECT_EQ(Connect({}, {"--type", type, "--json-to", summary})->Wait().exit_code, 0);
  EXPECT_EQ(listener->Wait().exit_code, 0);
  const auto object = nlohmann::json::parse(ReadFile(summary), nullptr, false);
  EXPECT_EQ(object["ok"], true);
  EXPECT_EQ(object["bytes_sent"], 0);
  EXPECT_EQ(object["counters"]["packets_sent"], 2);  // the end, and the last word
}

}  // namespace
}  // namespace kmcl::tests
