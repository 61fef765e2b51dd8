"""The bench: that fast paths equal the real policy and plan, that nobody is judged on what they saw, and that reports add up."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.bench import chains, metrics
from fairlead.bench.chains import Chain, ConfidenceColumns
from fairlead.bench.evaluate import (
    Curve,
    Entrant,
    Result,
    catalogued,
    choose,
    complete,
    evaluate,
    forecasts,
    priced,
    refuse_seen,
    seen,
    splits,
    weights,
)
from fairlead.bench.report import plot, report, to_json, to_text
from fairlead.build import build
from fairlead.errors import TableError
from fairlead.objective import Objective
from fairlead.policies.utility import Utility
from fairlead.pool import Pool
from fairlead.table import OutcomeTable
from fairlead.types import Target
from fairlead.worlds.replay import replay
from fairlead.worlds.tabled import Tabled

CONFIDENCE = ConfidenceColumns(column="conf", usd_column="usd_asked")
MODELS = ("large", "mid", "small")


def make_table(n: int = 200, *, seed: int = 0, hole: float = 0.0) -> OutcomeTable:
    """Sums are easy for all, poems for the large one alone; confidence tells right from wrong, at a price."""
    rng = np.random.default_rng(seed)
    names = ("query_id", "prompt", "dataset", "model", "quality", "cost_usd", "usd_asked", "conf", "split")
    rows: dict[str, list[Any]] = {k: [] for k in names}
    for i in range(n):
        kind = "sum" if rng.random() < 0.5 else "poem"
        text = (
            f"add {rng.integers(1000)} and {rng.integers(1000)}"
            if kind == "sum"
            else f"a poem on {rng.integers(10**6)} herons"
        )
        for m, (right, usd) in zip(MODELS, ((0.9, 1.0), (0.75, 0.3), (0.5, 0.1)), strict=True):
            q = float(rng.random() < (0.95 if kind == "sum" else right))
            values = (
                f"q{i}",
                text,
                kind,
                m,
                None if rng.random() < hole else q,
                usd,
                usd * 1.2,
                rng.normal(2 * q - 1, 0.7),
            )
            for k, v in zip(names, (*values, "test" if i % 4 == 0 else "train"), strict=True):
                rows[k].append(v)
    return OutcomeTable.from_columns(rows)


TABLE = make_table()


@pytest.fixture(scope="module")
def result() -> Result:
    return evaluate(
        TABLE,
        routers=[Entrant(name=n, spec={"type": n}) for n in ("mean", "knn")],
        policies={"random": {"type": "random"}, "lin_ucb": {"type": "lin_ucb"}},
        confidence=CONFIDENCE,
        split="3-fold",
    )


def test_choices_are_those_of_the_policy() -> None:
    table = TABLE.observed(catalogued(("ngrams", "style", "length", "marks")), ("ngrams", "style", "length", "marks"))
    train, test = splits(table, "0.3")[0]
    now = table.take(test)
    # Without a pull to the mean, few neighbours give many equal forecasts: ties are drawn alike, too.
    predictor = build("predictors", {"type": "knn", "k": 4, "pull": 0.0})
    predictor.fit(table.take(train))
    quality, usd, _ = forecasts(predictor, now)
    weight_L = weights(now)[::8]
    chosen = choose(quality, usd, weight_L, query_ids=now.query_ids, seed=5)
    pool = Pool(targets=[Target(name=m) for m in now.models])
    ties = 0
    for w, row in zip(weight_L, chosen, strict=True):
        policy = Utility(predictor=predictor, objective=Objective(usd_weight=float(w)))
        for q, (query, signals) in enumerate(zip(now.queries(), now.observations(policy.needs), strict=True)):
            decision = policy.decide(query, signals, pool, seed=5)
            assert decision.plan.targets() == (now.models[row[q]],)
            ties += decision.propensity < 1.0
    assert ties > 0


def test_cascades_are_those_of_the_plan() -> None:
    rng = np.random.default_rng(0)
    candidates = chains.candidates(TABLE, CONFIDENCE)
    assert {len(c.models) for c in candidates} == {1, 2, 3}
    queries = list(TABLE.queries())
    for chain in [candidates[i] for i in rng.choice(len(candidates), 12, replace=False)]:
        quality, usd = chains.run(chain, TABLE, CONFIDENCE)
        plan = chain.plan(TABLE.models)
        charged = {TABLE.models[m]: "usd_asked" for m in chain.models[:-1]}
        for q in rng.choice(len(TABLE), 12, replace=False).tolist():
            run = replay(plan, queries[q], Tabled(TABLE, q, confidence_column="conf", usd_columns=charged))
            assert (run.outcome.quality, run.usd) == pytest.approx((quality[q], usd[q]))


def test_a_step_whose_confidence_is_read_pays_for_it() -> None:
    large, small = TABLE.models.index("large"), TABLE.models.index("small")
    never = Chain(models=(small, large), above=(np.inf,))
    always = Chain(models=(small, large), above=(-np.inf,))
    assert chains.run(never, TABLE, CONFIDENCE)[1] == pytest.approx(1.0 + 0.12)
    assert chains.run(always, TABLE, CONFIDENCE)[1] == pytest.approx(0.12)
    np.testing.assert_array_equal(chains.run(never, TABLE, CONFIDENCE)[0], TABLE.quality_QM[:, large])


@pytest.mark.parametrize("how", ["5-fold", "2-fold", "0.2"])
def test_splits_keep_equal_prompts_together(how: str) -> None:
    table = OutcomeTable.from_columns(
        {
            "query_id": [str(i) for i in range(90)],
            "prompt": [f"P {i // 3}" for i in range(90)],
            "model": ["m"] * 90,
            "quality": [1.0] * 90,
        }
    )
    parts = splits(table, how, seed=3)
    for train, test in parts:
        assert not set(table.groups[train]) & set(table.groups[test])
        refuse_seen(table.take(train), table.take(test))
        assert sorted([*train, *test]) == list(range(90))
    if how.endswith("fold"):
        assert sorted(np.concatenate([test for _, test in parts]).tolist()) == list(range(90))
    else:
        assert len(parts[0][1]) == 18
    with pytest.raises(TableError, match="3 of 4 queries to be judged were trained on"):
        refuse_seen(table.take([0, 40]), table.take([1, 2, 41, 60]))
    assert seen(table, ["7"], []).tolist() == [7]


def test_split_by_column_and_what_cannot_be_split() -> None:
    train, test = splits(TABLE, "column")[0]
    assert (len(train), len(test)) == (150, 50)
    for how in ("1-fold", "1.5", "some"):
        with pytest.raises(TableError, match="use 5-fold"):
            splits(TABLE, how)
    with pytest.raises(TableError, match="must hold both"):
        splits(TABLE.take(test), "column")


def test_queries_with_holes_are_left_out_and_counted() -> None:
    table = make_table(hole=0.1)
    kept, dropped = complete(table)
    assert dropped == int(np.isnan(table.quality_QM).any(axis=1).sum()) > 0
    assert len(kept) + dropped == len(table)
    with pytest.raises(TableError, match="compare fewer models"):
        complete(make_table(hole=0.5))


def test_prices() -> None:
    prices = dict.fromkeys(MODELS, (1.0, 2.0))
    usd = priced(TABLE, prices, output_tokens=100).usd_QM
    sizes = np.asarray([len(p or "") for p in TABLE.prompts])
    np.testing.assert_allclose(usd[:, 0], (sizes / 4 + 200) / 1e6)
    with pytest.raises(TableError, match="no price for large"):
        priced(TABLE, {"mid": (1, 1), "small": (1, 1)})


def test_curves_hold_what_they_should(result: Result) -> None:
    by_name = {c.name: c for c in result.curves}
    assert result.queries == len(TABLE)
    for m, name in enumerate(result.models):
        assert by_name[name].quality_P[0] == TABLE.quality_QM[:, m].mean()
    oracle = by_name["oracle"]
    for curve in result.curves:
        assert curve.quality_PQ.shape == curve.usd_PQ.shape == (len(curve.settings), len(TABLE))
        if curve.kind in ("router", "policy", "label"):
            assert (oracle.quality_PQ[0] >= curve.quality_PQ).all()
            assert (curve.quality_PQ >= TABLE.quality_QM.min(axis=1)).all()
    # From "only quality" to "only cost": the last setting is the cheapest target.
    knn = by_name["knn"]
    assert knn.usd_P[0] > knn.usd_P[-1] == pytest.approx(0.1)
    assert knn.seconds is not None
    assert by_name["lin_ucb"].quality_P[0] > by_name["random"].quality_P[0]


def test_learning_what_the_prompt_says_pays(result: Result) -> None:
    rows = {r.name: r for r in report(result, resamples=200).rows}
    for name in ("knn", "dataset label"):
        over = rows[name].aiq_over_mix
        assert over is not None
        assert over.low > 0.0
        assert over.low <= over.value <= over.high
    # Sums cost and succeed alike for all, so that knowing nothing of the query brings nothing.
    mean = rows["mean"].aiq_over_mix
    assert mean is not None
    assert abs(mean.value) < 0.02


def test_same_seed_same_result(result: Result) -> None:
    again = evaluate(TABLE, routers=[Entrant(name="knn", spec={"type": "knn"})], split="3-fold")
    np.testing.assert_array_equal(
        next(c for c in again.curves if c.name == "knn").quality_PQ,
        next(c for c in result.curves if c.name == "knn").quality_PQ,
    )


def test_report_reads_well(result: Result, tmp_path: Any) -> None:
    found = report(result, resamples=100)
    text = to_text(found)
    for words in ("large (best)", "small (cheapest)", "oracle (sees answers)", "AIQ over mix", "200 queries judged"):
        assert words in text
    data = json.loads(to_json(found))
    assert data["best_single"] == "large"
    assert {r["name"] for r in data["rows"]} == {c.name for c in result.curves}
    pytest.importorskip("matplotlib")
    plot(result, str(tmp_path / "p.png"), resamples=20)
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_labels_of_the_plot_do_not_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    pyplot, text = pytest.importorskip("matplotlib.pyplot"), pytest.importorskip("matplotlib.text")
    monkeypatch.setattr(pyplot, "close", lambda _: None)
    points = {
        "gpt-4o": (0.889, 0.862),
        "gpt-4o-mini": (0.054, 0.781),
        "llama3.1-405b": (0.552, 0.879),
        "llama3.1-70b": (0.163, 0.846),
        "llama3.2-1b": (0.018, 0.426),
        "qwen2.5-72b-instruct": (0.156, 0.824),
        "oracle": (0.032, 0.970),
    }
    curves = [
        Curve(
            name=n,
            kind="oracle" if n == "oracle" else "single",
            settings=("s",),
            quality_PQ=np.full((1, 2), q),
            usd_PQ=np.full((1, 2), usd / 1e3),
        )
        for n, (usd, q) in points.items()
    ]
    # A wide legend leaves less room for the axes, and lines push labels away.
    for top in (0.880, 0.883, 0.895, 0.900):
        q, usd = np.array([0.63, 0.76, 0.85, top]), np.array([0.018, 0.024, 0.17, 0.35])
        curves.append(
            Curve(
                name=f"some router {top}",
                kind="label",
                settings=tuple("abcd"),
                quality_PQ=np.repeat(q[:, None], 2, axis=1),
                usd_PQ=np.repeat(usd[:, None] / 1e3, 2, axis=1),
            )
        )
    made = Result(
        source="", digest="", models=tuple(points), queries=2, dropped=0, split="", seed=0, priced=True,
        curves=tuple(curves), groups_Q=np.arange(2),
    )  # fmt: skip
    plot(made, str(tmp_path / "p.png"), resamples=5)
    figure = pyplot.gcf()
    boxes = [text.Text.get_window_extent(t) for t in figure.axes[0].texts]  # without the lines that lead to them
    monkeypatch.undo()
    pyplot.close(figure)
    assert len(boxes) == len(points) - 1
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_an_end_that_is_never_reached_says_so(result: Result) -> None:
    found = report(result, resamples=50)
    rows = [
        msgspec.structs.replace(r, saving=metrics.Interval(value=0.5, low=-np.inf, high=0.75), decision_us=None)
        for r in found.rows
    ]
    text = to_text(msgspec.structs.replace(found, rows=rows))
    assert "+50.0% [never, +75.0%]" in text
    assert "inf" not in text
    # Nobody has measured how long a cascade takes to decide.
    assert next(r for r in found.rows if r.name == "cascade").decision_us is None


def test_policies_are_swept_by_what_they_say_of_themselves(result: Result) -> None:
    settings = {c.name: c.settings for c in result.curves}
    assert settings["random"] == ("as given",)
    assert len(settings["lin_ucb"]) == 6
    given = {"type": "lin_ucb", "objective": {"usd_weight": 1.0}}
    again = evaluate(TABLE, policies={"p": given}, split="0.5")
    assert next(c for c in again.curves if c.name == "p").settings == ("as given",)


def test_aiq_of_the_report_is_the_metric(result: Result) -> None:
    found = report(result, resamples=50)
    assert found.range_usd_per_1k is not None
    low, high = found.range_usd_per_1k
    knn = next(c for c in result.curves if c.name == "knn")
    # That of the hull through the judged queries, less what luck would add to it.
    flattered = metrics.aiq(knn.usd_P * 1e3, knn.quality_P, c_min=low, c_max=high)
    aiq = next(r for r in found.rows if r.name == "knn").aiq
    assert aiq is not None
    assert flattered - 0.02 < aiq <= flattered


def noise(n: int) -> OutcomeTable:
    """Random labels, and prompts that have nothing in common: nothing can be learned, only recalled."""
    rng = np.random.default_rng(5)
    columns: dict[str, list[Any]] = {k: [] for k in ("query_id", "prompt", "model", "quality", "cost_usd")}
    for i in range(n):
        prompt = "".join(chr(c) for c in rng.integers(97, 123, 40))
        for m in MODELS:
            for k, v in zip(columns, (str(i), prompt, m, float(rng.random() < 0.5), 1.0), strict=True):
                columns[k].append(v)
    return OutcomeTable.from_columns(columns)


def test_nobody_is_fitted_on_what_it_is_judged_on() -> None:
    spec = {"type": "knn", "k": 1, "pull": 0.0}
    found = evaluate(noise(240), routers=[Entrant(name="knn", spec=spec)], split="3-fold")
    by_name = {c.name: c.quality_P[0] for c in found.curves}
    # Whoever had seen the answers would be as good as the oracle.
    assert by_name["oracle"] > 0.8
    assert by_name["knn"] < 0.6


def test_cascades_are_chosen_on_training_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    seen_by: list[list[str]] = []
    real = chains.best

    def best(past: OutcomeTable, *rest: Any) -> list[Chain]:
        seen_by.append(past.query_ids)
        return real(past, *rest)

    monkeypatch.setattr(chains, "best", best)
    evaluate(TABLE, confidence=CONFIDENCE, split="column")
    train, _ = splits(TABLE, "column")[0]
    assert seen_by == [TABLE.take(train).query_ids]


def test_calibration_error_is_taken_over_all_judged_queries(result: Result) -> None:
    knn = next(c for c in result.curves if c.name == "knn")
    assert knn.forecast_QM is not None
    # With bins of its own for each target: too high for one is not made good by too low for another.
    pairs = zip(knn.forecast_QM.T, TABLE.quality_QM.T, strict=True)
    want = float(np.mean([metrics.ece(f, q) for f, q in pairs]))
    assert knn.figures["ece"] == pytest.approx(want)
    assert knn.figures["brier"] == pytest.approx(float(((knn.forecast_QM - TABLE.quality_QM) ** 2).mean()))


@pytest.mark.parametrize("column", ["conf", "usd_asked"])
def test_a_cascade_reads_no_hole(column: str) -> None:
    table = make_table()
    table.extras[column][:5, 1] = np.nan
    found = evaluate(table, confidence=CONFIDENCE, split="0.5")
    assert found.dropped == 5
    for curve in found.curves:
        assert np.isfinite(curve.usd_PQ).all()
    # A model that never says how sure it is is not asked first, and costs no query.
    table.extras["conf"][:, 1] = np.nan
    table.extras["usd_asked"][:5, 1] = np.nan
    assert evaluate(table, confidence=CONFIDENCE, split="0.5").dropped == 0
    table.extras[column][:150, 0] = np.nan
    with pytest.raises(TableError, match="only 50 of 200 queries have every confidence"):
        evaluate(table, confidence=CONFIDENCE, split="0.5")


def test_without_costs_only_quality_is_compared() -> None:
    bare = TABLE.with_usd(np.full_like(TABLE.usd_QMS, np.nan))
    found = report(evaluate(bare, routers=[Entrant(name="knn", spec={"type": "knn"})], split="0.5"), resamples=100)
    row = next(r for r in found.rows if r.name == "knn")
    assert row.aiq is None
    assert row.usd_per_1k is None
    assert row.quality_over_best is not None
    assert "AIQ" not in to_text(found)
    with pytest.raises(TableError, match="--prices"):
        plot(evaluate(bare, split="0.5"), "never.png")
