"""RouterArena's files and score: golden values, what the checker finds, and what its own scorer leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.bench import arena, metrics
from fairlead.errors import TableError


def entry(
    index: str, model: str, accuracy: float | None = None, cost: float | None = None, **more: Any
) -> dict[str, Any]:
    """An answered entry; without an accuracy: one whose call failed."""
    result = {
        "generated_answer": "B" if accuracy is not None else "",
        "success": accuracy is not None,
        "token_usage": {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10},
    }
    base = {"global index": index, "prompt": f"prompt of {index}", "prediction": model, "generated_result": result}
    return {**base, "cost": cost, "accuracy": accuracy, "for_optimality": False, **more}


# Four queries, three models. Cheapest right: small, big, none, mid.
CHOSEN = [
    entry("a", "small", 1.0, 0.001),
    entry("b", "small", 0.0, 0.001),
    entry("c", "mid", 0.0, 0.002),
    entry("d", "big", 1.0, 0.010),
]
OTHERS = [
    entry(i, m, a, c, for_optimality=True)
    for i, m, a, c in [
        ("a", "mid", 1.0, 0.002), ("a", "big", 1.0, 0.010),
        ("b", "mid", 0.0, 0.002), ("b", "big", 1.0, 0.010),
        ("c", "small", 0.0, 0.001), ("c", "big", 0.0, 0.010),
        ("d", "small", 0.0, 0.001), ("d", "mid", 1.0, 0.004),
    ]
]  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "usd_per_1k", "score"),
    [(0.7518957671, 8.5434721952, 0.6586468316), (0.6886, 0.6266, 0.6714)],
)
def test_arena_score_of_two_published_submissions(accuracy: float, usd_per_1k: float, score: float) -> None:
    assert metrics.arena_score(accuracy, usd_per_1k) == pytest.approx(score, abs=1e-4)


def test_arena_score_moves_the_right_way() -> None:
    score = metrics.arena_score
    assert score(0.7, 1.0) > score(0.6, 1.0) > score(0.6, 2.0)
    assert score(0.6, 0.0044) == pytest.approx(1.1 * 0.6 / (0.1 * 0.6 + 1.0))
    assert score(0.6, 200.0) == 0.0
    assert score(0.6, 5.0, beta=1e-9) == pytest.approx(0.6)


def test_golden_figures() -> None:
    found = arena.score([*CHOSEN, *OTHERS])
    f = found.counted
    assert found.queries == 4
    assert (f.accuracy, f.usd_per_1k) == (0.5, pytest.approx(3.5))
    assert f.arena == pytest.approx(metrics.arena_score(0.5, 3.5))
    assert f.optimality_queries == 3
    assert f.optimal_selection == pytest.approx(1 / 3)
    # On a and d, which it got right: (1 + 4) / (1 + 10).
    assert f.optimal_cost == pytest.approx(5 / 11)
    assert f.optimal_accuracy == pytest.approx(2 / 3)
    assert found.published == f
    names = [a.name for a in found.pool]
    assert names == ["this submission", "big", "mid", "small", "oracle (sees answers)"]
    by = {a.name: a for a in found.pool}
    assert by["big"].accuracy == 0.75
    assert by["oracle (sees answers)"].accuracy == 0.75
    assert by["oracle (sees answers)"].usd_per_1k == pytest.approx((1 + 10 + 1 + 4) / 4)


def test_oracle_has_one_in_all_three() -> None:
    best = {"a": "small", "b": "big", "c": "small", "d": "mid"}
    entries = [{**e, "for_optimality": e["prediction"] != best[e["global index"]]} for e in (*CHOSEN, *OTHERS)]
    f = arena.score(entries).counted
    assert (f.optimal_selection, f.optimal_cost, f.optimal_accuracy) == (1.0, 1.0, 1.0)


def test_metrics_of_arrays() -> None:
    quality = np.array([[1, 1], [0, 1], [0, 0.0]])
    cost = np.array([[1, 4], [1, 4], [1, 4.0]])
    assert metrics.optimal_cost([1, 1, 0], quality, cost) == pytest.approx(5 / 8)
    assert metrics.optimal_accuracy([0, 0, 0], quality) == 0.5
    assert np.isnan(metrics.optimal_cost([0], quality[2:], cost[2:]))
    assert np.isnan(metrics.optimal_accuracy([0], quality[2:]))
    assert metrics.unchanged([1, 2, 3], [1, 2, 4]) == pytest.approx(2 / 3)
    assert np.isnan(metrics.unchanged([], []))


def test_failed_answers_count_as_wrong_and_are_left_out_beside_it() -> None:
    failed = entry("d", "big")
    found = arena.score([*CHOSEN[:3], failed, *OTHERS])
    assert (found.failed, found.unpriced) == (1, 1)
    assert found.counted.accuracy == pytest.approx(1 / 4)
    assert found.published.accuracy == pytest.approx(1 / 3)
    assert found.counted.arena < found.published.arena
    assert (found.counted.optimality_queries, found.published.optimality_queries) == (3, 2)
    assert found.counted.optimal_accuracy == pytest.approx(1 / 3)
    assert found.published.optimal_accuracy == pytest.approx(1 / 2)


def test_robustness_is_the_share_of_unchanged_choices() -> None:
    again = [entry("a", "small"), entry("b", "mid"), entry("zz", "mid")]
    found = arena.score(CHOSEN, reworded=again)
    assert (found.robustness, found.robustness_queries) == (0.5, 2)
    same = arena.score(CHOSEN, reworded=[entry(e["global index"], e["prediction"]) for e in CHOSEN])
    assert same.robustness == 1.0
    assert arena.score(CHOSEN).robustness is None


def test_nothing_to_score_says_what_to_do() -> None:
    with pytest.raises(TableError, match="answer and judge"):
        arena.score([entry("a", "small")])
    with pytest.raises(TableError, match="price the answers"):
        arena.score([entry("a", "small", 1.0, 0.0)])


def test_optimality_indices_choose_the_queries() -> None:
    f = arena.score([*CHOSEN, *OTHERS], optimality=["a"]).counted
    assert (f.optimality_queries, f.optimal_selection) == (1, 1.0)
    assert arena.score([*CHOSEN, *OTHERS], optimality=["nowhere"]).counted.optimal_selection is None


ASKED = [arena.Question(index=i, prompt=f"prompt of {i}") for i in "abcd"]


def test_a_good_file_has_nothing_wrong() -> None:
    models = ["small", "mid", "big"]
    assert arena.check([*CHOSEN, *OTHERS], models=models, asked=ASKED, answered=True) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"global index": ""}, "no `global index`"),
        ({"global index": "b"}, "already"),
        ({"global index": "zz"}, "no such query"),
        ({"prompt": "another"}, "not that of the query"),
        ({"prompt": None}, "no prompt"),
        ({"prediction": "huge"}, "not a model"),
        ({"prediction": None}, "no prediction"),
        ({"generated_result": None}, "run the models"),
        ({"generated_result": {"success": True}}, "lacks generated_answer, token_usage"),
        ({"generated_result": {"success": 1, "generated_answer": "", "token_usage": {}}}, "true or false"),
        ({"generated_result": {"success": True, "generated_answer": " ", "token_usage": {}}}, "is empty"),
        ({"generated_result": {"success": True, "generated_answer": "B", "token_usage": {}}}, "cannot be priced"),
        ({"accuracy": 1.5}, "out of range"),
        ({"cost": -1.0}, "out of range"),
    ],
)
def test_each_fault_is_found(change: dict[str, Any], said: str) -> None:
    entries = [{**CHOSEN[0], **change}, *CHOSEN[1:]]
    wrong = arena.check(entries, models=["small", "mid", "big"], asked=ASKED, answered=True)
    assert any(said in line for line in wrong), wrong


def test_missing_entries_are_found() -> None:
    assert arena.check(CHOSEN[1:], asked=ASKED) == ["1 queries have no entry, the first is a"]
    assert arena.check(CHOSEN, split="sub_10") == ["4 entries where sub_10 has 809"]


def test_export_writes_what_check_accepts(tmp_path: Path) -> None:
    models = ["small", "mid", "big"]
    chosen = arena.export(ASKED, lambda q: "small" if q.index < "c" else "big")
    extra = arena.others(chosen, models, ["a"])
    assert [(e.index, e.prediction) for e in extra] == [("a", "mid"), ("a", "big")]
    paths = arena.write(tmp_path, "mine", models, [*chosen, *extra], chosen)
    assert [p.name for p in paths] == ["mine.json", "mine.json", "mine-robustness.json"]
    assert arena.read_models(paths[0]) == models
    written = arena.read(paths[1])
    assert arena.check(written, models=models, asked=ASKED) == []
    assert list(written[0]) == [
        "global index", "prompt", "prediction", "generated_result", "cost", "accuracy", "for_optimality",
    ]  # fmt: skip
    assert written[0]["generated_result"] is None
    with pytest.raises(TableError, match="cannot name"):
        arena.write(tmp_path, "my router", models, chosen)


@pytest.mark.parametrize(("content", "said"), [("{}", "JSON list"), ("nonsense", "not JSON"), ("[1]", "JSON list")])
def test_unreadable_files(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(TableError, match=said):
        arena.read(path)
    with pytest.raises(TableError):
        arena.read_models(path)


def test_questions_need_index_and_prompt() -> None:
    assert arena.questions([{"global index": "a", "prompt": "p", "prompt_formatted": "q"}])[0].prompt == "q"
    for entries in ([{"prompt": "p"}], [{"global index": "a"}], [{"global index": "a", "prompt": "p"}] * 2):
        with pytest.raises(TableError):
            arena.questions(entries)


def test_wilson_covers_and_shrinks() -> None:
    low, high = metrics.wilson(8.0, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert metrics.wilson(0.0, 0) == (0.0, 1.0)
    assert metrics.wilson(800.0, 1000)[0] > low


def test_score_is_json(tmp_path: Path) -> None:
    import msgspec

    assert json.loads(msgspec.json.encode(arena.score([*CHOSEN, *OTHERS])))["counted"]["optimal_cost"] > 0
