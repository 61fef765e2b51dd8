"""``fairlead arena``: write, check and score submissions to RouterArena."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fairlead.errors import ConfigError, TableError, UnknownName

if TYPE_CHECKING:
    from fairlead.bench.arena import Figures, Question, Score


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "arena",
        help="write, check and score submissions to RouterArena",
        description="RouterArena compares routers on its own queries. It is for evaluation alone: nothing here learns from them.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    export = actions.add_parser("export", help="decide each of the arena's queries and write the submission's files")
    add = export.add_argument
    add("queries", metavar="QUERIES", help="the arena's queries (JSON: `global index`, `prompt_formatted` or `prompt`)")
    add("--name", required=True, help="the router's name there")
    add("--trained", metavar="DIR", help="decide by a predictor that `fairlead train` wrote")
    add(
        "--usd-weight",
        type=float,
        default=0.0,
        help="with --trained: quality that a dollar is worth (default: %(default)g)",
    )
    add("--config", metavar="FILE", help="decide by a route of this config, with what it has learned so far")
    add("--route", default="auto", help="with --config (default: %(default)s)")
    add("--rename", metavar="TARGET=MODEL", action="append", default=[], help="what the arena calls a target (repeat)")
    add("--robustness", metavar="FILE", help="the arena's reworded queries: also write the robustness file")
    add("--optimality", metavar="FILE", help="its sub_10 queries: also ask for the answers of the pool's other models")
    add("-o", "--output", required=True, metavar="DIR", help="the folder to write config/ and predictions/ to")
    export.set_defaults(func=run_export)

    check = actions.add_parser("check", help="say what is wrong with a prediction file")
    add = check.add_argument
    add("predictions", metavar="PREDICTIONS", help="predictions/NAME.json or predictions/NAME-robustness.json")
    add("--config", metavar="FILE", help="the submission's config/NAME.json: every choice must be one of its models")
    add("--queries", metavar="FILE", help="the arena's queries: every index and prompt must be theirs")
    add("--split", choices=["sub_10", "full", "robustness"], help="how many entries there must be")
    add("--answered", action="store_true", help="also look at the answers, costs and accuracies")
    check.set_defaults(func=run_check)

    score = actions.add_parser("score", help="score a prediction file that has accuracies and costs")
    add = score.add_argument
    add("predictions", metavar="PREDICTIONS", help="predictions/NAME.json, judged and priced")
    add("--robustness", metavar="FILE", help="predictions/NAME-robustness.json")
    add("--optimality", metavar="FILE", help="the sub_10 queries (default: those with entries for optimality)")
    add("--json", action="store_true", help="print everything as JSON")
    score.set_defaults(func=run_score)


def run_export(args: argparse.Namespace) -> int:
    """Decide and write."""
    from fairlead.bench import arena

    asked = arena.questions(arena.read(args.queries), source=args.queries)
    reworded = arena.questions(arena.read(args.robustness), source=args.robustness) if args.robustness else []
    named = dict(_pair(p) for p in args.rename)
    if (args.trained is None) == (args.config is None):
        raise ConfigError("say who decides: --trained DIR or --config FILE")
    if args.trained is not None:
        targets, decide = _by_predictor(args.trained, args.usd_weight, [*asked, *reworded])
    else:
        targets, decide = _by_route(args.config, args.route)
    for target in named:
        if target not in targets:
            raise UnknownName("target", target, targets)
    models = [named.get(t, t) for t in targets]

    def choose(question: Question) -> str:
        target = decide(question)
        return named.get(target, target)

    chosen = arena.export(asked, choose)
    entries = chosen
    if args.optimality:
        sub = arena.questions(arena.read(args.optimality), source=args.optimality)
        entries = [*chosen, *arena.others(chosen, models, (q.index for q in sub))]
    paths = arena.write(args.output, args.name, models, entries, arena.export(reworded, choose))
    shares = {m: sum(e.prediction == m for e in chosen) for m in models}
    print(f"{len(chosen):,} queries decided: " + ", ".join(f"{m} {n:,}" for m, n in shares.items() if n))
    for path in paths:
        print(path)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Print what is wrong; exit code 1 if anything is."""
    from fairlead.bench import arena

    entries = arena.read(args.predictions)
    wrong = arena.check(
        entries,
        models=arena.read_models(args.config) if args.config else None,
        asked=arena.questions(arena.read(args.queries), source=args.queries) if args.queries else None,
        split=args.split,
        answered=args.answered,
    )
    for line in wrong[:50]:
        print(f"WRONG  {line}")
    if wrong:
        print(f"{len(wrong)} things are wrong" + (", the first 50 are shown" if len(wrong) > 50 else ""))
        return 1
    print(f"ok  {len(entries):,} entries")
    return 0


