"""The Dockerfile: hadolint finds nothing, and what a linter cannot know holds (no container engine runs here)."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fairlead.cli import parser
from fairlead.config import GatewayConfig
from fairlead.gateway.door import OPEN

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
HADOLINT = ROOT / ".venv-deploy" / "bin" / "hadolint"


def stages() -> list[list[tuple[str, str]]]:
    """Return the (instruction, rest) pairs of each stage."""
    found: list[list[tuple[str, str]]] = []
    for line in LINES:
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            if found:
                found[-1].append((word, rest.strip()))
    return found


def last(word: str) -> str:
    return next(rest for its, rest in reversed(stages()[-1]) if its == word)


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not installed: make deploy-tools")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([HADOLINT, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_served_from_is_pinned_and_built_in_another_stage() -> None:
    build, final = stages()
    installs = [rest for word, rest in build if word == "RUN" and "install" in rest]
    assert "--require-hashes -r requirements/gateway.lock" in installs[0]
    assert "--no-deps --no-index /dist/" in installs[1], "the wheel must not bring anything that is not in the lock"
    assert not any("pip" in rest for _, rest in final)
    assert [rest for word, rest in final if word == "COPY"] == ["--from=build /opt/fairlead /opt/fairlead"]


def test_it_runs_as_a_numbered_user_that_is_not_root() -> None:
    uid, gid = last("USER").split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert f"--uid {uid} --gid {gid}" in last("RUN")
    words = [word for word, _ in stages()[-1]]
    assert words.index("USER") > words.index("RUN")


def test_the_command_is_one_that_the_command_line_understands() -> None:
    (program,) = json.loads(last("ENTRYPOINT"))
    assert program == "fairlead"
    command = json.loads(last("CMD"))
    args = parser(command[0]).parse_args(command)
    assert args.host == "0.0.0.0"
    assert args.port == int(last("EXPOSE")) == GatewayConfig().port


def test_its_health_check_asks_a_path_that_opens_without_a_key() -> None:
    _, _, command = last("HEALTHCHECK").partition("CMD ")
    program, option, code = json.loads(command)
    assert (program, option) == ("python", "-c")
    compile(code, "the health check", "exec")
    url = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", code)
    assert url is not None
    assert int(url[1]) == GatewayConfig().port
    assert url[2] in OPEN


def test_no_layer_has_a_secret() -> None:
    for stage in stages():
        for word, rest in stage:
            if word in ("ENV", "ARG"):
                assert not re.search(r"(?i)key|token|secret|password", rest), rest
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert rules[0] == "*", "everything is left out of the build but what is named"


def test_everything_that_is_copied_reaches_the_build_and_nothing_else() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = set()
    for word, rest in stages()[0]:
        if word == "COPY":
            copied |= set(shlex.split(rest)[:-1])
    assert copied == kept
    for name in copied:
        assert (ROOT / name).exists(), name
