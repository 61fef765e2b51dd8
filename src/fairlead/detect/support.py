"""Which claims of an answer nothing in its request supports: by words, numbers and names. Stages of HaluGate (vLLM Semantic Router, 2026, arXiv 2603.04444).

The paper's three stages are classifiers: does the request need facts, which spans of the answer are unsupported, why. Here each is a
measure of text, ours, so that it runs within a gateway without a model:

1. `needs_facts`: documents, tool results or a factual question are there, and the request is not for fiction or code.
2. `judged` scores every claim (sentence) of the answer against the sentences of the sources. With w = 2 for numbers and names and 1 for words, and the
   window of two adjacent sentences that holds most of them:

       score = share of w found in the window, one part in four of it by pairs of neighbouring words

   It is at most 0.2 where a number or a proper name of the claim stands nowhere in the sources, at most 0.3 where it stands there only away from
   the words around it in the claim, and at most 0.25 where claim and nearest sentence differ in a negation or in an antonym. Below `bar` a claim
   counts as unsupported.
3. The nearest passage and the reason come with each such claim.

**Lexical support is not truth.** It finds what was changed or made up in words, numbers and names. It does not know that a paraphrase in quite other
words says the same (it raises a false alarm), nor that two names changed places within one sentence (it finds nothing); what follows by
arithmetic or from two places far apart looks unsupported; and a source that is wrong supports what is wrong.
`benchmarks/corpora/support.py` measures each of these. English in its lists of words; numbers, names and overlap work in any language
that puts spaces between words (names not in German, where every noun has a capital), and in pairs of characters for Chinese, Japanese and Korean.

Cost: stage 1 about 20 µs for a short request; stage 2 about 1.5 ms per 4 kB of sources, once per answer. Linear in both texts.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from fairlead.types import Query

BAR: Final = 0.35
"""Score below which a claim counts as unsupported; chosen on the training families of `benchmarks/corpora/support.py`."""

Why: TypeAlias = Literal["", "number", "name", "negation", "words", "model"]
"""What a claim lacks: nothing, a number, a name, agreement in a negation or antonym, enough of its words, or a model's consent."""


class Need(Struct, frozen=True, kw_only=True):
    """Stage 1: what kind of request this is, as far as a few marks tell."""

    grounded: bool
    """Documents or tool results stand in it."""
    question: bool
    """Its last user message asks for a fact."""
    creative: bool
    """It asks for something made up: a poem, a story, a slogan."""
    code: bool
    """It asks for code."""

    @property
    def facts(self) -> bool:
        """Whether the answer will state facts that can be right or wrong."""
        return (self.grounded or self.question) and not self.creative and not self.code


class Verdict(Struct, frozen=True, kw_only=True):
    """What a scorer says of one claim."""

    score: float
    """0: nothing supports it; 1: all of it is there."""
    why: Why = ""
    missing: tuple[str, ...] = ()
    """The numbers or names that were not found where they should be."""
    nearest: str = ""
    """The passage of the sources that is nearest."""


class Claim(Struct, frozen=True, kw_only=True):
    """One claim of an answer, at ``answer[start:end]``, with its verdict."""

    start: int
    end: int
    text: str
    verdict: Verdict
    supported: bool


class Support(Struct, frozen=True, kw_only=True):
    """What was found of one answer."""

    claims: tuple[Claim, ...]

    @property
    def unsupported(self) -> tuple[Claim, ...]:
        """The claims that nothing supports, in the order of the answer."""
        return tuple(c for c in self.claims if not c.supported)

    @property
    def score(self) -> float:
        """Share of claims that are supported; 1 if there are none."""
        return 1.0 if not self.claims else 1.0 - len(self.unsupported) / len(self.claims)


# ----------------------------------------------------------------------------------------------------- stage 1: is it needed

