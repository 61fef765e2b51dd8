"""Blocks in tags are found, broken ones are refused, and escaped text holds none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.plans.tags import Block, blocks, escape

TAGS = ("think", "search", "answer")
PIECES = [
    "<think>",
    "</think>",
    "<search>",
    "</search>",
    "< / ANSWER >",
    "<answer id=1>",
    "</answer>",
    "<",
    "</",
    "a",
    " ",
    "<other>",
    "&lt;",
]


def test_blocks_in_order_with_their_places() -> None:
    text = "so <think> a < b </think>\n<answer>4</answer>."
    found = blocks(text, TAGS)
    assert found == (Block("think", "a < b", 3, 25), Block("answer", "4", 26, 44))
    assert [text[b.start : b.end] for b in found] == ["<think> a < b </think>", "<answer>4</answer>"]
    assert blocks("nothing <b>here</b>", TAGS) == ()


@pytest.mark.parametrize(
    "text",
    [
        "<think>a",
        "a</think>",
        "<think>a</answer>",
        "<think>a<answer>b</answer></think>",
        "<think><think>a</think></think>",
        "<think>a</think></think>",
    ],
)
def test_unbalanced_or_nested_is_none(text: str) -> None:
    assert blocks(text, TAGS) is None


@pytest.mark.parametrize(
    "text", ["</answer>", "< / Answer >", "<answer\n>", "<ANSWER id='1'>", "</answer", "<answer/>", "<\tthink>"]
)
def test_whatever_looks_like_a_tag_is_escaped(text: str) -> None:
    safe = escape(text, TAGS)
    assert safe == text.replace("<", "&lt;")
    assert escape(safe, TAGS) == safe


def test_other_text_is_left_alone() -> None:
    for text in ("a < b and b > c", "<b>bold</b>", "<answering>", "think", "<answers>"):
        assert escape(text, TAGS) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_escaped_text_stays_inside_the_block_that_quotes_it(text: str) -> None:
    found = blocks(f"<search>{escape(text, TAGS)}</search>", TAGS)
    assert found is not None
    assert [b.tag for b in found] == ["search"]
