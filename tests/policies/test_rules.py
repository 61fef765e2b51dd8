import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.build import build
from fairlead.conditions import holds, keys, parse
from fairlead.errors import ConfigError, NoEligibleTarget
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal
from fairlead.policies.lin_ucb import LinUCB
from fairlead.policies.rules import Rules
from fairlead.pool import Pool
from fairlead.signals.base import Observer, Signal
from fairlead.signals.length import Length
from fairlead.testing import check_policy
from fairlead.types import Decision, Option, Outcome, Query, Reading, Reward, Signals, Target, Trace

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
