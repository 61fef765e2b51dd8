"""`fairlead serve`: run the gateway."""

from __future__ import annotations

import argparse
import logging

import msgspec

from fairlead import config


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
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from prometheus_client import disable_created_metrics

    from fairlead.gateway import server
    from fairlead.gateway.app import Gateway

    disable_created_metrics()  # type: ignore[no-untyped-call]  # half of all lines, and nobody plots them

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    read = config.load(args.config)
    settings = read.gateway
    if args.host is not None:
        settings = msgspec.structs.replace(settings, host=args.host)
    if args.port is not None:
        settings = msgspec.structs.replace(settings, port=args.port)
    read = msgspec.structs.replace(read, file=msgspec.structs.replace(read.file, gateway=settings))
    names = ", ".join(read.policies)

    async def serve() -> None:
        gateway = Gateway.of(read)
        listening = server.Server(
            gateway,
            host=settings.host,
            port=settings.port,
            drain_seconds=settings.drain_seconds,
            ready=lambda url: print(
                f"fairlead serves {names} over {len(read.drivers)} targets at {url} (API: {url}/v1)", flush=True
            ),
        )
        opened = listening.bind()
        async with gateway:
            await listening.run_on(opened)

    server.run(serve)
    return 0
