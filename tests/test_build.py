"""Builtin data becomes components, and what is wrong is named by its path."""

import contextlib
import inspect

import pytest

from fairlead import catalog
from fairlead.build import build, trained
from fairlead.component import pack
from fairlead.errors import ConfigError
from fairlead.plans.base import decode
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.policies.fixed import Fixed
from fairlead.policies.utility import Utility


def test_a_bare_name_builds_with_defaults() -> None:
    assert build("policies", "random").type_name() == "random"


def test_nested_components_structs_and_plans() -> None:
    policy = build(
        "policies",
        {"type": "utility", "predictor": {"type": "knn"}, "objective": {"usd_weight": 3.0}, "explore": 0.1},
    )
    assert isinstance(policy, Utility)
    assert policy.predictor.type_name() == "knn"
    assert policy.objective.usd_weight == 3.0
    fixed = build("policies", {"type": "fixed", "plan": {"kind": "vote", "members": ["a", "b"]}})
    assert isinstance(fixed, Fixed)
    assert isinstance(fixed.plan, Vote)
    assert fixed.plan.members == (Single(target="a"), Single(target="b"))


def test_a_spec_builds_the_same_thing_again() -> None:
    policy = build("policies", {"type": "utility", "predictor": {"type": "ridge"}, "objective": {"usd_weight": 3.0}})
    again = build("policies", policy.spec())
    assert again.spec() == policy.spec()
    assert again.digest() == policy.digest()


@pytest.mark.parametrize(
    ("spec", "path", "hint"),
    [
        ({"type": "utilty", "predictor": "knn"}, "$.type", "'utility'"),
        ({"type": "utility", "predictr": "knn"}, "$.predictr", "'predictor'"),
        ({"type": "utility", "predictor": {"type": "knn", "kk": 3}}, "$.predictor.kk", "'k'"),
        ({"type": "utility", "predictor": "knn", "objective": {"usd_wait": 1}}, "$.objective", "'usd_weight'"),
        ({"type": "utility", "predictor": "knn", "objective": {"usd_weight": "x"}}, "$.objective.usd_weight", "float"),
        ({"type": "utility"}, "$", "predictor"),
        ({"type": "fixed", "plan": {"kind": "singel", "target": "a"}}, "$.plan.kind", "'single'"),
        ({"type": "fixed", "plan": {"kind": "single", "targt": "a"}}, "$.plan", "targt"),
        ({"type": "random", "weights": {"a": "much"}}, "$.weights", "float"),
        (["random"], "$", "mapping"),
        ({}, "$", "type"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(spec: object, path: str, hint: str) -> None:
    with pytest.raises(ConfigError) as e:
        build("policies", spec)
    assert e.value.path.startswith(path)
    assert hint in str(e.value)


def test_a_trained_predictor_that_is_not_there_says_how_to_make_one(tmp_path) -> None:
    with pytest.raises(ConfigError, match="fairlead train") as e:
        build("predictors", {"trained": str(tmp_path)}, path="$.p")
    assert "Errno" not in str(e.value)
    (tmp_path / "predictor.msgpack").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="fairlead train"):
        trained(tmp_path)


def test_a_trained_predictor_whose_state_does_not_fit(tmp_path) -> None:
    predictor = build("predictors", "mean")
    (tmp_path / "predictor.msgpack").write_bytes(pack([predictor.spec(), {"other_": 1}]))
    with pytest.raises(ConfigError, match="fairlead train") as e:
        trained(tmp_path, path="$.p.trained")
    assert e.value.path == "$.p.trained"


def test_a_trained_predictor_is_loaded_with_its_state(tmp_path) -> None:
    predictor = build("predictors", "mean")
    predictor.targets_ = ["a", "b"]
    (tmp_path / "predictor.msgpack").write_bytes(pack([predictor.spec(), predictor.state()]))
    assert trained(tmp_path).targets_ == ["a", "b"]


STRANGE: tuple[object, ...] = (
    None, True, 7, 0.5, "text", "", [], ["a"], [{}], {}, {"a": 1}, {"a": {"b": [None]}}, [[1], {"x": 1}], {"type": "nobody"}, {"kind": "nobody"},
    [{"text": "", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}], {"trained": "nowhere"},
)  # fmt: skip


@pytest.mark.parametrize("family", sorted(catalog.CATALOG))
def test_whatever_stands_in_a_config_is_taken_or_refused(family: str) -> None:
    """No argument of any component has a type that cannot be read from a file, or a check that fails in another way."""
    for name in catalog.names(family):
        kind = catalog.find(family, name)
        for key in inspect.signature(kind).parameters:
            for value in STRANGE:
                with contextlib.suppress(ConfigError):
                    if family == "plans":
                        decode({"kind": name, key: value})
                    else:
                        build(family, {"type": name, key: value})


def test_calls_of_tools_stand_in_a_script() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    reply = {"text": "", "finish": "tool_calls", "tool_calls": calls}
    scripted = build("targets", {"type": "scripted", "replies": [reply]}, name="a")
    assert list(scripted.replies[0].tool_calls) == calls
