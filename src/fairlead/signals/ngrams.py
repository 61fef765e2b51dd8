"""Hashed words and character trigrams, counted: what a projection is trained on. After Weinberger et al. 2009, arXiv:0902.2206.

The features are those of the embedding `hashing` (digits masked, letters lowered, of a long text its two ends), before they are
projected. Here they stay counts, so that `Features` can learn from a table which of them matter: a projection fitted to the
traffic tells queries apart better than a fixed one of the same size.

A bag holds blocks of `BLOCK` features: words first, then trigrams. About 60 µs for 300 characters, and 1 kB in a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from fairlead.embeddings.hashing import BUCKETS, hashed
from fairlead.signals.base import Range, Signal
from fairlead.types import Query, Reading

BLOCK: Final = BUCKETS
"""Features of one kind; a block is scaled as a whole."""
BLOCKS: Final = 2
_MOST: Final = 65_535


class Ngrams(Signal):
    """Bag of the last user message's words and character trigrams, empty if it has no text; no value, no parts."""

    def ranges(self) -> Mapping[str, Range]:
        """There is nothing that a rule could test."""
        return {}

    def _read(self, query: Query) -> Reading:
        bucket_N, words = hashed(query.text)
        if not words:
            return Reading(bag=b"")
        number_N = np.concatenate([bucket_N[:words], bucket_N[2 * words :] + BLOCK])
        found, count = np.unique(number_N, return_counts=True)
        return Reading(bag=np.column_stack([found, np.minimum(count, _MOST)]).astype("<u2").tobytes())


def counts(
    bag: bytes,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return the features of a bag and how often each is there."""
    pairs = np.frombuffer(bag, "<u2").reshape(-1, 2)
    return pairs[:, 0].astype(np.intp), pairs[:, 1].astype(np.float64)
