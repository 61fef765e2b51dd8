"""Prometheus metrics, in the text format 0.0.4. Ours, without a library: children are bound once, and counting is then an addition.

Labels are bounded: routes, targets, guards, actions, teams and tenants of the config, classes of status, kinds of failure and token. Nothing is labelled by key,
user or model name of a client's choice. Values that others keep (breakers, lines, budgets, what was learned) are read when somebody scrapes. A family
that cannot be read then (the store is gone) is left out and counted.

With several workers each writes its families to the store every `SHARE_SECONDS` (`Sharing`), and whichever is scraped shows all of them, told apart by the
label ``worker``; what belongs to no single worker (budgets, the config) is shown once, without it. A worker that dies leaves its counters; the one
started in its place goes on from them. What it counted in its last `SHARE_SECONDS` is lost here, and stands in the traces.

Cost: 1 µs a request, nothing else until a scrape, which takes 5 ms in a thread for 20 routes over 20 targets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from fairlead.errors import FairleadError, StoreError
from fairlead.types import Trace
from fairlead.version import VERSION

if TYPE_CHECKING:
    from fairlead.store import Connection, Store

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
SHARE_SECONDS: Final = 2.0
"""From one writing of a worker's metrics to the next."""
STALE_SECONDS: Final = 10.0
"""A worker that has written nothing for so long is taken for dead: only its counters are shown."""
FORGET_SECONDS: Final = 3600.0
"""What the workers of a parent that is gone have left is deleted after so long."""

_OVERHEAD: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)

TABLES: Final = """
CREATE TABLE IF NOT EXISTS gateway_metrics(
  run TEXT NOT NULL, worker INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL, PRIMARY KEY(run, worker));
"""

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Read: TypeAlias = Callable[[], "float | Iterable[tuple[tuple[str, ...], float]]"]
"""Reads a value, or values by those of the labels."""


class Place(Struct, frozen=True):
    """Which worker a process is. `run` names their parent."""

    run: str
    worker: int


class Family(Struct, frozen=True, array_like=True):
    """One metric as it is shown: samples are (suffix of the name, labels as written, value)."""

    name: str
    kind: Kind
    help: str
    samples: list[tuple[str, str, float]]
    alone: bool = False
    """It belongs to no single worker."""


class Child:
    """One counter, with its labels. On a hot path add to `value` itself."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`, at least 0."""
        self.value += amount


class Times:
    """One histogram, with its labels."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Counter:
    """A counter, by the values of its labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.names = name, text, tuple(labels)
        self.children: dict[tuple[str, ...], Child] = {}

    def labels(self, *values: str) -> Child:
        """Return the child of these values."""
        child = self.children.get(values)
        if child is None:
            child = self.children[values] = Child()
        return child

    def family(self) -> Family:
        """Show it."""
        samples = [("", written(self.names, values), c.value) for values, c in list(self.children.items())]
        return Family(self.name, "counter", self.text, samples)


