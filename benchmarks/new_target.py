"""How well is a new target known after a few calls, and what is it worth then? Leave one target out, with intervals.

    FAIRLEAD_DATA=… python benchmarks/new_target.py [--json] [--check] [--jobs 2]

Two tables under ``$FAIRLEAD_DATA/outcomes``, five folds each, equal prompts in one fold; each target in turn is the new one. On the training
fold (at most 1,200 queries of it) `irt` and `profile` are fitted to the other targets; the new one is then asked 0, 5, 10, 20 or 30 of these
prompts, chosen at random or by information (`fairlead.probing.Joining`: anew after every five answers). On the test fold:

- `error`: of the forecast of its mean quality, absolute; `brier`: of its forecasts, query by query
- `covered`: share of 90% intervals for that mean which hold it (the interval has the noise of the test fold's own outcomes added)
- `AIQ`: of choosing by forecast utility among all targets, the new one by its forecasts, the others by the fit. Costs are those
  recorded (modelled from list prices on the second table) and taken as known

Baselines: the population's mean (0 calls); the mean of the probes alone; all training queries. `profile` also with the new target's scores
by kind of task on the training fold as `skills`, as if published, and no call. Intervals are Student's t over targets: the nine are few, and
the folds of one target are not independent. They say how much other targets like these would differ, not other tables. The ridge of `irt` is
fixed here (the product searches it).

How probes are chosen (the constants of `fairlead.probing`) was settled on two folds of the first table; so what the choice gains is judged on
the second, and told of the first.

With ``--check`` the exit code is 1 unless, for `irt` with chosen probes: on each table 85% of the 90% intervals hold over 5 to 30 calls
together (five points below what they state; "point only" if the interval of that share, by targets, reaches below); and on the second table the
error over 10 to 30 calls is smaller, by the whole interval, than that of `irt` with random probes and of the mean of random probes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from fairlead.bench.evaluate import catalogued, choose, priced, weights
from fairlead.bench.metrics import aiq
from fairlead.cli.bench import read_prices
from fairlead.predictors.base import Belief, Floats, Predictor
from fairlead.predictors.calibration import folds
from fairlead.predictors.features import Features
from fairlead.predictors.irt import IRT
from fairlead.predictors.profile import Profiled
from fairlead.probing import Joining, adopt
from fairlead.table import OutcomeTable
from fairlead.types import Outcome, Profile, Reading, Signals, Target

TABLES: Final = ("rational_cascades_train", "llmrouter_multitask_train")
JUDGED: Final = "llmrouter_multitask_train"
"""Where the gain by choosing probes is judged; the choice was designed on the other."""
COVERED: Final = 0.85
CHOSEN: Final = "irt, chosen probes"
CALLS: Final = (5, 10, 20, 30)
FOLDS: Final = 5
DRAWS: Final = 2
"""Draws of probes, of either kind, for each new target and fold."""
MOST: Final = 1200
"""Training queries at most."""
Z90: Final = 1.645
READ: Final = Features(signals=("read",), scale=False)
"""What `_read` has read already."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One new target, one fold, one way to know it."""

    table: str
    target: str
    fold: int
    method: str
    calls: int
    error: float
    brier: float
    covered: bool | None
    points: list[tuple[float, float]]
    """Mean (USD, quality) at each weight of a dollar."""


