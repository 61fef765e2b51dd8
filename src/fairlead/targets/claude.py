"""What each generation of Claude accepts, and how a request is fitted to it: shared by every driver that reaches Claude.

Anthropic's format is one, but its models answer 400 to different things: fixed thinking budgets (gone since 4.7), sampling parameters (gone since
4.7), a last turn of the assistant's to go on from (gone since 4.6), a forced tool while they think (always, for some). So what a request
asks for is fitted to the model, and what had to give way is named. A model whose name says nothing is taken for one that accepts everything the format had
at first: other servers speak the format too. As of November 2026, by Anthropic's migration guides; newer models are taken to be like the newest here.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from msgspec import Struct

LEAST_BUDGET: Final = 1024
_NAME: Final = re.compile(
    r"claude-(?:(opus|sonnet|haiku|fable|mythos)-(\d)(?:[-.](\d))?(?!\d)|(\d)(?:[-.](\d))?-(opus|sonnet|haiku))"
)
_LEVELS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_BUDGET: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
"""Thinking tokens for an effort, where a model takes budgets only."""


class Traits(Struct, frozen=True, kw_only=True):
    """What a model accepts."""

    thinking: tuple[str, ...] = ("enabled", "disabled")
    """Values of ``thinking.type``."""
    thinks: bool = False
    """It thinks unless told otherwise."""
    efforts: tuple[str, ...] = ()
    """Levels of ``output_config.effort``, rising."""
    sampling: Literal["all", "one", "none"] = "all"
    """``one``: temperature or top_p, not both. ``none``: neither, nor top_k."""
    prefill: bool = True
    """The last turn may be the assistant's, for the model to go on from."""
    forced: bool = True
    """A tool may be forced, if it does not think."""
    schemas: bool = True
    """Answers and tool calls may be bound to a schema."""


_FOUR: Final = ("low", "medium", "high", "max")
_FIVE: Final = ("low", "medium", "high", "xhigh", "max")


def traits(model: str) -> Traits:
    """Read off a model's name, bare or as Bedrock and Vertex write it, what it accepts."""
    match = _NAME.search(model)
    if match is None:
        return Traits()
    family = match[1] or match[6]
    version = (int(match[2] or match[4]), int(match[3] or match[5] or 0))
    if version < (3, 7):
        return Traits(thinking=(), schemas=False)
    if version < (4, 5):
        return Traits(sampling="one" if version >= (4, 1) else "all", schemas=version >= (4, 1))
    if version < (4, 6):
        return Traits(sampling="one", efforts=_FOUR[:3] if family == "opus" else ())
    if version < (4, 7):
        return Traits(thinking=("adaptive", "enabled", "disabled"), efforts=_FOUR, sampling="one", prefill=False)
    adaptive: tuple[str, ...] = ("adaptive", "disabled")
    if version < (5, 0):
        return Traits(thinking=adaptive, efforts=_FIVE, sampling="none", prefill=False)
    forced = True
    if family in ("fable", "mythos"):
        adaptive, forced = ("adaptive",), version < (5, 1)
    elif version >= (5, 5) and family == "opus":
        adaptive, forced = ("adaptive",), False
    elif version >= (5, 5) and family == "sonnet":
        adaptive, forced = ("adaptive", "between_tools"), False
    return Traits(thinking=adaptive, thinks=True, efforts=_FIVE, sampling="none", prefill=False, forced=forced)


class Fitted(Struct, kw_only=True):
    """How much to think and how to sample, as the model accepts it. What is None is not sent."""

    max_tokens: int
    thinking: dict[str, Any] | None = None
    effort: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    @property
    def on(self) -> bool:
        """Whether it was told to think."""
        return self.thinking is not None and self.thinking["type"] in ("enabled", "adaptive")


def fit(
    fields: dict[str, Any],
    rules: Traits,
    dropped: list[str],
    *,
    max_tokens: int,
    most: int | None,
    blocked: bool,
    unthought: bool,
) -> Fitted:
    """Fit what `fields` say of thinking, limits and sampling to a model; add what gave way to `dropped`.

    `max_tokens` holds where the request names none, `most` is the model's own limit. `blocked`: it must not think, since a tool is forced or
    the answer begun. `unthought`: a tool loop is under way whose thinking is not sent, which models with budgets insist on.
    """
    named = fields.get("max_completion_tokens")
    named = fields.get("max_tokens") if named is None else named
    out = Fitted(max_tokens=max_tokens if named is None else named)
    _wish(fields, rules, dropped, out)
    budgeted = out.thinking is not None and out.thinking["type"] == "enabled"
    if (blocked and (out.on or (out.thinking is None and rules.thinks))) or (unthought and budgeted):
        if out.on:
            dropped.append("thinking")
        out.thinking = off(rules)
    if out.thinking is not None and out.thinking["type"] == "enabled":
        _budget(out, dropped, free=named is None, most=most)
    idle = out.thinking is not None and out.thinking["type"] in ("disabled", "between_tools")
    if idle and rules.thinks and out.effort in ("xhigh", "max"):
        # Thinking can be turned off at high effort and below.
        dropped.append(f"reasoning_effort {out.effort}")
        out.effort = "high"
    _sample(fields, rules, dropped, out)
    return out


def off(rules: Traits) -> dict[str, Any] | None:
    """Return what turns thinking off, or down as far as it goes; None where that is to say nothing."""
    if rules.thinks:
        for kind in ("disabled", "between_tools"):
            if kind in rules.thinking:
                return {"type": kind}
    return None


