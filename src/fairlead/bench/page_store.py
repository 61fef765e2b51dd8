"""The page about a live store: what was asked, who answered, what it cost, how it was judged, and what cannot be known. Ours, no paper.

Only numbers, names and reasons are read off a trace; digits in reasons are levelled, so that reasons which differ in figures alone count
together. What a store cannot tell (regret, the quality of answers that nobody judged) is said on the page.

Shapes: T requests, B intervals of time, X places along an axis.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead import rewards
from fairlead.bench import metrics, page
from fairlead.bench.charts import Axis, Line, plane, spanning
from fairlead.bench.metrics import Floats
from fairlead.bench.page import Page, Palette, Section
from fairlead.plans.fallback import Fallback
from fairlead.types import Feedback, Trace

Bools = NDArray[np.bool_]

STRETCH = 20
"""Judged answers that a point in time, or a diagram, needs."""
REFUSED = "(refused)"
"""Stands for a target where nobody was eligible."""
ACTED = "(an action)"
"""Stands for a target where an action answered, from a cache say, or stopped the query."""
_NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?(?![\w-])")
"""Numbers that stand alone: not those in a name, such as llama3.1-8b."""


class _Seen(Struct):
    """What was seen of one target."""

    requests: int = 0
    failed: int = 0
    usd: float = 0.0
    unpriced: int = 0
    seconds: float = 0.0
    judged: int = 0
    quality: float = 0.0


class _Gathered:
    """What is kept of the traces: numbers, names, and reasons with their digits levelled."""

    def __init__(self, value: Mapping[str, float]) -> None:
        self.value = value
        self.at: list[float] = []
        self.who: list[str] = []
        self.usd: list[float] = []
        self.judged: list[float] = []
        self.decide: list[float] = []
        self.whole: list[float] = []
        self.pairs: list[tuple[float, float]] = []
        """(forecast quality of the chosen target, judgement of its answer)."""
        self.seen: dict[str, _Seen] = defaultdict(_Seen)
        self.routes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.excluded: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.versions: dict[tuple[str, str, int], list[float]] = {}
        self.refused = self.rerouted = self.blind = self.utilities = 0

    def add(self, t: Trace) -> None:
        """Take note of one trace."""
        d, o = t.decision, t.outcome
        self.routes[t.query.route] += 1
        self.at.append(t.at)
        self.usd.append(np.nan if t.usd is None else t.usd)
        self.judged.append(self.value.get(t.id, np.nan))
        self.excluded.update(levelled(f"{n}: {why}") for n, why in d.excluded.items())
        if o.error is not None:
            self.errors[o.error.kind] += 1
        if not d.options:
            self.refused += 1
            self.who.append(REFUSED)
            return
        self.versions.setdefault((t.query.route, d.policy, d.version), []).append(t.at)
        self.reasons.update({levelled(r) for r in d.reasons})
        self.decide.append(d.seconds)
        self.whole.append(t.seconds)
        self.rerouted += isinstance(t.plan, Fallback) and max((s.path[0] for s in t.steps), default=0) > 0
        chosen = d.plan.targets()
        name = ACTED if t.acts and not t.steps else o.target or chosen[0]
        self.who.append(name)
        s = self.seen[name]
        s.requests += 1
        s.failed += not o.ok
        s.usd += t.usd or 0.0
        s.unpriced += t.usd is None
        s.seconds += t.seconds
        if t.id in self.value:
            s.judged += 1
            s.quality += self.value[t.id]
            forecast = d.options[d.chosen].forecast
            if forecast is None or chosen != (name,):
                self.blind += 1
            elif d.forecast_of != "quality":
                self.utilities += 1
            else:
                self.pairs.append((forecast.quality, self.value[t.id]))


def from_store(
    traces: Iterable[Trace], judgements: Iterable[Feedback], *, source: str = "", route: str | None = None
) -> Page:
    """Lay out the page of what a store holds.

    Args:
        traces: in order of writing.
        judgements: all of them in order; of one source, the last on an answer stands. Of several sources the weightiest count, by their
            mean (`rewards.judged`); what `fairlead.trust` found of them does not enter.
        source: where they are from, for the heading.
        route: only this route. None: all.
    """
    standing: dict[str, dict[str, Feedback]] = defaultdict(dict)
    for f in judgements:
        standing[f.trace_id][f.voter] = f
    told = {i: rewards.judged(said.values()) for i, said in standing.items()}
    g = _Gathered({i: said[0] for i, said in told.items() if said is not None})
    for t in traces:
        if route is None or t.query.route == route:
            g.add(t)
    title = "What the router did"
    if not g.at:
        nothing = Section(title="Nothing here", text="No trace fits: check the store, the route and the time.")
        return Page(title=title, subtitle=page.file_name(source), figures=(), sections=(nothing,))
    stamps, usd, quality = (np.asarray(v) for v in (g.at, g.usd, g.judged))
    n, known, targets = len(stamps), ~np.isnan(quality), Palette()
    sections = [
        _over_time(stamps, g.who, targets),
        _targets(g.seen),
        _quality(stamps, quality, known),
        _spending(stamps, usd),
        _calibration(g),
        _counted(
            "Why",
            "Reasons that policies gave, with numbers levelled to #. A decision may give several.",
            g.reasons,
            "reason",
            n,
        ),
        _counted("Who was left out, and why", "Targets that were not eligible.", g.excluded, "target and reason", n),
        _counted("Failures", "Kinds of failure that requests ended with.", g.errors, "kind", n),
        _versions(g.versions) if len(g.versions) > 1 else None,
        _latency(g),
        _missing(g, known),
    ]
    named = ", ".join(f"{r} {c:,}" for r, c in g.routes.most_common(8))
    return Page(
        title=title,
        subtitle=f"{page.file_name(source)}. Requests by route: {named}.",
        figures=_figures(g, stamps, usd, quality, known),
        sections=tuple(s for s in sections if s is not None),
    )


def _figures(
    g: _Gathered, stamps: Floats, usd: Floats, quality: Floats, known: Bools
) -> tuple[tuple[str, str, str], ...]:
    n, judged = len(stamps), int(known.sum())
    spent, unpriced = float(np.nansum(usd)), int(np.isnan(usd).sum())
    failed = sum(s.failed for s in g.seen.values())
    low, high = metrics.wilson(float(quality[known].sum()), judged)
    lacking = f"; {unpriced:,} of unknown price not counted" if unpriced else ""
    per_1k = "" if unpriced == n else f"{page.dollars(spent / (n - unpriced) * 1e3)} per 1,000"
    return (
        ("requests", f"{n:,}", f"{page.when(float(stamps.min()))} to {page.when(float(stamps.max()))}"),
        ("spent", "not known" if unpriced == n else page.dollars(spent), (per_1k + lacking).removeprefix("; ")),
        ("judged quality", f"{quality[known].mean():.3f}", f"95%: {low:.3f} to {high:.3f}")
        if judged
        else ("judged quality", "-", "no answer was judged"),
        ("judged", f"{judged / n:.1%}", f"{judged:,} answers; the others say nothing about quality"),
        ("rerouted", f"{g.rerouted:,}", "answered by another than was chosen, after a failure"),
        (
            "refused or failed",
            f"{g.refused + failed:,}",
            f"{g.refused:,} refused, as nobody was eligible; {failed:,} failed",
        ),
    )


def _missing(g: _Gathered, known: Bools) -> Section:
    unpriced = int(np.isnan(np.asarray(g.usd)).sum())
    said = [
        f"{int((~known).sum()):,} of {len(known):,} answers were not judged. If some are judged more readily than others, judged quality is "
        "not mean quality.",
        "What the targets that were not asked would have answered is not known, so no regret is shown. An estimate needs choices made at "
        "random with known propensities.",
        "Targets get different queries: their judged qualities do not compare as they stand, least of all where a policy sends each what "
        "it is good at.",
    ]
    if unpriced:
        said.append(f"{unpriced:,} requests have no price: what was spent is more than is shown.")
    return Section(title="What is missing here", body=page.notes(said))


def levelled(reason: str) -> str:
    """Write # for every number, so that reasons which differ in figures alone count together."""
    return _NUMBER.sub("#", reason)


