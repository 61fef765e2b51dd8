"""What the page shows, kept as requests go by: a few sums, never a scan.

Savings are estimated at equal token counts: each routed answer's tokens at the strongest target's price, s, against what was really
spent, c. The share saved is 1 - sum(c) / sum(s); its standard error is that of a ratio of two means (the delta method):

    r = sum(c) / sum(s),   se(r)^2 = n / (n - 1) * sum((c - r s)^2) / sum(s)^2

and the 95% interval is normal, 1 - r -+ 1.96 se. A stronger model may answer at another length: the estimate does not know. Requests
for a target by its own name were not routed and do not count. Quality is the mean judgement with a Wilson interval. Drift compares the
newest `WINDOW` judgements of a target with as many before them: the difference of the means with its normal 99% interval, and the mean
of judgement less forecast likewise.

Sums add, so those of several workers are one another's (`SharedStats`): each writes its own to the store every `SHARE_SECONDS`, without any
text, and whichever is asked shows them together. What was there before the first of them began is counted once, by each for itself.

Memory is bounded: `RECENT` rows, `JUDGED` judgements, 60 minutes. 4 µs a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from fairlead.errors import StoreError
from fairlead.gateway.figures import fallbacks
from fairlead.plans.base import name_of
from fairlead.plans.single import Single
from fairlead.pool import Pool
from fairlead.store import Connection, Store
from fairlead.types import Feedback, Option, Trace

log = logging.getLogger(__name__)

RECENT: Final = 40
EXPECTED: Final = 50
"""Newest decisions of a route whose forecasts are averaged."""
SEED: Final = 2000
"""How many of the store's newest traces are counted at the start."""
JUDGED: Final = 20_000
PROMPT: Final = 160
MINUTES: Final = 60
WINDOW: Final = 100
"""Judgements of a target that are compared with as many before them."""
LEAST: Final = 20
"""Judgements on either side, below which nothing is said of drift."""
SHARE_SECONDS: Final = 2.0
STALE_SECONDS: Final = 10.0
"""A worker that has written nothing for so long is not there: what it counted stands, what it was doing does not."""
FORGET_SECONDS: Final = 3600.0
TURNED: Final = 64
"""Reasons to turn a request away that are told apart."""
TABLES: Final = """
CREATE TABLE IF NOT EXISTS gateway_stats(
  run TEXT NOT NULL, worker INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL, PRIMARY KEY(run, worker));
"""
PARENT: Final = -1
"""The row of this worker says when the run began."""


class Sums(Struct):
    """What is summed of one target or route."""

    requests: int = 0
    failures: int = 0
    calls: int = 0
    """Calls made, for targets: more than requests where a plan asks several, or one judges."""
    input: int = 0
    output: int = 0
    judged: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    quality: float = 0.0
    times: dict[int, int] = {}
    """Requests by time: bin k holds those of up to 2^(k / 4) ms, so a quantile is right within a tenth."""


class Counted(Struct):
    """What one process has counted; `total` adds several up."""

    requests: int = 0
    failures: int = 0
    refused: int = 0
    unasked: int = 0
    """Those of them that nobody was asked for; the others are among `requests`."""
    fallbacks: int = 0
    unpriced: int = 0
    usd: float = 0.0
    targets: dict[str, Sums] = {}
    routes: dict[str, Sums] = {}
    by_route: dict[str, int] = {}
    guards: dict[str, int] = {}
    rules: dict[str, dict[str, int]] = {}
    """Which rule decided how often, by route."""
    acts: dict[str, int] = {}
    turned_away: dict[str, int] = {}
    """Requests that were let in nowhere, by the code of their error."""
    saved: list[float] = msgspec.field(default_factory=lambda: [0.0] * 6)
    """n, sum c, sum s, sum c^2, sum s^2, sum cs."""
    minutes: dict[int, list[float]] = {}
    """Of each minute (since 1970): requests, failures, USD."""
    judgements: dict[str, list[list[float | None]]] = {}
    """Of each target the newest: when, value, forecast."""


