"""Personal data in text: e-mail, phone, IBAN, payment card, IP address, national identity numbers; and secrets. Ours, no paper.

One pass finds the runs of digits; each run's groups are looked up by their lengths (`_LAYOUTS`), so that only what is written like a card or
an identity number is checked like one. What has a strong check (two digits, or one and a birth date) counts as it stands; what
one random number in ten would pass must have a word such as ``SSN`` or ``Tel.`` beside it. A number that is part of a longer one,
of a decimal or of a word is none.

Check digits: cards by Luhn (ISO/IEC 7812) and issuer ranges, IBAN by mod 97 and the length of the country (ISO 13616), Aadhaar by Verhoeff,
the German tax id by ISO 7064 mod 11,10, the others as their issuers publish. Those of the United States, Denmark and Korea have none.

Names and addresses need a language model: `fairlead.detect.presidio`. What is found is where it stands in the text given (`Span`), also
if that writes full-width digits or puts invisible characters between.

Every search is bounded and none begins again within what it went through, so the time is linear: 8 µs for 300 characters of prose, 41 µs with some numbers and a link, and at most some 5 µs a
character where a text is nothing but telephone numbers (`benchmarks/corpora/personal.py` measures the first two).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from fairlead.detect import credentials
from fairlead.detect.span import Span, plain, restored, settled

PERSONAL: Final = ("email", "phone", "iban", "card", "ip", "national_id")
SECRET: Final = credentials.KINDS
KINDS: Final = (*PERSONAL, *SECRET)
LEARNED: Final = ("name", "address")
"""Kinds that only Presidio finds."""


def find(text: str, *, kinds: Collection[str] = KINDS) -> list[Span]:
    """Return what is found of `kinds` in `text`, by place, none overlapping."""
    read, places = plain(text)
    found: list[Span] = []
    if any(k in kinds for k in SECRET):
        found += credentials.spans(read)
    found += _personal(read, kinds)
    if not found:
        return found
    return restored(settled(s for s in found if s.kind in kinds), places)


def _personal(text: str, kinds: Collection[str]) -> Iterator[Span]:
    if "email" in kinds and ("@" in text or _SPELLED_HINT.search(text)):
        yield from _emails(text)
    if not _DIGIT.search(text):
        return
    if "." in text and "ip" in kinds:
        yield from _ip4(text)
    if text.count(":") >= 2 and "ip" in kinds:
        yield from _ip6(text)
    if "iban" in kinds:
        yield from _ibans(text)
    ids = "national_id" in kinds
    if ids:
        yield from _lettered(text)
    if ids or "card" in kinds or "phone" in kinds:
        said: dict[re.Pattern[str], bool] = {}
        for m in _RUN.finditer(text):
            if m.end() - m.start() >= 7 and not _DATE.fullmatch(text, m.start(), m.end()):
                yield from _Run(text, m.start(), m.end(), said).spans()


# ------------------------------------------------------------------------------------------------------------- e-mail

_DIGIT: Final = re.compile("[0-9]")
_LOCAL_BACKWARDS: Final = re.compile(r"[\w%+'-](?:[\w.%+'-]{0,62}[\w+])?")
_DOMAIN: Final = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,6}((?:[A-Za-z]{2,18}|xn--[a-z0-9-]{2,40})(?![A-Za-z0-9_-])|[^\W\d_A-Za-z]{2,18}(?![\w-]))"
)
_FILES: Final = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "ico",
        "js",
        "ts",
        "css",
        "py",
        "rb",
        "go",
        "rs",
        "md",
        "txt",
        "json",
        "yaml",
        "yml",
        "html",
        "lock",
        "zip",
        "so",
        "exe",
    ]
)
_SPELLED_HINT: Final = re.compile(r"[\[({]\s?at\s?[\])}]", re.IGNORECASE)
_SPELLED: Final = re.compile(
    r"(?<![\w.])[\w.+-]{1,64}\s?[\[({]\s?at\s?[\])}]\s?[\w-]{1,63}(?:(?:\s?[\[({]\s?dot\s?[\])}]\s?|\.)[\w-]{1,63}){1,4}",
    re.IGNORECASE,
)


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        local = _LOCAL_BACKWARDS.match(text[max(0, at - 64) : at][::-1]) if domain is not None else None
        if domain is not None and local is not None and domain[1].lower() not in _FILES:
            start = at - local.end()
            # Scripts without spaces run on into the address: it begins where ASCII does, if it has any.
            while start < at and text[start] >= "\u0e00" and text[at - 1] < "\u0e00":
                start += 1
            end = domain.end()
            repository = text[start:at] == "git" and text[end : end + 1] in (":", "/")
            if not repository and not _in_url(text, start):
                yield Span(start, end, "email", "", 0.95)
        at = text.find("@", at + 1)
    if _SPELLED_HINT.search(text):
        for m in _SPELLED.finditer(text):
            yield Span(m.start(), m.end(), "email", "spelled", 0.8)


def _in_url(text: str, at: int) -> bool:
    """Whether what begins at `at` is the user's part of ``scheme://user:password@host``."""
    head = text[max(0, at - 80) : at]
    slashes = head.rfind("://")
    return slashes >= 0 and not re.search(r"[\s/?=<>\"']", head[slashes + 3 :])


