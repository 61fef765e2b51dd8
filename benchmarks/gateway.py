"""What the gateway costs: CPU and time per request, CPU per streamed event, memory over many requests, beside a plain proxy.

    python benchmarks/gateway.py [--rounds 3] [--seconds 3] [--memory-requests 500000] [--python PATH] [--json] [--check] [--out FILE]

Everything runs on 127.0.0.1. A canned upstream and a load generator (C, compiled here with `cc`) share one core; what is measured has the
other. Rounds are interleaved, so that a slow minute of the machine hits every row; the figures are medians with the least and the most.

Rows: ``direct`` (no gateway), ``nginx`` (one worker, plain proxy), ``sglang-router`` (Rust, one route) and ``LiteLLM`` (its proxy), each left out
if it is not installed (``make peers`` installs the last two into ``.venv-peers``), ``fairlead`` (`fairlead serve`, one worker, everything
on: a virtual key with rate limits on requests, tokens and concurrency and a monthly budget, so the ledger holds and charges every request; signals of
length and marks; a learned policy over three targets with exploration; metrics; and each trace hash-chained and handed to the operating
system before the answer goes out), the same on another interpreter with ``--python`` (one that was compiled without its profile-guided
optimisation, as by default from source, is slower), ``fairlead, embedding`` (the same, and the policy also reads a 128-dimensional embedding of the prompt) and
``fairlead, by name`` (the same, but the client names the target: no signals, no learned decision).

Loads: ``full`` (64 connections, upstream answers at once: requests/s and CPU at saturation), ``c16`` and ``c64`` (16 and 64 connections,
upstream answers after 50 ms, clients pause up to 50 ms: the time that a gateway adds while it is not saturated), ``stream`` (8 connections, 50 events 2 ms apart).

CPU is that of a process and its children, user and system, to the nanosecond. Memory is PSS (shared pages counted in parts). The memory
run sends one stream in ten requests and judges some answers, so that the router learns meanwhile; memory is *flat* if the mean of the last
quarter is at most 5% or 8 MB above the mean of the first quarter after the warm-up (the first fifth).

``--check`` exits with 1 if CPU per request at saturation is above 0.35 ms in the row ``fairlead``, if anything failed, or if memory is not flat.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import platform
import random
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import yaml
from tqdm import tqdm

SOURCES: Final = Path(__file__).resolve().parent / "load"
MOST_CPU_MS: Final = 0.35
GOALS_MS: Final = {"NVIDIA Switchyard (Rust, fewer features, another run)": 0.24, "sglang-router (another run)": 0.08}
"""What would be next to reach."""
WARM_REQUESTS: Final = 200
"""Answers that are judged before anything is measured, so that the policy has learned something."""
EVENTS: Final = 50
"""Events with content per stream; a stream ends with two more, the last chunk and ``[DONE]``."""
TARGETS: Final = {"small": 0.1, "middle": 0.6, "large": 3.0}
"""Name -> USD per million input tokens (output: four times that)."""
SKILLS: Final = {"small": 0.5, "middle": 0.7, "large": 0.8}
"""Name -> how often its answers are judged good."""

LEARNED: Final = {"signals": ["length", "marks"], "scale": False, "bias": True, "type": "features"}
ROUTES: Final = {"auto": LEARNED, "rich": {**LEARNED, "signals": ["embedding", "length", "marks"]}}
"""Routes, and what their policies read."""
POLICIES: Final[dict[str, dict[str, Any]]] = {
    "lin_ucb": {"objective": {"usd_weight": 50.0}, "explore": 0.05},
    "thompson": {"objective": {"usd_weight": 50.0}},
}
"""Learned policies to choose from, and their arguments. They learn from the answers that are judged before the start."""


class Load(NamedTuple):
    """One kind of load: how many connections, and what the prompt asks of the upstream."""

    connections: int
    steer: str = ""
    stream: bool = False
    think_us: int = 0
    """Each connection waits a random time up to this before each request, so that connections do not march in step."""


LOADS: Final = {
    "full": Load(64),
    "c16": Load(16, "delay=50000", think_us=50_000),
    "c64": Load(64, "delay=50000", think_us=50_000),
    "stream": Load(8, f"gap=2000 events={EVENTS}", stream=True, think_us=50_000),
}


class Row(NamedTuple):
    """Something that is measured: where it listens, who burns its CPU, what `model` clients ask it for."""

    name: str
    port: int
    pid: int | None
    model: str


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    answers: int
    errors: int
    seconds: float
    cpu_seconds: float
    p50_us: float
    p99_us: float
    first_p50_us: float
    events: int


# ------------------------------------------------------------------------------------------------------------ the load


def prompts(count: int, seed: int = 0) -> list[str]:
    """Make different prompts of about 550 characters."""
    draw = random.Random(seed)
    subjects = (
        "the tide",
        "a sundial",
        "an estuary",
        "the gulf stream",
        "a barometer",
        "the harbour",
        "a lighthouse",
        "a knot",
    )
    verbs = ("follows", "differs from", "depends on", "can be told from", "was once thought to move", "is drawn beside")
    ask = "Please explain, in plain words and with one short example, how {} {} {}. "
    return [
        "".join(ask.format(draw.choice(subjects), draw.choice(verbs), draw.choice(subjects)) for _ in range(6))
        for _ in range(count)
    ]


def bodies(model: str, load: Load, count: int = 64) -> list[dict[str, Any]]:
    """Make request bodies of about 1 kB."""
    out = []
    for prompt in prompts(count):
        messages = [
            {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
            {"role": "user", "content": "Hello there"},
            {"role": "assistant", "content": "Hello, how can I help?"},
            {"role": "user", "content": prompt + load.steer},
        ]
        body = {"model": model, "messages": messages, "temperature": 0.2, "max_tokens": 256}
        out.append({**body, "stream": True} if load.stream else body)
    return out


def write_bodies(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Write one body a line, as the load generator reads them."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


# -------------------------------------------------------------------------------------------------------- the processes


_VERSION: Final = "import platform; print(platform.python_version())"


class Bench:
    """Compiles, starts, measures and, whatever happens, ends what it started."""

    def __init__(self, folder: Path, policy: str) -> None:
        self.folder = folder
        self.policy = policy
        self.key = "sk-bench-" + secrets.token_hex(12)
        self.started: list[subprocess.Popen[bytes]] = []
        cores = sorted(os.sched_getaffinity(0))
        self.load_core, self.gateway_core = cores[0], cores[-1]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.started):
            stop(process)

    def compile(self) -> None:
        """Build the C helpers. Ends the program with advice if there is no compiler."""
        cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if cc is None:
            sys.exit("no C compiler: install one (Debian: apt-get install gcc libc6-dev) to build the load generator")
        for name in ("upstream", "loadgen"):
            command = [cc, "-O2", "-o", str(self.folder / name), str(SOURCES / f"{name}.c")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"cannot compile {name}.c:\n{done.stderr}")

    def spawn(self, name: str, command: list[str], core: int, port: int, **env: str) -> subprocess.Popen[bytes]:
        """Start a server on one core and wait until it listens."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **env},
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        self.started.append(process)
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return process
            time.sleep(0.05)
        sys.exit(f"{name} did not start; its last words:\n{log.read_text('utf-8', 'replace')[-2000:]}")

    def upstream(self) -> Row:
        """Start the canned upstream."""
        port = free_port()
        self.spawn("upstream", [str(self.folder / "upstream"), str(port)], self.load_core, port)
        return Row("direct", port, None, "canned")

    def nginx(self, upstream: int) -> Row | None:
        """Start nginx as a plain proxy; None if it is not installed."""
        found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if found is None:
            return None
        port = free_port()
        temporary = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        config = self.folder / "nginx.conf"
        config.write_text(f"""
            daemon off; worker_processes 1; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx.err warn;
            events {{ worker_connections 4096; }}
            http {{
              access_log off; client_body_temp_path {self.folder}/bodies; {temporary} keepalive_requests 1000000000;
              upstream canned {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
              server {{
                listen 127.0.0.1:{port};
                location / {{
                  proxy_pass http://canned; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
                }}
              }}
            }}""")
        process = self.spawn("nginx", [found, "-c", str(config)], self.gateway_core, port)
        return Row("nginx", port, process.pid, "canned")

    def fairlead(self, upstream: int, python: str | None = None) -> Row:
        """Start `fairlead serve` with everything on, and teach it. `python`: an interpreter to run it, of this one's minor version."""
        port, name, folder, env = free_port(), "fairlead", self.folder, dict[str, str]()
        if python is not None:
            version = subprocess.run(
                [python, "-c", _VERSION], capture_output=True, text=True, check=True
            ).stdout.strip()
            if version.rpartition(".")[0] != platform.python_version().rpartition(".")[0]:
                sys.exit(f"{python} is {version}: what is installed for {platform.python_version()} does not run on it")
            name, folder = f"fairlead, {python} ({version})", self.folder / "other"
            folder.mkdir()
            own = Path(__file__).resolve().parents[1] / "src"
            env = {"PYTHONPATH": os.pathsep.join((str(own), sysconfig.get_path("platlib")))}
        written = folder / "fairlead.yaml"
        written.write_text(yaml.safe_dump(config(port, upstream, self.policy, self.key, folder)))
        command = [python or sys.executable, "-m", "fairlead.cli", "serve", str(written)]
        process = self.spawn("fairlead" if python is None else "other", command, self.gateway_core, port, **env)
        for route in ROUTES:
            teach(Row(route, port, process.pid, route), self.key, WARM_REQUESTS)
        return Row(name, port, process.pid, "auto")

    def sglang(self, upstream: int) -> Row | None:
        """Start sglang-router with one route; None if it is not installed."""
        found = _peer("sglang-router")
        if found is None:
            return None
        port, own = free_port(), free_port()
        command = [
            found,
            "launch",
            "--worker-urls",
            f"http://127.0.0.1:{upstream}",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        process = self.spawn("sglang", [*command, "--prometheus-port", str(own)], self.gateway_core, port)
        row = Row("sglang-router", port, process.pid, "canned")
        return row if self._answers(row) else None

    def litellm(self, upstream: int) -> Row | None:
        """Start LiteLLM's proxy with one model; None if it is not installed."""
        found = _peer("litellm")
        if found is None:
            return None
        port = free_port()
        config = self.folder / "litellm.yaml"
        model = {"model": "openai/canned", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "sk-upstream"}
        settings = {"telemetry": False, "num_retries": 0}
        text = {"model_list": [{"model_name": "canned", "litellm_params": model}], "litellm_settings": settings}
        config.write_text(yaml.safe_dump(text))
        command = [found, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        keyless = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # a key of its would need a database
        process = self.spawn("litellm", command, self.gateway_core, port, **keyless)
        row = Row("LiteLLM", port, process.pid, "canned")
        return row if self._answers(row) else None

    def _answers(self, row: Row) -> bool:
        """Whether a peer answers within a minute; it says so if not."""
        until = time.monotonic() + 60
        body = bodies(row.model, Load(1), 1)[0]
        while time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", row.port, timeout=10)
                connection.request(
                    "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
                )
                if connection.getresponse().status == 200:
                    return True
            time.sleep(0.5)
        print(f"{row.name} was started and does not answer; its row is left out", file=sys.stderr)
        return False

    def shoot(self, row: Row, load: Load, seconds: float) -> Shot:
        """Put one load on one row."""
        path = self.folder / f"{row.model}-{load.connections}-{load.steer.replace(' ', '-')}.jsonl"
        if not path.exists():
            write_bodies(path, bodies(row.model, load))
        before = cpu_seconds(row.pid)
        found = self.generate(row, path, load.connections, seconds, think_us=load.think_us)
        cpu = cpu_seconds(row.pid) - before
        streams = found["answers"] if load.stream else 0
        unfinished = streams - found["finished"] if streams else 0
        missing = 0 if found["events"] == streams * (EVENTS + 2) else 1
        return Shot(
            answers=found["answers"],
            errors=found["errors"] + unfinished + missing,
            seconds=found["seconds"],
            cpu_seconds=cpu,
            p50_us=found["p50_us"],
            p99_us=found["p99_us"],
            first_p50_us=found["first_p50_us"],
            events=found["events"],
        )

    def generate(
        self,
        row: Row,
        path: Path,
        connections: int,
        seconds: float,
        *,
        limit: int = 0,
        think_us: int = 0,
        told: Callable[[int], object] | None = None,
    ) -> dict[str, Any]:
        """Run the load generator; `told` hears once a second how many answers have come."""
        command = [str(self.folder / "loadgen"), "-p", str(row.port), "-b", str(path), "-c", str(connections)]
        command += ["-s", str(seconds), "-n", str(limit), "-w", str(think_us), *(["-v"] if told else [])]
        process = subprocess.Popen(
            command,
            env={**os.environ, "LOADGEN_KEY": self.key},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.load_core}),
        )
        self.started.append(process)
        words = []
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stderr:
                if told is not None and line.strip().isdigit():
                    told(int(line))
                else:
                    words.append(line.decode())
            out = process.stdout.read()
        if process.returncode:
            sys.exit(f"the load generator failed against {row.name}: {''.join(words)}")
        self.started.remove(process)
        found: dict[str, Any] = json.loads(out)
        return found


