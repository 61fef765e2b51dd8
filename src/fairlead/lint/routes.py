"""The questions that lint asks of one route: its guards, and every `rules` policy in it.

A question is a set of literals, each standing for a condition; the solver keeps what it learned from one to the next. Pairs of rules are many:
before the solver is asked about a pair, readings that are known from earlier answers are tried on all rules at once, and what each rule needs
of single keys is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from fairlead.actions.block import Block
from fairlead.conditions import (
    All,
    AnyOf,
    Check,
    Condition,
    Not,
    Sheet,
    Sure,
    Test,
    compiled,
    holds,
    keys,
    leaves,
    mentioned,
    passes,
)
from fairlead.config import Config
from fairlead.errors import FairleadError
from fairlead.guards import Guard, Guards
from fairlead.lint.findings import Finding, Kind, Level
from fairlead.lint.space import Point, Space, Variable, shown
from fairlead.policies.rules import Ask, First, Refuse, Rule, Rules
from fairlead.pool import Eligibility
from fairlead.types import Signals

IMPASSES: Final = 20
"""So many sets of guards that leave nobody are named at most."""


class Linted(Struct):
    """What was found on one route."""

    findings: list[Finding]
    proved: list[str]
    rules: int = 0


def lint_route(route: str, config: Config) -> Linted:
    """Ask everything of one route."""
    at = f"$.routes.{route}.policy"
    inside = [(path, part) for path, part in config.policies[route].walk(at) if isinstance(part, Rules)]
    guards = [(f"$.guards[{i}]", guard) for i, guard in enumerate(config.guards)]
    guards += [(f"$.routes.{route}.guards[{i}]", g) for i, g in enumerate(config.route_guards.get(route, ()))]
    if not inside and not guards:
        return Linted([], [])
    asked = [rules.holding(rule) for _, rules in inside for rule in rules.parsed]
    asked += [guard.when for _, guard in guards if guard.when is not None]
    space = Space(signals=config.signals, conditions=asked)
    lint = _Route(route, config, space, guards)
    lint.guards_alone()
    outer: dict[str, tuple[Rules, Condition]] = {}
    for path, rules in inside:
        reach = _reach(path, outer)
        outer[path] = (rules, reach)
        lint.rules_of(path, rules, reach)
    return Linted(lint.findings, lint.proved, rules=sum(len(rules.parsed) for _, rules in inside))


def _reach(path: str, outer: Mapping[str, tuple[Rules, Condition]]) -> Condition:
    """Return when queries can reach the rules at `path`: always, unless they stand in other rules, by whose conditions they are asked.

    Rules that may be passed over do not count as keeping a query from the default; so this is true at least where a query gets there.
    """
    for above, (rules, reached) in reversed(list(outer.items())):
        for name in rules.policies:
            if path == f"{above}.policies.{name}" or path.startswith(f"{above}.policies.{name}."):
                ways: list[Condition] = [rules.holding(r) for r in rules.parsed if _asks(r, name)]
                if _asks(rules.otherwise, name):
                    ways.append(Not(AnyOf(tuple(rules.holding(r) for r in rules.parsed if _firm(r)))))
                return All((reached, AnyOf(tuple(ways))))
    return All(())


def _asks(rule: Rule, policy: str) -> bool:
    return isinstance(rule.use, Ask) and rule.use.policy == policy


def _firm(rule: Rule) -> bool:
    """Say whether a rule that holds is never passed over."""
    return rule.required or isinstance(rule.use, Refuse) or (isinstance(rule.use, Ask) and rule.use.among is None)


class _Route:
    """One route's questions. What is found gathers in `findings`, what is proved in `proved`."""

    def __init__(self, route: str, config: Config, space: Space, guards: Sequence[tuple[str, Guard]]) -> None:
        self.route, self.config, self.space, self.guards = route, config, space, guards
        self.findings: list[Finding] = []
        self.proved: list[str] = []
        self.targets = tuple(driver.target for driver in config.drivers.values())
        self.tested: set[str] = set()
        self.held = [space.name(self.guard_formula(guard)) for _, guard in guards]
        self.gone = {
            target.name: space.name(
                space.z3.Or([g for g, (_, guard) in zip(self.held, guards, strict=True) if guard.forbids(target)])
            )
            for target in self.targets
        }
        blocks = {name for name, action in config.actions.items() if isinstance(action, Block)}
        blocking = [g for g, (_, guard) in zip(self.held, guards, strict=True) if blocks.intersection(guard.do)]
        self.blocked = space.name(space.z3.Or(blocking))
        self.open = space.z3.Not(self.blocked)

    # ------------------------------------------------------------------------------------------------------ reporting

    def report(
        self,
        level: Level,
        kind: Kind,
        path: str,
        message: str,
        *,
        point: Point | None = None,
        about: Iterable[str] = (),
        true: bool = True,
    ) -> None:
        """Report a finding; `true` is what the rules themselves say of its witness.

        Raises:
            FairleadError: if they do not say what the solver said.
        """
        if not true:
            raise FairleadError(
                f"internal error of lint: at {path}, {message!r} was found, but the rules say otherwise of its witness"
            )
        self.findings.append(
            Finding(
                level=level,
                kind=kind,
                message=message,
                route=self.route,
                path=path,
                witness=None if point is None else shown(point, about),
            )
        )

    # ---------------------------------------------------------------------------------------------------------- guards

    def guard_formula(self, guard: Guard) -> Any:
        """Return that `guard` holds, lateness considered."""
        z3 = self.space.z3
        late = [self.space.late(name) for name in dict.fromkeys(k.partition(".")[0] for k in guard.keys)]
        when = z3.BoolVal(True) if guard.when is None else self.space.formula(guard.when)
        return z3.Or([when, *late]) if guard.late == "holds" else z3.And([when, *(z3.Not(n) for n in late)])

    def holding(self, signals: Signals, guards: Iterable[Guard] | None = None) -> tuple[tuple[str, ...], set[str]]:
        """Ask the guards themselves: which hold, and which targets they leave."""
        asked = Guards([g for _, g in self.guards] if guards is None else list(guards))
        found = asked.apply(signals, Eligibility(targets=self.targets, excluded={}))
        return found.guards, {t.name for t in found.eligible.targets}

    def guards_alone(self) -> None:
        """Ask of each guard whether it can hold, and of all whether they leave anybody."""
        if not self.guards:
            return
        z3, space = self.space.z3, self.space
        before = len(self.findings)
        for (path, guard), held in zip(self.guards, self.held, strict=True):
            if guard.when is None:
                continue
            self.single_tests(self.raw_guard(path).get("when"), f"{path}.when")
            when = space.name(space.formula(guard.when))
            if not space.possible(when):
                only = "" if not space.possible(held) else ", but where a signal it reads is late"
                self.report(
                    "warning", "guard_never", path, f"guard {guard.name!r} never holds{only}: {_say(guard.when)}"
                )
            elif not space.possible(z3.Not(held)):
                self.report("note", "guard_always", path, f"guard {guard.name!r} always holds")
        named = [g.name for g in (guard for _, guard in self.guards)]
        rest = [self.gone[t.name] for t in self.targets]
        past: list[Any] = []
        for _ in range(IMPASSES):
            point = space.find(*rest, self.open, *past)
            if point is None:
                break
            signals = space.signals_at(point)
            names, left = self.holding(signals)
            together = self.least([g for _, g in self.guards if g.name in names])
            about = [k for g in together for k in g.keys]
            said = " and ".join(repr(g.name) for g in together)
            path = next(p for p, g in self.guards if g is together[-1])
            message = (
                f"guard {said} leaves no target" if len(together) == 1 else f"guards {said} together leave no target"
            )
            self.report(
                "warning",
                "impasse",
                path,
                f"{message}: every such query is refused",
                point=point,
                about=about,
                true=not left and {g.name for g in together} <= set(names),
            )
            past.append(z3.Not(z3.And([self.held[named.index(g.name)] for g in together])))
            past[-1] = space.name(past[-1])
        else:
            self.report(
                "note",
                "not_proved",
                "$.guards",
                f"further sets of guards may leave no target: only {IMPASSES} are named",
            )
        if not any(f.kind == "impasse" for f in self.findings[before:]):
            self.proved.append(f"route {self.route}: no guards leave a query without a target")

    def least(self, guards: list[Guard]) -> list[Guard]:
        """Of guards that leave nobody, drop those that are not needed for it."""
        for guard in tuple(guards):
            rest = [g for g in guards if g is not guard]
            if all(any(g.forbids(t) for g in rest) for t in self.targets):
                guards = rest
        return guards

    def raw_guard(self, path: str) -> Mapping[str, Any]:
        """Return a guard as it stands in the file."""
        house = path.startswith("$.guards")
        listed = self.config.file.guards if house else self.config.file.routes[self.route].guards
        found: Mapping[str, Any] = listed[int(path.rpartition("[")[2].rstrip("]"))]
        return found

    # ----------------------------------------------------------------------------------------------------------- tests

    def single_tests(self, data: Any, path: str, named: Mapping[str, Any] | None = None) -> None:
        """Ask of each test in a condition as it stands in the file, and in the named ones it uses, whether it can pass, and can fail."""
        for name, inner in {**self.config.file.conditions, **(named or {})}.items():
            shared = self.config.file.conditions.get(name)
            at = f"$.conditions.{name}" if shared == inner else f"{path.partition('.rules[')[0]}.conditions.{name}"
            if at not in self.tested and _uses(data, name, {**self.config.file.conditions, **(named or {})}):
                self.tested.add(at)
                self._single_tests(inner, at)
        if path not in self.tested:
            self.tested.add(path)
            self._single_tests(data, path)

    def _single_tests(self, data: Any, path: str) -> None:
        space = self.space
        for at, test in leaves(data, path):
            literal = space.name(space.formula(test))
            allowed = space.ranges.get(test.key)
            if not space.possible(literal):
                said = "" if allowed is None else f"; {test.key} is {_range(allowed)}"
                self.report("warning", "test_never", at, f"never true: {_say(test)}{said}")
            elif not space.possible(space.z3.Not(literal)):
                said = "" if allowed is None else f"; {test.key} is {_range(allowed)}"
                self.report("warning", "test_always", at, f"always true: {_say(test)}{said}")

    # ----------------------------------------------------------------------------------------------------------- rules

    def rules_of(self, path: str, rules: Rules, reach: Condition) -> None:
        """Ask everything of one policy of rules, of queries that get there."""
        space, z3 = self.space, self.space.z3
        ordered = rules.ordered
        conditions = [rules.holding(rule) for rule in ordered]
        literals = [space.name(space.formula(c)) for c in conditions]
        here = space.name(space.formula(reach))
        where = [path + rule.path.removeprefix("$") for rule in ordered]
        for data, rule in zip(rules.rules, rules.parsed, strict=True):
            self.single_tests(data["when"], f"{path}{rule.path.removeprefix('$')}.when", rules.conditions)

        alive = [self.can_hold(*asked, here) for asked in zip(ordered, conditions, literals, where, strict=True)]
        by_priority = rules.strategy == "priority"
        points: list[Point | None] = [None] * len(ordered)
        shadows = 0
        for i, rule in enumerate(ordered):
            if not alive[i]:
                continue
            before = [j for j in range(i) if alive[j]] if by_priority else []
            denied = {j: z3.Not(literals[j]) for j in before}
            points[i] = space.find(here, literals[i], *denied.values())
            if points[i] is None:
                core = space.culprits([here, literals[i]], list(denied.values()))
                self.shadowed(rule, where[i], [ordered[before[c]] for c in core])
                shadows += 1
                points[i] = space.find(here, literals[i])
            else:
                self.certain(points[i], conditions[i], where[i], rule.name, [conditions[j] for j in before])
            self.followed(rule, conditions[i], where[i], [here, literals[i]], list(denied.values()))
        name = path.removeprefix("$.routes.").removesuffix(".policy")
        if all(alive) and ordered and not shadows:
            self.proved.append(
                f"rules {name}: each of the {len(ordered)} rules can hold"
                + (", and decides some query" if by_priority else "")
            )
        if by_priority:
            self.conflicts(name, path, rules, ordered, conditions, literals, where, alive, points, reach)
        else:
            said = "which rule decides depends on how sure the signals are: shadowing and conflicts are not proved under strategy confidence"
            self.report("note", "not_proved", path, said)
        self.dead_zone(name, path, rules, conditions, literals, here)

    def can_hold(self, rule: Rule, condition: Condition, literal: Any, path: str, here: Any) -> bool:
        """Ask whether a rule ever holds."""
        space = self.space
        if space.possible(here, literal):
            return True
        parts = list(condition.parts) if isinstance(condition, All) else [condition]
        named = [space.name(space.formula(p)) for p in parts]
        if space.possible(*named):
            message = f"rule {rule.name!r} never holds: no query for which it could gets here"
        else:
            core = space.culprits([], named)
            said = " and ".join(_say(parts[i]) for i in core)
            why = "cannot hold together" if len(core) > 1 else "is never true"
            message = f"rule {rule.name!r} never holds: {said} {why}"
        self.report("error", "never_holds", path, message)
        return False

    def certain(
        self, point: Point | None, condition: Condition, path: str, name: str, denied: Iterable[Condition]
    ) -> None:
        """Put a point that is not reported to the rules all the same: proofs rest on points like it."""
        assert point is not None
        signals = self.space.signals_at(point)
        if not holds(condition, signals) or any(holds(c, signals) for c in denied):
            raise FairleadError(
                f"internal error of lint: at {path}, rule {name!r} was said to decide where it does not"
            )

    def shadowed(self, rule: Rule, path: str, by: Sequence[Rule]) -> None:
        """Report a rule that others always go before."""
        names = [repr(r.name) for r in by]
        if all(_firm(r) for r in by):
            end = "never decides"
        else:
            end = f"decides only where {_or(names)} {'is' if len(by) == 1 else 'are'} passed over, for want of a target that may act"
        self.report(
            "warning",
            "shadowed",
            path,
            f"rule {rule.name!r} {end}: wherever it holds, {_or(names)} does and goes first",
        )

    def followed(
        self, rule: Rule, condition: Condition, path: str, holds_: Sequence[Any], denied: Sequence[Any]
    ) -> None:
        """Ask whether guards take away what a rule uses."""
        space, z3 = self.space, self.space.z3
        if not self.guards:
            return
        match rule.use:
            case First(plans):
                ways = [plan.targets() for plan in plans]
            case Ask(among=tuple(among)):
                ways = [(target,) for target in among]
            case _:
                return
        followed = space.name(z3.Or([z3.And([z3.Not(self.gone[t]) for t in way]) for way in ways]))
        point = space.find(*holds_, z3.Not(followed), self.open, *denied)
        always = not space.possible(*holds_, followed, self.open)
        if point is None:
            if not always:
                return
            point = space.find(*holds_, z3.Not(followed), self.open)
            if point is None:  # blocked wherever it holds: that is what the guard is for
                self.report(
                    "note",
                    "taken_away",
                    path,
                    f"rule {rule.name!r} never decides: wherever it holds, a guard blocks the query",
                )
                return
        signals = space.signals_at(point)
        names, left = self.holding(signals)
        taking = [
            g
            for _, g in self.guards
            if g.name in names and any(t for w in ways for t in w if t not in left and self.forbids(g, t))
        ]
        by = " or ".join(repr(g.name) for g in taking)
        then = "the query is refused" if rule.required else "it is passed over"
        if always:
            message = f"wherever rule {rule.name!r} holds, guards such as {by} take away what it uses: {then}"
            level: Level = "error" if rule.required else "warning"
        else:
            message = f"rule {rule.name!r} can hold where guard {by} takes away what it uses: {then}"
            level = "warning" if rule.required else "note"
        true = holds(condition, signals) and not any(all(t in left for t in way) for way in ways)
        about = [*keys(condition), *keys(rule.when), *(k for g in taking for k in g.keys)]
        self.report(level, "taken_away", path, message, point=point, about=about, true=true)

    def forbids(self, guard: Guard, name: str) -> bool:
        """Say whether `guard` takes away the target of that name."""
        return any(guard.forbids(t) for t in self.targets if t.name == name)

    def dead_zone(
        self, name: str, path: str, rules: Rules, conditions: Sequence[Condition], literals: Sequence[Any], here: Any
    ) -> None:
        """Ask whether there is a query to which no rule applies."""
        point = self.space.find(here, *(self.space.z3.Not(x) for x in literals))
        if point is None:
            unused = "" if rules.default is None else "; the default is there for rules that are passed over"
            self.proved.append(f"rules {name}: no dead zones, every input is covered by a rule{unused}")
            return
        signals = self.space.signals_at(point)
        about = [k for rule in rules.parsed for k in keys(rule.when)]
        true = not any(holds(c, signals) for c in conditions)
        if rules.default is None:
            said = "no rule covers this, and there is no default: such queries are refused"
            self.report("warning", "dead_zone", f"{path}.rules", said, point=point, about=about, true=true)
            return
        does = "refused by the default" if isinstance(rules.otherwise.use, Refuse) else "left to the default"
        self.report(
            "note",
            "dead_zone",
            f"{path}.default",
            f"what no rule covers is {does}",
            point=point,
            about=about,
            true=true,
        )
        self.proved.append(f"rules {name}: no dead zones, every input is covered by a rule or the default")

    # ------------------------------------------------------------------------------------------------------- conflicts

    def conflicts(
        self,
        name: str,
        path: str,
        rules: Rules,
        ordered: Sequence[Rule],
        conditions: Sequence[Condition],
        literals: Sequence[Any],
        where: Sequence[str],
        alive: Sequence[bool],
        points: Sequence[Point | None],
        reach: Condition,
    ) -> None:
        """Ask of each pair of rules of one priority that do different things whether both can hold."""
        pairs = [
            (i, j)
            for j in range(len(ordered))
            for i in range(j)
            if alive[i] and alive[j] and ordered[i].priority == ordered[j].priority and _differ(ordered[i], ordered[j])
        ]
        found = _Overlaps(self.space, conditions, literals, reach).among(pairs, points)
        stated = any("priority" in data for data in rules.rules)
        if stated:
            for (i, j), point in found.items():
                signals = self.space.signals_at(point)
                said = f"rules {ordered[i].name!r} and {ordered[j].name!r} have the same priority, and both can hold: the first written decides"
                self.report(
                    "warning",
                    "conflict",
                    where[j],
                    said,
                    point=point,
                    about=[*keys(ordered[i].when), *keys(ordered[j].when)],
                    true=holds(conditions[i], signals) and holds(conditions[j], signals),
                )
        elif found:
            (i, j), point = next(iter(found.items()))
            signals = self.space.signals_at(point)
            n = len(found)
            which = f"{ordered[i].name!r} before {ordered[j].name!r}" + (f", and {n - 1} more pairs" if n > 1 else "")
            self.report(
                "note",
                "conflict",
                f"{path}.rules",
                f"{n} pair{'s' if n > 1 else ''} of rules can hold together; their order decides: {which}",
                point=point,
                about=[*keys(ordered[i].when), *keys(ordered[j].when)],
                true=holds(conditions[i], signals) and holds(conditions[j], signals),
            )
        if not found and len(ordered) > 1:
            equal = "of equal priority " if stated else ""
            self.proved.append(f"rules {name}: no two rules {equal}that do different things hold together")


