#!/usr/bin/env python3
"""Tables and plots from what kmcl_bench wrote.

    report.py bench/results/DATE      reads cells.jsonl there, writes report.md, summary.json and the plots

Prints the table of goals. Exit status 0 whatever it says: a benchmark reports, it does not gate."""
import json
import os
import statistics
import sys

import svg
from cells import Results, counts, load
from goals import GOALS, judge


def number(value, row, unit=""):
    """For a table: a rate, a time, or a number of what the row counts."""
    if value is None:
        return "-"
    if unit or row.startswith("instructions"):
        return f"{value:.3g} {unit}".rstrip() if value < 1000 else f"{value:.0f}"
    if row.startswith("roundtrip"):
        return f"{value / 1000:.2f} us" if value >= 10000 else f"{value:.0f} ns"
    if row.startswith(("idle", "quiet")):
        return f"{value:.3g}"
    return f"{value / 1e6:.2f} M/s" if value >= 1e5 else f"{value / 1e3:.2f} k/s"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def limits_table(results):
    """What bare copies of the same bytes reach, and with it the most that a ring could be ahead of a peer here."""
    rows = []
    for regime in results.regimes:
        for size in (64, 4096):
            names = ("bare-batch32", "ring-batch32", "linux-iterate", "linux-read")
            bare, ring, *linux = (results.value(f"stream/{name}/{size}", regime) for name in names)
            if bare is None or ring is None or not any(linux):
                continue
            linux = max(filter(None, linux))
            rows.append((f"{size} B", regime, number(bare, "stream"), number(ring, "stream"), f"{ring / bare:.2f}",
                         f"{bare / linux:.2f}"))
    head = ("stream", "regime", "bare copies", "our ring, batches of 32", "of bare copies", "bare copies, times Linux")
    return table(head, rows) if rows else ""


def goals_table(results):
    rows, verdicts, unseen = [], [], {}
    for goal in GOALS:
        regimes = [None] if goal.anywhere else results.regimes or [None]
        judged = {regime: judge(goal, results, regime) for regime in regimes}
        whole = any(ratio is not None for _, _, ratio, _ in judged.values())
        for regime, (ours, peer, ratio, verdict) in judged.items():
            if ratio is None and whole:  # said once for all of them
                unseen[regime] = unseen.get(regime, 0) + 1
                continue
            sign = "at most " if goal.most else ""
            shown = "-" if ratio is None or not goal.peer else f"{ratio:.2f}"
            rows.append((goal.figure, regime or "any", number(ours, goal.ours[0], goal.unit),
                         f"{goal.versus} ({number(peer, goal.peer[0], goal.unit)})" if peer else goal.versus,
                         shown, f"{sign}{goal.must:g}", f"{goal.aim:g}",
                         verdict + (f" ({goal.note})" if goal.note else "")))
            verdicts.append({"figure": goal.figure, "versus": goal.versus, "regime": regime, "ours": ours,
                             "peer": peer, "ratio": ratio, "must": goal.must, "aim": goal.aim,
                             "verdict": verdict.strip("*"), "note": goal.note})
    head = ("figure", "regime", "ours", "compared", "ratio", "must", "aim", "verdict")
    text = table(head, rows)
    for regime, count in unseen.items():
        text += f"\n{count} goals have no line for the regime *{regime}*, for want of cells in it.\n"
    return text, verdicts


def rows_table(results, regime):
    rows = []
    for row in results.rows():
        values = results.values(row, regime)
        if values:
            quantiles = results.quantiles(row, regime)
            tail = f"{quantiles['p50']:.0f} / {quantiles['p99']:.0f}" if quantiles else ""
            rows.append((f"`{row}`", number(statistics.median(values), row), number(min(values), row),
                         number(max(values), row), tail, len(values)))
    return table(("row", "median", "least", "most", "p50 / p99 ns", "cells"), rows)


NAMES = (  # what the plots show: row, label
    ("ring-batch32", "kmcl ring, batches of 32"), ("ring-each-adaptive", "kmcl ring, each published"),
    ("linux-iterate", "Linux ring_buffer.c"), ("boost-spsc-all", "Boost SPSC (64 B only)"),
    ("kmcl-shm", "kmcl whole path, shm"), ("zeromq", "ZeroMQ"), ("pipe", "pipe"), ("iceoryx", "iceoryx"),
    ("seqpacket", "SEQPACKET"), ("boost-mq", "Boost.Interprocess queue"), ("posix-mq", "POSIX queue"), ("nng", "nng"),
)
TRIPS = (
    ("cache-line/8", "cache line"), ("ring-in-place/64", "kmcl ring, in place"), ("ring-copied/64", "kmcl ring, copied"),
    ("linux/64", "Linux ring_buffer.c"), ("boost-spsc/64", "Boost SPSC"), ("kmcl-shm-poll/64", "kmcl transaction, polling"),
    ("kmcl-shm-adaptive/64", "kmcl transaction, adaptive"), ("kmcl-shm-sleep/64", "kmcl transaction, sleeping"),
    ("eventfd/8", "eventfd"), ("iceoryx/64", "iceoryx"), ("boost-mq/64", "Boost.Interprocess queue"),
    ("zeromq/64", "ZeroMQ"), ("nng/64", "nng"),
)
CHANNELS = (
    ("one-busy-shm", "one busy, shm"), ("all-busy-shm", "all busy, shm"),
    ("one-busy-local", "one busy, local"), ("all-busy-local", "all busy, local"),
)


def sizes_of(results, kind):
    return sorted({int(row.rsplit("/", 1)[1]) for row in results.rows() if row.startswith(kind + "/")})


