// Memory of a client's that its server sees for some time: a GPADL (kmcl/gpadl.h), and what the two
// ends may say of it.
#pragma once

#include <kmcl/kmcl.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kmcl::sim {

class End;

struct Share {
  enum class State : std::uint8_t {
    kMaking,
    kLive,
    kDeleting,
    kLeft,  // to the library, or deleted by it: the channel has been closed
    kBack,  // the client's alone again
  };
  const End* owner = nullptr;
  UINT32 handle = 0;
  std::uint32_t session = 0;
  State state = State::kMaking;
  bool read_only = false;
  bool fit = true;      // nobody works on it any more: it can be used once more
  bool in_use = false;  // by a thread of the client's
  const End* mapper = nullptr;
  std::vector<void*> blocks;                    // of the pool
  std::vector<std::span<std::uint64_t>> words;  // in the order in which the server sees them

  // Of the pool; it stays until FreeBlocks().
  void* AddBlock(std::size_t bytes);
  void FreeBlocks();
  // What stands there when it is shared under that name, and what the server makes of it.
  void Fill(std::uint64_t name);
  bool Says(std::uint64_t name, std::uint64_t key) const;

  static std::uint64_t WordOf(std::uint64_t name, std::size_t index) {
    return name ^ index * 0x9E37'79B9'7F4A'7C15;
  }
};

// A server's view of one.
struct SharedView {
  UINT32 handle = 0;
  Share* share = nullptr;
  std::vector<std::span<std::uint64_t>> words;
  bool ending = false;  // somebody unmaps it

  bool Says(std::uint64_t name, std::uint64_t key) const;
  void Write(std::uint64_t name, std::uint64_t key);
};

}  // namespace kmcl::sim
