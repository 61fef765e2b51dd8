"""Outcome tables measured on the lab: every target's answer, quality, cost and time on fresh prompts.

Long format, one row for each query, target and sample.  Sample 0 is greedy, the others are drawn
at temperature 0.8, so a table holds both what a target answers and how much it wavers.

Choices that matter:

* Prompts come from the test split, which no training run can have seen.
* Costs are list prices for the tokens of that one sample, as if it had been asked alone.
* `latency_s` is measured: of a greedy call alone, and for the others their batch's time divided
  by its size.  `energy_j` is null: nothing here can measure it.
* The same arguments give the same table but for `latency_s`.

Cost: about 3 ms a query and target for one sample, 8 ms for four, on an idle core.  Ours, no paper.
"""

import csv
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from fairlead.lab.model import Completion
from fairlead.lab.pool import TARGETS, LabTarget, describe, load
from fairlead.lab.tasks import LEVEL_MIX, Example, Split, check, draw, final_answer

SAMPLE_TEMPERATURE: Final = 0.8

Progress = Callable[[int, int], None]


class OutcomeRow(TypedDict):
    """One sample of one target on one query.  Quality is 1 or 0: the answer is exact or wrong."""

    query_id: str
    dataset: str
    domain: str
    prompt: str
    split: str
    model: str
    quality: float
    cost_usd: float
    input_tokens: int
    output_tokens: int
    latency_s: float
    energy_j: float | None
    response: str
    sample: int
    level: int
    confidence_logprob: float
    first_entropy: float


COLUMNS: Final = tuple(OutcomeRow.__annotations__)


def outcome_table(
    n: int,
    k: int = 1,
    seed: int = 0,
    *,
    split: Split = "test",
    targets: Sequence[LabTarget] = TARGETS,
    tasks: Sequence[str] | None = None,
    level_mix: Sequence[float] = LEVEL_MIX,
    exclude: Collection[str] = frozenset(),
    progress: Progress | None = None,
) -> list[OutcomeRow]:
    """`n` queries times the targets times `k` samples; `progress(done, n)` after each query."""
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    examples = draw(n, seed, split=split, tasks=tasks, level_mix=level_mix, exclude=exclude)
    rows: list[OutcomeRow] = []
    for number, example in enumerate(examples):
        query_id = f"lab-{seed}-{number:06d}"
        for target in targets:
            rows += _outcomes(example, query_id, split, target, k=k, seed=seed * 1_000_003 + number)
        if progress is not None:
            progress(number + 1, n)
    return rows


def _outcomes(
    example: Example, query_id: str, split: Split, target: LabTarget, *, k: int, seed: int
) -> Iterable[OutcomeRow]:
    model = load(target.model)
    start = time.perf_counter()
    completions = model.generate(example.prompt, mode=target.mode)
    latencies = [time.perf_counter() - start]
    if k > 1:
        start = time.perf_counter()
        completions += model.generate(
            example.prompt, mode=target.mode, n=k - 1, temperature=SAMPLE_TEMPERATURE, seed=seed
        )
        latencies += [(time.perf_counter() - start) / (k - 1)] * (k - 1)
    for sample, (completion, latency) in enumerate(zip(completions, latencies, strict=True)):
        yield _row(example, query_id, split, target, sample, completion, latency)


def _row(
    example: Example,
    query_id: str,
    split: Split,
    target: LabTarget,
    sample: int,
    completion: Completion,
    latency: float,
) -> OutcomeRow:
    return OutcomeRow(
        query_id=query_id,
        dataset=example.task,
        domain=example.field,
        prompt=example.prompt,
        split=split,
        model=target.name,
        quality=float(check(example, completion.text)),
        cost_usd=describe(target.model).cost_usd(
            input_tokens=completion.prompt_tokens, output_tokens=completion.completion_tokens
        ),
        input_tokens=completion.prompt_tokens,
        output_tokens=completion.completion_tokens,
        latency_s=latency,
        energy_j=None,
        # The answer alone: two samples agree if they answer alike, however they got there.
        response=final_answer(completion.text),
        sample=sample,
        level=example.level,
        confidence_logprob=completion.mean_logprob,
        first_entropy=completion.first_entropy,
    )


def write_table(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows as CSV if the path ends in `.csv`, else as parquet (which needs pyarrow)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        return
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("writing parquet needs pyarrow; install it or give a path ending in .csv") from error
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), float | None: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in OutcomeRow.__annotations__.items()])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
