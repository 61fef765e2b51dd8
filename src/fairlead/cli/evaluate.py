"""`fairlead evaluate`: estimate from a log what another policy would have brought."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead import config
from fairlead.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from fairlead.bench.off_policy import Answer, Evaluation, Log
    from fairlead.objective import Objective
    from fairlead.policies.base import Policy
    from fairlead.types import Target

UNITS = {"usd": "USD", "seconds": "s", "joules": "J"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "evaluate",
        help="estimate from a log what another policy would have brought",
        description="Off-policy evaluation: mean quality, cost, time and utility of a policy that did not serve, from decisions with "
        "recorded probabilities and judged answers, with intervals. Refuses, with exit code 1, where the log cannot answer.",
    )
    add = parser.add_argument
    add(
        "--log",
        required=True,
        metavar="FILE",
        help="a store, or a table (.parquet, .csv, .jsonl) with a propensity column",
    )
    add(
        "--policy",
        metavar="FILE",
        help="config file, YAML file with one policy, or the policy itself, such as '{type: random}'",
    )
    add("--shadow", action="store_true", help="evaluate what a shadow policy proposed, as recorded")
    add(
        "--route",
        default="auto",
        help="whose decisions count, and which policy of a config file (default: %(default)s)",
    )
    add("--objective", metavar="YAML", help="such as '{usd_weight: 10}' (default: the policy's own)")
    add(
        "--forecast",
        default="mean",
        metavar="NAME",
        help="predictor behind dm, dr and switch (default: each option's %(default)s)",
    )
    add("--interval", default="normal", choices=("normal", "bootstrap", "bernstein"), help="default: %(default)s")
    add(
        "--fallbacks",
        default="credit",
        choices=("credit", "leave-out"),
        help="whom fallbacks count for (default: %(default)s the decision)",
    )
    add("--propensity", default="propensity", metavar="COLUMN", help="column of a table (default: %(default)s)")
    add("--least-ess", type=float, default=50.0, help="refuse below this effective sample size (default: %(default)g)")
    add(
        "--unsupported",
        type=float,
        default=0.05,
        help="refuse beyond this share without overlap (default: %(default)g)",
    )
    add(
        "--gap",
        type=float,
        default=0.2,
        help="refuse if judged shares of options differ by more (default: %(default)g)",
    )
    add("--seed", type=int, default=0, help="of folds and bootstrap (default: %(default)s)")
    add("--json", action="store_true", help="print all of it as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the estimates, or why there are none: then 1."""
    import msgspec
    import yaml

    from fairlead.bench.decision_log import forecasts
    from fairlead.bench.off_policy import Rules, evaluate
    from fairlead.build import convert
    from fairlead.objective import Objective

    if args.shadow == (args.policy is not None):
        raise ConfigError("give either --policy FILE or --shadow")
    policy, targets = (None, None) if args.policy is None else read_policy(args.policy, args.route)
    objective: Objective | None = None if policy is None else policy.objective
    if args.objective is not None:
        objective = convert(yaml.safe_load(args.objective), Objective, path="--objective")
    log = _log(args, policy, targets)
    found = evaluate(
        log,
        objective=objective,
        forecasts=None if args.forecast == "mean" else forecasts(log, args.forecast, seed=args.seed),
        interval=args.interval,
        rules=Rules(ess=args.least_ess, unsupported=args.unsupported, known_gap=args.gap),
        seed=args.seed,
    )
    print(json.dumps(msgspec.to_builtins(found), indent=2) if args.json else "\n".join(told(found)))
    return int(found.refusal is not None or found["quality"].refusal is not None)


