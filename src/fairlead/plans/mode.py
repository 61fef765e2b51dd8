"""Answer at once, reason, or use tools: the mode by query, regularised by cost.

After A2FM (2025, arXiv 2510.12838), whose one model chooses its own mode; here each mode is a plan (other targets, or the same with other parameters), and a gate forecasts
what each would bring. With p the forecast quality of answering at once, the mode of the highest score runs:

    instant               p + bias                                          - usd_weight * usd
    reasoning, agentic    q_m * (1 - penalty * p^alpha)                     - usd_weight * usd_m

With `penalty` 1 and `usd_weight` 0 that is the expected reward of A2FM's training (APO: r_accuracy * (1 - p^alpha) for a heavy mode): where answering at once mostly
works, a heavy mode must be far better. A larger `alpha` (2) tolerates heavy modes where p is middling. Of equals the lighter mode runs. Costs count if they are known of all modes that
are compared. `penalty` 0 is for gates that were trained to choose and so hold it already: `apo`, or `gain` (TWN: Think When Needed, Zhang et al. 2026, arXiv
2605.14448), with which a mode runs iff its expected gain pays for it.

`bias` is the knob that the first-token rule of TRACE (Hao et al. 2026, arXiv 2603.02929) lacks: the share of instant answers never falls as it grows; a large one
makes all instant, a large negative one none.

**threshold**: if given, the rule is simply instant iff p + bias >= threshold, and else the better of the heavy modes. It needs a forecast of p alone.

A mode is forecast under its own name (``instant``, ``reasoning``, ``agentic``: a table whose "models" are modes), else under its plan's first target, if no other mode begins with the same. What is
not known: of reasoning counts as quality 1; agentic is then not chosen; and without p, or with a gate that fails, reasoning runs: the careful one, and never the one that
may do things. If the mode that runs fails, reasoning takes over, and instant for reasoning; nothing falls back on agentic.

Cost: the gate's call, and the mode's. Checked in tests/plans/test_mode.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from fairlead.errors import LimitReached
from fairlead.plans.base import final_failure, targets_of
from fairlead.plans.gates import consult, forecasts
from fairlead.plans.single import Single
from fairlead.types import Do, Forecast, Plan, Query, Steps

Name: TypeAlias = Literal["instant", "reasoning", "agentic"]
MODES: Final[tuple[Name, ...]] = ("instant", "reasoning", "agentic")
"""From light to heavy."""


class Mode(Struct, Plan, frozen=True, kw_only=True, tag="mode", tag_field="kind", forbid_unknown_fields=True):
    """Run the mode that the `gate`'s forecasts favour; `agentic` only if there is such a plan. `threshold`: p alone decides on instant."""

    instant: Plan
    reasoning: Plan
    agentic: Plan | None = None
    gate: str
    usd_weight: Annotated[float, Meta(ge=0.0)] = 0.0
    alpha: Annotated[float, Meta(gt=0.0)] = 2.0
    penalty: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    bias: float = 0.0
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None

    def __post_init__(self) -> None:
        if not all(isfinite(v) for v in (self.usd_weight, self.alpha, self.bias)):
            raise ValueError("usd_weight, alpha and bias must be finite; a bias of 1000 makes all instant")

    def run(self, query: Query) -> Steps:
        """Ask the gate, run a mode."""
        (told,) = yield Do(branches=(consult(self.gate),))
        mode = choose(
            self._told(forecasts(told)),
            usd_weight=self.usd_weight,
            alpha=self.alpha,
            penalty=self.penalty,
            bias=self.bias,
            threshold=self.threshold,
        )
        plan = {"instant": self.instant, "reasoning": self.reasoning, "agentic": self.agentic}[mode]
        (first,) = yield Do(branches=(plan or self.reasoning,), final=True)
        if first.ok or first.streamed or final_failure(first):
            return first
        try:
            (second,) = yield Do(branches=(self.instant if mode == "reasoning" else self.reasoning,), final=True)
        except LimitReached:
            return first
        return second if second.ok or second.streamed else first

    def targets(self) -> tuple[str, ...]:
        """The gate, then those of the modes."""
        return targets_of(self.gate, self.instant, self.reasoning, self.agentic)

    @classmethod
    def example(cls) -> Mode:
        """A gate and a target for each mode."""
        instant, reasoning, agentic = (Single(target=name) for name in "bcd")
        return cls(gate="a", instant=instant, reasoning=reasoning, agentic=agentic)

    def _told(self, told: Mapping[str, Forecast]) -> dict[Name, Forecast]:
        """Return the forecast of each mode that there is, as far as the gate gave one."""
        out: dict[Name, Forecast] = {}
        plans = (self.instant, self.reasoning, self.agentic)
        firsts = [plan.targets()[0] for plan in plans if plan is not None]
        for mode, plan in zip(MODES, plans, strict=True):
            found = None if plan is None else told.get(mode)
            if found is None and plan is not None and firsts.count(first := plan.targets()[0]) == 1:
                found = told.get(first)
            if found is not None:
                out[mode] = found
        return out


def choose(
    told: Mapping[Name, Forecast],
    *,
    usd_weight: float = 0.0,
    alpha: float = 2.0,
    penalty: float = 1.0,
    bias: float = 0.0,
    threshold: float | None = None,
) -> Name:
    """Choose a mode by the forecasts of modes, see the file's docstring. Raises nothing: without a forecast of instant it is reasoning."""
    if "instant" not in told:
        return "reasoning"
    p = min(1.0, max(0.0, told["instant"].quality))
    known: dict[Name, Forecast] = {"reasoning": Forecast(quality=1.0), **told}
    modes = [mode for mode in MODES if mode in known]
    if threshold is not None:
        if p + bias >= threshold:
            return "instant"
        modes.remove("instant")
    priced = all(known[mode].usd is not None for mode in modes)
    best, top = modes[0], -inf
    for mode in modes:
        forecast = known[mode]
        score = p + bias if mode == "instant" else forecast.quality * (1.0 - penalty * p**alpha)
        if usd_weight and priced and forecast.usd is not None:
            score -= usd_weight * forecast.usd
        if score > top:
            best, top = mode, score
    return best
