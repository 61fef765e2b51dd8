"""A random target: the baseline that every method must beat, and the cleanest log to learn from. Ours, no paper. 5 µs."""

from __future__ import annotations

from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, answering
from fairlead.types import Option, Query, Signals, Target


class Random(Policy):
    """Choose among the eligible targets in proportion to `weights` (None: all alike; a target without a weight has 0).

    If no eligible target has any weight, all are alike, and the reasons say so.
    """

    def __init__(self, *, weights: dict[str, float] | None = None) -> None:
        self.weights = weights

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The targets that have a weight."""
        return tuple((f"$.weights.{t}", t) for t in self.weights or ())

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return one option per target, likeliest first."""
        targets = answering(targets)
        reason = "random"
        if self.weights is None:
            shares = dict.fromkeys((t.name for t in targets), 1.0)
        else:
            shares = {t.name: self.weights.get(t.name, 0.0) for t in targets}
            if not any(shares.values()):
                shares = dict.fromkeys(shares, 1.0)
                reason = "no eligible target has a weight; uniformly random"
        total = sum(shares[name] for name in sorted(shares))
        order = sorted(shares, key=lambda name: (-shares[name], name))
        return Proposal([Option(plan=Single(target=n), probability=shares[n] / total) for n in order], reason)
