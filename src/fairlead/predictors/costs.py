"""What one answer of each target will cost and take, from the length of the whole conversation. Ours, no paper.

    usd = a + b * characters        seconds = c + d * characters        output tokens = e + f * characters        all six >= 0

Fitted per target by least squares; a slope or intercept that comes out negative is set to zero and the other one fitted alone.
Least squares, not a median fit, since what is forecast is the *mean* cost; a few huge prompts are kept from ruling the slope by
clipping lengths at their 99th percentile. `characters` are those of all messages, since all are sent and charged; a table's prompts
are whole conversations of one message.

Where nothing was recorded the profile is used, on an assumption: `CHARACTERS_PER_TOKEN` characters make a token of input, and the
answer has `OUTPUT_TOKENS` tokens. So are joules always, as no line is fitted to them. Without a profile's figure either, the amount is
not known and stays None.

A forecast takes about 1 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairlead.types import Profile, Tokens

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

Floats = NDArray[np.float64]

OUTPUT_TOKENS = 200
"""Assumed length of an answer where only the profile is known."""
CHARACTERS_PER_TOKEN = 4
"""Assumed, for the same case."""
UNKNOWN = -1.0


class Taken(NamedTuple):
    """What one answer is expected to take. None: not known."""

    usd: float | None
    usd_sd: float
    """Standard deviation of the expectation."""
    seconds: float | None
    joules: float | None
    output_tokens: float | None


class CostModel:
    """Fits and reads rows of seven numbers: usd a and b, the standard error of their mean, seconds c and d, output tokens e and f.

    `UNKNOWN` (negative, which no fitted number is) stands for what is not known: learned state is finite.
    """

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
            e, f, _ = _line(size_Q, table.output_tokens_QMS[:, m, 0])
            if max(a, c, e) >= 0.0:
                out[name] = np.asarray([a, b, sd, c, d, e, f])
        return out

    @staticmethod
    def predict(params: Floats | None, characters: float, profile: Profile) -> Taken:
        """Forecast what an answer to a conversation of that many characters takes."""
        a, b, sd, c, d, e, f = _NOTHING if params is None else params.tolist()
        written = e + f * characters if e >= 0.0 else None
        tokens = Tokens(
            input=int(characters / CHARACTERS_PER_TOKEN), output=OUTPUT_TOKENS if written is None else int(written)
        )
        usd: float | None
        if a >= 0.0:
            usd, usd_sd = a + b * characters, sd
        else:
            usd, usd_sd = profile.usd(tokens), 0.0
        seconds: float | None = None
        if c >= 0.0:
            seconds = c + d * characters
        elif profile.seconds_per_output_token is not None:
            seconds = (profile.first_token_seconds or 0.0) + profile.seconds_per_output_token * tokens.output
        each = profile.joules_per_token
        joules = None if each is None else each * (tokens.input + tokens.output)
        return Taken(usd, usd_sd, seconds, joules, written)


_NOTHING = (UNKNOWN,) * 7


def _line(size_Q: Floats, value_Q: Floats) -> tuple[float, float, float]:
    """Intercept and slope, both >= 0, and the standard error of the mean; `UNKNOWN` where nothing is recorded."""
    known = ~np.isnan(value_Q)
    if not known.any():
        return UNKNOWN, UNKNOWN, UNKNOWN
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
