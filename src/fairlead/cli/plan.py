"""``fairlead plan``: what plans would have brought on recorded outcomes, against single calls at equal cost."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.errors import ConfigError, TableError

if TYPE_CHECKING:
    from fairlead.bench.planning import Row
    from fairlead.targets.gate import Gate
    from fairlead.types import Plan


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "plan",
        help="judge plans on recorded outcomes, against single calls at equal cost",
        description="Run plans on an outcome table: each call gets the outcome that is recorded for its target and sample. Shown are quality, cost, "
        "calls and time, and the gain over mixing single calls at the same mean cost, with 95% intervals. A table holds no replies to prompts "
        "that a plan writes (to a judge, a merger): such calls fail, and the count of failures is shown.",
    )
    add = parser.add_argument
    add("plans", metavar="FILE", help="YAML: one plan (with a `kind`), or plans by name")
    add("table", metavar="TABLE", help="outcome table with prompts (.parquet, .csv, .jsonl)")
    add("--confidence-column", metavar="COLUMN", help="confidence that plans may read, such as confidence_logprob")
    add(
        "--confidence-cost-column",
        metavar="COLUMN",
        help="cost in USD of an answer with its confidence, if that costs more",
    )
    add(
        "--gate",
        metavar="NAME=DIR",
        action="append",
        default=[],
        help="a gate that plans name, and the folder of its trained predictor (repeat); queries it was trained on are left out",
    )
    add("--max-calls", type=int, help="limit of each run")
    add("--resamples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Replay and print."""
    import msgspec
    import numpy as np

    from fairlead.bench.evaluate import complete
    from fairlead.bench.planning import compare, measure
    from fairlead.table import OutcomeTable
    from fairlead.types import UNLIMITED, Limits, Outcome
    from fairlead.worlds.replay import LookUp
    from fairlead.worlds.tabled import Beside, Tabled

    plans = read_plans(args.plans)
    gates, seen = _gates(args.gate)
    table = OutcomeTable.read(args.table)
    unknown = sorted({t for plan in plans.values() for t in plan.targets()} - {*table.models, *gates})
    if unknown:
        raise ConfigError(
            f"nothing is recorded of {', '.join(unknown)}; the table has {', '.join(table.models)}, and gates are named by --gate"
        )
    if clash := sorted({*gates} & {*table.models}):
        raise ConfigError(f"gates have names of the table's models: {', '.join(clash)}", path="--gate")
    table, dropped = complete(table)
    if seen[0] or seen[1]:
        from fairlead.bench.evaluate import seen as trained_on

        known = trained_on(table, *seen)
        table, dropped = table.take(np.setdiff1d(np.arange(len(table)), known)), dropped + len(known)
    if not len(table):
        raise TableError("no query is left: all have unknown outcomes, or the gates were trained on them")
    queries = list(table.queries())
    column, usd_column = args.confidence_column, args.confidence_cost_column
    usd_columns = dict.fromkeys(table.models, usd_column) if usd_column else None

    def look_up(q: int) -> LookUp:
        tabled = Tabled(table, q, confidence_column=column, usd_columns=usd_columns)
        if not gates:
            return tabled
        return Beside(tabled, {name: gate.answer(queries[q]) for name, gate in gates.items()})

    def grade(_: int, outcome: Outcome) -> float:
        return 0.0 if outcome.quality is None else outcome.quality

    limits = UNLIMITED if args.max_calls is None else Limits(calls=args.max_calls)
    found = measure(
        plans,
        table.models,
        queries,
        look_up=look_up,
        look_up_single=lambda q: Tabled(table, q),
        grade=grade,
        limits=limits,
    )
    rows = compare(found, resamples=args.resamples, seed=args.seed, groups_Q=table.groups)
    if args.json:
        data = {"queries": len(queries), "left_out": dropped, "rows": rows}
        print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())
        return 0
    print(f"{len(queries):,} queries of {table.source}" + (f", {dropped:,} left out" if dropped else ""))
    if usd_column:
        print(
            f"every call of a plan is charged by {usd_column}, whether its confidence is read or not; single calls are not"
        )
    print(to_text(rows))
    return 0


def read_plans(path: str) -> dict[str, Plan]:
    """Read one plan, or plans by name, from a YAML file.

    Raises:
        ConfigError: if there are none, or one is wrong.
    """
    import yaml

    from fairlead.plans.base import decode

    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{path} is not YAML: {e}") from e
    if isinstance(data, Mapping) and isinstance(data.get("kind"), str):
        return {str(data["kind"]): decode(data)}
    if not isinstance(data, Mapping) or not data:
        raise ConfigError(f"{path} must hold a plan with a `kind`, or plans by name")
    return {str(name): decode(plan, path=f"$.{name}") for name, plan in data.items()}


def _gates(pairs: Sequence[str]) -> tuple[dict[str, Gate], tuple[list[str], list[str]]]:
    """Return gates by name, and the ids and prompt hashes that they were trained on."""
    from fairlead.bench.training import load
    from fairlead.targets.gate import Gate

    gates: dict[str, Gate] = {}
    ids: list[str] = []
    hashes: list[str] = []
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"{pair!r} is not NAME=DIR", path="--gate")
        predictor, seen = load(folder)
        gates[name] = Gate(name=name, predictor=predictor)
        ids += seen.ids
        hashes += seen.prompts
    return gates, (ids, hashes)


def to_text(rows: Sequence[Row]) -> str:
    """Lay rows out for people."""
    width = max(len(r.name) for r in rows)
    head = f"{'':<{width}}  {'quality':>22}  {'USD':>11}  {'calls':>5}  {'seconds':>8}  {'99%':>8}  {'failed':>6}  gain over mixing single calls"
    lines = [head]
    for r in rows:
        quality = f"{r.quality.value:.4f} [{r.quality.low:.3f}, {r.quality.high:.3f}]"
        gain = f"{r.gain.value:+.4f} [{r.gain.low:+.4f}, {r.gain.high:+.4f}]"
        lines.append(
            f"{r.name:<{width}}  {quality:>22}  {r.usd:>11.7f}  {r.calls:>5.2f}  {r.seconds:>8.4f}  {r.slow_seconds:>8.4f}  "
            f"{r.failed:>6.1%}  {gain}"
        )
    lines += [
        f"{r.name}: {r.unknown:.0%} of its calls are not in the table; they failed and cost nothing here, so this says little of it"
        for r in rows
        if r.unknown > 0.0
    ]
    return "\n".join(lines)
