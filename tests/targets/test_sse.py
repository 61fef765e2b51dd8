"""Framing of server-sent events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.targets import sse
from fairlead.targets.sse import Event, Framer

STREAM = (
    b"\xef\xbb\xbf: hello\n\ndata: one\n\n:comment\ndata: two\r\n\r\nevent: error\ndata: a\ndata: b\n\n"
    b"\n\ndata:three\r\rid: 7\n\ndata\n\ndata: f\xc3\xb6ur\n\ndata: [DONE]\n\n"
)
EVENTS = [
    Event(b"", b"one"),
    Event(b"", b"two"),
    Event(b"error", b"a\nb"),
    Event(b"", b"three"),
    Event(b"", b""),
    Event(b"", "föur".encode()),
    Event(b"", b"[DONE]"),
]


def frame(*reads):
    framer = Framer()
    return [e for read in reads for e in framer.feed(read)] + framer.close()


def test_whole():
    assert frame(STREAM) == EVENTS


def test_split_at_every_byte():
    for i in range(len(STREAM) + 1):
        assert frame(STREAM[:i], STREAM[i:]) == EVENTS, i
    assert frame(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_split(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert frame(*(STREAM[a:b] for a, b in pairwise(edges))) == EVENTS


def test_what_the_end_cuts_off_is_handed_out():
    framer = Framer()
    assert framer.feed(b"data: [DONE]\n") == []
    assert framer.close() == [Event(b"", b"[DONE]")]
    assert framer.close() == []


@given(st.text().filter(lambda t: "\r" not in t), st.sampled_from(["", "message_stop"]))
def test_write_and_read_back(text, name):
    assert frame(sse.write(text.encode(), name)) == [Event(name.encode(), text.encode())]


def test_an_endless_event_is_refused(monkeypatch):
    monkeypatch.setattr(sse, "LARGEST", 100)
    framer = Framer()
    for _ in range(10):
        framer.feed(b"data: xxx\n")
    with pytest.raises(ValueError, match="more than 100 bytes"):
        framer.feed(b"x")
