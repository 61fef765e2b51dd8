"""Questions asked again in other words, and questions that only look the same: what `actions/cache.py` answers from what was answered before.

Thirty-six families of questions, each with a wording, two light rewordings and two hard ones, made from templates with made-up names and
numbers. From a question of a family come *repeats* that should be answered with its answer (the same; other case, spaces and marks; a
typing error; a polite beginning; light and hard paraphrases) and *near duplicates* that must not be (another number, another name, two
names swapped, both also in lower case, negated, turned around, another thing asked for).

The threshold is chosen on 24 families: the smallest at which at most 1% of near duplicates, all kinds counted alike, are taken for repeats. The
other twelve are reported, with 95% intervals by resampling families; they were written when the anchors (`caches/anchors.py`) were done, and
nothing was changed after. All templates are by one hand, the anchors' lists of words too; real questions will differ more.

    cd benchmarks && python -m corpora.cache [--model encoder.onnx --tokenizer tokenizer.json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from corpora import Section, share
from fairlead.actions.base import Passage
from fairlead.actions.cache import Cache
from fairlead.caches.anchors import anchors, words
from fairlead.caches.base import CacheStore, Entry
from fairlead.caches.memory import Memory
from fairlead.embeddings.base import Embedder
from fairlead.embeddings.hashing import Hashing
from fairlead.plans.single import Single
from fairlead.types import Decision, Option, Outcome, Query, Signals

REPEATS = ("exact", "case and marks", "typing error", "polite", "light", "hard")
NEAR = (
    "number",
    "name",
    "names swapped",
    "name, lower case",
    "names swapped, lower case",
    "negated",
    "turned around",
    "another thing",
)
BOUND = 0.01
"""Share of near duplicates that may be answered wrongly."""
GRID = (*(round(0.70 + 0.01 * i, 2) for i in range(30)), 0.995)
PAPER = 0.92
DRAWS = 12


@dataclass(frozen=True, kw_only=True)
class Family:
    """One question: `ask` and other wordings of it; `{n}`, `{m}` numbers, `{p}`, `{q}` names, `{x}` one of `things`."""

    ask: str
    light: tuple[str, str]
    hard: tuple[str, str]
    things: tuple[str, ...]
    negated: str
    around: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question that was answered, and one that comes later."""

    family: int
    kind: str
    one: str
    two: str


def _f(ask: str, light: tuple[str, str], hard: tuple[str, str], things: str, negated: str, around: str) -> Family:
    return Family(ask=ask, light=light, hard=hard, things=tuple(things.split(", ")), negated=negated, around=around)


