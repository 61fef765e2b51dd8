"""``/v1/batches``: many requests in a file, their answers in another, in OpenAI's shapes.

    upload a file of lines {"custom_id", "method": "POST", "url", "body"}  ->  POST /v1/batches  ->  poll  ->  download the output file

Each line takes the road that a request takes (`edge.py`): let in as whoever made the batch, limits, decision, budget, trace. A line that is refused for
the moment (429, 503), or whose target cannot be reached, is asked again later, in the batch's own time; all its other lines wait as long, and other batches go on meanwhile.
What a target charges for calls of a batch is `Profile.batch_price`.

One process at a time works on a batch (a lease of the store). A line's answer is in the store before the next thing is done, so a batch that is
cut off, by `kill -9` too, goes on where it was, in whichever process is left: lines that were under way are asked again, others are not.

States: validating, in_progress, completed; failed (the file is wrong: every error with its line; or it was deleted before all of it was asked);
cancelling, cancelled; expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from fairlead.errors import FairleadError, StoreError
from fairlead.gateway.files import Files, Jsonl, encode
from fairlead.gateway.refusal import Refused
from fairlead.store import Connection, T

if TYPE_CHECKING:
    from fairlead.gateway.app import Gateway
    from fairlead.gateway.keys import Caller

log = logging.getLogger(__name__)

INSIDE: Final = "fairlead.inside"
"""Where a scope that the gateway itself made says whose request it is: no client can write there."""
LEASE_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
TIDY_SECONDS: Final = 3600.0
"""From one look for files that are too old to the next."""
LINES: Final = 50_000
FIRST_SECONDS: Final = 0.5
"""Until the store is tried again with what came of a line; doubled each time."""
REST_SECONDS: Final = 1.0
"""How long a batch rests after its first refusal; after each further one in a row twice as long, up to a minute."""
GIVE_WAY_SECONDS: Final = 3.0
"""A batch that is to rest for longer gives way to the next one."""
MOST_ERRORS: Final = 100
WINDOWS: Final = {"1h": 3600.0, "24h": 86400.0, "7d": 604800.0}
ENDED: Final = ("completed", "failed", "cancelled", "expired")
PAGE: Final = 500

TABLES: Final = """
CREATE TABLE IF NOT EXISTS batches(
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL, key_name TEXT NOT NULL, at REAL NOT NULL, status TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS batches_of ON batches(tenant, at);
CREATE INDEX IF NOT EXISTS batches_in ON batches(status);
CREATE TABLE IF NOT EXISTS batches_lines(
  batch TEXT NOT NULL, n INTEGER NOT NULL, ok INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(batch, n));
"""


class Wanted(Struct, frozen=True, kw_only=True):
    """The body of ``POST /v1/batches``."""

    input_file_id: Annotated[str, Meta(max_length=200)]
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None


class Counts(Struct, frozen=True, kw_only=True):
    """How many lines there are, and how many have their answer."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class LineError(Struct, frozen=True, kw_only=True):
    """What is wrong with a line of the input."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Errors(Struct, frozen=True, kw_only=True):
    """What is wrong with a file."""

    data: list[LineError]
    object: str = "list"


class Batch(Struct, frozen=True, kw_only=True):
    """A batch as it is told of: OpenAI's shape."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    created_at: int
    expires_at: int
    object: str = "batch"
    errors: Errors | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: Counts = Counts()
    metadata: dict[str, str] | None = None


class BatchList(Struct, frozen=True, kw_only=True):
    """Batches, newest first."""

    data: list[Batch]
    object: str = "list"
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class _Line(Struct, frozen=True, kw_only=True):
    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    url: str
    body: Raw
    method: str = "POST"


class _Asked(Struct):
    stream: bool | None = None


class _Row(Struct, frozen=True, kw_only=True):
    """A batch, and on whose behalf."""

    tenant: str
    key: str
    batch: Batch


class _Code(Struct):
    code: str | None = None


class _Failed(Struct):
    error: _Code


_line = msgspec.json.Decoder(_Line)
_batch = msgspec.json.Decoder(Batch)
_asked = msgspec.json.Decoder(_Asked)


class Batches:
    """The batches of a gateway, and the worker that answers their lines.

    Args:
        gateway: whose edges answer.
        files: where input and output are kept.
        concurrent: says how many lines may be under way at once in this process.
    """

    def __init__(self, gateway: Gateway, files: Files, *, concurrent: Callable[[], int]) -> None:
        self.gateway, self.files, self.concurrent = gateway, files, concurrent
        self.store = files.store
        self.owner = token_hex(8)
        self.store.tables(TABLES)
        self._task: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._rests: dict[str, _Rest] = {}
        """Of the batches that were refused something."""
        self._tidied = -math.inf

    # ------------------------------------------------------------------------------------------------ its life

    async def start(self) -> None:
        """Begin to look for batches."""
        self._task = asyncio.create_task(self._work(), name="fairlead-batches")

    async def stop(self) -> None:
        """Leave batches where they are: whoever has the store goes on with them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    # ------------------------------------------------------------------------------------------------ asking

    async def create(self, wanted: Wanted, *, tenant: str, caller: Caller | None) -> Batch:
        """Begin a batch. Raises `Refused`."""
        if wanted.endpoint not in self.gateway.faces_by_path:
            known = ", ".join(sorted(self.gateway.faces_by_path))
            raise Refused(400, f"endpoint: {wanted.endpoint[:100]!r} is none; known: {known}", param="endpoint")
        window = WINDOWS.get(wanted.completion_window)
        if window is None:
            raise Refused(400, f"completion_window: send one of {', '.join(WINDOWS)}", param="completion_window")
        if wanted.metadata is not None and (
            len(wanted.metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in wanted.metadata.items())
        ):
            raise Refused(400, "metadata: at most 16 pairs of 64 and 512 characters", param="metadata")
        file = await self.files.get(wanted.input_file_id, tenant if caller is not None and caller.tenant else None)
        now = time.time()
        batch = Batch(
            id=f"batch_{token_hex(12)}",
            endpoint=wanted.endpoint,
            input_file_id=file.id,
            completion_window=wanted.completion_window,
            status="validating",
            created_at=int(now),
            expires_at=int(now + window),
            metadata=wanted.metadata,
        )
        row = (batch.id, tenant, "" if caller is None else caller.key, now, batch.status, _text(batch))
        await self.store.transact(
            "batch", lambda c: c.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", row).rowcount
        )
        self._look.set()
        return batch

    async def get(self, id: str, tenant: str | None) -> Batch:
        """Return a batch. Raises `Refused` (404) if it is not there, or another tenant's (`tenant` None: any)."""
        return (await self._row(id, tenant)).batch

    async def listed(self, tenant: str | None, *, after: str | None, limit: int) -> BatchList:
        """List batches, newest first."""
        where, values = ["1 = 1"], []
        if tenant is not None:
            where.append("tenant = ?")
            values.append(tenant)
        if after is not None:
            where.append("(at, id) < (SELECT at, id FROM batches WHERE id = ?)")
            values.append(after)
        rows = await self.store.fetch(
            f"SELECT id, body FROM batches WHERE {' AND '.join(where)} ORDER BY at DESC, id DESC LIMIT ?",
            (*values, limit + 1),
        )
        found = [await self._counted(_batch.decode(body)) for _, body in rows[:limit]]
        first, last = (found[0].id, found[-1].id) if found else (None, None)
        return BatchList(data=found, has_more=len(rows) > limit, first_id=first, last_id=last)

    async def cancel(self, id: str, tenant: str | None) -> Batch:
        """Ask no more of a batch; what is answered by then is its output. Raises `Refused` (404, or 409 if it has ended)."""
        await self._row(id, tenant)

        def work(c: Connection) -> Batch:
            (body,) = c.execute("SELECT body FROM batches WHERE id = ?", (id,)).fetchone()
            batch = _batch.decode(body)
            if batch.status in ("cancelling", *ENDED):
                raise Refused(409, f"the batch is {batch.status}", code="batch_ended")
            return _set(c, batch, status="cancelling", cancelling_at=int(time.time()))

        cancelled = await self.store.transact("batch", work)
        self._rests.pop(id, None)
        self._look.set()
        return await self._counted(cancelled)

    async def _row(self, id: str, tenant: str | None) -> _Row:
        rows = await self.store.fetch("SELECT tenant, key_name, body FROM batches WHERE id = ?", (id,))
        if not rows or tenant not in (None, rows[0][0]):
            raise Refused(404, f"no batch has the id {id[:100]!r}", code="batch_not_found", param="batch_id")
        owner, key, body = rows[0]
        return _Row(tenant=owner, key=key, batch=await self._counted(_batch.decode(body)))

    async def _counted(self, batch: Batch) -> Batch:
        if batch.status in ENDED or batch.status == "validating":
            return batch
        ok, failed = await self._done(batch.id)
        counts = Counts(total=batch.request_counts.total, completed=ok, failed=failed)
        return msgspec.structs.replace(batch, request_counts=counts)

    async def _done(self, id: str) -> tuple[int, int]:
        query = "SELECT coalesce(sum(ok), 0), count(*) FROM batches_lines WHERE batch = ?"
        ((ok, all_),) = await self.store.fetch(query, (id,))
        return int(ok), int(all_) - int(ok)

    # ------------------------------------------------------------------------------------------------ answering

    async def _work(self) -> None:
        pause = LOOK_SECONDS
        while True:
            self._look.clear()
            try:
                await self._step()
                if time.monotonic() >= self._tidied + TIDY_SECONDS:
                    self._tidied = time.monotonic()
                    await self.files.expire(time.time())
                    kept, seconds = self.gateway.kept, self.gateway.keep_seconds
                    if kept is not None and seconds is not None:
                        await kept.forget(before=time.time() - seconds)
                pause = LOOK_SECONDS
            except FairleadError as e:
                log.error("batches cannot be worked on now: %s", e)
                pause = min(30.0, 2 * pause)
            except Exception:
                # The wall of the worker: one batch that breaks it must not end all others.
                log.exception("a batch broke; it is tried again")
                pause = min(30.0, 2 * pause)
            try:
                async with asyncio.timeout(pause):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _step(self) -> None:
        """Work on every batch that nobody else works on, one after the other."""
        marks = ", ".join("?" * len(ENDED))
        rows = await self.store.fetch(
            f"SELECT id FROM batches WHERE status NOT IN ({marks}) ORDER BY at LIMIT ?", (*ENDED, PAGE)
        )
        broke: Exception | None = None
        for (id,) in rows:
            rest = self._rests.get(id)
            if (rest is not None and rest.gives_way) or not await self._lease(id):
                continue
            stopped, ended = asyncio.Event(), asyncio.Event()
            keeper = asyncio.create_task(self._keep(id, stopped, ended))
            try:
                await self._answer(id, stopped)
            except Exception as e:  # noqa: BLE001 - a wall: one batch must not keep the others waiting
                broke = e.exceptions[0] if isinstance(e, ExceptionGroup) else e
                if isinstance(broke, StoreError):
                    break
            finally:
                # The keeper ends by itself: a lease that it is just taking would outlast us.
                ended.set()
                await asyncio.shield(keeper)
                await asyncio.to_thread(self.store.lease, f"batch:{id}", self.owner, 0.0)
        if broke is not None:
            raise broke

    async def _lease(self, id: str) -> bool:
        return await asyncio.to_thread(self.store.lease, f"batch:{id}", self.owner, LEASE_SECONDS)

    async def _keep(self, id: str, stopped: asyncio.Event, ended: asyncio.Event) -> None:
        """Renew the lease of a batch until its work has `ended`; where it is another's, or may be, have the work `stopped`."""
        until = time.monotonic() + LEASE_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), LEASE_SECONDS / 3)
                return
            began = time.monotonic()
            try:
                if await self._lease(id):
                    until = began + LEASE_SECONDS
                    continue
                log.warning("batch %s is another process's now", id)
                break
            except Exception as e:  # noqa: BLE001 - a wall: whatever it is, the lease is not renewed
                log.warning("the lease of batch %s cannot be renewed now: %s", id, e)
        stopped.set()

    async def _answer(self, id: str, stopped: asyncio.Event) -> None:
        """Work on one batch until it has ended, or `stopped` says that it is another's."""
        row = await self._row(id, None)
        batch = row.batch
        if batch.status == "validating":
            try:
                total, wrong = await self._validate(batch)
            except Refused as e:  # its input is gone
                total, wrong = 0, [LineError(code="invalid_file", message=e.message)]
            if wrong:
                await self._change(
                    id, status="failed", failed_at=int(time.time()), errors=Errors(data=wrong), request_counts=Counts()
                )
                return
            batch = await self._change(
                id, status="in_progress", in_progress_at=int(time.time()), request_counts=Counts(total=total)
            )
        if batch.status == "in_progress":
            through = await self._ask_all(row, batch, stopped)
            batch = (await self._row(id, None)).batch
            if not through and batch.status == "in_progress" and time.time() < batch.expires_at:
                return  # it gave way, and is gone on with later
        if stopped.is_set():
            return
        self._rests.pop(id, None)
        if batch.status in ("in_progress", "cancelling"):
            over = batch.status == "in_progress" and time.time() >= batch.expires_at
            then = "cancelled" if batch.status == "cancelling" else "expired" if over else "completed"
            await self._finish(row, batch, then)

    async def _validate(self, batch: Batch) -> tuple[int, list[LineError]]:
        """Check every line; return how many there are, and what is wrong."""
        wrong: list[LineError] = []
        seen: set[str] = set()
        n = 0
        most = self.gateway.settings.max_body_bytes
        async for raw in self.files.lines(batch.input_file_id, most):
            n += 1
            if n > LINES:
                wrong.append(LineError(code="too_many_lines", message=f"a batch has at most {LINES} lines", line=n))
                break
            if len(raw) > most:
                problem: tuple[str, str] | None = (
                    "line_too_long",
                    f"a line has at most {most} bytes (gateway.max_body_bytes)",
                )
            else:
                problem = _problem(raw, batch.endpoint, seen)
            if problem is not None:
                wrong.append(LineError(code=problem[0], message=problem[1], line=n))
                if len(wrong) >= MOST_ERRORS:
                    break
        if not n and not wrong:
            wrong.append(LineError(code="empty_file", message="the file has no lines"))
        return n, wrong

    async def _ask_all(self, row: _Row, batch: Batch, stopped: asyncio.Event) -> bool:
        """Ask every line that has no answer yet, `concurrent` at a time; return whether all have been, or the input is gone. If not, it was cancelled,
        has expired, gives way to others or was `stopped`."""
        rows = await self.store.fetch("SELECT n FROM batches_lines WHERE batch = ?", (batch.id,))
        answered = {int(n) for (n,) in rows}
        rest = self._rests.setdefault(batch.id, _Rest())
        asking = _Asking(row, batch, asyncio.Semaphore(max(1, self.concurrent())), stopped, rest)
        async with asyncio.TaskGroup() as group:
            n = 0
            try:
                async for raw in self.files.lines(batch.input_file_id):
                    n += 1
                    if n in answered:
                        continue
                    await asking.room.acquire()
                    if asking.over:
                        asking.room.release()
                        asking.cut = True
                        break
                    group.create_task(self._ask(asking, n, raw))
            except Refused as e:  # deleted meanwhile: what is under way ends, and `_finish` says what is missing
                log.warning("batch %s: %s", batch.id, e.message)
        return not asking.cut

    async def _ask(self, asking: _Asking, n: int, raw: bytes) -> None:
        """Ask one line, again and again if it is refused for the moment, and keep what came of it."""
        batch = asking.batch
        try:
            line = _line.decode(raw)
            while True:
                await asking.rested()
                rows = await self._surely(
                    asking, lambda: self.store.fetch("SELECT status FROM batches WHERE id = ?", (batch.id,))
                )
                if not rows or rows[0][0] != "in_progress":
                    asking.ended = True
                if asking.over:
                    asking.cut = True
                    return
                try:
                    code, headers, body = await self._inside(asking.row, batch.endpoint, bytes(line.body))
                except Exception:
                    # A wall: one line must not take those beside it down, which may have been paid for.
                    log.exception("line %d of batch %s broke", n, batch.id)
                    broken = Refused(500, "the gateway failed; its log tells more", code="internal_error")
                    code, headers, body = 500, {}, broken.body
                refused = code in (429, 503) or (code == 502 and _unreached(body))
                if not refused or headers.get(b"x-should-retry") == b"false":
                    asking.rest_.refusals = 0
                    break
                asking.rest(_retry_after(headers) or 0.0)
            # One that was refused before anything was decided has its id under the clients' own name for it alone.
            id = (headers.get(b"x-fairlead-id") or headers.get(b"x-request-id") or b"").decode() or None
            if b"\n" in body or b"\r" in body:  # a line of the output is one line
                body = msgspec.json.format(body, indent=-1)
            reply = {"status_code": code, "request_id": id, "body": Raw(body)}
            kept = encode(
                {"id": f"batch_req_{token_hex(8)}", "custom_id": line.custom_id, "response": reply, "error": None}
            )
            await self._surely(
                asking,
                lambda: self.store.transact("line of a batch", lambda c: _keep_line(c, batch.id, n, code == 200, kept)),
            )
        finally:
            asking.room.release()

    async def _surely(self, asking: _Asking, do: Callable[[], Awaitable[T]]) -> T | None:
        """Do something with the store, again and again while that is gone: what was paid for is not thrown away, nor the lines beside it. None:
        the batch is another's meanwhile, or has expired."""
        pause = FIRST_SECONDS
        while True:
            try:
                return await do()
            except StoreError as e:
                if asking.stopped.is_set() or time.time() >= asking.batch.expires_at:
                    return None
                log.error("batch %s: the store is tried again in %g s: %s", asking.batch.id, pause, e)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asking.stopped.wait(), pause)
            pause = min(30.0, 2.0 * pause)

    async def _inside(self, row: _Row, endpoint: str, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send a request down the road that every request takes; return (status, headers, body)."""
        caller = None
        if row.key:
            caller = self.gateway.door.keyring.caller(row.key)
            if caller is None:
                error = Refused(401, "the key that made this batch has expired or is there no more", code="key_revoked")
                return error.status, {}, error.body
        scope = {
            "type": "http",
            "method": "POST",
            "path": endpoint,
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
            INSIDE: Insider(caller=caller),
        }
        sent: list[dict[str, Any]] = []
        asked = False
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await gone.wait()
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.gateway(scope, receive, send)
        reply = b"".join(m.get("body", b"") for m in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), reply

    async def _finish(self, row: _Row, batch: Batch, then: str) -> None:
        """Write the output files, then say how it ended."""
        now = int(time.time())
        if batch.status == "in_progress":
            batch = await self._change(batch.id, finalizing_at=now)
        ok, failed = await self._done(batch.id)
        if then == "completed" and ok + failed < batch.request_counts.total:
            missing = batch.request_counts.total - ok - failed
            text = f"the input file is there no more, or not all of it: {missing} lines were not asked"
            batch, then = await self._change(batch.id, errors=_errors(text)), "failed"
        names: dict[str, str] = {}
        for field, good, count in (("output_file_id", 1, ok), ("error_file_id", 0, failed)):
            if count:
                file = await self.files.put(
                    self._written(batch.id, good),
                    tenant=row.tenant,
                    filename=f"{batch.id}_{'output' if good else 'error'}.jsonl",
                    purpose="batch_output",
                    most_bytes=math.inf,  # it is paid for
                )
                names[field] = file.id
        counts = Counts(total=batch.request_counts.total, completed=ok, failed=failed)
        stamp = {f"{then}_at": int(time.time())}
        ended = await self._change(batch.id, status=then, request_counts=counts, **stamp, **names, drop_lines=True)
        for field, name in names.items():
            if getattr(ended, field) != name:  # another process was first, and its files stand
                await self.files.delete(name, None)

    async def _written(self, id: str, ok: int) -> AsyncIterator[bytes]:
        out, n = Jsonl(), 0
        query = "SELECT n, body FROM batches_lines WHERE batch = ? AND ok = ? AND n > ? ORDER BY n LIMIT ?"
        while rows := await self.store.fetch(query, (id, ok, n, PAGE)):
            for n, body in rows:  # noqa: B007 - the last one is where the next page begins
                for piece in out.add(bytes(body)):
                    yield piece
        if rest := out.rest():
            yield rest

    async def _change(self, id: str, *, drop_lines: bool = False, **fields: Any) -> Batch:
        def work(c: Connection) -> Batch:
            (body,) = c.execute("SELECT body FROM batches WHERE id = ?", (id,)).fetchone()
            now = _batch.decode(body)
            if now.status in ENDED:
                return now  # by another process, which had the lease when this one had lost it
            if drop_lines:
                c.execute("DELETE FROM batches_lines WHERE batch = ?", (id,))
            if now.status == "cancelling" and fields.get("status") == "in_progress":
                return now  # it was cancelled while it was checked
            return _set(c, now, **fields)

        return await self.store.transact("batch", work)


class _Rest:
    """How long a batch is to ask nothing, since what was refused to one of its lines would be to the next."""

    def __init__(self) -> None:
        self.refusals = 0
        """In a row; those of lines that were under way together count once."""
        self.until = -math.inf

    @property
    def left(self) -> float:
        """Seconds to go."""
        return self.until - time.monotonic()

    @property
    def gives_way(self) -> bool:
        """Whether there is time for another batch."""
        return self.left > GIVE_WAY_SECONDS


class _Asking:
    """The lines of one batch that are being asked."""

    def __init__(self, row: _Row, batch: Batch, room: asyncio.Semaphore, stopped: asyncio.Event, rest: _Rest) -> None:
        self.row, self.batch, self.room, self.stopped, self.rest_ = row, batch, room, stopped, rest
        self.ended = False
        """Whether the batch was cancelled."""
        self.cut = False
        """Whether a line was not asked."""

    @property
    def over(self) -> bool:
        """Whether no line is to be asked any more, or not now."""
        if self.ended or self.stopped.is_set() or self.rest_.gives_way:
            return True
        return time.time() >= self.batch.expires_at

    def rest(self, seconds: float) -> None:
        """Ask nothing for so long, or for longer after refusals in a row."""
        rest = self.rest_
        if rest.left <= 0.0:
            rest.refusals += 1
        seconds = max(seconds, REST_SECONDS * 2.0 ** min(rest.refusals - 1, 10))
        rest.until = max(rest.until, time.monotonic() + min(60.0, seconds * (1.0 + 0.2 * random.random())))

    async def rested(self) -> None:
        """Wait until lines may be asked again."""
        while not self.over and self.rest_.left > 0.0:
            await asyncio.sleep(max(0.0, self.rest_.left))


class Insider(Struct, frozen=True, kw_only=True):
    """Whose request it is that the gateway asks itself."""

    caller: Caller | None
    batch: bool = True


def _set(connection: Connection, batch: Batch, **fields: Any) -> Batch:
    batch = msgspec.structs.replace(batch, **fields)
    connection.execute("UPDATE batches SET status = ?, body = ? WHERE id = ?", (batch.status, _text(batch), batch.id))
    return batch


def _keep_line(connection: Connection, batch: str, n: int, ok: bool, body: bytes) -> None:
    row = connection.execute("SELECT status FROM batches WHERE id = ?", (batch,)).fetchone()
    if row is None or row[0] in ENDED:
        return
    # Two processes may have asked the same line, if one lost its lease: the first answer stands.
    connection.execute(
        "INSERT INTO batches_lines VALUES (?, ?, ?, ?) ON CONFLICT(batch, n) DO NOTHING", (batch, n, int(ok), body)
    )


def _text(batch: Batch) -> str:
    return encode(batch).decode()


def _errors(message: str) -> Errors:
    return Errors(data=[LineError(code="invalid_file", message=message)])


def _problem(raw: bytes, endpoint: str, seen: set[str]) -> tuple[str, str] | None:
    """Say what is wrong with a line: (code, message)."""
    try:
        line = _line.decode(raw)
        asked = _asked.decode(line.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        return "invalid_json_line", f"not a request: {e}"
    if line.custom_id in seen:
        return "duplicate_custom_id", f"the custom_id {line.custom_id[:100]!r} is there twice"
    seen.add(line.custom_id)
    if line.method != "POST":
        return "invalid_method", "method must be POST"
    if line.url != endpoint:
        return "mismatched_endpoint", f"url is {line.url[:100]!r}, and the batch's endpoint {endpoint}"
    if asked.stream:
        return "stream", "an answer of a batch cannot be streamed"
    return None


def _unreached(body: bytes) -> bool:
    """Whether an error says that the target could not be reached, so that nothing was paid for."""
    try:
        return msgspec.json.decode(body, type=_Failed).error.code == "upstream_unavailable"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _retry_after(headers: dict[bytes, bytes]) -> float | None:
    try:
        return float(headers[b"retry-after"])
    except (KeyError, ValueError):
        return None
