"""Gateways that share rates and breakers through a real Redis: exact together, each by itself while it is gone, and together again."""

import asyncio
import contextlib
import itertools
import logging
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gateways import Client, config, serving
from redis_server import PASSWORD, VARIABLE, RedisServer

from fairlead.cli import validate
from fairlead.config import RedisConfig
from fairlead.errors import ConfigError, RedisError
from fairlead.gateway import admin, limits, shared_breakers, shared_rates
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.shared import Shared
from fairlead.ledger import Account, Exhausted
from fairlead.pool import Health, Pool
from fairlead.redis import Link
from fairlead.types import Failure, Profile, Target

prefixes = itertools.count()
DOWN = Failure(kind="unavailable", message="down")
SLOW = {"slow": {"type": "scripted", "replies": [{"text": "a b c", "word_seconds": 30.0, "delay_seconds": 0.0}]}}
MINUTE = Account(name="key:ann/requests", period="minute", limit=100)
PLACES = Account(name="key:ann/concurrent", period="now", limit=3)


@pytest.fixture
def own(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that may be killed."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """The clock of the gateway's limits stands still, 20 seconds into the present minute."""
    moment = time.time() // 60.0 * 60.0 + 20.0
    for module in (admin, limits, shared_rates):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: moment, monotonic=time.monotonic))
    return moment


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_breakers, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(shared_breakers, "BARRED_SECONDS", 0.3)


def where(server: RedisServer, **more: Any) -> dict[str, Any]:
    """Settings of a prefix that no other test has; with time enough for a machine that stands still for a moment."""
    own = {"url": server.url, "password": f"${{{VARIABLE}}}", "prefix": f"t{next(prefixes)}:", "timeout_seconds": 2.0}
    return {**own, **more}


@contextlib.asynccontextmanager
async def processes(n: int, settings: dict[str, Any]) -> AsyncIterator[list[Shared]]:
    """What `n` gateways would share, each with breakers of its own."""

    def one() -> Shared:
        health = Health(failures=1, rest_seconds=0.3, probe_seconds=0.4)
        pool = Pool(targets=[Target(name="a", profile=Profile())], health=health)
        return Shared(RedisConfig(**settings), lambda: pool)

    made = [one() for _ in range(n)]
    async with contextlib.AsyncExitStack() as stack:
        for each in made:
            await each.start()
            stack.push_async_callback(each.stop)
        yield made


async def let_in(shared: Shared, account: Account, n: int, amount: int = 1) -> int:
    """Ask `n` times at once, and return how many were let in and used it up."""

    async def one() -> bool:
        try:
            (await shared.rates.take([account], amount)).use(amount)
        except Exhausted:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(n))))


async def there_is_room(shared: Shared, account: Account, amount: int) -> None:
    async with asyncio.timeout(10.0):
        while True:
            with contextlib.suppress(Exhausted):
                (await shared.rates.take([account], amount)).release()
                return
            await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not holds():
            await asyncio.sleep(0.01)


def resting(shared: Shared) -> float:
    return shared.breakers.pool().health.resting("a")


# ------------------------------------------------------------------------------------------------------ rates


async def test_processes_share_a_limit_exactly_under_concurrency(redis_server: RedisServer, now: float) -> None:
    async with processes(3, where(redis_server)) as all_:
        assert sum(await asyncio.gather(*(let_in(each, MINUTE, 70) for each in all_))) == 100
        other = Account(name="key:bob/requests", period="minute", limit=1000)
        done = 0
        for _ in range(40):  # waves of which each process has another share
            done += sum(await asyncio.gather(*(let_in(each, other, 7 * i) for i, each in enumerate(all_, 1))))
        assert done <= 1000
        for each in all_:
            await each.rates.tick()
        done += sum([await let_in(each, other, 1000) for each in all_])
        assert done == 1000
        tokens = Account(name="key:bob/tokens", period="minute", limit=1000)
        done = sum(await asyncio.gather(*(let_in(each, tokens, 30, 70) for each in all_)))
        for each in all_:
            await each.rates.tick()
        assert done + await let_in(all_[0], tokens, 30, 70) == 1000 // 70


