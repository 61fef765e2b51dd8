"""What do rules cost, to evaluate and to prove? Measured on rules made at random, over the signals of a real config.

    python benchmarks/rules.py [--seed 0] [--repeats 2000] [--json] [--check]

Evaluation, in microseconds a decision: `typical` rules are conjunctions over random readings (most fail early); `worst` ones are
made for one reading so that every leaf of every rule is evaluated and none holds. The decision around it (options, reasons, record) is the
same for every policy and told apart. Lint, in seconds: 100 rules of 5 leaves, half of them nested, priorities stated and equal, so that every
pair is asked about. Medians with the 5% and 95% quantiles over repeats. Must: 100 rules of 5 leaves in under 100 us at worst, lint in
under 5 s of CPU (the machine may be shared; the wall is told too).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter, process_time
from typing import Any

import numpy as np

from fairlead import config
from fairlead.conditions import holds, parse
from fairlead.lint import lint
from fairlead.policies.rules import Rules
from fairlead.pool import Pool
from fairlead.signals.base import Observer, Range
from fairlead.types import Query, Signals, Target

SIGNALS = ("length", "marks", "language", "conversation", "keyword")
TARGETS = tuple(f"model{i}" for i in range(8))
MUST_EVALUATE_US, MUST_LINT_S = 100.0, 5.0
TEXTS = (
    "What is the capital of France?",
    "def f(x):\n    return x + 1\n\nWhy does this fail? " + "It worked before. " * 40,
    "Solve for x: 3x + 5 = 20. A) 3 B) 5 C) 7",
    "Is this contract liable? " + "lorem ipsum " * 300,
)


def signals_config() -> dict[str, Any]:
    """Return the part of a config that makes the signals."""
    return {"keyword": {"rules": {"legal": ["contract", "liable"], "medical": ["dose", "symptom"], "money": ["price"]}}}


def make(rules: list[dict[str, Any]]) -> config.Config:
    """Build a config around `rules`."""
    targets = {name: {"type": "scripted"} for name in TARGETS}
    policy = {"type": "rules", "rules": rules, "default": TARGETS[0]}
    return config.make({"targets": targets, "signals": signals_config(), "routes": {"auto": {"policy": policy}}})


def keys_of(observer: Observer) -> dict[str, Range]:
    """Return every key that a rule may test, with its range."""
    return {
        name if part == "value" else f"{name}.{part}": allowed
        for name in SIGNALS
        for part, allowed in observer.signals[name].ranges().items()
    }


def leaf(r: random.Random, key: str, allowed: Range) -> dict[str, Any]:
    """Make one test that can pass and can fail."""
    match allowed.kind:
        case "bool":
            return {key: r.random() < 0.5}
        case "string" if allowed.among:
            return {key: {"in": r.sample(list(allowed.among), min(3, len(allowed.among)))}}
        case "string":
            return {key: r.choice("abc")}
        case "int":
            return {key: {r.choice(["gt", "le"]): r.randrange(0, int(allowed.high or 2000))}}
    return {key: {r.choice(["gt", "lt"]): round(r.uniform(0.05, 0.95), 2)}}


def at_random(r: random.Random, keys: dict[str, Range], leaves: int, *, nested: bool) -> dict[str, Any]:
    """Make a condition of `leaves` tests on different keys; if `nested`, an ``any`` and a ``not`` are in it."""
    found = [leaf(r, key, keys[key]) for key in r.sample(list(keys), leaves)]
    if nested and leaves >= 4:
        return {"all": [*found[3:], {"any": found[:2]}, {"not": found[2]}]}
    return {"all": found}


def at_worst(r: random.Random, keys: dict[str, Range], leaves: int, signals: Signals) -> dict[str, Any]:
    """Make a condition of which every test is evaluated on `signals`, and which does not hold: an ``all`` whose last test fails, or an
    ``any`` whose every test fails."""
    passing = r.random() < 0.5
    found: list[dict[str, Any]] = []
    while len(found) < leaves:
        test = leaf(r, key := r.choice(list(keys)), keys[key])
        if holds(parse(test), signals) == (passing and len(found) < leaves - 1):
            found.append(test)
    return {"all" if passing else "any": found}


def timed(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return the median time of a call in microseconds, and its quantiles; the first tenth of the calls is for warming up."""
    taken = []
    for i in range(repeats + repeats // 10):
        start = perf_counter()
        run()
        if i >= repeats // 10:
            taken.append(perf_counter() - start)
    low, median, high = np.quantile(taken, [0.05, 0.5, 0.95]) * 1e6
    return {"us": float(median), "low": float(low), "high": float(high)}


def first(policy: Rules, signals: Signals) -> object:
    """Find the rule that decides."""
    return next(policy.standing(signals), None)


def first_read(policy: Rules, signals: Signals) -> object:
    """Find it by reading the conditions' trees, for comparison."""
    return next((rule for rule in policy.ordered if holds(rule.when, signals)), None)


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 where a must is missed")
    args = parser.parse_args()
    r = random.Random(args.seed)
    built = make([])
    observer = Observer(signals=built.signals)
    keys = keys_of(observer)
    readings = [observer.read(Query.ask(text), SIGNALS) for text in TEXTS]
    pool = Pool(targets=(Target(name=name) for name in TARGETS))
    query = Query.ask(TEXTS[0], id="q")
    rows: list[dict[str, Any]] = []
    for rules, leaves in ((10, 3), (100, 5)):
        for case in ("typical", "worst"):
            signals = readings[1]
            when = [
                at_worst(r, keys, leaves, signals)
                if case == "worst"
                else at_random(r, keys, leaves, nested=bool(i % 2))
                for i in range(rules)
            ]
            policy = Rules(rules=[{"when": w, "use": r.choice(TARGETS)} for w in when], default=TARGETS[0])
            if case == "worst" and list(policy.standing(signals)):
                raise AssertionError("a rule holds: not the worst case")
            row: dict[str, Any] = {"rules": rules, "leaves": leaves, "case": case}
            row["evaluate"] = timed(partial(first, policy, signals), args.repeats)
            row["interpreted"] = timed(partial(first_read, policy, signals), args.repeats // 10)
            row["decide"] = timed(partial(policy.decide, query, signals, pool), args.repeats)
            rows.append(row)
    linted: list[dict[str, Any]] = []
    for case in ("conjunctions", "half of them nested"):
        rules_ = [
            {
                "when": at_random(r, keys, 5, nested=case != "conjunctions" and bool(i % 2)),
                "use": r.choice(TARGETS),
                "priority": 1,
            }
            for i in range(100)
        ]
        read = make(rules_)
        start, start_cpu = perf_counter(), process_time()
        report = lint(read)
        linted.append(
            {
                "case": case,
                "seconds": perf_counter() - start,
                "cpu_seconds": process_time() - start_cpu,
                "conflicts": sum(f.kind == "conflict" for f in report.findings),
                "findings": len(report.findings),
            }
        )
    missed = []
    worst = next(x for x in rows if x["rules"] == 100 and x["case"] == "worst")["evaluate"]["us"]
    if worst >= MUST_EVALUATE_US:
        missed.append(f"100 rules of 5 leaves take {worst:.0f} us at worst, not under {MUST_EVALUATE_US:.0f}")
    slowest = max(x["cpu_seconds"] for x in linted)
    if slowest >= MUST_LINT_S:
        missed.append(f"lint takes {slowest:.1f} s of CPU, not under {MUST_LINT_S:.0f}")
    if args.json:
        print(json.dumps({"evaluation": rows, "lint": linted, "missed": missed}, indent=2))
    else:
        print("rules x leaves   case      evaluate, us [5%, 95%]     tree read each time, us   whole decision, us")
        for x in rows:
            e = x["evaluate"]
            print(
                f"{x['rules']:5} x {x['leaves']}        {x['case']:8}  {e['us']:7.1f} [{e['low']:6.1f}, {e['high']:6.1f}]"
                f"   {x['interpreted']['us']:15.1f}   {x['decide']['us']:20.1f}"
            )
        for x in linted:
            print(
                f"lint, 100 x 5, {x['case']}: {x['seconds']:.2f} s ({x['cpu_seconds']:.2f} of CPU), {x['findings']} findings, {x['conflicts']} of them conflicts"
            )
        for said in missed:
            print(f"MISSED: {said}")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
