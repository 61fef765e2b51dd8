"""What the page shows, kept as requests go by: a few sums, never a scan.

Savings are estimated at equal token counts: each routed answer's tokens at the strongest target's price, s, against what was really
spent, c. The share saved is 1 - sum(c) / sum(s); its standard error is that of a ratio of two means (the delta method):

    r = sum(c) / sum(s),   se(r)^2 = n / (n - 1) * sum((c - r s)^2) / sum(s)^2

and the 95% interval is normal, 1 - r -+ 1.96 se. A stronger model may answer at another length: the estimate does not know. Requests
for a target by its own name were not routed and do not count. Quality is the mean judgement with a Wilson interval.

Memory is bounded: `RECENT` rows, `JUDGED` judgements, 60 minutes. 3 µs a request.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import Any, Final

from fairlead.gateway.figures import fallbacks
from fairlead.plans.base import name_of
from fairlead.pool import Pool
from fairlead.types import Feedback, Trace

RECENT: Final = 40
SEED: Final = 2000
"""How many of the store's newest traces are counted at the start."""
JUDGED: Final = 20_000
PROMPT: Final = 160


class _Sums:
    """What is summed of one target."""

    __slots__ = ("failures", "input", "judged", "output", "quality", "requests", "seconds", "usd")

    def __init__(self) -> None:
        self.requests = self.failures = self.input = self.output = self.judged = 0
        self.usd = self.seconds = self.quality = 0.0


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
        self.targets = {t.name: _Sums() for t in pool}
        self.by_route: dict[str, int] = {}
        self.guards: dict[str, int] = {}
        self.acts: dict[str, int] = {}
        self.requests = self.failures = self.refused = self.fallbacks = self.unpriced = 0
        self.usd = 0.0
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self.minutes: OrderedDict[int, int] = OrderedDict()
        self._judged: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._answered: OrderedDict[str, str] = OrderedDict()
        # n, sum c, sum s, sum c^2, sum s^2, sum cs
        self._saved = [0.0] * 6
        self._before = [0.0] * 6

    def add(self, trace: Trace, *, status: int = 200, overhead_seconds: float | None = None) -> None:
        """Count one trace."""
        outcome, route = trace.outcome, trace.query.route
        usd, tokens = trace.usd, outcome.tokens
        ok = outcome.error is None
        self.requests += 1
        self.by_route[route] = self.by_route.get(route, 0) + 1
        self.fallbacks += fallbacks(trace)
        self.held(trace)
        for act in trace.acts:
            did = f"{act.name} {act.did}"
            self.acts[did] = self.acts.get(did, 0) + 1
        self.usd += usd or 0.0
        sums = self.targets.get(outcome.target)
        if sums is not None:
            sums.requests += 1
            sums.seconds += trace.seconds
            if tokens is not None:
                sums.input += tokens.input
                sums.output += tokens.output
            sums.failures += not ok
            self._answered[trace.id] = outcome.target
            if len(self._answered) > JUDGED:
                self._answered.popitem(last=False)
        # What was spent goes to whom it was spent on: judges and probes too, and those whose answer was not taken.
        for step in trace.steps:
            called = None if step.call is None else self.targets.get(step.call.target)
            if called is not None:
                called.usd += step.outcome.usd or 0.0
        blocked = outcome.error is not None and outcome.error.kind == "blocked"
        self.refused += blocked
        self.failures += not ok and not blocked
        minute = int(trace.at // 60)
        self.minutes[minute] = self.minutes.get(minute, 0) + 1
        while len(self.minutes) > 61:
            self.minutes.popitem(last=False)
        if ok and route in self.routes:
            self._save(trace)
        self.recent.append(
            {
                "id": trace.id,
                "tenant": trace.query.identity.tenant,
                "at": trace.at,
                "route": route,
                "target": outcome.target,
                "chosen": trace.decision.plan if trace.decision.options else None,
                "propensity": trace.decision.propensity,
                "guards": trace.decision.guards,
                "acts": [f"{a.name} {a.did}" for a in trace.acts],
                "usd": usd,
                "seconds": trace.seconds,
                "overhead_ms": None if overhead_seconds is None else 1e3 * overhead_seconds,
                "status": status,
                "error": None if outcome.error is None else outcome.error.kind,
                "prompt": trace.query.text[:PROMPT] if self.text and trace.text_kept else None,
                "feedback": None,
            }
        )

    def seeded(self) -> None:
        """What was added until now was counted by a process before."""
        self._before = list(self._saved)

    def since_start(self) -> tuple[float, float]:
        """Return (what routed answers cost, what the strongest target's would have) in USD, without what `seeded` left out."""
        return self._saved[1] - self._before[1], self._saved[2] - self._before[2]

    def held(self, trace: Trace) -> None:
        """Count the guards that held, and what nobody may answer."""
        self.refused += not trace.decision.options
        for name in trace.decision.guards:
            self.guards[name] = self.guards.get(name, 0) + 1

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
            self.unpriced += 1
            return
        sums = self._saved
        sums[0] += 1.0
        sums[1] += c
        sums[2] += s
        sums[3] += c * c
        sums[4] += s * s
        sums[5] += c * s

    def judge(self, feedback: Feedback) -> None:
        """Count one judgement; a source's later one on the same answer takes the place of its earlier one."""
        key = (feedback.trace_id, feedback.voter)
        sums = self.targets.get(self._answered.get(feedback.trace_id, ""))
        if sums is None:
            return  # not asked here, or a target that joined after the start, which has no sums
        before = self._judged.get(key)
        if before is not None:
            sums.judged -= 1
            sums.quality -= before
        sums.judged += 1
        sums.quality += feedback.value
        self._judged[key] = feedback.value
        if len(self._judged) > JUDGED:
            self._judged.popitem(last=False)
        for row in self.recent:
            if row["id"] == feedback.trace_id:
                row["feedback"] = feedback.value

    def savings(self) -> dict[str, Any]:
        """Return what was saved against asking the strongest target every time, with its 95% interval."""
        n, c, s, cc, ss, cs = self._saved
        out: dict[str, Any] = {
            "strongest": self.strongest,
            "n": int(n),
            "usd": s - c,
            "share": None,
            "low": None,
            "high": None,
        }
        if s > 0.0:
            r = c / s
            out["share"] = 1.0 - r
            if n >= 2:
                spread = max(0.0, cc - 2.0 * r * cs + r * r * ss)
                half = 1.96 * math.sqrt(n / (n - 1.0) * spread) / s
                out["low"], out["high"] = 1.0 - r - half, 1.0 - r + half
        return out

    def show(self) -> dict[str, Any]:
        """Return everything as builtin data."""
        answered = sum(s.requests for s in self.targets.values())
        targets = []
        for target in self.pool:
            s = self.targets[target.name]
            low, high = wilson(s.quality, s.judged)
            targets.append(
                {
                    "name": target.name,
                    "requests": s.requests,
                    "share": s.requests / answered if answered else 0.0,
                    "usd": s.usd,
                    "tokens": s.input + s.output,
                    "failures": s.failures,
                    "seconds": s.seconds / s.requests if s.requests else None,
                    "judged": s.judged,
                    "quality": s.quality / s.judged if s.judged else None,
                    "quality_low": low,
                    "quality_high": high,
                    "resting_seconds": self.pool.health.resting(target.name),
                }
            )
        now = int(time.time() // 60)
        return {
            "since": self.since,
            "requests": self.requests,
            "failures": self.failures,
            "refused": self.refused,
            "fallbacks": self.fallbacks,
            "usd": self.usd,
            "unpriced": self.unpriced,
            "by_route": self.by_route,
            "guards": self.guards,
            "acts": self.acts,
            "targets": targets,
            "savings": self.savings(),
            "minutes": [self.minutes.get(m, 0) for m in range(now - 59, now + 1)],
            # A plan's name takes longer to find than all the rest, so it is found for those that are shown.
            "recent": [
                {**r, "chosen": None if r["chosen"] is None else name_of(r["chosen"])} for r in reversed(self.recent)
            ],
        }


def wilson(total: float, n: int) -> tuple[float | None, float | None]:
    """Return Wilson's 95% interval of a mean of n values in [0, 1] that sum to `total` (for values within, it is on the wide side)."""
    if not n:
        return None, None
    z2, p = 1.96**2, min(1.0, max(0.0, total / n))
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
