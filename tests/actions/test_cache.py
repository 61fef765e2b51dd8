"""The cache: what is answered again and what never is, one call for equal questions, whoever leaves, and what a broken store may do."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from fairlead.actions.base import Passage
from fairlead.actions.cache import Cache
from fairlead.caches.anchors import anchors, words
from fairlead.caches.memory import Memory
from fairlead.caches.sqlite import SQLite
from fairlead.config import make
from fairlead.embeddings.base import Embedder
from fairlead.errors import CacheError, ConfigError
from fairlead.gateway.app import Gateway
from fairlead.gateway.server import Server
from fairlead.plans.single import Single
from fairlead.targets.scripted import Reply
from fairlead.testing import check_action
from fairlead.types import (
    Constraints,
    Decision,
    Failure,
    Identity,
    Message,
    Option,
    Outcome,
    Part,
    Query,
    Signals,
    Step,
    Tokens,
)
from fairlead.worlds.base import Run

COLD: dict[str, Any] = {"temperature": 0}


def ask(text: str = "what is 2+2?", *, who: Identity | None = None, **body: Any) -> Query:
    query = Query.ask(text, **{**COLD, **body})
    return query if who is None else replace(query, identity=who)


def passage_of(
    query: Query,
    *,
    eligible: tuple[str, ...] = ("small", "big"),
    target: str = "small",
    **decided: Any,
) -> Passage:
    plan = Single(target=target)
    options = (Option(plan=plan, probability=1.0),)
    decision = Decision(options=options, chosen=0, propensity=1.0, eligible=eligible, **decided)
    return Passage(query=query, signals=Signals(), decision=decision, plan=plan, sink=None)


class Upstream:
    """What lies behind the cache: counts its calls, and answers when it is let."""

    def __init__(self, *answers: Outcome | str, wait: bool = False) -> None:
        self.answers, self.calls, self.gate = answers, 0, asyncio.Event()
        self.seen: list[Passage] = []
        if not wait:
            self.gate.set()

    async def __call__(self, passage: Passage) -> Outcome:
        self.calls += 1
        self.seen.append(passage)
        n = self.calls
        await self.gate.wait()
        await asyncio.sleep(0)
        answer = self.answers[(n - 1) % len(self.answers)] if self.answers else f"answer {n}"
        return good(answer) if isinstance(answer, str) else answer


def good(text: str = "four", **more: Any) -> Outcome:
    fields = {"target": "small", "model": "m", "finish": "stop", "usd": 0.1, "tokens": Tokens(input=9, output=1)}
    return Outcome(text=text, **{**fields, **more})


@contextlib.asynccontextmanager
async def started(*caches: Cache) -> AsyncIterator[None]:
    for cache in caches:
        await cache.start()
    try:
        yield
    finally:
        for cache in caches:
            await cache.stop()


async def through(cache: Cache, query: Query, upstream: Upstream, **more: Any) -> tuple[Outcome, Passage]:
    passage = passage_of(query, **more)
    return await cache.act(passage, upstream), passage


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def test_contract() -> None:
    check_action(Cache)
    check_action(lambda: Cache(store=Memory(max_entries=5), similar=0.9, sampled=True))


# ------------------------------------------------------------------------------------------------------ again, or not


async def test_an_equal_question_is_answered_again_and_costs_nothing() -> None:
    cache, upstream = Cache(), Upstream()
    async with started(cache):
        first, p = await through(cache, ask(), upstream)
        assert (p.acts[0].did, p.tags) == ("stored", {"cache": "miss"})
        again, q = await through(cache, ask(stream=True, user="x", metadata={"a": "b"}), upstream)
        assert upstream.calls == 1
        assert (again.text, again.target, again.model, again.finish) == (first.text, "small", "m", "stop")
        assert (again.usd, again.tokens, again.streamed, again.reply) == (0.0, Tokens(), False, b"")
        assert 0.0 < again.seconds < 1.0
        assert (q.acts[0].did, q.tags) == ("hit", {"cache": "hit"})
        assert q.acts[0].detail["of"] == p.query.id
        assert "2+2" not in repr((p.acts, q.acts))
        assert cache.counts == {"stored": 1, "hit": 1}


async def test_spaces_escapes_and_order_of_keys_do_not_matter_and_all_else_does() -> None:
    def raw(**fields: str) -> Query:
        return replace(ask("é"), body={k: msgspec.Raw(v.encode()) for k, v in fields.items()})

    cache, upstream = Cache(), Upstream()
    async with started(cache):
        one = '[{"role":"user","content":"é","name":"n"}]'
        await through(cache, raw(messages=one, temperature="0", stop='["a"]'), upstream)
        two = '[ {"name": "n", "content": "\\u00e9", "role": "user"} ]'
        await through(cache, raw(stop='[ "a" ]', temperature="0 ", messages=two), upstream)
        assert upstream.calls == 1
        for n, other in enumerate(('["b"]', '"a"', "null", '["a","b"]')):
            await through(cache, raw(messages=one, temperature="0", stop=other), upstream)
            assert upstream.calls == 2 + n


@given(
    first=st.sampled_from(range(11)),
    second=st.sampled_from(range(11)),
    likely=st.booleans(),
)
def test_nothing_leaks_between_whatever_an_answer_depends_on(first: int, second: int, likely: bool) -> None:
    """Any two that differ in tenant, key, model, parameters, system prompt, turns, actions or question have different answers."""
    system = {"role": "system", "content": "be brief"}
    said = {"role": "user", "content": "what is it?"}
    variants: list[tuple[Query, tuple[str, ...]]] = [
        (ask(messages=[said]), ()),
        (ask(messages=[said], who=Identity(tenant="acme")), ()),
        (ask(messages=[said], who=Identity(key="acme")), ()),
        (ask(messages=[said], who=Identity(tenant="acme", key="acme")), ()),
        (replace(ask(messages=[said]), route="other"), ()),
        (ask(messages=[said], max_tokens=5), ()),
        (ask(messages=[system, said]), ()),
        (ask(messages=[{**system, "role": "developer"}, said]), ()),
        (ask(messages=[said, {"role": "assistant", "content": "x"}, said]), ()),
        (ask(messages=[said]), ("careful",)),
        (replace(ask(messages=[said]), constraints=Constraints(prefer={"terse": 0.1})), ()),
    ]

    async def both() -> int:
        cache, upstream = Cache(similar=0.5 if likely else None), Upstream()
        async with started(cache):
            answers = []
            for i in (first, second):
                query, actions = variants[i]
                answers.append((await through(cache, query, upstream, actions=actions))[0].text)
            assert (answers[0] == answers[1]) == (first == second)
            return upstream.calls

    assert asyncio.run(both()) == (1 if first == second else 2)


async def test_fields_are_told_from_messages() -> None:
    """A question must not pass for another by putting a field's bytes into a message."""
    cache, upstream = Cache(), Upstream()
    async with started(cache):
        texts = ["a", 'temperature=0","b']
        for text in texts:
            await through(cache, ask(text), upstream)
            await through(cache, ask(text, stop="b"), upstream)
        assert upstream.calls == 4


