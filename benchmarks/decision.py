"""Where the time of a request goes: microseconds per stage of one decision, in process, without a network.

    python benchmarks/decision.py [--rounds 7] [--json]

Each stage is called in batches of about 10 ms over 64 different prompts of about 550 characters; the figures are the median and the least
over the rounds, in CPU time of the process (so that other programs do not count), the cost of the loop itself taken off. The policy is LinUCB over a 128-dimensional embedding and surface marks (about 150
features, three targets), after 200 judged answers. `append` is the cost in the event loop; `write` is what the store's thread then spends
on a trace when traces come in bulk (encode, chain, insert), as CPU time of the whole process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from fairlead import chain
from fairlead.actions.base import Passage
from fairlead.config import Config, make
from fairlead.gateway import read as reading
from fairlead.gateway.metrics import Metrics
from fairlead.policies.lin_ucb import LinUCB
from fairlead.pool import Pool
from fairlead.router import Router
from fairlead.signals.base import Observer
from fairlead.sqlite import SQLiteStore
from fairlead.targets import openai_chat
from fairlead.types import Limits, Query, Reward, Target, Trace, new_id

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gateway import POLICIES, ROUTES, SKILLS, TARGETS, Load, bodies

BATCH_SECONDS: Final = 0.01
PREFIX: Final = "  "
"""Marks a stage that is part of the one above."""
REPLY: Final = msgspec.json.encode(
    {
        "id": "chatcmpl-canned",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "canned",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 45}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 164, "completion_tokens": 48, "total_tokens": 212},
    }
)


def config(folder: Path) -> Config:
    """A router with three scripted targets and a learned route."""
    targets = {
        name: {
            "type": "scripted",
            "replies": ["word " * 45],
            "profile": {"input_usd_per_mtok": usd, "output_usd_per_mtok": 4 * usd},
        }
        for name, usd in TARGETS.items()
    }
    return make(
        {
            "targets": targets,
            "routes": {"auto": {"policy": {"type": "lin_ucb", "features": ROUTES["rich"], **POLICIES["lin_ucb"]}}},
            "store": {"path": str(folder / "traces.sqlite")},
        }
    )


def learned(policy: LinUCB, traces: Sequence[Trace]) -> LinUCB:
    """Return a policy that has learned from judged answers."""
    policy = policy.copy()
    draw = random.Random(2)
    for trace in traces:
        policy.learn(trace, Reward(quality=float(draw.random() < SKILLS[trace.outcome.target]), usd=trace.usd))
    return policy


def measure(stage: Callable[[Any], object], inputs: Sequence[Any], rounds: int) -> tuple[float, float]:
    """Return the median and the least of microseconds a call."""

    def batch(call: Callable[[Any], object], times: int) -> float:
        start = time.process_time()
        for _ in range(times):
            for x in inputs:
                call(x)
        return time.process_time() - start

    times = 1
    while (took := batch(stage, times)) < BATCH_SECONDS:
        times = max(2 * times, int(times * BATCH_SECONDS / max(took, 1e-6)))
    per_call = 1e6 / (times * len(inputs))
    empty = min(batch(lambda x: x, times) for _ in range(3))
    found = [(batch(stage, times) - empty) * per_call for _ in range(rounds)]
    return max(0.0, statistics.median(found)), max(0.0, min(found))


async def measure_async(stage: Callable[[Any], Any], inputs: Sequence[Any], rounds: int) -> tuple[float, float]:
    """As `measure`, for coroutines awaited one after the other."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(4):
            for x in inputs:
                await stage(x)
        found.append((time.process_time() - start) * 1e6 / (4 * len(inputs)))
    return statistics.median(found), min(found)


