"""How many pictures a request holds, how large, and how busy: by the heads of their files, without looking at them. Ours, no paper.

`density` is bits of file per point: a picture that compresses badly has much detail, or much noise, and both make it harder to read. Only pictures that
are in the request (data URLs, PNG or JPEG) are measured; of others only the number is known. About 2 µs without a picture, 10 µs with one of some
kilobytes; of a long one only the head is decoded.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from fairlead.signals.base import COUNT, Range, Signal
from fairlead.types import Query, Reading

HEAD: Final = 65_536
"""Characters of base64 that are decoded to find a picture's size; beyond them it is not known."""


class Pictures(Signal):
    """Value: how many pictures. Parts: `pixels` and `bytes` of those whose size is known, together, and `density`, their bits per pixel."""

    def ranges(self) -> Mapping[str, Range]:
        """Counts, and a ratio."""
        return {"value": COUNT, "pixels": COUNT, "bytes": COUNT, "density": Range(kind="number", low=0.0)}

    def _read(self, query: Query) -> Reading:
        pixels = size = count = 0
        if "image" in query.modalities:
            for url in _urls(query):
                count += 1
                points, bytes_ = measured(url)
                pixels, size = pixels + points, size + bytes_
        density = 8.0 * size / pixels if pixels else 0.0
        return Reading(value=count, parts={"pixels": pixels, "bytes": size, "density": density})


def measured(url: str) -> tuple[int, int]:
    """Return points and bytes of a picture in a data URL; (0, 0) where that is not known."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        return 0, 0
    try:
        start = base64.b64decode(data[: HEAD - HEAD % 4], validate=True)
    except (binascii.Error, ValueError):
        return 0, 0
    points = _png(start) or _jpeg(start)
    return (points, len(data) * 3 // 4) if points else (0, 0)


def _urls(query: Query) -> Iterator[str]:
    raw = query.body.get("messages")
    if raw is None:
        return
    try:
        messages = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    for message in messages if isinstance(messages, list) else ():
        parts: Any = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("type") in ("image_url", "input_image"):
                url = part.get("image_url")
                url = url.get("url") if isinstance(url, dict) else url
                yield url if isinstance(url, str) else ""


def _png(data: bytes) -> int:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        return 0
    width, height = struct.unpack(">II", data[16:24])
    return int(width * height)


def _jpeg(data: bytes) -> int:
    if data[:2] != b"\xff\xd8":
        return 0
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind, (size,) = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return int(width * height)
        at += 2 + size
    return 0
