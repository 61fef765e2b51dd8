"""A sentence encoder from two files: an ONNX model and its tokenizer. As in Reimers & Gurevych 2019 (Sentence-BERT,
arXiv:1908.10084).

    h_LE      = model(tokens of the text)
    embedding = m / |m|,      m = sum over tokens of mask_l h_l / sum of mask_l

A model that gives one vector per text (two axes, not three) has pooled already; its vector is only scaled. Nothing is
downloaded: the files are yours. Needs the extra `onnx` (onnxruntime, tokenizers), imported at the first text, and one
thread unless told otherwise: a gateway's worker has the core to itself. A six-layer encoder of 384 numbers takes some
milliseconds per text, a hundred times what `hashing` takes; see docs/guides/embeddings.md for what it brings.

Shapes: B = 1 text, L tokens, E numbers.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from fairlead import tokens
from fairlead.embeddings.base import Embedder
from fairlead.errors import ConfigError

_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_CHARACTERS: Final = 12
"""Characters per token that are handed to the tokenizer at most: of a long text, no more is cut up than can be read."""


class Onnx(Embedder):
    """Embedding by a sentence encoder in ONNX form.

    Args:
        model: path of the model file; in a config relative to its folder.
        tokenizer: path of the `tokenizer.json` that belongs to it.
        max_tokens: tokens that are read of a text, the first ones; models are trained on so many, and cost grows with them.
        threads: that one text may use.

    Raises:
        ConfigError: at the first use, if a package or file is missing, or the model is none that takes tokens and gives vectors.
    """

    paths: ClassVar[tuple[str, ...]] = ("model", "tokenizer")

    def __init__(self, *, model: str, tokenizer: str, max_tokens: int = 128, threads: int = 1) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.threads = threads
        self._loaded: Model | None = None

    @classmethod
    def example(cls) -> Self:
        """Name files; nothing is opened."""
        return cls(model="model.onnx", tokenizer="tokenizer.json")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # What is loaded is never changed, and can be neither copied nor pickled: copies share it.
        return copy(self)

    def check(self) -> None:
        """Raise `ConfigError` for files that are no encoder. Loads the model, once."""
        self._loaded = self._loaded or load(
            self.model, self.tokenizer, max_tokens=self.max_tokens, threads=self.threads
        )

    @property
    def size(self) -> int:
        """Length of the vector. Loads the model."""
        return len(self.embed("a"))

    @property
    def slow(self) -> bool:
        """A model takes milliseconds."""
        return True

    def _embed(self, text: str) -> NDArray[np.float32]:
        """Make the unit vector of `text`, shape (size,); zeros for a text of white space alone."""
        if self._loaded is None:
            self._loaded = load(self.model, self.tokenizer, max_tokens=self.max_tokens, threads=self.threads)
        found, mask_L = self._loaded.run(text)
        if found.ndim == 3:
            mask_L1 = mask_L[:, None]
            v_E = (found[0] * mask_L1).sum(axis=0) / max(float(mask_L1.sum()), 1.0)
        else:
            v_E = found[0]
        norm = float(np.sqrt(v_E @ v_E))
        if not text.strip() or not np.isfinite(norm) or norm == 0.0:
            return np.zeros(len(v_E), np.float32)
        out: NDArray[np.float32] = (v_E / norm).astype(np.float32)
        return out


class Model:
    """A model of text in ONNX form, with its tokenizer. Made by `load`; runs from any thread."""

    __slots__ = ("inputs", "max_tokens", "path", "session", "tokenizer")

    def __init__(self, *, session: Any, tokenizer: Any, inputs: list[str], max_tokens: int, path: str) -> None:
        self.session, self.tokenizer, self.inputs, self.max_tokens, self.path = (
            session,
            tokenizer,
            inputs,
            max_tokens,
            path,
        )

    def run(self, text: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the model's first output for `text`, shape (1, …) with two axes or three, and the mask of its tokens, shape (L,).

        Raises:
            ConfigError: if the model cannot read the tokenizer's tokens, or gives another shape.
        """
        encoded = self.tokenizer.encode(text[: self.max_tokens * _CHARACTERS])
        rows = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        try:
            out = self.session.run(None, {n: np.asarray([rows[n]], np.int64) for n in self.inputs})[0]
        except _refusals() as e:
            raise ConfigError(f"the model {self.path} cannot read the tokens of its tokenizer: {e}") from e
        found = np.asarray(out, np.float64)
        if found.ndim not in (2, 3) or len(found) != 1:
            raise ConfigError(
                f"the model {self.path} gives shape {found.shape}; one of (1, tokens, size) or (1, size) is read"
            )
        return found, np.asarray(encoded.attention_mask, np.float64)


def load(model: str, tokenizer: str, *, max_tokens: int, threads: int) -> Model:
    """Open a model's two files.

    Raises:
        ConfigError: if a package or file is missing, or the model is none that takes tokens.
    """
    for path, key in ((model, "$.model"), (tokenizer, "$.tokenizer")):
        if not Path(path).is_file():
            raise ConfigError(
                f"there is no file {path}; see docs/guides/embeddings.md on where to get a model", path=key
            )
    try:
        import onnxruntime
    except ImportError as e:
        raise ConfigError(f"a model in ONNX form needs {e.name}: pip install 'fairlead[onnx]'") from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _refusals() as e:
        raise ConfigError(f"{model} is no ONNX model that onnxruntime reads: {e}", path="$.model") from e
    try:
        words = tokens.read(tokenizer)
    except ConfigError as e:
        raise ConfigError(e.message, path="$.tokenizer") from e
    words.enable_truncation(max_tokens)
    inputs = [i.name for i in session.get_inputs()]
    strange = [n for n in inputs if n not in _INPUTS]
    if strange:
        raise ConfigError(
            f"the model {model} asks for {', '.join(strange)}; known are {', '.join(_INPUTS)}", path="$.model"
        )
    return Model(session=session, tokenizer=words, inputs=inputs, max_tokens=max_tokens, path=model)


def _refusals() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises; its errors have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))
