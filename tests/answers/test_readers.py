"""Readers of answers: what counts as one answer and what does not, on any text, within bounds."""

import re
import warnings
from collections.abc import Sequence

import pytest

from fairlead import catalog
from fairlead.answers.base import Group, Reader, extract, groups, same
from fairlead.answers.fences import fenced
from fairlead.testing import check_reader
from fairlead.types import Failure, Outcome

PYTHON = """
def f(n: int, k=2) -> int:
    \"\"\"Add up.\"\"\"
    total = 0  # so far
    for i in range(n):
        total += g(i)
    return [total for total in (total,)]
"""
RENAMED = """Sure:
```python
def f(count, step=2):
    s = 0
    for j in range( count ):
        s += g(j)
    return [x for x in (s,)]
```
It works.
"""


@pytest.mark.parametrize("name", catalog.names("answers"))
def test_contract(name: str) -> None:
    check_reader(catalog.find("answers", name), texts=(PYTHON, RENAMED))


class First(Reader):
    """Keeps every promise; those below break one each."""

    def read(self, text: str) -> str | None:
        return text[:1].casefold()[:1] or None


class Growing(First):
    def read(self, text: str) -> str | None:
        return text + "!"


class Failing(First):
    def read(self, text: str) -> str | None:
        return str(int(text)) if text[:1].isdecimal() else None


class Blank(First):
    def read(self, text: str) -> str | None:
        return text.strip()


class Agreeing(First):
    def group(self, answers: Sequence[str | None]) -> tuple[Group, ...]:
        return tuple(0 for _ in answers)


class Chained(First):
    """Compares with the one before alone."""

    def group(self, answers: Sequence[str | None]) -> tuple[Group, ...]:
        out: list[Group] = []
        last, n = None, -1
        for a in answers:
            n += a is not None and a != last
            out.append(None if a is None else n)
            last = a or last
        return tuple(out)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Growing, "as it stands"),
        (Failing, "never fails"),
        (Blank, "is None"),
        (Agreeing, "in no group"),
        (Chained, "must share a group|depend on their order"),
    ],
)
def test_the_check_finds_what_it_is_for(broken: type[Reader], says: str) -> None:
    check_reader(First)
    with pytest.raises(AssertionError, match=says):
        check_reader(broken)


# ---------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1/2", "0.5"),
        ("so it is 7/8.", "0.875"),
        ("\\frac{1}{2}", "0.5"),
        ("$-\\dfrac{3}{12}$", "-0.25"),
        ("2/6", "1/3"),
        ("10/5", "2"),
        ("1 1/2 cups", "1.5"),
        ("-1 1/2", "-1.5"),
        ("question 1 11/2", "5.5"),
        ("1/3 of 9 is 3", "3"),
        ("-0/3", "0"),
        ("1/0", "0"),
        ("1/2km", "0.5"),
        ("1/2.5", "2.5"),
        ("1/2/x", "2"),
        ("1/4,000", "4000"),
        ("1/2e5", "1"),
        ("5/10/2024", "2024"),
        ("2024/05", "404.8"),
        ("x/1/2", "2"),
        ("1.5/2", "2"),
        ("1,000/4", "4"),
        ("50%", "50"),
        ("007", "7"),
        ("1e5", None),
        ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
    ],
)
def test_simple_fractions_are_numbers(text: str, answer: str | None) -> None:
    assert extract(text, "number") == answer


def test_a_per_cent_sign_counts_for_nothing() -> None:
    assert same("1/2", "0.50", "number")
    assert not same("50%", "0.5", "number")
    assert not same("none", "none", "number"), "no answer is the same as none"


def test_only_the_end_of_a_long_text_is_read() -> None:
    assert extract("5" + " word" * 5000, "number") is None
    assert extract("word " * 50_000 + "5", "number") == "5"


def test_long_numbers_are_not_rounded() -> None:
    assert not same("9" * 40 + "1", "9" * 40 + "2", "number")


# ------------------------------------------------------------------------------------------------------------------- code


