"""Domains: what is known is named, what is not is refused, and the threshold keeps its promise. Checks of the card without models."""

import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fairlead import conditions
from fairlead.component import pack, unpack
from fairlead.detect import widemlp
from fairlead.embeddings.base import Embedder
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import ConfigError, NotFitted
from fairlead.signals.base import Observer
from fairlead.signals.domain import Domain
from fairlead.testing import check_signal
from fairlead.types import Query, Reading, Signals

# Three vocabularies that share nothing but their function words, and a fourth that nobody learns.
TOPICS = {
    "Law": "contract court tenant lease verdict plaintiff appeal clause lawsuit custody",
    "money-talk": "loan dividend pension broker mortgage equity audit invoice bond savings",
    "health": "fever rash dosage insulin migraine vaccine kidney cough allergy biopsy",
}
UNSEEN = "zxqv wkrtz vbnmq jjkpo gfdws qqplm nnbvx ttrwq lkjhg pppoi"
AROUND = [
    "what about {} and {}",
    "is my {} bad for the {}",
    "how long does a {} last with a {}",
    "can the {} change my {}",
]


def texts(words: str, n: int, seed: int) -> list[str]:
    r = random.Random(seed)
    return [r.choice(AROUND).format(*r.sample(words.split(), 2)) for _ in range(n)]


