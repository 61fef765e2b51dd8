"""The outcome table: what each target answered to each query, how good it was and what it took.

On disk it is long: one row per (query, target[, sample]), Parquet, CSV or JSON lines, with the columns

    query_id, dataset, domain, prompt, split, model, quality, cost_usd, input_tokens, output_tokens, latency_s, energy_j, response

Only `query_id`, `model` and `quality` must be there. An empty cell is not known; it is never read as zero. Further columns are
kept under their own names. A column `sample` (0, 1, …) numbers several answers of one target to one query. In memory it is dense.

Shapes: Q queries, M models, S samples. `_QMS` arrays are float64 with NaN for "not known". N rows on disk.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlead.errors import TableError, UnknownName, suggest
from fairlead.signals.base import Observer
from fairlead.types import Query, Signals

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REQUIRED = ("query_id", "model", "quality")
NUMBERS = {
    "quality": "quality_QMS",
    "cost_usd": "usd_QMS",
    "latency_s": "seconds_QMS",
    "energy_j": "joules_QMS",
    "input_tokens": "input_tokens_QMS",
    "output_tokens": "output_tokens_QMS",
}
"""Column on disk -> array in memory."""
LABELS = {"prompt": "prompts", "dataset": "datasets", "domain": "domains", "split": "splits"}


def normalised(prompt: str) -> str:
    """Return `prompt` with case and white space levelled: prompts that differ in no more count as the same."""
    return " ".join(prompt.casefold().split())


def prompt_hash(prompt: str) -> str:
    """Name a prompt by what `normalised` leaves of it."""
    return blake2b(normalised(prompt).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OutcomeTable:
    """Recorded outcomes, dense. Made by `read` or `from_columns`; `take` and the `with_` methods make new ones."""

    query_ids: list[str]
    models: list[str]
    prompts: list[str | None]
    datasets: list[str | None]
    domains: list[str | None]
    splits: list[str | None]
    quality_QMS: Floats
    usd_QMS: Floats
    seconds_QMS: Floats
    joules_QMS: Floats
    input_tokens_QMS: Floats
    output_tokens_QMS: Floats
    present_QMS: NDArray[np.bool_]
    """Where there was a row at all."""
    responses_QMS: NDArray[np.object_] | None = None
    extras: Mapping[str, Floats] = field(default_factory=dict)
    """The source's own numeric columns, each (Q, M, S). They may hold infinities: a log-probability of zero, say."""
    text_extras: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    """The source's own columns of text, each (Q, M, S), None where empty."""
    signals: list[Signals] | None = None
    """One reading of each query, once `observed`."""
    source: str = ""

    # ------------------------------------------------------------------------------------------------------- making

    @classmethod
    def read(cls, path: str | Path) -> OutcomeTable:
        """Read a table from ``.parquet``, ``.csv`` or ``.jsonl``.

        Raises:
            TableError: if the file cannot be read, lacks a column, or contradicts itself.
        """
        return cls.from_columns(read_columns(path), source=str(path))

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any] | NDArray[Any]], *, source: str = "") -> OutcomeTable:
        """Make a table from long columns of equal length, named as on disk. None, NaN and "" are not known.

        Raises:
            TableError: if a column is missing, a value impossible, or two rows contradict each other.
        """
        where = f"{source}: " if source else ""
        for name in REQUIRED:
            if name not in columns:
                raise TableError(
                    f"{where}no column {name!r} ({suggest(name, columns)}); a table needs {', '.join(REQUIRED)}"
                )
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise TableError(f"{where}columns differ in length: {lengths}")
        if not lengths["model"]:
            raise TableError(f"{where}the table has no rows")
        for name in ("query_id", "model"):
            if any(_unknown(v) for v in columns[name]):
                raise TableError(f"{where}a row has no {name}; every row needs one")
        query_ids, q_N = _codes(columns["query_id"])
        models, m_N = _codes(columns["model"])
        order = np.argsort(np.asarray(models, dtype=object), kind="stable")
        rank = np.empty(len(models), dtype=np.int64)
        rank[order] = np.arange(len(models))
        models, m_N = [models[i] for i in order], rank[m_N]
        s_N = _samples(columns.get("sample"), len(q_N), where)
        shape = (len(query_ids), len(models), int(s_N.max()) + 1)
        cell_N = np.ravel_multi_index((q_N, m_N, s_N), shape)
        at = _Rows(cell_N, shape, where, query_ids, models)

        arrays: dict[str, Any] = {attr: at.numbers(name, columns.get(name)) for name, attr in NUMBERS.items()}
        quality = arrays["quality_QMS"]
        if ((quality < 0.0) | (quality > 1.0)).any():
            low, high = np.nanmin(quality), np.nanmax(quality)
            raise TableError(f"{where}quality must lie in [0, 1] but goes from {low:g} to {high:g}; rescale it first")
        for name, attr in NUMBERS.items():
            if name != "quality" and (arrays[attr] < 0.0).any():
                raise TableError(f"{where}{name} must not be negative; leave unknown cells empty")
        known = {"query_id", "model", "sample", "response", *NUMBERS, *LABELS}
        extras, texts = {}, {}
        for name, values in columns.items():
            if name not in known:
                numbers = _as_numbers(values)
                if numbers is None:
                    texts[name] = at.texts(values)
                else:
                    extras[name] = at.numbers(name, numbers)
        responses = columns.get("response")
        fields: dict[str, Any] = {
            attr: _labels(columns.get(name), q_N, query_ids, name, where) for name, attr in LABELS.items()
        }
        return cls(
            query_ids=query_ids,
            models=models,
            present_QMS=at.present(),
            responses_QMS=None if responses is None else at.texts(responses),
            extras=extras,
            text_extras=texts,
            source=source,
            **fields,
            **arrays,
        )

    # ------------------------------------------------------------------------------------------------------ reading

    def __len__(self) -> int:
        return len(self.query_ids)

    def __repr__(self) -> str:
        q, m, s = self.quality_QMS.shape
        return f"OutcomeTable({q} queries, {m} models, {s} samples, {self.source or 'in memory'})"

    @property
    def samples(self) -> int:
        """S, the number of answers recorded per query and model."""
        return int(self.quality_QMS.shape[2])

    @property
    def quality_QM(self) -> Floats:
        """Quality of sample 0, in [0, 1]."""
        return self.quality_QMS[:, :, 0]

    @property
    def usd_QM(self) -> Floats:
        """Cost of sample 0 in USD."""
        return self.usd_QMS[:, :, 0]

    @property
    def seconds_QM(self) -> Floats:
        """Latency of sample 0."""
        return self.seconds_QMS[:, :, 0]

    @property
    def joules_QM(self) -> Floats:
        """Energy of sample 0."""
        return self.joules_QMS[:, :, 0]

    @property
    def input_tokens_QM(self) -> Floats:
        """Input tokens of sample 0."""
        return self.input_tokens_QMS[:, :, 0]

    @property
    def output_tokens_QM(self) -> Floats:
        """Output tokens of sample 0."""
        return self.output_tokens_QMS[:, :, 0]

    def extra(self, name: str) -> Floats:
        """Return the source's own numeric column `name`, (Q, M, S).

        Raises:
            UnknownName: with the nearest column.
        """
        try:
            return self.extras[name]
        except KeyError:
            raise UnknownName("column", name, self.extras) from None

    @property
    def missing(self) -> dict[str, int]:
        """How many (query, model, sample) cells are not known, per column; ``row`` counts cells without any row."""
        out = {"row": int((~self.present_QMS).sum())}
        out.update({name: int(np.isnan(getattr(self, attr)).sum()) for name, attr in NUMBERS.items()})
        out["prompt"] = sum(p is None for p in self.prompts)
        return {name: n for name, n in out.items() if n}

    def describe_missing(self) -> str:
        """Say in one line what is not known."""
        cells = self.quality_QMS.size
        parts = []
        for name, n in self.missing.items():
            total = len(self) if name == "prompt" else cells
            parts.append(f"{name} (all)" if n == total else f"{name} ({n:,} of {total:,})")
        return "not known: " + ", ".join(parts) if parts else "nothing is missing"

    @cached_property
    def prompt_hashes(self) -> list[str | None]:
        """Hash of each normalised prompt; None where there is none."""
        return [None if p is None else prompt_hash(p) for p in self.prompts]

    @cached_property
    def groups(self) -> Ints:
        """Group of each query, (Q,): queries with the same normalised prompt share one, and must not be split apart."""
        seen: dict[str, int] = {}
        return np.asarray(
            [i if h is None else seen.setdefault(h, i) for i, h in enumerate(self.prompt_hashes)], dtype=np.int64
        )

    @property
    def duplicates(self) -> list[list[str]]:
        """Groups of two or more query ids whose prompts are the same after `normalised`."""
        found: dict[int, list[str]] = {}
        for name, group in zip(self.query_ids, self.groups.tolist(), strict=True):
            found.setdefault(group, []).append(name)
        return [names for names in found.values() if len(names) > 1]

    @cached_property
    def digest(self) -> str:
        """Name the table's content: ids, models, prompts, labels and numbers."""
        h = blake2b(digest_size=16)
        for names in (self.query_ids, self.models, self.prompts, self.datasets, self.domains, self.splits):
            h.update(json.dumps(names).encode())
        for attr in NUMBERS.values():
            h.update(np.ascontiguousarray(getattr(self, attr)).tobytes())
        for name in sorted(self.extras):
            h.update(name.encode() + np.ascontiguousarray(self.extras[name]).tobytes())
        return h.hexdigest()

    # ------------------------------------------------------------------------------------------------------ cutting

    def take(self, queries: Sequence[int] | Ints) -> OutcomeTable:
        """Return the table of just these queries, by index, in this order."""
        i = np.asarray(queries, dtype=np.int64)
        return self._cut(i, np.arange(len(self.models)))

    def with_models(self, names: Iterable[str]) -> OutcomeTable:
        """Return the table of just these models, in this order.

        Raises:
            UnknownName: with the nearest model.
        """
        names = list(names)
        if names == self.models:
            return self
        for name in names:
            if name not in self.models:
                raise UnknownName("model", name, self.models)
        return self._cut(np.arange(len(self)), np.asarray([self.models.index(n) for n in names], dtype=np.int64))

    def with_usd(self, usd_QMS: Floats) -> OutcomeTable:
        """Return the table with other costs, such as a column of the source's own or modelled ones."""
        if usd_QMS.shape != self.usd_QMS.shape:
            raise TableError(f"costs have shape {usd_QMS.shape}, the table {self.usd_QMS.shape}")
        return replace(self, usd_QMS=usd_QMS)

    def queries(self) -> Iterator[Query]:
        """Yield each query as one user message with its prompt, under its own id.

        Raises:
            TableError: if a prompt is not known.
        """
        for name, prompt in zip(self.query_ids, self.prompts, strict=True):
            if prompt is None:
                raise TableError(
                    f"query {name!r} has no prompt, so nothing can be read from it; drop it or add its text"
                )
            yield Query.ask(prompt, id=name)

    def observed(self, observer: Observer, needs: Iterable[str]) -> OutcomeTable:
        """Return the table with the signals in `needs` read from every prompt.

        Raises:
            TableError: if a prompt is not known.
            UnknownName: if the observer has no such signal.
        """
        needs = tuple(needs)
        observer.check(needs)
        return replace(self, signals=[observer.read(query, needs) for query in self.queries()])

    def observations(self, needs: Iterable[str]) -> list[Signals]:
        """Return the readings of each query, which must hold the signals in `needs`.

        Raises:
            TableError: if they have not been read.
        """
        needs = tuple(needs)
        if not len(self):
            raise TableError("the table has no queries")
        if self.signals is None:
            if not needs:
                return [Signals() for _ in self.query_ids]
            raise TableError("the table holds no signals; read them first: table = table.observed(observer, needs)")
        lacking = [n for n in needs if n not in self.signals[0].readings]
        if lacking:
            raise TableError(
                f"the table lacks the signals {', '.join(lacking)}; read them too: table.observed(observer, {list(needs)})"
            )
        return self.signals

    def _cut(self, i: Ints, j: Ints) -> OutcomeTable:
        at = np.ix_(i, j)
        fields: dict[str, Any] = {attr: [getattr(self, attr)[k] for k in i] for attr in LABELS.values()}
        fields |= {attr: getattr(self, attr)[at] for attr in NUMBERS.values()}
        return replace(
            self,
            query_ids=[self.query_ids[k] for k in i],
            models=[self.models[k] for k in j],
            **fields,
            present_QMS=self.present_QMS[at],
            responses_QMS=None if self.responses_QMS is None else self.responses_QMS[at],
            extras={name: values[at] for name, values in self.extras.items()},
            text_extras={name: values[at] for name, values in self.text_extras.items()},
            signals=None if self.signals is None else [self.signals[k] for k in i],
        )


