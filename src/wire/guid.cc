#include "wire/guid.h"

#include <cstdio>
#include <cstring>

namespace kmcl::wire {

std::string ToString(const Guid& guid) {
  char text[kGuidTextChars + 1];
  const auto& tail = guid.data4;
  std::snprintf(text, sizeof text, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", guid.data1,
                guid.data2, guid.data3, tail[0], tail[1], tail[2], tail[3], tail[4], tail[5],
                tail[6], tail[7]);
  return text;
}

}  // namespace kmcl::wire

std::size_t std::hash<kmcl::wire::Guid>::operator()(const kmcl::wire::Guid& guid) const noexcept {
  char bytes[sizeof guid];
  std::memcpy(bytes, &guid, sizeof guid);
  return std::hash<std::string_view>{}(std::string_view(bytes, sizeof bytes));
}
