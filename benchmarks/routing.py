"""Do learned routers beat random mixing of single models on recorded outcomes? One command, with intervals.

    FAIRLEAD_DATA=… python benchmarks/routing.py [--json] [--check] [--plots DIR] [--only PREDICTOR,…]

Two tables under ``$FAIRLEAD_DATA/outcomes``, five folds each, equal prompts in one fold, no task label:

- ``rational_cascades_train``: recorded costs; cascades read ``confidence_logprob`` and every step whose confidence is read is charged
  ``cost_usd_logged``, which holds the call that asks for it.
- ``llmrouter_multitask_train``: no costs recorded; they are modelled from a price list and 200 tokens of output, so its cost figures
  rest on an assumption.

What a predictor or cascade chooses for itself (neighbours, penalty, trees, chains, thresholds) it chooses on the training folds. Figures "as
judged" are hulls of the judged queries, as such figures are usually published; the intervals over mixing are cross-fitted: what is mixed is
chosen on the other half of the judged queries, on both sides of the difference.

Coverage: the prompts are those of the first table, but their outcomes are drawn anew from each target's mean on the prompt's task, so that
the truth is known; printed is how often it lies within 1.645 stated standard deviations of the forecast of a query that was held out.

Which predictor is held against the marks of a table is decided by the other table: the one of highest cross-fitted AIQ over mixing there.

With ``--check`` the exit code is 1 if a mark is missed: those of that predictor, and of cascades chosen by `forest`; for every
predictor a calibration error of at most 0.05, not to lie below random mixing with its whole interval, and a fit in 10 s of CPU time. Times of
decisions are printed and not judged: here two processes share the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

# Before numpy: one thread for each of the processes below.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np

from fairlead.bench.chains import ConfidenceColumns
from fairlead.bench.evaluate import Entrant, Result, catalogued, evaluate, priced, splits
from fairlead.bench.report import Report, Row, plot, report, to_text
from fairlead.build import build
from fairlead.cli.bench import read_prices
from fairlead.predictors.base import Predictor
from fairlead.table import OutcomeTable
from fairlead.types import Target

PREDICTORS = (
    "forest", "blend", "gbm", "mlp", "knn", "clusters", "irt", "mean", "ridge", "logistic", "mf", "sw_ranking", "tryage", "graph", "profile",
)  # fmt: skip
"""Roughly by the time they take, so that two processes share it."""
RATIONAL, MULTITASK = "rational_cascades_train", "llmrouter_multitask_train"
PLANNER = "cascade x forest"
ECE = 0.05
CONFIDENCE = ConfidenceColumns(column="confidence_logprob", usd_column="cost_usd_logged")


class Mark(msgspec.Struct, frozen=True):
    """One thing that is asked for."""

    what: str
    value: float
    must: float
    aim: float
    lower: bool = False
    """Whether less is better."""
    shown: bool = False
    """Printed even if it is met."""

    @property
    def good(self) -> bool:
        """Whether the must is met."""
        return self.value <= self.must if self.lower else self.value >= self.must


class Covered(msgspec.Struct, frozen=True):
    """How often the truth lies within the stated spread."""

    name: str
    share: float
    sd: float
    """Mean stated standard deviation."""
    error: float
    """Root of the mean squared distance of forecast and truth."""
    fit_seconds: float
    """CPU time of a fit on all of the larger table."""


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FAIRLEAD_DATA"), help="default: $FAIRLEAD_DATA")
    parser.add_argument("--only", metavar="PREDICTOR,…", help="these predictors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--plots", metavar="DIR", help="write one plot per table")
    args = parser.parse_args()
    if not args.data:
        print("routing.py: set FAIRLEAD_DATA to the folder that holds outcomes/ and reference/", file=sys.stderr)
        return 2
    names = tuple(args.only.split(",")) if args.only else PREDICTORS
    reports: list[Report] = []
    with ProcessPoolExecutor(args.jobs) as pool:
        work = {
            (table, name): pool.submit(measure, args.data, table, name, args.seed)
            for name in names
            for table in (MULTITASK, RATIONAL)
        }
        spread = {name: pool.submit(coverage, args.data, name, args.seed) for name in names}
        for table in (RATIONAL, MULTITASK):
            result = joined([work[table, name].result() for name in names])
            reports.append(report(result, resamples=args.resamples))
            if not args.json:
                print(to_text(reports[-1]), end="\n\n")
            if args.plots:
                Path(args.plots).mkdir(parents=True, exist_ok=True)
                plot(result, str(Path(args.plots) / f"{table}.png"), title=table)
        covered = [spread[name].result() for name in names]
    marks = judge(*({r.name: r for r in found.rows} for found in reports))
    marks += [Mark(f"{c.name}, CPU seconds of a fit", c.fit_seconds, 10.0, 10.0, lower=True) for c in covered]
    good = all(m.good for m in marks)
    if args.json:
        print(msgspec.json.encode({"reports": reports, "covered": covered, "marks": marks, "good": good}).decode())
    else:
        print(
            "forecast against a known truth: share within 1.645 stated sd (nominal 0.90), mean sd, root mean squared error, fit"
        )
        for c in covered:
            print(f"  {c.name:10}  {c.share:.2f}  {c.sd:.3f}  {c.error:.3f}  {c.fit_seconds:5.1f} s CPU")
        print()
        for m in (m for m in marks if m.shown or not m.good):
            sign = "<=" if m.lower else ">="
            print(
                f"{'ok  ' if m.good else 'FAIL'} {m.what}: {m.value:.4f} (must {sign} {m.must:g}, aim {sign} {m.aim:g})"
            )
        rest = sum(not m.shown and m.good for m in marks)
        print(f"ok   {rest} more: calibration errors, intervals that do not lie below random mixing, times of fits")
    return int(args.check and not good)


def load(data: str, name: str) -> OutcomeTable:
    """Read one table, with costs."""
    table = OutcomeTable.read(Path(data) / "outcomes" / f"{name}.parquet")
    if name == MULTITASK:
        table = priced(table, read_prices(str(Path(data) / "reference" / "model_prices.csv")))
    return table


def measure(data: str, table: str, name: str, seed: int) -> Result:
    """Judge one predictor on one table."""
    result = evaluate(
        load(data, table),
        routers=[Entrant(name=name, spec={"type": name})],
        confidence=CONFIDENCE if table == RATIONAL else None,
        split="5-fold",
        seed=seed,
    )
    note = "costs are modelled: list prices, a quarter token per character in, 200 tokens out"
    return msgspec.structs.replace(result, source=table, notes=(note,) if table == MULTITASK else ())


def joined(results: list[Result]) -> Result:
    """Put together what was judged on the same queries."""
    curves = {c.name: c for r in results for c in r.curves}
    order = {"single": 0, "router": 1, "label": 2, "cascade": 3, "oracle": 4}
    ranked = sorted(curves.values(), key=lambda c: order.get(c.kind, 9))
    return msgspec.structs.replace(results[0], curves=tuple(ranked))


def coverage(data: str, name: str, seed: int) -> Covered:
    """Fit on outcomes drawn from known means, and compare the forecasts of queries held out with those means."""
    table = load(data, RATIONAL)
    labels = np.asarray(table.datasets)
    truth = np.empty(table.quality_QM.shape)
    for label in set(table.datasets):
        truth[labels == label] = table.quality_QM[labels == label].mean(axis=0)
    drawn = (np.random.default_rng(seed).random(truth.shape) < truth).astype(np.float64)
    table = replace(table, quality_QMS=drawn[:, :, None])
    predictor: Predictor = build("predictors", {"type": name})
    table = table.observed(catalogued(predictor.needs), predictor.needs)
    train, test = splits(table, "0.3", seed=seed)[0]
    predictor.fit(table.take(train))
    held = table.take(test)
    targets = [Target(name=m) for m in held.models]
    found = [predictor.predict(s, targets) for s in held.observations(predictor.needs)]
    forecast, sd = (np.asarray([[getattr(f, a) for f in row] for row in found]) for a in ("quality", "quality_sd"))
    miss = np.abs(forecast - truth[test])
    return Covered(
        name=name,
        share=float((miss <= 1.645 * sd).mean()),
        sd=float(sd.mean()),
        error=float(np.sqrt((miss**2).mean())),
        fit_seconds=fit_seconds(data, name),
    )


def fit_seconds(data: str, name: str) -> float:
    """CPU time of a fit on all of the larger table, on one core, signals not included."""
    predictor: Predictor = build("predictors", {"type": name})
    table = load(data, MULTITASK)
    table = table.observed(catalogued(predictor.needs), predictor.needs)
    start = time.process_time()
    predictor.fit(table)
    return time.process_time() - start


def judge(rational: dict[str, Row], multitask: dict[str, Row]) -> list[Mark]:
    """Hold the figures against what is asked for."""
    out = []

    def shown(what: str, value: float, must: float, aim: float, lower: bool = False) -> None:
        out.append(Mark(what, value, must, aim, lower=lower, shown=True))

    name = best(rational)
    if name in multitask and (j := multitask[name].as_judged) is not None:
        head = f"{MULTITASK}: {name} (best on the other table)"
        shown(f"{head}, AIQ", j.aiq.value, 0.640, 0.655)
        shown(f"{head}, AIQ on log cost", j.log_aiq.value, 0.626, 0.640)
        shown(f"{head}, cost to reach 98% of the best", j.cost_98.value, 0.20, 0.17, lower=True)
        shown(f"{head}, cost to reach 100% of the best", j.cost_100.value, 0.25, 0.20, lower=True)
    name = best(multitask)
    if name in rational:
        head = f"{RATIONAL}: {name} (best on the other table)"
        over, over_mean = rational[name].log_aiq_over_mix, rational[name].log_aiq_over_mean
        if over is not None:
            shown(f"{head}, log-cost AIQ over mix", over.value, 0.0, 0.010)
            shown(f"{head}, the same, lower end", over.low, 0.0, 0.0)
        if over_mean is not None:
            # Since the length of a query alone, through what it costs, lifts `mean` above mixing.
            shown(f"{head}, log-cost AIQ over `mean`, lower end", over_mean.low, 0.0, 0.0)
    if PLANNER in rational and (over := rational[PLANNER].aiq_over_mix) is not None:
        shown(f"{RATIONAL}: {PLANNER}, AIQ over mix", over.value, 0.008, 0.012)
        shown(f"{RATIONAL}: the same, lower end", over.low, 0.0, 0.0)
    shown("marks that could be judged (fewer with --only)", float(len(out)), 9.0, 9.0)
    for table, rows in ((RATIONAL, rational), (MULTITASK, multitask)):
        for row in rows.values():
            if row.kind == "router" and row.ece is not None:
                out.append(Mark(f"{table}: {row.name}, calibration error", row.ece, ECE, 0.035, lower=True))
            if row.kind in ("router", "cascade"):
                for axis, found in (("AIQ", row.aiq_over_mix), ("log-cost AIQ", row.log_aiq_over_mix)):
                    if found is not None:
                        out.append(Mark(f"{table}: {row.name}, {axis} over mix, upper end", found.high, 0.0, 0.0))
    return out


def best(rows: dict[str, Row]) -> str:
    """Name the predictor of highest cross-fitted AIQ over mixing."""
    found = {r.name: r.aiq_over_mix.value for r in rows.values() if r.kind == "router" and r.aiq_over_mix is not None}
    return max(found, key=lambda n: found[n], default="")


if __name__ == "__main__":
    sys.exit(main())