def test_programs_that_differ_in_wording_are_one_answer() -> None:
    assert extract(PYTHON, "code") == extract(RENAMED, "code")
    assert "total" not in str(extract(PYTHON, "code"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(n): return n", "def g(n): return n"),
        ("def f(a, b): return a - b", "def f(a, b): return b - a"),
        ("def f(*, key): return key", "def f(*, name): return name"),
        ("f(n=1)\ndef f(n): return n", "f(m=1)\ndef f(m): return m"),
        ("x = 1", "y = 1"),
        ("def f():\n global x\n x = 1", "def f():\n global y\n y = 1"),
        ("def f():\n x = 1\n return y", "def f():\n y = 1\n return y"),
        ("class A:\n n = 1", "class A:\n m = 1"),
        ("import numpy", "import scipy"),
        ("def f():\n import numpy as a\n return a", "def f():\n import numpy as b\n return a"),
        ("def f(x):\n def g(): return x\n return g", "def f(x):\n def g(): return y\n return g"),
        ("class A:\n n = 1\n def m(self): return n", "class A:\n k = 1\n def m(self): return k"),
        ("f(n=1)\ndef f(n): return n", "f(n=1)\ndef f(m): return m"),
        ("def f():\n import a\n a = a.b\n return a", "def f():\n import a\n c = c.b\n return c"),
        ("print('a  b')", "print('a b')"),
        ("@field\ndef f(x: int): pass", "@field\ndef f(x: str): pass"),
    ],
)
def test_programs_that_differ_in_what_they_do_are_two(one: str, other: str) -> None:
    assert not same(one, other, "code")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f():\n def g(a): return a\n return g(1)", "def f():\n def h(b): return b\n return h(1)"),
        (
            "def f(x):\n def g():\n  nonlocal x\n  x = 1\n return g",
            "def f(y):\n def h():\n  nonlocal y\n  y = 1\n return h",
        ),
        ("lambda a, b=1: a + b", "lambda x, y=1: x + y"),
        ("[i for i in a for j in i if j]", "[x for x in a for y in x if y]"),
        ("{k: v for k, v in a}", "{a: b for a, b in a}"),
        ("def f(v):\n try: pass\n except E as e: print(e)", "def f(v):\n try: pass\n except E as x: print(x)"),
        ("def f(v):\n match v:\n  case [a, *b]: return b", "def f(v):\n match v:\n  case [c, *d]: return d"),
        (
            "def f(v):\n match v:\n  case {'k': q, **r}: return r",
            "def f(v):\n match v:\n  case {'k': s, **t}: return t",
        ),
        ("class A:\n n = 1\n def m(self): return self.n", "class A:\n 'A.'\n n = 1\n def m(this): return this.n"),
        ("def f(a):\n if (n := a): return n", "def f(b):\n if (m := b): return m"),
        ("def f(a):\n 'Doc.'", "def f(b):\n pass"),
        (
            "def f():\n x = 1\n def g():\n  global x\n  return x\n return g",
            "def f():\n y = 1\n def g():\n  global x\n  return x\n return g",
        ),
        (
            "def f(n):\n class A:\n  n = 1\n  m = n\n return A",
            "def f(k):\n class A:\n  n = 1\n  m = n\n return A",
        ),
        ("   def f(x):\n       return x", "def f(x): # same\n return x"),
    ],
)
def test_local_names_go_by_the_order_in_which_they_are_bound(one: str, other: str) -> None:
    assert same(one, other, "code")


def test_what_does_not_parse_is_compared_by_its_tokens() -> None:
    plain, spaced = "int main() { return 0; }", "int main( )\n{\n    return 0;\n}"
    assert same(plain, spaced, "code")
    assert same(f"```c\n{plain} // done\n```", f"```c\n/* start */ {spaced}\n```", "code")
    assert not same(plain, plain.replace("0", "1"), "code")
    assert same('```js\nf("a // b")\n```', '```js\nf( "a // b" ) // c\n```', "code")
    assert not same('```js\nf("a  b")\n```', '```js\nf("a b")\n```', "code")
    assert extract("f(x)", "code") != extract("```js\nf(x)\n```", "code"), "other languages are never taken for Python"


def test_the_last_fenced_block_counts() -> None:
    text = "First\n```python\nx = 1\n```\nbetter\n```py\nx = 2\n```\nend"
    assert extract(text, "code") == "x = 2"
    assert extract(text + "\n```\n \n```", "code") == "x = 2", "a blank one is none"
    assert extract("```python\nx = 3", "code") == "x = 3", "one that is never closed goes to the end"
    assert fenced("none ``` here") is None
    assert fenced("```C++ title\n1\n```") == ("c++", "\n1\n")
    assert extract("```python\n# nothing\n```", "code") is None


def test_a_models_invalid_escape_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert extract('"\\d"', "code") is not None


# ------------------------------------------------------------------------------------------------------------------- json


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"b": 1.0, "a": [1, 2e0]}', '{"a":[1,2],"b":1}'),
        ('so: {"a": 1} and then [2, 3].', "[2,3]"),
        ('```json\n{"x": 1}\n```\nas in [1]', '{"x":1}'),
        ("```\n42\n```", "42"),
        ("```\nprose\n```\n[1]", "[1]"),
        ("42", "42"),
        ("-0.0", "0"),
        ('"hi"', '"hi"'),
        ("null", "null"),
        ("the answer is 42", None),
        ('{"answer": "\\ud800"}', None),
        ('{"a": {"b": 1}} done', '{"a":{"b":1}}'),
        ('{"a": 1, "a": 2}', '{"a":2}'),
        ("[see this [1, 2]]", "[1,2]"),
        ('{"a": [1, 2}', None),
        ('he said "[1]" of [2]', "[2]"),
        ("{'a': 1}", None),
        ("[NaN]", None),
        ("[1e999]", None),
        ('["\u00e4"]', '["\u00e4"]'),
        ("[" * 60 + "]" * 60, None),
        ("[" * 40 + "]" * 40, "[" * 40 + "]" * 40),
        ("", None),
    ],
)
def test_the_last_json_value_in_canonical_form(text: str, answer: str | None) -> None:
    assert extract(text, "json") == answer


