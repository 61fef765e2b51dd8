"""What `kill -9` loses: answers that a client had in full, and whose trace is not in the store afterwards. It should be none.

    python benchmarks/durability.py [--rounds 10] [--seconds 2] [--clients 32] [--seed 0] [--relaxed] [--json] [--check] [--keep FOLDER]

The real gateway (`fairlead serve`) runs on 127.0.0.1 over scripted targets, one of which fails every third time, so that some plans
fall back. Clients send requests without a pause, half of them streams, and note the id of an answer once they have it in full: the whole
body, or the stream's ``[DONE]``. After a time drawn around ``--seconds`` the gateway and all its children are killed with SIGKILL. Then
the chain of the store is verified from its first trace, every id noted in this and all earlier rounds is looked up, and the gateway starts
again on the same store.

Columns: answers noted in this round (and how many were streams), requests under way at the kill, traces in the store after it, noted ids
that are *lost*, whether the chain holds, and how long the next start took until it took requests.

What it shows: an answer is sent in full only after its trace is with the operating system, and the file opens clean after a crash. What it
does not show: a power cut (`synchronous="full"` is for that), or a disk that lies.

``--relaxed`` runs the same with a store that nobody waits for. It is the control: there answers should be lost, which shows that this
benchmark can see a loss.

``--check`` exits with 1 if an id is lost, a chain is broken, a start fails, or a round noted nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml

from fairlead.errors import ChainBroken
from fairlead.sqlite import SQLiteStore

START_SECONDS = 60.0
"""How long a start may take."""
WORDS = "one two three four five six seven eight nine ten"


class Round(NamedTuple):
    """What one kill left behind."""

    answers: int
    streams: int
    under_way: int
    kept: int
    lost: int
    chain: str
    start_seconds: float


class Noted:
    """What the clients saw."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.streams = 0
        self.under_way = 0
        self.refused: dict[int, int] = {}


