"""`fairlead key`: make, list, rotate and revoke API keys of the gateway."""

from __future__ import annotations

import argparse
import asyncio
import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from fairlead.errors import ConfigError, StoreError, suggest

if TYPE_CHECKING:
    from fairlead.config import Config
    from fairlead.gateway.keys import Actor, IssuedKey, Key, Keyring
    from fairlead.ledger import Ledger
    from fairlead.store import Connection, Store

T = TypeVar("T")
_UNITS = {"requests_per_minute": "requests/minute", "tokens_per_minute": "tokens/minute", "concurrent": "at once"}

MOST_DAYS: Final = 36_500


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("key", help="make, list, rotate and revoke API keys of the gateway")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    new = actions.add_parser(
        "new",
        help="make a key for the config file",
        description="Print a new key, once, and the line that lets it in. Only its SHA-256 is kept.",
    )
    new.add_argument("name", nargs="?", default="default", help="whose key it is (default: %(default)s)")
    new.add_argument("--admin", action="store_true", help="a key for the admin API")
    new.set_defaults(func=run_new)

    listed = actions.add_parser("list", help="list the keys of a config and of its store")
    listed.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
    listed.set_defaults(func=run_list)

    create = actions.add_parser(
        "create",
        help="make a key in the store of a config",
        description="Print a new key, once. A gateway that is running on this store lets it in at once.",
    )
    create.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
    create.add_argument("name", help="whose key it is")
    for field in ("tenant", "team", "user"):
        create.add_argument(f"--{field}", metavar="NAME", help=f"the {field} that it stands for")
    for field, of in (
        ("roles", "a role that it has"),
        ("routes", "a model that it may ask for"),
        ("targets", "a target that may act"),
    ):
        create.add_argument(
            f"--{field[:-1]}", action="append", dest=field, metavar="NAME", help=f"{of}; may be repeated"
        )
    create.add_argument(
        "--budget", action="append", default=[], metavar="USD/PERIOD", help="such as 20/month; of day, month and total"
    )
    for field in ("requests_per_minute", "tokens_per_minute", "concurrent"):
        create.add_argument(f"--{field.replace('_', '-')}", type=int, metavar="N")
    create.add_argument("--days", type=float, metavar="N", help="how long it works (default: until it is revoked)")
    create.set_defaults(func=run_create)

    rotate = actions.add_parser("rotate", help="make another key of the same name and accounts")
    rotate.add_argument("--overlap-seconds", type=float, default=0.0, metavar="N", help="how long the old one works on")
    rotate.set_defaults(func=run_rotate)
    revoke = actions.add_parser("revoke", help="let a key in no more")
    revoke.set_defaults(func=run_revoke)
    for action in (rotate, revoke):
        action.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
        action.add_argument("key", metavar="KEY", help="its id or its name, as `list` shows them")