class _Overlaps:
    """Finds which pairs of conditions can be true together, asking the solver as seldom as may be."""

    def __init__(
        self, space: Space, conditions: Sequence[Condition], literals: Sequence[Any], reach: Condition
    ) -> None:
        self.space, self.literals, self.here = space, literals, space.name(space.formula(reach))
        self.sheet = Sheet()
        self.checks: list[Check] = [compiled(c, self.sheet) for c in conditions]
        self.reached = compiled(reach, self.sheet)
        self.boxes = [_box(c, space) for c in conditions]

    def among(self, pairs: Sequence[tuple[int, int]], points: Sequence[Point | None]) -> dict[tuple[int, int], Point]:
        """Return those of `pairs` that can be true together, each with a point; `points` are some that are known."""
        open_ = set(pairs)
        found: dict[tuple[int, int], Point] = {}

        def learn(point: Point) -> None:
            values = self.sheet.read(self.space.readings_at(point))
            true = [i for i, check in enumerate(self.checks) if check(values)]
            for b, j in enumerate(true):
                for i in true[:b]:
                    if (i, j) in open_:
                        open_.discard((i, j))
                        found[i, j] = point

        for point in points:
            if point is not None:
                learn(point)
        for i, j in pairs:
            if (i, j) not in open_ or _apart(self.boxes[i], self.boxes[j]):
                continue
            point = self.guess(i, j, points) or self.space.find(self.here, self.literals[i], self.literals[j])
            if point is not None:
                learn(point)
        return {pair: found[pair] for pair in pairs if pair in found}

    def guess(self, i: int, j: int, points: Sequence[Point | None]) -> Point | None:
        """Return a point at which both are true, made of one for each; None if that is not one."""
        a, b = points[i], points[j]
        if a is None or b is None:
            return None
        box_a, box_b = self.boxes[i], self.boxes[j]
        point = a | {v: b[v] for v in box_b}
        for v in box_a.keys() & box_b.keys():
            both = box_a[v] & box_b[v]
            if point[v] is not a[v] or not both:
                point[v] = self.space.cells[v][min(both)]
        signals = self.space.readings_at(point)
        values = self.sheet.read(signals)
        good = self.checks[i](values) and self.checks[j](values) and self.reached(values) and self.space.lawful(signals)
        return point if good else None