@pytest.mark.parametrize(
    ("body", "cached"),
    [
        ({}, True),
        ({"temperature": None}, False),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.7}, False),
        ({"n": 2}, False),
        ({"n": 1}, True),
        ({"n": None}, True),
        ({"logprobs": True}, False),
        ({"logprobs": False}, True),
        ({"tools": [{"type": "function", "function": {"name": "pay"}}]}, False),
        ({"functions": [{"name": "pay"}]}, False),
        ({"tools": []}, True),
        ({"web_search_options": {}}, False),
        ({"audio": {"voice": "a"}}, False),
        ({"seed": 7}, True),
    ],
)
async def test_what_is_never_answered_from_here(body: dict[str, Any], cached: bool) -> None:
    cache, upstream = Cache(), Upstream()
    async with started(cache):
        for _ in range(2):
            _, p = await through(cache, ask(**body), upstream)
        assert upstream.calls == (1 if cached else 2)
        assert p.tags["cache"] == ("hit" if cached else "skipped")
        assert cached or p.acts[0].detail["why"] in ("sampled", "not kept", "tools")


async def test_sampled_and_tools_may_be_asked_for() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    unsaid, warm = ask(temperature=None), ask(temperature=0.7)
    for cache, query, calls in (
        (Cache(sampled="unsaid"), unsaid, 1),
        (Cache(sampled="unsaid"), warm, 2),
        (Cache(sampled=True), unsaid, 1),
        (Cache(sampled=True), warm, 1),
        (Cache(tools=True), replace(ask(tools=tools), tools=("look",)), 1),
    ):
        calling = good("", finish="tool_calls", tool_calls=msgspec.Raw(b'[{"id":"c"}]'))
        upstream = Upstream(calling if cache.tools else good())
        async with started(cache):
            for _ in range(2):
                outcome, _ = await through(cache, query, upstream)
            assert upstream.calls == calls
            assert not cache.tools or bytes(outcome.tool_calls or b"") == b'[{"id":"c"}]'


async def test_a_tool_call_nobody_allowed_is_not_kept() -> None:
    cache = Cache()
    upstream = Upstream(good("calling", tool_calls=msgspec.Raw(b'[{"id":"c"}]')))
    async with started(cache):
        for _ in range(2):
            _, p = await through(cache, ask(), upstream)
        assert upstream.calls == 2
        assert p.acts[0].detail == {"why": "tools"}


@pytest.mark.parametrize(
    "answer",
    [
        Outcome(target="small", error=Failure(kind="unavailable")),
        good("half", error=Failure(kind="broken_stream"), streamed=True),
        good("cut", finish="length"),
        good("", finish="stop"),
        good("bad", finish="content_filter"),
        good("who knows", finish=""),
        good("gone", cancelled=True),
    ],
)
async def test_only_whole_good_answers_are_kept(answer: Outcome) -> None:
    cache, upstream = Cache(), Upstream(answer)
    async with started(cache):
        for _ in range(2):
            outcome, p = await through(cache, ask(), upstream)
            assert outcome == answer
            assert p.acts[0].did == "missed"
        assert upstream.calls == 2
        assert await cache.store.count() == (0, 0)


