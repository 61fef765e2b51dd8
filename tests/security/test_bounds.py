"""What one request may take of the process that serves: memory under bombs and floods of every kind, and the work of a key check."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from gateways import ASK, config, serving

from fairlead.gateway import door as door_module
from fairlead.gateway.door import Door, hashed, new_key
from fairlead.gateway.protocol import Protocol
from fairlead.gateway.read import split
from fairlead.gateway.refusal import Refused

KEY, ADMIN = "fl-key-of-the-bounds", "fl-admin-key-of-the-bounds"
MB = 1_000_000
BODY = 6 * MB
"""The largest body that is let in here."""
MOST = 200 * MB
"""How much more than at rest the process may ever have had, whatever it was sent."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read off /proc")


class Served:
    """`fairlead serve`, as a user starts it."""

    def __init__(self, pid: int, url: str) -> None:
        self.pid, self.url = pid, url

    def peak(self) -> int:
        """The most memory that it has ever had, in bytes."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return 1024 * int(found[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("bounds")
    settings = {
        "targets": {"a": {"type": "scripted", "replies": ["four"]}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
        "gateway": {
            "port": 0,
            "drain_seconds": 1,
            "max_body_bytes": BODY,
            "keys": {"ops": hashed(KEY)},
            "admin_keys": {"root": hashed(ADMIN)},
        },
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "fairlead.cli", "serve", str(folder / "c.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        found = re.search(r"at (http://\S+) ", process.stdout.readline())
        assert found is not None
        yield Served(process.pid, found[1])
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


# ---------------------------------------------------------------------------------------------------------------- bodies

CHAT = b'{"model":"auto","messages":[{"role":"user","content":"x"}],"x":'


def filled(start: bytes, piece: bytes, end: bytes) -> bytes:
    """`piece` again and again, as often as there is room."""
    return start + piece * ((BODY - len(start) - len(end)) // len(piece)) + end


BOMBS: dict[str, bytes] = {
    "brackets": filled(CHAT, b"[", b"}"),
    "nested": filled(CHAT, b"[", b"") [: BODY // 2] + b"]" * (BODY // 2 - len(CHAT) - 1) + b"}",
    "nested objects": filled(CHAT, b'{"a":', b"1}"),
    "empty lists": filled(CHAT + b"[", b"[],", b"[]]}"),
    "empty objects": filled(CHAT + b"[", b"{},", b"{}]}"),
    "objects": filled(CHAT + b"[", b'{"a":1},', b"{}]}"),
    "small objects": filled(CHAT + b"[", b'{"a":1,"b":{}},', b"{}]}")[: 4 * MB],
    "keys": CHAT + b"{" + b",".join(b'"k%06d":1' % i for i in range(BODY // 13)) + b"}}",
    "one key": filled(CHAT + b"{", b'"k":1,', b'"k":1}}'),
    "a few keys": CHAT + b"{" + b",".join(b'"k%d":1' % (i % 300_000) for i in range(300_001)) + b"}}",
    "numbers": filled(CHAT + b"[", b"1.5,", b"1]}"),
    "a number": filled(CHAT, b"9", b"}"),
    "an exponent": CHAT + b"1e" + b"9" * 1000 + b"}",
    "texts": filled(CHAT + b"[", b'"ab",', b'"a"]}'),
    "escapes": filled(CHAT + b'"', b"\\u0041", b'"}'),
    "messages": filled(b'{"model":"auto","messages":[', b'{"role":"user","content":"x"},', b'{"role":"user","content":"x"}]}'),
    "parts": filled(b'{"model":"auto","messages":[{"role":"user","content":[', b'{"type":"text","text":"x"},', b'{"type":"text","text":"x"}]}]}'),
    "tools": filled(CHAT + b'1,"tools":[', b'{"type":"function","function":{"name":"f"}},', b"{}]}"),
    "a key of all": filled(b'{"', b"k", b'":1}'),
    "spaces": filled(b"", b" ", b"{}"),
}  # fmt: skip
FACES = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/route")
OTHERS = (
    ("POST", "/v1/feedback"),
    ("POST", "/v1/batches"),
    ("POST", "/admin/keys"),
    ("PUT", "/admin/limits/team:x"),
)


async def test_no_bomb_takes_more_than_a_multiple_of_its_size(served: Served) -> None:
    """The largest bodies of every kind that makes much of little, to the served process: the most that it ever had tells."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(served.url) as http:

        async def send(method: str, path: str, bomb: bytes) -> int:
            mine = {"authorization": f"Bearer {ADMIN}"} if path.startswith("/admin") else headers
            async with http.request(method, path, data=io.BytesIO(bomb), headers=mine) as reply:
                text = await reply.text()
                assert reply.status < 500, (path, text[:300])
                assert len(text) < 10_000
                return reply.status

        assert await send("POST", "/v1/chat/completions", CHAT + b"1}") == 200
        rest = served.peak()
        told: dict[str, int] = {}
        for i, (name, bomb) in enumerate(BOMBS.items()):
            assert len(bomb) <= BODY
            told[name] = await send("POST", FACES[0], bomb)
            await send("POST", FACES[1 + i % 3], bomb)
            await send(*OTHERS[i % 4], bomb)
            assert served.peak() - rest < MOST, name
        assert await send("POST", "/v1/chat/completions", CHAT + b"1}") == 200
        assert {name for name, status in told.items() if status == 400} >= {
            *("brackets", "nested", "nested objects", "empty lists", "empty objects", "objects", "one key", "a few keys"),
        }  # fmt: skip
    assert {name: s for name, s in told.items() if s not in (200, 400)} == {}


