"""Real prompts put to the rules and guards: how often each holds, decides, overlaps, is passed over; and what the signals cost. Ours.

This proves nothing; it tells what share of the traffic a finding concerns. Every signal is read to its end, so none is late; a text has
no identity, no time and no earlier turns, and signals that read those say what they say of nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from fairlead.config import Config
from fairlead.errors import TableError, suggest
from fairlead.guards import Guards
from fairlead.policies.rules import Rules
from fairlead.pool import Pool
from fairlead.signals.base import Observer
from fairlead.table import read_columns
from fairlead.types import Query

TEXTS: Final = ("prompt", "text")
"""Columns that may hold the prompt."""
IDS: Final = ("query_id", "id")


class Fired(Struct, kw_only=True):
    """One guard, rule or default."""

    name: str
    holds: int = 0
    decides: int = 0
    """Or refuses: of the rules that hold it is the one followed."""
    passed_over: int = 0
    refuses: int = 0
    """A rule: refused the query. A guard: it held, and with the others left nobody."""
    example: str = ""
    """The id of the first prompt on which it held."""


class Cost(Struct, frozen=True, kw_only=True):
    """What reading one signal took."""

    signal: str
    mean_us: float
    worst_us: float


class Fuzzed(Struct, kw_only=True):
    """One route."""

    route: str
    prompts: int
    guards: list[Fired]
    rules: dict[str, list[Fired]]
    """By the path of the policy; the last one is the default."""
    overlaps: dict[str, list[tuple[str, str, int, str]]]
    """By the path of the policy: two rules, on how many prompts both hold, and the id of the first."""
    signals: list[Cost]


def prompts(path: str | Path, *, limit: int | None = None) -> Iterator[Query]:
    """Read prompts: of an outcome table, or of JSON lines or CSV with a column ``prompt`` or ``text`` (and ``id``).

    Raises:
        TableError: if there are none.
    """
    count = 0
    for id, text in _texts(Path(path)):
        if limit is not None and count >= limit:
            return
        count += 1
        yield Query.ask(text, id=id)
    if not count:
        raise TableError(f"{path} holds no prompts; give rows with a column {' or '.join(TEXTS)}")


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    columns = read_columns(path)
    texts = next((columns[name] for name in TEXTS if name in columns), None)
    if texts is None:
        raise TableError(f"{path} has no column {' or '.join(TEXTS)}: {suggest(TEXTS[0], columns)}")
    ids = next((columns[name] for name in IDS if name in columns), range(1, len(texts) + 1))
    seen: set[str] = set()
    for id, text in zip(map(str, ids), texts, strict=True):
        if isinstance(text, str) and id not in seen:  # an outcome table has a row for each model
            seen.add(id)
            yield id, text


def fuzz(config: Config, route: str, queries: Iterable[Query]) -> Fuzzed:
    """Put `queries` to the guards and rules of `route`."""
    policy = config.policies[route]
    guards = Guards((*config.guards, *config.route_guards.get(route, ())))
    inside = {path: p for path, p in policy.walk(f"$.routes.{route}.policy") if isinstance(p, Rules)}
    pool = Pool(targets=(driver.target for driver in config.drivers.values()))
    observer = Observer(signals=config.signals)
    needs = tuple(dict.fromkeys((*guards.needs, *(n for p in inside.values() for n in p.needs))))
    of_guards = {g.name: Fired(name=g.name) for g in guards.guards}
    of_rules = {path: {r.name: Fired(name=r.name) for r in (*p.parsed, p.otherwise)} for path, p in inside.items()}
    both: dict[str, Counter[tuple[str, str]]] = {path: Counter() for path in inside}
    first: dict[tuple[str, str, str], str] = {}
    total: Counter[str] = Counter()
    worst: dict[str, float] = {}
    n = 0
    for query in queries:
        n += 1
        signals = observer.read(query, needs)
        for name, reading in signals.readings.items():
            total[name] += reading.seconds  # type: ignore[assignment]
            worst[name] = max(worst.get(name, 0.0), reading.seconds)
        guarded = guards.apply(signals, pool.eligible(query))
        for name in guarded.guards:
            _count(of_guards[name], query.id)
            of_guards[name].refuses += not guarded.eligible.targets
        eligible = [t.name for t in guarded.eligible.targets]
        for path, rules in inside.items() if eligible else ():
            fired = of_rules[path]
            standing = [rule for rule, _ in rules.standing(signals)]
            names = [r.name for r in rules.parsed if r in standing]
            for j, b in enumerate(names):
                _count(fired[b], query.id)
                for a in names[:j]:
                    both[path][a, b] += 1
                    first.setdefault((path, a, b), query.id)
            verdict = rules.judge(signals, eligible)
            decided = fired[verdict.rule.name]
            if verdict.rule is rules.otherwise:
                _count(decided, query.id)
            decided.decides += 1
            decided.refuses += verdict.use is None
            before = standing.index(verdict.rule) if verdict.rule in standing else len(standing)
            for rule in standing[:before]:
                fired[rule.name].passed_over += 1
    return Fuzzed(
        route=route,
        prompts=n,
        guards=list(of_guards.values()),
        rules={path: list(fired.values()) for path, fired in of_rules.items()},
        overlaps={
            path: [(a, b, count, first[path, a, b]) for (a, b), count in pairs.most_common()]
            for path, pairs in both.items()
        },
        signals=[
            Cost(signal=name, mean_us=1e6 * seconds / n, worst_us=1e6 * worst[name])
            for name, seconds in total.most_common()
        ],
    )


def _count(fired: Fired, id: str) -> None:
    fired.holds += 1
    fired.example = fired.example or id
