"""Agents first, models else: MoMA (2025, arXiv 2509.07571). Is there an agent for this? If none fits, a model from the Pareto set of forecasts.

Stage A. A category's score is a part of `signal` (the signal `similarity`, say: cosine to the category's phrases). The `top` categories that the
session's state shows are kept; an agent (a target of kind agent or tool) scores the best of those that its tags are in. Tags are a tree: ``travel/hotel``
is in ``travel``. Who is below `least`, outside the state or may not act is masked:

    p(a) = [a not masked] exp(score_a / temperature) / sum        all masked: none, so stage B

Stage B. Of models by (forecast cost, forecast quality): `performance` takes the highest quality, `cost` the cheapest that has `acceptable` times it,
`auto` the nearest to the ideal on the Pareto set (`topsis.py`).

Differs from the paper: scores are of signals, where an LLM selects and masks are on its logits (masking a softmax is the same); its cache of earlier
choices is left out, since a policy is pure; its pairwise scorer is any predictor here (`sw_ranking` learns from pairs); the tree is what the tags say, not
clustered. Not found, so ours: top, least, temperature, acceptable. The state of a session is that of its log of events, so a record decides it again.

Cost: about 50 µs for 16 targets, the predictor apart. Checked in tests/policies/test_masked.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import exp
from typing import Annotated, ClassVar, Literal, Self

from msgspec import Meta, Struct

from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Positive, Proposal, Share, answering, preferred
from fairlead.policies.topsis import closeness, front
from fairlead.policies.utility import compared
from fairlead.predictors.base import Predictor
from fairlead.types import Forecast, Option, Query, Reward, Signals, Target, Trace


class Machine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which categories a session may be in, by its state. `moves`: state -> event -> next state; `shows`: state -> categories (left out: all)."""

    start: str
    moves: dict[str, dict[str, str]]
    shows: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        known = {self.start, *self.moves}
        for state, row in self.moves.items():
            if stray := set(row.values()) - self.moves.keys():
                raise ValueError(f"{state!r} leads to {', '.join(sorted(stray))}, which has no moves")
        if stray := (known | self.shows.keys()) - self.moves.keys():
            raise ValueError(f"no moves are given for {', '.join(sorted(stray))}")
        if stuck := sorted(s for s in self.reached() if not set(self.moves[s].values()) - {s}):
            raise ValueError(
                f"{', '.join(stuck)} can be reached but never left: give each an event that leads elsewhere"
            )

    def reached(self) -> frozenset[str]:
        """Return the states that events can lead to."""
        seen, rest = {self.start}, [self.start]
        while rest:
            new = set(self.moves[rest.pop()].values()) - seen
            seen |= new
            rest += new
        return frozenset(seen)

    def after(self, events: Iterable[str]) -> str:
        """Return the state after `events`. Raises `FairleadError` for one that the state has no move for."""
        state = self.start
        for event in events:
            if event not in self.moves[state]:
                known = ", ".join(sorted(self.moves[state]))
                raise FairleadError(f"in state {state!r} there is no move for {event!r}, only for {known}")
            state = self.moves[state][event]
        return state


