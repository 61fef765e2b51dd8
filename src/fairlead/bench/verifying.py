"""Thresholds for a cascade of verified answers, fitted on recorded confidences, and judged on queries that they were not fitted on.

What AutoMix (Aggarwal, Madaan et al., 2023, arXiv 2310.12963) learns with a meta-verifier: from what confidence on an answer is worth keeping, given
what the next step brings and costs. Maximised is mean(quality - usd_weight * usd). One threshold is found exactly, among all values that occur;
several in turn, the last first, each exactly with the others held, until none changes (a local best; with two it was the best in all of 75 trials).

A step that is better never kept gets `NEVER`, above every confidence: leave it out of the plan. Fits on few queries flatter themselves: report
`cross_validated`, never the fit's own value. Cost: 1 ms for 1,500 queries and two thresholds.

Shapes: Q queries, S steps, K = S - 1 verified steps.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.errors import TableError
from fairlead.predictors.calibration import folds
from fairlead.table import Floats, Ints

NEVER: Final = 2.0
"""A threshold that no confidence reaches."""
ROUNDS: Final = 50
"""Passes over the thresholds at most."""


class Fitted(Struct, frozen=True, kw_only=True):
    """Thresholds fitted on all queries, and what thresholds fitted on the other folds brought on each query."""

    tau: tuple[float, ...]
    quality_Q: Floats
    usd_Q: Floats


def brought(q_QK: Floats, quality_QS: Floats, usd_QS: Floats, tau: tuple[float, ...]) -> tuple[Floats, Floats]:
    """Return quality and cost of the cascade on each query, (Q,) each.

    Args:
        q_QK: confidence in each answer but the last step's; NaN, no verdict, keeps nothing.
        quality_QS: of each step's answer.
        usd_QS: what each step costs if it is reached, its verification included.
        tau: thresholds, K of them.
    """
    kept_QK = _kept(q_QK, tau)
    at_Q = np.where(kept_QK.any(axis=1), kept_QK.argmax(axis=1), kept_QK.shape[1])
    every_Q = np.arange(len(q_QK))
    return quality_QS[every_Q, at_Q], np.cumsum(usd_QS, axis=1)[every_Q, at_Q]


def fit_thresholds(q_QK: Floats, quality_QS: Floats, usd_QS: Floats, *, usd_weight: float = 0.0) -> tuple[float, ...]:
    """Return the thresholds that bring most; of equally good ones of a step the one that escalates most.

    Raises:
        TableError: if the shapes do not fit together, or a quality or cost is not known.
    """
    _check(q_QK, quality_QS, usd_QS)
    return _climb(quality_QS - usd_weight * np.cumsum(usd_QS, axis=1), q_QK)


def cross_validated(
    q_QK: Floats,
    quality_QS: Floats,
    usd_QS: Floats,
    *,
    usd_weight: float = 0.0,
    groups_Q: Ints | None = None,
    k: int = 5,
    seed: int = 0,
) -> Fitted:
    """Fit on all folds but one, and judge on that one. `groups_Q`: equal prompts, which stay in one fold."""
    fold_Q = folds(np.arange(len(q_QK)) if groups_Q is None else groups_Q, k=k, seed=seed)
    quality_Q, usd_Q = np.full(len(q_QK), np.nan), np.full(len(q_QK), np.nan)
    for f in range(k):
        test, train = fold_Q == f, fold_Q != f
        if not test.any():
            continue
        tau = fit_thresholds(q_QK[train], quality_QS[train], usd_QS[train], usd_weight=usd_weight)
        quality_Q[test], usd_Q[test] = brought(q_QK[test], quality_QS[test], usd_QS[test], tau)
    whole = fit_thresholds(q_QK, quality_QS, usd_QS, usd_weight=usd_weight)
    return Fitted(tau=whole, quality_Q=quality_Q, usd_Q=usd_Q)


def _kept(q_QK: Floats, tau: tuple[float, ...]) -> NDArray[np.bool_]:
    out: NDArray[np.bool_] = q_QK >= np.asarray(tau)  # NaN is kept by none
    return out


def _climb(worth_QS: Floats, q_QK: Floats) -> tuple[float, ...]:
    """Better one threshold after the other, the last first, from keeping nothing."""
    tau = [NEVER] * q_QK.shape[1]
    for _ in range(ROUNDS):
        before = tuple(tau)
        for k in reversed(range(len(tau))):
            kept_QK = _kept(q_QK, tuple(tau))
            reached_Q = ~kept_QK[:, :k].any(axis=1)
            # What going on would bring: the worth at the next step whose answer is kept, or at the last.
            on_Q = worth_QS[:, -1]
            for j in reversed(range(k + 1, len(tau))):
                on_Q = np.where(kept_QK[:, j], worth_QS[:, j], on_Q)
            tau[k] = _best(q_QK[reached_Q, k], (worth_QS[:, k] - on_Q)[reached_Q])
        if tuple(tau) == before:
            break
    return tuple(tau)


def _best(q_N: Floats, gain_N: Floats) -> float:
    """Return the threshold above which the gains of keeping add up to most."""
    known = ~np.isnan(q_N)
    q_N, gain_N = q_N[known], gain_N[known]
    if not len(q_N):
        return NEVER
    value_V, at_N = np.unique(-q_N, return_inverse=True)  # from the most sure
    sums_V = np.cumsum(np.bincount(at_N, weights=gain_N))
    v = int(sums_V.argmax())
    return float(-value_V[v]) if sums_V[v] > 0.0 else NEVER


def _check(q_QK: Floats, quality_QS: Floats, usd_QS: Floats) -> None:
    if quality_QS.shape != usd_QS.shape or quality_QS.shape != (len(q_QK), q_QK.shape[1] + 1) or not len(q_QK):
        raise TableError(
            f"confidences {q_QK.shape}, qualities {quality_QS.shape} and costs {usd_QS.shape} do not fit: (Q, S - 1), (Q, S), (Q, S)"
        )
    if np.isnan(quality_QS).any() or np.isnan(usd_QS).any():
        raise TableError("a quality or a cost is not known; leave such queries out")
