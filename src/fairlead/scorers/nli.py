"""A second opinion by a model of entailment: an ONNX cross-encoder and its tokenizer, asked about the claims that words do not support.

As the explainer of HaluGate (vLLM Semantic Router, 2026, arXiv 2603.04444) reads the spans that its detector doubts, so that its cost comes
only with doubt: E[cost] = C_sent + p (C_det + k C_nli), k the doubted claims. Here each doubted claim (hypothesis) is read with each of the
`passages` nearest sentences (premise):

    P(entailed) = max over passages of softmax(model(premise, claim))[entailment]

A claim with P at `bar` or above is cleared; of the others one that some passage contradicts (that label is its likeliest) says so. What words
support is not read by the model: what `lexical` cannot see (names that change places) this does not see either.

Nothing is downloaded: the files are yours (any sequence classifier over three labels, such as a DeBERTa or MiniLM fine-tuned on MNLI, exported
to ONNX). Needs the extra `onnx`, imported at the first doubt. `labels` must be in the order of the model's outputs: a wrong order turns
verdicts round, and nothing here can notice.

Shapes: B pairs, L tokens, C = 3 labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.detect.support import BAR, Passages, Support, Verdict, claims, gathered, judged
from fairlead.errors import ConfigError
from fairlead.scorers.base import Scorer

_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_LABELS: Final = ("contradiction", "neutral", "entailment")


class NLI(Scorer):
    """Judge by words, and ask a model about what they leave in doubt.

    Args:
        model: path of the ONNX file; in a config relative to its folder.
        tokenizer: path of the `tokenizer.json` that belongs to it.
        labels: the three labels in the order of the model's outputs.
        bar: probability of entailment from which a claim is cleared.
        doubt: score by words below which the model is asked.
        passages: how many of the nearest sentences are read with each claim.
        max_tokens: of a pair.
        threads: that one answer may use.

    Raises:
        ConfigError: by `check` for labels that are not the three; at the first use, if a package or file is missing, or the model is none that
            takes tokens and gives three numbers.
    """

    paths: ClassVar[tuple[str, ...]] = ("model", "tokenizer")

    def __init__(
        self,
        *,
        model: str,
        tokenizer: str,
        labels: tuple[str, ...] = _LABELS,
        bar: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.5,
        doubt: Annotated[float, Meta(ge=0.0, le=1.0)] = BAR,
        passages: Annotated[int, Meta(ge=1)] = 3,
        max_tokens: Annotated[int, Meta(ge=8)] = 256,
        threads: Annotated[int, Meta(ge=1)] = 1,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.labels = labels
        self.bar = bar
        self.doubt = doubt
        self.passages = passages
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
    def slow(self) -> bool:
        """A model takes tens of milliseconds a claim."""
        return True

    def check(self) -> None:
        """Raise `ConfigError` if `labels` are not the three, in some order."""
        if sorted(self.labels) != sorted(_LABELS):
            raise ConfigError(f"labels are {', '.join(_LABELS)}, in the order of the model's outputs", path="$.labels")

    def prepare(self) -> None:
        """Load the model and the tokenizer."""
        if self._loaded is None:
            self._load()

    def judge(self, answer: str, texts: Sequence[str]) -> Support:
        """Judge every claim by words, then the doubted ones by the model."""
        first = judged(answer, texts, bar=self.doubt)
        doubted = first.unsupported
        if not doubted:
            return first
        index = Passages(texts)
        verdicts = {c.start: self._asked(c.text, index.nearest(c.text, self.passages), c.verdict) for c in doubted}
        spans = claims(answer)
        by_words = {c.start: c.verdict for c in first.claims}
        # What words support keeps its score, on the scale of the model's: it is above any bar.
        all_ = [verdicts.get(s) or msgspec.structs.replace(by_words[s], score=1.0) for s, _ in spans]
        return gathered(answer, spans, all_, bar=self.bar)

    def _asked(self, claim: str, premises: Sequence[str], by_words: Verdict) -> Verdict:
        if not premises:
            return by_words
        p_BC = self.probabilities([(premise, claim) for premise in premises])
        entailed_B = p_BC[:, self.labels.index("entailment")]
        best = int(entailed_B.argmax())
        score = float(entailed_B[best])
        if score >= self.bar:
            return Verdict(score=score, nearest=premises[best])
        against = p_BC[:, self.labels.index("contradiction")]
        worst = int(against.argmax())
        if p_BC[worst].argmax() == self.labels.index("contradiction"):
            return Verdict(score=score, why="negation", nearest=premises[worst])
        why = by_words.why if by_words.why in ("number", "name") else "model"
        return Verdict(score=score, why=why, missing=by_words.missing, nearest=premises[best])

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """Return what the model says of each (premise, claim), (B, C): rows sum to 1. One pair at a time, so that nothing is padded."""
        session, tokenizer, inputs = self._loaded or self._load()
        rows = []
        for premise, claim in pairs:
            encoded = tokenizer.encode(premise, claim)
            given = {
                "input_ids": encoded.ids,
                "attention_mask": encoded.attention_mask,
                "token_type_ids": encoded.type_ids,
            }
            try:
                found = session.run(None, {n: np.asarray([given[n]], np.int64) for n in inputs})[0]
            except _refusals() as e:
                raise ConfigError(f"the model {self.model} cannot read the tokens of {self.tokenizer}: {e}") from e
            logit_C = np.asarray(found, np.float64).reshape(-1)
            if logit_C.shape != (3,) or not np.isfinite(logit_C).all():
                raise ConfigError(
                    f"the model {self.model} gives {np.shape(found)}; three finite numbers a pair are read"
                )
            e_C = np.exp(logit_C - logit_C.max())
            rows.append(e_C / e_C.sum())
        out: NDArray[np.float64] = np.asarray(rows)
        return out

    def _load(self) -> tuple[Any, Any, list[str]]:
        for path in (self.model, self.tokenizer):
            if not Path(path).is_file():
                raise ConfigError(f"there is no file {path}; see docs/guides/grounding.md on what it should be")
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as e:
            raise ConfigError(f"the scorer nli needs {e.name}: pip install 'fairlead[onnx]'") from e
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
