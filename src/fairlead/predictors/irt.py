"""Item response: each target has abilities, each query asks for some of them and is hard or easy. Reckase, Multidimensional Item
Response Theory, 2009; as a router: Song et al. (IRT-Router, 2025, arXiv:2506.01048); from few answers: Polo et al. (tinyBenchmarks,
2024, arXiv:2402.14992).

    quality[q, t] = mean over u ~ N(0, 1) of sigmoid(a(q) . theta_t - b(q) - s u)
    a(q), b(q): affine in the features (amortised, so that unseen queries have them too);  theta_t ~ N(mu, C), the population

`s u` is what no feature tells of a query's difficulty. It is the same for all targets, so that what the known targets made of a query says
how hard it is: an answer of a new target to that very query then tells more about the target than one to an unknown query does.

The fit has two stages. First a, b, theta (K abilities) and s by marginal likelihood (`NODES` quadrature nodes for u, L-BFGS), with a ridge
on a and b that is chosen on held-out queries by squared error. Then soft membership in R groups of alike queries (k-means) joins the K
abilities, with a variance tau^2 found by EM, and omega^2 that all groups share: a target's own deviation per group holds what it is good at
beside the K abilities ("differential item functioning"), and keeps a few probes from seeming to tell everything. For a target that the fit
has not seen both are larger, by the leverage that each known target had on the abilities it is judged by. Each target's abilities then get a Gaussian posterior
(Laplace); their population is what a target that is not known is forecast from, and what a new one starts from.

Differs from the papers: difficulty is not a free number per query; qualities between 0 and 1 count as that share of a success; the
abilities are a distribution, learned on online by one Newton step per outcome; a profile's `quality`, where there is one, shifts the
population's mean as a measurement of `STATED_SD` would.

    quality_sd: of the expected quality, from the abilities' posterior and from the uncertainty of a and b (leverage)

Checked in tests/predictors/test_irt.py: abilities and hidden difficulty are found again, fractions and gaps, narrowing towards the truth,
others' outcomes as difficulty, online as at once.

Shapes: Q queries, T targets, D features, K abilities, R groups, F = K + R, J nodes. A fit of 4,500 x 9 with 80 features takes about 3 s,
a forecast about 40 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Self

import numpy as np
from msgspec import Meta

from fairlead.errors import ConfigError
from fairlead.predictors.base import Belief, Floats, Predictor
from fairlead.predictors.calibration import Method, folds
from fairlead.predictors.features import Features
from fairlead.predictors.kmeans import belonging, centres, sizes
from fairlead.predictors.statistics import means, sigmoid, unit
from fairlead.types import Target

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

NODES: Final = 7
GRID: Final = (10.0, 50.0, 250.0, 1250.0, 6250.0, 31250.0)
"""Ridges tried; the last leaves nothing of the text even with thousands of queries."""
STATED_SD: Final = 0.1
"""How far a profile's `quality` may be off, one standard deviation: it was measured on something else."""
DOUBT: Final = 1.6
"""A probe of a new target counts as this part of an outcome: the model of queries was not fitted to the new target. Chosen by hand."""
_CHECKED: Final = 1500
"""Most queries used to choose the ridge."""
GROUPS: Final = 16
"""R, at most."""
_SEED: Final = 0
_STEPS: Final = 30

_nodes, _weights = np.polynomial.hermite_e.hermegauss(NODES)
U_J: Final[Floats] = _nodes
PI_J: Final[Floats] = _weights / _weights.sum()


