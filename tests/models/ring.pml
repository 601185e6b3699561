/* Both wake-up handshakes of a ring (docs/ring.md): a writer and a reader of one small ring, in every interleaving, on a
 * processor that holds stores back. README.md says what stands for what.
 *
 * It holds if no packet is lost, doubled or read too early (the assertions), and if nobody sleeps for ever (every end is that
 * of both programs). One of the faults below can be planted; then it must not hold.
 */

#define UNITS 4   /* of the ring; one always stays unused */
#ifndef PACKETS
#define PACKETS 4 /* of one or two units */
#endif

/* What is left out, or out of order. */
#define NO_FAULT 0
#define W3_RELEASE 1       /* W3 may be seen after W5 and W7 were loaded */
#define L3_RELEASE 2       /* L3 may be seen after L4 was loaded */
#define P1_RELEASE 3       /* P1 may be seen after P3 was loaded */
#define R2_RELEASE 4       /* R2 may be seen after R5 was loaded */
#define R7_EARLY 5         /* R7 is loaded before R2 */
#define W5_W7_BEFORE_W3 6  /* the writer decides before it publishes */
#define R5_BEFORE_R2 7     /* the reader decides before it gives back */
#define W3_BEFORE_W2 8     /* the index is seen before the packet */
#define R2_BEFORE_COPY 9   /* the room is given back before the packet was copied */
#define NO_L3 10           /* the reader sleeps masked */
#define NO_L4 11           /* it does not look once more */
#define NO_R2 12           /* it sleeps before it has given back */
#define NO_P1 13           /* the writer sleeps without having said so */
#define NO_P3 14           /* it does not look once more */
#define NO_W3 15           /* it asks for room before it has published */
#define RING_IF_EMPTY_AT_START 16 /* instead of W7: was the ring empty when the batch was begun? */

byte fault;
/* A writer that sets its request once and never takes it back (VMBus reference 1.7). */
bool stubborn;

/* ---- Memory: what everybody sees, and for each program the stores that nobody sees yet, in their order. A load that is
 * sequentially consistent waits for the stores before it that are so, too; other loads do not wait. Release and acquire need
 * nothing more: stores leave in order, loads are made in order. No program loads a word that it stores. */
#define WRITE 0
#define READ 1
#define MASK 2
#define PENDING 3
#define DATA 4
byte memory[DATA + UNITS];

#define WRITER 0
#define READER 1
chan held_writer = [5] of { byte, byte, bool };
chan held_reader = [5] of { byte, byte, bool };
byte unseen[2]; /* stores of each that are sequentially consistent and held back */

proctype Memory(chan held; byte who) {
  byte word, value;
  bool ordered;
end:
  do
  :: atomic {
       held?word, value, ordered -> memory[word] = value;
       if
       :: ordered -> unseen[who]--
       :: else
       fi;
       word = 0; value = 0; ordered = false
     }
  od
}

inline Store(held, who, word, value, ordered) {
  atomic { nfull(held) -> held!word, value, ordered; unseen[who] = unseen[who] + ((ordered) -> 1 : 0) }
}
inline Load(to, word) { to = memory[word] }
inline LoadOrdered(who, to, word) { atomic { unseen[who] == 0 -> to = memory[word] } }

#define USED(from, to) ((to + UNITS - from) % UNITS)
#define FREE(write_at, read_at) (UNITS - 1 - USED(read_at, write_at))

/* ---- Bells: one rung twice is heard once, one rung early is heard later. */
bool bell_of_reader, bell_of_writer;
inline Sleep(bell) { atomic { bell -> bell = false } }

/* Each unit of a packet says which packet it is of, and how long that is: 1, 2, ... */
#define UNIT(number, size) (1 + 2 * (number) + (size) - 1)

inline Publish() {
  if
  :: write != published ->
     base = published;
     published = write;
     if
     :: fault == W5_W7_BEFORE_W3 ->
        LoadOrdered(WRITER, masked, MASK);
        LoadOrdered(WRITER, seen, READ)
     :: else
     fi;
     Store(held_writer, WRITER, WRITE, write, fault != W3_RELEASE); /* W3 */
     if
     :: fault == W3_BEFORE_W2 -> PutUnits()
     :: else
     fi;
     if
     :: fault != W5_W7_BEFORE_W3 ->
        LoadOrdered(WRITER, masked, MASK); /* W5 */
        LoadOrdered(WRITER, seen, READ)    /* W7 */
     :: else
     fi;
     if
     :: !masked && (fault == RING_IF_EMPTY_AT_START -> was_empty : seen == base) -> bell_of_reader = true
     :: else
     fi;
     masked = 0; seen = 0; base = 0
  :: else
  fi
}

inline PutUnits() {
  Store(held_writer, WRITER, DATA + last, UNIT(number - 1, size), false); /* W2 */
  if
  :: size == 2 -> Store(held_writer, WRITER, DATA + (last + 1) % UNITS, UNIT(number - 1, size), false)
  :: else
  fi
}