def one(data: str, name: str, target: str, fold: int, seed: int) -> list[Cell]:
    """Measure everything for one new target in one fold."""
    train, test = _split(data, name, fold)
    m = test.models.index(target)
    others = [n for n in test.models if n != target]
    own_Q = train.quality_QM[:, m]
    outcomes = {
        q: Outcome(quality=float(own_Q[q]), usd=_none(train.usd_QM[q, m]))
        for q in np.flatnonzero(~np.isnan(own_Q)).tolist()
    }
    rest, new = train.with_models(others), Target(name=target)
    out = []

    def judge(method: str, calls: int, quality_Q: Floats, sd: float | None, known_QT: Floats) -> None:
        y_Q = test.quality_QM[:, m]
        off = float(quality_Q.mean() - np.nanmean(y_Q))
        noise = float(np.mean(np.clip(quality_Q, 0.02, 0.98) * (1.0 - np.clip(quality_Q, 0.02, 0.98)))) / len(y_Q)
        out.append(
            Cell(
                table=name, target=target, fold=fold, method=method, calls=calls, error=abs(off),
                brier=float(np.nanmean((quality_Q - y_Q) ** 2)),
                covered=None if sd is None else abs(off) <= Z90 * float(np.hypot(sd, np.sqrt(noise))),
                points=_points(test, np.insert(known_QT, m, quality_Q, axis=1)),
            )
        )  # fmt: skip

    for kind, predictor in (("irt", IRT(features=READ.copy(), l2=50.0)), ("profile", Profiled(features=READ.copy()))):
        predictor.fit(rest)
        known_QT = _forecast(predictor, test)

        def believed(method: str, calls: int, now: Predictor, as_: Target = new, known: Floats = known_QT) -> None:
            b: Belief = now.belief(as_, _blank(test))
            judge(method, calls, b.quality_Q, b.mean_sd, known)

        believed(f"{kind}, population", 0, predictor)
        for draw in range(DRAWS):
            rng = np.random.default_rng([seed, fold, m, draw])
            joining = Joining(predictor=predictor, target=new, prompts=rest, seed=int(rng.integers(2**31)))
            while rows := joining.next():
                joining.tell({q: outcomes.get(q, Outcome()) for q in rows})
                if len(joining.outcomes) in CALLS:
                    believed(f"{kind}, chosen probes", len(joining.outcomes), joining.predictor)
            shuffled = rng.permutation([*outcomes]).tolist()
            for n in CALLS:
                random = {q: outcomes[q] for q in shuffled[:n]}
                believed(f"{kind}, random probes", n, adopt(predictor, new, rest, random))
                if kind == "irt":
                    mean = (sum(o.quality or 0.0 for o in random.values()) + 0.5) / (n + 1.0)
                    judge("mean of random probes", n, np.full(len(test), mean), None, known_QT)
        believed(f"{kind}, all training queries", len(outcomes), adopt(predictor, new, rest, outcomes))
    skills = {n: Profile(skills=_skills(train, n)) for n in test.models}
    told = Profiled(features=READ.copy())
    told.fit(rest, [Target(name=n, profile=skills[n]) for n in others])
    b = told.belief(Target(name=target, profile=skills[target]), _blank(test))
    judge("profile, skills stated", 0, b.quality_Q, b.mean_sd, _forecast(told, test))
    return out


@cache
def _table(data: str, name: str) -> OutcomeTable:
    table = OutcomeTable.read(Path(data) / "outcomes" / f"{name}.parquet")
    if name == "llmrouter_multitask_train":
        table = priced(table, read_prices(str(Path(data) / "reference" / "model_prices.csv")))
    needs = Features().needs
    return table.observed(catalogued(needs), needs)


@cache
def _split(data: str, name: str, fold: int) -> tuple[OutcomeTable, OutcomeTable]:
    table = _table(data, name)
    fold_Q = folds(table.groups, k=FOLDS)
    train = np.flatnonzero(fold_Q != fold)
    train = train[np.linspace(0, len(train) - 1, min(len(train), MOST)).astype(np.int64)]
    features = Features()
    parts = table.take(train), table.take(np.flatnonzero(fold_Q == fold))
    features.fit(parts[0].observations(features.needs))
    return _read(parts[0], features), _read(parts[1], features)


def _read(table: OutcomeTable, features: Features) -> OutcomeTable:
    """Read the features once for all: they are learned without outcomes, so that it does not matter who is left out."""
    readings = table.observations(features.needs)
    x_QD = features.read_all(readings).astype("<f4")
    signals = [
        Signals(readings={"read": Reading(vector=x_D.tobytes()), "length": s.readings["length"]})
        for x_D, s in zip(x_QD, readings, strict=True)
    ]
    return replace(table, signals=signals)


def _blank(table: OutcomeTable) -> OutcomeTable:
    """The prompts alone: what other targets made of test prompts must not be read."""
    return replace(table, quality_QMS=np.full_like(table.quality_QMS, np.nan))


