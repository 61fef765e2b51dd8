"""The policy `graph`: the few likeliest to be right, their votes weighed, and what k costs."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.plans.single import Single
from fairlead.plans.vote import Vote, elect
from fairlead.policies.graph import Graph
from fairlead.predictors.mean import Mean
from fairlead.testing import check_policy
from fairlead.types import Outcome, Profile, Query, Reading, Signals, Target

QUERY = Query(id="q", messages=())
SIGNALS = Signals(readings={"length": Reading(parts={"characters_all": 10})})
SKILL = {"a": 0.9, "b": 0.6, "c": 0.55, "d": 0.55, "e": 0.5}
TARGETS = tuple(Target(name=n, profile=Profile(quality=q)) for n, q in SKILL.items())


def vote(k: int, temperature: float = 0.1) -> Vote:
    plan = Graph(predictor=Mean(), k=k, temperature=temperature).propose(QUERY, SIGNALS, TARGETS).options[0].plan
    assert isinstance(plan, Vote)
    return plan


def right(weights: dict[str, float], *, n: int = 4000) -> float:
    """Return the share of right answers of a weighted vote of independent agents on two-way questions."""
    rng = np.random.default_rng(0)
    good = 0
    for row in rng.random((n, len(weights))).tolist():
        outcomes = [Outcome(text="yes" if u < SKILL[a] else "no") for a, u in zip(weights, row, strict=True)]
        good += elect(outcomes, list(weights.values()), "text").text == "yes"
    return good / n


def test_it_keeps_what_every_policy_keeps() -> None:
    check_policy(Graph.example)


def test_weights_are_the_soft_shares_of_the_k_best_renormalised() -> None:
    plan = vote(3)
    assert plan.targets() == ("a", "b", "c")
    assert plan.weights is not None
    assert sum(plan.weights) == pytest.approx(1.0)
    assert plan.weights[0] / plan.weights[1] == pytest.approx(np.exp(0.3 / 0.1))


def test_one_member_is_a_single_call_and_exploring_keeps_to_known_chances() -> None:
    options = Graph(predictor=Mean(), k=1).propose(QUERY, SIGNALS, TARGETS).options
    assert [(o.plan, o.probability) for o in options] == [(Single(target="a"), 1.0)]
    options = Graph(predictor=Mean(), k=2, explore=0.5).propose(QUERY, SIGNALS, TARGETS).options
    assert isinstance(options[0].plan, Vote)
    assert [o.probability for o in options] == pytest.approx([0.5, *[0.1] * 5])


def test_a_weighted_vote_is_no_worse_than_a_plain_one_for_unequal_agents() -> None:
    plan = vote(5)
    assert plan.weights is not None
    weighed = right(dict(zip(plan.targets(), plan.weights, strict=True)))
    plain = right(dict.fromkeys(SKILL, 1.0))
    assert weighed > plain + 0.05


def test_uniform_weights_are_the_plain_vote() -> None:
    plan = vote(5, temperature=1e9)
    assert plan.weights == pytest.approx([0.2] * 5)
    assert right(dict(zip(plan.targets(), plan.weights or (), strict=True))) == right(dict.fromkeys(SKILL, 1.0))


def test_sweeping_k_goes_from_the_single_agent_to_the_full_ensemble() -> None:
    calls, quality = [], []
    for k in range(1, 6):
        proposal = Graph(predictor=Mean(), k=k, temperature=0.5).propose(QUERY, SIGNALS, TARGETS)
        plan = proposal.options[0].plan
        weights = dict(zip(plan.targets(), (plan.weights if isinstance(plan, Vote) else None) or (1.0,), strict=True))
        calls.append(len(weights))
        quality.append(right(weights))
    assert calls == [1, 2, 3, 4, 5]
    assert quality[0] == pytest.approx(SKILL["a"], abs=0.02)
    # Agents that are much worse drag a vote with flat weights down: more calls are no promise of more quality.
    assert quality[4] < quality[0]
