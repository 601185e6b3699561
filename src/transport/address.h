// Reads addresses: "local:NAME" and "unix:PATH". It opens nothing; Listen and Dial do.
#pragma once

#include <sys/un.h>

#include <string>
#include <string_view>

#include "result.h"

namespace kmcl::transport {

struct Address {
  enum class Kind { kLocal, kUnix };
  Kind kind;
  std::string name;  // what follows the colon; never empty, no zero bytes
};

// kAddressMalformed: another scheme, nothing after the colon, or a zero byte.
[[nodiscard]] Result<Address> ParseAddress(std::string_view address);

// The form that bind and connect want. kAddressMalformed for a path of more than 107 bytes; logged.
[[nodiscard]] Result<sockaddr_un> UnixAddress(const std::string& path);

}  // namespace kmcl::transport
