"""``fairlead report``: one self-contained page about a table of outcomes or about a live store."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.errors import ConfigError, TableError, UnknownName

if TYPE_CHECKING:
    from fairlead.bench.evaluate import Entrant
    from fairlead.table import OutcomeTable


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "report",
        help="write one self-contained HTML page about a table or a live store",
        description="From a table: cost and quality, calibration, regret, who is picked, by dataset, what each block of features brings, time to "
        "decide. From a store: requests, spending, picks over time, judged quality, forecasts against judgements, reasons. No prompt text is "
        "in the page, and it loads nothing.",
    )
    add = parser.add_argument
    add("table", nargs="?", metavar="TABLE", help="outcome table (.parquet, .csv, .jsonl)")
    add("--store", metavar="PATH", help="the store of a gateway instead of a table")
    add("--route", metavar="NAME", help="with --store: only this route")
    add("--since", metavar="WHEN", help="with --store: from then on, as 24h, 7d or 2025-01-31 (UTC)")
    add(
        "--predictor",
        action="append",
        metavar="NAME",
        help="predictor to fit and sweep (repeat; default: mean, knn, ridge)",
    )
    add(
        "--policy",
        action="append",
        metavar="NAME",
        default=[],
        help="policy that learns online, such as lin_ucb (repeat)",
    )
    add(
        "--trained",
        metavar="DIR",
        help="a predictor that `fairlead train` wrote, as it is; needs queries it has not seen",
    )
    add("--skip-seen", action="store_true", help="with --trained: leave out queries that it was trained on")
    add(
        "--ablate",
        metavar="NAME",
        help="the predictor whose features are taken apart (default: the first but mean; none: none)",
    )
    add(
        "--usd-weight",
        type=float,
        metavar="W",
        help="quality that a dollar is worth, for regret and the table by dataset",
    )
    add("--signals", metavar="NAME,…", help="signals that predictors learn from (default: ngrams,style,length,marks)")
    add("--split", default="5-fold", help="5-fold, column, or a test share such as 0.2 (default: %(default)s)")
    add("--models", metavar="NAME,…", help="only these models")
    add("--confidence-column", metavar="NAME", help="also show cascades that read this column")
    add(
        "--confidence-cost-column",
        metavar="NAME",
        help="costs of a call whose confidence is read, if asking costs extra",
    )
    add("--cost-column", metavar="NAME", help="take costs from this column, not cost_usd")
    add(
        "--prices",
        metavar="FILE",
        help="CSV of model, usd_per_m_input, usd_per_m_output: model costs that were not recorded",
    )
    add("--output-tokens", type=float, default=200.0, help="answer length assumed with --prices (default: %(default)g)")
    add("--seed", type=int, default=0)
    add("--resamples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    add("--title", default="", help="heading of the page")
    add("-o", "--output", required=True, metavar="HTML", help="the file to write")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Gather, lay out, write."""
    from fairlead.bench.page import render

    if (args.table is None) == (args.store is None):
        raise ConfigError("say what to report on: a TABLE, or --store PATH, one of them")
    page = _table_page(args) if args.store is None else _store_page(args)
    try:
        Path(args.output).write_text(render(page), encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"cannot write {args.output}: {e.strerror}", path="--output") from e
    print(f"{args.output}: {os.path.getsize(args.output) / 1e3:,.0f} kB, {len(page.sections)} sections")
    return 0


def _table_page(args: argparse.Namespace) -> Any:
    import msgspec

    from fairlead.bench.chains import ConfidenceColumns
    from fairlead.bench.page_table import from_table, study

    table, notes = read_table(args)
    table, routers, split, more = entrants(args, table)
    names = [r.name for r in routers]
    if args.ablate not in (None, "none", *names):
        raise UnknownName("predictor to take apart", args.ablate, names)
    confidence = None
    if args.confidence_column:
        table.extra(args.confidence_column)
        confidence = ConfidenceColumns(column=args.confidence_column, usd_column=args.confidence_cost_column)
    first = next((n for n in names if n != "mean"), None)
    found = study(
        table,
        routers,
        policies={n: {"type": n} for n in args.policy},
        confidence=confidence,
        ablate=None if args.ablate == "none" else args.ablate or first,
        usd_weight=args.usd_weight,
        split=split,
        seed=args.seed,
        resamples=args.resamples,
        progress=lambda what: print(f"done: {what}", file=sys.stderr) if sys.stderr.isatty() else None,
    )
    kept = msgspec.structs.replace(found.report, notes=(*notes, *more, *found.report.notes))
    return from_table(msgspec.structs.replace(found, report=kept), title=args.title)


