"""Glimpse: a small and a large model think in turns, step by step; how sure the small one is of a step's first token says who writes it.

GlimpRouter (2026, arXiv 2601.05110). Before each step the small model is asked for one token:

    H = - sum_v p_v ln p_v          small writes the step if H <= tau, else large; large writes the answer behind the end of thinking

H is taken over the `top_logprobs` alternatives that the server reports, the rest as one bucket (`fairlead.targets.wire.entropy`): a lower bound of the
true entropy. tau belongs to one k and one pair of models; keep k as it is. The paper's tau of 1.0 gives a share of large steps that depends
on the pair: choose it for 20 to 30%, or let the policy `glimpse_share` hold a share. The token of the look-ahead is thrown away: whoever writes
the step writes it whole. It is asked for at temperature 1, where an entropy before and after temperature is the same.

A step is a call that *continues an assistant message* (the text so far), up to `stop`, so it needs servers that do so, that report
log-probabilities (small), and that give the thinking as plain text. `continuing` are request fields that they need for it. Servers leave the
stop string out of their reply; it is put back, but not twice, and not where a step was cut at its cap.

Thinking ends where a step holds the end marker (what follows it is dropped), where one is empty, when `budget_tokens` or `max_steps` are used up, or
when the same step was written `repeats` times: a small model that goes round in circles is sure of itself, and would spend the whole budget
(ours; None lets it). Where no entropy is to be had, large writes. A step that small fails to write, large writes; if large fails too, thinking
is over. The answer that one of them fails to give, the other gives. A limit that ends the thinking leaves no answer.

Cost: per step one call of one token and one call that writes; each of them reads the text so far again, unless the server caches prefixes.

Checked in tests/plans/test_glimpse.py: who writes, exact concatenation, every way to end, limits, and on two n-gram models separation, latency, and
a random assignment at the same rate, which is worse.
"""

from __future__ import annotations

from collections import Counter
from math import isfinite
from typing import Any, Literal

from msgspec import Struct

from fairlead.plans.base import final_failure, targets_of
from fairlead.types import Call, Do, Message, Outcome, Plan, Query, Steps

CHARACTERS = 4
"""What a token counts as, where a target does not count."""


class Glimpse(Struct, Plan, frozen=True, kw_only=True, tag="glimpse", tag_field="kind", forbid_unknown_fields=True):
    """Let `small` write the steps whose first token it is sure of (entropy of at most `tau` nats), and `large` the others.

    `thinking` opens the assistant's message (``<think>`` where a chat template does not), `stop` ends a step, `end` the thinking. `step_tokens` is the
    cap of one step, `budget_tokens` of all. `temperature` and `top_p` are of steps; the answer is asked for as the client asks.
    """

    small: str
    large: str
    tau: float = 1.0
    stop: str = "\n\n"
    end: str = "</think>"
    thinking: str = ""
    continuing: dict[str, Any] = {}
    answer_by: Literal["large", "small"] = "large"
    max_steps: int = 256
    budget_tokens: int = 8192
    step_tokens: int = 512
    repeats: int | None = 4
    temperature: float = 0.6
    top_p: float = 0.95
    top_logprobs: int = 20

    def __post_init__(self) -> None:
        if not isfinite(self.tau):
            raise ValueError("tau must be a number; no entropy is below 0 or above 20 nats")
        if not self.stop or not self.end.strip():
            raise ValueError("stop and end must be texts that models write")
        if min(self.max_steps, self.budget_tokens, self.step_tokens, self.top_logprobs) < 1:
            raise ValueError("max_steps, budget_tokens, step_tokens and top_logprobs must be at least 1")
        if self.repeats is not None and self.repeats < 2:
            raise ValueError("repeats must be at least 2, or nothing")

    def __hash__(self) -> int:
        return hash((self.small, self.large, self.tau, self.stop, self.end))

    def run(self, query: Query) -> Steps:
        """Look ahead, write, until thinking is over; then answer."""
        text = self.thinking
        used = 0
        seen: Counter[str] = Counter()
        for n in range(self.max_steps):
            (ahead,) = yield Do(branches=(self._look_ahead(query, text, n),))
            for writer in (self.small, self.large) if self.sure(ahead) else (self.large,):
                (step,) = yield Do(branches=(self._step(writer, query, text, n, used),))
                if step.ok:
                    break
            if final_failure(step):
                return step
            written, over, _ = step.text.partition(self.end.strip())
            if not step.ok or (not over and not written.strip()):
                break
            text += written
            if over:
                break
            if step.finish != "length" and not written.endswith(self.stop):
                text += self.stop
            used += tokens(step)
            seen[written.strip()] += 1
            if used >= self.budget_tokens or seen[written.strip()] == self.repeats:
                break
        first: Outcome | None = None
        for target in (self.large, self.small) if self.answer_by == "large" else (self.small, self.large):
            (outcome,) = yield Do(branches=(self._answer(target, query, text),), final=True)
            if outcome.ok or outcome.streamed or final_failure(outcome):
                return outcome
            first = first or outcome
        assert first is not None
        return first

    def targets(self) -> tuple[str, ...]:
        """The small one, the large one."""
        return targets_of(self.small, self.large)

    @classmethod
    def example(cls) -> Glimpse:
        """Two targets."""
        return cls(small="a", large="b")

    def sure(self, ahead: Outcome) -> bool:
        """Whether the small model is to write the step; not where its entropy is not known."""
        return ahead.ok and ahead.first_entropy is not None and ahead.first_entropy <= self.tau

    def _look_ahead(self, query: Query, text: str, n: int) -> Call:
        params = {"max_tokens": 1, "logprobs": True, "top_logprobs": self.top_logprobs, "temperature": 1.0}
        return self._continued(self.small, "probe", query, text, n, params)

    def _step(self, target: str, query: Query, text: str, n: int, used: int) -> Call:
        cap = min(self.step_tokens, self.budget_tokens - used)
        params = {"max_tokens": cap, "stop": [self.stop], "temperature": self.temperature, "top_p": self.top_p}
        return self._continued(target, "answer", query, text, n, params)

    def _continued(
        self,
        target: str,
        purpose: Literal["answer", "probe"],
        query: Query,
        text: str,
        n: int,
        params: dict[str, Any],
    ) -> Call:
        return Call(
            target=target,
            purpose=purpose,
            alone=True,
            sample=n,
            messages=_after(query, text),
            params={**(self.continuing if text else {}), **params},
        )

    def _answer(self, target: str, query: Query, text: str) -> Call:
        if not text:
            return Call(target=target)
        return Call(target=target, messages=_after(query, text + self.end), params=self.continuing)


def tokens(step: Outcome) -> int:
    """Count what a step took of the budget: as the target counted, or by its length; at least 1."""
    return max(1, -(-len(step.text) // CHARACTERS) if step.tokens is None else step.tokens.output)


def _after(query: Query, text: str) -> tuple[Message, ...]:
    """Return the messages, with the text so far as the assistant's, which is to be continued."""
    return (*query.messages, Message(role="assistant", content=text)) if text else query.messages
