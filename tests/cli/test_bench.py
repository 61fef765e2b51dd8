"""``fairlead bench``: arguments, prices, columns, and output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fairlead.cli import main
from fairlead.cli.bench import read_prices
from fairlead.errors import TableError


@pytest.fixture
def table(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    lines = ["query_id,prompt,model,quality,cost_usd,asked,conf"]
    for i in range(80):
        for m, share, usd in (("big", 0.9, 0.01), ("small", 0.5, 0.001)):
            q = int(rng.random() < share)
            lines.append(f"{i},question {i},{m},{q},{usd},{usd * 2},{q + rng.normal() / 5:.3f}")
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    return str(path)


def test_json_and_plot(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = tmp_path / "p.png"
    arguments = [
        "--predictor",
        "mean",
        "--policy",
        "random",
        "--resamples",
        "50",
        "--split",
        "2-fold",
        "--plot",
        str(png),
    ]
    cascade = ["--confidence-column", "conf", "--confidence-cost-column", "asked"]
    assert main(["bench", table, "--json", *arguments, *cascade]) == 0
    data = json.loads(capsys.readouterr().out)
    rows = {r["name"]: r for r in data["rows"]}
    assert set(rows) == {"big", "small", "mean", "random", "cascade", "oracle"}
    assert data["best_single"] == "big"
    # The confidence tells right from wrong: a cascade must see that.
    assert rows["cascade"]["aiq_over_mix"]["low"] > 0
    assert png.is_file()


def test_cost_columns_and_prices(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["bench", table, "--predictor", "mean", "--resamples", "20", "--split", "2-fold"]
    assert main([*common, "--cost-column", "asked"]) == 0
    assert "20.0000" in capsys.readouterr().out
    prices = tmp_path / "prices.csv"
    prices.write_text("model,usd_per_m_input,usd_per_m_output\nbig,0,10\nsmall,0,1\nbig,9,9\n")
    assert main([*common, "--prices", str(prices), "--output-tokens", "100"]) == 0
    shown = capsys.readouterr().out
    assert "1.0000" in shown
    assert "100 tokens out" in shown
    for wrong, message in [
        (["--cost-column", "askd"], "did you mean 'asked'"),
        (["--models", "big,tiny"], "tiny"),
        (["--split", "x"], "5-fold"),
    ]:
        assert main([*common, *wrong]) == 1
        assert message in capsys.readouterr().err
    for text, message in [
        ("model,in\nbig,1\n", "no column 'usd_per_m_input'"),
        ("model,usd_per_m_input,usd_per_m_output\nbig,x,1\n", "line 2"),
    ]:
        prices.write_text(text)
        with pytest.raises(TableError, match=message):
            read_prices(str(prices))
    for missing in (tmp_path / "none.csv", tmp_path):
        assert main([*common, "--prices", str(missing)]) == 1
        assert capsys.readouterr().err.startswith(f"fairlead: cannot read {missing}: ")
    prices.write_bytes(b"model,\xff")
    assert main([*common, "--prices", str(prices)]) == 1
    assert "UTF-8" in capsys.readouterr().err


def test_unknown_names_are_explained(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--predictor", "kn"], ["--policy", "randm"], ["--confidence-column", "con"]):
        assert main(["bench", table, *arguments]) == 1
        assert "did you mean" in capsys.readouterr().err