def examples(n: int = 60, seed: int = 0) -> tuple[list[str], list[str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for k, (name, words) in enumerate(TOPICS.items()):
        pairs += [(text, name) for text in texts(words, n, seed + k)]
    random.Random(seed).shuffle(pairs)
    return [text for text, _ in pairs], [name for _, name in pairs]


def taught(**arguments: object) -> Domain:
    made = Domain(**{"features": 4096, "hidden": 32, "epochs": 8, **arguments})  # type: ignore[arg-type]
    made.fit(*examples())
    return made


@pytest.fixture(scope="module")
def signal() -> Domain:
    return taught()


def read(signal: Domain, text: str) -> Reading:
    return signal.read(Query.ask(text, id="q"))


def test_taught_signals_keep_the_contract(signal: Domain) -> None:
    check_signal(signal.copy)
    check_signal(lambda: taught(embedder=Hashing(size=64), epochs=4))


def test_own_topics_are_named_and_others_refused(signal: Domain) -> None:
    right = [read(signal, text).value == name for text, name in zip(*examples(seed=50), strict=True)]
    assert np.mean(right) > 0.85
    assert all(read(signal, text).value is None for text in texts(UNSEEN, 50, 3))
    foreign = ["hvorfor skal vi altid høre på det her vrøvl", "warum fährt heute kein Zug", "почему никто не отвечает"]
    assert all(read(signal, text).parts["in_domain"] is False for text in foreign)


@pytest.mark.parametrize("score", ["support", "probability", "energy", "density"])
def test_a_text_without_a_known_feature_is_refused_whatever_the_score(signal: Domain, score: str) -> None:
    other = Domain(**{**signal.params(), "score": score, "refuse": 0.0})
    other.load(signal.state())
    other.recalibrate(texts(TOPICS["health"], 20, 9))
    # No threshold holds it back, and the net's biases alone are made sure.
    other.net_ = {**other.net_, "b2_C": np.array([9.0, 0.0, 0.0], np.float32)}
    for text in ("qqqqqqq", "語", "", "  "):
        reading = read(other, text)
        assert reading.value is None, text
        assert reading.parts["in_domain"] is False
        assert reading.confidence == 1.0
    assert read(other, texts(TOPICS["health"], 1, 10)[0]).value is not None


def test_a_higher_threshold_refuses_no_less(signal: Domain) -> None:
    some = [*examples(n=15, seed=70)[0], *texts(UNSEEN, 15, 4), *texts(UNSEEN + " " + TOPICS["Law"], 15, 5)]
    before: set[str] | None = None
    for t in np.linspace(0.0, 1.01, 20):
        copy = signal.copy()
        copy.threshold_ = float(t)
        accepted = {text for text in some if read(copy, text).value is not None}
        assert before is None or accepted <= before
        before = accepted
    assert not before


def test_the_threshold_refuses_at_most_the_share_on_average() -> None:
    # Split conformal: over draws of calibration and fresh texts of one kind, the mean share refused is at most `refuse`.
    base = taught(refuse=0.2, enough=1.0)
    pool = [text for k, words in enumerate(TOPICS.values()) for text in dict.fromkeys(texts(words, 900, 100 + k))]
    accepted = {text: base._score(*base._look(widemlp.bag(text))) for text in pool}
    shares = []
    for draw in range(200):
        some = random.Random(draw).sample(pool, 99 + 60)
        base._calibrate([accepted[text] for text in some[:99]])
        shares.append(np.mean([accepted[text] < base.threshold_ for text in some[99:]]))
    assert np.mean(shares) <= 0.2 + 4.0 * np.std(shares) / np.sqrt(len(shares))
    # Ties (equal scores) may make it less, but not nothing.
    assert np.mean(shares) > 0.1


def test_recalibration_by_fresh_traffic_keeps_the_net(signal: Domain) -> None:
    strict = Domain(**{**signal.params(), "refuse": 0.5, "enough": 1.0})
    strict.load(signal.state())
    fresh = texts(TOPICS["Law"], 200, 77)
    strict.recalibrate(fresh)
    assert strict.threshold_ > signal.threshold_
    assert 0.3 <= np.mean([read(strict, text).value is None for text in fresh]) <= 0.5
    assert pack(strict.net_) == pack(signal.net_)
    with pytest.raises(ConfigError, match="give in-domain texts"):
        strict.recalibrate([])


def test_who_is_known_well_enough_is_never_refused() -> None:
    # Examples from templates: nearly all of them score alike, and a tenth would be refused for next to nothing.
    strict, kind = taught(enough=1.0, epochs=24), taught(enough=0.6, epochs=24)
    assert kind.threshold_ == 0.6 < strict.threshold_
    said, _ = examples(seed=50)
    refused = [np.mean([read(s, text).value is None for text in said]) for s in (strict, kind)]
    assert refused[1] < refused[0] < 0.2
    assert all(read(kind, text).value is None for text in texts(UNSEEN, 30, 3))


def test_examples_of_no_domain_are_used() -> None:
    said, labels = examples()
    chess = texts("pawn rook bishop castling gambit endgame queen knight", 60, 8)
    plain, told = (
        Domain(epochs=8, hidden=32, features=4096, refuse=0.0),
        Domain(epochs=8, hidden=32, features=4096, refuse=0.0),
    )
    plain.fit(said, labels)
    told.fit([*said, *chess], [*labels, *(["none", None] * 30)])
    held = texts("pawn rook bishop castling gambit endgame queen knight", 40, 9)
    assert np.mean([read(told, text).value is None for text in held]) > 0.9
    assert np.mean([read(plain, text).value is None for text in held]) < 0.5
    reading = read(told, held[0])
    assert "none" not in reading.parts
    assert set(reading.parts) == {"in_domain", "score", "law", "money_talk", "health"}
    assert set(told.ranges()["value"].among or ()) == {"Law", "money-talk", "health"}
    # One domain against the rest.
    alone = Domain(epochs=8, hidden=32, features=4096)
    alone.fit([*texts(TOPICS["Law"], 60, 1), *chess], ["law"] * 60 + [None] * 60)
    assert read(alone, texts(TOPICS["Law"], 1, 2)[0]).value == "law"
    assert read(alone, held[0]).value is None


def test_probabilities_are_calibrated() -> None:
    # A third of the labels is random: a calibrated classifier is sure of about .78, not of all.
    said, labels = examples(n=200, seed=5)
    r = random.Random(1)
    noisy = [r.choice([*TOPICS]) if r.random() < 1 / 3 else name for name in labels]
    signal = Domain(epochs=8, hidden=32, features=4096)
    signal.fit(said, noisy)
    readings = [read(signal, text) for text in examples(n=60, seed=90)[0]]
    top = [max(float(r.parts[key]) for key in ("law", "money_talk", "health")) for r in readings]
    assert 0.65 < np.mean(top) < 0.9
    for reading in readings:
        assert sum(float(reading.parts[key]) for key in ("law", "money_talk", "health")) == pytest.approx(1.0)


def test_all_right_is_no_proof_of_certainty(signal: Domain) -> None:
    # Some 180 held-out texts, none wrong: sure to about 1 in 182, not to 1 in 10^30.
    top = [
        max(float(read(signal, text).parts[key]) for key in ("law", "money_talk", "health"))
        for text in examples(seed=50)[0]
    ]
    assert 0.97 < np.median(top) < 0.9999


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80) | st.sampled_from(examples()[0]))
def test_readings_keep_within_ranges_and_laws(text: str) -> None:
    signal = SHARED
    reading = read(signal, text)
    ranges = signal.ranges()
    assert set(reading.parts) == signal.parts() == set(ranges) - {"value"}
    assert reading.value is None or reading.value in (ranges["value"].among or ())
    for key, value in reading.parts.items():
        low, high = ranges[key].low, ranges[key].high
        assert low is None or low <= float(value)
        assert high is None or float(value) <= high + 1e-12
    renamed = Signals(
        readings={"value": Reading(value=reading.value), **{k: Reading(value=v) for k, v in reading.parts.items()}}
    )
    for law in signal.laws():
        assert conditions.holds(conditions.parse(law), renamed), law


