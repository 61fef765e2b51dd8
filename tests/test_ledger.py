"""Accounts that many share: never overspent, nothing left reserved by the dead, the same as the traces to the last micro-dollar."""

import asyncio
import random
import sqlite3
import time
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import a_trace

from fairlead.config import make
from fairlead.errors import NoEligibleTarget
from fairlead.gateway.admin import spend as spend_of
from fairlead.ledger import AGAIN_SECONDS, Account, Exhausted, Ledger, Unknown, micros
from fairlead.sqlite import SQLiteStore
from fairlead.sqlstore import SQLStore, kept_at
from fairlead.types import Query

BUDGET = Account(name="key:ann/usd", period="total", limit=100)


@asynccontextmanager
async def ledgers(tmp_path: Path | str, n: int = 1, **more: Any) -> AsyncIterator[list[Ledger]]:
    """Several ledgers, as of several processes, on one store: in a folder, or at the URL of a PostgreSQL database."""
    store = kept_at(tmp_path, outage="refuse") if isinstance(tmp_path, str) else SQLiteStore(tmp_path / "s.sqlite")
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
    await ledger.store.transact("charge", lambda c: [c.execute(*s.statement) for s in statements])
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
                    await each[who].store.transact(
                        "charge", lambda c, s=statements: [c.execute(*x.statement) for x in s]
                    )
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
        ask = ledger._ask
        taken: list[Any] = []

        async def asked(lease: Any) -> None:
            await ask(lease)
            if len(taken) < 5:
                taken.append(ledger.try_take([large], lease.room, now=time.time()))

        monkeypatch.setattr(ledger, "_ask", asked)
        (await ledger.take([large], 10)).release()
        assert len(taken) == 5
        assert None not in taken


async def reserved(ledger: Ledger) -> dict[tuple[str, str], int]:
    """What the store has set aside for a ledger, by account and period."""
    rows = await ledger.store.fetch("SELECT name, period, amount FROM ledger_leases WHERE owner = ?", (ledger.owner,))
    return {(name, period): amount for name, period, amount in rows if amount}


def still(ledger: Ledger) -> None:
    """Let a ledger do its housekeeping when the test says so, and not by itself."""
    assert ledger._keeper is not None
    ledger._keeper.cancel()