class Histogram:
    """A histogram, by the values of its labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, bounds: tuple[float, ...]) -> None:
        self.name, self.text, self.names, self.bounds = name, text, tuple(labels), bounds
        self.children: dict[tuple[str, ...], Times] = {}

    def labels(self, *values: str) -> Times:
        """Return the child of these values."""
        child = self.children.get(values)
        if child is None:
            child = self.children[values] = Times(self.bounds)
        return child

    def family(self) -> Family:
        """Show it."""
        samples = []
        for values, times in list(self.children.items()):
            labels, counts, total = written(self.names, values), list(times.counts), 0
            for bound, count in zip((*map(_number, self.bounds), "+Inf"), counts, strict=True):
                total += count
                samples.append(("_bucket", f'le="{bound}"' + (f",{labels}" if labels else ""), float(total)))
            samples += [("_sum", labels, times.sum), ("_count", labels, float(total))]
        return Family(self.name, "histogram", self.text, samples)


class _Calls:
    """The children of the calls of one target for one route."""

    __slots__ = ("cached", "input", "output", "retries", "seconds", "usd")

    def __init__(self, metrics: Metrics, route: str, target: str) -> None:
        kinds = ("input", "cached_input", "output")
        self.input, self.cached, self.output = (metrics.tokens.labels(route, target, kind) for kind in kinds)
        self.usd = metrics.usd.labels(route, target)
        self.retries = metrics.retries.labels(target)
        self.seconds = metrics.call_seconds.labels(target)


class Metrics:
    """The metrics of one gateway.

    Args:
        config: gives the digest of the live config.
    """

    def __init__(self, config: Callable[[], str] = str) -> None:
        both = ("route", "target")
        self.requests = Counter("fairlead_requests_total", "Requests that were decided.", (*both, "status"))
        self.tokens = Counter(
            "fairlead_tokens_total",
            "Tokens of all calls. Kinds are disjoint: their sum is input + output.",
            (*both, "kind"),
        )
        self.usd = Counter("fairlead_usd_total", "Spend, by the target that was called.", both)
        self.fallbacks = Counter("fairlead_fallbacks_total", "Plans that failed and were replaced.", ("route",))
        self.failures = Counter("fairlead_failures_total", "Failed calls.", ("target", "kind"))
        self.retries = Counter("fairlead_retries_total", "Calls that were sent again.", ("target",))
        self.limited = Counter(
            "fairlead_limited_total", "Answers that a limit kept from being better.", ("route", "limit")
        )
        self.refused = Counter("fairlead_refused_total", "Requests that no target was asked for.", ("status",))
        self.rates = Counter("fairlead_rate_limited_total", "Requests refused by a rate or budget.", ("limit",))
        self.guards = Counter("fairlead_guards_total", "Requests for which a guard held.", ("guard",))
        self.rules = Counter("fairlead_rules_total", "Requests that a rule decided.", ("route", "rule"))
        self.acts = Counter("fairlead_acts_total", "What actions did.", ("action", "did"))
        self.feedback = Counter("fairlead_feedback_total", "Judgements.", ("status",))
        self.events = Counter("fairlead_stream_events_total", "Events of streams sent to clients.", ("route",))
        self.scrapes = Counter("fairlead_scrape_failures_total", "Metrics that could not be read.", ("metric",))
        overhead = "Time of a request that was not spent in calls, from its last byte in to its last byte out."
        self.overhead = Histogram("fairlead_overhead_seconds", overhead, bounds=_OVERHEAD)
        self.seconds = Histogram("fairlead_request_seconds", "Time of a request.", ("route",), bounds=_SECONDS)
        first = "Time to the first byte of a streamed answer."
        self.first_byte = Histogram("fairlead_first_byte_seconds", first, ("route",), bounds=_SECONDS)
        self.call_seconds = Histogram("fairlead_call_seconds", "Time of a call.", ("target",), bounds=_SECONDS)
        self.before: dict[str, Family] = {}
        """What a worker that died in this place had counted."""
        self._own: list[Counter | Histogram] = [v for v in vars(self).values() if isinstance(v, Counter | Histogram)]
        self._watched: list[tuple[Family, tuple[str, ...], Read]] = []
        self._rows: dict[tuple[str, str, int], tuple[Child, Times]] = {}
        self._calls: dict[tuple[str, str], _Calls] = {}
        self._overhead = self.overhead.labels()
        said = f'version="{VERSION}",python="{platform.python_version()}"'
        self._build = Family(
            "fairlead_build_info", "gauge", "Version of Fairlead and of Python.", [("", said, 1.0)], True
        )
        self.watch(
            "fairlead_config_info",
            "Digest of the live config.",
            lambda: [((config(),), 1.0)],
            labels=("digest",),
        )
        for name, text, read, kind in _PROCESS:
            self.watch(name, text, read, kind=kind)

    def watch(
        self,
        name: str,
        text: str,
        read: Read,
        *,
        kind: Kind = "gauge",
        labels: Sequence[str] = (),
        alone: bool = False,
    ) -> None:
        """Show what somebody else keeps.

        Args:
            name: in base units, ``…_total`` for a counter.
            text: its help.
            read: asked at each scrape, in a thread.
            kind: of metric.
            labels: names of the labels whose values `read` gives.
            alone: it is the same whichever worker is asked.
        """
        self._watched.append((Family(name, kind, text, [], alone), tuple(labels), read))

    # ------------------------------------------------------------------------------------------------ counting

    def note(
        self,
        trace: Trace,
        *,
        status: int,
        seconds: float,
        overhead: float,
        first_byte: float | None,
        fallbacks: int,
        events: int = 0,
    ) -> None:
        """Count one request."""
        route, outcome = trace.query.route, trace.outcome
        key = (route, outcome.target, status // 100)
        row = self._rows.get(key)
        if row is None:
            request = self.requests.labels(route, outcome.target or "none", f"{status // 100}xx")
            row = self._rows[key] = (request, self.seconds.labels(route))
        row[0].value += 1.0
        row[1].observe(seconds)
        self._overhead.observe(overhead)
        for step in trace.steps:
            call = step.call
            if call is None:
                continue
            calls = self._calls.get((route, call.target))
            if calls is None:
                calls = self._calls[route, call.target] = _Calls(self, route, call.target)
            done = step.outcome
            calls.seconds.observe(done.seconds)
            if (tokens := done.tokens) is not None:
                if tokens.simple:  # what `kinds` says, without its dictionary
                    cached = min(tokens.cached_input, tokens.input)
                    calls.input.value += tokens.input - cached
                    calls.cached.value += cached
                    calls.output.value += tokens.output
                else:
                    for kind, count in tokens.kinds().items():
                        self.tokens.labels(route, call.target, kind).value += count
            if done.usd:
                calls.usd.value += done.usd
            if done.retries:
                calls.retries.value += done.retries
            if done.error is not None:
                self.failures.labels(call.target, done.error.kind).value += 1.0
        if first_byte is not None:
            self.first_byte.labels(route).observe(first_byte)
            self.events.labels(route).value += events
        if fallbacks:
            self.fallbacks.labels(route).value += fallbacks
        if outcome.limited:
            self.limited.labels(route, outcome.limited).value += 1.0
        for act in trace.acts:
            self.acts.labels(act.name, act.did).value += 1.0
        self.held(trace)

    def held(self, trace: Trace) -> None:
        """Count the guards that held, and the rule that decided."""
        decision = trace.decision
        for guard in decision.guards:
            self.guards.labels(guard).value += 1.0
        if decision.rule:
            self.rules.labels(trace.query.route, decision.rule).value += 1.0

    # ------------------------------------------------------------------------------------------------ showing

    def families(self) -> list[Family]:
        """Read them all, what a worker before had counted included. May block."""
        found = [self._build]
        for watched, labels, read in self._watched:
            try:
                said = read()
                samples = [((), float(said))] if isinstance(said, int | float) else list(said)
            except (FairleadError, OSError) as e:
                log.warning("%s cannot be read now: %s", watched.name, e)
                self.scrapes.labels(watched.name).inc()
                continue
            shown = [("", written(labels, values), float(value)) for values, value in samples]
            found.append(msgspec.structs.replace(watched, samples=shown))
        found += [counted.family() for counted in self._own]
        return [added(f, self.before[f.name]) if f.name in self.before else f for f in found]

    def text(self) -> bytes:
        """Write them all in the text format. May block."""
        return rendered(self.families())

    def described(self) -> list[tuple[str, Kind, tuple[str, ...], str]]:
        """Say which metrics there are: name, kind, labels (but ``worker`` and ``le``) and help."""
        found: list[tuple[str, Kind, tuple[str, ...], str]] = [
            (self._build.name, "gauge", ("version", "python"), self._build.help)
        ]
        found += [(f.name, f.kind, labels, f.help) for f, labels, _ in self._watched]
        found += [(c.name, c.family().kind, c.names, c.text) for c in self._own]
        return [*found, (AGE.name, "gauge", ("worker",), AGE.help)]


class Sharing:
    """Lets whichever worker is scraped show the metrics of all.

    Args:
        metrics: this worker's.
        store: in whose tables they are kept. Make this before the store is started.
        run: names the parent, so that no other parent's workers on the same store are shown.
        worker: this worker's number.
        seconds: from one writing to the next.
    """

    def __init__(
        self, metrics: Metrics, store: Store, *, run: str, worker: int, seconds: float = SHARE_SECONDS
    ) -> None:
        self.metrics, self.store, self.run, self.worker, self.seconds = metrics, store, run, worker, seconds
        self._task: asyncio.Task[None] | None = None
        store.tables(TABLES)

    async def start(self) -> None:
        """Take up what a worker that died in this place had counted, and begin to write."""
        found = await self.store.fetch(
            "SELECT body FROM gateway_metrics WHERE run = ? AND worker = ?", (self.run, self.worker)
        )
        for (body,) in found:
            self.metrics.before = {f.name: f for f in _families.decode(body) if f.kind != "gauge"}
        await self.write()
        self._task = asyncio.create_task(self._keep(), name="fairlead-metrics")

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
            await asyncio.sleep(self.seconds)
            try:
                await self.write()
            except StoreError:  # the writer has logged it; the others show what was there before, then only counters
                pass
            except Exception:  # the wall of sharing: whatever one metric does, the next writing is tried
                log.exception("the metrics could not be shared; it is tried again")

    async def write(self) -> None:
        """Write this worker's metrics. Raises `StoreError`."""
        families = await asyncio.to_thread(self.metrics.families)
        body = msgspec.json.encode([f for f in families if not f.alone])
        row = (self.run, self.worker, time.time(), body)

        def work(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO gateway_metrics(run, worker, at, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT(run, worker) DO UPDATE SET at = excluded.at, body = excluded.body",
                row,
            )
            connection.execute("DELETE FROM gateway_metrics WHERE at < ?", (row[2] - FORGET_SECONDS,))

        await self.store.transact("the metrics", work)

    def text(self) -> bytes:
        """Write those of all workers in the text format; of this one alone if the store cannot be asked. Blocks."""
        own = self.metrics.families()
        try:
            rows = self.store.rows(
                "SELECT worker, at, body FROM gateway_metrics WHERE run = ? AND worker <> ? ORDER BY worker",
                (self.run, self.worker),
            )
        except StoreError as e:
            log.warning("only this worker's metrics are shown: %s", e)
            rows = []
        now, age = time.time(), [("", f'worker="{self.worker}"', 0.0)]
        found: dict[str, Family] = {}
        everybody = [(self.worker, own)]
        for worker, at, body in rows:
            families = _families.decode(body)
            if now - at > STALE_SECONDS:
                families = [f for f in families if f.kind != "gauge"]
            everybody.append((worker, families))
            age.append(("", f'worker="{worker}"', max(0.0, now - at)))
        for worker, families in everybody:
            for f in families:
                samples = f.samples
                if not f.alone:
                    mark = f'worker="{worker}"'
                    samples = [(s, f"{labels},{mark}" if labels else mark, v) for s, labels, v in samples]
                there = found.get(f.name)
                if there is None:
                    found[f.name] = msgspec.structs.replace(f, samples=list(samples))
                else:
                    there.samples.extend(samples)
        return rendered([*found.values(), msgspec.structs.replace(AGE, samples=age)])


def added(family: Family, before: Family) -> Family:
    """Add to a counter or histogram what was counted before."""
    sums = {(s, labels): v for s, labels, v in before.samples}
    samples = [(s, labels, v + sums.pop((s, labels), 0.0)) for s, labels, v in family.samples]
    samples += [(s, labels, v) for (s, labels), v in sums.items()]
    return msgspec.structs.replace(family, samples=samples)


def written(names: Sequence[str], values: Sequence[str]) -> str:
    """Write labels, by name."""
    pairs = sorted(zip(names, values, strict=True))
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)