SHARED = taught()


def test_the_same_examples_teach_the_same_and_state_is_small(signal: Domain) -> None:
    again = taught()
    assert again.digest() == signal.digest()
    assert len(pack(signal.state())) < 400_000
    other = Domain(**signal.params())
    other.load(unpack(pack(signal.state())))
    assert read(other, "is my lease bad for the tenant").parts == read(signal, "is my lease bad for the tenant").parts


def test_one_byte_weights_say_what_the_bag_alone_says(signal: Domain) -> None:
    # Cross-checked with a plain computation from the definition.
    found = widemlp.bag("is my lease bad for the tenant")
    net = signal.net_
    at = {int(h): i for i, h in enumerate(net["vocabulary_V"])}
    x, square = {}, 0.0
    for h, weight in zip(found.hash_F, found.weight_F, strict=True):
        idf = net["idf_V"][at[int(h)]] if int(h) in at else net["unseen"]
        square += (weight * idf) ** 2
        if int(h) in at:
            x[at[int(h)]] = weight * idf
    pre = sum(v / np.sqrt(square) * net["w1_VH"][i] * net["scale_H"] for i, v in x.items()) + net["b1_H"]
    expected = np.maximum(pre, 0.0) @ net["w2_HC"] + net["b2_C"]
    seen = widemlp.look(net, found)
    assert seen.logit_C == pytest.approx(expected, abs=1e-4)
    assert seen.known == pytest.approx(len(x) / len(found.hash_F))


def test_digits_case_and_length_do_not_matter_to_a_bag() -> None:
    assert (widemlp.bag("Clause 12 OF 34").hash_F == widemlp.bag("clause 98 of 76").hash_F).all()
    long = "lease " * 5_000
    assert len(widemlp.bag(long).hash_F) < 20
    assert not len(widemlp.bag(" \n").hash_F)


def test_over_an_embedder() -> None:
    signal = taught(embedder=Hashing(size=128), refuse=0.05, epochs=40)
    right = [read(signal, text).value == name for text, name in zip(*examples(seed=50), strict=True)]
    assert np.mean(right) > 0.8
    assert not signal.slow
    assert read(signal, " ").value is None
    Domain.check(signal)
    swapped = Domain(**{**signal.params(), "embedder": Hashing(size=64)})
    swapped.load(signal.state())
    with pytest.raises(ConfigError, match="128 numbers, not 64"):
        swapped.check()


