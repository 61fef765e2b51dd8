"""Accounts that many share: never overspent, nothing left reserved by the dead, the same as the traces to the last micro-dollar."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.config import make
from fairlead.ledger import Account, Exhausted, Ledger, Unknown, micros
from fairlead.sqlite import SQLiteStore
from fairlead.types import Query

BUDGET = Account(name="key:ann/usd", period="total", limit=100)


@asynccontextmanager
async def ledgers(tmp_path: Path, n: int = 1, **more: Any) -> AsyncIterator[list[Ledger]]:
    """Several ledgers, as of several processes, on one store."""
    store = SQLiteStore(tmp_path / "s.sqlite")
    made = [Ledger(store, **more) for _ in range(n)]
    store.start()
    try:
        for ledger in made:
            await ledger.start()
        yield made
        for ledger in made:
            await ledger.stop()
    finally:
        await asyncio.to_thread(store.stop)


async def spend(ledger: Ledger, amount: int, cost: int, account: Account = BUDGET) -> bool:
    try:
        hold = await ledger.take([account], amount)
    except Exhausted:
        return False
    await asyncio.sleep(0)
    _, statements = hold.charge(cost)
    await ledger.store.transact("charge", lambda c: [c.execute(*s) for s in statements])
    return True


@pytest.mark.parametrize("n", [1, 4])
async def test_200_at_once_never_overspend_100(tmp_path: Path, n: int) -> None:
    async with ledgers(tmp_path, n) as each:
        done = await asyncio.gather(*(spend(each[i % n], 1, 1) for i in range(200)))
        spent = await asyncio.to_thread(each[0].spent, BUDGET)
        assert spent == sum(done) <= 100
        assert n > 1 or spent == 100, "one process uses all of it"
    async with ledgers(tmp_path) as (ledger,):  # what leases held back is free once they are given back
        more = [await spend(ledger, 1, 1) for _ in range(101 - spent)]
        assert sum(more) == 100 - spent
        assert not more[-1]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60), st.floats(0.0, 1.0), st.booleans()), max_size=40),
    st.integers(0, 200),
)
@settings(max_examples=40, deadline=None)
def test_any_order_of_holds_and_charges_stays_within(steps: list[tuple[int, int, float, bool]], limit: int) -> None:
    """Whoever holds, settles for less or gives back, and whenever each housekeeps: spent and held are never more than the limit."""
    import tempfile

    async def run(tmp: str) -> None:
        account = Account(name="a/usd", period="total", limit=limit)
        async with ledgers(Path(tmp), 3) as each:
            holds, spent = [], 0
            for who, amount, share, settle in steps:
                with suppress(Exhausted):
                    holds.append((amount, await each[who].take([account], amount)))
                if settle and holds:
                    held, hold = holds.pop(0)
                    cost = int(share * held)
                    _, statements = hold.charge(cost)
                    await each[who].store.transact("charge", lambda c, s=statements: [c.execute(*x) for x in s])
                    spent += cost
                    await each[who]._housekeep()
                assert spent + sum(a for a, _ in holds) <= limit
            for _, hold in holds:
                hold.release()
            assert await asyncio.to_thread(each[0].spent, account) == spent
        async with ledgers(Path(tmp)) as (ledger,):
            if limit > spent:
                (await ledger.take([account], limit - spent)).release()  # nothing stays reserved

    with tempfile.TemporaryDirectory() as tmp:
        asyncio.run(run(tmp))


async def test_all_accounts_or_none(tmp_path: Path) -> None:
    small = Account(name="team:x/usd", period="day", limit=10)
    async with ledgers(tmp_path) as (ledger,):
        with pytest.raises(Exhausted) as caught:
            await ledger.take([BUDGET, small], 11)
        assert "team:x/usd: 10 of 10 are left" in str(caught.value)
        assert 0 < caught.value.until_seconds <= 86400
        (await ledger.take([BUDGET], 100)).release()


async def test_who_is_always_late_is_not_refused_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others take what was leased for a request as soon as it is there, five times over: it goes on asking while the store has some."""
    large = Account(name="key:bob/usd", period="total", limit=1_000_000)
    async with ledgers(tmp_path) as (ledger,):
        ask, taken = ledger._ask, []

        async def asked(lease: Any) -> None:
            await ask(lease)
            if len(taken) < 5:
                taken.append(ledger.try_take([large], lease.room, now=time.time()))

        monkeypatch.setattr(ledger, "_ask", asked)
        (await ledger.take([large], 10)).release()
        assert len(taken) == 5
        assert None not in taken


async def test_the_dead_leave_nothing_reserved(tmp_path: Path) -> None:
    """A process that takes and is killed: its lease lapses, and what it held is free again."""
    async with ledgers(tmp_path, 2, lease_seconds=0.6) as (dead, live):
        await dead.take([BUDGET], 90)
        assert dead._keeper is not None
        dead._keeper.cancel()
        assert not await spend(live, 50, 50)
        await asyncio.sleep(0.7)
        assert await spend(live, 95, 95)


async def test_a_lapsed_lease_is_not_held_from(tmp_path: Path) -> None:
    """A process that was away for longer than its lease: others may have taken it, so it asks anew."""
    async with ledgers(tmp_path, 2, lease_seconds=0.6) as (slow, live):
        assert slow._keeper is not None
        slow._keeper.cancel()
        (await slow.take([BUDGET], 20)).release()
        assert slow._leases[("key:ann/usd", "total")].room == 25
        await asyncio.sleep(0.7)
        assert await spend(live, 100, 100)
        assert not await spend(slow, 1, 1)


