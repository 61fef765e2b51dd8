"""Files and batches, with OpenAI's own client; each tenant sees its own; a batch that is cut off goes on where it was."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest

from fairlead.build import build
from fairlead.config import Config, make
from fairlead.errors import StoreError
from fairlead.gateway import batches, files
from fairlead.gateway.app import Gateway
from fairlead.gateway.batches import Batches
from fairlead.gateway.files import Files
from fairlead.gateway.keys import hashed
from fairlead.gateway.refusal import Refused
from fairlead.gateway.server import Server

KEYS = {name: f"fl-{name}-0123456789" for name in ("ann", "bob", "ops")}
PRICED = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0, "batch_price": 0.5}


@asynccontextmanager
async def serving(tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Gateway, str]]:
    config = make(
        {
            "targets": {"a": {"type": "scripted", "replies": ["four"], "profile": PRICED, **more.pop("target", {})}},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
            "store": {"path": str(tmp_path / "s.sqlite")},
            "gateway": {
                "port": 0,
                "keys": {
                    "ann": {"hash": hashed(KEYS["ann"]), "tenant": "a"},
                    "bob": {"hash": hashed(KEYS["bob"]), "tenant": "b"},
                    "ops": hashed(KEYS["ops"]),
                },
                "files": {"max_bytes": 1_000_000, **more.pop("files", {})},
            },
            **more,
        }
    )
    async with Gateway.of(config) as gateway, Server(gateway, host="127.0.0.1", port=0) as server:
        yield gateway, server.url


def client(url: str, who: str = "ann") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEYS[who], max_retries=0)


def lines(n: int, **more: Any) -> bytes:
    body = {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}]}
    made = [
        {"custom_id": f"c{i}", "method": "POST", "url": "/v1/chat/completions", "body": body, **more} for i in range(n)
    ]
    return "\n".join(json.dumps(line) for line in made).encode()


async def done(api: openai.AsyncOpenAI, id: str, seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while True:
        batch = await api.batches.retrieve(id)
        if batch.status in ("completed", "failed", "cancelled", "expired"):
            return batch
        assert time.monotonic() < until, batch
        await asyncio.sleep(0.05)


async def begin(api: openai.AsyncOpenAI, data: bytes) -> Any:
    file = await api.files.create(file=("in.jsonl", data), purpose="batch")
    return await api.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"for": "a test"}
    )


async def test_a_batch_from_upload_to_download(tmp_path: Path) -> None:
    async with serving(tmp_path) as (gateway, url), client(url) as api:
        batch = await begin(api, lines(30))
        assert batch.status == "validating"
        batch = await done(api, batch.id)
        assert (batch.status, batch.metadata) == ("completed", {"for": "a test"})
        assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (30, 30, 0)
        out = [json.loads(line) for line in (await api.files.content(batch.output_file_id)).text.splitlines()]
        assert [o["custom_id"] for o in out] == [f"c{i}" for i in range(30)]
        assert {o["response"]["body"]["choices"][0]["message"]["content"] for o in out} == {"four"}
        assert batch.error_file_id is None
        trace = await gateway.router.store.get(out[0]["response"]["request_id"])
        assert trace is not None
        assert (trace.query.identity.key, trace.query.identity.tenant) == ("ann", "a")
        assert trace.outcome.tokens is not None
        assert trace.usd == pytest.approx(0.5 * (trace.outcome.tokens.input + trace.outcome.tokens.output) / 1e6)
        listed = await api.batches.list()
        assert [b.id for b in listed.data] == [batch.id]


async def test_lines_that_fail_have_a_file_of_their_own(tmp_path: Path) -> None:
    bad = json.dumps(
        {
            "custom_id": "bad",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "nobody", "messages": []},
        }
    ).encode()
    async with serving(tmp_path) as (_, url), client(url) as api:
        batch = await done(api, (await begin(api, lines(2) + b"\n" + bad)).id)
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
        (error,) = [json.loads(line) for line in (await api.files.content(batch.error_file_id)).text.splitlines()]
        assert (error["custom_id"], error["response"]["status_code"]) == ("bad", 400)
        assert re.fullmatch("chatcmpl-[0-9a-f]{28}", error["response"]["request_id"]), "one that was refused, too"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"not json", "invalid_json_line"),
        (lines(1) + b"\n" + lines(1), "duplicate_custom_id"),
        (lines(1, url="/v1/embeddings"), "mismatched_endpoint"),
        (lines(1, method="GET"), "invalid_method"),
        (lines(1, body={"model": "auto", "messages": [], "stream": True}), "stream"),
        (b"\xff\xfe" * 40, "invalid_json_line"),
        (b"[" * 5000, "invalid_json_line"),
    ],
)
async def test_a_file_that_is_wrong_says_where(tmp_path: Path, data: bytes, code: str) -> None:
    async with serving(tmp_path) as (gateway, url), client(url) as api:
        batch = await done(api, (await begin(api, data)).id)
        assert batch.status == "failed"
        assert batch.errors.data[0].code == code
        assert gateway.router.store.count() == 0


async def test_a_line_that_is_too_long_for_a_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as (gateway, url), client(url) as api:
        gateway.settings = msgspec.structs.replace(gateway.settings, max_body_bytes=2000)
        batch = await done(api, (await begin(api, lines(1) + b"\n" + b"x" * 2001)).id)
        assert batch.status == "failed"
        assert [(e.code, e.line) for e in batch.errors.data] == [("line_too_long", 2)]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_lines_are_read_whole_however_they_are_cut(size: int) -> None:
    data = b"one\n\n  two  \r\nthree" + b"e" * 50 + b"\n" + b"\n\nfour"

    class Cut(Files):
        def __init__(self) -> None:
            pass

        async def pieces(self, id: str) -> AsyncIterator[bytes]:
            for i in range(0, len(data), size):
                yield data[i : i + size]

    assert [line async for line in Cut().lines("f")] == data.split()
    cut = [line async for line in Cut().lines("f", 10)]
    assert cut == [b"one", b"two", b"threeeeeeee", b"four"], "one byte more than it may have tells of it"


async def test_tenants_see_their_own_only(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as (_, url),
        client(url, "ann") as ann,
        client(url, "bob") as bob,
        client(url, "ops") as ops,
    ):
        file = await ann.files.create(file=("in.jsonl", lines(1)), purpose="batch")
        batch = await begin(ann, lines(1))
        for wrong in (
            bob.files.retrieve(file.id),
            bob.files.content(file.id),
            bob.files.delete(file.id),
            bob.batches.retrieve(batch.id),
            bob.batches.cancel(batch.id),
            bob.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"),
        ):
            with pytest.raises(openai.NotFoundError):
                await wrong
        assert (await bob.files.list()).data == []
        assert (await bob.batches.list()).data == []
        assert len((await ops.files.list()).data) >= 2
        await done(ann, batch.id)
        assert (await ann.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await ann.files.retrieve(file.id)


async def test_a_batch_goes_on_after_its_process_is_gone(tmp_path: Path) -> None:
    """Lines that were answered are not asked again, the others are."""
    slow = {"replies": [{"text": "four", "delay_seconds": 0.05}]}
    async with serving(tmp_path, target=slow, files={"batch_concurrent": 2}) as (gateway, url), client(url) as api:
        batch = await begin(api, lines(24))
        while (await api.batches.retrieve(batch.id)).request_counts.completed < 6:
            await asyncio.sleep(0.02)
        await gateway.shelf.batches.stop()
        before = (await api.batches.retrieve(batch.id)).request_counts.completed
        assert before < 24
    async with serving(tmp_path, target=slow) as (gateway, url), client(url) as api:
        ended = await done(api, batch.id)
        assert (ended.status, ended.request_counts.completed) == ("completed", 24)
        assert 24 <= gateway.router.store.count() <= 24 + 2, "only what was under way was asked twice"


async def test_cancel(tmp_path: Path) -> None:
    slow = {"replies": [{"text": "four", "delay_seconds": 0.05}]}
    async with serving(tmp_path, target=slow, files={"batch_concurrent": 1}) as (_, url), client(url) as api:
        batch = await begin(api, lines(100))
        while (await api.batches.retrieve(batch.id)).request_counts.completed < 2:
            await asyncio.sleep(0.02)
        assert (await api.batches.cancel(batch.id)).status == "cancelling"
        ended = await done(api, batch.id)
        assert ended.status == "cancelled"
        kept = (await api.files.content(ended.output_file_id)).text.splitlines()
        assert len(kept) == ended.request_counts.completed < 100
        with pytest.raises(openai.ConflictError):
            await api.batches.cancel(batch.id)


async def test_refused_for_the_moment_is_asked_again(tmp_path: Path) -> None:
    limited = {
        "replies": [{"error": {"kind": "rate_limited", "retry_after_seconds": 0.1}}, "four"],
    }
    async with (
        serving(tmp_path, target=limited, retries={"most": 0}, fallbacks=0) as (_, url),
        client(url) as api,
    ):
        batch = await done(api, (await begin(api, lines(1))).id)
        assert batch.request_counts.completed == 1


async def test_uploads_are_bounded_and_whole(tmp_path: Path) -> None:
    async with serving(tmp_path, files={"max_bytes": 1000}) as (gateway, url), client(url) as api:
        with pytest.raises(openai.APIStatusError) as caught:
            await api.files.create(file=("in.jsonl", b"x" * 200_000), purpose="batch")
        assert caught.value.status_code == 413
        assert await gateway.router.store.fetch("SELECT count(*) FROM files") == [(0,)]
        assert await gateway.router.store.fetch("SELECT count(*) FROM files_pieces") == [(0,)]
        file = await api.files.create(file=("../../etc/passwd", b"y" * 900), purpose="batch")
        assert "/" not in file.filename
        assert (await api.files.content(file.id)).read() == b"y" * 900


async def test_old_files_go(tmp_path: Path) -> None:
    async with serving(tmp_path, files={"days": 1}) as (gateway, url), client(url) as api:
        await api.files.create(file=("in.jsonl", b"x"), purpose="batch")
        files = gateway.shelf.files
        assert await files.expire(time.time()) == 0
        assert await files.expire(time.time() + 2 * 86400) == 1
        assert (await api.files.list()).data == []


# ----------------------------------------------------------------------------------------------------- what goes wrong


async def test_a_line_that_breaks_fails_alone_and_a_batch_that_breaks_lets_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (_, url), client(url) as ann, client(url, "bob") as bob:
        inside, answer = Batches._inside, Batches._answer

        async def breaks(self: Batches, row: Any, endpoint: str, body: bytes) -> Any:
            if b"3+3" in body:
                raise ZeroDivisionError
            return await inside(self, row, endpoint, body)

        broken: list[str] = []

        async def fails(self: Batches, id: str, stopped: Any) -> None:
            if not broken:
                broken.append(id)
                raise ZeroDivisionError
            await answer(self, id, stopped)

        monkeypatch.setattr(Batches, "_inside", breaks)
        bad = {"model": "auto", "messages": [{"role": "user", "content": "3+3?"}]}
        line = json.dumps({"custom_id": "bad", "method": "POST", "url": "/v1/chat/completions", "body": bad})
        batch = await done(ann, (await begin(ann, lines(5) + b"\n" + line.encode())).id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 5, 1)
        error = json.loads((await ann.files.content(batch.error_file_id)).text)
        assert (error["custom_id"], error["response"]["status_code"]) == ("bad", 500)

        monkeypatch.setattr(Batches, "_answer", fails)
        first, second = await begin(ann, lines(1)), await begin(bob, lines(1))
        assert (await done(bob, second.id)).status == "completed"
        assert broken
        assert (await done(ann, first.id)).status == "completed", "it is tried again"


async def test_an_output_may_be_larger_than_what_may_be_uploaded(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, files={"max_bytes": 4000}, target={"replies": ["x" * 1000]}) as (_, url),
        client(url) as api,
    ):
        batch = await done(api, (await begin(api, lines(15))).id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 15)
        assert len((await api.files.content(batch.output_file_id)).text) > 15_000


async def test_a_lease_that_cannot_be_renewed_once_is_renewed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One renewal fails; the next one works, and nobody else takes the batch. Where none works, the work is stopped before the lease lapses."""
    monkeypatch.setattr(batches, "LEASE_SECONDS", 0.3)
    async with (
        serving(tmp_path, target={"replies": [{"text": "4", "delay_seconds": 0.9}]}) as (gateway, url),
        client(url) as api,
    ):
        worker, real = gateway.shelf.batches, gateway.shelf.batches.store.lease
        failures = [1]

        def lease(name: str, owner: str, seconds: float) -> bool:
            if seconds and failures and gateway.router.under_way:
                failures.pop()
                raise StoreError("locked")
            return real(name, owner, seconds)

        monkeypatch.setattr(worker.store, "lease", lease)
        batch = await begin(api, lines(2))
        async with asyncio.timeout(10):
            while not gateway.router.under_way:
                await asyncio.sleep(0.01)
        taken = []
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            taken.append(await asyncio.to_thread(real, f"batch:{batch.id}", "another", 0.3))
            await asyncio.sleep(0.02)
        assert not failures
        assert not any(taken)
        assert (await done(api, batch.id)).request_counts.completed == 2

        failures += [1] * 1000
        calls = gateway.router.store.count()
        batch = await begin(api, lines(40))
        await asyncio.sleep(1.5)
        failures.clear()
        assert gateway.router.store.count() - calls <= 2 * 8, "no line was begun after the lease had lapsed"
        assert (await api.batches.retrieve(batch.id)).status == "in_progress"


