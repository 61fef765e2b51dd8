"""Small tables as text and as pictures, and a tiny reader of such pictures.

A table is some pairs of a key and a number; the question is the number of one key. As text it is the prompt that the lab's models know as `look_up`
(``ka=31 mo=47; ka?``, answer ``ka=31``), with some of its characters lost, as in a text that was taken from a scan: they stand as ``_``. As a picture it is
the same pairs, one a line, in a font of 3 x 5 points, with noise: a grey PNG of some hundred bytes. Losses and noise are drawn apart, so neither way
is always right.

The reader (`lab-eye`) is a small net, 15 points -> 48 -> 36 characters, trained from nothing on noisy characters by `python -m fairlead.lab.eye`
(some seconds, numpy alone; no torch). It reads every character, finds the line whose key is likeliest the one asked for, and answers with that line. Its
log-probabilities are those of the characters of the answer. It knows nothing else. Ours, no paper.

Shapes: B characters, D = 15 points, H hidden units, C = 36 characters, L lines.
"""

from __future__ import annotations

import base64
import math
import random
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead.lab.tasks import Split, split_of
from fairlead.types import Message, Part, Query

Floats: TypeAlias = NDArray[np.float64]

_FONT: Final = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71122",
    "8": "75757", "9": "75717", "a": "25755", "b": "65656", "c": "34443", "d": "65556", "e": "74647", "f": "74644",
    "g": "34553", "h": "55755", "i": "72227", "j": "11152", "k": "55655", "l": "44447", "m": "57755", "n": "65555",
    "o": "25552", "p": "65644", "q": "25531", "r": "65655", "s": "34216", "t": "72222", "u": "55557", "v": "55552",
    "w": "55775", "x": "55255", "y": "55222", "z": "71247",
}  # fmt: skip
"""Each character's five rows of three points, a row as an octal digit."""
CHARACTERS: Final = "".join(_FONT)
KEY, VALUE = 2, 2
"""Characters of a key and of its number."""
COLUMNS: Final = KEY + 1 + VALUE
"""Characters a line is wide: key, a gap, number."""
NOISE: Final = (0.1, 0.3, 0.5, 0.7)
"""Standard deviations of the noise, where a point is 0 or 1."""
PAIRS: Final = (2, 4, 8, 14)
LOST: Final = (0.0, 0.05, 0.15, 0.35)
"""Shares of a text's letters and digits that are lost."""
HIDDEN: Final = 48
WEIGHTS: Final = Path(__file__).parent / "weights" / "eye.npz"
PARAMETERS: Final = 15 * HIDDEN + HIDDEN + HIDDEN * len(CHARACTERS) + len(CHARACTERS)


class TableQuestion(NamedTuple):
    """One table with its question, as text and as a picture, and the only right answer."""

    key: str
    text: str
    """The pairs as text."""
    picture: bytes
    """The pairs as a PNG."""
    answer: str
    pairs: int
    noise: float
    lost: float
    """Chance of each character of the text to be lost."""

    @property
    def prompt(self) -> str:
        """The question with the table as text, as the lab's models know it."""
        return f"{self.text}; {self.key}?"

    @property
    def url(self) -> str:
        """The picture as a data URL."""
        return "data:image/png;base64," + base64.b64encode(self.picture).decode()

    def query(self, id: str) -> Query:
        """Return a request that holds both, as a client sends it."""
        content = [{"type": "text", "text": self.prompt}, {"type": "image_url", "image_url": {"url": self.url}}]
        message = Message(role="user", content=(Part(text=self.prompt), Part(type="image_url")))
        body = {"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": content}]))}
        return Query(id=id, messages=(message,), body=body)


class Seen(NamedTuple):
    """What the reader made of a picture."""

    text: str
    logprobs: tuple[float, ...]
    """Natural log-probability of each character of key and number."""
    characters: int
    """Characters it looked at."""


