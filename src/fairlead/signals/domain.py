"""The domain of a query, of the user's own, or none of them. After GQR-Bench (Šléher et al. 2025, arXiv 2505.14524).

A classifier (`detect/widemlp.py`, or the same net over the vectors of an embedder) gives every domain a probability p; a score says
whether the query is of any of them at all, and is compared with a threshold:

    probability   max p
    energy        log sum exp(logits - mean), after Liu et al. 2020 (arXiv 2010.03759)
    density       mean log-frequency of the query's features in the training texts; for vectors the highest cosine to a domain's mean
    support       max q * (share of the query's features that the training texts had); for vectors max q * that cosine

where q are the probabilities as the net was taught them, by softened labels: p, made sharp again for calibration, is near 1 too often to
tell queries apart.

Differs from the paper, whose threshold (.99, .90, .75) is on max p and chosen by hand: the threshold is learned from **in-domain queries
alone**, so that at most the share `refuse` of further ones like them is refused (split conformal: Papadopoulos et al. 2002; Vovk et al.
2005). It holds on average over draws of examples, for traffic like the examples; `recalibrate` takes fresh in-domain traffic. A query of
which no feature is known is always refused: the net's biases alone may be sure of something.

From `SPLIT` examples on, a fifth is held out for the threshold, and the net that serves has not seen it: then the promise is exact. Of
fewer, five nets each score the fifth that they have not seen, and a sixth, taught by all, serves: it knows a little more than they, so
refuses a little less; that is no proof. Probabilities are divided by a temperature fitted on the same held-out texts.

About 80 µs for 300 characters of prose, 150 µs for 100,000 (of long texts the ends are read), and 2.4 MB of state, without an embedder.

Shapes: N texts, C classes (the domains, then `none` if there were such examples), Q quantiles, E size of a vector.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fairlead.detect import widemlp
from fairlead.detect.widemlp import Net, Seen
from fairlead.embeddings.base import Embedder
from fairlead.errors import ConfigError, NotFitted
from fairlead.signals.base import TAKEN, Law, Range
from fairlead.signals.trained import NONE, Trained
from fairlead.types import Query, Reading

Score: TypeAlias = Literal["support", "probability", "energy", "density"]
Floats: TypeAlias = NDArray[np.float64]

SPLIT: Final = 5_000
FOLDS: Final = 5
LEAST: Final = 10
"""Examples that a domain needs."""
_OWN: Final = (*TAKEN, "in_domain", "score")
_QUANTILES: Final = np.linspace(0.0, 1.0, 101)
_NEVER: Final = -1e9
"""A threshold that nothing is below."""


class Domain(Trained):
    """Value: the domain's name as in the examples; null if the query is none of them.

    Parts: `in_domain` (bool), `score` (the number that was compared with the threshold), and the probability of each domain under its name
    in lower case with underscores for all but letters and digits. Confidence: that probability; for null, the share of in-domain queries that score
    higher, or the probability of `none` if that is why.

    Args:
        embedder: what turns text into a vector for the net; None: hashed words and character runs.
        score: what the threshold is on; see above.
        refuse: share of in-domain queries that may be refused.
        enough: a `support` that is never refused, however few in-domain queries are below it; 1: none. Where the examples are much alike,
            as if from templates, all have a support near .9, and a threshold among them would refuse whoever words it a little otherwise.
        features: size of the vocabulary at most.
        hidden: units of the net; each costs `features` bytes.
        epochs: rounds through the examples.
        rate: step size of the training.
        seed: of the folds and the training.
    """

    domains_: list[str]
    """Names as in the examples, sorted."""
    net_: Net
    """See `widemlp.Net`. It has one more class than there are domains where examples of none of them were given."""
    centroid_CE_: NDArray[np.float32]
    temperature_: float
    threshold_: float
    quantile_Q_: Floats
    """Scores of held-out in-domain queries."""

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        score: Score = "support",
        refuse: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.1,
        enough: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.8,
        features: Annotated[int, Meta(ge=64)] = 32_768,
        hidden: Annotated[int, Meta(ge=1)] = 64,
        epochs: Annotated[int, Meta(ge=1)] = 12,
        rate: Annotated[float, Meta(gt=0.0)] = 3e-3,
        seed: Annotated[int, Meta(ge=0)] = 0,
    ) -> None:
        self.embedder = embedder
        self.score = score
        self.refuse = refuse
        self.enough = enough
        self.features = features
        self.hidden = hidden
        self.epochs = epochs
        self.rate = rate
        self.seed = seed

    @classmethod
    def example(cls) -> Self:
        """Two small domains."""
        made = cls(features=256, hidden=8, epochs=3)
        pairs = [(f"is the contract of clause {i} binding in court", "law") for i in range(LEAST)]
        pairs += [(f"does a dose of {i} pills help against fever", "health") for i in range(LEAST)]
        made.fit([text for text, _ in pairs], [label for _, label in pairs])
        return made

    @property
    def slow(self) -> bool:
        """As the embedder is."""
        return self.embedder is not None and self.embedder.slow

    @property
    def fitted(self) -> bool:
        """Whether it was taught."""
        return hasattr(self, "net_")

    def check(self) -> None:
        """Raise `ConfigError` if it was not taught, or if its embedder is not the one that it was taught with."""
        super().check()
        size, taught = (self.embedder.size if self.embedder else 0), self.centroid_CE_.shape[1]
        if size != taught:
            raise ConfigError(
                f"it was taught on vectors of {taught} numbers, not {size}; train it again", path="$.embedder"
            )

    def fit(self, texts: Sequence[str], labels: Sequence[str | None]) -> None:
        """Learn the domains, their probabilities and the threshold. None and ``none`` are examples of no domain.

        Equal texts stay together, whatever their case and spaces: none is both learned from and held out.

        Raises:
            ConfigError: for fewer than two classes, a class with fewer than `LEAST` different texts, two names alike, or an embedder that gives
                no vectors.
        """
        names = [NONE if label is None or label == NONE else label for label in labels]
        domains = sorted(set(names) - {NONE})
        _check_examples(texts, names, domains)
        class_N = np.array([domains.index(n) if n != NONE else len(domains) for n in names], np.int64)
        classes = len(domains) + (NONE in names)
        encoded = self._taught_by(texts)
        fold_N = _folds(texts, class_N, k=FOLDS, seed=self.seed)
        self.domains_ = domains
        held: list[int] = []
        said: list[Seen] = []
        similar: list[float] = []
        for k in range(FOLDS if len(texts) < SPLIT else 1):
            out = [int(i) for i in np.flatnonzero(fold_N == k)]
            self._learn(encoded, class_N, np.flatnonzero(fold_N != k), classes)
            held += out
            for i in out:
                seen, cosine = self._look(encoded[i])
                said.append(seen)
                similar.append(cosine)
        self.temperature_ = _temperature(np.stack([s.logit_C for s in said]), class_N[held])
        inside = [n for n, i in enumerate(held) if class_N[i] < len(domains)]
        self._calibrate([self._score(said[n], similar[n]) for n in inside])
        if len(texts) < SPLIT:
            self._learn(encoded, class_N, np.arange(len(texts)), classes)

    def recalibrate(self, texts: Iterable[str]) -> None:
        """Set the threshold anew by fresh in-domain texts alone, which need no label and must not be among the examples.

        Raises:
            ConfigError: without texts.
            NotFitted: before `fit`.
        """
        scores = [self._score(*self._look(found)) for found in self._taught_by(list(texts))]
        if not scores:
            raise ConfigError("give in-domain texts to calibrate by")
        self._calibrate(scores)

    def figures(self) -> Mapping[str, float]:
        """Return the threshold, the share that it may refuse, and the temperature."""
        self._needs_fit()
        return {"threshold": self.threshold_, "refuse": self.refuse, "temperature": self.temperature_}

    def ranges(self) -> Mapping[str, Range]:
        """Say what each key can be, from the domains that were learned. Raises `NotFitted` before that."""
        self._needs_fit()
        share = Range(kind="number", low=0.0, high=1.0, null=self.slow)
        score = share if self.score in ("support", "probability") else Range(kind="number", null=self.slow)
        keys: dict[str, Range] = {"value": Range(kind="string", among=tuple(self.domains_), null=True)}
        keys |= {"in_domain": Range(kind="bool", null=self.slow), "score": score}
        return keys | {_key(name): share for name in self.domains_}

    def laws(self) -> Sequence[Law]:
        """State that `in_domain` means that there is a value, that the score then reaches the threshold, and the domain's probability 1 in C."""
        self._needs_fit()
        never: list[Law] = [
            {"in_domain": True, "value": None},
            {"in_domain": False, "value": {"ne": None}},
            {"in_domain": True, "score": {"lt": self.threshold_}},
        ]
        least = 1.0 / len(self.net_["b2_C"]) - 1e-9
        never += [{"value": name, _key(name): {"lt": least}} for name in self.domains_]
        return [{"not": law} for law in never]

    def _read(self, query: Query) -> Reading:
        self._needs_fit()
        seen, cosine = self._look(self._encoded([query.text])[0])
        if self.slow and seen.known == 0.0 and query.text.strip():
            return Reading(confidence=0.0, late=True)  # nobody embeds just now: not a stranger, but unread
        p_C = _softmax(seen.logit_C / self.temperature_)
        score = self._score(seen, cosine)
        best = int(p_C.argmax())
        in_domain = seen.known > 0.0 and score >= self.threshold_ and best < len(self.domains_)
        parts: dict[str, bool | int | float | str] = {"in_domain": in_domain, "score": score}
        parts |= {_key(name): float(p) for name, p in zip(self.domains_, p_C, strict=False)}
        if in_domain:
            return Reading(value=self.domains_[best], parts=parts, confidence=float(p_C[best]))
        if seen.known > 0.0 and score >= self.threshold_:
            return Reading(parts=parts, confidence=float(p_C[best]))
        above = 1.0 - float(np.searchsorted(self.quantile_Q_, score, side="right")) / len(self.quantile_Q_)
        return Reading(parts=parts, confidence=above if seen.known > 0.0 else 1.0)

    def _needs_fit(self) -> None:
        if not self.fitted:
            raise NotFitted("domain was not taught: run `fairlead train-signal domain EXAMPLES -o DIR`, or call `fit`")

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        """Return the bags of `texts`, or their vectors."""
        if self.embedder is None:
            return [widemlp.bag(text) for text in texts]
        return [self.embedder.embed(text) for text in texts]

    def _taught_by(self, texts: Sequence[str]) -> list[Any]:
        """Return `texts` encoded. Raises `ConfigError` if nobody embeds them just now: zeros would be learned."""
        encoded = self._encoded(texts)
        lacking = sum(t.strip() != "" and not v.any() for t, v in zip(texts, encoded, strict=True)) if self.slow else 0
        if lacking:
            raise ConfigError(
                f"the embedder gave no vector for {lacking} of {len(texts)} texts; see that it answers, and try again"
            )
        return encoded

    def _learn(self, encoded: list[Any], class_N: NDArray[np.int64], rows: NDArray[np.int64], classes: int) -> None:
        """Teach the net by `rows`."""
        chosen = [encoded[i] for i in rows]
        dense = self.embedder is not None
        self.net_ = widemlp.train(
            np.stack(chosen) if dense else chosen,
            class_N[rows],
            classes=classes,
            features=self.features,
            hidden=self.hidden,
            epochs=self.epochs,
            rate=self.rate,
            seed=self.seed,
        )
        self.centroid_CE_ = np.zeros((classes, 0), np.float32)
        if dense:
            mean_CE = np.stack([np.mean([encoded[i] for i in rows if class_N[i] == c], axis=0) for c in range(classes)])
            norm_C1 = np.linalg.norm(mean_CE, axis=1, keepdims=True)
            self.centroid_CE_ = (mean_CE / np.maximum(norm_C1, 1e-12)).astype(np.float32)

    def _look(self, encoded: Any) -> tuple[Seen, float]:
        """Return what the net says of a bag or a vector, and the vector's highest cosine to a domain's mean."""
        self._needs_fit()
        if self.embedder is None:
            return widemlp.look(self.net_, encoded), 0.0
        cosine_C = self.centroid_CE_[: len(self.domains_)] @ encoded
        return widemlp.look(self.net_, encoded), float(np.clip(cosine_C.max(), -1.0, 1.0))

    def _score(self, seen: Seen, cosine: float) -> float:
        dense = self.embedder is not None
        if self.score == "density":
            return cosine if dense else seen.density
        if self.score == "energy":
            centred_C = seen.logit_C - seen.logit_C.mean()
            top = float(centred_C[: len(self.domains_)].max())
            return top + math.log(float(np.exp(centred_C[: len(self.domains_)] - top).sum()))
        if self.score == "probability":
            return float(_softmax(seen.logit_C / self.temperature_)[: len(self.domains_)].max())
        return float(_softmax(seen.logit_C)[: len(self.domains_)].max()) * (max(cosine, 0.0) if dense else seen.known)

    def _calibrate(self, scores: Sequence[float]) -> None:
        """Take as threshold the k-th lowest score: k/(n+1) bounds the chance that a further one of the same kind is below."""
        ordered = sorted(scores)
        k = math.floor(self.refuse * (len(ordered) + 1))
        if not k and self.refuse > 0.0:
            raise ConfigError(
                f"{len(ordered)} examples are too few to refuse at most {self.refuse:g} of such queries: nothing would be refused; give "
                f"at least {math.ceil(1.0 / self.refuse) - 1} that it has not learned from, or a higher `refuse`"
            )
        self.threshold_ = ordered[min(k, len(ordered)) - 1] if k else _NEVER
        if self.score == "support":
            self.threshold_ = min(self.threshold_, self.enough)
        self.quantile_Q_ = np.quantile(np.array(ordered), _QUANTILES)


