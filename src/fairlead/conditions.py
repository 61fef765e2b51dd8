"""The language of rules: Boolean conditions over signals. Ours; nesting and the fuzzy reading as in vLLM Semantic Router (2026, arXiv 2603.04444).

A condition maps a key, ``signal`` or ``signal.part``, to the value it must equal or to tests on it (``eq ne gt ge lt le in``); several
keys, or several tests, must all hold; ``all``, ``any`` and ``not`` nest::

    {length.tokens: {gt: 4000}}
    {all: [{marks.code: true}, {not: {language: {in: [han, kana]}}}]}

Logic has two values, so De Morgan's laws hold: what was not read, or is not a number, is neither greater nor less than anything, and
unequal to everything but null. A truth value never equals a number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from msgspec import Struct

from fairlead.errors import ConfigError, suggest
from fairlead.types import Scalar, Signals


class Test(Struct, frozen=True):
    """A leaf: the value at `key` stands in the relation `op` to `value`."""

    __test__ = False
    key: str
    op: str
    value: Any


class All(Struct, frozen=True):
    """Every part holds."""

    parts: tuple[Condition, ...]


class AnyOf(Struct, frozen=True):
    """Some part holds."""

    parts: tuple[Condition, ...]


class Not(Struct, frozen=True):
    """The part does not hold."""

    part: Condition


Condition: TypeAlias = Test | All | AnyOf | Not


_NUMERIC: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_OPERATORS: Final = (*_NUMERIC, "eq", "ne", "in")


def parse(data: Any, *, path: str = "$") -> Condition:
    """Make a condition from builtin data.

    Raises:
        ConfigError: with the path of what is wrong.
    """
    if not isinstance(data, dict) or not data:
        raise ConfigError("a condition is an object with at least one key, like {length.tokens: {gt: 4000}}", path=path)
    parts: list[Condition] = []
    for key, value in data.items():
        at = f"{path}.{key}"
        if key in ("all", "any"):
            if not isinstance(value, list | tuple) or not value:
                raise ConfigError(f"{key!r} takes a list of one or more conditions", path=at)
            inner = tuple(parse(v, path=f"{at}[{i}]") for i, v in enumerate(value))
            parts.append(All(inner) if key == "all" else AnyOf(inner))
        elif key == "not":
            parts.append(Not(parse(value, path=at)))
        elif not isinstance(key, str) or not all(key.partition(".")[::2] if "." in key else (key,)):
            raise ConfigError("a key is a signal's name, or signal.part", path=at)
        else:
            parts += _tests(key, value, at)
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def holds(condition: Condition, signals: Signals) -> bool:
    """Say whether `condition` is true of `signals`."""
    match condition:
        case Test(key, op, value):
            return _passes(signals.get(key), op, value)
        case All(parts):
            return all(holds(p, signals) for p in parts)
        case AnyOf(parts):
            return any(holds(p, signals) for p in parts)
        case Not(part):
            return not holds(part, signals)


def keys(condition: Condition) -> tuple[str, ...]:
    """Name the keys that `condition` reads, each once, in the order written."""
    match condition:
        case Test(key):
            return (key,)
        case All(parts) | AnyOf(parts):
            return tuple(dict.fromkeys(k for p in parts for k in keys(p)))
        case Not(part):
            return keys(part)


def _tests(key: str, value: Any, path: str) -> list[Condition]:
    if not isinstance(value, dict):
        _check_scalar(value, path, "use {in: [ … ]} for one of several values")
        return [Test(key, "eq", value)]
    if not value:
        raise ConfigError(f"give a value or a test: {', '.join(_OPERATORS)}", path=path)
    for op, operand in value.items():
        at = f"{path}.{op}"
        if op not in _OPERATORS:
            raise ConfigError(f"unknown test {op!r}; {suggest(str(op), _OPERATORS)}", path=at)
        if op in _NUMERIC and not _is_number(operand):
            raise ConfigError(f"{op!r} compares with a number", path=at)
        if op == "in":
            if not isinstance(operand, list | tuple) or not operand:
                raise ConfigError("'in' takes a list of one or more values", path=at)
            for i, v in enumerate(operand):
                _check_scalar(v, f"{at}[{i}]", "values are plain")
        elif op in ("eq", "ne"):
            _check_scalar(operand, at, "values are plain")
    return [Test(key, op, tuple(v) if op == "in" else v) for op, v in value.items()]


def _check_scalar(value: Any, path: str, advice: str) -> None:
    if not isinstance(value, bool | int | float | str | None):
        raise ConfigError(f"this is neither a string, a number, true, false nor null; {advice}", path=path)


def _passes(found: Scalar, op: str, value: Any) -> bool:
    match op:
        case "eq":
            return _equal(found, value)
        case "ne":
            return not _equal(found, value)
        case "in":
            return any(_equal(found, v) for v in value)
    return _is_number(found) and _NUMERIC[op](found, value)


def _equal(a: Scalar, b: Scalar) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