# ----------------------------------------------------------------------------------------------------------------- IP

_V4: Final = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_V6: Final = re.compile(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.[0-9]{1,3}){0,3}")
_VERSION: Final = re.compile(
    r"version|\bver\b|release|build|\bv\.?$|upgrade|update|windows|chrome|firefox|==|>=|\bsemver|dll|driver|firmware",
    re.IGNORECASE,
)
_HOST: Final = re.compile(
    r"\bip\b|ip[ _-]?addr|[_ ]ip|\bhost|addr|server|ping|ssh|from|client|remote|gateway|proxy|forwarded|peer|subnet|network|dns|route|block|listen|connect|login",
    re.IGNORECASE,
)


def _ip4(text: str) -> Iterator[Span]:
    for m in _V4.finditer(text):
        start, end = m.span()
        before, after = text[start - 1 : start], text[end : end + 2]
        if (before and ((before.isascii() and before.isalnum()) or before in "._-+")) or after[:1].isdigit():
            continue
        if (
            after[:1] in ("-", "+", "_")
            or (after[:1] == "." and after[1:].isalnum())
            or (after[:1].isascii() and after[:1].isalpha())
        ):
            continue
        octets = m[0].split(".")
        numbers = [int(o) for o in octets]
        if max(numbers) > 255 or any(len(o) > 1 and o[0] == "0" for o in octets) or numbers[0] in (0, 127, 255):
            continue
        version, host = _VERSION.search(text, max(0, start - 24), start), _HOST.search(text, max(0, start - 24), start)
        if version is not None and (host is None or host.start() < version.start()):
            continue
        if max(numbers) < 30 and host is None and after[:1] not in (":", "/") and len(set(octets)) > 1:
            continue  # 2.4.1.0 is more often a version
        yield Span(start, end, "ip", "v4", 0.9 if max(numbers) >= 30 else 0.6)


def _ip6(text: str) -> Iterator[Span]:
    for m in _V6.finditer(text):
        found = m[0]
        colons = found.count(":")
        if "::" not in found and colons != 7 and not (colons == 6 and "." in found):
            continue
        start, end = m.span()
        if found.endswith(":") and not found.endswith("::"):
            found, end = found[:-1], end - 1
        before, after = text[start - 1 : start], text[end : end + 1]
        if before.isalnum() or (before in ("_", ":") and before) or after.isalnum() or (after in ("_", ":") and after):
            continue
        try:
            address = IPv6Address(found)
        except AddressValueError:
            continue
        if address.is_loopback or address.is_unspecified or len(found) - colons < 4 or not _DIGIT.search(found):
            continue
        yield Span(start, end, "ip", "v6", 0.9)


# --------------------------------------------------------------------------------------------------------------- IBAN

