"""Serve a lab model with numpy alone: prefill, key-value cache, sampling, true log-probabilities.

The model is the byte transformer of `shapes.py`.  A layer is

    x = x + sum over b = 1..3 of conv_b * norm(x)[t - b]      (causal convolution)
    x = x + out @ attention(rotary(q), rotary(k), v),  q, k, v = qkv @ norm(x)
    x = x + down @ relu(up @ norm(x))^2

with `norm` the root-mean-square norm without weights, and the embedding tied to the output.

Choices that matter:

* Reported log-probabilities and entropies (in nats) are always those of the model's own
  distribution, before temperature and top-p, whatever the sampling.
* `n` samples share one prefill and then run as one batch.  Sample i draws from its own
  generator seeded by (seed, i), so a seed names an answer.
* The end byte counts as a completion token and in `mean_logprob` (an answer is only as sure as
  its end), but it has no text, so it is not among `tokens`.
* A prompt costs its characters plus two bytes: the start and the mode.

Cost on one core: 0.15 to 0.5 ms a token, prefill of 30 bytes 0.3 to 2 ms, by model.  Ours, no paper.

Shape legend: L layers, N samples, H heads, K head width, D width, T positions, C cache room, V bytes.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fairlead.lab.shapes import (
    CONVOLUTION,
    END,
    MODE_BYTES,
    NORM_EPSILON,
    ROTARY_BASE,
    Mode,
    Shape,
    decode,
    encode,
    load_weights,
)

Floats = npt.NDArray[np.float32]
FinishReason = Literal["stop", "length"]

SCRATCH_END: Final = ">"
DEFAULT_MAX_TOKENS: Final = 128

# Positions of cache kept beyond what is filled.
_ROOM: Final = 16


class Token(NamedTuple):
    """One byte of an answer as it was chosen."""

    text: str
    logprob: float
    entropy: float
    top_logprobs: tuple[tuple[str, float], ...] = ()


class Completion(NamedTuple):
    """One sampled answer.  `text` is all that was written, scratch work included."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    mean_logprob: float
    first_entropy: float

    @property
    def answer(self) -> str:
        """What follows the scratch work; all of the text if there is none."""
        return self.text.rpartition(SCRATCH_END)[2]

    @property
    def token_logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token of the text."""
        return tuple(token.logprob for token in self.tokens)

    @property
    def entropies(self) -> tuple[float, ...]:
        """Entropy, in nats, of the distribution each token was drawn from."""
        return tuple(token.entropy for token in self.tokens)


class _Cache:
    """Keys, values and the last three normed inputs of each layer, for N samples."""

    def __init__(self, *, shape: Shape, samples: int, capacity: int) -> None:
        self.keys_LNHCK = np.zeros((shape.layers, samples, shape.heads, capacity, shape.head_width), dtype=np.float32)
        self.values_LNHCK = np.zeros_like(self.keys_LNHCK)
        # [:, :, b - 1] is the normed input b positions back; zero before the start.
        self.recent_LNBD = np.zeros((shape.layers, samples, CONVOLUTION, shape.width), dtype=np.float32)
        self.length = 0

    def take(self, rows: Sequence[int]) -> None:
        """Make these rows the samples; a row may occur more than once."""
        self.keys_LNHCK = self.keys_LNHCK[:, rows]
        self.values_LNHCK = self.values_LNHCK[:, rows]
        self.recent_LNBD = self.recent_LNBD[:, rows]

    def make_room(self) -> None:
        """Let one more position in; room grows in pieces, since most answers are short."""
        if self.length == self.keys_LNHCK.shape[3]:
            pad = ((0, 0), (0, 0), (0, 0), (0, _ROOM), (0, 0))
            self.keys_LNHCK = np.pad(self.keys_LNHCK, pad)
            self.values_LNHCK = np.pad(self.values_LNHCK, pad)


class _Sample:
    """What one sample has written so far, and when it is over."""

    def __init__(self, *, generator: np.random.Generator, stop: tuple[str, ...]) -> None:
        self.generator = generator
        self.stop = stop
        self.text = ""
        self.tokens: list[Token] = []
        self.logprobs: list[float] = []
        self.first_entropy = 0.0
        self.finish_reason: FinishReason | None = None

    def take(self, code: int, logprob: float, entropy: float, top: tuple[tuple[str, float], ...]) -> None:
        """Add one chosen byte; ends the sample on the end byte or a stop string."""
        if not self.logprobs:
            self.first_entropy = entropy
        self.logprobs.append(logprob)
        if code == END:
            self.finish_reason = "stop"
            return
        token = Token(decode([code]), logprob, entropy, top)
        self.tokens.append(token)
        self.text += token.text
        for stop in self.stop:
            if self.text.endswith(stop):
                # One byte is one token, so the stop string's tokens are the last ones.
                self.text = self.text[: -len(stop)]
                del self.tokens[-len(stop) :]
                self.finish_reason = "stop"
                return

    def settled(self) -> int:
        """How many tokens can no longer become part of a stop string."""
        if self.finish_reason is not None:
            return len(self.tokens)
        held = 0
        for stop in self.stop:
            for size in range(1, len(stop)):
                if self.text.endswith(stop[:size]):
                    held = max(held, size)
        return len(self.tokens) - held

    def completion(self, prompt_tokens: int) -> Completion:
        """The finished answer."""
        count = len(self.logprobs)
        return Completion(
            text=self.text,
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason or "length",
            prompt_tokens=prompt_tokens,
            completion_tokens=count,
            mean_logprob=sum(self.logprobs) / count if count else 0.0,
            first_entropy=self.first_entropy,
        )


class Model:
    """A loaded lab model.  It keeps no state between calls, so threads may share it."""

    def __init__(self, *, name: str, shape: Shape, arrays: Mapping[str, Floats], about: Mapping[str, Any]) -> None:
        self.name = name
        self.shape = shape
        self.arrays = arrays
        self.about = about
        self._embed_VD = arrays["embed"]
        self._output_DV = np.ascontiguousarray(arrays["embed"].T)
        self._conv_LBD = arrays["conv"]
        self._qkv_LDX = _transposed(arrays["qkv"])
        self._out_LDD = _transposed(arrays["out"])
        self._up_LDX = _transposed(arrays["up"])
        self._down_LXD = _transposed(arrays["down"])
        half = shape.head_width // 2
        angle = np.arange(shape.context)[:, None] * ROTARY_BASE ** (-np.arange(half) / half)
        self._cosine_CK = np.cos(angle).astype(np.float32)
        self._sine_CK = np.sin(angle).astype(np.float32)
        self._scale = np.float32(shape.head_width**-0.5)

    @property
    def context_window(self) -> int:
        """The most bytes a prompt and its answer may take together."""
        return self.shape.context

    def count_tokens(self, prompt: str) -> int:
        """What a prompt costs: its characters, the start byte and the mode byte."""
        return len(prompt) + 2

    def generate(
        self,
        prompt: str,
        *,
        mode: Mode = "direct",
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        n: int = 1,
        seed: int = 0,
        stop: Sequence[str] = (),
        top_logprobs: int = 0,
        written: str = "",
    ) -> tuple[Completion, ...]:
        """`n` answers; temperature 0 is greedy. They go on from what is `written` already, and hold only what is new."""
        samples = self._samples(n, seed, stop)
        steps = self._decode(prompt, samples, mode, max_tokens, temperature, top_p, top_logprobs, written)
        for _ in steps:
            pass
        return tuple(sample.completion(self.count_tokens(prompt + written)) for sample in samples)

    def stream(
        self,
        prompt: str,
        *,
        mode: Mode = "direct",
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        top_logprobs: int = 0,
        written: str = "",
    ) -> Generator[Token, None, Completion]:
        """One answer byte by byte; the generator's return value is the whole completion.

        Bytes that may turn out to begin a stop string are held back until that is known.
        """
        samples = self._samples(1, seed, stop)
        sent = 0
        for _ in self._decode(prompt, samples, mode, max_tokens, temperature, top_p, top_logprobs, written):
            settled = samples[0].settled()
            yield from samples[0].tokens[sent:settled]
            sent = max(sent, settled)
        yield from samples[0].tokens[sent:]
        return samples[0].completion(self.count_tokens(prompt + written))

    def next_logprobs(self, prompt: str, written: str = "", *, mode: Mode = "direct") -> Floats:
        """Log-probabilities (V) of the byte after `written`, by one full pass without a cache."""
        codes = self._prompt_codes(prompt, mode, written)
        logprobs_V: Floats = _log_softmax(self._prefill(codes)[0])[0]
        return logprobs_V

    def _samples(self, n: int, seed: int, stop: Sequence[str]) -> list[_Sample]:
        if n < 1:
            raise ValueError(f"n is {n}; it must be at least 1")
        if isinstance(stop, str):
            stop = (stop,)
        stops = tuple(text for text in stop if text)
        return [
            _Sample(generator=np.random.default_rng((abs(seed), int(seed < 0), index)), stop=stops)
            for index in range(n)
        ]

    def _prompt_codes(self, prompt: str, mode: Mode, written: str = "") -> list[int]:
        if mode not in MODE_BYTES:
            raise ValueError(f"unknown mode {mode!r}; the modes are {', '.join(MODE_BYTES)}")
        # One byte is left for the answer.
        limit = self.shape.context - 3
        if len(prompt) > limit:
            raise ValueError(
                f"the prompt has {len(prompt)} characters; {self.name} takes at most {limit} "
                f"(its context window is {self.shape.context} bytes)"
            )
        codes = [END, *encode(prompt), MODE_BYTES[mode], *encode(written)]
        if len(codes) >= self.shape.context:
            raise ValueError(f"{len(codes)} bytes leave no room in the context window of {self.shape.context} bytes")
        return codes

    def _decode(
        self,
        prompt: str,
        samples: list[_Sample],
        mode: Mode,
        max_tokens: int,
        temperature: float,
        top_p: float,
        top_logprobs: int,
        written: str,
    ) -> Generator[None, None, None]:
        """Advance every sample by one byte per iteration until all are over."""
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; it must not be negative")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1")
        codes = self._prompt_codes(prompt, mode, written)
        logits_NV, cache = self._prefill(codes)
        active = list(samples)
        if len(active) > 1:
            cache.take([0] * len(active))
            logits_NV = np.repeat(logits_NV, len(active), axis=0)
        budget = min(max_tokens, self.shape.context - len(codes))
        for taken in range(budget):
            logprobs_NV = _log_softmax(logits_NV)
            chosen = []
            for sample, logprobs_V in zip(active, logprobs_NV, strict=True):
                code = _choose(logprobs_V, temperature, top_p, sample.generator)
                probabilities = np.exp(logprobs_V)
                entropy = float(-(probabilities * logprobs_V).sum())
                sample.take(code, float(logprobs_V[code]), entropy, _top(logprobs_V, top_logprobs))
                chosen.append(code)
            yield
            going = [row for row, sample in enumerate(active) if sample.finish_reason is None]
            if not going or taken == budget - 1:
                return
            if len(going) < len(active):
                cache.take(going)
                active = [active[row] for row in going]
                chosen = [chosen[row] for row in going]
            logits_NV = self._step(chosen, cache)

    def _prefill(self, codes: Sequence[int]) -> tuple[Floats, _Cache]:
        """Logits (1, V) after these bytes, and the cache of having read them."""
        shape = self.shape
        length = len(codes)
        cache = _Cache(shape=shape, samples=1, capacity=length + _ROOM)
        cos_TK, sin_TK = self._cosine_CK[:length], self._sine_CK[:length]
        ahead_TT = np.triu(np.full((length, length), -1e9, dtype=np.float32), 1)
        x_TD = _norm(self._embed_VD[np.asarray(codes)])
        for layer in range(shape.layers):
            normed_TD = _norm(x_TD)
            for back in range(1, CONVOLUTION + 1):
                if back <= length:
                    cache.recent_LNBD[layer, 0, back - 1] = normed_TD[length - back]
                x_TD[back:] += self._conv_LBD[layer, back - 1] * normed_TD[:-back]
            qkv = (_norm(x_TD) @ self._qkv_LDX[layer]).reshape(length, 3, shape.heads, shape.head_width)
            q_HTK, k_HTK, v_HTK = qkv.transpose(1, 2, 0, 3)
            q_HTK, k_HTK = _rotate(q_HTK, cos_TK, sin_TK), _rotate(k_HTK, cos_TK, sin_TK)
            cache.keys_LNHCK[layer, 0, :, :length] = k_HTK
            cache.values_LNHCK[layer, 0, :, :length] = v_HTK
            weights_HTT = _softmax(q_HTK @ k_HTK.transpose(0, 2, 1) * self._scale + ahead_TT)
            mixed_TD = (weights_HTT @ v_HTK).transpose(1, 0, 2).reshape(length, shape.width)
            x_TD = x_TD + mixed_TD @ self._out_LDD[layer]
            x_TD = x_TD + _squared_relu(_norm(x_TD) @ self._up_LDX[layer]) @ self._down_LXD[layer]
        cache.length = length
        return _norm(x_TD[-1:]) @ self._output_DV, cache

    def _step(self, codes: Sequence[int], cache: _Cache) -> Floats:
        """Logits (N, V) after one more byte for each sample; the cache grows by it."""
        shape = self.shape
        samples, at = len(codes), cache.length
        cache.make_room()
        cos_K, sin_K = self._cosine_CK[at], self._sine_CK[at]
        x_ND = _norm(self._embed_VD[np.asarray(codes)])
        for layer in range(shape.layers):
            recent_NBD = cache.recent_LNBD[layer]
            normed_ND = _norm(x_ND)
            x_ND = x_ND + (self._conv_LBD[layer] * recent_NBD).sum(axis=1)
            recent_NBD[:, 1:] = recent_NBD[:, :-1].copy()
            recent_NBD[:, 0] = normed_ND
            qkv = (_norm(x_ND) @ self._qkv_LDX[layer]).reshape(samples, 3, shape.heads, shape.head_width)
            q_NHK = _rotate(qkv[:, 0], cos_K, sin_K)
            cache.keys_LNHCK[layer, :, :, at] = _rotate(qkv[:, 1], cos_K, sin_K)
            cache.values_LNHCK[layer, :, :, at] = qkv[:, 2]
            keys_NHTK = cache.keys_LNHCK[layer, :, :, : at + 1]
            values_NHTK = cache.values_LNHCK[layer, :, :, : at + 1]
            weights_NHT = _softmax((keys_NHTK @ q_NHK[..., None])[..., 0] * self._scale)
            mixed_ND = (weights_NHT[:, :, None, :] @ values_NHTK).reshape(samples, shape.width)
            x_ND = x_ND + mixed_ND @ self._out_LDD[layer]
            x_ND = x_ND + _squared_relu(_norm(x_ND) @ self._up_LDX[layer]) @ self._down_LXD[layer]
        cache.length = at + 1
        logits_NV: Floats = _norm(x_ND) @ self._output_DV
        return logits_NV


def load_model(path: Path, *, name: str | None = None) -> Model:
    """The model in this weight file."""
    shape, arrays, about = load_weights(path)
    return Model(name=name or path.stem, shape=shape, arrays=arrays, about=about)


def prompt_of(messages: Iterable[Mapping[str, Any]]) -> str:
    """The text of the last user message: all that a lab model reads of a chat.

    A message is a mapping with `role` and `content`, where content is text or a list of parts
    of which the `text` ones are read.  Without a user message the prompt is empty.
    """
    prompt = ""
    for message in messages:
        if message.get("role") != "user":
            continue
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = " ".join(str(part["text"]) for part in content if part.get("type", "text") == "text")
        prompt = content
    return prompt.strip()


def written_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text that an assistant's message at the end begins: what a model is to go on from. Empty if there is none."""
    last = messages[-1] if messages else {}
    content = last.get("content") if last.get("role") == "assistant" else ""
    return content if isinstance(content, str) else ""


