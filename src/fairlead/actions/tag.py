"""Tell the client something of the decision, in headers ``x-fairlead-tag-…``. Ours, no paper.

Outermost of all, so that a request that is blocked, or answered from the cache, is told of its own decision and of no other's.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from fairlead.actions.base import Action, Passage, Proceed
from fairlead.errors import ConfigError
from fairlead.types import Act, Outcome

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Tag(Action):
    """Add tags to the answer, and to the trace.

    Args:
        tags: name -> value; a name is of small letters, digits and dashes. None: one tag ``guards`` that names the guards that held.

    Raises:
        ConfigError: by `check`, for a name that no header could have.
    """

    order: ClassVar[int] = 5

    def __init__(self, *, tags: dict[str, str] | None = None) -> None:
        self.tags = tags

    def check(self) -> None:
        """Raise `ConfigError` for a bad name."""
        for name in self.tags or ():
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    "a tag's name is of small letters, digits and dashes, as a header's", path=f"$.tags.{name}"
                )

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        """Tag, then go on."""
        tags = {"guards": ",".join(passage.decision.guards)} if self.tags is None else self.tags
        passage.tags |= tags
        passage.acts.append(Act(name=self.type_name(), did="tagged", detail={**tags}))
        return await proceed(passage)
