"""The ledger: what accounts have spent, whatever process spent it, in whole numbers (see ``docs/decisions/0017-gateway.md``).

An account is a name, a unit and a period: what the key ``ann`` may spend in a month, how many requests it may make in a minute, how many may be under
way at once. Amounts are integers: micro-dollars, requests, tokens. `micros` is the one function that rounds money, once for each trace.

    left = limit - spent - all leases

Accounts live in the store, where many processes share them. A process takes a *lease* on a part of what is left, for `LEASE_SECONDS`, and *holds* what a
plan may cost from its lease, which needs no I/O. So what is held by everybody is never more than what is left, and a budget is not overspent by concurrency.
Leases are renewed while their process lives, unused parts go back once a second, and those of a process that was killed lapse: it leaves no reserved
money behind. What a plan really cost is charged in the same transaction that writes its trace, so the two reconcile to the last micro-dollar. A
plan that costs more than was held for it (an estimate that was too low) is charged in full: only by that much can a budget be overspent.

While the store is gone no lease is renewed; when it has lapsed nothing more is held from it, unless `Ledger.serve` says so. What is charged meanwhile
may wait in the store's spool: the lease keeps as much set aside until the spool is empty. That holds for the spools of processes that live; the leases of
one that ended with a spool lapse, and until somebody writes what is in it a budget may be overspent by that much.

Leases go by the database's clock, so that machines need not agree on the time, and a process knows by its own uptime, sleep of the machine included,
until when its own stand. Periods are calendar days and months in UTC, or so many seconds counted from the Unix epoch, by the clock of the machine that
asks: around the turn of a period two machines may charge two periods, each within its limit. Cost of a hold and its charge on three accounts: 6 µs, and a
transaction of the store for each lease, of which there are few: a lease is larger than what was asked for while much is left.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct

from fairlead.errors import FairleadError, StoreError
from fairlead.store import Connection, Statement, Store, Sum

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15.0
"""How long a lease stands without being renewed: so long after its death a process's reservations are gone."""
RENEW_SECONDS: Final = 1.0
"""From one housekeeping to the next: leases are renewed, and what is not used goes back."""
GENEROUS: Final = 16
"""A lease is for so many times what was asked for, or for what was leased of late, while that is at most a quarter of what is left."""
AGAIN_SECONDS: Final = 0.1
"""For so long the store is not asked again for what it has just said is not there."""
TRIES: Final = 50
"""How often a request asks while others are quicker to take what was leased for it: only what the store does not have is refused."""
KNOWN: Final = 4096
"""Accounts whose present period is remembered."""
FOREVER: Final = 1e15
"""When a period ends that never does, as a store can hold it."""
OLD: Final = ("DELETE FROM ledger_accounts WHERE ends < ?",)
"""What a store's retention deletes: accounts of periods that are over."""

