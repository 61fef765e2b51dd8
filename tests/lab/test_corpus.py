"""The look-up corpus: by rule, in disjoint splits, and with no expert that is best everywhere."""

from collections import defaultdict

import numpy as np
import pytest

from fairlead.lab import corpus
from fairlead.plans.retrieve import read
from fairlead.table import OutcomeTable
from fairlead.types import Call, Query

ROWS = corpus.retrieval_table(400, 3)


def means(key: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in ROWS:
        found[row[key]][row["model"]].append(row["quality"])
    return {k: {m: float(np.mean(v)) for m, v in by.items()} for k, by in found.items()}


def test_the_same_seed_gives_the_same_queries_and_documents() -> None:
    assert corpus.lookups(40, 3) == corpus.lookups(40, 3)
    assert corpus.lookups(40, 3) != corpus.lookups(40, 4)
    corpus._made.cache_clear()
    before = corpus.documents()
    corpus._made.cache_clear()
    assert corpus.documents() == before
    assert len({d.id for d in before}) == len({d.text for d in before}) == 4 * corpus.DOCUMENTS


def test_splits_are_disjoint_by_the_document_and_the_query() -> None:
    of = {split: corpus.lookups(400, 0, split=split) for split in ("train", "dev", "test")}  # type: ignore[arg-type]
    for one in of:
        for other in of:
            if one != other:
                assert not {x.about for x in of[one]} & {x.about for x in of[other]}
                assert not {x.query for x in of[one]} & {x.query for x in of[other]}


def test_there_are_enough_fresh_queries_of_every_data_set() -> None:
    found = corpus.lookups(1500, 1)
    assert len({x.query for x in found}) == 1500
    assert {x.dataset for x in found} == set(corpus.DATASETS)


def test_more_queries_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_asked", lambda made, manner, rng: "the same")
    with pytest.raises(ValueError, match="fewer than 100"):
        corpus.lookups(100)


def test_no_expert_is_best_everywhere_and_the_gap_to_the_oracle_is_real() -> None:
    by_set = means("dataset")
    best = {name: max(by, key=lambda m: by[m]) for name, by in by_set.items()}
    assert best["callers"] == "sounds"
    assert best["people"] == "characters"
    assert best["stock"] == "digits"
    by_manner = means("manner")
    assert max(by_manner["reordered"], key=lambda m: by_manner["reordered"][m]) == "words"
    query: dict[str, list[float]] = defaultdict(list)
    fixed: dict[str, list[float]] = defaultdict(list)
    for row in ROWS:
        query[row["query_id"]].append(row["quality"])
        fixed[row["model"]].append(row["quality"])
    oracle = np.mean([max(v) for v in query.values()])
    by_data_set = np.mean([by_set[name][best[name]] for name in by_set])
    best_fixed = max(np.mean(v) for v in fixed.values())
    assert best_fixed + 0.15 < by_data_set < oracle - 0.05 < 1.0


def test_ndcg_of_one_relevant_document() -> None:
    assert corpus.ndcg(["x", "y"], "x") == 1.0
    assert corpus.ndcg(["y", "x"], "x") == pytest.approx(1 / np.log2(3))
    assert corpus.ndcg(["y"], "x") == 0.0
    assert corpus.ndcg([*"abcdefghij", "x"], "x") == 0.0


def test_rows_are_an_outcome_table() -> None:
    made = OutcomeTable.from_columns({k: [r[k] for r in ROWS] for k in ROWS[0]}, source="lookups")
    assert set(made.models) == set(corpus.EXPERTS)
    assert set(made.splits) == {"test"}
    assert set(made.datasets) == set(corpus.DATASETS)
    assert ((made.quality_QM >= 0.0) & (made.quality_QM <= 1.0)).all()
    assert not made.duplicates


async def test_the_targets_find_what_the_table_says() -> None:
    for name, index in corpus.indexes().items():
        await index.start()
        for lookup in corpus.lookups(12, 3):
            outcome = await index.ask(Call(target=name), Query.ask(lookup.query, id="q"))
            quality = corpus.ndcg([p.id for p in read(outcome)], lookup.about)
            (row,) = [r for r in ROWS if r["model"] == name and r["prompt"] == lookup.query]
            assert quality == row["quality"]
        await index.stop()