FAMILIES = (
    _f("How do I reset my {x}?", ("How can I reset my {x}?", "how to reset my {x}"), ("My {x} must be set back, what are the steps?", "What is the procedure for a new {x}?"), "password, router, pin, phone", "Why can I not reset my {x}?", "How do I keep my {x}?"),
    _f("Is {n} a prime number?", ("Is the number {n} prime?", "is {n} prime"), ("Tell me whether {n} has divisors other than itself.", "Check the primality of {n}."), "a", "Is {n} not a prime number?", "Is {n} a composite number?"),
    _f("What is {n} percent of {m}?", ("What's {n} percent of {m}?", "How much is {n} percent of {m}?"), ("Work out {n} percent when the whole is {m}.", "Please compute {n} percent, taking {m} as the base."), "a", "What is not {n} percent of {m}?", "What is {m} percent of {n}?"),
    _f("Did {p} pay {q} the {n} dollars?", ("Has {p} paid {q} the {n} dollars?", "did {p} pay the {n} dollars to {q}?"), ("The {n} dollars, did {p} hand them over to {q}?", "I wonder whether {p} settled the {n} dollars with {q}."), "a", "Did {p} not pay {q} the {n} dollars?", "Did {p} owe {q} the {n} dollars?"),
    _f("Which flights go from {p} to {q} on day {n}?", ("What flights go from {p} to {q} on day {n}?", "flights from {p} to {q} on day {n}"), ("I want to fly, leaving {p} and landing in {q}, on day {n}.", "List air connections starting in {p} and ending in {q}, day {n}."), "a", "Which flights do not go from {p} to {q} on day {n}?", "Which trains go from {p} to {q} on day {n}?"),
    _f("Can I take {x} before an exam?", ("May I take {x} before an exam?", "can I take {x} before exams?"), ("An exam is coming, is {x} fine before it?", "Is it safe to use {x} ahead of a test, before it begins?"), "aspirin, caffeine, vitamins, sugar", "Can I not take {x} before an exam?", "Can I take {x} after an exam?"),
    _f("Write a poem of {n} lines about {x}.", ("Write a poem about {x} with {n} lines.", "write {n} lines of poetry about {x}"), ("Compose verses on {x}, {n} lines long.", "I need {n} lines that rhyme on the subject of {x}."), "autumn, the sea, a dog, bread", "Write a poem of {n} lines but not about {x}.", "Write a story of {n} lines about {x}."),
    _f("What is the capital of {p}?", ("What's the capital of {p}?", "Which city is the capital of {p}?"), ("Name the seat of government of {p}.", "Where does the government of {p} sit?"), "a", "What is not the capital of {p}?", "What is the largest city of {p}?"),
    _f("Translate the word {x} into French.", ("Please translate the word {x} into French.", "translate {x} into French"), ("How would people in Paris or in French classes say {x}?", "What do you call {x} in French?"), "house, apple, river, window", "Do not translate the word {x} into French.", "Translate the word {x} into German."),
    _f("How do I sort a list of {x} in ascending order?", ("How can I sort a list of {x} in ascending order?", "sort list of {x} in ascending order"), ("I have a list of {x} and want the small ones at the front.", "Arrange {x} from low to high, how?"), "strings, dates, tuples, numbers", "How do I not sort a list of {x} in ascending order?", "How do I sort a list of {x} in descending order?"),
    _f("Who won the match between {p} and {q} in {n}?", ("Who has won the match between {p} and {q} in {n}?", "who won {p} against {q} in {n}?"), ("The {n} game, {p} versus {q}, had which winner?", "Name the victor when {p} met {q} in {n}."), "a", "Who did not win the match between {p} and {q} in {n}?", "Who lost the match between {p} and {q} in {n}?"),
    _f("Please turn on the {x} in room {n}.", ("Turn on the {x} in room {n}, please.", "turn the {x} in room {n} on"), ("It is dark in room {n}, I would like the {x} running.", "Room {n} needs its {x}, switch it on."), "light, heating, fan, radio", "Please do not turn on the {x} in room {n}.", "Please turn off the {x} in room {n}."),
    _f("How much does the {x} plan cost for {n} users?", ("What does the {x} plan cost for {n} users?", "cost of the {x} plan for {n} users"), ("We are {n} people and want the {x} plan, what will we be charged?", "Give me the price of {x} with {n} seats."), "basic, team, school, family", "How much does the {x} plan not cost for {n} users?", "How much does the {x} plan save for {n} users?"),
    _f("Summarise chapter {n} of the book by {p}.", ("Summarise the book by {p}, chapter {n}.", "summary of chapter {n} of the book by {p}"), ("What happens in chapter {n} of what {p} wrote?", "In short, chapter {n} by {p}, please."), "a", "Summarise the book by {p} without chapter {n}.", "Criticise chapter {n} of the book by {p}."),
    _f("Is {p} taller than {q}?", ("Is {p} really taller than {q}?", "is {p} taller than {q} is?"), ("Compare heights: does {p} exceed {q}?", "Of {p} and {q}, is the former the bigger?"), "a", "Is {p} not taller than {q}?", "Is {p} shorter than {q}?"),
    _f("How long do I boil {x} for {n} people?", ("How long should I boil {x} for {n} people?", "how long to boil {x} for {n} people"), ("Cooking {x}, {n} guests, how many minutes in the pot?", "Boiling time of {x} when {n} of us eat?"), "eggs, rice, potatoes, noodles", "How long do I not boil {x} for {n} people?", "How long do I freeze {x} for {n} people?"),
    _f("Send {n} euros from {p} to {q}.", ("Please send {n} euros from {p} to {q}.", "send {n} euros from {p} over to {q}"), ("Transfer, please: {p} gives {q} the sum of {n} euros.", "Move {n} euros out of the account of {p}, the receiver is {q}."), "a", "Do not send {n} euros from {p} to {q}.", "Request {n} euros from {p} to {q}."),
    _f("What are the side effects of {x}?", ("Which side effects does {x} have?", "side effects of {x}"), ("What unwanted reactions may {x} bring about?", "Which complaints are known among people on {x}?"), "ibuprofen, insulin, codeine, iron", "What are not the side effects of {x}?", "What are the benefits of {x}?"),
    _f("Does {p} live near {q}?", ("Is {p} living near {q}?", "does {p} live close to {q}?"), ("How far is it, is {p} a neighbour of {q}?", "Tell me if the homes of {p} and {q} are close together."), "a", "Does {p} not live near {q}?", "Does {p} live far from {q}?"),
    _f("How can I lower my {x} in {n} weeks?", ("How do I lower my {x} in {n} weeks?", "lower my {x} in {n} weeks"), ("I have {n} weeks to get my {x} to fall, any advice?", "Ways to a smaller {x} within {n} weeks?"), "weight, rent, pulse, debt", "How can I not lower my {x} in {n} weeks?", "How can I raise my {x} in {n} weeks?"),
    _f("When was {p} born?", ("When has {p} been born?", "in which year was {p} born?"), ("What is the date of birth of {p}?", "Tell me the birthday of {p}."), "a", "When was {p} not born?", "When did {p} die?"),
    _f("Cancel order {n} of customer {p}.", ("Please cancel order {n} of customer {p}.", "cancel the order {n} of customer {p}"), ("Order {n}, customer {p}, is no longer wanted.", "I would like order {n} annulled, it belongs to {p}."), "a", "Do not cancel order {n} of customer {p}.", "Confirm order {n} of customer {p}."),
    _f("Which file do I edit to enable {x}?", ("What file do I edit to enable {x}?", "which file to edit to enable {x}"), ("I want to enable {x}, where is its setting?", "Where in the config would one enable {x}?"), "logging, caching, tracing, backups", "Which file do I edit to not enable {x}?", "Which file do I edit to disable {x}?"),
    _f("Explain {x} to a child of {n} years.", ("Please explain {x} to a child of {n} years.", "explain {x} for a child of {n} years"), ("My kid is {n} and asks about {x}, what should I say?", "In words that somebody aged {n} understands: {x}."), "gravity, inflation, rainbows, magnets", "Do not explain {x} to a child of {n} years.", "Explain {x} to a professor of {n} years."),
)  # fmt: skip
HELD_BACK = (
    _f("Which bus takes me from {p} street to {q} street at {n} past?", ("What bus takes me from {p} street to {q} street at {n} past?", "which bus takes me from {p} street to {q} street, {n} past"), ("I stand in {p} street and have to be in {q} street, leaving {n} past, what do I ride?", "Bus to {q} street, I board in {p} street at {n} past the hour."), "a", "Which bus does not take me from {p} street to {q} street at {n} past?", "Which tram takes me from {p} street to {q} street at {n} past?"),
    _f("How do I merge {x} in a spreadsheet?", ("How can I merge {x} in a spreadsheet?", "how to merge {x} in a spreadsheet"), ("My sheet has several {x} that should become one.", "Joining {x} of a table, how is that done?"), "cells, rows, columns, sheets", "How do I avoid to merge {x} in a spreadsheet?", "How do I split {x} in a spreadsheet?"),
    _f("Has {p} approved the budget of {n} thousand?", ("Did {p} approve the budget of {n} thousand?", "has {p} approved a budget of {n} thousand?"), ("Is there a yes by {p} to the {n} thousand we want to spend?", "The {n} thousand, has {p} signed?"), "a", "Has {p} still not approved the budget of {n} thousand?", "Has {p} refused the budget of {n} thousand?"),
    _f("Convert {n} miles to kilometres.", ("Please convert {n} miles to kilometres.", "convert {n} miles into kilometres"), ("How many kilometres are {n} miles?", "What is the distance of {n} miles in metric units?"), "a", "Do not convert {n} miles to kilometres.", "Convert {n} kilometres to miles."),
    _f("My {x} hurts when I run, what should I do?", ("My {x} hurts when running, what should I do?", "my {x} hurts when i run what should i do"), ("Jogging gives me pain in the {x}, any advice?", "What helps against an aching {x} of a runner?"), "knee, back, ankle, hip", "My {x} never hurts when I run, what should I do?", "My {x} hurts when I rest, what should I do?"),
    _f("Did {p} write to {q} about the {x}?", ("Has {p} written to {q} about the {x}?", "did {p} write {q} about the {x}?"), ("Was there a letter concerning the {x}, from {p} and for {q}?", "About the {x}, is {q} informed by {p} in writing?"), "house, contract, wedding, loan", "Did {p} not write to {q} about the {x}?", "Did {p} lie to {q} about the {x}?"),
    _f("Give me a recipe with {x} for {n} guests.", ("Please give me a recipe with {x} for {n} guests.", "a recipe with {x} for {n} guests"), ("I am cooking for {n} and have {x}, ideas?", "What dish of {x} feeds {n} people?"), "lentils, salmon, pumpkin, mushrooms", "Give me a recipe without {x} for {n} guests.", "Give me a wine with {x} for {n} guests."),
    _f("Is it legal to record {x} in {p}?", ("Is it lawful to record {x} in {p}?", "is recording {x} legal in {p}?"), ("Does the law of {p} let me tape {x}?", "May one make recordings of {x} under the rules of {p}?"), "calls, meetings, neighbours, concerts", "Is it not legal to record {x} in {p}?", "Is it legal to publish {x} in {p}?"),
    _f("Assign ticket {n} to {p} instead of {q}.", ("Please assign ticket {n} to {p} instead of {q}.", "assign ticket {n} to {p} in place of {q}"), ("{p} should take ticket {n} over, {q} is relieved.", "Ticket {n} moves, the new owner is {p} and the former {q}."), "a", "Do not assign ticket {n} to {p} instead of {q}.", "Hide ticket {n} from {p} instead of {q}."),
    _f("Why is my {x} so loud?", ("Why is my {x} making so much noise?", "why is my {x} this loud"), ("There is a terrible noise from the {x}, what is the reason?", "What makes a {x} hum and rattle?"), "fridge, laptop, boiler, dishwasher", "Why is my {x} not so loud?", "Why is my {x} so quiet?"),
    _f("Explain the difference between {x} and glue.", ("Please explain the difference between {x} and glue.", "difference between {x} and glue"), ("Glue or {x}, in what do they differ?", "How is {x} unlike glue?"), "tape, cement, resin, paste", "Explain the difference between {x} and no glue.", "Explain the likeness between {x} and glue."),
    _f("Will {p} beat {q} by {n} points?", ("Is {p} going to beat {q} by {n} points?", "will {p} beat {q} with {n} points?"), ("A margin of {n}, {p} ahead and {q} behind, is that likely?", "Forecast: {q} is behind {p} at the end by {n} points, or what?"), "a", "Will {p} not beat {q} by {n} points?", "Will {p} trail {q} by {n} points?"),
)  # fmt: skip
ALL = (*FAMILIES, *HELD_BACK)
NAMES = tuple("Alma Boris Carla Deniz Edgar Fiona Goran Hilde Ivan Jonas Karin Lorenz Mirela Nadia Oskar Paula".split())  # noqa: SIM905 - words
POLITE = ("Please tell me: ", "Hi, ", "Could you help me? ", "Quick question. ")


