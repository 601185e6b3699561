#include "cli/main_wait.h"

#include <unistd.h>

#include <thread>

#include "cli/outcome.h"

namespace kmcl::cli {

// Never destroyed: the signal thread uses it until the process ends.
MainWait& MainWait::Get() {
  static MainWait& instance = *new MainWait;
  return instance;
}

MainWait::MainWait() {
  sigemptyset(&taken_);
  sigaddset(&taken_, SIGINT);
  sigaddset(&taken_, SIGTERM);
  sigaddset(&taken_, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &taken_, &original_mask_);
  // Whoever read our output may go; a file that reaches a size limit is an error to report.
  (void)signal(SIGPIPE, SIG_IGN);
  (void)signal(SIGXFSZ, SIG_IGN);
  std::thread(&MainWait::TakeSignals, this).detach();
}

void MainWait::Wake() {
  // Empty on purpose: whoever changed the condition before this cannot fall between the main
  // thread's look at it and its sleep.
  {
    const std::lock_guard lock(mutex_);
  }
  changed_.notify_all();
}

void MainWait::TakeSignals() {
  int number = 0;
  sigwait(&taken_, &number);
  interrupted_.store(true, std::memory_order_release);
  Wake();
  sigwait(&taken_, &number);
  if (void (*const call)() = before_leaving_.load(); call != nullptr) {
    call();
  }
  _exit(kExitInterrupted);
}

}  // namespace kmcl::cli
