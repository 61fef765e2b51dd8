"""A corpus to look things up in, made by rule, on which no single way to search is best: for the plan `retrieve` and the predictor `pilots`.

Four data sets of documents, each with the queries that are mostly asked of it:

    people   who is who, by long made-up names         names misspelt                      best found by character trigrams
    topics   notes of compounds of a few small words   some of its words, in other order   best found by words
    callers  a list of callers by short names          names written as they are heard     best found by sounds
    stock    things with part numbers                  the number, separated differently   best found by digits

Three queries in ten are asked of a data set in another's manner, or plainly; and the words around a query are shared in part. So neither its data set
nor its wording says for sure who finds it: the oracle by query stays above every router. Each query has one document that it is about.

Choices that matter:

* **Splits are disjoint by construction.** A CRC-32 of a document's id names the split of the queries about it (one bucket in ten is "test", one is
  "dev", eight are "train"), so that no query of a split is about a document that another split asks for. All documents are in the index always.
* The same seed gives the same queries; the documents are always the same.

Cost: about 20 microseconds a query, and 0.3 ms for the four experts to look for it. Ours, no paper.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from math import log2
from typing import Any, Final, NamedTuple

from fairlead.lab.tasks import Split
from fairlead.plans.retrieve import Passage
from fairlead.targets.index import TERMS, Index, Lexical, search

EXPERTS: Final = ("characters", "digits", "sounds", "words")
DATASETS: Final = ("callers", "people", "stock", "topics")
DOCUMENTS: Final = 400
"""Of each data set."""
TOP: Final = 10

_TWISTED: Final = 0.3
"""Share of the queries that are not asked in their data set's own manner."""


class Lookup(NamedTuple):
    """One query, and the id of the only document that it is about."""

    query: str
    about: str
    dataset: str
    manner: str
    """How it is asked: misspelt, reordered, heard, separated, plain or thing."""


class _Made(NamedTuple):
    id: str
    dataset: str
    text: str
    name: str
    """What it is asked by: a name, some words or a number."""


# -------------------------------------------------------------------------------------------------------------- documents

_STARTS: Final = "b c d f g h j k l m n p r s t v w z br cr dr fr gl gr kr ph pl pr sc st tr th ch sh qu".split()  # noqa: SIM905
_VOWELS: Final = "a e i o u ai ea ee ie oa ou".split()  # noqa: SIM905
_ENDS: Final = "b ck d g l m n nd ng nt p r rd rn s st t x".split()  # noqa: SIM905
_HEADS: Final = "rain rein mill meal stone stain wind wend".split()  # noqa: SIM905
_TAILS: Final = "fall fell road reed word ward bank bunk".split()  # noqa: SIM905
_ROLES: Final = "clerk baker painter teacher surveyor engineer nurse printer".split()  # noqa: SIM905
_PLACES: Final = "the mill; the harbour; the north school; the old library; the town hall; the works".split("; ")  # noqa: SIM905
_THINGS: Final = "valve bearing hinge gasket filter bracket spindle coupling washer pulley".split()  # noqa: SIM905
_MATERIALS: Final = "brass steel copper nylon rubber zinc".split()  # noqa: SIM905


def _syllables(rng: random.Random, count: int) -> str:
    parts = [rng.choice(_STARTS) + rng.choice(_VOWELS) for _ in range(count)]
    return "".join(parts) + rng.choice(_ENDS)


def _person(rng: random.Random) -> tuple[str, str]:
    name = f"{_syllables(rng, 2)} {_syllables(rng, 3)}".title()
    return name, f"{name}, {rng.choice(_ROLES)} at {rng.choice(_PLACES)}."


def _caller(rng: random.Random) -> tuple[str, str]:
    name = f"{_syllables(rng, 1)} {_syllables(rng, 2)}".title()
    return name, f"{name} called about {rng.choice(_PLACES)}; call back."


def _note(rng: random.Random) -> tuple[str, str]:
    found = [rng.choice(_HEADS) + rng.choice(_TAILS) for _ in range(9)]
    return " ".join(found), f"Note on {', '.join(found[:-1])} and {found[-1]}."


