"""The corpus of supported and unsupported answers: its labels are what they say, and its marks can be missed."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from fairlead.detect.support import Claim, Support, Verdict, claims


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    module: ModuleType = importlib.import_module("corpora.support")
    whole = module.corpus
    monkeypatch.setattr(module, "corpus", lambda **more: whole(**{**more, "per_domain": 12}))
    return module


def test_a_seed_gives_one_corpus_and_domains_are_apart(corpora: ModuleType) -> None:
    assert corpora.corpus(seed=1) == corpora.corpus(seed=1)
    assert corpora.corpus(seed=1) != corpora.corpus(seed=2)
    assert not set(corpora.TRAIN) & set(corpora.TEST)
    forms = [{f.light for d in domains.values() for f in d.facts} for domains in (corpora.TRAIN, corpora.TEST)]
    assert not forms[0] & forms[1]


def test_labels_are_what_they_say(corpora: ModuleType) -> None:
    seen = set()
    for example in corpora.corpus(seed=0):
        numbers = set(re.findall(r"\d+", example.document))
        for sentence, kind in zip(example.sentences, example.kinds, strict=True):
            seen.add(kind)
            assert "{" not in sentence
            own = set(re.findall(r"\d+", sentence))
            if kind in corpora.SUPPORTED or kind == "number of another fact":
                assert own <= numbers, (kind, sentence)
            if kind == "copy":
                assert sentence in example.document
            if kind in corpora.UNSUPPORTED:
                assert sentence not in example.document, (kind, sentence)
            if kind == "number":
                assert not own <= numbers
        assert len(claims(" ".join(example.sentences))) == len(example.sentences)
    assert seen == {*corpora.SUPPORTED, *corpora.UNSUPPORTED}


def test_the_marks_are_held_and_can_be_missed(corpora: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(corpora.measure(seed=0).marks.values())

    def blind(answer: str, texts: object, *, bar: float) -> Support:
        """Find everything supported, but for a claim now and then."""
        return Support(
            claims=tuple(
                Claim(start=s, end=e, text=answer[s:e], verdict=Verdict(score=1.0), supported=e % 7 != 0)
                for s, e in claims(answer)
            )
        )

    monkeypatch.setattr(corpora, "judged", blind)
    assert sum(corpora.measure(seed=0).marks.values()) <= 1
