"""`fairlead route`: decide one prompt and say why, without calling anybody."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from fairlead import config
from fairlead.errors import UnknownName
from fairlead.explain import explain
from fairlead.policies.base import Policy
from fairlead.router import BEGIN
from fairlead.sqlite import SQLiteStore
from fairlead.types import Query


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "route",
        help="decide one prompt and say why, without calling anybody",
        description="Decide with what the route has learned so far, if its store is there. Nothing is called and nothing is kept.",
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("prompt", help="the user's message")
    parser.add_argument("--route", default="auto", help="the route (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the decision."""
    read = config.load(args.config)
    if args.route not in read.policies:
        raise UnknownName("route", args.route, read.policies)
    router = read.router()
    policy, version = _learned(read, args.route)
    query = msgspec.structs.replace(Query.ask(args.prompt), route=args.route)
    signals = router.observer.read(query, policy.needs)
    decision = policy.decide(query, signals, router.pool, seed=read.file.seed)
    decision = msgspec.structs.replace(decision, version=version, policy_digest=policy.digest())
    told = explain(query, signals, decision, policy)
    print(json.dumps(told, indent=2, ensure_ascii=False, default=list) if args.json else _words(told))
    return 0


def _learned(read: config.Config, route: str) -> tuple[Policy, int]:
    """Return the route's policy and version as a gateway would take it up; as configured if it has learned nothing."""
    policy = read.policies[route]
    if not Path(read.file.store.path).exists():
        return policy, 0
    store = SQLiteStore(read.file.store.path, read_only=True)
    versions = store.versions(route)
    began = next((v for v in reversed(versions) if v.note == BEGIN), None)
    active = next((v for v in versions if v.active), None)
    if began is None or active is None or began.digest != policy.digest():
        return policy, 0
    policy.load(store.load_policy(active.digest)[1])
    return policy, active.version


def _words(told: dict[str, Any]) -> str:
    lines = [
        f"{told['policy']} version {told['version']} chooses {told['chosen']} (propensity {told['propensity']:.3f})"
    ]
    width = max(len(o["target"]) for o in told["options"])
    for option in told["options"]:
        forecast = option["forecast"] or {}
        said = f"  quality {forecast['quality']:.3f} ± {forecast.get('quality_sd', 0.0):.3f}" if forecast else ""
        if forecast.get("usd") is not None:
            said += f"  {forecast['usd']:.6f} USD"
        mark = ">" if option["chosen"] else " "
        lines.append(f"{mark} {option['target']:<{width}}  probability {option['probability']:.3f}{said}")
    for title, key in (("why", "reasons"), ("what would change it", "what_would_change_it")):
        if told[key]:
            lines += [f"{title}:", *(f"  {line}" for line in told[key])]
    return "\n".join(lines)
