from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead import config
from fairlead.build import build
from fairlead.conditions import holds, keys, parse
from fairlead.errors import ConfigError, NoEligibleTarget
from fairlead.plans.base import decode
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal
from fairlead.policies.fixed import Fixed
from fairlead.policies.lin_ucb import LinUCB
from fairlead.policies.random import Random
from fairlead.policies.rules import Rules
from fairlead.pool import Pool
from fairlead.prove import replay_decision
from fairlead.signals.base import Observer, Signal
from fairlead.signals.length import Length
from fairlead.sqlite import SQLiteStore
from fairlead.testing import check_policy
from fairlead.types import (
    Call,
    Decision,
    Option,
    Outcome,
    Profile,
    Query,
    Reading,
    Reward,
    Signals,
    Step,
    Target,
    Trace,
)

POOL = Pool(targets=[Target(name=n) for n in ("small", "medium", "big")])
QUERY = Query.ask("hello", id="q")


class Coin(Policy):
    """Even odds over all targets; counts what it was taught."""

    def __init__(self, *, signal: str = "coin") -> None:
        self.signal = signal
        self.seen_ = 0

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.signal,)

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        return Proposal([Option(plan=Single(target=t.name), probability=1 / len(targets)) for t in targets], "a coin")

    def learn(self, trace: Trace, reward: Reward) -> None:
        self.seen_ += 1

    def decay(self, keep: float) -> None:
        self.seen_ *= keep  # type: ignore[assignment]


def signals(**readings: object) -> Signals:
    """``a=1`` is a value, ``b={"c": 1}`` are parts."""
    return Signals(
        readings={k: Reading(parts=v) if isinstance(v, dict) else Reading(value=v) for k, v in readings.items()}  # type: ignore[arg-type]
    )


def only(*names: str) -> Pool:
    return Pool(targets=[POOL[name] for name in names])


def chosen(rules: Rules, observed: Signals, *names: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    decision = rules.decide(QUERY, observed, only(*names) if names else POOL)
    assert decision.propensity == 1.0
    return decision.plan.targets(), decision.reasons


@pytest.mark.parametrize(
    ("when", "true"),
    [
        ({"a": 5}, True),
        ({"a": 5.0}, True),
        ({"a": 6}, False),
        ({"a": "5"}, False),
        ({"a": {"gt": 4, "lt": 6}}, True),
        ({"a": {"gt": 4, "lt": 5}}, False),
        ({"a": {"ge": 5, "le": 5}}, True),
        ({"a": {"in": [1, 5]}}, True),
        ({"a": {"in": ["5", True]}}, False),
        ({"a": {"ne": 5}}, False),
        ({"a": {"ne": "x"}}, True),
        ({"a": 5, "p.flag": False}, False),
        ({"p.flag": True}, True),
        ({"p.flag": 1}, False),
        ({"p.flag": {"gt": 0}}, False),
        ({"p.one": True}, False),
        ({"p.word": "x"}, True),
        ({"p.word": {"gt": 1}}, False),
        ({"none": None}, True),
        ({"none": {"eq": None}}, True),
        ({"none": {"ne": 3}}, True),
        ({"none": {"lt": 3}}, False),
        ({"none": {"in": [None]}}, True),
        ({"p.none": False}, False),
        ({"not": {"none": {"lt": 3}}}, True),
        ({"all": [{"a": 5}, {"p.flag": True}]}, True),
        ({"all": [{"a": 5}, {"p.flag": False}]}, False),
        ({"any": [{"a": 6}, {"p.flag": True}]}, True),
        ({"any": [{"a": 6}, {"p.flag": False}]}, False),
        ({"any": [{"a": 6}, {"p.flag": True}], "a": 6}, False),
        ({"not": {"a": 5, "p.flag": False}}, True),
    ],
)
def test_conditions(when: dict[str, object], true: bool) -> None:
    observed = signals(a=5, p={"flag": True, "one": 1, "word": "x"})
    assert holds(parse(when), observed) is true
    assert holds(parse({"not": when}), observed) is not true


scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(-2, 2), st.sampled_from(["x", "y"]))
leaves = st.builds(
    lambda key, test: {key: test},
    st.sampled_from(["a", "b", "p.c"]),
    st.one_of(
        scalars,
        st.builds(lambda op, v: {op: v}, st.sampled_from(["gt", "ge", "lt", "le"]), st.integers(-2, 2)),
        st.builds(lambda op, v: {op: v}, st.sampled_from(["eq", "ne"]), scalars),
        st.builds(lambda v: {"in": v}, st.lists(scalars, min_size=1, max_size=3)),
    ),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=6,
)
readings = st.builds(
    lambda a, b, c: Signals(
        readings={
            "a": Reading(value=a),
            "p": Reading(parts={} if c is None else {"c": c}),
            **({} if b is None else {"b": Reading(value=b)}),
        }
    ),
    scalars,
    scalars,
    scalars,
)


