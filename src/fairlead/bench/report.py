"""A bench result as figures, text, JSON and a plot.

Costs are shown in USD per 1,000 queries. Every curve is compared with random mixing of single targets, over one common range of cost:
from the largest of the first points of all compared curves to the mean cost of the dearest target. What is mixed is chosen on other
queries than it is read on, for both sides alike (`mixing.py`): otherwise a chooser with many settings would win by luck. The queries
are dealt into halves several times: a figure is the median over deals, its interval that of the resamples of all deals together, so that
it holds the doubt about the queries and about the choice. Resamples keep the choice; the range is taken anew in each, and both sides of a
difference see the same resampled queries.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from fairlead.bench.evaluate import Curve, Result
from fairlead.bench.metrics import (
    Floats,
    Interval,
    arena_score,
    bootstrap_means,
    hull,
    mean_height,
    oracle_gap_share,
)
from fairlead.bench.mixing import SPLITS, cost_reaching, crossfitted, halves
from fairlead.errors import TableError

RESAMPLES = 1000


class AsJudged(Struct, frozen=True, kw_only=True):
    """Figures of a curve by the hull of its points on the judged queries themselves, over the costs of the cheapest to the dearest single.

    So they are published. Of many noisy settings such a hull keeps those that came out well, so it flatters; see `mixing.py`.
    """

    aiq: Interval
    log_aiq: Interval
    """The same with costs on a logarithmic axis."""
    aiq_over_mix: Interval
    log_aiq_over_mix: Interval
    cost_98: Interval
    """Cost at which 98% of the best single target's quality is reached, as a share of that target's cost; infinite if it never is."""
    cost_100: Interval


class Row(Struct, frozen=True, kw_only=True):
    """One line of the report. None: undefined, or not asked of this kind."""

    name: str
    kind: str
    quality: float
    """Highest mean quality of its settings."""
    usd_per_1k: float | None = None
    """Cost there."""
    setting: str = ""
    aiq: float | None = None
    aiq_over_mix: Interval | None = None
    """Difference of AIQ to random mixing of singles."""
    aiq_over_mean: Interval | None = None
    """Difference of AIQ to the router `mean`, which reads nothing of a query but its length, if that is among those compared."""
    log_aiq_over_mix: Interval | None = None
    """The same with costs on a logarithmic axis."""
    log_aiq_over_mean: Interval | None = None
    quality_over_best: Interval | None = None
    """Highest quality less that of the best single target, both picked on other queries (unless costs are not known)."""
    saving: Interval | None = None
    """Share of the best single target's cost saved at its quality; negative where it is never cheaper. Mixtures as in `aiq`."""
    saving_reached: float | None = None
    """Share of resamples in which that quality was reached at all."""
    as_judged: AsJudged | None = None
    oracle_gap: float | None = None
    arena: float | None = None
    decision_us: float | None = None
    brier: float | None = None
    ece: float | None = None
    points: list[tuple[float, float, str]] = []
    """(usd per 1,000 queries, quality, setting)."""


class Report(Struct, frozen=True, kw_only=True):
    """Everything that was found."""

    source: str
    digest: str
    queries: int
    dropped: int
    models: tuple[str, ...]
    split: str
    seed: int
    resamples: int
    best_single: str
    cheapest: str | None
    range_usd_per_1k: tuple[float, float] | None
    aiq_norm: str
    rows: list[Row]
    notes: tuple[str, ...] = ()


