// Processes that die wherever they are, and come back.
#include <algorithm>
#include <utility>

#include "kernel.h"
#include "memory.h"
#include "world_calls.h"

namespace kmcl::sim {

void World::Kill(std::uint32_t process) {
  // What in truth each process has for itself is one for all here: who dies holds nothing of it.
  while (HoldsLocks(process, IsKept)) Yield();
  Note("process %llu dies", process);
  killed_[process] = true;
  KillProcess(process);
  for (const auto& ends : {model_.ends, model_.successors}) {
    for (End* const end : ends) {
      if (end->process == process) end->dead = end->gone = true;
    }
  }
  for (const auto& actor : actors_) {
    if (actor->process == process) actor->done = true;
  }
  const InTest test;
  CloseAllOf(process);
  ForgetMappings(process);
  Changed();
}

void World::AwaitReportOfDeath(std::uint32_t process, std::int64_t killed_ns) {
  const auto reported = [&] {
    return std::all_of(guests_.begin(), guests_.end(), [&](const auto& guest) {
      return guest->process != process || guest->gone || killed_[guest->server_process];
    });
  };
  if (!WaitUntil(reported, killed_ns + kReportNs, "the report of a death")) {
    Fail("a client's death is not reported after 100 ms:\n%s", DescribeFibers().c_str());
  }
}

std::vector<End*> World::ClientsEnds() const {
  std::vector<End*> ends;
  for (const auto& client : clients_) {
    for (const auto& end : client->ends) {
      if (!end->dead && !end->hostile) ends.push_back(end.get());
    }
  }
  return ends;
}

void World::ReplaceDeadServer(const std::vector<End*>& open, std::int64_t killed_ns) {
  const auto reported = [&] {
    return std::ranges::all_of(
        open, [](const End* each) { return each->dead || each->gone || !each->is_up(); });
  };
  if (!WaitUntil(reported, killed_ns + kReportNs, "the report of a server's death")) {
    Fail("the server's death is not reported after 100 ms:\n%s", DescribeFibers().c_str());
  }
  server_process_ = next_process_++;
  StartServer();
}

void World::KillAndRestart(std::uint32_t number) {
  if (number == 0) {
    const std::int64_t killed_ns = NowNs();
    const std::vector<End*> open = ClientsEnds();
    Kill(server_process_);
    return ReplaceDeadServer(open, killed_ns);
  }
  Client& client = *clients_[number - 1];
  const std::uint32_t process = client.process;
  const std::int64_t killed_ns = NowNs();
  Kill(process);
  AwaitReportOfDeath(process, killed_ns);
  for (auto& end : client.ends) past_ends_.push_back(std::move(end));
  client.ends.clear();
  client.busy = false;
  client.process = next_process_++;
  StartClient(client);
}

}  // namespace kmcl::sim
