"""Always-valid inference: guarantees, exactly where that can be counted and by simulation elsewhere; and that it finds what is there."""

from itertools import product

import numpy as np
import pytest

from fairlead.component import finite, pack, unpack
from fairlead.errors import StateError
from fairlead.objective import Objective
from fairlead.sequential import (
    BETS,
    Floats,
    begin,
    bounds,
    difference,
    e_value,
    narrow,
    scaled,
    weigh,
    widest,
)
from fairlead.types import Reward

ALPHA = 0.05


def alarms(x_TN: Floats, low: float) -> Floats:
    """Return when the evidence of each stream first passes 1 / ALPHA, (N,); infinity: never."""
    first_N = np.full(x_TN.shape[1], np.inf)
    evidence = begin((x_TN.shape[1],))
    for t, x_N in enumerate(x_TN):
        evidence = weigh(evidence, x_N, low=low)
        first_N[(e_value(evidence) >= 1.0 / ALPHA) & np.isinf(first_N)] = t + 1
    return first_N


def share_by(first_N: Floats, t: int) -> float:
    """Return the share of streams found by time `t`."""
    return float((first_N <= t).mean())


def weighted(gap: float, share: float, shape: tuple[int, int], seed: int) -> tuple[Floats, float]:
    """Return importance-weighted differences of 0/1 answers, right for 0.7 - gap and 0.7, where the latter is served on `share`; and their bound."""
    rng = np.random.default_rng(seed)
    base_TN = rng.random(shape) < share
    y_TN = (rng.random(shape) < np.where(base_TN, 0.7, 0.7 - gap)).astype(np.float64)
    x_TN = np.where(base_TN, 1.0 / share, -1.0 / (1.0 - share)) * (y_TN - 0.7)
    return x_TN, min(-0.7 / share, -0.3 / (1.0 - share))


def test_on_a_fair_coin_the_capital_is_1_on_average_and_rarely_high_counted_over_all_paths() -> None:
    paths_NT = np.array(list(product((-1.0, 1.0), repeat=12)))
    evidence = begin((len(paths_NT),))
    crossed_N = np.zeros(len(paths_NT), bool)
    for x_N in paths_NT.T:
        evidence = weigh(evidence, x_N, low=-1.0)
        assert e_value(evidence).mean() == pytest.approx(1.0)
        crossed_N |= e_value(evidence) >= 4.0
    assert 0.0 < crossed_N.mean() <= 0.25


@pytest.mark.parametrize(("gap", "share"), [(0.0, 0.5), (0.0, 0.05), (0.0, 0.02), (-0.05, 0.05)])
def test_false_alarms_under_continuous_looking_are_as_rare_as_promised(gap: float, share: float) -> None:
    # 1000 streams: three standard errors at 0.05 are 0.021. A test at twice the nominal rate would fail here.
    assert np.isfinite(alarms(*weighted(gap, share, (1500, 1000), seed=1))).mean() <= ALPHA + 0.021


def test_the_same_looking_ruins_a_test_that_is_made_for_one_look() -> None:
    x_TN, _ = weighted(0.0, 0.5, (1500, 1000), seed=1)
    n_T1 = np.arange(1, 1501)[:, None]
    mean_TN = np.cumsum(x_TN, axis=0) / n_T1
    z_TN = mean_TN / np.sqrt((np.cumsum(x_TN**2, axis=0) / n_T1 - mean_TN**2) / n_T1 + 1e-12)
    assert (z_TN[50:] > 1.645).any(axis=0).mean() > 0.25


@pytest.mark.parametrize(
    ("gap", "share", "median", "ninety"), [(0.2, 0.5, 220, 480), (0.2, 0.1, 620, 1450), (0.4, 0.1, 170, 400)]
)
def test_what_is_worse_is_found_in_time(gap: float, share: float, median: int, ninety: int) -> None:
    first_N = alarms(*weighted(gap, share, (1500, 300), seed=2))
    assert share_by(first_N, median) >= 0.5
    assert share_by(first_N, ninety) >= 0.9


def test_what_becomes_worse_after_a_long_good_time_is_found() -> None:
    good_TN, low = weighted(-0.3, 0.1, (1500, 200), seed=3)
    bad_TN, _ = weighted(0.4, 0.1, (1500, 200), seed=4)
    first_N = alarms(np.concatenate([good_TN, bad_TN]), low)
    assert (first_N > 1500).all()
    assert share_by(first_N, 1500 + 1250) >= 0.9
    # Capital that played from the beginning has been lost to the good time, and would take far longer to win back.
    x_TN1 = np.concatenate([good_TN, bad_TN])[..., None]
    plain_TN = np.exp(np.cumsum(np.log1p(np.minimum(BETS, 0.75 / -low) * x_TN1), axis=0)).mean(axis=-1)
    assert (plain_TN.max(axis=0) >= 1.0 / ALPHA).mean() < 0.5


