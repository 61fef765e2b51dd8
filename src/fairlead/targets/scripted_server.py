"""An upstream that plays a script over real HTTP on loopback, misbehaviour included: for tests of drivers and of whole gateways.

It speaks the OpenAI chat format for `Reply` lines, and sends `Bytes` lines as they are. Plain asyncio streams, so that it can hang
up at any byte.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Raw, Struct

from fairlead.targets import wire
from fairlead.targets.scripted import Reply, line
from fairlead.types import Failure, Outcome

_STATUS = {
    "auth": 401,
    "bad_request": 400,
    "context_too_long": 400,
    "not_found": 404,
    "rate_limited": 429,
    "timeout": 504,
    "unavailable": 503,
}


class Bytes(Struct, frozen=True, kw_only=True):
    """A reply sent as it is, piece by piece, each in its own write."""

    pieces: tuple[bytes, ...]
    status: int = 200
    headers: dict[str, str] = {}
    gap_seconds: float = 0.0
    cut: bool = False
    """Hang up after the last piece without ending the body."""


class Request(Struct, frozen=True, kw_only=True):
    """A request that the server was sent."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class ScriptedServer:
    """A server on a free port of 127.0.0.1. Use it with ``async with``; `url` is then its base URL with ``/v1``."""

    def __init__(self, *, replies: tuple[Reply | Bytes | str, ...] = ("ok",), model: str = "scripted") -> None:
        self.replies = replies
        self.model = model
        self.requests: list[Request] = []
        self.connections = 0
        self.hung_up = asyncio.Event()
        """Set when a client leaves before its reply is whole."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL."""
        if self._server is None:
            raise RuntimeError("the server is not running; use it with `async with`")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                n = len(self.requests)
                self.requests.append(request)
                if not await self._answer(n, request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        except asyncio.CancelledError:
            # The server is being closed: asyncio would log a cancelled handler as an error.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(
        self, n: int, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False if the connection is to be closed."""
        reply = self.replies[n % len(self.replies)]
        if isinstance(reply, Bytes):
            play = self._bytes(reply, writer)
        else:
            play = self._play(n, line((reply,), 0), request, writer)
        # Whoever reads sees the client leave; nobody pipelines here.
        answering, leaving = asyncio.ensure_future(play), asyncio.ensure_future(_left(reader))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self.hung_up.set()
                return False
            return answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _bytes(self, reply: Bytes, writer: asyncio.StreamWriter) -> bool:
        _head(writer, reply.status, {"content-type": "text/event-stream", **reply.headers})
        for piece in reply.pieces:
            await _piece(writer, piece)
            await asyncio.sleep(reply.gap_seconds)
        if not reply.cut:
            await _end(writer)
        return not reply.cut

    async def _play(self, n: int, reply: Reply, request: Request, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(1e9 if reply.hang else reply.delay_seconds)
        if reply.error is not None:
            return await _refuse(writer, reply.error)
        body = request.json
        tokens = reply.counted(sum(len(str(m.get("content"))) for m in body.get("messages", ())) // 4)
        calls = None if reply.tool_calls is None else Raw(msgspec.json.encode(reply.tool_calls))
        outcome = Outcome(text=reply.text, model=self.model, tokens=tokens, finish=reply.finish, tool_calls=calls)
        words = reply.words
        entries = None
        if reply.logprobs is not None and body.get("logprobs"):
            entries = tuple(wire.token_logprob(w, p, ((w, p),)) for w, p in zip(words, reply.logprobs, strict=False))
        if not body.get("stream"):
            return await self._whole(reply, outcome, entries, f"upstream-{n}", writer)
        _head(writer, 200, {"content-type": "text/event-stream; charset=utf-8"})
        chunk = wire.Chunks(id=f"upstream-{n}", created=1, model=self.model)
        await _piece(writer, chunk.delta({"role": "assistant", "content": ""}))
        for i, word in enumerate(words):
            if i and reply.word_seconds:
                await asyncio.sleep(reply.word_seconds)
            if i == reply.cut_after_chunks:
                return False
            logprobs = None if entries is None else {"content": entries[i : i + 1]}
            event = chunk.delta({"content": word}, logprobs=logprobs)
            await _piece(writer, b'data: {"choices": [{"del\n\n' if i == reply.malformed_chunk else event)
        if reply.cut_after_chunks is not None:
            return False
        if reply.tool_calls is not None:
            await _piece(
                writer, chunk.delta({"tool_calls": [{"index": i, **c} for i, c in enumerate(reply.tool_calls)]})
            )
        await _piece(writer, chunk.delta({}, finish=reply.finish))
        if tokens is not None and (body.get("stream_options") or {}).get("include_usage"):
            await _piece(writer, chunk.usage(wire.usage(tokens)))
        await _piece(writer, b"data: [DONE]\n\n")
        await _end(writer)
        return True

    async def _whole(
        self,
        reply: Reply,
        outcome: Outcome,
        entries: tuple[dict[str, Any], ...] | None,
        id: str,
        writer: asyncio.StreamWriter,
    ) -> bool:
        choice = wire.Choice(text=outcome.text, tool_calls=outcome.tool_calls, finish=outcome.finish, logprobs=entries)
        body = wire.completions([choice], id=id, created=1, model=self.model, tokens=outcome.tokens)
        _head(writer, 200, {"content-type": "application/json"})
        if reply.malformed_chunk is not None:
            body = body[:-7]
        if reply.cut_after_chunks is not None:
            await _piece(writer, body[: len(body) // 2])
            return False
        await _piece(writer, body)
        await _end(writer)
        return True


async def _refuse(writer: asyncio.StreamWriter, failure: Failure) -> bool:
    headers = {"content-type": "application/json"}
    if failure.retry_after_seconds is not None:
        headers["retry-after"] = f"{failure.retry_after_seconds:g}"
    code = "context_length_exceeded" if failure.kind == "context_too_long" else None
    error = {"message": failure.message or failure.kind, "type": failure.kind, "param": None, "code": code}
    _head(writer, failure.status or _STATUS.get(failure.kind, 500), headers)
    await _piece(writer, msgspec.json.encode({"error": error}))
    await _end(writer)
    return True


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as e:
        if e.partial:
            raise
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(path=first.split(" ")[1], headers=headers, body=body)


async def _left(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof():
        await asyncio.sleep(0.002)


def _head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    lines = "".join(f"{k}: {v}\r\n" for k, v in {**headers, "transfer-encoding": "chunked"}.items())
    writer.write(f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode("latin-1"))


async def _piece(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"0\r\n\r\n")
    await writer.drain()
