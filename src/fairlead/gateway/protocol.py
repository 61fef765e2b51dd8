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
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fairlead.gateway.refusal import Refused

HEAD_SECONDS: Final = 20.0
HEAD_BYTES: Final = 96 * 1024
"""More than `read.HEADER_BYTES`, so that whoever sends only somewhat too much is told by the application."""
_REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


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
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._disarm()
        self._received()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, within bounds."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(Refused(431, f"the head has more than {HEAD_BYTES} bytes", code="headers_too_large"))
            elif self._head_timer is None:
                self._arm()
        elif self._head_timer is not None:
            self._disarm()

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
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
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
