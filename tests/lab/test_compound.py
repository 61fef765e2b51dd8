"""Questions of several steps: answers worked out again by an evaluator of the tests' own, splits, shapes, formats."""

import re

import pytest

from fairlead.lab.compound import SHAPES, check_compound, draw_compound
from fairlead.lab.tasks import LEVELS, split_of

EXAMPLES = draw_compound(400, 11, split="test")


def worked(prompt: str) -> tuple[list[str], str]:
    """Work out a question from its text alone: every result, and the answer."""
    results: list[str] = []
    used: set[int] = set()
    for n, part in enumerate(prompt.split("; "), 1):
        number, text = part.split(") ", 1)
        assert number == str(n)
        for reference in re.findall(r"#(\d+)", text):
            used.add(int(reference))
            text = text.replace(f"#{reference}", results[int(reference) - 1])
        if sum_ := re.fullmatch(r"(\d+)([+*-])(\d+)", text):
            a, b = int(sum_[1]), int(sum_[3])
            results.append(str({"+": a + b, "-": a - b, "*": a * b}[sum_[2]]))
        else:
            operation, word = text.rsplit(" ", 1)
            left = "".join(c for c in word if c not in "aeiou") or "none"
            results.append(
                {"reverse": word[::-1], "sort letters of": "".join(sorted(word)), "drop vowels from": left}[operation]
            )
    return results, ", ".join(r for n, r in enumerate(results, 1) if n not in used)


def test_answers_are_right() -> None:
    for example in EXAMPLES:
        results, answer = worked(example.prompt)
        assert list(example.results) == results
        assert example.answer == answer
        assert example.working == "".join(f"{r};" for r in results) + ">" + answer


def test_check_takes_the_answer_alone_or_behind_its_working() -> None:
    for example in EXAMPLES[:50]:
        assert check_compound(example, example.answer)
        assert check_compound(example, example.working)
        assert not check_compound(example, example.answer + "x")
        assert not check_compound(example, example.working.removesuffix(example.answer))


def test_splits_are_disjoint_and_hold_what_their_hash_says() -> None:
    of = {split: draw_compound(300, 5, split=split) for split in ("train", "dev", "test")}
    for split, examples in of.items():
        assert {split_of(e.prompt) for e in examples} == {split}
        assert len({e.prompt for e in examples}) == 300
    assert draw_compound(20, 5) == draw_compound(20, 5) != draw_compound(20, 6)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str) -> None:
    for example in draw_compound(60, 3, shape=shape):  # type: ignore[arg-type]
        assert example.shape == shape
        assert example.parents[0] is None
        for i, parent in enumerate(example.parents):
            assert parent is None or parent < i
            assert (parent is None) == ("#" not in example.subtasks[i])
        if shape == "parallel":
            assert set(example.parents) == {None}
        if shape == "chain":
            known = [r == "none" for r in example.results]
            assert all(p == i for i, p in enumerate(example.parents[1:]) if not known[i])


@pytest.mark.parametrize("level", LEVELS)
def test_levels_and_sizes(level: int) -> None:
    mix = [float(level == other) for other in LEVELS]
    made = draw_compound(60, level, level_mix=mix, most_steps=3)
    assert {e.level for e in made} == {level}
    assert {len(e.subtasks) for e in made} <= {2, 3}
    assert max(len(e.prompt) for e in made) < 150


def test_a_level_that_is_not_there() -> None:
    from random import Random

    from fairlead.lab.compound import make_compound

    with pytest.raises(ValueError, match="1 to 5"):
        make_compound(6, Random(0))