# ------------------------------------------------------------------------------------------------------------ from rows


class _Rows:
    """Puts long columns into cells. Rows for the same cell must agree."""

    def __init__(
        self, cell_N: Ints, shape: tuple[int, int, int], where: str, query_ids: list[str], models: list[str]
    ) -> None:
        self.cell_N, self.shape, self.where = cell_N, shape, where
        self.query_ids, self.models = query_ids, models
        _, first, inverse = np.unique(cell_N, return_index=True, return_inverse=True)
        self.first_N: Ints = first[inverse]
        self.repeated = bool((self.first_N != np.arange(len(cell_N))).any())

    def present(self) -> NDArray[np.bool_]:
        out = np.zeros(int(np.prod(self.shape)), dtype=bool)
        out[self.cell_N] = True
        return out.reshape(self.shape)

    def numbers(self, name: str, column: Sequence[Any] | NDArray[Any] | None) -> Floats:
        out = np.full(int(np.prod(self.shape)), np.nan)
        if column is None:
            return out.reshape(self.shape)
        values = _as_numbers(column)
        if values is None:
            bad = next(v for v in column if not _unknown(v) and not _is_number(v))
            raise TableError(f"{self.where}column {name!r} must hold numbers but has {bad!r}")
        if name in NUMBERS and np.isinf(values).any():
            raise TableError(f"{self.where}column {name!r} holds an infinite number; leave unknown cells empty")
        if self.repeated:
            a, b = values, values[self.first_N]
            self._check(~((a == b) | (np.isnan(a) & np.isnan(b))), name)
        out[self.cell_N] = values
        return out.reshape(self.shape)

    def texts(self, column: Sequence[Any] | NDArray[Any]) -> NDArray[np.object_]:
        out = np.full(int(np.prod(self.shape)), None, dtype=object)
        out[self.cell_N] = _objects(column)
        return out.reshape(self.shape)

    def _check(self, differs_N: NDArray[np.bool_], name: str) -> None:
        if differs_N.any():
            q, m, s = np.unravel_index(self.cell_N[int(np.argmax(differs_N))], self.shape)
            raise TableError(
                f"{self.where}rows for query {self.query_ids[q]!r}, model {self.models[m]!r}, sample {s} disagree on {name} "
                f"({int(differs_N.sum())} such rows); number repeated answers in a column `sample`"
            )