async def stages(rounds: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Measure every stage of a request in turn."""
    out: dict[str, tuple[float, float]] = {}
    made = config(folder)
    router = made.router()
    raw = [msgspec.json.encode(body) for body in bodies("auto", Load(1))]
    known = {"auto": None, **dict.fromkeys(TARGETS)}
    queries = [reading.read(body, {}, known, TARGETS).query for body in raw]
    async with router:
        traces = [(await router.handle(again(query)))[1] for query in queries * 4]
        begun = made.policies["auto"]
        assert isinstance(begun, LinUCB)
        policy = learned(begun, traces[:200])
        router.publish("auto", policy, "for the benchmark")
        out["read the request"] = measure(lambda body: reading.read(body, {}, known, TARGETS), raw, rounds)
        await decide(out, router, policy, queries, rounds)
        await run(out, router, queries, rounds)
    await keep(out, folder, [chain.lean(t) for t in traces], rounds)
    return out


async def decide(
    out: dict[str, tuple[float, float]], router: Router, policy: LinUCB, queries: list[Query], rounds: int
) -> None:
    """Measure signals and policy."""
    pool: Pool = router.pool
    targets: tuple[Target, ...] = pool.targets
    observer: Observer = router.observer
    out["observe and decide"] = measure(lambda q: router.decide(q, router.observe(q)), queries, rounds)
    out[PREFIX + "observe"] = measure(lambda q: observer.read(q, policy.needs), queries, rounds)
    for name in policy.needs:
        out[2 * PREFIX + name] = measure(observer.signals[name].read, queries, rounds)
    out[PREFIX + "eligible targets"] = measure(pool.eligible, queries, rounds)
    observed = [(q, observer.read(q, policy.needs)) for q in queries]
    out[PREFIX + "propose"] = measure(lambda x: policy.propose(x[0], x[1], targets), observed, rounds)
    out[2 * PREFIX + "features"] = measure(lambda x: policy.features.read(x[1]), observed, rounds)
    out[PREFIX + "sample and record"] = measure(lambda x: policy.decide(x[0], x[1], pool), observed, rounds)
    whole, parts = out[PREFIX + "sample and record"], (out[PREFIX + "propose"], out[PREFIX + "eligible targets"])
    out[PREFIX + "sample and record"] = (
        max(0.0, whole[0] - sum(p[0] for p in parts)),
        max(0.0, whole[1] - sum(p[1] for p in parts)),
    )


async def run(out: dict[str, tuple[float, float]], router: Router, queries: list[Query], rounds: int) -> None:
    """Measure the plan, the trace and what the gateway counts."""
    decided = [(q, s, router.decide(q, s)) for q in queries for s in [router.observe(q)]]
    out["wrap with fallbacks"] = measure(lambda x: router.with_fallbacks(x[2]), decided, rounds)
    plans = [(q, router.with_fallbacks(decision)) for q, _, decision in decided]

    async def once(x: Any) -> Any:
        return await router.world.open(x[1], x[0], limits=Limits.of(x[0].constraints)).go()

    out["run the plan (a call that answers at once)"] = await measure_async(once, plans, rounds)
    out["read the reply"] = measure(lambda q: openai_chat.read(REPLY, id=q.id), queries, rounds)
    told = []
    for (query, signals, decision), (_, plan) in zip(decided, plans, strict=True):
        passage = Passage(query=query, signals=signals, decision=decision, plan=plan, sink=None)
        passage.run = router.world.open(plan, query)
        passage.result = await passage.run.go()
        told.append(passage)

    def tell(passage: Passage) -> Trace:
        assert passage.result is not None
        return router.trace(passage, passage.result.outcome, at=0.0, start=0.0)

    out["write the trace"] = measure(tell, told, rounds)
    traces = [tell(x) for x in told]
    metrics = Metrics()
    out["count (metrics)"] = measure(
        lambda t: metrics.note(t, status=200, seconds=1.0, overhead=0.001, first_byte=None, fallbacks=0), traces, rounds
    )


async def keep(out: dict[str, tuple[float, float]], folder: Path, traces: list[Trace], rounds: int) -> None:
    """Measure the store: in the event loop, and in its thread."""
    out["append to the store"] = (0.0, 0.0)
    out[PREFIX + "encode"] = measure(chain.encode, traces[:64], rounds)
    bytes_ = [chain.encode(t) for t in traces[:64]]
    out[PREFIX + "hash"] = measure(lambda body: chain.link(chain.TRACES_BEGIN, body), bytes_, rounds)
    in_loop, in_thread = [], []
    for i in range(rounds):
        store = SQLiteStore(folder / f"kept-{i}.sqlite")
        store.start()
        renamed = [msgspec.structs.replace(t, id=f"{t.id}-{n}") for n in range(8) for t in traces]
        cpu, start = time.process_time(), time.thread_time()
        waiting = [store.append(t) for t in renamed]
        in_loop.append((time.thread_time() - start) * 1e6 / len(renamed))
        await asyncio.gather(*(w for w in waiting if w is not None))
        in_thread.append((time.process_time() - cpu) * 1e6 / len(renamed))
        store.stop()
    out["append to the store"] = (statistics.median(in_loop), min(in_loop))
    out["write, append included (CPU of all threads)"] = (statistics.median(in_thread), min(in_thread))


def again(query: Query) -> Query:
    """Return the same query under a new id."""
    return msgspec.structs.replace(query, id=new_id())


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each stage is measured (default 7)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as folder:
        found = asyncio.run(stages(args.rounds, Path(folder)))
    if args.json:
        print(json.dumps({k.strip(): {"median_us": m, "least_us": low} for k, (m, low) in found.items()}, indent=2))
        return 0
    print(f"Python {platform.python_version()}, {platform.machine()}; µs: median (least) of {args.rounds} rounds\n")
    for name, (median, least) in found.items():
        print(f"{name:<46} {median:8.1f}  ({least:.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
