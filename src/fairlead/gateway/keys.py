"""Keys: whom each stands for, what it may ask for, and what it may use up. Those of the config file, and those of the store.

Keys of the store are made, changed, rotated and revoked while the gateway runs (`admin.py`, ``fairlead key``); keys of the file are changed in the
file. Of a key its SHA-256 is kept, and its first eight characters to tell it by. A key's name is its own for ever: traces, feedback and accounts
go by it. To *rotate* a key makes another one of the same name, with the same accounts; the old one works until the overlap ends.

`Keyring` is one process's view of all of them, a dict by digest. A counter in the store moves with every change; each process looks at it once a
second, and, so that a new key works at once on every replica, when a key comes that it does not know: for all such keys together once a second at
most, so that a flood of bad keys is none for the database. While the store is gone the keys that are known go on working.

Timing. Whatever is sent is hashed once and looked up once. How long a lookup takes depends on the digest, which nobody can choose without
inverting SHA-256, so it tells nothing of the keys that there are; keys are 256 random bits, so a fast hash is enough. 0.4 µs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from fairlead.config import BudgetConfig, KeyConfig, LimitsConfig, ScopeConfig
from fairlead.errors import ConfigError, FairleadError, StoreError
from fairlead.gateway.limits import Rates
from fairlead.gateway.refusal import Refused
from fairlead.ledger import Account, micros
from fairlead.store import Connection, Store

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
"""From one look at the store's counter to the next."""
SHOWN: Final = 8
"""Characters of a key that may be shown."""
NAME: Final = re.compile(r"[\w.@-]{1,64}")
SCOPE: Final = re.compile(r"(team|tenant):[^/\x00-\x1f\x7f-\x9f]{1,100}")
HASHED: Final = re.compile(r"sha256:[0-9a-f]{64}")

TABLES: Final = """
CREATE TABLE IF NOT EXISTS keys_issued(
  id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, prefix TEXT NOT NULL, body TEXT NOT NULL, created REAL NOT NULL,
  expires REAL, revoked REAL, replaced_by TEXT);
CREATE INDEX IF NOT EXISTS keys_issued_to ON keys_issued(name);
CREATE TABLE IF NOT EXISTS keys_limits(scope TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS keys_changes(name TEXT PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS keys_audit(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, address TEXT NOT NULL, what TEXT NOT NULL, subject TEXT NOT NULL,
  detail TEXT NOT NULL);
"""

Word = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^/\x00-\x1f\x7f-\x9f]+$")]
Names = Annotated[list[Word], Meta(max_length=1000)]
Budgets = Annotated[list[BudgetConfig], Meta(max_length=3)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=32)
]


def new_key() -> str:
    """Make a key."""
    return "fl-" + secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    """Return what is kept of a key."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------ what a key says


class Caller(Struct, frozen=True, kw_only=True):
    """Whom a key stands for: what it says of tenant, user and roles holds, whatever the request says of itself."""

    key: str
    tenant: str | None = None
    user: str | None = None
    roles: tuple[str, ...] = ()
    vouches: bool = False
    """A front end that has checked who asks: it may say the tenant, the user and the roles in headers."""
    team: str | None = None
    routes: frozenset[str] | None = None
    """What may be asked for as ``model``; None: all."""
    targets: frozenset[str] | None = None
    """Who may act; None: all."""
    limits: Rates | None = None
    """The rates of the key, its team and its tenant; None: none has any."""
    accounts: tuple[Account, ...] = ()
    """Who pays: the budgets of the key, its team and its tenant."""

    @property
    def limited(self) -> bool:
        """Whether there are routes or targets that it may not ask for: it is shown only what it may (`sight.py`)."""
        return self.routes is not None or self.targets is not None

    def may_act(self, target: str) -> bool:
        """Whether `target` may act for it."""
        return self.targets is None or target in self.targets

    def may_ask(self, model: str, targets: Container[str]) -> bool:
        """Whether `model`, a route or one of `targets`, may be asked for."""
        if self.routes is not None and model not in self.routes:
            return False
        return self.targets is None or model not in targets or model in self.targets


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What a key says of its holder, and what it may use up."""

    tenant: Word | None = None
    team: Word | None = None
    user: Word | None = None
    roles: Names = []
    vouches: bool = False
    routes: Names | None = None
    """What may be asked for as ``model``; null: all."""
    targets: Names | None = None
    """Who may act; null: all."""
    budgets: Budgets = []
    limits: LimitsConfig = LimitsConfig()
    metadata: Metadata = {}


