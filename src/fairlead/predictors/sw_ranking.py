"""A Bradley-Terry ranking for each query, by battles of similar queries. Ong et al. 2024 (RouteLLM), arXiv:2406.18665, `sw_ranking`.

    w_i = 10 * 10^(c * sim(x, x_i) / max_j sim(x, x_j))        weight of the battles of query i; c = 1 in the paper
    delta(x) = argmax over delta of  sum_i w_i sum_{a beats b on i} log sigmoid(delta_a - delta_b) - penalty
    quality_t = sigmoid(offset_t + ease * easy(x) + apart * (delta_t - mean_t delta))

Every query gives a battle for each two targets, won by the one of higher quality; ties are dropped. Differs from the paper:

- with c = 1 the weights lie between 10 and 100, so that thousands of far queries outvote the near ones; c is chosen at the fit by
  leave-one-out squared error among `SHARPNESS`, equal prompts left out together;
- the ranking is a map to quality: `easy`, the weighted mean of how much better than usual targets did, and delta, each less what is
  common to all queries, go through the Rasch model with slopes learned from the same left-out queries (`anchor.py`);
- targets are not put into tiers: there are few, and all have met on the same queries;
- `pull` battles' worth of penalty holds delta near the ranking of all queries, so that a target which lost each of few battles gets no
  infinite rank;
- solved by Newton's method on T x T sums. For a decision each query is T + T (T - 1) / 2 + 2 numbers, of which one weighted sum is taken.

The spread comes from the curvature at the solution, with the effective number of queries (sum w)^2 / sum w^2, and from the spread of `easy` likewise.

Shapes: N queries kept, B queries asked, T targets, P pairs of targets, D features, S sums. A fit of 5,000 x 9 x 200
takes about 1 s, a forecast 0.2 ms.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.errors import TableError
from fairlead.predictors import anchor
from fairlead.predictors.anchor import Anchor
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.nets import Singles
from fairlead.predictors.statistics import means, sigmoid, unit

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

log = logging.getLogger(__name__)

SHARPNESS = (1.0, 2.0, 3.0, 4.0)
"""Values of c that are tried."""
_CHECKED = 1000
"""Queries on which c is chosen; also how many are left out at a time."""
_STEPS = 3
"""Newton steps from the ranking of all queries, which is near: what further steps change does not show (see the test)."""


class SWRanking(Predictor):
    """Forecasts by a ranking of the targets from battles on similar queries.

    Args:
        features: what is read of a query; None: `Features()`.
        sharpness: c, how much more near queries weigh; 1 as in the paper; None: chosen at the fit.
        pull: how many queries' worth of battles the ranking of all queries counts for.
        memory: most queries kept.
        calibration: a further map of the forecasts; they are calibrated on held-out queries without it.
    """

    x_: NDArray[np.float32]
    """Unit feature vectors, (N, D)."""
    sums_: NDArray[np.float32]
    """Per query: battles won by each target, battles fought by each pair, how much better than usual targets did, its square: (N, S)."""
    ranks_: Floats
    """Delta of each target over all queries, mean 0, (T,)."""
    sharpness_: float
    anchor_: Anchor
    """How deltas and easiness become quality."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        sharpness: Annotated[float, Meta(ge=0.0)] | None = None,
        pull: Annotated[float, Meta(gt=0.0)] = 5.0,
        memory: Annotated[int, Meta(ge=1)] = 5000,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.sharpness = sharpness
        self.pull = pull
        self.memory = memory
        self.calibration = calibration

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        scored = np.flatnonzero(~np.isnan(quality_QT).all(axis=1))
        if not len(scored):
            raise TableError("the table has no scored answers to learn from")
        if len(scored) > self.memory:
            log.warning("sw_ranking keeps %d of %d queries; raise `memory` to keep more", self.memory, len(scored))
            scored = scored[np.linspace(0, len(scored) - 1, self.memory).astype(np.int64)]
        x_ND, quality_NT, group_N = x_QD[scored], quality_QT[scored], table.groups[scored]
        self.x_ = unit(x_ND).astype(np.float32)
        self.sums_ = battles(quality_NT).astype(np.float32)
        targets, n = quality_NT.shape[1], len(scored)
        total_S = self.sums_.mean(axis=0, dtype=np.float64)
        self.ranks_ = solve(total_S[None, :-2], np.zeros(targets), np.full(1, self.pull / n), 30)[0][0]
        self.sharpness_ = SHARPNESS[0] if self.sharpness is None else self.sharpness
        if self.sharpness is None:
            rows = np.linspace(0, n - 1, min(n, _CHECKED)).astype(np.int64)
            errors = []
            for c in SHARPNESS:
                easy_B, delta_BT = self._left_out(rows, group_N, c)
                found = anchor.learn(easy_B, delta_BT, quality_NT[rows])
                forecast_BT = sigmoid(anchor.log_odds(found, easy_B, delta_BT))
                errors.append(float(np.nansum((forecast_BT - quality_NT[rows]) ** 2)))
            self.sharpness_ = SHARPNESS[int(np.argmin(errors))]
        chunks = np.array_split(np.arange(n), -(-n // _CHECKED))
        parts = [self._left_out(rows, group_N, self.sharpness_) for rows in chunks]
        easy_N, delta_NT = np.concatenate([e for e, _ in parts]), np.concatenate([d for _, d in parts])
        self.anchor_ = anchor.learn(easy_N, delta_NT, quality_NT)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        near_N = self.x_ @ unit(x_D[None])[0].astype(np.float32)
        easy_B, delta_BT, easy_var_B, delta_var_BT = self._rank(weights(near_N[None], self.sharpness_))
        log_odds_T = anchor.log_odds(self.anchor_, easy_B, delta_BT)[0]
        ease, apart = self.anchor_["slope"]
        return anchor.forecast(
            self.anchor_, log_odds_T, ease**2 * easy_var_B[0] + apart**2 * delta_var_BT[0], self.unknown_sd
        )

    def _left_out(self, rows_B: NDArray[np.int64], group_N: NDArray[np.int64], c: float) -> tuple[Floats, Floats]:
        """Rank for queries that are kept, by all others with another prompt."""
        other_BN = group_N[rows_B][:, None] != group_N[None, :]
        easy_B, delta_BT, _, _ = self._rank(weights(self.x_[rows_B] @ self.x_.T, c, other_BN))
        return easy_B, delta_BT

    def _rank(self, weight_BN: Singles) -> tuple[Floats, Floats, Floats, Floats]:
        """Return easiness, (B,), and deltas less those of all queries, (B, T), then the variance of each."""
        total_B = np.maximum(weight_BN.sum(axis=1), np.float32(1e-20))
        square_B = np.maximum(np.einsum("bn,bn->b", weight_BN, weight_BN), np.float32(1e-20))
        effective_B = np.maximum((total_B * (total_B / square_B)).astype(np.float64), 1.0)
        sums_BS = ((weight_BN @ self.sums_) / total_B[:, None]).astype(np.float64)
        delta_BT, inverse_BT = solve(sums_BS[:, :-2], self.ranks_, self.pull / effective_B, _STEPS)
        easy_B = sums_BS[:, -2]
        easy_variance_B = np.maximum(sums_BS[:, -1] - easy_B**2, 0.0) / effective_B
        # T answers make T (T - 1) / 2 battles, which are not that many independent ones: about T.
        delta_variance_BT = inverse_BT * (len(self.ranks_) / 2.0 / effective_B)[:, None]
        return easy_B, delta_BT - self.ranks_, easy_variance_B, delta_variance_BT


def weights(near_BN: Singles, c: float, allowed_BN: NDArray[np.bool_] | None = None) -> Singles:
    """Return the weight of each query's battles from similarities. Where no query is similar at all, all weigh the same."""
    top_B1 = (near_BN if allowed_BN is None else np.where(allowed_BN, near_BN, -1.0)).max(axis=1, keepdims=True)
    scale_B1 = np.where(top_B1 > 1e-6, c * np.log(10.0) / np.maximum(top_B1, 1e-6), 0.0).astype(np.float32)
    out_BN: Singles = np.float32(10.0) * np.exp(scale_B1 * near_BN)
    return out_BN if allowed_BN is None else np.where(allowed_BN, out_BN, np.float32(0.0))


def battles(quality_NT: Floats) -> Floats:
    """Return the sums that each query adds, (N, S); see `sums_`. Ties, and answers that nobody scored, are no battles."""
    known_NT = ~np.isnan(quality_NT)
    won_NTT = quality_NT[:, :, None] > quality_NT[:, None, :]
    first, second = np.triu_indices(quality_NT.shape[1], 1)
    fought_NP = (won_NTT | won_NTT.transpose(0, 2, 1))[:, first, second]
    better_NT = np.where(known_NT, quality_NT - means(quality_NT), 0.0)
    better_N = better_NT.sum(axis=1) / np.maximum(known_NT.sum(axis=1), 1)
    return np.column_stack([won_NTT.sum(axis=2), fought_NP, better_N, better_N**2])


def solve(sums_BS: Floats, ranks_T: Floats, penalty_B: Floats, steps: int) -> tuple[Floats, Floats]:
    """Fit Bradley-Terry rankings by Newton's method.

    Args:
        sums_BS: (weighted) battles won by each target, then battles fought by each pair, without the last two of `sums_`.
        ranks_T: where to start, and what a penalty of ``penalty_B / 2 * |delta - ranks|^2`` pulls to.
        penalty_B: its weight, above 0.
        steps: how many.

    Returns:
        Deltas, (B, T), with the mean of `ranks_T`, and the diagonal of the inverse curvature of what they have beyond their mean, (B, T).
    """
    targets = len(ranks_T)
    pair_PT = _pairs(targets)
    won_BT, fought_BP = sums_BS[:, :targets], sums_BS[:, targets:]
    # A pair's expected wins go to the first of it, the rest of its battles to the second.
    known_BT = won_BT - fought_BP @ (pair_PT < 0.0)
    # Battles say nothing of the mean of all deltas; a curvature of 1 in its direction changes no step, and keeps the inverse tame.
    penalty_BTT = penalty_B[:, None, None] * np.eye(targets) + 1.0 / targets
    delta_BT = np.tile(ranks_T, (len(sums_BS), 1))
    for _ in range(steps):
        p_BP = sigmoid(delta_BT @ pair_PT.T)
        expected_BP = fought_BP * p_BP
        gradient_BT = known_BT - expected_BP @ pair_PT - penalty_B[:, None] * (delta_BT - ranks_T)
        curve_BTT = (pair_PT.T * (expected_BP * (1.0 - p_BP))[:, None, :]) @ pair_PT + penalty_BTT
        inverse_BTT = np.linalg.inv(curve_BTT)
        move_BT = (inverse_BTT @ gradient_BT[:, :, None])[:, :, 0]
        delta_BT = delta_BT + np.minimum(np.maximum(move_BT, -2.0), 2.0)
    inverse_BT = np.diagonal(inverse_BTT, axis1=1, axis2=2) - 1.0 / (targets * (penalty_B[:, None] + 1.0))
    return delta_BT, np.maximum(inverse_BT, 0.0)


@cache
def _pairs(targets: int) -> Floats:
    """One row per pair of targets: 1 at the first, -1 at the second, (P, T)."""
    first, second = np.triu_indices(targets, 1)
    out = np.zeros((len(first), targets))
    out[np.arange(len(first)), first], out[np.arange(len(first)), second] = 1.0, -1.0
    out.setflags(write=False)
    return out
