"""Secrets in text: keys of known form, tokens that look random, private keys, passwords. Ours, no paper.

Kinds: `api_key` (35 known forms, by their prefix), `token` (JSON web tokens; random strings beside a word such as token, key or
Bearer, and long ones of mixed case and digits anywhere), `private_key` (PEM blocks), `password` (after the word, in nine languages, and
in ``scheme://user:password@host``).

A string looks random if its characters change class (upper, lower, digit) often: identifiers and paths change seldom. Commit and
content hashes, UUIDs, ids of messages and images in base64 are left alone, as are placeholders (``<token>``, ``${TOKEN}``, ``***``). What is not
found: short secrets without a word beside them, and words as passwords in a sentence.

Every search is bounded, and goes on behind what it went through: the time is linear in the text. About 5 µs for 300 characters without a word of `LONG` characters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Final

from fairlead.detect.span import Span, plain, restored, settled

KINDS: Final = ("api_key", "token", "private_key", "password")
LONG: Final = 20
"""No key of a known form is shorter."""
LONGEST: Final = 512
"""What is longer is data, not a token."""

_W: Final = "[A-Za-z0-9_-]"
_A: Final = "[A-Za-z0-9]"
_FORMS: Final[dict[str, tuple[str, str]]] = {
    "aws": ("AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "github": ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", rf"(?:gh[pousr]_{_A}{{30,255}}|github_pat_{_A}{{20,30}}_{_A}{{40,80}})"),
    "gitlab": ("glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent-", rf"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-{_W}{{20,64}}"),
    "anthropic": ("sk-ant-", rf"sk-ant-{_W}{{24,200}}"),
    "openai": ("sk-", rf"sk-(?:proj-|svcacct-|admin-|or-v1-|or-)?{_W}{{20,200}}"),
    "stripe": ("_live_ _test_ whsec_", rf"(?:(?:sk|rk|pk)_(?:live|test)_{_A}{{16,200}}|whsec_{_A}{{24,64}})"),
    "slack": ("xox xapp-", r"(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,250}"),
    "slack_webhook": ("hooks.slack", rf"hooks\.slack\.com/services/{_A}{{6,14}}/{_A}{{6,14}}/{_A}{{16,48}}"),
    "google": ("AIza ya29. GOCSPX-", rf"(?:AIza{_W}{{35}}|ya29\.{_W}{{20,400}}|GOCSPX-{_W}{{28}})"),
    "huggingface": ("hf_", rf"hf_{_A}{{30,64}}"),
    "npm": ("npm_", rf"npm_{_A}{{36}}"),
    "pypi": ("pypi-", rf"pypi-{_W}{{50,400}}"),
    "sendgrid": ("SG.", rf"SG\.{_W}{{16,32}}\.{_W}{{32,64}}"),
    "twilio": ("SK0 SK1 SK2 SK3 SK4 SK5 SK6 SK7 SK8 SK9 SKa SKb SKc SKd SKe SKf", r"SK[0-9a-f]{32}(?![A-Za-z0-9])"),
    "telegram": (":AA", rf"[0-9]{{8,11}}:AA{_W}{{32,34}}"),
    "digitalocean": ("dop_v1_ doo_v1_ dor_v1_", r"do[por]_v1_[a-f0-9]{64}"),
    "shopify": ("shp", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    "databricks": ("dapi", r"dapi[a-f0-9]{32}"),
    "mailgun": ("key-", r"key-[a-z0-9]{32}(?![A-Za-z0-9])"),
    "groq": ("gsk_", rf"gsk_{_A}{{40,64}}"),
    "xai": ("xai-", rf"xai-{_W}{{40,100}}"),
    "replicate": ("r8_", rf"r8_{_A}{{36,40}}"),
    "perplexity": ("pplx-", rf"pplx-{_A}{{40,64}}"),
    "linear": ("lin_api_", rf"lin_api_{_A}{{32,64}}"),
    "notion": ("ntn_", rf"ntn_{_A}{{40,50}}"),
    "atlassian": ("ATATT3", rf"ATATT3{_W}{{50,250}}=?"),
    "vault": ("hvs. hvb.", rf"hv[sb]\.{_W}{{20,250}}"),
    "docker": ("dckr_pat_", rf"dckr_pat_{_W}{{27}}"),
    "square": ("sq0", rf"sq0(?:atp|csp)-{_W}{{22,43}}"),
    "age": ("AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    "newrelic": ("NRAK-", r"NRAK-[A-Z0-9]{27}"),
    "figma": ("figd_", rf"figd_{_W}{{40,50}}"),
    "postman": ("PMAK-", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    "grafana": ("glc_ glsa_", rf"(?:glc_[A-Za-z0-9+/=]{{32,400}}|glsa_{_A}{{32}}_[a-fA-F0-9]{{8}})"),
    "azure_storage": ("AccountKey=", r"(?<=AccountKey=)[A-Za-z0-9+/]{40,100}={0,2}"),
}  # fmt: skip
_HINTS: Final = tuple(hint for hints, _ in _FORMS.values() for hint in hints.split())
_KNOWN: Final = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(f'(?P<{name}>{form})' for name, (_, form) in _FORMS.items())}"
    rf"|(?P<jwt>eyJ{_W}{{8,4000}}\.eyJ{_W}{{4,8000}}\.{_W}{{10,2000}}))"
)

_PEM: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END: Final = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_MOST: Final = 16_384

_URL_PASSWORD: Final = re.compile(r"""://[^\s:/@"'<>]{0,64}:([^\s/"'<>]{1,128})@(?=[\w.\[$-])""")
_PASS_WORDS: Final = (
    "passw", "passphrase", "passcode", "pwd", "mot de passe", "contrase", "senha", "wachtwoord", "heslo", "has\u0142o",
    "\u043f\u0430\u0440\u043e\u043b\u044c", "\u5bc6\u7801", "\u30d1\u30b9\u30ef\u30fc\u30c9", "kennwort",
)  # fmt: skip
_PASSWORD: Final = re.compile(
    r"(?:passw(?:or[dt]|d)|passphrase|passcode|pwd|mot de passe|contrase\xf1a|contrasena|senha|wachtwoord|heslo|has\u0142o|"
    r"\u043f\u0430\u0440\u043e\u043b\u044c|\u5bc6\u7801|\u30d1\u30b9\u30ef\u30fc\u30c9|kennwort)"
    r"""[0-9_]{0,4}["'\]\x60*]{0,2}[ \t]{0,3}(?P<by>:=|=>|==?|[:\uff1a]|\b(?:is|ist|es|est|to|je|to jest|\u00e8|\u00e9)\b|\u662f)[ \t]{0,3}"""
    r"""(?:"(?P<double>[^"\n]{1,200})"|'(?P<single>[^'\n]{1,200})'|\x60(?P<tick>[^\x60\n]{1,200})\x60|(?P<bare>[^\s"'\x60<>,;&]{1,200}))""",
    re.IGNORECASE,
)
_CALLED_PASSWORD: Final = re.compile(
    r"(?:passw(?:or[dt]|d)|passphrase|passcode|pwd|contrase\xf1a|senha|wachtwoord|heslo|has\u0142o|kennwort)[0-9_]{0,4}$",
    re.IGNORECASE,
)
_WEAK: Final = re.compile(
    r"""(?<![A-Za-z0-9])(?:[A-Za-z0-9]{1,30}_)?(?:pass|pw|secret)["'\]\x60]{0,2}[ \t]{0,3}(?::=|=>|==?|:)[ \t]{0,3}["'\x60]?"""
    r"""(?P<value>[^\s"'\x60<>,;&]{6,200})""",
    re.IGNORECASE,
)
"""Names that are of a password as often as not: what stands after them must look like one (`_made_up`)."""
_CALLED_WEAK: Final = re.compile(r"(?:^|[_-])(?:pass|pw|secret)$", re.IGNORECASE)
_BLANK: Final = re.compile(
    # In brackets, perhaps cut off at a space; a variable; a mask; words that say what belongs there; a name in code.
    r"<.{0,200}>?|(?:\[.{0,200}\]|\{.{0,200}\}|\(.{0,200}\))(?:\\[nrt]){0,4}|[\[{(]{1,3}[A-Za-z_.:!-]{0,60}|\$\{.{0,200}|\$\(.{0,200}|\$[A-Za-z_][\w:]{0,60}|"
    r"%[\w(]{1,40}[%)]|%s|[*x.\u2022#_-]{1,200}|(?:your|my|the|a|some)(?:[_ -][A-Za-z]{1,20}){1,8}[.!]?|"
    r"(?:your|my)?(?:password|passwd|pass|pwd|secret)|"
    r"changeme|example|placeholder|redacted|none|null|nil|undefined|true|false|str|string|text|bool|required|optional|"
    r"(?:self|os|env|process|config|req|request|args|settings)\.[A-Za-z_][\w.]{0,100}(?:[\[(].{0,200})?|[a-z_.]{1,60}\(.{0,200}",
    re.IGNORECASE | re.DOTALL,
)

