"""``fairlead train``: fit a predictor on a table of recorded outcomes and keep it in a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fairlead import catalog
from fairlead.errors import ConfigError

if TYPE_CHECKING:
    from fairlead.types import Target


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
    parser.add_argument(
        "--predictor", default="forest", choices=catalog.names("predictors"), help="default: %(default)s"
    )
    parser.add_argument(
        "--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="an argument of the predictor"
    )
    parser.add_argument(
        "--signals", metavar="NAME,…", help="signals to learn from (default: ngrams,style,length,marks)"
    )
    parser.add_argument(
        "--only-split", metavar="NAME", help="use only queries whose column `split` says so, such as train"
    )
    parser.add_argument(
        "--profiles", metavar="FILE", help="a config whose targets' profiles the predictor may read (for `profile`)"
    )
    parser.add_argument("--models", metavar="NAME,…", help="only these models")
    parser.add_argument(
        "--confidence-column",
        metavar="COLUMN",
        help="forecast cascades too, which read this column, and write the policy `portfolio` over all plans",
    )
    parser.add_argument(
        "--confidence-cost-column",
        metavar="COLUMN",
        help="cost in USD of an answer with its confidence, if that costs more",
    )
    parser.add_argument(
        "--accept",
        choices=("mean_logprob", "confidence"),
        help="what a live answer is tested by against the column's thresholds: the mean log-probability of its tokens, or a confidence "
        "that comes with it, as a vote's does (default: mean_logprob if the column's name has logprob in it; else you must say)",
    )
    parser.add_argument(
        "--usd-weight",
        type=float,
        default=0.0,
        metavar="W",
        help="with --confidence-column: what a dollar weighs in the policy's objective",
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Train and save."""
    import msgspec

    from fairlead.bench.training import save, save_policy, train
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
    plans: dict[str, Any] = {}
    if args.confidence_column:
        table, plans = _planned(table, args)
    predictor, manifest, seen = train(table, spec, targets=_profiled(args.profiles))
    save(args.output, predictor, manifest, seen)
    if plans:
        from fairlead.objective import Objective
        from fairlead.policies.portfolio import Portfolio

        policy = Portfolio(predictor=predictor, plans=plans, objective=Objective(usd_weight=args.usd_weight))
        save_policy(args.output, policy, seen)
    if args.json:
        print(json.dumps(msgspec.to_builtins(manifest), indent=2))
    else:
        print(
            f"{args.predictor} fitted on {manifest.queries:,} queries and {len(manifest.models)} {'plans' if plans else 'models'} in "
            f"{manifest.fit_seconds:.1f} s ({table.describe_missing()}); written to {args.output}\n"
            + (
                f"the policy over {len(plans)} plans: {{trained: {args.output}}}"
                if plans
                else f"judge it: fairlead bench OTHER_TABLE --model {args.output}"
            )
        )
    return 0


def _planned(table: Any, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the table of plans, cascades among them, and the plans by name."""
    import numpy as np

    from fairlead.bench import chains
    from fairlead.bench.evaluate import weights

    accept: chains.LiveTest | None = args.accept or ("mean_logprob" if "logprob" in args.confidence_column else None)
    if accept is None:
        raise ConfigError(
            f"a live target reports no {args.confidence_column!r}: say what its answers are tested by, mean_logprob or confidence",
            path="--accept",
        )
    confidence = chains.ConfidenceColumns(column=args.confidence_column, usd_column=args.confidence_cost_column)
    table = table.take(np.flatnonzero(chains.confident(table, confidence)))
    found = chains.worthwhile(table, confidence, weights(table, levels=12))
    return chains.as_table(table, found, confidence), {
        c.label(table.models): c.plan(table.models, accept=accept) for c in found
    }


def _profiled(path: str | None) -> list[Target]:
    """Return the targets of a config."""
    if path is None:
        return []
    from fairlead import config

    # Routes may name a trained predictor that is only now being made: only the targets are built.
    try:
        data = config.parse(Path(path).read_text("utf-8"), name=path)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", path="--profiles") from e
    targets = data.get("targets") if isinstance(data, dict) else None
    return [d.target for d in config.make({"targets": targets or {}, "routes": {}}).drivers.values()]


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
