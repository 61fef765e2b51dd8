"""The signal `pii`: what it counts, where it looks, what it promises, and that it tells nothing it found."""

import itertools

import msgspec
import pytest
from msgspec import Raw

from fairlead.actions.mask import Mask, masked
from fairlead.conditions import holds, parse
from fairlead.detect.personal import KINDS, SECRET
from fairlead.detect.presidio import Presidio
from fairlead.errors import ConfigError
from fairlead.signals.pii import PII
from fairlead.testing import check_signal
from fairlead.types import Message, Part, Query, Reading, Signals

MAIL, CARD, PASSWORD = "ann@example.org", "4111 1111 1111 1111", "password=hunter22"


def talk(*messages: Message) -> Query:
    return Query(id="q", messages=messages)


def read(query: Query | str, **args: object) -> Reading:
    signal = PII(**args)  # type: ignore[arg-type]
    return signal.read(Query.ask(query) if isinstance(query, str) else query)


def test_it_is_a_signal() -> None:
    check_signal(PII)
    check_signal(lambda: PII(kinds=["email", "card"], allow=["card"], scan="user"))


def test_it_counts_and_names_kinds() -> None:
    reading = read(f"{MAIL} and {MAIL}, {CARD}")
    assert reading.value == 3
    assert {k for k, v in reading.parts.items() if v} == {"found", "email", "card"}
    assert 0.9 <= reading.confidence < 1.0
    nothing = read("What is 2 + 2?")
    assert nothing.value == 0
    assert nothing.confidence == 1.0
    assert not any(nothing.parts.values())


def test_secrets_are_told_apart() -> None:
    assert read(PASSWORD).parts["secret"]
    assert not read(MAIL).parts["secret"]


def test_a_reading_never_tells_what_was_found() -> None:
    written = msgspec.json.encode(read(f"{MAIL} {CARD} {PASSWORD}")).decode()
    assert not any(piece in written for piece in (MAIL, "4111", "hunter22", "ann"))


def test_kinds_and_allow_choose_what_counts() -> None:
    text = f"{MAIL} {CARD} {PASSWORD}"
    assert set(read(text, kinds=["email"]).parts) == {"found", "secret", "email"}
    assert read(text, kinds=["email"]).value == 1
    assert read(text, allow=["email", "password"]).value == 1
    assert "email" not in read(text, allow=["email"]).parts
    assert read(text, kinds=[]).value == 0


def test_it_looks_everywhere_unless_told_otherwise() -> None:
    system = Message(role="system", content=MAIL)
    user = Message(role="user", content=(Part(text="see"), Part(type="image_url"), Part(text=CARD)))
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "pay", "arguments": '{"to": "GB29NWBK60161331926819"}'},
    }
    assistant = Message(role="assistant", tool_calls=(call,))
    tool = Message(role="tool", tool_call_id="c1", content='{"password": "tiger", "host": "203.0.113.7"}')
    query = talk(system, user, assistant, tool)
    assert {k for k, v in read(query).parts.items() if v} == {
        "found",
        "secret",
        "email",
        "card",
        "iban",
        "password",
        "ip",
    }
    assert {k for k, v in read(query, scan="user").parts.items() if v} == {"found", "card"}
    assert {k for k, v in read(query, scan="last").parts.items() if v} == {"found", "secret", "password", "ip"}
    assert read(talk(), scan="last").value == 0


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ('{"ssn": "078051120"}', 1),  # the key says what it is
        ('{"id": "078051120"}', 0),
        ('{"card": 4111111111111111}', 1),
        ('{"note": "line\\n+49 30 1234567"}', 1),  # after an escape
        ('{"a": "{\\"b\\": \\"ann@example.org\\"}"}', 1),  # JSON in JSON
        ('{"mail": "ann@example.org", "mail": "x"}', 1),  # what a decoder would drop
        ('["ann@example.org", {"bo@example.org": true}]', 2),
        ('{"broken": "ann@example.org"', 1),
        ("[" * 5000 + "]" * 5000, 0),
    ],
)
def test_json_is_read_value_by_value(content: str, value: int) -> None:
    assert read(talk(Message(role="tool", content=content))).value == value


def test_ranges_name_every_key_and_laws_hold_of_every_reading() -> None:
    cases: list[dict[str, list[str]]] = [{}, {"kinds": ["email", "password"]}, {"kinds": []}, {"allow": list(SECRET)}]
    for args in cases:
        signal = PII(**args)  # type: ignore[arg-type]
        assert set(signal.ranges()) == {"value", "found", "secret", *signal.finder.kinds}
        for texts in itertools.product(("", MAIL), ("", CARD), ("", PASSWORD)):
            reading = signal.read(Query.ask(" ".join(texts)))
            assert set(reading.parts) == set(signal.ranges()) - {"value"}
            assert reading.value is not None
            readings = {"value": Reading(value=reading.value)} | {k: Reading(value=v) for k, v in reading.parts.items()}
            for law in (*signal.laws(), *signal.laws_at((1, 2))):
                assert holds(parse(law), Signals(readings=readings)), law


