// A server, its clients, and the threads that use them as the plan says. Each has a process of its
// own, which may die between any two of its steps, and come back as another one.
#pragma once

#include <bitset>
#include <memory>
#include <string>
#include <vector>

#include "end.h"
#include "plan.h"

namespace kmcl::sim {

class World {
 public:
  explicit World(const Plan& plan);
  // Everything, from the first call to the last; fails the run when something is wrong.
  void Run();
  std::string Describe() const;
  const Model& model() const { return model_; }
  bool WasKilled(std::uint32_t process) const { return killed_[process]; }

 private:
  // A partition as the server's program knows it.
  struct Guest {
    HANDLE partition = nullptr;
    std::uint32_t process = 0;         // of its client
    std::uint32_t server_process = 0;  // that serves it
    std::vector<std::unique_ptr<End>> ends;
    bool gone = false;
    bool cleaned = false;
  };
  struct Client {
    std::uint32_t number = 0;  // from 1, whatever its process is now
    std::uint32_t process = 0;
    KMCL_CLIENT handle = nullptr;
    std::vector<std::unique_ptr<End>> ends;
    std::unique_ptr<Retirer> retirer;
    bool busy = false;  // it comes or goes
  };
  struct Actor {
    World* world;
    std::uint32_t number;
    std::uint32_t process;
    std::size_t next = 0;  // of the plan's actions
    bool done = false;
  };

  static void* RunActor(void* actor);
  void SpawnActor(std::uint32_t number, std::size_t next = 0);
  void Do(const Action& action);
  void DoWith(const Action& action, End& end);
  // The end that the action means, for as long as the thread uses it; nullptr: there is none.
  End* Take(const Action& action);
  void GiveBack(End& end);
  std::uint32_t ProcessOf(std::uint32_t actor) const;

  // Runs a function in a thread of the process, and waits for its end, or the process's.
  template <typename Function>
  void In(std::uint32_t process, Function function);

  // Asks again while the system refuses; `what` has to succeed, if it is named.
  template <typename Call>
  NTSTATUS Insist(Call call, const char* what);

  KMCL_ENDPOINT_OPTIONS ServerOptions();
  void StartServer();
  void StopServer();
  void OnArrived(HANDLE partition);
  void OnGone(HANDLE partition);
  void CleanUp(Guest& guest);
  void EndAll(const std::vector<std::unique_ptr<End>>& ends, const char* what);
  // Unless another thread is at it.
  void Reopen(End& end);
  void ReopenAll(End& end);  // its sub-channels, too
  void Spoil(End& end, std::uint32_t us);

  void StartClient(Client& client);
  void Connect(Client& client);
  void Disconnect(Client& client);
  // Everything is open again, and carries packets both ways.
  static bool IsConnected(const Client& client);
  void ProveAlive(Client& client);
  bool TryAll(Client& client);
  void Settle(Client& client);

  // The server goes on in another process, or, if that is to fail, where it is.
  enum class Manner : std::uint8_t { kPlain, kSaveFails, kRestoreFails, kOldDies, kNewDies };
  struct Handover;
  void HandOver(std::uint32_t manner);
  // Both sides have ended, or died.
  void ExpectOutcome(const Handover& handover) const;
  void AfterDeath(Handover& handover);
  void TakeBack(Handover& handover);
  void AfterSuccessorsDeath(Handover& handover);
  void EndPredecessor(Handover& handover);
  bool ConnectProcesses(Handover& handover);
  void GiveAway(Handover& handover);
  NTSTATUS SaveAll(Handover& handover);
  void PutHandlesBack(Handover& handover);
  void ResumeAll(Handover& handover);
  void TakeAway(Handover& handover);
  NTSTATUS RestoreAll(Handover& handover, KMCL_SERVER server, const std::byte* state,
                      std::size_t bytes);

  // The process dies now, wherever its threads are.
  void Kill(std::uint32_t process);
  void KillAndRestart(std::uint32_t number);
  std::vector<End*> ClientsEnds() const;
  // What was open is reported to be over, and a new server is there.
  void ReplaceDeadServer(const std::vector<End*>& open, std::int64_t killed_ns);
  void AwaitReportOfDeath(std::uint32_t process, std::int64_t killed_ns);

  const Plan plan_;
  Model model_;
  const std::string address_;
  std::bitset<kMostProcesses> killed_;
  std::uint32_t next_process_ = 8;
  std::uint32_t server_process_ = 0;
  KMCL_SERVER server_ = nullptr;
  std::unique_ptr<Retirer> retirer_;
  std::unique_ptr<Retirer> next_retirer_;  // of the process that takes over
  std::vector<std::unique_ptr<Guest>> guests_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::unique_ptr<End>> past_ends_;
  std::vector<std::unique_ptr<Retirer>> past_retirers_;
  std::vector<std::unique_ptr<Actor>> actors_;
};

}  // namespace kmcl::sim
