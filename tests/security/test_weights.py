"""Weights, checkpoints and learned state are numbers: nothing that is read can run code, and what ships is what was looked at."""

import ast
import hashlib
import io
import os
import pickle
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.component import StateError, unpack, unpack_apart
from fairlead.config import load
from fairlead.detect import injection
from fairlead.errors import ConfigError, StoreError
from fairlead.lab import eye, shapes
from fairlead.policies.epsilon_greedy import EpsilonGreedy
from fairlead.sqlite import SQLiteStore

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/fairlead").rglob("*.py"))
SUMS = Path(__file__).with_name("weights.sha256")
CODE = frozenset({"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"})
"""Modules that make objects, and so calls, out of bytes."""


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    planted = Planted(tmp_path / "it ran")
    assert np.load(io.BytesIO(npz(planted, "x")), allow_pickle=True)["x"].dtype == object
    assert planted.mark.exists(), "it works where pickles are read"
    planted.mark.rmdir()
    return planted


def npz(planted: Planted, *names: str) -> bytes:
    """A file of arrays of which each is a pickle."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **{name: np.array([planted], dtype=object) for name in names})
    return file.getvalue()


def calls(tree: ast.AST) -> Any:
    """Yield (the call as it is written, its keywords)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}, node


def test_nothing_in_the_package_reads_what_could_be_code() -> None:
    """No module for pickles, no array file with them, no checkpoint but of tensors, no YAML that makes objects, no evaluation of text."""
    arrays = 0
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not CODE & {n.partition(".")[0] for n in names}, (path, names)
        for name, keywords, node in calls(tree):
            if name in ("np.load", "numpy.load"):
                arrays += 1
                assert keywords.get("allow_pickle") == "False", (path, node.lineno)
            if name == "torch.load":
                assert keywords.get("weights_only") == "True", (path, node.lineno)
            if name in ("yaml.load", "yaml.load_all"):
                assert [ast.unparse(a) for a in node.args[1:]] == ["_Loader"], (path, node.lineno)
            assert name not in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load", "__import__"), (path, node.lineno)
            assert keywords.get("allow_pickle") in (None, "False"), (path, node.lineno)
    assert arrays >= 3


def test_a_pickle_in_a_file_of_weights_is_refused(
    tmp_path: Path, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the lab's, the eye's and the detector's, and where a pickle stands in the file's place."""
    names = (*shapes.ARRAY_NAMES, "document", "w1", "b1", "w2", "b2", "weight_V", "mix_F")
    for bad in (npz(planted, *names), pickle.dumps(planted), pickle.dumps({"weight_V": planted})):
        file = tmp_path / "injection.npz"
        file.write_bytes(bad)
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            shapes.load_weights(file)
        with monkeypatch.context() as patch:
            patch.setattr(eye, "WEIGHTS", file)
            eye.eye.cache_clear()
            with pytest.raises((ValueError, zipfile.BadZipFile)):
                eye.eye()
            patch.setattr(resources, "files", lambda _: tmp_path)
            injection.shipped.cache_clear()
            with pytest.raises((ValueError, zipfile.BadZipFile)):
                injection.shipped()
        assert not planted.mark.exists()
    eye.eye.cache_clear()
    injection.shipped.cache_clear()
    assert eye.eye()
    assert injection.shipped()


def test_a_pickle_in_learned_state_is_refused(tmp_path: Path, planted: Planted) -> None:
    """As state, as an array of it (of objects, too), and in the store, where a version of a policy stood."""
    code = pickle.dumps(planted)
    pack = msgspec.msgpack.encode
    for kind in ("O", "|O", "V8", "O8", "<M8[us]", "object"):
        head = pack((kind, (1,)))
        bad = msgspec.msgpack.Ext(1, len(head).to_bytes(2, "big") + head + code)
        for state in (code, pack(bad), pack({"x_": bad}), pack(msgspec.msgpack.Ext(77, code))):
            for read in (unpack, lambda s: unpack_apart(s, lambda _: code)):
                try:
                    found = read(state)
                except StateError:
                    continue
                assert not isinstance(found, dict | Planted) or found["x_"].dtype.kind != "O"
    store = SQLiteStore(tmp_path / "s.sqlite")
    store.start()
    policy = EpsilonGreedy()
    store.save_policy("auto", policy.spec(), policy.state(), note="x")
    (version,) = store.versions("auto")
    assert store.load_policy(version.digest)
    work = "UPDATE artifacts SET body = ?, deflated = 0 WHERE kind = 'policy'"
    store._blocking("plant", lambda connection, _: connection.execute(work, (code,)))
    with pytest.raises(StoreError, match="cannot be read"):
        store.load_policy(version.digest)
    store.stop()
    assert not planted.mark.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir", "!!python/module:os"])  # fmt: skip
def test_yaml_makes_no_objects(tmp_path: Path, tag: str) -> None:
    mark = tmp_path / "it ran"
    (tmp_path / "c.yaml").write_text(f"targets: {tag} [{str(mark)!r}]\n")
    with pytest.raises(ConfigError):
        load(tmp_path / "c.yaml")
    assert not mark.exists()


def test_the_weights_that_ship_are_those_that_were_looked_at() -> None:
    """Each file of weights in the package, by its check sum (`sha256sum -c`); after training anew, write them again, knowingly."""
    listed = dict(line.split("  ")[::-1] for line in SUMS.read_text().splitlines())
    there = sorted(
        p
        for p in (ROOT / "src/fairlead").rglob("*")
        if p.suffix in (".npz", ".npy", ".onnx", ".bin", ".pt", ".safetensors")
    )
    assert [str(p.relative_to(ROOT)) for p in there] == sorted(listed)
    for path in there:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[str(path.relative_to(ROOT))], path
