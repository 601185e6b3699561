// Clients: they come, prove that they are alive, and leave.
#include <utility>

#include "world_calls.h"

namespace kmcl::sim {

void World::StartClient(Client& client) {
  if (client.retirer != nullptr) past_retirers_.push_back(std::move(client.retirer));
  client.retirer = std::make_unique<Retirer>(client.process);
  In(client.process, [&] { Connect(client); });
}

void World::Connect(Client& client) {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.DispatchThreads = plan_.dispatch_threads;
  options.SpinMicroseconds = plan_.spin_us;
  for (int tries = 1;; ++tries) {
    NTSTATUS status = STATUS_SUCCESS;
    {
      const InLibrary library;
      status = KmclClientConnect(address_.c_str(), &options, &client.handle);
    }
    if (status == STATUS_SUCCESS) break;
    Note("cannot connect: %#llx", static_cast<std::uint32_t>(status));
    // A server that has died is started again.
    const bool may_be = status == STATUS_OBJECT_NAME_NOT_FOUND ||
                        status == STATUS_CONNECTION_DISCONNECTED ||
                        (plan_.refusals && status == STATUS_INSUFFICIENT_RESOURCES);
    if (!may_be || tries > 50) Expect(status, "a client connects");
    Sleep(1000);
  }
  for (std::uint32_t index = 0; index < plan_.channels + plan_.subchannels; ++index) {
    End* const primary = index < plan_.channels ? nullptr : client.ends.front().get();
    auto end =
        std::make_unique<End>(model_, *client.retirer, client.process, index, false, primary);
    End& made = *end;
    made.hostile = model_.hostile[client.process];
    client.ends.push_back(std::move(end));
    Insist([&] { return made.Allocate(KmclClientDeviceObject(client.handle), nullptr); },
           "a client's channel");
    const NTSTATUS status = Insist([&] { return made.Enable(); }, nullptr);
    const bool may_be = status == STATUS_NO_SUCH_DEVICE ||
                        (primary != nullptr && status == STATUS_INVALID_DEVICE_STATE);
    if (!may_be) Expect(status, "a client's channel is enabled");
    made.offered = true;
  }
}

void World::Disconnect(Client& client) {
  client.busy = true;
  for (const auto& end : client.ends) end->gone = true;
  EndAll(client.ends, "the last user of a client's channel");
  {
    const InLibrary library;
    KmclClientDestroy(client.handle);
  }
  for (auto& end : client.ends) past_ends_.push_back(std::move(end));
  client.ends.clear();
  client.handle = nullptr;
  client.busy = false;
}

void World::Settle(Client& client) {
  for (const auto& end : client.ends) {
    Await([&] { return end->IsSettled() || !end->is_up(); }, "the last packets of a client");
  }
}

bool World::IsConnected(const Client& client) {
  const InLibrary library;
  return KmclClientIsConnected(client.handle) != 0;
}

void World::ProveAlive(Client& client) {
  for (int tries = 0; tries < 10; ++tries) {
    if (!IsConnected(client)) {
      Disconnect(client);
      Connect(client);
    }
    if (TryAll(client)) return;
  }
  Fail("a client has no connection any more");
}

bool World::TryAll(Client& client) {
  for (const auto& end : client.ends) {
    if (!end->is_open()) {
      // It may be on its way, or closed by the server, or never have been enabled again.
      (void)WaitUntil([&] { return end->is_up() || end->has_failed(); }, NowNs() + 20'000'000,
                      "a channel that may open");
    }
    for (int tries = 0; !end->is_up() && tries < 20; ++tries) {
      end->Disable();
      const NTSTATUS status = end->Enable();
      if (status == STATUS_NO_SUCH_DEVICE) return false;  // the server has died
      // Its primary was closed by the server, after it has been tried here.
      if (end->is_subchannel() && status == STATUS_INVALID_DEVICE_STATE) return false;
      Expect(status, "a channel is enabled again");
      end->Start();
      (void)WaitUntil([&] { return end->is_up() || end->has_failed(); }, NowNs() + 2'000'000'000,
                      "a channel that shall open");
      if (!IsConnected(client)) return false;  // it was enabled just before the server died
    }
    if (!end->is_up()) Fail("a channel does not open any more: %s", end->Describe().c_str());
    end->SetQuota(0xFFFFFFFF);
    end->Send(3);
    (void)end->Request({.timeout_us = kPatienceNs / 1000});
  }
  Settle(client);
  return true;
}

}  // namespace kmcl::sim
