"""Targets that speak the OpenAI chat-completions format: OpenAI itself, and most other providers and servers.

The request goes out as it came: fields stay undecoded bytes, and only `model`, what the plan's call sets, and the fields that turn
streaming on or off are replaced. The reply comes back as its own bytes with one change: its `id` is the query's, so that feedback
can name it. Streams are passed on in whole events, one `await` per network read, and typed just as far as an outcome needs.

Nothing is passed on before the first event that carries something (text, a tool call, an ending), so an upstream that dies right
after its greeting can still be replaced. Once something is out, a break is a failure of kind ``broken_stream``.

`first_entropy` is taken over the reported alternatives of the first token, with the remaining mass as one bucket: a lower bound.
Token counts are the upstream's; where it reports none, `tokens` and `usd` are None, never guessed. Some count differently, and say so by their
fields: DeepSeek reports cache hits beside the details, Groq inside ``x_groq``, xAI leaves reasoning out of the completion (the total
tells). Where a provider states what it charged, that is the cost.

What differs between providers stands in `fairlead.targets.providers`. Extension fields of the pivot that an upstream does not know are taken
out of the request and told. Thinking comes back as ``reasoning_content`` whatever it is called there (``reasoning``; Mistral's parts).

Cost: about 11 µs a call and 4 µs a streamed event beside the network client's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar, Final, NamedTuple, Self

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from fairlead.errors import ConfigError, TargetError, suggest
from fairlead.secret import checked, reveal
from fairlead.targets import providers, sse, upstream, vectors, wire
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.targets.calls import Numbers
from fairlead.types import Call, Failure, Outcome, Part, Profile, Query, Sink, Tokens

DONE: Final = b"[DONE]"
GREETINGS: Final = 10_000
"""The most events of a stream that are held back before one says something."""


class OpenAIChat(Driver):
    """A model behind ``POST {base_url}/chat/completions``.

    Args:
        name: what routes and traces call it.
        model: what the upstream calls it.
        provider: whose server it is (see `fairlead.targets.providers`); None: as the host of `base_url` says, else a server of open models.
        base_url: up to and with the version, such as ``https://host/v1``; None: the provider's, or OpenAI's.
        api_key: a reference, ``${NAME}``; None sends no key.
        profile: what is known about it.
        timeout_seconds: for one call, first byte to last.
        headers: sent with each call; values may be references too. Those that carry credentials must be.
        stream_usage: ask for token counts in streams; None: as the provider. Turn off for a server that refuses ``stream_options``.
        proxies_from_env: use ``HTTPS_PROXY`` and its kin.

    Raises:
        ConfigError: for a key that is written out, a base_url that is not http(s), or a provider that needs one and has none.
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
        provider: providers.Name | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
        headers: dict[str, str] | None = None,
        stream_usage: bool | None = None,
        proxies_from_env: bool = False,
    ) -> None:
        self.name = name
        self.model = model
        self.provider = provider
        self.base_url = upstream.check_url(_address(provider, base_url))
        self.api_key = checked(api_key, path="$.api_key")
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self.headers = upstream.check_headers(headers)
        self.stream_usage = stream_usage
        self.proxies_from_env = proxies_from_env
        self._secrets: tuple[str, ...] = ()
        self._headers: dict[str, str] = {}
        self._provider = providers.known(provider, self.base_url)[1]
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
        if query.task == "embeddings":
            asked = vectors.request(call, query, model=self.model)
            return await vectors.ask(self._upstream, self.base_url, self._headers, self._secrets, asked)
        url = self.base_url.rstrip("/") + "/chat/completions"
        fields, dropped = request(
            call, query, model=self.model, provider=self._provider, streaming=sink is not None, usage=self.stream_usage
        )
        line = Line(self._upstream, url, self._headers, self._secrets, self._provider)
        return await line.ask(fields, query, dropped, sink)


def _address(provider: str | None, base_url: str | None) -> str:
    if base_url is not None:
        return base_url
    if provider is not None and provider not in providers.PROVIDERS:
        raise ConfigError(
            f"there is no provider {provider!r}; {suggest(provider, providers.PROVIDERS)}", path="$.provider"
        )
    address = providers.PROVIDERS[provider or "openai"].base_url
    if address is None:
        raise ConfigError(f"{provider} has no address of its own; write it as base_url", path="$.base_url")
    return address


