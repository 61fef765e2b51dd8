"""Which mode to answer in, from rewards: a small softmax router trained by group-relative policy gradient. After APO, of A2FM (2025, arXiv 2510.12838).

    pi(m | x) = softmax(w_m . x + b_m)          reward of a rollout in mode m:  r = quality * (1 - p^alpha  if m is not instant, else 1)

p: how often answering at once is right on that query (the mean of its recorded samples). For each query `rho` rollouts are forced into each mode and `gamma` choose freely, by pi
(3 and 3: with three modes the paper's 12); what a rollout brings is one of the recorded samples. Advantages are rewards less the group's mean, over its standard
deviation; where all are alike they are 0, and the query teaches nothing. A rollout moves w as in the policy gradient, by A * (one-hot(m) - pi), times how much likelier
the router takes its mode than its group did: most of a group is forced, and counted alike those rollouts would push on, query after query, where the choice is right already,
over what other queries have to teach. It counts `EXPLORES` at least.

Modes are the targets of the table; `instant` names the lightest (default: the cheapest on average), and costs do not matter otherwise: give the plan `mode`, or an
objective, a weight on dollars for that. Differs from the paper, which trains a 32B model on its own text: the router is linear in features of the query; forced choices
teach too, weighed as said, since masked, as its forced prefixes are, they could never teach the choice (a mode of probability 0.001 stays there); the answers' format is
the table's affair (a malformed answer has quality 0); no clipping and no reference policy, since each rollout is used once. A query of which some mode's quality is not
known teaches nothing.

A forecast must be of quality: one rising map for all modes, learned on held-out queries, takes the logits to it, so that their order, and with it the choice, is that of pi.
So the quality of instant is overstated against that of heavy modes, by what the penalty gave it: use it with ``penalty: 0`` in the plan `mode`.

Shapes: K members, Q queries, T modes, D features, R rollouts of a query, S samples. A fit of 2,000 x 200 takes some seconds, a forecast about 30 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.errors import TableError
from fairlead.predictors import anchor
from fairlead.predictors.anchor import Anchor
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import folds
from fairlead.predictors.features import Features, deviations

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

Ints = NDArray[np.int64]
MEMBERS: Final = 3
"""Routers, each of which has not seen one fold."""
EXPLORES: Final = 0.2
"""What a rollout weighs at least, so that a mode that is hardly ever chosen can be learned."""
LEAST_SLOPE: Final = 0.01
"""Log-odds of quality per unit of logit at least: the map must keep the order."""
_BATCH: Final = 128


class APO(Predictor):
    """Forecasts by a router that was trained on rewards.

    Args:
        features: what is read of a query; None: `Features()`.
        instant: the mode that answers at once; None: the cheapest on average.
        alpha: how sharply the penalty grows with p; infinite would be none, and so is `adaptive` false.
        adaptive: whether heavy modes are penalised on queries that instant solves.
        rho: forced rollouts of each mode.
        gamma: free rollouts.
        rate: step size of the gradient ascent.
        l2: weights shrink by this share of the step.
        epochs: rounds through the queries.
        seed: of the folds and rollouts.
    """

    center_: Floats
    """Mean features, (D,)."""
    scale_: Floats
    """Their deviations, times the root of D, (D,)."""
    weights_: Floats
    """(K, D + 1, T); the last row is the bias."""
    anchor_: Anchor

    def __init__(
        self,
        *,
        features: Features | None = None,
        instant: str | None = None,
        alpha: Annotated[float, Meta(gt=0.0)] = 2.0,
        adaptive: bool = True,
        rho: Annotated[int, Meta(ge=0)] = 3,
        gamma: Annotated[int, Meta(ge=0)] = 3,
        rate: Annotated[float, Meta(gt=0.0)] = 0.5,
        l2: Annotated[float, Meta(ge=0.0)] = 0.02,
        epochs: Annotated[int, Meta(ge=1)] = 20,
        seed: Annotated[int, Meta(ge=0)] = 0,
    ) -> None:
        self.features = features or Features()
        self.instant = instant
        self.alpha = alpha
        self.adaptive = adaptive
        self.rho = rho
        self.gamma = gamma
        self.rate = rate
        self.l2 = l2
        self.epochs = epochs
        self.seed = seed

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        if not self.rho + self.gamma:
            raise TableError("rho and gamma are both 0: without rollouts nothing is learned")
        quality_QTS = table.quality_QMS
        at = self._instant(table)
        known_Q = ~np.isnan(quality_QT).any(axis=1)
        self.center_ = x_QD.mean(axis=0)
        scale_D = deviations(x_QD)
        # So that a query's features have a squared length of 4 on average, however many there are and whatever number of them says nothing.
        self.scale_ = scale_D * np.sqrt(max(1.0, float((x_QD.var(axis=0) / scale_D**2).sum())) / 4.0)
        z_QD = self._scaled(x_QD)
        fold_Q = folds(table.groups, k=MEMBERS, seed=self.seed)
        score_QT = np.zeros(quality_QT.shape)
        members = []
        for k in range(int(fold_Q.max()) + 1):
            rng = np.random.default_rng([self.seed, k])
            rows = np.flatnonzero(known_Q & (fold_Q != k))
            weights_DT = self._ascend(z_QD[rows], quality_QTS[rows], at, rng)
            held = fold_Q == k
            score_QT[held] = z_QD[held] @ weights_DT
            members.append(weights_DT)
        self.weights_ = np.stack(members)
        # As one target: the same map for all modes, so that the order of the logits is kept.
        z_N1, y_N1 = score_QT.reshape(-1, 1), quality_QT.reshape(-1, 1)
        self.anchor_ = anchor.learn(np.zeros(len(z_N1)), z_N1, y_N1)
        self.anchor_["slope"] = np.maximum(self.anchor_["slope"], LEAST_SLOPE)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        logits_KT = self._scaled(x_D) @ self.weights_
        log_odds_KT = anchor.log_odds(self.anchor_, np.zeros(len(logits_KT)), logits_KT)
        return anchor.forecast(self.anchor_, *anchor.jackknife(log_odds_KT), self.unknown_sd)

    def share(self, x_D: Floats) -> Floats:
        """Return pi, the router's own probability of each mode, (T,)."""
        return softmax((self._scaled(x_D) @ self.weights_).mean(axis=0))

    def _scaled(self, x: Floats) -> Floats:
        """Return features as the router reads them, (…, D + 1), with the 1 of the bias."""
        z = (x - self.center_) / self.scale_
        return np.concatenate([z, np.ones((*z.shape[:-1], 1))], axis=-1)

    def _instant(self, table: OutcomeTable) -> int:
        if self.instant is not None:
            if self.instant not in table.models:
                raise TableError(f"the table has no target {self.instant!r} to answer at once")
            return table.models.index(self.instant)
        if np.isnan(table.usd_QM).all(axis=0).any():
            raise TableError("the table has no cost of some mode; name the lightest by `instant`")
        return int(np.nanmean(table.usd_QM, axis=0).argmin())

    def _ascend(self, z_QD: Floats, quality_QTS: Floats, instant: int, rng: np.random.Generator) -> Floats:
        """Return the weights, (D, T)."""
        queries, modes, _ = quality_QTS.shape
        weights_DT = np.zeros((z_QD.shape[1], modes))
        forced_R = np.repeat(np.arange(modes), self.rho)
        p_Q = np.nanmean(quality_QTS[:, instant], axis=1) if queries else np.zeros(0)
        for epoch in range(self.epochs):
            rate = self.rate * (1.0 - epoch / self.epochs)
            order_Q = rng.permutation(queries)
            for start in range(0, queries, _BATCH):
                rows = order_Q[start : start + _BATCH]
                pi_QT = softmax(z_QD[rows] @ weights_DT)
                free_QR = drawn(pi_QT, rng.random((len(rows), self.gamma)))
                mode_QR = np.concatenate([np.tile(forced_R, (len(rows), 1)), free_QR], axis=1)
                said_QR = sampled(quality_QTS[rows], mode_QR, rng)
                reward_QR = said_QR * self._adaptive(p_Q[rows], mode_QR, instant)
                gradient_QT = group_gradients(pi_QT, mode_QR, reward_QR, self._weights(pi_QT, mode_QR))
                # Of the order of one per query, whatever the number of rollouts.
                weights_DT += rate * (z_QD[rows].T @ gradient_QT / len(rows) * modes - self.l2 * weights_DT)
        return weights_DT

    def _weights(self, pi_QT: Floats, mode_QR: Ints) -> Floats:
        """Return how much likelier the router takes the mode of each rollout than its group did, (Q, R)."""
        forced, free = float(self.rho), float(self.gamma)
        group_QT = (forced + free * pi_QT) / (forced * pi_QT.shape[1] + free)
        weight_QR: Floats = np.maximum(np.take_along_axis(pi_QT / group_QT, mode_QR, axis=1), EXPLORES)
        return weight_QR

    def _adaptive(self, p_Q: Floats, mode_QR: Ints, instant: int) -> Floats:
        if not self.adaptive:
            return np.ones(mode_QR.shape)
        return np.where(mode_QR == instant, 1.0, 1.0 - p_Q[:, None] ** self.alpha)


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out: Floats = e / e.sum(axis=-1, keepdims=True)
    return out


