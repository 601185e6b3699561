"""Small charts as SVG, with nothing but the standard library.

Colours are of middle brightness and the background is transparent, so that a chart reads on white and on dark
pages alike."""
import math
from xml.sax.saxutils import escape

PALETTE = ("#2f81f7", "#e5534b", "#3fa45b", "#c77d1b", "#986ee2", "#1a9e9e", "#d15b9e", "#8a8a2c", "#7d7d7d")
INK = "#7a7f87"
GRID = "#7a7f8740"
FONT = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"'


class Canvas:
    def __init__(self, width, height, title):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" {FONT} font-size="12" fill="{INK}">',
            f"<title>{escape(title)}</title>"]
        self.text(width / 2, 20, title, "middle", 'font-size="14" font-weight="600"')

    def line(self, x1, y1, x2, y2, colour=GRID, width=1, more=""):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'stroke="{colour}" stroke-width="{width}"{more}/>')

    def text(self, x, y, words, anchor="start", more=""):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>')

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(self.parts) + "\n</svg>\n")


def human(value):
    """1500000 -> 1.5M; three digits are enough for an axis."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def human_bytes(value):
    return f"{value // 1024} KiB" if value >= 1024 else f"{value} B"


class Axis:
    """Maps values to pixels, in proportion or by their logarithm."""

    def __init__(self, values, pixels, logarithmic, marks=None):
        low, high = min(values), max(values)
        self.logarithmic = logarithmic
        if logarithmic:
            if marks is None:
                low, high = 10 ** math.floor(math.log10(low) + 1e-9), 10 ** math.ceil(math.log10(high) - 1e-9)
                high = max(high, low * 10)
                marks = [10.0 ** e for e in range(round(math.log10(low)), round(math.log10(high)) + 1)]
        else:
            low = min(low, 0)
            step = 10 ** math.floor(math.log10(max(high, 1e-9)))
            step = next(step * f for f in (0.2, 0.5, 1, 2) if high / (step * f) <= 6)
            high = math.ceil(high / step) * step
            marks = marks or [step * i for i in range(round(high / step) + 1)]
        self.marks = marks
        self.low, self.high, self.pixels = low, high, pixels

    def __call__(self, value):
        f = math.log if self.logarithmic else float
        begin, end = self.pixels
        spread = f(self.high) - f(self.low)
        return begin + (end - begin) * ((f(value) - f(self.low)) / spread if spread else 0.5)


def lines(path, title, x_label, y_label, series, x_marks=None, log_x=True, log_y=True, mark_name=human):
    """series: [(name, [(x, y), ...])]; a single point is drawn as a dot alone."""
    series = [(name, points) for name, points in series if points]
    if not series:
        return False
    width, height, left, right, top, bottom = 860, 420, 70, 230, 40, 56
    canvas = Canvas(width, height, title)
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points]
    x_axis = Axis(xs, (left, width - right), log_x, x_marks or sorted(set(xs)))
    y_axis = Axis(ys, (height - bottom, top), log_y)
    for mark in y_axis.marks:
        canvas.line(left, y_axis(mark), width - right, y_axis(mark))
        canvas.text(left - 8, y_axis(mark) + 4, human(mark), "end")
    for mark in x_axis.marks:
        canvas.line(x_axis(mark), top, x_axis(mark), height - bottom)
        canvas.text(x_axis(mark), height - bottom + 18, mark_name(mark), "middle")
    canvas.text((left + width - right) / 2, height - 12, x_label, "middle")
    canvas.text(18, (top + height - bottom) / 2, y_label, "middle",
                f'transform="rotate(-90 18 {(top + height - bottom) / 2:.1f})"')
    for i, (name, points) in enumerate(series):
        colour = PALETTE[i % len(PALETTE)]
        dashes = ' stroke-dasharray="6 4"' if i >= len(PALETTE) else ""
        where = [(x_axis(x), y_axis(y)) for x, y in sorted(points)]
        if len(where) > 1:
            path_points = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
            canvas.parts.append(f'<polyline points="{path_points}" fill="none" stroke="{colour}" '
                                f'stroke-width="2"{dashes}/>')
        for x, y in where:
            canvas.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>')
        y = top + 8 + i * 19
        canvas.line(width - right + 14, y, width - right + 34, y, colour, 3, dashes)
        canvas.text(width - right + 40, y + 4, name)
    canvas.save(path)
    return True


def bars(path, title, x_label, values):
    """values: [(name, value)], longest first."""
    if not values:
        return False
    width, left, right, top, row = 860, 420, 70, 40, 22
    height = top + row * len(values) + 40
    canvas = Canvas(width, height, title)
    axis = Axis([value for _, value in values], (left, width - right), False)
    for mark in axis.marks:
        canvas.line(axis(mark), top, axis(mark), height - 36)
        canvas.text(axis(mark), height - 22, human(mark), "middle")
    for i, (name, value) in enumerate(values):
        y = top + i * row
        short = name if len(name) <= 62 else name[:59] + "..."
        canvas.text(left - 8, y + 15, short, "end", 'font-size="11"')
        canvas.parts.append(f'<rect x="{left}" y="{y + 3}" width="{axis(value) - left:.1f}" height="{row - 6}" '
                            f'rx="2" fill="{PALETTE[0]}"/>')
        canvas.text(axis(value) + 6, y + 15, f"{value:.1f}", "start", 'font-size="11"')
    canvas.text((left + width - right) / 2, height - 4, x_label, "middle")
    canvas.save(path)
    return True
