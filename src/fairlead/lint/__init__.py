"""`fairlead lint`: what can be proved about a config's rules and guards before they run. After the static checks proposed for vLLM Semantic
Router (2026, arXiv 2603.04444): dead zones and conflicts; the rest is ours.

A finding comes with a *witness*, values of signals that show it; each is put to the rules and guards themselves before it is reported. What
is not found is proved not to be there, of all readings that the signals' `ranges` and `laws` allow (see `space`), and of targets that may
act: who is resting, too small for a query or left out by its asker is not known beforehand. A slow signal may be late. So may any
other, for one that breaks is: that no query is refused then is proved too, or told as kind ``late``; the rest is of signals in time.
"""

from __future__ import annotations

from time import perf_counter

from fairlead.config import Config
from fairlead.lint.findings import Finding, Kind, Level, Report
from fairlead.lint.routes import lint_route

__all__ = ["Finding", "Kind", "Level", "Report", "lint"]


def lint(config: Config) -> Report:
    """Prove what can be proved of every route's guards and rules.

    Raises:
        ConfigError: if z3 is not installed.
    """
    start = perf_counter()
    routes = [lint_route(route, config) for route in config.policies]
    # What is said of the guards of every request is said once, not once a route.
    seen: dict[tuple[str, str, str], Finding] = {}
    for linted in routes:
        for finding in linted.findings:
            seen.setdefault((finding.kind, finding.path, finding.message), finding)
    order = {"error": 0, "warning": 1, "note": 2}
    return Report(
        findings=tuple(sorted(seen.values(), key=lambda f: order[f.level])),
        proved=tuple(dict.fromkeys(said for linted in routes for said in linted.proved)),
        rules=sum(linted.rules for linted in routes),
        guards=len(config.guards) + sum(map(len, config.route_guards.values())),
        seconds=perf_counter() - start,
    )
