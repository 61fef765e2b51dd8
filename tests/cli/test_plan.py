"""fairlead plan: plans from a file on a table, gates by name, clear errors."""

import json
from pathlib import Path

import pytest

from fairlead.bench.training import save, train
from fairlead.cli import main
from fairlead.testing import toy


@pytest.fixture
def table(tmp_path: Path) -> str:
    t = toy(queries=60)
    rows = [
        {
            "query_id": t.query_ids[q],
            "prompt": t.prompts[q],
            "model": model,
            "quality": float(t.quality_QM[q, m]),
            "cost_usd": float(t.usd_QM[q, m]),
            "latency_s": 0.1,
            "sure": float(t.quality_QM[q, m]),
            "response": "yes",
        }
        for q in range(len(t))
        for m, model in enumerate(t.models)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def plans(tmp_path: Path, text: str) -> str:
    path = tmp_path / "plans.yaml"
    path.write_text(text)
    return str(path)


def test_plans_are_compared_with_single_calls(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plans(
        tmp_path, "alone: ant\ncareful: {kind: cascade, steps: [ant, bee], accept: {kind: confidence, above: 0.6}}\n"
    )
    assert main(["plan", file, table, "--confidence-column", "sure", "--json", "--resamples", "50"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {r["name"]: r for r in found["rows"]}
    assert set(rows) == {"ant", "bee", "cat", "alone", "careful"}
    assert rows["alone"]["quality"] == rows["ant"]["quality"]
    assert rows["careful"]["gain"]["low"] > 0.0
    assert 1.0 < rows["careful"]["calls"] < 2.0
    assert main(["plan", file, table, "--confidence-column", "sure", "--resamples", "20"]) == 0
    assert "gain over mixing" in capsys.readouterr().out


def test_gates_are_asked_and_what_they_have_seen_is_left_out(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor, manifest, seen = train(toy(queries=60).take(range(20)), {"type": "ridge"})
    save(tmp_path / "m", predictor, manifest, seen)
    file = plans(tmp_path, "kind: modality\ntext: ant\nimage: bee\ngate: ways\n")
    assert main(["plan", file, table, "--gate", f"ways={tmp_path / 'm'}", "--json", "--resamples", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["queries"], found["left_out"]) == (40, 20)
    assert found["rows"][-1]["name"] == "modality"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nobody", "by name"),
        ("a: {kind: nope}", "nope"),
        ("x: stranger", "nothing is recorded of stranger"),
        ("{", "not YAML"),
    ],
)
def test_what_is_wrong_is_told(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    assert main(["plan", plans(tmp_path, text), table]) != 0
    assert said in capsys.readouterr().err
    assert main(["plan", str(tmp_path / "none.yaml"), table]) != 0
    assert "cannot read" in capsys.readouterr().err


def test_calls_that_are_not_recorded_are_told(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plans(tmp_path, "voted: {kind: vote, members: [ant], samples: 3}\nalone: ant\n")
    assert main(["plan", file, table, "--resamples", "20"]) == 0
    out = capsys.readouterr().out
    assert "voted: 67% of its calls are not in the table" in out
    assert "alone: " not in out
