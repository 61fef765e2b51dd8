"""WideMLP: a bag of hashed words and character runs, one hidden layer, one output per class; and how much of a text it knows.

The bag-of-words net of Galke & Scherp 2022 (arXiv 2109.03777), which GQR-Bench (Šléher et al. 2025, arXiv 2505.14524) uses as a guarded
router:

    x_f = (1 + log count_f) * idf_f / length,      logits = relu(x W1 + b1) W2 + b2

over the features f of the vocabulary. Differs from the papers: features are words, pairs of words and runs of four bytes, by hash, so the
vocabulary is numbers; it holds those that most training texts have; and **a feature outside it counts in the length**, with the idf of one
never seen. So the more of a text is unknown, the nearer its vector is to zero. Trained by Adam with dropout on features and hidden units
and on softened labels, which keeps the net from being sure of everything; a step touches only the rows of W1 whose features are in its
batch. W1 is kept as one byte per weight, with a scale per unit.

A dense vector (of an embedder) can stand in for the bag; then nothing is unknown.

Of a long text the first and the last `READ` characters are read. About 75 µs for 300 characters with 32,768 features and 64 units.

Shapes: N texts, F features of a text, V inputs (the vocabulary, or a dense vector's), H hidden units, C classes.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairlead.errors import ConfigError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats: TypeAlias = NDArray[np.float32]
Net: TypeAlias = dict[str, Any]
"""What was learned: `vocabulary_V` (sorted hashes; empty for dense input), `idf_V`, `unseen` (idf of a feature outside the vocabulary),
`w1_VH` (int8), `scale_H`, `b1_H`, `w2_HC`, `b2_C`."""

READ: Final = 1_000

_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
_ASCII_WORD: Final = re.compile(r"\w+|[^\w\s\x1c-\x1f]", re.ASCII)
"""The same for plain ASCII, twice as fast."""
_MASK: Final = bytes.maketrans(b"0123456789", b"0" * 10)
_MIX_1: Final = np.uint32(0x9E3779B1)
_MIX_2: Final = np.uint32(0x85EBCA77)
_SECOND: Final = np.uint32(0x27D4EB2F)
_RUN: Final = 4
_BATCH: Final = 64
_DROPOUT: Final = np.float32(0.5)
_INPUT_DROPOUT: Final = np.float32(0.2)


class Bag(NamedTuple):
    """The features of a text: hashes, each once and in rising order, and 1 + log of how often each is there."""

    hash_F: NDArray[np.uint32]
    weight_F: Floats


class Seen(NamedTuple):
    """What a net says of one text."""

    logit_C: NDArray[np.float64]
    known: float
    """Share of the text's features that are in the vocabulary; for a dense vector 1, or 0 if it is all zeros."""
    density: float
    """Mean log-frequency of the text's features among the training texts (minus their mean idf); 0 for a dense vector."""


def bag(text: str) -> Bag:
    """Return the features of `text`: lowered, digits masked."""
    if len(text) > 2 * READ:
        text = text[:READ] + " " + text[-READ:]
    text = text.lower()
    found = (_ASCII_WORD if text.isascii() else _WORD).findall(text)
    if not found:
        return Bag(np.zeros(0, np.uint32), np.zeros(0, np.float32))
    data = f" {' '.join(found)} ".encode("utf-8", "surrogatepass").translate(_MASK)
    words = data[1:-1].split(b" ")
    word_W = np.fromiter(map(zlib.crc32, words), np.uint32, len(words))
    byte_B = np.frombuffer(data, np.uint8).astype(np.uint32)
    last = max(len(byte_B) - _RUN + 1, 0)
    run_R = byte_B[:last].copy()
    for k in range(1, _RUN):
        run_R *= _MIX_1
        run_R += byte_B[k : last + k]
    run_R ^= run_R >> np.uint32(15)
    run_R *= _MIX_2
    run_R ^= run_R >> np.uint32(13)
    pair_P = (word_W[:-1] * _MIX_1) ^ ((word_W[1:] + _SECOND) * _MIX_2)
    hash_F, count_F = np.unique(np.concatenate([word_W, pair_P, run_R]), return_counts=True)
    return Bag(hash_F, np.log(count_F.astype(np.float32)) + np.float32(1.0))


