"""A fleet of workers in virtual time, to see what duplicates do to it. Ours; policies after Dean, Barroso, 2013, "The tail at scale", and the
scheduling (not the coding) of sequential gradient coding (2022, arXiv 2211.13802).

Items come at random moments (Poisson) to one queue, and the next free worker takes the next: M/G/c. Services take lognormal times of mean 1;
one in some is slow by a factor. Whether it is follows, for each worker, a chain of two states from service to service (Gilbert 1960, Elliott 1963):

    P(slow next | slow) = 1 - 1/L,     P(slow next | quick) = p / ((1 - p) L)

so that a share p of services is slow in bursts of L on average; L = 1/(1 - p) is straggling without memory. Load is stated for the items alone, slow
services included, so that it is the share of time that workers are busy without duplicates.

An item's caller sends it once more when it is late, by the very rules that serve (`fairlead.worlds.lateness`: the quantile, the share). The copy joins
the queue. The first to finish is delivered; the other is taken out of the queue, or cut short, which frees its worker after `stop` further seconds (a
target may well go on with a call that nobody waits for). All time of workers is charged.

    none                no duplicates
    hedge, share 1      one for each item that is late, however many are
    hedge, share s      for a share of the items at most
    rounds T > 0        history too: the delay is parted into T + 1 rounds, and at the end of each but the last an item that runs on a worker whose last
                        service was slow is sent again already; and such workers take no copies. With T = 0 it is plain hedging, event for event.

Differs from the paper: no coding, since answers of models are not linear sums. What carries over is to send again only what is unfinished, to
decide by the history of stragglers whose work that is, and the fixed budget; the split of the work and the bounds do not.

Cost: about 50 µs an item.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.types import Late, Outcome, Query
from fairlead.worlds.lateness import Lateness

Floats = NDArray[np.float64]
_QUERY: Final = Query(id="", messages=())
_FLEET: Final = "fleet"


class Fleet(Struct, frozen=True, kw_only=True):
    """Who serves: `workers`, busy for a share `load` of the time; a share `slow` of services takes `factor` times as long, in bursts of
    `burst` services of a worker (None: without memory). `spread`: of the logarithm of a service's time. `stop`: seconds for which a worker goes on with
    what was cancelled."""

    workers: int = 16
    load: float = 0.5
    slow: float = 0.07
    factor: float = 10.0
    burst: float | None = 30.0
    spread: float = 0.5
    stop: float = 0.0


class Hedging(Struct, frozen=True, kw_only=True):
    """Who is sent twice: `late.share` of 0 is nobody. `seconds`: a fixed delay in place of the quantile. `rounds`: looks at the history before that. A
    service was slow that took more than `slow_after` times the median."""

    late: Late = Late(target=_FLEET, quantile=0.95, otherwise=3.0, share=0.05)
    seconds: float | None = None
    rounds: int = 0
    slow_after: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What came of it. `seconds_N`: from an item's coming to its delivery, (N,); NaN: never delivered."""

    seconds_N: Floats
    delivered_N: NDArray[np.int64]
    """How often each was delivered."""
    duplicates: int
    most_share: float
    """The highest share of the items come so far that had been sent twice, at any moment."""
    busy: float
    """Share of the workers' time that was used, until the last item had come."""
    work: float
    """Seconds that workers were busy for an item."""

    def quantile(self, share: float) -> float:
        """Return the latency that `share` of the items did not exceed."""
        return float(np.quantile(self.seconds_N, share))


@dataclass(slots=True, eq=False)
class _Copy:
    item: int
    sent: float
    duplicate: bool
    worker: int = -1
    begun: float = 0.0
    over: bool = False
    """Delivered or cancelled."""


@dataclass(slots=True)
class _Worker:
    chance: np.random.Generator
    slow: bool
    """State of its chain, by a generator of its own: its services are slow in the same order whatever the hedging."""
    marked: bool = False
    """Its last service was slow, as far as anybody saw."""
    copy: _Copy | None = None
    until: float = field(default=0.0)


def simulate(fleet: Fleet, hedging: Hedging, *, items: int = 20_000, seed: int = 0) -> Tally:
    """Run so many items through. The same seed gives the same items, moments and services' lengths whatever the hedging."""
    return _Run(fleet, hedging, items, seed).go()


