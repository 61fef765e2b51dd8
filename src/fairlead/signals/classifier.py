"""A text classifier of your own from two files: an ONNX model and its tokenizer. Ours, no paper; the custom classifier of vLLM Semantic Router.

    p_K = softmax(model(tokens of the text)),      value = the most probable label, if it is at least `threshold` probable

Any model that gives one logit per label (``…ForSequenceClassification``). Nothing is downloaded: the files are yours. Needs the extra
`onnx`; it is read off the event loop. Cost: some milliseconds, as for the embedder `onnx`.

Shapes: K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np

from fairlead.embeddings import onnx
from fairlead.errors import ConfigError
from fairlead.signals.base import TAKEN, Law, Range, Signal, implies
from fairlead.types import Query, Reading


class Classifier(Signal):
    """Value: the most probable label; null if none is `threshold` probable. Parts: each label's probability. Confidence: the largest.

    A query without text gives null everywhere and confidence 0.

    Args:
        model: path of the model file; in a config relative to its folder.
        tokenizer: path of the `tokenizer.json` that belongs to it.
        labels: names of its outputs, in their order.
        threshold: least probability of the value.
        max_tokens: tokens that are read of a text, the first ones.
        threads: that one text may use.

    Raises:
        ConfigError: at the first reading (or `check`), if a file or package is missing, or the model gives another number of labels.
    """

    files: ClassVar[bool] = True
    paths: ClassVar[tuple[str, ...]] = ("model", "tokenizer")
    __slots__ = ("_model",)
    _model: onnx.Model

    def __init__(
        self,
        *,
        model: str,
        tokenizer: str,
        labels: Sequence[str],
        threshold: float = 0.0,
        max_tokens: int = 256,
        threads: int = 1,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.labels = labels
        self.threshold = threshold
        self.max_tokens = max_tokens
        self.threads = threads

    @classmethod
    def example(cls) -> Self:
        """Name files; nothing is opened."""
        return cls(model="model.onnx", tokenizer="tokenizer.json", labels=("good", "bad"))

    @property
    def slow(self) -> bool:
        """A model takes milliseconds."""
        return True

    def check(self) -> None:
        """Raise `ConfigError` for files that do not make a classifier of these labels. Loads the model."""
        if len(set(self.labels)) != len(self.labels) or TAKEN.intersection(self.labels) or len(self.labels) < 2:
            raise ConfigError(
                f"name two labels or more, no two alike, and none of {', '.join(sorted(TAKEN))}", path="$.labels"
            )
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"a probability lies between 0 and 1, and {self.threshold} does not", path="$.threshold")
        model = onnx.load(self.model, self.tokenizer, max_tokens=self.max_tokens, threads=self.threads)
        found = model.run("a")[0].shape
        if found != (1, len(self.labels)):
            raise ConfigError(
                f"the model gives shape {found}, and there are {len(self.labels)} labels", path="$.labels"
            )
        self._model = model

    def ranges(self) -> Mapping[str, Range]:
        """One of the labels, and probabilities."""
        p = Range(kind="number", low=0.0, high=1.0, null=True)
        return {"value": Range(kind="string", among=tuple(self.labels), null=True), **dict.fromkeys(self.labels, p)}

    def laws(self) -> Sequence[Law]:
        """The value is at least as probable as the threshold, and as one in so many."""
        # A label that is more probable than all others has more than an equal share; a little less is let through for rounding.
        least = max(self.threshold, (1.0 - 1e-9) / len(self.labels))
        return tuple(implies({"value": label}, {label: {"ge": least}}) for label in self.labels)

    def _read(self, query: Query) -> Reading:
        try:
            model = self._model
        except AttributeError:  # a slot that is not filled yet
            self.check()
            model = self._model
        text = query.text
        if not text.strip():
            return Reading(confidence=0.0)
        logit_K = model.run(text)[0][0]
        if not np.isfinite(logit_K).all():
            return Reading(confidence=0.0)
        e_K = np.exp(logit_K - logit_K.max())
        probabilities: list[float] = (e_K / e_K.sum()).tolist()
        parts = dict(zip(self.labels, probabilities, strict=True))
        best = max(parts, key=parts.__getitem__)
        sure = min(parts[best], 1.0)
        return Reading(value=best if sure >= self.threshold else None, parts={**parts}, confidence=sure)
