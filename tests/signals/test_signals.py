"""Every built-in signal, on one set of awkward texts; then each on what it claims."""

# ruff: noqa: RUF001

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.conditions import holds, parse
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import ConfigError, UnknownName
from fairlead.pool import estimate_tokens
from fairlead.signals.base import Observer, Signal, within
from fairlead.signals.clock import Clock
from fairlead.signals.complexity import Complexity
from fairlead.signals.conversation import Conversation, looks_like_error
from fairlead.signals.embedding import Embedding, vector
from fairlead.signals.identity import Identity
from fairlead.signals.keyword import Keyword
from fairlead.signals.language import _FIRST_R, _LAST_R, Language
from fairlead.signals.length import READ, Length
from fairlead.signals.marks import Marks
from fairlead.signals.modality import Modality
from fairlead.signals.ngrams import Ngrams
from fairlead.signals.quota import Quota
from fairlead.signals.similarity import Similarity
from fairlead.signals.structure import Structure
from fairlead.signals.style import Style
from fairlead.types import Message, Part, Query, Reading, Signals, Spent

SIGNALS: dict[str, Signal] = {
    "length": Length(),
    "marks": Marks(),
    "language": Language(),
    "keyword": Keyword(
        rules={
            "law": ["court", "due  process"],
            "money": ["re:[$€]\\s?[0-9]+"],
            "quiet": {"none": ["0", "re:a{40}"]},
            "deal": {"bm25": ["end of contract", "breach of contract"], "threshold": 0.5},
            "refund": {"trigram": ["refund", "money back"]},
        }
    ),
    "embedding": Embedding(),
    "conversation": Conversation(),
    "ngrams": Ngrams(),
    "style": Style(),
    "modality": Modality(),
    "structure": Structure(),
    "identity": Identity(roles=["admin"]),
    "clock": Clock(),
    "quota": Quota(usd=1.0),
    "similarity": Similarity(groups={"greeting": ["hello"], "code": ["print", "def"]}, threshold=0.2),
    "complexity": Complexity(),
}
AWKWARD = [
    "",
    " ",
    "\x00",
    "\ud800",
    "e\u0301",
    "👩‍👩‍👧‍👦",
    "\u202eabc",
    "ﷺ",
    "İ",
    "0",
    "🏳️‍🌈 ¿qué?",
    "a" * 5_000,
    '"' * 9_000,
    "$" * 9_000,
]


def still(reading: Reading) -> Reading:
    """Return the reading without the time it took."""
    return msgspec.structs.replace(reading, seconds=0.0)


def query(text: str) -> Query:
    return Query(id="q", messages=(Message(role="user", content=text),))


@pytest.mark.parametrize("name", SIGNALS)
@settings(deadline=None, max_examples=40)
@given(text=st.one_of(st.sampled_from(AWKWARD), st.text(alphabet=st.characters(), max_size=200)))
def test_any_text_is_read_alike_twice(name: str, text: str) -> None:
    signal = SIGNALS[name]
    first = signal.read(query(text))
    assert still(first) == still(signal.copy().read(query(text)))
    assert first.seconds >= 0.0
    assert 0.0 <= first.confidence <= 1.0
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(first), type=Reading) == first


@pytest.mark.parametrize("name", SIGNALS)
@settings(deadline=None, max_examples=25)
@given(
    text=st.one_of(
        st.sampled_from(AWKWARD), st.text(max_size=60), st.sampled_from(["def print(): refund $5", "hello 2"])
    ),
    roles=st.lists(st.sampled_from(["user", "assistant", "system", "tool"]), max_size=5),
    at=st.floats(0.0, 4e9),
    spent=st.none() | st.builds(Spent, usd=st.floats(0.0, 9.0), elapsed=st.floats(0.0, 0.99)),
)
def test_what_is_said_keeps_to_ranges_and_laws(name: str, text: str, roles: list[str], at: float, spent: Spent) -> None:
    signal = SIGNALS[name]
    messages = tuple(Message(role=r, content=text if i % 2 else text[:9]) for i, r in enumerate(roles))
    asked = Query(id="q", messages=(*messages, Message(role="user", content=text)), at=at, spent=spent)
    reading, ranges = signal.read(asked), signal.ranges()
    assert reading.parts.keys() <= ranges.keys()
    for key, allowed in ranges.items():
        value = reading.value if key == "value" else reading.parts.get(key)
        assert within(value, allowed), (key, value, allowed)
    own = Signals(readings={"value": reading, **{k: Reading(value=v) for k, v in reading.parts.items()}})
    for law in signal.laws():
        assert holds(parse(law), own), (law, reading)


