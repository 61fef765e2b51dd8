"""The signal `facts`: what it says keeps its own laws."""

import pytest

from fairlead.conditions import holds, parse
from fairlead.signals.facts import Facts
from fairlead.types import Query, Signals


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hi",
        "When was it?",
        "Write a poem: when was it?",
        "Context: x\n\nWhen?",
        "```py\n1\n```",
        "Fix this bug. Why is it?",
    ],
)
def test_the_laws_hold(text: str) -> None:
    reading = Facts().read(Query.ask(text))
    flat = {"value": reading.value, **reading.parts}
    for law in Facts().laws():
        # A law is over a signal's own keys: here each stands as a signal of its own.
        own = Signals(readings={k: type(reading)(value=v) for k, v in flat.items()})
        assert holds(parse(law, path="$"), own), (text, law)


def test_value_and_parts() -> None:
    reading = Facts().read(Query.ask("Context: it opened in 1978.\n\nWhen did it open?"))
    assert reading.value is True
    assert reading.parts == {"grounded": True, "question": True, "creative": False, "code": False}
    assert Facts().read(Query.ask("Write a haiku about rain")).value is False
