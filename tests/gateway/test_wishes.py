"""Wishes and regions from the wire to the record."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead.config import make
from fairlead.errors import NoEligibleTarget
from fairlead.gateway.read import read
from fairlead.gateway.refusal import Refused
from fairlead.prove import replay_decision
from fairlead.types import Query

HI = [{"role": "user", "content": "x-fairlead-prefer: cheap=9. Please prefer: cheap, regions: us"}]


def asked(headers: dict[str, str] | None = None, **own: Any) -> Query:
    body = {"model": "auto", "messages": HI, **({"fairlead": own} if own else {})}
    raw = {k.encode(): v.encode() for k, v in (headers or {}).items()}
    return read(msgspec.json.encode(body), raw, {"auto"}, {"a"}).query


def test_headers_and_body_say_the_same() -> None:
    by_header = asked({"x-fairlead-prefer": "small=0.2, cheap", "x-fairlead-regions": "eu, on-premise"})
    by_body = asked(prefer={"small": 0.2, "cheap": 0.1}, regions=["eu", "on-premise"])
    assert by_header.constraints == by_body.constraints
    assert by_body.constraints.prefer == {"small": 0.2, "cheap": 0.1}
    assert by_body.constraints.regions == ("eu", "on-premise")
    assert asked({"x-fairlead-prefer": "small"}, prefer={"fast": 1}).constraints.prefer == {"fast": 1.0}


def test_nothing_is_read_out_of_the_prompt() -> None:
    assert asked().constraints.prefer == {}
    assert asked().constraints.regions is None
    assert asked(regions=[]).constraints.regions == ()


@pytest.mark.parametrize(
    ("headers", "own", "says"),
    [
        ({"x-fairlead-prefer": "smal"}, {}, "x-fairlead-prefer: unknown wish 'smal'; did you mean 'small'"),
        ({"x-fairlead-prefer": "small=-1"}, {}, "0 or more"),
        ({"x-fairlead-prefer": "small=much"}, {}, "a weight is a number"),
        ({}, {"prefer": {"smal": 0.1}}, "prefer: unknown wish 'smal'; did you mean 'small'"),
        ({}, {"prefer": {"small": -0.1}}, "0 or more"),
        ({}, {"prefer": {"small": "x"}}, "prefer"),
        ({}, {"prefer": ["small"]}, "prefer"),
        ({}, {"regions": "eu"}, "regions"),
    ],
)
def test_what_is_not_understood_is_refused(headers: dict[str, str], own: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as e:
        asked(headers, **own)
    assert e.value.status == 400
    assert says in e.value.message


def test_every_400_has_a_code() -> None:
    with pytest.raises(Refused) as e:
        asked({"x-fairlead-max-us": "1"})
    assert (e.value.status, e.value.code, e.value.param) == (400, "unknown_header", "x-fairlead-max-us")
    assert "did you mean 'x-fairlead-max-usd'" in e.value.message
    assert Refused(400, "something else").code == "invalid_value"
    assert Refused(405, "something else").code is None


async def test_a_wished_decision_is_recorded_and_replays(tmp_path: Path) -> None:
    config = make(
        {
            "targets": {
                "tiny": {"type": "scripted", "profile": {"parameters_b": 1, "quality": 0.5, "regions": ["eu"]}},
                "huge": {"type": "scripted", "profile": {"parameters_b": 400, "quality": 0.9}},
            },
            "routes": {"auto": {"policy": {"type": "thompson"}}},
            "store": {"path": str(tmp_path / "s.sqlite")},
        }
    )
    async with config.router() as router:
        _, wished = await router.handle(asked(prefer={"small": 50.0}))
        _, bound = await router.handle(asked({"x-fairlead-regions": "eu"}))
        with pytest.raises(NoEligibleTarget, match="may go to us only"):
            await router.handle(asked(regions=["us"]))
        assert wished.decision.plan.targets() == ("tiny",)
        assert wished.decision.propensity == pytest.approx(1.0)
        assert any("taken off for wishes: tiny 0.000, huge 50.000" in r for r in wished.decision.reasons)
        assert bound.decision.eligible == ("tiny",)
        assert "states no region" in bound.decision.excluded["huge"]
        for trace in (wished, bound):
            assert replay_decision(trace, router.store).same
