"""The goals, each with what it is measured by. A goal that was not measured is listed with the reason."""


class Goal:
    """`ours` and `peer` are rows, or tuples of rows of which the best counts. `most`: the ratio may be at most `must`."""

    def __init__(self, figure, versus, ours, peer, must, aim, most=False, field=None, unit="", note=""):
        self.figure, self.versus, self.must, self.aim, self.most = figure, versus, must, aim, most
        self.ours = ours if isinstance(ours, tuple) else (ours,)
        self.peer = peer if isinstance(peer, tuple) or peer is None else (peer,)
        self.field, self.unit, self.note = field, unit, note


LINUX_64 = ("stream/linux-iterate/64", "stream/linux-read/64")
LINUX_4096 = ("stream/linux-iterate/4096", "stream/linux-read/4096")
BOOST_64 = ("stream/boost-spsc-pop/64", "stream/boost-spsc-all/64")
LINE = "roundtrip/cache-line/8"


GOALS = [
    Goal("ring, 64 B stream, batches of 32", "times Linux", "stream/ring-batch32/64", LINUX_64, 8, 11,
         note="batched: ours is published every 32 packets, the peer's each"),
    Goal("ring, 64 B stream, each published, adaptive reader", "times Linux", "stream/ring-each-adaptive/64",
         LINUX_64, 4.5, 6),
    Goal("ring, 64 B stream, each published, adaptive reader", "times Boost SPSC", "stream/ring-each-adaptive/64",
         BOOST_64, 1.3, 1.5, note="the peer with the readers it comes with"),
    Goal("ring, 4 KiB stream, batches of 32", "times Linux", "stream/ring-batch32/4096", LINUX_4096, 1.6, 2,
         note="batched, as above"),
    Goal("ring, 4 KiB stream, each published, adaptive reader", "times Linux", "stream/ring-each-adaptive/4096",
         LINUX_4096, 1.6, 2),
    Goal("ring, polling round trip, in place", "times the cache line's", "roundtrip/ring-in-place/64", LINE, 1.4, 1.2,
         most=True),
    Goal("ring, polling round trip, copied out", "times the cache line's", "roundtrip/ring-copied/64", LINE, 1.8, 1.4,
         most=True),
    Goal("ring, polling round trip, copied out", "times Linux", "roundtrip/ring-copied/64", "roundtrip/linux/64", 0.75,
         0.6, most=True),
]
for WHERE in ("shm", "local"):
    STREAM, PATH = f"stream/kmcl-{WHERE}/64", f"whole path, {WHERE}"
    TRANSACTIONS, TRIP = f"transactions/kmcl-{WHERE}/64", f"roundtrip/kmcl-{WHERE}"
    GOALS += [
        Goal(f"{PATH}, 64 B stream, one VmbPacketSend each", "times Linux's bare ring", STREAM, LINUX_64, 2.5, 5),
        Goal(f"{PATH}, 64 B stream, one VmbPacketSend each", "times SEQPACKET", STREAM, "stream/seqpacket/64", 20, 40),
        Goal(f"{PATH}, 64 B stream, one VmbPacketSend each", "times ZeroMQ", STREAM, "stream/zeromq/64", 6, 10),
        Goal(f"{PATH}, 64 B stream, one VmbPacketSend each", "times iceoryx", STREAM, "stream/iceoryx/64", 15, 30),
        Goal(f"{PATH}, transactions, 32 in flight, polling", "times SEQPACKET, 1 in flight", TRANSACTIONS,
             "transactions/seqpacket-1/64", 20, 40, note="unlike: the peer asks one by one"),
        Goal(f"{PATH}, transactions, 32 in flight, polling", "times SEQPACKET, 32 in flight", TRANSACTIONS,
             "transactions/seqpacket-32/64", 20, 40),
        Goal(f"{PATH}, transaction, polling round trip", "times the cache line's", f"{TRIP}-poll/64", LINE, 3, 2.2,
             most=True),
        Goal(f"{PATH}, transaction, sleeping round trip", "times eventfd's", f"{TRIP}-sleep/64",
             "roundtrip/eventfd/8", 1.15, 1.05, most=True),
        Goal(f"{PATH}, transaction, spin then sleep", "times its polling", f"{TRIP}-spin-then-sleep/64",
             f"{TRIP}-poll/64", 1.15, 1.0, most=True),
    ]

# Goals that no row measures yet: said aloud rather than left out.
for FIGURE, VERSUS, MUST, AIM, MOST in (
        ("ring, instructions, 64 B, batch of 32", "callgrind: script/ring-instructions", 110, 95, True),
        ("ring, instructions, 64 B, one by one", "callgrind: script/ring-instructions", 150, 125, True),
        ("whole path, instructions per packet, both ends", "callgrind", 300, 220, True),
        ("external data, 1 MiB by reference", "times copying it through the ring", 3, 5, False),
        ("1 to 1,024 channels, one busy: cost of a packet", "times one channel", 1.1, 1.0, True),
        ("1 to 1,024 channels, all busy: cost of a packet", "times one channel", 2, 1.3, True),
        ("idle: CPU of a server with 1,024 silent channels", "% of one CPU", 0.1, 0, True),
        ("memory of an idle channel beyond its rings", "KiB", 4, 2, True)):
    GOALS.append(Goal(FIGURE, VERSUS, "none", None, MUST, AIM, most=MOST))


def judge(goal, results, regime):
    """(ours, peer, ratio, verdict): numbers or None, and met, aim or MISSED, or why it was not measured."""

    def best(rows):
        values = [(v, row) for row in rows if (v := results.value(row, regime, goal.field)) is not None]
        if not values:
            return None
        return (min if rows[0].startswith("roundtrip") else max)(values)[0]

    ours = best(goal.ours)
    if ours is None:
        return None, None, None, "not measured: " + results.why_not(goal.ours[0])
    peer = 1 if goal.peer is None else best(goal.peer)
    if peer is None:
        return ours, None, None, "not measured: peer: " + results.why_not(goal.peer[0])
    ratio = ours / peer
    good = (lambda bound: ratio <= bound) if goal.most else (lambda bound: ratio >= bound)
    verdict = "met, and the aim" if good(goal.aim) else "met" if good(goal.must) else "MISSED"
    return ours, goal.peer and peer, ratio, verdict
