"""A double that is a real target: it answers from a script, in process, and can misbehave in every way that a real one can.

Replies are given in turn and the script starts over at its end, so runs are deterministic. `fairlead.targets.scripted_server` plays
the same scripts over HTTP.
"""

from __future__ import annotations

import asyncio
import re
import time
from time import perf_counter
from typing import Any, Self

import msgspec
from msgspec import Raw, Struct

from fairlead.errors import TargetError
from fairlead.pool import estimate_tokens
from fairlead.targets import wire
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Tokens

_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of a script: an answer, and what goes wrong with it."""

    text: str = "ok"
    tokens: Tokens | None = None
    """None: the query's estimated size in, one token a word out."""
    usage: bool = True
    """False: no token counts are reported."""
    logprobs: tuple[float, ...] | None = None
    """One for each word."""
    first_entropy: float | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    finish: str = "stop"
    confidence: float | None = None
    delay_seconds: float = 0.0
    """Before the first word."""
    word_seconds: float = 0.0
    """Before each further word of a stream."""
    error: Failure | None = None
    """Fail like this, after the delay and before the first word."""
    cut_after_chunks: int | None = None
    """Break the stream after so many words (a reply that is not streamed breaks off too)."""
    malformed_chunk: int | None = None
    """Make the word with this index unreadable (or the whole of a reply that is not streamed)."""
    hang: bool = False
    """Never answer."""

    @property
    def words(self) -> tuple[str, ...]:
        """The text in the pieces in which it is streamed."""
        return tuple(_WORDS.findall(self.text))

    def counted(self, input_tokens: int) -> Tokens | None:
        """The token counts to report."""
        if not self.usage:
            return None
        return self.tokens or Tokens(input=input_tokens, output=max(1, len(self.words)))


def line(replies: tuple[Reply | str, ...], n: int) -> Reply:
    """Return line `n` of a script that starts over at its end. A bare string is an answer with that text."""
    reply = replies[n % len(replies)] if replies else Reply()
    return Reply(text=reply) if isinstance(reply, str) else reply


class Scripted(Driver):
    """Answers from a script. `replies` are given in turn, from the first again after the last."""

    @classmethod
    def example(cls) -> Self:
        """Under some name."""
        return cls(name="a")

    def __init__(
        self,
        *,
        name: str,
        replies: tuple[Reply | str, ...] = ("ok",),
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 60.0,
    ) -> None:
        self.name = name
        self.replies = replies
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.asked: list[Call] = []

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        reply = line(self.replies, len(self.asked))
        self.asked.append(call)
        start = perf_counter()
        if reply.delay_seconds or reply.hang:
            await asyncio.sleep(1e9 if reply.hang else reply.delay_seconds)
        if reply.error is not None:
            raise TargetError(reply.error)
        first = perf_counter() - start
        calls = None if reply.tool_calls is None else Raw(msgspec.json.encode(reply.tool_calls))
        outcome = Outcome(
            text=reply.text,
            model=self.name,
            tokens=reply.counted(estimate_tokens(query)),
            logprobs=reply.logprobs,
            first_entropy=reply.first_entropy,
            first_token_seconds=first if sink is not None else None,
            confidence=reply.confidence,
            finish=reply.finish,
            tool_calls=calls,
        )
        if sink is None:
            if reply.cut_after_chunks is not None:
                raise TargetError(Failure(kind="unavailable", message="the reply broke off, as scripted"))
            if reply.malformed_chunk is not None:
                raise TargetError(Failure(kind="malformed", message="the reply is malformed, as scripted"))
            return msgspec.structs.replace(
                outcome, reply=wire.completion(outcome, id=query.id, created=int(time.time()))
            )
        await self._stream(reply, outcome, query, sink)
        return outcome

    async def _stream(self, reply: Reply, outcome: Outcome, query: Query, sink: Sink) -> None:
        chunk = wire.Chunks(id=query.id, created=int(time.time()), model=self.name)
        for i, word in enumerate(reply.words):
            if i and reply.word_seconds:
                await asyncio.sleep(reply.word_seconds)
            if i == reply.cut_after_chunks:
                raise TargetError(Failure(kind="broken_stream", message="the stream was cut, as scripted"))
            if i == reply.malformed_chunk:
                raise TargetError(Failure(kind="malformed", message="a chunk is malformed, as scripted"))
            delta = {"content": word} if i else {"role": "assistant", "content": word}
            await sink(chunk.delta(delta))
        if reply.cut_after_chunks is not None:
            raise TargetError(Failure(kind="broken_stream", message="the stream was cut, as scripted"))
        if reply.tool_calls is not None:
            await sink(chunk.delta({"tool_calls": [{"index": i, **c} for i, c in enumerate(reply.tool_calls)]}))
        await sink(chunk.delta({}, finish=reply.finish))
        if outcome.tokens is not None and wire.wants_usage(query.body):
            await sink(chunk.usage(wire.usage(outcome.tokens)))
