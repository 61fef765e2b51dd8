"""Groups of words by each method: RE2 patterns, any, all, none, BM25 and trigrams."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import pytest

from fairlead.conditions import holds, parse
from fairlead.errors import ConfigError
from fairlead.signals import keyword
from fairlead.signals.keyword import Keyword
from fairlead.testing import check_signal
from fairlead.types import Message, Query, Reading, Signals


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
    assert Keyword(rules={"g": ["a"]}).read(Query.ask("a")).parts["g"] is True


# ----------------------------------------------------------------------------------------------------- any, all and none


@pytest.mark.parametrize("text", ["", "court", "law", "law court", "outlaw courts"])
def test_any_all_none_are_or_and_nor(text: str) -> None:
    each = [read([w], text).parts["g"] for w in ("court", "law")]
    assert read({"any": ["court", "law"]}, text).parts["g"] is any(each)
    assert read({"all": ["court", "law"]}, text).parts["g"] is all(each)
    assert read({"none": ["court", "law"]}, text).parts["g"] is not any(each)


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


def test_trigrams_compare_the_ends_of_a_long_text() -> None:
    text = "word " * keyword.READ_TRIGRAM
    for found, long in ((True, "contract " + text), (True, text + "contract"), (False, text + "contract " + text)):
        parts = read({"trigram": ["contract"]}, long).parts
        assert (parts["g"], parts["partial"]) == (found, True)


# ------------------------------------------------------------------------------------------------------ how much is read

RULES: dict[str, Any] = {"secret": ["project x"], "clean": {"none": ["project x"]}}


@pytest.mark.parametrize("padding", ["lorem " * 3400, "lorem " * 100_000])
def test_padding_before_or_behind_hides_nothing(padding: str) -> None:
    for text in (padding + "project x", "project x " + padding):
        reading = Keyword(rules=RULES).read(Query.ask(text))
        assert (reading.value, reading.parts) == ("secret", {"secret": True, "clean": False, "partial": True})


def test_nobody_vouches_for_what_was_not_read() -> None:
    padding = "lorem " * keyword.READ
    reading = Keyword(rules=RULES).read(Query.ask(padding + "project x " + padding))
    assert (reading.value, reading.parts) == (None, {"secret": False, "clean": False, "partial": True})
    assert Keyword(rules=RULES).read(Query.ask("lorem")).parts == {"secret": False, "clean": True, "partial": False}
    # What stands on either side of the gap is no phrase.
    half = "lorem " * (keyword.READ // 12)
    cut = half[:-8] + " project" + "-" * keyword.READ + "x " + half
    assert Keyword(rules=RULES).read(Query.ask(cut)).parts["secret"] is False


@pytest.mark.parametrize(
    ("entry", "text", "found"),
    [
        ("café", "un cafe\u0301 noir", True),
        ("cafe\u0301", "un CAFÉ noir", True),
        ("delete", "please del\u200bete it", True),
        ("straße", "die STRASSE", True),
        ("STRASSE", "die straße", True),
        ("delete", "\uff44\uff45\uff4c\uff45\uff54\uff45", True),
        ("money  back", "my MONEY\nback!", True),
        ("money back", "money backs", False),
        ("money back", "amoney back, money back", True),
        ("c++", "C++ or c", True),
        ("c++", "abc++", False),
        (".net", "the .NET way", True),
        ("日本", "在日本語", True),
        ("x", "x_y", False),
        ("?!", "what?!", True),
    ],
)
@pytest.mark.parametrize("method", ["any", "all"])
def test_whole_words_as_people_write_them(entry: str, text: str, found: bool, method: str) -> None:
    assert read({method: [entry]}, text).parts["g"] is found


@pytest.mark.usefixtures("linear")
def test_patterns_read_the_text_as_it_came_and_as_it_looks() -> None:
    for pattern in ("re:delete", "re:del\u200bete", "re:caf.$"):
        assert read([pattern], "del\u200bete the cafe\u0301").parts["g"] is True


@pytest.mark.parametrize(
    ("rule", "size", "long"),
    [
        (["print", "def", "money back"], 200_000, False),
        ([f"word{i}" for i in range(1_000)], 200_000, False),
        ([f"two words{i}" for i in range(1_000)], 300, False),
        ([f"two words{i}" for i in range(1_000)], 20_000, True),
        ({"trigram": ["refund", "contract", "money back"]}, 200_000, False),
        ({"trigram": ["w " * n for n in range(1, 60)]}, 1_000, True),
    ],
)
def test_what_may_take_long_is_left_to_a_thread(rule: Any, size: int, long: bool) -> None:
    signal = Keyword(rules={"g": rule})
    assert signal.takes_long(Query.ask("x" * size)) is long
    assert not signal.takes_long(Query.ask(""))
    most = signal.takes_long(Query.ask("x" * keyword.READ))
    assert {range.null for key, range in signal.ranges().items() if key != "value"} == {most}
    late = Signals(readings={"value": Reading(late=True, confidence=0.0)})
    assert all(holds(parse(law), late) for law in signal.laws())


@pytest.mark.usefixtures("linear")
def test_large_patterns_take_long() -> None:
    assert Keyword(rules={"g": ["re:.{0,900}x"]}).takes_long(Query.ask("x" * 300))
    assert not Keyword(rules={"g": ["re:colou?r", "re:[0-9]{3}-[0-9]{4}"]}).takes_long(Query.ask("x" * 200_000))


# ------------------------------------------------------------------------------------------------------------ confidence


def test_it_is_as_sure_as_the_score() -> None:
    assert read(["contract"], "contract").confidence == 1.0
    assert read({"trigram": ["contract"]}, "contrct").confidence == pytest.approx(0.5)
    rule = {"bm25": ["breach of contract", "end of contract"], "threshold": 0.01}
    found = read(rule, "contract")
    high = Keyword(rules={"g": rule}).ranges()["g_score"].high
    assert found.confidence == pytest.approx(found.parts["g_score"] / high)  # type: ignore[operator]
    assert read(rule, "nothing").confidence == 1.0


# --------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ({}, "$.rules"),
        ({"": ["a"]}, "$.rules."),
        ({"g": ["\u200b"]}, "$.rules.g[0]"),
        ({"partial": ["a"]}, "$.rules.partial"),
        # A word that all of ten entries share says next to nothing.
        ({"g": {"bm25": ["order"] * 10}}, "$.rules.g.threshold"),
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
