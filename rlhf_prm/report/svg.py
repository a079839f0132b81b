"""Small charts as inline SVG. Colours come from the page's style sheet, so that one drawing serves light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40
TURN, CHARACTER, LONGEST_LABEL = 40, 6.8, 24  # degrees; width of a character of 12 px; characters of a tick's label


@dataclass(frozen=True)
class Series:
    """One line: y over x, with an interval where ``low`` and ``high`` are known; ``style``: see ``report.styles``."""

    name: str
    x: Sequence[float | int]
    y: Sequence[float | int]
    low: Sequence[float | int] = ()
    high: Sequence[float | int] = ()
    style: int | str = 0


@dataclass(frozen=True)
class Chart:
    """A figure of the page: the drawing, its text alternative, its legend and the numbers behind it."""

    title: str
    description: str
    svg: Markup
    header: list[str]
    rows: list[list[str]]
    legend: list[tuple[str, int | str]] = field(default_factory=list)


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for reading: '–' where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return (
        f"{value:.{digits}g}"
        if abs(value) >= 1000 or 0 < abs(value) < 0.001
        else f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"
    )


def ticks(low: float | int, high: float | int, about: int = 5) -> list[float | int]:
    """Round values that cover [low, high]'s inside: steps of 1, 2 or 5 times a power of ten."""
    span = high - low or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Axes:
    """The plotting area and the way from data to pixels."""

    x_low: float | int
    x_high: float | int
    y_low: float | int
    y_high: float | int
    bottom: int = BOTTOM  # from the plot's floor to the drawing's

    @property
    def height(self) -> int:
        return HEIGHT - BOTTOM + self.bottom

    def px(self, x: float | int) -> float:
        return round(LEFT + (x - self.x_low) / ((self.x_high - self.x_low) or 1) * (WIDTH - LEFT - RIGHT), 1)

    def py(self, y: float | int) -> float:
        inner = HEIGHT - TOP - BOTTOM
        return round(TOP + (1 - (y - self.y_low) / ((self.y_high - self.y_low) or 1)) * inner, 1)

    def frame(
        self, x_label: str, y_label: str, x_ticks: Sequence[tuple[float | int, str]] | None = None, turned: bool = False
    ) -> str:
        """Grid lines, tick labels (``turned`` where they are too long to stand side by side) and axis names."""
        parts = []
        for tick in ticks(self.y_low, self.y_high):
            y = self.py(tick)
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{number(tick)}</text>')
        for tick, label in x_ticks or [(tick, number(tick)) for tick in ticks(self.x_low, self.x_high, 7)]:
            x, y = self.px(tick), HEIGHT - BOTTOM + 16
            place = f'text-anchor="end" transform="translate({x + 4} {y - 2}) rotate(-{TURN})"'
            place = place if turned else f'text-anchor="middle" x="{x}" y="{y}"'
            parts.append(f'<text class="tick" {place}>{escape(label)}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text class="axis" x="{middle}" y="{self.height - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
        y_middle = (TOP + HEIGHT - BOTTOM) / 2
        upright = f'transform="translate(12 {y_middle}) rotate(-90)" text-anchor="middle"'
        parts.append(f'<text class="axis" {upright}>{escape(y_label)}</text>')
        return "".join(parts)


def drawing(body: str, title: str, description: str, extra: str = "", height: int = HEIGHT) -> Markup:
    """The <svg> element with its text alternative."""
    alternative = f'role="img" tabindex="0" aria-label="{escape(title)}. {escape(description)}"'
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" {alternative}{extra}>'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{body}</svg>"
    )


def shortened(label: str, most: int) -> str:
    """The label, or its beginning; the table of numbers has it whole."""
    return label if len(label) <= most else f"{label[: most - 1]}…"


def finite(values: Sequence[float | int]) -> list[float | int]:
    return [value for value in values if value is not None and math.isfinite(value)]


@dataclass(frozen=True)
class Limit:
    """A dashed line across: what a measure must not pass."""

    name: str
    y: float | int
    style: int | str


