"""Clients of others, unmodified, against a real `fairlead serve`: which of their cases pass, and why the others do not.

    python benchmarks/clients.py [--only CLIENT …] [--python PATH] [--json] [--check] [--out FILE]

Clients: OpenAI's and Anthropic's own, LiteLLM, Instructor, Pydantic AI, OpenAI's agents, and the standard integration tests of LangChain over
`langchain-openai` (chat and responses) and `langchain-anthropic`. They live in an environment of their own (`make clients` makes it from
`requirements/clients.lock`); each has a driver in `clients/`, which runs in it as a process of its own and talks to the gateway through a socket.

Behind the gateway stands `clients/upstream.py`, once as a target of OpenAI's format (``over-openai``), once of Anthropic's (``over-anthropic``): so each
client's format is taken straight through and translated. It answers by reading the request, alike in both formats, and is as strict as their
owners are. Beside them: a real model (``lab``), vectors, and targets that fail in ways of their own. What LangChain's tests would download (a picture,
a PDF) they are given by their driver; nothing leaves 127.0.0.1.

A case that cannot pass, and should not, stands in `EXCEPTIONS` with the reason. ``--check`` exits with 1 if another one fails, or if one of these passes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

HERE: Final = Path(__file__).resolve().parent
SOURCES: Final = HERE / "clients"
PYTHON: Final = HERE.parent / ".venv-clients" / "bin" / "python"
KEYS: Final[dict[str, dict[str, Any]]] = {
    "clients": {},
    "narrow": {"targets": ["lab"]},
    "limited": {"limits": {"requests_per_minute": 1}},
    "limited-too": {"limits": {"requests_per_minute": 1}},
}
"""Keys of the gateway, by name, and what they may do."""
BEHIND: Final = ("over-openai", "over-anthropic")
SECONDS: Final = 400
"""The most that a driver may take."""
DRIVERS: Final = {
    "openai": "drive_openai.py",
    "anthropic": "drive_anthropic.py",
    "langchain-openai, chat": "drive_langchain.py chat",
    "langchain-openai, responses": "drive_langchain.py responses",
    "langchain-anthropic": "drive_langchain.py messages",
    "litellm": "drive_litellm.py",
    "instructor": "drive_instructor.py",
    "pydantic-ai": "drive_pydantic_ai.py",
    "openai-agents": "drive_openai_agents.py",
}
"""Client -> the script that drives it, with its first arguments."""
PACKAGES: Final = "openai anthropic langchain-tests langchain-openai langchain-anthropic litellm instructor pydantic-ai-slim openai-agents"
EXCEPTIONS: Final[dict[tuple[str, str, str], str]] = {}
"""(client, case, behind) -> why it cannot pass and should not. `behind` may be ``*``."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one case."""

    client: str
    case: str
    behind: str
    outcome: str
    """``passed``, ``failed`` or ``skipped``."""
    why: str = ""

    @property
    def excused(self) -> str | None:
        """Why it may fail."""
        return EXCEPTIONS.get((self.client, self.case, self.behind)) or EXCEPTIONS.get((self.client, self.case, "*"))


class Setup(msgspec.Struct, frozen=True):
    """A gateway that runs, and how to reach it."""

    url: str
    key: str
    log: Path


def secret(name: str) -> str:
    """Name the key that drivers use for one of `KEYS`."""
    return f"fl-{name}-key-of-the-clients"


def config(port: int, upstream: int, folder: Path) -> dict[str, Any]:
    """Write the gateway's config: targets of both formats, sound and not, a real model, vectors; no retries of its own, so that clients see what happens."""
    able = {"modalities": ["text", "image", "file", "audio"], "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 4.0}
    formats: dict[str, dict[str, Any]] = {
        "openai": {"type": "openai_chat", "provider": "vllm", "base_url": f"http://127.0.0.1:{upstream}/v1"},
        "anthropic": {
            "type": "anthropic_messages",
            "like": "claude-sonnet-4-5",
            "base_url": f"http://127.0.0.1:{upstream}",
        },
    }
    targets: dict[str, Any] = {
        f"{kind}-{name}": {**made, "model": model, "profile": able}
        for name, made in formats.items()
        for kind, model in (("over", "able"), ("flaky", "flaky"), ("down", "down"), ("long", "long"), ("cut", "cut"))
    }
    targets["lab"] = {"type": "local", "model": "lab-small"}
    targets["vectors"] = {"type": "embedder"}
    hashes = {n: {"hash": "sha256:" + hashlib.sha256(secret(n).encode()).hexdigest(), **k} for n, k in KEYS.items()}
    return {
        "targets": targets,
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "over-openai"}}},
        "retries": {"most": 0},
        "breaker": {"failures": 1000},
        "store": {"path": str(folder / "traces.sqlite")},
        # LangChain's tests name a picture there; nobody fetches it.
        "gateway": {"port": port, "keys": hashes, "urls": {"allow": ["raw.githubusercontent.com"]}},
    }


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port: int = s.getsockname()[1]
        return port