class NewKey(Grant, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new key is to be."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")]
    expires: Annotated[datetime, Meta(tz=True)] | None = None


class Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to change of a key; what is left out stays."""

    tenant: Word | UnsetType | None = UNSET
    team: Word | UnsetType | None = UNSET
    user: Word | UnsetType | None = UNSET
    roles: Names | UnsetType = UNSET
    vouches: bool | UnsetType = UNSET
    routes: Names | UnsetType | None = UNSET
    targets: Names | UnsetType | None = UNSET
    budgets: Budgets | UnsetType = UNSET
    limits: LimitsConfig | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    expires: Annotated[datetime, Meta(tz=True)] | UnsetType | None = UNSET


class Key(Grant, frozen=True, kw_only=True):
    """A key as it is shown: never itself, nor its hash."""

    id: str
    name: str
    prefix: str = ""
    """Its first characters; empty for a key of the config file."""
    source: Literal["config", "store"] = "store"
    created: datetime | None = None
    expires: datetime | None = None
    revoked: datetime | None = None
    replaced_by: str | None = None
    """The id of the key that it was rotated to."""


class IssuedKey(Key, frozen=True, kw_only=True):
    """A new key, and the only time that it is shown."""

    key: str


class Audited(Struct, frozen=True, kw_only=True):
    """One line of the audit log."""

    seq: int
    at: datetime
    who: str
    """The admin key's name; ``loopback`` where there is none, ``cli:USER`` for the command line."""
    address: str
    what: str
    """Such as ``key.create``."""
    subject: str
    detail: dict[str, Any] = {}


class Actor(Struct, frozen=True, kw_only=True):
    """Who changes something, for the audit log."""

    who: str
    address: str = ""