def _forecast(predictor: Predictor, table: OutcomeTable) -> Floats:
    targets = [Target(name=n) for n in predictor.targets_]
    return np.asarray([[f.quality for f in predictor.predict(s, targets)] for s in table.observations(predictor.needs)])


def _skills(table: OutcomeTable, name: str) -> dict[str, float]:
    own_Q, kinds = table.quality_QM[:, table.models.index(name)], np.asarray([d or "" for d in table.datasets])
    return {
        k: float(np.nanmean(own_Q[kinds == k])) for k in sorted(set(kinds.tolist())) if k and (kinds == k).sum() >= 10
    }


def _points(test: OutcomeTable, quality_QT: Floats) -> list[tuple[float, float]]:
    chosen_LQ = choose(quality_QT, test.usd_QM, weights(test), query_ids=test.query_ids)
    rows = np.arange(len(test))
    return [(float(np.nanmean(test.usd_QM[rows, c])), float(np.nanmean(test.quality_QM[rows, c]))) for c in chosen_LQ]


def _none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


# ---------------------------------------------------------------------------------------------------------- summing up


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table; `low` and `high` are ends of a 95% interval."""

    table: str
    method: str
    calls: int
    error: float
    error_low: float
    error_high: float
    brier: float
    covered: float | None
    covered_low: float | None
    aiq: float


def summed(cells: list[Cell]) -> list[Row]:
    """Sum up over targets and folds."""
    groups: dict[tuple[str, str, int], list[Cell]] = defaultdict(list)
    for c in cells:
        groups[c.table, c.method, 10**6 if "all training" in c.method else c.calls].append(c)
    rows = []
    for (table, method, calls), found in groups.items():
        mean, low, high = _over_targets({c.target: [d.error for d in found if d.target == c.target] for c in found})
        held = held_by_target(found)
        covered = _over_targets(held) if held else None
        rows.append(
            Row(
                table=table, method=method, calls=calls, error=mean, error_low=low, error_high=high,
                brier=float(np.mean([c.brier for c in found])),
                covered=covered[0] if covered else None,
                covered_low=covered[1] if covered else None,
                aiq=float(np.mean([_aiq(found, t) for t in sorted({c.target for c in found})])),
            )
        )  # fmt: skip
    return rows


def held_by_target(found: list[Cell]) -> dict[str, list[float]]:
    """Gather for each target whether its intervals held."""
    out: dict[str, list[float]] = defaultdict(list)
    for c in found:
        if c.covered is not None:
            out[c.target].append(float(c.covered))
    return out


def _over_targets(values: dict[str, list[float]]) -> tuple[float, float, float]:
    """Return the mean over targets of their means, and the ends of its 95% interval."""
    from scipy.stats import t

    mean_T = np.asarray([np.mean(v) for v in values.values()])
    n, mean = len(mean_T), float(mean_T.mean())
    half = float(t.ppf(0.975, n - 1) * mean_T.std(ddof=1) / n**0.5) if n > 1 else np.inf
    return mean, mean - half, mean + half


def _aiq(found: list[Cell], target: str) -> float:
    points = np.mean([c.points for c in found if c.target == target], axis=0)
    low, high = _RANGE[found[0].table]
    return aiq(points[:, 0], points[:, 1], c_min=max(low, float(points[:, 0].min())), c_max=high)


_RANGE: dict[str, tuple[float, float]] = {}


def _range(data: str, name: str) -> tuple[float, float]:
    usd_M = np.nanmean(_table(data, name).usd_QM, axis=0)
    return float(usd_M.min()), float(usd_M.max())


def differences(cells: list[Cell]) -> list[tuple[str, str, float, float, float]]:
    """How much smaller the error of `irt` with chosen probes is, over 10 to 30 calls: (table, than what, mean, low, high)."""
    out = []
    for table in dict.fromkeys(c.table for c in cells):
        mean = {
            (m, t): np.mean(
                [c.error for c in cells if (c.table, c.method, c.target) == (table, m, t) and c.calls in CALLS[1:]]
            )
            for m in (CHOSEN, "irt, random probes", "mean of random probes", "profile, chosen probes")
            for t in dict.fromkeys(c.target for c in cells if c.table == table)
        }
        targets = sorted({t for _, t in mean})
        for than in ("irt, random probes", "mean of random probes", "profile, chosen probes"):
            out.append((table, than, *_over_targets({t: [float(mean[than, t] - mean[CHOSEN, t])] for t in targets})))
    return out


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FAIRLEAD_DATA"), help="default: $FAIRLEAD_DATA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folds", type=int, default=FOLDS, help="only the first so many of the five folds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if not args.data:
        print("new_target.py: set FAIRLEAD_DATA to the folder that holds outcomes/ and reference/", file=sys.stderr)
        return 2
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # read by the workers when they import numpy
    cells: list[Cell] = []
    with ProcessPoolExecutor(max_workers=args.jobs, mp_context=get_context("spawn")) as pool:
        for name in TABLES:
            _RANGE[name] = _range(args.data, name)
            models = OutcomeTable.read(Path(args.data) / "outcomes" / f"{name}.parquet").models
            waits = [pool.submit(some, args.data, name, models, fold, args.seed) for fold in range(args.folds)]
            for wait in waits:
                cells += wait.result()
    rows, gains = summed(cells), differences(cells)
    verdicts = judged(cells, gains)
    if args.json:
        print(msgspec.json.encode({"rows": rows, "differences": gains, "verdicts": verdicts}).decode())
    else:
        print(shown(rows))
        print("\n".join(text for _, text in verdicts))
    return int(args.check and not all(good for good, _ in verdicts))


def some(data: str, name: str, models: list[str], fold: int, seed: int) -> list[Cell]:
    """Measure one fold with each target in turn."""
    return [cell for target in models for cell in one(data, name, target, fold, seed)]


def judged(cells: list[Cell], gains: list[tuple[str, str, float, float, float]]) -> list[tuple[bool, str]]:
    """Say what must hold, and whether it does."""
    out = []
    for table in dict.fromkeys(c.table for c in cells):
        share, low, high = _over_targets(held_by_target([c for c in cells if (c.table, c.method) == (table, CHOSEN)]))
        said = f"(by targets {low:.1%} to {min(high, 1.0):.1%}: {'shown' if low >= COVERED else 'point only'})"
        text = f"{table}: {share:.1%} of the 90% intervals of {CHOSEN} hold {said}, must be {COVERED:.0%}"
        out.append((share >= COVERED, text))
    for table, than, mean, low, high in gains:
        text = f"{table}: error of {CHOSEN} over 10 to 30 calls smaller than that of {than} by {mean:+.4f} ({low:+.4f} to {high:+.4f})"
        if table == JUDGED and "profile" not in than:
            out.append((low > 0.0, f"{text}, whole interval above 0"))
        else:
            told = "told apart" if low > 0.0 or high < 0.0 else "not told apart"
            out.append((True, f"{text}: {told}, not judged"))
    return [(good, f"{'ok  ' if good else 'FAIL'} {text}") for good, text in out]


def shown(rows: list[Row]) -> str:
    """Lay out the table."""
    lines = []
    for table in dict.fromkeys(r.table for r in rows):
        lines += [f"\n{table}: the new target's mean quality and forecasts on queries held out", ""]
        lines.append(
            f"{'how it is known':32} {'calls':>6} {'error':>7} {'(95% interval)':>18} {'brier':>7} {'covered (low)':>14} {'AIQ':>7}"
        )
        for r in sorted((r for r in rows if r.table == table), key=lambda r: (r.calls, r.method)):
            calls = "all" if r.calls == 10**6 else str(r.calls)
            covered = "" if r.covered is None else f"{r.covered:.0%} ({max(0.0, r.covered_low or 0.0):.0%})"
            lines.append(
                f"{r.method:32} {calls:>6} {r.error:7.4f} {f'({r.error_low:.4f} to {r.error_high:.4f})':>18} {r.brier:7.4f} "
                f"{covered:>14} {r.aiq:7.4f}"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
