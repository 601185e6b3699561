#include "vmm/call_filter.h"

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace kmcl::vmm {
namespace {

// What a machine, its devices and the C library do while a guest runs.
constexpr int kAllowed[] = {
    // descriptors that are open
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_close,
    SYS_dup, SYS_fstat, SYS_newfstatat, SYS_fallocate, SYS_ftruncate, SYS_memfd_create,
    // waiting
    SYS_poll, SYS_ppoll, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait,
    SYS_eventfd2, SYS_futex, SYS_nanosleep, SYS_clock_nanosleep, SYS_sched_yield,
    SYS_restart_syscall,
    // time, where the vDSO cannot tell it
    SYS_clock_gettime, SYS_gettimeofday, SYS_time,
    // sockets: of which kind is seen below
    SYS_bind, SYS_listen, SYS_connect, SYS_accept4, SYS_shutdown, SYS_sendto, SYS_recvfrom,
    SYS_sendmsg, SYS_recvmsg, SYS_getsockopt, SYS_setsockopt, SYS_fchmod, SYS_unlink,
    // memory
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk,
    // threads and signals
    SYS_set_robust_list, SYS_rseq, SYS_sigaltstack, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_getpid, SYS_gettid, SYS_getuid, SYS_getgid,
    SYS_sched_getaffinity, SYS_getrandom, SYS_exit, SYS_exit_group};

// A call whose argument decides: allowed if (argument & mask) == value, for one of the rules.
struct Rule {
  int call;
  unsigned argument;
  std::uint32_t mask;
  std::uint32_t value;
};
constexpr std::uint32_t kWhole = 0xFFFFFFFF;
constexpr std::uint32_t kRequestType = 0xFF00;  // of an ioctl
constexpr Rule kRules[] = {
    {SYS_ioctl, 1, kRequestType, KVMIO << 8},
    {SYS_ioctl, 1, kWhole, TCGETS},
    {SYS_ioctl, 1, kWhole, TCSETS},
    {SYS_ioctl, 1, kWhole, TCGETS2},
    {SYS_ioctl, 1, kWhole, TCSETS2},
    {SYS_socket, 0, kWhole, AF_UNIX},
    {SYS_mmap, 2, PROT_EXEC, 0},
    {SYS_mprotect, 2, PROT_EXEC, 0},
    {SYS_clone, 0, CLONE_THREAD, CLONE_THREAD},
    {SYS_fcntl, 1, kWhole, F_DUPFD_CLOEXEC},
    {SYS_fcntl, 1, kWhole, F_GETFD},
    {SYS_fcntl, 1, kWhole, F_SETFD},
    {SYS_fcntl, 1, kWhole, F_GETFL},
    {SYS_fcntl, 1, kWhole, F_SETFL},
    {SYS_fcntl, 1, kWhole, F_ADD_SEALS},
    {SYS_fcntl, 1, kWhole, F_GET_SEALS},
    {SYS_prctl, 0, kWhole, PR_SET_NAME},
};

// Whose value is this process: a signal to a thread of its own, a look at whether its memory is
// there.
constexpr int kForItself[] = {SYS_tgkill, SYS_process_vm_readv};

constexpr std::uint32_t kNumberOffset = offsetof(seccomp_data, nr);
constexpr std::uint32_t kArchitectureOffset = offsetof(seccomp_data, arch);
// The lower half of an argument is all that the kernel looks at in those above.
constexpr std::uint32_t ArgumentOffset(unsigned argument) {
  return static_cast<std::uint32_t>(offsetof(seccomp_data, args) +
                                    argument * sizeof(std::uint64_t));
}

class Program {
 public:
  Program() {
    Load(kArchitectureOffset);
    Add(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    Return(SECCOMP_RET_KILL_PROCESS);
    Load(kNumberOffset);
  }

  void Allow(int call) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 1);
    Return(SECCOMP_RET_ALLOW);
  }
  void AllowIf(const Rule& rule) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(rule.call), 0, 5);
    Load(ArgumentOffset(rule.argument));
    Add(BPF_ALU | BPF_AND | BPF_K, rule.mask);
    Add(BPF_JMP | BPF_JEQ | BPF_K, rule.value, 0, 1);
    Return(SECCOMP_RET_ALLOW);
    Load(kNumberOffset);
  }
  void Fail(int call, int error_number) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 1);
    Return(SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error_number));
  }
  std::span<sock_filter> Finish() {
    Return(SECCOMP_RET_TRAP);
    return instructions_;
  }

 private:
  void Load(std::uint32_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, offset); }
  void Return(std::uint32_t what) { Add(BPF_RET | BPF_K, what); }
  void Add(std::uint16_t code, std::uint32_t value, std::uint8_t if_so = 0,
           std::uint8_t if_not = 0) {
    instructions_.push_back({code, if_so, if_not, value});
  }

  std::vector<sock_filter> instructions_;
};

std::vector<Rule> RulesOfThisProcess() {
  std::vector<Rule> rules;
  for (const int call : kForItself) {
    rules.push_back({call, 0, kWhole, static_cast<std::uint32_t>(getpid())});
  }
  return rules;
}

// ---- The end

void (*last_words_of_the_process)() = nullptr;

void Say(std::string_view text) { (void)!write(STDERR_FILENO, text.data(), text.size()); }

// A signal handler: nothing here allocates or locks.
void OnForbiddenCall(int /*signal*/, siginfo_t* information, void* /*context*/) {
  std::array<char, 12> digits;
  std::size_t first = digits.size();
  auto number = static_cast<unsigned>(information->si_syscall);
  do {
    digits[--first] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  if (last_words_of_the_process != nullptr) {
    last_words_of_the_process();
  }
  Say("vmbus vm: system call ");
  Say({digits.data() + first, digits.size() - first});
  Say(" is none that a machine may make; it ends here (--no-seccomp lets it)\n");
  _exit(kForbiddenCallExit);
}

}  // namespace

bool CanRestrictCalls() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return false;
#else
  return true;
#endif
#else
  return true;
#endif
}

Outcome<void> RestrictCalls(void (*last_words)()) {
  Program program;
  for (const int call : kAllowed) {
    program.Allow(call);
  }
  for (const Rule& rule : kRules) {
    program.AllowIf(rule);
  }
  for (const Rule& rule : RulesOfThisProcess()) {
    program.AllowIf(rule);
  }
  // Its arguments stand in memory, where no filter sees them. The C library then uses the other.
  program.Fail(SYS_clone3, ENOSYS);
  // The C library looks into files of its own accord, and does without: whether a heap that could
  // shrink may grow again, for one.
  program.Fail(SYS_openat, EACCES);
  const auto instructions = program.Finish();

  last_words_of_the_process = last_words;
  struct sigaction action{};
  action.sa_sigaction = OnForbiddenCall;
  action.sa_flags = SA_SIGINFO;
  if (sigaction(SIGSYS, &action, nullptr) != 0) {
    return FailWithErrno("forbidden system calls cannot be told");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return FailWithErrno("system calls cannot be filtered");
  }
  sock_fprog filter{};
  filter.len = static_cast<unsigned short>(instructions.size());
  filter.filter = instructions.data();
  const long set =
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
  if (set > 0) {
    return Fail("system calls of thread " + std::to_string(set) + " cannot be filtered");
  }
  if (set < 0) {
    return FailWithErrno("system calls cannot be filtered");
  }
  return {};
}

}  // namespace kmcl::vmm
