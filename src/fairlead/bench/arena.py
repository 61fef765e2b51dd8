"""RouterArena's files and its score: write a submission, check it, score it (Lu et al. 2025, arXiv 2510.00202).

A submission is a config and one or two lists of entries, all JSON:

    config/NAME.json                    {"pipeline_params": {"router_name": NAME, "models": [...]}}
    predictions/NAME.json               one entry per query: 8,400 (`full`) or 809 (`sub_10`)
    predictions/NAME-robustness.json    the same over 420 reworded queries, under the indices of the original ones

    entry   {"global index", "prompt", "prediction", "generated_result", "cost", "accuracy", "for_optimality"}

`prediction` names the chosen model. `generated_result` (answer, success, token usage), `cost` (USD) and `accuracy` are null until their
pipeline has asked the models and judged the answers. Entries with `for_optimality` are the answers of the pool's *other* models to the
queries of `sub_10`; Opt.Sel, Opt.Cost and Opt.Acc rest on them, the arena score does not.

The score is `metrics.arena_score` of the mean accuracy and the USD per 1,000 queries. Their scorer averages accuracy over the entries that
have one, so an answer that failed costs nothing: here `counted` takes it as wrong and `published` does as they do. The optimality
figures follow their scorer since it was mended in May 2026 (before, queries that the router got wrong were left out). They are shown beside
every single model of the pool and an oracle over it, since they say nothing without the pool.

The format was read off the checker, the scorer and submissions of the project; nothing is copied. RouterArena is for evaluation alone:
nothing here learns from its queries, and `fairlead arena export` refuses a predictor that was trained on one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from fairlead.bench import metrics
from fairlead.errors import TableError

SIZES = {"sub_10": 809, "full": 8400, "robustness": 420}
"""Entries that each split must have, `for_optimality` ones apart."""

RawEntry: TypeAlias = Mapping[str, Any]


class Question(Struct, frozen=True, kw_only=True):
    """One query of the arena."""

    index: str
    prompt: str


class Entry(Struct, frozen=True, kw_only=True):
    """One line of a prediction file, as written before anybody has answered."""

    index: str = msgspec.field(name="global index")
    prompt: str
    prediction: str
    generated_result: None = None
    cost: None = None
    accuracy: None = None
    for_optimality: bool = False


class Figures(Struct, frozen=True, kw_only=True):
    """RouterArena's figures. None: undefined, since nothing was there to take it from."""

    accuracy: float
    usd_per_1k: float
    arena: float
    optimal_selection: float | None = None
    optimal_cost: float | None = None
    optimal_accuracy: float | None = None
    optimality_queries: int = 0
    """Queries with a right answer in the pool, on which the three rest."""


class Alone(Struct, frozen=True, kw_only=True):
    """One chooser on the optimality queries: the submission itself, a single model, or an oracle over the pool."""

    name: str
    accuracy: float
    usd_per_1k: float
    arena: float


class Score(Struct, frozen=True, kw_only=True):
    """All figures of one submission."""

    queries: int
    failed: int
    """Entries without an accuracy: the call failed, or nobody judged the answer."""
    unpriced: int
    """Entries whose cost is not known or zero; they add nothing to the cost."""
    counted: Figures
    """Failed answers are wrong answers."""
    published: Figures
    """As RouterArena's own scorer takes it: failed answers are left out of the accuracy."""
    robustness: float | None = None
    robustness_queries: int = 0
    pool: tuple[Alone, ...] = ()
    """On the optimality queries that every model of the pool answered: the submission, each model, the oracle."""
    pool_queries: int = 0


# -------------------------------------------------------------------------------------------------------------- files


