"""What is wanted, as one number: quality less what it took, each weighed.

    utility = quality - usd_weight * usd - seconds_weight * seconds - joules_weight * joules

Weights are in quality per unit: `usd_weight=100` says that one cent is worth one point of quality (0.01 * 100 = 1.0) …
`Forecast` and `Reward` carry the same fields, so what is expected and what happened are weighed by the same line.
"""

from __future__ import annotations

from msgspec import Struct

from fairlead.types import Forecast, Reward


class Objective(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of quality, spend, time and energy. An unknown quantity with a weight counts as `unknown` says."""

    usd_weight: float = 0.0
    seconds_weight: float = 0.0
    joules_weight: float = 0.0
    unknown: float = 0.0
    """Utility taken off for each weighed quantity that is not known."""

    def weights(self) -> dict[str, float]:
        """Return the fields that are not at their default, for the record."""
        return {f: v for f in self.__struct_fields__ if (v := getattr(self, f))}

    def utility(self, what: Forecast | Reward) -> float:
        """Weigh a forecast or a reward. Unbounded below; at most 1."""
        u = what.quality
        for weight, amount in (
            (self.usd_weight, what.usd),
            (self.seconds_weight, what.seconds),
            (self.joules_weight, what.joules),
        ):
            if weight:
                u -= self.unknown if amount is None else weight * amount
        return u


def energy_weight(share: float, low: float, high: float) -> float:
    """Return the `joules_weight` that ranks as GreenServ's reward (2026, arXiv 2601.17551) does.

    Its reward (1 - share) quality + share (1 - e), with e = (joules - low) / (high - low), is (1 - share) times the utility under that
    weight, plus a constant. `low` and `high` are bounds of the joules that an answer takes, or (as there) that a token takes, if that is
    what is recorded.

    Raises:
        ValueError: unless 0 <= share < 1 and low < high.
    """
    if not 0.0 <= share < 1.0 or not low < high:
        raise ValueError("a share in [0, 1) and bounds low < high give a weight; at a share of 1 only energy counts")
    return share / ((1.0 - share) * (high - low))
