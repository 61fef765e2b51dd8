"""Writes of one turn of the loop go out together, in order, and bounded."""

from __future__ import annotations

import asyncio
import multiprocessing
from typing import Any, cast

import pytest

from fairlead.coalesce import MOST_BYTES, Coalesced, Turn
from fairlead.types import new_id


class Wire:
    """A transport that notes what it is told, in a log that several share."""

    def __init__(self, log: list[tuple[str, Any]], name: str) -> None:
        self.log, self.name, self.closed = log, name, False

    def write(self, data: bytes) -> None:
        assert not self.closed, "nothing is written to what is closed"
        self.log.append((self.name, bytes(data)))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True
        self.log.append((self.name, "closed"))

    abort = close

    def get_write_buffer_size(self) -> int:
        return 3

    def get_extra_info(self, name: str) -> str:
        return f"{name} of {self.name}"


def wires(names: str) -> tuple[list[tuple[str, Any]], list[Coalesced]]:
    log: list[tuple[str, Any]] = []
    loop = asyncio.get_running_loop()
    return log, [Coalesced(cast(asyncio.Transport, Wire(log, name)), loop) for name in names]


async def test_what_is_written_in_one_turn_goes_out_at_its_end_one_write_a_connection_in_order() -> None:
    log, (a, b) = wires("ab")
    a.write(b"1")
    b.write(b"2")
    a.write(b"3")
    assert not log
    assert a.get_write_buffer_size() == 2 + 3
    await asyncio.sleep(0)
    assert log == [("a", b"13"), ("b", b"2")]
    assert a.get_write_buffer_size() == 3
    a.write(b"4")
    await asyncio.sleep(0)
    assert log[-1] == ("a", b"4")


async def test_held_bytes_are_bounded_and_their_order_is_kept() -> None:
    log, (a,) = wires("a")
    a.write(b"x")
    a.write(b"y" * MOST_BYTES)
    assert log == [("a", b"x"), ("a", b"y" * MOST_BYTES)]
    a.write(b"z")
    await asyncio.sleep(0)
    assert log[2:] == [("a", b"z")]


async def test_closing_writes_what_is_held_and_aborting_drops_it() -> None:
    log, (a, b) = wires("ab")
    a.write(b"bye")
    a.close()
    assert log == [("a", b"bye"), ("a", "closed")]
    b.write(b"never")
    b.abort()
    await asyncio.sleep(0)
    assert log[2:] == [("b", "closed")]
    assert b.get_write_buffer_size() == 3
    assert a.get_extra_info("socket") == "socket of a"


async def test_one_connection_that_breaks_does_not_keep_the_others_from_writing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, (a, b) = wires("ab")

    def broken(data: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(a._transport, "write", broken)
    a.write(b"1")
    b.write(b"2")
    await asyncio.sleep(0)
    assert log == [("a", "closed"), ("b", b"2")]


async def test_what_is_large_is_not_copied_into_one() -> None:
    log, (a,) = wires("a")
    a.write(b"head")
    a.write(b"x" * MOST_BYTES)
    assert log == [("a", b"head"), ("a", b"x" * MOST_BYTES)]


async def test_all_connections_of_a_loop_share_a_turn() -> None:
    loop = asyncio.get_running_loop()
    assert Turn.of(loop) is Turn.of(loop)
    other = asyncio.new_event_loop()
    try:
        assert Turn.of(other) is not Turn.of(loop)
    finally:
        other.close()


def _ids(pipe: Any) -> None:
    pipe.send([new_id() for _ in range(20)])


def test_ids_differ_also_in_processes_that_forked() -> None:
    ids = [new_id() for _ in range(1000)]
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_ids, args=(theirs,))
    child.start()
    forked = ours.recv()
    child.join(10)
    later = [new_id() for _ in range(1000)]
    tails = [name[-16:] for name in [*ids, *forked, *later]]
    assert len(set(tails)) == len(tails) == 2020
    assert all(len(name) == len("chatcmpl-") + 28 and name.startswith("chatcmpl-") for name in ids)
