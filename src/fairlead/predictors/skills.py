"""Which target has the skills that a query asks for, by counting. Symbolic-MoE (2025, arXiv 2503.05641), its profiles.

A profile keeps, for each target and skill, how often it was right less how often it was wrong (right: a quality of at least one half):

    profile_TS[t, s] += 1 if t was right on a query with skill s, -= 1 if not
    S_t = sum of profile[t, s] over the skills s of the query
    gamma_t = (x_t - min x + 1)^2, normalised;  x_t = sum of profile[t, s] over all s, shifted only if one is negative
    w_t = S_t * gamma_t where S_t > 0, else 0; if no S is positive, of S_t - min S + 1;  gamma_t alone if no skill of the query is known

The paper draws experts with probability ~ w (its text states a softmax, its code this); the plan `recruit` does.

Differs from the paper, where a model names the skills of a query and words are mapped to the nearest known one. Here, without a model, skills are read off
the features: each word (a node of `Nodes`: a word's hash is the same each time, so what is known stays as it is), or each number above, or below, its mean,
or both: what choosing by w does best with on held-out queries. At most `skills` of them are kept, those that tell the targets apart best and better than chance
would: common words would drown the rest. A forecast must be of quality: one rising map for all targets, learned on held-out queries from how easy the skills
are and from w over its sum, so that the order of w is kept. New outcomes are counted as they come; `keep` below 1 lets old ones fade (ours).

Measured on four made-up specialists, right on 90% of their own of four topics and on 50% elsewhere (350 queries to learn from, 250 to try, means of ten
seeds kept for this alone; the plan `recruit` with a vote): recruiting by skill was right on 87% (80% to 93%), at random on 66%, the best one on 57%. With 20%
elsewhere: 90%, 40%, 35%. It fails where skills of general kind drown the telling ones: with words and numbers always counted together it was no
better than at random on most seeds. Without a fit nothing is chosen, and both are counted.

    quality_sd = standard error of so many answers as the best-known skill of the query has

Shapes: Q queries, T targets, D features, B = 2 (D - E) + E traits that may be a skill, S skills. A forecast takes about 75 µs.
Checked in tests/predictors/test_skills.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeAlias

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.predictors import anchor
from fairlead.predictors.anchor import Anchor
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import folds
from fairlead.predictors.nodes import Nodes
from fairlead.predictors.soft_gate import LEAST_SLOPE
from fairlead.predictors.statistics import half_mean, sigmoid, standard_error

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

_TINY: Final = 1e-9
_TWICE: Final = 2
"""A skill must have been seen as often."""
_CHANCE: Final = 4.0
"""A trait that tells nothing has a statistic of 1 on average; a skill must have more than this."""
KINDS: Final = ("words", "numbers", "both")
"""What may be a skill. Words first: numbers that go together count several times, and every query has some, so that they can drown the words."""
_Held: TypeAlias = tuple[float, Floats, Floats]
"""How easy a query held out is forecast, the share of w of each target, (T,), and their quality, (T,)."""
_SLOPES: Final = (1.0, 2.0)
"""How quality follows from how easy the skills are, and from the share of w, before any fit."""


class Skills(Predictor):
    """Forecasts by signed counts of who was right on queries with the same skills.

    Args:
        features: of the query, and its words; None: `Nodes()`.
        skills: how many are kept at a fit, at most. Without a fit all are.
        power: of the competence over all skills; the paper's temperature .5.
        keep: by what all counts are multiplied before a new outcome is counted; 1: nothing is forgotten.
    """

    online: ClassVar[bool] = True
    centre_: Floats
    """Mean of the numbers, (D - E,)."""
    seen_: Floats
    """Queries that this is the mean of, (1,)."""
    chosen_: NDArray[np.int64]
    """Which traits are skills, (S,)."""
    profile_: Floats
    """Right less wrong, (T, S)."""
    count_: Floats
    """Right and wrong, (T, S)."""
    whole_: Floats
    """The same over all queries, with and without skills: right less wrong, and how many, (2, T)."""
    anchor_: Anchor
    """How w becomes quality, one map for all targets."""

    def __init__(
        self,
        *,
        features: Nodes | None = None,
        skills: Annotated[int, Meta(ge=1)] = 200,
        power: Annotated[float, Meta(ge=0.0)] = 2.0,
        keep: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0,
    ) -> None:
        self.features: Nodes = features or Nodes()
        self.skills = skills
        self.power = power
        self.keep = keep

    # ------------------------------------------------------------------------------------------------ the profile

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        fold_Q = folds(table.groups, k=2)
        held: list[_Held] = []
        best = -np.inf
        kind = KINDS[0]
        for tried in KINDS:
            found: list[_Held] = []
            for half in (0, 1):
                train, test = np.flatnonzero(fold_Q != half), np.flatnonzero(fold_Q == half)
                if len(train) and len(test):
                    other = self.copy()
                    other._count(x_QD[train], quality_QT[train], tried)
                    found += [(*other._scores(x_QD[i]), quality_QT[i]) for i in test]
            won = _won(found)
            if won > best + _TINY:
                best, kind, held = won, tried, found
        self._count(x_QD, quality_QT, kind)
        self.anchor_ = _start()
        if held:
            common_Q = np.array([c for c, _, _ in held])
            share_QT, y_QT = np.array([s for _, s, _ in held]), np.array([y for _, _, y in held])
            # As one target: the same map for all, so that the order of w is kept.
            common_N = np.repeat(common_Q, share_QT.shape[1])
            self.anchor_ = anchor.learn(common_N, share_QT.reshape(-1, 1), y_QT.reshape(-1, 1))
            self.anchor_["slope"] = np.maximum(self.anchor_["slope"], (0.0, LEAST_SLOPE))

    def _count(self, x_QD: Floats, quality_QT: Floats, kind: str) -> None:
        """Choose the skills, of one kind, and count."""
        dense_QD = x_QD[:, : -self.features.nodes]
        self.centre_, self.seen_ = dense_QD.mean(axis=0), np.full(1, float(len(x_QD)))
        trait_QB = self._traits(x_QD).astype(np.float64)
        known_QT = (~np.isnan(quality_QT)).astype(np.float64)
        signed_QT = np.where(quality_QT >= 0.5, 1.0, -1.0) * known_QT
        numbers = 2 * len(self.centre_)
        may_B = np.ones(trait_QB.shape[1], dtype=np.bool_)
        may_B[:numbers], may_B[numbers:] = kind != "words", kind != "numbers"
        self.chosen_ = _telling(trait_QB * may_B, signed_QT, known_QT, self.skills)
        skill_QS = trait_QB[:, self.chosen_]
        self.profile_, self.count_ = signed_QT.T @ skill_QS, known_QT.T @ skill_QS
        self.whole_ = np.array([signed_QT.sum(axis=0), known_QT.sum(axis=0)])

    def _traits(self, x: Floats) -> NDArray[np.bool_]:
        """Return what may be a skill, (…, B): numbers above their mean, below it, words. A number that is not known stands at its mean: neither."""
        dense, words = x[..., : -self.features.nodes] - self.centre_, x[..., -self.features.nodes :]
        return np.concatenate([dense > _TINY, dense < -_TINY, words > 0.0], axis=-1)

    def skills_of(self, x_D: Floats) -> NDArray[np.int64]:
        """Return which of the known skills the query with these features asks for, as indices of `chosen_`; empty: none."""
        return np.flatnonzero(self._traits(x_D)[self.chosen_])

    def competence(self) -> Floats:
        """Return gamma, (T,): how good each is over all skills, or over all queries if nothing is a skill; adds up to 1."""
        return competence(self.profile_ if len(self.chosen_) else self.whole_[:1].T, self.power)

    def weights(self, x_D: Floats) -> Floats:
        """Return w, (T,): not negative, and never all zero."""
        return weights(self.profile_[:, self.skills_of(x_D)], self.competence())

    # ------------------------------------------------------------------------------------------------ the forecast

    def _scores(self, x_D: Floats) -> tuple[float, Floats]:
        """Return how easy the query's skills are, in log-odds over all targets, and the share of w of each, (T,)."""
        found = self.skills_of(x_D)
        signed, count = self.whole_ if not len(found) else (self.profile_[:, found], self.count_[:, found])
        ease = float(half_mean((signed.sum() + count.sum()) / 2.0, count.sum()))
        w_T = self.weights(x_D)
        return float(np.log(ease / (1.0 - ease))), w_T / w_T.sum()

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        common, share_T = self._scores(x_D)
        quality_T = sigmoid(anchor.log_odds(self.anchor_, np.asarray(common), share_T))
        count_TF = self.count_[:, self.skills_of(x_D)]
        n_T = count_TF.max(axis=1) if count_TF.shape[1] else self.whole_[1]
        return quality_T, standard_error(quality_T, n_T)

    # ------------------------------------------------------------------------------------------------ one by one

    def _begin(self) -> None:
        dense = self.features.size - self.features.nodes
        traits = 2 * dense + self.features.nodes
        self.centre_, self.seen_ = np.zeros(dense), np.zeros(1)
        self.chosen_ = np.arange(traits)
        self.profile_, self.count_, self.whole_ = np.zeros((0, traits)), np.zeros((0, traits)), np.zeros((2, 0))
        self.anchor_ = _start()

    def _grow(self) -> None:
        row = np.zeros((1, len(self.chosen_)))
        self.profile_, self.count_ = np.concatenate([self.profile_, row]), np.concatenate([self.count_, row])
        self.whole_ = np.column_stack([self.whole_, np.zeros(2)])

    def _update(self, x_D: Floats, t: int, quality: float, weight: float = 1.0) -> None:
        self.decay(self.keep)
        self.seen_ = self.seen_ + weight
        self.centre_ = self.centre_ + (x_D[: -self.features.nodes] - self.centre_) * (weight / self.seen_)
        found, sign = self.skills_of(x_D), 1.0 if quality >= 0.5 else -1.0
        self.profile_[t, found] += sign * weight
        self.count_[t, found] += weight
        self.whole_[:, t] += sign * weight, weight

    def decay(self, keep: float) -> None:
        """Let counts fade to a share `keep` of themselves."""
        self.profile_, self.count_, self.whole_ = self.profile_ * keep, self.count_ * keep, self.whole_ * keep


