"""``fairlead guards``: what each guard costs in quality, money and time, and how often it fires wrongly."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "guards",
        help="judge a config's guards and its routing together on recorded outcomes",
        description="Route the queries of an outcome table as a config says, with all guards, without any, and without each: what a guard "
        "costs in quality, USD and time, what it refuses, and (with --truth) how often it fires wrongly or misses.",
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="config whose targets have the names of the table's models")
    add("table", metavar="TABLE", help="outcome table with prompts (.parquet, .csv, .jsonl)")
    add("--route", default="auto", help="default: %(default)s")
    add(
        "--truth",
        metavar="GUARD=COLUMN",
        action="append",
        default=[],
        help="numeric column that is not 0 where the guard ought to fire (repeat)",
    )
    add("--resamples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Replay and print."""
    import msgspec

    from fairlead.bench.guarding import judge, to_text
    from fairlead.config import load
    from fairlead.errors import FairleadError
    from fairlead.table import OutcomeTable

    truth = {}
    for pair in args.truth:
        name, equals, column = pair.partition("=")
        if not equals:
            raise FairleadError(f"--truth takes GUARD=COLUMN, not {pair!r}")
        truth[name] = column
    found = judge(
        load(args.config),
        OutcomeTable.read(args.table),
        route=args.route,
        truth=truth,
        resamples=args.resamples,
        seed=args.seed,
    )
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() if args.json else to_text(found))
    return 0
