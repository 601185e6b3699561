#include "endpoint/server_gpadls.h"

#include <utility>

namespace kmcl::endpoint {

void ServerGpadls::Add(wire::ChannelId channel, wire::GpadlId gpadl, wire::GpaRangeList ranges) {
  MutexLock lock(mutex_);
  Gpadl& added = gpadls_[gpadl];
  added.channel = channel;
  added.ranges = std::move(ranges);
}

const wire::GpaRangeList* ServerGpadls::Find(wire::GpadlId gpadl) const {
  MutexLock lock(mutex_);
  const auto found = gpadls_.find(gpadl);
  return found == gpadls_.end() ? nullptr : &found->second.ranges;
}

std::map<wire::GpadlId, wire::GpaRangeList> ServerGpadls::All() const {
  MutexLock lock(mutex_);
  std::map<wire::GpadlId, wire::GpaRangeList> all;
  for (const auto& [id, gpadl] : gpadls_) all.emplace(id, gpadl.ranges);
  return all;
}

std::vector<wire::GpadlId> ServerGpadls::WantedBack() const {
  MutexLock lock(mutex_);
  std::vector<wire::GpadlId> wanted;
  for (const auto& [id, gpadl] : gpadls_) {
    if (gpadl.is_wanted_back) wanted.push_back(id);
  }
  return wanted;
}

bool ServerGpadls::Release(wire::GpadlId gpadl) {
  MutexLock lock(mutex_);
  const auto found = gpadls_.find(gpadl);
  if (found == gpadls_.end()) return true;
  if (found->second.mapped != nullptr) {
    found->second.is_wanted_back = true;
    return false;
  }
  gpadls_.erase(found);
  return true;
}

void ServerGpadls::Open(wire::GpadlId ring) {
  MutexLock lock(mutex_);
  ring_ = ring;
  is_open_ = true;
}

ServerGpadls::Leftovers ServerGpadls::Close() {
  Leftovers left;
  std::vector<wdk::Chain> ended;  // unmapped after the lock
  MutexLock lock(mutex_);
  is_open_ = false;
  ring_.reset();
  for (auto each = gpadls_.begin(); each != gpadls_.end();) {
    Gpadl& gpadl = each->second;
    if (gpadl.mapped == nullptr) {
      ++each;
      continue;
    }
    ++left.mapped;
    ended.push_back(std::move(gpadl.mapped));
    gpadl.told.reset();
    if (!gpadl.is_wanted_back) {
      ++each;
      continue;
    }
    left.released.push_back({gpadl.channel, each->first});
    each = gpadls_.erase(each);
  }
  return left;
}

Result<PMDL> ServerGpadls::Map(wdk::PageSpace& space, wire::GpadlId gpadl, wdk::Access access,
                               const Prepare& prepare) {
  MutexLock lock(mutex_);
  if (!is_open_) return std::unexpected(Error::kChannelState);
  const auto found = gpadls_.find(gpadl);
  if (found == gpadls_.end() || gpadl == ring_ || found->second.IsReturned()) {
    return std::unexpected(Error::kGpadlUnknown);
  }
  if (found->second.mapped != nullptr) return std::unexpected(Error::kGpadlState);
  if (access == wdk::Access::kReadWrite && wire::IsReadOnly(gpadl)) {
    return std::unexpected(Error::kGpadlReadOnly);
  }
  auto told = prepare({found->second.channel, gpadl});
  found->second.mapped = wdk::MakeChain(space, found->second.ranges, access);
  if (found->second.mapped == nullptr) return std::unexpected(Error::kOutOfMemory);
  found->second.told = std::move(told);
  return found->second.mapped.get();
}

Result<std::unique_ptr<BusThread::Prepared>> ServerGpadls::Unmap(wire::GpadlId gpadl) {
  std::unique_ptr<BusThread::Prepared> told;
  wdk::Chain ended;  // unmapped after the lock
  MutexLock lock(mutex_);
  const auto found = gpadls_.find(gpadl);
  if (found == gpadls_.end() || found->second.IsReturned()) {
    return std::unexpected(Error::kGpadlUnknown);
  }
  if (found->second.mapped == nullptr) return std::unexpected(Error::kGpadlState);
  ended = std::move(found->second.mapped);
  told = std::move(found->second.told);
  if (!found->second.is_wanted_back) return nullptr;
  return told;
}

}  // namespace kmcl::endpoint
