"""The corpus of repeats and near duplicates: what it says a pair is, that it is."""

import sys
from pathlib import Path

from fairlead.caches.anchors import words
from fairlead.embeddings.hashing import Hashing

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from corpora import cache as corpora


def test_corpus() -> None:
    pairs = corpora.corpus(seed=3)
    assert pairs == corpora.corpus(seed=3) != corpora.corpus(seed=4)
    assert {p.kind for p in pairs} == {*corpora.REPEATS, *corpora.NEAR}
    assert all((p.one == p.two) == (p.kind == "exact") for p in pairs)
    assert {p.family for p in pairs} == set(range(len(corpora.ALL)))
    assert not [p for p in pairs if "{" in p.one + p.two]
    swapped = [p for p in pairs if p.kind.startswith("names swapped")]
    assert all(words(p.one)[0] == words(p.two)[0] for p in swapped)


def test_anchors_refuse_what_they_promise() -> None:
    read = corpora.judge(corpora.corpus(seed=3), Hashing())
    everyone = read.family_P >= 0
    hit = read.hits(-1.0)
    for kind in ("number", "name", "names swapped", "names swapped, lower case"):
        assert read.rate(hit, kind, everyone) == 0.0
    assert read.rate(hit, "light", everyone) > 0.8
    assert read.rate(hit, "exact", everyone) == 1.0
    assert read.hits(None).sum() == read.equal_P.sum()
