"""Synthetic tasks with one exact answer each: what the lab's models learn and are judged on.

Fourteen tasks in two fields, "numbers" (add, subtract, multiply, compare, sort_digits,
convert, word_problem) and "text" (copy, reverse, count_letters, look_up, sort_letters,
nth_letter, drop_vowels), each with several phrasings and five levels.  The level is the
dial of difficulty: digits, length, or number of steps.  Ours, no paper.

Choices that matter:

* **Splits are disjoint by construction.**  A prompt belongs to the split that a CRC-32 of its
  text names (one bucket in ten is "test", one is "dev", eight are "train"), so a training run
  can never see a test prompt, whatever its seed.  The same operands may still occur in training
  under another phrasing.
* **Answers that say what they are about.**  Look-up answers `key=value` and counting answers the
  letters found and then their number (`aaa 3`): both are learnt in minutes this way and not at
  all otherwise by models of this size.  The whole string is judged.
* **Scratch answers.**  Some numbers tasks have a second form that works before it answers:
  sums with digits reversed, products and word problems by steps, then `>`, then the answer.
* **A few prompts nobody can do.**  Level 5 of `multiply` (three digits by two), for example, is
  beyond these models without scratch; a pool needs some prompts that every model fails.

Cost: about 10 microseconds a prompt.
"""

import random
import zlib
from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal, NamedTuple

Field = Literal["numbers", "text"]
Split = Literal["train", "dev", "test"]

LEVELS: Final = (1, 2, 3, 4, 5)
LEVEL_MIX: Final = (0.27, 0.20, 0.16, 0.12, 0.25)

_BUCKETS: Final = 10
# Tries at a prompt that is not yet drawn before a repeat is accepted: a few level-1 cells
# have only about a hundred test prompts.
_PATIENCE: Final = 400


class Example(NamedTuple):
    """One prompt and its only right answer."""

    prompt: str
    answer: str
    scratch_answer: str | None
    task: str
    field: Field
    level: int


class _Made(NamedTuple):
    prompt: str
    answer: str
    scratch: str | None = None


def _number(rng: random.Random, digits: int) -> int:
    """A number of exactly this many digits (one digit: 1 to 9)."""
    return rng.randrange(10 ** (digits - 1), 10**digits)


_SYLLABLE_STARTS: Final = (
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "st",
    "tr",
)
_VOWELS: Final = "aeiou"
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def _word(rng: random.Random, length: int) -> str:
    """Half the time a pronounceable word, half the time random letters."""
    if rng.random() < 0.5:
        return "".join(rng.choices(_LETTERS, k=length))
    parts: list[str] = []
    size = 0
    while size < length:
        part = rng.choice(_SYLLABLE_STARTS) + rng.choice(_VOWELS)
        parts.append(part)
        size += len(part)
    return "".join(parts)[:length]


def _add(level: int, rng: random.Random) -> _Made:
    digits = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 4))[level - 1]
    first, second = _number(rng, rng.choice(digits)), _number(rng, digits[-1])
    if level == 1:
        second = rng.randrange(1, 40)
    if rng.random() < 0.5:
        first, second = second, first
    form = rng.choice(
        ("{}+{}", "{} + {}", "{}+{}=", "what is {}+{}?", "add {} and {}", "{} plus {}", "sum of {} and {}")
    )
    answer = str(first + second)
    return _Made(form.format(first, second), answer, f"{answer[::-1]}>{answer}")


def _subtract(level: int, rng: random.Random) -> _Made:
    digits = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 4))[level - 1]
    first, second = _number(rng, rng.choice(digits)), _number(rng, digits[-1])
    if level == 1:
        first, second = rng.randrange(2, 30), rng.randrange(1, 10)
    if first < second:
        first, second = second, first
    form, turned = rng.choice(
        (
            ("{}-{}", False),
            ("{} - {}", False),
            ("{}-{}=", False),
            ("what is {}-{}?", False),
            ("{} minus {}", False),
            ("take {} from {}", True),
            ("subtract {} from {}", True),
        )
    )
    answer = str(first - second)
    prompt = form.format(second, first) if turned else form.format(first, second)
    return _Made(prompt, answer, f"{answer[::-1]}>{answer}")


def _product_steps(first: int, second: int) -> str:
    """`47*6` becomes `40*6=240 7*6=42>282`: one product for each digit of the first."""
    steps = []
    place = 1
    rest = first
    while rest:
        rest, digit = divmod(rest, 10)
        if digit:
            steps.append(f"{digit * place}*{second}={digit * place * second}")
        place *= 10
    return f"{' '.join(reversed(steps))}>{first * second}"