def _store_page(args: argparse.Namespace) -> Any:
    import msgspec

    from fairlead.bench.page_store import from_store
    from fairlead.cli.trace import open_store

    store = open_store(args)
    if args.route is not None and not store.versions(args.route):
        raise ConfigError(
            f"the store has no route or target {args.route!r}; `fairlead state versions` lists the routes",
            path="--route",
        )
    since = None if args.since is None else moment(args.since, now=time.time())
    traces = (t for t in store.traces() if since is None or t.at >= since)
    page = from_store(traces, store.judgements(), source=args.store, route=args.route)
    return msgspec.structs.replace(page, title=args.title) if args.title else page


def moment(text: str, *, now: float) -> float:
    """Read ``24h``, ``90m``, ``7d`` (before now) or a date, with or without a time, in UTC unless it says otherwise; Unix seconds.

    Raises:
        ConfigError: if it is neither.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if ago:
        return now - float(ago[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}[ago[2]]
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as e:
        raise ConfigError(f"{text!r} is no time; write 24h, 7d, 2025-01-31 or 2025-01-31T12:00", path="--since") from e
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def read_table(args: argparse.Namespace) -> tuple[OutcomeTable, list[str]]:
    """Read the table with the models and the costs that were asked for, and notes on them."""
    import numpy as np

    from fairlead.bench.evaluate import priced
    from fairlead.cli.bench import read_prices
    from fairlead.table import OutcomeTable

    table = OutcomeTable.read(args.table)
    notes = []
    if args.models:
        table = table.with_models(args.models.split(","))
    if args.cost_column:
        table = table.with_usd(table.extra(args.cost_column))
        notes.append(f"costs are those of the column {args.cost_column}")
    if args.prices:
        table = priced(table, read_prices(args.prices), output_tokens=args.output_tokens)
        notes.append(
            "costs are modelled from prices, with recorded token counts where there are any, else a quarter token per character in and "
            f"{args.output_tokens:g} tokens out"
        )
    elif np.isnan(table.usd_QM).all():
        notes.append("no costs are known, so only quality is compared; --prices FILE models them")
    return table, notes


def entrants(args: argparse.Namespace, table: OutcomeTable) -> tuple[OutcomeTable, list[Entrant], str, list[str]]:
    """Return the table without queries that a trained predictor has seen, the routers, the split and notes.

    Raises:
        TableError: if a trained predictor has seen queries of the table, and they are not to be skipped.
    """
    import numpy as np

    from fairlead.bench.evaluate import Entrant, seen
    from fairlead.bench.training import load

    if not args.trained:
        features = {"features": {"type": "features", "signals": args.signals.split(",")}} if args.signals else {}
        names = args.predictor or ["mean", "knn", "ridge"]
        routers = [Entrant(name=n, spec={"type": n, **({} if n == "mean" else features)}) for n in names]
        return table, routers, args.split, []
    if args.predictor or getattr(args, "policy", None):
        raise TableError("--trained judges a trained predictor as it is; fit others in a second run")
    predictor, known = load(args.trained)
    both = seen(table, known.ids, known.prompts)
    notes = []
    if len(both) == len(table):
        raise TableError(f"every query of the table was trained on by {args.trained}; bring others")
    if len(both) and not args.skip_seen:
        raise TableError(
            f"{len(both)} of {len(table)} queries were trained on by {args.trained}, and would flatter it; leave them out with --skip-seen"
        )
    if len(both):
        table = table.take(np.setdiff1d(np.arange(len(table)), both))
        notes.append(f"{len(both)} queries were trained on by {args.trained} and are left out")
    return table, [Entrant(name=predictor.type_name(), trained=predictor)], "none", notes
