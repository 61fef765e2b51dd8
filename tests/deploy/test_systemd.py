"""The systemd unit: systemd itself reads it, and what it runs is what the gateway has."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fairlead.cli import parser
from fairlead.config import GatewayConfig

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "fairlead.service"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed: apt-get install systemd")


def settings() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in UNIT.read_text("utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key] = value
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as it is once the program is where the unit looks for it."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/fairlead/bin/fairlead", "/bin/true"), "utf-8")
    return unit


@needs_systemd
def test_systemd_finds_nothing_wrong(installed: Path) -> None:
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, "verify", "--man=no", installed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert installed.name not in done.stderr, "an unknown key is only warned of"


@needs_systemd
def test_it_is_shut_in(installed: Path) -> None:
    assert ANALYZE is not None
    command = [ANALYZE, "security", "--offline=yes", "--threshold=15", installed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_its_command_is_one_that_the_command_line_understands() -> None:
    program, *words = settings()["ExecStart"].split()
    assert Path(program).name == "fairlead"
    args = parser(words[0]).parse_args(words)
    assert args.config == f"/etc/{settings()['ConfigurationDirectory']}/fairlead.yaml"
    assert settings()["WorkingDirectory"] == f"/var/lib/{settings()['StateDirectory']}"


def test_requests_under_way_end_before_it_is_killed() -> None:
    assert float(settings()["TimeoutStopSec"]) > GatewayConfig().drain_seconds
    assert settings()["ExecReload"] == "/bin/kill -HUP $MAINPID"
