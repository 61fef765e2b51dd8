"""A key that stands twice in one object: refused wherever it is, and nothing else is."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.gateway.read import doubled, read, split
from fairlead.gateway.refusal import Refused

TEXT = st.text(alphabet='ab"\\\\u02{}: é\U0001f600', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


def padded(body: bytes) -> list[bytes]:
    """The body as it is, and with so much text that it is gone through in the other way."""
    return [body, body + b" " * 50_000]


@given(value=VALUES, ascii=st.booleans(), spaced=st.booleans())
def test_what_any_writer_writes_has_no_key_twice(value: Any, ascii: bool, spaced: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii, indent=1 if spaced else None).encode()
    assert [doubled(b) for b in padded(body)] == [None, None]


@given(value=VALUES, depth=st.integers(0, 3), other=VALUES)
def test_a_key_that_stands_twice_is_seen_whatever_is_around(value: Any, depth: int, other: Any) -> None:
    first, second = (json.dumps(v).encode() for v in (value, other))
    body = b'{"a":' + first + b', "b": 1, "\\u0061" : ' + second + b"}"
    for _ in range(depth):
        body = b'{"x": [' + body + b", " + first + b"]}"
    assert [doubled(b) for b in padded(body)] == ["a", "a"]


@pytest.mark.parametrize("number", ["1" + "0" * 30, "1" + "0" * 5000, "1e999", "0.1000000000000000000000001"])
def test_numbers_that_we_cannot_hold_are_forwarded(number: str) -> None:
    body = b'{"seed": %b, "model": "a"}' % number.encode()
    assert bytes(split(body)["seed"]) == number.encode()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"model":"a","messages":[{"role":"user","content":"my card","content":"hi"}]}', "messages"),
        ('{"model":"a","messages":[{"role":"user","content":[{"type":"text","text":"x","text":"y"}]}]}', "messages"),
        ('{"model":"a","tools":[{"function":{"description":"x","description":"y"}}],"messages":[]}', "tools"),
        ('{"model":"a","messages":[{"role":"user","content":"x"}],"messages":[{"role":"user","content":"y"}]}', "messages"),
        ('{"model":"a","user":"x","user":"y","messages":[{"role":"user","content":"x"}]}', "user"),
    ],
)  # fmt: skip
def test_such_a_request_is_refused(body: str, param: str) -> None:
    with pytest.raises(Refused, match="stands twice") as e:
        read(body.encode(), {}, {"a"}, ())
    assert (e.value.status, e.value.code, e.value.param) == (400, "duplicate_key", param)


def test_what_is_not_refused_is_forwarded_byte_for_byte() -> None:
    body = b'{ "model": "a", "messages": [ {"role":"user", "content":"\\u0022x\\u00e9 \\\\u0022"} ], "top_p" : 1.0 }'
    asked = read(body, {}, {"a"}, ())
    assert bytes(asked.query.body["messages"]) == b'[ {"role":"user", "content":"\\u0022x\\u00e9 \\\\u0022"} ]'
    assert msgspec.json.decode(asked.query.body["top_p"]) == 1.0
