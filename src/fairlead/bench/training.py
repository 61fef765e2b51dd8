"""Training a predictor on a table, and keeping it with a note of what it has seen.

A folder holds ``predictor.msgpack`` (spec and state), ``manifest.json`` (what was trained, on what, by which version) and
``seen.json`` (ids and prompt hashes of the training queries), so that nobody is judged on what they were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Struct

from fairlead.bench.evaluate import catalogued
from fairlead.build import TRAINED, build, trained
from fairlead.component import pack
from fairlead.errors import TableError
from fairlead.policies.base import Policy
from fairlead.predictors.base import Predictor
from fairlead.signals.base import Observer
from fairlead.table import OutcomeTable
from fairlead.types import Target
from fairlead.version import VERSION

PREDICTOR, MANIFEST, SEEN = "predictor.msgpack", "manifest.json", "seen.json"


class Manifest(Struct, frozen=True, kw_only=True):
    """What a trained predictor is made of."""

    fairlead: str
    predictor: dict[str, Any]
    digest: str
    table_digest: str
    queries: int
    models: tuple[str, ...]
    scored: int
    """Answers whose quality was known."""
    needs: tuple[str, ...]
    fit_seconds: float


class Seen(Struct, frozen=True, kw_only=True):
    """Ids and prompt hashes (`fairlead.table.prompt_hash`) of training queries."""

    ids: tuple[str, ...]
    prompts: tuple[str, ...]


def train(
    table: OutcomeTable,
    spec: Mapping[str, Any],
    *,
    observer: Observer | None = None,
    targets: Sequence[Target] = (),
) -> tuple[Predictor, Manifest, Seen]:
    """Fit the predictor of `spec` on the whole table. `targets`: those whose profiles are known.

    Raises:
        TableError: if the table cannot teach it.
        ConfigError: if the spec is wrong.
    """
    predictor: Predictor = build("predictors", spec, path="$.predictor")
    if table.signals is None:
        table = table.observed(observer or catalogued(predictor.needs), predictor.needs)
    start = perf_counter()
    predictor.fit(table, targets)
    seconds = perf_counter() - start
    manifest = Manifest(
        fairlead=VERSION,
        predictor=predictor.spec(),
        digest=predictor.digest(),
        table_digest=table.digest,
        queries=len(table),
        models=tuple(table.models),
        scored=int((table.quality_QM == table.quality_QM).sum()),
        needs=predictor.needs,
        fit_seconds=round(seconds, 3),
    )
    hashes = dict.fromkeys(h for h in table.prompt_hashes if h is not None)
    return predictor, manifest, Seen(ids=tuple(table.query_ids), prompts=tuple(hashes))


def save(folder: str | Path, predictor: Predictor, manifest: Manifest, seen: Seen) -> None:
    """Write the three files; the folder is made if it is not there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PREDICTOR).write_bytes(pack([predictor.spec(), predictor.state()]))
    (folder / SEEN).write_bytes(msgspec.json.encode(seen))
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def load(folder: str | Path) -> tuple[Predictor, Seen]:
    """Read a trained predictor and what it has seen.

    Raises:
        ConfigError: if there is no predictor there.
        TableError: if the note of what it has seen is missing or damaged: then nothing can be judged fairly.
    """
    predictor: Predictor = trained(folder)
    return predictor, read_seen(folder)


def read_seen(folder: str | Path) -> Seen:
    """Read what a trained predictor or a calibrated policy has seen.

    Raises:
        TableError: if the note is missing or damaged.
    """
    try:
        return msgspec.json.decode((Path(folder) / SEEN).read_bytes(), type=Seen)
    except (OSError, msgspec.DecodeError) as e:
        raise TableError(
            f"{folder}/{SEEN} cannot be read ({e}); train again, or it may be judged on what it has seen"
        ) from e


def save_policy(folder: str | Path, policy: Policy, seen: Seen) -> None:
    """Write a calibrated policy and what it has seen; the folder is made if it is not there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINED["policies"][0]).write_bytes(pack([policy.spec(), policy.state()]))
    (folder / SEEN).write_bytes(msgspec.json.encode(seen))
