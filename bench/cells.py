"""What kmcl_bench wrote, grouped by row and by regime of the machine."""
import json
import statistics


def load(path):
    """(headers, cells): the JSON objects of a cells.jsonl."""
    headers, cells = [], []
    with open(path, encoding="utf-8") as file:
        for line in file:
            value = json.loads(line)
            (cells if "row" in value else headers).append(value)
    return headers, cells


def regime_border(cells):
    """Where the probes of accepted cells fall into two groups: the middle of their widest gap, if that is wide; or
    None. A virtual machine's CPUs may move apart and together again, and then nothing compares."""
    probes = sorted(max(cell["probes"]) for cell in cells if cell["accepted"])
    gaps = [(b / a, (a * b) ** 0.5) for a, b in zip(probes, probes[1:])]
    widest = max(gaps, default=(1, 0))
    return widest[1] if widest[0] >= 1.5 else None


class Results:
    """Medians of accepted cells: results.value(row, regime)."""

    def __init__(self, cells):
        self.border = regime_border(cells)
        self.accepted = {}
        self.failures = {}
        self.dropped = {}
        for cell in cells:
            row = cell["row"]
            if "failure" in cell:
                self.failures[row] = cell["failure"]
            elif cell["accepted"]:
                self.accepted.setdefault((row, self.regime(cell)), []).append(cell)
            else:
                self.dropped[row] = self.dropped.get(row, 0) + 1
        self.regimes = sorted({regime for _, regime in self.accepted},
                              key=("near", "far", "only").index)

    def regime(self, cell):
        if self.border is None:
            return "only"
        return "near" if max(cell["probes"]) < self.border else "far"

    def rows(self):
        return sorted({row for row, _ in self.accepted} | set(self.failures) | set(self.dropped))

    def values(self, row, regime, field=None):
        """One number of each accepted cell; the rate, or the middle round trip, unless a field is named."""
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
        probes = [p for (_, r), cells in self.accepted.items() if r == regime for cell in cells for p in cell["probes"]]
        return statistics.median(probes) if probes else None

    def why_not(self, row):
        if row in self.failures:
            return self.failures[row]
        if any(name == row for name, _ in self.accepted):
            return "no cell of it in this regime"
        if row in self.dropped:
            return f"the machine changed, or did something else, during each of {self.dropped[row]} cells"
        return "there is no row for it yet" if row == "none" else "no such row in this run"