class Now(Struct):
    """What one process does now."""

    in_flight: int = 0
    config: str = ""
    draining: bool = False
    learned: int = 0
    quarantined: int = 0
    failed: int = 0
    leads: bool = True
    serving: dict[str, int] = {}
    """The version that serves each route."""
    breakers: dict[str, tuple[str, float, int]] = {}
    """Of each target that is not as it should be: its state, seconds of rest left, failures in a row."""
    waiting: dict[str, tuple[int, int]] = {}
    """Of each target with a limit: calls under way, calls that wait."""


class Told(Struct):
    """What a worker writes for the others."""

    worker: int
    counted: Counted
    now: Now


_told = msgspec.json.Decoder(Told)
_counts = tuple(
    f
    for f in Counted.__struct_fields__
    if f in ("requests", "failures", "refused", "unasked", "fallbacks", "unpriced", "usd")
)
_tallies = ("by_route", "guards", "acts", "turned_away")


def total(parts: Iterable[Counted]) -> Counted:
    """Add up what several have counted."""
    out = Counted()
    for part in parts:
        for field in _counts:
            setattr(out, field, getattr(out, field) + getattr(part, field))
        for field in _tallies:
            _tally(getattr(out, field), getattr(part, field))
        for route, rules in part.rules.items():
            _tally(out.rules.setdefault(route, {}), rules)
        for theirs, ours in ((part.targets, out.targets), (part.routes, out.routes)):
            for name, sums in theirs.items():
                into = ours.setdefault(name, Sums())
                for field in Sums.__struct_fields__[:-1]:
                    setattr(into, field, getattr(into, field) + getattr(sums, field))
                _tally(into.times, sums.times)
        out.saved = [a + b for a, b in zip(out.saved, part.saved, strict=True)]
        for minute, values in part.minutes.items():
            there = out.minutes.get(minute, (0.0, 0.0, 0.0))
            out.minutes[minute] = [a + b for a, b in zip(there, values, strict=True)]
        for name, judged in part.judgements.items():
            both = sorted([*out.judgements.get(name, []), *judged], key=lambda j: j[0] or 0.0)
            out.judgements[name] = both[-2 * WINDOW :]
    return out


def _tally(into: dict[Any, int], more: Mapping[Any, int]) -> None:
    for key, n in more.items():
        into[key] = into.get(key, 0) + n


