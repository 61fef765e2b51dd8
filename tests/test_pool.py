from math import inf, nan
from typing import Any

import msgspec
import pytest

from fairlead import pool as pool_module
from fairlead.errors import ConfigError, UnknownName
from fairlead.pool import Health, Pool, estimate_tokens
from fairlead.types import Call, Constraints, Failure, Message, Part, Profile, Query, Target

DOWN = Failure(kind="unavailable")


def pool(*targets: Target) -> Pool:
    return Pool(targets=targets or (Target(name="a"), Target(name="b")))


def test_two_targets_cannot_share_a_name() -> None:
    with pytest.raises(ConfigError, match="share a name: a"):
        pool(Target(name="a"), Target(name="a"))


def test_lookup_offers_the_nearest_name() -> None:
    targets = pool(Target(name="small"), Target(name="large"))
    assert targets["small"].name == "small"
    assert "large" in targets
    assert len(targets) == 2
    with pytest.raises(UnknownName, match="did you mean 'small'"):
        targets["smal"]


def test_the_digest_names_the_set_and_not_its_order() -> None:
    a, b = Target(name="a"), Target(name="b", profile=Profile(tags=frozenset("xyz")))
    assert pool(a, b).digest == pool(b, a).digest
    assert pool(a, b).digest != pool(a).digest
    assert pool(a, b).digest != pool(a, Target(name="b")).digest


def test_everybody_who_may_not_act_has_a_reason() -> None:
    targets = pool(
        Target(name="good", profile=Profile(modalities=frozenset({"text", "image"}), context_tokens=1000)),
        Target(name="blind"),
        Target(name="plain", profile=Profile(modalities=frozenset({"text", "image"}), tools=False)),
        Target(name="short", profile=Profile(modalities=frozenset({"text", "image"}), context_tokens=5)),
        Target(name="banned", profile=Profile(modalities=frozenset({"text", "image"}))),
    )
    parts = (Part(text="what is this?"), Part(type="image_url"))
    query = Query(
        id="q",
        messages=(Message(role="user", content=parts),),
        tools=("search",),
        constraints=Constraints(allow=("good", "blind", "plain", "short")),
    )
    found = targets.eligible(query)
    assert [t.name for t in found.targets] == ["good"]
    assert found.excluded == {
        "blind": "cannot take image",
        "plain": "cannot use tools",
        "short": "about 7 tokens do not fit its context of 5",
        "banned": "not among the allowed targets",
    }


def test_unknown_context_is_not_zero() -> None:
    assert len(pool().eligible(Query.ask("word " * 100_000)).targets) == 2


def test_tokens_are_estimated_over_all_messages() -> None:
    messages = (Message(role="system", content="x" * 40), Message(role="user", content="y" * 40))
    assert estimate_tokens(Query(id="q", messages=messages)) == 28


def test_a_target_rests_after_failures_in_a_row_ever_longer() -> None:
    health = Health(failures=3, rest_seconds=5.0, most_seconds=12.0)
    for _ in range(2):
        health.failed("a", DOWN, now=0.0)
    assert health.resting("a", now=0.0) == 0.0
    rests = []
    for _ in range(3):
        health.failed("a", DOWN, now=100.0)
        rests.append(health.resting("a", now=100.0))
    assert rests == [5.0, 10.0, 12.0]
    assert health.resting("a", now=200.0) == 0.0
    health.succeeded("a")
    health.failed("a", DOWN, now=300.0)
    assert health.resting("a", now=300.0) == 0.0


def test_retry_after_is_heeded_up_to_the_most() -> None:
    health = Health(most_seconds=60.0)
    health.failed("a", Failure(kind="rate_limited", retry_after_seconds=7.0), now=0.0)
    assert health.resting("a", now=1.0) == 6.0
    health.failed("b", Failure(kind="rate_limited", retry_after_seconds=9999.0), now=0.0)
    assert health.resting("b", now=0.0) == 60.0


@pytest.mark.parametrize("kind", ["bad_request", "budget", "client_gone", "deadline", "context_too_long", "internal"])
def test_what_is_not_the_targets_fault_is_not_held_against_it(kind: object) -> None:
    health = Health(failures=1)
    health.failed("a", Failure(kind=kind), now=0.0)  # type: ignore[arg-type]
    assert health.resting("a", now=0.0) == 0.0


def test_a_resting_target_is_not_eligible() -> None:
    targets = pool()
    targets.health.failed("a", Failure(kind="rate_limited", retry_after_seconds=30.0))
    found = targets.eligible(Query.ask("hello"))
    assert [t.name for t in found.targets] == ["b"]
    assert found.excluded["a"].startswith("resting for")


def test_what_an_assistant_said_before_excludes_nobody() -> None:
    parts = tuple(Part(type=kind) for kind in ("refusal", "output_text", "input_text"))
    messages = (Message(role="assistant", content=parts), Message(role="user", content="and now?"))
    assert len(pool().eligible(Query(id="q", messages=messages)).targets) == 2


# ------------------------------------------------------------------------------------------------- what a call may cost


