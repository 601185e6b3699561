// One of the two processes of a handover dies in the middle of it.
#include <unistd.h>

#include <cstddef>
#include <utility>

#include "world_calls.h"
#include "world_handover.h"

namespace kmcl::sim {

// ---- The old one.

void World::AfterDeath(Handover& handover) {
  if (handover.taken == STATUS_SUCCESS) {
    ++model_.handovers;
    for (Guest* const guest : handover.successors) {
      for (const auto& end : guest->ends) end->offered = true;
    }
    return;
  }
  if (handover.taken != STATUS_CONNECTION_DISCONNECTED) {
    Fail("the survivor of a handover: %s", KmclStatusName(handover.taken));
  }
  // The new one has it in vain, and has given it up.
  (next_retirer_ != nullptr ? std::exchange(next_retirer_, nullptr) : std::move(retirer_))->Stop();
  ReplaceDeadServer(handover.open, handover.killed_ns);
}

// ---- The new one.

// The old process serves on: nothing of what the new one has made has been seen by anybody.
void World::TakeBack(Handover& handover) {
  for (const Guest* const guest : handover.successors) {
    for (const auto& end : guest->ends) {
      if (end->is_open())
        Fail("both processes of a handover have served: %s", end->Describe().c_str());
    }
  }
  if (!handover.is_moved) {
    past_retirers_.push_back(std::move(next_retirer_));
    return;
  }
  handover.is_moved = false;
  server_ = handover.before;
  server_process_ = handover.from;
  std::swap(retirer_, past_retirers_.back());
  for (Guest* const guest : handover.guests) {
    for (const auto& end : guest->ends) end->TakeUp();
  }
  // What was left to do there.
  for (std::size_t i = 0, count = actors_.size(); i < count; ++i) {
    const Actor& actor = *actors_[i];
    if (actor.process == handover.to && actor.next < plan_.actions.size()) {
      SpawnActor(actor.number, actor.next);
    }
  }
}

void World::AfterSuccessorsDeath(Handover& handover) {
  ++model_.orphaned;
  In(handover.from, [&] { close(handover.sockets[0]); });
  if (handover.given == STATUS_CONNECTION_DISCONNECTED) {
    // Resume was not called if Save was not.
    if (next_retirer_ != nullptr) past_retirers_.push_back(std::move(next_retirer_));
    if (handover.is_moved) Fail("a handover ends without its resumption");
    return;
  }
  if (handover.given != STATUS_SUCCESS) {
    Fail("the survivor of a handover: %s", KmclStatusName(handover.given));
  }
  // It has served, and died as any server may.
  EndPredecessor(handover);
  ReplaceDeadServer(handover.open, handover.killed_ns);
}

}  // namespace kmcl::sim
