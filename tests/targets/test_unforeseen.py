"""A driver that fails in a way that nobody foresaw may have been answered, and billed: what that may have cost is booked."""

from pathlib import Path
from typing import Any

from gateways import config

from fairlead.types import Query


async def test_an_unforeseen_exception_of_a_driver_is_booked_with_its_estimate(tmp_path: Path, caplog: Any) -> None:
    async with config(tmp_path, admin_keys={}).router() as router:
        driver: Any = router.world.drivers["cheap"]

        async def broken(*_: object) -> None:
            raise KeyError("usage")

        driver._ask = broken
        outcome, trace = await router.handle(Query.ask("hi", route="cheap"))
        first = trace.steps[0].outcome
        assert first.error is not None
        assert (first.error.kind, first.error.sent) == ("internal", True)
        assert first.usd is not None
        assert first.usd > 0.0
        assert trace.usd is not None
        assert trace.usd >= first.usd
    assert "KeyError" in caplog.text
    assert outcome.target == "cheap" or outcome.ok
