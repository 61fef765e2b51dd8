"""Checks that every member of a family passes, ours and yours: call them from your own tests.

    from fairlead.testing import check_policy

    def test_mine() -> None:
        check_policy(lambda: Mine(features=Features(signals=("length",))))

Each check takes `make`, a callable without arguments that gives a fresh component (the same each time), and raises an `AssertionError`
that names the property that does not hold. They run on a toy: three targets, and short and long prompts, of which the short ones
are best answered by one target and the long ones by another. Nothing here needs a network or pytest.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from math import inf
from random import Random
from typing import Any

import msgspec
import numpy as np

from fairlead import catalog
from fairlead.actions.base import Action, Passage
from fairlead.answers.base import Reader
from fairlead.build import construct
from fairlead.component import Component, finite, pack, unpack
from fairlead.conditions import Condition, holds, parse
from fairlead.errors import NotFitted
from fairlead.plans.base import decode, to_data
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal
from fairlead.pool import Pool
from fairlead.predictors.base import Predictor
from fairlead.signals.base import Observer, Range, Signal, within
from fairlead.table import OutcomeTable
from fairlead.targets import wire
from fairlead.targets.base import Driver
from fairlead.types import (
    UNLIMITED,
    Call,
    Decision,
    Failure,
    FailureKind,
    Forecast,
    Limits,
    Message,
    Option,
    Outcome,
    Part,
    Plan,
    Profile,
    Query,
    Reading,
    Reward,
    Signals,
    Sink,
    Step,
    Target,
    Tokens,
    Trace,
)
from fairlead.worlds.base import Run
from fairlead.worlds.live import Live
from fairlead.worlds.replay import Recorded, replay

# ------------------------------------------------------------------------------------------------------------- the toy

TARGETS = (
    Target(name="ant", profile=Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)),
    Target(name="bee", profile=Profile(input_usd_per_mtok=3.0, output_usd_per_mtok=9.0)),
    Target(name="cat", profile=Profile(input_usd_per_mtok=0.1, output_usd_per_mtok=0.2)),
)
QUALITY = {"ant": (0.95, 0.45), "bee": (0.2, 0.9), "cat": (0.4, 0.4)}
"""Mean quality of each target on (short, long) prompts. Random: 0.55. The best single target: 0.70. The best each time: 0.925."""
_WORDS = (
    "river",
    "stone",
    "window",
    "garden",
    "market",
    "engine",
    "letter",
    "winter",
    "bridge",
    "copper",
    "violin",
    "harbour",
)


def toy(*, queries: int = 200, seed: int = 0) -> OutcomeTable:
    """Make a table of short and long prompts with the quality, cost and latency of three targets."""
    random = Random(seed)
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "query_id", "prompt", "model", "quality", "cost_usd", "latency_s", "input_tokens", "output_tokens", "response"
        )
    }  # fmt: skip
    for i in range(queries):
        long = i % 2
        words = random.choices(_WORDS, k=random.randint(120, 160) if long else random.randint(4, 7))
        if long:
            words = [f"{w} {random.randint(10, 99)}." for w in words]
        prompt = f"{' '.join(words)} ({i})?"
        for target in TARGETS:
            quality = QUALITY[target.name][long] + random.gauss(0.0, 0.05)
            tokens = Tokens(input=len(prompt) // 4, output=random.randint(5, 40))
            row = (f"q{i}", prompt, target.name, min(1.0, max(0.0, quality)), target.profile.usd(tokens))
            for name, value in zip(
                columns, (*row, tokens.output / 50, tokens.input, tokens.output, "yes"), strict=True
            ):
                columns[name].append(value)
    return OutcomeTable.from_columns(columns, source="toy")


def observer_of(needs: Sequence[str]) -> Observer:
    """Make an observer of the signals in `needs`, each built with its defaults from the catalogue."""
    return Observer(signals={name: catalog.find("signals", name)() for name in needs})


class ToyDriver(Driver):
    """A target whose replies follow from a hash of (target, query, draw, purpose): for checks of plans and worlds.

    Everything a plan may look at is filled in: text (one of a few answers), log-probabilities, confidence, tokens, price.
    """

    def __init__(
        self,
        *,
        name: str,
        profile: Profile = TARGETS[0].profile,
        timeout_seconds: float = 30.0,
        error: FailureKind | None = None,
        latency_seconds: float = 0.0,
    ) -> None:
        self.name, self.profile, self.timeout_seconds = name, profile, timeout_seconds
        self.error = error
        self.latency_seconds = latency_seconds
        self.calls = 0

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        self.calls += 1
        key = f"{self.name} {query.id} {call.sample} {call.purpose}"
        digest = blake2b(key.encode(), digest_size=8).digest()
        await asyncio.sleep(self.latency_seconds)
        for _ in range(digest[0] % 4):
            await asyncio.sleep(0)
        if self.error is not None:
            return Outcome(error=Failure(kind=self.error, message="as it was told to"))
        text = ("four", "five", "six")[digest[1] % 3]
        if sink is not None:
            await sink(b'data: {"choices":[{"index":0,"delta":{"content":"' + text.encode() + b'"}}]}\n\n')
        tokens = Tokens(input=len(query.text) // 4 + 1, output=1 + digest[2] % 20)
        whole = wire.completions([wire.Choice(text=text)], id=query.id, created=0, model=self.name, tokens=tokens)
        return Outcome(
            text=text,
            reply=whole,
            tokens=tokens,
            logprobs=(-digest[3] / 128.0,),
            first_entropy=digest[4] / 128.0,
            confidence=digest[5] / 255.0,
            quality=digest[6] / 255.0,
            finish="stop",
        )


# --------------------------------------------------------------------------------------------------------- what is held


@contextmanager
def _holds(what: str) -> Iterator[None]:
    """Put the name of the property before whatever goes wrong inside."""
    try:
        yield
    except AssertionError as e:
        raise AssertionError(f"{what}: {e}" if str(e) else what) from e
    except Exception as e:
        raise AssertionError(f"{what}: {type(e).__name__}: {e}") from e


def _same(a: object, b: object, message: str) -> None:
    if a != b:
        raise AssertionError(f"{message}\n  {a!r}\n  {b!r}")


def _true(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def check_component(make: Callable[[], Component]) -> None:
    """Check what every component promises: keyword arguments kept under their names, a spec that builds it again, a copy."""
    component = make()
    kind = type(component)
    for name, parameter in inspect.signature(kind).parameters.items():
        named = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        _true(named, f"{kind.__name__}({name}) must be keyword-only, so that a config file can name it")
        _true(name in dir(component), f"{kind.__name__} must store the argument {name!r} under its own name")
    _true(component.family, f"{kind.__name__} has no family; derive it from the base class of one")
    with _holds("two fresh components are the same"):
        _same(component.digest(), make().digest(), "their digests differ")
    with _holds("the spec builds the component again"):
        spec = json.loads(json.dumps(component.spec()))
        _same(spec.pop("type"), kind.type_name(), "the spec names another type")
        again = construct(kind, spec, path="$")
        again.load(unpack(pack(component.state())))
        _same(again.digest(), component.digest(), f"{again!r} is not {component!r}")
    with _holds("a copy is the same and independent"):
        copy = component.copy()
        _same(copy.digest(), component.digest(), "the copy differs")
    _true(kind.__name__ in repr(component), "repr names the class")


# --------------------------------------------------------------------------------------------------------------- signals


def check_signal(make: Callable[[], Signal]) -> None:
    """Check one signal: pure, finite, at ease with empty, long and strange text; and what it says keeps to its ranges and laws."""
    check_component(make)
    signal = make()
    ranges = signal.ranges()
    laws = [parse(law) for law in (*signal.laws(), *signal.laws_at((-1, 0, 0.25, 0.5, 1, 2, 1000)))]
    named = signal.parts()
    _true(named is None or named == set(ranges) - {"value"}, "ranges names every part, and no other")
    if signal.slow:
        _true(all(r.null for r in ranges.values()), "a slow signal may be late: every key can be null")
        _keeps(Reading(confidence=0.0, late=True), ranges, laws, "when it is late")
    strange = "naïve 日本語 \U0001f600 \x00 {[(\\ $x^2$ ```py\nprint(1)\n```"
    texts = ["", " ", "What is 2 + 2?", strange, "word " * 3000]
    queries = [Query.ask(text, id=f"q{i}") for i, text in enumerate(texts)]
    queries.append(Query(id="none", messages=()))
    parts = (Part(text="see"), Part(type="image_url"))
    queries.append(Query(id="parts", messages=(Message(role="user", content=parts), Message(role="assistant"))))
    for query in queries:
        shown = f"on {query.text[:40]!r}"
        before, state = msgspec.msgpack.encode(query), signal.digest()
        with _holds(f"reading never fails {shown}"):
            reading, again = signal.read(query), signal.read(query)
        _same(msgspec.msgpack.encode(query), before, f"reading must not change the query {shown}")
        _same(signal.digest(), state, f"reading must not change the signal {shown}")
        again = msgspec.structs.replace(again, seconds=reading.seconds)
        _same(again, reading, f"the same query must give the same reading {shown}")
        _true(0.0 <= reading.confidence <= 1.0, f"confidence must lie in [0, 1] {shown}")
        for value in (reading.value, *reading.parts.values()):
            _true(not isinstance(value, float) or math.isfinite(value), f"values must be finite {shown}")
        vector = np.frombuffer(reading.vector, "<f4")
        _true(bool(np.isfinite(vector).all()), f"vectors must be finite {shown}")
        _keeps(reading, ranges, laws, shown)


def _keeps(reading: Reading, ranges: Mapping[str, Range], laws: Sequence[Condition], shown: str) -> None:
    """Check one reading against what its signal says of itself."""
    said = Signals(readings={"it": reading})
    known = {"it" if key == "value" else f"it.{key}": range for key, range in ranges.items()}
    for key, value in (("value", reading.value), *reading.parts.items()):
        plain = type(value) in (bool, int, float, str) or (key == "value" and value is None)
        _true(plain, f"{key} must be Python's own bool, int, float or str, not {type(value)} {shown}")
    for part in reading.parts:
        _true(f"it.{part}" in known, f"ranges must name the part {part!r} {shown}")
    _true(reading.value is None or "it" in known, f"ranges must name the value {shown}")
    for key, range in known.items():
        _true(within(said.get(key), range), f"{key} is {said.get(key)!r}, beyond its range {range} {shown}")
    own = Signals(readings={"value": reading, **{k: Reading(value=v) for k, v in reading.parts.items()}})
    for law in laws:
        _true(holds(law, own), f"a law does not hold {shown}: {law}")


# --------------------------------------------------------------------------------------------------------------- actions


def check_action(make: Callable[[], Action]) -> None:
    """Check one action: its place is stated, it proceeds at most once, passes failures on, and keeps nothing of a request in itself."""
    check_component(make)
    action = make()
    _true(isinstance(action.order, int), f"{action.type_name()} must state its order")
    good = Outcome(text="four", target="ant", model="ant", finish="stop", usd=0.1)
    failed = Outcome(target="ant", error=Failure(kind="unavailable", message="down"))

    async def pass_through(answer: Outcome) -> tuple[Outcome, int, Passage]:
        calls = 0

        async def proceed(passage: Passage) -> Outcome:
            nonlocal calls
            calls += 1
            passage.plan.targets()
            return answer

        plan = Single(target="ant")
        decision = Decision(
            options=(Option(plan=plan, probability=1.0),),
            chosen=0,
            propensity=1.0,
            eligible=tuple(t.name for t in TARGETS),
        )
        query = Query.ask("What is 2 + 2?", id="q")
        passage = Passage(query=query, signals=Signals(), decision=decision, plan=plan, sink=None)
        await action.start()
        try:
            outcome = await action.act(passage, proceed)
        finally:
            await action.stop()
        return outcome, calls, passage

    state = action.digest()
    for answer in (good, failed):
        with _holds("an action gives an outcome"):
            outcome, calls, passage = asyncio.run(pass_through(answer))
        _true(isinstance(outcome, Outcome), "act must return an Outcome")
        _true(calls <= 1, "an action may proceed once at most")
        _true(passage.query.id == "q", "the query must keep its id")
        if calls == 1 and answer is failed:
            _same(outcome.error, failed.error, "a failure must be passed on")
        for act in passage.acts:
            _true("2 + 2" not in repr(act) and "four" not in repr(act), "an act must not hold the text it saw")
    _same(action.digest(), state, "an action must keep nothing of a request in its parameters or state")


# ------------------------------------------------------------------------------------------------------------ predictors


def check_predictor(make: Callable[[], Predictor], *, observer: Observer | None = None) -> None:
    """Check one predictor: fits, forecasts within bounds, knows more than nothing, can be stored, and changes nothing else."""
    check_component(make)
    predictor = make()
    observer = observer or observer_of(predictor.needs)
    table = toy().observed(observer, predictor.needs)
    signals = table.observations(predictor.needs)
    if predictor.online:
        with _holds("a predictor that learns online forecasts before it has learned anything"):
            for f in predictor.predict(signals[0], TARGETS):
                check_forecast(f)
    else:
        try:
            predictor.predict(signals[0], TARGETS)
        except NotFitted:
            pass
        else:
            raise AssertionError("predict must raise NotFitted before fit, unless the predictor learns online")
    digest = table.digest
    with _holds("fits the toy table"):
        predictor.fit(table.take(range(150)))
    _same(table.digest, digest, "fit must not change the table")
    _true(finite(predictor.state()), "state must be finite after a fit: what is not known needs a mask, not NaN")
    again = make()
    again.fit(table.take(range(150)))
    _same(again.digest(), predictor.digest(), "the same fit must give the same state")

    stored = make()
    with _holds("what was learned can be stored and loaded"):
        stored.load(unpack(pack(predictor.state())))
        _same(stored.digest(), predictor.digest(), "the state that was loaded differs")
    stranger = Target(name="stranger", profile=Profile(quality=0.7))
    pool = (*TARGETS, stranger)
    state = predictor.digest()
    for s in signals[150:170]:
        forecasts = predictor.predict(s, pool)
        _same(len(forecasts), len(pool), "predict must return one forecast per target")
        for target, f in zip(pool, forecasts, strict=True):
            check_forecast(f, target.name)
        _same(predictor.predict(s, pool), forecasts, "the same query must give the same forecasts")
        _same(stored.predict(s, pool), forecasts, "a stored and loaded predictor must forecast the same")
        _same(predictor.predict(s, pool[::-1])[::-1], forecasts, "the order of targets must not matter")
        _same(predictor.predict(s, pool[:1]), forecasts[:1], "which other targets are asked for must not matter")
    _same(predictor.digest(), state, "predict must not change the predictor")

    won = [_gained(table, i, predictor.predict(signals[i], TARGETS)) for i in range(150, 200)]
    with _holds("choosing by the forecasts beats choosing at random (0.55) on the toy"):
        _true(float(np.mean(won)) > 0.6, f"mean quality is {np.mean(won):.3f}")

    with _holds("updates, stored and loaded half way, go on as if nothing had happened"):
        whole, half = predictor.copy(), predictor.copy()
        traces = [_traced(table, i, TARGETS[i % 3].name) for i in range(20)]
        for t, r in traces[:10]:
            before = msgspec.json.encode(t)
            whole.update(t, r)
            half.update(t, r)
            _same(msgspec.json.encode(t), before, "update must not change the trace")
        resumed = make()
        resumed.load(unpack(pack(half.state())))
        for t, r in traces[10:]:
            whole.update(t, r)
            resumed.update(t, r)
        _same(resumed.digest(), whole.digest(), "the states differ")
    with _holds("an outcome of weight 0 changes nothing"):
        before_all = whole.digest()
        whole.update(traces[0][0], msgspec.structs.replace(traces[0][1], weight=0.0))
        _same(whole.digest(), before_all, "the states differ")
    _true(finite(whole.state()), "state must be finite after updates, or the learner quarantines every lesson")
    _same(predictor.digest(), state, "updating a copy must not change the original")
    if predictor.online:
        with _holds("learning online alone beats choosing at random (0.55) on the toy"):
            alone = make()
            for i in range(150):
                alone.update(*_traced(table, i, TARGETS[(i * 7) % 3].name))
            _true(finite(alone.state()), "state must be finite after updates without a fit")
            won = [_gained(table, i, alone.predict(signals[i], TARGETS)) for i in range(150, 200)]
            _true(float(np.mean(won)) > 0.6, f"mean quality is {np.mean(won):.3f}")
    if predictor.mergeable:
        with _holds("fits on two halves, merged, equal the fit on the whole"):
            left, right = make(), make()
            left.fit(table.take(range(75)))
            right.fit(table.take(range(75, 150)))
            left.merge(right)
            for a, b in zip(left.predict(signals[150], TARGETS), predictor.predict(signals[150], TARGETS), strict=True):
                _true(math.isclose(a.quality, b.quality, abs_tol=1e-6), f"the forecasts differ: {a} and {b}")


def check_forecast(forecast: Forecast, name: str = "") -> None:
    """Check that a forecast is finite and within bounds."""
    _true(0.0 <= forecast.quality <= 1.0, f"{name}: quality must lie in [0, 1], not {forecast.quality}")
    for field in ("quality_sd", "usd", "usd_sd", "seconds", "joules"):
        value = getattr(forecast, field)
        _true(value is None or (math.isfinite(value) and value >= 0.0), f"{name}: {field} must not be {value}")


def _gained(table: OutcomeTable, query: int, forecasts: Sequence[Forecast]) -> float:
    best = max(range(len(forecasts)), key=lambda k: forecasts[k].quality)
    return float(table.quality_QM[query, table.models.index(TARGETS[best].name)])


def _traced(
    table: OutcomeTable, i: int, chosen: str, query: Query | None = None, decision: Decision | None = None
) -> tuple[Trace, Reward]:
    """Make the trace and the reward of one query of the toy."""
    m = table.models.index(chosen)
    quality, usd, seconds = table.quality_QM[i, m], table.usd_QM[i, m], table.seconds_QM[i, m]
    option = Option(plan=Single(target=chosen), probability=1.0)
    outcome = Outcome(text="yes", target=chosen, usd=float(usd), seconds=float(seconds))
    trace = Trace(
        id=table.query_ids[i],
        at=0.0,
        query=query or Query(id=table.query_ids[i], messages=()),
        signals=table.signals[i] if table.signals is not None else Signals(),
        decision=decision or Decision(options=(option,), chosen=0, propensity=1.0),
        steps=(Step(path=(0, 0), call=Call(target=chosen), outcome=outcome),),
        outcome=outcome,
        usd=float(usd),
        seconds=float(seconds),
    )
    return trace, Reward(quality=float(quality), usd=float(usd), seconds=float(seconds))


# -------------------------------------------------------------------------------------------------------------- policies


def check_policy(
    make: Callable[[], Policy], *, observer: Observer | None = None, contextual: bool | None = None
) -> None:
    """Check one policy: a proper distribution over eligible targets, pure, replayable, and learning if it learns.

    One that holds other policies must keep what they require: where one lets a single target act, nobody else is asked. Candidates
    (`Policy.aside`) may be wrong, and require nothing.

    What weighs nothing (`Reward.weight`) must teach nothing. A policy that has a `learn` of its own must do better than random on the toy after 300 answers. If it is `contextual`, better than
    the best single target; None: as the class says of itself.
    """
    check_component(make)
    policy = make()
    observer = observer or observer_of(policy.needs)
    table = toy(queries=400).observed(observer, policy.needs)
    queries = list(table.queries())
    pool = Pool(targets=TARGETS)

    def play(who: Policy, start: int, stop: int) -> list[float]:
        won = []
        for i in range(start, stop):
            query = msgspec.structs.replace(queries[i], arrival=i)
            decision = who.decide(query, table.observations(who.needs)[i], pool, seed=7)
            trace, reward = _traced(table, i, decision.plan.targets()[0], query, decision)
            before = msgspec.json.encode(trace)
            who.learn(trace, reward)
            _same(msgspec.json.encode(trace), before, "learn must not change the trace")
            won.append(reward.quality)
        return won

    fresh = make()
    learned = make()
    with _holds("decides and learns"):
        won = play(learned, 0, 300)
    for who, when in ((fresh, "before learning"), (learned, "after learning")):
        _check_proposals(who, when, table, queries)
    if type(policy).learn is not Policy.learn:
        with _holds("learns to do better than random (0.55) on the toy"):
            _true(float(np.mean(won[200:])) > 0.6, f"mean quality of answers 200 to 300 is {np.mean(won[200:]):.3f}")
        if policy.contextual if contextual is None else contextual:
            with _holds("learns to do better than the best single target (0.70) on the toy"):
                _true(
                    float(np.mean(won[200:])) > 0.8, f"mean quality of answers 200 to 300 is {np.mean(won[200:]):.3f}"
                )

    with _holds("stored, loaded and continued is the same as uninterrupted"):
        stored = make()
        stored.load(unpack(pack(learned.state())))
        _same(stored.digest(), learned.digest(), "the state that was loaded differs")
        whole = learned.copy_to_teach()
        before = learned.digest()
        _same(play(stored, 300, 340), play(whole, 300, 340), "the choices differ")
        _same(stored.digest(), whole.digest(), "the states differ")
        _same(learned.digest(), before, "learning on a copy must not change the original")
    with _holds("a lesson of weight 0 changes nothing"):
        for who in (make(), learned.copy()):
            before = who.digest()
            decision = who.decide(queries[300], table.observations(who.needs)[300], pool, seed=7)
            trace, reward = _traced(table, 300, decision.plan.targets()[0], queries[300], decision)
            who.learn(trace, msgspec.structs.replace(reward, weight=0.0))
            _same(who.digest(), before, "the states differ")
    with _holds("the same seed gives the same answers"):
        again = make()
        _same(play(again, 0, 50), won[:50], "the choices differ")
    with _holds("forgetting leaves a working policy"):
        learned.decay(0.5)
        _check_proposals(learned, "after decay", table, queries)
    with _holds("a required rule inside is kept"):
        _check_required(make, table.observations(policy.needs), queries)
    if policy.mergeable:
        with _holds("two halves merged equal the whole"):
            _check_merge(make, table)


class _Required(Policy):
    """Lets one target act and nobody take over, as a required rule does; counts how often it was asked."""

    def __init__(self, *, target: str) -> None:
        self.target = target
        self.asked = 0

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        self.asked += 1
        return Proposal([Option(plan=Single(target=self.target), probability=1.0)], fallbacks=())


def _check_required(make: Callable[[], Policy], signals: Sequence[Signals], queries: Sequence[Query]) -> None:
    """Put a required rule in the place of each policy inside, one at a time."""
    for argument, value in make().params().items():
        if argument in make().aside:
            continue
        held: list[str | None] = [None] if isinstance(value, Policy) else []
        if isinstance(value, dict):
            held = [key for key, inner in value.items() if isinstance(inner, Policy)]
        for key in held:
            for target in TARGETS:
                policy, rule = make(), _Required(target=target.name)
                setattr(policy, argument, rule if key is None else {**value, key: rule})
                where = f"{argument}{'' if key is None else f'.{key}'} lets {target.name} act alone"
                for i in (0, 1):
                    before = rule.asked
                    proposal = policy.propose(queries[i], signals[i], TARGETS)
                    if rule.asked == before:
                        continue
                    free = {o.plan for o in proposal.options if o.probability > 0.0}
                    _same(free, {Single(target=target.name)}, f"who may be asked where {where}")
                    over = proposal.fallbacks is not None and free.issuperset(proposal.fallbacks)
                    _true(over, f"nobody else may take over where {where}, not {proposal.fallbacks}")


def _check_proposals(policy: Policy, when: str, table: OutcomeTable, queries: list[Query]) -> None:
    signals = table.observations(policy.needs)
    helper = Target(name="elk", profile=Profile(answers=False, input_usd_per_mtok=0.0, output_usd_per_mtok=0.0))
    extra = Target(name="dog", profile=Profile(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0))
    for i in (0, 1, 390, 391):
        query, state, attributes = queries[i], policy.digest(), _names(policy)
        before = msgspec.msgpack.encode(query)
        for targets in (TARGETS, TARGETS[:1], TARGETS[1:], (*TARGETS, extra), (extra,), (*TARGETS, helper)):
            names = {t.name for t in targets}
            shown = f"{when}, {' '.join(sorted(names))}"
            with _holds(f"targets may join and leave ({shown})"):
                proposal = policy.propose(query, signals[i], targets)
            told = _told(proposal)
            quiet = "propose must set no attributes, since a learner may be copying them; use a slot"
            _same(_names(policy), attributes, f"{quiet} ({shown})")
            _true(proposal.options, f"there must be at least one option ({shown})")
            p = [o.probability for o in proposal.options]
            _true(all(math.isfinite(v) and v >= 0.0 for v in p), f"probabilities must be finite, not {p} ({shown})")
            _true(abs(sum(p) - 1.0) < 1e-6, f"probabilities must sum to 1, not {sum(p)} ({shown})")
            for option in proposal.options:
                stray = set(option.plan.targets()) - names
                _true(not stray, f"only eligible targets may be proposed, not {sorted(stray)} ({shown})")
                alone = option.plan.targets() == (helper.name,)
                _true(
                    not alone, f"who only helps must not be turned to; see `fairlead.policies.base.answering` ({shown})"
                )
                if option.forecast is not None:
                    check_forecast(option.forecast, option.plan.targets()[0])
            _same(told, _told(policy.propose(query, signals[i], targets)), f"propose must be pure ({shown})")
            turned = policy.propose(query, signals[i], targets[::-1])
            _same(told, _told(turned), f"the order of targets must not matter ({shown})")
            blank = msgspec.structs.replace(query, messages=(), body={})
            _same(told, _told(policy.propose(blank, signals[i], targets)), f"propose must not read the text ({shown})")
        _same(policy.digest(), state, f"propose must not change the policy ({when})")
        _same(msgspec.msgpack.encode(query), before, f"propose must not change the query ({when})")
        pool = Pool(targets=TARGETS)
        a, b = (policy.decide(query, signals[i], pool, seed=3) for _ in range(2))
        _same((a.plan, a.propensity), (b.plan, b.propensity), f"the same seed must give the same decision ({when})")


def _names(component: Component) -> list[tuple[str, list[str]]]:
    """Name what a component and all that is nested in it have in their `__dict__`."""
    return [(path, list(vars(part))) for path, part in component.walk()]


def _check_merge(make: Callable[[], Policy], table: OutcomeTable) -> None:
    whole, left, right = make(), make(), make()
    for i in range(120):
        trace, reward = _traced(table, i, TARGETS[(i * 7) % 3].name)
        whole.learn(trace, reward)
        (left if i < 60 else right).learn(trace, reward)
    before = right.digest()
    left.merge(right)
    _same(right.digest(), before, "merge must not change the other")
    signals = table.observations(whole.needs)
    for i in range(300, 340):
        a, b = (w.propose(Query(id="q", messages=()), signals[i], TARGETS) for w in (left, whole))
        for x, y in zip(a.options, b.options, strict=True):
            _same(x.plan, y.plan, "the options differ")
            close = math.isclose(x.probability, y.probability, abs_tol=1e-6)
            _true(close, f"the probabilities differ: {x.probability} and {y.probability}")
            if x.forecast is not None and y.forecast is not None:
                close = math.isclose(x.forecast.quality, y.forecast.quality, abs_tol=1e-6)
                _true(close, f"the forecasts differ: {x.forecast} and {y.forecast}")


def _told(proposal: Proposal) -> tuple[Any, ...]:
    """Put options in a comparable form: order and numbers included, probabilities to 12 digits."""
    return tuple((o.plan, round(o.probability, 12), o.forecast) for o in proposal.options)


# ----------------------------------------------------------------------------------------------------------------- plans


def check_plan(make: Callable[[], Plan]) -> None:
    """Check one plan: it can be written and read back, runs live as it replays, charges every call, and survives failures.

    Not for use inside a running event loop: it runs its own.
    """
    plan = make()
    names = plan.targets()
    _true(names, "targets() must name at least one target")
    _same(plan, make(), "two fresh plans must be equal")
    with _holds("a plan can be hashed, since policies tell options apart by it: give one with a dict a __hash__"):
        _same(hash(plan), hash(make()), "equal plans must have equal hashes")
    with _holds("written as JSON and read back, the plan is the same"):
        _same(decode(json.loads(json.dumps(to_data(plan)))), plan, "it changed")
    queries = [Query.ask(f"question {i}", id=f"q{i}") for i in range(8)]
    for query in queries:
        run, calls = _live(plan, query)
        _check_run(plan, query, run, calls, "all is well")
        _true(run.outcome.ok, f"with every target well the plan must answer, not {run.outcome.error}")
        _same(comparable(_live(plan, query)[0]), comparable(run), "the same replies must give the same run")
        for quality in (None, 0.0, 1.0):
            steps = [_judged(s, quality) for s in run.steps]
            other = replay(plan, query, Recorded(steps))
            _same(
                [(s.path, s.call) for s in other.steps],
                [(s.path, s.call) for s in run.steps],
                "a plan must not read outcome.quality",
            )
            _same(other.outcome.text, run.outcome.text, "a plan must not read outcome.quality")
        kinds: tuple[FailureKind, ...] = ("unavailable", "rate_limited", "timeout", "bad_request", "internal")
        for kind in kinds:
            for broken in (*((name,) for name in names), names):
                run, calls = _live(plan, query, broken=dict.fromkeys(broken, kind))
                _check_run(plan, query, run, calls, f"{', '.join(broken)} fail: {kind}")
                if set(broken) == set(names):
                    _true(not run.outcome.ok, f"with every target failing ({kind}) the plan must report a failure")
        for limits in (Limits(calls=1), Limits(calls=2), Limits(usd=2e-5), Limits(usd=1e-9)):
            run, calls = _live(plan, query, limits=limits)
            _check_run(plan, query, run, calls, f"under {limits}")
            gates = sum(s.call is not None and s.call.purpose == "gate" for s in run.steps)
            _true(calls - gates <= limits.calls, f"{calls} calls were made under {limits}, {gates} of them to gates")
            _true((run.usd or 0.0) <= limits.usd, f"{run.usd} USD were spent under {limits}")


def _check_run(plan: Plan, query: Query, run: Run, calls: int, when: str) -> None:
    """Check one live run against its own record."""
    error = run.outcome.error
    broke = error is not None and error.message.startswith("plan broke")
    _true(not broke, f"the plan must not raise ({when}): {error}")
    if run.outcome.ok and run.outcome.reply:
        sent = msgspec.json.decode(run.outcome.reply)["choices"][0]["message"]["content"]
        _same(
            sent,
            run.outcome.text,
            f"the reply that is forwarded must say what the answer says; see `plans.base.saying` ({when})",
        )
    made = [
        s for s in run.steps if s.call is not None and (s.outcome.error is None or s.outcome.error.kind != "budget")
    ]
    stray = {s.call.target for s in made if s.call is not None} - set(plan.targets())
    _true(not stray, f"targets() must name every target that is called, and lacks {sorted(stray)} ({when})")
    _same(len(made), calls, f"every call must be on the record ({when})")
    spent = math.fsum(s.outcome.usd or 0.0 for s in made)
    _true(run.usd is not None and math.isclose(run.usd, spent, abs_tol=1e-12), f"every call must be charged ({when})")
    again = replay(plan, query, Recorded(run.steps))
    _same(comparable(again), comparable(run), f"live must equal the replay of its own record ({when})")


def _live(
    plan: Plan, query: Query, *, broken: dict[str, FailureKind] | None = None, limits: Limits = UNLIMITED
) -> tuple[Run, int]:
    drivers = {name: ToyDriver(name=name, error=(broken or {}).get(name)) for name in plan.targets()}

    def bound(call: Call, query: Query) -> float:
        return drivers[call.target].profile.usd(Tokens(input=len(query.text) // 4 + 1, output=20)) or 0.0

    run = asyncio.run(Live(drivers=drivers, estimate=bound).run(plan, query, limits=limits))
    return run, sum(d.calls for d in drivers.values())


def comparable(run: Run) -> tuple[Any, ...]:
    """Return all of a run but its times, so that a live run can be compared with its replay."""
    timeless = [(s.path, s.call, _timeless(s.outcome)) for s in run.steps]
    return _timeless(run.outcome), timeless, run.usd, run.tokens


def _timeless(outcome: Outcome) -> Outcome:
    return msgspec.structs.replace(outcome, seconds=0.0, first_token_seconds=None)


def _judged(step: Step, quality: float | None) -> Step:
    return msgspec.structs.replace(step, outcome=msgspec.structs.replace(step.outcome, quality=quality))


# --------------------------------------------------------------------------------------------------------------- answers

_SCRAPS = (
    "", " ", "\n", "\t", "\r\n", "\x00", "\x0c", "\u2028", "\ud800", "\u0130", "\u1e9e", "a", "B", "x = 1", "def f(x):", "    return x", "no", "not",
    "the answer is", "1", "1,000", "0.50", "1/2", "2/6", "-", "+", ".", "!", "?", "1e5", "\\frac{1}{2}", "\\", '"', "'", "`", "```", "```python\n",
    "\n```\n", "#", "//", "/*", "*/", "(", ")", "[", "]", "{", "}", '{"a": 1.0}', "[1, 2]", "null", "true", "NaN", ",", ":", ";", "it is safe", "isn't",
)  # fmt: skip


def check_reader(make: Callable[[], Reader], *, texts: Sequence[str] = (), rounds: int = 300) -> None:
    """Check one reader of answers: pure, at ease with any text, its normal form stays as it is, and who agrees does not depend on the order.

    Args:
        make: gives a reader.
        texts: further texts to try, besides strange ones and `rounds` mixtures of scraps.
        rounds: how many.
    """
    random = Random(0)
    mixed = ["".join(random.choices(_SCRAPS, k=random.randint(1, 9))) for _ in range(rounds)]
    tried = [*texts, *_SCRAPS, "[" * 5000, "1," * 5000, "((" * 5000, '{"a":' * 2000, "word " * 3000, *mixed]
    reader, again = make(), make()
    for text in tried:
        shown = f"on {text[:60]!r}"
        with _holds(f"reading never fails {shown}"):
            found = reader.read(text)
        _same(again.read(text), found, f"the same text must give the same answer {shown}")
        if found is not None:
            _true(found, f"no answer is None, not an empty text {shown}")
            _same(reader.read(found), found, f"an answer in normal form must be read as it stands {shown}")
    for _ in range(rounds):
        few = [reader.read(t) for t in random.choices(tried, k=random.randint(0, 6))]
        few += random.choices([*few, None], k=random.randint(0, 3))
        groups = reader.group(few)
        _same(len(groups), len(few), "each answer has its place in the groups")
        numbered = list(dict.fromkeys(g for g in groups if g is not None))
        _same(numbered, list(range(len(numbered))), f"groups count from 0 in order of first appearance, of {few}")
        _same(
            [g is None for g in groups],
            [a is None for a in few],
            f"no answer, and nothing else, is in no group, of {few}",
        )
        order = random.sample(range(len(few)), len(few))
        other = dict(zip(order, reader.group([few[i] for i in order]), strict=True))
        for i, a in enumerate(few):
            for j, b in enumerate(few[:i]):
                together = groups[i] is not None and groups[i] == groups[j]
                _true(together or a is None or a != b, f"equal answers must share a group: {a!r} of {few}")
                _same(
                    other[i] is not None and other[i] == other[j],
                    together,
                    f"which answers share a group must not depend on their order: {a!r} and {b!r} of {few}",
                )


# --------------------------------------------------------------------------------------------------------------- targets


async def check_target(make: Callable[[], Driver], *, query: Query | None = None) -> None:
    """Check one driver against whatever it calls, which should answer: whole and streamed, alone and side by side."""
    check_component(make)
    driver = make()
    if query is None and "chat" not in driver.target.profile.tasks:
        query = Query(id="q", messages=(), task="embeddings", body={"input": msgspec.Raw(b'"What is 2 + 2?"')})
    query = query or Query.ask("What is 2 + 2?", id="q")
    call = Call(target=driver.name)
    await driver.start()
    try:
        outcome = await driver.ask(call, query)
        _check_answer(driver, outcome, "whole")
        sent: list[bytes] = []

        async def sink(events: bytes) -> None:
            sent.append(events)

        streamed = await driver.ask(call, query, sink)
        _check_answer(driver, streamed, "streamed")
        _same(streamed.streamed, bool(sent), "streamed must say whether anything went to the client")
        if sent:
            _same(_text_of(b"".join(sent)), streamed.text, "what was streamed must be the outcome's text")
        side_by_side = await asyncio.gather(*(driver.ask(call, query) for _ in range(5)))
        for each in side_by_side:
            _check_answer(driver, each, "side by side")
    finally:
        await driver.stop()


def _check_answer(driver: Driver, outcome: Outcome, when: str) -> None:
    _true(outcome.ok, f"the target must answer ({when}), not {outcome.error}")
    _same(outcome.target, driver.name, f"the outcome must name its target ({when})")
    said = outcome.text or outcome.tool_calls or b'"embedding"' in outcome.reply
    _true(said, f"an answer has text, tool calls or vectors ({when})")
    _true(0.0 <= outcome.seconds < inf, f"seconds must be measured ({when})")
    if outcome.tokens is not None:
        counts = msgspec.structs.astuple(outcome.tokens)
        _true(all(n >= 0 for n in counts), f"tokens must not be negative ({when}): {outcome.tokens}")
    for p in outcome.logprobs or ():
        _true(p <= 1e-6, f"a log-probability is at most 0, not {p} ({when})")


def _text_of(stream: bytes) -> str:
    """Join the text of whole server-sent events in the OpenAI chat format."""
    text = ""
    for line in stream.decode().splitlines():
        if line.startswith("data:") and "[DONE]" not in line:
            event = json.loads(line[5:])
            for choice in event.get("choices", ()):
                text += (choice.get("delta") or {}).get("content") or ""
    return text
