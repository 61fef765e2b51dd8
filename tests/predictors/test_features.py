import math

import numpy as np
import pytest

from fairlead import catalog
from fairlead.component import finite, pack, unpack
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import NotFitted, StateError, TableError
from fairlead.predictors.features import COUNT_SCALE, Features, deviations
from fairlead.signals.base import Observer
from fairlead.signals.embedding import Embedding
from fairlead.signals.language import Language
from fairlead.signals.length import Length
from fairlead.signals.marks import Marks
from fairlead.signals.ngrams import BLOCK, Ngrams, counts
from fairlead.signals.style import Style
from fairlead.types import Message, Query, Reading, Scalar, Signals

OBSERVER = Observer(
    signals={
        "embedding": Embedding(embedder=Hashing(size=64)),
        "length": Length(),
        "marks": Marks(),
        "language": Language(),
        "ngrams": Ngrams(),
        "style": Style(),
    }
)
TEXTS = [
    "what is 12+345?",
    "reverse: abcd",
    "Расскажи историю",
    "def f(x):\n    return x",
    "tell me about the sea " * 20,
    "你好",
]
SIGNALS = [OBSERVER.read(Query.ask(t, id=t), OBSERVER.signals) for t in TEXTS]


def one(value: Scalar = None, *, vector: list[float] | None = None, **parts: bool | int | float | str) -> Signals:
    data = b"" if vector is None else np.array(vector, "<f4").tobytes()
    return Signals(readings={"s": Reading(value=value, parts=parts, vector=data)})


def fitted(readings: list[Signals], **arguments: object) -> Features:
    features = Features(signals=("s",), **arguments)  # type: ignore[arg-type]
    features.fit(readings)
    return features


def test_catalogue_and_spec() -> None:
    assert catalog.find("features", "features") is Features
    assert Features(bias=True).spec() == {
        "type": "features",
        "signals": ["ngrams", "style", "length", "marks"],
        "scale": True,
        "bias": True,
        "categories": 32,
        "project": 64,
    }


def test_needs_always_has_length() -> None:
    assert Features(signals=("marks",)).needs == ("marks", "length")
    assert Features(signals=("length", "marks")).needs == ("length", "marks")


@pytest.mark.parametrize("act", [lambda f: f.read(SIGNALS[0]), lambda f: f.read_all(SIGNALS), lambda f: f.size])
def test_not_fitted(act: object) -> None:
    with pytest.raises(NotFitted, match="fit"):
        act(Features())  # type: ignore[operator]


def test_standardised_and_balanced() -> None:
    features = Features(signals=("embedding", "length", "marks", "language"))
    features.fit(SIGNALS)
    x_QD = features.read_all(SIGNALS)
    assert x_QD.shape == (len(TEXTS), features.size)
    assert x_QD.mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    hand, vector = x_QD[:, :-64].var(axis=0), x_QD[:, -64:].var(axis=0)
    assert set(np.round(hand, 9)) == {0.0, 1.0}
    assert vector.sum() == pytest.approx(hand.sum())
    # One factor for the whole vector: its geometry stays.
    raw = np.array([np.frombuffer(s.readings["embedding"].vector, "<f4") for s in SIGNALS], np.float64)
    raw -= raw.mean(axis=0)
    ratio = x_QD[:, -64:][np.abs(raw) > 1e-6] / raw[np.abs(raw) > 1e-6]
    assert ratio == pytest.approx(ratio[0])


def test_read_is_a_row_of_read_all() -> None:
    for bias in (False, True):
        features = Features(bias=bias)
        features.fit(SIGNALS)
        for signals, row in zip(SIGNALS, features.read_all(SIGNALS), strict=True):
            assert np.array_equal(features.read(signals), row)
            assert len(row) == features.size
            assert not bias or row[-1] == 1.0


def test_the_order_of_queries_and_of_parts_does_not_matter() -> None:
    turned = [
        Signals(
            readings={
                n: Reading(value=r.value, parts=dict(reversed(r.parts.items())), vector=r.vector, bag=r.bag)
                for n, r in reversed(s.readings.items())
            }
        )
        for s in reversed(SIGNALS)
    ]
    a, b = Features(), Features()
    a.fit(SIGNALS)
    b.fit(turned)
    assert a.layout_ == b.layout_
    assert a.read(SIGNALS[1]) == pytest.approx(b.read(turned[-2]), abs=1e-9)


