"""One tab of a headless Chromium, driven over the DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

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
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}


class Navigated(Exception):
    """The page went while it was asked something."""


class Tab:
    """A tab; `problems` is what its console complained of, `asked` every address that it wanted, `dialogs` what it said in boxes."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.problems: list[str] = []
        self.asked: list[str] = []
        self.dialogs: list[str] = []

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(20):
            while True:
                message = await self.socket.receive_json()
                told = message.get("params", {})
                match message.get("method"):
                    case "Runtime.exceptionThrown" | "Log.entryAdded":
                        self.problems.append(str(told))
                    case "Network.requestWillBeSent":
                        self.asked.append(told["request"]["url"])
                    case "Page.javascriptDialogOpening":
                        self.dialogs.append(told["message"])
                        accept = {"accept": told["type"] == "confirm"}
                        command = {"id": next(self.numbers), "method": "Page.handleJavaScriptDialog", "params": accept}
                        await self.socket.send_json(command)
                if message.get("id") == number:
                    if "navigated" in message.get("error", {}).get("message", ""):
                        raise Navigated
                    assert "error" not in message, message
                    result: dict[str, Any] = message["result"]
                    return result

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.do(f"{domain}.enable")
        await self.do("Page.navigate", url=url)
        await self.until(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    async def reload(self) -> None:
        """Load the page anew."""
        await self.js("window.before = true")
        await self.do("Page.reload")
        await self.until("!window.before && document.readyState === 'complete'")

    async def js(self, expression: str) -> Any:
        result = await self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        try:
            async with asyncio.timeout(15):
                while True:
                    with contextlib.suppress(Navigated):
                        if value := await self.js(f"(v => v instanceof Element || v)({expression})"):
                            return value
                    await asyncio.sleep(0.02)
        except TimeoutError as e:
            state = "[location.hash, document.getElementById('found-note')?.textContent, document.getElementById('problem')?.textContent]"
            raise AssertionError(f"never true: {expression}; {await self.js(state)}") from e

    async def text(self, id: str) -> str:
        value: str = await self.js(f"document.getElementById({id!r}).textContent")
        return value

    async def set(self, **values: str) -> None:
        """Fill in fields, by id with `_` for `-`."""
        for id, value in values.items():
            await self.js(f"document.getElementById({id.replace('_', '-')!r}).value = {value!r}")

    async def submit(self, id: str) -> None:
        await self.js(f"document.getElementById({id!r}).requestSubmit()")

    async def press(self, key: str) -> None:
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.do(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=KEYS[key],
                **(more if kind == "keyDown" else {}),
            )

    async def look(self, *, width: int, dark: bool, height: int = 800) -> None:
        """Be a screen of this width, with or without a wish for dark."""
        await self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 500 else 1,
            mobile=width < 500,
        )
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.do("Emulation.setEmulatedMedia", features=[wish])

    async def picture(self, path: Path, *, width: int) -> None:
        """Keep what it shows, from top to bottom."""
        height = await self.js("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 3200), "scale": 1}
        shot = await self.do("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """Start a Chromium of its own, with its profile in `folder`."""
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
