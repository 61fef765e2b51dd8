"""Which way to answer is the cheapest that is likely right, from soft labels. After TableDART (Xing et al. 2025, arXiv 2509.14671).

    loss = KL(t || softmax(z)) + cost_weight * softmax(z / cost_temperature) . c        t = softmax(s / temperature)

s: how well each way (a target of the table: text, image, both …) did on a query; where all failed t is uniform, and where several did well it
shares the weight among them. c: mean cost of each way, over the dearest one's, so that `cost_weight` means the same everywhere. The choice is the way
of the highest z.

Differs from the paper: five small nets, each stopped early by queries it has not seen (`nets.py`), on the features of any signals in place of the
experts' own encoders; `temperature` and `cost_temperature` are not given there and are ours. A forecast must be of quality: one rising map for all ways,
learned on held-out queries, takes z to it, so that the order, and with it the choice, is that of z. So the quality of a cheap way is a little overstated
against that of a dear one, by what `cost_weight` gave it.

Shapes: K members, Q queries, T ways, D features. A fit of 2,000 x 200 takes about 1 s, a forecast about 50 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from msgspec import Meta

from fairlead.errors import TableError
from fairlead.predictors import anchor, nets
from fairlead.predictors.anchor import Anchor
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.features import Features
from fairlead.predictors.nets import Params, Singles

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

LEAST_SLOPE: Final = 0.01
"""Log-odds of quality per unit of z at least: less than one percent of quality, and enough to tell the order."""
Positive = Annotated[float, Meta(gt=0.0)]


class SoftGate(Predictor):
    """Forecasts by a gate that was trained to choose.

    Args:
        features: what is read of a query; None: `Features()`.
        temperature: tau; towards 0 only the ways that did best count.
        cost_weight: lambda; 0: costs do not matter.
        cost_temperature: tau_g.
        costs: of each way, in any unit; None: mean USD in the table.
        hidden: units of the hidden layer.
        rate: step size of Adam.
        epochs: most rounds through the queries.
        seed: of the first weights, the folds and the dropout.
    """

    weights_: Params
    """`w1` (K, D, H), `b1` (K, 1, H), `w2` (K, H, T), `b2` (K, 1, T)."""
    anchor_: Anchor
    """How z becomes quality, one map for all ways."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        temperature: Positive = 0.25,
        cost_weight: Annotated[float, Meta(ge=0.0)] = 0.15,
        cost_temperature: Positive = 1.0,
        costs: dict[str, Annotated[float, Meta(ge=0.0)]] | None = None,
        hidden: Annotated[int, Meta(ge=1)] = 64,
        rate: Positive = 1e-3,
        epochs: Annotated[int, Meta(ge=1)] = 60,
        seed: Annotated[int, Meta(ge=0)] = 0,
    ) -> None:
        self.features = features or Features()
        self.temperature = temperature
        self.cost_weight = cost_weight
        self.cost_temperature = cost_temperature
        self.costs = costs
        self.hidden = hidden
        self.rate = rate
        self.epochs = epochs
        self.seed = seed

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        cost_T = self._costs(table) if self.cost_weight else np.zeros(len(table.models))
        net = Choosing(x_QD.shape[1], self.hidden, cost_T, self.temperature, self.cost_weight, self.cost_temperature)
        self.weights_, score_QT = nets.train(
            net, x_QD, quality_QT, table.groups, epochs=self.epochs, rate=self.rate, seed=self.seed
        )
        # As one target: the same map for all ways, so that the order of z is kept.
        z_N1, y_N1 = score_QT.reshape(-1, 1), quality_QT.reshape(-1, 1)
        self.anchor_ = anchor.learn(np.zeros(len(z_N1)), z_N1, y_N1)
        # Where z says nothing of quality (all ways do alike) it still says which is cheapest: the map must keep the order.
        self.anchor_["slope"] = np.maximum(self.anchor_["slope"], LEAST_SLOPE)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        z_KT = nets.through(self.weights_, x_D[None].astype(np.float32))[:, 0].astype(np.float64)
        log_odds_KT = anchor.log_odds(self.anchor_, np.zeros(len(z_KT)), z_KT)
        return anchor.forecast(self.anchor_, *anchor.jackknife(log_odds_KT), self.unknown_sd)

    def _costs(self, table: OutcomeTable) -> Floats:
        """Return what each way costs over what the dearest does, (T,)."""
        if self.costs is not None:
            if unknown := sorted(set(table.models) - set(self.costs)):
                raise TableError(f"costs says nothing of {', '.join(unknown)}")
            cost_T = np.asarray([self.costs[m] for m in table.models], dtype=np.float64)
        else:
            if np.isnan(table.usd_QM).all(axis=0).any():
                raise TableError("the table has no cost of some way to answer; give `costs`, or `cost_weight: 0`")
            cost_T = np.nanmean(table.usd_QM, axis=0)
        return cost_T / max(float(cost_T.max()), 1e-300)


class Choosing(nets.Trunk):
    """The net and its loss. `cost_T`: from 0 to 1."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        cost_T: Floats,
        temperature: float,
        cost_weight: float,
        cost_temperature: float,
    ) -> None:
        super().__init__(inputs, hidden, np.zeros(len(cost_T)), dropout=0.5, input_dropout=0.2, logistic=False)
        self.cost_T = cost_T.astype(np.float32)
        self.temperature, self.cost_weight, self.cost_temperature = temperature, cost_weight, cost_temperature

    def off(self, score: Singles, y: Singles) -> Singles:
        """softmax(z) - t, and the gradient of the cost. A query counts if all its ways are known."""
        p = softmax(score / np.float32(self.cost_temperature))
        dear = p * (self.cost_T - (p * self.cost_T).sum(axis=-1, keepdims=True))
        out = softmax(score) - soft_target(y, self.temperature) + self.cost_weight / self.cost_temperature * dear
        return np.where(np.isnan(y).any(axis=-1, keepdims=True), 0.0, out).astype(np.float32)

    def error(self, score_QT: Singles, y_QT: Singles) -> float:
        """Return the mean loss."""
        known = ~np.isnan(y_QT).any(axis=-1)
        return loss(score_QT[known], y_QT[known], self) if known.any() else 0.0


def soft_target(quality: Singles, temperature: float) -> Singles:
    """Return t, (…, T); NaN where a quality is."""
    return softmax(quality / np.float32(temperature))


def loss(score_QT: Singles, y_QT: Singles, net: Choosing) -> float:
    """Return the mean of KL and cost over queries."""
    z_QT, t_QT = score_QT.astype(np.float64), soft_target(y_QT, net.temperature).astype(np.float64)
    log_p_QT = z_QT - z_QT.max(axis=-1, keepdims=True)
    log_p_QT -= np.log(np.exp(log_p_QT).sum(axis=-1, keepdims=True))
    kl_Q = (t_QT * (np.log(np.maximum(t_QT, 1e-300)) - log_p_QT)).sum(axis=-1)
    cost_Q = softmax(z_QT.astype(np.float32) / np.float32(net.cost_temperature)) @ net.cost_T
    return float((kl_Q + net.cost_weight * cost_Q).mean())


def softmax(score: Singles) -> Singles:
    """Over the last axis."""
    e = np.exp(score - score.max(axis=-1, keepdims=True))
    out: Singles = e / e.sum(axis=-1, keepdims=True)
    return out