async def test_lines_outlast_a_target_that_is_gone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused again and again: all lines are answered when it is back."""
    monkeypatch.setattr(batches, "REST_SECONDS", 0.01)
    down = {"error": {"kind": "unavailable", "status": 503}}
    async with (
        serving(
            tmp_path,
            target={"replies": [*[down] * 12, *["four"] * 20]},
            retries={"most": 0},
            breaker={"failures": 1000},
        ) as (_, url),
        client(url) as api,
    ):
        batch = await done(api, (await begin(api, lines(2))).id, seconds=40.0)
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 0)


async def test_an_input_that_is_deleted_is_told(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, target={"replies": [{"text": "4", "delay_seconds": 0.2}]}, files={"batch_concurrent": 1}) as (
            gateway,
            url,
        ),
        client(url) as api,
    ):
        data = lines(3) + b"\n" + b"\n".join([b" " * 300_000] * 3) + b"\n" + lines(6)[len(lines(3)) + 1 :]
        batch = await begin(api, data)
        async with asyncio.timeout(10):
            while not gateway.router.under_way:
                await asyncio.sleep(0.01)
        await api.files.delete(batch.input_file_id)
        batch = await done(api, batch.id)
        assert batch.status == "failed"
        assert "not asked" in batch.errors.data[0].message
        assert 0 < batch.request_counts.completed < 6
        assert batch.output_file_id


async def test_a_key_that_has_expired_asks_no_more(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, target={"replies": [{"text": "4", "delay_seconds": 0.1}]}, files={"batch_concurrent": 1}) as (
            gateway,
            url,
        ),
        client(url) as api,
    ):
        batch = await begin(api, lines(4))
        async with asyncio.timeout(10):
            while not gateway.router.under_way:
                await asyncio.sleep(0.01)
        gateway.door.keyring.lasts["ann"] = time.time() - 1.0
        async with client(url, "ops") as ops:
            batch = await done(ops, batch.id)
        assert batch.request_counts.completed <= 2
        assert batch.request_counts.failed >= 2


async def test_a_number_beyond_all_bounds_fails_its_line_alone(tmp_path: Path) -> None:
    made = [
        f'{{"custom_id": "{field}", "url": "/v1/completions", "body": {{"model": "auto", "prompt": "x", "{field}": {value}}}}}'
        for field, value in (("seed", "1"), ("best_of", "1e999"), ("suffix", "1e999"), ("echo", "1e999"))
    ]
    async with serving(tmp_path) as (_, url), client(url) as api:
        file = await api.files.create(file=("in.jsonl", "\n".join(made).encode()), purpose="batch")
        endpoint: Any = "/v1/completions"
        batch = await api.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
        batch = await done(api, batch.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 3)
        found = [json.loads(line) for line in (await api.files.content(batch.error_file_id)).text.splitlines()]
        assert [o["response"]["status_code"] for o in found] == [400] * 3


async def test_an_upload_that_pauses_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAUSE_SECONDS", 0.2)

    async def pauses() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\nab'
        await asyncio.sleep(5.0)

    headers = {"authorization": f"Bearer {KEYS['ann']}", "content-type": "multipart/form-data; boundary=b"}
    async with serving(tmp_path) as (gateway, url), aiohttp.ClientSession() as http, asyncio.timeout(4):
        async with http.post(url + "/v1/files", data=pauses(), headers=headers) as answer:
            assert answer.status == 408
        assert await gateway.router.store.fetch("SELECT count(*) FROM files") == [(0,)]


async def test_limits_of_files_are_those_of_the_last_reload(tmp_path: Path) -> None:
    limits = {"max_bytes": 2000, "days": 1, "batch_concurrent": 1}

    def load() -> Config:
        return make(
            {
                "targets": {"a": {"type": "scripted", "replies": ["four"]}},
                "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
                "store": {"path": str(tmp_path / "s.sqlite")},
                "gateway": {"files": limits},
            }
        )

    async with Gateway.of(load(), load=load) as gateway:
        limits |= {"max_bytes": 1000, "days": 3, "batch_concurrent": 7}
        await gateway.reload()

        async def piece() -> AsyncIterator[bytes]:
            yield b"x" * 1500

        kept = gateway.shelf.files
        with pytest.raises(Refused, match="more than 1000 bytes"):
            await kept.put(piece(), tenant="", filename="x", purpose="batch")
        file = await kept.put(piece(), tenant="", filename="x", purpose="batch", most_bytes=2000)
        assert file.expires_at == pytest.approx(file.created_at + 3 * 86400, abs=1)
        assert gateway.shelf.batches.concurrent() == 7


async def test_a_batch_that_rests_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "REST_SECONDS", 0.05)
    monkeypatch.setattr(batches, "GIVE_WAY_SECONDS", 0.1)
    down = {"type": "scripted", "replies": [{"error": {"kind": "unavailable", "status": 503}}]}
    settings: dict[str, Any] = {"retries": {"most": 0}, "breaker": {"failures": 1000}}
    async with serving(tmp_path, **settings) as (gateway, url), client(url) as ann, client(url, "bob") as bob:
        await gateway.router.add_target(build("targets", {**down, "name": "down"}))
        stuck = await begin(ann, lines(3).replace(b'"auto"', b'"down"'))
        async with asyncio.timeout(10):
            while not gateway.router.store.count():
                await asyncio.sleep(0.01)
        assert (await done(bob, (await begin(bob, lines(3))).id)).status == "completed"
        assert (await ann.batches.retrieve(stuck.id)).status == "in_progress"
        await ann.batches.cancel(stuck.id)
        batch = await done(ann, stuck.id)
        assert (batch.status, batch.request_counts.completed) == ("cancelled", 0)


async def test_an_answer_that_cannot_be_kept_for_a_moment_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST_SECONDS", 0.01)
    async with serving(tmp_path) as (gateway, url), client(url) as api:
        store = gateway.router.store
        transact, fetch = store.transact, store.fetch
        refused: list[str] = []

        def flaky(name: str, work: Any) -> Any:
            if name == "line of a batch" and refused.count(name) < 3:
                refused.append(name)
                future = asyncio.get_running_loop().create_future()
                future.set_exception(StoreError("the disk is full"))
                return future
            return transact(name, work)

        async def flaky_too(sql: str, params: Any = ()) -> Any:
            if sql.startswith("SELECT status FROM batches") and sql not in refused:
                refused.append(sql)
                raise StoreError("the database is gone")
            return await fetch(sql, params)

        monkeypatch.setattr(store, "transact", flaky)
        monkeypatch.setattr(store, "fetch", flaky_too)
        batch = await done(api, (await begin(api, lines(8))).id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 8)
        assert len(refused) == 4
        assert store.count() == 8, "each line was asked once"


async def test_two_processes_that_both_finish_leave_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has lost its lease goes on for a moment while the other finishes: the first output stands."""
    async with serving(tmp_path) as (gateway, url), client(url) as api:
        own = gateway.shelf.batches
        put, other = own.files.put, []

        async def slow(pieces: Any, **more: Any) -> Any:
            if more["purpose"] == "batch_output" and not other:
                other.append("is finishing")
                row = await own._row(begun.id, None)
                await own._finish(row, row.batch, "completed")
                other.append((await own.get(begun.id, None)).output_file_id)
            return await put(pieces, **more)

        monkeypatch.setattr(own.files, "put", slow)
        begun = await begin(api, lines(3))
        batch = await done(api, begun.id)
        await asyncio.to_thread(own.store.lease, f"batch:{begun.id}", "a test", 30.0)  # both are through
        batch = await api.batches.retrieve(batch.id)
        assert batch.output_file_id == other[1]
        assert len((await api.files.content(batch.output_file_id)).text.splitlines()) == 3
        outputs = [f for f in (await api.files.list()).data if f.purpose == "batch_output"]
        assert [f.id for f in outputs] == [batch.output_file_id]


