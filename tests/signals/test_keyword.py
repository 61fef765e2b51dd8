"""Groups of words by each method: RE2 patterns, any, all, none, BM25 and trigrams."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import pytest

from fairlead.errors import ConfigError
from fairlead.signals import keyword
from fairlead.signals.keyword import Keyword
from fairlead.testing import check_signal
from fairlead.types import Message, Query, Reading


def read(rule: Any, text: str) -> Reading:
    return Keyword(rules={"g": rule}).read(Query(id="q", messages=(Message(role="user", content=text),)))


@pytest.fixture
def linear() -> None:
    pytest.importorskip("re2", reason="pip install google-re2 to test patterns")


# ------------------------------------------------------------------------------------------------------------- patterns


@pytest.mark.usefixtures("linear")
@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("colou?r", "discoloration", True),
        ("É[a-z]+", "ÉTÉ ou été", True),
        ("^日.$", "日本", True),
        ("(a|b)c", "xbc", True),
        (r"\bcat\b", "concatenate", False),
        (r"\pL+!", "naïveté!", True),
        ("a\\.b", "a\ud800.b a.b", True),
    ],
)
def test_patterns(pattern: str, text: str, found: bool) -> None:
    assert read([f"re:{pattern}"], text).parts["g"] is found


@pytest.mark.usefixtures("linear")
@pytest.mark.parametrize(
    "pattern", [r"(a)\1", "(?=x)y", "(?<!x)y", "(", "[z-a]", "x{2000}", "((a{100}){100}){100}", "a*"]
)
def test_patterns_that_are_refused_say_why(pattern: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(pattern))) as e:
        Keyword(rules={"g": {"all": ["ok", f"re:{pattern}"]}}).check()
    assert e.value.path == "$.rules.g.all[1]"


@pytest.mark.usefixtures("linear")
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+b", "(x+x+)+y", "([a-z]+)*[0-9]", "(a*)*(b*)*c"])
def test_nested_quantifiers_do_not_blow_up(pattern: str) -> None:
    # Python's own engine would take longer than the universe has.
    for text in ("a" * 50_000 + "!", "x" * 50_000 + "!"):
        read([f"re:{pattern}"], text)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(ConfigError, match=r"pip install 'fairlead\[rules\]'"):
        Keyword(rules={"g": ["re:a"]}).check()
    assert Keyword(rules={"g": ["a"]}).read(Query.ask("a")).parts == {"g": True}


# ----------------------------------------------------------------------------------------------------- any, all and none


@pytest.mark.parametrize("text", ["", "court", "law", "law court", "outlaw courts"])
def test_any_all_none_are_or_and_nor(text: str) -> None:
    each = [read([w], text).parts["g"] for w in ("court", "law")]
    assert read({"any": ["court", "law"]}, text).parts == {"g": any(each)}
    assert read({"all": ["court", "law"]}, text).parts == {"g": all(each)}
    assert read({"none": ["court", "law"]}, text).parts == {"g": not any(each)}


# ----------------------------------------------------------------------------------------------------------------- bm25


def by_hand(entries: list[list[str]], text: set[str]) -> float:
    n, mean = len(entries), sum(map(len, entries)) / len(entries)
    best = 0.0
    for entry in entries:
        s = 0.0
        for w in set(entry) & text:
            holding = sum(w in e for e in entries)
            f = entry.count(w)
            idf = math.log(1 + (n - holding + 0.5) / (holding + 0.5))
            s += idf * f * 2.2 / (f + 1.2 * (1 - 0.75 + 0.75 * len(entry) / mean))
        best = max(best, s)
    return best


@pytest.mark.parametrize("text", ["", "a contract", "breach of the contract", "my Court case, court!", "termination"])
def test_bm25_is_the_formula(text: str) -> None:
    entries = ["breach of contract", "termination of a contract", "court court case"]
    found = read({"bm25": entries, "threshold": 0.7}, text).parts
    want = by_hand([e.split() for e in entries], set(re.findall(r"\w+", text.lower())))
    assert found["g_score"] == pytest.approx(want, abs=1e-12)
    assert found["g"] is (want >= 0.7)


def test_a_rare_word_says_more_than_a_frequent_one() -> None:
    rule = {"bm25": ["breach of contract", "end of contract", "sign a contract"]}
    score = [read(rule, text).parts["g_score"] for text in ("contract", "breach", "breach of contract")]
    assert score == sorted(score)
    assert score[0] < score[1]
    whole = read(rule, "sign a contract").parts["g_score"]
    assert Keyword(rules={"g": rule}).ranges()["g_score"].high == pytest.approx(whole)


# -------------------------------------------------------------------------------------------------------------- trigrams


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("a CONTRACT.", 1.0),
        ("a contrect", 5 / 11),
        ("a contrct", 5 / 10),
        ("a contrcat", 4 / 12),
        ("nothing", 0.0),
        ("", 0.0),
    ],
)
def test_trigrams_of_a_word(text: str, score: float) -> None:
    found = read({"trigram": ["contract"]}, text).parts
    assert found["g_score"] == pytest.approx(score)
    assert found["g"] is (score >= 0.4)


def test_a_typo_does_not_flip_the_route() -> None:
    rules: dict[str, Any] = {"exact": ["cancel my subscription"], "near": {"trigram": ["cancel my subscription"]}}
    signal = Keyword(rules=rules)
    typo = signal.read(Query.ask("Please cancle my subscripton today"))
    assert (typo.value, typo.parts["exact"], typo.parts["near"]) == ("near", False, True)
    other = signal.read(Query.ask("Please renew the membership of my brother"))
    assert other.value is None


def test_only_the_beginning_of_a_long_text_is_compared() -> None:
    text = "word " * keyword.READ_TRIGRAM
    assert read({"trigram": ["contract"]}, "contract " + text).parts["g"] is True
    assert read({"trigram": ["contract"]}, text + "contract").parts["g"] is False


# --------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ({"g": {}}, "$.rules.g"),
        ({"g": {"any": ["a"], "all": ["b"]}}, "$.rules.g"),
        ({"g": {"most": ["a"]}}, "$.rules.g"),
        ({"g": {"any": ["a"], "threshold": 1}}, "$.rules.g.threshold"),
        ({"g": {"any": []}}, "$.rules.g.any"),
        ({"g": {"bm25": ["a", 1]}}, "$.rules.g.bm25[1]"),
        ({"g": {"bm25": ["a"], "threshold": 9}}, "$.rules.g.threshold"),
        ({"g": {"bm25": ["a"], "treshold": 0.1}}, "$.rules.g.treshold"),
        ({"g": {"trigram": ["a"], "threshold": 1.01}}, "$.rules.g.threshold"),
        ({"g": {"trigram": ["a"], "threshold": True}}, "$.rules.g.threshold"),
        ({"g": {"trigram": ["a"], "threshold": 0}}, "$.rules.g.threshold"),
        ({"g": {"trigram": ["?!"]}}, "$.rules.g.trigram[0]"),
        ({"g": {"trigram": ["re:a"]}}, "$.rules.g.trigram[0]"),
        ({"value": ["a"]}, "$.rules.value"),
        ({"all": ["a"]}, "$.rules.all"),
        ({"g": {"bm25": ["a"]}, "g_score": ["b"]}, "$.rules.g_score"),
    ],
)
def test_what_is_written_wrong_says_where(rules: dict[str, Any], path: str) -> None:
    for act in (
        Keyword(rules=rules).check,
        Keyword(rules=rules).ranges,
        lambda: Keyword(rules=rules).read(Query.ask("x")),
    ):
        with pytest.raises(ConfigError) as e:
            act()
        assert e.value.path == path


@pytest.mark.usefixtures("linear")
def test_every_method_keeps_to_its_ranges_and_laws() -> None:
    rules: dict[str, Any] = {
        "what": ["re:what|word"],
        "both": {"all": ["2", "re:[+]"]},
        "neither": {"none": ["word", "print"]},
        "terms": {"bm25": ["print what", "word is word"], "threshold": 0.3},
        "near": {"trigram": ["wrd"], "threshold": 0.2},
    }
    check_signal(lambda: Keyword(rules=rules))
