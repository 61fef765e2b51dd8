"""What every world shares: limits, the meter that keeps them, and the record of a run.

A limit works at two places. Before each step: if the spend, the calls or the time are used up, `LimitReached` is thrown into the
plan, which may return its best answer so far. Before each call: the call's estimated cost is reserved; a call that does not fit
is not made and comes back as a failure of kind ``budget``. So branches that run side by side cannot overspend together, as far as
the estimate is an upper bound. Under a limit on spend a call of unknown price is not made either.

What an abandoned call cost (timed out, broken off, cancelled, unreadable) nobody tells, but it may well be billed: it is charged the
estimate, or is unknown where there is none, and is never zero. A call that was refused or never reached its target costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import fsum, inf
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from fairlead.errors import LimitReached, OutOfBudget, OutOfTime
from fairlead.types import UNLIMITED, Call, Do, Failure, Late, Limits, Outcome, Plan, Query, Step, Tokens

Estimate: TypeAlias = Callable[[Call, Query], float | None]
"""Upper bound of one call's cost in USD; None where no price is known."""
Cover: TypeAlias = Callable[[float], bool]
"""Hold so many USD for a run in all, out of what many runs share; False if so much is not left."""
More: TypeAlias = Callable[[float], Awaitable[bool]]
"""Fetch what is missing for a `Cover` to hold so many USD; False if it is not to be had."""

_ABANDONED = frozenset({"broken_stream", "client_gone", "deadline", "malformed", "timeout"})

PATIENCE = 100
"""How often a plan may ask again after a limit was thrown into it before its world ends it."""


class Run(Struct, frozen=True, kw_only=True):
    """A plan that has been run: its answer, every call, and what they took together."""

    outcome: Outcome
    steps: tuple[Step, ...]
    usd: float | None
    """None if a call's price is unknown."""
    seconds: float
    tokens: Tokens

    @classmethod
    def of(cls, outcome: Outcome, steps: list[Step], seconds: float) -> Run:
        """Sum up."""
        if len(steps) > 1:
            steps = sorted(steps, key=lambda s: s.path)  # the same story in whatever order the calls came back
        calls = [s.outcome for s in steps if s.call is not None]
        # A call that failed before it cost anything reports no price: that is zero, not unknown.
        known = [o.usd for o in calls if o.usd is not None or may_cost(o)]
        # fsum: the same total in whatever order the calls came back.
        usd = None if None in known else fsum(known)  # type: ignore[arg-type]
        counts = [o.tokens for o in calls if o.tokens is not None]
        limited = _limited(steps) if outcome.ok else ""
        if limited != outcome.limited:
            outcome = msgspec.structs.replace(outcome, limited=limited)
        return cls(
            outcome=outcome,
            steps=tuple(steps),
            usd=usd,
            seconds=seconds,
            tokens=counts[0] if len(counts) == 1 else add_tokens(counts),
        )


def _limited(steps: list[Step]) -> Literal["", "budget", "deadline"]:
    """Name the limit that ended a step or kept a call from being made, if one did."""
    for step in steps:
        if (error := step.outcome.error) is not None and (error.kind == "budget" or error.kind == "deadline"):
            return error.kind
    return ""


def may_cost(outcome: Outcome) -> bool:
    """Whether the target may have worked for this outcome, and charged: not if it refused, or was never reached."""
    error = outcome.error
    if error is None:
        return True
    refused = error.status is not None and error.status >= 400 and not outcome.streamed
    return (error.kind in _ABANDONED or error.sent) and not refused


def add_tokens(counts: list[Tokens]) -> Tokens:
    """Add token counts kind by kind."""
    return Tokens(**{kind: sum(getattr(t, kind) for t in counts) for kind in Tokens.__struct_fields__})