def _peer(name: str) -> str | None:
    """Find a peer's program."""
    own = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin" / name
    return str(own) if own.exists() else shutil.which(name)


def config(port: int, upstream: int, policy: str, key: str, folder: Path) -> dict[str, Any]:
    """Write the gateway's config: three targets, one learned route, a key, durable traces."""
    targets = {
        name: {
            "type": "openai_chat",
            "model": f"canned-{name}",
            "base_url": f"http://127.0.0.1:{upstream}/v1",
            "profile": {"input_usd_per_mtok": usd, "output_usd_per_mtok": 4 * usd},
        }
        for name, usd in TARGETS.items()
    }
    return {
        "targets": targets,
        "routes": {
            name: {"policy": {"type": policy, "features": features, **POLICIES[policy]}}
            for name, features in ROUTES.items()
        },
        "store": {"path": str(folder / "traces.sqlite")},
        "gateway": {
            "port": port,
            "keys": {
                "bench": {
                    "hash": "sha256:" + hashlib.sha256(key.encode()).hexdigest(),
                    "team": "bench",
                    "limits": {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent": 10**4},
                    "budgets": [{"usd": 1e6, "period": "month"}],
                }
            },
        },
    }


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def stop(process: subprocess.Popen[bytes], patience_seconds: float = 20.0) -> None:
    """End a process and its children: politely, then not."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def teach(row: Row, key: str, count: int, *, every_seconds: float = 0.0, ended: threading.Event | None = None) -> None:
    """Ask and judge `count` times, so that the policy learns that dear targets are somewhat better."""
    draw = random.Random(1)
    connection = http.client.HTTPConnection("127.0.0.1", row.port, timeout=30)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    asked = bodies(row.model, Load(1))
    with contextlib.closing(connection):
        for i in range(count):
            if ended is not None and ended.wait(every_seconds):
                return
            target, answer = call(connection, "/v1/chat/completions", asked[i % len(asked)], headers)
            value = float(draw.random() < SKILLS[target])
            call(connection, "/v1/feedback", {"id": answer["id"], "value": value}, headers)


def call(connection: http.client.HTTPConnection, path: str, body: Any, headers: dict[str, str]) -> tuple[str, Any]:
    """POST JSON; return the target that answered, and the answer's JSON. Ends the program if the gateway refuses."""
    connection.request("POST", path, json.dumps(body), headers)
    reply = connection.getresponse()
    data = reply.read()
    if reply.status >= 300:
        sys.exit(f"the gateway answered {path} with {reply.status}: {data[:500].decode('utf-8', 'replace')}")
    return reply.getheader("x-fairlead-target", ""), json.loads(data)


# --------------------------------------------------------------------------------------------------- reading of /proc


def tree(pid: int) -> list[int]:
    """List a process and all its descendants."""
    found = [pid]
    for p in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{p}/task"):
                found += [int(c) for c in Path(f"/proc/{p}/task/{task}/children").read_text().split()]
    return found


def cpu_seconds(pid: int | None) -> float:
    """CPU that a process and its children have used so far: each process has a clock of its own (Linux numbers it ~pid * 8 + 2)."""
    total = 0.0
    for p in [] if pid is None else tree(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~p << 3) | 2)
    return total


