"""The lab's models as an upstream that speaks the OpenAI chat format: for trying Fairlead, or any other client, without a key.

``POST /v1/chat/completions`` (streamed or not; ``n``, ``seed``, ``stop``, ``temperature``, ``logprobs``) and ``GET /v1/models``. Anyone who
can reach the port may ask.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import msgspec

from fairlead.gateway import read as reading
from fairlead.gateway.edge import Exchange, Vigil, header_map
from fairlead.gateway.faces.base import Read
from fairlead.gateway.faces.chat import Chat
from fairlead.gateway.refusal import Refused, of_failure, respond
from fairlead.lab.crew import TARGETS as CREW
from fairlead.lab.pool import TARGETS
from fairlead.targets.local import Local
from fairlead.types import Call

CHAT: Final = Chat()
MOST_BYTES = 1_000_000


class LabServer:
    """An ASGI application. Use it with ``async with``, which reads the weights.

    The pool's six targets and the four of the crew.
    """

    def __init__(self) -> None:
        self.drivers = {t.name: Local(name=t.name, model=t.model, mode=t.mode) for t in (*TARGETS, *CREW)}
        self.vigil = Vigil()

    async def __aenter__(self) -> Self:
        for driver in self.drivers.values():
            await driver.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for driver in self.drivers.values():
            await driver.stop()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(send, CHAT)
        try:
            match scope["method"], scope["path"]:
                case "POST", "/v1/chat/completions":
                    await self._chat(scope, receive, exchange)
                case "GET", "/v1/models":
                    made = [
                        {"id": n, "object": "model", "created": 0, "owned_by": "fairlead-lab"} for n in self.drivers
                    ]
                    await respond(send, 200, msgspec.json.encode({"object": "list", "data": made}), [])
                case method, path:
                    raise Refused(
                        404, f"nothing answers {method} {path}; try POST /v1/chat/completions", code="not_found"
                    )
        except Refused as refused:
            await exchange.refuse(refused)

    async def _chat(self, scope: Any, receive: Any, exchange: Exchange) -> None:
        headers = header_map(scope)
        body = await reading.read_body(receive, headers, MOST_BYTES)
        asked = reading.read(body, headers, self.drivers, self.drivers)
        exchange.query = query = asked.query
        exchange.id = query.id
        exchange.read = Read(fields=query.body)
        self.vigil.begin(exchange, receive)
        try:
            sink = exchange.pass_on if asked.stream else None
            outcome = await self.drivers[query.route].ask(Call(target=query.route), query, sink)
            if outcome.error is not None:
                raise of_failure(outcome.error)
            if exchange.streaming:
                await exchange.send({"type": "http.response.body", "body": exchange.writer.close(outcome)})
            else:
                await respond(exchange.send, 200, CHAT.whole(outcome, query, exchange.read), [])
        except asyncio.CancelledError:
            if not exchange.gone:
                raise
            exchange.task.uncancel()
        finally:
            self.vigil.end(exchange)