def corpus(*, seed: int) -> tuple[Pair, ...]:
    """Make pairs: `DRAWS` questions of each family, and for each one of every kind that applies to it."""
    random, pairs = Random(seed), []
    for i, family in enumerate(ALL):
        for _ in range(DRAWS):
            n, m = random.sample(range(11, 99), 2)
            p, q, r = random.sample(NAMES, 3)
            x, y = random.sample(family.things, 2) if len(family.things) > 1 else (family.things[0],) * 2
            slots = {"n": n, "m": m, "p": p, "q": q, "x": x}
            one = family.ask.format(**slots)
            found = {
                "exact": one,
                "case and marks": random.choice((one.upper()[:1] + one[1:].rstrip("?.") + " ", one + "?", "  " + one)),
                "typing error": _typo(one, random, (p, q)),
                "polite": random.choice(POLITE) + one,
                "light": random.choice(family.light).format(**slots),
                "hard": random.choice(family.hard).format(**slots),
                "negated": family.negated.format(**slots),
                "turned around": family.around.format(**slots),
                "number": family.ask.format(**{**slots, "n": n + random.choice((-10, 1, 10))}),
                "name": family.ask.format(**{**slots, "p": r}),
                "names swapped": family.ask.format(**{**slots, "p": q, "q": p}) if "{q}" in family.ask else one,
                "another thing": family.ask.format(**{**slots, "x": y}),
            }
            for kind, two in found.items():
                if kind == "exact" or two != one:
                    pairs.append(Pair(family=i, kind=kind, one=one, two=two))
            for kind in ("name", "names swapped"):
                if found[kind] != one:
                    low = f"{kind}, lower case"
                    pairs.append(Pair(family=i, kind=low, one=one.lower(), two=found[kind].lower()))
    return tuple(pairs)