class Meter:
    """Keeps one run, or one step of it, within its limits. What a step's meter counts, the meters around it count too."""

    __slots__ = ("begun_seconds", "calls", "cover", "estimate", "limits", "parent", "reserved_usd", "spent_usd")

    def __init__(
        self,
        limits: Limits,
        estimate: Estimate | None = None,
        cover: Cover | None = None,
        *,
        parent: Meter | None = None,
        begun_seconds: float = 0.0,
    ) -> None:
        self.limits = limits
        self.estimate = estimate
        self.cover = cover
        self.parent = parent
        self.begun_seconds = begun_seconds
        self.spent_usd = 0.0
        self.reserved_usd = 0.0
        self.calls = 0

    def within(self, limits: Limits | None, elapsed_seconds: float) -> Meter:
        """Return the meter of a step that begins now and has limits of its own; this one if it has none."""
        if limits is None:
            return self
        return Meter(limits, self.estimate, parent=self, begun_seconds=elapsed_seconds)

    def left_seconds(self, elapsed_seconds: float) -> float:
        """Return the time that is left, the run's and the step's; below 0 if it is over."""
        left = self.limits.seconds - (elapsed_seconds - self.begun_seconds)
        return left if self.parent is None else min(left, self.parent.left_seconds(elapsed_seconds))

    def stop(self, elapsed_seconds: float) -> LimitReached | None:
        """Say whether the next step may begin."""
        limits = self.limits
        if limits is UNLIMITED and self.parent is None:
            return None
        usd = self.spent_usd + self.reserved_usd
        # At the limit itself a call that costs nothing still fits: `reserve` decides, if it can tell.
        if usd > limits.usd or (usd == limits.usd and self.estimate is None):
            return OutOfBudget(f"{self.spent_usd:.6f} USD of {limits.usd:.6f} are spent")
        if self.calls >= limits.calls:
            return OutOfBudget(f"all {limits.calls:g} calls are made")
        if elapsed_seconds - self.begun_seconds >= limits.seconds:
            return OutOfTime(f"the deadline of {limits.seconds:g} s has passed")
        return None if self.parent is None else self.parent.stop(elapsed_seconds)

    def reserve(self, call: Call, query: Query) -> float | Failure:
        """Set aside what `call` may cost; a `Failure` if it does not fit."""
        if self.limits is UNLIMITED and self.cover is None and self.parent is None:
            self.calls += _counts(call)
            return 0.0
        meters = self._chain()
        usd: float | None = 0.0
        if self.estimate is not None:
            for meter in meters:
                if meter.cover is not None or meter.limits.usd < inf:
                    usd = self.estimate(call, query)
                    break
        if usd is None:
            message = (
                f"the price of {call.target} is unknown, so its limit on spend cannot be kept; give its profile prices"
            )
            return Failure(kind="budget", message=message)
        for meter in meters:
            if why := meter._refusal(call, usd):
                return Failure(kind="budget", message=why)
        for meter in meters:
            meter.calls += _counts(call)
            meter.reserved_usd += usd
        return usd

    def _chain(self) -> tuple[Meter, ...]:
        return (self,) if self.parent is None else (self, *self.parent._chain())

    def _refusal(self, call: Call, usd: float) -> str:
        """Say why one more call of at most so many USD does not fit; nothing if it does."""
        if self.spent_usd + self.reserved_usd + usd > self.limits.usd:
            return f"a call to {call.target} may cost {usd:.6f} USD, more than is left"
        if self.calls + _counts(call) > self.limits.calls:
            return f"all {self.limits.calls:g} calls are made"
        if self.cover is not None and not self.cover(self.spent_usd + self.reserved_usd + usd):
            return f"a call to {call.target} may cost {usd:.6f} USD, more than is left of the route's budget"
        return ""

    def priced(self, call: Call, query: Query, outcome: Outcome) -> Outcome:
        """Return `outcome`, with the estimate as its cost if it was abandoned and did not tell."""
        if outcome.usd is None and self.estimate is not None and not outcome.ok and may_cost(outcome):
            return msgspec.structs.replace(outcome, usd=self.estimate(call, query))
        return outcome

    def settle(self, reserved_usd: float, outcome: Outcome) -> float | None:
        """Give back what was set aside and charge what the call really cost, or what was set aside if it does not tell.

        Returns:
            The charge for a call that does not tell; None if it does, or nothing was set aside.
        """
        charge = _charge(reserved_usd, outcome)
        for meter in self._chain():
            meter.reserved_usd -= reserved_usd
            meter.spent_usd += charge
        return charge if outcome.usd is None and charge else None

    def strike(self, call: Call, reserved_usd: float, outcome: Outcome) -> None:
        """Take back a call that in the end was never begun (virtual time alone knows such)."""
        for meter in self._chain():
            meter.calls -= _counts(call)
            meter.spent_usd -= _charge(reserved_usd, outcome)


def _counts(call: Call) -> int:
    """Return how many calls it is against a limit: a gate's is none, since nothing is generated."""
    return 0 if call.purpose == "gate" else 1


def _charge(reserved_usd: float, outcome: Outcome) -> float:
    if outcome.usd is not None:
        return outcome.usd
    return reserved_usd if may_cost(outcome) else 0.0


def answered(plan: Plan, value: Any) -> Outcome:
    """Return what a plan returned: a failure if that is no outcome."""
    if isinstance(value, Outcome):
        return value
    message = f"plan broke: {type(plan).__name__} returned {type(value).__name__}, not an outcome"
    return Outcome(error=Failure(kind="internal", message=message))


def halted(reached: LimitReached) -> Failure:
    """Name the limit that ended a plan."""
    return Failure(kind="deadline" if isinstance(reached, OutOfTime) else "budget", message=str(reached))


def delays(do: Do, late: Callable[[Late], float]) -> tuple[float, ...]:
    """Return when each branch of `do` starts, in seconds from the step; ``inf``: only if all that have started fail. `late` reads a rule.

    Raises:
        ValueError: if the step does not make sense; the world reports it as a broken plan.
    """
    if do.need is not None and do.need < 1:
        raise ValueError(f"a step must need at least 1 answer, not {do.need}")
    if do.after is None:
        return (0.0,) * len(do.branches)
    if len(do.after) != len(do.branches):
        raise ValueError(f"{len(do.branches)} branches have {len(do.after)} start times")
    rules = [isinstance(a, Late) for a in do.after]
    if any(rules) and (do.need is None or all(rules)):
        raise ValueError("a duplicate needs a call that it duplicates, and a number of answers that is enough")
    after = tuple(late(a) if isinstance(a, Late) else a for a in do.after)
    if not all(a >= 0.0 for a in after) or min(after) == inf or (do.need is None and inf in after):
        raise ValueError(
            f"branches that start at {', '.join(map(str, after))} s would not all be started or waited for"
        )
    return after
