/* A channel from its offer to its end, by the threads of both ends: a bus thread, a dispatch thread, a state thread, a driver
 * that sends and one that changes its mind, all in every interleaving. README.md says what stands for what.
 *
 * It holds if no end touches memory that it must not (the assertions), neither is told anything out of turn, and at rest, when
 * nothing can go on, nobody waits for anybody and both are of one mind (Rest). One of the faults below can be planted; then it
 * must not hold.
 */

/* What is left out, or out of order. */
#define NO_FAULT 0
#define FREE_AT_CLOSE 1        /* the client's memory is free when it closes, not when the server has let go */
#define GIVE_BACK_AT_ONCE 2    /* a ring that is still mapped is given back */
#define REFUSE_AND_FORGET 3    /* a ring that was asked for while the driver refused is not */
#define RESCIND_FIRST 4        /* the offer is withdrawn before the channel has ended */
#define STOP_AT_ONCE 5         /* the queue is off, but a turn that goes on is not waited for */
#define NO_TURN_WAIT 6         /* nor is it when dispatching ends */
#define TURN_RELAXED 7         /* the word that a turn is on may be seen after the channel was looked up */
#define SEND_UNLOCKED 8        /* whoever sends has looked at the channel before, without its lock */
#define BELL_RELAXED 9         /* the flag may be seen before the packet */
#define FLAG_LAST 10           /* the descriptor is written before the flag is set */
#define EDGE_LAST 11           /* the flags are taken before the edge */
#define NO_START_TURN 12       /* a channel that starts does not look into its ring */
#define LISTEN_LAST 13         /* bells are listened to after that look */
#define INIT_LAST 14           /* the rings are made after the server was asked to open them */
#define ID_AT_ONCE 15          /* a withdrawn offer's id is free at once */
#define NO_RELEASE 16          /* a withdrawn offer that nobody uses is not given back */
#define RELEASE_EARLY 17       /* one that is in use is, before it was closed */
#define NO_ANNOUNCEMENT 18     /* an offer that waited for that stays unknown */
#define RESCIND_UNANSWERED 19  /* who waits for an open is not told that the offer is withdrawn */
#define NO_OPEN_WHILE_DETACHING 20 /* an open is refused while the last one is being let go of */
#define OPENED_UNHEEDED 21     /* a channel that was disabled while its open was asked for stays open */
#define TEARDOWN_FIRST 22      /* the ring is asked for, and the channel closed when it has come */
#define NO_END_AT_DEATH 23     /* a channel whose client has died stays */

byte fault;
bool mortal;        /* the client may die, and the server's driver may refuse an open */
bool steady;        /* neither driver disables its channel */
bool peeks;         /* the dispatch thread may look at the flags without having slept */
byte may_enable[2]; /* how often each end's driver may enable its channel */
byte may_send[2];   /* and how often it sends */

#define LIVES 4   /* rings described in all */
#define IDS 2

#define SERVER 0
#define CLIENT 1

/* ---- What both ends share. */
mtype = { OFFER, RESCIND, RELEASED, GPADL, CREATED, OPEN, OPENED, REFUSED, CLOSE, TEARDOWN, TORNDOWN };
chan to_server = [4] of { mtype, byte, byte };
chan to_client = [4] of { mtype, byte, byte };
bool dead; /* the client */

/* The memory of each ring: the client's own, lent to the server, and what is in it. */
bool lent[LIVES + 1], made[LIVES + 1];
bool mapped[LIVES + 1]; /* by the server */
#define UNREAD(end, life) unread[(end) * (LIVES + 1) + (life)]
bool unread[2 * (LIVES + 1)];
#define FLAG(end, id) flag[(end) * (IDS + 1) + (id)]
bool flag[2 * (IDS + 1)]; /* the page of events */
bool edge[2];             /* its descriptors */

inline Ask(message, id, life) {
  assert(nfull(to_server));
  to_server!message, id, life
}
inline Tell(message, id, life) {
  if
  :: dead
  :: else -> assert(nfull(to_client)); to_client!message, id, life
  fi
}

/* Whoever touches a ring: the server while it has it mapped and may, the client before its memory is another's. */
inline Touch(end, life) {
  assert(lent[life] || dead);
  assert(end == CLIENT || mapped[life])
}

