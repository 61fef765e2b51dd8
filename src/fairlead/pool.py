"""The pool: targets with their profiles and health, and who may answer a query.

A pool is an immutable value: `with_target` and `without` make new ones, so that a decision, a trace and a replay can all name
the very pool they saw by its digest. Health is kept beside it, since it changes with every call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from functools import cached_property

import msgspec

from fairlead.component import digest, pack
from fairlead.errors import ConfigError, UnknownName
from fairlead.types import Call, Failure, Query, Target, Tokens


class Eligibility(msgspec.Struct, frozen=True, kw_only=True):
    """Who may answer a query, and why the others may not."""

    targets: tuple[Target, ...]
    excluded: dict[str, str] = {}


class Health:
    """Which targets are resting after failures. Times are monotonic seconds.

    A target rests for as long as its `Retry-After` says, or for `rest_seconds`, doubled with each failure in a row up to
    `most_seconds`, after `failures` failures in a row.
    """

    def __init__(self, *, failures: int = 3, rest_seconds: float = 5.0, most_seconds: float = 300.0) -> None:
        self.failures, self.rest_seconds, self.most_seconds = failures, rest_seconds, most_seconds
        self.in_a_row: dict[str, int] = {}
        self.rests_until: dict[str, float] = {}

    def succeeded(self, name: str) -> None:
        """Note a good call."""
        if name in self.in_a_row:
            del self.in_a_row[name]
            self.rests_until.pop(name, None)

    def failed(self, name: str, failure: Failure, *, now: float | None = None) -> None:
        """Note a failed call. A request's own fault is not held against its target."""
        if not failure.elsewhere or failure.kind in ("context_too_long", "internal"):
            return
        now = time.monotonic() if now is None else now
        n = self.in_a_row[name] = self.in_a_row.get(name, 0) + 1
        if failure.retry_after_seconds is not None:
            self.rests_until[name] = now + min(failure.retry_after_seconds, self.most_seconds)
        elif n >= self.failures:
            rest = self.rest_seconds * 2.0 ** min(n - self.failures, 30)
            self.rests_until[name] = now + min(rest, self.most_seconds)

    def resting(self, name: str, *, now: float | None = None) -> float:
        """Seconds until `name` may be tried again; 0 if it may be now."""
        until = self.rests_until.get(name)
        if until is None:
            return 0.0
        return max(0.0, until - (time.monotonic() if now is None else now))


class Pool:
    """Targets by name, in the order given.

    Raises:
        ConfigError: if two targets share a name, or a name is one of the reserved route names.
    """

    def __init__(self, *, targets: Iterable[Target], health: Health | None = None) -> None:
        self.targets = tuple(targets)
        self.health = health or Health()
        self._by_name = {t.name: t for t in self.targets}
        if len(self._by_name) != len(self.targets):
            twice = sorted({t.name for t in self.targets if [u.name for u in self.targets].count(t.name) > 1})
            raise ConfigError(f"two targets share a name: {', '.join(twice)}", path="$.targets")

    def __iter__(self) -> Iterator[Target]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Target:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownName("target", name, self._by_name) from None

    @cached_property
    def digest(self) -> str:
        """Name this set of targets and profiles."""
        return digest(pack(msgspec.to_builtins(sorted(self.targets, key=lambda t: t.name), order="deterministic")))

    def only(self, names: Iterable[str]) -> Pool:
        """Return the pool of just these targets, in this pool's order."""
        keep = set(names)
        return Pool(targets=(t for t in self.targets if t.name in keep), health=self.health)

    def with_target(self, target: Target) -> Pool:
        """Return a pool that also has `target` (replacing one of the same name)."""
        return Pool(targets=(*(t for t in self.targets if t.name != target.name), target), health=self.health)

    def eligible(self, query: Query) -> Eligibility:
        """Say who may answer `query`, and why the others may not."""
        allow = query.constraints.allow
        modalities = query.modalities
        size: int | None = None
        good: list[Target] = []
        excluded: dict[str, str] = {}
        for t in self.targets:
            p = t.profile
            if allow is not None and t.name not in allow:
                excluded[t.name] = "not among the allowed targets"
            elif not modalities <= p.modalities:
                excluded[t.name] = "cannot take " + ", ".join(sorted(modalities - p.modalities))
            elif query.tools and not p.tools:
                excluded[t.name] = "cannot use tools"
            elif t.name in self.health.rests_until and (rest := self.health.resting(t.name)) > 0:
                excluded[t.name] = f"resting for {rest:.1f} s after failures"
            else:
                if p.context_tokens is not None:
                    if size is None:
                        size = estimate_tokens(query)
                    if size > p.context_tokens:
                        excluded[t.name] = f"about {size} tokens do not fit its context of {p.context_tokens}"
                        continue
                good.append(t)
        return Eligibility(targets=tuple(good), excluded=excluded)

    def estimate_usd(self, call: Call, query: Query) -> float:
        """Estimate generously what a call may cost, so that a budget can be kept by reserving it; 0.0 where no price is known.

        Input: a token for three ASCII characters, three for two others. Output: ``max_tokens`` of the call or the query, or the
        profile's limit, or 1,024 tokens. A tokenizer that is worse than that, or a picture, can still cost more.
        """
        target = self._by_name.get(call.target)
        if target is None:
            return 0.0
        messages = query.messages if call.messages is None else call.messages
        text = "".join(m.text for m in messages)
        ascii_only = sum(map(str.isascii, text))
        asked = [call.params.get(k) for k in _OUTPUT_LIMITS]
        asked += [msgspec.json.decode(query.body[k]) for k in _OUTPUT_LIMITS if k in query.body]
        limits = [n for n in (*asked, target.profile.max_output_tokens) if isinstance(n, int)]
        tokens = Tokens(
            input=math.ceil(ascii_only / 3 + (len(text) - ascii_only) * 1.5) + 8 * len(messages),
            output=min(limits, default=1024),
        )
        return target.profile.usd(tokens) or 0.0


_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens")


def estimate_tokens(query: Query) -> int:
    """Estimate input tokens without a tokenizer: a quarter of the characters, plus four a message (OpenAI's rule of thumb)."""
    return sum(len(m.text) for m in query.messages) // 4 + 4 * len(query.messages)
