"""What a text hides: invisible signs, look-alike letters, split words, and text in encodings. Ours, no paper.

`unhide` returns the text as a reader would see it, the texts that it found inside (decoded from base64, base32, hex, escapes, URLs, HTML
entities, binary, decimal, Morse, rotated or reversed letters, tags, variation selectors, zero-width bits; or taken from HTML comments and
invisible elements), each unhidden again, and the names of what was done. Nothing is judged here: a flag of England, Persian, Hebrew and
emoji hold invisible signs too, and those that belong there leave no mark.

Work is bounded: texts inside texts to a depth of `DEPTH`, at most `LAYERS` of them, `TOTAL` characters in all. Every pattern is linear.
About 18 µs for 300 plain characters, three times that where there are other than ASCII ones.
"""

# ruff: noqa: RUF001 - strange characters are the point here

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from fairlead.detect.span import INVISIBLE

DEPTH: Final = 3
LAYERS: Final = 16
TOTAL: Final = 20_000
"""Characters of all texts inside, together."""


class Unhidden(Struct, frozen=True, kw_only=True):
    """`text` as it reads; `layers`: texts inside with how they were hidden; `marks`: names of what was found."""

    text: str
    layers: tuple[tuple[str, str], ...] = ()
    marks: frozenset[str] = frozenset()


def unhide(text: str) -> Unhidden:
    """Return what `text` says and hides."""
    marks: set[str] = set()
    visible = _visible(text, marks) if not text.isascii() else text
    if visible is text and not _may_hide(text):
        return Unhidden(text=text)
    layers: list[tuple[str, str]] = []
    left = TOTAL
    queue = [(text, visible, 0)]
    seen = {visible}
    for raw, shown, depth in queue:
        if depth == DEPTH:
            continue
        for how, found in _inside(raw, shown):
            if len(layers) == LAYERS or left <= 0:
                break
            found = found[:left]
            inner = found if found.isascii() else _visible(found, set())
            if inner in seen:
                continue
            seen.add(inner)
            left -= len(found)
            layers.append((how, inner))
            queue.append((found, inner, depth + 1))
    marks.update(how for how, _ in layers)
    return Unhidden(text=visible, layers=tuple(layers), marks=frozenset(marks))


# ----------------------------------------------------------------------------------------------------- as it would be read

_HIDDEN: Final = re.compile(f"[{INVISIBLE}]")
_HIDDEN_RUN: Final = re.compile(f"[{INVISIBLE}]+")
_BELONGS: Final = re.compile(
    # Between letters of scripts that need them; beside emoji; direction marks beside letters written from right to left; short flags.
    "(?<=[\u0590-\u0dff\u1000-\u109f\u1780-\u17ff])[\u200c\u200d]|"
    "[\u200d\ufe0e\ufe0f](?=[\u2190-\u2bff\U0001f000-\U0001faff])|(?<=[\u00a9\u00ae\u203c-\u2bff\u3030-\u3299\U0001f000-\U0001faff])[\u200d\ufe0e\ufe0f]|"
    "(?<=[0-9#*])\ufe0f|(?<=\ufe0f)\u200d|"
    "\U0001f3f4[\U000e0061-\U000e007a]{4,6}\U000e007f|^\ufeff"
)
_RIGHT_TO_LEFT: Final = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_DIRECTION: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202c\u2066-\u2069]")
_OVERRIDDEN: Final = re.compile("[\u202d\u202e]([^\u202c]{4,})")
_FEW: Final = 3
"""So many words with digits for letters are no accident: times and sizes are written like that too."""
_MANY: Final = 4
"""So many invisible signs that belong nowhere are no accident of copying."""
_MARKS: Final = re.compile("[\u0300-\u036f\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")
_MIXED: Final = re.compile("[A-Za-z][\u0370-\u03ff\u0400-\u052f]|[\u0370-\u03ff\u0400-\u052f][A-Za-z]")
_LETTERS: Final = re.compile("[A-Za-z\u0370-\u03ff\u0400-\u052f]+")


def _table(pairs: str) -> dict[int, str]:
    return {ord(p[0]): p[1:] for p in pairs.split()}


