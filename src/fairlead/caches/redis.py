"""Answers in Redis, shared by the processes of many machines. Ours, no paper. Needs the extra `redis`.

Everything stands under one prefix. `PREFIXe:KEY` holds an answer and its vector and expires by itself; beside it are sorted sets of
what was used when and what is due when, the keys of each partition and group, and one hash with what an entry's removal needs to know.
One script each puts, reads and removes, so that bounds hold whoever comes together. Keys stand in hexadecimal.

One Redis server, version 5 or newer, or one primary: not a cluster, since the scripts touch keys of several slots. What Redis evicts by
itself (`maxmemory`) is not there, and counted until it is due.

Cost on loopback: get 115 µs, put 180 µs, claim 80 µs, near 80 µs; one round trip each.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta

from fairlead.caches.base import SECRET, CacheStore, Newer, Row
from fairlead.errors import CacheError, RedisError
from fairlead.redis import Link

# One entry is described by part, groups, size and id, with a newline between them.
_COMMON: Final = """
local p = ARGV[1]
local function drop(k)
  redis.call('DEL', p..'e:'..k)
  redis.call('ZREM', p..'used', k)
  redis.call('ZREM', p..'due', k)
  local about = redis.call('HGET', p..'about', k)
  if not about then return 0 end
  redis.call('HDEL', p..'about', k)
  local part, groups, size, id = about:match('^(%x*)\\n([%x ]*)\\n(%d+)\\n(.*)$')
  if part ~= '' then redis.call('ZREM', p..'p:'..part, k) end
  for g in groups:gmatch('%x+') do redis.call('SREM', p..'g:'..g, k) end
  redis.call('SREM', p..'i:'..id, k)
  redis.call('DECRBY', p..'bytes', size)
  return 1
end
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""
_GET: Final = (
    _COMMON
    + """
local value = redis.call('HGET', p..'e:'..ARGV[2], 'value')
if value then redis.call('ZADD', p..'used', redis.call('INCR', p..'seq'), ARGV[2]) end
return value
"""
)
_PUT: Final = (
    _COMMON
    + """
local _, k, value, vector, part, groups, id, size, ms, entries, bytes = unpack(ARGV)
drop(k)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', p..'due', '-inf', now(), 'LIMIT', 0, 1000)) do drop(old) end
local seq = redis.call('INCR', p..'seq')
redis.call('HSET', p..'e:'..k, 'value', value, 'vector', vector)
redis.call('PEXPIRE', p..'e:'..k, ms)
redis.call('ZADD', p..'used', seq, k)
redis.call('ZADD', p..'due', now() + ms, k)
redis.call('HSET', p..'about', k, part..'\\n'..groups..'\\n'..size..'\\n'..id)
if part ~= '' then redis.call('ZADD', p..'p:'..part, seq, k) end
for g in groups:gmatch('%x+') do redis.call('SADD', p..'g:'..g, k) end
redis.call('SADD', p..'i:'..id, k)
redis.call('INCRBY', p..'bytes', size)
redis.call('DEL', p..'c:'..k)
while redis.call('ZCARD', p..'used') > 1 and (redis.call('ZCARD', p..'used') > tonumber(entries)
    or tonumber(redis.call('GET', p..'bytes')) > tonumber(bytes)) do
  drop(redis.call('ZRANGE', p..'used', 0, 0)[1])
end
return 1
"""
)
_DELETE: Final = (
    _COMMON
    + """
local keys
if ARGV[2] == 'key' then keys = {ARGV[3]}
elseif ARGV[2] == 'all' then keys = redis.call('ZRANGE', p..'used', 0, -1)
else
  local sets = {}
  for i = 3, #ARGV do sets[i - 2] = p..ARGV[2]..':'..ARGV[i] end
  keys = redis.call('SINTER', unpack(sets))
end
local n = 0
for _, k in ipairs(keys) do n = n + drop(k) end
return n
"""
)
_NEWER: Final = """
local found = redis.call('ZRANGEBYSCORE', ARGV[1]..'p:'..ARGV[2], '('..ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local out = {}
for i = 1, #found, 2 do
  local vector = redis.call('HGET', ARGV[1]..'e:'..found[i], 'vector')
  if vector then for _, v in ipairs({found[i + 1], found[i], vector}) do out[#out + 1] = v end end
end
return out
"""
_CLAIM: Final = """
local c = ARGV[1]..'c:'..ARGV[2]
local owner = redis.call('GET', c)
if owner and owner ~= ARGV[3] then return 0 end
redis.call('SET', c, ARGV[3], 'PX', ARGV[4])
return 1
"""
_RELEASE: Final = """
local c = ARGV[1]..'c:'..ARGV[2]
if redis.call('GET', c) == ARGV[3] then redis.call('DEL', c) end
return 1
"""


