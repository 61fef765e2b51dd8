"""How long targets mostly take, and when a duplicate of a call may start.

A duplicate starts when the first call has taken longer than a quantile of its target's own recent latencies, if at most a share of the steps
that may have one has had one (a bucket that each such step fills by the share, up to `BURST`), and never where a call may do something that
cannot be undone. The delay is that of Dean, Barroso, 2013, "The tail at scale"; the bound on the share is ours: without it, a fleet that gets slow is
sent more work for it.

A call that was cancelled is noted with the time it had taken, which is too short by an unknown amount: quantiles of a target whose calls
are often cancelled are too low, and the share is what bounds the harm.

Cost: 1 to 2 µs per call noted, 1 µs per delay.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from math import ceil, inf
from typing import Final

from fairlead.types import Call, Late, Outcome, Plan, Query

WINDOW: Final = 256
"""Latencies kept of each target."""
ENOUGH: Final = 20
"""Latencies from which a quantile is read."""
BURST: Final = 5.0
"""Duplicates that a quiet time saves up for."""


class Lateness:
    """What a world with a clock knows of latencies, over all its runs.

    Args:
        once: whether a call to a target must not be sent twice for a query.
    """

    def __init__(self, *, once: Callable[[str, Query], bool] | None = None) -> None:
        self.once = once
        self._recent: dict[str, deque[float]] = {}
        self._sorted: dict[str, list[float]] = {}
        self._saved: dict[tuple[str, float], float] = {}

    def note(self, outcome: Outcome) -> None:
        """Note what one call took, if it was answered or cut short: how fast a target refuses says nothing."""
        if not outcome.target or not (outcome.ok or outcome.cancelled) or outcome.seconds <= 0.0:
            return
        recent = self._recent.setdefault(outcome.target, deque())
        ordered = self._sorted.setdefault(outcome.target, [])
        if len(recent) == WINDOW:
            oldest = recent.popleft()
            del ordered[bisect_left(ordered, oldest)]
        recent.append(outcome.seconds)
        insort(ordered, outcome.seconds)

    def quantile(self, target: str, share: float) -> float | None:
        """Return the latency in seconds that `share` of the recent calls to `target` did not exceed; None if too few are known."""
        ordered = self._sorted.get(target, ())
        if len(ordered) < ENOUGH:
            return None
        return ordered[min(len(ordered) - 1, max(0, ceil(share * len(ordered)) - 1))]

    def delay(self, late: Late, branches: Iterable[Call | Plan], query: Query) -> float:
        """Return the seconds after which a duplicate may start; ``inf`` if it may not, unless all that had started fail."""
        names = (t for b in branches for t in ((b.target,) if isinstance(b, Call) else b.targets()))
        if self.once is not None and any(self.once(name, query) for name in names):
            return inf
        key = late.target, late.share
        self._saved[key] = min(BURST, self._saved.get(key, 0.0) + late.share)
        known = self.quantile(late.target, late.quantile)
        return late.otherwise if known is None else known

    def take(self, late: Late) -> bool:
        """Start a duplicate now, if the share allows it."""
        key = late.target, late.share
        if self._saved.get(key, 0.0) < 1.0 - 1e-9:
            return False
        self._saved[key] -= 1.0
        return True