async def test_what_the_trace_may_not_keep_is_not_kept_here() -> None:
    cache, upstream = Cache(), Upstream()

    async def blanks(passage: Passage) -> Outcome:
        passage.keep_text = False
        return await upstream(passage)

    async with started(cache):
        await cache.act(passage_of(ask()), blanks)
        assert await cache.store.count() == (0, 0)


async def test_what_a_limit_cut_short_is_not_kept() -> None:
    cache, upstream = Cache(), Upstream()
    late = Step(path=(1,), outcome=Outcome(error=Failure(kind="budget")))

    async def limited(passage: Passage) -> Outcome:
        outcome = await upstream(passage)
        passage.result = Run.of(outcome, [late], 0.1)
        return outcome

    async with started(cache):
        passage = passage_of(ask())
        await cache.act(passage, limited)
        assert passage.acts[0].detail == {"why": "a limit cut it short"}
        assert await cache.store.count() == (0, 0)


async def test_scopes() -> None:
    ann, bob = Identity(tenant="t", user="ann", session="1"), Identity(tenant="t", user="bob", session="1")
    nobody = Identity(tenant="t")
    for scope, who, calls in (
        ("tenant", (ann, bob, nobody), 1),
        ("user", (ann, bob, ann), 2),
        ("user", (nobody, nobody), 2),
        ("session", (ann, bob, replace(ann, session="2")), 2),
    ):
        cache, upstream = Cache(scope=scope), Upstream()  # type: ignore[arg-type]
        async with started(cache):
            for identity in who:
                await through(cache, ask(who=identity), upstream)
            assert upstream.calls == calls, scope


async def test_an_answer_is_given_only_where_its_target_may_act() -> None:
    cache, upstream = Cache(), Upstream(good("small said"), good("big said", target="big"))
    async with started(cache):
        await through(cache, ask(), upstream)
        outcome, p = await through(cache, ask(), upstream, eligible=("big",))
        assert (outcome.text, p.tags["cache"]) == ("big said", "miss")
        assert (await through(cache, ask(), upstream, eligible=("big",)))[0].text == "big said"
        assert upstream.calls == 2


async def test_an_answer_is_not_given_to_whoever_insists_on_another_target() -> None:
    cache, upstream = Cache(), Upstream(good("small said"), good("big said", target="big"))
    async with started(cache):
        await through(cache, ask(), upstream)
        insists: dict[str, Any] = {"target": "big", "fallbacks": ()}
        for tag in ("miss", "hit"):
            outcome, p = await through(cache, ask(), upstream, **insists)
            assert (outcome.text, p.tags["cache"]) == ("big said", tag)
        outcome, _ = await through(cache, ask(), upstream, fallbacks=(Single(target="big"),))
        assert outcome.text == "big said", "whom a fallback names may answer"
        assert upstream.calls == 2


async def test_answers_age_and_versions_and_forgetting() -> None:
    store = Memory()
    old, new = Cache(store=store), Cache(store=store, version="2", ttl_seconds=0.4)
    upstream = Upstream()
    async with started(old):
        new.counts, new._flights, new._tasks, new._spell, new._workers = old.counts, {}, set(), 0, None
        await through(old, ask(), upstream)
        await through(new, ask(), upstream)
        assert upstream.calls == 2
        await through(new, ask(), upstream)
        assert upstream.calls == 2
        await asyncio.sleep(0.5)
        _, p = await through(new, ask(), upstream)
        assert upstream.calls == 3
        assert await old.forget(p.query.id) == 1
        await through(new, ask(), upstream)
        assert upstream.calls == 4
        assert await old.clear() == 2


@pytest.mark.parametrize("scope", ["tenant", "user"])
async def test_a_tenants_or_a_users_answers_are_dropped_whatever_else_their_callers_are(scope: Any) -> None:
    cache, upstream = Cache(scope=scope), Upstream()
    ann, bob = Identity(key="k1", tenant="acme", user="ann"), Identity(key="k2", tenant="acme", user="bob", session="s")
    async with started(cache):
        for who in (ann, bob, Identity(key="k3", tenant="other", user="ann")):
            await through(cache, ask(who=who), upstream)
        assert await cache.clear(Identity(tenant="ann")) == 0
        assert await cache.clear(Identity(tenant="acme", user="nobody")) == 0
        assert await cache.clear(Identity(tenant="acme", session="s")) == 1
        assert await cache.clear(Identity(user="ann")) == 2
        for who in (ann, bob):
            await through(cache, ask(who=who), upstream)
        assert await cache.clear(Identity(tenant="acme")) == 2
        with pytest.raises(ValueError, match="to drop all answers, give none"):
            await cache.clear(Identity(roles=("admin",)))