_READ: Final = 1000
"""Characters that stage 1 looks at, at the beginning and at the end of a message each: there is where it says what is wanted."""
_FEW: Final = 12
"""Messages in which marks of a context are looked for: the first two and the newest."""
_LONG: Final = 600
"""A user message of so many characters, code apart, is taken to hold a text to work with."""
_MARKED: Final = re.compile(
    r"^[ \t#*>\"']*(?:context|documents?|sources?|passages?|articles?|references?|excerpts?|background|facts|notes|transcript|report|e-?mail|text"
    r"|knowledge|data|search results|retrieved[^\n:]{0,30})\b[^\n:.?!]{0,40}:"
    r"|<(?:context|documents?|docs?|sources?|passages?|articles?|references?|excerpts?|text|search_results)\b",
    re.MULTILINE,
)
_CREATIVE: Final = re.compile(
    r"\b(?:write|compose|invent|imagine|create|make up|tell|draft|give)\b[^.?!\n]{0,60}?\b(?:poem|haiku|sonnet|story|tale|song|lyrics|limerick|joke|slogan|tagline"
    r"|fiction|novel|screenplay|dialogue|riddle|rap|scene|names? for|ideas? for)\b|\b(?:role-?play|pretend (?:to be|you|that)|let's imagine|brainstorm)\b",
)
_CODE: Final = re.compile(
    r"\b(?:write|implement|refactor|debug|fix|generate|complete|optimi[sz]e|port)\b[^.?!\n]{0,60}?\b(?:code|function|class|script|program|regex|sql|query|unit tests?|method"
    r"|api|component|bug|python|javascript|typescript|java|rust|bash|html|css)\b|^(?:def |class |import |#include|function )|\btraceback \(most recent",
    re.MULTILINE,
)
_FACT: Final = re.compile(
    r"\b(?:who|whom|whose|when|where|which|what(?:'s|\u2019s)?|how (?:many|much|old|long|far|tall|large|big|high|often|did|does|do|is|are|was|were))\b[^\n]{3,300}\?"
    r"|(?:^|[.!?,]\s+)(?:is|are|was|were|did|does|do|has|have|can)\s+(?!you\b|we\b|i\b|it ok)[^\n?]{6,300}\?"
    r"|\b(?:summari[sz]e|explain|describe|define|list|compare|according to|tell me about|give me (?:the )?(?:facts|details|an overview)|based on|extract|translate the facts|(?:need|want|like) to (?:know|find out|learn)|find out|check (?:whether|if)|whether|(?:fill|brief) me in|look up)\b",
)
_CHAT: Final = re.compile(
    r"\b(?:how are you|what(?:'s|\u2019s| is) up|who are you|what(?:'s|\u2019s| is) your (?:name|favou?rite)|do you (?:like|think|feel|want|prefer)|what do you (?:think|feel|prefer)"
    r"|(?:what|which|where|how) (?:should|shall|would|can|could) (?:i|we|you)|your opinion|thank(?:s| you)|how do you feel|tell me about yourself)\b",
)


def needs_facts(query: Query) -> Need:
    """Say whether a request needs facts, from its messages alone."""
    text = _ends(query.text)
    creative = _CREATIVE.search(text) is not None
    code = _CODE.search(text) is not None or "```" in text
    question = _FACT.search(text) is not None and _CHAT.search(text) is None
    return Need(grounded=_has_material(query), question=question, creative=creative, code=code)


def _has_material(query: Query) -> bool:
    messages = query.messages
    if any(m.role in ("tool", "function") and m.text.strip() for m in messages):
        return True
    for m in messages if len(messages) <= _FEW else (*messages[:2], *messages[2 - _FEW :]):
        if m.role != "assistant":
            text = m.text
            if _MARKED.search(_ends(text)) is not None:
                return True
            if m.role == "user" and len(text) >= _LONG and "```" not in text:
                return True
    return False


def _ends(text: str) -> str:
    """Return what stage 1 looks at, in small letters."""
    return (text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}").lower()


def sources(query: Query) -> tuple[str, ...]:
    """Return the texts that an answer may rest on: all that was said in the request, but for the assistant's own words."""
    return tuple(t for m in query.messages if m.role != "assistant" and (t := m.text).strip())


# ----------------------------------------------------------------------------------------------------- text into sentences

