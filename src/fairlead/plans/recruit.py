"""Experts are recruited for each question by what it asks for: drawn at random, the likelier the better they are at it. Their chains are aggregated.

Symbolic-MoE, also Skill-MoE (2025, arXiv 2503.05641). The gate forecasts each expert (with the predictor `skills`: from the skills of the question), and

    weight_e = max(0, quality_e - floor)^power,    k draws with replacement, probability ~ weight

so an expert that stands out may answer twice (then as two samples). An expert at or below the floor is never drawn. The draws follow from a hash of the
query's id: the same question recruits the same experts, whatever their order. What experts wrote up to `end_of_thinking` is cut. Then the
`aggregator` reads all chains and writes the answer; without one, if it fails or says nothing, or an expert calls tools, the answers are voted on, each with
its expert's forecast as weight. The confidence is the share of that weight that said the same.

Differs from the paper. It draws by w = S * gamma (see `skills`); a plan sees forecasts alone, which keep the order of w and not its size, so the weight above
stands in for it. `floor` is the lowest forecast among the experts unless given: then the worst expert is never drawn, not even where all are good. The first
draw of an expert is asked as the client asked, further ones with `temperature`; the paper draws all at .7. With one chain there is nothing to
aggregate. A gate that fails, or forecasts all alike, recruits uniformly.

For a batch: `pruned` drops experts that would be drawn too seldom to be worth loading, `fairlead.worlds.batched` loads each expert once.
`choose_aggregator` finds who is best at telling a right chain from wrong ones, once per task, as in the paper.

It fails where the gate does: on GPQA the paper has 57.8% right, 42.6% with random recruits, 51.5% with a random aggregator. Cost: the gate, k experts side
by side, the aggregator. Checked in tests/plans/test_recruit.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import inf
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from fairlead.answers.base import check, groups, same
from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import final_failure, saying, targets_of
from fairlead.plans.gates import consult, forecasts
from fairlead.plans.prompts import Prompt
from fairlead.plans.vote import elect
from fairlead.types import Call, Do, Forecast, Outcome, Plan, Query, Steps

_ROUNDING: Final = 1e-12


class Recruit(Struct, Plan, frozen=True, kw_only=True, tag="recruit", tag_field="kind", forbid_unknown_fields=True):
    """Draw `k` of `experts` by the forecasts of `gate`, and have `aggregator` make one answer of theirs (None: a weighted vote).

    `prompt` may have the fields question and answers. `salt` tells apart plans that should draw differently for the same query.
    """

    gate: str
    experts: tuple[str, ...]
    k: Annotated[int, Meta(ge=1)] = 3
    aggregator: str | None = None
    power: float = 2.0
    floor: float | None = None
    temperature: float = 0.7
    end_of_thinking: str = "</think>"
    answers: str = "text"
    salt: str = ""
    prompt: Prompt | str = "aggregate@1"

    def __post_init__(self) -> None:
        if not self.experts or len(set(self.experts)) != len(self.experts):
            raise ValueError("recruit needs experts, each named once")
        if self.k < 1:
            raise ValueError("k must be at least 1")
        if not 0.0 <= self.power < inf or not 0.0 <= self.temperature < inf:
            raise ValueError("power and temperature must be finite and not negative")
        check(self.answers)
        prompts.check(self.prompt, "question", "answers")

    def run(self, query: Query) -> Steps:
        """Ask the gate, draw, ask the experts, aggregate."""
        (told,) = yield Do(branches=(consult(self.gate),))
        said = forecasts(told)
        team = drawn(shares(said, self.experts, power=self.power, floor=self.floor), query.id, k=self.k, salt=self.salt)
        calls = tuple(self._call(name, team[:i].count(name)) for i, name in enumerate(team))
        found = yield Do(branches=calls, final=len(calls) == 1)
        fault = next((o for o in found if o.streamed or final_failure(o)), None)
        if fault is not None and (fault.streamed or not any(o.ok for o in found)):
            return fault
        chains = [o if not o.ok else saying(o, self._cut(o.text)) for o in found]
        weights = [said[name].quality if name in said else 0.0 for name in team]
        if not any(weights):
            weights = [1.0] * len(team)
        elected = elect(chains, weights, self.answers)
        texts = [o.text for o in chains if o.ok and o.text.strip()]
        if self.aggregator is None or len(texts) < 2 or any(o.tool_calls is not None for o in chains):
            return elected
        call = prompts.ask(self.aggregator, self.prompt, query, purpose="merge", alone=False, answers=texts)
        try:
            (whole,) = yield Do(branches=(call,), final=True)
        except LimitReached:
            return elected
        if whole.streamed or (whole.ok and (whole.text.strip() or whole.tool_calls is not None)):
            of, *others = groups([whole, *chains], self.answers)
            agreed = sum(w for w, group in zip(weights, others, strict=True) if group == of)
            return replace(whole, confidence=None if of is None else agreed / sum(weights))
        return elected

    def targets(self) -> tuple[str, ...]:
        """The gate, the experts, the aggregator."""
        return targets_of(self.gate, *self.experts, self.aggregator)

    @classmethod
    def example(cls) -> Recruit:
        """A gate, three experts, an aggregator."""
        return cls(gate="a", experts=("b", "c", "d"), aggregator="e")

    def _call(self, name: str, sample: int) -> Call:
        return Call(target=name, sample=sample, params={"temperature": self.temperature} if sample else {})

    def _cut(self, text: str) -> str:
        """Return what stands after the last end of thinking."""
        return text.rpartition(self.end_of_thinking)[2] if self.end_of_thinking else text


def shares(
    told: Mapping[str, Forecast], experts: Sequence[str], *, power: float = 2.0, floor: float | None = None
) -> dict[str, float]:
    """Return the probability with which each expert is drawn, by name in rising order. Those without a forecast are not drawn; where that, or the floor,
    leaves nobody, all are alike."""
    names = sorted(experts)
    known = [told[name].quality for name in names if name in told]
    low = min(known, default=0.0) if floor is None else floor
    above = {name: max(0.0, told[name].quality - low) if name in told else 0.0 for name in names}
    weight = {name: above[name] ** power if above[name] > 0.0 else 0.0 for name in names}
    total = sum(weight.values())
    return {name: weight[name] / total if total > 0.0 else 1.0 / len(names) for name in names}


def drawn(shares: Mapping[str, float], id: str, *, k: int = 3, salt: str = "") -> tuple[str, ...]:
    """Draw `k` experts with replacement, each with the probability `shares` says, by a hash of the query's `id` and `salt`."""
    names = [name for name in sorted(shares) if shares[name] > 0.0]
    edges = list(accumulate(shares[name] for name in names))
    out = []
    for i in range(k):
        digest = blake2b(f"{salt}\0{i}\0{id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        at = int.from_bytes(digest, "big") / 2.0**64 * edges[-1]
        out.append(names[min(bisect_right(edges, at), len(names) - 1)])
    return tuple(out)


def pruned(shares: Mapping[str, float], least: float = 0.05) -> dict[str, float]:
    """Drop experts with less than `least` of a batch's draws, the rarest first (of equals the last by name), until there are none; the rest adds up to 1.

    `shares`: of all draws of the batch, in any unit: probabilities added up, or counts. At least one expert stays.

    Raises:
        ValueError: if no share is positive.
    """
    kept = {name: share for name, share in sorted(shares.items()) if share > 0.0}
    if not kept:
        raise ValueError("no expert is ever drawn; give shares of which at least one is positive")
    while len(kept) > 1:
        rarest = min(reversed(kept), key=lambda name: kept[name])
        if kept[rarest] >= least * sum(kept.values()) * (1.0 - _ROUNDING):
            break
        del kept[rarest]
    total = sum(kept.values())
    return {name: share / total for name, share in kept.items()}


class Item(Struct, frozen=True, kw_only=True):
    """A synthetic question to choose an aggregator by: one right chain and some wrong ones (the paper: two)."""

    query: Query
    answer: str
    right: str
    wrong: tuple[str, ...]


def choose_aggregator(
    names: Sequence[str],
    items: Sequence[Item],
    ask: Callable[[Call, Query], Outcome],
    *,
    answers: str = "text",
    prompt: Prompt | str = "aggregate@1",
) -> dict[str, float]:
    """Return how often each of `names` gave the right answer from chains in an order that follows from a hash; the best first, of equals by name.

    `ask` makes one call. A call that fails counts as wrong.

    Raises:
        ValueError: if there are no items.
    """
    if not items:
        raise ValueError("an aggregator is chosen by items; give at least one")
    right = dict.fromkeys(sorted(names), 0)
    for item in items:
        chains = sorted(
            (item.right, *item.wrong),
            key=lambda chain: blake2b(f"{item.query.id}\0{chain}".encode(errors="replace")).digest(),
        )
        for name in right:
            call = prompts.ask(name, prompt, item.query, purpose="merge", alone=False, answers=chains)
            outcome = ask(call, item.query)
            right[name] += outcome.ok and same(outcome.text, item.answer, answers)
    return {name: right[name] / len(items) for name in sorted(right, key=lambda n: -right[n])}
