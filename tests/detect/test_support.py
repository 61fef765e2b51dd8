"""What of an answer nothing in its request supports: claims, numbers, names, negations; and what words cannot see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.detect.support import (
    BAR,
    Need,
    Passages,
    claims,
    explained,
    judged,
    needs_facts,
    sentences,
    sources,
    stem,
    structured,
)
from fairlead.types import Message, Part, Query

BRIDGE = (
    "The Halden Bridge was opened in 1978 by Mayor Ruth Keller. It spans 412 metres across the river Orne. "
    "The toll is 3.50 euros for cars. Cyclists do not pay. Traffic increased by 12% in 2019."
)


def why(answer: str, *texts: str) -> list[str]:
    """Return the reason of each claim; empty where it is supported."""
    support = judged(answer, texts or (BRIDGE,))
    assert all(c.supported == (c.verdict.score >= BAR) for c in support.claims)
    return [c.verdict.why for c in support.claims]


# ------------------------------------------------------------------------------------------------------------ sentences


def test_sentences_are_cut_where_they_end() -> None:
    text = 'Dr. Keller of St. Orne paid 3.50 euros. "It was cheap." She left!\n- first point\n2. second point\n```py\nx = 1. Y = 2\n```\nEnd'
    found = [text[s:e] for s, e in sentences(text)]
    assert found == [
        "Dr. Keller of St. Orne paid 3.50 euros.",
        '"It was cheap."',
        "She left!",
        "first point",
        "second point",
        "End",
    ]
    assert sentences("") == sentences(" \n ") == []


def test_questions_courtesies_and_admissions_claim_nothing() -> None:
    answer = "Sure, here is a summary: I don't know the date. The toll is not mentioned. Is it open? Hi. The bridge spans 412 metres."
    assert [answer[s:e] for s, e in claims(answer)] == ["The bridge spans 412 metres."]
    assert judged("Is it?", [BRIDGE]).score == 1.0


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_judged_within_bounds_and_the_same_again(answer: str, source: str) -> None:
    support = judged(answer, [source])
    assert 0.0 <= support.score <= 1.0
    for c in support.claims:
        assert answer[c.start : c.end] == c.text
        assert 0.0 <= c.verdict.score <= 1.0
        assert (c.verdict.why == "") == c.supported
    assert judged(answer, [source]) == support


@given(st.lists(st.sampled_from(BRIDGE.split(". ")), min_size=1, max_size=4))
def test_what_is_copied_is_supported(parts: list[str]) -> None:
    assert judged(". ".join(parts), [BRIDGE]).score == 1.0


# ---------------------------------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("The bridge opened in 1978.", ""),
        ("Mayor Ruth Keller opened it.", ""),
        ("In 2019, traffic increased by 12 percent.", ""),
        ("Cyclists must not pay.", ""),
        ("The bridge spans four hundred metres of the Orne.", ""),
        ("Halden Bridge was opened in 1987.", "number"),
        ("Mayor John Smith opened the bridge.", "name"),
        ("Orvald opened the Halden Bridge in 1978.", "name"),
        ("The toll for cars is 412 euros.", "number"),
        ("Cyclists pay the toll.", "negation"),
        ("The bridge was never opened by Mayor Ruth Keller.", "negation"),
        ("Traffic decreased by 12% in 2019.", "negation"),
        ("It is painted green and has a restaurant.", "words"),
    ],
)
def test_each_kind_of_claim(answer: str, reason: str) -> None:
    assert why(answer) == [reason]


def test_numbers_are_read_in_one_way() -> None:
    source = "It cost 1,250.50 dollars on 2021-03-07, in version 1.2.3, for 20 people."
    assert why("It cost 1250.5 dollars for twenty people.", source) == [""]
    assert why("On 7 March 2021 it cost 1,250.50 dollars.", source) == [""]
    assert why("It was version 1.2.3 for people.", source) == [""]
    assert why("It was version 1.2.4 for people.", source) == ["number"]
    assert why("It cost 12505 dollars for people.", source) == ["number"]


def test_a_double_negation_is_none_and_an_antonym_with_one_neither() -> None:
    assert why("It is not true that cyclists do not pay.", "Cyclists pay, it is true.") == [""]
    assert why("Traffic did not decrease in 2019.", "Traffic increased in 2019.") == [""]
    assert why("Traffic did not increase in 2019.", "Traffic increased in 2019.") == ["negation"]


def test_other_scripts_are_compared_too() -> None:
    assert why("桥于1978年开放。", "哈尔登桥于1978年开放。") == [""]
    assert why("桥于1987年开放。", "哈尔登桥于1978年开放。") == ["number"]
    assert why("Die Brücke wurde 1978 von Keller eröffnet.", "Keller eröffnete 1978 die Brücke.") == [""]
    assert why("Die Brücke wurde 1979 von Keller eröffnet.", "Keller eröffnete 1978 die Brücke.") == ["number"]


def test_in_german_a_capital_makes_no_name() -> None:
    source = "Die Brücke wurde 1978 eröffnet, und der Bau hat eine Maut, die für das Auto ist."
    assert why("Die Brücke hat seit 1978 eine Gebühr und wurde eröffnet.", source) == [""]
    assert why("Die Brücke wurde 1979 eröffnet.", source) == ["number"]


def test_endless_claims_and_names_that_stand_everywhere_take_no_endless_time() -> None:
    """Work is bounded by what is read of a claim, times the sentences that share a word with it."""
    source = "Keller met Orne. " * 1000
    answer = "Keller met Orne and " * 5000
    (claim,) = judged(answer, [source]).claims
    assert claim.supported
    assert len(Passages([source])._read(answer).terms) < 500


def test_what_words_cannot_see() -> None:
    """Limits, held here so that the docs stay true: a change of places is missed, other words raise a false alarm."""
    assert why("Bob paid Alice.", "Alice paid Bob.") == [""]
    assert why("Crossing with a motor vehicle requires money.") == ["words"]
    assert why("Three and four make 7 in all.", "There were 3 apples and 4 pears.") == ["number"]


def test_the_nearest_passage_and_the_reason_are_told() -> None:
    (claim,) = judged("Halden Bridge was opened in 1987.", [BRIDGE]).claims
    assert claim.verdict.missing == ("1987",)
    assert claim.verdict.nearest == "The Halden Bridge was opened in 1978 by Mayor Ruth Keller."
    told = explained(claim)
    assert "1987 is not said there" in told
    assert "1978" in told
    assert len(explained(claim, clip=20)) < len(told)
    (stray,) = judged("Quantum xylophones hum.", [BRIDGE]).claims
    assert stray.verdict.nearest == ""
    assert "nearest" not in explained(stray)


def test_two_texts_are_not_read_as_one() -> None:
    """Neighbouring sentences count together, but not the last of one text and the first of the next."""
    passages = Passages(["Alpha beta gamma delta.", "Epsilon zeta eta theta."])
    assert passages.together(0, 0)
    assert not passages.together(0, 1)
    joined = Passages(["Alpha beta gamma delta. Epsilon zeta eta theta."])
    claim = "So alpha gamma epsilon theta."
    assert joined.verdict(claim).score > passages.verdict(claim).score


def test_the_score_is_the_share_of_claims() -> None:
    support = judged("The bridge opened in 1978. It is painted green and blue. Cyclists do not pay.", [BRIDGE])
    assert support.score == pytest.approx(2 / 3)
    assert [c.text for c in support.unsupported] == ["It is painted green and blue."]
    assert judged("It is painted green.", []).score == 0.0


def test_a_higher_bar_flags_no_less() -> None:
    answer = "The bridge opened in 1978. It is painted green. Cars are charged 3.50 euros to cross it by day."
    counts = [len(judged(answer, [BRIDGE], bar=b / 10).unsupported) for b in range(11)]
    assert counts == sorted(counts)


def test_json_claims_nothing() -> None:
    for text, found in (
        ('{"opened": 1999}', True),
        ("[1999]", True),
        ("[1999", False),
        ("{opened in 1999}", False),
        ("", False),
    ):
        assert structured(text) == found
    assert judged(' {"opened": 1999, "by": "Orvald"} ', [BRIDGE]).claims == ()


def test_stems_bring_forms_together() -> None:
    for forms in (("opened", "opens", "opening", "open"), ("cities", "city"), ("metres", "metre"), ("planned", "plan")):
        assert len({stem(f) for f in forms}) == 1, forms


def test_a_word_that_stands_everywhere_bounds_the_work_and_hides_nothing() -> None:
    filler = " ".join(f"Keller saw thing{chr(97 + i % 26)}{chr(97 + i // 26)} there." for i in range(400))
    source = f"{filler} Keller opened the bridge in 1978."
    passages = Passages([source])
    assert stem("keller") in passages.common
    assert why("Keller opened the bridge in 1978.", source) == [""]
    assert why("Keller opened the bridge in 1979.", source) == ["number"]
    assert why("Keller hates purple elephants and violins.", source) == ["words"]
    assert passages.nearest("Keller opened the bridge.") == ["Keller opened the bridge in 1978."]
    assert len(claims("Keller saw it again. " * 1000)) == 200


# ----------------------------------------------------------------------------------------------------------- stage 1


def asked(text: str, *more: Message) -> Need:
    return needs_facts(Query(id="q", messages=(*more, Message(role="user", content=text))))


@pytest.mark.parametrize(
    "text",
    [
        "When was the bridge opened?",
        "Summarise the treaty.",
        "Is Pluto a planet?",
        "Context: it opened in 1978.\n\nSo when?",
        "List three rivers of France.",
    ],
)
def test_facts_are_needed(text: str) -> None:
    assert asked(text).facts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hi!",
        "Write a poem about when the bridge was opened?",
        "Write a Python function that lists primes.",
        "How are you?",
        "What should I wear?",
        "Make it shorter.",
    ],
)
def test_no_facts_are_needed(text: str) -> None:
    assert not asked(text).facts


def test_tool_results_and_documents_ground_a_request() -> None:
    tool = Message(role="tool", content="22 degrees", tool_call_id="1")
    assert asked("And now?", tool).grounded
    assert asked("And now?", tool).facts
    assert not asked("And now?", Message(role="tool", content=" ", tool_call_id="1")).grounded
    assert asked("And now?", Message(role="system", content="Use this.\n<document>It opened.</document>")).grounded
    assert not asked(
        "And now?", Message(role="system", content="You are a helpful assistant. Answer briefly.")
    ).grounded
    assert asked("long " * 200).grounded
    assert not asked("Tell me a story about it.", tool).facts


def test_the_assistants_own_words_are_no_source() -> None:
    query = Query(
        id="q",
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="assistant", content="It opened in 1999."),
            Message(role="tool", content="opened: 1978"),
            Message(role="user", content=(Part(text="When?"), Part(type="image_url"))),
        ),
    )
    assert sources(query) == ("Be brief.", "opened: 1978", "When?")
