"""Read a question as text, as a picture, or both ways, as a gate says; and let a strong target do what is risky.

TableDART (Xing et al., 2025, arXiv 2509.14671): a gate (predictor `soft_gate`) forecasts how well each way would do, and the best is taken. The text
way is asked without the pictures, so that targets that cannot see may take it. Both ways run side by side; if their answers are the same that is the
answer, else `arbiter` is given the question with both, to choose one or to make its own; if it fails, the way that the gate held for better stands. The
paper's arbiter is always asked; here only where the two differ.

Adaptive VLM routing (2026, arXiv 2603.12823), ahead of that: `risk` is a gate that forecasts `risky`; from `risky_from` on, `strongest` is asked and
nobody else. And behind it: with `strongest`, an answer that is not sure enough for how hard the question is goes there. How sure: the mean
log-probability of its tokens on a line from `floor` (0) to 0 (1). How sure it must be: `bar_easy` for a difficulty below .3, `bar_hard` above .7, a line between.
The difficulty is 1 less the gate's forecast for the way taken (the paper compares a crop of the screen with prototypes). Without log-probabilities an
answer is not sure. The probe pays only if fewer than 1 - (cost of the small) / (cost of the strong) are sent on: `worthwhile`.

A gate that fails says nothing: then both ways are taken, or, without an arbiter, the text way unless the question has no words. A question without
pictures is answered as text, one with sound or files the image way, whole. A risk gate that fails counts as risky.

Checked in tests/plans/test_modality.py: choice, fusion, what each way is shown, bar and sureness, risk, failures.
"""

from __future__ import annotations

from math import inf
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from fairlead.answers.base import check as check_reader
from fairlead.answers.base import same
from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.accept import LOGPROBS
from fairlead.plans.asking import Asking, driven
from fairlead.plans.base import final_failure, targets_of
from fairlead.plans.gates import consult, forecasts
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.types import Call, Do, Message, Outcome, Plan, Query, Steps

EASY: Final = 0.3
HARD: Final = 0.7


