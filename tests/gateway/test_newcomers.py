"""A target that joins while the gateway serves is listed, asked by its name, allowed, judged, and gone when it leaves."""

from pathlib import Path

import aiohttp

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.server import Server
from fairlead.targets.scripted import Scripted


async def test_a_target_joins_and_leaves_over_http(tmp_path: Path) -> None:
    config = make(
        {
            "targets": {"old": {"type": "scripted", "replies": ["old"]}},
            "routes": {"auto": {"policy": "random"}},
            "store": {"path": str(tmp_path / "store.sqlite")},
            "gateway": {"port": 0},
        }
    )
    body = {"messages": [{"role": "user", "content": "x"}]}
    async with (
        Gateway.of(config) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):

        async def ask(**more: object) -> tuple[int, dict[str, object]]:
            async with http.post("/v1/chat/completions", json={**body, **more}) as r:
                return r.status, await r.json()

        async def listed() -> set[str]:
            async with http.get("/v1/models") as r:
                return {m["id"] for m in (await r.json())["data"]}

        assert (await ask(model="new"))[0] == 404
        await app.router.add_target(Scripted(name="new", replies=("new",)))
        assert await listed() == {"auto", "old", "new"}
        status, reply = await ask(model="new")
        assert status == 200
        assert (await ask(model="auto", fairlead={"allow": ["new"]}))[0] == 200
        async with http.post("/v1/feedback", json={"id": reply["id"], "value": 1.0}) as r:
            assert r.status == 200
        await app.router.remove_target("new")
        assert await listed() == {"auto", "old"}
        assert (await ask(model="new"))[0] == 404
        assert (await ask(model="auto"))[0] == 200
