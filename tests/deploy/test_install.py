"""`pip install .` and what comes with it: the wheel is whole, runs where only its dependencies are, and the locks agree."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
import urllib.error
import urllib.request
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from fairlead.version import VERSION

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = Path(sysconfig.get_path("purelib"))
BARE = {"PATH": os.environ["PATH"]}
"""The environment of what is run: no PYTHONPATH of ours leads to another copy."""
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network, from a copy (so that no build leaves anything here)."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(out),
        str(copy),
    ]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *command], check=True)
    (built,) = out.iterdir()
    return built


def installed(wheel: Path, folder: Path) -> Path:
    """Return an environment with the wheel in it and nothing else, not even pip."""
    venv.create(folder, symlinks=True, with_pip=False)
    command = ["--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *command], check=True)
    return folder


def site(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def run(environment: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(environment / "bin" / "fairlead"), *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}
    )


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    src = ROOT / "src"
    wanted = {
        str(p.relative_to(src))
        for p in (src / "fairlead").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"
    }
    assert {"fairlead/py.typed", "fairlead/gateway/page.html", "fairlead/lab/weights/nano.npz"} <= wanted
    with zipfile.ZipFile(wheel) as file:
        names = {n for n in file.namelist() if ".dist-info/" not in n}
    assert names == wanted


def test_its_metadata_say_what_the_project_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (at,) = [n for n in file.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = message_from_string(file.read(at).decode())
        entry = file.read(at.replace("METADATA", "entry_points.txt")).decode()
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    core = [r for r in metadata.get_all("Requires-Dist") or [] if "extra ==" not in r]
    assert core == PROJECT["dependencies"]
    assert "fairlead = fairlead.cli:main" in entry


def test_it_runs_with_nothing_but_the_core_dependencies(wheel: Path, tmp_path: Path) -> None:
    environment = installed(wheel, tmp_path / "core")
    for name in ("msgspec", "numpy", "numpy.libs", "yaml", "_yaml"):
        if (PACKAGES / name).exists():
            (site(environment) / name).symlink_to(PACKAGES / name)
    assert run(environment, "--version", cwd=tmp_path).stdout.strip() == f"fairlead {VERSION}"
    config = tmp_path / "fairlead.yaml"
    config.write_text(
        "targets: {small: {type: local, model: lab-small}}\nroutes: {auto: {policy: {type: thompson}}}\n", "utf-8"
    )
    checked = run(environment, "validate", "fairlead.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    routed = run(environment, "route", "fairlead.yaml", "what is 17+25?", cwd=tmp_path)
    assert routed.returncode == 0, routed.stderr
    assert "small" in routed.stdout


def test_installed_it_serves_the_config_of_the_chart(wheel: Path, tmp_path: Path) -> None:
    environment = installed(wheel, tmp_path / "all")
    # The dependencies of the tests' own environment. A path in a .pth brings no other .pth, so this is not the source tree.
    (site(environment) / "dependencies.pth").write_text(str(PACKAGES), "utf-8")
    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import fairlead; print(fairlead.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=BARE,
    ).stdout
    assert where.startswith(str(environment))
    text = yaml.safe_load((ROOT / "deploy" / "helm" / "fairlead" / "values.yaml").read_text("utf-8"))["config"]
    (tmp_path / "fairlead.yaml").write_text(text.replace("/var/lib/fairlead/", f"{tmp_path}/"), "utf-8")
    command = [environment / "bin" / "fairlead", "serve", "fairlead.yaml", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=BARE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = re.search(r"http://[\d.:]+", line)
            assert url, line
            for path in ("/healthz", "/readyz", "/"):
                with urllib.request.urlopen(url[0] + path, timeout=10) as answer:
                    assert answer.status == 200
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url[0] + "/v1/models", timeout=10)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def pins(lock: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text("utf-8"), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.name)
def test_every_pin_has_a_hash_and_no_registry_is_named(lock: Path) -> None:
    text = lock.read_text("utf-8")
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) >= 3
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("name", ["gateway", "build", "demo"])
def test_what_is_shipped_is_what_was_tested(name: str) -> None:
    tested, shipped = (pins(ROOT / "requirements" / f"{n}.lock") for n in ("dev", name))
    assert {p: v for p, v in shipped.items() if not v <= tested.get(p, set())} == {}, "run `make lock`"


def test_the_image_has_what_serving_needs() -> None:
    shipped = pins(ROOT / "requirements" / "gateway.lock")
    (extras,) = re.findall(r"^IMAGE\s*:= (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {"gateway", "postgres", "redis"} <= set(extras.split()), "what several replicas share"
    wanted = [*PROJECT["dependencies"]]
    for extra in extras.split():
        wanted += PROJECT["optional-dependencies"][extra]
    names = {re.match(r"[\w.-]+", w)[0].lower() for w in wanted}  # type: ignore[index]
    assert names <= set(shipped)
    assert not {"torch", "scikit-learn", "pytest"} & set(shipped)


def test_the_bill_of_materials_lists_every_pin(tmp_path: Path) -> None:
    tool = ROOT / ".venv-sbom" / "bin" / "cyclonedx-py"
    if not tool.exists():
        pytest.skip("cyclonedx-py is not installed: make sbom")
    subprocess.run(
        ["make", "--silent", "sbom", f"SBOM={tmp_path}/sbom.cdx.json"], cwd=ROOT, check=True, capture_output=True
    )
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == VERSION
    listed: dict[str, set[str]] = {}
    for component in bill["components"]:
        listed.setdefault(component["name"], set()).add(component["version"])
    assert listed == pins(ROOT / "requirements" / "gateway.lock")