def _key(name: str) -> str:
    """Make a domain's name fit for a key."""
    return re.sub(r"\W+", "_", name.lower()).strip("_")


def _check_examples(texts: Sequence[str], names: Sequence[str], domains: Sequence[str]) -> None:
    if len(texts) != len(names):
        raise ConfigError(f"{len(texts)} texts, but {len(names)} labels")
    if not domains or len(set(names)) < 2:
        raise ConfigError(
            f"the examples are of {len(domains)} domain{'' if len(domains) == 1 else 's'}: give two or more, or one and examples labelled {NONE!r}"
        )
    taken: dict[str, str] = dict.fromkeys(_OWN, "a key of its own")
    for name in domains:
        key = _key(name)
        if not key or key in taken:
            told = f"its key would be {key!r}, like that of {taken[key]}" if key else "it has no letter or digit"
            raise ConfigError(f"the domain {name!r} cannot be called that: {told}; rename it")
        taken[key] = repr(name)
    for name in sorted(set(names)):
        different = {_plain(t) for t, n in zip(texts, names, strict=True) if n == name}
        if len(different) < LEAST:
            raise ConfigError(
                f"{name!r} has {len(different)} different examples; give at least {LEAST}, better hundreds"
            )


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _folds(texts: Sequence[str], class_N: NDArray[np.int64], *, k: int, seed: int) -> NDArray[np.int64]:
    """Deal texts into folds, each class evenly, equal texts into one."""
    order = np.random.default_rng(seed).permutation(len(texts))
    fold: dict[str, int] = {}
    for i in sorted(order.tolist(), key=lambda i: int(class_N[i])):
        fold.setdefault(_plain(texts[i]), len(fold) % k)
    return np.array([fold[_plain(t)] for t in texts])


def _softmax(logit_C: Floats) -> Floats:
    e_C = np.exp(logit_C - logit_C.max())
    out: Floats = e_C / e_C.sum()
    return out


def _temperature(logit_NC: Floats, class_N: NDArray[np.int64]) -> float:
    """Return what to divide the logits by for the least log loss, after Guo et al. 2017 (arXiv 1706.04599); on a grid, from 1/32 to 8.

    As Platt (1999) has it, one label in n + 2 counts as wrong: n of n right is no proof of certainty.
    """
    n, classes = logit_NC.shape
    right_N = logit_NC[np.arange(n), class_N]
    wrong_N = (logit_NC.sum(axis=1) - right_N) / (classes - 1)
    wanted_N = right_N + (wrong_N - right_N) / (n + 2)
    top_N = logit_NC.max(axis=1)
    best, lowest = 1.0, math.inf
    for t in np.exp2(np.linspace(-5.0, 3.0, 81)):
        loss_N = (top_N - wanted_N) / t + np.log(np.exp((logit_NC - top_N[:, None]) / t).sum(axis=1))
        if (loss := float(loss_N.mean())) < lowest:
            best, lowest = float(t), loss
    return best