def _multiply(level: int, rng: random.Random) -> _Made:
    low, high = ((2, 12), (11, 20), (11, 50), (21, 99), (11, 299))[level - 1]
    first = rng.randint(low, high)
    second = rng.randint(11, 99) if level == 5 else rng.randint(2, 12 if level == 1 else 9)
    scratch = _product_steps(first, second)
    if rng.random() < 0.5:
        first, second = second, first
    form = rng.choice(
        (
            "{}*{}",
            "{} * {}",
            "{}*{}=",
            "what is {}*{}?",
            "{} times {}",
            "multiply {} by {}",
            "product of {} and {}",
            "{} x {}",
        )
    )
    return _Made(form.format(first, second), str(first * second), scratch)


def _compare(level: int, rng: random.Random) -> _Made:
    count, digits = ((2, (1, 2)), (2, (2, 3)), (3, (1, 2)), (3, (3,)), (5, (3, 4)))[level - 1]
    numbers: list[int] = []
    while len(numbers) < count:
        number = _number(rng, rng.choice(digits))
        if numbers and level > 1 and rng.random() < 0.3:
            # A near neighbour, so that the first digit alone does not decide.
            number = max(1, numbers[-1] + rng.randint(-9, 9))
        if number not in numbers:
            numbers.append(number)
    most = rng.random() < 0.5
    listed = ", ".join(map(str, numbers))
    form = rng.choice(
        (
            "which is larger: {}" if most else "which is smaller: {}",
            "max of {}" if most else "min of {}",
            "largest of {}" if most else "smallest of {}",
            "biggest number: {}" if most else "least number: {}",
        )
    )
    return _Made(form.format(listed), str(max(numbers) if most else min(numbers)))


def _sort_digits(level: int, rng: random.Random) -> _Made:
    low, high = ((3, 4), (5, 6), (7, 8), (9, 11), (14, 20))[level - 1]
    digits = rng.choices("0123456789", k=rng.randint(low, high))
    down = rng.random() < 0.3
    form = rng.choice(
        ("sort down {}", "digits of {} high to low")
        if down
        else ("sort {}", "sort the digits {}", "digits of {} in order", "put {} in order")
    )
    return _Made(form.format("".join(digits)), "".join(sorted(digits, reverse=down)))


_UNITS: Final = (
    ("km", "m", 1000),
    ("kg", "g", 1000),
    ("m", "cm", 100),
    ("cm", "mm", 10),
    ("l", "ml", 1000),
    ("m", "mm", 1000),
)
_CONVERT_FORMS: Final = ("{} {} in {}", "convert {} {} to {}", "{} {} = ? {}", "how many {2} is {0} {1}?")


def _convert(level: int, rng: random.Random) -> _Made:
    big, small, factor = rng.choice(_UNITS)
    form = rng.choice(_CONVERT_FORMS)
    if level <= 2:
        amount = rng.randint(1, 99) if level == 1 else rng.randint(10, 999)
        return _Made(form.format(amount, big, small), f"{amount * factor} {small}")
    if level == 3:
        tenths = rng.randint(11, 999)
        shown = f"{tenths // 10}.{tenths % 10}"
        return _Made(form.format(shown, big, small), f"{tenths * factor // 10} {small}")
    if level == 4:
        whole, part = rng.randint(1, 9), rng.randint(1, 59)
        form = rng.choice(("{} h {} min in min", "convert {} h {} min to min", "how many min is {} h {} min?"))
        return _Made(
            form.format(whole, part),
            f"{60 * whole + part} min",
            f"{60 * whole}+{part}>{60 * whole + part} min",
        )
    if rng.random() < 0.3:
        seconds = rng.randint(3661, 9999)
        form = rng.choice(("{} s in h min s", "convert {} s to h, min and s"))
        minutes, rest = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        answer = f"{hours} h {minutes} min {rest} s"
        return _Made(form.format(seconds), answer, f"{3600 * hours}+{60 * minutes}+{rest}>{answer}")
    minutes = rng.randint(61, 999)
    form = rng.choice(("{} min in h and min", "convert {} min to h and min", "{} min = ? h ? min"))
    hours, rest = divmod(minutes, 60)
    return _Made(form.format(minutes), f"{hours} h {rest} min", f"{60 * hours}+{rest}>{hours} h {rest} min")


