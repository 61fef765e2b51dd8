"""One `glimpse` plan whose tau is held where the large model writes a given share of the steps. Ours, an extension of GlimpRouter (2026, arXiv
2601.05110), which sets one tau by hand so that 20 to 30% of the steps are large.

    tau = the (1 - share) quantile of the entropies that the plan's look-aheads found lately

kept as a histogram in which a look-ahead weighs ``1 - 1 / remember`` less with each one after it, of `BINS` bins over 0 to `HIGHEST` nats that are
finer near 0, where entropies crowd. Every look-ahead counts, whoever then wrote the step, so the choice of tau hides nothing. Until `LEAST` of them
are known, the plan's own tau serves. Where many entropies are the same, no tau gives the share: then it is overshot or missed by those.

A policy learns from judged answers alone, once each, so the share is held over queries like those: if only hard queries are judged, tau is too
high for the others. A judgement's value does not matter here, and one without weight teaches nothing. Cost: about 20 µs a decision.

Checked in tests/policies/test_glimpse_share.py: within 3 points on entropies that stay alike, back there after a shift, what is learned from.
"""

from __future__ import annotations

from typing import Annotated, Final, Self

import numpy as np
from msgspec import Meta
from msgspec.structs import replace

from fairlead.plans.glimpse import Glimpse
from fairlead.policies.base import Policy, Proposal
from fairlead.policies.fixed import Fixed
from fairlead.table import Floats
from fairlead.types import Query, Reward, Signals, Target, Trace

BINS: Final = 240
HIGHEST: Final = 12.0
"""Nats; above the entropy of any vocabulary."""
LEAST: Final = 100
"""Look-aheads that must be known before tau follows them."""
_EDGES: Final = HIGHEST * (np.arange(BINS + 1) / BINS) ** 2


class GlimpseShare(Policy):
    """Always propose `plan`, with the tau at which its large model would have written `share` of the steps lately.

    While one of its two targets may not act the other stands in, as with `fixed`.

    Args:
        plan: the plan; its tau is the first.
        share: of all steps, those that the large model is to write.
        remember: how many look-aheads count, about.
    """

    bins_: Floats
    """How many look-aheads fell into each bin, older ones weighing less."""

    def __init__(
        self,
        *,
        plan: Glimpse,
        share: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.25,
        remember: Annotated[int, Meta(ge=LEAST)] = 2000,
    ) -> None:
        self.plan = plan
        self.share = share
        self.remember = remember
        self.bins_ = np.zeros(BINS)

    @classmethod
    def example(cls) -> Self:
        """Two targets."""
        return cls(plan=Glimpse(small="ant", large="bee"))

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The plan's targets."""
        return (("$.plan.small", self.plan.small), ("$.plan.large", self.plan.large))

    @property
    def tau(self) -> float:
        """The threshold now, in nats, rounded to what a bin can tell."""
        known = float(self.bins_.sum())
        # What is forgotten leaves less than a whole look-ahead of each.
        if known < min(LEAST, 0.9 * self.remember):
            return self.plan.tau
        below = np.concatenate([[0.0], np.cumsum(self.bins_)])
        return round(float(np.interp((1.0 - self.share) * known, below, _EDGES)), 4)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the plan at the tau of now."""
        tau = self.tau
        proposal = Fixed(plan=replace(self.plan, tau=tau)).propose(query, signals, targets)
        return Proposal(
            proposal.options, f"tau {tau:g} for {self.share:.0%} of the steps by {self.plan.large}", *proposal.reasons
        )

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Count the entropies that the answer's look-ahead calls found."""
        if reward.further or not reward.weight:
            return
        seen = [
            step.outcome.first_entropy
            for step in trace.steps
            if step.call is not None
            and (step.call.target, step.call.purpose) == (self.plan.small, "probe")
            and step.outcome.ok
            and step.outcome.first_entropy is not None
        ]
        if seen:
            at = np.clip(np.searchsorted(_EDGES, seen, side="right") - 1, 0, BINS - 1)
            keep = (1.0 - 1.0 / self.remember) ** np.arange(len(seen) - 1, -1, -1)
            self.bins_ = self.bins_ * (1.0 - 1.0 / self.remember) ** len(seen) + np.bincount(at, keep, BINS)

    def decay(self, keep: float) -> None:
        """Let what was seen weigh less."""
        self.bins_ = keep * self.bins_