def _typo(text: str, random: Random, names: Sequence[str]) -> str:
    """Swap, drop or double one letter inside a word of four letters or more that is neither a number nor a name."""
    words = text.split(" ")
    places = [i for i, w in enumerate(words) if len(w) >= 4 and w.isalpha() and w not in names]
    if not places:
        return text
    i = random.choice(places)
    word, at = words[i], random.randrange(1, len(words[i]) - 2)
    words[i] = random.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[: at + 1] + word[at:],
        )
    )
    return " ".join(words)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Pairs with what was read of them: arrays over pairs."""

    kinds: tuple[str, ...]
    family_P: NDArray[np.int64]
    cosine_P: NDArray[np.float64]
    agree_P: NDArray[np.bool_]
    equal_P: NDArray[np.bool_]

    def hits(self, threshold: float | None, *, anchored: bool = True) -> NDArray[np.bool_]:
        """Which are answered with the other's answer."""
        if threshold is None:
            return self.equal_P
        like_P = self.cosine_P >= threshold
        return self.equal_P | (like_P & self.agree_P if anchored else like_P)

    def rate(self, hit_P: NDArray[np.bool_], kind: str, among_P: NDArray[np.bool_]) -> float:
        """Share of a kind's pairs that hit."""
        of_P = np.array([k == kind for k in self.kinds]) & among_P
        return float(hit_P[of_P].mean()) if of_P.any() else float("nan")

    def mean(self, hit_P: NDArray[np.bool_], kinds: Sequence[str], among_P: NDArray[np.bool_]) -> float:
        """Mean share over kinds, each counted alike."""
        rates = [self.rate(hit_P, kind, among_P) for kind in kinds]
        return float(np.nanmean(rates))


