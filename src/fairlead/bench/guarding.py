"""Guards and routing judged together: what each guard costs in quality, money and time, and how often it fires wrongly. Ours, no paper.

Recorded queries are routed as the config says (its signals, guards, policy), once with all guards, once without any, and once without
each: what a guard costs is the difference that its absence makes. Quality, USD and seconds of a query are those recorded for the
plan that is chosen, in the mean over the policy's own probabilities; a query that is refused or blocked has quality 0 and costs nothing.

    effect(g) = mean over queries of [ all guards - all but g ]          (paired; 95% bootstrap over prompts)

Where the table says which queries a guard is meant for (a column of 0 and 1), it also counts how often the guard fires on
others (wrongly) and does not fire on those (misses), with Wilson intervals, and the quality lost on those on which it fires wrongly.

The time of a guard is the time of reading the signals that nobody else needs. What a mask or a changed prompt does to an answer's quality
is not in any table: it counts as nothing, and the report says so.

Shapes: Q queries, G guards, S scenarios (all guards, none, all but the first, all but the second …).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from fairlead.actions.block import Block
from fairlead.bench.metrics import Interval, paired_bootstrap, wilson
from fairlead.config import Config
from fairlead.errors import NoEligibleTarget, TableError, UnknownName
from fairlead.guards import Guard, Guards
from fairlead.pool import Eligibility, Pool
from fairlead.signals.base import Observer
from fairlead.table import Floats, Ints, OutcomeTable
from fairlead.types import Plan, Query, Signals
from fairlead.worlds.replay import replay
from fairlead.worlds.tabled import Tabled

Bools: TypeAlias = NDArray[np.bool_]
UNJUDGED: Final = ("mask", "prompt", "cache", "check")
"""Actions whose effect on an answer no table records."""


class Share(Struct, frozen=True, kw_only=True):
    """A count out of a number, with Wilson's 95% interval."""

    count: int
    of: int
    low: float
    high: float

    @classmethod
    def make(cls, count: int, of: int) -> Share:
        """With its interval."""
        low, high = wilson(count, of)
        return cls(count=count, of=of, low=low, high=high)

    def __str__(self) -> str:
        return f"{self.count / self.of:.1%} [{self.low:.1%}, {self.high:.1%}]" if self.of else "none to ask"


class Row(Struct, frozen=True, kw_only=True):
    """One guard."""

    guard: str
    fires: Share
    refuses: Share
    """Queries that are answered without it and refused or blocked with it."""
    quality: Interval
    usd_per_1k: Interval | None
    """None: some cost is not recorded."""
    seconds: Interval
    """Of the calls."""
    own_seconds: float
    """Mean time of reading the signals that only this guard needs."""
    wrongly: Share | None = None
    """Fired, of those it is not meant for."""
    missed: Share | None = None
    """Not fired, of those it is meant for."""
    quality_wrongly: Interval | None = None
    """Change of quality over the queries on which it fires wrongly."""
    unjudged: tuple[str, ...] = ()
    """Its actions whose effect on answers is not recorded."""