@given(conditions, conditions, readings)
def test_de_morgan(a: dict[str, object], b: dict[str, object], observed: Signals) -> None:
    def is_true(when: dict[str, object]) -> bool:
        return holds(parse(when), observed)

    assert is_true({"not": {"all": [a, b]}}) == is_true({"any": [{"not": a}, {"not": b}]})
    assert is_true({"not": {"any": [a, b]}}) == is_true({"all": [{"not": a}, {"not": b}]})
    assert is_true({"not": {"not": a}}) == is_true(a)
    assert is_true({"all": [a, b]}) == is_true({"all": [b, a]})


@given(st.sampled_from(["a", "b"]), scalars, readings)
def test_ne_is_not_eq(key: str, value: object, observed: Signals) -> None:
    assert holds(parse({key: {"ne": value}}), observed) is not holds(parse({key: value}), observed)


def test_the_first_rule_that_holds_decides() -> None:
    rules = Rules(
        rules=[
            {"name": "long", "when": {"length.tokens": {"gt": 100}}, "use": "big"},
            {"when": {"length.tokens": {"gt": 10}}, "use": "medium"},
        ],
        default="small",
    )
    assert chosen(rules, signals(length={"tokens": 500})) == (("big",), ("rule 'long' holds: length.tokens=500",))
    assert chosen(rules, signals(length={"tokens": 50})) == (("medium",), ("rule '#2' holds: length.tokens=50",))
    assert chosen(rules, signals(length={"tokens": 5})) == (("small",), ("no rule applies: the default",))


def test_the_other_order_decides_otherwise() -> None:
    a, b = {"when": {"x": 1}, "use": "big"}, {"when": {"x": {"gt": 0}}, "use": "medium"}
    assert chosen(Rules(rules=[a, b], default="small"), signals(x=1))[0] == ("big",)
    assert chosen(Rules(rules=[b, a], default="small"), signals(x=1))[0] == ("medium",)


def test_plans_may_be_used() -> None:
    plan = {"kind": "fallback", "plans": ["big", "medium"]}
    rules = Rules(rules=[{"when": {"x": 1}, "use": plan}], default=Single(target="small"))
    decision = rules.decide(QUERY, signals(x=1), POOL)
    assert decision.plan == Fallback(plans=(Single(target="big"), Single(target="medium")))
    targets, reasons = chosen(rules, signals(x=1), "small", "big")
    assert targets == ("small",)
    assert "passed over: medium not eligible" in reasons[0]


def test_a_rule_that_cannot_be_followed_is_passed_over() -> None:
    rules = Rules(
        rules=[{"name": "one", "when": {"x": 1}, "use": "big"}, {"name": "two", "when": {"x": 1}, "use": "medium"}],
        default="small",
    )
    targets, reasons = chosen(rules, signals(x=1), "small", "medium")
    assert targets == ("medium",)
    assert reasons == ("rule 'one' holds (x=1) but is passed over: big not eligible", "rule 'two' holds: x=1")


