"""Personal data and secrets as they look in mails, chats, logs, code, tables and JSON, with look-alikes that are neither.

Two halves that share no template and few ways of writing: `open`, on which the detector may be developed, and `held`, on which it is only
ever measured. The generator was written before the detector, from what such data looks like; it writes things that the detector
does not know (numbers with extensions, addresses spelled out, passwords in a sentence). Half of the lines hold nothing: order numbers,
versions, dates, hashes, UUIDs, images in base64, minified code. Numbers are random, with right check digits where the real ones have some.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from corpora import Section, share
from fairlead.detect.personal import find

LINES: Final = 2_400
"""In each half."""
HALVES: Final = ("open", "held")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One text; what it holds, as (kind, form, start, end); the template that it was filled into."""

    text: str
    finds: tuple[tuple[str, str, int, int], ...]
    half: str
    template: str


# ------------------------------------------------------------------------------------------------------- single values

_FIRST = [
    "anna",
    "ben",
    "carla",
    "dmitri",
    "elena",
    "fatima",
    "george",
    "hana",
    "ivan",
    "julia",
    "kofi",
    "lena",
    "marco",
    "nadia",
    "olaf",
    "priya",
    "quentin",
    "rosa",
    "sven",
    "tomas",
]
_LAST = [
    "smith",
    "müller",
    "garcía",
    "rossi",
    "novák",
    "kowalski",
    "dubois",
    "jansen",
    "svensson",
    "silva",
    "sharma",
    "tanaka",
    "kim",
    "okafor",
    "petrov",
    "nielsen",
]
_PLAIN_LAST = [
    "smith",
    "mueller",
    "garcia",
    "rossi",
    "novak",
    "kowalski",
    "dubois",
    "jansen",
    "svensson",
    "silva",
    "sharma",
    "tanaka",
    "kim",
    "okafor",
    "petrov",
]
_DOMAINS = [
    "example.com",
    "mail.example.org",
    "firma-beispiel.de",
    "ejemplo.es",
    "posta.it",
    "wanadoo.fr",
    "uni-brno.cz",
    "kth.se",
    "uol.com.br",
    "proton.me",
]
_HELD_DOMAINS = [
    "corp.internal-mail.co.uk",
    "x.io",
    "sub.dept.university.edu",
    "bücher.example",
    "my-shop.shop",
    "museum.travel",
    "t-online.de",
    "naver.com",
]


def _digits(r: random.Random, n: int) -> str:
    return "".join(r.choices(string.digits, k=n))


