"""`fairlead state`: versions of what each route's policy has learned, and the way back to an earlier one."""

from __future__ import annotations

import argparse

from fairlead.cli.trace import add_store, open_store, short, when
from fairlead.errors import StoreError
from fairlead.store import BEGIN, STRAIGHT, Snapshot


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("state", help="list versions of learned state, roll back")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    versions = actions.add_parser(
        "versions", help="list a route's versions (without ROUTE: of all routes, but not of targets themselves)"
    )
    versions.add_argument("route", nargs="?", metavar="ROUTE")
    versions.set_defaults(func=run_versions)

    rollback = actions.add_parser("rollback", help="make an earlier version the active one")
    rollback.add_argument("route", metavar="ROUTE")
    rollback.add_argument(
        "--to", type=int, metavar="VERSION", help="default: the one before the active one, pruned ones apart"
    )
    rollback.set_defaults(func=run_rollback)

    for action in (versions, rollback):
        add_store(action)


def run_versions(args: argparse.Namespace) -> int:
    """Print one line a version; a star marks the active one."""
    store = open_store(args)
    routes = store.routes()
    if args.route is not None and args.route not in routes:
        raise StoreError(f"no versions of {args.route!r} are kept; routes with versions: {', '.join(routes) or 'none'}")
    for route in [args.route] if args.route is not None else routes:
        versions = store.versions(route)
        if args.route is None and all(s.note == STRAIGHT for s in versions):
            continue
        for s in versions:
            pruned = "  (pruned)" if s.pruned else ""
            print(f"{'*' if s.active else ' '} {route} {s.version}  {short(s.digest)}  {when(s.at)}  {s.note}{pruned}")
    return 0


def run_rollback(args: argparse.Namespace) -> int:
    """Activate an earlier version. Gateways that are running on the store take it up when they next look."""
    store = open_store(args, write=True)
    try:
        version = _before(store.versions(args.route), args.route) if args.to is None else args.to
        s = store.activate(args.route, version)
    finally:
        store.stop()
    print(f"route {s.route} serves version {s.version} ({short(s.digest)}, {s.note}) from now on")
    return 0


def _before(versions: list[Snapshot], route: str) -> int:
    """Return the version before the active one."""
    active = next((s for s in versions if s.active), None)
    if active is None:
        raise StoreError(f"route {route!r} has no active version; name one with --to")
    if active.note.startswith(BEGIN):
        raise StoreError(
            f"version {active.version} of route {route!r} is where the present config began: a gateway with this config "
            "would begin anew from anything older; name a version with --to"
        )
    earlier = [s.version for s in versions if s.version < active.version and not s.pruned]
    if not earlier:
        raise StoreError(f"version {active.version} of route {route!r} is the oldest one that is kept")
    return earlier[-1]