def test_what_is_cut_off_is_not_taken_for_a_value_of_its_own() -> None:
    assert extract("why? " * 5000 + '{"last": 1}', "json") == '{"last":1}'
    assert extract('{"rows": [' + "[2], " * 6000 + "[7]]}", "json") is None


# -------------------------------------------------------------------------------------------------------------- free text


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("The cat sat on the red mat.", "the cats sat on a red mat", True),
        ("It is safe", "It is not safe", False),
        ("It isn't safe.", "it is not safe", True),
        ("It isn\u2019t safe.", "it is not safe", True),
        ("No, it is safe", "It is not safe", False),
        ("A is safe, B is not", "A is not safe, B is safe", False),
        ("Never fly there, take the slow train to Rome", "Fly there, never take the slow train to Rome", False),
        ("two apples", "2 apples", True),
        ("It costs 5 dollars", "It costs 6 dollars", False),
        ("1,000 km away", "1000.0 km away", True),
        ("42", "It is 42.", True),
        ("Paris is the capital of France", "Lyon is the capital of France", False),
        ("The old red brick house burned", "The old red brick barn burned", False),
        ("Each Monday the slow train to Rome leaves at 5", "Each Monday the slow train to Rome leaves at 6", False),
        ("it is", "it was", False),
        ("it is", "It is.", True),
    ],
)
def test_free_text_by_its_words_numbers_and_negations(one: str, other: str, together: bool) -> None:
    assert same(one, other, "free") == same(other, one, "free") == together


def test_links_make_groups_whatever_the_order() -> None:
    chain = [
        "alpha beta gamma delta epsilon zeta",
        "beta gamma delta epsilon zeta eta",
        "gamma delta epsilon zeta eta theta",
    ]
    assert not same(chain[0], chain[2], "free")
    outcomes = [Outcome(text=t) for t in (chain[0], chain[2], "other", chain[1])]
    assert groups(outcomes, "free") == (0, 0, 1, 0)
    assert groups([*outcomes[:3], Outcome(error=Failure(kind="timeout"))], "free") == (0, 1, 2, None)


def test_of_very_long_texts_only_equal_ones_are_one_answer() -> None:
    long = "".join(f"w{i} " for i in range(3000))
    assert same(long, long + ".", "free")
    assert same(long[:5000], long[:5000] + "more", "free")
    assert not same(long, long + "more", "free")


# ----------------------------------------------------------------------------------------------------------------- bounds

HOSTILE = {
    "brackets": "[" * 50_000,
    "objects": '{"a":' * 10_000,
    "arrays that never end": "[1,1" * 12_000,
    "values": "[1] " * 12_500,
    "wrong brackets": "[1} " * 12_500,
    "escaped quotes": '["' + '\\"' * 24_000,
    "quotes": "\"'" * 25_000,
    "comments": "```c\n" + "/*" * 9_000 + "\n```",
    "templates": "`\\`" * 16_000,
    "fences": "```\n" * 12_500,
    "parentheses": "(" * 4_000,
    "unary": "-" * 3_900 + "1",
    "sums": "1+" * 1_900 + "1",
    "calls": "f(" * 190 + ")" * 190,
    "assignments": "a=b;" * 990,
    "thousands": "1,000" + ",000" * 12_000 + "e5",
    "fractions": "1/" * 25_000,
    "digits": "9" * 50_000 + "e5",
    "latex": "\\frac{1}{" * 6_000,
    "dots": "." * 50_000,
    "spaces": " \n" * 25_000,
    "denials": "not " * 12_500,
    "integer": "[" + "9" * 10_000 + "]",
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", catalog.names("answers"))
def test_hostile_texts_are_read_within_bounds(name: str, hostile: str) -> None:
    """It ends, at once as against minutes, and what it ends with is a normal form."""
    reader = catalog.find("answers", name)()
    found = reader.read(HOSTILE[hostile])
    assert found is None or reader.read(found) == found
    assert reader.group([found, found]) == ((None, None) if found is None else (0, 0))


@pytest.mark.parametrize("text", ["[" * 900 + "]" * 900, "-" * 900 + "1", "1+" * 400 + "1", "f(" * 120 + ")" * 120])
@pytest.mark.parametrize("name", ["code", "json"])
def test_nesting_is_bounded_by_count_and_not_by_who_calls(name: str, text: str) -> None:
    def deep(levels: int) -> str | None:
        return extract(text, name) if not levels else deep(levels - 1)

    assert deep(0) == deep(400) == deep(800)


def test_every_readers_name_is_told_in_the_guide_of_plans() -> None:
    from pathlib import Path

    guide = (Path(__file__).parents[2] / "docs" / "guides" / "plans.md").read_text("utf-8")
    for name in catalog.names("answers"):
        assert re.search(rf"`{name}`", guide)
