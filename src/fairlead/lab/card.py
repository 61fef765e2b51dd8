"""Measure the shipped models and write their card: `python -m fairlead.lab.card`.

Everything in `weights/CARD.md` comes from this file and the weight files: what each run was and
did, accuracy on fresh test prompts in the usual mix of levels and by task and level, how well the
mean log-probability tells right from wrong (AUROC, the chance that a right answer is surer than a
wrong one, ties counted half), and what a pool of them could reach.

Cost: about two minutes on one core.  Ours, no paper.
"""

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from tqdm import tqdm

from fairlead.lab.pool import MODELS, TARGETS, WEIGHTS, describe, load
from fairlead.lab.table import OutcomeRow, outcome_table
from fairlead.lab.tasks import LEVEL_MIX, LEVELS, TASKS, field_of

CARD: Final = WEIGHTS / "CARD.md"
MIX_PROMPTS: Final = 2_000
CELL_PROMPTS: Final = 30
SEED: Final = 2_026

# What a weight file cannot say about its run; empty it when the models are trained anew.
RUN_NOTES: Final = (
    "`lab-large` was stopped once, at step 8,350, and went on from its checkpoint: until then its rates were 5/3 of",
    "the recipe's, and sums, differences and stories at levels 2 to 5 had larger numbers than they have now.",
    "",
)


