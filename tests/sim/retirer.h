// Packets that are retired later, in any order, by a thread of their process.
#pragma once

#include <kmcl/kmcl.h>

#include <cstdint>
#include <vector>

namespace kmcl::sim {

class End;

class Retirer {
 public:
  explicit Retirer(std::uint32_t process);
  void Add(End& end, VMBPACKETCOMPLETION packet, std::uint64_t answer);
  // Once nothing is left.
  void Stop();

 private:
  struct Item {
    End* end;
    VMBPACKETCOMPLETION packet;
    std::uint64_t answer;
  };
  static void* Run(void* self);
  std::vector<Item> items_;
  bool stopping_ = false;
  bool stopped_ = false;
};

}  // namespace kmcl::sim
