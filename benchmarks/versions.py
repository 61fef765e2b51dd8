"""What a lesson costs: bytes that a further version takes in the store, and CPU, for policies that hold a large trained predictor.

    python benchmarks/versions.py [--rows 5608] [--lessons 40] [--seed 0] [--json] [--check]

A `knn` is fitted on random prompts with scores of four targets (features: a 128-dimensional hashed embedding and the length). A router
then learns one judged answer at a time, so that each makes a version, once with each of these policies:

    beta_thompson   with the knn as its prior, which learning never changes
    lin_ucb         likewise; its arms are matrices, of which a lesson changes one
    utility         with the knn learning online: every lesson changes the arrays that hold its queries

Columns: kB that the store's file grew per version (checkpointed), median CPU ms of the whole process per judged answer (asked, answered by
a scripted target, judged, learned, kept as a version), and the longest that a request took while lessons were being learned.

``--check`` exits with 1 if a version of `beta_thompson` takes more than 10 kB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from fairlead.bench.training import Seen, save_policy
from fairlead.component import pack
from fairlead.config import make
from fairlead.policies.base import Policy
from fairlead.policies.beta_thompson import BetaThompson
from fairlead.policies.lin_ucb import LinUCB
from fairlead.policies.utility import Utility
from fairlead.predictors.features import Features
from fairlead.predictors.knn import KNN
from fairlead.signals.base import Observer
from fairlead.table import OutcomeTable
from fairlead.types import Feedback, Query

TARGETS = ("a", "b", "c", "d")
SIGNALS = ("embedding", "length")
MOST_KB = 10.0


def config(folder: Path, policy: object = "random") -> Any:
    """Return a config with four scripted targets."""
    return make(
        {
            "targets": {name: {"type": "scripted", "replies": ["yes"]} for name in TARGETS},
            "routes": {"auto": {"policy": policy}},
            "store": {"path": str(folder / "store.sqlite")},
            "learning": {"batch": 1, "seconds": 0.01},
        }
    )


def fitted(rows: int, seed: int) -> KNN:
    """Return a knn that knows so many random prompts."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(2000)]
    prompts = [" ".join(rng.choices(words, k=rng.randint(5, 40))) for _ in range(rows)]
    columns: dict[str, list[Any]] = {"query_id": [], "prompt": [], "model": [], "quality": []}
    for i, prompt in enumerate(prompts):
        for name in TARGETS:
            for key, value in zip(columns, (f"q{i}", prompt, name, float(rng.random() < 0.7)), strict=True):
                columns[key].append(value)
    table = OutcomeTable.from_columns(columns)
    observer = Observer(signals=config(Path(".")).signals)
    knn = KNN(features=Features(signals=SIGNALS), memory=max(rows, 1))
    knn.fit(table.observed(observer, SIGNALS))
    return knn


def size_of(path: Path) -> int:
    """Return the bytes of the file that are in use, what waits in its log included."""
    with closing(sqlite3.connect(path)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


async def measure(policy: Policy, lessons: int) -> dict[str, float]:
    """Let a router learn `lessons` judged answers, one at a time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_policy(folder / "policy", policy, Seen(ids=(), prompts=()))
        router = config(folder, {"trained": str(folder / "policy")}).router()
        cpu, longest = [], 0.0
        async with router:
            first, begun = router.serving["auto"].version, size_of(folder / "store.sqlite")
            for i in range(lessons):
                before = time.process_time()
                _, trace = await router.handle(Query.ask(f"how are you, the {i}th?"))
                await router.feedback(Feedback(trace_id=trace.id, value=float(i % 3 > 0)))
                learned = asyncio.ensure_future(asyncio.to_thread(router.learner.wait, 60.0))
                await learned
                cpu.append(time.process_time() - before)
            versions, grown = router.serving["auto"].version - first, size_of(folder / "store.sqlite") - begun
            for i in range(10):
                _, trace = await router.handle(Query.ask(f"and you, the {i}th?"))
                await router.feedback(Feedback(trace_id=trace.id, value=1.0))
                learned = asyncio.ensure_future(asyncio.to_thread(router.learner.wait, 60.0))
                while not learned.done():
                    asked = time.perf_counter()
                    await router.handle(Query.ask("meanwhile"))
                    longest = max(longest, time.perf_counter() - asked)
                    await asyncio.sleep(0.002)
        return {
            "versions": versions,
            "kb_per_version": grown / 1e3 / max(1, versions),
            "cpu_ms": 1e3 * statistics.median(cpu),
            "longest_ms": 1e3 * longest,
        }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5608)
    parser.add_argument("--lessons", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    knn = fitted(args.rows, args.seed)
    policies = (BetaThompson(prior=knn), LinUCB(prior=knn, features=Features(signals=SIGNALS)), Utility(predictor=knn))
    found = {p.type_name(): asyncio.run(measure(p, args.lessons)) for p in policies}
    state_mb = len(pack(knn.state())) / 1e6
    if args.json:
        sys.stdout.write(json.dumps({"rows": args.rows, "state_mb": state_mb, "policies": found}, indent=1) + "\n")
    else:
        sys.stdout.write(f"knn on {args.rows} rows: {state_mb:.2f} MB; {args.lessons} lessons, one a version\n")
        sys.stdout.write(f"{'policy':<16}{'kB/version':>12}{'CPU ms/lesson':>15}{'longest request ms':>20}\n")
        for name, f in found.items():
            sys.stdout.write(f"{name:<16}{f['kb_per_version']:>12.1f}{f['cpu_ms']:>15.1f}{f['longest_ms']:>20.1f}\n")
    if args.check and found["beta_thompson"]["kb_per_version"] > MOST_KB:
        sys.stdout.write(f"MISSED: a version of beta_thompson takes more than {MOST_KB:.0f} kB\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