class KeyRefused(FairleadError):
    """What was asked of a key cannot be done: there is none, or it is not in the state for it."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def check_new(wanted: NewKey | Change) -> None:
    """Raise `KeyRefused` (400) for what types alone do not say."""
    given = msgspec.structs.asdict(wanted)
    words = [given.get(f) for f in ("tenant", "team", "user", "name")]
    words += [w for f in ("roles", "routes", "targets") if isinstance(given[f], list) for w in given[f]]
    for word in words:
        if isinstance(word, str) and word.endswith("\n"):  # where a pattern's `$` matches, too
            raise KeyRefused(f"{word!r} is no name: it ends in a new line", status=400, code="invalid_value")
    try:
        check_budgets(given["budgets"] if isinstance(given["budgets"], list) else ())
    except ConfigError as e:
        raise KeyRefused(f"budgets: {e.message}", status=400, code="invalid_value") from e


def check_scope(scope: str) -> None:
    """Raise `ConfigError` unless `scope` is ``team:NAME`` or ``tenant:NAME``."""
    if not SCOPE.fullmatch(scope):
        raise ConfigError(f"{scope!r} is no scope; write team:NAME or tenant:NAME, without a '/'")


def check_budgets(budgets: Sequence[BudgetConfig]) -> None:
    """Raise `ConfigError` if two budgets are for the same period."""
    periods = [b.period for b in budgets]
    if len(set(periods)) < len(periods):
        raise ConfigError("two budgets have the same period; name one for each of day, month and total")


def accounts_of(whose: str, budgets: Iterable[BudgetConfig]) -> tuple[Account, ...]:
    """Return the accounts of money of `whose` (``key:ann``)."""
    return tuple(Account(name=f"{whose}/usd", period=b.period, limit=micros(b.usd)) for b in budgets)


def rates_of(whose: str, limits: LimitsConfig) -> Rates:
    """Return the accounts of rates of `whose`."""

    def account(what: str, period: Literal["minute", "now"], limit: int | None) -> tuple[Account, ...]:
        return () if limit is None else (Account(name=f"{whose}/{what}", period=period, limit=limit),)

    return Rates(
        requests=account("requests", "minute", limits.requests_per_minute),
        tokens=account("tokens", "minute", limits.tokens_per_minute),
        concurrent=account("concurrent", "now", limits.concurrent),
    )


# ------------------------------------------------------------------------------------------------------ the keyring


class _Kept(Struct, frozen=True, kw_only=True):
    """What a digest leads to."""

    caller: Caller | None
    until: float = math.inf
    revoked: bool = False


_NOBODY: Final = _Kept(caller=None)


class Keyring:
    """All keys, as one process knows them.

    Args:
        keys: of the config file: name -> ``sha256:…`` or a `KeyConfig`.
        limits: of the config file: ``team:NAME`` or ``tenant:NAME`` -> what it may use up.
        store: where further keys are kept; None: there are none. Make the keyring before it is started.

    Raises:
        ConfigError: with the path of what is wrong.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, str | KeyConfig],
        limits: Mapping[str, ScopeConfig] | None = None,
        store: Store | None = None,
    ) -> None:
        self.store = store
        self.issued = False
        """Whether the store has any key, also one that is revoked: the door does not open by itself when the last one goes."""
        self.kept: dict[bytes, _Kept] = {}
        self.callers: dict[str, Caller] = {}
        """By name: for what is answered later on behalf of a key."""
        self.lasts: dict[str, float] = {}
        """Until when each holds, by name."""
        self.scopes: dict[str, ScopeConfig] = {}
        self._means: dict[str, tuple[Rates, tuple[Account, ...]]] = {}
        """The accounts of each scope, made once: the ledger knows an account by its identity."""
        self._rows: list[tuple[Key, str]] = []
        self._own: dict[str, ScopeConfig] = {}
        self._seen: int | None = None
        self._looked = -math.inf
        self._looking: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self._poller: asyncio.Task[None] | None = None
        self._gone = False
        self.configure(keys, limits or {})
        if store is not None:
            store.tables(TABLES, append_only=("keys_audit",))

    def configure(self, keys: Mapping[str, str | KeyConfig], limits: Mapping[str, ScopeConfig]) -> None:
        """Take the config file's keys and limits in place of those there were. Raises `ConfigError`, and then changes nothing."""
        described = {name: KeyConfig(hash=key) if isinstance(key, str) else key for name, key in keys.items()}
        for name, key in described.items():
            at = f"$.gateway.keys.{name}"
            if not HASHED.fullmatch(key.hash):
                text = "keys are kept hashed; `fairlead key new` makes one and prints the line to write here"
                raise ConfigError(text, path=at)
            _at(f"{at}.budgets", check_budgets, key.budgets)
            for kind in ("team", "tenant"):
                if (name_ := getattr(key, kind)) is not None and f"{kind}:{name_}" in limits:
                    _at(f"{at}.{kind}", check_scope, f"{kind}:{name_}")
        for scope, means in limits.items():
            _at(f"$.gateway.limits.{scope}", check_scope, scope)
            _at(f"$.gateway.limits.{scope}.budgets", check_budgets, means.budgets)
        self.keys, self.limits = described, dict(limits)
        self._fill()

    # ------------------------------------------------------------------------------------------------ asking it

    @property
    def locked(self) -> bool:
        """Whether there is, or ever was, a key."""
        return bool(self.keys) or self.issued

    def find(self, given: bytes) -> Caller | None:
        """Return whom a key stands for; None if it is not known.

        Raises:
            Refused: 401 if it has expired or was revoked.
        """
        kept = self.kept.get(hashlib.sha256(given).digest(), _NOBODY)
        if kept.until < math.inf and kept.until <= time.time():
            raise Refused(401, "this key has expired; ask for a new one", code="key_expired", retry=False)
        if kept.revoked:
            raise Refused(401, "this key was revoked; ask for a new one", code="key_revoked", retry=False)
        return kept.caller

    def caller(self, name: str) -> Caller | None:
        """Return whom the key called `name` stands for; None if there is none, or it has expired or was revoked."""
        return self.callers.get(name) if self.lasts.get(name, math.inf) > time.time() else None

    def on_behalf(self, caller: Caller, tenant: str) -> Caller:
        """Return `caller`, a front end, as it asks for `tenant`: that one's limits hold, and its budgets pay."""
        means = self._means.get(f"tenant:{tenant}")
        if means is None:
            return caller
        limits, accounts = (caller.limits or Rates()) + means[0], caller.accounts + means[1]
        return msgspec.structs.replace(caller, limits=limits or None, accounts=accounts)

    def shown(self) -> list[Key]:
        """Return every key as it may be shown: those of the file, then those of the store, oldest first."""
        own = [_of_config(name, key) for name, key in self.keys.items()]
        return own + [key for key, _ in self._rows]

    def accounts(self) -> list[Account]:
        """Return every account that has a limit, those of a name and a period once, by name."""
        found: dict[tuple[str, str], Account] = {}
        each: list[tuple[str, KeyConfig | Key | ScopeConfig]] = []
        each += [(f"key:{key.name}", key) for key, _ in self._rows if key.revoked is None]
        each += [(f"key:{name}", key) for name, key in self.keys.items()]
        for whose, has in (*each, *self.scopes.items()):
            rates = rates_of(whose, has.limits)
            for account in (*accounts_of(whose, has.budgets), *rates.requests, *rates.tokens, *rates.concurrent):
                found[account.name, account.period] = account
        return [found[key] for key in sorted(found)]

    # ------------------------------------------------------------------------------------------------ keeping it fresh

    async def start(self) -> None:
        """Read the store's keys, and go on looking for changes."""
        if self.store is not None:
            await self.refresh()
            self._poller = asyncio.create_task(self._poll(), name="fairlead-keys")

    async def stop(self) -> None:
        """Look no more."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
            self._poller = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.refresh()
            except StoreError:
                pass  # it is logged
            except Exception:  # the wall of polling: without it this process would never hear of a revoked key
                log.exception("the look for changed keys broke; it is tried again")

    async def look(self) -> bool:
        """Look for keys that others have made since: at most once in `POLL_SECONDS`, whoever asks. Say whether that was done."""
        if self._looking is None:
            now = time.monotonic()
            if self.store is None or now - self._looked < POLL_SECONDS:
                return False
            self._looked = now
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(self._looking)  # whoever comes meanwhile waits for the same
        return True

    async def _look(self) -> None:
        try:
            with contextlib.suppress(StoreError):
                await self.refresh()
        finally:
            self._looking = None

    async def refresh(self) -> bool:
        """Read all keys again if something has changed; say whether it has. Raises `StoreError`, which is logged once."""
        if self.store is None:
            return False
        async with self._reading:
            try:
                found = await self.store.fetch("SELECT n FROM keys_changes WHERE name = 'keys'")
                seen = int(found[0][0]) if found else 0
                if seen == self._seen:
                    changed = False
                else:
                    issued = await self.store.fetch(f"SELECT {_COLUMNS}, digest FROM keys_issued ORDER BY created, id")
                    limits = await self.store.fetch("SELECT scope, body FROM keys_limits")
                    self._rows = [(key, str(row[-1])) for row in issued if (key := _readable(row)) is not None]
                    self._own = {str(s): msgspec.json.decode(body, type=ScopeConfig) for s, body in limits}
                    self._seen, changed = seen, True
                    self._fill()
            except (StoreError, msgspec.DecodeError) as e:
                if not self._gone:
                    log.error("the store's keys cannot be read, those that are known go on working: %s", e)
                self._gone = True
                raise StoreError(str(e)) from e
            if self._gone:
                log.warning("the store's keys can be read again")
            self._gone = False
            return changed

    def _fill(self) -> None:
        """Make what is looked up of the file's keys and the store's; the file's hold where both say something."""
        self.scopes = {**self._own, **self.limits}
        self._means = {s: (rates_of(s, m.limits), accounts_of(s, m.budgets)) for s, m in self.scopes.items()}
        kept: dict[bytes, _Kept] = {}
        callers: dict[str, Caller] = {}
        lasts: dict[str, float] = {}
        for key, digest in self._rows:
            if key.name in self.keys:
                log.warning("the key %s is in the config file and in the store; they share their accounts", key.name)
            caller = self._caller(key.name, key)
            until = math.inf if key.expires is None else key.expires.timestamp()
            kept[bytes.fromhex(digest)] = _Kept(caller=caller, until=until, revoked=key.revoked is not None)
            if key.revoked is None:
                callers[key.name] = caller
                lasts[key.name] = max(until, lasts.get(key.name, -math.inf))
        for name, own in self.keys.items():
            caller = callers[name] = self._caller(name, own)
            until = math.inf if own.expires is None else _utc(own.expires).timestamp()
            kept[bytes.fromhex(own.hash.removeprefix("sha256:"))] = _Kept(caller=caller, until=until)
            lasts[name] = until
        self.lasts = lasts
        self.kept, self.callers, self.issued = kept, callers, bool(self._rows)

    def _caller(self, name: str, key: KeyConfig | Grant) -> Caller:
        rates = rates_of(f"key:{name}", key.limits)
        accounts = accounts_of(f"key:{name}", key.budgets)
        for scope in (f"team:{key.team}" if key.team else "", f"tenant:{key.tenant}" if key.tenant else ""):
            means = self._means.get(scope)
            if means is not None:
                rates += means[0]
                accounts += means[1]
        return Caller(
            key=name,
            tenant=key.tenant,
            user=key.user,
            roles=tuple(key.roles),
            vouches=key.vouches,
            team=key.team,
            routes=None if key.routes is None else frozenset(key.routes),
            targets=None if key.targets is None else frozenset(key.targets),
            limits=rates or None,
            accounts=accounts,
        )