def report(result: Result, *, resamples: int = RESAMPLES) -> Report:
    """Work out all figures with their intervals."""
    singles = [c for c in result.curves if c.kind == "single"]
    others = [c for c in result.curves if c.kind not in ("single", "oracle")]
    oracles = [c for c in result.curves if c.kind == "oracle"]
    quality_M = np.asarray([c.quality_P[0] for c in singles])
    usd_M = np.asarray([c.usd_P[0] for c in singles])
    best = int(np.argmax(quality_M))
    oracle_quality = float(oracles[0].quality_P.max())
    compared = _compare(result, singles, others, resamples) if result.priced else None
    judged = _as_judged(result, singles, others, resamples) if result.priced else {}
    rows = []
    for curve in result.curves:
        q, usd = curve.quality_P, curve.usd_P
        # At equal quality the cheaper setting is shown.
        top = int(np.lexsort((usd, -q))[0])
        cost = None if np.isnan(usd[top]) else float(usd[top]) * 1e3
        rows.append(
            Row(
                name=curve.name,
                kind=curve.kind,
                quality=float(q[top]),
                usd_per_1k=cost,
                setting=curve.settings[top],
                as_judged=judged.get(curve.name),
                oracle_gap=_defined(
                    oracle_gap_share(float(q[top]), best_single=float(quality_M[best]), oracle=oracle_quality)
                ),
                arena=None if cost is None else arena_score(float(q[top]), cost),
                decision_us=None if curve.seconds is None else curve.seconds * 1e6,
                brier=curve.figures.get("brier"),
                ece=curve.figures.get("ece"),
                points=[
                    (float(c) * 1e3, float(v), s) for c, v, s in zip(usd, q, curve.settings, strict=True) if c == c
                ],
                **(
                    compared[0].get(curve.name, {})
                    if compared
                    else _quality_only(result, curve, singles[best], resamples)
                ),
            )
        )
    return Report(
        source=result.source,
        digest=result.digest,
        queries=result.queries,
        dropped=result.dropped,
        models=result.models,
        split=result.split,
        seed=result.seed,
        resamples=resamples,
        best_single=singles[best].name,
        cheapest=singles[int(np.argmin(usd_M))].name if result.priced else None,
        range_usd_per_1k=compared[1] if compared else None,
        aiq_norm="paper",
        rows=rows,
        notes=result.notes,
    )


