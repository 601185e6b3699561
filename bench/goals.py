"""The goals, each with what it is measured by. A goal that was not measured is listed with the reason."""


class Goal:
    """`ours` and `peer` are rows, or tuples of rows of which the best counts. The ratio must be at least `must`, or,
    with `most`, at most. `cost`: rates are compared as costs, and of several rows of ours the dearest counts.
    `field` of a cell, in `unit`, and no ratio. `anywhere`: the same whether the CPUs are near or far."""

    def __init__(self, figure, versus, ours, peer, must, aim, most=False, cost=False, field=None, unit="",
                 anywhere=False, note=""):
        self.figure, self.versus, self.must, self.aim, self.most, self.cost = figure, versus, must, aim, most, cost
        self.ours = ours if isinstance(ours, tuple) else (ours,)
        self.peer = peer if isinstance(peer, tuple) or peer is None else (peer,)
        self.field, self.unit, self.anywhere, self.note = field, unit, anywhere, note


LINUX_64 = ("stream/linux-iterate/64", "stream/linux-read/64")
LINUX_4096 = ("stream/linux-iterate/4096", "stream/linux-read/4096")
BOOST_64 = ("stream/boost-spsc-pop/64", "stream/boost-spsc-all/64")
ZEROMQ_64 = ("stream/zeromq/64", "stream/zeromq-unpinned/64")
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
    RAW = f"raw mode, {WHERE}, polling round trip"
    GOALS += [
        Goal(f"{RAW}, in place", "times the cache line's", f"roundtrip/raw-{WHERE}-in-place/64", LINE, 1.4, 1.2,
             most=True),
        Goal(f"{RAW}, copied out", "times the cache line's", f"roundtrip/raw-{WHERE}-copied/64", LINE, 1.8, 1.4,
             most=True),
        Goal(f"{RAW}, copied out", "times Linux", f"roundtrip/raw-{WHERE}-copied/64", "roundtrip/linux/64", 0.75, 0.6,
             most=True),
    ]
GOALS += [
    Goal("ring, 64 B write and read with copy-out, batch of 32", "instructions", "instructions/ring-64-batch-32", None,
         110, 95, most=True, anywhere=True),
    Goal("ring, 64 B write and read with copy-out, one by one", "instructions", "instructions/ring-64-batch-1", None,
         150, 125, most=True, anywhere=True),
]
for WHERE in ("shm", "local"):
    STREAM, PATH = f"stream/kmcl-{WHERE}/64", f"whole path, {WHERE}"
    TRANSACTIONS, TRIP = f"transactions/kmcl-{WHERE}/64", f"roundtrip/kmcl-{WHERE}"
    ONE_EACH = f"{PATH}, 64 B stream, one VmbPacketSend each"
    GOALS += [
        Goal(ONE_EACH, "times Linux's bare ring", STREAM, LINUX_64, 2.5, 5),
        Goal(ONE_EACH, "times ZeroMQ", STREAM, ZEROMQ_64, 6, 10),
        Goal(ONE_EACH, "times iceoryx", STREAM, "stream/iceoryx/64", 15, 30),
        Goal(ONE_EACH, "times SEQPACKET", STREAM, "stream/seqpacket/64", 20, 40),
        Goal(f"{PATH}, transactions, 32 in flight, polling", "times SEQPACKET, 1 in flight", TRANSACTIONS,
             "transactions/seqpacket-1/64", 20, 40, note="unlike: the peer asks one by one"),
        Goal(f"{PATH}, transactions, 32 in flight, polling", "times SEQPACKET, 32 in flight", TRANSACTIONS,
             "transactions/seqpacket-32/64", 20, 40),
        Goal(f"{PATH}, transaction, polling round trip", "times the cache line's", f"{TRIP}-poll/64", LINE, 3, 2.2,
             most=True),
        Goal(f"{PATH}, transaction, sleeping round trip", "times eventfd's", f"{TRIP}-sleep/64",
             "roundtrip/eventfd/8", 1.15, 1.05, most=True),
        Goal(f"{PATH}, transaction, adaptive (the default)", "times its polling", f"{TRIP}-adaptive/64",
             f"{TRIP}-poll/64", 1.15, 1.0, most=True),
        Goal(f"{PATH}, transaction, 50 us, then sleep", "times its polling", f"{TRIP}-window/64",
             f"{TRIP}-poll/64", 1.15, 1.0, most=True),
    ]
GOALS.append(Goal("whole path, 64 B, both ends", "instructions", "instructions/path-64", None, 300, 220, most=True,
                  anywhere=True))
for WHERE in ("shm", "local"):
    for FRESH, KIND in (("", "as it lies"), ("-fresh", "written anew")):
        for SIZE in (64, 4):
            GOALS.append(Goal(f"external data, {WHERE}, 1 MiB {KIND}, by reference",
                              f"times copying it through the ring, {SIZE} KiB a packet",
                              f"blocks/reference-{WHERE}{FRESH}/1048576",
                              f"blocks/copy{SIZE}k-{WHERE}{FRESH}/1048576", 3, 5))
for WHERE in ("shm", "local"):
    for BUSY, MUST, AIM in (("one", 1.1, 1.0), ("all", 2, 1.3)):
        GOALS.append(Goal(f"1 to 1,024 channels, {WHERE}, {BUSY} busy: cost of a transaction", "times one channel",
                          tuple(f"channels/{BUSY}-busy-{WHERE}/{count}" for count in (8, 64, 256, 1024)),
                          f"channels/one-busy-{WHERE}/1", MUST, AIM, most=True, cost=True))
for WHERE in ("shm", "local"):
    GOALS.append(Goal(f"a quiet channel, {WHERE}, beside one that floods its threads: 99th percentile of a request",
                      "times its own alone", f"quiet/beside-a-flood-{WHERE}/64", f"quiet/alone-{WHERE}/64", 3, 1,
                      most=True, field="p99_us", unit="us"))
for WHERE, WHOSE in (("shm", "a server's"), ("local", "a program's, both ends in it,")):
    GOALS.append(Goal(f"idle, {WHERE}: {WHOSE} CPU time with 1,024 silent channels", "% of one CPU",
                      f"idle/cpu-{WHERE}/1024", None, 0.1, 0, most=True, field="cpu_percent", unit="%", anywhere=True))
GOALS.append(Goal("memory of an idle channel beyond its rings, at the end that needs more", "KiB",
                  "idle/memory-shm/1024", None, 4, 2, most=True, field="larger_kib", unit="KiB", anywhere=True))


def judge(goal, results, regime):
    """(ours, peer, ratio, verdict): numbers or None, and met, aim or MISSED, or why it was not measured."""

    def best(rows, dearest=False):
        values = [v for row in rows if (v := results.value(row, regime, goal.field)) is not None]
        if not values:
            return None
        return (min if dearest or rows[0].startswith("roundtrip") else max)(values)

    ours = best(goal.ours, goal.cost)
    if ours is None:
        return None, None, None, "not measured: " + results.why_not(goal.ours[-1])
    peer = 1 if goal.peer is None else best(goal.peer)
    if peer is None:
        return ours, None, None, "not measured: peer: " + results.why_not(goal.peer[0])
    ratio = peer / ours if goal.cost else ours / peer
    # What prints as the bound is at the bound.
    good = (lambda bound: round(ratio, 2) <= bound) if goal.most else (lambda bound: round(ratio, 2) >= bound)
    verdict = "met, and the aim" if good(goal.aim) else "met" if good(goal.must) else "**MISSED**"
    return ours, goal.peer and peer, ratio, verdict
