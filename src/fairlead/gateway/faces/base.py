"""A face: one API shape in front of the house, whose own format is OpenAI's chat (see ``docs/decisions/0017-gateway.md``).

A face turns its requests into the chat format, and chat replies, whole or in events, back into its own. It holds no state and does no I/O but in
`read` (a stored conversation) and `keep` (to store one). What it cannot translate it names in `Read.dropped`; it never leaves anything out silently.

A face's errors: `Refused` with the path of what is wrong, as the client wrote it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from msgspec import Raw, Struct

from fairlead.gateway.limits import Shown, openai
from fairlead.gateway.refusal import Headers, Refused
from fairlead.types import Message, Outcome, Query, Task, Trace

_RENAMED: Final = re.compile(r"[a-z]{1,10}_([0-9a-f]{28})")


def renamed(id: str, prefix: str) -> str:
    """Write a query's id as a face's own format has ids: with another beginning. `query_id` leads back."""
    return prefix + id.removeprefix("chatcmpl-")


def query_id(id: str) -> str:
    """Return the query's id that an answer's id stands for, whichever face wrote it: ``resp_…`` is ``chatcmpl-…``. Others stay as they are."""
    found = _RENAMED.fullmatch(id)
    return f"chatcmpl-{found[1]}" if found else id


class Read(Struct, frozen=True, kw_only=True):
    """A request as its face read it."""

    fields: dict[str, Raw]
    """In the chat format, with ``model``, ``stream`` and the ``fairlead`` object where the client sent them."""
    messages: tuple[Message, ...] | None = None
    """What signals read, where `fields` holds no ``messages`` (vectors of texts); None: read them off ``messages``."""
    dropped: tuple[str, ...] = ()
    """What the chat format has no place for, by short names: ``top_k``, ``tools[2].cache_control``."""
    kept: Any = None
    """Whatever the face's own writer must know of the request later."""


class Writer(ABC):
    """Writes one streamed answer in a face's own format."""

    @abstractmethod
    def feed(self, events: bytes) -> bytes:
        """Take whole events of the chat format (comments among them); return what goes to the client, possibly nothing."""

    @abstractmethod
    def close(self, outcome: Outcome) -> bytes:
        """The answer is whole: return the events that end the stream."""

    @abstractmethod
    def broken(self, refused: Refused) -> bytes:
        """The answer broke off: return the event that says so. Nothing follows it."""


class Face(ABC):
    """One API shape."""

    path: ClassVar[str]
    api: ClassVar[str]
    """Its name in `Query.api`."""
    task: ClassVar[Task] = "chat"

    @abstractmethod
    async def read(self, fields: dict[str, Raw]) -> Read:
        """Turn a request's top-level fields, undecoded, into the chat format.

        Raises:
            Refused: 400 with the path of what is wrong, 404 for a stored conversation that is not there (or is another tenant's).
        """

    @abstractmethod
    def whole(self, outcome: Outcome, query: Query, read: Read) -> bytes:
        """Write a whole answer. `outcome.reply` holds a ``chat.completion``, if the target gave one."""

    @abstractmethod
    def writer(self, query: Query, read: Read) -> Writer:
        """Make the writer of one stream."""

    def check(self, query: Query, read: Read) -> None:
        """Look at a request again now that it is known who asks: whether what it refers to is theirs, say. Raises `Refused`."""

    def error(self, refused: Refused) -> bytes:
        """Write an error's body: OpenAI's shape, unless a face has its own."""
        return refused.body

    def headers(self, id: str) -> Headers:
        """Return the headers in which clients of this API look for a request's id."""
        return [(b"x-request-id", id.encode())]

    def limits(self, shown: Sequence[Shown]) -> Headers:
        """Write how much is left of a caller's limits: under OpenAI's names, unless a face has its own."""
        return openai(shown)

    async def keep(self, query: Query, read: Read, outcome: Outcome, trace: Trace) -> None:
        """Store what a later request may refer to, before the answer's last byte goes out. Not called for failures.

        Raises:
            StoreError, Refused: the answer is then withheld.
        """