def look(net: Net, found: Bag | Floats) -> Seen:
    """Run the net on the bag of one text, or on its dense vector if the net was trained on such."""
    if isinstance(found, Bag):
        at_F, inside_F = _places(net["vocabulary_V"], found)
        at_K, weight_K = at_F[inside_F], found.weight_F[inside_F] * net["idf_V"][at_F[inside_F]]
        outside = found.weight_F[~inside_F]
        n, unseen = len(at_F), float(net["unseen"])
        length = math.sqrt(float(weight_K @ weight_K) + unseen**2 * float(outside @ outside)) or 1.0
        pre_H = (weight_K / np.float32(length)) @ net["w1_VH"][at_K].astype(np.float32)
        known = len(at_K) / n if n else 0.0
        density = -(float(net["idf_V"][at_K].sum()) + unseen * (n - len(at_K))) / n if n else -unseen
    else:
        pre_H = found @ net["w1_VH"].astype(np.float32)
        known, density = float(found.any()), 0.0
    hidden_H = np.maximum(pre_H * net["scale_H"] + net["b1_H"], 0.0)
    return Seen((hidden_H @ net["w2_HC"] + net["b2_C"]).astype(np.float64), known, density)


def train(
    texts: Sequence[Bag] | Floats,
    class_N: NDArray[np.int64],
    *,
    classes: int,
    features: int,
    hidden: int,
    epochs: int,
    rate: float,
    seed: int,
    smoothing: float = 0.1,
) -> Net:
    """Train a net on the bags of N texts, or on their dense vectors (N, V), and on the number of each one's class.

    Args:
        texts: see above.
        class_N: classes as numbers from 0.
        classes: how many there are.
        features: size of the vocabulary, at most.
        hidden: units.
        epochs: rounds through the texts.
        rate: step size of Adam.
        seed: of the first weights, the order of the texts and the dropout.
        smoothing: share of a label's weight that is spread over all classes.
    """
    rng = np.random.default_rng(seed)
    if isinstance(texts, np.ndarray):
        vocabulary_V, idf_V, unseen = np.zeros(0, np.uint32), np.zeros(0, np.float32), 0.0
        x_NV: Any = texts.astype(np.float32)
    else:
        vocabulary_V, idf_V, unseen = _vocabulary(texts, features)
        x_NV = _matrix(texts, vocabulary_V, idf_V, unseen)
    v = x_NV.shape[1]
    # Unit-length inputs: weights this small leave the logits near zero at the start, whatever the text.
    first = rng.normal(0.0, 0.4 / math.sqrt(hidden), (v, hidden)).astype(np.float32)
    second = rng.normal(0.0, 1.0 / math.sqrt(hidden), (hidden, classes)).astype(np.float32)
    params = [first, np.zeros(hidden, np.float32), second, np.zeros(classes, np.float32)]
    adam = _Adam(params, rate)
    y_NC = np.eye(classes, dtype=np.float32)[class_N] * (1.0 - smoothing) + smoothing / classes
    # Few texts are taken in smaller batches, or there would be too few steps.
    batch = min(max(len(y_NC) // 16, 8), _BATCH)
    for _ in range(epochs):
        order_N = rng.permutation(len(y_NC))
        for start in range(0, len(y_NC), batch):
            rows = order_N[start : start + batch]
            cols_K, x_BK = _dropped(x_NV[rows], rng)
            _step(params, adam, cols_K, x_BK, y_NC[rows].astype(np.float32), rng)
    w1_VH, b1_H, w2_HC, b2_C = params
    scale_H = np.maximum(np.abs(w1_VH).max(axis=0, initial=0.0), 1e-12) / 127.0
    return {
        "vocabulary_V": vocabulary_V,
        "idf_V": idf_V,
        "unseen": unseen,
        "w1_VH": np.rint(w1_VH / scale_H).astype(np.int8),
        "scale_H": scale_H.astype(np.float32),
        "b1_H": b1_H,
        "w2_HC": w2_HC,
        "b2_C": b2_C,
    }


def _places(vocabulary_V: NDArray[np.uint32], found: Bag) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where each feature stands in the vocabulary, and whether it does."""
    if not len(vocabulary_V):
        return np.zeros(len(found.hash_F), np.intp), np.zeros(len(found.hash_F), np.bool_)
    at_F = np.minimum(np.searchsorted(vocabulary_V, found.hash_F), len(vocabulary_V) - 1)
    return at_F, vocabulary_V[at_F] == found.hash_F


def _vocabulary(texts: Sequence[Bag], features: int) -> tuple[NDArray[np.uint32], Floats, float]:
    """Return the hashes that most texts have, their idf, and the idf of a feature that none has."""
    hash_U, count_U = np.unique(np.concatenate([b.hash_F for b in texts]), return_counts=True)
    chosen = np.sort(np.argsort(-count_U, kind="stable")[:features])
    unseen = math.log(1.0 + len(texts)) + 1.0
    return hash_U[chosen], (unseen - np.log(1.0 + count_U[chosen])).astype(np.float32), unseen


def _matrix(texts: Sequence[Bag], vocabulary_V: NDArray[np.uint32], idf_V: Floats, unseen: float) -> csr_matrix:
    try:
        from scipy.sparse import csr_matrix
    except ImportError as e:
        raise ConfigError("teaching needs scipy: pip install 'fairlead[bench]'") from e

    ends, columns, values = [0], [], []
    for found in texts:
        at_F, inside_F = _places(vocabulary_V, found)
        x_F = found.weight_F * np.where(inside_F, idf_V[at_F], np.float32(unseen))
        columns.append(at_F[inside_F])
        values.append(x_F[inside_F] / (math.sqrt(float(x_F @ x_F)) or 1.0))
        ends.append(ends[-1] + len(columns[-1]))
    shape = (len(texts), len(vocabulary_V))
    return csr_matrix((np.concatenate(values).astype(np.float32), np.concatenate(columns), ends), shape=shape)


def _dropped(x_BV: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Leave out a share of the inputs, and all columns that are empty then: most of a vocabulary, which no step need touch."""
    if isinstance(x_BV, np.ndarray):
        return slice(None), x_BV * _mask(rng, x_BV.shape, _INPUT_DROPOUT)
    from scipy.sparse import csr_matrix

    there_V = np.zeros(x_BV.shape[1], np.bool_)
    there_V[x_BV.indices] = True
    cols_K = np.flatnonzero(there_V)
    place_V = np.zeros(x_BV.shape[1], np.int32)
    place_V[cols_K] = np.arange(len(cols_K))
    column = place_V[x_BV.indices]
    data = x_BV.data * _mask(rng, x_BV.data.shape, _INPUT_DROPOUT)
    return cols_K, csr_matrix((data, column, x_BV.indptr), shape=(x_BV.shape[0], len(cols_K)))


def _step(params: list[Floats], adam: _Adam, cols_K: Any, x_BK: Any, y_BC: Floats, rng: np.random.Generator) -> None:
    """Follow the gradient of the cross-entropy once."""
    w1_VH, b1_H, w2_HC, b2_C = params
    pre_BH = x_BK @ w1_VH[cols_K] + b1_H
    gate_BH = (pre_BH > 0.0) * _mask(rng, pre_BH.shape, _DROPOUT)
    hidden_BH = pre_BH * gate_BH
    logit_BC = hidden_BH @ w2_HC + b2_C
    p_BC = np.exp(logit_BC - logit_BC.max(axis=1, keepdims=True))
    off_BC = (p_BC / p_BC.sum(axis=1, keepdims=True) - y_BC) / np.float32(len(y_BC))
    back_BH = (off_BC @ w2_HC.T) * gate_BH
    adam.step(
        [
            (cols_K, np.asarray(x_BK.T @ back_BH)),
            (slice(None), back_BH.sum(axis=0)),
            (slice(None), hidden_BH.T @ off_BC),
            (slice(None), off_BC.sum(axis=0)),
        ]
    )


class _Adam:
    """Adam (Kingma & Ba 2014, arXiv 1412.6980) in place. Rows without a gradient rest, their moments too."""

    def __init__(self, params: list[Floats], rate: float) -> None:
        self.params = params
        self.rate = rate
        self.first = [np.zeros_like(p) for p in params]
        self.second = [np.zeros_like(p) for p in params]
        self.steps = 0

    def step(self, gradient: list[tuple[Any, Floats]]) -> None:
        self.steps += 1
        rate = np.float32(self.rate * math.sqrt(1.0 - 0.999**self.steps) / (1.0 - 0.9**self.steps))
        for param, first, second, (rows, g) in zip(self.params, self.first, self.second, gradient, strict=True):
            m, s = first[rows], second[rows]
            m *= np.float32(0.9)
            m += np.float32(0.1) * g
            g *= g
            s *= np.float32(0.999)
            s += np.float32(0.001) * g
            first[rows], second[rows] = m, s
            s = np.sqrt(s)
            s += np.float32(1e-8)
            np.divide(m, s, out=s)
            s *= rate
            param[rows] -= s


def _mask(rng: np.random.Generator, shape: tuple[int, ...], share: np.float32) -> Floats:
    """Zeros for a share of the entries; the others make up for them."""
    return (rng.random(shape, dtype=np.float32) >= share).astype(np.float32) / (np.float32(1.0) - share)
