"""Where there is nothing to learn, nothing is gained: prompts dealt out anew give no gain, outcomes dealt out anew leave random mixing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fairlead import catalog
from fairlead.bench.evaluate import Entrant, catalogued, evaluate, forecasts
from fairlead.bench.report import Row, report
from fairlead.build import build
from fairlead.table import OutcomeTable

PREDICTORS = [n for n in catalog.names("predictors") if n not in ("mean", "apo")]
"""`apo` is trained on a reward that takes from dear ways what a cheap one could do: it is for modes, and no sweep of costs improves on it."""
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


@cache
def judged(*, anew: bool) -> dict[str, Row]:
    """What the report says of each predictor, all of them on the same queries."""
    table = dealt(planted()) if anew else planted()
    result = evaluate(table, routers=[Entrant(name=name, spec={"type": name}) for name in PREDICTORS], split="0.4")
    return {row.name: row for row in report(result, resamples=200).rows}


def dealt(table: OutcomeTable, *, seed: int = 1) -> OutcomeTable:
    """The same prompts and the same outcomes, but each query has another's."""
    order = np.random.default_rng(seed).permutation(len(table))
    return replace(table, prompts=[table.prompts[i] for i in order])


# `pilots` tells by rank who is best, not by how much: where a dear target is a little better everywhere, it gains nothing over mixing.
@pytest.mark.parametrize("name", [n for n in PREDICTORS if n != "pilots"])
def test_with_its_own_prompts_a_router_gains(name: str) -> None:
    over = judged(anew=False)[name].aiq_over_mix
    assert over is not None
    assert over.low > 0.0


@pytest.mark.parametrize("name", PREDICTORS)
def test_with_prompts_dealt_out_anew_it_gains_nothing(name: str) -> None:
    over = judged(anew=True)[name].aiq_over_mix
    assert over is not None
    assert over.low <= 0.0
    assert abs(over.value) < 0.03


@pytest.mark.parametrize("name", PREDICTORS)
def test_with_outcomes_dealt_out_anew_forecasts_collapse_to_the_means(name: str) -> None:
    predictor = build("predictors", {"type": name})
    table = dealt(planted(600)).observed(catalogued(predictor.needs), predictor.needs)
    predictor.fit(table.take(np.arange(450)))
    quality, _, _ = forecasts(predictor, table.take(np.arange(450, 600)))
    # With their own prompts, qualities spread by 0, .225 and .225.
    # `gain` adds a gate's forecast to another, and keeps more of the noise of both.
    assert float(quality.std(axis=0).mean()) < (0.2 if name == "gain" else 0.12)
