"""What does it cost to read each signal, and does `complexity` know what is hard? The tables of docs/guides/signals.md.

    FAIRLEAD_DATA=… python benchmarks/signals.py [--json] [--check] [--rounds 9] [--model minilm.onnx --tokenizer tokenizer.json]

**Cost.** CPU microseconds for one reading, of texts of about 30, 300 and 100,000 characters, and of a conversation of five such user messages of
300; median over rounds, lowest to highest in brackets. 64 texts a round (of the long ones 4), new ones in each, so that nothing is remembered from a
reading before: this is what the first signal that asks for an embedding pays; those after it pay less. Signals of the catalogue as their
`example()` makes them, and a few more. Slow signals (`*`) are read off the event loop; those that need a model of the user's are
left out, but for `tokens`, for which a tokenizer of 4,000 tokens is trained on the texts.

**Complexity.** Hard is a prompt whose quality, averaged over all models of a table, lies below the table's median. The area under the ROC curve
(AUC) of `complexity.delta` for that, built-in examples and default embedder, with its 95% interval (percentile bootstrap over prompts);
beside it two baselines, the length in characters and its opposite. Overall, and as the mean over the table's tasks of the AUC within each (a
task of its own median; tasks of at least 50 prompts): across tasks a signal may just tell the tasks apart. Nothing is fitted. Equal
prompts count once. With ``--model`` and ``--tokenizer`` (a sentence encoder in ONNX form) `complexity` is judged with it too. Without FAIRLEAD_DATA this part is left out, and said to be.

**False alarms of conversation.** Recorded prompts as if they were second messages: none is a complaint, so each that counts as dissatisfied or unclear is a false
alarm; and of 200 random pairs of different prompts of one task (tasks of at least 20), how many count as a repeat. What is missed
cannot be measured here: there are no complaints.

With ``--check`` the exit code is 1 unless each reading on the event loop takes under 1 ms of CPU in the median, of each kind of text and of each of the
texts in `CRAFTED`, made to be slow and 100,000 characters long, under 3 ms (the last column: the worst of them). Readings that a signal leaves to a thread
(`takes_long`) do not count.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead import catalog
from fairlead.embeddings.base import Embedder
from fairlead.embeddings.onnx import Onnx
from fairlead.errors import ConfigError
from fairlead.signals.base import Signal
from fairlead.signals.complexity import Complexity
from fairlead.signals.conversation import Conversation
from fairlead.signals.keyword import Keyword
from fairlead.signals.length import Length
from fairlead.signals.tokens import Tokens
from fairlead.types import Message, Query

MOST_US: Final = 1_000.0
MOST_CRAFTED_US: Final = 3_000.0
LONG: Final = 100_000
CRAFTED: Final = (
    "key=", "token=", "give ", "a", "a ", "12 34 56 7", "@.", "a@b.", "x\n", "[", '{"a":', "(", "no, ", "é", "del\u200bete ", "\uff21", "http://", "```",
    "ignore all previous ", "AbC1+/", "+49 30 ", "-----BEGIN ", "日", "in a the ", "Error: ", '"',
)  # fmt: skip
"""Repeated, each a text that some pattern or other might be slow on."""
TABLES: Final = ("rational_cascades_train", "llmrouter_multitask_train")
LEAST_OF_A_TASK: Final = 50
_PROSE: Final = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she "
    "there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could "
    "these two may first then do any like my now over such our man me even most made after also did many off before must well back through years "
    "where much your way down should because long each just state those people too mister how little good world make very year still see own work "
    "men day get here between both life being under three never know same last another while us might great go come since against right came take "
    "used himself few house use during without again place around however home small found thought went say part once general high upon school "
    "function return contract refund court please explain python table number 12 345 2026 Berlin Paris London 'quoted words' (in brackets) a+b=c"
)
WORDS: Final = _PROSE.split()
Floats = NDArray[np.float64]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU microseconds for one reading: median, lowest and highest of the rounds."""

    signal: str
    slow: bool
    left: tuple[str, ...]
    """Kinds of text that are left to a thread."""
    us: dict[str, tuple[float, float, float]]


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """An AUC with its 95% interval."""

    table: str
    prompts: int
    score: str
    overall: tuple[float, float, float]
    within: tuple[float, float, float]


