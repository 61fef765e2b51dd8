"""Which answer to keep: the lowest free energy among candidates, and thresholds on confidence in cascades. Figures of docs/guides/plans.md.

    [FAIRLEAD_DATA=…] python benchmarks/answers.py [--prompts 1500] [--seed 77] [--json]

**Candidates**, as the hard path of `fast_slow` has them: a greedy answer of one lab model, and five of another (one greedy, the others drawn). Fresh
prompts of the test split, all taken as hard. Compared with the majority of the six, paired: the lowest free energy as it is, and aligned by z-scores
whose means and deviations are measured on a third of the prompts, which is not judged. Also a draw at random, each model alone, and the oracle.

**Judges.** Six models of like errors, each twice as dear as the one before, and a judge of each answer that costs nothing and errs by chance: the
cascade's gain over mixing single models at equal cost. Simulated, with 200,000 queries.

**Thresholds** (with FAIRLEAD_DATA): every pair of models of rational_cascades of which the second is better and at least three times as dear, at four weights of a
dollar; the threshold on the first one's recorded confidence is fitted on four folds and judged on the fifth, and asking for the confidence is
charged. Gain over mixing single models: in how many settings its 95% interval lies above 0, and below. The best of many is lucky: it is not to be quoted alone.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"  # read by numpy's libraries when they are loaded

import argparse  # noqa: E402
import json  # noqa: E402
from itertools import permutations  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from fairlead.bench.energies import calibration, from_outcomes  # noqa: E402
from fairlead.bench.metrics import paired_bootstrap, quality_at_cost  # noqa: E402
from fairlead.bench.verifying import cross_validated  # noqa: E402
from fairlead.lab.model import Completion  # noqa: E402
from fairlead.lab.pool import load  # noqa: E402
from fairlead.lab.tasks import check, draw, final_answer  # noqa: E402
from fairlead.plans.fast_slow import FastSlow  # noqa: E402
from fairlead.plans.single import Single  # noqa: E402
from fairlead.plans.vote import elect  # noqa: E402
from fairlead.table import OutcomeTable  # noqa: E402
from fairlead.types import Outcome  # noqa: E402

PAIRS: Final = (
    ("lab-small", "lab-large", 0.3),
    ("lab-small", "lab-large", 0.8),
    ("lab-nano", "lab-small", 0.8),
    ("lab-large", "lab-numbers", 0.8),
)
"""Fast, slow, temperature."""
WEIGHTS: Final = (0.0, 1.0, 10.0)
DRAWS: Final = 5
RIGHT: Final = (0.5, 0.6, 0.7, 0.75, 0.8, 0.82)
Floats = NDArray[np.float64]


def candidates(fast: str, slow: str, temperature: float, prompts: int, seed: int) -> dict[str, Any]:
    """Judge ways to choose among six answers."""
    asked, right = [], []
    for i, example in enumerate(draw(prompts, seed, split="test")):
        drawn = load(slow).generate(example.prompt)
        drawn += load(slow).generate(example.prompt, n=DRAWS - 1, temperature=temperature, seed=i)
        asked.append(
            [*(_outcome(slow, c) for c in drawn), *(_outcome(fast, c) for c in load(fast).generate(example.prompt))]
        )
        right.append(
            [*(check(example, c.text) for c in drawn), check(example, load(fast).generate(example.prompt)[0].text)]
        )
    third = prompts // 3
    measured = [o for outcomes in asked[:third] for o in outcomes]
    right_QC = np.asarray(right[third:], dtype=np.float64)
    judged = asked[third:]
    found: dict[str, Floats] = {"majority": _picked(judged, right_QC, lambda o: elect(o, [1.0] * len(o), "text"))}
    for weight in WEIGHTS:
        for aligned in (False, True):
            plan = FastSlow(
                fast=Single(target=fast),
                slow=Single(target=slow),
                weight=weight,
                calibration=calibration(from_outcomes(measured, weight=weight))[""] if aligned else {},
            )
            found[f"energy, weight {weight:g}{', aligned' if aligned else ''}"] = _picked(judged, right_QC, plan.choose)
    found |= {
        f"{fast} alone": right_QC[:, -1],
        f"{slow} alone": right_QC[:, 0],
        "at random": right_QC.mean(axis=1),
        "oracle": right_QC.max(axis=1),
    }
    rows = {}
    for name, quality_Q in found.items():
        pair_QC = np.stack([quality_Q, found["majority"]], axis=1)
        gain = paired_bootstrap(pair_QC, lambda m: float(m[0] - m[1]), resamples=2000)
        rows[name] = {"quality": float(quality_Q.mean()), "over_majority": [gain.value, gain.low, gain.high]}
    return {"fast": fast, "slow": slow, "temperature": temperature, "judged": len(judged), "ways": rows}


def _outcome(target: str, completion: Completion) -> Outcome:
    return Outcome(target=target, text=final_answer(completion.text), logprobs=completion.token_logprobs)


def _picked(judged: list[list[Outcome]], right_QC: Floats, choose: Any) -> Floats:
    """Whether the chosen answer is right. A way to choose names it by its text and target: equal ones are equally right."""
    out = []
    for outcomes, right_C in zip(judged, right_QC, strict=True):
        chosen = choose(outcomes)
        out.append(
            next(
                r for o, r in zip(outcomes, right_C, strict=True) if (o.text, o.target) == (chosen.text, chosen.target)
            )
        )
    return np.asarray(out)


def judges(error: float, queries: int = 200_000) -> float:
    """Return the gain of a cascade over mixing, with a judge that errs so often."""
    rng = np.random.default_rng(0)
    hardness_Q = rng.random(queries)
    usd_M = 2.0 ** np.arange(len(RIGHT))
    quality_Q, usd_Q = np.zeros(queries), np.zeros(queries)
    on_Q = np.ones(queries, dtype=np.bool_)
    for m, share in enumerate(RIGHT):
        # Quantiles of 0.8 u + 0.2 v in their straight part: P(sum < x) = (x - 0.1) / 0.8.
        right_Q = 0.8 * hardness_Q + 0.2 * rng.random(queries) < 0.1 + 0.8 * share
        kept_Q = on_Q & ((right_Q != (rng.random(queries) < error)) | (m == len(RIGHT) - 1))
        usd_Q[on_Q] += usd_M[m]
        quality_Q[kept_Q] = right_Q[kept_Q]
        on_Q &= ~kept_Q
    return float(quality_Q.mean() - quality_at_cost(usd_M, np.asarray(RIGHT), usd_Q.mean()))


def thresholds(path: Path) -> dict[str, Any]:
    """Fit thresholds on recorded confidences, out of fold."""
    table = OutcomeTable.read(path)
    sure_QM, asking_QM = (table.extra(c)[:, :, 0] for c in ("confidence_logprob", "cost_usd_logged"))
    usd_QM, quality_QM = table.usd_QM, table.quality_QM
    m_ = len(table.models)
    usd_M, quality_M = usd_QM.mean(axis=0), quality_QM.mean(axis=0)
    gains = []
    for a, b in permutations(range(m_), 2):
        if usd_M[b] < 3.0 * usd_M[a] or quality_M[b] <= quality_M[a]:
            continue
        for factor in (0.1, 0.3, 1.0, 3.0):
            fitted = cross_validated(
                sure_QM[:, [a]],
                quality_QM[:, [a, b]],
                np.stack([asking_QM[:, a], usd_QM[:, b]], axis=1),
                usd_weight=factor * (quality_M[b] - quality_M[a]) / (usd_M[b] - usd_M[a]),
                groups_Q=table.groups,
            )
            values_QC = np.column_stack([usd_QM, quality_QM, fitted.usd_Q, fitted.quality_Q])

            def gain(mean_C: Floats) -> float:
                cost = max(mean_C[-2], mean_C[:m_].min())
                return float(mean_C[-1] - quality_at_cost(mean_C[:m_], mean_C[m_:-2], cost))

            gains.append(paired_bootstrap(values_QC, gain, resamples=500, groups_Q=table.groups))
    return {
        "settings": len(gains),
        "above": sum(g.low > 0.0 for g in gains),
        "below": sum(g.high < 0.0 for g in gains),
        "best": max(g.value for g in gains),
        "median": float(np.median([g.value for g in gains])),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    args = parser.parse_args()
    folder = os.environ.get("FAIRLEAD_DATA")
    found: dict[str, Any] = {
        "candidates": [candidates(*pair, args.prompts, args.seed) for pair in PAIRS],
        "judges": {f"{error:.2f}": judges(error) for error in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)},
        "thresholds": thresholds(Path(folder) / "outcomes" / "rational_cascades_train.parquet") if folder else None,
    }
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for pair in found["candidates"]:
        print(
            f"\n{pair['fast']} and {DRAWS} of {pair['slow']} at temperature {pair['temperature']}: {pair['judged']} prompts"
        )
        for name, row in pair["ways"].items():
            print("  {:<28} {:.3f}   {:+.3f} [{:+.3f}, {:+.3f}]".format(name, row["quality"], *row["over_majority"]))
    print("\njudge error -> gain of a cascade of six over mixing")
    print("  " + ", ".join(f"{error} {gain:+.3f}" for error, gain in found["judges"].items()))
    print(
        "\nthresholds out of fold: "
        + (json.dumps(found["thresholds"]) if folder else "left out (FAIRLEAD_DATA is not set)")
    )


if __name__ == "__main__":
    main()
