"""``fairlead adopt``, end to end: a scripted target is asked at most 30 prompts, graded, and known afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairlead.bench.training import load
from fairlead.cli import main
from fairlead.cli.adopt import grader
from fairlead.errors import ConfigError
from fairlead.testing import TARGETS, toy

CONFIG = """
targets:
  ant: {type: scripted}
  bee: {type: scripted}
  new:
    type: scripted
    replies: ["The answer is (B)", "The answer is (C)", "The answer is (B)", "B."]
    profile: {input_usd_per_mtok: 1.0, output_usd_per_mtok: 2.0}
  broken:
    type: scripted
    replies: [{error: {kind: unavailable, message: down for good}}]
    profile: {input_usd_per_mtok: 1.0, output_usd_per_mtok: 2.0}
  slow:
    type: scripted
    replies: [{error: {kind: timeout, message: too slow}}, "The answer is (B)"]
    profile: {input_usd_per_mtok: 1.0, output_usd_per_mtok: 2.0}
  unpriced: {type: scripted, replies: ["The answer is (B)"]}
routes:
  auto: {policy: {type: utility, predictor: {trained: model}}}
"""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table = toy(queries=90)
    with (tmp_path / "table.jsonl").open("w") as file:
        for q, prompt in enumerate(table.prompts):
            for m in (0, 1):
                row = {"query_id": f"q{q}", "prompt": prompt, "model": TARGETS[m].name, "reference": "B"}
                file.write(json.dumps({**row, "quality": round(float(table.quality_QM[q, m]), 3)}) + "\n")
    Path("fairlead.yaml").write_text(CONFIG)
    more = ["--set", "l2=5", "--signals", "length,marks"]
    assert main(["train", "table.jsonl", "--predictor", "irt", *more, "-o", "model"]) == 0
    return tmp_path


def adopt(*more: str, target: str = "new") -> int:
    return main(["adopt", "--target", target, "--prompts", "table.jsonl", "--trained", "model", "-o", "out", *more])


def test_a_new_target_is_known_after_thirty_calls(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert adopt("--grader", "choice", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["calls"] == found["graded"] == 30
    assert 0.0 < found["usd"] < 0.01
    assert "30 calls to new" in said.err
    assert found["low"] < 0.75 < found["high"]
    assert found["high"] - found["low"] < found["before_high"] - found["before_low"]
    before, _ = load("model")
    predictor, seen = load("out")
    assert predictor.targets_ == ["ant", "bee", "new"]
    assert before.targets_ == ["ant", "bee"]
    manifest = json.loads((house / "out" / "manifest.json").read_text())
    assert manifest["digest"] == predictor.digest()
    assert manifest["models"] == ["ant", "bee", "new"]
    assert len(seen.ids) == 90
    Path("fairlead.yaml").write_text(CONFIG.replace("trained: model", "trained: out"))
    assert main(["validate", "fairlead.yaml"]) == 0
    assert adopt() == 0
    capsys.readouterr()
    assert main(["adopt", "--target", "new", "--prompts", "table.jsonl", "--trained", "out", "-o", "twice"]) == 1
    assert "known already" in capsys.readouterr().err


def test_money_is_kept(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert adopt("--grader", "choice", "--max-usd", "0.015", "--json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert 0 < found["calls"] < 30
    assert found["usd"] <= 0.015
    assert "stopped by --max-usd" in said.err
    assert adopt("--max-usd", "0.0001") == 1
    assert "raise --max-usd" in capsys.readouterr().err


def test_money_is_kept_where_prices_are_unknown_or_calls_are_abandoned(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert adopt("--grader", "choice", target="unpriced") == 1
    refused = capsys.readouterr().err
    assert "give its profile prices" in refused
    assert "calls to" not in refused
    assert adopt("--grader", "choice", "--max-usd", "inf", target="unpriced") == 0
    assert "30 calls to unpriced, 0.000000 USD, 30 calls at no known price" in capsys.readouterr().err
    assert adopt("--max-usd", "nan") == 1
    # A call that timed out may be billed all the same: it is charged what it may cost.
    assert adopt("--grader", "choice", "--max-usd", "0.015", "--json", target="slow") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["graded"] < found["calls"] < 30
    assert 0.002 * (found["calls"] - found["graded"]) < found["usd"] <= 0.015
    assert "stopped by --max-usd" in said.err


def test_a_grader_that_breaks_costs_no_answer_but_its_own(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (house / "graders.py").write_text(
        "def some(prompt, answer, reference):\n"
        "    if '(C)' in answer:\n        raise KeyError('no such answer')\n    return 1.0\n"
        "def high(prompt, answer, reference):\n    return 2.0\n"
    )
    monkeypatch.syspath_prepend(str(house))
    capsys.readouterr()
    assert adopt("--grader", "graders:some", "--json") == 0
    said = capsys.readouterr()
    assert 0 < json.loads(said.out)["graded"] < 30
    assert "30 calls to new" in said.err
    assert "the grader broke: KeyError: 'no such answer'" in said.err
    assert adopt("--grader", "graders:high") == 1
    said = capsys.readouterr()
    assert "30 calls to new" in said.err
    assert "it gave 2.0; a quality lies in [0, 1]" in said.err


def test_a_target_that_fails_is_given_up_after_a_batch(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adopt(target="broken") == 1
    said = capsys.readouterr().err
    assert "5 calls to broken" in said
    assert "down for good" in said
    assert not (house / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--calls", "31"], "1 … 30"),
        (["--grader", "vibes"], "module:function"),
        (["--grader", "no_such_module_here:f"], "PYTHONPATH"),
        (["--reference", "refrence"], "did you mean 'reference'"),
    ],
)
def test_mistakes_are_explained(house: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert adopt(*more) == 1
    assert message in capsys.readouterr().err


def test_a_method_that_cannot_says_so(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "table.jsonl", "--predictor", "ridge", "--signals", "length", "-o", "model"]) == 0
    assert adopt() == 1
    assert "`irt` and `profile` do" in capsys.readouterr().err
    assert adopt(target="nobody") == 1


def test_graders() -> None:
    number = grader("number")
    assert number("", "so 1,000", "1000.0") == 1.0
    assert number("", "so 12", "13") == 0.0
    assert number("", "so 12", None) is None
    assert grader("text")("", " Paris.", "paris") == 1.0
    assert grader("operator:add") is not None
    with pytest.raises(ConfigError, match="not a function"):
        grader("math:pi")
