"""One ranking of the targets out of many, which a minority of false ones cannot turn. After federated rank learning.

    position of an item = mean over clients of its place in their ranking (0 is the best);  order by position, ties by name

Mozaffari, Shejwalkar, Houmansadr, 2021, arXiv 2110.04350 (FRL, USENIX Security 2023): there clients rank the edges of a network and the server
adds up the positions and hands the sorted scores it began with out along the new order; here clients rank targets by what they judged. A client is
one bounded vote, whatever it scores and however often; `means` gives it one say in the scores as well. What follows (ours; property-tested in tests/test_ranking.py): f of n clients move the
mean position of one of M items by at most f (M - 1) / n, so two items whose honest gap is wider than 2 f (M - 1) / n cannot be swapped.

Ours: a ranking may leave items out, which then stand at the mean place, and the others around it, so that who compared two targets says
which of them is better and nothing of the rest; an item that stands there twice counts where it stands first; equal scores share their places; `trim` leaves out the highest and lowest share
of the positions of each item, which matters: false clients stand at the ends (benchmarks/people.py). What it cannot see is one person behind many clients: name a client by what is checked (a key, a tenant).

With no attackers it knows less than the mean of scores: by how much it is better is lost. Cost: n M log M; 1,000 clients of 10 targets: 5 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor
from statistics import fmean

from fairlead.types import Feedback


def positions(ranking: Sequence[str] | Mapping[str, float], items: Sequence[str]) -> dict[str, float]:
    """Return the place of each of `items`, 0 for the best.

    Args:
        ranking: names, best first, or scores by name, highest best. Names that are not among `items` are passed over.
        items: what is ranked, without repetition.
    """
    known = set(items)
    ordered: dict[str, float] = {}
    if isinstance(ranking, Mapping):
        scores = {name: score for name, score in ranking.items() if name in known}
        place = 0
        for score in sorted(set(scores.values()), reverse=True):
            equal = [name for name in scores if scores[name] == score]
            ordered.update(dict.fromkeys(equal, place + 0.5 * (len(equal) - 1)))
            place += len(equal)
    else:
        ordered = {name: float(i) for i, name in enumerate(dict.fromkeys(n for n in ranking if n in known))}
    # What is left out takes the mean of all places, and the places of the rest lie around that.
    middle, own = 0.5 * (len(known) - 1), 0.5 * (len(ordered) - 1)
    return {name: middle + ordered[name] - own if name in ordered else middle for name in items}


def aggregate(
    rankings: Mapping[str, Sequence[str] | Mapping[str, float]], items: Iterable[str] = (), *, trim: float = 0.0
) -> list[tuple[str, float]]:
    """Return all items with their mean position, best first.

    Args:
        rankings: by client: names, best first, or scores by name.
        items: what is ranked; none: all that any client names. Say it where clients are not trusted, who could name a thousand.
        trim: share of positions that is left out at either end, per item, below 0.5.
    """
    if not 0.0 <= trim < 0.5:
        raise ValueError(f"trim must be at least 0 and below 0.5, not {trim}")
    all_items = sorted(set(items) or {name for ranking in rankings.values() for name in ranking})
    votes = [positions(ranking, all_items) for _, ranking in sorted(rankings.items())]
    cut = floor(trim * len(votes))
    out = []
    for name in all_items:
        places = sorted(vote[name] for vote in votes)[cut : len(votes) - cut]
        out.append((name, sum(places) / len(places) if places else 0.0))
    return sorted(out, key=lambda entry: (round(entry[1], 9), entry[0]))


def reassigned(order: Sequence[str], scores: Mapping[str, float]) -> dict[str, float]:
    """Hand the scores out anew along `order`, the best to the first: the ranking of the many, on the scale of what was measured (FRL)."""
    ranked = [name for name in order if name in scores]
    return dict(zip(ranked, sorted((scores[name] for name in ranked), reverse=True), strict=True))


def means(clients: Mapping[str, Mapping[str, float]], *, trim: float = 0.0) -> dict[str, float]:
    """Return for each item the mean over clients of what each scores it, the highest and lowest share `trim` of them left out."""
    scores: dict[str, list[float]] = {}
    for row in clients.values():
        for name, score in row.items():
            scores.setdefault(name, []).append(score)
    out = {}
    for name, found in scores.items():
        cut = floor(trim * len(found))
        out[name] = fmean(sorted(found)[cut : len(found) - cut])
    return out


def by_client(judged: Iterable[tuple[Feedback, str]]) -> dict[str, dict[str, float]]:
    """Return what each client judged: by client, the mean value of each target.

    Args:
        judged: judgements that stand, each with the target whose answer it judges.

    A client is a key where there are keys, and a source where there are none.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    for feedback, target in judged:
        row = sums.setdefault(feedback.by or feedback.source, {}).setdefault(target, [0.0, 0.0])
        row[0] += feedback.confidence
        row[1] += feedback.confidence * feedback.value
    return {c: {t: total / n for t, (n, total) in row.items() if n > 0.0} for c, row in sorted(sums.items())}
