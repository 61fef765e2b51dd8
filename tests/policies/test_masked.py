"""The policy `masked`: masks, the session's states, the Pareto set and TOPSIS, agents before models."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fairlead.errors import FairleadError, NoEligibleTarget
from fairlead.plans.single import Single
from fairlead.policies.base import pick
from fairlead.policies.masked import Machine, Masked, choice, ranked
from fairlead.policies.topsis import Point, closeness, front
from fairlead.predictors.mean import Mean
from fairlead.signals.base import Observer
from fairlead.signals.similarity import Similarity
from fairlead.testing import check_policy
from fairlead.types import Forecast, Profile, Query, Reading, Signals, Target

MODELS = (
    Target(name="small", profile=Profile(quality=0.5, input_usd_per_mtok=0.1, output_usd_per_mtok=0.1)),
    Target(name="large", profile=Profile(quality=0.9, input_usd_per_mtok=9.0, output_usd_per_mtok=9.0)),
)
AGENTS = (
    Target(name="booker", kind="agent", profile=Profile(tags=frozenset({"travel/hotel"}))),
    Target(name="pilot", kind="agent", profile=Profile(tags=frozenset({"travel/flight"}))),
    Target(name="clerk", kind="tool", profile=Profile(tags=frozenset({"billing"}))),
)
MACHINE = Machine(
    start="open",
    moves={"open": {"pay": "paying"}, "paying": {"paid": "open", "retry": "paying"}},
    shows={"paying": ("billing",)},
)
QUERY = Query(id="q", messages=())


def said(log: str | None = None, **scores: float) -> Signals:
    parts = {name.replace("__", "/"): v for name, v in scores.items()}
    readings = {"similarity": Reading(parts={**parts}), "length": Reading(parts={"characters_all": 10})}
    return Signals(readings=readings if log is None else {**readings, "log": Reading(value=log)})


def asked(policy: Masked, signals: Signals, targets: tuple[Target, ...] = (*MODELS, *AGENTS)) -> dict[str, float]:
    return {o.plan.targets()[0]: o.probability for o in policy.propose(QUERY, signals, targets).options}


def test_it_keeps_what_every_policy_keeps() -> None:
    check_policy(Masked.example)


def test_a_masked_agent_is_never_drawn_and_the_others_keep_their_ratios() -> None:
    rng = np.random.default_rng(0)
    drawn: Counter[str] = Counter()
    for u in rng.random(10_000).tolist():
        scores = dict(zip("abcd", rng.normal(size=4).tolist(), strict=True))
        masked = {n for n in "abc" if rng.random() < 0.5}
        whole, part = choice(scores, (), 0.5), choice(scores, masked, 0.5)
        assert whole is not None
        assert part is not None
        name = list(part)[pick(list(part.values()), u)]
        assert name not in masked
        assert part[name] / part["d"] == pytest.approx(whole[name] / whole["d"])
        drawn[name] += 1
    assert set(drawn) == set("abcd")
    assert choice({"a": 1.0}, {"a"}, 0.5) is None


def test_who_may_not_act_is_masked_and_all_masked_is_an_explicit_none() -> None:
    policy = Masked(predictor=Mean(), temperature=0.1)
    signals = said(travel=0.7, travel__flight=0.9, travel__hotel=0.8, billing=0.6)
    whole = asked(policy, signals)
    part = asked(policy, signals, (*MODELS, AGENTS[0], AGENTS[2]))
    assert max(whole, key=whole.__getitem__) == "pilot"
    assert "pilot" not in part
    assert whole["booker"] > 0.0
    proposal = policy.propose(QUERY, said(travel=0.1, billing=0.2), (*MODELS, *AGENTS))
    assert "no agent fits" in proposal.reasons
    assert {o.plan.targets()[0] for o in proposal.options} == {"small", "large"}
    assert not {"booker", "pilot", "clerk"} & {t for p in proposal.fallbacks or () for t in p.targets()}
    with pytest.raises(NoEligibleTarget, match="no agent fits"):
        policy.propose(QUERY, said(), AGENTS)


def test_only_masked_agents_are_kept_from_taking_over() -> None:
    policy = Masked(predictor=Mean(), machine=MACHINE, log="log")
    proposal = policy.propose(QUERY, said("pay", travel=0.9, billing=0.6), (*MODELS, *AGENTS))
    assert proposal.options[0].plan == Single(target="clerk")
    assert {t for p in proposal.fallbacks or () for t in p.targets()} == {"clerk", "small", "large"}
    assert "the session is in state 'paying'" in proposal.reasons


def test_an_agent_of_a_narrower_category_is_in_the_wider_one() -> None:
    assert set(asked(Masked(predictor=Mean()), said(travel=0.9))) == {"booker", "pilot"}
    assert set(asked(Masked(predictor=Mean(), top=1), said(travel=0.6, travel__flight=0.9))) == {"pilot"}


def test_every_reachable_state_has_an_exit() -> None:
    assert MACHINE.reached() == {"open", "paying"}
    with pytest.raises(ValueError, match="never left"):
        Machine(start="a", moves={"a": {"x": "b"}, "b": {"y": "b"}})
    with pytest.raises(ValueError, match="has no moves"):
        Machine(start="a", moves={"a": {"x": "b"}})
    assert Machine(start="a", moves={"a": {"x": "b"}, "b": {"y": "a"}, "far": {}}).reached() == {"a", "b"}


def test_transitions_outside_the_table_raise_and_a_policy_then_takes_no_agent() -> None:
    with pytest.raises(FairleadError, match="no move for 'paid'"):
        MACHINE.after(["paid"])
    policy = Masked(predictor=Mean(), machine=MACHINE, log="log")
    assert set(asked(policy, said("paid", billing=0.9))) == {"small", "large"}


def test_a_replayed_event_log_gives_the_same_state() -> None:
    rng = np.random.default_rng(1)
    state, log = MACHINE.start, []
    for _ in range(200):
        log.append(str(rng.choice(sorted(MACHINE.moves[state]))))
        state = MACHINE.moves[state][log[-1]]
        assert MACHINE.after(log) == state


def points(seed: int, n: int = 12) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [(c / 4, s / 4) for c, s in rng.integers(0, 9, (n, 2)).tolist()]


@pytest.mark.parametrize("seed", range(20))
def test_the_pareto_set_is_idempotent_independent_of_order_and_keeps_ties(seed: int) -> None:
    found = points(seed)
    on = [found[i] for i in front(found)]
    assert [on[i] for i in front(on)] == on
    assert sorted(found[::-1][i] for i in front(found[::-1])) == sorted(on)
    doubled = [*found, *found]
    assert len(front(doubled)) == 2 * len(on)


@pytest.mark.parametrize("seed", range(20))
def test_topsis_stays_on_the_front_and_is_deaf_to_dominated_models(seed: int) -> None:
    forecasts = [Forecast(quality=s / 2, usd=c) for c, s in points(seed)]
    given = [(f.usd or 0.0, f.quality) for f in forecasts]
    ranks = ranked(forecasts, "auto", weights=(0.6, 0.4))
    assert int(np.argmax(ranks)) in front(given)
    worse = Forecast(quality=0.0, usd=50.0)
    assert ranked([*forecasts, worse], "auto", weights=(0.6, 0.4))[:-1] == ranks


@pytest.mark.parametrize("seed", range(20))
def test_weights_of_one_and_zero_are_the_extremes(seed: int) -> None:
    forecasts = [Forecast(quality=s / 2, usd=c) for c, s in points(seed)]
    best = int(np.argmax(ranked(forecasts, "auto", weights=(1.0, 0.0))))
    assert best == int(np.argmax(ranked(forecasts, "performance")))
    assert forecasts[best].quality == max(f.quality for f in forecasts)
    cheapest = int(np.argmax(ranked(forecasts, "auto", weights=(0.0, 1.0))))
    assert forecasts[cheapest].usd == min(f.usd or 0.0 for f in forecasts)


def test_a_single_candidate_is_taken() -> None:
    for mode in ("auto", "performance", "cost"):
        assert ranked([Forecast(quality=0.0, usd=None)], mode)[0] >= 0.0
    assert closeness([(1.0, 1.0)], 0.5, 0.5) == [1.0]
    assert closeness([(1.0, 1.0), (1.0, 1.0)], 0.5, 0.5) == [1.0, 1.0]


def test_cost_takes_the_cheapest_acceptable() -> None:
    forecasts = [Forecast(quality=q, usd=u) for q, u in ((0.5, 0.0), (0.85, 1.0), (0.9, 2.0))]
    assert int(np.argmax(ranked(forecasts, "cost", acceptable=0.9))) == 1
    assert int(np.argmax(ranked(forecasts, "cost", acceptable=1.0))) == 2
    assert int(np.argmax(ranked(forecasts, "cost", acceptable=0.0))) == 0


def test_agent_first_precision_recall_and_none_recall_on_a_toy_registry() -> None:
    groups = {
        "travel": ["book a flight", "find a hotel in the city"],
        "billing": ["refund my invoice", "pay the bill by card"],
    }
    observer = Observer(signals={"similarity": Similarity(groups=groups)})
    policy = Masked(predictor=Mean(features=Mean().features), least=0.5)
    agents = (
        Target(name="traveller", kind="agent", profile=Profile(tags=frozenset({"travel"}))),
        Target(name="clerk", kind="agent", profile=Profile(tags=frozenset({"billing"}))),
    )
    cases = [
        ("book a flight please", "traveller"),
        ("find a hotel in Rome", "traveller"),
        ("refund the invoice", "clerk"),
        ("pay my bill by card", "clerk"),
        ("why is the sky blue", None),
        ("prove that there are infinitely many primes", None),
        ("translate good morning into Polish", None),
        ("sort a list of numbers", None),
    ]
    right: Counter[bool] = Counter()
    for text, agent in cases:
        query = Query.ask(text)
        proposal = policy.propose(query, observer.read(query, ("similarity",)), (*MODELS, *agents))
        name = proposal.options[0].plan.targets()[0]
        right[agent is not None] += (name == agent) if agent else "no agent fits" in proposal.reasons
    assert right == {True: 4, False: 4}  # recall of agents, and of "none"