def competence(profile_TS: Floats, power: float = 2.0) -> Floats:
    """Return gamma of each target, (T,), from its profile: adds up to 1."""
    positive_T = _positive(profile_TS.sum(axis=1)) ** power
    total = float(positive_T.sum())
    out: Floats = positive_T / total if total > 0.0 else np.full(len(positive_T), 1.0 / len(positive_T))
    return out


def weights(profile_TF: Floats, gamma_T: Floats) -> Floats:
    """Return w of each target, (T,), from its profile on the skills of one query (F of them, perhaps none): not negative, and never all zero."""
    if not profile_TF.shape[1]:
        return gamma_T
    s_T = profile_TF.sum(axis=1)
    if (s_T > 0.0).any():
        w_T = np.maximum(s_T, 0.0) * gamma_T
    else:
        w_T = (s_T - s_T.min() + 1.0) * gamma_T
    # Who is good at these skills alone may be the weakest over all: gamma can be 0 for each with S above 0.
    return w_T if w_T.sum() > 0.0 else gamma_T


def _positive(total_T: Floats) -> Floats:
    return total_T - total_T.min() + 1.0 if (total_T < 0.0).any() else total_T


def _telling(trait_QB: Floats, signed_QT: Floats, known_QT: Floats, most: int) -> NDArray[np.int64]:
    """Return the traits that tell targets apart best, in rising order: by how far each target's mean with the trait lies from that without.

    What all targets of a query share is taken out first, where there are several.
    """
    many_Q1 = known_QT.sum(axis=1, keepdims=True)
    shared_Q1 = signed_QT.sum(axis=1, keepdims=True) / np.maximum(many_Q1, 1.0)
    own_QT = (signed_QT - shared_Q1) * known_QT if signed_QT.shape[1] > 1 else signed_QT
    with_BT, n_BT = trait_QB.T @ own_QT, trait_QB.T @ known_QT
    without_BT, m_BT = own_QT.sum(axis=0) - with_BT, known_QT.sum(axis=0) - n_BT
    apart_BT = with_BT / np.maximum(n_BT, 1.0) - without_BT / np.maximum(m_BT, 1.0)
    told_B = (apart_BT**2 * n_BT * m_BT / np.maximum(n_BT + m_BT, 1.0)).sum(axis=1)
    mean_T = own_QT.sum(axis=0) / np.maximum(known_QT.sum(axis=0), 1.0)
    chance = float((((own_QT - mean_T) ** 2) * known_QT).sum() / max(1.0, float((known_QT.sum(axis=1) > 0.0).sum())))
    seen = np.flatnonzero((trait_QB.sum(axis=0) >= _TWICE) & (told_B > _CHANCE * chance))
    best = seen[np.argsort(-told_B[seen], kind="stable")][:most]
    return np.sort(best).astype(np.int64)


def _won(held: list[_Held]) -> float:
    """Return the mean quality of choosing by w."""
    got = np.array([quality_T[int(share_T.argmax())] for _, share_T, quality_T in held])
    got = got[~np.isnan(got)]
    return float(got.mean()) if len(got) else 0.0


def _start() -> Anchor:
    """Return the map before any fit."""
    one = np.ones(1)
    return {"offset": 0.0 * one, "slope": np.asarray(_SLOPES), "count": one, "common": 0.0 * one, "own": 0.5 * one}