async def test_what_is_charged_is_told_once_however_telling_overlaps(tmp_path: Path) -> None:
    """Somebody asks for a lease while housekeeping runs: the row of the lease falls once by what was charged, and nobody is given what is held."""
    large = Account(name="key:ann/usd", period="month", limit=10_000)
    async with ledgers(tmp_path, 2) as (one, two):
        still(one)
        assert await spend(one, 3000, 3000, large)
        taking = asyncio.create_task(one.take([large], 2000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await one._housekeep()
        hold = await taking
        (lease,) = one._leases.values()
        assert await reserved(one) == {lease.key: lease.leased + lease.owed}
        with pytest.raises(Exhausted):
            await two.take([large], 5001)
        hold.release()
        await one._housekeep()
        await one._housekeep()
        assert await reserved(one) == {}
        await asyncio.sleep(AGAIN_SECONDS)
        assert await spend(two, 7000, 7000, large)


@pytest.mark.parametrize("seed", range(4))
async def test_any_overlap_of_holds_charges_and_housekeeping_stays_within(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for anybody, and some plans cost more than was held: spent and held are within the limit but for that, and books agree."""
    rnd, limit = random.Random(seed), 4000
    money, rate = Account(name="a/usd", period="total", limit=limit), Account(name="a/n", period="day", limit=10**6)
    held = spent = over = 0

    async def one(ledger: Ledger) -> None:
        nonlocal held, spent, over
        await asyncio.sleep(rnd.random() * 0.02)
        amount = rnd.randrange(1, 200)
        try:
            hold = await ledger.take([money], amount)
        except Exhausted:
            return
        held += amount
        assert spent + held <= limit + over
        (await ledger.take([rate], 3)).use(2)
        await asyncio.sleep(rnd.random() * 0.02)
        cost = rnd.randrange(0, 50) if rnd.random() < 0.9 else amount + rnd.randrange(0, 300)
        held, spent, over = held - amount, spent + cost, over + max(0, cost - amount)
        _, statements = hold.charge(cost)
        await ledger.store.transact("charge", lambda c: [c.execute(*s.statement) for s in statements])

    async def keep(ledger: Ledger) -> None:
        for _ in range(10):
            await asyncio.sleep(rnd.random() * 0.01)
            await ledger._housekeep()

    async with ledgers(tmp_path, 2) as each:
        transact = each[0].store.transact

        async def slow(name: str, work: Any) -> Any:
            await asyncio.sleep(0.003)
            return await transact(name, work)

        monkeypatch.setattr(each[0].store, "transact", slow)
        for ledger in each:
            still(ledger)
        await asyncio.gather(*(one(rnd.choice(each)) for _ in range(150)), *(keep(ledger) for ledger in each))
        for ledger in each:
            for _ in range(3):
                await ledger._housekeep()
            assert all(le.held == le.owed == le.used == 0 for le in ledger._leases.values())
            assert await reserved(ledger) == {}
        assert await asyncio.to_thread(each[0].spent, money) == spent


async def test_a_failed_ask_is_told_the_next_time(tmp_path: Path) -> None:
    async with ledgers(tmp_path) as (ledger,):
        still(ledger)
        rate = Account(name="a/requests", period="day", limit=100)
        (await ledger.take([rate], 10)).use(10)
        store, ledger.store = ledger.store, Gone()  # type: ignore[assignment]
        with pytest.raises(Unknown):
            await ledger.take([rate], 90)
        ledger.store, ledger.reachable = store, True
        (await ledger.take([rate], 90)).release()
        with pytest.raises(Exhausted):
            await ledger.take([rate], 91)
        assert await asyncio.to_thread(ledger.spent, rate) == 10


async def test_what_others_gave_back_is_seen(tmp_path: Path) -> None:
    """What was once said to be left is no reason to refuse for ever: the store is asked again."""
    large = Account(name="key:ann/usd", period="month", limit=1_000_000)
    async with ledgers(tmp_path, 2) as (one, two):
        hold = await two.take([large], 850_000)
        with pytest.raises(Exhausted):
            await one.take([large], 160_000)
        assert one.left(large) < 160_000
        hold.release()
        await two._housekeep()
        await two._housekeep()
        assert not await one.look([large]), "it has just been asked"
        await asyncio.sleep(AGAIN_SECONDS)
        assert await one.look([large])
        assert one.left(large) == 1_000_000
        assert await reserved(one) == {}, "a look takes nothing"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_clocks_that_differ_overspend_nothing(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases go by the database's clock: those of a machine that is 20 s or an hour behind stand as anybody's do."""
    where: Path | str = tmp_path if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))
    for behind in (20.0, 3600.0):
        account = Account(name=f"{behind}/usd", period="total", limit=100)
        clock = types.SimpleNamespace(time=lambda behind=behind: time.time() - behind)
        async with ledgers(where, 2) as (slow, live):
            with monkeypatch.context() as patched:
                patched.setattr("fairlead.ledger.time", clock)
                hold = await slow.take([account], 90)
                await slow._housekeep()
            await live._housekeep()
            with pytest.raises(Exhausted):
                await live.take([account], 50)
            hold.release()


async def test_a_clock_that_was_wrong_for_a_moment(tmp_path: Path) -> None:
    """Ahead by a month and set right again: what is asked for belongs to the month that it is, and not to the next."""
    month = Account(name="key:ann/usd", period="month", limit=100)
    async with ledgers(tmp_path) as (ledger,):
        now = 1_796_256_000.0
        (await ledger.take([month], 1, now=now + 40 * 86400.0)).release()
        charged, _ = (await ledger.take([month], 1, now=now)).charge(1)
        assert charged == {"key:ann/usd/2026-12": 1}


async def test_what_waits_in_the_spool_stays_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database was gone, a charge waits in a file: until it is written nobody else is given the money."""
    async with ledgers(tmp_path, 2) as (one, two):
        still(one)
        _, statements = (await one.take([BUDGET], 60)).charge(60)
        with monkeypatch.context() as patched:
            patched.setattr(SQLiteStore, "spool_bytes", 500)
            await one._housekeep()
            with pytest.raises(Exhausted):
                await two.take([BUDGET], 41)
            (await one.take([BUDGET], 40)).release()  # so does an ask tell nothing
            await one._housekeep()
            await one._housekeep()
            one._until = -1e9  # an outage for longer than a lease
            await one._housekeep()
            with pytest.raises(Exhausted):
                await two.take([BUDGET], 41)
        await one.store.transact("spool", lambda c: [c.execute(*s.statement) for s in statements])
        await one._housekeep()
        assert await reserved(one) == {}
        await asyncio.sleep(AGAIN_SECONDS)
        (await two.take([BUDGET], 40)).release()
        with pytest.raises(Exhausted):
            await two.take([BUDGET], 41)


async def test_a_real_spool_keeps_its_charges_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody locks: the trace with its charge goes to the spool, and comes into the file later than the first housekeeping."""
    monkeypatch.setattr("fairlead.sqlite.BUSY_SPOOL_SECONDS", 0.02)
    monkeypatch.setattr("fairlead.sqlite.BUSY_SECONDS", 0.02)
    store = SQLiteStore(tmp_path / "s.sqlite", outage="spool")
    one, two = Ledger(store), Ledger(store)
    store.start()
    try:
        for ledger in (one, two):
            await ledger.start()
            still(ledger)
        hold = await one.take([BUDGET], 60)
        drain = store._writer._drain
        monkeypatch.setattr(store._writer, "_drain", lambda **_: None)
        with closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            _, statements = hold.charge(60)
            await store.append(a_trace("t"), statements)  # type: ignore[misc]
            assert store.spool_bytes
        async with asyncio.timeout(20):
            while not store.up:
                await asyncio.sleep(0.01)
            await one._housekeep()
            with pytest.raises(Exhausted):
                await two.take([BUDGET], 41)
            monkeypatch.setattr(store._writer, "_drain", drain)
            store._writer.look()
            while store.spool_bytes:
                await asyncio.sleep(0.01)
        await one._housekeep()
        await asyncio.sleep(AGAIN_SECONDS)
        (await two.take([BUDGET], 40)).release()
        assert await asyncio.to_thread(two.spent, BUDGET) == 60
        for ledger in (one, two):
            await ledger.stop()
    finally:
        await asyncio.to_thread(store.stop)


async def test_housekeeping_outlives_what_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fairlead.ledger.RENEW_SECONDS", 0.01)
    async with ledgers(tmp_path) as (ledger,):
        broken, until = monkeypatch.context, ledger._until
        with broken() as patched:
            patched.setattr(ledger, "_housekeep", lambda: 1 / 0)
            await asyncio.sleep(0.05)
        assert "it is tried again" in caplog.text
        await asyncio.sleep(0.05)
        assert ledger._until > until


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_periods_that_are_over_leave_nothing_behind(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """No lease of nothing; and retention takes the accounts of periods that ended before, but not those that never end."""
    where: Path | str = tmp_path if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))
    async with ledgers(where) as (ledger,):
        now = time.time() - 60 * 86400.0
        kinds: list[Any] = ["minute", "day", "month", "total"]
        accounts = [Account(name="a/usd", period=period, limit=10) for period in kinds]
        (await ledger.take(accounts, 1, now=now)).use(1)
        for _ in range(3):
            await ledger._housekeep()
        assert set(ledger._leases) == {("a/usd", "total")}
        assert not await ledger.store.fetch("SELECT * FROM ledger_leases")
        assert isinstance(ledger.store, SQLStore)
        (row,) = await asyncio.to_thread(spend_of, ledger.store, accounts[-1:], time.time())
        assert (row.spent, row.held, row.left) == (1, 0, 9)
        await asyncio.to_thread(ledger.store.forget, before=time.time() - 86400.0)
        assert await ledger.store.fetch("SELECT period, spent FROM ledger_accounts") == [("total", 1)]


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
    spool_bytes = 0

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
        await ledger.store.transact("charge", lambda c: [c.execute(*s.statement) for s in statements])
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