def drawn(pi_QT: Floats, u_QR: Floats) -> Ints:
    """Draw modes by their probabilities, (Q, R), from uniform numbers."""
    out: Ints = (u_QR[:, :, None] >= np.cumsum(pi_QT, axis=1)[:, None, :-1]).sum(axis=2)
    return out


def sampled(quality_QTS: Floats, mode_QR: Ints, rng: np.random.Generator) -> Floats:
    """Draw one recorded sample for each rollout, (Q, R); every mode of every query has one."""
    known_QTS = ~np.isnan(quality_QTS)
    # Known ones first, so that the n-th known sample is at n.
    order_QTS = np.argsort(~known_QTS, axis=2, kind="stable")
    q = np.arange(len(mode_QR))[:, None]
    nth_QR = (rng.random(mode_QR.shape) * known_QTS.sum(axis=2)[q, mode_QR]).astype(np.int64)
    out: Floats = quality_QTS[q, mode_QR, order_QTS[q, mode_QR, nth_QR]]
    return out


def group_gradients(pi_QT: Floats, mode_QR: Ints, reward_QR: Floats, weight_QR: Floats | float = 1.0) -> Floats:
    """Return the group-relative policy gradient on the logits of every query, (Q, T); exactly 0 where all rollouts of one brought the same.

    `weight_QR`: what each rollout weighs; `APO` corrects by it for forced choices.
    """
    alike_Q = (reward_QR == reward_QR[:, :1]).all(axis=1)
    apart_QR = reward_QR - reward_QR.mean(axis=1, keepdims=True)
    advantage_QR = np.where(alike_Q[:, None], 0.0, apart_QR / np.where(alike_Q, 1.0, reward_QR.std(axis=1))[:, None])
    advantage_QR = advantage_QR * weight_QR
    taken_QT = np.stack([(advantage_QR * (mode_QR == t)).sum(axis=1) for t in range(pi_QT.shape[1])], axis=1)
    out: Floats = (taken_QT - advantage_QR.sum(axis=1, keepdims=True) * pi_QT) / mode_QR.shape[1]
    return out
