"""The admin API, under ``/admin/``: keys, limits, spend, the audit log, and what is live.

Who may come in says `door.Door.check_admin`. Every change is written to the audit log, in the same transaction where the change is one of the
store: who, from which address, when, what; never a key or its hash. The log's table is append-only. What the endpoints take and give stands in
`openapi.ENDPOINTS`, from which ``GET /openapi.json`` is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from fairlead.config import ScopeConfig
from fairlead.errors import ConfigError, FairleadError, StoreError, suggest
from fairlead.gateway import keys
from fairlead.gateway.keys import Actor, Audited, Change, IssuedKey, Key, KeyRefused, NewKey
from fairlead.gateway.refusal import Refused, of_validation
from fairlead.ledger import Account
from fairlead.store import Connection, Snapshot, Store

if TYPE_CHECKING:
    from fairlead.gateway.app import Gateway

log = logging.getLogger(__name__)

ADMIN: Final = "fairlead.admin"
"""Where the scope of a request to ``/admin`` says who asks."""
MOST_LINES: Final = 1000
"""Lines of the audit log at a time."""

T = TypeVar("T")
Endpoint = tuple[str, str, Callable[[Request], Awaitable[Response]]]


class Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the old key works beside the new one."""

    overlap_seconds: Annotated[float, Meta(ge=0.0, le=keys.MOST_OVERLAP_SECONDS)] = 0.0


class Activation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version is to serve."""

    version: Annotated[int, Meta(ge=1, le=2**53)]


class Drain(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether load balancers are to send nobody any more."""

    on: bool = True


class Draining(Struct, frozen=True, kw_only=True):
    """Whether this process drains, and how many requests for answers are under way."""

    draining: bool
    in_flight: int


class Scoped(ScopeConfig, frozen=True, kw_only=True):
    """What a team or a tenant may use up."""

    scope: str
    source: Literal["config", "store"] = "store"


class KeyList(Struct, frozen=True, kw_only=True):
    """Keys."""

    data: list[Key]
    object: Literal["list"] = "list"


class ScopeList(Struct, frozen=True, kw_only=True):
    """Limits of teams and tenants."""

    data: list[Scoped]
    object: Literal["list"] = "list"


class Spend(Struct, frozen=True, kw_only=True):
    """One account in its present period. Amounts are whole numbers of `unit`."""

    account: str
    """Whose it is and of what: ``key:ann/usd``."""
    unit: Literal["micro_usd", "requests", "tokens", "concurrent"]
    period: str
    window: str
    """Which period: ``2026-11``."""
    limit: int
    spent: int
    held: int
    """Set aside by processes for requests under way and soon to come."""
    left: int
    ends: datetime | None = None
    """When the period ends; null: never."""


class SpendList(Struct, frozen=True, kw_only=True):
    """Accounts."""

    data: list[Spend]
    object: Literal["list"] = "list"


class AuditList(Struct, frozen=True, kw_only=True):
    """Lines of the audit log, newest first."""

    data: list[Audited]
    object: Literal["list"] = "list"


class LiveConfig(Struct, frozen=True, kw_only=True):
    """Which config is live in this process."""

    open: bool
    """Whether whoever reaches it may ask, without any key. It makes no key then."""
    digest: str
    reloads: int
    routes: list[str]
    targets: list[str]


class Reloaded(Struct, frozen=True, kw_only=True):
    """The config that is live now."""

    digest: str
    before: str
    """What was live until now: the same, where nothing has changed."""


class RouteState(Struct, frozen=True, kw_only=True):
    """What serves a route."""

    policy: str
    version: int | None
    digest: str
    versions: list[Snapshot]


class LearnerState(Struct, frozen=True, kw_only=True):
    """What this process's learner did."""

    learned: int
    quarantined: int
    failed: int


class Breaker(Struct, frozen=True, kw_only=True):
    """How a target does, as this process sees it."""

    state: Literal["closed", "open", "half open"]
    resting_seconds: float
    failures_in_a_row: int


class State(Struct, frozen=True, kw_only=True):
    """Versions of each route, the learner and the breakers."""

    routes: dict[str, RouteState]
    learner: LearnerState
    targets: dict[str, Breaker]