def test_a_required_rule_refuses_instead() -> None:
    rules = Rules(rules=[{"name": "private", "when": {"x": 1}, "use": "medium", "required": True}], default="small")
    with pytest.raises(NoEligibleTarget, match="medium: not eligible for rule 'private'"):
        chosen(rules, signals(x=1), "small", "big")
    assert chosen(rules, signals(x=2), "small", "big")[0] == ("small",)
    assert chosen(rules, signals(x=1))[0] == ("medium",)


def test_a_stand_in_for_the_default() -> None:
    targets, reasons = chosen(Rules(default="small"), signals(), "big", "medium")
    assert targets == ("big",)  # whatever the order of the pool
    assert reasons == ("the default needs small, not eligible: big stands in, first by name",)


def nested() -> Rules:
    return Rules(
        rules=[{"name": "odd", "when": {"x": 1}, "use": {"policy": "a"}}, {"when": {"x": 2}, "use": "big"}],
        default={"policy": "b"},
        policies={"a": Coin(), "b": Coin(signal="other")},
    )


def test_nested_policies_propose() -> None:
    decision = nested().decide(QUERY, signals(x=1), only("small", "big"))
    assert [o.probability for o in decision.options] == [0.5, 0.5]
    assert decision.reasons == ("rule 'odd' holds: x=1", "a coin")
    assert decision.propensity == 0.5


def test_only_the_policy_whose_query_it_was_learns() -> None:
    rules = nested()
    for x, times in ((1, 3), (2, 5), (3, 7)):
        decision = rules.decide(QUERY, signals(x=x), POOL)
        trace = Trace(id="q", at=0.0, query=QUERY, signals=signals(x=x), decision=decision, outcome=Outcome())
        for _ in range(times):
            rules.learn(trace, Reward(quality=1.0))
    assert {n: p.seen_ for n, p in rules.policies.items()} == {"a": 3, "b": 7}  # type: ignore[attr-defined]
    rules.decay(0.5)
    assert rules.policies["b"].seen_ == 3.5  # type: ignore[attr-defined]


def test_learning_from_another_policys_log_never_breaks() -> None:
    rules = Rules(rules=[{"when": {"x": 1}, "use": "big", "required": True}], default="small")
    decision = Decision(
        options=(Option(plan=Single(target="small"), probability=1.0),), chosen=0, propensity=1.0, eligible=("small",)
    )
    rules.learn(
        Trace(id="q", at=0.0, query=QUERY, signals=signals(x=1), decision=decision, outcome=Outcome()),
        Reward(quality=1.0),
    )


def test_state_of_nested_policies_round_trips() -> None:
    a, b = nested(), nested()
    a.policies["a"].seen_ = 4  # type: ignore[attr-defined]
    assert a.digest() != b.digest()
    b.load(a.state())
    assert a.digest() == b.digest()
    copy = a.copy()
    copy.decide(QUERY, signals(x=1), POOL)
    copy.policies["a"].seen_ = 9  # type: ignore[attr-defined]
    assert a.policies["a"].seen_ == 4  # type: ignore[attr-defined]


def test_needs_names_what_is_read_and_no_more() -> None:
    rules = Rules(
        rules=[
            {"when": {"any": [{"length.tokens": {"gt": 3}}, {"not": {"length": 2, "marks.code": True}}]}, "use": "big"}
        ],
        default={"policy": "p"},
        policies={"p": Coin()},
    )
    assert rules.needs == ("length", "marks", "coin")
    assert keys(rules.parsed[0].when) == ("length.tokens", "length", "marks.code")


def test_unreferenced_signals_are_never_read() -> None:
    class Untouchable(Signal):
        def _read(self, query: Query) -> Reading:
            raise AssertionError("nobody asked for this")

    rules = Rules(rules=[{"when": {"length": {"gt": 3}}, "use": "big"}], default="small")
    observer = Observer(signals={"length": Length(), "untouchable": Untouchable()})
    assert chosen(rules, observer.read(QUERY, rules.needs))[0] == ("big",)


