"""What others keep, shown in the metrics: read when somebody scrapes, in a thread.

A reload swaps the router, so each is looked up anew.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from fairlead.gateway.keys import accounts_of
from fairlead.ledger import Account
from fairlead.sqlstore import SQLStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairlead.gateway.app import Gateway

MOST_BUDGETS: Final = 200
"""Budgets that are shown, so that labels stay bounded whoever sets teams up."""
_BREAKERS: Final = {"closed": 0.0, "half open": 1.0, "open": 2.0}


def watch(gateway: Gateway) -> None:
    """Show what a gateway's router, store and telemetry keep."""
    show, store = gateway.metrics.watch, gateway.router.store
    show("fairlead_in_flight", "Requests for answers under way.", lambda: gateway.in_flight)

    def breakers() -> Iterator[tuple[tuple[str, ...], float]]:
        pool = gateway.router.pool
        return (((t.name,), _BREAKERS[pool.health.state(t.name)]) for t in pool)

    def resting() -> Iterator[tuple[tuple[str, ...], float]]:
        pool = gateway.router.pool
        return (((t.name,), pool.health.resting(t.name)) for t in pool)

    show("fairlead_breaker_state", "Breaker of a target: 0 closed, 1 half open, 2 open.", breakers, labels=("target",))
    show("fairlead_resting_seconds", "How long a target will rest yet.", resting, labels=("target",))

    def line(which: int) -> list[tuple[tuple[str, ...], float]]:
        router = gateway.router
        lanes = router.world.lanes
        if lanes is None:
            return []
        limited = [t.name for t in router.pool if t.profile.concurrent is not None]
        return [((name,), float(lanes.under_way(name)[which])) for name in limited]

    show("fairlead_queue_busy", "Calls under way, of targets with a limit.", lambda: line(0), labels=("target",))
    show(
        "fairlead_queue_waiting",
        "Calls that wait for their turn at a target with a limit.",
        lambda: line(1),
        labels=("target",),
    )

    show("fairlead_learned_total", "Judged answers learned.", lambda: gateway.router.learner.learned, kind="counter")
    show(
        "fairlead_quarantined_total",
        "Judged answers that did harm and were not learned.",
        lambda: gateway.router.learner.quarantined,
        kind="counter",
    )
    show(
        "fairlead_learning_failures_total",
        "Judged answers that could not be learned when they came.",
        lambda: gateway.router.learner.failed,
        kind="counter",
    )

    def versions() -> list[tuple[tuple[str, ...], float]]:
        router = gateway.router
        return [((r,), float(s.version)) for r in router.policies if (s := router.serving.get(r)) is not None]

    show("fairlead_policy_version", "The learned version that serves a route.", versions, labels=("route",))

    def leads() -> float:
        replica = gateway.router.replica
        return 1.0 if replica is None or replica.leads else 0.0

    show("fairlead_leader", "1 for the process that learns.", leads)
    show("fairlead_config_reloads_total", "Configs that took another's place.", lambda: gateway.reloads, kind="counter")

    show(
        "fairlead_budget_spent_usd",
        "Spend of the present period, of routes and teams.",
        lambda: _spent(gateway),
        labels=_BUDGET,
        alone=True,
    )
    show(
        "fairlead_budget_limit_usd",
        "Budget of the present period.",
        lambda: [(labels, limit) for labels, limit, _ in _budgets(gateway)],
        labels=_BUDGET,
        alone=True,
    )
    show(
        "fairlead_routed_usd_total",
        "Spend on routed answers whose price is known.",
        lambda: gateway.stats.since_start()[0],
        kind="counter",
    )
    show(
        "fairlead_strongest_usd_total",
        "What the strongest target would have cost for the same answers.",
        lambda: gateway.stats.since_start()[1],
        kind="counter",
    )

    if isinstance(store, SQLStore):
        show("fairlead_store_up", "1 if the database was there when it was last written to.", lambda: float(store.up))
        show(
            "fairlead_store_failures_total",
            "What the store could not write.",
            lambda: store.failures,
            kind="counter",
        )
        show("fairlead_store_commits_total", "Transactions of the store.", lambda: store.commits, kind="counter")
        show(
            "fairlead_store_spooled_total",
            "What was kept in a file while the database was gone.",
            lambda: store.spooled,
            kind="counter",
        )
        show("fairlead_store_spool_bytes", "Bytes that wait in files for the database.", lambda: store.spool_bytes)

    redis = gateway.redis
    if redis is not None:
        show("fairlead_redis_up", "1 if limits and breakers are shared through Redis now.", lambda: float(redis.up))
        show(
            "fairlead_redis_failures_total",
            "Questions to Redis without an answer.",
            lambda: redis.failures,
            kind="counter",
        )

    telemetry = gateway.telemetry
    if telemetry is not None:
        show(
            "fairlead_telemetry_exported_total",
            "Requests that the collector was told of.",
            lambda: telemetry.exported,
            kind="counter",
        )
        show(
            "fairlead_telemetry_dropped_total",
            "Requests that the collector was not told of: too many waited, or it did not take them.",
            lambda: telemetry.dropped + telemetry.failed,
            kind="counter",
        )


_BUDGET: Final = ("account", "period")


def _budgets(gateway: Gateway) -> list[tuple[tuple[str, str], float, Account | None]]:
    """Return (labels, limit in USD, the account in the ledger, if it is kept there) of routes and teams."""
    router, found = gateway.router, list[tuple[tuple[str, str], float, Account | None]]()
    for route, limit in router.spending.limits.items():
        account = next(iter(router.own_account(route)), None)
        found.append(((f"route:{route}", f"{limit.seconds:g}s"), limit.usd, account))
    for scope, means in sorted(gateway.door.keyring.scopes.items()):
        if scope.startswith("team:"):
            found += [((scope, a.period), a.limit / 1e6, a) for a in accounts_of(scope, means.budgets)]
    return found[:MOST_BUDGETS]


def _spent(gateway: Gateway) -> list[tuple[tuple[str, ...], float]]:
    """Read what of them is spent: in the ledger by all processes, else by this one. Raises `StoreError`."""
    router, now = gateway.router, time.time()
    budgets = _budgets(gateway)
    accounts = [a for _, _, a in budgets if a is not None]
    kept: dict[tuple[str, str], float] = {}
    if accounts:
        marks = ", ".join("?" * len(accounts))
        rows = router.store.rows(
            f"SELECT name, period, spent FROM ledger_accounts WHERE ends > ? AND name IN ({marks})",
            (now, *(a.name for a in accounts)),
        )
        kept = {(str(name), str(period)): float(spent) for name, period, spent in rows}
    out: list[tuple[tuple[str, ...], float]] = []
    for labels, _, account in budgets:
        if account is not None:
            spent = kept.get((account.name, account.window(now)[0]), 0.0) / 1e6
        else:
            spent = router.spending.gone(labels[0].removeprefix("route:"), now)
        out.append((labels, spent))
    return out