async def test_most_requests_are_let_in_without_a_question(redis_server: RedisServer, now: float) -> None:
    async with processes(1, where(redis_server)) as (one,):
        script, asked = one.rates.script, 0

        async def counted(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return await script(*arguments)

        one.rates.script = counted
        account = Account(name="key:ann/requests", period="minute", limit=100_000)
        for _ in range(1000):
            assert await let_in(one, account, 1)
        assert asked < 20
        hold = one.rates.try_take([account], 1, now=now)
        assert hold is not None
        hold.release()


async def test_what_is_not_there_is_asked_for_again_but_not_by_each_request(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    monkeypatch.setattr(shared_rates, "AGAIN_SECONDS", 60.0)
    async with processes(2, where(redis_server)) as (one, two):
        assert await let_in(two, MINUTE, 1) == 1
        await two.rates.tick()
        hold = await one.rates.take([MINUTE], 99)
        two.rates._parts[MINUTE.name].asked = -math.inf
        assert await let_in(two, MINUTE, 1) == 0
        asked = two.rates._parts[MINUTE.name].asked
        assert [await let_in(two, MINUTE, 1) for _ in range(50)] == [0] * 50
        assert two.rates._parts[MINUTE.name].asked == asked
        hold.release()
        monkeypatch.setattr(shared_rates, "AGAIN_SECONDS", 0.01)
        await there_is_room(two, MINUTE, 1)


async def test_two_gateways_share_rates_through_redis(redis_server: RedisServer, tmp_path: Path, now: float) -> None:
    """They have nothing else in common. Of 200 requests at once 60 are let in, and headers are as without Redis."""
    settings = where(redis_server)
    keys = {
        "ann": {"hash": hashed("fl-ann"), "limits": {"requests_per_minute": 60, "tokens_per_minute": 10**6}},
        "two": {"hash": hashed("fl-two"), "limits": {"concurrent": 2}},
    }
    targets = {**SLOW, "cheap": {"type": "scripted"}}
    made = []
    for name in "ab":
        (tmp_path / name).mkdir()
        made.append(config(tmp_path / name, targets=targets, keys=keys, redis=settings))
    async with serving(made[0]) as a, serving(made[1]) as b:
        _, _, headers = await a.ask("fl-ann")
        assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("60", "59")
        answers = await asyncio.gather(*((a, b)[i % 2].ask("fl-ann") for i in range(200)))
        statuses = [status for status, _, _ in answers]
        assert (statuses.count(200), statuses.count(429)) == (59, 141)
        _, body, headers = next(answer for answer in answers if answer[0] == 429)
        assert "key:ann: 60 requests a minute are made" in body["error"]["message"]
        assert (headers["retry-after"], headers["x-ratelimit-remaining-requests"]) == ("40", "0")
        (row,) = [r for r in (await b.admin("GET", "spend"))[1]["data"] if r["account"] == "key:ann/requests"]
        assert (row["limit"], row["spent"], row["left"]) == (60, 60, 0)

        hanging = [asyncio.ensure_future(c.ask("fl-two", model="slow", stream=True)) for c in (a, b)]
        await until(lambda: a.gateway.in_flight + b.gateway.in_flight == 2)
        for client in (a, b):
            status, body, headers = await client.ask("fl-two", model="cheap")
            assert (status, headers["retry-after"]) == (429, "1")
            assert "2 requests are under way" in body["error"]["message"]
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)
        await until(lambda: a.gateway.in_flight + b.gateway.in_flight == 0)
        async with asyncio.timeout(5.0):  # what one has given back the other has within half a second
            for client in (a, b):
                while (await client.ask("fl-two", model="cheap"))[0] != 200:
                    await asyncio.sleep(0.05)


async def test_the_place_of_a_killed_process_is_freed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_rates, "ALIVE_SECONDS", 1.5)
    settings = where(redis_server)
    code = f"""
import asyncio
from fairlead.config import RedisConfig
from fairlead.gateway import shared_rates
from fairlead.gateway.shared import Shared
from fairlead.ledger import Account
from fairlead.pool import Pool
shared_rates.ALIVE_SECONDS = 1.5
async def main():
    shared = Shared(RedisConfig(**{settings!r}), lambda pool=Pool(targets=[]): pool)
    await shared.start()
    await shared.rates.take([Account(name={PLACES.name!r}, period="now", limit=3)], 2)
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"held\n"
        async with processes(1, settings) as (one,):
            mine = await one.rates.take([PLACES], 1)
            for _ in range(3):  # longer than a process that shows itself no more is believed in
                with pytest.raises(Exhausted):
                    await one.rates.take([PLACES], 1)
                await asyncio.sleep(0.6)
            child.send_signal(signal.SIGKILL)
            await child.wait()
            with pytest.raises(Exhausted):
                await one.rates.take([PLACES], 2)
            await there_is_room(one, PLACES, 2)
            mine.release()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_an_answer_that_is_lost_counts_nothing_twice(redis_server: RedisServer, now: float) -> None:
    """Redis has done what it was asked, and nobody knows."""
    async with processes(2, where(redis_server)) as (one, two):
        assert await let_in(one, MINUTE, 10) == 10
        script = one.rates.script

        async def lost(*arguments: Any) -> Any:
            await script(*arguments)
            raise RedisError("the answer is lost")

        one.rates.script = lost
        assert await let_in(one, MINUTE, 20) == 20
        assert not one.rates.reachable
        one.rates.script = script
        await one.rates.tick()
        assert one.rates.reachable
        assert await let_in(two, MINUTE, 200) == 70


async def test_a_process_that_leaves_gives_back_what_it_has_not_used(redis_server: RedisServer, now: float) -> None:
    settings = where(redis_server)
    async with processes(1, settings) as (other,):
        async with processes(1, settings) as (one,):
            assert await let_in(one, MINUTE, 1) == 1
            await one.rates.take([PLACES], 2)
        assert await let_in(other, MINUTE, 200) == 99


async def test_limits_that_an_admin_changes_hold_at_once(redis_server: RedisServer, now: float) -> None:
    async with processes(2, where(redis_server)) as (one, two):
        assert await let_in(one, MINUTE, 100) == 100
        more = Account(name=MINUTE.name, period="minute", limit=130)
        assert await let_in(two, more, 100) == 30
        assert await let_in(one, MINUTE, 10) == 0


# ------------------------------------------------------------------------------------------------------ Redis gone


async def test_redis_killed_and_back(own: RedisServer, now: float, caplog: pytest.LogCaptureFixture) -> None:
    """Each counts alone meanwhile; then both know what was used before, meanwhile and since, though Redis has forgotten it."""
    async with processes(2, where(own)) as (one, two):
        assert await let_in(one, MINUTE, 30) == 30
        assert await let_in(two, MINUTE, 20) == 20
        place = await one.rates.take([PLACES], 2)
        own.stop()
        assert await let_in(one, MINUTE, 10) == 10, "nobody is refused for it"
        await until(lambda: not one.up and not two.up and not one.rates.reachable and not two.rates.reachable)
        assert await let_in(two, MINUTE, 200) == 80, "the limit holds for each"
        with pytest.raises(Exhausted):
            await one.rates.take([PLACES], 2)
        assert two.failures > 0
        own.start()
        await until(lambda: one.up and two.up)
        assert await let_in(one, MINUTE, 50) == 0, "40 here and 100 there are more than 100"
        with pytest.raises(Exhausted):
            await two.rates.take([PLACES], 2)
        place.release()
        await one.rates.tick()
        await there_is_room(two, PLACES, 3)
    said = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "fairlead.gateway.shared"]
    assert [level for level, _ in said] == ["ERROR", "ERROR", "WARNING", "WARNING"], "each process says so once"
    assert "keeps breakers alone" in said[0][1]
    assert "Redis is back" in said[-1][1]


async def test_data_that_redis_loses_unnoticed_comes_back(redis_server: RedisServer, now: float) -> None:
    settings = where(redis_server)
    async with processes(2, settings) as (one, two):
        assert await let_in(one, MINUTE, 30) == 30
        await one.rates.tick()
        await two.link.script(
            "for _, k in ipairs(redis.call('KEYS', ARGV[1]..'*')) do redis.call('DEL', k) end", settings["prefix"]
        )
        for _ in range(2):
            await one.rates.tick()
        assert await let_in(two, MINUTE, 200) == 70


async def test_a_gateway_serves_on_without_redis_and_says_so(
    own: RedisServer, tmp_path: Path, now: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed, hung and back: requests are answered, and limits hold, in each of them."""
    keys = {"ann": {"hash": hashed("fl-ann"), "limits": {"requests_per_minute": 6}}}
    made = config(tmp_path, targets={"cheap": {"type": "scripted"}}, keys=keys, redis=where(own, timeout_seconds=0.3))

    async def shown(client: Client) -> bytes:
        text: bytes = (await client.ask("fl-ann", "/metrics", "GET"))[1]
        return text

    async with serving(made) as client:
        redis = client.gateway.redis
        assert redis is not None
        assert (await client.ask("fl-ann"))[0] == 200
        assert b"fairlead_redis_up 1" in await shown(client)
        own.stop()
        await until(lambda: not redis.up)
        assert (await client.ask("fl-ann"))[0] == 200
        assert b"fairlead_redis_up 0" in await shown(client)
        own.start()
        await until(lambda: redis.up)
        assert own.process is not None
        own.process.send_signal(signal.SIGSTOP)  # it takes connections and says nothing
        try:
            assert [(await client.ask("fl-ann"))[0] for _ in range(5)] == [200] * 4 + [429]
            assert not redis.up
            assert b"fairlead_redis_up 0" in await shown(client)
        finally:
            own.process.send_signal(signal.SIGCONT)
        await until(lambda: redis.up)
        assert (await client.ask("fl-ann"))[0] == 429
        assert b"fairlead_redis_up 1" in await shown(client)
    levels = [r.levelname for r in caplog.records if r.name == "fairlead.gateway.shared"]
    assert levels == ["ERROR", "WARNING"] * 2
    assert PASSWORD not in caplog.text