def _cased(r: random.Random, n: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(r.choices(alphabet, k=n))


def _email(r: random.Random, held: bool) -> str:
    first, last = r.choice(_FIRST), r.choice(_PLAIN_LAST)
    if not held:
        local = r.choice([f"{first}.{last}", f"{first}{r.randrange(99)}", f"{first[0]}{last}", f"{first}_{last}"])
        return f"{local}@{r.choice(_DOMAINS)}"
    domain = r.choice(_HELD_DOMAINS)
    return r.choice(
        [
            f"{first}+news@{domain}",
            f"{first.upper()}.{last.upper()}@{domain.upper()}",
            f"o'{last}@{domain}",
            f"{first}-{last}.{r.randrange(1950, 2005)}@{domain}",
            f"{first}.{r.choice(_LAST)}@{domain}",
            f"{first} [at] {r.choice(_DOMAINS).replace('.', ' [dot] ')}",
            f"{first}.{last}(at){r.choice(_DOMAINS)}",
            f"{first}@\u200b{r.choice(_DOMAINS)}",
        ]
    )


def _nanp(r: random.Random) -> tuple[str, str, str]:
    return f"{r.randint(2, 9)}{_digits(r, 2)}", f"{r.randint(2, 9)}{_digits(r, 2)}", _digits(r, 4)


def _phone(r: random.Random, held: bool) -> str:
    a, b, c = _nanp(r)
    d = partial(_digits, r)
    if not held:
        return r.choice(
            [
                f"({a}) {b}-{c}",
                f"{a}-{b}-{c}",
                f"+1 {a} {b} {c}",
                f"+49 {r.randint(30, 899)} {r.randint(1, 9)}{d(6)}",
                f"+44 20 7{d(3)} {d(4)}",
                f"+33 6 {d(2)} {d(2)} {d(2)} {d(2)}",
                f"+420 {r.randint(6, 7)}{d(2)} {d(3)} {d(3)}",
                f"+34{r.randint(6, 7)}{d(8)}",
                f"0{r.randint(151, 179)} {r.randint(1, 9)}{d(6)}",
                f"06 {d(2)} {d(2)} {d(2)} {d(2)}",
            ]
        )
    return r.choice(
        [
            f"{a}.{b}.{c}",
            f"1-{a}-{b}-{c} ext. {d(3)}",
            f"+44 (0)20 7{d(3)} {d(4)}",
            f"0049-{r.randint(30, 899)}-{r.randint(1, 9)}{d(6)}",
            f"0{r.randint(151, 179)}/{r.randint(1, 9)}{d(7)}",
            f"07.{d(2)}.{d(2)}.{d(2)}.{d(2)}",
            f"03-{r.randint(3, 6)}{d(3)}-{d(4)}",
            f"({r.randint(11, 99)}) 9{d(4)}-{d(4)}",
            f"+91 {r.randint(7, 9)}{d(4)} {d(5)}",
            f"+86 13{d(1)} {d(4)} {d(4)}",
            f"{a}{b}{c}",
            f"+48\u00a0{d(3)}\u00a0{d(3)}\u00a0{d(3)}",
            f"07{d(3)} {d(6)}",
            f"020 7{d(3)} {d(4)}",
        ]
    )


def _iban(r: random.Random, held: bool) -> str:
    d = partial(_digits, r)
    up = partial(_cased, r, alphabet=string.ascii_uppercase)
    shapes = {
        "DE": d(18),
        "FR": d(10) + _cased(r, 11, string.digits + "ABC") + d(2),
        "GB": up(4) + d(14),
        "ES": d(20),
        "NL": up(4) + d(10),
    }
    rare = {
        "NO": d(11),
        "PL": d(24),
        "CH": d(5) + _cased(r, 12, string.digits),
        "MT": up(4) + d(5) + _cased(r, 18, string.digits + "XYZ"),
        "SE": d(20),
        "IT": up(1) + d(22),
    }
    country, bban = r.choice(list((rare if held else shapes).items()))
    number = int("".join(str(int(c, 36)) for c in bban + country + "00"))
    whole = f"{country}{98 - number % 97:02d}{bban}"
    spaced = " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))
    return r.choice([whole, spaced] if not held else [spaced, whole.lower(), whole, spaced.replace(" ", "-")])


def _luhn_end(body: str) -> str:
    return next(
        body + c
        for c in string.digits
        if not sum(sum(divmod(int(x) * (1 + i % 2), 10)) for i, x in enumerate(reversed(body + c))) % 10
    )


def _card(r: random.Random, held: bool) -> str:
    if not held:
        number = _luhn_end(r.choice(["4" + _digits(r, 3), f"5{r.randint(1, 5)}" + _digits(r, 2)]) + _digits(r, 11))
        return r.choice(
            [
                number,
                " ".join(number[i : i + 4] for i in range(0, 16, 4)),
                "-".join(number[i : i + 4] for i in range(0, 16, 4)),
            ]
        )
    amex = _luhn_end(f"3{r.choice('47')}" + _digits(r, 12))
    other = _luhn_end(
        r.choice([f"2{r.randint(300, 699)}", "6011", "65" + _digits(r, 2), f"35{r.randint(28, 89)}"]) + _digits(r, 11)
    )
    wide = "".join(chr(ord(c) + 0xFEE0) for c in other)
    return r.choice(
        [
            amex,
            f"{amex[:4]} {amex[4:10]} {amex[10:]}",
            other,
            " ".join(other[i : i + 4] for i in range(0, 16, 4)),
            other[:8] + " " + other[8:],
            wide,
        ]
    )


def _ip(r: random.Random, held: bool) -> str:
    four = f"{r.choice([10, 31, 46, 62, 81, 93, 145, 172, 188, 192, 203])}.{r.randrange(256)}.{r.randrange(256)}.{r.randint(1, 254)}"
    groups = [f"{r.randrange(1, 65536):x}" for _ in range(8)]
    if not held:
        return r.choice([four, four, four, f"2001:db8:{groups[0]}::{groups[1]}"])
    return r.choice(
        [
            four,
            ":".join(groups),
            f"fe80::{groups[0]}:{_cased(r, 2, 'abcdef01')}ff:fe{_cased(r, 2, 'abcdef01')}:{groups[2]}",
            f"2a02:{groups[0]}:{groups[1]}::1",
            f"::ffff:{four}",
        ]
    )


def _mod11(body: str, weights: list[int]) -> int:
    return sum(int(c) * w for c, w in zip(body, weights, strict=True)) % 11


def _born(r: random.Random) -> tuple[int, int, int]:
    return r.randint(1930, 2009), r.randint(1, 12), r.randint(1, 28)


_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23], strict=True))  # fmt: skip


def _us_ssn(r: random.Random, held: bool) -> str:
    area = r.choice([n for n in (r.randint(1, 899) for _ in range(9)) if n != 666])
    a, b, c = f"{area:03d}", f"{r.randint(1, 99):02d}", f"{r.randint(1, 9999):04d}"
    return r.choice([f"{a} {b} {c}", f"{a}{b}{c}", f"{a}\u2011{b}\u2011{c}"]) if held else f"{a}-{b}-{c}"


def _uk_nino(r: random.Random, held: bool) -> str:
    a, b = r.choice("ACEHJLMPRSWXY"), r.choice("ACEHJLMPRSWXY")
    d, end = _digits(r, 6), r.choice("ABCD")
    return f"{a}{b} {d[:2]} {d[2:4]} {d[4:]} {end}" if held else f"{a}{b}{d}{end}"


def _uk_nhs(r: random.Random, held: bool) -> str:
    while True:
        body = _digits(r, 9)
        check = (11 - _mod11(body, list(range(10, 1, -1)))) % 11
        if check < 10:
            whole = f"{body}{check}"
            return f"{whole[:3]}-{whole[3:6]}-{whole[6:]}" if held else f"{whole[:3]} {whole[3:6]} {whole[6:]}"


def _de_tax(r: random.Random, held: bool) -> str:
    body = ["0"]
    while body[0] == "0":
        pool = r.sample(string.digits, 9)
        body = [*pool, r.choice(pool)]
        r.shuffle(body)
    product = 10
    for c in body:
        total = (int(c) + product) % 10 or 10
        product = total * 2 % 11
    whole = "".join(body) + str((11 - product) % 10)
    return f"{whole[:2]} {whole[2:5]} {whole[5:8]} {whole[8:]}" if held else whole


