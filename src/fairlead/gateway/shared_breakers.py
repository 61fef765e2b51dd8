"""Breakers in Redis: when one process's calls open a target's breaker (`fairlead.pool.Health`), the others learn of it. Ours, no paper.

Nothing of it is on a request's way. Twice a second each process tells which of its breakers opened or closed, and takes over what the others told;
two processes that open the same one rest for the longer of their rests. Failures that open no breaker are each process's own.

A target that has rested is tried by one process at a time: one that had a request for it is elected by a key that expires, and for the others it
goes on resting. If the elected one's call succeeds the breaker closes everywhere, if it fails the next rest is longer everywhere, and if none is made for
`Health.probe_seconds` another may be elected.

While Redis is gone each process goes on alone, and tries by itself.

Cost: one script each half second, and none for a request.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from typing import Any, Final

from fairlead.errors import RedisError
from fairlead.pool import Pool

TICK_SECONDS: Final = 0.5
"""From one telling to the next."""
BARRED_SECONDS: Final = 3 * TICK_SECONDS
"""For so long after each telling a target is left to whoever is elected: after that nobody knows who is."""
KEEP_SECONDS: Final = 86400
"""Breakers of which nobody tells for so long are forgotten."""

# A field of the hash for each target: a mark that is new with each change, failures in a row (0: closed), and when its rest ends.
_TELL: Final = """
local hash, probe, owner, mark = ARGV[1]..'breakers', ARGV[1]..'probe:', ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function known(name)
  local mark, failures, till = (redis.call('HGET', hash, name) or ' 0 0'):match('^(%S*) (%d+) (%d+)$')
  return mark, tonumber(failures), tonumber(till)
end
local function put(name, failures, till)
  redis.call('HSET', hash, name, string.format('%s %d %.0f', mark, failures, till))
  redis.call('DEL', probe..name)
end
local won, i = {}, 5
while i <= #ARGV do
  local what, name, value, rest = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local last, failures, till = known(name)
  if what == 'opened' then
    put(name, math.max(failures, value), math.max(till, now + rest))
  elseif what == 'closed' and last == value then -- else somebody has opened it meanwhile
    put(name, 0, 0)
  elseif what == 'try' and failures > 0 and till <= now and redis.call('SET', probe..name, owner, 'NX', 'PX', rest) then
    won[#won + 1] = name
  end
  i = i + 4
end
redis.call('EXPIRE', hash, ARGV[4])
local out, names = {}, redis.call('HKEYS', hash)
for _, name in ipairs(names) do
  local last, failures, till = known(name)
  for _, v in ipairs({name, last, failures, math.max(0, till - now)}) do out[#out + 1] = v end
end
return {won, out}
"""


class SharedBreakers:
    """What all processes know of the targets' health.

    Args:
        script: runs a Lua script with the prefix of all keys and further arguments. Raises `RedisError`.
        pool: the live one: a reload may swap it.
    """

    def __init__(self, script: Callable[..., Awaitable[Any]], pool: Callable[[], Pool]) -> None:
        self.script, self.pool = script, pool
        self.owner = token_hex(8)
        self._changes = itertools.count()
        self._marks: dict[str, str] = {}
        """The change of each breaker that was taken over last."""
        self._elected: dict[str, float] = {}
        """Until when (monotonic) this process may try a target."""

    def soon(self) -> float:
        """Return the seconds until there is something to tell or to elect."""
        now, health = time.monotonic(), self.pool().health
        ends = [until - now for until in health.rests_until.values() if until > now]
        return min([TICK_SECONDS, *ends])

    async def tick(self) -> None:
        """Tell and learn. Raises `RedisError`: then each process goes on alone."""
        pool, now = self.pool(), time.monotonic()
        health = pool.health
        changed, health.changed = health.changed, set()
        due = {n for n in health.wanted if health.rests_until.get(n, math.inf) <= now}
        health.wanted -= due
        self._elected = {n: t for n, t in self._elected.items() if t > now and n not in changed}
        arguments: list[str | int] = []
        for name in changed:
            until = health.rests_until.get(name)
            if until is not None:
                arguments += ["opened", name, health.in_a_row.get(name, 1), _ms(until - now)]
            else:
                arguments += ["closed", name, self._marks.get(name, "-"), 0]
        for name in due - self._elected.keys():
            # Its call may begin at the end of its time, and then take as long again.
            arguments += ["try", name, "", _ms(2 * health.probe_seconds + TICK_SECONDS)]
        mark = f"{self.owner}-{next(self._changes)}"
        try:
            won, told = await self.script(_TELL, self.owner, mark, KEEP_SECONDS, *arguments)
        except RedisError:
            health.changed |= changed
            raise
        self._elected |= {name.decode(): now + health.probe_seconds for name in won}
        self._learn(pool, told)
        barred = time.monotonic() + BARRED_SECONDS
        health.barred = {n: barred for n in health.rests_until if n not in self._elected}

    def _learn(self, pool: Pool, told: Sequence[Any]) -> None:
        """Take over what others told; tell again what Redis has lost."""
        health, marks, now = pool.health, dict[str, str](), time.monotonic()
        for raw, last, failures, rest in zip(told[::4], told[1::4], told[2::4], told[3::4], strict=True):
            name = raw.decode()
            marks[name] = last.decode()
            if name in pool and name not in health.changed and self._marks.get(name) != marks[name]:
                health.learn(name, failures=failures, until=now + rest / 1000)
        health.changed |= {n for n in health.rests_until if n not in marks}
        self._marks = marks


def _ms(seconds: float) -> int:
    return max(0, math.ceil(1000 * seconds))