@pytest.mark.parametrize(
    ("rules", "path", "says"),
    [
        ([{"when": {"a": {"gtt": 1}}, "use": "x"}], "$.rules[0].when.a.gtt", "did you mean 'gt'"),
        ([{"when": {"a": {"gt": "1"}}, "use": "x"}], "$.rules[0].when.a.gt", "number"),
        ([{"when": {"a": {"gt": True}}, "use": "x"}], "$.rules[0].when.a.gt", "number"),
        ([{"when": {"a": {"in": 1}}, "use": "x"}], "$.rules[0].when.a.in", "list"),
        ([{"when": {"a": {"in": []}}, "use": "x"}], "$.rules[0].when.a.in", "one or more"),
        ([{"when": {"a": {"in": [[1]]}}, "use": "x"}], "$.rules[0].when.a.in[0]", "neither"),
        ([{"when": {"a": [1]}, "use": "x"}], "$.rules[0].when.a", "{in:"),
        ([{"when": {"a": {}}, "use": "x"}], "$.rules[0].when.a", "a test"),
        ([{"when": {".a": 1}, "use": "x"}], "$.rules[0].when..a", "signal.part"),
        ([{"when": {}, "use": "x"}], "$.rules[0].when", "at least one key"),
        ([{"when": {"all": []}, "use": "x"}], "$.rules[0].when.all", "one or more"),
        (
            [{"when": {"all": [{"a": 1}, {"not": {"b": {"near": 1}}}]}, "use": "x"}],
            "$.rules[0].when.all[1].not.b.near",
            "unknown",
        ),
        ([{"when": {"any": {"a": 1}}, "use": "x"}], "$.rules[0].when.any", "list"),
        ([{"when": {"a": 1}, "use": "x"}, {"wehn": {"a": 1}}], "$.rules[1].wehn", "did you mean 'when'"),
        ([{"when": {"a": 1}}], "$.rules[0]", "'use'"),
        ([{"use": "x"}], "$.rules[0]", "'when'"),
        (["x"], "$.rules[0]", "object"),
        ([{"when": {"a": 1}, "use": 3}], "$.rules[0].use", "plan"),
        ([{"when": {"a": 1}, "use": {"kind": "sigle"}}], "$.rules[0].use.kind", "did you mean 'single'"),
        ([{"when": {"a": 1}, "use": {"policy": "p"}}], "$.rules[0].use.policy", "unknown policy"),
        ([{"when": {"a": 1}, "use": {"policy": "p", "x": 1}}], "$.rules[0].use", "{policy: name}"),
        ([{"when": {"a": 1}, "use": "x", "required": "yes"}], "$.rules[0].required", "true or false"),
        ([{"when": {"a": 1}, "use": "x", "name": 3}], "$.rules[0].name", "string"),
        ({"when": {"a": 1}}, "$.rules", "list"),
    ],
)
def test_mistakes_say_where(rules: list[dict[str, object]], path: str, says: str) -> None:
    with pytest.raises(ConfigError) as e:
        Rules(rules=rules, default="small").check()
    assert e.value.path == path
    assert says in e.value.message


def test_a_bad_default_says_so() -> None:
    with pytest.raises(ConfigError) as e:
        Rules(default={"policy": "nobody"}).check()
    assert e.value.path == "$.default.policy"


def test_config_builds_it() -> None:
    data = {
        "type": "rules",
        "rules": [{"when": {"marks.code": True}, "use": {"policy": "inner"}}],
        "default": "small",
        "policies": {"inner": {"type": "rules", "default": "big"}},
    }
    rules = build("policies", data)
    assert isinstance(rules, Rules)
    assert rules.needs == ("marks",)
    assert chosen(rules, signals(marks={"code": True}))[0] == ("big",)
    assert build("policies", rules.spec()).digest() == rules.digest()


def test_contract() -> None:
    check_policy(lambda: Rules(rules=[{"when": {"length": {"gt": 40}}, "use": "bee"}], default="ant"))
    check_policy(lambda: Rules(default={"policy": "p"}, policies={"p": LinUCB()}))


# ---------------------------------------------------------------------------------------------- which rule, and what then