_END: Final = re.compile(
    r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+(?=[\"'\u201c\u2018(\[]?[A-Z0-9À-Þ])|(?<=[\u3002\uff01\uff1f])|\n+"
)
_ABBREVIATED: Final = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|cf|No|Fig|Inc|Ltd|Co|Corp|approx|ca)|\b[A-Z])\.[\"')\]]*$"
)
_FENCE: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_BULLET: Final = re.compile(r"\s*(?:[-*\u2022\u2013]|\(?\d{1,2}[.)]|#{1,6}|>)\s+")
_NO_CLAIM: Final = re.compile(
    r"\b(?:i (?:don't|do not|cannot|can't|could not|couldn't)|i'm (?:sorry|not sure|unable)|(?:is|are|was|were) not (?:mentioned|stated|given|specified|provided|included)"
    r"|(?:does not|doesn't|do not|don't) (?:say|state|mention|specify|provide|contain|include)|no information|not enough information|let me know|feel free|hope this helps"
    r"|here(?:'s| is| are) (?:a|an|the|some|what|your)|as an ai|in (?:summary|conclusion)[,:]?$)",
    re.IGNORECASE,
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the spans of the sentences of `text`, lines apart, fenced code left out, without marks of lists before them."""
    out: list[tuple[int, int]] = []
    at = 0
    for fence in _FENCE.finditer(text):
        _cut(text, at, fence.start(), out)
        at = fence.end()
    _cut(text, at, len(text), out)
    return out


def _cut(text: str, start: int, end: int, out: list[tuple[int, int]]) -> None:
    at = start
    for gap in _END.finditer(text, start, end):
        if "\n" not in gap[0] and _ABBREVIATED.search(text, max(at, gap.start() - 12), gap.start()):
            continue
        _keep(text, at, gap.start() + len(gap[0].rstrip()), out)
        at = gap.end()
    _keep(text, at, end, out)


def _keep(text: str, start: int, end: int, out: list[tuple[int, int]]) -> None:
    bullet = _BULLET.match(text, start, end)
    start = bullet.end() if bullet else start
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        out.append((start, end))


def structured(answer: str) -> bool:
    """Whether an answer is a JSON object or array and nothing else."""
    text = answer.strip()
    if not text or text[0] + text[-1] not in ("{}", "[]"):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def claims(answer: str) -> list[tuple[int, int]]:
    """Return the spans of what the answer claims: its sentences, without questions, courtesies and admissions of not knowing.

    A structured answer has none: its keys are a schema's words, not claims. Of an endless answer the first 200 count.
    """
    found: list[tuple[int, int]] = []
    if structured(answer):
        return found
    for start, end in sentences(answer):
        text = answer[start:end]
        if text.endswith(("?", ":")) or _NO_CLAIM.search(text) or len(_terms(text).terms) < 2:
            continue
        found.append((start, end))
        if len(found) == _CLAIMS:
            break
    return found


# ----------------------------------------------------------------------------------------------------- words


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TOKEN: Final = re.compile(
    r"\d+(?:[.,]\d+)*|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\W\d_]+(?:['\u2019][^\W\d_]+)*"
)
_CJK: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_STOP: Final = _set(
    "a an the and or but if then than that this these those it its it's he she they them his her their we us our you your i me my is are was were be been being am"
    " do does did done have has had having will would shall should can could may might must of in on at by for from to with into onto over under about as per via"
    " there here also so such which who whom whose what when where while during through between among both each any all some more most other very just only own same too"
    " up down out off again further once because until after before above below s t said says say according however therefore thus moreover additionally overall"
    " not no nor never none neither without cannot don't doesn't didn't isn't aren't wasn't weren't won't can't couldn't shouldn't wouldn't hasn't haven't hadn't"
    " context document documents text passage source sources information based provided given answer"
)
_NEGATORS: Final = _set(
    "not no nor never none neither without cannot hardly fail failed fails lack lacks lacked refused"
)
_SOFT: Final = _set(
    "january february march april may june july august september october november december monday tuesday wednesday thursday friday saturday sunday"
    " jan feb mar apr jun jul aug sep sept oct nov dec"
)
_GERMAN: Final = _set("der das und ist nicht ein eine einen dem für mit wurde auch sich")
"""Words that German cannot do without."""
_ONES: Final = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
_TENS: Final = "thirty forty fifty sixty seventy eighty ninety"
_NUMBERS: Final = {w: str(i) for i, w in enumerate(_ONES.split())} | {
    w: str(30 + 10 * i) for i, w in enumerate(_TENS.split())
}
_PAIRED: Final = (
    "increase decrease, rise fall, rose fell, gain lose, gained lost, win lose, won lost, accept reject, open close, opened closed, "
    "allow forbid, allow prohibit, higher lower, more fewer, more less, highest lowest, largest smallest, first last, before after, "
    "north south, east west, northern southern, eastern western, early late, earlier later, grow shrink, grew shrank, buy sell, "
    "bought sold, approve reject, start end, above below, always never, begin end, began ended, hot cold, safe dangerous, "
    "legal illegal, possible impossible, public private, support oppose, success failure, succeed fail, true false, "
    "include exclude, minimum maximum, oldest newest, longer shorter, cheaper dearer"
)
_SUFFIXES: Final = ("ingly", "edly", "ations", "ation", "ings", "ing", "ies", "ied", "ers", "est", "ed", "er", "es", "ly", "s", "e", "y")  # fmt: skip


class _Terms(Struct, frozen=True):
    """A sentence as terms, in order: numbers and stems, what each is, and whether it is negated."""

    terms: tuple[str, ...]
    kinds: tuple[Literal["number", "name", "word"], ...]
    written: tuple[str, ...]
    words: frozenset[str]
    """All words in small letters."""
    negations: int
    opens: bool
    """The first term is a word with a capital letter, at the beginning, that may or may not be a name."""


def _terms(text: str) -> _Terms:
    terms: list[str] = []
    kinds: list[Literal["number", "name", "word"]] = []
    written: list[str] = []
    words: set[str] = set()
    negations, opens = 0, False
    found = [m[0] for m in _TOKEN.finditer(text)]
    for i, token in enumerate(found):
        first = token[0]
        if first.isdigit():
            terms.append(_number(token))
            kinds.append("number")
            written.append(token)
            continue
        if _CJK.match(token):
            pairs = [token[j : j + 2] for j in range(max(1, len(token) - 1))]
            terms += pairs
            kinds += ["word"] * len(pairs)
            written += pairs
            continue
        low = token.lower().replace("\u2019", "'")
        words.add(low)
        if low in _NEGATORS or low.endswith("n't"):
            negations += 1
        if low in _STOP or (len(low) == 1 and not first.isupper()):
            continue
        capital = first.isupper() and low not in _SOFT
        alone = i == 0 and not (len(found) > 1 and found[1][0].isupper()) and not (token.isupper() and len(token) > 1)
        opens = opens or (capital and alone)
        terms.append(_NUMBERS.get(low) or stem(low))
        kinds.append("name" if capital and not alone else "word")
        written.append(token)
    return _Terms(tuple(terms), tuple(kinds), tuple(written), frozenset(words), negations, opens)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Cut endings off a word in small letters, so that its forms meet: cruder than a stemmer, and quick."""
    word = word.removesuffix("'s").replace("'", "")
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:7]


