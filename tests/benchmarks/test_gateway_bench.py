"""The gateway benchmark: its arithmetic, its config, its C helpers; the whole run is left to `benchmarks/gateway.py --check`."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fairlead import config

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark reads /proc")
SOURCES = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", SOURCES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gateway() -> ModuleType:
    return load("gateway")


async def test_every_stage_of_a_decision_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = load("decision")
    monkeypatch.setattr(decision, "BATCH_SECONDS", 0.0)
    found = await decision.stages(1, tmp_path)
    assert {"embedding", "propose", "write the trace", "encode"} <= {name.strip() for name in found}


@pytest.mark.parametrize(
    ("samples", "flat"),
    [
        ([100.0] * 50, True),
        ([50.0] * 10 + [100.0] * 40, True),  # the warm-up does not count
        ([100.0 + i for i in range(50)], False),
        ([100.0] * 40 + [107.9] * 10, True),  # up to 8 MB more
        ([100.0] * 40 + [108.1] * 10, False),
        ([1000.0] * 40 + [1049.0] * 10, True),  # or up to 5%
        ([100.0], True),
    ],
)
def test_flatness(gateway: ModuleType, samples: list[float], flat: bool) -> None:
    assert gateway.flatness(samples)[2] is flat


def shot(gateway: ModuleType, **values: Any) -> Any:
    usual = {"answers": 1000, "errors": 0, "seconds": 2.0, "cpu_seconds": 0.5, "p50_us": 100.0, "p99_us": 300.0}
    return gateway.Shot(**{**usual, "first_p50_us": 50.0, "events": 2000, **values})


def result(gateway: ModuleType, cpu: float = 0.5, errors: int = 0, last_mb: float = 80.0) -> dict[str, Any]:
    shots = {
        "direct": {load: [shot(gateway, p50_us=p) for p in (10.0, 20.0, 40.0)] for load in gateway.LOADS},
        "fairlead": {load: [shot(gateway, cpu_seconds=cpu, errors=errors)] * 3 for load in gateway.LOADS},
    }
    memory = gateway.Memory(
        requests=9,
        errors=0,
        seconds=1.0,
        first_mb=80.0,
        last_mb=last_mb,
        most_mb=last_mb,
        flat=last_mb < 88,
        samples=[],
    )
    return {
        "setting": {"load_average": 9.0},
        "figures": gateway.figures(shots),
        "memory_mb": {"fairlead": 80.0},
        "memory": memory,
        "traces": "ok",
    }


def test_figures(gateway: ModuleType) -> None:
    found = result(gateway)["figures"]["fairlead"]
    assert found["cpu_ms"].median == pytest.approx(0.5)
    assert found["cpu_us_per_event"].median == pytest.approx(250.0)
    assert found["requests_per_s"].median == pytest.approx(500.0)
    # Round by round: 90, 80, 60.
    assert (found["c16_added_p50_us"].median, found["c16_added_p50_us"].least) == (80.0, 60.0)


def test_check_says_what_is_wrong(gateway: ModuleType) -> None:
    assert gateway.failures(result(gateway, cpu=0.3)) == []
    assert "0.700 ms" in gateway.failures(result(gateway, cpu=0.7))[0]
    assert "12 errors" in gateway.failures(result(gateway, cpu=0.3, errors=1))[0]
    assert "not flat" in gateway.failures(result(gateway, cpu=0.3, last_mb=90.0))[0]


def test_report_says_what_is_missing(gateway: ModuleType) -> None:
    text = "\n".join(gateway.report(result(gateway)))
    assert "nginx is not installed" in text
    assert "busy" in text
    assert "0.500 (0.500 to 0.500)" in text


@pytest.mark.parametrize("policy", ["lin_ucb", "thompson"])
def test_config_is_valid_and_everything_is_on(gateway: ModuleType, policy: str, tmp_path: Path) -> None:
    read = config.make(gateway.config(4000, 4001, policy, "sk-test", tmp_path))
    assert "embedding" in read.policies["rich"].needs
    assert read.policies["auto"].needs
    (key,) = read.gateway.keys.values()
    assert not isinstance(key, str)
    assert key.budgets
    assert key.limits.tokens_per_minute
    assert read.gateway.keys
    assert not read.file.store.relaxed
    assert read.file.store.text


def test_prompts_differ(gateway: ModuleType) -> None:
    bodies = gateway.bodies("auto", gateway.Load(1))
    assert len({json.dumps(b) for b in bodies}) == len(bodies)
    assert all(700 < len(json.dumps(b)) < 1500 for b in bodies)


def test_cpu_of_a_child_is_counted(gateway: ModuleType) -> None:
    before = gateway.cpu_seconds(os.getpid())
    code = "import sys; sum(range(2_000_000)); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in gateway.tree(os.getpid())
        assert gateway.cpu_seconds(os.getpid()) > before + 0.005
        assert gateway.pss_mb(child.pid) > 1.0


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_load_generator_counts_what_the_upstream_sends(gateway: ModuleType, tmp_path: Path) -> None:
    with gateway.Bench(tmp_path, "lin_ucb") as bench:
        bench.compile()
        direct = bench.upstream()
        full = bench.shoot(direct, gateway.Load(4), 0.2)
        assert full.answers > 100
        assert full.errors == 0
        stream = gateway.Load(2, f"gap=100 events={gateway.EVENTS}", stream=True)
        streamed = bench.shoot(direct, stream, 0.2)
        assert streamed.errors == 0
        assert streamed.events == streamed.answers * (gateway.EVENTS + 2) > 0
        delayed = bench.shoot(direct, gateway.Load(2, "delay=30000", think_us=1000), 0.2)
        assert 30_000 < delayed.p50_us < 200_000
        path = tmp_path / "few.jsonl"
        gateway.write_bodies(path, gateway.bodies("canned", gateway.Load(1)))
        assert bench.generate(direct, path, 3, 5.0, limit=10)["answers"] == 10
        process = bench.started[0]
    assert process.poll() is not None
