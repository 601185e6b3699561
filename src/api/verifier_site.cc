#include "api/verifier_site.h"

#include <execinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <string_view>

#include "api/verifier_symbols.h"

namespace kmcl::api::verifier {
namespace {

// A return address may belong to the next line, or even function: look just before it.
const void* CallOf(const void* return_address) {
  return static_cast<const char*>(return_address) - 1;
}

// VmbPacketSend and the like, but not a program's C++ functions of that kind.
bool IsPublicFunction(std::string_view name) {
  if (name.find(':') != name.npos) return false;
  for (const std::string_view prefix : {"Vmb", "Kmcl"}) {
    if (name.starts_with(prefix) && name.size() > prefix.size() &&
        std::isupper(static_cast<unsigned char>(name[prefix.size()])) != 0) {
      return true;
    }
  }
  return false;
}

// Behind the innermost public function; 0 if there is none, as when frames were cut off already.
int FirstProgramFrame(const Site& site) {
  constexpr int kDeepest = 8;  // the library's own frames above its edge
  for (int i = 0; i < std::min(site.count, kDeepest); ++i) {
    if (IsPublicFunction(Resolve(CallOf(site.frames[i])).function)) {
      return i + 1 < site.count ? i + 1 : 0;
    }
  }
  return 0;
}

}  // namespace

Site Here(const void* caller) {
  Site site;
  site.thread = static_cast<std::uint32_t>(syscall(SYS_gettid));
  site.at = std::chrono::steady_clock::now();
  void* frames[Site::kMostFrames + 8];
  const int count = backtrace(frames, Site::kMostFrames + 8);
  int first = count > 1 ? 1 : 0;  // without this function
  for (int i = 0; caller != nullptr && i < count; ++i) {
    if (frames[i] == caller) {
      first = i;
      break;
    }
  }
  site.count = std::min(count - first, Site::kMostFrames);
  std::copy_n(frames + first, site.count, site.frames.begin());
  return site;
}

void* ProgramFrame(const Site& site) {
  return site.count == 0 ? nullptr : site.frames[FirstProgramFrame(site)];
}

std::string DescribeSite(const Site& site, std::chrono::steady_clock::time_point now) {
  if (!site) return "unknown";
  const std::chrono::duration<double, std::milli> ago = std::max(now, site.at) - site.at;
  char text[80];
  std::snprintf(text, sizeof text, ", thread %u, %.1f ms ago", site.thread, ago.count());
  const void* const frame = ProgramFrame(site);
  return (frame == nullptr ? "?" : Describe(CallOf(frame))) + text;
}

std::string DescribeStack(const Site& site, const char* indent) {
  std::string stack;
  const int first = FirstProgramFrame(site);
  for (int i = first; i < site.count; ++i) {
    stack += std::string(indent) + "#" + std::to_string(i - first) + " " +
             Describe(CallOf(site.frames[i])) + "\n";
  }
  return stack;
}

}  // namespace kmcl::api::verifier