async def test_a_store_that_is_gone(tmp_path: Path) -> None:
    """What is leased can be held; then it is refused, or served if so configured, and charged when the store is back."""
    async with ledgers(tmp_path, 1, lease_seconds=0.4) as (ledger,):
        (await ledger.take([BUDGET], 5)).release()
        store, ledger.store = ledger.store, Gone()  # type: ignore[assignment]
        hold = await ledger.take([BUDGET], 20)
        await asyncio.sleep(0.3)
        with pytest.raises(Unknown):
            await ledger.take([BUDGET], 1)
        ledger.serve = True
        again = await ledger.take([BUDGET], 50)
        ledger.later(hold.charge(20)[1] + again.charge(50)[1])
        ledger.store = store
        await ledger._housekeep()
        assert await asyncio.to_thread(ledger.spent, BUDGET) == 70


class Gone:
    def transact(self, name: str, work: Any) -> Any:
        from fairlead.errors import StoreError

        raise StoreError("gone")


async def test_rates_come_back_with_the_next_minute(tmp_path: Path) -> None:
    rate = Account(name="key:ann/requests", period="minute", limit=3)
    async with ledgers(tmp_path) as (ledger,):
        now = 60.0 * 1000 + 59.0
        for _ in range(3):
            (await ledger.take([rate], 1, now=now)).use(1)
        with pytest.raises(Exhausted) as caught:
            await ledger.take([rate], 1, now=now)
        assert caught.value.until_seconds == 1.0
        (await ledger.take([rate], 1, now=now + 1.0)).use(1)


async def test_what_is_under_way_is_given_back(tmp_path: Path) -> None:
    most = Account(name="key:ann/concurrent", period="now", limit=2)
    async with ledgers(tmp_path) as (ledger,):
        first, _ = await ledger.take([most], 1), await ledger.take([most], 1)
        with pytest.raises(Exhausted):
            await ledger.take([most], 1)
        first.release()
        await ledger.take([most], 1)


@pytest.mark.parametrize("told", [False, True])
async def test_what_cost_more_than_was_leased_leaves_nothing_reserved(tmp_path: Path, told: bool) -> None:
    """It is counted once: as spent, and not as a hole in the lease too, whether housekeeping or the next lease tells the store."""
    async with ledgers(tmp_path) as (ledger,):
        for spent in (30, 60, 90):
            hold = await ledger.take([BUDGET], 5)
            hold.use(30)
            if told:
                await ledger._housekeep()
            assert ledger.left(BUDGET) == 100 - spent
        (await ledger.take([BUDGET], 10)).release()
        with pytest.raises(Exhausted):
            await ledger.take([BUDGET], 11)
        await ledger._housekeep()
        await ledger._housekeep()
        rows = await ledger.store.fetch("SELECT sum(amount) FROM ledger_leases")
        assert not rows[0][0]


async def test_one_name_with_several_periods(tmp_path: Path) -> None:
    """A day's budget beside a month's and one in all: each is held and charged on its own."""
    periods: list[Any] = ["total", "month", "day"]
    each = [Account(name="key:ann/usd", period=p, limit=100) for p in periods]
    async with ledgers(tmp_path) as (ledger,):
        _, statements = (await ledger.take(each, 30)).charge(20)
        await ledger.store.transact("charge", lambda c: [c.execute(*s) for s in statements])
        assert [await asyncio.to_thread(ledger.spent, a) for a in each] == [20, 20, 20]
        assert [ledger.left(a) for a in each] == [80, 80, 80]


def test_windows() -> None:
    at = 1_796_256_000.0 + 3600.0  # 2026-12-03 01:00 UTC
    assert Account(name="a", period="day", limit=1).window(at) == ("2026-12-03", 1_796_256_000.0 + 86400.0)
    assert Account(name="a", period="month", limit=1).window(at) == ("2026-12", 1_798_761_600.0)
    assert Account(name="a", period="minute", limit=1).window(at)[1] == at + 60.0


# ------------------------------------------------------------------------------------------------------ with a router


def config(tmp_path: Path) -> dict[str, Any]:
    profile = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0, "max_output_tokens": 1}
    return {
        "targets": {"a": {"type": "scripted", "replies": ["four"], "profile": profile}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
        "store": {"path": str(tmp_path / "r.sqlite")},
    }


async def test_the_ledger_is_the_sum_of_the_traces(tmp_path: Path) -> None:
    """200 queries at once against money for about 100 of them: the budget is kept, and both books agree to the last micro-dollar."""
    router = make(config(tmp_path)).router()
    assert router.ledger is not None
    held = micros(router.pool.estimate_usd(_call(), Query.ask("what is 2+2?")) or 0.0)
    account = Account(name="key:ann/usd", period="month", limit=100 * held)
    async with router:
        got = await asyncio.gather(*(router.handle(Query.ask("what is 2+2?"), accounts=[account]) for _ in range(200)))
        ok = [t for o, t in got if o.ok]
        assert {o.error.kind for o, _ in got if o.error is not None} == {"budget"}
        assert len(ok) >= 100
        period = f"key:ann/usd/{time.strftime('%Y-%m', time.gmtime())}"
        assert all(t.charged == {period: micros(t.usd or 0.0)} for t in ok)
        spent = await asyncio.to_thread(router.ledger.spent, account)
        assert spent == sum(t.charged[period] for t in ok) <= account.limit
        assert await asyncio.to_thread(router.ledger.reconcile) == {}


def _call() -> Any:
    from fairlead.types import Call

    return Call(target="a")