class IRT(Predictor):
    """Forecasts from abilities and difficulty.

    Args:
        features: what is read of a query; None: `Features()`.
        abilities: K, from 1 to 4; fewer where there are fewer targets.
        l2: ridge on how abilities asked for and difficulty follow from the features; None: chosen at the fit.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    online: ClassVar[bool] = True
    center_: Floats
    """Mean features, (D,)."""
    loads_: Floats
    """The first K of a(q) = base + (x - center) @ loads; (D, K). The others are the membership in the groups."""
    base_: Floats
    """(K,)."""
    groups_: Floats
    """Directions of the groups, (R, D)."""
    hardness_: Floats
    """b(q) = offset + (x - center) . hardness; (D,)."""
    offset_: float
    spread_: float
    """s."""
    root_: Floats
    """(D, D): x' root root' x, times a target's leverage, is the variance of the log-odds that a and b bring."""
    leverage_: Floats
    """(1 + K, 1 + K): (1, theta)' leverage (1, theta) is how much of a and b one target alone decides, at most 1."""
    ability_: Floats
    """Posterior mean of theta, (T, F)."""
    cov_: Floats
    """Its covariance, (T, F, F)."""
    mu_: Floats
    """Population of abilities: mean, (F,), …"""
    population_: Floats
    """… and covariance, (F, F)."""
    typical_: float
    """Mean quality over the training queries of a target with the population's mean abilities …"""
    slope_: Floats
    """… and its derivative by theta, (F,)."""
    l2_: float

    def __init__(
        self,
        *,
        features: Features | None = None,
        abilities: Annotated[int, Meta(ge=1, le=4)] = 2,
        l2: Annotated[float, Meta(gt=0.0)] | None = None,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.abilities = abilities
        self.l2 = l2
        self.calibration = calibration

    @classmethod
    def example(cls) -> Self:
        """With a fixed ridge, which spares the search."""
        return cls(l2=10.0)

    def check(self) -> None:
        """Raise `ConfigError` unless there are 1 to 4 abilities."""
        super().check()
        if not 1 <= self.abilities <= 4:
            raise ConfigError(f"abilities must lie in 1 … 4, and {self.abilities} does not", path="$.abilities")

    # ------------------------------------------------------------------------------------------------------ the fit

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        self.center_ = x_QD.mean(axis=0)
        z_QD = x_QD - self.center_
        k = max(1, min(self.abilities, quality_QT.shape[1] - 1))
        self.l2_ = self._choose(z_QD, quality_QT, table, k) if self.l2 is None else self.l2
        found = _Amortised(z_QD, quality_QT, k, self.l2_)
        self.loads_, self.base_ = found.load_DK, found.base_K
        self.hardness_, self.offset_, self.spread_ = found.hardness_D, found.offset, found.spread
        self.groups_, _ = centres(unit(z_QD), max(sizes((1, 2, 4, GROUPS), len(z_QD))), _SEED)
        self._populate(z_QD, quality_QT, found.theta_TK)
        self._weigh(z_QD, quality_QT)

    def _choose(self, z_QD: Floats, quality_QT: Floats, table: OutcomeTable, k: int) -> float:
        rows = np.linspace(0, len(z_QD) - 1, min(len(z_QD), _CHECKED)).astype(np.int64)
        z, y = z_QD[rows], quality_QT[rows]
        fold = folds(table.groups[rows], k=3)
        if len(np.unique(fold)) < 3:
            return GRID[-1]
        # A ridge is a prior: the one that suits a part of the queries suits them all.
        error = np.zeros(len(GRID))
        for g, l2 in enumerate(GRID):
            for f in range(3):
                found = _Amortised(z[fold != f], y[fold != f], k, l2)
                error[g] += float(np.nansum((found.quality(z[fold == f]) - y[fold == f]) ** 2))
        return GRID[int(error.argmin())]

    def _populate(self, z_QD: Floats, quality_QT: Floats, theta_TK: Floats) -> None:
        """Find tau by EM, the posterior of each target's abilities, and the population they come from."""
        k, targets = theta_TK.shape[1], len(theta_TK)
        f = k + len(self.groups_)
        load_QF, hard_Q = self._items(z_QD)
        weight_QJ = np.tile(PI_J, (len(z_QD), 1))
        self.mu_ = np.concatenate([theta_TK.mean(axis=0), np.zeros(f - k)])
        away_TK = theta_TK - self.mu_[:k]
        # As if two more targets had been seen one unit away (the fit's own prior): nine targets tell a covariance only roughly. The mean
        # is itself uncertain, which adds a share of 1 / T.
        block_KK = (away_TK.T @ away_TK + 2.0 * np.eye(k)) / max(1.0, targets - 1.0) * (1.0 + 1.0 / targets)
        tau2, omega2 = 0.5, 0.25
        traffic_R = load_QF[:, k:].mean(axis=0)
        mean_TF = np.hstack([theta_TK, np.zeros((targets, f - k))])
        for _ in range(3):
            self.population_ = np.zeros((f, f))
            self.population_[:k, :k] = block_KK
            self.population_[k:, k:] = tau2 * np.eye(f - k) + omega2
            self.ability_, self.cov_ = np.zeros((targets, f)), np.zeros((targets, f, f))
            for t in range(targets):
                known = ~np.isnan(quality_QT[:, t])
                self.ability_[t], self.cov_[t] = _laplace(
                    self.mu_, self.population_, load_QF[known], hard_Q[known],
                    weight_QJ[known], self.spread_, quality_QT[known, t], mean_TF[t],
                )  # fmt: skip
            mean_TF = self.ability_
            overall_T = mean_TF[:, k:] @ traffic_R
            square_TR = (mean_TF[:, k:] - overall_T[:, None]) ** 2 + np.diagonal(self.cov_, axis1=1, axis2=2)[:, k:]
            tau2 = max(1e-4, float(square_TR.mean()))
        # The abilities were made to fit these very targets: as much as a target's own leverage on them, its deviations look too small.
        one_TK = np.column_stack([np.ones(targets), theta_TK])
        own_T = ((one_TK @ np.linalg.inv(one_TK.T @ one_TK + 0.1 * np.eye(k + 1))) * one_TK).sum(axis=1)
        larger_T = 1.0 / (1.0 - np.minimum(own_T, 0.8)) ** 2
        # A newcomer may be better or worse all over, even if the known targets, each good at something else, are not: the abilities then
        # hold no such direction.
        omega2 = (float((overall_T**2 * larger_T).sum()) + 2.0) / (targets + 1.0)
        self.population_[k:, k:] = float((square_TR.mean(axis=1) * larger_T).mean()) * np.eye(f - k) + omega2
        p_Q, slope_Q = _marginal(load_QF @ self.mu_ - hard_Q, weight_QJ, self.spread_)
        self.typical_ = float(p_Q.mean())
        self.slope_ = (slope_Q[:, None] * load_QF).mean(axis=0)

    def _weigh(self, z_QD: Floats, quality_QT: Floats) -> None:
        """Note the curvature of the fit, taken as that of the features times that of the abilities (exact without ridge)."""
        values_D, vectors_DD = np.linalg.eigh(z_QD.T @ z_QD)
        p = float(np.nanmean(quality_QT))
        share = float((~np.isnan(quality_QT)).mean())
        curvature_D = np.maximum(values_D, 0.0) * max(p * (1.0 - p), 0.05) * share
        self.root_ = vectors_DD / np.sqrt(curvature_D + self.l2_)
        one_TF = np.column_stack([np.ones(len(self.ability_)), self.ability_[:, : len(self.base_)]])
        self.leverage_ = np.asarray(np.linalg.inv(one_TF.T @ one_TF + np.eye(one_TF.shape[1])), dtype=np.float64)

    # --------------------------------------------------------------------------------------------------- forecasting

    def _items(self, z_QD: Floats) -> tuple[Floats, Floats]:
        """Return a(q), (Q, F), and b(q), (Q,)."""
        p_QR = belonging(z_QD, self.groups_)
        return np.hstack([self.base_ + z_QD @ self.loads_, p_QR]), self.offset_ + z_QD @ self.hardness_

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        return self._forecast(x_D, self.ability_, self.cov_)

    def _unseen(self, x_D: Floats, target: Target) -> tuple[float, float]:
        if not len(x_D):
            return super()._unseen(x_D, target)
        mean_F, cov_FF = self._prior(target)
        quality_T, sd_T = self._forecast(x_D, mean_F[None], cov_FF[None])
        return float(quality_T[0]), float(sd_T[0])

    def _forecast(self, x_D: Floats, mean_TF: Floats, cov_TFF: Floats) -> tuple[Floats, Floats]:
        z_D = x_D - self.center_
        load_QF, hard_Q = self._items(z_D[None])
        load_F = load_QF[0]
        around_D = z_D @ self.root_
        one_TF = np.column_stack([np.ones(len(mean_TF)), mean_TF[:, : len(self.base_)]])
        weight_T = np.minimum(((one_TF @ self.leverage_) * one_TF).sum(axis=1), 1.0)
        sd_T = np.sqrt((cov_TFF @ load_F) @ load_F + float(around_D @ around_D) * weight_T)
        odds_T = mean_TF @ load_F - hard_Q[0]
        # Two integrals: over what is not known of the target, and over what is not known of the query.
        odds_TJJ = odds_T[:, None, None] + sd_T[:, None, None] * U_J[:, None] - self.spread_ * U_J
        p_TJ = sigmoid(odds_TJJ) @ PI_J
        quality_T = p_TJ @ PI_J
        return quality_T, np.sqrt(np.maximum((p_TJ - quality_T[:, None]) ** 2 @ PI_J, 0.0))

    def _prior(self, target: Target) -> tuple[Floats, Floats]:
        """Return what is believed of the abilities of a target that nobody has asked: the population, moved by a stated quality."""
        stated = target.profile.quality
        if stated is None:
            return self.mu_, self.population_
        along_F = self.population_ @ self.slope_
        gain_F = along_F / (float(self.slope_ @ along_F) + STATED_SD**2)
        cov_FF = self.population_ - np.outer(gain_F, along_F)
        return self.mu_ + gain_F * (stated - self.typical_), (cov_FF + cov_FF.T) / 2.0

    # --------------------------------------------------------------------------------------- new targets, new outcomes

    def _belief(self, x_QD: Floats, quality_QT: Floats, target: Target) -> Belief:
        mean_F, cov_FF = self._posterior(target)
        load_QF, hard_Q = self._items(x_QD - self.center_)
        root_FF = np.linalg.cholesky(cov_FF + 1e-10 * np.eye(len(cov_FF)))
        odds_Q = load_QF @ mean_F - hard_Q
        # As in `_forecast`: mean and spread of a nonlinear thing, over what is not known of the target; the spread shared along e.
        wide_Q = np.sqrt(np.maximum(((load_QF @ cov_FF) * load_QF).sum(axis=1), 1e-12))
        prior_QJ = np.tile(PI_J, (len(odds_Q), 1))
        p_JQ = np.asarray([_marginal(odds_Q + wide_Q * u, prior_QJ, self.spread_)[0] for u in U_J])
        quality_Q = PI_J @ p_JQ
        slope_Q = np.sqrt(np.maximum(PI_J @ (p_JQ - quality_Q) ** 2, 0.0)) / wide_Q
        p_Q, seen_Q = _marginal(odds_Q, self._difficulty(load_QF, hard_Q, quality_QT), self.spread_)
        told_Q = seen_Q / np.sqrt(np.maximum(p_Q * (1.0 - p_Q), 1e-4) * DOUBT)
        wide_QF = load_QF @ root_FF
        return Belief(quality_Q=quality_Q, factor_QF=slope_Q[:, None] * wide_QF, told_QF=told_Q[:, None] * wide_QF)

    def _posterior(self, target: Target) -> tuple[Floats, Floats]:
        if target.name in self.targets_:
            t = self.targets_.index(target.name)
            return self.ability_[t], self.cov_[t]
        return self._prior(target)

    def _difficulty(self, load_QF: Floats, hard_Q: Floats, quality_QT: Floats) -> Floats:
        """Return the weights of the nodes of u given what known targets made of each query, (Q, J)."""
        log_QJ = np.tile(np.log(PI_J), (len(hard_Q), 1))
        for t in range(quality_QT.shape[1]):
            known = ~np.isnan(quality_QT[:, t])
            if known.any():
                odds = (load_QF[known] @ self.ability_[t] - hard_Q[known])[:, None] - self.spread_ * U_J
                log_QJ[known] += quality_QT[known, t, None] * odds - np.logaddexp(0.0, odds)
        return _softmax(log_QJ)

    def _adopt(self, t: int, x_QD: Floats, quality_QT: Floats, target: Target) -> None:
        mean_F, cov_FF = self._prior(target)
        load_QF, hard_Q = self._items(x_QD - self.center_)
        others_QT = quality_QT.copy()
        others_QT[:, t] = np.nan
        known = ~np.isnan(quality_QT[:, t])
        weight_QJ = self._difficulty(load_QF, hard_Q, others_QT)
        self.ability_[t], self.cov_[t] = _laplace(
            mean_F,
            cov_FF,
            load_QF[known],
            hard_Q[known],
            weight_QJ[known],
            self.spread_,
            quality_QT[known, t],
            mean_F,
            DOUBT,
        )

    def _begin(self) -> None:
        """Nothing is known of queries: one ability, the same for all of them."""
        d = self.features.size
        self.center_, self.hardness_ = np.zeros(d), np.zeros(d)
        self.loads_, self.base_, self.offset_, self.spread_ = np.zeros((d, 1)), np.ones(1), 0.0, 0.0
        self.groups_ = np.zeros((0, d))
        self.root_, self.leverage_ = np.zeros((d, d)), np.zeros((2, 2))
        self.ability_, self.cov_ = np.zeros((0, 1)), np.zeros((0, 1, 1))
        self.mu_, self.population_ = np.zeros(1), 2.0 * np.eye(1)
        self.typical_, self.slope_ = 0.5, np.full(1, 0.25)
        self.l2_ = 0.0

    def _grow(self) -> None:
        self.ability_ = np.concatenate([self.ability_, self.mu_[None]])
        self.cov_ = np.concatenate([self.cov_, self.population_[None]])

    def _update(self, x_D: Floats, t: int, quality: float, weight: float = 1.0) -> None:
        load_QF, hard_Q = self._items((x_D - self.center_)[None])
        p_Q, slope_Q = _marginal(load_QF @ self.ability_[t] - hard_Q, PI_J[None], self.spread_)
        p, slope = float(p_Q[0]), float(slope_Q[0])
        chance = max(p * (1.0 - p), 1e-4)
        along_F = self.cov_[t] @ load_QF[0]
        told = weight * slope * slope / chance
        gain_F = along_F / (1.0 + told * float(along_F @ load_QF[0]))
        ability, cov = self.ability_.copy(), self.cov_.copy()
        ability[t] += weight * gain_F * slope * (quality - p) / chance
        cov[t] -= told * np.outer(gain_F, along_F)
        self.ability_, self.cov_ = ability, cov

    def decay(self, keep: float) -> None:
        """Forget what outcomes said of the abilities: their precision beyond the population's is weighed by `keep`."""
        if not self.fitted:
            return
        least = np.linalg.inv(self.population_)
        self.cov_ = np.asarray(np.linalg.inv(least + keep * (np.linalg.inv(self.cov_) - least)), dtype=np.float64)


class _Amortised:
    """The first stage: abilities, and how those asked for and difficulty follow from the features."""

    def __init__(self, z_QD: Floats, quality_QT: Floats, k: int, l2: float) -> None:
        from scipy.optimize import minimize

        self.known_QT = ~np.isnan(quality_QT)
        self.y_QT = np.where(self.known_QT, quality_QT, 0.0)
        self.x_QD = np.column_stack([np.ones(len(z_QD)), z_QD])
        self.k, self.l2 = k, l2
        self.d, self.targets = self.x_QD.shape[1], quality_QT.shape[1]
        found = minimize(self._loss, self._start(), jac=True, method="L-BFGS-B", options={"maxiter": 120, "ftol": 1e-6})
        load_DK, hard_D, self.theta_TK, log_s = self._unpack(found.x)
        self.base_K, self.load_DK = load_DK[0], load_DK[1:]
        self.offset, self.hardness_D = float(hard_D[0]), hard_D[1:]
        self.spread = float(np.exp(log_s))

    def quality(self, z_QD: Floats) -> Floats:
        """Forecast, (Q, T)."""
        odds = (self.base_K + z_QD @ self.load_DK) @ self.theta_TK.T - (self.offset + z_QD @ self.hardness_D)[:, None]
        out: Floats = np.zeros_like(odds)
        for u, pi in zip(U_J, PI_J, strict=True):
            out += pi * sigmoid(odds - self.spread * u)
        return out

    def _start(self) -> Floats:
        """Begin with general ability from the means, and further abilities from where heavily shrunk linear fits differ most."""
        mean_T = means(np.where(self.known_QT, self.y_QT, np.nan))
        odds_T = np.log(mean_T / (1.0 - mean_T))
        offset = -float(odds_T.mean())
        rest_QT = np.where(self.known_QT, self.y_QT - mean_T, 0.0)
        z_QD = self.x_QD[:, 1:]
        gram = z_QD.T @ z_QD
        ridge = (float(np.trace(gram)) / max(1, len(gram)) + 1e-9) * np.eye(len(gram))
        w_DT = np.linalg.solve(gram + ridge, z_QD.T @ rest_QT) * 4.0
        w_DT = np.vstack([(odds_T + offset)[None], w_DT - w_DT.mean(axis=1, keepdims=True)])
        left, s, right = np.linalg.svd(w_DT, full_matrices=False)
        # The sign of a singular vector is a matter of taste: the largest entry is made positive, so that equal data start alike.
        sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])[: self.k]
        half = np.sqrt(s[: self.k])
        load_DK, theta_TK = left[:, : self.k] * half * sign, right[: self.k].T * half * sign
        hard_D = np.zeros(self.d)
        hard_D[0] = offset
        return np.concatenate([load_DK.ravel(), hard_D, theta_TK.ravel(), [0.0]])

    def _unpack(self, v: Floats) -> tuple[Floats, Floats, Floats, float]:
        a, b = self.d * self.k, self.d * (self.k + 1)
        return v[:a].reshape(self.d, self.k), v[a:b], v[b:-1].reshape(self.targets, self.k), float(v[-1])

    def _loss(self, v: Floats) -> tuple[float, Floats]:
        load_DK, hard_D, theta_TK, log_s = self._unpack(v)
        spread = float(np.exp(log_s))
        load_QK = self.x_QD @ load_DK
        odds_QT = load_QK @ theta_TK.T - (self.x_QD @ hard_D)[:, None]
        n = len(odds_QT)
        log_QJ, p_JQT = np.empty((n, NODES)), np.empty((NODES, *odds_QT.shape))
        for j, u in enumerate(U_J):
            e = odds_QT - spread * u
            small = np.exp(-np.abs(e))
            soft = np.maximum(e, 0.0) + np.log1p(small)
            log_QJ[:, j] = np.log(PI_J[j]) + np.where(self.known_QT, self.y_QT * e - soft, 0.0).sum(axis=1)
            p_JQT[j] = np.where(e >= 0.0, 1.0, small) / (1.0 + small)
        top_Q = log_QJ.max(axis=1)
        weight_QJ = np.exp(log_QJ - top_Q[:, None])
        sum_Q = weight_QJ.sum(axis=1)
        weight_QJ /= sum_Q[:, None]
        rest_JQT = np.where(self.known_QT, self.y_QT - p_JQT, 0.0)
        rest_QT = np.einsum("qj,jqt->qt", weight_QJ, rest_JQT)
        slope_s = float(np.einsum("qj,jq,j->", weight_QJ, rest_JQT.sum(axis=2), -U_J)) * spread
        ridge_D = np.full(self.d, self.l2)
        ridge_D[0] = 0.1
        loss = -float((top_Q + np.log(sum_Q)).sum())
        loss += 0.5 * float((ridge_D[:, None] * load_DK**2).sum() + (ridge_D * hard_D**2).sum() + (theta_TK**2).sum())
        loss += 0.5 * log_s * log_s
        slope_DK = -self.x_QD.T @ (rest_QT @ theta_TK) + ridge_D[:, None] * load_DK
        slope_D = self.x_QD.T @ rest_QT.sum(axis=1) + ridge_D * hard_D
        slope_TK = -rest_QT.T @ load_QK + theta_TK
        return loss, np.concatenate([slope_DK.ravel(), slope_D, slope_TK.ravel(), [-slope_s + log_s]])


