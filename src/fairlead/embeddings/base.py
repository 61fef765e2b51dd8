"""Embeddings: text -> a vector of fixed size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fairlead.component import Component


class Embedder(Component, ABC):
    """Turns text into a unit vector of `size` float32 numbers (zeros for text without content)."""

    family: ClassVar[str] = "embeddings"

    @property
    @abstractmethod
    def size(self) -> int:
        """Length of the vector."""

    @abstractmethod
    def embed(self, text: str) -> NDArray[np.float32]:
        """Return the vector of `text`, shape (size,)."""
