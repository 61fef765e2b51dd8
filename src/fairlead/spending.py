"""What each route has spent in its current budget period, and what calls under way may still cost. Ours, no paper.

    left = budget - settled - held

A query takes a `Purse` when its plan is chosen: what the plan may cost is *held* at once, so that fifty queries decided before the first
answer is back cannot spend the same dollar. A call that was not foreseen (a fallback, a second draw) must be covered before it is made;
what is not covered is not made. When the plan ends, what it really cost is settled and the rest is let go. So a period is overspent at
most by how much calls under way cost more than their estimates (see `Pool.estimate_usd`); one after the other, by one call.

Periods are counted from the Unix epoch, so that a restart lands in the same one: an 86,400-second period is a UTC day. A query
belongs to the period in which its plan is chosen, however long it takes. After a restart the current period is summed up from the stored
traces, by when their queries arrived. It is one process's memory; routers that share a store keep a route's budget together, in an account
of the ledger (`Router.own_account`), beside it.

Not for several threads: the router asks it in the event loop; `gone` alone may be asked in any. Stamp, hold and settle take about
2 µs together, however many queries are under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import fsum

from msgspec import Struct

from fairlead.errors import ConfigError
from fairlead.policies.base import Policy
from fairlead.types import Call, Query, Spent, Step, Trace
from fairlead.worlds.base import Estimate, may_cost

CLOCK_SLACK_SECONDS = 300.0
"""How far clocks may have been set while traces were written: so far behind the period's beginning the store is read."""


class Limit(Struct, frozen=True, kw_only=True):
    """At most `usd` in each period of `seconds`."""

    usd: float
    seconds: float


def limit_of(policy: Policy, *, path: str = "$") -> Limit | None:
    """Return the budget that a policy keeps, itself or by a policy nested in it; None if none does.

    A candidate's budget is not the route's: what may be wrong must not stop what serves (`Policy.aside`).

    Raises:
        ConfigError: if two nested policies keep different ones.
    """
    found: dict[Limit, str] = {}
    aside: tuple[str, ...] = ()
    for at, part in policy.walk(path):
        if not isinstance(part, Policy) or f"{at}.".startswith(aside):
            continue
        aside += tuple(f"{at}.{name}." for name in part.aside)
        if part.period_seconds is not None and part.period_usd is not None:
            found.setdefault(Limit(usd=part.period_usd, seconds=part.period_seconds), at)
    if len(found) > 1:
        raise ConfigError(
            f"one route has two budgets, here and at {next(iter(found.values()))}; give them equal figures, or routes of their own",
            path=list(found.values())[-1],
        )
    return next(iter(found), None)


class Period:
    """One period of one route: what is settled, and what the purses that are open hold."""

    __slots__ = ("held", "number", "purses", "settled", "usd")

    def __init__(self, number: int, usd: float) -> None:
        self.number, self.usd = number, usd
        self.settled = 0.0
        self.held = 0.0
        """A running sum; it begins anew at 0 whenever no purse is open, so that rounding does not add up."""
        self.purses = 0
        """How many are open."""

    @property
    def gone(self) -> float:
        """USD settled and held."""
        return self.settled + self.held


class Purse:
    """One query's hold on its route's budget: `held` USD at first."""

    __slots__ = ("held", "period", "settled")

    def __init__(self, period: Period, held: float = 0.0) -> None:
        self.period, self.held, self.settled = period, held, False
        period.purses += 1
        period.held += held

    def cover(self, usd: float) -> bool:
        """Hold `usd` in all, what is spent of it included; False, and no change, if that much is not left."""
        more = usd - self.held
        if more > 0.0 and more > self.period.usd - self.period.gone:
            return False
        if more > 0.0 and not self.settled:
            self.held += more
            self.period.held += more
        return True

    def settle(self, usd: float) -> None:
        """Charge what was really spent and let go of the rest. A second time changes nothing."""
        if self.settled:
            return
        self.settled, period = True, self.period
        period.purses -= 1
        period.held = period.held - self.held if period.purses else 0.0
        period.settled += usd


