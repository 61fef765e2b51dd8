"""The loop: observe, decide, run, learn, prove.

`Router.handle` and `Router.feedback` name every stage. A router holds one policy per route; a route that is a target's own name goes
straight to that target.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeAlias

import msgspec

from fairlead import rewards
from fairlead.errors import UnknownName
from fairlead.learner import Learner
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.base import Policy
from fairlead.policies.fixed import Fixed
from fairlead.pool import Pool
from fairlead.signals.base import Observer
from fairlead.store import Receipt, Store
from fairlead.types import Decision, Failure, Feedback, Outcome, Plan, Query, Signals, Sink, Trace
from fairlead.version import VERSION
from fairlead.worlds.base import Limits, Run
from fairlead.worlds.live import Live, LiveRun

Begun: TypeAlias = Callable[[Decision, LiveRun], None]
BEGIN = "as configured"
"""Note of a version that comes from the config and has learned nothing yet."""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """The policy that serves a route, and which version of it."""

    policy: Policy
    version: int
    digest: str
    straight: bool = False
    """The asker named a target: no other may take over."""


class Router:
    """Routes queries over a pool, learns from feedback, and keeps a trace of everything.

    Args:
        pool: who can act.
        world: how to call them.
        observer: the signals that policies may ask for.
        policies: one per route name.
        store: where traces, feedback and learned state go.
        seed: with a query's id, gives the one random number its decision uses.
        fallbacks: how many other plans to try when the chosen one fails before its first byte.
        learn_batch: how many judged answers are learned together at most.
        learn_seconds: how long a judged answer waits for others at most.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        world: Live,
        observer: Observer,
        policies: Mapping[str, Policy],
        store: Store,
        seed: int = 0,
        fallbacks: int = 2,
        learn_batch: int = 32,
        learn_seconds: float = 1.0,
    ) -> None:
        self.pool, self.world, self.observer, self.store = pool, world, observer, store
        self.policies = dict(policies)
        self.seed, self.fallbacks = seed, fallbacks
        self.serving: dict[str, Serving] = {}
        self.arrivals = 0
        self.learner = Learner(
            serving=lambda route: self.serving[route].policy,
            publish=self.publish,
            batch=learn_batch,
            seconds=learn_seconds,
        )

    # ------------------------------------------------------------------------------------------------ the five verbs

    async def handle(
        self, query: Query, *, sink: Sink | None = None, begun: Begun | None = None
    ) -> tuple[Outcome, Trace]:
        """Answer `query`. When this returns, its trace is with the operating system (unless the store is relaxed).

        `begun` is told of the decision and its run before anybody is called.

        Raises:
            UnknownName: if the query's route is neither a route nor a target.
            NoEligibleTarget: if nobody may answer.
        """
        at, start = time.time(), perf_counter()
        query = self.admit(query)
        signals, decision = self.decide(query)
        plan = self.with_fallbacks(query, decision)
        run = self.world.open(plan, query, limits=Limits.of(query.constraints), sink=sink)
        if begun is not None:
            begun(decision, run)
        try:
            result = await run.go()
        except asyncio.CancelledError:
            gone = Outcome(cancelled=True, error=Failure(kind="client_gone", message="the client went away"))
            self.store.append(self.trace(query, signals, decision, plan, run.close(gone), at, start))
            raise
        trace = self.trace(query, signals, decision, plan, result, at, start)
        written = self.store.append(trace)
        if written is not None:
            await written
        return result.outcome, trace

    async def feedback(self, feedback: Feedback) -> Receipt:
        """Take a judgement of an answer, keep it, and learn from it if it is new."""
        receipt = await self.store.add_feedback(feedback)
        if receipt.status == "accepted":
            trace = await self.store.get(feedback.trace_id)
            if trace is not None and trace.query.route in self.policies:
                self.learner.submit(trace.query.route, trace, rewards.reward(trace, feedback))
        return receipt

    # ------------------------------------------------------------------------------------------------ the stages

    def admit(self, query: Query) -> Query:
        """Give the query its arrival number."""
        self.arrivals += 1
        return msgspec.structs.replace(query, arrival=self.arrivals)

    def decide(self, query: Query) -> tuple[Signals, Decision]:
        """Observe and decide, without running anything. Raises as `handle` does."""
        start = perf_counter()
        serving = self.serving.get(query.route)
        if serving is None:
            raise UnknownName("model", query.route, [*self.policies, *(t.name for t in self.pool)])
        signals = self.observer.read(query, serving.policy.needs)
        decision = serving.policy.decide(query, signals, self.pool, seed=self.seed)
        decision = msgspec.structs.replace(
            decision, version=serving.version, policy_digest=serving.digest, seconds=perf_counter() - start
        )
        return signals, decision

    def with_fallbacks(self, query: Query, decision: Decision) -> Plan:
        """Wrap the chosen plan so that others take over, in order of preference, if it fails before its first byte."""
        plan = decision.plan
        if not self.fallbacks or self.serving[query.route].straight:
            return plan
        others: list[Plan] = [o.plan for i, o in enumerate(decision.options) if i != decision.chosen]
        others += [Single(target=name) for name in decision.eligible]
        rest = [p for p in dict.fromkeys(others) if p != plan][: self.fallbacks]
        return Fallback(plans=(plan, *rest)) if rest else plan

    def trace(
        self, query: Query, signals: Signals, decision: Decision, plan: Plan, run: Run, at: float, start: float
    ) -> Trace:
        """Write the story of one query. The reply's bytes and the request's are not part of it."""
        return Trace(
            id=query.id,
            at=at,
            query=msgspec.structs.replace(query, body={}),
            signals=signals,
            decision=decision,
            plan=plan,
            steps=tuple(msgspec.structs.replace(s, outcome=without_reply(s.outcome)) for s in run.steps),
            outcome=without_reply(run.outcome),
            usd=run.usd,
            seconds=perf_counter() - start,
            fairlead=VERSION,
        )

    # ------------------------------------------------------------------------------------------------ its life

    async def start(self) -> None:
        """Open the store and the drivers, and take up what was learned before.

        A route whose policy is configured just as when it last began goes on with what it has learned since; one whose
        config, or the trained model that it loads, has changed begins anew as a further version.
        """
        for policy in self.policies.values():
            self.observer.check(policy.needs)
        self.store.start()
        self.arrivals = self.store.count()
        self.store.save_pool(self.pool.digest, self.pool.targets)
        for route, policy in self.policies.items():
            versions = self.store.versions(route)
            began = next((v for v in reversed(versions) if v.note == BEGIN), None)
            active = next((v for v in versions if v.active), None)
            if began is not None and active is not None and began.digest == policy.digest():
                policy.load(self.store.load_policy(active.digest)[1])
                self.serving[route] = Serving(policy=policy, version=active.version, digest=active.digest)
            else:
                self.publish(route, policy, BEGIN)
        for target in self.pool:
            if target.name not in self.policies:
                straight = Fixed(plan=Single(target=target.name))
                kept = self.store.save_policy(target.name, straight.spec(), straight.state(), note="the target itself")
                self.serving[target.name] = Serving(
                    policy=straight, version=kept.version, digest=kept.digest, straight=True
                )
        for driver in self.world.drivers.values():
            await driver.start()
        self.learner.start()

    async def stop(self) -> None:
        """Learn and write what is waiting, then close."""
        await asyncio.to_thread(self.learner.stop)
        for driver in self.world.drivers.values():
            await driver.stop()
        await asyncio.to_thread(self.store.stop)

    def publish(self, route: str, policy: Policy, note: str) -> None:
        """Keep a snapshot of `policy`, then let it serve `route`."""
        kept = self.store.save_policy(route, policy.spec(), policy.state(), note=note)
        self.serving[route] = Serving(policy=policy, version=kept.version, digest=kept.digest)

    async def __aenter__(self) -> Router:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def without_reply(outcome: Outcome) -> Outcome:
    """Drop the reply's bytes: they are forwarded, not kept."""
    return msgspec.structs.replace(outcome, reply=b"") if outcome.reply else outcome
