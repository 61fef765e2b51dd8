"""What every predictor keeps to, and what each one is for."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from fairlead import catalog
from fairlead.bench.metrics import auroc
from fairlead.build import build
from fairlead.component import pack, unpack
from fairlead.errors import ConfigError, NotFitted, StateError, TableError
from fairlead.learner import Learner
from fairlead.plans.base import decode
from fairlead.policies.base import Policy
from fairlead.policies.utility import Utility
from fairlead.predictors.base import Predictor
from fairlead.predictors.calibration import KNOTS
from fairlead.predictors.features import Features
from fairlead.predictors.knn import KNN
from fairlead.predictors.mean import Mean
from fairlead.predictors.ridge import Ridge
from fairlead.predictors.statistics import standard_error
from fairlead.signals.base import Observer
from fairlead.table import OutcomeTable
from fairlead.types import Decision, Failure, Message, Option, Outcome, Profile, Query, Reward, Signals, Target, Trace

NAMES = catalog.names("predictors")
ONLINE = [n for n in NAMES if catalog.find("predictors", n).online]
LEVEL = [n for n in ONLINE if n != "skills"]
"""Those whose forecasts follow the level of what comes; `skills` counts right and wrong, so lessons move its order, on a map fixed at the fit."""
CALIBRATED = [n for n in NAMES if "calibration" in inspect.signature(catalog.find("predictors", n)).parameters]
OBSERVER = Observer(signals={n: build("signals", n) for n in ("ngrams", "style", "length", "marks", "embedding")})
NEEDS = ("ngrams", "style", "length", "marks", "embedding")
A, B, NEW = Target(name="a"), Target(name="b"), Target(name="new", profile=Profile(quality=0.7))


def make_table(n: int = 240, *, noise: float = 0.15, seed: int = 0, missing: float = 0.0) -> OutcomeTable:
    """Sums are for `a`, letters for `b`; both err a little."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {k: [] for k in ("query_id", "prompt", "model", "quality", "cost_usd", "latency_s")}
    for i in range(n):
        sums = rng.random() < 0.5
        x, y = rng.integers(100, 999, 2)
        words = " ".join(rng.choice(["lion", "tiger", "zebra", "heron", "otter"], 3))
        prompt = f"compute {x} + {y}" if sums else f"write a poem about {words} number {i}"
        for model in ("b", "a"):
            right = (model == "a") == sums
            quality = float(right != (rng.random() < noise))
            rows["query_id"].append(str(i))
            rows["prompt"].append(prompt)
            rows["model"].append(model)
            rows["quality"].append(None if rng.random() < missing else quality)
            rows["cost_usd"].append((0.001 if model == "a" else 0.003) + 1e-5 * len(prompt))
            rows["latency_s"].append(1.0)
    return OutcomeTable.from_columns(rows).observed(OBSERVER, NEEDS)


TABLE = make_table()
TEST = make_table(seed=9)
assert TABLE.signals is not None
FIRST = TABLE.signals[0]


def trace(signals: Signals, plan: Any, *, target: str, error: Any = None) -> Trace:
    option = Option(plan=decode(plan), probability=1.0)
    return Trace(
        id="t",
        at=0.0,
        query=Query.ask("x", id="t"),
        signals=signals,
        decision=Decision(options=(option,), chosen=0, propensity=1.0),
        outcome=Outcome(target=target, error=error),
    )


@pytest.fixture(params=NAMES, scope="module")
def fitted(request: pytest.FixtureRequest) -> Predictor:
    predictor: Predictor = build("predictors", request.param)
    predictor.fit(TABLE)
    return predictor


def test_forecasts_are_bounded_ordered_and_priced(fitted: Predictor) -> None:
    forward, backward = fitted.predict(FIRST, [A, B, NEW]), fitted.predict(FIRST, [NEW, B, A])
    assert forward == backward[::-1]
    for f in forward:
        assert 0.0 <= f.quality <= 1.0
        assert f.quality_sd > 0.0
    characters = Features.characters(FIRST)
    assert forward[0].usd == pytest.approx(0.001 + 1e-5 * characters, rel=1e-3)
    assert forward[0].seconds == pytest.approx(1.0)
    assert forward[2].usd is None
    assert forward[2].quality_sd > forward[0].quality_sd
    if type(fitted)._unseen is Predictor._unseen:  # others make more of a profile
        assert (forward[2].quality, forward[2].quality_sd) == (0.7, Predictor.unknown_sd)


