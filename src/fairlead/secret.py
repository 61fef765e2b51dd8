"""Secrets by reference: config holds the *name* of an environment variable, and the value is read at the moment of use.

``${NAME}`` (or LiteLLM's ``os.environ/NAME``) is the only way to give a key. A literal is refused, so that no key can end up in a
config file, a spec, a digest, a trace or a log. Ours, no paper.
"""

from __future__ import annotations

import os
import re
from typing import Final

from fairlead.errors import ConfigError

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_KEY_LIKE: Final = re.compile(r"\b(?:sk|pk|rk|gsk|xai)[-_][\w*.\-]{6,}|(?<=Bearer )\S+")


class Secret:
    """The name of an environment variable that holds a secret. Its text forms show the name alone."""

    __slots__ = ("name",)

    def __init__(self, reference: str, *, path: str = "$") -> None:
        """Parse `reference`.

        Raises:
            ConfigError: if it is not a reference (the message does not repeat it).
        """
        match = _REFERENCE.fullmatch(reference.strip())
        if match is None:
            raise ConfigError(
                "a secret must not be written here; put it in an environment variable and write ${NAME_OF_THE_VARIABLE}",
                path=path,
            )
        self.name: str = match[1] or match[2]

    @property
    def reference(self) -> str:
        """The form to write in a config file: ``${NAME}``."""
        return f"${{{self.name}}}"

    def reveal(self, *, path: str = "$") -> str:
        """Read the value now.

        Raises:
            ConfigError: with the variable's name, if it is unset or empty.
        """
        value = os.environ.get(self.name, "").strip()
        if not value:
            raise ConfigError(f"the environment variable {self.name} is not set; export it before you start", path=path)
        return value

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __str__(self) -> str:
        return self.reference

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


def checked(reference: str | None, *, path: str = "$") -> str | None:
    """Return `reference` as ``${NAME}``; None stays None. Raises `ConfigError` for a literal."""
    return None if reference is None else Secret(reference, path=path).reference


def reveal(reference: str, *, path: str = "$") -> str:
    """Read the secret behind `reference` now. Raises `ConfigError` for a literal or an unset variable."""
    return Secret(reference, path=path).reveal(path=path)


def redact(text: str, *secrets: str) -> str:
    """Return `text` without any of `secrets`, and without anything that looks like an API key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[secret]")
    return _KEY_LIKE.sub("[secret]", text)
