"""Signals that are taught by labelled examples before they serve: what ``fairlead train-signal`` asks of them. Ours, no paper."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fairlead.errors import ConfigError
from fairlead.signals.base import Signal

NONE: Final = "none"
"""A label that means none of the values, as None does."""


class Trained(Signal):
    """A signal with `fit`. One that was not taught cannot serve: `check` says how to teach it."""

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether it was taught."""

    @abstractmethod
    def fit(self, texts: Sequence[str], labels: Sequence[str | None]) -> None:
        """Learn from each text what its reading's value should be; None or ``none``: none of the values.

        What it learned before is forgotten. The same examples in the same order teach the same.

        Raises:
            ConfigError: if these examples cannot teach it.
        """

    def recalibrate(self, texts: Iterable[str]) -> None:
        """Set the threshold anew by fresh texts that it should accept, without labels.

        Raises:
            ConfigError: without texts, or if this signal has no such threshold.
            NotFitted: before `fit`.
        """
        raise ConfigError(f"{self.type_name()} has no threshold to set by unlabelled texts; train it again")

    def figures(self) -> Mapping[str, float]:
        """Return what is worth telling of what it learned, as numbers by name."""
        return {}

    def check(self) -> None:
        """Raise `ConfigError` if it was not taught."""
        if not self.fitted:
            name = self.type_name()
            raise ConfigError(
                f"{name} is learned from examples: run `fairlead train-signal {name} EXAMPLES -o DIR` and write {{trained: DIR}} here"
            )