def bound(params: dict[str, Any] | None = None, *, profile: dict[str, Any] | None = None, **body: Any) -> Any:
    """Estimate one call to a target whose output alone has a price: so many tokens."""
    known = Profile(**{"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e6, **(profile or {})})
    return pool(Target(name="a", profile=known)).estimate_usd(
        Call(target="a", params=params or {}), Query.ask("hello", **body)
    )


def test_an_estimate_without_a_price_is_unknown() -> None:
    assert pool().estimate_usd(Call(target="a"), Query.ask("x")) is None
    assert pool().estimate_usd(Call(target="ghost"), Query.ask("x")) is None
    assert bound(profile={"output_usd_per_mtok": None}) is None
    assert bound(profile={"output_usd_per_mtok": 0.0}) == 0.0


def test_output_is_bounded_by_what_the_call_then_the_query_then_the_profile_says() -> None:
    assert bound() == 1024
    assert bound(profile={"max_output_tokens": 50}) == 50
    assert bound(max_tokens=70) == 70
    assert bound(max_tokens=70, profile={"max_output_tokens": 50}) == 50
    assert bound({"max_tokens": 200}, max_tokens=70) == 200
    assert bound({"max_tokens": 20}, max_tokens=70) == 20
    # A target may heed either.
    assert bound({"max_tokens": 20}, max_completion_tokens=70) == 70


def test_every_answer_of_a_call_is_counted() -> None:
    assert bound(max_tokens=10, n=50) == 500
    assert bound({"n": 3}, max_tokens=10, n=50) == 30


@pytest.mark.parametrize("odd", [-(10**6), 0, None, True, "many", [], {}, nan, inf, -inf, object(), 10**400], ids=type)
def test_odd_numbers_never_free_budget_and_never_raise(odd: Any) -> None:
    for field in ("max_tokens", "max_completion_tokens", "n"):
        found = bound({field: odd})
        assert 1024 <= found < inf
    raw = Query.ask("x")
    raw = msgspec.structs.replace(
        raw, body={**raw.body, "max_tokens": msgspec.Raw(b"{"), "n": msgspec.Raw(b"[" * 9999)}
    )
    target = Target(name="a", profile=Profile(input_usd_per_mtok=0.0, output_usd_per_mtok=1e6))
    assert pool(target).estimate_usd(Call(target="a"), raw) == 1024


def test_the_whole_input_is_counted() -> None:
    def cost(params: dict[str, Any] | None = None, messages: tuple[Message, ...] | None = None, **body: Any) -> float:
        target = Target(name="a", profile=Profile(input_usd_per_mtok=1e6, output_usd_per_mtok=0.0))
        call = Call(target="a", params=params or {}, messages=messages)
        found = pool(target).estimate_usd(call, Query.ask("hello", **body))
        assert found is not None
        return found

    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 3000}}]
    plain = cost()
    assert plain == 10
    assert cost(tools=tools) > plain + 1000
    assert cost(response_format={"schema": "x" * 3000}) > plain + 1000
    assert cost({"tools": tools}) > plain + 1000
    assert cost({"tools": []}, tools=tools) < plain + 10
    called = ({"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 3000}},)
    assert cost(messages=(Message(role="assistant", tool_calls=called),)) > 1000


def test_a_target_without_a_price_may_not_act_under_a_budget() -> None:
    pool = Pool(
        targets=[
            Target(name="free", profile=Profile(input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)),
            Target(name="unknown"),
        ]
    )
    eligible = pool.eligible(Query.ask("x", constraints=Constraints(max_usd=1.0)))
    assert [t.name for t in eligible.targets] == ["free"]
    assert "no known price" in eligible.excluded["unknown"]
    assert len(pool.eligible(Query.ask("x")).targets) == 2


def test_a_target_that_may_cost_more_than_the_budget_may_not_act() -> None:
    dear = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1000.0)
    cheap = Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    pool = Pool(targets=[Target(name="dear", profile=dear), Target(name="cheap", profile=cheap)])
    eligible = pool.eligible(Query.ask("x", max_tokens=100, constraints=Constraints(max_usd=0.01)))
    assert [t.name for t in eligible.targets] == ["cheap"]
    assert "budget" in eligible.excluded["dear"]


def test_nobody_writes_beyond_its_context() -> None:
    profile = Profile(input_usd_per_mtok=0.0, output_usd_per_mtok=1e6)
    pool = Pool(
        targets=[
            Target(name="small", profile=msgspec.structs.replace(profile, context_tokens=256)),
            Target(name="large", profile=msgspec.structs.replace(profile, context_tokens=128_000)),
        ]
    )
    query = Query.ask("x" * 80)
    assert pool.estimate_usd(Call(target="small"), query) == pytest.approx(256 - 10)
    assert pool.estimate_usd(Call(target="large"), query) == pytest.approx(1024)


def test_a_prompt_is_measured_once_for_all_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []
    whole = pool_module._bytes
    monkeypatch.setattr(pool_module, "_bytes", lambda value: measured.append(value) or whole(value))
    priced = Profile(input_usd_per_mtok=3.0, output_usd_per_mtok=0.0)
    targets = pool(*(Target(name=f"t{i}", profile=priced) for i in range(10)))
    query = Query.ask("hé" * 300, constraints=Constraints(max_usd=1.0), tools=["x"])
    assert len(targets.eligible(query, left_usd=1.0).targets) == 10
    assert len(measured) == 1
    # 300 ASCII characters, 300 others, a field of five bytes and a message.
    usd = 3.0 * (100 + 450 + 2 + 8) / 1e6
    assert targets.estimate_usd(Call(target="t0"), query) == pytest.approx(usd)
    own = Call(target="t0", messages=(Message(role="user", content="hey"),))
    assert targets.estimate_usd(own, query) == pytest.approx(3.0 * (1 + 2 + 8) / 1e6, rel=0.1)
