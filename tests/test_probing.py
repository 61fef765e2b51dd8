"""Choosing what to ask a new target: the gain is what it says, groups get their share, no prompt is asked twice, and it pays."""

from dataclasses import replace

import numpy as np
import pytest

from fairlead.errors import FairleadError, StateError
from fairlead.predictors.base import Predictor
from fairlead.predictors.features import Features
from fairlead.predictors.irt import IRT
from fairlead.predictors.knn import KNN
from fairlead.predictors.profile import Profiled
from fairlead.predictors.ridge import Ridge
from fairlead.probing import MOST, Joining, adopt, filled, probes, with_outcomes
from fairlead.table import OutcomeTable
from fairlead.testing import TARGETS, observer_of, toy
from fairlead.types import Failure, Outcome, Target, Tokens

NEW = Target(name="cat")
FEATURES = Features(signals=("length", "marks"))


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    return toy(queries=160).observed(observer_of(FEATURES.needs), FEATURES.needs)


@pytest.fixture(scope="module", params=["irt", "profile"])
def predictor(request: pytest.FixtureRequest, table: OutcomeTable) -> Predictor:
    out = IRT(features=FEATURES, l2=5.0) if request.param == "irt" else Profiled(features=FEATURES)
    out.fit(table.with_models(["ant", "bee"]))
    return out


def answers(table: OutcomeTable, rows: list[int]) -> dict[int, Outcome]:
    return {q: Outcome(quality=float(table.quality_QM[q, table.models.index("cat")]), usd=0.001) for q in rows}


def test_no_prompt_is_asked_twice_and_groups_get_their_share(table: OutcomeTable, predictor: Predictor) -> None:
    rows = probes(predictor, NEW, table, n=20)
    assert len(set(rows)) == 20
    assert 6 <= sum(q % 2 for q in rows) <= 14
    assert not set(probes(predictor, NEW, table, n=20, without=rows)) & set(rows)
    assert probes(predictor, NEW, table, n=5) == probes(predictor, NEW, table, n=5)
    assert probes(predictor, NEW, table, n=8, seed=1) != probes(predictor, NEW, table, n=8)


def test_of_equal_prompts_one_is_asked(table: OutcomeTable, predictor: Predictor) -> None:
    twice = table.take([*range(10), *range(10)])
    rows = probes(predictor, NEW, twice, n=20)
    assert sorted(q % 10 for q in rows) == list(range(10))
    assert probes(predictor, NEW, twice, n=20, without=rows) == []


def test_what_a_probe_is_to_tell_it_tells(table: OutcomeTable, predictor: Predictor) -> None:
    prompts = table.with_models(["ant", "bee"])
    before = predictor.belief(NEW, prompts)
    row = probes(predictor, NEW, prompts, n=1)
    told = before.told_QF[row[0]]
    cov = np.eye(len(told)) - np.outer(told, told) / (1.0 + told @ told)
    expected = float(np.sqrt(before.factor_QF.mean(axis=0) @ cov @ before.factor_QF.mean(axis=0)))
    usual = float(np.clip(before.quality_Q[row[0]], 0.0, 1.0))
    after = adopt(predictor, NEW, prompts, {row[0]: Outcome(quality=usual)}).belief(NEW, prompts)
    assert expected < before.mean_sd
    # Item response is not linear: what is foretold of quality holds roughly, and for small steps.
    assert after.mean_sd == pytest.approx(expected, rel=0.05 if isinstance(predictor, Profiled) else 0.25)


def test_joining_asks_at_most_so_many_and_knows_the_target(table: OutcomeTable, predictor: Predictor) -> None:
    state = predictor.digest()
    joining = Joining(predictor=predictor, target=NEW, prompts=table, most=17)
    asked = 0
    while rows := joining.next():
        assert len(rows) <= 5
        asked += len(rows)
        joining.tell(answers(table, rows))
    assert asked == len(joining.outcomes) == 17 <= MOST
    assert predictor.digest() == state
    belief = joining.predictor.belief(NEW, table)
    assert abs(belief.mean - 0.4) < 3.0 * belief.mean_sd
    assert belief.mean_sd < 0.85 * predictor.belief(NEW, table).mean_sd
    forecast = joining.predictor.predict(table.observations(predictor.needs)[0], [NEW])[0]
    assert forecast.usd == pytest.approx(0.001)
    with pytest.raises(FairleadError, match="known already"):
        Joining(predictor=joining.predictor, target=NEW, prompts=table)


