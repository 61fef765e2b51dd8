"""Do routers and cascades beat random mixing of single models on recorded outcomes? One command, with intervals.

    FAIRLEAD_DATA=… python benchmarks/routing.py [--json] [--check] [--plots DIR]

Two tables under ``$FAIRLEAD_DATA/outcomes``, five folds each, equal prompts in one fold:

- ``rational_cascades_train``: recorded costs; cascades read ``confidence_logprob`` and every step whose confidence is read is charged
  ``cost_usd_logged``, which holds the call that asks for it.
- ``llmrouter_multitask_train``: no costs recorded; they are modelled from a price list and 200 tokens of output, so its cost figures
  rest on an assumption.

What a predictor or cascade chooses for itself (neighbours, penalty, chain, threshold) it chooses on the training folds; what is mixed,
on both sides of a difference, on the other half of the judged queries. On the first table two policies that learn online take the
training queries one at a time, see only the answers of the targets they chose, and then decide without learning: they know far less.

With ``--check`` the exit code is 1 unless `knn` lies above random mixing and above `mean` on both tables with its whole interval, and no
other predictor lies below random mixing. Policies and the cascade are reported, not judged.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from fairlead.bench.chains import ConfidenceColumns
from fairlead.bench.evaluate import Entrant, evaluate, priced
from fairlead.bench.report import Report, plot, report, to_text
from fairlead.cli.bench import read_prices
from fairlead.table import OutcomeTable

PREDICTORS = ("mean", "knn", "ridge", "logistic")
POLICIES = ("lin_ucb", "thompson")
REQUIRED = "knn"


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FAIRLEAD_DATA"), help="default: $FAIRLEAD_DATA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--plots", metavar="DIR", help="write one plot per table")
    args = parser.parse_args()
    if not args.data:
        print("routing.py: set FAIRLEAD_DATA to the folder that holds outcomes/ and reference/", file=sys.stderr)
        return 2
    data = Path(args.data)
    reports: list[Report] = []
    for name in ("rational_cascades_train", "llmrouter_multitask_train"):
        table = OutcomeTable.read(data / "outcomes" / f"{name}.parquet")
        confidence, note, policies = None, "", {}
        if name == "rational_cascades_train":
            confidence = ConfidenceColumns(column="confidence_logprob", usd_column="cost_usd_logged")
            policies = {n: {"type": n} for n in POLICIES}
        else:
            table = priced(table, read_prices(str(data / "reference" / "model_prices.csv")))
            note = "costs are modelled: list prices, a quarter token per character in, 200 tokens out"
        result = evaluate(
            table,
            routers=[Entrant(name=n, spec={"type": n}) for n in PREDICTORS],
            policies=policies,
            confidence=confidence,
            split="5-fold",
            seed=args.seed,
        )
        result = msgspec.structs.replace(result, source=name, notes=(note,) if note else ())
        reports.append(report(result, resamples=args.resamples))
        if not args.json:
            print(to_text(reports[-1]), end="\n\n")
        if args.plots:
            Path(args.plots).mkdir(parents=True, exist_ok=True)
            plot(result, str(Path(args.plots) / f"{name}.png"), title=name)
    verdicts = [v for r in reports for v in judge(r)]
    if args.json:
        print(msgspec.json.encode({"reports": reports, "verdicts": verdicts}).decode())
    else:
        print("\n".join(text for _, text in verdicts))
    return int(args.check and any(not good for good, _ in verdicts))


def judge(found: Report) -> list[tuple[bool, str]]:
    """Say of each chooser how it stands to random mixing and to `mean`, and whether that is allowed."""
    out = []
    for row in found.rows:
        if row.kind == "label":
            continue
        for other, over in (("random mixing", row.aiq_over_mix), ("mean", row.aiq_over_mean)):
            if over is None:
                continue
            said = "above" if over.low > 0 else "below" if over.high < 0 else "not told apart from"
            if row.name == REQUIRED:
                good = over.low > 0
            else:
                good = row.kind != "router" or other == "mean" or over.high >= 0
            mark = "FAIL" if not good else "ok  " if row.kind == "router" else "    "
            out.append((good, f"{mark} {found.source}: {row.name} is {said} {other}: AIQ {over}"))
    return out


if __name__ == "__main__":
    sys.exit(main())
