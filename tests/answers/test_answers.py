import pytest

from fairlead.answers.base import extract


@pytest.mark.parametrize(
    ("how", "text", "answer"),
    [
        ("text", "  Paris \n is the\tcapital. ", "paris is the capital"),
        ("text", " \n", None),
        ("last_line", "Let me think.\n\nParis\n", "paris"),
        ("last_line", "", None),
        ("number", "so 3 + 4 = 1,000", "1000"),
        ("number", "1000.0", "1000"),
        ("number", "It costs $12.50.", "12.5"),
        ("number", "-7 degrees", "-7"),
        ("number", "x = \u22125", "-5"),
        ("number", "\u22121/2", "-0.5"),
        ("number", "10\u22125", "5"),
        ("number", "10-5", "5"),
        ("number", ".5", "0.5"),
        ("number", "0.000", "0"),
        ("number", "42%", "42"),
        ("number", "42km", "42"),
        ("number", "none", None),
        ("choice", "The answer is (B).", "B"),
        ("choice", "**Answer: C**", "C"),
        ("choice", "A dog? No: D", "D"),
        ("choice", "I think it's E.", "E"),
        ("choice", "Answer: D, though A is close", "D"),
        ("choice", "the answer is a dog", None),
        ("choice", "F", None),
        ("choice", "I cannot answer. A reliable source is needed.", None),
        ("choice", "To answer A user properly, ask again", None),
        ("choice", "Answer: none of these. E.g. C++ is none", None),
        ("choice", "**Answer**: A", "A"),
        ("choice", "A is right", "A"),
    ],
)
def test_extract(how: str, text: str, answer: str | None) -> None:
    assert extract(text, how) == answer
