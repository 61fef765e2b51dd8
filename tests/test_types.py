import copy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.component import digest, pack
from fairlead.types import (
    Call,
    Constraints,
    Failure,
    Message,
    Outcome,
    Part,
    Profile,
    Query,
    Reading,
    Signals,
    Target,
    Tokens,
)


def test_ask_makes_one_user_message_and_keeps_the_body() -> None:
    query = Query.ask("Hello", id="q", temperature=0.5, constraints=Constraints(max_calls=2))
    assert query.text == "Hello"
    assert msgspec.json.decode(query.body["temperature"]) == 0.5
    assert msgspec.json.decode(query.body["messages"]) == [{"role": "user", "content": "Hello"}]
    assert query.constraints.max_calls == 2
    assert Query.ask("x").id != Query.ask("x").id


def test_text_is_that_of_the_last_user() -> None:
    said = [Message(role=r, content=t) for r, t in (("user", "one"), ("user", "two"), ("assistant", "three"))]
    assert Query(id="q", messages=tuple(said)).text == "two"
    assert Query(id="q", messages=(said[2],)).text == "three"
    assert Query(id="q", messages=()).text == ""
    parts = (Part(text="look"), Part(type="image_url"), Part(text="here"))
    query = Query(id="q", messages=(Message(role="user", content=parts),))
    assert query.text == "look\nhere"
    assert query.modalities == {"text", "image"}
    assert Message(role="assistant").text == ""


def test_signals_are_read_by_name_and_part() -> None:
    signals = Signals(readings={"length": Reading(value=3, parts={"words": 1})})
    assert signals.get("length") == 3
    assert signals.get("length.words") == 1
    assert signals.get("length.lines") is None
    assert signals.get("marks") is None


def test_prices() -> None:
    profile = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0)
    assert profile.usd(Tokens(input=1_000_000, output=500_000)) == pytest.approx(3.0)
    cached = msgspec.structs.replace(profile, cached_input_usd_per_mtok=0.1)
    assert cached.usd(Tokens(input=1_000_000, cached_input=400_000)) == pytest.approx(0.64)
    assert profile.usd(Tokens(input=1_000_000, cached_input=400_000)) == pytest.approx(1.0)
    assert Profile(input_usd_per_mtok=1.0).usd(Tokens(output=1)) is None
    assert Profile(input_usd_per_mtok=0.0, output_usd_per_mtok=0.0).usd(Tokens(input=9)) == 0.0


def test_equal_profiles_are_written_alike() -> None:
    written = [
        Profile(),
        copy.deepcopy(Profile()),
        Profile(modalities=frozenset(["text"]), tags=frozenset([])),
        msgspec.convert({"modalities": ["text"], "tags": []}, Profile),
    ]
    assert {digest(pack(msgspec.to_builtins(p))) for p in written} == {digest(pack({}))}


def test_who_may_try_elsewhere() -> None:
    assert Failure(kind="timeout").elsewhere
    assert Failure(kind="context_too_long").elsewhere
    assert not Failure(kind="bad_request").elsewhere
    assert Failure(kind="budget").elsewhere, "a cheaper target may still fit"
    assert Outcome().ok
    assert not Outcome(cancelled=True).ok
    assert not Outcome(error=Failure(kind="auth")).ok


def test_nouns_are_frozen_and_keyword_only() -> None:
    target = Target(name="a")
    with pytest.raises(AttributeError):
        target.name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Call("a")  # type: ignore[misc]


def test_tokens_of_each_kind_are_priced_once() -> None:
    """Cached, written, heard and thought tokens are parts of the sums, and none is paid for twice."""
    tokens = Tokens(input=1000, cached_input=400, cache_write=100, audio_input=50, output=300, reasoning=200)
    assert tokens.kinds() == {
        "cached_input": 400,
        "cache_write": 100,
        "audio_input": 50,
        "input": 450,
        "reasoning": 200,
        "output": 100,
    }
    profile = Profile(
        input_usd_per_mtok=1.0,
        cached_input_usd_per_mtok=0.1,
        cache_write_usd_per_mtok=1.25,
        audio_input_usd_per_mtok=10.0,
        output_usd_per_mtok=4.0,
    )
    want = 450 * 1.0 + 400 * 0.1 + 100 * 1.25 + 50 * 10.0 + 300 * 4.0
    assert profile.usd(tokens) == pytest.approx(want / 1e6, rel=1e-12)
    assert Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0).usd(tokens) is None, "a write has no known price"
    assert Profile(input_usd_per_mtok=1.0).usd(Tokens(input=5)) == 5e-6, "what is not there needs no price"
    assert profile.usd(Tokens(input=5, output=5, extras=1)) is None, "a search that the provider ran"


@given(st.lists(st.integers(0, 50), min_size=9, max_size=9))
def test_kinds_always_sum_to_the_whole(counts: list[int]) -> None:
    tokens = Tokens(**dict(zip(Tokens.__struct_fields__, counts, strict=True)))
    kinds = tokens.kinds()
    assert sum(kinds.values()) == tokens.input + tokens.output
    assert all(v > 0 for v in kinds.values())