def _fr_nir(r: random.Random, held: bool) -> str:
    y, m, _ = _born(r)
    body = f"{r.choice('12')}{y % 100:02d}{m:02d}{r.randint(1, 95):02d}{r.randint(1, 990):03d}{r.randint(1, 999):03d}"
    key = f"{97 - int(body) % 97:02d}"
    return f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:]} {key}" if held else body + key


def _es_id(r: random.Random, held: bool) -> str:
    n = r.randrange(10_000_000)
    x = r.randrange(3)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"
    nie = f"{'XYZ'[x]}{n:07d}{letter[(x * 10_000_000 + n) % 23]}"
    n = r.randrange(1_000_000, 100_000_000)
    dni = f"{n:08d}{letter[n % 23]}"
    return (
        r.choice([f"{dni[:8]}-{dni[8]}", f"{nie[0]}-{nie[1:8]}-{nie[8]}", dni.lower()])
        if held
        else r.choice([dni, nie])
    )


def _it_cf(r: random.Random, held: bool) -> str:
    y, m, d = _born(r)
    body = f"{_cased(r, 6, 'BCDFGLMNPRSTVAEIO')}{y % 100:02d}{'ABCDEHLMPRST'[m - 1]}{d + r.choice([0, 40]):02d}{r.choice('ABCDEFGHIL')}{_digits(r, 3)}"
    total = sum(_ODD[c] if i % 2 == 0 else int(c, 36) - (10 if c.isalpha() else 0) for i, c in enumerate(body))
    whole = body + string.ascii_uppercase[total % 26]
    return whole.lower() if held else whole


def _nl_bsn(r: random.Random, held: bool) -> str:
    while True:
        body = _digits(r, 8)
        check = _mod11(body, list(range(9, 1, -1)))
        if check < 10 and body[0] != "0":
            whole = f"{body}{check}"
            return f"{whole[:4]}.{whole[4:6]}.{whole[6:]}" if held else whole


def _pl_pesel(r: random.Random, _: bool) -> str:
    y, m, d = _born(r)
    body = f"{y % 100:02d}{m + (20 if y >= 2000 else 0):02d}{d:02d}{_digits(r, 4)}"
    return body + str(-sum(int(c) * w for c, w in zip(body, [1, 3, 7, 9] * 3, strict=False)) % 10)


def _cz_rc(r: random.Random, held: bool) -> str:
    while True:
        y, m, d = r.randint(1955, 2009), r.randint(1, 12), r.randint(1, 28)
        body = int(f"{y % 100:02d}{m + r.choice([0, 50]):02d}{d:02d}{_digits(r, 3)}")
        if body % 11 < 10:
            whole = f"{body:09d}{body % 11}"
            return whole if held else f"{whole[:6]}/{whole[6:]}"


def _se_pnr(r: random.Random, held: bool) -> str:
    y, m, d = _born(r)
    short = _luhn_end(f"{y % 100:02d}{m:02d}{d:02d}{_digits(r, 3)}")
    return f"{y // 100}{short[:6]}-{short[6:]}" if held else f"{short[:6]}-{short[6:]}"


def _br_cpf(r: random.Random, held: bool) -> str:
    body = _digits(r, 9)
    for n in (10, 11):
        check = _mod11(body, list(range(n, 1, -1)))
        body += str(0 if check < 2 else 11 - check)
    return body if held else f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"


def _verhoeff_times(a: int, b: int) -> int:
    # The dihedral group of order ten: 0-4 are turns, 5-9 turns after a flip.
    if a < 5:
        return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
    return (a - 5 - b) % 5 + 5 if b < 5 else (a - b) % 5


def _in_aadhaar(r: random.Random, held: bool) -> str:
    step = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    body = r.choice("23456789") + _digits(r, 10)

    def total(number: str) -> int:
        c = 0
        for i, digit in enumerate(reversed(number)):
            n = int(digit)
            for _ in range(i % 8):
                n = step[n]
            c = _verhoeff_times(c, n)
        return c

    whole = next(body + c for c in string.digits if total(body + c) == 0)
    return whole if held else f"{whole[:4]} {whole[4:8]} {whole[8:]}"


def _be_rrn(r: random.Random, held: bool) -> str:
    y, m, d = _born(r)
    body = f"{y % 100:02d}{m:02d}{d:02d}{r.randint(1, 997):03d}"
    check = 97 - int(("2" if y >= 2000 else "") + body) % 97
    return f"{body}{check:02d}" if held else f"{body[:2]}.{body[2:4]}.{body[4:6]}-{body[6:]}.{check:02d}"


def _fi_hetu(r: random.Random, _: bool) -> str:
    y, m, d = _born(r)
    body = f"{d:02d}{m:02d}{y % 100:02d}"
    n = f"{r.randint(2, 899):03d}"
    return f"{body}{'A' if y >= 2000 else '-'}{n}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(body + n) % 31]}"


def _ch_ahv(r: random.Random, held: bool) -> str:
    body = "756" + _digits(r, 9)
    check = -sum(int(c) * (3 if i % 2 else 1) for i, c in enumerate(body)) % 10
    return f"{body}{check}" if held else f"{body[:3]}.{body[3:7]}.{body[7:11]}.{body[11:]}{check}"


