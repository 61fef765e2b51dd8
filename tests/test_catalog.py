"""Every method in the catalogue passes the check of its family: adding a line there gets its `example()` tested here."""

from typing import Any

import pytest

from fairlead import catalog
from fairlead.errors import UnknownName
from fairlead.lab.eye import draw_tables
from fairlead.targets.base import Driver
from fairlead.targets.eye import Eye
from fairlead.testing import (
    check_component,
    check_plan,
    check_policy,
    check_predictor,
    check_signal,
    check_target,
)

PICTURED = draw_tables(1, 1)[0].query("q")


def members(family: str) -> list[Any]:
    return [pytest.param(catalog.find(family, name), id=name) for name in sorted(catalog.CATALOG[family])]


@pytest.mark.parametrize("kind", members("signals"))
def test_signal(kind: Any) -> None:
    # One that needs files of its user's is read in its own tests.
    (check_component if kind.files else check_signal)(kind.example)


@pytest.mark.parametrize(
    "kind", [*members("embeddings"), *members("features"), *members("scorers"), *members("caches")]
)
def test_part(kind: Any) -> None:
    check_component(kind.example)


@pytest.mark.parametrize("kind", members("predictors"))
def test_predictor(kind: Any) -> None:
    check_predictor(kind.example)


@pytest.mark.parametrize("kind", members("policies"))
def test_policy(kind: Any) -> None:
    check_policy(kind.example)


@pytest.mark.parametrize("kind", members("plans"))
def test_plan(kind: Any) -> None:
    check_plan(kind.example)


@pytest.mark.parametrize("kind", members("targets"))
async def test_target(kind: type[Driver]) -> None:
    if kind.remote:
        # Its own tests run `check_target` against a stub of its server.
        check_component(kind.example)
    else:
        await check_target(kind.example, query=PICTURED if kind is Eye else None)


@pytest.mark.parametrize("family", sorted(catalog.CATALOG))
def test_names_are_file_names(family: str) -> None:
    for name in catalog.CATALOG[family]:
        found = catalog.find(family, name)
        folder = "predictors" if family == "features" else family
        assert found.__module__ == f"fairlead.{folder}.{name}"


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'thompson'"):
        catalog.find("policies", "tompson")
    with pytest.raises(UnknownName, match="family"):
        catalog.find("polices", "thompson")
    assert catalog.names("plans") == sorted(catalog.CATALOG["plans"])
