"""A target is forecast from its profile: who its family is, what it scored on which kind of task, what it costs. After "How to describe a
model to a router" (RouteProfile, 2026, arXiv:2605.00180): a structured, training-free graph profile; the readout is ours.

Nodes are family tags, targets, skills (kinds of task with a measured score) and groups of queries (k-means). Edges join a target to its
tags (1) and skills (score, scaled to 0 … 1 over the targets), and a skill to the groups that hold its queries, where the table's column
`dataset` or `domain` names it. Per kind of edge, with A normalised,

    X[dst] <- mean over the kinds of edge into dst of A X[src],    repeated `hops` times;  a node without edges keeps its own

A target's profile vector is the concatenation of its own row before and after each hop, so that depth cannot smooth targets into one.

The readout is a matrix-normal prior over (targets x groups), v = mean quality of a target in a group:

    v_t ~ N(mu, S),   cov(v_t, v_t') = share * exp(-|e_t - e_t'|^2 / 2 width^2) S,    quality = sum_c p(c | x) v_tc

`share` and `width` are chosen by leaving out one target at a time; where profiles foretell nothing, `share` is 0. So a target that the fit
has not seen leans on those with similar profiles and keeps the spread of the population for the rest; its own stated `quality`, and
skills named as the table names its kinds of task, count as measurements of `STATED_SD`. Outcomes are learned by Kalman steps.

Differs from the paper: initial features are numbers and one-hot names, not text embeddings; edges of queries to targets are left out, as
an unseen target has none; nothing is trained by gradient; forecasts have an uncertainty. The default is row-stochastic A (constants stay
constant); the paper's default, symmetric, is `norm: symmetric`.

Where the known targets' outcomes on a probed prompt are known, what they have in common there (the share `common` of the residual
variance, from the fit) is taken off, as a control variate.

Checked in tests/predictors/test_profile.py: one hop by hand on five nodes, no hop, constants, isolated nodes, relabelling, the
over-smoothing meter, an unseen target is chosen where it is best, profiles that foretell nothing are not believed.

Shapes: Q queries, T targets, D features, C groups, N nodes, E node features. A forecast takes about 30 µs, and 10 to 25 µs more per unseen target.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np
from msgspec import Meta

from fairlead.errors import ConfigError
from fairlead.predictors.base import Belief, Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.kmeans import belonging, centres, sizes
from fairlead.predictors.statistics import half_mean, unit
from fairlead.types import Profile, Target

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

log = logging.getLogger(__name__)

Norm: TypeAlias = Literal["row", "symmetric"]
SHARES: Final = (0.0, 0.3, 0.6, 0.9)
WIDTHS: Final = (0.3, 1.0, 3.0)
"""In units of the root mean squared distance between the known targets' profile vectors."""
STATED_SD: Final = 0.1
"""How far a profile's own figures may be off, one standard deviation: they were measured on something else."""
SMOOTH: Final = 0.99
"""Mean cosine of targets after the last hop above which the graph has smoothed them into one."""
_SEED: Final = 0
_NUMBERS: Final = 4


