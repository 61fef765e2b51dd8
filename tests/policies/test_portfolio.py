"""A portfolio chooses among plans as `utility` does among targets."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.bench import chains
from fairlead.bench.chains import ConfidenceColumns
from fairlead.bench.evaluate import catalogued, weights
from fairlead.build import build
from fairlead.errors import ConfigError, NoEligibleTarget
from fairlead.objective import Objective
from fairlead.plans.accept import Confidence
from fairlead.plans.cascade import Cascade
from fairlead.plans.single import Single
from fairlead.policies.portfolio import Portfolio
from fairlead.pool import Pool
from fairlead.predictors.knn import KNN
from fairlead.predictors.mean import Mean
from fairlead.table import OutcomeTable
from fairlead.types import Constraints, Plan, Profile, Query, Target

PRICED = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=5.0)
CONFIDENCE = ConfidenceColumns(column="confidence", usd_column="asked_usd")


def planted(n: int = 200) -> OutcomeTable:
    """`cheap` is right on plain words and knows when it is wrong on sums, half of the time; `strong` is always right."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[object]] = {
        k: [] for k in ("query_id", "prompt", "model", "quality", "cost_usd", "confidence", "asked_usd")
    }
    for i in range(n):
        kind = i % 2
        sure = bool(rng.random() < 0.5)
        prompt = f"tell me about the sea and the sky {i}" if kind == 0 else f"compute {i * 37} + {i * 53}"
        for model in ("cheap", "strong"):
            right = model == "strong" or kind == 0 or sure
            rows["query_id"].append(str(i))
            rows["prompt"].append(prompt)
            rows["model"].append(model)
            rows["quality"].append(float(right))
            rows["cost_usd"].append(0.001 if model == "cheap" else 0.01)
            rows["asked_usd"].append(0.002 if model == "cheap" else 0.02)
            rows["confidence"].append(0.9 if right and model == "cheap" else 0.1)
    needs = ("ngrams", "style", "length", "marks")
    return OutcomeTable.from_columns(rows).observed(catalogued(needs), needs)


def test_hard_queries_go_through_a_cascade_and_easy_ones_do_not() -> None:
    table = planted()
    found = chains.worthwhile(table, CONFIDENCE, weights(table, levels=8))
    plans = {c.label(table.models): c.plan(table.models) for c in found}
    predictor = KNN()
    predictor.fit(chains.as_table(table, found, CONFIDENCE))
    policy = Portfolio(predictor=predictor, plans=plans, objective=Objective(usd_weight=20.0))
    policy.check()
    pool = Pool(targets=[Target(name="cheap"), Target(name="strong")])
    chosen = []
    for query, signals in zip(table.queries(), table.observations(policy.needs), strict=True):
        chosen.append(policy.decide(query, signals, pool).plan)
    assert sum(isinstance(p, Cascade) for p in chosen[1::2]) > 80
    assert sum(p == Single(target="cheap") for p in chosen[::2]) > 80


def test_a_table_of_plans_says_what_the_plans_bring() -> None:
    table = planted(20)
    found = [chains.Chain(models=(1,)), chains.Chain(models=(0, 1), above=(0.5,))]
    planned = chains.as_table(table, found, CONFIDENCE)
    assert planned.models == sorted(c.label(table.models) for c in found)
    column = planned.models.index(found[1].label(table.models))
    quality, usd = chains.run(found[1], table, CONFIDENCE)
    assert np.array_equal(planned.quality_QM[:, column], quality)
    assert np.array_equal(planned.usd_QM[:, column], usd)


def test_only_plans_whose_targets_may_act() -> None:
    policy = Portfolio(
        predictor=Mean(),
        plans={
            "a": Single(target="a"),
            "both": Cascade(steps=(Single(target="a"), Single(target="b")), accept=Confidence(above=0.5)),
        },
    )
    pool = Pool(targets=[Target(name="a"), Target(name="b")])
    query = Query.ask("x", constraints=Constraints(allow=("a",)))
    signals = catalogued(policy.needs)
    decision = policy.decide(query, signals.read(query, policy.needs), pool)
    assert [o.plan for o in decision.options] == [Single(target="a")]
    newcomer = Pool(targets=[*pool, Target(name="new")])
    decision = policy.decide(Query.ask("x"), signals.read(query, policy.needs), newcomer)
    assert Single(target="new") in [o.plan for o in decision.options]
    query = Query.ask("x", constraints=Constraints(allow=("b",)))
    with pytest.raises(NoEligibleTarget, match="none of the portfolio's plans"):
        policy.decide(query, signals.read(query, policy.needs), pool)


def test_a_planned_target_is_priced_by_its_profile_as_a_newcomer_is() -> None:
    predictor = Mean()
    rows: dict[str, list[object]] = {
        "query_id": ["0", "0"],
        "prompt": ["x", "x"],
        "model": ["cheap", "strong"],
        "quality": [0.0, 1.0],
    }
    predictor.fit(OutcomeTable.from_columns(rows).observed(catalogued(predictor.needs), predictor.needs))
    plans: dict[str, Plan] = {"cheap": Single(target="cheap"), "strong": Single(target="strong")}
    policy = Portfolio(predictor=predictor, plans=plans, objective=Objective(usd_weight=20.0))
    signals = catalogued(policy.needs).read(Query.ask("x"), policy.needs)
    pool = Pool(targets=[Target(name=n, profile=PRICED) for n in ("cheap", "strong", "new")])
    decision = policy.decide(Query.ask("x"), signals, pool)
    amounts = {o.plan.targets()[0]: o.forecast.usd for o in decision.options if o.forecast is not None}
    assert amounts["cheap"] == amounts["strong"] == amounts["new"]
    assert amounts["new"]
    assert not any("not known" in r for r in decision.reasons)
    blind = Pool(targets=[Target(name=n) for n in ("cheap", "strong")])
    decision = policy.decide(Query.ask("x"), signals, blind)
    assert "usd is weighed but not known of cheap, strong: 0 is taken off for it" in decision.reasons


def test_it_is_built_from_a_config_and_checked() -> None:
    spec = {"type": "portfolio", "predictor": "mean", "plans": {"x": {"kind": "single", "target": "a"}}}
    policy: Portfolio = build("policies", spec)
    assert policy.plans == {"x": Single(target="a")}
    assert build("policies", policy.spec()).spec() == policy.spec()
    table = planted(20)
    policy.predictor.fit(table)
    with pytest.raises(ConfigError, match="not trained on x"):
        policy.check()
    with pytest.raises(ConfigError, match="needs plans"):
        Portfolio(predictor=Mean(), plans={}).check()
