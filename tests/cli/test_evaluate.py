"""`fairlead evaluate` estimates from a store or a table, and refuses with exit code 1 where it cannot."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fairlead.cli import main
from fairlead.plans.single import Single
from fairlead.policies.random import Random
from fairlead.pool import Pool
from fairlead.sqlite import SQLiteStore
from fairlead.types import Feedback, Option, Outcome, Query, Reading, Signals, Target, Trace

CHANCE = {"ant": 0.4, "bee": 0.9}
PRICE = {"ant": 0.001, "bee": 0.01}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of 400 decisions by chance, all judged; a shadow would always take the bee."""
    path = tmp_path_factory.mktemp("evaluate") / "traces.db"
    store, pool = SQLiteStore(path), Pool(targets=[Target(name=n) for n in CHANCE])
    rng = np.random.default_rng(0)
    store.start()
    store.save_pool(pool.digest, pool.targets)

    async def fill() -> None:
        for i in range(400):
            query = Query(id=f"q{i}", messages=())
            decision = Random().decide(query, Signals(), pool)
            shadow = (Option(plan=Single(target="bee"), probability=1.0),)
            name = decision.plan.targets()[0]
            await store.append(
                Trace(
                    id=query.id,
                    at=float(i),
                    query=query,
                    signals=Signals(readings={"length": Reading(value=i % 40)}),
                    decision=msgspec.structs.replace(decision, shadow=shadow),
                    outcome=Outcome(text="x", target=name, finish="stop", usd=PRICE[name]),
                    usd=PRICE[name],
                    seconds=1.0,
                )
            )  # type: ignore[misc]
            await store.add_feedback(Feedback(trace_id=query.id, value=float(rng.random() < CHANCE[name])))

    asyncio.run(fill())
    store.stop()
    return str(path)


def test_a_policy_in_words(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--log", log, "--policy", "{type: fixed, plan: bee}"]) == 0
    said = capsys.readouterr().out
    assert "400 decisions in 400 groups" in said
    assert "quality: known of 400 of 400" in said
    assert "intervals: normal, 95%" in said
    assert "bee  new 100.0%" in said


def test_a_config_file_and_json(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(
        "targets: {ant: {type: scripted}, bee: {type: scripted}}\n"
        "routes: {auto: {policy: {type: utility, predictor: mean, objective: {usd_weight: 10}, explore: 0.2}}}\n"
    )
    assert main(["evaluate", "--log", log, "--policy", str(file), "--json", "--interval", "bootstrap"]) == 0
    found = json.loads(capsys.readouterr().out)
    answers = {a["what"]: a for a in found["answers"]}
    assert set(answers) == {"quality", "usd", "seconds", "utility"}
    by = {e["method"]: e["value"] for e in answers["utility"]["estimates"]}
    # A mean that has learned nothing knows no difference: half and half.
    assert by["dr"]["low"] < 0.65 - 10 * 0.0055 < by["dr"]["high"]
    assert found["interval"] == "bootstrap"


def test_one_policy_in_a_file(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: {type: fixed, plan: ant}\n")
    objective = ["--objective", "{usd_weight: 100}", "--forecast", "knn", "--fallbacks", "leave-out"]
    assert main(["evaluate", "--log", log, "--policy", str(file), *objective]) == 1
    assert "knn reads the signals" in capsys.readouterr().err
    assert main(["evaluate", "--log", log, "--policy", str(file), *objective[:2]]) == 0
    assert "utility: known of 400" in capsys.readouterr().out


def test_a_shadow(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--log", log, "--shadow", "--json"]) == 0
    quality = json.loads(capsys.readouterr().out)["answers"][0]
    snips = next(e for e in quality["estimates"] if e["method"] == "snips")
    assert snips["value"]["low"] < 0.9 < snips["value"]["high"]
    assert snips["gain"]["low"] > 0.0


def test_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    with (tmp_path / "log.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query_id", "model", "quality", "propensity"])
        for i in range(300):
            name = "ant" if rng.random() < 0.5 else "bee"
            rows.writerow([i, name, int(rng.random() < CHANCE[name]), 0.5])
    assert main(["evaluate", "--log", str(tmp_path / "log.csv"), "--policy", "{type: fixed, plan: bee}"]) == 0
    assert "300 decisions" in capsys.readouterr().out
    assert main(["evaluate", "--log", str(tmp_path / "log.csv"), "--shadow"]) == 1
    assert "give --policy" in capsys.readouterr().err


def test_refusals_exit_with_1(log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(
        "targets: {ant: {type: scripted}, dog: {type: scripted}}\nroutes: {auto: {policy: {type: fixed, plan: dog}}}\n"
    )
    assert main(["evaluate", "--log", log, "--policy", str(file)]) == 1
    said = capsys.readouterr().out
    assert "REFUSED  no overlap: 100%" in said
    assert "dog" in said
    assert main(["evaluate", "--log", log, "--policy", "{type: fixed, plan: bee}", "--least-ess", "1000"]) == 1
    assert "effective sample size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either --policy FILE or --shadow"),
        (["--policy", "random", "--shadow"], "either --policy FILE or --shadow"),
        (["--policy", "nowhere.yaml"], "no such file"),
        (["--policy", "randm"], "did you mean 'random'"),
        (["--policy", "random", "--route", "other"], "400 of other routes"),
    ],
)
def test_mistakes_are_told(log: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--log", log, *words]) == 1
    assert message in capsys.readouterr().err