@pytest.mark.parametrize(("gap", "share"), [(0.0, 0.5), (0.2, 0.1), (-0.3, 0.5)])
def test_intervals_hold_the_truth_at_every_moment(gap: float, share: float) -> None:
    x_TN, low = weighted(gap, share, (600, 500), seed=5)
    high = max(0.3 / share, 0.7 / (1.0 - share))
    interval, out_N = widest((500,)), np.zeros(500, bool)
    for x_N in x_TN:
        interval = narrow(interval, x_N, low=low, high=high, alpha=ALPHA)
        low_N, high_N = bounds(interval, alpha=ALPHA)
        out_N |= (low_N > gap) | (gap > high_N)
    assert out_N.mean() <= ALPHA + 0.03
    assert float((high_N - low_N).mean()) < (0.45 if share == 0.5 else 0.9)


def test_an_interval_that_rules_everything_out_says_the_mean() -> None:
    ruled_out = np.full(81, 9.0)
    interval = {"n": 8, "sum": np.float64(2.0), "squares": np.float64(2.0), "up": ruled_out, "down": ruled_out}
    assert bounds(interval, alpha=ALPHA) == (0.25, 0.25)


@pytest.mark.parametrize(("mean", "sd"), [(0.5125, 0.1), (0.0125, 0.25)])
def test_an_interval_never_gets_narrower_than_its_grid_can_tell(mean: float, sd: float) -> None:
    # Between two means of the grid; 20,000 observations tell it from both of them.
    rng = np.random.default_rng(0)
    interval = widest((20,))
    for _ in range(20_000):
        x_N = mean + rng.choice([-sd, sd], 20)
        interval = narrow(interval, x_N, low=-1.0, high=1.0, alpha=ALPHA)
    low_N, high_N = bounds(interval, alpha=ALPHA)
    assert ((low_N <= mean) & (mean <= high_N)).mean() >= 0.9
    assert (high_N - low_N > 0.02).all()
    assert (high_N - low_N).mean() < 0.06


def test_a_difference_is_unbiased_and_within_its_bounds_whatever_the_centre() -> None:
    served = {"a": 0.7, "b": 0.2, "c": 0.1}
    up, down = {"a": 0.1, "b": 0.6, "c": 0.3}, {"a": 0.9, "b": 0.1, "c": 0.0}
    right = {"a": 0.8, "b": 0.5, "c": 0.3}
    truth = sum((up[k] - down[k]) * right[k] for k in served)
    for centre in (0.0, 0.4, 1.0):
        mean = 0.0
        for k, p in served.items():
            for y in (0.0, 1.0):
                seen = difference(served, up, down, chosen=k, y=y, centre=centre, least=-2.0, most=4.0)
                assert seen is not None
                assert seen.low <= seen.x <= seen.high
                mean += p * (right[k] if y else 1.0 - right[k]) * seen.x
        assert mean == pytest.approx(truth)


def test_a_difference_that_the_record_cannot_tell_is_none() -> None:
    told = {"chosen": "a", "y": 1.0, "centre": 0.5, "least": -2.0, "most": 2.0}
    assert difference({"a": 1.0}, {"b": 1.0}, {"a": 1.0}, **told) is None  # b was never served
    assert difference({"a": 0.9, "b": 0.1}, {"b": 1.0}, {"a": 1.0}, **told) is None  # weight 10: served in another way
    assert difference({"b": 1.0}, {"b": 1.0}, {"b": 1.0}, **told) is None  # what was chosen had no probability
    same = difference({"a": 1.0}, {"a": 1.0}, {"a": 1.0}, **told)
    assert same is not None
    assert same.x == 0.0


def test_what_is_out_of_bounds_is_refused() -> None:
    for x in (-1.1, float("nan"), float("inf")):
        with pytest.raises(StateError, match="bound"):
            weigh(begin(), x, low=-1.0)
        with pytest.raises(StateError, match="not finite or not between"):
            narrow(widest(), x, low=-1.0, high=1.0, alpha=ALPHA)
    with pytest.raises(StateError, match="does not lie"):
        difference({"a": 1.0}, {"a": 1.0}, {"a": 1.0}, chosen="a", y=1.1, centre=0.5, least=-1.0, most=1.0)


def test_state_is_small_stays_finite_and_survives_storing() -> None:
    evidence, interval = begin(), widest()
    for _ in range(5000):
        evidence = weigh(evidence, 1.0, low=-1.0)
        interval = narrow(interval, 1.0, low=-1.0, high=1.0, alpha=ALPHA)
    assert finite(evidence)
    assert finite(interval)
    assert len(pack(evidence)) < 200
    assert len(pack(interval)) < 1500
    again = weigh(unpack(pack(evidence)), -0.5, low=-1.0)
    assert pack(again) == pack(weigh(evidence, -0.5, low=-1.0))


def test_utility_is_scaled_and_cut_off() -> None:
    objective = Objective(usd_weight=10.0)
    assert scaled(Reward(quality=1.0, usd=0.0), objective, -1.0) == 1.0
    assert scaled(Reward(quality=0.5, usd=0.05), objective, -1.0) == pytest.approx(0.5)
    assert scaled(Reward(quality=0.0, usd=9.0), objective, -1.0) == 0.0
    with pytest.raises(StateError, match="utility of nan"):
        scaled(Reward(quality=float("nan")), objective, 0.0)
