"""A time-out of our own does what `asyncio.timeout` does."""

import asyncio
from contextlib import suppress

import pytest

from fairlead.timeouts import Timeout


async def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError), Timeout(0.01):
        await asyncio.sleep(5)
    assert await cancelling() == 0
    await asyncio.sleep(0)  # nothing is left of the cancellation


async def test_what_is_quick_is_left_alone() -> None:
    with Timeout(0.01) as limit:
        pass
    await asyncio.sleep(0.03)
    assert not limit.rang


async def test_it_rings_when_told() -> None:
    with pytest.raises(TimeoutError), Timeout() as limit:  # noqa: PT012
        asyncio.get_running_loop().call_soon(limit.ring)
        await asyncio.sleep(5)


async def test_what_somebody_else_cancels_is_cancelled() -> None:
    async def work() -> None:
        with Timeout(0.02):
            await asyncio.sleep(5)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_is_a_cancellation() -> None:
    async def work() -> None:
        with Timeout() as limit:
            limits.append(limit)
            await asyncio.sleep(5)

    limits: list[Timeout] = []
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    limits[0].ring()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("outer", [0.01, 5.0])
async def test_one_inside_the_other(outer: float) -> None:
    """The one that rings is the one that raises."""
    seen = []
    with suppress(TimeoutError), Timeout(outer):
        try:
            with Timeout(5.0 if outer < 1.0 else 0.01):
                await asyncio.sleep(9)
        except TimeoutError:
            seen.append("inner")
            raise
        except asyncio.CancelledError:
            seen.append("outer")
            raise
    assert seen == ["outer" if outer < 1.0 else "inner"]
    assert await cancelling() == 0


async def test_what_is_raised_on_the_way_out_stands() -> None:
    with pytest.raises(ValueError, match="mine"), Timeout(0.01):  # noqa: PT012
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise ValueError("mine") from None
    assert await cancelling() == 0


def test_without_a_task_there_is_nothing_to_cancel() -> None:
    caught: list[Exception] = []

    async def main() -> None:
        def callback() -> None:
            try:
                with Timeout(1.0):
                    pass
            except RuntimeError as e:
                caught.append(e)

        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert len(caught) == 1
