"""What is said of a decision follows from the record, and only what follows."""

from __future__ import annotations

from fairlead.explain import would_change
from fairlead.objective import Objective
from fairlead.plans.accept import MeanLogprob
from fairlead.plans.cascade import Cascade
from fairlead.plans.single import Single
from fairlead.types import Decision, Forecast, Option

GOOD, CHEAP = Forecast(quality=0.9, usd=0.01), Forecast(quality=0.8, usd=0.001)
A, B = Single(target="a"), Single(target="b")


def decided(first: float, second: float) -> Decision:
    options = (Option(plan=A, probability=first, forecast=GOOD), Option(plan=B, probability=second, forecast=CHEAP))
    return Decision(options=options, chosen=0 if first >= second else 1, propensity=max(first, second))


def test_a_weight_that_tips_a_choice_by_utility_is_named() -> None:
    said = would_change(decided(1.0, 0.0), Objective())
    assert any("b would win if usd_weight were 11.11" in s for s in said)


def test_a_policy_that_goes_by_something_else_is_given_no_weights() -> None:
    # The cheaper one was chosen though quality alone is weighed: a floor or a promise did that, and no weight tips it.
    said = would_change(decided(0.0, 1.0), Objective())
    assert not any("would win" in s for s in said)
    assert said == ["the next best is a; under this policy it never takes a case like this one"]


def test_a_small_chance_is_not_never() -> None:
    said = would_change(decided(0.001, 0.999), Objective())
    assert said == ["another draw: a is chosen in 0.1% of cases like this one"]


def test_plans_are_named_by_all_their_targets() -> None:
    cascade = Cascade(steps=(B, A), accept=MeanLogprob(above=-0.1))
    options = (Option(plan=A, probability=1.0, forecast=GOOD), Option(plan=cascade, probability=0.0, forecast=CHEAP))
    said = would_change(Decision(options=options, chosen=0, propensity=1.0), Objective())
    assert any("b then a would win" in s for s in said)