def plots(results, regime, folder):
    """Writes what there are rows for; returns [(file, caption)]."""
    made = []

    def add(name, caption, draw, *args, **more):
        if draw(os.path.join(folder, name), *args, **more):
            made.append((name, caption))

    sizes = sizes_of(results, "stream")
    series = [(label, [(size, v) for size in sizes if (v := results.value(f"stream/{name}/{size}", regime))])
              for name, label in NAMES]
    add(f"throughput-{regime}.svg", "Throughput by message size", svg.lines,
        f"One-way messages per second ({regime})", "message size", "messages per second", series, x_marks=sizes,
        mark_name=svg.human_bytes)
    trips = [(label, [(float(p[1:]), ns) for p, ns in results.quantiles(f"roundtrip/{name}", regime).items()])
             for name, label in TRIPS]
    add(f"latency-{regime}.svg", "Round trips by percentile", svg.lines, f"Round trips of 64 B ({regime})",
        "percentile", "nanoseconds", trips, x_marks=[1, 10, 25, 50, 75, 90, 99], log_x=False)
    numbers = sizes_of(results, "channels")
    first = {where: results.value(f"channels/one-busy-{where}/1", regime) for where in ("shm", "local")}
    scaling = []
    for name, label in CHANNELS:
        alone = first[name.rsplit("-", 1)[1]]
        points = [(n, alone / v) for n in numbers if alone and n > 1 and (v := results.value(f"channels/{name}/{n}", regime))]
        scaling.append((label, [(1, 1.0)] + points if points else []))
    add(f"channels-{regime}.svg", "Cost of a transaction by number of open channels", svg.lines,
        f"Cost of a transaction beside other channels ({regime})", "open channels", "times one channel", scaling,
        x_marks=numbers, log_y=False, mark_name=str)
    return made


def instruction_plots(results, folder):
    made = []
    for case, title in (("path-64", "whole path, no completion"), ("path-transactions-64", "whole path, transaction")):
        functions = dict(results.instructions.get(f"instructions/{case}", {}))
        total = functions.pop("total", 0)
        largest = sorted(functions.items(), key=lambda item: -item[1])[:12]
        if svg.bars(os.path.join(folder, f"instructions-{case}.svg"),
                    f"Instructions a packet of 64 B, {title}: {total:.0f}", "instructions",
                    [(short_name(name), count) for name, count in largest]):
            made.append((f"instructions-{case}.svg", f"Instructions by function, {title}"))
    return made


def short_name(function):
    """Without parameters and what all names have in common."""
    name = function.replace("(anonymous namespace)::", "").replace("kmcl::", "")
    depth, kept = 0, []
    for letter in name:
        depth += letter in "(<"
        if depth == 0:
            kept.append(letter)
        depth -= letter in ")>"
    return "".join(kept).strip() or function


def extras_table(results):
    """Of rows that find something else than a rate or a time."""
    rows = []
    for row in results.rows():
        for name in ("cpu_percent", "client_kib", "server_kib", "queue_messages"):
            values = results.values(row, None, name)
            if values:
                rows.append((f"`{row}`", name, f"{statistics.median(values):.4g}", len(values)))
    return table(("row", "of it", "median", "cells"), rows) if rows else ""


def main(folder):
    headers, cells = load(os.path.join(folder, "cells.jsonl"))
    results = Results(cells, counts(os.path.join(folder, "instructions.txt")))
    table_text, verdicts = goals_table(results)
    for name in os.listdir(folder):  # of an earlier call: regimes may have other names now
        if name.endswith(".svg"):
            os.remove(os.path.join(folder, name))
    absent = {a["name"]: a["why"] for header in headers for a in header["absent"]}
    text = [f"# Benchmark of {headers[0]['run']}\n",
            f"{headers[0]['cpu']}, {headers[0]['cpus']} CPUs, Linux {headers[0]['kernel']}, g++ "
            f"{headers[0]['compiler']}. Cells of {headers[0]['milliseconds']:g} ms; medians.\n"]
    for regime in results.regimes:
        middle, least, most, count = results.probe(regime)
        text.append(f"Regime *{regime}*: a cache line's round trip took {middle:.0f} ns ({least:.0f} to {most:.0f}) "
                    f"around {count} cells.\n")
    text += ["## Goals\n", table_text]
    limits = limits_table(results)
    if limits:
        text += ["## What the machine allows\n", limits]
    missing = [(f"`{row}`", why) for row, why in sorted(results.failures.items())]
    missing += [(f"`{row}`", results.why_not(row)) for row in sorted(results.dropped)
                if not any(name == row for name, _ in results.accepted) and row not in results.failures]
    missing += [(name, why) for name, why in sorted(absent.items())]
    for file, caption in instruction_plots(results, folder):
        text += [f"![{caption}]({file})\n"]
    for regime in results.regimes:
        for file, caption in plots(results, regime, folder):
            text += [f"![{caption}]({file})\n"]
        text += [f"## All rows, {regime}\n", rows_table(results, regime)]
    text += ["## Other figures\n", extras_table(results)]
    text += ["## Not measured\n", table(("what", "why"), missing) if missing else "Nothing is missing.\n"]
    with open(os.path.join(folder, "report.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(text))
    with open(os.path.join(folder, "summary.json"), "w", encoding="utf-8") as file:
        json.dump({"runs": headers, "regimes": {r: results.probe(r)[0] for r in results.regimes}, "goals": verdicts,
                   "rows": {row: {r: results.values(row, r) for r in results.regimes if results.values(row, r)}
                            for row in results.rows()}, "instructions": results.instructions,
                   "failures": results.failures}, file, indent=1)
        file.write("\n")
    print(table_text)
    if limits:
        print(limits)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
