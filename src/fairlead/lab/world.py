"""The lab as a source of outcomes for the replay world: calls are worked out when a plan makes them, and remembered.

    lab = Lab()
    replay(plan, query, lab.of(query))

A call gives exactly what the driver `local` gives for it (the same seed rule, prompts, prices), so plans that are tried here serve unchanged. What is
different is time: seconds are worked out from tokens at fixed rates of this pool on one idle core, so that a comparison of plans repeats itself to the
digit and does not hang on what else the machine does. Calls that are asked again (the same target, prompt, draw and settings, by another plan) are looked
up, and greedy ones whatever the draw: what plans share they share exactly.

Ours, no paper. Cost of a new call: that of the model, 1 to 20 ms; of a known one: 30 us.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from fairlead.lab.model import prompt_of, written_of
from fairlead.lab.pool import TARGETS, LabTarget, describe, load
from fairlead.lab.shapes import Shape
from fairlead.targets.local import Local, asked_of, seen
from fairlead.types import Call, Failure, Outcome, Path, Query
from fairlead.worlds.lateness import Lateness
from fairlead.worlds.replay import LookUp

PREFILL: Final = 0.065e-6
"""Seconds per token read, layer and unit of width."""
DECODE: Final = (44e-6, 0.14e-6)
"""Seconds per token written and layer, and the same per unit of width."""


def seconds(shape: Shape, *, input_tokens: int, output_tokens: int) -> float:
    """Return what a call takes at the fixed rates, which fit the pool's models to a tenth."""
    a_layer = DECODE[0] + DECODE[1] * shape.width
    return shape.layers * (PREFILL * shape.width * input_tokens + a_layer * output_tokens)


class Lab:
    """Models to ask and what they said.

    Args:
        targets: what plans may call, by their names; the pool's six targets and those given.
        lateness: latencies over all queries, for plans that start duplicates.
    """

    def __init__(self, *targets: LabTarget, lateness: Lateness | None = None) -> None:
        self.drivers = {t.name: Local(name=t.name, model=t.model, mode=t.mode) for t in (*TARGETS, *targets)}
        self.lateness = lateness
        self.known: dict[tuple[Any, ...], Outcome] = {}
        self.asked = 0
        """Calls that were worked out, not looked up."""

    def of(self, query: Query, outcomes: Mapping[str, Outcome] | None = None) -> LookUp:
        """Return the outcomes of one query. `outcomes`: of targets that are no models of the lab, such as gates."""
        return _Asked(self, query, dict(outcomes or {}))

    def estimate(self, call: Call, query: Query) -> float | None:
        """Bound what a call costs: its prompt, and as much as the context holds."""
        driver = self.drivers.get(call.target)
        if driver is None:
            return 0.0
        model = describe(driver.model)
        return model.cost_usd(input_tokens=model.context_window, output_tokens=model.context_window)

    def answer(self, call: Call, query: Query) -> Outcome:
        """Return what a target replies."""
        driver = self.drivers.get(call.target)
        if driver is None:
            return Outcome(
                target=call.target, error=Failure(kind="not_found", message=f"the lab has no {call.target!r}")
            )
        messages = [seen(m) for m in (query.messages if call.messages is None else call.messages)]
        prompt, written = prompt_of(messages), written_of(messages)
        asked = asked_of(call, query)
        arguments = driver.arguments(asked, call, query)
        draw = arguments["seed"] if arguments["temperature"] else None
        settings = tuple(sorted((k, v) for k, v in arguments.items() if k != "seed"))
        key = (call.target, prompt, written, draw, settings, asked.n)
        found = self.known.get(key)
        if found is None:
            self.asked += 1
            found = self.known[key] = self._work(driver, prompt, written, arguments, asked, query)
        return found

    def _work(
        self, driver: Local, prompt: str, written: str, arguments: Mapping[str, Any], asked: Any, query: Query
    ) -> Outcome:
        model = load(driver.model)
        try:
            done = model.generate(prompt, n=asked.n or 1, written=written, **arguments)
        except ValueError as e:
            return Outcome(target=driver.name, error=Failure(kind="context_too_long", message=str(e)))
        outcome = driver.outcome(done, asked, query, None)
        tokens = outcome.tokens
        assert tokens is not None
        took = seconds(model.shape, input_tokens=tokens.input, output_tokens=tokens.output)
        return replace(outcome, target=driver.name, usd=driver.profile.usd(tokens), seconds=took, reply=b"")


class _Asked(LookUp):
    """The lab's outcomes of one query."""

    def __init__(self, lab: Lab, query: Query, outcomes: dict[str, Outcome]) -> None:
        self.lab, self.query, self.outcomes = lab, query, outcomes
        self.lateness = lab.lateness

    def outcome(self, call: Call, path: Path) -> Outcome:
        """Ask, or look up."""
        given = self.outcomes.get(call.target)
        return self.lab.answer(call, self.query) if given is None else given
