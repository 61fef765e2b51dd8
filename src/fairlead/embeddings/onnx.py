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
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead.embeddings.base import Embedder
from fairlead.errors import ConfigError

_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_CHARACTERS: Final = 12
"""Characters per token that are handed to the tokenizer at most: of a long text, no more is cut up than can be read."""


class Onnx(Embedder):
    """Embedding by a sentence encoder in ONNX form.

    Args:
        model: path of the model file; relative to where the process runs.
        tokenizer: path of the `tokenizer.json` that belongs to it.
        max_tokens: tokens that are read of a text, the first ones; models are trained on so many, and cost grows with them.
        threads: that one text may use.

    Raises:
        ConfigError: at the first use, if a package or file is missing, or the model is none that takes tokens and gives vectors.
    """

    def __init__(self, *, model: str, tokenizer: str, max_tokens: int = 128, threads: int = 1) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.threads = threads
        self._loaded: tuple[Any, Any, list[str]] | None = None

    @classmethod
    def example(cls) -> Self:
        """Name files; nothing is opened."""
        return cls(model="model.onnx", tokenizer="tokenizer.json")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # What is loaded is never changed, and can be neither copied nor pickled: copies share it.
        return copy(self)

    @property
    def size(self) -> int:
        """Length of the vector. Loads the model."""
        return len(self.embed("a"))

    def embed(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector of `text`, shape (size,); zeros for a text of white space alone."""
        session, tokenizer, inputs = self._loaded or self._load()
        encoded = tokenizer.encode(text[: self.max_tokens * _CHARACTERS])
        rows = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        try:
            found = np.asarray(session.run(None, {n: np.asarray([rows[n]], np.int64) for n in inputs})[0], np.float64)
        except _refusals() as e:
            raise ConfigError(f"the model {self.model} cannot read the tokens of {self.tokenizer}: {e}") from e
        if found.ndim not in (2, 3) or len(found) != 1:
            raise ConfigError(
                f"the model {self.model} gives shape {found.shape}; one of (1, tokens, size) or (1, size) is read"
            )
        if found.ndim == 3:
            mask_L1 = np.asarray(encoded.attention_mask, np.float64)[:, None]
            v_E = (found[0] * mask_L1).sum(axis=0) / max(float(mask_L1.sum()), 1.0)
        else:
            v_E = found[0]
        norm = float(np.sqrt(v_E @ v_E))
        if not text.strip() or not np.isfinite(norm) or norm == 0.0:
            return np.zeros(len(v_E), np.float32)
        out: NDArray[np.float32] = (v_E / norm).astype(np.float32)
        return out

    def _load(self) -> tuple[Any, Any, list[str]]:
        for path in (self.model, self.tokenizer):
            if not Path(path).is_file():
                raise ConfigError(f"there is no file {path}; see docs/guides/embeddings.md on where to get a model")
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as e:
            raise ConfigError(f"the embedder onnx needs {e.name}: pip install 'fairlead[onnx]'") from e
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        except _refusals() as e:
            raise ConfigError(f"{self.model} is no ONNX model that onnxruntime reads: {e}") from e
        written = Path(self.tokenizer).read_bytes()
        try:
            # Asked of the JSON first, since all that tokenizers raises is a bare Exception.
            if not isinstance(msgspec.json.decode(written), dict):
                raise msgspec.DecodeError("it is not an object")
        except msgspec.DecodeError as e:
            raise ConfigError(f"{self.tokenizer} is no tokenizer.json: {e}") from e
        tokenizer = Tokenizer.from_buffer(written)
        # The file may ask for padding, which costs time and says nothing.
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        inputs = [i.name for i in session.get_inputs()]
        strange = [n for n in inputs if n not in _INPUTS]
        if strange:
            raise ConfigError(f"the model {self.model} asks for {', '.join(strange)}; known are {', '.join(_INPUTS)}")
        self._loaded = session, tokenizer, inputs
        return self._loaded


def _refusals() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises; its errors have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))
