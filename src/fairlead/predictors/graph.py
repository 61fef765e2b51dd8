"""Groups of queries and targets as a graph, its missing edges filled in by a loss: UltraGCN (Mao et al. 2021,
arXiv:2110.15114).

Users are groups of alike queries, items are targets. An edge c-t holds n scored answers, of which a share r succeeded.
The forecast is sigmoid(b_t + u_c . v_t), with b_t the log-odds of the target's mean, and minimises

    - sum over c, t of  n [ r (1 + w2 beta) log sigmoid  +  (1 - r) (1 + w4 beta) log(1 - sigmoid) ]      answers
    - lam * (the same, for each target, of the answers of the others, weighed by s)                      item-item
    + gamma / 2 (|u|^2 + |v|^2)                                                                          penalty
    beta_ct = sqrt(d_c + 1) / d_c / sqrt(d_t + 1)    d: degree, summed r of a group or of a target
    s_ij    = g_ij / (g_i - g_ii) sqrt(g_i / g_j)    g = r' r: co-occurrence of targets' successes

With w2 = w4 = lam = 0 it is matrix factorisation with cross-entropy. What is served is the table of all groups and
targets, each cell pulled from what was seen there to what the graph says: (summed quality + pull * sigmoid) / (n +
pull).

Differs from the paper: **a target that was never tried on a group adds nothing** (there are no sampled negatives: a
missing edge is not a failure); failures are counted edges, and the item-item term carries them too, else forecasts
would only drift upwards; there is a bias per target; and the fit is alternating steps on a quadratic upper bound
(Böhning 1992), which never raise the loss and need no rate. Weights unlike for successes and failures shift the odds
by their ratio; that is taken back from the forecast. gamma, lam and pull are chosen on held-out queries, with the
groupings and the temperature (`kmeans.py`).

When: where most targets were tried on few queries. With full feedback it gives what `clusters` gives.

quality_sd is made as in `clusters`. What the graph adds to a cell counts as pull answers, but as no more than the
answers of the whole group divided by the numbers learned from them.

Shapes: Q queries, T targets, D features, C groups, E dimensions. A fit of 5,600 x 9 at D = 150 takes about 4 s, a
forecast 20 µs.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.errors import TableError
from fairlead.predictors import kmeans
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.statistics import means, pulled, sigmoid, standard_error, unit

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

GAMMAS = (10.0, 1.0)
LAMS = (0.0, 0.1)
PULLS = (30.0, 3.0, 1e4)
"""What is tried; the first of each is taken where there is too little to try on."""
_ROUNDS = 15


class Graph(Predictor):
    """Forecasts from a low-rank fit to the success of each target in each group of queries.

    Args:
        features: what is read of a query; None: `Features()`.
        ks: sizes of the groupings that may be averaged.
        dims: E, numbers learned per group and per target.
        w2: weight of the degrees for successes.
        w4: weight of the degrees for failures.
        lam: weight of the item-item term; None: chosen at the fit.
        gamma: penalty; None: chosen at the fit.
        pull: weight of the graph in each cell, in answers; None: chosen at the fit.
        seed: of the groupings.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    centres_: NDArray[np.float32]
    """Of all groupings together, (C, D)."""
    sizes_: NDArray[np.int64]
    """Groups of each grouping."""
    temperature_: float
    table_: Floats
    """Quality of each target in each group, (C, T)."""
    variance_: Floats
    """Squared standard error of the same, (C, T)."""
    gamma_: float
    lam_: float
    pull_: float

    def __init__(
        self,
        *,
        features: Features | None = None,
        ks: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1)] = kmeans.KS,
        dims: Annotated[int, Meta(ge=1)] = 2,
        w2: Annotated[float, Meta(ge=0.0)] = 0.0,
        w4: Annotated[float, Meta(ge=0.0)] = 0.0,
        lam: Annotated[float, Meta(ge=0.0)] | None = None,
        gamma: Annotated[float, Meta(gt=0.0)] | None = None,
        pull: Annotated[float, Meta(ge=0.0)] | None = None,
        seed: Annotated[int, Meta(ge=0)] = 0,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.ks = ks
        self.dims = dims
        self.w2 = w2
        self.w4 = w4
        self.lam = lam
        self.gamma = gamma
        self.pull = pull
        self.seed = seed
        self.calibration = calibration

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        if np.isnan(quality_QT).all():
            raise TableError("the table has no scored answers to learn from")
        tried = list(
            product(
                GAMMAS if self.gamma is None else (self.gamma,),
                LAMS if self.lam is None else (self.lam,),
                PULLS if self.pull is None else (self.pull,),
            )
        )

        def tables(count_CT: Floats, total_CT: Floats, mean_T: Floats) -> Floats:
            said = {
                (gamma, lam): self._scores(count_CT, total_CT, mean_T, gamma, lam)
                for gamma, lam in dict.fromkeys((g, m) for g, m, _ in tried)
            }
            return np.stack([pulled(total_CT, count_CT, said[g, m], pull) for g, m, pull in tried])

        x_QD = unit(x_QD)
        chosen = kmeans.choose(x_QD, quality_QT, table.groups, ks=self.ks, seed=self.seed, tables=tables)
        self.gamma_, self.lam_, self.pull_ = tried[chosen.table]
        self.temperature_ = chosen.temperature
        mean_T = means(quality_QT)
        centres, rows, variances = [], [], []
        for k in chosen.ks:
            centre_KD, group_Q = kmeans.centres(x_QD, k, self.seed)
            count_KT, total_KT = kmeans.totals(group_Q, k, quality_QT)
            score_KT = self._scores(count_KT, total_KT, mean_T, self.gamma_, self.lam_)
            centres.append(centre_KD)
            rows.append(pulled(total_KT, count_KT, score_KT, self.pull_))
            shared_K1 = count_KT.sum(axis=1, keepdims=True) / self.dims
            worth_KT = count_KT + np.minimum(self.pull_, np.maximum(shared_K1 - count_KT, 0.0))
            variances.append(standard_error(rows[-1], worth_KT) ** 2)
        self.centres_ = np.concatenate(centres).astype(np.float32)
        self.sizes_ = np.asarray(chosen.ks, dtype=np.int64)
        self.table_, self.variance_ = np.concatenate(rows), np.concatenate(variances)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        quality_T, variance_T = kmeans.forecast(
            x_D, self.centres_, self.sizes_, self.temperature_, self.table_, self.variance_
        )
        return quality_T, np.sqrt(variance_T)

    def _scores(self, count_CT: Floats, total_CT: Floats, mean_T: Floats, gamma: float, lam: float) -> Floats:
        """Return the chance of success that the graph says, (C, T)."""
        good_CT, bad_CT = evidence(count_CT, total_CT, w2=self.w2, w4=self.w4, lam=lam)
        odds_T = np.log(mean_T / (1.0 - mean_T))
        u_CE, v_TE = factorise(good_CT, bad_CT, odds_T, dims=self.dims, gamma=gamma)
        beta_CT = degrees(count_CT, total_CT)
        shift_CT = np.log((1.0 + self.w2 * beta_CT) / (1.0 + self.w4 * beta_CT))
        return sigmoid(odds_T + u_CE @ v_TE.T - shift_CT)


