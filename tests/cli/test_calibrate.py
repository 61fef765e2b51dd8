"""``fairlead calibrate`` and ``fairlead pareto``: from a table to a promise that a router serves and a weight to pick."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fairlead.cli import main
from fairlead.config import load
from fairlead.policies.promise import Promise
from fairlead.prove import replay_decision
from fairlead.types import Query

CONFIG = """
targets:
  big: {type: scripted, replies: [big], profile: {input_usd_per_mtok: 10, output_usd_per_mtok: 10}}
  small: {type: scripted, replies: [small], profile: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}
routes:
  auto: {policy: {type: promise, predictor: {trained: router}, keep: 0.9, explore: 0.1}}
  served: {policy: POLICY}
store: {path: traces.sqlite}
"""


def write(path: Path, n: int = 600) -> Path:
    """Short questions both get right; long ones the big target does."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for i in range(n):
            prompt = f"question {i}" + (" and what follows from it" * 40 if i % 3 == 0 else "")
            for model, p in (("big", 0.95), ("small", 0.2 if i % 3 == 0 else 0.95)):
                row = {"query_id": f"q{i}", "prompt": prompt, "model": model, "quality": float(rng.random() < p)}
                row |= {"cost_usd": 0.01 if model == "big" else 0.001, "split": "train" if i % 2 else "test"}
                file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = write(tmp_path / "table.jsonl")
    train = ["train", str(table), "--predictor", "knn", "--signals", "length", "--only-split", "train"]
    assert main([*train, "-o", str(tmp_path / "router")]) == 0
    (tmp_path / "fairlead.yaml").write_text(CONFIG.replace("POLICY", "random"))
    return tmp_path


def calibrate(folder: Path, *more: str) -> int:
    command = ["calibrate", str(folder / "table.jsonl"), "--config", str(folder / "fairlead.yaml")]
    return main([*command, "-o", str(folder / "kept"), *more])


async def test_a_promise_is_calibrated_and_served(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(folder, "--only-split", "test") == 0
    assert "at least 90% of big's quality with 95% confidence, tested on 300 queries" in capsys.readouterr().out
    (folder / "fairlead.yaml").write_text(CONFIG.replace("POLICY", "{trained: kept}"))
    config = load(folder / "fairlead.yaml")
    promise = config.policies["served"]
    assert isinstance(promise, Promise)
    assert promise.reference_ == "big"
    assert promise.weight_ > 0.0
    async with config.router() as router:
        answers = []
        for i in range(30):
            query = Query.ask("a short one", id=f"s{i}")
            query = type(query)(id=query.id, messages=query.messages, body=query.body, route="served")
            outcome, trace = await router.handle(query)
            answers.append(outcome.text)
            assert replay_decision(trace, router.store).same
            assert "promise of 90% of big's quality" in trace.decision.reasons[0]
    assert answers.count("small") > 20


def test_queries_that_were_trained_on_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(folder) == 1
    assert "300 of 600 queries were trained on" in capsys.readouterr().err
    assert calibrate(folder, "--skip-seen", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["queries"] == 300
    assert told["reference"] == "big"
    assert told["amount"] < 0.7
    seen = json.loads((folder / "kept" / "seen.json").read_text())
    assert len(seen["ids"]) == 600


def test_what_cannot_be_calibrated_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(folder, "--route", "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err
    assert calibrate(folder, "--route", "served") == 1
    assert "holds 0 promises" in capsys.readouterr().err
    assert calibrate(folder, "--only-split", "none") == 1
    assert "no query has the split" in capsys.readouterr().err
    (folder / "fairlead.yaml").write_text(CONFIG.replace("POLICY", "{trained: kept}"))
    assert calibrate(folder) == 1
    assert "make one with `fairlead calibrate`" in capsys.readouterr().err


def test_where_nothing_can_be_promised_it_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "fairlead.yaml").read_text()
    (folder / "fairlead.yaml").write_text(text.replace("keep: 0.9", "keep: 1.0"))
    assert calibrate(folder, "--skip-seen") == 0
    assert "big will serve alone" in capsys.readouterr().out


def test_pareto_prints_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["pareto", str(folder / "table.jsonl"), "--signals", "length", "--resamples", "50"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "usd_weight" in out
    assert "best single target: big" in out
    assert main([*command, "--json", "--set", "leaf=20"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert points[0]["usd"]["value"] > points[-1]["usd"]["value"]


def test_validate_warns_of_what_cannot_be_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "fairlead.yaml"
    assert main(["validate", str(path)]) == 0
    assert "route auto holds a promise that was not calibrated" in capsys.readouterr().out
    kept = CONFIG.replace("POLICY", "{type: budget, predictor: knn, usd: 1}").replace(
        ", profile: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}", ""
    )
    path.write_text(kept)
    assert main(["validate", str(path)]) == 0
    assert "route served has a budget, and no price is known for small" in capsys.readouterr().out