/* ---- One end's channel. */
mtype = { DISABLED, ENABLED, BUSY, ACTIVE, DETACHING };
mtype phase[2] = DISABLED;
bool open_pending[2], close_wanted[2], disable_wanted[2], failure_pending;
byte attached[2];  /* the ring, or 0 */
byte listening[2]; /* the id whose bells are for it, or 0 */
bool queue_on[2];   /* incoming */
bool sending[2];   /* outgoing */
bool delivering[2];
bool locked[2];    /* by a sender */
bool seat[2];      /* turns are for it */
bool in_turn[2];
bool inside[2];    /* a turn that has found it is on */
bool kicked[2];
byte sent[2];
/* Stores that nobody sees yet: of a packet, and the word that a turn is on. A locked operation, a message and a lock that
 * is let go of wait for the stores before them. */
byte held_packet[2];
bool held_turn[2];

#define TEARING(end) (close_wanted[end] || disable_wanted[end])

proctype Memory() {
  byte end;
  do
  :: atomic { held_packet[0] || held_packet[1] ->
       if
       :: held_packet[0] -> end = 0
       :: held_packet[1] -> end = 1
       fi;
       Touch(end, held_packet[end]);
       UNREAD(1 - end, held_packet[end]) = true;
       held_packet[end] = 0;
       locked[end] = false;
       end = 0
     }
  :: atomic { held_turn[0] -> in_turn[0] = true; held_turn[0] = false }
  :: atomic { held_turn[1] -> in_turn[1] = true; held_turn[1] = false }
  od
}

/* The dispatch thread: Dispatcher::RunTurn and Receiver::Deliver. */
inline Turn(end) {
  atomic {
    if
    :: fault == TURN_RELAXED -> held_turn[end] = true
    :: else -> in_turn[end] = true
    fi
  };
  inside[end] = seat[end];
  if
  :: inside[end] ->
     atomic {
       if
       :: queue_on[end] && !delivering[end] -> delivering[end] = true; life = attached[end]
       :: else
       fi
     };
     if
     :: life ->
        atomic {
          assert(attached[end] == life);
          Touch(end, life);
          UNREAD(end, life) = false;
          delivering[end] = false;
          life = 0
        }
     :: else
     fi
  :: else
  fi;
  atomic { inside[end] = false; in_turn[end] = false; held_turn[end] = false }
}

/* All flags of a word are taken at once. */
inline TakeFlags(end) {
  atomic {
    ready = ready || (FLAG(end, 1) && listening[end] == 1) || (FLAG(end, 2) && listening[end] == 2);
    FLAG(end, 1) = false;
    FLAG(end, 2) = false
  }
}

/* Dispatcher::Run. It sleeps while it is not ready. */
inline DispatchLoop(end) {
  do
  :: atomic { !ready && kicked[end] -> kicked[end] = false; ready = true }
  :: atomic { !ready && edge[end] ->
       if
       :: fault != EDGE_LAST -> edge[end] = false
       :: else
       fi
     };
     TakeFlags(end);
     if
     :: fault == EDGE_LAST -> edge[end] = false
     :: else
     fi
  :: ready ->
     ready = false;
     Turn(end);
     if
     :: peeks -> TakeFlags(end)
     :: skip
     fi
  od
}

/* Anybody who sends: Sender::Send, then the bell, which may outlast the channel. */
inline SendLoop(end) {
  do
  :: atomic { sent[end] < may_send[end] && sending[end] && !locked[end] ->
       sent[end]++;
       assert(attached[end]);
       id = listening_of[end];
       if
       :: fault == SEND_UNLOCKED -> life = attached[end]
       :: else -> locked[end] = true; held_packet[end] = attached[end]
       fi
     };
     if
     :: life -> atomic { held_packet[end] = life; life = 0 }
     :: else
     fi;
     atomic { (fault == BELL_RELAXED || !held_packet[end]) ->
       if
       :: fault == FLAG_LAST -> edge[1 - end] = true
       :: else -> was = FLAG(1 - end, id); FLAG(1 - end, id) = true
       fi
     };
     atomic {
       if
       :: fault == FLAG_LAST -> FLAG(1 - end, id) = true
       :: fault != FLAG_LAST && !was -> edge[1 - end] = true
       :: else
       fi;
       was = false;
       id = 0
     }
  od
}
byte listening_of[2]; /* the id that an end rings: its channel's */

