"""How far a route has come in its budget, when a query arrives. Ours, no paper. About 1 µs.

It reads `Query.spent`, which is stamped where the route's policy keeps a budget (the policy `budget`); without one everything is null and
the confidence 0. The stamp tells what was spent, not of how much: give the amount as `usd`, as the policy has it, and the shares are told
too. With several routes use one such signal for each amount.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from fairlead.errors import ConfigError
from fairlead.signals.base import Law, Range, Signal, alike, implies
from fairlead.types import Query, Reading

LEAST: Final = 1e-6
"""Smallest budget."""


class Quota(Signal):
    """Value: USD spent in this period, what calls under way may cost included.

    Parts: `elapsed` (share of the period that is over, below 1) and, with `usd`, `share` (of the budget that is spent) and `ahead`
    (`share` less `elapsed`: above 0 the money goes quicker than the time).

    Args:
        usd: the budget of one period. None: not told.

    Raises:
        ConfigError: by `check`, for a budget below `LEAST` or without end.
    """

    def __init__(self, *, usd: float | None = None) -> None:
        self.usd = usd

    def check(self) -> None:
        """Raise `ConfigError` for a budget of which there are no shares."""
        if self.usd is not None and not LEAST <= self.usd < math.inf:
            raise ConfigError(f"a budget is {LEAST} USD or more, not {self.usd}", path="$.usd")

    def ranges(self) -> Mapping[str, Range]:
        """Amounts and shares; null without a budget."""
        amount = Range(kind="number", low=0.0, null=True)
        found = {"value": amount, "elapsed": Range(kind="number", low=0.0, high=1.0, null=True)}
        if self.usd is not None:
            found |= {"share": amount, "ahead": Range(kind="number", low=-1.0, null=True)}
        return found

    def laws(self) -> Sequence[Law]:
        """All are known or none is; what is not spent is not ahead."""
        told = ("elapsed",) if self.usd is None else ("elapsed", "share", "ahead")
        none = () if self.usd is None else (implies({"share": 0.0}, {"ahead": {"le": 0.0}}),)
        return (*(alike({"value": None}, {key: None}) for key in told), *none)

    def _read(self, query: Query) -> Reading:
        spent = query.spent
        if spent is None:
            return Reading(confidence=0.0)
        if self.usd is None:
            return Reading(value=spent.usd, parts={"elapsed": spent.elapsed})
        share = spent.usd / self.usd
        return Reading(
            value=spent.usd, parts={"elapsed": spent.elapsed, "share": share, "ahead": share - spent.elapsed}
        )
