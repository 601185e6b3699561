// GUIDs as people write them, and the names of the interface types that are known.
#pragma once

#include <kmcl/nt.h>

#include <optional>
#include <string>
#include <string_view>

namespace kmcl::cli {

// "799d7bf1-e70d-4e71-985d-6d8b3acfb175"
std::string GuidText(const GUID& guid);

// "echo", "Synthetic NIC", ...; "unknown" for a type that nobody told us of.
std::string InterfaceName(const GUID& interface_type);

// What GuidText writes, in either case; nothing else.
std::optional<GUID> GuidFromText(std::string_view text);

// A known name, or a GUID.
std::optional<GUID> InterfaceFromText(std::string_view text);

}  // namespace kmcl::cli
