"""Answer from what was answered before, exactly or to a like question; equal questions that come together wait for one call.

What an answer depends on is its key (a keyed hash, see `fairlead.caches.base`):

    group      API key, tenant and, by `scope`, user or session: nothing leaks from one to another
    question   the route asked for, every field of the body that can alter the answer, what the asker prefers, the actions ordered around
               the plan, `version`, all messages but the last one, and the last one

Exactly equal questions get the answer again. With `similar` a question also gets the answer to one whose last user message is like its
own (cosine of embeddings, vLLM Semantic Router 2026, arXiv 2603.04444; .92 there), all else equal, and only if the two also agree in what
embeddings do not see (`caches/anchors.py`). By default it is off: see docs/guides/cache.md for how often a like question is another. A hit
is served only if the target that made the answer may answer this query now: a guard, a region or an `allow` that forbids it makes it a miss, and
so does a rule or a client that insists on another target. Whom nobody may answer, because all targets rest or the budget is used up, say, is
refused before anything is looked up here.

Never answered from here, and never kept:

- what is sampled (`temperature` above 0, or not said, which means the provider's own above 0), unless `sampled` says so;
- requests that offer tools, for an answer may be a call with effects, unless `tools` does; web search and sound never;
- more than one choice, and log-probabilities, which are not kept;
- a request without the user or session that `scope` asks for.

Kept are whole good answers only: no error, none that was cut, stopped or filtered, none where a limit on money, calls or time ended
something on the way, none whose texts the trace may not keep.

Single flight. The first of equal questions in this process leads, the others wait. If it fails or its client leaves, one of those that
wait leads in its place; if that one brings nothing either, each goes its own way, so nobody waits for more than two. Whoever waits gets the
whole answer at once, when the leader's stream has ended, and waits no longer than `wait_seconds` or its own deadline. A waiting client that
leaves disturbs nobody. Between processes that share a cache a claim does the same: whoever finds one asks again now and then, first
after 20 ms, at last each 250 ms; a claim whose process died counts for `wait_seconds`.

A cache that cannot be asked is left alone for `rest_seconds`, in which questions are answered without it; that is logged once, when it
begins and when it ends, and counted.

What differs from the paper: parameters and earlier turns must be equal; a threshold binds only beside the anchors; claims expire.

Cost (300 characters, in memory): a hit 17 µs, a miss that is kept 25 µs. With `similar` and `hashing` a miss takes 180 µs, and more with
the partition: 80 µs at 10,000 entries. What the stores take stands with them. A slow embedder runs in threads, for at most `embed_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, perf_counter
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from fairlead.actions.base import Action, Passage, Proceed
from fairlead.caches.anchors import anchors, words
from fairlead.caches.base import CacheStore, Entry
from fairlead.caches.memory import Memory
from fairlead.component import pack
from fairlead.embeddings.base import Embedder
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import CacheError, ConfigError, FairleadError
from fairlead.signals.base import in_time
from fairlead.types import EVIDENCE, Feedback, Identity, Outcome, Query, Tokens, Trace

log = logging.getLogger(__name__)

T = TypeVar("T")

_encode = msgspec.json.Encoder(order="deterministic").encode

_NOT_ASKED: Final = frozenset(
    """
    stream stream_options user metadata model messages fairlead safety_identifier prompt_cache_key prompt_cache_retention
    """.split()  # noqa: SIM905 - words
)
"""Fields of a request that do not alter its answer, or are looked at on their own."""
_NOT_KEPT: Final = ("logprobs", "top_logprobs", "audio", "web_search_options")
"""Fields that ask for what is not kept, or for what is true today."""
_NOTHING: Final = frozenset(("null", "false", "0", "[]"))
"""How a field reads that asks for nothing."""
_LARGE: Final = 65_536
"""Larger fields are compared as they came, byte for byte."""
_LEADERS: Final = 2
_SOON, _SELDOM = 0.02, 0.25
"""Seconds between two looks at what another process answers: at first, and at last."""


class Cache(Action):
    """Answer from what was answered before.

    Args:
        store: where answers are kept, a store of its own; None: in memory.
        similar: the cosine from which on a like question is answered too; None: only the same one is.
        embedder: what likeness is judged by.
        scope: whom an answer may be given to again: any of the same API key and tenant, or the same user or session of these only.
        ttl_seconds: how long an answer is given.
        sampled: also where a temperature above 0 is asked for (true), or at least where none is (``unsaid``).
        tools: also where tools are offered.
        version: part of the key: another one begins anew. Change it with a prompt, a model or anything else that is not in the request.
        wait_seconds: how long a question waits for the answer to an equal one.
        embed_seconds: how long a question waits for a slow embedder.
        rest_seconds: how long a store that failed is left alone.
    """

    order: ClassVar[int] = 30
    __slots__ = ("_embedder", "_flights", "_rests_until", "_spell", "_tasks", "_workers", "counts")

    def __init__(
        self,
        *,
        store: CacheStore | None = None,
        similar: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None,
        embedder: Embedder = Hashing(),  # noqa: B008 - it is never changed
        scope: Literal["tenant", "user", "session"] = "tenant",
        ttl_seconds: Annotated[float, Meta(gt=0.0)] = 86_400.0,
        sampled: bool | Literal["unsaid"] = False,
        tools: bool = False,
        version: str = "",
        wait_seconds: Annotated[float, Meta(ge=0.0)] = 30.0,
        embed_seconds: Annotated[float, Meta(gt=0.0)] = 0.1,
        rest_seconds: Annotated[float, Meta(ge=0.0)] = 5.0,
    ) -> None:
        self.store = Memory() if store is None else store
        self.similar = similar
        self.embedder = embedder
        self.scope = scope
        self.ttl_seconds = ttl_seconds
        self.sampled = sampled
        self.tools = tools
        self.version = version
        self.wait_seconds = wait_seconds
        self.embed_seconds = embed_seconds
        self.rest_seconds = rest_seconds

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Threads and requests under way cannot be copied, and nothing here was learned.
        return type(self)(**{**self.params(), "store": self.store.copy()})

    async def start(self) -> None:
        """Open the store. One that cannot be opened now is tried again later; raises `ConfigError` if it never can."""
        self.counts: Counter[str] = Counter()
        """What was done, as in the acts (hit, similar, waited, stored, missed, skipped), and `failures` of the store."""
        self._flights: dict[bytes, asyncio.Future[_Found | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rests_until = 0.0
        self._spell = 0
        self._workers: ThreadPoolExecutor | None = None
        self._embedder = b""
        if self.similar is not None:
            self._embedder = pack(self.embedder.spec())
            await asyncio.to_thread(self.embedder.embed, "a")  # a file that is missing shows now
            if self.embedder.slow:
                self._workers = ThreadPoolExecutor(2, thread_name_prefix="fairlead-cache-embed")
        try:
            await self.store.start()
        except CacheError as e:
            self._failed(e)

    async def stop(self) -> None:
        """Finish what is under way and close the store."""
        if tasks := getattr(self, "_tasks", None):
            await asyncio.wait(tasks)
        if (workers := getattr(self, "_workers", None)) is not None:
            workers.shutdown(wait=False, cancel_futures=True)
        await self.store.stop()

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        """Answer from the cache, or proceed and keep the answer."""
        start = perf_counter()
        question = self._question(passage.query, passage.decision.actions)
        if isinstance(question, str):
            return await self._without(passage, proceed, question, start)
        if not await self._usable():
            return await self._without(passage, proceed, "the store rests", start)
        key = self.store.key(b"exact", *question.parts)
        seconds, deadline = self.wait_seconds, passage.deadline_seconds
        until = start + (seconds if deadline is None else min(seconds, deadline))
        for _ in range(_LEADERS):
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(passage, proceed, question, key, start, until)
            await asyncio.wait([flight], timeout=max(0.0, until - perf_counter()))
            if not flight.done():
                break
            found = flight.result()
            if found is not None:
                if self._may(found.entry, passage):
                    return self._given(passage, found, "waited", start)
                break
        self._hurry(passage, start)
        return await self._without(passage, proceed, "waited for nothing", start)

    async def forget(self, trace_id: str) -> int:
        """Drop the answer that was made for this trace (a hit's act names it as `of`); return how many were. Raises `CacheError`."""
        return await self.store.delete(id=trace_id)

    async def judged(self, trace: Trace, feedback: Feedback, weight: float) -> None:
        """Forget an answer that was judged bad by a judgement that counts for half or more: nobody else is given it."""
        if feedback.value < 0.5 and weight >= EVIDENCE:
            given = [str(a.detail["of"]) for a in trace.acts if a.name == self.type_name() and "of" in a.detail]
            try:
                await self.forget(given[0] if given else trace.id)
            except CacheError as e:
                self._failed(e)

    async def clear(self, identity: Identity | None = None) -> int:
        """Drop all answers, or those made for whom `identity` names: of its key, tenant, user and session what it holds must agree. Return
        how many. Raises `CacheError`, and `ValueError` if it names nobody."""
        if identity is None:
            return await self.store.delete()
        if not (groups := self._groups(identity)):
            raise ValueError("the identity holds no key, tenant, user or session; to drop all answers, give none")
        return await self.store.delete(groups=groups)

    # ------------------------------------------------------------------------------------------------- what was asked

    def _group(self, identity: Identity) -> bytes | None:
        """Whose answers may be given to `identity`; None: nobody's, since it does not say who it is."""
        who = {"tenant": "", "user": identity.user, "session": identity.session}[self.scope]
        return None if who is None else _encode([self.scope, identity.key, identity.tenant, who])

    def _groups(self, identity: Identity) -> tuple[bytes, ...]:
        """Say of an answer made for `identity` whose it is, so that it can be dropped by each of these."""
        whose = (
            ("key", identity.key),
            ("tenant", identity.tenant),
            ("user", identity.user),
            ("session", identity.session),
        )
        return tuple(self.store.key(b"whose", name.encode(), _encode(who)) for name, who in whose if who)

    def _question(self, query: Query, actions: tuple[str, ...]) -> _Question | str:
        """Take apart what was asked; or say why it is not answered from here."""
        body, group = query.body, self._group(query.identity)
        if group is None:
            return f"no {self.scope}"
        try:
            if not self.tools and (query.tools or _asks(body, "tools") or _asks(body, "functions")):
                return "tools"
            if any(_asks(body, name) for name in _NOT_KEPT) or _value(body, "n", 1) != 1:
                return "not kept"
            if self.sampled is not True:
                temperature = _value(body, "temperature", 0 if self.sampled else None)
                if temperature is None or temperature != 0:
                    return "sampled"
            raw = body.get("messages")
            messages = msgspec.json.decode(_encode(query.messages) if raw is None else raw, type=list[Raw])
            before, last = [_plain(m) for m in messages[:-1]], _plain(messages[-1])
            fields = sorted(n.encode() + b"=" + _plain(value) for n, value in body.items() if n not in _NOT_ASKED)
        except (msgspec.DecodeError, UnicodeError, RecursionError, IndexError):
            return "not understood"
        # How many fields there are tells them from the messages behind them.
        wishes = _encode([query.route, self.version, actions, query.constraints.prefer])
        about = (group, wishes, b"%d" % len(fields))
        rest = (*about, *fields, *before)
        return _Question(parts=(*rest, last), rest=rest, text=self._text(query, last))

    def _text(self, query: Query, last: bytes) -> str:
        """The text by which a like question may be found; empty if none may."""
        if self.similar is None or query.modalities != {"text"}:
            return ""
        try:
            said = msgspec.json.decode(last, type=_Said)
        except msgspec.DecodeError:
            return ""  # in parts, or something else than role and content
        return said.content if said.role == "user" else ""

    # ---------------------------------------------------------------------------------------------------- answering

    async def _lead(
        self, passage: Passage, proceed: Proceed, question: _Question, key: bytes, start: float, until: float
    ) -> Outcome:
        """Look the question up, or have it answered, for this request and those that wait for it."""
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        found: _Found | None = None
        claimed, did, owner = False, "hit", passage.query.id
        try:
            like: _Like | None = None
            if (found := await self._same(key, passage)) is None:
                like = await self._like(question)
                found = await self._alike(like, passage)
            while found is None and self.store.shared:
                claimed = True  # whoever is cancelled while it asks may have it: it is given back, which does no harm to another's
                claimed = await self._ask(lambda: self.store.claim(key, owner, self.wait_seconds), True)
                if claimed or perf_counter() >= until:
                    break
                did, waited = "waited", perf_counter() - start
                await asyncio.sleep(max(0.0, min(_SELDOM, max(_SOON, waited / 4), until - perf_counter())))
                found = await self._same(key, passage)
            if found is not None:
                return self._given(passage, found, did if found.similarity is None else "similar", start)
            self._hurry(passage, start)
            passage.tags["cache"] = "miss"
            tags, looked = dict(passage.tags), perf_counter() - start
            outcome = await proceed(passage)
            why = self._unfit(passage, outcome)
            if not why:
                told = {name: said for name, said in passage.tags.items() if tags.get(name) != said}
                found = _Found(entry=_entry(passage, outcome, told, like))
                if await self._keep(key, found.entry, passage.query.identity, like):
                    claimed = False
                else:
                    why = "the store would not keep it"
            self._note(passage, "missed" if why else "stored", looked, **({"why": why} if why else {}))
            return outcome
        finally:
            del self._flights[key]
            flight.set_result(found)
            if claimed:
                self._later(self._ask(lambda: self.store.release(key, owner), None))

    async def _same(self, key: bytes, passage: Passage) -> _Found | None:
        """Find an answer to this question that may be given."""
        entry = await self._ask(lambda: self.store.get(key), None)
        return _Found(entry=entry) if entry is not None and self._may(entry, passage) else None

    async def _alike(self, like: _Like | None, passage: Passage) -> _Found | None:
        """Find an answer to a like question that may be given."""
        if like is None or (at_least := self.similar) is None:
            return None
        near: list[tuple[bytes, float]] = []
        near = await self._ask(lambda: self.store.near(like.partition, like.vector, at_least), near)
        for key, cosine in near:
            entry = await self._ask(partial(self.store.get, key), None)
            if entry is None:
                self.store.lost(like.partition, key)
            elif self._may(entry, passage) and (entry.bag != like.bag or entry.order == like.order):
                return _Found(entry=entry, similarity=cosine)
        return None

    async def _keep(self, key: bytes, entry: Entry, whose: Identity, like: _Like | None) -> bool:
        """Hand an answer to the store; False if it was not kept."""
        return await self._ask(
            lambda: self.store.put(
                key,
                entry,
                seconds=self.ttl_seconds,
                groups=self._groups(whose),
                partition=b"" if like is None else like.partition,
                vector=b"" if like is None else like.vector.astype("<f4", copy=False).tobytes(),
            ),
            False,
        )

    def _may(self, entry: Entry, passage: Passage) -> bool:
        """Whether this answer may be given to this query: its target may answer."""
        return entry.target in passage.decision.may_answer

    def _unfit(self, passage: Passage, outcome: Outcome) -> str:
        """Say why `outcome` is not to be kept; empty if it is."""
        if not outcome.ok:
            return "no answer"
        if not passage.keep_text:
            return "its text is not kept"
        steps = () if passage.result is None else passage.result.steps
        if any(s.outcome.error is not None and s.outcome.error.kind in ("budget", "deadline") for s in steps):
            return "a limit cut it short"
        good = ("stop", "tool_calls") if self.tools else ("stop",)
        if outcome.finish not in good or not (outcome.text or outcome.tool_calls):
            return f"it ended by {outcome.finish or 'saying nothing'}"
        return "" if self.tools or outcome.tool_calls is None else "tools"

    def _given(self, passage: Passage, found: _Found, did: str, start: float) -> Outcome:
        """Give an answer again."""
        entry, seconds = found.entry, perf_counter() - start
        passage.tags.update(entry.tags)
        passage.tags["cache"] = "hit" if found.similarity is None else "similar"
        likeness = {} if found.similarity is None else {"similarity": round(found.similarity, 4)}
        age = round(max(0.0, time.time() - entry.at), 3)
        self._note(passage, did, seconds, of=entry.id, age_seconds=age, **likeness)
        return Outcome(
            text=entry.text,
            target=entry.target,
            model=entry.model,
            tokens=Tokens(),
            usd=0.0,
            seconds=seconds,
            finish=entry.finish,
            tool_calls=None if entry.tool_calls is None else Raw(entry.tool_calls),
        )

    async def _without(self, passage: Passage, proceed: Proceed, why: str, start: float) -> Outcome:
        """Proceed, and keep nothing."""
        passage.tags["cache"] = "skipped"
        self._note(passage, "skipped", perf_counter() - start, why=why)
        return await proceed(passage)

    def _note(self, passage: Passage, did: str, seconds: float, **detail: bool | int | float | str) -> None:
        self.counts[did] += 1
        passage.note(self, did, seconds=seconds, **detail)

    def _hurry(self, passage: Passage, start: float) -> None:
        """Take from the plan's time what was waited."""
        waited = perf_counter() - start
        if passage.deadline_seconds is not None and waited >= _SOON:
            passage.deadline_seconds = max(0.0, passage.deadline_seconds - waited)

    async def _like(self, question: _Question) -> _Like | None:
        """Say what a like question must be like; None where only the same one is answered."""
        if not question.text.strip():
            return None
        embed = partial(self._embed, question.text)
        vector = embed() if self._workers is None else (await in_time({embed: self._workers}, self.embed_seconds))[0]
        if vector is None or not vector.any():
            return None
        bag, order = words(question.text)
        return _Like(
            vector=vector,
            partition=self.store.key(b"like", self._embedder, anchors(question.text), *question.rest),
            bag=self.store.key(b"bag", bag),
            order=self.store.key(b"order", order),
        )

    def _embed(self, text: str) -> NDArray[np.float32] | None:
        """Embed a question; None where that fails, for no question does by its embedder."""
        try:
            return self.embedder.embed(text)
        except Exception as e:  # noqa: BLE001 - whatever an embedder raises; its message may hold the text
            log.warning("no embedding for the cache: %s; only the same question is answered", type(e).__name__)
            return None

    # --------------------------------------------------------------------------------------------- a store that fails

    async def _usable(self) -> bool:
        """Whether the store can be asked; tries to open one that is not open."""
        if self._resting:
            return False
        if self.store.open:
            return True
        self._rests_until = monotonic() + self.rest_seconds  # one request tries, the others go on meanwhile
        try:
            await self.store.start()
        except (CacheError, ConfigError) as e:
            self._failed(e)
        else:
            self._worked()
        return self.store.open

    async def _ask(self, work: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Ask the store; where it fails or rests, go on as if it had said `otherwise`."""
        if self._resting:
            return otherwise
        try:
            said = await work()
        except CacheError as e:
            self._failed(e)
            return otherwise
        self._worked()
        return said

    @property
    def _resting(self) -> bool:
        return self._spell > 0 and monotonic() < self._rests_until

    def _failed(self, e: FairleadError) -> None:
        self._spell += 1
        self.counts["failures"] += 1
        self._rests_until = monotonic() + self.rest_seconds
        if self._spell == 1:
            rest = self.rest_seconds
            log.error("the cache cannot be asked (%s); requests go on without it, it is tried each %g s", e, rest)

    def _worked(self) -> None:
        if self._spell:
            log.warning("the cache can be asked again; it failed %d times", self._spell)
            self._spell = 0

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, not even a request that was cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Question(Struct, frozen=True, kw_only=True):
    """What was asked: `rest` is all but the last message, `parts` all, `text` what a like question must be like."""

    parts: tuple[bytes, ...]
    rest: tuple[bytes, ...]
    text: str


class _Like(Struct, frozen=True, kw_only=True):
    """By what a like question is found: among those of `partition`, and not if it has the same words in another order."""

    vector: NDArray[np.float32]
    partition: bytes
    bag: bytes
    order: bytes


class _Found(Struct, frozen=True, kw_only=True):
    """An answer, and how like its question was if it was another."""

    entry: Entry
    similarity: float | None = None


class _Said(Struct, forbid_unknown_fields=True):
    """A message that is nothing but a role and a text."""

    role: str
    content: str


def _plain(raw: Raw | bytes) -> bytes:
    """Write JSON in one way, whatever the spaces, escapes and order of keys it came with. What is large stays as it came."""
    return bytes(raw) if len(bytes(raw)) > _LARGE else _encode(msgspec.json.decode(raw))


def _value(body: dict[str, Raw], name: str, default: Any) -> Any:
    """Decode one field; null is as if it were not there."""
    raw = body.get(name)
    value = None if raw is None else msgspec.json.decode(raw)
    return default if value is None else value


def _asks(body: dict[str, Raw], name: str) -> bool:
    """Whether a field is there and asks for something."""
    raw = body.get(name)
    return raw is not None and bytes(raw).decode("utf-8", "replace").strip() not in _NOTHING


def _entry(passage: Passage, outcome: Outcome, tags: dict[str, str], like: _Like | None) -> Entry:
    return Entry(
        id=passage.query.id,
        at=time.time(),
        target=outcome.target,
        model=outcome.model,
        text=outcome.text,
        finish=outcome.finish,
        tool_calls=None if outcome.tool_calls is None else bytes(outcome.tool_calls),
        tags=tags,
        bag=b"" if like is None else like.bag,
        order=b"" if like is None else like.order,
    )
