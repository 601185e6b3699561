// A stranger who knows where a server listens and wants to spoil it for the others. Uses nothing of
// the library.
#pragma once

#include <cstdint>
#include <string>

namespace kmcl::kill {

// Connects without end: to be silent, to say half a hello, or a hello of its own, to send more
// descriptors than anybody takes, messages without sense, or fragments of which the last one never
// comes. Holds some hundred connections at a time. Calls `begun` once that many were made; never
// returns unless nobody listens.
void Flood(const std::string& address, std::uint64_t seed, void (*begun)());

}  // namespace kmcl::kill
