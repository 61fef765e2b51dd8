"""The predictor `agents`: entities beside the query, soft targets, and what order and clones may not change."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest

from fairlead.predictors.agents import Agents, Messages, messages
from fairlead.predictors.base import Floats, Predictor
from fairlead.predictors.features import Features
from fairlead.predictors.mlp import MLP
from fairlead.predictors.nodes import Nodes
from fairlead.predictors.soft_gate import loss, soft_target, softmax
from fairlead.table import OutcomeTable
from fairlead.testing import check_predictor, observer_of
from fairlead.types import Reading, Signals, Target

NAMES = ("anna", "boris", "clara")
KINDS = (
    ("paris", "oslo", "cairo", "lima", "quito", "seoul", "delhi", "milan"),
    ("gold", "iron", "zinc", "lead", "tin", "neon", "argon", "boron"),
    ("bach", "verdi", "ravel", "holst", "grieg", "haydn", "liszt", "bizet"),
)
FILL = ("tell", "me", "about", "the", "story", "that", "people", "know", "of", "old", "times")
TARGETS = [Target(name=n) for n in NAMES]


@cache
def table(cue: str = "entity", n: int = 500, clone: bool = False) -> OutcomeTable:
    """Each agent is good at one kind of entity (cue entity), or of lengths (cue query)."""
    random = Random(0)
    columns: dict[str, list[Any]] = {k: [] for k in ("query_id", "prompt", "model", "quality")}
    for i in range(n):
        kind = random.randrange(3)
        words = random.choices(FILL, k=8 if cue == "entity" else (4, 12, 36)[kind])
        words[random.randrange(len(words))] = random.choice(KINDS[kind] if cue == "entity" else sum(KINDS, ()))
        for a, name in enumerate((*NAMES, *(("zoe",) if clone else ()))):
            columns["query_id"].append(f"q{i}")
            columns["prompt"].append(" ".join(words))
            columns["model"].append(name)
            columns["quality"].append(float(a % 3 == kind))
    needs = Agents().needs + MLP().needs
    return OutcomeTable.from_columns(columns).observed(observer_of(needs), needs)


PLAIN = Features(signals=("style", "length", "marks"))


def won(predictor: Predictor, whole: OutcomeTable) -> float:
    """Return the mean quality of choosing by the forecasts on the queries that were not learned from."""
    predictor.fit(whole.take(range(350)))
    signals = whole.observations(predictor.needs)
    out = []
    for i in range(350, 500):
        forecasts = predictor.predict(signals[i], TARGETS)
        best = max(range(3), key=lambda k: forecasts[k].quality)
        out.append(whole.quality_QM[i, whole.models.index(NAMES[best])])
    return float(np.mean(out))


def test_it_keeps_what_every_predictor_keeps() -> None:
    check_predictor(Agents)


def test_it_beats_the_best_agent_and_a_net_without_entity_nodes_when_the_cue_is_in_the_entities() -> None:
    graph, blind = won(Agents(), table()), won(MLP(features=PLAIN), table())
    single = float(table().quality_QM[350:].mean(axis=0).max())
    assert graph > 0.9
    assert graph > blind + 0.3
    assert graph > single + 0.3


def test_it_ties_when_the_cue_is_in_the_query() -> None:
    graph, blind = won(Agents(), table("query")), won(MLP(features=PLAIN), table("query"))
    assert graph > 0.95
    assert abs(graph - blind) < 0.05


def test_the_loss_is_zero_only_where_p_is_the_soft_target() -> None:
    net = Messages(4, 2, 3, 3, 0.5)
    y = np.asarray([[0.0, 0.4, 1.0], [0.3, 0.3, 0.3]], dtype=np.float32)
    same = y / np.float32(0.5)
    assert loss(same, y, net) == pytest.approx(0.0, abs=1e-6)
    assert loss(same + np.float32(3.0), y, net) == pytest.approx(0.0, abs=1e-6)
    assert loss(same * np.float32(1.5), y, net) > 1e-3


def test_cold_targets_are_the_best_agent_alone_and_hot_ones_are_uniform() -> None:
    y = np.asarray([[0.0, 0.4, 1.0]], dtype=np.float32)
    assert soft_target(y, 1e-3) == pytest.approx(np.asarray([[0.0, 0.0, 1.0]]), abs=1e-6)
    assert soft_target(y, 1e4) == pytest.approx(np.full((1, 3), 1 / 3), abs=1e-4)
    scores = np.asarray([[0.2, 1.0, 0.5]], dtype=np.float32)
    crossed = -float(np.log(softmax(scores)[0, 2]))
    assert loss(scores, y, Messages(4, 2, 3, 3, 1e-3)) == pytest.approx(crossed, abs=1e-5)


def test_gradients_are_those_of_the_loss() -> None:
    net = Messages(6, 3, 4, 3, 0.5)
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=v.shape) for k, v in net.start(rng, 1).items()}
    x, y = np.abs(rng.normal(size=(1, 5, 6))), rng.random((1, 5, 3))

    class Whole:
        """Leaves nothing out: half of the draws would be; these are all above, so all count double."""

        def random(self, shape: tuple[int, ...], dtype: object = None) -> Floats:
            return np.zeros(shape)

    def at(some: dict[str, Floats]) -> float:
        nodes = 3
        heard = x[..., -nodes:] @ np.maximum(some["nodes"], 0.0) @ some["we"]
        h = 2.0 * np.maximum(x[..., :-nodes] @ some["w1"] + some["b1"] + heard, 0.0)
        z = h @ some["w2"] + some["b2"]
        log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
        t = np.exp(y / 0.5) / np.exp(y / 0.5).sum(axis=-1, keepdims=True)
        return float(-(t * log_p).sum())

    found = net.gradient(params, x, y, Whole())  # type: ignore[arg-type]
    for name, value in params.items():
        index = tuple(0 for _ in value.shape)
        up, down = ({**params, name: value.copy()} for _ in range(2))
        up[name][index] += 1e-5
        down[name][index] -= 1e-5
        assert found[name][index] == pytest.approx((at(up) - at(down)) / 2e-5, abs=1e-3), name


def test_relabelling_agents_permutes_the_scores_and_the_order_of_entities_has_no_effect() -> None:
    rng = np.random.default_rng(0)
    params = Messages(6, 3, 4, 3, 0.5).start(rng, 1)
    params["w2"] = rng.normal(size=params["w2"].shape).astype(np.float32)
    x = rng.random((2, 6), dtype=np.float32)
    order = [2, 0, 1]
    turned = {**params, "w2": params["w2"][..., order], "b2": params["b2"][..., order]}
    assert messages(turned, x)[1] == pytest.approx(messages(params, x)[1][..., order])
    moved = np.concatenate([x[:, :3], x[:, 3:][:, order]], axis=1)
    renamed = {**params, "nodes": params["nodes"][:, order]}
    assert messages(renamed, moved)[1] == pytest.approx(messages(params, x)[1], abs=1e-5)
    features = Nodes(signals=("length",), nodes=16)
    length = Reading(parts={"characters_all": 3})
    rows = []
    for numbers in ((3, 1, 7, 1), (7, 1, 3, 1)):
        bag = np.asarray(numbers, dtype="<u2").tobytes()
        signals = Signals(readings={"length": length, "ngrams": Reading(bag=bag)})
        features.begin(signals)
        rows.append(features.read(signals))
    assert np.array_equal(rows[0], rows[1])
    assert rows[0][-16:].sum() == pytest.approx(1.0)


def test_a_clone_is_forecast_alike_and_their_joint_share_does_not_fall() -> None:
    cloned = table(clone=True)
    predictor = Agents(epochs=10)
    predictor.fit(cloned.take(range(350)))
    for signals in cloned.observations(predictor.needs)[350:370]:
        a, b, c, z = (f.quality for f in predictor.predict(signals, [*TARGETS, Target(name="zoe")]))
        assert a == pytest.approx(z, abs=1e-4)
        alone, joint = (softmax(np.asarray(q, dtype=np.float32)) for q in ([a, b, c], [a, b, c, z]))
        assert joint[0] + joint[3] > alone[0]


def test_soft_targets_beat_hard_ones_where_several_agents_are_right() -> None:
    """By the weighted vote and by the weight on who is wrong; that p varies less with the sample was looked for, and not found."""
    random = Random(0)
    columns: dict[str, list[Any]] = {k: [] for k in ("query_id", "prompt", "model", "quality")}
    for i in range(300):
        kind = random.randrange(3)
        words = random.choices(FILL, k=8)
        words[random.randrange(8)] = random.choice(KINDS[kind])
        for a, name in enumerate(NAMES):
            quality = random.uniform(0.0, 0.3) if a == kind else random.uniform(0.5, 1.0)
            for column, value in zip(columns.values(), (f"q{i}", " ".join(words), name, quality), strict=True):
                column.append(value)
    whole = OutcomeTable.from_columns(columns).observed(observer_of(Agents().needs), Agents().needs)
    wrong_QT = whole.quality_QM[200:] < 0.4
    weight, right = {}, {}
    for temperature in (1e-3, 0.25):
        found = []
        for seed in range(4):
            predictor = Agents(temperature=temperature)
            predictor.fit(whole.take(np.random.default_rng(seed).permutation(200)[:120].tolist()))
            x = predictor.features.read_all(whole.observations(predictor.needs)[200:]).astype(np.float32)
            p_QT = softmax(messages(predictor.weights_, x)[1].mean(axis=0))
            found.append((p_QT * wrong_QT).sum(axis=1))
        weight[temperature] = float(np.mean(found))
        right[temperature] = float(np.mean(np.asarray(found) < 0.5))
    assert weight[0.25] < weight[1e-3] - 0.01
    assert right[0.25] > right[1e-3]
