"""Marks before signatures: they come off as they went on, and tell whose a block is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.targets.signed import MARK, marked, sign, signer, take, unsign


@given(st.text(), st.text(), st.sampled_from(["anthropic", "bedrock", "google"]))
def test_what_was_signed_comes_back(signature, model, provider):
    by = signer(provider, model)
    assert unsign(sign(signature, by)) == (by, signature)
    block = {"type": "thinking", "thinking": "hm", "signature": signature}
    assert take([marked(block, by)], by).blocks == [block]
    assert take([marked(block, by)], "someone/else") == ([], [f"thinking of {by}"])


def test_a_model_with_colons_is_one_name():
    by = signer("bedrock", "us.anthropic.claude-opus-4-1-20250805-v1:0")
    assert ":" not in by
    assert sign("a:b", by) == f"{MARK}{by}:a:b"
    assert unsign(f"{MARK}{by}:a:b") == (by, "a:b")


def test_unmarked_blocks():
    block = {"type": "redacted_thinking", "data": "abc"}
    assert unsign("abc") == ("", "abc")
    assert unsign("fl1:no-second-colon") == ("", "fl1:no-second-colon")
    assert take([block], "anthropic/m") == ([block], [])
    assert take([block], "anthropic/m", unmarked=False) == ([], ["thinking that nobody signed"])
    assert take([{"type": "thinking", "thinking": "x"}], "anthropic/m").blocks == []
    # An upstream that does not sign gets its own blocks back all the same.
    own = marked({"type": "thinking", "thinking": "x", "signature": ""}, "anthropic/m")
    assert take([own], "anthropic/m").blocks == [{"type": "thinking", "thinking": "x", "signature": ""}]
    assert marked(block, "") == block


def test_what_is_no_thinking():
    with pytest.raises(KeyError):
        take([{"type": "text", "text": "x"}], "anthropic/m")
