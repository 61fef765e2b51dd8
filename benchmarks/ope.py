"""Off-policy estimators against the truth: bias, error and coverage on full tables of recorded outcomes, then one real log.

    FAIRLEAD_DATA=… python benchmarks/ope.py [--json] [--check] [--replications N]

The population is the table: a log is `DECISIONS` queries drawn from it *with replacement*, each answered by one model that is drawn from the
logging policy's known probabilities. The truth is the new policy's mean over the whole table, sum over models of its probability times
the recorded quality (cost). So both the queries and the choices are random, as for a real log, and nothing else is.

Logging policies: `uniform`; `greedy` (a fitted ridge's best utility, 20% spread over all models); `soft` (softmax of that utility, 10%
spread); `skewed` (fixed shares, each half the one before, at least 1%, whatever the query). New policies: the best single model, the best
utility by knn and by ridge (each query forecast by a fit on the other four folds), and half knn half uniform. Besides, with the uniform
log: `judged` (quality known of 35% to 50% of the answers, by option; knn), `sessions` (of five decisions on one query; knn), and `unasked` (the
dearest model is never asked, and the new policy sends 4% to it, else half knn half uniform): there, cost must be refused.

The larger table gives the last 1,500 of its queries in a random order: with the first ones the floor under standard errors was designed.

`--check` exits with 1 unless on each table, averaged over all pairs that the estimator did not refuse in more than half the replications,
the 95% intervals of snips, dr and switch hold the truth in at least 93%, for the value and for the gain, of quality and of cost; unless in each
pair by itself they hold that of quality in 90%; and unless plain ips is worse than snips in mean error. For cost single pairs are lower (long
tails) and reported, not judged.

The real log: the rows of GreenServ that its random router drew, where every model had the same chance (five runs, joined: a query's rows
are one group). A ridge is fitted on half the queries, and its choices judged on the other half by the log alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import msgspec
import numpy as np

from fairlead.bench.decision_log import forecasts as predicted
from fairlead.bench.estimators import METHODS
from fairlead.bench.evaluate import Entrant, catalogued, choose, complete, forecasts, priced, splits
from fairlead.bench.off_policy import Evaluation, Log, evaluate
from fairlead.cli.bench import read_prices
from fairlead.table import Floats, Ints, OutcomeTable

TABLES = ("rational_cascades_train", "llmrouter_multitask_train")
QUERIES = 1500
"""Of each table, at most: the population."""
DECISIONS = 1500
JUDGED = ("snips", "dr", "switch")
LEAST, LEAST_PAIR = 0.93, 0.90
SESSION = 5


def population(data: Path, name: str) -> tuple[OutcomeTable, dict[str, tuple[Floats, Floats]]]:
    """Return a table without holes, and what knn and ridge, fitted on other queries, forecast: quality and USD, (Q, M) each."""
    table = OutcomeTable.read(data / "outcomes" / f"{name}.parquet")
    if np.isnan(table.usd_QM).all():
        table = priced(table, read_prices(str(data / "reference" / "model_prices.csv")))
    table, _ = complete(table.with_models(sorted(table.models)))
    if len(table) > QUERIES:
        table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[-QUERIES:]))
    entrants = [Entrant(name=p, spec={"type": p}) for p in ("knn", "ridge")]
    needs = sorted({n for e in entrants for n in e.needs})
    table = table.observed(catalogued(needs), needs)
    found = {}
    for e in entrants:
        quality, usd = np.empty(table.quality_QM.shape), np.empty(table.quality_QM.shape)
        for train, test in splits(table, "5-fold"):
            quality[test], usd[test], _ = forecasts(e.fitted(table.take(train)), table.take(test))
        found[e.name] = (quality, usd)
    return table, found


def policies(
    table: OutcomeTable, forecast: dict[str, tuple[Floats, Floats]]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return logging and new policies, as probabilities (Q, M)."""
    Q, M = table.quality_QM.shape
    weight = 0.1 / float(table.usd_QM.mean())
    one_MM, even_QM = np.eye(M), np.full((Q, M), 1.0 / M)
    greedy = {
        name: one_MM[choose(quality, usd, np.asarray([weight]), query_ids=table.query_ids)[0]]
        for name, (quality, usd) in forecast.items()
    }
    utility = forecast["ridge"][0] - weight * forecast["ridge"][1]
    soft = np.exp((utility - utility.max(axis=1, keepdims=True)) / 0.05)
    shares = np.maximum(0.5 ** np.arange(1, M + 1), 0.01)
    shares = np.random.default_rng(1).permutation(shares / shares.sum())
    logging = {
        "uniform": even_QM,
        "greedy": 0.8 * greedy["ridge"] + 0.2 * even_QM,
        "soft": 0.9 * soft / soft.sum(axis=1, keepdims=True) + 0.1 * even_QM,
        "skewed": np.tile(shares, (Q, 1)),
    }
    best = int(table.quality_QM.mean(axis=0).argmax())
    new = {
        "best single": np.tile(one_MM[best], (Q, 1)),
        "knn": greedy["knn"],
        "ridge": greedy["ridge"],
        "half knn": 0.5 * greedy["knn"] + 0.5 * even_QM,
    }
    return logging, new