def _codes(column: Sequence[Any] | NDArray[Any]) -> tuple[list[str], Ints]:
    """Number the distinct values in order of first sight."""
    seen: dict[str, int] = {}
    codes = [seen.setdefault(str(v), len(seen)) for v in column]
    return list(seen), np.asarray(codes, dtype=np.int64)


def _samples(column: Sequence[Any] | NDArray[Any] | None, n: int, where: str) -> Ints:
    if column is None:
        return np.zeros(n, dtype=np.int64)
    values = _as_numbers(column)
    if values is None or not (values >= 0).all() or (values % 1).any():
        raise TableError(f"{where}column 'sample' must number the answers 0, 1, 2 …")
    return values.astype(np.int64)


def _labels(
    column: Sequence[Any] | NDArray[Any] | None, q_N: Ints, query_ids: list[str], name: str, where: str
) -> list[str | None]:
    """One label per query; rows that leave it empty do not count, rows that disagree are an error."""
    out: list[str | None] = [None] * len(query_ids)
    if column is None:
        return out
    for q, value in zip(q_N.tolist(), column, strict=True):
        if value is None or value == "" or value != value:
            continue
        if out[q] is None:
            out[q] = str(value)
        elif out[q] != str(value):
            raise TableError(
                f"{where}query {query_ids[q]!r} has more than one {name}; give each query its own query_id"
            )
    return out


