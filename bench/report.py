#!/usr/bin/env python3
"""Tables and plots from what kmcl_bench wrote.

    report.py bench/results/DATE      reads cells.jsonl there, writes report.md, summary.json and the plots

Prints the table of goals. Exit status 0 whatever it says: a benchmark reports, it does not gate."""
import json
import os
import statistics
import sys

import svg
from cells import Results, load
from goals import GOALS, judge


def number(value, row):
    """For a table: a rate, or a time."""
    if value is None:
        return "-"
    if row.startswith("roundtrip"):
        return f"{value / 1000:.2f} us" if value >= 10000 else f"{value:.0f} ns"
    return f"{value / 1e6:.2f} M/s" if value >= 1e5 else f"{value / 1e3:.2f} k/s"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def goals_table(results):
    rows, verdicts = [], []
    for goal in GOALS:
        for regime in results.regimes or ["only"]:
            ours, peer, ratio, verdict = judge(goal, results, regime)
            sign = "at most " if goal.most else ""
            rows.append((goal.figure, regime, number(ours, goal.ours[0]),
                         f"{goal.versus} ({number(peer, goal.peer[0])})" if peer else goal.versus,
                         "-" if ratio is None else f"{ratio:.2f}", f"{sign}{goal.must:g}", f"{goal.aim:g}", verdict))
            verdicts.append({"figure": goal.figure, "versus": goal.versus, "regime": regime, "ours": ours,
                             "peer": peer, "ratio": ratio, "must": goal.must, "aim": goal.aim, "verdict": verdict,
                             "note": goal.note})
    head = ("figure", "regime", "ours", "compared", "ratio", "must", "aim", "verdict")
    return table(head, rows), verdicts


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
    ("kmcl-shm", "kmcl whole path, shm"), ("kmcl-local", "kmcl whole path, local"), ("pipe", "pipe"),
    ("seqpacket", "SEQPACKET"),
)


TRIPS = (
    ("cache-line/8", "cache line"), ("ring-in-place/64", "kmcl ring, in place"), ("ring-copied/64", "kmcl ring, copied"),
    ("linux/64", "Linux ring_buffer.c"), ("boost-spsc/64", "Boost SPSC"), ("kmcl-shm-poll/64", "kmcl transaction, polling"),
    ("kmcl-shm-spin-then-sleep/64", "kmcl, spin then sleep"), ("kmcl-shm-sleep/64", "kmcl, sleeping"),
    ("eventfd/8", "eventfd"),
)


def plots(results, regime, folder):
    """Writes what there are rows for; returns [(file, caption)]."""
    made = []
    sizes = sorted({int(row.rsplit("/", 1)[1]) for row in results.rows() if row.startswith("stream/")})
    series = [(label, [(size, v) for size in sizes if (v := results.value(f"stream/{name}/{size}", regime))])
              for name, label in NAMES]
    if svg.lines(os.path.join(folder, f"throughput-{regime}.svg"), f"One-way messages per second ({regime})",
                 "message size, bytes", "messages per second", series, x_marks=sizes):
        made.append((f"throughput-{regime}.svg", "Throughput by message size"))
    trips = [(label, [(float(p[1:]), ns) for p, ns in results.quantiles(f"roundtrip/{name}", regime).items()])
             for name, label in TRIPS]
    marks = [1, 10, 25, 50, 75, 90, 99]
    if svg.lines(os.path.join(folder, f"latency-{regime}.svg"), f"Round trips of 64 B ({regime})", "percentile",
                 "nanoseconds", trips, x_marks=marks, log_x=False):
        made.append((f"latency-{regime}.svg", "Round trips by percentile"))
    return made


def main(folder):
    headers, cells = load(os.path.join(folder, "cells.jsonl"))
    results = Results(cells)
    table_text, verdicts = goals_table(results)
    absent = {a["name"]: a["why"] for header in headers for a in header["absent"]}
    text = [f"# Benchmark of {headers[0]['run']}\n",
            f"{headers[0]['cpu']}, {headers[0]['cpus']} CPUs, Linux {headers[0]['kernel']}, g++ "
            f"{headers[0]['compiler']}. Cells of {headers[0]['milliseconds']:g} ms; medians.\n",
            "A cache line's round trip took " +
            " and ".join(f"{results.probe(r):.0f} ns ({r})" for r in results.regimes) + ".\n",
            "## Goals\n", table_text]
    missing = [(f"`{row}`", why) for row, why in sorted(results.failures.items())]
    missing += [(name, why) for name, why in sorted(absent.items())]
    for regime in results.regimes:
        for file, caption in plots(results, regime, folder):
            text += [f"![{caption}]({file})\n"]
        text += [f"## All rows, {regime}\n", rows_table(results, regime)]
    text += ["## Not measured\n", table(("what", "why"), missing) if missing else "Nothing is missing.\n"]
    with open(os.path.join(folder, "report.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(text))
    with open(os.path.join(folder, "summary.json"), "w", encoding="utf-8") as file:
        json.dump({"runs": headers, "regimes": {r: results.probe(r) for r in results.regimes}, "goals": verdicts,
                   "rows": {row: {r: results.values(row, r) for r in results.regimes if results.values(row, r)}
                            for row in results.rows()}, "failures": results.failures}, file, indent=1)
        file.write("\n")
    print(table_text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
