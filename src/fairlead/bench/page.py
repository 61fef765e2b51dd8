"""A page: what it is made of, and how it is written. One self-contained HTML file; ours, no paper.

A page has no script, loads nothing and names nobody's prompt: only names, numbers and reasons. All text is escaped here, and nowhere else
is HTML made but in `charts.py`. Charts are inline SVG in the reader's own light or dark theme; each has a title and a description, each
table a caption. What is on a page is decided in `page_table.py` and `page_store.py`.

Shapes: X places along an axis, M targets, N forecasts, B bins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template

import numpy as np
from msgspec import Struct

from fairlead.bench.charts import Axis, Line, colouring, legend, stacked
from fairlead.bench.metrics import Floats, Interval
from fairlead.version import VERSION

BINS = 15
"""Of the reliability diagram."""
MIN_DOT = 10
"""Forecasts that one of its bins needs to be shown."""
SHOWN = 8
"""Targets shown by name where shares are stacked; the rest are put together."""


class Section(Struct, frozen=True, kw_only=True):
    """One part of a page: `text` is plain, `finding` is its sentence in full ink, `body` is HTML."""

    title: str
    text: str = ""
    finding: str = ""
    body: str = ""


class Page(Struct, frozen=True, kw_only=True):
    """A page before it is written. `figures`: (what, value, note)."""

    title: str
    subtitle: str
    figures: tuple[tuple[str, str, str], ...]
    sections: tuple[Section, ...]


class Palette:
    """Gives each name a colour of the page and keeps it: what is blue in one chart is blue in the next."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the class of `name`: ``s0`` … ``s6`` in order of first sight, over and over."""
        return self.known.setdefault(name, f"s{len(self.known) % 7}")

    def apart(self, names: Sequence[str]) -> list[str]:
        """Return a class for each of seven names at most, all different: of two with the same colour the later takes a free one."""
        out: list[str] = []
        free = [c for c in (f"s{n}" for n in range(7)) if c not in {self(name) for name in names}]
        for name in names:
            colour = self(name)
            out.append(free.pop(0) if colour in out else colour)
        return out


def render(page: Page) -> str:
    """Write the page as HTML."""
    figures = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd><dd>{escape(note)}</dd></div>"
        for what, value, note in page.figures
    )
    sections = []
    for n, s in enumerate(page.sections):
        finding = f'<p class="finding">{escape(s.finding)}</p>' if s.finding else ""
        text = f"<p>{escape(s.text)}</p>" if s.text else ""
        sections.append(
            f'<section aria-labelledby="s{n}"><h2 id="s{n}">{escape(s.title)}</h2>{finding}{text}{s.body}</section>'
        )
    return Template(files("fairlead.bench").joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(page.title),
        subtitle=escape(page.subtitle),
        figures=f'<dl class="figures">{figures}</dl>' if figures else "",
        sections="\n".join(sections),
        footer=escape(f"Written by Fairlead {VERSION}. One file; it loads nothing and holds no prompt and no answer."),
    )


# ---------------------------------------------------------------------------------------------------------------- parts


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose first column names the rows.

    Columns that are empty throughout are left out. What stands after a newline in a cell is written small, below.
    """
    shown = [i for i in range(len(head)) if i == 0 or any(r[i] for r in rows)]
    top = "".join(f'<th scope="col">{escape(head[i])}</th>' for i in shown)
    body = "".join(
        f'<tr><th scope="row">{_cell(r[0])}</th>' + "".join(f"<td>{_cell(r[i])}</td>" for i in shown[1:]) + "</tr>"
        for r in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption><span>{escape(caption)}</span></caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    first, _, second = text.partition("\n")
    return escape(first) + (f"<small>{escape(second)}</small>" if second else "")


def notes(said: Sequence[str]) -> str:
    """Write a list of remarks."""
    return f'<ul class="notes">{"".join(f"<li>{escape(n)}</li>" for n in said)}</ul>'


def drawn(chart: str, lines: Sequence[Line] = ()) -> str:
    """Frame a chart, which scrolls by itself where the screen is narrow, with the legend of its lines below."""
    framed = f'<div class="scroll" tabindex="0" role="region" aria-label="chart">{chart}</div>'
    if len(lines) < 2:
        return framed
    return framed + legend(
        [(line.name, colour, dash) for line, (colour, dash) in zip(lines, colouring(lines), strict=True)]
    )


def shares(
    title: str, told: str, axis: Axis, at_X: Floats, share_XM: Floats, names: Sequence[str], palette: Palette
) -> str:
    """Draw who gets which share along an axis, the largest at the bottom; the smallest of many, and those never picked, as others."""
    ranked: list[int] = np.argsort(-share_XM.mean(axis=0), kind="stable").tolist()
    ranked = [m for m in ranked if share_XM[:, m].max() > 0.0]
    named, rest = (ranked, []) if len(ranked) < SHOWN else (ranked[: SHOWN - 1], ranked[SHOWN - 1 :])
    used_XM, said = share_XM[:, named], [names[m] for m in named]
    colours = palette.apart(said)
    if rest:
        used_XM = np.column_stack([used_XM, share_XM[:, rest].sum(axis=1)])
        said, colours = [*said, f"{len(rest)} others" if len(rest) > 1 else names[rest[0]]], [*colours, "s7"]
    chart = stacked(title, told, axis, at_X, used_XM, said, colours)
    return drawn(chart) + legend([(n, c, "") for n, c in zip(said, colours, strict=True)], filled=True)


def reliability(name: str, forecast_N: Floats, quality_N: Floats, *, colour: str = "") -> Line:
    """Return mean outcome over mean forecast in bins of the forecast that hold at least `MIN_DOT`; dots grow with the bin's number."""
    bin_N = np.clip((forecast_N * BINS).astype(np.int64), 0, BINS - 1)
    count_B = np.bincount(bin_N, minlength=BINS)
    good = count_B >= MIN_DOT
    n_B = np.maximum(count_B, 1)
    x = np.bincount(bin_N, weights=forecast_N, minlength=BINS) / n_B
    y = np.bincount(bin_N, weights=quality_N, minlength=BINS) / n_B
    size = 1.5 + 4.5 * np.sqrt(count_B / max(int(count_B.max()), 1))
    return Line(name=name, x=x[good], y=y[good], marks=size[good], colour=colour)


def diagonal() -> Line:
    """Return the line on which forecasts mean what they say."""
    return Line(name="as forecast", x=np.asarray([0.0, 1.0]), y=np.asarray([0.0, 1.0]), colour="base")


def interval(i: Interval | None, *, digits: int = 4) -> str:
    """Write an interval for a cell; empty if there is none."""
    return "" if i is None else f"{i.value:+.{digits}f}\n{i.low:+.{digits}f} to {i.high:+.{digits}f}"


def dollars(usd: float | None) -> str:
    """Write an amount with four digits, or two decimals from one dollar on."""
    return "not known" if usd is None else f"${usd:,.2f}" if usd >= 1.0 else f"${usd:.4g}"


def file_name(source: str) -> str:
    """Name a file without the folders that it lies in."""
    return re.split(r"[/\\]", source)[-1] or "in memory"


def when(at: float) -> str:
    """Write a Unix time to the minute, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
