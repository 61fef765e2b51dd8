"""Routers on a table of recorded outcomes: each is fitted on some queries and judged on others, with its baselines beside it.

Every chooser becomes a `Curve`: a row of settings (willingness to pay, from low to high), each with the quality and the cost of every
judged query. Metrics and intervals are taken from curves alone, so all choosers are measured by the same lines.

- **Predictors** are swept over the weight of a dollar, as the policy `utility` weighs it, and forecast each query once.
- **Policies** that learn online take the training queries one at a time in a seeded order, then decide without learning.
- **Cascades** are chains of two or three targets with a threshold on the recorded confidence, chosen on the training queries alone
  (`chains.py`).
- **Cascade x router**: some predictors also forecast whole cascades, and choose among them and single calls query by query.
- **Baselines**: each target, the cheapest, the best, random mixing of targets, the router `mean`, the mean per dataset where labels are
  known, and an oracle that sees the answers. Which targets are mixed, like which settings of a chooser, is chosen on other queries than
  it is judged on (`mixing.py`).

No query is judged that was trained on, by id or by prompt; equal prompts stay in one fold. Queries with a cell that is not known are
left out and counted, since a chooser that picks such a cell can be neither credited nor blamed; so are those that lack a confidence, if
cascades are compared.

Shapes: Q queries judged, M models, P settings, L weights of a dollar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from fairlead.bench import chains, metrics
from fairlead.bench.chains import ConfidenceColumns
from fairlead.build import build
from fairlead.errors import TableError
from fairlead.policies.base import Policy, pick, uniform
from fairlead.pool import Pool
from fairlead.predictors.base import Predictor
from fairlead.predictors.calibration import folds
from fairlead.signals.base import Observer
from fairlead.table import Floats, Ints, OutcomeTable
from fairlead.types import Reward, Target, Trace
from fairlead.worlds.replay import replay
from fairlead.worlds.tabled import Tabled

Progress: TypeAlias = Callable[[str], None]

LEVELS = 41
"""Weights of a dollar that are tried."""
POLICY_LEVELS = 6
PLANNERS = ("forest", "knn")
"""Types of routers that also choose among cascades, where confidences are recorded."""


class Curve(Struct, frozen=True, kw_only=True):
    """One chooser at several settings."""

    name: str
    kind: str
    """single, router, policy, cascade, label or oracle."""
    settings: tuple[str, ...]
    quality_PQ: Floats
    usd_PQ: Floats
    chosen_PQ: Ints | None = None
    """Index of the model picked, for those that pick one of several before they ask."""
    seconds: float | None = None
    """Typical (median) time to read the signals and decide, measured here."""
    forecast_QM: Floats | None = None
    """Forecast quality of each target, for routers."""
    figures: dict[str, float] = {}
    """More about it, such as the calibration of its forecasts over all judged queries."""

    @property
    def quality_P(self) -> Floats:
        """Mean quality of each setting."""
        return np.asarray(self.quality_PQ.mean(axis=1))

    @property
    def usd_P(self) -> Floats:
        """Mean cost of each setting, USD per query."""
        return np.asarray(self.usd_PQ.mean(axis=1))


class Result(Struct, frozen=True, kw_only=True):
    """What was measured, and on what."""

    source: str
    digest: str
    models: tuple[str, ...]
    queries: int
    dropped: int
    """Queries left out since a cell, or a confidence that a cascade reads, is not known."""
    split: str
    seed: int
    priced: bool
    """Whether costs are known; if not, all costs are NaN and only quality is compared."""
    curves: tuple[Curve, ...]
    groups_Q: Ints
    notes: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------- preparing


def complete(table: OutcomeTable) -> tuple[OutcomeTable, int]:
    """Leave out queries with a cell of unknown quality (or cost, where any is known); return the rest and their number.

    Raises:
        TableError: if fewer than half the queries are left.
    """
    good_Q = ~np.isnan(table.quality_QM).any(axis=1)
    if not np.isnan(table.usd_QM).all():
        good_Q &= ~np.isnan(table.usd_QM).any(axis=1)
    kept = np.flatnonzero(good_Q)
    if len(kept) < max(2, len(table) // 2):
        raise TableError(
            f"only {len(kept)} of {len(table)} queries have every model's quality"
            f"{'' if np.isnan(table.usd_QM).all() else ' and cost'}; compare fewer models (--models), or estimate from logged "
            f"propensities instead; {table.describe_missing()}"
        )
    return (table, 0) if len(kept) == len(table) else (table.take(kept), len(table) - len(kept))


def priced(
    table: OutcomeTable, prices: Mapping[str, tuple[float, float]], *, output_tokens: float = 200.0
) -> OutcomeTable:
    """Model each cost from prices (USD per million input and output tokens): a quarter token per character, `output_tokens` out.

    Recorded token counts are used where there are any. The output length is an assumption; say so with every figure.

    Raises:
        TableError: if a model has no price.
    """
    lacking = [m for m in table.models if m not in prices]
    if lacking:
        raise TableError(f"no price for {', '.join(lacking)}; add rows for them to the price file")
    size_Q = np.asarray([np.nan if p is None else len(p) / 4.0 for p in table.prompts])
    tokens_in = np.where(np.isnan(table.input_tokens_QMS), size_Q[:, None, None], table.input_tokens_QMS)
    tokens_out = np.where(np.isnan(table.output_tokens_QMS), output_tokens, table.output_tokens_QMS)
    rates = np.asarray([prices[m] for m in table.models]) / 1e6
    usd = tokens_in * rates[:, 0][None, :, None] + tokens_out * rates[:, 1][None, :, None]
    return table.with_usd(np.where(table.present_QMS, usd, np.nan))


def splits(table: OutcomeTable, how: str, *, seed: int = 0) -> list[tuple[Ints, Ints]]:
    """Return (train, test) indices. Queries with equal prompts stay on one side.

    Args:
        table: what to split.
        how: ``5-fold`` (any number), ``column`` (the table's own ``train`` and ``test``), or a test share such as ``0.2``.
        seed: of the shuffle.

    Raises:
        TableError: if it cannot be done.
    """
    if how == "column":
        names = np.asarray(table.splits, dtype=object)
        train, test = np.flatnonzero(names == "train"), np.flatnonzero(names == "test")
        if not len(train) or not len(test):
            found = ", ".join(sorted({str(s) for s in table.splits}))
            raise TableError(f"the column `split` must hold both train and test, but holds {found}; use --split 5-fold")
        return [(train, test)]
    if how.endswith("-fold") and how[:-5].isdigit() and int(how[:-5]) >= 2:
        k = int(how[:-5])
        fold_Q = folds(table.groups, k=k, seed=seed)
        return [(np.flatnonzero(fold_Q != f), np.flatnonzero(fold_Q == f)) for f in range(k)]
    try:
        share = float(how)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        raise TableError(f"cannot split by {how!r}; use 5-fold, column, or a test share such as 0.2")
    _, group_Q = np.unique(table.groups, return_inverse=True)
    n = int(group_Q.max()) + 1
    rank = np.random.default_rng(seed).permutation(n)
    held = rank[group_Q] < min(max(1, round(share * n)), n - 1)
    return [(np.flatnonzero(~held), np.flatnonzero(held))]


def seen(table: OutcomeTable, ids: Iterable[str], hashes: Iterable[str]) -> Ints:
    """Return the indices of queries that were trained on, by id or by normalised prompt."""
    known_ids, known_hashes = set(ids), set(hashes)
    return np.asarray(
        [
            i
            for i, (name, h) in enumerate(zip(table.query_ids, table.prompt_hashes, strict=True))
            if name in known_ids or (h is not None and h in known_hashes)
        ],
        dtype=np.int64,
    )


def refuse_seen(train: OutcomeTable, test: OutcomeTable) -> None:
    """Raise `TableError` if a query of `test` is also in `train`, by id or by normalised prompt."""
    both = seen(test, train.query_ids, (h for h in train.prompt_hashes if h is not None))
    if len(both):
        raise TableError(
            f"{len(both)} of {len(test)} queries to be judged were trained on (as {test.query_ids[both[0]]!r} was): "
            "their figures would flatter; leave them out with --skip-seen"
        )


# ----------------------------------------------------------------------------------------------------------- choosing


def weights(table: OutcomeTable, *, levels: int = LEVELS) -> Floats:
    """Weights of a dollar from "only quality counts" (0) to "only cost counts", spaced to the table's own costs, (L,)."""
    if np.isnan(table.usd_QM).all():
        return np.zeros(1)
    usd_M = np.nanmean(table.usd_QM, axis=0)
    span = max(float(np.nanmax(usd_M)), 1e-12)
    low = max(float(np.nanmin(usd_M)), span * 1e-6)
    grid = np.logspace(np.log10(0.01 / span), np.log10(3.0 / low), levels - 1)
    return np.concatenate([[0.0], grid])


def choose(
    quality_QM: Floats, usd_QM: Floats, weight_L: Floats, *, query_ids: Sequence[str], seed: int = 0
) -> NDArray[np.int64]:
    """Choose as the policy `utility` does, for all weights at once: (L, Q). Models must be in order of name.

    Equal best utilities are drawn with the query's own number, as `Policy.decide` draws them.
    """
    out = np.empty((len(weight_L), len(quality_QM)), dtype=np.int64)
    for i, weight in enumerate(weight_L.tolist()):
        utility = quality_QM - np.where(np.isnan(usd_QM), 0.0, weight * usd_QM) if weight else quality_QM
        best_Q1 = utility.max(axis=1, keepdims=True)
        tied = utility == best_Q1
        out[i] = tied.argmax(axis=1)
        for q in np.flatnonzero(tied.sum(axis=1) > 1).tolist():
            candidates = np.flatnonzero(tied[q])
            n = len(candidates)
            out[i, q] = candidates[pick([1.0 / n] * n, uniform(seed, query_ids[q]))]
    return out


def forecasts(predictor: Predictor, table: OutcomeTable) -> tuple[Floats, Floats, float]:
    """Forecast quality and USD of every target, (Q, M) each, and return the median seconds per query (signals not included)."""
    targets = [Target(name=m) for m in table.models]
    signals = table.observations(predictor.needs)
    quality, usd = np.empty(table.quality_QM.shape), np.full(table.quality_QM.shape, np.nan)
    took = np.empty(len(signals))
    for i, reading in enumerate(signals):
        start = perf_counter()
        found = predictor.predict(reading, targets)
        took[i] = perf_counter() - start
        for m, forecast in enumerate(found):
            quality[i, m] = forecast.quality
            if forecast.usd is not None:
                usd[i, m] = forecast.usd
    return quality, usd, float(np.median(took)) if len(took) else 0.0


class Entrant(Struct, frozen=True, kw_only=True):
    """A predictor that enters the comparison: a spec that is fitted per fold, or one that was trained earlier."""

    name: str
    spec: dict[str, Any] = {}
    trained: Predictor | None = None
    """Then nothing is fitted."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the signals that it reads."""
        return (self.trained or self._built()).needs

    def fitted(self, train: OutcomeTable) -> Predictor:
        """Return the predictor, fitted on `train` unless it was trained already."""
        if self.trained is not None:
            return self.trained
        predictor = self._built()
        predictor.fit(train)
        return predictor

    def _built(self) -> Predictor:
        predictor: Predictor = build("predictors", self.spec)
        return predictor


# ---------------------------------------------------------------------------------------------------------- evaluating


def evaluate(
    table: OutcomeTable,
    *,
    routers: Sequence[Entrant] = (),
    policies: Mapping[str, Mapping[str, Any]] | None = None,
    confidence: ConfidenceColumns | None = None,
    split: str = "5-fold",
    seed: int = 0,
    observer: Observer | None = None,
    progress: Progress | None = None,
) -> Result:
    """Measure every chooser on the same judged queries.

    Args:
        table: recorded outcomes; queries with unknown cells are left out and counted.
        routers: predictors to sweep.
        policies: specs of policies to run, by name shown.
        confidence: columns for cascades; None: no cascades.
        split: see `splits`. If all routers were trained earlier, and nothing else learns, ``none`` judges every query.
        seed: of the split, and of all draws.
        observer: signals to read; None: those in the catalogue, by their names.
        progress: told what was finished.

    Raises:
        TableError: if a judged query was trained on, or the table does not allow it.
    """
    table, dropped = complete(table.with_models(sorted(table.models)))
    if confidence is not None:
        good = np.flatnonzero(chains.confident(table, confidence))
        table, dropped = table.take(good), dropped + len(table) - len(good)
    say = progress or (lambda _: None)
    policies = policies or {}
    needs = sorted({n for r in routers for n in r.needs} | {n for s in policies.values() for n in _policy(s).needs})
    reading = 0.0
    if needs:
        observer = observer or catalogued(needs)
        table = table.observed(observer, needs)
        reading = float(np.median([sum(r.seconds for r in s.readings.values()) for s in table.observations(needs)]))
    say("signals")
    every = np.arange(len(table))
    parts = [(every[:0], every)] if split == "none" else splits(table, split, seed=seed)
    if split != "none":
        for train, test in parts:
            refuse_seen(table.take(train), table.take(test))
    judged = np.sort(np.concatenate([test for _, test in parts]))
    weight_L = weights(table)
    found: dict[str, list[tuple[Ints, Curve]]] = {}
    for n, (train, test) in enumerate(parts):
        past, now = table.take(train), table.take(test)
        for curve in _fold(past, now, routers, policies, confidence, weight_L, seed, reading):
            found.setdefault(curve.name, []).append((test, curve))
        say(f"fold {n + 1} of {len(parts)}")
    curves = [_single(table.take(judged), m) for m in range(len(table.models))]
    curves += [_scored(_join(pieces), table.quality_QM[judged]) for pieces in found.values()]
    curves += _oracles(table.take(judged), weight_L)
    return Result(
        source=table.source,
        digest=table.digest,
        models=tuple(table.models),
        queries=len(judged),
        dropped=dropped,
        split=split,
        seed=seed,
        priced=not np.isnan(table.usd_QM).all(),
        curves=tuple(curves),
        groups_Q=table.groups[judged],
    )


def catalogued(needs: Iterable[str]) -> Observer:
    """Return an observer of catalogue signals under their own names."""
    return Observer(signals={name: build("signals", name) for name in needs})


def _fold(
    past: OutcomeTable,
    now: OutcomeTable,
    routers: Sequence[Entrant],
    policies: Mapping[str, Mapping[str, Any]],
    confidence: ConfidenceColumns | None,
    weight_L: Floats,
    seed: int,
    reading: float,
) -> Iterable[Curve]:
    for router in routers:
        predictor = router.fitted(past)
        quality, usd, seconds = forecasts(predictor, now)
        chosen = choose(quality, usd, weight_L, query_ids=now.query_ids, seed=seed)
        yield _chosen(router.name, "router", chosen, now, weight_L, seconds + reading, quality)
    for name, spec in policies.items():
        yield _run_policy(name, spec, past, now, seed, reading)
    if len(past) and len({d for d in past.datasets if d is not None}) > 1:
        quality, usd = _dataset_means(past, now)
        chosen = choose(quality, usd, weight_L, query_ids=now.query_ids, seed=seed)
        yield _chosen("dataset label", "label", chosen, now, weight_L)
    if confidence is not None and len(past):
        for router in routers:
            if router.trained is None and router.spec["type"] in PLANNERS:
                yield _planned(router, past, now, confidence, weight_L, seed, reading)
        best = chains.best(past, confidence, weight_L)
        done = {c: chains.run(c, now, confidence) for c in dict.fromkeys(best)}
        yield Curve(
            name="cascade",
            kind="cascade",
            settings=tuple(c.label(now.models) for c in best),
            quality_PQ=np.asarray([done[c][0] for c in best]),
            usd_PQ=np.asarray([done[c][1] for c in best]),
        )


def _chosen(
    name: str,
    kind: str,
    chosen_LQ: NDArray[np.int64],
    table: OutcomeTable,
    weight_L: Floats,
    seconds: float | None = None,
    forecast_QM: Floats | None = None,
) -> Curve:
    rows = np.arange(len(table))
    return Curve(
        name=name,
        kind=kind,
        settings=tuple(f"usd_weight={w:.4g}" for w in weight_L),
        quality_PQ=table.quality_QM[rows, chosen_LQ],
        usd_PQ=table.usd_QM[rows, chosen_LQ],
        chosen_PQ=chosen_LQ,
        seconds=seconds,
        forecast_QM=forecast_QM,
    )


def _planned(
    router: Entrant,
    past: OutcomeTable,
    now: OutcomeTable,
    confidence: ConfidenceColumns,
    weight_L: Floats,
    seed: int,
    reading: float,
) -> Curve:
    """Let a predictor choose among singles and cascades, query by query, as the policy `portfolio` does."""
    found = chains.worthwhile(past, confidence, weights(past, levels=POLICY_LEVELS * 2))
    planned = chains.as_table(now, found, confidence)
    predictor = router.fitted(chains.as_table(past, found, confidence))
    quality, usd, seconds = forecasts(predictor, planned)
    chosen = choose(quality, usd, weight_L, query_ids=now.query_ids, seed=seed)
    curve = _chosen(f"cascade x {router.name}", "cascade", chosen, planned, weight_L, seconds + reading)
    return replace(curve, chosen_PQ=None)  # they number plans, not models


def _single(table: OutcomeTable, m: int) -> Curve:
    return Curve(
        name=table.models[m],
        kind="single",
        settings=("always",),
        quality_PQ=table.quality_QM[None, :, m],
        usd_PQ=table.usd_QM[None, :, m],
    )


def _oracles(table: OutcomeTable, weight_L: Floats) -> list[Curve]:
    chosen = choose(table.quality_QM, table.usd_QM, weight_L, query_ids=table.query_ids)
    chosen[0] = metrics.oracle(table.quality_QM, table.usd_QM)
    return [_chosen("oracle", "oracle", chosen, table, weight_L)]


def _dataset_means(past: OutcomeTable, now: OutcomeTable) -> tuple[Floats, Floats]:
    names = np.asarray(past.datasets, dtype=object)
    overall = past.quality_QM.mean(axis=0), past.usd_QM.mean(axis=0)
    means = {
        d: (past.quality_QM[names == d].mean(axis=0), past.usd_QM[names == d].mean(axis=0)) for d in set(past.datasets)
    }
    rows = [means.get(d, overall) for d in now.datasets]
    return np.asarray([q for q, _ in rows]), np.asarray([c for _, c in rows])


def _policy(spec: Mapping[str, Any], usd_weight: float | None = None) -> Policy:
    given = {} if usd_weight is None else {"objective": {"usd_weight": usd_weight}}
    policy: Policy = build("policies", {**spec, **given})
    return policy


def _run_policy(
    name: str, spec: Mapping[str, Any], past: OutcomeTable, now: OutcomeTable, seed: int, reading: float
) -> Curve:
    """Learn on `past` one query at a time, then decide `now` with what was learned."""
    pool = Pool(targets=[Target(name=m) for m in now.models])
    swept = _policy(spec).objective is not None and "objective" not in spec
    levels = weights(past if len(past) else now, levels=POLICY_LEVELS).tolist() if swept else [None]
    column = {m: i for i, m in enumerate(now.models)}
    chosen = np.empty((len(levels), len(now)), dtype=np.int64)
    took: list[float] = []
    for i, weight in enumerate(levels):
        policy = _policy(spec, weight)
        if len(past) and type(policy).learn is not Policy.learn:
            teach(policy, past, pool, seed)
        for q, (query, signals) in enumerate(zip(now.queries(), now.observations(policy.needs), strict=True)):
            decision = policy.decide(query, signals, pool, seed=seed)
            took.append(decision.seconds)
            called = decision.plan.targets()
            if len(called) != 1:
                raise TableError(
                    f"{name} chose a plan of several targets; bench compares single calls and cascades only"
                )
            chosen[i, q] = column[called[0]]
    rows = np.arange(len(now))
    return Curve(
        name=name,
        kind="policy",
        settings=tuple("as given" if w is None else f"usd_weight={w:.4g}" for w in levels),
        quality_PQ=now.quality_QM[rows, chosen],
        usd_PQ=now.usd_QM[rows, chosen],
        chosen_PQ=chosen,
        seconds=float(np.median(took)) + reading,
    )


def teach(policy: Policy, past: OutcomeTable, pool: Pool, seed: int) -> tuple[Ints, Ints]:
    """Let `policy` choose and learn on `past`, one query at a time, in a seeded order.

    Returns that order and, query by query in it, the index of the model that answered.
    """
    queries, signals = list(past.queries()), past.observations(policy.needs)
    order = np.random.default_rng(seed).permutation(len(past))
    column = {m: i for i, m in enumerate(past.models)}
    picked = np.empty(len(past), dtype=np.int64)
    for n, q in enumerate(order.tolist()):
        decision = policy.decide(queries[q], signals[q], pool, seed=seed)
        run = replay(decision.plan, queries[q], Tabled(past, q))
        picked[n] = column[run.outcome.target]
        if run.outcome.quality is None:
            continue
        trace = Trace(
            id=queries[q].id,
            at=0.0,
            query=queries[q],
            signals=signals[q],
            decision=decision,
            steps=run.steps,
            outcome=run.outcome,
            usd=run.usd,
            seconds=run.seconds,
        )
        policy.learn(trace, Reward(quality=run.outcome.quality, usd=run.usd, seconds=run.seconds))
    return order, picked


def _join(pieces: list[tuple[Ints, Curve]]) -> Curve:
    """Put the folds of one chooser together, setting by setting, in the order of the judged queries."""
    first = pieces[0][1]
    order = np.argsort(np.concatenate([test for test, _ in pieces]), kind="stable")
    sizes = np.asarray([len(test) for test, _ in pieces], dtype=np.float64)
    share = sizes / sizes.sum()
    same = all(c.settings == first.settings for _, c in pieces)
    return Curve(
        name=first.name,
        kind=first.kind,
        settings=first.settings
        if same
        else tuple(" | ".join(dict.fromkeys(s)) for s in zip(*(c.settings for _, c in pieces), strict=True)),
        quality_PQ=np.concatenate([c.quality_PQ for _, c in pieces], axis=1)[:, order],
        usd_PQ=np.concatenate([c.usd_PQ for _, c in pieces], axis=1)[:, order],
        chosen_PQ=None
        if first.chosen_PQ is None
        else np.concatenate([c.chosen_PQ for _, c in pieces if c.chosen_PQ is not None], axis=1)[:, order],
        seconds=None
        if first.seconds is None
        else float(sum(s * (c.seconds or 0.0) for s, (_, c) in zip(share, pieces, strict=True))),
        forecast_QM=None
        if first.forecast_QM is None
        else np.concatenate([c.forecast_QM for _, c in pieces if c.forecast_QM is not None])[order],
    )


def _scored(curve: Curve, quality_QM: Floats) -> Curve:
    """Add how well forecasts fit, over all judged queries at once: a calibration error averaged over folds grows with their number.

    `ece` is the mean over targets, each with bins of its own.
    """
    if curve.forecast_QM is None:
        return curve
    ece = np.mean([metrics.ece(f, q) for f, q in zip(curve.forecast_QM.T, quality_QM.T, strict=True)])
    brier = metrics.brier(curve.forecast_QM.ravel(), quality_QM.ravel())
    return replace(curve, figures={"brier": brier, "ece": float(ece)})
