"""Write a BERT-like sentence encoder, kept as safetensors, as the ONNX model that the embedder `onnx` reads. Without
torch.

    python benchmarks/bert_to_onnx.py FOLDER OUT.onnx

FOLDER holds ``config.json`` and ``model.safetensors`` of a `BertModel` (Devlin et al. 2018, arXiv:1810.04805) with
absolute positions and the exact GELU, such as all-MiniLM-L6-v2 or most of its kin. Nothing is executed that the folder
brings. Needs `onnx`.

Shapes: B texts, L tokens, E numbers, H heads.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}


def tensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file: a length, a header in JSON, raw numbers."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    found = {}
    for name, of in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__":
            start, stop = of["data_offsets"]
            data = np.frombuffer(raw[8 + length + start : 8 + length + stop], DTYPES[of["dtype"]])
            found[name] = data.reshape(of["shape"])
    return found


class Graph:
    """Nodes and constants under construction; each method returns the name of what it adds."""

    def __init__(self, weights: dict[str, Any], epsilon: float) -> None:
        self.weights, self.epsilon = weights, epsilon
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def op(self, kind: str, *inputs: str, **options: Any) -> str:
        """Add a node."""
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **options))
        return name

    def constant(self, name: str, value: Any) -> str:
        """Add a constant, once for each name."""
        self.constants[name] = np.asarray(value, order="C")
        return name

    def number(self, value: float) -> str:
        """Add a single float."""
        return self.constant(f"number_{value}", np.float32(value))

    def weight(self, name: str, *, turned: bool = False) -> str:
        """Add a learned array as float32, transposed if `turned`."""
        value = self.weights[name].astype(np.float32)
        return self.constant(name, value.T if turned else value)

    def linear(self, x: str, part: str) -> str:
        """Add x W' + b."""
        return self.op(
            "Add", self.op("MatMul", x, self.weight(f"{part}.weight", turned=True)), self.weight(f"{part}.bias")
        )

    def norm(self, x: str, part: str) -> str:
        """Add a layer normalisation."""
        weights = self.weight(f"{part}.weight"), self.weight(f"{part}.bias")
        return self.op("LayerNormalization", x, *weights, axis=-1, epsilon=self.epsilon)


def encoder(config: dict[str, Any], weights: dict[str, Any]) -> Graph:
    """Lay out the whole encoder; the last node gives the vectors of the tokens, (B, L, E)."""
    if config.get("hidden_act") != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
        raise SystemExit(
            "bert_to_onnx.py: only BERT with gelu and absolute positions can be written; export it with its own library"
        )
    heads, width = config["num_attention_heads"], config["hidden_size"]
    g = Graph(weights, config["layer_norm_eps"])
    word = g.op("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    kind = g.op("Gather", g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    length = g.op("Gather", g.op("Shape", "input_ids"), g.constant("axis_1", np.asarray([1])))
    first = g.constant("axis_0", np.asarray([0]))
    place = g.op("Slice", g.weight("embeddings.position_embeddings.weight"), first, length, first)
    x = g.norm(g.op("Add", g.op("Add", word, kind), place), "embeddings.LayerNorm")
    mask = g.op("Cast", g.op("Unsqueeze", "attention_mask", g.constant("axes_12", np.asarray([1, 2]))), to=1)
    hide = g.op("Mul", g.op("Sub", g.number(1.0), mask), g.number(-1e9))
    apart = g.constant("apart", np.asarray([0, 0, heads, width // heads]))
    together = g.constant("together", np.asarray([0, 0, width]))
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            g.op("Transpose", g.op("Reshape", g.linear(x, f"{layer}.attention.self.{name}"), apart), perm=order)
            for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scores = g.op("Div", g.op("MatMul", q, k), g.number(float(np.sqrt(width // heads))))
        seen = g.op("MatMul", g.op("Softmax", g.op("Add", scores, hide), axis=-1), v)
        seen = g.op("Reshape", g.op("Transpose", seen, perm=[0, 2, 1, 3]), together)
        x = g.norm(
            g.op("Add", g.linear(seen, f"{layer}.attention.output.dense"), x), f"{layer}.attention.output.LayerNorm"
        )
        z = g.linear(x, f"{layer}.intermediate.dense")
        bent = g.op("Add", g.op("Erf", g.op("Div", z, g.number(float(np.sqrt(2.0))))), g.number(1.0))
        z = g.op("Mul", g.op("Mul", z, g.number(0.5)), bent)
        x = g.norm(g.op("Add", g.linear(z, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")
    return g


def main() -> int:
    """Read, lay out, check, write."""
    if len(sys.argv) != 3:
        print((__doc__ or "").split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    import onnx
    from onnx import helper, numpy_helper

    folder = Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    g = encoder(config, tensors(folder / "model.safetensors"))
    g.nodes[-1].output[0] = "last_hidden_state"
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        g.nodes,
        "bert",
        [helper.make_tensor_value_info(n, onnx.TensorProto.INT64, ["batch", "tokens"]) for n in inputs],
        [
            helper.make_tensor_value_info(
                "last_hidden_state", onnx.TensorProto.FLOAT, ["batch", "tokens", config["hidden_size"]]
            )
        ],
        [numpy_helper.from_array(v, n) for n, v in g.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
