"""A Redis server of the tests' own: from Debian's package, on a free port of loopback, gone at the end."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "sesame-opens-7391"
VARIABLE = "FAIRLEAD_TEST_REDIS"


class RedisServer:
    """One server. `start` and `stop` may be called again and again; what it held is lost each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--requirepass", PASSWORD, "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"Ready to accept connections" in line:
                return
        pytest.fail("redis-server did not start")

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running server; skips where there is none, or no client."""
    pytest.importorskip("redis", reason="redis is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="fairlead-redis-"))
    server = RedisServer(folder)
    server.start()
    os.environ[VARIABLE] = PASSWORD
    try:
        yield server
    finally:
        del os.environ[VARIABLE]
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
