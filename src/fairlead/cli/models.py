"""``fairlead models``: list what the catalogue of profiles knows of models."""

from __future__ import annotations

import argparse
from typing import Any

from fairlead import config, profiles
from fairlead.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "models",
        help="list what the catalogue of profiles knows of models",
        description="List the models whose contexts and prices are known, with the source and date of each figure. Prices are in USD per million "
        "tokens; a dash is what nobody knows.",
    )
    parser.add_argument("search", nargs="?", default="", help="show those whose provider/model holds this text")
    parser.add_argument("--config", metavar="FILE", help="with the `profiles` of this config over them")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print one line a model, then notes and sources; 1 if none is found."""
    path = config.load(args.config).file.profiles if args.config else None
    found = [e for e in profiles.load(path) if args.search.lower() in f"{e.provider}/{e.model}".lower()]
    if not found:
        raise ConfigError(f"no model is known whose name holds {args.search!r}; `fairlead models` lists all")
    head = ("model", "in", "cached", "cache write", "out", "context", "most out", "takes", "as of")
    rows: list[tuple[str, ...]] = [head]
    for e in found:
        p = e.profile
        rows.append(
            (
                f"{e.provider}/{e.model}",
                *(
                    "-" if price is None else f"{price:g}"
                    for price in (
                        p.input_usd_per_mtok,
                        p.cached_input_usd_per_mtok,
                        p.cache_write_usd_per_mtok,
                        p.output_usd_per_mtok,
                    )
                ),
                *("-" if n is None else f"{n:,}" for n in (p.context_tokens, p.max_output_tokens)),
                ",".join(sorted(p.modalities)),
                e.as_of or "-",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        cells = [c.ljust(w) if i in (0, 7) else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    notes: dict[str, list[str]] = {}
    for e in found:
        if e.note:
            notes.setdefault(e.note, []).append(e.model)
    if notes:
        print()
    for note, models in notes.items():
        print(f"{', '.join(models)}: {note}")
    print()
    for source in dict.fromkeys(e.source for e in found if e.source):
        print(f"source: {source}")
    return 0
