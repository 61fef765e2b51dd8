"""The card of RouterRetriever, item by item: pilots, their mean, experts that come and go, shrinking to the best fixed expert, honest forecasts."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import StateError, UnknownName
from fairlead.lab import corpus
from fairlead.predictors.pilots import Pilots, e_max
from fairlead.predictors.statistics import unit
from fairlead.table import OutcomeTable
from fairlead.testing import check_predictor, observer_of
from fairlead.types import Reading, Signals, Target


def signals(x_D: np.ndarray) -> Signals:
    vector = Reading(vector=x_D.astype("<f4").tobytes(), confidence=float(x_D.any()))
    return Signals(readings={"embedding": vector, "length": Reading(value=1)})


def table(x_QD: np.ndarray, quality_QT: np.ndarray, sets: Sequence[str], names: str = "abcdefgh") -> OutcomeTable:
    rows = [
        (f"q{q}", f"prompt {q}", sets[q], names[t], quality_QT[q, t])
        for q in range(len(x_QD))
        for t in range(quality_QT.shape[1])
    ]
    columns = dict(zip(("query_id", "prompt", "dataset", "model", "quality"), zip(*rows, strict=True), strict=True))
    made = OutcomeTable.from_columns({k: list(v) for k, v in columns.items()}, source="made")
    object.__setattr__(made, "signals", [signals(x) for x in x_QD])
    return made


def domains(apart: float, *, per: int = 80, size: int = 16, seed: int = 0) -> tuple[OutcomeTable, np.ndarray]:
    """Three Gaussian domains around centres that far apart, each with one best expert; and who is best on each query."""
    rng = np.random.default_rng(seed)
    domain_Q = np.arange(3 * per) % 3
    x_QD = rng.normal(size=(3 * per, size)) * 0.5
    x_QD[np.arange(len(x_QD)), domain_Q] += apart
    quality_QT = rng.uniform(0.0, 0.5, (len(x_QD), 3))
    quality_QT[np.arange(len(x_QD)), domain_Q] += 0.5
    quality_QT[:, 0] += 0.02  # so that there is a best fixed one
    return table(x_QD, np.clip(quality_QT, 0.0, 1.0), [f"D{d}" for d in domain_Q]), domain_Q


def fitted(made: OutcomeTable, **more: object) -> Pilots:
    pilots = Pilots(**more)  # type: ignore[arg-type]
    pilots.fit(made)
    return pilots


def chosen(pilots: Pilots, made: OutcomeTable) -> np.ndarray:
    targets = [Target(name=n) for n in made.models]
    assert made.signals is not None
    said = [[f.quality for f in pilots.predict(s, targets)] for s in made.signals]
    return np.asarray(said).argmax(axis=1)


def by_hand(quality: float, *vectors: list[float], of: Sequence[int], use: str = "mean", n: int = 2) -> Pilots:
    """A predictor with pilots as they are given."""
    pilots = Pilots(use=use, n=n)  # type: ignore[arg-type]
    experts = max(of) + 1
    pilots.targets_, pilots.costs_ = list("abcdefgh"[:experts]), {}
    pilots.pilots_, pilots.of_ = np.asarray(vectors, dtype=float), np.asarray(of)
    pilots.sets_, pilots.counts_ = ["D"] * len(of), np.ones(len(of), dtype=np.int64)
    pilots.mean_, pilots.seen_ = np.full(experts, quality), np.full(experts, 9.0)
    pilots.rank_, pilots.rank_sd_ = 0.9 - 0.1 * np.arange(experts), np.full(experts, 0.01)
    pilots.routes_, pilots.gain_ = True, np.zeros(2)
    return pilots


def test_check_predictor() -> None:
    check_predictor(Pilots)
    check_predictor(lambda: Pilots(use="max"))
    check_predictor(lambda: Pilots(use="top", n=2))


# --------------------------------------------------------------------------------------------------------- the pilots


def test_each_pilot_is_the_mean_of_its_group_and_empty_groups_give_none() -> None:
    made, _ = domains(1.0)
    pilots = fitted(made)
    assert made.signals is not None
    x_QD = unit(np.stack([np.frombuffer(s.readings["embedding"].vector, "<f4").astype(float) for s in made.signals]))
    found = 0
    for name in ("D0", "D1", "D2"):
        rows = np.flatnonzero(np.asarray(made.datasets) == name)
        best = e_max(made.quality_QM[rows])
        for t in range(3):
            group = rows[best == t]
            at = [i for i, (s, e) in enumerate(zip(pilots.sets_, pilots.of_, strict=True)) if (s, e) == (name, t)]
            assert len(at) == bool(len(group))
            if at:
                found += 1
                assert pilots.pilots_[at[0]] == pytest.approx(x_QD[group].mean(axis=0))
                assert pilots.counts_[at[0]] == len(group)
    assert found == len(pilots.of_)
    assert found <= 3 * 3
    assert pilots.counts_.sum() == len(made)


def test_one_that_is_never_best_has_no_pilot_and_is_never_chosen() -> None:
    made, _ = domains(3.0)
    worst = made.quality_QM.copy()
    worst[:, 2] = 0.0
    made = table(
        np.stack([np.frombuffer(s.readings["embedding"].vector, "<f4") for s in made.signals or ()]),
        worst,
        [str(d) for d in made.datasets],
    )
    pilots = fitted(made)
    assert 2 not in pilots.of_
    assert 2 not in chosen(pilots, made)


def test_the_mean_over_pilots_not_the_max_and_both_can_be_had() -> None:
    # a: one pilot on the query and one far off; b: two that are rather near.
    vectors, of = ([1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.8, -0.6]), (0, 0, 1, 1)
    query = np.asarray([1.0, 0.0])
    means_, most, top = (by_hand(0.5, *vectors, of=of, use=u).scores(query) for u in ("mean", "max", "top"))
    assert means_ == pytest.approx([0.5, 0.8])
    assert most == pytest.approx([1.0, 0.8])
    assert top == pytest.approx([0.5, 0.8])
    assert by_hand(0.5, *vectors, of=of, use="top", n=1).scores(query) == pytest.approx(most)


def test_normalised_embeddings_make_cosine_the_dot_product_and_length_does_not_matter() -> None:
    pilots = by_hand(0.5, [3.0, 0.0], [0.0, 0.1], of=(0, 1))
    assert pilots.scores(np.asarray([5.0, 5.0])) == pytest.approx([0.5**0.5] * 2)


def test_a_zero_vector_falls_back_to_the_best_fixed_expert() -> None:
    made, _ = domains(3.0)
    pilots = fitted(made)
    said = pilots.predict(signals(np.zeros(16)), [Target(name=n) for n in made.models])
    assert [f.quality for f in said] == pytest.approx(pilots.mean_.tolist())


# ----------------------------------------------------------------------------------------------- who comes and goes


@given(st.integers(0, 1000), st.integers(0, 3))
def test_removing_an_expert_never_changes_the_order_of_the_others(seed: int, gone: int) -> None:
    rng = np.random.default_rng(seed)
    pilots = by_hand(0.5, *rng.normal(size=(8, 4)).tolist(), of=(0, 1, 2, 3, 0, 1, 2, 3))
    query = rng.normal(size=4)
    before = [pilots.targets_[t] for t in np.argsort(-pilots.scores(query))]
    name = pilots.targets_[gone]
    pilots.remove(name)
    after = [pilots.targets_[t] for t in np.argsort(-pilots.scores(query))]
    assert after == [n for n in before if n != name]


def test_adding_then_removing_is_the_identity() -> None:
    made, _ = domains(3.0)
    known = fitted(made.with_models(["a", "b"]))
    before = known.digest()
    known.adopt(Target(name="c"), made)
    assert known.digest() != before
    assert (chosen(known, made) == 2).sum() > 60
    known.remove("c")
    assert known.digest() == before


def test_an_expert_that_joins_is_chosen_where_it_is_best_without_a_new_fit() -> None:
    made, domain_Q = domains(3.0)
    known = fitted(made.with_models(["a", "b"]))
    known.adopt(Target(name="c"), made)
    assert (chosen(known, made) == domain_Q).mean() > 0.9


def test_a_duplicate_expert_splits_ties_deterministically() -> None:
    made, _ = domains(3.0)
    x_QD = np.stack([np.frombuffer(s.readings["embedding"].vector, "<f4") for s in made.signals or ()])
    twice = np.column_stack([made.quality_QM, made.quality_QM[:, 1]])
    pilots = fitted(table(x_QD, twice, [str(d) for d in made.datasets]))
    assert 3 not in pilots.of_
    assert pilots.pilots_ == pytest.approx(fitted(made).pilots_)
    assert e_max(np.asarray([[0.5, 0.5], [0.2, 0.9], [np.nan, np.nan]])).tolist() == [1, 1, -1]


def test_what_cannot_be_removed() -> None:
    pilots = by_hand(0.5, [1.0, 0.0], of=(0,))
    with pytest.raises(StateError, match="only expert"):
        pilots.remove("a")
    with pytest.raises(UnknownName, match="expert"):
        pilots.remove("z")


# ------------------------------------------------------------------------------------------------ what it is worth


def test_separated_domains_are_told_apart_in_more_than_95_percent() -> None:
    train, _ = domains(3.0, per=100)
    test, domain_Q = domains(3.0, per=100, seed=1)
    pilots = fitted(train)
    assert pilots.routes_
    assert (chosen(pilots, test) == domain_Q).mean() > 0.95


@pytest.mark.parametrize("seed", range(4))
def test_domains_that_overlap_fully_fall_back_to_the_best_fixed_expert(seed: int) -> None:
    train, _ = domains(0.0, seed=seed)
    pilots = fitted(train, sure=2.0)
    assert not pilots.routes_
    test, _ = domains(0.0, seed=seed + 100)
    assert set(chosen(pilots, test).tolist()) == {int(pilots.mean_.argmax())}


def lookups(n: int, seed: int, split: str) -> OutcomeTable:
    rows = corpus.retrieval_table(n, seed, split=split)  # type: ignore[arg-type]
    made = OutcomeTable.from_columns({k: [r[k] for r in rows] for k in rows[0]}, source="lookups")
    return made.observed(observer_of(Pilots().needs), Pilots().needs)


@pytest.fixture(scope="module")
def on_lookups() -> tuple[Pilots, OutcomeTable]:
    return fitted(lookups(800, 0, "train")), lookups(400, 1, "test")


def test_on_replay_it_lies_between_the_best_fixed_and_the_oracle(on_lookups: tuple[Pilots, OutcomeTable]) -> None:
    pilots, test = on_lookups
    quality_QT = test.quality_QM
    routed = quality_QT[np.arange(len(test)), chosen(pilots, test)].mean()
    fixed, oracle = quality_QT[:, int(pilots.mean_.argmax())].mean(), quality_QT.max(axis=1).mean()
    assert fixed <= routed <= oracle
    closed = (routed - fixed) / (oracle - fixed)
    assert 0.4 < closed < 0.8


def test_forecasts_mean_what_they_say_and_their_argmax_is_the_rule(on_lookups: tuple[Pilots, OutcomeTable]) -> None:
    pilots, test = on_lookups
    targets = [Target(name=n) for n in test.models]
    said = np.asarray([[f.quality for f in pilots.predict(s, targets)] for s in test.signals or ()])
    rows = np.arange(len(test))
    rule = np.asarray([pilots.scores(pilots.features.read(s)).argmax() for s in test.signals or ()])
    assert (said.argmax(axis=1) == rule).all()
    order = np.argsort(-said, axis=1)
    for rank in range(len(targets)):
        observed = test.quality_QM[rows, order[:, rank]].mean()
        assert said[rows, order[:, rank]].mean() == pytest.approx(observed, abs=0.06)


def test_forecasts_fall_strictly_by_rank_even_where_what_was_seen_does_not() -> None:
    made, _ = domains(3.0)
    pilots = fitted(made)
    assert (np.diff(pilots.rank_) < 0.0).all()
    pilots._judge(np.asarray([[0.1, 0.9], [0.1, 0.9]]), np.asarray([0, 0]), np.asarray([[0, 1], [0, 1]]))
    assert pilots.rank_[0] > pilots.rank_[1]
    assert not pilots.routes_