@pytest.mark.parametrize("mode", ["hangs up", "sets out"])
async def test_upstreams_of_a_batch(tmp_path: Path, mode: str) -> None:
    """One that hangs up once it has the request may charge for it, and is not asked again; one that sets its answers out for the eye."""
    asked = 0

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while head := (await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""):
            found = re.search(rb"(?i)content-length: (\d+)", head)
            assert found is not None
            await reader.readexactly(int(found[1]))
            asked += 1
            if mode == "hangs up":
                break
            message = {"role": "assistant", "content": "four\nor so"}
            body = json.dumps({"id": "x", "choices": [{"index": 0, "message": message}]}, indent=2).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
            break
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    target = {"type": "openai_chat", "model": "m", "base_url": address}
    async with server, serving(tmp_path, targets={"a": target}) as (_, url), client(url) as api:
        batch = await done(api, (await begin(api, lines(2))).id)
        assert asked == 2
        name = batch.error_file_id if mode == "hangs up" else batch.output_file_id
        kept = [json.loads(line) for line in (await api.files.content(name)).text.splitlines()]
        assert [line["custom_id"] for line in kept] == ["c0", "c1"]
        for line in kept:
            said = line["response"]["body"]
            if mode == "hangs up":
                assert (line["response"]["status_code"], said["error"]["code"]) == (502, "upstream_hung_up")
            else:
                assert said["choices"][0]["message"]["content"] == "four\nor so"


async def test_a_batch_that_gives_way_goes_on_though_a_line_under_way_outlasts_its_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "REST_SECONDS", 0.2)
    monkeypatch.setattr(batches, "GIVE_WAY_SECONDS", 0.05)
    inside, asked = Batches._inside, 0

    async def slow(self: Batches, row: Any, endpoint: str, body: bytes) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            return 503, {}, b"{}"
        if asked == 1:
            await asyncio.sleep(0.6)
        return await inside(self, row, endpoint, body)

    monkeypatch.setattr(Batches, "_inside", slow)
    async with serving(tmp_path, files={"batch_concurrent": 2}) as (_, url), client(url) as api:
        batch = await done(api, (await begin(api, lines(6))).id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 6), batch.errors
        assert asked == 7
