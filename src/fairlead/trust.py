"""Whom to believe: how reliable each source of feedback is, learned from whether it agrees with the others. After Dawid and Skene.

    an answer of target k is good with probability t_k; a source calls a good one good with probability a, a bad one bad with b
    E: log odds of "good" = log t_k / (1 - t_k) + sum over its votes of  c [v log a / (1 - b) + (1 - v) log (1 - a) / b]
    M: a, b and t are means of votes and answers, weighed by how likely each answer is good, with a few more votes of the prior
    reliability = a + b - 1          a judgement counts = confidence * min(1, max(0, reliability / 0.6))

Dawid, Skene, 1979 (Maximum likelihood estimation of observer error-rates using the EM algorithm); reliability is Youden's J (1950): 1 for who is
always right, 0 for who always says the same or guesses, below 0 for who says the opposite. That one is not believed in reverse: it counts
nothing. Ours: a value in [0, 1] is a vote v shared between good and bad; c is its confidence; and each target has its own share t_k of good
answers. So sources that never judge the same answer can be told apart too, if targets differ: whoever praises the targets that all others
find bad stands out, but it takes several times the votes.

What a source may not do:

- count more because it votes more: a and b are shares. What it says of the targets counts as `BOUND` times the median source at most.
- count more under several names: on one answer the votes of one key share one vote, and all votes together are 8 at most. A new name under a
  key begins with what its key's sources are worth. Where there are no keys a name is all there is, and a new one gets the prior again.
- pass for a test: `anchors` are named in the config, by ``key/source`` where there are keys. They are believed, and are what others are
  measured by.

Priors: a = b = 0.75, worth `PRIOR` votes each, so that a new source counts 0.5 / 0.6 = 0.83. They say that most sources are honest: where
liars cast most votes and there is no anchor, it is the honest ones that are found unreliable. A re-ask and a departure (weak kinds) are held
as sources of their own.

Memory: the newest `memory` votes, each counting half as much as one `half_life` votes younger. Nothing is stored: at the start it is learned
again from the store's judgements. Cost: a weight 1 µs; learning anew, every `EVERY` votes, 2 to 5 ms with 2,000 votes, off the event loop.

Shapes: N votes, I answers, S sources, K targets, P keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.types import Feedback

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FULL: Final = 0.6
"""Reliability from which a source counts whole: that of two people who agree on 80% of the answers."""
BEGIN: Final = 0.75
"""How often a source is right of which nothing is known."""
PRIOR: Final = 4.0
"""How many votes on good answers, and on bad ones, that is worth."""
POOL: Final = 20.0
"""How many votes of its key a new name begins with, at most."""
BOUND: Final = 3.0
MOST_ON_ONE: Final = 8
"""Votes on one answer that count in full."""
EVERY: Final = 16
STEPS, SETTLED = 60, 1e-3
"""Steps of learning at most, and how little the last one must have changed a reliability to be that."""
ANCHOR: Final = 0.99
"""How often an anchor is right."""
WEAK: Final = frozenset({"reask", "abandon"})


class Vote(Struct, frozen=True, kw_only=True):
    """One judgement, as far as it counts here."""

    target: str
    source: str
    key: str
    value: float
    confidence: float


class Standing(Struct, frozen=True, kw_only=True):
    """What is known of one source."""

    source: str
    votes: int
    reliability: float
    low: float
    high: float
    """Ends of its 95% interval."""
    weight: float
    """What its judgements are multiplied by."""
    anchor: bool = False


class Trust:
    """Learns how much each source of feedback counts. Not for several threads, but for `refresh` beside `note` and `weight`.

    Args:
        anchors: sources that are right, such as a test suite: ``source``, or ``key/source`` where the gateway asks for keys.
        memory: votes that are remembered.
        half_life: votes after which one counts half.
    """

    def __init__(self, *, anchors: Sequence[str] = (), memory: int = 2000, half_life: float = 1000.0) -> None:
        self.anchors = tuple(anchors)
        self.memory = memory
        self.half_life = half_life
        self._votes: OrderedDict[tuple[str, str], Vote] = OrderedDict()
        self._known: dict[str, Standing] = {}
        self._keys: dict[str, float] = {}
        self._new = 0

    @property
    def due(self) -> bool:
        """Whether enough was noted to learn anew."""
        return self._new >= EVERY

    def note(self, feedback: Feedback, target: str) -> None:
        """Take a judgement of an answer by `target` into account, in the place of what its source said of it before."""
        place = (feedback.trace_id, feedback.voter)
        self._votes.pop(place, None)
        self._votes[place] = Vote(
            target=target,
            source=source_of(feedback),
            key=feedback.by,
            value=feedback.value,
            confidence=feedback.confidence,
        )
        while len(self._votes) > self.memory:
            self._votes.popitem(last=False)
        self._new += 1

    def learn(self, judged: Iterable[tuple[Feedback, str]]) -> None:
        """Begin with these judgements and the targets that they are of, oldest first."""
        for feedback, target in judged:
            self.note(feedback, target)
        self.refresh()

    def weight(self, feedback: Feedback) -> float:
        """Return how much `feedback` counts beside its own confidence, in [0, 1]."""
        source = source_of(feedback)
        known = self._known.get(source)
        if known is not None:
            return known.weight
        if source in self.anchors:
            return 1.0
        return _weight(self._keys.get(feedback.by, 2.0 * BEGIN - 1.0))

    def standings(self) -> list[Standing]:
        """Return what was known of each source when it was last learned, by name."""
        return sorted(self._known.values(), key=lambda s: s.source)

    def refresh(self) -> None:
        """Learn the reliabilities anew from the votes that are remembered; the same votes give the same."""
        while True:
            try:
                votes = list(self._votes.items())
                break
            except RuntimeError:  # one was noted meanwhile
                continue
        self._new = 0
        if not votes:
            return
        n = len(votes)
        (i_N, _), (k_N, _) = _numbered([id for (id, _), _ in votes]), _numbered([v.target for _, v in votes])
        s_N, sources = _numbered([v.source for _, v in votes])
        p_N, keys = _numbered([v.key for _, v in votes])
        p_S = np.zeros(len(sources), dtype=np.int64)
        p_S[s_N] = p_N
        v_N = np.array([v.value for _, v in votes])
        # The votes of one key on one answer share one; a vote without a key is its own.
        group_N = np.where(np.array([not v.key for _, v in votes]), len(keys) + s_N, p_N)
        _, pair_N = np.unique(np.stack([i_N, group_N]), axis=1, return_inverse=True)
        confidence_N = np.array([v.confidence for _, v in votes])
        c_N = confidence_N / _counted(pair_N.reshape(-1))
        on_one_I = np.bincount(i_N, weights=c_N)
        c_N *= np.minimum(1.0, MOST_ON_ONE / np.maximum(on_one_I, 1e-9))[i_N]
        kept_N = 0.5 ** ((n - 1.0 - np.arange(n)) / self.half_life)
        m_N, heard_N = confidence_N * kept_N, c_N * kept_N
        heard_N = heard_N * _bounded(s_N, heard_N)[s_N]
        _, group_N = np.unique(group_N, return_inverse=True)
        heard_N = heard_N * _bounded(group_N, heard_N)[group_N]

        S, K = len(sources), int(k_N.max()) + 1
        anchor_S = np.array([name in self.anchors for name in sources])
        keyed_P = np.array([bool(key) for key in keys])
        a_S = np.where(anchor_S, ANCHOR, BEGIN)
        b_S, t_K = a_S.copy(), np.full(K, 0.5)
        good_S: Floats = np.zeros(S)
        bad_S, begin_aP, begin_bP = good_S, np.zeros(len(keys)), np.zeros(len(keys))
        sum_S: Floats = np.zeros(S)
        k_I = np.zeros(int(i_N.max()) + 1, dtype=np.int64)
        k_I[i_N] = k_N
        heard_I = np.minimum(1.0, np.bincount(i_N, weights=heard_N))
        for _ in range(STEPS):
            said_N = c_N * (v_N * np.log(a_S / (1.0 - b_S))[s_N] + (1.0 - v_N) * np.log((1.0 - a_S) / b_S)[s_N])
            odds_I = np.log(t_K / (1.0 - t_K))[k_I] + np.bincount(i_N, weights=said_N)
            good_I = 1.0 / (1.0 + np.exp(-np.clip(odds_I, -30.0, 30.0)))
            usual = (float(heard_I @ good_I) + 1.0) / (float(heard_I.sum()) + 2.0)
            t_K = (_sums(k_I, heard_I * good_I, K) + 2.0 * usual) / (_sums(k_I, heard_I, K) + 2.0)
            t_K = np.clip(t_K, 0.01, 0.99)
            good_N, bad_N = m_N * good_I[i_N], m_N * (1.0 - good_I[i_N])
            good_S, bad_S = _sums(s_N, good_N, S), _sums(s_N, bad_N, S)
            right_aS, right_bS = _sums(s_N, good_N * v_N, S), _sums(s_N, bad_N * (1.0 - v_N), S)
            begin_aP, begin_bP = _begin(p_S, right_aS, good_S, keyed_P), _begin(p_S, right_bS, bad_S, keyed_P)
            a_S = np.where(anchor_S, ANCHOR, (right_aS + PRIOR * begin_aP[p_S]) / (good_S + PRIOR))
            b_S = np.where(anchor_S, ANCHOR, (right_bS + PRIOR * begin_bP[p_S]) / (bad_S + PRIOR))
            a_S, b_S = np.clip(a_S, 0.005, 0.995), np.clip(b_S, 0.005, 0.995)
            if float(np.abs(a_S + b_S - sum_S).max()) < SETTLED:
                break
            sum_S = a_S + b_S
        j_S = a_S + b_S - 1.0
        sd_S = np.sqrt(a_S * (1.0 - a_S) / (good_S + PRIOR + 1.0) + b_S * (1.0 - b_S) / (bad_S + PRIOR + 1.0))
        count_S = np.bincount(s_N, minlength=S)
        self._known = {
            name: Standing(
                source=name,
                votes=int(count_S[s]),
                reliability=float(j_S[s]),
                low=float(max(-1.0, j_S[s] - 1.96 * sd_S[s])),
                high=float(min(1.0, j_S[s] + 1.96 * sd_S[s])),
                weight=1.0 if anchor_S[s] else _weight(float(j_S[s])),
                anchor=bool(anchor_S[s]),
            )
            for s, name in enumerate(sources)
        }
        self._keys = {key: float(begin_aP[p] + begin_bP[p] - 1.0) for p, key in enumerate(keys) if key}


def source_of(feedback: Feedback) -> str:
    """Return whose reliability a judgement is held against: its voter, and apart from that the voter's re-asks and departures."""
    return f"{feedback.voter} ({feedback.kind})" if feedback.kind in WEAK else feedback.voter