_OPPOSITE: Final[dict[str, set[str]]] = defaultdict(set)
"""Stem -> stems of its antonyms."""
for _pair in _PAIRED.split(", "):
    _a, _b = map(stem, _pair.split())
    _OPPOSITE[_a].add(_b)
    _OPPOSITE[_b].add(_a)


def _number(token: str) -> str:
    """Write a number in one way: ``1,250.50`` and ``1250.5`` are one, ``03`` is 3."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", token):
        token = token.replace(",", "")
    whole, dot, part = token.replace(",", ".").partition(".")
    if "." in part:  # a version or a date: as it stands
        return token
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (dot + part if part else "")


# ----------------------------------------------------------------------------------------------------- stages 2 and 3

_WEIGHT: Final = {"number": 2.0, "name": 2.0, "word": 1.0}
_PAIRS: Final = 0.25
"""Part of a score that goes by pairs of neighbouring terms."""
_ABSENT, _MISPLACED, _CONTRADICTED = 0.2, 0.3, 0.25
"""What a score is at most."""
_REST: Final = 0.9
"""Share found of all but the first word, from which a first word that stands nowhere is taken for a name that was changed."""
_COMMON: Final = 256
"""A term of more sentences than this tells none of them apart, and counts as found in each. It bounds the work of a claim."""
_CLAIMS: Final = 200
"""Claims of an answer that are judged, the first ones."""
_LONGEST: Final = 2000
"""Characters of a claim that are read: what goes on so long without an end is no sentence."""
_NEAR: Final = 0.6
"""Share found in one sentence from which a difference in negation counts."""


class Passages:
    """The sentences of some sources, indexed by their terms. Made once per answer; 250 µs per kB."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts: list[str] = []
        self.terms: list[_Terms] = []
        self.firsts: list[int] = []
        """Number of the first sentence of each text."""
        self.where: dict[str, list[int]] = defaultdict(list)
        self.pairs: set[tuple[str, str]] = set()
        german: set[str] = set()
        for text in texts:
            self.firsts.append(len(self.texts))
            for start, end in sentences(text):
                terms = _terms(text[start:end])
                i = len(self.texts)
                self.texts.append(text[start:end])
                self.terms.append(terms)
                for term in set(terms.terms):
                    self.where[term].append(i)
                self.pairs.update(zip(terms.terms, terms.terms[1:], strict=False))
                german |= _GERMAN & terms.words
        self.common = frozenset(term for term, at in self.where.items() if len(at) > _COMMON)
        self.nouns = len(german) >= 3
        """Whether a capital letter is no sign of a name here, since all nouns have one."""

    def together(self, i: int, j: int) -> bool:
        """Whether sentences `i` and `j` are there and of one text."""
        return 0 <= j < len(self.texts) and bisect_right(self.firsts, i) == bisect_right(self.firsts, j)

    def nearest(self, claim: str, k: int = 1) -> list[str]:
        """Return the `k` sentences that hold most of a claim, each with the one after it; fewer if fewer share a word with it."""
        c = self._read(claim)
        found: Counter[int] = Counter()
        for term, kind in dict(zip(c.terms, c.kinds, strict=True)).items():
            for i in self.where.get(term, ())[:_COMMON]:
                found[i] += int(_WEIGHT[kind])
        best = sorted(found, key=lambda i: (-found[i], i))[:k]
        return [self._shown(i) for i in best]

    def _shown(self, i: int) -> str:
        return f"{self.texts[i]} {self.texts[i + 1]}" if self.together(i, i + 1) else self.texts[i]

    def verdict(self, claim: str, bar: float = BAR) -> Verdict:
        """Score one claim: formula at the head of the file."""
        c = self._read(claim)
        weight = {t: _WEIGHT[k] for t, k in zip(c.terms, c.kinds, strict=True)}
        if not weight:
            return Verdict(score=1.0)
        whole = sum(weight.values())
        hits, given = self._hits(weight)
        if not hits:
            return Verdict(score=0.0, why="words", missing=_named(c))
        share = {i: (given + sum(map(weight.__getitem__, found))) / whole for i, found in hits.items()}
        alone = max(share, key=lambda i: (share[i], -i))
        best, found = alone, share[alone]
        for i in sorted(hits):
            if i + 1 in hits and self.together(i, i + 1):
                both = (given + sum(map(weight.__getitem__, hits[i] | hits[i + 1]))) / whole
                if both > found:
                    best, found = i, both
        pairs = list(zip(c.terms, c.terms[1:], strict=False))
        score = (1.0 - _PAIRS) * found + _PAIRS * (sum(p in self.pairs for p in pairs) / len(pairs) if pairs else found)
        nearest = self.texts[alone] if share[alone] >= found else self._shown(best)
        why: Why = "words" if score < bar else ""
        missing: tuple[str, ...] = ()
        absent, misplaced = self._astray(c, hits)
        if c.opens and c.terms[0] not in self.where and found * whole >= _REST * (whole - 1.0):
            # All is there but the capitalised word that it opens with: whether that is a name cannot be seen, so the rest tells.
            absent = [0, *absent]
        if absent or misplaced:
            i = (absent or misplaced)[0]
            why = "number" if c.kinds[i] == "number" else "name"
            missing = tuple(dict.fromkeys(c.written[j] for j in (absent or misplaced)))
            score = min(score, _ABSENT if absent else _MISPLACED)
        elif share[alone] >= _NEAR and self._differ(c, self.terms[alone]):
            why, score, nearest = "negation", min(score, _CONTRADICTED), self.texts[alone]
        return Verdict(score=score, why=why if score < bar else "", missing=missing, nearest=nearest)

    def _read(self, claim: str) -> _Terms:
        c = _terms(claim[:_LONGEST])
        if self.nouns:
            c = msgspec.structs.replace(c, kinds=tuple("word" if k == "name" else k for k in c.kinds), opens=False)
        return c

    def _hits(self, weight: dict[str, float]) -> tuple[dict[int, set[str]], float]:
        """Return the sentences that hold some of these terms, and the weight of those that stand nearly everywhere and tell none apart."""
        hits: dict[int, set[str]] = defaultdict(set)
        for term in weight.keys() - self.common:
            for i in self.where.get(term, ()):
                hits[i].add(term)
        if hits:
            return hits, sum(weight[t] for t in weight if t in self.common)
        for term in weight:
            for i in self.where.get(term, ())[:_COMMON]:
                hits[i].add(term)
        return hits, 0.0

    def _astray(self, c: _Terms, hits: dict[int, set[str]]) -> tuple[list[int], list[int]]:
        """Return the places in a claim of the numbers and names that stand nowhere, and of those that stand only among other words."""
        absent, misplaced = [], []
        for i, (term, kind) in enumerate(zip(c.terms, c.kinds, strict=True)):
            if kind == "word" or term in self.common:
                continue
            at = set(self.where.get(term, ()))
            if not at:
                absent.append(i)
                continue
            around = {*c.terms[max(0, i - 3) : i], *c.terms[i + 1 : i + 4]} - {term} - self.common
            here = max(len(around & hits[j]) for j in at)
            there = max((len(around & found) for j, found in hits.items() if j not in at), default=0)
            # The words around it must be told elsewhere: a paraphrase in other words is no proof of anything.
            if here * 3 < len(around) <= there * 2:
                misplaced.append(i)
        return absent, misplaced

    @staticmethod
    def _differ(claim: _Terms, source: _Terms) -> bool:
        """Whether one denies what the other says: by an odd number of negations, or an antonym in place of a word."""
        flips = abs(claim.negations - source.negations) % 2
        of_claim, of_source = set(map(stem, claim.words - source.words)), set(map(stem, source.words - claim.words))
        opposed = any(of_source & _OPPOSITE[w] for w in of_claim if w in _OPPOSITE)
        return bool(flips) != opposed


