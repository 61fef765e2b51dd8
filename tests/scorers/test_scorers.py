"""Scorers: by words, and a model of entailment made here: of the claim's tokens, some speak for it and some against."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.detect.support import judged
from fairlead.errors import ConfigError
from fairlead.scorers.lexical import Lexical
from fairlead.scorers.nli import NLI
from fairlead.testing import check_component

SOURCE = "The bridge was opened in 1978 by Mayor Keller. Cyclists do not pay."
WORDS = ["[UNK]", "[CLS]", "[SEP]", "inaugurated", "forbidden", "strange", "crossing"]
#         contradiction, neutral, entailment
TABLE = np.asarray([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 9], [9, 0, 0], [0, 9, 0], [0, 0, 0]], np.float32)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Write a classifier that adds up a table's rows over the tokens of the second text, and its tokenizer."""
    for name in ("onnxruntime", "tokenizers", "onnx"):
        pytest.importorskip(name, reason=f"pip install {name} to test the scorer nli")
    return {"model": model(tmp_path), "tokenizer": tokenizer(tmp_path)}


def tokenizer(folder: Path) -> str:
    frame = {t: {"id": t, "ids": [WORDS.index(t)], "tokens": [t]} for t in ("[CLS]", "[SEP]")}
    first = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    data: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": [*first, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": frame,
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }
    path = folder / "tokenizer.json"
    path.write_bytes(msgspec.json.encode(data))
    return str(path)


def model(folder: Path, *, extra: tuple[str, ...] = (), table: Any = TABLE) -> str:
    import onnx

    h = onnx.helper
    axis, last = (onnx.numpy_helper.from_array(np.asarray([a]), n) for a, n in ((1, "axis"), (-1, "last")))
    graph = h.make_graph(
        [
            h.make_node("Gather", ["table", "input_ids"], ["rows"]),
            h.make_node("Cast", ["token_type_ids"], ["second"], to=onnx.TensorProto.FLOAT),
            h.make_node("Unsqueeze", ["second", "last"], ["mask"]),
            h.make_node("Mul", ["rows", "mask"], ["kept"]),
            h.make_node("ReduceSum", ["kept", "axis"], ["logits"], keepdims=0),
        ],
        "tiny",
        [
            h.make_tensor_value_info(n, onnx.TensorProto.INT64, ["batch", "tokens"])
            for n in ("input_ids", "token_type_ids", *extra)
        ],
        [h.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(table, "table"), axis, last],
    )
    path = folder / f"model{len(extra)}{table.shape[1]}.onnx"
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


def test_lexical_is_the_detector() -> None:
    answer = "Mayor Keller opened the bridge in 1978. It is strange and forbidden."
    assert Lexical().judge(answer, [SOURCE]) == judged(answer, [SOURCE])
    assert Lexical(bar=0.0).judge(answer, [SOURCE]).score == 1.0
    assert not Lexical().slow
    check_component(Lexical)


def test_probabilities_sum_to_one_and_read_the_second_text(files: dict[str, Any]) -> None:
    p = NLI(**files).probabilities([("strange", "inaugurated"), ("inaugurated", "forbidden"), ("forbidden", "none")])
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert p.argmax(axis=1).tolist()[:2] == [2, 0]
    np.testing.assert_allclose(p[2], 1 / 3)


def test_the_model_is_asked_about_doubted_claims_alone(files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = NLI(**files, passages=1)
    read: list[tuple[str, str]] = []
    whole = scorer.probabilities

    def noting(pairs: Any) -> Any:
        read.extend(pairs)
        return whole(pairs)

    monkeypatch.setattr(scorer, "probabilities", noting)
    support = scorer.judge("The bridge was opened in 1978. Keller inaugurated every single crossing.", [SOURCE])
    assert [c.supported for c in support.claims] == [True, True]
    assert [claim for _, claim in read] == ["Keller inaugurated every single crossing."]
    read.clear()
    assert scorer.judge("The bridge was opened in 1978.", [SOURCE]).score == 1.0
    assert read == []


def test_it_clears_contradicts_or_leaves_in_doubt(files: dict[str, Any]) -> None:
    scorer = NLI(**files)
    answer = "Keller inaugurated every single crossing. Keller says all is forbidden everywhere. Keller looks quite strange otherwise. Quantum xylophones hum."
    support = scorer.judge(answer, [SOURCE])
    assert [(c.supported, c.verdict.why) for c in support.claims] == [
        (True, ""),
        (False, "negation"),
        (False, "model"),
        (False, "words"),
    ]
    assert support.claims[0].verdict.nearest.startswith("The bridge was opened")
    with_number = scorer.judge("Keller looked strange at 55 minutes of age.", [SOURCE])
    assert (with_number.claims[0].verdict.why, with_number.claims[0].verdict.missing) == ("number", ("55",))


def test_the_order_of_labels_is_the_models(files: dict[str, Any]) -> None:
    turned = NLI(**files, labels=("entailment", "neutral", "contradiction"))
    support = turned.judge("Keller inaugurated every single crossing.", [SOURCE])
    assert [c.verdict.why for c in support.claims] == ["negation"]
    with pytest.raises(ConfigError, match="labels are contradiction, neutral, entailment"):
        NLI(**files, labels=("yes", "no", "maybe")).check()


def test_a_copy_shares_what_is_loaded_and_state_is_empty(files: dict[str, Any]) -> None:
    scorer = NLI(**files)
    scorer.probabilities([("a", "b")])
    assert scorer.copy()._loaded is scorer._loaded
    assert not scorer.state()
    check_component(NLI.example)
    assert scorer.slow


def test_what_cannot_be_read_is_said(files: dict[str, Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("nothing of the kind")
    for given, message in (
        ({"model": str(broken)}, "no ONNX model"),
        ({"tokenizer": str(broken)}, r"no tokenizer\.json"),
        ({"model": str(tmp_path / "none.onnx")}, r"no file .*none\.onnx"),
        ({"model": model(tmp_path, extra=("pixels",))}, "asks for pixels"),
        ({"model": model(tmp_path, table=TABLE[:, :2])}, "three finite numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            NLI(**{**files, **given}).probabilities([("a", "b")])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime: pip install 'fairlead\[onnx\]'"):
        NLI(model=str(tmp_path / "m"), tokenizer=str(tmp_path / "m")).probabilities([("a", "b")])