class _Run:
    def __init__(self, fleet: Fleet, hedging: Hedging, items: int, seed: int) -> None:
        self.fleet, self.hedging, self.items = fleet, hedging, items
        mean = 1.0 - fleet.slow + fleet.slow * fleet.factor
        rng = np.random.default_rng(seed)
        gaps = rng.exponential(mean / (fleet.load * fleet.workers), items)
        self.comes: list[float] = np.cumsum(gaps).tolist()
        # A length of its own for each copy of each item, so that policies are compared on the same ones.
        shape = rng.normal(-0.5 * fleet.spread**2, fleet.spread, (items, 2))
        self.length: list[list[float]] = np.exp(shape).tolist()
        self.chance = np.random.default_rng([seed, 1])
        self.lateness = Lateness()
        chances = [np.random.default_rng([seed, 2, w]) for w in range(fleet.workers)]
        self.workers = [_Worker(chance=c, slow=bool(c.random() < fleet.slow)) for c in chances]
        self.free = list(range(fleet.workers))
        self.queue: deque[_Copy] = deque()
        self.copies: list[list[_Copy]] = [[] for _ in range(items)]
        self.seconds_N = np.full(items, np.nan)
        self.delivered_N = np.zeros(items, dtype=np.int64)
        self.events: list[tuple[float, int, str, int]] = []
        self.count = 0
        self.come = self.duplicates = 0
        self.most_share = self.work = self.used = 0.0
        self.services: deque[float] = deque(maxlen=201)
        self.median = 1.0

    def go(self) -> Tally:
        for i, moment in enumerate(self.comes):
            self._at(moment, "come", i)
        while self.events:
            now, _, what, i = heappop(self.events)
            if what == "come":
                self._come(i, now)
            elif what == "end":
                self._end(i, now)
            else:
                self._late(i, now, sure=what == "late")
            self._serve(now)
        return Tally(
            seconds_N=self.seconds_N,
            delivered_N=self.delivered_N,
            duplicates=self.duplicates,
            most_share=self.most_share,
            busy=self.used / (self.fleet.workers * self.comes[-1]),
            work=self.work,
        )

    def _at(self, moment: float, what: str, i: int) -> None:
        self.count += 1
        heappush(self.events, (moment, self.count, what, i))

    def _come(self, i: int, now: float) -> None:
        self.come += 1
        self._send(i, now, duplicate=False)
        rule = self.hedging.late
        if rule.share > 0.0:
            delay = self.lateness.delay(rule, (), _QUERY)
            if self.hedging.seconds is not None:
                delay = self.hedging.seconds
            for look in range(1, self.hedging.rounds + 2):
                sure = look > self.hedging.rounds
                self._at(now + delay * look / (self.hedging.rounds + 1), "late" if sure else "look", i)

    def _send(self, i: int, now: float, *, duplicate: bool) -> None:
        copy = _Copy(item=i, sent=now, duplicate=duplicate)
        self.copies[i].append(copy)
        self.queue.append(copy)

    def _late(self, i: int, now: float, *, sure: bool) -> None:
        """Send an item again that is not there yet, and is `sure` to be late or, by its worker's history, likely to be."""
        if self.delivered_N[i] or len(self.copies[i]) > 1:
            return
        w = self.copies[i][0].worker
        if (sure or (w >= 0 and self.workers[w].marked)) and self.lateness.take(self.hedging.late):
            self.duplicates += 1
            self.most_share = max(self.most_share, self.duplicates / self.come)
            self._send(i, now, duplicate=True)

    def _serve(self, now: float) -> None:
        """Give waiting copies to free workers, in order."""
        passed: list[_Copy] = []
        while self.queue and self.free:
            copy = self.queue.popleft()
            if copy.over:
                continue
            able = [w for w in self.free if not (copy.duplicate and self.hedging.rounds and self.workers[w].marked)]
            if not able:
                passed.append(copy)
                continue
            w = able[int(self.chance.integers(len(able)))]
            self.free.remove(w)
            self._begin(w, copy, now)
        self.queue.extendleft(reversed(passed))

    def _begin(self, w: int, copy: _Copy, now: float) -> None:
        fleet, worker = self.fleet, self.workers[w]
        p = fleet.slow
        stay, turn = (p, p) if fleet.burst is None else (1.0 - 1.0 / fleet.burst, p / ((1.0 - p) * fleet.burst))
        worker.slow = bool(worker.chance.random() < (stay if worker.slow else turn))
        seconds = self.length[copy.item][copy.duplicate] * (fleet.factor if worker.slow else 1.0)
        copy.worker, copy.begun = w, now
        worker.copy, worker.until = copy, now + seconds
        self._at(worker.until, "end", w)

    def _end(self, w: int, now: float) -> None:
        """A worker is done with what it did, if this is not an end that was put off or brought forward."""
        worker = self.workers[w]
        copy = worker.copy
        if copy is None or worker.until != now:
            return
        worker.copy = None
        self.free.append(w)
        seconds = now - copy.begun
        self.work += seconds
        self.used += max(0.0, min(now, self.comes[-1]) - copy.begun)
        worker.marked = seconds > self.hedging.slow_after * self.median
        self.services.append(seconds)
        if len(self.services) % 20 == 1:
            self.median = float(np.median(self.services))
        if not copy.over:
            self._deliver(copy, now)

    def _deliver(self, copy: _Copy, now: float) -> None:
        i = copy.item
        self.delivered_N[i] += 1
        self.seconds_N[i] = now - self.comes[i]
        for each in self.copies[i]:
            each.over = True
            self.lateness.note(Outcome(target=_FLEET, seconds=now - each.sent, cancelled=each is not copy))
            if each is not copy and each.worker >= 0:
                worker = self.workers[each.worker]
                worker.until = min(worker.until, now + self.fleet.stop)
                self._at(worker.until, "end", each.worker)