def sure(**readings: tuple[object, float]) -> Signals:
    """``a=(1, 0.5)``: a value and its confidence."""
    return Signals(readings={k: Reading(value=v, confidence=c) for k, (v, c) in readings.items()})  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_the_highest_priority_decides_and_ties_go_by_order(priorities: list[int]) -> None:
    rules = Rules(
        rules=[{"name": f"r{i}", "when": {"x": 1}, "use": "big", "priority": p} for i, p in enumerate(priorities)],
        default="small",
    )
    decision = rules.decide(QUERY, signals(x=1), POOL)
    assert decision.rule == f"r{priorities.index(max(priorities))}"
    assert [r.name for r, _ in rules.standing(signals(x=1))] == [
        f"r{i}" for i in sorted(range(len(priorities)), key=lambda i: -priorities[i])
    ]


def by_confidence(**more: object) -> Rules:
    return Rules(
        rules=[
            {"name": "a", "when": {"x": 1}, "use": "big"},
            {"name": "b", "when": {"all": [{"y": 1}, {"z": 1}]}, "use": "medium"},
            {"name": "c", "when": {"not": {"z": 1}}, "use": "small", "priority": 1},
        ],
        default="small",
        strategy="confidence",
        **more,  # type: ignore[arg-type]
    )


def test_the_most_confident_decides() -> None:
    rules = by_confidence()
    decision = rules.decide(QUERY, sure(x=(1, 0.7), y=(1, 0.9), z=(1, 0.4)), POOL)
    assert (decision.rule, decision.reasons[0]) == ("a", "rule 'a' holds with confidence 0.7: x=1")
    assert rules.decide(QUERY, sure(x=(1, 0.6), y=(1, 0.9), z=(1, 0.4)), POOL).rule == "b"  # the mean, rounded: 0.65
    assert rules.decide(QUERY, sure(x=(1, 0.5), y=(1, 0.9), z=(2, 0.5)), POOL).rule == "c"  # a tie: by priority
    late = Signals(readings={"x": Reading(value=1, confidence=0.3), "z": Reading(late=True)})
    assert rules.decide(QUERY, late, POOL).rule == "a"  # c holds too, and nothing speaks for it


def test_fuzzy_rules_hold_from_a_threshold() -> None:
    crisp = [{"name": "a", "when": {"all": [{"x": 1}, {"y": 1}]}, "use": "big"}]
    rules = Rules(rules=crisp, default="small", fuzzy=True, threshold=0.6)
    assert rules.decide(QUERY, sure(x=(1, 0.9), y=(1, 0.6)), POOL).rule == "a"
    assert rules.decide(QUERY, sure(x=(1, 0.9), y=(1, 0.5)), POOL).rule == "default"
    assert rules.decide(QUERY, sure(x=(1, 0.9), y=(2, 1.0)), POOL).rule == "default"
    ranked = by_confidence(fuzzy=True)
    decision = ranked.decide(QUERY, sure(x=(1, 0.7), y=(1, 0.9), z=(1, 0.8)), POOL)
    assert (decision.rule, decision.reasons[0]) == ("b", "rule 'b' holds to degree 0.8: y=1, z=1")


def test_actions_and_the_rules_name_are_recorded() -> None:
    rules = Rules(
        rules=[{"name": "a", "when": {"x": 1}, "use": "big", "do": ["tag", "cache"]}],
        default={"use": "small", "do": "tag"},
    )
    assert rules.orders == (("$.rules[0].do", "tag"), ("$.rules[0].do", "cache"), ("$.default.do", "tag"))
    decision = rules.decide(QUERY, signals(x=1), POOL)
    assert (decision.rule, decision.actions) == ("a", ("tag", "cache"))
    decision = rules.decide(QUERY, signals(x=2), POOL)
    assert (decision.rule, decision.actions) == ("default", ("tag",))