@pytest.mark.parametrize("text", ['{"a": [1, 2]}' * 200_000, "\\{[:" * 300_000, '\\"{' * 400_000, "{" * 1_100_000])
def test_brackets_in_texts_are_text(text: str) -> None:
    """A prompt may be as much code or JSON as it likes."""
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode()
    assert len(body) > MB
    assert set(split(body)) == {"model", "messages"}
    with pytest.raises(Refused, match="objects and arrays"):
        split(body[:-1] + b',"x":[' + b"[]," * 200_000 + b"1]}")


@pytest.mark.parametrize(
    ("piece", "most"), [(b"[],", 199_998), (b'{"a":1},', 199_998), (b'{"a":1,"b":2,"c":3},', 166_666)]
)
def test_what_is_too_much_is_counted_exactly(piece: bytes, most: int) -> None:
    start, end = b'{"t":"\\"{","x":[', b" " * MB + b"1]}"
    assert split(start + piece * most + end)
    with pytest.raises(Refused, match="objects and arrays"):
        split(start + piece * (most + 1) + end)


# ----------------------------------------------------------------------------------------------------------------- heads

HEADS: dict[str, tuple[bytes, bytes]] = {
    "a path": (b"GET /", b"a"),
    "a path of dots": (b"GET /v1", b"/.."),
    "a query": (b"GET /v1/traces?", b"a=b&"),
    "a method": (b"", b"G"),
    "a header": (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ", b"y"),
    "a name": (b"GET /healthz HTTP/1.1\r\nhost: x\r\n", b"x"),
    "headers": (b"GET /healthz HTTP/1.1\r\nhost: x\r\n", b"x: y\r\n"),
    "a key": (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ", b"k"),
    "keys": (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n", b"authorization: Bearer k\r\n"),
    "a folded header": (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: y", b"\r\n y"),
    "a length": (b"POST /v1/route HTTP/1.1\r\nhost: x\r\ncontent-length: ", b"1"),
    "chunks": (b"POST /v1/route HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ntransfer-encoding: chunked\r\n\r\n" % KEY.encode(), b"4\r\nxxxx\r\n"),
    "a chunk's extension": (b"POST /v1/route HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ntransfer-encoding: chunked\r\n\r\n1;" % KEY.encode(), b"x=y;"),
    "trailers": (b"POST /v1/route HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" % KEY.encode(), b"x: y\r\n"),
    "empty lines": (b"", b"\r\n"),
}  # fmt: skip

FORGOTTEN = ("chunks", "a chunk's extension")
"""What is read on and forgotten, until its time is up (see below)."""


@pytest.mark.parametrize("name", HEADS)
def test_no_head_without_end_is_taken(served: Served, name: str) -> None:
    """It is refused, or its connection closed, long before it could fill the memory; others are served meanwhile."""
    start, piece = HEADS[name]
    host, port = served.url.removeprefix("http://").split(":")
    rest, sent, told = served.peak(), 0, b""
    many = piece * (1 + 64_000 // len(piece))
    with socket.create_connection((host, int(port)), timeout=20) as client:
        try:
            client.sendall(start)
            while sent < 30 * MB:
                client.sendall(many)
                sent += len(many)
        except OSError:
            pass
        try:
            client.settimeout(0.2)
            told = client.recv(65536)
        except OSError:
            pass
    assert re.match(rb"HTTP/1\.1 4\d\d |$", told), told
    assert sent < 30 * MB or name in FORGOTTEN, "it was cut off"
    assert served.peak() - rest < 20 * MB


async def test_who_goes_on_sending_after_the_answer_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key or without, with chunks or their extensions without end: the answer is out at once, the connection gone soon after."""
    monkeypatch.setattr(Protocol, "head_seconds", 0.4)
    head = b"POST /v1/route HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nauthorization: Bearer %b\r\n\r\n"
    async with serving(config(tmp_path, keys={"ops": hashed(KEY)}, max_body_bytes=1000)) as client:
        url = client.http._base_url
        assert url is not None
        for key, start, piece, status in (
            (b"none", b"", b"4\r\nxxxx\r\n" * 100, b"401"),
            (KEY.encode(), b"", b"4\r\nxxxx\r\n" * 1000, b"413"),
            (b"none", b"1;", b"x=y;" * 100, b"401"),
        ):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(head % key + start)
            sent = 0
            async with asyncio.timeout(20):
                try:
                    while sent < 2_000_000:
                        writer.write(piece)
                        await writer.drain()
                        sent += 1
                        await asyncio.sleep(0.01)
                except ConnectionError:
                    pass
            assert 5 < sent < 1000
            with contextlib.suppress(ConnectionError):
                assert status in (await reader.read(65536)).split(b"\r\n")[0]
            writer.close()
        assert (await client.ask(KEY))[0] == 200
        # A body that takes longer than that to come is waited for, while nothing has been answered.
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head % KEY.encode())
        body = json.dumps(ASK).encode()
        for i in range(0, len(body), 8):
            writer.write(b"%x\r\n%b\r\n" % (len(body[i : i + 8]), body[i : i + 8]))
            await asyncio.sleep(0.8 * 8 / len(body))
        writer.write(b"0\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()


async def test_a_head_as_large_as_may_be_is_answered(served: Served) -> None:
    """What is refused above is refused for its size."""
    async with aiohttp.ClientSession(served.url, max_line_size=65536) as http:
        headers = {"authorization": f"Bearer {KEY}", **{f"x-{i}": "y" * 100 for i in range(50)}}
        async with http.get("/v1/models?" + "a=b&" * 1000, headers=headers) as reply:
            assert reply.status == 200
        async with http.get("/" + "a" * 5000, headers=headers) as reply:
            assert reply.status == 404
            assert len(await reply.text()) < 5000


# ------------------------------------------------------------------------------------------------------------------ keys


class Counted(dict[bytes, Any]):
    """A dict that counts how often it is looked into; other ways of reading it fail."""

    looked = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        self.looked += 1
        assert len(key) == 32, "nothing but a digest is compared"
        return super().get(key, default)

    def __getitem__(self, key: bytes) -> Any:
        raise AssertionError("a look that is not counted")

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("keys are not gone through")


@pytest.mark.parametrize("admin", [False, True], ids=["key", "admin"])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_check_is_one_hash_and_one_look_whatever_is_sent(
    monkeypatch: pytest.MonkeyPatch, admin: bool, header: str
) -> None:
    """Counted, not timed: no comparison with a key takes place that could end early, and as many keys as there are take as long as one."""
    key, hashes = new_key(), 0
    keys = {f"k{i}": hashed(f"other {i}") for i in range(50)} | {"mine": hashed(key)}
    door = Door(keys=keys, host="127.0.0.1", admin_keys=keys)
    sha256 = hashlib.sha256

    def counting(data: bytes) -> Any:
        nonlocal hashes
        hashes += 1
        return sha256(data)

    monkeypatch.setattr(door_module.hashlib, "sha256", counting)
    door.admins = admins = Counted(door.admins)
    door.keyring.kept = kept = Counted(door.keyring.kept)
    digest = sha256(key.encode()).digest()
    for given in (
        key.encode(),
        key[:-1].encode(),
        key.encode() + b"x",
        key[:-1].encode() + b"~",
        b"x" + key[1:].encode(),
        key.upper().encode(),
        b"",
        b"x",
        b"x" * 60_000,
        b"\xff\x00\xfe",
        digest,
        digest.hex().encode(),
        b"sha256:" + digest.hex().encode(),
        b"other 7",
    ):
        before = hashes, admins.looked, kept.looked
        headers = {header.encode(): b"Bearer " + given if header == "authorization" else given}
        ask = door.check_admin if admin else door.check
        try:
            asked: object = ask("/v1/models", headers)
        except Refused as refused:
            asked, told = None, refused
        assert asked is not None or (
            told.status == 401 and (len(given) < 2 or given.decode("latin-1") not in told.message)
        )
        assert (asked is not None) == (given in (key.encode(), b"other 7")), given
        after = hashes, admins.looked, kept.looked
        assert tuple(b - a for a, b in zip(before, after, strict=True)) == (1, int(admin), int(not admin)), given
