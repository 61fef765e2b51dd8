"""Ask the few who are likeliest to be right, and weigh their votes: how AgentRouter answers (2025, arXiv 2510.05445).

    p_a = exp(quality_a / temperature) / sum,   answer = argmax over v of the sum of p_a over those of the k largest that say v

The paper asks everybody; k bounds the cost (k = 1: one call, no vote). `temperature` is that of the soft targets of the predictor `agents`, whose graph this was
made for; any predictor may stand there. Equal p go by name. Learns only from the single calls of its exploration, as a vote is no sample of anybody.

Cost: the predictor's, and 2 ms for a vote, nearly all of it `Vote`'s check that `answers` names a reader. Checked in tests/policies/test_graph_policy.py.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.policies.base import Policy, Positive, Proposal, Share, answering
from fairlead.policies.utility import described
from fairlead.predictors.base import Predictor
from fairlead.types import Forecast, Option, Plan, Query, Reward, Signals, Target, Trace


class Graph(Policy):
    """Propose a weighted vote of the `k` best forecast.

    Args:
        predictor: of each target's quality.
        k: members of the vote.
        temperature: of the votes' weights.
        answers: how answers are read (`fairlead.answers`).
        explore: probability spread evenly over single calls to each target.
    """

    contextual: ClassVar[bool] = True

    def __init__(
        self,
        *,
        predictor: Predictor,
        k: Annotated[int, Meta(ge=1)] = 3,
        temperature: Positive = 0.25,
        answers: str = "text",
        explore: Share = 0.0,
    ) -> None:
        self.predictor = predictor
        self.k = k
        self.temperature = temperature
        self.answers = answers
        self.explore = explore

    @classmethod
    def example(cls) -> Self:
        """One call, by a predictor that needs no fit."""
        from fairlead.predictors.features import Features
        from fairlead.predictors.knn import KNN

        return cls(predictor=KNN(features=Features(signals=("length",))), k=1, explore=0.1)

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the predictor reads."""
        return self.predictor.needs

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the vote; and the single calls, if it explores."""
        targets = answering(targets)
        forecasts = {t.name: f for t, f in zip(targets, self.predictor.predict(signals, targets), strict=True)}
        order = sorted(forecasts, key=lambda n: (-forecasts[n].quality, n))
        best = order[: self.k]
        raw = np.exp([(forecasts[n].quality - forecasts[best[0]].quality) / self.temperature for n in best])
        p = (raw / raw.sum()).tolist()
        chosen: Plan = Single(target=best[0])
        if len(best) > 1:
            members = tuple(Single(target=n) for n in best)
            chosen = Vote(members=members, weights=tuple(p), answers=self.answers)
        share: dict[Plan, tuple[float, Forecast | None]] = {chosen: (1.0 - self.explore, None)}
        for n in order:
            plan = Single(target=n)
            before = share.get(plan, (0.0, None))[0]
            if self.explore or plan == chosen:
                share[plan] = (before + self.explore / len(order), forecasts[n])
        options = [Option(plan=plan, probability=w, forecast=f) for plan, (w, f) in share.items()]
        return Proposal(
            options, *(f"{n} weighs {w:.2f}: {described(forecasts[n])}" for n, w in zip(best, p, strict=True))
        )

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Pass the outcome on to the predictor, which leaves votes out."""
        self.predictor.update(trace, reward)

    def decay(self, keep: float) -> None:
        """Let the predictor forget."""
        self.predictor.decay(keep)
