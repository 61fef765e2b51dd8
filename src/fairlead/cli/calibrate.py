"""``fairlead calibrate``: find what a route's promise can keep, on recorded outcomes, and keep it in a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairlead.errors import ConfigError, TableError, UnknownName


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "calibrate",
        help="find what a route's promise can keep, on recorded outcomes",
        description="Take the policy of a route whose type is `promise` (or that holds one), test on an outcome table what it can keep, "
        "and write it to a folder that the config then names: `policy: {trained: DIR}`. The table must hold other queries than those "
        "that the policy's predictor was trained on.",
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help="outcome table (.parquet, .csv, .jsonl) with the quality of every target")
    add("--config", default="fairlead.yaml", metavar="FILE", help="default: %(default)s")
    add("--route", default="auto", help="default: %(default)s")
    add("--only-split", metavar="NAME", help="use only queries whose column `split` says so")
    add("--skip-seen", action="store_true", help="leave out queries that the predictor was trained on")
    add("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    add("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate, save, and say what is promised."""
    import msgspec
    import numpy as np

    from fairlead import config
    from fairlead.bench.evaluate import seen
    from fairlead.bench.training import Seen, read_seen, save_policy
    from fairlead.policies.promise import Promise
    from fairlead.signals.base import Observer
    from fairlead.table import OutcomeTable

    made = config.load(args.config)
    if args.route not in made.policies:
        raise ConfigError(str(UnknownName("route", args.route, made.policies)), path="--route")
    policy = made.policies[args.route]
    promises = [part for _, part in policy.walk() if isinstance(part, Promise)]
    if len(promises) != 1:
        raise ConfigError(
            f"the policy of route {args.route!r} holds {len(promises)} promises, not one; write "
            "{type: promise, predictor: {trained: DIR}} there",
            path=f"$.routes.{args.route}.policy",
        )
    (promise,) = promises
    table = OutcomeTable.read(args.table)
    rows = np.arange(len(table))
    if args.only_split is not None:
        rows = np.asarray([i for i, s in enumerate(table.splits) if s == args.only_split], dtype=np.int64)
        if not len(rows):
            found = ", ".join(sorted({str(s) for s in table.splits}))
            raise ConfigError(f"no query has the split {args.only_split!r}; there are: {found}", path="--only-split")
    known = [read_seen(f) for f in folders(made.file.routes[args.route].policy, Path(args.config).parent)]
    ids, prompts = ({v for k in known for v in getattr(k, name)} for name in ("ids", "prompts"))
    both = np.intersect1d(rows, seen(table, ids, prompts))
    if len(both) and not args.skip_seen:
        raise TableError(
            f"{len(both)} of {len(rows)} queries were trained on by the predictor: a promise tested on them is worth nothing; "
            "leave them out with --skip-seen, or bring others"
        )
    table = table.take(np.setdiff1d(rows, both))
    table = table.observed(Observer(signals=made.signals), promise.needs)
    promise.calibrate(table, [d.target for d in made.drivers.values()])
    now = Seen(
        ids=tuple(sorted(ids | set(table.query_ids))),
        prompts=tuple(sorted(prompts | {h for h in table.prompt_hashes if h is not None})),
    )
    save_policy(args.output, policy, now)
    told = {
        "reference": promise.reference_,
        "targets": list(promise.targets_),
        "keep": promise.keep,
        "confidence": promise.confidence,
        "weight": promise.weight_,
        **promise.figures_,
    }
    if args.json:
        print(json.dumps(msgspec.to_builtins(told), indent=2))
        return 0
    queries, of = promise.figures_["queries"], promise.figures_["rows"]
    tested = f"{queries:,.0f} queries" + (f" ({of:,.0f} rows; equal prompts count once)" if of > queries else "")
    if not promise.weight_:
        print(
            f"nothing that saves {promise.minimise} could be shown to keep {promise.keep:.0%} of {promise.reference_}'s quality with "
            f"{promise.confidence:.0%} confidence on {tested}: {promise.reference_} will serve alone. More queries, a better "
            f"predictor or a lower `keep` may help; written to {args.output}"
        )
    else:
        print(
            f"promised: at least {promise.keep:.0%} of {promise.reference_}'s quality with {promise.confidence:.0%} confidence, tested on "
            f"{tested}\nthere: {promise.figures_['quality']:.1%} of its quality at {promise.figures_['amount']:.1%} of its "
            f"{promise.minimise} (forecast), with {promise.explore:.0%} of the queries that go to {promise.reference_} to watch over it\n"
            f"written to {args.output}; serve it: routes: {{{args.route}: {{policy: {{trained: {args.output}}}}}}}"
        )
    return 0


def folders(data: Any, start: Path) -> Iterator[Path]:
    """Yield the folders of trained parts that a policy's config names."""
    match data:
        case {"trained": str(path)} if len(data) == 1:
            yield start / path
        case dict():
            for value in data.values():
                yield from folders(value, start)
        case list() | tuple():
            for value in data:
                yield from folders(value, start)