def request(
    call: Call, query: Query, *, model: str, provider: providers.Provider, streaming: bool, usage: bool | None = None
) -> tuple[dict[str, Raw], tuple[str, ...]]:
    """Return (the fields to send, what was left out). `usage`: whether to ask for token counts in a stream; None: as the provider.

    Raises:
        TargetError: ``bad_request``, if the request is not in OpenAI's format.
    """
    fields = wire.fields(call, query)
    dropped = providers.fit(fields, provider, query.api)
    fields["model"] = Raw(msgspec.json.encode(model))
    if not streaming:
        fields.pop("stream", None)
        fields.pop("stream_options", None)
        return fields, dropped
    fields["stream"] = Raw(b"true")
    if not (provider.stream_usage if usage is None else usage):
        if not provider.stream_usage:
            fields.pop("stream_options", None)
        return fields, dropped
    options: dict[str, Any] = {}
    if (raw := fields.get("stream_options")) is not None:
        try:
            options = msgspec.json.decode(raw, type=dict[str, Any] | None) or {}
        except msgspec.ValidationError as e:
            failure = Failure(kind="bad_request", message="stream_options must be an object")
            raise TargetError(failure) from e
    fields["stream_options"] = Raw(msgspec.json.encode({**options, "include_usage": True}))
    return fields, dropped


class Line(NamedTuple):
    """Where one call goes, and by whose leave: what drivers of this format share."""

    upstream: upstream.Upstream
    url: str
    headers: dict[str, str]
    secrets: tuple[str, ...]
    provider: providers.Provider

    async def ask(self, fields: dict[str, Raw], query: Query, dropped: tuple[str, ...], sink: Sink | None) -> Outcome:
        """Send a request and read its answer. `dropped` is told in the outcome, and before the first event of a stream.

        Raises:
            TargetError: with a typed failure.
        """
        body = msgspec.json.encode(fields)
        start = perf_counter()
        if sink is None:
            reply = await self.upstream.post(self.url, self.headers, body)
            if reply.status != 200:
                raise TargetError(refusal(*reply, *self.secrets))
            outcome = read(reply.body, id=query.id, secrets=self.secrets, cost=self.provider.cost)
            return replace(outcome, dropped=dropped) if dropped else outcome
        told = wire.dropped(dropped)
        asked = wire.wants_usage(query.body)
        async with self.upstream.stream(self.url, self.headers, body) as streaming:
            if streaming.status != 200:
                head = await streaming.head()
                raise TargetError(refusal(streaming.status, streaming.headers, head, *self.secrets))
            if "json" in streaming.headers.get("Content-Type", ""):
                # Some servers cannot stream and answer whole; some report errors with status 200.
                outcome = read(await streaming.whole(), id=query.id, secrets=self.secrets, cost=self.provider.cost)
                await sink(told + wire.chunks(outcome, id=query.id, created=_created(outcome), include_usage=asked))
                return replace(outcome, dropped=dropped) if dropped else outcome
            reader = StreamReader(
                id=query.id, pass_usage=asked, start=start, secrets=self.secrets, cost=self.provider.cost
            )
            async for chunk in streaming.chunks():
                if events := reader.feed(chunk):
                    await sink(told + events)
                    told = b""
                if reader.done:
                    break
            if events := reader.close():
                await sink(told + events)
            await streaming.drain()
            outcome = reader.outcome()
            return replace(outcome, dropped=dropped) if dropped else outcome


def refusal(status: int, headers: Mapping[str, str], body: bytes, *secrets: str) -> Failure:
    """Turn an error reply into a typed failure. A prompt that the provider's filter stopped is ``blocked``, by what it names (Azure does)."""
    failure = upstream.refusal(status, headers, body, *secrets)
    if failure.kind != "bad_request" or b"content_filter" not in body:
        return failure
    try:
        error = msgspec.json.decode(body, type=_Refused).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return failure
    if error.code != "content_filter":
        return failure
    inner = error.innererror or {}
    results = inner.get("content_filter_result") or inner.get("content_filter_results")
    named = results.items() if isinstance(results, dict) else ()
    found = [name for name, r in named if isinstance(r, dict) and (r.get("filtered") or r.get("detected"))]
    why = f" ({', '.join(found)})" if found else ""
    return replace(failure, kind="blocked", message=failure.message + why)


class _Filtered(Struct):
    code: Any = None
    innererror: dict[str, Any] | None = None


class _Refused(Struct):
    error: _Filtered


# ------------------------------------------------------------------------------------- what is read of a reply, and how


