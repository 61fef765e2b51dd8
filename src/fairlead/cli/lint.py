"""`fairlead lint`: prove things about a config's rules and guards, or see how often they fire."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.lint import Finding, Report
    from fairlead.lint.fuzz import Fired, Fuzzed

SHOWN = 10
"""So many findings of one kind are printed; ``--json`` has all."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "lint",
        help="prove things about a config's rules and guards before they run",
        description="Find rules and guards that can never hold, never decide or contradict each other, inputs that nothing covers, and what "
        "guards take away from rules; each with values of signals that show it. Exit code 0: none, notes apart; 1: warnings or "
        "errors; 2: the config cannot be read.",
    )
    parser.add_argument("config", nargs="?", default="fairlead.yaml", help="config file (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--fuzz",
        metavar="TABLE",
        help="also count on the prompts of a table (.parquet, .csv, .jsonl; column prompt or text)",
    )
    parser.add_argument(
        "--limit", type=int, default=None, metavar="N", help="with --fuzz: read the first N prompts only"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Lint, print, and return the exit code."""
    import msgspec

    from fairlead.errors import FairleadError
    from fairlead.lint import Finding, Report, lint
    from fairlead.lint.fuzz import fuzz, prompts
    from fairlead.lint.mistakes import read

    try:
        config, mistakes, complete = read(args.config)
    except FairleadError as e:
        print(f"fairlead: {e}", file=sys.stderr)
        return 2
    fuzzed: list[Fuzzed] = []
    if config is None:
        found = [Finding(level="error", kind="config", message=e.message, path=e.path) for e in mistakes]
        report = Report(findings=tuple(found))
    else:
        report = lint(config)
        if args.fuzz:
            queries = list(prompts(args.fuzz, limit=args.limit))
            fuzzed = [fuzz(config, route, queries) for route in config.policies]
    if args.json:
        everything = msgspec.structs.asdict(report) | ({"fuzz": fuzzed} if args.fuzz else {})
        print(msgspec.json.format(msgspec.json.encode(everything), indent=2).decode())
    else:
        for line in (
            *_lines(report, read=config is not None, complete=complete),
            *(x for f in fuzzed for x in _counted(f)),
        ):
            print(line)
    if config is None and not complete:
        return 2
    return 0 if report.clean else 1


def _lines(report: Report, *, read: bool, complete: bool) -> Iterator[str]:
    kinds: Counter[str] = Counter()
    for finding in report.findings:
        kinds[finding.kind] += 1
        if kinds[finding.kind] <= SHOWN:
            yield from _finding(finding)
    for kind, n in kinds.items():
        if n > SHOWN:
            yield f"… and {n - SHOWN} more of kind {kind} (--json shows all)"
    if not read:
        rest = "" if complete else "; what else is wrong shows when the last one is mended"
        yield f"nothing was proved: mend {'this' if len(report.findings) == 1 else 'these'} first{rest}"
        return
    for said in report.proved:
        yield f"proved: {said}"
    levels = Counter(f.level for f in report.findings)
    counted = ", ".join(f"{levels[x]} {x}{'s' * (levels[x] != 1)}" for x in ("error", "warning", "note") if levels[x])
    yield f"{report.rules} rules, {report.guards} guards: {counted or 'nothing found'}; {report.seconds:.2f} s"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"{finding.level}: {finding.path}: {finding.message}"
    if finding.witness is not None:
        yield f"    witness: {', '.join(f'{key}={_value(value)}' for key, value in finding.witness.items()) or 'any query'}"


def _value(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}"
        case str():
            return repr(value)
    return str(value)


def _counted(fuzzed: Fuzzed) -> Iterator[str]:
    yield f"route {fuzzed.route}, {fuzzed.prompts} prompts"
    for fired in fuzzed.guards:
        yield "  guard " + _fired(fired, fuzzed.prompts)
    for path, rules in fuzzed.rules.items():
        if len(fuzzed.rules) > 1:
            yield f"  {path}"
        for fired in rules:
            yield "  rule " + _fired(fired, fuzzed.prompts)
        pairs = fuzzed.overlaps[path]
        for a, b, n, example in pairs[:SHOWN]:
            yield f"  {a} and {b} both hold on {n}, such as {example}"
        if len(pairs) > SHOWN:
            yield f"  … and {len(pairs) - SHOWN} more pairs (--json shows all)"
    for cost in fuzzed.signals:
        yield f"  signal {cost.signal}: {cost.mean_us:.0f} us on average, {cost.worst_us:.0f} at most"


def _fired(fired: Fired, prompts: int) -> str:
    said = [f"{fired.name}: holds on {fired.holds} ({fired.holds / prompts:.1%})"]
    said += [
        f"{n} {what}"
        for n, what in ((fired.decides, "decided"), (fired.passed_over, "passed over"), (fired.refuses, "refused"))
        if n
    ]
    return ", ".join(said) + (f"; such as {fired.example}" if fired.example else "")
