#include "transport/address.h"

#include <sys/socket.h>

#include <cstring>

#include "log.h"

namespace kmcl::transport {

Result<Address> ParseAddress(std::string_view address) {
  constexpr std::string_view kLocalScheme = "local:";
  constexpr std::string_view kUnixScheme = "unix:";
  constexpr std::string_view kUioScheme = "uio:";
  Address parsed{};
  if (address.starts_with(kUioScheme)) {
    parsed = {Address::Kind::kUio, std::string(address.substr(kUioScheme.size())), {}};
    if (parsed.name.empty()) return parsed;
    parsed.instance = wire::ParseGuid(parsed.name);
    if (!parsed.instance) return std::unexpected(Error::kAddressMalformed);
    return parsed;
  }
  if (address.starts_with(kLocalScheme)) {
    parsed = {Address::Kind::kLocal, std::string(address.substr(kLocalScheme.size())), {}};
  } else if (address.starts_with(kUnixScheme)) {
    parsed = {Address::Kind::kUnix, std::string(address.substr(kUnixScheme.size())), {}};
  }
  // A zero byte would end a path early for the kernel, and in logs.
  if (parsed.name.empty() || parsed.name.find('\0') != std::string::npos) {
    return std::unexpected(Error::kAddressMalformed);
  }
  return parsed;
}

Result<sockaddr_un> UnixAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    Log(LogLevel::kError, "transport: a socket path may have %zu bytes, this one has %zu: %s",
        sizeof address.sun_path - 1, path.size(), path.c_str());
    return std::unexpected(Error::kAddressMalformed);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace kmcl::transport
