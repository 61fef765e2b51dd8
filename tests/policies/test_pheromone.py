"""The policy `pheromone`: hops, tables apart, the gate, bounds, load, replay."""

from __future__ import annotations

from collections import Counter
from math import isclose
from random import Random

import pytest
from msgspec.structs import replace

from fairlead.errors import ConfigError
from fairlead.objective import Objective
from fairlead.plans.relay import Relay
from fairlead.policies.base import pick
from fairlead.policies.pheromone import Pheromone
from fairlead.pool import Pool
from fairlead.testing import check_policy
from fairlead.types import (
    Decision,
    Failure,
    Option,
    Outcome,
    Profile,
    Query,
    Reading,
    Reward,
    Signals,
    Step,
    Target,
    Trace,
)

TASKS = ("code", "general", "math")
LAYERS = tuple(tuple(f"{stage}{i}" for i in range(4)) for stage in ("collect", "analyse", "solve"))
TARGETS = tuple(Target(name=n) for layer in LAYERS for n in layer)
INTENT = {task: f"kind.{task}" for task in TASKS}
BEST = {task: tuple(layer[k] for layer in LAYERS) for k, task in enumerate(TASKS)}
"""The best path of each task; the tasks disagree at every stage."""
QUERY = Query(id="q", messages=())


def made(**changes: object) -> Pheromone:
    return Pheromone(**{"layers": LAYERS, "intent": INTENT, **changes})  # type: ignore[arg-type]


def said(**mix: float) -> Signals:
    return Signals(readings={"kind": Reading(parts={**mix})})


def chance(task: str, path: tuple[str, ...]) -> float:
    """Every node that is the task's best one adds to the chance of success."""
    return 0.1 + 0.28 * sum(a == b for a, b in zip(path, BEST[task], strict=True))


def trace_of(path: tuple[str, ...], signals: Signals, *, failed: bool = False) -> Trace:
    decision = Decision(options=(Option(plan=Relay(steps=path), probability=1.0),), chosen=0, propensity=1.0)
    error = Failure(kind="timeout") if failed else None
    steps = (Step(path=(0, 0), outcome=Outcome(target=path[0], error=error)),)
    outcome = Outcome(target=path[-1])
    return Trace(id="q", at=0.0, query=QUERY, signals=signals, decision=decision, steps=steps, outcome=outcome)


def path_of(policy: Pheromone, signals: Signals, u: float) -> tuple[str, ...]:
    options = policy.propose(QUERY, signals, TARGETS).options
    plan = options[pick([o.probability for o in options], u)].plan
    assert isinstance(plan, Relay)
    return plan.steps