/* Steps of a channel's life: Channel::RunStep, ChannelEnd. */
inline BeginDispatch(end, id) {
  listening_of[end] = id;
  if
  :: fault != LISTEN_LAST -> listening[end] = id
  :: else
  fi;
  seat[end] = true
}
inline Start(end) {
  atomic { sending[end] = true; queue_on[end] = true };
  atomic {
    if
    :: fault != NO_START_TURN && seat[end] -> kicked[end] = true
    :: else
    fi
  };
  if
  :: fault == LISTEN_LAST -> listening[end] = listening_of[end]
  :: else
  fi
}
inline Stop(end) {
  queue_on[end] = false;
  atomic { (fault == STOP_AT_ONCE || !delivering[end]) && !locked[end] -> sending[end] = false }
}
inline DetachRings(end) { atomic { !locked[end] -> attached[end] = 0 } }
inline EndDispatch(end) {
  atomic { seat[end] = false; listening[end] = 0 };
  atomic { (fault == NO_TURN_WAIT || !in_turn[end]) -> assert(!inside[end]) }
}

/* ---- The server. */
mtype = { NONE, WAITING, OFFERED, OPENING, OPENING_LEFT, OPEN_NOW, CLOSING, CLOSING_LEFT, LEFT, REVOKED };
mtype s_state[IDS + 1] = NONE;
mtype = { ACCEPTED, RELEASING, SILENT, ORPHANED };
mtype s_gpadl[IDS + 1] = NONE;
byte s_life[IDS + 1]; /* what it describes */
byte offer;           /* the id of the channel's offer, or 0 */
byte s_ring;          /* what it has mapped, or 0 */
bool ring_owed;       /* the client wants it back */
bool gone;            /* the end of the client was heard */
byte rescinds, releases, offers;

inline Announce() {
  if
  :: s_state[1] != REVOKED && s_state[2] != REVOKED && !gone ->
     if
     :: s_state[1] == WAITING -> s_state[1] = OFFERED; Tell(OFFER, 1, 0)
     :: s_state[2] == WAITING -> s_state[2] = OFFERED; Tell(OFFER, 2, 0)
     :: else
     fi
  :: else
  fi
}

inline EraseOffer(id) {
  s_state[id] = NONE;
  s_gpadl[id] = NONE;
  s_life[id] = 0
}

inline GpadlReleased(id) {
  if
  :: s_gpadl[id] == RELEASING -> Tell(TORNDOWN, id, s_life[id]); s_gpadl[id] = NONE; s_life[id] = 0
  :: s_gpadl[id] == SILENT -> s_gpadl[id] = NONE; s_life[id] = 0
  :: else
  fi
}
/* Partition::Do(ReleaseGpadl) */
inline ReleaseGpadl(id) {
  if
  :: id == offer && s_ring && s_ring == s_life[id] && fault != GIVE_BACK_AT_ONCE -> ring_owed = true
  :: else -> GpadlReleased(id)
  fi
}

inline OpenResult(id, success) {
  if
  :: s_state[id] == OPENING ->
     if
     :: success -> s_state[id] = OPEN_NOW; Tell(OPENED, id, s_life[id])
     :: else -> s_state[id] = OFFERED; Tell(REFUSED, id, s_life[id])
     fi
  :: s_state[id] == OPENING_LEFT ->
     if
     :: success -> s_state[id] = CLOSING_LEFT; close_wanted[SERVER] = true
     :: else -> s_state[id] = LEFT
     fi
  :: else
  fi
}
inline CloseDone(id) {
  if
  :: s_state[id] == CLOSING -> s_state[id] = OFFERED
  :: s_state[id] == CLOSING_LEFT -> s_state[id] = LEFT
  :: else
  fi
}
/* Partition::Do(CloseChannel) */
inline CloseChannel(id) {
  if
  :: id == offer && s_ring -> close_wanted[SERVER] = true
  :: else -> CloseDone(id)
  fi
}

/* Partition::TryOpen */
inline TryOpen(id, life) {
  s_state[id] = OPENING;
  if
  :: id == offer && !disable_wanted[SERVER] && !open_pending[SERVER] &&
     (phase[SERVER] == ENABLED || (phase[SERVER] == DETACHING && fault != NO_OPEN_WHILE_DETACHING)) ->
     assert(made[life]);
     mapped[life] = true;
     s_ring = life;
     ring_owed = false;
     attached[SERVER] = life;
     BeginDispatch(SERVER, id);
     open_pending[SERVER] = true
  :: else ->
     assert(disable_wanted[SERVER]); /* nothing else is a reason */
     OpenResult(id, false)
  fi
}

