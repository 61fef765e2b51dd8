"""The edge: how a request for an answer gets in and its answer out, plain ASGI, the same for every face (`faces/`).

One request in order: let in, read, decide, run, answer, count. What the client sees of the decision is in the headers; a stream's
go out with its first byte, so they hold what is known by then (the spend comes in a closing comment line of the stream). The last
byte goes out only when the trace is with the operating system.

A client that leaves cancels the run: a second task waits for the disconnect (`Vigil`), and spares the tokens of an answer that nobody reads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from fairlead.actions.base import Passage
from fairlead.errors import FairleadError, NoEligibleTarget, StoreError
from fairlead.gateway import limits, logs, sight
from fairlead.gateway import read as reading
from fairlead.gateway.batches import INSIDE
from fairlead.gateway.door import Caller
from fairlead.gateway.faces.base import Face, Read, Writer
from fairlead.gateway.figures import busy, fallbacks
from fairlead.gateway.refusal import Headers, Refused, of_failure, respond
from fairlead.ledger import Account
from fairlead.plans.fallback import Fallback
from fairlead.targets import wire
from fairlead.types import Call, Decision, Outcome, Query, Trace, new_id

if TYPE_CHECKING:
    from fairlead.gateway.app import Gateway
    from fairlead.gateway.telemetry import Context
    from fairlead.router import Router

log = logging.getLogger(__name__)

DROPPED: Final = b": x-fairlead-dropped "
"""How a driver's stream begins that could not translate all of the request (see `fairlead.targets.wire.dropped`)."""
HEADER: Final = 2000
"""Bytes of one header at most, of what a client may make long."""
WATCH_SECONDS: Final = 0.1
"""From then on it is watched whether the client is still there: a quick answer is not worth the watch."""
CLOSING_SECONDS: Final = 30.0
"""How long a client may take to let the end of its answer in."""
_SOON: Final = (b"retry-after", b"1")
_SSE: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Edge:
    """One face's endpoint, as an ASGI callable."""

    def __init__(self, gateway: Gateway, face: Face) -> None:
        self.gateway, self.face = gateway, face

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, unless too many are under way."""
        gateway, exchange = self.gateway, Exchange(send, self.face)
        if gateway.in_flight >= gateway.settings.max_in_flight:
            refused = Refused(503, "too many requests are under way; try again", code="overloaded", headers=[_SOON])
            gateway.note_refused(exchange, refused)
            await exchange.refuse(refused)
            return
        gateway.in_flight += 1
        try:
            await self._serve(exchange, scope, receive)
        finally:
            gateway.in_flight -= 1
            if exchange.entered is not None:
                router, entered = exchange.entered
                router.exit(entered)

    async def _serve(self, exchange: Exchange, scope: Any, receive: Any) -> None:
        gateway, face = self.gateway, self.face
        exchange.config = gateway.config_digest.encode()
        try:
            headers, caller = await gateway.enter(scope)
            if gateway.telemetry is not None:
                exchange.context = gateway.telemetry.begin(headers)
            if scope["method"] != "POST":
                raise Refused(
                    405, "only POST is answered here", code="method_not_allowed", headers=[(b"allow", b"POST")]
                )
            body = await reading.read_body(receive, headers, gateway.settings.max_body_bytes)
            exchange.start = perf_counter()
            exchange.size = len(body)
            # A reload may swap it from here on: this request ends on what it begins with, which waits for it.
            router = gateway.router
            exchange.entered = router, router.enter()
            exchange.config = gateway.config_digest.encode()
            exchange.read = read = await face.read(reading.split(body))
            asked = reading.query(
                read,
                headers,
                router.serving,
                router.pool.by_name,
                caller,
                api=face.api,
                task=face.task,
                urls=gateway.settings.urls.allow,
            )
            exchange.query, exchange.stream = asked.query, asked.stream
            exchange.id = asked.query.id
            face.check(asked.query, read)
            logs.REQUEST.set(asked.query.id)
            if INSIDE in scope:
                exchange.query = msgspec.structs.replace(asked.query, batch=scope[INSIDE].batch)
            if caller is not None:
                if caller.vouches and caller.tenant is None and (tenant := asked.query.identity.tenant):
                    caller = gateway.door.keyring.on_behalf(caller, tenant)
                exchange.accounts = caller.accounts
                if caller.limits is not None:
                    exchange.admitted = await limits.admit(gateway.rates(router), caller.limits, asked.query)
        except Exception as e:  # noqa: BLE001 - the wall at the gateway's edge, as in `_answer`
            refused = _refusal(e)
            if isinstance(refused, limits.TooMany):
                refused.headers += face.limits(refused.shown)
            gateway.note_refused(exchange, refused)
            await exchange.refuse(refused)
            return
        gateway.vigil.begin(exchange, receive)
        try:
            await self._answer(exchange, router, caller)
        except asyncio.CancelledError:
            if not exchange.gone:
                raise
            exchange.task.uncancel()
            # The router has kept what was called and spent until then.
            trace = exchange.trace = await router.store.get(exchange.query.id)
            if trace is not None:
                gateway.note(trace, exchange, 499)
        finally:
            gateway.vigil.end(exchange)
            if exchange.admitted is not None:
                exchange.admitted.end(exchange.trace, called=exchange.passage is not None)

    async def _answer(self, exchange: Exchange, router: Router, caller: Caller | None) -> None:
        gateway, query = self.gateway, exchange.query
        sink = exchange.pass_on if exchange.stream else None
        try:
            outcome, trace = await router.handle(query, sink=sink, begun=exchange.begin, accounts=exchange.accounts)
        except NoEligibleTarget as e:
            refused = gateway.nobody(e, caller)
            if refused.status == 402 and exchange.accounts and router.ledger is not None:
                asked = [router.pool.estimate_usd(Call(target=n), query) for n, k in e.kinds.items() if k == "budget"]
                least = min((usd for usd in asked if usd is not None), default=0.0)
                refused = limits.broke(router.ledger, exchange.accounts, least) or refused
            if e.trace is not None:
                exchange.trace = e.trace
                gateway.note_refusal(e.trace)
                refused.headers += told(e.trace.decision, query)
        except StoreError as e:
            log.error("%s was answered, but its trace could not be kept: %s", query.id, e)
            message = f"the answer is withheld, since its trace could not be kept ({e})"
            refused = Refused(500, message, code="trace_not_kept")
        except Exception as e:  # noqa: BLE001 - the wall at the gateway's edge
            refused = _refusal(e, caller)
        else:
            exchange.over = True
            exchange.trace = trace
            failure = outcome.error
            status = 200 if failure is None else of_failure(failure).status
            try:
                # Whoever has stopped reading is not sent an error that would never arrive: uvicorn closes the connection.
                if failure is None or failure.kind != "client_gone":
                    status = await self._close(exchange, outcome, trace)
            except asyncio.CancelledError:
                if not exchange.stuck:
                    raise
                exchange.task.uncancel()
                log.warning("%s: the client stopped reading; its connection is closed", query.id)
            except Exception as e:  # noqa: BLE001 - as above
                refused = _refusal(e)
                status = refused.status
                await exchange.refuse(refused, trace)
            finally:
                gateway.note(trace, exchange, status)
            return
        gateway.note_refused(exchange, refused)
        await exchange.refuse(refused)

    async def _close(self, exchange: Exchange, outcome: Outcome, trace: Trace) -> int:
        """Send what is not sent yet; return the status that says how it ended."""
        query, face, read = exchange.query, exchange.face, exchange.read
        refused: Refused | None = None
        if outcome.error is not None:
            refused = of_failure(outcome.error)
        else:
            try:
                await face.keep(query, read, outcome, trace)
            except Refused as e:
                refused = e
            except StoreError as e:
                log.error("%s was answered, but its conversation could not be kept: %s", query.id, e)
                message = f"the answer is withheld, since the conversation could not be kept ({e})"
                refused = Refused(500, message, code="conversation_not_kept")
        exchange.closing = perf_counter()
        if refused is not None:
            await exchange.refuse(refused, trace)
            return refused.status
        if not exchange.stream:
            await respond(exchange.send, 200, face.whole(outcome, query, read), exchange.headers(trace))
            return 200
        if not exchange.streaming:
            # Answers that had to be judged first (a vote, an early step of a cascade) come at once.
            usage = reading.include_usage(query)
            events = wire.chunks(outcome, id=query.id, created=int(time.time()), include_usage=usage)
            await exchange.pass_on(events, trace)
        spent = b"" if trace.usd is None else b": x-fairlead-cost-usd %s\n\n" % usd(trace.usd)
        limited = b": x-fairlead-limited %s\n\n" % trace.outcome.limited.encode() if trace.outcome.limited else b""
        end = exchange.writer.close(outcome)
        await exchange.send({"type": "http.response.body", "body": spent + limited + end})
        return 200


class Exchange:
    """One request on its way: what is known of it so far, and what was sent."""

    __slots__ = (
        "accounts",
        "admitted",
        "closing",
        "config",
        "context",
        "dropped",
        "entered",
        "events",
        "face",
        "first_byte",
        "gone",
        "id",
        "over",
        "passage",
        "query",
        "read",
        "receive",
        "send",
        "size",
        "start",
        "stream",
        "streaming",
        "stuck",
        "task",
        "trace",
        "watcher",
        "writer",
    )

    task: asyncio.Task[Any]
    """Who answers it."""
    receive: Any
    query: Query
    read: Read
    writer: Writer

    def __init__(self, send: Any, face: Face) -> None:
        self.send, self.face = send, face
        self.id = ""
        self.dropped = b""
        self.config = b""
        """Digest of the config that answers, also where another has taken its place meanwhile."""
        self.entered: tuple[Router, asyncio.Future[None]] | None = None
        """The router that answers it, which is told when it has been."""
        self.start = perf_counter()
        self.size = self.events = 0
        """Bytes of its body; events of its stream that were sent."""
        self.context: Context | None = None
        """Where it stands in its client's trace, if somebody collects traces."""
        self.stream = self.streaming = False
        self.over = self.gone = self.stuck = False
        """Whether the answer is whole; its client has left before; its client does not let the end of it in."""
        self.closing = 0.0
        """Since when the end is sent; 0: not yet."""
        self.watcher: asyncio.Task[None] | None = None
        self.passage: Passage | None = None
        self.accounts: tuple[Account, ...] = ()
        """Who pays."""
        self.admitted: limits.Admitted | None = None
        """What is held of its caller's limits."""
        self.trace: Trace | None = None
        self.first_byte: float | None = None

    def named(self) -> str:
        """Return the request's id; one is made for what is refused before it is read, so that its answer and its line in the log can be matched."""
        if not self.id:
            self.id = new_id()
            logs.REQUEST.set(self.id)
        return self.id

    def begin(self, passage: Passage) -> None:
        """Learn what was decided, before anything is done."""
        self.passage = passage

    async def pass_on(self, events: bytes, trace: Trace | None = None) -> None:
        """Send some of a stream, its head before the first."""
        if not self.streaming:
            self.streaming = True
            self.first_byte = perf_counter() - self.start
            self.writer = self.face.writer(self.query, self.read)
            if events.startswith(DROPPED):
                said, _, events = events.partition(b"\n\n")
                self.dropped = said.removeprefix(DROPPED).strip()
            headers = [*_SSE, *self.headers(trace)]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        self.events += events.count(b"\n\n")
        if events := self.writer.feed(events):
            await self.send({"type": "http.response.body", "body": events, "more_body": True})

    async def refuse(self, refused: Refused, trace: Trace | None = None) -> None:
        """Send an error: as a status if nothing is out yet, else as the stream's last event, with no ``[DONE]`` behind it."""
        refused.id = self.named()
        if self.streaming:
            await self.send({"type": "http.response.body", "body": self.writer.broken(refused)})
            return
        await respond(self.send, refused.status, self.face.error(refused), [*refused.headers, *self.headers(trace)])

    def headers(self, trace: Trace | None) -> Headers:
        """Write what is known of the decision."""
        passage = self.passage
        if passage is None:
            return self.face.headers(self.named())
        decision, run = passage.decision, passage.run
        seconds = perf_counter() - self.start
        if trace is not None:
            target, skipped, own = trace.outcome.target, fallbacks(trace), seconds - busy(trace)
        elif run is None:
            target, skipped, own = "", 0, seconds
        else:
            # The first byte of a stream: all time since the run began is taken for its calls'.
            target, path = run.answering or ("", (0,))
            skipped = path[0] if isinstance(run.plan, Fallback) else 0
            own = seconds - (perf_counter() - run.start)
        out = [
            (b"x-fairlead-id", self.query.id.encode()),
            *_standing(decision.policy, decision.version, self.config, target),
            (b"x-fairlead-propensity", b"%.6g" % decision.propensity),
            (b"x-fairlead-overhead-ms", b"%.3f" % (1e3 * max(own, 0.0))),
        ]
        if trace is not None and trace.usd is not None:
            out.append((b"x-fairlead-cost-usd", usd(trace.usd)))
        if trace is not None and trace.outcome.limited:
            out.append((b"x-fairlead-limited", trace.outcome.limited.encode()))
        if skipped:
            out.append((b"x-fairlead-fallbacks", b"%d" % skipped))
        dropped = self.left_out(trace)
        if dropped:
            out.append((b"x-fairlead-dropped", dropped))
        out += self.face.headers(self.named())
        if self.admitted is not None:
            out += self.face.limits(self.admitted.shown())
        out += told(decision)
        for name, value in passage.tags.items():
            out.append((b"x-fairlead-tag-" + name.encode(), clean(value)))
        return out

    def left_out(self, trace: Trace | None) -> bytes:
        """Write what the request asked for that was left out, as its face, and the driver that answered, had no place for it."""
        names = self.query.dropped
        if trace is not None:
            names += trace.outcome.dropped
        said = clean(", ".join(dict.fromkeys(names))) if names else b""
        return b", ".join(part for part in (said, self.dropped) if part)[:HEADER]


