// A server that is replaced by another process (kmcl/handover.h). To the model its channels are the
// same ends as before, and their clients notice nothing.
#include "world_handover.h"

#include <fcntl.h>
#include <kmcl/handover.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "api/objects.h"
#include "world_calls.h"

namespace kmcl::sim {
namespace {

void Put(std::vector<std::byte>& to, const void* bytes, std::size_t count) {
  const auto* const first = static_cast<const std::byte*>(bytes);
  to.insert(to.end(), first, first + count);
}

std::uint32_t GetWord(const std::byte*& from, const std::byte* end) {
  std::uint32_t word = 0;
  if (end - from < 4) Fail("the state of a handover is too short");
  std::memcpy(&word, from, 4);
  from += 4;
  return word;
}

}  // namespace

// A pair of which each process has one.
bool World::ConnectProcesses(Handover& handover) {
  int pair[2] = {-1, -1};
  In(handover.from, [&] {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
      handover.sockets[0] = pair[0];
    }
  });
  if (handover.sockets[0] < 0) return false;
  In(handover.to, [&] { handover.sockets[1] = fcntl(pair[1], F_DUPFD_CLOEXEC, 0); });
  In(handover.from, [&] { close(pair[1]); });
  return handover.sockets[1] >= 0;
}

// ---- Where it goes away.

NTSTATUS World::SaveAll(Handover& handover) {
  for (const auto& guest : guests_) {
    if (!guest->gone && guest->server_process == handover.from) {
      handover.guests.push_back(guest.get());
    }
  }
  for (Guest* const guest : handover.guests) {
    for (const auto& end : guest->ends) {
      const auto save = end->SaveForHandover();
      const auto parts = static_cast<std::uint32_t>(save.size());
      Put(handover.state, &end->number, 4);
      Put(handover.state, &parts, 4);
      for (const auto& part : save) {
        const auto bytes = static_cast<std::uint32_t>(part.size());
        Put(handover.state, &bytes, 4);
        Put(handover.state, part.data(), part.size());
      }
    }
  }
  if (handover.manner == Manner::kSaveFails) return STATUS_DEVICE_BUSY;
  // The table of handles, which in truth each process has for itself, is one for all here: the new
  // one finds nothing of the old one's in it.
  for (const Guest* const guest : handover.guests) {
    handover.partitions.push_back(api::SetPartitionHandle(guest->partition, nullptr));
  }
  return STATUS_SUCCESS;
}

void World::PutHandlesBack(Handover& handover) {
  for (std::size_t i = 0; i < handover.partitions.size(); ++i) {
    const Guest& guest = *handover.guests[i];
    auto own = std::move(handover.partitions[i]);
    if (own == nullptr) continue;  // gone before
    const auto* const partition = own.get();
    // What the new one has there if it has died is not destroyed.
    new std::shared_ptr<endpoint::Partition>(
        api::SetPartitionHandle(guest.partition, std::move(own)));
    if (!guest.cleaned) continue;
    const InLibrary library;
    api::RemovePartitionHandle(guest.partition, partition);
  }
}

void World::ResumeAll(Handover& handover) {
  Note("a handover is given up");
  for (Guest* const guest : handover.guests) {
    for (const auto& end : guest->ends) end->ResumeAfterHandover();
  }
}

void World::GiveAway(Handover& handover) {
  KMCL_HANDOVER_OPTIONS options;
  KmclHandOverOptionsInit(&options);
  options.Context = &handover;
  options.Save = [](PVOID context, KMCL_SERVER, const VOID** state, SIZE_T* bytes) {
    auto& self = *static_cast<Handover*>(context);
    const InTest test;
    const NTSTATUS status = self.world.SaveAll(self);
    *state = self.state.data();
    *bytes = self.state.size();
    return status;
  };
  options.Resume = [](PVOID context, KMCL_SERVER) {
    auto& self = *static_cast<Handover*>(context);
    const InTest test;
    // What it has in the table of handles has to be out of it.
    Await([&] { return self.is_taken || self.world.killed_[self.to]; },
          "the other end of a handover");
    self.world.PutHandlesBack(self);
    if (self.world.killed_[self.to]) self.world.TakeBack(self);
    self.world.ResumeAll(self);
  };
  const InLibrary library("KmclServerHandOver", 0);
  handover.given = KmclServerHandOver(server_, handover.sockets[0], &options);
}

// ---- Where it goes to.

NTSTATUS World::RestoreAll(Handover& handover, KMCL_SERVER server, const std::byte* state,
                           std::size_t bytes) {
  const std::byte* const end_of_state = state + bytes;
  std::vector<Guest*> taken;
  for (std::size_t i = 0; i < handover.guests.size(); ++i) {
    Guest* const from = handover.guests[i];
    // A partition that has gone meanwhile is not handed over: the old process is told of its end.
    const bool is_taken = api::FindPartition(from->partition) != nullptr;
    Guest* guest = nullptr;
    if (is_taken) {
      taken.push_back(from);
      guests_.push_back(std::make_unique<Guest>());
      guest = guests_.back().get();
      handover.successors.push_back(guest);
      guest->partition = from->partition;
      guest->process = from->process;
      guest->server_process = handover.to;
    }
    for (const auto& end : from->ends) {
      std::vector<std::vector<std::byte>> save;
      if (GetWord(state, end_of_state) != end->number) Fail("the state of a handover is another");
      for (std::uint32_t parts = GetWord(state, end_of_state); parts > 0; --parts) {
        const std::uint32_t part = GetWord(state, end_of_state);
        if (part > end_of_state - state) Fail("the state of a handover is too short");
        save.emplace_back(state, state + part);
        state += part;
      }
      if (!is_taken) continue;
      End* const primary = end->is_subchannel() ? guest->ends.front().get() : nullptr;
      guest->ends.push_back(std::make_unique<End>(*end, *next_retirer_, handover.to, primary));
      End& made = *guest->ends.back();
      Expect(made.Allocate(KmclServerDeviceObject(server), guest->partition), "a successor");
      if (save.empty()) continue;
      if (!made.RestoreForHandover(save)) Fail("a save is not restored in another process");
    }
  }
  if (state != end_of_state) Fail("the state of a handover is too long");
  const bool fails = handover.manner == Manner::kRestoreFails;
  if (fails) {
    for (Guest* const guest : handover.successors) {
      for (const auto& end : guest->ends) end->Abandon();
    }
    return STATUS_DEVICE_BUSY;
  }
  // It serves as soon as this is final, and may hear of new clients before the call returns.
  server_ = server;
  server_process_ = handover.to;
  past_retirers_.push_back(std::exchange(retirer_, std::move(next_retirer_)));
  handover.is_moved = true;
  for (Guest* const from : handover.guests) {
    const bool goes_on = std::ranges::find(taken, from) != taken.end();
    for (const auto& end : from->ends) goes_on ? end->Abandon() : end->ForgetSave();
  }
  return STATUS_SUCCESS;
}

