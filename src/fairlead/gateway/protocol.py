"""uvicorn's HTTP protocol, with the bounds that it lacks: how long a head may take to come, how large it may be, how much may follow a body.

A client that sends its head byte by byte, or nothing at all, is let go after `head_seconds`; one that stops in the middle of a body is the
business of whoever reads it (`read.read_body`). A head is refused (431) at `HEAD_BYTES`, before it is whole, so that it cannot fill the memory.
A request that does not make sense gets a 400 in the shape of every other error, and its connection is closed.

What follows a body in chunks (trailers) is read by nobody: uvicorn would put it among the headers, past a front end that strips headers of who asks.
A client that goes on sending what has been answered already is let go after `head_seconds`, too.

Timers cost nothing where a head comes in one piece, as nearly all do.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from fairlead.coalesce import Coalesced
from fairlead.gateway import read as reading
from fairlead.gateway.refusal import Refused

HEAD_SECONDS: Final = 20.0
HEAD_BYTES: Final = 96 * 1024
"""More than `read.HEADER_BYTES`, so that whoever sends only somewhat too much is told by the application."""
_NAME: Final = re.compile(rb"[a-z0-9-]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SPECIAL: Final = frozenset({b"connection", b"transfer-encoding", b"content-length"})
_OFFER: Final = frozenset({b"upgrade", b"http2-settings"})
_names: Final[set[bytes]] = set()
"""Names of headers that were looked at: lower-case, and nothing in HTTP hangs on them."""
_NAMES: Final = 1000
_REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class Cycle(RequestResponseCycle):
    """One request and its answer. The head of a whole answer, which is all that most are, is checked at once and not header by header: a
    twentieth of what a request costs. All others uvicorn writes."""

    async def receive(self) -> Any:
        """Give the next piece of the body. Raises `TimeoutError` if there is none yet and none comes for `read.PAUSE_SECONDS`."""
        if self.more_body and not self.message_event.is_set():
            async with asyncio.timeout(reading.PAUSE_SECONDS):
                return await super().receive()
        return await super().receive()

    async def send(self, message: Any) -> None:
        """Take the answer, piece by piece."""
        if message["type"] == "http.response.start" and not self.response_started and self.keep_alive:
            head = self._head(message)
            if head is not None and not (self.disconnected or self.flow.write_paused or self.access_log):
                self.response_started, self.chunked_encoding, self.waiting_for_100_continue = True, False, False
                self.transport.write(head)
                return
        await super().send(message)

    def _head(self, message: Any) -> bytes | None:
        """Write the head of an answer whose length is known; None if there is anything about it that uvicorn should see."""
        length = None
        lines, values = [STATUS_LINE[message["status"]]], []
        for name, value in (*self.default_headers, *message["headers"]):
            if name == b"content-length" and value.isdigit():
                length = int(value)
            elif name not in _names and not _plain(name):
                return None
            lines += (name, b": ", value, b"\r\n")
            values.append(value)
        if length is None or _CONTROL.search(b"".join(values)):
            return None
        self.expected_content_length = length
        lines.append(b"\r\n")
        return b"".join(lines)


def _plain(name: bytes) -> bool:
    if name in _SPECIAL or not _NAME.fullmatch(name):
        return False
    if len(_names) < _NAMES:
        _names.add(name)
    return True


class Protocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = HEAD_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        """Whether a head is expected, or has begun and is not whole."""
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        """Runs where a request has been answered and is not whole."""
        self._whole = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(Coalesced(transport, self.loop))  # type: ignore[arg-type]
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._disarm()
        self._received()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends no more, and the transport closes itself: what is held for it goes out before.

        Whoever closes for good and whoever only has nothing more to ask look the same; nearly all are the former, so what is being
        answered is given up, as for any client that has left.
        """
        cast(Coalesced, self.transport).flush()
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        """Read on, within bounds."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as e:
            self._stay(data[e.args[0] :])
            return
        except HttpParserError:
            self._disarm()
            self.send_400_response("")
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(Refused(431, f"the head has more than {HEAD_BYTES} bytes", code="headers_too_large"))
            elif self._head_timer is None:
                self._arm()
        elif self._whole and self.cycle is not None and self.cycle.response_complete:
            # An empty line between two requests begins none, and has stopped the timer of a connection that rests.
            if self.timeout_keep_alive_task is None and self._head_timer is None:
                self._arm()
        elif self._head_timer is not None:
            self._disarm()

    def _stay(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a request that offers to change to another protocol, as a server may that knows none: Java's client asks so each time.

        The parser takes all that follows such a head for the other protocol: a body would be the next request. So it gets the same head
        again without the offer, and then what has come of the rest. Nobody has seen the first.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self.send_400_response("")
            return
        lines = [method, b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(t for t in map(bytes.strip, value.split(b",")) if t.lower() not in _OFFER)
            if name not in _OFFER:
                lines += (name, b": ", value, b"\r\n")
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._head_bytes = 0
        self.data_received(b"".join([*lines, b"\r\n", rest]))

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._whole = True, False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is dropped.

        Raises:
            ValueError: which refuses the request, for an encoding of the body that others may read as none, and for trailers without end.
        """
        if not self._in_head:
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > HEAD_BYTES:
                raise ValueError("too much follows the body")
            return
        if len(name) == 17 and name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
            raise ValueError("the body's encoding is not known")
        if len(name) == 6:  # it may be `expect`, which uvicorn heeds
            super().on_header(name, value)
        else:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self.parser.should_upgrade():
            return  # see `_stay`
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.__class__ = Cycle  # uvicorn has no place to say so; it has not begun yet

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.parser.should_upgrade():
            return
        self._whole, self._head_bytes = True, 0
        self._received()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out; what is still to come of the request has so long."""
        super().on_response_complete()
        if not self._whole and self.cycle.response_complete and not self.transport.is_closing():
            self._body_timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what does not parse."""
        self._in_head = False
        self._refuse(Refused(400, "this is not a valid HTTP request", code="invalid_http"))

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._late)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _received(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if not self._head_bytes:
            self.transport.close()  # nothing was asked, so nothing is answered
            return
        text = f"the head of the request was not whole after {self.head_seconds:g} s"
        self._refuse(Refused(408, text, code="request_timeout"))

    def _refuse(self, refused: Refused) -> None:
        """Answer below the application, and close. An answer that is under way is cut: what follows it cannot be trusted."""
        self._disarm()
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
                self.transport.write(
                    head % (refused.status, _REASONS[refused.status], len(refused.body)) + refused.body
                )
            self.transport.close()
