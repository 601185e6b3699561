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


def both(make):
    """A goal that holds between two processes and within one."""
    return [make("shm"), make("local")]


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