void World::TakeAway(Handover& handover) {
  KMCL_TAKEOVER_OPTIONS options;
  KmclTakeOverOptionsInit(&options);
  options.Context = &handover;
  options.Restore = [](PVOID context, KMCL_SERVER server, const VOID* state, SIZE_T bytes) {
    auto& self = *static_cast<Handover*>(context);
    const InTest test;
    return self.world.RestoreAll(self, server, static_cast<const std::byte*>(state), bytes);
  };
  const KMCL_ENDPOINT_OPTIONS endpoint = ServerOptions();
  KMCL_SERVER server = nullptr;
  const InLibrary library("KmclServerTakeOver", 0);
  handover.taken = KmclServerTakeOver(handover.sockets[1], &endpoint, &options, &server);
}

void World::HandOver(std::uint32_t manner) {
  Handover handover{.world = *this,
                    .manner = static_cast<Manner>(manner),
                    .from = server_process_,
                    .to = next_process_++};
  if (!ConnectProcesses(handover)) Fail("no sockets for a handover");
  next_retirer_ = std::make_unique<Retirer>(handover.to);
  handover.before = server_;
  const auto start = [&](std::uint32_t process, void* (*run)(void*)) {
    SpawnFiber(run, &handover, process)->detached = true;
  };
  start(handover.from, [](void* argument) -> void* {
    const InTest test;
    auto& self = *static_cast<Handover*>(argument);
    self.world.GiveAway(self);
    self.is_given = true;
    Changed();
    return nullptr;
  });
  start(handover.to, [](void* argument) -> void* {
    const InTest test;
    auto& self = *static_cast<Handover*>(argument);
    self.world.TakeAway(self);
    self.is_taken = true;
    Changed();
    return nullptr;
  });
  if (handover.manner == Manner::kOldDies || handover.manner == Manner::kNewDies) {
    Sleep(Choices().Between(0, 60));
    handover.open = ClientsEnds();
    handover.killed_ns = NowNs();
    if (handover.manner == Manner::kNewDies) {
      Kill(handover.to);
    } else {
      Kill(handover.from);
      // They are not destroyed, as they are not when a process dies.
      new auto(std::move(handover.partitions));
    }
  }
  Await(
      [&] {
        return (handover.is_given || killed_[handover.from]) &&
               (handover.is_taken || killed_[handover.to]);
      },
      "the end of a handover");
  Note("a handover ends with %#llx and %#llx", static_cast<std::uint32_t>(handover.given),
       static_cast<std::uint32_t>(handover.taken));
  if (killed_[handover.to]) return AfterSuccessorsDeath(handover);
  In(handover.to, [&] { close(handover.sockets[1]); });
  if (killed_[handover.from]) return AfterDeath(handover);
  In(handover.from, [&] { close(handover.sockets[0]); });
  ExpectOutcome(handover);
  if (handover.manner != Manner::kPlain) return std::exchange(next_retirer_, nullptr)->Stop();
  EndPredecessor(handover);
}

void World::ExpectOutcome(const Handover& handover) const {
  const auto expect = [&](NTSTATUS status, NTSTATUS expected, const char* which) {
    if (status != expected) Fail("%s of a handover: %s", which, KmclStatusName(status));
  };
  switch (handover.manner) {
    case Manner::kSaveFails:
      expect(handover.given, STATUS_DEVICE_BUSY, "the old end");
      return expect(handover.taken, STATUS_CONNECTION_DISCONNECTED, "the new end");
    case Manner::kRestoreFails:
      expect(handover.given, STATUS_CONNECTION_DISCONNECTED, "the old end");
      return expect(handover.taken, STATUS_DEVICE_BUSY, "the new end");
    case Manner::kPlain:
    case Manner::kOldDies:
    case Manner::kNewDies:
      expect(handover.given, STATUS_SUCCESS, "the old end");
      return expect(handover.taken, STATUS_SUCCESS, "the new end");
  }
}

void World::EndPredecessor(Handover& handover) {
  ++model_.handovers;
  for (Guest* const guest : handover.successors) {
    for (const auto& end : guest->ends) end->offered = true;
  }
  Await(
      [&] {
        return std::ranges::all_of(handover.guests,
                                   [](const Guest* each) { return each->cleaned; });
      },
      "the end of the partitions that were handed over");
  In(handover.from, [&] {
    const InLibrary library;
    handover.partitions.clear();
    KmclServerDestroy(handover.before);
  });
  past_retirers_.back()->Stop();
}

}  // namespace kmcl::sim
