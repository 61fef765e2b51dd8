"""The door: who may come in.

With keys, every path but the page itself and the health checks asks for one (``Authorization: Bearer`` or ``x-api-key``); they are kept
as SHA-256 and compared in constant time against all. Keys are 256 random bits, so a fast hash is enough. 2 µs.

Without keys (loopback only) a web page in the operator's browser must not get in: the Host must be this machine's own, which stops
DNS rebinding, and an Origin, if there is one, must be the gateway itself, which stops cross-site requests.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from fairlead.config import KeyConfig
from fairlead.errors import ConfigError
from fairlead.gateway.refusal import Refused

OPEN: Final = frozenset({"/", "/healthz", "/readyz"})
_HASHED: Final = re.compile(r"sha256:[0-9a-f]{64}")


def new_key() -> str:
    """Make a key."""
    return "fl-" + secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    """Return what the config keeps of a key."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    host = host.strip("[]").lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Caller(Struct, frozen=True, kw_only=True):
    """Whom a key stands for: what it says of tenant, user and roles holds, whatever the request says of itself."""

    key: str
    tenant: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    vouches: bool = False
    """A front end that has checked who asks: it may say the tenant, the user and the roles in headers."""


class Door:
    """Lets requests in.

    Args:
        keys: name -> ``sha256:…``, or a `KeyConfig` with that and what the key says of its holder.
        host: what the gateway is bound to.

    Raises:
        ConfigError: if a key is not hashed, or there is none and others than this machine can come.
    """

    def __init__(self, *, keys: Mapping[str, str | KeyConfig], host: str) -> None:
        described = {name: KeyConfig(hash=key) if isinstance(key, str) else key for name, key in keys.items()}
        for name, key in described.items():
            if not _HASHED.fullmatch(key.hash):
                raise ConfigError(
                    "keys are kept hashed; `fairlead key` makes one and prints the line to write here",
                    path=f"$.gateway.keys.{name}",
                )
        if not keys and not is_loopback(host):
            raise ConfigError(
                f"{host} can be reached from other machines, so a key is needed: `fairlead key` makes one "
                "and prints the line for gateway.keys (or bind to 127.0.0.1)",
                path="$.gateway.keys",
            )
        self.host = host
        self._digests = [bytes.fromhex(k.hash.removeprefix("sha256:")) for k in described.values()]
        self._callers = [
            Caller(key=name, tenant=k.tenant, user=k.user, roles=tuple(k.roles), vouches=k.vouches)
            for name, k in described.items()
        ]

    @property
    def locked(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests)

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Let a request in, or raise `Refused`: 401 without a right key, 403 from a foreign page. Returns whose key it was."""
        if not self._digests:
            self._check_origin(headers)
            return None
        caller = self._caller(headers)
        if caller is None and path not in OPEN:
            raise Refused(
                401,
                "a valid API key is needed: send it as `Authorization: Bearer …` or `x-api-key`",
                code="invalid_api_key",
                headers=[(b"www-authenticate", b"Bearer")],
            )
        return caller

    def _caller(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given = token.strip()
        digest = hashlib.sha256(given).digest()
        # Every key is compared, so that time tells nothing.
        found = [hmac.compare_digest(digest, d) for d in self._digests]
        return self._callers[found.index(True)] if any(found) else None

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if not is_loopback(name) and name != self.host:
            raise Refused(403, "without keys only this machine's own names are served", code="foreign_host")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            raise Refused(403, "without keys no other web page may ask", code="foreign_origin")
