"""Whether thinking pays: a gate on the gain of each target over a light one, labelled by what was measured. After TWN (Think When Needed, Zhang et al. 2026, arXiv
2605.14448), whose gate decides whether an embedding model writes a chain of thought; carried over to whole requests.

    d = quality(think) - quality(direct)          y = 1[d > tau], queries with |d - tau| < eps left out
    gate = sigmoid(w . x + b), by cross-entropy with classes weighed alike
    forecast:  quality(think) = quality(direct) + a + c * gate(x)     c >= 0, a and c by least squares on held-out gates of *all* queries

The label is the measured gain, not a judged difficulty, and `tau` stands for the cost; a forecast of quality says nothing of it, so the choice (the plan `mode` with ``penalty: 0``, or an
objective) weighs cost itself. The exact rule, weights and numbers of the paper are not known; rule and names are those of a reading of it, tau = 0 and eps = 0.05 are ours.
Measured gains must come from queries that neither target was trained on: there both are saturated, and labels are noise.

Where text says nothing of the gain, c comes out near 0, and every query is forecast the mean gain; so where nothing is gained the choice is never to think. The light target is
`direct` (default: the cheapest on average); every other target of the table has a gate of its own. quality(direct) is forecast by ridge regression.

Shapes: Q queries, T targets, D features. A fit of 2,000 x 200 for two targets takes about a second, a forecast about 15 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from msgspec import Meta

from fairlead.errors import TableError
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import folds
from fairlead.predictors.features import Features, deviations
from fairlead.predictors.statistics import sigmoid

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

LEAST: Final = 10
"""Queries of each label that a gate is fitted on at least; with fewer the gain is taken to be the same everywhere."""
_PRIOR: Final = 4.0
"""Queries of variance 1/4 in the gate that hold its slope c towards 0."""


class Gain(Predictor):
    """Forecasts a light target, and by how much others do better.

    Args:
        features: what is read of a query; None: `Features()`.
        direct: the light target; None: the cheapest on average.
        tau: gain from which thinking is labelled as worth it.
        eps: queries whose gain is nearer to `tau` than this are no labels.
        l2: penalty of the gate, and of the ridge regression.
    """

    center_: Floats
    """Mean features, (D,)."""
    scale_: Floats
    """Deviations, (D,)."""
    weights_: Floats
    """Of the gates, (D + 1, T); the last row is the bias. All 0 where there is no gate."""
    line_: Floats
    """a and c, (2, T); 0 for the light target."""
    base_: Floats
    """Of quality(direct), (D + 1,)."""
    sd_: Floats
    """Standard error of each target's mean, (T,)."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        direct: str | None = None,
        tau: Annotated[float, Meta(ge=0.0)] = 0.0,
        eps: Annotated[float, Meta(ge=0.0)] = 0.05,
        l2: Annotated[float, Meta(gt=0.0)] = 10.0,
    ) -> None:
        self.features = features or Features()
        self.direct = direct
        self.tau = tau
        self.eps = eps
        self.l2 = l2

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        light = self._direct(table)
        targets = quality_QT.shape[1]
        self.center_ = x_QD.mean(axis=0)
        self.scale_ = deviations(x_QD)
        z_QD = self._scaled(x_QD)
        direct_Q = quality_QT[:, light]
        known_Q = ~np.isnan(direct_Q)
        if not known_Q.any():
            raise TableError(f"no answer of {table.models[light]} is scored, so no gain over it is known")
        self.base_ = _ridge(z_QD[known_Q], direct_Q[known_Q], self.l2)
        self.weights_, self.line_ = np.zeros((z_QD.shape[1], targets)), np.zeros((2, targets))
        self.sd_ = np.full(targets, self.unknown_sd)
        fold_Q = folds(table.groups)
        for t in range(targets):
            rows = np.flatnonzero(known_Q & ~np.isnan(quality_QT[:, t]))
            if not len(rows):
                continue
            self.sd_[t] = np.sqrt((quality_QT[rows, t].var() + 0.25 / len(rows)) / len(rows))
            if t == light:
                continue
            gain_N = quality_QT[rows, t] - direct_Q[rows]
            self.line_[0, t] = gain_N.mean()
            gate = self._gate(z_QD[rows], gain_N)
            if gate is None:
                continue
            held_N = np.full(len(rows), np.nan)
            for f in range(int(fold_Q.max()) + 1):
                test = fold_Q[rows] == f
                other = self._gate(z_QD[rows][~test], gain_N[~test]) if test.any() and not test.all() else None
                if other is not None:
                    held_N[test] = sigmoid(z_QD[rows][test] @ other)
            told = ~np.isnan(held_N)
            if told.any():
                self.weights_[:, t] = gate
                self.line_[:, t] = _line(held_N[told], gain_N[told])

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        z_D = self._scaled(x_D)
        a_T, c_T = self.line_
        quality_T = np.clip(z_D @ self.base_, 0.0, 1.0) + a_T + c_T * sigmoid(z_D @ self.weights_)
        return np.clip(quality_T, 0.0, 1.0), self.sd_

    def gates(self, x_D: Floats) -> Floats:
        """Return each gate's probability that its target is worth it, classes weighed alike, (T,); 1/2 where there is none."""
        out: Floats = sigmoid(self._scaled(x_D) @ self.weights_)
        return out

    def _direct(self, table: OutcomeTable) -> int:
        if self.direct is not None:
            if self.direct not in table.models:
                raise TableError(f"the table has no target {self.direct!r} to answer directly")
            return table.models.index(self.direct)
        if np.isnan(table.usd_QM).all(axis=0).any():
            raise TableError("the table has no cost of some target; name the light one by `direct`")
        return int(np.nanmean(table.usd_QM, axis=0).argmin())

    def _gate(self, z_ND: Floats, gain_N: Floats) -> Floats | None:
        """Fit a gate, (D,); None if too few queries have either label."""
        from sklearn.linear_model import LogisticRegression

        clear_N = np.abs(gain_N - self.tau) >= max(self.eps, 1e-12)
        y_N = gain_N[clear_N] > self.tau
        if min(y_N.sum(), (~y_N).sum()) < LEAST:
            return None
        model = LogisticRegression(C=1.0 / self.l2, class_weight="balanced", tol=1e-3, max_iter=200)
        model.fit(z_ND[clear_N][:, :-1], y_N)
        out: Floats = np.append(model.coef_[0], model.intercept_[0])
        return out

    def _scaled(self, x: Floats) -> Floats:
        z = (x - self.center_) / self.scale_
        return np.concatenate([z, np.ones((*z.shape[:-1], 1))], axis=-1)


def _ridge(z_ND: Floats, y_N: Floats, l2: float) -> Floats:
    """Solve for weights, the last (of the 1s) without penalty."""
    penalty_D = np.full(z_ND.shape[1], l2)
    penalty_D[-1] = 1e-9
    return np.asarray(np.linalg.solve(z_ND.T @ z_ND + np.diag(penalty_D), z_ND.T @ y_N), dtype=np.float64)


def _line(gate_N: Floats, gain_N: Floats) -> Floats:
    """Return a and c of the least-squares line, its slope held towards 0 and never below it."""
    apart_N = gate_N - gate_N.mean()
    slope = float(apart_N @ gain_N) / (float(apart_N @ apart_N) + _PRIOR / 4.0)
    slope = max(0.0, slope)
    return np.asarray([gain_N.mean() - slope * gate_N.mean(), slope])
