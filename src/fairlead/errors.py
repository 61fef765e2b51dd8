"""Every error that Fairlead raises on purpose, in one tree. Messages say what to do.

::

    FairleadError
    ├── ConfigError            a config file or a constructor argument is wrong (carries the path of the key)
    ├── UnknownName            a name that no catalogue or pool knows (carries the nearest known ones)
    ├── TableError             an outcome table cannot be read or used as asked
    ├── NotFitted              a predictor was asked before it was fitted
    ├── StateError             learned state does not fit, is not finite, or cannot be merged
    ├── StoreError             the trace store cannot be opened or read
    │   └── ChainBroken        a trace was changed after it was written
    ├── CacheError             a cache of answers cannot be opened or asked now
    ├── RedisError             Redis cannot be reached, or refuses
    ├── NoEligibleTarget       nobody may answer this query (carries the reason for each target)
    ├── TargetError            a target failed; wraps a typed `Failure`
    └── LimitReached           raised *inside* a plan by its world: spend, calls or time are used up
        ├── OutOfBudget
        └── OutOfTime
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead.types import Failure, Trace


class FairleadError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(FairleadError):
    """A config value is wrong. `path` is the key's address, like ``$.targets.gpt.api_key``; ``$`` (all of it) is not printed."""

    def __init__(self, message: str, *, path: str = "$") -> None:
        super().__init__(message if path == "$" else f"{path}: {message}")
        self.path = path
        self.message = message


class UnknownName(FairleadError):
    """A name that is not known; the message offers the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name = kind, name
        self.known = sorted(known)
        super().__init__(f"unknown {kind} {name!r}; {suggest(name, self.known)}")


class TableError(FairleadError):
    """An outcome table cannot be read, or cannot be used as asked."""


class NotFitted(FairleadError):
    """A predictor was asked for a forecast before `fit` or `load`."""


class StateError(FairleadError):
    """Learned state does not fit its owner, holds a non-finite number, or cannot be merged."""


class StoreError(FairleadError):
    """The store cannot be opened, written or read."""


class ChainBroken(StoreError):
    """A trace does not match its hash, or its hash does not follow from the one before."""


class CacheError(FairleadError):
    """A cache of answers cannot be opened, read or written now; requests go on without it."""


class RedisError(FairleadError):
    """Redis cannot be reached, says nothing in time, or refuses."""


class NoEligibleTarget(FairleadError):
    """No target may answer the query. `excluded` says why, target by target, and `kinds` in one word of `fairlead.pool.Kind`.

    `rule` is the rule that refuses and `words` what it says to the asker, where one does; `trace` is the refusal as it was kept, once it is.
    """

    def __init__(
        self,
        excluded: Mapping[str, str],
        *,
        kind: str = "policy",
        kinds: Mapping[str, str] | None = None,
        rule: str = "",
        words: str = "",
        trace: Trace | None = None,
    ) -> None:
        self.excluded = dict(excluded)
        self.kinds = dict.fromkeys(excluded, kind) if kinds is None else dict(kinds)
        self.rule, self.words = rule, words
        self.trace = trace
        why = "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items()) or "the pool is empty"
        super().__init__(f"no target may answer this query ({why})")


class TargetError(FairleadError):
    """A target failed in a way that its driver understands."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"{failure.kind}: {failure.message}")


class LimitReached(FairleadError):
    """A world throws this into a plan whose limits are used up; the plan may return its best answer so far."""


class OutOfBudget(LimitReached):
    """The spend or the number of calls allowed to this query is used up."""


class OutOfTime(LimitReached):
    """The deadline of this query has passed."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a short hint with the known names nearest to `name`."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "known: " + (", ".join(known) if known else "none")
