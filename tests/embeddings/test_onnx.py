"""The sentence encoder, on a model made here: each token has a vector of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead import config
from fairlead.embeddings import onnx
from fairlead.embeddings.onnx import Onnx
from fairlead.errors import ConfigError
from fairlead.signals.embedding import Embedding, vector
from fairlead.types import Query

WORDS = ["[UNK]", "[CLS]", "[SEP]", "red", "green", "blue"]
TABLE = np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float32)


def tokenizer(folder: Path, **more: Any) -> str:
    """Write a tokenizer of whole words, with the frame that BERT's has."""
    path = folder / "tokenizer.json"
    frame = {
        "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
        "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]},
    }
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    path.write_bytes(
        msgspec.json.encode(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [],
                "normalizer": {"type": "Lowercase"},
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [*single, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                    "pair": single,
                    "special_tokens": frame,
                },
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(WORDS)}, "unk_token": "[UNK]"},
                **more,
            }
        )
    )
    return str(path)


def model(folder: Path, *, pooled: bool = False, inputs: tuple[str, ...] = ("input_ids", "attention_mask")) -> str:
    """Write a model that looks up each token's vector (and, if `pooled`, adds them up)."""
    onnx = pytest.importorskip("onnx", reason="pip install onnx to test the embedder onnx")
    h = onnx.helper
    nodes = [h.make_node("Gather", ["table", "input_ids"], ["looked_up"])]
    if pooled:
        axes = onnx.numpy_helper.from_array(np.asarray([1]), "axes")
        nodes.append(h.make_node("ReduceSum", ["looked_up", "axes"], ["out"], keepdims=0))
    else:
        nodes.append(h.make_node("Identity", ["looked_up"], ["out"]))
    graph = h.make_graph(
        nodes,
        "tiny",
        [h.make_tensor_value_info(n, onnx.TensorProto.INT64, ["batch", "tokens"]) for n in inputs],
        [h.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(TABLE, "table"), *([axes] if pooled else [])],
    )
    path = folder / "model.onnx"
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.fixture
def needs() -> None:
    for name in ("onnxruntime", "tokenizers"):
        pytest.importorskip(name, reason=f"pip install {name} to test the embedder onnx")


def unit(v: Any) -> Any:
    return v / np.linalg.norm(v)


@pytest.mark.usefixtures("needs")
def test_tokens_are_averaged_and_scaled(tmp_path: Path) -> None:
    embedder = Onnx(model=model(tmp_path), tokenizer=tokenizer(tmp_path))
    want = unit(TABLE[[1, 3, 5, 0, 2]].mean(axis=0))
    found = embedder.embed("Red blue purple")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want, atol=1e-6)
    np.testing.assert_array_equal(embedder.embed("Red blue purple"), found)
    assert embedder.size == 4


@pytest.mark.usefixtures("needs")
def test_what_the_mask_leaves_out_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Onnx(model=model(tmp_path), tokenizer=tokenizer(tmp_path))
    embedder.embed("red")
    assert embedder._loaded is not None

    class Padded:
        """Gives the tokens of "red" and two of padding."""

        def encode(self, _: str) -> Any:
            return type("E", (), {"ids": [1, 3, 2, 0, 0], "attention_mask": [1, 1, 1, 0, 0], "type_ids": [0] * 5})

    found = embedder._embed("red")
    monkeypatch.setattr(embedder._loaded, "tokenizer", Padded())
    np.testing.assert_allclose(embedder._embed("red"), found, atol=1e-6)


