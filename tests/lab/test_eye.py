"""Tables as pictures: made by rule, read better than by chance, worse with noise, and nothing else is read."""

import struct
import zlib

import pytest

from fairlead.lab.eye import COLUMNS, NOISE, draw_tables, eye, glyph, png, points_of, rendered
from fairlead.lab.tasks import split_of

TABLES = draw_tables(400, 21)


def test_the_same_seed_gives_the_same_tables_and_readings() -> None:
    assert draw_tables(30, 4) == draw_tables(30, 4)
    assert draw_tables(30, 4) != draw_tables(30, 5)
    first = TABLES[0]
    assert eye().read(first.picture, first.key) == eye().read(first.picture, first.key)


def test_splits_are_of_the_whole_text() -> None:
    for split in ("train", "dev", "test"):
        whole = [t for t in draw_tables(120, 2, split=split) if t.lost == 0.0]
        assert {split_of(t.prompt) for t in whole} == {split}


def test_text_and_picture_hold_the_same_pairs() -> None:
    for table in TABLES:
        if table.lost == 0.0:
            assert table.answer in table.text.split()
        assert "_" not in table.text or table.lost > 0.0
        assert points_of(table.picture).shape == (6 * table.pairs + 1, 4 * COLUMNS + 1)


def test_accuracy_falls_with_noise() -> None:
    share = {}
    for noise in NOISE:
        mine = [t for t in TABLES if t.noise == noise]
        share[noise] = sum(eye().read(t.picture, t.key).text == t.answer for t in mine) / len(mine)
    assert share[0.1] == 1.0
    assert share[0.1] >= share[0.3] > share[0.5] > share[0.7]
    assert share[0.7] > 0.05  # by chance one in ninety


def test_sureness_tells_right_from_wrong() -> None:
    from fairlead.lab.card import auroc

    seen = [eye().read(t.picture, t.key) for t in TABLES]
    right = [s.text == t.answer for s, t in zip(seen, TABLES, strict=True)]
    assert auroc([sum(s.logprobs) for s in seen], right) > 0.75
    assert all(p <= 1e-9 for s in seen for p in s.logprobs)


def test_characters_are_told_apart_without_noise() -> None:
    points = points_of(png(rendered(["ab 12"], noise=0.0, seed=0)))
    assert points[1:6, 1:4].reshape(-1) == pytest.approx(glyph("a"))
    assert eye().read(png(rendered(["ab 12", "cd 98"], noise=0.0, seed=0)), "cd").text == "cd=98"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def other(width: int, height: int, *, depth: int = 8, colour: int = 0, data: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


GOOD = png(rendered(["ab 12"], noise=0.0, seed=0))
BLANK = zlib.compress(b"\0" * 22 * 7)
FILTERED = zlib.compress((b"\1" + b"\0" * 21) * 7)


@pytest.mark.parametrize(
    "picture",
    [
        b"",
        b"GIF89a",
        GOOD[:-40],
        GOOD[:60],
        GOOD[:18],
        other(21, 7, colour=2, data=BLANK),
        other(100_000, 100_000, data=BLANK),
        other(21, 7, data=b"no stream"),
        other(21, 7, data=zlib.compress(b"\0" * 9)),
        other(21, 7, data=FILTERED),
        other(22, 7, data=zlib.compress(b"\0" * 23 * 7)),
        other(21, 8, data=zlib.compress(b"\0" * 22 * 8)),
    ],
)
def test_other_pictures_are_refused(picture: bytes) -> None:
    with pytest.raises(ValueError, match=r"PNG|picture"):
        eye().read(picture, "ab")


@pytest.mark.parametrize("key", ["", "a", "abc", "a_", "A1"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        eye().read(GOOD, key)