def test_rules_inside_rules_add_their_names_and_actions() -> None:
    inner = Rules(rules=[{"name": "b", "when": {"y": 1}, "use": "big", "do": ["cache", "tag"]}], default="small")
    outer = Rules(
        rules=[{"name": "a", "when": {"x": 1}, "use": {"policy": "inner"}, "do": ["tag"]}], policies={"inner": inner}
    )
    decision = outer.decide(QUERY, signals(x=1, y=1), POOL)
    assert (decision.rule, decision.actions) == ("a/b", ("tag", "cache"))
    assert decision.reasons == ("rule 'a' holds: x=1", "rule 'b' holds: y=1")


def test_candidates_stand_in_for_each_other_and_nobody_else_does() -> None:
    rules = Rules(rules=[{"name": "a", "when": {"x": 1}, "use": ["big", "medium"]}], default="small")
    decision = rules.decide(QUERY, signals(x=1), POOL)
    assert (decision.plan, decision.fallbacks) == (Single(target="big"), (Single(target="medium"),))
    decision = rules.decide(QUERY, signals(x=1), only("small", "medium"))
    assert (decision.plan, decision.fallbacks) == (Single(target="medium"), ())
    targets, reasons = chosen(rules, signals(x=1), "small")
    assert targets == ("small",)
    assert reasons[0] == "rule 'a' holds (x=1) but is passed over: big, medium not eligible"


def among(**more: object) -> Rules:
    rule = {"name": "a", "when": {"x": 1}, "use": {"among": ["big", "medium"], "policy": "coin"}, **more}
    return Rules(rules=[rule], default="small", policies={"coin": Coin()})


def test_a_policy_among_some() -> None:
    rules = among()
    decision = rules.decide(QUERY, signals(x=1), POOL)
    assert {o.plan.targets()[0]: o.probability for o in decision.options} == {"big": 0.5, "medium": 0.5}
    assert set(decision.fallbacks or ()) == {Single(target="big"), Single(target="medium")}
    assert decision.eligible == ("small", "medium", "big")
    assert chosen(rules, signals(x=1), "small", "medium")[0] == ("medium",)
    assert chosen(rules, signals(x=1), "small")[0] == ("small",)
    with pytest.raises(NoEligibleTarget, match="big: not eligible for rule 'a'"):
        chosen(among(required=True), signals(x=1), "small")


def test_a_policy_among_some_learns_what_was_its_own() -> None:
    rules = among()
    for x, names in ((1, POOL), (2, POOL), (1, only("small"))):
        decision = rules.decide(QUERY, signals(x=x), names)
        rules.learn(
            Trace(id="q", at=0.0, query=QUERY, signals=signals(x=x), decision=decision, outcome=Outcome()),
            Reward(quality=1.0),
        )
    assert rules.policies["coin"].seen_ == 1  # type: ignore[attr-defined]


def test_a_rule_may_refuse() -> None:
    rules = Rules(
        rules=[
            {"name": "off", "when": {"x": 1}, "use": {"refuse": "ships only"}},
            {"name": "no", "when": {"x": 2}, "use": "refuse"},
        ],
        default="small",
    )
    with pytest.raises(NoEligibleTarget) as e:
        chosen(rules, signals(x=1))
    assert set(e.value.excluded.values()) == {"refused by rule 'off' (x=1): ships only"}
    assert set(e.value.excluded) == {"small", "medium", "big"}
    with pytest.raises(NoEligibleTarget, match=r"refused by rule 'no' \(x=2\)"):
        chosen(rules, signals(x=2))


def test_without_a_default_what_no_rule_covers_is_refused() -> None:
    rules = Rules(rules=[{"name": "a", "when": {"x": 1}, "use": "big"}])
    with pytest.raises(NoEligibleTarget, match="no rule applies, and there is no default"):
        chosen(rules, signals(x=2))
    with pytest.raises(NoEligibleTarget, match=r"passed over: big not eligible; no rule applies"):
        chosen(rules, signals(x=1), "small")
    with pytest.raises(NoEligibleTarget, match="refused by the default, as no rule applies: sorry"):
        chosen(Rules(default={"refuse": "sorry"}), signals(x=2))


