"""Every kind of cache keeps the same promises; the shared ones also between processes, over restarts and when they are broken."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from redis_server import PASSWORD, RedisServer

from fairlead.caches import base, sqlite
from fairlead.caches.base import CacheStore, Entry, Index
from fairlead.caches.memory import Memory
from fairlead.caches.redis import Redis
from fairlead.caches.sqlite import SQLite
from fairlead.errors import CacheError, ConfigError

GROUP, OTHER = b"g" * 16, b"h" * 16
PART = b"p" * 16
Make = Callable[..., CacheStore]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return Memory
    if request.param == "sqlite":
        return lambda **more: SQLite(path=str(tmp_path / "deep" / "cache.sqlite"), **{"budget_seconds": 2.0, **more})
    url = request.getfixturevalue("redis_server").url
    fixed = {"url": url, "password": "${FAIRLEAD_TEST_REDIS}", "prefix": f"{tmp_path.name}:", "budget_seconds": 2.0}
    return lambda **more: Redis(**{**fixed, **more})  # type: ignore[arg-type]


@pytest.fixture
def shared(make: Make) -> Make:
    if not make().shared:
        pytest.skip("not shared")
    return make


@contextlib.asynccontextmanager
async def opened(*stores: CacheStore) -> AsyncIterator[None]:
    for store in stores:
        await store.start()
    try:
        yield
    finally:
        for store in stores:
            await store.stop()


def entry(text: str = "four", **more: object) -> Entry:
    return Entry(**{"id": f"t-{text}", "at": 1.0, "target": "small", "text": text, "finish": "stop", **more})  # type: ignore[arg-type]


async def put(
    store: CacheStore, name: str, *, seconds: float = 60.0, groups: tuple[bytes, ...] = (GROUP,), vector: object = None
) -> bytes:
    key = store.key(name.encode())
    raw = b"" if vector is None else np.asarray(vector, "<f4").tobytes()
    assert await store.put(key, entry(name), seconds=seconds, groups=groups, partition=PART, vector=raw)
    return key


async def test_an_entry_comes_back_whole(make: Make) -> None:
    store = make()
    async with opened(store):
        key = store.key(b"a", b"b")
        assert await store.get(key) is None
        kept = entry("fünf\n", model="m", tool_calls=b'[{"id":"1"}]', tags={"facts": "unsupported"})
        await store.put(key, kept, seconds=60, groups=(GROUP,))
        assert await store.get(key) == kept
        await store.put(key, entry("six"), seconds=60, groups=(GROUP,))
        found = await store.get(key)
        assert found is not None
        assert found.text == "six"
        assert (await store.count())[0] == 1


async def test_keys_are_hashes_with_a_secret_of_their_own(make: Make) -> None:
    one, two = make(), Memory()
    async with opened(one, two):
        assert one.key(b"ab", b"c") != one.key(b"a", b"bc") != one.key(b"abc")
        assert one.key(b"ab") == one.key(b"ab") != two.key(b"ab")
        assert b"prompt" not in one.key(b"prompt")
    with pytest.raises(CacheError, match="not open"):
        one.key(b"a")


async def test_entries_age(make: Make) -> None:
    store = make()
    async with opened(store):
        short, long = await put(store, "short", seconds=0.05, vector=[1, 0]), await put(store, "long")
        await asyncio.sleep(0.1)
        assert await store.get(short) is None
        assert await store.get(long) is not None
        for i in range(4):
            await put(store, f"more{i}")
        assert (await store.count())[0] == 5  # what is too old is removed, not only passed over


async def test_the_least_used_goes_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "TOUCH_SECONDS", 0.0)
    store = make(max_entries=3)
    async with opened(store):
        a, b, c = [await put(store, name) for name in "abc"]
        assert await store.get(a) is not None
        d = await put(store, "d")
        assert [await store.get(k) is not None for k in (a, b, c, d)] == [True, False, True, True]
        assert (await store.count())[0] == 3


async def test_bytes_are_bounded(make: Make) -> None:
    store = make(max_bytes=3000)
    async with opened(store):
        for i in range(20):
            await store.put(store.key(b"%d" % i), entry("x" * 400), seconds=60, groups=(GROUP,))
            entries, size = await store.count()
            assert size <= 3000
        assert entries == 2
        assert await store.get(store.key(b"19")) is not None
        assert not await store.put(store.key(b"big"), entry("x" * 4000), seconds=60, groups=(GROUP,))
        assert await store.get(store.key(b"19")) is not None


async def test_delete_by_trace_by_group_and_all(make: Make) -> None:
    store = make()
    async with opened(store):
        a, b = await put(store, "a"), await put(store, "b", groups=(OTHER,))
        await put(store, "c", vector=[1, 0])
        both = await put(store, "both", groups=(GROUP, OTHER))
        none = await put(store, "none", groups=())
        assert await store.delete(id="t-a") == 1
        assert await store.get(a) is None
        assert await store.delete(id="t-a") == 0
        assert await store.delete(groups=(OTHER, GROUP)) == 1
        assert await store.get(both) is None
        assert await store.delete(groups=(OTHER, GROUP)) == 0
        assert await store.delete(groups=(GROUP,)) == 1
        assert await store.get(b) is not None
        await put(store, "again", groups=(GROUP, OTHER))
        assert await store.delete(groups=(OTHER,)) == 2
        assert await store.get(none) is not None
        assert await store.delete() == 1
        assert await store.count() == (0, 0)


async def test_near_finds_the_likest_of_its_partition(make: Make) -> None:
    store = make()
    async with opened(store):
        assert await store.near(PART, np.array([1, 0], np.float32), 0.0) == []
        east, north = await put(store, "east", vector=[1, 0]), await put(store, "north", vector=[0, 1])
        await put(store, "none")
        look = np.array([0.8, 0.6], np.float32)
        found = await store.near(PART, look, 0.5)
        assert [k for k, _ in found] == [east, north]
        assert [c for _, c in found] == pytest.approx([0.8, 0.6])
        assert await store.near(b"q" * 16, look, 0.0) == []
        await put(store, "east", vector=[0, -1])
        assert [k for k, _ in await store.near(PART, look, 0.5)] == [north]
        store.lost(PART, north)
        assert await store.near(PART, look, 0.5) == []
        assert await store.near(PART, np.ones(3, np.float32), 0.0) == []


async def test_a_large_partition_is_taken_over_page_by_page(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PAGE", 3)
    store = make()
    async with opened(store):
        keys = [await put(store, f"n{i}", vector=[1, i / 100]) for i in range(8)]
        look = np.array([1, 0], np.float32)
        seen = []
        for _ in range(4):
            await store.near(PART, look, 0.0)
            seen.append([k for k in keys if k in store._index._parts[PART].places])
        assert seen == [keys[:3], keys[:6], keys, keys]


async def test_a_value_that_was_changed_is_not_there(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    store = make()
    async with opened(store):
        a, b = await put(store, "a"), await put(store, "b")
        raw = await store._get(a)
        assert raw is not None
        for bad in (raw[:-1] + b"X", b"", b"short", (await store._get(b)) or b""):
            await store._put(base.Row(key=a, value=bad, id="t-a", groups=(GROUP,), seconds=60))
            assert await store.get(a) is None
        assert "dropped" in caplog.text
        assert await store.get(b) is not None


async def test_claims(shared: Make) -> None:
    one, two = shared(), shared()
    async with opened(one, two):
        key = one.key(b"k")
        assert key == two.key(b"k")
        assert await one.claim(key, "one", 60)
        assert await one.claim(key, "one", 60)
        assert not await two.claim(key, "two", 60)
        await two.release(key, "two")
        assert not await two.claim(key, "two", 60)
        await one.release(key, "one")
        assert await two.claim(key, "two", 0.05)
        await asyncio.sleep(0.1)
        assert await one.claim(key, "one", 60)
        await one.put(key, entry(), seconds=60, groups=(GROUP,))
        assert await two.get(key) == entry()
        assert await two.claim(key, "two", 60)


async def test_others_see_vectors_and_removals(shared: Make) -> None:
    one, two = shared(), shared()
    async with opened(one, two):
        look = np.array([1, 0], np.float32)
        first = await put(one, "first", vector=[1, 0])
        assert [k for k, _ in await two.near(PART, look, 0.9)] == [first]
        second = await put(two, "second", vector=[1, 0.1])
        assert {k for k, _ in await one.near(PART, look, 0.9)} == {first, second}
        await two.delete(id="t-first")
        assert await one.get(first) is None


async def test_what_is_shared_outlives_its_process(shared: Make) -> None:
    store = shared()
    async with opened(store):
        key = await put(store, "a", vector=[1, 0])
    again = shared()
    async with opened(again):
        assert again.key(b"a") == key
        assert await again.get(key) == entry("a")
        assert [k for k, _ in await again.near(PART, np.array([1, 0], np.float32), 0.9)] == [key]


async def test_many_at_once_keep_the_bounds(shared: Make) -> None:
    one, two = shared(max_entries=20), shared(max_entries=20)
    async with opened(one, two):
        await asyncio.gather(*(put((one, two)[i % 2], f"n{i}") for i in range(60)))
        assert (await one.count())[0] == 20
        kept = [await one.get(one.key(b"n%d" % i)) for i in range(60)]
        assert sum(e is not None for e in kept) == 20


# -------------------------------------------------------------------------------------------------------- SQLite alone


async def test_another_process_uses_the_same_file(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.sqlite")
    code = f"""
