"""A decision in words and numbers: what a dry run shows. Not for the hot path."""

from __future__ import annotations

from typing import Any

import msgspec

from fairlead.objective import Objective
from fairlead.plans.base import name_of, to_data
from fairlead.policies.utility import tipping_points
from fairlead.types import Decision, Option, Query, Signals


def explain(query: Query, signals: Signals, decision: Decision) -> dict[str, Any]:
    """Return a decision with its options, reasons, signals and what would change it, as builtin data: all from the record alone."""
    # Where forecasts are of quality and cost apart, other weights could change the choice; a forecast of utility has them in it.
    weighed = Objective(**decision.objective) if decision.forecast_of == "quality" else None
    return {
        "id": query.id,
        "route": query.route,
        "policy": decision.policy,
        "version": decision.version,
        "policy_digest": decision.policy_digest,
        "pool_digest": decision.pool_digest,
        "guards_digest": decision.guards_digest,
        "chosen": name_of(decision.plan) if decision.options else None,
        "plan": to_data(decision.plan) if decision.options else None,
        "propensity": decision.propensity,
        "options": [_option(o, weighed, i == decision.chosen) for i, o in enumerate(decision.options)],
        "forecast_of": decision.forecast_of,
        "reasons": decision.reasons,
        # With wishes the ranking is not by utility alone, so what tips that does not tip the choice.
        "what_would_change_it": would_change(decision, None if query.constraints.prefer else weighed),
        "rule": decision.rule,
        "guards": decision.guards,
        "actions": decision.actions,
        "eligible": decision.eligible,
        "excluded": decision.excluded,
        "signals": {name: _reading(r) for name, r in signals.readings.items()},
        "seconds": decision.seconds,
    }


def would_change(decision: Decision, objective: Objective | None) -> list[str]:
    """Say what would have to be otherwise for another choice. `objective`: what forecasts were weighed by, if they were."""
    tips = tipping_points(decision.options, objective) if objective is not None and _ranked(decision, objective) else ()
    out = [str(tip) for tip in tips if tip.at > 0.0]
    others = [o for i, o in enumerate(decision.options) if i != decision.chosen]
    drawn = [o for o in others if o.probability > 0.0]
    for option in drawn[:3]:
        share = f"{option.probability:.1%}" if option.probability >= 0.001 else "less than 0.1%"
        out.append(f"another draw: {_name(option)} is chosen in {share} of cases like this one")
    if others and not drawn and not out:
        out.append(f"the next best is {_name(others[0])}; under this policy it never takes a case like this one")
    out += [f"{name} could be chosen if it were eligible; it is not: {why}" for name, why in decision.excluded.items()]
    return out


def _ranked(decision: Decision, objective: Objective) -> bool:
    """Whether the likeliest option is that of highest utility: else the policy goes by something else, and what tips it is not known."""
    known = [o for o in decision.options if o.forecast is not None]
    if not known:
        return False
    likeliest = max(o.probability for o in decision.options)
    top = max(objective.utility(o.forecast) for o in known if o.forecast is not None)
    return any(
        o.forecast is not None and objective.utility(o.forecast) == top and o.probability == likeliest for o in known
    )


def _name(option: Option) -> str:
    return name_of(option.plan)


def _option(option: Option, objective: Objective | None, chosen: bool) -> dict[str, Any]:
    forecast = option.forecast
    return {
        "target": _name(option),
        "targets": option.plan.targets(),
        "chosen": chosen,
        "plan": to_data(option.plan),
        "probability": option.probability,
        "forecast": None if forecast is None else msgspec.to_builtins(forecast),
        "utility": objective.utility(forecast) if objective is not None and forecast is not None else None,
    }


def _reading(reading: Any) -> dict[str, Any]:
    out: dict[str, Any] = msgspec.to_builtins(reading)
    if reading.vector:
        out["vector"] = f"{len(reading.vector) // 4} numbers"
    return out
