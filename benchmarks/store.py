"""What the store takes and how long a commit is waited for: SQLite and PostgreSQL, one process and several on one store.

    python benchmarks/store.py [--processes 1 2 4] [--seconds 3] [--clients 16] [--json] [--check]

Each process has some clients that append one trace (1.3 kB) after the other, each when the one before is committed. Columns: traces a second
of all processes together, median and 99th percentile of the wait (the worst process's), the longest wait; then what a lone client waits for,
and what `append` costs the event loop. PostgreSQL is started if Debian's package is there, on a free port of loopback, without `fsync`.

``--check`` exits with 1 if a chain is broken, a trace is missing, or four processes on SQLite write less than half of what one does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fairlead.sqlstore import SQLStore, kept_at
from fairlead.types import Trace

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

LONE = 300
BURST = 5000


def a_trace() -> Trace:
    """Return a trace of 1.3 kB."""
    made: Trace = importlib.import_module("stores").a_trace("x", text="p" * 300, answer="a" * 300)
    return made


async def load(store: SQLStore, name: str, seconds: float, clients: int) -> dict[str, float]:
    """Append for a while, and tell how long each commit was waited for."""
    base, waits, end = a_trace(), list[float](), time.perf_counter() + seconds

    async def client(n: int) -> None:
        i = 0
        while time.perf_counter() < end:
            start = time.perf_counter()
            await _written(store, replace(base, id=f"{name}-{n}-{i}"))
            waits.append(time.perf_counter() - start)
            i += 1

    await asyncio.gather(*(client(n) for n in range(clients)))
    return _told(waits) | {"traces": len(waits), "per_second": len(waits) / seconds}


async def alone(store: SQLStore) -> dict[str, float]:
    """Append one at a time, then many at once."""
    base, waits = a_trace(), list[float]()
    for i in range(LONE):
        start = time.perf_counter()
        await _written(store, replace(base, id=f"lone-{i}"))
        waits.append(time.perf_counter() - start)
    burst = [replace(base, id=f"burst-{i}") for i in range(BURST)]
    start = time.thread_time()
    futures = [f for t in burst if (f := store.append(t)) is not None]
    in_loop = time.thread_time() - start
    await asyncio.gather(*futures)
    return {"lone_p50_ms": _told(waits)["p50_ms"], "append_us": in_loop * 1e6 / BURST}


async def _written(store: SQLStore, trace: Trace) -> None:
    done = store.append(trace)
    assert done is not None
    await done


def _told(waits: list[float]) -> dict[str, float]:
    waits = sorted(waits)
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: 1e3 * waits[min(len(waits) - 1, int(q * len(waits)))] for name, q in at.items()}


def child(where: str, name: str, seconds: float, clients: int) -> None:
    """Be one of the processes; print what was seen."""
    store = kept_at(where, outage="refuse")
    store.start()
    try:
        print(json.dumps(asyncio.run(load(store, name, seconds, clients))))
    finally:
        store.stop()


def together(where: str, processes: int, seconds: float, clients: int) -> dict[str, float]:
    """Run some processes on one store, and check what they left."""
    command = [sys.executable, __file__, "--child", where, "--seconds", str(seconds), "--clients", str(clients)]
    started = [
        subprocess.Popen([*command, "--name", f"p{i}"], stdout=subprocess.PIPE, text=True) for i in range(processes)
    ]
    said = [json.loads(p.communicate()[0]) for p in started]
    store = kept_at(where, read_only=True)
    there = store.verify()
    store.stop()
    return {
        "processes": processes,
        "per_second": sum(s["per_second"] for s in said),
        **{name: max(s[name] for s in said) for name in ("p50_ms", "p99_ms", "max_ms")},
        "missing": sum(s["traces"] for s in said) - there,
    }


def measure(kind: str, place: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of one database; `place` names a new store."""
    rows = [together(place(), n, args.seconds, args.clients) for n in args.processes]
    store = kept_at(place(), outage="refuse", most_waiting=10 * BURST)
    store.start()
    lone = asyncio.run(alone(store))
    start = time.perf_counter()
    n = store.verify()
    lone["verify_us"] = (time.perf_counter() - start) * 1e6 / n
    store.stop()
    return {"kind": kind, "rows": rows, **lone}


def main() -> int:
    """Measure, print, and check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args.child, args.name, args.seconds, args.clients)
        return 0
    found = []
    with tempfile.TemporaryDirectory() as folder:
        paths = (str(Path(folder) / f"{i}.sqlite") for i in range(100))
        found.append(measure("SQLite", lambda: next(paths), args))
    postgres = importlib.import_module("postgres")
    programs = postgres.found()
    if programs is None:
        print("PostgreSQL is not installed", file=sys.stderr)
    else:
        os.environ[postgres.VARIABLE] = postgres.PASSWORD
        with tempfile.TemporaryDirectory() as folder:
            server = postgres.Server(programs, Path(folder))
            server.start()
            try:
                found.append(measure("PostgreSQL", lambda: _schema(server), args))
            finally:
                server.stop()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for one in found:
            print(f"{one['kind']}: lone commit {one['lone_p50_ms']:.2f} ms, append {one['append_us']:.1f} µs, ", end="")
            print(f"verify {one['verify_us']:.0f} µs a trace")
            print("  processes  traces/s  p50 ms  p99 ms  max ms")
            for r in one["rows"]:
                waits = "".join(f"{r[name]:8.1f}" for name in ("p50_ms", "p99_ms", "max_ms"))
                print(f"  {r['processes']:>9}  {r['per_second']:>8,.0f}{waits}")
    wrong = [f"{one['kind']}: {r['missing']} traces are missing" for one in found for r in one["rows"] if r["missing"]]
    rates = {r["processes"]: r["per_second"] for r in found[0]["rows"]}
    if 4 in rates and 1 in rates and rates[4] < 0.5 * rates[1]:
        wrong.append(f"SQLite: 4 processes write {rates[4]:,.0f} traces/s, one {rates[1]:,.0f}")
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return int(args.check and bool(wrong))


_made = 0


def _schema(server: Any) -> str:
    global _made
    _made += 1
    server.run(f"CREATE SCHEMA s{_made}")
    return str(server.url(f"s{_made}"))


if __name__ == "__main__":
    sys.exit(main())