def _part(rng: random.Random) -> tuple[str, str]:
    number = "".join(rng.choices("0123456789", k=9))
    shown = _separated(number, rng)
    return number, f"{rng.choice(_MATERIALS)} {rng.choice(_THINGS)}, part no. {shown}"


_MAKE: Final[dict[str, Callable[[random.Random], tuple[str, str]]]] = {
    "callers": _caller,
    "people": _person,
    "stock": _part,
    "topics": _note,
}


@cache
def _made() -> tuple[_Made, ...]:
    rng = random.Random(20)
    out: dict[str, _Made] = {}
    for dataset, make in _MAKE.items():
        for i in range(DOCUMENTS):
            name, text = make(rng)
            out[name] = _Made(id=f"{dataset}-{i:03d}", dataset=dataset, text=text, name=name)
    return tuple(out.values())


def documents() -> tuple[Passage, ...]:
    """Return the corpus."""
    return tuple(Passage(id=d.id, text=d.text) for d in _made())


def indexes() -> dict[str, Index]:
    """Return the experts, by name, as targets over the corpus."""
    return {name: Index(name=name, documents=documents(), encoder=name, top=TOP) for name in EXPERTS}


# ---------------------------------------------------------------------------------------------------------------- queries

_HEARD: Final = (
    ("ph", ("f",)), ("ck", ("k", "c")), ("qu", ("kw", "k")), ("x", ("ks", "cks")), ("sh", ("sch",)), ("th", ("t",)), ("ch", ("tch",)),
    ("ai", ("ay", "e")), ("ea", ("ee", "i")), ("ee", ("ie", "ea")), ("ie", ("ee", "y")), ("oa", ("o", "oe")), ("ou", ("u", "oo")),
    ("a", ("ah", "e")), ("e", ("i", "ea")), ("i", ("y", "e")), ("o", ("oh", "au")), ("u", ("oo", "ou")),
    ("c", ("k",)), ("k", ("c", "ck")), ("s", ("z", "ss")), ("z", ("s",)), ("f", ("ph", "v")), ("v", ("f",)), ("g", ("j", "gg")), ("j", ("g",)),
    ("d", ("t", "dd")), ("t", ("tt", "d")), ("b", ("p", "bb")), ("p", ("b", "pp")), ("m", ("n", "mm")), ("n", ("nn", "m")), ("l", ("ll",)), ("r", ("rr",)),
)  # fmt: skip
"""How pieces of a name are written by ear, longer pieces first."""


def _misspelt(name: str, rng: random.Random) -> str:
    """A slip in each word: letters swapped, one dropped, one replaced, none in a word's first place."""
    out = []
    for word in name.lower().split():
        for _ in range(1 + (len(word) > 5)):
            at = rng.randrange(1, len(word) - 1)
            kind = rng.randrange(3)
            if kind == 0:
                word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            elif kind == 1:
                word = word[:at] + word[at + 1 :]
            else:
                word = word[:at] + rng.choice("bcdfgklmnprstvz") + word[at + 1 :]
        out.append(word)
    return " ".join(out)


def _heard(name: str, rng: random.Random) -> str:
    """Each piece that can be written otherwise, mostly is."""
    out, rest = "", name.lower()
    while rest:
        for piece, others in _HEARD:
            if rest.startswith(piece):
                out += rng.choice(others) if rng.random() < 0.7 else piece
                rest = rest[len(piece) :]
                break
        else:
            out, rest = out + rest[0], rest[1:]
    return out


