"""Who asks: tenant, user, session, key and roles, as the edge knows them. Ours, no paper. About 1 µs.

`key` and `roles` are set by the edge and can be trusted. `tenant` and `user` are what the key stands for, or, where the key leaves them open, what the
request says of itself: a guard that must hold tests the key or a role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fairlead.errors import ConfigError
from fairlead.signals.base import TAKEN, YES_NO, Law, Range, Signal, alike
from fairlead.types import Query, Reading

_NAMES: Final = ("tenant", "user", "key")
_OWN: Final = frozenset({*TAKEN, *_NAMES, "session"})


class Identity(Signal):
    """Value: the name of the key that let the request in; null without one.

    Parts: `tenant`, `user` and `key` by name (null: not known), `session` (yes: the request belongs to one), and each of `roles`, yes
    or no.

    Args:
        roles: that a rule may ask for.

    Raises:
        ConfigError: by `check`, for a role that is empty, there twice, or called like a part.
    """

    def __init__(self, *, roles: Sequence[str] = ()) -> None:
        self.roles = roles

    def check(self) -> None:
        """Raise `ConfigError` for roles that cannot be parts."""
        for i, role in enumerate(self.roles):
            if not role.strip() or role in _OWN or role in self.roles[:i]:
                why = "means something else here; call it otherwise" if role in _OWN else "is empty, or there twice"
                raise ConfigError(f"the role {role!r} {why}", path=f"$.roles[{i}]")

    def ranges(self) -> Mapping[str, Range]:
        """Names, and yes or no."""
        names = dict.fromkeys(("value", *_NAMES), Range(kind="string", null=True))
        return {**names, "session": YES_NO, **dict.fromkeys(self.roles, YES_NO)}

    def laws(self) -> Sequence[Law]:
        """The value is the key."""
        return (alike({"value": None}, {"key": None}),)

    def _read(self, query: Query) -> Reading:
        who = query.identity
        parts: dict[str, bool | int | float | str] = {"session": who.session is not None}
        for name, value in zip(_NAMES, (who.tenant, who.user, who.key), strict=True):
            if value is not None:
                parts[name] = value
        parts.update((role, role in who.roles) for role in self.roles)
        return Reading(value=who.key, parts=parts)
