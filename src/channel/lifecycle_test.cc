#include "channel/lifecycle.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <set>
#include <string>
#include <utility>

namespace kmcl::channel {
namespace {

using Phase = Lifecycle::Phase;
using Step = Lifecycle::Step;

constexpr auto kAllPhases = std::to_array<std::pair<Phase, const char*>>({
    {Phase::kDisabled, "Disabled"},
    {Phase::kEnabled, "Enabled"},
    {Phase::kOpening, "Opening"},
    {Phase::kAccepting, "Accepting"},
    {Phase::kRejecting, "Rejecting"},
    {Phase::kPaused, "Paused"},
    {Phase::kStarting, "Starting"},
    {Phase::kPostStarting, "PostStarting"},
    {Phase::kActive, "Active"},
    {Phase::kSuspending, "Suspending"},
    {Phase::kPauseDraining, "PauseDraining"},
    {Phase::kCancelling, "Cancelling"},
    {Phase::kCloseDraining, "CloseDraining"},
    {Phase::kSayingClose, "SayingClose"},
    {Phase::kClosing, "Closing"},
    {Phase::kDetaching, "Detaching"},
    {Phase::kFailing, "Failing"},
    {Phase::kLeaving, "Leaving"},
});

std::string NameOf(Phase phase) {
  for (const auto& [each, name] : kAllPhases) {
    if (each == phase) return name;
  }
  return "?";
}

// One letter for a step: Opened, Accept, Reject, Started, Post-started, sUspend, Cancel, saY close,
// closed (X), Detach, Fail, Leave.
char Letter(Step step) {
  switch (step) {
    case Step::kNone:
      return '-';
    case Step::kOpened:
      return 'O';
    case Step::kAccept:
      return 'A';
    case Step::kReject:
      return 'R';
    case Step::kStarted:
      return 'S';
    case Step::kPostStarted:
      return 'P';
    case Step::kSuspend:
      return 'U';
    case Step::kCancel:
      return 'C';
    case Step::kSayClose:
      return 'Y';
    case Step::kClosed:
      return 'X';
    case Step::kDetach:
      return 'D';
    case Step::kFail:
      return 'F';
    case Step::kLeave:
      return 'L';
  }
  return '?';
}

Step Next(Lifecycle& lifecycle, bool drained = true) {
  return lifecycle.Next([drained] { return drained; });
}

// Carries out every step until there is none; the steps, and the phase it ends in.
std::string RunAll(Lifecycle& lifecycle) {
  std::string steps;
  for (Step step = Next(lifecycle); step != Step::kNone; step = Next(lifecycle)) {
    steps += Letter(step);
    if (steps.size() > 50) return steps + " without end";
    lifecycle.Done();
  }
  return steps + " " + NameOf(lifecycle.phase());
}

// A channel in `phase`, on the straight way there; nothing else is wished for. False if that side
// never is in that phase.
bool Reach(Lifecycle& lifecycle, Phase phase) {
  if (lifecycle.phase() == phase) return true;
  lifecycle.OnEnable();
  if (lifecycle.phase() == phase) return true;
  if (phase == Phase::kFailing) {
    if (lifecycle.side() == Side::kServer) return false;
    lifecycle.OnFailure();
    Next(lifecycle);
    return lifecycle.phase() == phase;
  }
  if (phase == Phase::kLeaving) {
    lifecycle.OnDisable();
    Next(lifecycle);
    return lifecycle.phase() == phase;
  }
  lifecycle.OnPause();
  lifecycle.OnOpen();
  Next(lifecycle);
  if (lifecycle.phase() == phase) return true;
  if (phase == Phase::kRejecting) {
    lifecycle.Done(false);
    return lifecycle.phase() == phase;
  }
  for (int done = 0; done < 2; ++done) {
    lifecycle.Done();
    if (lifecycle.phase() == phase) return true;  // kAccepting, kPaused
  }
  const std::set<Phase> running = {Phase::kStarting, Phase::kPostStarting, Phase::kActive,
                                   Phase::kSuspending, Phase::kPauseDraining};
  if (running.contains(phase)) {
    lifecycle.OnStart();
  } else {
    lifecycle.OnClose();
  }
  Next(lifecycle);
  for (int done = 0; done < 10 && lifecycle.phase() != phase; ++done) {
    if (lifecycle.phase() == Phase::kActive) lifecycle.OnPause();
    if (Next(lifecycle) != Step::kNone && lifecycle.phase() != phase) lifecycle.Done();
  }
  return lifecycle.phase() == phase;
}

// What follows each event in each phase when every step succeeds and every drain ends. In the
// columns: no event, then the events of kEvents. Some pairs do not come about, because the bus asks
// may_open() first, or because only a client's connect can fail; they must be harmless all the
// same.
using Event = void (Lifecycle::*)();
constexpr auto kEvents = std::to_array<Event>({
    &Lifecycle::OnDisable,
    &Lifecycle::OnStart,
    &Lifecycle::OnPause,
    &Lifecycle::OnOpen,
    &Lifecycle::OnClose,
    &Lifecycle::OnFailure,
});

struct Row {
  Side side;
  Phase phase;
  std::array<const char*, kEvents.size() + 1> outcomes;
};

using S = Side;
using P = Phase;
const auto kTable = std::to_array<Row>({
    {S::kServer,
     P::kDisabled,
     {" Disabled", " Disabled", " Disabled", " Disabled", " Disabled", " Disabled", " Disabled"}},
    {S::kServer,
     P::kEnabled,
     {" Enabled", "L Disabled", " Enabled", " Enabled", "OA Paused", " Enabled", "FL Disabled"}},
    {S::kServer,
     P::kOpening,
     {"OA Paused", "OACXDL Disabled", "OASP Active", "OA Paused", "OA Paused", "OACXD Enabled",
      "OA Paused"}},
    {S::kServer,
     P::kAccepting,
     {"A Paused", "ACXDL Disabled", "ASP Active", "A Paused", "A Paused", "ACXD Enabled",
      "A Paused"}},
    {S::kServer,
     P::kRejecting,
     {"R Enabled", "RL Disabled", "R Enabled", "R Enabled", "ROA Paused", "R Enabled",
      "RFL Disabled"}},
    {S::kServer,
     P::kPaused,
     {" Paused", "CXDL Disabled", "SP Active", " Paused", " Paused", "CXD Enabled", " Paused"}},
    {S::kServer,
     P::kStarting,
     {"SP Active", "SUCXDL Disabled", "SP Active", "SPU Paused", "SP Active", "SUCXD Enabled",
      "SP Active"}},
    {S::kServer,
     P::kPostStarting,
     {"P Active", "PUCXDL Disabled", "P Active", "PU Paused", "P Active", "PUCXD Enabled",
      "P Active"}},
    {S::kServer,
     P::kActive,
     {" Active", "UCXDL Disabled", " Active", "U Paused", " Active", "UCXD Enabled", " Active"}},
    {S::kServer,
     P::kSuspending,
     {"U Paused", "UCXDL Disabled", "USP Active", "U Paused", "U Paused", "UCXD Enabled",
      "U Paused"}},
    {S::kServer,
     P::kPauseDraining,
     {" Paused", "CXDL Disabled", "SP Active", " Paused", " Paused", "CXD Enabled", " Paused"}},
    {S::kServer,
     P::kCancelling,
     {"CXD Enabled", "CXDL Disabled", "CXD Enabled", "CXD Enabled", "CXDOA Paused", "CXD Enabled",
      "CXDFL Disabled"}},
    {S::kServer,
     P::kCloseDraining,
     {"XD Enabled", "XDL Disabled", "XD Enabled", "XD Enabled", "XDOA Paused", "XD Enabled",
      "XDFL Disabled"}},
    {S::kServer,
     P::kClosing,
     {"XD Enabled", "XDL Disabled", "XD Enabled", "XD Enabled", "XDOA Paused", "XD Enabled",
      "XDFL Disabled"}},
    {S::kServer,
     P::kDetaching,
     {"D Enabled", "DL Disabled", "D Enabled", "D Enabled", "DOA Paused", "D Enabled",
      "DFL Disabled"}},
    {S::kServer,
     P::kLeaving,
     {"L Disabled", "L Disabled", "L Disabled", "L Disabled", "L Disabled", "L Disabled",
      "L Disabled"}},
    {S::kClient,
     P::kDisabled,
     {" Disabled", " Disabled", " Disabled", " Disabled", " Disabled", " Disabled", " Disabled"}},
    {S::kClient,
     P::kEnabled,
     {" Enabled", "L Disabled", " Enabled", " Enabled", "OASP Active", " Enabled", "FL Disabled"}},
    {S::kClient,
     P::kOpening,
     {"OA Paused", "OACYXDL Disabled", "OASP Active", "OA Paused", "OA Paused", "OACYXDL Disabled",
      "OA Paused"}},
    {S::kClient,
     P::kAccepting,
     {"A Paused", "ACYXDL Disabled", "ASP Active", "A Paused", "A Paused", "ACYXDL Disabled",
      "A Paused"}},
    {S::kClient,
     P::kRejecting,
     {"RL Disabled", "RL Disabled", "RL Disabled", "RL Disabled", "RL Disabled", "RL Disabled",
      "RL Disabled"}},
    {S::kClient,
     P::kPaused,
     {" Paused", "CYXDL Disabled", "SP Active", " Paused", " Paused", "CYXDL Disabled", " Paused"}},
    {S::kClient,
     P::kStarting,
     {"SP Active", "SUCYXDL Disabled", "SP Active", "SPU Paused", "SP Active", "SUCYXDL Disabled",
      "SP Active"}},
    {S::kClient,
     P::kPostStarting,
     {"P Active", "PUCYXDL Disabled", "P Active", "PU Paused", "P Active", "PUCYXDL Disabled",
      "P Active"}},
    {S::kClient,
     P::kActive,
     {" Active", "UCYXDL Disabled", " Active", "U Paused", " Active", "UCYXDL Disabled",
      " Active"}},
    {S::kClient,
     P::kSuspending,
     {"U Paused", "UCYXDL Disabled", "USP Active", "U Paused", "U Paused", "UCYXDL Disabled",
      "U Paused"}},
    {S::kClient,
     P::kPauseDraining,
     {" Paused", "CYXDL Disabled", "SP Active", " Paused", " Paused", "CYXDL Disabled", " Paused"}},
    {S::kClient,
     P::kCancelling,
     {"CYXDL Disabled", "CYXDL Disabled", "CYXDL Disabled", "CYXDL Disabled", "CYXDL Disabled",
      "CYXDL Disabled", "CYXDL Disabled"}},
    {S::kClient,
     P::kCloseDraining,
     {"YXDL Disabled", "YXDL Disabled", "YXDL Disabled", "YXDL Disabled", "YXDL Disabled",
      "YXDL Disabled", "YXDL Disabled"}},
    {S::kClient,
     P::kSayingClose,
     {"YXDL Disabled", "YXDL Disabled", "YXDL Disabled", "YXDL Disabled", "YXDL Disabled",
      "YXDL Disabled", "YXDL Disabled"}},
    {S::kClient,
     P::kClosing,
     {"XDL Disabled", "XDL Disabled", "XDL Disabled", "XDL Disabled", "XDL Disabled",
      "XDL Disabled", "XDL Disabled"}},
    {S::kClient,
     P::kDetaching,
     {"DL Disabled", "DL Disabled", "DL Disabled", "DL Disabled", "DL Disabled", "DL Disabled",
      "DL Disabled"}},
    {S::kClient,
     P::kFailing,
     {"FL Disabled", "FL Disabled", "FL Disabled", "FL Disabled", "FL Disabled", "FL Disabled",
      "FL Disabled"}},
    {S::kClient,
     P::kLeaving,
     {"L Disabled", "L Disabled", "L Disabled", "L Disabled", "L Disabled", "L Disabled",
      "L Disabled"}},
});

TEST(LifecycleTest, EveryEventInEveryPhaseLeadsToWhatTheTableSays) {
  for (const Row& row : kTable) {
    for (std::size_t column = 0; column < row.outcomes.size(); ++column) {
      Lifecycle lifecycle(row.side);
      ASSERT_TRUE(Reach(lifecycle, row.phase)) << NameOf(row.phase);
      if (column > 0) (lifecycle.*kEvents[column - 1])();
      EXPECT_EQ(RunAll(lifecycle), row.outcomes[column])
          << (row.side == Side::kServer ? "server " : "client ") << NameOf(row.phase) << ", column "
          << column;
    }
  }
}

TEST(LifecycleTest, TheTableHasEveryPhaseThatASideCanBeIn) {
  std::set<std::pair<Side, Phase>> rows;
  for (const Row& row : kTable) {
    EXPECT_TRUE(rows.insert({row.side, row.phase}).second) << NameOf(row.phase);
  }
  for (const Side side : {Side::kServer, Side::kClient}) {
    for (const auto& [phase, name] : kAllPhases) {
      Lifecycle lifecycle(side);
      EXPECT_EQ(Reach(lifecycle, phase), rows.contains({side, phase})) << name;
    }
  }
  EXPECT_EQ(kAllPhases.size(), static_cast<std::size_t>(Phase::kLeaving) + 1);
  // All but what only a client does.
  EXPECT_EQ(rows.size(), 2 * kAllPhases.size() - 2);
}

TEST(LifecycleTest, AStepIsNamedUntilItIsDone) {
  for (const Row& row : kTable) {
    for (std::size_t event = 0; event < kEvents.size(); ++event) {
      Lifecycle lifecycle(row.side);
      ASSERT_TRUE(Reach(lifecycle, row.phase));
      const Step step = Next(lifecycle);
      (lifecycle.*kEvents[event])();
      if (step != Step::kNone) {
        EXPECT_EQ(Next(lifecycle), step) << NameOf(row.phase);
      }
    }
  }
}

TEST(LifecycleTest, DoneWithoutAStepChangesNothing) {
  for (const Phase phase : {Phase::kDisabled, Phase::kEnabled, Phase::kPaused, Phase::kActive,
                            Phase::kPauseDraining, Phase::kCloseDraining}) {
    for (const Side side : {Side::kServer, Side::kClient}) {
      Lifecycle lifecycle(side);
      ASSERT_TRUE(Reach(lifecycle, phase));
      lifecycle.Done();
      EXPECT_EQ(lifecycle.phase(), phase) << NameOf(phase);
    }
  }
}

TEST(LifecycleTest, ARefusedOpenLeavesTheOfferStandingAtTheServerOnly) {
  Lifecycle server(Side::kServer);
  ASSERT_TRUE(Reach(server, Phase::kOpening));
  server.Done(false);
  EXPECT_EQ(RunAll(server), "R Enabled");
  EXPECT_TRUE(server.may_open());

  Lifecycle client(Side::kClient);
  ASSERT_TRUE(Reach(client, Phase::kOpening));
  client.Done(false);
  EXPECT_EQ(RunAll(client), "RL Disabled");
}

TEST(LifecycleTest, AnOpenIsNotShownToTheOwnerWhenTheEndCameFirst) {
  for (const Side side : {Side::kServer, Side::kClient}) {
    Lifecycle closed(side);
    closed.OnEnable();
    closed.OnOpen();
    closed.OnClose();
    EXPECT_EQ(RunAll(closed), side == Side::kServer ? "R Enabled" : "RL Disabled");

    Lifecycle disabled(side);
    disabled.OnEnable();
    disabled.OnOpen();
    disabled.OnDisable();
    EXPECT_EQ(RunAll(disabled), "RL Disabled");
  }
}

TEST(LifecycleTest, NewsOfAnEarlierLifeDoesNotReachTheNext) {
  for (const Side side : {Side::kServer, Side::kClient}) {
    Lifecycle lifecycle(side);
    lifecycle.OnClose();
    lifecycle.OnFailure();
    lifecycle.OnEnable();
    lifecycle.OnOpen();
    lifecycle.OnStart();
    EXPECT_EQ(RunAll(lifecycle), "OASP Active");
  }
}

TEST(LifecycleTest, TheRunRequestIsKeptWhileDisabledAndResetOnTheWayThere) {
  Lifecycle server(Side::kServer);
  server.OnStart();  // pre-selected
  server.OnEnable();
  server.OnOpen();
  EXPECT_EQ(RunAll(server), "OASP Active");
  server.OnDisable();
  EXPECT_EQ(RunAll(server), "UCXDL Disabled");
  server.OnEnable();
  server.OnOpen();
  EXPECT_EQ(RunAll(server), "OA Paused");

  Lifecycle client(Side::kClient);
  client.OnPause();
  client.OnEnable();
  client.OnOpen();
  EXPECT_EQ(RunAll(client), "OA Paused");
  client.OnDisable();
  EXPECT_EQ(RunAll(client), "CYXDL Disabled");
  client.OnEnable();
  client.OnOpen();
  EXPECT_EQ(RunAll(client), "OASP Active");
}

TEST(LifecycleTest, AServersRunRequestSurvivesACloseByTheClient) {
  Lifecycle server(Side::kServer);
  server.OnStart();
  server.OnEnable();
  server.OnOpen();
  EXPECT_EQ(RunAll(server), "OASP Active");
  server.OnClose();
  EXPECT_EQ(RunAll(server), "UCXD Enabled");
  server.OnOpen();
  EXPECT_EQ(RunAll(server), "OASP Active");
}

TEST(LifecycleTest, UndoneEnablingLeavesTheChannelDisabled) {
  Lifecycle lifecycle(Side::kServer);
  lifecycle.OnStart();
  lifecycle.OnEnable();
  lifecycle.UndoEnable();
  EXPECT_EQ(lifecycle.phase(), Phase::kDisabled);
  EXPECT_EQ(lifecycle.times_disabled(), 0u);
  lifecycle.OnEnable();
  lifecycle.OnOpen();
  EXPECT_EQ(RunAll(lifecycle), "OASP Active");
}

TEST(LifecycleTest, UndoneEnablingEndsADisableThatCameMeanwhile) {
  Lifecycle lifecycle(Side::kServer);
  lifecycle.OnEnable();
  lifecycle.OnDisable();
  lifecycle.UndoEnable();
  EXPECT_EQ(lifecycle.phase(), Phase::kDisabled);
  EXPECT_EQ(lifecycle.times_disabled(), 1u);
  lifecycle.OnEnable();
  lifecycle.OnOpen();
  lifecycle.OnStart();
  EXPECT_EQ(RunAll(lifecycle), "OASP Active");
}

TEST(LifecycleTest, DrainsWaitUntilNothingIsOutstanding) {
  Lifecycle lifecycle(Side::kServer);
  ASSERT_TRUE(Reach(lifecycle, Phase::kActive));
  lifecycle.OnPause();
  EXPECT_EQ(Next(lifecycle, false), Step::kSuspend);
  lifecycle.Done();
  EXPECT_EQ(Next(lifecycle, false), Step::kNone);
  EXPECT_TRUE(lifecycle.running());
  lifecycle.OnStart();  // does not end the drain
  EXPECT_EQ(Next(lifecycle, false), Step::kNone);
  lifecycle.OnClose();  // outgoing packets are cancelled before the drain has ended
  EXPECT_EQ(Next(lifecycle, false), Step::kCancel);
  lifecycle.Done();
  EXPECT_EQ(Next(lifecycle, false), Step::kNone);
  EXPECT_TRUE(lifecycle.open());
  EXPECT_EQ(Next(lifecycle, true), Step::kClosed);
}

TEST(LifecycleTest, PostStartedIsSkippedWhenTeardownBeganBeforeTheQueueWasOn) {
  Lifecycle lifecycle(Side::kServer);
  ASSERT_TRUE(Reach(lifecycle, Phase::kStarting));
  lifecycle.OnClose();
  EXPECT_EQ(Next(lifecycle), Step::kStarted);
  lifecycle.Done();
  EXPECT_EQ(RunAll(lifecycle), "UCXD Enabled");
}

TEST(LifecycleTest, TheClientMayOpenAgainAsSoonAsItCanHaveHeardOfTheEnd) {
  Lifecycle server(Side::kServer);
  EXPECT_FALSE(server.may_open());
  ASSERT_TRUE(Reach(server, Phase::kDetaching));
  EXPECT_TRUE(server.may_open());
  server.OnOpen();
  EXPECT_FALSE(server.may_open());  // one at a time
  server.OnClose();                 // of that next open
  server.Done();
  EXPECT_EQ(RunAll(server), "R Enabled");

  ASSERT_TRUE(server.may_open());
  server.OnDisable();
  EXPECT_FALSE(server.may_open());
}

TEST(LifecycleTest, MayOpenRunningAndOpenHoldInTheirPhasesOnly) {
  const std::set<Phase> running = {Phase::kStarting, Phase::kPostStarting, Phase::kActive,
                                   Phase::kSuspending, Phase::kPauseDraining};
  const std::set<Phase> not_open = {Phase::kDisabled,  Phase::kEnabled, Phase::kRejecting,
                                    Phase::kDetaching, Phase::kFailing, Phase::kLeaving};
  for (const Row& row : kTable) {
    Lifecycle lifecycle(row.side);
    ASSERT_TRUE(Reach(lifecycle, row.phase));
    const std::string where = NameOf(row.phase);
    EXPECT_EQ(lifecycle.running(), running.contains(row.phase)) << where;
    EXPECT_EQ(lifecycle.open(), !not_open.contains(row.phase)) << where;
    const bool between = row.phase == Phase::kRejecting || row.phase == Phase::kDetaching;
    EXPECT_EQ(lifecycle.may_open(),
              row.phase == Phase::kEnabled || (row.side == Side::kServer && between))
        << where;
  }
}

// Holds a channel to the pairing rules of KMCL reference 4.5, step by step.
class PairingRules {
 public:
  void OnStep(Side side, Step step, bool success) {
    switch (step) {
      case Step::kOpened:
        EXPECT_FALSE(opened_) << "opened twice";
        opened_ = success;
        return;
      case Step::kStarted:
        EXPECT_TRUE(opened_ && !started_) << "started without an open, or twice";
        started_ = true;
        return;
      case Step::kPostStarted:
        EXPECT_TRUE(started_ && !queue_on_);
        queue_on_ = true;
        return;
      case Step::kSuspend:
        EXPECT_TRUE(started_) << "suspended without a start";
        started_ = queue_on_ = false;
        return;
      case Step::kCancel:
        EXPECT_TRUE(opened_ && !started_) << "cancelled before Suspend";
        cancelled_ = true;
        return;
      case Step::kSayClose:
        EXPECT_TRUE(side == Side::kClient && cancelled_ && !said_close_);
        said_close_ = true;
        return;
      case Step::kClosed:
        EXPECT_TRUE(opened_ && !started_ && cancelled_) << "closed out of order";
        EXPECT_EQ(said_close_, side == Side::kClient);
        opened_ = cancelled_ = said_close_ = false;
        attached_closed_ = true;
        return;
      case Step::kDetach:
        EXPECT_TRUE(attached_closed_) << "rings went before Closed";
        attached_closed_ = false;
        return;
      case Step::kReject:
      case Step::kFail:
      case Step::kLeave:
        EXPECT_FALSE(opened_ || started_ || attached_closed_) << Letter(step);
        return;
      case Step::kAccept:
        EXPECT_TRUE(opened_);
        return;
      case Step::kNone:
        return;
    }
  }
  bool at_rest() const { return !opened_ && !started_ && !attached_closed_; }

