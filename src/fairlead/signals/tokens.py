"""How many tokens a prompt has, by a model's own tokenizer. Ours, no paper.

Other than `length.tokens`, a rule of thumb, this counts: see `fairlead.tokens`. It is read off the event loop, since a long prompt takes long:
60 µs for 300 characters, 25 ms for 100,000 that were not counted before. Needs the extra `onnx`. Whether a prompt fits a target is asked
of the target's own `profile.tokenizer`, and needs no signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from fairlead import tokens
from fairlead.errors import ConfigError
from fairlead.signals.base import Law, Range, Signal, implies
from fairlead.types import Query, Reading


class Tokens(Signal):
    """Value: tokens of all messages, of the tool calls in them and, unless `tools` is false, of the tools offered. Part `last`: of
    the last user message alone.

    Args:
        tokenizer: path of a ``tokenizer.json``; in a config relative to its folder.
        tools: whether the tools offered count.

    Raises:
        ConfigError: at the first reading (or `check`), if the file is none or the package is missing.
    """

    files: ClassVar[bool] = True
    paths: ClassVar[tuple[str, ...]] = ("tokenizer",)

    def __init__(self, *, tokenizer: str, tools: bool = True) -> None:
        self.tokenizer = tokenizer
        self.tools = tools

    @classmethod
    def example(cls) -> Self:
        """Name a file; it is not opened."""
        return cls(tokenizer="tokenizer.json")

    @property
    def slow(self) -> bool:
        """A long prompt takes milliseconds."""
        return True

    def check(self) -> None:
        """Raise `ConfigError` for a file that cannot be read."""
        try:
            tokens.load(self.tokenizer)
        except ConfigError as e:
            raise ConfigError(e.message, path="$.tokenizer") from e

    def ranges(self) -> Mapping[str, Range]:
        """Counts."""
        return dict.fromkeys(("value", "last"), Range(kind="int", low=0, null=True))

    def laws(self) -> Sequence[Law]:
        """What the last message has, all have."""
        return (implies({"last": {"ge": 1}}, {"value": {"ge": 1 + tokens.MESSAGE}}),)

    def _read(self, query: Query) -> Reading:
        tokenizer = tokens.load(self.tokenizer)
        return Reading(value=tokenizer.prompt(query, tools=self.tools), parts={"last": tokenizer.count(query.text)})