def test_how_answers_are_dealt_into_batches_does_not_matter(table: OutcomeTable, predictor: Predictor) -> None:
    rows, others = list(range(12)), table.with_models(["ant", "bee"])
    whole = adopt(predictor, NEW, others, answers(table, rows))
    joining = Joining(predictor=predictor, target=NEW, prompts=table)
    for i in range(0, 12, 4):
        joining.tell(answers(table, rows[i : i + 4]))
    assert joining.predictor.digest() == whole.digest()


def test_failures_count_as_calls_and_teach_nothing(table: OutcomeTable, predictor: Predictor) -> None:
    joining = Joining(predictor=predictor, target=NEW, prompts=table, most=5)
    broken = Outcome(error=Failure(kind="unavailable"))
    joining.tell(dict.fromkeys(joining.next(), broken))
    assert joining.next() == []
    assert joining.predictor is predictor


def test_outcomes_become_a_column(table: OutcomeTable) -> None:
    o = Outcome(quality=0.5, usd=0.2, seconds=1.5, tokens=Tokens(input=7, output=3))
    joined = with_outcomes(table, "new", {3: o})
    assert joined.models == [*table.models, "new"]
    assert joined.quality_QMS[3, -1, 0] == 0.5
    assert joined.input_tokens_QMS[3, -1, 0] == 7
    assert np.isnan(joined.quality_QMS[:3, -1, 0]).all()
    assert joined.present_QMS[:, -1, 0].sum() == 1
    assert (joined.quality_QMS[:, :-1] == table.quality_QMS).all()


def test_an_older_column_of_the_target_is_replaced(table: OutcomeTable, predictor: Predictor) -> None:
    others, some = table.with_models(["ant", "bee"]), {q: Outcome(quality=1.0) for q in range(30)}
    joined = with_outcomes(table, "cat", some)
    assert joined.models == ["ant", "bee", "cat"]
    assert (joined.quality_QM[:30, 2] == 1.0).all()
    assert adopt(predictor, NEW, table, some).digest() == adopt(predictor, NEW, others, some).digest()
    assert filled(predictor, NEW, table, some).models == joined.models


def test_others_learn_it_by_their_own_updates_or_from_a_filled_table(table: OutcomeTable) -> None:
    others = table.with_models(["ant", "bee"])
    some = answers(table, list(range(30)))
    knn = KNN(features=FEATURES)
    knn.fit(others)
    assert "cat" in adopt(knn, NEW, others, some).targets_
    with pytest.raises(StateError, match="keeps no joint belief"):
        probes(knn, NEW, others)
    ridge = Ridge(features=FEATURES)
    ridge.fit(others)
    with pytest.raises(StateError):
        adopt(ridge, NEW, others, some)
    irt = IRT(features=FEATURES, l2=5.0)
    irt.fit(others)
    full = filled(adopt(irt, NEW, others, some), NEW, others, some)
    assert not np.isnan(full.quality_QM).any()
    assert full.quality_QM[5, -1] == some[5].quality
    ridge.fit(full)
    forecast = ridge.predict(table.observations(ridge.needs)[40], [NEW])[0]
    assert abs(forecast.quality - 0.4) < 0.15


def test_chosen_probes_do_with_less_than_random_ones() -> None:
    """A world where a third of the prompts tell nothing (all targets fail): random probes waste a third of the calls."""
    table = toy(queries=300).observed(observer_of(FEATURES.needs), FEATURES.needs)
    quality = table.quality_QMS.copy()
    dead = np.arange(300) % 3 == 0
    quality[dead] = 0.0
    table = replace(table, quality_QMS=quality)
    irt = IRT(features=FEATURES, l2=5.0)
    irt.fit(table.with_models(["ant", "bee"]))
    rows = probes(irt, NEW, table.with_models(["ant", "bee"]), n=20)
    assert dead[rows].mean() < 0.2
    assert {t.name for t in TARGETS} == {"ant", "bee", "cat"}
