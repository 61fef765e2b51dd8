"""How good, how fast and how different are the lab's tiny models? What routing on them rests on, measured on fresh test prompts.

    python benchmarks/lab.py [--prompts 3000] [--seed 31] [--json] [--check]

Prompts are of the test split, which no training run can have seen; tasks even, levels in the usual mix; answers are greedy. Accuracy is
exact match, with half a 95% interval. AUROC: how well an answer's mean log-probability ranks right above wrong. Tokens a second are those
of one thread, prompt included, in CPU time (so that other programs do not count).

A specialist is worth having if it beats the strongest model in some task of its field: paired differences with 95% bootstrap intervals.
There are several tasks, so one may come out above 0 by chance; "sure" says whether it stays above 0 at a level corrected for their number.

With ``--check`` the exit code is 1 if the largest model writes fewer than 150 tokens a second, or a specialist surely beats the strongest
in no task. Reported but not failed: the strongest outside .85 to .95, the smallest outside .40 to .60.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"  # one core: read by numpy's libraries when they are loaded, so before anything else

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from typing import Any, Final  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from fairlead.bench.metrics import auroc, paired_bootstrap  # noqa: E402
from fairlead.lab.pool import MODELS, TARGETS, describe, load  # noqa: E402
from fairlead.lab.table import OutcomeRow, outcome_table  # noqa: E402
from fairlead.lab.tasks import draw, tasks_of  # noqa: E402

LEAST_TOKENS_PER_SECOND: Final = 150.0
STRONGEST: Final = (0.85, 0.95)
SMALLEST: Final = (0.40, 0.60)
TIMED_PROMPTS: Final = 200
RESAMPLES: Final = 4000
LEAST_PROMPTS: Final = 20
"""Of a task, before a gain counts: a bootstrap over a handful knows no doubt."""

Floats = NDArray[np.float64]


def measure(prompts: int, seed: int) -> dict[str, Any]:
    """Ask every target every prompt."""
    rows = outcome_table(prompts, 1, seed, progress=_progress)
    names = [t.name for t in TARGETS]
    right_QT = _column(rows, "quality", prompts)
    sure_QT = _column(rows, "confidence_logprob", prompts)
    usd_QT = _column(rows, "cost_usd", prompts)
    first = rows[:: len(names)]
    task_Q, field_Q = np.array([r["dataset"] for r in first]), np.array([r["domain"] for r in first])
    strongest = names[int(right_QT.mean(0).argmax())]
    models = []
    for t, target in enumerate(TARGETS):
        entry = describe(target.model)
        own_Q = np.isin(field_Q, entry.fields)
        models.append(
            {
                "name": target.name,
                "parameters": entry.parameters,
                "accuracy": _share(right_QT[:, t]),
                "fields": {f: _share(right_QT[field_Q == f, t]) for f in ("numbers", "text")},
                "auroc": _known(auroc(sure_QT[:, t], right_QT[:, t])),
                "auroc_own_field": _known(auroc(sure_QT[own_Q, t], right_QT[own_Q, t])),
                "usd_per_million": float(usd_QT[:, t].mean()) * 1e6,
                "tokens_per_second": tokens_per_second(target.model, target.mode, min(prompts, TIMED_PROMPTS), seed),
            }
        )
    direct_QT = right_QT[:, [t for t, target in enumerate(TARGETS) if target.mode == "direct"]]
    return {
        "prompts": prompts,
        "seed": seed,
        "models": models,
        "strongest": strongest,
        "smallest": min(MODELS.values(), key=lambda m: m.parameters).name,
        "largest": max(MODELS.values(), key=lambda m: m.parameters).name,
        "oracle": _share(right_QT.max(1)),
        "oracle_direct": _share(direct_QT.max(1)),
        "nobody": _share(1.0 - right_QT.max(1)),
        "everybody": _share(right_QT.min(1)),
        "specialists": {
            name: against(name, strongest, names, right_QT, task_Q)
            for name, entry in MODELS.items()
            if len(entry.fields) == 1
        },
    }


def against(
    specialist: str, strongest: str, names: list[str], right_QT: Floats, task_Q: NDArray[Any]
) -> list[dict[str, Any]]:
    """Compare each way of asking a specialist with the strongest target, task by task; best first."""
    mine = [t.name for t in TARGETS if t.model == specialist and t.name != strongest]
    tasks = [task for task in tasks_of(describe(specialist).fields[0]) if (task_Q == task).sum() > 1]
    sure = 1.0 - 0.05 / max(1, len(mine) * len(tasks))
    found = []
    for name in mine:
        for task in tasks:
            pair_QC = right_QT[task_Q == task][:, [names.index(name), names.index(strongest)]]
            at = paired_bootstrap(pair_QC, lambda m: float(m[0] - m[1]), resamples=RESAMPLES)
            strict = paired_bootstrap(pair_QC, lambda m: float(m[0] - m[1]), resamples=RESAMPLES, level=sure)
            found.append(
                {
                    "target": name,
                    "task": task,
                    "prompts": len(pair_QC),
                    "gain": at.value,
                    "low": at.low,
                    "high": at.high,
                    "sure": strict.low > 0.0,
                }
            )
    return sorted(found, key=lambda f: (-f["low"], -f["gain"]))


def tokens_per_second(model: str, mode: Any, prompts: int, seed: int) -> float:
    """Write answers one after the other; tokens per second of CPU time, of one thread."""
    network, tokens = load(model), 0
    examples = draw(prompts, seed, split="test")
    network.generate(examples[0].prompt, mode=mode)
    start = time.process_time()
    for example in examples:
        tokens += network.generate(example.prompt, mode=mode)[0].completion_tokens
    return tokens / (time.process_time() - start)


def problems(result: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Say what must not be, and what should not be."""
    by = {m["name"]: m for m in result["models"]}
    wrong, doubtful = [], []
    speed = by[result["largest"]]["tokens_per_second"]
    if speed < LEAST_TOKENS_PER_SECOND:
        wrong.append(
            f"{result['largest']} writes {speed:.0f} tokens a second, fewer than {LEAST_TOKENS_PER_SECOND:.0f}"
        )
    for name, found in result["specialists"].items():
        # A specialist that is itself the strongest needs no proof.
        itself = result["strongest"] in {t.name for t in TARGETS if t.model == name}
        if not itself and not any(f["sure"] and f["prompts"] >= LEAST_PROMPTS for f in found):
            wrong.append(f"{name} surely beats {result['strongest']} in no task of its field")
    for role, (low, high) in (("strongest", STRONGEST), ("smallest", SMALLEST)):
        accuracy = by[result[role]]["accuracy"]["value"]
        if not low <= accuracy <= high:
            doubtful.append(f"the {role}, {result[role]}, is right in {accuracy:.1%}, outside {low:.0%} to {high:.0%}")
    return wrong, doubtful