async def test_what_checks_told_the_client_is_told_again() -> None:
    cache, upstream = Cache(), Upstream()

    async def checked(passage: Passage) -> Outcome:
        passage.tags["facts"] = "unsupported"
        return await upstream(passage)

    async with started(cache):
        for _ in range(2):
            passage = passage_of(ask())
            await cache.act(passage, checked)
        assert passage.tags == {"facts": "unsupported", "cache": "hit"}


async def test_strange_bodies_are_passed_by() -> None:
    cache, upstream = Cache(similar=0.9), Upstream()
    async with started(cache):
        for body in ({"messages": []}, {"messages": "x"}, {"messages": {"a": 1}}):
            _, p = await through(cache, ask(**body), upstream)
            assert p.acts[0].detail["why"] == "not understood"
        deep = replace(ask(), body={**ask().body, "x": msgspec.Raw(b"[" * 100_000 + b"]" * 100_000)})
        outcome, _ = await through(cache, deep, upstream)
        assert outcome.ok
        typed = Query(
            id="typed", messages=(Message(role="user", content="hi"),), body={"temperature": msgspec.Raw(b"0")}
        )
        for _ in range(2):
            _, p = await through(cache, typed, upstream)
        assert p.tags["cache"] == "hit"


# ------------------------------------------------------------------------------------------------------- like questions


async def test_like_questions() -> None:
    cache, upstream = Cache(similar=0.8), Upstream()
    async with started(cache):
        await through(cache, ask("How do I reset my password?"), upstream)
        outcome, p = await through(cache, ask("how do i reset my  password"), upstream)
        assert (upstream.calls, outcome.text, p.tags["cache"]) == (1, "answer 1", "similar")
        assert 0.8 <= float(p.acts[0].detail["similarity"]) <= 1.0
        await through(cache, ask("Who wrote the Aeneid?"), upstream)
        assert upstream.calls == 2


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Is 17 a prime number?", "Is 18 a prime number?"),
        ("what is 12+345?", "what is 67+890?"),
        ("May I take it with milk?", "May I not take it with milk?"),
        ("Can I take it with milk?", "Can't I take it with milk?"),
        ("Did Alice pay Bob?", "Did Bob pay Alice?"),
        ("did alice pay bob?", "did bob pay alice?"),
        ("我比你高吗", "你比我高吗"),
        ("flights from Rome to Oslo", "flights from Oslo to Rome"),
        ("what does `is_open` do?", "what does `is_shut` do?"),
        ("how long before the exam may I eat?", "how long after the exam may I eat?"),
        ("Darf ich das mit Milch nehmen?", "Darf ich das nicht mit Milch nehmen?"),
        ("open https://a.example/x now", "open https://a.example/y now"),
        ("give me two examples of it", "give me three examples of it"),
    ],
)
async def test_what_turns_a_question_around_is_seen(one: str, two: str) -> None:
    assert anchors(one) != anchors(two) or (words(one)[0] == words(two)[0] and words(one)[1] != words(two)[1])
    cache, upstream = Cache(similar=0.01), Upstream()
    async with started(cache):
        for text in (one, two):
            await through(cache, ask(text), upstream)
        assert upstream.calls == 2


def test_anchors_do_not_see_spelling_and_first_words() -> None:
    assert anchors("How do I do it? Please tell.") == anchors("how do I do it Please tell").replace(
        b"Please", b""
    ).strip(b"\0")
    assert anchors("tell me, how to do it") == anchors("How to do it? Tell me!") == b""
    assert anchors("don\u2019t") == anchors("Don't") == b"don't"


async def test_likeness_is_for_texts_alone_and_all_before_must_be_equal() -> None:
    cache, upstream = Cache(similar=0.5), Upstream()
    said = "How do I reset my password?"
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    shown = [{"role": "user", "content": [{"type": "text", "text": said}, image]}]

    def with_image(text: str) -> Query:
        parts = (Part(text=text), Part(type="image_url"))
        body = msgspec.json.decode(msgspec.json.encode(shown))
        body[0]["content"][0]["text"] = text
        return replace(ask(text, messages=body), messages=(Message(role="user", content=parts),))

    async with started(cache):
        await through(
            cache, ask(messages=[{"role": "system", "content": "a"}, {"role": "user", "content": said}]), upstream
        )
        await through(
            cache, ask(messages=[{"role": "system", "content": "b"}, {"role": "user", "content": said}]), upstream
        )
        assert upstream.calls == 2
        await through(cache, with_image(said), upstream)
        await through(cache, with_image(said + " "), upstream)
        assert upstream.calls == 4
        _, p = await through(cache, with_image(said), upstream)
        assert p.tags["cache"] == "hit"
        await through(cache, ask("   "), upstream)
        await through(cache, ask(" "), upstream)
        assert upstream.calls == 6


class Slow(Embedder):
    """An embedder that takes as long as it is told."""

    def __init__(self, *, seconds: float = 0.0, broken: bool = False) -> None:
        self.seconds, self.broken = seconds, broken

    @property
    def size(self) -> int:
        return 2

    @property
    def slow(self) -> bool:
        return True

    @property
    def remembers(self) -> int:
        return 0

    def _embed(self, text: str) -> NDArray[np.float32]:
        if text != "a":
            if self.broken:
                raise OSError("secret text")
            import time

            time.sleep(self.seconds)
        return np.array([1, 0], np.float32)


