"""Wishes and regions: what an asker would rather have, and where data may go."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from fairlead import catalog
from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget, UnknownName
from fairlead.explain import explain
from fairlead.plans.cascade import Cascade
from fairlead.plans.single import Single
from fairlead.policies.base import Policy
from fairlead.policies.budget import Budget
from fairlead.policies.fixed import Fixed
from fairlead.policies.floor import Floor
from fairlead.policies.guarded import Guarded
from fairlead.policies.portfolio import Portfolio
from fairlead.policies.promise import Promise
from fairlead.policies.rules import Rules
from fairlead.policies.utility import Utility
from fairlead.pool import Pool
from fairlead.preferences import DEFAULT_WEIGHT, WISHES, penalties, read
from fairlead.types import (
    Constraints,
    Decision,
    Forecast,
    Option,
    Outcome,
    Profile,
    Query,
    Reward,
    Signals,
    Target,
    Trace,
)

SMALL = Target(
    name="small",
    profile=Profile(parameters_b=1.0, released="2024-01-01", input_usd_per_mtok=0.1, output_usd_per_mtok=0.2),
)
MIDDLE = Target(
    name="middle",
    profile=Profile(parameters_b=8.0, released="2025-06-01", input_usd_per_mtok=1.0, output_usd_per_mtok=3.0),
)
LARGE = Target(
    name="large",
    profile=Profile(parameters_b=70.0, released="2025-01-01", input_usd_per_mtok=5.0, output_usd_per_mtok=15.0),
)
ALL = (SMALL, MIDDLE, LARGE)
EACH = [(t,) for t in ALL]
LIKELY = {
    "small": Forecast(quality=0.5, usd=0.001),
    "middle": Forecast(quality=0.7, usd=0.01),
    "large": Forecast(quality=0.8, usd=0.1),
}


class Told:
    """Forecasts as it is told."""

    needs = ()
    fitted = True
    targets_ = tuple(LIKELY)

    def __init__(self, forecasts: dict[str, Forecast] = LIKELY) -> None:
        self.forecasts = forecasts

    def predict(self, signals: Signals, targets: Any) -> list[Forecast]:
        return [self.forecasts[t.name] for t in targets]


def asking(**prefer: float) -> Query:
    return Query.ask("hello", id="q", constraints=Constraints(prefer=prefer))


def bound(*regions: str, **prefer: float) -> Query:
    return Query.ask("hello", id="q", constraints=Constraints(prefer=prefer, regions=regions))


def first(policy: Policy, targets: tuple[Target, ...] = ALL, **prefer: float) -> str:
    return policy.propose(asking(**prefer), Signals(), targets).options[0].plan.targets()[0]


# ------------------------------------------------------------------------------------------------------------- the scale


def test_a_wish_takes_off_its_weight_at_most_and_nothing_of_the_best() -> None:
    off, said = penalties({"small": 0.2}, EACH)
    assert off == pytest.approx([0.0, 0.2 * 7 / 69, 0.2])
    assert said[-1] == "taken off for wishes: small 0.000, middle 0.020, large 0.200"
    assert penalties({"recent": 1.0}, EACH)[0] == pytest.approx([1.0, 0.0, 151 / 517])
    assert penalties({"cheap": 1.0}, EACH)[0][::2] == [0.0, 1.0]
    both, _ = penalties({"small": 0.2, "recent": 1.0}, EACH)
    assert both == pytest.approx([1.0, 0.2 * 7 / 69, 0.2 + 151 / 517])


def test_no_wish_is_nothing() -> None:
    assert penalties({}, EACH) == ([0.0, 0.0, 0.0], ())


def test_who_is_not_known_counts_as_the_worst_and_is_named() -> None:
    off, said = penalties({"small": 0.3}, [*EACH, (Target(name="secretive"),)])
    assert off[3] == off[2] == 0.3
    assert "not known of secretive" in said[0]
    off, _ = penalties({"small": 0.3}, [(SMALL,), (Target(name="secretive"),)])
    assert off == [0.0, 0.3]
    off, said = penalties({"recent": 0.3}, [(SMALL,), (Target(name="odd", profile=Profile(released="last spring")),)])
    assert off == [0.0, 0.3]


def test_a_wish_in_which_nobody_is_known_or_all_are_alike_changes_nothing() -> None:
    assert penalties({"fast": 0.3}, EACH) == ([0.0] * 3, ("wish fast=0.3 changes nothing: nobody is known in it",))
    assert penalties({"small": 0.3}, [(SMALL,)] * 2) == ([0.0] * 2, ("wish small=0.3 changes nothing: all are alike",))


def test_a_forecast_of_this_query_goes_before_the_profile() -> None:
    forecasts = [Forecast(quality=0.5, usd=0.3), Forecast(quality=0.5, usd=0.1), Forecast(quality=0.5)]
    assert penalties({"cheap": 1.0}, EACH, forecasts)[0] == [1.0, 0.0, 1.0]
    wordy = [replace(f, output_tokens=n) for f, n in zip(forecasts, (10.0, 30.0, 20.0), strict=True)]
    assert penalties({"terse": 1.0}, EACH, wordy)[0] == [0.0, 1.0, 0.5]
    quick = Profile(first_token_seconds=0.1, seconds_per_output_token=0.01)
    slow = Profile(first_token_seconds=5.0, seconds_per_output_token=0.01)
    pair = [(Target(name="a", profile=quick),), (Target(name="b", profile=slow),)]
    assert penalties({"fast": 1.0}, pair)[0] == [0.0, 1.0]
    assert penalties({"fast": 1.0}, [*pair, (Target(name="c", profile=Profile(first_token_seconds=0.1)),)])[0][2] == 1.0


def test_a_plan_counts_as_its_worst_target() -> None:
    assert penalties({"small": 1.0}, [*EACH, (SMALL, LARGE)])[0][3] == 1.0
    assert penalties({"small": 1.0}, [*EACH, (SMALL, Target(name="secretive"))])[0][3] == 1.0


def test_what_a_header_says() -> None:
    assert read("small=0.1, cheap=0.3") == {"small": 0.1, "cheap": 0.3}
    assert read(" terse ,, fast = 1e-2 ") == {"terse": DEFAULT_WEIGHT, "fast": 0.01}
    with pytest.raises(UnknownName, match="did you mean 'small'"):
        read("smal")
    for wrong in ("small=-0.1", "small=nan", "small=inf", "small=", "small=lots"):
        with pytest.raises(ConfigError, match="small"):
            read(wrong)


# ---------------------------------------------------------------------------------------------- the card's checks (oracle)

rng = np.random.default_rng(0)
SIZES = np.array([0.5, 2.0, 8.0, 30.0, 70.0])
ZOO = tuple(Target(name=f"m{i}", profile=Profile(parameters_b=float(s))) for i, s in enumerate(SIZES))
TRUTH_QT = np.clip(rng.uniform(0.2, 0.6, (40, 1)) + 0.05 * np.arange(5) + rng.normal(0.0, 0.15, (40, 5)), 0.0, 1.0)
SWEEP = (0.0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 30.0)


def sweep(weights: Any, zoo: tuple[Target, ...] = ZOO, plus_Q: Any = 0.0) -> list[tuple[float, float, list[int]]]:
    """Return (mean size, mean loss, choices) of an oracle that knows every loss, at each weight of `small`."""
    out = []
    for weight in weights:
        chosen = []
        for quality_T in 0.4 * TRUTH_QT + np.asarray(plus_Q).reshape(-1, 1):
            told: Any = Told({t.name: Forecast(quality=float(q)) for t, q in zip(zoo, quality_T, strict=True)})
            name = first(Utility(predictor=told), zoo, small=weight)
            chosen.append(int(name[1:]))
        loss = 0.4 * (1.0 - TRUTH_QT[np.arange(40), chosen]).mean()
        out.append((float(SIZES[chosen].mean()), float(loss), chosen))
    return out


def test_an_oracle_without_a_weight_takes_each_prompts_least_loss() -> None:
    ((_, _, chosen),) = sweep([0.0])
    assert chosen == TRUTH_QT.argmax(axis=1).tolist()


def test_as_the_weight_grows_size_never_rises_and_loss_never_falls() -> None:
    points = sweep(SWEEP)
    sizes, losses = [p[0] for p in points], [p[1] for p in points]
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)
    assert sizes[0] > sizes[-1] == SIZES[0]


def test_every_point_of_the_sweep_is_on_the_lower_convex_hull() -> None:
    """Of all that any choice per prompt could reach: no mixture has less loss at the same size (support lines, so exactly)."""
    for weight, (size, loss, _) in zip(SWEEP, sweep(SWEEP), strict=True):
        slope = weight / (SIZES[-1] - SIZES[0])
        least = (0.4 * (1.0 - TRUTH_QT) + slope * SIZES).min(axis=1).mean()
        assert loss + slope * size == pytest.approx(least, abs=1e-12)


def test_a_constant_on_all_losses_and_another_unit_change_nothing() -> None:
    plain = [p[2] for p in sweep(SWEEP)]
    assert [p[2] for p in sweep(SWEEP, plus_Q=rng.uniform(0.0, 0.5, 40))] == plain
    other = tuple(
        Target(name=t.name, profile=Profile(parameters_b=1024.0 * (t.profile.parameters_b or 0.0))) for t in ZOO
    )
    assert [p[2] for p in sweep(SWEEP, other)] == plain


# ---------------------------------------------------------------------------------------------------------- the policies


def test_policies_with_forecasts_heed_wishes() -> None:
    told: Any = Told()
    plans: Any = {n: Single(target=n) for n in LIKELY}
    for policy in (
        Utility(predictor=told),
        Floor(predictor=told, share=1.0),
        Budget(predictor=told, usd=100.0, usd_weight=0.001),
        Portfolio(predictor=told, plans=plans),
        Rules(rules=[], default={"policy": "own"}, policies={"own": Utility(predictor=told)}),
    ):
        assert first(policy) == "large", policy
        assert first(policy, small=0.13) == "middle", policy
        assert first(policy, small=5.0) == "small", policy
        proposal = policy.propose(asking(small=5.0), Signals(), ALL)
        assert any("taken off for wishes" in r for r in proposal.reasons)
        forecasts = {o.plan.targets()[0]: o.forecast for o in proposal.options}
        assert forecasts["large"] == LIKELY["large"], "the record holds what is expected, not what is wished for"


def test_a_portfolio_counts_the_worst_target_of_a_plan() -> None:
    plans: Any = {
        "small": Single(target="small"),
        "both": Cascade.example().__class__(
            steps=(Single(target="small"), Single(target="large")), accept=Cascade.example().accept
        ),
    }
    told: Any = Told({**LIKELY, "both": Forecast(quality=0.9)})
    policy = Portfolio(predictor=told, plans=plans)
    assert policy.propose(asking(), Signals(), (SMALL, LARGE)).options[0].plan == plans["both"]
    assert policy.propose(asking(small=0.5), Signals(), (SMALL, LARGE)).options[0].plan == plans["small"]


@pytest.mark.parametrize("name", ["lin_ucb", "thompson", "ucb1", "beta_thompson", "epsilon_greedy", "ema"])
def test_bandits_heed_wishes_before_and_after_they_have_learned(name: str) -> None:
    policy = catalog.find("policies", name)(**({"epsilon": 0.1} if name == "epsilon_greedy" else {}))
    signals = {n: catalog.find("signals", n)().read(Query.ask("hello")) for n in policy.needs}
    for learned in (False, True):
        if learned:
            for i in range(60):
                t = ALL[i % 3]
                option = Option(plan=Single(target=t.name), probability=1.0)
                trace = Trace(
                    id=str(i), at=0.0, query=asking(), signals=Signals(readings=signals),
                    decision=Decision(options=(option,), chosen=0, propensity=1.0), outcome=Outcome(target=t.name),
                )  # fmt: skip
                policy.learn(trace, Reward(quality=0.9 if t is LARGE else 0.3))
        share = {}
        for weight in (0.0, 50.0):
            proposal = policy.propose(asking(small=weight), Signals(readings=signals), ALL)
            share[weight] = {o.plan.targets()[0]: o.probability for o in proposal.options}
        assert share[50.0]["small"] == max(share[50.0].values()) > share[50.0]["large"]
        assert share[50.0]["small"] > share[0.0]["small"]
    assert share[0.0]["large"] == max(share[0.0].values())


def test_who_does_not_heed_wishes_says_so() -> None:
    pool = Pool(targets=ALL)
    decision = Fixed(plan="large").decide(asking(small=1.0), Signals(), pool)
    assert decision.reasons[-1].startswith("wishes (small) are not heeded: fixed")
    assert "wish" not in " ".join(Fixed(plan="large").decide(asking(), Signals(), pool).reasons)
    told: Any = Told()
    decision = Promise(predictor=told, reference="large").decide(asking(small=1.0), Signals(), pool)
    assert decision.plan == Single(target="large")
    assert "wishes are not heeded" in " ".join(decision.reasons)


@pytest.mark.parametrize("policy", [Fixed(plan="large"), Utility(predictor=Told())])  # type: ignore[arg-type]
def test_an_unknown_wish_is_an_error(policy: Policy) -> None:
    with pytest.raises(FairleadError, match="unknown wish 'tiny'"):
        policy.decide(asking(tiny=1.0), Signals(), Pool(targets=ALL))


def test_the_propensity_is_that_of_the_wished_choice_and_repeats() -> None:
    policy, pool = Utility(predictor=Told(), explore=0.3), Pool(targets=ALL)  # type: ignore[arg-type]
    decision = policy.decide(asking(small=5.0), Signals(), pool, seed=1)
    share = {o.plan.targets()[0]: o.probability for o in decision.options}
    assert share == pytest.approx({"small": 0.8, "middle": 0.1, "large": 0.1})
    assert decision.propensity == pytest.approx(share[decision.plan.targets()[0]])
    again = policy.decide(asking(small=5.0), Signals(), pool, seed=1)
    assert replace(again, seconds=0.0) == replace(decision, seconds=0.0)


def test_no_tip_is_told_where_wishes_decide() -> None:
    policy, pool = Utility(predictor=Told()), Pool(targets=ALL)  # type: ignore[arg-type]
    for prefer, tips in (({}, True), ({"small": 5.0}, False)):
        query = asking(**prefer)
        told = explain(query, Signals(), policy.decide(query, Signals(), pool))["what_would_change_it"]
        assert any("would win if" in t for t in told) == tips


def test_heeding_a_wish_is_no_evidence_against_a_policy() -> None:
    guarded = Guarded(policy=Utility(predictor=Told()), fixed="large")  # type: ignore[arg-type]
    guarded.policy.learn = lambda trace, reward: None  # type: ignore[method-assign]
    pool = Pool(targets=ALL)
    for i in range(20):
        query = replace(asking(small=5.0), id=f"q{i}")
        decision = guarded.decide(query, Signals(), pool)
        name = decision.plan.targets()[0]
        trace = Trace(
            id=query.id, at=1.0, query=query, signals=Signals(), decision=decision, outcome=Outcome(target=name)
        )
        guarded.learn(trace, Reward(quality=0.0 if name == "small" else 1.0))
    assert guarded.judged_ == 0
    assert guarded.skipped_ == 20
    assert not guarded.evidence_


# ---------------------------------------------------------------------------------------------------------------- regions

HERE = Target(name="here", profile=Profile(regions=frozenset({"eu", "on-premise"})))
THERE = Target(name="there", profile=Profile(regions=frozenset({"us"})))
NOWHERE = Target(name="nowhere")


def test_data_goes_only_where_it_may() -> None:
    pool = Pool(targets=(HERE, THERE, NOWHERE))
    assert len(pool.eligible(asking()).targets) == 3
    for regions, names in (
        (("eu",), ["here"]),
        (("us", "on-premise"), ["here", "there"]),
        (("us",), ["there"]),
        ((), []),
    ):
        found = pool.eligible(bound(*regions))
        assert [t.name for t in found.targets] == names
        assert set(found.excluded) == {"here", "there", "nowhere"} - set(names)
    why = pool.eligible(bound("eu")).excluded
    assert why["there"] == "keeps data in us, and the data may go to eu only"
    assert why["nowhere"] == "states no region, and the data may go to eu only"


def test_no_wish_and_no_exploration_gets_round_a_region() -> None:
    pool = Pool(targets=(HERE, THERE, NOWHERE))
    policy = catalog.find("policies", "random")()
    for i in range(50):
        query = replace(bound("eu", cheap=100.0), id=f"q{i}")
        assert policy.decide(query, Signals(), pool).plan == Single(target="here")
    with pytest.raises(NoEligibleTarget, match="may go to mars only"):
        policy.decide(bound("mars"), Signals(), pool)


def test_every_wish_is_told_in_the_guide() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "guides" / "preferences.md").read_text("utf-8")
    for wish in WISHES:
        assert f"| `{wish}` |" in text
    assert str(DEFAULT_WEIGHT) in text
