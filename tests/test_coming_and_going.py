"""Targets join and leave a router that runs: the pool is swapped whole, requests under way end, drivers start and stop."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from fairlead.config import make
from fairlead.errors import ConfigError, UnknownName
from fairlead.prove import replay_decision
from fairlead.router import Router
from fairlead.targets.scripted import Reply, Scripted
from fairlead.types import Query


class Watched(Scripted):
    """Notes when it is started and stopped."""

    def __init__(self, *, name: str, replies: tuple[Reply | str, ...] = (), fails: bool = False) -> None:
        super().__init__(name=name, replies=replies)
        self.fails = fails
        self.log: list[str] = []

    async def start(self) -> None:
        self.log.append("start")
        if self.fails:
            raise ConfigError("it cannot start")

    async def stop(self) -> None:
        self.log.append("stop")


def router(tmp_path: Path, policy: object = "random") -> Router:
    data = {
        "targets": {
            "old": {"type": "scripted", "replies": ["old"]},
            "other": {"type": "scripted", "replies": ["other"]},
        },
        "routes": {"auto": {"policy": policy}},
        "store": {"path": str(tmp_path / "traces.sqlite")},
    }
    return make(data).router()


def named(target: str) -> Query:
    return msgspec.structs.replace(Query.ask("x"), route=target)


async def test_a_target_joins_and_leaves(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        before, pool = r.pool.digest, r.pool
        driver = Watched(name="new", replies=("new",))
        with pytest.raises(UnknownName):
            await r.handle(named("new"))
        await r.add_target(driver)
        assert driver.log == ["start"]
        assert "new" not in pool
        outcome, trace = await r.handle(named("new"))
        assert outcome.text == "new"
        assert replay_decision(trace, r.store).same
        seen = {(await r.handle(Query.ask(f"q{i}")))[0].text for i in range(40)}
        assert seen == {"old", "other", "new"}
        await r.remove_target("new")
        assert driver.log == ["start", "stop"]
        assert r.pool.digest == before
        with pytest.raises(UnknownName):
            await r.handle(named("new"))
        _, trace = await r.handle(Query.ask("after"))
        assert "new" not in trace.decision.eligible
        await r.add_target(Watched(name="new", replies=("again",)))
        assert (await r.handle(named("new")))[0].text == "again"


async def test_requests_under_way_end_before_the_driver_is_stopped(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        driver = Watched(name="slow", replies=(Reply(text="done", delay_seconds=0.1),))
        await r.add_target(driver)
        asked = asyncio.create_task(r.handle(named("slow")))
        await asyncio.sleep(0.02)
        leaving = asyncio.create_task(r.remove_target("slow"))
        await asyncio.sleep(0.02)
        assert "slow" not in r.pool
        assert driver.log == ["start"]
        with pytest.raises(ConfigError, match="already"):
            await r.add_target(Watched(name="slow"))
        outcome, _ = await asked
        assert outcome.text == "done"
        await leaving
        assert driver.log == ["start", "stop"]
        assert not r.under_way


async def test_a_removal_goes_on_when_whoever_asked_for_it_goes_away(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        driver = Watched(name="slow", replies=(Reply(text="done", delay_seconds=0.1),))
        await r.add_target(driver)
        asked = asyncio.create_task(r.handle(named("slow")))
        await asyncio.sleep(0.02)
        leaving = asyncio.create_task(r.remove_target("slow"))
        await asyncio.sleep(0.02)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert driver.log == ["start"], "the call under way is not broken off"
        assert (await asked)[0].text == "done"
        await asyncio.gather(*r.leaving)
        assert driver.log == ["start", "stop"]
        assert "slow" not in r.world.drivers
        await r.add_target(Watched(name="slow", replies=("again",)))
        assert (await r.handle(named("slow")))[0].text == "again"


async def test_a_router_that_stops_ends_removals_that_still_wait(tmp_path: Path) -> None:
    r = router(tmp_path)
    await r.start()
    driver = Watched(name="stuck", replies=(Reply(hang=True),))
    await r.add_target(driver)
    asked = asyncio.create_task(r.handle(named("stuck")))
    await asyncio.sleep(0.02)
    leaving = asyncio.create_task(r.remove_target("stuck"))
    await asyncio.sleep(0.02)
    await r.stop(within_seconds=0.05)
    assert driver.log == ["start", "stop"]
    assert not r.leaving
    asked.cancel()
    await asyncio.gather(leaving, asked, return_exceptions=True)


async def test_one_that_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        driver = Watched(name="stuck", replies=(Reply(hang=True),))
        await r.add_target(driver)
        asked = asyncio.create_task(r.handle(named("stuck")))
        await asyncio.sleep(0.02)
        await r.remove_target("stuck", within_seconds=0.02)
        assert driver.log[-1] == "stop"
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not r.under_way


async def test_a_driver_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    async with router(tmp_path) as r:
        before = r.pool.digest
        with pytest.raises(ConfigError, match="cannot start"):
            await r.add_target(Watched(name="new", fails=True))
        assert r.pool.digest == before
        assert "new" not in r.world.drivers
        assert "new" not in r.serving


async def test_names_that_are_taken_or_needed(tmp_path: Path) -> None:
    async with router(tmp_path, {"type": "fixed", "plan": "old"}) as r:
        for name in ("old", "auto"):
            with pytest.raises(ConfigError, match="already"):
                await r.add_target(Watched(name=name))
        with pytest.raises(ConfigError, match="names 'old'"):
            await r.remove_target("old")
        with pytest.raises(UnknownName):
            await r.remove_target("nobody")
        await r.remove_target("other")
        (tmp_path / "b").mkdir()
        with pytest.raises(ConfigError, match="only target"):
            await r.remove_target("old")


async def test_a_budget_is_kept_with_the_newcomers_price(tmp_path: Path) -> None:
    from fairlead.types import Constraints, Profile

    async with router(tmp_path) as r:
        dear = Scripted(name="dear", profile=Profile(input_usd_per_mtok=1e6, output_usd_per_mtok=1e6))
        await r.add_target(dear)
        query = msgspec.structs.replace(named("dear"), constraints=Constraints(max_usd=0.01))
        assert r.world.estimate == r.pool.estimate_usd
        assert "may cost" in r.pool.eligible(query).excluded["dear"]