def draw_tables(n: int, seed: int, *, split: Split = "test") -> list[TableQuestion]:
    """Make `n` questions, the same for the same arguments; a hash of the prompt decides its split, as for all tasks of the lab."""
    rng = random.Random(seed)
    out: list[TableQuestion] = []
    while len(out) < n:
        pairs = rng.choice(PAIRS)
        keys: list[str] = []
        while len(keys) < pairs:
            key = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=KEY))
            if key not in keys:
                keys.append(key)
        values = [rng.randrange(10, 100) for _ in keys]
        at = rng.randrange(pairs)
        text = " ".join(f"{k}={v}" for k, v in zip(keys, values, strict=True))
        noise, dots, lost = rng.choice(NOISE), rng.getrandbits(32), rng.choice(LOST)
        if split_of(f"{text}; {keys[at]}?") != split:
            continue
        text = "".join("_" if c.isalnum() and rng.random() < lost else c for c in text)
        lines = [f"{k} {v}" for k, v in zip(keys, values, strict=True)]
        picture = png(rendered(lines, noise=noise, seed=dots))
        out.append(TableQuestion(keys[at], text, picture, f"{keys[at]}={values[at]}", pairs, noise, lost))
    return out


# ----------------------------------------------------------------------------------------------------------- pictures


def glyph(character: str) -> Floats:
    """Return a character's points, (15,); a blank for one that the font has not."""
    rows = _FONT.get(character, "00000")
    return np.asarray([(int(row) >> bit) & 1 for row in rows for bit in (2, 1, 0)], dtype=np.float64)


def rendered(lines: list[str], *, noise: float, seed: int) -> NDArray[np.uint8]:
    """Draw lines of `COLUMNS` characters, each 4 x 6 points with its gap, in grey: 64 is background, 192 ink."""
    points = np.zeros((6 * len(lines) + 1, 4 * COLUMNS + 1))
    for y, line in enumerate(lines):
        for x, character in enumerate(line.ljust(COLUMNS)[:COLUMNS]):
            points[6 * y + 1 : 6 * y + 6, 4 * x + 1 : 4 * x + 4] = glyph(character).reshape(5, 3)
    points += np.random.default_rng(seed).normal(0.0, noise, points.shape)
    return np.clip(np.rint(64.0 + 128.0 * points), 0, 255).astype(np.uint8)


def png(grey: NDArray[np.uint8]) -> bytes:
    """Write a grey picture, (height, width), as PNG."""
    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