def _weight(reliability: float) -> float:
    return min(1.0, max(0.0, reliability / FULL))


def _numbered(names: Sequence[str]) -> tuple[Ints, list[str]]:
    """Return each name's number, (N,), and the names in order of numbers."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64), list(numbers)


def _sums(group_N: Ints, x_N: Floats, size: int) -> Floats:
    """Return the sum of each group, (size,)."""
    sums: Floats = np.bincount(group_N, weights=x_N, minlength=size).astype(np.float64)
    return sums


def _counted(group_N: Ints) -> Floats:
    """Return for each how many are in its group, (N,)."""
    counted: Floats = np.bincount(group_N).astype(np.float64)[group_N]
    return counted


def _bounded(group_N: Ints, mass_N: Floats) -> Floats:
    """Return for each group what its mass is multiplied by, so that none has more than `BOUND` times the median one's (10 at least)."""
    mass = np.bincount(group_N, weights=mass_N)
    bounded: Floats = np.minimum(1.0, max(10.0, BOUND * float(np.median(mass))) / np.maximum(mass, 1e-9))
    return bounded


def _begin(p_S: Ints, right_S: Floats, all_S: Floats, keyed_P: NDArray[np.bool_]) -> Floats:
    """Return for each key how often a source of it is right of which nothing is known, (P,)."""
    right_P, all_P = np.bincount(p_S, weights=right_S), np.bincount(p_S, weights=all_S)
    counts_P = np.minimum(1.0, POOL / np.maximum(all_P, 1e-9)) * keyed_P
    begin: Floats = (counts_P * right_P + PRIOR * BEGIN) / (counts_P * all_P + PRIOR)
    return begin
