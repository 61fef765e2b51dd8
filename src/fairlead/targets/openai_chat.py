"""Targets that speak the OpenAI chat-completions format: OpenAI itself, and most other providers and servers.

The request goes out as it came: fields stay undecoded bytes, and only `model`, what the plan's call sets, and the fields that turn
streaming on or off are replaced. The reply comes back as its own bytes with one change: its `id` is the query's, so that feedback
can name it. Streams are passed on in whole events, one `await` per network read, and typed just as far as an outcome needs.

Nothing is passed on before the first event that carries something (text, a tool call, an ending), so an upstream that dies right
after its greeting can still be replaced. Once something is out, a break is a failure of kind ``broken_stream``.

`first_entropy` is taken over the reported alternatives of the first token, with the remaining mass as one bucket: a lower bound.
Token counts are the upstream's; where it reports none, `tokens` and `usd` are None, never guessed.

Cost: about 10 µs a call and 4 µs a streamed event beside the network client's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, ClassVar, Final, Self

import msgspec
from msgspec import Raw, Struct

from fairlead.errors import TargetError
from fairlead.secret import checked, reveal
from fairlead.targets import sse, upstream, wire
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.types import Call, Failure, Outcome, Part, Profile, Query, Sink, Tokens

DONE: Final = b"[DONE]"


class OpenAIChat(Driver):
    """A model behind ``POST {base_url}/chat/completions``.

    Args:
        name: what routes and traces call it.
        model: what the upstream calls it.
        base_url: up to and with the version, such as ``https://host/v1``.
        api_key: a reference, ``${NAME}``; None sends no key.
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        headers: sent with each call; values may be references too. Those that carry credentials must be.
        stream_usage: ask for token counts in streams. Turn off for a server that refuses ``stream_options``.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a key that is written out, or a base_url that is not http(s).
    """

    remote: ClassVar[bool] = True

    @classmethod
    def example(cls) -> Self:
        """Of a server that is not there."""
        return cls(name="a", model="m", base_url="http://127.0.0.1:1/v1")

    def __init__(
        self,
        *,
        name: str,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
        headers: dict[str, str] | None = None,
        stream_usage: bool = True,
        proxies_from_env: bool = False,
    ) -> None:
        self.name = name
        self.model = model
        self.base_url = upstream.check_url(base_url)
        self.api_key = checked(api_key, path="$.api_key")
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.headers = upstream.check_headers(headers)
        self.stream_usage = stream_usage
        self.proxies_from_env = proxies_from_env
        self._secrets: tuple[str, ...] = ()
        self._headers: dict[str, str] = {}
        self._upstream: upstream.Upstream | None = None

    async def start(self) -> None:
        """Read the secrets and open the connection pool. Raises `ConfigError` if a variable is unset."""
        headers, secrets = upstream.revealed(self.headers)
        headers["Content-Type"] = "application/json"
        if self.api_key is not None:
            key = reveal(self.api_key, path=f"$.targets.{self.name}.api_key")
            headers["Authorization"] = f"Bearer {key}"
            secrets.append(key)
        self._headers, self._secrets = headers, tuple(secrets)
        self._upstream = await upstream.shared(proxies_from_env=self.proxies_from_env).__aenter__()

    async def stop(self) -> None:
        """Let go of the connection pool."""
        self._headers, self._secrets = {}, ()
        if self._upstream is not None:
            opened, self._upstream = self._upstream, None
            await opened.__aexit__()

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._upstream is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        url = self.base_url.rstrip("/") + "/chat/completions"
        body = self._body(call, query, streaming=sink is not None)
        start = perf_counter()
        if sink is None:
            reply = await self._upstream.post(url, self._headers, body)
            if reply.status != 200:
                raise TargetError(upstream.refusal(*reply, *self._secrets))
            return read(reply.body, id=query.id, secrets=self._secrets)
        async with self._upstream.stream(url, self._headers, body) as streaming:
            if streaming.status != 200:
                head = await streaming.head()
                raise TargetError(upstream.refusal(streaming.status, streaming.headers, head, *self._secrets))
            if "json" in streaming.headers.get("Content-Type", ""):
                # Some servers cannot stream and answer whole; some report errors with status 200.
                outcome = read(await streaming.whole(), id=query.id, secrets=self._secrets)
                await sink(
                    wire.chunks(outcome, id=query.id, created=_created(outcome), include_usage=self._asked(query))
                )
                return outcome
            reader = StreamReader(id=query.id, pass_usage=self._asked(query), start=start, secrets=self._secrets)
            async for chunk in streaming.chunks():
                if events := reader.feed(chunk):
                    await sink(events)
                if reader.done:
                    break
            if events := reader.close():
                await sink(events)
            await streaming.drain()
            return reader.outcome()

    def _asked(self, query: Query) -> bool:
        return wire.wants_usage(query.body)

    def _body(self, call: Call, query: Query, *, streaming: bool) -> bytes:
        fields = wire.fields(call, query)
        fields["model"] = Raw(msgspec.json.encode(self.model))
        if streaming:
            fields["stream"] = Raw(b"true")
            if self.stream_usage:
                options: dict[str, Any] = {}
                if (raw := fields.get("stream_options")) is not None:
                    try:
                        options = msgspec.json.decode(raw, type=dict[str, Any] | None) or {}
                    except msgspec.ValidationError as e:
                        failure = Failure(kind="bad_request", message="stream_options must be an object")
                        raise TargetError(failure) from e
                fields["stream_options"] = Raw(msgspec.json.encode({**options, "include_usage": True}))
        else:
            fields.pop("stream", None)
            fields.pop("stream_options", None)
        return msgspec.json.encode(fields)


# ------------------------------------------------------------------------------------- what is read of a reply, and how


class _Cached(Struct):
    cached_tokens: int | None = None


class _Reasoning(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoning | None = None

    def tokens(self) -> Tokens | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        cached, reasoning = self.prompt_tokens_details, self.completion_tokens_details
        return Tokens(
            input=self.prompt_tokens,
            cached_input=(cached.cached_tokens or 0) if cached is not None else 0,
            output=self.completion_tokens,
            reasoning=(reasoning.reasoning_tokens or 0) if reasoning is not None else 0,
        )


class _Top(Struct):
    token: str
    logprob: float


class _Token(Struct):
    token: str
    logprob: float
    top_logprobs: list[_Top] | None = None


class _Logprobs(Struct):
    content: list[_Token] | None = None


class _Function(Struct, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Message(Struct):
    content: str | tuple[Part, ...] | None = None
    refusal: str | None = None
    tool_calls: Raw = wire.NULL


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(Struct):
    choices: list[_Choice] = []
    model: str | None = None
    usage: _Usage | None = None
    error: Raw = wire.NULL


class _Delta(Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _ChunkChoice(Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chunk(Struct):
    id: str | None = None
    choices: list[_ChunkChoice] = []
    model: str | None = None
    usage: _Usage | None = None
    error: Raw = wire.NULL


_completion = msgspec.json.Decoder(_Completion)
_chunk = msgspec.json.Decoder(_Chunk)
_fields = msgspec.json.Decoder(dict[str, Raw])


def read(body: bytes, *, id: str, secrets: Sequence[str] = ()) -> Outcome:
    """Read a whole reply.

    Raises:
        TargetError: ``malformed`` if it is not a completion; the upstream's own error if it holds one.
    """
    try:
        completion = _completion.decode(body)
        if bytes(completion.error) != b"null":
            raise TargetError(_reported(bytes(completion.error), secrets))
        choice = completion.choices[0]
        fields = _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as e:
        why = "it has no choices" if isinstance(e, IndexError) else upstream.shorten(str(e), *secrets)
        message = f"the reply is not a chat completion: {why}"
        raise TargetError(Failure(kind="malformed", message=message, status=200)) from e
    fields["id"] = Raw(msgspec.json.encode(id))
    said = choice.message
    content = said.content
    text = content if isinstance(content, str) else "\n".join(p.text for p in content or () if p.text)
    logprobs = choice.logprobs.content if choice.logprobs is not None else None
    calls = bytes(said.tool_calls)
    return Outcome(
        text=text or said.refusal or "",
        model=completion.model or "",
        tokens=completion.usage.tokens() if completion.usage is not None else None,
        logprobs=tuple(t.logprob for t in logprobs) if logprobs is not None else None,
        first_entropy=_first_entropy(logprobs[0]) if logprobs else None,
        finish=_finish(choice.finish_reason, bool(said.refusal)),
        tool_calls=None if calls.replace(b" ", b"") in (b"null", b"[]") else Raw(calls),
        reply=msgspec.json.encode(fields),
    )


class StreamReader:
    """Reads one stream of chunks: `feed` gives the bytes to pass on, `outcome` what they said. Sans I/O.

    Raises:
        TargetError: from `feed` and `close`: the upstream's own error, a malformed chunk, or a stream that stops too early.
    """

    def __init__(self, *, id: str, pass_usage: bool, start: float = 0.0, secrets: Sequence[str] = ()) -> None:
        self.id = id
        self.pass_usage = pass_usage
        self.start = start
        self.secrets = secrets
        self.done = False
        self._framer = sse.Framer()
        self._new_id = msgspec.json.encode(id)
        self._their_id: str | None = None
        self._their_token = self._our_token = b""
        self._held: list[bytes] = []
        self._begun = False
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: list[float] | None = None
        self._first_entropy: float | None = None
        self._calls: dict[int, _ToolCall] = {}
        self._finish = ""
        self._model = ""
        self._tokens: Tokens | None = None
        self._first_seconds: float | None = None

    def feed(self, read: bytes) -> bytes:
        """Take one read; return the whole events to pass on, possibly none."""
        try:
            events = self._framer.feed(read)
        except ValueError as e:
            raise TargetError(Failure(kind="malformed", message=str(e))) from e
        return self._take(events) if events else b""

    def close(self) -> bytes:
        """Say that the stream has ended; return what is left to pass on."""
        out = b""
        if not self.done:
            try:
                out = self._take(self._framer.close())
            except TargetError as e:
                if e.failure.kind != "malformed":
                    raise
                # Half an event: the stream was cut inside it.
                raise _cut() from e
            if not self.done and not self._finish:
                raise _cut()
        if self._held:
            out = b"".join(self._held) + out
            self._held = []
        return out

    def outcome(self) -> Outcome:
        """Sum up what was read."""
        calls = None
        if self._calls:
            whole = [
                {
                    "id": c.id or "",
                    "type": c.type or "function",
                    "function": {
                        "name": (c.function.name if c.function else None) or "",
                        "arguments": (c.function.arguments if c.function else None) or "",
                    },
                }
                for _, c in sorted(self._calls.items())
            ]
            calls = Raw(msgspec.json.encode(whole))
        return Outcome(
            text="".join(self._text) or "".join(self._refusal),
            model=self._model,
            tokens=self._tokens,
            first_token_seconds=self._first_seconds,
            logprobs=tuple(self._logprobs) if self._logprobs is not None else None,
            first_entropy=self._first_entropy,
            finish=_finish(self._finish, bool(self._refusal)),
            tool_calls=calls,
        )

    def _take(self, events: list[sse.Event]) -> bytes:
        out: list[bytes] = []
        for name, data in events:
            if self.done:
                break
            if data == DONE:
                self.done = True
                break
            if name == b"error":
                raise TargetError(_reported(data, self.secrets))
            try:
                chunk = _chunk.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError) as e:
                message = f"a chunk of the stream is malformed: {upstream.shorten(str(e), *self.secrets)}"
                raise TargetError(Failure(kind="malformed", message=message)) from e
            if bytes(chunk.error) != b"null":
                raise TargetError(_reported(bytes(chunk.error), self.secrets))
            if chunk.usage is not None:
                self._tokens = chunk.usage.tokens() or self._tokens
                if not chunk.choices and not self.pass_usage:
                    continue
            if chunk.model:
                self._model = chunk.model
            for choice in chunk.choices:
                self._read(choice)
            out.append(self._renamed(chunk.id, data))
        if not out:
            return b""
        if not self._begun:
            self._held += out
            return b""
        if self._held:
            out = self._held + out
            self._held = []
        return b"".join(out)

    def _read(self, choice: _ChunkChoice) -> None:
        delta = choice.delta
        if choice.finish_reason:
            self._begun = True
            if choice.index == 0:
                self._finish = choice.finish_reason
        if delta is None:
            return
        if delta.content or delta.tool_calls or delta.refusal or delta.reasoning_content or delta.reasoning:
            if self._first_seconds is None:
                self._first_seconds = perf_counter() - self.start
            self._begun = True
        if choice.index != 0:
            return
        if delta.content:
            self._text.append(delta.content)
        if delta.refusal:
            self._refusal.append(delta.refusal)
        if choice.logprobs is not None and choice.logprobs.content is not None:
            if self._logprobs is None:
                self._logprobs = []
            for token in choice.logprobs.content:
                if not self._logprobs:
                    self._first_entropy = _first_entropy(token)
                self._logprobs.append(token.logprob)
        for part in delta.tool_calls or ():
            # A server that sends no index sends each call whole.
            index = part.index if part.index is not None else len(self._calls)
            call = self._calls.get(index)
            if call is None:
                self._calls[index] = part
                part.function = part.function or _Function()
                continue
            call.id = call.id or part.id
            if part.function is not None and call.function is not None:
                call.function.name = call.function.name or part.function.name
                call.function.arguments = (call.function.arguments or "") + (part.function.arguments or "")

    def _renamed(self, theirs: str | None, data: bytes) -> bytes:
        """Return the event with our id.

        The id's own bytes, ``"id":"…"``, are found once and then replaced: inside a JSON string quotes are escaped, so this token
        cannot be part of the text. Where the upstream writes its id in some other way, the event is taken apart and put together.
        """
        if theirs and theirs != self._their_id:
            self._their_id = theirs
            value = msgspec.json.encode(theirs)
            self._their_token = b'"id":' + value if b'"id":' + value in data else b'"id": ' + value
            self._our_token = b'"id":' + self._new_id
        if theirs and self._their_token in data:
            renamed = data.replace(self._their_token, self._our_token)
        else:
            fields = _fields.decode(data)
            fields["id"] = Raw(self._new_id)
            renamed = msgspec.json.encode(fields)
        return b"data: " + renamed.replace(b"\n", b" ") + b"\n\n"


def _finish(reason: str | None, refused: bool) -> str:
    """Say why an answer ended. A refusal in its own field ends by ``stop``; here it ends as one does that a provider reports by its reason."""
    return "content_filter" if refused and reason == "stop" else reason or ""


def _first_entropy(token: _Token) -> float | None:
    if not token.top_logprobs:
        return None
    known = {t.token: t.logprob for t in token.top_logprobs}
    known.setdefault(token.token, token.logprob)
    return wire.entropy(known.values())


def _cut() -> TargetError:
    message = "the stream ended before the answer did"
    return TargetError(Failure(kind="broken_stream", message=message, status=200))


def _reported(error: bytes, secrets: Sequence[str]) -> Failure:
    """Type an error that came inside a reply of status 200."""
    try:
        data = msgspec.json.decode(error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = None
    inner = data.get("error", data) if isinstance(data, dict) else None
    code = inner.get("code") if isinstance(inner, dict) else None
    words = str(inner.get("type") if isinstance(inner, dict) else "")
    if not isinstance(code, int) or not 400 <= code < 600:
        code = 429 if "rate_limit" in words or "rate_limit" in str(code) else 400 if "invalid_request" in words else 502
    return upstream.refusal(code, {}, error, *secrets)


def _created(outcome: Outcome) -> int:
    raw = _fields.decode(outcome.reply).get("created")
    try:
        return int(bytes(raw)) if raw is not None else 0
    except ValueError:
        return 0
