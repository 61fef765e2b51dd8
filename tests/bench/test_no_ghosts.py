"""Where there is nothing to learn, nothing is gained: prompts dealt out anew give no gain, outcomes dealt out anew leave random mixing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fairlead.bench.evaluate import Entrant, catalogued, evaluate, forecasts
from fairlead.bench.report import Row, report
from fairlead.build import build
from fairlead.table import OutcomeTable

PREDICTORS = ("knn", "ridge", "forest")
WORDS = (("harbour", "sail", "anchor", "tide"), ("violin", "chord", "sonata", "tempo"))


def planted(n: int = 500, seed: int = 0) -> OutcomeTable:
    """Two kinds of prompts; `big` is good at both and dear, each of the small ones at one kind."""
    rng = np.random.default_rng(seed)
    chance = {"big": (0.8, 0.8), "one": (0.75, 0.3), "two": (0.3, 0.75)}
    rows: dict[str, list[object]] = {k: [] for k in ("query_id", "prompt", "model", "quality", "cost_usd")}
    for i in range(n):
        kind = int(rng.integers(2))
        prompt = " ".join([*rng.choice(WORDS[kind], 4), f"number {i}"])
        for model, right in chance.items():
            rows["query_id"].append(str(i))
            rows["prompt"].append(prompt)
            rows["model"].append(model)
            rows["quality"].append(float(rng.random() < right[kind]))
            rows["cost_usd"].append(0.01 if model == "big" else 0.001)
    return OutcomeTable.from_columns(rows)


def judged(table: OutcomeTable, name: str) -> Row:
    result = evaluate(table, routers=[Entrant(name=name, spec={"type": name})], split="0.4")
    return next(r for r in report(result, resamples=200).rows if r.name == name)


def dealt(table: OutcomeTable, *, seed: int = 1) -> OutcomeTable:
    """The same prompts and the same outcomes, but each query has another's."""
    order = np.random.default_rng(seed).permutation(len(table))
    return replace(table, prompts=[table.prompts[i] for i in order])


@pytest.mark.parametrize("name", PREDICTORS)
def test_with_its_own_prompts_a_router_gains(name: str) -> None:
    over = judged(planted(), name).aiq_over_mix
    assert over is not None
    assert over.low > 0.0


@pytest.mark.parametrize("name", PREDICTORS)
def test_with_prompts_dealt_out_anew_it_gains_nothing(name: str) -> None:
    over = judged(dealt(planted()), name).aiq_over_mix
    assert over is not None
    assert over.low <= 0.0
    assert abs(over.value) < 0.03


@pytest.mark.parametrize("name", PREDICTORS)
def test_with_outcomes_dealt_out_anew_forecasts_collapse_to_the_means(name: str) -> None:
    table = dealt(planted(900))
    spread = {}
    for which, found in (("planted", planted(900)), ("dealt", table)):
        predictor = build("predictors", {"type": name})
        found = found.observed(catalogued(predictor.needs), predictor.needs)
        predictor.fit(found.take(np.arange(600)))
        quality, _, _ = forecasts(predictor, found.take(np.arange(600, 900)))
        spread[which] = float(quality.std(axis=0).mean())
    assert spread["dealt"] < 0.5 * spread["planted"]
    assert spread["dealt"] < 0.12
