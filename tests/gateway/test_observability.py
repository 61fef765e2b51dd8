"""The guide, the dashboard and the alerts name what is there: metrics with their labels, attributes, instruments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways import config

from fairlead.gateway.app import Gateway
from fairlead.gateway.telemetry import CALL, INSTRUMENTS, SPAN

pytest.importorskip("opentelemetry.sdk")

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "observability.md").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "fairlead.json").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "grafana" / "alerts.yaml").read_text("utf-8"))
EVERYWHERE = {"job", "instance", "worker"}
"""Labels that Prometheus sets, or that there are with several workers."""


@pytest.fixture(name="described", scope="module")
def _described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """What a gateway with everything on shows, by name: kind, labels, help."""
    made = config(tmp_path_factory.mktemp("all"), telemetry={"endpoint": "http://127.0.0.1:1"}, redis={})
    return {name: (kind, labels, text) for name, kind, labels, text in Gateway.of(made).metrics.described()}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table after `heading`."""
    lines = GUIDE[GUIDE.index(heading) + len(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return table[2:]


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions() -> Iterator[tuple[str, str]]:
    """Yield (whose it is, expression) of dashboard and alerts."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def family(name: str, described: dict[str, tuple[str, tuple[str, ...], str]]) -> str | None:
    """Return the family that a sample belongs to; None if there is none."""
    if name in described and described[name][0] != "histogram":
        return name
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base != name and described.get(base, ("",))[0] == "histogram" else None


def test_the_guide_has_every_metric_as_it_is(described: dict[str, tuple[str, tuple[str, ...], str]]) -> None:
    told = {}
    for name, kind, labels, meaning in rows("## Prometheus\n"):
        told[name.strip("`")] = (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning)
    assert told == described


@pytest.mark.parametrize(("heading", "table"), [("A request's span,", SPAN), ("A call's span,", CALL)])
def test_the_guide_has_every_attribute(heading: str, table: dict[str, str]) -> None:
    assert {name.strip("`"): meaning for name, meaning in rows(heading)} == table


def test_the_guide_has_every_instrument() -> None:
    told = {name.strip("`"): (unit, meaning) for name, unit, meaning in rows("Histograms, in the buckets")}
    assert told == {name: (unit, text) for name, (unit, text, _) in INSTRUMENTS.items()}


@pytest.mark.parametrize(("whose", "expression"), list(expressions()))
def test_what_is_asked_for_is_there(
    whose: str, expression: str, described: dict[str, tuple[str, tuple[str, ...], str]]
) -> None:
    asked = re.findall(r"\b((?:fairlead|process)_\w+)(?:\{([^}]*)\})?", expression)
    assert asked, "it asks for something of ours"
    known = set(EVERYWHERE)
    for name, selector in asked:
        of = family(name, described)
        assert of is not None, f"{whose}: there is no {name}"
        labels = {*described[of][1], *EVERYWHERE, *({"le"} if name.endswith("_bucket") else ())}
        for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector):
            assert label in labels, f"{whose}: {name} has no label {label}"
        known |= labels
    for by in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {b.strip() for b in by.split(",")} <= known, whose
    counters = {n for n, _ in asked if n.endswith(("_total", "_bucket"))}
    for name in counters:
        assert re.search(rf"(rate|increase|changes)\({name}\b", expression), (
            f"{whose}: {name} only grows, take its rate"
        )
    assert expression.count("(") == expression.count(")")


def test_the_dashboard_has_what_its_schema_asks_for() -> None:
    for key in ("uid", "title", "schemaVersion", "version", "time", "timezone", "tags", "templating", "annotations"):
        assert key in DASHBOARD, key
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD, "the number of one Grafana's own database"
    ids = [p["id"] for p in panels()]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert {"id", "type", "title", "gridPos"} <= set(panel)
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, f"{panel['title']} lies on another"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert {"defaults", "overrides"} <= set(panel["fieldConfig"])
        refs = [t["refId"] for t in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} <= variables


def test_every_metric_is_on_the_dashboard(described: dict[str, tuple[str, tuple[str, ...], str]]) -> None:
    shown = " ".join(e for _, e in expressions())
    assert not [name for name in described if not re.search(rf"\b{name}", shown)]


def test_alerts_are_rules_for_prometheus() -> None:
    names = []
    for group in ALERTS["groups"]:
        assert set(group) <= {"name", "rules", "interval"}
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert re.fullmatch(r"[A-Z]\w+", rule["alert"])
            assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert {"summary", "description"} <= set(rule["annotations"])
            names.append(rule["alert"])
    assert len(names) == len(set(names))
