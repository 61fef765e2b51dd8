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


def rows_of(online: ModuleType, *, learned: float) -> list[Any]:
    """All rows that marks read, as if learning brought `learned`, give or take 1."""

    def row(part: str, name: str, **figures: tuple[float, float]) -> Any:
        return online.Row(part=part, name=name, figures={k.replace("_", " "): v for k, v in figures.items()})

    gain, none = (learned, 1.0), (0.0, 0.0)
    out = []
    for wanted in online.OBJECTIVES:
        out += [
            row("judged: x", f"{wanted}: {online.JUDGED}", best_fixed=(-5.0, 1.0), less_than_the_prior_alone=none),
            row("judged: x", f"{wanted}: {online.COLD_JUDGED}", less_than_random=gain),
        ]
    reward, spread = (0.674 + learned / 1000.0, 0.0), (0.005, 0.0)
    for name, found in ((online.JUDGED, (0.75, 0.0)), (online.COLD_JUDGED, reward)):
        figures = {"accepted": found, "sd_of_accepted": spread, "weighted": found, "sd_of_weighted": spread}
        out.append(row("replay of GreenServ's random rows: x", name, **figures))
    return [
        *out,
        row("drift: x", online.DRIFT_JUDGED, less_than_the_prior_alone=gain),
        row("drift: x", online.DETECT, less_than_without_the_test=gain),
        row("corral, quality", online.MISLED, less_than_the_misleading_prior=gain),
        row("corral, quality", online.CORRAL, less_than_the_even_mixture=gain),
    ]


def test_a_policy_that_does_not_learn_misses_all_marks_but_those_of_its_prior(online: ModuleType) -> None:
    kept = online.judge(rows_of(online, learned=20.0))
    assert len(kept) == 14
    assert all(good for good, _ in kept)
    missed = [text for good, text in online.judge(rows_of(online, learned=0.0)) if not good]
    assert len(missed) == 8
    held = [text for good, text in online.judge(rows_of(online, learned=0.0)) if good]
    assert all(online.JUDGED in text for text in held)


def test_what_a_mark_says_is_the_interval(online: ModuleType) -> None:
    def verdicts(name: str, figure: str, mean: float, half: float) -> tuple[bool, str]:
        row = online.Row(
            part="judged: x", name=f"quality: {name}", figures={figure: (mean, half), online.LESS: (0.0, 0.0)}
        )
        good, text = online.judge([row])[0]
        return good, text

    good, text = verdicts(online.JUDGED, "best fixed", 9.0, 0.5)
    assert good
    assert text.endswith("shown")
    good, text = verdicts(online.JUDGED, "best fixed", 9.0, 3.0)
    assert good
    assert text.endswith("point only")
    assert not verdicts(online.JUDGED, "best fixed", 11.0, 0.5)[0]
    assert not verdicts(online.COLD_JUDGED, "less than random", 5.0, 6.0)[0]


def test_learning_that_harms_is_found(online: ModuleType) -> None:
    figures = {"best fixed": (-20.0, 1.0), online.LESS: (-6.0, 5.0)}
    row = online.Row(part="judged: x", name=f"quality: {online.JUDGED}", figures=figures)
    assert [good for good, _ in online.judge([row])] == [True, False]


def test_false_alarms_are_counted(online: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "RIGHT", (0.5,))
    monkeypatch.setattr(online, "ARMS", 6)
    found = online.alarms(0)["0.50"]
    assert found["within 4,000"] <= 1 / 6
    assert 20 < found["fall noticed after, median"] < 120
    rows = [online.Row(part="alarms: x", name="0.50", figures={"within 4,000": (share, 0.0)}) for share in (0.04, 0.06)]
    assert [online.judge([row])[0][0] for row in rows] == [True, False]
