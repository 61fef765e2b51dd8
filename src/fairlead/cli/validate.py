"""`fairlead validate`: check a config without starting anything."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from math import inf
from typing import Any

from fairlead import config, profiles
from fairlead.conditions import All, AnyOf, Condition, Not, Test
from fairlead.errors import ConfigError
from fairlead.gateway.door import Door
from fairlead.guards import Guard
from fairlead.plans.base import name_of
from fairlead.policies.base import Policy
from fairlead.policies.promise import Promise
from fairlead.policies.rules import Rules
from fairlead.secret import Secret
from fairlead.signals.base import Range
from fairlead.spending import limit_of
from fairlead.types import Plan


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("validate", help="check a config without starting anything")
    parser.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print ``ok``, a summary and warnings; a wrong key is raised as a `ConfigError` with its path."""
    read = config.load(args.config)
    if read.gateway.strongest is not None and read.gateway.strongest not in read.drivers:
        raise ConfigError(f"no target is called {read.gateway.strongest!r}", path="$.gateway.strongest")
    own = read.gateway
    Door(keys=own.keys, host=own.host, admin_keys=own.admin_keys, limits=own.limits)
    print(f"ok: {args.config}, config {read.digest}")
    known = profiles.load(read.file.profiles)
    for name, driver in read.drivers.items():
        p = driver.profile
        entry = profiles.entry_of(read.file.targets[name], known)
        told = "" if entry is None else f" (catalogue of profiles, as of {entry.as_of or 'an unknown day'})"
        price = (
            "price unknown"
            if p.input_usd_per_mtok is None or p.output_usd_per_mtok is None
            else f"{p.input_usd_per_mtok:g} / {p.output_usd_per_mtok:g} USD per million tokens in / out"
        )
        print(f"  target {name}: {driver.type_name()}, {price}{told}")
    for name, policy in read.policies.items():
        needs = f", reads {', '.join(policy.needs)}" if policy.needs else ""
        runs = [name_of(v) for _, part in policy.walk() for v in vars(part).values() if isinstance(v, Plan)]
        print(f"  route {name}: {policy.type_name()}{''.join(f', runs {plan}' for plan in runs)}{needs}")
    for where, found in (("every route", read.guards), *((f"route {r}", g) for r, g in read.route_guards.items())):
        for guard in found:
            print(f"  guard {guard.name} of {where}: {_does(guard)}")
    print(f"  store {read.file.store.where}")
    keys = len(read.gateway.keys)
    print(
        f"  gateway {read.gateway.host}:{read.gateway.port}, {keys or 'no'} key{'' if keys == 1 else 's'} in this file "
        "(`fairlead key list` shows those of the store too)"
    )
    for warning in (*unset(read), *missing(read), *unpriced(read), *unkept(read), *dead(read)):
        print(f"warning: {warning}")
    return 0


def _does(guard: Guard) -> str:
    does = [] if guard.only is None else [f"only {', '.join(guard.only)}"]
    does += [f"never {', '.join(guard.never)}"] if guard.never else []
    does += [f"does {', '.join(guard.do)}"] if guard.do else []
    reads = dict.fromkeys(key.partition(".")[0] for key in guard.keys)
    return "; ".join(does) + (f"; reads {', '.join(reads)}" if reads else "; always")


def unset(read: config.Config) -> Iterator[str]:
    """Warn of environment variables that targets need and that are not set here; the gateway would not start."""
    needed: dict[str, list[str]] = {}
    for name, driver in read.drivers.items():
        if driver.remote:
            for variable in dict.fromkeys(_variables(driver.params())):
                needed.setdefault(variable, []).append(name)
    for variable in re.findall(r"\$\{(\w+)\}", read.file.store.url or ""):
        needed.setdefault(variable, []).append("the store")
    redis = read.gateway.redis
    for variable in re.findall(r"\$\{(\w+)\}", (redis and redis.password) or ""):
        needed.setdefault(variable, []).append("what gateways share")
    for variable, names in needed.items():
        if not os.environ.get(variable, "").strip():
            yield f"the environment variable {variable} is not set here; {', '.join(names)} cannot start without it"