def _box(condition: Condition, space: Space) -> dict[Variable, frozenset[int]]:
    """Return, by key, the cells outside of which `condition` is surely false; keys on which that says nothing are left out."""
    match condition:
        case Test(key, op, value):
            values = space.cells.get((key, "value"), (None,))
            return {(key, "value"): frozenset(i for i, v in enumerate(values) if passes(v, op, value))}
        case Sure(signal, op, value):
            values = space.cells[signal, "confidence"]
            return {(signal, "confidence"): frozenset(i for i, v in enumerate(values) if passes(v, op, value))}
        case All(parts):
            box: dict[Variable, frozenset[int]] = {}
            for part in parts:
                for variable, inside in _box(part, space).items():
                    box[variable] = box[variable] & inside if variable in box else inside
            return box
        case AnyOf(parts):
            boxes = [_box(part, space) for part in parts]
            shared = set.intersection(*map(set, boxes)) if boxes else set()
            return {v: frozenset().union(*(b[v] for b in boxes)) for v in shared}
        case Not(Test() as test):
            return {v: frozenset(range(len(space.cells.get(v, (None,))))) - i for v, i in _box(test, space).items()}
    return {}


def _apart(a: Mapping[Variable, frozenset[int]], b: Mapping[Variable, frozenset[int]]) -> bool:
    return any(v in b and a[v].isdisjoint(b[v]) for v in a)


