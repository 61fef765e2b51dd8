"""Matrix factorisation with text, learned from battles. Ong et al. 2024 (RouteLLM), arXiv:2406.18665, router `mf`.

    delta_t = w2 . (v_t * W1 x)        P(a beats b) = sigmoid(delta_a - delta_b)
    quality_t = sigmoid(offset_t + ease * easy(x) + apart * (delta_t - mean_t delta))

Every query gives a battle for each two targets, won by the one of higher quality; ties are dropped. The vectors v_t have length one, the
features get Gaussian noise while training, and the loss is log loss, as in the paper. Differs from it:

- battles say nothing of how well a target does, only who does better. `easy`, a ridge forecast of how much better than usual all targets
  do on a query, says the rest; both go through the Rasch model, in which battles have just this form, with slopes and offsets learned on
  held-out queries (`anchor.py`);
- all battles of a query are used at once, exactly; none is drawn;
- the text is what `Features` makes of it, not an embedding of 1,536 numbers, so the inner size is 32, not 128, and x ends with a 1
  (such an embedding is not centred and holds a constant of its own);
- the noise is half a standard deviation of a feature, 0.5 on features of unit variance, where the paper's is 0.1 on such an embedding;
- five nets, each stopped early by queries it has not seen, are averaged (`nets.py`); that takes the place of weight decay. Their
  disagreement makes the spread.

Shapes: K members, Q queries, B queries of a batch, T targets, D features, L inner size, P penalties. A fit of 5,600 x 9 x 200 takes
about 5 s, a forecast about 50 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.predictors import anchor, nets
from fairlead.predictors.anchor import Anchor
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.calibration import Method, folds
from fairlead.predictors.features import Features
from fairlead.predictors.nets import Params, Singles
from fairlead.predictors.statistics import means, sigmoid, unit

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

PENALTIES = tuple(float(v) for v in np.logspace(-1.0, 4.0, 16))
"""Penalties of the ridge that are tried, in units of the mean eigenvalue."""


class MF(Predictor):
    """Forecasts by the product of a vector per target and a linear map of the text.

    Args:
        features: what is read of a query; None: `Features()`.
        size: inner dimension.
        noise: standard deviation of the noise on the features while training.
        rate: step size of Adam.
        epochs: most rounds through the queries.
        seed: of the first weights, the folds and the noise.
        calibration: a further map of the forecasts; they are calibrated on held-out queries without it.
    """

    weights_: Params
    """`w1` (K, D + 1, L), `v` (K, T, L), `w2` (K, 1, L)."""
    easy_: Floats
    """(K, D + 1): how much better than usual targets do, as a linear function of x and 1."""
    anchor_: Anchor
    """How deltas and easiness become quality."""

    def __init__(
        self,
        *,
        features: Features | None = None,
        size: Annotated[int, Meta(ge=1)] = 32,
        noise: Annotated[float, Meta(ge=0.0)] = 0.5,
        rate: Annotated[float, Meta(gt=0.0)] = 3e-4,
        epochs: Annotated[int, Meta(ge=1)] = 60,
        seed: Annotated[int, Meta(ge=0)] = 0,
        calibration: Method = "none",
    ) -> None:
        self.features = features or Features()
        self.size = size
        self.noise = noise
        self.rate = rate
        self.epochs = epochs
        self.seed = seed
        self.calibration = calibration

    def _fit(self, x_QD: Floats, quality_QT: Floats, table: OutcomeTable) -> None:
        z_QD = np.column_stack([x_QD, np.ones(len(x_QD))])
        net = Bilinear(z_QD.shape[1], quality_QT.shape[1], self.size, self.noise)
        self.weights_, delta_QT = nets.train(
            net, z_QD, quality_QT, table.groups, epochs=self.epochs, rate=self.rate, seed=self.seed
        )
        self.easy_, easy_Q = easiness(x_QD, quality_QT, folds(table.groups, k=nets.MEMBERS, seed=self.seed))
        self.anchor_ = anchor.learn(easy_Q, anchor.split(delta_QT)[1], quality_QT)

    def _quality(self, x_D: Floats) -> tuple[Floats, Floats]:
        z_D = np.append(x_D, 1.0)
        delta_KT = deltas(self.weights_, z_D[None].astype(np.float32))[:, 0].astype(np.float64)
        log_odds_KT = anchor.log_odds(self.anchor_, self.easy_ @ z_D, anchor.split(delta_KT)[1])
        return anchor.forecast(self.anchor_, *anchor.jackknife(log_odds_KT), self.unknown_sd)


class Bilinear(nets.Net):
    """The deltas of all targets, trained on battles. `inputs` counts the 1 at the end of x, which gets no noise."""

    def __init__(self, inputs: int, targets: int, size: int, noise: float) -> None:
        self.inputs = inputs
        self.targets = targets
        self.size = size
        self.noise = noise

    def start(self, rng: np.random.Generator, members: int) -> Params:
        """Draw the weights so that deltas are small."""
        scale = 0.1 / np.sqrt(self.inputs)
        return {
            "w1": rng.normal(0.0, scale, (members, self.inputs, self.size)).astype(np.float32),
            "v": rng.normal(size=(members, self.targets, self.size)).astype(np.float32),
            "w2": np.ones((members, 1, self.size), dtype=np.float32),
        }

    def gradient(self, params: Params, x_KBD: Singles, y_KBT: Singles, rng: np.random.Generator) -> Params:
        """Gradient of the log loss of all battles in the batch."""
        noise_KBD = np.float32(self.noise) * rng.standard_normal(x_KBD.shape, dtype=np.float32)
        noise_KBD[..., -1] = 0.0
        x_KBD = np.asarray(x_KBD + noise_KBD, dtype=np.float32)
        v_KTL, length_KT1 = unit(params["v"]), np.linalg.norm(params["v"], axis=2, keepdims=True)
        e_KBL = x_KBD @ params["w1"]
        lost_KBTT = _won(y_KBT) * (1.0 - _beats((e_KBL * params["w2"]) @ v_KTL.transpose(0, 2, 1)))
        by_delta_KBT = lost_KBTT.sum(axis=2) - lost_KBTT.sum(axis=3)
        by_product_KBL = by_delta_KBT @ v_KTL
        by_v_KTL = by_delta_KBT.transpose(0, 2, 1) @ (e_KBL * params["w2"])
        return {
            "w1": x_KBD.transpose(0, 2, 1) @ (by_product_KBL * params["w2"]),
            "v": (by_v_KTL - v_KTL * (by_v_KTL * v_KTL).sum(axis=2, keepdims=True)) / length_KT1,
            "w2": (by_product_KBL * e_KBL).sum(axis=1, keepdims=True),
        }

    def score(self, params: Params, x: Singles) -> Singles:
        """Return the deltas."""
        return deltas(params, x)

    def error(self, score_QT: Singles, y_QT: Singles) -> float:
        """Mean squared error of the chance that the winner wins."""
        won_QTT = _won(y_QT)
        return float((won_QTT * (1.0 - _beats(score_QT)) ** 2).sum() / max(float(won_QTT.sum()), 1.0))


def deltas(params: Params, x: Singles) -> Singles:
    """Return each member's deltas, (K, Q, T), of features with a 1 at their end."""
    return np.asarray(((x @ params["w1"]) * params["w2"]) @ unit(params["v"]).transpose(0, 2, 1), dtype=np.float32)