def _laplace(
    mean_F: Floats,
    cov_FF: Floats,
    load_QF: Floats,
    hard_Q: Floats,
    weight_QJ: Floats,
    s: float,
    y_Q: Floats,
    start_F: Floats,
    doubt: float = 1.0,
) -> tuple[Floats, Floats]:
    """Return the mode and covariance of abilities with a Gaussian prior, given qualities of some queries, by Fisher scoring."""
    least = np.linalg.inv(cov_FF + 1e-10 * np.eye(len(cov_FF)))
    theta_F = start_F.copy()

    def fit(theta: Floats) -> float:
        p_Q, _ = _marginal(load_QF @ theta - hard_Q, weight_QJ, s)
        p_Q = np.clip(p_Q, 1e-9, 1.0 - 1e-9)
        away = theta - mean_F
        return float((y_Q * np.log(p_Q) + (1.0 - y_Q) * np.log1p(-p_Q)).sum()) / doubt - 0.5 * float(
            away @ least @ away
        )

    precise, now = least, fit(theta_F)
    for _ in range(_STEPS):
        p_Q, slope_Q = _marginal(load_QF @ theta_F - hard_Q, weight_QJ, s)
        chance_Q = np.maximum(p_Q * (1.0 - p_Q), 1e-6) * doubt
        precise = least + (load_QF * (slope_Q**2 / chance_Q)[:, None]).T @ load_QF
        gradient = load_QF.T @ (slope_Q * (y_Q - p_Q) / chance_Q) - least @ (theta_F - mean_F)
        step_F, far = np.linalg.solve(precise, gradient), 1.0
        while (then := fit(theta_F + far * step_F)) < now and far > 1e-3:
            far /= 2.0
        if then < now:
            break
        theta_F, done, now = theta_F + far * step_F, then - now < 1e-6, then
        if done:
            break
    out = np.linalg.inv(precise)
    return theta_F, (out + out.T) / 2.0


def _marginal(odds_Q: Floats, weight_QJ: Floats, s: float) -> tuple[Floats, Floats]:
    """Return expected quality and its derivative by the log-odds, over what is not known of each query's difficulty; (Q,) each."""
    p_QJ = sigmoid(odds_Q[:, None] - s * U_J)
    return (weight_QJ * p_QJ).sum(axis=1), (weight_QJ * p_QJ * (1.0 - p_QJ)).sum(axis=1)


def _softmax(log_QJ: Floats) -> Floats:
    out: Floats = np.exp(log_QJ - log_QJ.max(axis=1, keepdims=True))
    out /= out.sum(axis=1, keepdims=True)
    return out
