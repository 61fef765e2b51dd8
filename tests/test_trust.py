"""Whom to believe: liars, flatterers and guessers lose their say, and cannot get it back by volume or under other names."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import numpy as np
import pytest

from fairlead.trust import BEGIN, FULL, Standing, Trust
from fairlead.types import Feedback

COLD = (2 * BEGIN - 1) / FULL
MIXED = ["honest"] * 12 + ["up"] * 3 + ["flip"] * 3 + ["guess"] * 2


def told(kind: str, good: bool, rng: np.random.Generator) -> float:
    """What a source of this kind says of an answer; the honest and the liars are mistaken about one in ten."""
    match kind:
        case "up":
            return 1.0
        case "guess":
            return float(rng.random() < 0.5)
    right = good if rng.random() < 0.9 else not good
    return float(right if kind == "honest" else not right)


def heard(
    kinds: list[str], *, answers: int, judges: int = 1, seed: int = 0, trust: Trust | None = None, often: Mapping[int, float] | None = None,
    keys: Mapping[int, str] | None = None,
) -> Trust:  # fmt: skip
    """Answers of five targets, good with 0.2 to 0.9, each judged by some of the sources."""
    rng, trust = np.random.default_rng(seed), trust or Trust()
    share = np.array([(often or {}).get(i, 1.0) for i in range(len(kinds))])
    for n in range(answers):
        k = int(rng.integers(5))
        good = bool(rng.random() < 0.2 + 0.175 * k)
        for s in rng.choice(len(kinds), judges, replace=False, p=share / share.sum()):
            by = (keys or {}).get(int(s), "")
            trust.note(
                Feedback(trace_id=f"{seed}-{n}", value=told(kinds[s], good, rng), source=f"{kinds[s]}{s}", by=by),
                f"t{k}",
            )
    trust.refresh()
    return trust


def weights(trust: Trust, kind: str) -> list[float]:
    return [s.weight for s in trust.standings() if s.source.rpartition("/")[2].startswith(kind)]


def found(trust: Trust, source: str) -> Standing:
    return next(s for s in trust.standings() if s.source == source)


@pytest.mark.parametrize("seed", range(5))
def test_with_three_judges_of_an_answer_each_is_known_after_300(seed: int) -> None:
    trust = heard(MIXED, answers=300, judges=3, seed=seed)
    assert fmean(weights(trust, "honest")) > 0.9
    assert min(weights(trust, "honest")) > 0.6
    assert weights(trust, "flip") == [0.0, 0.0, 0.0]
    assert fmean(weights(trust, "guess")) < 0.6  # 45 votes each: give or take 0.25
    assert fmean(weights(trust, "up")) < 0.4


@pytest.mark.parametrize("seed", range(5))
def test_with_one_judge_of_an_answer_the_targets_tell_them_apart_later(seed: int) -> None:
    trust = heard(MIXED, answers=2000, judges=1, seed=seed)
    assert fmean(weights(trust, "honest")) > 0.85
    assert max(weights(trust, "flip")) < 0.1
    assert fmean(weights(trust, "up")) < 0.3
    assert fmean(weights(trust, "guess")) < 0.6


def test_where_all_are_honest_all_keep_their_say() -> None:
    assert fmean(weights(heard(["honest"] * 20, answers=300, judges=3), "honest")) > 0.95


def test_a_new_source_has_the_priors_weight() -> None:
    assert Trust().weight(Feedback(trace_id="x", value=1.0)) == pytest.approx(COLD)
    Trust().refresh()


def test_volume_buys_no_weight() -> None:
    """A liar with ten times the votes of anybody is still one liar, and takes nobody down with it."""
    kinds = ["honest"] * 12 + ["flip"]
    for judges in (1, 2):
        trust = heard(kinds, answers=1500, judges=judges, often={12: 10.0})
        assert weights(trust, "flip") == [0.0]
        assert fmean(weights(trust, "honest")) > 0.7
    loud, quiet = (heard(["honest"] * 13, answers=900, judges=2, often=often) for often in ({12: 10.0}, {}))
    assert found(loud, "honest12").reliability == pytest.approx(found(quiet, "honest12").reliability, abs=0.15)


def test_a_new_name_under_a_key_begins_as_its_key_stands() -> None:
    kinds = ["honest"] * 10 + ["flip"] * 5
    trust = heard(kinds, answers=300, judges=3, keys={i: "shop" if i < 10 else "rival" for i in range(15)})
    fresh = {
        by: trust.weight(Feedback(trace_id="x", value=1.0, source="new", by=by))
        for by in ("shop", "rival", "", "other")
    }
    assert fresh["rival"] < 0.1
    assert fresh["shop"] > 0.9
    assert fresh[""] == fresh["other"] == pytest.approx(COLD)


def test_the_names_of_one_key_share_one_vote_on_an_answer() -> None:
    """Eight names of a rival against three honest keys on each answer: heads are not counted, keys are."""
    kinds = ["honest"] * 3 + ["flip"] * 8
    keys = {0: "a", 1: "b", 2: "c"} | dict.fromkeys(range(3, 11), "rival")
    trust = heard(kinds, answers=150, judges=11, keys=keys)
    assert max(weights(trust, "flip")) == 0.0
    assert min(weights(trust, "honest")) > 0.9
    # Without keys there is nothing but names, and most of them lie.
    assert max(weights(heard(kinds, answers=150, judges=11), "honest")) == 0.0


def test_an_anchor_outweighs_a_majority_of_liars() -> None:
    kinds = ["honest"] * 3 + ["flip"] * 7
    assert fmean(weights(heard(kinds, answers=300, judges=3), "flip")) > 0.8, "without one the majority is believed"
    anchored = Trust(anchors=["ci/tests"])
    rng = np.random.default_rng(1)
    for n in range(300):
        good = bool(rng.random() < 0.5)
        anchored.note(Feedback(trace_id=str(n), value=float(good), source="tests", by="ci"), "t")
        for s in rng.choice(10, 2, replace=False):
            anchored.note(Feedback(trace_id=str(n), value=told(kinds[s], good, rng), source=f"{kinds[s]}{s}"), "t")
    anchored.refresh()
    assert max(weights(anchored, "flip")) == 0.0
    assert min(weights(anchored, "honest")) > 0.9
    assert found(anchored, "ci/tests").weight == 1.0
    assert anchored.weight(Feedback(trace_id="x", value=1.0, source="tests")) < 1.0, (
        "a name alone is no anchor where keys are asked for"
    )


def test_who_turns_bad_loses_the_say() -> None:
    trust = heard(["honest"] * 8, answers=300, judges=3)
    before = found(trust, "honest7").weight
    turned = Trust(half_life=300.0)
    rng = np.random.default_rng(5)
    for n in range(900):
        k = int(rng.integers(5))
        good = bool(rng.random() < 0.2 + 0.175 * k)
        for s in rng.choice(8, 3, replace=False):
            kind = "flip" if s == 7 and n > 300 else "honest"
            turned.note(Feedback(trace_id=str(n), value=told(kind, good, rng), source=f"honest{s}"), f"t{k}")
    turned.refresh()
    assert before > 0.9
    assert found(turned, "honest7").weight < 0.2
    assert found(turned, "honest0").weight > 0.9


def test_who_lies_first_and_corrects_it_later_is_held_to_the_lie() -> None:
    """The first judgement has taught; one that counts no more teaches nothing, and clears nobody."""
    plain, reviser = Trust(), Trust()
    for n in range(60):
        for source in "ab":
            for trust in (plain, reviser):
                trust.note(Feedback(trace_id=str(n), value=float(n % 2), source=source), "t")
        for trust in (plain, reviser):
            trust.note(Feedback(trace_id=str(n), value=float(1 - n % 2), source="c"), "t")
        reviser.note(Feedback(trace_id=str(n), value=float(n % 2), source="c"), "t", revised=True)
    plain.refresh()
    reviser.refresh()
    assert reviser.standings() == plain.standings()
    assert found(reviser, "c").weight == 0.0


def test_a_revision_that_counts_for_more_counts_as_far_as_it_teaches() -> None:
    """Unsure and wrong first, then sure and right: as with lessons, the surer one has the rest of the say and no more."""
    trust = Trust()
    for n in range(60):
        for source in "abc":
            trust.note(Feedback(trace_id=str(n), value=float(n % 2), source=source), "t")
        trust.note(Feedback(trace_id=str(n), value=float(1 - n % 2), source="d", confidence=0.1), "t")
        trust.note(Feedback(trace_id=str(n), value=float(n % 2), source="d"), "t", revised=True)
    trust.refresh()
    assert 0.7 < found(trust, "d").reliability < found(trust, "a").reliability


def test_a_revision_of_what_is_forgotten_counts_nothing() -> None:
    trust = Trust()
    trust.note(Feedback(trace_id="1", value=1.0, source="a"), "t", revised=True)
    trust.refresh()
    assert trust.standings() == []


def one_key(kinds: list[str], *, names: bool = False, answers: int = 400, seed: int = 0) -> Trust:
    """Honest users of one application, two an answer; a rival under a key of its own judges every second answer."""
    rng, trust = np.random.default_rng(seed), Trust()
    for n in range(answers):
        k = int(rng.integers(5))
        good = bool(rng.random() < 0.5 + 0.08 * k)
        if "flip" in kinds and n % 2:
            source = f"flip{n}" if names else "flip"
            trust.note(Feedback(trace_id=str(n), value=float(not good), source=source, by="rival"), f"t{k}")
        for s in rng.choice(8, 2, replace=False):
            value = told("honest", good, rng)
            trust.note(Feedback(trace_id=str(n), value=value, source=f"honest{s}", by="app"), f"t{k}")
        if n % 16 == 0:
            trust.refresh()
    trust.refresh()
    return trust


@pytest.mark.parametrize("seed", range(3))
def test_honest_users_of_one_key_keep_their_say(seed: int) -> None:
    assert min(weights(one_key(["honest"], seed=seed), "honest")) > 0.9
    assert min(weights(one_key(["honest", "flip"], seed=seed), "honest")) > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_a_new_name_for_each_lie_is_one_source_of_its_key(seed: int) -> None:
    trust = one_key(["honest", "flip"], names=True, seed=seed)
    assert min(weights(trust, "honest")) > 0.9
    assert [s.weight for s in trust.standings() if s.source.startswith("rival/")] == [0.0], "all its names together"
    assert trust.weight(Feedback(trace_id="x", value=0.0, source="yet another", by="rival")) == 0.0


def test_a_liar_among_the_users_of_one_key_is_found() -> None:
    kinds = ["honest"] * 8 + ["flip"] * 2
    trust = heard(kinds, answers=300, judges=2, keys=dict.fromkeys(range(10), "app"))
    assert max(weights(trust, "flip")) < 0.1
    assert fmean(weights(trust, "honest")) > 0.9


def test_no_key_pushes_the_votes_of_another_out_of_memory() -> None:
    """A flood of 3,000 votes by one key: the others have theirs, and are as reliable as before."""
    kinds = ["honest"] * 6
    trust = heard(kinds, answers=200, judges=2, keys={i: f"k{i}" for i in range(6)}, trust=Trust(memory=1000))
    before = weights(trust, "honest")
    for n in range(30):
        for j in range(100):
            trust.note(Feedback(trace_id=f"own{n}", value=0.5, source=f"n{j}", by="flood"), "t0")
    trust.refresh()
    assert sum(s.votes for s in trust.standings()) == 1000
    assert sum(s.votes for s in trust.standings() if not s.source.startswith("flood/")) == 400
    assert weights(trust, "honest") == pytest.approx(before, abs=0.15)
    assert min(weights(trust, "honest")) > 0.8


def test_memory_is_bounded_and_what_is_learned_again_is_the_same() -> None:
    trust = heard(MIXED, answers=300, judges=3, trust=Trust(memory=500))
    assert sum(s.votes for s in trust.standings()) == 500
    before = trust.standings()
    trust.refresh()
    assert trust.standings() == before


def test_re_asks_are_a_source_of_their_own() -> None:
    trust = Trust()
    for n in range(60):
        for source in "abc":
            trust.note(Feedback(trace_id=str(n), value=float(n % 2), source=source), "t")
        trust.note(Feedback(trace_id=f"{n}", value=0.0, source="app", kind="reask"), "t")
    trust.refresh()
    assert trust.weight(Feedback(trace_id="x", value=0.0, source="app", kind="reask")) < 0.3
    assert trust.weight(Feedback(trace_id="x", value=0.0, source="app")) == pytest.approx(COLD)


def test_intervals_hold_the_truth() -> None:
    """Honest sources are mistaken about one in ten, so their reliability is 0.8; 95% intervals of 200 of them hold it nine times in ten."""
    held = []
    for seed in range(10):
        trust = heard(["honest"] * 20, answers=400, judges=4, seed=seed)
        held += [s.low <= 0.8 <= s.high for s in trust.standings()]
    assert len(held) == 200
    assert fmean(held) > 0.9
