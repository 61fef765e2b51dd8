"""Quality from a small neural network with strong dropout. After the MLP routers of RouterBench (Hu et al. 2024, arXiv:2403.12031).

    quality = sigmoid(offset + ease * mean_t z + apart * (z - mean_t z))        z = b2 + relu(x w1 + b1) w2

Differs from the paper: one net forecasts all targets and is an average of five, each stopped early by the queries it has not seen
(`nets.py`); it is trained on quality itself, not on who was best, which would throw near-ties away; half the hidden units and a fifth of
the features are left out of each training step; and held-out queries say how far its scores are to be believed (`anchor.py`). The spread
is the members' disagreement.

Shapes: K members, Q queries, T targets, D features, H hidden units. A fit of 5,600 x 200 takes about 3 s, a forecast about 50 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from fairlead.predictors import anchor, nets
from fairlead.predictors.anchor import Anchor
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.nets import Params
from fairlead.predictors.statistics import means

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable


class MLP(Predictor):
    """Forecasts by a neural network with one hidden layer.

    Args:
        features: what is read of a query; None: `Features()`.
        hidden: units of the hidden layer.
        dropout: share of them left out of a training step.
        input_dropout: share of the features left out of a training step.
        rate: step size of Adam.
        epochs: most rounds through the queries.
        seed: of the first weights, the folds and the dropout.
        calibration: a further map of the forecasts; they are calibrated on held-out queries without it.
    """

    weights_: Params
    """`w1` (K, D, H), `b1` (K, 1, H), `w2` (K, H, T), `b2` (K, 1, T)."""
    anchor_: Anchor
    """How scores become quality."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        hidden: Annotated[int, Meta(ge=1)] = 128,
        dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.5,
        input_dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.2,
        rate: Annotated[float, Meta(gt=0.0)] = 1e-3,
        epochs: Annotated[int, Meta(ge=1)] = 60,
        seed: Annotated[int, Meta(ge=0)] = 0,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.hidden = hidden
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.rate = rate
        self.epochs = epochs
        self.seed = seed
        self.calibration = calibration

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        net = nets.Trunk(
            x_QD.shape[1],
            self.hidden,
            means(quality_QT),
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            logistic=True,
        )
        self.weights_, score_QT = nets.train(
            net, x_QD, quality_QT, table.groups, epochs=self.epochs, rate=self.rate, seed=self.seed
        )
        self.anchor_ = anchor.learn(*anchor.split(score_QT), quality_QT)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        score_KT = nets.through(self.weights_, x_D[None].astype(np.float32))[:, 0].astype(np.float64)
        log_odds_KT = anchor.log_odds(self.anchor_, *anchor.split(score_KT))
        return anchor.forecast(self.anchor_, *anchor.jackknife(log_odds_KT), self.unknown_sd)
