// A thread that retires packets which another thread was delivered.
#pragma once

#include <kmcl/kmcl.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace kmcl::kill {

class Retirer {
 public:
  Retirer();
  // Retires what it still has.
  ~Retirer();
  Retirer(const Retirer&) = delete;
  Retirer& operator=(const Retirer&) = delete;

  // Any thread. `retired` is called right before the packet is completed with `answer`.
  void Add(VMBPACKETCOMPLETION packet, std::uint64_t answer, std::function<void()> retired);

 private:
  struct Item {
    VMBPACKETCOMPLETION packet;
    std::uint64_t answer;
    std::function<void()> retired;
  };
  void Run();

  std::mutex mutex_;
  std::condition_variable added_;
  std::vector<Item> items_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace kmcl::kill
