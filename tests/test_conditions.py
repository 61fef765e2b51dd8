"""The language by itself: names, mistakes, and that all its readings agree. What a test means of a value is in policies/test_rules.py."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.conditions import (
    All,
    AnyOf,
    Condition,
    Not,
    Sheet,
    Test,
    at_least,
    compile,
    compiled,
    compiled_confidence,
    compiled_degree,
    holds,
    keys,
    mentioned,
    parse,
    parse_named,
    written,
)
from fairlead.conditions import (
    leaves as leaves_of,
)
from fairlead.errors import ConfigError
from fairlead.types import Reading, Signals

scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(-2, 2), st.sampled_from(["x", "y"]))
KEYS = ("a", "b", "c", "b.p", "c.p")
leaves = st.builds(
    lambda key, test: {key: test},
    st.sampled_from(KEYS),
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
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=4)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=4)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=8,
)


@st.composite
def readings(draw: st.DrawFn, confidences: Any) -> Signals:
    """Three signals, of which some are not there and some are late."""
    found = {}
    for name in "abc":
        how = draw(st.sampled_from(["there", "there", "there", "late", "missing"]))
        if how == "late":
            # Whatever a late reading holds, its confidence does not count.
            found[name] = Reading(confidence=draw(confidences), late=True)
        elif how == "there":
            part = draw(scalars)
            found[name] = Reading(
                value=draw(scalars), parts={} if part is None else {"p": part}, confidence=draw(confidences)
            )
    return Signals(readings=found)


eighths = st.integers(0, 8).map(lambda n: n / 8)  # with these, sums and 1 minus are exact
either = st.sampled_from([0.0, 1.0])


def sure(signals: Signals, key: str) -> float:
    reading = signals.readings.get(key.partition(".")[0])
    return 0.0 if reading is None or reading.late else reading.confidence


def degree_off_the_tree(condition: Condition, signals: Signals) -> float:
    """The fuzzy reading as it is defined: least, greatest, 1 minus."""
    match condition:
        case Test(key):
            return sure(signals, key) if holds(condition, signals) else 0.0
        case All(parts):
            return min(degree_off_the_tree(p, signals) for p in parts)
        case AnyOf(parts):
            return max(degree_off_the_tree(p, signals) for p in parts)
        case Not(part):
            return 1.0 - degree_off_the_tree(part, signals)
    raise AssertionError


def satisfied(condition: Condition, signals: Signals, wanted: bool = True) -> list[float]:
    """The confidences of the tests that pass, and under an odd number of nots of those that fail."""
    match condition:
        case Test(key):
            return [sure(signals, key)] if holds(condition, signals) == wanted else []
        case All(parts) | AnyOf(parts):
            return [c for p in parts for c in satisfied(p, signals, wanted)]
        case Not(part):
            return satisfied(part, signals, not wanted)
    raise AssertionError


def degree(condition: Condition, signals: Signals) -> float:
    sheet = Sheet()
    return compiled_degree(condition, sheet)(sheet.read(signals))


def confidence(condition: Condition, signals: Signals) -> float:
    sheet = Sheet()
    return compiled_confidence(condition, sheet)(sheet.read(signals))


@given(conditions)
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    condition = parse(data)
    assert parse(msgspec.json.decode(msgspec.json.encode(written(condition)))) == condition


@given(conditions, readings(eighths))
def test_compiled_says_what_is_read_off_the_tree(data: dict[str, Any], signals: Signals) -> None:
    condition = parse(data)
    assert compile(condition)(signals) is holds(condition, signals)
    assert degree(condition, signals) == degree_off_the_tree(condition, signals)
    said = satisfied(condition, signals)
    assert confidence(condition, signals) == (sum(said) / len(said) if said else 0.0)


@given(conditions, conditions, readings(eighths))
def test_de_morgan_fuzzy_and_crisp(a: dict[str, Any], b: dict[str, Any], signals: Signals) -> None:
    for judge in (degree, holds):
        both = parse({"not": {"all": [a, b]}}), parse({"any": [{"not": a}, {"not": b}]})
        either_ = parse({"not": {"any": [a, b]}}), parse({"all": [{"not": a}, {"not": b}]})
        assert judge(both[0], signals) == judge(both[1], signals)
        assert judge(either_[0], signals) == judge(either_[1], signals)


@given(conditions, readings(either))
def test_fuzzy_is_crisp_at_confidence_0_and_1(data: dict[str, Any], signals: Signals) -> None:
    """With each test read as: it passes, and its reading is there, in time, and of confidence 1."""

    def crisp(condition: Condition) -> bool:
        match condition:
            case Test(key):
                reading = signals.readings.get(key.partition(".")[0])
                return (
                    holds(condition, signals) and reading is not None and not reading.late and reading.confidence == 1.0
                )
            case All(parts):
                return all(map(crisp, parts))
            case AnyOf(parts):
                return any(map(crisp, parts))
            case Not(part):
                return not crisp(part)
        raise AssertionError

    condition = parse(data)
    assert degree(condition, signals) == float(crisp(condition))


@given(conditions, readings(st.just(1.0)))
def test_fuzzy_is_crisp_where_everything_is_sure(data: dict[str, Any], signals: Signals) -> None:
    condition = parse(data)
    named = {k.partition(".")[0] for k in keys(condition)}
    if all(name in signals.readings and not signals.readings[name].late for name in named):
        assert degree(condition, signals) == float(holds(condition, signals))


@given(conditions, readings(eighths), st.integers(1, 8).map(lambda n: n / 8))
def test_a_degree_reaches_a_threshold_where_a_crisp_condition_holds(
    data: dict[str, Any], signals: Signals, threshold: float
) -> None:
    condition = parse(data)
    reaches = at_least(condition, threshold)
    assert holds(reaches, signals) == (degree(condition, signals) >= threshold)
    assert compile(reaches)(signals) == holds(reaches, signals)


def test_exactly_at_the_threshold() -> None:
    """1 - 0.75 reaches 0.25, under one ``not`` and under two."""
    signals = Signals(readings={"a": Reading(value=1, confidence=0.75)})
    for data, far in (({"a": 1}, 0.75), ({"not": {"a": 1}}, 0.25), ({"not": {"not": {"a": 1}}}, 0.75)):
        for threshold in (far - 0.125, far, far + 0.125):
            assert holds(at_least(parse(data), threshold), signals) == (far >= threshold)


@given(conditions, readings(eighths))
def test_what_holds_has_a_test_that_is_satisfied(data: dict[str, Any], signals: Signals) -> None:
    condition = parse(data)
    assert 0.0 <= confidence(condition, signals) <= 1.0
    sure = Signals(readings={n: Reading(value=r.value, parts=r.parts) for n, r in signals.readings.items()})
    if holds(condition, sure) and all(k.partition(".")[0] in sure.readings for k in keys(condition)):
        assert confidence(condition, sure) == 1.0


@given(st.integers(0, 10_000))
def test_formulas_agree_with_a_truth_table(seed: int) -> None:
    """A random formula over four flags, against the same formula written in Python, on all 16 rows."""
    import random

    r = random.Random(seed)

    def make(depth: int) -> tuple[dict[str, Any], str]:
        kind = r.choice(["leaf", "leaf", "all", "any", "not"]) if depth else "leaf"
        if kind == "leaf":
            flag, wanted = r.choice("wxyz"), r.random() < 0.5
            return {f"s.{flag}": wanted}, f"({flag} == {wanted})"
        if kind == "not":
            data, text = make(depth - 1)
            return {"not": data}, f"(not {text})"
        inner = [make(depth - 1) for _ in range(r.randint(1, 3))]
        return {kind: [d for d, _ in inner]}, "(" + f" {'and' if kind == 'all' else 'or'} ".join(
            t for _, t in inner
        ) + ")"

    data, text = make(4)
    check = compile(parse(data))
    for row in itertools.product([False, True], repeat=4):
        flags = dict(zip("wxyz", row, strict=True))
        assert check(Signals(readings={"s": Reading(parts=flags)})) is bool(eval(text, {}, dict(flags)))


def test_late_says_nothing() -> None:
    late = Signals(readings={"a": Reading(value=5, confidence=1.0, late=True)})
    assert degree(parse({"a": 5}), late) == 0.0
    assert degree(parse({"not": {"a": 5}}), late) == 1.0
    assert confidence(parse({"a": 5}), late) == 0.0
    gone = Signals(readings={"a": Reading(confidence=0.0, late=True)})
    assert not holds(parse({"a": {"gt": 1}}), gone)
    assert not holds(parse({"a": {"le": 1}}), gone)
    assert holds(parse({"a": None}), gone)
    assert holds(parse({"not": {"a": {"gt": 1}}}), gone)


def test_mean_confidence_over_satisfied_tests() -> None:
    signals = Signals(readings={"a": Reading(value=1, confidence=0.8), "b": Reading(value=2, confidence=0.4)})
    assert confidence(parse({"a": 1, "b": 2}), signals) == pytest.approx(0.6)
    assert confidence(parse({"any": [{"a": 1}, {"b": 3}]}), signals) == 0.8
    assert confidence(parse({"not": {"b": 3}}), signals) == 0.4
    assert confidence(parse({"b": 3}), signals) == 0.0


def test_named_conditions() -> None:
    named = parse_named({"busy": {"all": ["late", {"a": 1}]}, "late": {"b": 2}})
    assert named["busy"] == parse({"all": [{"b": 2}, {"a": 1}]})
    assert parse("busy", named=named) == named["busy"]
    assert parse({"is": "late", "a": 1}, named=named) == parse({"b": 2, "a": 1})
    assert parse({"not": {"is": ["late", "busy"]}}, named=named) == Not(All((named["late"], named["busy"])))
    outer = parse_named({"x": {"all": ["late"]}}, outer=named)
    assert outer == {"x": All((named["late"],))}


def test_only_what_is_mentioned() -> None:
    data = {"a": {"any": ["b", {"x": 1}]}, "b": {"not": {"is": "c"}}, "c": {"y": 1}, "d": {"z": 1}}
    assert mentioned({"all": ["a", {"q": "d"}]}, data) == {"a", "b", "c"}
    assert mentioned({"is": ["d"]}, data) == {"d"}
    assert mentioned("nobody", data) == set()


@pytest.mark.parametrize(
    ("data", "path", "says"),
    [
        ({"a": "b"}, "$.conditions", "no condition is called 'b'; did you mean"),
        ({"a": {"all": ["b"]}, "b": {"not": "c"}, "c": {"is": "a"}}, "$.conditions.c.is", "a -> b -> c -> a"),
        ({"a": {"is": "a"}}, "$.conditions.a.is", "circle: a -> a"),
        ({"a": {"x": {"gtt": 1}}}, "$.conditions.a.x.gtt", "did you mean 'gt'"),
        ({"a": {"is": 3}}, "$.conditions.a.is", "the name of a condition"),
        ({"a": {"x": {"gt": 2**64}}}, "$.conditions.a.x.gt", "that large"),
        ({"a": {"x": -(10**400)}}, "$.conditions.a.x", "that large"),
        ({"a": {"x": {"in": [1, 10**400]}}}, "$.conditions.a.x.in[1]", "that large"),
        ([], "$.conditions", "mapping"),
    ],
)
def test_mistakes_in_names(data: Any, path: str, says: str) -> None:
    with pytest.raises(ConfigError) as e:
        parse_named({"bb": {"x": 1}, **data} if isinstance(data, dict) else data)
    assert e.value.path.startswith(path)
    assert says in e.value.message


def test_not_takes_one_condition() -> None:
    with pytest.raises(ConfigError, match="'not' takes one condition"):
        parse({"not": [{"a": 1}, {"b": 2}]})


def test_a_name_that_nobody_gave() -> None:
    with pytest.raises(ConfigError, match="write it under conditions"):
        parse("private")


def test_each_test_knows_where_it_stands() -> None:
    data = {"all": [{"a": {"gt": 1, "lt": 5}}, "named", {"not": {"b.p": True}}], "is": "named"}
    assert list(leaves_of(data, "$.when")) == [
        ("$.when.all[0].a.gt", Test("a", "gt", 1)),
        ("$.when.all[0].a.lt", Test("a", "lt", 5)),
        ("$.when.all[2].not.b.p", Test("b.p", "eq", True)),
    ]


def test_one_sheet_holds_many_conditions() -> None:
    sheet = Sheet()
    checks = [
        compiled(parse(data), sheet) for data in ({"a": {"gt": 1}}, {"a": 2, "b": "x"}, {"a": {"in": ["y", None]}})
    ]
    values = sheet.read(Signals(readings={"a": Reading(value=2), "b": Reading(value="x")}))
    assert [check(values) for check in checks] == [True, True, False]
