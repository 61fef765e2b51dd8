"""Rounds: a router model thinks, asks other models part by part, and answers by itself.

Router-R1 (2025, arXiv 2506.09033): the router writes ``<think>…</think>`` and then either ``<search>Name:sub-question</search>``, which is put to the
target of that name, whose reply comes back as ``<information>…</information>``, or ``<answer>…</answer>``, which ends it. New targets join by their
description alone. The paper trains the router by reinforcement on a reward of format, correctness and cost (`fairlead.bench.shaping`); here any
target may be the router, trained or not.

What differs: each turn is a call of its own, with the episode so far in its prompt, where the paper goes on writing one text. What stands after the
first action of a reply is dropped, since a router may go on and invent the information by itself. "At most 4 turns" is read as: it may ask
four times, and then has one reply in which it must answer. Replies are cut at 600 tokens, counted as four characters each; the paper's limit
of 4096 tokens on the whole prompt is not kept, since turns and cuts bound it.

A reply that breaks the format, or names nobody known, is asked for again with what was wrong, `retries` times in all. Then, and if the router fails,
`default` answers the client's question. If that fails too, or a limit ends the rounds, the latest reply of an expert stands, for want of better.
What experts write is escaped: a tag in it is no tag, and ends nothing. Cost: one call of the router and one of an expert per turn; `within` bounds it.

Checked in tests/plans/test_rounds.py: the environment's rules, each format rule, injection, limits, failures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Final

from msgspec import Struct

from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import saying, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.tags import blocks, escape
from fairlead.types import Call, Do, Message, Outcome, Plan, Query, Steps

TAGS: Final = ("think", "search", "information", "answer")
CHARACTERS: Final = 4
"""What a token counts as."""
_ACTION: Final = re.compile(r"</(?:search|answer)>")
_WRONG: Final = {
    "tags": "its tags are not balanced, or stand inside each other",
    "think": "the first reply must begin with <think>",
    "answer": "it must end with one <search> or one <answer>",
    "information": "<information> is not yours to write",
    "name": "a <search> must hold the name of a model from the list, a colon and a question",
    "empty": "the answer is empty",
    "turns": "no more models can be asked; give the <answer>",
}


class Rounds(Struct, Plan, frozen=True, kw_only=True, tag="rounds", tag_field="kind", forbid_unknown_fields=True):
    """Let `router` ask `experts` (target -> what it is good at) up to `turns` times, and answer; `default` answers where it does not.

    `prompt` may have the fields question, experts, transcript and left (how often it may still ask). `router_tokens`, `expert_tokens`: how long a reply
    may be; `kept_tokens`: how much of an expert's reply the router sees.
    """

    router: str
    experts: dict[str, str]
    default: Plan
    turns: int = 4
    retries: int = 1
    prompt: Prompt | str = "rounds@1"
    router_tokens: int = 1024
    expert_tokens: int = 512
    kept_tokens: int = 600

    def __post_init__(self) -> None:
        prompts.check(self.prompt, "question", "experts", "transcript", "left")
        if not self.experts:
            raise ValueError("rounds need experts: the name of a target, and what it is good at")
        if min(self.turns, self.router_tokens, self.expert_tokens, self.kept_tokens) < 1 or self.retries < 0:
            raise ValueError("turns and tokens must be at least 1, retries at least 0")

    def __hash__(self) -> int:
        return hash((self.router, *sorted(self.experts), self.default, self.turns))

    def run(self, query: Query) -> Steps:
        """Think, ask, be told, until there is an answer."""
        episode = note = ""
        asked = replies = 0
        latest: Outcome | None = None
        try:
            # Each reply so far asked an expert, or was left out: those that were are the retries taken.
            while replies <= asked + self.retries:
                (reply,) = yield Do(branches=(self._turn(query, episode + note, self.turns - asked, replies),))
                if not reply.ok:
                    break
                replies += 1
                text = first_action(reply.text)
                if wrong := self._wrong(episode, text, asked):
                    note = f"\n(Your last reply was left out: {'; '.join(map(_WRONG.__getitem__, wrong))}.)"
                    continue
                action = (blocks(text, TAGS) or ())[-1]
                if action.tag == "answer":
                    return saying(reply, action.text, confidence=None, finish="stop")
                name, question = sub_query(action.text, self.experts) or ("", "")
                (found,) = yield Do(branches=(self._asked(name, question, asked),))
                latest = found if found.ok else latest
                episode += f"{text}\n<information>{self._seen(found)}</information>\n"
                note = ""
                asked += 1
            (outcome,) = yield Do(branches=(self.default,), final=True)
        except LimitReached:
            if latest is None:
                raise
            return latest
        return outcome if outcome.ok or outcome.streamed else latest or outcome

    def targets(self) -> tuple[str, ...]:
        """The router, the experts by name, those of `default`."""
        return targets_of(self.router, *sorted(self.experts), self.default)

    @classmethod
    def example(cls) -> Rounds:
        """A router and two experts."""
        return cls(router="a", experts={"b": "good at sums", "c": "good at words"}, default=Single(target="b"))

    def _turn(self, query: Query, transcript: str, left: int, sample: int) -> Call:
        return prompts.ask(
            self.router,
            self.prompt,
            query,
            purpose="plan",
            sample=sample,
            params={"max_tokens": self.router_tokens},
            experts="\n".join(f"{name}: {self.experts[name]}" for name in sorted(self.experts)),
            transcript=transcript.strip(),
            left=str(left),
        )

    def _asked(self, name: str, question: str, sample: int) -> Call:
        messages = (Message(role="user", content=question),)
        return Call(
            target=name, alone=True, sample=sample, messages=messages, params={"max_tokens": self.expert_tokens}
        )

    def _seen(self, found: Outcome) -> str:
        """Return what the router is told of an expert's reply. That of a failure is told, its message not."""
        if not found.ok:
            return f"(no reply: {found.error.kind if found.error is not None else 'cancelled'})"
        text, most = found.text.strip(), self.kept_tokens * CHARACTERS
        return escape(text if len(text) <= most else text[:most] + " …", TAGS)

    def _wrong(self, episode: str, text: str, asked: int) -> tuple[str, ...]:
        """Say what is wrong with a reply: the episode must be well formed if it is brought to its end in the shortest way."""
        found = blocks(text, TAGS)
        if not found:
            return ("tags",) if found is None else ("answer",)
        if found[-1].tag == "answer":
            return faults(episode + text, self.experts) or (() if found[-1].text else ("empty",))
        end = "<information></information><answer></answer>" if found[-1].tag == "search" else ""
        return faults(episode + text + end, self.experts) or (() if asked < self.turns else ("turns",))


