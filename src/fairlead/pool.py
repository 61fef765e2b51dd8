"""The pool: targets with their profiles and health, and who may answer a query.

A pool is an immutable value, so that a decision, a trace and a replay can all name the very pool they saw by its digest. Health is
kept beside it, since it changes with every call.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from fairlead import tokens
from fairlead.component import digest, pack
from fairlead.errors import ConfigError, UnknownName
from fairlead.types import MODALITY, Call, Failure, Message, Profile, Query, Target, Tokens

Kind: TypeAlias = Literal["asked", "fit", "context", "budget", "rest", "guard", "rule", "policy"]
"""What keeps a target from answering: the asker's own wish, what the target can take, the length of the text, money, a rest after failures,
a guard, a rule, or something else that a policy keeps."""


class Eligibility(msgspec.Struct, frozen=True, kw_only=True):
    """Who may answer a query, and why the others may not."""

    targets: tuple[Target, ...]
    excluded: dict[str, str] = {}
    kinds: dict[str, Kind] = {}
    """Why each is excluded, in one word."""


class Health:
    """Circuit breakers: which targets are resting after failures. Times are monotonic seconds.

    A target rests (its breaker is *open*) for as long as its `Retry-After` says, or for `rest_seconds`, doubled with each failure in a row up to
    `most_seconds`, after `failures` failures in a row. After that it is *half open*: one call may try it, and while that one is under way (for
    `probe_seconds` at most) it rests for all others. If that call succeeds the breaker is *closed*, if it fails the next rest is longer.

    Several processes may share what they know: whoever tells and learns for this one (the gateway's `shared_breakers`) reads `changed` and
    `wanted`, calls `learn`, and says in `barred` which targets others try.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        rest_seconds: float = 5.0,
        most_seconds: float = 300.0,
        probe_seconds: float = 2.0,
    ) -> None:
        self.failures, self.rest_seconds, self.most_seconds = failures, rest_seconds, most_seconds
        self.probe_seconds = probe_seconds
        self.in_a_row: dict[str, int] = {}
        self.rests_until: dict[str, float] = {}
        self.probed_until: dict[str, float] = {}
        self.barred: dict[str, float] = {}
        """Until when a target that is half open is tried by another process, if at all."""
        self.changed: set[str] = set()
        """Whose breakers opened or closed by what this process has seen."""
        self.wanted: set[str] = set()
        """Who would have been asked but for their rest."""

    def take_over(self, other: Health, names: Iterable[str]) -> None:
        """Go on with what `other` knows of these targets."""
        known = frozenset(names)
        self.in_a_row |= {n: v for n, v in other.in_a_row.items() if n in known}
        self.rests_until |= {n: v for n, v in other.rests_until.items() if n in known}
        self.barred |= other.barred
        self.changed |= other.changed & known

    def learn(self, name: str, *, failures: int, until: float) -> None:
        """Take over what another process knows: so many failures in a row, and a rest until then; 0: the breaker is closed."""
        if failures:
            self.in_a_row[name], self.rests_until[name] = failures, until
        else:
            for known in (self.in_a_row, self.rests_until, self.probed_until):
                known.pop(name, None)

    def state(self, name: str, *, now: float | None = None) -> Literal["closed", "open", "half open"]:
        """Return what a target's breaker is."""
        until = self.rests_until.get(name)
        if until is None:
            return "closed"
        return "open" if until > (time.monotonic() if now is None else now) else "half open"

    def began(self, name: str, *, now: float | None = None) -> None:
        """Note that a call begins: of a target that is half open, it is the one that tries."""
        if name in self.rests_until:
            self.probed_until[name] = (time.monotonic() if now is None else now) + self.probe_seconds

    def ended(self, name: str) -> None:
        """Note that a call ended and said nothing of its target: it was given up, say."""
        self.probed_until.pop(name, None)

    def succeeded(self, name: str) -> None:
        """Note a good call."""
        if name in self.in_a_row:
            del self.in_a_row[name]
            if self.rests_until.pop(name, None) is not None:
                self.changed.add(name)
        self.probed_until.pop(name, None)

    def failed(self, name: str, failure: Failure, *, now: float | None = None) -> None:
        """Note a failed call. What is the request's own fault, or its asker's, is not held against the target."""
        self.probed_until.pop(name, None)
        if not failure.elsewhere or failure.kind in ("budget", "busy", "context_too_long", "internal"):
            return
        now = time.monotonic() if now is None else now
        n = self.in_a_row[name] = self.in_a_row.get(name, 0) + 1
        if failure.retry_after_seconds is not None:
            self.rests_until[name] = now + min(failure.retry_after_seconds, self.most_seconds)
        elif n >= self.failures:
            rest = self.rest_seconds * 2.0 ** min(n - self.failures, 30)
            self.rests_until[name] = now + min(rest, self.most_seconds)
        else:
            return
        self.changed.add(name)

    def resting(self, name: str, *, now: float | None = None) -> float:
        """Seconds until `name` may be tried again; 0 if it may be now."""
        until = self.rests_until.get(name)
        if until is None:
            return 0.0
        until = max(until, self.probed_until.get(name, until), self.barred.get(name, until))
        return max(0.0, until - (time.monotonic() if now is None else now))

    def turn(self, name: str) -> float:
        """Return `resting`, for a request that would go to `name`."""
        self.wanted.add(name)
        return self.resting(name)


