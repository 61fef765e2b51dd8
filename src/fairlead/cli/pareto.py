"""``fairlead pareto``: show what quality a predictor attains at what cost, and the weight of a dollar for each."""

from __future__ import annotations

import argparse
from typing import Any

from fairlead import catalog


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "pareto",
        help="show what quality a predictor attains at what cost, and the weight of a dollar for each",
        description="Fit a predictor on folds of an outcome table, judge it on the others at every weight of a dollar, and print the "
        "cost-quality frontier with intervals. The weight of the row you like is `usd_weight` in a config.",
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help="outcome table (.parquet, .csv, .jsonl) with costs")
    add("--predictor", default="forest", choices=catalog.names("predictors"), help="default: %(default)s")
    add("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="an argument of the predictor")
    add("--signals", metavar="NAME,…", help="signals to learn from (default: ngrams,style,length,marks)")
    add("--models", metavar="NAME,…", help="only these models")
    add(
        "--prices",
        metavar="FILE",
        help="CSV of model, usd_per_m_input, usd_per_m_output: model costs that were not recorded",
    )
    add("--output-tokens", type=float, default=200.0, help="answer length assumed with --prices (default: %(default)g)")
    add("--split", default="5-fold", help="5-fold, column, or a test share such as 0.2 (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--resamples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    add("--rows", type=int, default=16, help="points printed at most (default: %(default)s)")
    add("--json", action="store_true", help="print every point as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Sweep and print."""
    import msgspec

    from fairlead.bench.evaluate import priced
    from fairlead.bench.frontier import frontier, to_text
    from fairlead.cli.bench import read_prices
    from fairlead.cli.train import settings
    from fairlead.table import OutcomeTable

    table = OutcomeTable.read(args.table)
    if args.models:
        table = table.with_models(args.models.split(","))
    if args.prices:
        table = priced(table, read_prices(args.prices), output_tokens=args.output_tokens)
    spec = {"type": args.predictor, **settings(args.settings)}
    if args.signals:
        spec["features"] = {"type": "features", "signals": args.signals.split(",")}
    found = frontier(table, spec, split=args.split, seed=args.seed, resamples=args.resamples)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(to_text(found, rows=args.rows))
    return 0