def faults(episode: str, names: Collection[str]) -> tuple[str, ...]:
    """Name the format rules that a whole episode breaks; empty: it is well formed.

    ``tags``: unbalanced or nested (then nothing else is looked at). ``think``: it does not start with a thought. ``answer``: not exactly one, at the
    end. ``information``: not as often as a search. ``name``: a search that is not ``Name:query`` with a name in `names`.
    """
    found = blocks(episode, TAGS)
    if found is None:
        return ("tags",)
    count = Counter(b.tag for b in found)
    rules = {
        "think": episode.lstrip().startswith("<think>"),
        "answer": count["answer"] == 1 and episode.rstrip().endswith("</answer>"),
        "information": count["search"] == count["information"],
        "name": all(sub_query(b.text, names) is not None for b in found if b.tag == "search"),
    }
    return tuple(rule for rule, kept in rules.items() if not kept)


def sub_query(text: str, names: Collection[str]) -> tuple[str, str] | None:
    """Read ``Name:query``; None if no known name stands before a colon, or nothing after it. A name may hold colons: the longest counts."""
    for name in sorted(names, key=len, reverse=True):
        rest = text.removeprefix(name).lstrip()
        if text.startswith(name) and rest.startswith(":") and rest[1:].strip():
            return name, rest[1:].strip()
    return None


def first_action(text: str) -> str:
    """Return a reply up to its first search or answer; whole if it holds neither."""
    match = _ACTION.search(text)
    return text.strip() if match is None else text[: match.end()].strip()
