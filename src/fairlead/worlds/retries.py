"""Sending a call again: when, after how long, and how often in all. Ours, no paper.

Only a call that cost nothing is sent again: it never reached its target, or the target refused it for the moment (429, 503). Whoever waited in line, or
got the first bytes of an answer, is not. A connection that was refused or reset is tried again at once, after a few jittered milliseconds. Where a plan has
another target to turn to it turns to that, and only the last one in line waits: as long as `Retry-After` says, or a random time that doubles with
each try ("full jitter"), never longer than `patience_seconds` or the asker's deadline.

Each call earns its target `share` of a retry, and a retry needs a whole one, so that retries never become the load that keeps a struggling target down.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec import Struct

from fairlead.types import Outcome

_MOST_EARNED = 10.0
_QUICK_SECONDS = 0.05


class Retries(Struct, kw_only=True):
    """How calls are sent again.

    Args:
        most: how often one call at most; 0: never.
        base_seconds: the first wait is at most this, each further one at most twice as long.
        patience_seconds: no wait is longer; a target that asks for more is not asked again.
        share: of a target's calls that may be retries.
    """

    most: int = 2
    base_seconds: float = 0.5
    patience_seconds: float = 8.0
    share: float = 0.2
    earned: dict[str, float] = {}
    draw: Callable[[], float] = random.random
    """Uniform in [0, 1). Waits are no part of a decision, so they need not be drawn again the same."""

    def note(self, name: str) -> None:
        """Count a call."""
        earned = self.earned.get(name)
        self.earned[name] = min(_MOST_EARNED, (_MOST_EARNED / 2 if earned is None else earned) + self.share)

    def wait(self, outcome: Outcome, name: str, *, tried: int, last: bool, left_seconds: float) -> float | None:
        """Return how long to wait before a failed call is sent again; None: it is not.

        `tried`: how often it was sent again before. `last`: nobody else is there to turn to.
        """
        error = outcome.error
        if error is None or outcome.streamed or tried >= self.most or self.earned.get(name, 0.0) < 1.0:
            return None
        if error.sent:
            return None
        if error.kind == "unavailable" and error.status is None and error.retry_after_seconds is None:
            seconds = _QUICK_SECONDS * (0.2 + self.draw()) * 4.0**tried  # it was never reached
        elif error.kind in ("rate_limited", "unavailable") and last:
            seconds = self.base_seconds * 2.0**tried * self.draw()
            if error.retry_after_seconds is not None:
                # A little more than was asked for, so that those who were told the same do not come back together.
                seconds = error.retry_after_seconds * (1.0 + 0.1 * self.draw())
        else:
            return None
        if seconds > min(self.patience_seconds, left_seconds):
            return None
        self.earned[name] -= 1.0
        return seconds