def pss_mb(pid: int) -> float:
    """Memory of a process and its children in MB, pages shared with others counted in parts."""
    total = 0
    for p in tree(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{p}/smaps_rollup").read_text()
            total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1000 * 1.024


# ------------------------------------------------------------------------------------------------------------- figures


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A median with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Figure:
        """Sum up some values."""
        return cls(median=statistics.median(values), least=min(values), most=max(values))

    def show(self, digits: int) -> str:
        """Write it for a table."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.most:,.{digits}f})"


def figures(shots: dict[str, dict[str, list[Shot]]]) -> dict[str, dict[str, Figure]]:
    """Sum up shots by row and load into the published figures by row. Added times are round by round, against ``direct``."""
    out: dict[str, dict[str, Figure]] = {}
    for row, loads in shots.items():
        full, stream = loads["full"], loads["stream"]
        f = out[row] = {"requests_per_s": Figure.of([s.answers / s.seconds for s in full])}
        f["full_p50_us"] = Figure.of([s.p50_us for s in full])
        f["full_p99_us"] = Figure.of([s.p99_us for s in full])
        f["errors"] = Figure.of([float(sum(s.errors for some in loads.values() for s in some))])
        if row == "direct":
            continue
        f["cpu_ms"] = Figure.of([1e3 * s.cpu_seconds / max(s.answers, 1) for s in full])
        f["cpu_us_per_event"] = Figure.of([1e6 * s.cpu_seconds / max(s.events, 1) for s in stream])
        f["added_first_event_p50_us"] = Figure.of(
            [s.first_p50_us - d.first_p50_us for s, d in zip(stream, shots["direct"]["stream"], strict=True)]
        )
        for load in ("c16", "c64"):
            pairs = list(zip(loads[load], shots["direct"][load], strict=True))
            f[f"{load}_added_p50_us"] = Figure.of([s.p50_us - d.p50_us for s, d in pairs])
            f[f"{load}_added_p99_us"] = Figure.of([s.p99_us - d.p99_us for s, d in pairs])
    return out


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """How memory went over the memory run."""

    requests: int
    errors: int
    seconds: float
    first_mb: float
    last_mb: float
    most_mb: float
    flat: bool
    samples: list[tuple[float, float]]
    """(seconds since the start, MB)."""


def flatness(samples: list[float]) -> tuple[float, float, bool]:
    """Compare the last quarter with the first after the warm-up (a fifth): (first mean, last mean, whether it is flat)."""
    steady = samples[len(samples) // 5 :]
    quarter = max(1, len(steady) // 4)
    first, last = statistics.fmean(steady[:quarter]), statistics.fmean(steady[-quarter:])
    return first, last, last <= max(first * 1.05, first + 8.0)


def watch_memory(bench: Bench, row: Row, requests: int, every_seconds: float) -> Memory:
    """Send `requests` requests and sample memory meanwhile. Some answers are judged, so that the router learns."""
    plain = bodies(row.model, Load(1), 576)
    streams = bodies(row.model, Load(1, "events=10", stream=True), 64)
    mixed = [b for i, s in enumerate(streams) for b in (*plain[9 * i : 9 * i + 9], s)]
    path = write_bodies(bench.folder / "memory.jsonl", mixed)
    assert row.pid is not None
    pid = row.pid
    samples: list[tuple[float, float]] = []
    ended = threading.Event()
    begun = time.monotonic()

    def sample() -> None:
        while not ended.wait(every_seconds):
            samples.append((time.monotonic() - begun, pss_mb(pid)))

    threads = [
        threading.Thread(target=sample),
        threading.Thread(target=teach, args=(row, bench.key, 1 << 30), kwargs={"every_seconds": 0.2, "ended": ended}),
    ]
    with tqdm(total=requests, desc="memory", unit="req", file=sys.stderr) as bar:
        for thread in threads:
            thread.start()
        try:
            most_seconds = max(60.0, requests / 100)
            told = lambda n: bar.update(n - bar.n)  # noqa: E731
            found = bench.generate(row, path, 32, most_seconds, limit=requests, told=told)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    samples.append((time.monotonic() - begun, pss_mb(pid)))
    first, last, flat = flatness([mb for _, mb in samples])
    streams_sent = found["answers"] // 10
    unfinished = abs(found["finished"] - streams_sent) if found["finished"] < streams_sent - 32 else 0
    return Memory(
        requests=found["answers"],
        errors=found["errors"] + unfinished,
        seconds=found["seconds"],
        first_mb=first,
        last_mb=last,
        most_mb=max(mb for _, mb in samples),
        flat=flat,
        samples=samples,
    )


# ------------------------------------------------------------------------------------------------------------- results


def setting(policy: str) -> dict[str, Any]:
    """Describe the machine and the versions."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    packages = ("fairlead", "aiohttp", "uvicorn", "uvloop", "starlette", "msgspec", "numpy")
    found = {}
    for name in packages:
        with contextlib.suppress(Exception):
            found[name] = version(name)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "policy": policy,
        **found,
    }