def test_a_long_chat_is_not_forecast_as_its_last_words(fitted: Predictor) -> None:
    profile = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0, joules_per_token=0.5)
    said = (
        Message(role="user", content="lions " * 13_000),
        Message(role="assistant"),
        Message(role="user", content="ok"),
    )
    signals = OBSERVER.read(Query(id="q", messages=said), NEEDS)
    recorded, priced = fitted.predict(signals, [A, Target(name="priced", profile=profile)])
    assert recorded.usd == pytest.approx(0.001 + 1e-5 * 78_002, rel=1e-3)
    assert priced.usd == pytest.approx((78_002 // 4 + 200) / 1e6)
    assert priced.joules == pytest.approx((78_002 // 4 + 200) * 0.5)


def test_state_survives_packing(fitted: Predictor) -> None:
    spec, state = unpack(pack([fitted.spec(), fitted.state()]))
    again: Predictor = build("predictors", spec)
    again.load(state)
    assert again.predict(FIRST, [A, B]) == fitted.predict(FIRST, [A, B])
    assert again.digest() == fitted.digest()


def test_same_table_same_answer_in_any_order(fitted: Predictor) -> None:
    again: Predictor = build("predictors", fitted.type_name())
    again.fit(TABLE.with_models(["b", "a"]))
    for x, y in zip(fitted.predict(FIRST, [A, B]), again.predict(FIRST, [A, B]), strict=True):
        assert x.quality == pytest.approx(y.quality, abs=1e-6)


def test_unscored_answers_are_left_out(fitted: Predictor) -> None:
    predictor: Predictor = build("predictors", fitted.type_name())
    predictor.fit(make_table(missing=0.4))
    full, part = fitted.predict(FIRST, [A, B]), predictor.predict(FIRST, [A, B])
    for x, y in zip(full, part, strict=True):
        assert x.quality == pytest.approx(y.quality, abs=0.2)
        assert np.isfinite(y.quality_sd)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mean"])
def test_it_tells_targets_apart_on_new_queries(name: str) -> None:
    predictor: Predictor = build("predictors", name)
    predictor.fit(TABLE)
    signals = TEST.observations(NEEDS)
    quality = np.asarray([[f.quality for f in predictor.predict(s, [A, B])] for s in signals])
    # Labels err in 15% of cases, so that about 0.85 is the best there is.
    assert auroc(quality[:, 0], TEST.quality_QM[:, 0]) > 0.75
    assert TEST.quality_QM[np.arange(len(TEST)), quality.argmax(axis=1)].mean() > 0.75


@pytest.mark.parametrize("name", [n for n in CALIBRATED if n != "mean"])
@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_keeps_the_order_of_a_target(name: str, method: str) -> None:
    # A fixed penalty keeps the test quick.
    fixed = {"knn": {"k": 40, "pull": 20.0}, "ridge": {"l2": 30.0}, "logistic": {"l2": 30.0}}.get(name, {})
    plain, calibrated = (build("predictors", {"type": name, "calibration": c, **fixed}) for c in ("none", method))
    plain.fit(TABLE)
    calibrated.fit(TABLE)
    before = np.asarray([plain.predict(s, [A])[0].quality for s in TEST.observations(NEEDS)])
    after = np.asarray([calibrated.predict(s, [A])[0].quality for s in TEST.observations(NEEDS)])
    assert (np.diff(after[np.argsort(before)]) >= -1e-9).all()
    assert "calibration_" in calibrated.state()


def test_calibration_is_learned_from_queries_that_were_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_on: dict[int, set[bytes]] = {}
    forecast: list[bytes] = []
    fit, quality = Ridge._fit, Ridge._quality

    def spied_fit(self: Ridge, x_QD: Any, quality_QT: Any, table: OutcomeTable) -> None:
        fitted_on[id(self)] = {x_D.tobytes() for x_D in x_QD}
        fit(self, x_QD, quality_QT, table)

    def spied_quality(self: Ridge, x_D: Any) -> Any:
        assert x_D.tobytes() not in fitted_on[id(self)]
        forecast.append(x_D.tobytes())
        return quality(self, x_D)

    monkeypatch.setattr(Ridge, "_fit", spied_fit)
    monkeypatch.setattr(Ridge, "_quality", spied_quality)
    # Prompts that differ in digits alone read alike: one of each.
    features = Features()
    features.fit(TABLE.observations(NEEDS))
    x_QD = features.read_all(TABLE.observations(NEEDS))
    table = TABLE.take(np.sort(np.unique(x_QD.round(9), axis=0, return_index=True)[1]))
    assert len(table) > 80
    Ridge(l2=30.0, calibration="platt").fit(table)
    # Each query once for the map; and half of them once more, to see how far forecasts are off.
    assert len(table) < len(forecast) <= 1.6 * len(table)


@pytest.mark.parametrize("name", NAMES)
def test_useless_text_is_shrunk_to_the_mean(name: str) -> None:
    rng = np.random.default_rng(0)
    table = make_table()
    # Qualities dealt at random: nothing can be learned from the prompt.
    table = table.take(np.arange(len(table)))
    table.quality_QMS[:] = rng.random(table.quality_QMS.shape) < 0.7
    predictor: Predictor = build("predictors", name)
    predictor.fit(table)
    quality = [predictor.predict(s, [A])[0].quality for s in TEST.observations(NEEDS)]
    # `profile` learns from the targets how groups differ; two targets tell little of that. `gain` adds a forecast and a gate, each of which errs.
    assert np.std(quality) < {"profile": 0.12, "gain": 0.2}.get(name, 0.08)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_constructor_has_bounds(name: str) -> None:
    kind = catalog.find("predictors", name)
    hints = get_type_hints(kind.__init__, include_extras=True)
    assert [p for p in inspect.signature(kind).parameters if not _bounded(hints[p])] == []


def _bounded(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        return True
    return kind not in (int, float) and all(_bounded(k) for k in get_args(kind))


@pytest.mark.parametrize(
    ("name", "parameter", "wrong"),
    [
        ("knn", "k", 0),
        ("knn", "memory", 0),
        ("knn", "pull", -5.0),
        ("mlp", "dropout", 1.0),
        ("logistic", "l2", 0.0),
        ("gbm", "depth", 0),
        ("gbm", "trees", 0),
        ("sw_ranking", "memory", 0),
        ("graph", "dims", 0),
        ("ridge", "l2", -1.0),
        ("irt", "l2", 0.0),
        ("tryage", "floor", 0.0),
        ("mf", "size", 0),
        ("clusters", "ks", [0]),
        ("clusters", "ks", []),
    ],
)
def test_what_cannot_be_fitted_cannot_be_built(name: str, parameter: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=parameter):
        build("predictors", {"type": name, parameter: wrong})


def test_before_a_fit() -> None:
    for name in NAMES:
        predictor: Predictor = build("predictors", name)
        if predictor.online:
            assert [f.quality for f in predictor.predict(FIRST, [A, NEW])] == [0.5, 0.7]
        else:
            with pytest.raises(NotFitted, match="fairlead train"):
                predictor.predict(FIRST, [A])
            predictor.update(trace(FIRST, "a", target="a"), Reward(quality=1.0))
            assert not predictor.fitted


def test_an_unscored_table_teaches_nothing() -> None:
    table = make_table(20, missing=1.0)
    with pytest.raises(TableError, match="no scored answers"):
        Mean().fit(table)


@pytest.mark.parametrize("fit_first", [False, True])
@pytest.mark.parametrize("name", LEVEL)
def test_online_learning_moves_towards_what_was_seen(name: str, fit_first: bool) -> None:
    predictor: Predictor = build("predictors", name)
    if fit_first:
        predictor.fit(TABLE)
    before = predictor.predict(FIRST, [NEW])[0]
    for _ in range(60):
        predictor.update(trace(FIRST, "new", target="new"), Reward(quality=0.0))
    after = predictor.predict(FIRST, [NEW])[0]
    assert after.quality < 0.15 < before.quality
    assert after.quality_sd < before.quality_sd
    spec, state = unpack(pack([predictor.spec(), predictor.state()]))
    again = build("predictors", spec)
    again.load(state)
    assert again.predict(FIRST, [NEW, A]) == predictor.predict(FIRST, [NEW, A])


@pytest.mark.parametrize("name", [n for n in LEVEL if n != "mean"])
def test_what_is_learned_online_is_not_corrected_twice(name: str) -> None:
    plain: Predictor = build("predictors", name)
    plain.fit(TABLE)
    mapped = plain.copy()
    mapped.calibration_ = np.tile(np.maximum(np.linspace(0.0, 1.0, KNOTS) - 0.15, 0.0), (2, 1))
    signals = TEST.observations(NEEDS)
    moved = []
    for predictor in (plain, mapped):
        before = float(np.mean([predictor.predict(s, [A])[0].quality for s in signals]))
        for s in signals:
            # What comes is what was forecast: nothing is wrong.
            predictor.update(trace(s, "a", target="a"), Reward(quality=predictor.predict(s, [A])[0].quality))
        moved.append(float(np.mean([predictor.predict(s, [A])[0].quality for s in signals])) - before)
    assert moved[1] == pytest.approx(moved[0], abs=0.01)
    # And if something else comes, it is followed to where it is.
    for i in range(1500):
        mapped.update(trace(FIRST, "a", target="a"), Reward(quality=float(i % 3 == 0)))
    assert mapped.predict(FIRST, [A])[0].quality == pytest.approx(1 / 3, abs=0.08)


@pytest.mark.parametrize("fit_first", [False, True])
@pytest.mark.parametrize("name", LEVEL)
def test_the_learner_quarantines_nothing_of_an_online_predictor(name: str, fit_first: bool) -> None:
    predictor: Predictor = build("predictors", name)
    if fit_first:
        predictor.fit(TABLE)
    shelf: list[Policy] = [Utility(predictor=predictor)]
    forgotten: list[str] = []
    learner = Learner(
        serving=lambda _: shelf[-1],
        publish=lambda route, policy, note, learned: shelf.append(policy),
        forget=forgotten.extend,
        batch=8,
        seconds=0.5,
    )
    learner.start()
    for i, signals in enumerate(TEST.observations(NEEDS)[:24]):
        target = ("a", "new", "newer")[i % 3]
        learner.submit("auto", trace(signals, target, target=target), Reward(quality=float(target == "newer")))
    assert learner.wait(10)
    learner.stop()
    assert (learner.quarantined, learner.failed, learner.learned, forgotten) == (0, 0, 24, [])
    taught = shelf[-1]
    assert isinstance(taught, Utility)
    worse, better = taught.predictor.predict(FIRST, [NEW, Target(name="newer")])
    assert worse.quality < 0.5 < better.quality


BLANK = OutcomeTable.from_columns(
    {"query_id": range(600), "prompt": [f"p{i}" for i in range(600)], "model": ["a"] * 600, "quality": [1.0] * 600}
)


@pytest.mark.parametrize("kinds", ["clusters", "a slope"])
def test_the_spread_of_knn_covers_what_is_true(kinds: str) -> None:
    rng = np.random.default_rng(3)

    def drawn(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        x_QD = rng.normal(size=(n, 4))
        if kinds == "clusters":
            x_QD = 4.0 * np.eye(4)[rng.integers(4, size=n)] + 0.3 * x_QD
        p_QT = np.column_stack([0.5 + 0.4 * np.tanh(x_QD[:, 0]), 0.8 - 0.3 * np.tanh(x_QD[:, 1] + x_QD[:, 2])])
        return x_QD, p_QT

    covered = []
    for _ in range(3):
        (x_QD, p_QT), (new_QD, want_QT) = drawn(600), drawn(100)
        predictor = KNN()
        predictor.targets_ = ["a", "b"]
        drawn_QT = (rng.random(p_QT.shape) < p_QT).astype(np.float64)
        predictor._fit_whole(x_QD, drawn_QT, BLANK)
        for x_D, want_T in zip(new_QD, want_QT, strict=True):
            quality_T, sd_T = predictor._stated(x_D)
            covered.append(np.abs(quality_T - want_T) <= 1.96 * sd_T)
            assert (sd_T < 0.3).all()  # it says something, too
    assert np.mean(covered) >= 0.85


def test_the_pull_makes_knn_no_surer() -> None:
    predictor = KNN(k=10, pull=320.0)
    predictor.fit(TABLE)
    predictor.misfit_ = None
    for f in predictor.predict(FIRST, [A, B]):
        assert f.quality_sd >= standard_error(np.asarray([f.quality]), np.asarray([10.0]))[0]


def test_answers_kept_for_their_looks_and_failures_teach_nothing() -> None:
    predictor = KNN()
    cascade = {"kind": "cascade", "steps": ["a", "b"], "accept": {"kind": "confidence", "above": 0.5}}
    predictor.update(trace(FIRST, cascade, target="a"), Reward(quality=1.0))
    predictor.update(trace(FIRST, "a", target="a", error=Failure(kind="timeout")), Reward(quality=0.0))
    assert not predictor.fitted


def test_knn_forgets_the_oldest() -> None:
    predictor = KNN(memory=10)
    for i in range(30):
        predictor.update(trace(FIRST, "a", target="a"), Reward(quality=float(i >= 20)))
    assert predictor.x_.shape[0] == 10
    assert predictor.predict(FIRST, [A])[0].quality > 0.9
    predictor.decay(0.5)
    assert predictor.x_.shape[0] == 5


def test_knn_with_all_neighbours_is_the_mean() -> None:
    predictor = KNN(k=len(TABLE), pull=0.0)
    predictor.fit(TABLE)
    want = TABLE.quality_QM.mean(axis=0)
    got = [f.quality for f in predictor.predict(FIRST, [A, B])]
    assert got == pytest.approx(want.tolist())


def test_knn_with_one_neighbour_recalls_the_table() -> None:
    predictor = KNN(k=1, pull=0.0)
    predictor.fit(TABLE)
    signals = TABLE.observations(NEEDS)
    x = predictor.x_
    near = x @ x.T - np.eye(len(x), dtype=np.float32)
    distinct = np.flatnonzero(near.max(axis=1) < 0.99)
    assert len(distinct) > 20
    for i in distinct:
        got = [f.quality for f in predictor.predict(signals[i], [A, B])]
        assert got == TABLE.quality_QM[i].tolist()


def test_ridge_is_the_closed_form() -> None:
    predictor = Ridge(l2=0.3)
    predictor.fit(TABLE)
    x = predictor.features.read_all(TABLE.observations(NEEDS))
    z = x - x.mean(axis=0)
    gram = z.T @ z
    y = TABLE.quality_QM - predictor.mean_
    want = np.linalg.solve(gram + 0.3 * np.linalg.eigvalsh(gram).mean() * np.eye(len(gram)), z.T @ y)
    np.testing.assert_allclose(predictor.weights_, want, atol=1e-8)


def test_ridge_chooses_by_exact_leave_one_out() -> None:
    table = TABLE.take(np.arange(30))
    chosen = Ridge()
    chosen.fit(table)

    def left_out(l2: float) -> float:
        # Features are fixed as the whole table scales them; only the regression leaves one out.
        x = chosen.features.read_all(table.observations(NEEDS))
        z, y = x - x.mean(axis=0), table.quality_QM[:, 0] - chosen.mean_[0]
        penalty = l2 * np.linalg.eigvalsh(z.T @ z).mean() * np.eye(z.shape[1])
        errors = []
        for i in range(len(z)):
            keep = np.arange(len(z)) != i
            w = np.linalg.solve(z[keep].T @ z[keep] + penalty, z[keep].T @ y[keep])
            errors.append((y[i] - z[i] @ w) ** 2)
        return float(np.sum(errors))

    assert left_out(chosen.l2_) <= min(left_out(chosen.l2_ * 10), left_out(chosen.l2_ / 10)) * 1.02


def test_means_merge_to_the_whole() -> None:
    start = Mean()
    left, right, whole = start.copy(), start.copy(), start.copy()
    for i in range(20):
        t, reward = trace(FIRST, "ab"[i % 2], target="ab"[i % 2]), Reward(quality=i / 20)
        (left if i < 7 else right).update(t, reward)
        whole.update(t, reward)
    left.merge(right)
    for x, y in zip(left.predict(FIRST, [A, B]), whole.predict(FIRST, [A, B]), strict=True):
        assert x.quality == pytest.approx(y.quality)
        assert x.quality_sd == pytest.approx(y.quality_sd)
    with pytest.raises(StateError):
        left.merge(KNN())  # type: ignore[arg-type]
