"""Accept: whether an answer is good enough, judged by what came with it. A closed set of tests that plans carry as data.

Where the evidence is missing (a target that reports no log-probabilities, say) a test does not accept: what is not known to be good
is escalated. No test reads `Outcome.quality`. Thresholds are inclusive and are to be fitted on recorded outcomes; none is universal.

- ``mean_logprob``: mean natural-log probability of the answer's tokens.
- ``first_entropy``: entropy of the first answer token, in nats, over the alternatives that the target reported.
- ``agreement``: the same target is asked several times; the most frequent answer must have a large enough share.
- ``confidence``: a confidence that came with the answer, from a table or from a vote (its winner's share).
- ``predicted``: the quality that a predictor forecast before the call, put in by the policy, so that the plan stays data.

Each test says by `asking` what to run so that an answer comes with the evidence, and by `accepts` whether the evidence suffices.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from fairlead.plans.asking import Asking
from fairlead.plans.vote import Vote
from fairlead.types import Outcome, Plan

LOGPROBS: dict[str, Any] = {"logprobs": True, "top_logprobs": 5}
"""What a call must ask for, so that its outcome carries log-probabilities and the first token's entropy."""


class MeanLogprob(Struct, frozen=True, kw_only=True, tag="mean_logprob", tag_field="kind", forbid_unknown_fields=True):
    """Accept if the mean log-probability of the answer's tokens is at least `above` (at most 0)."""

    above: float

    def asking(self, step: Plan) -> Plan:
        """Have every call of `step` ask for log-probabilities."""
        return Asking(plan=step, params=LOGPROBS)

    def accepts(self, outcome: Outcome) -> bool:
        """Test one answer."""
        found = outcome.logprobs
        return found is not None and len(found) > 0 and sum(found) / len(found) >= self.above


class FirstEntropy(
    Struct, frozen=True, kw_only=True, tag="first_entropy", tag_field="kind", forbid_unknown_fields=True
):
    """Accept if the first token's entropy is at most `below` nats."""

    below: float

    def asking(self, step: Plan) -> Plan:
        """Have every call of `step` ask for log-probabilities."""
        return Asking(plan=step, params=LOGPROBS)

    def accepts(self, outcome: Outcome) -> bool:
        """Test one answer."""
        return outcome.first_entropy is not None and outcome.first_entropy <= self.below


class Agreement(Struct, frozen=True, kw_only=True, tag="agreement", tag_field="kind", forbid_unknown_fields=True):
    """Accept if at least `above` of `samples` draws give the same answer; failed draws agree with nobody.

    The first draw is asked as the client asked, the others with `temperature`.
    """

    above: float
    samples: int = 3
    answers: str = "text"
    temperature: float = 0.8

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError("agreement needs at least 2 samples")

    def asking(self, step: Plan) -> Plan:
        """Draw `step` several times, and vote. Raises `ValueError` if it is not a single call."""
        return Vote(members=(step,), samples=self.samples, answers=self.answers, temperature=self.temperature)

    def accepts(self, outcome: Outcome) -> bool:
        """Test one answer by the share that its draws gave it."""
        return outcome.confidence is not None and outcome.confidence >= self.above


class Confidence(Struct, frozen=True, kw_only=True, tag="confidence", tag_field="kind", forbid_unknown_fields=True):
    """Accept if the confidence that came with the answer is at least `above`."""

    above: float

    def asking(self, step: Plan) -> Plan:
        """Leave `step` as it is."""
        return step

    def accepts(self, outcome: Outcome) -> bool:
        """Test one answer."""
        return outcome.confidence is not None and outcome.confidence >= self.above


class Predicted(Struct, frozen=True, kw_only=True, tag="predicted", tag_field="kind", forbid_unknown_fields=True):
    """Accept, whatever the answer, if its forecast `quality` was at least `above`."""

    quality: float
    above: float

    def asking(self, step: Plan) -> Plan:
        """Leave `step` as it is."""
        return step

    def accepts(self, outcome: Outcome) -> bool:
        """Compare the forecast with the threshold."""
        return self.quality >= self.above


Accept: TypeAlias = MeanLogprob | FirstEntropy | Agreement | Confidence | Predicted
