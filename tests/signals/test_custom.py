"""Signals of the user's own: a Python function, an ONNX classifier made here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead import config
from fairlead.errors import ConfigError
from fairlead.signals.base import Range
from fairlead.signals.classifier import Classifier
from fairlead.signals.custom import Custom
from fairlead.testing import check_signal
from fairlead.types import Constraints, Message, Query, Reading

SECRET = "4111 1111 1111 1111"
KEYS = {
    "value": Range(kind="string", among=("big", "small")),
    "size": Range(kind="int", low=0.0, high=100.0),
    "vip": Range(kind="bool"),
}


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's."""
    (tmp_path / "ours_of_test_custom.py").write_text(
        "import numpy as np\n"
        "def plain(text): return 'big' if len(text) > 5 else 'small'\n"
        "def parts(text): return {'value': plain(text), 'size': min(len(text), 100), 'vip': None}\n"
        "def query(query): return {'vip': query.identity.tenant == 'acme'}\n"
        "def none(text): return None\n"
        "def raises(text): raise ValueError(text)\n"
        "def other(text): return 'huge'\n"
        "def beyond(text): return {'size': 101}\n"
        "def undeclared(text): return {text: 1}\n"
        "def wrong(text): return {'vip': 1}\n"
        "def listed(text): return [text]\n"
        "def numpys(text): return {'size': np.int64(3)}\n"
        "number = 3\n"
        "async def waits(text): return True\n"
        "def two(a, b): return True\n"
        "def leaves(text): raise SystemExit(3)\n"
        "def vast(text): return {'n': 10**30}\n"
        "def half(text): return {'s': '\\ud800'}\n"
        "def floats(text): return {'x': np.float64(0.3)}\n"
        "def changes(query):\n"
        "    query.body.clear(); query.constraints.prefer['cheap'] = 1.0\n"
        "    return {'vip': True}\n"
    )
    (tmp_path / "broken_of_test_custom.py").write_text("raise RuntimeError('half done')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "ours_of_test_custom"


def read(call: str, text: str = "hello", **more: Any) -> Reading:
    return Custom(call=call, keys=KEYS, **more).read(Query.ask(text))


def test_a_value_and_parts(ours: str) -> None:
    assert (read(f"{ours}:plain").value, read(f"{ours}:plain").parts) == ("small", {})
    found = read(f"{ours}:parts", "hello world")
    assert (found.value, found.parts, found.confidence) == ("big", {"size": 11}, 1.0)
    nothing = read(f"{ours}:none")
    assert (nothing.value, nothing.late) == (None, False)
    assert read(f"{ours}:query", of="query").parts == {"vip": False}
    check_signal(lambda: Custom(call=f"{ours}:parts", keys=KEYS))
    check_signal(lambda: Custom(call=f"{ours}:parts", keys=KEYS, slow=True))


@pytest.mark.parametrize("name", ["raises", "other", "beyond", "undeclared", "wrong", "listed", "numpys", "leaves"])
def test_what_fails_or_was_not_declared_says_nothing(ours: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reading = read(f"{ours}:{name}", SECRET)
    assert (reading.value, reading.parts, reading.confidence, reading.late) == (None, {}, 0.0, True)
    assert [ours in r.getMessage() for r in caplog.records] == [True]
    # Neither an exception's text nor a key may carry the query's words into the log.
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("plain", "write module:function"),
        ("no_such_module:f", "cannot import no_such_module"),
        ("broken_of_test_custom:f", "half done"),
        ("{ours}:absent", "no function 'absent'"),
        ("{ours}:number", "no function 'number'"),
        ("{ours}:waits", "is async"),
        ("{ours}:two", "one argument"),
    ],
)
def test_a_function_that_is_not_there(ours: str, call: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as e:
        Custom(call=call.format(ours=ours), keys=KEYS).check()
    assert e.value.path == "$.call"


def test_what_no_trace_could_keep_is_refused(ours: str, caplog: pytest.LogCaptureFixture) -> None:
    for name, kind in (("vast", "int"), ("half", "string")):
        key = name[0].replace("v", "n").replace("h", "s")
        signal = Custom(call=f"{ours}:{name}", keys={key: Range(kind=kind)})  # type: ignore[arg-type]
        assert signal.read(Query.ask("hi")).late
    assert Custom(call=f"{ours}:floats", keys={"x": Range(kind="number")}).read(Query.ask("hi")).late
    assert "float64" in caplog.text


def test_no_value_where_only_parts_are_declared_is_nothing_found(ours: str) -> None:
    reading = Custom(call=f"{ours}:none", keys={"vip": Range(kind="bool")}).read(Query.ask("hi"))
    assert (reading.value, reading.parts, reading.late) == (None, {}, False)


def test_what_a_function_does_to_the_query_is_not_sent(ours: str) -> None:
    query = Query.ask("hi", temperature=0.5, constraints=Constraints(prefer={"quick": 0.1}))
    before = msgspec.msgpack.encode(query)
    assert read_query(f"{ours}:changes", query).parts == {"vip": True}
    assert msgspec.msgpack.encode(query) == before


def read_query(call: str, query: Query) -> Reading:
    return Custom(call=call, keys=KEYS, of="query").read(query)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "int", "low": 5, "high": 1},
        {"kind": "int", "among": ["a"]},
        {"kind": "bool", "low": 0},
        {"kind": "number", "low": float("nan")},
    ],
)
def test_ranges_that_say_nothing(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"low|among|between"):
        Range(**given)
    signal = {"type": "custom", "call": "builtins:len", "keys": {"value": given}}
    data = {"targets": {"a": {"type": "scripted"}}, "routes": {}, "signals": {"mine": signal}}
    with pytest.raises(ConfigError, match=r"low|among|between") as e:
        config.make(data)
    assert e.value.path.startswith("$.signals.mine.keys.value")


