"""From judgements to rewards: every kind of feedback under one contract, a value in [0, 1] and how much it counts.

| kind | given as | value | counts, unless it says otherwise |
|---|---|---|---|
| value | a number | itself | 1 |
| label | a word | 1 for up, good …; 0 for down, bad … | 1 |
| correction | the answer as it should be | the matching ratio of the two texts | 1 |
| rating | so many points of so many | (rating - lowest) / (of - lowest) | 1 |
| test | passed or not, or the share that passed | itself | 1 |
| judge | a model's score | itself | 0.6 |
| reask | whether the user asked again | 0, or 1 if not | 0.2 |
| abandon | whether the user went away | 0, or 1 if not | 0.1 |

A judge counts 0.6: one that agrees with people on 80% of the answers (Zheng et al., 2023, arXiv 2306.05685, of strong ones) is right 0.6 more
often than wrong. The two weak signals are guesses, ours. They have two sides: whoever reports only the re-asks teaches that all answers
were bad. What judging cost is not the answer's cost, so no judgement carries any: a judge called through a gateway has a trace of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from math import isfinite
from typing import Final

from msgspec import Struct

from fairlead.errors import FairleadError
from fairlead.types import EVIDENCE, Feedback, FeedbackKind, Reward, Trace

LABELS = {
    "up": 1.0, "good": 1.0, "correct": 1.0, "pass": 1.0, "yes": 1.0,
    "down": 0.0, "bad": 0.0, "wrong": 0.0, "incorrect": 0.0, "fail": 0.0, "no": 0.0,
}  # fmt: skip
"""What a label is worth."""

CONFIDENCE: Final[dict[FeedbackKind, float]] = {
    "value": 1.0, "label": 1.0, "correction": 1.0, "rating": 1.0, "test": 1.0, "judge": 0.6, "reask": 0.2, "abandon": 0.1,
}  # fmt: skip
"""How much a judgement of each kind counts if whoever sends it does not say."""


class Lesson(Struct, frozen=True, kw_only=True):
    """What one judgement teaches of an answer: all of it, or what it adds to an earlier one."""

    value: float
    weight: float
    further: bool = False
    """The answer was learned from before, by less weight."""
    whole: float | None = None
    """Of a further one: what the judgement says of the answer, if it is the first to count for half or more (`Reward.evidence`)."""


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


def of_rating(rating: float, of: float, lowest: float = 1.0) -> float:
    """Return the worth in [0, 1] of a rating on a scale from `lowest` to `of`.

    Raises:
        FairleadError: if it is not on the scale.
    """
    if not (isfinite(of) and lowest <= rating <= of and lowest < of):
        raise FairleadError(f"a rating of {rating:g} is not on a scale from {lowest:g} to {of:g}; name its ends")
    return (rating - lowest) / (of - lowest)


def judgement(
    trace_id: str,
    *,
    kind: FeedbackKind,
    value: float,
    source: str = "user",
    confidence: float | None = None,
    label: str | None = None,
    correction: str | None = None,
    at: float = 0.0,
    by: str = "",
) -> Feedback:
    """Return a feedback of this kind, which counts as its kind does (`CONFIDENCE`) unless it is said how much."""
    return Feedback(
        trace_id=trace_id,
        value=value,
        kind=kind,
        source=source,
        confidence=CONFIDENCE[kind] if confidence is None else confidence,
        label=label,
        correction=correction,
        at=at,
        by=by,
    )


def lesson(value: float, weight: float, before: tuple[float, float]) -> Lesson | None:
    """Return what a judgement teaches after others of the same answer, so that the answer's weight in all is that of its weightiest judgement.

        weight - w        (weight * value - w v) / (weight - w), kept within [0, 1]

    Where a method is linear in its lessons, it then stands as if it had been told this judgement alone, unless the value was cut off: where a
    re-ask (0, weight 0.2) comes before a passed test, the answer counts 0.8, not 1. So targets whose weak signals come first and differ from the
    later judgement are taught some of the weak signal for good.

    Args:
        value: in [0, 1].
        weight: how much the judgement counts, in [0, 1].
        before: w and w v, the weight and the weighted value of what was taught of the answer so far.

    Returns:
        None if it adds nothing.
    """
    taught, total = before
    if weight - taught < LEAST:
        return None
    if not taught:
        return Lesson(value=value, weight=weight)
    gain = weight - taught
    added = min(1.0, max(0.0, (weight * value - total) / gain))
    return Lesson(value=added, weight=gain, further=True, whole=value if taught < EVIDENCE <= weight else None)


def judged(standing: Iterable[Feedback]) -> tuple[float, float] | None:
    """Return what the judgements of one answer that stand say of it together, and how much that counts: value and confidence.

    The weightiest have the say, by their mean. Their own confidence is what they are weighed by, and not what `fairlead.trust` found of
    their sources: reports show what was said. None if nobody judged it by any weight.
    """
    most, values = 0.0, list[float]()
    for f in standing:
        if f.confidence > most:
            most, values = f.confidence, []
        if most and f.confidence == most:
            values.append(f.value)
    return (sum(values) / len(values), most) if values else None


LEAST: Final = 0.01
"""What counts less teaches nothing: it would cost a version of the policy."""


def reward(trace: Trace, judged: Feedback | Lesson) -> Reward:
    """Return what the decision of `trace` brought, as it was judged. Cost and time are those of all calls together."""
    joules = [s.outcome.joules for s in trace.steps if s.call is not None]
    told = judged if isinstance(judged, Lesson) else Lesson(value=judged.value, weight=judged.confidence)
    return Reward(
        quality=told.value,
        usd=trace.usd,
        seconds=trace.seconds,
        joules=None if any(j is None for j in joules) else sum(j for j in joules if j is not None),
        weight=told.weight,
        further=told.further,
        whole=told.whole,
    )
