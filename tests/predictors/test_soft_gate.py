"""The gate of TableDART: its target, its loss, its gradient, and that it chooses the cheapest way that is likely right."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.errors import TableError
from fairlead.predictors.soft_gate import Choosing, SoftGate, loss, soft_target, softmax
from fairlead.table import OutcomeTable
from fairlead.testing import observer_of
from fairlead.types import Target


def table_of(rows: list[dict[str, object]]) -> OutcomeTable:
    return OutcomeTable.from_columns({k: [r[k] for r in rows] for k in rows[0]})


WAYS = ("text", "image", "both")
USD = (1.0, 2.0, 6.0)


def net(weight: float = 0.15, temperature: float = 0.25) -> Choosing:
    return Choosing(4, 5, np.asarray(USD) / 6.0, temperature, weight, 1.0)


def test_the_target_shares_among_the_ways_that_succeeded() -> None:
    t = soft_target(np.asarray([[1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=np.float32), 0.01)
    np.testing.assert_allclose(t, [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1, 0]], atol=1e-6)
    blurred = soft_target(np.asarray([[1, 1, 0]], dtype=np.float32), 1.0)
    assert blurred[0, 0] == blurred[0, 1] > blurred[0, 2] > 0.0


def test_the_loss_without_cost_is_never_negative_and_zero_only_at_the_target() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (50, 3)).astype(np.float32)
    assert loss(rng.normal(size=(50, 3)).astype(np.float32), y, net(0.0)) > 0.0
    assert loss((y / 0.25).astype(np.float32), y, net(0.0)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.15, 3.0])
def test_the_gradient_is_that_of_the_loss(weight: float) -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(1, 3)), rng.integers(0, 2, (1, 3)).astype(np.float32)
    gate = net(weight)
    found = gate.off(z.astype(np.float32), y)
    for t in range(3):
        up, down = z.copy(), z.copy()
        up[0, t] += 1e-2
        down[0, t] -= 1e-2
        assert found[0, t] == pytest.approx((loss(up, y, gate) - loss(down, y, gate)) / 2e-2, abs=2e-3)
    if not weight:
        np.testing.assert_allclose(found, softmax(z.astype(np.float32)) - soft_target(y, 0.25), atol=1e-6)


def test_a_query_with_an_unknown_way_teaches_nothing() -> None:
    y = np.asarray([[1.0, np.nan, 0.0]], dtype=np.float32)
    assert not net().off(np.ones((1, 3), dtype=np.float32), y).any()


def table(kind: str, queries: int = 600, seed: int = 0) -> OutcomeTable:
    """Short prompts with numbers are for text, those with brackets for the image, long ones for both; or all ways succeed."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in range(queries):
        which = int(rng.integers(3))
        words = ["sum the column 12 34", "[ look ] at { this } picture", "long " * 30 + "compare both"][which]
        prompt = f"{words} {rng.integers(10**6)}"
        for m, way in enumerate(WAYS):
            right = 1.0 if kind == "alike" else float(m == which or (m == 2 and rng.random() < 0.5))
            if kind == "noise":
                right = float(rng.random() < 0.5)
            rows.append({"query_id": f"q{q}", "prompt": prompt, "model": way, "quality": right, "cost_usd": USD[m]})
    return table_of(rows)


def fitted(gate: SoftGate, kind: str) -> SoftGate:
    t = table(kind)
    gate.fit(t.observed(observer_of(gate.needs), gate.needs))
    return gate


def choices(gate: SoftGate, kind: str) -> tuple[np.ndarray, OutcomeTable]:
    t = table(kind, 200, seed=9)
    found = []
    targets = [Target(name=w) for w in sorted(WAYS)]
    for signals in t.observed(observer_of(gate.needs), gate.needs).observations(gate.needs):
        forecast = gate.predict(signals, targets)
        found.append(targets[int(np.argmax([f.quality for f in forecast]))].name)
    return np.asarray(found), t


def test_where_all_succeed_the_cheapest_is_chosen_and_without_costs_none_is_preferred() -> None:
    chosen, _ = choices(fitted(SoftGate(), "alike"), "alike")
    assert (chosen == "text").mean() > 0.99
    gate = fitted(SoftGate(cost_weight=0.0), "alike")
    z = np.asarray(gate.weights_["b2"])[:, 0]
    assert np.abs(z - z.mean(axis=1, keepdims=True)).max() < 0.2


def test_it_beats_the_best_fixed_way_and_a_random_one_and_stays_below_the_oracle() -> None:
    chosen, t = choices(fitted(SoftGate(), "planted"), "planted")
    quality_QM = t.with_models(sorted(WAYS)).quality_QM
    got = quality_QM[np.arange(len(t)), [sorted(WAYS).index(c) for c in chosen]].mean()
    assert got > quality_QM.mean(axis=0).max() + 0.15
    assert got > quality_QM.mean() + 0.3
    assert got <= quality_QM.max(axis=1).mean()
    assert (chosen == "both").mean() < 0.6  # the dear way is saved for where it is needed


def test_the_dear_ways_share_falls_as_its_cost_weighs_more() -> None:
    shares = [
        (choices(fitted(SoftGate(cost_weight=w), "planted"), "planted")[0] == "both").mean() for w in (0.0, 1.0, 30.0)
    ]
    assert shares[0] >= shares[1] >= shares[2]
    assert shares[2] == 0.0
    assert (choices(fitted(SoftGate(cost_weight=30.0), "noise"), "noise")[0] == "text").all()


def test_only_the_shape_of_the_costs_matters() -> None:
    cents = SoftGate(costs={"text": 100.0, "image": 200.0, "both": 600.0})
    assert fitted(cents, "planted").state()["weights_"]["b2"] == pytest.approx(
        fitted(SoftGate(), "planted").state()["weights_"]["b2"]
    )


def test_unknown_costs_are_refused() -> None:
    gate = SoftGate(costs={"text": 1.0})
    t = table("alike", 20)
    with pytest.raises(TableError, match="both, image"):
        gate.fit(t.observed(observer_of(gate.needs), gate.needs))
    free = table_of([{"query_id": "q", "prompt": "p", "model": "m", "quality": 1.0}])
    with pytest.raises(TableError, match="cost_weight: 0"):
        SoftGate().fit(free.observed(observer_of(gate.needs), gate.needs))
