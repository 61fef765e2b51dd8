"""The page about a table: who is worth it, and why. Ours, no paper.

The study runs the same out-of-fold comparison as `fairlead bench`, the ablations of one predictor through the same lines, and the online
policies once more from a cold start over several orders, for regret over time.

Reward, where one number is wanted: quality - w * usd, with w given, or such that the dearest target's mean cost weighs as much as a
tenth of the answers being right. Regret is against the target that is best in hindsight by that reward.

Shapes: Q queries judged, M models, P settings, O orders, T steps, X places along an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from fairlead.bench import chains, metrics, page
from fairlead.bench.chains import ConfidenceColumns
from fairlead.bench.charts import Axis, Line, Point, plane, spanning
from fairlead.bench.evaluate import Curve, Entrant, Result, catalogued, complete, evaluate, splits, teach
from fairlead.bench.metrics import Floats, Interval, Ints, bootstrap_means
from fairlead.bench.page import Page, Palette, Section
from fairlead.bench.report import Report, Row, report
from fairlead.build import build
from fairlead.policies.base import Policy
from fairlead.pool import Pool
from fairlead.predictors.base import Predictor
from fairlead.table import OutcomeTable
from fairlead.types import Target

STEPS = 2000
"""Queries that an online policy is followed over, at most."""
ORDERS = 3
"""Seeded orders of them."""


class Followed(Struct, frozen=True, kw_only=True):
    """An online policy from a cold start, over several orders of the same queries."""

    name: str
    order_OT: Ints
    picked_OT: Ints


class Study(Struct, frozen=True, kw_only=True):
    """All that a page about a table shows."""

    table: OutcomeTable
    """The judged queries, in the order of the curves."""
    result: Result
    report: Report
    usd_weight: float
    ablated: str | None = None
    blocks: dict[str, Curve] = {}
    """Curve of the ablated predictor by what was left out; ``""``: nothing."""
    block_rows: dict[str, Row] = {}
    followed: tuple[Followed, ...] = ()


def study(
    table: OutcomeTable,
    routers: Sequence[Entrant],
    *,
    policies: Mapping[str, Mapping[str, Any]] | None = None,
    confidence: ConfidenceColumns | None = None,
    ablate: str | None = None,
    usd_weight: float | None = None,
    split: str = "5-fold",
    seed: int = 0,
    resamples: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> Study:
    """Compare, take the features of one predictor apart, and follow the online policies.

    Args:
        table: recorded outcomes.
        routers: predictors to sweep.
        policies: specs of policies that learn online, by name.
        confidence: columns that cascades read and pay; None: no cascades.
        ablate: name of the router to take apart; it must be fitted here. None: none is.
        usd_weight: quality that a dollar is worth, for regret and the table by dataset. None: see the module.
        split, seed, progress: as for `evaluate`.
        resamples: for the intervals.

    Raises:
        TableError: if the table does not allow it.
    """
    policies = policies or {}
    table, dropped = complete(table.with_models(sorted(table.models)))
    if confidence is not None:
        known = np.flatnonzero(chains.confident(table, confidence))
        table, dropped = table.take(known), dropped + len(table) - len(known)
    result = evaluate(
        table, routers=routers, policies=policies, confidence=confidence, split=split, seed=seed, progress=progress
    )
    result = replace(result, dropped=dropped)
    judged = table.take(_judged(table, split, seed))
    if usd_weight is None:
        usd_weight = 0.1 / float(np.nanmax(np.nanmean(judged.usd_QM, axis=0))) if result.priced else 0.0
    blocks: dict[str, Curve] = {}
    rows: dict[str, Row] = {}
    whole = next((r for r in routers if r.name == ablate and r.trained is None), None)
    apart = {} if whole is None else _without_each(whole)
    if whole is not None and apart:
        # In a run of their own, so that no cascades are built on them.
        again = evaluate(table, routers=list(apart.values()), split=split, seed=seed, progress=progress)
        named = {whole.name: "", **{e.name: left for left, e in apart.items()}}
        both = (*(c for c in result.curves if c.name == whole.name), *again.curves)
        blocks = {named[c.name]: c for c in both if c.name in named}
        alone = tuple(c for c in both if c.name in named or c.kind in ("single", "oracle"))
        told = _defined(report(replace(again, curves=alone), resamples=resamples))
        rows = {named[r.name]: r for r in told.rows if r.name in named}
    followed = tuple(_follow(judged, name, spec, usd_weight, seed) for name, spec in policies.items())
    return Study(
        table=judged,
        result=result,
        report=_defined(report(result, resamples=resamples)),
        usd_weight=usd_weight,
        ablated=ablate if blocks else None,
        blocks=blocks,
        block_rows=rows,
        followed=followed,
    )


def _defined(r: Report) -> Report:
    """Take out AIQs that are not defined, since all targets cost the same."""
    rows = [
        row
        if row.aiq_over_mix is None or row.aiq_over_mix.value == row.aiq_over_mix.value
        else replace(row, aiq=None, aiq_over_mix=None, aiq_over_mean=None, log_aiq_over_mix=None)
        for row in r.rows
    ]
    return replace(r, rows=rows)


def _judged(table: OutcomeTable, split: str, seed: int) -> Ints:
    if split == "none":
        return np.arange(len(table))
    return np.sort(np.concatenate([test for _, test in splits(table, split, seed=seed)]))


def _without_each(router: Entrant) -> dict[str, Entrant]:
    """Return the router without each of its signals in turn, all else as it is; nothing if it has fewer than two, or takes no features."""
    predictor: Predictor = build("predictors", router.spec)
    if "features" not in predictor.params():
        return {}
    features = predictor.features.spec()
    signals = tuple(features["signals"])
    return {
        left: Entrant(
            name=f"{router.name} without {left}",
            spec={**router.spec, "features": {**features, "signals": [s for s in signals if s != left]}},
        )
        for left in (signals if len(signals) > 1 else ())
    }


def _follow(table: OutcomeTable, name: str, spec: Mapping[str, Any], usd_weight: float, seed: int) -> Followed:
    policy: Policy = build("policies", spec)
    if policy.objective is not None and "objective" not in spec:
        spec = {**spec, "objective": {"usd_weight": usd_weight}}
    orders, picks = [], []
    at = np.random.default_rng(seed).permutation(len(table))[:STEPS]
    part = table.take(at).observed(catalogued(policy.needs), policy.needs)
    pool = Pool(targets=[Target(name=m) for m in table.models])
    for n in range(ORDERS):
        policy = build("policies", spec)
        order, picked = teach(policy, part, pool, seed + n)
        orders.append(at[order])
        picks.append(picked)
    return Followed(name=name, order_OT=np.asarray(orders), picked_OT=np.asarray(picks))


def from_table(found: Study, *, title: str = "") -> Page:
    """Lay out the page of a study."""
    r, result = found.report, found.result
    lead = _lead(r)
    choosers, targets = Palette(), Palette()
    sections = [
        _verdict(r),
        _plane(found, choosers) if result.priced else None,
        _choosers(r),
        _calibration(result, found.table, choosers),
        _regret(found, choosers),
        *_shares(found, lead, targets),
        _datasets(found, lead),
        _ablation(found),
        _latency(result),
        _notes(found),
    ]
    best = next(row for row in r.rows if row.name == r.best_single)
    left_out = f"; {r.dropped:,} left out" if r.dropped else ""
    figures = [
        ("queries judged", f"{r.queries:,}", f"{len(r.models)} targets, split {r.split}{left_out}"),
        ("best single target", f"{best.quality:.3f}", f"{best.name}{_per_1k(best)}"),
    ]
    if lead is not None:
        figures.append((f"highest quality, {lead.name}", f"{lead.quality:.3f}", _per_1k(lead).removeprefix(", ")))
        picked = _picked(r)
        if lead.aiq_over_mix is not None:
            i = lead.aiq_over_mix
            said = f"95%: {i.low:+.4f} to {i.high:+.4f}" + (f"; {picked}" if picked else "")
            figures.append((f"AIQ over mixing, {lead.name}", f"{i.value:+.4f}", said))
    told = "as trained" if r.split == "none" else "fitted on other queries than it is judged on"
    return Page(
        title=title or "Routers compared on recorded outcomes",
        subtitle=f"{page.file_name(r.source)}, table {r.digest[:12]}, seed {r.seed}. Every chooser is {told}.",
        figures=tuple(figures),
        sections=tuple(s for s in sections if s is not None),
    )


def _per_1k(row: Row) -> str:
    return "" if row.usd_per_1k is None else f", {page.dollars(row.usd_per_1k)} per 1,000"


def _leaders(r: Report) -> list[Row]:
    """Return the routers of which one stands for all; `mean` only if there is no other."""
    routers = [row for row in r.rows if row.kind == "router"]
    return [row for row in routers if row.name != "mean"] or routers


def _lead(r: Report) -> Row | None:
    """Return the router with the highest AIQ over mixing, or highest quality where costs are not known; what is shown of it must say `_picked`."""
    return max(
        _leaders(r), key=lambda row: row.quality if row.aiq_over_mix is None else row.aiq_over_mix.value, default=None
    )


def _picked(r: Report) -> str:
    """Say that the lead was picked by the figures it is shown with, which flatters it; its intervals do not allow for that."""
    n = len(_leaders(r))
    return f"highest of {n}, chosen on these queries" if n > 1 else ""


def _verdict(r: Report) -> Section | None:
    """Say in words who is worth it."""
    compared = [row for row in r.rows if row.aiq_over_mix is not None and row.kind in ("router", "policy", "cascade")]
    if not compared:
        return None
    above = [row.name for row in compared if row.aiq_over_mix and row.aiq_over_mix.low > 0.0]
    below = [row.name for row in compared if row.aiq_over_mix and row.aiq_over_mix.high < 0.0]
    unclear = [row.name for row in compared if row.name not in (*above, *below)]
    said = [
        f"Better than mixing single targets at random, beyond chance: {', '.join(above)}."
        if above
        else "Nobody is better than mixing single targets at random, beyond chance.",
        f"Not told apart from it: {', '.join(unclear)}." if unclear else "",
        f"Worse, beyond chance: {', '.join(below)}." if below else "",
    ]
    return Section(
        title="Is it worth it?",
        finding=" ".join(s for s in said if s),
        text="The measure is AIQ, the mean quality over the common range of cost, less that of random mixing of single targets. What is "
        "mixed is chosen on other queries than it is read on, for both sides alike.",
    )


def _plane(found: Study, palette: Palette) -> Section:
    """Draw the cost-quality plane."""
    result = found.result
    singles = [c for c in result.curves if c.kind == "single"]
    usd_M = np.asarray([c.usd_P[0] for c in singles]) * 1e3
    quality_M = np.asarray([c.quality_P[0] for c in singles])
    drawn = [c for c in result.curves if c.kind in ("router", "policy", "label", "cascade")]
    positive = usd_M[usd_M > 0.0]
    low, high = (float(positive.min()), float(usd_M.max())) if len(positive) else (1e-3, 1.0)
    log = len(positive) == len(usd_M) and high > 5.0 * low
    axis = spanning("USD per 1,000 queries" + (" (log scale)" if log else ""), [usd_M], log=log, pad=0.09)
    grid = np.geomspace(axis.low, axis.high, 160) if log else np.linspace(max(axis.low, 0.0), axis.high, 160)
    lines = [Line(name="random mix of single targets", x=grid, y=_height(usd_M, quality_M, grid), colour="base")]
    for c in drawn:
        label = c.name + (" (needs labels)" if c.kind == "label" else "")
        if len(c.settings) == 1:
            lines.append(Line(name=label, x=c.usd_P * 1e3, y=c.quality_P, colour=palette(c.name)))
            continue
        n = len(c.settings)
        draws = bootstrap_means(
            np.concatenate([c.quality_PQ, c.usd_PQ]).T, resamples=200, seed=result.seed, groups_Q=result.groups_Q
        )
        heights = np.asarray([_height(d[n:] * 1e3, d[:n], grid) for d in draws])
        line = _height(c.usd_P * 1e3, c.quality_P, grid)
        seen = ~np.isnan(line)
        edges = np.full((2, len(grid)), np.nan)
        with np.errstate(all="ignore"):
            edges[:, seen] = np.nanquantile(
                np.where(np.isnan(heights[:, seen]), line[seen], heights[:, seen]), [0.025, 0.975], axis=0
            )
        lines.append(Line(name=label, x=grid, y=line, low=edges[0], high=edges[1], colour=palette(c.name)))
    shown = [
        *(line.y for line in lines),
        quality_M,
        *(e for line in lines if line.low is not None for e in (line.low, line.high)),
    ]
    y = spanning("mean quality", [s for s in shown if s is not None])
    points = [Point(name=c.name, x=float(u), y=float(q)) for c, u, q in zip(singles, usd_M, quality_M, strict=True)]
    chart = plane(
        "Cost and quality",
        "Quality over cost: single targets as points, what mixing them attains as a dashed line, and each router's hull with a 95% band.",
        axis,
        y,
        lines,
        points,
    )
    return Section(
        title="Cost and quality",
        text="Up and to the left is better. Points: single targets. Dashed grey: what mixing them at random attains. Lines: what each chooser attains at its "
        "settings and mixtures of them, with 95% bands over queries. These hulls go through the judged queries themselves and flatter whoever has more settings; "
        "the differences in the table below do not.",
        body=page.drawn(chart, lines),
    )


def _height(usd_P: Floats, quality_P: Floats, grid: Floats) -> Floats:
    x, y = metrics.hull(usd_P, quality_P)
    out: Floats = np.where(grid < x[0], np.nan, np.interp(grid, x, y))
    return out


def _choosers(r: Report) -> Section:
    head = [
        "chooser",
        "quality",
        "USD per 1,000",
        "AIQ over mix",
        "log-cost AIQ",
        "saved at best quality",
        "way to oracle",
    ]
    rows = []
    for row in r.rows:
        name = row.name + {"oracle": " (sees answers)", "label": " (needs labels)"}.get(row.kind, "")
        saving = "" if row.saving_reached is None else "not reached" if row.saving is None else _saving(row.saving)
        rows.append(
            [
                f"{name} (best single)" if row.name == r.best_single else name,
                f"{row.quality:.4f}",
                "" if row.usd_per_1k is None else f"{row.usd_per_1k:.4f}",
                page.interval(row.aiq_over_mix),
                page.interval(row.log_aiq_over_mix),
                saving,
                "" if row.oracle_gap is None or row.kind == "single" else f"{row.oracle_gap:+.2f}",
            ]
        )
    return Section(
        title="All choosers",
        body=page.table(
            "Quality and cost at the setting of highest quality; differences with 95% intervals over queries",
            head,
            rows,
        ),
    )


def _saving(s: Interval) -> str:
    said = ["never" if v == -np.inf else f"{v:+.0%}" for v in (s.value, s.low, s.high)]
    return f"{said[0]}\n{said[1]} to {said[2]}"


def _calibration(result: Result, table: OutcomeTable, palette: Palette) -> Section | None:
    curves = [c for c in result.curves if c.forecast_QM is not None]
    if not curves:
        return None
    lines, rows = [page.diagonal()], []
    for c in curves:
        assert c.forecast_QM is not None
        lines.append(page.reliability(c.name, c.forecast_QM.ravel(), table.quality_QM.ravel(), colour=palette(c.name)))
        rows.append([c.name, f"{c.figures['ece']:.4f}", f"{c.figures['brier']:.4f}"])
    axis = Axis(label="forecast quality", low=0.0, high=1.0)
    chart = plane(
        "Calibration",
        "Mean quality that was recorded, over forecast quality, in 15 bins for each predictor. On the dashed diagonal forecasts mean what they say.",
        axis,
        Axis(label="recorded quality", low=0.0, high=1.0),
        lines,
    )
    return Section(
        title="Do forecasts mean what they say?",
        text="Out of fold, all queries and targets together. A dot is a bin of forecasts (of at least "
        f"{page.MIN_DOT}); its size is their number. Below the diagonal: promised too much.",
        body=page.drawn(chart, lines)
        + page.table(
            "Calibration error (15 bins) and mean squared error of forecasts; less is better",
            ["predictor", "calibration error", "squared error"],
            rows,
        ),
    )


def _regret(found: Study, palette: Palette) -> Section:
    """Cumulative regret against the best fixed target: routers out of fold, policies from a cold start."""
    table, weight, seed = found.table, found.usd_weight, found.result.seed
    usd_QM = np.nan_to_num(table.usd_QM, nan=0.0)
    reward_QM = table.quality_QM - weight * usd_QM
    best = int(np.argmax(reward_QM.mean(axis=0)))
    steps = min(STEPS, len(table))
    at = np.random.default_rng(seed).permutation(len(table))[:steps]
    lines, rows = [], []
    oracle = float((reward_QM.max(axis=1) - reward_QM[:, best]).mean())
    for f in found.followed:
        each = np.asarray([reward_QM[o, best] - reward_QM[o, p] for o, p in zip(f.order_OT, f.picked_OT, strict=True)])
        lines.append(_growing(f"{f.name}, learning from nothing", np.cumsum(each, axis=1), palette(f.name)))
        last = each[:, -max(1, each.shape[1] // 4) :].mean()
        rows.append(
            [
                f"{f.name}, learning from nothing",
                f"{each.sum(axis=1).mean():+.1f}",
                f"{each.shape[1]:,}",
                f"{each.mean() * 1e3:+.1f}",
                f"{last * 1e3:+.1f}",
            ]
        )
    for c in found.result.curves:
        if c.kind == "router" and c.chosen_PQ is not None:
            pick_Q = c.chosen_PQ[_level(c, weight)]
            each_T = (reward_QM[:, best] - reward_QM[np.arange(len(table)), pick_Q])[at]
            lines.append(_growing(f"{c.name}, fitted beforehand", np.cumsum(each_T)[None], palette(c.name)))
            rows.append(
                [
                    f"{c.name}, fitted beforehand",
                    f"{each_T.sum():+.1f}",
                    f"{steps:,}",
                    f"{each_T.mean() * 1e3:+.1f}",
                    "",
                ]
            )
    random = float((reward_QM[:, [best]] - reward_QM).mean())
    lines.append(
        Line(
            name="picking at random (expected)",
            x=np.asarray([0.0, steps]),
            y=np.asarray([0.0, random * steps]),
            colour="base",
        )
    )
    rows.append(["picking at random (expected)", f"{random * steps:+.1f}", f"{steps:,}", f"{random * 1e3:+.1f}", ""])
    rows.append(["oracle (sees answers)", f"{-oracle * steps:+.1f}", f"{steps:,}", f"{-oracle * 1e3:+.1f}", ""])
    x = Axis(label="queries", low=0.0, high=float(steps))
    y = spanning("regret so far", [line.y for line in lines], at=(0.0,))
    chart = plane(
        "Regret over time",
        f"Cumulative regret against always asking {table.models[best]}; falling is better, below zero beats every fixed target.",
        x,
        y,
        lines,
        zero=True,
    )
    said = f"one dollar is worth {weight:.4g} in quality" if weight else "costs are not known, so quality alone counts"
    return Section(
        title="Regret over time",
        text=f"Reward lost against always asking {table.models[best]}, the best fixed target in hindsight ({said}). Below zero: better than any fixed "
        f"target. Policies that learn online see each query once, in {ORDERS} seeded orders (the line is their mean, the band their range); predictors were fitted on the other folds.",
        body=page.drawn(chart, lines)
        + page.table(
            "Regret against the best fixed target, in answers being right",
            ["chooser", "in all", "queries", "per 1,000", "per 1,000, last quarter"],
            rows,
        ),
    )


def _growing(name: str, total_OT: Floats, colour: str) -> Line:
    steps = total_OT.shape[1]
    at = np.unique(np.linspace(0, steps - 1, min(steps, 200)).astype(np.int64))
    mean = total_OT[:, at].mean(axis=0)
    band = (total_OT[:, at].min(axis=0), total_OT[:, at].max(axis=0)) if len(total_OT) > 1 else (None, None)
    return Line(name=name, x=(at + 1).astype(np.float64), y=mean, low=band[0], high=band[1], colour=colour)


def _level(curve: Curve, usd_weight: float) -> int:
    """Return the setting whose weight of a dollar is nearest to the wanted one."""
    weights = [float(s.rpartition("=")[2]) if "=" in s else usd_weight for s in curve.settings]
    if usd_weight <= 0.0:
        return int(np.argmin(weights))
    distance = [abs(np.log(w / usd_weight)) if w > 0.0 else np.inf for w in weights]
    return int(np.argmin(distance)) if np.isfinite(distance).any() else 0


def _shares(found: Study, lead: Row | None, palette: Palette) -> list[Section]:
    models = found.table.models
    out = []
    curve = next((c for c in found.result.curves if lead is not None and c.name == lead.name), None)
    if curve is not None and curve.chosen_PQ is not None and len(curve.settings) > 2:
        weights = np.asarray([float(s.rpartition("=")[2]) for s in curve.settings])
        good = weights > 0.0
        share_PM = np.asarray([np.bincount(p, minlength=len(models)) / len(p) for p in curve.chosen_PQ[good]])
        label = "quality that a dollar is worth (log scale)"
        axis = Axis(label=label, low=float(weights[good].min()), high=float(weights[good].max()), log=True)
        told = "Share of queries that each target gets, as cost counts more and more."
        out.append(
            Section(
                title=f"Who {curve.name} picks, as cost counts more",
                text="Share of queries that each target gets. On the left only quality counts, on the right only cost.",
                body=page.shares(f"Who {curve.name} picks", told, axis, weights[good], share_PM, models, palette),
            )
        )
    for f in found.followed:
        steps = f.picked_OT.shape[1]
        edges = np.linspace(0, steps, min(25, steps + 1)).astype(np.int64)
        share_XM = np.asarray(
            [np.bincount(f.picked_OT[:, a:b].ravel(), minlength=len(models)) for a, b in pairwise(edges.tolist())]
        )
        share_XM = share_XM / share_XM.sum(axis=1, keepdims=True)
        at = (edges[:-1] + edges[1:]) / 2.0
        at[0], at[-1] = 0.0, float(steps)
        axis = Axis(label="queries seen", low=0.0, high=float(steps))
        told = "Share of queries that each target gets while the policy learns."
        out.append(
            Section(
                title=f"Who {f.name} picks, over time",
                text=f"From a cold start, mean of {len(f.picked_OT)} orders of the queries.",
                body=page.shares(f"Who {f.name} picks over time", told, axis, at, share_XM, models, palette),
            )
        )
    return out


def _datasets(found: Study, lead: Row | None) -> Section | None:
    """Compare the lead with the best single target, dataset by dataset."""
    table, result, weight = found.table, found.result, found.usd_weight
    labels = [table.datasets[i] or table.domains[i] for i in range(len(table))]
    names = sorted({n for n in labels if n is not None})
    curve = next((c for c in result.curves if lead is not None and c.name == lead.name), None)
    if curve is None or not names:
        return None
    p = _level(curve, weight)
    best = int(np.argmax(table.quality_QM.mean(axis=0)))
    gain_Q = curve.quality_PQ[p] - table.quality_QM[:, best]
    oracle_Q = table.quality_QM.max(axis=1)
    rows = []
    for name in (*names, None):
        at = np.flatnonzero([n == name for n in labels]) if name is not None else np.arange(len(table))
        if not len(at):
            continue
        draws = bootstrap_means(gain_Q[at][:, None], resamples=1000, seed=result.seed, groups_Q=table.groups[at])[:, 0]
        low, high = np.quantile(draws, [0.025, 0.975])
        gain = Interval(value=float(gain_Q[at].mean()), low=float(low), high=float(high))
        picks = "" if curve.chosen_PQ is None else _most(curve.chosen_PQ[p][at], table.models)
        usd = float(curve.usd_PQ[p][at].mean() * 1e3)
        single = float(table.usd_QM[at, best].mean() * 1e3)
        rows.append(
            [
                "all" if name is None else name,
                f"{len(at):,}",
                f"{curve.quality_PQ[p][at].mean():.3f}",
                page.interval(gain, digits=3),
                "" if usd != usd else f"{usd:.4f}",
                "" if single != single else f"{single:.4f}",
                f"{oracle_Q[at].mean():.3f}",
                picks,
            ]
        )
    single_name = table.models[best]
    picked = f", {said}," if (said := _picked(found.report)) else ""
    worth = f", where a dollar is worth {weight:.4g} in quality" if weight else ""
    head = [
        "dataset",
        "queries",
        "quality",
        "over best single",
        "USD per 1,000",
        "best single's USD",
        "oracle",
        "picked most",
    ]
    return Section(
        title="By dataset",
        text=f"{curve.name}{picked}{worth}, beside {single_name}, the single target of highest quality. No chooser is told the dataset.",
        body=page.table(
            f"{curve.name} and {single_name} by dataset; differences with 95% intervals over queries", head, rows
        ),
    )


def _most(pick_N: Ints, models: Sequence[str]) -> str:
    share = np.bincount(pick_N, minlength=len(models)) / len(pick_N)
    m = int(np.argmax(share))
    return f"{models[m]}\n{share[m]:.0%}"


def _ablation(found: Study) -> Section:
    """Show what is lost when one block of features is left out."""
    title = "What each block of features brings"
    if found.ablated is None:
        return Section(
            title=title,
            text="Not shown: no predictor with several blocks of features was fitted here (a trained one cannot be taken apart).",
        )
    whole = found.blocks[""]
    assert whole.forecast_QM is not None
    quality_QM = found.table.quality_QM
    error_Q = ((whole.forecast_QM - quality_QM) ** 2).mean(axis=1)
    rows = []
    harmful, helpful = [], []
    for left, curve in found.blocks.items():
        assert curve.forecast_QM is not None
        row = found.block_rows[left]
        more_Q = ((curve.forecast_QM - quality_QM) ** 2).mean(axis=1) - error_Q
        change = ""
        if left:
            draws = bootstrap_means(
                more_Q[:, None], resamples=1000, seed=found.result.seed, groups_Q=found.table.groups
            )[:, 0]
            low, high = np.quantile(draws, [0.025, 0.975])
            change = page.interval(Interval(value=float(more_Q.mean()), low=float(low), high=float(high)))
            helpful += [left] if low > 0.0 else []
            harmful += [left] if high < 0.0 else []
        rows.append(
            [
                f"{found.ablated} without {left}" if left else f"{found.ablated}, all features",
                f"{curve.figures['brier']:.4f}",
                change,
                page.interval(row.aiq_over_mix) if row.aiq_over_mix else f"{row.quality:.4f}",
                f"{curve.figures['ece']:.4f}",
            ]
        )
    said = (
        f"Leaving out {' or '.join(helpful)} makes forecasts worse, beyond chance."
        if helpful
        else "No single block is missed beyond chance when it is left out."
    )
    if harmful:
        said += f" Without {' or '.join(harmful)} they are better, beyond chance."
    fourth = "AIQ over mix" if found.result.priced else "highest quality"
    return Section(
        title=title,
        finding=said,
        text="The predictor is fitted again on the same folds without one block at a time. Blocks may stand in for each other, so what two of them bring together is not the sum.",
        body=page.table(
            "Squared error, its change with a 95% interval (above 0: the block is missed), and what it means for the cost-quality hull",
            ["features", "squared error", "change", fourth, "calibration error"],
            rows,
        ),
    )


def _latency(result: Result) -> Section:
    rows = [[c.name, c.kind, f"{c.seconds * 1e6:,.0f}"] for c in result.curves if c.seconds is not None]
    return Section(
        title="Time to decide",
        text="Median, signals included, on the machine that wrote this page and while it had other work: compare, do not quote.",
        body=page.table("Microseconds for each decision", ["chooser", "kind", "µs"], rows),
    )


def _notes(found: Study) -> Section:
    r = found.report
    low_high = (
        f"AIQ is taken over {r.range_usd_per_1k[0]:.4g} to {r.range_usd_per_1k[1]:.4g} USD per 1,000 queries (paper form)."
        if r.range_usd_per_1k
        else "Costs are not known, so only quality is compared."
    )
    notes = [
        f"{r.queries:,} queries judged, {r.dropped:,} left out since a cell is not known; {found.table.describe_missing()}.",
        f"Intervals: 95%, {r.resamples:,} paired resamples of queries; equal prompts are drawn together and never split apart.",
        low_high,
        "One recorded answer stands for a target on a query; its own noise is part of every figure.",
        *r.notes,
    ]
    return Section(title="How this was measured", body=page.notes(notes))
