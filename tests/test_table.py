"""The outcome table: what it reads, what it refuses, and that nothing unknown becomes a number."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.build import build
from fairlead.errors import TableError, UnknownName
from fairlead.signals.base import Observer
from fairlead.table import OutcomeTable, prompt_hash

ROWS: list[dict[str, Any]] = [
    {
        "query_id": "q1",
        "prompt": "Hello  there",
        "model": "b",
        "quality": 1.0,
        "cost_usd": 0.2,
        "dataset": "x",
        "note": "n",
    },
    {
        "query_id": "q1",
        "prompt": "Hello  there",
        "model": "a",
        "quality": 0.0,
        "cost_usd": None,
        "dataset": "x",
        "own": 3,
    },
    {"query_id": "q2", "prompt": "hello there", "model": "a", "quality": None, "cost_usd": 0.1, "dataset": "y"},
    {"query_id": "q3", "prompt": "other", "model": "a", "quality": 0.5, "cost_usd": 0.1, "dataset": "y"},
]


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(k for r in rows for k in r)
    return {n: [r.get(n) for r in rows] for n in names}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(r) for r in rows))
    elif path.suffix == ".csv":
        cols = columns(rows)
        lines = [",".join(cols)]
        lines += [",".join("" if v[i] is None else str(v[i]) for v in cols.values()) for i in range(len(rows))]
        path.write_text("\n".join(lines))
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns(rows)), path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_the_three_formats_read_alike(tmp_path: Path, suffix: str) -> None:
    table = OutcomeTable.read(write(tmp_path / f"t{suffix}", ROWS))
    assert table.models == ["a", "b"]
    assert table.query_ids == ["q1", "q2", "q3"]
    np.testing.assert_equal(table.quality_QM, [[0.0, 1.0], [np.nan, np.nan], [0.5, np.nan]])
    np.testing.assert_equal(table.usd_QM, [[np.nan, 0.2], [0.1, np.nan], [0.1, np.nan]])
    assert table.present_QMS[:, :, 0].tolist() == [[True, True], [True, False], [True, False]]
    assert table.extra("own")[0, 0, 0] == 3
    assert table.text_extras["note"][0, 1, 0] == "n"
    assert table.missing["row"] == 2
    assert table.missing["quality"] == 3
    assert table.missing["latency_s"] == 6
    assert "latency_s (all)" in table.describe_missing()


def test_equal_prompts_are_one_group() -> None:
    table = OutcomeTable.from_columns(columns(ROWS))
    assert table.groups.tolist() == [0, 0, 2]
    assert table.duplicates == [["q1", "q2"]]
    assert prompt_hash("A  b\n") == prompt_hash("a b") != prompt_hash("ab")


def test_samples_and_cuts() -> None:
    rows = [
        {"query_id": q, "model": m, "quality": v, "sample": s, "own": v}
        for q, m, s, v in [("1", "a", 0, 0.1), ("1", "a", 1, 0.2), ("1", "b", 0, 0.3), ("2", "a", 0, 0.4)]
    ]
    table = OutcomeTable.from_columns(columns(rows))
    assert table.samples == 2
    np.testing.assert_equal(table.quality_QMS[0], [[0.1, 0.2], [0.3, np.nan]])
    cut = table.take([1]).with_models(["b", "a"])
    np.testing.assert_equal(cut.quality_QMS, [[[np.nan, np.nan], [0.4, np.nan]]])
    np.testing.assert_equal(cut.extra("own"), cut.quality_QMS)
    assert cut.query_ids == ["2"]
    with pytest.raises(UnknownName, match="did you mean"):
        OutcomeTable.from_columns(columns(ROWS)).extra("ownn")
    with pytest.raises(UnknownName):
        table.with_models(["c"])


def bad(**changes: Any) -> list[dict[str, Any]]:
    return [{**ROWS[0], **changes}, *ROWS[1:]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query_id": "1", "model": "a", "qualty": 1}], "no column 'quality'.*did you mean 'qualty'"),
        (bad(quality=1.5), "must lie in"),
        (bad(cost_usd=-1.0), "must not be negative"),
        (bad(quality="good"), "must hold numbers but has 'good'"),
        (bad(cost_usd=float("inf")), "infinite"),
        (bad(model=None), "a row has no model"),
        (bad(prompt="else"), "more than one prompt"),
        ([*ROWS, {**ROWS[0], "quality": 0.5}], "disagree on quality.*column `sample`"),
        (bad(sample=0.5), "must number the answers"),
        ([], "no column"),
    ],
)
def test_what_is_wrong_is_said(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(TableError, match=message):
        OutcomeTable.from_columns(columns(rows))


def test_rows_that_agree_may_repeat() -> None:
    once, twice = (OutcomeTable.from_columns(columns(r)) for r in (ROWS, [*ROWS, ROWS[0], ROWS[1]]))
    assert once.digest == twice.digest


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, text, message in [
        ("a.txt", "x", "use .parquet"),
        ("a.csv", "", "empty"),
        ("b.csv", "query_id,model,quality\n1,a", "line 2 has 2 cells"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("b.jsonl", "3", "not a JSON object"),
        ("a.parquet", "x", "not a Parquet file"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(TableError, match=message):
            OutcomeTable.read(tmp_path / name)
    with pytest.raises(TableError, match="no such file"):
        OutcomeTable.read(tmp_path / "none.csv")


def test_signals_are_read_once_and_asked_for_by_name() -> None:
    table = OutcomeTable.from_columns(columns(ROWS))
    with pytest.raises(TableError, match=r"table\.observed"):
        table.observations(["length"])
    seen = table.observed(Observer(signals={"length": build("signals", "length")}), ["length"])
    assert [s.get("length") for s in seen.observations(["length"])] == [12, 11, 5]
    assert seen.take([2]).observations(["length"])[0].get("length") == 5
    with pytest.raises(TableError, match="lacks the signals marks"):
        seen.observations(["length", "marks"])
    blind = OutcomeTable.from_columns({"query_id": ["1"], "model": ["a"], "quality": [1.0]})
    with pytest.raises(TableError, match="has no prompt"):
        list(blind.queries())
    with pytest.raises(TableError, match="no queries"):
        blind.take([]).observations([])


def test_digest_names_content() -> None:
    table = OutcomeTable.from_columns(columns(ROWS))
    assert table.digest == OutcomeTable.from_columns(columns(ROWS)).digest
    assert table.digest != OutcomeTable.from_columns(columns(bad(quality=0.9))).digest


def test_real_tables_load() -> None:
    folder = os.environ.get("FAIRLEAD_DATA")
    if not folder:
        pytest.skip("set FAIRLEAD_DATA to the folder with outcomes/*.parquet")
    shapes = {p.stem: OutcomeTable.read(p).quality_QMS.shape for p in Path(folder, "outcomes").glob("*.parquet")}
    assert shapes["rational_cascades_train"] == (1485, 9, 1)
    assert shapes["llmrouter_multitask_train"] == (5608, 9, 1)
