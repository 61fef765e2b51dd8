"""The loop: observe, decide, run, learn, prove.

`Router.handle` and `Router.feedback` name every stage. A router holds one policy per route; a route that is a target's own name goes
straight to that target.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TypeAlias

import msgspec

from fairlead import chain, rewards
from fairlead.actions.base import Action, Passage
from fairlead.build import build
from fairlead.component import digest, pack
from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget, UnknownName
from fairlead.guards import Guard, Guarded, Guards
from fairlead.learner import Learner
from fairlead.ledger import Account, Exhausted, Hold, Ledger, Unknown, micros
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.base import Policy
from fairlead.policies.fixed import Fixed
from fairlead.pool import Eligibility, Pool
from fairlead.replica import Replica
from fairlead.signals.base import Observer
from fairlead.spending import Purse, Spending, cost_of, held_for, limit_of
from fairlead.store import BEGIN, STRAIGHT, Receipt, Store, Sum
from fairlead.targets.base import Driver
from fairlead.trust import Trust
from fairlead.types import Decision, Failure, Feedback, Limits, Outcome, Plan, Query, Signals, Sink, Step, Task, Trace
from fairlead.version import VERSION
from fairlead.worlds.base import Cover, Run
from fairlead.worlds.live import Live

log = logging.getLogger(__name__)

Begun: TypeAlias = Callable[[Passage], None]


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """The policy that serves a route, and which version of it."""

    policy: Policy
    version: int
    digest: str


class Router:
    """Routes queries over a pool, learns from feedback, and keeps a trace of everything.

    Args:
        pool: who can act.
        world: how to call them.
        observer: the signals that policies may ask for.
        policies: one per route name.
        store: where traces, feedback and learned state go.
        guards: those of every request, also for a target by its own name.
        route_guards: further ones of each route.
        actions: what guards and rules may order, by name.
        seed: with a query's id, gives the one random number its decision uses.
        fallbacks: how many other plans to try when the chosen one fails before its first byte.
        learn_batch: how many judged answers are learned together at most.
        learn_seconds: how long a judged answer waits for others at most.
        trust: tells the sources of feedback apart; None: each judgement counts as its confidence says.
        ledger: the accounts that queries may be charged to (see `handle`), on the same store.
        shared: other routers serve the same routes on the same store: one of them learns, and budgets of routes are kept for all together.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        world: Live,
        observer: Observer,
        policies: Mapping[str, Policy],
        store: Store,
        guards: Sequence[Guard] = (),
        route_guards: Mapping[str, Sequence[Guard]] | None = None,
        actions: Mapping[str, Action] | None = None,
        seed: int = 0,
        fallbacks: int = 2,
        learn_batch: int = 32,
        learn_seconds: float = 1.0,
        trust: Trust | None = None,
        ledger: Ledger | None = None,
        shared: bool = False,
    ) -> None:
        self.ledger = ledger
        self.replica = Replica(self) if shared else None
        self.pool, self.world, self.observer, self.store = pool, world, observer, store
        self.policies = dict(policies)
        self.seed, self.fallbacks, self.trust = seed, fallbacks, trust
        self.actions = dict(actions or {})
        orders = {name: action.order for name, action in self.actions.items()}
        self.house_guards = Guards(guards, orders=orders)
        self.guards = {r: Guards((*guards, *own), orders=orders) for r, own in (route_guards or {}).items()}
        self.serving: dict[str, Serving] = {}
        self._needs: dict[str, tuple[Serving, tuple[str, ...]]] = {}
        world.lateness.once = lambda name, query: self.pool.once(name, query)
        limits = {route: limit_of(policy, path=f"$.routes.{route}.policy") for route, policy in self.policies.items()}
        self.spending = Spending(limits={route: limit for route, limit in limits.items() if limit is not None})
        self.own_accounts: dict[str, tuple[Account, ...]] = {}
        self.arrivals = 0
        self.under_way: set[asyncio.Future[None]] = set()
        """One for each request that is being answered, done when it has been."""
        self.judging = 0
        """Judgements that are being taken."""
        self.turning: asyncio.Future[Router | None] | None = None
        """Done, with that router, when another has taken this one's place; with None if it could not."""
        self.refreshing = asyncio.Lock()
        """Held while trust is learned anew."""
        self.leaving: set[asyncio.Future[None]] = set()
        """Removals of targets that are not finished."""
        self.learner = Learner(
            serving=lambda route: self.serving[route].policy,
            publish=self.publish,
            forget=self.store.forget_lessons,
            batch=learn_batch,
            seconds=learn_seconds,
        )

    # ------------------------------------------------------------------------------------------------ the five verbs

    async def handle(
        self,
        query: Query,
        *,
        sink: Sink | None = None,
        begun: Begun | None = None,
        accounts: Sequence[Account] = (),
    ) -> tuple[Outcome, Trace]:
        """Answer `query`. When this returns, its trace is with the operating system (unless the store is relaxed).

        `begun` is told of the decision before anything is done about it. `accounts` pay for it, each in full: what its plan may cost is held on
        them before it runs, and a plan that one of them cannot pay is not run (a failure of kind ``budget``).

        Raises:
            UnknownName: if the query's route is neither a route nor a target.
            NoEligibleTarget: if nobody may answer.
        """
        at, start = time.time(), perf_counter()
        query = self.admit(query, at)
        passage: Passage | None = None
        ended = self.enter()
        try:
            # Once and for all: meanwhile the learner may swap the policy, and a target's rest may end.
            serving = self.serves(query.route)
            signals = await self.observer.observe(query, self.needs(query.route, serving))
            if self.pool.counts:
                await self.pool.counted(query)
            query = self.stamped(query)  # others may have spent meanwhile
            left = self.left_usd(accounts)
            guarded = self.guarded(query, signals, left_usd=left)
            if (
                left is not None
                and guarded.eligible.excluded
                and await self._more(query, guarded.eligible, left, accounts)
            ):
                guarded = self.guarded(query, signals, left_usd=self.left_usd(accounts))
            try:
                decision = self._decide(query, signals, serving, guarded)
            except NoEligibleTarget as e:
                e.trace = self.refusal(query, signals, serving, guarded, e, at, start)
                if (written := self.hand_over(e.trace)) is not None:
                    await written
                raise
            plan = self.with_fallbacks(decision, query.task)
            passage = Passage(query=query, signals=signals, decision=decision, plan=plan, sink=sink)
            try:
                if begun is not None:
                    begun(passage)
                if not decision.actions:
                    outcome = await self.run(passage, accounts)
                else:
                    actions = [self.actions[name] for name in decision.actions]
                    passage.keep_text = not any(action.hides for action in actions)
                    outcome = await self.act(passage, actions, accounts)
            except asyncio.CancelledError:
                gone = Failure(kind="client_gone", message="cancelled before the answer was whole")
                story = self.trace(passage, Outcome(cancelled=True, error=gone), at, start)
                self.hand_over(*self.charged(story, passage.hold))
                raise
            trace, charges = self.charged(self.trace(passage, outcome, at, start), passage.hold)
            if (written := self.hand_over(trace, charges)) is not None:
                await written
            return outcome, trace
        finally:
            self.exit(ended)
            self.pool.forget(query)
            if passage is not None and passage.hold is not None:
                passage.hold.release()  # nothing, if it was charged

    async def act(self, passage: Passage, actions: Sequence[Action], accounts: Sequence[Account] = ()) -> Outcome:
        """Do the actions, outermost first, around the plan; the rest of the chain is each one's `proceed`."""
        if not actions:
            return await self.run(passage, accounts)
        action, *rest = actions
        proceeded = False

        async def proceed(passage: Passage) -> Outcome:
            nonlocal proceeded
            if proceeded:
                raise FairleadError(f"the action {action.type_name()} proceeded twice; what may run twice is a plan")
            proceeded = True
            return await self.act(passage, rest, accounts)

        try:
            outcome = await action.act(passage, proceed)
            if not proceeded and passage.answered is None:
                passage.answered = outcome
            return outcome
        except Exception as e:  # noqa: BLE001 - the wall around actions: what one should have hidden must not get out by its failure
            where = traceback.extract_tb(e.__traceback__)[-1]
            # Not the message of what was raised: it may hold the text that was being masked.
            log.error(
                "%s: the action %s broke: %s at %s:%s",
                passage.query.id,
                action.type_name(),
                type(e).__name__,
                where.filename,
                where.lineno,
            )
            passage.note(action, "broke", error=type(e).__name__)
            passage.keep_text = False
            message = f"the action {action.type_name()} broke ({type(e).__name__}), so the request was not answered"
            streamed = passage.result is not None and passage.result.outcome.streamed
            return Outcome(error=Failure(kind="internal", message=message), streamed=streamed)

    async def run(self, passage: Passage, accounts: Sequence[Account] = ()) -> Outcome:
        """Run the plan as the actions left it, within what is left of the route's budget, of `accounts` and of the asker's time."""
        query, plan = passage.query, passage.plan
        if stray := set(plan.targets()).difference(passage.decision.eligible):
            raise FairleadError(f"an action put a plan in place that turns to {', '.join(sorted(stray))}, not eligible")
        limits = Limits.of(query.constraints)
        if passage.deadline_seconds != query.constraints.deadline_seconds:
            limits = msgspec.structs.replace(limits, seconds=passage.deadline_seconds or 0.0)
        accounts = (*accounts, *self.own_account(query.route))
        if accounts and self.ledger is not None:
            held = micros(held_for(passage.decision.plan.targets(), query, self.pool.estimate_usd))
            try:
                now = time.time()
                passage.hold = self.ledger.try_take(accounts, held, now=now) or await self.ledger.take(accounts, held)
            except Exhausted as e:
                after = e.until_seconds if math.isfinite(e.until_seconds) else None
                return Outcome(error=Failure(kind="budget", message=e.words, retry_after_seconds=after))
            except Unknown as e:
                return Outcome(error=Failure(kind="budget", message=str(e), status=503, retry_after_seconds=5.0))
        purse = self.take(query, plan)
        try:
            cover = _together(*(p.cover for p in (purse, passage.hold) if p is not None))
            more = None if passage.hold is None else passage.hold.extend
            passage.run = self.world.open(plan, query, limits=limits, sink=passage.sink, cover=cover, more=more)
            passage.result = await passage.run.go()
            return passage.result.outcome
        finally:
            if purse is not None:
                purse.settle(0.0 if passage.run is None else passage.run.meter.spent_usd)

    async def feedback(self, feedback: Feedback) -> Receipt:
        """Take a judgement of an answer, keep it, and learn what it teaches: see `fairlead.rewards`, and `fairlead.trust` if its sources are
        told apart.

        Raises:
            FairleadError: if its value or its confidence does not lie in [0, 1].
        """
        for name, number in (("value", feedback.value), ("confidence", feedback.confidence)):
            if not 0.0 <= number <= 1.0:
                raise FairleadError(f"a feedback's {name} lies in [0, 1], and {number} does not")
        while self.turning is not None:
            # Its lesson is for the one that learns from now on, and for that one alone.
            successor = await asyncio.shield(self.turning)
            if successor is not None:
                return await successor.feedback(feedback)
        self.judging += 1
        try:
            return await self._feedback(feedback)
        finally:
            self.judging -= 1

    async def _feedback(self, feedback: Feedback) -> Receipt:
        trust, weight = self.trust, feedback.confidence
        if trust is not None:
            async with self.refreshing:
                if trust.due:
                    await asyncio.to_thread(trust.refresh)
            weight *= trust.weight(feedback)
        receipt = await self.store.add_feedback(feedback, learning=self.policies, weight=weight)
        new = (trust is not None or self.actions) and receipt.status in ("accepted", "kept", "revised")
        trace = await self.store.get(feedback.trace_id) if new or receipt.lesson is not None else None
        if trace is not None and trust is not None and trace.query.route in self.policies and trace.outcome.target:
            trust.note(feedback, trace.outcome.target, revised=receipt.status == "revised")
        if trace is not None and new:
            for name in trace.decision.actions:
                if (action := self.actions.get(name)) is not None:
                    await action.judged(trace, feedback, weight)
        if trace is not None and (lesson := receipt.lesson) is not None:
            if not trace.steps:
                self.store.forget_lessons([trace.id])  # an action answered: no policy has anything to learn of it
                receipt = msgspec.structs.replace(receipt, lesson=None)
            elif trace.query.route in self.policies and self.replica is None:
                self.learner.submit(trace.query.route, trace, rewards.reward(trace, lesson))
        return receipt

    # ------------------------------------------------------------------------------------------------ the stages

    def admit(self, query: Query, at: float) -> Query:
        """Give the query its arrival number and time, and what its route has spent so far if it has a budget."""
        self.arrivals += 1
        return self.stamped(msgspec.structs.replace(query, arrival=self.arrivals, at=at))

    def stamped(self, query: Query) -> Query:
        """Write on a query what its route has spent so far, if that has a budget."""
        spent = self.spending.spent(query.route, time.time()) if self.spending.limits else None
        return query if spent is None else msgspec.structs.replace(query, spent=spent)

    def observe(self, query: Query) -> Signals:
        """Read the signals that the route's policy and guards need, each to its end. Raises `UnknownName` if there is no such route or
        target."""
        return self.observer.read(query, self.needs(query.route, self.serves(query.route)))

    async def consider(self, query: Query) -> tuple[Query, Signals, Decision]:
        """Decide as `handle` does, without admitting the query, doing anything or keeping it: a dry run. Raises as `handle` does."""
        query = msgspec.structs.replace(query, arrival=self.arrivals + 1, at=time.time())
        query = self.stamped(query)
        signals = await self.observer.observe(query, self.needs(query.route, self.serves(query.route)))
        try:
            return query, signals, self.decide(query, signals)
        finally:
            self.pool.forget(query)

    def needs(self, route: str, serving: Serving) -> tuple[str, ...]:
        """Name the signals to read for a query on `route`."""
        known = self._needs.get(route)
        if known is None or known[0] is not serving:
            guards = self.guards.get(route, self.house_guards)
            known = self._needs[route] = (serving, tuple(dict.fromkeys((*guards.needs, *serving.policy.needs))))
        return known[1]

    def guarded(self, query: Query, signals: Signals, *, left_usd: float | None = None) -> Guarded:
        """Say whom the guards leave of those who may answer, and what they order. `left_usd`: as `eligible` has it."""
        return self.guards.get(query.route, self.house_guards).apply(signals, self.eligible(query, left_usd=left_usd))

    def own_account(self, route: str) -> tuple[Account, ...]:
        """Return the account of a route's own budget, where routers that share a store keep it together."""
        limit = None if self.replica is None else self.spending.limits.get(route)
        if limit is None:
            return ()
        accounts = self.own_accounts.get(route)
        if accounts is None:  # made once: the ledger knows an account by its identity
            usd = micros(limit.usd)
            account = Account(name=f"route:{route}/usd", period="seconds", seconds=limit.seconds, limit=usd)
            accounts = self.own_accounts[route] = (account,)
        return accounts

    def left_usd(self, accounts: Sequence[Account]) -> float | None:
        """Return what the accounts that pay have left, as far as this process knows; None if none pays."""
        if not accounts or self.ledger is None:
            return None
        return min(self.ledger.left(account) for account in accounts) / 1e6

    async def _more(self, query: Query, eligible: Eligibility, left: float, accounts: Sequence[Account]) -> bool:
        """Ask the store, if `left` keeps somebody from answering, whether that is so: others may have given back what they did not use."""
        estimate, kinds = self.pool.estimate_usd, eligible.kinds
        lacks = any(k == "budget" and held_for((n,), query, estimate) > left for n, k in kinds.items())
        return lacks and self.ledger is not None and await self.ledger.look(accounts)

    def serves(self, route: str) -> Serving:
        """Return what serves a route or target now. Raises `UnknownName` if there is no such route or target."""
        serving = self.serving.get(route)
        if serving is None:
            raise UnknownName("model", route, [*self.policies, *(t.name for t in self.pool)])
        return serving

    def decide(self, query: Query, signals: Signals) -> Decision:
        """Decide, without running anything: a dry run, of a query that nobody admitted. Raises as `Policy.decide` does."""
        query = self.stamped(query)
        return self._decide(query, signals, self.serving[query.route], self.guarded(query, signals))

    def _decide(self, query: Query, signals: Signals, serving: Serving, guarded: Guarded) -> Decision:
        try:
            decision = serving.policy.decide(query, signals, self.pool, seed=self.seed, eligible=guarded.eligible)
        except NoEligibleTarget as e:  # who is not eligible has a better reason than that
            before = guarded.eligible
            excluded, kinds = {**e.excluded, **before.excluded}, {**e.kinds, **before.kinds}
            raise NoEligibleTarget(excluded, kinds=kinds, rule=e.rule, words=e.words) from None
        return msgspec.structs.replace(
            decision,
            guards=guarded.guards,
            guards_digest=self.guards.get(query.route, self.house_guards).digest,
            actions=self.ordered((*guarded.actions, *decision.actions)),
            version=serving.version,
            policy_digest=serving.digest,
            seconds=decision.seconds + sum(r.seconds for r in signals.readings.values()),
        )

    def ordered(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return actions by name, each once, in the order in which they nest. Raises `FairleadError` for one that is not there."""
        if unknown := [name for name in names if name not in self.actions]:
            raise FairleadError(f"the decision orders {', '.join(unknown)}, which the config's actions do not have")
        return tuple(sorted(dict.fromkeys(names), key=lambda name: self.actions[name].order))

    def eligible(self, query: Query, *, left_usd: float | None = None) -> Eligibility:
        """Say who may answer, the route's budget considered, and `left_usd`, what there is for it otherwise."""
        left = self.spending.left(query)
        if left_usd is not None:
            left = left_usd if left is None else min(left, left_usd)
        return self.pool.eligible(query, left_usd=left)

    def take(self, query: Query, plan: Plan) -> Purse | None:
        """Hold what a plan may cost, if the route has a budget. Others may have taken since the query was stamped, if an action waited: a
        purse never covers more than is left."""
        if query.spent is None:
            return None
        held = held_for(plan.targets(), query, self.pool.estimate_usd)
        return self.spending.take(query.route, time.time(), held)

    def with_fallbacks(self, decision: Decision, task: Task = "chat") -> Plan:
        """Wrap the chosen plan so that others take over, in order of preference, if it fails before its first byte.

        For vectors only those whose targets all say that theirs are of the same space: others cannot be compared.
        """
        plan, others = decision.plan, decision.fallbacks
        if others is None:
            others = tuple(o.plan for o in decision.options)
            if len(others) <= self.fallbacks or task == "embeddings":
                others += tuple(Single(target=name) for name in decision.eligible if self.answers(name))
        rest = [p for p in dict.fromkeys(others) if p != plan]
        if task == "embeddings":
            spaces = self.spaces(plan)
            rest = [p for p in rest if len(spaces) == 1 and None not in spaces and self.spaces(p) == spaces]
        rest = rest[: self.fallbacks]
        return Fallback(plans=(plan, *rest)) if rest else plan

    def spaces(self, plan: Plan) -> frozenset[str | None]:
        """Name the spaces of the vectors that a plan's targets give; None among them: one does not say."""
        return frozenset(self.pool[name].profile.space for name in plan.targets() if name in self.pool)

    def answers(self, name: str) -> bool:
        """Whether a target may be turned to by itself."""
        target = self.pool.by_name.get(name)
        return target is None or target.profile.answers

    def charged(self, trace: Trace, hold: Hold | None) -> tuple[Trace, Sequence[Sum]]:
        """Charge what a query cost to the accounts that pay: its trace with the charges, and what is written beside it."""
        if hold is None:
            return trace, ()
        charges, statements = hold.charge(micros(cost_of(trace, self.pool.estimate_usd)))
        return msgspec.structs.replace(trace, charged=charges), statements

    def hand_over(self, trace: Trace, also: Sequence[Sum] = ()) -> asyncio.Future[None] | None:
        """Hand a trace to the store, with what is to be written beside it; return what is done when the operating system has both (None if
        the store is relaxed). What it charges is charged alone if it cannot be written."""
        if not also or self.ledger is None:
            return self.store.append(trace, also)
        tell = asyncio.get_running_loop().call_soon_threadsafe
        return self.store.append(trace, also, lost=functools.partial(tell, self.ledger.later, also))

    def trace(self, passage: Passage, outcome: Outcome, at: float, start: float) -> Trace:
        """Write the story of one query: as its plan saw it and answered it, or with `outcome` if no plan ran to its end.

        The reply's bytes and the request's are not part of it.
        """
        run = passage.result
        if run is None and passage.run is not None:
            run = passage.run.close(outcome)
        elif run is None:
            run = Run.of(passage.answered or outcome, [], 0.0)
        trace = Trace(
            id=passage.query.id,
            at=at,
            query=msgspec.structs.replace(passage.query, body={}),
            signals=passage.signals,
            decision=passage.decision,
            plan=None if passage.run is None else passage.plan,
            steps=tuple(recorded(s, passage.query) for s in run.steps),
            outcome=without_reply(run.outcome if outcome.error is None else outcome),
            acts=tuple(passage.acts),
            usd=run.usd,
            seconds=perf_counter() - start,
            fairlead=VERSION,
        )
        return trace if passage.keep_text else chain.blank(trace)

    def refusal(
        self,
        query: Query,
        signals: Signals,
        serving: Serving,
        guarded: Guarded,
        why: NoEligibleTarget,
        at: float,
        start: float,
    ) -> Trace:
        """Write the story of a query that nobody may answer: without its text, if a guard ordered what would have hidden it."""
        hides = any(self.actions[name].hides for name in guarded.actions if name in self.actions)
        trace = Trace(
            id=query.id,
            at=at,
            query=msgspec.structs.replace(query, body={}),
            signals=signals,
            decision=Decision(
                options=(),
                chosen=0,
                propensity=0.0,
                reasons=("nobody may answer",),
                policy=serving.policy.type_name(),
                version=serving.version,
                policy_digest=serving.digest,
                pool_digest=self.pool.digest,
                seed=self.seed,
                eligible=tuple(t.name for t in guarded.eligible.targets),
                excluded=why.excluded,
                guards=guarded.guards,
                guards_digest=self.guards.get(query.route, self.house_guards).digest,
                rule=why.rule,
                actions=self.ordered(guarded.actions),
            ),
            outcome=Outcome(error=Failure(kind="no_target", message=str(why))),
            usd=0.0,
            seconds=perf_counter() - start,
            fairlead=VERSION,
        )
        return chain.blank(trace) if hides else trace

    # ------------------------------------------------------------------------------------------------ who comes and goes

    async def add_target(self, driver: Driver) -> None:
        """Let one more target act, from the next query on: the driver is started, the pool swapped whole, the target's own route published.

        Policies forecast it as a target that they do not know, until they learn of it or one that knows it is published. The config file
        is not changed: what is to stay over a restart belongs there.

        Raises:
            ConfigError: if a target or route has that name, or a target that was removed is still finishing under it. Nothing is changed
                then, nor if the driver cannot start.
        """
        name = driver.name
        if name in self.world.drivers or name in self.policies:
            raise ConfigError(
                f"there is a target or route called {name!r} already; choose another name", path="$.targets"
            )
        self.world.drivers = {**self.world.drivers, name: driver}
        try:
            await driver.start()
            self._swap(Pool(targets=(*self.pool, driver.target), health=self.pool.health))
            self.publish(name, Fixed(plan=Single(target=name), only=True), STRAIGHT)
        except BaseException:
            await self._drop(name)
            raise

    async def remove_target(self, name: str, *, within_seconds: float = 60.0) -> None:
        """Let a target act no more: its route is withdrawn and the pool swapped at once; its driver is stopped when the plans that are
        being run have ended, or after `within_seconds`, also if whoever waits for this goes away.

        Raises:
            UnknownName: if there is no such target.
            ConfigError: if it is the only one, or a policy names it: such a policy would have nobody to turn to.
        """
        _ = self.pool[name]
        if len(self.pool) == 1:
            raise ConfigError(f"{name!r} is the only target; add another before it goes", path="$.targets")
        for route, configured in self.policies.items():
            policy = self.serving[route].policy if route in self.serving else configured
            for path, part in policy.walk(f"$.routes.{route}.policy"):
                if isinstance(part, Policy) and name in {n for _, n in part.names}:
                    raise ConfigError(f"the policy of route {route!r} names {name!r}; change it first", path=path)
        self._swap(Pool(targets=(t for t in self.pool if t.name != name), health=self.pool.health))
        self.serving.pop(name, None)
        leaving = asyncio.ensure_future(self._leave(name, within_seconds))
        self.leaving.add(leaving)
        leaving.add_done_callback(self.leaving.discard)
        await asyncio.shield(leaving)

    def enter(self) -> asyncio.Future[None]:
        """Begin to use this router: until `exit` is told the same, it is not stopped (for as long as `stop` says) and no driver that was there is taken away."""
        ended = asyncio.get_running_loop().create_future()
        self.under_way.add(ended)
        return ended

    def exit(self, ended: asyncio.Future[None]) -> None:
        """End what `enter` began."""
        self.under_way.discard(ended)
        ended.set_result(None)

    async def _leave(self, name: str, within_seconds: float) -> None:
        try:
            if self.under_way:
                await asyncio.wait(tuple(self.under_way), timeout=within_seconds)
        finally:
            await self._drop(name)

    def _swap(self, pool: Pool) -> None:
        """Put `pool` in the place of the one there is, by one assignment each; its name is known to the store before it serves."""
        self.store.save_pool(pool.digest, pool.targets)
        if self.world.estimate == self.pool.estimate_usd:
            self.world.estimate = pool.estimate_usd
        self.pool = pool

    async def _drop(self, name: str) -> None:
        """Take back what `add_target` or `start` gave a target, and stop its driver."""
        driver = self.world.drivers[name]
        self.world.drivers = {n: d for n, d in self.world.drivers.items() if n != name}
        self.serving.pop(name, None)
        if name in self.pool:
            self._swap(Pool(targets=(t for t in self.pool if t.name != name), health=self.pool.health))
        self.pool.health.succeeded(name)
        await driver.stop()

    # ------------------------------------------------------------------------------------------------ its life

    async def start(self, *, after: Router | None = None) -> None:
        """Open the store and the drivers, and take up what was learned before (see `resume`). What cannot start leaves nothing open.

        `after`: a router on the same store and ledger whose place this one takes, while its queries end. It learns no more then, unless
        this one cannot start; what it knows of targets' health and of money spent is taken over.
        """
        turned = None
        if after is not None:
            turned = after.turning = asyncio.get_running_loop().create_future()
        try:
            await self._start(after)
        except BaseException:
            await self.stop(close=after is None)
            if after is not None:
                after.spending.take_over(self.spending)
                after.learner.start()
                if after.replica is not None:
                    await after.replica.start()
                after.turning = None
            if turned is not None:
                turned.set_result(None)
            raise
        if turned is not None:
            turned.set_result(self)

    async def _start(self, after: Router | None) -> None:
        for route, policy in self.policies.items():
            self.observer.check(policy.needs)
            self.observer.check(self.guards.get(route, self.house_guards).needs)
            self.ordered([a for _, part in policy.walk() if isinstance(part, Policy) for _, a in part.orders])
        for guards in (self.house_guards, *self.guards.values()):
            self.ordered([a for guard in guards.guards for a in guard.do])
        for driver in self.world.drivers.values():
            await driver.start()
        for action in self.actions.values():
            await action.start()
        if after is not None:
            if after.replica is not None:
                await after.replica.stop()
            while after.judging:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(after.learner.stop)
            self.pool.health.take_over(after.pool.health, (t.name for t in self.pool))
        else:
            self.store.start()
            if self.ledger is not None:
                await self.ledger.start()
        self.arrivals = self.store.count()
        if after is not None:
            self.spending.take_over(after.spending)
            self.world.take_over(after.world)
        await asyncio.to_thread(self._recall)
        self.store.save_pool(self.pool.digest, self.pool.targets)
        for guards in (self.house_guards, *self.guards.values()):
            if guards.digest:
                self.store.save_guards(guards.digest, guards.data)
        for route, policy in self.policies.items():
            resumed = self.resume(route)
            if resumed is not None:
                self.serving[route] = resumed
            else:
                self.publish(route, policy.copy(), self._begin(policy))
        for target in self.pool:
            self.publish(target.name, Fixed(plan=Single(target=target.name), only=True), STRAIGHT)
        self.learner.start()
        if self.replica is not None:
            await self.replica.start()
            return
        for route in self.policies:
            for trace, lesson in self.store.unlearned(route, limit=10**9):
                self.learner.submit(route, trace, rewards.reward(trace, lesson))

    def _recall(self) -> None:
        """Read in the store what was spent, how long calls took and who judged how. Blocks."""
        self.spending.rebuild(lambda: self.store.traces(newest_first=True), time.time(), self.pool.estimate_usd)
        self.world.lateness.recall(self.store.traces(newest_first=True))
        if self.trust is not None:
            self.trust.learn(self.store.judged(newest=self.trust.memory, routes=tuple(self.policies), revised=True))

    async def stop(self, *, within_seconds: float = 10.0, close: bool = True) -> None:
        """Let plans that are being run end, for as long as `within_seconds`; learn and write what is waiting, then close.

        `close` False: leave the store and the ledger open, for the router that has taken this one's place.
        """
        until = perf_counter() + within_seconds
        while self.under_way and (left := until - perf_counter()) > 0.0:  # who entered may yet begin another
            await asyncio.wait(tuple(self.under_way), timeout=left)
        for leaving in tuple(self.leaving):  # it stops its driver, whether it has waited long enough or not
            leaving.cancel()
            await asyncio.wait([leaving])
        async with contextlib.AsyncExitStack() as each:  # in reverse, and all of them whatever one raises
            if close:
                each.push_async_callback(asyncio.to_thread, self.store.stop)
                if self.ledger is not None:
                    each.push_async_callback(self.ledger.stop)
            for driver in self.world.drivers.values():
                each.push_async_callback(driver.stop)
            for action in self.actions.values():
                each.push_async_callback(action.stop)
            each.callback(self.observer.stop)
            each.push_async_callback(asyncio.to_thread, self.learner.stop)
            if self.replica is not None:
                each.push_async_callback(self.replica.stop)

    def resume(self, route: str, *, version: int | None = None) -> Serving | None:
        """Return what the store's active version of a route is, or that `version`, if the route is configured as it was when its versions
        last began, else None.

        A config, trained model or signal that has changed begins a version of its own. A version from before such a change, made active
        again by hand, is served as it was then.
        """
        configured = self.policies[route]
        versions = self.store.versions(route)
        # The newest beginning of all: a config that was left and is taken up again begins anew, as any other change does.
        began = next((v for v in reversed(versions) if v.note.startswith(BEGIN)), None)
        active = next((v for v in versions if (v.active if version is None else v.version == version)), None)
        if began is None or active is None:
            return None
        if began.note != self._begin(configured) or began.digest != configured.digest():
            return None
        spec, state = self.store.load_policy(active.digest)
        policy = configured.copy() if spec == configured.spec() else build("policies", spec)
        policy.load(state)
        self.observer.check(policy.needs)
        return Serving(policy=policy, version=active.version, digest=active.digest)

    def _begin(self, policy: Policy) -> str:
        """Note of a version that has learned nothing yet: names the signals as they are configured, which features depend on."""
        signals = {name: self.observer.signals[name].spec() for name in policy.needs}
        return f"{BEGIN}, signals {digest(pack(signals))}"

    def publish(self, route: str, policy: Policy, note: str, learned: Sequence[str] = ()) -> None:
        """Keep a snapshot of `policy`, which has now learned from the traces `learned`, then let it serve `route`.

        A policy that is what it was (a method that does not learn from single answers) makes no new version.
        """
        now = self.serving.get(route)
        if learned and now is not None and policy.digest() == now.digest:
            self.store.forget_lessons(learned)
            return
        kept = self.store.save_policy(route, policy.spec(), policy.state(), note=note, learned=learned)
        self.serving[route] = Serving(policy=policy, version=kept.version, digest=kept.digest)

    async def __aenter__(self) -> Router:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _together(*covers: Cover) -> Cover | None:
    """Ask each of several who must cover a run."""
    if len(covers) < 2:
        return covers[0] if covers else None
    return lambda usd: all(cover(usd) for cover in covers)


def without_reply(outcome: Outcome) -> Outcome:
    """Drop the reply's bytes: they are forwarded, not kept."""
    return msgspec.structs.replace(outcome, reply=b"") if outcome.reply else outcome


CONTINUED = 200
"""Characters kept of what a model is asked to go on from: the steps before hold the rest."""


def recorded(step: Step, query: Query) -> Step:
    """Return a step as it is kept: without the reply's bytes, and without what stands elsewhere in the trace. A plan that thinks in turns sends the whole
    conversation with each call; kept whole, its trace would grow with the square of its length."""
    call = step.call
    if call is not None and call.messages is not None:
        own = 0
        for mine, theirs in zip(query.messages, call.messages, strict=False):
            if mine is not theirs:
                break
            own += 1
        messages = call.messages[own:]
        last = messages[-1] if messages else None
        if last is not None and last.role == "assistant" and len(last.text) > CONTINUED:
            messages = (*messages[:-1], msgspec.structs.replace(last, content="… " + last.text[-CONTINUED:]))
        if own or messages is not call.messages:
            call = msgspec.structs.replace(call, messages=messages, after=own)
    return msgspec.structs.replace(step, call=call, outcome=without_reply(step.outcome))
