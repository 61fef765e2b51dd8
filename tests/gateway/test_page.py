"""The page in a real browser: ask, explain, judge, and nothing read as HTML. Skipped where no Chromium is installed."""

import asyncio
import base64
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.server import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install it to test the page")


class Tab:
    """One browser tab, driven over the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.problems: list[str] = []

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(20):
            while True:
                message = await self.socket.receive_json()
                if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                    self.problems.append(str(message["params"]))
                if message.get("id") == number:
                    assert "error" not in message, message
                    return message["result"]

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.do(f"{domain}.enable")
        await self.do("Page.navigate", url=url)
        await self.until(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    async def js(self, expression: str) -> Any:
        result = await self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        async with asyncio.timeout(15):
            while not (value := await self.js(expression)):
                await asyncio.sleep(0.03)
            return value

    async def picture(self, path: Path, *, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        await self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        await self.do(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        await asyncio.sleep(0.6)
        shot = await self.do("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port_file = folder / "DevToolsActivePort"
        async with asyncio.timeout(30):
            while not port_file.exists() or not port_file.read_text().strip():
                await asyncio.sleep(0.05)
        port = int(port_file.read_text().splitlines()[0])
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as r:
                address = (await r.json(content_type=None))["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        await process.wait()


def config(tmp_path: Path, **gateway: Any) -> Any:
    return make(
        {
            "targets": {
                "quick": {
                    "type": "scripted",
                    "replies": ["<img src=x onerror=alert(1)> four"],
                    "profile": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.4},
                },
                "deep": {
                    "type": "scripted",
                    "replies": ["exactly four"],
                    "profile": {"input_usd_per_mtok": 2, "output_usd_per_mtok": 8},
                },
            },
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "quick"}}},
            "store": {"path": str(tmp_path / "store.sqlite")},
            "gateway": {"port": 0, **gateway},
        }
    )


async def test_ask_and_explain(tmp_path: Path) -> None:
    """A prompt is explained without being sent, then asked, answered, explained and judged; script in answers stays text."""
    async with (
        Gateway.of(config(tmp_path)) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as server,
        browser(tmp_path / "profile") as tab,
    ):
        await tab.open(server.url)
        await tab.until("document.querySelectorAll('#model option').length === 3")
        await tab.until("document.getElementById('state').textContent === 'live'")

        await tab.js("document.getElementById('prompt').value = 'what is <b>2+2</b>?'")
        await tab.js("document.getElementById('explain').click()")
        assert await tab.until("document.querySelector('.chosen')?.textContent") == "quick"
        assert "It would go to" in await tab.js("document.getElementById('explanation').textContent")
        assert gateway.router.store.count() == 0

        await tab.js("document.getElementById('ask').click()")
        await tab.until("document.getElementById('by').textContent.startsWith('quick answered in')")
        assert await tab.js("document.getElementById('text').textContent") == "<img src=x onerror=alert(1)> four"
        assert await tab.js("document.querySelectorAll('main img, main b:not(.routes b)').length") == 0
        assert "It was sent to" in await tab.js("document.getElementById('explanation').textContent")
        assert gateway.router.store.count() == 1

        await tab.js("document.getElementById('up').click()")
        await tab.until("document.getElementById('thanks').textContent.startsWith('Thank you')")
        (trace,) = gateway.router.store.traces()
        (feedback,) = await asyncio.to_thread(gateway.router.store.feedback, trace.id)
        assert (feedback.value, feedback.source) == (1.0, "page")

        await tab.until("document.getElementById('requests').textContent === '1'")
        assert await tab.until("document.querySelector('#recent .prompt')?.textContent") == "what is <b>2+2</b>?"
        assert await tab.until("document.querySelector('#recent .mark')?.textContent === '✓'")
        # Keyboard: a row of the list is a button.
        assert await tab.js("document.querySelector('#recent button').tabIndex") == 0
        assert tab.problems == []


async def test_page_fits_a_phone(tmp_path: Path) -> None:
    """Nothing is wider than a phone's screen."""
    async with (
        Gateway.of(config(tmp_path)) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as server,
        browser(tmp_path / "profile") as tab,
    ):
        await tab.do("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        await tab.open(server.url)
        await tab.until("document.getElementById('state').textContent === 'live'")
        await tab.js("document.getElementById('prompt').value = 'x'.repeat(400)")
        await tab.js("document.getElementById('ask').click()")
        await tab.until("!!document.querySelector('#recent .prompt') && !!document.querySelector('.chosen')")
        assert await tab.js("document.documentElement.scrollWidth") <= 360
        assert tab.problems == []


async def test_page_asks_for_the_key(tmp_path: Path) -> None:
    """With keys the page itself opens, its data do not, until the key is typed; it is kept in the tab alone."""
    locked = config(tmp_path, keys={"me": hashed("fl-test-key")})
    async with (
        Gateway.of(locked) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as server,
        browser(tmp_path / "profile") as tab,
    ):
        await tab.open(server.url)
        await tab.until("document.getElementById('lock').open")
        await tab.js("document.getElementById('key').value = 'fl-test-key'")
        await tab.js("document.querySelector('#lock-form button').click()")
        await tab.until("document.getElementById('state').textContent === 'live'")
        assert await tab.js("sessionStorage.getItem('fairlead-key')") == "fl-test-key"
        assert await tab.js("localStorage.length") == 0


async def test_page_views_by_keyboard(tmp_path: Path) -> None:
    """Each view opens from the keyboard, fits a phone, shows hostile words as text; a new key is shown once, the admin key stays in the tab."""
    evil = "<img src=x onerror=alert(2)>"
    guarded = config(tmp_path, keys={"me": hashed("fl-test-key")}, admin_keys={"root": hashed("fl-admin-key")})
    async with (
        Gateway.of(guarded) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as server,
        browser(tmp_path / "profile") as tab,
    ):
        await tab.do("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        await tab.open(server.url)
        await tab.until("document.getElementById('lock').open")
        await tab.js("document.getElementById('key').value = 'fl-test-key'")
        await tab.js("document.querySelector('#lock-form button').click()")
        await tab.until("document.getElementById('state').textContent === 'live'")
        tab.problems.clear()  # the console tells of the 401 that asked for the key
        await tab.js(f"document.getElementById('prompt').value = {evil!r}")
        await tab.js("document.getElementById('ask').click()")
        await tab.until("!document.getElementById('thumbs').hidden")
        await tab.js("document.getElementById('up').click()")
        await tab.until("document.getElementById('plane').children.length > 0")
        views = ["traffic", "targets", "decisions", "rules", "money", "learning", "admin"]
        await tab.js("document.querySelector('#nav a').focus()")
        for i, view in enumerate(views):
            if i:
                await tab.do("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
                await tab.do("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
            for kind, more in (("keyDown", {"text": "\r"}), ("keyUp", {})):
                await tab.do(
                    "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, **more
                )
            await tab.until(f"document.querySelector('#nav [aria-current]')?.hash === '#{view}'")
            shown = await tab.js("[...document.querySelectorAll('main > section:not([hidden])')].length")
            assert shown > 0
            assert await tab.js("document.documentElement.scrollWidth") <= 360, view
            if view == "decisions":
                assert await tab.until("document.querySelector('#found .prompt')?.textContent") == evil
                await tab.js("document.getElementById('word').value = 'nowhere to be found'")
                await tab.js("document.getElementById('search').requestSubmit()")
                await tab.until("document.getElementById('found-note').textContent === '0 of 1'")
                await tab.js("document.querySelector('#nav [aria-current]').focus()")
            if view == "money":
                await tab.until("!document.getElementById('gate').hidden")
                await tab.until("document.getElementById('problem').textContent")
                # The refusal that was asked for here is the one thing that the console may tell of.
                assert all("401" in p for p in tab.problems)
                tab.problems.clear()
                await tab.js("document.getElementById('admin-key').value = 'fl-admin-key'")
                await tab.js("document.getElementById('gate-form').requestSubmit()")
                await tab.until("document.getElementById('spend').textContent.includes('no key')")
                await tab.js("document.querySelector('#nav [aria-current]').focus()")
        await tab.until("document.getElementById('config').textContent.startsWith('Config')")
        await tab.js("document.getElementById('key-name').value = 'ann'")
        await tab.js(f"document.getElementById('key-tenant').value = {evil!r}")
        await tab.js("document.getElementById('new-key').requestSubmit()")
        await tab.until("document.getElementById('issued').textContent.startsWith('ann: ')")
        await tab.until(f"document.getElementById('keys').textContent.includes({evil!r})")
        await tab.js("location.hash = 'rules'")
        await tab.until("document.getElementById('issued').textContent === ''")
        assert await tab.js("document.querySelectorAll('main img').length") == 0
        assert await tab.js("sessionStorage.getItem('fairlead-admin-key')") == "fl-admin-key"
        assert await tab.js("localStorage.length + document.cookie.length") == 0
        assert await tab.js("performance.getEntriesByType('resource').every(r => r.name.startsWith(location.origin))")
        assert tab.problems == []
