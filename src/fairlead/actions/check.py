"""Check the answer against the request's own texts, and say so, note it in the answer, or ask a stronger target.

Stages of HaluGate (vLLM Semantic Router, 2026, arXiv 2603.04444): does the request need facts; which claims of the answer nothing in the request
supports; why. So the cost is

    E[cost] = C_sent + p (C_det + k C_nli)        p: the share of requests that need facts, k: doubted claims (0 without a model)

measured in `benchmarks/corpora/support.py`: about 20 µs, and 0.25 ms for half a kilobyte of sources. **Support is not truth**: what is measured, and
what that cannot see, stands in `fairlead.detect.support` and docs/guides/grounding.md.

- ``header``: tags ``support`` (share of claims supported) and ``unsupported`` (their number) in headers. A stream's headers are out before there
  is an answer: it gets them in a closing comment.
- ``annotate``: that, and where less than `above` is supported a note at the end of the answer names the claims, the reason for each and the
  nearest passage; in a stream as the last content before the end, which is held back until the answer is judged.
- ``retry``: the plan is wrapped in `checked`, so the trace shows both calls, all are charged and a replay goes the same way. A stream begins
  when the first answer is judged. If the stronger target may not act, the answer is annotated instead, and the act says why.

A request that needs facts but brings no texts cannot be checked: its tag ``support`` is ``unchecked``. So are calls of tools and structured
answers (JSON), behind which no note could stand either. Of several answers (``n``) the first is judged.
"""

from __future__ import annotations

import asyncio
import re
import time
from time import perf_counter
from typing import Any, ClassVar, Final, Literal, TypeAlias

import msgspec

from fairlead.actions.base import Action, Passage, Proceed
from fairlead.detect.support import BAR, Support, explained, needs_facts, sources, structured
from fairlead.errors import ConfigError
from fairlead.plans.checked import LONGEST, Checked
from fairlead.policies.base import Share
from fairlead.scorers.base import Scorer
from fairlead.scorers.lexical import Lexical
from fairlead.targets import wire
from fairlead.types import Outcome, Sink

Detail: TypeAlias = dict[str, bool | int | float | str]

_AT_ONCE: Final = 20_000
"""Characters of sources that are judged on the event loop; more goes to a thread."""
_NAMED: Final = 5
"""Claims that a note names at most."""


class Check(Action):
    """Check the answer.

    Args:
        then: what to do about it.
        stronger: the target to ask again, with ``then: retry``.
        above: the share of claims that must be supported; 1: all.
        scorer: how claims are judged; None: by words.
        always: also where the request does not seem to need facts.

    Raises:
        ConfigError: by `check`, if `stronger` is missing or of no use, or a scorer that is slow is to judge in a plan.
    """

    order: ClassVar[int] = 50

    def __init__(
        self,
        *,
        then: Literal["header", "annotate", "retry"] = "header",
        stronger: str | None = None,
        above: Share = 1.0,
        scorer: Scorer | None = None,
        always: bool = False,
    ) -> None:
        self.then = then
        self.stronger = stronger
        self.above = above
        self.scorer = scorer or Lexical()
        self.always = always

    @property
    def names(self) -> tuple[str, ...]:
        """The stronger target."""
        return () if self.stronger is None else (self.stronger,)

    def check(self) -> None:
        """Raise `ConfigError` for arguments that do not go together."""
        if self.then == "retry" and self.stronger is None:
            raise ConfigError("then: retry needs the target to ask again", path="$.stronger")
        if self.then != "retry" and self.stronger is not None:
            raise ConfigError("only then: retry asks a stronger target", path="$.stronger")
        if self.then == "retry" and not isinstance(self.scorer, Lexical):
            raise ConfigError(
                "a retry is a plan, and plans judge by words; use lexical here, or then: annotate", path="$.scorer"
            )

    async def start(self) -> None:
        """Let the scorer open its files."""
        await asyncio.to_thread(self.scorer.prepare)

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        """Judge what comes back, unless nothing is to be judged."""
        start = perf_counter()
        need = needs_facts(passage.query)
        if not need.facts and not self.always:
            passage.note(self, "skipped", seconds=perf_counter() - start, why="no facts needed")
            return await proceed(passage)
        texts = sources(passage.query) if need.grounded or self.always else ()
        if not texts:
            passage.tags["support"] = "unchecked"
            passage.note(self, "unchecked", seconds=perf_counter() - start, why="there is nothing to check against")
            return await proceed(passage)
        size = sum(map(len, texts))
        then, detail = self._prepared(passage, size)
        tail = None
        if passage.sink is not None:
            passage.sink = tail = Tail(passage.sink, hold=then == "annotate")
        before = perf_counter() - start
        outcome = await proceed(passage)
        if why := _unfit(outcome):
            if tail is not None:
                await tail.close(b"")
            if outcome.ok:
                passage.tags["support"] = "unchecked"
            passage.note(self, "skipped", seconds=before, why=why, **detail)
            return outcome
        start = perf_counter()
        if self.scorer.slow or size > _AT_ONCE:
            support = await asyncio.to_thread(self.scorer.judge, outcome.text, texts)
        else:
            support = self.scorer.judge(outcome.text, texts)
        self._tell(passage, outcome, support, then, detail, before + perf_counter() - start)
        said = noted(support) if then == "annotate" and support.score < self.above else ""
        if tail is None or not outcome.streamed:
            return annotated(outcome, said) if said else outcome
        chunk = wire.Chunks(id=passage.query.id, created=int(time.time()), model=outcome.model)
        await tail.close(chunk.delta({"content": said}) if said else b"", after=_comment(passage.tags))
        return msgspec.structs.replace(outcome, text=outcome.text + said)

    def _prepared(self, passage: Passage, size: int) -> tuple[str, Detail]:
        """Wrap the plan if a retry is wanted and can be had. Return what is to be done, and what there is to note of it."""
        if self.then != "retry" or self.stronger is None:
            return self.then, {}
        if why := self._cannot_retry(passage, size):
            return "annotate", {"instead": why}
        bar = self.scorer.bar if isinstance(self.scorer, Lexical) else BAR
        passage.plan = Checked(plan=passage.plan, stronger=self.stronger, above=self.above, bar=bar)
        return "retry", {}

    def _tell(
        self, passage: Passage, outcome: Outcome, support: Support, then: str, detail: Detail, seconds: float
    ) -> None:
        """Set the tags and note the act: counts, never text."""
        passage.tags |= {"support": f"{support.score:.2f}", "unsupported": str(len(support.unsupported))}
        did = "supported" if support.score >= self.above else "annotated" if then == "annotate" else "tagged"
        if then == "retry" and _asked_again(passage):
            did = "retried"
        passage.note(
            self,
            did,
            seconds=seconds,
            score=support.score,
            claims=len(support.claims),
            unsupported=len(support.unsupported),
            target=outcome.target,
            **detail,
        )

    def _cannot_retry(self, passage: Passage, size: int) -> str:
        """Say why the stronger target is not to be asked; empty if it is."""
        if self.stronger not in passage.decision.may_answer:
            return f"{self.stronger} may not answer this"
        if size > LONGEST:
            return "the sources are too long to be judged in a plan"
        return ""


