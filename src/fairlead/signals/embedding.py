"""The embedding of a query, for predictors and policies that compare texts. Ours, no paper. Costs what its embedder costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairlead.embeddings.base import Embedder
from fairlead.embeddings.hashing import Hashing
from fairlead.signals.base import Range, Signal
from fairlead.types import Query, Reading


class Embedding(Signal):
    """Vector of the last user message; no value, no parts. Confidence 0 if it is all zeros: nothing to embed, or nobody who did.

    Args:
        embedder: what turns text into the vector; by default `Hashing()`.
    """

    def __init__(self, *, embedder: Embedder = Hashing()) -> None:  # noqa: B008 - it is never changed
        self.embedder = embedder

    @property
    def slow(self) -> bool:
        """Whether the embedder is."""
        return self.embedder.slow

    def ranges(self) -> Mapping[str, Range]:
        """There is nothing that a rule could test."""
        return {}

    def _read(self, query: Query) -> Reading:
        vector = self.embedder.embed(query.text).astype("<f4", copy=False)
        return Reading(vector=vector.tobytes(), confidence=float(vector.any()))


def vector(reading: Reading) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the vector of `reading`, shape (size,); empty if it has none."""
    return np.frombuffer(reading.vector, "<f4")
