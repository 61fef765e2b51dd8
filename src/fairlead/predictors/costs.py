"""What one answer of each target will cost and take, from the length of the prompt and what kind of prompt it is. Ours, no paper.

    usd = a + b * characters + (x - mean_x) . w        seconds = c + d * characters        a, b, c, d >= 0

The length alone misses that some kinds of prompts draw long answers, so the rest is fitted on the features x by ridge regression; its
penalty is chosen per target by leave-one-out error, among them one so heavy that nothing is left of w. A forecast is kept between a
tenth of the lowest and the highest recorded cost.

Fitted per target by least squares; a slope or intercept that comes out negative is set to zero and the other one fitted alone.
Least squares, not a median fit, since what is forecast is the *mean* cost; a few huge prompts are kept from ruling the slope by
clipping lengths at their 99th percentile. For a target without recorded costs the profile's prices are used, with `OUTPUT_TOKENS`
tokens of output assumed; without prices either, the cost is not known and stays None.

Shapes: Q queries, D features. A forecast takes about 3 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairlead.types import Profile, Tokens

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

Floats = NDArray[np.float64]

OUTPUT_TOKENS = 200
"""Assumed length of an answer where only prices are known."""
CHARACTERS_PER_TOKEN = 4


class CostModel:
    """Fits and reads one row per target: usd a and b, the standard error of their mean, lowest and highest usd, seconds c and d, then
    w (D,) and mean_x (D,) if it was fitted on features. NaN: not known."""

    @staticmethod
    def fit(table: OutcomeTable, x_QD: Floats | None = None) -> dict[str, Floats]:
        """Return one row of parameters per target that has any recorded cost or latency."""
        size_Q = np.asarray([np.nan if p is None else len(p) for p in table.prompts], dtype=np.float64)
        sized = size_Q[~np.isnan(size_Q)]
        clip = float(np.quantile(sized, 0.99)) if len(sized) else np.inf
        size_Q = np.minimum(size_Q, clip)
        out = {}
        for m, name in enumerate(table.models):
            a, b, sd = _line(size_Q, table.usd_QM[:, m])
            c, d, _ = _line(size_Q, table.seconds_QM[:, m])
            if not (np.isnan(a) and np.isnan(c)):
                usd_Q = table.usd_QM[:, m]
                known = ~np.isnan(usd_Q)
                low, high = (0.1 * usd_Q[known].min(), usd_Q[known].max()) if known.any() else (np.nan, np.nan)
                row = np.asarray([a, b, sd, low, high, c, d])
                if x_QD is not None and known.any():
                    size = np.where(np.isnan(size_Q[known]), 0.0, size_Q[known])
                    w_D, left = _rest(x_QD[known] - x_QD.mean(axis=0), usd_Q[known] - a - b * size)
                    row[2] = left / np.sqrt(known.sum())
                    row = np.concatenate([row, w_D, x_QD.mean(axis=0)])
                out[name] = row
        return out

    @staticmethod
    def predict(
        params: Floats | None, characters: float, profile: Profile, x_D: Floats | None = None
    ) -> tuple[float | None, float, float | None]:
        """Return expected USD, the standard deviation of that expectation, and expected seconds. None: not known."""
        a, b, sd, low, high, c, d = _NOTHING if params is None else params[:7].tolist()
        usd: float | None
        if a == a:
            usd, usd_sd = a + b * characters, sd
            if params is not None and x_D is not None and len(params) == 7 + 2 * len(x_D):
                n = len(x_D)
                usd = min(max(usd + float((x_D - params[7 + n :]) @ params[7 : 7 + n]), low), high)
        else:
            tokens = Tokens(input=int(characters / CHARACTERS_PER_TOKEN), output=OUTPUT_TOKENS)
            usd, usd_sd = profile.usd(tokens), 0.0
        seconds: float | None = None
        if c == c:
            seconds = c + d * characters
        elif profile.seconds_per_output_token is not None:
            seconds = (profile.first_token_seconds or 0.0) + profile.seconds_per_output_token * OUTPUT_TOKENS
        return usd, usd_sd, seconds


_NOTHING = (float("nan"),) * 7


def _line(size_Q: Floats, value_Q: Floats) -> tuple[float, float, float]:
    """Intercept and slope, both >= 0, and the standard error of the mean; NaN where nothing is recorded."""
    known = ~np.isnan(value_Q)
    if not known.any():
        return float("nan"), float("nan"), float("nan")
    y = value_Q[known]
    x = np.where(np.isnan(size_Q[known]), 0.0, size_Q[known])
    mean_x, mean_y = float(x.mean()), float(y.mean())
    spread = float(((x - mean_x) ** 2).sum())
    slope = float(((x - mean_x) * (y - mean_y)).sum() / spread) if spread > 0.0 else 0.0
    intercept = mean_y - slope * mean_x
    if slope < 0.0:
        intercept, slope = mean_y, 0.0
    elif intercept < 0.0:
        intercept, slope = 0.0, mean_y / mean_x
    residual = y - intercept - slope * x
    return intercept, slope, float(np.sqrt((residual**2).mean() / len(y)))


_PENALTIES = np.logspace(-1.0, 7.0, 17)


def _rest(z_QD: Floats, rest_Q: Floats) -> tuple[Floats, float]:
    """Ridge weights of what the length leaves over, and the standard deviation of what even they leave."""
    values, vectors = np.linalg.eigh(z_QD.T @ z_QD)
    values = np.maximum(values, 0.0)
    p = z_QD @ vectors
    c, squared = p.T @ rest_Q, p * p
    best, weights, left = np.inf, np.zeros(len(values)), float(rest_Q.std())
    for penalty in _PENALTIES * max(float(values.mean()), 1e-12):
        shrink = 1.0 / (values + penalty)
        residual = rest_Q - p @ (shrink * c)
        error = float(((residual / np.maximum(1.0 - squared @ shrink, 1e-6)) ** 2).sum())
        if error < best:
            best, weights, left = error, vectors @ (shrink * c), float(residual.std())
    return weights, left