def judge(pairs: Sequence[Pair], embedder: Embedder) -> Judged:
    """Embed all texts and compare."""
    vectors = {text: embedder.embed(text) for text in {t for p in pairs for t in (p.one, p.two)}}
    return Judged(
        kinds=tuple(p.kind for p in pairs),
        family_P=np.array([p.family for p in pairs]),
        cosine_P=np.array([float(vectors[p.one] @ vectors[p.two]) for p in pairs]),
        agree_P=np.array([agree(p.one, p.two) for p in pairs]),
        equal_P=np.array([p.one == p.two for p in pairs]),
    )


def agree(one: str, two: str) -> bool:
    """Whether two texts may stand for each other, as far as `actions/cache.py` looks at them beside their likeness."""
    (bag, order), (other_bag, other_order) = words(one), words(two)
    return anchors(one) == anchors(two) and (bag != other_bag or order == other_order)


def chosen(read: Judged, among_P: NDArray[np.bool_], *, anchored: bool = True) -> float | None:
    """The smallest threshold that keeps the bound on `among_P`; None: none does."""
    for threshold in GRID:
        if read.mean(read.hits(threshold, anchored=anchored), NEAR, among_P) <= BOUND:
            return threshold
    return None


def interval(
    read: Judged, hit_P: NDArray[np.bool_], kinds: Sequence[str], among_P: NDArray[np.bool_], seed: int
) -> str:
    """Share of hits with its 95% interval by resampling families, in percent; all kinds count alike. Equality leaves nothing to chance: no interval."""
    of_PK = np.array([[kind == k for k in kinds] for kind in read.kinds])[among_P]
    found = share(of_PK & hit_P[among_P, None], read.family_P[among_P].tolist(), of_QK=of_PK, seed=seed)
    if np.array_equal(hit_P, read.equal_P) or tuple(kinds) == ("exact",):
        return f"{100 * found.value:.1f}"
    return f"{100 * found.value:.1f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def measure(*, data: Path | None = None, seed: int = 0, embedder: Embedder | None = None) -> Section:  # noqa: ARG001 - as all have it
    """Choose the threshold on some families, and report on those held back. `data` is not needed: everything is made here."""
    embedder = embedder or Hashing()
    pairs = corpus(seed=seed)
    read = judge(pairs, embedder)
    train, test = range(len(FAMILIES)), range(len(FAMILIES), len(ALL))
    train_P = np.isin(read.family_P, train)
    best, bare = chosen(read, train_P), chosen(read, train_P, anchored=False)
    arms = {
        "exact only": read.hits(None),
        f"cosine {PAPER}": read.hits(PAPER, anchored=False),
        f"cosine {PAPER}, anchors": read.hits(PAPER),
        f"chosen cosine alone ({bare})": read.hits(bare, anchored=False),
        f"chosen with anchors ({best})": read.hits(best),
    }
    rows: list[tuple[str | float | int | None, ...]] = []
    for kind in (*REPEATS, "all repeats", *NEAR, "all near duplicates"):
        kinds = {"all repeats": REPEATS, "all near duplicates": NEAR}.get(kind, (kind,))
        count = sum(p.kind in kinds and p.family in test for p in pairs)
        right = "yes" if kinds[0] in REPEATS else "no"
        rows.append((kind, right, count, *(interval(read, hit_P, kinds, ~train_P, seed) for hit_P in arms.values())))
    test_P = ~train_P
    false_chosen = read.mean(arms[f"chosen with anchors ({best})"], NEAR, test_P)
    marks = {
        "exact repeats are always answered": read.rate(arms["exact only"], "exact", test_P) == 1.0,
        "nothing else is answered without `similar`": read.mean(arms["exact only"], NEAR, test_P) == 0.0,
        # What the threshold was chosen by, before anything was held against the other families.
        "at the chosen threshold at most 1% of near duplicates are answered wrongly": false_chosen <= BOUND,
        "anchors take away most false hits at the same cosine": read.mean(read.hits(PAPER), NEAR, test_P)
        <= 0.5 * read.mean(read.hits(PAPER, anchored=False), NEAR, test_P),
    }
    verdict = (
        f"at the chosen threshold {100 * false_chosen:.1f}% of near duplicates are answered wrongly on families that it was not chosen on"
        f" (bound {100 * BOUND:.0f}%): {'it holds' if false_chosen <= BOUND else 'it does not hold, so exact only is recommended'}"
    )
    return Section(
        name=f"semantic cache, {embedder.type_name()}",
        setting=(
            f"{len(pairs)} pairs from {len(ALL)} families, threshold chosen on {len(train)}, the others reported; seed {seed}; share "
            "answered with the other's answer in percent, [95% interval by resampling families]; all kinds counted alike in sums"
        ),
        columns=("pairs", "should be answered", "pairs of it", *arms),
        rows=tuple(rows),
        marks=marks,
        notes=(verdict, *timings(seed=seed)),
    )


