"""OpenAI's and Anthropic's own clients against a served gateway, and how the benchmark tells what it found.

The clients that are no part of the development environment run by `make clients`.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fairlead import config

SOURCES = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def clients() -> ModuleType:
    spec = importlib.util.spec_from_file_location("clients_benchmark", SOURCES / "clients.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served(clients: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with clients.gateway(tmp_path_factory.mktemp("served")) as setup:
        yield setup


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_client(clients: ModuleType, served: Any, client: str) -> None:
    found = clients.drive(client, served, Path(sys.executable))
    assert clients.faults(found) == []
    assert len(found) > 40
    assert {c.behind for c in found} == {"", *clients.BEHIND}
    assert "Traceback" not in served.log.read_text()


def case(clients: ModuleType, **more: Any) -> Any:
    return clients.Case(**{"client": "openai", "case": "chat", "behind": "over-openai", "outcome": "passed", **more})


def test_a_failing_case_is_a_fault_unless_it_is_excused(clients: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = case(clients, outcome="failed", why="it broke")
    assert clients.faults([case(clients), failed]) == ["openai: chat [over-openai]: it broke"]
    monkeypatch.setattr(clients, "EXCEPTIONS", {("openai", "chat", "*"): "no such thing there"})
    assert clients.faults([failed]) == []
    assert "no such thing there" in "\n".join(clients.report([failed]))


def test_an_exception_that_passes_is_a_fault(clients: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "EXCEPTIONS", {("openai", "chat", "over-openai"): "no such thing there"})
    assert "stands among the exceptions" in clients.faults([case(clients)])[0]


def test_a_driver_that_dies_is_a_failed_case(
    clients: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(clients.DRIVERS, "openai", "nothing_there.py")
    found = clients.drive("openai", clients.Setup("http://127.0.0.1:1", "none", tmp_path), Path(sys.executable))
    assert [c.outcome for c in found] == ["failed"]
    assert "nothing_there.py" in found[0].why


def test_the_table_counts_and_lists_what_failed_and_what_was_skipped(clients: ModuleType) -> None:
    cases = [
        case(clients),
        case(clients, case="tools", outcome="failed", why="no tool"),
        case(clients, case="tools", behind="over-anthropic", outcome="failed", why="no tool"),
        case(clients, client="litellm", outcome="skipped", why="nothing to try"),
    ]
    text = "\n".join(clients.report(cases))
    assert "3       1       2        0" in text
    assert "openai: tools [over-openai, over-anthropic]: no tool" in text
    assert "litellm: chat [over-openai]: nothing to try" in text


def test_the_config_is_valid(clients: ModuleType, tmp_path: Path) -> None:
    read = config.make(clients.config(4000, 4001, tmp_path))
    assert set(clients.BEHIND) < set(read.file.targets)
    assert read.gateway.keys


def test_every_driver_is_there(clients: ModuleType) -> None:
    named = {script.split()[0] for script in clients.DRIVERS.values()}
    assert named == {p.name for p in (SOURCES / "clients").glob("drive_*.py")}
