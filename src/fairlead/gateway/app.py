"""The gateway: a router behind HTTP, as one ASGI application.

======================================  ==================================================================
``POST /v1/chat/completions``           the OpenAI chat API; `model` is a route or a target (`edge.py`, `faces/`)
``GET /v1/models``                      the routes and the targets
``POST /v1/feedback``                   a judgement of an answer
``POST /v1/route``                      a dry run: what would be decided, and why; calls nobody, keeps nothing
``GET /v1/traces``, ``/v1/traces/{id}`` what was decided, answered and judged
``GET /v1/stats``, ``/v1/decisions``    sums for the page, and what it searches among (`page.py`)
``GET /``                               the page
``GET /healthz``, ``/readyz``           the process is up; it can answer
``GET /metrics``                        Prometheus
======================================  ==================================================================

The faces' paths are matched before Starlette sees the request; the rest is Starlette's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from time import perf_counter
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from fairlead import chain, rewards
from fairlead.actions.mask import Mask, masked_later
from fairlead.config import Config, GatewayConfig, StoreConfig
from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget, StoreError, UnknownName
from fairlead.explain import explain
from fairlead.gateway import keys, logs, telemetry, watched
from fairlead.gateway import read as reading
from fairlead.gateway.admin import ADMIN, Admin
from fairlead.gateway.batches import INSIDE
from fairlead.gateway.door import CALLER, Caller, Door
from fairlead.gateway.edge import Edge, Exchange, Vigil, header_map
from fairlead.gateway.faces import messages
from fairlead.gateway.faces.base import Face, query_id
from fairlead.gateway.faces.chat import Chat
from fairlead.gateway.faces.completions import Completions
from fairlead.gateway.faces.embeddings import Embeddings
from fairlead.gateway.faces.responses import Responses, not_found
from fairlead.gateway.figures import busy, fallbacks
from fairlead.gateway.kept import Kept
from fairlead.gateway.keys import Actor
from fairlead.gateway.limits import Keeper, TooMany
from fairlead.gateway.metrics import CONTENT_TYPE, Metrics, Place, Sharing
from fairlead.gateway.page import Page
from fairlead.gateway.refusal import Headers, Refused, of_validation, respond
from fairlead.gateway.shared import Shared
from fairlead.gateway.shelf import Shelf
from fairlead.gateway.sight import Sight, told
from fairlead.gateway.stats import SEED, Stats
from fairlead.router import Router
from fairlead.sqlstore import SQLStore
from fairlead.store import Receipt
from fairlead.types import Feedback, FeedbackKind, Query, Target, Trace
from fairlead.version import VERSION

log = logging.getLogger(__name__)
SIGNAL: Final = Actor(who="signal")
"""Who reloads on SIGHUP: an operator, or the parent of several workers of which another was asked to."""

MOST_TRACES: Final = 1000
MOST_SEARCHED: Final = 20_000
"""Newest traces among which those of one tenant are looked for."""
MOST_CORRECTED: Final = 20_000
"""Characters: comparing two texts takes the product of their lengths."""


KINDS: Final[tuple[FeedbackKind, ...]] = ("label", "correction", "rating", "test", "judge", "reask", "abandon")
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


RETIRE_SECONDS: Final = 600.0
"""How long requests that a reload found under way may take to end …"""
DRAIN_SECONDS: Final = 10.0
"""… once the gateway stops."""


class Judgement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/feedback``: a value, or one of the other kinds, which a value overrides."""

    id: str | None = None
    response_id: str | None = None
    value: Share | None = None
    label: str | None = None
    correction: str | None = None
    rating: float | None = None
    of: float = 5.0
    lowest: float = 1.0
    """Ends of the rating's scale."""
    test: bool | Share | None = None
    """Passed, or the share that passed."""
    judge: Share | None = None
    reask: bool | None = None
    abandon: bool | None = None
    source: Annotated[str, Meta(min_length=1, max_length=200)] = "user"
    confidence: Share | None = None
    """None: as its kind has it."""


