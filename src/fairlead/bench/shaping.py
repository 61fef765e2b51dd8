"""Rewards by which papers train models that route: pure functions of what a rollout did, so that they can be checked without a model.

**Rounds** (Router-R1, 2025, arXiv 2506.09033), for the router of the plan `rounds`; c is completion tokens times price, over the calls of an episode:

    -1                                                 if the format is broken (`fairlead.plans.rounds.faults`)
    (1 - alpha) outcome + alpha cost_reward            if outcome > 0, else 0: a wrong answer earns nothing for being cheap
    cost_reward = 1 - clip((sqrt c - lo) / (hi - lo), 0, 1);  1/2 where hi = lo;  lo, hi: 5th and 95th percentile of the last 1000 sqrt c

alpha has no default: between .6 and .7 the paper's accuracy drops abruptly, so sweep it.

**Sets** (TCAndon-Router, 2026, arXiv 2601.04544), for a router that names the agents A where A* would have been right:

    R1 = |A n A*| / max(1, |A|)     R2 = |A n A*| / max(1, |A*|)     R = alpha R1 + (1 - alpha) R2 - beta max(|A| - |A*|, 0)

The paper's prose describes R2 as all or nothing; `whole` takes it so. Its alpha and beta are not told; 0.5 and 0.1 are ours.

**Modes** (A2FM, 2025, arXiv 2510.12838), for a model that chooses between answering at once, reasoning, and tools; p is the rate at which answering
at once is right:

    r = r_format r_accuracy r_adaptive      r_adaptive = 1 - p^alpha if another mode was chosen though p is above `easy`, else 1

That the three are multiplied is inferred; from where on a query is easy is not told (here: from 0 on, as the penalty grows smoothly with p).

Masking (tokens that a model did not write teach it nothing) is a factor of the gradient; for choices out of a table it is here, in `group_gradient`.

Checked in tests/bench/test_shaping.py, with small tables in the place of models: what policy gradient makes of each reward.

Shapes: R rollouts of one group, A actions.
"""

from __future__ import annotations

import re
import string
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fairlead.plans.rounds import TAGS, faults
from fairlead.plans.tags import blocks
from fairlead.table import Floats

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)

# ------------------------------------------------------------------------------------------------------- answers