def report(result: dict[str, Any]) -> Iterator[str]:
    """Write the result as lines of Markdown."""
    about = result["setting"]
    yield ", ".join(f"{k} {v}" for k, v in about.items())
    if about["load_average"] > 1.0:
        yield "The machine was busy with other things: trust CPU times and ratios rather than requests/s and latencies."
    yield ""
    yield (
        "| | requests/s | CPU ms/request | x nginx | added p50 µs, 16 conn. | added p99 | added p50 µs, 64 conn. | added p99 "
        "| CPU µs/event | PSS MB | errors |"
    )
    yield "|---|" + "---:|" * 10
    rows: dict[str, dict[str, Figure]] = result["figures"]
    nginx = rows.get("nginx")
    for name, f in rows.items():
        errors = f"{f['errors'].median:.0f}"
        cells = [f["requests_per_s"].show(0)]
        if name == "direct":
            cells += ["-"] * 8
        else:
            cells += [
                f["cpu_ms"].show(3),
                f"{f['cpu_ms'].median / nginx['cpu_ms'].median:.1f}" if nginx else "-",
                *(f[f"{load}_added_{q}_us"].show(0) for load in ("c16", "c64") for q in ("p50", "p99")),
                f["cpu_us_per_event"].show(1),
                f"{result['memory_mb'].get(name, float('nan')):.1f}",
            ]
        yield f"| {name} | " + " | ".join([*cells, errors]) + " |"
    if nginx is None:
        yield ""
        yield "nginx is not installed: its row is left out (Debian: apt-get install nginx-light)."
    reached = rows["fairlead"]["cpu_ms"].median
    yield ""
    yield f"CPU per request: {reached:.3f} ms; the mark is {MOST_CPU_MS:.2f}. Next: " + ", ".join(
        f"{ms:.2f} ({who}; {'reached' if reached <= ms else f'{reached / ms:.1f} times that'})"
        for who, ms in GOALS_MS.items()
    )
    m: Memory | None = result["memory"]
    if m is not None:
        yield ""
        yield (
            f"Memory over {m.requests:,} requests in {m.seconds:.0f} s: {m.first_mb:.1f} MB in the first quarter after the warm-up, "
            f"{m.last_mb:.1f} MB in the last, at most {m.most_mb:.1f} MB: {'flat' if m.flat else 'NOT FLAT'}; {m.errors} errors."
        )
    if result["traces"] is not None:
        yield f"{result['traces']}"