async def test_a_slow_embedder_has_its_time(caplog: pytest.LogCaptureFixture) -> None:
    for embedder, seconds, calls in ((Slow(), 5.0, 1), (Slow(seconds=0.3), 0.05, 2), (Slow(broken=True), 5.0, 2)):
        cache, upstream = Cache(similar=0.9, embedder=embedder, embed_seconds=seconds), Upstream()
        async with started(cache):
            for text in ("how so", "why so"):
                await through(cache, ask(text), upstream)
            assert upstream.calls == calls
            _, p = await through(cache, ask("how so"), upstream)
            assert p.tags["cache"] == "hit"
    assert "no embedding for the cache: OSError" in caplog.text
    assert "secret text" not in caplog.text


async def test_whoever_leaves_while_an_embedder_works_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Not even asyncio's complaint that nobody took what the thread raised, which would hold the text."""
    import gc
    import threading

    begun, end = threading.Event(), threading.Event()

    class Failing(Slow):
        def _embed(self, text: str) -> NDArray[np.float32]:
            if text != "a":
                begun.set()
                end.wait(5)
                raise OSError("secret text")
            return super()._embed(text)

    cache = Cache(similar=0.9, embedder=Failing(), embed_seconds=5.0)
    async with started(cache):
        asking = asyncio.ensure_future(through(cache, ask(), Upstream()))
        await asyncio.to_thread(begun.wait, 5)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        del asking  # its traceback holds all that was left behind
        end.set()
        assert cache._workers is not None
        await asyncio.to_thread(cache._workers.shutdown)
        await turns()
        gc.collect()
    assert "secret text" not in caplog.text


async def test_an_embedder_that_cannot_work_is_found_at_the_start(tmp_path: Path) -> None:
    from fairlead.embeddings.onnx import Onnx

    missing = Onnx(model=str(tmp_path / "no.onnx"), tokenizer="no.json")
    with pytest.raises(ConfigError, match="there is no file"):
        await Cache(similar=0.9, embedder=missing).start()


# -------------------------------------------------------------------------------------------------------- single flight


@pytest.mark.parametrize("n", [2, 50])
async def test_equal_questions_at_once_are_one_call(n: int) -> None:
    cache, upstream = Cache(), Upstream(wait=True)
    async with started(cache):
        tasks = [asyncio.ensure_future(through(cache, ask(), upstream)) for _ in range(n)]
        await turns()
        assert upstream.calls == 1
        upstream.gate.set()
        done = await asyncio.gather(*tasks)
        assert {o.text for o, _ in done} == {"answer 1"}
        assert [p.acts[0].did for _, p in done] == ["stored"] + ["waited"] * (n - 1)
        assert [o.usd for o, _ in done] == [0.1] + [0.0] * (n - 1)
        assert upstream.calls == 1
        assert not cache._flights


async def test_whoever_waits_may_leave() -> None:
    cache, upstream = Cache(), Upstream(wait=True)
    async with started(cache):
        tasks = [asyncio.ensure_future(through(cache, ask(), upstream)) for _ in range(4)]
        await turns()
        tasks[1].cancel()
        tasks[3].cancel()
        await turns()
        upstream.gate.set()
        outcome, _ = await tasks[0]
        assert (await tasks[2])[0].text == outcome.text
        assert tasks[1].cancelled()
        assert tasks[3].cancelled()
        assert upstream.calls == 1


async def test_one_takes_over_when_the_leader_leaves() -> None:
    cache, upstream = Cache(), Upstream(wait=True)
    async with started(cache):
        tasks = [asyncio.ensure_future(through(cache, ask(), upstream)) for _ in range(5)]
        await turns()
        tasks[0].cancel()
        await turns()
        assert upstream.calls == 2
        upstream.gate.set()
        done = await asyncio.gather(*tasks[1:])
        assert {o.text for o, _ in done} == {"answer 2"}
        assert sorted(p.acts[0].did for _, p in done) == ["stored", "waited", "waited", "waited"]
        assert upstream.calls == 2


async def test_all_may_leave() -> None:
    cache, upstream = Cache(), Upstream(wait=True)
    async with started(cache):
        tasks = [asyncio.ensure_future(through(cache, ask(), upstream)) for _ in range(3)]
        await turns()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not cache._flights
        upstream.gate.set()
        assert (await through(cache, ask(), upstream))[0].ok


async def test_a_leader_that_fails_is_followed_by_one_and_then_by_all() -> None:
    down = Outcome(target="small", error=Failure(kind="unavailable"))
    cache, upstream = Cache(), Upstream(down, down, good("a"), good("b"), good("c"))
    async with started(cache):
        done = await asyncio.gather(*(through(cache, ask(), upstream) for _ in range(5)))
        assert [o.error is not None for o, _ in done] == [True, True, False, False, False]
        assert upstream.calls == 5
        cache, upstream = Cache(), Upstream(down, good("b"))
    async with started(cache):
        done = await asyncio.gather(*(through(cache, ask(), upstream) for _ in range(5)))
        assert [o.text for o, _ in done] == ["", "b", "b", "b", "b"]
        assert upstream.calls == 2