# ------------------------------------------------------------------------------------------------------------- timings


def timings(*, seed: int) -> tuple[str, ...]:
    """Microseconds in the event loop, medians."""
    return asyncio.run(_timings(seed))


async def _timings(seed: int) -> tuple[str, ...]:
    notes = []
    rng = np.random.default_rng(seed)
    for entries in (1_000, 10_000):
        store = Memory(max_entries=20_000)
        await _fill(store, entries, rng)
        look = rng.normal(size=128).astype(np.float32)
        look /= np.linalg.norm(look)
        await store.near(b"p", look, 0.99)
        took = await _median(partial(store.near, b"p", look, 0.99), 200)
        notes.append(f"a look among {entries} like entries in memory: {took:.0f} us")
        await store.stop()
    for similar in (None, 0.98):
        notes.append(await _through(similar))
    return tuple(notes)


async def _through(similar: float | None) -> str:
    """Time the whole action, less what lies behind it."""
    cache, text, n = Cache(similar=similar), "What would a careful person do about it, and why? " * 6, 0
    await cache.start()

    async def answer(_: Passage) -> Outcome:
        return Outcome(text=text, target="small", finish="stop")

    async def once(fresh: bool) -> Outcome:
        nonlocal n
        n += fresh
        return await cache.act(_passage(f"{text} {n}"), answer)

    await once(True)
    hit, miss = await _median(lambda: once(False), 500), await _median(lambda: once(True), 500)
    plain = await _median(lambda: answer(_passage(text)), 500)
    await cache.stop()
    what = "exact" if similar is None else "similar"
    return f"{what}: a hit {hit - plain:.0f} us, a miss that is kept {miss - plain:.0f} us (300 characters, memory)"