def run_score(args: argparse.Namespace) -> int:
    """Print the figures."""
    import msgspec

    from fairlead.bench import arena

    sub = arena.questions(arena.read(args.optimality), source=args.optimality) if args.optimality else None
    found = arena.score(
        arena.read(args.predictions),
        reworded=arena.read(args.robustness) if args.robustness else None,
        optimality=None if sub is None else [q.index for q in sub],
    )
    print(json.dumps(msgspec.to_builtins(found), indent=2) if args.json else "\n".join(_told(found)))
    return 0


def _told(s: Score) -> list[str]:
    """Write the figures as lines of text."""
    lines = [
        f"{s.queries:,} queries, {s.failed:,} failed or not judged, {s.unpriced:,} without a cost",
        "",
        f"{'':<28}{'failed = wrong':>16}{'failed left out':>18}",
    ]

    def row(name: str, pick: Callable[[Figures], float | None]) -> str:
        cells = ["-" if (v := pick(f)) is None else f"{v:.4f}" for f in (s.counted, s.published)]
        return f"{name:<28}{cells[0]:>16}{cells[1]:>18}"

    lines += [
        row("arena score", lambda f: f.arena),
        row("accuracy", lambda f: f.accuracy),
        row("USD per 1,000 queries", lambda f: f.usd_per_1k),
    ]
    if s.counted.optimality_queries:
        lines += [
            row("Opt.Sel", lambda f: f.optimal_selection),
            row("Opt.Cost", lambda f: f.optimal_cost),
            row("Opt.Acc", lambda f: f.optimal_accuracy),
            f"  on {s.counted.optimality_queries:,} queries that some model of the pool answers rightly",
        ]
    else:
        lines.append("Opt.Sel, Opt.Cost, Opt.Acc: need the answers of the pool's other models (for_optimality)")
    if s.robustness is None:
        lines.append("robustness: needs the robustness file (--robustness)")
    else:
        lines.append(
            f"{'robustness':<28}{s.robustness:>16.4f}  over {s.robustness_queries:,} queries; a constant router has 1"
        )
    if s.pool:
        lines += ["", f"the pool, on {s.pool_queries:,} queries that every model answered:"]
        lines += [
            f"  {a.name:<26}accuracy {a.accuracy:.4f}  {a.usd_per_1k:>9.4f} USD per 1,000  arena {a.arena:.4f}"
            for a in s.pool
        ]
    return lines


def _by_predictor(folder: str, usd_weight: float, asked: list[Question]) -> tuple[list[str], Callable[[Question], str]]:
    """Decide by a trained predictor under the policy `utility`."""
    from fairlead.bench.evaluate import catalogued
    from fairlead.bench.training import load
    from fairlead.objective import Objective
    from fairlead.policies.utility import Utility
    from fairlead.pool import Pool
    from fairlead.table import prompt_hash
    from fairlead.types import Query, Target

    predictor, seen = load(folder)
    known = set(seen.prompts)
    both = [q.index for q in asked if prompt_hash(q.prompt) in known]
    if both:
        raise TableError(
            f"{len(both)} of the arena's queries were trained on by {folder} (such as {both[0]}): "
            "RouterArena is for evaluation alone; train without them"
        )
    policy = Utility(predictor=predictor, objective=Objective(usd_weight=usd_weight))
    observer, pool = catalogued(policy.needs), Pool(targets=[Target(name=t) for t in predictor.targets_])

    def decide(question: Question) -> str:
        query = Query.ask(question.prompt, id=question.index)
        return _only(policy.decide(query, observer.read(query, policy.needs), pool).plan.targets(), question)

    return list(predictor.targets_), decide


def _by_route(path: str, route: str) -> tuple[list[str], Callable[[Question], str]]:
    """Decide by a route as a gateway would serve it now."""
    import msgspec

    from fairlead import config
    from fairlead.cli.route import _learned
    from fairlead.types import Query

    read = config.load(path)
    if route not in read.policies:
        raise UnknownName("route", route, read.policies)
    router = read.router()
    router.serving[route] = _learned(router, route, read.file.store)

    def decide(question: Question) -> str:
        query = msgspec.structs.replace(Query.ask(question.prompt, id=question.index), route=route)
        return _only(router.decide(query, router.observe(query)).plan.targets(), question)

    return [t.name for t in router.pool], decide


def _only(targets: tuple[str, ...], question: Question) -> str:
    if len(targets) != 1:
        raise TableError(
            f"{question.index}: the plan may call {', '.join(targets)}, but the arena's files name one model for each query"
        )
    return targets[0]


def _pair(text: str) -> tuple[str, str]:
    target, equals, model = text.partition("=")
    if not equals or not target or not model:
        raise ConfigError(f"{text!r} is not TARGET=MODEL", path="--rename")
    return target, model
