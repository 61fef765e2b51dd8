"""``fairlead report``: from a table or a store to one file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fairlead.cli import main
from fairlead.cli.report import moment
from fairlead.errors import ConfigError
from fairlead.policies.random import Random
from fairlead.pool import Pool
from fairlead.sqlite import SQLiteStore
from fairlead.types import Feedback, Outcome, Query, Signals, Target, Trace


@pytest.fixture
def table(tmp_path: Path) -> str:
    lines = ["query_id,prompt,model,quality"]
    lines += [f"{i},question {i},{m},{(i + k) % 2}" for i in range(30) for k, m in enumerate(("big", "small"))]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    return str(path)


def test_a_table(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.html"
    prices = tmp_path / "p.csv"
    prices.write_text("model,usd_per_m_input,usd_per_m_output\nbig,10,10\nsmall,1,1\n")
    common = ["report", table, "--resamples", "20", "--split", "2-fold", "-o", str(out)]
    assert main([*common, "--predictor", "mean", "--prices", str(prices), "--title", "Mine"]) == 0
    assert "sections" in capsys.readouterr().out
    html = out.read_text()
    assert "<h1>Mine</h1>" in html
    assert "modelled from prices" in html
    assert "question 3" not in html
    assert main([*common, "--predictor", "mean", "--confidence-column", "conf"]) == 1
    assert "unknown column" in capsys.readouterr().err
    assert main([*common, "--predictor", "mean", "--ablate", "knn"]) == 1
    assert "unknown predictor to take apart" in capsys.readouterr().err


def test_a_trained_predictor_needs_other_queries(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", table, "--predictor", "mean", "-o", str(tmp_path / "p")]) == 0
    common = ["report", table, "--trained", str(tmp_path / "p"), "-o", str(tmp_path / "r.html")]
    assert main(common) == 1
    assert "bring others" in capsys.readouterr().err
    assert main([*common, "--predictor", "knn"]) == 1
    other = tmp_path / "u.csv"
    other.write_text(
        Path(table).read_text() + "\n" + "\n".join(f"n{i},new {i},{m},1" for i in range(8) for m in ("big", "small"))
    )
    assert main(["report", str(other), *common[2:], "--resamples", "20"]) == 1
    assert main(["report", str(other), *common[2:], "--skip-seen", "--resamples", "20"]) == 0
    html = (tmp_path / "r.html").read_text()
    assert "30 queries were trained on" in html
    assert "as trained" in html


def test_a_store(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = SQLiteStore(path)
    store.start()
    pool, policy = Pool(targets=(Target(name="a"), Target(name="b"))), Random()

    async def fill() -> None:
        for i in range(4):
            query = Query.ask("a secret prompt", id=f"t{i}")
            decision = policy.decide(query, Signals(), pool)
            trace = Trace(
                id=f"t{i}", at=1e9 + i, query=query, signals=Signals(), decision=decision, outcome=Outcome(target="a"), usd=0.5
            )  # fmt: skip
            written = store.append(trace)
            if written is not None:
                await written
        await store.add_feedback(Feedback(trace_id="t1", value=1.0))

    asyncio.run(fill())
    store.stop()
    out = tmp_path / "r.html"
    assert main(["report", "--store", str(path), "-o", str(out)]) == 0
    html = out.read_text()
    assert ">4</dd>" in html
    assert "secret" not in html
    assert main(["report", "--store", str(path), "--since", "2001-09-09T01:46:42", "-o", str(out)]) == 0
    assert ">2</dd>" in out.read_text()
    assert main(["report", "--store", str(path), "--since", "1h", "--title", "Now", "-o", str(out)]) == 0
    assert "No trace fits" in out.read_text()


@pytest.mark.parametrize("arguments", [[], ["t.csv", "--store", "s.db"]])
def test_one_source_is_needed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *arguments, "-o", "x.html"]) == 1
    assert "TABLE, or --store" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "no" / "where.html")
    assert main(["report", table, "--predictor", "mean", "--split", "2-fold", "--resamples", "5", "-o", out]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_moments() -> None:
    assert moment("90m", now=1e6) == 1e6 - 5400
    assert moment("7d", now=1e6) == 1e6 - 604800
    assert moment("1970-01-02", now=0.0) == 86400.0
    assert moment("1970-01-01T01:00+01:00", now=0.0) == 0.0
    with pytest.raises(ConfigError, match="no time"):
        moment("yesterday", now=0.0)
