import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.embeddings.hashing import READ, Hashing, signs
from fairlead.errors import ConfigError

TEXT = "What is 12+345? Reverse: Straße, 東京タワー."
GOLDEN = "2efe0297ff1bf1b0"


def cosine(a: str, b: str, **arguments: object) -> float:
    embedder = Hashing(**arguments)  # type: ignore[arg-type]
    return float(embedder.embed(a) @ embedder.embed(b))


def test_golden_bytes() -> None:
    # The arithmetic is exact or elementwise, so these bytes hold on every machine; stored predictors depend on them.
    assert hashlib.sha256(Hashing().embed(TEXT).tobytes()).hexdigest()[:16] == GOLDEN


def test_other_processes_agree() -> None:
    code = (
        "import hashlib; from fairlead.embeddings.hashing import Hashing; "
        f"print(hashlib.sha256(Hashing().embed({TEXT!r}).tobytes()).hexdigest()[:16])"
    )
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert out.stdout.strip() == GOLDEN


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_unit_or_zero(text: str) -> None:
    v = Hashing(size=64).embed(text)
    assert v.shape == (64,)
    assert v.dtype == np.float32
    norm = float(np.linalg.norm(v))
    assert norm == pytest.approx(1.0, abs=1e-5) or (norm == 0.0 and not text.strip())


def test_nothing_to_embed_is_zero() -> None:
    for text in ("", " \n\t", "\u3000"):
        assert not Hashing().embed(text).any()


def test_lone_surrogates_are_read() -> None:
    assert Hashing().embed("a\ud800b").any()


def test_digits_are_masked_and_their_number_kept() -> None:
    assert cosine("what is 12+345?", "what is 67+890?") == pytest.approx(1.0, abs=1e-6)
    assert cosine("what is 12+345?", "what is 1+3?") < 0.99


def test_likeness_follows_the_words() -> None:
    near = cosine("sort the letters of banana", "sort the letters of orange")
    far = cosine("sort the letters of banana", "who wrote the Aeneid?")
    assert near > far + 0.2


def test_case_and_white_space_do_not_matter() -> None:
    assert cosine("Hello   World\n", "hello world") == pytest.approx(1.0, abs=1e-6)


def test_chinese_is_read_by_character() -> None:
    arguments = {"lengths": 0.0, "trigrams": 0.0}
    assert cosine("我爱北京", "北京很大", **arguments) > cosine("我爱北京", "苹果好吃", **arguments) + 0.2


@pytest.mark.parametrize("bag", ["words", "lengths", "trigrams"])
def test_each_bag_matters(bag: str) -> None:
    weights = {"words": 1.0, "lengths": 0.5, "trigrams": 0.5}
    assert not np.allclose(Hashing().embed(TEXT), Hashing(**{**weights, bag: 0.0}).embed(TEXT))
    none = dict.fromkeys(weights, 0.0)
    assert Hashing(**{**none, bag: 1.0}).embed(TEXT).any()


def test_a_long_text_is_read_at_both_ends_only() -> None:
    head, tail = "alpha " * READ, "omega " * READ
    one = Hashing().embed(head + "x" * 1_000_000 + tail)
    assert np.array_equal(one, Hashing().embed(head + "unlike " * 1_000 + tail))
    assert not np.allclose(one, Hashing().embed(head + "x" * 1_000_000))


def test_seed_and_size() -> None:
    assert Hashing(seed=1).embed(TEXT) @ Hashing(seed=0).embed(TEXT) < 0.5
    assert Hashing(size=256).embed(TEXT).shape == (Hashing(size=256).size,) == (256,)
    for size in (0, -64, 100, 2048):
        with pytest.raises(ConfigError, match="multiple of 64"):
            Hashing(size=size).embed(TEXT)


def test_signs_are_balanced_and_kept_safe() -> None:
    s = signs(128, 0)
    assert set(np.unique(s)) == {-1.0, 1.0}
    assert abs(s.mean()) < 5 / np.sqrt(s.size)
    with pytest.raises(ValueError, match="read-only"):
        s[0, 0] = 0.0


def test_spec_builds_it_again() -> None:
    assert Hashing(size=64, words=2.0).spec() == {
        "type": "hashing",
        "size": 64,
        "words": 2.0,
        "lengths": 0.5,
        "trigrams": 0.5,
        "seed": 0,
    }
