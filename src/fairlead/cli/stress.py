"""``fairlead stress``: ask recorded queries in other words and see which picks hold."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "stress",
        help="reword recorded queries and see which picks hold",
        description="Reword the queries of an outcome table in six ways (typos, paraphrase, case, order of choices, another language around "
        "them, padding) and compare picks, forecasts and quality with those for the original texts. Out of fold.",
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help="outcome table with prompts (.parquet, .csv, .jsonl)")
    add("--predictor", action="append", metavar="NAME", help="predictor to fit (repeat; default: mean, knn, ridge)")
    add(
        "--trained",
        metavar="DIR",
        help="a predictor that `fairlead train` wrote, as it is; needs queries it has not seen",
    )
    add("--skip-seen", action="store_true", help="with --trained: leave out queries that it was trained on")
    add("--perturbation", action="append", metavar="NAME", help="only this one (repeat)")
    add(
        "--usd-weight",
        type=float,
        metavar="W",
        help="quality that a dollar is worth (default: where picks are most varied)",
    )
    add("--signals", metavar="NAME,…", help="signals that predictors learn from (default: ngrams,style,length,marks)")
    add("--split", default="5-fold", help="5-fold, column, or a test share such as 0.2 (default: %(default)s)")
    add("--queries", type=int, default=1000, metavar="N", help="judge at most so many; 0: all (default: %(default)s)")
    add("--models", metavar="NAME,…", help="only these models")
    add("--cost-column", metavar="NAME", help="take costs from this column, not cost_usd")
    add(
        "--prices",
        metavar="FILE",
        help="CSV of model, usd_per_m_input, usd_per_m_output: model costs that were not recorded",
    )
    add("--output-tokens", type=float, default=200.0, help="answer length assumed with --prices (default: %(default)g)")
    add("--seed", type=int, default=0)
    add("--resamples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    add("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Reword, compare, print."""
    import msgspec

    from fairlead.bench.stress import PERTURBATIONS, stress, to_text
    from fairlead.cli.report import entrants, read_table

    table, notes = read_table(args)
    table, routers, split, more = entrants(args, table)
    found = stress(
        table,
        routers,
        perturbations=tuple(args.perturbation or PERTURBATIONS),
        usd_weight=args.usd_weight,
        split=split,
        queries=args.queries or None,
        seed=args.seed,
        resamples=args.resamples,
    )
    found = msgspec.structs.replace(found, notes=(*notes, *more, *found.notes))
    print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() if args.json else to_text(found))
    return 0