proctype ServerBus() {
  byte id, life;
  do
  :: atomic { to_server?GPADL(id, life) ->
       assert(s_gpadl[id] == NONE);
       s_life[id] = life;
       if
       :: s_state[id] == REVOKED -> s_gpadl[id] = ORPHANED
       :: else -> assert(s_state[id] == OFFERED || s_state[id] == CLOSING); s_gpadl[id] = ACCEPTED
       fi;
       Tell(CREATED, id, life);
       id = 0; life = 0
     }
  :: atomic { to_server?OPEN(id, life) ->
       if
       :: s_state[id] == REVOKED
       :: else ->
          assert(s_state[id] == OFFERED && s_gpadl[id] == ACCEPTED && s_life[id] == life);
          TryOpen(id, life)
       fi;
       id = 0; life = 0
     }
  :: atomic { to_server?CLOSE(id, life) ->
       if
       :: s_state[id] == REVOKED
       :: else -> assert(s_state[id] == OPEN_NOW); s_state[id] = CLOSING; CloseChannel(id)
       fi;
       id = 0
     }
  :: atomic { to_server?TEARDOWN(id, life) ->
       assert(s_life[id] == life);
       if
       :: s_gpadl[id] == ORPHANED -> s_gpadl[id] = NONE; s_life[id] = 0; Tell(TORNDOWN, id, life)
       :: else -> assert(s_gpadl[id] == ACCEPTED); s_gpadl[id] = RELEASING; ReleaseGpadl(id)
       fi;
       id = 0; life = 0
     }
  :: atomic { to_server?RELEASED(id, life) ->
       assert(s_state[id] == REVOKED);
       releases++;
       EraseOffer(id);
       if
       :: fault != NO_ANNOUNCEMENT -> Announce()
       :: else
       fi;
       id = 0
     }
  :: atomic { dead && empty(to_server) && !gone -> /* Partition::OnGone */
       gone = true;
       for (id : 1 .. IDS) {
         if
         :: s_state[id] == REVOKED -> EraseOffer(id)
         :: s_state[id] == OFFERED -> s_state[id] = LEFT
         :: s_state[id] == OPENING -> s_state[id] = OPENING_LEFT
         :: s_state[id] == OPEN_NOW ->
            s_state[id] = CLOSING_LEFT;
            if
            :: fault != NO_END_AT_DEATH -> CloseChannel(id)
            :: else
            fi
         :: s_state[id] == CLOSING -> s_state[id] = CLOSING_LEFT
         :: else
         fi;
         if
         :: s_gpadl[id] == ACCEPTED -> s_gpadl[id] = SILENT; ReleaseGpadl(id)
         :: s_gpadl[id] == RELEASING -> s_gpadl[id] = SILENT
         :: else
         fi
       };
       id = 0
     }
  od
}

/* Partition::CarryOut, kLeave: the machine's OnRevoke. */
inline Revoke() {
  if
  :: s_state[offer] == WAITING || gone -> EraseOffer(offer)
  :: else ->
     if
     :: s_state[offer] == OPENING -> Tell(REFUSED, offer, s_life[offer])
     :: else
     fi;
     if
     :: s_gpadl[offer] == RELEASING ->
        Tell(TORNDOWN, offer, s_life[offer]);
        s_gpadl[offer] = NONE;
        s_life[offer] = 0
     :: s_gpadl[offer] == ACCEPTED -> s_gpadl[offer] = ORPHANED
     :: else
     fi;
     s_state[offer] = REVOKED;
     rescinds++;
     Tell(RESCIND, offer, 0);
     if
     :: fault == ID_AT_ONCE -> EraseOffer(offer); releases++
     :: else
     fi
  fi;
  offer = 0
}

