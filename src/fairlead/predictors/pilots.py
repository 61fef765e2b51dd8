"""Which expert is best, by how near a query lies to training queries on which each was. RouterRetriever (Lee et al., AAAI 2025, arXiv 2409.02685).

For each data set D_i of the table, a query x in it and the experts e (targets of the table; quality: nDCG@10 or any score per query):

    e_max(x) = argmax over e of quality(x, e)
    pilot (i, e) = centroid of the base embeddings of { x in D_i : e_max(x) = e }, one for each group that is not empty: at most |D| * T
    s_e = mean over the pilots labelled e of cos(b(x), pilot),     chosen: argmax over e of s_e

`use` takes the highest (`max`), or the mean of the `n` highest (`top`), in place of the mean. A tie in e_max goes to whoever is better on the
whole data set, then to the first by name.

Differs from the paper. It has no forecast of quality; here it is the mean quality that the expert ranked r-th by s_e had on queries held out (two
halves, each forecast from the other), made to fall strictly in r, so that the argmax of the forecasts is that of s_e and they mean what they
say. And it always routes; here the rule is used only if on those queries it beat the best fixed expert of the other half by `sure` standard errors:
else each expert is forecast its own mean, so that the best fixed one is chosen. A query without an embedding (a vector of zeros) is forecast so too.

`adopt` adds an expert without training: its pilot is the centroid of the queries of the given table that it is best on; groups of other experts stay, as
in the paper. `remove` deletes its pilots; the others keep their order.

Shapes: Q queries, T experts, P pilots, D features. A fit of 4,000 x 4 at D = 128 takes 0.4 s, a forecast 30 µs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.errors import StateError, UnknownName
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import folds
from fairlead.predictors.features import Features
from fairlead.predictors.statistics import means, standard_error, unit
from fairlead.types import Target

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

_STEP = 1e-6
"""By how much a forecast is made to fall from one rank to the next, where what was observed does not."""


class Pilots(Predictor):
    """Forecasts by rank of nearness to pilot embeddings.

    Args:
        features: the base embedding; None: the signal `embedding` as it is. Rows are scaled to length 1.
        use: how an expert's nearness is made of that to its pilots.
        n: of how many, with `use: top`.
        sure: standard errors by which the rule must have beaten the best fixed expert on held-out queries to be used.
    """

    pilots_: Floats
    """Centroids, (P, D)."""
    of_: NDArray[np.int64]
    """The expert of each, as an index of `targets_`, (P,)."""
    sets_: list[str]
    """The data set of each."""
    counts_: NDArray[np.int64]
    """How many queries each is the centroid of, (P,)."""
    mean_: Floats
    """Mean quality of each expert, (T,)."""
    seen_: Floats
    """Scored answers of each, (T,)."""
    rank_: Floats
    """Mean quality of the expert that stands at each rank, strictly falling, (T,)."""
    rank_sd_: Floats
    """Standard error of the same, (T,)."""
    routes_: bool
    """Whether the rule is used."""
    gain_: Floats
    """What it brought over the best fixed expert on held-out queries, and the standard error of that, (2,)."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        use: Literal["mean", "max", "top"] = "mean",
        n: Annotated[int, Meta(ge=1)] = 3,
        sure: Annotated[float, Meta(ge=0.0)] = 1.0,
    ) -> None:
        self.features = features or Features(signals=("embedding",), scale=False)
        self.use = use
        self.n = n
        self.sure = sure

    # ------------------------------------------------------------------------------------------------ the library

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        known_QT = ~np.isnan(quality_QT)
        self.mean_, self.seen_ = means(quality_QT), known_QT.sum(axis=0).astype(np.float64)
        sets = [name or "" for name in table.datasets]
        self._judge(quality_QT, *self._held_out(x_QD, quality_QT, sets, table.groups))
        self._lay(x_QD, quality_QT, sets)

    def _lay(self, x_QD: Floats, quality_QT: Floats, sets: Sequence[str]) -> None:
        """Make the pilots."""
        x_QD = unit(x_QD)
        label_Q = np.asarray(sets)
        pilots, of, names, counts = [], [], [], []
        for name in sorted(set(sets)):
            rows = np.flatnonzero(label_Q == name)
            best_Q = e_max(quality_QT[rows])
            for t in range(quality_QT.shape[1]):
                group = rows[(best_Q == t) & (x_QD[rows] != 0.0).any(axis=1)]
                if len(group):
                    pilots.append(x_QD[group].mean(axis=0))
                    of.append(t)
                    names.append(name)
                    counts.append(len(group))
        self.pilots_ = np.asarray(pilots).reshape(len(pilots), x_QD.shape[1])
        self.of_, self.sets_ = np.asarray(of, dtype=np.int64), names
        self.counts_ = np.asarray(counts, dtype=np.int64)

    def scores(self, x_D: Floats) -> Floats:
        """Return s_e of each expert, (T,); minus infinity for one without pilots."""
        near_P = unit(self.pilots_) @ unit(x_D[None])[0]
        out = np.full(len(self.targets_), -np.inf)
        for t in range(len(out)):
            near = near_P[self.of_ == t]
            if len(near) and self.use == "max":
                out[t] = near.max()
            elif len(near):
                out[t] = (np.sort(near)[-self.n :] if self.use == "top" else near).mean()
        return out

    # ------------------------------------------------------------------------------------------------ what it is worth

    def _held_out(
        self, x_QD: Floats, quality_QT: Floats, sets: Sequence[str], groups_Q: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, each half from the other: the best fixed expert (Q,), and the expert at each rank of s_e (Q, T); -1 where there is no embedding."""
        fixed_Q, at_QT = np.full(len(x_QD), -1), np.full(quality_QT.shape, -1)
        fold_Q = folds(groups_Q, k=2)
        for half in (0, 1):
            train, test = np.flatnonzero(fold_Q != half), np.flatnonzero(fold_Q == half)
            if not len(train) or not len(test) or np.isnan(quality_QT[train]).all():
                continue
            other = self.copy()
            other._lay(x_QD[train], quality_QT[train], [sets[i] for i in train.tolist()])
            fixed_Q[test] = int(means(quality_QT[train]).argmax())
            for i in test:
                if x_QD[i].any():
                    at_QT[i] = np.argsort(-other.scores(x_QD[i]), kind="stable")
        return fixed_Q, at_QT

    def _judge(self, quality_QT: Floats, fixed_Q: NDArray[np.int64], at_QT: NDArray[np.int64]) -> None:
        """Learn the quality at each rank, and whether the rule is worth using."""
        rows = np.flatnonzero(at_QT[:, 0] >= 0)
        by_rank_QT = quality_QT[rows[:, None], at_QT[rows]]
        count_T = (~np.isnan(by_rank_QT)).sum(axis=0)
        mean_T = _falling(means(by_rank_QT), count_T + 1.0)
        self.rank_ = np.clip(mean_T, _STEP * len(mean_T), 1.0) - _STEP * np.arange(len(mean_T))
        self.rank_sd_ = standard_error(mean_T, count_T)
        gain_Q = by_rank_QT[:, 0] - quality_QT[rows, fixed_Q[rows]]
        gain_Q = gain_Q[~np.isnan(gain_Q)]
        n = len(gain_Q)
        gain, error = (float(gain_Q.mean()), float(gain_Q.std() / np.sqrt(n))) if n else (0.0, 0.0)
        self.gain_ = np.asarray([gain, error])
        self.routes_ = bool(gain > 0.0 and gain >= self.sure * error)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        fixed = self.mean_, standard_error(self.mean_, self.seen_)
        if not self.routes_ or not x_D.any():
            return fixed
        rank_T = np.empty(len(self.targets_), dtype=np.int64)
        rank_T[np.argsort(-self.scores(x_D), kind="stable")] = np.arange(len(rank_T))
        return self.rank_[rank_T], self.rank_sd_[rank_T]

    # ------------------------------------------------------------------------------------------------ who comes and goes

    def _grow(self) -> None:
        self.mean_, self.seen_ = np.append(self.mean_, 0.5), np.append(self.seen_, 0.0)
        self.rank_ = np.append(self.rank_, self.rank_[-1] - _STEP)
        self.rank_sd_ = np.append(self.rank_sd_, self.rank_sd_[-1])

    def _adopt(self, t: int, x_QD: Floats, quality_QT: Floats, target: Target) -> None:
        known = np.flatnonzero(~np.isnan(quality_QT[:, t]) & x_QD.any(axis=1))
        self.seen_[t] = float((~np.isnan(quality_QT[:, t])).sum())
        self.mean_[t] = means(quality_QT)[t]
        group = known[e_max(quality_QT[known], mean_T=self.mean_) == t]
        if len(group):
            self.pilots_ = np.concatenate([self.pilots_, unit(x_QD[group]).mean(axis=0)[None]])
            self.of_, self.sets_ = np.append(self.of_, t), [*self.sets_, f"of {target.name}"]
            self.counts_ = np.append(self.counts_, len(group))

    def remove(self, name: str) -> None:
        """Forget an expert: its pilots go, the others keep their order. Changes this predictor: call it on a copy.

        Raises:
            UnknownName: if it is not known.
            StateError: if it is the only one.
        """
        if name not in self.targets_:
            raise UnknownName("expert", name, self.targets_)
        if len(self.targets_) == 1:
            raise StateError(f"{name} is the only expert; add another before it goes")
        t = self.targets_.index(name)
        stay = self.of_ != t
        self.pilots_, self.counts_ = self.pilots_[stay], self.counts_[stay]
        self.sets_ = [s for s, kept in zip(self.sets_, stay.tolist(), strict=True) if kept]
        self.of_ = self.of_[stay] - (self.of_[stay] > t)
        self.targets_ = [e for e in self.targets_ if e != name]
        self.mean_, self.seen_ = np.delete(self.mean_, t), np.delete(self.seen_, t)
        self.rank_, self.rank_sd_ = self.rank_[:-1], self.rank_sd_[:-1]
        if self.misfit_ is not None:
            self.misfit_ = np.delete(self.misfit_, t)
        if self.costs_ and name in self.costs_["names"]:
            c = self.costs_["names"].index(name)
            rest = [n for n in self.costs_["names"] if n != name]
            kept = {key: np.delete(self.costs_[key], c, axis=0) for key in ("lines", "tilts")}
            self.costs_ = {"names": rest, **kept} if rest else {}


def e_max(quality_QT: Floats, *, mean_T: Floats | None = None) -> NDArray[np.int64]:
    """Return the best expert of each query, (Q,); -1 where nobody was scored. Ties go to the higher mean (None: over these queries), then to the
    first."""
    mean_T = means(quality_QT) if mean_T is None else mean_T
    order = np.argsort(-mean_T, kind="stable")
    known_QT = np.where(np.isnan(quality_QT), -np.inf, quality_QT)[:, order]
    return np.where(np.isfinite(known_QT).any(axis=1), order[known_QT.argmax(axis=1)], -1)


def _falling(mean_T: Floats, weight_T: Floats) -> Floats:
    """Return the non-increasing means nearest to these: what rises is pooled with what stands before."""
    pools: list[tuple[float, float, int]] = []
    for mean, weight in zip(mean_T.tolist(), weight_T.tolist(), strict=True):
        size = 1
        while pools and pools[-1][0] < mean:
            before, heavy, many = pools.pop()
            mean, weight, size = (before * heavy + mean * weight) / (heavy + weight), heavy + weight, size + many
        pools.append((mean, weight, size))
    return np.repeat([p[0] for p in pools], [p[2] for p in pools])
