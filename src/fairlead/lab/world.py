"""The lab as a source of outcomes for the replay world: calls are worked out when a plan makes them, and remembered.

    lab = Lab(LabTarget("lab-judge", "lab-judge"), LabTarget("lab-eye", "lab-eye"))
    replay(plan, query, lab.of(query), estimate=lab.estimate)

A call gives exactly what the driver `local` (or `eye`) gives for it (the same seed rule, prompts, prices, failures), so plans that are tried here serve unchanged. What is
different is time: seconds are worked out from tokens at fixed rates of this pool on one idle core, so that a comparison of plans repeats itself to the
digit and does not hang on what else the machine does. Calls that are asked again (the same target, prompt, draw and settings, by another plan) are looked
up, and greedy ones whatever the draw: what plans share they share exactly.

Ours, no paper. Cost of a new call: that of the model, 1 to 20 ms; of a known one: 30 us.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from fairlead.errors import TargetError
from fairlead.lab.pool import TARGETS, LabTarget, describe, load
from fairlead.lab.shapes import Shape
from fairlead.targets.eye import Eye
from fairlead.targets.local import Local, asked_of
from fairlead.types import Call, Failure, Outcome, Path, Query, Tokens
from fairlead.worlds.lateness import Lateness
from fairlead.worlds.replay import LookUp

PREFILL: Final = 0.065e-6
"""Seconds per token read, layer and unit of width."""
DECODE: Final = (44e-6, 0.14e-6)
"""Seconds per token written and layer, and the same per unit of width."""
GLANCE: Final = 2e-4
"""Seconds that the reader of pictures takes."""
EYE: Final = "lab-eye"
"""As a model of a `LabTarget`: the reader of pictures (`fairlead.targets.eye`)."""


def seconds(shape: Shape, *, input_tokens: int, output_tokens: int) -> float:
    """Return what a call takes at the fixed rates, which fit the pool's models to a tenth."""
    a_layer = DECODE[0] + DECODE[1] * shape.width
    return shape.layers * (PREFILL * shape.width * input_tokens + a_layer * output_tokens)


class Lab:
    """Models to ask and what they said.

    Args:
        targets: what plans may call, by their names; the pool's six targets and those given.
        lateness: latencies over all queries, for plans that start duplicates.

    Raises:
        ConfigError: for a model or mode that is not there.
    """

    def __init__(self, *targets: LabTarget, lateness: Lateness | None = None) -> None:
        self.drivers = {t.name: _driver(t) for t in (*TARGETS, *targets)}
        self.lateness = lateness
        self.known: dict[tuple[Any, ...], Outcome] = {}
        self.asked = 0
        """Calls that were worked out, not looked up."""

    def of(self, query: Query, outcomes: Mapping[str, Outcome] | None = None) -> LookUp:
        """Return the outcomes of one query. `outcomes`: of targets that are no models of the lab, such as gates."""
        return _Asked(self, query, dict(outcomes or {}))

    def estimate(self, call: Call, query: Query) -> float | None:
        """Bound what a call costs: its prompt, and as much as it may write.

        0 for what is no model of the lab, and for a call that will be refused.
        """
        driver = self.drivers.get(call.target)
        try:
            if driver is None:
                return 0.0
            if isinstance(driver, Eye):
                return driver.look(call, query).usd
            asked = asked_of(call, query)
            prompt, arguments = driver.prompt(call, query), driver.arguments(asked, call, query)
        except TargetError:
            return 0.0
        model = describe(driver.model)
        read = len(prompt) + len(arguments["written"]) + 2
        most = min(arguments["max_tokens"], model.context_window - read)
        return driver.profile.usd(Tokens(input=read, output=most * (asked.n or 1)))

    def answer(self, call: Call, query: Query) -> Outcome:
        """Return what a target replies."""
        driver = self.drivers.get(call.target)
        if driver is None:
            failure = Failure(kind="not_found", message=f"the lab has no {call.target!r}; give it to Lab(...)")
            return Outcome(target=call.target, error=failure)
        try:
            if isinstance(driver, Eye):
                outcome = driver.look(call, query)
                return replace(outcome, target=driver.name, seconds=GLANCE, reply=b"")
            return self._answer(driver, call, query)
        except TargetError as e:
            return Outcome(target=driver.name, model=driver.name, error=e.failure)

    def _answer(self, driver: Local, call: Call, query: Query) -> Outcome:
        asked, prompt = asked_of(call, query), driver.prompt(call, query)
        arguments = driver.arguments(asked, call, query)
        draw = arguments["seed"] if arguments["temperature"] else None
        settings = tuple(sorted((k, v) for k, v in arguments.items() if k != "seed"))
        key = (call.target, prompt, draw, settings, asked.n)
        found = self.known.get(key)
        if found is None:
            model = load(driver.model)
            try:
                done = model.generate(prompt, n=asked.n or 1, **arguments)
            except ValueError as e:
                raise TargetError(Failure(kind="bad_request", message=str(e))) from e
            self.asked += 1
            outcome = driver.outcome(done, asked, query, None)
            tokens = outcome.tokens
            assert tokens is not None
            took = seconds(model.shape, input_tokens=tokens.input, output_tokens=tokens.output)
            usd = driver.profile.usd(tokens)
            found = self.known[key] = replace(outcome, target=driver.name, usd=usd, seconds=took, reply=b"")
        return found


def _driver(target: LabTarget) -> Local | Eye:
    if target.model == EYE:
        return Eye(name=target.name)
    return Local(name=target.name, model=target.model, mode=target.mode)


class _Asked(LookUp):
    """The lab's outcomes of one query."""

    def __init__(self, lab: Lab, query: Query, outcomes: dict[str, Outcome]) -> None:
        self.lab, self.query, self.outcomes = lab, query, outcomes
        self.lateness = lab.lateness

    def outcome(self, call: Call, path: Path) -> Outcome:
        """Ask, or look up."""
        given = self.outcomes.get(call.target)
        return self.lab.answer(call, self.query) if given is None else given