/* The rings are not used any more: Partition::Detached, GiveBack. */
inline LetGo() {
  mapped[s_ring] = false;
  s_ring = 0
}
inline GiveBack() {
  if
  :: ring_owed -> ring_owed = false; GpadlReleased(offer)
  :: else
  fi
}
inline Reject() {
  atomic { phase[SERVER] = BUSY; open_pending[SERVER] = false; close_wanted[SERVER] = false };
  DetachRings(SERVER);
  EndDispatch(SERVER);
  atomic {
    LetGo();
    OpenResult(offer, false);
    if
    :: fault == REFUSE_AND_FORGET -> ring_owed = false
    :: else -> GiveBack()
    fi
  };
  phase[SERVER] = ENABLED
}

proctype ServerState() {
  bool refuses; /* it has refused once */
  do
  :: atomic { phase[SERVER] == DISABLED && offers < may_enable[SERVER] && !gone ->
       offers++;
       close_wanted[SERVER] = false;
       open_pending[SERVER] = false;
       phase[SERVER] = ENABLED;
       if
       :: s_state[1] == NONE -> offer = 1
       :: else -> assert(s_state[2] == NONE); offer = 2
       fi;
       s_state[offer] = WAITING;
       Announce()
     }
  :: atomic { phase[SERVER] == ENABLED && open_pending[SERVER] && TEARING(SERVER) -> phase[SERVER] = BUSY };
     Reject()
  :: atomic { phase[SERVER] == ENABLED && open_pending[SERVER] && !TEARING(SERVER) -> phase[SERVER] = BUSY };
     if
     :: !refuses && mortal -> refuses = true; Reject()
     :: open_pending[SERVER] = false;
        atomic { OpenResult(offer, true) };
        Start(SERVER);
        phase[SERVER] = ACTIVE
     fi
  :: atomic { phase[SERVER] == ACTIVE && TEARING(SERVER) ->
       phase[SERVER] = BUSY;
       if
       :: fault == RESCIND_FIRST && disable_wanted[SERVER] -> Revoke()
       :: else
       fi
     };
     Stop(SERVER);
     atomic { phase[SERVER] = DETACHING; close_wanted[SERVER] = false };
     DetachRings(SERVER);
     EndDispatch(SERVER);
     atomic {
       LetGo();
       if
       :: offer -> CloseDone(offer); GiveBack()
       :: else
       fi
     };
     phase[SERVER] = ENABLED
  :: atomic { phase[SERVER] == ENABLED && !open_pending[SERVER] && disable_wanted[SERVER] -> phase[SERVER] = BUSY };
     atomic {
       if
       :: offer -> Revoke()
       :: else
       fi
     };
     atomic { phase[SERVER] = DISABLED; disable_wanted[SERVER] = false; close_wanted[SERVER] = false }
  :: atomic { phase[SERVER] == ENABLED && !open_pending[SERVER] && !disable_wanted[SERVER] && close_wanted[SERVER] ->
       close_wanted[SERVER] = false /* nothing was open */
     }
  od
}

proctype ServerDispatch() {
  byte life;
  bool ready;
  DispatchLoop(SERVER)
}
proctype ServerSender() {
  byte id, life;
  bool was;
  SendLoop(SERVER)
}
proctype ServerDriver() {
  atomic { phase[SERVER] != DISABLED -> disable_wanted[SERVER] = true }
}

/* ---- The client. */
mtype = { RESCINDED_OPEN, RESCINDED };
mtype k_state[IDS + 1] = NONE; /* the machine's */
mtype = { CREATING, CREATED_NOW, TEARING_DOWN };
mtype k_gpadl = NONE;
mtype = { DESCRIBING };
mtype stage = NONE; /* NONE, WAITING, DESCRIBING, OPENING, OPEN_NOW, TEARING_DOWN */
byte bound, c_life;
bool close_said, release_wanted, wait_again, off_bus;
bool bus_busy;      /* the bus thread waits for a turn to end */
byte lives, enables;

#define IS_RESCINDED(id) (k_state[id] == RESCINDED || k_state[id] == RESCINDED_OPEN)

inline ComesBack() {
  assert(!mapped[c_life]);
  lent[c_life] = false;
  made[c_life] = false;
  UNREAD(SERVER, c_life) = false;
  UNREAD(CLIENT, c_life) = false;
  k_gpadl = NONE
}