async def test_a_router_refuses_nobody_for_what_was_left_once(tmp_path: Path) -> None:
    """Another process holds nearly all, so a query is refused; when it has given that back, the next one is answered."""
    router = make(config(tmp_path)).router()
    assert router.ledger is not None
    cost = micros(router.pool.estimate_usd(_call(), Query.ask("what is 2+2?")) or 0.0)
    account = Account(name="key:ann/usd", period="month", limit=100 * cost)
    other = Ledger(router.store)
    async with router:
        await other.start()
        hold = await other.take([account], 100 * cost - cost // 2)
        outcome, _ = await router.handle(Query.ask("what is 2+2?"), accounts=[account])
        assert outcome.error is not None
        assert outcome.error.kind == "budget"
        with pytest.raises(NoEligibleTarget):
            await router.handle(Query.ask("what is 2+2?"), accounts=[account])
        hold.release()
        await other._housekeep()
        await other._housekeep()
        await asyncio.sleep(AGAIN_SECONDS)
        outcome, _ = await router.handle(Query.ask("what is 2+2?"), accounts=[account])
        assert outcome.ok
        await other.stop()


def _call() -> Any:
    from fairlead.types import Call

    return Call(target="a")


async def test_a_dearer_plan_that_takes_over_is_paid_from_what_the_store_has_left(tmp_path: Path) -> None:
    """The lease is for the cheap target that was chosen and fails; the account has plenty for the one that costs a thousand times as much."""
    prices = {"input_usd_per_mtok": 0.0, "max_output_tokens": 1000}
    made = make(
        {
            "targets": {
                "cheap": {
                    "type": "scripted",
                    "replies": [{"error": {"kind": "unavailable"}}],
                    "profile": {**prices, "output_usd_per_mtok": 0.1},
                },
                "dear": {"type": "scripted", "replies": ["4"], "profile": {**prices, "output_usd_per_mtok": 100.0}},
            },
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "cheap"}}},
            "store": {"path": str(tmp_path / "s.sqlite")},
        }
    )
    async with made.router() as router:
        rich = Account(name="key:ann/usd", period="total", limit=1_000_000)
        outcome, _ = await router.handle(Query.ask("hi"), accounts=[rich])
        assert (outcome.target, outcome.text) == ("dear", "4")
        poor = Account(name="key:bob/usd", period="total", limit=50_000)
        outcome, _ = await router.handle(Query.ask("hi"), accounts=[poor])
        assert outcome.error is not None
        assert not outcome.ok