def _compare(
    result: Result, singles: list[Curve], others: list[Curve], resamples: int
) -> tuple[dict[str, dict[str, Any]], tuple[float, float]]:
    """AIQ and savings of each curve against mixing of the singles, on common folds and resamples."""
    mixed = _stack(singles)
    values, draws, ranges = [], [], []
    for split in range(SPLITS):
        half_Q = halves(result.groups_Q, seed=result.seed + split)
        curves = [crossfitted(*pair, half_Q) for pair in (mixed, *((c.quality_PQ, c.usd_PQ) for c in others))]
        columns = np.concatenate([part for pair in curves for part in pair] + [mixed[1]]).T
        sizes = [len(q) for q, _ in curves]
        resampled = bootstrap_means(
            columns, resamples=-(-resamples // SPLITS), seed=result.seed + split, groups_Q=result.groups_Q
        )
        draws += [_figures(row, sizes)[0] for row in resampled]
        value, c_range = _figures(columns.mean(axis=0), sizes)
        values.append(value)
        ranges.append(c_range)
    found, per_split = np.asarray(draws), np.asarray(values)
    floor = next((i for i, c in enumerate(others, 1) if c.kind == "router" and c.name == "mean"), None)
    out: dict[str, dict[str, Any]] = {"": {}}
    for i, curve in enumerate(others, 1):
        over, log_over, gain, saving = (
            _interval(_middle(per_split[:, i, k] - per_split[:, 0, k]), found[:, i, k] - found[:, 0, k])
            for k in range(4)
        )
        reached = float(np.isfinite(found[:, i, 3]).mean())
        out[curve.name] = {
            "aiq": _middle(per_split[:, i, 0]),
            "aiq_over_mix": over,
            "aiq_over_mean": None
            if floor is None or i == floor
            else _interval(_middle(per_split[:, i, 0] - per_split[:, floor, 0]), found[:, i, 0] - found[:, floor, 0]),
            "log_aiq_over_mix": log_over,
            "log_aiq_over_mean": None
            if floor is None or i == floor
            else _interval(_middle(per_split[:, i, 1] - per_split[:, floor, 1]), found[:, i, 1] - found[:, floor, 1]),
            "quality_over_best": gain,
            "saving": saving if np.isfinite(saving.value) and reached >= 0.5 else None,
            "saving_reached": reached,
        }
    low, high = (_middle(np.asarray(ends)) * 1e3 for ends in zip(*ranges, strict=True))
    return out, (low, high)


def _figures(means: Floats, sizes: list[int]) -> tuple[Floats, tuple[float, float]]:
    """Per curve: AIQ, AIQ on log cost, highest quality, saving at the best single's quality. The first row is the singles'.

    `means` holds for each curve the quality and then the cost of its G mixtures, and at the end the cost of each single.
    """
    curves = []
    at = 0
    for n in sizes:
        # Neighbouring budgets may cost the other way round on the judged queries; then the later one counts as no cheaper.
        curves.append((np.maximum.accumulate(means[at + n : at + 2 * n]), means[at : at + n]))
        at += 2 * n
    c_max = float(means[at:].max())
    c_min = max(float(x[0]) for x, _ in curves)
    usd_best, quality_best = (float(a[-1]) for a in curves[0])
    out = np.full((len(sizes), 4), np.nan)
    for i, (x, y) in enumerate(curves):
        if c_min < c_max:
            out[i, 0] = mean_height(x, y, c_min=c_min, c_max=c_max)
            out[i, 1] = mean_height(x, y, c_min=c_min, c_max=c_max, log=True)
        out[i, 2] = y[-1]
        out[i, 3] = 1.0 - cost_reaching(x, y, quality_best) / usd_best if i else 0.0
    return out, (c_min, c_max)


def _as_judged(result: Result, singles: list[Curve], others: list[Curve], resamples: int) -> dict[str, AsJudged]:
    """Figures by plain hulls, with intervals from resampled queries."""
    curves = [_stack(singles), *((c.quality_PQ, c.usd_PQ) for c in others)]
    sizes = [len(q) for q, _ in curves]
    columns = np.concatenate([part for pair in curves for part in pair])
    draws = bootstrap_means(columns.T, resamples=resamples, seed=result.seed, groups_Q=result.groups_Q)
    value, found = _hulls(columns.mean(axis=1), sizes), np.asarray([_hulls(row, sizes) for row in draws])
    out = {}
    for i, curve in enumerate(others, 1):
        aiq, log_aiq, cost_98, cost_100 = (_interval(value[i, k], found[:, i, k]) for k in range(4))
        over, log_over = (_interval(value[i, k] - value[0, k], found[:, i, k] - found[:, 0, k]) for k in range(2))
        out[curve.name] = AsJudged(
            aiq=aiq,
            log_aiq=log_aiq,
            aiq_over_mix=over,
            log_aiq_over_mix=log_over,
            cost_98=cost_98,
            cost_100=cost_100,
        )
    return out


def _hulls(means: Floats, sizes: list[int]) -> Floats:
    """Per curve: AIQ, AIQ on log cost, cost to reach 98% and 100% of the best single. The first row is the singles'.

    `means` holds for each curve the quality and then the cost of its points; the singles come first.
    """
    out = np.full((len(sizes), 4), np.nan)
    at = 0
    for i, n in enumerate(sizes):
        quality, usd = means[at : at + n], means[at + n : at + 2 * n]
        at += 2 * n
        if i == 0:
            low, high, best = float(usd.min()), float(usd.max()), int(np.argmax(quality))
            quality_best, usd_best = float(quality[best]), float(usd[best])
        x, y = hull(usd, quality)
        if low < high:
            out[i, 0] = mean_height(x, y, c_min=low, c_max=high)
            out[i, 1] = mean_height(x, y, c_min=low, c_max=high, log=True)
        for k, share in enumerate((0.98, 1.0), 2):
            out[i, k] = cost_reaching(x, y, share * quality_best) / usd_best
    return out


def _quality_only(result: Result, curve: Curve, best: Curve, resamples: int) -> dict[str, Any]:
    if curve.kind in ("single", "oracle"):
        return {}
    top = int(np.argmax(curve.quality_P))
    gain = (curve.quality_PQ[top] - best.quality_PQ[0])[:, None]
    draws = bootstrap_means(gain, resamples=resamples, seed=result.seed, groups_Q=result.groups_Q)
    return {"quality_over_best": _interval(float(gain.mean()), draws[:, 0])}


def _stack(curves: list[Curve]) -> tuple[Floats, Floats]:
    return np.concatenate([c.quality_PQ for c in curves]), np.concatenate([c.usd_PQ for c in curves])


def _middle(values: Floats) -> float:
    # The median, as a saving may be infinite in one deal; "nearest", as no mean of infinities is wanted.
    return float(np.quantile(values, 0.5, method="nearest"))


def _interval(value: float, draws: Floats) -> Interval:
    # A saving that is not reached is minus infinity: it stays in the interval, as the worst there is.
    low, high = np.quantile(draws, [0.025, 0.975], method="nearest")
    return Interval(value=float(value), low=float(low), high=float(high))


def _defined(value: float) -> float | None:
    return None if value != value else value


# --------------------------------------------------------------------------------------------------------------- text


def to_json(report: Report) -> bytes:
    """Return the report as JSON; what is undefined or infinite is null."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2)


def to_text(report: Report) -> str:
    """Return the report as a table for a terminal."""
    lines = [
        f"{report.source or 'table'}: {report.queries:,} queries judged ({report.dropped:,} left out), "
        f"{len(report.models)} targets, split {report.split}, seed {report.seed}",
    ]
    if report.range_usd_per_1k:
        low, high = report.range_usd_per_1k
        lines.append(
            f"AIQ ({report.aiq_norm} form) over {low:.4g} to {high:.4g} USD per 1,000 queries; "
            f"intervals: 95%, {report.resamples:,} paired resamples of queries"
        )
    lines += report.notes
    head = (
        "",
        "quality",
        "USD/1k",
        "gap",
        "AIQ",
        "AIQ over mix",
        "AIQ over mean",
        "log-cost AIQ over mix",
        "saving at best",
        "µs",
    )
    body = [_cells(r, report) for r in report.rows]
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    shown = [i for i in range(len(head)) if i == 0 or any(row[i] for row in body)]
    lines.append("")
    lines.append("  ".join(head[i].ljust(widths[i]) if i == 0 else head[i].rjust(widths[i]) for i in shown))
    kind = ""
    for row, cells in zip(report.rows, body, strict=True):
        if row.kind != kind and kind:
            lines.append("")
        kind = row.kind
        lines.append("  ".join(cells[i].ljust(widths[i]) if i == 0 else cells[i].rjust(widths[i]) for i in shown))
    lines += _judged_lines(report)
    lines += [
        "",
        "quality and USD/1k: at the setting of highest quality. gap: share of the way from the best single target to the oracle.",
        "mix: random mixing of single targets; mean: the router that forecasts each target's mean. What is mixed is chosen on other",
        "queries than it is read on, on both sides alike. saving at best: cost saved at the quality of the best single target",
        "(never: an end of the interval, where resamples do not reach that quality).",
        "hulls as judged: hulls of the points on the judged queries themselves, over the costs of the cheapest to the dearest target, as",
        "is usual; they flatter choosers of many settings by some thousandths. cost to reach: as a share of the best target's cost.",
    ]
    if any(r.kind == "cascade" for r in report.rows):
        lines.append(
            "cascade: chain and threshold are chosen on the training queries; asking for the confidence is charged."
        )
    return "\n".join(lines)


def _judged_lines(report: Report) -> list[str]:
    """The figures as they are published: hulls of the judged queries themselves."""
    rows = [(r.name, r.as_judged) for r in report.rows if r.as_judged is not None]
    if not rows:
        return []
    head = (
        "hulls as judged",
        "AIQ",
        "over mix",
        "log-cost AIQ",
        "over mix",
        "cost to reach 98%",
        "and 100% of the best",
    )
    body = [
        (
            name,
            f"{j.aiq.value:.4f}",
            str(j.aiq_over_mix),
            f"{j.log_aiq.value:.4f}",
            str(j.log_aiq_over_mix),
            _reached(j.cost_98),
            _reached(j.cost_100),
        )
        for name, j in rows
    ]
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    return [
        "",
        *(
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in (head, *body)
        ),
    ]


def _reached(cost: Interval) -> str:
    value, low, high = ("never" if v == np.inf else f"{v:.2f}" for v in (cost.value, cost.low, cost.high))
    return f"{value} [{low}, {high}]"


def _cells(row: Row, report: Report) -> tuple[str, ...]:
    name = row.name
    if row.kind == "single":
        name += " (best)" if row.name == report.best_single else ""
        name += " (cheapest)" if row.name == report.cheapest else ""
    if row.kind == "oracle" or row.kind == "label":
        name += " (sees answers)" if row.kind == "oracle" else " (needs labels)"
    saving = ""
    if row.saving is not None:
        s = row.saving
        saving = f"{_share(s.value)} [{_share(s.low)}, {_share(s.high)}]"
    elif row.saving_reached is not None:
        saving = "not reached"
    return (
        name,
        f"{row.quality:.4f}",
        "" if row.usd_per_1k is None else f"{row.usd_per_1k:.4f}",
        "" if row.oracle_gap is None or row.kind == "single" else f"{row.oracle_gap:+.3f}",
        "" if row.aiq is None else f"{row.aiq:.4f}",
        str(row.aiq_over_mix or ""),
        str(row.aiq_over_mean or ""),
        str(row.log_aiq_over_mix or ""),
        saving,
        "" if row.decision_us is None else f"{row.decision_us:.0f}",
    )


def _share(saving: float) -> str:
    return "never" if saving == -np.inf else f"{saving:+.1%}"


# --------------------------------------------------------------------------------------------------------------- plot

# Okabe & Ito's colours, told apart by readers with any of the usual colour blindnesses; line styles and marks differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (5, 2)))


def plot(result: Result, path: str, *, resamples: int = 300, title: str = "") -> None:
    """Draw the cost-quality plane: singles, their hull, each chooser's hull with a 95% band, and the oracle.

    These hulls go through the judged queries themselves and flatter whoever has more settings; the report's differences do not.

    Raises:
        TableError: if costs are not known, or matplotlib is not installed.
    """
    if not result.priced:
        raise TableError("nothing to plot: the table has no costs; give --prices")
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as e:
        raise TableError("plots need matplotlib: pip install 'fairlead[bench]'") from e
    singles = [c for c in result.curves if c.kind == "single"]
    figure, axes = plt.subplots(figsize=(9.0, 5.6), layout="constrained")
    q, usd = _stack(singles)
    q_M, usd_M = q.mean(axis=1), usd.mean(axis=1) * 1e3
    low, high = usd_M.min() * 0.6, usd_M.max() * 1.6
    grid = np.logspace(np.log10(low), np.log10(high), 200)
    axes.plot(grid, _height(usd_M, q_M, grid), color="#555555", lw=1.2, ls=(0, (4, 3)), label="random mix of singles")
    drawn = [c for c in result.curves if c.kind in ("router", "policy", "label", "cascade")]
    for i, curve in enumerate(drawn):
        colour, style = _COLOURS[i % len(_COLOURS)], _STYLES[i % len(_STYLES)]
        draws = bootstrap_means(
            np.concatenate([curve.quality_PQ, curve.usd_PQ]).T,
            resamples=resamples,
            seed=result.seed,
            groups_Q=result.groups_Q,
        )
        n = len(curve.settings)
        label = curve.name + (" (needs labels)" if curve.kind == "label" else "")
        if n == 1:
            axes.plot(curve.usd_P * 1e3, curve.quality_P, "D", color=colour, ms=6, label=label)
            continue
        heights = np.asarray([_height(d[n:] * 1e3, d[:n], grid) for d in draws])
        line = _height(curve.usd_P * 1e3, curve.quality_P, grid)
        seen = ~np.isnan(line)
        with np.errstate(all="ignore"):
            band = np.nanquantile(heights[:, seen], [0.025, 0.975], axis=0)
        axes.fill_between(grid[seen], band[0], band[1], color=colour, alpha=0.13, lw=0)
        axes.plot(grid, line, color=colour, ls=style, lw=2.0, label=label)
    for curve in result.curves:
        if curve.kind == "oracle":
            heights_o = _height(curve.usd_P * 1e3, curve.quality_P, grid)
            axes.plot(grid, heights_o, color="#999999", lw=1.4, ls=":", label="oracle (sees answers)")
    axes.plot(usd_M, q_M, "o", color="#222222", ms=5.5, label="single targets", zorder=5)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    floor = float(np.min(q_M))
    top = max(float(c.quality_P.max()) for c in result.curves)
    axes.set_ylim(floor - 0.06 * (top - floor), top + 0.05 * (top - floor))
    # One, two, five and their tenfolds, in plain figures.
    steps = [d * 10.0**k for k in range(-9, 7) for d in (1, 2, 5)]
    axes.set_xticks([t for t in steps if low <= t <= high])
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.xaxis.set_minor_formatter(lambda _v, _: "")
    axes.set_xlabel("mean cost, USD per 1,000 queries (log scale)")
    axes.set_ylabel("mean quality")
    axes.set_title(
        title or f"{result.queries:,} queries, {len(result.models)} targets, {result.split}; bands: 95%", fontsize=11
    )
    axes.grid(True, which="major", color="#dddddd", lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    # Last, since the legend and the titles decide where the points come to lie.
    _label(axes, [c.name for c in singles], usd_M, q_M)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _height(usd_P: Floats, quality_P: Floats, grid: Floats) -> Floats:
    """Hull at each cost of the grid; NaN before it begins."""
    x, y = hull(usd_P, quality_P)
    out: Floats = np.where(grid < x[0], np.nan, np.interp(grid, x, y))
    return out


def _label(axes: Any, names: list[str], usd_M: Floats, q_M: Floats) -> None:
    """Write names beside their points, each where it hits the least; a thin line leads to those that had to move away."""
    from matplotlib.patheffects import Normal, Stroke

    figure = axes.figure
    figure.canvas.draw()
    scale = figure.dpi / 72.0
    frame = axes.get_window_extent()
    at = axes.transData.transform(np.column_stack([usd_M, q_M]))
    marks = [(x - 7, y - 7, x + 7, y + 7) for x, y in at]
    lines: list[tuple[float, float, float, float]] = []
    for line in axes.get_lines():
        if line.get_linestyle() != "None":
            xy = axes.transData.transform(line.get_xydata())
            lines += [(x - 2, y - 2, x + 2, y + 2) for x, y in xy[np.isfinite(xy).all(axis=1)]]
    rises = (-14, 6, -27, 19, -40, 32, -53, 45, -66, 58, -79)
    places = [(dx, dy, side) for dy in rises for dx, side in ((8, "left"), (-8, "right"), (0, "center"))]
    texts: list[tuple[float, float, float, float]] = []
    for i in np.argsort(q_M):
        x, y = at[i]
        width, height = len(names[i]) * 4.6 * scale, 9.0 * scale
        best, least = (places[0], (0.0, 0.0, 0.0, 0.0)), np.inf
        for dx, dy, side in places:
            left = x + dx * scale - {"left": 0.0, "right": width, "center": width / 2}[side]
            box = (left, y + dy * scale, left + width, y + dy * scale + height)
            outside = box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1
            bad = 100.0 * (outside + sum(_overlap(box, other) for other in (*texts, *marks))) + abs(dy + 4) / 10
            bad += 0.5 * sum(_overlap(box, other) for other in lines)
            if bad < least:
                best, least = ((dx, dy, side), box), bad
        (dx, dy, side), box = best
        texts.append(box)
        note = axes.annotate(
            names[i],
            (usd_M[i], q_M[i]),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=side,
            fontsize=8,
            color="#222222",
            zorder=6,
            path_effects=[Stroke(linewidth=2.5, foreground="white"), Normal()],
            arrowprops={"arrowstyle": "-", "color": "#888888", "lw": 0.6} if abs(dy + 4) > 12 else None,
        )
        note.set_in_layout(False)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
