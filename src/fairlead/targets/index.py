"""A local index over a small corpus, as something that plans can ask for passages.

    targets:
      words:      {type: index, corpus: parts.jsonl, encoder: words}
      characters: {type: index, corpus: parts.jsonl, encoder: characters}
    routes:
      find: {policy: {type: fixed, plan: {kind: retrieve, experts: [words, characters]}}}

Different encoders over the same corpus are experts for different kinds of queries (RouterRetriever, Lee et al. 2025, arXiv 2409.02685, has experts
that differ in the query's encoder; here both sides are encoded alike, unless `query_embedder` is given). An encoder turns text into terms:

    words        lower-case words without their plural s                   what was said, in whatever order
    characters   trigrams of the letters of each word, edges included      misspelt names and words
    sounds       words by a key of how they sound                          names written as they are heard
    digits       triples of digits, whatever separates them                part numbers, dates, telephone numbers
    embedding    no terms: a vector of the catalogue's family `embeddings` what was meant

Terms are scored by BM25 (Robertson, Zaragoza, 2009), vectors by their cosine:

    score = sum over the query's terms t of  idf(t) * f (k1 + 1) / (f + k1 (1 - b + b |d| / mean |d|)),   idf = log(1 + (N - n + 0.5) / (n + 0.5))

with f how often t is in document d, n documents that have t, k1 = 1.2, b = 0.75. Of equal scores the earlier document stands first, so the
same corpus and query give the same reply. What shares nothing with the query is not found at all.

The reply is a JSON list of ``{id, score, text}`` (and ``metadata`` where the corpus has further fields), best first. It costs nothing.

Shapes: D documents, E size of a vector; N places of one term. Cost: 10 to 130 µs for a corpus of 1,600 short documents, in a
thread; a start encodes 30,000 of them a second (hashed vectors half of that).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from math import log
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.structs import replace
from numpy.typing import NDArray

from fairlead.embeddings.base import Embedder
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import ConfigError, TableError, TargetError
from fairlead.plans.retrieve import Passage
from fairlead.table import read_columns
from fairlead.targets.base import Driver
from fairlead.types import Call, Failure, Message, Outcome, Profile, Query, Sink

Encoder: TypeAlias = Literal["words", "characters", "sounds", "digits", "embedding"]
Floats = NDArray[np.float64]

FREE: Final = Profile(answers=False, tools=False, input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)
"""The profile of what only helps in plans, and costs nothing."""
K1: Final = 1.2
B: Final = 0.75
MOST: Final = 1_000
"""Passages that one call may ask for."""

# --------------------------------------------------------------------------------------------------------- text -> terms

_WORD: Final = re.compile(r"\w+")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_NUMBER: Final = re.compile(r"\d(?:[\W_]?\d)*")
_SOUNDS: Final = (
    ("sch", "s"), ("tch", "s"), ("ph", "f"), ("ght", "t"), ("gh", "g"), ("ck", "k"), ("qu", "k"), ("th", "t"), ("wh", "w"), ("rh", "r"),
    ("ch", "s"), ("sh", "s"), ("kn", "n"), ("wr", "r"), ("x", "ks"), ("ce", "se"), ("ci", "si"), ("cy", "si"), ("c", "k"), ("q", "k"),
    ("z", "s"), ("v", "f"), ("j", "g"), ("dt", "t"), ("d", "t"), ("b", "p"), ("m", "n"),
)  # fmt: skip
"""Spellings that are heard alike or nearly, longer ones first."""
_SILENT: Final = str.maketrans("", "", "aeiouyhw")


def words(text: str) -> list[str]:
    """Return the words in lower case; a longer one without its plural s."""
    found = _WORD.findall(text.lower())
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in found]


def characters(text: str) -> list[str]:
    """Return the character trigrams of each word of letters, with a mark at its edges."""
    return [f"_{w}_"[i : i + 3] for w in _LETTERS.findall(text.lower()) for i in range(len(w))]


def sounds(text: str) -> list[str]:
    """Return a key of each word of letters by how it sounds."""
    return [key for w in _LETTERS.findall(text.lower()) if (key := sound(w))]


def sound(word: str) -> str:
    """Return how a lower-case word sounds, roughly: like sounds by one letter, none doubled, no vowels but one mark where it begins with one.

    In the manner of Soundex (Russell, Odell, 1918), with a key of any length, and made for spellings of English by ear.
    """
    for spelt, heard in _SOUNDS:
        word = word.replace(spelt, heard)
    key = "".join(letter for letter, _ in groupby(word[1:].translate(_SILENT)))
    first = "a" if word[0] in "aeiouyhw" else word[0]
    return first + (key[1:] if key.startswith(first) else key)


def digits(text: str) -> list[str]:
    """Return the triples of digits of each number, single separators left out; a number of one or two digits whole."""
    out = []
    for found in _NUMBER.findall(text):
        number = "".join(c for c in found if c.isdigit())
        out += [number[i : i + 3] for i in range(max(1, len(number) - 2))]
    return out


TERMS: Final[Mapping[str, Callable[[str], list[str]]]] = {
    "words": words,
    "characters": characters,
    "sounds": sounds,
    "digits": digits,
}

# ------------------------------------------------------------------------------------------------------------- searching


class Lexical:
    """BM25 over some texts. `terms` turns a text, or a query, into what is counted."""

    def __init__(self, texts: Sequence[str], terms: Callable[[str], list[str]]) -> None:
        self.terms = terms
        self.size = len(texts)
        counts = [Counter(terms(text)) for text in texts]
        length_D = np.asarray([c.total() for c in counts], dtype=np.float64)
        weigh_D = K1 * (1.0 - B + B * length_D / max(1e-9, float(length_D.mean())))
        places: dict[str, tuple[list[int], list[int]]] = {}
        for d, count in enumerate(counts):
            for term, n in count.items():
                at = places.setdefault(term, ([], []))
                at[0].append(d)
                at[1].append(n)
        self.places: dict[str, tuple[NDArray[np.int64], Floats]] = {}
        for term, (documents, often) in places.items():
            d_N, f_N = np.asarray(documents, dtype=np.int64), np.asarray(often, dtype=np.float64)
            idf = log(1.0 + (self.size - len(d_N) + 0.5) / (len(d_N) + 0.5))
            self.places[term] = d_N, idf * f_N * (K1 + 1.0) / (f_N + weigh_D[d_N])

    def scores(self, query: str) -> Floats:
        """Return how well each document fits, (D,); 0 where it shares nothing with the query."""
        score_D = np.zeros(self.size)
        for term in dict.fromkeys(self.terms(query)):
            if (found := self.places.get(term)) is not None:
                score_D[found[0]] += found[1]
        return score_D


class Dense:
    """Cosines of vectors. Queries may have an embedder of their own, of the same size."""

    def __init__(self, texts: Sequence[str], embedder: Embedder, query_embedder: Embedder | None = None) -> None:
        self.query_embedder = query_embedder or embedder
        self.vector_DE = np.stack([embedder.embed(text) for text in texts])

    def scores(self, query: str) -> Floats:
        """Return the cosine of each document with the query, (D,)."""
        score_D: Floats = (self.vector_DE @ self.query_embedder.embed(query)).astype(np.float64)
        return score_D


def best(score_D: Floats, top: int) -> list[int]:
    """Return which documents score best and above 0, at most `top`, best first; of equals the earlier first."""
    found = np.flatnonzero(score_D > 0.0)
    if len(found) > top:
        bar = np.partition(score_D[found], len(found) - top)[len(found) - top]
        found = found[score_D[found] >= bar]
    order: list[int] = found[np.argsort(-score_D[found], kind="stable")][:top].tolist()
    return order


# ----------------------------------------------------------------------------------------------------------- the target


class Index(Driver):
    """Finds passages in a corpus.

    Args:
        name: what plans and traces call it.
        corpus: path of a ``.jsonl``, ``.csv`` or ``.parquet`` file with `id` and `text`; further fields are returned as metadata. It is read at the
            start.
        documents: the corpus itself, if it is small.
        encoder: by what documents and queries are compared.
        embedder: with the encoder ``embedding``: what makes the vectors; by default `Hashing()`.
        query_embedder: what makes those of queries, if that is another one.
        top: passages in a reply, where the call does not say (its parameter ``top``).
        profile: None: free, and only for plans that name it.
        timeout_seconds: for one call.
    """

    kind: ClassVar[Literal["model", "agent", "adapter", "tool", "retriever", "strategy"]] = "retriever"
    paths: ClassVar[tuple[str, ...]] = ("corpus",)

    @classmethod
    def example(cls) -> Self:
        """Over two documents."""
        return cls(name="a", documents=(Passage(id="1", text="What is 2 + 2? Four."), Passage(id="2", text="Or five.")))

    def __init__(
        self,
        *,
        name: str,
        corpus: str | None = None,
        documents: tuple[Passage, ...] = (),
        encoder: Encoder = "words",
        embedder: Embedder | None = None,
        query_embedder: Embedder | None = None,
        top: Annotated[int, Meta(ge=1, le=MOST)] = 10,
        profile: Profile | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        if (corpus is None) == (not documents):
            raise ConfigError("give an index its `corpus`, a file, or its `documents`, and not both", path="$.corpus")
        if encoder != "embedding" and (embedder is not None or query_embedder is not None):
            raise ConfigError(f"the encoder {encoder} needs no embedder; use `encoder: embedding`", path="$.encoder")
        self.name = name
        self.corpus = corpus
        self.documents = documents
        self.encoder: Encoder = encoder
        self.embedder = Hashing() if embedder is None and encoder == "embedding" else embedder
        self.query_embedder = query_embedder
        self.top = top
        self.profile = FREE if profile is None else replace(profile, answers=False)
        self.timeout_seconds = timeout_seconds
        self._found: tuple[tuple[Passage, ...], Lexical | Dense] | None = None

    async def start(self) -> None:
        """Read and encode the corpus, in a thread. Raises `ConfigError` if it cannot be read."""
        self._found = await asyncio.to_thread(self.open)

    async def stop(self) -> None:
        """Let go of the corpus."""
        self._found = None

    def open(self) -> tuple[tuple[Passage, ...], Lexical | Dense]:
        """Return the documents and what searches them. Raises `ConfigError` if the corpus cannot be read."""
        documents = self.documents if self.corpus is None else _read(self.corpus)
        seen: set[str] = set()
        for document in documents:
            if document.id in seen:
                raise ConfigError(f"two documents have the id {document.id!r}; number them apart", path="$.corpus")
            seen.add(document.id)
        texts = [d.text for d in documents]
        if self.embedder is None:
            return documents, Lexical(texts, TERMS[self.encoder])
        if self.query_embedder is not None and self.query_embedder.size != self.embedder.size:
            message = f"its vectors have {self.query_embedder.size} numbers, those of documents {self.embedder.size}"
            raise ConfigError(message, path="$.query_embedder")
        return documents, Dense(texts, self.embedder, self.query_embedder)

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._found is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        documents, searcher = self._found
        top = call.params.get("top", self.top)
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= MOST:
            message = f"top is {top!r}; it is a number of passages from 1 to {MOST}"
            raise TargetError(Failure(kind="bad_request", message=message))
        text = query.text if call.messages is None else _asked(call.messages)
        found = await asyncio.to_thread(search, documents, searcher, text, top)
        return Outcome(text=msgspec.json.encode(found).decode(), model=self.name, usd=0.0, finish="stop")


def search(documents: Sequence[Passage], searcher: Lexical | Dense, query: str, top: int) -> list[Passage]:
    """Return the `top` best documents with their scores, best first."""
    score_D = searcher.scores(query)
    return [msgspec.structs.replace(documents[d], score=round(float(score_D[d]), 6)) for d in best(score_D, top)]


def _asked(messages: Sequence[Message]) -> str:
    return Query(id="", messages=tuple(messages)).text


def _read(path: str) -> tuple[Passage, ...]:
    try:
        columns: dict[str, Any] = read_columns(path)
    except (TableError, UnicodeDecodeError, OSError) as e:
        raise ConfigError(f"{e}; a corpus has the fields `id` and `text`, one document a line", path="$.corpus") from e
    if lacking := [name for name in ("id", "text") if name not in columns]:
        message = (
            f"{path} has no {' and no '.join(lacking)}; a corpus has the fields `id` and `text`, one document a line"
        )
        raise ConfigError(message, path="$.corpus")
    names, texts = columns.pop("id"), columns.pop("text")
    out = []
    for i, (name, text) in enumerate(zip(names, texts, strict=True)):
        if name is None or not isinstance(text, str):
            raise ConfigError(f"{path}: document {i + 1} lacks its id or its text", path="$.corpus")
        metadata = {k: v[i] for k, v in columns.items() if v[i] is not None and v[i] == v[i]}
        out.append(Passage(id=str(name), text=text, metadata=metadata))
    if not out:
        raise ConfigError(f"{path} holds no documents", path="$.corpus")
    return tuple(out)