def test_named_conditions_in_rules() -> None:
    rules = Rules(
        rules=[{"name": "a", "when": {"all": ["one", {"not": "two"}]}, "use": "big"}],
        conditions={"one": {"x": 1}, "two": {"y": 2}, "unused": {"z": 1}},
        default="small",
    )
    assert rules.needs == ("x", "y")
    assert chosen(rules, signals(x=1, y=1))[0] == ("big",)
    assert chosen(rules, signals(x=1, y=2))[0] == ("small",)


@pytest.mark.parametrize(
    ("given", "path", "says"),
    [
        ({"rules": [{"when": {"a": 1}, "use": "x", "priority": "1"}]}, "$.rules[0].priority", "number"),
        ({"rules": [{"when": {"a": 1}, "use": "x", "do": [1]}]}, "$.rules[0].do", "list of actions"),
        ({"rules": [{"when": {"a": 1}, "use": []}]}, "$.rules[0].use", "one or more"),
        ({"rules": [{"when": {"a": 1}, "use": ["x", "x"]}]}, "$.rules[0].use", "twice"),
        ({"rules": [{"when": {"a": 1}, "use": {"among": ["x"]}}]}, "$.rules[0].use", "policy: name"),
        ({"rules": [{"when": {"a": 1}, "use": {"refuse": 1}}]}, "$.rules[0].use", "refuse"),
        ({"rules": [{"when": "b", "use": "x"}]}, "$.rules[0].when", "no condition"),
        ({"rules": [{"when": {"a": 1}, "use": "x", "name": "default"}]}, "$.rules[0].name", "default's own"),
        (
            {"rules": [{"when": {"a": 1}, "use": "x", "name": "n"}, {"when": {"a": 1}, "use": "x", "name": "n"}]},
            "$.rules[1].name",
            "taken",
        ),
        ({"default": {"use": "x", "doo": []}}, "$.default.doo", "did you mean 'do'"),
        ({"strategy": "best"}, "$.strategy", "priority or confidence"),
        ({"threshold": 0.4}, "$.threshold", "fuzzy: true"),
        ({"threshold": 0.0, "fuzzy": True}, "$.threshold", "above"),
        ({"conditions": {"a": {"is": "a"}}, "rules": []}, "$.conditions.a.is", "circle"),
    ],
)
def test_mistakes_in_what_is_said_of_rules(given: dict[str, object], path: str, says: str) -> None:
    with pytest.raises(ConfigError) as e:
        Rules(**{"policies": {"p": Coin()}, **given}).check()  # type: ignore[arg-type]
    assert e.value.path == path
    assert says in e.value.message


def test_what_candidates_are_named_where() -> None:
    rules = Rules(
        rules=[
            {"when": {"x": 1}, "use": ["big", "medium"]},
            {"when": {"x": 2}, "use": {"among": ["small"], "policy": "p"}},
        ],
        default={"use": ["small"]},
        policies={"p": Coin()},
    )
    assert rules.names == (
        ("$.rules[0].use[0]", "big"),
        ("$.rules[0].use[1]", "medium"),
        ("$.rules[1].use.among[0]", "small"),
        ("$.default[0]", "small"),
    )


def test_conditions_of_the_file_are_part_of_the_policy() -> None:
    data = {
        "targets": {"small": {"type": "scripted"}, "big": {"type": "scripted"}},
        "conditions": {
            "code": {"marks.code": True},
            "long": {"length.tokens": {"gt": 9}},
            "unused": {"marks.url": True},
        },
        "guards": [{"name": "g", "when": "long", "never": ["small"]}],
        "routes": {
            "auto": {
                "policy": {"type": "rules", "rules": [{"when": {"not": "code"}, "use": "big"}], "default": "small"}
            }
        },
    }
    built = config.make(data)
    rules = built.policies["auto"]
    assert isinstance(rules, Rules)
    assert rules.conditions == {"code": {"marks.code": True}}
    assert build("policies", rules.spec()).digest() == rules.digest()
    assert built.guards[0].keys == ("length.tokens",)