def _no_fnr(r: random.Random, held: bool) -> str:
    while True:
        y, m, d = _born(r)
        body = f"{d:02d}{m:02d}{y % 100:02d}{_digits(r, 3)}"
        one = -_mod11(body, [3, 7, 6, 1, 8, 9, 4, 5, 2]) % 11
        two = -_mod11(body + str(one), [5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11 if one < 10 else 10
        if two < 10:
            return f"{body[:6]} {body[6:]}{one}{two}" if held else f"{body}{one}{two}"


def _cn_id(r: random.Random, held: bool) -> str:
    y, m, d = _born(r)
    body = f"{r.choice(['110105', '310104', '440305', '510107'])}{y}{m:02d}{d:02d}{_digits(r, 3)}"
    check = "10X98765432"[sum(int(c) * 2 ** (17 - i) for i, c in enumerate(body)) % 11]
    return body + (check.lower() if held else check)


def _ca_sin(r: random.Random, held: bool) -> str:
    whole = _luhn_end(r.choice("1234567") + _digits(r, 7))
    return f"{whole[:3]}-{whole[3:6]}-{whole[6:]}" if held else f"{whole[:3]} {whole[3:6]} {whole[6:]}"


_ID_MAKERS: Final[dict[str, Callable[[random.Random, bool], str]]] = {
    "us_ssn": _us_ssn, "uk_nino": _uk_nino, "uk_nhs": _uk_nhs, "de_tax_id": _de_tax, "fr_nir": _fr_nir, "es_id": _es_id, "it_cf": _it_cf,
    "nl_bsn": _nl_bsn, "pl_pesel": _pl_pesel, "cz_rc": _cz_rc, "se_pnr": _se_pnr, "br_cpf": _br_cpf, "in_aadhaar": _in_aadhaar,
    "be_rrn": _be_rrn, "fi_hetu": _fi_hetu, "ch_ahv": _ch_ahv, "no_fnr": _no_fnr, "cn_id": _cn_id, "ca_sin": _ca_sin,
}  # fmt: skip


def _api_key(r: random.Random, held: bool) -> str:
    low = string.ascii_lowercase + string.digits
    hexa = "0123456789abcdef"
    if not held:
        return r.choice(
            [
                "AKIA" + _cased(r, 16, string.ascii_uppercase + "234567"),
                "ghp_" + _cased(r, 36),
                "sk-" + _cased(r, 48),
                "sk_live_" + _cased(r, 24),
                f"xoxb-{_digits(r, 12)}-{_digits(r, 12)}-{_cased(r, 24)}",
                "AIza" + _cased(r, 35, string.ascii_letters + string.digits + "_-"),
                "glpat-" + _cased(r, 20),
                "npm_" + _cased(r, 36),
            ]
        )
    return r.choice(
        [
            "sk-proj-" + _cased(r, 40, string.ascii_letters + string.digits + "_-") + "T3BlbkFJ" + _cased(r, 40),
            "sk-ant-api03-" + _cased(r, 90, string.ascii_letters + string.digits + "_-") + "AA",
            "github_pat_" + _cased(r, 22) + "_" + _cased(r, 59),
            "ASIA" + _cased(r, 16, string.ascii_uppercase + "234567"),
            "hf_" + _cased(r, 34, string.ascii_letters),
            "SG." + _cased(r, 22) + "." + _cased(r, 43),
            "dop_v1_" + _cased(r, 64, hexa),
            "shpat_" + _cased(r, 32, hexa),
            "key-" + _cased(r, 32, low),
            f"{_digits(r, 10)}:AA{_cased(r, 33, string.ascii_letters + string.digits + '_-')}",
            "tvly-" + _cased(r, 32),
            "nvapi-" + _cased(r, 64, string.ascii_letters + string.digits + "_-"),
        ]
    )


def _b64(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


def _token(r: random.Random, held: bool) -> str:
    jwt = f"{_b64({'alg': 'HS256', 'typ': 'JWT'})}.{_b64({'sub': _digits(r, 10), 'iat': 1_700_000_000 + r.randrange(10**7)})}.{_cased(r, 43, string.ascii_letters + string.digits + '_-')}"
    if not held:
        return r.choice([jwt, _cased(r, 40), _cased(r, 32, "0123456789abcdef")])
    return r.choice(
        [
            jwt,
            _cased(r, 43) + "=",
            _cased(r, 28, string.ascii_lowercase + string.digits),
            _cased(r, 64, "0123456789ABCDEF"),
        ]
    )


def _private_key(r: random.Random, held: bool) -> str:
    name = r.choice(["OPENSSH PRIVATE KEY", "EC PRIVATE KEY"] if held else ["RSA PRIVATE KEY", "PRIVATE KEY"])
    lines = [_cased(r, 64, string.ascii_letters + string.digits + "+/") for _ in range(r.randint(3, 8))]
    return f"-----BEGIN {name}-----\n" + "\n".join(lines) + f"\n-----END {name}-----"


def _password(r: random.Random, held: bool) -> str:
    word = r.choice(["tiger", "summer", "dragon", "monkey", "winter", "banana", "falcon"])
    if not held:
        return r.choice(
            [
                f"{word.title()}{r.randint(10, 2025)}!",
                f"{word}{_digits(r, 4)}",
                _cased(r, 12, string.ascii_letters + string.digits + "#%*+"),
            ]
        )
    return r.choice(
        [
            f"{word[0].upper()}{word[1:3]}$ {_digits(r, 2)}".replace(" ", "_"),
            f"p@{word}{_digits(r, 2)}",
            _cased(r, 16, string.ascii_letters + "&^~"),
            word + word[::-1],
        ]
    )


# ----------------------------------------------------------------------------------------------------------- look-alikes


def _near_misses(r: random.Random) -> dict[str, str]:
    """Write one of each thing that looks like personal data or a secret, and is none."""
    d = partial(_digits, r)
    bad = _card(r, False).replace(" ", "").replace("-", "")
    bad = bad[:-1] + str((int(bad[-1]) + r.randint(1, 9)) % 10)
    return {
        "order": r.choice([d(8), f"{d(3)}-{d(7)}-{d(7)}", f"A{d(9)}", f"2024-{d(6)}", d(12), f"PO-{d(6)}", d(10)]),
        "date": r.choice([f"2024-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}", f"{r.randint(1, 28):02d}.{r.randint(1, 12):02d}.2023", f"{r.randint(1, 12)}/{r.randint(1, 28)}/2022", f"2024{r.randint(1, 12):02d}{r.randint(1, 28):02d}"]),
        "time": f"{r.randrange(24):02d}:{r.randrange(60):02d}:{r.randrange(60):02d}.{d(3)}",
        "stamp": str(1_600_000_000 + r.randrange(10**8)),
        "millis": str(1_600_000_000_000 + r.randrange(10**11)),
        "version": r.choice([f"{r.randrange(20)}.{r.randrange(20)}.{r.randrange(30)}", f"v{r.randrange(9)}.{r.randrange(20)}.{r.randrange(9)}.{r.randrange(200)}", f"10.0.{d(5)}.{d(3)}", f"{r.randrange(9)}.{r.randrange(20)}.0.{r.randrange(12)}"]),
        "sha": r.choice([_cased(r, 40, "0123456789abcdef"), _cased(r, 7, "0123456789abcdef"), _cased(r, 64, "0123456789abcdef")]),
        "uuid": str(uuid.UUID(int=r.getrandbits(128), version=4)),
        "image": "data:image/png;base64," + base64.b64encode(r.randbytes(r.randint(90, 400))).decode(),
        "integrity": "sha512-" + base64.b64encode(r.randbytes(64)).decode(),
        "badcard": bad,
        "isbn": f"978-{d(1)}-{d(4)}-{d(4)}-{d(1)}",
        "float": f"{r.random() * 1000:.{r.randint(6, 15)}f}",
        "numbers": " ".join(str(r.randrange(10 ** r.randint(1, 5))) for _ in range(8)),
        "matrix": "\n".join(",".join(str(r.randrange(1000)) for _ in range(6)) for _ in range(4)),
        "geo": f"{r.uniform(-90, 90):.6f}, {r.uniform(-180, 180):.6f}",
        "mac": ":".join(_cased(r, 2, "0123456789abcdef") for _ in range(6)),
        "camel": r.choice(["getElementsByClassNameAndTagName2", "AbstractSingletonProxyFactoryBeanV2Impl", "useCreateUserWithEmailAndPassword", "MAX_RETRY_BACKOFF_SECONDS_2"]),
        "minified": r.choice(["!function(e,t){var n=t(e[0]);for(var r=0;r<n.length;r++)n[r]^=e[r%8]}(this,0x1f4);", "const a=b=>c(d[e],f?g:h).i(j=>k[0]||l),m={n:o,p:1e3};export{m as default}"]),
        "package": r.choice(["@types/node@18.11.9", "lodash@4.17.21", "actions/checkout@v4", "git@github.com:acme/tool.git", "icon@2x.png", "@property", "@channel"]),
        "hosts": r.choice(["127.0.0.1", "0.0.0.0", "255.255.255.0", "localhost:8080", "std::vector<int>::iterator", "a::b::c"]),
        "money": r.choice([f"{d(2)},{d(3)},{d(3)}.00", f"€ {d(1)}.{d(3)}.{d(3)},{d(2)}", f"{d(4)} USD", f"{d(3)} {d(3)} Kč"]),
        "paths": r.choice(["/usr/lib/python3.11/site-packages/numpy/core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so", f"s3://bucket/year=2024/part-0000{d(1)}-{d(5)}.parquet", "https://docs.google.com/document/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/edit"]),
        "asks": r.choice(["password: str", "password is required", "PASSWORD=${DB_PASSWORD}", 'api_key = os.environ["OPENAI_API_KEY"]', "token: Optional[str] = None", "password=<your-password>", "secret: ********", "sk-your-api-key-here", "the secret of happiness is patience", "password = getpass.getpass()", "Bearer <token>"]),
        "call": r.choice([f"call_{_cased(r, 24)}", f"msg_{_cased(r, 20)}", f"req_{_cased(r, 16, 'abcdef0123456789')}"]),
        "tracking": r.choice([f"1Z{_cased(r, 6, 'ABCDEF0123456789')}{d(10)}", f"RR{d(9)}DE"]),
    }  # fmt: skip


_TEMPLATES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "open": {
        "email": ("Please write to {x} before Friday.", "From: Anna <{x}>\nTo: team\nSubject: minutes", "Meine neue Adresse ist {x}, danke!", '{{"user": "{x}", "active": true}}', "[{time}] INFO login ok user={x}", "Contactez {x} pour la facture {order}."),
        "phone": ("You can call me at {x} after six.", "Tel.: {x}", "Mon numéro de téléphone: {x}", "Rückruf bitte unter {x}, Auftrag {order}", "name;phone\nIvan;{x}", "My cell is {x}, version {version} of the app crashed."),
        "iban": ("Bitte überweisen Sie auf {x} bis {date}.", "IBAN: {x}", "payout_account={x}", "Transfer 200 EUR to {x} please"),
        "card": ("My card is {x}, is it safe to pay?", "card number: {x} exp 12/27", '{{"pan":"{x}","cvv":"123"}}', "La carte {x} a été refusée le {date}"),
        "ip": ("Failed login from {x} port 22", "{x} - - [10/Oct/2023] \"GET / HTTP/1.1\" 200 {stamp}", "client_ip: {x}", "Kannst du {x} anpingen?"),
        "us_ssn": ("My SSN is {x}", "social security number: {x}, order {order}"),
        "uk_nino": ("National Insurance number {x}", "NI no: {x}"),
        "uk_nhs": ("NHS number: {x}", "Patient NHS {x} seen on {date}"),
        "de_tax_id": ("Steuer-ID {x}", "Meine Steueridentifikationsnummer lautet {x}."),
        "fr_nir": ("Numéro de sécurité sociale : {x}", "NIR {x}"),
        "es_id": ("Mi DNI es {x}", "NIE/DNI: {x}"),
        "it_cf": ("Codice fiscale: {x}", "il mio CF è {x}"),
        "nl_bsn": ("BSN {x}", "Mijn burgerservicenummer is {x}"),
        "pl_pesel": ("PESEL: {x}", "Mój numer PESEL to {x}"),
        "cz_rc": ("Rodné číslo: {x}", "r.č. {x}, bytem Brno"),
        "se_pnr": ("Personnummer: {x}", "Mitt personnummer är {x}"),
        "br_cpf": ("CPF: {x}", "Meu CPF é {x}"),
        "in_aadhaar": ("Aadhaar no. {x}", "My Aadhaar number is {x}"),
        "be_rrn": ("Rijksregisternummer {x}", "numéro national {x}"),
        "fi_hetu": ("Henkilötunnus: {x}", "hetu {x}"),
        "ch_ahv": ("AHV-Nummer {x}", "AHV: {x}"),
        "no_fnr": ("Fødselsnummer: {x}", "personnummer {x}"),
        "cn_id": ("身份证号 {x}", "ID card {x}"),
        "ca_sin": ("SIN: {x}", "social insurance number {x}"),
        "api_key": ("OPENAI_API_KEY={x}", "why does this key not work: {x}", 'client = Client(api_key="{x}")', "curl -H 'Authorization: Bearer {x}' https://api.example.com"),
        "token": ("Authorization: Bearer {x}", 'access_token: "{x}"', "auth_token={x}", "secret_key = '{x}'"),
        "private_key": ("what is wrong with this key?\n{x}\nthanks", "{x}"),
        "password": ("password: {x}", "DB_PASSWORD={x}", 'login("admin", password="{x}")', "postgres://app:{x}@db.example.com:5432/main"),
    },
    "held": {
        "email": ("{x} schrieb am {date}:\n> ok", "ssh log: reset link sent to <{x}>", "id,mail,order\n7,{x},{order}", "author = \"Hana <{x}>\"  # build {version}", "mailto:{x}?subject=hi", "Escríbame a {x} por favor", "{x}", "请发邮件到{x}谢谢"),
        "phone": ("{x} is my number, text me", "WhatsApp {x} (nur abends)", '{{"contact":{{"mobile":"{x}"}}}}', "Zavolejte mi na {x} ohledně objednávky {order}", "Fax {x}", "tel:{x}", "電話は{x}です", "Ligue para {x}"),
        "iban": ("konto {x}", "Please wire it to {x}, reference {order}", '"bank": {{"acct": "{x}"}}', "{x}"),
        "card": ("pay with {x} 09/28 cvc 321", "cc={x}&amount=12", "Karta {x} byla odmítnuta", "VISA/AMEX {x} on file since {date}"),
        "ip": ("ssh root@{x}", "blocked [{x}]:443 at {time}", "X-Forwarded-For: {x}, {x2}", "the host {x} runs {version}"),
        "us_ssn": ("ssn={x}", "employee soc. sec. no. {x}"),
        "uk_nino": ("nino={x}", "{x} is what HMRC gave me"),
        "uk_nhs": ("nhs_no,{x}", "his nhs number ({x}) is on the letter"),
        "de_tax_id": ("IdNr. {x}", "Bitte Steuer-Identifikationsnummer {x} eintragen"),
        "fr_nir": ("n° sécu {x}", "Assuré {x}"),
        "es_id": ("titular con documento {x}", "nif={x}"),
        "it_cf": ("c.f. {x}", "nato a Roma, {x}"),
        "nl_bsn": ("burgerservicenr. {x}", "bsn={x}"),
        "pl_pesel": ("pesel={x}", "osoba o numerze PESEL {x}"),
        "cz_rc": ("RČ {x}", "rodne cislo je {x}"),
        "se_pnr": ("pnr: {x}", "Kund {x} ringde"),
        "br_cpf": ("cpf={x}", "titular do CPF nº {x}"),
        "in_aadhaar": ("aadhar: {x}", "UIDAI {x}"),
        "be_rrn": ("rrn {x}", "INSZ: {x}"),
        "fi_hetu": ("Asiakas {x}", "hetu={x}"),
        "ch_ahv": ("numéro AVS {x}", "versichert unter {x}"),
        "no_fnr": ("fnr {x}", "kunde {x} har ringt"),
        "cn_id": ("证件 {x}", "公民身份号码是{x}"),
        "ca_sin": ("my SIN number: {x}", "NAS {x}"),
        "api_key": ("env:\n  - name: KEY\n    value: {x}", "i accidentally pushed {x} to github", "{x}", 'headers["x-api-key"] = \'{x}\''),
        "token": ("session_token={x}; Path=/", '"refreshToken":"{x}"', "export SECRET_TOKEN={x}", "Cookie auth key: {x}"),
        "private_key": ("cat id_ed25519\n{x}", 'key: |\n{x}\n'),
        "password": ("my password is {x} and it fails", "Passwort: {x}", "mysql -u root --password={x} shop", "redis://:{x}@cache:6379/0", '{{"user":"bob","passwd":"{x}"}}', "heslo: {x}"),
    },
}  # fmt: skip
_NOTHING: Final[dict[str, tuple[str, ...]]] = {
    "open": (
        "Where is order {order}? I paid {money} on {date}.", "Upgrade to {version} and run build {stamp}.", "commit {sha}\nMerge branch 'main'", "id={uuid} took {float} ms",
        "![logo]({image})", '"integrity": "{integrity}"', "The test card {badcard} is not valid.", "ISBN {isbn}", "plot {numbers}", "{matrix}", "at {geo}", "link {mac} is up",
        "call {camel}() twice", "{minified}", "npm install {package}", "listening on {hosts}", "see {paths}", "{asks}", "tool id {call}", "Parcel {tracking} left on {date}.",
        "[{date} {time}] job {order} done in {float} s", "Wie viel sind {numbers} zusammen?", "Quelle est la capitale de la France ?", "What is 17 * 24?", "timestamp {millis}",
    ),
    "held": (
        "Ticket #{order} ({date})", "Invoice no. {order}: {money}", "python {version} on windows {version}", "revert {sha} please", "trace_id: {uuid}, span {sha}",
        "<img src='{image}'>", "{badcard} fails the Luhn test", "{isbn} is out of print", "row: {numbers}", "a,b,c,d,e,f\n{matrix}", "GPS {geo} altitude {float}", "ether {mac} txqueuelen 1000",
        "class {camel}:", "<script>{minified}</script>", "uses: {package}", "bind {hosts}", "open {paths} failed", "# {asks}", '{{"tool_call_id":"{call}"}}', "tracking code {tracking}",
        "epoch {millis} equals {stamp}000", "Serial number {order}-{order}", "El pedido {order} llegó el {date}", "objednávka {order} za {money}", "Translate 'good morning' into Czech.", "flight LH{order} at {time}",
    ),
}  # fmt: skip

_MAKERS: Final[dict[str, Callable[[random.Random, bool], str]]] = {
    "email": _email, "phone": _phone, "iban": _iban, "card": _card, "ip": _ip, "api_key": _api_key, "token": _token,
    "private_key": _private_key, "password": _password, **_ID_MAKERS,
}  # fmt: skip


def corpus(*, seed: int) -> list[Line]:
    """Make `LINES` lines of each half, half of them with nothing to find."""
    lines = []
    for half in HALVES:
        r = random.Random(f"{seed} {half}")
        kinds = [k for k in _MAKERS if k not in _ID_MAKERS] * 4 + list(_ID_MAKERS)
        for i in range(LINES):
            if i % 2:
                lines.append(_write(r, r.choice(_NOTHING[half]), {}, half))
                continue
            kind = kinds[i // 2 % len(kinds)]
            values = {k: _MAKERS[kind](r, half == "held") for k in ("x", "x2")}
            labels = dict.fromkeys(values, ("national_id", kind) if kind in _ID_MAKERS else (kind, ""))
            template = r.choice(_TEMPLATES[half][kind])
            lines.append(_write(r, template, {k: (values[k], labels[k]) for k in values}, half))
    return lines


def positives(*, seed: int) -> list[str]:
    """Return the texts of the held half that hold something: for benchmarks that mix them into others."""
    return [line.text for line in corpus(seed=seed) if line.half == "held" and line.finds]


def _write(r: random.Random, template: str, values: dict[str, tuple[str, tuple[str, str]]], half: str) -> Line:
    out, finds = "", []
    for piece in re.split(r"(\{\{|\}\}|\{\w+\})", template):
        if piece in ("{{", "}}"):
            out += piece[0]
        elif piece.startswith("{") and (name := piece[1:-1]) in values:
            value, (kind, form) = values[name]
            finds.append((kind, form, len(out), len(out) + len(value)))
            out += value
        elif piece.startswith("{"):
            out += _near_misses(r)[piece[1:-1]]
        else:
            out += piece
    return Line(text=out, finds=tuple(finds), half=half, template=template)


# ------------------------------------------------------------------------------------------------------------- measuring

COUNTED: Final = ("email", "phone", "iban", "card", "ip", "national_id", "api_key", "token", "private_key", "password")
_KEYS: Final = frozenset(("api_key", "token"))
"""One counts for the other: a key written after ``Bearer`` is both."""
BUDGET_US: Final = 60.0


def measure(*, data: Path | None, seed: int) -> Section:
    """Measure the detector on both halves: precision, recall and F1 by kind. With `data`, count what it finds in recorded prompts too."""
    lines = corpus(seed=seed)
    for line in lines[:100]:
        find(line.text)
    rows: list[tuple[str | float | int | None, ...]] = []
    marks = {}
    for half in HALVES:
        own = [line for line in lines if line.half == half]
        judged, seconds = _judge(own)
        rows += [_row(half, kind, [j for j in judged if j.kind == kind], seed) for kind in COUNTED]
        rows.append(_row(half, "all", judged, seed))
        total = Counter(j.verdict for j in judged)
        rows.append((half, "us a text", len(own), *[None] * 6, round(1e6 * median(seconds), 1)))
        if half == "held":
            marks["held-out precision at least 0.95"] = total["right"] >= 0.95 * (total["right"] + total["wrong"])
            marks["held-out recall at least 0.9"] = total["right"] >= 0.9 * (total["right"] + total["missed"])
    for name, text in _PROSE.items():
        taken = [_seconds(text) for _ in range(300)]
        rows.append(("-", f"us, {name}", len(text), *[None] * 6, round(1e6 * median(taken), 1)))
        marks[f"{name} in {BUDGET_US:.0f} us"] = 1e6 * median(taken) <= BUDGET_US
    return Section(
        name="personal data and secrets",
        setting=(
            f"{len(lines)} generated lines, half of them with nothing to find; `open`: templates and ways of writing that the detector was made on, "
            f"`held`: others, never tuned on; seed {seed}; a find is right if it has the kind and covers every letter and digit; "
            "95% intervals by resampling templates (of identity numbers: countries), or ways of writing, whichever is wider; us: median, one core"
        ),
        columns=("half", "kind", "n", "templates", "ways", "precision", "95%", "recall", "95%", "F1"),
        rows=tuple(rows),
        marks=marks,
        notes=(
            "Rows of `us` give the time in the last column.",
            "Both halves have one author, and generated texts are cleaner than real ones: expect less of both in the wild.",
            *(() if data is None else _recorded(data)),
        ),
    )


def _recorded(data: Path) -> list[str]:
    """Count finds in the prompts of recorded outcomes: mostly questions of benchmarks, which hold little that is personal."""
    from fairlead.table import OutcomeTable

    out = []
    for file in sorted((data / "outcomes").glob("*.parquet")):
        prompts = sorted({p for p in OutcomeTable.read(file).prompts if p})
        found = [[s.kind for s in find(p)] for p in prompts]
        kinds = Counter(k for ks in found for k in ks)
        out.append(
            f"{file.stem}: in {sum(map(bool, found))} of {len(prompts)} recorded prompts something is found: {dict(kinds)}"
        )
    return out


_PROSE: Final = {
    "300 characters of prose": (
        "Explain how photosynthesis works in plants and why it matters for the carbon cycle. Give me three short paragraphs that a child "
        "of twelve can follow, avoid jargon, and end with a question that makes them think about where the oxygen that they breathe comes "
        "from on every day of the year, and say what would change."
    ),
    "300 characters with numbers": (
        "In 2023 the team of 14 people shipped version 3.2.1 to 120,000 users; 37% of them upgraded in the first 10 days, and revenue rose "
        "from 1.2 to 1.9 million. Compute growth per user for 2022, 2023 and 2024 and show a table. The details are at "
        "https://example.com/reports/2023/q4 and so on, thanks."
    ),
}


def _seconds(text: str) -> float:
    start = perf_counter()
    find(text)
    return perf_counter() - start


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A value, or a find that is none: `right`, `wrong` or `missed`; its template (an identity number: its country), and how it is written."""

    kind: str
    verdict: str
    template: str
    way: str


def _judge(lines: list[Line]) -> tuple[list[Judged], list[float]]:
    """Judge every value and every find, and time every line (seconds)."""
    judged, seconds = [], []
    for line in lines:
        start = perf_counter()
        spans = find(line.text)
        seconds.append(perf_counter() - start)
        left = list(spans)
        for kind, form, start_at, end_at in line.finds:
            match = next(
                (s for s in left if _same(s.kind, kind) and _covers(line.text, s.start, s.end, start_at, end_at)), None
            )
            if match is not None:
                left.remove(match)
            verdict, way = "right" if match else "missed", _way(line.text[start_at:end_at])
            judged.append(Judged(kind=kind, verdict=verdict, template=form or line.template, way=f"{kind} {way}"))
        for s in left:
            way = f"{s.kind} {_way(line.text[s.start : s.end])}"
            judged.append(Judged(kind=s.kind, verdict="wrong", template=line.template, way=way))
    return judged, seconds


def _way(value: str) -> str:
    """How a value is written: digits alike, letters alike however many."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"[^\D0-9]", "0", re.sub(r"[0-9]", "9", value)))


def _same(found: str, kind: str) -> bool:
    return found == kind or (found in _KEYS and kind in _KEYS)


def _covers(text: str, start: int, end: int, start_at: int, end_at: int) -> bool:
    """Whether all letters and digits of the value are found, and little else."""
    outside = text[start_at : max(start_at, start)] + text[min(end_at, end) : end_at]
    return (
        start < end_at
        and end > start_at
        and not any(c.isalnum() for c in outside)
        and end - start <= end_at - start_at + 4
    )


def _row(half: str, kind: str, judged: list[Judged], seed: int) -> tuple[str | float | int | None, ...]:
    n = Counter(j.verdict for j in judged)
    f1 = 2 * n["right"] / (2 * n["right"] + n["wrong"] + n["missed"]) if judged else None
    shares: list[float | str] = []
    for other in ("wrong", "missed"):
        some = [j for j in judged if j.verdict in ("right", other)]
        hits = [j.verdict == "right" for j in some]
        by = (share(hits, [j.template for j in some], seed=seed), share(hits, [j.way for j in some], seed=seed))
        wide = max(by, key=lambda s: s.high - s.low)
        shares += [round(wide.value, 3), wide.interval]
    values = [j for j in judged if j.verdict != "wrong"]
    units = [len({getattr(j, of) for j in values}) for of in ("template", "way")]
    return (half, kind, len(values), *units, *shares, None if f1 is None else round(f1, 3))
