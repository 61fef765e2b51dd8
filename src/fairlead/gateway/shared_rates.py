"""Rates in Redis: the accounts of `limits`, shared by all gateways on one server, in place of the ledger's (`fairlead.ledger`). Ours, no paper.

Each process has a *part* of an account set aside for it, with what it has used up, and lets requests in from its part without asking:

    left for everybody = limit - the parts of all processes

A part without room gets what is needed, and more only as far as that is at most a `SLICE`-th of what is left; what is not under way goes back twice
a second. So never more than a limit is let in, and one process may refuse too early by what another has set aside just now. The other way, a
question for each request, is exact at every moment, and costs each a round trip and 130 µs of CPU.

Redis is told how large a part *is*, not by how much it has changed. So telling it again does no harm where nobody knows whether it has arrived, and
a server that has lost its data learns from its processes what they have used. Parts of a minute go with the minute; those of requests under way
count for as long as their process has shown itself within `ALIVE_SECONDS`.

While Redis is gone each process counts alone, against the whole limit, and tells afterwards.

Cost: 4 µs a request with all three limits; one script (130 µs of CPU) for all requests that wait for room together, and one each half second.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import Any, Final

from fairlead.errors import RedisError
from fairlead.ledger import Account, Exhausted

ALIVE_SECONDS: Final = 10.0
"""So long after a process last showed itself its requests under way are taken for ended."""
SLICE: Final = 16
GENEROUS: Final = 16
"""A part grows by so many times what is needed, or by as much as of late, as far as a slice goes."""
AGAIN_SECONDS: Final = 0.1
"""For so long Redis is not asked again for what it has just said is not there."""
AFTER_SECONDS: Final = 60.0
"""How long the parts of a minute are kept beyond it: clocks differ."""
MOST: Final = 200
"""Accounts in one script, which keeps everybody else waiting."""

# For each account eight arguments -> what is granted of it, and what is left then. The first answer: whether this process was known.
_TELL: Final = """
local prefix, owner, alive, slice = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local out = {redis.call('EXISTS', prefix..'alive:'..owner)}
redis.call('SET', prefix..'alive:'..owner, 1, 'PX', alive)
for i = 5, #ARGV, 8 do
  local kind, limit, mine = ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local needed, wanted, waiters, keep = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]), ARGV[i + 7]
  local name = prefix..'rate:'..ARGV[i]
  local left, parts = limit - mine, redis.call('HGETALL', name)
  for j = 1, #parts, 2 do
    if parts[j] ~= owner then
      if kind == 'now' and redis.call('EXISTS', prefix..'alive:'..parts[j]) == 0 then
        redis.call('HDEL', name, parts[j])
      else
        left = left - parts[j + 1]
      end
    end
  end
  left = math.max(left, 0)
  local granted = 0
  if needed > 0 and left >= needed then
    granted = math.max(needed, math.min(wanted, math.floor(left / slice)))
  elseif waiters > 1 then -- enough for some of them
    granted = math.min(left, needed)
  end
  if mine + granted > 0 then
    redis.call('HSET', name, owner, string.format('%.0f', mine + granted))
    redis.call('PEXPIRE', name, keep)
  else
    redis.call('HDEL', name, owner)
  end
  out[#out + 1] = granted
  out[#out + 1] = left - granted
end
return out
"""


class _Part:
    """What one account has set aside for this process, in one period."""

    __slots__ = (
        "account",
        "aside",
        "asked",
        "ends",
        "held",
        "left",
        "period",
        "recent",
        "since",
        "told",
        "used",
        "waiters",
        "waiting",
    )

    def __init__(self, account: Account, period: str, ends: float, since: float) -> None:
        self.account, self.period, self.ends = account, period, ends
        self.since = since
        """From then until it ends this is surely the account's present period."""
        self.aside = 0
        """The part: what is used up, what is held, and what there is room for."""
        self.told = 0
        """How large it is in Redis."""
        self.used = 0
        self.held = 0
        self.left = account.limit
        """What was left for everybody when Redis was last asked, this part not included."""
        self.asked = -math.inf
        """Monotonic time when that was."""
        self.recent = 0
        """What was granted of late, halved twice a second."""
        self.waiting = 0
        """What those who wait want together …"""
        self.waiters = 0
        """… and how many they are."""

    @property
    def room(self) -> int:
        return self.aside - self.used - self.held

    @property
    def alone(self) -> int:
        """What there is room for if nobody else counts."""
        return self.account.limit - self.used - self.held


class Hold:
    """What one request holds on its accounts, as a `fairlead.ledger.Hold` does."""

    __slots__ = ("amounts",)

    def __init__(self) -> None:
        self.amounts: list[tuple[_Part, int]] = []

    def release(self) -> None:
        """Give back what is held and charge nothing. A second time changes nothing."""
        for part, held in self.amounts:
            part.held -= held
        self.amounts.clear()

    def use(self, amount: int) -> None:
        """Charge `amount` on each account and give back the rest."""
        for part, held in self.amounts:
            part.held -= held
            part.used += amount
        self.amounts.clear()


class SharedRates:
    """Accounts of rates in Redis, and this process's parts of them.

    Args:
        script: runs a Lua script with the prefix of all keys and further arguments. Raises `RedisError`.
    """

    def __init__(self, script: Callable[..., Awaitable[Any]]) -> None:
        self.script = script
        self.owner = token_hex(8)
        self.reachable = True
        """False: each process counts alone."""
        self._parts: dict[str, _Part] = {}
        """By account; what is held in earlier periods only its `Hold` knows."""
        self._wanting: set[_Part] = set()
        self._asking: asyncio.Task[None] | None = None
        self._telling = asyncio.Lock()
        """One tells at a time: of two, the later must arrive later."""
        self._forgotten = False
        """Whether Redis did not know this process any more: it is told all."""

    # ------------------------------------------------------------------------------------------------ holding

    async def take(self, accounts: Sequence[Account], amount: int, *, now: float | None = None) -> Hold:
        """Hold `amount` on each of `accounts`, or on none.

        Raises:
            Exhausted: an account has not so much left.
        """
        now = time.time() if now is None else now
        parts = [self._part(account, now) for account in accounts]
        for part in parts:
            part.waiting += amount
            part.waiters += 1
        self._wanting.update(parts)
        since = time.monotonic() - AGAIN_SECONDS
        try:
            # This ends: a turn that brings nothing has let others in, who were quicker.
            while (hold := self._hold(parts, amount)) is None:
                for part in parts:
                    known = part.asked > since and part.left + part.room < amount
                    if self._room(part) < amount and (known or not self.reachable):
                        raise self._exhausted(part, amount, now)
                if self._asking is None:
                    self._asking = asyncio.create_task(self._ask())
                await asyncio.shield(self._asking)
            return hold
        finally:
            for part in parts:
                part.waiting -= amount
                part.waiters -= 1
                if not part.waiters:
                    self._wanting.discard(part)

    def try_take(self, accounts: Sequence[Account], amount: int, *, now: float) -> Hold | None:
        """Hold `amount` on each of `accounts` if this process's parts have room for it, without asking anybody; else None."""
        return self._hold([self._part(account, now) for account in accounts], amount)

    def left(self, account: Account, *, now: float | None = None) -> int:
        """Return how much of an account is left, as far as this process knows."""
        part = self._part(account, time.time() if now is None else now)
        return max(0, part.left + part.room if self.reachable else part.alone)

    def _hold(self, parts: Sequence[_Part], amount: int) -> Hold | None:
        for part in parts:
            if self._room(part) < amount:
                return None
        hold = Hold()
        for part in parts:
            part.held += amount
            hold.amounts.append((part, amount))
        return hold

    def _room(self, part: _Part) -> int:
        return part.room if self.reachable else part.alone

    def _part(self, account: Account, now: float) -> _Part:
        part = self._parts.get(account.name)
        if part is None or not part.since <= now < part.ends:
            period, ends = account.window(now)
            if part is None or part.period != period:
                part = self._parts[account.name] = _Part(account, period, ends, now)
            part.since = now
        if part.account is not account:
            part.left += account.limit - part.account.limit  # an admin may have changed it
            part.account = account
        return part

    def _exhausted(self, part: _Part, amount: int, now: float) -> Exhausted:
        account = part.account
        # Of what is under way some may end at any time.
        wait = max(1.0, part.ends - now) if account.period != "now" else 1.0
        left = self.left(account, now=now)
        message = f"{account.name}: {left} of {account.limit} are left in this period ({part.period}), and {amount} are needed"
        return Exhausted(account, message, until_seconds=wait)

    # ------------------------------------------------------------------------------------------------ telling

    async def tick(self, *, leaving: bool = False) -> None:
        """Give back what is not under way, and forget what is over. Raises `RedisError`."""
        async with self._telling:
            now = time.time()
            # Only what nobody is waiting for: who waits would have to ask for it again. While nobody else counted, nothing was set aside.
            for part in list(self._parts.values()):
                if leaving or not self.reachable or not part.waiters:
                    part.aside = part.used + part.held
                part.recent //= 2
                if not part.waiters and (part.ends <= now or part.aside == part.told == 0):
                    del self._parts[part.account.name]
            everything, self._forgotten = self._forgotten or not self.reachable, False
            await self._tell([p for p in self._parts.values() if everything or p.aside != p.told or p.held])
            self.reachable = True

    async def look(self, accounts: Sequence[Account], *, now: float) -> None:
        """Ask how much of each account is left, for `left`. Without Redis nothing changes."""
        for i in range(0, len(accounts), MOST):  # requests may ask in between
            async with self._telling:
                if not self.reachable:
                    return
                try:
                    await self._tell([self._part(account, now) for account in accounts[i : i + MOST]])
                except RedisError:
                    return  # whoever runs scripts has said so

    async def _ask(self) -> None:
        try:
            async with self._telling:
                if self.reachable:
                    await self._tell([part for part in self._wanting if part.waiting > part.room])
        except RedisError:
            return  # whoever runs scripts has said so, and those who wait go on alone
        finally:
            self._asking = None

    async def _tell(self, parts: Sequence[_Part]) -> None:
        """Tell how large `parts` are, and get what those who wait need. Raises `RedisError`."""
        for i in range(0, max(1, len(parts)), MOST):
            some, arguments, now = parts[i : i + MOST], list[str | int](), time.time()
            for part in some:
                part.aside = max(part.aside, part.used + part.held)  # tokens may turn out to be more than were held
                part.told = -1  # nobody knows until it has answered
                needed = max(0, part.waiting - part.room)
                keep = 2 * ALIVE_SECONDS if part.ends == math.inf else part.ends - now + AFTER_SECONDS
                arguments += [f"{part.account.name}/{part.period}", part.account.period, part.account.limit]
                arguments += [part.aside, needed, max(GENEROUS * needed, part.recent), part.waiters]
                arguments.append(max(1, round(1000 * keep)))
            try:
                known, *answers = await self.script(_TELL, self.owner, round(1000 * ALIVE_SECONDS), SLICE, *arguments)
            except RedisError:
                self.reachable = False
                raise
            if not known:
                self._forgotten = True
            for part, granted, left in zip(some, answers[::2], answers[1::2], strict=True):
                part.aside += granted
                part.recent += granted
                part.told = part.aside
                part.left = left
                part.asked = time.monotonic()
