"""Scorers: how far the texts of a request support what an answer claims. By words (`lexical`), or with a model of entailment (`nli`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from fairlead.component import Component
from fairlead.detect.support import Support


class Scorer(Component, ABC):
    """Judges answers. Members implement `judge`, a pure function of the texts."""

    family: ClassVar[str] = "scorers"

    @property
    def slow(self) -> bool:
        """Whether it may take longer than some milliseconds: it then judges off the event loop, and in no plan."""
        return False

    def prepare(self) -> None:
        """Open what is needed, so that what is missing is told before the first answer. May block."""

    @abstractmethod
    def judge(self, answer: str, texts: Sequence[str]) -> Support:
        """Judge every claim of `answer` by `texts`, the sources."""