def _time_axis(stamps: Floats) -> tuple[Axis, Floats]:
    """Return an axis from the first request on, in a unit that suits, and each request's place on it."""
    span = float(np.ptp(stamps))
    units = (
        (3 * 86400.0, 86400.0, "days"),
        (2 * 3600.0, 3600.0, "hours"),
        (120.0, 60.0, "minutes"),
        (0.0, 1.0, "seconds"),
    )
    unit, name = next((u, n) for least, u, n in units if span >= least)
    x = (stamps - stamps.min()) / unit
    return Axis(label=f"{name} since the first request", low=0.0, high=max(float(x.max()), 1e-9)), x


def _over_time(stamps: Floats, who: Sequence[str], palette: Palette) -> Section | None:
    axis, x = _time_axis(stamps)
    bins = min(30, max(2, len(x) // 20))
    at = np.clip((x / axis.high * bins).astype(np.int64), 0, bins - 1)
    if len(np.unique(at)) < 2:
        return None
    names, which = np.unique(np.asarray(who), return_inverse=True)
    count_XM = np.zeros((bins, len(names)))
    np.add.at(count_XM, (at, which), 1.0)
    busy = np.flatnonzero(count_XM.sum(axis=1) > 0.0)
    share_XM = count_XM[busy] / count_XM[busy].sum(axis=1, keepdims=True)
    middle = (busy + 0.5) / bins * axis.high
    middle[0], middle[-1] = 0.0, axis.high
    quiet = bins - len(busy)
    told = f" {quiet} of {bins} intervals had no request; the bands run straight across them." if quiet else ""
    chart = page.shares(
        "Who answered, over time",
        "Share of requests that each target answered.",
        axis,
        middle,
        share_XM,
        names.tolist(),
        palette,
    )
    return Section(title="Who answered, over time", text=f"Share of requests.{told}", body=chart)


def _targets(seen: Mapping[str, _Seen]) -> Section | None:
    if not seen:
        return None
    total = sum(s.requests for s in seen.values())
    rows = []
    for name, s in sorted(seen.items(), key=lambda kv: -kv[1].requests):
        low, high = metrics.wilson(s.quality, s.judged)
        rows.append(
            [
                name,
                f"{s.requests:,}\n{s.requests / total:.1%}",
                f"{s.quality / s.judged:.3f}\n{low:.3f} to {high:.3f}" if s.judged else "not judged",
                f"{s.judged:,}",
                "not known" if s.unpriced == s.requests else f"{s.usd / (s.requests - s.unpriced) * 1e3:.4f}",
                f"{s.seconds / s.requests:.2f}",
                f"{s.failed:,}",
            ]
        )
    return Section(
        title="By target",
        text="Who answered in the end. Each gets other queries than the others, so do not compare their qualities as they stand.",
        body=page.table(
            "Requests, judged quality with 95% intervals (Wilson), cost and time by target",
            ["target", "requests", "judged quality", "judged", "USD per 1,000", "seconds", "failed"],
            rows,
        ),
    )


def _quality(stamps: Floats, quality: Floats, known: Bools) -> Section | None:
    judged = int(known.sum())
    if judged < 2 * STRETCH or not np.ptp(stamps):
        return None
    axis, x = _time_axis(stamps)
    at = np.flatnonzero(known)
    parts = np.array_split(at[np.argsort(x[at], kind="stable")], min(20, judged // STRETCH))
    edges = np.asarray([metrics.wilson(float(quality[p].sum()), len(p)) for p in parts])
    line = Line(
        name="judged quality",
        x=np.asarray([x[p].mean() for p in parts]),
        y=np.asarray([quality[p].mean() for p in parts]),
        low=edges[:, 0],
        high=edges[:, 1],
        marks=np.full(len(parts), 3.0),
    )
    said = f"{len(parts)} stretches of equally many judged answers, with 95% intervals."
    chart = plane("Judged quality over time", said, axis, Axis(label="judged quality", low=0.0, high=1.0), [line])
    return Section(title="Judged quality over time", text=said, body=page.drawn(chart))


def _spending(stamps: Floats, usd: Floats) -> Section | None:
    if not np.ptp(stamps) or np.isnan(usd).all():
        return None
    axis, x = _time_axis(stamps)
    order = np.argsort(x, kind="stable")
    at = np.unique(np.linspace(0, len(order) - 1, min(len(order), 300)).astype(np.int64))
    line = Line(name="spent so far", x=x[order][at], y=np.cumsum(np.nan_to_num(usd[order]))[at])
    y = spanning("USD spent so far", [line.y], at=(0.0,))
    return Section(
        title="Spending", body=page.drawn(plane("Spending", "Dollars spent since the first request.", axis, y, [line]))
    )


def _calibration(g: _Gathered) -> Section:
    title = "Do forecasts mean what they say?"
    also = (
        f" {g.utilities:,} had a forecast of utility (a linear bandit's one number), which does not compare with a judgement."
        if g.utilities
        else ""
    )
    also += f" {g.blind:,} had none, or were answered by another than was chosen." if g.blind else ""
    if len(g.pairs) < STRETCH:
        return Section(
            title=title,
            text=f"Not shown: {len(g.pairs)} judged answers had a forecast of quality, too few to draw.{also}",
        )
    forecast, value = np.asarray(g.pairs).T
    lines = [page.diagonal(), page.reliability("judged answers", forecast, value)]
    chart = plane(
        "Forecast and judged quality",
        "Mean judged quality over forecast quality of the chosen target.",
        Axis(label="forecast quality of the chosen target", low=0.0, high=1.0),
        Axis(label="judged quality", low=0.0, high=1.0),
        lines,
    )
    row = [
        f"{len(g.pairs):,} judged answers",
        *(f"{v:.4f}" for v in (metrics.ece(forecast, value), metrics.brier(forecast, value))),
    ]
    return Section(
        title=title,
        text="The chosen target's forecast against what its answer was judged. Whoever picks the highest forecast picks the lucky ones, so "
        f"some promising too much is expected.{' Left out:' if also else ''}{also}",
        body=page.drawn(chart, lines)
        + page.table(
            "Calibration of the forecasts of chosen targets",
            ["", "calibration error (15 bins)", "squared error", "mean forecast", "mean judgement"],
            [[*row, f"{forecast.mean():.3f}", f"{value.mean():.3f}"]],
        ),
    )


def _counted(title: str, text: str, counts: Counter[str], what: str, n: int) -> Section | None:
    if not counts:
        return None
    rows = [[name, f"{c:,}", f"{c / n:.1%}"] for name, c in counts.most_common(15)]
    caption = (
        f"The {len(rows)} most frequent of {len(counts):,}" if len(counts) > len(rows) else "All, most frequent first"
    )
    return Section(title=title, text=text, body=page.table(caption, [what, "requests", "share"], rows))


def _versions(versions: Mapping[tuple[str, str, int], Sequence[float]]) -> Section:
    rows = [
        [f"{route}: {policy} version {version}", f"{len(at):,}", page.when(min(at)), page.when(max(at))]
        for (route, policy, version), at in sorted(versions.items(), key=lambda kv: min(kv[1]))
    ]
    shown = rows if len(rows) <= 20 else [*rows[:5], *rows[-15:]]
    said = "" if shown is rows else f"{len(rows)} versions; the first 5 and the last 15."
    head = ["route and policy", "requests", "first", "last"]
    return Section(
        title="Versions that served", text=said, body=page.table("Versions of what was learned", head, shown)
    )


def _latency(g: _Gathered) -> Section | None:
    if not g.decide:
        return None
    rows = []
    for name, values in (("reading signals and deciding", g.decide), ("whole request", g.whole)):
        quantiles = np.quantile(np.asarray(values) * 1e3, [0.5, 0.95, 0.99])
        rows.append([name, *(f"{v:,.2f}" for v in quantiles)])
    body = page.table("Milliseconds, quantiles over requests", ["", "median", "95%", "99%"], rows)
    return Section(title="Time to decide", body=body)