def read_policy(named: str, route: str) -> tuple[Policy, tuple[Target, ...] | None]:
    """Read a policy, and the targets that it would serve with (None: those of the log).

    Args:
        named: a config file, a YAML file that holds one policy, or the policy itself as YAML.
        route: whose policy, in a config file.

    Raises:
        ConfigError: with the path of what is wrong.
        UnknownName: if the config has no such route.
    """
    from fairlead.build import build

    path = Path(named)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise ConfigError(f"cannot read {named}: no such file")
        return build("policies", config.parse(named, name="--policy"), path="--policy"), None
    data = config.parse(path.read_text("utf-8"), name=named)
    if isinstance(data, dict) and {"targets", "routes"} & data.keys():
        read = config.load(path)
        if route not in read.policies:
            raise UnknownName("route", route, read.policies)
        return read.policies[route], tuple(d.target for d in read.drivers.values())
    if isinstance(data, dict) and data.keys() == {"policy"}:
        data = data["policy"]
    return build("policies", data, path="$"), None


def _log(args: argparse.Namespace, policy: Policy | None, targets: tuple[Target, ...] | None) -> Log:
    from fairlead.bench.decision_log import Asked, Shadowed, from_store, from_table
    from fairlead.sqlstore import kept_at
    from fairlead.table import OutcomeTable

    if Path(args.log).suffix.lower() in (".parquet", ".pq", ".csv", ".jsonl", ".ndjson"):
        if policy is None:
            raise ConfigError("a table holds no shadow proposals; give --policy")
        return from_table(OutcomeTable.read(args.log), policy, targets=targets or (), column=args.propensity)
    store = kept_at(args.log, read_only=True)
    store.start()
    try:
        new = Shadowed() if policy is None else Asked(policy, store, targets=targets)
        return from_store(
            store, new, route=args.route, fallbacks=args.fallbacks, source=f"{args.log}, route {args.route}"
        )
    finally:
        store.stop()


def told(found: Evaluation) -> list[str]:
    """Tell an evaluation in lines."""
    out = [f"{found.source}: {found.decisions:,} decisions in {found.groups:,} groups"]
    out += [f"  left out: {n:,} {why}" for why, n in found.left_out.items()]
    out += [f"  {note}" for note in found.notes]
    out.append(
        f"the new policy repeats a logged choice with probability {found.agreement:.2f}; mean weight {found.mean_weight:.2f} (about 1 is "
        "right)"
    )
    width = max(len(o.action) for o in found.overlap)
    for o in found.overlap:
        if o.new > 0.0005 or o.logged > 0.0005:
            thin = f", {o.unsupported:.1%} where the log never goes" if o.unsupported else ""
            thin += f", {o.rare:.1%} where it hardly goes" if o.rare else ""
            out.append(f"  {o.action:<{width}}  new {o.new:6.1%}, logged {o.logged:6.1%}, chosen {o.chosen:,}{thin}")
    if found.refusal is not None:
        return [*out, f"REFUSED  {found.refusal}"]
    for answer in found.answers:
        out += _answer(answer, found)
    return out


def _answer(a: Answer, found: Evaluation) -> list[str]:
    unit = UNITS.get(a.what, "")
    head = f"{a.what}{f' ({unit})' if unit else ''}: known of {a.known:,} of {found.decisions:,}, effective sample size {a.ess:,.0f}, heaviest {a.largest:.1%}"
    out = ["", head]
    if a.logged is not None:
        out.append(f"  logged  {a.logged.value:.5g} [{a.logged.low:.5g}, {a.logged.high:.5g}]")
    if a.refusal is not None:
        return [*out, f"  REFUSED  {a.refusal}"]
    for e in a.estimates:
        off = f"  may be off by {e.bias:.3g}, counted in" if e.bias else ""
        off = "  holds only if the forecast is right" if e.method == "dm" else off
        out.append(
            f"  {e.method:<6}  {e.value.value:.5g} [{e.value.low:.5g}, {e.value.high:.5g}]"
            f"  gain {e.gain.value:+.5g} [{e.gain.low:+.5g}, {e.gain.high:+.5g}]{off}"
        )
    return [*out, f"  intervals: {found.interval}, {found.level:.0%}"] if a is found.answers[-1] else out
