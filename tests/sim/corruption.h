// A hostile peer: what it can reach of others it writes, when and what it likes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kmcl::sim {

// Writes into the memory that the process shares with others, `count` times: mostly where
// something is decided.
void CorruptMemory(std::uint32_t process, std::uint32_t count);
// The next `count` messages of the process are changed, left out, sent twice, cut or kept back.
void ForgeMessages(std::uint32_t process, std::uint32_t count);
void StopCorruption();

// What becomes of a message that the process sends.
std::vector<std::vector<std::byte>> Forged(std::uint32_t process, std::span<const std::byte> bytes);

}  // namespace kmcl::sim
