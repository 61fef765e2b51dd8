"""A gateway on a socket: uvicorn with uvloop and httptools, one process (several: `workers.py`).

On SIGTERM or SIGINT no new connection is taken, requests under way get `drain_seconds` to end, then what was learned and traced is
written and the process ends with status 0. On SIGHUP the config is read again; SIGUSR1 lets ``/readyz`` answer 503, SIGUSR2 takes that back.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import uvicorn

from fairlead.errors import ConfigError, FairleadError
from fairlead.gateway.protocol import Protocol

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves one ASGI application.

    Args:
        app: what to serve.
        host: name or address to bind to.
        port: 0 takes a free one.
        drain_seconds: how long requests under way may take after a stop was asked for.
        ready: told the address once connections are taken.
        signals: what is called on further signals.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        drain_seconds: float = 10.0,
        ready: Callable[[str], None] | None = None,
        signals: Mapping[signal.Signals, Callable[[], Awaitable[object]]] | None = None,
    ) -> None:
        self.signals = signals or {}
        self._doing: set[asyncio.Task[None]] = set()
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=Protocol,
                ws="none",
                # Whoever runs the server opens the application, so that what is wrong with it is raised and not logged.
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        self.host, self.port, self.ready = host, port, ready
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it can be reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, then say so."""
        await super().startup(sockets)
        if self.ready is not None:
            self.ready(self.url)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `run` sees to them."""
        yield

    def bind(self) -> socket.socket:
        """Open the socket. Raises `ConfigError`."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            opened = socket.socket(family, kind, protocol)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except OSError as e:
            raise ConfigError(
                f"cannot listen on {self.host}:{self.port} ({e.strerror}); is it in use? `--port` takes another",
                path="$.gateway.port",
            ) from e
        opened.set_inheritable(True)
        self.port = opened.getsockname()[1]
        return opened

    async def run_on(self, opened: socket.socket) -> None:
        """Serve until told to stop, by a signal or by `stop`. For a process that does nothing else."""
        rest_collector()
        loop = asyncio.get_running_loop()
        stops: list[signal.Signals] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self.handle_exit, number, None)
                stops.append(number)
        for number in self.signals:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self.signalled, number)
                stops.append(number)
        try:
            await self.serve(sockets=[opened])
        finally:
            for number in stops:
                loop.remove_signal_handler(number)

    def signalled(self, number: signal.Signals) -> None:
        """Do what a signal asks for."""
        task = asyncio.ensure_future(self._do(number))
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    async def _do(self, number: signal.Signals) -> None:
        try:
            await self.signals[number]()
        except FairleadError:
            pass  # told by who raises it
        except Exception:
            # The wall of a reload: whatever it stumbles over, what is live serves on.
            log.exception("what %s asks for was not done, and the gateway serves on as before", number.name)

    async def __aenter__(self) -> Self:
        """Serve in the background; for tests and for embedding."""
        opened = self.bind()
        self._task = asyncio.ensure_future(self.serve(sockets=[opened]))
        while not self.started:
            if self._task.done():
                self._task.result()
                raise ConfigError("the server ended before it began")
            await asyncio.sleep(0.005)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        tb: TracebackType | None = None,
    ) -> None:
        self.should_exit = True
        if self._task is not None:
            await self._task


def rest_collector() -> None:
    """Let the garbage collector look at new objects only, and seldom: a request makes next to no cycles.

    With CPython's own thresholds it took 9% of a busy gateway's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def run(main: Callable[[], Any]) -> None:
    """Run a coroutine function on uvloop, or on asyncio's own loop where that is not installed."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:  # pragma: no cover - Windows
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