inline Unbind() {
  if
  :: k_gpadl != NONE || lent[c_life] -> ComesBack()
  :: else
  fi;
  c_life = 0;
  if
  :: IS_RESCINDED(bound) ->
     assert(k_state[bound] == RESCINDED || fault == RELEASE_EARLY);
     if
     :: fault != RELEASE_EARLY -> Ask(RELEASED, bound, 0)
     :: else
     fi;
     k_state[bound] = NONE
  :: else
  fi;
  bound = 0;
  if
  :: wait_again && !release_wanted -> stage = WAITING
  :: else -> stage = NONE; off_bus = true
  fi;
  wait_again = false
}

inline MachineClose() {
  if
  :: k_state[bound] == OPEN_NOW -> k_state[bound] = OFFERED; Ask(CLOSE, bound, 0)
  :: k_state[bound] == RESCINDED_OPEN -> k_state[bound] = RESCINDED; Ask(CLOSE, bound, 0)
  :: else
  fi
}

inline TearDown() {
  if
  :: !close_said ->
     close_said = true;
     if
     :: fault != TEARDOWN_FIRST -> MachineClose()
     :: else
     fi
  :: else
  fi;
  stage = TEARING_DOWN;
  if
  :: k_gpadl == CREATED_NOW && !IS_RESCINDED(bound) ->
     Ask(TEARDOWN, bound, c_life);
     k_gpadl = TEARING_DOWN
  :: k_gpadl == CREATED_NOW && IS_RESCINDED(bound) -> Unbind()
  :: else -> Unbind()
  fi;
  if
  :: fault == FREE_AT_CLOSE && c_life -> lent[c_life] = false
  :: else
  fi
}

/* After the rings, if they were attached, have been let go of. */
inline FailOpen() {
  wait_again = IS_RESCINDED(bound);
  close_said = true;
  TearDown();
  if
  :: stage != WAITING && !wait_again && !release_wanted -> failure_pending = true
  :: else
  fi
}
/* The bus thread, which must not be spoken to meanwhile. */
inline FailOpening() {
  DetachRings(CLIENT);
  EndDispatch(CLIENT);
  atomic { FailOpen(); bus_busy = false }
}

inline Bind(id) {
  bound = id;
  close_said = false;
  lives++;
  assert(lives <= LIVES);
  c_life = lives;
  lent[c_life] = true;
  k_gpadl = CREATING;
  stage = DESCRIBING;
  Ask(GPADL, id, c_life)
}

inline OpenChannel() {
  if
  :: release_wanted || disable_wanted[CLIENT] || phase[CLIENT] != ENABLED -> FailOpen()
  :: else ->
     if
     :: fault != INIT_LAST -> made[c_life] = true
     :: else
     fi;
     attached[CLIENT] = c_life;
     BeginDispatch(CLIENT, bound);
     stage = OPENING;
     k_state[bound] = OPENING;
     Ask(OPEN, bound, c_life)
  fi
}

proctype ClientBus() {
  byte id, life;
  {
    do
    :: atomic { stage == WAITING && k_state[1] == OFFERED -> Bind(1) }
    :: atomic { stage == WAITING && k_state[2] == OFFERED -> Bind(2) }
    :: atomic { to_client?OFFER(id, life) -> assert(k_state[id] == NONE); k_state[id] = OFFERED; id = 0 }
    :: atomic { to_client?CREATED(id, life) ->
         if
         :: id == bound && life == c_life && k_gpadl == CREATING -> k_gpadl = CREATED_NOW; OpenChannel()
         :: else
         fi;
         id = 0; life = 0
       };
       if
       :: fault == INIT_LAST && c_life -> made[c_life] = true
       :: else
       fi
    :: atomic { to_client?OPENED(id, life) ->
         if
         :: id == bound && life == c_life && k_state[id] == OPENING ->
            k_state[id] = OPEN_NOW;
            stage = OPEN_NOW;
            if
            :: release_wanted -> bus_busy = (fault != OPENED_UNHEEDED)
            :: else -> open_pending[CLIENT] = true
            fi
         :: else
         fi;
         id = 0; life = 0
       };
       if
       :: bus_busy ->
          DetachRings(CLIENT);
          EndDispatch(CLIENT);
          atomic { TearDown(); bus_busy = false }
       :: else
       fi
    :: atomic { to_client?REFUSED(id, life) ->
         if
         :: id == bound && life == c_life && k_state[id] == OPENING -> k_state[id] = OFFERED; bus_busy = true
         :: else
         fi;
         id = 0; life = 0
       };
       if
       :: bus_busy -> FailOpening()
       :: else
       fi
    :: atomic { to_client?TORNDOWN(id, life) ->
         if
         :: id == bound && life == c_life && k_gpadl == TEARING_DOWN ->
            if
            :: fault == TEARDOWN_FIRST -> MachineClose()
            :: else
            fi;
            Unbind()
         :: else
         fi;
         id = 0; life = 0
       }
    :: atomic { to_client?RESCIND(id, life) ->
         assert(k_state[id] == OFFERED || k_state[id] == OPENING || k_state[id] == OPEN_NOW);
         if
         :: id != bound ->
            k_state[id] = NONE;
            if
            :: fault != NO_RELEASE -> Ask(RELEASED, id, 0)
            :: else
            fi
         :: else ->
            if
            :: fault == RELEASE_EARLY -> Ask(RELEASED, id, 0)
            :: else
            fi;
            if
            :: k_state[id] == OPEN_NOW ->
               k_state[id] = RESCINDED_OPEN;
               if
               :: stage == OPEN_NOW -> close_wanted[CLIENT] = true
               :: else
               fi
            :: k_state[id] == OPENING ->
               k_state[id] = RESCINDED;
               bus_busy = (fault != RESCIND_UNANSWERED)
            :: else ->
               k_state[id] = RESCINDED;
               if
               :: k_gpadl == CREATING -> k_gpadl = NONE; FailOpen()
               :: k_gpadl == TEARING_DOWN -> Unbind()
               :: else
               fi
            fi
         fi;
         id = 0
       };
       if
       :: bus_busy -> FailOpening()
       :: else
       fi
    od
  } unless { dead }
}

