"""Spend by difficulty: the fast plan alone, the fast plan checked by a slow target, or the slow one several times over.

ODAR (2026, arXiv 2602.23681). A gate forecasts the difficulty d = 1 - quality, of what the key `of` names (the fast plan's first target, if None; name it where that is a gate):

    d < low           simple   the fast plan answers                                        1 call
    low <= d < high   medium   the fast plan answers, the slow target verifies              2 calls
    d >= high         hard     the fast plan and `best_of` draws of the slow one, all at
                               once; the answer of the lowest free energy is given          1 + best_of calls

and asking the gate, which generates nothing. So the expected number of calls is the shares of the paths times 1, 2 and 6.

The paper trains its estimator on human solving times and errors, with features not known to us; here the gate is any predictor trained on
outcomes. Not known either, so ours: which side the bounds belong to (above), the weight of the variance, and what happens after a verifier says no.
The calls being two, its reply carries the correction: "no", and below it its own answer, which is then given (as said by the verifier). A "no"
without an answer, a reply that is neither yes nor no, and a verifier that fails leave the fast answer. Its confidence is the probability of yes.

Difficulty that is not known (no gate, a gate that fails or does not name `of`) counts as medium: never a bare fast answer, never six calls.
If the fast plan fails, the slow one answers alone. An answer that calls tools is not verified.

**Choice.** Candidates are the answers that `answers` can read (`fairlead.answers`). Energies (`energy.py`) are z-scored by `calibration`, target ->
(mean, sd), if the candidates are by several targets and it is not empty; empty, they are compared as they are, which is fair only among alike
models (on the lab's, which share a tokenizer, that was better than z-scores by 2 to 16 points: `benchmarks/answers.py`). The lowest wins, of equals
the slow target's first. Where a candidate brings no log-probabilities, or has no calibration while others have, energies decide nothing: the
majority of all does, as in `vote`. The confidence is the share of all draws that gave the chosen answer.

Checked in tests/plans/test_fast_slow.py: paths, charges, choice and its fallbacks, limits, failures, and that a gate beats chance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf, isfinite
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from fairlead.answers.base import check, groups
from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.accept import LOGPROBS
from fairlead.plans.asking import Asking
from fairlead.plans.base import final_failure, saying, targets_of
from fairlead.plans.energy import LAMBDA, aligned, free_energy
from fairlead.plans.gates import consult, forecasts
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.verdicts import chance_of_yes
from fairlead.plans.vote import draws, elect
from fairlead.types import Call, Do, Outcome, Plan, Query, Steps

_CORRECTED: Final = re.compile(
    r"[^A-Za-z]*no\b[*_\"')\]]*(?:[.,:;!]|(?=\s*\n))[*_\"')\]]*\s+"
    r"(?!(?:it|this|that|the answer)(?:['\u2019]s|\s+is)\s+(?:correct|right|fine)\s*(?:[.,;!]|as\b|\Z))(?P<answer>\S.*)",
    re.I | re.S,
)
"""A "no" that stands alone, and something after it: "No problem with this." is no correction, nor is "No, it is correct."."""


class FastSlow(Struct, Plan, frozen=True, kw_only=True, tag="fast_slow", tag_field="kind", forbid_unknown_fields=True):
    """Let `fast` answer what is easy, have `slow` check what is not, and draw it `best_of` times where it is hard.

    `verifier`: who checks; None: the target of `slow`, which then must be a single call, as it must to be drawn several times. Draws after the
    first ask for `temperature`. `weight` and `per` are those of `free_energy`. `prompt` may have the fields question and answer.
    """

    fast: Plan
    slow: Plan
    gate: str | None = None
    of: str | None = None
    low: float = 0.3
    high: float = 0.7
    best_of: int = 5
    weight: float = LAMBDA
    per: Literal["token", "character"] = "token"
    calibration: dict[str, tuple[float, float]] = {}
    answers: str = "text"
    temperature: float = 0.3
    verifier: str | None = None
    prompt: Prompt | str = "correct@1"

    def __post_init__(self) -> None:
        check(self.answers)
        prompts.check(self.prompt, "question", "answer")
        if not 0.0 <= self.low <= self.high <= 1.0:
            raise ValueError("difficulties lie in [0, 1], and low is at most high")
        if self.best_of < 1:
            raise ValueError("best_of must be at least 1")
        if not isinstance(self.slow, Single) and (self.best_of > 1 or self.verifier is None):
            raise ValueError(
                "slow must be a single call; any other plan may be slow with best_of 1 and a verifier by name"
            )
        if not 0.0 <= self.weight < inf or not all(
            isfinite(m) and 0.0 <= sd < inf for m, sd in self.calibration.values()
        ):
            raise ValueError("weight, means and standard deviations must be finite, and only a mean may be negative")

    def __hash__(self) -> int:
        return hash((self.fast, self.slow, self.gate, self.low, self.high, self.best_of))

    def run(self, query: Query) -> Steps:
        """Ask the gate, and take the path that it says."""
        difficulty = None
        if self.gate is not None:
            (told,) = yield Do(branches=(consult(self.gate),))
            difficulty = self.difficulty(told)
        if difficulty is not None and difficulty >= self.high:
            outcomes = yield Do(branches=self._candidates())
            return self.choose(outcomes)
        simple = difficulty is not None and difficulty < self.low
        (first,) = yield Do(branches=(self.fast,), final=simple)
        if not first.ok:
            if first.streamed or final_failure(first):
                return first
            (second,) = yield Do(branches=(self.slow,), final=True)
            return second if second.ok or second.streamed else first
        if simple or first.tool_calls is not None:
            return first
        verifier = self.verifier or self.slow.targets()[0]
        try:
            (verdict,) = yield Do(
                branches=(prompts.ask(verifier, self.prompt, query, purpose="judge", answer=first.text),)
            )
        except LimitReached:
            return first
        return verified(first, verdict)

    def difficulty(self, told: Outcome) -> float | None:
        """Read d off what the gate said; None if it said nothing of it."""
        forecast = forecasts(told).get(self.of or self.fast.targets()[0])
        return None if forecast is None else 1.0 - forecast.quality

    def choose(self, outcomes: Sequence[Outcome]) -> Outcome:
        """Return the answer of the lowest free energy, or, where energies cannot be compared, of the majority."""
        group = groups(outcomes, self.answers)
        held = [i for i, g in enumerate(group) if g is not None]
        align = bool(self.calibration) and len({outcomes[i].target for i in held}) > 1
        energies = [(energy, i) for i in held if (energy := self._energy(outcomes[i], align)) is not None]
        if not held or len(energies) < len(held):
            return elect(outcomes, [1.0] * len(outcomes), self.answers)
        _, best = min(energies)
        return replace(outcomes[best], confidence=group.count(group[best]) / len(outcomes))

    def targets(self) -> tuple[str, ...]:
        """The gate, those of the fast plan, of the slow one, the verifier."""
        return targets_of(self.gate, self.fast, self.slow, self.verifier)

    @classmethod
    def example(cls) -> FastSlow:
        """A gate, a fast target and a slow one."""
        return cls(gate="c", fast=Single(target="a"), slow=Single(target="b"), best_of=3)

    def _candidates(self) -> tuple[Call | Plan, ...]:
        # Slow ones first: of equals the first is chosen.
        slow: list[Call | Plan] = [Asking(plan=self.slow, params=LOGPROBS)]
        if isinstance(self.slow, Single):
            drawn = draws(self.slow, self.best_of, self.temperature)
            slow = [replace(call, params={**LOGPROBS, **call.params}) for call in drawn]
        return (*slow, Asking(plan=self.fast, params=LOGPROBS))

    def _energy(self, outcome: Outcome, align: bool) -> float | None:
        characters = len(outcome.text) if self.per == "character" else None
        energy = free_energy(outcome.logprobs, weight=self.weight, characters=characters)
        if energy is None or not align:
            return energy
        known = self.calibration.get(outcome.target)
        return None if known is None else aligned(energy, *known)


def verified(first: Outcome, verdict: Outcome) -> Outcome:
    """Return the first answer, sure as the verdict says, or the answer that the verifier gave after a no."""
    chance = chance_of_yes(verdict)
    correction = _CORRECTED.match(verdict.text) if verdict.ok else None
    if correction is not None:
        return saying(verdict, correction["answer"].strip(), confidence=None)
    return first if chance is None else replace(first, confidence=chance)
