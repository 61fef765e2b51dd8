"""Targets in turn, by the query's arrival number: plain load spreading, a baseline. Ours, no paper. 3 µs."""

from __future__ import annotations

from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, answering
from fairlead.types import Option, Query, Signals, Target


class RoundRobin(Policy):
    """Propose the eligible target whose turn it is, in order of names.

    The turn is `query.arrival` modulo the number of eligible targets, so nothing is kept between queries and a replay takes the
    same turns.
    """

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the one option."""
        targets = answering(targets)
        order = sorted(t.name for t in targets)
        turn = query.arrival % len(order)
        return Proposal([Option(plan=Single(target=order[turn]), probability=1.0)], f"turn {turn + 1} of {len(order)}")
