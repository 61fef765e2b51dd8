"""Rules over signals: of those that hold and can be followed, one decides. After the decisions of vLLM Semantic Router (2026, arXiv 2603.04444).

::

    conditions:
      asian: {language: {in: [han, kana]}}
    rules:
      - {name: long, when: {length.tokens: {gt: 4000}}, use: big, priority: 10}
      - {name: code, when: {all: [{marks.code: true}, {not: asian}]}, use: [coder, big], do: [tag]}
      - {name: hard, when: hard_question, use: {policy: careful, among: [big, huge]}}
      - {name: off_topic, when: {domain.in_domain: false}, use: {refuse: "I answer questions about ships"}}
    default: {use: small, do: [cache]}
    policies: {careful: …}

Conditions are those of `fairlead.conditions`. `use` is a target, a plan, a list of these (the first that may act; the others are its
fallbacks), one of `policies` (among all, or `among` some), or a refusal.

**Which one.** Strategy ``priority``: of the rules that hold, the one with the highest `priority`; ties go by order. Strategy
``confidence``: the one with the highest mean confidence over its satisfied tests; ties go by priority, then order. With ``fuzzy: true`` a rule
holds where its degree is `threshold` or more, and under ``confidence`` the highest degree decides.

A rule whose targets may not act is passed over for the next, and the reasons say so; a `required` rule then refuses the query instead,
and nobody else takes over if its plan fails. If no rule applies, the default decides; without one the query is refused.

Unlike the paper a rule can be passed over, its fallbacks are known, and a ``not`` has the confidence of the test it denies.
About 0.4 µs a rule of five tests, at most (`benchmarks/rules.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

from msgspec import Struct

from fairlead import conditions as language
from fairlead.conditions import Check, Condition, Measure, Sheet, keys
from fairlead.errors import ConfigError, NoEligibleTarget, UnknownName, suggest
from fairlead.plans import base as plans
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, Share, answering
from fairlead.policies.random import Random
from fairlead.types import Option, Plan, Query, Reward, Signals, Target, Trace


class First(Struct, frozen=True):
    """Use the first of these plans whose targets may act. `alone`: written as one plan, not as a list, so that others may take over too."""

    plans: tuple[Plan, ...]
    alone: bool


class Ask(Struct, frozen=True):
    """Leave it to a policy, over all who may act or some of them."""

    policy: str
    among: tuple[str, ...] | None = None


class Refuse(Struct, frozen=True):
    """Refuse the query."""

    message: str = ""


Use: TypeAlias = First | Ask | Refuse


class Rule(Struct, frozen=True, kw_only=True):
    """One rule as `Rules` understood it. The default is one too: its name is ``default``, and its condition always holds."""

    name: str
    when: Condition
    use: Use
    required: bool = False
    priority: float = 0.0
    do: tuple[str, ...] = ()
    path: str = "$"

    def missing(self, eligible: Collection[str]) -> tuple[str, ...]:
        """Name the targets for want of which it cannot be followed; empty if it can be."""
        match self.use:
            case First(candidates):
                lacking = [[t for t in plan.targets() if t not in eligible] for plan in candidates]
                return () if not all(lacking) else tuple(dict.fromkeys(t for some in lacking for t in some))
            case Ask(among=tuple(among)):
                return () if any(t in eligible for t in among) else among
        return ()


class Verdict(Struct, frozen=True, kw_only=True):
    """The rule that decides, what of its `use` may act (None: the query is refused, and `excluded` says why), and the reasons."""

    rule: Rule
    use: First | Ask | None
    reasons: list[str]
    excluded: dict[str, str] = {}


DEFAULT: Final = "default"
"""The name by which decisions of the default are known."""
_FIELDS: Final = ("name", "when", "use", "required", "priority", "do")
_ALWAYS: Final = language.All(())


class _Held(Struct, frozen=True):
    """Rules, ready to be asked: in the order in which they are to be tried, as far as that does not depend on the query."""

    sheet: Sheet
    rules: tuple[tuple[Rule, Check, Measure | None], ...]


class Rules(Policy):
    """Of the rules that hold and can be followed, the first by `strategy` decides, with certainty; else the default.

    Args:
        rules: rules in order, as data.
        default: what to use if none applies, as `use`, or as ``{use: …, do: […]}``. If its targets may not act, the first eligible target by
            name stands in, and the reasons say so. None: a query to which no rule applies is refused.
        policies: policies that `use` and `default` may name, by name. They learn from the queries that were theirs.
        conditions: conditions that rules may use by name.
        strategy: ``priority`` or ``confidence``.
        fuzzy: whether a rule holds to a degree.
        threshold: the degree from which it holds, if so (default 0.5).

    Raises:
        ConfigError: by `needs` and the first decision, with the path of what is wrong.
        NoEligibleTarget: by a decision, if a rule refuses, a required rule cannot be followed, or nothing applies.
    """

    passes: ClassVar[tuple[str, ...]] = ("members", "shadow", "actions")
    __slots__ = ("_held", "_otherwise", "_parsed")
    _parsed: tuple[Rule, ...]
    _otherwise: Rule
    _held: _Held

    def __init__(
        self,
        *,
        rules: Sequence[dict[str, Any]] = (),
        default: Any = None,
        policies: dict[str, Policy] | None = None,
        conditions: dict[str, Any] | None = None,
        strategy: Literal["priority", "confidence"] = "priority",
        fuzzy: bool = False,
        threshold: Share | None = None,
    ) -> None:
        self.rules = rules
        self.default = default
        self.policies = {} if policies is None else policies
        self.conditions = {} if conditions is None else conditions
        self.strategy = strategy
        self.fuzzy = fuzzy
        self.threshold = threshold

    @classmethod
    def example(cls) -> Self:
        """A rule, and a policy for the rest."""
        rule = {"name": "long", "when": {"length": {"gt": 400}}, "use": "bee"}
        return cls(rules=[rule], default={"policy": "any"}, policies={"any": Random()})

    # ------------------------------------------------------------------------------------------------ what it says

    @property
    def parsed(self) -> tuple[Rule, ...]:
        """The rules in the order written, understood."""
        try:
            return self._parsed
        except AttributeError:  # a slot that is not filled yet
            self._parsed = tuple(self._read())
        return self._parsed

    @property
    def otherwise(self) -> Rule:
        """The default, understood; one that refuses if there is none."""
        try:
            return self._otherwise
        except AttributeError:
            self._otherwise = self._default()
        return self._otherwise

    @property
    def ordered(self) -> tuple[Rule, ...]:
        """The rules by priority, then as written."""
        return tuple(sorted(self.parsed, key=lambda rule: -rule.priority))

    def holding(self, rule: Rule) -> Condition:
        """Return the crisp condition for `rule` to hold: its own, or that its degree reaches the threshold."""
        return language.at_least(rule.when, self._threshold) if self.fuzzy else rule.when

    @property
    def _threshold(self) -> float:
        return 0.5 if self.threshold is None else self.threshold

    def check(self) -> None:
        """Raise `ConfigError` for a rule or a default that cannot be understood."""
        _ = self.parsed, self.otherwise
        if self.strategy not in ("priority", "confidence"):
            raise ConfigError("strategy is priority or confidence", path="$.strategy")
        if self.threshold is not None and not self.fuzzy:
            raise ConfigError("a threshold is for fuzzy rules; write fuzzy: true", path="$.threshold")
        if self._threshold <= 0.0:
            raise ConfigError("every rule reaches a threshold of 0; choose one above", path="$.threshold")

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Targets that the rules and the default name."""
        return tuple(named for rule in (*self.parsed, self.otherwise) for named in _named(rule))

    @property
    def orders(self) -> tuple[tuple[str, str], ...]:
        """Actions that the rules and the default order."""
        return tuple((f"{rule.path}.do", name) for rule in (*self.parsed, self.otherwise) for name in rule.do)

    @property
    def tests(self) -> tuple[tuple[str, str], ...]:
        """The keys of all conditions."""
        return tuple((f"{rule.path}.when", key) for rule in self.parsed for key in keys(rule.when))

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the rules name, and what the policies need."""
        mine = (key.partition(".")[0] for rule in self.parsed for key in keys(rule.when))
        return tuple(dict.fromkeys([*mine, *(n for p in self.policies.values() for n in p.needs)]))

    # ------------------------------------------------------------------------------------------------ what it does

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Follow the rule that decides."""
        verdict = self.judge(signals, {t.name: None for t in targets})
        rule, use, reasons = verdict.rule, verdict.use, verdict.reasons
        if use is None:
            words = rule.use.message if isinstance(rule.use, Refuse) else ""
            raise NoEligibleTarget(verdict.excluded, kind="rule", rule=rule.name, words=words)
        if isinstance(use, First):
            first, *others = use.plans
            return Proposal(
                [Option(plan=first, probability=1.0)],
                *reasons,
                fallbacks=None if use.alone and not rule.required else tuple(others),
                rule=rule.name,
                actions=rule.do,
            )
        if use.among is not None:
            targets = tuple(t for t in targets if t.name in use.among)
        proposal = self.policies[use.policy].propose(query, signals, targets)
        fallbacks = proposal.fallbacks
        if fallbacks is None and (rule.required or use.among is not None):
            rest = () if use.among is None else answering(targets)
            fallbacks = tuple(
                dict.fromkeys([*(o.plan for o in proposal.options), *(Single(target=t.name) for t in rest)])
            )
        return Proposal(
            proposal.options,
            *reasons,
            *proposal.reasons,
            fallbacks=fallbacks,
            forecast_of=proposal.forecast_of,
            objective=proposal.objective,
            shadow=proposal.shadow,
            members=proposal.members,
            rule=f"{rule.name}/{proposal.rule}" if proposal.rule else rule.name,
            actions=tuple(dict.fromkeys((*rule.do, *proposal.actions))),
        )

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Pass it on to the policy that the query was left to, if it was left to one."""
        use = self.judge(trace.signals, dict.fromkeys(trace.decision.eligible)).use
        if isinstance(use, Ask):
            self.policies[use.policy].learn(trace, reward)

    def decay(self, keep: float) -> None:
        """Pass it on to all policies."""
        for policy in self.policies.values():
            policy.decay(keep)

    def standing(self, signals: Signals) -> Iterator[tuple[Rule, float | None]]:
        """Yield the rules that hold, those that would decide first first; each with its confidence or degree where that ranks them."""
        try:
            held = self._held
        except AttributeError:
            held = self._held = self._compile()
        values = held.sheet.read(signals)
        if self.strategy == "priority":
            yield from ((rule, None) for rule, check, _ in held.rules if check(values))
            return
        scored = [(rule, measure(values)) for rule, check, measure in held.rules if check(values) and measure]
        yield from sorted(scored, key=lambda found: -found[1])  # stable: ties by priority, then as written

    def judge(self, signals: Signals, eligible: Collection[str]) -> Verdict:
        """Say which rule decides, and what comes of it."""
        reasons: list[str] = []
        for rule, score in self.standing(signals):
            values = ", ".join(f"{k}={signals.get(k)!r}" for k in keys(rule.when))
            if isinstance(rule.use, Refuse):
                why = _refusal(rule.use, f"rule {rule.name!r} ({values})")
                return Verdict(rule=rule, use=None, reasons=reasons, excluded=dict.fromkeys(eligible, why))
            missing = rule.missing(eligible)
            if missing and rule.required:
                why = f"not eligible for rule {rule.name!r} ({values}), which is required"
                return Verdict(rule=rule, use=None, reasons=reasons, excluded=dict.fromkeys(missing, why))
            sure = "" if score is None else f" {'to degree' if self.fuzzy else 'with confidence'} {score:.3g}"
            if not missing:
                reasons.append(f"rule {rule.name!r} holds{sure}: {values}")
                return Verdict(rule=rule, use=_left(rule.use, eligible), reasons=reasons)
            lacking = ", ".join(missing)
            reasons.append(f"rule {rule.name!r} holds{sure} ({values}) but is passed over: {lacking} not eligible")
        rule = self.otherwise
        if isinstance(rule.use, Refuse):
            why = "no rule applies, and there is no default"
            if self.default is not None:
                why = _refusal(rule.use, "the default, as no rule applies")
            excluded = dict.fromkeys(eligible, "; ".join([*reasons, why]))
            return Verdict(rule=rule, use=None, reasons=reasons, excluded=excluded)
        missing = rule.missing(eligible)
        if not missing:
            return Verdict(rule=rule, use=_left(rule.use, eligible), reasons=[*reasons, "no rule applies: the default"])
        # By name, since the order in which targets are listed must not matter.
        stand_in = min(eligible)
        reasons.append(f"the default needs {', '.join(missing)}, not eligible: {stand_in} stands in, first by name")
        return Verdict(rule=rule, use=First((Single(target=stand_in),), alone=True), reasons=reasons)

    def _compile(self) -> _Held:
        sheet = Sheet()
        score = language.compiled_degree if self.fuzzy else language.compiled_confidence
        return _Held(
            sheet=sheet,
            rules=tuple(
                (
                    rule,
                    language.compiled(self.holding(rule), sheet),
                    score(rule.when, sheet) if self.strategy == "confidence" else None,
                )
                for rule in self.ordered
            ),
        )

    # ------------------------------------------------------------------------------------------------ how it is read

    def _read(self) -> Iterator[Rule]:
        if not isinstance(self.rules, list | tuple):
            raise ConfigError("rules is a list of rules", path="$.rules")
        named = language.parse_named(self.conditions)
        seen = {DEFAULT}
        for i, data in enumerate(self.rules):
            rule = self._rule(data, i, named)
            if rule.name in seen:
                why = "is the default's own name" if rule.name == DEFAULT else "is taken by a rule before"
                raise ConfigError(f"{rule.name!r} {why}; choose another", path=f"{rule.path}.name")
            seen.add(rule.name)
            yield rule

    def _rule(self, data: Any, i: int, named: language.Named) -> Rule:
        path = f"$.rules[{i}]"
        if not isinstance(data, dict):
            raise ConfigError("a rule is an object with when and use", path=path)
        for key in data:
            if key not in _FIELDS:
                raise ConfigError(f"unknown key; {suggest(str(key), _FIELDS)}", path=f"{path}.{key}")
        for key in ("when", "use"):
            if key not in data:
                raise ConfigError(f"a rule needs {key!r}", path=path)
        name, required, priority = data.get("name", f"#{i + 1}"), data.get("required", False), data.get("priority", 0)
        if not isinstance(name, str) or not name:
            raise ConfigError("a name is a string", path=f"{path}.name")
        if not isinstance(required, bool):
            raise ConfigError("required is true or false", path=f"{path}.required")
        if isinstance(priority, bool) or not isinstance(priority, int | float) or priority != priority:
            raise ConfigError("a priority is a number; the highest goes first", path=f"{path}.priority")
        return Rule(
            name=name,
            when=language.parse(data["when"], path=f"{path}.when", named=named),
            use=self._use(data["use"], f"{path}.use"),
            required=required,
            priority=priority,
            do=_actions(data.get("do", ()), f"{path}.do"),
            path=path,
        )

    def _default(self) -> Rule:
        data = self.default
        path = "$.default"
        if data is None:
            return Rule(name=DEFAULT, when=_ALWAYS, use=Refuse(), path=path)
        if not isinstance(data, dict) or "use" not in data:
            return Rule(name=DEFAULT, when=_ALWAYS, use=self._use(data, path), path=path)
        for key in data:
            if key not in ("use", "do"):
                raise ConfigError(f"unknown key; {suggest(str(key), ('use', 'do'))}", path=f"{path}.{key}")
        use, do = self._use(data["use"], f"{path}.use"), _actions(data.get("do", ()), f"{path}.do")
        return Rule(name=DEFAULT, when=_ALWAYS, use=use, do=do, path=path)

    def _use(self, data: Any, path: str) -> Use:
        match data:
            case "refuse":
                return Refuse()
            case {"refuse": message}:
                if len(data) > 1 or not isinstance(message, str):
                    raise ConfigError('write {refuse: "why"}', path=path)
                return Refuse(message)
            case {"policy": name}:
                return self._ask(data, name, path)
            case {"among": _}:
                raise ConfigError("write {among: [a, b], policy: name}, and the policy under policies", path=path)
            case list() | tuple():
                if not data:
                    raise ConfigError("name one or more targets or plans", path=path)
                found = tuple(plans.decode(one, path=f"{path}[{i}]") for i, one in enumerate(data))
                if len(set(found)) < len(found):
                    raise ConfigError("a plan is there twice", path=path)
                return First(found, alone=False)
        return First((plans.decode(data, path=path),), alone=True)

    def _ask(self, data: Mapping[str, Any], name: Any, path: str) -> Ask:
        if not isinstance(name, str) or not {"policy", "among"}.issuperset(data):
            raise ConfigError(
                "write {policy: name} or {among: [a, b], policy: name}, and the policy itself under policies", path=path
            )
        if name not in self.policies:
            raise ConfigError(str(UnknownName("policy in policies", name, self.policies)), path=f"{path}.policy")
        among = data.get("among")
        if among is None:
            return Ask(name)
        if not isinstance(among, list | tuple) or not among or not all(isinstance(t, str) for t in among):
            raise ConfigError("among takes a list of one or more targets", path=f"{path}.among")
        return Ask(name, tuple(among))


def _named(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield the targets that `rule` names, each with its path."""
    path = rule.path if rule.name == DEFAULT else f"{rule.path}.use"
    match rule.use:
        case First(candidates, alone):
            for i, plan in enumerate(candidates):
                yield from ((path if alone else f"{path}[{i}]", target) for target in plan.targets())
        case Ask(among=tuple(among)):
            yield from ((f"{path}.among[{i}]", target) for i, target in enumerate(among))


def _left(use: First | Ask, eligible: Collection[str]) -> First | Ask:
    """Return what of a `use` may act; for a policy's candidates that is for `propose` to find."""
    if isinstance(use, First) and len(use.plans) > 1:
        return First(tuple(p for p in use.plans if all(t in eligible for t in p.targets())), alone=False)
    return use


def _refusal(use: Refuse, by: str) -> str:
    return f"refused by {by}" + (f": {use.message}" if use.message else "")


def _actions(value: Any, path: str) -> tuple[str, ...]:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
        raise ConfigError("do takes a list of actions", path=path)
    return tuple(value)