def rendered(families: Iterable[Family]) -> bytes:
    """Write families in the text format."""
    return "".join(_lines(families)).encode()


def _lines(families: Iterable[Family]) -> Iterator[str]:
    for f in families:
        help_ = f.help.replace("\\", "\\\\").replace("\n", "\\n")
        yield f"# HELP {f.name} {help_}\n# TYPE {f.name} {f.kind}\n"
        for suffix, labels, value in f.samples:
            yield f"{f.name}{suffix}{{{labels}}} {value!r}\n" if labels else f"{f.name}{suffix} {value!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(bound: float) -> str:
    return repr(float(bound))


def _resident() -> float:
    with open("/proc/self/statm", "rb") as file:
        return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu() -> float:
    times = os.times()
    return times.user + times.system


AGE: Final = Family("fairlead_worker_age_seconds", "gauge", "Age of what is shown of a worker.", [])
_families: Final = msgspec.json.Decoder(list[Family])
_BEGAN: Final = time.time()
_PROCESS: Final[tuple[tuple[str, str, Read, Kind], ...]] = (
    ("process_cpu_seconds_total", "CPU time of the process.", _cpu, "counter"),
    ("process_resident_memory_bytes", "Memory of the process.", _resident, "gauge"),
    ("process_open_fds", "Open files and sockets.", lambda: float(len(os.listdir("/proc/self/fd"))), "gauge"),
    ("process_start_time_seconds", "When the process began, Unix time.", lambda: _BEGAN, "gauge"),
)
