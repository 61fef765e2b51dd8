"""Quantiles of latencies of which some are only known to be longer, and the share of duplicates."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.types import Call, Decision, Failure, Late, Outcome, Query, Signals, Step, Trace
from fairlead.worlds.lateness import BURST, ENOUGH, RECALLED, WINDOW, Lateness

QUERY = Query.ask("x", id="q")
LATE = Late(target="a", share=0.05)


def told(*seconds: float, cut: tuple[float, ...] = ()) -> Lateness:
    lateness = Lateness()
    for s in seconds:
        lateness.note(Outcome(target="a", seconds=s))
    for s in cut:
        lateness.note(Outcome(target="a", seconds=s, cancelled=True))
    return lateness


@pytest.mark.parametrize(("share", "value"), [(0.5, 10.0), (0.95, 19.0), (0.951, 20.0), (0.01, 1.0), (0.999, 20.0)])
def test_the_quantile_is_the_least_that_so_many_did_not_exceed(share: float, value: float) -> None:
    assert told(*range(1, 21)).quantile("a", share) == value


def test_too_few_say_nothing_and_those_cut_short_do_not_count_as_answered() -> None:
    assert told(*range(1, ENOUGH)).quantile("a", 0.5) is None
    assert told(*range(1, ENOUGH), cut=(50.0,) * 30).quantile("a", 0.5) is None
    assert Lateness().quantile("a", 0.5) is None


def test_failures_say_nothing_but_time_outs_say_that_it_took_longer() -> None:
    lateness = told(*range(1, 21))
    lateness.note(Outcome(target="a", seconds=0.001, error=Failure(kind="rate_limited")))
    lateness.note(Outcome(target="", seconds=5.0))
    lateness.note(Outcome(target="a", seconds=0.0))
    assert lateness.quantile("a", 0.95) == 19.0
    lateness.note(Outcome(target="a", seconds=60.0, error=Failure(kind="timeout")))
    assert lateness.quantile("a", 0.95) == 20.0


def test_where_it_is_not_known_the_longest_seen_stands_for_it() -> None:
    assert told(*range(1, 21), cut=(30.0,) * 20).quantile("a", 0.95) == 30.0


@given(st.lists(st.floats(0.01, 100.0), min_size=ENOUGH, max_size=400), st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.99]))
def test_without_bounds_it_is_the_plain_quantile_of_the_window(seconds: list[float], share: float) -> None:
    ordered = sorted(seconds[-WINDOW:])
    least = next(s for i, s in enumerate(ordered, 1) if i >= share * len(ordered) - 1e-9)
    assert told(*seconds).quantile("a", share) == least


def test_calls_cut_short_at_random_do_not_make_a_target_look_fast() -> None:
    """Half of the calls are cut short at a random moment: the estimate stays near the truth, a plain quantile falls far below it."""
    random = Random(5)
    estimates, plain = [], []
    for _ in range(60):
        lateness, seen = Lateness(), []
        for _ in range(WINDOW):
            seconds, given = random.expovariate(1.0), random.expovariate(0.6)
            seen.append(min(seconds, given))
            lateness.note(Outcome(target="a", seconds=min(seconds, given), cancelled=given < seconds))
        estimates.append(lateness.quantile("a", 0.8))
        plain.append(np.quantile(seen, 0.8))
    truth = -np.log(0.2)
    assert abs(np.mean(estimates) - truth) < 0.1 * truth
    assert np.mean(plain) < 0.7 * truth


def test_the_window_slides() -> None:
    lateness = told(*[9.0] * WINDOW, cut=(8.0,) * 10)
    for _ in range(WINDOW):
        lateness.note(Outcome(target="a", seconds=1.0))
    assert lateness.quantile("a", 0.99) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.05, 0.3, 1.0])), max_size=300))
def test_never_more_than_the_share_and_a_quiet_time_saves_up_little(moves: list[tuple[bool, float]]) -> None:
    lateness = Lateness()
    steps: dict[float, int] = {}
    taken: dict[float, int] = {}
    for wants, share in moves:
        late = Late(target="a", share=share)
        lateness.delay(late, (), QUERY)
        steps[share] = steps.get(share, 0) + 1
        taken[share] = taken.get(share, 0) + (wants and lateness.take(late))
        assert taken[share] <= share * steps[share] + 1e-6
    for _ in range(1000):
        lateness.delay(LATE, (), QUERY)
    assert sum(lateness.take(LATE) for _ in range(100)) == BURST


def trace(name: str, seconds: float) -> Trace:
    outcome = Outcome(target="a", seconds=seconds)
    step = Step(path=(0, 0), call=Call(target="a"), outcome=outcome)
    note = Step(path=(1,), outcome=Outcome(target="a", seconds=99.0))
    decision = Decision(options=(), chosen=0, propensity=0.0)
    return Trace(
        id=name, at=0.0, query=QUERY, signals=Signals(), decision=decision, steps=(step, note), outcome=outcome
    )


def test_it_recalls_the_newest_traces_once_and_begins_with_an_empty_share() -> None:
    newest_first = [trace(f"t{i}", 1.0 if i < RECALLED else 50.0) for i in range(2 * RECALLED)]
    lateness = Lateness()
    lateness.recall(newest_first)
    assert lateness.quantile("a", 0.99) == 1.0
    lateness.recall([trace("new", 50.0)] * WINDOW)
    assert lateness.quantile("a", 0.99) == 1.0
    assert not lateness.take(LATE)
