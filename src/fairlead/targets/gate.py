"""A trained predictor as something that plans can ask: what would each target bring on this query?

    targets:
      hard: {type: gate, predictor: {trained: models/hard}}
    routes:
      auto: {policy: {type: fixed, plan: {kind: fast_slow, gate: hard, …}}}

It reads the predictor's signals off the query as the plan has it (masked, if an action masked it), forecasts what the predictor knows, and
replies with JSON: a `Forecast` by name. So what a learned part said is in the trace, and a replay needs no weights. It costs nothing, answers no
client, and no policy turns to it. Ours, no paper.

Cost: that of the signals and the predictor, plus about 20 µs.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from msgspec.structs import replace

from fairlead.build import build
from fairlead.plans.gates import said
from fairlead.predictors.base import Predictor
from fairlead.signals.base import Observer
from fairlead.targets.base import Driver
from fairlead.types import Call, Forecast, Outcome, Profile, Query, Signals, Sink, Target

HELPS = Profile(answers=False, input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)
"""The profile of what only helps in plans, and costs nothing."""


class Gate(Driver):
    """Replies with a predictor's forecasts.

    Args:
        name: what plans and traces call it.
        predictor: already trained.
        profile: None: free. With one too it answers no client, and what it does not say of its price is nothing.
        timeout_seconds: for one call.
    """

    kind: ClassVar[Literal["model", "agent", "adapter", "tool", "retriever", "strategy"]] = "strategy"

    @classmethod
    def example(cls) -> Self:
        """With a predictor that needs no fit."""
        from fairlead.predictors.mean import Mean

        return cls(name="a", predictor=Mean())

    def __init__(
        self, *, name: str, predictor: Predictor, profile: Profile | None = None, timeout_seconds: float = 1.0
    ) -> None:
        self.name = name
        self.predictor = predictor
        self.profile = HELPS if profile is None else _helping(profile)
        self.timeout_seconds = timeout_seconds
        self._observer: Observer | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that it reads."""
        return self.predictor.needs

    def reads_with(self, observer: Observer) -> None:
        """Read signals as they are configured, and not those of the catalogue."""
        self._observer = observer

    @property
    def observer(self) -> Observer:
        """What it reads signals with."""
        if self._observer is None:
            self._observer = Observer(signals={n: build("signals", n) for n in self.needs})
        return self._observer

    def forecast(self, signals: Signals) -> dict[str, Forecast]:
        """Forecast every target that the predictor knows."""
        names = sorted(self.predictor.targets_)
        found = self.predictor.predict(signals, [Target(name=n) for n in names])
        return dict(zip(names, found, strict=True))

    def answer(self, query: Query) -> Outcome:
        """Reply at once: for replays on recorded outcomes (see `fairlead.worlds.tabled.Beside`)."""
        return self._said(self.observer.read(query, self.needs))

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        # A plan that asks something else than the query (a part of it, its words alone) has its gates asked about that.
        if call.messages is not None:
            query = replace(query, messages=call.messages, body={})
        return self._said(await self.observer.observe(query, self.needs))

    def _said(self, signals: Signals) -> Outcome:
        return Outcome(text=said(self.forecast(signals)), target=self.name, model=self.name, usd=0.0, finish="stop")


def _helping(profile: Profile) -> Profile:
    return replace(
        profile,
        answers=False,
        input_usd_per_mtok=profile.input_usd_per_mtok or 0.0,
        output_usd_per_mtok=profile.output_usd_per_mtok or 0.0,
    )
