"""Ask one; if it is late, ask another too, and keep whichever good answer comes first.

The hedged request of Dean and Barroso (2013, "The tail at scale", Communications of the ACM 56(2)): the duplicate starts when the first has taken
longer than a quantile of its target's own recent latencies, so that few queries have one and the slowest gain. What is ours, with sequential
gradient coding (2022, arXiv 2211.13802: a budget of redundancy, repeated work only for what is unfinished) in mind: at most a `share` of the steps has a
duplicate, whatever the fleet does. Without that bound a fleet that gets slow is sent more work for it (`fairlead.bench.queueing`).

The world decides when, since a plan sees no clock (`fairlead.worlds.lateness`). The loser is cancelled, and charged what it may have cost. Where a
call may do something that cannot be undone (agents, tools, tools that the provider runs) there is no duplicate. If the first fails before
that, the second starts at once, as in a fallback; that is no duplicate, and uses up none of the share. Other than in a fallback it starts after any
failure, one that nobody else can mend (`bad_request`, `blocked`) among them: a plan cannot stop what it has handed over.

Checked in tests/plans/test_hedge.py: delay, share under bursts and side by side, charges, failures, side effects, restarts.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from fairlead.plans.base import targets_of
from fairlead.plans.single import Single
from fairlead.types import Do, Late, Plan, Query, Steps


class Hedge(Struct, Plan, frozen=True, kw_only=True, tag="hedge", tag_field="kind", forbid_unknown_fields=True):
    """Run `first`, and `second` beside it when it is late or has failed; the first good answer stands.

    `quantile`: of the latencies of `watch`, after which the first counts as late. `watch`: None, its first target; name another where a plan of
    several calls begins with a quick one, such as a gate. `otherwise`: seconds after which it is late while too few latencies are known. `share`: of the steps
    that hedge this target so, how many may have a duplicate at most; 0: none, the second only takes over after a failure; 1: no bound.

    The answer is never streamed as it comes, since nobody knows yet whose it will be.
    """

    first: Plan
    second: Plan
    quantile: float = 0.95
    otherwise: float = 1.0
    share: float = 0.05
    watch: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile is {self.quantile:g}; it lies between 0 and 1, such as 0.95")
        if not 0.0 <= self.otherwise < inf:
            raise ValueError(f"otherwise is {self.otherwise:g}; it is a number of seconds, at least 0")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share is {self.share:g}; it lies in [0, 1]")
        if self.watch is not None and self.watch not in self.first.targets():
            raise ValueError(f"the first plan never calls {self.watch!r}, whose latency is to be watched")

    def run(self, query: Query) -> Steps:
        """Start both, the second late; of two good answers at the same moment the first's stands, of two failures too."""
        watch = self.watch or self.first.targets()[0]
        late = Late(target=watch, quantile=self.quantile, otherwise=self.otherwise, share=self.share)
        outcomes = yield Do(branches=(self.first, self.second), need=1, after=(0.0, late))
        good = (o for o in outcomes if o.ok)
        failed = (o for o in outcomes if o.error is not None)
        return next(good, None) or next(failed, outcomes[0])

    def targets(self) -> tuple[str, ...]:
        """Targets of both."""
        return targets_of(self.first, self.second)

    @classmethod
    def example(cls) -> Hedge:
        """Two targets."""
        return cls(first=Single(target="a"), second=Single(target="b"))
