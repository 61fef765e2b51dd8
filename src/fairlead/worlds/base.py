"""What every world shares: limits, the meter that keeps them, and the record of a run.

A limit works at two places. Before each step: if the spend, the calls or the time are used up, `LimitReached` is thrown into the
plan, which may return its best answer so far. Before each call: the call's estimated cost is reserved; a call that does not fit
is not made and comes back as a failure of kind ``budget``. So branches that run side by side cannot overspend together, as far as
the estimate is an upper bound. Under a limit on spend a call of unknown price is not made either.

What an abandoned call cost (timed out, broken off, cancelled, unreadable) nobody tells, but it may well be billed: it is charged the
estimate, or is unknown where there is none, and is never zero. A call that was refused or never reached its target costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import fsum, inf
from typing import TypeAlias

import msgspec
from msgspec import Struct

from fairlead.errors import LimitReached, OutOfBudget, OutOfTime
from fairlead.types import Call, Constraints, Do, Failure, Outcome, Query, Step, Tokens

Estimate: TypeAlias = Callable[[Call, Query], float | None]
"""Upper bound of one call's cost in USD; None where no price is known."""
Cover: TypeAlias = Callable[[float], bool]
"""Hold so many USD for a run in all, out of what many runs share; False if so much is not left."""

_ABANDONED = frozenset({"broken_stream", "client_gone", "deadline", "malformed", "timeout"})

PATIENCE = 100
"""How often a plan may ask again after a limit was thrown into it before its world ends it."""


class Limits(Struct, frozen=True, kw_only=True):
    """What one run may take, all its calls together."""

    usd: float = inf
    seconds: float = inf
    calls: float = inf

    @classmethod
    def of(cls, constraints: Constraints) -> Limits:
        """Read the limits off a query's constraints."""
        c = constraints
        if c.max_usd is None and c.deadline_seconds is None and c.max_calls is None:
            return UNLIMITED
        return cls(
            usd=inf if c.max_usd is None else c.max_usd,
            seconds=inf if c.deadline_seconds is None else c.deadline_seconds,
            calls=inf if c.max_calls is None else c.max_calls,
        )


UNLIMITED = Limits()


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
        calls = [s.outcome for s in steps if s.call is not None]
        # A call that failed before it cost anything reports no price: that is zero, not unknown.
        known = [o.usd for o in calls if o.usd is not None or may_cost(o)]
        # fsum: the same total in whatever order the calls came back.
        usd = None if any(u is None for u in known) else fsum(u for u in known if u is not None)
        counts = [o.tokens for o in calls if o.tokens is not None]
        return cls(
            outcome=outcome,
            steps=tuple(sorted(steps, key=lambda s: s.path)),
            usd=usd,
            seconds=seconds,
            tokens=counts[0] if len(counts) == 1 else add_tokens(counts),
        )


def may_cost(outcome: Outcome) -> bool:
    """Whether the target may have worked for this outcome, and charged: not if it refused, or was never reached."""
    error = outcome.error
    if error is None:
        return True
    refused = error.status is not None and error.status >= 400 and not outcome.streamed
    return error.kind in _ABANDONED and not refused


def add_tokens(counts: list[Tokens]) -> Tokens:
    """Add token counts kind by kind."""
    return Tokens(
        input=sum(t.input for t in counts),
        cached_input=sum(t.cached_input for t in counts),
        output=sum(t.output for t in counts),
        reasoning=sum(t.reasoning for t in counts),
    )


class Meter:
    """Keeps one run within its limits."""

    __slots__ = ("calls", "cover", "estimate", "limits", "reserved_usd", "spent_usd")

    def __init__(self, limits: Limits, estimate: Estimate | None = None, cover: Cover | None = None) -> None:
        self.limits = limits
        self.estimate = estimate
        self.cover = cover
        self.spent_usd = 0.0
        self.reserved_usd = 0.0
        self.calls = 0

    def stop(self, elapsed_seconds: float) -> LimitReached | None:
        """Say whether the next step may begin."""
        limits = self.limits
        if limits is UNLIMITED:
            return None
        usd = self.spent_usd + self.reserved_usd
        # At the limit itself a call that costs nothing still fits: `reserve` decides, if it can tell.
        if usd > limits.usd or (usd == limits.usd and self.estimate is None):
            return OutOfBudget(f"{self.spent_usd:.6f} USD of {limits.usd:.6f} are spent")
        if self.calls >= limits.calls:
            return OutOfBudget(f"all {limits.calls:g} calls are made")
        if elapsed_seconds >= limits.seconds:
            return OutOfTime(f"the deadline of {limits.seconds:g} s has passed")
        return None

    def reserve(self, call: Call, query: Query) -> float | Failure:
        """Set aside what `call` may cost; a `Failure` if it does not fit."""
        limits = self.limits
        if limits is UNLIMITED and self.cover is None:
            self.calls += 1
            return 0.0
        bounded = limits.usd < inf or self.cover is not None
        usd = self.estimate(call, query) if self.estimate is not None and bounded else 0.0
        if usd is None:
            message = (
                f"the price of {call.target} is unknown, so its limit on spend cannot be kept; give its profile prices"
            )
            return Failure(kind="budget", message=message)
        if self.spent_usd + self.reserved_usd + usd > limits.usd:
            return Failure(kind="budget", message=f"a call to {call.target} may cost {usd:.6f} USD, more than is left")
        if self.calls + 1 > limits.calls:
            return Failure(kind="budget", message=f"all {limits.calls:g} calls are made")
        if self.cover is not None and not self.cover(self.spent_usd + self.reserved_usd + usd):
            message = f"a call to {call.target} may cost {usd:.6f} USD, more than is left of the route's budget"
            return Failure(kind="budget", message=message)
        self.calls += 1
        self.reserved_usd += usd
        return usd

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
        self.reserved_usd -= reserved_usd
        charge = _charge(reserved_usd, outcome)
        self.spent_usd += charge
        return charge if outcome.usd is None and charge else None

    def strike(self, reserved_usd: float, outcome: Outcome) -> None:
        """Take back a call that in the end was never begun (virtual time alone knows such)."""
        self.calls -= 1
        self.spent_usd -= _charge(reserved_usd, outcome)


def _charge(reserved_usd: float, outcome: Outcome) -> float:
    if outcome.usd is not None:
        return outcome.usd
    return reserved_usd if may_cost(outcome) else 0.0


def halted(reached: LimitReached) -> Failure:
    """Name the limit that ended a plan."""
    return Failure(kind="deadline" if isinstance(reached, OutOfTime) else "budget", message=str(reached))


def delays(do: Do) -> tuple[float, ...]:
    """Return when each branch of `do` starts, in seconds from the step.

    Raises:
        ValueError: if the step does not make sense; the world reports it as a broken plan.
    """
    if do.need is not None and do.need < 1:
        raise ValueError(f"a step must need at least 1 answer, not {do.need}")
    if do.after is None:
        return (0.0,) * len(do.branches)
    if len(do.after) != len(do.branches):
        raise ValueError(f"{len(do.branches)} branches have {len(do.after)} start times")
    return do.after
