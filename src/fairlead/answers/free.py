"""Free text: two answers are one if they use mostly the same words, name the same numbers, and deny the same things. Ours, no paper.

    F1 = 2 |A and B| / (|A| + |B|)  of the content words of two answers; linked if F1 >= ALIKE,
                                    the numbers are the same, and so are the words that are negated

Content words are what is left without function words and the s at a word's end. A negation reaches to the next content word of its clause:
"is not safe" denies *safe*, "A is safe, B is not" denies what is not said; so neither is "A is not safe, B is". Numbers may be digits or words
up to twelve. Answers that are linked, if over others, are one: which answers share a group does not depend on their order.

Words cannot tell everything: a long answer with one name changed is taken for the same, antonyms that are no negations ("rises", "falls") are two
words out of many, and the same thing in other words is another answer. Where answers are short or fixed in form, take another reader.
`ALIKE` is chosen so that a sentence with one out of four content words changed is another answer, and of five too.

Cost: reading 2 µs; comparing 20 µs for two sentences; 2 ms for each text of `LONGEST` characters. Of longer texts only equal ones are one answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from fairlead.answers.base import Group
from fairlead.answers.number import Number
from fairlead.answers.text import Text

ALIKE: Final = 0.82
LONGEST: Final = 10_000

_WORD: Final = re.compile(r"\d+(?:[.,]\d+){0,9}|\w+(?:['\u2019]\w+)?|[,.;:!?\n]")
_DENIALS: Final = frozenset({"no", "not", "none", "nobody", "nothing", "never", "neither", "nor", "cannot", "without"})
_COUNTED: Final = "two three four five six seven eight nine ten eleven twelve"
"""Without "one", which is mostly a pronoun."""
_SPELLED: Final = {"zero": "0"} | {word: str(n) for n, word in enumerate(_COUNTED.split(), 2)}
_FUNCTION: Final = (
    "a an the this that these those it its he she they them his her their i you we my your our is are was were be been being am do does did"
    " has have had having will would can could shall should may might must of in on at to for from by with as into than then there here"
    " and or but so if because which who whom whose what when where how also just very really about one answer s"
)
_EMPTY: Final = frozenset(_FUNCTION.split())


class _Said(NamedTuple):
    words: frozenset[str]
    numbers: frozenset[str]
    denied: tuple[str, ...]


class Free(Text):
    """Two texts are one answer if enough of their words are the same."""

    def group(self, answers: Sequence[str | None]) -> tuple[Group, ...]:
        """Part answers by who is linked to whom, be it over others."""
        different = [*dict.fromkeys(a for a in answers if a is not None)]
        said = [_said(a) if len(a) <= LONGEST else None for a in different]
        root = {a: a for a in different}
        for i, one in enumerate(said):
            for j in range(i):
                if one is not None and (other := said[j]) is not None and _alike(one, other):
                    root = {a: root[different[j]] if r == root[different[i]] else r for a, r in root.items()}
        return super().group([None if a is None else root[a] for a in answers])


def _said(text: str) -> _Said:
    """Take a text in normal form apart."""
    words: set[str] = set()
    numbers: set[str] = set()
    denied: list[str] = []
    denies = False
    for word in _WORD.findall(text):
        word = _SPELLED.get(word, word)
        if word in _DENIALS or word.endswith(("n't", "n\u2019t")):
            denied += [""] * denies
            denies = True
            continue
        if word[0].isdecimal() and (number := _NUMBER.read(word)) is not None:
            numbers.add(number)
            words.add(number)
        elif word in _EMPTY:
            continue
        elif word[0].isalnum():
            word = word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word
            words.add(word)
        else:  # the clause ends
            word = ""
        if denies:
            denied.append(word)
            denies = False
    return _Said(frozenset(words), frozenset(numbers), tuple(sorted(denied + [""] * denies)))


def _alike(one: _Said, other: _Said) -> bool:
    if one.numbers != other.numbers or one.denied != other.denied:
        return False
    both = len(one.words) + len(other.words)
    return both > 0 and 2 * len(one.words & other.words) >= ALIKE * both


_NUMBER: Final = Number()
