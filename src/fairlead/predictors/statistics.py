"""Small sums that many predictors share, so that each idea has one place: means that start at one half, how far such a mean may be off,
means pulled towards what is known elsewhere, the logistic function, and vectors of length one. Textbook, no paper.

Shapes: any; Q queries, T targets.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Real = TypeVar("Real", bound=np.floating)


def half_mean(total: ArrayLike, count: ArrayLike) -> Floats:
    """Return the mean of `count` qualities that add up to `total`, with one more answer, half right, counted in: never 0 or 1.

    So one bad answer does not damn a target, and one without answers stands at one half.
    """
    out: Floats = (np.asarray(total) + 0.5) / (np.asarray(count) + 1.0)
    return out


def means(quality_QT: Floats) -> Floats:
    """Return the `half_mean` of each target, (T,), of what was scored. NaN is not counted."""
    known_QT = ~np.isnan(quality_QT)
    return half_mean(np.where(known_QT, quality_QT, 0.0).sum(axis=0), known_QT.sum(axis=0))


def standard_error(mean_T: Floats, count_T: Floats) -> Floats:
    """Return the standard deviation of means of `count_T` values in [0, 1]: at most sqrt(m (1 - m) / (n + 1)), never zero."""
    m_T = half_mean(np.clip(mean_T, 0.0, 1.0) * count_T, count_T)
    out: Floats = np.sqrt(m_T * (1.0 - m_T) / (count_T + 1.0))
    return out


def pulled(total: Floats, count: NDArray[Any], towards: Floats, pull: float) -> Floats:
    """Return means of `count` answers that add up to `total`, with `pull` answers more at `towards`; that alone where there is none."""
    weight = count + pull
    out: Floats = np.where(weight > 0.0, (total + pull * towards) / np.maximum(weight, 1e-9), towards)
    return out


def sigmoid(x: NDArray[Real]) -> NDArray[Real]:
    """Return 1 / (1 + exp(-x)), in the precision of `x`."""
    # Written so, nothing overflows, and it takes half the time of clipping first.
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), dtype=x.dtype)


def unit(x: NDArray[Real]) -> NDArray[Real]:
    """Scale each row (last axis) to length one, in the precision of `x`; rows of zeros stay."""
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return np.asarray(x / np.maximum(length, 1e-12), dtype=x.dtype)
