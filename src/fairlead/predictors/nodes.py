"""Features of a query and, beside them, the nodes that it mentions: what the predictor `agents` reads. After AgentRouter (2025, arXiv 2510.05445).

A row is the D numbers of `Features`, then the share of each of E hashed nodes in what the query mentions (sums to 1, or all 0). Nodes are the words of
a bag, as `ngrams` gives it; the paper's are entities by a tagger, which a signal of your own can give. Their order has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from fairlead.predictors.features import Features, Floats
from fairlead.signals.ngrams import BLOCK, counts
from fairlead.types import Signals


class Nodes(Features):
    """Rows of a query's features and its nodes.

    Args:
        signals, scale, bias, categories, project: as in `Features`.
        mentions: signal whose bag holds the nodes: its first block of features.
        nodes: E; words that fall together share a node.
    """

    family: ClassVar[str] = "features"

    def __init__(
        self,
        *,
        signals: tuple[str, ...] = ("style", "length", "marks"),
        scale: bool = True,
        bias: bool = False,
        categories: int = 32,
        project: int = 64,
        mentions: str = "ngrams",
        nodes: Annotated[int, Meta(ge=1)] = 512,
    ) -> None:
        super().__init__(signals=signals, scale=scale, bias=bias, categories=categories, project=project)
        self.mentions = mentions
        self.nodes = nodes

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals of the features, and of the nodes."""
        return tuple(dict.fromkeys((*super().needs, self.mentions)))

    @property
    def size(self) -> int:
        """D + E. Raises `NotFitted` before `fit` or `begin`."""
        return super().size + self.nodes

    def read(self, signals: Signals) -> Floats:
        """Return the row of one query, (D + E,); errors as in `Features`."""
        return np.concatenate([super().read(signals), self._mentioned(signals)])

    def read_all(self, signals: Sequence[Signals]) -> Floats:
        """Return the rows of many, (Q, D + E)."""
        found_QE = np.array([self._mentioned(s) for s in signals]).reshape(len(signals), self.nodes)
        return np.hstack([super().read_all(signals), found_QE])

    def _mentioned(self, signals: Signals) -> Floats:
        reading = signals.readings.get(self.mentions)
        feature_N, count_N = counts(b"" if reading is None else reading.bag or b"")
        words = feature_N < BLOCK
        out_E = np.bincount(feature_N[words] % self.nodes, count_N[words], self.nodes)
        share_E: Floats = out_E / max(float(out_E.sum()), 1.0)
        return share_E