 private:
  bool opened_ = false;
  bool started_ = false;
  bool queue_on_ = false;
  bool cancelled_ = false;
  bool said_close_ = false;
  bool attached_closed_ = false;
};

TEST(LifecycleTest, WhateverIsWishedForCallbacksStayPairedAndDisableEnds) {
  constexpr int kRuns = 100'000;
  for (int run = 0; run < kRuns; ++run) {
    std::minstd_rand random(static_cast<unsigned>(run) + 1);
    const Side side = run % 2 == 0 ? Side::kServer : Side::kClient;
    Lifecycle lifecycle(side);
    PairingRules rules;
    bool running_step = false;
    bool drained = true;
    Step step = Step::kNone;
    const auto work = [&](bool success) {
      if (running_step) {
        running_step = false;
        lifecycle.Done(step != Step::kOpened || success);
        return;
      }
      const Phase before = lifecycle.phase();
      step = Next(lifecycle, drained);
      if (step == Step::kNone) {
        if (before == Phase::kPauseDraining && !drained) {
          EXPECT_TRUE(lifecycle.running());
        }
        return;
      }
      running_step = true;
      rules.OnStep(side, step, success);
      // The callback's answer is known when it is counted; Done comes with it.
      if (step == Step::kOpened) {
        running_step = false;
        lifecycle.Done(success);
      }
    };
    for (int wish = 0; wish < 24; ++wish) {
      switch (random() % 10) {
        case 0:
          if (lifecycle.phase() == Phase::kDisabled) lifecycle.OnEnable();
          break;
        case 1:
          if (random() % 4 == 0 && lifecycle.phase() != Phase::kDisabled) lifecycle.OnDisable();
          break;
        case 2:
          lifecycle.OnStart();
          break;
        case 3:
          lifecycle.OnPause();
          break;
        case 4:
          if (lifecycle.may_open()) lifecycle.OnOpen();
          break;
        case 5:
          if (random() % 4 == 0) lifecycle.OnClose();
          break;
        case 6:
          if (side == Side::kClient && lifecycle.phase() == Phase::kEnabled &&
              lifecycle.may_open() && random() % 8 == 0) {
            lifecycle.OnFailure();
          }
          break;
        case 7:
          drained = !drained;
          break;
        default:
          break;
      }
      for (std::uint32_t turns = random() % 4; turns > 0; --turns) work(random() % 8 != 0);
    }
    // Pause ends once drains do.
    drained = true;
    lifecycle.OnPause();
    for (int turn = 0; turn < 40 && lifecycle.running(); ++turn) work(true);
    ASSERT_FALSE(lifecycle.running()) << "run " << run;
    // And so does Disable.
    if (lifecycle.phase() != Phase::kDisabled) {
      const std::uint64_t before = lifecycle.times_disabled();
      lifecycle.OnDisable();
      for (int turn = 0; turn < 40 && lifecycle.phase() != Phase::kDisabled; ++turn) work(true);
      ASSERT_EQ(lifecycle.phase(), Phase::kDisabled) << "run " << run;
      ASSERT_EQ(lifecycle.times_disabled(), before + 1);
    }
    ASSERT_TRUE(rules.at_rest()) << "run " << run;
    if (::testing::Test::HasFailure()) FAIL() << "run " << run;
  }
}

}  // namespace
}  // namespace kmcl::channel