def _differ(a: Rule, b: Rule) -> bool:
    """Say whether it matters which of two rules decides."""
    return (a.use, a.required, a.do) != (b.use, b.required, b.do)


def _uses(data: Any, name: str, named: Mapping[str, Any]) -> bool:
    return name in mentioned(data, named)


# -------------------------------------------------------------------------------------------------------------- in words


_SIGNS: Final = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "is", "ne": "is not", "in": "in"}


def _say(condition: Condition) -> str:
    """Write a condition in words."""
    match condition:
        case Test(key, op, value):
            return f"{key} {_SIGNS[op]} {_value(value)}"
        case Sure(signal, op, value):
            return f"{signal} (confidence) {_SIGNS[op]} {value:g}"
        case All(parts):
            return "(" + " and ".join(map(_say, parts)) + ")" if parts else "always"
        case AnyOf(parts):
            return "(" + " or ".join(map(_say, parts)) + ")" if parts else "never"
        case Not(part):
            return f"not {_say(part)}"


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" or {names[-1]}"


def _value(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case float():
            return f"{value:g}"
    return str(value)


def _range(allowed: Any) -> str:
    """Write a range in words."""
    match allowed.kind:
        case "bool":
            said = "true or false"
        case "string":
            known = allowed.among
            said = (
                "a string"
                if known is None
                else f"one of {', '.join(known[:6])}{' …' if len(known) > 6 else ''}"
                if known
                else ""
            )
        case kind:
            ends = [
                f"from {allowed.low:g}" if allowed.low is not None else "",
                f"to {allowed.high:g}" if allowed.high is not None else "",
            ]
            said = " ".join(["a whole number" if kind == "int" else "a number", *filter(None, ends)])
    return " or ".join(filter(None, [said, "null" if allowed.null else ""]))