def run_new(args: argparse.Namespace) -> int:
    """Print a key and its config line."""
    from fairlead.gateway.keys import NAME, hashed, new_key

    if not NAME.fullmatch(args.name):
        raise ConfigError("a key's name is made of letters, digits and . _ - @", path="$.gateway.keys")
    key = new_key()
    where = "admin_keys" if args.admin else "keys"
    print(f"key (shown this once): {key}\n")
    print(f'in the config:\n\ngateway:\n  {where}:\n    "{args.name}": "{hashed(key)}"')
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print one line a key, and under it what it is limited to."""
    from fairlead.ledger import dollars

    with opened(args.config) as (read, _, keyring, _):
        keys = keyring.shown()
    if not keys:
        print(
            "there are no keys: "
            + ("nobody is let in" if read.gateway.admin_keys else "whoever reaches the gateway is let in")
        )
    for k in keys:
        ended = k.revoked or k.expires
        state = "" if ended is None else f"{'revoked' if k.revoked else 'expires'} {ended:%Y-%m-%d %H:%M}"
        whose = ", ".join(f"{f} {v}" for f in ("tenant", "team", "user") if (v := getattr(k, f)))
        print("  ".join((k.id, k.name, k.prefix or "(config)", whose or "-", state)).rstrip())
        means = [
            f"{field} {', '.join(names)}" for field in ("roles", "routes", "targets") if (names := getattr(k, field))
        ]
        means += [f"{dollars(b.usd)} USD/{b.period}" for b in k.budgets]
        means += [f"{n} {_UNITS[unit]}" for unit, n in msgspec.structs.asdict(k.limits).items() if n is not None]
        if means:
            print(f"    {'; '.join(means)}")
    return 0


def run_create(args: argparse.Namespace) -> int:
    """Make a key and print it."""
    from fairlead.gateway import keys

    if args.name.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"{args.name!r} is a config, not whose key it is: fairlead key create {args.name} NAME", path="NAME"
        )
    fields = ("name", "tenant", "team", "user", "routes", "targets")
    limits = ("requests_per_minute", "tokens_per_minute", "concurrent")
    said: dict[str, Any] = {f: v for f in fields if (v := getattr(args, f)) is not None}
    said["roles"] = args.roles or []
    said["limits"] = {f: v for f in limits if (v := getattr(args, f)) is not None}
    said["budgets"] = [_budget(text) for text in args.budget]
    if args.days is not None:
        if not 0.0 < args.days <= MOST_DAYS:
            raise ConfigError(f"a key works for more than 0 and at most {MOST_DAYS} days", path="--days")
        said["expires"] = datetime.now(UTC) + timedelta(days=args.days)
    try:
        wanted = msgspec.convert(said, keys.NewKey)
    except msgspec.ValidationError as e:
        raise ConfigError(f"no such key can be made: {e}") from e
    with opened(args.config) as (read, store, keyring, _):
        for field, known in (("routes", [*read.policies, *read.drivers]), ("targets", [*read.drivers])):
            for name in getattr(args, field) or ():
                if name not in known:
                    raise ConfigError(
                        f"no {field[:-1]} is called {name!r}; {suggest(name, known)}", path=f"--{field[:-1]}"
                    )
        open_until_now = not keyring.locked and not read.gateway.admin_keys
        _tell(_do(store, lambda c: keys.create(c, _actor(), wanted, taken=keyring.keys)))
        if open_until_now:
            print(
                "\nit is the first key: the gateway now asks everybody for one (for the admin API: `fairlead key new --admin NAME`)"
            )
    return 0


def run_rotate(args: argparse.Namespace) -> int:
    """Make a key's successor and print it."""
    from fairlead.gateway import keys

    most = keys.MOST_OVERLAP_SECONDS
    if not 0.0 <= args.overlap_seconds <= most:
        raise ConfigError(
            f"the overlap is a number of seconds, from 0 to {most:.0f} (31 days)", path="--overlap-seconds"
        )
    with opened(args.config) as (_, store, keyring, _):
        id = _find(keyring, args.key).id
        _tell(_do(store, lambda c: keys.rotate(c, _actor(), id, args.overlap_seconds)))
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """Revoke a key; by its name, all that are live of that name."""
    from fairlead.gateway import keys

    with opened(args.config) as (_, store, keyring, _):
        named = [k for k in keyring.shown() if k.name == args.key and k.revoked is None]
        ours = [k.id for k in named if k.source != "config"]
        for id in ours if named else [_find(keyring, args.key).id]:
            _do(store, lambda c, id=id: keys.revoke(c, _actor(), id))  # type: ignore[misc]
            print(f"{id} is revoked; a gateway that is running lets it in no more within a second or two")
        if len(named) > len(ours):
            raise ConfigError(
                f"{args.key!r} is a key of the config file, and works until it is taken out there and the config is reloaded"
            )
    return 0


@contextmanager
def opened(path: str) -> Iterator[tuple[Config, Store, Keyring, Ledger]]:
    """Read a config, open its store, and read the keys of both."""
    from msgspec.structs import replace

    from fairlead import config
    from fairlead.gateway.keys import Keyring
    from fairlead.ledger import Ledger

    read = config.load(path)
    store = replace(read.file.store, outage="refuse").make()
    keyring = Keyring(keys=read.gateway.keys, limits=read.gateway.limits, store=store)
    ledger = Ledger(store)
    store.start()
    try:
        asyncio.run(keyring.refresh())
        yield read, store, keyring, ledger
    finally:
        store.stop()


def _do(store: Store, work: Callable[[Connection], T]) -> T:
    async def run() -> T:
        return await store.transact("a key", work)

    return asyncio.run(run())


def _find(keyring: Keyring, said: str) -> Key:
    """Return the key with an id, or the newest of a name. Raises `StoreError`."""
    found = [k for k in keyring.shown() if said in (k.id, k.name)]
    if not found:
        raise StoreError(f"no key has the id or name {said!r}; `fairlead key list` shows them")
    return found[-1]


def _tell(issued: IssuedKey) -> None:
    print(f"key (shown this once): {issued.key}\n\n{issued.id}  {issued.name}")


def _actor() -> Actor:
    from fairlead.gateway.keys import Actor

    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return Actor(who=f"cli:{user}")


def _budget(text: str) -> dict[str, Any]:
    usd, _, period = text.partition("/")
    try:
        return {"usd": float(usd), "period": period}
    except ValueError as e:
        raise ConfigError(f"{text!r} is no budget; write 20/month", path="--budget") from e
