"""`fairlead store`: look after the store: its size, its chains, what is too old, a copy for analysis."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

from fairlead.cli.trace import settings, when
from fairlead.errors import ChainBroken, ConfigError
from fairlead.sqlstore import SQLStore, kept_at

DAY = 86400.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("store", help="look after the store: size, chains, retention, export")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    info = actions.add_parser("info", help="say what there is, since when, and how large it is")
    info.add_argument("--json", action="store_true", help="print it as JSON")
    info.set_defaults(func=run_info)

    verify = actions.add_parser("verify", help="check that nothing was changed, removed or reordered")
    verify.set_defaults(func=run_verify)

    prune = actions.add_parser("prune", help="delete traces and judgements that are too old; a checkpoint stays")
    prune.add_argument("--days", type=float, help="how old (default: store.retention_days of the config)")
    prune.add_argument("--keep", type=int, default=0, help="newest traces that stay whatever their age (default: none)")
    prune.set_defaults(func=run_prune)

    export = actions.add_parser("export", help="write the traces as an outcome table in Parquet")
    export.add_argument("--days", type=float, help="only of the last so many days")
    export.set_defaults(func=run_export)

    for action in (info, verify, prune, export):
        action.add_argument(
            "config",
            nargs="?",
            default="fairlead.yaml",
            help="the config that names the store, or the store's file or postgresql:// URL (default: %(default)s)",
        )
    export.add_argument("out", metavar="OUT", type=Path, help="the file to write, ending in .parquet")


def run_info(args: argparse.Namespace) -> int:
    """Print one line a fact."""
    store = _reader(args)
    try:
        told = store.info()
        points = store.checkpoints()
    finally:
        store.stop()
    if args.json:
        print(json.dumps({**told, "head": told["head"]}, indent=2))
        return 0
    print(f"{told['kind']} {told['version']}, schema {told['schema']}, {told['bytes'] / 1e6:.1f} MB: {told['at']}")
    since = f", {when(told['first'])} to {when(told['last'])}" if told["first"] is not None else ""
    print(f"{told['traces']} traces, {told['feedback']} judgements{since}")
    print(f"routes with learned state: {', '.join(told['routes']) or 'none'}")
    for name, point in sorted(points.items()):
        print(f"forgotten: {point.seq} rows of {name}, the last time {when(point.at)}")
    print(f"head {told['head']}")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Print what was checked, or what is wrong."""
    store = _reader(args)
    try:
        n = store.verify()
        points = store.checkpoints()
        head = store.head()
    except ChainBroken as e:
        print(f"BROKEN  {e}")
        return 1
    finally:
        store.stop()
    print(f"ok  {n} trace{'s'[n == 1 :]}, head {head}")
    for name, point in sorted(points.items()):
        print(f"    {name}: from row {point.seq + 1} on; those before were forgotten by {when(point.at)}")
    return 0


def run_prune(args: argparse.Namespace) -> int:
    """Delete what is too old, and say how much it was."""
    said = settings(args.config)
    days = said.retention_days if args.days is None else args.days
    if days is None or days <= 0.0:
        raise ConfigError("say how old is too old: --days N, or store.retention_days in the config")
    _reader(args).stop()  # it must be there already
    store = kept_at(said.where, outage="refuse")
    store.start()
    try:
        gone = store.forget(before=time.time() - DAY * days, keep=args.keep)
        left = store.count()
    finally:
        store.stop()
    print(f"forgot {gone.traces} traces and {gone.feedback} judgements; {left} traces are left")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write the table, and say how long it is."""
    from fairlead.bench.store_table import export

    store = _reader(args)
    since = -math.inf if args.days is None else time.time() - DAY * args.days
    try:
        n = export(store, args.out, since=since)
    finally:
        store.stop()
    print(f"{n} rows in {args.out}")
    return 0


def _reader(args: argparse.Namespace) -> SQLStore:
    store = settings(args.config).make(read_only=True)
    store.start()
    return store