class Admin:
    """The endpoints of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def endpoints(self) -> list[Endpoint]:
        """Return method, path and handler of each."""
        return [
            ("GET", "/admin/keys", self.list_keys),
            ("POST", "/admin/keys", self.create_key),
            ("GET", "/admin/keys/{id}", self.show_key),
            ("PATCH", "/admin/keys/{id}", self.change_key),
            ("DELETE", "/admin/keys/{id}", self.revoke_key),
            ("POST", "/admin/keys/{id}/rotate", self.rotate_key),
            ("GET", "/admin/limits", self.list_limits),
            ("GET", "/admin/limits/{scope}", self.show_limits),
            ("PUT", "/admin/limits/{scope}", self.set_limits),
            ("DELETE", "/admin/limits/{scope}", self.drop_limits),
            ("GET", "/admin/spend", self.spend),
            ("GET", "/admin/audit", self.audit),
            ("GET", "/admin/config", self.config),
            ("POST", "/admin/reload", self.reload),
            ("GET", "/admin/state", self.state),
            ("POST", "/admin/routes/{route}/activate", self.activate),
            ("POST", "/admin/drain", self.drain),
        ]

    # ------------------------------------------------------------------------------------------------ keys

    async def list_keys(self, _: Request) -> Response:
        """List all keys, those of the config file first."""
        await self._fresh()
        return _json(KeyList(data=self.gateway.door.keyring.shown()))

    async def show_key(self, request: Request) -> Response:
        """Show one key."""
        await self._fresh()
        return _json(self._key(request.path_params["id"]))

    async def create_key(self, request: Request) -> Response:
        """Make a key; its text is in this answer, and nowhere else ever after.

        An open gateway makes none: its first key would close it to everybody who has none, and the admin API with it, since there would be
        keys and no admin keys. So nobody is locked out by a click, and there is nothing to confirm: an admin key is made first, which takes
        a change of the config. Raises `Refused` (409, ``admin_key_needed``).
        """
        if not self.gateway.door.locked:
            text = (
                "this gateway is open, and its first key would close it to everybody without one, the admin API included; make an admin "
                "key first: `fairlead key new --admin NAME` prints it and its line for gateway.admin_keys; then reload the config"
            )
            raise Refused(409, text, code="admin_key_needed")
        wanted = await self._read(request, NewKey)
        self._known(wanted)
        taken = self.gateway.door.keyring.keys
        issued = await self._change("a key", lambda c: keys.create(c, _actor(request), wanted, taken=taken))
        return _json(issued, status=201)

    async def change_key(self, request: Request) -> Response:
        """Change what a key says or may use up; what is left out stays."""
        wanted, id = await self._read(request, Change), request.path_params["id"]
        self._known(wanted)
        return _json(await self._change("a key", lambda c: keys.change(c, _actor(request), id, wanted)))

    async def rotate_key(self, request: Request) -> Response:
        """Make another key of the same name and accounts; the old one works until the overlap ends."""
        wanted, id = await self._read(request, Rotation, empty=Rotation()), request.path_params["id"]
        issued: IssuedKey = await self._change(
            "a key", lambda c: keys.rotate(c, _actor(request), id, wanted.overlap_seconds)
        )
        return _json(issued, status=201)

    async def revoke_key(self, request: Request) -> Response:
        """Let a key in no more."""
        id = request.path_params["id"]
        return _json(await self._change("a key", lambda c: keys.revoke(c, _actor(request), id)))

    def _key(self, id: str) -> Key:
        for key in self.gateway.door.keyring.shown():
            if key.id == id:
                return key
        raise Refused(404, f"no key has the id {id[:100]!r}", code="key_not_found")

    def _known(self, wanted: NewKey | Change) -> None:
        """Refuse names of routes and targets that are not there."""
        router = self.gateway.router
        targets = list(self.gateway.targets)
        for field, known in (("routes", [*router.policies, *targets]), ("targets", targets)):
            names = getattr(wanted, field)
            for name in names if isinstance(names, list) else ():
                if name not in known:
                    text = f"{field}: no {field.removesuffix('s')} is called {name!r}; {suggest(name, known)}"
                    raise Refused(404, text, code=f"unknown_{field.removesuffix('s')}", param=field)

    # ------------------------------------------------------------------------------------------------ limits and spend

    async def list_limits(self, _: Request) -> Response:
        """List what teams and tenants may use up."""
        await self._fresh()
        return _json(ScopeList(data=[self._scoped(scope) for scope in sorted(self.gateway.door.keyring.scopes)]))

    async def show_limits(self, request: Request) -> Response:
        """Show what a team or tenant may use up."""
        await self._fresh()
        return _json(self._scoped(_scope(request)))

    async def set_limits(self, request: Request) -> Response:
        """Say what a team or tenant may use up, all its keys together."""
        scope, means = _scope(request), await self._read(request, ScopeConfig)
        try:
            keys.check_budgets(means.budgets)
        except ConfigError as e:
            raise Refused(400, f"budgets: {e.message}", code="invalid_value", param="budgets") from e
        self._not_of_config(scope)
        await self._change("limits", lambda c: keys.set_limits(c, _actor(request), scope, means))
        return _json(Scoped(scope=scope, budgets=means.budgets, limits=means.limits))

    async def drop_limits(self, request: Request) -> Response:
        """Let a team or tenant use up what it likes."""
        scope = _scope(request)
        self._not_of_config(scope)
        if not await self._change("limits", lambda c: keys.drop_limits(c, _actor(request), scope)):
            raise _no_limits(scope)
        return Response(status_code=204)

    def _scoped(self, scope: str) -> Scoped:
        keyring = self.gateway.door.keyring
        means = keyring.scopes.get(scope)
        if means is None:
            raise _no_limits(scope)
        source: Literal["config", "store"] = "config" if scope in keyring.limits else "store"
        return Scoped(scope=scope, source=source, budgets=means.budgets, limits=means.limits)

    def _not_of_config(self, scope: str) -> None:
        if scope in self.gateway.door.keyring.limits:
            text = f"{scope} is in the config file: change it there, and POST /admin/reload reads it again"
            raise Refused(409, text, code="limits_of_config")

    async def spend(self, _: Request) -> Response:
        """Show every account of a key, a team or a tenant that has a limit: what is spent, held and left in its present period."""
        await self._fresh()
        store, accounts = self.gateway.router.store, self.gateway.door.keyring.accounts()
        redis, now = self.gateway.redis, time.time()
        kept = accounts if redis is None else [a for a in accounts if a.name.endswith("/usd")]
        found = await asyncio.to_thread(spend, store, kept, now)
        if redis is not None:
            rates = [a for a in accounts if not a.name.endswith("/usd")]
            await redis.rates.look(rates, now=now)
            for account in rates:
                gone = account.limit - redis.rates.left(account, now=now)
                held = account.period == "now"
                found.append(_spend(account, 0 if held else gone, gone if held else 0, now))
        return _json(SpendList(data=found))

    # ------------------------------------------------------------------------------------------------ what is live

    async def audit(self, request: Request) -> Response:
        """List what was changed, newest first."""
        limit = _whole(request, "limit", 100, most=MOST_LINES)
        before = _whole(request, "before", 2**53, most=2**53)
        rows = await self.gateway.router.store.fetch(
            "SELECT seq, at, who, address, what, subject, detail FROM keys_audit WHERE seq < ? ORDER BY seq DESC LIMIT ?",
            (before, limit),
        )
        return _json(AuditList(data=[audited(row) for row in rows]))

    async def config(self, _: Request) -> Response:
        """Say which config is live in this process."""
        gateway = self.gateway
        return _json(
            LiveConfig(
                open=not gateway.door.locked,
                digest=gateway.config_digest,
                reloads=gateway.reloads,
                routes=list(gateway.router.policies),
                targets=list(gateway.targets),
            )
        )

    async def reload(self, request: Request) -> Response:
        """Read the config file again, check it whole, and let it take the place of the live one; other workers follow."""
        before = self.gateway.config_digest
        try:
            digest = await self.gateway.reload(_actor(request))
        except FairleadError as e:
            raise Refused(
                409, f"the config was not reloaded, and the live one serves on: {e}", code="config_error"
            ) from e
        return _json(Reloaded(digest=digest, before=before))

    async def state(self, _: Request) -> Response:
        """Show the versions of each route, the learner and the breakers."""
        router = self.gateway.router

        def versions() -> dict[str, list[Snapshot]]:
            return {route: router.store.versions(route) for route in router.policies}

        found, learner, health = await asyncio.to_thread(versions), router.learner, router.pool.health
        routes = {}
        for route, policy in router.policies.items():
            serving = router.serving.get(route)
            routes[route] = RouteState(
                policy=policy.type_name(),
                version=None if serving is None else serving.version,
                digest="" if serving is None else serving.digest,
                versions=found[route],
            )
        shown = State(
            routes=routes,
            learner=LearnerState(learned=learner.learned, quarantined=learner.quarantined, failed=learner.failed),
            targets={
                t.name: Breaker(
                    state=health.state(t.name),
                    resting_seconds=health.resting(t.name),
                    failures_in_a_row=health.in_a_row.get(t.name, 0),
                )
                for t in router.pool
            },
        )
        return _json(shown)

    async def activate(self, request: Request) -> Response:
        """Let an earlier (or later) version of a route serve, from the next request on."""
        route, wanted = request.path_params["route"], await self._read(request, Activation)
        router = self.gateway.router
        if route not in router.policies:
            raise Refused(
                404, f"no route is called {route[:100]!r}; {suggest(route, router.policies)}", code="route_not_found"
            )

        def work() -> Snapshot:
            there = {s.version: s for s in router.store.versions(route)}
            version = there.get(wanted.version)
            if version is None:
                raise Refused(404, f"route {route!r} has no version {wanted.version}", code="version_not_found")
            if version.pruned:
                raise Refused(409, f"version {wanted.version} was pruned: only its row is kept", code="version_pruned")
            if not router.learner.wait(5.0):  # what is being learned is published before, and not over it
                raise Refused(409, f"route {route!r} is learning now; try again in a moment", code="route_learning")
            resumed = router.resume(route, version=wanted.version)
            if resumed is None:
                raise Refused(
                    409, f"route {route!r} is configured otherwise now; restart the gateway", code="route_changed"
                )
            active = router.store.activate(route, wanted.version)
            router.serving[route] = resumed
            return active

        active = await asyncio.to_thread(work)
        await self.gateway.noted(_actor(request), "route.activate", route, version=wanted.version)
        return _json(active)

    async def drain(self, request: Request) -> Response:
        """Let ``/readyz`` of all workers answer 503, so that load balancers send nobody; who comes all the same is answered."""
        wanted = await self._read(request, Drain, empty=Drain())
        await self.gateway.drain(wanted.on, _actor(request))
        return _json(Draining(draining=wanted.on, in_flight=self.gateway.in_flight))

    # ------------------------------------------------------------------------------------------------ how

    async def _change(self, name: str, work: Callable[[Connection], T]) -> T:
        """Change something in the store, and let this process know of it at once."""
        try:
            done = await self.gateway.router.store.transact(name, work)
        except KeyRefused as e:
            raise Refused(e.status, str(e), code=e.code) from e
        # It is done, and a new key is shown but once: what cannot be read again now is heard of as others hear of it.
        with contextlib.suppress(StoreError):
            await self._fresh()
        return done

    async def _fresh(self) -> None:
        await self.gateway.door.keyring.refresh()

    async def _read(self, request: Request, kind: type[T], *, empty: T | None = None) -> T:
        """Read a body. `empty`: what no body at all stands for."""
        body = await self.gateway.body(request)
        if not body and empty is not None:
            return empty
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as e:
            raise of_validation(e) from e
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise Refused(400, f"the body is not valid JSON: {e}", code="invalid_json") from e


def spend(store: Store, accounts: list[Account], now: float) -> list[Spend]:
    """Return what is spent and held of accounts in their present periods. Blocks. Raises `StoreError`."""
    rows = store.rows("SELECT name, period, spent FROM ledger_accounts WHERE ends > ?", (now,))
    spent = {(str(n), str(p)): int(s) for n, p, s in rows}
    rows = store.rows(
        f"SELECT name, period, sum(amount) FROM ledger_leases WHERE until > {store.now} GROUP BY name, period"
    )
    held = {(str(n), str(p)): int(s) for n, p, s in rows}
    keys = [(account.name, account.window(now)[0]) for account in accounts]
    return [_spend(a, spent.get(key, 0), held.get(key, 0), now) for a, key in zip(accounts, keys, strict=True)]


def _spend(account: Account, spent: int, held: int, now: float) -> Spend:
    window, ends = account.window(now)
    unit = account.name.rpartition("/")[2]
    return Spend(
        account=account.name,
        unit=msgspec.convert(
            "micro_usd" if unit == "usd" else unit, Literal["micro_usd", "requests", "tokens", "concurrent"]
        ),
        period=account.period,
        window=window,
        limit=account.limit,
        spent=spent,
        held=held,
        left=max(0, account.limit - spent - held),
        ends=None if ends == math.inf else datetime.fromtimestamp(ends, UTC),
    )


def audited(row: tuple[Any, ...]) -> Audited:
    """Read a line of the audit log."""
    seq, at, who, address, what, subject, detail = row
    return Audited(
        seq=int(seq),
        at=datetime.fromtimestamp(at, UTC),
        who=who,
        address=address,
        what=what,
        subject=subject,
        detail=msgspec.json.decode(detail),
    )


def _actor(request: Request) -> Actor:
    client = request.scope.get("client")
    return Actor(who=request.scope[ADMIN], address=client[0] if client else "")


def _scope(request: Request) -> str:
    scope: str = request.path_params["scope"]
    try:
        keys.check_scope(scope)
    except ConfigError as e:
        raise Refused(400, e.message, code="invalid_scope", param="scope") from e
    return scope


def _no_limits(scope: str) -> Refused:
    return Refused(404, f"{scope} has no limits", code="limits_not_found")


def _whole(request: Request, name: str, default: int, *, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and 1 <= int(text) <= most):
        raise Refused(400, f"{name} must be a whole number from 1 to {most}", code="invalid_value", param=name)
    return int(text)


def _json(data: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(data), status_code=status, media_type="application/json")
