"""Counting by a real tokenizer, made here: in the signal, in the pool, in a config."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from fairlead import config, tokens
from fairlead.errors import ConfigError
from fairlead.pool import Pool
from fairlead.signals.tokens import Tokens
from fairlead.testing import check_signal
from fairlead.types import Message, Part, Profile, Query, Target

pytest.importorskip("tokenizers", reason="pip install tokenizers to test counting")


def write(path: Path, *, normalizer: dict[str, Any] | None = None, **more: Any) -> str:
    """Write a tokenizer of words and single signs, that asks for padding and truncation, which counting must not heed."""
    pad = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    cut = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    data = {
        "version": "1.0",
        "truncation": cut,
        "padding": {**pad, "pad_token": "[UNK]"},
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "red": 1}, "unk_token": "[UNK]"},
        **more,
    }
    path.write_bytes(msgspec.json.encode(data))
    return str(path)


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return write(tmp_path / "tokenizer.json")


def user(text: str) -> Query:
    return Query(id="q", messages=(Message(role="user", content=text),))


# ----------------------------------------------------------------------------------------------------------- the signal


def test_the_whole_prompt_is_counted(tokenizer: str) -> None:
    call = {"function": {"name": "f"}}
    query = Query(
        id="q",
        messages=(
            Message(role="system", content="be brief."),
            Message(role="user", content=(Part(text="one two"), Part(type="image_url"), Part(text="three"))),
            Message(role="assistant", tool_calls=(call,)),
        ),
        body={"tools": Raw(b'[{"name": 1}]')},
    )
    signal = Tokens(tokenizer=tokenizer)
    # [ { " function " : { " name " : " f " } } ]: signs beside each other are one word for this tokenizer.
    calls = tokens.load(tokenizer).count(msgspec.json.encode([call]).decode())
    offered = tokens.load(tokenizer).count('[{"name": 1}]')
    assert (calls, offered) == (7, 5)
    assert signal.read(query).value == 3 + 3 + calls + offered + 3 * tokens.MESSAGE
    assert signal.read(query).parts == {"last": 3}
    assert Tokens(tokenizer=tokenizer, tools=False).read(query).value == 3 + 3 + calls + 3 * tokens.MESSAGE


def test_it_is_a_slow_signal(tokenizer: str) -> None:
    assert Tokens(tokenizer=tokenizer).slow
    check_signal(lambda: Tokens(tokenizer=tokenizer))


def test_half_characters_are_counted(tokenizer: str) -> None:
    assert Tokens(tokenizer=tokenizer).read(user("a \ud800 b")).parts["last"] == 3


def test_long_texts_are_counted_in_pieces_and_remembered(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tokens.Tokenizer(tokens.read(tokenizer))
    text = "word " * 10_000  # pieces end between words
    assert counter.count(text) == 10_000
    monkeypatch.setattr(counter, "_inner", None)
    assert counter.count(text) == 10_000
    with pytest.raises(AttributeError):
        counter.count(text + "more")


def test_counting_stops_where_it_is_enough(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tokens.Tokenizer(tokens.read(tokenizer))
    asked = []
    whole = counter._piece

    def spy(self: Any, text: str) -> int:
        asked.append(len(text))
        return whole(text)

    monkeypatch.setattr(tokens.Tokenizer, "_piece", spy)
    assert counter.prompt(user("word " * 100_000), most=5_000) > 5_000
    assert len(asked) == 2


# ------------------------------------------------------------------------------------------------------------- the pool


def pool(tokenizer: str | None, context: int) -> Pool:
    return Pool(targets=[Target(name="t", profile=Profile(context_tokens=context, tokenizer=tokenizer))])


def test_a_target_with_a_tokenizer_is_asked_by_it(tokenizer: str) -> None:
    dense, sparse = user("! " * 40), user("x" * 400)
    # By rule of thumb 24 and 104 tokens; really 44 and 5.
    assert [t.name for t in pool(None, 30).eligible(dense).targets] == ["t"]
    assert pool(None, 30).eligible(sparse).excluded == {"t": "about 104 tokens do not fit its context of 30"}
    assert pool(tokenizer, 30).eligible(dense).excluded == {
        "t": "by its tokenizer, this is more than its context of 30 tokens"
    }
    assert [t.name for t in pool(tokenizer, 30).eligible(sparse).targets] == ["t"]
    assert [t.name for t in pool(tokenizer, 44).eligible(dense).targets] == ["t"]
    assert not pool(tokenizer, 43).eligible(dense).targets


def test_what_surely_fits_is_not_counted() -> None:
    absent = pool("/no/such/tokenizer.json", 100)
    assert absent.eligible(user("x" * 95)).targets
    with pytest.raises(ConfigError, match="no file"):
        absent.eligible(user("x" * 96))
    with pytest.raises(ConfigError, match="no file"):
        absent.eligible(user("é" * 10))


async def test_long_prompts_are_counted_off_the_loop(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens._load.cache_clear()
    threads: list[str] = []
    whole = tokens.Tokenizer._piece

    def spy(self: Any, text: str) -> int:
        if (len(text), hash(text)) not in self._counts:
            threads.append(threading.current_thread().name)
        return whole(self, text)

    monkeypatch.setattr(tokens.Tokenizer, "_piece", spy)
    targets = pool(tokenizer, 30_000)
    await targets.counted(user("red " * 100))
    await targets.counted(user("red " * 6_000))  # surely fits
    assert not threads
    query = user("".join(f"{i:<10}" for i in range(8_000)))
    await targets.counted(query)
    assert len(threads) == 4
    assert threading.current_thread().name not in threads
    assert [t.name for t in targets.eligible(query).targets] == ["t"]
    assert len(threads) == 4


def test_letters_that_are_written_out_do_not_pass_the_bound(tmp_path: Path) -> None:
    # One sign becomes eighteen letters by NFKC, and a tokenizer of bytes makes two tokens or three of each.
    path = write(
        tmp_path / "bytes.json",
        normalizer={"type": "NFKC"},
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        model={
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {c: i for i, c in enumerate(map(chr, [*range(33, 127), *range(161, 173), *range(174, 325)]))},
            "merges": [],
        },
    )
    for text in ("\ufdfa" * 5, "naïve", "日本語", "plain", "👩‍👩‍👧‍👦"):
        n = tokens.load(path).prompt(user(text))
        assert n <= tokens.surely(user(text))
        assert n > tokens.MESSAGE


# ------------------------------------------------------------------------------------------------------------- a config


def test_paths_start_from_the_configs_folder(tmp_path: Path, tokenizer: str) -> None:
    data = {
        "targets": {"a": {"type": "scripted", "profile": {"tokenizer": "tokenizer.json", "context_tokens": 10}}},
        "signals": {"tokens": {"tokenizer": "tokenizer.json"}, "again": {"type": "tokens", "tokenizer": tokenizer}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "a"}}},
    }
    made = config.make(data, folder=tmp_path)
    assert made.drivers["a"].target.profile.tokenizer == tokenizer
    assert [made.signals[n].read(user("red")).parts["last"] for n in ("tokens", "again")] == [1, 1]


@pytest.mark.parametrize("written", [None, "nothing of the kind", "[]", "{}"])
def test_a_file_that_is_no_tokenizer_is_found_at_the_start(tmp_path: Path, written: str | None) -> None:
    if written is not None:
        (tmp_path / "t.json").write_text(written)
    profile, signal = {"tokenizer": "t.json"}, {"tokens": {"tokenizer": "t.json"}}
    for more, path in (
        ({"targets": {"a": {"type": "scripted", "profile": profile}}}, "$.targets.a.profile.tokenizer"),
        ({"targets": {"a": {"type": "scripted"}}, "signals": signal}, "$.signals.tokens.tokenizer"),
    ):
        with pytest.raises(ConfigError, match=r"t\.json") as e:
            config.make({"routes": {}, **more}, folder=tmp_path)
        assert e.value.path == path


def test_a_missing_package_is_named(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'fairlead\[onnx\]'"):
        Tokens(tokenizer=tokenizer).check()
