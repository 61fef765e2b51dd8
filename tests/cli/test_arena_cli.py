"""``fairlead arena``: from queries to a scored submission, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fairlead.cli import main


@pytest.fixture
def trained(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    lines = ["query_id,prompt,model,quality,cost_usd"]
    for i in range(60):
        for m, usd in (("big", 0.01), ("small", 0.001)):
            lines.append(f"{i},question {i},{m},{int(rng.random() < 0.6)},{usd}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(lines))
    assert main(["train", str(table), "--predictor", "mean", "-o", str(tmp_path / "p")]) == 0
    return str(tmp_path / "p")


def ask(path: Path, prompts: list[str]) -> str:
    path.write_text(json.dumps([{"global index": f"Q_{i}", "prompt_formatted": p} for i, p in enumerate(prompts)]))
    return str(path)


def test_export_check_score(trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ask(tmp_path / "q.json", ["one?", "two?"])
    reworded = ask(tmp_path / "r.json", ["one, please?", "two, please?"])
    out = tmp_path / "out"
    common = ["--trained", trained, "--usd-weight", "1000", "--rename", "small=small-8b", "--name", "mine"]
    files = ["--robustness", reworded, "--optimality", asked]
    assert main(["arena", "export", asked, *common, *files, "-o", str(out)]) == 0
    predictions = out / "predictions" / "mine.json"
    config = str(out / "config" / "mine.json")
    assert main(["arena", "check", str(predictions), "--config", config, "--queries", asked]) == 0
    assert main(["arena", "check", str(predictions), "--split", "sub_10"]) == 1
    assert "809" in capsys.readouterr().out
    entries = json.loads(predictions.read_text())
    assert {e["prediction"] for e in entries if not e["for_optimality"]} == {"small-8b"}
    for e in entries:
        e["accuracy"], e["cost"] = 1.0, 0.001 if e["prediction"] == "small-8b" else 0.01
    predictions.write_text(json.dumps(entries))
    robust = str(out / "predictions" / "mine-robustness.json")
    assert main(["arena", "score", str(predictions), "--robustness", robust]) == 0
    said = capsys.readouterr().out
    assert "Opt.Sel" in said
    assert "oracle" in said
    assert main(["arena", "score", str(predictions), "--robustness", robust, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["robustness"], found["counted"]["optimal_selection"]) == (1.0, 1.0)


def test_nothing_trained_on_the_arena_decides_it(
    trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ask(tmp_path / "q.json", ["Question  7"])
    assert main(["arena", "export", asked, "--trained", trained, "--name", "x", "-o", str(tmp_path)]) == 1
    assert "evaluation alone" in capsys.readouterr().err


def test_a_route_decides_and_a_chain_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ask(tmp_path / "q.json", ["one?"])
    config = tmp_path / "fairlead.yaml"
    config.write_text(
        "targets: {a: {type: scripted}, b: {type: scripted}}\n"
        "routes:\n  auto: {policy: {type: fixed, plan: b}}\n"
        "  chain: {policy: {type: fixed, plan: {kind: vote, members: [{kind: single, target: a}, {kind: single, target: b}]}}}\n"
        f"store: {{path: {tmp_path / 's.db'}}}\n"
    )
    args = ["arena", "export", asked, "--config", str(config), "--name", "x", "-o", str(tmp_path)]
    assert main(args) == 0
    assert "b 1" in capsys.readouterr().out
    assert main([*args, "--route", "chain"]) == 1
    assert "one model" in capsys.readouterr().err
    assert main([*args, "--rename", "c=d"]) == 1
    assert main([*args, "--rename", "c"]) == 1
    assert main(["arena", "export", asked, "--name", "x", "-o", str(tmp_path)]) == 1