import asyncio
from fairlead.caches.base import Entry
from fairlead.caches.sqlite import SQLite
async def main():
    store = SQLite(path={path!r}, budget_seconds=5.0)
    await store.start()
    assert (await store.get(store.key(b"ours"))).text == "ours"
    await store.put(store.key(b"theirs"), Entry(id="t", at=0.0, target="x", text="theirs"), seconds=60, groups=(b"g",))
    await store.stop()
asyncio.run(main())
"""
    store = SQLite(path=path, budget_seconds=2.0)
    async with opened(store):
        await put(store, "ours")
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
        found = await store.get(store.key(b"theirs"))
        assert found is not None
        assert found.text == "theirs"
    assert (tmp_path / "cache.sqlite").stat().st_mode & 0o077 == 0


async def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(other)) as c:
        c.execute("CREATE TABLE mine(x)")
        c.commit()
    before = other.read_bytes()
    with pytest.raises(ConfigError, match="name another file"):
        await SQLite(path=str(other)).start()
    assert other.read_bytes() == before
    text = tmp_path / "text"
    text.write_text("no database at all, but long enough to be looked at\n" * 50)
    with pytest.raises(CacheError, match="not a database"):
        await SQLite(path=str(text)).start()
    with pytest.raises(CacheError, match="directory"):
        await SQLite(path=str(tmp_path)).start()


async def test_rotten_pages_are_an_error_or_a_miss_and_never_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    store = SQLite(path=str(path), budget_seconds=2.0)
    async with opened(store):
        for i in range(40):
            await put(store, f"n{i}" + "x" * 300)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(12):
        bad = bytearray(whole)
        for at in rng.integers(4096, len(bad), 200).tolist():
            bad[at] ^= 0xFF
        path.write_bytes(bad)
        broken = SQLite(path=str(path), budget_seconds=2.0)
        try:
            await broken.start()
            for i in range(40):
                name = f"n{i}" + "x" * 300
                try:
                    found = await broken.get(broken.key(name.encode()))
                except CacheError:
                    outcomes.add("error")
                    continue
                outcomes.add("miss" if found is None else "hit")
                assert found is None or found == entry(name)
        except CacheError:
            outcomes.add("error")
        finally:
            await broken.stop()
    assert {"error", "miss"} & outcomes


async def test_a_full_disk_is_a_cache_error(tmp_path: Path) -> None:
    store = SQLite(path=str(tmp_path / "c.sqlite"), budget_seconds=2.0)
    async with opened(store):
        kept = await put(store, "a")
        await store._run(lambda: store._db.execute("PRAGMA max_page_count = 1"))
        with pytest.raises(CacheError, match="full"):
            await store.put(store.key(b"b"), entry("x" * 100_000), seconds=60, groups=(GROUP,))
        assert await store.get(kept) is not None


async def test_a_lock_is_waited_for_within_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    store = SQLite(path=str(path), budget_seconds=0.5)
    async with opened(store):
        kept = await put(store, "a")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(CacheError):
                await put(store, "b")
            assert await store.get(kept) is not None
            other.execute("ROLLBACK")
        await put(store, "b")


# --------------------------------------------------------------------------------------------------------- Redis alone


def test_redis_takes_no_secret_in_its_config() -> None:
    with pytest.raises(ConfigError, match="keys of their own"):
        Redis(url="redis://:sesame@127.0.0.1/0")
    with pytest.raises(ConfigError, match="must not be written here") as e:
        Redis(password="sesame")
    assert "sesame" not in str(e.value)


async def test_redis_refuses_a_wrong_password_and_shows_none(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "hunter22")
    store = Redis(url=redis_server.url, password="${WRONG}")
    with pytest.raises(CacheError) as e:
        await store.start()
    await store.stop()
    assert "hunter22" not in f"{e.value} {store!r}"
    with pytest.raises(ConfigError, match="NOT_THERE is not set"):
        await Redis(url=redis_server.url, password="${NOT_THERE}").start()


async def test_redis_that_is_away_is_a_cache_error(tmp_path: Path, redis_server: RedisServer) -> None:
    own = RedisServer(tmp_path)
    store = Redis(url=own.url, password="${FAIRLEAD_TEST_REDIS}", budget_seconds=1.0)
    with pytest.raises(CacheError):
        await store.start()
    own.start()
    try:
        await store.start()
        key = await put(store, "a")
        own.stop()
        with pytest.raises(CacheError):
            await store.get(key)
        own.start()
        assert await store.get(key) is None  # it kept nothing on disk, and the connection comes back by itself
    finally:
        await store.stop()
        own.stop()


async def test_redis_forgets_an_answer_by_itself(redis_server: RedisServer) -> None:
    import redis.asyncio as client

    store = Redis(url=redis_server.url, password="${FAIRLEAD_TEST_REDIS}", prefix="age:", budget_seconds=2.0)
    async with opened(store), client.Redis.from_url(redis_server.url, password=PASSWORD) as raw:
        await put(store, "a", seconds=0.3, vector=[1, 0])
        assert [k async for k in raw.scan_iter("age:e:*")]
        await asyncio.sleep(0.4)
        assert not [k async for k in raw.scan_iter("age:e:*")]
        await put(store, "b")
        assert (await store.count())[0] == 1
        await store.delete()
        left = {k async for k in raw.scan_iter("age:*")}
        assert left == {b"age:secret", b"age:seq", b"age:bytes"}


# --------------------------------------------------------------------------------------------------------------- index


def test_the_index_is_bounded() -> None:
    index = Index(10)
    one = np.array([1, 0], "<f4").tobytes()
    for p in range(5):
        index.add(b"%d" % p, [(i, b"%d-%d" % (p, i), one) for i in range(4)])
        assert sum(len(part.keys) for part in index._parts.values()) == index._rows <= 10
    assert index.last(b"0") == -1
    assert index.last(b"4") == 3
    index.add(b"4", [(9, b"4-0", one)])
    assert len(index.near(b"4", np.array([1, 0], np.float32), 0.5)) == 4
    index.add(b"4", [(10 + i, b"new%d" % i, one) for i in range(7)])
    assert index.last(b"4") == -1  # more than fits: read anew


def test_the_index_agrees_with_brute_force() -> None:
    rng = np.random.default_rng(1)
    index, kept = Index(1000), {}
    for seq in range(200):
        key = b"%d" % rng.integers(60)
        if seq % 5 == 4:
            index.drop(b"p", key)
            kept.pop(key, None)
        else:
            v = rng.normal(size=8).astype("<f4")
            kept[key] = v / np.linalg.norm(v)
            index.add(b"p", [(seq, key, kept[key].tobytes())])
        look = rng.normal(size=8).astype("<f4")
        look /= np.linalg.norm(look)
        truth = sorted(((float(v @ look), k) for k, v in kept.items() if float(v @ look) >= 0.3), reverse=True)[:4]
        found = index.near(b"p", look, 0.3)
        assert [k for k, _ in found] == [k for _, k in truth]
    assert index._rows == len(kept)