def failures(result: dict[str, Any]) -> list[str]:
    """Say what `--check` finds wrong."""
    rows: dict[str, dict[str, Figure]] = result["figures"]
    wrong = []
    cpu_ms = rows["fairlead"]["cpu_ms"].median
    if cpu_ms > MOST_CPU_MS:
        wrong.append(f"CPU per request at saturation is {cpu_ms:.3f} ms, more than {MOST_CPU_MS:.2f}")
    wrong += [f"{name}: {f['errors'].median:.0f} errors" for name, f in rows.items() if f["errors"].median]
    m: Memory | None = result["memory"]
    if m is not None and not m.flat:
        wrong.append(f"memory is not flat: {m.first_mb:.1f} MB, later {m.last_mb:.1f} MB")
    if m is not None and m.errors:
        wrong.append(f"{m.errors} errors in the memory run")
    return wrong


def verify(bench: Bench) -> str:
    """Check the chain of all traces that the run wrote."""
    command = [sys.executable, "-m", "fairlead.cli", "trace", "verify", "--store", str(bench.folder / "traces.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=bench.folder)
    words = (done.stdout or done.stderr).strip().splitlines()
    return f"`fairlead trace verify`: {words[-1] if words else f'exit status {done.returncode}'}"


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run everything."""
    with Bench(folder, args.policy) as bench:
        bench.compile()
        direct = bench.upstream()
        nginx = bench.nginx(direct.port)
        fairlead = bench.fairlead(direct.port)
        sglang, litellm = bench.sglang(direct.port), bench.litellm(direct.port)
        rich = Row("fairlead, embedding", fairlead.port, fairlead.pid, "rich")
        by_name = Row("fairlead, by name", fairlead.port, fairlead.pid, next(iter(TARGETS)))
        other = None if args.python is None else bench.fairlead(direct.port, args.python)
        rows = [r for r in (direct, nginx, sglang, litellm, fairlead, other, rich, by_name) if r is not None]
        about = setting(args.policy)
        shots: dict[str, dict[str, list[Shot]]] = {r.name: {load: [] for load in LOADS} for r in rows}
        for row in rows:
            bench.shoot(row, LOADS["full"], 0.5)
        with tqdm(total=args.rounds * len(rows) * len(LOADS), desc="rounds", unit="shot", file=sys.stderr) as bar:
            for i in range(args.rounds):
                for name, load in LOADS.items():
                    for row in rows if i % 2 == 0 else rows[::-1]:
                        shots[row.name][name].append(bench.shoot(row, load, args.seconds))
                        bar.update()
        used = {r.name: pss_mb(r.pid) for r in rows if r.pid is not None}
        memory = None
        if args.memory_requests:
            memory = watch_memory(bench, fairlead, args.memory_requests, args.sample_seconds)
        for process in reversed(bench.started[1:]):
            stop(process)
        return {
            "setting": about,
            "figures": figures(shots),
            "memory_mb": used,
            "memory": memory,
            "traces": verify(bench),
            "shots": shots,
        }


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is put on each row (default 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts (default 3)")
    parser.add_argument(
        "--policy", choices=list(POLICIES), default="lin_ucb", help="the learned policy of the route (default lin_ucb)"
    )
    parser.add_argument(
        "--memory-requests", type=int, default=500_000, help="length of the memory run; 0: none (default 500000)"
    )
    parser.add_argument(
        "--sample-seconds", type=float, default=1.0, help="time between two looks at memory (default 1)"
    )
    parser.add_argument(
        "--python", help="a further row: served by this interpreter, of the same minor version (Debian's, say)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="write the JSON to a file as well")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is passed or anything failed")
    parser.add_argument("--keep", type=Path, help="keep configs, logs and traces in this folder")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    with contextlib.ExitStack() as stack:
        if args.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fairlead-bench-")))
        else:
            folder = args.keep.resolve()
            folder.mkdir(parents=True, exist_ok=True)
        result = measure(args, folder)
    data = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if args.out is not None:
        args.out.write_bytes(data)
    print(data.decode() if args.json else "\n".join(report(result)))
    wrong = failures(result) if args.check else []
    for line in wrong:
        print(f"check: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
