"""The corpora of domains: one per seed, nothing judged was learned, and no instructions are left around recorded prompts."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from corpora import domain as corpora


def test_a_seed_gives_one_corpus() -> None:
    made = corpora.corpus(seed=3)
    assert made == corpora.corpus(seed=3) != corpora.corpus(seed=4)
    assert {label for _, label in made.train} == {label for _, label in made.test} == {"law", "finance", "health"}
    learned = {text for text, _ in made.train}
    assert not learned & {text for texts in made.outside.values() for text in texts}
    assert len(made.outside) == 5


def test_half_of_the_new_terms_were_never_learned() -> None:
    moved = corpora.corpus(seed=3, new_terms=True)
    learned = " ".join(text for text, _ in moved.train)
    assert "landlord" in learned
    assert "tenant" not in learned
    assert any("tenant" in text for text, _ in moved.test)


def test_recorded_benchmarks_are_apart_and_bare() -> None:
    if not os.environ.get("FAIRLEAD_DATA"):
        pytest.skip("FAIRLEAD_DATA is not set: no recorded prompts")
    chosen, held = corpora.recorded(Path(os.environ["FAIRLEAD_DATA"]), seed=0)
    assert (len(chosen), len(held)) == (6, 10)
    for c in (*chosen, *held):
        learned = {text for text, _ in c.train}
        assert not learned & {text for text, _ in c.test}
        assert not learned & {text for texts in c.outside.values() for text in texts}
        assert len(c.outside) >= 5
    around = ("Question:", "Problem:", "Choices:\n", "Options:\n", "multiple-choice question")
    assert not [text for c in held for text, _ in c.train if any(words in text for words in around)]
