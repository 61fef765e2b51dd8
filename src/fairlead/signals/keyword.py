r"""Named groups of words, phrases and patterns that a query may hold. Methods as in vLLM Semantic Router's keyword signal (2026, arXiv
2603.04444): any, all and none (its OR, AND, NOR), BM25 (Robertson & Zaragoza 2009) and likeness of character trigrams.

    bm25     s = max over entries e of  sum over words w of e that the text holds of  idf(w) f (k + 1) / (f + k (1 - b + b |e| / mean))
             idf(w) = ln(1 + (N - n_w + 1/2) / (n_w + 1/2)),   f: how often w is in e,   k = 1.2, b = 0.75
    trigram  s = max over entries e, and windows x of as many words as e has, of  |T(e) & T(x)| / |T(e) | T(x)|

A group's N entries are BM25's documents, and the text is what is searched for: a word that few entries hold says more, one that all of
them hold hardly anything. Its default threshold, .1 as in the paper, is low: mostly any one word passes it; look at the scores (part
``group_score``) and set your own. Trigrams forgive typos: in a word of eight letters one that is wrong leaves .45, one that is missing .5, two that are swapped .33, and
shorter words keep less: the paper's .4 misses some, .3 fewer. They are for scripts that write spaces between words.

Exact entries match whole and in any case; in scripts without spaces between words (Thai, Chinese, Japanese …) they match anywhere. Spaces in
a phrase match any white space. Text and entries are compared as `folded`: ``ß`` is ``ss``, accents may be signs of their own, and signs of other
widths and invisible ones do not hide a word. An entry that starts with ``re:`` is a regular expression, also in any case, for RE2, whose time is linear in
the text whatever the pattern: it has no back-references and no look-around, and its ``\w``, ``\d`` and ``\b`` know ASCII alone (``\pL`` is any
letter). That needs the extra `rules`. It reads the text as it came, and once more without what is invisible.

Of the last user message `READ` characters are read, half of them its first and half its last; by trigrams `READ_TRIGRAM`. Where there are more the part `partial`
says so, and a group by ``none`` has no match. Words are looked up, so a thousand cost little more than three; what a text costs otherwise hangs on
the number of phrases, on the size of the patterns (a count of hundreds, ``.{0,900}x``, 10 µs a character) and on the lengths of trigram
entries. Where that may come to `LONG` µs, the text is read off the event loop (`takes_long`). Figures: docs/guides/signals.md.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final, Self, TypeAlias

import msgspec

from fairlead.detect.span import seen
from fairlead.errors import ConfigError, suggest
from fairlead.signals.base import TAKEN, YES_NO, Law, Range, Signal, alike
from fairlead.types import Query, Reading

READ: Final = 20_000
READ_TRIGRAM: Final = 1_000
LONG: Final = 1_000.0
"""Microseconds from which a reading is left to a thread."""
_SPACED: Final = 0x0E00
"""Scripts before this code point (Latin, Greek, Cyrillic, Hebrew, Arabic, Indic …) put spaces between words."""
_METHODS: Final = ("any", "all", "none", "bm25", "trigram")
_THRESHOLDS: Final = {"bm25": 0.1, "trigram": 0.4}
_K, _B = 1.2, 0.75
_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_RUN: Final = re.compile(r"\w+")
_PATTERN_BYTES: Final = 1 << 20
"""Memory that RE2 may use for a pattern: it bounds how large the automaton can be, and so what a character costs."""

_PAUSE: Final = "\n\0\n"
"""Between the two ends of a long text: no phrase goes on over what was left out."""
# Microseconds for a character: looked up, searched for a phrase or a small pattern, for an instruction of a larger one, which may make a
# state of its automaton for each character; and for a word of a trigram window.
_LOOK_UP, _PHRASE, _PATTERN, _INSTRUCTION, _WINDOW = 0.024, 0.0005, 0.002, 0.0012, 0.3
_SMALL: Final = 50

_Phrase: TypeAlias = tuple[str, bool, bool]
"""A phrase as it is searched for, and whether nothing of a word may stand before it, and behind."""


class Keyword(Signal):
    """Value: the first group, in the order given, with a match in the last user message; None if no group has one.

    Parts: each group's name, yes or no; of groups by `bm25` or `trigram` the ``{group}_score``; and `partial`: the text was longer than
    some group reads. Confidence: 1; if the first group found goes by scores its score as a share of the highest that there can be.

    Args:
        rules: group name -> a list of words, phrases and ``re:`` patterns of which any matches, or a mapping of one method to its list:
            ``{any: […]}``, ``{all: […]}``, ``{none: […]}``, or, of words and phrases, ``{bm25: […], threshold: 0.1}`` and
            ``{trigram: […], threshold: 0.4}``.

    Raises:
        ConfigError: at the first reading (or `check`), for an empty group or word, a pattern that does not compile, a threshold that
            no text can reach, or a missing package.
    """

    __slots__ = ("_groups", "_us")
    _groups: dict[str, _Exact | _Scored]
    _us: tuple[float, float]

    def __init__(self, *, rules: dict[str, list[str] | dict[str, Any]]) -> None:
        self.rules = rules

    @classmethod
    def example(cls) -> Self:
        """One group by each method."""
        return cls(
            rules={
                "code": ["print", "def"],
                "both": {"all": ["court", "law"]},
                "clean": {"none": ["damn"]},
                "contract": {"bm25": ["termination of a contract", "breach of contract"], "threshold": 0.5},
                "refund": {"trigram": ["refund", "money back"]},
            }
        )

    def check(self) -> None:
        """Raise `ConfigError` now rather than at the first query."""
        _ = self.groups

    @property
    def groups(self) -> Mapping[str, _Exact | _Scored]:
        """The groups, understood."""
        try:
            return self._groups
        except AttributeError:  # a slot that is not filled yet
            groups = {name: _group(rule, f"$.rules.{name}") for name, rule in self.rules.items()}
        taken = {*TAKEN, "partial", *(f"{name}_score" for name, group in groups.items() if isinstance(group, _Scored))}
        for name in groups:
            if not name or name in taken:
                why = f"{name!r} means something else here; call the group otherwise" if name else "a group has a name"
                raise ConfigError(why, path=f"$.rules.{name}")
        if not groups:
            raise ConfigError("name at least one group of words", path="$.rules")
        exact = [g for g in groups.values() if isinstance(g, _Exact)]
        scored = [g for g in groups.values() if isinstance(g, _Scored)]
        # Each form of the text is made once for all groups.
        forms = any(g.words or g.phrases for g in exact) + any(not g.trigram_us for g in scored)
        self._us = (sum(g.us for g in exact) + forms * _LOOK_UP, sum(g.trigram_us for g in scored))
        self._groups = groups
        return groups

    def takes_long(self, query: Query) -> bool:
        """Whether reading so much text with these groups may take a millisecond."""
        return self._long(len(query.text))

    def _long(self, characters: int) -> bool:
        _ = self.groups
        each, each_of_trigrams = self._us
        return min(characters, READ) * each + min(characters, READ_TRIGRAM) * each_of_trigrams >= LONG

    def ranges(self) -> Mapping[str, Range]:
        """One of the groups, or null; each group, yes or no; and scores. All can be null where a long text may be late."""
        late = self._long(READ)
        yes_no = msgspec.structs.replace(YES_NO, null=late)
        found = {"value": Range(kind="string", among=tuple(self.rules), null=True), **dict.fromkeys(self.rules, yes_no)}
        for name, group in self.groups.items():
            if isinstance(group, _Scored):
                found[f"{name}_score"] = Range(kind="number", low=0.0, high=group.high, null=late)
        return found | {"partial": yes_no}

    def laws(self) -> Sequence[Law]:
        """The value is the first group that has a match, and a score matches from its threshold on."""
        names = tuple(self.rules)
        return (
            *(alike({"value": n}, {n: True, **dict.fromkeys(names[:i], False)}) for i, n in enumerate(names)),
            alike({"value": None}, {"not": {"any": [{n: True} for n in names]}}),
            *(
                alike({n: True}, {f"{n}_score": {"ge": group.threshold}})
                for n, group in self.groups.items()
                if isinstance(group, _Scored)
            ),
        )

    def _read(self, query: Query) -> Reading:
        groups, text = self.groups, _Text(query.text)
        first: str | None = None
        confidence = 1.0
        parts: dict[str, bool | int | float | str] = {}
        for name, group in groups.items():
            sure = 1.0
            if isinstance(group, _Scored):
                parts[f"{name}_score"] = score = group.score(text)
                found, sure = score >= group.threshold, score / group.high
            else:
                found = group.found(text)
            parts[name] = found
            if found and first is None:
                first, confidence = name, sure
        most = READ_TRIGRAM if any(isinstance(g, _Scored) and g.trigram_us for g in groups.values()) else READ
        parts["partial"] = len(query.text) > most
        return Reading(value=first, parts=parts, confidence=confidence)


class _Text:
    """A text in the forms that methods read; each is made once."""

    def __init__(self, text: str) -> None:
        self.whole = text
        self.text = _ends(text, READ)

    @cached_property
    def data(self) -> Sequence[bytes]:
        """What RE2 reads: the text as it came, and without what is invisible where that is another."""
        other = unicodedata.normalize("NFC", seen(self.text))
        return [t.encode("utf-8", "replace") for t in ((self.text,) if other == self.text else (self.text, other))]

    @cached_property
    def folded(self) -> str:
        return folded(self.text)

    @cached_property
    def runs(self) -> frozenset[str]:
        """Runs of letters, digits and underscores."""
        return frozenset(_RUN.findall(self.folded))

    @cached_property
    def flat(self) -> str:
        """The text with single spaces for all white space."""
        return " ".join(self.folded.split())

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(_WORD.findall(self.folded))

    @cached_property
    def beginning(self) -> list[str]:
        """The words of both ends, in order."""
        found: list[str] = _WORD.findall(folded(_ends(self.whole, READ_TRIGRAM)))
        return found


def folded(text: str) -> str:
    """Return `text` as words are compared: without case, accents joined to their letters, nothing invisible."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", seen(text)).casefold()


