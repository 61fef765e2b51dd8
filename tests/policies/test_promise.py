"""The policy `promise`: what is tested holds, what is broken is noticed, and what was decided can be decided again."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from fairlead.component import pack, unpack
from fairlead.errors import NotFitted, TableError, UnknownName
from fairlead.policies.promise import WEIGHTS, Promise, certify, choose, wealth
from fairlead.predictors.features import Features
from fairlead.predictors.knn import KNN
from fairlead.table import OutcomeTable
from fairlead.testing import TARGETS, observer_of, toy
from fairlead.types import Decision, Forecast, Option, Outcome, Profile, Query, Reward, Signals, Target, Trace

QUERY = Query(id="q", messages=())
BAR = float(-np.log(0.05))


# ------------------------------------------------------------------------------------------------------------ the test


def test_a_rule_at_the_boundary_passes_no_more_often_than_stated() -> None:
    # quality(chosen) is right 0.76 of the time, the reference 0.8: with keep = 0.95 the mean excess is 0 exactly. 2,000 draws: the share
    # is within 0.01 of its mean, so a test of size 0.07 would fail here.
    rng, keep, passed = np.random.default_rng(0), 0.95, 0
    for _ in range(2000):
        excess = (rng.random(300) < 0.76) - keep * (rng.random(300) < 0.8)
        passed += wealth(excess, keep=keep, confidence=0.95) >= BAR
    assert 0.005 < passed / 2000 <= 0.06


def test_the_test_has_power_and_knows_nothing_of_nothing() -> None:
    rng, keep = np.random.default_rng(1), 0.9
    wins = 0
    for _ in range(200):
        reference = rng.random(1000) < 0.8
        excess = reference - keep * reference  # the reference itself: 0.08 to spare
        wins += wealth(excess, keep=keep, confidence=0.95) >= BAR
    assert wins == 200
    assert wealth(np.zeros(0), keep=keep, confidence=0.95) == 0.0
    assert wealth(np.full(500, -keep), keep=keep, confidence=0.95) == 0.0


def world(rng: np.random.Generator, n: int) -> tuple[Any, Any, Any]:
    """Make outcomes of a dear and a cheap target, and forecasts that know a little."""
    skill_Q = rng.random(n)
    p_QT = np.column_stack([0.7 + 0.2 * skill_Q, 0.45 + 0.5 * skill_Q])
    quality_QT = (rng.random((n, 2)) < p_QT).astype(float)
    forecast_QT = np.clip(p_QT + rng.normal(0.0, 0.1, (n, 2)), 0.0, 1.0)
    return quality_QT, forecast_QT, np.tile([0.01, 0.001], (n, 1))


def test_promises_are_broken_no_more_often_than_stated_and_save_something() -> None:
    rng = np.random.default_rng(2)
    quality_QT, forecast_QT, usd_QT = world(rng, 20_000)
    broken, cheap, found = 0, [], 0
    for _ in range(200):
        rows = rng.integers(len(quality_QT), size=800)
        weight = certify(quality_QT[rows], forecast_QT[rows], usd_QT[rows], reference=0, keep=0.95, confidence=0.9)
        found += weight > 0.0
        if weight:
            chosen = choose(forecast_QT, usd_QT, weight)
            kept = quality_QT[np.arange(len(chosen)), chosen].mean() >= 0.95 * quality_QT[:, 0].mean()
            broken += not kept
            cheap.append(float((chosen == 1).mean()))
    assert found > 170
    assert broken <= 29  # 20 are promised; of 200, 29 or more have a chance of 3%
    assert np.mean(cheap) > 0.4


def test_nothing_is_promised_where_nothing_can_be() -> None:
    rng = np.random.default_rng(3)
    quality_QT, forecast_QT, usd_QT = world(rng, 500)
    quality_QT[:, 1] = 0.0
    flattering = np.column_stack([forecast_QT[:, 0], np.ones(500)])
    assert certify(quality_QT, flattering, usd_QT, reference=0, keep=0.95, confidence=0.95) == 0.0
    # Where all queries look alike, a rule is either the reference, which saves nothing, or never right.
    truth = np.tile([0.8, 0.0], (500, 1))
    assert not choose(truth, usd_QT, float(WEIGHTS[0])).any()
    assert certify(quality_QT, truth, usd_QT, reference=0, keep=0.95, confidence=0.95) == 0.0


# ---------------------------------------------------------------------------------------------------------- calibration


def calibrated(**more: Any) -> tuple[Promise, OutcomeTable]:
    predictor = KNN(features=Features(signals=("length",)))
    table = toy(queries=600).observed(observer_of(predictor.needs), predictor.needs)
    predictor.fit(table.take(range(200)))
    policy = Promise(**{"predictor": predictor, "keep": 0.9, "reference": "bee", **more})
    policy.calibrate(table.take(range(200, 600)), TARGETS)
    return policy, table


def test_calibrated_it_serves_what_was_tested_and_can_be_stored() -> None:
    policy, table = calibrated()
    assert policy.weight_ > 0.0
    assert policy.figures_["queries"] == 400
    assert policy.figures_["amount"] < 1.0
    again = Promise(predictor=KNN(features=Features(signals=("length",))), keep=0.9, reference="bee")
    again.load(unpack(pack(policy.state())))
    assert again.digest() == policy.digest()
    signals = table.observations(policy.needs)
    order = sorted(TARGETS, key=lambda t: t.name)
    forecasts = [policy.predictor.predict(s, order) for s in signals[200:240]]
    chosen = choose(
        np.asarray([[f.quality for f in row] for row in forecasts]),
        np.asarray([[f.usd for f in row] for row in forecasts], dtype=np.float64),
        policy.weight_,
    )
    for i, c in enumerate(chosen.tolist()):
        for who in (policy, again):
            options = who.propose(QUERY, signals[200 + i], TARGETS).options
            served = {o.plan.targets()[0]: o.probability for o in options if o.probability}
            name = order[c].name
            assert served == pytest.approx({"bee": 1.0} if name == "bee" else {name: 0.95, "bee": 0.05})
            assert len(options) == 3


def test_without_a_reference_it_is_the_best_of_the_table() -> None:
    policy, _ = calibrated(reference=None)
    assert policy.reference_ == "ant"
    assert policy.names == (("$.reference_", "ant"),)


def test_what_cannot_be_calibrated_says_why() -> None:
    policy, table = calibrated()
    with pytest.raises(NotFitted, match="train it on other queries"):
        Promise(predictor=KNN(features=Features(signals=("length",)))).calibrate(table)
    with pytest.raises(UnknownName, match="reference"):
        Promise(predictor=policy.predictor, reference="cow").calibrate(table)
    with pytest.raises(TableError, match="two or more"):
        Promise(predictor=policy.predictor).calibrate(table, TARGETS[:1])
    with pytest.raises(TableError, match="joules"):
        Promise(predictor=policy.predictor, minimise="joules").calibrate(table)


# --------------------------------------------------------------------------------------------------------------- serving


class Told:
    """Forecasts as it is told."""

    needs = ("length",)
    fitted = True
    unknown: set[str] = set()  # noqa: RUF012 - replaced, never changed

    def predict(self, signals: Signals, targets: Any) -> list[Forecast]:
        known = {
            "big": Forecast(quality=0.9, usd=0.02),
            "mid": Forecast(quality=0.85, usd=0.002),
            "small": Forecast(quality=0.2, usd=0.001),
        }
        return [replace(known[t.name], usd=None) if t.name in self.unknown else known[t.name] for t in targets]


NAMES = ("big", "mid", "small")


def serving(**more: Any) -> Promise:
    predictor: Any = Told()
    policy = Promise(**{"predictor": predictor, "keep": 0.95, "explore": 0.1, "patience": 500.0, **more})
    policy.reference_, policy.targets_, policy.weight_ = "big", list(NAMES), 5.0
    policy.figures_ = {"queries": 1000.0, "quality": 0.98, "amount": 0.2}
    return policy


def shares(policy: Promise, *here: str) -> dict[str, float]:
    proposal = policy.propose(QUERY, Signals(), tuple(Target(name=n) for n in here or NAMES))
    return {o.plan.targets()[0]: o.probability for o in proposal.options if o.probability}


def reasons(policy: Promise, *here: str) -> str:
    return " ".join(policy.propose(QUERY, Signals(), tuple(Target(name=n) for n in here or NAMES)).reasons)


def trace(policy: Promise, served: str) -> Trace:
    options = policy.propose(QUERY, Signals(), tuple(Target(name=n) for n in NAMES)).options
    at = [o.plan.targets()[0] for o in options].index(served)
    return Trace(
        id="q",
        at=0.0,
        query=QUERY,
        signals=Signals(),
        decision=Decision(options=options, chosen=at, propensity=options[at].probability),
        outcome=Outcome(text="x", target=served),
    )


def test_who_is_away_ends_the_promise_or_not() -> None:
    policy = serving()
    assert shares(policy) == pytest.approx({"mid": 0.9, "big": 0.1})
    assert shares(policy, "big", "mid") == pytest.approx({"mid": 0.9, "big": 0.1})
    assert shares(policy, "big", "small") == {"big": 1.0}
    assert "mid is away" in reasons(policy, "big", "small")
    assert shares(policy, "mid", "small") == {"mid": 1.0}
    assert "no promise: big is not eligible" in reasons(policy, "mid", "small")
    # What `small` costs is in its profile alone, which is away with it: it might have been chosen.
    told: Any = policy.predictor
    told.unknown = {"small"}
    assert shares(policy, "big", "mid") == {"big": 1.0}
    assert "small is away" in reasons(policy, "big", "mid")
    told.unknown = set()
    policy.weight_ = 0.0
    assert shares(policy) == {"big": 1.0}
    assert "nothing cheaper could be shown" in reasons(policy)


def test_before_it_is_calibrated_the_reference_serves_and_says_so() -> None:
    predictor: Any = Told()
    policy = Promise(predictor=predictor, reference="big")
    assert shares(policy) == {"big": 1.0}
    assert "run `fairlead calibrate`" in reasons(policy)
    assert "no reference" in reasons(Promise(predictor=predictor))


def test_it_retreats_when_the_choice_gets_worse_and_comes_back_when_it_is_good_again() -> None:
    policy, rng = serving(), np.random.default_rng(0)

    def live(mid: float, n: int) -> int | None:
        before = policy.alarm_
        for i in range(n):
            p = shares(policy)
            served = "mid" if rng.random() < p["mid"] else "big"
            right = rng.random() < (mid if served == "mid" else 0.9)
            policy.learn(trace(policy, served), Reward(quality=float(right)))
            if policy.alarm_ != before:
                return i + 1
        return None

    assert live(0.9, 1500) is None
    noticed = live(0.6, 1500)
    assert noticed is not None
    assert noticed < 300
    assert policy.alarm_ == "forecast"
    assert policy.alarms_ == 1
    assert shares(policy) == pytest.approx({"big": 0.9, "mid": 0.1})
    assert "cannot be kept now" in reasons(policy)
    assert live(0.6, 3000) is None, "it must not come back while the choice is bad"
    assert live(1.0, 6000) is not None
    assert policy.alarm_ == ""


def test_it_retreats_on_what_was_measured_even_if_the_forecasts_hide_it() -> None:
    # The reference turns out right always, and its forecast says half: only its own answers show that the promise is broken.
    policy, rng = serving(explore=0.3), np.random.default_rng(1)
    for _ in range(2000):
        by_choice = rng.random() < 0.7
        right = rng.random() < 0.6 if by_choice else True
        policy.watch(float(right), by_choice=bool(by_choice), forecasts=(0.6, 0.5), probabilities=(0.7, 0.3))
        if policy.alarm_:
            break
    assert policy.alarm_ == "measured"


def test_false_alarms_at_the_boundary_are_as_rare_as_promised() -> None:
    # 80 streams of 400 answers with the promise kept exactly and forecasts that know nothing. The chance of an alarm in n answers is at
    # most n / patience, 4 in 100: of 80 streams, more than 8 have a chance of 2%.
    alarms = 0
    for s in range(80):
        policy, rng = serving(patience=10_000.0), np.random.default_rng([7, s])
        for _ in range(400):
            by_choice = bool(rng.random() < 0.9)
            right = rng.random() < (0.76 if by_choice else 0.8)
            policy.watch(float(right), by_choice=by_choice, forecasts=(0.76, 0.8), probabilities=(0.9, 0.1))
        alarms += policy.alarms_ > 0
    assert alarms <= 8


def test_an_answer_is_watched_once_and_whole_by_its_first_judgement_of_weight() -> None:
    def watched(*told: Reward) -> Promise:
        policy = serving()
        for reward in told:
            policy.learn(trace(policy, "mid"), reward)
        return policy

    whole = watched(Reward(quality=0.0))
    assert whole.judged_ == 1
    for told in (
        [Reward(quality=0.0, weight=0.5)],
        [Reward(quality=1.0, weight=0.2), Reward(quality=0.1, weight=0.8, further=True, whole=0.0)],
        [Reward(quality=0.0), Reward(quality=0.5, weight=0.1, further=True)],
    ):
        assert pack(watched(*told).state()) == pack(whole.state())
    assert watched(Reward(quality=0.0, weight=0.4)).judged_ == 0


def test_what_is_not_comparable_is_not_learned() -> None:
    policy = serving()
    before = pack(policy.state())
    good = trace(policy, "mid")
    policy.learn(replace(good, outcome=Outcome(text="x", target="small")), Reward(quality=0.0))
    stranger = Option(plan=good.decision.options[0].plan, probability=1.0)
    policy.learn(replace(good, decision=Decision(options=(stranger,), chosen=0, propensity=1.0)), Reward(quality=0.0))
    # Decided before the alarm, judged after it: the probabilities are the other way round.
    policy.watch(0.0, by_choice=True, forecasts=(0.8, 0.9), probabilities=(0.1, 0.9))
    assert pack(policy.state()) == before
    frozen = serving(explore=0.0)
    before = pack(frozen.state())
    frozen.learn(trace(frozen, "mid"), Reward(quality=0.0))
    assert pack(frozen.state()) == before
    assert shares(frozen) == {"mid": 1.0}
    policy.learn(good, Reward(quality=0.0))
    assert policy.judged_ == 1


# ------------------------------------------------------------------------------------------- what must not be believed


def test_a_prompt_asked_often_counts_once_in_an_order_that_is_no_choice() -> None:
    # At the boundary, each prompt ten times: rows taken for draws pass in a quarter of the cases.
    rng, keep, passed = np.random.default_rng(3), 0.95, 0
    forecast_QT, usd_QT = np.tile([0.8, 0.76], (1000, 1)), np.tile([0.02, 0.001], (1000, 1))
    for _ in range(300):
        prompt_Q = np.repeat(np.arange(100), 10)
        quality_QT = (rng.random((100, 2)) < [0.8, 0.76]).astype(float)[prompt_Q]
        passed += (
            certify(quality_QT, forecast_QT, usd_QT, reference=0, keep=keep, confidence=0.95, draw_Q=prompt_Q) > 0.0
        )
    assert passed <= 24  # 15 are allowed; more than 24 of 300 have a chance of 1%
    policy, table = calibrated()
    often = table.take(np.tile(np.arange(200, 600), 3)[np.random.default_rng(0).permutation(1200)])
    again = Promise(predictor=policy.predictor, keep=0.9, reference="bee")
    again.calibrate(often, TARGETS)
    assert again.figures_["queries"] == 400
    assert again.figures_["rows"] == 1200
    assert (again.weight_, again.bias_) == pytest.approx((policy.weight_, policy.bias_))


def test_what_is_shown_has_paid_for_the_watch() -> None:
    watched, _ = calibrated(explore=0.2)
    alone, _ = calibrated(explore=0.0)
    assert watched.figures_["amount"] == pytest.approx(0.8 * alone.figures_["amount"] + 0.2)
    assert watched.figures_["quality"] == pytest.approx(0.8 * alone.figures_["quality"] + 0.2)


def test_other_prices_end_the_promise_where_forecasts_read_them() -> None:
    policy, table = calibrated(minimise="usd")
    assert policy.profiles_ == {}, "costs were recorded, so that prices do not change the rule"
    predictor = KNN(features=Features(signals=("length",)))
    free = table.with_usd(np.full_like(table.usd_QMS, np.nan))
    predictor.fit(free.take(range(200)))
    targets = tuple(
        Target(name=n, profile=Profile(input_usd_per_mtok=p, output_usd_per_mtok=p))
        for n, p in (("ant", 9.0), ("bee", 3.0), ("cat", 1.0))
    )
    policy = Promise(predictor=predictor, keep=0.9, reference="ant")
    policy.calibrate(free.take(range(200, 600)), targets)
    assert policy.weight_ > 0.0
    signals = table.observations(policy.needs)

    def served(now: tuple[Target, ...]) -> set[str]:
        proposals = [policy.propose(QUERY, s, now) for s in signals[:50]]
        assert all(("has changed since calibration" in p.reasons[0]) == (now != targets) for p in proposals)
        return {o.plan.targets()[0] for p in proposals for o in p.options if o.probability}

    assert len(served(targets)) > 1
    for other in (Profile(), Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)):
        assert served((*targets[:2], replace(targets[2], profile=other))) == {"ant"}


@pytest.mark.parametrize("explore", [0.6, 0.9])
def test_it_comes_back_however_much_it_explores(explore: float) -> None:
    policy, rng = serving(explore=explore), np.random.default_rng(2)
    policy.alarm_ = "measured"
    for _ in range(3000):
        by_choice = bool(rng.random() < explore)
        policy.watch(
            float(by_choice), by_choice=by_choice, forecasts=(0.9, 0.1), probabilities=(explore, 1.0 - explore)
        )
        if not policy.alarm_:
            break
        assert all(np.isfinite(w).all() for w in policy.watches_.values())
    assert policy.alarm_ == ""
