"""Actions: what is done around a plan, before and after it: refuse, mask, answer from the cache, check the answer, tag.

A rule or a guard names actions; the decision records their names; the router does them. An action holds the rest in its hand, as
middleware does: it is given the query on its way (`Passage`) and `proceed`, which does the rest and returns the answer. So it may

- answer at once, and never proceed (block, a cache hit);
- change the query that the plan will see, or wrap the plan in another (mask, retry on a stronger target);
- put itself between the plan and the client's stream (restore what was masked);
- look at the answer, and change it.

An action proceeds once, or not at all: what may run twice, a retry say, is a plan.

Actions nest in the order of their class's `order`, smallest outermost, whatever the order in which they are named: a text is
masked before it becomes a cache's key, and what comes out of the cache is unmasked after. An action is not a plan: plans do no I/O and run
in every world, while an action may keep a cache or wait for another request. What can be a plan should be one.

An action keeps nothing about a request in itself; a fault of its own is the request's fault (it raises), never silence: a mask that breaks
must not send what it should have masked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeAlias

from fairlead.component import Component
from fairlead.ledger import Hold
from fairlead.types import Act, Decision, Feedback, Outcome, Plan, Query, Signals, Sink, Trace
from fairlead.worlds.base import Run
from fairlead.worlds.live import LiveRun


class Passage:
    """One query on its way through the actions to its plan and back.

    What stands in `query`, `plan` and `sink` when the innermost is reached is what runs. `query` is also what the trace keeps, so an
    action that stops a query for what it holds puts a blanked one in its place.
    """

    __slots__ = (
        "acts",
        "answered",
        "deadline_seconds",
        "decision",
        "hold",
        "keep_text",
        "plan",
        "query",
        "result",
        "run",
        "signals",
        "sink",
        "tags",
    )

    def __init__(self, *, query: Query, signals: Signals, decision: Decision, plan: Plan, sink: Sink | None) -> None:
        self.query, self.signals, self.decision, self.plan, self.sink = query, signals, decision, plan, sink
        self.acts: list[Act] = []
        """What was done so far, for the trace."""
        self.tags: dict[str, str] = {}
        """Told to the client in headers ``x-fairlead-tag-…``; a stream's go out with its first byte."""
        self.keep_text = True
        """False: the trace keeps this query's texts as blanks. So it begins where an action that `hides` is to be done."""
        self.deadline_seconds = query.constraints.deadline_seconds
        """Time left for the plan; an action that waits takes off what it waited."""
        self.answered: Outcome | None = None
        """What the innermost action that did not proceed answered with: that, not what came of it outside, is for the trace."""
        self.run: LiveRun | None = None
        """The plan being run, once it is."""
        self.result: Run | None = None
        """What came of it."""
        self.hold: Hold | None = None
        """What it holds on the accounts that pay for it."""

    def note(self, action: Action, did: str, *, seconds: float = 0.0, **detail: bool | int | float | str) -> None:
        """Write down what `action` did: for the record, so never the text it saw."""
        self.acts.append(Act(name=action.type_name(), did=did, detail=detail, seconds=seconds))


Proceed: TypeAlias = Callable[[Passage], Awaitable[Outcome]]


class Action(Component, ABC):
    """One thing to do around a plan. Members implement `act` and set `order`."""

    family: ClassVar[str] = "actions"
    order: ClassVar[int]
    """Where it nests: 5 tag, 10 refuse, 20 mask, 30 cache, 40 change the prompt, 50 check the answer."""

    @property
    def hides(self) -> bool:
        """Whether it keeps what was asked from being kept: until it has done so, and sets `Passage.keep_text`, texts are traced as blanks."""
        return False

    @property
    def names(self) -> tuple[str, ...]:
        """Targets that it may turn to: a config must have them."""
        return ()

    async def start(self) -> None:
        """Open what is needed. Called once, in the event loop that will call `act`."""

    async def stop(self) -> None:
        """Close what `start` opened."""

    async def judged(self, trace: Trace, feedback: Feedback, weight: float) -> None:
        """Hear how an answer was judged around which this was done, and how much that counts, in [0, 1]."""

    @abstractmethod
    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        """Do it, and `proceed` with the rest unless this is the answer. Notes what was done by `passage.note`.

        Must pass on cancellation. A failure of the plan is an outcome with `error` set: it is passed on.
        """