def _comment(tags: dict[str, str]) -> bytes:
    """Write the tags as a stream's closing comment."""
    return (
        f": x-fairlead-tag-support {tags['support']}\n: x-fairlead-tag-unsupported {tags['unsupported']}\n\n".encode()
    )


def _unfit(outcome: Outcome) -> str:
    """Say why an outcome is not to be judged, nor written behind; empty if it is."""
    if not outcome.ok:
        return "no answer"
    if not outcome.text.strip() or outcome.tool_calls is not None:
        return "no answer in words"
    return "a structured answer" if structured(outcome.text) else ""


def _asked_again(passage: Passage) -> bool:
    """Whether `Checked` went on to its second step."""
    run = passage.result
    return run is not None and any(s.call is not None and s.path[0] >= 1 for s in run.steps)


def noted(support: Support) -> str:
    """Write the note that is put behind an answer."""
    found = support.unsupported
    lines = [f"- {explained(claim)}" for claim in found[:_NAMED]]
    if len(found) > _NAMED:
        lines.append(f"- and {len(found) - _NAMED} more")
    head = f"Note: {len(found)} of {len(support.claims)} claims above were not found in the given texts (compared by words, not checked for truth):"
    return "\n\n---\n" + "\n".join([head, *lines])


def annotated(outcome: Outcome, said: str) -> Outcome:
    """Return `outcome` with `said` behind its text, in its reply's bytes too; all else in them stays."""
    reply = outcome.reply
    if reply:
        whole = msgspec.json.decode(reply)
        message = whole["choices"][0]["message"]
        message["content"] = (message.get("content") or "") + said
        reply = msgspec.json.encode(whole)
    return msgspec.structs.replace(outcome, text=outcome.text + said, reply=reply)


_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_EVENT: Final = re.compile(rb"(?s).+?(?:\n\n|\Z)")


class Tail:
    """Passes a stream on; with `hold`, keeps back the end of its first answer, from the event that says why it ended, and of the stream. What
    belongs to further answers (``n``) is passed on at once."""

    def __init__(self, sink: Sink, *, hold: bool) -> None:
        self.sink = sink
        self.hold = hold
        self.held = b""

    async def __call__(self, events: bytes) -> None:
        """Take some whole events."""
        if not self.hold or not (self.held or _FINISH.search(events)):
            await self.sink(events)
            return
        passed = b""
        for event in _EVENT.findall(events):
            now, later = _parted(event, bool(self.held))
            passed, self.held = passed + now, self.held + later
        if passed:
            await self.sink(passed)

    async def close(self, said: bytes, *, after: bytes = b"") -> None:
        """Send what is left, `said` before it and `after` behind it."""
        rest, self.held = said + self.held + after, b""
        if rest:
            await self.sink(rest)


def _parted(event: bytes, ended: bool) -> tuple[bytes, bytes]:
    """Split an event into what is passed on and what is held back; `ended`: the first answer has. One that holds both its last words and the
    reason for its end becomes two; most hold the reason alone."""
    try:
        whole: Any = msgspec.json.decode(event.strip().removeprefix(b"data:"))
        choices = [dict(c) for c in whole["choices"]]
        first = [c for c in choices if not c.get("index")]
        ends = any(c.get("finish_reason") for c in first)
        spoken = any((c.get("delta") or {}).get("content") for c in choices)
    except (msgspec.DecodeError, TypeError, KeyError, ValueError, AttributeError):
        return (b"", event) if ended or _FINISH.search(event) else (event, b"")
    if not ends:
        return (b"", event) if ended and (first or not choices) else (event, b"")
    if not spoken:
        return b"", event
    words = {**whole, "choices": [{**c, "finish_reason": None} for c in choices]}
    end = {**whole, "choices": [{**c, "delta": {}} for c in choices]}
    words.pop("usage", None)
    return tuple(b"data: " + msgspec.json.encode(e) + b"\n\n" for e in (words, end))  # type: ignore[return-value]
