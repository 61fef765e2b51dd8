"""What signals, predictors, policies and drivers have in common: parameters that can be read back, and learned state.

A component stores each constructor argument under its own name and does no work in its constructor. What it learns from data
lives in attributes that end with an underscore. From that alone follow its spec (how to build it again), its state (what it
has learned), its digest, and a copy of it: learning happens on the copy, and the copy is swapped in whole.

State is a dict of numbers, strings, bytes, arrays, lists and dicts. `pack` and `unpack` turn it into canonical bytes: the same
state always gives the same bytes, so a digest names it. `pack_apart` keeps large arrays apart, under digests of their own, so that a
store need not keep again what a lesson did not change.

What is only worked out from parameters and state (a cache) is kept in a slot (`__slots__`), not in `__dict__`: it is no part of a copy,
and a component that serves may fill it while a learner copies that component in another thread.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self, TypeAlias, final

import msgspec
import numpy as np

from fairlead.errors import StateError

State: TypeAlias = dict[str, Any]

LARGE = 16_384
"""Arrays of more bytes than this are kept apart."""

_ARRAY, _APART = 1, 2
_encoder = msgspec.msgpack.Encoder(enc_hook=lambda o: _encode_array(o), order="deterministic")
_decoder = msgspec.msgpack.Decoder(ext_hook=lambda code, data: _decode_array(code, data))


def pack(state: Any) -> bytes:
    """Encode state as canonical bytes (MessagePack; arrays as dtype, shape and raw bytes).

    Raises:
        StateError: for a value that is not a number, string, bytes, array, list, dict or struct.
    """
    try:
        return _encoder.encode(state)
    except (TypeError, NotImplementedError) as e:
        raise StateError(f"state cannot be stored: {e}") from e


def unpack(data: bytes | memoryview) -> Any:
    """Decode what `pack` wrote. Raises `StateError` if it did not."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, TypeError) as e:
        raise StateError(f"not packed state: {e}") from e


def pack_apart(state: Any) -> tuple[bytes, dict[str, bytes]]:
    """Encode state as `pack` does, but with the digest of each large array in its place; return that, and the arrays by digest.

    Raises:
        StateError: as `pack`.
    """
    apart: dict[str, bytes] = {}

    def hook(o: Any) -> Any:
        whole = _encode_array(o)
        if not isinstance(o, np.ndarray) or o.nbytes <= LARGE:
            return whole
        name = digest(whole.data)
        apart[name] = whole.data
        return msgspec.msgpack.Ext(_APART, bytes.fromhex(name))

    try:
        return msgspec.msgpack.Encoder(enc_hook=hook, order="deterministic").encode(state), apart
    except (TypeError, NotImplementedError) as e:
        raise StateError(f"state cannot be stored: {e}") from e


def unpack_apart(data: bytes | memoryview, find: Callable[[str], bytes]) -> Any:
    """Decode what `pack_apart` wrote, or `pack`.

    Args:
        data: the state without its large arrays.
        find: gives the bytes of an array by their digest. What it raises goes through.

    Raises:
        StateError: if it is neither.
    """

    def hook(code: int, data: memoryview) -> Any:
        return _decode_array(_ARRAY, memoryview(find(data.hex()))) if code == _APART else _decode_array(code, data)

    try:
        return msgspec.msgpack.Decoder(ext_hook=hook).decode(data)
    except (msgspec.DecodeError, ValueError, TypeError) as e:
        raise StateError(f"not packed state: {e}") from e


