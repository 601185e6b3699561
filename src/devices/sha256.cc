#include "devices/sha256.h"

#include <openssl/evp.h>

#include <cstdio>
#include <cstdlib>

namespace kmcl::devices {
namespace {

// A digest that silently misses bytes would vouch for a file nobody read, so failures end the
// program.
void Require(bool done) {
  if (!done) {
    std::fputs("kmcl: the SHA-256 of libcrypto does not work\n", stderr);
    std::abort();
  }
}

}  // namespace

void Sha256::FreeContext::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  Require(context_ != nullptr);
  Require(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::Update(std::span<const std::byte> bytes) {
  Require(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest{};
  unsigned int bytes = 0;
  Require(EVP_DigestFinal_ex(context_.get(), digest.data(), &bytes) == 1);
  Require(bytes == digest.size());
  return digest;
}

std::string HexDigits(const Sha256Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(digest.size() * 2);
  for (const std::uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace kmcl::devices
