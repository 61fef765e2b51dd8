"""The tasks: exact answers, disjoint splits, reproducible draws."""

import random
import re
from collections import Counter

import pytest

from fairlead.lab.tasks import LEVELS, TASKS, check, draw, field_of, final_answer, make, split_of, tasks_of

CELLS = [(task, level) for task in TASKS for level in LEVELS]


@pytest.mark.parametrize(("task", "level"), CELLS)
def test_prompts_are_short_printable_lines_with_room_for_the_answer(task: str, level: int) -> None:
    rng = random.Random(1)
    for _ in range(50):
        example = make(task, level, rng)
        for text in (example.prompt, example.answer, example.scratch_answer or ""):
            assert all(32 <= ord(character) <= 125 for character in text)
        assert example.answer
        longest = max(len(example.answer), len(example.scratch_answer or ""))
        assert len(example.prompt) + longest + 3 <= 256
        assert check(example, example.answer)
        assert example.scratch_answer is None or check(example, example.scratch_answer)
        assert not check(example, example.answer + "x")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def test_answers_of_sums_products_and_comparisons_are_right() -> None:
    for example in draw(600, 3, tasks=("add", "subtract", "multiply", "compare"), level_mix=(1, 1, 1, 1, 1)):
        numbers = _numbers(example.prompt)
        if example.task == "compare":
            largest = any(word in example.prompt for word in ("larger", "max", "largest", "biggest"))
            expected = max(numbers) if largest else min(numbers)
        elif example.task == "add":
            expected = sum(numbers)
        elif example.task == "subtract":
            expected = abs(numbers[0] - numbers[1])
        else:
            expected = numbers[0] * numbers[1]
        assert example.answer == str(expected)


def test_answers_of_text_tasks_are_right() -> None:
    for example in draw(900, 4, tasks=tasks_of("text"), level_mix=(1, 1, 1, 1, 1)):
        words = re.findall(r"[a-z]+", example.prompt)
        if example.task == "reverse":
            assert example.answer[::-1] in words
        elif example.task == "sort_letters":
            assert sorted(example.answer) == list(example.answer)
            assert any(sorted(word) == list(example.answer) for word in words)
        elif example.task == "look_up":
            assert re.search(rf"\b{example.answer}\b", example.prompt)
        elif example.task == "copy":
            assert example.prompt.endswith(example.answer)
        elif example.task == "count_letters":
            letter, word = re.search(r"\b([a-z]) (?:is )?in ([a-z]+)", example.prompt).groups()  # type: ignore[union-attr]
            count = word.count(letter)
            assert example.answer == (f"{letter * count} {count}" if count else "0")


def test_every_step_of_scratch_work_is_right() -> None:
    for example in draw(600, 5, tasks=("multiply", "word_problem"), level_mix=(1, 1, 1, 1, 1)):
        assert example.scratch_answer is not None
        work, _, answer = example.scratch_answer.partition(">")
        assert answer == example.answer
        for step in work.split():
            left, _, right = step.partition("=")
            assert eval(left) == int(right)


def test_the_split_is_a_property_of_the_prompt() -> None:
    drawn = {split: draw(1500, 7, split=split) for split in ("train", "dev", "test")}
    for split, examples in drawn.items():
        assert {split_of(example.prompt) for example in examples} == {split}
    assert not {e.prompt for e in drawn["train"]} & {e.prompt for e in drawn["test"]}


def test_every_cell_has_enough_distinct_test_prompts() -> None:
    for task, level in CELLS:
        only = [float(level == other) for other in LEVELS]
        examples = draw(60, 8, split="test", tasks=[task], level_mix=only)
        assert len({example.prompt for example in examples}) == 60


def test_draw_repeats_itself_mixes_levels_and_leaves_out_what_is_excluded() -> None:
    first = draw(1000, 9, split="test")
    assert first == draw(1000, 9, split="test")
    assert first != draw(1000, 10, split="test")
    assert len({example.prompt for example in first}) == 1000
    levels = Counter(example.level for example in first)
    # Standard error of a share near .3 at n = 1000 is .0145.
    assert abs(levels[1] / 1000 - 0.30) < 0.06
    assert {example.task for example in first} == set(TASKS)
    assert all(example.field == field_of(example.task) for example in first)
    without = frozenset(example.prompt for example in first)
    assert not without & {example.prompt for example in draw(1000, 9, split="test", exclude=without)}


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown task 'divide'"):
        draw(1, 0, tasks=["divide"])
    with pytest.raises(ValueError, match="level is 6"):
        make("add", 6, random.Random(0))
    with pytest.raises(ValueError, match="five weights"):
        draw(1, 0, level_mix=(1, 1))


def test_the_final_answer_follows_the_scratch_work() -> None:
    assert final_answer("32>23") == "23"
    assert final_answer(" 23 ") == "23"
