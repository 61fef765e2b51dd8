"""Guards: how well each finds what it is for, what it costs, how often it is wrong, and what all of them do to routing.

    [FAIRLEAD_DATA=…] python benchmarks/guards.py [--only personal] [--seed 0] [--json] [--check]

Sections, one file each in `corpora/`: `personal` (personal data and secrets, per kind), `injection` (prompt injection and jailbreak, per family, and harmless requests),
`domain` (in-domain accuracy and out-of-domain rejection), `support` (claims that the context does not bear out), `cache` (hits that are
right and hits that are not), `joint` (guards and routing judged together on recorded outcomes). The corpora are generated, with forms held
back from the detectors; intervals resample templates, families or domains. What needs recorded prompts says so and is left out without them. CPU times are of one thread.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from corpora import Section

# Before anything imports numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

SECTIONS = ("personal", "injection", "domain", "support", "cache", "joint")


def main() -> int:
    """Measure, print, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this section (repeat)")
    parser.add_argument("--data", default=os.environ.get("FAIRLEAD_DATA"), help="folder of recorded outcomes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail if something that must hold does not")
    args = parser.parse_args()
    data = None if args.data is None else Path(args.data)
    if data is None:
        print("FAIRLEAD_DATA is not set: what needs recorded prompts is left out", file=sys.stderr)
    found: list[Section] = []
    for name in args.only or SECTIONS:
        made = importlib.import_module(f"corpora.{name}").measure(data=data, seed=args.seed)
        sections = [made] if isinstance(made, Section) else list(made)
        found += sections
        if not args.json:
            for section in sections:
                print(as_text(section), flush=True)
    if args.json:
        print(json.dumps([asdict(s) for s in found], indent=2))
    missed = [f"{s.name}: {what}" for s in found for what, held in s.marks.items() if not held]
    for line in missed:
        print(f"MISSED {line}", file=sys.stderr)
    return 1 if args.check and missed else 0


def as_text(section: Section) -> str:
    """Write a section for a terminal."""
    rows = [section.columns, *([_cell(c) for c in row] for row in section.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(section.columns))]
    table = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    marks = [f"{'held' if held else 'MISSED'}: {what}" for what, held in section.marks.items()]
    return "\n".join([f"## {section.name}", section.setting, "", *table, "", *section.notes, *marks, ""])


def _cell(value: str | float | int | None) -> str:
    match value:
        case None:
            return "-"
        case bool() | str() | int():
            return str(value)
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
