"""What a trace comes to: how often it was rerouted, and how long it waited for others."""

from __future__ import annotations

import math

from fairlead.plans.fallback import Fallback
from fairlead.types import Trace


def fallbacks(trace: Trace) -> int:
    """Count the plans that failed before the one that answered."""
    if not isinstance(trace.plan, Fallback):
        return 0
    steps = trace.steps
    return steps[0].path[0] if len(steps) == 1 else max((s.path[0] for s in steps), default=0)


def busy(trace: Trace) -> float:
    """Seconds in which at least one call was under way, or waited for its turn."""
    steps = trace.steps
    if len(steps) == 1:
        return steps[0].outcome.seconds + steps[0].waited_seconds
    total, until = 0.0, -math.inf
    for start, end in sorted(
        (s.start_seconds, s.start_seconds + s.waited_seconds + s.outcome.seconds) for s in steps if s.call
    ):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