# ----------------------------------------------------------------------------------------------------------------- cost


def prose(size: int, rng: random.Random) -> str:
    """Return words of about `size` characters, in sentences."""
    words: list[str] = []
    n = 0
    while n < size:
        words.append(rng.choice(WORDS) + (rng.choice(".,?\n;") if rng.random() < 0.15 else ""))
        n += len(words[-1]) + 1
    return " ".join(words)[:size]


def asked(size: int, rng: random.Random, *, turns: int = 1) -> Query:
    """Return a query of so many user messages, each but the last answered."""
    messages = []
    for _ in range(turns - 1):
        messages += [
            Message(role="user", content=prose(size, rng)),
            Message(role="assistant", content=prose(size, rng)),
        ]
    fields = {"stream": True, "temperature": 0.5, "response_format": {"type": "json_object"}}
    query = Query.ask(prose(size, rng), **fields)
    return msgspec.structs.replace(query, messages=(*messages, *query.messages), at=1.8e9)


def texts(seed: int) -> dict[str, list[Query]]:
    """Return the queries to read, by what they are called."""
    rng = random.Random(seed)
    return {
        "30": [asked(30, rng) for _ in range(64)],
        "300": [asked(300, rng) for _ in range(64)],
        "100,000": [asked(100_000, rng) for _ in range(4)],
        "five turns": [asked(300, rng, turns=5) for _ in range(64)],
    }


def read_all(signal: Signal, queries: list[Query]) -> float:
    """Return the CPU microseconds that one reading took."""
    start = process_time()
    for query in queries:
        signal.read(query)
    return (process_time() - start) / len(queries) * 1e6


def cost(name: str, signal: Signal, rounds: list[dict[str, list[Query]]]) -> Cost:
    """Measure one signal. The first of the rounds is not counted: what is made once is not its cost."""
    us = {}
    for kind in rounds[0]:
        found = [read_all(signal, queries[kind]) for queries in rounds][1:]
        us[kind] = (median(found), min(found), max(found))
    left = tuple(kind for kind in rounds[0] if any(map(signal.takes_long, rounds[0][kind])))
    us["crafted"] = max(crafted(signal))
    return Cost(signal=name, slow=signal.slow, left=left, us=us)


