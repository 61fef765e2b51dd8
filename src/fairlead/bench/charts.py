"""Charts as inline SVG: lines with bands, points with labels, stacked shares. Ours, no paper.

Why not matplotlib: a page that follows its reader's light or dark theme needs colours from its style sheet, and text that can be read out,
searched and scaled. A chart is 720 units wide and takes its colours from the classes ``s0`` … ``s7`` and its inks from ``axis``,
``grid``, ``mark`` and ``label``, which the page defines. Everything from outside is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 720.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 16.0, 14.0, 50.0
DASHES = ("", "9 4", "9 3 2 3", "3 3", "14 4", "6 2 1 2 1 2", "1 3", "12 3 3 3")
"""A line style for each colour, so that lines are told apart without it."""
CHARACTER = 6.6
"""Width of a label's character, about."""


class Line(Struct, frozen=True, kw_only=True):
    """One line. `low` and `high` are the edges of its band; `colour` is a class of the page."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    colour: str = ""
    """Empty: the next of ``s0`` …"""
    marks: Floats | None = None
    """Radius of a dot at each point; None: no dots."""


class Point(Struct, frozen=True, kw_only=True):
    """One labelled point."""

    name: str
    x: float
    y: float


class Axis(Struct, frozen=True, kw_only=True):
    """One axis: what it shows and from where to where."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, values: Floats | float) -> Floats:
        """Return the share of the way from `low` to `high`."""
        v = np.asarray(values, dtype=np.float64)
        if self.log:
            return np.asarray(np.log(np.maximum(v, 1e-300) / self.low) / math.log(self.high / self.low))
        return np.asarray((v - self.low) / (self.high - self.low))

    def ticks(self) -> list[float]:
        """Round numbers between the ends, four to eight or so."""
        if self.log and self.high / self.low > 20.0:
            steps: tuple[int, ...] = (1, 2, 5) if self.high / self.low < 2000.0 else (1,)
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            found = [d * 10.0**k for k in range(first, last + 1) for d in steps]
        else:
            raw = (self.high - self.low) / 6.0
            step = next(d for k in range(-12, 13) for d in (10.0**k, 2 * 10.0**k, 5 * 10.0**k) if d >= raw)
            found = [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        room = 1e-9 * (self.high - self.low)
        return [t for t in found if self.low - room <= t <= self.high + room]


def spanning(
    label: str, values: Sequence[Floats], *, log: bool = False, pad: float = 0.05, at: tuple[float, ...] = ()
) -> Axis:
    """Return the axis that shows all finite `values`, and the numbers `at`, with some room around."""
    every = np.concatenate(
        [*(np.asarray(v, dtype=np.float64).ravel() for v in values), np.asarray(at, dtype=np.float64)]
    )
    every = every[np.isfinite(every) & ((every > 0.0) | (not log))]
    low, high = (float(every.min()), float(every.max())) if len(every) else (1.0, 10.0)
    if log:
        low, high = (low, high) if high > low else (low / 2.0, high * 2.0)
        room = (high / low) ** pad
        return Axis(label=label, low=low / room, high=high * room, log=True)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    room = pad * (high - low)
    return Axis(label=label, low=low - room, high=high + room)


def plane(
    title: str,
    told: str,
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
    points: Sequence[Point] = (),
    *,
    zero: bool = False,
) -> str:
    """Draw lines and points.

    Args:
        title: name of the chart, for those who cannot see it.
        told: what it shows, likewise.
        x, y: the axes.
        lines: first ones below.
        points: labelled beside, where there is room.
        zero: draw a stronger line at y = 0.
    """
    body = []
    if zero and y.low < 0.0 < y.high:
        at = _y(y, 0.0)
        body.append(f'<path class="zero" d="M{LEFT:g} {at:.1f}H{WIDTH - RIGHT:g}"/>')
    colours = colouring(lines)
    occupied: list[tuple[float, float]] = []
    for line, (colour, dash) in zip(lines, colours, strict=True):
        good = np.isfinite(line.x) & np.isfinite(line.y)
        px, py = _x(x, line.x[good]), _y(y, line.y[good])
        if line.low is not None and line.high is not None and good.any():
            low, high = _y(y, line.low[good]), _y(y, line.high[good])
            edge = [*zip(px, high, strict=True), *reversed(list(zip(px, low, strict=True)))]
            body.append(f'<path class="band {colour}" d="M{_path(edge)}Z"/>')
        if good.sum() > 1:
            body.append(
                f'<path class="line {colour}"{_dash(dash)} d="M{_path(list(zip(px, py, strict=True)))}">'
                f"<title>{escape(line.name)}</title></path>"
            )
        occupied += list(zip(px.tolist(), py.tolist(), strict=True))
        radii = (
            line.marks[good] if line.marks is not None else np.full(int(good.sum()), 4.5 if good.sum() == 1 else 0.0)
        )
        for cx, cy, r in zip(px, py, radii, strict=True):
            if r > 0.0:
                body.append(
                    f'<circle class="dot {colour}" cx="{cx:.1f}" cy="{cy:.1f}" r="{r:.1f}"><title>{escape(line.name)}</title></circle>'
                )
    body += _labelled(x, y, points, occupied)
    return _svg(title, told, x, y, body)


def stacked(
    title: str, told: str, x: Axis, at_X: Floats, share_XM: Floats, names: Sequence[str], colours: Sequence[str]
) -> str:
    """Draw shares that sum to 1 as bands on top of each other, the first at the bottom."""
    y = Axis(label="share of queries", low=0.0, high=1.0)
    px = _x(x, at_X)
    body, below = [], np.zeros(len(at_X))
    for name, colour, share in zip(names, colours, share_XM.T, strict=True):
        above = below + share
        edge = [*zip(px, _y(y, above), strict=True), *reversed(list(zip(px, _y(y, below), strict=True)))]
        body.append(f'<path class="area {colour}" d="M{_path(edge)}Z"><title>{escape(name)}</title></path>')
        below = above
    return _svg(title, told, x, y, body)


def legend(entries: Sequence[tuple[str, str, str]], *, filled: bool = False) -> str:
    """Return an HTML list of (name, class, dash): a swatch and a name each. `filled`: for stacked shares."""
    out = []
    for name, colour, dash in entries:
        swatch = (
            f'<rect class="area {colour}" width="14" height="12"/>'
            if filled
            else f'<path class="line {colour}"{_dash(dash)} d="M0 6H28"/>'
        )
        width = 14 if filled else 28
        out.append(
            f'<li><svg width="{width}" height="12" viewBox="0 0 {width} 12" aria-hidden="true">{swatch}</svg>{escape(name)}</li>'
        )
    return f'<ul class="legend">{"".join(out)}</ul>'


def colouring(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Return the class and the dash of each line; those without a colour of their own take the next that is free."""
    taken = {line.colour for line in lines}
    free = [f"s{n}" for n in range(8) if f"s{n}" not in taken]
    out = []
    for line in lines:
        colour = line.colour or (free.pop(0) if free else "s7")
        out.append((colour, DASHES[int(colour[1])] if colour[1:].isdigit() else "5 4"))
    return out


def _svg(title: str, told: str, x: Axis, y: Axis, body: Sequence[str]) -> str:
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img"><title>{escape(title)}</title><desc>{escape(told)}</desc>'
    ]
    y_ticks = y.ticks()
    for t, said in zip(y_ticks, _written(y_ticks), strict=True):
        at = float(_y(y, t))
        parts.append(f'<path class="grid" d="M{LEFT:g} {at:.1f}H{WIDTH - RIGHT:g}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 8:g}" y="{at + 4:.1f}" text-anchor="end">{said}</text>')
    x_ticks = x.ticks()
    for t, said in _spaced(x, x_ticks):
        at = float(_x(x, t))
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP:g}V{HEIGHT - BOTTOM:g}"/>')
        parts.append(f'<text class="axis" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18:g}" text-anchor="middle">{said}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:g}" y="{HEIGHT - 10:g}" text-anchor="middle">{escape(x.label)}</text>')
    up = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis" transform="translate(14 {up:g}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    return "".join([*parts, *body, "</svg>"])


def _spaced(x: Axis, ticks: Sequence[float]) -> list[tuple[float, str]]:
    """Leave out ticks whose words would touch the ones before."""
    out: list[tuple[float, str]] = []
    until = -math.inf
    for t, said in zip(ticks, _written(ticks), strict=True):
        at, half = float(_x(x, t)), len(said) * CHARACTER / 2
        if at - half > until + 6 and at + half < WIDTH + 2:
            out.append((t, said))
            until = at + half
    return out


def _written(ticks: Sequence[float]) -> list[str]:
    """Write each number with as many digits as tell it from the others."""
    digits = next((d for d in range(3, 8) if len({f"{t:.{d}g}" for t in ticks}) == len(ticks)), 8)
    return [f"{t:,.0f}" if abs(t) >= 1000 else f"{0.0 if abs(t) < 1e-12 else t:.{digits}g}" for t in ticks]


def _labelled(x: Axis, y: Axis, points: Sequence[Point], lines: Sequence[tuple[float, float]]) -> list[str]:
    """Draw points, each with its name where it hits the least; a thin line leads to names that had to move away."""
    at = [(float(_x(x, p.x)), float(_y(y, p.y))) for p in points]
    boxes: list[tuple[float, float, float, float]] = []
    dots = [(a - 6, b - 6, a + 6, b + 6) for a, b in at]
    traced = [(a - 2, b - 2, a + 2, b + 2) for a, b in lines]
    below, above = [], []
    for i in sorted(range(len(points)), key=lambda k: at[k][1]):
        (px, py), width = at[i], len(points[i].name) * CHARACTER
        best, least, lead = (px, py), math.inf, False
        for dy in (0, -14, 14, -28, 28, -42, 42, -56, 56, -70, 70):
            for dx in (9.0, -9.0 - width, -width / 2):
                if dy == 0 and dx == -width / 2:
                    continue
                box = (px + dx, py + dy - 7, px + dx + width, py + dy + 6)
                outside = box[0] < LEFT or box[2] > WIDTH - 2 or box[1] < TOP - 8 or box[3] > HEIGHT - BOTTOM
                hits = sum(_overlap(box, o) for o in (*boxes, *dots)) * 100.0 + 100.0 * outside
                bad = hits + 1.5 * sum(_overlap(box, o) for o in traced) + abs(dy) / 20.0
                if bad < least:
                    best, least, lead = (box[0], py + dy + 4), bad, abs(dy) > 14
                    chosen = box
        boxes.append(chosen)
        if lead:
            end = min(max(px, chosen[0]), chosen[2]), (chosen[3] if chosen[3] < py else chosen[1])
            below.append(f'<path class="lead" d="M{px:.1f} {py:.1f}L{end[0]:.1f} {end[1]:.1f}"/>')
        above.append(
            f'<circle class="mark" cx="{px:.1f}" cy="{py:.1f}" r="4.5"><title>{escape(points[i].name)}</title></circle>'
        )
        above.append(f'<text class="label" x="{best[0]:.1f}" y="{best[1]:.1f}">{escape(points[i].name)}</text>')
    return below + above


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _x(axis: Axis, values: Floats | float) -> Floats:
    return LEFT + axis.place(values) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, values: Floats | float) -> Floats:
    return np.clip(HEIGHT - BOTTOM - axis.place(values) * (HEIGHT - TOP - BOTTOM), -HEIGHT, 2 * HEIGHT)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _dash(dash: str) -> str:
    return f' stroke-dasharray="{dash}"' if dash else ""