SURE = [name for name, signal in SIGNALS.items() if not any(r.null for k, r in signal.ranges().items() if k != "value")]


@pytest.mark.parametrize("name", SURE)
def test_parts_do_not_depend_on_the_text(name: str) -> None:
    # Features take their columns from the parts; one that came and went would be a hole.
    assert {tuple(SIGNALS[name].read(query(t)).parts) for t in AWKWARD} == {tuple(SIGNALS[name].read(query("x")).parts)}


@pytest.mark.parametrize("name", SIGNALS)
def test_no_messages_at_all(name: str) -> None:
    assert SIGNALS[name].read(Query(id="q", messages=())).seconds >= 0.0


@pytest.mark.parametrize("text", ["$a ", '"a ', "1-", "a) ", "> ", "{\n", "( ", "\\", "A" * 50 + "[", "\n", "good "])
def test_a_megabyte_is_read(text: str) -> None:
    # A pattern with quadratic time would hang here for minutes.
    long = query(text * (1_000_000 // len(text)))
    for signal in SIGNALS.values():
        signal.read(long)


def test_only_what_is_asked_for_is_read() -> None:
    class Untouchable(Signal):
        def _read(self, query: Query) -> Reading:
            raise AssertionError("nobody asked for this")

    observer = Observer(signals={**SIGNALS, "untouchable": Untouchable()})
    assert set(observer.read(query("hi"), ("length", "marks")).readings) == {"length", "marks"}
    with pytest.raises(UnknownName, match="did you mean 'language'"):
        observer.read(query("hi"), ("langage",))


# ------------------------------------------------------------------------------------------------------------- length


def test_length_counts() -> None:
    q = Query(
        id="q",
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content=(Part(text="two words"), Part(type="image_url"), Part(text="and 22"))),
            Message(role="assistant", content=None),
        ),
    )
    r = Length().read(q)
    assert r.value == len("two words\nand 22")
    assert r.parts == {
        "characters_all": 9 + 16,
        "tokens": estimate_tokens(q),
        "words": 4,
        "longest_word": 5,
        "lines": 2,
        "digits": 2 / 16,
    }


def test_length_of_nothing_is_zero() -> None:
    r = Length().read(query(""))
    assert r.value == 0
    assert set(r.parts.values()) == {0, 4}  # four tokens go on the message itself


def test_words_of_a_long_text_are_scaled_up() -> None:
    text = "word " * READ
    assert Length().read(query(text)).parts["words"] == pytest.approx(READ, rel=0.01)


# -------------------------------------------------------------------------------------------------------------- marks


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("", set()),
        ("Tell me a story.", set()),
        ("Tell me a story; then sleep.", set()),
        ("```python\nx\n```", {"code"}),
        ("fix this:\ndef f(x):\n    return x", {"code"}),
        ("int main() {\n return 0;\n}", {"code"}),
        ("from numpy import array", {"code"}),
        ("from here to there", set()),
        ("12+345", {"maths"}),
        ("what is 12-5?", {"maths", "question"}),
        ("It was on 2024-01-31.", set()),
        ("Let $x^2 = 4$", {"maths"}),
        ("I paid $5 and $6", set()),
        ("Evaluate \\frac{1}{n}", {"maths"}),
        ("Pick one.\nA) red\nB) blue", {"multiple_choice"}),
        ("Pick (A) red (B) blue", {"multiple_choice"}),
        ("A) red alone", set()),
        ("Do:\n- this\n- that", {"list"}),
        ("1. this\n2. that", {"list"}),
        ("- one thing", set()),
        ("Why not", {"question"}),
        ("\u00bfQu\u00e9? ", {"question"}),
        ("\u4e3a\u4ec0\u4e48\uff1f", {"question"}),
        ("whatever happens", set()),
        ("> he said", {"quote"}),
        ('He wrote "a rather long sentence indeed".', {"quote"}),
        ('a "short" one', set()),
        ('{"a": 1}', {"json"}),
        ("see https://example.org", {"url"}),
    ],
)
def test_marks(text: str, marks: set[str]) -> None:
    r = Marks().read(query(text))
    assert {k for k, v in r.parts.items() if v is True} == marks
    assert r.value == len(marks)