_NAMES: Final = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Ida", "Jon", "Kim", "Leo", "Mia")
_THINGS: Final = ("pens", "figs", "nuts", "eggs", "cups", "maps", "keys", "hats", "coins", "books")
_GAINS: Final = ("gets {} more", "buys {}", "finds {}")
_LOSSES: Final = ("loses {}", "gives away {}", "sells {}")


def _word_problem(level: int, rng: random.Random) -> _Made:
    steps = (1, 1, 2, 2, 4)[level - 1]
    high = (9, 20, 9, 20, 80)[level - 1]
    total = rng.randint(high // 2, high)
    pieces = [f"{rng.choice(_NAMES)} has {total} {rng.choice(_THINGS)}"]
    working = []
    for _ in range(steps):
        change = rng.randint(1, high)
        if rng.random() < 0.5 or change > total:
            pieces.append(rng.choice(_GAINS).format(change))
            working.append(f"{total}+{change}={total + change}")
            total += change
        else:
            pieces.append(rng.choice(_LOSSES).format(change))
            working.append(f"{total}-{change}={total - change}")
            total -= change
    ending = rng.choice(("how many now?", "how many?", "how many are left?"))
    return _Made(f"{', '.join(pieces)}: {ending}", str(total), f"{' '.join(working)}>{total}")


def _copy(level: int, rng: random.Random) -> _Made:
    words = [_word(rng, rng.randint(3, 7)) for _ in range((1, 2, 3, 4, 9)[level - 1])]
    phrase = " ".join(words)
    form = rng.choice(("copy {}", "repeat: {}", "say {}", "write {}", "echo {}"))
    return _Made(form.format(phrase), phrase)


def _reverse(level: int, rng: random.Random) -> _Made:
    low, high = ((3, 4), (5, 7), (8, 10), (11, 14), (20, 30))[level - 1]
    word = _word(rng, rng.randint(low, high))
    form = rng.choice(("reverse {}", "{} backwards", "spell {} backwards", "turn around {}"))
    return _Made(form.format(word), word[::-1])


def _count_letters(level: int, rng: random.Random) -> _Made:
    low, high = ((3, 5), (6, 8), (9, 11), (12, 15), (24, 36))[level - 1]
    length = rng.randint(low, high)
    letter = rng.choice(_LETTERS)
    count = min(rng.randint(0, (2, 3, 4, 5, 9)[level - 1]), length - 1)
    body = rng.choices(_LETTERS.replace(letter, ""), k=length - count) + [letter] * count
    rng.shuffle(body)
    word = "".join(body)
    form = rng.choice(("count {} in {}", "how many {} in {}?", "number of {} in {}", "how often is {} in {}?"))
    return _Made(form.format(letter, word), f"{letter * count} {count}".strip())


def _look_up(level: int, rng: random.Random) -> _Made:
    low, high = ((2, 2), (3, 3), (4, 5), (6, 7), (11, 14))[level - 1]
    size = (1, 1, 1, 2, 2)[level - 1]
    keys: list[str] = []
    wanted = rng.randint(low, high)
    while len(keys) < wanted:
        key = "".join(rng.choices(_LETTERS, k=size))
        if key not in keys:
            keys.append(key)
    values = [rng.randrange(10, 100) for _ in keys]
    at = rng.randrange(wanted)
    table = " ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
    form = rng.choice(("{0}; {1}?", "table {0}; value of {1}?", "given {0}, what is {1}?", "look up {1} in {0}"))
    return _Made(form.format(table, keys[at]), f"{keys[at]}={values[at]}")


def _sort_letters(level: int, rng: random.Random) -> _Made:
    low, high = ((3, 3), (4, 5), (6, 7), (8, 9), (15, 22))[level - 1]
    word = _word(rng, rng.randint(low, high))
    form = rng.choice(("sort {}", "sort letters of {}", "letters of {} in order", "alphabetize {}"))
    return _Made(form.format(word), "".join(sorted(word)))


_ORDINALS: Final = {1: "1st", 2: "2nd", 3: "3rd"}


def _nth_letter(level: int, rng: random.Random) -> _Made:
    low, high = ((3, 4), (5, 6), (7, 8), (9, 12), (18, 28))[level - 1]
    word = _word(rng, rng.randint(low, high))
    at = rng.randint(1, len(word))
    nth = _ORDINALS.get(at, f"{at}th")
    form = rng.choice(("letter {at} of {word}", "{nth} letter of {word}", "what is the {nth} letter in {word}?"))
    return _Made(form.format(at=at, nth=nth, word=word), word[at - 1])


def _drop_vowels(level: int, rng: random.Random) -> _Made:
    low, high = ((3, 5), (6, 8), (9, 12), (13, 17), (26, 40))[level - 1]
    word = _word(rng, rng.randint(low, high))
    kept = "".join(letter for letter in word if letter not in _VOWELS)
    form = rng.choice(("drop vowels from {}", "{} without vowels", "remove the vowels: {}", "no vowels: {}"))
    return _Made(form.format(word), kept or "none")


_Maker = Callable[[int, random.Random], _Made]

_MAKERS: Final[dict[str, tuple[Field, _Maker]]] = {
    "add": ("numbers", _add),
    "subtract": ("numbers", _subtract),
    "multiply": ("numbers", _multiply),
    "compare": ("numbers", _compare),
    "sort_digits": ("numbers", _sort_digits),
    "convert": ("numbers", _convert),
    "word_problem": ("numbers", _word_problem),
    "copy": ("text", _copy),
    "reverse": ("text", _reverse),
    "count_letters": ("text", _count_letters),
    "look_up": ("text", _look_up),
    "sort_letters": ("text", _sort_letters),
    "nth_letter": ("text", _nth_letter),
    "drop_vowels": ("text", _drop_vowels),
}

TASKS: Final = tuple(_MAKERS)


def field_of(task: str) -> Field:
    """The field a task belongs to."""
    return _maker(task)[0]


def tasks_of(field: Field) -> tuple[str, ...]:
    """The tasks of one field, in catalogue order."""
    return tuple(task for task, (its_field, _) in _MAKERS.items() if its_field == field)


def _maker(task: str) -> tuple[Field, _Maker]:
    try:
        return _MAKERS[task]
    except KeyError:
        raise ValueError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}") from None


