"""Plans as data: how they are written in JSON or YAML, and read back.

A plan is written as ``{"kind": name, …}``; nested plans likewise; a bare string is short for a single call to that target.
Kinds are an open family: `decode` looks them up in the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from fairlead import catalog
from fairlead.errors import ConfigError, UnknownName
from fairlead.types import Outcome, Plan

_INSIDE = "\0"
"""Stands between a message and the path inside a nested plan, where msgspec's own errors have no place for one."""


def to_data(plan: Plan) -> Any:
    """Return `plan` as builtin data."""
    return msgspec.to_builtins(plan)


def decode(data: Any, *, path: str = "$") -> Plan:
    """Make a plan from builtin data.

    Raises:
        ConfigError: with the path of what is wrong.
    """
    if isinstance(data, Plan):
        return data
    if isinstance(data, str):
        data = {"kind": "single", "target": data}
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise ConfigError('a plan is a target\'s name or an object with a "kind"', path=path)
    try:
        kind = catalog.find("plans", data["kind"])
    except UnknownName as e:
        raise ConfigError(str(e), path=f"{path}.kind") from e
    try:
        plan: Plan = msgspec.convert(data, kind, dec_hook=hook)
    except msgspec.ValidationError as e:
        said, _, outer = str(e).partition(" - at `$")
        message, _, inner = said.partition(_INSIDE)
        raise ConfigError(message, path=path + outer.rstrip("`") + inner) from e
    return plan


def targets_of(*parts: Plan | str | None) -> tuple[str, ...]:
    """Return the targets of plans, and targets by name, each once in order of first use."""
    names = (t for part in parts if part is not None for t in ((part,) if isinstance(part, str) else part.targets()))
    return tuple(dict.fromkeys(names))


def name_of(plan: Plan) -> str:
    """Return what to call a plan before people: its target if it is a single call, else its kind and whom it may call."""
    data, targets = to_data(plan), plan.targets()
    if data["kind"] == "single":
        return targets[0]
    return f"{data['kind']}: {', '.join(targets)}"


def final_failure(outcome: Outcome) -> bool:
    """Whether this failed in a way that nobody else may mend or get round (`Failure.elsewhere`): a plan asks nobody after it."""
    return outcome.error is not None and not outcome.error.elsewhere


def calling(outcomes: Iterable[Outcome]) -> Outcome | None:
    """Return the first good answer that calls tools; None if there is none. Such answers stand as they are: they are not voted on, merged or shown."""
    return next((o for o in outcomes if o.ok and o.tool_calls is not None), None)


def saying(outcome: Outcome, text: str, **changes: Any) -> Outcome:
    """Return `outcome` with another text as its answer. The bytes of the call's own reply and its tokens' log-probabilities go: they said
    something else."""
    if text != outcome.text:
        changes = {"reply": b"", "logprobs": None, "first_entropy": None, "tool_calls": None, **changes}
    return replace(outcome, text=text, **changes)


def hook(kind: type[Any], data: Any) -> Any:
    """Decode hook for msgspec: fields typed `Plan` are looked up by kind."""
    if kind is Plan:
        try:
            return decode(data)
        except ConfigError as e:  # msgspec tells where a ValueError came from, and `decode` puts both paths together
            raise ValueError(f"{e.message}{_INSIDE}{e.path.removeprefix('$')}") from e
    raise NotImplementedError(f"cannot decode a {kind}")