def test_numbers_are_counted() -> None:
    r = Marks().read(query("add 12 and 34567"))
    assert (r.parts["numbers"], r.parts["longest_number"]) == (2, 5)


def test_marks_are_found_at_both_ends_of_a_long_text() -> None:
    middle = "word " * 50_000
    assert Marks().read(query("```\n" + middle)).parts["code"] is True
    assert Marks().read(query(middle + "\n1. a\n2. b")).parts["list"] is True
    assert Marks().read(query(middle + "https://a" + middle)).parts["url"] is False


# -------------------------------------------------------------------------------------------------------------- style


@pytest.mark.parametrize(
    ("end", "mark"),
    [("so what?", "ends_question"), ("Go on. \n", "ends_stop"), ("x = (", None), ("and so", "ends_open")],
)
@pytest.mark.parametrize("start", ["", "some context, and more. " * 200])
def test_how_a_text_ends_is_seen_however_long_it_is(start: str, end: str, mark: str | None) -> None:
    parts = Style().read(query(start + end)).parts
    assert [k for k, v in parts.items() if k.startswith("ends_") and v] == ([mark] if mark else [])


# ----------------------------------------------------------------------------------------------------------- language


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello", "latin"),
        ("Straße, çà et là", "latin"),
        ("Tiếng Việt", "latin"),
        ("ＡＢＣ", "latin"),
        ("Привет", "cyrillic"),
        ("Γειά", "greek"),
        ("你好，世界", "han"),
        ("𠮷野家", "han"),
        ("これはペンです", "kana"),
        ("안녕하세요", "hangul"),
        ("مرحبا", "arabic"),
        ("שלום", "hebrew"),
        ("नमस्ते", "devanagari"),
        ("สวัสดี", "thai"),
        ("გამარჯობა", "georgian"),
        ("Բարեւ", "armenian"),
        ("வணக்கம்", "tamil"),
        ("привет привет hi", "cyrillic"),
        ("12 + 3 × 4 ÷ 5 = 🙂", None),
        ("", None),
    ],
)
def test_scripts(text: str, script: str | None) -> None:
    assert Language().read(query(text)).value == script


def test_share_and_confidence() -> None:
    mixed = Language().read(query("abcя"))
    assert mixed.parts["share"] == 0.75
    assert mixed.confidence == pytest.approx(0.75 * 4 / 8)
    none = Language().read(query("123"))
    assert (none.value, none.parts, none.confidence) == (None, {"share": 0.0}, 0.0)
    # The quick way for ASCII and the way for all text agree: a sign that is no letter changes nothing.
    assert still(Language().read(query("plain words"))) == still(Language().read(query("plain words…")))


def test_ranges_are_sorted_and_apart() -> None:
    assert (_FIRST_R[1:] > _LAST_R[:-1]).all()
    assert (_FIRST_R <= _LAST_R).all()


# ------------------------------------------------------------------------------------------------------------ keyword


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        (["art"], "modern ART.", True),
        (["art"], "a party", False),
        (["art"], "état d'art_", False),
        (["due process"], "due\n  process", True),
        (["due process"], "dueprocess", False),
        (["c++"], "I like C++.", True),
        (["c++"], "abc++", False),
        ([".net"], "use .NET core", True),
        ([".net"], "use xnet core", False),
        (["été"], "l'ÉTÉ dernier", True),
        (["北京"], "我爱北京天安门", True),
        (["กรุงเทพ"], "ไปกรุงเทพวันนี้", True),
        (["re:colou?r"], "discoloration", True),
        (["re:a|b", "zzz"], "c", False),
    ],
)
def test_words(words: list[str], text: str, found: bool) -> None:
    assert Keyword(rules={"g": words}).read(query(text)).parts["g"] is found