async def test_a_fault_of_the_plan_frees_those_that_wait() -> None:
    cache, upstream = Cache(), Upstream()
    first = True

    async def breaks(passage: Passage) -> Outcome:
        nonlocal first
        if first:
            first = False
            await turns()
            raise RuntimeError("broken")
        return await upstream(passage)

    async with started(cache):
        done = await asyncio.gather(*(cache.act(passage_of(ask()), breaks) for _ in range(3)), return_exceptions=True)
        assert isinstance(done[0], RuntimeError)
        assert upstream.calls == 1


async def test_whoever_waits_does_so_within_its_time() -> None:
    cache, upstream = Cache(wait_seconds=0.05), Upstream(wait=True)
    hurried = replace(ask(), constraints=Constraints(deadline_seconds=0.04))
    async with started(cache):
        tasks = [asyncio.ensure_future(through(cache, q, upstream)) for q in (ask(), ask(), hurried)]
        async with asyncio.timeout(5):
            while upstream.calls < 3:
                await asyncio.sleep(0.01)
        upstream.gate.set()
        done = await asyncio.gather(*tasks)
        assert [p.acts[0].did for _, p in done] == ["stored", "skipped", "skipped"]
        (late,) = [p for p in upstream.seen if p.deadline_seconds is not None]
        assert late.deadline_seconds is not None
        assert 0.0 <= late.deadline_seconds < 0.04
        assert late.query is hurried, "what was asked is what the trace keeps"


async def test_whoever_may_not_have_the_leaders_answer_goes_alone() -> None:
    cache, upstream = Cache(), Upstream(good("small said"), good("big said", target="big"))
    async with started(cache):
        one, two = await asyncio.gather(
            through(cache, ask(), upstream), through(cache, ask(), upstream, eligible=("big",))
        )
        assert (one[0].text, two[0].text) == ("small said", "big said")


async def test_two_caches_of_one_file_are_one_call(tmp_path: Path) -> None:
    """Two processes, as far as the file can tell: no memory is shared."""
    path = str(tmp_path / "cache.sqlite")
    one, two = (Cache(store=SQLite(path=path, budget_seconds=5.0)) for _ in range(2))
    upstream = Upstream(wait=True)
    async with started(one, two):
        first = asyncio.ensure_future(through(one, ask(), upstream))
        while not upstream.calls:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(through(two, ask(), upstream))
        await asyncio.sleep(0.1)
        assert upstream.calls == 1
        upstream.gate.set()
        assert (await first)[0].text == (await second)[0].text
        assert (await second)[1].acts[0].did == "waited"
        assert upstream.calls == 1


async def test_a_claim_is_given_back_by_a_leader_that_leaves_or_fails(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.sqlite")
    one, two = (Cache(store=SQLite(path=path, budget_seconds=5.0)) for _ in range(2))
    upstream = Upstream(wait=True)
    async with started(one, two):
        first = asyncio.ensure_future(through(one, ask(), upstream))
        while not upstream.calls:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(through(two, ask(), upstream))
        await asyncio.sleep(0.03)
        first.cancel()
        upstream.gate.set()
        assert (await second)[0].text == "answer 2"
    one, two = (Cache(store=SQLite(path=path, budget_seconds=5.0), version="b") for _ in range(2))
    upstream = Upstream(Outcome(error=Failure(kind="unavailable")), good())
    async with started(one, two):
        assert not (await through(one, ask(), upstream))[0].ok
        assert (await asyncio.wait_for(through(two, ask(), upstream), 5))[0].ok


async def test_a_claim_is_given_back_by_a_leader_that_leaves_before_it_knows_of_it(tmp_path: Path) -> None:
    path, claimed = str(tmp_path / "cache.sqlite"), asyncio.Event()

    class Late(SQLite):
        async def _claim(self, key: bytes, owner: str, seconds: float) -> bool:
            said = await super()._claim(key, owner, seconds)
            claimed.set()
            await asyncio.sleep(60)
            return said

    one, two = Cache(store=Late(path=path, budget_seconds=90.0)), Cache(store=SQLite(path=path, budget_seconds=5.0))
    upstream = Upstream()
    async with started(one, two):
        first = asyncio.ensure_future(through(one, ask(), upstream))
        await claimed.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await asyncio.wait_for(through(two, ask(), upstream), 5))[1].acts[0].did == "stored"


async def test_a_claim_of_a_process_that_died_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    cache = Cache(store=SQLite(path=str(tmp_path / "c.sqlite"), budget_seconds=5.0), wait_seconds=0.1)
    upstream = Upstream()
    async with started(cache):
        question = cache._question(ask(), ())
        assert not isinstance(question, str)
        key = cache.store.key(b"exact", *question.parts)
        assert await cache.store.claim(key, "dead", 60.0)
        assert (await through(cache, ask(), upstream))[0].ok
        assert (await through(cache, ask(), upstream))[1].tags["cache"] == "hit"


