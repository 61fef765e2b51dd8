"""How long targets mostly take, and when a duplicate of a call may start.

A duplicate starts when the first call has taken longer than a quantile of its target's own recent latencies, if at most a share of the steps
that may have one has had one (a bucket that each such step fills by the share, up to `BURST`), and never where a call may do something that
cannot be undone. The delay is that of Dean, Barroso, 2013, "The tail at scale"; the bound on the share is ours: without it, a fleet that gets slow is
sent more work for it (`fairlead.bench.queueing` shows it). The bucket begins empty, so at no time have more than that share of the steps had one.

A call that was cancelled or timed out took longer than it was given, by an unknown amount. Its time is a bound, and quantiles are read off the
product-limit estimate (Kaplan, Meier, 1958), over the last `WINDOW` calls:

    S(t) = product over answered calls i with t_i <= t of (1 - 1 / n_i),   quantile = the first t_i with S(t_i) <= 1 - share

with n_i the calls whose time is known to be t_i or more. Without such bounds it is the plain quantile. So the losers of hedges, which are cut short
because they were slow or because another was quick, make no target look faster than it is. Where S never comes down that far, the quantile is
not known, and the longest time seen stands for it.

All calls to a target count alike, whatever they were for and however long their answers.

Cost: 2 to 5 µs per call noted; 1 µs per delay, 15 µs where some of the calls were cut short.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from math import ceil, inf
from typing import Final

from fairlead.types import Call, Late, Outcome, Plan, Query, Trace

WINDOW: Final = 256
"""Latencies kept of each target."""
ENOUGH: Final = 20
"""Answered calls from which a quantile is read."""
BURST: Final = 5.0
"""Duplicates that a quiet time saves up for."""
RECALLED: Final = 2 * WINDOW
"""Newest traces that are read again at a start."""


class Lateness:
    """What a world with a clock knows of latencies, over all its runs.

    Args:
        once: whether a call to a target must not be sent twice for a query.
    """

    def __init__(self, *, once: Callable[[str, Query], bool] | None = None) -> None:
        self.once = once
        self._recent: dict[str, deque[tuple[float, bool]]] = {}
        """By target, as they came: seconds, and whether the call was cut short."""
        self._sorted: dict[str, list[tuple[float, bool]]] = {}
        """The same, in rising order; of equal times those of answered calls first, as the estimate wants it."""
        self._cut: dict[str, int] = {}
        """How many of them were cut short."""
        self._saved: dict[tuple[str, float], float] = {}

    def note(self, outcome: Outcome) -> None:
        """Note what one call took, if it was answered or cut short: how fast a target refuses says nothing."""
        target, cut = outcome.target, _cut_short(outcome)
        if not target or not (outcome.ok or cut) or outcome.seconds <= 0.0:
            return
        recent = self._recent.setdefault(target, deque())
        ordered = self._sorted.setdefault(target, [])
        if len(recent) == WINDOW:
            oldest = recent.popleft()
            del ordered[bisect_left(ordered, oldest)]
            self._cut[target] -= oldest[1]
        recent.append((outcome.seconds, cut))
        insort(ordered, (outcome.seconds, cut))
        self._cut[target] = self._cut.get(target, 0) + cut

    def take_over(self, other: Lateness) -> None:
        """Go on with what `other` knows, and has yet to learn from calls under way."""
        self._recent, self._sorted, self._cut, self._saved = other._recent, other._sorted, other._cut, other._saved

    def recall(self, traces: Iterable[Trace]) -> None:
        """Note the calls of traces, newest first, of an earlier life; nothing if this knows of calls already."""
        if self._recent:
            return
        for trace in reversed(list(islice(traces, RECALLED))):
            for step in trace.steps:
                if step.call is not None:
                    self.note(step.outcome)

    def quantile(self, target: str, share: float) -> float | None:
        """Return the latency in seconds that `share` of the recent calls to `target` did not exceed; None if too few are known."""
        ordered = self._sorted.get(target, [])
        n, cut = len(ordered), self._cut.get(target, 0)
        if n - cut < ENOUGH:
            return None
        if not cut:
            return ordered[min(n - 1, max(0, ceil(share * n - 1e-9) - 1))][0]
        left, over = 1.0, 1.0 - share + 1e-9
        for i, (seconds, short) in enumerate(ordered):
            if not short:
                left *= 1.0 - 1.0 / (n - i)
                if left <= over:
                    return seconds
        return ordered[-1][0]

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
        """Start a duplicate now, if the share allows it. A share of 1 is no bound."""
        if late.share >= 1.0:
            return True
        key = late.target, late.share
        if self._saved.get(key, 0.0) < 1.0 - 1e-9:
            return False
        self._saved[key] -= 1.0
        return True


def _cut_short(outcome: Outcome) -> bool:
    """Whether a call was ended before its target was: it took at least as long as it says."""
    return outcome.cancelled or (outcome.error is not None and outcome.error.kind in ("deadline", "timeout"))
