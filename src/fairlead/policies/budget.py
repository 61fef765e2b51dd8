"""Spend at most so much in each period, and spend it where it helps most: a price on dollars that follows the pace.

    choose  argmax quality(t) - price * usd(t)   over targets with   usd(t) <= left
    price = usd_weight * exp(step * (spent / usd - elapsed))

Online dual mirror descent for budgeted choice (Balseiro, Lu, Mirrokni, 2020, arXiv 2011.10124; for resource allocation at large,
2002.10421). With the entropy mirror map its update, price <- price * exp(-eta * (rho - spend)), multiplies up to the closed form
above, eta = step / usd: the price is high while spending runs ahead of the clock and falls while it lags. So it is a pure function of
what the router stamped on the query, and a decision replays from its record.

Differs from the papers: the pace is that of the clock, not of a known number of queries, which nobody knows; the spend counts what calls
under way hold; and the exponent is kept within ±30. A price that is wrong by a factor F at the pace shifts spending by ln(F) / step of
the budget: at step = 20, ten times too dear leaves 12% of the money over. `fairlead pareto` shows which weight of a dollar spends
how much a query. In a period with a quiet night the money saved there is spent by day.

The hard stop: what is not affordable is not proposed, and with nothing left the query is refused with reasons "budget". The router also
holds what calls under way may cost (`spending.py`), so that concurrency does not overspend. One router keeps one budget: replicas
need a share each.

Cost per decision: the predictor's, plus about 10 µs.
Checked in tests/policies/test_budget.py: closed form against the recursion, the pace kept on a stream, the stop, replay, fifty at once.
"""

from __future__ import annotations

from math import exp
from typing import ClassVar, Self

from fairlead.errors import NoEligibleTarget
from fairlead.objective import Objective
from fairlead.policies.base import Policy, Positive, Proposal, Share, answering, preferred
from fairlead.policies.utility import compared
from fairlead.predictors.base import Predictor
from fairlead.predictors.features import Features
from fairlead.preferences import penalties
from fairlead.types import Forecast, Query, Reward, Signals, Spent, Target, Trace

_MOST = 30.0
_START = Spent(usd=0.0, elapsed=0.0)


class Budget(Policy):
    """Prefer the best forecast quality less what it costs at the present price; never more than is left.

    Args:
        predictor: what each target would bring. A target of unknown cost is never chosen.
        usd: the budget of a period.
        period_seconds: its length; periods are counted from the Unix epoch (86,400: a UTC day).
        usd_weight: the price while spending is exactly at its pace, in quality per USD.
        step: how sharply the price follows; a tenth of the budget ahead of the pace multiplies it by exp(step / 10).
        explore: a known probability spread evenly over all affordable targets.
    """

    contextual: ClassVar[bool] = True
    saves: ClassVar[bool] = True
    heeds: ClassVar[bool] = True
    period_seconds: float | None = None

    def __init__(
        self,
        *,
        predictor: Predictor,
        usd: Positive,
        period_seconds: Positive = 86400.0,
        usd_weight: Positive = 10.0,
        step: Positive = 20.0,
        explore: Share = 0.0,
    ) -> None:
        self.predictor = predictor
        self.usd = usd
        self.period_seconds = period_seconds
        self.usd_weight = usd_weight
        self.step = step
        self.explore = explore

    @classmethod
    def example(cls) -> Self:
        """With a predictor that needs no fit."""
        from fairlead.predictors.knn import KNN

        return cls(predictor=KNN(features=Features(signals=("length",))), usd=100.0, explore=0.1)

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the predictor reads."""
        return self.predictor.needs

    @property
    def period_usd(self) -> float | None:
        """The budget of a period."""
        return self.usd

    def price(self, spent: Spent) -> float:
        """Return the weight of a dollar at this point of the period."""
        ahead = self.step * (spent.usd / self.usd - spent.elapsed)
        return self.usd_weight * exp(min(_MOST, max(-_MOST, ahead)))

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Rank what is affordable at the present price. A query that nobody stamped counts as the first of a period.

        Raises:
            NoEligibleTarget: if nothing is affordable.
        """
        targets = answering(targets)
        spent = query.spent or _START
        left = self.usd - spent.usd
        objective = Objective(usd_weight=self.price(spent))
        can: list[tuple[Target, Forecast]] = []
        dear: dict[str, str] = {}
        for target, forecast in zip(targets, self.predictor.predict(signals, targets), strict=True):
            if forecast.usd is None:
                dear[target.name] = "budget: what it costs is not known; give its profile prices"
            elif left <= 0.0 or forecast.usd > left:
                dear[target.name] = (
                    f"budget: {max(0.0, left):.6f} of {self.usd:g} USD are left in this period, not {forecast.usd:.6f}"
                )
            else:
                can.append((target, forecast))
        if not can:
            raise NoEligibleTarget(dear, kind="budget")
        off, wishes = penalties(query.constraints.prefer, [(t,) for t, _ in can], [f for _, f in can])
        ranked = [(t, objective.utility(f) - o, f) for (t, f), o in zip(can, off, strict=True)]
        options = preferred(ranked, explore=self.explore)
        pace = f"budget: {spent.usd / self.usd:.1%} spent at {spent.elapsed:.1%} of the period, a dollar weighs {objective.usd_weight:.4g}"
        out = (f"not affordable: {', '.join(sorted(dear))}",) if dear else ()
        # Who takes over must be affordable too; the router's hold sees to the sum of both.
        fallbacks = tuple(o.plan for o in options) if dear else None
        return Proposal(options, pace, *out, *compared(options), *wishes, objective=objective, fallbacks=fallbacks)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Pass the outcome on to the predictor."""
        self.predictor.update(trace, reward)

    def _merge(self, other: Self) -> None:
        """Merge the predictors, if they can be."""
        self.predictor.merge(other.predictor)

    def decay(self, keep: float) -> None:
        """Let the predictor forget."""
        self.predictor.decay(keep)
