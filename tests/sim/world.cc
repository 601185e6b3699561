// A run from its beginning to its end, and the server in it.
#include "world.h"

#include <algorithm>
#include <utility>

#include "corruption.h"
#include "faults.h"
#include "strangers.h"
#include "world_calls.h"

namespace kmcl::sim {

World::World(const Plan& plan)
    : plan_(plan), model_(plan_), address_(plan.local ? "local:sim" : "unix:/run/sim") {}

std::string World::Describe() const {
  std::string text;
  for (const auto& ends : {model_.ends, model_.successors}) {
    for (const End* const end : ends) {
      if (!end->gone && !end->dead) text += "  " + end->Describe() + "\n";
    }
  }
  return text;
}

// ---- The server.

KMCL_ENDPOINT_OPTIONS World::ServerOptions() {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.DispatchThreads = plan_.dispatch_threads;
  options.SpinMicroseconds = plan_.spin_us;
  options.Context = this;
  options.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
    auto& world = *static_cast<World*>(context);
    const InTest test;
    world.server_ = server;  // it may be told before KmclServerCreate has returned
    world.OnArrived(partition);
  };
  options.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) {
    const InTest test;
    static_cast<World*>(context)->OnGone(partition);
  };
  return options;
}

void World::StartServer() {
  const KMCL_ENDPOINT_OPTIONS options = ServerOptions();
  if (retirer_ != nullptr) past_retirers_.push_back(std::move(retirer_));
  retirer_ = std::make_unique<Retirer>(server_process_);
  In(server_process_, [&] {
    const InLibrary library;
    Expect(KmclServerCreate(address_.c_str(), &options, &server_), "the server");
  });
}

void World::OnArrived(HANDLE partition) {
  if (Current().locks_held != 0) Fail("an arrival is told under a lock");
  auto guest = std::make_unique<Guest>();
  guest->partition = partition;
  guest->server_process = Current().process;
  KMCL_PARTITION_INFORMATION information;
  {
    const InLibrary library;
    Expect(KmclPartitionQuery(partition, &information), "a partition is queried");
  }
  guest->process = information.ProcessId - 1000;  // over a socket only
  Note("partition %llu has arrived, of process %llu", information.Number, guest->process);
  Guest& kept = *guest;
  guests_.push_back(std::move(guest));
  // All of them before the first is there for others: a primary with a sub-channel to come is not
  // to be succeeded, as the sub-channel would be that of the one that ends.
  for (std::uint32_t index = 0; index < plan_.channels + plan_.subchannels; ++index) {
    End* const primary = index < plan_.channels ? nullptr : kept.ends.front().get();
    auto end = std::make_unique<End>(model_, *retirer_, server_process_, index, true, primary);
    end->hostile = !plan_.local && model_.hostile[kept.process % kMostProcesses];
    end->peer_process = kept.process;
    kept.ends.push_back(std::move(end));
  }
  for (const auto& end : kept.ends) {
    Insist([&] { return end->Allocate(KmclServerDeviceObject(server_), partition); },
           "a server's channel");
    const NTSTATUS status = Insist([&] { return end->Enable(); }, nullptr);
    if (status == STATUS_NO_SUCH_DEVICE) continue;  // the client has gone already
    // A primary may be disabled by somebody else already.
    if (!end->is_subchannel() || status != STATUS_INVALID_DEVICE_STATE) Expect(status, "an offer");
    end->Start();
    end->offered = true;
  }
}

void World::OnGone(HANDLE partition) {
  Note("a partition has gone");
  const auto found = std::find_if(guests_.begin(), guests_.end(), [&](const auto& guest) {
    return guest->partition == partition && !guest->gone &&
           guest->server_process == Current().process;
  });
  if (found == guests_.end()) Fail("a partition has gone that was not there");
  Guest& guest = **found;
  guest.gone = true;
  Changed();
  CleanUp(guest);
}

void World::CleanUp(Guest& guest) {
  for (const auto& end : guest.ends) end->gone = true;
  EndAll(guest.ends, "the last user of a channel");
  guest.cleaned = true;
  Changed();
}

// Sub-channels go before their primary, whatever was disabled first.
void World::EndAll(const std::vector<std::unique_ptr<End>>& ends, const char* what) {
  const bool backwards = Choices().OneIn(2);
  for (std::size_t i = 0; i < ends.size(); ++i) {
    End& end = *ends[backwards ? ends.size() - 1 - i : i];
    Await([&] { return end.users == 0; }, what);
    end.Disable();
  }
  for (std::size_t i = ends.size(); i-- > 0;) ends[i]->Cleanup();
}

void World::StopServer() {
  Await(
      [&] {
        return std::all_of(guests_.begin(), guests_.end(), [&](const auto& guest) {
          return guest->cleaned || killed_[guest->server_process];
        });
      },
      "the end of all partitions");
  In(server_process_, [&] {
    const InLibrary library;
    KmclServerDestroy(server_);
  });
  server_ = nullptr;
  retirer_->Stop();
}

// ---- A run.

void World::Run() {
  for (std::uint32_t process = 1; process < kMostProcesses; ++process) {
    model_.hostile[process] = process == plan_.hostile_client || process == kStrangerProcess;
  }
  StartServer();
  for (std::uint32_t i = 1; i <= plan_.clients; ++i) {
    auto client = std::make_unique<Client>();
    client->number = client->process = i;
    clients_.push_back(std::move(client));
    StartClient(*clients_.back());
  }
  for (std::uint32_t number = 0; number < 2 * (plan_.clients + 1); ++number) SpawnActor(number);
  SpawnActor(kWorldActor);
  const auto done = [&] {
    return std::all_of(actors_.begin(), actors_.end(), [&](const auto& actor) {
      return actor->done || model_.hostile[actor->process];
    });
  };
  Await(done, "the end of all threads");
  NoFaults();
  // Whoever wrote where it must not does not end by itself.
  if (plan_.hostile_client != 0 && !killed_[plan_.hostile_client]) {
    StopCorruption();
    KillAndRestart(plan_.hostile_client);
  }
  In(server_process_, [&] {
    for (const auto& guest : guests_) {
      for (const auto& end : guest->ends) {
        if (guest->gone || end->gone || !end->offered) continue;
        ++end->users;
        end->SetQuota(0xFFFFFFFF);
        if (end->is_subchannel() || end->is_spoilt()) Reopen(*end);
        GiveBack(*end);
      }
    }
  });
  for (const auto& client : clients_) In(client->process, [&] { ProveAlive(*client); });
  for (const auto& client : clients_) {
    In(client->process, [&] { Disconnect(*client); });
    client->retirer->Stop();
  }
  StopServer();
}

}  // namespace kmcl::sim