_LOOK_ALIKE: Final = _table(
    "аa вb еe ѕs іi јj оo рp сc хx уy һh ԁd ԛq ԝw ӏl нh кk мm тt гr пn АA ВB ЕE ЅS ІI ЈJ ОO РP СC ХX УY НH КK МM ТT ԌG "
    "αa εe ιi κk νv οo ρp τt υu χx γy ηn ωw ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX"
)
_SMALL: Final = _table(
    "ᴀa ʙb ᴄc ᴅd ᴇe ꜰf ɢg ʜh ɪi ᴊj ᴋk ʟl ᴍm ɴn ᴏo ᴘp ꞯq ʀr ꜱs ᴛt ᴜu ᴠv ᴡw ʏy ᴢz"
) | {0x1F1E6 + i: chr(97 + i) for i in range(26)} | {0x1F130 + i: chr(97 + i) for i in range(26)} | {0x1F170 + i: chr(97 + i) for i in range(26)}  # fmt: skip
_TURNED: Final = _table("ɐa ɔc ǝe ɟf ƃg ɥh ıi ɾj ʞk ɯm ɹr ʇt ʌv ʍw ʎy")
_TURN: Final = {**_TURNED, **{ord(a): b for a, b in zip("bdnpqu", "qpudbn", strict=True)}}
_TURNED_SIGN: Final = re.compile("[ɐɔǝɟƃɥɾʞɯɹʇʌʍʎ]")


def _visible(text: str, marks: set[str]) -> str:
    """Fold compatibility forms, take away what is invisible, and read look-alikes as what they look like."""
    if _HIDDEN.search(text):
        rest = _BELONGS.sub("", text)
        if _RIGHT_TO_LEFT.search(rest):
            rest = _DIRECTION.sub("", rest)
        if len(_HIDDEN.findall(rest)) >= _MANY:
            marks.add("invisible")
        if _OVERRIDDEN.search(text):
            marks.add("bidi")
        text = _HIDDEN.sub("", text)
    folded = unicodedata.normalize("NFKC", text)
    if folded.isascii():
        return folded
    # Accents go too: a plain word with accents is a disguise that costs an attacker nothing, and rules are written without them.
    folded = unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFD", folded)))
    small = folded.translate(_SMALL)
    if small != folded:
        marks.add("look_alike")
        folded = small
    if _MIXED.search(folded):
        folded = _LETTERS.sub(lambda m: _folded(m[0], marks), folded)
    return folded


def _folded(word: str, marks: set[str]) -> str:
    """Read a word in Latin letters if all that is not Latin in it looks Latin."""
    folded = word.translate(_LOOK_ALIKE)
    if not folded.isascii() or folded == word or len(word) < 3:
        return word
    marks.add("look_alike")
    return folded


# -------------------------------------------------------------------------------------------------------------- what is inside

_BASE64: Final = re.compile(
    r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}(?:\s{1,2}[A-Za-z0-9+/_-]{16,}){0,200}(?:\s{1,2}[A-Za-z0-9+/_-]{2,15}(?==|\s*$))?={0,2}"
)
_BASE32: Final = re.compile(r"(?<![A-Z2-7])[A-Z2-7]{24,}={0,6}")
_HEX: Final = re.compile(
    r"(?<![0-9A-Fa-f])(?:0x)?[0-9A-Fa-f]{2}(?:[\s:,]{0,2}(?:0x)?[0-9A-Fa-f]{2}){11,}(?![0-9A-Fa-f])"
)
_ESCAPES: Final = re.compile(r"(?:\\x[0-9A-Fa-f]{2}|\\u\{?[0-9A-Fa-f]{4,6}\}?){4,}")
_ESCAPE: Final = re.compile(r"\\(?:x|u\{?)([0-9A-Fa-f]+)\}?")
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_ENTITY: Final = re.compile(r"&(?:#\d{1,7}|#x[0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});")
_BINARY: Final = re.compile(r"(?<![01])[01]{8}(?:\s{0,2}[01]{8}){5,}(?![01])")
_DECIMAL: Final = re.compile(r"(?<!\d)\d{2,3}(?:[\s,;]{1,2}\d{2,3}){11,}(?!\d)")
_MORSE: Final = re.compile(r"(?:[.\-]{1,5}[ /]{1,3}){8,}[.\-]{0,5}")
_COMMENT: Final = re.compile(r"<!--(.{8,800}?)-->|/\*(.{8,800}?)\*/", re.DOTALL)
_UNSEEN: Final = re.compile(
    r"<\w{1,20}[^<>]{0,200}?(?:display\s{0,3}:\s{0,3}none|visibility\s{0,3}:\s{0,3}hidden|font-size\s{0,3}:\s{0,3}0|opacity\s{0,3}:\s{0,3}0(?![.\d])|"
    r"color\s{0,3}[:=]\s{0,3}[\"']?\s{0,3}(?:#fff|white|transparent)|aria-hidden=|\shidden[\s>=])[^<>]{0,200}>([^<]{8,2000})",
    re.IGNORECASE,
)
_ALT: Final = re.compile(
    r"\s(?:alt|title|aria-label)\s?=\s?(?:\"([^\"<>]{16,600})\"|'([^'<>]{16,600})')", re.IGNORECASE
)
_TAGS: Final = re.compile("[\U000e0020-\U000e007e]{4,}")
_SELECTORS: Final = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_ZERO_WIDTH: Final = re.compile("[\u200b-\u200d\u2060\u2062-\u2064\ufeff]{32,}")
_LETTER: Final = {
    code: chr(97 + i)
    for i, code in enumerate(
        str.split(
            ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
        )
    )
}

