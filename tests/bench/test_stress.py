"""Rewordings change what they say and leave the rest; picks are compared as promised."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.bench import stress as s
from fairlead.bench.evaluate import Entrant
from fairlead.cli import main
from fairlead.errors import TableError, UnknownName
from fairlead.table import OutcomeTable

CHOICES = (
    "Answer the multiple-choice question below by outputting A, B, C, or D.\n\nQuestion: Which number is 4 of `x_1`?\n\n"
    "Choices:\nA: one {braces}\nB: two\nC: 3.5\nD: none of these\n\nAnswer: "
)
STORY = "Find the sum of 12 and 30. Write a function to add_numbers(a, b) because the path is /usr/local/binary however unlikely.\n"
TEXTS = (
    CHOICES,
    STORY,
    "How many sheep are there?",
    "Zähle die Schafe: 7",
    "",
    "x",
    "日本語のテキスト",
    "{}",
    "\\frac{1}{2} + $alpha$",
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", s.PERTURBATIONS)
@pytest.mark.parametrize("text", TEXTS)
def test_same_seed_same_text_and_pure(name: str, text: str) -> None:
    first = s.perturbed(name, text, query_id="q", seed=3)
    assert first == s.perturbed(name, text, query_id="q", seed=3)
    assert s.PERTURBATIONS[name](text, rng(1)) == s.PERTURBATIONS[name](text, rng(1))


@pytest.mark.parametrize("name", s.PERTURBATIONS)
def test_seeds_and_queries_differ(name: str) -> None:
    long = CHOICES * 3
    assert len({s.perturbed(name, long, query_id=str(i)) for i in range(20)}) > 1
    assert len({s.perturbed(name, long, query_id="q", seed=i) for i in range(20)}) > 1


@given(st.text(max_size=200), st.integers(0, 5))
def test_nothing_breaks_any_text(text: str, seed: int) -> None:
    for name in s.PERTURBATIONS:
        assert isinstance(s.perturbed(name, text, query_id="q", seed=seed), str)


def test_unknown_perturbation_offers_known() -> None:
    with pytest.raises(UnknownName, match="typos"):
        s.perturbed("typo", "x", query_id="q")


# ---------------------------------------------------------------------------------------------------------- typos


@pytest.mark.parametrize("seed", range(30))
def test_typos_leave_numbers_code_short_words_and_lines(seed: int) -> None:
    text = STORY * 4
    out = s.typos(text, rng(seed))
    assert out != text
    assert out.count("\n") == text.count("\n")
    assert re.findall(r"\d+", out) == re.findall(r"\d+", text)
    for kept in ("add_numbers", "/usr/local/binary"):
        assert out.count(kept) == 4
    changed = [(a, b) for a, b in zip(text.split(), out.split(), strict=True) if a != b]
    assert 1 <= len(changed) <= round(s.TYPOS_PER_WORD * len(text.split())) + 1
    for a, b in changed:
        assert (a[0], len(a) >= 4) == (b[0], True)
        assert abs(len(a) - len(b)) <= 1


def test_typos_need_a_word() -> None:
    assert s.typos("12 + 30 = `abcdef`", rng()) == "12 + 30 = `abcdef`"


# ----------------------------------------------------------------------------------------------------- paraphrase


def test_paraphrase_replaces_phrases_and_keeps_capitals() -> None:
    out = s.paraphrase("Find the area because I asked.", rng())
    assert re.fullmatch(r"(Determine|Work out) the area (since|as) I asked\.", out)


def test_paraphrase_opens_where_there_is_no_phrase() -> None:
    out = s.paraphrase("Why so blue?", rng())
    assert out.endswith("Why so blue?")
    assert len(out) > 20


def test_paraphrase_leaves_parts_of_words_and_code() -> None:
    out = s.paraphrase("incorrectly `correct` Find the cat", rng())
    assert out.startswith("incorrectly `correct` ")


# ------------------------------------------------------------------------------------------------------------ case


@pytest.mark.parametrize("text", TEXTS)
def test_case_changes_case_alone(text: str) -> None:
    for seed in range(4):
        out = s.case(text, rng(seed))
        assert out.lower() == text.lower()
        assert (out != text) == any(c.isascii() and c.isalpha() for c in text)
    assert {s.case("aB", rng(seed)) for seed in range(9)} == {"ab", "AB"}


# --------------------------------------------------------------------------------------------------------- choices


@pytest.mark.parametrize("label", ["{}: ", "{}. ", "{}) ", "({}) ", "  {}. "])
def test_choices_change_places_and_nothing_else(label: str) -> None:
    contents = ["red ", "green", "blue\t", "none"]
    lines = [label.format(c) + t for c, t in zip("ABCD", contents, strict=True)]
    text = "Question: which?\n\n" + "\n".join(lines) + "\n\nAnswer: "
    for seed in range(10):
        out = s.choices(text, rng(seed))
        assert out != text
        before, after = text.split("\n"), out.split("\n")
        assert (before[:2], before[6:]) == (after[:2], after[6:])
        assert [line[: len(label) - 1] for line in after[2:6]] == [label.format(c) for c in "ABCD"]
        assert Counter(line[len(label) - 1 :].strip() for line in after[2:6]) == Counter(c.strip() for c in contents)


@pytest.mark.parametrize("text", ["", "A: alone", "B: two\nC: three", "A. same\nB. same", "A cat.\nB sides.", STORY])
def test_without_a_list_of_choices_nothing_changes(text: str) -> None:
    assert s.choices(text, rng()) == text


# ---------------------------------------------------------------------------------------------- language and padding


@pytest.mark.parametrize("name", ["language", "padding"])
@pytest.mark.parametrize("text", TEXTS)
def test_wrappers_keep_the_text_verbatim(name: str, text: str) -> None:
    seen = {s.PERTURBATIONS[name](text, rng(seed)) for seed in range(40)}
    assert all(text in out and len(out) > len(text) + 10 for out in seen)
    assert len(seen) >= 4


# --------------------------------------------------------------------------------------------------------- measuring


def made(n: int = 120, *, seed: int = 0) -> OutcomeTable:
    """Sums are for the one, stories for the other; whoever is right costs more on stories."""
    draw = np.random.default_rng(seed)
    columns: dict[str, list[object]] = {k: [] for k in ("query_id", "prompt", "model", "quality", "cost_usd")}
    for i in range(n):
        sums = i % 2
        words = " ".join(draw.choice(["river", "mountain", "castle", "sailor", "winter"], size=8))
        prompt = f"What is the sum of {i} + {i + 7} * 3?" if sums else f"Tell me of the {words} number {i}"
        for model, good in (("counter", 0.9 if sums else 0.2), ("teller", 0.2 if sums else 0.9)):
            row = (str(i), prompt, model, float(draw.random() < good), 0.002)
            for k, v in zip(columns, row, strict=True):
                columns[k].append(v)
    return OutcomeTable.from_columns(columns)


def entrants(*names: str) -> list[Entrant]:
    return [Entrant(name=n, spec={"type": n}) for n in names]


def test_a_constant_router_is_not_moved_and_a_reader_may_be() -> None:
    found = s.stress(made(), entrants("mean", "knn"), resamples=50)
    by = {(r.router, r.perturbation): r for r in found.rows}
    assert found.random_unchanged == 0.5
    for r in found.rows:
        assert 0.0 <= r.unchanged.low <= r.unchanged.value <= r.unchanged.high <= 1.0
    # `mean` reads nothing of the text but its length, for costs, and these are the same for both.
    assert all(by["mean", name].unchanged.value == 1.0 for name in s.PERTURBATIONS if name != "choices")
    assert all(by["mean", name].quality_change.value == 0.0 for name in s.PERTURBATIONS if name != "choices")
    assert by["mean", "typos"].forecast_moved == 0.0
    assert by["knn", "padding"].forecast_moved > 0.0
    assert found.quality["knn"] > found.quality["mean"] + 0.1
    assert any("choices changes no text" in note for note in found.notes)
    assert "picks unchanged" in s.to_text(found)


def test_picks_that_move_are_worth_what_was_recorded() -> None:
    table = made(60)
    now, at = table.take(range(6)), np.array([0, 2, 4])
    old, new = np.zeros(6, dtype=np.int64), np.array([1, 1, 1, 1, 0, 0])
    row = s._row("r", "case", now, at, old, new, np.full((6, 2), -0.1), 5.0, 0, 20)
    assert row.unchanged.value == pytest.approx(1 / 3)
    wanted = np.mean([now.quality_QM[0, 1] - now.quality_QM[0, 0], now.quality_QM[2, 1] - now.quality_QM[2, 0], 0.0])
    assert row.quality_change.value == pytest.approx(wanted)
    assert (row.forecast_moved, row.forecast_shift) == (pytest.approx(0.1), pytest.approx(-0.1))
    assert row.usd_per_1k_change == pytest.approx(0.0)
    dear = now.with_usd(np.tile(np.array([0.001, 0.004])[None, :, None], (6, 1, 1)))
    row = s._row("r", "case", dear, at, old, new, np.full((6, 2), -0.1), 5.0, 0, 20)
    assert row.usd_per_1k_change == pytest.approx(2.0)
    assert row.reward_change is not None
    assert row.reward_change.value == pytest.approx(wanted - 5.0 * 0.002)


def test_a_given_weight_is_used_and_fewer_queries_are_judged() -> None:
    found = s.stress(made(), entrants("mean"), perturbations=["case"], usd_weight=5.0, queries=30, resamples=20)
    assert (found.queries, found.usd_weight) == (30, {"mean": 5.0})
    with pytest.raises(UnknownName):
        s.stress(made(), entrants("mean"), perturbations=["cases"])


def test_without_prompts_nothing_can_be_reworded() -> None:
    bare = OutcomeTable.from_columns({"query_id": ["a", "b"], "model": ["m", "m"], "quality": [1.0, 0.0]})
    with pytest.raises(TableError, match="reworded"):
        s.stress(bare, entrants("mean"))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = made(60)
    lines = ["query_id,prompt,model,quality,cost_usd"]
    for q, (i, p) in enumerate(zip(table.query_ids, table.prompts, strict=True)):
        lines += [f'{i},"{p}",{m},{table.quality_QM[q, k]},0.002' for k, m in enumerate(table.models)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    common = ["stress", str(path), "--resamples", "20"]
    assert main([*common, "--predictor", "knn", "--perturbation", "case"]) == 0
    assert "knn: quality" in capsys.readouterr().out
    assert main(["train", str(path), "--predictor", "mean", "-o", str(tmp_path / "p")]) == 0
    assert main([*common, "--trained", str(tmp_path / "p")]) == 1
    other = tmp_path / "u.csv"
    other.write_text(
        "\n".join(
            [
                *lines,
                'x,"quite another question",counter,1,0.002',
                'x,"quite another question",teller,1,0.002',
                'y,"and one more of it",counter,1,0.002',
                'y,"and one more of it",teller,1,0.002',
            ]
        )
    )
    capsys.readouterr()
    assert (
        main(["stress", str(other), "--trained", str(tmp_path / "p"), "--skip-seen", "--json", "--resamples", "20"])
        == 0
    )
    assert '"queries": 2' in capsys.readouterr().out