async def test_a_cache_inside_a_cache_of_the_same_file_does_not_wait_for_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "c.sqlite")
    outer = Cache(store=SQLite(path=path, budget_seconds=5.0))
    inner = Cache(store=SQLite(path=path, budget_seconds=5.0), similar=0.9)
    upstream = Upstream()
    async with started(outer, inner):
        passage = passage_of(ask())
        await asyncio.wait_for(outer.act(passage, lambda p: inner.act(p, upstream)), 5)
        assert upstream.calls == 1


async def test_entries_outlive_a_restart(tmp_path: Path) -> None:
    upstream = Upstream()
    for _ in range(2):
        cache = Cache(store=SQLite(path=str(tmp_path / "c.sqlite"), budget_seconds=5.0), similar=0.8)
        async with started(cache):
            await through(cache, ask("how do I do it?"), upstream)
            _, p = await through(cache, ask("How do I do it"), upstream)
            assert p.tags["cache"] == "similar"
    assert upstream.calls == 1


# ------------------------------------------------------------------------------------------------- a store that fails


class Broken(Memory):
    """A store that fails while it is told to."""

    down = False

    async def _fail(self) -> None:
        if self.down:
            raise CacheError("away")

    async def _open(self) -> bytes:
        await self._fail()
        return await super()._open()

    async def _get(self, key: bytes) -> bytes | None:
        await self._fail()
        return await super()._get(key)

    async def _put(self, row: Any) -> None:
        await self._fail()
        await super()._put(row)


async def test_a_store_that_fails_is_told_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store, upstream = Broken(), Upstream()
    cache = Cache(store=store, rest_seconds=0.5)
    async with started(cache):
        await through(cache, ask(), upstream)
        store.down = True
        for _ in range(5):
            assert (await through(cache, ask(), upstream))[0].ok
        assert upstream.calls == 6
        assert caplog.text.count("cannot be asked") == 1
        assert cache.counts["failures"] == 1
        store.down = False
        await asyncio.sleep(0.6)
        _, p = await through(cache, ask(), upstream)
        assert (upstream.calls, p.tags["cache"]) == (6, "hit")
        assert caplog.text.count("can be asked again") == 1


async def test_a_store_that_was_away_at_the_start_is_opened_later(caplog: pytest.LogCaptureFixture) -> None:
    store, upstream = Broken(), Upstream()
    store.down = True
    cache = Cache(store=store, rest_seconds=0.05)
    async with started(cache):
        assert (await through(cache, ask(), upstream))[0].ok
        store.down = False
        await asyncio.sleep(0.1)
        for _ in range(2):
            _, p = await through(cache, ask(), upstream)
        assert p.tags["cache"] == "hit"


async def test_a_store_that_fails_between_look_and_keep() -> None:
    store = Broken()
    cache = Cache(store=store)

    async def falls(passage: Passage) -> Outcome:
        store.down = True
        return good()

    async with started(cache):
        passage = passage_of(ask())
        assert (await cache.act(passage, falls)).text == "four"
        assert passage.acts[0].detail == {"why": "the store would not keep it"}


# ---------------------------------------------------------------------------------------------------- through the gateway


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def run(*replies: Reply | str, do: tuple[str, ...] = ("cache",), **actions: Any) -> AsyncIterator[Any]:
        config = make(
            {
                "targets": {"small": {"type": "scripted", "replies": msgspec.to_builtins(list(replies))}},
                "routes": {"auto": {"policy": {"type": "fixed", "plan": "small"}}},
                "guards": [{"name": "always", "do": list(do)}],
                "actions": actions,
                "store": {"path": "traces.sqlite"},
                "gateway": {"port": 0},
            },
            folder=tmp_path,
        )
        async with (
            Gateway.of(config) as app,
            Server(app, host="127.0.0.1", port=0) as server,
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=10) as client,
            aiohttp.ClientSession(server.url) as http,
        ):
            yield app, client, http

    return run


ASK: Any = [{"role": "user", "content": "what is 2+2?"}]


