"""The door: who may come in.

With keys (`keys.py`), every path but the page itself, the health checks and the API's description asks for one (``Authorization: Bearer`` or
``x-api-key``); ``/admin`` asks for an admin key, which opens nothing else.

Without keys (loopback only) a web page in the operator's browser must not get in: the Host must be this machine's own, which stops
DNS rebinding, and an Origin, if there is one, must be the gateway itself, which stops cross-site requests. The same holds for ``/admin`` then;
where there are keys and no admin keys, it is not there.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from fairlead.config import KeyConfig, ScopeConfig
from fairlead.errors import ConfigError
from fairlead.gateway.keys import HASHED, Keyring
from fairlead.gateway.keys import Caller as Caller
from fairlead.gateway.keys import hashed as hashed
from fairlead.gateway.keys import new_key as new_key
from fairlead.gateway.refusal import Refused
from fairlead.store import Store

OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
CALLER: Final = "fairlead.caller"
"""Where the scope of a request says whose key it came with."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    host = host.strip("[]").lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Door:
    """Lets requests in.

    Args:
        keys: name -> ``sha256:…``, or a `KeyConfig` with that and what the key says of its holder.
        host: what the gateway is bound to.
        admin_keys: name -> ``sha256:…``.
        limits: ``team:NAME`` or ``tenant:NAME`` -> what it may use up.
        store: where further keys are kept; None: there are none.

    Raises:
        ConfigError: if a key is not hashed, or there is none and others than this machine can come.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, str | KeyConfig],
        host: str,
        admin_keys: Mapping[str, str] | None = None,
        limits: Mapping[str, ScopeConfig] | None = None,
        store: Store | None = None,
    ) -> None:
        self.keyring = Keyring(keys=keys, limits=limits, store=store)
        self.host = host
        self.admins = _admins(admin_keys or {})
        _check_reach(host, keys, self.admins)

    def configure(
        self,
        *,
        keys: Mapping[str, str | KeyConfig],
        admin_keys: Mapping[str, str],
        limits: Mapping[str, ScopeConfig],
    ) -> None:
        """Take a new config's keys in place of the old one's; the store's stay. Raises `ConfigError`, and then changes nothing."""
        admins = _admins(admin_keys)
        _check_reach(self.host, keys, admins)
        self.keyring.configure(keys, limits)
        self.admins = admins

    @property
    def locked(self) -> bool:
        """Whether a key is needed."""
        return bool(self.admins) or self.keyring.locked

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Let a request in, or raise `Refused`: 401 without a right key, 403 from a foreign page. Returns whose key it was."""
        if not self.locked:
            self._check_origin(headers)
            return None
        try:
            caller = self.keyring.find(_given(headers))
        except Refused:
            if path not in OPEN:
                raise
            return None
        if caller is None and path not in OPEN:
            raise Refused(
                401,
                # Some clients (LiteLLM) know a wrong key by these first words, which are OpenAI's.
                "Incorrect API key provided, or none: send a valid one as `Authorization: Bearer …` or `x-api-key`",
                code="invalid_api_key",
                headers=[(b"www-authenticate", b"Bearer")],
            )
        return caller

    def check_admin(self, path: str, headers: Mapping[bytes, bytes]) -> str:
        """Let a request to ``/admin`` in and return who asks: an admin key's name, or ``loopback``.

        Raises:
            Refused: 401 without a right admin key; 404 where there are keys and no admin keys; 403 from a foreign page.
        """
        if self.admins:
            who = self.admins.get(hashlib.sha256(_given(headers)).digest())
            if who is None:
                raise Refused(
                    401,
                    "a valid admin key is needed: send it as `Authorization: Bearer …` or `x-api-key`",
                    code="invalid_admin_key",
                    headers=[(b"www-authenticate", b"Bearer")],
                )
            return who
        if self.locked:
            raise Refused(404, f"nothing is at {path}", code="not_found")
        self._check_origin(headers)
        return "loopback"

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if not is_loopback(name) and name != self.host:
            raise Refused(403, "without keys only this machine's own names are served", code="foreign_host")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            raise Refused(403, "without keys no other web page may ask", code="foreign_origin")


def _given(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key that a request brings, or nothing."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def _admins(keys: Mapping[str, str]) -> dict[bytes, str]:
    for name, key in keys.items():
        if not HASHED.fullmatch(key):
            text = "keys are kept hashed; `fairlead key new --admin` makes one and prints the line to write here"
            raise ConfigError(text, path=f"$.gateway.admin_keys.{name}")
    return {bytes.fromhex(key.removeprefix("sha256:")): name for name, key in keys.items()}


def _check_reach(host: str, keys: Mapping[str, object], admins: Mapping[bytes, str]) -> None:
    if not (keys or admins) and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, so a key is needed: `fairlead key new` makes one "
            "and prints the line for gateway.keys (or bind to 127.0.0.1)",
            path="$.gateway.keys",
        )
