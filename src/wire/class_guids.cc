#include "wire/class_guids.h"

namespace kmcl::wire {

const char* NameOf(const Guid& interface_id) {
  for (const ClassGuid& known : kClassGuids) {
    if (known.id == interface_id) return known.name;
  }
  return HvsockPort(interface_id) ? "hvsock service" : nullptr;
}

}  // namespace kmcl::wire