def y_range(
    series: Sequence[Series], fixed: tuple[float | int, float | int] | None, limits: Sequence[Limit] = ()
) -> tuple[float | int, float | int]:
    """The fixed range if there is one, else the data's and the limits' with a margin of 5 %."""
    if fixed:
        return fixed
    values = [v for s in series for v in finite([*s.y, *s.low, *s.high])] + finite([limit.y for limit in limits])
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str = "update",
    y_label: str = "",
    fixed: tuple[float | int, float | int] | None = None,
    marks: Sequence[tuple[float | int, str]] = (),
    digits: int = 3,
    limits: Sequence[Limit] = (),
) -> Chart:
    """Lines over a shared x, with bands for intervals, dashed upright lines for ``marks`` (x, what happened) and lines
    across for ``limits``."""
    series = [s for s in series if finite(s.y)]
    limits = [limit for limit in limits if series and math.isfinite(limit.y)]
    xs = sorted({x for s in series for x in s.x})
    axes = Axes(float(xs[0]) if xs else 0.0, float(xs[-1]) if xs else 1.0, *y_range(series, fixed, limits))
    body = [axes.frame(x_label, y_label)]
    for limit in limits:
        path, told = f"M{LEFT} {axes.py(limit.y)}H{WIDTH - RIGHT}", f"{limit.name}: {number(limit.y, digits)}"
        body.append(f'<path class="limit c{limit.style}" d="{path}"><title>{escape(told)}</title></path>')
    body += [_line(axes, s) for s in series]
    for x, what in marks:
        if axes.x_low <= x <= axes.x_high:
            path = f"M{axes.px(x)} {TOP}V{HEIGHT - BOTTOM}"
            body.append(f'<path class="mark" d="{path}"><title>{escape(what)}</title></path>')
    body.append(f'<path class="cursor" d="M0 {TOP}V{HEIGHT - BOTTOM}"/>')
    header, rows = [x_label, *(s.name for s in series)], _table(xs, series, digits)
    pixels = ",".join(str(axes.px(x)) for x in xs)
    told = "; ".join([_trend(series, digits), *(f"{limit.name} at {number(limit.y, digits)}" for limit in limits)])
    svg = drawing("".join(body), title, told, f' data-px="{pixels}"')
    return Chart(title, told, svg, header, rows, [(s.name, s.style) for s in series])


def _line(axes: Axes, s: Series) -> str:
    points = [(axes.px(x), axes.py(y)) for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)]
    parts = []
    if s.low:
        kept = [(x, a, b) for x, a, b in zip(s.x, s.low, s.high, strict=True) if math.isfinite(a) and math.isfinite(b)]
        edge = [(axes.px(x), axes.py(min(b, axes.y_high))) for x, _, b in kept]
        edge += [(axes.px(x), axes.py(max(a, axes.y_low))) for x, a, _ in reversed(kept)]
        if len(kept) > 1:
            parts.append(f'<path class="band c{s.style}" d="M{_path(edge)}Z"/>')
        elif kept:
            parts.append(f'<path class="whisker c{s.style}" d="M{_path([edge[0], edge[-1]])}"/>')
    parts.append(f'<path class="line c{s.style}" d="M{_path(points)}"/>')
    if len(points) <= 40:
        parts += [f'<circle class="dot c{s.style}" cx="{x}" cy="{y}" r="3"/>' for x, y in points]
    return "".join(parts)


def _path(points: Sequence[tuple[float | int, float | int]]) -> str:
    return "L".join(f"{x} {y}" for x, y in points)


def _cell(s: Series, i: int, digits: int) -> str:
    text = number(s.y[i], digits)
    if s.low and math.isfinite(s.low[i]) and math.isfinite(s.high[i]):
        text += f" ({number(s.low[i], digits)} to {number(s.high[i], digits)})"
    return text


def _table(xs: list[float | int], series: Sequence[Series], digits: int) -> list[list[str]]:
    places = [{x: i for i, x in enumerate(s.x)} for s in series]
    return [
        [number(x), *(_cell(s, at[x], digits) if x in at else "–" for s, at in zip(series, places, strict=True))]
        for x in xs
    ]


def _trend(series: Sequence[Series], digits: int) -> str:
    """The text alternative: where each line starts, ends and lies between."""
    told = []
    for s in series:
        ys = finite(s.y)
        told.append(
            f"{s.name}: from {number(ys[0], digits)} to {number(ys[-1], digits)},"
            f" between {number(min(ys), digits)} and {number(max(ys), digits)}"
        )
    return "; ".join(told) or "nothing was logged"