class _Outcome(NamedTuple):
    task: str
    field: str
    level: int
    right: bool
    confidence: float
    cost_usd: float
    latency_s: float


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Area under the ROC curve by ranks; NaN if all are right or all wrong."""
    value = np.asarray(scores)
    truth = np.asarray(right, dtype=bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = np.unique(value, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((mean_rank[inverse][truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _by_target(rows: Iterable[OutcomeRow]) -> dict[str, list[_Outcome]]:
    outcomes: dict[str, list[_Outcome]] = {target.name: [] for target in TARGETS}
    for row in rows:
        outcomes[row["model"]].append(
            _Outcome(
                row["dataset"],
                row["domain"],
                row["level"],
                row["quality"] == 1.0,
                row["confidence_logprob"],
                row["cost_usd"],
                row["latency_s"],
            )
        )
    return outcomes


def share(right: Iterable[bool]) -> float:
    """The share that is right; NaN of nothing."""
    found = list(right)
    return sum(found) / len(found) if found else math.nan


def _share(outcomes: Iterable[_Outcome]) -> float:
    return share(outcome.right for outcome in outcomes)


def percent(value: float) -> str:
    """A share in %; a dash for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table, and an empty one."""
    return [_line(head), _line(["---"] * len(head)), *(_line(row) for row in rows), ""]


def _runs() -> list[str]:
    rows = []
    for name, entry in MODELS.items():
        about = load(name).about
        shape = entry.shape
        rows.append(
            (
                f"`{name}`",
                f"{shape.width} x {shape.layers}, {shape.heads} heads",
                f"{entry.parameters:,}",
                ", ".join(entry.fields),
                " ".join(f"{weight:g}" for weight in about["level_weights"]),
                f"{about['scratch_share']:g}",
                about["seed"],
                f"{about['steps']:,}",
                f"{about['tokens'] / 1e6:.1f} M",
                about["minutes"],
                f"{entry.file.stat().st_size / 1e6:.2f} MB",
            )
        )
    head = (
        "model",
        "shape",
        "parameters",
        "fields",
        "level weights 1-5",
        "scratch share",
        "seed",
        "steps",
        "tokens",
        "minutes",
        "file",
    )
    return table(head, rows)


def _headline(outcomes: dict[str, list[_Outcome]]) -> list[str]:
    rows = []
    for target in TARGETS:
        mine = outcomes[target.name]
        own = [outcome for outcome in mine if outcome.field in describe(target.model).fields]
        rows.append(
            (
                f"`{target.name}`",
                percent(_share(mine)),
                *(percent(_share(o for o in mine if o.field == field)) for field in ("numbers", "text")),
                *(percent(_share(o for o in mine if o.level == level)) for level in LEVELS),
                f"{auroc([o.confidence for o in own], [o.right for o in own]):.3f}",
                f"{auroc([o.confidence for o in mine], [o.right for o in mine]):.3f}",
                f"{1e6 * sum(o.cost_usd for o in mine) / len(mine):.1f}",
                f"{1e3 * sum(o.latency_s for o in mine) / len(mine):.1f}",
            )
        )
    head = (
        "target",
        "all",
        "numbers",
        "text",
        *(f"level {level}" for level in LEVELS),
        "AUROC own field",
        "AUROC all",
        "USD per million calls",
        "ms a call",
    )
    return table(head, rows)


def _pool(outcomes: dict[str, list[_Outcome]]) -> list[str]:
    names = list(MODELS)
    right = np.array([[o.right for o in outcomes[name]] for name in names])
    fields = np.array([o.field for o in outcomes[names[0]]])
    specialist = np.where(fields == "numbers", right[names.index("lab-numbers")], right[names.index("lab-text")])
    best = max(range(len(names)), key=lambda index: right[index].mean())
    rows = [
        (f"best model alone (`{names[best]}`)", percent(float(right[best].mean()))),
        ("the specialist of the prompt's field", percent(float(specialist.mean()))),
        ("some model is right (oracle over the five)", percent(float(right.any(axis=0).mean()))),
        ("no model is right", percent(float((~right.any(axis=0)).mean()))),
        ("every model is right", percent(float(right.all(axis=0).mean()))),
    ]
    return table(("over the five models, direct", "% of prompts"), rows)


def _cells(outcomes: dict[str, list[_Outcome]]) -> list[str]:
    rows = []
    for task in TASKS:
        row: list[str] = [f"{task} ({field_of(task)})"]
        for target in TARGETS:
            mine = [o for o in outcomes[target.name] if o.task == task]
            row.append(" ".join(f"{100 * _share(o for o in mine if o.level == level):.0f}" for level in LEVELS))
        rows.append(row)
    return table(("task", *(target.name.removeprefix("lab-") for target in TARGETS)), rows)


def make_card(*, mix_prompts: int = MIX_PROMPTS, cell_prompts: int = CELL_PROMPTS, seed: int = SEED) -> str:
    """The card as Markdown, measured now."""
    total = mix_prompts + cell_prompts * len(LEVELS) * len(TASKS)
    with tqdm(total=total, desc="measuring") as bar:

        def advance(_done: int, _of: int) -> None:
            bar.update()

        mixed = outcome_table(mix_prompts, 1, seed, progress=advance)
        cells: list[OutcomeRow] = []
        for index, task in enumerate(TASKS):
            for level in LEVELS:
                only = [float(level == other) for other in LEVELS]
                cells += outcome_table(
                    cell_prompts,
                    1,
                    seed + 100 * index + level,
                    tasks=[task],
                    level_mix=only,
                    progress=advance,
                )
    on_mix, on_cells = _by_target(mixed), _by_target(cells)
    lines = [
        "# Model card of the lab",
        "",
        "Written by `python -m fairlead.lab.card`; do not edit.",
        "",
        "Five byte-level transformers, trained from nothing by `python -m fairlead.lab.train` on the",
        "synthetic tasks of `fairlead/lab/tasks.py` and on nothing else. They do those fourteen tasks",
        "and have no other knowledge or language: an answer to anything else is noise, often a sure one.",
        "They exist so that routing can be shown, tested and learnt on real models on any machine.",
        "Licence: that of this repository.",
        "",
        "## Training",
        "",
        "Prompts are made as they are needed; a hash of the prompt's text decides its split, so no test",
        "or development prompt was trained on (the same operands may occur in another phrasing). One seed",
        "each, so differences between runs of one recipe are not known. Minutes are of one core of a",
        "shared two-core machine. Tokens are input positions, padding included.",
        "",
        *_runs(),
        *RUN_NOTES,
        "## Accuracy on fresh test prompts",
        "",
        f"Exact match in %, greedy, {mix_prompts:,} test prompts (seed {seed}), tasks even, levels 1-5 mixed",
        f"{' / '.join(f'{100 * share:.0f}' for share in LEVEL_MIX)}%. The standard error of a figure over all prompts is at most",
        f"{100 * math.sqrt(0.25 / mix_prompts):.1f} points. AUROC: how well the mean log-probability of an answer ranks right above wrong.",
        "",
        *_headline(on_mix),
        "## What a pool could reach",
        "",
        *_pool(on_mix),
        "## Accuracy by task and level",
        "",
        f"Exact match in % at levels 1 2 3 4 5, {cell_prompts} test prompts a cell: a cell's standard error is up to",
        f"{100 * math.sqrt(0.25 / cell_prompts):.0f} points.",
        "",
        *_cells(on_cells),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: measure and write the card."""
    parser = argparse.ArgumentParser(prog="python -m fairlead.lab.card", description="Measure the lab's models.")
    parser.add_argument("--out", type=Path, default=CARD)
    parser.add_argument("--prompts", type=int, default=MIX_PROMPTS)
    parser.add_argument("--cell-prompts", type=int, default=CELL_PROMPTS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    card = make_card(mix_prompts=options.prompts, cell_prompts=options.cell_prompts, seed=options.seed)
    options.out.write_text(card)


if __name__ == "__main__":
    main()
