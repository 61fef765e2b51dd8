"""The page, and what it asks for: its figures and a search among decisions.

The page is one document, put together from `page.html`, `page.css` and `page.js` when the gateway starts; the browser may run nothing else.
With several workers the figures are those of all (`stats.SharedStats`), and say so in `covers`; what the store cannot tell of the others is left
out, and that is said too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fairlead import conditions
from fairlead.errors import StoreError
from fairlead.gateway.door import CALLER
from fairlead.gateway.metrics import Place
from fairlead.gateway.refusal import Refused, of_validation
from fairlead.gateway.search import Found, Sought, search
from fairlead.gateway.stats import Now, SharedStats, Told
from fairlead.policies.rules import Rules
from fairlead.version import VERSION

if TYPE_CHECKING:
    from fairlead.gateway.app import Gateway

log = logging.getLogger(__name__)

MOST_FOUND: Final = 200
LONGEST: Final = 200
"""Characters of what is searched for."""

Endpoint = tuple[str, str, Callable[[Request], Awaitable[Response]]]


class Page:
    """The page of one gateway.

    Args:
        gateway: whose.
        place: which worker this is, among several.
    """

    def __init__(self, gateway: Gateway, *, place: Place | None = None) -> None:
        self.gateway = gateway
        self.html, self.headers = document()
        self.shared: SharedStats | None = None
        if place is not None:
            self.shared = SharedStats(
                stats=lambda: gateway.stats,
                now=self.now,
                store=gateway.router.store,
                run=place.run,
                worker=place.worker,
            )

    def endpoints(self) -> list[Endpoint]:
        """Return method, path and handler of each."""
        return [
            ("GET", "/", self.page),
            ("GET", "/v1/stats", self.stats),
            ("GET", "/v1/decisions", self.decisions),
        ]

    async def page(self, _: Request) -> Response:
        """Send the page."""
        return Response(self.html, media_type="text/html; charset=utf-8", headers=self.headers)

    async def stats(self, request: Request) -> Response:
        """Send what the page shows: sums over all requests, and of single ones those that the caller's tenant may see."""
        tenant = _tenant(request)
        others: list[Told] = []
        covers: dict[str, Any] = {"workers": 1, "of": self.gateway.settings.workers, "whole": True}
        if self.shared is not None:
            try:
                others = await asyncio.to_thread(self.shared.others)
            except StoreError as e:
                log.warning("only this worker's figures are shown: %s", e)
                covers["whole"] = False
        now = self.now()
        nows = [now, *(told.now for told in others)]
        covers["workers"] = len(nows)
        shown = self.gateway.stats.show(others, now)
        sight = self.gateway.sight(request)
        if sight is not None:
            shown = sight.stats(shown)
        if tenant is not None:
            shown["recent"] = [row for row in shown["recent"] if row["tenant"] == tenant]
        router = self.gateway.router
        shown |= {
            "version": VERSION,
            "config": self.gateway.config_digest,
            "up_seconds": time.time() - self.gateway.began,
            "draining": sum(n.draining for n in nows),
            "traces": await asyncio.to_thread(router.store.count),
            "covers": covers | {"configs": len({n.config for n in nows if n.config} | {now.config})},
            "learned": sum(n.learned for n in nows),
            "quarantined": sum(n.quarantined for n in nows),
            "learning_failed": sum(n.failed for n in nows),
            "routes": [
                {
                    "name": name,
                    "policy": policy.type_name(),
                    "version": None if (serving := router.serving.get(name)) is None else serving.version,
                    "versions": sorted({n.serving[name] for n in nows if name in n.serving}),
                    "requests": shown["by_route"].get(name, 0),
                    **shown["of_routes"].get(name, {}),
                }
                for name, policy in router.policies.items()
                if sight is None or name in sight.models
            ],
            # How rules and guards are written, and what others may spend, is for operators: a tenant could steer by it.
            "rulebook": self.rulebook() if tenant is None and sight is None else None,
            "budgets": await asyncio.to_thread(self.budgets) if tenant is None and sight is None else [],
        }
        del shown["of_routes"]
        return _json(shown)

    def now(self) -> Now:
        """Say what this process does at the moment."""
        gateway, router = self.gateway, self.gateway.router
        health, lanes, learner = router.pool.health, router.world.lanes, router.learner
        return Now(
            in_flight=gateway.in_flight,
            config=gateway.config_digest,
            draining=gateway.draining,
            learned=learner.learned,
            quarantined=learner.quarantined,
            failed=learner.failed,
            leads=router.replica is None or router.replica.leads,
            serving={r: s.version for r in router.policies if (s := router.serving.get(r)) is not None},
            breakers={
                t.name: (health.state(t.name), health.resting(t.name), health.in_a_row.get(t.name, 0))
                for t in router.pool
                if t.name in health.in_a_row or t.name in health.rests_until
            },
            waiting={}
            if lanes is None
            else {t.name: lanes.under_way(t.name) for t in router.pool if t.profile.concurrent is not None},
        )

    def rulebook(self) -> dict[str, list[dict[str, Any]]]:
        """List guards and rules as they are in force, so that those that never held are seen too."""
        router = self.gateway.router
        guards: dict[str, dict[str, Any]] = {}
        for route in (None, *router.guards):
            held = router.house_guards if route is None else router.guards[route]
            for g in held.guards:
                guards.setdefault(
                    f"{g.name}\0{'' if g in router.house_guards.guards else route}",
                    {
                        "name": g.name,
                        "route": None if g in router.house_guards.guards else route,
                        "when": None if g.when is None else conditions.written(g.when),
                        "only": g.only,
                        "never": g.never,
                        "do": g.do,
                    },
                )
        rules = [
            {
                "route": route,
                "name": rule.name,
                "when": conditions.written(rule.when),
                "required": rule.required,
                "default": rule is part.otherwise,
            }
            for route, policy in router.policies.items()
            for _, part in policy.walk("$")
            if isinstance(part, Rules)
            for rule in (*part.parsed, part.otherwise)
        ]
        return {"guards": list(guards.values()), "rules": rules}

    def budgets(self) -> list[dict[str, Any]]:
        """Show what routes have spent of their own budgets in the present period. Blocks. Raises `StoreError`."""
        router, now, found = self.gateway.router, time.time(), []
        for route, limit in router.spending.limits.items():
            account = next(iter(router.own_account(route)), None)
            if account is not None and router.ledger is not None:
                spent = router.ledger.spent(account, now=now) / 1e6
            else:
                spent = router.spending.gone(route, now)
            ends = (math.floor(now / limit.seconds) + 1) * limit.seconds
            found.append({"route": route, "usd": limit.usd, "seconds": limit.seconds, "spent": spent, "ends": ends})
        return found

    async def decisions(self, request: Request) -> Response:
        """Search among the newest decisions that the caller may see."""
        asked = dict(request.query_params)
        limit, before = _whole(asked, "limit", 50, MOST_FOUND), _whole(asked, "before", None, 2**62)
        for name, value in asked.items():
            if name not in Sought.__struct_fields__:
                known = ", ".join((*Sought.__struct_fields__, "limit", "before"))
                raise Refused(400, f"{name[:100]!r} is nothing to search by; known: {known}", param=name[:100])
            if len(value) > LONGEST:
                raise Refused(400, f"{name} has more than {LONGEST} characters", param=name)
        asked = {name: value for name, value in asked.items() if value}
        if (tenant := _tenant(request)) is not None:
            asked["tenant"] = tenant
        try:
            sought = msgspec.convert(asked, Sought)
        except msgspec.ValidationError as e:
            raise of_validation(e) from e
        assert limit is not None
        store, text, sight = self.gateway.router.store, self.gateway.stats.text, self.gateway.sight(request)
        if sight is not None and not sight.may_seek(sought):
            return _json(Found(data=[], searched=0))
        found = await asyncio.to_thread(search, store, sought, limit=limit, before=before, text=text, sight=sight)
        return _json(found)


def document() -> tuple[bytes, dict[str, str]]:
    """Return the page and its headers. Its own script and style are the only ones that the browser may run."""
    folder = files("fairlead.gateway")
    html = (folder / "page.html").read_bytes()
    sources = {}
    for tag, name in (("style", "page.css"), ("script", "page.js")):
        own = (folder / name).read_bytes()
        begin, end = b"<%b>" % tag.encode(), b"</%b>" % tag.encode()
        assert html.count(begin + end) == 1, name
        assert end not in own, name
        html = html.replace(begin + end, begin + own + end)
        sources[tag] = f"'sha256-{base64.b64encode(hashlib.sha256(own).digest()).decode()}'"
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _whole(asked: dict[str, str], name: str, default: int | None, most: int) -> int | None:
    text = asked.pop(name, None)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= most):
        raise Refused(400, f"{name} must be a whole number from 1 to {most}", code="invalid_value", param=name)
    return int(text)


def _tenant(request: Request) -> str | None:
    """Return whose decisions a request may see; None: everybody's. A key that names no tenant is an operator's."""
    caller = request.scope.get(CALLER)
    return None if caller is None else caller.tenant


def _json(data: Any) -> Response:
    return Response(msgspec.json.encode(data), media_type="application/json")
