"""What kmcl_bench wrote, grouped by row and by regime of the machine."""
import json
import statistics


def load(path):
    """(headers, cells): the JSON objects of a cells.jsonl. Half a line of a call that was killed is left out."""
    headers, cells = [], []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            (cells if "row" in value else headers).append(value)
    return headers, cells


def counts(path):
    """{"instructions/CASE": {function: instructions a packet}} of what script/instructions has counted."""
    found = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                words = line.split(maxsplit=2)
                if len(words) == 3 and words[0] != "#":
                    found.setdefault(f"instructions/{words[0]}", {})[words[2].strip()] = float(words[1])
    except FileNotFoundError:
        pass
    return found


# A virtual machine's CPUs may move apart and together again, and then nothing compares: a gap of this ratio between
# the probes of two cells is between two regimes,
REGIME_GAP = 1.5
# of which one with fewer cells than this part of all is a moment, not a regime.
REGIME_PART = 0.03


def regimes_of(cells):
    """[(name, lowest probe, highest probe)] of the accepted cells, nearest first. The one with most cells is "usual"."""
    probes = sorted(max(cell["probes"]) for cell in cells if cell["accepted"])
    groups = []
    for probe in probes:
        if groups and probe < groups[-1][-1] * REGIME_GAP:
            groups[-1].append(probe)
        else:
            groups.append([probe])
    groups = [group for group in groups if len(group) >= REGIME_PART * len(probes)]
    if not groups:
        return []
    usual = max(range(len(groups)), key=lambda i: len(groups[i]))

    def name(i):
        if i == usual:
            return "usual"
        distance = abs(i - usual)
        return ("nearer" if i < usual else "farther") + ("" if distance == 1 else f"-{distance}")

    return [(name(i), group[0], group[-1]) for i, group in enumerate(groups)]


class Results:
    """Medians of accepted cells: results.value(row, regime). The regime None is all of them together."""

    def __init__(self, cells, instructions):
        self.bounds = regimes_of(cells)
        self.regimes = [name for name, _, _ in self.bounds]
        self.instructions = instructions
        self.accepted = {}
        self.failures = {}
        self.dropped = {}
        for cell in cells:
            row = cell["row"]
            regime = self.regime(cell)
            if "failure" in cell:
                self.failures[row] = cell["failure"]
            elif cell["accepted"] and regime:
                self.accepted.setdefault((row, regime), []).append(cell)
                self.accepted.setdefault((row, None), []).append(cell)
            else:
                self.dropped[row] = self.dropped.get(row, 0) + 1
        for row, _ in self.accepted:  # a later call had more luck
            self.failures.pop(row, None)

    def regime(self, cell):
        probe = max(cell["probes"])
        return next((name for name, low, high in self.bounds if low <= probe <= high), None)

    def rows(self):
        return sorted({row for row, _ in self.accepted} | set(self.failures) | set(self.dropped))

    def values(self, row, regime, field=None):
        """One number of each accepted cell; the rate, or the middle round trip, unless a field is named."""
        if row in self.instructions:
            return [self.instructions[row]["total"]]
        field = field or ("median_nanoseconds" if row.startswith("roundtrip") else "per_second")
        return [cell[field] for cell in self.accepted.get((row, regime), []) if field in cell]

    def value(self, row, regime, field=None):
        values = self.values(row, regime, field)
        return statistics.median(values) if values else None

    def quantiles(self, row, regime):
        """{p50: ns, ...}: the median over the cells of each."""
        cells = [cell["nanoseconds"] for cell in self.accepted.get((row, regime), []) if "nanoseconds" in cell]
        return {name: statistics.median(cell[name] for cell in cells) for name in cells[0]} if cells else {}

    def probe(self, regime):
        """(median, least, most) nanoseconds of a cache line's round trip, and the number of cells."""
        cells = [cell for (_, r), cells in self.accepted.items() if r == regime for cell in cells]
        probes = [p for cell in cells for p in cell["probes"]]
        return statistics.median(probes), min(probes), max(probes), len(cells)

    def why_not(self, row):
        if row in self.failures:
            return self.failures[row]
        if any(name == row for name, _ in self.accepted):
            return "no cell of it in this regime"
        if row in self.dropped:
            return f"the machine changed, or did something else, during each of {self.dropped[row]} cells"
        if row.startswith("instructions/"):
            return "nothing was counted in this run (script/instructions)"
        return "not in this run"