def missing(read: config.Config) -> Iterator[str]:
    """Warn of packages that are not installed here; the gateway would not start."""
    needed: dict[tuple[str, str], list[str]] = {}
    for name, driver in read.drivers.items():
        if driver.extra is not None:
            needed.setdefault(driver.extra, []).append(f"target {name}")
    if read.file.store.url is not None:
        needed[("psycopg", "postgres")] = ["the store"]
    if read.gateway.redis is not None:
        needed[("redis", "redis")] = ["what gateways share"]
    if read.gateway.telemetry is not None:
        needed[("opentelemetry.sdk", "otel")] = ["gateway.telemetry"]
    for (module, extra), whose in needed.items():
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:  # of a package that it would be in
            found = False
        if not found:
            yield f"{module} is not installed here; {', '.join(whose)} cannot start without it: pip install 'fairlead[{extra}]'"


def unpriced(read: config.Config) -> Iterator[str]:
    """Warn of routes that weigh a cost which is not known."""
    profiles = {name: driver.profile for name, driver in read.drivers.items()}
    unknown = [n for n, p in profiles.items() if p.input_usd_per_mtok is None or p.output_usd_per_mtok is None]
    for route, policy in read.policies.items() if unknown else ():
        weighs = [p.objective for _, p in policy.walk() if isinstance(p, Policy) and p.objective is not None]
        counted = [o.unknown for o in weighs if o.usd_weight]
        if counted:
            yield (
                f"route {route} weighs USD, and no price is known for {', '.join(unknown)}: for what an answer of theirs costs, "
                f"{min(counted):g} is taken off its utility (`unknown` of the objective){'' if min(counted) else ', so they look free'}; write their prices into the profile"
            )


def unkept(read: config.Config) -> Iterator[str]:
    """Warn of promises that were not calibrated, and of targets that a budget leaves out since their price is not known."""
    profiles = {name: driver.profile for name, driver in read.drivers.items()}
    unknown = [n for n, p in profiles.items() if p.input_usd_per_mtok is None or p.output_usd_per_mtok is None]
    for route, policy in read.policies.items():
        if unknown and limit_of(policy) is not None:
            yield f"route {route} has a budget, and no price is known for {', '.join(unknown)}: they will never be asked there"
        for _, part in policy.walk():
            if isinstance(part, Promise) and not part.reference_:
                yield f"route {route} holds a promise that was not calibrated, and saves nothing: run `fairlead calibrate`"


def dead(read: config.Config) -> Iterator[str]:
    """Warn of tests in guards and rules that can never hold, or hardly ever: a guard that never holds protects nobody."""
    places = [(f"guard {g.name}", g.when) for g in read.guards]
    places += [(f"guard {g.name} of route {r}", g.when) for r, own in read.route_guards.items() for g in own]
    for route, policy in read.policies.items():
        for _, found in policy.walk():
            if isinstance(found, Rules):
                places += [(f"rule {rule.name} of route {route}", rule.when) for rule in found.parsed]
    for place, condition in places:
        for test in () if condition is None else _tests(condition):
            name, _, part = test.key.partition(".")
            allowed = read.signals[name].ranges().get(part or "value")
            why = None if allowed is None else _never(test, allowed)
            if why is not None:
                yield f"{place}: {test.key} {test.op} {json.dumps(test.value)} {why}; `fairlead lint` tells more"


def _tests(condition: Condition) -> Iterator[Test]:
    match condition:
        case Test():
            yield condition
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from _tests(part)
        case Not(part):
            yield from _tests(part)


def _never(test: Test, allowed: Range) -> str | None:
    """Say why a test never holds; None if it may."""
    value, numeric = test.value, allowed.kind in ("int", "number")
    low, high = -inf if allowed.low is None else allowed.low, inf if allowed.high is None else allowed.high
    match test.op:
        case "gt" | "ge" | "lt" | "le" if not numeric:
            return f"compares numbers, and {test.key} is a {allowed.kind}"
        case "gt" | "ge" if value > high or (test.op == "gt" and value == high):
            return f"never holds: {test.key} is at most {high:g}"
        case "lt" | "le" if value < low or (test.op == "lt" and value == low):
            return f"never holds: {test.key} is at least {low:g}"
        case "eq" if value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(value, bool) != (allowed.kind == "bool") or number != numeric:
                return f"never holds: {test.key} is a {allowed.kind}"
            if allowed.among is not None and value not in allowed.among:
                return f"never holds: {test.key} is one of {', '.join(allowed.among)}"
            if numeric and not low <= value <= high:
                return f"never holds: {test.key} lies between {low:g} and {high:g}"
            if allowed.kind == "number":
                return "holds for exactly that number; {ge: …} or {le: …} is more likely meant"
    return None


def _variables(value: Any) -> Iterator[str]:
    match value:
        case str():
            try:
                yield Secret(value).name
            except ConfigError:
                return
        case dict():
            for inner in value.values():
                yield from _variables(inner)