CLUES: Final = (
    "ignore", "instructions", "instruction", "previous", "prompt", "system", "forget", "disregard", "reveal", "restrictions", "without",
    "answer", "request", "obey", "assistant", "password", "secret", "please",
)  # fmt: skip
"""Words that, rotated or reversed, give rotated or reversed text away."""


def _rotated(text: str, by: int) -> str:
    lower = "".join(chr((i + by) % 26 + 97) for i in range(26))
    return text.translate(str.maketrans("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", lower + lower.upper()))


_DISGUISED: Final = {
    **{_rotated(w, by): 26 - by for by in range(1, 26) for w in CLUES},
    **{w[::-1]: 0 for w in CLUES},
}
"""Disguised clue -> how far to rotate back; 0: reversed."""
for _word in CLUES:
    _DISGUISED.pop(_word, None)
_WORDS: Final = re.compile(r"[A-Za-z]{4,14}")
_LEET: Final = re.compile(r"[A-Za-z][0-9@$!][A-Za-z0-9@$!]|(?<![\w$])[0-9@$!][A-Za-z][A-Za-z0-9@$!]")
_UNLEET: Final = str.maketrans("0134578@$!", "oieastbasi")
_SPACED: Final = re.compile(r"(?<!\w)\w(?:[ .*|/,_\-]{1,3}\w(?!\w)){5,}")
_WIDER: Final = re.compile(r"[ .*|/,_\-]{2,}|(?<=[^ ]) (?=[^ ]{2})")
_SEPARATOR: Final = re.compile(r"[ .*|/,_\-]")
_PIECES: Final = re.compile(r"'([^'\n]{1,80})'|\"([^\"\n]{1,80})\"")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LONG: Final = re.compile(r"[A-Za-z0-9+/_-]{16}")
_SOME_DIGIT: Final = re.compile(r"[0-9@$!]")
_SIGNS: Final = ("%", "&", "\\x", "\\u", "<", "/*", "'+", "' +", '"+', '" +', "==")


def _may_hide(text: str) -> bool:
    """Say whether ASCII text is worth a closer look."""
    if any(map(text.__contains__, _SIGNS)) or _LONG.search(text) or _SPACED.search(text):
        return True
    if not _DISGUISED.keys().isdisjoint(_WORDS.findall(text.lower())):
        return True
    if not _SOME_DIGIT.search(text):
        return ("-." in text or ".-" in text) and bool(_MORSE.search(text))
    return len(_LEET.findall(text)) >= _FEW or any(p.search(text) for p in (_HEX, _BINARY, _DECIMAL, _MORSE))