class Gateway:
    """A router and its HTTP edge. Use it with ``async with``, or let its server's lifespan events open and close it.

    Args:
        router: not yet started.
        settings: of the HTTP edge.
        text: whether the page may show prompts.
        config: what they were made of.
        load: reads the config again, for a reload.
        place: which worker this is, among several.
        tell: tells the parent of several workers what the others are to do too: "reload", "drain" or "resume".

    Raises:
        ConfigError: if others than this machine could come in without a key.
    """

    def __init__(
        self,
        *,
        router: Router,
        settings: GatewayConfig,
        text: bool = True,
        config: Config | None = None,
        load: Callable[[], Config] | None = None,
        place: Place | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.router, self.settings = router, settings
        self.config, self.load, self.tell = config, load, tell
        self.config_digest = "" if config is None else config.digest
        self.reloads = 0
        self._reloading = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Router] = {}
        """What stops each router whose place another took."""
        self.door = Door(
            keys=settings.keys,
            host=settings.host,
            admin_keys=settings.admin_keys,
            limits=settings.limits,
            store=router.store,
        )
        self.in_flight = 0
        """Requests for answers under way."""
        self.vigil = Vigil()
        self.draining = False
        """Whether load balancers are told to send nobody any more."""
        self.redis = None if settings.redis is None else Shared(settings.redis, lambda: self.router.pool)
        self.admin = Admin(self)
        self.metrics = Metrics(lambda: self.config_digest)
        self.sharing = (
            None if place is None else Sharing(self.metrics, router.store, run=place.run, worker=place.worker)
        )
        self.telemetry = telemetry.of(
            settings.telemetry,
            driver=lambda name: self.router.world.drivers.get(name),
            text=text,
            worker=None if place is None else place.worker,
        )
        try:
            self.stats = Stats(pool=router.pool, routes=router.policies, strongest=settings.strongest, text=text)
        except UnknownName as e:
            raise ConfigError(str(e), path="$.gateway.strongest") from e
        self.opened = False
        self.began = time.time()
        store = router.store
        keep_seconds = None
        if isinstance(store, SQLStore) and store.retention_days is not None:
            keep_seconds = 86400.0 * store.retention_days
        self.kept = kept = Kept(store, retention_seconds=keep_seconds) if text else None
        self.keep_seconds = keep_seconds
        self.responses = Responses(kept=kept, most_bytes=settings.max_body_bytes)
        self.faces: tuple[Face, ...] = (Chat(), self.responses, messages.Messages(), Completions(), Embeddings())
        self._edges = {face.path: Edge(self, face) for face in self.faces}
        self.shelf = Shelf(self)
        self.page = Page(self, place=place)
        self._rest = self._routes()
        watched.watch(self)

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        load: Callable[[], Config] | None = None,
        place: Place | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Gateway:
        """Make the gateway of a config; the rest is as the class has it."""
        return cls(
            router=config.router(),
            settings=config.gateway,
            text=config.file.store.text,
            config=config,
            load=load,
            place=place,
            tell=tell,
        )

    @property
    def faces_by_path(self) -> Mapping[str, Face]:
        """What answers, by path."""
        return {face.path: face for face in self.faces}

    def rates(self, router: Router) -> Keeper | None:
        """Return who counts the rates of requests to `router`."""
        return router.ledger if self.redis is None else self.redis.rates

    @property
    def targets(self) -> Mapping[str, Target]:
        """Who can act now, by name: targets may join and leave while it serves."""
        return self.router.pool.by_name

    # ------------------------------------------------------------------------------------------------ its life

    async def __aenter__(self) -> Gateway:
        if self.telemetry is not None:
            self.telemetry.start()
        try:
            if self.redis is not None:
                await self.redis.start()
            await self.router.start()
        except BaseException:
            if self.redis is not None:
                await self.redis.stop()
            if self.telemetry is not None:
                await asyncio.to_thread(self.telemetry.stop)
            raise
        if self.sharing is not None:
            await self.sharing.start()
        await self.door.keyring.start()
        await self.shelf.batches.start()
        shared = self.page.shared
        counted = None if shared is None else await shared.begin()
        stats = await asyncio.to_thread(self._seeded, self.stats, math.inf if shared is None else shared.began)
        if counted is not None:
            stats.take_up(counted)
        if shared is not None:
            shared.start()
        self.opened = True
        logs.life.info("started", extra={"fields": {"version": VERSION, "config": self.config_digest or None}})
        return self

    async def __aexit__(self, *_: object) -> None:
        self.opened = False
        async with contextlib.AsyncExitStack() as each:  # in reverse, and all of them whatever one raises
            if self.telemetry is not None:
                each.push_async_callback(asyncio.to_thread, self.telemetry.stop)
            if self.redis is not None:
                each.push_async_callback(self.redis.stop)
            each.push_async_callback(self.router.stop)
            if self.page.shared is not None:
                each.push_async_callback(self.page.shared.stop)
            if self.sharing is not None:
                each.push_async_callback(self.sharing.stop)
            each.push_async_callback(self.door.keyring.stop)
            each.push_async_callback(self._retire)
            # First: the lines of batches are requests of ours, which a router that retires would wait for.
            each.push_async_callback(self.shelf.batches.stop)
        logs.life.info("stopped", extra={"fields": {"config": self.config_digest or None}})

    async def _retire(self) -> None:
        """Let the routers whose place others took end their requests, for as long as `DRAIN_SECONDS`, and stop them."""
        if self._retiring:
            _, late = await asyncio.wait(tuple(self._retiring), timeout=DRAIN_SECONDS)
            for task in late:
                router = self._retiring[task]
                task.cancel()
                await asyncio.wait([task])
                await router.stop(within_seconds=0.0, close=False)

    async def noted(self, actor: Actor, what: str, subject: str, **detail: Any) -> None:
        """Write into the audit log what was done; where that cannot be, the line is in the gateway's log."""
        try:
            await self.router.store.transact("audit", lambda c: keys.note(c, actor, what, subject, **detail))
        except StoreError as e:
            log.error(
                "the audit log lacks this line (%s): %s %s by %s from %s, %s",
                *(e, what, subject, actor.who, actor.address, detail),
            )

    async def reload(self, actor: Actor = SIGNAL) -> str:
        """Read the config file again, check it whole, and let it take the place of the live one by one assignment; return its digest.

        Requests under way end on what they began with. What was learned goes on where a route is configured as before. What a running
        process cannot change (where it listens, its store, its workers) must be as it was.

        Either way it stands in the log and in the audit log, as done by `actor`. The other workers do the same, once this one has.

        Raises:
            ConfigError: if the file is wrong, or changes what cannot be changed: nothing has changed then.
        """
        before = self.config_digest
        try:
            digest = await self._reload()
        except FairleadError as e:
            logs.life.error("the config was not reloaded, and the live one serves on: %s", e)
            await self.noted(actor, "config.refused", "config", why=logs.redactor(str(e))[:1000])
            raise
        logs.life.warning("config %s is live", digest)
        await self.noted(actor, "config.reload", digest, before=before)
        self._share(actor, "reload")
        return digest

    async def drain(self, on: bool, actor: Actor = SIGNAL) -> None:
        """Let ``/readyz`` answer 503, or no more; the other workers do the same."""
        self.draining = on
        await self.noted(actor, "gateway.drain", "gateway", on=on)
        self._share(actor, "drain" if on else "resume")

    def _share(self, actor: Actor, what: str) -> None:
        """Have the other workers do it too; who was told by a signal passes nothing on."""
        if self.tell is None or actor is SIGNAL:
            return
        try:
            self.tell(what)
        except OSError as e:
            logs.life.error("the other workers were not told to %s: %s", what, e)

    async def _reload(self) -> str:
        if self.load is None or self.config is None:
            raise ConfigError("this gateway was not made from a file, so there is nothing to read again")
        async with self._reloading:
            config = await asyncio.to_thread(self.load)
            settings = config.gateway
            kept = _unlike(self.config, config)
            if kept:
                raise ConfigError(
                    f"{', '.join(kept)} cannot change while the gateway runs; restart it, or change it back"
                )
            # Tried before anything is touched.
            Door(keys=settings.keys, host=settings.host, admin_keys=settings.admin_keys, limits=settings.limits)
            old = self.router
            router = config.router(store=old.store, ledger=old.ledger)
            stats = Stats(
                pool=router.pool, routes=router.policies, strongest=settings.strongest, text=config.file.store.text
            )
            await router.start(after=old)
            stats.take_over(self.stats)
            self.stats = stats
            self.router, self.settings = router, settings
            self.responses.most_bytes = settings.max_body_bytes
            self.door.configure(keys=settings.keys, admin_keys=settings.admin_keys, limits=settings.limits)
            self.config, self.config_digest = config, config.digest
            self.reloads += 1
            retiring = asyncio.ensure_future(old.stop(within_seconds=RETIRE_SECONDS, close=False))
            self._retiring[retiring] = old
            retiring.add_done_callback(lambda done: self._retiring.pop(done, None))
            return self.config_digest

    def _seeded(self, stats: Stats, before: float) -> Stats:
        """Count the newest traces of the store, so that a restart does not blank the page; those of workers that began at `before` count themselves."""
        store = self.router.store
        traces = [t for t in store.traces(newest_first=True, limit=SEED) if t.at < before]
        for trace in reversed(traces):
            if not trace.decision.options:
                stats.held(trace)
                continue  # a refusal; those are counted by status only
            stats.add(trace, status=200 if trace.outcome.error is None else 500)
            for feedback in store.feedback(trace.id):
                if feedback.at < before:
                    stats.judge(feedback)
        if traces:
            stats.since = traces[-1].at
        stats.seeded()
        return stats

    # ------------------------------------------------------------------------------------------------ ASGI

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection event."""
        if scope["type"] == "http":
            edge = self._edges.get(scope["path"])
            if edge is not None:
                await edge(scope, receive, send)
                return
            try:
                if scope["path"].startswith("/admin/"):
                    scope[ADMIN] = self.door.check_admin(scope["path"], header_map(scope))
                else:
                    scope[CALLER] = (await self.enter(scope))[1]
            except Refused as refused:
                body = messages.error(refused) if scope["path"] == messages.COUNT else refused.body
                await respond(send, refused.status, body, refused.headers, head=scope["method"] == "HEAD")
                return
        await self._rest(scope, receive, send)

    async def enter(self, scope: Any) -> tuple[dict[bytes, bytes], Caller | None]:
        """Let a request in and return its headers, and whose key it came with. Raises `Refused`."""
        headers, path = header_map(scope), scope["path"]
        if INSIDE in scope:
            return headers, scope[INSIDE].caller
        try:
            return headers, self.door.check(path, headers)
        except Refused as refused:
            # Another process may have made the key a moment ago.
            if refused.code != "invalid_api_key" or not await self.door.keyring.look():
                raise
            return headers, self.door.check(path, headers)

    def note(self, trace: Trace, exchange: Exchange, status: int) -> None:
        """Count a request that was answered."""
        seconds = perf_counter() - exchange.start
        overhead = max(0.0, seconds - busy(trace))
        self.metrics.note(
            trace,
            status=status,
            seconds=seconds,
            overhead=overhead,
            first_byte=exchange.first_byte,
            fallbacks=fallbacks(trace),
            events=exchange.events,
        )
        if self.telemetry is not None:
            self._tell(exchange, status, overhead=overhead)
        if logs.access.isEnabledFor(logging.INFO):
            logs.answered(
                trace,
                status=status,
                seconds=seconds,
                overhead=overhead,
                config=exchange.config.decode(),
                fallbacks=fallbacks(trace),
                dropped=exchange.left_out(trace).decode(),
            )
        self.stats.add(trace, status=status, overhead_seconds=overhead)

    def note_refused(self, exchange: Exchange, refused: Refused) -> None:
        """Count a request that no target was asked for."""
        exchange.named()
        self.metrics.refused.labels(str(refused.status)).inc()
        if exchange.trace is None:  # else it is counted as a decision
            self.stats.turn_away(refused.code or "refused")
        if isinstance(refused, TooMany):
            self.metrics.rates.labels(refused.what).inc()
        elif refused.code == "budget_exceeded":
            self.metrics.rates.labels("budget").inc()
        if self.telemetry is not None:
            self._tell(exchange, refused.status, code=refused.code or "refused")
        if logs.access.isEnabledFor(logging.INFO):
            seconds = perf_counter() - exchange.start
            code, key = refused.code or "refused", exchange.query.identity.key if hasattr(exchange, "query") else None
            logs.refused(exchange.face.path, status=refused.status, code=code, seconds=seconds, key=key)

    def _tell(self, exchange: Exchange, status: int, *, overhead: float = 0.0, code: str = "") -> None:
        """Let the collector know of a request that has ended."""
        assert self.telemetry is not None
        query: Query | None = getattr(exchange, "query", None)
        task = exchange.face.task
        self.telemetry.note(
            exchange.context or self.telemetry.begin({}),
            query=query,
            trace=exchange.trace,
            status=status,
            start=exchange.start,
            overhead=overhead,
            first_byte=exchange.first_byte,
            size=exchange.size,
            config=exchange.config.decode(),
            path=exchange.face.path,
            operation=task if query is None else telemetry.operation(query),
            code=code,
            stream=exchange.stream,
        )

    def note_refusal(self, trace: Trace) -> None:
        """Count the guards that held where nobody was left."""
        self.metrics.held(trace)
        self.stats.held(trace)

    def nobody(self, e: NoEligibleTarget, caller: Caller | None = None) -> Refused:
        """Say that nobody may answer, and when somebody may again; where only the request stands in the way, it is told so."""
        sight = Sight.of(caller, self.router)
        e = e if sight is None else sight.refusal(e)
        kinds = set(e.kinds.values())
        if "budget" in kinds and kinds <= {"budget", "asked", "fit", "context"}:
            return Refused(402, str(e), code="budget_exceeded", retry=False)
        if kinds == {"context"}:
            return Refused(400, str(e), code="context_length_exceeded", param="messages", retry=False)
        if kinds & {"guard", "rule"} and kinds <= {"guard", "rule", "asked", "fit", "context"}:
            # Nobody will ever answer this: not a failure of ours, so not one that a load balancer should count.
            # Nor is it told more than it must be: the trace has the reasons, the headers the names of guards and rule.
            asked = ["of those that it allows itself"] if "asked" in kinds else []
            asked += ["whose context is long enough for it"] if "context" in kinds else []
            left = f": nobody is left {' and '.join(asked)}" if asked else ""
            return Refused(403, e.words or f"this request may not be answered here{left}", code="blocked", retry=False)
        resting = self.router.pool.health.resting
        rests = [r for name, kind in e.kinds.items() if kind == "rest" and (r := resting(name)) > 0.0]
        headers: Headers = [(b"retry-after", str(math.ceil(min(rests))).encode())] if rests else []
        return Refused(503, str(e), code="no_eligible_target", retry=bool(rests), headers=headers)

    # ------------------------------------------------------------------------------------------------ the rest

    def _routes(self) -> Starlette:
        async def not_found(request: Request, e: Exception) -> Response:
            assert isinstance(e, HTTPException)
            paths = {r.path for r in routes if not r.path.startswith("/admin/")} | set(self._edges)
            known = ", ".join(sorted(paths))
            message = e.detail
            if e.status_code == 404:
                message = f"nothing is at {request.url.path}; known: {known}"
            elif e.status_code == 405:
                message = f"{request.url.path} does not answer {request.method}"
                there = [r for r in routes if r.matches(request.scope)[0] != Match.NONE]
                methods = ", ".join(sorted({m for r in there for m in r.methods or ()}))
                return _refusal(Refused(405, message, code="method_not_allowed"), {"allow": methods})
            code = "not_found" if e.status_code == 404 else "http_error"
            return _refusal(Refused(e.status_code, message, code=code), dict(e.headers or {}))

        async def refused(_: Request, e: Exception) -> Response:
            assert isinstance(e, Refused)
            return _refusal(e)

        async def failed(request: Request, e: Exception) -> Response:
            # The wall at the gateway's edge, for all but the faces, which have their own.
            log.error("%s failed", request.url.path, exc_info=e)
            return _refusal(Refused(500, "the gateway failed; its log tells more", code="internal_error"))

        endpoints: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/healthz", self.health),
            ("GET", "/readyz", self.ready),
            ("GET", "/metrics", self.scrape),
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{id:path}", self.model),
            ("POST", messages.COUNT, self.count_tokens),
            ("POST", "/v1/feedback", self.feedback),
            ("POST", "/v1/route", self.dry_run),
            ("GET", "/v1/traces", self.traces),
            ("GET", "/v1/traces/{id}", self.trace),
            ("GET", "/v1/responses/{id}", self.kept_response),
            ("DELETE", "/v1/responses/{id}", self.kept_response),
            ("GET", "/v1/responses/{id}/input_items", self.kept_input),
            ("GET", "/openapi.json", self.openapi),
            *self.page.endpoints(),
            *self.shelf.endpoints(),
            *self.admin.endpoints(),
        ]
        routes = [Route(path, _failing(endpoint), methods=[method]) for method, path, endpoint in endpoints]

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self:
                yield

        app = Starlette(
            routes=routes,
            exception_handlers={HTTPException: not_found, Refused: refused, Exception: failed},
            lifespan=lifespan,
        )
        app.router.redirect_slashes = False
        return app

    async def openapi(self, _: Request) -> Response:
        """Send the description of the API."""
        return Response(await asyncio.to_thread(self._described), media_type="application/json")

    def _described(self) -> bytes:
        from fairlead.gateway.openapi import document

        return document(self.faces)

    async def health(self, _: Request) -> Response:
        """Say that the process is up."""
        return _json({"status": "ok", "version": VERSION, "config": self.config_digest})

    async def ready(self, request: Request) -> Response:
        """Say whether requests can be answered: the store is open, not every target rests, and nobody asked for a drain.

        Which targets rest, and for how long, is for whoever may ask for them: with keys, not for those who send none.
        """
        resting = {t.name: r for t in self.router.pool if (r := self.router.pool.health.resting(t.name)) > 0.0}
        ready = self.opened and not self.draining and len(resting) < len(self.router.pool)
        status = "draining" if self.draining else "ready" if ready else "not ready"
        caller: Caller | None = request.scope.get(CALLER)
        if self.door.locked:
            resting = {n: r for n, r in resting.items() if caller is not None and caller.may_act(n)}
        shown = {"status": status, "resting_seconds": resting, "config": self.config_digest}
        return _json(shown, status=200 if ready else 503)

    async def scrape(self, request: Request) -> Response:
        """Send the metrics."""
        text = await asyncio.to_thread(self.metrics.text if self.sharing is None else self.sharing.text)
        if (sight := self.sight(request)) is not None:
            text = sight.metrics(text)
        return Response(text, media_type=CONTENT_TYPE.decode())

    def sight(self, request: Request) -> Sight | None:
        """Return what the key of a request may see of routes and targets; None: all."""
        return Sight.of(request.scope.get(CALLER), self.router)

    async def models(self, request: Request) -> Response:
        """List the routes and targets that a caller may ask for, in OpenAI's shape, or in Anthropic's for clients that name its version."""
        listed = self._models(request)
        if "anthropic-version" in request.headers:
            try:
                return _json(self._pages(listed, request.query_params))
            except Refused as refused:
                return Response(messages.error(refused), status_code=refused.status, media_type="application/json")
        return _json({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """Tell of one of them, in the same shapes."""
        name = request.path_params["id"]
        found = [m for m in self._models(request) if m["id"] == name]
        theirs = "anthropic-version" in request.headers
        if found:
            return _json(self._pages(found, {})["data"][0] if theirs else found[0])
        refused = Refused(404, f"no model is called {name!r}; GET /v1/models lists them", code="model_not_found")
        return Response(messages.error(refused), 404, media_type="application/json") if theirs else _refusal(refused)

    def _models(self, request: Request) -> list[dict[str, Any]]:
        """List what a caller may ask for, in OpenAI's shape."""
        made = int(self.began)
        caller: Caller | None = request.scope.get(CALLER)
        routes = [
            {"id": name, "object": "model", "created": made, "owned_by": "fairlead", "kind": "route"}
            for name in self.router.policies
        ]
        targets = [
            {"id": t.name, "object": "model", "created": made, "owned_by": "fairlead", "kind": t.kind}
            for t in self.router.pool
        ]
        return [m for m in routes + targets if caller is None or caller.may_ask(str(m["id"]), self.targets)]

    def _pages(self, listed: list[dict[str, Any]], asked: Mapping[str, str]) -> dict[str, Any]:
        """Put models in Anthropic's shape. Raises `Refused` for a wrong page."""
        profiles = {name: target.profile for name, target in self.targets.items()}
        return messages.model_list([m["id"] for m in listed], profiles, int(self.began), asked)

    async def count_tokens(self, request: Request) -> Response:
        """Count the tokens of a request in Anthropic's format."""
        try:
            return await messages.count_tokens(self, request)
        except Refused as refused:
            headers = {k.decode(): v.decode() for k, v in refused.headers}
            body = messages.error(refused)
            return Response(body, status_code=refused.status, media_type="application/json", headers=headers)

    async def feedback(self, request: Request) -> Response:
        """Take a judgement."""
        body = await self.body(request)
        try:
            judgement = msgspec.json.decode(body, type=Judgement)
        except msgspec.ValidationError as e:
            raise of_validation(e) from e
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise Refused(400, f"the body is not valid JSON: {e}", code="invalid_json") from e
        caller: Caller | None = request.scope.get(CALLER)
        id = query_id(judgement.id or judgement.response_id or "")
        tenant, sight = _tenant(request), self.sight(request)
        if id and not (tenant is None and sight is None):
            trace = await self.router.store.get(id)
            if (
                trace is None
                or tenant not in (None, trace.query.identity.tenant)
                or not (sight is None or sight.sees(trace))
            ):
                self.metrics.feedback.labels("unknown").inc()
                raise _no_trace(id)
        feedback = await self._judged(judgement, by="" if caller is None else caller.key)
        receipt = await self.router.feedback(feedback)
        self.metrics.feedback.labels(receipt.status).inc()
        if receipt.status == "unknown":
            raise _no_trace(feedback.trace_id)
        await self._count(feedback, receipt)
        shown = {"status": receipt.status, "trace_id": receipt.trace_id, "late_seconds": receipt.late_seconds}
        weight = 0.0 if receipt.lesson is None else receipt.lesson.weight
        return _json({**shown, "value": feedback.value, "weight": weight})

    async def _count(self, feedback: Feedback, receipt: Receipt) -> None:
        """Let the page count a judgement, of whichever worker's answer."""
        store, before = self.router.store, None
        if receipt.status == "duplicate":
            return
        if receipt.status == "revised":  # maybe of what another worker has counted

            def earlier() -> float | None:
                query = "SELECT body FROM feedback WHERE trace_id = ? ORDER BY seq"
                said = [chain.decode(bytes(body), Feedback) for (body,) in store.rows(query, (feedback.trace_id,))]
                values = [f.value for f in said if f.voter == feedback.voter]
                return values[-2] if len(values) > 1 else None

            before = await asyncio.to_thread(earlier)
        if not self.stats.judge(feedback, before=before) and (trace := await store.get(feedback.trace_id)) is not None:
            self.stats.judge(feedback, trace=trace, before=before)

    async def _judged(self, judgement: Judgement, *, by: str) -> Feedback:
        """Turn what was sent into a value in [0, 1]."""
        j, id, value = judgement, query_id(judgement.id or judgement.response_id or ""), judgement.value
        if not id:
            raise Refused(
                400, "id is missing: the id of the answer, as the reply and x-fairlead-id have it", param="id"
            )
        given = {k: v for k in KINDS if (v := getattr(j, k)) is not None}
        if len(given) > 1:
            raise Refused(400, f"send one of {', '.join(given)} in a judgement; others under another source")
        kind: FeedbackKind = next(iter(given), "value")
        worth: float | None = value
        correction: str | None = None
        try:
            match kind:
                case "label":
                    worth = rewards.of_label(j.label or "")
                case "rating":
                    worth = rewards.of_rating(j.rating or 0.0, j.of, j.lowest)
                case "reask" | "abandon":
                    worth = 0.0 if given[kind] else 1.0
                case "correction":
                    correction, worth = await self._corrected(id, j.correction or "", compare=value is None)
                case "test" | "judge":
                    worth = float(given[kind])
        except Refused:
            raise
        except FairleadError as e:
            raise Refused(400, str(e), param=kind, code=f"unknown_{kind}") from e
        if value is None:
            value = worth
        if value is None:
            raise Refused(400, f"send a value in [0, 1], or one of {', '.join(KINDS)}", param="value")
        return rewards.judgement(
            id,
            kind=kind,
            value=value,
            source=j.source,
            confidence=j.confidence,
            label=j.label,
            correction=correction,
            at=time.time(),
            by=by,
        )

    async def _corrected(self, id: str, correction: str, *, compare: bool) -> tuple[str, float | None]:
        """Return a correction as it may be kept, and what the answer is worth by it, if that is to be found out: where the trace is masked, so is
        the correction, and where it is blank, that is too. Raises `Refused` if it cannot be compared."""
        trace = await self.router.store.get(id)
        if trace is None:
            self.metrics.feedback.labels("unknown").inc()
            raise _no_trace(id)
        kept, answer = trace.text_kept, trace.outcome.text
        if any(act.name == Mask.type_name() for act in trace.acts):
            actions = [self.router.actions.get(name) for name in trace.decision.actions]
            masks = [action for action in actions if isinstance(action, Mask)]
            kept = kept and bool(masks)  # what masked the answer may have left the config since
            for mask in masks if kept else ():
                correction = await asyncio.to_thread(masked_later, correction, mask.finder, answer)
        if compare and (not kept or max(len(correction), len(answer)) > MOST_CORRECTED):
            why = "is too long to be compared" if kept else "was not kept, or cannot be masked as it was"
            raise Refused(400, f"the answer {why}: send a value in [0, 1] with the correction", param="value")
        if not kept:
            return " " * len(correction), None
        worth = await asyncio.to_thread(rewards.of_correction, answer, correction) if compare else None
        return correction, worth

    async def dry_run(self, request: Request) -> Response:
        """Decide, without calling anybody or keeping anything."""
        headers = header_map(request.scope)
        caller = request.scope.get(CALLER)
        body, allow = await self.body(request), self.settings.urls.allow
        asked = reading.read(body, headers, self.router.serving, self.targets, caller, urls=allow)
        try:
            query, signals, decision = await self.router.consider(asked.query)
        except NoEligibleTarget as e:
            raise self.nobody(e, caller) from e
        if (sight := self.sight(request)) is not None:
            decision = sight.decision(decision)
        return _json(explain(query, signals, decision))

    async def traces(self, request: Request) -> Response:
        """List the newest traces, newest first."""
        text = request.query_params.get("limit", "50")
        if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= MOST_TRACES:
            raise Refused(400, f"limit must be a whole number from 1 to {MOST_TRACES}", param="limit")
        limit = int(text)
        store, tenant, sight = self.router.store, _tenant(request), self.sight(request)

        def read() -> bytes:
            if tenant is None and sight is None:
                found = list(store.traces(newest_first=True, limit=limit))
            else:
                newest = store.traces(newest_first=True, limit=MOST_SEARCHED)
                theirs = (t for t in newest if tenant in (None, t.query.identity.tenant))
                if sight is not None:
                    theirs = (sight.trace(t) for t in theirs if sight.sees(t))
                found = list(itertools.islice(theirs, limit))
            return msgspec.json.encode({"object": "list", "data": found})

        return Response(await asyncio.to_thread(read), media_type="application/json")

    async def trace(self, request: Request) -> Response:
        """Send one trace with all judgements of it, and its decision explained as a dry run is."""
        id = query_id(request.path_params["id"])
        store, sight = self.router.store, self.sight(request)
        trace = await store.get(id)
        if trace is None or _tenant(request) not in (None, trace.query.identity.tenant):
            raise _no_trace(id)
        if sight is not None:
            if not sight.sees(trace):
                raise _no_trace(id)
            trace = sight.trace(trace)
        shown = {"trace": trace, "feedback": await asyncio.to_thread(store.feedback, id)}
        shown["explanation"] = explain(trace.query, trace.signals, trace.decision)
        return _json(shown)

    async def kept_response(self, request: Request) -> Response:
        """Send a kept response, or delete it."""
        id, tenant = await self._response(request), _asking(request)
        if request.method == "DELETE":
            return _json(await self.responses.delete(id, tenant))
        if request.query_params.get("stream") == "true":
            raise Refused(400, "a kept response is not streamed again; read it whole", param="stream")
        return _json((await self.responses.stored(id, tenant)).body.response)

    async def kept_input(self, request: Request) -> Response:
        """List what a kept response was asked with."""
        asked = {k: v for k in ("limit", "order", "after") if (v := request.query_params.get(k)) is not None}
        return _json(await self.responses.inputs(await self._response(request), _asking(request), **asked))

    async def _response(self, request: Request) -> str:
        """Return the id that a request names. Raises `Refused` (404) if its trace is none that the key may see."""
        id: str = request.path_params["id"]
        if (sight := self.sight(request)) is not None:
            trace = await self.router.store.get(query_id(id))
            if trace is not None and not sight.sees(trace):
                raise not_found(id, "response_id")
        return id

    async def body(self, request: Request) -> bytes:
        """Read a request's body. Raises `Refused`."""
        return await reading.read_body(request.receive, header_map(request.scope), self.settings.max_body_bytes)