def _ends(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most // 2] + _PAUSE + text[-(most // 2) :]


class _Exact:
    """Entries that match or do not: any of them, all, or none."""

    def __init__(self, method: str, entries: Sequence[str], path: str) -> None:
        self.method = method
        self.words: set[str] = set()
        """Those that are runs, and can be looked up."""
        self.phrases: list[_Phrase] = []
        linear: list[bytes] = []
        for i, entry in enumerate(entries):
            if entry.startswith("re:"):
                linear.append(_pattern(entry.removeprefix("re:"), f"{path}[{i}]"))
                continue
            pieces = folded(entry).split()
            if not pieces:
                raise ConfigError("nothing of this word can be seen", path=f"{path}[{i}]")
            first, last = _spaced(pieces[0][0]), _spaced(pieces[-1][-1])
            if len(pieces) == 1 and first and last and _RUN.fullmatch(pieces[0]):
                self.words.add(pieces[0])
            else:
                self.phrases.append((" ".join(pieces), first, last))
        sizes = [_re2(e).programsize for e in linear]
        if method != "all" and linear:
            linear = [b"|".join(b"(?:%b)" % e for e in linear)]
        self.patterns = [_re2(e) for e in linear]
        self.us = len(self.phrases) * _PHRASE + sum(n * _INSTRUCTION if n > _SMALL else _PATTERN for n in sizes)

    def found(self, text: _Text) -> bool:
        if self.method == "all":
            return (
                (not self.words or self.words <= text.runs)
                and all(_holds(text.flat, *p) for p in self.phrases)
                and all(any(map(p.search, text.data)) for p in self.patterns)
            )
        some = (
            (bool(self.words) and not self.words.isdisjoint(text.runs))
            or any(_holds(text.flat, *p) for p in self.phrases)
            or any(any(map(p.search, text.data)) for p in self.patterns)
        )
        return some if self.method == "any" else not some and len(text.whole) <= READ


def _holds(text: str, phrase: str, whole_before: bool, whole_after: bool) -> bool:
    """Say whether `text` holds `phrase`, not as a part of a longer word where a word is whole."""
    at = text.find(phrase)
    while at >= 0:
        end = at + len(phrase)
        if not (whole_before and _RUN.match(text, at - 1) and at) and not (whole_after and _RUN.match(text, end)):
            return True
        at = text.find(phrase, at + 1)
    return False


class _Scored:
    """Entries that match more or less. `trigram_us`: microseconds for a character that trigrams read; 0 by BM25."""

    def __init__(self, threshold: float, high: float, score: Callable[[_Text], float], trigram_us: float) -> None:
        self.threshold, self.high, self.score, self.trigram_us = threshold, high, score, trigram_us


def _group(rule: object, path: str) -> _Exact | _Scored:
    if not isinstance(rule, dict):
        return _Exact("any", _entries(rule, path), path)
    methods = [m for m in rule if m in _METHODS]
    if len(methods) != 1:
        raise ConfigError(f"a group is a list, or a mapping with one of {', '.join(_METHODS)}", path=path)
    (method,) = methods
    at = f"{path}.{method}"
    known = (method, "threshold") if method in _THRESHOLDS else (method,)
    for key in rule:
        if key not in known:
            raise ConfigError(f"unknown key; {suggest(str(key), known)}", path=f"{path}.{key}")
    entries = _entries(rule[method], at)
    if method not in _THRESHOLDS:
        return _Exact(method, entries, at)
    words = [_words(e, f"{at}[{i}]") for i, e in enumerate(entries)]
    threshold = rule.get("threshold", _THRESHOLDS[method])
    high, score = _bm25(words) if method == "bm25" else _trigram(words)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.0 < threshold <= high:
        which = "" if "threshold" in rule else ", the default,"
        raise ConfigError(
            f"a score lies between 0 and {high:.4g} here; {threshold!r}{which} says nothing: give another",
            path=f"{path}.threshold",
        )
    return _Scored(
        float(threshold), high, score, sum({len(w) for w in words}) * _WINDOW if method == "trigram" else 0.0
    )


def _entries(words: object, path: str) -> Sequence[str]:
    if not isinstance(words, list | tuple) or not words:
        raise ConfigError("a group is a list of one or more words", path=path)
    for i, word in enumerate(words):
        if not isinstance(word, str) or not word.strip():
            raise ConfigError(
                "a word is a string that is not empty (quote numbers, yes and no in YAML)", path=f"{path}[{i}]"
            )
    return words


# ----------------------------------------------------------------------------------------------------------------- exact


def _pattern(body: str, path: str) -> bytes:
    """Return a pattern for RE2, in UTF-8, which RE2 assumes of strings only."""
    try:
        if _re2(body.encode()).search(b"") is not None:
            raise ConfigError(f"{body!r} matches the empty text, so it would match every query", path=path)
    except UnicodeEncodeError as e:
        raise ConfigError("a pattern cannot hold half of a character", path=path) from e
    except ConfigError as e:
        raise ConfigError(e.message, path=path) from e
    return body.encode()


def _re2(pattern: bytes) -> Any:
    try:
        import re2
    except ImportError as e:
        raise ConfigError("patterns (re:) need google-re2: pip install 'fairlead[rules]'") from e
    options = re2.Options()
    options.case_sensitive, options.never_capture, options.log_errors = False, True, False
    options.max_mem = _PATTERN_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as e:
        why = e.args[0].decode("utf-8", "replace") if e.args and isinstance(e.args[0], bytes) else str(e)
        raise ConfigError(
            f"{pattern.decode()!r} is no pattern that RE2 takes ({why}); it has no back-references and no look-around"
        ) from e


def _spaced(character: str) -> bool:
    return character.isalnum() and ord(character) < _SPACED


# ---------------------------------------------------------------------------------------------------------------- scored


def _words(entry: str, path: str) -> list[str]:
    found: list[str] = _WORD.findall(folded(entry))
    if not found or entry.startswith("re:"):
        raise ConfigError("this method takes words and phrases; patterns go with any, all or none", path=path)
    return found


def _bm25(entries: Sequence[list[str]]) -> tuple[float, Callable[[_Text], float]]:
    """Return the largest score that there can be, and what scores a text."""
    n, mean = len(entries), sum(map(len, entries)) / len(entries)
    holding = Counter(word for entry in entries for word in set(entry))
    postings: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    best = [0.0] * n
    for i, entry in enumerate(entries):
        for word, f in Counter(entry).items():
            idf = math.log1p((n - holding[word] + 0.5) / (holding[word] + 0.5))
            weight = idf * f * (_K + 1.0) / (f + _K * (1.0 - _B + _B * len(entry) / mean))
            postings[word].append((i, weight))
            best[i] += weight

    def score(text: _Text) -> float:
        sums = [0.0] * n
        # In the order of the postings, so that sums are the same on every run, and none passes the best.
        for word, found in postings.items():
            if word in text.words:
                for i, weight in found:
                    sums[i] += weight
        return min(max(sums), high)

    high = max(best)
    return high, score


def _trigram(entries: Sequence[list[str]]) -> tuple[float, Callable[[_Text], float]]:
    """Return the largest score that there can be, and what scores a text."""
    sizes: list[int] = []
    holding: defaultdict[str, list[int]] = defaultdict(list)
    for i, entry in enumerate(entries):
        own = _trigrams(" ".join(entry))
        sizes.append(len(own))
        for t in own:
            holding[t].append(i)

    @lru_cache(maxsize=4096)
    def near(window: str) -> float:
        own = _trigrams(window)
        shared: dict[int, int] = {}
        for t in own:
            for i in holding.get(t, ()):
                shared[i] = shared.get(i, 0) + 1
        return max((n / (len(own) + sizes[i] - n) for i, n in shared.items()), default=0.0)

    widths = sorted({len(entry) for entry in entries})

    def score(text: _Text) -> float:
        words = text.beginning
        best = 0.0
        for k in widths:
            windows = set(words) if k == 1 else {" ".join(words[i : i + k]) for i in range(len(words) - k + 1)}
            best = max(best, max(map(near, windows), default=0.0))
        return best

    return 1.0, score


def _trigrams(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}