def play(policy: Pheromone, *, n: int, seed: int = 0, judge: str = "true") -> float:
    """Serve and learn; return the mean chance of success over the last quarter."""
    random, won = Random(seed), []
    for i in range(n):
        task = TASKS[i % 3]
        signals = said(**{task: 1.0})
        path = path_of(policy, signals, random.random())
        won.append(chance(task, path))
        good = random.random() < (0.5 if judge == "coin" else won[-1])
        policy.learn(trace_of(path, signals), Reward(quality=1.0 if judge == "none" else float(good)))
    return sum(won[-n // 4 :]) / (n // 4)


def expected(policy: Pheromone) -> float:
    """Return the mean chance of success over all tasks and paths, exactly."""
    total = 0.0
    for task in TASKS:
        for option in policy.propose(QUERY, said(**{task: 1.0}), TARGETS).options:
            assert isinstance(option.plan, Relay)
            total += option.probability * chance(task, option.plan.steps) / len(TASKS)
    return total


def test_it_keeps_what_every_policy_keeps() -> None:
    check_policy(Pheromone.example)


def test_hop_probabilities_sum_to_one_and_paths_are_products_of_hops() -> None:
    policy = made()
    play(policy, n=60)
    mix = policy.mixture(said(math=1.0, code=3.0))
    assert mix == {"code": 0.75, "general": 0.0, "math": 0.25}
    etas = [dict.fromkeys(layer, 1.0) for layer in LAYERS]
    options = policy.propose(QUERY, said(math=1.0, code=3.0), TARGETS).options
    assert len(options) == 64
    for option in options:
        p = 1.0
        assert isinstance(option.plan, Relay)
        for stage, (before, name) in enumerate(zip(("", *option.plan.steps), option.plan.steps, strict=False)):
            hops = policy._hops(mix, stage, before, etas[stage])
            assert isclose(sum(hops.values()), 1.0)
            p *= hops[name]
        assert isclose(p, option.probability, rel_tol=1e-9)


def test_of_many_paths_the_likeliest_are_proposed_renormalised_and_it_is_said() -> None:
    whole = made(most=1000)
    play(whole, n=90)
    part = made(most=10)
    part.load(whole.state())
    all_, some = (p.propose(QUERY, said(math=1.0), TARGETS) for p in (whole, part))
    assert [o.plan for o in some.options] == [o.plan for o in all_.options[:10]]
    kept = sum(o.probability for o in all_.options[:10])
    for a, b in zip(some.options, all_.options, strict=False):
        assert isclose(a.probability, b.probability / kept)
    assert any(r.startswith("54 less likely paths") and f"{1 - kept:.3f}" in r for r in some.reasons)


def test_what_the_judge_rejects_leaves_every_table_bit_identical() -> None:
    policy = made()
    play(policy, n=60)
    before = policy.digest()
    trace = trace_of(BEST["math"], said(math=1.0))
    policy.learn(trace, Reward(quality=0.49))
    policy.learn(trace, Reward(quality=1.0, weight=0.0))
    policy.learn(trace, Reward(quality=1.0, further=True))
    policy.learn(trace_of(BEST["math"], said(math=1.0), failed=True), Reward(quality=1.0))
    assert policy.digest() == before
    policy.learn(trace, Reward(quality=0.5))
    assert policy.digest() != before


def test_one_task_alone_changes_only_its_table_and_evaporation_is_scaled_by_the_mixture() -> None:
    policy = made(rho=0.1)
    path = BEST["math"]
    policy.learn(trace_of(path, said(math=1.0)), Reward(quality=1.0))
    row = policy.tau_["math"]["0 "]
    assert row[path[0]] == pytest.approx(1.0)
    assert all(row[n] == pytest.approx(0.9) for n in LAYERS[0] if n != path[0])
    others = (policy.tau_[t] for t in TASKS if t != "math")
    assert all(tau == policy.tau_max for table in others for row in table.values() for tau in row.values())
    half = made(rho=0.1)
    half.learn(trace_of(path, said(math=1.0, code=1.0)), Reward(quality=1.0))
    assert half.tau_["math"]["0 "][LAYERS[0][0]] == pytest.approx(0.95)


def test_cost_takes_off_what_a_path_leaves() -> None:
    policy = made(objective=Objective(usd_weight=10.0))
    policy.learn(trace_of(BEST["math"], said(math=1.0)), Reward(quality=1.0, usd=0.1))
    assert policy.tau_["math"]["0 "][BEST["math"][0]] == pytest.approx(0.9 + 0.1 / 2.0)


def test_separate_tables_beat_a_shared_one_and_both_beat_uniform() -> None:
    uniform = expected(made())
    apart, shared = made(), made(intent=None)
    play(apart, n=1500)
    play(shared, n=1500)
    assert uniform == pytest.approx(0.31)
    assert expected(apart) > 0.6
    assert expected(apart) > expected(shared) + 0.2
    assert expected(shared) > uniform + 0.02


def test_without_the_gate_quality_is_lower() -> None:
    gated, open_ = made(), made()
    play(gated, n=900)
    play(open_, n=900, judge="none")
    assert expected(gated) > expected(open_) + 0.1


def top(policy: Pheromone) -> float:
    """Return the chance of the likeliest path of a task, the mean of all."""
    found = [policy.propose(QUERY, said(**{task: 1.0}), TARGETS).options[0].probability for task in TASKS]
    return sum(found) / len(found)


def test_a_judge_who_tosses_a_coin_locks_in_and_bounds_limit_the_damage() -> None:
    loose, bound = made(tau_min=1e-9), made(tau_min=0.2)
    play(loose, n=1500, judge="coin")
    play(bound, n=1500, judge="coin")
    assert top(loose) > 0.5  # uniform: 1/64. Nothing told it that any path is better.
    assert top(bound) < top(loose) / 1.5
    floor = 0.2 / (3 * 1.0 + 0.2)
    options = bound.propose(QUERY, said(math=1.0), TARGETS).options
    assert min(o.probability for o in options) >= floor**3
    # An honest judge afterwards: with bounds it gets out again.
    play(loose, n=900, seed=1)
    play(bound, n=900, seed=1)
    assert expected(bound) > expected(loose)


def test_without_the_heuristic_load_concentrates() -> None:
    """A thousand arrivals, each under way for the next 40."""
    peaks = {}
    for beta in (0.0, 2.0):
        policy = Pheromone(
            layers=(("a", "b", "c"),),
            busy={n: f"load.{n}" for n in "abc"},
            beta=beta,
            ability_weight=0.0,
            speed_weight=0.0,
            load_weight=1.0,
        )
        policy.tau_ = {"": {"0 ": {"a": 1.0, "b": 0.3, "c": 0.3}}}
        random, peak = Random(0), Counter[str]()
        busy: list[str] = []
        for _ in range(1000):
            now = Counter(busy[-40:])
            signals = Signals(readings={"load": Reading(parts={n: now[n] for n in "abc"})})
            options = policy.propose(QUERY, signals, tuple(Target(name=n) for n in "abc")).options
            busy.append(options[pick([o.probability for o in options], random.random())].plan.targets()[0])
            peak.update((busy[-1],))
        peaks[beta] = max(peak.values())
    assert peaks[0.0] > 550
    assert peaks[2.0] < 450


def test_the_heuristic_reads_skills_and_speed() -> None:
    nodes = (
        Target(name="x", profile=Profile(skills={"math": 0.9, "code": 0.1}, seconds_per_output_token=0.01)),
        Target(name="y", profile=Profile(skills={"math": 0.3, "code": 0.8}, seconds_per_output_token=0.04)),
    )
    policy = Pheromone(layers=(("x", "y"),), intent={"math": "kind.math", "code": "kind.code"}, speed_weight=0.0)
    share = {
        task: {o.plan.targets()[0]: o.probability for o in policy.propose(QUERY, said(**{task: 1.0}), nodes).options}
        for task in ("math", "code")
    }
    assert share["math"]["x"] > 0.5 > share["code"]["x"]
    fast = Pheromone(layers=(("x", "y"),), ability_weight=0.0)
    assert fast.propose(QUERY, said(), nodes).options[0].plan.targets() == ("x",)


def test_the_same_seed_and_snapshot_give_the_same_path() -> None:
    policy = made()
    play(policy, n=60)
    stored = made()
    stored.load(policy.state())
    pool = Pool(targets=TARGETS)
    for i in range(20):
        query = replace(QUERY, id=f"q{i}")
        a, b = (p.decide(query, said(math=1.0), pool, seed=3) for p in (policy, stored))
        assert (a.plan, a.propensity) == (b.plan, b.propensity)


def test_serving_does_not_depend_on_lessons_that_wait() -> None:
    policy = made()
    play(policy, n=30)
    before = policy.propose(QUERY, said(math=1.0), TARGETS)
    taught = policy.copy_to_teach()
    for _ in range(50):
        taught.learn(trace_of(BEST["math"], said(math=1.0)), Reward(quality=1.0))
    after = policy.propose(QUERY, said(math=1.0), TARGETS)
    assert after.options == before.options
    assert taught.propose(QUERY, said(math=1.0), TARGETS).options != before.options


def test_a_mixture_reads_numbers_flags_and_names_and_is_uniform_when_nothing_is_known() -> None:
    assert made().mixture(Signals()) == dict.fromkeys(TASKS, pytest.approx(1 / 3))
    policy = made(intent={"math": "domain", "code": "domain"})
    assert policy.mixture(Signals(readings={"domain": Reading(value="math")})) == {"code": 0.0, "math": 1.0}
    flagged = made(intent={"math": "f.a", "code": "f.b"})
    assert flagged.mixture(Signals(readings={"f": Reading(parts={"a": True, "b": False})}))["math"] == 1.0


def test_where_none_of_a_stage_may_act_whoever_may_answer_stands_in() -> None:
    policy = made()
    some = tuple(t for t in TARGETS if t.name not in LAYERS[1])
    for option in policy.propose(QUERY, said(math=1.0), some).options:
        assert isinstance(option.plan, Relay)
        assert option.plan.steps[1] in LAYERS[0] + LAYERS[2]


def test_settings_that_cannot_serve_are_refused() -> None:
    for policy, words in (
        (made(roles=("solve",)), "as many roles"),
        (made(tau_min=2.0), "above tau_max"),
        (made(ability_weight=0.0, load_weight=0.0, speed_weight=0.0), "without weights"),
    ):
        with pytest.raises(ConfigError, match=words):
            policy.check()
