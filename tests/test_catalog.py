"""Every method in the catalogue passes the check of its family: adding a line there gets it tested here."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from fairlead import catalog
from fairlead.build import build
from fairlead.component import Component
from fairlead.errors import UnknownName
from fairlead.plans.base import decode
from fairlead.policies.base import Policy
from fairlead.predictors.base import Predictor
from fairlead.testing import (
    check_component,
    check_plan,
    check_policy,
    check_predictor,
    check_signal,
    check_target,
    observer_of,
    toy,
)

FEATURES = {"type": "features", "signals": ["length"], "bias": True}
MINIMAL: dict[str, dict[str, Any]] = {
    "signals/keyword": {"rules": {"code": ["print", "def"]}},
    "predictors/mean": {"features": FEATURES},
    "predictors/knn": {"features": FEATURES},
    "predictors/ridge": {"features": FEATURES},
    "predictors/logistic": {"features": FEATURES, "l2": 1.0},
    "policies/fixed": {"plan": "ant"},
    "policies/lin_ucb": {"features": FEATURES},
    "policies/thompson": {"features": FEATURES},
    "policies/rules": {
        "rules": [{"name": "long", "when": {"length": {"gt": 400}}, "use": "bee"}],
        "default": {"policy": "any"},
        "policies": {"any": {"type": "random"}},
    },
    "plans/single": {"target": "a"},
    "plans/fallback": {"plans": ["a", "b", "c"]},
    "plans/cascade": {"steps": ["a", "b", "c"], "accept": {"kind": "mean_logprob", "above": -0.5}},
    "plans/vote": {"members": ["a", "b", "c"]},
    "targets/openai_chat": {"model": "m", "base_url": "http://127.0.0.1:1/v1", "api_key": None},
    "targets/anthropic_messages": {"model": "m", "base_url": "http://127.0.0.1:1", "api_key": None},
}
"""Constructor arguments of what cannot be built from its name alone."""

OVER_HTTP = {"openai_chat", "anthropic_messages"}
"""Drivers that need a server: tests/targets checks them against a stub of it."""
CONTEXTUAL = {"utility", "lin_ucb", "thompson"}


def members(family: str) -> list[str]:
    return sorted(catalog.CATALOG[family])


def maker(family: str, name: str) -> Callable[[], Any]:
    arguments = MINIMAL.get(f"{family}/{name}", {})
    if family == "targets":
        return lambda: build(family, {"type": name, **arguments}, name=name)
    return lambda: build(family, {"type": name, **arguments})


@cache
def fitted() -> Predictor:
    predictor: Predictor = maker("predictors", "ridge")()
    predictor.fit(toy(seed=1).observed(observer_of(predictor.needs), predictor.needs))
    return predictor


@pytest.mark.parametrize("name", members("signals"))
def test_signal(name: str) -> None:
    check_signal(maker("signals", name))


@pytest.mark.parametrize("name", members("embeddings"))
def test_embedding(name: str) -> None:
    check_component(maker("embeddings", name))


@pytest.mark.parametrize("name", members("predictors"))
def test_predictor(name: str) -> None:
    check_predictor(maker("predictors", name))


@pytest.mark.parametrize("name", members("policies"))
def test_policy(name: str) -> None:
    make: Callable[[], Policy] = maker("policies", name)
    if name == "utility":
        utility: Any = catalog.find("policies", "utility")
        make = lambda: utility(predictor=fitted().copy(), explore=0.1)  # noqa: E731
    check_policy(make, contextual=name in CONTEXTUAL)


@pytest.mark.parametrize("name", members("plans"))
def test_plan(name: str) -> None:
    check_plan(lambda: decode({"kind": name, **MINIMAL[f"plans/{name}"]}))


@pytest.mark.parametrize("name", members("targets"))
async def test_target(name: str) -> None:
    make: Callable[[], Component] = maker("targets", name)
    if name in OVER_HTTP:
        check_component(make)
    else:
        await check_target(make)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", sorted(catalog.CATALOG))
def test_names_are_file_names(family: str) -> None:
    for name in members(family):
        found = catalog.find(family, name)
        folder = "predictors" if family == "features" else family
        assert found.__module__ == f"fairlead.{folder}.{name}"


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'thompson'"):
        catalog.find("policies", "tompson")
    with pytest.raises(UnknownName, match="family"):
        catalog.find("polices", "thompson")
    assert catalog.names("plans") == members("plans")