def degrees(count_CT: Floats, total_CT: Floats) -> Floats:
    """Return beta, (C, T). A group or target without a success has degree 0, and gets what a degree of 1 would."""
    rate_CT = total_CT / np.maximum(count_CT, 1e-9)
    d_C1, d_1T = rate_CT.sum(axis=1, keepdims=True), rate_CT.sum(axis=0, keepdims=True)
    d_C1 = np.where(d_C1 > 0, d_C1, 1.0)
    out: Floats = np.sqrt(d_C1 + 1.0) / d_C1 / np.sqrt(d_1T + 1.0)
    return out


def evidence(count_CT: Floats, total_CT: Floats, *, w2: float, w4: float, lam: float) -> tuple[Floats, Floats]:
    """Return the weighed successes and failures of each group and target, (C, T) each."""
    beta_CT = degrees(count_CT, total_CT)
    good_CT = total_CT * (1.0 + w2 * beta_CT)
    bad_CT = (count_CT - total_CT) * (1.0 + w4 * beta_CT)
    if not lam:
        return good_CT, bad_CT
    rate_CT = total_CT / np.maximum(count_CT, 1e-9)
    g_TT = rate_CT.T @ rate_CT
    g_T = g_TT.sum(axis=1)
    alike_TT = g_TT / np.maximum(g_T - np.diag(g_TT), 1e-9)[:, None] * np.sqrt(g_T[:, None] / np.maximum(g_T, 1e-9))
    np.fill_diagonal(alike_TT, 0.0)
    return good_CT + lam * good_CT @ alike_TT, bad_CT + lam * bad_CT @ alike_TT


def factorise(good_CT: Floats, bad_CT: Floats, odds_T: Floats, *, dims: int, gamma: float) -> tuple[Floats, Floats]:
    """Return the embeddings of groups, (C, E), and of targets, (T, E), E at most `dims`."""
    n_CT = good_CT + bad_CT
    # From the largest singular vectors of what the cells say on their own, each as if it had one more answer at the target's mean.
    mean_T = sigmoid(odds_T)
    start_CT = np.log((good_CT + mean_T) / (bad_CT + 1.0 - mean_T)) - odds_T
    left, size, right = np.linalg.svd(start_CT, full_matrices=False)
    root_E = np.sqrt(size[:dims])
    u_CE, v_TE = left[:, :dims] * root_E, right[:dims].T * root_E
    penalty_EE = gamma * np.eye(len(root_E))
    for _ in range(_ROUNDS):
        # Up the gradient, by the inverse of a curvature that is nowhere less than the true one: sigmoid' <= 1/4.
        wrong_CT = good_CT - n_CT * sigmoid(odds_T + u_CE @ v_TE.T)
        bound = np.einsum("ct,te,tf->cef", n_CT / 4.0, v_TE, v_TE, optimize=True) + penalty_EE
        u_CE = u_CE + np.linalg.solve(bound, (wrong_CT @ v_TE - gamma * u_CE)[:, :, None])[:, :, 0]
        wrong_CT = good_CT - n_CT * sigmoid(odds_T + u_CE @ v_TE.T)
        bound = np.einsum("ct,ce,cf->tef", n_CT / 4.0, u_CE, u_CE, optimize=True) + penalty_EE
        v_TE = v_TE + np.linalg.solve(bound, (wrong_CT.T @ u_CE - gamma * v_TE)[:, :, None])[:, :, 0]
    return u_CE, v_TE