def _inside(raw: str, shown: str) -> Iterator[tuple[str, str]]:
    """Yield texts found in `raw` (as it came) and `shown` (as it reads), with how they were hidden."""
    if not raw.isascii():
        yield from _unseen_signs(raw)
        if _TURNED_SIGN.search(shown) and len(_TURNED_SIGN.findall(shown)) >= 4:
            yield "turned", shown.lower().translate(_TURN)[::-1]
    for m in _BASE64.finditer(shown):
        yield from _decoded("base64", m[0], _from_base64)
    for m in _BASE32.finditer(shown):
        yield from _decoded("base32", m[0], lambda s: base64.b32decode(s.rstrip("=") + "=" * (-len(s.rstrip("=")) % 8)))
    for m in _HEX.finditer(shown):
        yield from _decoded("hex", m[0], lambda s: bytes.fromhex(re.sub(r"0x|[\s:,]", "", s)))
    if "\\" in shown:
        for m in _ESCAPES.finditer(shown):
            yield "escapes", "".join(chr(n) for c in _ESCAPE.findall(m[0]) if (n := int(c, 16)) < 0xD800)
    if len(_PERCENT.findall(shown)) >= 3:
        yield "url", unquote(shown, errors="replace")
    if "&" in shown and len(_ENTITY.findall(shown)) >= 3:
        yield "entities", html.unescape(shown)
    for m in _BINARY.finditer(shown):
        yield from _decoded("binary", m[0], _from_bits)
    for m in _DECIMAL.finditer(shown):
        yield from _decoded("decimal", m[0], lambda s: bytes(int(n) for n in re.findall(r"\d+", s)))
    for m in _MORSE.finditer(shown):
        words = ("".join(_LETTER.get(c, "") for c in w.split()) for w in m[0].split("/"))
        if len(said := " ".join(w for w in words if w)) >= 8:
            yield "morse", said
    if "<" in shown or "/*" in shown:
        for pattern, how in ((_COMMENT, "comment"), (_UNSEEN, "unseen"), (_ALT, "alt")):
            for m in pattern.finditer(shown):
                yield how, next(g for g in m.groups() if g is not None)
    clues = _DISGUISED.keys() & set(_WORDS.findall(shown.lower()))
    for by in sorted({_DISGUISED[c] for c in clues})[:3]:
        yield ("rotated", _rotated(shown, by)) if by else ("reversed", shown[::-1])
    if len(_LEET.findall(shown)) >= _FEW:
        yield "leet", re.sub(r"\S*[A-Za-z]\S*", lambda m: m[0].translate(_UNLEET), shown)
    for m in _SPACED.finditer(shown):
        yield "spaced", _SEPARATOR.sub("", _WIDER.sub("\n", m[0])).replace("\n", " ")
    if "+" in shown and len(pieces := _PIECES.findall(shown)) >= 2:
        yield "pieces", "".join(a or b for a, b in pieces)
    if _LONG.search(shown) and (apart := _CAMEL.sub(" ", shown).replace("_", " ")) != shown:
        yield "camel", apart


def _unseen_signs(raw: str) -> Iterator[tuple[str, str]]:
    """Yield what tags, variation selectors, zero-width bits and direction overrides say."""
    for m in _TAGS.finditer(raw):
        if len(m[0]) > 6:
            yield "tags", "".join(chr(ord(c) - 0xE0000) for c in m[0])
    for m in _SELECTORS.finditer(raw):
        yield from _decoded("selectors", m[0], _from_selectors)
    for m in _ZERO_WIDTH.finditer(raw):
        kinds = sorted(set(m[0]))
        if len(kinds) == 2:
            for zero, one in (kinds, kinds[::-1]):
                yield from _decoded("zero_width", m[0].translate({ord(zero): "0", ord(one): "1"}), _from_bits)
    for m in _OVERRIDDEN.finditer(raw):
        yield "bidi", m[1][::-1]


def _decoded(how: str, code: str, decode: Callable[[str], bytes]) -> Iterator[tuple[str, str]]:
    """Yield what `code` says if that is text."""
    try:
        said = decode(code).decode("utf-8")
    except (ValueError, binascii.Error):
        return
    odd = sum(1 for c in said if not c.isprintable() and c not in "\n\r\t" and not _HIDDEN.match(c))
    letters = sum(map(str.isalnum, said))
    if len(said) >= 6 and odd == 0 and 2 * letters >= len(said):
        yield how, said


def _from_base64(code: str) -> bytes:
    code = "".join(code.split()).replace("-", "+").replace("_", "/").rstrip("=")
    if len(code) % 4 == 1:
        code = code[:-1]
    return base64.b64decode(code + "=" * (-len(code) % 4))


def _from_selectors(code: str) -> bytes:
    return bytes(ord(c) - 0xFE00 if ord(c) < 0xFE10 else ord(c) - 0xE0100 + 16 for c in code)


def _from_bits(code: str) -> bytes:
    digits = "".join(code.split())
    return bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits) - 7, 8))
