"""Estimators against sums by hand and against the truth; intervals that hold; and refusals where the log cannot answer."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fairlead.bench.estimators import METHODS, Sample, folded, means
from fairlead.bench.off_policy import Log, Rules, evaluate
from fairlead.errors import TableError
from fairlead.objective import Objective

Array = np.ndarray[Any, Any]
LAX = Rules(ess=0.0, unsupported=1.0, known_gap=1.0)


def sample(chosen: Any, logged: Any, new: Any, y: Any, f: Any = None, groups: Any = None) -> Sample:
    chosen = np.asarray(chosen)
    return Sample(
        chosen_Q=chosen,
        logged_QA=np.asarray(logged, dtype=float),
        new_QA=np.asarray(new, dtype=float),
        y_Q=np.asarray(y, dtype=float),
        f_QA=np.full(np.shape(logged), 0.5) if f is None else np.asarray(f, dtype=float),
        span=(0.0, 1.0),
        groups_Q=np.arange(len(chosen)) if groups is None else np.asarray(groups),
    )


def log_of(chosen: Array, logged: Array, new: Array, quality: Array, **more: Any) -> Log:
    n, A = logged.shape
    return Log(
        actions=tuple("abcdefgh"[:A]),
        chosen_Q=chosen,
        logged_QA=logged,
        new_QA=new,
        outcomes={"quality": quality, **more.pop("outcomes", {})},
        groups_Q=more.pop("groups_Q", np.arange(n)),
        **more,
    )


RIGHT = np.asarray([[0.9, 0.5, 0.2], [0.3, 0.6, 0.8]])
"""Chance of a right answer, by kind of query and option."""
SERVED = np.asarray([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
WANTED = np.asarray([[0.8, 0.2, 0.0], [0.0, 0.3, 0.7]])
TRUTH = float((WANTED * RIGHT).sum(axis=1).mean())


def drawn(n: int, seed: int, *, served: Array = SERVED, wanted: Array = WANTED) -> Log:
    """A log of two kinds of queries."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n)
    chosen = (rng.random(n)[:, None] > served[kind].cumsum(axis=1)).sum(axis=1)
    return log_of(chosen, served[kind], wanted[kind], (rng.random(n) < RIGHT[kind, chosen]).astype(float))


# ------------------------------------------------------------------------------------------------------- by hand


def test_estimators_by_hand() -> None:
    # Weights: .5/.25 = 2, 0/.75 = 0, .5/.5 = 1.
    s = sample(
        [0, 1, 0],
        [[0.25, 0.75], [0.25, 0.75], [0.5, 0.5]],
        [[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]],
        [1.0, 0.0, 0.0],
        [[0.6, 0.2], [0.4, 0.4], [0.8, 0.0]],
    )
    assert s.scores("ips").value == pytest.approx(2 / 3)
    assert s.scores("snips").value == pytest.approx(2 / 3)
    direct = [0.4, 0.4, 0.4]
    assert s.scores("dm").value == pytest.approx(0.4)
    assert s.scores("dr").value == pytest.approx((sum(direct) + 2 * (1 - 0.6) + 0 + 1 * (0 - 0.8)) / 3)
    assert s.ess == pytest.approx(9 / 5)
    assert s.largest == pytest.approx(2 / 3)
    assert s._doubly(1.0).value == pytest.approx((sum(direct) - 0.8) / 3)


def test_switch_trusts_the_forecast_where_weights_are_wild() -> None:
    # A hundredfold weight on 1% of the decisions: the bound of the bias (.5 * mass) beats the variance.
    rng = np.random.default_rng(0)
    n = 300
    logged = np.tile([0.9995, 0.0005], (n, 1))
    logged[:150] = [0.5, 0.5]
    new = np.tile([0.98, 0.02], (n, 1))
    chosen = np.zeros(n, dtype=int)
    chosen[:75] = 1
    chosen[200] = 1
    s = sample(chosen, logged, new, rng.integers(2, size=n))
    switched, dr = s.scores("switch"), s.scores("dr")
    assert s.w_Q.max() == pytest.approx(40)
    assert dr.bias == 0.0
    assert 0.0 < switched.bias <= 0.02 * 0.5 + 1e-12
    assert s.se(switched) ** 2 + switched.bias**2 < s.se(dr) ** 2
    half, se = s.interval(switched).high - switched.value, s.se(switched)
    assert half == pytest.approx(folded(switched.bias / se, 0.95) * se)
    assert half > 1.97 * se


