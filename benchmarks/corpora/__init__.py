"""Generated, labelled corpora for guards, and what is measured on them. `benchmarks/guards.py` prints it all.

Each module has ``corpus(*, seed)``, which makes labelled examples, and ``measure(*, data, seed)``, which returns a `Section`. Names,
numbers and texts are made up here; nothing is anybody's.

Lines filled into one template stand or fall together, so intervals are by `share`: what is resampled are templates, families or domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from fairlead.bench.metrics import bootstrap_means, wilson


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table of figures."""

    name: str
    setting: str
    """How it was measured: sizes, splits, seeds, what an interval is."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    marks: dict[str, bool] = field(default_factory=dict)
    """What must hold -> whether it did."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """A share with its 95% interval, over so many groups."""

    value: float
    low: float
    high: float
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.3f} {self.interval}"

    @property
    def interval(self) -> str:
        """The bounds in brackets."""
        return f"[{self.low:.3f}, {self.high:.3f}]"


def share(hit_QK: ArrayLike, groups: Sequence[object], *, of_QK: ArrayLike | None = None, seed: int = 0) -> Share:
    """Share of `of_QK` (all, if not given) that is in `hit_QK`, with a 95% interval by resampling groups whole (1,000 draws).

    With several columns it is the mean of their shares; columns that hold nothing do not count. Where all resamples are alike (most often
    because every group is at 0 or at 1) they tell nothing of groups that were not drawn: then the bounds are Wilson's for as many
    observations as there are groups. Of few groups the interval is on the narrow side either way. NaN if there is nothing to count.
    """
    hit = np.asarray(hit_QK, dtype=np.float64).reshape(len(groups), -1)
    of = np.ones_like(hit) if of_QK is None else np.asarray(of_QK, dtype=np.float64).reshape(hit.shape)
    rows = np.flatnonzero(of.sum(axis=1)).tolist()
    if not rows:
        return Share(float("nan"), 0.0, 1.0, 0)
    hit, of, held = hit[rows], of[rows], [groups[q] for q in rows]
    names = {name: i for i, name in enumerate(dict.fromkeys(held))}
    member_Q = np.array([names[g] for g in held])
    both, k = np.hstack([hit, of]), hit.shape[1]
    mean_B2K = np.vstack([both.mean(axis=0), bootstrap_means(both, resamples=1_000, seed=seed, groups_Q=member_Q)])
    hit_BK, of_BK = mean_B2K[:, :k], mean_B2K[:, k:]
    counts_BK = of_BK > 0
    drawn_B = np.divide(hit_BK, of_BK, out=np.zeros_like(hit_BK), where=counts_BK).sum(axis=1)
    drawn_B /= counts_BK.sum(axis=1)
    value, (low, high) = float(drawn_B[0]), np.quantile(drawn_B[1:], (0.025, 0.975)).tolist()
    if high - low < 1e-9:
        low, high = wilson(value * len(names), len(names))
    return Share(value, low, high, len(names))
