"""Mean and standard deviation of free energies per target, and per kind of task if wanted: what `fast_slow` aligns by (`calibration`).

ODAR (2026, arXiv 2602.23681) scores each model's energies by mean and deviation on a calibration set. Running sums by Welford (1962): one pass, and
exact where a sum of squares would cancel. From live traces, which hold the log-probabilities of tokens:

    found = calibration(from_outcomes(s.outcome for t in traces for s in t.steps if s.call and s.call.purpose == "answer"))
    plan = FastSlow(…, calibration=found[""])

An outcome table holds no log-probabilities of tokens, at best their mean: then F is known for weight 0 alone.

**Look before you align.** A z-score says how usual an answer is *for its model*: that one model is surer since it is better is lost. On the lab's
models, which share a tokenizer, it cost 2 to 16 points of quality in every pair that was tried (`benchmarks/answers.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite, sqrt
from typing import Literal, TypeAlias

from fairlead.plans.energy import LAMBDA, free_energy
from fairlead.table import OutcomeTable
from fairlead.types import Outcome

Sample: TypeAlias = tuple[str, str, float]
"""A kind of task (empty: not told apart), a target, and an energy."""


class Running:
    """Mean and standard deviation of numbers that come one by one (Welford)."""

    __slots__ = ("count", "mean", "squares")

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        """Take one more."""
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.squares += off * (value - self.mean)

    @property
    def sd(self) -> float:
        """Standard deviation of what has come; 0 before there are two."""
        return sqrt(self.squares / self.count) if self.count else 0.0


def calibration(samples: Iterable[Sample]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return (mean, sd) of the energies, by kind of task and then by target."""
    sums: dict[str, dict[str, Running]] = {}
    for task, target, energy in samples:
        sums.setdefault(task, {}).setdefault(target, Running()).add(energy)
    return {task: {target: (r.mean, r.sd) for target, r in sorted(of.items())} for task, of in sorted(sums.items())}


def from_outcomes(
    outcomes: Iterable[Outcome],
    *,
    task: str = "",
    weight: float = LAMBDA,
    per: Literal["token", "character"] = "token",
) -> Iterator[Sample]:
    """Yield the energies of answers; those without log-probabilities are left out. `weight` and `per` as the plan has them."""
    for outcome in outcomes:
        characters = len(outcome.text) if per == "character" else None
        energy = free_energy(outcome.logprobs, weight=weight, characters=characters)
        if outcome.ok and energy is not None:
            yield task, outcome.target, energy


def from_table(
    table: OutcomeTable, column: str = "confidence_logprob", *, by: Literal["", "dataset", "domain"] = ""
) -> Iterator[Sample]:
    """Yield the energies, of weight 0, of all recorded answers: their mean log-probability as `column` has it, negated.

    Raises:
        UnknownName: if there is no such column.
    """
    logprob_QMS = table.extra(column)
    nothing: list[str | None] = [None] * len(table)
    labels = {"": nothing, "dataset": table.datasets, "domain": table.domains}[by]
    for q, label in enumerate(labels):
        for m, target in enumerate(table.models):
            for value in logprob_QMS[q, m].tolist():
                if isfinite(value):
                    yield label or "", target, -value
