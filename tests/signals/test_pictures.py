"""Pictures are counted and measured by their heads."""

import base64
import struct

import msgspec
import pytest

from fairlead.lab.eye import draw_tables
from fairlead.signals.pictures import Pictures
from fairlead.types import Message, Part, Query


def asking(*urls: str) -> Query:
    content = [
        {"type": "text", "text": "what is this?"},
        *({"type": "image_url", "image_url": {"url": u}} for u in urls),
    ]
    parts = (Part(text="what is this?"), *(Part(type="image_url") for _ in urls))
    query = Query.ask("x", id="q")
    body = {"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": content}]))}
    return msgspec.structs.replace(query, messages=(Message(role="user", content=parts),), body=body)


def test_pictures_are_measured() -> None:
    quiet = next(t for t in draw_tables(50, 1) if t.noise == 0.1 and t.pairs == 8)
    noisy = next(t for t in draw_tables(50, 1) if t.noise == 0.7 and t.pairs == 8)
    one, other = (Pictures().read(asking(t.url)) for t in (quiet, noisy))
    assert one.value == 1
    assert one.parts["pixels"] == 21 * 49
    assert one.parts["bytes"] == pytest.approx(len(quiet.picture), abs=3)
    assert one.parts["density"] < other.parts["density"]
    assert Pictures().read(asking(quiet.url, noisy.url)).value == 2


def test_a_jpeg_is_measured() -> None:
    data = b"\xff\xd8\xff\xe0\x00\x04xx\xff\xc0" + struct.pack(">HBHH", 17, 8, 30, 40) + bytes(20)
    reading = Pictures().read(asking("data:image/jpeg;base64," + base64.b64encode(data).decode()))
    assert reading.parts["pixels"] == 1200


@pytest.mark.parametrize(
    "url",
    ["https://example.org/a.png", "data:image/png;base64,!!!!", "data:image/png;base64,AAAA", "data:image/png,xx", ""],
)
def test_what_cannot_be_measured_is_only_counted(url: str) -> None:
    reading = Pictures().read(asking(url))
    assert (reading.value, reading.parts["pixels"], reading.parts["density"]) == (1, 0, 0.0)


def test_no_picture() -> None:
    assert Pictures().read(Query.ask("hi")).value == 0
