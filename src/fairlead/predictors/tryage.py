"""Forecast losses of a perceptive router, kept right by what is observed. Hari & Thomson 2023 (Tryage), arXiv:2308.11601.

    loss_t = b2 + relu(x w1 + b1) w2        trained on L_t = log((floor + (1 - floor) q_t)) / log(floor), by squared error
    quality_t = sigmoid(offset_t + ease * mean_t(-loss) + apart * own_t(-loss)) + bias_t
    bias_t = sum of (observed quality - forecast) / (number observed + weight_t)

A small trunk that all targets share, with one output for the loss of each, as the thalamus gates the cortex. L is log loss put on the
scale 0 (right) to 1 (wrong), so that for answers that are right or wrong it is 1 - q. What the user adds to the loss (size, recency,
price) is the policy's business, here as with every predictor. Differs from the paper:

- the trunk is one hidden layer on `Features`, not a transformer; it is an average of five, each stopped early by queries it has not seen
  (`nets.py`), and its losses are turned into quality by a map learned on held-out queries (`anchor.py`);
- the additive bias per target is learned from outcomes as they come, from the first one on. A target that the fit has not seen has no
  head: its forecast is the running mean of what was observed, whatever the query.

The spread is the members' disagreement and the standard error of the bias.

Shapes: K members, Q queries, T targets, S of them known to the fit, D features, H hidden units. A fit of 5,600 x 200 takes 1 to 2 s, a
forecast about 50 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from msgspec import Meta

from fairlead.errors import ConfigError
from fairlead.predictors import anchor, nets
from fairlead.predictors.anchor import Anchor
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method
from fairlead.predictors.features import Features
from fairlead.predictors.nets import Params
from fairlead.predictors.statistics import means, standard_error

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable


class Tryage(Predictor):
    """Forecasts each target's loss by a small shared trunk, with a bias learned online.

    Args:
        features: what is read of a query; None: `Features()`.
        hidden: units of the trunk.
        dropout: share of them left out of a training step.
        input_dropout: share of the features left out of a training step.
        floor: the least quality whose logarithm is told apart, in (0, 1).
        pull: how many observed answers the fit's forecast of a target is worth, against the bias.
        rate: step size of Adam.
        epochs: most rounds through the queries.
        seed: of the first weights, the folds and the dropout.
        calibration: a further map of the forecasts; they are calibrated on held-out queries without it.
    """

    online: ClassVar[bool] = True
    weights_: Params
    """The trunk: `w1` (K, D, H), `b1` (K, 1, H), `w2` (K, H, S), `b2` (K, 1, S). Empty without a fit."""
    anchor_: Anchor
    """How losses become quality. Empty without a fit."""
    off_: Floats
    """Sum of observed quality less forecast, (T,)."""
    seen_: Floats
    """Answers observed, (T,)."""
    weight_: Floats
    """What the forecast without bias is worth, in answers, (T,)."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        hidden: Annotated[int, Meta(ge=1)] = 32,
        dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.2,
        input_dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.2,
        floor: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.05,
        pull: Annotated[float, Meta(gt=0.0)] = 50.0,
        rate: Annotated[float, Meta(gt=0.0)] = 1e-3,
        epochs: Annotated[int, Meta(ge=1)] = 60,
        seed: Annotated[int, Meta(ge=0)] = 0,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.hidden = hidden
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.floor = floor
        self.pull = pull
        self.rate = rate
        self.epochs = epochs
        self.seed = seed
        self.calibration = calibration

    def check(self) -> None:
        """Raise `ConfigError` if `floor` has no logarithm between 0 and 1's."""
        super().check()
        if not 0.0 < self.floor < 1.0:
            raise ConfigError(f"`floor` must lie between 0 and 1, not {self.floor}")

    def losses(self, x_D: Floats) -> Floats:
        """Return the forecast loss of each target known to the fit, (S,), before map and bias; 0 right, 1 wrong."""
        return np.asarray(self._scores(x_D).mean(axis=0))

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        self._begin()
        loss_QT = np.log(self.floor + (1.0 - self.floor) * quality_QT) / np.log(self.floor)
        net = nets.Trunk(
            x_QD.shape[1],
            self.hidden,
            means(loss_QT),
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            logistic=False,
        )
        self.weights_, held_QT = nets.train(
            net, x_QD, loss_QT, table.groups, epochs=self.epochs, rate=self.rate, seed=self.seed
        )
        self.anchor_ = anchor.learn(*anchor.split(-held_QT), quality_QT)
        targets = quality_QT.shape[1]
        self.off_, self.seen_, self.weight_ = np.zeros(targets), np.zeros(targets), np.full(targets, self.pull)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        quality_T, sd_S = self._unbiased(x_D)
        total_T = self.seen_ + self.weight_
        quality_T = np.clip(quality_T + self.off_ / total_T, 0.0, 1.0)
        sd_T = standard_error(quality_T, self.seen_)
        # Of a target that was fitted, the bias is 0 until an answer says otherwise, and has no error of its own till then.
        s = len(sd_S)
        bias_variance_S = standard_error(quality_T[:s], total_T[:s]) ** 2 * self.seen_[:s] / total_T[:s]
        sd_T[:s] = np.sqrt(sd_S**2 + bias_variance_S)
        return quality_T, np.minimum(sd_T, self.unknown_sd)

    def _unbiased(self, x_D: Floats) -> tuple[Floats, Floats]:
        """Return the forecast before the bias, (T,), and its spread for the targets known to the fit, (S,)."""
        if not self.weights_:
            return np.full(len(self.off_), 0.5), np.zeros(0)
        log_odds_KS = anchor.log_odds(self.anchor_, *anchor.split(-self._scores(x_D)))
        quality_S, sd_S = anchor.forecast(self.anchor_, *anchor.jackknife(log_odds_KS), self.unknown_sd)
        return np.append(quality_S, np.full(len(self.off_) - len(quality_S), 0.5)), sd_S

    def _scores(self, x_D: Floats) -> Floats:
        """Return each member's losses, (K, S)."""
        return nets.through(self.weights_, x_D[None].astype(np.float32))[:, 0].astype(np.float64)

    def _begin(self) -> None:
        self.weights_, self.anchor_ = {}, {}
        self.off_, self.seen_, self.weight_ = np.zeros(0), np.zeros(0), np.zeros(0)

    def _grow(self) -> None:
        self.off_, self.seen_ = np.append(self.off_, 0.0), np.append(self.seen_, 0.0)
        self.weight_ = np.append(self.weight_, 1.0)

    def _update(self, x_D: Floats, t: int, quality: float, weight: float = 1.0) -> None:
        self.off_[t] += weight * (quality - self._unbiased(x_D)[0][t])
        self.seen_[t] += weight

    def decay(self, keep: float) -> None:
        """Weigh all outcomes observed since the fit by `keep`."""
        self.off_, self.seen_ = self.off_ * keep, self.seen_ * keep