def _at(path: str, check: Callable[[Any], None], value: Any) -> None:
    try:
        check(value)
    except ConfigError as e:
        raise ConfigError(e.message, path=path) from e


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _of_config(name: str, key: KeyConfig) -> Key:
    same = {f: getattr(key, f) for f in Grant.__struct_fields__ if f != "metadata"}
    return Key(id=f"config:{name}", name=name, source="config", expires=key.expires and _utc(key.expires), **same)


# ------------------------------------------------------------------------------------------------------ changing the store

_COLUMNS: Final = "id, name, prefix, body, created, expires, revoked, replaced_by"


_LAST: Final = 2.5e11
"""Unix time of the year 9892: the last that every platform can read back."""
MOST_OVERLAP_SECONDS: Final = 31 * 86400.0
"""How long a key may work beside the one that it was rotated to."""


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(min(max(at, 0.0), _LAST), UTC)


def _seconds(moment: datetime | None) -> float | None:
    """Return Unix time, of years that every platform can read back."""
    return None if moment is None else min(max(moment.timestamp(), 0.0), _LAST)


def _key(row: Sequence[Any]) -> Key:
    id, name, prefix, body, created, expires, revoked, replaced_by = row[:8]
    grant = msgspec.json.decode(body, type=Grant)
    return Key(
        id=id,
        name=name,
        prefix=prefix,
        created=_moment(created),
        expires=_moment(expires),
        revoked=_moment(revoked),
        replaced_by=replaced_by,
        **{f: getattr(grant, f) for f in Grant.__struct_fields__},
    )


