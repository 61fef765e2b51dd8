"""Cascade and router in one: the plan of highest forecast utility, out of single calls and whole plans. Ours, no paper.

utility = objective(forecast of the plan); argmax, ties shared alike. A predictor does not care whether the column it forecasts holds what a
target brought or what a cascade brought: fitted on a table whose columns are plans (`fairlead train --confidence-column`), it forecasts for each
query what every plan will bring, the cost of asking for confidences and of second calls included. So an easy query goes straight to a
cheap target, a hard one straight to a strong one, and those in between try the cheap one first.

A single call is forecast with its target's profile, as a newcomer is. What is not known of a whole plan (its time, say, where the table
does not hold it) and is weighed counts as the objective's `unknown`, and the reasons say so.

Learns offline only: what a plan of several targets brought is no unbiased sample of any target's quality. Cost: the predictor's, which
grows with the number of plans, plus about 2 µs per plan.

Checked in tests/policies/test_portfolio.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from msgspec.structs import replace

from fairlead.errors import ConfigError, NoEligibleTarget
from fairlead.objective import Objective
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, Share, preferred_plans
from fairlead.policies.utility import compared
from fairlead.predictors.base import Predictor
from fairlead.preferences import penalties
from fairlead.types import Forecast, Plan, Query, Signals, Target


class Portfolio(Policy):
    """Propose the plan of the best forecast utility under `objective`; with probability `explore`, any.

    Args:
        predictor: forecasts plans by their names.
        plans: by the names that the predictor knows them by.
        objective: what is weighed.
        explore: known probability spread evenly over all plans whose targets may all act.
    """

    heeds: ClassVar[bool] = True
    objective: Objective

    def __init__(
        self,
        *,
        predictor: Predictor,
        plans: dict[str, Plan],
        objective: Objective = Objective(),  # noqa: B008 - frozen
        explore: Share = 0.0,
    ) -> None:
        self.predictor = predictor
        self.plans = plans
        self.objective = objective
        self.explore = explore

    @classmethod
    def example(cls) -> Self:
        """With a predictor that needs no fit, and single calls."""
        from fairlead.predictors.mean import Mean

        return cls(predictor=Mean(), plans={n: Single(target=n) for n in ("ant", "bee", "cat")}, explore=0.1)

    def check(self) -> None:
        """Raise `ConfigError` if there are no plans, or the predictor does not know one of them."""
        if not self.plans:
            raise ConfigError("a portfolio needs plans to choose from", path="$.plans")
        unknown = set(self.plans) - set(self.predictor.targets_) if self.predictor.fitted else set()
        if unknown:
            raise ConfigError(
                f"the predictor was not trained on {', '.join(sorted(unknown))}; train it with `fairlead train --confidence-column`",
                path="$.plans",
            )

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Targets of all plans."""
        return tuple((f"$.plans.{name}", target) for name, plan in self.plans.items() for target in plan.targets())

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the predictor reads."""
        return self.predictor.needs

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Forecast all plans that may run, prefer the best."""
        here = {t.name: t for t in targets}
        choices = [
            (_asked_for(name, plan, here), plan)
            for name, plan in self.plans.items()
            if here.keys() >= {*plan.targets()}
        ]
        # A target that joined after the training stands in no plan: it is offered by itself, forecast from its profile.
        planned = {name for plan in self.plans.values() for name in plan.targets()}
        choices += [(t, Single(target=t.name)) for t in targets if t.name not in planned and t.profile.answers]
        if not choices:
            raise NoEligibleTarget({t.name: "none of the portfolio's plans runs on those who may act" for t in targets})
        forecasts = self.predictor.predict(signals, [target for target, _ in choices])
        asked = [tuple(here[name] for name in plan.targets()) for _, plan in choices]
        off, wishes = penalties(query.constraints.prefer, asked, forecasts)
        ranked = [
            (target.name, plan, self.objective.utility(f) - o, f)
            for (target, plan), f, o in zip(choices, forecasts, off, strict=True)
        ]
        options = preferred_plans(ranked, explore=self.explore)
        return Proposal(options, *compared(options), *self._unknown(ranked), *wishes, objective=self.objective)

    def _unknown(self, ranked: Sequence[tuple[str, Plan, float, Forecast]]) -> list[str]:
        """Say which plans look cheaper than they are: a weighed amount is not known of them."""
        said = []
        for amount in ("usd", "seconds", "joules"):
            lacking = sorted(name for name, _, _, f in ranked if getattr(f, amount) is None)
            if lacking and getattr(self.objective, f"{amount}_weight"):
                off = f"{self.objective.unknown:g} is taken off for it"
                said.append(f"{amount} is weighed but not known of {', '.join(lacking)}: {off}")
        return said


def _asked_for(name: str, plan: Plan, here: Mapping[str, Target]) -> Target:
    """Return what a predictor forecasts a plan as: of a single call the target's profile is known, whatever the plan is called."""
    return replace(here[plan.target], name=name) if isinstance(plan, Single) else Target(name=name)
