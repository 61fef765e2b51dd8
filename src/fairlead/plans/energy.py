"""Free energy of an answer: how surprising, and how erratic, the model found what it wrote. Lower is better.

    F(y | x) = -(1/L) sum_t log p_t + weight * Var_t[log p_t]

The choice rule of ODAR (2026, arXiv 2602.23681), which calls the second term varentropy; here it is the variance over the answer's own tokens. The
paper's weight (lambda) is not known to us: it is a parameter. Energies of different models are not on one scale. Two remedies, both in the paper: per
character instead of per token, so that tokenizers matter less (here L/C * F for C characters: the whole energy, shared out over them), and
z-scores per model with the mean and standard deviation on a calibration set (`fairlead.bench.energies` measures them).

An energy says how usual the model found its text, not that it is right: where the two are unrelated, the lowest is as good as any other. No
log-probabilities, no energy: None, never 0. Cost: 2 µs for 20 tokens.

Checked in tests/plans/test_energy.py: what F does not depend on, alignment, what is missing, what it is worth and when nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, isfinite

LAMBDA = 1.0
"""Default weight of the variance. Ours: on the lab's models it hardly matters (from 0 to 10 quality moves by less than half a point)."""
FLAT = 1e-9
"""A standard deviation below this share of the mean is none: what is left of equal numbers after rounding."""


def free_energy(
    logprobs: Sequence[float] | None, *, weight: float = LAMBDA, characters: int | None = None
) -> float | None:
    """Return F, in nats per token, or per character if their number is given; None if it cannot be told.

    Args:
        logprobs: of the answer's tokens, each at most 0.
        weight: of their variance.
        characters: how many the answer has.
    """
    if not logprobs or characters == 0:
        return None
    tokens = len(logprobs)
    try:
        mean = fsum(logprobs) / tokens  # fsum: the same in whatever order
        energy = -mean + weight * fsum((p - mean) ** 2 for p in logprobs) / tokens
    except (OverflowError, ValueError):  # too large, or infinite to both sides
        return None
    if characters is not None:
        energy *= tokens / characters
    return energy if isfinite(energy) else None


def aligned(energy: float, mean: float, sd: float) -> float:
    """Return the z-score of an energy. 0 for a model whose energies never differed (`sd` 0): they tell its answers not apart."""
    return 0.0 if sd <= FLAT * abs(mean) else (energy - mean) / sd
