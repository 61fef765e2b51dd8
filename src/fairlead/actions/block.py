"""Refuse, and say why: as an error, or as an answer like any other. Ours; the answer as in vLLM Semantic Router (2026, arXiv 2603.04444)."""

from __future__ import annotations

from typing import ClassVar

from fairlead.actions.base import Action, Passage, Proceed
from fairlead.types import Failure, Outcome, Tokens


class Block(Action):
    """Nobody is asked.

    Args:
        message: what the asker is told.
        reply: True: `message` is the answer, with the finish reason ``content_filter``, for clients that cannot take errors; False: the
            request fails (HTTP 403, code ``blocked``).
        keep_text: whether the trace keeps what was blocked.
    """

    order: ClassVar[int] = 10

    def __init__(
        self, *, message: str = "this request may not be answered here", reply: bool = False, keep_text: bool = False
    ) -> None:
        self.message = message
        self.reply = reply
        self.keep_text = keep_text

    @property
    def hides(self) -> bool:
        """Unless it is told to keep the text."""
        return not self.keep_text

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        """Answer with the refusal."""
        passage.note(self, "blocked")
        if self.reply:
            return Outcome(text=self.message, model="fairlead", finish="content_filter", usd=0.0, tokens=Tokens())
        return Outcome(usd=0.0, error=Failure(kind="blocked", message=self.message))
