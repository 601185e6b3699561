#include "wire/version.h"

namespace kmcl::wire {

const char* NameOf(Version version) {
  // No default: a new version without a name is a compile error, and a number from a peer that is
  // none of these falls out of the switch.
  switch (version) {
    case Version::kV1:
      return "V1";
    case Version::kWin7:
      return "Win7";
    case Version::kWin8:
      return "Win8";
    case Version::kWin8_1:
      return "Win8_1";
    case Version::kWin10:
      return "Win10";
    case Version::kWin10Rs3:
      return "Win10Rs3";
    case Version::kWin10V5:
      return "Win10V5";
    case Version::kWin10Rs4:
      return "Win10Rs4";
    case Version::kWin10Rs5:
      return "Win10Rs5";
    case Version::kIron:
      return "Iron";
    case Version::kCopper:
      return "Copper";
  }
  return "unknown";
}

}  // namespace kmcl::wire