def _reordered(name: str, rng: random.Random) -> str:
    """About half of the words, in any order."""
    found = name.lower().split()
    return " ".join(rng.sample(found, max(1, len(found) // 2)))


def _separated(number: str, rng: random.Random) -> str:
    """The number in groups of two to four, with one kind of separator."""
    sign, out = rng.choice(" -./"), []
    while number:
        size = rng.randint(2, 4)
        out.append(number[:size])
        number = number[size:]
    return sign.join(out)


_MANNERS: Final[dict[str, Callable[[str, random.Random], str]]] = {
    "misspelt": _misspelt,
    "heard": _heard,
    "separated": _separated,
}
_OWN: Final = {"callers": "heard", "people": "misspelt", "stock": "separated", "topics": "reordered"}
_OTHER: Final = {
    "callers": ("misspelt", "plain"),
    "people": ("heard", "plain"),
    "stock": ("plain", "thing"),
    "topics": ("misspelt", "misspelt"),
}
_ROUND: Final = {
    "callers": ("who called, {}", "{} rang", "call back {}"),
    "people": ("who is {}", "what does {} do", "where does {} work"),
    "stock": ("part {}", "do we have {}", "number {}"),
    "topics": ("note about {}", "which note mentions {}", "what was it on {}"),
}
_SHARED: Final = ("find {}", "{}", "look up {}", "I need {}")


def split_of(document: str) -> Split:
    """The split of the queries about a document."""
    bucket = zlib.crc32(document.encode()) % 10
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


def _asked(made: _Made, manner: str, rng: random.Random) -> str:
    """What a query asks for, in its manner; ``thing``: by what it is and the end of its number."""
    name = made.name.lower()
    if manner == "thing":
        return f"{made.text.partition(',')[0]} ending in {name[-4:]}"
    if made.dataset == "topics":
        name = _reordered(name, rng)
    return _MANNERS[manner](name, rng) if manner in _MANNERS else name


def lookups(n: int, seed: int = 0, *, split: Split = "test") -> list[Lookup]:
    """`n` queries, no two alike, the data sets in turn. Raises `ValueError` for more than there are."""
    rng = random.Random(f"{seed} {split}")
    about = {name: [d for d in _made() if d.dataset == name and split_of(d.id) == split] for name in DATASETS}
    seen: set[str] = set()
    out: list[Lookup] = []
    for _ in range(100 * n):
        if len(out) == n:
            break
        dataset = DATASETS[len(out) % len(DATASETS)]
        made = rng.choice(about[dataset])
        manner = rng.choice(_OTHER[dataset]) if rng.random() < _TWISTED else _OWN[dataset]
        asked = _asked(made, manner, rng)
        query = rng.choice(_SHARED if rng.random() < 0.3 else _ROUND[dataset]).format(asked)
        if query not in seen:
            seen.add(query)
            out.append(Lookup(query=query, about=made.id, dataset=dataset, manner=manner))
    if len(out) < n:
        raise ValueError(f"there are fewer than {n} queries of the split {split!r}; ask for less")
    return out


def ndcg(found: Sequence[str], about: str, *, top: int = TOP) -> float:
    """Normalised discounted cumulative gain at `top`, of the ids found where one is relevant: 1 / log2(1 + rank), 0 beyond."""
    return 1.0 / log2(2 + found.index(about)) if about in found[:top] else 0.0


@cache
def searchers() -> dict[str, Lexical]:
    """Return the experts by name, each with the whole corpus."""
    """Return what each expert searches the corpus with."""
    texts = [d.text for d in documents()]
    return {name: Lexical(texts, TERMS[name]) for name in EXPERTS}


def retrieval_table(n: int, seed: int = 0, *, split: Split = "test") -> list[dict[str, Any]]:
    """Rows of an outcome table: how well each expert finds what each query is about, as nDCG@10. Looking costs nothing."""
    corpus, experts = documents(), searchers()
    rows: list[dict[str, Any]] = []
    for number, lookup in enumerate(lookups(n, seed, split=split)):
        for name in EXPERTS:
            found = search(corpus, experts[name], lookup.query, TOP)
            rows.append(
                {
                    "query_id": f"lookup-{seed}-{number:06d}",
                    "dataset": lookup.dataset,
                    "domain": "retrieval",
                    "prompt": lookup.query,
                    "split": split,
                    "model": name,
                    "quality": ndcg([p.id for p in found], lookup.about),
                    "cost_usd": 0.0,
                    "about": lookup.about,
                    "manner": lookup.manner,
                }
            )
    return rows
