"""One Redis server, or one primary, as whoever keeps something in it sees it. Ours, no paper. Needs the extra `redis`.

Every question is one round trip and is never sent twice: a script that counts must not count double. A password is named, never written, and stands
in no message. Cost on loopback: 75 to 130 µs of CPU a script.

A server is gone if it says nothing in time, and not if this process had none to listen: where the event loop was busy for so long that the end of the time
was noticed late, what the server said is likely there and unread, so the time begins anew, `ANEW` times at most.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fairlead.errors import ConfigError, RedisError
from fairlead.secret import checked, redact, reveal

ANEW: Final = 10
LATE: Final = 0.1
"""Share of the time by which its end must have been noticed late."""


class Link:
    """Connections to one server.

    Args:
        url: ``redis://host:port/number``, or ``rediss://`` for TLS; without a password.
        username: of the Redis user, if there is one.
        password: a reference, ``${NAME}``; None: none is sent.
        seconds: how long one question may take.

    Raises:
        ConfigError: for a URL of another kind, and for a password that is written out.
    """

    def __init__(self, *, url: str, username: str | None = None, password: str | None = None, seconds: float) -> None:
        if not url.startswith(("redis://", "rediss://")) or "@" in url or "password=" in url:
            message = "write redis://host:port/0 or rediss://…, and user and password under keys of their own"
            raise ConfigError(message, path="$.url")
        self.url, self.username = url, username
        self.password = checked(password, path="$.password")
        self.seconds = seconds
        self._secret = ""
        self._client: Any = None

    def open(self) -> None:
        """Get ready to ask; nobody is connected to yet.

        Raises:
            ConfigError: if the package is missing, or the password's variable is not set.
        """
        try:
            import redis.asyncio as client
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as e:
            raise ConfigError("Redis needs a package: pip install 'fairlead[redis]'") from e
        self._secret = "" if self.password is None else reveal(self.password, path="$.password")
        self._client = client.Redis.from_url(
            self.url,
            username=self.username,
            password=self._secret or None,
            # Time is kept in `ask`: the client's time-outs are for each step alone, and lose a cancellation that comes as a command is sent.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )

    async def close(self) -> None:
        """Close all connections. A second time changes nothing."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def ask(self, *command: Any) -> Any:
        """Return what a command gives.

        Raises:
            RedisError: if the server is gone, says nothing in time, or refuses. What was asked may have been done.
        """
        from redis.exceptions import RedisError as Refusal

        if self._client is None:
            raise RedisError(f"{self.url} is not open")
        try:
            async with asyncio.timeout(None) as limit:
                watch = _Watch(limit, self.seconds)
                try:
                    return await self._client.execute_command(*command)
                finally:
                    watch.timer.cancel()
        except TimeoutError:
            raise RedisError(f"{self.url} said nothing within {self.seconds:g} s") from None
        except (Refusal, OSError) as e:
            raise RedisError(redact(f"{self.url}: {type(e).__name__}: {e}", self._secret)) from None

    async def script(self, script: str, *arguments: object) -> Any:
        """Run a Lua script, which finds `arguments` in ``ARGV``. Raises as `ask` does."""
        return await self.ask("EVAL", script, 0, *arguments)


class _Watch:
    """Ends a time limit after `seconds` in which the event loop came round."""

    __slots__ = ("due", "left", "limit", "loop", "seconds", "timer")

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self.limit, self.seconds, self.left = limit, seconds, ANEW
        self.loop = asyncio.get_running_loop()
        self._begin()

    def _begin(self) -> None:
        self.due = self.loop.time() + self.seconds
        self.timer = self.loop.call_at(self.due, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        if now - self.due > LATE * self.seconds and self.left:
            self.left -= 1
            self._begin()
        else:
            self.limit.reschedule(now)