def test_the_first_group_found_is_the_value() -> None:
    rules = {"b": ["cat"], "a": ["dog"]}
    assert Keyword(rules=rules).read(query("dog and cat")).value == "b"
    assert Keyword(rules=rules).read(query("dog")).value == "a"
    assert Keyword(rules=rules).read(query("cow")).value is None


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ({"a": ["x"], "g": ["ok", "re:("]}, "$.rules.g[1]"),
        ({"g": ["re:a*"]}, "$.rules.g[0]"),
        ({"g": ["re:"]}, "$.rules.g[0]"),
        ({"g": [" "]}, "$.rules.g[0]"),
        ({"g": [True]}, "$.rules.g[0]"),
        ({"g": []}, "$.rules.g"),
        ({"g": "word"}, "$.rules.g"),
    ],
)
def test_bad_groups_say_where(rules: dict[str, list[str]], path: str) -> None:
    signal = Keyword(rules=rules)
    for act in (signal.check, lambda: signal.read(query("x"))):
        with pytest.raises(ConfigError) as e:
            act()
        assert e.value.path == path


# ---------------------------------------------------------------------------------------------------------- embedding


def test_embedding_is_the_embedders_vector_of_the_last_user_message() -> None:
    q = Query(
        id="q",
        messages=(Message(role="user", content="no"), Message(role="user", content="yes"), Message(role="assistant")),
    )
    r = Embedding(embedder=Hashing(size=64)).read(q)
    assert np.array_equal(vector(r), Hashing(size=64).embed("yes"))
    assert len(r.vector) == 64 * 4


def test_embedding_nests_in_its_spec() -> None:
    assert Embedding(embedder=Hashing(size=64)).spec()["embedder"]["size"] == 64


# ------------------------------------------------------------------------------------------------------- conversation


def call(name: str = "f") -> Message:
    return Message(role="assistant", tool_calls=({"function": {"name": name}},))


def result(text: str) -> Message:
    return Message(role="tool", content=text, tool_call_id="1")


def test_conversation_counts() -> None:
    q = Query(
        id="q",
        tools=("search", "run"),
        messages=(
            Message(role="system", content="s"),
            Message(role="user", content="u"),
            call(),
            result("ok"),
            Message(role="assistant", content="done"),
            Message(role="user", content="more"),
        ),
    )
    r = Conversation().read(q)
    assert r.value == 2
    assert r.parts == {
        "messages": 6,
        "tools": 2,
        "tool_results": 1,
        "tool_errors_in_a_row": 0,
        "has_system": True,
        "warm": True,
        "agent": True,
        "repeats": 0.0,
        "reask": False,
        "dissatisfied": False,
        "wants_clarification": False,
    }