class Stats:
    """Sums over the traces of one gateway.

    Args:
        pool: who can act.
        routes: names of routes; other names are targets asked for directly.
        strongest: what savings are measured against; None: the highest output price.
        text: whether prompts may be shown.
    """

    def __init__(self, *, pool: Pool, routes: Collection[str], strongest: str | None, text: bool) -> None:
        self.pool, self.routes, self.text = pool, frozenset(routes), text
        priced = [t for t in pool if t.profile.output_usd_per_mtok is not None]
        self.strongest: str | None
        if strongest is not None:
            self.strongest = pool[strongest].name
        else:
            top = max(priced, key=lambda t: t.profile.output_usd_per_mtok or 0.0, default=None)
            self.strongest = top.name if top is not None else None
        self.since = time.time()
        self.counted = self._none()
        self.before = Counted()
        """What was in the store at the start."""
        self.recent: deque[tuple[Trace, int, float | None]] = deque(maxlen=RECENT)
        """(trace, status, seconds that were our own)."""
        self._said: dict[str, float] = {}
        """How those of them were judged that were."""
        self._options: dict[str, deque[tuple[str, tuple[Option, ...]]]] = {
            name: deque(maxlen=EXPECTED) for name in self.routes
        }
        self._judged: OrderedDict[tuple[str, str], list[float | None]] = OrderedDict()
        self._answered: OrderedDict[str, tuple[str, str, float | None]] = OrderedDict()

    def _none(self) -> Counted:
        return Counted(
            targets={t.name: Sums() for t in self.pool}, routes={name: Sums() for name in sorted(self.routes)}
        )

    @property
    def requests(self) -> int:
        """How many were counted, those before the start included."""
        return self.before.requests + self.counted.requests

    def add(self, trace: Trace, *, status: int = 200, overhead_seconds: float | None = None) -> None:
        """Count one trace."""
        c = self.counted
        outcome, route, decision = trace.outcome, trace.query.route, trace.decision
        usd, tokens = trace.usd, outcome.tokens
        ok = outcome.error is None
        c.requests += 1
        c.by_route[route] = c.by_route.get(route, 0) + 1
        c.fallbacks += fallbacks(trace)
        self.held(trace)
        for act in trace.acts:
            did = f"{act.name} {act.did}"
            c.acts[did] = c.acts.get(did, 0) + 1
        c.usd += usd or 0.0
        bin = time_bin(trace.seconds)
        for sums in (c.targets.get(outcome.target), c.routes.get(route)):
            if sums is not None:
                sums.requests += 1
                sums.seconds += trace.seconds
                sums.times[bin] = sums.times.get(bin, 0) + 1
                if tokens is not None:
                    sums.input += tokens.input
                    sums.output += tokens.output
                sums.failures += not ok
        if route in c.routes:
            c.routes[route].usd += usd or 0.0
            self._options[route].append((decision.forecast_of, decision.options))
        if outcome.target in c.targets:
            self._answered[trace.id] = (outcome.target, route, expected(trace))
            if len(self._answered) > JUDGED:
                self._answered.popitem(last=False)
        # What was spent goes to whom it was spent on: judges and probes too, and those whose answer was not taken.
        for step in trace.steps:
            called = None if step.call is None else c.targets.get(step.call.target)
            if called is not None:
                called.calls += 1
                called.usd += step.outcome.usd or 0.0
        refused = not ok and _refused(trace)
        c.refused += refused
        failed = not ok and not refused
        c.failures += failed
        minute = int(trace.at // 60)
        of_minute = c.minutes.get(minute)
        if of_minute is None:
            of_minute = c.minutes[minute] = [0.0, 0.0, 0.0]
            while len(c.minutes) > MINUTES + 1:
                del c.minutes[min(c.minutes)]
        of_minute[0] += 1.0
        of_minute[1] += failed
        of_minute[2] += usd or 0.0
        if ok and route in self.routes:
            self._save(trace)
        self.recent.append((trace, status, overhead_seconds))  # a row of it is made when somebody looks

    def seeded(self) -> None:
        """What was added until now was counted by a process before."""
        self.before, self.counted = total((self.before, self.counted)), self._none()

    def take_up(self, counted: Counted) -> None:
        """Go on with what a worker in this place had counted before it died."""
        self.counted = total((self._none(), counted))

    def take_over(self, other: Stats) -> None:
        """Go on with the sums of the config before; what was saved against another target is left out."""
        self.since, self.before = other.since, other.before
        self.counted = total((self._none(), other.counted))
        if other.strongest != self.strongest:
            self.before = msgspec.structs.replace(self.before, saved=[0.0] * 6)
            self.counted.saved = [0.0] * 6
        self.recent, self._judged, self._answered = other.recent, other._judged, other._answered
        self._said = other._said
        self._options |= {name: ring for name, ring in other._options.items() if name in self.routes}

    def since_start(self) -> tuple[float, float]:
        """Return (what routed answers cost, what the strongest target's would have) in USD, without what `seeded` left out."""
        return self.counted.saved[1], self.counted.saved[2]

    def held(self, trace: Trace) -> None:
        """Count the guards that held and the rule that decided, and what nobody may answer."""
        c, decision = self.counted, trace.decision
        c.refused += not decision.options
        c.unasked += not decision.options
        for name in decision.guards:
            c.guards[name] = c.guards.get(name, 0) + 1
        if decision.rule:
            rules = c.rules.setdefault(trace.query.route, {})
            rules[decision.rule] = rules.get(decision.rule, 0) + 1

    def turn_away(self, code: str) -> None:
        """Count a request that was let in nowhere."""
        turned = self.counted.turned_away
        if code in turned or len(turned) < TURNED:
            turned[code] = turned.get(code, 0) + 1

    def _save(self, trace: Trace) -> None:
        # A call of the client's own question says what the strongest target would have read and written; one with a prompt of the plan's does not.
        tokens = None if trace.steps else trace.outcome.tokens
        for step in trace.steps:
            call, outcome = step.call, step.outcome
            if outcome.tokens is not None and call is not None and call.messages is None and outcome.ok:
                tokens = outcome.tokens
                break
        c = trace.usd
        s = (
            None
            if tokens is None or c is None or self.strongest is None
            else self.pool[self.strongest].profile.usd(tokens)
        )
        if c is None or s is None:
            self.counted.unpriced += 1
            return
        sums = self.counted.saved
        sums[0] += 1.0
        sums[1] += c
        sums[2] += s
        sums[3] += c * c
        sums[4] += s * s
        sums[5] += c * s

    def judge(self, feedback: Feedback, *, trace: Trace | None = None, before: float | None = None) -> bool:
        """Count one judgement; a source's later one on the same answer takes the place of its earlier one.

        Args:
            feedback: the judgement.
            trace: of the answer, where another process gave it.
            before: what its source had said of the answer, where that is known of the store.

        Returns:
            Whether it was counted: not if it judges an answer that is not known here and no `trace` was given.
        """
        answered = self._answered.get(feedback.trace_id)
        if answered is None and trace is not None:
            answered = (trace.outcome.target, trace.query.route, expected(trace))
        if answered is None:
            return False
        target, route, forecast = answered
        key = (feedback.trace_id, feedback.voter)
        judged = self._judged.get(key)
        before = before if before is not None else None if judged is None else judged[1]
        for sums in (self.counted.targets.get(target), self.counted.routes.get(route)):
            if sums is not None:
                sums.judged += before is None
                sums.quality += feedback.value - (before or 0.0)
        if judged is not None:
            judged[1] = feedback.value
        elif before is None and target in self.counted.targets:
            judged = [round(feedback.at or time.time()), feedback.value, forecast]
            ring = self.counted.judgements.setdefault(target, [])
            ring.append(judged)
            del ring[: -2 * WINDOW]
            self._judged[key] = judged
            if len(self._judged) > JUDGED:
                self._judged.popitem(last=False)
        shown = {trace.id for trace, _, _ in self.recent}
        self._said = {id: value for id, value in self._said.items() if id in shown}
        if feedback.trace_id in shown:
            self._said[feedback.trace_id] = feedback.value
        return True

    def savings(self) -> dict[str, Any]:
        """Return what was saved against asking the strongest target every time, with its 95% interval."""
        return savings(total((self.before, self.counted)).saved, self.strongest)

    def show(self, others: Sequence[Told] = (), now: Now | None = None) -> dict[str, Any]:
        """Return everything as builtin data.

        Args:
            others: what the other workers have told.
            now: what this one does; None: as far as its pool knows.
        """
        c = total((self.before, self.counted, *(told.counted for told in others)))
        nows = [now or Now(), *(told.now for told in others)]
        answered = sum(s.requests for name, s in c.targets.items() if name in self.pool)
        targets = []
        for target in self.pool:
            s = c.targets.get(target.name, Sums())
            health = self.pool.health
            rest = health.resting(target.name)
            theirs = [told.now.breakers[target.name] for told in others if target.name in told.now.breakers]
            states = [health.state(target.name), *(b[0] for b in theirs)]
            targets.append(
                {
                    "name": target.name,
                    **_shown(s),
                    "share": s.requests / answered if answered else 0.0,
                    "calls": s.calls,
                    "tokens": s.input + s.output,
                    "resting_seconds": max([rest, *(b[1] for b in theirs)]),
                    "breaker": next((b for b in ("open", "half open") if b in states), "closed"),
                    "breakers_open": sum(b != "closed" for b in states),
                    "failures_in_a_row": max([health.in_a_row.get(target.name, 0), *(b[2] for b in theirs)]),
                    "under_way": sum(n.waiting[target.name][0] for n in nows if target.name in n.waiting),
                    "waiting": sum(n.waiting[target.name][1] for n in nows if target.name in n.waiting),
                    "concurrent": target.profile.concurrent,
                    "input_usd_per_mtok": target.profile.input_usd_per_mtok,
                    "output_usd_per_mtok": target.profile.output_usd_per_mtok,
                    "drift": drift(c.judgements.get(target.name, [])),
                }
            )
        minute = int(time.time() // 60)
        minutes = [c.minutes.get(m, [0.0, 0.0, 0.0]) for m in range(minute - MINUTES + 1, minute + 1)]
        times: dict[int, int] = {}
        for s in c.routes.values():
            _tally(times, s.times)
        return {
            "since": self.since,
            "requests": c.requests,
            "failures": c.failures,
            "refused": c.refused,
            "unasked": c.unasked,
            "fallbacks": c.fallbacks,
            "turned_away": c.turned_away,
            "in_flight": sum(n.in_flight for n in nows),
            "usd": c.usd,
            "unpriced": c.unpriced,
            "seconds_p50": quantile(times, 0.5),
            "seconds_p95": quantile(times, 0.95),
            "by_route": c.by_route,
            "guards": c.guards,
            "rules": c.rules,
            "acts": c.acts,
            "targets": targets,
            "of_routes": {
                name: _shown(c.routes.get(name, Sums())) | {"expects": _expects(self._options[name])}
                for name in sorted(self.routes)
            },
            "savings": savings(c.saved, self.strongest),
            "minutes": [int(m[0]) for m in minutes],
            "failed_minutes": [int(m[1]) for m in minutes],
            "usd_minutes": [m[2] for m in minutes],
            "recent": [self._row(*kept) for kept in reversed(self.recent)],
        }

    def _row(self, trace: Trace, status: int, overhead_seconds: float | None) -> dict[str, Any]:
        outcome, decision = trace.outcome, trace.decision
        return {
            "id": trace.id,
            "tenant": trace.query.identity.tenant,
            "at": trace.at,
            "route": trace.query.route,
            "target": outcome.target,
            "chosen": name_of(decision.plan) if decision.options else None,
            "propensity": decision.propensity,
            "guards": decision.guards,
            "acts": [f"{a.name} {a.did}" for a in trace.acts],
            "usd": trace.usd,
            "seconds": trace.seconds,
            "overhead_ms": None if overhead_seconds is None else 1e3 * overhead_seconds,
            "status": status,
            "error": None if outcome.error is None else outcome.error.kind,
            "prompt": trace.query.text[:PROMPT] if self.text and trace.text_kept else None,
            "feedback": self._said.get(trace.id),
        }


def _shown(s: Sums) -> dict[str, Any]:
    low, high = wilson(s.quality, s.judged)
    return {
        "requests": s.requests,
        "failures": s.failures,
        "usd": s.usd,
        "seconds": s.seconds / s.requests if s.requests else None,
        "seconds_p50": quantile(s.times, 0.5),
        "seconds_p95": quantile(s.times, 0.95),
        "judged": s.judged,
        "quality": s.quality / s.judged if s.judged else None,
        "quality_low": low,
        "quality_high": high,
    }


def _expects(ring: Sequence[tuple[str, tuple[Option, ...]]]) -> list[dict[str, Any]]:
    """Average over decisions what was expected of each option, and how likely it was; the likeliest first."""
    found: dict[str, list[Option]] = {}
    for option in (o for _, options in ring for o in options):
        found.setdefault(name_of(option.plan), []).append(option)
    out = []
    for name, options in found.items():
        told = [o.forecast for o in options if o.forecast is not None]
        usd = [f.usd for f in told if f.usd is not None]
        out.append(
            {
                "option": name,
                "of": ring[-1][0],
                "probability": math.fsum(o.probability for o in options) / len(ring),
                "quality": math.fsum(f.quality for f in told) / len(told) if told else None,
                "quality_sd": math.fsum(f.quality_sd for f in told) / len(told) if told else None,
                "usd": math.fsum(usd) / len(usd) if usd else None,
                "n": len(options),
            }
        )
    return sorted(out, key=lambda o: -o["probability"])


def _refused(trace: Trace) -> bool:
    """Whether it was turned down on purpose: by a guard, or since an account had not enough left to begin."""
    error = trace.outcome.error
    return error is not None and (
        error.kind == "blocked" or (error.kind == "budget" and error.status is None and not trace.steps)
    )


def expected(trace: Trace) -> float | None:
    """Return the quality that was forecast of the answer; None if none was, or another plan answered in its place."""
    decision = trace.decision
    if not decision.options or decision.forecast_of != "quality":
        return None
    option = decision.options[decision.chosen]
    if option.forecast is None or not isinstance(option.plan, Single) or option.plan.target != trace.outcome.target:
        return None
    return option.forecast.quality


def savings(saved: Sequence[float], strongest: str | None) -> dict[str, Any]:
    """Return what was saved against the strongest target, from `Counted.saved`. `withheld`: its name is not told to who asks."""
    n, c, s, cc, ss, cs = saved
    out: dict[str, Any] = {"strongest": strongest, "withheld": False, "n": int(n), "usd": s - c}
    out |= {"share": None, "low": None, "high": None}
    if s > 0.0:
        r = c / s
        out["share"] = 1.0 - r
        if n >= 2:
            spread = max(0.0, cc - 2.0 * r * cs + r * r * ss)
            half = 1.96 * math.sqrt(n / (n - 1.0) * spread) / s
            out["low"], out["high"] = 1.0 - r - half, 1.0 - r + half
    return out


def time_bin(seconds: float) -> int:
    """Return the bin of a time: k for those above 2^((k - 1) / 4) ms, up to 2^(k / 4) ms."""
    return max(-40, math.ceil(4.0 * math.log2(1e3 * seconds))) if seconds > 0.0 else -40


def quantile(times: Mapping[int, int], share: float) -> float | None:
    """Return a quantile of binned times in seconds, as if they were spread evenly over their bin; None if there are none."""
    left = share * sum(times.values())
    for bin in sorted(times):
        if left <= times[bin]:
            return 1e-3 * math.exp2((bin - 1.0 + left / times[bin]) / 4.0)
        left -= times[bin]
    return None


def drift(judged: Sequence[Sequence[float | None]]) -> dict[str, Any] | None:
    """Compare the newest judgements of a target with those before, and with what was forecast; None while there are too few.

    Args:
        judged: (when, value, forecast), oldest first.
    """
    values = [v or 0.0 for _, v, _ in judged]
    gaps = [v - f for _, v, f in judged[-WINDOW:] if v is not None and f is not None]
    new, old = values[-WINDOW:], values[:-WINDOW]
    if len(old) < LEAST and len(values) >= 2 * LEAST:
        new, old = values[len(values) // 2 :], values[: len(values) // 2]
    out: dict[str, Any] = {"n": len(new), "before_n": len(old), "change": None, "gap": None, "gap_n": len(gaps)}
    if len(new) >= LEAST and len(old) >= LEAST:
        (a, va), (b, vb) = _mean(new), _mean(old)
        half = 2.576 * math.sqrt(va / len(new) + vb / len(old))
        out |= {"now": a, "before": b, "change": a - b, "change_low": a - b - half, "change_high": a - b + half}
    if len(gaps) >= LEAST:
        g, vg = _mean(gaps)
        half = 2.576 * math.sqrt(vg / len(gaps))
        out |= {"gap": g, "gap_low": g - half, "gap_high": g + half}
    return None if out["change"] is None and out["gap"] is None else out


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and variance of a sample."""
    m = math.fsum(values) / len(values)
    return m, math.fsum((v - m) ** 2 for v in values) / (len(values) - 1)


def wilson(total: float, n: int) -> tuple[float | None, float | None]:
    """Return Wilson's 95% interval of a mean of n values in [0, 1] that sum to `total` (for values within, it is on the wide side)."""
    if not n:
        return None, None
    z2, p = 1.96**2, min(1.0, max(0.0, total / n))
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


class SharedStats:
    """Lets whichever worker is asked show what all have counted.

    Args:
        stats: returns this worker's.
        now: says what it does at the moment.
        store: in whose tables they are kept. Make this before the store is started.
        run: names the parent, so that no other parent's workers on the same store are shown.
        worker: this worker's number.
        seconds: from one writing to the next.
    """

    def __init__(
        self,
        *,
        stats: Callable[[], Stats],
        now: Callable[[], Now],
        store: Store,
        run: str,
        worker: int,
        seconds: float = SHARE_SECONDS,
    ) -> None:
        self.stats, self.now, self.store = stats, now, store
        self.run, self.worker, self.seconds = run, worker, seconds
        self.began = math.inf
        """When the first worker of the run began (Unix time)."""
        self._task: asyncio.Task[None] | None = None
        store.tables(TABLES)

    async def begin(self) -> Counted | None:
        """Find out when the run began, and what a worker that died in this place had counted. Raises `StoreError`."""
        row = (self.run, PARENT, time.time(), b"")

        def work(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO gateway_stats(run, worker, at, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row
            )

        await self.store.transact("the page's figures", work)
        found = await self.store.fetch(
            "SELECT worker, at, body FROM gateway_stats WHERE run = ? AND worker IN (?, ?)",
            (self.run, PARENT, self.worker),
        )
        there = {int(worker): (at, body) for worker, at, body in found}
        self.began = there[PARENT][0]
        return _told.decode(there[self.worker][1]).counted if self.worker in there else None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._keep(), name="fairlead-stats")

    async def stop(self) -> None:
        """Write for the last time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            with contextlib.suppress(StoreError):  # the writer has logged it
                await self.write()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(StoreError):  # the others show what was there before
                await self.write()
            await asyncio.sleep(self.seconds)

    async def write(self) -> None:
        """Write what this worker has counted. Raises `StoreError`."""
        told = Told(worker=self.worker, counted=self.stats().counted, now=self.now())
        row = (self.run, self.worker, time.time(), msgspec.json.encode(told))

        def work(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO gateway_stats(run, worker, at, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT(run, worker) DO UPDATE SET at = excluded.at, body = excluded.body",
                row,
            )
            # The row of the parent is as old as the run, so it goes only with its workers.
            connection.execute(
                "DELETE FROM gateway_stats WHERE at < ? AND run NOT IN (SELECT run FROM gateway_stats WHERE at >= ?)",
                (row[2] - FORGET_SECONDS, row[2] - FORGET_SECONDS),
            )

        await self.store.transact("the page's figures", work)

    def others(self) -> list[Told]:
        """Read what the other workers have counted. Blocks. Raises `StoreError`."""
        rows = self.store.rows(
            "SELECT at, body FROM gateway_stats WHERE run = ? AND worker NOT IN (?, ?) ORDER BY worker",
            (self.run, PARENT, self.worker),
        )
        now, found = time.time(), []
        for at, body in rows:
            told = _told.decode(body)
            if now - at > STALE_SECONDS:
                told.now = Now(config="", leads=False)
            found.append(told)
        return found
