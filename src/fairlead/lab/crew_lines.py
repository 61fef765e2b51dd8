"""What the crew learns from: questions with their working, the pool's own answers with verdicts on them, and the turns of a router. No torch here.

    lab-step, lab-steps   question -> its working (90%), or the answer at once
    lab-judge             35% `VERIFY` (half of the candidates right), 25% `PICK` (a right one is always there), 40% `MERGE`
    lab-router            `ROUNDS` (one turn of an episode that goes well), `AGENTS`, `RATE`, in the shares that the recipe says

Candidates are what the pool said to training prompts, greedy and at temperature 0.8, else right answers with one letter or digit changed; so the
judge learns the mistakes that it will see. `AGENTS` names the models that were right: `lab-small` if it was and two of the better ones were, else the
specialist, with `lab-large` where fewer than two were. `RATE` is Easy if the specialist and `lab-small` were right, Hard if the specialist was not.

Prompts come from `fairlead.lab.crew`, so training and use cannot differ. Ours, no paper. Cost: 250 s on one core for the answers to 9,000 prompts; 10 to
40 us a line after that.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from fairlead.lab.compound import LONGEST, SHAPES, Compound, ShapeName, make_compound
from fairlead.lab.crew import AGENTS, MERGE, PICK, RATE, ROUNDS, VERIFY
from fairlead.lab.pool import TARGETS, load
from fairlead.lab.shapes import Mode
from fairlead.lab.tasks import LEVELS, Field, Split, draw, final_answer, split_of
from fairlead.plans.prompts import Prompt

LONGEST_ANSWER: Final = 60
"""Characters of a candidate that the judge is shown in training."""
_BETTER: Final = ("lab-numbers-scratch", "lab-numbers", "lab-text", "lab-large")


class Row(msgspec.Struct, frozen=True):
    """A prompt of the fourteen tasks, and what the pool said to it: by target, the greedy answer and two drawn ones."""

    prompt: str
    answer: str
    task: str
    level: int
    field: Field
    said: dict[str, tuple[str, ...]]

    def right(self, target: str) -> bool:
        """Whether a target's greedy answer was right; no, if it was not asked."""
        return self.said.get(target, ("",))[0] == self.answer


class Sample(NamedTuple):
    """One thing to learn: what to say to a prompt."""

    prompt: str
    answer: str
    mode: Mode = "direct"


# ---------------------------------------------------------------------------------------------------- the pool's answers


def pool_answers(n: int, seed: int, *, split: Split = "train") -> Iterator[Row]:
    """Ask the pool; the specialists every fourth prompt of the other field only, which they do not know."""
    for i, example in enumerate(draw(n, seed, split=split)):
        said = {}
        for target in TARGETS:
            other = {"lab-numbers": "text", "lab-text": "numbers"}.get(target.model)
            if other == example.field and i % 4:
                continue
            model = load(target.model)
            greedy = model.generate(example.prompt, mode=target.mode)
            drawn = model.generate(example.prompt, mode=target.mode, n=2, temperature=0.8, seed=i)
            said[target.name] = tuple(final_answer(done.text) for done in (*greedy, *drawn))
        yield Row(example.prompt, example.answer, example.task, example.level, example.field, said)


