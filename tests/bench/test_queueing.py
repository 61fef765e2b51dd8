"""What duplicates do to a fleet: bounded they help, without a bound they can make a busy fleet worse. Statistical tests average over fixed seeds."""

from functools import cache

import numpy as np
import pytest

from fairlead.bench.queueing import Fleet, Hedging, Tally, simulate
from fairlead.types import Late

SEEDS = range(3)


def hedging(share: float, *, seconds: float | None = 3.0, rounds: int = 0) -> Hedging:
    late = Late(target="fleet", quantile=0.95, otherwise=3.0, share=share)
    return Hedging(late=late, seconds=seconds, rounds=rounds)


@cache
def runs(fleet: Fleet, policy: Hedging, items: int = 3000) -> tuple[Tally, ...]:
    return tuple(simulate(fleet, policy, items=items, seed=s) for s in SEEDS)


def mean_of(fleet: Fleet, policy: Hedging) -> float:
    return float(np.mean([r.seconds_N.mean() for r in runs(fleet, policy)]))


def p99(fleet: Fleet, policy: Hedging) -> float:
    return float(np.mean([r.quantile(0.99) for r in runs(fleet, policy)]))


BURSTY = Fleet(load=0.5, burst=10.0)
FORGETFUL = Fleet(load=0.5, burst=None)
NONE = hedging(0.0)
FLEETS = (BURSTY, FORGETFUL, Fleet(load=0.9, burst=None, stop=1e9), Fleet(workers=64, load=0.8, factor=5.0))
POLICIES = (hedging(0.05), hedging(0.05, seconds=None), hedging(0.05, rounds=4), hedging(0.2, seconds=0.1))


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize("policy", [*POLICIES, NONE, hedging(1.0)])
def test_every_item_is_delivered_exactly_once(fleet: Fleet, policy: Hedging) -> None:
    tally = simulate(fleet, policy, items=1000)
    assert (tally.delivered_N == 1).all()
    assert np.isfinite(tally.seconds_N).all()


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize("policy", POLICIES)
def test_duplicates_never_exceed_the_budget(fleet: Fleet, policy: Hedging) -> None:
    assert 0 < simulate(fleet, policy, items=1000).most_share <= policy.late.share


def test_without_rounds_it_is_plain_hedging() -> None:
    plain, none = simulate(BURSTY, hedging(0.05), items=1000), simulate(BURSTY, NONE, items=1000)
    again = simulate(BURSTY, hedging(0.05, rounds=0), items=1000)
    assert (again.seconds_N == plain.seconds_N).all()
    assert (plain.seconds_N != none.seconds_N).any()
    assert (simulate(BURSTY, hedging(0.0, rounds=4), items=1000).seconds_N == none.seconds_N).all()


def test_with_no_stragglers_there_are_hardly_any_duplicates() -> None:
    for rounds in (0, 4):
        tally = simulate(Fleet(load=0.3, slow=0.0), hedging(0.05, seconds=5.0, rounds=rounds), items=2500)
        assert tally.duplicates <= 0.01 * 2500


def test_a_bounded_hedge_is_no_worse_than_none_and_a_little_redundancy_goes_a_long_way() -> None:
    for fleet in (BURSTY, FORGETFUL):
        assert p99(fleet, hedging(0.05)) < p99(fleet, NONE)
    assert p99(FORGETFUL, hedging(0.1)) < 0.5 * p99(FORGETFUL, NONE)


def test_hedging_without_a_bound_raises_the_load_and_makes_a_busy_fleet_worse() -> None:
    """The delay was right for a quiet fleet; targets go on with calls that nobody waits for."""
    quiet, busy = (Fleet(load=load, burst=None, stop=1e9) for load in (0.3, 0.95))
    assert p99(quiet, hedging(1.0)) < 0.5 * p99(quiet, NONE)
    wild, kept = runs(busy, hedging(1.0)), runs(busy, hedging(0.05))
    assert np.mean([r.duplicates for r in wild]) > 0.5 * 3000
    assert np.mean([r.work for r in wild]) > 1.05 * np.mean([r.work for r in runs(busy, NONE)])
    assert p99(busy, hedging(1.0)) > 1.2 * p99(busy, NONE)
    assert np.mean([r.duplicates for r in kept]) <= 0.05 * 3000
    assert p99(busy, hedging(0.05)) < 1.15 * p99(busy, NONE)


def test_history_helps_where_straggling_comes_in_bursts_and_its_advantage_is_gone_where_it_does_not() -> None:
    plain, history = hedging(0.1), hedging(0.1, rounds=4)
    gains = [1.0 - mean_of(fleet, history) / mean_of(fleet, plain) for fleet in (BURSTY, FORGETFUL)]
    assert gains[0] > 0.03
    assert gains[1] < 0.0
    # And at no higher cost: what history sends again it sends instead of waiting.
    work = [np.mean([r.work for r in runs(BURSTY, policy)]) for policy in (plain, history)]
    assert work[1] < work[0]


def test_the_same_seed_gives_the_same_run() -> None:
    one, two = (simulate(BURSTY, hedging(0.05), items=500, seed=4) for _ in range(2))
    assert (one.seconds_N == two.seconds_N).all()
    assert (one.seconds_N != simulate(BURSTY, hedging(0.05), items=500, seed=5).seconds_N).any()


def test_load_is_what_was_asked_for() -> None:
    for fleet in (FORGETFUL, Fleet(load=0.3, slow=0.0)):
        assert np.mean([r.busy for r in runs(fleet, NONE)]) == pytest.approx(fleet.load, rel=0.05)