class Profiled(Predictor):
    """Forecasts from profiles, group by group.

    Args:
        features: what is read of a query; None: `Features()`.
        groups: most groups of queries.
        hops: how far profiles spread in the graph; 0: each target's own figures alone.
        norm: of the graph's edges.
        calibration: map of the forecasts, learned from held-out queries at the fit.
    """

    online: ClassVar[bool] = True
    center_: Floats
    """Mean features, (D,)."""
    groups_: Floats
    """Directions of the groups, (C, D)."""
    value_: Floats
    """v, (T, C)."""
    cov_: Floats
    """Its covariance per target, (T, C, C)."""
    mu_: Floats
    """(C,)."""
    population_: Floats
    """S, (C, C), with the uncertainty of mu."""
    weight_: Floats
    """Share of the traffic in each group, (C,)."""
    common_: float
    """Share of the residual variance that targets have in common on a query."""
    nodes_: dict[str, list[str]]
    """Names of tags and skills, in the order of their rows."""
    hops_: Floats
    """Rows of tags, then skills, before each hop, (hops, N, E); if `norm` is symmetric, divided by the root of their degree."""
    scale_: Floats
    """Mean and scale of the profiles' numbers, (2, numbers)."""
    scores_: Floats
    """Lowest and highest score seen of each skill, (skills, 2)."""
    skill_groups_: Floats
    """Share of each skill's queries in each group, (skills, C); rows of zeros where the table does not name the skill."""
    vectors_: Floats
    """Profile vectors of the targets whose profiles the fit knew, (P, …), divided by …"""
    width_: float
    """… the chosen width."""
    known_: Floats
    """(K + noise)^-1 (v - mu) of those targets, (P, C)."""
    inverse_: Floats
    """(K + noise)^-1, (P, P)."""
    share_: float

    def __init__(
        self,
        *,
        features: Features | None = None,
        groups: Annotated[int, Meta(ge=1)] = 16,
        hops: Annotated[int, Meta(ge=0)] = 2,
        norm: Norm = "row",
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.groups = groups
        self.hops = hops
        self.norm = norm
        self.calibration = calibration
        self._met: dict[str, Target] = {}

    def check(self) -> None:
        """Raise `ConfigError` for a count that cannot be."""
        super().check()
        for name, value, least in (("groups", self.groups, 1), ("hops", self.hops, 0)):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, and {value} is not", path=f"$.{name}")

    # ------------------------------------------------------------------------------------------------------ the fit

    def _meet(self, targets: Mapping[str, Target]) -> None:
        self._met = dict(targets)

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        self.center_ = x_QD.mean(axis=0)
        z_QD = unit(x_QD - self.center_)
        self.groups_, _ = centres(z_QD, max(sizes((1, 2, 4, 8, self.groups), len(z_QD))), _SEED)
        p_QC = self._membership(x_QD)
        self.weight_ = p_QC.mean(axis=0)
        targets, c = quality_QT.shape[1], p_QC.shape[1]
        # Twice: a rough population first, then the one that the values speak for.
        self.mu_ = np.full(c, float(np.nanmean(quality_QT)))
        self.population_ = 0.05 + 0.05 * np.eye(c)
        for _ in range(2):
            self.value_, self.cov_ = np.zeros((targets, c)), np.zeros((targets, c, c))
            for t in range(targets):
                self.value_[t], self.cov_[t] = _regress(self.mu_, self.population_, p_QC, quality_QT[:, t])
            self.mu_ = np.asarray(self.value_.mean(axis=0), dtype=np.float64)
            away_TC = self.value_ - self.mu_
            # As if two more targets had been seen: few targets tell a covariance of many groups only roughly.
            rough_CC = 0.01 + 0.01 * np.eye(c)
            square_CC = away_TC.T @ away_TC + self.cov_.sum(axis=0) + 2.0 * rough_CC
            self.population_ = square_CC / max(1.0, targets - 1.0) * (1.0 + 1.0 / targets)
        self.common_ = self._shared(quality_QT - p_QC @ self.value_.T)
        self._draw(p_QC, table)
        self._relate()

    def _shared(self, rest_QT: Floats) -> float:
        """Return the mean correlation of two targets' residuals on the same query; 0 with one target."""
        known_QT = ~np.isnan(rest_QT)
        r_QT = np.where(known_QT, rest_QT, 0.0)
        n_TT = known_QT.T.astype(np.float64) @ known_QT
        cov_TT = (r_QT.T @ r_QT) / np.maximum(n_TT, 1.0)
        off = ~np.eye(len(cov_TT), dtype=bool) & (n_TT > 10)
        if not off.any():
            return 0.0
        return float(np.clip(cov_TT[off].mean() / max(float(np.diag(cov_TT).mean()), 1e-9), 0.0, 0.95))

    def _draw(self, p_QC: Floats, table: OutcomeTable) -> None:
        """Draw the graph of the known profiles and let it spread."""
        profiles = [self._met[n].profile for n in self.targets_ if n in self._met]
        tags = sorted({tag for p in profiles for tag in p.tags})
        skills = sorted({s for p in profiles for s in p.skills})
        self.nodes_ = {"tags": tags, "skills": skills}
        raw = np.asarray([_numbers(p) for p in profiles]).reshape(len(profiles), _NUMBERS)
        known = ~np.isnan(raw)
        n = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, raw, 0.0).sum(axis=0) / n
        sd = np.sqrt(np.where(known, (raw - mean) ** 2, 0.0).sum(axis=0) / n)
        self.scale_ = np.stack([mean, np.where(sd > 1e-9, sd, 1.0)])
        found = [[p.skills[s] for p in profiles if s in p.skills] for s in skills]
        self.scores_ = np.asarray([[min(f), max(f)] for f in found]).reshape(len(skills), 2)
        kinds = [{d, m} - {None} for d, m in zip(table.datasets, table.domains, strict=True)]
        self.skill_groups_ = np.zeros((len(skills), p_QC.shape[1]))
        for i, skill in enumerate(skills):
            rows = [q for q, names in enumerate(kinds) if skill in names]
            if rows:
                self.skill_groups_[i] = p_QC[rows].mean(axis=0)
        a, b, c, targets = len(tags), len(skills), p_QC.shape[1], len(profiles)
        x_NE = np.zeros((a + b + c + targets, _NUMBERS + a + b + c))
        x_NE[: a + b + c, _NUMBERS:] = np.eye(a + b + c)
        tagged, skilled = np.zeros((targets, a)), np.zeros((targets, b))
        for t, p in enumerate(profiles):
            x_NE[a + b + c + t, :_NUMBERS] = self._scaled(p)
            tagged[t], skilled[t] = self._edges(p)
        spans = {"tag": (0, a), "skill": (a, a + b), "group": (a + b, a + b + c), "target": (a + b + c, len(x_NE))}
        edges = {("target", "tag"): tagged, ("target", "skill"): skilled, ("skill", "group"): self.skill_groups_}
        each = propagate(x_NE, spans, edges, hops=self.hops, norm=self.norm)
        self.hops_ = np.stack([x[: a + b] for x in each[: max(1, self.hops)]])
        if self.norm == "symmetric":
            degree_N = np.concatenate([tagged.sum(axis=0), skilled.sum(axis=0)])
            self.hops_ /= np.sqrt(np.maximum(degree_N, 1e-12))[:, None]
        self.vectors_ = np.asarray([self._vector(p) for p in profiles]) if profiles else np.zeros((0, 0))
        if self.hops and (alike := sameness(each[-1][a + b + c :])) > SMOOTH:
            log.warning("after %d hops the targets' profiles are alike (mean cosine %.3f); use fewer", self.hops, alike)

    def _relate(self) -> None:
        """Choose how much alike targets of like profiles are, by leaving out one target at a time."""
        rows = [t for t, n in enumerate(self.targets_) if n in self._met]
        away_PC = self.value_[rows] - self.mu_
        self.share_, self.width_, count = 0.0, 1.0, len(rows)
        self.known_, self.inverse_ = np.zeros((count, len(self.mu_))), np.zeros((count, count))
        if count < 4:
            return
        square_PP = ((self.vectors_[:, None] - self.vectors_[None]) ** 2).sum(axis=2)
        unit_far = math.sqrt(float(square_PP.sum()) / (count * (count - 1)))
        if unit_far < 1e-9:
            return
        # The left-out target's values against their forecast, weighed by traffic; the variance is the population's, shrunk.
        size_P = (away_PC**2 * self.weight_).sum(axis=1)
        spread = max(float(size_P.mean()), 1e-6)
        best, chosen = math.inf, WIDTHS[0]
        for share in SHARES:
            for width in WIDTHS if share else WIDTHS[:1]:
                k_PP = share * np.exp(-square_PP / (2.0 * (width * unit_far) ** 2))
                loss = 0.0
                for t in range(count):
                    rest = np.arange(count) != t
                    inverse = np.linalg.inv(k_PP[np.ix_(rest, rest)] + (1.0 - share + 1e-6) * np.eye(count - 1))
                    w = inverse @ k_PP[rest, t]
                    left = max(1.0 - float(k_PP[rest, t] @ w), 0.05) * spread
                    error = float(((away_PC[t] - w @ away_PC[rest]) ** 2 * self.weight_).sum())
                    loss += math.log(left) + error / left
                if loss < best - 1e-9:
                    best, self.share_, chosen = loss, share, width
        self.vectors_ = self.vectors_ / (chosen * unit_far)
        k_PP = self.share_ * np.exp(-square_PP / (2.0 * (chosen * unit_far) ** 2))
        self.inverse_ = np.linalg.inv(k_PP + (1.0 - self.share_ + 1e-6) * np.eye(count))
        self.known_ = self.inverse_ @ away_PC
        self.width_ = chosen * unit_far

    # ---------------------------------------------------------------------------------------------------- one profile

    def _scaled(self, profile: Profile) -> Floats:
        """Return its numbers, standardised; 0 where not known."""
        mean, sd = self.scale_
        out: Floats = np.nan_to_num((np.asarray(_numbers(profile)) - mean) / sd, nan=0.0)
        return out

    def _edges(self, profile: Profile) -> tuple[Floats, Floats]:
        """Return the weights of its edges to tags and to skills."""
        tags = np.asarray([float(tag in profile.tags) for tag in self.nodes_["tags"]])
        skills = np.zeros(len(self.nodes_["skills"]))
        for i, name in enumerate(self.nodes_["skills"]):
            score = profile.skills.get(name)
            if score is not None:
                low, high = self.scores_[i]
                # A score as low as any still is an edge: that it was measured links the two.
                skills[i] = 0.1 + 0.9 * float(np.clip((score - low) / (high - low), 0.0, 1.0)) if high > low else 1.0
        return tags, skills

    def _degree(self, weight: Floats) -> Floats:
        """Return what one end of an edge is divided by, of the sum of the edges there: see `_normalised`."""
        return np.sqrt(weight) if self.norm == "symmetric" else weight

    def _vector(self, profile: Profile) -> Floats:
        """Return a profile's vector: its own numbers, then its row after each hop, as `propagate` gives it."""
        tags, skills = self._edges(profile)
        a = len(tags)
        parts = [self._scaled(profile)]
        for x_NE in self.hops_[: self.hops]:
            brought = [
                w @ x / self._degree(w.sum()) for w, x in ((tags, x_NE[:a]), (skills, x_NE[a:])) if w.sum() > 0.0
            ]
            parts.append(
                np.mean(brought, axis=0) if brought else np.append(parts[0], np.zeros(x_NE.shape[1] - _NUMBERS))
            )
        parts.append(skills)
        return np.concatenate(parts)

    def _prior(self, target: Target) -> tuple[Floats, Floats]:
        """Return what is believed of the values of a target that nobody has asked."""
        profile = target.profile
        value_C, cov_CC = self.mu_, self.population_
        if self.share_ and _tells(profile):
            far_P = ((self.vectors_ - self._vector(profile) / self.width_) ** 2).sum(axis=1)
            k_P = self.share_ * np.exp(-far_P / 2.0)
            value_C = self.mu_ + k_P @ self.known_
            cov_CC = cov_CC * max(1.0 - float(k_P @ self.inverse_ @ k_P), 0.05)
        stated = [(self.weight_, profile.quality)] if profile.quality is not None else []
        for name, row in zip(self.nodes_["skills"], self.skill_groups_, strict=True):
            if name in profile.skills and row.any():
                stated.append((row, profile.skills[name]))
        for along_C, figure in stated:
            value_C, cov_CC = _kalman(value_C, cov_CC, along_C, figure, STATED_SD**2)
        return value_C, cov_CC

    # --------------------------------------------------------------------------------------------------- forecasting

    def _membership(self, x_QD: Floats) -> Floats:
        return belonging(x_QD - self.center_, self.groups_)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        p_C = self._membership(x_D[None])[0]
        return self.value_ @ p_C, np.sqrt(np.maximum((self.cov_ @ p_C) @ p_C, 0.0))

    def _unseen(self, x_D: Floats, target: Target) -> tuple[float, float]:
        if not len(x_D):
            return super()._unseen(x_D, target)
        p_C = self._membership(x_D[None])[0]
        value_C, cov_CC = self._prior(target)
        return float(value_C @ p_C), min(math.sqrt(max(float(p_C @ cov_CC @ p_C), 0.0)), self.unknown_sd)

    # --------------------------------------------------------------------------------------- new targets, new outcomes

    def _belief(self, x_QD: Floats, quality_QT: Floats, target: Target) -> Belief:
        if target.name in self.targets_:
            t = self.targets_.index(target.name)
            value_C, cov_CC = self.value_[t], self.cov_[t]
        else:
            value_C, cov_CC = self._prior(target)
        p_QC = self._membership(x_QD)
        wide_QC = p_QC @ np.linalg.cholesky(cov_CC + 1e-10 * np.eye(len(cov_CC)))
        quality_Q = np.clip(p_QC @ value_C, 0.0, 1.0)
        _, left_Q = self._taken_off(p_QC, quality_QT)
        sd_Q = np.sqrt(_chance(quality_Q) * left_Q)
        return Belief(quality_Q=quality_Q, factor_QF=wide_QC, told_QF=wide_QC / sd_Q[:, None])

    def _taken_off(self, p_QC: Floats, quality_QT: Floats) -> tuple[Floats, Floats]:
        """Return what the others' residuals say of a query, and the share of the variance that is left then; (Q,) each."""
        rest_QT = quality_QT - p_QC @ self.value_.T
        known_QT = ~np.isnan(rest_QT)
        n_Q = known_QT.sum(axis=1).astype(np.float64)
        weight_Q = self.common_ * n_Q / (1.0 + np.maximum(n_Q - 1.0, 0.0) * self.common_)
        mean_Q = np.where(known_QT, rest_QT, 0.0).sum(axis=1) / np.maximum(n_Q, 1.0)
        return weight_Q * mean_Q, 1.0 - self.common_ * weight_Q

    def _adopt(self, t: int, x_QD: Floats, quality_QT: Floats, target: Target) -> None:
        p_QC = self._membership(x_QD)
        others_QT = quality_QT.copy()
        others_QT[:, t] = np.nan
        off_Q, left_Q = self._taken_off(p_QC, others_QT)
        value_C, cov_CC = self._prior(target)
        for q in np.flatnonzero(~np.isnan(quality_QT[:, t])):
            noise = float(_chance(p_QC[q] @ self.mu_) * left_Q[q])
            value_C, cov_CC = _kalman(value_C, cov_CC, p_QC[q], float(quality_QT[q, t] - off_Q[q]), noise)
        self.value_[t], self.cov_[t] = value_C, cov_CC

    def _begin(self) -> None:
        """Nothing is known of queries: one group."""
        d = self.features.size
        self.center_, self.groups_ = np.zeros(d), np.zeros((1, d))
        self.value_, self.cov_ = np.zeros((0, 1)), np.zeros((0, 1, 1))
        self.mu_, self.population_, self.weight_, self.common_ = np.full(1, 0.5), np.full((1, 1), 0.08), np.ones(1), 0.0
        self.nodes_ = {"tags": [], "skills": []}
        self.hops_, self.scale_ = np.zeros((1, 0, _NUMBERS + 1)), np.stack([np.zeros(_NUMBERS), np.ones(_NUMBERS)])
        self.scores_, self.skill_groups_ = np.zeros((0, 2)), np.zeros((0, 1))
        self.vectors_, self.known_, self.inverse_ = np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((0, 0))
        self.share_, self.width_ = 0.0, 1.0

    def _grow(self) -> None:
        self.value_ = np.concatenate([self.value_, self.mu_[None]])
        self.cov_ = np.concatenate([self.cov_, self.population_[None]])

    def _update(self, x_D: Floats, t: int, quality: float, weight: float = 1.0) -> None:
        p_C = self._membership(x_D[None])[0]
        value, cov = self.value_.copy(), self.cov_.copy()
        value[t], cov[t] = _kalman(value[t], cov[t], p_C, quality, float(_chance(p_C @ value[t])) / weight)
        self.value_, self.cov_ = value, cov

    def decay(self, keep: float) -> None:
        """Forget what outcomes said: their precision beyond the population's is weighed by `keep`."""
        if self.fitted:
            least = np.linalg.inv(self.population_)
            self.cov_ = np.asarray(np.linalg.inv(least + keep * (np.linalg.inv(self.cov_) - least)), dtype=np.float64)