@pytest.mark.parametrize(
    ("messages", "n"),
    [
        ((), 0),
        ((result("Error: no"),), 1),
        ((call(), result("Error: no"), call(), result('{"error": "x"}')), 2),
        ((call(), result("Error: no"), result("Error: no")), 2),
        ((result("Error: no"), call(), result("fine"), call(), result("Error: no")), 1),
        ((result("Error: no"), call(), result("fine")), 0),
        ((result("Error: no"), Message(role="user", content="go on")), 0),
        ((result("Error: no"), Message(role="assistant", content="I give up")), 0),
        ((result("Error: no"), call()), 1),
    ],
)
def test_errors_in_a_row(messages: tuple[Message, ...], n: int) -> None:
    assert Conversation().read(Query(id="q", messages=messages)).parts["tool_errors_in_a_row"] == n


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", False),
        ("all good", False),
        ("No errors found", False),
        ("Errors: 0", False),
        ("Error: it broke", True),
        ("ValueError: bad", True),
        ("java.lang", False),
        ("Traceback (most recent call last):\n", True),
        ("fatal: not a repository", True),
        ('{"error": "x"}', True),
        ('{"error": null, "rows": []}', False),
        ('{"error": ""}', False),
        ('{"is_error": true}', True),
        ('{"status": "error"}', True),
        ('{"status": "ok", "text": "Error"}', False),
        ('{"error": "cut off he', True),
        ('{"error": null, "cut off he', False),
        ('{"error": "' + "x" * 100_000 + '"}', True),
        ('{"rows": "' + "x" * 100_000 + '"}', False),
        ("{broken", False),
        ("[1, 2]", False),
        ("Failed: 0, passed: 12", False),
        ("Failure modes of bearings, chapter 3", False),
        ("Error: 0", False),
        ("panic attacks are frequent", False),
        ("Failed: connection refused", True),
        ("failed to fetch", True),
        ("panic: runtime error", True),
        ("Error 404", True),
        ("failed", True),
        # Nested deeper than anybody decodes.
        ('{"a":' + "[" * 3000, False),
        ('{"error":' + "[" * 3000, True),
    ],
)
def test_what_looks_like_an_error(text: str, error: bool) -> None:
    assert looks_like_error(text) is error


def talk(*texts: str) -> Query:
    """User and assistant in turn."""
    roles = ("user", "assistant")
    return Query(id="q", messages=tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(texts)))


@pytest.mark.parametrize(
    ("texts", "repeats", "reask"),
    [
        (("How do I reset it?",), 0.0, False),
        (("How do I reset it?", "Press.", "How do I reset it?"), 1.0, True),
        (("How do I reset it?", "Press.", "how do I  RESET it?"), 1.0, True),
        (("How do I reset it?", "Press.", "How can I reset it?"), None, True),
        (("How do I reset it?", "Press.", "Which colours are there?"), None, False),
        (("How do I reset it?", "Press.", "And then what?", "Wait.", "How do I reset it?"), 1.0, True),
        # Short words of assent repeat nothing.
        (("go on", "Yes?", "go on"), 0.0, False),
        (("如何重置路由器", "按", "如何重置路由器"), 1.0, True),
        # The same words and another question: what trigrams cannot tell apart.
        (("What is the capital of Spain?", "Madrid.", "What is the capital of Spain's neighbour?"), None, True),
    ],
)
def test_reask(texts: tuple[str, ...], repeats: float | None, reask: bool) -> None:
    parts = Conversation().read(talk(*texts)).parts
    assert parts["reask"] is reask
    assert repeats is None or parts["repeats"] == repeats


@pytest.mark.parametrize(
    ("text", "dissatisfied", "unclear"),
    [
        ("That's wrong, try again", True, False),
        ("no, I meant the other file", True, False),
        ("This is not what I asked for", True, False),
        ("it still doesn’t work", True, False),
        ("Das ist leider falsch.", True, False),
        ("Nein, ich wollte etwas anderes", True, False),
        ("Ce n'est pas ce que je voulais", True, False),
        ("No es lo que pedí", True, False),
        ("Non è quello che volevo", True, False),
        ("Isso está errado", True, False),
        ("Dat klopt niet", True, False),
        ("to nie działa", True, False),
        ("Это неправильно", True, False),
        ("不对，再试一次", True, False),
        ("それは違います", True, False),
        ("What do you mean?", False, True),
        ("I don't understand the second step", False, True),
        ("Kannst du das genauer erklären?", False, True),
        ("Je ne comprends pas", False, True),
        ("没看懂，解释一下", False, True),
        ("Thanks, that works!", False, False),
        ("Is it wrong to eat meat?", False, False),
        ("Now the same in Rust.", False, False),
        ("Great. What is falsification?", False, False),
        ("", False, False),
    ],
)
def test_contentment(text: str, dissatisfied: bool, unclear: bool) -> None:
    parts = Conversation().read(talk("Do it.", "Done.", text)).parts
    assert (parts["dissatisfied"], parts["wants_clarification"]) == (dissatisfied, unclear)
    # Of a first message it would be about something else.
    cold = Conversation().read(talk(text)).parts
    assert not any(cold[key] for key in ("dissatisfied", "wants_clarification", "warm"))