def write_config(folder: Path, port: int, *, relaxed: bool) -> Path:
    """Write a config of two scripted targets and a random route."""
    steady = [{"text": WORDS, "delay_seconds": 0.005, "word_seconds": 0.001}, {"text": "short"}]
    flaky = [{"text": WORDS}, "fine", {"error": {"kind": "rate_limited", "message": "slow down"}}]
    config = {
        "targets": {
            "steady": {"type": "scripted", "replies": steady},
            "flaky": {"type": "scripted", "replies": flaky},
        },
        "routes": {"auto": {"policy": "random"}},
        "store": {"path": str(folder / "store.sqlite"), "relaxed": relaxed},
        "gateway": {"host": "127.0.0.1", "port": port},
    }
    path = folder / "fairlead.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def start(config: Path, port: int, log: Path) -> tuple[subprocess.Popen[bytes], float]:
    """Start the gateway in a process group of its own, and wait until it takes connections."""
    command = [sys.executable, "-m", "fairlead.cli", "serve", str(config)]
    begun = time.perf_counter()
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    while time.perf_counter() - begun < START_SECONDS:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return process, time.perf_counter() - begun
        await asyncio.sleep(0.02)
    kill(process)
    raise SystemExit(f"the gateway did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the gateway and its children without warning."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def client(session: aiohttp.ClientSession, url: str, noted: Noted, number: int) -> None:
    """Send requests until the gateway is gone; note what was answered in full."""
    n = number
    while True:
        n += 1
        stream = n % 2 == 0
        body = {"model": "auto", "stream": stream, "messages": [{"role": "user", "content": f"client {number}: {n}"}]}
        noted.under_way += 1
        try:
            async with session.post(url, json=body) as response:
                data = await response.read()  # raises if the answer breaks off
                if response.status != 200:
                    noted.refused[response.status] = noted.refused.get(response.status, 0) + 1
                    noted.under_way -= 1
                    continue
        except (aiohttp.ClientError, OSError):
            return  # cut off by the kill: stays under way
        noted.under_way -= 1
        if stream and not data.rstrip().endswith(b"data: [DONE]"):
            continue  # it said that it broke off
        noted.ids.add(response.headers["x-fairlead-id"])
        noted.streams += stream


async def load(port: int, seconds: float, clients: int, process: subprocess.Popen[bytes]) -> Noted:
    """Put load on the gateway, then kill it in the middle of it."""
    noted = Noted()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        tasks = [asyncio.create_task(client(session, url, noted, i)) for i in range(clients)]
        await asyncio.sleep(seconds)
        kill(process)
        await asyncio.gather(*tasks)
    return noted


def examine(path: Path, noted: set[str]) -> tuple[int, set[str], str]:
    """Return how many traces are kept, which noted ids are lost, and "ok" or what is wrong with the chain."""
    store = SQLiteStore(path, read_only=True)
    store.start()
    try:
        store.verify()
        chain = "ok"
    except ChainBroken as e:
        chain = str(e)
    kept = {trace.id for trace in store.traces()}
    return len(kept), noted - kept, chain


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill the gateway `rounds` times on one store."""
    rng = random.Random(args.seed)
    port = free_port()
    config, log = write_config(folder, port, relaxed=args.relaxed), folder / "gateway.log"
    rounds: list[Round] = []
    all_ids: set[str] = set()
    refused: dict[int, int] = {}
    lost: set[str] = set()
    for _ in range(args.rounds):
        process, took = await start(config, port, log)
        try:
            noted = await load(port, args.seconds * rng.uniform(0.5, 1.5), args.clients, process)
        finally:
            kill(process)
        all_ids |= noted.ids
        for status, count in noted.refused.items():
            refused[status] = refused.get(status, 0) + count
        kept, lost, chain = examine(folder / "store.sqlite", all_ids)
        rounds.append(Round(len(noted.ids), noted.streams, noted.under_way, kept, len(lost), chain, took))
    process, took = await start(config, port, log)  # the last kill must not keep it from starting either
    kill(process)
    return {
        "rounds": [r._asdict() for r in rounds],
        "answers": len(all_ids),
        "kept": rounds[-1].kept,
        "lost": sorted(lost),
        "refused": refused,
        "last_start_seconds": took,
    }


def problems(result: dict[str, Any]) -> list[str]:
    """Say what `--check` finds wrong."""
    out = [f"{len(result['lost'])} answers are lost: {', '.join(result['lost'][:5])}"] if result["lost"] else []
    for i, r in enumerate(result["rounds"], 1):
        if r["chain"] != "ok":
            out.append(f"round {i}: {r['chain']}")
        if not r["answers"] or not r["streams"]:
            out.append(f"round {i} noted {r['answers']} answers, {r['streams']} of them streams: it shows nothing")
    return out


def table(result: dict[str, Any]) -> str:
    """Lay the result out for people."""
    lines = [
        f"{'round':>5} {'answers':>8} {'streams':>8} {'under way':>9} {'kept':>8} {'lost':>5} {'start s':>8}  chain"
    ]
    for i, r in enumerate(result["rounds"], 1):
        counts = f"{i:>5} {r['answers']:>8} {r['streams']:>8} {r['under_way']:>9} {r['kept']:>8} {r['lost']:>5}"
        lines.append(f"{counts} {r['start_seconds']:>8.2f}  {r['chain']}")
    total = f"{result['answers']} answers received in full, {result['kept']} traces kept, {len(result['lost'])} lost"
    lines.append(total + (f"; refused, by status: {result['refused']}" if result["refused"] else ""))
    return "\n".join(lines)


def main() -> int:
    """Run, print, and with `--check` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often the gateway is killed (default 10)")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long it lives each time (default 2)")
    parser.add_argument("--clients", type=int, default=32, help="requests under way at once (default 32)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills (default 0)")
    parser.add_argument(
        "--relaxed", action="store_true", help="do not wait for the store: a control that should lose some"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--check", action="store_true", help="exit with 1 if anything is lost or broken")
    parser.add_argument("--keep", type=Path, help="keep config, log and store in this folder")
    args = parser.parse_args()
    folder = args.keep.resolve() if args.keep else Path(tempfile.mkdtemp(prefix="fairlead-durability-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = asyncio.run(measure(args, folder))
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2) if args.json else table(result))
    wrong = problems(result)
    for problem in wrong:
        print(f"WRONG: {problem}", file=sys.stderr)
    return 1 if args.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