def bar_chart(
    labels: Sequence[str], series: Sequence[Series], title: str, x_label: str, y_label: str, description: str = ""
) -> Chart:
    """Bars side by side: ``series[j].y[i]`` stands over ``labels[i]``."""
    top = max([v for s in series for v in finite(s.y)] or [1.0]) * 1.05 or 1.0
    every = math.ceil(len(labels) / 10)
    shown = [(i, shortened(label, LONGEST_LABEL)) for i, label in enumerate(labels) if i % every == 0]
    wide = CHARACTER * max([len(label) for _, label in shown] or [0])
    turned = wide + 6 > every * (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    bottom = BOTTOM + round(wide * math.sin(math.radians(TURN))) if turned else BOTTOM
    axes = Axes(-0.5, len(labels) - 0.5, 0.0, top, bottom)
    if turned:  # a turned label ends under its bar and begins to the left of it, where the drawing ends
        width = CHARACTER * math.cos(math.radians(TURN))
        shown = [(i, shortened(label, int(axes.px(i) / width))) for i, label in shown]
    body = [axes.frame(x_label, y_label, shown, turned)]
    width = 0.84 / max(1, len(series))
    for j, s in enumerate(series):
        for i, value in enumerate(s.y):
            if math.isfinite(value):
                left, right = axes.px(i - 0.42 + j * width), axes.px(i - 0.42 + (j + 1) * width)
                y = axes.py(value)
                size = f'x="{left}" y="{y}" width="{round(right - left, 1)}" height="{round(axes.py(0) - y, 1)}"'
                body.append(f'<rect class="box c{s.style}" {size}/>')
    body.append(f'<path class="cursor" d="M0 {TOP}V{HEIGHT - BOTTOM}"/>')
    pixels = ",".join(str(axes.px(i)) for i in range(len(labels)))
    rows = [[label, *(number(s.y[i]) for s in series)] for i, label in enumerate(labels)]
    description = description or _trend(series, 3)
    svg = drawing("".join(body), title, description, f' data-px="{pixels}"', axes.height)
    return Chart(
        title, description, svg, [x_label, *(s.name for s in series)], rows, [(s.name, s.style) for s in series]
    )


def path_chart(
    series: Sequence[Series], labels: Sequence[Sequence[str]], title: str, x_label: str, y_label: str, note: str
) -> Chart:
    """A path through the plane, growing darker with time; ``labels[j][i]`` names point i of series j."""
    xs, ys = [v for s in series for v in finite(s.x)], [v for s in series for v in finite(s.y)]
    pad: Callable[[list[float | int]], float] = lambda values: 0.06 * ((max(values) - min(values)) or 1.0)  # noqa: E731
    xs, ys = xs or [0.0, 1.0], ys or [0.0, 1.0]
    axes = Axes(min(xs) - pad(xs), max(xs) + pad(xs), min(ys) - pad(ys), max(ys) + pad(ys))
    body, rows = [axes.frame(x_label, y_label)], []
    for s, names in zip(series, labels, strict=True):
        points = [(axes.px(x), axes.py(y)) for x, y in zip(s.x, s.y, strict=True)]
        body.append(f'<path class="line thin c{s.style}" d="M{_path(points)}"/>')
        for i, ((x, y), name) in enumerate(zip(points, names, strict=True)):
            ends = {0: " hollow", len(points) - 1: " end"}.get(i, "")
            opacity = 1 if ends else round(0.25 + 0.75 * i / max(1, len(points) - 1), 2)
            place = f'cx="{x}" cy="{y}" r="{5 if ends else 3}" opacity="{opacity}"'
            body.append(f'<circle class="dot c{s.style}{ends}" {place}><title>{escape(name)}</title></circle>')
            rows.append([f"{s.name}, {name}", number(s.x[i]), number(s.y[i])])
    return Chart(
        title,
        note,
        drawing("".join(body), title, note),
        ["update", x_label, y_label],
        rows,
        [(s.name, s.style) for s in series],
    )


@dataclass(frozen=True)
class ForestRow:
    """A row of a forest plot: a mean, its interval, and the single values behind it."""

    name: str
    mean: float
    low: float
    high: float
    values: Sequence[float | int] = ()


def forest_chart(rows: Sequence[ForestRow], title: str, x_label: str, note: str) -> Chart:
    """Means with intervals around a line at 0, single values as rings; the best row first."""
    shown = sorted((row for row in rows if math.isfinite(row.mean)), key=lambda row: -row.mean)
    ends = finite([v for row in shown for v in (row.low, row.high, row.mean, 0.0)])
    values = finite([v for row in shown for v in row.values])
    # The values decide the scale: an interval over two seeds may be wider than anything there is to see.
    reach = 2.5 * max([abs(v) for v in [*values, *(row.mean for row in shown)]] or [1.0])
    low, high = max(min(ends or [-1.0]), -reach), min(max(ends or [1.0]), reach)
    name_width, row_height = 8 + 7 * max([len(row.name) for row in shown] or [0]), 24
    height = TOP + row_height * len(shown) + BOTTOM
    left, right = min(name_width, WIDTH // 2), WIDTH - RIGHT

    def px(value: float) -> float:
        return round(left + 10 + (min(max(value, low), high) - low) / ((high - low) or 1) * (right - left - 20), 1)

    parts = []
    for tick in ticks(low, high, 6):
        parts.append(f'<path class="grid" d="M{px(tick)} {TOP}V{height - BOTTOM}"/>')
        label = f"{tick:+.2g}" if tick else "0"
        parts.append(f'<text x="{px(tick)}" y="{height - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<path class="zero" d="M{px(0)} {TOP}V{height - BOTTOM}"/>')
    for i, row in enumerate(shown):
        y = TOP + row_height * (i + 0.5)
        style = "soft" if not (row.low > 0 or row.high < 0) else "good" if row.mean > 0 else "bad"
        parts.append(f'<text x="{left}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>')
        if math.isfinite(row.low):
            parts.append(f'<path class="line c{style} solid" d="M{px(row.low)} {y}H{px(row.high)}"/>')
        parts += [f'<circle class="ring c{style}" cx="{px(v)}" cy="{y}" r="3"/>' for v in finite(row.values)]
        parts.append(f'<circle class="dot c{style}" cx="{px(row.mean)}" cy="{y}" r="5"/>')
    middle = (left + right) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    table = [[row.name, number(row.mean), number(row.low), number(row.high)] for row in shown]
    return Chart(
        title, note, drawing("".join(parts), title, note, height=height), ["cell", "mean", "from", "to"], table
    )
