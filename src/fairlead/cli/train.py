"""``fairlead train``: fit a predictor on a table of recorded outcomes and keep it in a folder."""

from __future__ import annotations

import argparse
import json
from typing import Any

import yaml

from fairlead import catalog
from fairlead.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "train",
        help="fit a predictor on a table of recorded outcomes",
        description="Fit a predictor on an outcome table (.parquet, .csv, .jsonl: one row per query and model) and write it to a "
        "folder, together with what it was trained on.",
    )
    parser.add_argument(
        "table", metavar="TABLE", help="outcome table with at least query_id, model, quality and prompt"
    )
    parser.add_argument("--predictor", default="knn", choices=catalog.names("predictors"), help="default: %(default)s")
    parser.add_argument(
        "--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="an argument of the predictor"
    )
    parser.add_argument("--signals", metavar="NAME,…", help="signals to learn from (default: embedding,length,marks)")
    parser.add_argument(
        "--only-split", metavar="NAME", help="use only queries whose column `split` says so, such as train"
    )
    parser.add_argument("--models", metavar="NAME,…", help="only these models")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Train and save."""
    import msgspec

    from fairlead.bench.training import save, train
    from fairlead.table import OutcomeTable

    table = OutcomeTable.read(args.table)
    if args.models:
        table = table.with_models(args.models.split(","))
    if args.only_split is not None:
        rows = [i for i, s in enumerate(table.splits) if s == args.only_split]
        if not rows:
            found = ", ".join(sorted({str(s) for s in table.splits}))
            raise ConfigError(f"no query has the split {args.only_split!r}; there are: {found}", path="--only-split")
        table = table.take(rows)
    spec = {"type": args.predictor, **settings(args.settings)}
    if args.signals:
        spec["features"] = {"type": "features", "signals": args.signals.split(",")}
    predictor, manifest, seen = train(table, spec)
    save(args.output, predictor, manifest, seen)
    if args.json:
        print(json.dumps(msgspec.to_builtins(manifest), indent=2))
    else:
        print(
            f"{args.predictor} fitted on {manifest.queries:,} queries and {len(manifest.models)} models in "
            f"{manifest.fit_seconds:.1f} s ({table.describe_missing()}); written to {args.output}\n"
            f"judge it: fairlead bench OTHER_TABLE --model {args.output}"
        )
    return 0


def settings(pairs: list[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs; values are YAML.

    Raises:
        ConfigError: if one is not a pair.
    """
    out = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{pair!r} is not KEY=VALUE", path="--set")
        try:
            out[key] = yaml.safe_load(value)
        except yaml.YAMLError as e:
            raise ConfigError(f"{pair!r}: the value is not YAML", path="--set") from e
    return out
