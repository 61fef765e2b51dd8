r"""Named groups of words, phrases and patterns that a query may hold. Methods as in vLLM Semantic Router's keyword signal (2026, arXiv
2603.04444): any, all and none (its OR, AND, NOR), BM25 (Robertson & Zaragoza 2009) and likeness of character trigrams.

    bm25     s = max over entries e of  sum over words w of e that the text holds of  idf(w) f (k + 1) / (f + k (1 - b + b |e| / mean))
             idf(w) = ln(1 + (N - n_w + 1/2) / (n_w + 1/2)),   f: how often w is in e,   k = 1.2, b = 0.75
    trigram  s = max over entries e, and windows x of as many words as e has, of  |T(e) & T(x)| / |T(e) | T(x)|

A group's N entries are BM25's documents, and the text is what is searched for: a word that few entries hold says more. Its default
threshold, .1 as in the paper, is passed by any one word; look at the scores (part ``group_score``) and set your own. Trigrams forgive
typos: in a word of eight letters one that is wrong leaves .45, one that is missing .5, two that are swapped .33, and shorter words keep less: the
paper's .4 misses some, .3 fewer. They are for scripts that write spaces between words.

Exact entries match whole and in any case; in scripts without spaces between words (Thai, Chinese, Japanese …) they match anywhere. Spaces in
a phrase match any white space. An entry that starts with ``re:`` is a regular expression, also in any case, for RE2, whose time is linear in
the text whatever the pattern: it has no back-references and no look-around, and its ``\w``, ``\d`` and ``\b`` know ASCII alone (``\pL`` is any
letter). That needs the extra `rules`. Linear is not always quick: a count of hundreds (``.{0,900}x``) may cost 10 µs a character.

Only the first `READ` characters of a text are searched, by trigrams the first `READ_TRIGRAM`. For 300 characters a group of three words takes
14 µs, of two RE2 patterns 3 µs, of three entries by BM25 13 µs, by trigrams 180 µs, or 30 µs if its words were seen before; 0.9 ms at
most for exact words, 0.6 ms for the others.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final, Self, TypeAlias

from fairlead.errors import ConfigError, suggest
from fairlead.signals.base import TAKEN, YES_NO, Law, Range, Signal, alike
from fairlead.types import Query, Reading

READ: Final = 20_000
READ_TRIGRAM: Final = 1_000
_SPACED: Final = 0x0E00
"""Scripts before this code point (Latin, Greek, Cyrillic, Hebrew, Arabic, Indic …) put spaces between words."""
_METHODS: Final = ("any", "all", "none", "bm25", "trigram")
_THRESHOLDS: Final = {"bm25": 0.1, "trigram": 0.4}
_K, _B = 1.2, 0.75
_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_PATTERN_BYTES: Final = 1 << 20
"""Memory that RE2 may use for a pattern: it bounds how large the automaton can be, and so what a character costs."""

Found: TypeAlias = Callable[["_Text"], bool]


class Keyword(Signal):
    """Value: the first group, in the order given, with a match in the last user message; None if no group has one.

    Parts: each group's name, yes or no; and of groups by `bm25` or `trigram` the ``{group}_score``.

    Args:
        rules: group name -> a list of words, phrases and ``re:`` patterns of which any matches, or a mapping of one method to its list:
            ``{any: […]}``, ``{all: […]}``, ``{none: […]}``, or, of words and phrases, ``{bm25: […], threshold: 0.1}`` and
            ``{trigram: […], threshold: 0.4}``.

    Raises:
        ConfigError: at the first reading (or `check`), for an empty group or word, a pattern that does not compile, a threshold that
            no text can reach, or a missing package.
    """

    __slots__ = ("_groups",)
    _groups: dict[str, _Exact | _Scored]

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
        taken = {*TAKEN, *(f"{name}_score" for name, group in groups.items() if isinstance(group, _Scored))}
        for name in groups:
            if name in taken:
                raise ConfigError(
                    f"{name!r} means something else here; call the group otherwise", path=f"$.rules.{name}"
                )
        self._groups = groups
        return groups

    def ranges(self) -> Mapping[str, Range]:
        """One of the groups, or null; each group, yes or no; and scores."""
        found = {"value": Range(kind="string", among=tuple(self.rules), null=True), **dict.fromkeys(self.rules, YES_NO)}
        for name, group in self.groups.items():
            if isinstance(group, _Scored):
                found[f"{name}_score"] = Range(kind="number", low=0.0, high=group.high)
        return found

    def laws(self) -> Sequence[Law]:
        """The value is the first group that has a match, and a score matches from its threshold on."""
        names = tuple(self.rules)
        return (
            *(alike({"value": n}, {n: True, **dict.fromkeys(names[:i], False)}) for i, n in enumerate(names)),
            alike({"value": None}, dict.fromkeys(names, False)),
            *(
                alike({n: True}, {f"{n}_score": {"ge": group.threshold}})
                for n, group in self.groups.items()
                if isinstance(group, _Scored)
            ),
        )

    def _read(self, query: Query) -> Reading:
        text = _Text(query.text[:READ])
        first: str | None = None
        parts: dict[str, bool | int | float | str] = {}
        for name, group in self.groups.items():
            if isinstance(group, _Scored):
                parts[f"{name}_score"] = score = group.score(text)
                found = score >= group.threshold
            else:
                found = group.found(text)
            parts[name] = found
            if found and first is None:
                first = name
        return Reading(value=first, parts=parts)


class _Text:
    """A text in the forms that methods read; each is made once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def data(self) -> bytes:
        return self.text.encode("utf-8", "replace")

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(_WORD.findall(self.text.lower()))

    @cached_property
    def beginning(self) -> list[str]:
        """The words of the first part, in order."""
        found: list[str] = _WORD.findall(self.text[:READ_TRIGRAM].lower())
        return found