_CODE: Final = re.compile(r"(?:_|(?=[A-Za-z]{1,60}[_.\[(]))[A-Za-z_.]{1,80}(?:[\[(].{0,200})?", re.DOTALL)
"""A name, an attribute or a call: what stands after ``password=`` in code."""

_LONG: Final = re.compile(r"[A-Za-z0-9_+/=.~:-]{20,}+")
_AFTER_WORD: Final = re.compile(
    r"""(?:s|ids?|entials?)?["'\]\x60]{0,2}(?:[ \t]{0,3}(?::=|=>|==?|[:\uff1a])[ \t]{0,3}|[ \t]{1,3})["'\x60]?([A-Za-z0-9_+/=.~-]{16,513}+)""",
    re.IGNORECASE,
)
_ASSIGN_WORDS: Final = ("key", "token", "secret", "auth", "cred", "bearer", "basic", "sig", "cookie", "session", "sid")
_ALONE: Final = re.compile(r"[A-Za-z0-9_-]{28,200}={0,2}")
_NO_SECRET: Final = re.compile(
    r"commit|sha-?\d|\bsha\b|md5|hash|digest|checksum|etag|integrity|revision|base64,|public|uuid|guid|foreign|primary|trace|span|"
    r"ssh-(?:rsa|ed25519)|sort|cache",
    re.IGNORECASE,
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ID_PREFIX: Final = re.compile(
    r"(?:call|msg|req|run|chatcmpl|toolu|resp|thread|file|asst|item|step|sha\d{3}|evt|cus|pi|in|sub|price|prod)[_-]"
)
_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")


def find(text: str, *, kinds: Collection[str] = KINDS) -> list[Span]:
    """Return what is found of `kinds`, by place, none overlapping."""
    read, places = plain(text)
    return restored(settled(s for s in spans(read) if s.kind in kinds), places)


def named(key: str, value: str) -> Span | None:
    """Say whether `value` is a password since its key, in JSON say, is called one: all of it, whatever it is made of."""
    if _CALLED_PASSWORD.search(key) and 4 <= len(value) <= 200 and not _BLANK.fullmatch(value):
        return Span(0, len(value), "password", "named", 0.9)
    if _CALLED_WEAK.search(key) and 6 <= len(value) <= 200 and _made_up(value):
        return Span(0, len(value), "password", "named", 0.7)
    return None


def spans(text: str) -> Iterator[Span]:
    """Yield what is found in a plain text; may overlap."""
    if "-----BEGIN " in text:
        yield from _private_keys(text)
    if "://" in text and "@" in text:
        for m in _URL_PASSWORD.finditer(text):
            if not _BLANK.fullmatch(m[1]):
                yield Span(m.start(1), m.end(1), "password", "url", 0.95)
    low = text.lower()
    if len(low) != len(text):  # some capitals have small forms of two characters
        low = "".join([c.lower() if len(c.lower()) == 1 else c for c in text])
    if any(word in low for word in _PASS_WORDS):
        yield from _passwords(text)
    if "pass" in low or "pw" in low or "secret" in low:
        for m in _WEAK.finditer(text):
            if _made_up(value := m["value"].rstrip(".)]}\\")):
                yield Span(m.start("value"), m.start("value") + len(value), "password", "", 0.7)
    if len(text) >= LONG and max(map(len, text.split()), default=0) >= LONG:
        yield from _tokens(text, low)


def _private_keys(text: str) -> Iterator[Span]:
    at = 0
    while (head := _PEM.search(text, at)) is not None:
        most = min(len(text), head.end() + _PEM_MOST)
        end = _PEM_END.search(text, head.end(), most)
        at = end.end() if end is not None else most  # one that was cut off is secret to its end
        yield Span(head.start(), at, "private_key", "pem", 1.0)


def _passwords(text: str) -> Iterator[Span]:
    for m in _PASSWORD.finditer(text):
        name = m.lastgroup or "bare"
        value = m[name]
        if name == "bare":
            value = value.rstrip(".!?)]}\\") if value[-1] in ".)]}\\?" else value
        if len(value) < 4 or _BLANK.fullmatch(value):
            continue
        by = m["by"]
        if name == "bare":
            # A word in prose or a type in code: only what is not a plain word, or was clearly assigned.
            assigned = by in ("=", "==") and m.start(name) == m.end("by")
            if (value.isalpha() and not assigned) or _CODE.fullmatch(value):
                continue
        yield Span(
            m.start(name), m.start(name) + len(value), "password", "", 0.85 if name != "bare" or by in "=:" else 0.7
        )


def _made_up(value: str) -> bool:
    """Say whether a value looks like a password: letters, and digits or signs, and neither a place to be filled in nor code."""
    if len(value) < 6 or _BLANK.fullmatch(value) or _CODE.fullmatch(value):
        return False
    return any(c.isalpha() for c in value) and any(c.isdigit() or c in "!@#$%^&*?" for c in value)


def _tokens(text: str, low: str) -> Iterator[Span]:
    if any(hint in text for hint in _HINTS) or "eyJ" in text:
        for m in _KNOWN.finditer(text):
            form = m.lastgroup or ""
            if _spoken(m[0]):
                continue
            yield Span(m.start(), m.end(), "token" if form == "jwt" else "api_key", form, 0.99)
    for word in _ASSIGN_WORDS:
        at = low.find(word)
        while at >= 0:
            after = _AFTER_WORD.match(text, at + len(word))
            if after is not None and len(value := after[1].rstrip(".")) <= LONGEST and _random(value, 0.2):
                start = after.start(1)
                if not _NO_SECRET.search(text, max(0, at - 20), start):
                    yield Span(start, start + len(value), "token", "assigned", 0.8)
            # On behind what was looked at: a run of such words is not gone through from each of them.
            at = low.find(word, at + len(word) if after is None else after.end())
    for m in _LONG.finditer(text):
        value = m[0].rstrip(".:=")
        if not _ALONE.fullmatch(value) or _ID_PREFIX.match(value) or _HEX.fullmatch(value):
            continue
        if _random(value, 0.4, mixed=True) and not _NO_SECRET.search(text, max(0, m.start() - 40), m.start()):
            yield Span(m.start(), m.end() - (len(m[0]) - len(m[0].rstrip(".:"))), "token", "random", 0.6)


def _spoken(key: str) -> bool:
    """Whether a key is made of words, as ``sk-your-api-key-goes-here`` is."""
    words = re.split("[-_]", key)
    return len(words) > 3 and all(w.isalpha() and (w.islower() or w.isupper()) for w in words if w)


def _change(value: str) -> float:
    """Return how often one character is of another class than the one before, of 1."""
    classes = ["0" if c.isdigit() else "A" if c.isupper() else "a" if c.islower() else "-" for c in value]
    return sum(a != b for a, b in pairwise(classes)) / max(1, len(value) - 1)


def _random(value: str, least: float, *, mixed: bool = False) -> bool:
    """Say whether `value` looks drawn rather than written."""
    if _UUID.fullmatch(value):
        return False
    digits = sum(c.isdigit() for c in value)
    upper = sum(c.isupper() for c in value)
    lower = sum(c.islower() for c in value)
    if digits < 2 or upper + lower < 4 or len(set(value)) < 10:
        return False
    if mixed and (upper < 3 or lower < 3 or digits < 3):
        return False
    return _change(value) >= least