def propagate(
    x_NE: Floats,
    spans: Mapping[str, tuple[int, int]],
    edges: Mapping[tuple[str, str], Floats],
    *,
    hops: int,
    norm: Norm = "row",
) -> list[Floats]:
    """Let node features spread over a graph of several kinds of nodes.

    Args:
        x_NE: features of all nodes.
        spans: kind of node -> its rows, first and one past the last.
        edges: (kind, kind) -> weights, both ways; row-stochastic into each end, or symmetric D^-1/2 A D^-1/2.
        hops: how often.
        norm: which of the two.

    Returns the features before any hop and after each, `hops` + 1 of them.
    """
    out = [x_NE]
    for _ in range(hops):
        x_NE = out[-1]
        total, kinds = np.zeros_like(x_NE), np.zeros(len(x_NE))
        for (left, right), weight in edges.items():
            for src, dst, w in ((right, left, weight), (left, right, weight.T)):
                a, b = spans[dst]
                brought = _normalised(w, norm) @ x_NE[slice(*spans[src])]
                total[a:b] += brought
                kinds[a:b] += w.sum(axis=1) > 0.0
        out.append(np.where(kinds[:, None] > 0, total / np.maximum(kinds, 1.0)[:, None], x_NE))
    return out


def sameness(x_NE: Floats) -> float:
    """Return the mean cosine of two different rows: near 1, a graph has smoothed them into one. NaN with fewer than two rows."""
    if len(x_NE) < 2:
        return math.nan
    u = unit(x_NE)
    cosine = u @ u.T
    return float(cosine[~np.eye(len(u), dtype=bool)].mean())