def test_state_round_trip() -> None:
    a, b = (Features(signals=("embedding", "length", "marks", "language"), bias=True) for _ in range(2))
    a.fit(SIGNALS)
    assert finite(a.state())
    b.load(unpack(pack(a.state())))
    assert a.digest() == b.digest()
    assert np.array_equal(a.read_all(SIGNALS), b.read_all(SIGNALS))
    assert np.array_equal(a.copy().read(SIGNALS[0]), a.read(SIGNALS[0]))


def test_kinds() -> None:
    features = fitted([one(3, a=True, b=0.5, c="x"), one(7, a=False, b=1, c="y")])
    assert features.layout_ == [
        ["s", "", "count", []],
        ["s", "a", "flag", []],
        ["s", "b", "number", []],
        ["s", "c", "category", ["x", "y"]],
    ]
    x_QD = features.read_all([one(3, a=True, b=0.5, c="x"), one(7, a=False, b=1, c="y")])
    assert x_QD == pytest.approx(np.array([[-1, 1, -1, 1, -1], [1, -1, 1, -1, 1]]))


def test_counts_are_compressed_and_keep_their_sign() -> None:
    features = Features(signals=("s",), scale=False)
    features.fit([one(-5), one(1_000_000)])
    assert features.read(one(-5)) == pytest.approx([-math.log(6) / COUNT_SCALE])


def test_missing_counts_as_the_mean() -> None:
    readings = [one(1, a=1.0, vector=[1, 0]), one(5, a=3.0, vector=[0, 1]), one(None, vector=[1, 1])]
    features = fitted(readings)
    assert features.read(Signals()) == pytest.approx(np.zeros(features.size))
    assert features.read(one(1, vector=[1, 0]))[1] == 0.0
    for odd in (math.nan, math.inf, "text", 10**400):
        assert features.read(one(odd, a=1.0, vector=[1, 0]))[0] == 0.0


def test_an_unknown_category_is_none_of_them() -> None:
    features = fitted([one("x"), one("y"), one(None)])
    none = (0.0 - 1 / 3) / math.sqrt(2 / 9)
    assert features.read(one("z")) == pytest.approx([none, none])
    assert features.read(one(None)) == pytest.approx([none, none])
    assert features.read(Signals()) == pytest.approx([0.0, 0.0])


def test_only_the_most_frequent_categories_get_a_column() -> None:
    features = fitted([one(v) for v in ["rare", "b", "b", "a", "a", "c", "c", "c"]], categories=3)
    assert features.layout_ == [["s", "", "category", ["c", "a", "b"]]]


def test_a_vector_that_failed_counts_as_the_mean() -> None:
    rng = np.random.default_rng(0)
    good = [one(vector=list(x)) for x in rng.normal(1.0, 0.3, size=(40, 4))]
    failed = Signals(readings={"s": Reading(vector=bytes(16), confidence=0.0)})
    a, b = fitted(good), fitted([*good, failed, failed])
    assert not a.read(failed).any()
    # Nor does it move the mean of a table.
    assert np.allclose(a.means_, b.means_)
    assert not fitted([failed]).read(failed).any()


def test_columns_that_never_change_are_harmless() -> None:
    features = fitted([one(4, a=True, vector=[1, 0])] * 3)
    assert features.read(one(4, a=True, vector=[1, 0])) == pytest.approx(np.zeros(4))
    assert np.isfinite(features.read(one(9, a=False, vector=[0, 1]))).all()


def test_vector_alone_has_unit_variance_on_average() -> None:
    rng = np.random.default_rng(0)
    x_QD = rng.normal(size=(50, 4)) * 1e-2
    features = fitted([one(vector=list(x)) for x in x_QD])
    assert features.read_all([one(vector=list(x)) for x in x_QD]).var(axis=0).mean() == pytest.approx(1.0, rel=1e-3)


def test_errors() -> None:
    with pytest.raises(TableError, match="at least one"):
        Features().fit([])
    with pytest.raises(TableError, match="'ngrams'"):
        Features().fit([OBSERVER.read(Query.ask("x"), ("length", "marks"))])
    with pytest.raises(TableError, match="differ in size"):
        fitted([one(vector=[1, 0]), one(vector=[1, 0, 0])])
    with pytest.raises(StateError, match="has 3 numbers where 2"):
        fitted([one(vector=[1, 0])]).read(one(vector=[1, 0, 0]))


