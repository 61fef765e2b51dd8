"""Drivers: how to call one target over its wire format.

A driver turns (call, query) into an `Outcome`. `ask` is final: it measures time, prices tokens, and turns every failure into a
typed one. Members implement `_ask`. A driver streams when it is given a sink: it passes on whole server-sent events in the
OpenAI chat format as they come (without ``[DONE]``), and still returns the full outcome.

Whose fault a failure is shows in its kind, and decides whether the target is rested for it. ``timeout`` and ``broken_stream`` are the
target's. ``deadline`` (the asker's time is up) and ``client_gone`` (the sink raised, or took nothing for as long as a whole call may
last) are the asker's; what the sink takes to accept a stream is not counted as the target's time. `Outcome.streamed` says, whatever the
kind, that part of the answer is out and nobody else can take over.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from math import inf
from time import perf_counter
from typing import ClassVar, Final, Literal, final

import msgspec

from fairlead.component import Component
from fairlead.errors import TargetError
from fairlead.timeouts import Timeout
from fairlead.types import Call, Failure, FailureKind, Outcome, Profile, Query, Sink, Target, Tokens

log = logging.getLogger(__name__)

UNKNOWN: Final = Profile()
"""The profile of a target that nobody has described."""
MOST_TOKENS: Final = 10**9
MOST_USD: Final = 1e6
"""No call takes more. Whoever says so, or less than nothing, is not believed: budgets and the store count on it."""
_STREAM_KINDS: Final = ("broken_stream", "client_gone", "deadline")


class Driver(Component, ABC):
    """One target that can be called.

    Constructors take at least `name`, `profile` and `timeout_seconds` (for one call), all keyword-only, and open nothing:
    `start` does, in the running event loop.
    """

    family: ClassVar[str] = "targets"
    kind: ClassVar[Literal["model", "agent", "adapter", "tool", "retriever", "strategy"]] = "model"
    remote: ClassVar[bool] = False
    """Whether it calls a server, so that a check of it needs one."""
    name: str
    profile: Profile
    timeout_seconds: float

    @property
    def target(self) -> Target:
        """The noun that policies see."""
        return Target(name=self.name, kind=self.kind, profile=self.profile)

    @property
    def extra(self) -> tuple[str, str] | None:
        """The module that it imports when it starts, and the extra of Fairlead that brings it."""
        return None

    async def start(self) -> None:
        """Open what is needed. Called once, in the event loop that will call `ask`."""

    async def stop(self) -> None:
        """Close what `start` opened."""

    @final
    async def ask(self, call: Call, query: Query, sink: Sink | None = None, *, within_seconds: float = inf) -> Outcome:
        """Make one call. Never raises but for cancellation: a failure is an outcome with `error` set.

        `within_seconds` is the asker's own time, all told; `timeout_seconds` is the target's, without what `sink` takes.
        """
        if within_seconds <= 0.0:
            failure = Failure(kind="deadline", message=f"no time left for {self.name}")
            return Outcome(target=self.name, usd=0.0, error=failure)
        start = perf_counter()
        watch = _Watch(self.name, sink, self.timeout_seconds, within_seconds)
        try:
            with watch.limit:
                watch.arm()
                outcome = await self._ask(call, query, None if sink is None else watch.send)
        except TimeoutError:
            outcome = Outcome(error=watch.failure())
        except TargetError as e:
            outcome = Outcome(error=e.failure)
        except RecursionError:
            # JSON of a reply: nothing of ours nests.
            outcome = Outcome(
                error=Failure(kind="malformed", message=f"what {self.name} sent is nested too deep to be read")
            )
        except Exception as e:
            log.exception("driver %s failed in an unforeseen way", self.name)
            # Nobody foresaw where: it may have been after the target had worked, which then charges.
            outcome = Outcome(error=Failure(kind="internal", message=f"{self.name}: {type(e).__name__}", sent=True))
        finally:
            watch.disarm()
        usd, tokens = outcome.usd, outcome.tokens
        if (tokens is not None and not _credible(tokens)) or (usd is not None and not 0.0 <= usd <= MOST_USD):
            log.warning("%s reports counts or a cost that no call can have; they are left unknown", self.name)
            usd = tokens = None
        if usd is None and tokens is not None:
            usd = self.profile.usd(tokens)
            if usd is not None and query.batch and self.profile.batch_price is not None:
                usd *= self.profile.batch_price
        joules = outcome.joules
        if joules is None and tokens is not None and self.profile.joules_per_token is not None:
            joules = self.profile.joules_per_token * (tokens.input + tokens.output)
        if watch.streamed and outcome.error is not None and outcome.error.kind not in _STREAM_KINDS:
            # Part of the answer is out: however the target failed, what the client sees is a stream that broke.
            error = msgspec.structs.replace(outcome.error, kind="broken_stream")
            outcome = msgspec.structs.replace(outcome, error=error)
        return msgspec.structs.replace(
            outcome,
            target=self.name,
            model=outcome.model or self.name,
            tokens=tokens,
            usd=usd,
            joules=joules,
            seconds=perf_counter() - start,
            streamed=watch.streamed,
        )

    @abstractmethod
    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        """Make the call and return text, tokens, log-probabilities and so on.

        Raises:
            TargetError: with a typed failure.
        """


def _credible(t: Tokens) -> bool:
    """Whether counts are such as a call can have."""
    if not (0 <= t.input <= MOST_TOKENS and 0 <= t.output <= MOST_TOKENS and t.cached_input >= 0):
        return False
    return t.simple or min(t.cache_write, t.audio_input, t.image_input, t.reasoning, t.audio_output) >= 0


class _Watch:
    """Times one call and passes its stream on. One timer for both limits; time in the sink is given back to the target."""

    __slots__ = (
        "_at",
        "_deadline",
        "_ended",
        "_name",
        "_own",
        "_sending",
        "_sink",
        "_timeout",
        "_timer",
        "limit",
        "streamed",
    )

    def __init__(self, name: str, sink: Sink | None, timeout_seconds: float, within_seconds: float) -> None:
        now = perf_counter()
        self._name, self._sink, self._timeout = name, sink, timeout_seconds
        self._deadline = now + within_seconds
        self._own = now + timeout_seconds
        """When the target's time is up; moves on by what the sink takes."""
        self._sending: float | None = None
        self._ended: FailureKind = "timeout"
        self._timer: asyncio.TimerHandle | None = None
        self.streamed = False
        self.limit = Timeout()

    def arm(self) -> None:
        """Set the timer for whichever limit is next."""
        self.disarm()
        self._at = min(self._deadline, self._own if self._sending is None else self._sending + self._timeout)
        if self._at < inf:
            left = max(0.0, self._at - perf_counter())
            self._timer = self.limit.loop.call_later(left, self._ring)

    def disarm(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def failure(self) -> Failure:
        """Say what the time-out was about."""
        if self._ended == "deadline":
            return Failure(kind="deadline", message=f"the deadline passed while {self._name} was answering")
        if self._ended == "client_gone":
            message = f"the client took nothing of the stream for {self._timeout:g} s"
            return Failure(kind="client_gone", message=message)
        return Failure(kind="timeout", message=f"{self._name} gave no answer in {self._timeout:g} s")

    async def send(self, events: bytes) -> None:
        """Pass events on. Raises `TargetError` (``client_gone``) if the sink does not take them."""
        assert self._sink is not None
        self.streamed = True
        self._sending = since = perf_counter()
        try:
            await self._sink(events)
        except Exception as e:
            log.debug("the sink of a stream raised", exc_info=True)
            message = f"the stream could not be passed on: {type(e).__name__}"
            raise TargetError(Failure(kind="client_gone", message=message)) from e
        finally:
            self._sending = None
            self._own += perf_counter() - since
            if self._own < self._at:
                self.arm()

    def _ring(self) -> None:
        now, sending = perf_counter(), self._sending
        if now >= self._deadline:
            self._ended = "deadline"
        elif now < (self._own if sending is None else sending + self._timeout):
            # The sink took some of the time since the timer was set (or the loop's clock is coarse).
            self.arm()
            return
        else:
            self._ended = "timeout" if sending is None else "client_gone"
        self._timer = None
        self._at = -inf  # final: nothing is earlier, so `send` does not set it again
        self.limit.ring()