def test_laws_rule_something_out() -> None:
    false = {"value": Reading(value=0), "found": Reading(value=True), "secret": Reading(value=False)}
    signals = Signals(readings=false | {k: Reading(value=False) for k in KINDS})
    assert [holds(parse(law), signals) for law in PII().laws()] == [False, True, False]


@pytest.mark.parametrize(
    ("args", "path"),
    [({"kinds": ["emial"]}, "$.kinds[0]"), ({"kinds": ["name"]}, "$.kinds[0]"), ({"allow": ["x"]}, "$.allow[0]"), ({"scan": "some"}, "$.scan"), ({"kinds": "email"}, "$.kinds")],
)  # fmt: skip
def test_wrong_arguments_are_told(args: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigError) as e:
        PII(**args).check()  # type: ignore[arg-type]
    assert e.value.path == path


def test_with_presidio_it_is_slow_and_finds_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Analyzer:
        def analyze(self, *, text: str, **_: object) -> list[object]:
            at = text.find("Ann Lee")
            found = msgspec.defstruct("Found", [("entity_type", str), ("start", int), ("end", int), ("score", float)])
            return [found("PERSON", at, at + 7, 0.85)] if at >= 0 else []

    monkeypatch.setattr("fairlead.detect.presidio.load", lambda model, path: Presidio(analyzer=Analyzer()))
    signal = PII(presidio="en_core_web_sm")
    assert signal.slow
    assert not PII().slow
    reading = signal.read(Query.ask("I am Ann Lee"))
    assert reading.parts["name"]
    assert reading.value == 1
    assert {"name", "address"} <= set(signal.ranges())


def test_without_presidio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match=r"pip install 'fairlead\[presidio\]'"):
        PII(presidio="xx_missing_model").check()


def sent(messages: str = "[]", **fields: str) -> Query:
    """A query as the gateway reads it: all fields as they came."""
    body = {"messages": messages, **fields}
    typed = msgspec.json.decode(messages, type=tuple[Message, ...])
    return Query(id="q", messages=typed, body={k: Raw(v.encode()) for k, v in body.items()})


@pytest.mark.parametrize(
    "query",
    [
        sent('[{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{\\"to\\":\\"ann@example.org\\"}"}}]'),
        sent('[{"role":"assistant","content":[{"type":"refusal","refusal":"not to ann@example.org"}]}]'),
        sent('[{"role":"assistant","content":"x","reasoning_content":"ann@example.org"}]'),
        sent('[{"role":"assistant","content":null,"audio":{"id":"a1","data":"AAAA","transcript":"ann@example.org"}}]'),
        sent('[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"send","input":{"name":"ann@example.org"}}]}]'),
        sent(tools='[{"type":"function","function":{"name":"f","description":"ask ann@example.org"}}]'),
        sent(prediction='{"type":"content","content":"ann@example.org"}'),
        sent(user='"ann@example.org"'),
        sent(metadata='{"name":"ann@example.org"}'),
        sent(metadata='{"ann@example.org":"yes"}'),
        sent(extra='{"id":"x","card":4111111111111111}'),
        sent(extra="[" * 700 + '"ann@example.org"' + "]" * 700),
        talk(Message(role="user", content="[" * 900 + '"ann@example.org"' + "]" * 900)),
    ],
)  # fmt: skip
def test_it_counts_what_mask_would_mask(query: Query) -> None:
    assert read(query).value == 1
    masked_query, values, _ = masked(query, Mask().finder)
    assert len(values) == 1
    assert read(masked_query).value == 0


def test_only_messages_count_where_only_some_are_scanned() -> None:
    query = sent('[{"role":"user","content":"hi"}]', user='"ann@example.org"')
    assert read(query, scan="user").value == read(query, scan="last").value == 0
    assert read(query).value == 1


def test_names_of_the_format_are_no_texts() -> None:
    call = '{"id":"ann@example.org","type":"function","function":{"name":"ann@example.org","arguments":"{}"}}'
    query = sent(
        f'[{{"role":"assistant","name":"ann@example.org","content":null,"tool_calls":[{call}]}}]', model='"a@b.org"'
    )
    assert read(query).value == 0


def test_what_is_large_is_read_off_the_loop_and_may_be_late() -> None:
    signal = PII()
    assert not signal.takes_long(Query.ask("short"))
    assert signal.takes_long(Query.ask("x" * 20_000))
    assert signal.takes_long(talk(Message(role="user", content="x" * 20_000)))
    assert all(r.null for r in signal.ranges().values())
    late = Signals(readings={k: Reading(confidence=0.0, late=True) for k in signal.ranges()})
    for kinds in (None, [], ["email"]):
        for law in (*PII(kinds=kinds).laws(), *PII(kinds=kinds).laws_at((1,))):
            assert holds(parse(law), late), law