class Spending:
    """Budgets of routes and how far they are used up.

    Args:
        limits: the routes that have a budget.
    """

    def __init__(self, *, limits: Mapping[str, Limit]) -> None:
        self.limits = dict(limits)
        self.periods: dict[str, Period] = {}

    def period(self, route: str, now: float) -> Period | None:
        """Return the period of `route` that holds the Unix time `now`; None if the route has no budget."""
        limit = self.limits.get(route)
        if limit is None:
            return None
        number = int(now // limit.seconds)
        period = self.periods.get(route)
        # A clock that is set back goes on in the period that it knows: what was spent is not forgotten.
        if period is None or period.number < number:
            period = self.periods[route] = Period(number, limit.usd)
        return period

    def gone(self, route: str, now: float) -> float:
        """Return the USD settled and held in the period of `route` that holds the Unix time `now`; 0.0 without a budget. Changes nothing."""
        limit, period = self.limits.get(route), self.periods.get(route)
        return 0.0 if limit is None or period is None or period.number < int(now // limit.seconds) else period.gone

    def spent(self, route: str, now: float) -> Spent | None:
        """Return what to stamp on a query that arrives now; None if its route has no budget."""
        period = self.period(route, now)
        if period is None:
            return None
        seconds = self.limits[route].seconds
        return Spent(usd=period.gone, elapsed=min(max(now / seconds - period.number, 0.0), 1.0 - 1e-9))

    def left(self, query: Query) -> float | None:
        """Return what a stamped query may spend at most; None if there is no budget to keep."""
        limit = self.limits.get(query.route)
        return None if limit is None or query.spent is None else limit.usd - query.spent.usd

    def take(self, route: str, now: float, usd: float) -> Purse | None:
        """Open a purse and hold `usd` in it, or what is left if that is less; None if the route has no budget."""
        period = self.period(route, now)
        if period is None:
            return None
        left = max(0.0, period.usd - period.gone)
        return Purse(period, min(usd, left))

    def take_over(self, other: Spending) -> None:
        """Go on with the periods of routes whose budget is for as long as it was: what is held there by queries under way stays held."""
        for route, period in other.periods.items():
            limit = self.limits.get(route)
            if limit is not None and limit.seconds == other.limits[route].seconds:
                period.usd = limit.usd
                self.periods[route] = period

    def rebuild(self, traces: Callable[[], Iterable[Trace]], now: float, estimate: Estimate) -> None:
        """Sum up the current periods, but for those that were taken over. Reads the store: not for the event loop.

        Args:
            traces: gives all traces, newest first; read only as far back as the longest current period begins.
            now: Unix time.
            estimate: what a call may have cost that neither told nor was charged for.
        """
        begins = {
            route: now // limit.seconds * limit.seconds
            for route, limit in self.limits.items()
            if route not in self.periods
        }
        if not begins:
            return
        settled = dict.fromkeys(begins, 0.0)
        earliest = min(begins.values()) - CLOCK_SLACK_SECONDS
        for trace in traces():
            # Traces are written as answers end, so what ended before a period began was written before any that arrived in it.
            if trace.at + trace.seconds < earliest:
                break
            route = trace.query.route
            if route in begins and trace.at >= begins[route]:
                settled[route] += cost_of(trace, estimate)
        for route, usd in settled.items():
            period = self.period(route, now)
            if period is not None:
                period.settled = usd


def held_for(targets: Iterable[str], query: Query, estimate: Estimate) -> float:
    """Return what one call to each of `targets` may cost; those of unknown price are left out (they will not be covered)."""
    return fsum(usd for t in targets if (usd := estimate(Call(target=t), query)) is not None)


def cost_of(trace: Trace, estimate: Estimate) -> float:
    """Return what a trace's query cost in USD; a call that did not tell counts with what was charged for it, or its estimate."""
    if trace.usd is not None:
        return trace.usd
    return fsum(_of_step(s, s.call, trace.query, estimate) for s in trace.steps if s.call is not None)


def _of_step(step: Step, call: Call, query: Query, estimate: Estimate) -> float:
    if step.outcome.usd is not None:
        return step.outcome.usd
    if step.charged_usd is not None:
        return step.charged_usd
    # Nothing was charged when it was made, as the route had no budget then.
    return (estimate(call, query) or 0.0) if may_cost(step.outcome) else 0.0