async def test_a_question_ends_when_it_is_cancelled(redis_server: RedisServer) -> None:
    """At whatever moment: else a gateway would not stop."""
    link = Link(url=redis_server.url, password=f"${{{VARIABLE}}}", seconds=5.0)
    link.open()

    async def again_and_again() -> None:
        while True:
            await link.ask("PING")

    for i in range(300):
        task = asyncio.create_task(again_and_again())
        for _ in range(i % 30):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1.0)
        task.cancel()
        assert done
    await link.close()


async def test_a_server_that_is_slow_at_each_step_is_not_waited_for() -> None:
    ended = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            await asyncio.sleep(0.15)
            writer.write(b"+OK\r\n")
        writer.close()
        ended.set()

    async with await asyncio.start_server(slow, "127.0.0.1", 0) as server:
        link = Link(url=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/3", seconds=0.25)
        link.open()
        with pytest.raises(RedisError, match=r"said nothing within 0\.25 s"):
            await link.ask("PING")
        await link.close()
        await asyncio.wait_for(ended.wait(), 5.0)  # and its connection is closed


async def test_a_process_that_is_busy_does_not_take_its_server_for_gone(redis_server: RedisServer) -> None:
    """Else limits would be counted apart, and let in twice as many, whenever much comes at once."""
    link = Link(url=redis_server.url, password=f"${{{VARIABLE}}}", seconds=0.1)
    link.open()
    asked = asyncio.ensure_future(link.ask("PING"))
    for _ in range(6):  # a connection takes several rounds of the loop
        await asyncio.sleep(0)
        time.sleep(0.15)
    assert await asked
    await link.close()


async def test_a_gateway_starts_without_redis(tmp_path: Path, own: RedisServer, now: float) -> None:
    own.stop()
    keys = {"ann": {"hash": hashed("fl-ann"), "limits": {"requests_per_minute": 1}}}
    async with serving(config(tmp_path, keys=keys, redis=where(own))) as client:
        assert [(await client.ask("fl-ann"))[0] for _ in range(2)] == [200, 429]


# ------------------------------------------------------------------------------------------------------ breakers


async def test_a_breaker_that_opens_in_one_process_is_seen_in_all_and_closes_in_all(redis_server: RedisServer) -> None:
    async with processes(3, where(redis_server)) as all_:
        healths = [each.breakers.pool().health for each in all_]
        healths[0].failed("a", Failure(kind="rate_limited", message="", retry_after_seconds=60.0))
        await until(lambda: all(h.state("a") == "open" for h in healths))
        assert all(58.0 < h.resting("a") <= 60.5 for h in healths)
        healths[1].succeeded("a")
        await until(lambda: all(h.state("a") == "closed" for h in healths))
        assert all(not h.in_a_row for h in healths)


async def test_failures_that_open_no_breaker_are_not_told(redis_server: RedisServer) -> None:
    async with processes(2, where(redis_server)) as (one, two):
        for each in (one, two):
            each.breakers.pool().health.failures = 3
            for _ in range(2):
                each.breakers.pool().health.failed("a", DOWN)
            await each.breakers.tick()
        for each in (one, two):
            await each.breakers.tick()
            assert resting(each) == 0.0


async def test_one_process_at_a_time_tries_a_target_that_is_half_open(redis_server: RedisServer) -> None:
    async with processes(2, where(redis_server)) as both:
        pools = [each.breakers.pool() for each in both]
        healths = [pool.health for pool in pools]
        healths[0].failed("a", DOWN)
        await until(lambda: all("a" in h.rests_until for h in healths))

        def tries() -> list[int]:
            """Ask as a request would, and return who may go."""
            return [i for i, health in enumerate(healths) if health.turn("a") == 0.0]

        await until(lambda: bool(tries()))
        (first,) = tries()
        healths[first].began("a")
        for _ in range(20):  # while it is under way nobody else may
            assert tries() == []
            await asyncio.sleep(0.01)
        healths[first].failed("a", DOWN)
        await until(lambda: all(h.in_a_row.get("a") == 2 for h in healths))

        await until(lambda: bool(tries()))
        (second,) = tries()
        await until(lambda: tries() != [second])  # it does not use its turn, so in the end another may
        await until(lambda: bool(tries()))
        (third,) = tries()
        healths[third].began("a")
        healths[third].succeeded("a")
        await until(lambda: all(h.state("a") == "closed" for h in healths))


async def test_without_redis_each_process_tries_by_itself(own: RedisServer) -> None:
    async with processes(2, where(own)) as both:
        healths = [each.breakers.pool().health for each in both]
        healths[0].failed("a", DOWN)
        await until(lambda: all("a" in h.rests_until for h in healths))
        own.stop()
        await until(lambda: all(h.turn("a") == 0.0 for h in healths))
        healths[1].failed("a", Failure(kind="rate_limited", message="", retry_after_seconds=60.0))
        own.start()
        await until(lambda: healths[0].resting("a") > 50.0)  # what happened meanwhile is told


async def test_what_could_not_be_told_is_told_later(redis_server: RedisServer) -> None:
    async with processes(2, where(redis_server)) as (one, two):
        mine, theirs = one.breakers.pool().health, two.breakers.pool().health
        mine.failed("a", Failure(kind="rate_limited", message="", retry_after_seconds=60.0))
        await until(lambda: "a" in theirs.rests_until)
        script = one.breakers.script

        async def gone(*_: Any) -> Any:
            raise RedisError("gone")

        one.breakers.script = gone
        mine.succeeded("a")
        with pytest.raises(RedisError):
            await one.breakers.tick()
        one.breakers.script = script
        await until(lambda: "a" not in theirs.rests_until)


async def test_a_closing_that_comes_late_closes_nothing_newer(redis_server: RedisServer) -> None:
    async with processes(2, where(redis_server)) as (one, two):
        mine, theirs = one.breakers.pool().health, two.breakers.pool().health
        mine.failed("a", DOWN)
        await until(lambda: "a" in theirs.rests_until)
        theirs.failed("a", Failure(kind="rate_limited", message="", retry_after_seconds=60.0))
        mine.succeeded("a")
        await two.breakers.tick()
        await one.breakers.tick()
        assert mine.resting("a") > 50.0
        await two.breakers.tick()
        assert theirs.resting("a") > 50.0


async def test_a_gateway_turns_away_from_a_target_that_failed_at_another(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    failing = {"type": "scripted", "replies": [{"error": {"kind": "unavailable", "retry_after_seconds": 60.0}}]}
    settings, made = where(redis_server), []
    for name in "ab":
        (tmp_path / name).mkdir()
        targets = {"cheap": failing if name == "a" else {"type": "scripted"}, "dear": {"type": "scripted"}}
        made.append(config(tmp_path / name, targets=targets, keys={"ann": hashed("fl-ann")}, redis=settings))
    async with serving(made[0]) as a, serving(made[1]) as b:
        assert (await b.ask("fl-ann"))[2]["x-fairlead-target"] == "cheap"
        assert (await a.ask("fl-ann"))[2]["x-fairlead-target"] == "dear"
        health = b.gateway.router.pool.health
        await until(lambda: health.state("cheap") == "open")
        assert (await b.ask("fl-ann"))[2]["x-fairlead-target"] == "dear"


# ------------------------------------------------------------------------------------------------------ config


def test_a_password_is_a_reference(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.redis\.password") as e:
        config(tmp_path, redis={"password": "hunter22"})
    assert "hunter22" not in str(e.value)
    with pytest.raises(ConfigError, match=r"gateway\.redis\.url") as e:
        config(tmp_path, redis={"url": "redis://:hunter22@localhost/0"})
    assert "hunter22" not in str(e.value)


async def test_a_variable_that_is_not_set_is_told_at_the_start(tmp_path: Path) -> None:
    made = config(tmp_path, redis={"password": "${NOT_THERE}"})
    assert any("NOT_THERE is not set" in said for said in validate.unset(made))
    with pytest.raises(ConfigError, match="NOT_THERE is not set"):
        async with Gateway.of(made):
            pass


async def test_a_wrong_password_stands_in_no_log(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WRONG", "hunter22")
    caplog.set_level(logging.DEBUG)
    async with processes(1, where(redis_server, password="${WRONG}")) as (one,):
        assert not one.up
        assert await let_in(one, MINUTE, 1) == 1
    assert "Redis is gone" in caplog.text
    assert "hunter22" not in caplog.text


async def test_without_the_setting_nobody_asks_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(Link, "__init__", never)
    keys = {"ann": {"hash": hashed("fl-ann"), "limits": {"requests_per_minute": 1}}}
    async with serving(config(tmp_path, keys=keys)) as client:
        assert client.gateway.redis is None
        assert [(await client.ask("fl-ann"))[0] for _ in range(2)] == [200, 429]
        assert b"fairlead_redis" not in (await client.ask("fl-ann", "/metrics", "GET"))[1]
