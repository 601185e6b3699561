// Packets that are retired later, in any order, by a thread of their process.
#pragma once

#include <kmcl/kmcl.h>

#include <cstdint>
#include <vector>

namespace kmcl::sim {

class End;
struct Share;

class Retirer {
 public:
  explicit Retirer(std::uint32_t process);
  struct Item {
    End* end = nullptr;
    VMBPACKETCOMPLETION packet = nullptr;  // none: a view of a client's memory is to end
    std::uint64_t name = 0;
    std::uint64_t answer = 0;
    UINT32 handle = 0;  // of the memory that is to be worked on before
    Share* share = nullptr;
  };
  void Add(const Item& item);
  // Once nothing is left.
  void Stop();

 private:
  static void* Run(void* self);
  std::vector<Item> items_;
  bool stopping_ = false;
  bool stopped_ = false;
};

}  // namespace kmcl::sim
