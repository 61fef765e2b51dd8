"""Item response: abilities and difficulties are found again, uncertainty is honest, fractions and gaps are taken."""

from dataclasses import replace

import numpy as np
import pytest

from fairlead.errors import ConfigError, NotFitted, StateError, TableError, UnknownName
from fairlead.plans.single import Single
from fairlead.predictors.base import Floats
from fairlead.predictors.features import Features
from fairlead.predictors.irt import IRT
from fairlead.table import OutcomeTable
from fairlead.testing import toy
from fairlead.types import Decision, Option, Outcome, Profile, Query, Reading, Reward, Signals, Target, Trace

FEATURES = Features(signals=("x",), scale=False)


def world(
    *, queries: int = 400, targets: int = 8, seed: int = 0, share: float = 0.0, spread: float = 1.0
) -> tuple[OutcomeTable, Floats]:
    """Make outcomes of a two-ability world with hidden difficulty, and the true mean quality of each target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(queries, 4)).astype("<f4")
    theta = np.column_stack([rng.normal(0.5, 1.0, targets), rng.normal(0.0, 1.0, targets)])
    odds = theta[:, :1] + theta[:, 1:] * x[:, 0] - x[:, 1] - spread * rng.normal(size=queries)
    p = 1.0 / (1.0 + np.exp(-odds.T))
    y = (rng.random(p.shape) < p).astype(float)
    y = share * p + (1.0 - share) * y
    columns = {
        "query_id": [f"q{i}" for i in range(queries) for _ in range(targets)],
        "prompt": [f"p{i}" for i in range(queries) for _ in range(targets)],
        "model": [f"t{t}" for _ in range(queries) for t in range(targets)],
        "quality": y.ravel(),
    }
    table = OutcomeTable.from_columns(columns)
    length = Reading(value=10, parts={"characters_all": 10})
    signals = [Signals(readings={"x": Reading(vector=row.tobytes()), "length": length}) for row in x]
    return replace(table, signals=signals), p


def fitted(table: OutcomeTable, **more: object) -> IRT:
    out = IRT(features=FEATURES.copy(), l2=5.0, **more)  # type: ignore[arg-type]
    out.fit(table)
    return out


def forecasts(predictor: IRT, table: OutcomeTable) -> Floats:
    targets = [Target(name=n) for n in predictor.targets_]
    return np.asarray([[f.quality for f in predictor.predict(s, targets)] for s in table.observations(predictor.needs)])


def lesson(signals: Signals, target: str, quality: float) -> tuple[Trace, Reward]:
    decision = Decision(options=(Option(plan=Single(target=target), probability=1.0),), chosen=0, propensity=1.0)
    trace = Trace(
        id="x",
        at=0.0,
        query=Query(id="x", messages=()),
        signals=signals,
        decision=decision,
        outcome=Outcome(target=target),
    )
    return trace, Reward(quality=quality)


def test_two_abilities_are_found_again() -> None:
    table, p = world(queries=600)
    predictor = fitted(table.take(range(400)), abilities=2)
    held_out = table.take(range(400, 600))
    error = np.abs(forecasts(predictor, held_out) - p[400:]).mean()
    mean = np.abs(table.quality_QM[:400].mean(axis=0) - p[400:]).mean()
    assert error < 0.8 * mean
    assert predictor.spread_ > 0.4


def test_hidden_difficulty_is_none_where_there_is_none() -> None:
    with_it = fitted(world(spread=1.5)[0])
    without = fitted(world(spread=0.0)[0])
    assert without.spread_ < 0.5 * with_it.spread_


def test_fractions_count_as_shares() -> None:
    whole, fractional = fitted(world()[0]), fitted(world(share=1.0)[0])
    table, _ = world()
    gap = np.abs(forecasts(whole, table) - forecasts(fractional, table)).mean()
    assert gap < 0.06


def test_unscored_answers_are_left_out() -> None:
    table, p = world(queries=600)
    quality = table.quality_QMS.copy()
    quality[np.random.default_rng(1).random(quality.shape) < 0.5] = np.nan
    quality[:, 3] = np.nan
    predictor = fitted(replace(table, quality_QMS=quality))
    now = forecasts(predictor, table)
    known = [0, 1, 2, 4, 5, 6, 7]
    assert np.abs(now[:, known].mean(axis=0) - p[:, known].mean(axis=0)).max() < 0.08
    signals = table.observations(predictor.needs)[0]
    never, often = predictor.predict(signals, [Target(name="t3"), Target(name="t4")])
    assert never.quality_sd > 2.0 * often.quality_sd


def test_a_stranger_gets_the_population_and_a_stated_quality_moves_it() -> None:
    table, _ = world()
    predictor = fitted(table)
    plain = predictor.belief(Target(name="new"), table)
    told = predictor.belief(Target(name="new", profile=Profile(quality=0.9)), table)
    assert plain.mean == pytest.approx(float(np.nanmean(table.quality_QM)), abs=0.06)
    assert plain.mean_sd > 0.1
    assert plain.mean < told.mean < 0.95
    assert told.mean_sd < plain.mean_sd
    signals = table.observations(predictor.needs)[0]
    stranger, known = predictor.predict(signals, [Target(name="new"), Target(name="t0")])
    assert stranger.quality_sd > 2.0 * known.quality_sd


def test_adopting_narrows_towards_the_truth_and_keeps_the_others() -> None:
    table, p = world(queries=500, targets=9)
    predictor = fitted(table.with_models([f"t{i}" for i in range(8)]))
    new, sds = Target(name="t8"), [predictor.belief(Target(name="t8"), table).mean_sd]
    for n in (5, 30, 200):
        copy = predictor.copy()
        copy.adopt(new, table.take(range(n)))
        belief = copy.belief(new, table)
        assert abs(belief.mean - p[:, 8].mean()) < 3.0 * belief.mean_sd + 0.02
        sds.append(belief.mean_sd)
        assert (copy.ability_[:8] == predictor.ability_).all()
    assert sds == sorted(sds, reverse=True)
    assert sds[-1] < 0.3 * sds[0]


def test_what_others_made_of_a_prompt_says_how_hard_it_is() -> None:
    table, _ = world(targets=9, spread=2.0)
    predictor = fitted(table.with_models([f"t{i}" for i in range(8)]))
    rows = [int(q) for q in np.argsort(table.quality_QM[:, :8].mean(axis=1), kind="stable")]
    new = Target(name="t8")

    def mean_after(chosen: list[int]) -> float:
        own = table.take(chosen)
        quality = own.quality_QMS.copy()
        quality[:, 8] = 1.0
        copy = predictor.copy()
        copy.adopt(new, replace(own, quality_QMS=quality))
        return copy.belief(new, table).mean

    # To be right where nobody else is says more than to be right where all are.
    assert mean_after(rows[:10]) > mean_after(rows[-10:]) + 0.02


def test_updates_go_the_way_of_adopting() -> None:
    table, _ = world(targets=9)
    predictor = fitted(table.with_models([f"t{i}" for i in range(8)]))
    new, online = Target(name="t8"), predictor.copy()
    signals = table.observations(predictor.needs)
    for q in range(150):
        online.update(*lesson(signals[q], "t8", float(table.quality_QM[q, 8])))
    at_once = predictor.copy()
    at_once.adopt(new, table.take(range(150)).with_models(["t8"]))
    a, b = online.belief(new, table), at_once.belief(new, table)
    assert a.mean == pytest.approx(b.mean, abs=0.04)
    assert a.mean_sd == pytest.approx(b.mean_sd, rel=0.3)
    before = b.mean_sd
    at_once.decay(0.25)
    assert at_once.belief(new, table).mean_sd > 1.2 * before


def test_mistakes_are_explained() -> None:
    table, _ = world(queries=60, targets=3)
    with pytest.raises(ConfigError, match="1 … 4"):
        IRT(abilities=5).check()
    with pytest.raises(NotFitted):
        IRT().adopt(Target(name="t0"), table)
    with pytest.raises(NotFitted):
        IRT().belief(Target(name="t0"), table)
    predictor = fitted(table)
    with pytest.raises(StateError, match="known already"):
        predictor.adopt(Target(name="t0"), table)
    with pytest.raises(UnknownName):
        predictor.adopt(Target(name="t9"), table)


def test_an_unscored_newcomer_is_refused() -> None:
    table, _ = world(queries=60, targets=3)
    predictor = fitted(table.with_models(["t0", "t1"]))
    quality = table.quality_QMS.copy()
    quality[:, 2] = np.nan
    with pytest.raises(TableError, match="no answer of t2 is scored"):
        predictor.adopt(Target(name="t2"), replace(table, quality_QMS=quality))


@pytest.mark.parametrize("queries", [300, 1000])
def test_on_noise_it_is_about_the_mean_and_says_how_sure(queries: int) -> None:
    rng = np.random.default_rng(0)
    p_T = np.asarray([0.5, 0.7, 0.3, 0.6, 0.65])
    x_QD, new_QD = rng.normal(size=(queries, 60)), rng.normal(size=(200, 60))
    predictor = IRT()
    predictor.targets_ = list("abcde")
    predictor._fit(x_QD, (rng.random((queries, 5)) < p_T).astype(float), toy(queries=queries))
    found = [predictor._quality(x_D) for x_D in new_QD]
    off = np.asarray([quality_T - p_T for quality_T, _ in found])
    assert np.sqrt((off**2).mean()) < 0.06
    assert (np.abs(off) <= 1.645 * np.asarray([sd_T for _, sd_T in found])).mean() > 0.8