def read(path: str | Path) -> list[dict[str, Any]]:
    """Read a list of entries or queries.

    Raises:
        TableError: if it is not a JSON list of objects.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except OSError as e:
        raise TableError(f"cannot read {path}: {e.strerror}") from e
    except ValueError as e:
        raise TableError(f"{path} is not JSON in UTF-8 ({e})") from e
    if not isinstance(found, list) or not all(isinstance(e, dict) for e in found):
        raise TableError(f"{path} must hold a JSON list of objects, one for each query")
    return found


def read_models(path: str | Path) -> list[str]:
    """Read the models of a submission's config.

    Raises:
        TableError: if it is not one.
    """
    try:
        models = json.loads(Path(path).read_text("utf-8"))["pipeline_params"]["models"]
    except OSError as e:
        raise TableError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise TableError(f'{path} must be JSON of the form {{"pipeline_params": {{"models": [...]}}}}') from e
    if not isinstance(models, list) or not models or not all(isinstance(m, str) for m in models):
        raise TableError(f"{path}: models must be a list of at least one name")
    return models


def questions(entries: Iterable[RawEntry], *, source: str = "the query file") -> list[Question]:
    """Read the arena's queries: `global index`, and `prompt_formatted` or else `prompt`.

    Raises:
        TableError: if one lacks either, or an index comes twice.
    """
    out: dict[str, Question] = {}
    for n, entry in enumerate(entries):
        index, prompt = _index(entry), entry.get("prompt_formatted") or entry.get("prompt")
        if not index or not isinstance(prompt, str):
            raise TableError(f"{source}: entry {n} has no {'prompt' if index else '`global index`'}")
        if index in out:
            raise TableError(f"{source}: the index {index!r} comes twice")
        out[index] = Question(index=index, prompt=prompt)
    return list(out.values())


def export(asked: Sequence[Question], choose: Callable[[Question], str]) -> list[Entry]:
    """Return the entry of each query, in order."""
    return [Entry(index=q.index, prompt=q.prompt, prediction=choose(q)) for q in asked]


def others(chosen: Sequence[Entry], models: Sequence[str], indices: Iterable[str]) -> list[Entry]:
    """Return entries for the optimality figures: every model that was not chosen, on the queries of `indices`."""
    wanted = set(indices)
    return [
        Entry(index=e.index, prompt=e.prompt, prediction=m, for_optimality=True)
        for e in chosen
        if e.index in wanted
        for m in models
        if m != e.prediction
    ]


def write(
    folder: str | Path, name: str, models: Sequence[str], entries: Sequence[Entry], reworded: Sequence[Entry] = ()
) -> list[Path]:
    """Write a submission below `folder`, laid out as their repository wants it; return the paths.

    Raises:
        TableError: if the name is no plain file name.
    """
    if not name or Path(name).name != name or any(c.isspace() for c in name):
        raise TableError(f"{name!r} cannot name a submission: use letters, digits, - and _ (spaces break their checks)")
    config = {"pipeline_params": {"router_name": name, "models": list(models)}}
    files: list[tuple[str, Any]] = [(f"config/{name}.json", config), (f"predictions/{name}.json", list(entries))]
    if reworded:
        files.append((f"predictions/{name}-robustness.json", list(reworded)))
    out = []
    for relative, content in files:
        path = Path(folder) / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        out.append(path)
    return out


# -------------------------------------------------------------------------------------------------------------- checks


def check(
    entries: Sequence[RawEntry],
    *,
    models: Sequence[str] | None = None,
    asked: Sequence[Question] | None = None,
    split: str | None = None,
    answered: bool = False,
) -> list[str]:
    """Return what is wrong with a prediction file, in words; empty if nothing is.

    Args:
        entries: the file, as `read` gives it.
        models: those of the config: every choice must be one of them.
        asked: the queries of the split: every index and prompt must be theirs, and none may be missing.
        split: ``sub_10``, ``full`` or ``robustness``, for the number of entries where `asked` is not given.
        answered: also look at answers, costs and accuracies, as a file has them that is ready to be scored.
    """
    wrong: list[str] = []
    prompts = None if asked is None else {q.index: q.prompt for q in asked}
    seen: dict[str, int] = {}
    for n, entry in enumerate(entries):
        index = _index(entry)
        where = f"entry {n}" + (f" ({index})" if index else "")
        if not index:
            wrong.append(f"{where}: no `global index`")
            continue
        regular = not entry.get("for_optimality", False)
        if regular and index in seen:
            wrong.append(f"{where}: the index was entry {seen[index]} already")
        if regular:
            seen[index] = n
        prompt = entry.get("prompt") or entry.get("prompt_formatted")
        if not isinstance(prompt, str):
            wrong.append(f"{where}: no prompt")
        elif prompts is not None and regular and prompts.get(index) != prompt:
            wrong.append(f"{where}: {'the prompt is not that of the query' if index in prompts else 'no such query'}")
        model = entry.get("prediction")
        if not isinstance(model, str) or not model:
            wrong.append(f"{where}: no prediction")
        elif models is not None and model not in models:
            wrong.append(f"{where}: {model!r} is not a model of the config")
        if answered:
            wrong += [f"{where}: {what}" for what in _unanswered(entry)]
    size = SIZES.get(split or "")
    if prompts is not None:
        lacking = [i for i in prompts if i not in seen]
        if lacking:
            wrong.append(f"{len(lacking)} queries have no entry, the first is {lacking[0]}")
    elif size is not None and len(seen) != size:
        wrong.append(f"{len(seen)} entries where {split} has {size}")
    return wrong


def _unanswered(entry: RawEntry) -> list[str]:
    """Say what an answered entry lacks. A failed call may lack its answer, accuracy and cost, but must say that it failed."""
    result = entry.get("generated_result")
    if not isinstance(result, dict):
        return ["no generated_result; run the models first"]
    lacking = [k for k in ("generated_answer", "success", "token_usage") if k not in result]
    if lacking:
        return [f"generated_result lacks {', '.join(lacking)}"]
    if not isinstance(result["success"], bool):
        return ["generated_result.success must be true or false"]
    if not isinstance(result["generated_answer"], str):
        return ["generated_result.generated_answer must be text"]
    if not result["success"]:
        return []
    wrong = [] if result["generated_answer"].strip() else ["the answer is empty, but success is true"]
    for name, high in (("accuracy", 1.0), ("cost", float("inf"))):
        value = entry.get(name)
        if value is not None and (_number(value) is None or not 0.0 <= float(value) <= high):
            wrong.append(f"{name} {value!r} is out of range")
    usage = result["token_usage"]
    if not isinstance(usage, dict) or not all(isinstance(usage.get(k), int) for k in ("input_tokens", "output_tokens")):
        wrong.append("token_usage must count input_tokens and output_tokens, or the answer cannot be priced")
    return wrong


# --------------------------------------------------------------------------------------------------------------- score


def score(
    entries: Sequence[RawEntry],
    *,
    reworded: Sequence[RawEntry] | None = None,
    optimality: Iterable[str] | None = None,
) -> Score:
    """Score a prediction file that has accuracies and costs.

    Args:
        entries: regular entries and those for optimality.
        reworded: the robustness file.
        optimality: indices of the queries to take the optimality figures from (theirs: those of `sub_10`). None: those that have entries
            for optimality.

    Raises:
        TableError: if no entry has an accuracy, or none a cost.
    """
    regular = {i: e for e in entries if not e.get("for_optimality", False) and (i := _index(e))}
    extra = [e for e in entries if e.get("for_optimality", False)]
    accuracy = {i: _number(e.get("accuracy")) for i, e in regular.items()}
    usd = {i: _number(e.get("cost")) for i, e in regular.items()}
    known = [a for a in accuracy.values() if a is not None]
    paid = [c for c in usd.values() if c is not None and c > 0.0]
    if not known:
        raise TableError("no entry has an accuracy: let RouterArena's pipeline answer and judge them first")
    if not paid:
        raise TableError(
            "no entry has a cost: price the answers first, or a free run would score as the cheapest there is"
        )
    usd_per_1k = sum(paid) / len(regular) * 1e3
    wanted = {_index(e) for e in extra} if optimality is None else set(optimality)
    table = _Pool({i: e for i, e in regular.items() if i in wanted}, extra)
    alone, common = table.alone()
    found, matched = _unchanged(regular, reworded or ())
    return Score(
        queries=len(regular),
        failed=len(regular) - len(known),
        unpriced=len(regular) - len(paid),
        counted=_figures(sum(known) / len(regular), usd_per_1k, table if extra else None, counted=True),
        published=_figures(sum(known) / len(known), usd_per_1k, table if extra else None, counted=False),
        robustness=found,
        robustness_queries=matched,
        pool=alone,
        pool_queries=common,
    )


def _figures(accuracy: float, usd_per_1k: float, table: _Pool | None, *, counted: bool) -> Figures:
    base = Figures(accuracy=accuracy, usd_per_1k=usd_per_1k, arena=metrics.arena_score(accuracy, usd_per_1k))
    if table is None or not table.choice:
        return base
    choice_Q, quality_QM, usd_QM = table.arrays(counted=counted)
    return msgspec.structs.replace(
        base,
        optimal_selection=_defined(metrics.optimal_selection(choice_Q, quality_QM, usd_QM)),
        optimal_cost=_defined(metrics.optimal_cost(choice_Q, quality_QM, usd_QM)),
        optimal_accuracy=_defined(metrics.optimal_accuracy(choice_Q, quality_QM)),
        optimality_queries=int((quality_QM >= 1.0).any(axis=1).sum()) if len(choice_Q) else 0,
    )


class _Pool:
    """What each model of the pool brought on the optimality queries: (accuracy, cost), or None where that is not known."""

    def __init__(self, chosen: Mapping[str, RawEntry], extra: Iterable[RawEntry]) -> None:
        self.choice = {i: str(e.get("prediction")) for i, e in chosen.items()}
        self.failed = {i for i, e in chosen.items() if _judged(e) is None}
        self.cells: dict[tuple[str, str], tuple[float, float]] = {}
        for e in (*extra, *chosen.values()):
            found, index = _judged(e), _index(e)
            if found is not None and index in self.choice:
                self.cells[index, str(e.get("prediction"))] = found
        self.models = sorted({m for _, m in self.cells} | set(self.choice.values()))

    def arrays(self, *, counted: bool) -> tuple[metrics.Ints, metrics.Floats, metrics.Floats]:
        """Choice (Q,), accuracy and cost (Q, M), NaN where not known. Failed choices are wrong if `counted`, else left out."""
        column = {m: j for j, m in enumerate(self.models)}
        rows = [i for i in self.choice if counted or i not in self.failed]
        quality_QM, usd_QM = (np.full((len(rows), len(self.models)), np.nan) for _ in range(2))
        at = {i: q for q, i in enumerate(rows)}
        for (i, m), (a, c) in self.cells.items():
            if i in at:
                quality_QM[at[i], column[m]], usd_QM[at[i], column[m]] = a, c
        choice_Q = np.asarray([column[self.choice[i]] for i in rows], dtype=np.int64)
        failed_Q = np.flatnonzero([i in self.failed for i in rows])
        quality_QM[failed_Q, choice_Q[failed_Q]] = usd_QM[failed_Q, choice_Q[failed_Q]] = 0.0
        return choice_Q, quality_QM, usd_QM

    def alone(self) -> tuple[tuple[Alone, ...], int]:
        """The submission, each model and the oracle on the queries that all models answered, and how many those are."""
        full = [i for i in self.choice if all((i, m) in self.cells for m in self.models)]
        if not full or len(self.models) < 2:
            return (), 0
        cells_QM2 = np.asarray([[self.cells[i, m] for m in self.models] for i in full])
        quality_QM, usd_QM = cells_QM2[:, :, 0], cells_QM2[:, :, 1]
        rows = np.arange(len(full))
        picks = {"this submission": np.asarray([self.models.index(self.choice[i]) for i in full])}
        picks |= {m: np.full(len(full), j) for j, m in enumerate(self.models)}
        picks["oracle (sees answers)"] = metrics.oracle(quality_QM, usd_QM)
        out = []
        for name, pick_Q in picks.items():
            accuracy, usd = float(quality_QM[rows, pick_Q].mean()), float(usd_QM[rows, pick_Q].mean()) * 1e3
            out.append(Alone(name=name, accuracy=accuracy, usd_per_1k=usd, arena=metrics.arena_score(accuracy, usd)))
        return tuple(out), len(full)


def _judged(entry: RawEntry) -> tuple[float, float] | None:
    """Accuracy and cost of an entry; None if one is not known, or both are 0 (so their scorer marks a call that failed)."""
    a, c = _number(entry.get("accuracy")), _number(entry.get("cost"))
    return None if a is None or c is None or (a == 0.0 and c == 0.0) else (a, c)


def _unchanged(regular: Mapping[str, RawEntry], reworded: Iterable[RawEntry]) -> tuple[float | None, int]:
    pairs = [
        (str(regular[i]["prediction"]), str(e["prediction"]))
        for e in reworded
        if (i := _index(e)) in regular and regular[i].get("prediction") and e.get("prediction")
    ]
    return _defined(metrics.unchanged([a for a, _ in pairs], [b for _, b in pairs])), len(pairs)


def _index(entry: RawEntry) -> str:
    value = entry.get("global index") or entry.get("global_index")
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


def _defined(value: float) -> float | None:
    return None if value != value else value