class Report(Struct, frozen=True, kw_only=True):
    """What guards cost one route."""

    source: str
    queries: int
    route: str
    targets: tuple[str, ...]
    quality: tuple[float, float]
    """Mean with all guards, and without any."""
    usd_per_1k: tuple[float, float] | None
    refused: tuple[float, float]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def judge(
    config: Config,
    table: OutcomeTable,
    *,
    route: str = "auto",
    truth: Mapping[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """Replay `table` through one route of `config` with and without its guards.

    Args:
        config: whose targets have the names of the table's models; those that the table lacks cannot be chosen.
        table: with prompts.
        route: one of the config's.
        truth: guard -> numeric column of the table that is not 0 where the guard ought to fire.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UnknownName: for a route, guard or column that is not there.
        TableError: if no target of the config is in the table, or a prompt is missing.
    """
    if route not in config.policies:
        raise UnknownName("route", route, config.policies)
    policy, guards = config.policies[route], (*config.guards, *config.route_guards.get(route, ()))
    for name in truth or ():
        if name not in {g.name for g in guards}:
            raise UnknownName("guard", name, [g.name for g in guards])
    truth_GQ = {name: _labels(table, column) for name, column in (truth or {}).items()}
    targets = tuple(d.target for d in config.drivers.values() if d.name in table.models)
    if not targets:
        models = ", ".join(table.models)
        raise TableError(
            f"no target of the config is among the table's models: {models}; give a target one of these names"
        )
    notes = [f"not in the table, so never chosen: {', '.join(n for n in config.drivers if n not in table.models)}"]
    needs = tuple(dict.fromkeys((*policy.needs, *(k.partition(".")[0] for g in guards for k in g.keys))))
    observer = Observer(signals=config.signals)
    observer.check(needs)
    queries = list(table.queries())
    read = [observer.read(q, needs) for q in queries]

    scenarios = [guards, (), *(guards[:g] + guards[g + 1 :] for g in range(len(guards)))]
    blocks = frozenset(name for name, action in config.actions.items() if isinstance(action, Block))
    pool = Pool(targets=targets)
    outcomes: dict[tuple[Plan, int], tuple[float, float, float]] = {}

    def brought(some: Sequence[Guard]) -> Floats:
        """Quality, USD, seconds and whether it was refused, of each query under `some` guards: (Q, 4)."""
        applied = Guards(some)
        out_Q4 = np.zeros((len(queries), 4))
        for q, (query, signals) in enumerate(zip(queries, read, strict=True)):
            guarded = applied.apply(signals, pool.eligible(query))
            if blocks.intersection(guarded.actions):
                out_Q4[q, 3] = 1.0
                continue
            try:
                decision = policy.decide(query, signals, pool, eligible=guarded.eligible)
            except NoEligibleTarget:
                out_Q4[q, 3] = 1.0
                continue
            if blocks.intersection(decision.actions):
                out_Q4[q, 3] = 1.0
                continue
            for option in decision.options:
                if option.probability:
                    if (option.plan, q) not in outcomes:
                        outcomes[option.plan, q] = _run(option.plan, query, table, q)
                    out_Q4[q, :3] += option.probability * np.asarray(outcomes[option.plan, q])
        return out_Q4

    brought_SQ4 = [brought(some) for some in scenarios]
    known = np.ones(len(queries), dtype=np.bool_)
    for found in brought_SQ4:
        known &= ~np.isnan(found[:, 0])
    if not known.all():
        notes.append(
            f"{int((~known).sum())} queries are left out: the quality of a plan that would be chosen is not recorded"
        )
    if not known.any():
        raise TableError("no query has a recorded quality for what would be chosen")
    every, none, *without = (found[known] for found in brought_SQ4)
    priced = all(not np.isnan(found[known, 1]).any() for found in brought_SQ4)
    rows = []
    for g, guard in enumerate(guards):
        rows.append(
            _row(
                guard,
                every=every,
                without=without[g],
                fires=np.asarray([_fires(guard, s) for s in read])[known],
                truth=truth_GQ[guard.name][known] if guard.name in truth_GQ else None,
                own_seconds=_own_seconds(guards, g, policy.needs, read),
                priced=priced,
                groups=table.groups[known],
                unjudged=tuple(n for n in guard.do if (a := config.actions.get(n)) and a.type_name() in UNJUDGED),
                resamples=resamples,
                seed=seed,
            )
        )
    return Report(
        source=table.source,
        queries=int(known.sum()),
        route=route,
        targets=tuple(t.name for t in targets),
        quality=(float(every[:, 0].mean()), float(none[:, 0].mean())),
        usd_per_1k=(1e3 * float(every[:, 1].mean()), 1e3 * float(none[:, 1].mean())) if priced else None,
        refused=(float(every[:, 3].mean()), float(none[:, 3].mean())),
        rows=tuple(rows),
        notes=tuple(n for n in notes if not n.endswith(": ")),
    )


def _row(
    guard: Guard,
    *,
    every: Floats,
    without: Floats,
    fires: Bools,
    truth: Bools | None,
    own_seconds: float,
    priced: bool,
    groups: Ints,
    unjudged: tuple[str, ...],
    resamples: int,
    seed: int,
) -> Row:
    def change(column: int, scale: float = 1.0, where: Bools | None = None) -> Interval:
        chosen = np.ones(len(every), dtype=np.bool_) if where is None else where
        values = scale * (every[chosen, column] - without[chosen, column])[:, None]
        return paired_bootstrap(
            values, lambda means: float(means[0]), resamples=resamples, seed=seed, groups_Q=groups[chosen]
        )

    n = len(fires)
    row = Row(
        guard=guard.name,
        fires=Share.make(int(fires.sum()), n),
        refuses=Share.make(int(((every[:, 3] > 0) & (without[:, 3] == 0)).sum()), n),
        quality=change(0),
        usd_per_1k=change(1, 1e3) if priced else None,
        seconds=change(2),
        own_seconds=own_seconds,
        unjudged=unjudged,
    )
    if truth is None:
        return row
    wrongly = fires & ~truth
    return replace(
        row,
        wrongly=Share.make(int(wrongly.sum()), int((~truth).sum())),
        missed=Share.make(int((~fires & truth).sum()), int(truth.sum())),
        quality_wrongly=change(0, where=wrongly) if wrongly.any() else None,
    )


def _fires(guard: Guard, signals: Signals) -> bool:
    return bool(Guards([guard]).apply(signals, Eligibility(targets=())).guards)


def _run(plan: Plan, query: Query, table: OutcomeTable, q: int) -> tuple[float, float, float]:
    run = replay(plan, query, Tabled(table, query=q))
    quality = run.outcome.quality if run.outcome.ok else None
    return (
        np.nan if quality is None else quality,
        np.nan if run.usd is None else run.usd,
        run.seconds,
    )


def _own_seconds(guards: Sequence[Guard], g: int, needs: Sequence[str], read: Sequence[Signals]) -> float:
    others = {*needs, *(k.partition(".")[0] for i, o in enumerate(guards) if i != g for k in o.keys)}
    own = {k.partition(".")[0] for k in guards[g].keys} - others
    return float(np.mean([sum(s.readings[name].seconds for name in own) for s in read]))


def _labels(table: OutcomeTable, column: str) -> Bools:
    """Read a column of truth: of each query the first value that is known."""
    values = table.extra(column).reshape(len(table), -1)
    found = np.asarray([next((v for v in row if not np.isnan(v)), np.nan) for row in values])
    if np.isnan(found).any():
        raise TableError(
            f"the column {column!r} says nothing of {int(np.isnan(found).sum())} queries; fill it with 0 or 1"
        )
    meant: Bools = found != 0.0
    return meant


# ------------------------------------------------------------------------------------------------------------ in words


def to_text(found: Report) -> str:
    """Return a table for a terminal, with what it rests on."""
    lines = [
        f"{found.source or 'table'}: {found.queries:,} queries on route {found.route!r} over {', '.join(found.targets)}; "
        "intervals: 95% over prompts",
        *found.notes,
        "",
        _line("", "quality", "USD/1k", "refused"),
    ]
    for i, name in enumerate(("all guards", "no guards")):
        usd = "" if found.usd_per_1k is None else f"{found.usd_per_1k[i]:.4f}"
        lines.append(_line(name, f"{found.quality[i]:.4f}", usd, f"{found.refused[i]:.1%}"))
    lines += ["", "What each guard changes, the others in place:"]
    for row in found.rows:
        lines += [
            f"  {row.guard}",
            f"    fires on            {row.fires}",
            f"    fires wrongly on    {row.wrongly if row.wrongly is not None else 'not known: say by --truth which queries it is meant for'}",
        ]
        if row.missed is not None:
            lines.append(f"    misses              {row.missed}")
        lines.append(f"    refuses             {row.refuses}")
        lines.append(f"    quality             {row.quality}")
        if row.quality_wrongly is not None:
            lines.append(f"      where wrongly     {row.quality_wrongly}")
        if row.usd_per_1k is not None:
            lines.append(f"    USD per 1k          {row.usd_per_1k}")
        lines.append(f"    seconds of calls    {row.seconds}")
        lines.append(f"    seconds of its own  {row.own_seconds:.6f} a query, reading signals that nobody else needs")
        if row.unjudged:
            lines.append(f"    not judged          what {', '.join(row.unjudged)} does to answers: no table records it")
    lines += ["", "A query that is refused or blocked counts as quality 0 and costs nothing."]
    return "\n".join(lines)


def _line(name: str, *cells: str) -> str:
    return f"{name:<14}" + "".join(f"{c:>12}" for c in cells)