BENIGN = """
no, you are right|no, that's fine, thanks|no, that is all|no, it's urgent, please go on|no, I will do it myself|no, this one is better, keep it
isn't correct use of 'whom' hard?|isn't right of way always with the tram?|could you please explain photosynthesis|can you explain how a diode works?
please explain the French Revolution to a child|could you elaborate a plan for the garden?|in other words for happiness, give me ten synonyms|is it unclear whether Homer existed?
thanks!|great, thank you|perfect|ok|go on|continue|and in Python?|now translate it into German|make it shorter|a bit longer please|add a title|use bullet points
what about Portugal?|and the second one?|why is the sky blue?|who wrote it?|how much is that in euros?|when was that?|where can I buy one?|which is cheaper?
write the tests too|now with type hints|rename the variable to total|put it into a function|show me the whole file|what is the complexity of this?|can this be done in one line?
I like the first one|the second sounds better|let's take option B|yes, do that|yes please|sure|sounds good|that works|that is correct|it works now, thanks|this helps a lot
what is a false positive?|when is a proof wrong by contradiction?|explain wrong-way risk|what are incorrect fractions?|my phone is not working since Monday, what can I do?|the train is not running today, how do I get there?
I forgot to say that I am vegetarian|I missed the bus, what now?|you were very helpful|you are right about the date|I asked my boss and she agrees|we are not what we were, says the poem: who wrote it?
what does 'ubiquitous' mean?|what does HTTP stand for?|I understand, next question|I get it|that makes sense|it does answer my question|clear, thanks
Danke, das passt|Nein, danke|Nein, das ist gut so|Nein, ich bin zufrieden|Es geht nicht um Geld, sondern um Zeit|Was bedeutet Photosynthese?|Kannst du mir erklären, wie ein Motor funktioniert?|Und auf Englisch?|Bitte kürzer
Merci beaucoup|Non, c'est bon|Non, je suis content|Peux-tu expliquer la photosynthèse ?|Et en anglais ?|Gracias, perfecto|No, yo lo hago|¿Puedes explicar la fotosíntesis?|Más corto, por favor
Grazie mille|No, va bene così|Puoi spiegare la fotosintesi?|Obrigado|Pode explicar a fotossíntese?|Bedankt|Nee, dat is goed|Kun je fotosynthese uitleggen?|Dziękuję|Możesz wyjaśnić fotosyntezę?
Спасибо|Нет, это всё|Объясни фотосинтез|谢谢|再短一点|ありがとう|光合成について説明してください|고마워요
"""


def test_second_messages_that_complain_of_nothing() -> None:
    texts = [text for line in BENIGN.strip().splitlines() for text in line.split("|")]
    assert len(set(texts)) == len(texts) >= 100
    keys = ("dissatisfied", "wants_clarification")
    found = {t: Conversation().read(talk("Do it.", "Done.", t)).parts for t in texts}
    assert [t for t, parts in found.items() if any(parts[key] for key in keys)] == []


@pytest.mark.parametrize(
    ("text", "unclear"),
    [
        ("no, not that one", False),
        ("no, I asked for Rust", False),
        ("it isn't working", False),
        ("Non, je voulais l'autre", False),
        ("Nein, nicht so", False),
        ("Нет, я просил другое", False),
        ("Could you clarify?", True),
        ("please explain that again", True),
        ("can you elaborate on your second point", True),
        ("that's unclear", True),
        ("peux-tu m'expliquer ça ?", True),
        ("もう一度説明してください", True),
    ],
)
def test_further_complaints(text: str, unclear: bool) -> None:
    parts = Conversation().read(talk("Do it.", "Done.", text)).parts
    assert (parts["dissatisfied"], parts["wants_clarification"]) == (not unclear, unclear)


def test_chat_and_agent() -> None:
    assert Conversation().read(talk("hi")).parts["agent"] is False
    assert Conversation().read(Query(id="q", messages=(), tools=("f",))).parts["agent"] is True
    assert Conversation().read(Query(id="q", messages=(result("ok"),))).parts["agent"] is True
