"""Small nets in numpy: one per fold, trained side by side, each stopped early by the fold it has not seen. Ours, no paper.

Each of the K members leaves out one fold of the queries (equal prompts in one fold). Adam (Kingma and Ba 2014, arXiv 1412.6980) trains
all of them in the same array operations; after each epoch a member's error on its own fold is looked at, and the weights of its best
epoch are kept. Two things follow:

- every query has a score from a net that has not seen it, at no further cost: what `anchor.py` maps to quality;
- serving averages the members, and how they differ says how far the forecast hangs on the training queries (`anchor.jackknife`).

The fold that stops a member also calibrates: an optimism of one number, the epoch, per member.

Shapes: K members, Q queries, B queries of a batch, D features, H hidden units, T targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairlead.predictors.calibration import folds
from fairlead.predictors.statistics import sigmoid

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Params: TypeAlias = dict[str, Singles]
"""Weights by name, each with the members as its first axis."""

MEMBERS = 5
_BATCH = 128
_PATIENCE = 6
"""Epochs without a better one after which training ends, once every member has waited so long."""


class Net(ABC):
    """What a method tells the trainer of its net."""

    @abstractmethod
    def start(self, rng: np.random.Generator, members: int) -> Params:
        """Draw the first weights."""

    @abstractmethod
    def gradient(self, params: Params, x_KBD: Singles, y_KBT: Singles, rng: np.random.Generator) -> Params:
        """Return the gradient of each member's loss on its batch, up to a factor. NaN in `y_KBT` counts for nothing."""

    @abstractmethod
    def score(self, params: Params, x: Singles) -> Singles:
        """Return the scores of every member, (K, Q, T), from features of shape (Q, D) or (K, Q, D)."""

    @abstractmethod
    def error(self, score_QT: Singles, y_QT: Singles) -> float:
        """Return the mean error by which the best epoch is chosen; lower is better."""


def train(
    net: Net, x_QD: Floats, y_QT: Floats, groups_Q: NDArray[np.int64], *, epochs: int, rate: float, seed: int
) -> tuple[Params, Floats]:
    """Return the members' best weights, and the score of every query by the member that has not seen it, (Q, T).

    With fewer than two groups nothing can be held out: then the first weights are returned, untrained.
    """
    rng = np.random.default_rng(seed)
    fold_Q = folds(groups_Q, k=MEMBERS, seed=seed)
    members = int(fold_Q.max()) + 1
    x, y = x_QD.astype(np.float32), y_QT.astype(np.float32)
    params = net.start(rng, members)
    best = {name: value.copy() for name, value in params.items()}
    adam = _Adam(params, rate)
    seen = [np.flatnonzero(fold_Q != k) for k in range(members)]
    held = [np.flatnonzero(fold_Q == k) for k in range(members)]
    size = max(len(rows) for rows in seen)
    score_QT = np.zeros(y_QT.shape)
    lowest, waited = np.full(members, np.inf), np.zeros(members)
    for epoch in range(1 + (epochs if members > 1 else 0)):
        if epoch:
            # Folds differ by a few queries: members with fewer meet some of theirs twice.
            order_KQ = np.stack([np.resize(rng.permutation(rows), size) for rows in seen])
            for at in range(0, size, _BATCH):
                rows_KB = order_KQ[:, at : at + _BATCH]
                adam.step(net.gradient(params, x[rows_KB], y[rows_KB], rng))
        waited += 1
        for k, rows in enumerate(held):
            own = net.score({name: value[k : k + 1] for name, value in params.items()}, x[rows])[0]
            error = net.error(own, y[rows])
            if error < lowest[k] or not epoch:
                lowest[k], waited[k] = error, 0
                score_QT[rows] = own
                for name, value in params.items():
                    best[name][k] = value[k]
        if waited.min() > _PATIENCE:
            break
    return best, score_QT


