"""What training and serving agree on: the byte alphabet, the shape of a model, the weight file.

A model is a decoder-only transformer over 128 bytes.  A sequence is

    END prompt mode answer END

where the mode byte is a newline (answer at once) or `~` (write scratch work, then `>`, then the
answer).  The mode `working` is asked like scratch; what differs is that the work is part of the answer's text,
so that a plan can have it written step by step.  The weight file is an uncompressed `.npz` of float16 arrays and one JSON document
(stored as bytes), so it loads without pickle.  Ours, no paper.

Shape legend: L layers, D width, V = 128 bytes.
"""

import json
import os
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Mode = Literal["direct", "scratch", "working"]

VOCABULARY: Final = 128
END: Final = 1
MODE_BYTES: Final[dict[Mode, int]] = {"direct": 10, "scratch": 126, "working": 126}
CONTEXT: Final = 256
CONVOLUTION: Final = 3
NORM_EPSILON: Final = 1e-5
ROTARY_BASE: Final = 10_000.0

ARRAY_NAMES: Final = ("embed", "conv", "qkv", "out", "up", "down")

_REPLACEMENT: Final = ord("?")
_FIRST, _LAST = 32, 125


class Shape(NamedTuple):
    """Width, depth and heads; the rest follows (feed-forward 4 x width, no biases)."""

    width: int
    layers: int
    heads: int
    context: int = CONTEXT

    @property
    def head_width(self) -> int:
        """Numbers per head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Every trained number: tied embedding, and per layer 12 D^2 and the convolution."""
        per_layer = 12 * self.width**2 + CONVOLUTION * self.width
        return VOCABULARY * self.width + self.layers * per_layer


def encode(text: str) -> list[int]:
    """One byte a character; white space becomes a space and what the model never saw a `?`."""
    codes = []
    for character in text:
        code = ord(character)
        if character.isspace():
            code = 32
        elif not _FIRST <= code <= _LAST:
            code = _REPLACEMENT
        codes.append(code)
    return codes


def decode(codes: list[int]) -> str:
    """The text of answer bytes; control bytes, which no answer holds, show as `?`."""
    return "".join(chr(code) if _FIRST <= code <= 126 else "?" for code in codes)


def save_weights(path: Path, *, shape: Shape, arrays: dict[str, npt.NDArray[Any]], about: dict[str, Any]) -> None:
    """Write a weight file in one move, so that a reader never sees half of one."""
    document = json.dumps({"shape": shape._asdict(), "about": about}, sort_keys=True)
    halves: dict[str, npt.NDArray[Any]] = {name: arrays[name].astype(np.float16) for name in ARRAY_NAMES}
    halves["document"] = np.frombuffer(document.encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **halves)
    partial.replace(path)


def load_weights(path: Path) -> tuple[Shape, dict[str, npt.NDArray[np.float32]], dict[str, Any]]:
    """Shape, float32 arrays and what the training run wrote about itself."""
    with np.load(path, allow_pickle=False) as file:
        document = json.loads(file["document"].tobytes())
        arrays = {name: file[name].astype(np.float32) for name in ARRAY_NAMES}
    return Shape(**document["shape"]), arrays, document["about"]
