"""`fairlead trust` prints who can be believed, and a ranking that one loud client cannot turn."""

import asyncio
from pathlib import Path

import pytest

from fairlead.cli import main
from fairlead.plans.single import Single
from fairlead.sqlite import SQLiteStore
from fairlead.types import Call, Decision, Feedback, Option, Outcome, Query, Signals, Step, Trace


def answered(id: str, target: str) -> Trace:
    outcome = Outcome(text="x", target=target)
    decision = Decision(options=(Option(plan=Single(target=target), probability=1.0),), chosen=0, propensity=1.0)
    step = Step(path=(0, 0), call=Call(target=target), outcome=outcome)
    return Trace(
        id=id, at=0.0, query=Query.ask("q", id=id), signals=Signals(), decision=decision, steps=(step,), outcome=outcome
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """30 answers by each of two targets, of which `good` is right; four honest clients, and one that lies fifteen times as much."""
    store = SQLiteStore(tmp_path / "s.db")
    store.start()

    async def fill() -> None:
        for n in range(60):
            target = ("good", "poor")[n % 2]
            written = store.append(answered(f"t{n}", target))
            assert written is not None
            await written
            right = float(target == "good")
            await store.add_feedback(Feedback(trace_id=f"t{n}", value=right, source=f"s{n // 2 % 4}"))
            await store.add_feedback(Feedback(trace_id=f"t{n}", value=1.0 - right, source="liar"))
            await store.add_feedback(Feedback(trace_id=f"t{n}", value=right, source="tests"))

    asyncio.run(fill())
    store.stop()
    return tmp_path / "s.db"


def test_the_tables(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", "--store", str(path), "--anchor", "tests"]) == 0
    out = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in out if line}
    assert rows["liar"][1] == "60"
    assert rows["liar"][-1] == "0.00"
    assert float(rows["s0"][-1]) > 0.9
    assert rows["tests"][-1] == "(anchor)"
    assert [line.split()[0] for line in out[-2:]] == ["good", "poor"]
    assert "6 clients" in out[-3]
    assert out[-2].split()[-1] > out[-1].split()[-1]


def test_what_cannot_be_shown_says_why(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", "--store", str(path), "--trim", "0.5"]) == 1
    assert "below 0.5" in capsys.readouterr().err
    empty = SQLiteStore(tmp_path / "e.db")
    empty.start()
    empty.stop()
    assert main(["trust", "--store", str(empty.path)]) == 1
    assert "no judgements" in capsys.readouterr().err