class _Exact:
    """Entries that match or do not: any of them, all, or none."""

    def __init__(self, method: str, entries: Sequence[str], path: str) -> None:
        of = [_entry(e, f"{path}[{i}]") for i, e in enumerate(entries)]
        self.method = method
        self.each = [_joined([e]) for e in of] if method == "all" else [_joined(of)]

    def found(self, text: _Text) -> bool:
        return all(found(text) for found in self.each) != (self.method == "none")


class _Scored:
    """Entries that match more or less."""

    def __init__(self, threshold: float, high: float, score: Callable[[_Text], float]) -> None:
        self.threshold, self.high, self.score = threshold, high, score


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
        raise ConfigError(
            f"a score lies between 0 and {high:.4g}; {threshold!r} says nothing", path=f"{path}.threshold"
        )
    return _Scored(float(threshold), high, score)


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


def _entry(word: str, path: str) -> str | bytes:
    """Return a pattern: a string for Python's `re`, which is linear in the text for what is made here, or bytes for RE2."""
    if word.startswith("re:"):
        body = word.removeprefix("re:")
        try:
            if _re2(body.encode()).search(b"") is not None:
                raise ConfigError(f"{body!r} matches the empty text, so it would match every query", path=path)
        except UnicodeEncodeError as e:
            raise ConfigError("a pattern cannot hold half of a character", path=path) from e
        except ConfigError as e:
            raise ConfigError(e.message, path=path) from e
        return body.encode()
    pieces = word.split()
    before = r"(?<!\w)" if _spaced(pieces[0][0]) else ""
    after = r"(?!\w)" if _spaced(pieces[-1][-1]) else ""
    return before + r"\s+".join(map(re.escape, pieces)) + after


def _joined(entries: Sequence[str | bytes]) -> Found:
    """Return what says whether any of the patterns is in a text."""
    plain = [e for e in entries if isinstance(e, str)]
    linear = [e for e in entries if isinstance(e, bytes)]
    words = re.compile("|".join(plain), re.IGNORECASE) if plain else None
    # The mark says that its pattern is UTF-8, which RE2 assumes of strings only.
    patterns = _re2(b"|".join(b"(?:%b)" % e for e in linear)) if linear else None

    def found(text: _Text) -> bool:
        return bool(words and words.search(text.text)) or bool(patterns and patterns.search(text.data))

    return found


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
    found: list[str] = _WORD.findall(entry.lower())
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
