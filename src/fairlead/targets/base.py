"""Drivers: how to call one target over its wire format.

A driver turns (call, query) into an `Outcome`. `ask` is final: it measures time, prices tokens, and turns every failure into a
typed one. Members implement `_ask`. A driver streams when it is given a sink: it passes on whole server-sent events in the
OpenAI chat format as they come (without ``[DONE]``), and still returns the full outcome.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from time import perf_counter
from typing import ClassVar, Final, Literal, final

import msgspec

from fairlead.component import Component
from fairlead.errors import TargetError
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Target

log = logging.getLogger(__name__)

UNKNOWN: Final = Profile()
"""The profile of a target that nobody has described."""


class Driver(Component, ABC):
    """One target that can be called.

    Constructors take at least `name`, `profile` and `timeout_seconds` (for one call), all keyword-only, and open nothing:
    `start` does, in the running event loop.
    """

    family: ClassVar[str] = "targets"
    kind: ClassVar[Literal["model", "agent", "adapter", "tool", "retriever", "strategy"]] = "model"
    name: str
    profile: Profile
    timeout_seconds: float

    @property
    def target(self) -> Target:
        """The noun that policies see."""
        return Target(name=self.name, kind=self.kind, profile=self.profile)

    async def start(self) -> None:
        """Open what is needed. Called once, in the event loop that will call `ask`."""

    async def stop(self) -> None:
        """Close what `start` opened."""

    @final
    async def ask(self, call: Call, query: Query, sink: Sink | None = None) -> Outcome:
        """Make one call. Never raises but for cancellation: a failure is an outcome with `error` set."""
        start = perf_counter()
        streamed = False
        watched = sink
        if sink is not None:
            out = sink

            async def watched(events: bytes) -> None:
                nonlocal streamed
                streamed = True
                await out(events)

        try:
            async with asyncio.timeout(self.timeout_seconds):
                outcome = await self._ask(call, query, watched)
        except TimeoutError:
            outcome = Outcome(
                error=Failure(kind="timeout", message=f"{self.name} gave no answer in {self.timeout_seconds:g} s")
            )
        except TargetError as e:
            outcome = Outcome(error=e.failure)
        except Exception as e:
            log.exception("driver %s failed in an unforeseen way", self.name)
            outcome = Outcome(error=Failure(kind="internal", message=f"{self.name}: {type(e).__name__}"))
        usd = outcome.usd
        if usd is None and outcome.tokens is not None:
            usd = self.profile.usd(outcome.tokens)
        joules = outcome.joules
        if joules is None and outcome.tokens is not None and self.profile.joules_per_token is not None:
            joules = self.profile.joules_per_token * (outcome.tokens.input + outcome.tokens.output)
        if streamed and outcome.error is not None and outcome.error.kind != "broken_stream":
            # Part of the answer is out: whatever ended it, nobody else can take over.
            error = msgspec.structs.replace(outcome.error, kind="broken_stream")
            outcome = msgspec.structs.replace(outcome, error=error)
        return msgspec.structs.replace(
            outcome,
            target=self.name,
            model=outcome.model or self.name,
            usd=usd,
            joules=joules,
            seconds=perf_counter() - start,
            streamed=streamed,
        )

    @abstractmethod
    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        """Make the call and return text, tokens, log-probabilities and so on.

        Raises:
            TargetError: with a typed failure.
        """
