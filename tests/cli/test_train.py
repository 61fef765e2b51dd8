"""``fairlead train`` and ``fairlead bench --model``: what was trained is kept, and not judged on what it saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fairlead.bench.evaluate import catalogued
from fairlead.bench.training import load
from fairlead.build import build, trained
from fairlead.cli import main
from fairlead.plans.accept import MeanLogprob
from fairlead.plans.cascade import Cascade
from fairlead.pool import Pool
from fairlead.types import Query, Target


def write(path: Path, n: int = 60, *, first: int = 0, models: tuple[str, ...] = ("big", "small")) -> Path:
    rng = np.random.default_rng(first)
    with path.open("w") as file:
        for i in range(first, first + n):
            for m in models:
                quality = float(rng.random() < (0.9 if m == "big" else 0.5))
                row = {"query_id": f"{path.stem}{i}", "prompt": f"question {i}", "model": m, "quality": quality}
                row |= {"cost_usd": 1.0 if m == "big" else 0.1, "split": "train" if i % 2 else "test"}
                file.write(json.dumps(row) + "\n")
    return path


def test_train_then_judge_on_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, other = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", first=50)
    out = tmp_path / "model"
    assert (
        main(["train", str(table), "--predictor", "knn", "--set", "k=7", "--signals", "length,marks", "-o", str(out)])
        == 0
    )
    assert "60 queries and 2 models" in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["predictor"]["k"] == 7
    assert manifest["models"] == ["big", "small"]
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    predictor, seen = load(out)
    assert predictor.digest() == manifest["digest"] == trained(out).digest()
    assert len(seen.ids) == len(seen.prompts) == 60

    # Ten of the other table's prompts were trained on, under other ids.
    assert main(["bench", str(other), "--model", str(out)]) == 1
    assert "10 of 60 queries were trained on" in capsys.readouterr().err
    assert main(["bench", str(other), "--model", str(out), "--skip-seen", "--resamples", "50"]) == 0
    assert "50 queries judged" in capsys.readouterr().out
    assert main(["bench", str(table), "--model", str(out), "--skip-seen"]) == 1
    assert "every query" in capsys.readouterr().err


def test_strangers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["train", str(write(tmp_path / "a.jsonl")), "--predictor", "mean", "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["needs"] == ["length"]
    strangers = write(tmp_path / "c.jsonl", first=500, models=("x", "y"))
    assert main(["bench", str(strangers), "--model", str(out)]) == 1
    assert "knows none of the table's models; it knows big, small" in capsys.readouterr().err
    (out / "seen.json").unlink()
    assert main(["bench", str(strangers), "--model", str(out)]) == 1
    assert "train again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "leav=3"], "did you mean 'leaf'"),
        (["--set", "k"], "not KEY=VALUE"),
        (["--set", "k=[1"], "not YAML"),
        (["--only-split", "dev"], "there are: test, train"),
        (["--models", "bigg"], "did you mean 'big'"),
        (["--signals", "lenght"], "did you mean 'length'"),
    ],
)
def test_mistakes_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    table = write(tmp_path / "a.jsonl", 6)
    assert main(["train", str(table), *more, "-o", str(tmp_path / "m")]) == 1
    assert message in capsys.readouterr().err


def test_only_one_split(tmp_path: Path) -> None:
    table = write(tmp_path / "a.jsonl")
    assert main(["train", str(table), "--only-split", "train", "--predictor", "mean", "-o", str(tmp_path / "m")]) == 0
    assert len(load(tmp_path / "m")[1].ids) == 30


def test_cascades_are_trained_with_the_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in write(tmp_path / "a.jsonl").read_text().splitlines()]
    table = tmp_path / "sure.jsonl"
    table.write_text("".join(json.dumps(r | {"sure": r["quality"]}) + "\n" for r in rows))
    out = tmp_path / "policy"
    arguments = [
        "train",
        str(table),
        "--predictor",
        "knn",
        "--confidence-column",
        "sure",
        "--accept",
        "confidence",
        "--usd-weight",
        "0.1",
    ]
    assert main([*arguments, "-o", str(out)]) == 0
    assert "{trained: " in capsys.readouterr().out
    policy = build("policies", {"trained": str(out)})
    policy.check()
    assert policy.objective.usd_weight == 0.1
    # `small` knows when it is wrong, so that asking it first is as good as `big`, and cheaper.
    query = Query.ask("question 7")
    signals = catalogued(policy.needs).read(query, policy.needs)
    decision = policy.decide(query, signals, Pool(targets=[Target(name="big"), Target(name="small")]))
    assert decision.plan.targets() == ("small", "big")
    plain = ["train", str(table), "--predictor", "knn", "-o", str(out)]
    assert main([*plain, "--confidence-column", "nothing", "--accept", "confidence"]) == 1
    assert "nothing" in capsys.readouterr().err
    # No live target reports a column: what stands for it when serving must be said, or be plain from its name.
    assert main([*plain, "--confidence-column", "sure"]) == 1
    assert "mean_logprob or confidence" in capsys.readouterr().err
    table.write_text(table.read_text().replace('"sure"', '"sure_logprob"'))
    assert main([*plain, "--confidence-column", "sure_logprob"]) == 0
    served = build("policies", {"trained": str(out)})
    tests = {type(p.accept) for p in served.plans.values() if isinstance(p, Cascade)}
    assert tests == {MeanLogprob}
    assert main(["bench", str(write(tmp_path / "other.jsonl", first=900)), "--model", str(out)]) == 1
    assert "portfolio" in capsys.readouterr().err