def test_ips_and_dr_are_unbiased_whatever_the_forecast() -> None:
    logged, new = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], [[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]
    y = np.asarray([[0.9, 0.1, 0.4], [0.0, 1.0, 0.3]])
    f = np.random.default_rng(0).random((2, 3))
    total = {"ips": 0.0, "dr": 0.0}
    for chosen in product(range(3), repeat=2):
        s = sample(chosen, logged, new, [y[0, chosen[0]], y[1, chosen[1]]], f)
        s.blind_QA[:] = False  # two decisions cannot show each option: the account of overlap is another matter
        chance = logged[0][chosen[0]] * logged[1][chosen[1]]
        for method in ("ips", "dr"):
            total[method] += chance * s.scores(method).value
    truth = float((np.asarray(new) * y).sum(axis=1).mean())
    assert total["ips"] == pytest.approx(truth)
    assert total["dr"] == pytest.approx(truth)


def test_dr_is_right_if_only_the_forecast_is() -> None:
    rng = np.random.default_rng(1)
    n = 400
    kind = rng.integers(2, size=n)
    wrong = np.tile([0.6, 0.3, 0.1], (n, 1))
    chosen = rng.integers(3, size=n)
    truth = float((WANTED[kind] * RIGHT[kind]).sum(axis=1).mean())
    s = sample(chosen, wrong, WANTED[kind], RIGHT[kind, chosen], RIGHT[kind])
    assert s.scores("dr").value == pytest.approx(truth)
    assert abs(s.scores("ips").value - truth) > 0.02


def test_the_policy_that_served_gains_nothing() -> None:
    log = drawn(500, 0, wanted=SERVED)
    answer = evaluate(log)["quality"]
    assert answer.ess == pytest.approx(500)
    for method in ("ips", "snips"):
        e = answer[method]
        assert e.value.value == pytest.approx(float(log.outcomes["quality"].mean()))
        assert e.gain.value == pytest.approx(0.0)
    assert answer["snips"].gain.high == pytest.approx(0.0, abs=1e-12)


def test_folded_normal() -> None:
    assert folded(0.0, 0.95) == pytest.approx(1.959964, abs=1e-5)
    assert folded(4.0, 0.95) == pytest.approx(5.644854, abs=1e-4)
    assert folded(9.0, 0.95) == pytest.approx(10.644854, abs=1e-4)
    assert folded(1.0, 0.95) > folded(0.5, 0.95) > folded(0.0, 0.95)


def test_means_leave_the_own_fold_out() -> None:
    chosen, fold = np.asarray([0, 0, 1, 0]), np.asarray([0, 1, 1, 1])
    f = means(chosen, np.asarray([1.0, 0.0, 0.5, np.nan]), fold, 2)
    # Fold 0 is forecast from (0: 0.0) and (1: 0.5), each pulled to their mean .25 by one answer.
    assert f[0] == pytest.approx([0.125, 0.375])
    # Fold 1 from the one answer 1.0 of option 0; of option 1 nothing is known but that.
    assert f[1] == pytest.approx([1.0, 1.0])


# ---------------------------------------------------------------------------------------------------- properties


def test_order_and_names_do_not_matter() -> None:
    log = drawn(300, 3)
    order, swap = np.random.default_rng(0).permutation(300), np.asarray([2, 0, 1])
    other = log_of(
        np.argsort(swap)[log.chosen_Q[order]],
        log.logged_QA[order][:, swap],
        log.new_QA[order][:, swap],
        log.outcomes["quality"][order],
        groups_Q=log.groups_Q[order],
    )
    for method in ("ips", "snips", "dr", "switch"):
        one, two = evaluate(log)["quality"][method], evaluate(other)["quality"][method]
        assert one.value.value == pytest.approx(two.value.value)
        assert one.value.low == pytest.approx(two.value.low)


def test_groups_are_one_draw() -> None:
    log = drawn(300, 4)
    thrice = np.repeat(np.arange(300), 3)
    parts = {
        "chosen": log.chosen_Q[thrice],
        "logged": log.logged_QA[thrice],
        "new": log.new_QA[thrice],
        "y": log.outcomes["quality"][thrice],
    }
    once = sample(log.chosen_Q, log.logged_QA, log.new_QA, log.outcomes["quality"])
    apart, together = sample(**parts), sample(**parts, groups=thrice)
    for method in ("ips", "snips", "dr"):
        se = [s._sandwich(s.scores(method).linear_Q) for s in (once, apart, together)]
        assert se[2] == pytest.approx(se[0])
        assert se[1] == pytest.approx(se[0] / np.sqrt(3), rel=0.01)


def test_intervals_hold_and_snips_beats_ips() -> None:
    # 300 logs: with true coverage .95 fewer than 272 (.907) hits have a chance below .001.
    rounds, hits, errors = 300, dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0)
    gains = 0
    logged = float((SERVED * RIGHT).sum(axis=1).mean())
    for seed in range(rounds):
        answer = evaluate(drawn(300, seed))["quality"]
        for e in answer.estimates:
            hits[e.method] += e.value.low <= TRUTH <= e.value.high
            errors[e.method] += (e.value.value - TRUTH) ** 2 / rounds
        gains += answer["dr"].gain.low <= TRUTH - logged <= answer["dr"].gain.high
    assert min(hits[m] for m in ("ips", "snips", "dr", "switch")) >= 272
    assert gains >= 272
    assert hits["dm"] < 200  # its forecast does not know the kind of query
    assert errors["snips"] < 0.8 * errors["ips"]


