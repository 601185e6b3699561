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

// A map may also fail because the channel is not open, which is no mistake of this kind.
void GpadlNotMapped(VMBCHANNEL channel, UINT32 gpadl) {
  Site before;
  {
    Gpadls& gpadls = TheGpadls();
    MutexLock lock(gpadls.mutex);
    const auto found = gpadls.taken.find({channel, gpadl});
    if (found == gpadls.taken.end()) return;
    before = found->second;
  }
  Violation(KmclCheckGpadlUnbalanced,
            Format("VmbChannelMapGpadl was called for GPADL 0x%x of %s, which is mapped already.",
                   gpadl, NameOf(channel).c_str()))
      .Channel(channel)
      .Before("Mapped", before)
      .Now("VmbChannelMapGpadl", Here(nullptr))
      .Report();
}

void GpadlUnbalanced(VMBCHANNEL channel, UINT32 gpadl, const char* function) {
  Violation(KmclCheckGpadlUnbalanced,
            Format("%s was called for GPADL 0x%x of %s, which is not there, or not mapped.",
                   function, gpadl, NameOf(channel).c_str()))
      .Channel(channel)
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