proctype Writer() {
  byte number, size, write, published, room = UNITS - 1, base, masked, seen, last;
  bool requested, was_empty;
  do
  :: number == PACKETS -> break
  :: number < PACKETS ->
     if
     :: size = 1
     :: size = 2
     fi;
     /* A stubborn one writes only where the longest packet has room. */
     do
     :: room >= (stubborn -> 2 : size) -> break
     :: else ->
        Load(seen, READ); /* W1 */
        room = FREE(write, seen);
        seen = 0;
        if
        :: room >= (stubborn -> 2 : size) -> break
        :: else
        fi;
        if
        :: fault != NO_W3 -> Publish()
        :: else
        fi;
        if
        :: fault != NO_P1 && !(stubborn && requested) ->
           Store(held_writer, WRITER, PENDING, (stubborn -> 2 : size), fault != P1_RELEASE) /* P1 */
        :: else
        fi;
        requested = true;
        if
        :: fault != NO_P3 ->
           LoadOrdered(WRITER, seen, READ); /* P3 */
           room = FREE(write, seen);
           seen = 0
        :: else
        fi;
        if
        :: room >= (stubborn -> 2 : size) -> break
        :: else -> Sleep(bell_of_writer) /* P4 */
        fi
     od;
     if
     :: requested && !stubborn ->
        Store(held_writer, WRITER, PENDING, 0, false); /* P5 */
        requested = false
     :: else
     fi;
     if
     :: write == published -> Load(seen, READ); was_empty = (seen == write); seen = 0
     :: else
     fi;
     last = write;
     number++;
     if
     :: fault != W3_BEFORE_W2 -> PutUnits()
     :: else
     fi;
     write = (write + size) % UNITS;
     room = room - size;
     /* One by one, or several at a time. */
     if
     :: Publish()
     :: fault != W3_BEFORE_W2 && number < PACKETS
     fi
  od
}

inline Release() {
  if
  :: read != released ->
     if
     :: fault == R5_BEFORE_R2 -> LoadOrdered(READER, wanted, PENDING)
     :: else
     fi;
     if
     :: fault == R7_EARLY -> LoadOrdered(READER, seen, WRITE)
     :: else
     fi;
     Store(held_reader, READER, READ, read, fault != R2_RELEASE); /* R2 */
     if
     :: fault != R5_BEFORE_R2 -> LoadOrdered(READER, wanted, PENDING) /* R5 */
     :: else
     fi;
     if
     :: wanted != 0 ->
        if
        :: fault != R7_EARLY -> LoadOrdered(READER, seen, WRITE) /* R7 */
        :: else
        fi;
        if
        :: FREE(seen, released) < wanted && FREE(seen, read) >= wanted -> bell_of_writer = true /* R8 */
        :: else
        fi
     :: else
     fi;
     released = read;
     wanted = 0; seen = 0
  :: else
  fi
}

proctype Reader() {
  byte taken, at, read, released, write, size, unit, wanted, seen;
  do
  :: taken == PACKETS -> break
  :: else ->
     if
     :: Store(held_reader, READER, MASK, 1, false) /* L1 */
     :: skip
     fi;
     do
     :: Load(write, WRITE); /* R1 */
        if
        :: write == read -> break
        :: else
        fi;
        Load(unit, DATA + read);
        assert(unit == UNIT(taken, 1) || unit == UNIT(taken, 2));
        if
        :: unit == UNIT(taken, 1) -> size = 1
        :: else -> size = 2
        fi;
        assert(USED(read, write) >= size); /* packets are published whole */
        at = read;
        read = (read + size) % UNITS;
        if
        :: fault == R2_BEFORE_COPY -> Release()
        :: else
        fi;
        /* The copy, all of it: what was looked at first is overwritten first. */
        Load(wanted, DATA + (at + size - 1) % UNITS);
        assert(wanted == unit);
        Load(wanted, DATA + at);
        assert(wanted == unit);
        taken++;
        at = 0; size = 0; unit = 0; wanted = 0;
        /* One by one, or several at a time. */
        if
        :: Release()
        :: skip
        fi
     od;
     write = 0;
     if
     :: fault != NO_R2 -> Release()
     :: else
     fi;
     if
     :: fault != NO_L3 -> Store(held_reader, READER, MASK, 0, fault != L3_RELEASE) /* L3 */
     :: else
     fi;
     if
     :: fault != NO_L4 -> LoadOrdered(READER, write, WRITE) /* L4 */
     :: else -> write = read
     fi;
     if
     :: write == read && taken < PACKETS -> write = 0; Sleep(bell_of_reader) /* L5 */
     :: else -> write = 0
     fi
  od
}

init {
  c_code {
    now.fault = getenv("FAULT") ? atoi(getenv("FAULT")) : 0;
    now.stubborn = getenv("STUBBORN") != 0;
  };
  memory[MASK] = 1; /* as a ring is made */
  atomic {
    run Memory(held_writer, WRITER);
    run Memory(held_reader, READER);
    run Writer();
    run Reader()
  }
}