def _readable(row: Sequence[Any]) -> Key | None:
    """Read a key; None, and a line of the log, if that cannot be: it lets nobody in, and the others go on working."""
    try:
        return _key(row)
    except (ValueError, OverflowError, OSError, TypeError) as e:
        log.error("the key %s of the store cannot be read, and lets nobody in: %s", row[0], e)
        return None


def _grant(source: Any) -> str:
    """Write what is kept of a key's grant."""
    return msgspec.json.encode(Grant(**{f: getattr(source, f) for f in Grant.__struct_fields__})).decode()


def one(connection: Connection, id: str) -> Key:
    """Read a key. Raises `KeyRefused` if there is none."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM keys_issued WHERE id = ?", (id,)).fetchone()
    if row is None:
        if id.startswith("config:"):
            text = "keys of the config file are changed in the file, which POST /admin/reload reads again"
            raise KeyRefused(text, status=409, code="key_of_config")
        raise KeyRefused(f"no key has the id {id[:100]!r}", status=404, code="key_not_found")
    return _key(row)


def note(connection: Connection, actor: Actor, what: str, subject: str, **detail: Any) -> None:
    """Write a line of the audit log."""
    connection.execute(
        "INSERT INTO keys_audit(at, who, address, what, subject, detail) VALUES (?, ?, ?, ?, ?, ?)",
        (time.time(), actor.who, actor.address, what, subject, msgspec.json.encode(detail).decode()),
    )


def _changed(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO keys_changes(name, n) VALUES ('keys', 1) ON CONFLICT(name) DO UPDATE SET n = keys_changes.n + 1"
    )


def create(connection: Connection, actor: Actor, wanted: NewKey, *, taken: Iterable[str] = ()) -> IssuedKey:
    """Make a key. `taken`: names of the config file's keys. Raises `KeyRefused` if the name is another's, or was."""
    check_new(wanted)
    there = connection.execute("SELECT 1 FROM keys_issued WHERE name = ?", (wanted.name,)).fetchone()
    if there is not None or wanted.name in taken:
        text = f"a key is called {wanted.name!r}, or was; traces and accounts go by its name: rotate it, or choose another name"
        raise KeyRefused(text, status=409, code="key_name_taken")
    expires = _seconds(wanted.expires)
    issued = _issue(connection, wanted.name, _grant(wanted), expires)
    note(connection, actor, "key.create", issued.id, name=issued.name, **_said(wanted))
    return issued


def _issue(connection: Connection, name: str, body: str, expires: float | None) -> IssuedKey:
    id, secret, now = f"key_{secrets.token_hex(8)}", new_key(), time.time()
    digest = hashed(secret).removeprefix("sha256:")
    row = (id, name, secret[:SHOWN], body, now, expires, None, None)
    connection.execute(
        f"INSERT INTO keys_issued({_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, digest)
    )
    _changed(connection)
    key = _key(row)
    return IssuedKey(key=secret, **{f: getattr(key, f) for f in Key.__struct_fields__})


def change(connection: Connection, actor: Actor, id: str, wanted: Change) -> Key:
    """Change what a key says or may use up. Raises `KeyRefused` if there is none, or it was revoked."""
    check_new(wanted)
    key = _live(one(connection, id))
    given = _given(wanted)
    key = msgspec.structs.replace(key, **given)
    expires = _seconds(key.expires)
    connection.execute("UPDATE keys_issued SET body = ?, expires = ? WHERE id = ?", (_grant(key), expires, id))
    _changed(connection)
    note(connection, actor, "key.change", id, name=key.name, **_said(wanted))
    return key


def rotate(connection: Connection, actor: Actor, id: str, overlap_seconds: float) -> IssuedKey:
    """Make another key of the same name; this one works for `overlap_seconds` more. Raises `KeyRefused`."""
    if not 0.0 <= overlap_seconds <= MOST_OVERLAP_SECONDS:
        text = f"the overlap is a number of seconds, from 0 to {MOST_OVERLAP_SECONDS:.0f} (31 days)"
        raise KeyRefused(text, status=400, code="invalid_overlap")
    key = _live(one(connection, id))
    if key.replaced_by is not None:
        raise KeyRefused(f"this key was rotated already, to {key.replaced_by}", status=409, code="key_replaced")
    expires = _seconds(key.expires)
    if expires is not None and expires <= time.time():
        text = "this key has expired, and so would the one that it is rotated to: give it a later `expires` first"
        raise KeyRefused(text, status=409, code="key_expired")
    issued = _issue(connection, key.name, _grant(key), expires)
    until = time.time() + overlap_seconds
    until = until if expires is None else min(until, expires)
    connection.execute("UPDATE keys_issued SET expires = ?, replaced_by = ? WHERE id = ?", (until, issued.id, id))
    note(connection, actor, "key.rotate", id, name=key.name, replaced_by=issued.id, overlap_seconds=overlap_seconds)
    return issued


def revoke(connection: Connection, actor: Actor, id: str) -> Key:
    """Let a key in no more. A second time changes nothing. Raises `KeyRefused` if there is none."""
    key = one(connection, id)
    if key.revoked is None:
        now = time.time()
        connection.execute("UPDATE keys_issued SET revoked = ? WHERE id = ?", (now, id))
        _changed(connection)
        note(connection, actor, "key.revoke", id, name=key.name)
        key = msgspec.structs.replace(key, revoked=_moment(now))
    return key


def set_limits(connection: Connection, actor: Actor, scope: str, means: ScopeConfig) -> None:
    """Say what a team or tenant may use up."""
    connection.execute(
        "INSERT INTO keys_limits(scope, body) VALUES (?, ?) ON CONFLICT(scope) DO UPDATE SET body = excluded.body",
        (scope, msgspec.json.encode(means).decode()),
    )
    _changed(connection)
    note(connection, actor, "limits.set", scope, **msgspec.to_builtins(means))


def drop_limits(connection: Connection, actor: Actor, scope: str) -> bool:
    """Let a team or tenant use up what it likes; say whether it was limited."""
    dropped = connection.execute("DELETE FROM keys_limits WHERE scope = ?", (scope,)).rowcount > 0
    if dropped:
        _changed(connection)
        note(connection, actor, "limits.drop", scope)
    return dropped


def _live(key: Key) -> Key:
    if key.revoked is not None:
        raise KeyRefused("this key was revoked; make another one", status=409, code="key_revoked")
    return key


def _given(wanted: Change) -> dict[str, Any]:
    return {f: v for f in Change.__struct_fields__ if (v := getattr(wanted, f)) is not UNSET}


def _said(wanted: NewKey | Change) -> dict[str, Any]:
    """What the audit log tells of a key: all but what its holder wrote into it, of which only the names."""
    said = msgspec.to_builtins(wanted)
    said.pop("name", None)
    if "metadata" in said:
        said["metadata"] = sorted(said["metadata"])
    return {k: v for k, v in said.items() if v not in (None, [], {}, False) or isinstance(wanted, Change)}
