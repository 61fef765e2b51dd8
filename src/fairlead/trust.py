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

What is done against liars, and how far it goes:

- Volume: a and b are shares, and what a source says of the targets counts as `BOUND` times the median source at most. `memory` is for all keys
  together: who has most votes in it loses the oldest, so that no key pushes out another's. Only answers that a route learns from count.
- Names: if there are several keys, the votes of one key on an answer that others judged too share one vote, names with fewer than `FEW` votes are one
  source of their key, and a new one is that too. If all but the anchors come under one key, its names are told apart as if there were
  no keys: by whether they agree with each other. Where there are no keys a name is all there is, and a new one gets the prior again.
- Corrections: a source is held to what it may have taught. If it judges an answer again, that counts as far as it counts for more.
- Anchors are named in the config, by ``key/source`` where there are keys. They are believed, and others are measured by them. Without keys anybody
  may call itself so.
- Not done: who was honest for long and then lies is believed until its lies outweigh what is remembered of it. Several names of one key
  that agree on answers nobody else judges count as several there, and with enough of them a key buries what was known of it. With two keys it is one word against the other.

It is meant for judgements of good or bad. A source on a scale is as reliable as its numbers differ between good and bad answers: one that says .8 and .55
counts little however right it is. To stretch each source's scale by its own mean is not done, since then one that is right about which answer is better
could say less of all answers of one target and be believed: it would be held to its order, and teach its numbers.

Priors: a = b = 0.75, worth `PRIOR` votes each, so that a new source counts 0.5 / 0.6 = 0.83. They say that most sources are honest: where
liars cast most votes and there is no anchor, it is the honest ones that are found unreliable. A re-ask and a departure (weak kinds) are held
as sources of their own.

Memory: the newest `memory` votes, each counting half as much as one of its key `half_life` of the key's votes younger. Nothing is stored: at the start
it is learned again from the store's judgements. Cost: a weight 1 µs; learning anew, every `EVERY` votes, 6 to 8 ms with 2,000 votes on a shared
core, off the event loop.