def _refusal(e: Exception, caller: Caller | None = None) -> Refused:
    """Turn what broke into what its client is told: whatever it is, the client gets an answer and the log the story."""
    if isinstance(e, Refused):
        return e
    if isinstance(e, StoreError):
        log.error("the store could not be asked: %s", e)
        return Refused(503, str(e), code="store_unavailable", headers=[_SOON])
    if isinstance(e, FairleadError):
        log.error("a request could not be handled: %s", e)
        return Refused(500, sight.told(e, caller), code="internal_error")
    log.error("a request could not be handled", exc_info=e)
    return Refused(500, "the gateway failed; its log tells more", code="internal_error")


def told(decision: Decision, query: Query | None = None) -> Headers:
    """Write which guards held and which rule decided; with `query`, under which id it is kept."""
    out = [] if query is None else [(b"x-fairlead-id", query.id.encode())]
    if decision.guards:
        out.append((b"x-fairlead-guards", clean(", ".join(decision.guards))))
    if decision.rule:
        out.append((b"x-fairlead-rule", clean(decision.rule)))
    return out


class Vigil:
    """Looks after all answers under way, with one timer for all: two for each would cost 2% of a request.

    One that takes longer than `WATCH_SECONDS` is given up when its client leaves; one whose end its client does not let in, after
    `CLOSING_SECONDS`.
    """

    def __init__(self) -> None:
        self.under_way: set[Exchange] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, exchange: Exchange, receive: Any) -> None:
        """Look after an exchange, which the task that runs now answers."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        exchange.task, exchange.receive = task, receive
        self.under_way.add(exchange)
        if self._timer is None:
            self._timer = loop.call_later(WATCH_SECONDS, self._round, loop)

    def end(self, exchange: Exchange) -> None:
        """Look after it no more."""
        self.under_way.discard(exchange)
        if exchange.watcher is not None:
            exchange.watcher.cancel()

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        now = perf_counter()
        for exchange in self.under_way:
            if exchange.closing:
                if now - exchange.closing >= CLOSING_SECONDS and not exchange.stuck:
                    exchange.stuck = True
                    exchange.task.cancel()
            elif not exchange.over and exchange.watcher is None and now - exchange.start >= WATCH_SECONDS:
                exchange.watcher = loop.create_task(_watch(exchange))
        self._timer = loop.call_later(WATCH_SECONDS, self._round, loop) if self.under_way else None


async def _watch(exchange: Exchange) -> None:
    """Give an answer up when the client leaves before it is whole."""
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    if not exchange.over:
        exchange.gone = True
        exchange.task.cancel()


@lru_cache(maxsize=1024)
def _standing(policy: str, version: int, config: bytes, target: str) -> Headers:
    """Write what many answers share."""
    out = [(b"x-fairlead-policy", clean(policy)), (b"x-fairlead-version", b"%d" % version)]
    if config:
        out.append((b"x-fairlead-config", config))
    if target:
        out.append((b"x-fairlead-target", clean(target)))
    return out


def usd(amount: float) -> bytes:
    """Write an amount without an exponent, to a billionth of a dollar."""
    return (b"%.9f" % amount).rstrip(b"0").rstrip(b".") or b"0"


@lru_cache(maxsize=4096)
def clean(text: str) -> bytes:
    """Make `text` fit for a header: what is not printable ASCII is percent-encoded."""
    return quote(text, safe="!#$&'()*+,-./:;<=>?@[]^_`{|}~ ").encode()


def header_map(scope: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return a request's headers by lower-case name. Raises `Refused` (431) if they are too large together."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if sum(map(len, headers.values())) > reading.HEADER_BYTES:
        raise Refused(431, f"the headers have more than {reading.HEADER_BYTES} bytes", code="headers_too_large")
    return headers
