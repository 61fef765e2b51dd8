"""What gateways share through Redis (`gateway.redis`): rates and breakers. Without it each keeps rates in its store and breakers by itself.

Redis is a help and no need: while it is gone or slow each process goes on alone, says so once, and comes back by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fairlead.errors import RedisError
from fairlead.gateway.shared_breakers import SharedBreakers
from fairlead.gateway.shared_rates import SharedRates
from fairlead.pool import Pool

if TYPE_CHECKING:
    from fairlead.config import RedisConfig

log = logging.getLogger(__name__)


class Shared:
    """This process's side of it.

    Args:
        settings: where Redis is.
        pool: the live one, whose breakers are shared.
    """

    def __init__(self, settings: RedisConfig, pool: Callable[[], Pool]) -> None:
        self.link, self.prefix = settings.link(), settings.prefix
        self.rates = SharedRates(self._script)
        self.breakers = SharedBreakers(self._script, pool)
        self.up = True
        self.failures = 0
        """Questions that Redis did not answer."""
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open it, whether Redis is there or not. Raises `ConfigError` if it never can be opened."""
        self.link.open()
        await self._tick()
        self._keeper = asyncio.create_task(self._keep(), name="fairlead-shared")

    async def stop(self) -> None:
        """Give back what is set aside here, and close."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
            try:
                await self.rates.tick(leaving=True)
            except RedisError as e:
                log.warning("what was set aside of rates could not be given back (%s); it comes back by itself", e)
        await self.link.close()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self.breakers.soon())
            await self._tick()

    async def _tick(self) -> None:
        try:
            await self.rates.tick()
            await self.breakers.tick()
        except RedisError:
            return
        if not self.up:
            log.warning("Redis is back: limits and breakers are shared again")
        self.up = True

    async def _script(self, script: str, *arguments: object) -> Any:
        try:
            return await self.link.script(script, self.prefix, *arguments)
        except RedisError as e:
            self.failures += 1
            if self.up:
                log.error("Redis is gone (%s): until it is back each process counts limits and keeps breakers alone", e)
            self.up = False
            raise
