"""Ordered rules over signals: the first that holds, and can be followed, decides. Ours, no paper. About 2 µs a rule.

A rule reads ``{name, when, use, required}``::

    rules:
      - name: long
        when: {length.tokens: {gt: 4000}}
        use: big
      - name: code
        when: {all: [{marks.code: true}, {not: {language: {in: [han, kana]}}}]}
        use: {policy: careful}
    default: small
    policies: {careful: …}

A condition maps a key, ``signal`` or ``signal.part``, to the value it must equal or to tests on it (``eq ne gt ge lt le in``); several
keys, or several tests, must all hold; ``all``, ``any`` and ``not`` nest. Logic has two values, so De Morgan's laws hold: what was
not read, or is not a number, is neither greater nor less than anything, and unequal to everything but null. A truth value never equals
a number.

`use` and `default` name a target, give a plan, or name one of `policies`. A rule whose plan needs a target that may not act is
passed over, and the reasons say so; a `required` rule then refuses the query instead (a rule about privacy, say, must not be passed
over).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final, Self

from msgspec import Struct

from fairlead.conditions import Condition, holds, keys, parse
from fairlead.errors import ConfigError, NoEligibleTarget, UnknownName, suggest
from fairlead.plans import base as plans
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal
from fairlead.policies.random import Random
from fairlead.types import Option, Plan, Query, Reward, Signals, Target, Trace


class Rule(Struct, frozen=True, kw_only=True):
    """One rule as `Rules` understood it: `use` is a plan, or the name of a policy."""

    name: str
    when: Condition
    use: Plan | str
    required: bool = False


_FIELDS: Final = ("name", "when", "use", "required")


class Rules(Policy):
    """The first rule that holds and can be followed decides, with certainty; else the default.

    Args:
        rules: rules in order, as data.
        default: what to use if none applies. If its targets may not act, the first eligible target by name stands in, and the reasons say so.
        policies: policies that `use` and `default` may name, by name. They learn from the queries that were theirs.

    Raises:
        ConfigError: by `needs` and the first decision, with the path of what is wrong.
        NoEligibleTarget: by a decision, if a required rule holds and cannot be followed.
    """

    passes: ClassVar[tuple[str, ...]] = ("members", "shadow")
    __slots__ = ("_otherwise", "_parsed")
    _parsed: tuple[Rule, ...]
    _otherwise: Plan | str

    def __init__(
        self, *, rules: Sequence[dict[str, Any]] = (), default: Any, policies: dict[str, Policy] | None = None
    ) -> None:
        self.rules = rules
        self.default = default
        self.policies = {} if policies is None else policies

    @classmethod
    def example(cls) -> Self:
        """A rule, and a policy for the rest."""
        rule = {"name": "long", "when": {"length": {"gt": 400}}, "use": "bee"}
        return cls(rules=[rule], default={"policy": "any"}, policies={"any": Random()})

    @property
    def parsed(self) -> tuple[Rule, ...]:
        """The rules, understood."""
        try:
            return self._parsed
        except AttributeError:  # a slot that is not filled yet
            if not isinstance(self.rules, list | tuple):
                raise ConfigError("rules is a list of rules", path="$.rules") from None
        self._parsed = tuple(self._rule(data, i) for i, data in enumerate(self.rules))
        return self._parsed

    @property
    def otherwise(self) -> Plan | str:
        """The default, understood."""
        try:
            return self._otherwise
        except AttributeError:
            self._otherwise = self._use(self.default, "$.default")
        return self._otherwise

    def check(self) -> None:
        """Raise `ConfigError` for a rule or a default that cannot be understood."""
        _ = self.parsed, self.otherwise

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Targets of the plans that the rules and the default name."""
        uses = [*((f"$.rules[{i}].use", rule.use) for i, rule in enumerate(self.parsed)), ("$.default", self.otherwise)]
        return tuple((path, t) for path, use in uses if not isinstance(use, str) for t in use.targets())

    @property
    def tests(self) -> tuple[tuple[str, str], ...]:
        """The keys of all conditions."""
        return tuple((f"$.rules[{i}].when", key) for i, rule in enumerate(self.parsed) for key in keys(rule.when))

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the rules name, and what the policies need."""
        mine = (key.partition(".")[0] for rule in self.parsed for key in keys(rule.when))
        return tuple(dict.fromkeys([*mine, *(n for p in self.policies.values() for n in p.needs)]))

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Follow the first rule that holds."""
        use, reasons, required = self._choose(signals, [t.name for t in targets])
        if isinstance(use, str):
            proposal = self.policies[use].propose(query, signals, targets)
            fallbacks = proposal.fallbacks
            if required and fallbacks is None:
                fallbacks = tuple(o.plan for o in proposal.options)
            return Proposal(
                proposal.options,
                *reasons,
                *proposal.reasons,
                fallbacks=fallbacks,
                forecast_of=proposal.forecast_of,
                objective=proposal.objective,
                shadow=proposal.shadow,
                members=proposal.members,
            )
        return Proposal([Option(plan=use, probability=1.0)], *reasons, fallbacks=() if required else None)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Pass it on to the policy that the query was left to, if it was left to one."""
        try:
            use, _, _ = self._choose(trace.signals, trace.decision.eligible)
        except NoEligibleTarget:
            return
        if isinstance(use, str):
            self.policies[use].learn(trace, reward)

    def decay(self, keep: float) -> None:
        """Pass it on to all policies."""
        for policy in self.policies.values():
            policy.decay(keep)

    def _choose(self, signals: Signals, eligible: Sequence[str]) -> tuple[Plan | str, list[str], bool]:
        """Return the plan, or the name of the policy, the reasons for it, and whether nobody else may take over."""
        reasons: list[str] = []
        for rule in self.parsed:
            if not holds(rule.when, signals):
                continue
            missing = _missing(rule.use, eligible)
            values = ", ".join(f"{k}={signals.get(k)!r}" for k in keys(rule.when))
            if not missing:
                return rule.use, [*reasons, f"rule {rule.name!r} holds: {values}"], rule.required
            why = f"not eligible for rule {rule.name!r} ({values})"
            if rule.required:
                raise NoEligibleTarget(dict.fromkeys(missing, why + ", which is required"))
            reasons.append(f"rule {rule.name!r} holds ({values}) but is passed over: {', '.join(missing)} not eligible")
        missing = _missing(self.otherwise, eligible)
        if not missing:
            return self.otherwise, [*reasons, "no rule applies: the default"], False
        # By name, since the order in which targets are listed must not matter.
        stand_in = min(eligible)
        reasons.append(f"the default needs {', '.join(missing)}, not eligible: {stand_in} stands in, first by name")
        return Single(target=stand_in), reasons, False

    def _rule(self, data: Any, i: int) -> Rule:
        path = f"$.rules[{i}]"
        if not isinstance(data, dict):
            raise ConfigError("a rule is an object with when and use", path=path)
        for key in data:
            if key not in _FIELDS:
                raise ConfigError(f"unknown key; {suggest(str(key), _FIELDS)}", path=f"{path}.{key}")
        for key in ("when", "use"):
            if key not in data:
                raise ConfigError(f"a rule needs {key!r}", path=path)
        name, required = data.get("name", f"#{i + 1}"), data.get("required", False)
        if not isinstance(name, str):
            raise ConfigError("a name is a string", path=f"{path}.name")
        if not isinstance(required, bool):
            raise ConfigError("required is true or false", path=f"{path}.required")
        when, use = parse(data["when"], path=f"{path}.when"), self._use(data["use"], f"{path}.use")
        return Rule(name=name, when=when, use=use, required=required)

    def _use(self, data: Any, path: str) -> Plan | str:
        if isinstance(data, dict) and "policy" in data:
            name = data["policy"]
            if len(data) > 1 or not isinstance(name, str):
                raise ConfigError("write {policy: name}, and the policy itself under policies", path=path)
            if name not in self.policies:
                raise ConfigError(str(UnknownName("policy in policies", name, self.policies)), path=f"{path}.policy")
            return name
        return plans.decode(data, path=path)


def _missing(use: Plan | str, eligible: Iterable[str]) -> list[str]:
    """Name the targets of a plan that may not act; a policy chooses among those that may."""
    if isinstance(use, str):
        return []
    known = set(eligible)
    return [t for t in use.targets() if t not in known]