def test_other_intervals() -> None:
    log = drawn(400, 5)
    normal, boot, sure = (
        evaluate(log, interval=k, methods=("dr",))["quality"]["dr"].value for k in ("normal", "bootstrap", "bernstein")
    )
    assert boot.low == pytest.approx(normal.low, abs=0.02)
    assert boot.high == pytest.approx(normal.high, abs=0.02)
    assert sure.low < normal.low - 0.05
    assert evaluate(log, interval="bootstrap", methods=("dr",), seed=1)["quality"]["dr"].value != boot
    narrow = evaluate(log, level=0.5)["quality"]["dr"].value
    assert narrow.high - narrow.low < 0.5 * (normal.high - normal.low)


def test_few_heavy_decisions_that_agree_are_not_taken_for_certain() -> None:
    # Forty answers of weight 20, all right, of an option that is right in seven of ten light ones.
    logged = np.tile([0.05, 0.95], (1000, 1))
    logged[:100] = [0.95, 0.05]
    chosen = np.ones(1000, dtype=int)
    chosen[:95] = 0
    chosen[100:145] = 0
    y = np.ones(1000)
    y[:95] = np.arange(95) % 10 < 4
    s = sample(chosen, logged, np.tile([1.0, 0.0], (1000, 1)), y)
    snips = s.scores("snips")
    assert snips.value > 0.9
    assert s.se(snips) > 1.5 * s._sandwich(snips.linear_Q)


def test_utility_is_made_of_its_parts() -> None:
    log = drawn(300, 6)
    usd = np.random.default_rng(0).random(300)
    both = log_of(log.chosen_Q, log.logged_QA, log.new_QA, log.outcomes["quality"], outcomes={"usd": usd})
    found = evaluate(both, objective=Objective(usd_weight=0.3))
    for method in ("ips", "dm", "dr"):
        parts = found["quality"][method].value.value - 0.3 * found["usd"][method].value.value
        assert found["utility"][method].value.value == pytest.approx(parts)
    with pytest.raises(TableError, match="utility"):
        evaluate(both, objective=Objective(joules_weight=1.0))["utility"]