class Modality(Struct, Plan, frozen=True, kw_only=True, tag="modality", tag_field="kind", forbid_unknown_fields=True):
    """Take the `text` way, the `image` way, or both.

    The gate knows the ways by the names of their first targets, and both together as ``both``.
    """

    text: Plan
    image: Plan
    arbiter: str | None = None
    gate: str | None = None
    strongest: Plan | None = None
    risk: str | None = None
    risky_from: float = 0.5
    floor: float = -1.0
    bar_easy: float = 0.80
    bar_hard: float = 0.92
    answers: str = "text"
    prompt: Prompt | str = "arbitrate@1"

    def __post_init__(self) -> None:
        check_reader(self.answers)
        prompts.check(self.prompt, "question", "answers")
        if not -inf < self.floor < 0.0:
            raise ValueError(
                "floor is the mean log-probability at which an answer is not sure at all: a number below 0"
            )
        if not 0.0 <= self.risky_from <= 1.0:
            raise ValueError("risky_from is from 0 to 1")
        if len({self.text.targets()[0], self.image.targets()[0], "both"}) < 3:
            raise ValueError("a gate knows the ways by their first targets, and both by `both`: these must differ")
        if not 0.0 <= self.bar_easy <= self.bar_hard <= 1.0:
            raise ValueError("bars are from 0 to 1, and that of hard questions is not the lower one")
        if self.risk is not None and self.strongest is None:
            raise ValueError("say who does what is risky: strongest")

    def run(self, query: Query) -> Steps:
        """Choose a way, answer, and send on what is not sure."""
        names = {"text": self.text.targets()[0], "image": self.image.targets()[0], "both": "both"}
        if self.risk is not None and self.strongest is not None:
            (said,) = yield Do(branches=(consult(self.risk),))
            known = forecasts(said).get("risky")
            if known is None or known.quality >= self.risky_from:
                (outcome,) = yield Do(branches=(self.strongest,), final=True)
                return outcome
        best: Outcome | None = None
        try:
            others = query.modalities - {"text"}
            way, expected = "image" if others else "text", None
            if others == {"image"}:
                found = {}
                if self.gate is not None:
                    (said,) = yield Do(branches=(consult(self.gate),))
                    found = {w: f.quality for w, n in names.items() if (f := forecasts(said).get(n)) is not None}
                if self.arbiter is None:
                    found.pop("both", None)
                way = max(found, key=lambda w: found[w]) if found else self._careful(query)
                expected = found.get(way)
            if way == "both":
                best = yield from self._both(query, found.get("image", 0.0) > found.get("text", 0.0))
            else:
                plan = self.image if way == "image" else Unseeing(plan=self.text) if others else self.text
                (best,) = yield Do(branches=(self._asked(plan),), final=self.strongest is None)
            if (
                self.strongest is None
                or best.streamed
                or (best.ok and sureness(best, self.floor) >= self._bar(expected))
            ):
                return best
            if final_failure(best):
                return best
            (strong,) = yield Do(branches=(self.strongest,), final=True)
        except LimitReached:
            if best is None:
                raise
            return best
        return strong if strong.ok or strong.streamed else best

    def targets(self) -> tuple[str, ...]:
        """Gates, ways, arbiter, the strongest."""
        return targets_of(self.risk, self.gate, self.text, self.image, self.arbiter, self.strongest)

    @classmethod
    def example(cls) -> Modality:
        """Two ways with an arbiter, and somebody strong."""
        return cls(
            text=Single(target="a"), image=Single(target="b"), arbiter="c", gate="d", strongest=Single(target="e")
        )

    def _careful(self, query: Query) -> str:
        """What is done where no gate says anything."""
        words = any(m.text for m in query.messages)
        if not words:
            return "image"
        return "text" if self.arbiter is None else "both"

    def _both(self, query: Query, image_first: bool) -> Steps:
        """Take both ways, and have the arbiter settle what they do not agree on."""
        text, image = yield Do(branches=(self._asked(Unseeing(plan=self.text)), self._asked(self.image)))
        if not (text.ok and image.ok):
            return text if text.ok else image
        if self.arbiter is None or same(text.text, image.text, self.answers):
            return image if image_first else text
        found = prompts.find(self.prompt)
        asked = found.messages({"question": prompts.question(query), "answers": (text.text, image.text)})
        # After the question itself, so that the arbiter sees what the readers saw.
        call = Call(
            target=self.arbiter,
            purpose="merge",
            prompt=found.label,
            messages=(*query.messages, *asked),
            params={} if self.strongest is None else LOGPROBS,
        )
        try:
            (settled,) = yield Do(branches=(call,))
        except LimitReached:
            return image if image_first else text
        return settled if settled.ok else image if image_first else text

    def _asked(self, plan: Plan) -> Plan:
        """Ask for log-probabilities where the answer must be sure enough: servers send them to nobody else."""
        return plan if self.strongest is None else Asking(plan=plan, params=LOGPROBS)

    def _bar(self, expected: float | None) -> float:
        return bar(0.5 if expected is None else 1.0 - expected, self.bar_easy, self.bar_hard)


class Unseeing(Struct, Plan, frozen=True, kw_only=True):
    """Run `plan` on the words of the query alone, as if it had no pictures."""

    plan: Plan

    def run(self, query: Query) -> Steps:
        """Run it on what is left."""
        left = replace(query, messages=_words(query), body={k: v for k, v in query.body.items() if k != "messages"})
        return driven(self.plan, left, lambda b: _unseeing(b, left))

    def targets(self) -> tuple[str, ...]:
        """Targets of the plan."""
        return self.plan.targets()


def sureness(outcome: Outcome, floor: float) -> float:
    """Return how sure an answer is, in [0, 1]: its mean log-probability on a line from `floor`, below 0, to 0; 0 without any."""
    found = outcome.logprobs
    return 0.0 if not found else min(1.0, max(0.0, (sum(found) / len(found) - floor) / -floor))


def bar(difficulty: float, easy: float, hard: float) -> float:
    """Return how sure an answer to a question of such a difficulty, in [0, 1], must be."""
    share = min(1.0, max(0.0, (difficulty - EASY) / (HARD - EASY)))
    return easy + share * (hard - easy)


def worthwhile(sent_on: float, small_usd: float, strong_usd: float) -> bool:
    """Whether asking the small target first saves money if such a share is sent on: its answer is then paid for nothing."""
    return small_usd + sent_on * strong_usd < strong_usd


def _words(query: Query) -> tuple[Message, ...]:
    return tuple(
        m if m.content is None or isinstance(m.content, str) else replace(m, content=m.text) for m in query.messages
    )


def _unseeing(branch: Call | Plan, left: Query) -> Call | Plan:
    if not isinstance(branch, Call):
        return Unseeing(plan=branch)
    return branch if branch.messages is not None else replace(branch, messages=left.messages)