def test_it_is_declared_in_a_config(ours: str) -> None:
    signal = {"type": "custom", "call": f"{ours}:parts", "keys": {"value": {"kind": "string"}, "size": {"kind": "int"}}}
    rules: list[Any] = [{"name": "big", "when": {"mine.size": {"gt": 5}}, "use": "a"}]
    data: dict[str, Any] = {
        "targets": {"a": {"type": "scripted"}},
        "signals": {"mine": signal},
        "routes": {"auto": {"policy": {"type": "rules", "rules": rules, "default": "a"}}},
    }
    made = config.make(data)
    assert made.signals["mine"].read(Query.ask("hello world")).parts == {"size": 11}
    rules[0]["when"] = {"mine.length": {"gt": 5}}
    with pytest.raises(ConfigError, match="no part 'length'"):
        config.make(data)
    for keys, path in (
        ({}, "$.signals.mine.keys"),
        ({"": {"kind": "bool"}}, "$.signals.mine.keys."),
        ({"not": {"kind": "bool"}}, "$.signals.mine.keys.not"),
    ):
        with pytest.raises(ConfigError) as e:
            config.make({**data, "signals": {"mine": {**signal, "keys": keys}}})
        assert e.value.path == path
    with pytest.raises(ConfigError, match="unknown key"):
        config.make({**data, "signals": {"mine": {**signal, "keys": {"value": {"kind": "int", "lowest": 0}}}}})


# ---------------------------------------------------------------------------------------------------------- classifier

WORDS = {"[UNK]": 0, "good": 1, "bad": 2}
LOGITS = np.asarray([[0.1, 0.0], [3.0, 0.0], [0.0, 3.0]], np.float32)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A classifier that adds up what each word says, and its tokenizer."""
    for name in ("onnxruntime", "tokenizers", "onnx"):
        pytest.importorskip(name, reason=f"pip install {name} to test the signal classifier")
    import onnx

    h = onnx.helper
    constants = [onnx.numpy_helper.from_array(LOGITS, "table"), onnx.numpy_helper.from_array(np.asarray([1]), "axes")]
    graph = h.make_graph(
        [
            h.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
            h.make_node("ReduceSum", ["looked_up", "axes"], ["logits"], keepdims=0),
        ],
        "tiny",
        [h.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "tokens"])],
        [h.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)],
        constants,
    )
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "[UNK]"},
    }
    (tmp_path / "tokenizer.json").write_bytes(msgspec.json.encode(data))
    return {"model": str(tmp_path / "model.onnx"), "tokenizer": str(tmp_path / "tokenizer.json")}


def softmax(*logits: float) -> list[float]:
    e = np.exp(np.asarray(logits) - max(logits))
    found: list[float] = (e / e.sum()).tolist()
    return found


def test_a_classifier_gives_probabilities(files: dict[str, str]) -> None:
    signal = Classifier(**files, labels=("nice", "nasty"), threshold=0.9)
    reading = signal.read(Query.ask("Good good bad"))
    assert list(reading.parts.values()) == pytest.approx(softmax(6.0, 3.0))
    assert (reading.value, reading.confidence) == ("nice", pytest.approx(softmax(6.0, 3.0)[0]))
    unsure = signal.read(Query.ask("whatever"))
    assert unsure.value is None
    assert unsure.confidence == pytest.approx(softmax(0.1, 0.0)[0])
    for nothing in (Query.ask(" "), Query(id="q", messages=(Message(role="user"),))):
        assert (signal.read(nothing).parts, signal.read(nothing).confidence) == ({}, 0.0)
    assert signal.slow
    check_signal(lambda: Classifier(**files, labels=("nice", "nasty"), threshold=0.6))


def test_a_classifier_that_does_not_fit_is_found_at_the_start(files: dict[str, str], tmp_path: Path) -> None:
    for more, path in (
        ({"labels": ("a", "b", "c")}, "labels"),
        ({"labels": ("a", "a")}, "labels"),
        ({"labels": ("a", "value")}, "labels"),
        ({"threshold": 2.0}, "threshold"),
        ({"model": "absent.onnx"}, "model"),
        ({"model": files["tokenizer"]}, "model"),
        ({"tokenizer": files["model"]}, "tokenizer"),
    ):
        signal = {"type": "classifier", **files, "labels": ("a", "b"), **more}
        with pytest.raises(ConfigError) as e:
            config.make(
                {"targets": {"t": {"type": "scripted"}}, "routes": {}, "signals": {"mine": signal}}, folder=tmp_path
            )
        assert e.value.path == f"$.signals.mine.{path}"