def points_of(picture: bytes) -> Floats:
    """Read a PNG of the kind that `png` writes, as points of about 0 to 1, (height, width).

    Raises:
        ValueError: if it is another kind of picture.
    """
    if picture[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG")
    at, data, width, height = 8, b"", 0, 0
    while at + 8 <= len(picture):
        (size,), kind = struct.unpack(">I", picture[at : at + 4]), picture[at + 4 : at + 8]
        body = picture[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            if len(body) != 13:
                raise ValueError("a damaged picture")
            width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", body)
            if (depth, colour, interlaced) != (8, 0, 0) or width * height > 100_000:
                raise ValueError("not a small grey picture of 8 bits")
        elif kind == b"IDAT":
            data += body
        at += 12 + size
    try:
        rows = np.frombuffer(zlib.decompressobj().decompress(data, 1 + height * (width + 1)), dtype=np.uint8)
        grey = rows.reshape(height, width + 1)
    except (zlib.error, ValueError) as e:
        raise ValueError("a damaged picture") from e
    if grey[:, 0].any():
        raise ValueError("a picture with filtered rows")
    return (grey[:, 1:].astype(np.float64) - 64.0) / 128.0


# ------------------------------------------------------------------------------------------------------------- reader


class Eye:
    """The reader. `weights`: `w1` (D, H), `b1` (H,), `w2` (H, C), `b2` (C,)."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        self.weights = weights

    def log_p(self, x_BD: Floats) -> Floats:
        """Return the log-probability of every character, (B, C)."""
        w = self.weights
        z_BC = np.maximum(x_BD @ w["w1"] + w["b1"], 0.0) @ w["w2"] + w["b2"]
        z_BC -= z_BC.max(axis=1, keepdims=True)
        out: Floats = z_BC - np.log(np.exp(z_BC).sum(axis=1, keepdims=True))
        return out

    def read(self, picture: bytes, key: str) -> Seen:
        """Find `key` in the picture of a table and answer ``key=number``.

        Raises:
            ValueError: if it is no picture of a table, or the key is not of two letters.
        """
        points = points_of(picture)
        lines = (points.shape[0] - 1) // 6
        if points.shape[1] != 4 * COLUMNS + 1 or lines < 1 or points.shape[0] != 6 * lines + 1:
            raise ValueError("no picture of a table")
        if len(key) != KEY or any(c not in CHARACTERS for c in key):
            raise ValueError(f"{key!r} is no key")
        at = [(y, x) for y in range(lines) for x in (*range(KEY), *range(KEY + 1, COLUMNS))]
        cells = [points[6 * y + 1 : 6 * y + 6, 4 * x + 1 : 4 * x + 4].reshape(-1) for y, x in at]
        log_p_LXC = self.log_p(np.asarray(cells)).reshape(lines, KEY + VALUE, -1)
        wanted = [CHARACTERS.index(c) for c in key]
        score_L = log_p_LXC[:, range(KEY), wanted].sum(axis=1)
        line = int(np.argmax(score_L))
        # How sure it is of the line: against the others, not how well the letters can be read.
        sure = score_L[line] - math.log(float(np.exp(score_L - np.max(score_L)).sum())) - float(np.max(score_L))
        digits = log_p_LXC[line, KEY:, :10]
        found = [int(np.argmax(d)) for d in digits]
        logprobs = (float(sure), *(float(digits[i, d]) for i, d in enumerate(found)))
        return Seen(f"{key}={''.join(CHARACTERS[d] for d in found)}", logprobs, len(at))


@cache
def eye() -> Eye:
    """Return the shipped reader; read from disk once a process."""
    with np.load(WEIGHTS, allow_pickle=False) as file:
        return Eye({name: file[name].astype(np.float64) for name in ("w1", "b1", "w2", "b2")})


def train(*, steps: int = 4000, batch: int = 256, rate: float = 3e-3, seed: int = 3) -> dict[str, Floats]:
    """Train the reader on noisy characters, by Adam; half a minute on one core."""
    rng = np.random.default_rng(seed)
    x_CD = np.stack([glyph(c) for c in CHARACTERS])
    shapes = {"w1": (15, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, len(CHARACTERS)), "b2": (len(CHARACTERS),)}
    w = {n: rng.normal(0.0, math.sqrt(2.0 / s[0]), s) if len(s) == 2 else np.zeros(s) for n, s in shapes.items()}
    first, second = ({n: np.zeros(s) for n, s in shapes.items()} for _ in range(2))
    for step in range(1, steps + 1):
        y_B = rng.integers(len(CHARACTERS), size=batch)
        noise_B = rng.choice(NOISE, size=(batch, 1))
        x_BD = x_CD[y_B] + rng.normal(size=(batch, 15)) * noise_B
        h_BH = np.maximum(x_BD @ w["w1"] + w["b1"], 0.0)
        off_BC = np.exp(Eye(w).log_p(x_BD))
        off_BC[np.arange(batch), y_B] -= 1.0
        off_BC /= batch
        back_BH = (off_BC @ w["w2"].T) * (h_BH > 0.0)
        gradient = {"w1": x_BD.T @ back_BH, "b1": back_BH.sum(0), "w2": h_BH.T @ off_BC, "b2": off_BC.sum(0)}
        slow = rate * (1.0 - step / (steps + 1))
        for name, g in gradient.items():
            first[name] += 0.1 * (g - first[name])
            second[name] += 0.001 * (g * g - second[name])
            drift = first[name] / (1.0 - 0.9**step)
            w[name] -= slow * drift / (np.sqrt(second[name] / (1.0 - 0.999**step)) + 1e-8)
    return w


def main() -> None:
    """Train the reader and write its weights."""
    np.savez(WEIGHTS, allow_pickle=False, **{n: v.astype(np.float16) for n, v in train().items()})


if __name__ == "__main__":
    main()
