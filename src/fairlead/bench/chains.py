"""Cascades on a table: which chains of targets there are, with which thresholds, and what they bring.

A chain is two or three targets of rising mean cost; the answer of each but the last is kept if its recorded confidence is high enough. A
step whose confidence is read is charged the column that includes asking for it. A chain of one target is among the choices.
Which chain belongs to which willingness to pay is settled on training queries alone.

`run` takes all queries at once: some 40 µs for a chain on 1,500 queries, where the plan takes 30 µs for each; thousands of chains are
tried. tests/bench/test_evaluate.py checks that both give the same.

Shapes: Q queries, M models, N scored answers of one target, L weights of a dollar, C chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.errors import TableError
from fairlead.plans.accept import Confidence, MeanLogprob
from fairlead.plans.cascade import Cascade
from fairlead.plans.single import Single
from fairlead.table import Floats, OutcomeTable
from fairlead.types import Plan

LiveTest: TypeAlias = Literal["confidence", "mean_logprob"]
"""Tests of an answer that a threshold on a column can become: a kind of `fairlead.plans.accept`."""
THRESHOLDS = 24
"""Confidence thresholds tried per chain."""


class ConfidenceColumns(Struct, frozen=True, kw_only=True):
    """Which columns a cascade reads and pays."""

    column: str
    usd_column: str | None = None


class Chain(Struct, frozen=True, kw_only=True):
    """One cascade: targets in order, and for each but the last the confidence from which on its answer is kept."""

    models: tuple[int, ...]
    above: tuple[float, ...] = ()

    def plan(self, names: Sequence[str], *, accept: LiveTest = "confidence") -> Plan:
        """Return it as a plan that can be run: cascades of two, one inside the other, since each step has its own threshold.

        `accept`: how the confidence is read. A table gives it as such (`confidence`); live targets report log-probabilities.
        """
        test = Confidence if accept == "confidence" else MeanLogprob
        plan: Plan = Single(target=names[self.models[-1]])
        for m, above in zip(self.models[-2::-1], self.above[::-1], strict=True):
            plan = Cascade(steps=(Single(target=names[m]), plan), accept=test(above=above))
        return plan

    def label(self, names: Sequence[str]) -> str:
        """Say it in one line."""
        steps = (f"{names[m]} if confidence >= {t:.4g} else " for m, t in zip(self.models, self.above, strict=False))
        return "".join(steps) + names[self.models[-1]]


def confident(table: OutcomeTable, confidence: ConfidenceColumns) -> NDArray[np.bool_]:
    """Say of which queries a cascade's quality and cost are known, (Q,).

    A model without any confidence is never asked for it; one with holes makes the queries at the holes useless, and so does a hole in the
    cost of asking.

    Raises:
        TableError: if fewer than half are.
    """
    conf_QM = table.extra(confidence.column)[:, :, 0]
    asked_M = ~np.isnan(conf_QM).all(axis=0)
    hole_QM = np.asarray(np.isnan(conf_QM))
    if confidence.usd_column is not None:
        hole_QM |= np.isnan(table.extra(confidence.usd_column)[:, :, 0])
    good_Q = np.logical_not(np.any(hole_QM[:, asked_M], axis=1))
    if good_Q.sum() * 2 < len(table):
        columns = (
            confidence.column if confidence.usd_column is None else f"{confidence.column}, {confidence.usd_column}"
        )
        raise TableError(
            f"only {int(good_Q.sum())} of {len(table)} queries have every confidence and its cost ({columns}): "
            "fill them, compare fewer models (--models), or leave cascades out"
        )
    return np.asarray(good_Q)


def candidates(
    table: OutcomeTable, confidence: ConfidenceColumns, *, longest: int = 3, thresholds: int = THRESHOLDS
) -> list[Chain]:
    """List singles and chains of rising mean cost, with thresholds at the quantiles of the first target's confidence.

    Confidences of different targets mean different things: the later steps of a chain take the threshold at which they are right as
    often as the first is at its own, by isotonic regression on this table.
    """
    order = np.argsort(np.nanmean(table.usd_QM, axis=0), kind="stable").tolist()
    found = [Chain(models=(m,)) for m in order]
    levels: dict[int, list[tuple[float, float]]] = {}
    ladders: dict[int, tuple[Floats, Floats]] = {}
    for m in order:
        conf_Q = table.extra(confidence.column)[:, m, 0]
        known = ~np.isnan(conf_Q)
        if not known.any():
            continue
        ladders[m] = _ladder(conf_Q[known], table.quality_QM[known, m])
        values = np.unique(np.quantile(conf_Q[known], np.linspace(0.02, 0.98, thresholds), method="lower"))
        levels[m] = [(float(v), float(_right_at(ladders[m], v))) for v in values]
    for length in range(2, longest + 1):
        for models in combinations(order, length):
            if all(m in ladders for m in models[:-1]):
                found += [
                    Chain(models=models, above=(above, *(_threshold(ladders[m], right) for m in models[1:-1])))
                    for above, right in levels[models[0]]
                ]
    return list(dict.fromkeys(found))


def _ladder(conf_N: Floats, quality_N: Floats) -> tuple[Floats, Floats]:
    """Sorted confidences and the expected quality at each, non-decreasing."""
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(conf_N, kind="stable")
    return conf_N[order], np.asarray(isotonic_regression(quality_N[order]), dtype=np.float64)


def _right_at(ladder: tuple[Floats, Floats], confidence: float) -> float:
    conf_N, right_N = ladder
    return float(right_N[min(int(np.searchsorted(conf_N, confidence, side="left")), len(conf_N) - 1)])


def _threshold(ladder: tuple[Floats, Floats], right: float) -> float:
    """Lowest confidence at which answers are right that often; infinity if they never are."""
    conf_N, right_N = ladder
    i = int(np.searchsorted(right_N, right, side="left"))
    return float(conf_N[i]) if i < len(conf_N) else float("inf")


def run(chain: Chain, table: OutcomeTable, confidence: ConfidenceColumns) -> tuple[Floats, Floats]:
    """Quality and USD of each query under `chain`, (Q,) each: what the plan gives in the replay world, all queries at once."""
    conf = table.extra(confidence.column)[:, :, 0]
    read_usd = table.usd_QM if confidence.usd_column is None else table.extra(confidence.usd_column)[:, :, 0]
    going = np.ones(len(table), dtype=bool)
    quality, usd = np.zeros(len(table)), np.zeros(len(table))
    for m, above in zip(chain.models[:-1], chain.above, strict=True):
        usd[going] += read_usd[going, m]
        kept = going & (conf[:, m] >= above)
        quality[kept] = table.quality_QM[kept, m]
        going = going & ~kept
    last = chain.models[-1]
    usd[going] += table.usd_QM[going, last]
    quality[going] = table.quality_QM[going, last]
    return quality, usd


def best(past: OutcomeTable, confidence: ConfidenceColumns, weight_L: Floats) -> list[Chain]:
    """Return the chain of highest mean utility on `past` for each weight of a dollar. Queries with holes are left out.

    Raises:
        TableError: as `confident`.
    """
    past = past.take(np.flatnonzero(confident(past, confidence)))
    found = candidates(past, confidence)
    return [found[int(np.argmax(utility_C))] for utility_C in _utilities(found, past, confidence, weight_L)]


def _utilities(found: Sequence[Chain], past: OutcomeTable, confidence: ConfidenceColumns, weight_L: Floats) -> Floats:
    """Mean utility of each chain for each weight of a dollar, (L, C)."""
    quality_C, usd_C = np.asarray([[v.mean() for v in run(c, past, confidence)] for c in found]).T
    # Without costs only quality counts; zero times what is not known would be not known.
    out: Floats = quality_C - np.where(np.isnan(usd_C), 0.0, np.outer(weight_L, usd_C))
    return out


def worthwhile(
    past: OutcomeTable, confidence: ConfidenceColumns, weight_L: Floats, *, most: int = 12, longest: int = 2
) -> list[Chain]:
    """Return the singles, and the chains that are among the `most` of highest mean utility for some weight of a dollar.

    Raises:
        TableError: as `confident`.
    """
    past = past.take(np.flatnonzero(confident(past, confidence)))
    found = candidates(past, confidence, longest=longest, thresholds=8)
    kept = {i for i, c in enumerate(found) if len(c.models) == 1}
    for utility_C in _utilities(found, past, confidence, weight_L):
        kept.update(np.argsort(-utility_C, kind="stable")[:most].tolist())
    return [found[i] for i in sorted(kept)]


def as_table(table: OutcomeTable, chains: Sequence[Chain], confidence: ConfidenceColumns) -> OutcomeTable:
    """Return a table whose models are `chains`, by their labels in order of name, with what each brought and cost.

    Times and tokens of cascades are not worked out: they are not known here.
    """
    named = sorted((c.label(table.models), c) for c in chains)
    brought = [run(c, table, confidence) for _, c in named]
    quality_QC = np.asarray([q for q, _ in brought]).T
    unknown = np.full((*quality_QC.shape, 1), np.nan)
    return replace(
        table,
        models=[label for label, _ in named],
        quality_QMS=quality_QC[:, :, None],
        usd_QMS=np.asarray([u for _, u in brought]).T[:, :, None],
        seconds_QMS=unknown,
        joules_QMS=unknown,
        input_tokens_QMS=unknown,
        output_tokens_QMS=unknown,
        present_QMS=np.ones(unknown.shape, dtype=bool),
        responses_QMS=None,
        extras={},
        text_extras={},
    )
