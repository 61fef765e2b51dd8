"""Put a system message before the conversation: careful instructions where a guard asks for them. About 20 µs.

The middle level of a risk that is neither low nor high (MoGU, Du et al., 2024, arXiv 2405.14488, carried over to a gateway: low is answered as
usual, medium with care, high not at all), and the system prompts of vLLM Semantic Router (2026, arXiv 2603.04444).
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import msgspec
from msgspec import Raw

from fairlead.actions.base import Action, Passage, Proceed
from fairlead.errors import ConfigError
from fairlead.types import Message, Outcome, Query


class Prompt(Action):
    """Add a system message.

    Args:
        system: its text.
        mode: ``insert`` puts it before all messages; ``replace`` also takes away the system and developer messages that are there.

    Raises:
        ConfigError: by `check`, for an empty text.
    """

    order: ClassVar[int] = 40

    def __init__(self, *, system: str, mode: Literal["insert", "replace"] = "insert") -> None:
        self.system = system
        self.mode = mode

    @classmethod
    def example(cls) -> Self:
        """A careful one."""
        return cls(system="Answer with care.")

    def check(self) -> None:
        """Raise `ConfigError` for an empty text."""
        if not self.system.strip():
            raise ConfigError("the system message is empty", path="$.system")

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        """Put it there, then go on."""
        passage.query = self.prompted(passage.query)
        passage.note(self, "inserted" if self.mode == "insert" else "replaced")
        return await proceed(passage)

    def prompted(self, query: Query) -> Query:
        """Return `query` with the message; all others keep their bytes."""
        message = Message(role="system", content=self.system)
        keep = [self.mode == "insert" or m.role not in ("system", "developer") for m in query.messages]
        messages = (message, *(m for m, kept in zip(query.messages, keep, strict=True) if kept))
        body = query.body
        if (raw := body.get("messages")) is not None:
            own = msgspec.json.decode(raw, type=list[Raw])
            kept = [r for r, k in zip(own, keep, strict=True) if k]
            body = {**body, "messages": Raw(msgspec.json.encode([message, *kept]))}
        return msgspec.structs.replace(query, messages=messages, body=body)
