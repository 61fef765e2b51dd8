"""Guards: what may never happen on a route, whatever its policy would like. Ours, no paper; see docs/decisions/0014.

A guard reads ``{name, when, only, never, do, late}``::

    guards:
      - {name: private, when: {pii.found: true}, only: ["tag:local"], do: [mask]}
      - {name: attack, when: {injection: {ge: 0.65}}, do: [block]}

*Every* guard that holds applies, before the policy is asked: it leaves only the targets that `only` names, takes away those that `never`
names (a name, ``tag:…`` or ``region:…``), and orders the actions in `do`. Without `when` it always holds. What a guard takes away is not
eligible, so no policy, exploration or fallback can turn to it.

A guard that cannot be judged, since a signal it reads was late or broke, **holds** (``late: holds``); with ``late: passes`` it does not.
About 1 µs a guard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal

from msgspec import Struct

from fairlead import conditions
from fairlead.component import digest, pack
from fairlead.conditions import Condition, Named, keys, parse
from fairlead.errors import ConfigError, suggest
from fairlead.pool import Eligibility
from fairlead.types import Signals, Target

KINDS: Final = ("tag", "region")
"""What ``kind:name`` may select targets by, besides their name."""


class Guard(Struct, frozen=True, kw_only=True):
    """One guard, understood."""

    name: str
    when: Condition | None = None
    """None: always."""
    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    do: tuple[str, ...] = ()
    late: Literal["holds", "passes"] = "holds"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of signals that it reads."""
        return () if self.when is None else keys(self.when)

    def forbids(self, target: Target) -> bool:
        """Say whether `target` may not act while this holds."""
        if self.only is not None and not any(selects(s, target) for s in self.only):
            return True
        return any(selects(s, target) for s in self.never)


class Guarded(Struct, frozen=True, kw_only=True):
    """What the guards leave of a query's choice."""

    eligible: Eligibility
    guards: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


class Guards:
    """The guards of one route, in order.

    Args:
        guards: those of every request first.
        orders: where each action nests (`Action.order`), by name; those that rules may order included.
    """

    def __init__(self, guards: Sequence[Guard] = (), *, orders: Mapping[str, int] | None = None) -> None:
        self.guards = tuple(guards)
        self.orders = dict(orders or {})
        self.needs = tuple(dict.fromkeys(k.partition(".")[0] for g in self.guards for k in g.keys))
        """Signals that they read."""
        self._parts = [
            (
                g,
                tuple(dict.fromkeys(k.partition(".")[0] for k in g.keys)),
                conditions.compile(g.when or conditions.All(())),
            )
            for g in self.guards
        ]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Guards:
        """Make again what `data` gave. Raises `ConfigError` if it is something else."""
        try:
            guards = [
                Guard(
                    name=g["name"],
                    when=None if g["when"] is None else parse(g["when"]),
                    only=None if g["only"] is None else tuple(g["only"]),
                    never=tuple(g["never"]),
                    do=tuple(g["do"]),
                    late=g["late"],
                )
                for g in data["guards"]
            ]
            return cls(guards, orders=data["orders"])
        except (KeyError, TypeError, ValueError) as e:
            raise ConfigError(f"these are no guards as they are kept: {e!r}") from e

    @property
    def data(self) -> dict[str, Any]:
        """All of it as builtin data, conditions written out."""
        guards = [
            {
                "name": g.name,
                "when": None if g.when is None else conditions.written(g.when),
                "only": g.only,
                "never": g.never,
                "do": g.do,
                "late": g.late,
            }
            for g in self.guards
        ]
        return {"guards": guards, "orders": self.orders}

    @cached_property
    def digest(self) -> str:
        """Name these guards and the places of the actions; empty if there are neither."""
        return digest(pack(self.data)) if self.guards or self.orders else ""

    def __bool__(self) -> bool:
        return bool(self.guards)

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return each action once, outermost first."""
        return tuple(sorted(dict.fromkeys(names), key=lambda name: self.orders.get(name, 0)))

    def apply(self, signals: Signals, eligible: Eligibility) -> Guarded:
        """Take away what the guards that hold forbid. Who is left may be nobody: the policy's `decide` then refuses."""
        held: list[str] = []
        actions: list[str] = []
        targets, excluded, kinds = eligible.targets, eligible.excluded, eligible.kinds
        readings = signals.readings
        for guard, reads, check in self._parts:
            late = [name for name in reads if (r := readings.get(name)) is None or r.late]
            if late:
                if guard.late == "passes":
                    continue
                why = f"guard {guard.name!r} holds: {', '.join(late)} could not be read in time"
            elif check(signals):
                why = f"guard {guard.name!r} holds"
            else:
                continue
            held.append(guard.name)
            actions += guard.do
            if guard.only is None and not guard.never:
                continue
            gone = [t for t in targets if guard.forbids(t)]
            if gone:
                excluded = excluded | {t.name: why for t in gone}
                kinds = kinds | dict.fromkeys((t.name for t in gone), "guard")
                targets = tuple(t for t in targets if t.name not in excluded)
        if not held:
            return Guarded(eligible=eligible)
        return Guarded(
            eligible=Eligibility(targets=targets, excluded=excluded, kinds=kinds),
            guards=tuple(held),
            actions=tuple(actions),
        )


def selects(selector: str, target: Target) -> bool:
    """Say whether ``name``, ``tag:name`` or ``region:name`` means `target`."""
    kind, colon, name = selector.partition(":")
    if colon and kind == "tag":
        return name in target.profile.tags
    if colon and kind == "region":
        return name in target.profile.regions
    return selector == target.name


_FIELDS: Final = ("name", "when", "only", "never", "do", "late")


def read(data: Any, *, path: str, named: Named | None = None) -> tuple[Guard, ...]:
    """Make guards from builtin data; `named` are conditions by name.

    Raises:
        ConfigError: with the path of what is wrong.
    """
    if not isinstance(data, list | tuple):
        raise ConfigError("guards is a list of guards", path=path)
    found: list[Guard] = []
    for i, item in enumerate(data):
        at = f"{path}[{i}]"
        if not isinstance(item, dict):
            raise ConfigError(
                "a guard is an object, like {name: private, when: {pii.found: true}, do: [mask]}", path=at
            )
        for key in item:
            if key not in _FIELDS:
                raise ConfigError(f"unknown key; {suggest(str(key), _FIELDS)}", path=f"{at}.{key}")
        name = item.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigError("a guard needs a name", path=f"{at}.name")
        if any(g.name == name for g in found):
            raise ConfigError(f"two guards are called {name!r}", path=f"{at}.name")
        if not any(item.get(k) for k in ("only", "never", "do")):
            raise ConfigError("a guard does something: give only, never or do", path=at)
        late = item.get("late", "holds")
        if late not in ("holds", "passes"):
            raise ConfigError("late is holds or passes", path=f"{at}.late")
        found.append(
            Guard(
                name=name,
                when=parse(item["when"], path=f"{at}.when", named=named) if "when" in item else None,
                only=_names(item["only"], f"{at}.only") if item.get("only") is not None else None,
                never=_names(item.get("never", ()), f"{at}.never"),
                do=_names(item.get("do", ()), f"{at}.do"),
                late=late,
            )
        )
    return tuple(found)


def _names(value: Any, path: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
        raise ConfigError("expected a list of names", path=path)
    return tuple(value)
