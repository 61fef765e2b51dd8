"""`fairlead serve`: run the gateway."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from secrets import token_hex

import msgspec

from fairlead import config
from fairlead.config import Config
from fairlead.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "serve",
        help="run the gateway",
        description="Serve the OpenAI chat API over the targets and routes of a config. Ends cleanly on SIGTERM: requests under "
        "way are answered first.",
    )
    parser.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
    parser.add_argument("--host", help="name or address to bind to, in place of the config's")
    parser.add_argument("--port", type=int, help="port, in place of the config's; 0 takes a free one")
    parser.add_argument("--workers", type=int, help="processes that serve, in place of the config's")
    for own in ("--socket", "--ready", "--parent", "--worker"):  # what a worker's parent tells it
        parser.add_argument(own, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from fairlead.gateway import logs, server
    from fairlead.gateway.app import Gateway
    from fairlead.gateway.metrics import Place
    from fairlead.gateway.workers import SIGNALS

    early: list[int] = []
    if SIGNALS:
        # It would end a process that is only starting; what it asks for is done as soon as that serves.
        with contextlib.suppress(ValueError):  # not the main thread: whose signals they are not
            signal.signal(SIGNALS["reload"], lambda number, _: early.append(number))
    # Until the config says how.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    read = _load(args)
    settings = read.gateway
    logs.setup(settings.log, worker=args.worker)
    names = ", ".join(read.policies)
    if settings.workers > 1 and args.socket is None:
        return _parent(args, read, names)

    listening: server.Server

    def ready(url: str, gateway: Gateway) -> None:
        if args.ready is not None:
            tell("up")
        else:
            asks = "a key is asked for" if gateway.door.locked else "no key is asked for"
            print(
                f"fairlead serves {names} over {len(read.drivers)} targets at {url} (API: {url}/v1); {asks}", flush=True
            )
        if early:
            listening.signalled(SIGNALS["reload"])

    def tell(what: str) -> None:
        os.write(args.ready, f"{what} {args.worker}\n".encode())

    async def serve() -> None:
        nonlocal listening
        place = None if args.run is None else Place(run=args.run, worker=args.worker)
        gateway = Gateway.of(read, load=lambda: _load(args), place=place, tell=None if args.ready is None else tell)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "reload": gateway.reload,
            "drain": lambda: gateway.drain(True),
            "resume": lambda: gateway.drain(False),
        }
        listening = server.Server(
            gateway,
            host=settings.host,
            port=settings.port,
            drain_seconds=settings.drain_seconds,
            ready=lambda url: ready(url, gateway),
            signals={number: calls[what] for what, number in SIGNALS.items()},
        )
        if args.parent is not None:
            loop = asyncio.get_running_loop()

            def orphaned() -> None:
                loop.remove_reader(args.parent)
                logs.life.error("the parent of this worker is gone, so it drains and ends")
                listening.handle_exit(signal.SIGTERM, None)

            loop.add_reader(args.parent, orphaned)
        opened = listening.bind() if args.socket is None else socket.socket(fileno=args.socket)
        async with gateway:
            await listening.run_on(opened)

    server.run(serve)
    return 0


def _load(args: argparse.Namespace) -> Config:
    """Read the config, with what the command line says in place of the file."""
    said = {name: value for name in ("host", "port", "workers") if (value := getattr(args, name)) is not None}
    if said.get("workers", 1) < 1:
        raise ConfigError("at least one worker is needed", path="--workers")
    from fairlead.gateway.logs import redactor

    read = config.load(args.config)
    redactor.learn(read)
    settings = msgspec.structs.replace(read.gateway, **said)
    return msgspec.structs.replace(read, file=msgspec.structs.replace(read.file, gateway=settings))


def _parent(args: argparse.Namespace, read: Config, names: str) -> int:
    """Start the workers and watch them."""
    from fairlead.gateway.server import Server
    from fairlead.gateway.workers import Workers, command

    settings = read.gateway
    listening = Server(None, host=settings.host, port=settings.port)
    opened = listening.bind()
    opened.listen(2048)
    own = ["serve", args.config, "--host", settings.host, "--port", str(listening.port)]
    own += ["--workers", str(settings.workers), "--run", token_hex(8)]
    workers = Workers(
        [*command(), *own], count=settings.workers, opened=opened, grace_seconds=settings.drain_seconds + 20.0
    )
    return workers.run(
        lambda: print(
            f"fairlead serves {names} over {len(read.drivers)} targets at {listening.url} (API: {listening.url}/v1) "
            f"with {settings.workers} workers",
            flush=True,
        )
    )