class _Prompt(Struct):
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _Answer(Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Prompt | None = None
    completion_tokens_details: _Answer | None = None
    prompt_cache_hit_tokens: int | None = None
    cost: Any = None
    cost_in_usd_ticks: Any = None
    is_byok: bool | None = None
    cost_details: Any = None

    def tokens(self) -> Tokens | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        prompt, answer = self.prompt_tokens_details or _NO_PROMPT, self.completion_tokens_details or _NO_ANSWER
        output, reasoning = self.completion_tokens, answer.reasoning_tokens or 0
        if reasoning and self.total_tokens == self.prompt_tokens + output + reasoning:
            output += reasoning  # it is counted beside the completion, not in it
        cached = prompt.cached_tokens
        return Tokens(
            input=self.prompt_tokens,
            cached_input=(self.prompt_cache_hit_tokens if cached is None else cached) or 0,
            output=output,
            reasoning=reasoning,
            cache_write=prompt.cache_creation_tokens or prompt.cache_write_tokens or 0,
            audio_input=prompt.audio_tokens or 0,
            image_input=prompt.image_tokens or 0,
            audio_output=answer.audio_tokens or 0,
        )

    def usd(self, field: str) -> float | None:
        """What the provider says that it charged; with a key of one's own to a provider behind it, what that one charges too."""
        said = getattr(self, field)
        if not isinstance(said, int | float) or isinstance(said, bool) or said < 0:
            return None
        if field == "cost_in_usd_ticks":
            return said / 1e10
        if not self.is_byok:
            return float(said)
        behind = self.cost_details.get("upstream_inference_cost") if isinstance(self.cost_details, dict) else None
        # What the provider behind charges is not known then, so neither is the sum.
        return float(said + behind) if isinstance(behind, int | float) else None


_NO_PROMPT: Final = _Prompt()
_NO_ANSWER: Final = _Answer()


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
    reasoning_content: Any = None
    reasoning: Any = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(Struct):
    id: Raw = wire.NULL
    choices: list[_Choice] = []
    model: str | None = None
    usage: _Usage | None = None
    error: Raw = wire.NULL


class _Piece(Struct):
    type: str = "text"
    text: str = ""


class _Delta(Struct):
    content: str | list[_Piece] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class _ChunkChoice(Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Groq(Struct):
    usage: _Usage | None = None


class _Chunk(Struct):
    id: str | None = None
    choices: list[_ChunkChoice] = []
    model: str | None = None
    usage: _Usage | None = None
    x_groq: _Groq | None = None
    error: Raw = wire.NULL


_completion = msgspec.json.Decoder(_Completion)
_chunk = msgspec.json.Decoder(_Chunk)
_fields = msgspec.json.Decoder(dict[str, Raw])


def read(body: bytes, *, id: str, secrets: Sequence[str] = (), cost: str | None = None) -> Outcome:
    """Read a whole reply. `cost`: the field of its usage that holds what was charged, if one does.

    Raises:
        TargetError: ``malformed`` if it is not a completion; the upstream's own error if it holds one.
    """
    try:
        if (
            b"\n" in body or b"\r" in body
        ):  # it is set out for the eye; events and lines of files, into which it may go, must have none
            body = msgspec.json.format(body, indent=-1)
        completion = _completion.decode(body)
        if bytes(completion.error) != b"null":
            raise TargetError(_reported(bytes(completion.error), secrets))
        choice = completion.choices[0]
        said = choice.message
        content = said.content
        foreign = said.reasoning is not None and not said.reasoning_content
        if isinstance(content, str) or content is None:
            text = content or ""
        else:
            text = "\n".join(p.text for p in content if p.text)
            foreign = foreign or any(p.type == "thinking" for p in content)
        old, new = bytes(completion.id), msgspec.json.encode(id)
        if not foreign and _once(old, body):
            reply = body.replace(old, new)
        else:
            fields = _fields.decode(body)
            fields["id"] = Raw(new)
            if foreign:
                fields["choices"] = _plain(fields["choices"], "message")
            reply = msgspec.json.encode(fields)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as e:
        why = "it has no choices" if isinstance(e, IndexError) else upstream.shorten(str(e), *secrets)
        message = f"the reply is not a chat completion: {why}"
        raise TargetError(Failure(kind="malformed", message=message, status=200)) from e
    usage = completion.usage
    logprobs = choice.logprobs.content if choice.logprobs is not None else None
    calls = bytes(said.tool_calls)
    return Outcome(
        text=text or said.refusal or "",
        model=completion.model or "",
        tokens=usage.tokens() if usage is not None else None,
        usd=usage.usd(cost) if usage is not None and cost is not None else None,
        logprobs=tuple(t.logprob for t in logprobs) if logprobs is not None else None,
        first_entropy=_first_entropy(logprobs[0]) if logprobs else None,
        finish=_finish(choice.finish_reason, bool(said.refusal)),
        tool_calls=None if calls.replace(b" ", b"") in (b"null", b"[]") else Raw(calls),
        reply=reply,
    )


def _once(id: bytes, body: bytes) -> bool:
    """Whether a reply's id can be replaced in its bytes, which spares reading and writing all of it: it stands there once, and so do the choices
    that were read. Raises `UnicodeDecodeError`."""
    return (
        id[:1] == b'"' and body.count(id) == body.count(b'"choices"') == 1 and (body.isascii() or bool(body.decode()))
    )


class StreamReader:
    """Reads one stream of chunks: `feed` gives the bytes to pass on, `outcome` what they said. Sans I/O.

    Raises:
        TargetError: from `feed` and `close`: the upstream's own error, a malformed chunk, or a stream that stops too early.
    """

    def __init__(
        self,
        *,
        id: str,
        pass_usage: bool,
        start: float = 0.0,
        secrets: Sequence[str] = (),
        cost: str | None = None,
    ) -> None:
        self.id = id
        self.pass_usage = pass_usage
        self.start = start
        self.secrets = secrets
        self.cost = cost
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
        self._calls: list[_ToolCall] = []
        self._numbers = Numbers()
        self._finish = ""
        self._model = ""
        self._tokens: Tokens | None = None
        self._usd: float | None = None
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
                for c in self._calls
            ]
            calls = Raw(msgspec.json.encode(whole))
        return Outcome(
            text="".join(self._text) or "".join(self._refusal),
            model=self._model,
            tokens=self._tokens,
            usd=self._usd,
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
            usage = chunk.usage
            if usage is None and chunk.x_groq is not None:
                usage = chunk.x_groq.usage
            if usage is not None:
                # Each report is of the whole call: the last one counts, nothing is added up.
                self._tokens = usage.tokens() or self._tokens
                if self.cost is not None:
                    self._usd = usage.usd(self.cost)
                if not chunk.choices and chunk.usage is not None and not self.pass_usage:
                    continue
            if chunk.model:
                self._model = chunk.model
            foreign = False
            for choice in chunk.choices:
                if self._read(choice):
                    foreign = True
            if foreign:
                fields = _fields.decode(data)
                fields["choices"] = _plain(fields["choices"], "delta")
                data = msgspec.json.encode(fields)
            out.append(self._renamed(chunk.id, data))
        if not out:
            return b""
        if not self._begun:
            self._held += out
            if len(self._held) > GREETINGS:
                raise TargetError(Failure(kind="malformed", message=f"the stream says nothing in {GREETINGS} events"))
            return b""
        if self._held:
            out = self._held + out
            self._held = []
        return b"".join(out)

    def _read(self, choice: _ChunkChoice) -> bool:
        """Take what a chunk says of a choice; return whether its thinking has to be written in our way."""
        delta = choice.delta
        if choice.finish_reason:
            self._begun = True
            if choice.index == 0:
                self._finish = choice.finish_reason
        if delta is None:
            return False
        content = delta.content
        foreign = content.__class__ is list or (delta.reasoning is not None and not delta.reasoning_content)
        if content or delta.tool_calls or delta.refusal or delta.reasoning_content or delta.reasoning:
            if self._first_seconds is None:
                self._first_seconds = perf_counter() - self.start
            self._begun = True
        if choice.index != 0:
            return foreign
        if content:
            if isinstance(content, list):
                self._text += [p.text for p in content]
            else:
                self._text.append(content)
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
            number = self._numbers.of(part.index, part.id)
            if number == len(self._calls):
                self._calls.append(part)
                part.function = part.function or _Function()
                continue
            call = self._calls[number]
            call.id = call.id or part.id
            if part.function is not None and call.function is not None:
                call.function.name = call.function.name or part.function.name
                call.function.arguments = (call.function.arguments or "") + (part.function.arguments or "")
        return foreign

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


def _plain(choices: Raw, where: str) -> Raw:
    """Write the thinking in choices as ``reasoning_content``; texts that stood in parts become one text."""
    out = msgspec.json.decode(choices)
    for choice in out:
        said = choice.get(where)
        if not isinstance(said, dict):
            continue
        thought = said.get("reasoning_content") or said.get("reasoning")
        content = said.get("content")
        if isinstance(content, list):
            said["content"] = "".join(p.get("text") or "" for p in content)
            thought = thought or "".join(_thought(p.get("thinking")) for p in content if p.get("type") == "thinking")
        if isinstance(thought, str) and thought:
            said["reasoning_content"] = thought
    return Raw(msgspec.json.encode(out))


def _thought(said: Any) -> str:
    """Read thinking that is a text, or parts with texts; whatever else it may be says nothing."""
    if isinstance(said, list):
        return "".join(t for p in said if isinstance(p, dict) and isinstance(t := p.get("text"), str))
    return said if isinstance(said, str) else ""


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
