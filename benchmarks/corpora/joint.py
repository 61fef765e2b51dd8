"""Guards and routing together: recorded prompts, of which some are given personal data or an attack, routed with and without each guard.

A tenth of the prompts of ``rational_cascades_train`` gets a line with personal data, another tenth an attack, both from those parts of
the corpora here that nothing was learned from (attacks: also old ones in new disguises); the rest stays as it is, so what fires there fires wrongly. The two cheapest
models stand for local ones. Quality and cost are those recorded for the original prompt. The policy is `forest`'s best utility,
trained on the other half of the prompts.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from corpora import Section, injection, personal
from fairlead.bench.guarding import judge
from fairlead.bench.training import save, train
from fairlead.config import make
from fairlead.table import OutcomeTable

SHARE = 0.1
USD_WEIGHT = 50.0


def measure(*, data: Path | None, seed: int) -> Section:
    """Route half of the table under guards; the other half trains the router."""
    columns = ("guard", "fires", "fires wrongly", "misses", "refuses", "quality", "USD/1k", "own µs")
    if data is None:
        return Section(name="joint", setting="needs recorded outcomes: set FAIRLEAD_DATA", columns=columns, rows=())
    table = OutcomeTable.read(data / "outcomes" / "rational_cascades_train.parquet")
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(table.groups))
    taught = np.isin(table.groups, order[: len(order) // 2])
    test = table.take(np.flatnonzero(~taught))
    prompts, labels = _salted(test, random.Random(seed))
    extras = {
        f"is_{k}": np.broadcast_to(v[:, None, None], test.quality_QMS.shape).astype(float) for k, v in labels.items()
    }
    test = replace(test, prompts=prompts, extras={**test.extras, **extras})
    cheap = [test.models[m] for m in np.argsort(np.nanmean(test.usd_QM, axis=0))[:2]]
    with tempfile.TemporaryDirectory() as folder:
        save(folder, *train(table.take(np.flatnonzero(taught)), {"type": "forest"}))
        config = make(
            {
                "targets": {
                    name: {
                        "type": "scripted",
                        "replies": ["x"],
                        "profile": {"tags": ["local"] if name in cheap else []},
                    }
                    for name in test.models
                },
                "routes": {
                    "auto": {
                        "policy": {
                            "type": "utility",
                            "predictor": {"trained": folder},
                            "objective": {"usd_weight": USD_WEIGHT},
                        }
                    }
                },
                "guards": [
                    {"name": "private", "when": {"pii.found": True}, "only": ["tag:local"]},
                    {"name": "attack", "when": {"injection": {"ge": 0.65}}, "do": ["block"]},
                ],
            }
        )
        found = judge(config, test, truth={k: f"is_{k}" for k in labels}, seed=seed)
    rows: list[tuple[str | float | int | None, ...]] = [
        (
            "none",
            None,
            None,
            None,
            None,
            f"{found.quality[1]:.4f}",
            f"{found.usd_per_1k[1]:.4f}" if found.usd_per_1k else None,
            None,
        ),
        (
            "all",
            None,
            None,
            None,
            f"{found.refused[0]:.1%}",
            f"{found.quality[0]:.4f}",
            f"{found.usd_per_1k[0]:.4f}" if found.usd_per_1k else None,
            None,
        ),
    ]
    rows += [
        (
            r.guard,
            str(r.fires),
            str(r.wrongly),
            str(r.missed),
            str(r.refuses),
            str(r.quality),
            str(r.usd_per_1k),
            1e6 * r.own_seconds,
        )
        for r in found.rows
    ]
    return Section(
        name="joint",
        setting=f"{found.queries} recorded prompts, {SHARE:.0%} with personal data, {SHARE:.0%} with an attack; local: {', '.join(cheap)}; "
        f"utility with usd_weight {USD_WEIGHT:g}, trained on the other half; 95% intervals; changes are against all guards but this one",
        columns=columns,
        rows=tuple(rows),
        notes=("An attack that is blocked counts as quality 0, as any refusal does: blocking is bought with it.",),
    )


def _salted(table: OutcomeTable, rng: random.Random) -> tuple[list[str | None], dict[str, np.ndarray]]:
    """Give some prompts what the guards are for."""
    lines = {
        "private": personal.positives(seed=rng.randrange(10**6)),
        "attack": injection.attacks(seed=rng.randrange(10**6)),
    }
    prompts = list(table.prompts)
    labels = {name: np.zeros(len(prompts), dtype=bool) for name in lines}
    which = rng.sample(range(len(prompts)), k=2 * int(SHARE * len(prompts)))
    for i, q in enumerate(which):
        name = ("private", "attack")[i % 2]
        labels[name][q] = True
        prompts[q] = f"{prompts[q]}\n\n{rng.choice(lines[name])}"
    return prompts, labels
