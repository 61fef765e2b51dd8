"""``POST /v1/chat/completions``: OpenAI's chat, which is the house's own format, so nothing is translated."""

from __future__ import annotations

import time
from typing import Final

from msgspec import Raw

from fairlead.gateway.faces.base import Face, Read, Writer
from fairlead.gateway.refusal import Refused
from fairlead.targets import wire
from fairlead.types import Outcome, Query

DONE: Final = b"data: [DONE]\n\n"


class Chat(Face):
    """The identity."""

    path = "/v1/chat/completions"
    api = "chat"

    async def read(self, fields: dict[str, Raw]) -> Read:
        """Return the fields as they are."""
        return Read(fields=fields)

    def whole(self, outcome: Outcome, query: Query, read: Read) -> bytes:
        """Return the reply's own bytes; write them where a plan made the answer."""
        return outcome.reply or wire.completion(outcome, id=query.id, created=int(time.time()))

    def writer(self, query: Query, read: Read) -> Writer:
        """Return what passes events on."""
        return _PASS


class _Pass(Writer):
    def feed(self, events: bytes) -> bytes:
        return events

    def close(self, outcome: Outcome) -> bytes:
        return DONE

    def broken(self, refused: Refused) -> bytes:
        return b"data: " + refused.body + b"\n\n"


_PASS: Final = _Pass()
