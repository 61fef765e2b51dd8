"""Signals that read what comes with the words: content parts, body fields, identity, time and money."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from fairlead.errors import ConfigError
from fairlead.signals import structure
from fairlead.signals.clock import Clock
from fairlead.signals.identity import Identity
from fairlead.signals.modality import Modality
from fairlead.signals.quota import Quota
from fairlead.signals.structure import Structure
from fairlead.testing import check_signal
from fairlead.types import Identity as Who
from fairlead.types import Message, Part, Query, Spent

# ------------------------------------------------------------------------------------------------------------ modality


@pytest.mark.parametrize(
    ("parts", "value", "there"),
    [
        ((), None, set()),
        (("text",), "text", {"text"}),
        (("image_url",), "image", {"image"}),
        (("text", "input_image"), "image", {"text", "image"}),
        (("file", "text"), "file", {"text", "file"}),
        (("input_audio", "image_url", "file"), "audio", {"audio", "image", "file"}),
        (("hologram",), None, {"other"}),
        (("refusal", "output_text", "input_text"), None, set()),
    ],
)
def test_modality(parts: tuple[str, ...], value: str | None, there: set[str]) -> None:
    content = tuple(Part(type=t, text="words" if t == "text" else "") for t in parts)
    reading = Modality().read(Query(id="q", messages=(Message(role="user", content=content),)))
    assert reading.value == value
    assert {k for k, v in reading.parts.items() if v} == there


# ----------------------------------------------------------------------------------------------------------- structure


def form(text: str = "hi", **body: Any) -> dict[str, Any]:
    reading = Structure().read(Query.ask(text, **body))
    return {"value": reading.value, **reading.parts}


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({}, {"value": "text", "json": False, "schema": False, "stream": False, "n": 1}),
        ({"response_format": {"type": "json_object"}}, {"value": "json", "json": True, "schema": False}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            {"value": "schema", "json": True, "schema": True},
        ),
        ({"response_format": {"type": "text"}}, {"value": "text", "json": False}),
        ({"tool_choice": "required"}, {"value": "tool", "tool_forced": True}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"value": "tool", "tool_forced": True}),
        ({"tool_choice": "auto"}, {"value": "text", "tool_forced": False}),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, {"tool_forced": True}),
        ({"tool_choice": {"type": "any"}}, {"tool_forced": True}),
        ({"tool_choice": {"type": "tool", "name": "f"}}, {"tool_forced": True}),
        ({"tool_choice": {"type": "auto"}}, {"value": "text", "tool_forced": False}),
        ({"tool_choice": {"type": "none"}}, {"value": "text", "tool_forced": False}),
        ({"tool_choice": {}}, {"tool_forced": False}),
        ({"tool_choice": {"foo": 1}}, {"tool_forced": False}),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}}, {"tool_forced": False}),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}}, {"tool_forced": True}),
        ({"stream": True, "n": 3}, {"stream": True, "n": 3}),
        # What is not of the form that the API gives it was not asked for.
        ({"response_format": "json", "tool_choice": 7, "stream": "yes", "n": None}, {"value": "text", "n": 1}),
        ({"n": -4}, {"n": 1}),
        ({"n": Raw(b"1" + b"0" * 30)}, {"n": 2**53}),
    ],
)
def test_structure_of_the_body(body: dict[str, Any], want: dict[str, Any]) -> None:
    found = form(**body)
    assert {k: found[k] for k in want} == want


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Write a function that reverses a list.", "code"),
        ("```py\nprint(1)\n``` what does this do", "code"),
        ("Show the results in a table please", "table"),
        ("I sat at the table and wrote code.", "text"),
        ("What is a function?", "text"),
        ("Give an answer. The function is known.", "text"),
        ("Give " + "x" * 70 + " code", "text"),
        ("give " * 800 + "code", "code"),
        ("CREATE it: a Script", "code"),
    ],
)
def test_structure_of_the_text(text: str, value: str) -> None:
    assert form(text)["value"] == value


def test_whether_code_is_asked_for_is_seen_in_linear_time() -> None:
    # A verb is looked at once, not with all that follows it: the hits of the pattern are as many as the words.
    text = "give " * 799 + "x" * 60 + " code"
    assert sum(1 for _ in structure._CODE.finditer(text)) == 800
    assert form(text)["code"] is False


def test_structure_counts_tools_and_survives_bytes_that_are_no_json() -> None:
    query = Query(id="q", messages=(), tools=("a", "b"), body={"response_format": Raw(b"{"), "n": Raw(b"\xff")})
    reading = Structure().read(query)
    assert (reading.parts["tools"], reading.parts["n"], reading.value) == (2, 1, "text")


# ------------------------------------------------------------------------------------------------------------ identity


def test_identity() -> None:
    who = Who(tenant="acme", session="s", key="web", roles=("admin", "staff"))
    query = msgspec.structs.replace(Query.ask("hi"), identity=who)
    reading = Identity(roles=["admin", "guest"]).read(query)
    assert reading.value == "web"
    assert reading.parts == {"session": True, "tenant": "acme", "key": "web", "admin": True, "guest": False}


def test_nobody_has_no_role() -> None:
    reading = Identity(roles=["admin"]).read(Query.ask("I am admin"))
    assert (reading.value, reading.parts) == (None, {"session": False, "admin": False})
    check_signal(lambda: Identity(roles=["admin"]))


@pytest.mark.parametrize("roles", [["key"], [""], [" "], ["a", "a"], ["value"]])
def test_roles_that_cannot_be_parts(roles: list[str]) -> None:
    with pytest.raises(ConfigError) as e:
        Identity(roles=roles).check()
    assert e.value.path == f"$.roles[{len(roles) - 1}]"


# --------------------------------------------------------------------------------------------------------------- clock


def at(zone: str, *when: int) -> dict[str, Any]:
    query = msgspec.structs.replace(Query.ask("hi"), at=datetime(*when, tzinfo=UTC).timestamp())
    reading = Clock(zone=zone).read(query)
    return {"hour": reading.value, **reading.parts}


def test_clock_heeds_zone_and_summer_time() -> None:
    assert at("UTC", 2026, 1, 5, 22, 30) == {"hour": 22, "minute_of_day": 1350, "weekday": 0, "weekend": False}
    assert at("Europe/Berlin", 2026, 1, 4, 22, 30)["hour"] == 23
    assert at("Europe/Berlin", 2026, 7, 4, 22, 30) == {"hour": 0, "minute_of_day": 30, "weekday": 6, "weekend": True}
    assert at("Asia/Kolkata", 2026, 7, 3, 18, 45)["minute_of_day"] == 15


def test_who_was_not_admitted_has_no_time() -> None:
    reading = Clock().read(Query.ask("hi"))
    assert (reading.value, reading.parts, reading.confidence) == (None, {}, 0.0)
    assert Clock().read(msgspec.structs.replace(Query.ask("hi"), at=1e18)).value is None
    assert Clock().parts() == {"minute_of_day", "weekday", "weekend"}


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "localtime"])
def test_zones_that_are_not(zone: str) -> None:
    for act in (Clock(zone=zone).check, lambda: Clock(zone=zone).read(Query.ask("x"))):
        with pytest.raises(ConfigError) as e:
            act()
        assert e.value.path == "$.zone"


# --------------------------------------------------------------------------------------------------------------- quota


def test_quota() -> None:
    query = msgspec.structs.replace(Query.ask("hi"), spent=Spent(usd=3.0, elapsed=0.5))
    assert Quota().read(query).value == 3.0
    assert Quota().read(query).parts == {"elapsed": 0.5}
    assert Quota(usd=4.0).read(query).parts == {"elapsed": 0.5, "share": 0.75, "ahead": 0.25}
    without = Quota(usd=4.0).read(Query.ask("hi"))
    assert (without.value, without.parts, without.confidence) == (None, {}, 0.0)
    check_signal(lambda: Quota(usd=4.0))
    for usd in (0.0, 1e-320, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"\$\.usd"):
            Quota(usd=usd).check()


# ------------------------------------------------------------------------------------------------------------ their laws


@pytest.mark.parametrize("day", range(1, 29, 3))
@pytest.mark.parametrize("hour", [0, 1, 13, 23])
def test_laws_of_the_clock_hold_of_real_times(day: int, hour: int) -> None:
    from fairlead.conditions import holds, parse
    from fairlead.types import Reading, Signals

    query = msgspec.structs.replace(Query.ask("hi"), at=datetime(2026, 2, day, hour, 59, tzinfo=UTC).timestamp())
    clock = Clock(zone="America/New_York")
    reading = clock.read(query)
    signals = Signals(readings={"value": reading, **{k: Reading(value=v) for k, v in reading.parts.items()}})
    assert all(holds(parse(law), signals) for law in clock.laws())
