"""`fairlead ledger`: what keys, teams and tenants have spent, and whether it is what the traces say."""

from __future__ import annotations

import argparse
import time


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "ledger",
        help="show what keys, teams and tenants have spent",
        description="One line for each account that has a limit, in its present period: spent, set aside for requests under way, limit.",
    )
    parser.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare every account of money with the traces; exit code 1 if they differ",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the accounts, or how they differ from the traces."""
    from fairlead.cli.key import opened
    from fairlead.gateway.admin import spend

    with opened(args.config) as (_, store, keyring, ledger):
        if args.check:
            differ = ledger.reconcile()
            for name, (by_ledger, by_traces) in differ.items():
                print(f"DIFFERS  {name}: {by_ledger} micro-dollars by the ledger, {by_traces} by the traces")
            if not differ:
                print("ok  the ledger is the sum of the traces, to the micro-dollar")
            return 1 if differ else 0
        for row in spend(store, keyring.accounts(), time.time()):
            money = row.unit == "micro_usd"
            spent, held, limit = (f"{n / 1e6:.6f}" if money else str(n) for n in (row.spent, row.held, row.limit))
            unit = "USD" if money else row.unit
            print(f"{row.account}  {row.window}  spent {spent}, held {held}, of {limit} {unit}")
    return 0