def _as_numbers(column: Sequence[Any] | NDArray[Any]) -> Floats | None:
    """Read a column as float64 with NaN for what is not known; None if it holds something else."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "fiub":
        return column.astype(np.float64)
    try:
        return np.asarray([np.nan if _unknown(v) else float(v) for v in column], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _unknown(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def _objects(column: Sequence[Any] | NDArray[Any]) -> NDArray[np.object_]:
    out = np.empty(len(column), dtype=object)
    for i, v in enumerate(column):
        out[i] = None if v is None or v != v else str(v)
    return out


def read_columns(path: str | Path) -> dict[str, Any]:
    """Read the columns of a ``.parquet``, ``.csv`` or ``.jsonl`` file by name, as they are.

    Raises:
        TableError: if the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise TableError(f"{path}: no such file; give the path of a table (.parquet, .csv or .jsonl)")
    match path.suffix.lower():
        case ".parquet" | ".pq":
            return _read_parquet(path)
        case ".csv":
            return _read_csv(path)
        case ".jsonl" | ".ndjson":
            return _read_jsonl(path)
        case other:
            raise TableError(f"{path}: cannot read {other or 'a file without suffix'}; use .parquet, .csv or .jsonl")


def _read_parquet(path: Path) -> dict[str, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise TableError(f"{path}: reading Parquet needs pyarrow: pip install 'fairlead[bench]'") from e
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as e:
        raise TableError(f"{path}: not a Parquet file that can be read ({e})") from e
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            columns[name] = column.cast(pa.float64()).to_numpy()
        elif pa.types.is_null(kind):
            columns[name] = np.full(len(column), np.nan)
        else:
            columns[name] = column.to_pylist()
    return columns


def _read_csv(path: Path) -> dict[str, Any]:
    # Responses may be long; the default of 128 KiB a field is too small for some.
    csv.field_size_limit(1 << 27)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            header = next(rows)
        except StopIteration:
            raise TableError(f"{path}: the file is empty") from None
        columns: dict[str, list[str]] = {name: [] for name in header}
        if len(columns) != len(header):
            raise TableError(f"{path}: two columns share a name")
        for row in rows:
            if len(row) != len(header):
                raise TableError(f"{path}: line {rows.line_num} has {len(row)} cells, the header {len(header)}")
            for name, cell in zip(header, row, strict=True):
                columns[name].append(cell)
    return dict(columns)


def _read_jsonl(path: Path) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for n, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as e:
                raise TableError(f"{path}: line {n} is not JSON ({e.msg})") from e
            if not isinstance(record, dict):
                raise TableError(f"{path}: line {n} is not a JSON object")
            records.append(record)
    names = list(dict.fromkeys(k for record in records for k in record))
    if not names:
        raise TableError(f"{path}: the file is empty")
    return {name: [record.get(name) for record in records] for name in names}
