"""The questions that lint asks of one route: its guards, and every `rules` policy in it.

A question is a set of literals, each standing for a condition; the solver keeps what it learned from one to the next. Pairs of rules are many:
before the solver is asked about a pair, readings that are known from earlier answers are tried on all rules at once, and what each rule needs
of single keys is compared.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

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

IN_TIME: Final = ", as long as all signals can be read"
"""Where what is said to be proved is not of signals that are late."""
IMPASSES: Final = 20
"""So many sets of guards that leave nobody are named at most."""


Outer: TypeAlias = Mapping[str, tuple[Rules, Condition, frozenset[str]]]
"""Rules by path, those around others first: with when queries get there, and the targets that may always act there."""


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
    outer: dict[str, tuple[Rules, Condition, frozenset[str]]] = {}
    for path, rules in inside:
        reach = _reach(path, outer)
        lint.ask_among(path, outer)
        outer[path] = (rules, reach, lint.always)
        lint.rules_of(path, rules, reach)
    return Linted(lint.findings, lint.proved, rules=sum(len(rules.parsed) for _, rules in inside))


def _reach(path: str, outer: Outer) -> Condition:
    """Return when queries can reach the rules at `path`: always, unless they stand in other rules, by whose conditions they are asked.

    Rules that may be passed over, since a guard may take away what they use, do not count as keeping a query; so this is true at least where
    a query gets there.
    """
    for above, (rules, reached, always) in reversed(list(outer.items())):
        for name in rules.policies:
            if path == f"{above}.policies.{name}" or path.startswith(f"{above}.policies.{name}."):
                ways: list[Condition] = []
                firm: list[Condition] = []
                for r in rules.ordered:
                    if _asks(r, name):
                        ways.append(All((rules.holding(r), Not(AnyOf(tuple(firm))))))
                    if _firm(r, always) and rules.strategy == "priority":  # else whoever is surest goes first
                        firm.append(rules.holding(r))
                if _asks(rules.otherwise, name):
                    ways.append(Not(AnyOf(tuple(rules.holding(r) for r in rules.parsed if _firm(r, always)))))
                return All((reached, AnyOf(tuple(ways))))
    return All(())


def _askers(path: str, outer: Outer) -> Iterator[list[Ask]]:
    """Yield how each policy of rules around `path` asks for what stands there."""
    for above, (rules, _, _) in outer.items():
        for name in rules.policies:
            if f"{path}.".startswith(f"{above}.policies.{name}."):
                yield [r.use for r in (*rules.parsed, rules.otherwise) if isinstance(r.use, Ask) and _asks(r, name)]


def _asks(rule: Rule, policy: str) -> bool:
    return isinstance(rule.use, Ask) and rule.use.policy == policy


def _firm(rule: Rule, always: Collection[str] = ()) -> bool:
    """Say whether a rule that holds is never passed over; the targets in `always` may always act."""
    ways = _ways(rule)
    return rule.required or ways is None or any(all(t in always for t in way) for way in ways)


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
        self.blocks = {name for name, action in config.actions.items() if isinstance(action, Block)}
        blocking = [g for g, (_, guard) in zip(self.held, guards, strict=True) if self.blocks.intersection(guard.do)]
        self.blocked = space.name(space.z3.Or(blocking))
        self.open = space.z3.Not(self.blocked)
        self.among: frozenset[str] | None = None
        """Whom the rules under question are asked among by the rules around them; None: all."""

    def ask_among(self, path: str, outer: Outer) -> None:
        """Turn to the rules at `path`, which stand in those of `outer`."""
        self.among = None
        for asks in _askers(path, outer):
            if len({a.among for a in asks}) > 1:
                said = (
                    "these rules are asked among different targets: they are looked at as if it were among all of these"
                )
                self.report("note", "not_proved", path, said)
            limits = [set(a.among) for a in asks if a.among is not None]
            if limits and len(limits) == len(asks):
                limit = frozenset().union(*limits)
                self.among = limit if self.among is None else self.among & limit

    def left(self, target: str) -> Any:
        """Return that `target` may act."""
        z3 = self.space.z3
        return z3.BoolVal(False) if self.among is not None and target not in self.among else z3.Not(self.gone[target])

    @property
    def always(self) -> frozenset[str]:
        """Those that no guard ever takes away."""
        kept = {t.name for t in self.targets if not any(guard.forbids(t) for _, guard in self.guards)}
        return frozenset(kept if self.among is None else kept & self.among)

    @property
    def some(self) -> Any:
        """Somebody may act."""
        return self.space.name(self.space.z3.Or([self.left(t.name) for t in self.targets]))

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
        return found.guards, {t.name for t in found.eligible.targets if self.among is None or t.name in self.among}

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
                only = "" if not space.possible(held, late=True) else ", but where a signal it reads is late"
                self.report(
                    "warning", "guard_never", path, f"guard {guard.name!r} never holds{only}: {_say(guard.when)}"
                )
            elif not space.possible(z3.Not(held)):
                self.report("note", "guard_always", path, f"guard {guard.name!r} always holds")
        for path, guard in self.guards:
            taken = [t.name for t in self.targets if guard.forbids(t)]
            if taken and not path.startswith("$.guards"):
                said = f"guard {guard.name!r} takes away {', '.join(taken)} on route {self.route} only: by name"
                others = "" if len(self.config.policies) == 1 else ", or on another route,"
                self.report(
                    "note",
                    "one_route",
                    path,
                    f"{said}{others} they can still be asked; a guard of the file would hold there too",
                )
        past: list[Any] = []
        self.impasses(past, late=False)
        self.impasses(past, late=True)
        found = {f.kind for f in self.findings[before:]}
        if "impasse" not in found:
            unless = IN_TIME if "late" in found else ""
            self.proved.append(f"route {self.route}: no guards leave a query without a target{unless}")

    def impasses(self, past: list[Any], *, late: bool) -> None:
        """Ask which guards together leave nobody, those in `past` apart; `late`: also where signals are late that are not slow."""
        space, z3 = self.space, self.space.z3
        named = [g.name for g in (guard for _, guard in self.guards)]
        rest = [self.gone[t.name] for t in self.targets]
        for _ in range(IMPASSES):
            point = space.find(*rest, self.open, *past, late=late)
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
                "late" if late else "impasse",
                path,
                f"{_if_late(point) if late else ''}{message}: every such query is refused",
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
                if space.possible(literal, late=True):  # it asks whether the signal could be read
                    continue
                said = "" if allowed is None else f"; {test.key} is {_range(allowed)}"
                self.report("warning", "test_never", at, f"never true: {_say(test)}{said}")
            elif not space.possible(space.z3.Not(literal)) and (test.op, test.value) != ("ne", None):
                said = "" if allowed is None else f"; {test.key} is {_range(allowed)}"
                self.report("warning", "test_always", at, f"always true: {_say(test)}{said}")

    # ----------------------------------------------------------------------------------------------------------- rules

    def rules_of(self, path: str, rules: Rules, reach: Condition) -> None:
        """Ask everything of one policy of rules, of queries that get there."""
        space, z3 = self.space, self.space.z3
        ordered = rules.ordered
        conditions = [rules.holding(rule) for rule in ordered]
        literals = [space.name(space.formula(c)) for c in conditions]
        here = space.name(space.formula(reach) if self.among is None else z3.And(space.formula(reach), self.some))
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
        if space.possible(here, literal, late=True):
            message = f"rule {rule.name!r} never holds, but where a signal is late"
            self.report("note", "never_holds", path, f"{message}: {_say(rule.when)}")
            return False
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
        if not self.guards and self.among is None:
            return
        ways = _ways(rule)
        if ways is None:
            return
        followed = self.can_follow(ways)
        point = space.find(*holds_, z3.Not(followed), self.open, *denied)
        always = not space.possible(*holds_, followed, self.open)
        if point is None:
            if not always:
                self.late_required(rule, condition, path, [*holds_, z3.Not(followed), self.open, *denied])
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
        if not taking:
            message = f"rule {rule.name!r} uses what it is not asked among by the rules around it: {then}"
            level: Level = "error" if rule.required else "warning"
        elif always:
            message = f"wherever rule {rule.name!r} holds, guards such as {by} take away what it uses: {then}"
            level = "error" if rule.required else "warning"
        else:
            message = f"rule {rule.name!r} can hold where guard {by} takes away what it uses: {then}"
            level = "warning" if rule.required else "note"
        true = holds(condition, signals) and not any(all(t in left for t in way) for way in ways)
        about = [*keys(condition), *keys(rule.when), *(k for g in taking for k in g.keys)]
        self.report(level, "taken_away", path, message, point=point, about=about, true=true)

    def late_required(self, rule: Rule, condition: Condition, path: str, asked: Sequence[Any]) -> None:
        """Ask whether a required rule loses what it uses where signals are late that are not slow."""
        point = self.space.find(*asked, late=True) if rule.required else None
        if point is None:
            return
        signals = self.space.signals_at(point)
        names, left = self.holding(signals)
        message = f"{_if_late(point)}guards such as {_or([repr(n) for n in names])} take away what rule {rule.name!r} uses: the query is refused"
        about = [*keys(rule.when), *(k for _, g in self.guards if g.name in names for k in g.keys)]
        true = holds(condition, signals) and bool(rule.missing(left))
        self.report("note", "late", path, message, point=point, about=about, true=true)

    def can_follow(self, ways: Sequence[Sequence[str]]) -> Any:
        """Return that all targets of one of `ways` may act."""
        z3 = self.space.z3
        return self.space.name(z3.Or([z3.And([self.left(t) for t in way]) for way in ways]))

    def forbids(self, guard: Guard, name: str) -> bool:
        """Say whether `guard` takes away the target of that name."""
        return any(guard.forbids(t) for t in self.targets if t.name == name)

    def dead_zone(
        self, name: str, path: str, rules: Rules, conditions: Sequence[Condition], literals: Sequence[Any], here: Any
    ) -> None:
        """Ask whether there is a query to which no rule applies, and one to which none is left to apply where guards took targets away."""
        passed = self.passed_over(path, rules, literals, here) if self.guards or self.among is not None else False
        point = self.space.find(here, *(self.space.z3.Not(x) for x in literals))
        if point is None and passed:
            return
        if point is None:
            unused = "" if rules.default is None else "; the default is there for rules that are passed over"
            unless = IN_TIME if self.late_zone(path, rules, literals, here) else ""
            self.proved.append(f"rules {name}: no dead zones, every input is covered by a rule{unless}{unused}")
            return
        signals = self.space.signals_at(point)
        about = [k for rule in rules.parsed for k in keys(rule.when)]
        true = not any(holds(c, signals) for c in conditions)
        if rules.default is None:
            said = "no rule covers this, and there is no default: such queries are refused"
            self.report("warning", "dead_zone", f"{path}.rules", said, point=point, about=about, true=true)
            return
        does = "refused by the default" if self.refuses(rules.otherwise) else "left to the default"
        self.report(
            "note",
            "dead_zone",
            f"{path}.default",
            f"what no rule covers is {does}",
            point=point,
            about=about,
            true=true,
        )
        if not passed:
            self.proved.append(f"rules {name}: no dead zones, every input is covered by a rule or the default")

    def no_rule(self, rules: Rules, literals: Sequence[Any]) -> list[Any]:
        """Return, of each rule, that it neither is followed nor refuses: it does not hold, or guards take away what it uses."""
        z3, left = self.space.z3, []
        for rule, literal in zip(rules.ordered, literals, strict=True):
            ways = None if _firm(rule) else _ways(rule)
            left.append(z3.Not(literal) if ways is None else z3.Not(z3.And(literal, self.can_follow(ways))))
        return left

    def late_zone(self, path: str, rules: Rules, literals: Sequence[Any], here: Any) -> bool:
        """Ask whether a query is refused for want of a rule where signals are late that are not slow."""
        if not self.refuses(rules.otherwise):
            return False
        point = self.space.find(here, self.open, self.some, *self.no_rule(rules, literals), late=True)
        if point is None:
            return False
        signals = self.space.signals_at(point)
        names, stay = self.holding(signals)
        said = "there is no default" if rules.default is None else "the default refuses"
        message = f"{_if_late(point)}no rule may apply, and {said}: such queries are refused"
        about = [k for rule in rules.parsed for k in keys(rule.when)]
        about += [k for _, g in self.guards if g.name in names for k in g.keys]
        true = rules.judge(signals, stay).rule is rules.otherwise
        self.report("note", "late", f"{path}.rules", message, point=point, about=about, true=true)
        return True

    def refuses(self, rule: Rule) -> bool:
        """Say whether queries that a rule or default decides are refused."""
        return isinstance(rule.use, Refuse) or bool(self.blocks.intersection(rule.do))

    def passed_over(self, path: str, rules: Rules, literals: Sequence[Any], here: Any) -> bool:
        """Ask whether guards that leave somebody take away what every rule that holds uses, and what the default does then. Says whether
        such a query is refused."""
        space, z3 = self.space, self.space.z3
        left = self.no_rule(rules, literals)
        default = rules.otherwise
        ways = _ways(default)
        if self.refuses(default):
            # Where no rule holds at all, that it is refused is said of the rules alone.
            left.append(z3.Or(list(literals)))
        elif ways is None:
            return False
        else:
            left.append(z3.Not(self.can_follow(ways)))
        point = space.find(here, self.open, self.some, *left)
        if point is None:
            return False
        signals = space.signals_at(point)
        names, stay = self.holding(signals)
        about = [k for rule in rules.parsed for k in keys(rule.when)]
        about += [k for _, g in self.guards if g.name in names for k in g.keys]
        where = (
            f"guard {' and '.join(map(repr, names))} holds"
            if names
            else "these rules are asked among some targets only"
        )
        verdict = rules.judge(signals, stay)
        if self.refuses(default):
            said = "there is no default" if rules.default is None else "the default refuses"
            message = f"where {where}, every rule that holds can be passed over, and {said}: such queries are refused"
            level: Level = "warning" if rules.default is None else "note"
            self.report(
                level, "dead_zone", f"{path}.rules", message, point=point, about=about, true=verdict.rule is default
            )
            return True
        message = f"where {where}, the default's target can be taken away: the first by name that is left stands in"
        self.report(
            "note", "taken_away", f"{path}.default", message, point=point, about=about, true=verdict.rule is default
        )
        return False

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
    """Return, by key, the cells outside of which `condition` is surely false of signals in time; keys on which that says nothing are left
    out."""
    match condition:
        case Test(key, op, value) | Not(Test(key, op, value)):
            variable: Variable = (key, "value")
            values, wanted = space.cells.get(variable, (None,)), isinstance(condition, Test)
            there = 1 if variable in space.never_null else 0
            return {
                variable: frozenset(i for i, v in enumerate(values) if i >= there and passes(v, op, value) is wanted)
            }
        case Sure(signal, op, value):
            values = space.cells[signal, "confidence"]
            return {(signal, "confidence"): frozenset(i for i, v in enumerate(values) if passes(v, op, value))}
        case All(parts):
            box: dict[Variable, frozenset[int]] = {}
            for part in parts:
                for key_, inside in _box(part, space).items():
                    box[key_] = box[key_] & inside if key_ in box else inside
            return box
        case AnyOf(parts):
            boxes = [_box(part, space) for part in parts]
            shared = set.intersection(*map(set, boxes)) if boxes else set()
            return {v: frozenset().union(*(b[v] for b in boxes)) for v in shared}
    return {}


def _apart(a: Mapping[Variable, frozenset[int]], b: Mapping[Variable, frozenset[int]]) -> bool:
    return any(v in b and a[v].isdisjoint(b[v]) for v in a)


def _ways(rule: Rule) -> list[tuple[str, ...]] | None:
    """Return the sets of targets of which one must be left for a rule to be followed; None: it needs nobody of its own."""
    match rule.use:
        case First(plans):
            return [plan.targets() for plan in plans]
        case Ask(among=tuple(among)):
            return [(target,) for target in among]
    return None


def _if_late(point: Point) -> str:
    names = sorted(name for (name, what), value in point.items() if what == "late" and value)
    return f"if {' and '.join(names)} {'is' if len(names) == 1 else 'are'} late, "


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
        case str():
            return value if re.fullmatch(r"(?!true$|false$|null$)[A-Za-z_][\w ./-]*", value) else f'"{value}"'
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