def normal(text: str) -> str:
    """Return an answer in the normal form of question answering: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Collection[str]) -> float:
    """Say, by 1 or 0, whether the answer is one of the right ones."""
    return float(normal(answer) in {normal(g) for g in golds})


def word_f1(answer: str, golds: Collection[str]) -> float:
    """Return the harmonic mean of precision and recall of words, against the right answer that it is closest to."""
    return max((_f1(normal(answer).split(), normal(g).split()) for g in golds), default=0.0)


def _f1(said: list[str], gold: list[str]) -> float:
    common = (Counter(said) & Counter(gold)).total()
    return 2.0 * common / (len(said) + len(gold)) if common else 0.0


# -------------------------------------------------------------------------------------------------------- rounds


class CostWindow:
    """Puts costs on a scale from 0 to 1 by what came lately. Keeps `size` costs; `low` and `high` are percentiles."""

    def __init__(self, *, size: int = 1000, low: float = 5.0, high: float = 95.0) -> None:
        if size < 1 or not 0.0 <= low < high <= 100.0:
            raise ValueError("a window needs a size of at least 1, and percentiles from 0 to 100, the low one first")
        self.size, self.low, self.high = size, low, high
        self._roots: deque[float] = deque(maxlen=size)

    def reward(self, cost: float) -> float:
        """Take in the cost of one episode (at least 0), and return how cheap it is: 1 the cheapest, 0 the dearest."""
        root = sqrt(cost)
        self._roots.append(root)
        lo, hi = np.percentile(self._roots, [self.low, self.high])
        return cheapness(root, float(lo), float(hi))


def cheapness(cost: float, lo: float, hi: float) -> float:
    """Return 1 for a cost of at most `lo`, 0 for `hi` or more, what is between in between; 1/2 where the two are the same."""
    return 0.5 if hi <= lo else 1.0 - min(max((cost - lo) / (hi - lo), 0.0), 1.0)


def weighed(outcome: float, cost_reward: float, alpha: float) -> float:
    """Weigh how right an answer is against how cheap; a wrong one earns nothing."""
    return (1.0 - alpha) * outcome + alpha * cost_reward if outcome > 0.0 else 0.0


def rounds_reward(
    episode: str,
    golds: Collection[str],
    *,
    names: Collection[str],
    cost_reward: float,
    alpha: float,
    outcome: Callable[[str, Collection[str]], float] = exact_match,
) -> float:
    """Reward a whole episode, from -1 to 1. `names`: the models that may be asked. `outcome`: `exact_match` or `word_f1`."""
    if faults(episode, names):
        return -1.0
    answer = (blocks(episode, TAGS) or ())[-1].text
    return weighed(outcome(answer, golds), cost_reward, alpha)


# ---------------------------------------------------------------------------------------------------------- sets


def set_reward(
    chosen: Collection[str], gold: Collection[str], *, alpha: float = 0.5, beta: float = 0.1, whole: bool = False
) -> float:
    """Reward a set of agents: precision, recall, and `beta` off for each one too many. An empty set, which a parser refuses, earns 0.

    `whole`: in the place of recall, whether all of `gold` are there.
    """
    a, right = set(chosen), set(gold)
    hit = len(a & right)
    precision, recall = hit / max(1, len(a)), hit / max(1, len(right))
    if whole:
        recall = float(hit == len(right) > 0)
    return alpha * precision + (1.0 - alpha) * recall - beta * max(len(a) - len(right), 0)


def undecided(sets: Sequence[Collection[str]], *, at_most: float = 0.6) -> bool:
    """Say whether a prompt is hard enough to train on: the set that a router names most often has at most that share of its rollouts."""
    return Counter(frozenset(s) for s in sets).most_common(1)[0][1] <= at_most * len(sets)


def mixed(right: Sequence[bool]) -> bool:
    """Say whether a group teaches anything: some of its rollouts are right, and not all."""
    return 0 < sum(right) < len(right)


# --------------------------------------------------------------------------------------------------------- modes


def mode_reward(
    accuracy: float, *, well_formed: bool, instant: bool, instant_rate: float, alpha: float = 2.0, easy: float = 0.0
) -> float:
    """Reward one rollout.

    Args:
        accuracy: how right its answer is, from 0 to 1.
        well_formed: whether it keeps to its mode's format; if not it earns nothing.
        instant: whether it answered at once.
        instant_rate: how often answering at once is right on this query.
        alpha: how sharply the penalty grows with that rate; larger ones tolerate heavy modes on queries of middling ease.
        easy: the rate above which there is a penalty.
    """
    if not well_formed:
        return 0.0
    penalised = not instant and instant_rate > easy
    return accuracy * (1.0 - instant_rate**alpha if penalised else 1.0)


def advantages(rewards_R: Sequence[float] | Floats) -> Floats:
    """Return rewards relative to their group: less the mean, over the standard deviation; all 0 where all are alike."""
    rewards_R = np.asarray(rewards_R, dtype=np.float64)
    if np.all(rewards_R == rewards_R[0]):
        return np.zeros_like(rewards_R)
    relative_R: Floats = (rewards_R - rewards_R.mean()) / rewards_R.std()
    return relative_R


def group_gradient(
    probabilities_A: Floats, actions_R: NDArray[np.int64], rewards_R: Floats, learns_R: NDArray[np.bool_]
) -> Floats:
    """Return the group-relative policy gradient on the logits of one choice.

    Args:
        probabilities_A: of the actions, by the softmax of the logits.
        actions_R: which each rollout took, by itself or because it had to.
        rewards_R: what each brought.
        learns_R: False masks a choice out: its reward still counts in the group's mean, but it moves nothing.
    """
    weight_R = advantages(rewards_R) * learns_R
    taken_A = np.bincount(actions_R, weight_R, len(probabilities_A)).astype(np.float64)
    gradient_A: Floats = (taken_A - weight_R.sum() * probabilities_A) / len(weight_R)
    return gradient_A