def test_actions_that_nobody_would_do_are_a_mistake() -> None:
    inner = {"type": "rules", "rules": [{"when": {"marks.code": True}, "use": "big", "do": ["tag"]}], "default": "big"}
    policy = {"type": "shadow", "serve": inner, "candidate": {"type": "fixed", "plan": "big"}}
    with pytest.raises(ConfigError, match="orders actions, which would not be done") as e:
        config.make({"targets": {"big": {"type": "scripted"}}, "routes": {"auto": {"policy": policy}}})
    assert e.value.path == "$.routes.auto.policy.serve.rules[0].do"
    config.make({"targets": {"big": {"type": "scripted"}}, "routes": {"auto": {"policy": inner}}})


def test_contract_of_everything() -> None:
    check_policy(
        lambda: Rules(
            rules=[
                {"name": "a", "when": "long", "use": ["bee", "ant"], "priority": 2},
                {"when": {"length": {"gt": 5}}, "use": {"among": ["ant", "bee"], "policy": "p"}},
            ],
            default={"use": "ant"},
            policies={"p": LinUCB()},
            conditions={"long": {"length": {"gt": 40}}},
            strategy="confidence",
            fuzzy=True,
            threshold=0.3,
        )
    )


@pytest.mark.parametrize("fuzzy", [False, True])
async def test_a_decision_is_made_again_from_its_record(tmp_path: Path, fuzzy: bool) -> None:
    rules = Rules(
        rules=[
            {
                "name": "a",
                "when": {"x": {"gt": 0.5}},
                "use": {"among": ["big", "medium"], "policy": "p"},
                "do": ["tag"],
            },
            {"name": "b", "when": {"not": {"y": 1}}, "use": ["medium", "small"]},
        ],
        default="small",
        policies={"p": Random(weights={"big": 1.0, "medium": 3.0})},
        strategy="confidence",
        fuzzy=fuzzy,
        threshold=0.3 if fuzzy else None,
    )
    late = Signals(readings={"x": Reading(value=0.7, confidence=0.4), "y": Reading(late=True, confidence=0.0)})
    store = SQLiteStore(tmp_path / "s.db")
    store.start()
    try:
        kept = store.save_policy("auto", rules.spec(), rules.state(), note="x")
        store.save_pool(POOL.digest, POOL.targets)
        for i, observed in enumerate((sure(x=(0.7, 0.9), y=(1, 0.1)), late, sure(x=(0.1, 0.2), y=(2, 0.8)))):
            query = Query.ask("hello", id=f"t{i}")
            decision = rules.decide(query, observed, POOL, seed=3)
            decision = msgspec.structs.replace(decision, version=kept.version, policy_digest=kept.digest)
            answer = Outcome(target=decision.plan.targets()[0], text="hi", finish="stop")
            step = Step(path=(0, 0), call=Call(target=answer.target), outcome=answer)
            await store.append(
                Trace(
                    id=query.id,
                    at=1.0,
                    query=query,
                    signals=observed,
                    decision=decision,
                    plan=decision.plan,
                    steps=(step,),
                    outcome=answer,
                )
            )
        again = [replay_decision(trace, store) for trace in store.traces()]
    finally:
        store.stop()
    assert [r.differences for r in again] == [()] * 3
    assert {r.decision.rule for r in again} == {"a", "b"}


def test_a_rule_among_some_lets_no_helper_in_that_is_not_among_them() -> None:
    plan = {"kind": "fallback", "plans": ["judge", "big"]}
    use = {"among": ["big", "medium"], "policy": "p"}
    rules = Rules(
        rules=[{"name": "a", "when": {"x": 1}, "required": True, "use": use}],
        default="small",
        policies={"p": Fixed(plan=decode(plan))},
    )
    judge = Target(name="judge", profile=Profile(answers=False))
    decision = rules.decide(QUERY, signals(x=1), Pool(targets=[*POOL, judge]))
    assert "judge" not in decision.plan.targets()
    assert all("judge" not in plan.targets() for plan in decision.fallbacks or ())
