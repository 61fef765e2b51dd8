"""From builtin data to components: the one builder behind config files and stored specs.

A component is written as its catalogue name, or as ``{type: name, argument: value, …}``: constructor arguments, one to one. What an
argument's annotation says decides how its value is read: another component is built, a plan is decoded, a struct is converted. An
unknown key, a missing argument or a wrong value is a `ConfigError` with the path of the key.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairlead import catalog
from fairlead.component import Component, unpack
from fairlead.errors import ConfigError, StateError, UnknownName, suggest
from fairlead.plans.base import decode, hook
from fairlead.types import Plan


def build(family: str, spec: Any, *, path: str = "$", **given: Any) -> Any:
    """Build one component.

    Args:
        family: its family in the catalogue, such as ``policies``.
        spec: its name, or a mapping with ``type`` and constructor arguments.
        path: where `spec` stands, for messages.
        given: arguments that the caller sets itself, such as a target's name.

    Raises:
        ConfigError: with the path of what is wrong.
    """
    if isinstance(spec, str):
        spec = {"type": spec}
    if not isinstance(spec, Mapping):
        raise ConfigError(f"expected a name or a mapping, not {_show(spec)}", path=path)
    if family in TRAINED and set(spec) == {"trained"}:
        return trained(spec["trained"], family=family, path=f"{path}.trained")
    name = spec.get("type")
    if not isinstance(name, str):
        raise ConfigError(f'"type" is missing; known in {family}: {", ".join(catalog.names(family))}', path=path)
    try:
        kind = catalog.find(family, name)
    except UnknownName as e:
        raise ConfigError(str(e), path=f"{path}.type") from e
    except ImportError as e:
        raise ConfigError(
            f"{name} needs a package that is not installed ({e.name}): {_install(family)}", path=path
        ) from e
    arguments = {k: v for k, v in spec.items() if k != "type"}
    return construct(kind, arguments, path=path, **given)


TRAINED = {
    "predictors": ("predictor.msgpack", "predictor", "fairlead train"),
    "policies": ("policy.msgpack", "policy", "fairlead calibrate"),
    "signals": ("signal.msgpack", "signal", "fairlead train-signal"),
}
"""Families whose members can be kept in a folder: the file in it, what it is, the command that writes it."""


def trained(folder: Any, *, family: str = "predictors", path: str = "$") -> Any:
    """Load what ``fairlead train``, ``calibrate`` or ``train-signal … -o folder`` wrote: a predictor, a policy or a signal.

    Raises:
        ConfigError: if there is none, or it does not fit this version.
    """
    name, what, command = TRAINED[family]
    file = Path(str(folder)) / name
    try:
        spec, state = unpack(file.read_bytes())
    except OSError as e:
        raise ConfigError(f"no trained {what} in {folder}; make one with `{command}`", path=path) from e
    except (StateError, ValueError, TypeError) as e:
        raise ConfigError(f"{file} was not written by `{command}`; make it anew", path=path) from e
    component = build(family, spec, path=path)
    try:
        component.load(state)
    except StateError as e:
        raise ConfigError(f"{file} does not fit ({e}); make it anew with `{command}`", path=path) from e
    return component


def construct(kind: type[Any], arguments: Any, *, path: str, **given: Any) -> Any:
    """Call a keyword-only constructor, a component's or a struct's, with builtin data; each value is read by its annotation."""
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"expected a mapping, not {_show(arguments)}", path=path)
    # Asked of the class, not of its __init__: a class without one of its own takes nothing, and says so here.
    parameters = dict(inspect.signature(kind).parameters)
    hints = typing.get_type_hints(kind if issubclass(kind, msgspec.Struct) else kind.__init__, include_extras=True)
    built: dict[str, Any] = dict(given)
    for key, value in arguments.items():
        at = f"{path}.{key}"
        if key not in parameters or key in given:
            raise ConfigError(f"unknown key; {suggest(str(key), set(parameters) - set(given))}", path=at)
        built[key] = convert(value, hints.get(key, Any), path=at)
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in built]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}", path=path)
    try:
        return kind(**built)
    except ConfigError as e:
        raise ConfigError(e.message, path=path + e.path.removeprefix("$")) from e


def convert(value: Any, kind: Any, *, path: str) -> Any:
    """Read builtin data as `kind`: components, plans and structs are built, containers are entered, the rest is msgspec's."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(value, inside, path=path)
    if _own(kind) and isinstance(value, kind):
        return value
    if isinstance(kind, type) and issubclass(kind, Component):
        # Of a family with one member only, such as features, the type goes without saying.
        only = isinstance(value, Mapping) and "type" not in value and not inspect.isabstract(kind)
        return construct(kind, value, path=path) if only else build(kind.family, value, path=path)
    if kind is Plan:
        return decode(value, path=path)
    if _own(kind):
        return construct(kind, value, path=path)
    if origin in (tuple, list) and any(_inside_own(k) for k in inside):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"expected a list, not {_show(value)}", path=path)
        return origin(convert(v, inside[0], path=f"{path}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping) and _inside_own(inside[1]):
        if not isinstance(value, Mapping):
            raise ConfigError(f"expected a mapping, not {_show(value)}", path=path)
        return {k: convert(v, inside[1], path=f"{path}.{k}") for k, v in value.items()}
    try:
        return msgspec.convert(value, kind, dec_hook=hook)
    except msgspec.ValidationError as e:
        message, _, inner = str(e).partition(" - at `$")
        raise ConfigError(message, path=path + inner.rstrip("`")) from e


def _union(value: Any, members: tuple[Any, ...], *, path: str) -> Any:
    if value is None and type(None) in members:
        return None
    members = tuple(m for m in members if m is not type(None))
    own = [m for m in members if _inside_own(m)]
    plain = [m for m in members if m not in own]
    # What a plain member takes exactly (a target's name, say) is not tried as a component or plan.
    if plain and (not own or not isinstance(value, Mapping)):
        union: Any = typing.Union[tuple(plain)]  # noqa: UP007 - made at run time
        try:
            return msgspec.convert(value, union, dec_hook=hook)
        except msgspec.ValidationError as e:
            if not own:
                raise ConfigError(str(e).partition(" - at `$")[0], path=path) from None
    for member in own[:-1]:
        component = isinstance(member, type) and issubclass(member, Component)
        if isinstance(value, Mapping) and ("type" in value) == component:
            return convert(value, member, path=path)
    return convert(value, own[-1], path=path)


def _own(kind: Any) -> bool:
    """Whether `kind` is a component, a plan or a struct that stands for itself (a tagged one is part of a union)."""
    if not isinstance(kind, type):
        return False
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.tag is None
    return kind is Plan or issubclass(kind, Component)


def _inside_own(kind: Any) -> bool:
    """Whether such a kind is anywhere inside."""
    return _own(kind) or any(_inside_own(k) for k in typing.get_args(kind))


def _show(value: Any) -> str:
    return f"{type(value).__name__} {value!r}" if isinstance(value, str | int | float | bool) else type(value).__name__


def _install(family: str) -> str:
    return f"pip install 'fairlead[{'gateway' if family == 'targets' else 'bench'}]'"