def split_of(prompt: str) -> Split:
    """The split this prompt belongs to, by a hash of its text alone."""
    bucket = zlib.crc32(prompt.encode()) % _BUCKETS
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


def make(task: str, level: int, rng: random.Random) -> Example:
    """One example of this task and level, of whichever split its prompt falls in."""
    field, maker = _maker(task)
    if level not in LEVELS:
        raise ValueError(f"level is {level}; it must be one of 1 to 5")
    made = maker(level, rng)
    return Example(made.prompt, made.answer, made.scratch, task, field, level)


def make_in(task: str, level: int, rng: random.Random, *, split: Split) -> Example:
    """One example of this task and level whose prompt belongs to `split`."""
    while True:
        example = make(task, level, rng)
        if split_of(example.prompt) == split:
            return example


def draw(
    n: int,
    seed: int,
    *,
    split: Split = "train",
    tasks: Sequence[str] | None = None,
    level_mix: Sequence[float] = LEVEL_MIX,
    exclude: Collection[str] = frozenset(),
) -> list[Example]:
    """`n` examples with distinct prompts, the same for the same arguments.

    Tasks are drawn evenly, levels by `level_mix`, and no prompt in `exclude` is returned.
    Prompts repeat only when a cell has nothing new left after 400 tries.
    """
    if len(level_mix) != len(LEVELS) or min(level_mix) < 0 or sum(level_mix) <= 0:
        raise ValueError("level_mix needs five weights, none negative and not all zero")
    names = TASKS if tasks is None else tuple(tasks)
    for name in names:
        _maker(name)
    rng = random.Random(seed)
    seen: set[str] = set()
    examples: list[Example] = []
    while len(examples) < n:
        task = rng.choice(names)
        level = rng.choices(LEVELS, weights=level_mix)[0]
        example = None
        for _ in range(_PATIENCE):
            candidate = make_in(task, level, rng, split=split)
            if candidate.prompt in exclude:
                continue
            example = candidate
            if candidate.prompt not in seen:
                break
        if example is None:
            raise ValueError(f"every {split} prompt found for {task} at level {level} is excluded")
        seen.add(example.prompt)
        examples.append(example)
    return examples


def final_answer(text: str) -> str:
    """The answer in a completion: what follows the last `>` of a scratch text, else all of it."""
    return text.rpartition(">")[2].strip()


def check(example: Example, text: str) -> bool:
    """Whether a completion, direct or scratch, ends in exactly the right answer."""
    return final_answer(text) == example.answer
