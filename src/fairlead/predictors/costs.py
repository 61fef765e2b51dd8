"""What one answer of each target will cost and take, from the length of the prompt. Ours, no paper.

    usd = a + b * characters        seconds = c + d * characters        all four >= 0

Fitted per target by least squares; a slope or intercept that comes out negative is set to zero and the other one fitted alone.
Least squares, not a median fit, since what is forecast is the *mean* cost; a few huge prompts are kept from ruling the slope by
clipping lengths at their 99th percentile. For a target without recorded costs the profile's prices are used, with `OUTPUT_TOKENS`
tokens of output assumed; without prices either, the cost is not known and stays None.

A forecast takes about 1 µs.
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
    """Fits and reads rows of five numbers: usd a and b, the standard error of their mean, seconds c and d. NaN: not known."""

    @staticmethod
    def fit(table: OutcomeTable) -> dict[str, Floats]:
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
                out[name] = np.asarray([a, b, sd, c, d])
        return out

    @staticmethod
    def predict(params: Floats | None, characters: float, profile: Profile) -> tuple[float | None, float, float | None]:
        """Return expected USD, the standard deviation of that expectation, and expected seconds. None: not known."""
        a, b, sd, c, d = _NOTHING if params is None else params.tolist()
        usd: float | None
        if a == a:
            usd, usd_sd = a + b * characters, sd
        else:
            tokens = Tokens(input=int(characters / CHARACTERS_PER_TOKEN), output=OUTPUT_TOKENS)
            usd, usd_sd = profile.usd(tokens), 0.0
        seconds: float | None = None
        if c == c:
            seconds = c + d * characters
        elif profile.seconds_per_output_token is not None:
            seconds = (profile.first_token_seconds or 0.0) + profile.seconds_per_output_token * OUTPUT_TOKENS
        return usd, usd_sd, seconds


_NOTHING = (float("nan"),) * 5


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