Shapes: N votes, I answers, S sources, K targets, P keys.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.rewards import lesson
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
"""How many votes of its key a name begins with, at most."""
FEW: Final = 8
"""Names of a key with fewer votes are one source together."""
BOUND: Final = 3.0
MOST_ON_ONE: Final = 8
"""Votes on one answer that count in full."""
EVERY: Final = 16
STEPS, SETTLED = 60, 1e-3
"""Steps of learning at most, and how little the last one must have changed a reliability to be that."""
ANCHOR: Final = 0.99
"""How often an anchor is right."""
WEAK: Final = ("reask", "abandon")
REST: Final = "(names of few votes)"


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
        self._votes: dict[str, OrderedDict[tuple[str, str], Vote]] = {}
        """By key, and by answer and source, oldest first."""
        self._size = 0
        self._known: tuple[dict[str, Standing], dict[str, float]] = ({}, {})
        """Sources by name, and the reliability of a name of each key of which too little is known."""
        self._new = 0

    @property
    def due(self) -> bool:
        """Whether enough was noted to learn anew."""
        return self._new >= EVERY

    def note(self, feedback: Feedback, target: str, *, revised: bool = False) -> None:
        """Take a judgement of an answer by `target` into account.

        A source is held to what it may have taught: if it judges an answer again, that counts as far as it counts for more than what it said
        before (`rewards.lesson`). `revised`: it has judged this answer before; if that is forgotten, so is this.
        """
        source, votes = source_of(feedback), self._votes.setdefault(feedback.by, OrderedDict())
        place = (feedback.trace_id, source)
        before = votes.get(place)
        if before is None:
            if revised and not any(
                (feedback.trace_id, name) in votes
                for name in (feedback.voter, *(f"{feedback.voter} ({kind})" for kind in WEAK))
            ):
                return
            value, confidence = feedback.value, feedback.confidence
            self._size += 1
        else:
            said = (before.confidence, before.confidence * before.value)
            added = lesson(feedback.value, feedback.confidence, said)
            if added is None:
                return
            confidence = before.confidence + added.weight
            value = (said[1] + added.weight * added.value) / confidence
        votes[place] = Vote(target=target, source=source, key=feedback.by, value=value, confidence=confidence)
        while self._size > self.memory:  # who has most loses the oldest
            max(self._votes.values(), key=len).popitem(last=False)
            self._size -= 1
        self._new += 1

    def learn(self, judged: Iterable[tuple[Feedback, str]]) -> None:
        """Begin with these judgements and the targets that they are of, oldest first, those that were revised later too."""
        seen: set[tuple[str, str]] = set()
        for feedback, target in judged:
            place = (feedback.trace_id, feedback.voter)
            self.note(feedback, target, revised=place in seen)
            seen.add(place)
        self.refresh()

    def weight(self, feedback: Feedback) -> float:
        """Return how much `feedback` counts beside its own confidence, in [0, 1]."""
        source = source_of(feedback)
        sources, keys = self._known
        known = sources.get(source)
        if known is not None:
            return known.weight
        if source in self.anchors:
            return 1.0
        return _weight(keys.get(feedback.by, 2.0 * BEGIN - 1.0))

    def standings(self) -> list[Standing]:
        """Return what was known of each source when it was last learned, by name."""
        return sorted(self._known[0].values(), key=lambda s: s.source)

    def refresh(self) -> None:
        """Learn the reliabilities anew from the votes that are remembered; the same votes give the same."""
        while True:
            try:
                by_key = [list(votes.items()) for votes in self._votes.values()]
                break
            except RuntimeError:  # one was noted meanwhile
                continue
        self._new = 0
        votes = [entry for some in by_key for entry in some]
        if not votes:
            return
        kept_N = np.concatenate([0.5 ** ((len(some) - 1.0 - np.arange(len(some))) / self.half_life) for some in by_key])
        # Where all who are no anchors come under one key, its names are all there is to tell apart by.
        parted = len({v.key for _, v in votes if v.source not in self.anchors}) > 1
        said = Counter(v.source for _, v in votes)
        names_N = [
            f"{v.key}/{REST}"
            if parted and v.key and said[v.source] < FEW and v.source not in self.anchors
            else v.source
            for _, v in votes
        ]
        keys_N = [v.key if parted and v.source not in self.anchors else "" for _, v in votes]
        (i_N, _), (k_N, _) = _numbered([id for (id, _), _ in votes]), _numbered([v.target for _, v in votes])
        (s_N, sources), (p_N, keys) = _numbered(names_N), _numbered(keys_N)
        p_S = np.zeros(len(sources), dtype=np.int64)
        p_S[s_N] = p_N
        v_N = np.array([v.value for _, v in votes])
        # The votes of one key on one answer that others judged too share one; a vote without a key is its own.
        group_N = np.where(np.array([not key for key in keys_N]), len(keys) + s_N, p_N)
        pairs, pair_N = np.unique(np.stack([i_N, group_N]), axis=1, return_inverse=True)
        pair_N = pair_N.reshape(-1)
        same_N, groups_N = _counted(pair_N), np.bincount(pairs[0])[i_N]
        confidence_N = np.array([v.confidence for _, v in votes])
        c_N = confidence_N / np.where(groups_N > 1, same_N, 1)
        on_one_I = np.bincount(i_N, weights=c_N)
        c_N *= np.minimum(1.0, MOST_ON_ONE / np.maximum(on_one_I, 1e-9))[i_N]
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
        known = {
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
        begin = {key: float(begin_aP[p] + begin_bP[p] - 1.0) for p, key in enumerate(keys) if key}
        rest = {key: known[f"{key}/{REST}"].reliability for key in begin if f"{key}/{REST}" in known}
        self._known = (known, {**begin, **rest})


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