def draw(table: OutcomeTable, mu_QM: Floats, new_QM: Floats, rng: np.random.Generator, at_D: Ints | None = None) -> Log:
    """Draw a log, of the queries `at_D` if given. Decisions on one query are one draw."""
    groups_D = np.arange(DECISIONS) if at_D is None else at_D
    at_D = rng.integers(len(table), size=DECISIONS) if at_D is None else at_D
    chosen_D = (rng.random(DECISIONS)[:, None] > mu_QM[at_D].cumsum(axis=1)).sum(axis=1)
    chosen_D = np.minimum(chosen_D, mu_QM.shape[1] - 1)
    return Log(
        actions=tuple(table.models),
        chosen_Q=chosen_D,
        logged_QA=mu_QM[at_D],
        new_QA=new_QM[at_D],
        outcomes={"quality": table.quality_QM[at_D, chosen_D], "usd": table.usd_QM[at_D, chosen_D]},
        groups_Q=groups_D,
        signals=tuple(table.signals[i] for i in at_D) if table.signals else (),
    )


def judged(table: OutcomeTable, mu_QM: Floats, new_QM: Floats, rng: np.random.Generator) -> Log:
    """Draw a log in which some options are judged more often than others."""
    log = draw(table, mu_QM, new_QM, rng)
    known_D = rng.random(DECISIONS) < np.linspace(0.35, 0.5, mu_QM.shape[1])[log.chosen_Q]
    quality_D = np.where(known_D, log.outcomes["quality"], np.nan)
    return msgspec.structs.replace(log, outcomes={**log.outcomes, "quality": quality_D})


