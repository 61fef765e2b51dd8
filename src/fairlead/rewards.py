"""From judgements to rewards: what a learner is told about one decision."""

from __future__ import annotations

import difflib

from fairlead.errors import FairleadError
from fairlead.types import Feedback, Reward, Trace

LABELS = {
    "up": 1.0, "good": 1.0, "correct": 1.0, "pass": 1.0, "yes": 1.0,
    "down": 0.0, "bad": 0.0, "wrong": 0.0, "incorrect": 0.0, "fail": 0.0, "no": 0.0,
}  # fmt: skip
"""What a label is worth."""


def of_label(label: str) -> float:
    """Return the worth of a label in [0, 1].

    Raises:
        FairleadError: if it is none of the known ones.
    """
    try:
        return LABELS[label.strip().lower()]
    except KeyError:
        raise FairleadError(
            f"unknown label {label!r}; use one of {', '.join(LABELS)}, or send a value in [0, 1]"
        ) from None


def of_correction(answer: str, correction: str) -> float:
    """Return how much of `answer` stands in its correction: the matching ratio of the two texts (1: unchanged)."""
    return difflib.SequenceMatcher(None, answer.strip(), correction.strip(), autojunk=False).ratio()


def reward(trace: Trace, feedback: Feedback) -> Reward:
    """Return what the decision of `trace` brought, judged by `feedback`. Cost and time are those of all calls together."""
    joules = [s.outcome.joules for s in trace.steps if s.call is not None]
    return Reward(
        quality=feedback.value,
        usd=trace.usd,
        seconds=trace.seconds,
        joules=None if any(j is None for j in joules) else sum(j for j in joules if j is not None),
    )
