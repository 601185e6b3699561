// GUIDs as people write them, and the names of the interface types that are known.
#pragma once

#include <kmcl/nt.h>

#include <string>

namespace kmcl::cli {

// "799d7bf1-e70d-4e71-985d-6d8b3acfb175"
std::string GuidText(const GUID& guid);

// "echo", "Synthetic NIC", ...; "unknown" for a type that nobody told us of.
std::string InterfaceName(const GUID& interface_type);

}  // namespace kmcl::cli