class Trunk(Net):
    """One hidden layer that all targets share: score = b2 + relu(x w1 + b1) w2, with dropout before and after the layer.

    Args:
        inputs: D.
        hidden: H.
        mean_T: mean of what is forecast, where the outputs start.
        dropout: share of hidden units left out of a training step.
        input_dropout: share of features left out of a training step.
        logistic: whether scores are log-odds, trained on log loss; otherwise they are means, trained on squared error.
    """

    def __init__(
        self, inputs: int, hidden: int, mean_T: Floats, *, dropout: float, input_dropout: float, logistic: bool
    ) -> None:
        self.inputs = inputs
        self.hidden = hidden
        self.mean_T = mean_T
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.logistic = logistic

    def start(self, rng: np.random.Generator, members: int) -> Params:
        """Draw the hidden layer; the outputs start at the mean, whatever the query."""
        d, h, t = self.inputs, self.hidden, len(self.mean_T)
        mean_T = np.log(self.mean_T / (1.0 - self.mean_T)) if self.logistic else self.mean_T
        return {
            "w1": rng.normal(0.0, np.sqrt(2.0 / max(d, 1)), (members, d, h)).astype(np.float32),
            "b1": np.zeros((members, 1, h), dtype=np.float32),
            "w2": np.zeros((members, h, t), dtype=np.float32),
            "b2": np.tile(mean_T.astype(np.float32), (members, 1, 1)),
        }

    def gradient(self, params: Params, x_KBD: Singles, y_KBT: Singles, rng: np.random.Generator) -> Params:
        """Back-propagate; log loss on log-odds and squared error on means have the same gradient."""
        x_KBD = x_KBD * _mask(rng, x_KBD.shape, self.input_dropout)
        h_KBH: Singles = x_KBD @ params["w1"] + params["b1"]
        gate_KBH = (h_KBH > 0.0) * _mask(rng, h_KBH.shape, self.dropout)
        h_KBH *= gate_KBH
        off_KBT = self.off(h_KBH @ params["w2"] + params["b2"], y_KBT)
        back_KBH = (off_KBT @ params["w2"].transpose(0, 2, 1)) * gate_KBH
        return {
            "w1": x_KBD.transpose(0, 2, 1) @ back_KBH,
            "b1": back_KBH.sum(axis=1, keepdims=True),
            "w2": h_KBH.transpose(0, 2, 1) @ off_KBT,
            "b2": off_KBT.sum(axis=1, keepdims=True),
        }

    def off(self, score: Singles, y: Singles) -> Singles:
        """Return the gradient of the loss with respect to the scores; 0 where the outcome is not known."""
        out: Singles = np.where(np.isnan(y), np.float32(0.0), self._mean(score) - y)
        return out

    def score(self, params: Params, x: Singles) -> Singles:
        """Run the net without dropout."""
        return through(params, x)

    def error(self, score_QT: Singles, y_QT: Singles) -> float:
        """Squared error, also where log loss is what is trained on."""
        known = ~np.isnan(y_QT)
        return float(((self._mean(score_QT) - y_QT)[known] ** 2).mean()) if known.any() else 0.0

    def _mean(self, score: Singles) -> Singles:
        return sigmoid(score) if self.logistic else score


def through(params: Params, x: Singles) -> Singles:
    """Return the scores of a `Trunk` with these weights, (K, Q, T)."""
    out: Singles = np.maximum(x @ params["w1"] + params["b1"], 0.0) @ params["w2"] + params["b2"]
    return out


class _Adam:
    """Adam with the usual constants, in place."""

    def __init__(self, params: Params, rate: float) -> None:
        self.params = params
        self.rate = rate
        self.first = {name: np.zeros_like(value) for name, value in params.items()}
        self.second = {name: np.zeros_like(value) for name, value in params.items()}
        self.steps = 0

    def step(self, gradient: Params) -> None:
        self.steps += 1
        rate = np.float32(self.rate * np.sqrt(1.0 - 0.999**self.steps) / (1.0 - 0.9**self.steps))
        for name, g in gradient.items():
            first, second = self.first[name], self.second[name]
            first += np.float32(0.1) * (g - first)
            second += np.float32(0.001) * (g * g - second)
            self.params[name] -= rate * first / (np.sqrt(second) + np.float32(1e-8))


def _mask(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> Singles:
    """Zeros for a share of the entries; the others make up for them."""
    if share <= 0.0:
        return np.ones((1,) * len(shape), dtype=np.float32)
    return (rng.random(shape, dtype=np.float32) >= share) * np.float32(1.0 / (1.0 - share))