def _named(c: _Terms) -> tuple[str, ...]:
    """Return the numbers and names of a claim, as they are written."""
    return tuple(dict.fromkeys(w for w, k in zip(c.written, c.kinds, strict=True) if k != "word"))


def judged(answer: str, texts: Sequence[str], *, bar: float = BAR) -> Support:
    """Judge every claim of `answer` by the words of `texts`. Pure: the same texts give the same verdicts."""
    spans = claims(answer)
    if not spans:
        return Support(claims=())
    passages = Passages(texts)
    return gathered(answer, spans, [passages.verdict(answer[s:e], bar) for s, e in spans], bar=bar)


def gathered(answer: str, spans: Sequence[tuple[int, int]], verdicts: Sequence[Verdict], *, bar: float) -> Support:
    """Put spans and verdicts together."""
    return Support(
        claims=tuple(
            Claim(start=s, end=e, text=answer[s:e], verdict=v, supported=v.score >= bar)
            for (s, e), v in zip(spans, verdicts, strict=True)
        )
    )


def explained(claim: Claim, *, clip: int = 160) -> str:
    """Say in one line why a claim counts as unsupported, and what is nearest to it."""
    v = claim.verdict
    said = {
        "number": f"{', '.join(v.missing)} is not said there of this",
        "name": f"{', '.join(v.missing)} is not said there of this",
        "negation": "the nearest passage says the opposite",
        "words": "little of it is said there",
        "model": "a model finds that it does not follow",
        "": "it is not found there",
    }[v.why]
    near = f"; nearest: \u201c{_clipped(v.nearest, clip)}\u201d" if v.nearest else ""
    return f"\u201c{_clipped(claim.text, clip)}\u201d ({said}{near})"


def _clipped(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "\u2026"
