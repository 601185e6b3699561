// The threads that use the channels, as the plan says.
#include <utility>

#include "corruption.h"
#include "faults.h"
#include "strangers.h"
#include "world_calls.h"

namespace kmcl::sim {

std::uint32_t World::ProcessOf(std::uint32_t actor) const {
  if (actor == kWorldActor) return kWorldProcess;
  return actor / 2 == 0 ? server_process_ : clients_[actor / 2 - 1]->process;
}

End* World::Take(const Action& action) {
  End* end = nullptr;
  if (action.actor / 2 == 0) {
    std::vector<End*> present;
    for (const auto& guest : guests_) {
      if (guest->gone || guest->server_process != server_process_) continue;
      for (const auto& each : guest->ends) present.push_back(each.get());
    }
    if (!present.empty()) end = present[Choices().Next() % present.size()];
  } else {
    Client& client = *clients_[action.actor / 2 - 1];
    if (!client.busy && action.channel < client.ends.size()) {
      end = client.ends[action.channel].get();
    }
  }
  if (end == nullptr || end->gone || end->taken_whole || !end->offered) return nullptr;
  ++end->users;
  return end;
}

void World::GiveBack(End& end) {
  --end.users;
  Changed();
}

void World::Do(const Action& action) {
  Note("action of actor %llu: verb %llu, %llu", action.actor,
       static_cast<std::uint64_t>(action.verb), action.amount);
  switch (action.verb) {
    case Verb::kSleep:
      return Sleep(action.amount);
    case Verb::kRefuse:
      return Refuse(static_cast<FaultKind>(action.channel), action.amount / 8, action.amount % 8);
    case Verb::kDie:
      return KillAndRestart(action.channel);
    case Verb::kCorrupt:
      return CorruptMemory(clients_[action.channel]->process, action.amount);
    case Verb::kForge:
      return ForgeMessages(clients_[action.channel]->process, action.amount);
    case Verb::kKnock:
      for (std::uint32_t i = 0; i < action.amount; ++i) {
        In(kStrangerProcess, [this] { Knock(address_.c_str() + address_.find('/')); });
      }
      return;
    case Verb::kHandOver:
      return HandOver(action.amount);
    case Verb::kReconnect: {
      Client& client = *clients_[action.actor / 2 - 1];
      Disconnect(client);
      return Connect(client);
    }
    default:
      break;
  }
  if (End* const end = Take(action)) {
    DoWith(action, *end);
    GiveBack(*end);
  }
}

void World::DoWith(const Action& action, End& end) {
  switch (action.verb) {
    case Verb::kSend:
      return end.Send(action.amount);
    case Verb::kSync:
      (void)end.Request({.timeout_us = action.amount});
      return;
    case Verb::kNow:
      (void)end.Request({.wants_completion = !end.server && Choices().OneIn(2)});
      return;
    case Verb::kBatch:
      return end.SendBatch(action.amount);
    case Verb::kShare:
      return end.UseShare(action.amount);
    case Verb::kAsk:
      return end.Ask();
    case Verb::kLatency:
      return end.SetLatency(action.amount);
    case Verb::kBudget:
      return end.SetBudget(action.amount);
    case Verb::kSpoil:
      return Spoil(end, action.amount);
    case Verb::kSettle:
      // Not for ever: a peer may pause, or have a quota.
      (void)WaitUntil([&] { return end.IsSettled() || end.gone; }, NowNs() + 5'000'000, "settling");
      return;
    case Verb::kPause:
      // One thread at a time changes a channel's state: who pauses while another one starts it
      // would wait for what does not come.
      if (std::exchange(end.state_taken, true)) return;
      end.Pause();
      Sleep(action.amount);
      end.Start();
      end.state_taken = false;
      return;
    case Verb::kReopen:
      return ReopenAll(end);
    case Verb::kSave: {
      if (!end.server || end.is_raw() || std::exchange(end.state_taken, true)) return;
      // Nobody disables a sub-channel's primary meanwhile.
      if (End* const primary = end.primary(); primary == nullptr) {
        end.Save(action.amount % 2 != 0 && end.subchannels().empty());
      } else if (!std::exchange(primary->state_taken, true)) {
        end.Save(false);
        primary->state_taken = false;
      }
      end.state_taken = false;
      return;
    }
    case Verb::kQuota:
      return end.SetQuota(action.amount);
    case Verb::kPassive:
      return end.SetPassive(action.amount != 0);
    default:
      return;
  }
}

void World::Reopen(End& end) {
  if (std::exchange(end.state_taken, true)) return;
  end.Disable();
  const NTSTATUS status =
      end.gone ? STATUS_NO_SUCH_DEVICE : Insist([&] { return end.Enable(); }, nullptr);
  // A partition may have gone, or a server; or a sub-channel's primary is disabled.
  const bool no_primary = end.is_subchannel() && status == STATUS_INVALID_DEVICE_STATE;
  if (status != STATUS_NO_SUCH_DEVICE && !no_primary) {
    Expect(status, "a channel is enabled again");
    end.Start();
  }
  end.state_taken = false;
}

void World::ReopenAll(End& end) {
  Reopen(end);
  // They were disabled, or closed, with it.
  for (End* const sub : std::vector<End*>(end.subchannels())) {
    if (sub->gone || sub->taken_whole || !sub->offered) continue;
    ++sub->users;
    Reopen(*sub);
    GiveBack(*sub);
  }
}

void World::Spoil(End& end, std::uint32_t us) {
  if (end.hostile || end.is_raw()) return;
  end.spoils = true;
  (void)WaitUntil([&] { return !end.spoils || end.gone; }, NowNs() + us * std::int64_t{1000},
                  "a packet that is found malformed");
  end.spoils = false;
  // Nothing comes any more, until it is opened again.
  while (end.is_spoilt() && !end.gone) {
    ReopenAll(end);
    // Whoever wants it for himself comes first.
    GiveBack(end);
    Sleep(1);
    (void)WaitUntil([&] { return !end.taken_whole || end.gone; }, kNever, "a channel's next user");
    ++end.users;
  }
}

void* World::RunActor(void* argument) {
  const InTest test;
  Actor& actor = *static_cast<Actor*>(argument);
  World& world = *actor.world;
  for (; actor.next < world.plan_.actions.size(); ++actor.next) {
    const Action& action = world.plan_.actions[actor.next];
    if (action.actor != actor.number) continue;
    if (actor.process != world.ProcessOf(actor.number) && actor.number / 2 == 0) {
      // The server is in another process now, and so is what is left to do.
      world.SpawnActor(actor.number, actor.next);
      break;
    }
    world.Do(action);
  }
  actor.done = true;
  Changed();
  return nullptr;
}

void World::SpawnActor(std::uint32_t number, std::size_t next) {
  auto actor = std::make_unique<Actor>();
  actor->world = this;
  actor->number = number;
  actor->next = next;
  actor->process = ProcessOf(number);
  actors_.push_back(std::move(actor));
  SpawnFiber(RunActor, actors_.back().get(), actors_.back()->process)->detached = true;
}

}  // namespace kmcl::sim
