"""A store's traces as an outcome table in Parquet (`fairlead.table`): one row per query, of the target that answered or was the last to fail.

`quality` is what the judgements that stand say (`rewards.judged`), if they weigh half a judgement or more in all; else it is not known, also of
a failure: `error` says its kind, and what it is worth is for whoever reads the table (`fairlead evaluate` counts one of a store as 0, see
``docs/decisions/0009-off-policy.md``). Cost, tokens, seconds and energy are those of that call, not of the whole plan.
`propensity` is there where the chosen option was that one call, so that `fairlead evaluate` reads the file as a log. Prompts and answers are
there where the store kept them. Rows are written a page at a time: memory does not grow with the store.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairlead import chain, rewards
from fairlead.errors import TableError
from fairlead.sqlstore import SQLStore
from fairlead.types import EVIDENCE, Feedback, Outcome, Trace

PAGE = 500
"""Traces read at a time."""
GROUP = 20_000
"""Rows in one group of the file."""
COLUMNS = {
    "query_id": "string",
    "domain": "string",
    "prompt": "string",
    "model": "string",
    "quality": "float64",
    "cost_usd": "float64",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "latency_s": "float64",
    "energy_j": "float64",
    "response": "string",
    "error": "string",
    "route": "string",
    "at": "float64",
    "propensity": "float64",
}


def export(store: SQLStore, path: Path, *, since: float = -math.inf) -> int:
    """Write the traces from `since` (Unix time) on; return how many rows there are. Blocks.

    Raises:
        TableError: if the file is not to be Parquet, or pyarrow is missing.
        StoreError: if the store cannot be read.
        OSError: if the file cannot be written; what was there before stays.
    """
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise TableError(f"{path}: an export is Parquet; name a file that ends in .parquet")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise TableError("writing Parquet needs the package pyarrow: pip install 'fairlead[bench]'") from None
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    new = path.with_name(f".{path.name}.{os.getpid()}")
    n = 0
    try:
        with pq.ParquetWriter(new, schema) as writer:
            found = rows(store, since=since)
            while group := list(itertools.islice(found, GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                n += len(group)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return n


def rows(store: SQLStore, *, since: float = -math.inf) -> Iterator[dict[str, Any]]:
    """Yield one row a trace that a target answered or failed to, named as `COLUMNS`. Blocks."""
    traces = (t for t in store.traces() if t.at >= since)
    while page := list(itertools.islice(traces, PAGE)):
        marks = ", ".join("?" * len(page))
        query = f"SELECT body FROM feedback WHERE trace_id IN ({marks}) ORDER BY seq"
        standing: dict[str, dict[str, Feedback]] = {}
        for (body,) in store.rows(query, [t.id for t in page]):
            f = chain.decode(body, Feedback)
            standing.setdefault(f.trace_id, {})[f.voter] = f
        for trace in page:
            row = _row(trace, list(standing.get(trace.id, {}).values()))
            if row is not None:
                yield row


def _row(trace: Trace, judged: list[Feedback]) -> dict[str, Any] | None:
    target = trace.outcome.target
    if not target or not trace.steps:
        return None
    calls = [s for s in trace.steps if s.call is not None and s.call.purpose == "answer" and s.outcome.target == target]
    one: Outcome = calls[-1].outcome if calls else trace.outcome
    alone = len(trace.steps) == 1 and trace.decision.options and trace.decision.plan.targets() == (target,)
    tokens, error = one.tokens, trace.outcome.error
    topic = trace.signals.readings.get("domain")
    return {
        "query_id": trace.id,
        "domain": topic.value if topic is not None and isinstance(topic.value, str) else None,
        "prompt": trace.query.text if trace.text_kept else None,
        "model": target,
        "quality": _quality(judged),
        "cost_usd": one.usd,
        "input_tokens": None if tokens is None else tokens.input,
        "output_tokens": None if tokens is None else tokens.output,
        "latency_s": one.seconds,
        "energy_j": one.joules,
        "response": trace.outcome.text if trace.text_kept and (error is None or trace.outcome.text) else None,
        "error": None if error is None else error.kind,
        "route": trace.query.route,
        "at": trace.at,
        "propensity": trace.decision.propensity if alone else None,
    }


def _quality(judged: list[Feedback]) -> float | None:
    said = rewards.judged(judged)
    return said[0] if said is not None and said[1] >= EVIDENCE else None
