"""The predictor `skills`: counts, competence, weights, forecasts in the order of w, and what recruiting by it is worth."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.plans.gates import said
from fairlead.plans.recruit import Recruit
from fairlead.plans.single import Single
from fairlead.predictors.base import Floats
from fairlead.predictors.nodes import Nodes
from fairlead.predictors.skills import Skills, competence, weights
from fairlead.table import OutcomeTable
from fairlead.testing import check_predictor, observer_of, toy
from fairlead.types import (
    Call,
    Decision,
    Failure,
    Option,
    Outcome,
    Path,
    Query,
    Reading,
    Reward,
    Signals,
    Target,
    Trace,
)
from fairlead.worlds.replay import LookUp, replay

NAMES = ("algebra", "biology", "chess", "dance")
TOPICS = (
    ("equation", "matrix", "root", "prime"),
    ("cell", "enzyme", "virus", "gene"),
    ("rook", "bishop", "pawn", "castle"),
    ("tango", "waltz", "ballet", "salsa"),
)
FILL = ("tell", "me", "about", "the", "story", "that", "people", "know", "of", "old", "times")
TARGETS = [Target(name=n) for n in NAMES]


@cache
def table(n: int = 600, alike: bool = False, seed: int = 0) -> OutcomeTable:
    """Each specialist is right on 90% of its own topic and on 50% elsewhere; `alike`: all are right on 60% everywhere."""
    random = Random(seed)
    columns: dict[str, list[Any]] = {k: [] for k in ("query_id", "prompt", "model", "quality")}
    for i in range(n):
        topic = random.randrange(4)
        words = random.choices(FILL, k=8)
        for word in random.sample(TOPICS[topic], 2):
            words.insert(random.randrange(len(words)), word)
        for m, name in enumerate(NAMES):
            columns["query_id"].append(f"q{i}")
            columns["prompt"].append(" ".join(words))
            columns["model"].append(name)
            columns["quality"].append(float(random.random() < (0.6 if alike else 0.9 if m == topic else 0.5)))
    needs = Skills().needs
    return OutcomeTable.from_columns(columns).observed(observer_of(needs), needs)


@cache
def fitted(alike: bool = False, seed: int = 0) -> Skills:
    predictor = Skills()
    predictor.fit(table(alike=alike, seed=seed).take(range(350)))
    return predictor


def rows(predictor: Skills, whole: OutcomeTable) -> Floats:
    return predictor.features.read_all(whole.observations(predictor.needs))


def test_it_keeps_what_every_predictor_keeps() -> None:
    check_predictor(Skills)


# ------------------------------------------------------------------------------------------------------- the profile


def test_profile_equals_brute_force_counts() -> None:
    whole = table().take(range(350))
    quality = whole.quality_QM.copy()
    predictor = Skills(skills=10)
    predictor.fit(whole)
    x_QD = rows(predictor, whole)
    profile, count = np.zeros_like(predictor.profile_), np.zeros_like(predictor.count_)
    for i, x_D in enumerate(x_QD):
        for t in range(len(NAMES)):
            for s in predictor.skills_of(x_D):
                profile[t, s] += 1 if quality[i, t] >= 0.5 else -1
                count[t, s] += 1
    assert predictor.profile_.shape == (4, 10)
    assert np.array_equal(predictor.profile_, profile)
    assert np.array_equal(predictor.count_, count)
    assert np.array_equal(predictor.whole_[0], (2 * quality - 1).sum(axis=0))


def trace_of(whole: OutcomeTable, i: int, name: str) -> Trace:
    assert whole.signals is not None
    return traced(whole.signals[i], name)


def traced(signals: Signals, name: str) -> Trace:
    option = Option(plan=Single(target=name), probability=1.0)
    return Trace(
        id="t",
        at=0.0,
        query=Query(id="t", messages=()),
        signals=signals,
        decision=Decision(options=(option,), chosen=0, propensity=1.0),
        outcome=Outcome(text="x", target=name),
    )


def test_one_more_question_changes_only_its_skills_entries() -> None:
    predictor, before = fitted().copy(), fitted()
    x_D = rows(predictor, table())[400]
    found = predictor.skills_of(x_D)
    assert len(found)
    for quality, sign in ((1.0, 1), (0.0, -1)):
        after = predictor.copy()
        after.update(trace_of(table(), 400, "chess"), Reward(quality=quality))
        changed = after.profile_ - before.profile_
        expected = np.zeros_like(changed)
        expected[2, found] = sign
        assert np.array_equal(changed, expected)
        # The sum over skills moves by as many as the question has.
        assert changed.sum() == sign * len(found)


def test_counts_fade_by_keep() -> None:
    predictor = fitted().copy()
    predictor.keep = 0.5
    predictor.update(trace_of(table(), 400, "chess"), Reward(quality=1.0))
    found = predictor.skills_of(rows(predictor, table())[400])
    assert np.array_equal(predictor.profile_[0], 0.5 * fitted().profile_[0])
    assert np.array_equal(predictor.profile_[2, found], 0.5 * fitted().profile_[2, found] + 1.0)


def test_updates_equal_counting_at_once() -> None:
    first, whole = fitted(), table()
    predictor = first.copy()
    x_QD = rows(first, whole)
    profile = first.profile_.copy()
    for i in range(350, 400):
        for t, name in enumerate(NAMES):
            predictor.update(trace_of(whole, i, name), Reward(quality=float(whole.quality_QM[i, t])))
        traits = first._traits(x_QD[i])[first.chosen_]
        profile += np.outer(2 * whole.quality_QM[i] - 1, traits)
    words = first.chosen_ >= 2 * len(first.centre_)  # the mean that numbers are above or below moves on
    assert np.array_equal(predictor.profile_[:, words], profile[:, words])


# --------------------------------------------------------------------------------------------------------- the weights


def test_gamma_is_the_squared_share_of_totals_shifted_to_positive() -> None:
    assert competence(np.array([[1.0, 2.0], [1.0, 0.0]])) == pytest.approx([0.9, 0.1])
    assert competence(np.array([[2.0, 1.0], [-1.0, 0.0]])) == pytest.approx([25 / 26, 1 / 26])  # 3, -1 -> 5, 1
    assert competence(np.zeros((2, 3))) == pytest.approx([0.5, 0.5])


def test_weights_are_for_those_with_a_positive_sum_and_all_negative_ones_still_give_a_distribution() -> None:
    gamma = np.array([0.5, 0.3, 0.2])
    assert weights(np.array([[2.0], [-1.0], [1.0]]), gamma) == pytest.approx([1.0, 0.0, 0.2])
    assert weights(np.array([[-3.0], [-1.0], [0.0]]), gamma) == pytest.approx([0.5, 0.9, 0.8])
    assert weights(np.zeros((3, 0)), gamma) == pytest.approx(gamma)
    assert weights(np.array([[1.0], [-1.0]]), np.array([0.0, 1.0])) == pytest.approx([0.0, 1.0])


PROFILES = st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=1, max_size=5)


@given(PROFILES, st.sets(st.integers(0, 2)))
def test_weights_are_always_a_distribution(profile: list[list[int]], asked: set[int]) -> None:
    profile_TS = np.array(profile, dtype=np.float64)
    w_T = weights(profile_TS[:, sorted(asked)], competence(profile_TS))
    assert (w_T >= 0.0).all()
    assert w_T.sum() > 0.0
    assert np.isfinite(w_T).all()


def test_nearest_skill_mapping_is_idempotent() -> None:
    predictor = fitted()
    dense = len(predictor.centre_)
    for x_D in rows(predictor, table())[350:380]:
        found = predictor.skills_of(x_D)
        again = np.concatenate([predictor.centre_, np.zeros(predictor.features.nodes)])
        for trait in predictor.chosen_[found]:
            if trait < 2 * dense:
                again[trait % dense] += 1.0 if trait < dense else -1.0
            else:
                again[dense + trait - 2 * dense] = 1.0
        assert np.array_equal(predictor.skills_of(again), found)


def test_unknown_vocabulary_falls_back_to_gamma_only() -> None:
    predictor = Skills(features=Nodes(signals=(), nodes=4096))
    predictor.fit(table().take(range(350)))
    unread = Signals(readings={"ngrams": Reading(bag=b""), "length": Reading()})
    x_D = predictor.features.read(unread)
    assert not len(predictor.skills_of(x_D))
    assert predictor.weights(x_D) == pytest.approx(predictor.competence())
    told = [f.quality for f in predictor.predict(unread, TARGETS)]
    assert np.array_equal(np.argsort(told), np.argsort(predictor.competence()))


# -------------------------------------------------------------------------------------------------------- the forecast


def test_forecasts_keep_the_order_of_w_and_are_calibrated() -> None:
    predictor, whole = fitted(), table()
    signals, x_QD = whole.observations(predictor.needs), rows(predictor, table())
    forecasts = np.array([[f.quality for f in predictor.predict(s, TARGETS)] for s in signals[350:]])
    for x_D, told_T in zip(x_QD[350:], forecasts, strict=True):
        w_T = predictor.weights(x_D)
        for a in range(4):
            for b in range(4):
                assert (w_T[a] > w_T[b]) == (told_T[a] > told_T[b])
    truth = whole.quality_QM[350:]  # knowing everything: 0.89 of the error of the mean
    assert abs(forecasts.mean() - truth.mean()) < 0.05
    assert ((forecasts - truth) ** 2).mean() < 0.95 * ((truth.mean() - truth) ** 2).mean()


def test_a_specialist_is_forecast_best_at_its_own_and_a_dominating_one_everywhere() -> None:
    predictor, whole = fitted(), table()
    best = [np.argmax(predictor.weights(x_D)) for x_D in rows(predictor, whole)[350:]]
    chosen = whole.quality_QM[np.arange(350, 600), best].mean()
    assert chosen > 0.8  # at best 0.9, any single one 0.6
    top = predictor.copy()
    top.profile_[1] = np.abs(top.profile_).max(axis=0) + 1.0
    assert all(np.argmax(top.weights(x_D)) == 1 for x_D in rows(predictor, whole)[350:400])


def test_a_target_nobody_scored_changes_no_count() -> None:
    whole = toy(queries=60)
    observed = whole.observed(observer_of(Skills().needs), Skills().needs)
    predictor = Skills()
    predictor.fit(observed)
    assert np.array_equal(predictor.whole_[1], [60.0, 60.0, 60.0])


# ------------------------------------------------------------------------------------------------ what it is worth


class Specialists(LookUp):
    """A right expert says "right", a wrong one something wrong of its own; the gate says what the predictor forecasts, or fails."""

    def __init__(self, whole: OutcomeTable, i: int, predictor: Skills | None) -> None:
        self.whole, self.i, self.predictor = whole, i, predictor

    def outcome(self, call: Call, path: Path) -> Outcome:
        if call.target == "gate":
            if self.predictor is None:
                return Outcome(error=Failure(kind="unavailable"))
            signals = self.whole.observations(self.predictor.needs)[self.i]
            return Outcome(text=said(dict(zip(NAMES, self.predictor.predict(signals, TARGETS), strict=True))))
        right = self.whole.quality_QM[self.i, NAMES.index(call.target)] >= 0.5
        return Outcome(text="right" if right else f"wrong {call.target}")


def recruited(alike: bool, predictor: Skills | None, seed: int = 0) -> float:
    whole, plan = table(alike=alike, seed=seed), Recruit(gate="gate", experts=NAMES)
    right = []
    for i in range(350, 600):
        answer = replay(plan, Query.ask("?", id=f"q{i}"), Specialists(whole, i, predictor)).outcome
        right.append(answer.text == "right")
    return float(np.mean(right))


@pytest.mark.parametrize("seed", [0, 101, 102, 103])
def test_recruiting_by_skill_beats_random_recruiting_with_planted_specialists(seed: int) -> None:
    """Seeds above 100: there numbers that go together drowned the words while both were always counted."""
    by_skill, at_random = recruited(False, fitted(seed=seed), seed), recruited(False, None, seed)
    assert by_skill > at_random + 0.1, (by_skill, at_random)


def test_recruiting_by_skill_equals_random_recruiting_with_identical_models() -> None:
    whole = table(alike=True)
    one_QM = np.repeat(whole.quality_QM[:, :1], 4, axis=1)
    columns: dict[str, list[Any]] = {k: [] for k in ("query_id", "prompt", "model", "quality")}
    for i in range(350):
        for m, name in enumerate(NAMES):
            row = (whole.query_ids[i], " ".join(f"word{i % 7}" for _ in range(3)), name, float(one_QM[i, m]))
            for column, value in zip(columns, row, strict=True):
                columns[column].append(value)
    predictor = Skills()
    alike = OutcomeTable.from_columns(columns).observed(observer_of(predictor.needs), predictor.needs)
    predictor.fit(alike)
    told = [[f.quality for f in predictor.predict(s, TARGETS)] for s in alike.observations(predictor.needs)[:50]]
    assert all(len(set(row)) == 1 for row in told)
    # Independent models that are equally good: no gain and no loss but by chance.
    assert abs(recruited(True, fitted(True)) - recruited(True, None)) < 0.1
