"""Counting tokens by a tokenizer's own file, ``tokenizer.json``. Ours, no paper. Needs the extra `onnx` (tokenizers), imported at first use.

A prompt is the text of its messages, the tool calls in them and the tools that are offered, as JSON, and `MESSAGE` tokens for the frame of each
message: what a chat template writes around it differs by a few tokens. Pictures and sound are not counted.

A long text is counted in pieces of `PIECE` characters, which may add a token or two each, and the counts of the last `KEPT` pieces are
remembered by their hash: the next turn of a conversation counts what is new. About 0.25 µs a character.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from fairlead.errors import ConfigError
from fairlead.types import Query

MESSAGE: Final = 4
PIECE: Final = 20_000
KEPT: Final = 8_192
_MOST_OF_ONE: Final = 40
"""Tokens that one character beyond ASCII can become at most: some letters are written out in eighteen others, of two bytes or three."""


class Tokenizer:
    """Counts tokens; from any thread."""

    __slots__ = ("_counts", "_inner", "_lock")

    def __init__(self, inner: Any) -> None:
        inner.no_truncation()
        self._inner = inner
        self._counts: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, text: str, *, most: int | None = None) -> int:
        """Count the tokens of `text`; a number above `most` may be any such number: whoever has counted that far may stop."""
        n = 0
        for start in range(0, len(text), PIECE):
            n += self._piece(text[start : start + PIECE])
            if most is not None and n > most:
                break
        return n

    def prompt(self, query: Query, *, most: int | None = None, tools: bool = True) -> int:
        """Count the tokens of a whole prompt, with its tools or without; `most` as for `count`."""
        n = MESSAGE * len(query.messages)
        for text in _texts(query, tools):
            if most is not None and n > most:
                break
            n += self.count(text, most=None if most is None else most - n)
        return n

    def _piece(self, text: str) -> int:
        key = (len(text), hash(text))
        with self._lock:
            n = self._counts.get(key)
            if n is not None:
                self._counts.move_to_end(key)
                return n
        # A lone surrogate is no text for a tokenizer.
        clean = text if text.isascii() else text.encode("utf-8", "replace").decode()
        n = len(self._inner.encode(clean, add_special_tokens=False))
        with self._lock:
            self._counts[key] = n
            while len(self._counts) > KEPT:
                self._counts.popitem(last=False)
        return n


def surely(query: Query) -> int:
    """Return a number of tokens that no tokenizer passes: so many characters, and far more where they are not ASCII.

    One is added for each piece: some tokenizers put a space before a text.
    """
    return MESSAGE * len(query.messages) + sum(
        len(text) * (1 if text.isascii() else _MOST_OF_ONE) + 1 + len(text) // PIECE
        for text in _texts(query, tools=True)
    )


def long(query: Query) -> bool:
    """Say whether a prompt is longer than one piece: counting it may take milliseconds."""
    return sum(map(len, _texts(query, tools=True))) > PIECE


def load(path: str) -> Tokenizer:
    """Return the tokenizer in the file `path`; one for all who ask.

    Raises:
        ConfigError: if there is no such file, it is no tokenizer.json, or the package is missing.
    """
    return _load(path)


@lru_cache(maxsize=16)
def _load(path: str) -> Tokenizer:
    return Tokenizer(read(path))


def read(path: str) -> Any:
    """Return what the package `tokenizers` makes of a file, without padding. Raises as `load`."""
    if not Path(path).is_file():
        raise ConfigError(f"there is no file {path}; a model's tokenizer.json comes with its weights")
    try:
        import tokenizers
    except ImportError as e:
        raise ConfigError(f"a tokenizer needs {e.name}: pip install 'fairlead[onnx]'") from e
    try:
        inner = tokenizers.Tokenizer.from_buffer(Path(path).read_bytes())
    except Exception as e:  # all that tokenizers raises
        raise ConfigError(f"{path} is no tokenizer.json: {e}") from e
    # The file may ask for padding, which costs time and says nothing.
    inner.no_padding()
    return inner


def _texts(query: Query, tools: bool) -> Iterator[str]:
    for m in query.messages:
        yield m.text
        if m.tool_calls:
            yield msgspec.json.encode(m.tool_calls).decode()
    offered = query.body.get("tools")
    if tools and offered is not None:
        yield bytes(offered).decode("utf-8", "replace")
