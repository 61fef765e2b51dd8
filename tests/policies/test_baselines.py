from collections import Counter

import pytest

from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.policies.fixed import Fixed
from fairlead.policies.random import Random
from fairlead.policies.round_robin import RoundRobin
from fairlead.pool import Pool
from fairlead.types import Query, Signals, Target

TARGETS = tuple(Target(name=n) for n in ("b", "a", "c"))
POOL = Pool(targets=TARGETS)


def query(i: int = 0) -> Query:
    return Query(id=f"q{i}", messages=(), arrival=i)


def test_fixed_takes_a_name_or_any_plan() -> None:
    assert Fixed(plan="b").decide(query(), Signals(), POOL).plan == Single(target="b")
    vote = Vote(members=(Single(target="a"), Single(target="c")))
    decision = Fixed(plan=vote).decide(query(), Signals(), POOL)
    assert (decision.plan, decision.propensity) == (vote, 1.0)


def test_fixed_says_who_stands_in() -> None:
    vote = Vote(members=(Single(target="x"), Single(target="c")))
    decision = Fixed(plan=vote).decide(query(), Signals(), POOL)
    assert decision.plan == Single(target="c")
    assert "needs x" in decision.reasons[0]
    assert Fixed(plan="x").decide(query(), Signals(), POOL).plan == Single(target="a")


def test_random_is_uniform_with_the_recorded_propensity() -> None:
    policy = Random()
    found = Counter(policy.decide(query(i), Signals(), POOL).plan.targets()[0] for i in range(3000))
    # Three standard deviations of a binomial with n = 3000, p = 1/3 are 77.
    assert all(abs(n - 1000) < 80 for n in found.values())
    assert policy.decide(query(), Signals(), POOL).propensity == pytest.approx(1 / 3)


def test_random_weights_are_shared_among_the_eligible() -> None:
    policy = Random(weights={"a": 3.0, "b": 1.0})
    shares = {o.plan.targets()[0]: o.probability for o in policy.propose(query(), Signals(), TARGETS).options}
    assert shares == {"a": 0.75, "b": 0.25, "c": 0.0}
    alone = policy.propose(query(), Signals(), TARGETS[2:])
    assert alone.options[0].probability == 1.0
    assert "no eligible target has a weight" in alone.reasons[0]


def test_round_robin_takes_turns_by_arrival() -> None:
    turns = [RoundRobin().decide(query(i), Signals(), POOL).plan.targets()[0] for i in range(6)]
    assert turns == ["a", "b", "c", "a", "b", "c"]
