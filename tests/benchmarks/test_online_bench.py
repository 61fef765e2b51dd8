"""The online benchmark: its arithmetic on small tables; the figures are left to `benchmarks/online.py --check`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fairlead.objective import Objective
from fairlead.policies.epsilon_greedy import EpsilonGreedy
from fairlead.policies.fixed import Fixed
from fairlead.policies.random import Random
from fairlead.testing import observer_of, toy

SOURCE = Path(__file__).parents[2] / "benchmarks" / "online.py"


@pytest.fixture(scope="module")
def online() -> ModuleType:
    spec = importlib.util.spec_from_file_location("online_benchmark", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(online: ModuleType) -> Any:
    return toy().observed(observer_of(online.BASICS), online.BASICS)


def test_the_halves_share_no_prompt(online: ModuleType, table: Any) -> None:
    past, now = online.deal(table, 3)
    assert len(past) + len(now) == len(table)
    assert not set(past.prompt_hashes) & set(now.prompt_hashes)


def test_regrets_of_a_fixed_policy_are_what_they_say(online: ModuleType, table: Any) -> None:
    stream = online.stream_of(table, Objective(usd_weight=10.0), 0)
    u_TK = table.quality_QM[stream.order_T] - 10.0 * table.usd_QM[stream.order_T]
    chosen_T = online.play(Fixed(plan="bee"), stream, 0)
    assert (chosen_T == table.models.index("bee")).all()
    found = online.regrets(stream, chosen_T)
    totals = u_TK.sum(axis=0)
    assert found["best fixed"] == pytest.approx(totals.max() - totals[table.models.index("bee")])
    assert found["best per query"] == pytest.approx(u_TK.max(axis=1).sum() - totals[table.models.index("bee")])
    assert found["best fixed"] <= found["best per data set"] <= found["best per query"]
    best = online.regrets(stream, online.play(Fixed(plan=table.models[int(totals.argmax())]), stream, 0))
    assert best["best fixed"] == pytest.approx(0.0, abs=1e-9)


def test_replay_estimates_a_fixed_policys_mean(online: ModuleType, table: Any) -> None:
    rng = np.random.default_rng(0)
    query_N, target_N = rng.integers(0, len(table), 3000), rng.integers(0, 3, 3000)
    reward_N = table.quality_QM[query_N, target_N]
    log = online.Log(table=table, query_N=query_N, target_N=target_N, reward_N=reward_N)
    found = online.estimates([online.replay(log, np.arange(3000), Fixed(plan="ant"), 0)])
    ant = target_N == table.models.index("ant")
    assert (found["accepted"], found["weighted"]) == pytest.approx((reward_N[ant].mean(), reward_N[ant].mean()))
    assert found["rows accepted"] == ant.sum()
    even = online.estimates([online.replay(log, np.arange(3000), Random(), 0)])
    assert even["weighted"] == pytest.approx(reward_N.mean())
    assert even["accepted"] == pytest.approx(reward_N.mean(), abs=5 * even["sd of accepted"])


def test_a_replayed_policy_learns_only_from_rows_it_accepted(online: ModuleType, table: Any) -> None:
    rng = np.random.default_rng(1)
    query_N, target_N = rng.integers(0, len(table), 600), rng.integers(0, 3, 600)
    log = online.Log(table=table, query_N=query_N, target_N=target_N, reward_N=table.quality_QM[query_N, target_N])
    policy = EpsilonGreedy()
    _, _, accepted_N = online.replay(log, np.arange(600), policy, 0)
    assert policy.lessons_ == accepted_N.sum()
    assert 100 < accepted_N.sum() < 300


def test_a_prior_recalled_is_the_prior(online: ModuleType, table: Any) -> None:
    past, now = online.deal(table, 0)
    recalled = online.fitted("mean", past, now)
    signals, targets = now.signals[5], [online.Target(name=m) for m in reversed(now.models)]
    direct = online.build("predictors", {"type": "mean"})
    direct.fit(past)
    assert recalled.predict(signals, targets) == direct.predict(signals, targets)


def test_marks_are_held(online: ModuleType) -> None:
    def row(part: str, **figures: float) -> Any:
        return online.Row(
            part=part, name=online.JUDGED, figures={k.replace("_", " "): (v, 0.01) for k, v in figures.items()}
        )

    good = row("regret, quality", best_fixed=9.0)
    bad = row("regret, quality", best_fixed=11.0)
    replay = row("replay", accepted=0.75, sd_of_accepted=0.01, weighted=0.70, sd_of_weighted=0.01)
    assert [ok for ok, _ in online.judge([good, bad, replay])] == [True, False, True, False]