def _transposed(stack: Floats) -> Floats:
    return np.ascontiguousarray(stack.transpose(0, 2, 1))


def _norm(x: Floats) -> Floats:
    mean = np.einsum("...d,...d->...", x, x)[..., None] / np.float32(x.shape[-1])
    result: Floats = x / np.sqrt(mean + np.float32(NORM_EPSILON))
    return result


def _rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    half = x.shape[-1] // 2
    one, two = x[..., :half], x[..., half:]
    return np.concatenate((one * cos - two * sin, two * cos + one * sin), axis=-1)


def _softmax(x: Floats) -> Floats:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return result


def _log_softmax(x: Floats) -> Floats:
    shifted = x - x.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _squared_relu(x: Floats) -> Floats:
    positive = np.maximum(x, np.float32(0))
    return positive * positive


def _choose(logprobs_V: Floats, temperature: float, top_p: float, generator: np.random.Generator) -> int:
    if temperature == 0:
        return int(logprobs_V.argmax())
    tempered = logprobs_V.astype(np.float64) / temperature
    probabilities = np.exp(tempered - tempered.max())
    probabilities /= probabilities.sum()
    if top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        # Kept until the mass before a byte reaches top_p; the likeliest always stays.
        beyond = np.cumsum(probabilities[order]) - probabilities[order] >= top_p
        beyond[0] = False
        probabilities[order[beyond]] = 0.0
        probabilities /= probabilities.sum()
    cumulative = np.cumsum(probabilities)
    found = int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
    return min(found, int(np.flatnonzero(probabilities)[-1]))


def _top(logprobs_V: Floats, count: int) -> tuple[tuple[str, float], ...]:
    if count <= 0:
        return ()
    order = np.argsort(-logprobs_V, kind="stable")[:count]
    return tuple(("" if code == END else decode([int(code)]), float(logprobs_V[code])) for code in order)
