"""``fairlead bench``: compare routers, cascades and baselines on a table of recorded outcomes."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from fairlead import catalog
from fairlead.errors import TableError, suggest


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "bench",
        help="compare routers and baselines on recorded outcomes",
        description="Fit choosers on some queries of an outcome table, judge them on the others, and show them beside their "
        "baselines with 95% intervals. Nothing is judged on a query that it was trained on.",
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help="outcome table (.parquet, .csv, .jsonl)")
    add(
        "--predictor",
        action="append",
        metavar="NAME",
        help="predictor to fit and sweep (repeat; default: mean, knn, forest)",
    )
    add(
        "--policy",
        action="append",
        metavar="NAME",
        default=[],
        help="policy that learns online, such as lin_ucb (repeat)",
    )
    add("--model", metavar="DIR", help="judge a predictor that `fairlead train` wrote, on every query of the table")
    add("--skip-seen", action="store_true", help="with --model: leave out queries that it was trained on")
    add("--signals", metavar="NAME,…", help="signals that predictors learn from (default: ngrams,style,length,marks)")
    add("--split", default="5-fold", help="5-fold, column, or a test share such as 0.2 (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--models", metavar="NAME,…", help="only these models")
    add("--cost-column", metavar="NAME", help="take costs from this column, not cost_usd")
    add(
        "--confidence-column",
        metavar="NAME",
        help="also try cascades that read this column (default: confidence_logprob where the table has it; none: no cascades)",
    )
    add(
        "--confidence-cost-column",
        metavar="NAME",
        help="costs of a call whose confidence is read, if asking costs extra (such as cost_usd_logged)",
    )
    add(
        "--prices",
        metavar="FILE",
        help="CSV of model, usd_per_m_input, usd_per_m_output: model costs that were not recorded",
    )
    add("--output-tokens", type=float, default=200.0, help="answer length assumed with --prices (default: %(default)g)")
    add("--resamples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)")
    add("--plot", metavar="PNG", help="draw the cost-quality plane")
    add("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    import msgspec
    import numpy as np

    from fairlead.bench.chains import ConfidenceColumns
    from fairlead.bench.evaluate import Entrant, evaluate, priced, seen
    from fairlead.bench.report import plot, report, to_json, to_text
    from fairlead.bench.training import load
    from fairlead.build import TRAINED
    from fairlead.table import OutcomeTable

    table = OutcomeTable.read(args.table)
    if args.models:
        table = table.with_models(args.models.split(","))
    notes = [table.describe_missing()]
    if args.cost_column:
        table = table.with_usd(table.extra(args.cost_column))
        notes.append(f"costs are those of the column {args.cost_column}")
    if args.prices:
        table = priced(table, read_prices(args.prices), output_tokens=args.output_tokens)
        notes.append(
            f"costs are modelled from prices, with recorded token counts where there are any, else a quarter token per character "
            f"in and {args.output_tokens:g} tokens out"
        )
    elif np.isnan(table.usd_QM).all():
        notes.append("no costs are known, so only quality is compared; give --prices FILE to model them")
    split = args.split
    if args.model:
        predictor, known = load(args.model)
        both = seen(table, known.ids, known.prompts)
        if len(both) and not args.skip_seen:
            raise TableError(
                f"{len(both)} of {len(table)} queries were trained on by {args.model}, and would flatter it; "
                "leave them out with --skip-seen"
            )
        if len(both) == len(table):
            raise TableError(f"every query of the table was trained on by {args.model}; bring others")
        if len(both):
            table = table.take(np.setdiff1d(np.arange(len(table)), both))
            notes.append(f"{len(both)} queries were trained on by {args.model} and are left out")
        unknown = sorted(set(table.models) - set(predictor.targets_))
        if len(unknown) == len(table.models):
            raise TableError(f"{args.model} knows none of the table's models; it knows {', '.join(predictor.targets_)}")
        if unknown:
            notes.append(f"{args.model} has not seen {', '.join(unknown)}, and forecasts them blindly")
        if (Path(args.model) / TRAINED["policies"][0]).exists():
            raise TableError(
                f"{args.model} holds a portfolio over plans, which one predictor alone does not show; judge it as it is trained: "
                "fairlead bench TABLE --predictor forest --confidence-column COLUMN shows `cascade x forest`"
            )
        if args.policy or args.predictor:
            raise TableError("--model judges a trained predictor as it is; bench others in a second run")
        routers, split = [Entrant(name=predictor.type_name(), trained=predictor)], "none"
    else:
        features = {"features": {"type": "features", "signals": args.signals.split(",")}} if args.signals else {}
        routers = [
            Entrant(name=n, spec={"type": n, **({} if n == "mean" else features)})
            for n in (args.predictor or ["mean", "knn", "forest"])
        ]
    for name in args.policy:
        catalog.find("policies", name)
    confidence = None
    column, usd_column = args.confidence_column, args.confidence_cost_column
    if column is None and not args.model and "confidence_logprob" in table.extras:
        column = "confidence_logprob"
        if usd_column is None and "cost_usd_logged" in table.extras:
            usd_column = "cost_usd_logged"
        charged = f", calls whose confidence is read charged by {usd_column}" if usd_column else ""
        notes.append(f"cascades read {column}{charged}")
    if column is not None and column != "none":
        confidence = ConfidenceColumns(column=column, usd_column=usd_column)
        table.extra(column)
        if args.model:
            raise TableError("cascades are chosen on training queries; bench them without --model")
    with _Bar() as bar:
        result = evaluate(
            table,
            routers=routers,
            policies={n: {"type": n} for n in args.policy},
            confidence=confidence,
            split=split,
            seed=args.seed,
            progress=bar,
        )
    result = msgspec.structs.replace(result, notes=(*notes, *result.notes))
    found = report(result, resamples=args.resamples)
    print(to_json(found).decode() if args.json else to_text(found))
    if args.plot:
        plot(result, args.plot)
        print(f"plot: {args.plot}", file=sys.stderr)
    return 0


def read_prices(path: str) -> dict[str, tuple[float, float]]:
    """Read USD per million input and output tokens by model. Where a model has several rows, the first counts.

    Raises:
        TableError: if it cannot be read, a column is missing or a price is not a number.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as e:
        raise TableError(f"cannot read {path}: {e.strerror}") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise TableError(f"{path} is not a CSV file in UTF-8") from e
    out: dict[str, tuple[float, float]] = {}
    for n, row in enumerate(rows, 2):
        for column in ("model", "usd_per_m_input", "usd_per_m_output"):
            if column not in row:
                raise TableError(f"{path}: no column {column!r} ({suggest(column, [k for k in row if k])})")
        try:
            price = float(row["usd_per_m_input"]), float(row["usd_per_m_output"])
        except (TypeError, ValueError) as e:
            raise TableError(f"{path}: line {n}: a price is not a number") from e
        out.setdefault(row["model"], price)
    return out


class _Bar:
    """A progress line on stderr, shown on a terminal only and gone at the end."""

    def __enter__(self) -> _Bar:
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(leave=False, file=sys.stderr, bar_format="{desc} {elapsed}")
        return self

    def __call__(self, done: str) -> None:
        if self.bar is not None:
            self.bar.set_description_str(f"done: {done}")

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
