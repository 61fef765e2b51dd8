"""A gate says what a trained predictor forecasts, live, in a config, and in a replay without its weights."""

from pathlib import Path

import pytest

from fairlead import config
from fairlead.bench.training import save, train
from fairlead.errors import ConfigError, NotFitted
from fairlead.plans.gates import consult, forecasts, said
from fairlead.plans.single import Single
from fairlead.policies.fixed import Fixed
from fairlead.pool import Pool
from fairlead.predictors.ridge import Ridge
from fairlead.signals.length import Length
from fairlead.targets.gate import Gate
from fairlead.testing import ToyDriver, toy
from fairlead.types import Call, Constraints, Failure, Forecast, Outcome, Profile, Query, Target
from fairlead.worlds.live import Live
from fairlead.worlds.replay import Recorded, replay
from fairlead.worlds.tabled import Beside, Tabled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    predictor, manifest, seen = train(toy(queries=200), {"type": "ridge"})
    save(tmp_path / "m", predictor, manifest, seen)
    return tmp_path


def config_of(**gate: object) -> dict[str, object]:
    return {"targets": {"small": {"type": "scripted"}, "hard": {"type": "gate", **gate}}, "routes": {}}


async def test_it_replies_with_the_predictors_forecasts(folder: Path) -> None:
    made = config.make(config_of(predictor={"trained": "m"}), folder=folder)
    gate = made.drivers["hard"]
    assert isinstance(gate, Gate)
    query = Query.ask("how many?")
    outcome = await gate.ask(consult("hard"), query)
    direct = gate.predictor.predict(gate.observer.read(query, gate.needs), [Target(name=n) for n in ("ant", "bee")])
    got = forecasts(outcome)
    assert [got["ant"], got["bee"]] == direct
    assert outcome.usd == 0.0
    assert gate.answer(query).text == outcome.text


async def test_what_it_said_is_in_the_record_and_a_replay_needs_no_weights() -> None:
    from msgspec import Struct

    from fairlead.types import Do, Plan, Steps

    class Gated(Struct, Plan, frozen=True, kw_only=True):
        def run(self, query: Query) -> Steps:
            (said_,) = yield Do(branches=(consult("hard"),))
            found = forecasts(said_)
            best = max(found, key=lambda n: found[n].quality) if found else "small"
            (outcome,) = yield Do(branches=(Call(target=best),), final=True)
            return outcome

        def targets(self) -> tuple[str, ...]:
            return "hard", "ant", "small"

    class Told(ToyDriver):
        async def _ask(self, call, query, sink):  # type: ignore[no-untyped-def]
            return Outcome(text=said({"ant": Forecast(quality=0.9)}), usd=0.0)

    drivers = {"hard": Told(name="hard"), "ant": ToyDriver(name="ant"), "small": ToyDriver(name="small")}
    run = await Live(drivers=drivers).run(Gated(), Query.ask("hi", id="q"))
    assert run.outcome.target == "ant"
    again = replay(Gated(), Query.ask("hi", id="q"), Recorded(run.steps))
    assert again.outcome.target == "ant"
    failed = Beside(Tabled(toy(), 0), {"hard": Outcome(error=Failure(kind="timeout")), "small": Outcome(text="ok")})
    assert replay(Gated(), Query.ask("hi"), failed).outcome.text == "ok"


@pytest.mark.parametrize("text", ["", "none", "[1]", '{"a": 3}', '{"a": {"quality": "high"}}'])
def test_rubbish_is_no_forecast(text: str) -> None:
    assert forecasts(Outcome(text=text)) == {}


def test_it_reads_signals_as_they_are_configured(folder: Path) -> None:
    data = {**config_of(predictor={"trained": "m"}), "signals": {"marks": {}}}
    made = config.make(data, folder=folder)
    gate = made.drivers["hard"]
    assert isinstance(gate, Gate)
    assert {gate.observer.signals[n] is made.signals[n] for n in gate.needs} == {True}


def test_one_that_was_not_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="fairlead train"):
        config.make(config_of(predictor={"type": "ridge"}))
    with pytest.raises(NotFitted):
        Gate(name="g", predictor=Ridge()).answer(Query.ask("hi"))
    assert Length().read(Query.ask("hi")).value is not None


def test_who_only_helps_is_eligible_whatever_is_asked_but_turned_to_by_nobody() -> None:
    helper = Target(name="judge", profile=Profile(answers=False, tools=False, context_tokens=1))
    pool = Pool(targets=[Target(name="small"), helper])
    query = Query.ask("a long question", tools=[{"type": "function"}])
    query = Query.ask("a long question") if not query.tools else query
    assert {t.name for t in pool.eligible(query).targets} == {"small", "judge"}
    assert pool.eligible(Query.ask("x", constraints=Constraints(allow=("small",)))).excluded == {
        "judge": "not among the allowed targets"
    }
    policy = Fixed(plan=Single(target="gone"))
    from fairlead.types import Signals

    decision = policy.decide(query, Signals(), pool)
    assert decision.plan == Single(target="small")


def test_a_gate_answers_nobody_whatever_its_profile_says() -> None:
    profile = Gate(name="g", predictor=Ridge(), profile=Profile(regions=frozenset({"eu"}))).profile
    assert (profile.answers, profile.input_usd_per_mtok, profile.regions) == (False, 0.0, frozenset({"eu"}))


@pytest.mark.parametrize("rubbish", ['{"a": {"quality": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}}", "\ud800"])
def test_rubbish_is_no_forecast_and_no_crash(rubbish: str) -> None:
    assert forecasts(Outcome(text=rubbish)) == {}
