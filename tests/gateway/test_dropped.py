"""What a target's format has no place for is told in a header, streamed or not."""

from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.server import Server
from fairlead.targets import wire
from fairlead.targets.scripted import Scripted
from fairlead.types import Outcome


async def test_the_cost_is_told_if_it_is_known(tmp_path: Path) -> None:
    """Nothing was done, so nothing was spent, whatever the price; what was done at no known price is not told, rather than told as 0."""
    refusal = {"error": {"kind": "unavailable", "message": "down", "status": 503}}
    silent = {"error": {"kind": "timeout", "message": "nothing came", "sent": True}}
    priced = {"profile": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}}
    config = make(
        {
            "targets": {
                name: {"type": "scripted", "replies": [reply], **more}
                for name, reply, more in (
                    *(("refuses", refusal, {}), ("is-silent", silent, {}), ("answers", "four", {})),
                    *(("refuses-priced", refusal, priced), ("answers-priced", "four", priced)),
                )
            },
            "routes": {"auto": {"policy": "random"}},
            "store": {"path": str(tmp_path / "s.sqlite")},
            "gateway": {"port": 0},
        }
    )
    costs = {}
    async with (
        Gateway.of(config) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        for name in config.router().pool.by_name:
            asked = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
            async with http.post("/v1/chat/completions", json=asked) as reply:
                costs[name] = reply.headers.get("x-fairlead-cost-usd")
    paid = costs.pop("answers-priced")
    assert paid is not None
    assert float(paid) > 0.0
    assert costs == {"refuses": "0", "refuses-priced": "0", "is-silent": None, "answers": None}


@pytest.mark.parametrize("stream", [False, True])
async def test_dropped_is_a_header(tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Scripted._ask

    async def ask(self: Scripted, call: Any, query: Any, sink: Any) -> Outcome:
        if sink is not None:
            await sink(wire.dropped(["seed", "naughty\r\nx: y"]))
        outcome = await plain(self, call, query, sink)
        return msgspec.structs.replace(outcome, dropped=("seed",))

    monkeypatch.setattr(Scripted, "_ask", ask)
    config = make(
        {
            "targets": {"a": {"type": "scripted", "replies": ["four"]}},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
            "store": {"path": str(tmp_path / "s.sqlite")},
            "gateway": {"port": 0},
        }
    )
    async with (
        Gateway.of(config) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
        http.post(
            "/v1/chat/completions",
            json={"model": "auto", "stream": stream, "messages": [{"role": "user", "content": "hi"}]},
        ) as reply,
    ):
        assert reply.status == 200
        body = await reply.text()
        if stream:
            assert reply.headers["x-fairlead-dropped"] == "seed, naughty%0D%0Ax: y"
            assert "x-fairlead-dropped" not in body
        else:
            assert reply.headers["x-fairlead-dropped"] == "seed"
