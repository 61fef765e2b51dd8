"""GQR: how well a router sends in-domain queries where they belong and refuses all others, in one number.

After GQR-Bench (Šléher et al. 2025, arXiv 2505.14524):

    ID  = share of in-domain queries sent to the right domain (a refusal is wrong)
    OOD = mean over the out-of-domain sets of the share refused: every set counts the same, however large
    GQR = 2 ID OOD / (ID + OOD), 0 when both are 0

Tests: `tests/bench/test_gqr.py` recomputes the rows that the paper prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from fairlead.bench.metrics import guarded_score


class Guarded(Struct, frozen=True, kw_only=True):
    """What `judge` found. All shares in [0, 1]."""

    id_accuracy: float
    ood_rejection: float
    gqr: float
    id_accepted: float
    """Share of in-domain queries that were sent to some domain, right or wrong."""
    rejected: dict[str, float]
    """Share refused, by out-of-domain set."""


def judge(truth: Sequence[str], said: Sequence[str | None], outside: Mapping[str, Sequence[str | None]]) -> Guarded:
    """Judge what a router said: a domain's name, or None where it refused.

    Args:
        truth: the domain of each in-domain query.
        said: what was said of it.
        outside: what was said of the queries of each out-of-domain set, by the set's name.

    Raises:
        ValueError: without in-domain queries or out-of-domain sets, for an empty set, or where `truth` and `said` differ in length.
    """
    if not truth or not outside or not all(outside.values()):
        raise ValueError("give in-domain queries and at least one out-of-domain set, none of them empty")
    right = sum(t == s for t, s in zip(truth, said, strict=True)) / len(truth)
    rejected = {name: sum(s is None for s in answers) / len(answers) for name, answers in outside.items()}
    ood = sum(rejected.values()) / len(rejected)
    return Guarded(
        id_accuracy=right,
        ood_rejection=ood,
        gqr=guarded_score(right, ood),
        id_accepted=sum(s is not None for s in said) / len(said),
        rejected=rejected,
    )
