"""What a key that is limited to some routes or targets is shown: nothing that names another, in whatever it asks for.

A name outside is one that does not exist: `read.py` answers for it with the same error, and everything here leaves it out. A limited key sees the
traces of requests that it could have made itself: whose model it may ask for, and whose plan asked nobody outside. What else stands in them of
others (who was left out, and why) is cut from what is shown, never from what is kept. Sentences are left out whole where they name one outside.

Names of guards, rules and policies are no names of routes or targets, and stay; so does what clients and targets wrote.

Made for a request that shows names; requests for answers make one only to be refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from fairlead import chain
from fairlead.errors import FairleadError, NoEligibleTarget, StoreError
from fairlead.gateway.keys import Caller
from fairlead.types import Decision, Failure, Option, Outcome, Plan, Trace

if TYPE_CHECKING:
    from fairlead.gateway.search import Row, Sought
    from fairlead.router import Router

NOBODY = "none of the targets that this key may use can answer this request"
_replace = msgspec.structs.replace
_ESCAPED = re.compile(r"\\(.)")
_LABEL = re.compile(r'[{,](route|target|account)="((?:\\.|[^"\\])*)"')


class Sight:
    """What one limited key may see of a router's routes and targets. See `of`."""

    def __init__(self, caller: Caller, router: Router) -> None:
        pool = router.pool.by_name
        self.caller = caller
        self.models = frozenset(name for name in (*router.policies, *pool) if caller.may_ask(name, pool))
        """What it may ask for."""
        self.targets = frozenset(pool) if caller.targets is None else caller.targets
        """Who may act for it."""
        self._outside = {*router.policies, *pool} - self.models - self.targets

    @classmethod
    def of(cls, caller: Caller | None, router: Router) -> Sight | None:
        """Return what `caller` may see; None: everything."""
        return cls(caller, router) if caller is not None and caller.limited else None

    # ------------------------------------------------------------------------------------------------ names

    def acts(self, names: Iterable[str]) -> bool:
        """Whether all of these targets may act for the key; "" is nobody."""
        return self.caller.targets is None or self.caller.targets.issuperset(n for n in names if n)

    def says(self, text: str, also: Iterable[str] = ()) -> bool:
        """Whether a sentence names nobody outside. `also`: further names that are outside, such as of targets that have left."""
        outside = self._outside.union(also)
        return not any(name in text and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in outside)

    # ------------------------------------------------------------------------------------------------ refusals

    def refusal(self, e: NoEligibleTarget) -> NoEligibleTarget:
        """Return a refusal as the key is told it: `excluded` names nobody outside."""
        cut = NoEligibleTarget(
            self.left_out(e.excluded),
            kinds={n: k for n, k in e.kinds.items() if n in self.targets},
            rule=e.rule,
            words=e.words,
            trace=e.trace,
        )
        if not cut.excluded:
            cut.args = (NOBODY,)
        return cut

    def left_out(self, excluded: dict[str, str]) -> dict[str, str]:
        """Cut what is told of who was left out, and why."""
        also = excluded.keys() - self.targets
        return {
            name: why if self.says(why, also) else "may not answer this"
            for name, why in excluded.items()
            if name in self.targets
        }

    # ------------------------------------------------------------------------------------------------ decisions and traces

    def decision(self, decision: Decision) -> Decision:
        """Cut a decision whose plan the key may see."""

        def options(those: tuple[Option, ...]) -> tuple[Option, ...]:
            return tuple(o for o in those if self.acts(o.plan.targets()))

        also = decision.excluded.keys() - self.targets
        kept, chosen = options(decision.options), 0
        if decision.options:
            chosen = sum(self.acts(o.plan.targets()) for o in decision.options[: decision.chosen])
        fallbacks = decision.fallbacks
        return _replace(
            decision,
            options=kept,
            chosen=chosen,
            reasons=tuple(r for r in decision.reasons if self.says(r, also)),
            eligible=tuple(n for n in decision.eligible if n in self.targets),
            excluded=self.left_out(decision.excluded),
            fallbacks=None if fallbacks is None else tuple(p for p in fallbacks if self.acts(p.targets())),
            shadow=options(decision.shadow),
            members={name: options(those) for name, those in decision.members.items()},
        )

    def sees(self, trace: Trace) -> bool:
        """Whether there is such a trace for the key."""
        decision = trace.decision
        plans: list[Plan] = [] if trace.plan is None else [trace.plan]
        if decision.options:
            plans.append(decision.plan)
        return (
            trace.query.route in self.models
            and self.acts([trace.outcome.target])
            and all(self.acts(plan.targets()) for plan in plans)
            and self.acts(step.call.target for step in trace.steps if step.call is not None)
        )

    def trace(self, trace: Trace) -> Trace:
        """Cut a trace that the key sees."""
        query, also = trace.query, trace.decision.excluded.keys() - self.targets
        allow = query.constraints.allow
        if allow is not None:
            allow = tuple(name for name in allow if name in self.targets)
            query = _replace(query, constraints=_replace(query.constraints, allow=allow))
        decision = self.decision(trace.decision)

        def failure(error: Failure) -> Failure:
            if error.kind == "no_target":
                text = str(NoEligibleTarget(decision.excluded)) if decision.excluded else NOBODY
                return _replace(error, message=text)
            return error if self.says(error.message, also) else _replace(error, message=error.kind)

        def told(outcome: Outcome) -> Outcome:
            return outcome if outcome.error is None else _replace(outcome, error=failure(outcome.error))

        return _replace(
            trace,
            query=query,
            decision=decision,
            outcome=told(trace.outcome),
            steps=tuple(_replace(step, outcome=told(step.outcome)) for step in trace.steps),
        )

    def row(self, row: Row, body: bytes | None) -> bool:
        """Whether there is such a row for the key. `body`: its trace's bytes; None: they are too many to be looked at."""
        if row.route not in self.models or not self.acts([row.target]):
            return False
        try:
            return body is None or self.sees(chain.decode(body, Trace))
        except StoreError:  # of a plan that is not installed any more: whom it turned to is not known
            return False

    def may_seek(self, sought: Sought) -> bool:
        """Whether a search may find anything: not for a name outside, of which not even the number of rows is told."""
        return sought.route in (None, *self.models) and (sought.target is None or self.acts([sought.target]))

    # ------------------------------------------------------------------------------------------------ figures

    def stats(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Cut the page's figures: sums of all requests stay, those of a route or target are of those inside."""
        routes = {name: told for name, told in shown["of_routes"].items() if name in self.models}
        for told in routes.values():
            told["expects"] = [o for o in told["expects"] if self.says(o["option"])]
        strongest = shown["savings"]["strongest"]
        withheld = strongest is not None and strongest not in self.targets
        return shown | {
            "by_route": {name: n for name, n in shown["by_route"].items() if name in self.models},
            "rules": {name: n for name, n in shown["rules"].items() if name in self.models},
            "targets": [t for t in shown["targets"] if t["name"] in self.targets],
            "of_routes": routes,
            "savings": shown["savings"] | {"strongest": None if withheld else strongest, "withheld": withheld},
            "recent": [
                row
                for row in shown["recent"]
                if row["route"] in self.models and self.acts([row["target"]]) and self.says(row["chosen"] or "")
            ],
        }

    def metrics(self, text: bytes) -> bytes:
        """Leave the samples of routes and targets outside out of what Prometheus reads."""
        return "".join(line for line in text.decode().splitlines(keepends=True) if self._sample(line)).encode()

    def _sample(self, line: str) -> bool:
        for label, value in () if line.startswith("#") else _LABEL.findall(line):
            name = _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
            if label == "account":
                label, _, name = name.partition(":")
            if label == "route" and name not in self.models:
                return False
            if label == "target" and name != "none" and not self.acts([name]):
                return False
        return True


def told(e: FairleadError, caller: Caller | None) -> str:
    """Return what a caller is told of an error of our own making: a limited key not the words of those that may name anybody."""
    if isinstance(e, StoreError) or caller is None or not caller.limited:
        return str(e)
    return "the gateway failed; its log tells more"