def _unlike(old: Config, new: Config) -> list[str]:
    """Name what differs between two configs that a running process cannot change."""
    pairs = [
        (f"{part}.{field}", getattr(getattr(old.file, part), field), getattr(getattr(new.file, part), field))
        for part, fields in (
            ("gateway", ("host", "port", "workers", "drain_seconds", "shared", "redis", "log", "telemetry")),
            ("store", StoreConfig.__struct_fields__),
        )
        for field in fields
    ]
    return [name for name, a, b in pairs if a != b]


def _failing(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn what the store or the router raises on purpose into a refusal."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused:
            raise
        except StoreError as e:
            log.error("%s: %s", request.url.path, e)
            raise Refused(503, str(e), code="store_unavailable") from e
        except FairleadError as e:
            log.error("%s: %s", request.url.path, e)
            raise Refused(500, told(e, request.scope.get(CALLER)), code="internal_error") from e

    return answer


def _tenant(request: Request) -> str | None:
    """Return whose traces a request may see; None: everybody's. A key that names no tenant is an operator's."""
    caller: Caller | None = request.scope.get(CALLER)
    return None if caller is None else caller.tenant


def _asking(request: Request) -> str | None:
    """Return the tenant of a request for what it made itself: its key's, or the one that it names."""
    return _tenant(request) or request.headers.get("x-fairlead-tenant") or None


def _no_trace(id: str) -> Refused:
    return Refused(404, f"no trace has the id {id[:200]!r}", code="trace_not_found", param="id")


def _json(data: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(data), status_code=status, media_type="application/json")


def _refusal(refused: Refused, headers: dict[str, str] | None = None) -> Response:
    own = {k.decode(): v.decode() for k, v in refused.headers}
    return Response(
        refused.body, status_code=refused.status, media_type="application/json", headers={**own, **(headers or {})}
    )