def sessions(table: OutcomeTable, mu_QM: Floats, new_QM: Floats, rng: np.random.Generator) -> Log:
    """Draw a log of sessions."""
    at_D = np.repeat(rng.integers(len(table), size=DECISIONS // SESSION), SESSION)
    return draw(table, mu_QM, new_QM, rng, at_D)


class Pair(NamedTuple):
    """A policy that served, another, and how the log is drawn."""

    logging: str
    new: str
    mu_QM: Floats
    new_QM: Floats
    drawn: Callable[[OutcomeTable, Floats, Floats, np.random.Generator], Log] = draw


def pairs(table: OutcomeTable, logging: dict[str, Floats], new: dict[str, Floats]) -> list[Pair]:
    """Return all that is measured."""
    out = [Pair(a, b, mu_QM, new_QM) for a, mu_QM in logging.items() for b, new_QM in new.items()]
    even_QM, unasked_QM, half_QM = logging["uniform"], logging["uniform"].copy(), new["half knn"].copy()
    out += [Pair("judged", "knn", even_QM, new["knn"], judged), Pair("sessions", "knn", even_QM, new["knn"], sessions)]
    dearest = int(table.usd_QM.mean(axis=0).argmax())
    for p_QM in (unasked_QM, half_QM):
        p_QM[:, dearest] = 0.0
        p_QM /= p_QM.sum(axis=1, keepdims=True)
    half_QM *= 0.96
    half_QM[:, dearest] = 0.04
    return [*out, Pair("unasked", "half knn", unasked_QM, half_QM)]


class Tally:
    """Errors and hits of one pair of policies, by estimator."""

    def __init__(self, truth: dict[str, float], logged: dict[str, float]) -> None:
        self.truth, self.logged = truth, logged
        self.ess: list[float] = []
        self.refused = 0
        self.rows: dict[tuple[str, str], list[tuple[float, bool, bool, float]]] = {}

    def add(self, found: Evaluation) -> None:
        """Take in one replication."""
        self.ess.append(found["quality"].ess if found.answers else 0.0)
        if found.refusal is not None or found["quality"].refusal is not None:
            self.refused += 1
            return
        for what, truth in self.truth.items():
            gain = truth - self.logged[what]
            for e in found[what].estimates:
                self.rows.setdefault((what, e.method), []).append(
                    (
                        e.value.value - truth,
                        e.value.low <= truth <= e.value.high,
                        # One that serves as it did gains exactly nothing; rounding must not count against it.
                        e.gain.low - 1e-12 <= gain <= e.gain.high + 1e-12,
                        e.value.high - e.value.low,
                    )
                )

    def figures(self, replications: int) -> Iterator[dict[str, Any]]:
        """Yield one row per outcome and estimator."""
        for (what, method), rows in self.rows.items():
            error, hit, gain, width = np.asarray(rows, dtype=np.float64).T
            yield {
                "what": what,
                "method": method,
                "truth": self.truth[what],
                "bias": float(error.mean()),
                "bias_se": float(error.std() / np.sqrt(len(error))),
                "rmse": float(np.sqrt((error**2).mean())),
                "coverage": float(hit.mean()),
                "gain_coverage": float(gain.mean()),
                "width": float(width.mean()),
                "ess": float(np.mean(self.ess)),
                "refused": self.refused / replications,
            }


def simulate(
    name: str, table: OutcomeTable, measured: Sequence[Pair], *, replications: int, seed: int
) -> list[dict[str, Any]]:
    """Measure every pair of policies on one table."""
    out = []
    amounts = {"quality": table.quality_QM, "usd": table.usd_QM}
    for i, pair in enumerate(measured):
        rng = np.random.default_rng([seed, i])
        logged, truth = (
            {what: float((p_QM * y).sum(axis=1).mean()) for what, y in amounts.items()}
            for p_QM in (pair.mu_QM, pair.new_QM)
        )
        tally = Tally(truth, logged)
        for _ in range(replications):
            tally.add(evaluate(pair.drawn(table, pair.mu_QM, pair.new_QM, rng)))
        rows = list(tally.figures(replications))
        if not rows:
            rows = [{"what": "quality", "method": None, "ess": float(np.mean(tally.ess)), "refused": 1.0}]
        out += [{"table": name, "logging": pair.logging, "new": pair.new, **row} for row in rows]
    return out


def with_predictor(
    name: str, table: OutcomeTable, logging: dict[str, Floats], new: dict[str, Floats], *, replications: int, seed: int
) -> dict[str, Any]:
    """Compare dr with each model's mean and dr with a ridge behind it: uniform log, half knn."""
    truth = float((new["half knn"] * table.quality_QM).sum(axis=1).mean())
    rng = np.random.default_rng(seed)
    errors: dict[str, list[float]] = {"mean": [], "ridge": []}
    hits: dict[str, list[bool]] = {"mean": [], "ridge": []}
    for _ in range(replications):
        log = draw(table, logging["uniform"], new["half knn"], rng)
        for kind, given in (("mean", {}), ("ridge", predicted(log, "ridge"))):
            e = evaluate(log, forecasts=given, methods=("dr",))["quality"]["dr"]
            errors[kind].append(e.value.value - truth)
            hits[kind].append(e.value.low <= truth <= e.value.high)
    return {
        "table": name,
        "replications": replications,
        **{f"rmse_{k}": float(np.sqrt(np.mean(np.square(v)))) for k, v in errors.items()},
        **{f"coverage_{k}": float(np.mean(v)) for k, v in hits.items()},
    }


def greenserv(data: Path, *, seed: int) -> dict[str, Any]:
    """Judge a ridge that was fitted on half the queries by the random rows of the other half."""
    table = OutcomeTable.read(data / "outcomes" / "greenserv_logged.parquet")
    random_QM = table.text_extras["logged_by"][:, :, 0] == "X0_random"
    reward_QMS = np.where(random_QM[:, :, None], table.extra("reward_lambda05"), np.nan)
    table = replace(table, quality_QMS=reward_QMS)
    entrant = Entrant(name="ridge", spec={"type": "ridge"})
    table = table.observed(catalogued(entrant.needs), entrant.needs)
    train, test = splits(table, "0.5", seed=seed)[0]
    past, now = table.take(train), table.take(test)
    forecast, _, _ = forecasts(entrant.fitted(past), now)
    M = len(table.models)
    best = int(np.nanmean(past.quality_QM, axis=0).argmax())
    q_D, m_D = np.nonzero(~np.isnan(now.quality_QM))
    out: dict[str, Any] = {"decisions": len(q_D), "queries": len(now)}
    for name, new_QM in (
        ("ridge", np.eye(M)[forecast.argmax(axis=1)]),
        (f"always {table.models[best]}", np.tile(np.eye(M)[best], (len(now), 1))),
        ("uniform", np.full((len(now), M), 1.0 / M)),
    ):
        log = Log(
            actions=tuple(table.models),
            chosen_Q=m_D,
            logged_QA=np.full((len(q_D), M), 1.0 / M),
            new_QA=new_QM[q_D],
            outcomes={"quality": now.quality_QM[q_D, m_D]},
            groups_Q=q_D,
        )
        answer = evaluate(log)["quality"]
        out[name] = {
            "ess": answer.ess,
            "refusal": answer.refusal,
            **{
                e.method: {"value": str(e.value), "gain": str(e.gain), "gain_low": e.gain.low} for e in answer.estimates
            },
        }
    return out


def verdicts(rows: list[dict[str, Any]]) -> list[tuple[bool, str]]:
    """Judge coverage and the error of plain ips."""
    out = []
    counted = [r for r in rows if r["method"] is not None and r["refused"] <= 0.5]
    for what in ("quality", "usd"):
        for method in METHODS:
            must = method in JUDGED
            for table in TABLES:
                mine = [r for r in counted if (r["table"], r["what"], r["method"]) == (table, what, method)]
                if not mine:
                    continue
                cover, gain = (float(np.mean([r[k] for r in mine])) for k in ("coverage", "gain_coverage"))
                least = min(mine, key=lambda r: r["coverage"])
                good = not must or (
                    min(cover, gain) >= LEAST and (what != "quality" or least["coverage"] >= LEAST_PAIR)
                )
                out.append(
                    (
                        good,
                        f"{'ok  ' if good and must else 'FAIL' if must else '    '} {table}: {what}, {method}: coverage {cover:.3f}, of the "
                        f"gain {gain:.3f}; least {least['coverage']:.3f} ({least['logging']} log, {least['new']})",
                    )
                )
        ratio = {
            m: float(np.mean([a["rmse"] / b["rmse"] for a, b in _pairs(counted, what, "ips", m)]))
            for m in ("snips", "dr")
        }
        good = min(ratio.values()) > 1.0
        out.append(
            (
                good,
                f"{'ok  ' if good else 'FAIL'} {what}: the error of plain ips is {ratio['snips']:.2f} x snips, {ratio['dr']:.2f} x dr",
            )
        )
    good = not any(r["logging"] == "unasked" and r["what"] == "usd" for r in rows)
    out.append((good, f"{'ok  ' if good else 'FAIL'} usd: refused where what was never asked may cost anything"))
    return out


def _pairs(
    rows: list[dict[str, Any]], what: str, one: str, other: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    by = {(r["table"], r["logging"], r["new"], r["method"]): r for r in rows if r["what"] == what}
    for (table, log, new, method), row in by.items():
        if method == one:
            yield row, by[table, log, new, other]


def main() -> int:
    """Simulate, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FAIRLEAD_DATA"), help="default: $FAIRLEAD_DATA")
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if not args.data:
        print("ope.py: set FAIRLEAD_DATA to the folder that holds outcomes/ and reference/", file=sys.stderr)
        return 2
    start, data = perf_counter(), Path(args.data)
    rows: list[dict[str, Any]] = []
    model = []
    for name in TABLES:
        table, forecast = population(data, name)
        logging, new = policies(table, forecast)
        found = simulate(name, table, pairs(table, logging, new), replications=args.replications, seed=args.seed)
        rows += found
        if not args.json:
            show(name, found)
        model.append(
            with_predictor(name, table, logging, new, replications=max(2, args.replications // 20), seed=args.seed)
        )
    real = greenserv(data, seed=args.seed)
    verdict = verdicts(rows)
    if args.json:
        print(json.dumps({"rows": rows, "with_predictor": model, "greenserv": real, "verdicts": verdict}))
    else:
        for m in model:
            print(
                f"dr by a ridge: {m['table']}, uniform log, half knn, {m['replications']} logs: rmse {m['rmse_ridge']:.4f} (means: "
                f"{m['rmse_mean']:.4f}), coverage {m['coverage_ridge']:.2f} ({m['coverage_mean']:.2f})"
            )
        print(f"\nGreenServ, {real.pop('decisions'):,} random rows of {real.pop('queries'):,} queries")
        for name, r in real.items():
            said = r["refusal"] or "; ".join(f"{m} {r[m]['value']} gain {r[m]['gain']}" for m in ("snips", "dr"))
            print(f"  {name}: ess {r['ess']:.0f}; {said}")
        print(
            "\n".join(
                [
                    "",
                    *(text for _, text in verdict),
                    f"{perf_counter() - start:.0f} s, of which {process_time():.0f} s of CPU",
                ]
            )
        )
    return int(args.check and any(not good for good, _ in verdict))


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """Print bias, error, coverage and width of each estimator of quality, one line per pair of policies and estimator."""
    print(f"{name}, quality: {DECISIONS} decisions a log\n")
    print("logging  new          ess refused  " + "".join(f"{m + ': bias  rmse  cover width':<34}" for m in METHODS))
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in rows:
        if r["what"] == "quality":
            pairs.setdefault((r["logging"], r["new"]), []).append(r)
    for (log, new), mine in pairs.items():
        line = f"{log:<8} {new:<11} {mine[0]['ess']:5.0f} {mine[0]['refused']:6.0%}   "
        by = {r["method"]: r for r in mine}
        for m in METHODS:
            told = by.get(m) if mine[0]["refused"] <= 0.5 else None  # the few that are not refused are a selection
            cell = (
                "-"
                if told is None
                else f"{told['bias']:+.4f} {told['rmse']:.4f} {told['coverage']:.3f} {told['width']:.3f}"
            )
            line += f"{cell:<34}"
        print(line.rstrip())
    print()


if __name__ == "__main__":
    sys.exit(main())
