"""What each generation of Claude takes, and how a request is fitted to it."""

import pytest

from fairlead.targets.claude import Traits, closed, fit, traits


@pytest.mark.parametrize(
    ("model", "same"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("anthropic/claude-opus-4.8", "claude-opus-4-8"),
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-3-opus-20240229", "claude-3-5-sonnet-latest"),
        ("claude-opus-6", "claude-opus-5-5"),
        ("claude-mythos-5-2", "claude-fable-5-1"),
    ],
)
def test_names(model, same):
    assert traits(model) == traits(same) != Traits()


def test_generations():
    assert traits("kimi-k2") == traits("") == Traits()
    assert traits("claude-3-5-haiku-20241022").thinking == ()
    assert traits("claude-3-7-sonnet").thinking == ("enabled", "disabled")
    assert [traits(f"claude-opus-4-{n}").sampling for n in (0, 1, 5, 6, 7)] == ["all", "one", "one", "one", "none"]
    assert [traits(f"claude-opus-4-{n}").prefill for n in (5, 6, 8)] == [True, False, False]
    assert [traits(f"claude-{m}").forced for m in ("opus-5", "fable-5", "fable-5-1", "haiku-5-5", "opus-5-5")] == [
        *(True, True, False, True, False)
    ]
    assert traits("claude-sonnet-5-5").thinking == ("adaptive", "between_tools")
    assert [traits(f"claude-{m}").thinks for m in ("opus-4-8", "opus-5")] == [False, True]


def fitted(model, *, max_tokens=4096, most=None, blocked=False, unthought=False, **fields):
    dropped = []
    limits = {"max_tokens": max_tokens, "most": most, "blocked": blocked, "unthought": unthought}
    return fit(fields, traits(model), dropped, **limits), dropped


OLD, MIDDLE, NEW = "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8"


def test_effort_becomes_what_a_model_takes():
    got, dropped = fitted(OLD, reasoning_effort="low")
    assert (got.thinking, got.effort, got.max_tokens, dropped) == (
        *({"type": "enabled", "budget_tokens": 2048}, None, 6144, []),
    )
    got, dropped = fitted(NEW, reasoning_effort="xhigh")
    assert (got.thinking, got.effort, dropped) == ({"type": "adaptive"}, "xhigh", [])
    assert fitted(MIDDLE, reasoning_effort="xhigh")[0].effort == "high"
    assert fitted(MIDDLE, reasoning_effort="xhigh")[1] == ["reasoning_effort xhigh"]
    assert fitted(NEW, reasoning_effort="minimal")[0].effort == "low"
    assert fitted("claude-3-5-sonnet", reasoning_effort="low")[1] == ["reasoning_effort"]
    with pytest.raises(ValueError, match="no reasoning_effort 'loads'"):
        fitted(OLD, reasoning_effort="loads")


def test_no_thinking():
    assert fitted(OLD, reasoning_effort="none")[0].thinking == {"type": "disabled"}
    assert fitted("claude-opus-5", reasoning_effort="none")[0].thinking == {"type": "disabled"}
    assert fitted("claude-sonnet-5-5", thinking={"type": "disabled"})[0].thinking == {"type": "between_tools"}
    got, dropped = fitted("claude-opus-5-5", thinking={"type": "disabled"})
    assert (got.thinking, got.effort, dropped) == (None, "low", ["thinking.type disabled"])
    got, dropped = fitted("claude-opus-5", thinking={"type": "disabled"}, reasoning_effort="max")
    assert (got.effort, dropped) == ("high", ["reasoning_effort max"])


def test_kinds_of_thinking_that_a_model_lacks():
    wish = {"type": "enabled", "budget_tokens": 20000, "display": "omitted"}
    got, dropped = fitted(NEW, thinking=wish)
    assert (got.thinking, got.effort) == ({"type": "adaptive", "display": "omitted"}, "high")
    assert dropped == ["thinking.budget_tokens"]
    got, dropped = fitted(OLD, thinking={"type": "adaptive"}, reasoning_effort="low")
    assert (got.thinking, dropped) == ({"type": "enabled", "budget_tokens": 2048}, ["thinking.type adaptive"])
    assert fitted("claude-3-5-sonnet", thinking=wish)[1] == ["thinking"]
    assert fitted(OLD, thinking=wish, reasoning_effort="low")[1] == ["reasoning_effort"]
    with pytest.raises(ValueError, match="no thinking of type 'deep'"):
        fitted(OLD, thinking={"type": "deep"})


@pytest.mark.parametrize(
    ("limits", "budget", "max_tokens", "told"),
    [
        ({}, 10000, 14096, []),
        ({"most": 12000}, 10000, 12000, []),
        ({"most": 8000}, 6400, 8000, ["thinking.budget_tokens"]),
        ({"named": 16000}, 10000, 16000, []),
        ({"named": 5000}, 4000, 5000, ["thinking.budget_tokens"]),
        ({"named": 1000}, None, 1000, ["thinking"]),
    ],
)
def test_budgets_leave_room_for_the_answer(limits, budget, max_tokens, told):
    fields = {"max_completion_tokens": limits["named"]} if "named" in limits else {}
    got, dropped = fitted(OLD, thinking={"type": "enabled", "budget_tokens": 10000}, most=limits.get("most"), **fields)
    assert (got.thinking or {}).get("budget_tokens") == budget
    assert (got.max_tokens, dropped) == (max_tokens, told)


def test_what_stands_in_the_way_of_thinking():
    wish = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert fitted(OLD, **wish, blocked=True)[0].thinking is None
    assert fitted(OLD, **wish, unthought=True)[1] == ["thinking"]
    assert fitted(NEW, reasoning_effort="low", unthought=True)[0].thinking == {"type": "adaptive"}
    # One that thinks unless told otherwise is told; nobody asked for it, so nothing is lost.
    got, dropped = fitted("claude-opus-5", blocked=True)
    assert (got.thinking, dropped) == ({"type": "disabled"}, [])


def test_schemas():
    dropped = []
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": ["object", "null"],
        "properties": {"a": {"type": "array", "minItems": 3, "items": {"type": "string", "format": "regex"}}},
        "additionalProperties": {"type": "string"},
        "$defs": {"n": {"oneOf": [{"type": "integer", "maximum": 3}, {"enum": [1]}]}},
    }
    assert closed(schema, dropped, where="x") == {
        "type": ["object", "null"],
        "properties": {"a": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
        "$defs": {"n": {"anyOf": [{"type": "integer"}, {"enum": [1]}]}},
    }
    assert dropped == ["x.minItems", "x.format", "x.maximum", "x.additionalProperties"]
    # A property may be called like a keyword.
    named = {"type": "object", "properties": {"minimum": {"type": "integer"}}}
    assert closed(named, dropped, where="x")["properties"] == {"minimum": {"type": "integer"}}