class Pool:
    """Targets by name, in the order given.

    Raises:
        ConfigError: if two targets share a name.
    """

    def __init__(self, *, targets: Iterable[Target], health: Health | None = None) -> None:
        self.targets = tuple(targets)
        self.health = health or Health()
        self._by_name = {t.name: t for t in self.targets}
        self._prices = {t.name: _dearest(t.profile) for t in self.targets}
        self.counts: dict[str, int] = {}
        """Tokenizers that contexts are counted by, and the largest of those contexts."""
        for t in self.targets:
            if t.profile.tokenizer is not None and t.profile.context_tokens is not None:
                self.counts[t.profile.tokenizer] = max(
                    self.counts.get(t.profile.tokenizer, 0), t.profile.context_tokens
                )
        self._plain = frozenset(t.name for t in self.targets if _takes_any_text(t.profile))
        """Who may answer any text, if there is money for it."""
        self._sizes: dict[str, _Sizes] = {}
        """What was counted of queries under way: each is asked about for every target, before its plan and before each call."""
        if len(self._by_name) != len(self.targets):
            twice = sorted({t.name for t in self.targets if [u.name for u in self.targets].count(t.name) > 1})
            raise ConfigError(f"two targets share a name: {', '.join(twice)}", path="$.targets")

    def __iter__(self) -> Iterator[Target]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Target:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownName("target", name, self._by_name) from None

    @property
    def by_name(self) -> Mapping[str, Target]:
        """Targets by name, not to be changed."""
        return self._by_name

    @cached_property
    def digest(self) -> str:
        """Name this set of targets and profiles."""
        return digest(pack(msgspec.to_builtins(sorted(self.targets, key=lambda t: t.name), order="deterministic")))

    def eligible(self, query: Query, *, left_usd: float | None = None) -> Eligibility:
        """Say who may answer `query`, and why the others may not. `left_usd`: what is left of its route's budget, if it has one.

        Who only helps in plans (`Profile.answers` is false) need not be able to take the question: what it is sent, the plan writes.
        """
        allow, regions = query.constraints.allow, query.constraints.regions
        budget, usd = query.constraints.max_usd, None
        modalities = query.modalities
        sizes: dict[str, int] = {}
        size = _NO_SIZE if budget is None and left_usd is None else self._size(Call(target=""), query)
        plain = (
            allow is None
            and regions is None
            and budget is None
            and not query.tools
            and query.task == "chat"
            and modalities == _TEXT
        )
        good: list[Target] = []
        excluded: dict[str, str] = {}
        kinds: dict[str, Kind] = {}
        for t in self.targets:
            if (
                plain
                and t.name in self._plain
                and t.name not in self.health.rests_until
                and (left_usd is None or ((usd := self._usd(t, size, query)) is not None and usd <= left_usd))
            ):
                good.append(t)
                continue
            p = t.profile
            kind: Kind
            if allow is not None and t.name not in allow:
                kind, why = "asked", "not among the allowed targets"
            elif regions is not None and p.regions.isdisjoint(regions):
                keeps = f"keeps data in {', '.join(sorted(p.regions))}" if p.regions else "states no region"
                kind, why = "asked", f"{keeps}, and the data may go to {', '.join(regions) or 'no region'} only"
            elif p.answers and query.task not in p.tasks:
                kind, why = "fit", f"does no {query.task}"
            elif p.answers and not modalities <= p.modalities:
                kind, why = "fit", "cannot take " + ", ".join(sorted(modalities - p.modalities))
            elif p.answers and query.tools and not p.tools:
                kind, why = "fit", "cannot use tools"
            elif budget is not None and (usd := self._usd(t, size, query)) is None:
                kind, why = "budget", "has no known price, and the query has a budget"
            elif budget is not None and usd is not None and usd > budget:
                kind, why = "budget", f"may cost {usd:.6f} USD, more than the query's budget of {budget:.9g}"
            elif left_usd is not None and (usd := self._usd(t, size, query)) is None:
                kind, why = "budget", "budget: has no known price, and the route has a budget; give its profile prices"
            elif left_usd is not None and usd is not None and usd > left_usd:
                left = max(0.0, left_usd)
                kind, why = "budget", f"budget: may cost {usd:.6f} USD, and {left:.6f} are left in this period"
            elif t.name in self.health.rests_until and (rest := self.health.turn(t.name)) > 0:
                kind, why = "rest", f"resting for {rest:.1f} s after failures"
            elif (
                p.answers
                and query.task == "chat"  # vectors are of each text by itself
                and p.context_tokens is not None
                and (long := _too_long(query, p.context_tokens, p.tokenizer, sizes))
            ):
                kind, why = "context", long
            else:
                good.append(t)
                continue
            excluded[t.name], kinds[t.name] = why, kind
        return Eligibility(targets=tuple(good), excluded=excluded, kinds=kinds)

    async def counted(self, query: Query) -> None:
        """Count, in a thread, what `eligible` would count for milliseconds: it then finds the counts remembered (see `fairlead.tokens`)."""
        limits = self.counts
        if limits and tokens.long(query) and tokens.surely(query) > min(limits.values()):
            await asyncio.to_thread(_count_all, query, limits)

    def once(self, name: str, query: Query) -> bool:
        """Whether a call to `name` must not be sent twice: the target, or a tool that the request has run at the provider's, may do something
        that cannot be undone."""
        target = self._by_name.get(name)
        return target is None or target.side_effects or _runs_tools(query)

    def estimate_usd(self, call: Call, query: Query) -> float | None:
        """Estimate generously what a call may cost, so that a budget can be kept by reserving it; None where no price is known.

        Input: a token for three ASCII characters of the messages and three for two others, and a token for three bytes of every
        other field (tools, a schema). Output, for each of the `n` answers asked for: ``max_tokens`` of the call, else of the query,
        up to the profile's limit and what its context leaves; the profile's limit or 1,024 tokens where none is asked for. 1,600
        for each picture; the bytes of all messages for a sound or file. All of it at the dearest of the kinds that it may turn out to be.
        A tokenizer that is worse than that can still cost more.
        """
        target = self._by_name.get(call.target)
        return None if target is None else self._usd(target, self._size(call, query), query)

    def _usd(self, target: Target, size: _Sizes, query: Query) -> float | None:
        """Estimate a call, see `estimate_usd`."""
        p, prices = target.profile, self._prices[target.name]
        if query.task == "embeddings":
            return p.usd(Tokens(input=size.entry))
        if prices is None:
            return None
        entry, output = prices
        most = p.max_output_tokens
        asked = size.asked or most or _UNSAID
        if most is not None and most < asked:
            asked = most
        if p.context_tokens is not None:
            # Nobody writes beyond the context, of which the input takes at least a token for eight characters.
            asked = min(asked, max(1, p.context_tokens - size.characters // 8))
        return (size.entry * entry + size.n * asked * output) / 1e6

    def forget(self, query: Query) -> None:
        """Forget what was counted of a query that has ended."""
        self._sizes.pop(query.id, None)

    def _size(self, call: Call, query: Query) -> _Sizes:
        """Count a call's sizes, or remember them if it sends the query as it is."""
        if call.messages is not None or call.params or call.alone:
            return _measured(call, query)
        known = self._sizes.get(query.id)
        if known is None or known.messages is not query.messages or known.body is not query.body:
            if len(self._sizes) >= _SIZES:
                self._sizes.clear()
            known = self._sizes[query.id] = _measured(call, query)
        return known


_UNSAID: Final = 1024
_SIZES: Final = 1024
_PICTURE: Final = 1600
"""Tokens of a picture, at the providers' own largest sizes."""
_MOST: Final = 10**9


class _Sizes(NamedTuple):
    """What a call's estimate rests on, the same for all targets."""

    messages: tuple[Message, ...]
    body: dict[str, msgspec.Raw]
    entry: int
    """Tokens that go in."""
    characters: int
    asked: int
    """Tokens that may come out, as the request says; 0: it does not."""
    n: int
    """Answers asked for."""


_NO_SIZE: Final = _Sizes(messages=(), body={}, entry=0, characters=0, asked=0, n=0)


def _measured(call: Call, query: Query) -> _Sizes:
    fields: Mapping[str, Any] = query.body
    if call.alone or call.params:
        fields = {**({} if call.alone else query.body), **call.params}
    messages = query.messages if call.messages is None else call.messages
    size = sum(_bytes(value) for name, value in fields.items() if name != "messages")
    characters = plain = others = 0
    for message in messages:
        text = message.content
        if text.__class__ is not str:
            text = message.text
            others += _of_other_parts(message, query)
        characters += len(text)
        plain += len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
        if message.tool_calls:
            size += _bytes(message.tool_calls)
    entry = math.ceil(plain / 3 + (characters - plain) * 1.5 + size / 3) + 8 * len(messages)
    return _Sizes(
        messages=query.messages,
        body=query.body,
        entry=entry + others,
        characters=characters,
        # A target may heed either field, so the larger one bounds what it writes.
        asked=max(_count(fields.get("max_completion_tokens")) or 0, _count(fields.get("max_tokens")) or 0),
        n=_count(fields.get("n")) or 1,
    )


_TEXT: Final = frozenset({"text"})


def _takes_any_text(profile: Profile) -> bool:
    return (
        profile.answers and "chat" in profile.tasks and "text" in profile.modalities and profile.context_tokens is None
    )


def _dearest(profile: Profile) -> tuple[float, float] | None:
    """Return what a million tokens that go in, and come out, cost at most; None if a price is not known."""
    # Either may turn out to be of a dearer kind: what is written to a prompt cache, a sound, or reasoning.
    entry, output = profile.input_usd_per_mtok, profile.output_usd_per_mtok
    if entry is None or output is None:
        return None
    entry = max(entry, profile.cache_write_usd_per_mtok or 0.0, profile.audio_input_usd_per_mtok or 0.0)
    return entry, max(output, profile.reasoning_usd_per_mtok or 0.0, profile.audio_output_usd_per_mtok or 0.0)


def _of_other_parts(message: Message, query: Query) -> int:
    """Estimate the tokens of a message's pictures, sounds and files."""
    tokens = 0
    for part in message.content or ():
        kind = "text" if isinstance(part, str) else MODALITY.get(part.type, part.type)
        if kind == "image":
            tokens += _PICTURE
        elif kind != "text":
            # Its bytes stand in the request's own messages only, base64 mostly.
            tokens += len(bytes(query.body.get("messages", b""))) // 3
    return tokens


def _runs_tools(query: Query) -> bool:
    """Whether the request offers tools that the provider runs itself; functions are run by the client, who sees one answer only."""
    raw = query.body.get("tools")
    if raw is None:
        return False
    try:
        tools = msgspec.json.decode(raw, type=list[dict[str, Any]] | None)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    return any(t.get("type", "function") not in ("function", "custom") for t in tools or ())


def _bytes(value: Any) -> int:
    """Length of a field as it is sent."""
    if isinstance(value, msgspec.Raw):
        return len(bytes(value))
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError):
        return 0  # cannot be sent either


_number: Final = msgspec.json.Decoder(int | float)


def _count(value: Any) -> int | None:
    """Read a field that is to hold a count. None unless it is a number of at least 1: what else a target makes of it is unknown."""
    if value is None:
        return None
    if isinstance(value, msgspec.Raw):
        try:
            value = _number.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        return None
    return math.ceil(min(value, _MOST))


def _too_long(query: Query, most: int, tokenizer: str | None, sizes: dict[str, int]) -> str:
    """Say why a prompt does not fit a context; nothing if it does. `sizes` keeps what is the same for all targets."""
    if tokenizer is None:
        if "about" not in sizes:
            sizes["about"] = estimate_tokens(query)
        return "" if sizes["about"] <= most else f"about {sizes['about']} tokens do not fit its context of {most}"
    if "at most" not in sizes:
        sizes["at most"] = tokens.surely(query)
    if sizes["at most"] <= most or tokens.load(tokenizer).prompt(query, most=most) <= most:
        return ""
    return f"by its tokenizer, this is more than its context of {most} tokens"


def _count_all(query: Query, limits: Mapping[str, int]) -> None:
    for tokenizer, most in limits.items():
        tokens.load(tokenizer).prompt(query, most=most)


def estimate_tokens(query: Query, counted: int | None = None) -> int:
    """Estimate input tokens: a quarter of the characters (`counted`, if that is known), plus four a message (OpenAI's rule of thumb)."""
    return (characters(query) if counted is None else counted) // 4 + 4 * len(query.messages)


def characters(query: Query) -> int:
    """Count the characters of all messages."""
    global _counted
    counted, n = _counted
    if counted is query.messages:  # whoever else counts those of a request does so right after the first
        return n
    n = 0
    for message in query.messages:
        content = message.content
        n += len(content) if content.__class__ is str else len(message.text)  # as its `text` has it
    _counted = query.messages, n
    return n


_counted: tuple[tuple[Message, ...], int] = ((), 0)
"""What was counted last."""