def _wish(fields: dict[str, Any], rules: Traits, dropped: list[str], out: Fitted) -> None:
    wish, level = fields.get("thinking"), fields.get("reasoning_effort")
    if level is not None and level not in _LEVELS:
        raise ValueError(f"there is no reasoning_effort {level!r}")
    if level == "none":
        wish, level = wish or {"type": "disabled"}, None
    if level is not None and rules.efforts:
        out.effort = _effort(level, rules, dropped)
    if wish is None:
        if level is None:
            return
        if "adaptive" in rules.thinking:
            out.thinking = {"type": "adaptive"}
        elif "enabled" in rules.thinking:
            out.thinking = {"type": "enabled", "budget_tokens": _BUDGET[level]}
        else:
            dropped.append("reasoning_effort")
        return
    kind = wish["type"]
    display = {"display": wish["display"]} if wish.get("display") and kind in ("enabled", "adaptive") else {}
    if level is not None and not rules.efforts and kind != "adaptive":
        dropped.append("reasoning_effort")  # the budget says it
    if kind in rules.thinking:
        budget = {"budget_tokens": wish["budget_tokens"]} if kind == "enabled" else {}
        out.thinking = {"type": kind, **budget, **display}
    elif kind == "enabled" and "adaptive" in rules.thinking:
        dropped.append("thinking.budget_tokens")
        out.thinking = {"type": "adaptive", **display}
        if out.effort is None and rules.efforts:
            budget = wish["budget_tokens"]
            out.effort = "low" if budget < 4096 else "medium" if budget < 16384 else "high"
    elif kind == "adaptive" and "enabled" in rules.thinking:
        dropped.append("thinking.type adaptive")
        out.thinking = {"type": "enabled", "budget_tokens": _BUDGET[level or "medium"], **display}
    elif kind in ("disabled", "between_tools"):
        out.thinking = off(rules)
        if rules.thinks and (out.thinking is None or kind == "between_tools"):
            dropped.append(f"thinking.type {kind}")
        if rules.thinks and out.thinking is None and out.effort is None and rules.efforts:
            out.effort = rules.efforts[0]
    elif kind in ("enabled", "adaptive"):
        dropped.append("thinking")
    else:
        raise ValueError(f"there is no thinking of type {kind!r}")


def _effort(level: str, rules: Traits, dropped: list[str]) -> str:
    """Return the nearest level that the model has, a lower one before a higher."""
    rank = _LEVELS.index(level)
    near = max((e for e in rules.efforts if _LEVELS.index(e) <= rank), key=_LEVELS.index, default=rules.efforts[0])
    if near != level:
        dropped.append(f"reasoning_effort {level}")
    return near


def _budget(out: Fitted, dropped: list[str], *, free: bool, most: int | None) -> None:
    """Make the budget one of at least 1024 tokens that leaves some of `max_tokens` for the answer."""
    thinking = out.thinking
    assert thinking is not None
    asked = budget = max(thinking["budget_tokens"], LEAST_BUDGET)
    if free:
        out.max_tokens = min(budget + out.max_tokens, most or budget + out.max_tokens)
    if budget >= out.max_tokens:
        budget = out.max_tokens - max(1, out.max_tokens // 5)
    if budget < LEAST_BUDGET:
        dropped.append("thinking")
        out.thinking = None
        return
    if budget != asked or asked != thinking["budget_tokens"]:
        dropped.append("thinking.budget_tokens")
    thinking["budget_tokens"] = budget


def _sample(fields: dict[str, Any], rules: Traits, dropped: list[str], out: Fitted) -> None:
    temperature, top_p, top_k = (fields.get(k) for k in ("temperature", "top_p", "top_k"))
    if out.on or rules.sampling != "all":
        # At 1, Claude's own, they ask for nothing.
        temperature = None if temperature == 1 else temperature
        top_p = None if top_p == 1 else top_p
    if rules.sampling == "none":
        given = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        dropped += [k for k, v in given.items() if v is not None]
        return
    if out.on:
        if temperature is not None:
            dropped.append("temperature")
            temperature = None
        if top_k is not None:
            dropped.append("top_k")
            top_k = None
        if top_p is not None and top_p < 0.95:
            dropped.append("top_p")
            top_p = None
    if temperature is not None and temperature > 1.0:
        dropped.append("temperature above 1")
        temperature = 1.0
    if rules.sampling == "one" and temperature is not None and top_p is not None:
        dropped.append("top_p")
        top_p = None
    out.temperature, out.top_p, out.top_k = temperature, top_p, top_k


# ------------------------------------------------------------------------------------------------------------- schemas

_KEPT: Final = frozenset(
    {
        *("$defs", "definitions", "$ref", "type", "anyOf", "allOf", "enum", "const", "description", "title", "default"),
        *("properties", "required", "additionalProperties", "items", "format", "minItems", "pattern"),
    }
)
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)


def closed(schema: Any, dropped: list[str], *, where: str) -> Any:
    """Return `schema` in the part of JSON Schema that answers can be bound to: objects closed, no bounds on numbers or lengths.

    What is taken out is added to `dropped` as ``where.keyword``.
    """
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("$defs", "definitions", "properties"):
            out[key] = {name: closed(s, dropped, where=where) for name, s in value.items()}
        elif key == "items":
            out[key] = closed(value, dropped, where=where)
        elif key in ("anyOf", "allOf", "oneOf"):
            out["anyOf" if key == "oneOf" else key] = [closed(s, dropped, where=where) for s in value]
        elif (
            key not in _KEPT
            or (key == "format" and value not in _FORMATS)
            or (key == "minItems" and value not in (0, 1))
            or (key == "additionalProperties" and value is not False)
        ):
            if key not in ("$schema", "$id", "additionalProperties"):
                dropped.append(f"{where}.{key}")
        else:
            out[key] = value
    kind = out.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in out:
        if schema.get("additionalProperties") not in (None, False):
            dropped.append(f"{where}.additionalProperties")
        out["additionalProperties"] = False
    return out