_IBAN: Final = re.compile(r"[0-9](?<=[A-Za-z]{2}[0-9])[0-9](?=[ -]?[A-Za-z0-9]{4})")
_IBAN_LENGTHS: Final = {
    country: int(length)
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def _ibans(text: str) -> Iterator[Span]:
    for m in _IBAN.finditer(text):
        start = m.start() - 2
        length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
        if length is None or _joined(text[start - 1 : start]):
            continue
        digits: list[str] = []
        at = start
        while at < len(text) and len(digits) < length:
            c = text[at]
            if c.isascii() and c.isalnum():
                digits.append(c)
            elif c not in " -" or text[at - 1] in " -":
                break
            at += 1
        if len(digits) < length or _joined(text[at : at + 1]):
            continue
        if int("".join([str(int(c, 36)) for c in digits[4:] + digits[:4]])) % 97 == 1:
            yield Span(start, at, "iban", "", 0.98)


def _joined(c: str) -> bool:
    """Whether a character makes one word with a letter or digit beside it. Scripts without spaces between words do not."""
    return c == "_" or (c < "\u0e00" and c.isalnum())


# ------------------------------------------------------------------------------------------------------ check digits


def luhn(digits: str) -> bool:
    """Check by Luhn's rule."""
    total = sum(map(int, digits[-1::-2])) + sum(_DOUBLED[int(c)] for c in digits[-2::-2])
    return total % 10 == 0


_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def _card(d: str) -> bool:
    n, two, four = len(d), int(d[:2]), int(d[:4])
    visa = d[0] == "4" and n in (13, 16, 19)
    master = n == 16 and (51 <= two <= 55 or 2221 <= four <= 2720)
    amex = n == 15 and two in (34, 37)
    diners = n == 14 and (two in (36, 38, 39) or 3000 <= four <= 3059)
    discover = n in (16, 19) and (four == 6011 or 644 <= int(d[:3]) <= 649 or two == 65)
    other = (n == 16 and (3528 <= four <= 3589 or two in (60, 81, 82))) or (
        n in (16, 18, 19) and (two in (50, 62) or 56 <= two <= 58 or two == 67)
    )
    return (visa or master or amex or diners or discover or other) and luhn(d)


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(c) * w for c, w in zip(digits, weights, strict=True))


