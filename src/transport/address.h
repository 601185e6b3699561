// Reads addresses: "local:NAME", "unix:PATH", "uio:" and "uio:INSTANCE". It opens nothing; Listen
// and Dial do.
#pragma once

#include <sys/un.h>

#include <optional>
#include <string>
#include <string_view>

#include "result.h"
#include "wire/guid.h"

namespace kmcl::transport {

struct Address {
  enum class Kind { kLocal, kUnix, kUio };
  Kind kind;
  std::string name;  // what follows the colon; empty for kUio only, no zero bytes
  std::optional<wire::Guid> instance{};  // kUio: of the device, if one is named
};

// kAddressMalformed: another scheme, nothing after the colon where a name belongs, a zero byte, or
// an instance that is no GUID.
[[nodiscard]] Result<Address> ParseAddress(std::string_view address);

// The form that bind and connect want. kAddressMalformed for a path of more than 107 bytes; logged.
[[nodiscard]] Result<sockaddr_un> UnixAddress(const std::string& path);

}  // namespace kmcl::transport
