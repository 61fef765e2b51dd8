"""Several processes on one socket and one store: they share keys, money and what is learned; one may die."""

import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis_server import VARIABLE, RedisServer

from fairlead.gateway.door import hashed
from fairlead.gateway.metrics import SHARE_SECONDS

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="workers need Unix signals")


TARGETS = {"a": {"type": "scripted", "replies": ["four"]}, "b": {"type": "scripted", "replies": ["vier"]}}
ROUTES = {"auto": {"policy": {"type": "thompson", "features": {"signals": ["length"]}}}}


@contextmanager
def served(tmp_path: Path, workers: int = 3, **more: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    data = {
        "targets": TARGETS,
        "routes": ROUTES,
        "gateway": {"port": 0, "drain_seconds": 1, "workers": workers},
        "learning": {"batch": 4, "seconds": 0.05},
        **more,
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(data))
    process = subprocess.Popen(
        [sys.executable, "-m", "fairlead.cli", "serve", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"at (http://\S+) ", line)
        if found is None:
            process.kill()
            raise AssertionError(line + process.communicate()[1])
        yield process, found[1]
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def call(url: str, body: Any = None) -> Any:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.loads(reply.read())


def ask(url: str) -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": "what is 2+2?"}]}
    return str(call(url + "/v1/chat/completions", body)["id"])


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_workers_share_everything_and_one_may_die(tmp_path: Path) -> None:
    with served(tmp_path) as (process, url):
        ids = await asyncio.gather(*(asyncio.to_thread(ask, url) for _ in range(40)))
        judged = [asyncio.to_thread(call, url + "/v1/feedback", {"id": i, "value": 1.0}) for i in ids]
        assert {r["status"] for r in await asyncio.gather(*judged)} == {"accepted"}, "whichever worker has the trace"
        workers = children(process.pid)
        assert len(workers) == 3
        os.kill(workers[0], signal.SIGKILL)
        ids += await asyncio.gather(*(asyncio.to_thread(ask, url) for _ in range(20)), return_exceptions=True)
        until = time.monotonic() + 15
        while len(children(process.pid)) < 3 or not await asyncio.to_thread(_learned, tmp_path):
            assert time.monotonic() < until, "the dead worker is started again, and what was judged is learned"
            await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.to_thread(process.communicate, None, 20)
        assert process.returncode == 0, err
    from fairlead.sqlite import SQLiteStore

    store = SQLiteStore(tmp_path / "fairlead.sqlite", read_only=True)
    answered = [i for i in ids if isinstance(i, str)]
    assert len(answered) >= 55
    assert await asyncio.to_thread(store.verify) >= len(answered)
    kept = {t.id for t in store.traces()}
    assert kept >= set(answered), "nothing that was acknowledged is lost"


def _learned(tmp_path: Path) -> bool:
    from fairlead.sqlite import SQLiteStore

    store = SQLiteStore(tmp_path / "fairlead.sqlite", read_only=True)
    return not store.unlearned("auto") and len(store.versions("auto")) > 1


async def test_all_workers_reload(tmp_path: Path) -> None:
    with served(tmp_path, workers=2) as (process, url):
        before = (await asyncio.to_thread(call, url + "/healthz"))["config"]
        path = tmp_path / "c.yaml"
        path.write_text(path.read_text().replace("vier", "fire"))
        process.send_signal(signal.SIGHUP)
        until, seen = time.monotonic() + 10, set[str]()
        while len(seen) != 1 or before in seen:
            assert time.monotonic() < until
            seen = {(await asyncio.to_thread(call, url + "/healthz"))["config"] for _ in range(12)}


def administer(url: str, path: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(f"{url}/{path}", None if body is None else json.dumps(body).encode())
    request.add_header("authorization", "Bearer fl-admin-of-the-workers")
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status), json.loads(reply.read())
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.loads(e.read())


async def test_what_one_worker_is_asked_for_all_do(tmp_path: Path) -> None:
    """Reload and drain through the admin API reach whichever worker takes the call; one that is started later drains too."""
    gateway = {"port": 0, "workers": 3, "admin_keys": {"root": hashed("fl-admin-of-the-workers")}}
    with served(tmp_path, gateway=gateway) as (process, url):

        async def everywhere(path: str, what: str, wanted: Any) -> None:
            """Wait until the workers agree: each call is a new connection, so to any of them."""
            until, seen = time.monotonic() + 15, set[Any]()
            while seen != {wanted}:
                assert time.monotonic() < until, seen
                seen = {(await asyncio.to_thread(administer, url, path))[1].get(what) for _ in range(15)}

        path = tmp_path / "c.yaml"
        path.write_text(path.read_text().replace("vier", "fire"))
        status, answer = await asyncio.to_thread(administer, url, "admin/reload", {})
        assert (status, answer["digest"] != answer["before"]) == (200, True)
        await everywhere("admin/config", "digest", answer["digest"])
        await everywhere("admin/config", "reloads", 1)

        good = path.read_text()
        path.write_text("targets: 3")
        assert (await asyncio.to_thread(administer, url, "admin/reload", {}))[0] == 409
        await everywhere("admin/config", "digest", answer["digest"])
        path.write_text(good)

        assert (await asyncio.to_thread(administer, url, "admin/drain", {}))[0] == 200
        await everywhere("readyz", "status", "draining")

        async def drained() -> int:
            _, log = await asyncio.to_thread(administer, url, "admin/audit")
            return sum(a["what"] == "gateway.drain" for a in log["data"])

        assert await drained() == 3
        os.kill(children(process.pid)[0], signal.SIGKILL)
        until = time.monotonic() + 15
        while await drained() < 4:
            assert time.monotonic() < until, "the one that takes its place drains as well"
            await asyncio.sleep(0.1)
        await everywhere("readyz", "status", "draining")
        process.send_signal(signal.SIGUSR2)
        await everywhere("readyz", "status", "ready")
        _, log = await asyncio.to_thread(administer, url, "admin/audit")
        assert {(a["who"], a["what"]) for a in log["data"]} >= {
            ("root", "config.reload"),
            ("signal", "config.reload"),
            ("root", "config.refused"),
            ("root", "gateway.drain"),
            ("signal", "gateway.drain"),
        }


async def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Else they would serve on with nobody to watch them, and keep the port from whoever is started in their place."""
    with served(tmp_path, workers=2) as (process, url):
        workers = children(process.pid)
        await asyncio.to_thread(ask, url)
        process.kill()
        until = time.monotonic() + 15
        while any(_lives(pid) for pid in workers):
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
    from fairlead.sqlite import SQLiteStore

    assert await asyncio.to_thread(SQLiteStore(tmp_path / "fairlead.sqlite", read_only=True).verify) == 1


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_that_is_asked_for_at_the_start_ends_nothing(workers: int, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    gateway = {"port": 0, "drain_seconds": 1, "workers": workers}
    path.write_text(yaml.safe_dump({"targets": TARGETS, "routes": ROUTES, "gateway": gateway}))
    command = [sys.executable, "-m", "fairlead.cli", "serve", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        while not _catches(process.pid, signal.SIGHUP):
            time.sleep(0.002)
        line = ""
        while not line:
            process.send_signal(signal.SIGHUP)
            if select.select([process.stdout], [], [], 0.05)[0]:
                line = process.stdout.readline()
        assert "fairlead serves" in line
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        watchdog.cancel()
        process.kill()


def _catches(pid: int, number: int) -> bool:
    masks = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return masks is not None and bool(int(masks[1], 16) >> (number - 1) & 1)


async def test_a_signal_kills_no_worker_that_is_coming_up(tmp_path: Path) -> None:
    with served(tmp_path, workers=2) as (process, url):
        path = tmp_path / "c.yaml"
        path.write_text(path.read_text().replace("vier", "fire"))
        os.kill(children(process.pid)[0], signal.SIGKILL)
        until = time.monotonic() + 15
        died = set(children(process.pid))
        while not set(children(process.pid)) - died:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        started = set(children(process.pid))
        seen = set[str]()
        while len(seen) != 1:
            assert time.monotonic() < until + 15
            seen = {(await asyncio.to_thread(call, url + "/healthz"))["config"] for _ in range(12)}
            await asyncio.sleep(0.1)
        assert set(children(process.pid)) == started, "the one that came up was left alone"


async def test_a_stop_refuses_new_connections_at_once_and_lets_streams_end(tmp_path: Path) -> None:
    slow = {"type": "scripted", "replies": [{"text": "one two three four five six", "word_seconds": 1.0}]}
    more = {"targets": {"a": slow}, "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}}}
    with served(tmp_path, workers=2, **more, gateway={"port": 0, "drain_seconds": 20, "workers": 2}) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"model": "auto", "stream": True, "messages": [{"role": "user", "content": "count"}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        said = await reader.readuntil(b'"one')
        process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 3
        while True:  # the signal has a way to go, and the stream a longer one
            assert time.monotonic() < until, "connections are still taken"
            try:
                _, probe = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                break
            probe.close()
            await asyncio.sleep(0.05)
        assert process.poll() is None, "it drains"
        said += await asyncio.wait_for(reader.read(), 20)
        assert b"six" in said
        assert b"data: [DONE]" in said
        writer.close()


def test_workers_that_cannot_start_end_their_parent(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError) as caught,
        served(
            tmp_path,
            targets={
                "a": {
                    "type": "openai_chat",
                    "model": "m",
                    "base_url": "http://127.0.0.1:1",
                    "api_key": "${NOT_SET_HERE}",
                }
            },
            routes={"auto": {"policy": {"type": "fixed", "plan": "a"}}},
        ),
    ):
        pass
    assert "NOT_SET_HERE" in str(caught.value)


def counted(url: str) -> dict[str, int]:
    """Scrape, and return how many requests each worker has answered."""
    with urllib.request.urlopen(url + "/metrics", timeout=20) as reply:
        text = reply.read().decode()
    out: dict[str, int] = {}
    for worker, n in re.findall(r'^fairlead_requests_total\{.*worker="(\d)"\} (\d+)', text, re.MULTILINE):
        out[worker] = out.get(worker, 0) + int(n)
    return out


async def test_whichever_worker_is_scraped_shows_what_all_did(tmp_path: Path) -> None:
    with served(tmp_path, workers=2) as (process, url):
        await asyncio.gather(*(asyncio.to_thread(ask, url) for _ in range(40)))
        until = time.monotonic() + 20
        while sum((await asyncio.to_thread(counted, url)).values()) < 40:
            assert time.monotonic() < until, "each writes its metrics every two seconds"
            await asyncio.sleep(0.1)
        await asyncio.sleep(
            SHARE_SECONDS + 0.5
        )  # it may have been the one that dies who said so, and had not written it yet
        os.kill(children(process.pid)[0], signal.SIGKILL)
        until = time.monotonic() + 20
        while len(children(process.pid)) < 2:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
        found = await asyncio.to_thread(counted, url)
        assert sum(found.values()) == 40, "what the dead one had counted is still there, once"


async def test_workers_share_limits_through_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    """As many as one worker would let in, whichever of them is asked."""
    gateway = {
        "port": 0,
        "workers": 2,
        "keys": {"ann": {"hash": hashed("fl-ann-of-the-workers"), "limits": {"requests_per_minute": 10}}},
        "redis": {
            "url": redis_server.url,
            "password": f"${{{VARIABLE}}}",
            "prefix": f"workers:{tmp_path}:",
            "timeout_seconds": 2.0,
        },
    }
    with served(tmp_path, gateway=gateway) as (_, url):

        def status() -> int:
            body = json.dumps({"model": "a", "messages": [{"role": "user", "content": "hi"}]}).encode()
            request = urllib.request.Request(url + "/v1/chat/completions", body)
            request.add_header("authorization", "Bearer fl-ann-of-the-workers")
            try:
                with urllib.request.urlopen(request, timeout=20) as reply:
                    return int(reply.status)
            except urllib.error.HTTPError as e:
                with e:
                    return e.code

        began = int(time.time() // 60)
        got = Counter(await asyncio.gather(*(asyncio.to_thread(status) for _ in range(40))))
        minutes = int(time.time() // 60) - began + 1
        assert set(got) == {200, 429}
        assert got[200] == 10 if minutes == 1 else 10 <= got[200] <= 10 * minutes