def table(result: dict[str, Any]) -> str:
    """Lay the result out for people."""
    head = f"{'':<21}{'parameters':>11}{'all':>15}{'numbers':>15}{'text':>15}{'AUROC':>7}{'own':>7}{'USD/1M':>8}{'tokens/s':>10}"
    lines = [f"{result['prompts']} test prompts, seed {result['seed']}", "", head]
    for m in result["models"]:
        aurocs = "".join(f"{'-' if a is None else f'{a:.3f}':>7}" for a in (m["auroc"], m["auroc_own_field"]))
        shares = "".join(f"{_show(s):>15}" for s in (m["accuracy"], *m["fields"].values()))
        lines.append(
            f"{m['name']:<21}{m['parameters']:>11,}{shares}{aurocs}"
            f"{m['usd_per_million']:>8.1f}{m['tokens_per_second']:>10.0f}"
        )
    lines += [
        "",
        f"some target is right (oracle):  {_show(result['oracle'])}   without scratch: {_show(result['oracle_direct'])}",
        f"nobody is right:                {_show(result['nobody'])}",
        f"everybody is right:             {_show(result['everybody'])}",
    ]
    for name, found in result["specialists"].items():
        lines += ["", f"{name} against {result['strongest']}, by task (gain in points, 95% interval):"]
        for f in found[:4]:
            gain = f"{100 * f['gain']:+6.1f} [{100 * f['low']:+.1f}, {100 * f['high']:+.1f}]"
            lines.append(
                f"  {f['target']:<21}{f['task']:<15}{gain:<26}{f['prompts']:>4} prompts{'  sure' if f['sure'] else ''}"
            )
    return "\n".join(lines)


def _column(rows: list[OutcomeRow], name: str, prompts: int) -> Floats:
    return np.array([float(row[name]) for row in rows]).reshape(prompts, -1)  # type: ignore[literal-required]


def _share(right: Floats) -> dict[str, float | None]:
    """Return a share with half of its Wilson 95% interval, which is not zero where all or none are right."""
    n, z = right.size, 1.96
    if not n:
        return {"value": None, "half_95": None}
    p = float(right.mean())
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"value": p, "half_95": half}


def _show(share: dict[str, float | None]) -> str:
    p, half = share["value"], share["half_95"]
    return "-" if p is None or half is None else f"{100 * p:.1f}% ± {100 * half:.1f}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _progress(done: int, n: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{n} prompts", end="\n" if done == n else "", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, and with `--check` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=31, help="which prompts (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a mark is missed")
    args = parser.parse_args()
    result = measure(args.prompts, args.seed)
    wrong, doubtful = problems(result)
    result |= {"wrong": wrong, "doubtful": doubtful}
    print(json.dumps(result, indent=2) if args.json else table(result))
    for word, said in (("doubtful", doubtful), ("WRONG", wrong)):
        for line in said:
            print(f"{word}: {line}", file=sys.stderr)
    return 1 if args.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
