// GPADLs: what a driver has created or mapped and not given back.

#include <map>
#include <utility>

#include "api/verifier.h"
#include "api/verifier_channel.h"
#include "api/verifier_report.h"
#include "mutex.h"

namespace kmcl::api::verifier {
namespace {

struct Gpadls {
  Mutex mutex;
  // By channel and number: where the driver got it.
  std::map<std::pair<VMBCHANNEL, UINT32>, Site> taken KMCL_GUARDED_BY(mutex);
};

Gpadls& TheGpadls() {
  static auto* const gpadls = new Gpadls;
  return *gpadls;
}

}  // namespace

void GpadlTaken(VMBCHANNEL channel, UINT32 gpadl) {
  const Site site = Here(nullptr);
  Gpadls& gpadls = TheGpadls();
  MutexLock lock(gpadls.mutex);
  gpadls.taken[{channel, gpadl}] = site;
}

void GpadlReturned(VMBCHANNEL channel, UINT32 gpadl) {
  Gpadls& gpadls = TheGpadls();
  MutexLock lock(gpadls.mutex);
  gpadls.taken.erase({channel, gpadl});
}

void GpadlUnbalanced(VMBCHANNEL channel, UINT32 gpadl, const char* function) {
  Site before;
  {
    Gpadls& gpadls = TheGpadls();
    MutexLock lock(gpadls.mutex);
    const auto found = gpadls.taken.find({channel, gpadl});
    if (found != gpadls.taken.end()) before = found->second;
  }
  Violation(KmclCheckGpadlUnbalanced,
            Format("%s was called for GPADL 0x%x of %s, which is %s.", function, gpadl,
                   NameOf(channel).c_str(), before ? "mapped already" : "not there, or not mapped"))
      .Channel(channel)
      .Before("Mapped", before)
      .Now(function, Here(nullptr))
      .Report();
}

void ReportGpadlsLeft(VMBCHANNEL channel) {
  std::vector<std::pair<UINT32, Site>> left;
  {
    Gpadls& gpadls = TheGpadls();
    MutexLock lock(gpadls.mutex);
    std::erase_if(gpadls.taken, [&](const auto& entry) {
      if (entry.first.first != channel) return false;
      left.emplace_back(entry.first.second, entry.second);
      return true;
    });
  }
  if (left.empty()) return;
  const bool is_server = ChannelObject::From(channel).is_server();
  Violation violation(KmclCheckGpadlLeft,
                      Format("%zu GPADLs of %s are still %s after EvtVmbChannelClosed.",
                             left.size(), NameOf(channel).c_str(), is_server ? "mapped" : "there"));
  violation.Channel(channel);
  for (const auto& [gpadl, site] : left) {
    violation.Note(Format("Left: GPADL 0x%x", gpadl))
        .Before(is_server ? "Mapped" : "Created", site);
  }
  violation.Report();
}

}  // namespace kmcl::api::verifier