def write_rows(path: Path, rows: Iterator[Row]) -> None:
    """Write answers as JSON lines, in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")
    partial.replace(path)


def read_rows(path: Path) -> list[Row]:
    """Read answers."""
    return [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines()]


# --------------------------------------------------------------------------------------------------- questions of steps


def step_sample(rng: Random, level_weights: Sequence[float], *, split: Split = "train") -> Sample:
    """Draw a question of several steps with its working, or, one time in ten, with its answer alone."""
    question = _compound(rng, rng.choices(LEVELS, level_weights)[0], split)
    if rng.random() < 0.9:
        return Sample(question.prompt, question.working, "scratch")
    return Sample(question.prompt, question.answer)


def _compound(
    rng: Random, level: int, split: Split, *, most_steps: int = 5, shapes: Sequence[ShapeName] = SHAPES
) -> Compound:
    while True:
        made = make_compound(level, rng, shape=rng.choice(shapes), most_steps=most_steps)
        if split_of(made.prompt) == split and len(made.prompt) < LONGEST:
            return made


# ------------------------------------------------------------------------------------------------------------- verdicts


def judge_sample(rng: Random, rows: Sequence[Row]) -> Sample:
    """Draw something to judge."""
    row, kind = rng.choice(rows), rng.random()
    if kind < 0.35:
        shown = candidate(rng, row, right=0.5)
        return Sample(ask(VERIFY, question=row.prompt, answer=shown), "yes" if shown == row.answer else "no")
    n = rng.randint(2, 4)
    if rng.random() < 0.6:
        found = [rng.choice(rng.choice(list(row.said.values())))[:LONGEST_ANSWER] for _ in range(n)]
    else:
        found = [candidate(rng, row, right=0.5) for _ in range(n)]
    if kind < 0.6:
        if row.answer not in found:
            found[rng.randrange(n)] = row.answer
        return Sample(ask(PICK, question=row.prompt, answers=tuple(found)), str(found.index(row.answer) + 1))
    return Sample(ask(MERGE, question=row.prompt, answers=tuple(found)), row.answer)


def near_miss_sample(rng: Random, rows: Sequence[Row]) -> Sample:
    """Draw something to judge where the wrong answers are nearly right, and the right one stands anywhere."""
    row, kind = rng.choice(rows), rng.random()
    if kind < 0.45:
        drawn = rng.random()
        wrong = spoilt(rng, row.answer) if drawn < 0.75 else candidate(rng, row, right=0.0)
        shown = row.answer if drawn < 0.5 else wrong
        return Sample(ask(VERIFY, question=row.prompt, answer=shown), "yes" if shown == row.answer else "no")
    n = rng.randint(2, 4)
    given = list(
        dict.fromkeys(a for each in row.said.values() for a in each if a != row.answer and len(a) < LONGEST_ANSWER)
    )
    rng.shuffle(given)
    wrong_ones = [given.pop() if given and rng.random() < 0.7 else spoilt(rng, row.answer) for _ in range(n - 1)]
    found = [*wrong_ones, row.answer]
    if kind >= 0.72 and rng.random() >= 0.8:
        found[-1] = spoilt(rng, row.answer)
    if kind >= 0.72 and rng.random() < 0.3:
        found = [rng.choice(rng.choice(list(row.said.values())))[:LONGEST_ANSWER] for _ in range(n)]
    rng.shuffle(found)
    if kind < 0.72:
        return Sample(ask(PICK, question=row.prompt, answers=tuple(found)), str(found.index(row.answer) + 1))
    return Sample(ask(MERGE, question=row.prompt, answers=tuple(found)), row.answer)


def candidate(rng: Random, row: Row, *, right: float) -> str:
    """Draw an answer that is right so often, else one that some model gave, or a right one that was spoilt."""
    if rng.random() < right:
        return row.answer
    given = [a for each in row.said.values() for a in each if a != row.answer and len(a) < LONGEST_ANSWER]
    if given and rng.random() < 0.7:
        return rng.choice(given)
    return spoilt(rng, row.answer)


def spoilt(rng: Random, answer: str) -> str:
    """Return an answer with one character changed, lost, doubled, or swapped with its neighbour; never the answer itself."""
    if not answer:
        return "x"
    kind, i = rng.random(), rng.randrange(len(answer))
    before, here, after = answer[:i], answer[i], answer[i + 1 :]
    if here.isdigit():
        return before + rng.choice([d for d in "0123456789" if d != here]) + after
    if kind < 0.35 and len(answer) > 2:
        made = before + after
    elif kind < 0.6 and len(answer) > 2:
        letters, j = list(answer), (i + 1) % len(answer)
        letters[i], letters[j] = letters[j], letters[i]
        made = "".join(letters)
    elif kind < 0.8:
        made = before + rng.choice("abcdefghijklmnopqrstuvwxyz") + after
    else:
        made = before + here + here + after
    return made if made != answer else answer + "x"


# ---------------------------------------------------------------------------------------------------------------- turns


def router_sample(
    rng: Random, rows: Sequence[Row], *, turns: float, shapes: Sequence[ShapeName] = SHAPES, split: Split = "train"
) -> Sample:
    """Draw a turn of an episode, so often, else a prompt to name agents for or to rate."""
    if rng.random() < turns:
        return rng.choice(episode(_compound(rng, rng.choice(LEVELS), split, most_steps=3, shapes=shapes)))
    row = rng.choice(rows)
    if rng.random() < 0.5:
        return Sample(ask(AGENTS, question=row.prompt), agents_of(row))
    return Sample(ask(RATE, question=row.prompt), rate_of(row))


def episode(question: Compound) -> list[Sample]:
    """Return the turns of an episode that goes well: what the router has seen by then, and what it is to say."""
    seen, out = "", []
    for i, result in enumerate(question.results):
        text = question.subtasks[i]
        parent = question.parents[i]
        if parent is not None:
            text = text.replace(f"#{parent + 1}", question.results[parent])
        expert = "lab-numbers" if text[0].isdigit() else "lab-text"
        said = f"<think>part {i + 1}</think><search>{expert}:{text}</search>"
        out.append(Sample(ask(ROUNDS, question=question.prompt, transcript=seen.strip()), said))
        seen += f"{said} <information>{result}</information> "
    said = f"<think>done</think><answer>{question.answer}</answer>"
    return [*out, Sample(ask(ROUNDS, question=question.prompt, transcript=seen.strip()), said)]


def agents_of(row: Row) -> str:
    """Return the reply that names who should answer."""
    right = sum(row.right(name) for name in _BETTER)
    specialist = "lab-numbers-scratch" if row.field == "numbers" else "lab-text"
    if right < 2:
        names = f"{specialist}, lab-large"
    else:
        names = "lab-small" if row.right("lab-small") else specialist
    return f"<reason>{row.field}</reason><agents>{names}</agents>"


def rate_of(row: Row) -> str:
    """Return how hard a prompt is: Easy, Medium or Hard."""
    if not row.right(f"lab-{row.field}"):
        return "Hard"
    return "Easy" if row.right("lab-small") else "Medium"


def ask(prompt: Prompt, **fields: Any) -> str:
    """Return the text that a model of the lab reads when it is asked with a prompt."""
    (message,) = prompt.messages(fields)
    return message.text.strip()
