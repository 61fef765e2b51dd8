"""Answer, verify, escalate: a cascade whose test is a verdict on the answer, drawn several times.

AutoMix (Aggarwal, Madaan et al., 2023, arXiv 2310.12963). Each step but the last answers; a verifier, by default the very target that answered, is
asked `samples` times whether the answer is right; the confidence q is the share of yes, or the mean probability of yes. It escalates when q < tau.
Defaults as in vLLM Semantic Router (2026, arXiv 2603.04444): tau 0.7, 5 samples at temperature 0.7. Expected cost, with C_k that of answering and
verifying at step k:

    E[C] = sum_k C_k prod_{j<k} (1 - P(q_j >= tau_j))

What differs: the paper verifies against a context, with few examples in the prompt. Its meta-verifier is a small POMDP over q; here it is one threshold
per step, fitted from outcomes (`fairlead.bench.verifying`), which is all that a POMDP of two steps can say where a larger q is never worse news.

**What a model says about its own answer follows correctness poorly**, and a threshold of one model is none of another: fit `tau` on recorded
outcomes, let another target verify, or prefer a test on log-probabilities or agreement (`cascade`). By RouterBench (Hu et al., 2024, arXiv 2403.12031)
cascades help while the judge errs on less than about one answer in ten, and hurt from two in ten; tests/plans/test_verify.py shows the same.

A verdict that fails, or is neither yes nor no, counts as no yes: what is not known to be good is escalated. An answer that calls tools stands
unverified. As in `cascade` the latest step's answer is the best so far, and stands if a limit ends the plan or the last step fails.

Cost: 1 + `samples` calls for each step that is reached, 1 for the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.accept import LOGPROBS
from fairlead.plans.base import final_failure, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.verdicts import chance_of_yes
from fairlead.types import Call, Do, Outcome, Plan, Query, Steps


class Verify(Struct, Plan, frozen=True, kw_only=True, tag="verify", tag_field="kind", forbid_unknown_fields=True):
    """Run `steps`, cheap ones first, until an answer is verified with a confidence of at least `tau`; the last needs no verdict.

    `verifier`: a target; None: the one that answered. `tau`: one for all, or one for each step but the last; above 1, no answer of that step
    stands. `by`: ``share`` counts verdicts; ``probability`` averages the probability of yes, where the verifier reports log-probabilities.
    `prompt` may have the fields question and answer.
    """

    steps: tuple[Plan, ...]
    verifier: str | None = None
    samples: int = 5
    tau: float | tuple[float, ...] = 0.7
    by: Literal["share", "probability"] = "share"
    temperature: float = 0.7
    prompt: Prompt | str = "verify@1"

    def __post_init__(self) -> None:
        prompts.check(self.prompt, "question", "answer")
        if not self.steps:
            raise ValueError("there must be at least one step")
        if self.samples < 1:
            raise ValueError("samples must be at least 1")
        if isinstance(self.tau, tuple) and len(self.tau) != len(self.steps) - 1:
            raise ValueError(f"{len(self.steps)} steps need {len(self.steps) - 1} thresholds, not {len(self.tau)}")
        if not all(t >= 0.0 for t in self._taus()):
            raise ValueError("tau must be at least 0")

    def run(self, query: Query) -> Steps:
        """Answer and verify until an answer is good enough, the steps are used up, or a limit is reached."""
        best: Outcome | None = None
        first: Outcome | None = None
        try:
            for step, tau in zip(self.steps[:-1], self._taus(), strict=True):
                (outcome,) = yield Do(branches=(step,))
                if outcome.ok:
                    best = outcome
                    if outcome.tool_calls is not None:
                        return outcome
                    verdicts = yield Do(branches=self._ask(query, step, outcome))
                    q = self.confidence(verdicts)
                    best = replace(outcome, confidence=q)
                    if q >= tau:
                        return best
                elif final_failure(outcome):
                    return best or outcome
                first = first or outcome
            (outcome,) = yield Do(branches=(self.steps[-1],), final=True)
        except LimitReached:
            if best is None:
                raise
            return best
        if outcome.ok or outcome.streamed:
            return outcome
        return best or first or outcome

    def confidence(self, verdicts: Sequence[Outcome]) -> float:
        """Return q: how far the verdicts say yes, in [0, 1]."""
        if self.by == "share":
            verdicts = [replace(v, logprobs=None) for v in verdicts]
        return fsum(chance_of_yes(v) or 0.0 for v in verdicts) / len(verdicts)

    def targets(self) -> tuple[str, ...]:
        """Targets of all steps, then the verifier."""
        return targets_of(*self.steps, self.verifier)

    @classmethod
    def example(cls) -> Verify:
        """Three steps, each but the last verified by itself."""
        return cls(steps=tuple(Single(target=name) for name in "abc"), samples=2, tau=0.5)

    def _taus(self) -> tuple[float, ...]:
        return self.tau if isinstance(self.tau, tuple) else (self.tau,) * (len(self.steps) - 1)

    def _ask(self, query: Query, step: Plan, answer: Outcome) -> tuple[Call, ...]:
        own = step.targets()
        verifier = self.verifier or (answer.target if answer.target in own else own[0])
        params = {"temperature": self.temperature, **(LOGPROBS if self.by == "probability" else {})}
        return tuple(
            prompts.ask(verifier, self.prompt, query, purpose="judge", sample=s, params=params, answer=answer.text)
            for s in range(self.samples)
        )


def expected_cost(usd: Sequence[float], kept: Sequence[float]) -> float:
    """Return E[C], the mean cost of a cascade.

    Args:
        usd: what each step costs if it is reached, its verification included.
        kept: P(q_k >= tau_k), the chance that its answer is kept, of each step but the last, given that it is reached.
    """
    if len(kept) != len(usd) - 1:
        raise ValueError(f"{len(usd)} steps need {len(usd) - 1} chances, not {len(kept)}")
    total, reached = 0.0, 1.0
    for cost, keep in zip(usd, (*kept, 1.0), strict=True):
        total += reached * cost
        reached *= 1.0 - keep
    return total
