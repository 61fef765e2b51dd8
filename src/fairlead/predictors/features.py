"""Readings -> one row of numbers. Ours, no paper. About 8 µs for 20 columns and a 128-dimensional embedding; 40 µs with a bag.

The layout (which column is what) is learned once and then fixed, in the order: for each signal its value and its parts by name,
then the vectors, then the bias. Columns are of four kinds:

    flag      a truth value: 0 or 1
    count     a whole number: sign(x) log(1 + |x|)
    number    any other number: sign(x) log(1 + |x|), which hardly bends what lies in [0, 1]
    category  a string: one column for each of the most frequent values seen

Bags of counted features (`signals/ngrams.py`) are projected to `project` numbers. `fit` trains the projection on the queries of the
table (latent semantic analysis, Deerwester et al. 1990): logarithms of counts, weighed by how rare a feature is, each block of a bag
scaled to length 1, and the leading singular vectors of all that. A quarter as many as there are queries at most. Before a fit the
projection is the fixed one of the embedding `hashing`.

`fit` then standardises the columns, and scales each vector as a whole (all its numbers by one factor, so that its geometry stays)
to the total variance of all other columns together: neither block drowns the other, in a distance or under a ridge. `begin` fixes
the layout from a single reading, for policies that learn from the first query on; there is nothing to standardise by, so counts
are divided by `COUNT_SCALE` and the rest is left as it is.

Shapes: Q queries, C columns before the vectors, D features in all; of a bag N features of one query, B known ones, P projected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import log1p
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairlead.component import Component
from fairlead.embeddings.hashing import signs
from fairlead.errors import NotFitted, StateError, TableError
from fairlead.signals.ngrams import BLOCK, BLOCKS, counts
from fairlead.types import Reading, Scalar, Signals

COUNT_SCALE: Final = 8.0
"""log(1 + 3,000) is about 8: counts up to some thousands come to lie in [0, 1]."""
_TINY: Final = 1e-9
_HUGE: Final = 10**300
"""Larger counts are unknown: they may not fit a float."""
_BEGIN: Final = 128
"""Width of the fixed projection of a bag."""
_NO_READING: Final = Reading()
_NO_PARTS: Final[dict[str, bool | int | float | str]] = {}
_WEIGHTS: Final = (1.0, 0.5)
"""What words and trigrams weigh in it, as in `hashing`."""

Floats = NDArray[np.float64]


_Group: TypeAlias = tuple[str, bool, tuple[str, ...], list[tuple[float, float, float, str]]]
"""A signal, whether its value is a column, its parts that are, and for each what a 0 comes to, mean, scale, kind."""


class Features(Component):
    """Turns the readings of a query into a row of D numbers.

    Args:
        signals: names of the signals to use. `length` is always needed, for `characters`.
        scale: whether `fit` standardises; if not, the scales are those of `begin`.
        bias: whether the last feature is a constant 1.
        categories: how many values of one string signal get a column, most frequent first (ties by name).
        project: width to which `fit` projects a bag.

    A signal that was not read, a number that is not there, a vector of confidence 0 (its embedder failed, or there was no text) or an
    empty bag counts as its mean. A string that has no column, or None, is none of the categories: 0 in each of their columns.
    """

    family: ClassVar[str] = "features"

    layout_: list[list[Any]]
    """[signal, part, kind, categories] for each column or group of columns."""
    vectors_: list[list[Any]]
    """[signal, size] for each vector, projected bags included."""
    bags_: dict[str, dict[str, Any]]
    """For each signal that is a bag: `rare` (B,), the weight of each feature, and `matrix` (B, P). Empty: the fixed projection."""
    means_: Floats
    scales_: Floats
    __slots__ = ("_plain",)
    _plain: tuple[list[list[Any]], Floats, Floats, list[_Group] | None]
    """Of the layout as it is: see `_numbers`. No part of the state."""

    def __init__(
        self,
        *,
        signals: tuple[str, ...] = ("ngrams", "style", "length", "marks"),
        scale: bool = True,
        bias: bool = False,
        categories: int = 32,
        project: int = 64,
    ) -> None:
        self.signals = signals
        self.scale = scale
        self.bias = bias
        self.categories = categories
        self.project = project

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the signals that `read` and `characters` read."""
        return tuple(dict.fromkeys((*self.signals, "length")))

    @property
    def fitted(self) -> bool:
        """Whether there is a layout, by `fit`, `begin` or `load`."""
        return "means_" in vars(self)

    @property
    def size(self) -> int:
        """D, the number of features, bias included.

        Raises:
            NotFitted: before `fit` or `begin`.
        """
        self._check_fitted()
        return len(self.means_) + self.bias

    def fit(self, signals: Sequence[Signals]) -> None:
        """Learn the layout and the scales from the readings of many queries.

        Raises:
            TableError: if there are none, if one of the signals was never read, or if a vector changes its size.
        """
        self._lay_out(signals, fit=True)
        if not self.scale:
            return
        x_QD = self._raw_all(signals)
        known_QD = np.isfinite(x_QD)
        n_D = np.maximum(known_QD.sum(axis=0), 1)
        x_QD = np.where(known_QD, x_QD, 0.0)
        means_D = x_QD.sum(axis=0) / n_D
        var_D = (np.where(known_QD, x_QD - means_D, 0.0) ** 2).sum(axis=0) / n_D
        # A column that never changed keeps its unit: it is centred, and has nothing to be scaled by.
        scales_D = np.where(var_D > _TINY, np.sqrt(var_D), 1.0)
        c = self._columns()
        others = int((var_D[:c] > _TINY).sum())
        at = c
        for _, size in self.vectors_:
            total = float(var_D[at : at + size].sum())
            scales_D[at : at + size] = math.sqrt(total / (others or size)) if total > _TINY else 1.0
            at += size
        self.means_, self.scales_ = means_D, scales_D

    def begin(self, signals: Signals) -> None:
        """Fix the layout from one reading, with means of 0 and fixed scales.

        Strings are left out, since one reading does not show which others there may be.

        Raises:
            TableError: if one of the signals was not read.
        """
        self._lay_out([signals], fit=False)

    def read(self, signals: Signals) -> Floats:
        """Return the features of one query, shape (D,).

        Raises:
            NotFitted: before `fit` or `begin`.
            StateError: if a vector is not of the size it had then.
        """
        self._check_fitted()
        if not self.vectors_ and (groups := self._numbers()) is not None:
            return self._read_numbers(groups, signals)
        row, blocks_B = self._row(signals), self._blocks(signals)
        # Into an array that has room for its bias: `numpy.append` would cost as much as the rest.
        size = len(self.means_)
        x_D = np.empty(size + self.bias)
        x_D[size:] = 1.0
        known_D = x_D[:size]
        np.subtract(np.concatenate([np.array(row, np.float64), *blocks_B]), self.means_, out=known_D)
        known_D /= self.scales_
        known_D[np.isnan(known_D)] = 0.0
        return x_D

    def _numbers(self) -> list[_Group] | None:
        """Return the columns, signal by signal, if they are numbers only; None if there are categories."""
        try:
            layout, means, scales, groups = self._plain
        except AttributeError:  # a slot that is not filled yet
            pass
        else:
            if layout is self.layout_ and means is self.means_ and scales is self.scales_:
                return groups
        groups = None
        if len(set(self.signals)) == len(self.signals) and not any(
            kind == "category" for _, _, kind, _ in self.layout_
        ):
            groups = []
            at = 0
            for name, columns in groupby(self.layout_, key=lambda column: column[0]):
                parts, kinds = zip(*((part, kind) for _, part, kind, _ in columns), strict=True)
                mean_D, scale_D = self.means_[at : at + len(parts)], self.scales_[at : at + len(parts)]
                scaled = zip(((0.0 - mean_D) / scale_D).tolist(), mean_D.tolist(), scale_D.tolist(), kinds, strict=True)
                groups.append((name, parts[0] == "", parts[parts[0] == "" :], list(scaled)))
                at += len(parts)
        self._plain = (self.layout_, self.means_, self.scales_, groups)
        return groups

    def _read_numbers(self, groups: list[_Group], signals: Signals) -> Floats:
        """Read a few numbers, as `_row` and the arrays below would: an array is not worth its calls."""
        x: list[float] = []
        for name, whole, parts, columns in groups:
            reading = signals.readings.get(name, _NO_READING)
            values = list(map(reading.parts.get, parts))
            if whole:
                values.insert(0, reading.value)
            x += [
                none  # most are marks that are not there, and counts
                if value is False
                else (log1p(value) - mean) / scale
                if value.__class__ is int and 0 <= value < _HUGE and kind != "flag"
                else _scaled(_number(value, kind), mean, scale)
                for value, (none, mean, scale, kind) in zip(values, columns, strict=True)
            ]
        if self.bias:
            x.append(1.0)
        return np.array(x)

    def read_all(self, signals: Sequence[Signals]) -> Floats:
        """Return the features of many queries, shape (Q, D); errors as in `read`."""
        self._check_fitted()
        x_QD = (self._raw_all(signals) - self.means_) / self.scales_
        x_QD[np.isnan(x_QD)] = 0.0
        return np.hstack([x_QD, np.ones((len(x_QD), 1))]) if self.bias else x_QD

    @staticmethod
    def characters(signals: Signals) -> float:
        """Return the characters of all messages, for cost models; 0 if `length` was not read."""
        value = signals.get("length.characters_all")
        return float(value) if isinstance(value, int | float) else 0.0

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise NotFitted("the features have no layout yet; call fit(signals), or begin(signals) to learn online")

    def _lay_out(self, signals: Sequence[Signals], *, fit: bool) -> None:
        if not signals:
            raise TableError("features need the readings of at least one query; observe some queries first")
        layout: list[list[Any]] = []
        vectors: list[list[Any]] = []
        self.bags_ = {}
        for name in self.signals:
            readings = [s.readings[name] for s in signals if name in s.readings]
            if not readings:
                raise TableError(
                    f"no query has a reading of the signal {name!r}; observe it, or leave it out of signals"
                )
            values: dict[str, list[Scalar]] = {"": [r.value for r in readings]}
            for part in sorted({p for r in readings for p in r.parts}):
                values[part] = [r.parts.get(part) for r in readings]
            for part, seen in values.items():
                kind, categories = _kind(seen, self.categories if fit else 0)
                if kind != "category" or categories:
                    layout.append([name, part, kind, categories])
            sizes = {len(r.vector) // 4 for r in readings if r.vector}
            if len(sizes) > 1:
                raise TableError(f"the vectors of {name!r} differ in size: {sorted(sizes)}; embed all queries alike")
            vectors += [[name, size] for size in sizes]
            # A bag that is empty in the one reading of `begin` has its block: the queries to come will have text.
            if any(r.bag for r in readings) or (not fit and readings[0].bag is not None):
                self.bags_[name] = _trained([r.bag or b"" for r in readings], self.project) if fit else {}
                vectors.append([name, self.bags_[name]["matrix"].shape[1] if fit else _BEGIN])
        self.layout_, self.vectors_ = [e for e in layout if e[2] != "none"], vectors
        d = self._columns() + sum(size for _, size in vectors)
        self.means_, self.scales_ = np.zeros(d), np.ones(d)
        at = 0
        for _, _, kind, categories in self.layout_:
            self.scales_[at] = COUNT_SCALE if kind == "count" else 1.0
            at += len(categories) if kind == "category" else 1

    def _columns(self) -> int:
        return sum(len(categories) if kind == "category" else 1 for _, _, kind, categories in self.layout_)

    def _raw(self, signals: Signals) -> Floats:
        """Return the row before centring and scaling, NaN where nothing is known, shape (C + vectors,)."""
        return np.concatenate([np.array(self._row(signals), np.float64), *self._blocks(signals)])

    def _row(self, signals: Signals) -> list[float]:
        """Return its columns before the vectors."""
        readings = signals.readings
        row: list[float] = []
        last, reading, parts = None, None, _NO_PARTS
        for name, part, kind, categories in self.layout_:
            if name is not last:  # columns stand signal by signal
                last, reading = name, readings.get(name)
                parts = _NO_PARTS if reading is None else reading.parts
            value = parts.get(part) if part else None if reading is None else reading.value
            if kind == "category":
                row += [math.nan] * len(categories) if reading is None else [float(value == c) for c in categories]
            elif value.__class__ is int and 0 <= value < _HUGE:  # most are counts
                row.append(log1p(value) if kind != "flag" else float(bool(value)))
            elif value.__class__ is bool:
                row.append(float(value) if kind == "flag" else log1p(value))
            else:
                row.append(_number(value, kind))
        return row

    def _blocks(self, signals: Signals) -> list[Floats]:
        """Return its vectors."""
        blocks = []
        for name, size in self.vectors_:
            reading = signals.readings.get(name)
            blocks.append(_projected(reading, self.bags_[name]) if name in self.bags_ else _vector(reading, name, size))
        return blocks

    def _raw_all(self, signals: Sequence[Signals]) -> Floats:
        return np.array([self._raw(s) for s in signals]).reshape(len(signals), len(self.means_))


def deviations(x_QD: Floats) -> Floats:
    """Return the deviation of each column, shape (D,), for predictors that give all the same weight.

    It counts as a hundredth of the largest at least. The last directions of a projection may hold nothing but rounding (a bag of few distinct
    texts has few directions), which differs between machines; divided by its own deviation it would weigh as much as what was said.
    """
    sd_D: Floats = x_QD.std(axis=0)
    return np.maximum(sd_D, max(1e-6, 0.01 * float(sd_D.max(initial=0.0))))


def _kind(values: Sequence[Scalar], categories: int) -> tuple[str, list[str]]:
    """Name the kind of column that holds `values`, and its categories if it is one; "none" if nothing is known."""
    known = [v for v in values if v is not None]
    strings = Counter(v for v in known if isinstance(v, str))
    if strings:
        return "category", sorted(sorted(strings), key=lambda s: -strings[s])[:categories]
    if not known:
        return "none", []
    if all(isinstance(v, bool) for v in known):
        return "flag", []
    return ("count" if all(isinstance(v, int) for v in known) else "number"), []


def _scaled(number: float, mean: float, scale: float) -> float:
    return (number - mean) / scale if number == number else 0.0  # a NaN is not itself


def _number(value: Scalar, kind: str) -> float:
    if value is None or isinstance(value, str) or not -1e300 < value < 1e300:
        return math.nan
    if kind == "flag":
        return float(bool(value))
    return math.copysign(math.log1p(abs(value)), value)


def _vector(reading: Reading | None, name: str, size: int) -> Floats:
    if reading is None or not reading.vector or reading.confidence == 0.0:
        return np.full(size, math.nan)
    vector = np.frombuffer(reading.vector, "<f4")
    if len(vector) != size:
        raise StateError(f"the vector of {name!r} has {len(vector)} numbers where {size} were learned; fit again")
    return vector.astype(np.float64)


def _projected(reading: Reading | None, bag: dict[str, Any]) -> Floats:
    """Return the projection of a bag, shape (P,); NaN where it was not read, or is empty."""
    if reading is None or not reading.bag:
        return np.full(bag["matrix"].shape[1] if bag else _BEGIN, math.nan)
    feature_N, count_N = counts(reading.bag)
    block_N = feature_N // BLOCK
    if not bag:
        square = np.bincount(block_N, weights=count_N * count_N, minlength=BLOCKS)
        weight_N = count_N * (np.asarray(_WEIGHTS) / np.sqrt(np.maximum(square, 1.0)))[block_N]
        fixed_P: Floats = weight_N @ signs(_BEGIN, 0)[feature_N % BLOCK]
        return fixed_P / max(float(np.sqrt(fixed_P @ fixed_P)), _TINY)
    weight_N = _weighed(feature_N, count_N, bag["rare"])
    projected_P: Floats = weight_N @ bag["matrix"].take(feature_N, axis=0).astype(np.float64)
    return projected_P


def _weighed(feature_N: NDArray[np.intp], count_N: Floats, rare_B: NDArray[np.float32]) -> Floats:
    """Weigh the features of one bag: logarithm of the count times rareness, each block scaled to length 1."""
    weight_N = (1.0 + np.log(count_N)) * rare_B[feature_N]
    block_N = feature_N // BLOCK
    square = np.bincount(block_N, weights=weight_N * weight_N, minlength=BLOCKS)
    out: Floats = weight_N / np.sqrt(square)[block_N]
    return out


def _trained(bags: Sequence[bytes], size: int) -> dict[str, Any]:
    """Fit the projection of bags: how rare each feature is, and the leading singular vectors of the weighed counts."""
    from scipy.sparse import csr_array
    from sklearn.utils.extmath import randomized_svd

    known = [counts(bag) for bag in bags]
    total = BLOCK * BLOCKS
    seen_B = np.bincount(np.concatenate([f for f, _ in known]), minlength=total)
    rare_B = (np.log((1.0 + len(bags)) / (1.0 + seen_B)) + 1.0).astype(np.float32)
    start = np.concatenate([[0], np.cumsum([len(f) for f, _ in known])])
    weights = np.concatenate([_weighed(f, c, rare_B) for f, c in known])
    x_QB = csr_array((weights, np.concatenate([f for f, _ in known]), start), shape=(len(bags), total))
    size = max(1, min(size, len(bags) // 4))
    matrix_BP = randomized_svd(x_QB, size, n_iter=4, random_state=0)[2].T
    # Half precision: the projection is most of what a predictor keeps, and the third digit of a direction changes no forecast.
    return {"rare": rare_B, "matrix": matrix_BP.astype(np.float16)}