# -------------------------------------------------------------------------------------------- what is not known


def test_missing_at_random_given_the_option() -> None:
    shares, errors, naive = np.asarray([0.5, 0.6, 0.45]), [], []
    for seed in range(60):
        log = drawn(600, seed)
        judged = np.random.default_rng(1000 + seed).random(600) < shares[log.chosen_Q]
        y = np.where(judged, log.outcomes["quality"], np.nan)
        answer = evaluate(log_of(log.chosen_Q, log.logged_QA, log.new_QA, y))["quality"]
        assert answer.known == judged.sum()
        errors.append(answer["ips"].value.value - TRUTH)
        w = log.new_QA[np.arange(600), log.chosen_Q] / log.logged_QA[np.arange(600), log.chosen_Q]
        naive.append(float((w * np.where(judged, log.outcomes["quality"], 0.0)).mean() / 0.55) - TRUTH)
    spread = np.std(errors) / np.sqrt(60)
    assert abs(np.mean(errors)) < 3.5 * spread
    assert abs(np.mean(naive)) > 3.5 * spread


def test_judging_that_depends_on_the_option_is_refused() -> None:
    log = drawn(600, 0)
    judged = np.random.default_rng(0).random(600) < np.asarray([0.9, 0.9, 0.3])[log.chosen_Q]
    partly = log_of(log.chosen_Q, log.logged_QA, log.new_QA, np.where(judged, log.outcomes["quality"], np.nan))
    refusal = evaluate(partly)["quality"].refusal
    assert refusal is not None
    assert "probably depends on the answer" in refusal
    assert " for c" in refusal
    assert evaluate(partly, rules=Rules(known_gap=0.8))["quality"].refusal is None


def test_a_deterministic_log_is_refused() -> None:
    n = 200
    logged, new = np.tile([1.0, 0.0], (n, 1)), np.tile([0.3, 0.7], (n, 1))
    found = evaluate(log_of(np.zeros(n, dtype=int), logged, new, np.ones(n), outcomes={"usd": np.ones(n)}))
    for what in ("quality", "usd"):
        refusal = found[what].refusal
        assert refusal is not None
        assert "deterministic" in refusal
        assert "b 70%" in refusal
        assert found[what].estimates == ()
        assert found[what].logged is not None
    assert found.overlap[0].action == "b"
    assert found.overlap[0].unsupported == pytest.approx(0.7)
    # The same log does answer for what it always did.
    assert evaluate(log_of(np.zeros(n, dtype=int), logged, logged, np.ones(n)))["quality"].refusal is None


def test_a_little_lack_of_overlap_widens_the_interval() -> None:
    log = drawn(500, 0)
    logged = np.column_stack([log.logged_QA, np.zeros(500)])
    new = np.column_stack([0.96 * log.new_QA, np.full(500, 0.04)])
    answer = evaluate(log_of(log.chosen_Q, logged, new, log.outcomes["quality"]))["quality"]
    assert answer.unsupported == pytest.approx(0.04)
    bias = 0.04
    for e in (answer["ips"], answer["snips"]):
        assert e.bias == pytest.approx(bias)
        assert e.value.high - e.value.value == pytest.approx(folded(bias / e.se, 0.95) * e.se)
        assert e.value.high - e.value.low > 4.2 * e.se
    assert 0.0 < answer["dr"].bias < 0.04
    more = np.column_stack([0.9 * log.new_QA, np.full(500, 0.1)])
    assert "no overlap" in str(evaluate(log_of(log.chosen_Q, logged, more, log.outcomes["quality"]))["quality"].refusal)


