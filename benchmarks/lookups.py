"""Which index to ask: the lab's look-up corpus, fresh queries, experts alone, fused, and chosen by gates. Figures of docs/guides/plans.md.

    python benchmarks/lookups.py [--train 1600] [--queries 500] [--seeds 3] [--check] [--json]

Gates are trained on queries of the train split, and judged on those of the test split, which are about other documents. Gains over the best single
expert (chosen on the train split) are paired, with intervals over documents; the share of the gap to the best expert of each query
(the oracle) that is closed stands beside them.

`--check` fails if `pilots` does not lie between the best single expert and the oracle with an interval that excludes the former.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"  # read by numpy's libraries when they are loaded

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from typing import Any, Final  # noqa: E402

import numpy as np  # noqa: E402

from fairlead.bench.metrics import Floats, paired_bootstrap  # noqa: E402
from fairlead.build import build  # noqa: E402
from fairlead.lab import corpus  # noqa: E402
from fairlead.plans.retrieve import Passage, fuse  # noqa: E402
from fairlead.predictors.base import Predictor  # noqa: E402
from fairlead.table import OutcomeTable  # noqa: E402
from fairlead.targets.index import search  # noqa: E402
from fairlead.testing import observer_of  # noqa: E402
from fairlead.types import Target  # noqa: E402

K: Final = 60.0
_NGRAMS: Final = {"type": "features", "signals": ["ngrams"], "scale": False}
GATES: Final[dict[str, Any]] = {
    "pilots": "pilots",
    "pilots, max": {"type": "pilots", "use": "max"},
    "pilots, ngrams": {"type": "pilots", "features": _NGRAMS},
    "knn": "knn",
    "clusters": "clusters",
    "forest": "forest",
}


def table(rows: list[dict[str, Any]]) -> OutcomeTable:
    """Make an outcome table of rows."""
    return OutcomeTable.from_columns({k: [r[k] for r in rows] for k in rows[0]}, source="look-ups")


def chosen(spec: Any, train: OutcomeTable, test: OutcomeTable) -> list[list[str]]:
    """Train a gate and return the experts of each query, best first."""
    gate: Predictor = build("predictors", spec)
    observer = observer_of(gate.needs)
    gate.fit(train.observed(observer, gate.needs))
    targets = [Target(name=name) for name in test.models]
    out = []
    for signals in test.observed(observer, gate.needs).observations(gate.needs):
        said = [f.quality for f in gate.predict(signals, targets)]
        out.append([targets[t].name for t in np.argsort(-np.asarray(said), kind="stable")])
    return out


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1600)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    train = table(corpus.retrieval_table(args.train, 0, split="train"))
    lookups = [look for seed in range(1, args.seeds + 1) for look in corpus.lookups(args.queries, seed)]
    test = table([r for seed in range(1, args.seeds + 1) for r in corpus.retrieval_table(args.queries, seed)])
    documents, searchers = corpus.documents(), corpus.searchers()
    lists: list[dict[str, list[Passage]]] = [
        {name: search(documents, s, look.query, corpus.TOP) for name, s in searchers.items()} for look in lookups
    ]
    _, about_Q = np.unique([look.about for look in lookups], return_inverse=True)
    quality_QT = test.quality_QM
    best = int(train.quality_QM.mean(axis=0).argmax())
    fixed_Q, oracle_Q = quality_QT[:, best], quality_QT.max(axis=1)

    def fused(names: list[list[str]]) -> Floats:
        """Quality of what the named experts of each query find together."""
        out = []
        for look, found, few in zip(lookups, lists, names, strict=True):
            out.append(corpus.ndcg([p.id for p in fuse([found[n] for n in few if found[n]] or [[]], K)], look.about))
        return np.asarray(out)

    ways: dict[str, Floats] = {name: quality_QT[:, t] for t, name in enumerate(test.models)}
    ways["all fused"] = fused([list(test.models)] * len(lookups))
    for name, spec in GATES.items():
        order = chosen(spec, train, test)
        for most in (1, 2):
            ways[f"gate {name}, most {most}"] = fused([names[:most] for names in order])
    sets = np.asarray(test.datasets)
    by_set = {
        s: int(train.quality_QM[np.asarray(train.datasets) == s].mean(axis=0).argmax()) for s in set(test.datasets)
    }
    ways["oracle by data set"] = quality_QT[np.arange(len(sets)), [by_set[s] for s in test.datasets]]
    ways["oracle by query"] = oracle_Q

    report = {}
    for name, way_Q in ways.items():
        gain = paired_bootstrap(np.column_stack([way_Q, fixed_Q]), lambda m: float(m[0] - m[1]), groups_Q=about_Q)
        closed = gain.value / float(oracle_Q.mean() - fixed_Q.mean())
        report[name] = {
            "ndcg": float(way_Q.mean()),
            "gain": gain.value,
            "low": gain.low,
            "high": gain.high,
            "closed": closed,
        }
    if args.json:
        print(json.dumps(report))
    else:
        print(
            f"{len(lookups):,} fresh queries about {about_Q.max() + 1} documents; the best single expert is {test.models[best]}"
        )
        for name, r in report.items():
            print(
                f"  {name:26} nDCG@10 {r['ndcg']:.3f}   gain {r['gain']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]   closes {r['closed']:4.0%}"
            )
    pilots = report["gate pilots, most 1"]
    if args.check and not (pilots["low"] > 0.0 and pilots["closed"] < 1.0):
        print("missed: pilots do not lie between the best single expert and the oracle", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
