"""Profiles: the graph does what its formula says, and an unseen target is forecast from what it shares with others."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fairlead.errors import ConfigError
from fairlead.predictors import profile
from fairlead.predictors.base import Floats
from fairlead.predictors.features import Features
from fairlead.predictors.profile import Profiled, propagate, sameness
from fairlead.table import OutcomeTable
from fairlead.types import Profile, Reading, Signals, Target

# Two targets (rows 0, 1), one tag (2), two skills (3, 4). Target 0 has the tag and the first skill, target 1 the tag and both.
SPANS = {"target": (0, 2), "tag": (2, 3), "skill": (3, 5)}
EDGES = {("target", "tag"): np.ones((2, 1)), ("target", "skill"): np.asarray([[1.0, 0.0], [1.0, 3.0]])}


def test_one_hop_by_hand() -> None:
    x = np.asarray([[1.0], [2.0], [4.0], [8.0], [16.0]])
    before, after = propagate(x, SPANS, EDGES, hops=1)
    assert (before == x).all()
    expected = [(4.0 + 8.0) / 2, (4.0 + (8.0 + 3 * 16.0) / 4) / 2, (1.0 + 2.0) / 2, (1.0 + 2.0) / 2, 2.0]
    assert after[:, 0] == pytest.approx(expected)
    _, after = propagate(x, SPANS, EDGES, hops=1, norm="symmetric")
    # D^-1/2 A D^-1/2: the tag has degree 2, the skills 2 and 3, the targets 1 and 4 in skills.
    tag, first = 4.0 / np.sqrt(2.0), 8.0 / np.sqrt(2.0)
    expected = [(tag + first) / 2, (tag + 8.0 / np.sqrt(8.0) + 3 * 16.0 / np.sqrt(12.0)) / 2]
    assert after[:2, 0] == pytest.approx(expected)


def test_no_hop_constants_and_isolated_nodes() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert len(propagate(x, SPANS, EDGES, hops=0)) == 1
    assert propagate(np.ones((5, 1)), SPANS, EDGES, hops=6)[-1] == pytest.approx(np.ones((5, 1)))
    lonely = {("target", "tag"): np.asarray([[1.0], [0.0]])}
    for norm in ("row", "symmetric"):
        after = propagate(x, SPANS, lonely, hops=3, norm=norm)[-1]
        assert np.isfinite(after).all()
        assert (after[[1, 3, 4]] == x[[1, 3, 4]]).all()


def test_relabelling_permutes_and_depth_smooths() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    turned = {k: w[::-1] for k, w in EDGES.items()}
    order = [1, 0, 2, 3, 4]
    a, b = propagate(x, SPANS, EDGES, hops=2)[-1], propagate(x[order], SPANS, turned, hops=2)[-1]
    assert b == pytest.approx(a[order])
    alike = [sameness(step[:2]) for step in propagate(x, SPANS, EDGES, hops=30)]
    assert alike[-1] > 0.99 > alike[0]
    assert np.isnan(sameness(x[:1]))


def families(*, seed: int = 0, queries: int = 300, per_family: int = 3) -> tuple[OutcomeTable, list[Target]]:
    """Make targets of two families, each good at one domain, with scores per domain in their profiles."""
    rng = np.random.default_rng(seed)
    names = [f"{family}{i}" for family in ("ada", "bob") for i in range(per_family)]
    domain = rng.integers(2, size=queries)
    x = (np.eye(2)[domain] * 3.0 + rng.normal(0.0, 0.3, (queries, 2))).astype("<f4")
    p = np.asarray([[0.9 if (n[:3] == "ada") == (d == 0) else 0.2 for n in names] for d in domain])
    y = (rng.random(p.shape) < p).astype(float)
    q, m = queries, len(names)
    table = OutcomeTable.from_columns(
        {
            "query_id": [f"q{i}" for i in range(q) for _ in range(m)],
            "prompt": [f"p{i}" for i in range(q) for _ in range(m)],
            "dataset": [f"d{domain[i]}" for i in range(q) for _ in range(m)],
            "model": names * q,
            "quality": y.ravel(),
        }
    )
    length = Reading(value=10, parts={"characters_all": 10})
    signals = [Signals(readings={"x": Reading(vector=row.tobytes()), "length": length}) for row in x]
    skills = {"ada": {"d0": 0.9, "d1": 0.2}, "bob": {"d0": 0.2, "d1": 0.9}}
    targets = [Target(name=n, profile=Profile(tags=frozenset({n[:3]}), skills=skills[n[:3]])) for n in names]
    return replace(table, signals=signals), targets


def fitted(table: OutcomeTable, targets: list[Target], **more: object) -> Profiled:
    out = Profiled(features=Features(signals=("x",), scale=False), groups=4, **more)  # type: ignore[arg-type]
    out.fit(table, targets)
    return out


def chosen_where_best(predictor: Profiled, table: OutcomeTable, stranger: Target, rival: Target) -> float:
    """Share of the queries of its domain on which the stranger is preferred to the rival."""
    rows = [i for i, d in enumerate(table.datasets) if d == "d1"]
    wins = 0
    for i in rows:
        a, b = predictor.predict(table.observations(predictor.needs)[i], [stranger, rival])
        wins += a.quality > b.quality
    return wins / len(rows)


@pytest.mark.parametrize("what", ["skills", "tags"])
def test_an_unseen_target_is_chosen_where_it_is_best(what: str) -> None:
    table, targets = families()
    seen = [t for t in targets if t.name != "bob2"]
    known = table.with_models([t.name for t in seen])
    # Skills that the table does not name liken targets only through the graph.
    profile = targets[-1].profile
    bare = Profile(skills=profile.skills) if what == "skills" else Profile(tags=profile.tags)
    predictor = fitted(known, seen)
    stranger, ada = Target(name="bob2", profile=bare), targets[0]
    assert chosen_where_best(predictor, table, stranger, ada) > 0.9
    # Without profiles all strangers are alike.
    flat = fitted(known, [])
    assert chosen_where_best(flat, table, stranger, Target(name="ada9", profile=Profile(tags=ada.profile.tags))) == 0.0


def test_a_profile_that_says_nothing_gets_the_population() -> None:
    table, targets = families()
    predictor = fitted(table.with_models([t.name for t in targets[:5]]), targets[:5])
    signals = table.observations(predictor.needs)[0]
    blank, known, told = predictor.predict(
        signals, [Target(name="new"), targets[0], Target(name="new2", profile=targets[0].profile)]
    )
    assert blank.quality_sd > 4.0 * known.quality_sd
    assert blank.quality_sd > 0.2
    assert told.quality_sd < 0.7 * blank.quality_sd
    belief = predictor.belief(Target(name="new"), table)
    assert abs(belief.mean - float(np.nanmean(table.quality_QM))) < 2.0 * belief.mean_sd


@pytest.mark.parametrize("norm", ["row", "symmetric"])
def test_a_vector_is_the_targets_own_row_before_and_after_each_hop(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, targets = families()
    targets[0] = Target(name=targets[0].name, profile=Profile(input_usd_per_mtok=5.0, quality=0.4))  # no edges
    targets[1] = Target(name=targets[1].name, profile=Profile(input_usd_per_mtok=1.0, tags=frozenset({"ada", "old"})))
    steps: list[list[Floats]] = []

    def spied(*given: Any, **more: Any) -> list[Floats]:
        steps.append(propagate(*given, **more))
        return steps[-1]

    monkeypatch.setattr(profile, "propagate", spied)
    predictor = fitted(table, targets, norm=norm, hops=2)
    for t, target in enumerate(targets):
        before, first, second = (x[t - len(targets)] for x in steps[0])
        want = np.concatenate([before[:4], first, second])
        np.testing.assert_allclose(predictor._vector(target.profile)[: len(want)], want, atol=1e-12)


def test_profiles_that_foretell_nothing_are_not_believed() -> None:
    table, targets = families(per_family=4)
    mixed = [replace_tags(t, {"even" if i % 2 else "odd"}) for i, t in enumerate(targets)]
    assert fitted(table, targets).share_ > 0.0
    assert fitted(table, mixed).share_ == 0.0


def replace_tags(target: Target, tags: set[str]) -> Target:
    return Target(name=target.name, profile=Profile(tags=frozenset(tags)))


def test_equal_profiles_give_equal_forecasts() -> None:
    table, targets = families()
    predictor = fitted(table, targets)
    signals = table.observations(predictor.needs)[3]
    a, b = predictor.predict(
        signals, [Target(name="x", profile=targets[0].profile), Target(name="y", profile=targets[0].profile)]
    )
    assert a == b


def test_adopting_narrows_towards_the_truth() -> None:
    table, targets = families()
    predictor = fitted(table.with_models([t.name for t in targets[:5]]), targets[:5])
    new = Target(name="bob2")
    before = predictor.belief(new, table)
    copy = predictor.copy()
    copy.adopt(new, table.take(range(30)))
    after = copy.belief(new, table)
    truth = float(table.quality_QM[:, table.models.index("bob2")].mean())
    assert after.mean_sd < 0.75 * before.mean_sd
    assert abs(after.mean - truth) < 3.0 * after.mean_sd
    assert "bob2" not in predictor.targets_
    sd = after.mean_sd
    copy.decay(0.2)
    assert copy.belief(new, table).mean_sd > sd


def test_too_many_hops_warn(caplog: pytest.LogCaptureFixture) -> None:
    table, targets = families()
    with caplog.at_level(logging.WARNING):
        fitted(table, targets, hops=40)
    assert "use fewer" in caplog.text


def test_counts_are_checked() -> None:
    with pytest.raises(ConfigError, match="groups"):
        Profiled(groups=0).check()
    with pytest.raises(ConfigError, match="hops"):
        Profiled(hops=-1).check()