def test_what_was_never_seen_may_cost_more_than_all_that_was() -> None:
    # 4% go to an option that was never asked. Quality is counted at its worst; what has no worst is refused.
    log = drawn(500, 0)
    logged = np.column_stack([log.logged_QA, np.zeros(500)])
    new = np.column_stack([0.96 * log.new_QA, np.full(500, 0.04)])
    amounts = {"usd": np.random.default_rng(0).random(500), "seconds": np.ones(500)}
    dearer = log_of(log.chosen_Q, logged, new, log.outcomes["quality"], outcomes=amounts)
    found = evaluate(dearer, objective=Objective(usd_weight=0.3), rules=LAX)
    assert found["quality"].refusal is None
    for what in ("usd", "seconds", "utility"):
        refusal = found[what].refusal
        assert refusal is not None
        assert "4% of the new policy's choices" in refusal
        assert f"nothing that was seen bounds the {what}" in refusal
        assert found[what].estimates == ()


def test_switch_trusts_no_forecast_of_what_has_no_bounds() -> None:
    log = drawn(500, 0, served=np.asarray([[0.02, 0.49, 0.49]] * 2), wanted=np.asarray([[0.5, 0.25, 0.25]] * 2))
    usd = np.random.default_rng(0).random(500)
    both = log_of(log.chosen_Q, log.logged_QA, log.new_QA, log.outcomes["quality"], outcomes={"usd": usd})
    found = evaluate(both, rules=LAX)["usd"]
    assert found["switch"].value == found["dr"].value
    assert found["switch"].bias == 0.0


def test_too_small_an_effective_sample_is_refused() -> None:
    served = np.asarray([[0.02, 0.49, 0.49]] * 2)
    wanted = np.asarray([[1.0, 0.0, 0.0]] * 2)
    refusal = evaluate(drawn(500, 0, served=served, wanted=wanted))["quality"].refusal
    assert refusal is not None
    assert "effective sample size" in refusal
    assert evaluate(drawn(500, 0, served=served, wanted=wanted), rules=Rules(ess=2.0))["quality"].refusal is None


def test_one_session_is_one_draw() -> None:
    log = drawn(300, 0)
    one = log_of(log.chosen_Q, log.logged_QA, log.new_QA, log.outcomes["quality"], groups_Q=np.zeros(300, dtype=int))
    answer = evaluate(one)["quality"]
    assert answer.ess == pytest.approx(1.0)
    assert answer.refusal is not None
    assert answer.logged is None
    assert evaluate(one, rules=LAX)["quality"].refusal is not None


def test_propensities_that_are_not_those_of_the_choices_are_refused() -> None:
    log = drawn(600, 0)
    greedy = log_of(log.logged_QA.argmax(axis=1), log.logged_QA, log.new_QA, log.outcomes["quality"])
    found = evaluate(greedy)
    assert found.refusal is not None
    assert "recorded probabilities" in found.refusal
    assert found.answers == ()
    assert evaluate(log).refusal is None


def test_cost_is_told_though_nobody_judged() -> None:
    log = drawn(300, 0)
    found = evaluate(
        log_of(log.chosen_Q, log.logged_QA, log.new_QA, np.full(300, np.nan), outcomes={"usd": np.ones(300)})
    )
    assert "known of no decision" in str(found["quality"].refusal)
    assert found["quality"].logged is None
    assert found["usd"]["snips"].value.value == pytest.approx(1.0)
    with pytest.raises(TableError, match="known of no decision"):
        found["quality"]["dr"]


def test_impossible_logs() -> None:
    with pytest.raises(TableError, match="no decision to evaluate on"):
        drawn(0, 0)
    good = drawn(10, 0)
    with pytest.raises(TableError, match="do not sum to 1"):
        log_of(good.chosen_Q, good.logged_QA * 0.5, good.new_QA, good.outcomes["quality"])
    never = np.zeros_like(good.logged_QA)
    never[np.arange(10), (good.chosen_Q + 1) % 3] = 1.0
    with pytest.raises(TableError, match="propensity is wrong"):
        log_of(good.chosen_Q, never, good.new_QA, good.outcomes["quality"])
