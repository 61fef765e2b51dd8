"""Asking a learned part. A plan holds the name of a gate, a target whose driver forecasts (`fairlead.targets.gate`), and never its weights.

So the forecast is an outcome like any other: it is in the trace, and a replay goes the same way without the weights. A gate that fails or says
nothing of a target leaves it out: each plan says what it does then.
"""

from __future__ import annotations

import msgspec

from fairlead.types import Call, Forecast, Outcome

_forecasts = msgspec.json.Decoder(dict[str, Forecast])


def consult(gate: str) -> Call:
    """Make the call that asks `gate` for its forecasts of the query."""
    return Call(target=gate, purpose="gate", alone=True)


def forecasts(outcome: Outcome) -> dict[str, Forecast]:
    """Read what a gate said: a forecast by name of what it forecasts; empty if it failed or said something else."""
    if not outcome.ok:
        return {}
    try:
        found = _forecasts.decode(outcome.text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {}
    return {name: f for name, f in found.items() if 0.0 <= f.quality <= 1.0}


def said(forecasts: dict[str, Forecast]) -> str:
    """Write forecasts as a gate does."""
    return msgspec.json.encode(forecasts).decode()
