"""`fairlead route`: decide one prompt and say why, without calling anybody."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from fairlead import config
from fairlead.config import StoreConfig
from fairlead.errors import UnknownName
from fairlead.explain import explain
from fairlead.router import Router, Serving
from fairlead.types import Query


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "route",
        help="decide one prompt and say why, without calling anybody",
        description="Decide with what the route has learned so far, if its store is there. Nothing is called and nothing is kept.",
    )
    parser.add_argument("named", nargs="?", metavar="CONFIG", help="config file (default: that of --config)")
    parser.add_argument("prompt", metavar="PROMPT", help="the user's message")
    parser.add_argument("--config", default="fairlead.yaml", metavar="FILE", help="config file (default: %(default)s)")
    parser.add_argument("--route", default="auto", help="the route (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the decision."""
    read = config.load(args.config if args.named is None else args.named)
    if args.route not in read.policies:
        raise UnknownName("route", args.route, read.policies)
    router = read.router()
    router.serving[args.route] = _learned(router, args.route, read.file.store)
    query = msgspec.structs.replace(Query.ask(args.prompt), route=args.route)
    signals = router.observe(query)
    told = explain(query, signals, router.decide(query, signals))
    print(json.dumps(told, indent=2, ensure_ascii=False, default=list) if args.json else _words(told))
    return 0


def _learned(router: Router, route: str, store: StoreConfig) -> Serving:
    """Return what a gateway would serve; as configured if nothing was learned."""
    if store.url is not None or Path(store.path).exists():
        router.store = store.make(read_only=True)
        resumed = router.resume(route)
        if resumed is not None:
            return resumed
    policy = router.policies[route]
    return Serving(policy=policy, version=0, digest=policy.digest())


def _words(told: dict[str, Any]) -> str:
    lines = [
        f"{told['policy']} version {told['version']} chooses {told['chosen']} (propensity {told['propensity']:.3f})"
    ]
    lines += [f"  guard {name} holds" for name in told["guards"]]
    lines += [f"  rule {told['rule']} decides"] if told["rule"] else []
    lines += [f"  before anybody is asked: {', '.join(told['actions'])}"] if told["actions"] else []
    width = max(len(o["target"]) for o in told["options"])
    for option in told["options"]:
        forecast = option["forecast"] or {}
        said = (
            f"  {told['forecast_of']} {forecast['quality']:.3f} ± {forecast.get('quality_sd', 0.0):.3f}"
            if forecast
            else ""
        )
        if forecast.get("usd") is not None:
            said += f"  {forecast['usd']:.6f} USD"
        mark = ">" if option["chosen"] else " "
        lines.append(f"{mark} {option['target']:<{width}}  probability {option['probability']:.3f}{said}")
    for title, key in (("why", "reasons"), ("what would change it", "what_would_change_it")):
        if told[key]:
            lines += [f"{title}:", *(f"  {line}" for line in told[key])]
    return "\n".join(lines)
