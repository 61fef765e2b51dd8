"""A set of agents is named, they answer side by side, each alone, and a refiner makes one answer of theirs.

TCAR, "TCAndon-Router" (2026, arXiv 2601.04544). Who is asked is decided by one of two:

- `router`: a model that reads what every agent is good at, gives its reason, then names a set: ``<agents>billing, network</agents>``. A new agent
  joins by its description, with no training. The last block counts (a reason may mention another). Names are compared without regard to case;
  unknown ones are passed over, repeated ones count once, and of more than `most` the first stay. Where that leaves nobody (no block, an empty one,
  only strangers, a router that fails) `default` answers: never a guess, and never all of them.
- `gate` (ours, in the place of a model): the forecasts choose. With qualities sorted, q_0 >= q_1 >= …, the agent of rank k is asked if

      q_0 - q_k + size_penalty * k <= margin

  so alike agents are asked together, one that dominates alone, and each further one must be better still. Of equals the first by name. A gate that
  fails or names no agent: `default`.

One agent's answer is the answer, and can stream. Of several, those that failed are left out; if the others all say the same there is nothing to refine
(ours; `answers` compares). Else the refiner reads the question and the answers and writes one. Without a refiner, if it fails or says nothing, or an agent
calls tools, the majority answers, ties to the agent named first. The confidence is the share of the named agents that said the same. If nobody
answers, `default` does.

The paper's router is trained (rewards: `fairlead.bench.shaping.set_reward`; what to train on: `undecided`, `mixed` there); any model that can follow
the prompt does here, less well. The cap and the size penalty are ours: the paper bounds neither. It fails where questions are vague, where
descriptions lack the words that people use, and where a reason and the set differ, which nobody checks; with many agents the prompt grows long.

Cost: the router's call, at most `most` agents side by side, and the refiner's call if they were several and differ. Checked in
tests/plans/test_refine.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Mapping
from html import escape
from math import inf
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from fairlead.answers.base import check, groups
from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import final_failure, targets_of
from fairlead.plans.gates import consult, forecasts
from fairlead.plans.prompts import Prompt
from fairlead.plans.vote import elect
from fairlead.types import Call, Do, Forecast, Outcome, Plan, Query, Steps

_NAMED: Final = re.compile(r"<agents>((?:(?!<agents>).)*?)</agents>", re.I | re.S)
_TAG: Final = re.compile(r"</?\w+>")
_AROUND: Final = " \t\"'`*-.[]"


class Refine(Struct, Plan, frozen=True, kw_only=True, tag="refine", tag_field="kind", forbid_unknown_fields=True):
    """Ask those of `agents` (target -> what it is good at) that the `router` names, or the `gate` forecasts best, and refine what they say.

    `prompt` may have the fields question and agents, `refining` question and answers.
    """

    agents: dict[str, str]
    default: str
    router: str | None = None
    gate: str | None = None
    refiner: str | None = None
    most: Annotated[int, Meta(ge=1)] = 3
    margin: float = 0.1
    size_penalty: float = 0.02
    answers: str = "text"
    prompt: Prompt | str = "agents@1"
    refining: Prompt | str = "refine@1"

    def __post_init__(self) -> None:
        if not self.agents:
            raise ValueError("refine needs agents: the name of a target, and what it is good at")
        if (self.router is None) == (self.gate is None):
            raise ValueError("either a router or a gate names the agents: give one of them")
        if self.most < 1:
            raise ValueError("most must be at least 1")
        if not (0.0 <= self.margin < inf and 0.0 <= self.size_penalty < inf):
            raise ValueError("margin and size_penalty must be finite and not negative")
        check(self.answers)
        prompts.check(self.prompt, "question", "agents")
        prompts.check(self.refining, "question", "answers")

    def __hash__(self) -> int:
        return hash((*sorted(self.agents), self.default, self.router, self.gate, self.refiner, self.most))

    def run(self, query: Query) -> Steps:
        """Have agents named, ask them, refine."""
        chosen = yield from self._chosen(query)
        if len(chosen) == 1:
            (only,) = yield Do(branches=(Call(target=chosen[0]),), final=True)
            found: tuple[Outcome, ...] = (only,)
        else:
            found = yield Do(branches=tuple(Call(target=name) for name in chosen))
        good = [o for o in found if o.ok]
        if not good:
            fault = next((o for o in found if o.streamed or final_failure(o)), None)
            if fault is not None or self.default in chosen:
                return fault or found[0]
            try:
                (answer,) = yield Do(branches=(Call(target=self.default),), final=True)
            except LimitReached:
                return found[0]
            return answer if answer.ok or answer.streamed else found[0]
        if len(found) == 1:
            return good[0]
        elected = elect(found, [1.0] * len(found), self.answers)
        texts = [o.text for o in good if o.text.strip()]
        kinds = groups(good, self.answers)
        alike = None not in kinds and len(set(kinds)) == 1
        if self.refiner is None or alike or len(texts) < 2 or any(o.tool_calls is not None for o in good):
            return elected
        call = prompts.ask(self.refiner, self.refining, query, purpose="merge", alone=False, answers=texts)
        try:
            (refined,) = yield Do(branches=(call,), final=True)
        except LimitReached:
            return elected
        if refined.streamed or (refined.ok and (refined.text.strip() or refined.tool_calls is not None)):
            return _confident(refined, found, self.answers)
        return elected

    def targets(self) -> tuple[str, ...]:
        """The router or gate, the agents by name, the default, the refiner."""
        return targets_of(self.router, self.gate, *sorted(self.agents), self.default, self.refiner)

    @classmethod
    def example(cls) -> Refine:
        """A router, three agents, a refiner."""
        agents = {"b": "sums and figures", "c": "words and texts", "d": "dates and places"}
        return cls(router="a", agents=agents, default="b", refiner="e")

    def _chosen(self, query: Query) -> Generator[Do, tuple[Outcome, ...], tuple[str, ...]]:
        """Ask who is to answer. Where nobody can be named: the default alone."""
        if self.gate is not None:
            (told,) = yield Do(branches=(consult(self.gate),))
            chosen = within(
                forecasts(told), self.agents, most=self.most, margin=self.margin, size_penalty=self.size_penalty
            )
        else:
            assert self.router is not None
            call = prompts.ask(self.router, self.prompt, query, purpose="plan", agents=described(self.agents))
            (told,) = yield Do(branches=(call,))
            chosen = named(told.text, self.agents, most=self.most) if told.ok else ()
        return chosen or (self.default,)


def named(reply: str, known: Collection[str], *, most: int) -> tuple[str, ...]:
    """Read the set of agents off what a router wrote: those of `known` in its last block of agents, at most `most`; empty if there are none."""
    found = _NAMED.findall(reply)
    if not found:
        return ()
    exact = {name.casefold(): name for name in sorted(known)}
    names = (part.strip(_AROUND) for part in re.split(r"[,;\n]", _TAG.sub(",", found[-1])))
    here = (name if name in known else exact.get(name.casefold()) for name in names)
    return tuple(dict.fromkeys(name for name in here if name is not None))[:most]


def within(
    told: Mapping[str, Forecast], known: Collection[str], *, most: int, margin: float, size_penalty: float
) -> tuple[str, ...]:
    """Choose the set of agents by their forecasts: all within `margin` of the best, less `size_penalty` for each already in. Best first."""
    order = sorted((name for name in known if name in told), key=lambda name: (-told[name].quality, name))
    return tuple(
        name
        for k, name in enumerate(order[:most])
        if told[order[0]].quality - told[name].quality + size_penalty * k <= margin
    )


def described(agents: Mapping[str, str]) -> str:
    """Write what each agent is good at, for a router to read, in the order of their names."""
    return "\n".join(
        f'<agent name="{escape(name)}">{escape(agents[name], quote=False)}</agent>' for name in sorted(agents)
    )


def _confident(refined: Outcome, found: tuple[Outcome, ...], how: str) -> Outcome:
    """Return what the refiner said with the share of agents that said the same."""
    of, *others = groups([refined, *found], how)
    return replace(refined, confidence=None if of is None else others.count(of) / len(others))
