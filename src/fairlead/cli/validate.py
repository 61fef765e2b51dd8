"""`fairlead validate`: check a config without starting anything."""

from __future__ import annotations

import argparse

from fairlead import config
from fairlead.errors import ConfigError
from fairlead.gateway.door import Door


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("validate", help="check a config without starting anything")
    parser.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print ``ok`` and a summary; a wrong key is raised as a `ConfigError` with its path."""
    read = config.load(args.config)
    if read.gateway.strongest is not None and read.gateway.strongest not in read.drivers:
        raise ConfigError(f"no target is called {read.gateway.strongest!r}", path="$.gateway.strongest")
    Door(keys=read.gateway.keys, host=read.gateway.host)
    print(f"ok: {args.config}")
    for name, driver in read.drivers.items():
        p = driver.profile
        price = (
            "price unknown"
            if p.output_usd_per_mtok is None
            else f"{p.input_usd_per_mtok:g} / {p.output_usd_per_mtok:g} USD per million tokens in / out"
        )
        print(f"  target {name}: {driver.type_name()}, {price}")
    for name, policy in read.policies.items():
        needs = f", reads {', '.join(policy.needs)}" if policy.needs else ""
        print(f"  route {name}: {policy.type_name()}{needs}")
    print(f"  store {read.file.store.path}")
    keys = len(read.gateway.keys)
    print(f"  gateway {read.gateway.host}:{read.gateway.port}, {keys or 'no'} key{'' if keys == 1 else 's'}")
    return 0
