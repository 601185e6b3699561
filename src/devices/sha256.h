// SHA-256 of bytes that come piece by piece.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;

namespace kmcl::devices {

using Sha256Digest = std::array<std::uint8_t, 32>;

class Sha256 {
 public:
  Sha256();

  void Update(std::span<const std::byte> bytes);
  // The digest of everything so far. Nothing may follow it.
  Sha256Digest Finish();

 private:
  struct FreeContext {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, FreeContext> context_;
};

// 64 lower-case hexadecimal digits.
std::string HexDigits(const Sha256Digest& digest);

}  // namespace kmcl::devices
