"""The gate of TWN: labels by measured gain, what it tells on hard and easy queries, and that thinking must pay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.bench.metrics import auroc
from fairlead.errors import TableError
from fairlead.plans.mode import choose
from fairlead.predictors.features import Features
from fairlead.predictors.gain import Gain
from fairlead.table import OutcomeTable
from fairlead.testing import check_predictor, observer_of
from fairlead.types import Target

USD = {"direct": 1.0, "think": 4.0}
NAMES = ("direct", "think")


def table(hard_share: float, *, queries: int = 400, seed: int = 0, harm: float = 0.1) -> tuple[OutcomeTable, Any]:
    """Return a table, and which queries are hard: to be thought about ("xor"), where easy ones ("copy") are harmed by thinking."""
    rng = np.random.default_rng(seed)
    hard_Q = rng.random(queries) < hard_share
    rows: list[dict[str, Any]] = []
    for q, hard in enumerate(hard_Q):
        letters = "".join(rng.choice(list("abcdef"), 6))
        prompt = f"xor {letters} with {letters[::-1]}" if hard else f"copy {letters}"
        able = (0.1, 0.9) if hard else (0.95, 0.95 - harm)
        for name, p in zip(NAMES, able, strict=True):
            quality = float(rng.random() < p)
            rows.append(
                {
                    "query_id": f"q{q}",
                    "prompt": f"{prompt} {q}",
                    "model": name,
                    "quality": quality,
                    "cost_usd": USD[name],
                }
            )
    return OutcomeTable.from_columns({k: [r[k] for r in rows] for k in rows[0]}), hard_Q


def gain(**more: Any) -> Gain:
    return Gain(features=Features(signals=("length", "marks", "ngrams")), **more)


def fitted(gate: Gain, t: OutcomeTable) -> Gain:
    gate.fit(t.observed(observer_of(gate.needs), gate.needs))
    return gate


def thought(gate: Gain, t: OutcomeTable, *, usd_weight: float = 0.0) -> Any:
    """Return which queries the plan `mode` thinks about, with `penalty` 0."""
    t = t.observed(observer_of(gate.needs), gate.needs)
    out = []
    for s in t.observations(gate.needs):
        direct, think = gate.predict(s, [Target(name=n) for n in NAMES])
        mode = choose({"instant": direct, "reasoning": think}, penalty=0.0, usd_weight=usd_weight)
        out.append(mode == "reasoning")
    return np.asarray(out)


def brought(thinks_Q: Any, t: OutcomeTable) -> float:
    return float(t.quality_QM[np.arange(len(t)), thinks_Q.astype(int)].mean())


@pytest.fixture(scope="module")
def half() -> Gain:
    return fitted(gain(), table(0.5)[0])


def test_gate_auc_on_hard_and_easy_is_above_0_9(half: Gain) -> None:
    t, hard_Q = table(0.5, seed=1)
    observed = t.observed(observer_of(half.needs), half.needs)
    score_Q = [half.gates(half.features.read(s))[1] for s in observed.observations(half.needs)]
    assert auroc(score_Q, hard_Q) > 0.9


def test_adaptive_is_as_good_as_the_better_fixed_mode_with_about_half_the_thinking(half: Gain) -> None:
    t, hard_Q = table(0.5, seed=1)
    thinks_Q = thought(half, t, usd_weight=0.05)
    adaptive = brought(thinks_Q, t)
    fixed = [brought(np.full(len(t), v), t) for v in (False, True)]
    assert adaptive >= max(fixed) - 0.02
    assert 0.4 < thinks_Q.mean() < 0.6
    rng = np.random.default_rng(3)
    assert adaptive > brought(rng.permutation(thinks_Q), t) + 0.15, "a random gate at the same rate"
    assert adaptive >= brought(hard_Q, t) - 0.03, "the oracle of the kinds"


@pytest.mark.parametrize("harm", [0.0, 0.1])
def test_with_0_percent_hard_inputs_it_almost_never_thinks(harm: float) -> None:
    gate = fitted(gain(), table(0.0, harm=harm)[0])
    t, _ = table(0.0, seed=1)
    assert thought(gate, t, usd_weight=0.03).mean() < 0.05
    if harm:
        assert thought(gate, t).mean() < 0.05, "also where thinking costs nothing"


def test_with_100_percent_hard_inputs_it_thinks() -> None:
    gate = fitted(gain(), table(1.0)[0])
    assert thought(gate, table(1.0, seed=1)[0], usd_weight=0.03).mean() > 0.95


def test_it_thinks_iff_the_expected_gain_pays(half: Gain) -> None:
    t, _ = table(0.5, seed=1)
    shares = [thought(half, t, usd_weight=w).mean() for w in (0.0, 0.05, 0.5)]
    assert shares[0] >= shares[1] > 0.3
    assert shares[2] == 0.0, "a gain of at most 1 against a cost of 1.5"


def test_queries_near_tau_are_no_labels() -> None:
    rng = np.random.default_rng(0)
    z = np.column_stack([rng.normal(size=200), np.ones(200)])
    sign = z[:, 0] > 0.0
    clear = np.where(sign, 0.5, -0.5)
    near = np.where(sign, -0.04, 0.04)  # the other way round, and within eps
    mixed = np.where(np.arange(200) < 100, clear, near)
    gate = gain()._gate(z, mixed)
    assert gate is not None
    without = gain()._gate(z[:100], mixed[:100])
    assert without is not None
    assert gate == pytest.approx(without, abs=1e-9)
    assert gain()._gate(z, near) is None
    moved = gain(tau=0.6)._gate(z, clear)
    assert moved is None, "no gain is above tau"


def test_classes_are_weighed_alike() -> None:
    rng = np.random.default_rng(0)
    rare = rng.random(1000) < 0.05
    z = np.column_stack([rng.normal(size=1000), np.ones(1000)])
    gate = gain()._gate(z, np.where(rare, 1.0, -1.0))
    assert gate is not None
    assert abs(gate[-1]) < 0.3, "where nothing is known of a query both labels are as likely, however rare one is"


def test_where_the_text_says_nothing_the_forecast_is_the_mean_gain() -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for q in range(400):
        prompt = f"say {rng.integers(10**9)}"
        for name, p in (("direct", 0.5), ("think", 0.7)):
            quality = float(rng.random() < p)
            rows.append(
                {"query_id": f"q{q}", "prompt": prompt, "model": name, "quality": quality, "cost_usd": USD[name]}
            )
    t = OutcomeTable.from_columns({k: [r[k] for r in rows] for k in rows[0]})
    gate = fitted(gain(), t)
    mean = t.quality_QM[:, 1].mean() - t.quality_QM[:, 0].mean()
    found = []
    for s in t.observed(observer_of(gate.needs), gate.needs).observations(gate.needs):
        direct, think = gate.predict(s, [Target(name=n) for n in NAMES])
        found.append(think.quality - direct.quality)
    assert np.mean(found) == pytest.approx(mean, abs=0.03)
    assert np.std(found) < 0.1


def test_what_is_wrong_is_said() -> None:
    t, _ = table(0.5, queries=60)
    with pytest.raises(TableError, match="no target 'quick'"):
        fitted(gain(direct="quick"), t)
    t.usd_QMS[:] = np.nan
    with pytest.raises(TableError, match="`direct`"):
        fitted(gain(), t)
    assert fitted(gain(direct="direct"), t).fitted
    t.quality_QMS[:, 0] = np.nan
    with pytest.raises(TableError, match="no answer of direct"):
        fitted(gain(direct="direct"), t)


def test_the_family_check() -> None:
    check_predictor(lambda: gain(direct="ant", tau=0.1))