@contextlib.contextmanager
def process(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends. Ends the program if it does not listen within a minute."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent) as running:
        try:
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if running.poll() is not None or time.monotonic() > until:
                    sys.exit(
                        f"{command[1]} did not start; its last words:\n{log.read_text('utf-8', 'replace')[-2000:]}"
                    )
                time.sleep(0.05)
            yield
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[Setup]:
    """Serve the gateway, with the upstream behind it."""
    upstream, port = free_port(), free_port()
    file, log = folder / "fairlead.yaml", folder / "gateway.log"
    file.write_text(yaml.safe_dump(config(port, upstream, folder)), "utf-8")
    with (
        process([sys.executable, str(SOURCES / "upstream.py"), str(upstream)], upstream, folder / "upstream.log"),
        process([sys.executable, "-m", "fairlead.cli", "serve", str(file)], port, log),
    ):
        yield Setup(f"http://127.0.0.1:{port}", secret("clients"), log)


def drive(client: str, setup: Setup, python: Path, behind: Iterable[str] = BEHIND) -> list[Case]:
    """Run one client's cases. A driver that dies is a failed case of its own."""
    script, *arguments = DRIVERS[client].split()
    env = {
        k: v
        for k, v in os.environ.items()
        if not re.search("OPENAI|ANTHROPIC|LANGCHAIN|LANGSMITH|LITELLM|PROXY", k.upper())
    }
    env |= {
        "FAIRLEAD_URL": setup.url,
        "FAIRLEAD_KEY": setup.key,
        "PYTHONDONTWRITEBYTECODE": "1",
        # What would call home is told not to.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "DO_NOT_TRACK": "1",
    }
    command = [str(python), str(SOURCES / script), *arguments, *behind]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
        out, err, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as e:
        out, err, code = _text(e.stdout), f"took longer than {SECONDS} s", 1
    made = [Case(client=client, **json.loads(line)) for line in out.splitlines() if line.startswith('{"case"')]
    if code or not made:
        why = " | ".join((err or out).strip().splitlines()[-3:])[-600:]
        made.append(Case(client=client, case="the driver itself", behind="", outcome="failed", why=why))
    return made


def _text(read: bytes | str | None) -> str:
    return read.decode("utf-8", "replace") if isinstance(read, bytes) else read or ""


def versions(python: Path) -> dict[str, str]:
    """Ask which versions the clients have."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([str(python), "-c", code, *PACKAGES.split()], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def faults(cases: Iterable[Case]) -> list[str]:
    """Say what is wrong: cases that fail and may not, exceptions that passed."""
    out = []
    for c in cases:
        name = f"{c.client}: {c.case}" + (f" [{c.behind}]" if c.behind else "")
        if c.outcome == "failed" and not c.excused:
            out.append(f"{name}: {c.why}")
        elif c.outcome == "passed" and c.excused:
            out.append(f"{name}: passes, but stands among the exceptions ({c.excused})")
    return out


def report(cases: list[Case]) -> list[str]:
    """Lay out the table, every case that failed, and why others were skipped."""
    lines = [f"{'client':<30}{'cases':>7}{'passed':>8}{'failed':>8}{'skipped':>9}"]
    for client in dict.fromkeys(c.client for c in cases):
        of = [c.outcome for c in cases if c.client == client]
        counts = "".join(f"{of.count(k):>{w}}" for k, w in (("passed", 8), ("failed", 8), ("skipped", 9)))
        lines.append(f"{client:<30}{len(of):>7}{counts}")
    for outcome, title in (("failed", "failed:"), ("skipped", "skipped (by the tests' own account):")):
        found = [c for c in cases if c.outcome == outcome]
        lines += ["", title] if found else []
        reasons: dict[tuple[str, str, str], list[str]] = {}
        for c in found:
            reasons.setdefault((c.client, c.case, c.why), []).append(c.behind)
        for (client, name, why), behind in reasons.items():
            excused = next((c.excused for c in found if (c.client, c.case) == (client, name)), None)
            over = f" [{', '.join(b for b in behind if b)}]" if any(behind) else ""
            lines.append(f"  {client}: {name}{over}: {why}" + (f"\n    as it should: {excused}" if excused else ""))
    return lines


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=DRIVERS, default=list(DRIVERS))
    parser.add_argument("--python", type=Path, default=PYTHON, help="of the environment that has the clients")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if not asked.python.exists():
        sys.exit(f"{asked.python} is not there: `make clients` makes it")
    cases: list[Case] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder)) as setup:
        for client in asked.only:
            print(f"{client} …", file=sys.stderr, flush=True)
            cases += drive(client, setup, asked.python)
        log = setup.log.read_text("utf-8", "replace")
    wrong = faults(cases)
    if "Traceback" in log:
        wrong.append(f"the gateway's log has a traceback: {log[log.index('Traceback') :][-1500:]}")
    setting = {
        "clients": versions(asked.python),
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - start),
    }
    if asked.json or asked.out:
        result = msgspec.json.encode({"setting": setting, "cases": cases, "faults": wrong})
        if asked.out:
            asked.out.write_bytes(result)
    if asked.json:
        print(result.decode())
    else:
        print(json.dumps(setting))
        print("\n".join(report(cases)))
        print("\n".join(["", "faults:", *wrong] if wrong else ["", "no faults"]))
    if asked.check and wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