class Redis(CacheStore):
    """In Redis.

    Args:
        url: ``redis://host:port/number``, or ``rediss://`` for TLS; without a password.
        username: of the Redis user, if there is one.
        password: a reference, ``${NAME}``; None: none is sent.
        prefix: what all its keys begin with: caches of different prefixes know nothing of each other.
        max_entries: entries kept at most.
        max_bytes: bytes of answers and vectors kept at most.
        budget_seconds: how long one question may take.

    Raises:
        ConfigError: for a URL of another kind, and for a password that is written out.
    """

    shared: ClassVar[bool] = True
    __slots__ = ("_link",)

    def __init__(
        self,
        *,
        url: str = "redis://127.0.0.1:6379/0",
        username: str | None = None,
        password: str | None = None,
        prefix: str = "fairlead:cache:",
        max_entries: Annotated[int, Meta(ge=1)] = 10_000,
        max_bytes: Annotated[int, Meta(ge=1)] = 64_000_000,
        budget_seconds: Annotated[float, Meta(gt=0.0)] = 0.25,
    ) -> None:
        link = Link(url=url, username=username, password=password, seconds=budget_seconds)
        self.url = url
        self.username = username
        self.password = link.password
        self.prefix = prefix
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.budget_seconds = budget_seconds

    async def _open(self) -> bytes:
        await self._close()
        self._link = Link(url=self.url, username=self.username, password=self.password, seconds=self.budget_seconds)
        self._link.open()
        name = f"{self.prefix}secret"
        await self._ask("SET", name, secrets.token_bytes(SECRET), "NX")
        secret = await self._ask("GET", name)
        if not isinstance(secret, bytes) or len(secret) != SECRET:
            raise CacheError(f"{self.url}: {name} does not hold a cache's secret; use another prefix")
        return secret

    async def _close(self) -> None:
        link = getattr(self, "_link", None)
        if link is not None:
            await link.close()

    async def _ask(self, *command: Any) -> Any:
        link = getattr(self, "_link", None)
        if link is None:
            raise CacheError(f"{self.url} is not open")
        try:
            return await link.ask(*command)
        except RedisError as e:
            raise CacheError(str(e)) from None

    async def _script(self, script: str, *arguments: object) -> Any:
        return await self._ask("EVAL", script, 0, self.prefix, *arguments)

    async def _get(self, key: bytes) -> bytes | None:
        found: bytes | None = await self._script(_GET, key.hex())
        return found

    async def _put(self, row: Row) -> None:
        part, groups = row.partition.hex() if row.vector else "", " ".join(g.hex() for g in row.groups)
        milliseconds = max(1, round(1000 * row.seconds))
        await self._script(
            _PUT,
            *(row.key.hex(), row.value, row.vector, part, groups, row.id, row.size, milliseconds),
            *(self.max_entries, self.max_bytes),
        )

    async def _newer(self, partition: bytes, after: int, most: int) -> Newer:
        flat = iter(await self._script(_NEWER, partition.hex(), after, most))
        return [
            (int(seq), bytes.fromhex(key.decode()), vector) for seq, key, vector in zip(flat, flat, flat, strict=True)
        ]

    async def _delete(self, *, key: bytes | None = None, id: str | None = None, groups: tuple[bytes, ...] = ()) -> int:
        what: tuple[str, ...] = ("g", *(g.hex() for g in groups)) if groups else ("all",)
        if key is not None:
            what = ("key", key.hex())
        elif id is not None:
            what = ("i", id)
        return int(await self._script(_DELETE, *what))

    async def _count(self) -> tuple[int, int]:
        entries = await self._ask("ZCARD", f"{self.prefix}used")
        size = await self._ask("GET", f"{self.prefix}bytes")
        return int(entries), int(size or 0)

    async def _claim(self, key: bytes, owner: str, seconds: float) -> bool:
        return bool(await self._script(_CLAIM, key.hex(), owner, max(1, round(1000 * seconds))))

    async def _release(self, key: bytes, owner: str) -> None:
        await self._script(_RELEASE, key.hex(), owner)