def _day(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= (31 if month in (1, 3, 5, 7, 8, 10, 12) else 29 if month == 2 else 30)


def _us_ssn(d: str) -> bool:
    return d[:3] not in ("000", "666") and d[0] != "9" and d[3:5] != "00" and d[5:] != "0000"


def _uk_nhs(d: str) -> bool:
    return (11 - _weighted(d[:9], range(10, 1, -1))) % 11 == int(d[9])


def _de_tax_id(d: str) -> bool:
    counts = sorted(d[:10].count(c) for c in set(d[:10]))
    if d[0] == "0" or counts[-1] not in (2, 3) or counts[-2] != 1:
        return False
    product = 10
    for c in d[:10]:
        product = ((int(c) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(d[10])


def _fr_nir(d: str) -> bool:
    month = int(d[3:5])
    return (
        d[0] in "123478"
        and (1 <= month <= 12 or 20 <= month <= 42 or month >= 50)
        and 97 - int(d[:13]) % 97 == int(d[13:])
    )


def _nl_bsn(d: str) -> bool:
    return (_weighted(d[:8], range(9, 1, -1)) - int(d[8])) % 11 == 0 and int(d) > 0


def _pl_pesel(d: str) -> bool:
    return _day(int(d[2:4]) % 20, int(d[4:6])) and _weighted(d, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def _cz_rc(d: str) -> bool:
    month = int(d[2:4])
    month -= next((base for base in (70, 50, 20) if month > base), 0)
    if not _day(month, int(d[4:6])):
        return False
    return len(d) == 9 or int(d) % 11 == 0 or (int(d[:9]) % 11 == 10 and d[9] == "0")


def _se_pnr(d: str) -> bool:
    d = d[-10:]
    day = int(d[4:6])
    return _day(int(d[2:4]), day - 60 if day > 60 else day) and luhn(d)


def _dk_cpr(d: str) -> bool:
    return _day(int(d[2:4]), int(d[:2]))


def _br_cpf(d: str) -> bool:
    if len(set(d)) == 1:
        return False
    return all(
        _weighted(d[:n], range(n + 1, 1, -1)) * 10 % 11 % 10 == int(d[n])
        for n in (9, 10)
    )  # fmt: skip


_VERHOEFF_TIMES: Final = [
    [(a + b) % 5 + (5 if b >= 5 else 0) if a < 5 else (a - b) % 5 + (5 if b < 5 else 0) for b in range(10)] for a in range(10)
]  # fmt: skip
_VERHOEFF_STEP: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def verhoeff(digits: str) -> bool:
    """Check by Verhoeff's rule (1969): the product of permuted digits in the dihedral group of ten."""
    total = 0
    for i, c in enumerate(reversed(digits)):
        n = int(c)
        for _ in range(i % 8):
            n = _VERHOEFF_STEP[n]
        total = _VERHOEFF_TIMES[total][n]
    return total == 0


def _in_aadhaar(d: str) -> bool:
    return d[0] in "23456789" and verhoeff(d)


def _be_rrn(d: str) -> bool:
    if not _day(int(d[2:4]) % 20, int(d[4:6])) and d[2:6] != "0000":
        return False
    return int(d[9:]) in (97 - int(d[:9]) % 97, 97 - int("2" + d[:9]) % 97)


def _ch_ahv(d: str) -> bool:
    return d.startswith("756") and _weighted(d, (1, 3) * 6 + (1,)) % 10 == 0


def _no_fnr(d: str) -> bool:
    day = int(d[:2])
    if not _day(int(d[2:4]) % 40, day - 40 if day > 40 else day):
        return False
    return (
        _weighted(d[:10], (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11 == 0
        and _weighted(d, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0
    )


def _cn_id(d: str) -> bool:
    if not ("18" <= d[6:8] <= "20" and _day(int(d[10:12]), int(d[12:14]))):
        return False
    return "10X98765432"[sum(int(c) * pow(2, 17 - i, 11) for i, c in enumerate(d[:17])) % 11] == d[17].upper()


def _ca_sin(d: str) -> bool:
    return d[0] not in "08" and luhn(d)


def _pt_nif(d: str) -> bool:
    check = 11 - _weighted(d[:8], range(9, 1, -1)) % 11
    return d[0] in "123569" and (0 if check > 9 else check) == int(d[8])


def _za_id(d: str) -> bool:
    return _day(int(d[2:4]), int(d[4:6])) and d[10] in "012" and luhn(d)


def _kr_rrn(d: str) -> bool:
    return d[6] in "12345678" and _day(int(d[2:4]), int(d[4:6]))


# ----------------------------------------------------------------------------------------------------- runs of digits

_RUN: Final = re.compile(r"[0-9][0-9 ()./-]*+")
_GROUP: Final = re.compile("[0-9]+")
_DATE: Final = re.compile(r"(?:[0-9]{4}[./-][0-9]{2}[./-][0-9]{2}|[0-9]{2}[./-][0-9]{2}[./-][0-9]{4})[ ./-]?")
"""The commonest run by far, and never anything else."""

_WORDS: Final = {
    "us_ssn": r"\bssn\b|soc(?:ial|\.)? sec|social insurance|\bitin\b|ssn",
    "uk_nhs": r"nhs|patient",
    "de_tax_id": r"steuer|id-?nr|identifikationsn|\btin\b|tax",
    "nl_bsn": r"bsn|burgerservice|sofi",
    "pl_pesel": r"pesel",
    "cz_rc": r"rodn|r\. ?\u010d|\br\u010d|\brc\b|birth n",
    "se_pnr": r"person-?n|samordningsn|pnr",
    "dk_cpr": r"\bcpr|personn",
    "br_cpf": r"cpf|contribuinte",
    "in_aadhaar": r"aadha+r|uidai|\u0906\u0927\u093e\u0930",
    "ca_sin": r"\bsin\b|social insurance|\bnas\b",
    "pt_nif": r"\bnif\b|contribuinte",
    "za_id": r"\bid\b|identity|identiteit",
    "card": r"card|karte|carte|tarjeta|cart\u00e3o|carta|kart|visa|master|amex|\bcc\b|\bpan\b|\u5361",
}  # fmt: skip
_BESIDE: Final = {form: re.compile(words, re.IGNORECASE) for form, words in _WORDS.items()}

_Check = Callable[[str], bool]


class _Rule(NamedTuple):
    """What digits in one layout may be."""

    form: str
    check: _Check
    seps: str = ""
    """What may stand between the groups; empty: anything of a run."""
    word: bool = False
    """Whether a word of `_WORDS` must stand beside it."""
    score: float = 0.85


_LAYOUTS: Final[dict[tuple[int, ...], tuple[_Rule, ...]]] = {
    # Cards.
    **{(n,): (_Rule("card", _card),) for n in (14, 16, 19)},
    (4, 4, 4, 4): (_Rule("card", _card, "- "),),
    (4, 4, 4, 4, 3): (_Rule("card", _card, "- "),),
    (4, 6, 5): (_Rule("card", _card, "- "),),
    (4, 6, 4): (_Rule("card", _card, "- "),),
    (8, 8): (_Rule("card", _card, "- ", word=True),),
    # Identity numbers, by how they are written.
    (9,): tuple(_Rule(f, c, word=True, score=0.7) for f, c in (("us_ssn", _us_ssn), ("nl_bsn", _nl_bsn), ("ca_sin", _ca_sin), ("pt_nif", _pt_nif), ("cz_rc", _cz_rc))),
    (10,): tuple(_Rule(f, c, word=True, score=0.75) for f, c in (("uk_nhs", _uk_nhs), ("cz_rc", _cz_rc), ("se_pnr", _se_pnr), ("dk_cpr", _dk_cpr))),
    (11,): (
        _Rule("no_fnr", _no_fnr),
        _Rule("be_rrn", _be_rrn),
        *(_Rule(f, c, word=True) for f, c in (("de_tax_id", _de_tax_id), ("pl_pesel", _pl_pesel), ("br_cpf", _br_cpf))),
    ),
    (12,): (_Rule("in_aadhaar", _in_aadhaar, word=True), _Rule("se_pnr", _se_pnr, word=True)),
    (13,): (_Rule("ch_ahv", _ch_ahv), _Rule("card", _card), _Rule("za_id", _za_id, word=True)),
    (15,): (_Rule("fr_nir", _fr_nir), _Rule("card", _card)),
    (18,): (_Rule("cn_id", _cn_id), _Rule("card", _card)),
    (3, 2, 4): (_Rule("us_ssn", _us_ssn, "-"), _Rule("us_ssn", _us_ssn, word=True), _Rule("nl_bsn", _nl_bsn, word=True, score=0.7)),
    (3, 3, 3): tuple(_Rule(f, c, word=True, score=0.7) for f, c in (("ca_sin", _ca_sin), ("nl_bsn", _nl_bsn), ("pt_nif", _pt_nif))),
    (4, 2, 3): (_Rule("nl_bsn", _nl_bsn, word=True, score=0.75),),
    (3, 3, 4): (_Rule("uk_nhs", _uk_nhs, word=True, score=0.86),),
    (6, 3): (_Rule("cz_rc", _cz_rc, "/", word=True),),
    (6, 4): (_Rule("cz_rc", _cz_rc, "/"), _Rule("se_pnr", _se_pnr, "-"), _Rule("dk_cpr", _dk_cpr, word=True)),
    (8, 4): (_Rule("se_pnr", _se_pnr, "-"),),
    (6, 5): (_Rule("no_fnr", _no_fnr),),
    (6, 7): (_Rule("kr_rrn", _kr_rrn, "-"),),
    (2, 3, 3, 3): (_Rule("de_tax_id", _de_tax_id),),
    (3, 3, 3, 2): (_Rule("br_cpf", _br_cpf),),
    (4, 4, 4): (_Rule("in_aadhaar", _in_aadhaar, word=True),),
    (2, 2, 2, 3, 2): (_Rule("be_rrn", _be_rrn),),
    (3, 4, 4, 2): (_Rule("ch_ahv", _ch_ahv),),
    (13, 2): (_Rule("fr_nir", _fr_nir),),
    (1, 2, 2, 2, 3, 3, 2): (_Rule("fr_nir", _fr_nir),),
}  # fmt: skip
_BEGINNINGS: Final = {layout[:n] for layout in _LAYOUTS for n in range(1, len(layout) + 1)}

_TELEPHONE: Final = re.compile(
    r"\btel|phone|fone|mobil|cell|\bcall\b|call (?:me|us)|\bfax|whats ?app|\bsms\b|text (?:me|us)|\bruf|handy|tlf|\u7535\u8bdd|\u96fb\u8a71|\u624b\u673a|"
    r"\u0442\u0435\u043b\u0435\u0444|zavol|volej|dzwo|ligue|llam|ll\u00e1m|\bbel\b|appel|\u260e|\u260f|\U0001f4de|\U0001f4f1|reach (?:me|us)|ring me|dial|hotline|"
    r"\bm\u00f3vil|chiama|puhelin",
    re.IGNORECASE,
)
_AFTER: Final = re.compile(
    r"\W{0,3}(?:is|est|ist|es|\u00e9) (?:my|mon|meine|mi|o meu)|\s?\((?:mobile?|cell|home|work|fax)\)", re.IGNORECASE
)
_NOT_TELEPHONE: Final = re.compile(
    r"(?:order|invoice|ticket|tracking|serial|isbn|ean|issue|account|konto|pedido|commande|auftrag|bestell|objedn|zam\u00f3wieni|bill|case|ref|#|\bid|\bpo|"
    r"epoch|timestamp|stamp|version|build|port|row|n[o\u00b0])\W{0,3}(?:(?:n[o\u00ba\u00b0]?|num(?:ber)?|nummer|\u010d|nr)\W{0,3})?$",
    re.IGNORECASE,
)
_JOINT: Final = frozenset((" ", "-", ".", "/", ") ", ")-", ")", " (", " - ", "-(", ") (", " / "))
_FRENCH: Final = (2, 2, 2, 2, 2)


class _Run:
    """One run of digits and what stands between them."""

    __slots__ = ("end", "groups", "lengths", "said", "seps", "start", "text")

    def __init__(self, text: str, start: int, end: int, said: dict[re.Pattern[str], bool]) -> None:
        self.text, self.start, self.end, self.said = text, start, end, said
        self.groups = [m.span() for m in _GROUP.finditer(text, start, end)]
        self.lengths = [b - a for a, b in self.groups]
        self.seps = [text[a[1] : b[0]] for a, b in zip(self.groups, self.groups[1:], strict=False)]

    def spans(self) -> Iterator[Span]:
        """Yield what the run holds; may overlap."""
        reached = 0
        for i in range(len(self.groups)):
            if not self._opens(i):
                continue
            yield from self._numbers(i)
            if self.groups[i][0] >= reached:
                for span in self._phone(i):
                    reached = span.end
                    yield span

    def _opens(self, i: int) -> bool:
        """Whether a number may begin at group `i`: not inside a word, a decimal, or a number of more groups."""
        if i > 0:
            return not _tight(self.seps[i - 1])
        before = self.text[self.start - 2 : self.start] if self.start >= 2 else self.text[: self.start]
        if not before:
            return True
        if _joined(before[-1]):
            return before[-1] == "_" or before[-2:] in ("\\n", "\\t", "\\r")
        return not (before[-1] in ".,-" and before[-2:-1].isdigit() and before[-1] != ",")

    def _closes(self, i: int) -> bool:
        """Whether a number may end with group `i`."""
        if i < len(self.seps):
            return not _tight(self.seps[i])
        at = self.groups[i][1]
        after = self.text[at : at + 2]
        return not after or not (_joined(after[0]) or (after[0] in ".,-" and after[1:].isalnum() and after[0] != ","))

    def _numbers(self, first: int) -> Iterator[Span]:
        layout: tuple[int, ...] = ()
        for last in range(first, len(self.lengths)):
            layout += (self.lengths[last],)
            if layout not in _BEGINNINGS:
                return
            rules = _LAYOUTS.get(layout)
            if rules is None or not self._closes(last):
                continue
            start, end = self.groups[first][0], self.groups[last][1]
            digits = "".join([self.text[a:b] for a, b in self.groups[first : last + 1]])
            seps = self.seps[first:last]
            for rule in rules:
                if rule.seps and (len(set(seps)) > 1 or (seps and seps[0] not in rule.seps)):
                    continue
                if any(len(s) > 1 for s in seps) or not rule.check(digits):
                    continue
                if rule.word and not self._beside(_BESIDE[rule.form], start - 60, end + 24):
                    continue
                kind = "card" if rule.form == "card" else "national_id"
                yield Span(
                    start, end, kind, "" if kind == "card" else rule.form, 0.92 if kind == "card" else rule.score
                )

    def _phone(self, i: int) -> Iterator[Span]:
        text, start = self.text, self.groups[i][0]
        before = text[max(0, start - 1) : start]
        group = text[start : self.groups[i][1]]
        if before == "+":
            yield from self._international(i, start - 1, group)
            return
        if self._reach(i, 15)[1] < 7 or _NOT_TELEPHONE.search(text, max(0, start - 20), start):
            return
        if group.startswith("00") and group[2:3] not in ("", "0"):
            last, total = self._reach(i, 15)
            if total >= 10 and (last > i or self._said(start, self.groups[last][1])) and self._closes(last):
                yield Span(start, self.groups[last][1], "phone", "international", 0.85)
            return
        lengths = self.lengths
        bracketed = before == "(" and i < len(self.seps) and self.seps[i].startswith(")")
        three = tuple(lengths[i : i + 3])
        seps = self.seps[i : i + 2]
        if (
            three == (3, 3, 4)
            and group[0] in "23456789"
            and text[self.groups[i + 1][0]] in "23456789"
            and self._closes(i + 2)
        ):
            end = self.groups[i + 2][1]
            sure = bracketed or (seps[0] == seps[1] and seps[0] in "-.")
            if sure or self._said(start, end):
                yield Span(start - bracketed, end, "phone", "nanp", 0.85 if sure else 0.7)
            return
        if group == "1" and tuple(lengths[i + 1 : i + 4]) == (3, 3, 4) and self._closes(i + 3):
            if seps[0] == "." and set(self.seps[i : i + 3]) != {"."}:
                return  # a decimal in groups
            yield Span(start, self.groups[i + 3][1], "phone", "nanp", 0.85)
            return
        if bracketed and lengths[i] <= 5:
            last, total = self._reach(i, 12)
            if total >= 8 and last > i and self._closes(last):
                yield Span(start - 1, self.groups[last][1], "phone", "national", 0.8)
            return
        if group[0] == "0" and group[1:2] not in ("", "0") and 2 <= len(group) <= 5 and three != (2, 2, 4):
            last, total = self._reach(i, 12)
            if total >= 9 and last > i and self._closes(last):
                yield Span(start, self.groups[last][1], "phone", "national", 0.75)
                return
        last, total = self._reach(i, 13)
        if (
            total >= 7
            and three[:3] not in ((4, 2, 2), (2, 2, 4))
            and self._closes(last)
            and self._said(start, self.groups[last][1])
        ):
            yield Span(start, self.groups[last][1], "phone", "beside", 0.65)

    def _international(self, i: int, start: int, group: str) -> Iterator[Span]:
        if group[0] == "0" or _joined(self.text[start - 1 : start]):
            return
        last, total = self._reach(i, 11 if group[0] == "1" else 15)
        if total >= 8 and self._closes(last):
            yield Span(start, self.groups[last][1], "phone", "international", 0.95)

    def _reach(self, first: int, most: int) -> tuple[int, int]:
        """Return the last group of the telephone number that begins with `first`, and its digits; at most `most`."""
        total, last = self.lengths[first], first
        while last < len(self.seps) and self.seps[last] in _JOINT and total + self.lengths[last + 1] <= most:
            length = self.lengths[last + 1]
            if length == 1 and last > first and "(" not in self.seps[last]:
                break
            last += 1
            total += length
            if tuple(self.lengths[first : last + 1]) == _FRENCH:
                break
        return last, total

    def _said(self, start: int, end: int) -> bool:
        """Whether a word for telephones stands beside."""
        return self._beside(_TELEPHONE, start - 32, start) or _AFTER.match(self.text, end) is not None

    def _beside(self, words: re.Pattern[str], start: int, end: int) -> bool:
        """Whether one of `words` stands between `start` and `end`. First looks whether the text has one at all, once."""
        if words not in self.said:
            self.said[words] = words.search(self.text) is not None
        return self.said[words] and words.search(self.text, max(0, start), end) is not None


def _tight(sep: str) -> bool:
    """Whether a separator binds two groups into one number."""
    return sep in (".", "-", "/")


# ------------------------------------------------------------------------------------------- numbers that have letters

# Each begins with a digit, though that makes look-behinds of what stands before: only then does the search skip to the next digit by itself.
_LETTERED: Final = re.compile(
    r"[0-9](?:(?P<it_cf>(?<=[A-Z]{6}[0-9])[0-9L-NP-V][A-EHLMPRST][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z])|"
    r"(?P<uk_nino>(?:(?<=[A-Z]{2}[0-9])|(?<=[A-Z]{2} [0-9]))[0-9] ?[0-9]{2} ?[0-9]{2} ?[A-D])|"
    r"(?P<es_nie>(?:(?<=[XYZ][0-9])|(?<=[XYZ]-[0-9]))[0-9]{6}-?[A-Z])|"
    r"(?P<es_id>[0-9]{7}[ -]?[A-Z])|"
    r"(?P<fi_hetu>[0-9]{5}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y])|"
    r"(?P<cn_id>[0-9]{16}X)|"
    r"(?P<fr_nir>[0-9]{2}(?:0[1-9]|1[0-2])2[AB][0-9]{8}))",
    re.IGNORECASE,
)
_BEFORE: Final = {"it_cf": 6, "uk_nino": 2, "es_nie": 1}
_ODD: Final = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23), strict=True))  # fmt: skip
_NINO: Final = re.compile("(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]")


def _lettered(text: str) -> Iterator[Span]:
    for m in _LETTERED.finditer(text):
        start, end = m.span()
        form = m.lastgroup or ""
        if (letters := _BEFORE.get(form, 0)) and not text[start - 1].isalpha():
            start -= 1
        start -= letters
        before, after = text[start - 1 : start], text[end : end + 1]
        if _joined(before) or before == "-" or _joined(after) or after == "-":
            continue
        code = text[start:end].upper()
        if _CHECKS[form](code if form == "fi_hetu" else code.replace(" ", "").replace("-", "")):
            form = "es_id" if form == "es_nie" else form
            yield Span(start, end, "national_id", form, 0.9 if form in ("it_cf", "fi_hetu", "cn_id", "fr_nir") else 0.8)


def _it_cf(code: str) -> bool:
    even = sum(int(c) if c.isdigit() else ord(c) - 65 for c in code[1:15:2])
    return (even + sum(_ODD[c] for c in code[0:15:2])) % 26 == ord(code[15]) - 65


def _uk_nino(code: str) -> bool:
    return _NINO.match(code) is not None


def _es_id(code: str) -> bool:
    number = code[:-1]
    if number[0] in "XYZ":
        number = str("XYZ".index(number[0])) + number[1:]
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == code[-1]


def _fi_hetu(code: str) -> bool:
    if not _day(int(code[2:4]), int(code[:2])):
        return False
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(code[:6] + code[7:10]) % 31] == code[10]


def _corsican(code: str) -> bool:
    number = int(code.replace("2A", "19", 1)) if "2A" in code else int(code.replace("2B", "18", 1))
    return 97 - number // 100 % 97 == number % 100


_CHECKS: Final[dict[str, _Check]] = {
    "it_cf": _it_cf,
    "uk_nino": _uk_nino,
    "es_nie": _es_id,
    "es_id": _es_id,
    "fi_hetu": _fi_hetu,
    "cn_id": _cn_id,
    "fr_nir": _corsican,
}


def forms() -> list[str]:
    """Name the forms of `national_id`."""
    written = {rule.form for rules in _LAYOUTS.values() for rule in rules if rule.form != "card"}
    return sorted((written | set(_CHECKS)) - {"es_nie"})
