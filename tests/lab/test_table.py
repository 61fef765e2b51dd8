"""Outcome tables: shape, repeatability, prices, files."""

import csv
from pathlib import Path

import pytest

from fairlead.lab.pool import TARGETS, describe
from fairlead.lab.table import COLUMNS, OutcomeRow, outcome_table, write_table
from fairlead.lab.tasks import split_of


@pytest.fixture(scope="module")
def rows() -> list[OutcomeRow]:
    return outcome_table(12, 3, seed=4)


def test_one_row_for_each_query_target_and_sample(rows: list[OutcomeRow]) -> None:
    assert len(rows) == 12 * len(TARGETS) * 3
    keys = {(row["query_id"], row["model"], row["sample"]) for row in rows}
    assert len(keys) == len(rows)
    assert all(tuple(row) == COLUMNS for row in rows)
    assert {row["model"] for row in rows} == {target.name for target in TARGETS}
    assert all(split_of(row["prompt"]) == row["split"] == "test" for row in rows)


def test_values_are_in_range_and_priced(rows: list[OutcomeRow]) -> None:
    models = {target.name: describe(target.model) for target in TARGETS}
    for row in rows:
        assert row["quality"] in (0.0, 1.0)
        assert row["confidence_logprob"] <= 0
        assert row["first_entropy"] >= 0
        assert row["latency_s"] > 0
        assert row["output_tokens"] >= 1
        expected = models[row["model"]].cost_usd(input_tokens=row["input_tokens"], output_tokens=row["output_tokens"])
        assert row["cost_usd"] == pytest.approx(expected)


def test_the_same_seed_gives_the_same_table(rows: list[OutcomeRow]) -> None:
    def timeless(table: list[OutcomeRow]) -> list[dict[str, object]]:
        return [{name: value for name, value in row.items() if name != "latency_s"} for row in table]

    told: list[tuple[int, int]] = []
    again = outcome_table(12, 3, seed=4, progress=lambda done, n: told.append((done, n)))
    assert timeless(again) == timeless(rows)
    assert told[-1] == (12, 12)
    assert timeless(outcome_table(12, 3, seed=5)) != timeless(rows)


def test_csv_holds_every_row(rows: list[OutcomeRow], tmp_path: Path) -> None:
    write_table(rows, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    assert tuple(read[0]) == COLUMNS
    assert [row["prompt"] for row in read] == [row["prompt"] for row in rows]


def test_parquet_holds_every_row_and_a_null_energy(rows: list[OutcomeRow], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(rows, tmp_path / "table.parquet")
    table = parquet.read_table(tmp_path / "table.parquet")
    assert table.num_rows == len(rows)
    assert tuple(table.column_names) == COLUMNS
    assert table.column("energy_j").null_count == len(rows)
    assert str(table.schema.field("energy_j").type) == "double"