def crafted(signal: Signal) -> Iterator[tuple[float, float, float]]:
    """Yield what each of the crafted texts costs; 0 for one that is left to a thread."""
    yield 0.0, 0.0, 0.0
    for piece in CRAFTED:
        # Another text each time, so that none is remembered.
        queries = [Query.ask(piece * (LONG // len(piece)) + f" {i}") for i in range(3)]
        if not signal.takes_long(queries[0]):
            found = [read_all(signal, [query]) for query in queries]
            yield median(found), min(found), max(found)


def signals(folder: Path) -> Iterator[tuple[str, Signal]]:
    """Yield the signals to measure, by the name of their row."""
    for name in catalog.names("signals"):
        kind = catalog.find("signals", name)
        if not kind.files and name not in ("keyword", "custom"):
            yield name, kind.example()
    groups: dict[str, Any] = {
        "keyword, 3 words": ["print", "def", "money back"],
        "keyword, 2 patterns (RE2)": [r"re:colou?r\b", "re:[0-9]{3}-[0-9]{4}"],
        "keyword, bm25 of 3": {"bm25": ["termination of a contract", "breach of contract", "court"]},
        "keyword, trigrams of 3": {"trigram": ["refund", "contract", "money back"]},
    }
    for name, rule in groups.items():
        yield name, Keyword(rules={"g": rule})
    try:
        yield "tokens", Tokens(tokenizer=str(tokenizer(folder)))
    except ImportError:
        print("tokens is left out: pip install 'fairlead[onnx]'", file=sys.stderr)


def tokenizer(folder: Path) -> Path:
    """Train a byte-level BPE tokenizer."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    words = tokenizers.Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4_000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    rng = random.Random(0)
    words.train_from_iterator([prose(100_000, rng) for _ in range(3)], trainer)
    path = folder / "tokenizer.json"
    words.save(str(path))
    return path


# ----------------------------------------------------------------------------------------------------------- complexity


def auc(score_N: Floats, hard_N: NDArray[np.bool_], weight_N: Floats | None = None) -> float:
    """Return the chance that a hard one scores higher than one that is not, ties counting half; `weight_N`: how often each counts."""
    weight_N = np.ones(len(score_N)) if weight_N is None else weight_N
    _, rank_N = np.unique(score_N, return_inverse=True)
    high = np.bincount(rank_N, weights=weight_N * hard_N)
    low = np.bincount(rank_N, weights=weight_N * ~hard_N)
    below = np.cumsum(low) - low
    total = high.sum() * low.sum()
    return float((high * (below + 0.5 * low)).sum() / total) if total else 0.5


def area(
    score_N: Floats,
    hard_N: NDArray[np.bool_],
    task_N: NDArray[np.int64],
    hard_within_N: NDArray[np.bool_],
    resamples: int,
    seed: int,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the AUC overall, and the mean over tasks of the AUC within each, both with intervals."""
    large = [t for t in np.unique(task_N) if (task_N == t).sum() >= LEAST_OF_A_TASK]
    inside = [np.flatnonzero(task_N == t) for t in large]

    def both(weight_N: Floats) -> tuple[float, float]:
        each = [auc(score_N[i], hard_within_N[i], weight_N[i]) for i in inside]
        return auc(score_N, hard_N, weight_N), float(np.mean(each)) if each else 0.5

    rng = np.random.default_rng(seed)
    n = len(score_N)
    point = both(np.ones(n))
    drawn = np.array([both(np.bincount(rng.integers(0, n, n), minlength=n).astype(float)) for _ in range(resamples)])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return (point[0], float(low[0]), float(high[0])), (point[1], float(low[1]), float(high[1]))


def areas(path: Path, encoder: Embedder | None, resamples: int, seed: int) -> list[Area]:
    """Judge `complexity` and its baselines on one table."""
    from fairlead.table import OutcomeTable, read_columns

    table = OutcomeTable.read(path)
    columns = read_columns(path)
    task_of = dict(zip(map(str, columns["query_id"]), map(str, columns["dataset"]), strict=True))
    quality_Q = np.nanmean(table.quality_QM, axis=1)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, g in enumerate(table.groups.tolist()):
        if np.isfinite(quality_Q[i]):
            groups[g].append(i)
    queries = list(table.queries())
    firsts = [queries[members[0]] for members in groups.values()]
    quality_N = np.array([quality_Q[members].mean() for members in groups.values()])
    names = [task_of[q.id] for q in firsts]
    task_N = np.unique(names, return_inverse=True)[1].astype(np.int64)
    hard_N = quality_N < np.median(quality_N)
    hard_within_N = np.zeros(len(hard_N), bool)
    for t in np.unique(task_N):
        mine = task_N == t
        hard_within_N[mine] = quality_N[mine] < np.median(quality_N[mine])
    delta, length = Complexity(), Length()
    scores: dict[str, Callable[[Query], float]] = {
        "complexity.delta": lambda q: float(delta.read(q).parts.get("delta", 0.0)),
        "length": lambda q: float(length.read(q).value or 0),
        "-length": lambda q: -float(length.read(q).value or 0),
    }
    if encoder is not None:
        dense = Complexity(embedder=encoder)
        scores["complexity.delta, encoder"] = lambda q: float(dense.read(q).parts.get("delta", 0.0))
    out = []
    for name, score in scores.items():
        score_N = np.array([score(q) for q in firsts])
        overall, within = area(score_N, hard_N, task_N, hard_within_N, resamples, seed)
        out.append(Area(table=path.stem, prompts=len(firsts), score=name, overall=overall, within=within))
    return out


# --------------------------------------------------------------------------------------------------------- conversation


class Alarms(msgspec.Struct, frozen=True, kw_only=True):
    """How often `conversation` saw what was not there; repeats as a share of pairs, by task."""

    table: str
    prompts: int
    dissatisfied: int
    unclear: int
    repeats: dict[str, float]


def alarms(path: Path, seed: int) -> Alarms:
    """Count the false alarms on one table."""
    from fairlead.table import OutcomeTable

    table, signal, rng = OutcomeTable.read(path), Conversation(), random.Random(seed)
    prompts = [(p, str(task)) for p, task in zip(table.prompts, table.datasets, strict=True) if p]

    def parts(first: str, second: str) -> dict[str, Any]:
        said = (("user", first), ("assistant", "Yes."), ("user", second))
        return signal.read(Query(id="q", messages=tuple(Message(role=r, content=c) for r, c in said))).parts

    found = [parts("Hello.", prompt) for prompt, _ in prompts]
    tasks: dict[str, set[str]] = defaultdict(set)
    for prompt, task in prompts:
        tasks[task].add(prompt)
    repeats = {}
    for task, members in tasks.items():
        if len(members) >= 20:
            pairs = [rng.sample(sorted(members), 2) for _ in range(200)]
            repeats[task] = sum(parts(a, b)["reask"] for a, b in pairs) / len(pairs)
    return Alarms(
        table=path.stem,
        prompts=len(prompts),
        dissatisfied=sum(p["dissatisfied"] for p in found),
        unclear=sum(p["wants_clarification"] for p in found),
        repeats=repeats,
    )


# ----------------------------------------------------------------------------------------------------------------- main


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FAIRLEAD_DATA"), help="default: $FAIRLEAD_DATA")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="ONNX file of a sentence encoder, to judge complexity with")
    parser.add_argument("--tokenizer", help="its tokenizer.json")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="fail if a signal takes a millisecond on the event loop")
    args = parser.parse_args()
    rounds = [texts(args.seed + i) for i in range(args.rounds + 1)]
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for name, signal in signals(Path(folder)):
            try:
                costs.append(cost(name, signal, rounds))
            except ConfigError as e:
                print(f"{name} is left out: {e}", file=sys.stderr)
    judged: list[Area] = []
    false: list[Alarms] = []
    encoder = Onnx(model=args.model, tokenizer=args.tokenizer) if args.model and args.tokenizer else None
    if args.data:
        for table in TABLES:
            judged += areas(Path(args.data) / "outcomes" / f"{table}.parquet", encoder, args.resamples, args.seed)
            false.append(alarms(Path(args.data) / "outcomes" / f"{table}.parquet", args.seed))
    else:
        print("complexity is not judged: set FAIRLEAD_DATA to the folder that holds outcomes/", file=sys.stderr)
    missed = [
        f"{c.signal}: {us[0]:.0f} µs, {kind}"
        for c in costs
        for kind, us in c.us.items()
        if not c.slow and kind not in c.left and us[0] >= (MOST_CRAFTED_US if kind == "crafted" else MOST_US)
    ]
    if args.json:
        print(msgspec.json.encode({"costs": costs, "areas": judged, "alarms": false, "missed": missed}).decode())
    else:
        show(costs, judged, false)
        for line in missed:
            print(f"too slow: {line}")
    return 1 if args.check and missed else 0


def show(costs: list[Cost], judged: list[Area], false: list[Alarms]) -> None:
    """Print the tables."""
    kinds = list(costs[0].us)
    print(f"{'CPU µs for a reading':28}" + "".join(f"{kind:>26}" for kind in kinds))
    for c in costs:
        cells = (f"{m:,.1f} ({low:,.1f} to {high:,.1f})" for m, low, high in c.us.values())
        print(f"{c.signal + ('*' if c.slow else ''):28}" + "".join(f"{cell:>26}" for cell in cells))
    if judged:
        print(f"\n{'AUC for hard prompts':28}{'table':>28}{'prompts':>9}{'overall':>24}{'mean within tasks':>24}")
    for a in judged:
        cells = (f"{m:.3f} [{low:.3f}, {high:.3f}]" for m, low, high in (a.overall, a.within))
        print(f"{a.score:28}{a.table:>28}{a.prompts:>9}" + "".join(f"{cell:>24}" for cell in cells))
    for f in false:
        rates = ", ".join(f"{task} {rate:.1%}" for task, rate in sorted(f.repeats.items(), key=lambda x: -x[1])[:4])
        print(f"\nfalse alarms on {f.prompts} prompts of {f.table}: dissatisfied {f.dissatisfied}, unclear {f.unclear}")
        print(f"  counted as a repeat, of pairs within {len(f.repeats)} tasks; most often: {rates}")


if __name__ == "__main__":
    sys.exit(main())
