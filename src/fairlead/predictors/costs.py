"""What one answer of each target will cost and take, from the length of the whole conversation and what it is about. Ours, no paper.

    usd = (a + b * characters) * tilt        seconds = (c + d * characters) * tilt        output tokens = (e + f * characters) * tilt
    tilt = exp(v . x), between 1/8 and 8, for each of the three

The lines, all six numbers >= 0, are fitted per target by least squares; a slope or intercept that comes out negative is set to zero
and the other one fitted alone. Least squares, not a median fit, since what is forecast is the *mean* cost; a few huge prompts are kept
from ruling the slope by clipping lengths at their 99th percentile. `characters` are those of all messages, since all are sent and
charged; a table's prompts are whole conversations of one message.

What a query is about says more of an answer's length than the query's own length does: v is a ridge regression of the logarithm of what
was taken over the line, on the standardised features x; the line is then scaled so that the forecasts' mean is that of the table.

Where nothing was recorded the profile is used, on an assumption: `CHARACTERS_PER_TOKEN` characters make a token of input, and the
answer has `OUTPUT_TOKENS` tokens. So are joules always, as no line is fitted to them. Without a profile's figure either, the amount is
not known and stays None.

A forecast takes about 10 µs for nine targets.

Shapes: Q queries, T targets, D features; A amounts: usd, seconds, output tokens.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
RIDGE: Final = 100.0
"""Penalty of the tilts."""
_MOST: Final = log(8.0)
_LEAST: Final = 1e-3
"""Least amount, in means: logarithms of amounts near zero would rule the tilt."""


class Taken(NamedTuple):
    """What one answer is expected to take. None: not known."""

    usd: float | None
    usd_sd: float
    """Standard deviation of the expectation."""
    seconds: float | None
    joules: float | None
    output_tokens: float | None


class CostModel:
    """Fits and reads, per target, lines of seven numbers and tilts of three rows.

    A line holds usd a and b, the standard error of their mean, seconds c and d, output tokens e and f. `UNKNOWN` (negative, which no
    fitted number is) stands for what is not known: learned state is finite.
    """

    @staticmethod
    def fit(table: OutcomeTable, x_QD: Floats) -> dict[str, Any]:
        """Return `names`, `lines` (T, 7) and `tilts` (T, A, D) of the targets that have any recorded cost, latency or tokens."""
        size_Q = np.asarray([np.nan if p is None else len(p) for p in table.prompts], dtype=np.float64)
        sized = size_Q[~np.isnan(size_Q)]
        size_Q = np.minimum(size_Q, float(np.quantile(sized, 0.99)) if len(sized) else np.inf)
        names, lines, tilts = [], [], []
        for m, name in enumerate(table.models):
            line, tilt_AD = [], []
            for taken_Q in (table.usd_QM[:, m], table.seconds_QM[:, m], table.output_tokens_QM[:, m]):
                intercept, slope, error = _line(size_Q, taken_Q)
                tilt_D, scale = _tilt(x_QD, intercept + slope * np.where(np.isnan(size_Q), 0.0, size_Q), taken_Q)
                line += [intercept * scale, slope * scale, error]
                tilt_AD.append(tilt_D)
            if max(line) >= 0.0:
                names.append(name)
                lines.append([line[i] for i in (0, 1, 2, 3, 4, 6, 7)])
                tilts.append(tilt_AD)
        if not names:
            return {}
        return {"names": names, "lines": np.asarray(lines), "tilts": np.asarray(tilts)}

    @staticmethod
    def join(state: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        """Return what both know; their targets differ."""
        if not state or not other:
            return state or other
        return {
            "names": [*state["names"], *other["names"]],
            "lines": np.concatenate([state["lines"], other["lines"]]),
            "tilts": np.concatenate([state["tilts"], other["tilts"]]),
        }

    @staticmethod
    def read(state: dict[str, Any], x_D: Floats) -> dict[str, list[float]]:
        """Return the line of each target for a query with features `x_D`."""
        if not state:
            return {}
        tilt_TA = np.exp(np.clip(state["tilts"] @ x_D, -_MOST, _MOST))
        line_T7 = state["lines"] * tilt_TA[:, (0, 0, 0, 1, 1, 2, 2)]
        return dict(zip(state["names"], line_T7.tolist(), strict=True))

    @staticmethod
    def predict(line: list[float] | None, characters: float, profile: Profile) -> Taken:
        """Forecast what an answer to a conversation of that many characters takes."""
        a, b, sd, c, d, e, f = _NOTHING if line is None else line
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


def _tilt(x_QD: Floats, line_Q: Floats, taken_Q: Floats) -> tuple[Floats, float]:
    """Return v of the tilt, (D,), and what the line is to be scaled by."""
    known_Q = ~np.isnan(taken_Q)
    none = np.zeros(x_QD.shape[1])
    mean = float(taken_Q[known_Q].mean()) if known_Q.any() else 0.0
    if not mean > 0.0:
        return none, 1.0
    x, line = x_QD[known_Q], np.maximum(line_Q[known_Q], _LEAST * mean)
    ratio = np.log(np.maximum(taken_Q[known_Q], _LEAST * mean) / line)
    centred = x - x.mean(axis=0)
    tilt_D: Floats = np.linalg.solve(
        centred.T @ centred + RIDGE * np.eye(x.shape[1]), centred.T @ (ratio - ratio.mean())
    )
    tilted = line * np.exp(np.clip(x @ tilt_D, -_MOST, _MOST))
    return tilt_D, float(taken_Q[known_Q].sum() / tilted.sum())