def easiness(x_QD: Floats, quality_QT: Floats, fold_Q: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Forecast by ridge how much better than usual the targets do on a query.

    Returns:
        Weights of each member, which leaves out one fold, (K, D + 1), and the forecast of each query by the member that left it out, (Q,).
    """
    known_QT = ~np.isnan(quality_QT)
    better_QT = np.where(known_QT, quality_QT - means(quality_QT), 0.0)
    count_Q = known_QT.sum(axis=1)
    y_Q = better_QT.sum(axis=1) / np.maximum(count_Q, 1)
    members = int(fold_Q.max()) + 1
    weights_PKD = np.zeros((len(PENALTIES), members, x_QD.shape[1] + 1))
    held_PQ = np.zeros((len(PENALTIES), len(x_QD)))
    z_QD = np.column_stack([x_QD, np.ones(len(x_QD))])
    for k in range(members):
        seen = (fold_Q != k) & (count_Q > 0)
        if not seen.any():
            continue
        center_D, mean = x_QD[seen].mean(axis=0), y_Q[seen].mean()
        values, vectors = np.linalg.eigh((x_QD[seen] - center_D).T @ (x_QD[seen] - center_D))
        along = vectors.T @ ((x_QD[seen] - center_D).T @ (y_Q[seen] - mean))
        scale = max(float(values.mean()), 1e-12)
        for p, penalty in enumerate(PENALTIES):
            w_D = vectors @ (along / (np.maximum(values, 0.0) + penalty * scale))
            weights_PKD[p, k] = np.append(w_D, mean - center_D @ w_D)
        held_PQ[:, fold_Q == k] = weights_PKD[:, k] @ z_QD[fold_Q == k].T
    best = int((((held_PQ - y_Q) ** 2) @ (count_Q > 0)).argmin())
    return weights_PKD[best], held_PQ[best]


def _won(y: Singles) -> NDArray[np.bool_]:
    """Say which target (last but one axis) did better than which (last axis). Ties and what nobody scored are no battles."""
    return y[..., :, None] > y[..., None, :]


def _beats(delta: NDArray[np.floating]) -> Singles:
    """Return the chance that a target (last but one axis) does better than another (last axis)."""
    return np.asarray(sigmoid(delta[..., :, None] - delta[..., None, :]), dtype=np.float32)