class Masked(Policy):
    """Choose an agent whose categories fit, else a model by its forecast.

    Args:
        predictor: forecasts models.
        signal: whose parts are the categories' scores.
        machine: the states of a session; None: everything may be chosen always.
        log: signal key of the session's events so far, in one string with spaces between. Not read: none yet.
        top: categories looked into.
        least: score from which an agent fits at all.
        temperature: of the choice among agents.
        mode: how models are chosen.
        acceptable: of the best forecast quality, for the mode `cost`.
        weights: of score and cost, for the mode `auto`.
        explore: share of stage B spread evenly over the models.
    """

    contextual: ClassVar[bool] = True

    def __init__(
        self,
        *,
        predictor: Predictor,
        signal: str = "similarity",
        machine: Machine | None = None,
        log: str | None = None,
        top: Annotated[int, Meta(ge=1)] = 3,
        least: float = 0.5,
        temperature: Positive = 0.05,
        mode: Literal["performance", "cost", "auto"] = "auto",
        acceptable: Share = 0.9,
        weights: tuple[Share, Share] = (0.5, 0.5),
        explore: Share = 0.0,
    ) -> None:
        self.predictor = predictor
        self.signal = signal
        self.machine = machine
        self.log = log
        self.top = top
        self.least = least
        self.temperature = temperature
        self.mode = mode
        self.acceptable = acceptable
        self.weights = weights
        self.explore = explore

    @classmethod
    def example(cls) -> Self:
        """By a signal without categories, so that models are chosen, for quality."""
        from fairlead.predictors.features import Features
        from fairlead.predictors.knn import KNN

        return cls(
            predictor=KNN(features=Features(signals=("length",))), signal="ngrams", mode="performance", explore=0.1
        )

    def check(self) -> None:
        """Raise `ConfigError` for weights of 0, or a log without a machine to read it."""
        if not any(self.weights):
            raise ConfigError("one of the weights must be above 0", path="$.weights")
        if (self.machine is None) != (self.log is None):
            raise ConfigError("a machine and the log of its events go together", path="$.machine")

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals of categories, of the log, and of the predictor."""
        log = () if self.log is None else (self.log.partition(".")[0],)
        return tuple(dict.fromkeys((self.signal, *log, *self.predictor.needs)))

    @property
    def tests(self) -> tuple[tuple[str, str], ...]:
        """The signals that it names."""
        return (("$.signal", self.signal), *((("$.log", self.log),) if self.log is not None else ()))

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Choose among agents, if one fits, else among models."""
        targets = tuple(sorted(answering(targets), key=lambda t: t.name))
        agents = [t for t in targets if t.kind in ("agent", "tool")]
        models = [t for t in targets if t.kind not in ("agent", "tool")]
        scores, state = self._categories(signals, {tag for t in agents for tag in t.profile.tags})
        fit = {t.name: _best(t.profile.tags, scores) for t in agents}
        masked = {name for name, score in fit.items() if score is None or score < self.least}
        p = choice({name: score or 0.0 for name, score in fit.items()}, masked, self.temperature)
        backup = self._models(signals, models) if models else None
        if p is not None:
            order = sorted(p, key=lambda name: (-p[name], name))
            options = [Option(plan=Single(target=name), probability=p[name]) for name in order]
            # Nobody who is masked may take over.
            after = (*(o.plan for o in options), *(o.plan for o in (backup.options if backup else ())))
            return Proposal(options, *state, f"{order[0]} fits: {fit[order[0]]:.3f}", fallbacks=after)
        if backup is None:
            raise NoEligibleTarget({t.name: "no agent fits, and there is no model" for t in targets})
        plans = tuple(o.plan for o in backup.options)
        return Proposal(backup.options, *state, "no agent fits", *backup.reasons, fallbacks=plans)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Pass the outcome on to the predictor."""
        self.predictor.update(trace, reward)

    def decay(self, keep: float) -> None:
        """Let the predictor forget."""
        self.predictor.decay(keep)

    def _categories(self, signals: Signals, tags: Collection[str]) -> tuple[dict[str, float], list[str]]:
        """Return the scores of the categories looked into, and what is to be said of the session's state."""
        names = {"/".join(tag.split("/")[: i + 1]) for tag in tags for i in range(tag.count("/") + 1)}
        reading, state = signals.readings.get(self.signal), []
        if self.machine is not None:
            log = signals.get(self.log or "")
            try:
                at = self.machine.after(log.split() if isinstance(log, str) else ())
            except FairleadError as e:
                return {}, [f"no agent: {e}"]
            shown = self.machine.shows.get(at)
            names = names if shown is None else {n for n in names if any(_within(n, c) for c in shown)}
            state = [f"the session is in state {at!r}"]
        said = {} if reading is None else {n: v for n in names if isinstance(v := reading.parts.get(n), int | float)}
        order = sorted(said, key=lambda n: (-said[n], n))[: self.top]
        return {n: float(said[n]) for n in order}, state

    def _models(self, signals: Signals, models: list[Target]) -> Proposal:
        """Return the choice of stage B."""
        forecasts = self.predictor.predict(signals, models)
        scores = ranked(forecasts, self.mode, acceptable=self.acceptable, weights=self.weights)
        options = preferred(list(zip(models, scores, forecasts, strict=True)), explore=self.explore)
        return Proposal(options, *compared(options))


def choice(scores: Mapping[str, float], masked: Collection[str], temperature: float) -> dict[str, float] | None:
    """Return the probability of each that is not masked, in the ratios that a softmax of all gives them; None if all are."""
    free = {name: s for name, s in scores.items() if name not in masked}
    if not free:
        return None
    top = max(free.values())
    raw = {name: exp((s - top) / temperature) for name, s in free.items()}
    total = sum(raw.values())
    return {name: v / total for name, v in raw.items()}


def ranked(
    forecasts: list[Forecast], mode: str, *, acceptable: float = 0.9, weights: tuple[float, float] = (0.5, 0.5)
) -> list[float]:
    """Return a rank of each forecast, the highest to be taken. An unknown cost counts as the highest known."""
    dear = max((f.usd for f in forecasts if f.usd is not None), default=0.0)
    points = [(dear if f.usd is None else f.usd, f.quality) for f in forecasts]
    best = max(s for _, s in points)
    on = front(points)
    if mode == "auto":
        value = dict(zip(on, closeness([points[i] for i in on], *weights), strict=True))
    elif mode == "performance":
        value = {i: points[i][1] for i in on}
    else:
        value = {i: 1.0 + dear - points[i][0] for i in on if points[i][1] >= acceptable * best}
    return [value.get(i, -1.0) for i in range(len(points))]


def _within(category: str, other: str) -> bool:
    return category == other or category.startswith(other + "/")


def _best(tags: Collection[str], scores: Mapping[str, float]) -> float | None:
    """Return the best score of a category that one of the tags is in."""
    return max((s for name, s in scores.items() if any(_within(tag, name) for tag in tags)), default=None)