_uptime: Final = (
    functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds that no clock setting moves, and, where the system has such a clock, in which it slept count too."""

TABLES: Final = """
CREATE TABLE IF NOT EXISTS ledger_accounts(
  name TEXT NOT NULL, period TEXT NOT NULL, spent INTEGER NOT NULL, ends REAL NOT NULL, PRIMARY KEY(name, period));
CREATE TABLE IF NOT EXISTS ledger_leases(
  owner TEXT NOT NULL, name TEXT NOT NULL, period TEXT NOT NULL, amount INTEGER NOT NULL, until REAL NOT NULL,
  PRIMARY KEY(owner, name, period));
CREATE INDEX IF NOT EXISTS ledger_leases_on ON ledger_leases(name, period);
"""

Period: TypeAlias = Literal["day", "month", "total", "minute", "seconds", "now"]
"""``seconds``: as many as the account says. ``now``: no period at all, but what is under way: held, given back, never charged."""


def micros(usd: float) -> int:
    """Return micro-dollars, rounded half to even: the one place where money is rounded."""
    return round(usd * 1e6)


class Account(Struct, frozen=True, kw_only=True):
    """Something that is used up: ``key:ann`` may spend 20,000,000 (micro-dollars) a ``month``."""

    name: str
    """Whose it is and of what, ``key:ann/usd``."""
    period: Period
    limit: int
    seconds: float = 0.0

    def window(self, now: float) -> tuple[str, float]:
        """Return the name of the period that `now` is in, and when it ends (Unix time)."""
        match self.period:
            case "minute":
                n = math.floor(now / 60.0)
                return f"minute {n}", 60.0 * (n + 1)
            case "day":
                day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
                return f"{day:%Y-%m-%d}", (day + timedelta(days=1)).timestamp()
            case "month":
                month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
                return f"{month:%Y-%m}", (month + timedelta(days=32)).replace(day=1).timestamp()
            case "seconds":
                n = math.floor(now / self.seconds)
                return f"{self.seconds:g} s {n}", self.seconds * (n + 1)
        return self.period, math.inf


class Exhausted(FairleadError):
    """An account has not enough left. `until_seconds`: when that may change, from now; `words`: the same for whoever pays, in USD."""

    def __init__(self, account: Account, message: str, *, until_seconds: float, words: str = "") -> None:
        super().__init__(message)
        self.account, self.until_seconds, self.words = account, until_seconds, words or message


def dollars(usd: float) -> str:
    """Write an amount to the micro-dollar, never with an exponent."""
    return f"{usd:.6f}".rstrip("0").rstrip(".")


def in_words(account: Account, left: int, now: float) -> str:
    """Say what is left of an account of money, too little for what was asked, and when it begins anew."""
    ends = account.window(now)[1]
    anew = "" if ends == math.inf else f"; it begins anew at {datetime.fromtimestamp(ends, UTC):%Y-%m-%dT%H:%M:%SZ}"
    per = {"day": " a day", "month": " a month", "total": " in all"}.get(account.period, "")
    whose = account.name.removesuffix("/usd")
    return (
        f"{whose}: {left / 1e6:.6f} of {dollars(account.limit / 1e6)} USD{per} are left, less than this may cost{anew}"
    )


class Unknown(FairleadError):
    """The store cannot be asked, so nobody knows what is left."""


class _Lease:
    """This process's part of one account in one period."""

    __slots__ = (
        "account",
        "asked",
        "asking",
        "ends",
        "floating",
        "held",
        "key",
        "leased",
        "left",
        "owed",
        "period",
        "recent",
        "used",
        "waiters",
        "waiting",
    )

    def __init__(self, account: Account, period: str, ends: float) -> None:
        self.account, self.period, self.ends = account, period, ends
        self.key = (account.name, period)
        self.leased = 0
        """What the store has set aside for this process, less what was charged since."""
        self.owed = 0
        """What was charged since and the store's row of the lease still holds: until it is told, it counts twice, which errs on the safe side."""
        self.held = 0
        self.left = account.limit
        """What was left for everybody when the store was last asked, this process's lease not included."""
        self.waiting = 0
        """What those who wait for the store want together …"""
        self.waiters = 0
        """… and how many they are."""
        self.used = 0
        """Charged here and not told the store yet: rates, which no trace carries."""
        self.floating = 0
        """The most that was held at once since the last housekeeping."""
        self.recent = 0
        """What was leased of late, halved by each housekeeping: a busy process leases as much again at once, and asks seldom."""
        self.asking: asyncio.Future[None] | None = None
        self.asked = -math.inf
        """Uptime when the store last said what is left."""

    @property
    def room(self) -> int:
        return self.leased - self.held


class Hold:
    """What one request holds on its accounts. `cover` is that of a `fairlead.spending.Purse`, in USD."""

    __slots__ = ("amounts", "ledger")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.amounts: list[tuple[_Lease, int]] = []

    def cover(self, usd: float) -> bool:
        """Hold `usd` in all on each account, what is spent of it included; False, and no change, if a lease has not so much room left."""
        wanted = math.ceil(usd * 1e6)
        for lease, amount in self.amounts:
            if wanted - amount > lease.room or not self.ledger.valid:
                if self.ledger.serve and not self.ledger.reachable:
                    continue
                return False
        for i, (lease, amount) in enumerate(self.amounts):
            if wanted > amount:
                lease.held += wanted - amount
                if lease.held > lease.floating:
                    lease.floating = lease.held
                self.amounts[i] = (lease, wanted)
        return True

    async def extend(self, usd: float) -> bool:
        """Lease what is missing for `cover` to hold `usd` in all; False if the store has not so much, or is gone."""
        wanted = math.ceil(usd * 1e6)
        try:
            for lease, amount in tuple(self.amounts):
                if wanted - amount > lease.room or not self.ledger.valid:
                    await self.ledger._extend(lease, wanted - amount, time.time())
        except (Exhausted, Unknown):
            return False
        return True

    def release(self) -> None:
        """Give back what is held and charge nothing. A second time changes nothing."""
        for lease, amount in self.amounts:
            lease.held -= amount
        self.amounts.clear()

    def use(self, amount: int) -> None:
        """Charge `amount` on each account and give back the rest; for rates, which the store is told of once a second."""
        for lease, held in self.amounts:
            lease.held -= held
            lease.leased -= amount
            lease.owed += amount
            lease.used += amount
        self.amounts.clear()

    def charge(self, amount: int) -> tuple[dict[str, int], list[Sum]]:
        """Charge `amount` on each account and give back the rest: (what goes into the trace, the SQL that goes with it into one transaction)."""
        charged: dict[str, int] = {}
        sums: list[Sum] = []
        for lease, held in self.amounts:
            name, period = lease.key
            charged[f"{name}/{period}"] = amount
            lease.held -= held
            lease.leased -= amount
            lease.owed += amount
            if amount:
                sums.append(_charge(name, period, amount, lease.ends))
        self.amounts.clear()
        return charged, sums


_ADD: Final = (
    "INSERT INTO ledger_accounts(name, period, ends, spent) VALUES (?, ?, ?, ?) "
    "ON CONFLICT(name, period) DO UPDATE SET spent = ledger_accounts.spent + excluded.spent"
)


def _charge(name: str, period: str, amount: int, ends: float) -> Sum:
    return Sum(_ADD, (name, period, min(ends, FOREVER)), amount)


class Ledger:
    """Accounts in a store, and this process's leases on them.

    Args:
        store: whose tables they are kept in. Make the ledger before the store is started.
        serve: whether to go on, while the store is gone, when leases have lapsed: what is spent meanwhile is charged later, so that a budget may be
            overspent. If not, `take` raises `Unknown`.
        lease_seconds: how long a lease stands without being renewed.
    """

    def __init__(self, store: Store, *, serve: bool = False, lease_seconds: float = LEASE_SECONDS) -> None:
        self.store, self.serve, self.lease_seconds = store, serve, lease_seconds
        self.owner = token_hex(8)
        self.reachable = True
        self._leases: dict[tuple[str, str], _Lease] = {}
        self._known: dict[int, tuple[float, _Lease]] = {}
        """Since when an account (by identity; its lease keeps it alive) was held, and where: within one period that is not worked out again."""
        self._until = -math.inf
        """Uptime until which the leases stand."""
        self._late: list[Sum] = []
        """Charges whose trace could not be written: they are written alone."""
        self._renewing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._now = f"SELECT {store.now}"
        store.tables(TABLES, old=OLD)

    # ------------------------------------------------------------------------------------------------ its life

    async def start(self) -> None:
        """Begin to renew leases."""
        self._until = _uptime() + self._sure
        self._keeper = asyncio.create_task(self._keep(), name="fairlead-ledger")

    async def stop(self) -> None:
        """Tell the store what was used, and give all leases back."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
            try:
                await self._housekeep(leaving=True)
            except StoreError as e:
                log.warning("leases could not be given back (%s); they lapse in %g s", e, LEASE_SECONDS)

    @property
    def _sure(self) -> float:
        """How long after a renewal was sent leases surely stand."""
        return self.lease_seconds - min(2 * RENEW_SECONDS, self.lease_seconds / 2)

    @property
    def valid(self) -> bool:
        """Whether what leases have left may be held from."""
        return _uptime() < self._until

    def later(self, sums: Sequence[Sum]) -> None:
        """Write charges whose trace could not be written: the money is gone, whether the story of it was kept or not."""
        self._late += sums

    # ------------------------------------------------------------------------------------------------ holding

    async def take(self, accounts: Sequence[Account], amount: int, *, now: float | None = None) -> Hold:
        """Hold `amount` on each of `accounts`, or on none.

        Raises:
            Exhausted: an account has not so much left.
            Unknown: the store is gone, and so is what was leased.
        """
        now = time.time() if now is None else now
        hold = Hold(self)
        try:
            for account in accounts:
                lease = self._lease(account, now)
                if amount > lease.room or not self.valid:
                    await self._extend(lease, amount, now)
                lease.held += amount
                if lease.held > lease.floating:
                    lease.floating = lease.held
                hold.amounts.append((lease, amount))
        except BaseException:
            hold.release()
            raise
        return hold

    def try_take(self, accounts: Sequence[Account], amount: int, *, now: float) -> Hold | None:
        """Hold `amount` on each of `accounts` if what is leased has room for it, without asking anybody; else None, and nothing is held."""
        if not self.valid:
            return None
        hold = Hold(self)
        for account in accounts:
            lease = self._lease(account, now)
            held = lease.held + amount
            if held > lease.leased:
                hold.release()
                return None
            lease.held = held
            if held > lease.floating:
                lease.floating = held
            hold.amounts.append((lease, amount))
        return hold

    def left(self, account: Account, *, now: float | None = None) -> int:
        """Return how much of an account is left, as far as this process knows: others may have spent or given back since the store was asked."""
        lease = self._lease(account, time.time() if now is None else now)
        left = lease.left + lease.leased - lease.held
        return left if left > 0 else 0

    async def look(self, accounts: Sequence[Account]) -> bool:
        """Ask the store what is left of those of `accounts` that it was not asked for in the last `AGAIN_SECONDS`; say whether it was asked."""
        now, since = time.time(), _uptime() - AGAIN_SECONDS
        old = [lease for account in accounts if (lease := self._lease(account, now)).asked < since]
        if not old or not self.reachable or not self.valid:
            return False
        try:
            await asyncio.gather(*(self._asking(lease) for lease in old))
        except StoreError as e:
            log.warning("what is left cannot be looked up, so what was last known holds: %s", e)
            return False
        return True

    def _lease(self, account: Account, now: float) -> _Lease:
        known = self._known.get(id(account))
        if known is not None:
            since, lease = known
            if lease.account is account and since <= now < lease.ends:
                return lease
        lease = self._find(account, now)
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[id(account)] = (now, lease)
        return lease

    def _find(self, account: Account, now: float) -> _Lease:
        period, ends = account.window(now)
        key = (account.name, period)
        lease = self._leases.get(key)
        if lease is None:
            lease = self._leases[key] = _Lease(account, period, ends)
        elif lease.account is not account:
            lease.left += account.limit - lease.account.limit  # an admin may have changed it
            lease.account = account
        return lease

    async def _extend(self, lease: _Lease, amount: int, now: float) -> None:
        """Get room for `amount`, together with all others who wait for the same. Raises as `take` does."""
        # Whoever goes on asking for what is not there is not to keep the store busy.
        if lease.left + lease.room < amount and _uptime() - lease.asked < AGAIN_SECONDS and self.valid:
            raise self._exhausted(lease, amount, now)
        lease.waiting += amount
        lease.waiters += 1
        try:
            for _ in range(TRIES):  # others may be quicker to take what was leased for all
                if not self.reachable:  # the keeper asks once a second, for all
                    if self.serve:
                        return
                    raise Unknown(f"what is left of {lease.account.name} cannot be looked up: the store is gone")
                try:
                    if not self.valid:
                        await self._housekeep()
                    await self._asking(lease)
                except StoreError as e:
                    if self.serve:
                        self._lost(e)
                        return
                    raise Unknown(f"what is left of {lease.account.name} cannot be looked up: {e}") from e
                if lease.room >= amount:
                    return
                if lease.left + lease.room < amount:
                    break
        finally:
            lease.waiting -= amount
            lease.waiters -= 1
        raise self._exhausted(lease, amount, now)

    def _exhausted(self, lease: _Lease, amount: int, now: float) -> Exhausted:
        account, left = lease.account, max(0, lease.left + lease.room)
        # Of what is under way some may end at any time; what is spent in all never comes back.
        wait = max(1.0, lease.ends - now) if account.period != "now" else 1.0
        message = f"{account.name}: {left} of {account.limit} are left in this period ({lease.period}), and {amount} are needed"
        return Exhausted(account, message, until_seconds=wait, words=in_words(account, left, now))

    def _asking(self, lease: _Lease) -> asyncio.Future[None]:
        """Ask the store, all who want to know together."""
        if lease.asking is None:
            lease.asking = asyncio.ensure_future(self._ask(lease))
        return asyncio.shield(lease.asking)

    async def _ask(self, lease: _Lease) -> None:
        # What the store is told is taken off before it is told: nobody else is to tell it too.
        used, owed, short = self._to_tell(lease)
        lease.used, lease.owed, lease.leased = lease.used - used, lease.owed - owed, lease.leased + short
        try:
            needed, some = max(0, lease.waiting - lease.room), lease.waiters > 1
            wanted = max(GENEROUS * needed, lease.recent) if needed else 0
            ask = _Ask(self.owner, lease.account, lease.period, min(lease.ends, FOREVER), self.lease_seconds, self._now)
            granted, left = await self.store.transact(
                f"lease on {lease.account.name}",
                lambda c: _grant(c, ask, needed=needed, wanted=wanted, used=used, owed=owed, some=some),
            )
        except Exception:  # it is told the next time
            lease.used, lease.owed, lease.leased = lease.used + used, lease.owed + owed, lease.leased - short
            raise
        else:
            lease.recent += granted
            lease.leased += granted
            lease.left = left
            lease.asked = _uptime()
        finally:
            lease.asking = None

    def _to_tell(self, lease: _Lease) -> tuple[int, int, int]:
        """Return what the store is to be told of a lease: used, owed, and by how much `leased` rises then.

        A charge that waits in a spool is not in its account yet: until it is, the lease stands in for it. What cost more than was leased is the
        store's to count once it is told of it, and not this lease's any more.
        """
        owed = lease.used if self.store.spool_bytes else lease.owed
        return lease.used, owed, max(0, -lease.leased) if owed == lease.owed else 0

    # ------------------------------------------------------------------------------------------------ housekeeping

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._housekeep()
                if not self.reachable:
                    log.warning("the ledger's store is back")
                self.reachable = True
            except StoreError as e:
                self._lost(e)
            except Exception:  # the wall of housekeeping: without it leases would lapse, and nobody would know why
                log.exception("the housekeeping of leases broke; it is tried again")

    def _lost(self, e: StoreError) -> None:
        if self.reachable:
            log.error("leases cannot be renewed: %s", e)
        self.reachable = False

    async def _housekeep(self, *, leaving: bool = False) -> None:
        """Renew what is used, give back what is not, tell what was used up of rates, forget periods that are over."""
        async with self._renewing:
            # Others may have taken what lapsed: all that is still ours is what is under way, and is charged whatever happens.
            lapsed = _uptime() > self._until + self.lease_seconds - self._sure
            if lapsed and (asking := [le.asking for le in self._leases.values() if le.asking is not None]):
                await asyncio.wait(asking)  # what they get is not to be taken off behind their back
            now, sent = time.time(), _uptime()
            late, self._late = self._late, []
            statements = [charge.statement for charge in late]
            told: list[tuple[_Lease, int, int, int, int]] = []
            for key, lease in list(self._leases.items()):
                used, owed, short = self._to_tell(lease)
                back = 0
                if lapsed or (lease.asking is None and not lease.waiting):
                    back = lease.room if leaving or lapsed else max(0, lease.leased - max(lease.floating, lease.held))
                lease.floating = lease.held
                lease.recent //= 2
                if used:
                    statements.append(_charge(*key, used, lease.ends).statement)
                if lapsed and not leaving and (ours := lease.held + lease.owed - owed):
                    statements.append(_put(self.owner, *key, ours))
                elif not lapsed and owed + back:
                    statements.append(_less(self.owner, *key, owed + back))
                if used or owed or back:
                    if back or lease.asking is not None:
                        short = 0
                    lease.used, lease.owed = lease.used - used, lease.owed - owed
                    lease.leased += short - back
                    told.append((lease, used, owed, back, short))
                elif now > lease.ends + 60.0 and not (lease.asking or lease.held or lease.owed or lease.leased > 0):
                    del self._leases[key]
                    self._known.clear()
            try:
                scarce = [le for le in self._leases.values() if le.left + le.room < le.account.limit // 10]
                seconds = None if leaving else self.lease_seconds
                left = await self.store.transact(
                    "leases",
                    lambda c: _renew(c, self.owner, self._now, statements, seconds, lapsed=lapsed, scarce=scarce),
                )
            except Exception:
                self._late = late + self._late
                for lease, used, owed, back, short in told:  # it is told the next time
                    lease.used, lease.owed = lease.used + used, lease.owed + owed
                    lease.leased += back - short
                raise
            for lease, _, _, back, short in told:
                lease.left += back - short
            for lease, now_left in zip(scarce, left, strict=True):  # others may have given back what they did not use
                lease.left = now_left
            self._until = sent + self._sure

    # ------------------------------------------------------------------------------------------------ looking

    def spent(self, account: Account, *, now: float | None = None) -> int:
        """Read what was charged in an account's present period, by all processes. Blocks."""
        period, _ = account.window(time.time() if now is None else now)
        rows = self.store.rows(
            "SELECT spent FROM ledger_accounts WHERE name = ? AND period = ?", (account.name, period)
        )
        return int(rows[0][0]) if rows else 0

    def reconcile(self) -> dict[str, tuple[int, int]]:
        """Compare the ledger with the traces: accounts of money where they differ, (by the ledger, by the traces). Blocks, and reads every trace."""
        by_trace: dict[str, int] = {}
        for trace in self.store.traces():
            for name, amount in trace.charged.items():
                by_trace[name] = by_trace.get(name, 0) + amount
        rows = self.store.rows("SELECT name, period, spent FROM ledger_accounts")
        ledger = {f"{n}/{p}": int(s) for n, p, s in rows if n.endswith("/usd")}
        names = {*by_trace, *ledger}
        return {n: (a, b) for n in sorted(names) if (a := ledger.get(n, 0)) != (b := by_trace.get(n, 0))}


class _Ask(NamedTuple):
    """Who asks for a lease on what."""

    owner: str
    account: Account
    period: str
    ends: float
    seconds: float
    now: str
    """SQL for the database's time."""


def _grant(
    connection: Connection, ask: _Ask, *, needed: int, wanted: int, used: int, owed: int, some: bool
) -> tuple[int, int]:
    """Set aside `needed` if so much is left, up to `wanted` if much is, or, if `some` will do, what there is: (granted, left for everybody
    after that).

    `used` and `owed`: what of the lease was used up since, and the store is told now.
    """
    owner, account, period, ends, seconds, clock = ask
    name = account.name
    # An account's row is what processes queue at: whoever changes it first goes first, in either database.
    connection.execute(*_charge(name, period, used, ends).statement)
    now = _time(connection, clock)
    if owed:
        connection.execute(*_less(owner, name, period, owed))
    left = _left(connection, owner, account, period, now)
    if left >= needed:
        granted = min(left, max(needed, min(wanted, left // 4)))
    else:
        granted = left if some else 0
    if granted:
        connection.execute(
            "INSERT INTO ledger_leases(owner, name, period, amount, until) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT(owner, name, period) DO UPDATE SET amount = ledger_leases.amount + excluded.amount, until = excluded.until",
            (owner, name, period, granted, now + seconds),
        )
    return granted, left - granted


def _left(connection: Connection, owner: str, account: Account, period: str, now: float) -> int:
    """Return what is left for everybody. A lapsed lease of this process's own still counts: what is held from it will be charged."""
    spent = connection.execute(
        "SELECT coalesce(sum(spent), 0) FROM ledger_accounts WHERE name = ? AND period = ?", (account.name, period)
    ).fetchone()
    leased = connection.execute(
        "SELECT coalesce(sum(amount), 0) FROM ledger_leases WHERE name = ? AND period = ? AND (until > ? OR owner = ?)",
        (account.name, period, now, owner),
    ).fetchone()
    return max(0, account.limit - int(spent[0]) - int(leased[0]))


def _less(owner: str, name: str, period: str, amount: int) -> Statement:
    less = "UPDATE ledger_leases SET amount = CASE WHEN amount > ? THEN amount - ? ELSE 0 END WHERE owner = ? AND name = ? AND period = ?"
    return less, (amount, amount, owner, name, period)


def _put(owner: str, name: str, period: str, amount: int) -> Statement:
    """Lease again what lapsed; until when, `_renew` says of all."""
    put = "INSERT INTO ledger_leases(owner, name, period, amount, until) VALUES (?, ?, ?, ?, 0)"
    return put, (owner, name, period, amount)


def _time(connection: Connection, clock: str) -> float:
    """Return the time by which leases go: the database's, which all machines share."""
    (now,) = connection.execute(clock).fetchone()
    return float(now)


def _renew(
    connection: Connection,
    owner: str,
    clock: str,
    statements: Sequence[Statement],
    seconds: float | None,
    *,
    lapsed: bool,
    scarce: Sequence[_Lease],
) -> list[int]:
    """Do what housekeeping does (`seconds` None: for the last time), and read what is left of the `scarce`."""
    now = _time(connection, clock)
    if seconds is None or lapsed:
        connection.execute("DELETE FROM ledger_leases WHERE owner = ?", (owner,))
    for sql, params in statements:
        connection.execute(sql, params)
    if seconds is not None:
        connection.execute("DELETE FROM ledger_leases WHERE owner = ? AND amount = 0", (owner,))
        connection.execute("UPDATE ledger_leases SET until = ? WHERE owner = ?", (now + seconds, owner))
    # Those of the dead. A minute's account is of no use to anybody soon after.
    connection.execute("DELETE FROM ledger_leases WHERE until < ?", (now - LEASE_SECONDS,))
    connection.execute("DELETE FROM ledger_accounts WHERE ends < ? AND period LIKE 'minute %'", (now - 3600.0,))
    return [_left(connection, owner, lease.account, lease.period, now) for lease in scarce]
