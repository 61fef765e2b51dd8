"""What duplicates do to a simulated fleet: latency, duplicates and work, without, with and beyond a bound. Figures of docs/guides/plans.md.

    python benchmarks/hedging.py [--items 5000] [--seeds 4] [--check] [--json]

16 workers, one service in 14 ten times as slow, in bursts of 30 or without memory; a fleet that ends what is cancelled, and one that goes on with it.
Each figure is the mean over seeds; in brackets the standard deviation between them. See `fairlead/bench/queueing.py`.

`--check` fails if a bound is ever passed, an item is not delivered exactly once, the bound does not keep a busy fleet as it is, or hedging without a bound does
it no harm.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from fairlead.bench.queueing import Fleet, Hedging, simulate
from fairlead.types import Late

SECONDS: Final = 3.0
"""The fixed delay: about the 95th percentile of a quiet fleet."""


def policy(share: float, *, seconds: float | None = SECONDS, rounds: int = 0) -> Hedging:
    """Hedge a share of the items."""
    late = Late(target="fleet", quantile=0.95, otherwise=SECONDS, share=share)
    return Hedging(late=late, seconds=seconds, rounds=rounds)


POLICIES: Final = {
    "none": policy(0.0),
    "no bound, after 3 s": policy(1.0),
    "no bound, after p95": policy(1.0, seconds=None),
    "5%, after 3 s": policy(0.05),
    "5%, after p95": policy(0.05, seconds=None),
    "10%, after 3 s": policy(0.1),
    "10%, history, 4 rounds": policy(0.1, rounds=4),
}


def measure(fleet: Fleet, hedging: Hedging, items: int, seeds: int) -> dict[str, Any]:
    """Run one policy on one fleet."""
    runs = [simulate(fleet, hedging, items=items, seed=seed) for seed in range(seeds)]
    p99 = [r.quantile(0.99) for r in runs]
    return {
        "mean_seconds": float(np.mean([r.seconds_N.mean() for r in runs])),
        "p99_seconds": float(np.mean(p99)),
        "p99_sd": float(np.std(p99, ddof=1)),
        "duplicates": float(np.mean([r.duplicates for r in runs])) / items,
        "most_share": max(r.most_share for r in runs),
        "work": float(np.mean([r.work for r in runs])) / items,
        "once": all(bool((r.delivered_N == 1).all()) for r in runs),
    }


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    fleets = {
        (load, burst, stop): Fleet(load=load, burst=burst, stop=stop)
        for burst in (30.0, None)
        for stop in (0.0, 1e9)
        for load in (0.3, 0.6, 0.95)
    }
    found = {}
    for key, fleet in tqdm(fleets.items(), disable=None):
        found[key] = {name: measure(fleet, p, args.items, args.seeds) for name, p in POLICIES.items()}
    if args.json:
        print(
            json.dumps(
                [dict(zip(("load", "burst", "stop"), k, strict=True)) | {"policies": v} for k, v in found.items()]
            )
        )
    else:
        for (load, burst, stop), by in found.items():
            memory = "without memory" if burst is None else f"in bursts of {burst:g}"
            goes_on = "goes on with" if stop else "ends"
            print(
                f"\nload {load:.0%}, slow {memory}, the fleet {goes_on} what is cancelled; {args.items:,} items, {args.seeds} seeds"
            )
            for name, f in by.items():
                print(
                    f"  {name:24} mean {f['mean_seconds']:5.2f} s   p99 {f['p99_seconds']:5.1f} s (± {f['p99_sd']:4.1f})   "
                    f"duplicates {f['duplicates']:6.1%}   work {f['work']:.2f} s an item"
                )
    if not args.check:
        return 0
    missed = []
    for key, by in found.items():
        for name, f in by.items():
            if f["most_share"] > POLICIES[name].late.share or not f["once"]:
                missed.append(f"{name} at {key}: a bound passed, or an item not delivered once")
    busy, quiet = found[0.95, None, 1e9], found[0.3, None, 1e9]
    if busy["no bound, after 3 s"]["p99_seconds"] < 1.2 * busy["none"]["p99_seconds"]:
        missed.append("without a bound a busy fleet is not worse off")
    if busy["5%, after 3 s"]["p99_seconds"] > 1.15 * busy["none"]["p99_seconds"]:
        missed.append("with a bound a busy fleet is worse off")
    if quiet["5%, after 3 s"]["p99_seconds"] > 0.8 * quiet["none"]["p99_seconds"]:
        missed.append("with a bound a quiet fleet gains nothing")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
