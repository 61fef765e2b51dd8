"""A local index: what each encoder finds, the same reply each time, corpora in files, and errors that say what to do."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config import make
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import ConfigError
from fairlead.plans.retrieve import Passage
from fairlead.targets.index import TERMS, Index, Lexical, best, characters, digits, sound, words
from fairlead.testing import check_target
from fairlead.types import Call, Message, Outcome, Query

DOCUMENTS = (
    Passage(id="p1", text="Kantrivan Arbelo, clerk at the mill."),
    Passage(id="p2", text="Philip Jackson called; call back."),
    Passage(id="p3", text="brass valve, part no. 44-712-093"),
    Passage(id="p4", text="Rain falls on the stone bridge in winter."),
    Passage(id="p5", text="The winter market near the bridge sells stones."),
)


async def ask(index: Index, text: str, **params: Any) -> Outcome:
    await index.start()
    try:
        return await index.ask(Call(target=index.name, params=params), Query.ask(text, id="q"))
    finally:
        await index.stop()


def ids(outcome: Outcome) -> list[str]:
    assert outcome.ok, outcome.error
    return [p["id"] for p in json.loads(outcome.text)]


@pytest.mark.parametrize("encoder", [*TERMS, "embedding"])
async def test_check_target(encoder: Any) -> None:
    await check_target(lambda: Index(name="a", documents=DOCUMENTS, encoder=encoder))


@pytest.mark.parametrize(
    ("encoder", "query", "first"),
    [
        ("words", "in winter, stones: which bridge has rain?", "p4"),
        ("characters", "kantrvian arbleo", "p1"),
        ("sounds", "fillip jaxon", "p2"),
        ("digits", "part 4471 2093?", "p3"),
        ("embedding", "the market in winter sells stones", "p5"),
    ],
)
async def test_each_encoder_finds_what_it_is_for(encoder: Any, query: str, first: str) -> None:
    found = ids(await ask(Index(name="a", documents=DOCUMENTS, encoder=encoder), query))
    assert found[0] == first


async def test_the_reply_is_passages_best_first_free_and_the_same_each_time() -> None:
    index = Index(name="a", documents=DOCUMENTS)
    outcome = await ask(index, "winter bridge")
    found = msgspec.json.decode(outcome.text, type=list[Passage])
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    assert {p.id: p.text for p in found}.items() <= {p.id: p.text for p in DOCUMENTS}.items()
    assert outcome.usd == 0.0
    assert (await ask(index, "winter bridge")).text == outcome.text


async def test_what_shares_nothing_is_not_found() -> None:
    assert (await ask(Index(name="a", documents=DOCUMENTS), "xylophone")).text == "[]"
    assert (await ask(Index(name="a", documents=DOCUMENTS, encoder="digits"), "no number")).text == "[]"
    assert (await ask(Index(name="a", documents=DOCUMENTS), "")).text == "[]"


async def test_how_many_is_the_callers_or_its_own() -> None:
    index = Index(name="a", documents=DOCUMENTS, top=1)
    assert len(ids(await ask(index, "the"))) == 1
    assert len(ids(await ask(index, "the", top=3))) == 3
    for wrong in (0, -1, "2", True, 10**9, 1.5):
        outcome = await ask(index, "the", top=wrong)
        assert outcome.error is not None
        assert outcome.error.kind == "bad_request"
        assert "from 1 to" in outcome.error.message


async def test_a_plans_own_messages_are_what_is_looked_for() -> None:
    index = Index(name="a", documents=DOCUMENTS)
    await index.start()
    call = Call(target="a", messages=(Message(role="user", content="brass valve"),))
    assert ids(await index.ask(call, Query.ask("winter", id="q"))) == ["p3"]
    await index.stop()
    assert (await index.ask(call, Query.ask("winter", id="q"))).error is not None


async def test_queries_may_have_an_encoder_of_their_own() -> None:
    plain = Index(name="a", documents=DOCUMENTS, encoder="embedding")
    expert = Index(name="b", documents=DOCUMENTS, encoder="embedding", query_embedder=Hashing(words=0.0))
    one, two = await ask(plain, "winter bridge rain"), await ask(expert, "winter bridge rain")
    assert one.text != two.text
    with pytest.raises(ConfigError, match="64 numbers"):
        await ask(Index(name="b", documents=DOCUMENTS, encoder="embedding", query_embedder=Hashing(size=64)), "x")


# ------------------------------------------------------------------------------------------------------------- corpora


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.csv"])
async def test_a_corpus_in_a_file_beside_the_config(tmp_path: Path, name: str) -> None:
    rows = [{"id": d.id, "text": d.text, "page": str(i)} for i, d in enumerate(DOCUMENTS)]
    if name.endswith("csv"):
        lines = ["id,text,page", *(f'{r["id"]},"{r["text"]}",{r["page"]}' for r in rows)]
    else:
        lines = [json.dumps(r) for r in rows]
    (tmp_path / name).write_text("\n".join(lines), "utf-8")
    data = {
        "targets": {"find": {"type": "index", "corpus": name}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": {"kind": "retrieve", "experts": ["find"]}}}},
    }
    made = make(data, folder=tmp_path)
    async with made.router() as router:
        outcome, _ = await router.handle(Query.ask("brass valve", id="q"))
    (found,) = json.loads(outcome.text)
    assert found["id"] == "p3"
    assert found["metadata"] == {"page": "2"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("missing.jsonl", None, "no such file"),
        ("corpus.txt", "x", "use .parquet, .csv or .jsonl"),
        ("corpus.jsonl", "{", "not JSON"),
        ("corpus.jsonl", "", "the file is empty"),
        ("corpus.csv", "id,text\n", "holds no documents"),
        ("corpus.jsonl", '{"id": "1", "body": "x"}', "has no text; a corpus has the fields `id` and `text`"),
        ("corpus.jsonl", '{"id": "1", "text": "x"}\n{"id": "2"}', "document 2 lacks"),
        ("corpus.jsonl", '{"id": "1", "text": "x"}\n{"id": "1", "text": "y"}', "two documents have the id '1'"),
    ],
)
async def test_a_corpus_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=says):
        await Index(name="a", corpus=str(tmp_path / name)).start()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "give an index its `corpus`"),
        ({"corpus": "x.csv", "documents": DOCUMENTS}, "not both"),
        ({"documents": DOCUMENTS, "embedder": Hashing()}, "needs no embedder"),
    ],
)
def test_arguments_that_do_not_fit(arguments: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Index(name="a", **arguments)


# --------------------------------------------------------------------------------------------------------------- terms


def test_terms() -> None:
    assert words("The Glasses of 3 cats") == ["the", "glasse", "of", "3", "cat"]
    assert characters("Ab, c") == ["_ab", "ab_", "_c_"]
    assert digits("no. 44-71 2/0; part 7") == ["447", "471", "712", "120", "7"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("philip", "fillip"), ("catherine", "kathryn"), ("jackson", "jaxon"), ("stephens", "stevens"), ("night", "nite")],
)
def test_names_that_sound_alike_have_one_key(one: str, other: str) -> None:
    assert sound(one) == sound(other)


def test_names_that_do_not_sound_alike_have_different_keys() -> None:
    names = ["philip", "catherine", "jackson", "stephens", "martin", "gordon", "walker"]
    assert len({sound(n) for n in names}) == len(names)


@given(st.text(max_size=60))
def test_terms_of_any_text(text: str) -> None:
    for terms in TERMS.values():
        assert all(isinstance(t, str) and t for t in terms(text))


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]), min_size=1, max_size=30), st.integers(1, 12))
def test_the_best_are_those_of_a_full_stable_sort(scores: list[float], top: int) -> None:
    expected = [d for d in sorted(range(len(scores)), key=lambda d: -scores[d]) if scores[d] > 0.0][:top]
    assert best(np.asarray(scores), top) == expected


def test_bm25_by_hand() -> None:
    texts = ["a b", "a a a c", "c"]
    score = Lexical(texts, str.split).scores("a a b")
    mean, k1, b = 7 / 3, 1.2, 0.75
    idf = {"a": np.log(1 + (3 - 2 + 0.5) / 2.5), "b": np.log(1 + (3 - 1 + 0.5) / 1.5)}
    one = (idf["a"] + idf["b"]) * 1 * (k1 + 1) / (1 + k1 * (1 - b + b * 2 / mean))
    two = idf["a"] * 3 * (k1 + 1) / (3 + k1 * (1 - b + b * 4 / mean))
    assert score == pytest.approx([one, two, 0.0])
