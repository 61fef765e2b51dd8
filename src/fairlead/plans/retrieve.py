"""Find passages: ask the index that knows the query's kind best, or several, and fuse what they find; a reader may answer from it.

The routing is RouterRetriever's (Lee et al., AAAI 2025, arXiv 2409.02685): several retrievers, each an expert for some kind of query, and a gate that
forecasts which is best from pilot embeddings (the predictor `pilots`). What is ours: several of them may be asked (`most`), and are fused by
reciprocal ranks (Cormack, Clarke, Büttcher, 2009),

    score(passage) = sum over experts that found it of 1 / (k + rank),   k = 60, ranks from 1

and if those asked fail or find nothing, the others are asked.

Passages are read off an index's reply as JSON (`fairlead.targets.index` writes it so); any other text is one passage as it stands, so that other
tools that find things fit in. A reader is sent the passages in a prompt, fenced and as data; its reply is the answer. If a limit keeps the reader
from answering, the passages are the answer.

The gate's safe default: if it fails or knows none of the experts, all of them are asked (`most_without` at most).

Checked in tests/plans/test_retrieve.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec
from msgspec import Struct

from fairlead.errors import LimitReached
from fairlead.plans import gates, prompts
from fairlead.plans.base import final_failure, saying, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.types import Call, Do, Failure, Outcome, Plan, Query, Steps


class Passage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing found: its `id` in the corpus, how well it fits (comparable within one reply only), and its text."""

    id: str
    score: float = 0.0
    text: str = ""
    metadata: dict[str, Any] = {}


_passages = msgspec.json.Decoder(tuple[Passage, ...])


class Retrieve(Struct, Plan, frozen=True, kw_only=True, tag="retrieve", tag_field="kind", forbid_unknown_fields=True):
    """Ask the `most` experts that `gate` forecasts to be best for their `top` passages each, fuse them, and let `reader` answer from them.

    Without a gate all experts are asked. Without a reader the answer is the passages, a JSON list of ``{id, score, text}``, best first, `top` at
    most. `prompt` may have the fields ``{passages}`` and ``{question}``.
    """

    experts: tuple[str, ...]
    gate: str | None = None
    most: int = 1
    most_without: int | None = None
    """How many are asked at once where no gate says which; None: all."""
    top: int = 10
    k: float = 60.0
    reader: str | None = None
    prompt: Prompt | str = "passages@1"

    def __post_init__(self) -> None:
        if not self.experts or len(set(self.experts)) < len(self.experts):
            raise ValueError("name at least one expert to find passages, each once")
        if min(self.most, self.top, 1 if self.most_without is None else self.most_without) < 1:
            raise ValueError("most, most_without and top must be at least 1")
        if not 0.0 <= self.k < inf:
            raise ValueError(f"k is {self.k:g}; it is a number of ranks, at least 0, such as 60")
        prompts.check(self.prompt, "question", "passages")

    def run(self, query: Query) -> Steps:
        """Ask the gate, the experts, the reader."""
        first = self.experts[: self.most_without]
        if self.gate is not None:
            (said,) = yield Do(branches=(gates.consult(self.gate),))
            first = self._ranked(said) or first
        replies = yield Do(branches=tuple(self._look(name) for name in first))
        found = [o for o in replies if read(o)]
        rest = [name for name in self.experts if name not in first][: self.most_without]
        if not found and rest and not any(final_failure(o) for o in replies):
            replies += yield Do(branches=tuple(self._look(name) for name in rest))
            found = [o for o in replies if read(o)]
        if not found:
            return self._nothing(replies)
        passages = fuse([read(o) for o in found], self.k)[: self.top]
        listed = saying(found[0], msgspec.json.encode(passages).decode())
        if self.reader is None:
            return listed
        texts = [p.text for p in passages]
        call = prompts.ask(self.reader, self.prompt, query, purpose="answer", alone=False, passages=texts)
        try:
            (answer,) = yield Do(branches=(call,), final=True)
        except LimitReached:
            return listed
        limited = answer.error is not None and answer.error.kind in ("budget", "deadline")
        return listed if limited and not answer.streamed else answer

    def _ranked(self, said: Outcome) -> tuple[str, ...]:
        """Return the `most` experts that the gate forecasts to be best, of equals the earlier; none if it says nothing of any."""
        forecasts = gates.forecasts(said)
        known = [name for name in self.experts if name in forecasts]
        return tuple(sorted(known, key=lambda name: -forecasts[name].quality)[: self.most])

    def _look(self, name: str) -> Call:
        return Call(target=name, purpose="retrieve", alone=True, params={"top": self.top})

    def _nothing(self, replies: Sequence[Outcome]) -> Outcome:
        """Say why there is nothing: the first failure, unless somebody looked and found nothing."""
        failed = [o for o in replies if o.error is not None]
        fault = [o for o in failed if final_failure(o)]
        if failed and (fault or len(failed) == len(replies)):
            return (fault or failed)[0]
        looked = ", ".join(o.target for o in replies if o.ok)
        message = f"nothing was found for this query (asked: {looked}); ask in other words, or add to the corpus"
        return Outcome(error=Failure(kind="not_found", message=message))

    def targets(self) -> tuple[str, ...]:
        """The gate, the experts, the reader."""
        return targets_of(self.gate, *self.experts, self.reader)

    @classmethod
    def example(cls) -> Retrieve:
        """Two experts with gate and reader."""
        return cls(gate="g", experts=("a", "b"), reader="r")


def read(outcome: Outcome) -> tuple[Passage, ...]:
    """Return the passages of an expert's reply, best first; none if it failed or found nothing. Of passages with one id the first stands."""
    if not outcome.ok or not outcome.text.strip():
        return ()
    try:
        found = _passages.decode(outcome.text)
    except (UnicodeEncodeError, RecursionError):  # lone surrogates, or nested too deep: nothing that could be passed on
        return ()
    except msgspec.DecodeError:
        return (Passage(id=outcome.target or "text", text=outcome.text),)
    first: dict[str, Passage] = {}
    for passage in found:
        first.setdefault(passage.id, passage)
    return tuple(first.values())


def fuse(lists: Sequence[Sequence[Passage]], k: float) -> list[Passage]:
    """Fuse rankings by reciprocal ranks, best first; of equals the one found first. A single one stays as it is, scores included."""
    if len(lists) == 1:
        return list(lists[0])
    scores: dict[str, float] = {}
    first: dict[str, Passage] = {}
    for passages in lists:
        for rank, passage in enumerate(passages, 1):
            scores[passage.id] = scores.get(passage.id, 0.0) + 1.0 / (k + rank)
            first.setdefault(passage.id, passage)
    order = sorted(scores, key=lambda name: -scores[name])
    return [msgspec.structs.replace(first[name], score=scores[name]) for name in order]