/* Client::Release, then until it is off the bus. */
inline Leave() {
  EndDispatch(CLIENT);
  atomic { !bus_busy ->
    release_wanted = true;
    if
    :: stage == NONE -> off_bus = true
    :: stage == WAITING -> stage = NONE; off_bus = true
    :: stage == OPEN_NOW -> TearDown()
    :: else
    fi
  };
  off_bus;
  atomic {
    phase[CLIENT] = DISABLED;
    disable_wanted[CLIENT] = false;
    close_wanted[CLIENT] = false;
    open_pending[CLIENT] = false;
    failure_pending = false
  }
}

proctype ClientState() {
  {
    do
    :: atomic { phase[CLIENT] == DISABLED && enables < may_enable[CLIENT] && !bus_busy ->
         enables++;
         phase[CLIENT] = ENABLED;
         stage = WAITING;
         release_wanted = false;
         off_bus = false
       }
    :: atomic { phase[CLIENT] == ENABLED && open_pending[CLIENT] ->
         phase[CLIENT] = BUSY;
         open_pending[CLIENT] = false
       };
       if
       :: TEARING(CLIENT) -> DetachRings(CLIENT); Leave()
       :: else -> Start(CLIENT); phase[CLIENT] = ACTIVE
       fi
    :: atomic { phase[CLIENT] == ACTIVE && TEARING(CLIENT) -> phase[CLIENT] = BUSY };
       Stop(CLIENT);
       atomic { !bus_busy ->
         if
         :: stage == OPEN_NOW && !close_said ->
            close_said = true;
            if
            :: fault != TEARDOWN_FIRST -> MachineClose()
            :: else
            fi
         :: else
         fi
       };
       DetachRings(CLIENT);
       Leave()
    :: atomic { phase[CLIENT] == ENABLED && !open_pending[CLIENT] && (failure_pending || disable_wanted[CLIENT]) ->
         phase[CLIENT] = BUSY
       };
       Leave()
    od
  } unless { dead }
}