def test_begin_fixes_the_layout_without_scaling() -> None:
    features = Features(signals=("embedding", "length", "language"), bias=True)
    features.begin(SIGNALS[0])
    x_D = features.read(SIGNALS[0])
    assert x_D[-65:-1] == pytest.approx(np.frombuffer(SIGNALS[0].readings["embedding"].vector, "<f4"))
    assert x_D[0] == pytest.approx(math.log1p(len(TEXTS[0])) / COUNT_SCALE)
    assert "category" not in [kind for _, _, kind, _ in features.layout_]
    assert (np.abs(x_D) <= 1.0).all()
    for s in SIGNALS:
        assert features.read(s).shape == (features.size,)
    with pytest.raises(TableError, match="'marks'"):
        Features(signals=("marks",)).begin(Signals())


@pytest.mark.parametrize("first", ["", "  "])
def test_a_first_query_without_text_lays_out_the_same(first: str) -> None:
    usual, blank = Features(), Features()
    usual.begin(SIGNALS[0])
    blank.begin(OBSERVER.read(Query.ask(first), OBSERVER.signals))
    assert blank.size == usual.size
    assert blank.vectors_ == usual.vectors_
    for s in SIGNALS:
        assert np.array_equal(blank.read(s), usual.read(s))


def test_characters() -> None:
    assert Features.characters(SIGNALS[1]) == len(TEXTS[1])
    chat = Query(id="c", messages=(Message(role="user", content="x" * 80_000), Message(role="user", content="ok")))
    assert Features.characters(OBSERVER.read(chat, ("length",))) == 80_002
    assert Features.characters(Signals()) == 0.0
    assert Features.characters(Signals(readings={"length": Reading()})) == 0.0


def of(texts: list[str]) -> list[Signals]:
    return [OBSERVER.read(Query.ask(t), ("ngrams", "length")) for t in texts]


def test_a_bag_counts_words_and_trigrams() -> None:
    feature, count = counts(Ngrams().read(Query.ask("the cat and the dog")).bag)
    assert sorted(feature) == list(feature)
    words = feature < BLOCK
    assert sorted(count[words]) == [1, 1, 1, 2]
    assert count[~words].sum() == len(" the cat and the dog ") - 2
    assert Ngrams().read(Query.ask("  ")).bag == b""


def test_a_trained_projection_tells_topics_apart_better_than_a_fixed_one() -> None:
    rng = np.random.default_rng(0)
    common = [f"w{i}" for i in range(200)]
    texts, topics = [], []
    for i in range(400):
        topics.append(i % 2)
        mark = ["harbour", "sail"] if i % 2 else ["violin", "chord"]
        texts.append(" ".join(rng.permutation([*rng.choice(common, 60), rng.choice(mark)])))
    topic = np.asarray(topics)

    def agreement(features: Features) -> float:
        x = np.array([features.read(s) for s in of(texts[200:])])
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        near = x @ x.T
        np.fill_diagonal(near, -2.0)
        return float((topic[200:][np.argsort(-near, axis=1)[:, :10]] == topic[200:, None]).mean())

    trained = Features(signals=("ngrams",), project=16)
    trained.fit(of(texts[:200]))
    fixed = Features(signals=("ngrams",))
    fixed.begin(of(texts[:1])[0])
    assert agreement(trained) > agreement(fixed) + 0.1
    again = Features(signals=("ngrams",), project=16)
    again.load(unpack(pack(trained.state())))
    assert np.array_equal(again.read(of(["a violin"])[0]), trained.read(of(["a violin"])[0]))


def test_one_query_is_enough_to_fit() -> None:
    features = Features(signals=("ngrams", "length"))
    features.fit(of(["what is 12+345?"]))
    assert np.isfinite(features.read(of(["and this?"])[0])).all()


def test_a_bag_that_was_not_read_counts_as_the_mean() -> None:
    features = Features(signals=("ngrams", "length"))
    features.fit(of(TEXTS))
    blank = features.read(OBSERVER.read(Query.ask("what is 12+345?"), ("length",)))
    full = features.read(of(["what is 12+345?"])[0])
    width = features.vectors_[0][1]
    assert not blank[-width:].any()
    assert full[-width:].any()
    assert not features.read(of(["  "])[0])[-width:].any()
    # Of a table without any text there is nothing to project, and nothing breaks.
    features.fit(of(["", " "]))
    assert np.isfinite(features.read(of(["text"])[0])).all()


def test_deviations_leave_rounding_small() -> None:
    x_QD = np.array([[1.0, 0.5, 1e-7, 2.0], [-1.0, -0.5, -1e-7, 2.0]])
    np.testing.assert_allclose(deviations(x_QD), [1.0, 0.5, 0.01, 0.01])
    np.testing.assert_allclose(deviations(np.ones((3, 2))), 1e-6)
    assert deviations(np.ones((3, 0))).shape == (0,)
