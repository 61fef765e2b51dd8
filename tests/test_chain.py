"""The chain names the first row that is wrong; canonical bytes are canonical and survive the round trip."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from fairlead import chain
from fairlead.chain import TRACES_BEGIN, Row, check, link
from fairlead.errors import ChainBroken, StoreError
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.types import (
    Call,
    Decision,
    Failure,
    Forecast,
    Message,
    Option,
    Outcome,
    Part,
    Query,
    Reading,
    Signals,
    Step,
    Trace,
)


def a_trace(**changes) -> Trace:
    plan = Single(target="a")
    outcome = Outcome(text="four", target="a", logprobs=(-0.1, -2.0), tool_calls=Raw(b'[{"f":null}]'), reply=b"raw")
    call = Call(target="a", messages=(Message(role="user", content="hidden"),))
    trace = Trace(
        id="t1",
        at=1.5,
        query=Query(
            id="t1",
            messages=(
                Message(role="user", content="two and two?"),
                Message(role="user", content=(Part(text="secret"), Part(type="image_url"))),
                Message(role="assistant", tool_calls=({"name": "leak"},)),
            ),
            body={"messages": Raw(b'["two and two?"]')},
        ),
        signals=Signals(
            readings={"b": Reading(value=1.0), "a": Reading(parts={"y": 1.0, "x": True}, vector=b"\x00\xff")}
        ),
        decision=Decision(
            options=(Option(plan=plan, probability=1.0, forecast=Forecast(quality=0.1 + 0.2)),),
            chosen=0,
            propensity=1.0,
        ),
        plan=Fallback(plans=(plan, Single(target="b"))),
        steps=(Step(path=(0, 0), call=call, outcome=outcome),),
        outcome=outcome,
    )
    return msgspec.structs.replace(trace, **changes)


def rows(n: int) -> list[Row]:
    out, prev = [], TRACES_BEGIN
    for i in range(1, n + 1):
        body = f"body {i}".encode()
        out.append(Row(i, f"id{i}", body, prev, link(prev, body)))
        prev = out[-1].hash
    return out


def follow(some: list[Row], *, of: list[Row]) -> int:
    return check(some, begin=TRACES_BEGIN, count=len(of), head=of[-1].hash if of else TRACES_BEGIN)


def test_an_untouched_chain_is_followed_to_its_end():
    assert follow(rows(5), of=rows(5)) == 5
    assert follow([], of=[]) == 0


@given(st.integers(0, 5), st.data())
def test_any_changed_byte_is_found_at_its_row(i, data):
    good = rows(6)
    field = data.draw(st.sampled_from(["body", "prev", "hash"]))
    value = bytearray(getattr(good[i], field))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    bad = [*good[:i], msgspec.structs.replace(good[i], **{field: bytes(value)}), *good[i + 1 :]]
    with pytest.raises(ChainBroken, match=rf"trace {i + 1} \(id{i + 1}\)"):
        follow(bad, of=good)


@given(st.integers(0, 5))
def test_a_missing_row_is_named(i):
    good = rows(6)
    with pytest.raises(ChainBroken, match="the last 1 of 6" if i == 5 else f"trace {i + 1} missing"):
        follow(good[:i] + good[i + 1 :], of=good)


def test_a_row_removed_with_its_number_closed_up_is_found():
    good = rows(6)
    shifted = [msgspec.structs.replace(r, seq=r.seq - 1) for r in good[3:]]
    with pytest.raises(ChainBroken, match=r"trace 3 \(id4\) does not follow trace 2 \(id2\)"):
        follow([*good[:2], *shifted], of=good)


def test_swapped_rows_are_found():
    good = rows(6)
    a, b = good[2], good[3]
    swapped = [*good[:2], msgspec.structs.replace(b, seq=3), msgspec.structs.replace(a, seq=4), *good[4:]]
    with pytest.raises(ChainBroken, match=r"trace 3 \(id4\) does not follow"):
        follow(swapped, of=good)


def test_a_row_rewritten_with_a_fitting_hash_is_found_at_the_next():
    good = rows(6)
    forged = msgspec.structs.replace(good[2], body=b"other", hash=link(good[2].prev, b"other"))
    with pytest.raises(ChainBroken, match=r"trace 4 \(id4\) does not follow trace 3"):
        follow([*good[:2], forged, *good[3:]], of=good)
    # The last row has no next one: the head that the store kept tells.
    last = msgspec.structs.replace(good[5], body=b"other", hash=link(good[5].prev, b"other"))
    with pytest.raises(ChainBroken, match="not the last trace that the store wrote"):
        follow([*good[:5], last], of=good)


def test_a_cut_tail_and_added_rows_are_found():
    good = rows(6)
    with pytest.raises(ChainBroken, match="the last 2 of 6"):
        follow(good[:4], of=good)
    with pytest.raises(ChainBroken, match="not the last trace"):
        follow(good, of=good[:4])


def test_a_trace_survives_the_round_trip_without_reply_and_body():
    trace = a_trace()
    body = chain.encode(chain.lean(trace))
    again = chain.decode(body, Trace)
    assert chain.encode(again) == body
    assert again.plan == trace.plan
    assert again.decision == trace.decision  # floats to the last bit
    assert again.signals == trace.signals
    assert again.query.body == {}
    assert again.outcome.reply == again.steps[0].outcome.reply == b""
    assert bytes(again.outcome.tool_calls) == b'[{"f":null}]'
    assert chain.lean(again) is again


def test_bytes_do_not_depend_on_the_order_of_keys():
    one = a_trace(signals=Signals(readings={"a": Reading(value=1), "b": Reading(value=2)}))
    two = a_trace(signals=Signals(readings={"b": Reading(value=2), "a": Reading(value=1)}))
    assert chain.encode(one) == chain.encode(two)


def test_numpy_numbers_are_written_as_numbers():
    option = Option(plan=Single(target="a"), probability=np.float64(0.25), forecast=Forecast(quality=np.float32(0.5)))
    trace = a_trace(decision=Decision(options=(option,), chosen=np.int64(0), propensity=np.float64(0.25)))
    assert chain.decode(chain.encode(trace), Trace).decision.options[0].probability == 0.25


def test_infinite_logprobs_are_clamped_and_nan_is_refused_with_its_place():
    trace = a_trace(outcome=Outcome(text="x", logprobs=(-math.inf, -1.0)))
    assert chain.decode(chain.encode(trace), Trace).outcome.logprobs == (-1.7976931348623157e308, -1.0)
    with pytest.raises(StoreError, match=r"outcome\.seconds"):
        chain.encode(a_trace(outcome=Outcome(text="x", seconds=math.nan)))


def test_what_is_no_trace_is_refused():
    with pytest.raises(StoreError, match="cannot be read"):
        chain.decode(b"{}", Trace)
    unknown = chain.encode(a_trace()).replace(b'"fallback"', b'"gone_kind"')
    with pytest.raises(StoreError, match="gone_kind"):
        chain.decode(unknown, Trace)


def test_blanking_keeps_roles_and_lengths_and_no_text():
    trace = a_trace(
        outcome=Outcome(text="four", target="a", error=Failure(kind="bad_request", message="bad: two and two?"))
    )
    blanked = chain.blank(chain.lean(trace))
    body = chain.encode(blanked)
    for word in (b"two and two", b"four", b"secret", b"hidden", b"leak"):
        assert word not in body
    assert [m.role for m in blanked.query.messages] == [m.role for m in trace.query.messages]
    assert [len(m.text) for m in blanked.query.messages] == [len(m.text) for m in trace.query.messages]
    assert len(blanked.steps[0].outcome.text) == 4
    assert blanked.decision == trace.decision
    assert not blanked.text_kept