@pytest.mark.usefixtures("needs")
def test_a_file_that_pads_changes_nothing(tmp_path: Path) -> None:
    path = model(tmp_path)
    plain = Onnx(model=path, tokenizer=tokenizer(tmp_path)).embed("red")
    pad = {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    padded = Onnx(model=path, tokenizer=tokenizer(tmp_path, padding={**pad, "pad_token": "[UNK]"})).embed("red")
    np.testing.assert_array_equal(padded, plain)


@pytest.mark.usefixtures("needs")
def test_a_model_that_pools_itself_is_taken_as_it_is(tmp_path: Path) -> None:
    embedder = Onnx(model=model(tmp_path, pooled=True), tokenizer=tokenizer(tmp_path))
    np.testing.assert_allclose(embedder.embed("red"), unit(TABLE[[1, 3, 2]].sum(axis=0)), atol=1e-6)


@pytest.mark.usefixtures("needs")
def test_long_texts_are_cut_and_empty_ones_are_zeros(tmp_path: Path) -> None:
    embedder = Onnx(model=model(tmp_path), tokenizer=tokenizer(tmp_path), max_tokens=5)
    np.testing.assert_array_equal(embedder.embed("red green blue " * 5000), embedder.embed("red green blue"))
    for text in ("", " \n"):
        assert embedder.embed(text).tolist() == [0.0] * 4
    signal = Embedding(embedder=embedder)
    assert signal.read(Query.ask(" ")).confidence == 0.0
    reading = signal.read(Query.ask("red"))
    assert reading.confidence == 1.0
    np.testing.assert_array_equal(vector(reading), embedder.embed("red"))


@pytest.mark.usefixtures("needs")
def test_a_copy_shares_what_is_loaded(tmp_path: Path) -> None:
    embedder = Onnx(model=model(tmp_path), tokenizer=tokenizer(tmp_path))
    embedder.embed("red")
    copy = embedder.copy()
    assert copy._loaded is embedder._loaded
    assert copy.digest() == embedder.digest()
    assert not embedder.state()


@pytest.mark.usefixtures("needs")
def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    good, words = model(tmp_path), tokenizer(tmp_path)
    broken = tmp_path / "broken"
    broken.write_text("nothing of the kind")
    strange = tmp_path / "strange"
    strange.mkdir()
    for given, message in (
        ({"model": str(broken), "tokenizer": words}, "no ONNX model"),
        ({"model": good, "tokenizer": str(broken)}, "no tokenizer.json"),
        ({"model": model(strange, inputs=("input_ids", "pixels")), "tokenizer": words}, "asks for pixels"),
    ):
        with pytest.raises(ConfigError, match=message):
            Onnx(model=given["model"], tokenizer=given["tokenizer"]).embed("red")
    small = tokenizer(tmp_path, model={"type": "WordLevel", "vocab": {"red": 99, "[UNK]": 0}, "unk_token": "[UNK]"})
    with pytest.raises(ConfigError, match="cannot read the tokens"):
        Onnx(model=good, tokenizer=small).embed("red")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    embedder = Onnx(model=str(tmp_path / "none.onnx"), tokenizer="none.json")
    with pytest.raises(ConfigError, match=r"no file .*none\.onnx"):
        embedder.embed("red")


def test_signals_of_one_config_load_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(model: str, tokenizer: str, **_: int) -> object:
        loaded.append(model)
        return object()

    monkeypatch.setattr(onnx, "load", load)
    spec = {"type": "onnx", "model": "m.onnx", "tokenizer": "t.json"}
    signals = {
        "embedding": {"embedder": spec},
        "complexity": {"embedder": spec},
        "near": {"type": "similarity", "groups": {"g": ["x"]}, "embedder": {**spec, "threads": 2}},
    }
    made = config.make({"targets": {"a": {"type": "scripted"}}, "routes": {}, "signals": signals}, folder=tmp_path)
    assert loaded == [str(tmp_path / "m.onnx")] * 2
    assert made.signals["embedding"].params()["embedder"] is made.signals["complexity"].params()["embedder"]


def test_a_config_finds_missing_files_at_the_start_from_its_folder(tmp_path: Path) -> None:
    embedder = {"type": "onnx", "model": "none.onnx", "tokenizer": "none.json"}
    data = {"targets": {"a": {"type": "scripted"}}, "routes": {}, "signals": {"embedding": {"embedder": embedder}}}
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "none.onnx"))) as e:
        config.make(data, folder=tmp_path)
    assert e.value.path == "$.signals.embedding.embedder.model"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime: pip install 'fairlead\[onnx\]'"):
        Onnx(model=str(tmp_path / "m"), tokenizer=str(tmp_path / "m")).embed("red")


def test_making_one_loads_nothing() -> None:
    code = (
        "import sys; from fairlead.embeddings.onnx import Onnx; Onnx.example().digest();"
        "print([m for m in ('onnxruntime', 'tokenizers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