def _normalised(weight: Floats, norm: Norm) -> Floats:
    rows = weight.sum(axis=1, keepdims=True)
    columns = weight.sum(axis=0, keepdims=True)
    by = rows if norm == "row" else np.sqrt(np.maximum(rows, 1e-12) * np.maximum(columns, 1e-12))
    out: Floats = weight / np.maximum(by, 1e-12)
    return out


def _numbers(profile: Profile) -> Sequence[float]:
    """Return log prices, log context and stated quality; NaN where not known."""
    nan = math.nan
    price_in, price_out = profile.input_usd_per_mtok, profile.output_usd_per_mtok
    return (
        nan if price_in is None else math.log(price_in + 0.01),
        nan if price_out is None else math.log(price_out + 0.01),
        nan if profile.context_tokens is None else math.log(max(profile.context_tokens, 1)),
        nan if profile.quality is None else profile.quality,
    )


def _tells(profile: Profile) -> bool:
    """Whether a profile says anything that likens targets."""
    return bool(profile.tags or profile.skills) or not all(map(math.isnan, _numbers(profile)))


def _chance(quality: Floats | float) -> Floats:
    """Variance of one outcome with that mean, never quite zero."""
    q = np.clip(quality, 0.05, 0.95)
    out: Floats = q * (1.0 - q)
    return out


def _kalman(value_C: Floats, cov_CC: Floats, along_C: Floats, seen: float, noise: float) -> tuple[Floats, Floats]:
    """Learn that ``along_C @ value`` was measured as `seen` with variance `noise`."""
    reach_C = cov_CC @ along_C
    gain_C = reach_C / (float(along_C @ reach_C) + noise)
    out = cov_CC - np.outer(gain_C, reach_C)
    return value_C + gain_C * (seen - float(along_C @ value_C)), (out + out.T) / 2.0


def _regress(mu_C: Floats, cov_CC: Floats, p_QC: Floats, y_Q: Floats) -> tuple[Floats, Floats]:
    """Return the posterior of a target's values given qualities, NaN where nobody scored."""
    known = ~np.isnan(y_Q)
    least = np.linalg.inv(cov_CC)
    mean = half_mean(y_Q[known].sum(), known.sum())
    noise = max(float(mean * (1.0 - mean)), 0.01)
    p = p_QC[known]
    cov = np.linalg.inv(least + p.T @ p / noise)
    return cov @ (least @ mu_C + p.T @ y_Q[known] / noise), (cov + cov.T) / 2.0