def digest(data: bytes) -> str:
    """Name some bytes: the first 32 hex digits (128 bits) of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def finite(state: Any) -> bool:
    """Say whether every number in `state` is finite."""
    match state:
        case float():
            return math.isfinite(state)
        case np.ndarray():
            return state.dtype.kind not in "fc" or bool(np.isfinite(state).all())
        case np.floating():
            return bool(np.isfinite(state))
        case dict():
            return all(finite(v) for v in state.values())
        case list() | tuple():
            return all(finite(v) for v in state)
    return True


def _encode_array(o: Any) -> Any:
    if isinstance(o, np.ndarray):
        if o.dtype.kind not in "biufS":
            raise TypeError(f"array of dtype {o.dtype}; use numbers or a list of strings")
        head = msgspec.msgpack.encode((o.dtype.str, o.shape))
        return msgspec.msgpack.Ext(_ARRAY, len(head).to_bytes(2, "big") + head + np.ascontiguousarray(o).tobytes())
    if isinstance(o, np.generic):
        return o.item()
    raise TypeError(f"a {type(o).__name__}")


def _decode_array(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code}")
    n = int.from_bytes(data[:2], "big")
    dtype, shape = msgspec.msgpack.decode(data[2 : 2 + n])
    return np.frombuffer(data[2 + n :], dtype=dtype).reshape(shape).copy()


class Component:
    """Base of the open families. Abstract or final: a family has one base class, its members are final."""

    family: ClassVar[str] = ""
    online: ClassVar[bool] = True
    """Whether learning from single answers can change it."""
    paths: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that are paths of files: in a config, relative ones start from its folder."""
    mergeable: ClassVar[bool] = False
    """Whether `merge` of two halves equals the whole."""

    @property
    def still(self) -> tuple[str, ...]:
        """Names of parameters whose components this never teaches, though they could learn."""
        return ()

    @classmethod
    def type_name(cls) -> str:
        """The name in the catalogue, which is the name of the file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def example(cls) -> Self:
        """Return a small member to check: without arguments, unless a class needs some. Opens and calls nothing."""
        return cls()

    def params(self) -> dict[str, Any]:
        """Constructor arguments, as they are set now."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def spec(self) -> dict[str, Any]:
        """How to build this again: ``{"type": name, **arguments}``, nested components and structs likewise."""
        return {"type": self.type_name(), **{k: _spec_value(v) for k, v in self.params().items()}}

    def state(self) -> State:
        """What was learned: every attribute ending in an underscore, and the state of nested components."""
        out: State = {k: v for k, v in vars(self).items() if _is_learned(k)}
        for name, part in self._parts().items():
            out[name] = part.state() if isinstance(part, Component) else {k: v.state() for k, v in part.items()}
        return out

    def load(self, state: State) -> None:
        """Take over learned state as `state` gave it. What is not in it is as a new component has it, here and in what is nested.

        Raises:
            StateError: if a key belongs to nothing here; nothing is changed then.
        """
        self._fits(state)
        self._take(state)

    def _fits(self, state: State) -> None:
        """Raise `StateError` if `state` is not of this component or of what is nested in it."""
        if not isinstance(state, dict):
            raise StateError(f"the state of {self.type_name()} is a mapping, not a {type(state).__name__}")
        mine, parts = self._learnable(), self._parts()
        for key, value in state.items():
            if key in mine:
                continue
            if key not in parts:
                raise StateError(f"{self.type_name()} has nothing named {key!r} to load state into")
            match parts[key]:
                case Component() as part:
                    part._fits(value)
                case named:
                    if not isinstance(value, dict) or not value.keys() <= named.keys():
                        raise StateError(f"{self.type_name()}.{key} is made of other components than this state")
                    for k, v in value.items():
                        named[k]._fits(v)

    def _take(self, state: State) -> None:
        fresh = vars(type(self)(**self.params()))
        for key in [k for k in vars(self) if _is_learned(k) and k not in state]:
            if key in fresh:
                setattr(self, key, fresh[key])
            else:
                delattr(self, key)
        for key, value in state.items():
            if _is_learned(key):
                setattr(self, key, value)
        for key, part in self._parts().items():
            value = state.get(key, {})
            if isinstance(part, Component):
                part.load(value)
            else:
                for k, v in part.items():
                    v.load(value.get(k, {}))

    def _learnable(self) -> set[str]:
        """Names that learned attributes may have: those that a class declares, and those that are there."""
        declared = (name for cls in type(self).__mro__ for name in inspect.get_annotations(cls))
        return {name for name in (*declared, *vars(self)) if _is_learned(name)}

    def _parts(self) -> dict[str, Component | dict[str, Component]]:
        """Nested components by the name of their parameter; several in one parameter by key or place."""
        out: dict[str, Component | dict[str, Component]] = {}
        for name, value in self.params().items():
            match value:
                case Component():
                    out[name] = value
                case dict() if any(isinstance(v, Component) for v in value.values()):
                    out[name] = {k: v for k, v in value.items() if isinstance(v, Component)}
                case tuple() if any(isinstance(v, Component) for v in value):
                    out[name] = {str(i): v for i, v in enumerate(value) if isinstance(v, Component)}
        return out

    def check(self) -> None:
        """Raise `ConfigError`, paths from ``$``, if this cannot serve as it is configured. Looks at itself, not at what is nested."""

    def walk(self, path: str = "$") -> Iterator[tuple[str, Component]]:
        """Yield this component and all nested ones, each with its path."""
        yield path, self
        for name, value in self.params().items():
            match value:
                case Component():
                    yield from value.walk(f"{path}.{name}")
                case dict():
                    for k, v in value.items():
                        if isinstance(v, Component):
                            yield from v.walk(f"{path}.{name}.{k}")
                case tuple():
                    for i, v in enumerate(value):
                        if isinstance(v, Component):
                            yield from v.walk(f"{path}.{name}[{i}]")

    def copy(self) -> Self:
        """Return an independent copy, state and all."""
        return copy.deepcopy(self)

    def copy_to_teach(self) -> Self:
        """Return a copy to be taught from single answers, and for nothing else: it shares the parts that this never changes."""
        taught: set[int] = set()
        shared: dict[int, Any] = {}
        self._sort(taught, shared)
        return copy.deepcopy(self, {key: part for key, part in shared.items() if key not in taught})

    def _sort(self, taught: set[int], shared: dict[int, Any]) -> None:
        """Note this component and those nested in it as taught, or else as shared. One that stands at two places may be both."""
        taught.add(id(self))
        still = self.still
        for name, parts in self._parts().items():
            for part in parts.values() if isinstance(parts, dict) else (parts,):
                if name in still or not part.online:
                    shared[id(part)] = part
                else:
                    part._sort(taught, shared)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: not what is in slots."""
        return vars(self)

    def digest(self) -> str:
        """Name this component as it is now: the same spec and state give the same digest on every machine."""
        return digest(pack([self.spec(), self.state()]))

    @final
    def merge(self, other: Self) -> None:
        """Add what `other` learned since the same start (the constructor's priors) to what this has learned.

        Raises:
            StateError: if the two have different arguments (another objective, another prior), so that what they learned does not add
                up, or if the method does not promise it (`mergeable` is False).
        """
        if other.spec() != self.spec():
            raise StateError(
                f"this {self.type_name()} cannot take over what a {other.type_name()} of other arguments learned; configure both alike"
            )
        self._merge(other)

    def _merge(self, other: Self) -> None:
        """Do what `merge` says; `other` has the same arguments."""
        raise StateError(f"{self.type_name()} cannot be merged; elect one learner instead")

    def decay(self, keep: float) -> None:
        """Forget: weigh everything learned so far by `keep` in (0, 1]."""

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v!r}" for k, v in self.params().items())
        return f"{type(self).__name__}({inner})"


def _is_learned(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")


def _spec_value(value: Any) -> Any:
    match value:
        case Component():
            return value.spec()
        case dict():
            return {k: _spec_value(v) for k, v in value.items()}
        case list() | tuple():
            return [_spec_value(v) for v in value]
    return msgspec.to_builtins(value, order="deterministic")