async def _fill(store: CacheStore, entries: int, rng: np.random.Generator) -> None:
    await store.start()
    for i in range(entries):
        v = rng.normal(size=128).astype(np.float32)
        v /= np.linalg.norm(v)
        entry = Entry(id=str(i), at=0.0, target="t", text="x")
        await store.put(
            store.key(b"%d" % i), entry, seconds=1e6, groups=(b"g" * 16,), partition=b"p", vector=v.tobytes()
        )


async def _median(work: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        start = perf_counter()
        await work()  # type: ignore[misc]
        took.append(perf_counter() - start)
    return 1e6 * float(np.median(took))


def _passage(text: str) -> Passage:
    plan = Single(target="small")
    decision = Decision(options=(Option(plan=plan, probability=1.0),), chosen=0, propensity=1.0, eligible=("small",))
    return Passage(query=Query.ask(text, temperature=0), signals=Signals(), decision=decision, plan=plan, sink=None)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a sentence encoder in ONNX form, in place of hashed n-grams")
    parser.add_argument("--tokenizer", help="its tokenizer.json")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    embedder: Embedder = Hashing()
    if args.model:
        from fairlead.embeddings.onnx import Onnx

        embedder = Onnx(model=args.model, tokenizer=args.tokenizer)
    data = os.environ.get("FAIRLEAD_DATA")
    section = measure(data=Path(data) if data else None, seed=args.seed, embedder=embedder)
    print(f"{section.name}: {section.setting}\n")
    print(" | ".join(section.columns))
    for row in section.rows:
        print(" | ".join(map(str, row)))
    print(*section.notes, *(f"{'ok' if ok else 'MISSED'}: {mark}" for mark, ok in section.marks.items()), sep="\n")


if __name__ == "__main__":
    main()
