"""Questions of several steps with one right answer each: what plans that think, plan and divide are shown on.

    1) 12+30; 2) reverse abc; 3) #1*4          the question: numbered subtasks; `#k` is the result of an earlier one
    42;cba;168;>cba, 168                       the working: every result, then `>` and the answer
    cba, 168                                   the answer: the results that no other subtask uses, in order

A subtask without `#` is phrased as one of the lab's fourteen tasks (sums, differences, products; reverse, drop vowels, sort letters), so once `#k` is
filled in, the lab's specialists can answer it by themselves. The five models of the pool were never trained on whole questions; `lab-step` and
`lab-steps` were (`fairlead.lab.crew`). Level and shape (chain, parallel, mixed) are the dials. Splits by a hash of the text, as for all tasks of
the lab. Ours, no paper. Cost: about 20 microseconds a question.
"""

import random
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from fairlead.lab.tasks import LEVELS, Split, split_of

ShapeName = Literal["chain", "parallel", "mixed"]

SHAPES: Final[tuple[ShapeName, ...]] = ("chain", "parallel", "mixed")
LONGEST: Final = 150
"""Characters that a question has at most."""
STEP_END: Final = ";"
ANSWER_MARK: Final = ">"

_HIGHEST: Final = (9, 30, 99, 300, 999)
_LENGTHS: Final = ((3, 4), (4, 5), (5, 7), (7, 9), (9, 12))
_MOST_STEPS: Final = (2, 3, 4, 4, 5)
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_VOWELS: Final = "aeiou"


class Compound(NamedTuple):
    """One question of several steps."""

    prompt: str
    answer: str
    working: str
    subtasks: tuple[str, ...]
    """As they stand in the question, with `#k` for what is not known yet."""
    parents: tuple[int | None, ...]
    """Which earlier subtask each one uses, counted from 0."""
    results: tuple[str, ...]
    level: int
    shape: ShapeName


class _Step(NamedTuple):
    text: str
    result: str


def make_compound(level: int, rng: random.Random, *, shape: ShapeName | None = None, most_steps: int = 5) -> Compound:
    """Make one question, of whichever split it falls in."""
    if level not in LEVELS:
        raise ValueError(f"level is {level}; it must be one of 1 to 5")
    count = min(most_steps, rng.randint(2, _MOST_STEPS[level - 1]))
    chosen: ShapeName = rng.choice(SHAPES) if shape is None else shape
    steps: list[_Step] = []
    parents: list[int | None] = []
    for i in range(count):
        parent: int | None = None
        if i and (chosen == "chain" or (chosen == "mixed" and rng.random() < 0.6)):
            parent = i - 1 if chosen == "chain" else rng.randrange(i)
            if steps[parent].result == "none":
                parent = None
        if parent is None:
            step = rng.choice((_number, _word))(level, rng, "", "")
        else:
            known = steps[parent].result
            step = (_number if known.isdigit() else _word)(level, rng, f"#{parent + 1}", known)
        steps.append(step)
        parents.append(parent)
    used = {p for p in parents if p is not None}
    answer = ", ".join(s.result for i, s in enumerate(steps) if i not in used)
    results = tuple(s.result for s in steps)
    return Compound(
        prompt="; ".join(f"{i}) {s.text}" for i, s in enumerate(steps, 1)),
        answer=answer,
        working=STEP_END.join(results) + STEP_END + ANSWER_MARK + answer,
        subtasks=tuple(s.text for s in steps),
        parents=tuple(parents),
        results=results,
        level=level,
        shape=chosen,
    )


def draw_compound(
    n: int,
    seed: int,
    *,
    split: Split = "train",
    level_mix: Sequence[float] = (0.2, 0.2, 0.2, 0.2, 0.2),
    shape: ShapeName | None = None,
    most_steps: int = 5,
) -> list[Compound]:
    """`n` questions with distinct prompts, the same for the same arguments."""
    rng, drawn = random.Random(seed), set[str]()
    out: list[Compound] = []
    while len(out) < n:
        made = make_compound(rng.choices(LEVELS, level_mix)[0], rng, shape=shape, most_steps=most_steps)
        if split_of(made.prompt) == split and len(made.prompt) < LONGEST and made.prompt not in drawn:
            drawn.add(made.prompt)
            out.append(made)
    return out


def check_compound(example: Compound, text: str) -> bool:
    """Whether a text ends in exactly the right answer, with the working before it or without."""
    return text.rpartition(ANSWER_MARK)[2].strip() == example.answer


def _number(level: int, rng: random.Random, reference: str, known: str) -> _Step:
    """A sum, difference or product of a number and another; the first may be an earlier result."""
    high = _HIGHEST[level - 1]
    operations = ("add", "add", "subtract", "multiply") if level < 5 else ("add", "subtract", "multiply", "add")
    operation = rng.choice(operations)
    first = int(known) if reference else rng.randint(2, high)
    shown = reference or str(first)
    if operation == "multiply":
        factor = rng.randint(2, 9 if first < 200 else 4)
        if first * factor <= 9999:
            return _Step(f"{shown}*{factor}", str(first * factor))
        operation = "subtract"
    second = rng.randint(1, high)
    if operation == "subtract" and first > 1:
        second = second if second <= first else rng.randint(1, first - 1)
        return _Step(f"{shown}-{second}", str(first - second))
    return _Step(f"{shown}+{second}", str(first + second))


def _word(level: int, rng: random.Random, reference: str, known: str) -> _Step:
    """A word turned round, sorted, or without its vowels; the word may be an earlier result."""
    word = known or "".join(rng.choices(_LETTERS, k=rng.randint(*_LENGTHS[level - 1])))
    shown = reference or word
    operation = rng.choice(("reverse", "sort letters of", "drop vowels from"))
    if operation == "reverse":
        result = word[::-1]
    elif operation == "sort letters of":
        result = "".join(sorted(word))
    else:
        result = "".join(letter for letter in word if letter not in _VOWELS) or "none"
    return _Step(f"{operation} {shown}", result)
