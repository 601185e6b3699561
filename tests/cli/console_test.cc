// vmbus vm at a terminal: the keys are the guest's, and the terminal is as before when it ends,
// whatever ends it.
#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace {

// Says "ready" at COM1, then sleeps for ever.
constexpr std::array<std::uint8_t, 31> kGuest = {
    0x48, 0x8D, 0x35, 0x12, 0x00, 0x00, 0x00,  // lea rsi, [rip + 18]
    0xBA, 0xF8, 0x03, 0x00, 0x00,              // mov edx, 0x3F8
    0xB9, 0x06, 0x00, 0x00, 0x00,              // mov ecx, 6
    0xAC, 0xEE, 0xE2, 0xFC,                    // 1: lodsb; out dx, al; loop 1b
    0xFA, 0xF4, 0xEB, 0xFC,                    // 2: cli; hlt; jmp 2b
    'r',  'e',  'a',  'd',  'y',  '\n'};

class ConsoleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    WriteKernel();
    pid_ = forkpty(&terminal_, nullptr, nullptr, nullptr);
    ASSERT_GE(pid_, 0);
    if (pid_ == 0) {
      execl(VMBUS_COMMAND, "vmbus", "vm", "--kernel", kernel_.c_str(), "--cpus", "1", "--memory",
            "64M", nullptr);
      _exit(127);
    }
    ASSERT_EQ(tcgetattr(terminal_, &before_), 0);
    ASSERT_TRUE(ReadUntil("ready")) << said_;
    termios now{};
    ASSERT_EQ(tcgetattr(terminal_, &now), 0);
    EXPECT_EQ(now.c_lflag & (ICANON | ECHO | ISIG), 0u);
  }
  void TearDown() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (terminal_ >= 0) close(terminal_);
    if (!kernel_.empty()) unlink(kernel_.c_str());
  }

  void WriteKernel() {
    constexpr std::uint64_t kAddress = 0x1000000;
    Elf64_Ehdr elf{};
    std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
    elf.e_ident[EI_CLASS] = ELFCLASS64;
    elf.e_ident[EI_DATA] = ELFDATA2LSB;
    elf.e_type = ET_EXEC;
    elf.e_machine = EM_X86_64;
    elf.e_entry = kAddress;
    elf.e_phoff = sizeof elf;
    elf.e_phentsize = sizeof(Elf64_Phdr);
    elf.e_phnum = 1;
    Elf64_Phdr segment{};
    segment.p_type = PT_LOAD;
    segment.p_offset = sizeof elf + sizeof segment;
    segment.p_paddr = kAddress;
    segment.p_filesz = segment.p_memsz = kGuest.size();
    std::string file(reinterpret_cast<const char*>(&elf), sizeof elf);
    file.append(reinterpret_cast<const char*>(&segment), sizeof segment);
    file.append(reinterpret_cast<const char*>(kGuest.data()), kGuest.size());
    std::array<char, 32> name{"/tmp/vmbus-console-XXXXXX"};
    const int made = mkstemp(name.data());
    ASSERT_GE(made, 0);
    kernel_ = name.data();
    ASSERT_EQ(write(made, file.data(), file.size()), static_cast<ssize_t>(file.size()));
    close(made);
  }

  bool ReadUntil(const std::string& text) {
    while (said_.find(text) == std::string::npos) {
      pollfd wanted{terminal_, POLLIN, 0};
      std::array<char, 256> bytes;
      if (poll(&wanted, 1, 60'000) <= 0) return false;
      const ssize_t count = read(terminal_, bytes.data(), bytes.size());
      if (count <= 0) return false;
      said_.append(bytes.data(), static_cast<std::size_t>(count));
    }
    return true;
  }
  void Type(const std::string& keys) {
    ASSERT_EQ(write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // Its exit code, with the terminal looked at before its last user is gone.
  int End() {
    EXPECT_TRUE(ReadUntil("left while the guest was running")) << said_;
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  void ExpectTerminalAsBefore() {
    termios now{};
    ASSERT_EQ(tcgetattr(terminal_, &now), 0);
    EXPECT_EQ(now.c_iflag, before_.c_iflag);
    EXPECT_EQ(now.c_oflag, before_.c_oflag);
    EXPECT_EQ(now.c_lflag, before_.c_lflag);
    EXPECT_EQ(now.c_cflag, before_.c_cflag);
  }

  std::string kernel_;
  pid_t pid_ = -1;
  int terminal_ = -1;
  termios before_{};
  std::string said_;
};

TEST_F(ConsoleTest, ControlAAndXLeaveTheMachine) {
  Type("for the guest\x01\x01");
  Type("\x01x");
  EXPECT_EQ(End(), 130);
  ExpectTerminalAsBefore();
}

TEST_F(ConsoleTest, ControlCIsTheGuests) {
  Type("\x03\x1A\x1C");  // and what would stop or kill a process
  Type("\x01X");
  EXPECT_EQ(End(), 130);
  ExpectTerminalAsBefore();
}

TEST_F(ConsoleTest, ATerminatedMachineLeavesTheTerminalAsItWas) {
  kill(pid_, SIGTERM);
  EXPECT_EQ(End(), 130);
  ExpectTerminalAsBefore();
}

}  // namespace
