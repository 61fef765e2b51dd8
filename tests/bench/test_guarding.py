"""Guards and routing judged together: on a toy whose numbers can be worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.bench.guarding import judge, to_text
from fairlead.cli import main
from fairlead.config import Config, make
from fairlead.errors import TableError, UnknownName
from fairlead.table import OutcomeTable

N = 40


def table() -> OutcomeTable:
    """Half of the prompts are long. `far` is right always, `near` on short prompts only. The guard is meant for every fourth."""
    columns: dict[str, list[Any]] = {n: [] for n in ("query_id", "prompt", "model", "quality", "cost_usd", "meant")}
    for i in range(N):
        long = i % 2
        for model, quality, usd in (("near", 1.0 - long, 0.001), ("far", 1.0, 0.01)):
            row = (f"q{i}", f"{i} " + "word " * (30 if long else 3), model, quality, usd, float(i % 4 == 1))
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return OutcomeTable.from_columns(columns, source="toy")


def config(*guards: dict[str, Any], policy: Any = None) -> Config:
    return make(
        {
            "targets": {
                "near": {"type": "scripted", "replies": ["n"], "profile": {"tags": ["local"]}},
                "far": {"type": "scripted", "replies": ["f"]},
                "elsewhere": {"type": "scripted", "replies": ["e"]},
            },
            "routes": {"auto": {"policy": policy or {"type": "rules", "default": "far"}}},
            "guards": list(guards),
        }
    )


PRIVATE = {"name": "private", "when": {"length": {"gt": 80}}, "only": ["tag:local"]}
STOP = {"name": "stop", "when": {"length": {"gt": 80}}, "do": ["block"]}


def test_what_a_guard_costs() -> None:
    found = judge(config(PRIVATE), table(), truth={"private": "meant"}, resamples=200)
    (row,) = found.rows
    assert found.quality == (0.5, 1.0)
    assert found.usd_per_1k == pytest.approx((5.5, 10.0))
    assert found.refused == (0.0, 0.0)
    assert (row.fires.count, row.fires.of) == (20, 40)
    assert row.quality.value == pytest.approx(-0.5)
    assert row.quality.low < -0.5 < row.quality.high < 0.0
    assert row.usd_per_1k is not None
    assert row.usd_per_1k.value == pytest.approx(-4.5)
    assert row.wrongly is not None
    assert row.missed is not None
    assert (row.wrongly.count, row.wrongly.of, row.missed.count, row.missed.of) == (10, 30, 0, 10)
    assert row.quality_wrongly is not None
    assert row.quality_wrongly.value == -1.0
    assert row.own_seconds > 0.0
    assert "elsewhere" in found.notes[0]
    assert "-0.5" in to_text(found)


def test_a_guard_behind_another_costs_nothing_more() -> None:
    found = judge(config(PRIVATE, {**PRIVATE, "name": "again"}), table(), resamples=50)
    assert [r.quality.value for r in found.rows] == [0.0, 0.0]
    assert [r.own_seconds for r in found.rows] == [0.0, 0.0]
    assert found.quality == (0.5, 1.0)


@pytest.mark.parametrize("name", ["all", "none"])
def test_a_guard_may_be_called_anything(name: str) -> None:
    found = judge(config({**PRIVATE, "name": name}), table(), truth={name: "meant"}, resamples=50)
    assert found.quality == (0.5, 1.0)
    assert found.rows[0].quality.value == pytest.approx(-0.5)


def test_what_is_blocked_is_refused() -> None:
    found = judge(config(STOP), table(), resamples=50)
    assert found.refused == (0.5, 0.0)
    assert found.rows[0].refuses.count == 20
    assert found.usd_per_1k == pytest.approx((5.0, 10.0))


def test_a_policy_that_draws_is_taken_in_the_mean() -> None:
    found = judge(config(policy="random"), table(), resamples=50)
    assert found.quality == pytest.approx((0.75, 0.75))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UnknownName, match="route"):
        judge(config(), table(), route="ato")
    with pytest.raises(UnknownName, match="guard"):
        judge(config(PRIVATE), table(), truth={"privat": "meant"})
    with pytest.raises(UnknownName, match="column"):
        judge(config(PRIVATE), table(), truth={"private": "ment"})
    with pytest.raises(TableError, match="among the table's models"):
        judge(
            config(),
            table()
            .with_models(["near"])
            .take([0])
            .__class__.from_columns({"query_id": ["a"], "prompt": ["x"], "model": ["other"], "quality": [1.0]}),
        )


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    t = table()
    for q, name in enumerate(t.query_ids):
        for m, model in enumerate(t.models):
            rows.append(
                {"query_id": name, "prompt": t.prompts[q], "model": model, "quality": float(t.quality_QM[q, m]),
                 "cost_usd": float(t.usd_QM[q, m]), "meant": q % 4 == 1}
            )  # fmt: skip
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "c.yaml").write_text(
        "targets:\n  near: {type: scripted, replies: [n], profile: {tags: [local]}}\n  far: {type: scripted, replies: [f]}\n"
        "routes: {auto: {policy: {type: fixed, plan: far}}}\n"
        "guards: [{name: stop, when: {length: {gt: 80}}, do: [block]}]\n"
    )
    arguments = [
        "guards",
        str(tmp_path / "c.yaml"),
        str(tmp_path / "t.jsonl"),
        "--truth",
        "stop=meant",
        "--resamples",
        "50",
    ]
    assert main(arguments) == 0
    assert "fires wrongly on    33.3%" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["wrongly"]["count"] == 10
    assert main([*arguments[:3], "--truth", "stop"]) == 1
