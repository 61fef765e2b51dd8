"""What a call to an upstream costs the caller: the lean client beside aiohttp, in interleaved rounds against the canned upstream.

    python benchmarks/upstream.py [--rounds 5] [--calls 20000] [--streams 400] [--json] [--check]

One process on uvloop asks, 16 calls at a time, with bodies of about 1 kB; the canned upstream of `load/upstream.c` answers at once with about
600 bytes, or with 50 events. It runs on a core of its own; all on 127.0.0.1. What is counted is the CPU of the asking process, user and system,
so its event loop and the system calls are in it. Figures are medians over the rounds, with the least and the most.

The rows are what `fairlead.targets.upstream.Upstream` uses: ``lean`` as a rule, ``aiohttp`` where proxies of the environment are to be heeded
(they are not looked for here, which would cost more).

``--check`` exits with 1 if the lean client takes more than half of what aiohttp takes for a call, or if a reply was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import uvloop

import gateway
from fairlead.targets import lean, proxied

AT_ONCE: Final = 16
HEADERS: Final = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}
Client = lean.Client | proxied.Session


async def shared(calls: int, call: Callable[[], Awaitable[int]]) -> tuple[float, int]:
    """Make `calls` calls, 16 at a time: (CPU seconds, the sum of what the calls return)."""
    left = calls
    total = 0

    async def worker() -> None:
        nonlocal left, total
        while left > 0:
            left -= 1
            got = await call()
            total += got

    begun = time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return time.process_time() - begun, total


async def posts(client: Client, url: str, body: bytes, calls: int) -> float:
    """CPU microseconds per whole reply."""

    async def call() -> int:
        status, headers, reply = await client.post(url, HEADERS, body)
        return status == 200 and len(reply) > 500 and "json" in headers.get("Content-Type", "")

    seconds, right = await shared(calls, call)
    if right != calls:
        sys.exit(f"{calls - right} of {calls} replies were wrong")
    return 1e6 * seconds / calls


async def events(client: Client, url: str, body: bytes, streams: int) -> float:
    """CPU microseconds per event of a stream, its share of the call included."""

    async def call() -> int:
        reply = await client.send(url, HEADERS, body)
        count = 0
        try:
            await reply.started()
            async for chunk in reply.chunks():
                count += chunk.count(b"\n\n")
            return count
        finally:
            reply.leave()

    seconds, count = await shared(streams, call)
    if count != streams * (gateway.EVENTS + 2):
        sys.exit(f"{count} events came of {streams * (gateway.EVENTS + 2)}")
    return 1e6 * seconds / count


async def measure(port: int, rounds: int, calls: int, streams: int) -> dict[str, dict[str, gateway.Figure]]:
    """Run all rounds."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    whole = json.dumps(gateway.bodies("canned", gateway.Load(1), 1)[0]).encode()
    at_once, paced = (
        json.dumps(
            gateway.bodies("canned", gateway.Load(1, f"{gap}events={gateway.EVENTS}", stream=True), 1)[0]
        ).encode()
        for gap in ("", "gap=2000 ")
    )
    clients: dict[str, Client] = {"lean": lean.Client(), "aiohttp": proxied.Session(from_env=False)}
    shots: dict[str, dict[str, list[float]]] = {
        name: {"call_us": [], "event_us": [], "paced_event_us": []} for name in clients
    }
    try:
        for i in range(rounds + 1):  # the first warms up
            for name in list(clients)[:: 1 if i % 2 else -1]:
                client = clients[name]
                found = {
                    "call_us": await posts(client, url, whole, calls if i else 200),
                    "event_us": await events(client, url, at_once, streams if i else 20),
                    "paced_event_us": await events(client, url, paced, streams if i else 20),
                }
                if i:
                    for key, value in found.items():
                        shots[name][key].append(value)
    finally:
        for client in clients.values():
            await client.close()
    return {name: {key: gateway.Figure.of(values) for key, values in of.items()} for name, of in shots.items()}


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each client is measured (default 5)")
    parser.add_argument("--calls", type=int, default=20_000, help="whole replies a round (default 20000)")
    parser.add_argument("--streams", type=int, default=400, help="streams a round, at once and paced (default 400)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the lean client is not worth its lines")
    args = parser.parse_args()
    about = gateway.setting("")
    del about["policy"]
    with (
        tempfile.TemporaryDirectory(prefix="fairlead-bench-") as folder,
        gateway.Bench(Path(folder), "lin_ucb") as bench,
    ):
        bench.compile()
        row = bench.upstream()
        os.sched_setaffinity(0, {bench.gateway_core})
        figures = uvloop.run(measure(row.port, args.rounds, args.calls, args.streams))
    if args.json:
        print(msgspec.json.format(msgspec.json.encode({"setting": about, "figures": figures}), indent=2).decode())
    else:
        print(", ".join(f"{k} {v}" for k, v in about.items()), end="\n\n")
        print("| CPU µs | per call | per event, all at once | per event, 2 ms apart |\n|---|---:|---:|---:|")
        for name, f in figures.items():
            print(f"| {name} | {f['call_us'].show(1)} | {f['event_us'].show(2)} | {f['paced_event_us'].show(1)} |")
    if args.check and figures["lean"]["call_us"].median > figures["aiohttp"]["call_us"].median / 2:
        print("check: the lean client takes more than half of what aiohttp takes for a call", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
