"""`fairlead key`: make an API key for the gateway."""

from __future__ import annotations

import argparse
import re

from fairlead.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "key",
        help="make an API key for the gateway",
        description="Print a new key, once, and the line that lets it in. Only its SHA-256 is kept.",
    )
    parser.add_argument("name", nargs="?", default="default", help="whose key it is (default: %(default)s)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print a key and its config line."""
    from fairlead.gateway.door import hashed, new_key

    if not re.fullmatch(r"[\w.@-]{1,64}", args.name):
        raise ConfigError("a key's name is made of letters, digits and . _ - @", path="$.gateway.keys")
    key = new_key()
    print(f"key (shown this once): {key}\n")
    print(f'in the config:\n\ngateway:\n  keys:\n    "{args.name}": "{hashed(key)}"')
    return 0