async def test_the_official_client_is_answered_from_the_cache(start: Callable[..., Any], tmp_path: Path) -> None:
    async with start("one two", "three", cache={"store": {"type": "sqlite", "path": "sub/cache.sqlite"}}) as (
        app,
        client,
        _,
    ):
        said = []
        for _ in range(2):
            raw = await client.chat.completions.with_raw_response.create(model="auto", messages=ASK, temperature=0)
            said.append(raw)
        assert [r.headers["x-fairlead-tag-cache"] for r in said] == ["miss", "hit"]
        assert [r.parse().choices[0].message.content for r in said] == ["one two", "one two"]
        assert said[0].parse().id != said[1].parse().id == said[1].headers["x-fairlead-id"]
        assert said[1].parse().usage.total_tokens == 0
        assert said[1].headers["x-fairlead-target"] == "small"
        assert float(said[1].headers["x-fairlead-cost-usd"]) == 0.0
        stream = await client.chat.completions.create(
            model="auto", messages=ASK, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = [c async for c in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two"
        assert chunks[-1].usage.total_tokens == 0
        traces = await asyncio.to_thread(lambda: list(app.router.store.traces()))
        assert [t.acts[0].did for t in traces] == ["stored", "hit", "hit"]
        assert [len(t.steps) for t in traces] == [1, 0, 0]
        assert [t.usd for t in traces[1:]] == [0.0, 0.0]
        assert len(app.router.world.drivers["small"].asked) == 1
    assert (tmp_path / "sub" / "cache.sqlite").exists()


async def test_streams_lead_and_follow(start: Callable[..., Any]) -> None:
    async with start(Reply(text="one two three", word_seconds=0.05), "other") as (app, client, http):
        asked = {"model": "auto", "messages": ASK, "temperature": 0}
        stream = await client.chat.completions.create(**asked, stream=True)
        first = await anext(aiter(stream))
        assert first.choices[0].delta.content == "one"  # the leader streams as ever
        whole = await client.chat.completions.create(**asked)
        assert whole.choices[0].message.content == "one two three"
        rest = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        assert rest == " two three"
        async with http.post("/v1/chat/completions", json={**asked, "stream": True}) as r:
            assert r.headers["x-fairlead-tag-cache"] == "hit"
            assert b"one two three" in await r.read()
        assert len(app.router.world.drivers["small"].asked) == 1


async def test_a_broken_stream_is_not_kept_and_a_client_that_leaves_is_followed(start: Callable[..., Any]) -> None:
    broken = Reply(text="one two three", cut_after_chunks=2)
    slow = Reply(text="four five six", word_seconds=2.0)
    async with start(broken, slow, "whole") as (app, client, http):
        asked = {"model": "auto", "messages": ASK, "temperature": 0}
        async with http.post("/v1/chat/completions", json={**asked, "stream": True}) as r:
            assert b"[DONE]" not in await r.read()
        leader = await http.post("/v1/chat/completions", json={**asked, "stream": True})
        await leader.content.readany()
        follower = asyncio.ensure_future(client.chat.completions.create(**asked))
        await asyncio.sleep(0.05)
        leader.close()
        assert (await follower).choices[0].message.content == "whole"
        assert len(app.router.world.drivers["small"].asked) == 3


async def test_a_question_with_another_prompt_is_another(start: Callable[..., Any]) -> None:
    async with start("one", "two", do=("cache", "careful"), careful={"type": "prompt", "system": "Take care."}) as (
        _,
        c,
        __,
    ):
        for want in ("one", "one"):
            reply = await c.chat.completions.create(model="auto", messages=ASK, temperature=0)
            assert reply.choices[0].message.content == want
        own = [{"role": "system", "content": "Take care."}, *ASK]
        reply = await c.chat.completions.create(model="auto", messages=own, temperature=0)
        assert reply.choices[0].message.content == "two"


async def test_what_a_tag_says_is_of_the_request_itself(tmp_path: Path) -> None:
    """The tag stands outside the cache: a hit is told which guards held for it, not those of the question that was asked first."""
    config = make(
        {
            "targets": {"small": {"type": "scripted"}},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "small"}}},
            "guards": [
                {"name": n, "when": {"identity.user": n}, "do": ["cache", "tag", "check"]} for n in ("ann", "bob")
            ],
            "actions": {"check": {"always": True}},
            "store": {"path": "traces.sqlite"},
        },
        folder=tmp_path,
    )
    async with config.router() as router:
        passages: list[Passage] = []
        for user in ("ann", "bob"):
            _, trace = await router.handle(ask(who=Identity(user=user)), begun=passages.append)
            assert "tag" in {a.name for a in trace.acts}
            assert passages[-1].tags["guards"] == user
        assert [p.tags["cache"] for p in passages] == ["miss", "hit"]
        assert passages[0].tags["support"] == passages[1].tags["support"], "what was told of the answer is told again"


async def test_the_trace_keeps_the_time_that_was_asked_for_and_the_plan_has_what_is_left(tmp_path: Path) -> None:
    slow = {"type": "scripted", "replies": [{"text": "four", "delay_seconds": 0.3}]}
    config = make(
        {
            "targets": {"small": slow},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "small"}}},
            "guards": [{"name": "always", "do": ["cache"]}],
            "actions": {"cache": {"wait_seconds": 0.1}},
            "store": {"path": "traces.sqlite"},
        },
        folder=tmp_path,
    )
    hurried = replace(ask(), constraints=Constraints(deadline_seconds=5.0))
    async with config.router() as router:
        passages: list[Passage] = []
        leads = asyncio.ensure_future(router.handle(ask()))
        while not router.under_way:
            await asyncio.sleep(0.001)
        _, trace = await router.handle(hurried, begun=passages.append)
        await leads
        assert [a.detail["why"] for a in trace.acts] == ["waited for nothing"]
        assert trace.query.constraints.deadline_seconds == 5.0
        assert passages[0].run is not None
        assert 0.0 < passages[0].run.meter.limits.seconds < 4.95