async def test_charges_of_one_transaction_are_added_up_and_whoever_reads_meanwhile_sees_them(tmp_path: Path) -> None:
    account = Account(name="key:ann/usd", period="total", limit=10_000)
    async with ledgers(tmp_path) as (ledger,):
        store = ledger.store
        sql: list[str] = []
        found: list[Any] = []
        assert isinstance(store, SQLStore)
        holds = [await ledger.take([account], 100) for _ in range(6)]
        watch: Any = lambda c, _: c.set_trace_callback(sql.append)  # noqa: E731
        store._blocking("watch", watch)
        written: list[Any] = []
        read = "SELECT spent FROM ledger_accounts"
        for n, hold in enumerate(holds):
            charged, sums = hold.charge(10 + n)
            assert charged == {"key:ann/usd/total": 10 + n}
            written.append(store.append(a_trace(f"t{n}"), sums))
            if n == 3:
                written.append(store.transact("read", lambda c: found.extend(c.execute(read).fetchall())))
        await asyncio.gather(*written)
        assert found == [(10 + 11 + 12 + 13,)]
        assert store.rows("SELECT spent FROM ledger_accounts") == [(75,)]
        adds = [s for s in sql if s.startswith("INSERT INTO ledger_accounts")]
        assert len(adds) == 2, "one before the job that reads, one at the end"
