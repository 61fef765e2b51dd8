"""Ask a cheap target several times; how many different answers come back decides how much of the ensemble wakes.

ACAR (2026, arXiv 2602.21231). Of N draws of the probe, with an answer that cannot be read, or a failure, as one of its own kind each time:

    sigma = (kinds of answers - 1) / (N - 1)

    sigma = 0  ``single_agent``: the answer of the first draw
    between    ``arena_lite``: the `checks` answer too; the majority of draws and checks, ties to the draws' majority
    sigma = 1  ``full_arena``: the `panel` answers; the `judge` picks one of its different answers

Three failures are three kinds, so they never look like agreement. The first draw that calls tools is the answer, and nobody else is asked. The paper does not give the probe's temperature, nor how a disagreement with
the checks is settled: both are chosen here, and the first is a parameter. It shows its judge all answers; here equivalent ones once, and where
all agree there is nothing to ask. A judge that fails, or names nobody, is passed over: the panel votes, ties to its earlier member. If nobody of the
panel answers, the draws' own best stands. The answer's confidence is the share of agreement: of the draws, of draws and checks, or of the panel.

It fails where all draws share one error: then sigma is 0 and nothing downstream is asked. The paper's other loss, answers made worse by past
experience put into prompts without a floor of similarity, cannot happen: nothing is injected, draws and panel see the request as it came. Its
state machine of runs and artefacts is not there either: a trace is written once, at the end, and appended to a hash chain.

`mode_of` reads the mode off a trace. Cost: N calls at least; N + checks; N + panel + 1 at most. Checked in tests/plans/test_sigma.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from fairlead.answers.base import Group, check, groups
from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import calling, final_failure, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.verdicts import picked
from fairlead.plans.vote import draws
from fairlead.types import Do, Outcome, Path, Plan, Query, Step, Steps

Mode: TypeAlias = Literal["single_agent", "arena_lite", "full_arena"]
_FIRST: Final = 0
"""The step at which the probe is drawn."""


class Sigma(Struct, Plan, frozen=True, kw_only=True, tag="sigma", tag_field="kind", forbid_unknown_fields=True):
    """Draw `probe` `samples` times; then nobody, the `checks`, or the `panel` and the `judge`. The first draw is asked as the client asked, the
    others with `temperature`."""

    probe: str
    checks: tuple[Plan, ...]
    panel: tuple[Plan, ...]
    judge: str
    samples: int = 3
    answers: str = "text"
    temperature: float = 0.8
    prompt: Prompt | str = "judge@1"

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError("samples must be at least 2: one draw agrees with itself")
        if not self.temperature > 0.0:
            raise ValueError("temperature must be above 0: else all draws are alike, and sigma is always 0")
        if not self.checks or not self.panel:
            raise ValueError("sigma needs at least one check and one member of the panel")
        check(self.answers)
        prompts.check(self.prompt, "question", "answers")

    def run(self, query: Query) -> Steps:
        """Draw, and go on as far as the draws disagree."""
        probes = yield Do(branches=tuple(draws(Single(target=self.probe), self.samples, self.temperature)))
        at_fault = [o for o in probes if final_failure(o)]
        if at_fault and not any(o.ok for o in probes):
            return at_fault[0]
        if (called := calling(probes)) is not None:
            return called
        own = groups(probes, self.answers)
        best = _voted(probes, own)
        mode = _mode(sigma(own))
        if mode == "single_agent":
            return best
        try:
            if mode == "arena_lite":
                heard = (*probes, *(yield Do(branches=self.checks)))
                return _voted(heard, groups(heard, self.answers), first=self.samples)
            panel = yield Do(branches=self.panel)
        except LimitReached:
            if not best.ok:
                raise
            return best
        if not any(o.ok for o in panel):
            return best
        votes = groups(panel, self.answers)
        chosen = _voted(panel, votes)
        # One candidate of each kind; what cannot be read is one all the same, as long as it says something.
        kinds: dict[int, int] = {}
        for i, (outcome, group) in enumerate(zip(panel, votes, strict=True)):
            if outcome.ok and outcome.text.strip():
                kinds.setdefault(-1 - i if group is None else group, i)
        different = [*kinds.values()]
        if len(different) < 2:
            return chosen
        texts = [panel[i].text for i in different]
        try:
            (verdict,) = yield Do(
                branches=(prompts.ask(self.judge, self.prompt, query, purpose="judge", answers=texts),)
            )
        except LimitReached:
            return chosen
        number = picked(verdict, len(different))
        if number is None:
            return chosen
        i = different[number]
        return replace(panel[i], confidence=_share(votes, votes[i]))

    def targets(self) -> tuple[str, ...]:
        """The probe, then those of the checks, of the panel, and the judge."""
        return targets_of(self.probe, *self.checks, *self.panel, self.judge)

    def mode_of(self, steps: Iterable[Step], path: Path = ()) -> tuple[float, Mode]:
        """Read sigma and the mode off the steps of a trace that keeps texts. `path`: where this plan stands in the plan that ran.

        The mode is what the draws called for: a limit may have kept the plan from it, and the answer then says that it was limited.
        """
        drawn = {s.path[-1]: s.outcome for s in steps if s.call is not None and s.path[:-1] == (*path, _FIRST)}
        if calling(drawn.values()) is not None:
            return 0.0, "single_agent"
        found = sigma(groups([drawn.get(i, Outcome(cancelled=True)) for i in range(self.samples)], self.answers))
        return found, _mode(found)

    @classmethod
    def example(cls) -> Sigma:
        """A probe, two checks, a panel of three, and a judge."""
        checks, panel = (tuple(Single(target=name) for name in names) for names in ("bc", "bcd"))
        return cls(probe="a", checks=checks, panel=panel, judge="e")


def sigma(answers: Sequence[Group]) -> float:
    """Return how much answers disagree, from 0 to 1, by the groups they are in; one that is in no group is a kind of its own."""
    kinds = len({g for g in answers if g is not None}) + sum(1 for g in answers if g is None)
    return (kinds - 1) / (len(answers) - 1)


def _mode(sigma: float) -> Mode:
    return "single_agent" if sigma == 0.0 else "full_arena" if sigma == 1.0 else "arena_lite"


def _share(votes: Sequence[Group], group: Group) -> float:
    return 0.0 if group is None else votes.count(group) / len(votes)


def _voted(outcomes: Sequence[Outcome], votes: Sequence[Group], *, first: int = 0) -> Outcome:
    """Return the first outcome that gave the answer of most, with its share as its confidence; ties go to what most of the `first` ones said,
    then to the earliest. If no answer can be read: the first good outcome, else the first failure."""
    counts, before = Counter(g for g in votes if g is not None), Counter(votes[:first])
    if counts:
        winner = max(counts, key=lambda g: (counts[g], before[g], -g))
        return replace(outcomes[votes.index(winner)], confidence=_share(votes, winner))
    good = next((o for o in outcomes if o.ok), None)
    return outcomes[0] if good is None else replace(good, confidence=0.0)