class Down(Embedder):
    """An embedder that may be down: it then gives zeros, as `endpoint` does."""

    def __init__(self, *, up: bool = True) -> None:
        self.up = up

    @property
    def size(self) -> int:
        return 64

    @property
    def slow(self) -> bool:
        return True

    @property
    def remembers(self) -> int:
        return 0

    def _embed(self, text: str) -> NDArray[np.float32]:
        return Hashing(size=64).embed(text).copy() if self.up else np.zeros(64, np.float32)


def test_an_embedder_that_is_down_makes_nobody_a_stranger() -> None:
    signal = taught(embedder=Down())
    assert signal.slow
    assert signal.ranges()["in_domain"].null
    assert isinstance(signal.embedder, Down)
    signal.embedder.up = False
    reading = read(signal, "is my lease bad for the tenant")
    assert reading.late
    assert reading.confidence == 0.0
    with pytest.raises(ConfigError, match="no vector for 180 of 180"):
        signal.fit(*examples())
    with pytest.raises(ConfigError, match="no vector for 1 of 1"):
        signal.recalibrate(["what about a lease"])


def test_a_few_of_one_domain_among_many_of_none() -> None:
    # Every fold holds some of each class: a threshold can always be learned.
    r = random.Random(0)
    said = [*texts(TOPICS["Law"], 12, 1), *(" ".join(r.choices("abcdefgh", k=6)) for _ in range(600))]
    signal = Domain(features=512, hidden=8, epochs=1)
    signal.fit(said, ["law"] * 12 + [None] * 600)
    assert signal.fitted


def test_large_sets_are_split_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fairlead.signals import domain

    taught_by: list[int] = []
    train = widemlp.train

    def counting(some: list[widemlp.Bag], *args: object, **kwargs: object) -> widemlp.Net:
        taught_by.append(len(some))
        return train(some, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(widemlp, "train", counting)
    taught(epochs=1)
    assert taught_by[-1] == 180
    assert len(taught_by) == domain.FOLDS + 1
    taught_by.clear()
    monkeypatch.setattr(domain, "SPLIT", 100)
    taught(epochs=1)
    assert len(taught_by) == 1
    assert taught_by[0] < 180


def test_untaught_it_says_how_to_teach_it() -> None:
    signal = Domain()
    assert not signal.fitted
    for use in (signal.ranges, signal.laws, signal.parts, signal.figures, lambda: read(signal, "x")):
        with pytest.raises(NotFitted, match="fairlead train-signal domain"):
            use()
    with pytest.raises(ConfigError, match="fairlead train-signal domain"):
        signal.check()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["a"] * 24, "of 1 domain:"),
        (["none"] * 24, "of 0 domains"),
        (["a"] * 12 + ["none"] * 11, "but 23 labels"),
        (["a"] * 20 + ["b"] * 4, "'b' has 4 different"),
        (["A!"] * 12 + ["a"] * 12, "like that of 'A!'"),
        (["score"] * 12 + ["a"] * 12, "a key of its own"),
        (["any"] * 12 + ["a"] * 12, "a key of its own"),
        (["Not?"] * 12 + ["a"] * 12, "a key of its own"),
        (["!!"] * 12 + ["a"] * 12, "no letter or digit"),
    ],
)
def test_examples_that_cannot_teach(labels: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Domain().fit([f"text number {'x' * i}" for i in range(24)], labels)


async def test_rules_can_block_what_is_none_of_the_domains(signal: Domain) -> None:
    observer = Observer(signals={"domain": signal})
    block = conditions.parse({"domain.in_domain": False})
    for text, wanted in (("is my lease bad for the tenant", False), (UNSEEN, True)):
        signals = await observer.observe(Query.ask(text), ["domain"])
        assert conditions.holds(block, signals) is wanted


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ConfigError, match=r"pip install 'fairlead\[bench\]'"):
        Domain().fit([f"text number {'x' * i}" for i in range(24)], ["a"] * 12 + ["b"] * 12)