proctype ClientDispatch() {
  byte life;
  bool ready;
  { DispatchLoop(CLIENT) } unless { dead }
}
proctype ClientSender() {
  byte id, life;
  bool was;
  { SendLoop(CLIENT) } unless { dead }
}
proctype ClientDriver() {
  atomic { phase[CLIENT] != DISABLED && !dead -> disable_wanted[CLIENT] = true }
}
/* What only it knew is of no interest any more. */
proctype Death() {
  byte i;
  atomic {
    dead = true;
    phase[CLIENT] = DISABLED;
    open_pending[CLIENT] = false; close_wanted[CLIENT] = false; disable_wanted[CLIENT] = false; failure_pending = false;
    attached[CLIENT] = 0; listening[CLIENT] = 0; listening_of[CLIENT] = 0;
    queue_on[CLIENT] = false; sending[CLIENT] = false; delivering[CLIENT] = false; locked[CLIENT] = false;
    seat[CLIENT] = false; in_turn[CLIENT] = false; inside[CLIENT] = false; kicked[CLIENT] = false;
    held_packet[CLIENT] = 0; held_turn[CLIENT] = false; sent[CLIENT] = 0;
    for (i : 1 .. IDS) { k_state[i] = NONE; FLAG(CLIENT, i) = false };
    for (i : 1 .. LIVES) { lent[i] = false; UNREAD(CLIENT, i) = false };
    edge[CLIENT] = false;
    k_gpadl = NONE; stage = NONE; bound = 0; c_life = 0;
    close_said = false; release_wanted = false; wait_again = false; off_bus = false; bus_busy = false;
    lives = 0; enables = 0;
    do
    :: to_client?_, _, _
    :: empty(to_client) -> break
    od;
    i = 0
  }
}

/* ---- At rest. */
proctype Rest() {
  byte i;
  timeout ->
  atomic {
    assert(!inside[SERVER] && !in_turn[SERVER] && !kicked[SERVER] && !edge[SERVER]);
    assert(phase[SERVER] == DISABLED || phase[SERVER] == ENABLED || phase[SERVER] == ACTIVE);
    if
    :: dead ->
       assert(gone && phase[SERVER] != ACTIVE && !listening[SERVER] && !s_ring && !attached[SERVER]);
       for (i : 1 .. IDS) {
         assert(s_state[i] == NONE || s_state[i] == WAITING || s_state[i] == LEFT);
         assert(s_gpadl[i] == NONE)
       }
       for (i : 1 .. LIVES) { assert(!mapped[i]) }
    :: else ->
       assert(empty(to_server) && empty(to_client));
       assert(rescinds == releases);
       assert(phase[CLIENT] == DISABLED || phase[CLIENT] == ENABLED || phase[CLIENT] == ACTIVE);
       for (i : 1 .. IDS) {
         assert(s_state[i] != REVOKED && s_state[i] != WAITING);
         assert(s_state[i] != OPENING && s_state[i] != CLOSING)
       }
       for (i : 1 .. IDS) { assert(!IS_RESCINDED(i) && k_state[i] != OPENING) }
       assert((phase[CLIENT] == ACTIVE) == (stage == OPEN_NOW));
       assert((phase[CLIENT] == ACTIVE) == (phase[SERVER] == ACTIVE));
       assert((phase[CLIENT] == ENABLED) == (stage == WAITING));
       assert(!(phase[CLIENT] == ENABLED && phase[SERVER] == ENABLED)); /* an offer, and one who waits for it */
       if
       :: phase[CLIENT] == ACTIVE ->
          assert(s_ring == c_life && offer == bound);
          assert(!UNREAD(SERVER, c_life) && !UNREAD(CLIENT, c_life))
       :: else -> for (i : 1 .. LIVES) { assert(!mapped[i] && !lent[i]) }
       fi
    fi
  }
}

init {
  c_code {
    now.fault = getenv("FAULT") ? atoi(getenv("FAULT")) : 0;
    now.mortal = getenv("MORTAL") != 0;
    now.steady = getenv("STEADY") != 0;
    now.peeks = getenv("PEEKS") != 0;
    now.may_enable[0] = getenv("OFFERS") ? atoi(getenv("OFFERS")) : 1;
    now.may_enable[1] = getenv("ENABLES") ? atoi(getenv("ENABLES")) : 1;
    now.may_send[0] = getenv("ANSWERS") ? atoi(getenv("ANSWERS")) : 0;
    now.may_send[1] = getenv("SENDS") ? atoi(getenv("SENDS")) : 0;
  };
  atomic {
    run Memory();
    run ServerBus(); run ServerState(); run ServerDispatch(); run ServerSender();
    run ClientBus(); run ClientState(); run ClientDispatch(); run ClientSender();
    run Rest();
    /* Who may change their minds, and whether they do, at any time. */
    if
    :: !steady -> run ServerDriver()
    :: skip
    fi;
    if
    :: !steady -> run ClientDriver()
    :: skip
    fi;
    if
    :: mortal -> run Death()
    :: skip
    fi
  }
}
