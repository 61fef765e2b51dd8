"""A signal of your own, as a Python function. Ours, no paper. Costs what the function costs, and 2 µs.

::

    signals:
      vip: {type: custom, call: "ours.routing:vip", keys: {value: {kind: bool}, spend: {kind: number, low: 0}}}

The function is sync and pure (the same query, the same answer; no clock, no network unless it is `slow`), and returns the value, or a dict
of `value` and parts. What it can say is declared in `keys`, as for any signal: rules are proved from it. It stands in traces: return kinds,
counts and scores, never what was found.

A function that raises, or says what was not declared, says nothing: the reading is marked late, with confidence 0, and the log tells so (the
kind of error or of value, and never its text, which may hold the query's). So a broken signal stops no request; a guard says itself
what it does then (`late`).
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Self

import msgspec

from fairlead.errors import ConfigError
from fairlead.signals.base import TAKEN, Range, Signal, within
from fairlead.types import Query, Reading

log = logging.getLogger(__name__)

_PLAIN: Final = (bool, int, float, str)
"""Not their subclasses, such as numpy's: a trace could not keep them."""


class Custom(Signal):
    """Value and parts: what the function returns; null where it leaves a key out.

    Args:
        call: ``module:function``, importable where Fairlead runs.
        keys: what each key can be, ``value`` and parts by name; every key may be null as well.
        of: what the function is called with: the last user message's text, or the whole `Query` but for the `body`, which goes upstream
            as it is: what a function did to it would be sent.
        slow: whether it may take longer than a millisecond or wait for something. It is then called in a thread.

    Raises:
        ConfigError: at the first reading (or `check`), if there is no such function.
    """

    __slots__ = ("_function",)
    _function: Callable[[Any], Any]

    def __init__(
        self, *, call: str, keys: dict[str, Range], of: Literal["text", "query"] = "text", slow: bool = False
    ) -> None:
        self.call = call
        self.keys = keys
        self.of = of
        self._slow = slow

    @classmethod
    def example(cls) -> Self:
        """The length of a text."""
        return cls(call="builtins:len", keys={"value": Range(kind="int", low=0.0)})

    @property
    def slow(self) -> bool:
        """As it was configured."""
        return self._slow

    def check(self) -> None:
        """Raise `ConfigError` if the function cannot be imported, or no key is declared."""
        module, colon, name = self.call.partition(":")
        if not (module and colon and name):
            raise ConfigError(f"write module:function, not {self.call!r}", path="$.call")
        if not self.keys:
            raise ConfigError("declare what it can say, like {value: {kind: bool}}", path="$.keys")
        for key in self.keys:
            if not key or key in TAKEN - {"value"}:
                why = f"{key!r} means something else in a rule; call the part otherwise" if key else "a part has a name"
                raise ConfigError(why, path=f"$.keys.{key}")
        try:
            found = importlib.import_module(module)
        except Exception as e:  # a module of somebody else's may raise anything
            raise ConfigError(
                f"cannot import {module} ({type(e).__name__}: {e}); is it installed, or on PYTHONPATH?", path="$.call"
            ) from e
        function = getattr(found, name, None)
        if not callable(function):
            raise ConfigError(f"{module} has no function {name!r}", path="$.call")
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{self.call} is async; write a plain function, and `slow: true` if it waits", path="$.call"
            )
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            raise ConfigError(
                f"{self.call} must be a function that one argument is enough for", path="$.call"
            ) from None
        except ValueError:  # of some builtins nobody knows what they take
            pass
        self._function = function

    def ranges(self) -> Mapping[str, Range]:
        """As declared; a function that fails says null."""
        return {key: msgspec.structs.replace(range, null=True) for key, range in self.keys.items()}

    def _read(self, query: Query) -> Reading:
        try:
            function = self._function
        except AttributeError:  # a slot that is not filled yet
            self.check()
            function = self._function
        try:
            said = function(query.text if self.of == "text" else _lent(query))
        except (Exception, SystemExit) as e:  # noqa: BLE001 - the wall around a function that is not ours
            return self._nothing(f"it raised {type(e).__name__}")
        if not isinstance(said, dict):
            said = {"value": said}
        found = {k: v for k, v in said.items() if v is not None}
        for key, value in found.items():
            declared = self.keys.get(key)
            if declared is None:
                return self._nothing("it gave a key that is not declared")
            if type(value) not in _PLAIN:
                return self._nothing(
                    f"{key} is of the type {type(value).__name__}; give a bool, int, float or str of Python's own"
                )
            if not within(value, declared):
                return self._nothing(f"{key} is not as declared")
        value = found.pop("value", None)
        return Reading(value=value, parts=found)

    def _nothing(self, why: str) -> Reading:
        log.warning("the signal %s says nothing: %s", self.call, why)
        return Reading(confidence=0.0, late=True)


def _lent(query: Query) -> Query:
    """Return a copy that can be changed without harm: without the body, and with the wishes copied."""
    wishes = msgspec.structs.replace(query.constraints, prefer=dict(query.constraints.prefer))
    return msgspec.structs.replace(query, body={}, constraints=wishes)
