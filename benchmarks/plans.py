"""Every plan on fresh prompts of the lab, and cascades on recorded outcomes: accuracy, cost, calls, time, against single calls.

    python benchmarks/plans.py [--json] [--check] [--prompts 500] [--only KIND,…] [--data DIR]

For each kind of work (the fourteen tasks; the numbers tasks; questions of several steps; tables as text and pictures; look-ups; calls that
stall) three seeds of fresh test prompts. Models are the lab's: real, tiny, with true log-probabilities. Prices follow size, seconds follow tokens at
fixed rates (`fairlead.lab.world`), and all calls are charged: probes, verdicts, merges.

What a plan can be set to (thresholds, who judges) is chosen on development prompts, and what it learns on training prompts; test prompts are only
judged. Baselines at equal cost, each with a paired 95% interval over prompts:

- *mixing*: the upper hull of single calls, what the best random mixing of them attains;
- *two*: mixing the cheapest with the strongest single call alone;
- *consistency*: mixing that may also draw a target 3 or 5 times and vote (plain self-consistency);
- *strongest*: the single call of the highest accuracy, whatever it costs; and the *oracle*, the best single call for each prompt.

Intervals are of all prompts of the three seeds together; of some twenty comparisons at 95% one may stand above zero by chance. The sentence under each table
says on which kinds of prompts the plan is furthest above and below the strongest single call.

Then what the methods' own papers say does *not* work, on simulated outcomes; and, with `--data`, cascades and routers that choose among cascades
on `rational_cascades_train.parquet`, five folds, each answer whose confidence is read charged with `cost_usd_logged`.

With ``--check`` the exit code is 1 unless at least five plans lie above mixing with their whole interval on the lab, and every negative result shows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from zlib import crc32

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import numpy as np

from fairlead.bench.chains import ConfidenceColumns
from fairlead.bench.evaluate import Entrant, evaluate
from fairlead.bench.metrics import Interval
from fairlead.bench.planning import Measured, Row, compare, joined, measure, versus
from fairlead.bench.queueing import Fleet, Hedging, simulate
from fairlead.bench.report import Report, report
from fairlead.bench.report import to_text as report_text
from fairlead.bench.training import train
from fairlead.build import build
from fairlead.lab import draw, outcome_table
from fairlead.lab.compound import check_compound, draw_compound
from fairlead.lab.corpus import EXPERTS, documents, lookups, ndcg, retrieval_table, searchers
from fairlead.lab.crew import AGENTS, MERGE, PICK, RATE, ROUNDS, VERIFY
from fairlead.lab.eye import PARAMETERS, draw_tables, eye
from fairlead.lab.pool import TARGETS, LabTarget
from fairlead.lab.tasks import check, tasks_of
from fairlead.lab.world import Lab
from fairlead.plans.base import decode
from fairlead.plans.modality import Unseeing
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote
from fairlead.predictors.base import Predictor
from fairlead.signals.base import Observer
from fairlead.table import OutcomeTable
from fairlead.targets.gate import Gate
from fairlead.targets.index import search
from fairlead.types import Call, Late, Message, Outcome, Part, Plan, Query
from fairlead.types import Path as Path_
from fairlead.worlds.lateness import Lateness
from fairlead.worlds.replay import LookUp, replay

SEEDS = (5001, 5002, 5003)
DEV_SEED, TRAIN_SEED = 6001, 7001
DEV_PROMPTS, TRAIN_PROMPTS = 300, 1500
ABOVE = 5
"""Plans that must lie above mixing with their whole interval."""
PLAIN = Prompt(name="plain", text="{question}")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Queries to answer."""

    queries: list[Query]
    look_up: Callable[[int], LookUp]
    grade: Callable[[int, Outcome], float]
    groups: list[str]
    """What kind of prompt each is, for the sentence on where a plan wins."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of work, who can do it alone, and the plans that are tried on it."""

    name: str
    singles: tuple[str, ...]
    make: Callable[[int, int, str], Work]
    plans: Callable[[], Mapping[str, Sequence[Plan]]]
    """By name, the settings of each that development prompts choose among."""
    drawn: tuple[str, ...] = ()
    """Whom plain self-consistency draws."""


def kind_of(name: str) -> Kind:
    """Return a kind of work by its name."""
    return next(k for k in KINDS if k.name == name)


def plan(data: Any) -> Plan:
    """Read a plan."""
    return decode(data)


def told(prompt: Prompt) -> Any:
    """Write a prompt as data."""
    return msgspec.to_builtins(prompt)


# ------------------------------------------------------------------------------------------------------ learned parts


def table_of(rows: Sequence[Mapping[str, Any]]) -> OutcomeTable:
    """Make an outcome table of rows."""
    return OutcomeTable.from_columns({name: [row[name] for row in rows] for name in rows[0]})


@cache
def trained(kind: str, predictor: str) -> Gate:
    """Train a gate on training prompts."""
    if kind == "look-ups":
        table = table_of(retrieval_table(TRAIN_PROMPTS, TRAIN_SEED, split="train"))
    else:
        tasks = tasks_of("numbers") if kind == "numbers" else None
        table = table_of(outcome_table(TRAIN_PROMPTS, 1, TRAIN_SEED, split="train", tasks=tasks))
    made, _, _ = train(table, {"type": predictor})
    return Gate(name=predictor, predictor=made)


def said(gates: Mapping[str, Gate], query: Query) -> dict[str, Outcome]:
    """Ask gates."""
    return {name: gate.answer(query) for name, gate in gates.items()}


class Gated(LookUp):
    """Gates beside a look-up, asked about the part of the question that a plan asks them about."""

    def __init__(self, look_up: LookUp, gates: Mapping[str, Gate]) -> None:
        self.look_up, self.gates, self.lateness = look_up, gates, look_up.lateness

    def outcome(self, call: Call, path: Path_) -> Outcome | None:
        """Ask the gate, or look up."""
        if call.target not in self.gates:
            return self.look_up.outcome(call, path)
        return self.gates[call.target].answer(Query(id="part", messages=call.messages or ()))


# ---------------------------------------------------------------------------------------------------------- the work

_LABS: dict[str, Lab] = {}


def lab(name: str, *targets: LabTarget) -> Lab:
    """Return one lab for a kind of work, so that plans share what they ask."""
    return _LABS.setdefault(name, Lab(*targets))


CREW = (LabTarget("lab-judge", "lab-judge"), LabTarget("lab-router", "lab-router"))
STEPS = (
    LabTarget("lab-step", "lab-step", "scratch"),
    LabTarget("lab-steps", "lab-steps", "scratch"),
    LabTarget("lab-steps-direct", "lab-steps"),
    LabTarget("step-working", "lab-step", "working"),
    LabTarget("steps-working", "lab-steps", "working"),
)


def tasks_work(n: int, seed: int, split: str, *, numbers: bool = False) -> Work:
    """The fourteen tasks, or the seven on numbers."""
    name = "numbers" if numbers else "tasks"
    examples = draw(n, seed, split=split, tasks=tasks_of("numbers") if numbers else None)  # type: ignore[arg-type]
    queries = [Query.ask(e.prompt, id=f"{name}-{seed}-{i}") for i, e in enumerate(examples)]
    gates = {"hard": trained(name, "forest"), "skills": trained(name, "skills")}
    world = lab(name, *CREW)
    return Work(
        queries=queries,
        look_up=lambda q: world.of(queries[q], said(gates, queries[q])),
        grade=lambda q, o: float(check(examples[q], o.text)),
        groups=[f"{e.task} {e.level}" for e in examples],
    )


def numbers_work(n: int, seed: int, split: str) -> Work:
    """The seven tasks on numbers."""
    return tasks_work(n, seed, split, numbers=True)


def steps_work(n: int, seed: int, split: str) -> Work:
    """Questions of several steps."""
    examples = draw_compound(n, seed, split=split, most_steps=3)  # type: ignore[arg-type]
    queries = [Query.ask(e.prompt, id=f"steps-{seed}-{i}") for i, e in enumerate(examples)]
    world = lab("steps", *CREW, *STEPS)
    gates = {"hard": trained("tasks", "forest")}
    return Work(
        queries=queries,
        look_up=lambda q: Gated(world.of(queries[q]), gates),
        grade=lambda q, o: float(check_compound(examples[q], o.text)),
        groups=[f"{e.shape} of {len(e.subtasks)}, level {e.level}" for e in examples],
    )


def pictured(table: Any, id: str) -> Query:
    """Ask for one key of a table that is there as text and as a picture."""
    content = [{"type": "text", "text": table.prompt}, {"type": "image_url", "image_url": {"url": table.url}}]
    query = Query.ask("", id=id)
    messages = (Message(role="user", content=(Part(text=table.prompt), Part(type="image_url"))),)
    body = {"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": content}]))}
    return msgspec.structs.replace(query, messages=messages, body=body)


WAYS = ("lab-text", "lab-eye", "both")
READS = ("length", "style", "marks", "pictures")


def looked(table: Any) -> Outcome:
    """What the lab's eye makes of a picture: priced by its size, as the models are, a character at four tokens."""
    seen = eye().read(table.picture, table.key)
    usd = (0.25 * 4 * seen.characters + len(seen.text)) * PARAMETERS / 1e12
    return Outcome(text=seen.text, target="lab-eye", logprobs=seen.logprobs, usd=usd, seconds=2e-4, finish="stop")


@cache
def ways_gate() -> Gate:
    """Train `soft_gate` on tables of the training split: how the text, the picture and both together did."""
    tables = draw_tables(TRAIN_PROMPTS, TRAIN_SEED, split="train")
    observer = Observer(signals={name: build("signals", name) for name in READS})
    queries = [pictured(t, f"train-{i}") for i, t in enumerate(tables)]
    rows = []
    for query, table in zip(queries, tables, strict=True):
        for way in WAYS:
            run = replay(BY_WAY[way], query, lab("tables", *CREW).of(query, {"lab-eye": looked(table)}))
            right = float(run.outcome.text == table.answer)
            rows.append(
                {"query_id": query.id, "prompt": table.prompt, "model": way, "quality": right, "cost_usd": run.usd}
            )
    made: Predictor = build(
        "predictors",
        {"type": "soft_gate", "cost_weight": 0.05, "features": {"type": "features", "signals": list(READS)}},
    )
    table = replace(table_of(rows), signals=tuple(observer.read(q, READS) for q in queries))
    made.fit(table)
    return Gate(name="ways", predictor=made)


BOTH = {"text": "lab-text", "image": "lab-eye", "arbiter": "lab-judge", "prompt": told(MERGE)}
BY_WAY: dict[str, Plan] = {
    "lab-text": Unseeing(plan=Single(target="lab-text")),
    "lab-eye": Single(target="lab-eye"),
    "both": plan({"kind": "modality", **BOTH}),
}


def tables_work(n: int, seed: int, split: str) -> Work:
    """Tables as damaged text and as noisy pictures."""
    tables = draw_tables(n, seed, split=split)  # type: ignore[arg-type]
    queries = [pictured(t, f"tables-{seed}-{i}") for i, t in enumerate(tables)]
    gate = ways_gate()
    return Work(
        queries=queries,
        look_up=lambda q: lab("tables", *CREW).of(
            queries[q], {"lab-eye": looked(tables[q]), "ways": gate.answer(queries[q])}
        ),
        grade=lambda q, o: float(o.text.strip() == tables[q].answer),
        groups=[f"noise {t.noise}, {t.lost:.0%} lost" for t in tables],
    )


class Found(LookUp):
    """What the experts find for one query."""

    def __init__(self, query: str, gates: Mapping[str, Outcome]) -> None:
        self.query, self.gates = query, gates

    def outcome(self, call: Call, path: Path_) -> Outcome:
        """Search, or say what the gate does."""
        if call.target in self.gates:
            return self.gates[call.target]
        passages = search(documents(), searchers()[call.target], self.query, call.params.get("top", 10))
        return Outcome(text=msgspec.json.encode(passages).decode(), target=call.target, usd=0.0, seconds=1e-4)


def look_ups_work(n: int, seed: int, split: str) -> Work:
    """Look-ups in the corpus; quality is nDCG@10."""
    asked = lookups(n, seed, split=split)  # type: ignore[arg-type]
    queries = [Query.ask(a.query, id=f"look-ups-{seed}-{i}") for i, a in enumerate(asked)]
    gates = {"pilots": trained("look-ups", "pilots")}

    def grade(q: int, outcome: Outcome) -> float:
        return ndcg([p["id"] for p in json.loads(outcome.text)], asked[q].about)

    return Work(
        queries=queries,
        look_up=lambda q: Found(asked[q].query, said(gates, queries[q])),
        grade=grade,
        groups=[f"{a.dataset}, {a.manner}" for a in asked],
    )


class Stalling(LookUp):
    """The lab, with calls that stall: one in twenty takes twenty times as long. Simulated; which ones follows from a hash."""

    def __init__(self, inner: LookUp, id: str, lateness: Lateness) -> None:
        self.inner, self.id, self.lateness = inner, id, lateness

    def outcome(self, call: Call, path: Path_) -> Outcome | None:
        """Look up, and stall some."""
        found = self.inner.outcome(call, path)
        drawn = crc32(f"{self.id} {call.target} {call.sample} {path}".encode()) % 20
        return found if found is None or drawn else msgspec.structs.replace(found, seconds=20.0 * found.seconds)


def stalls_work(n: int, seed: int, split: str) -> Work:
    """The fourteen tasks, asked of targets that stall now and then."""
    inner = tasks_work(n, seed, split)
    lateness = Lateness()
    return Work(
        queries=inner.queries,
        look_up=lambda q: Stalling(inner.look_up(q), inner.queries[q].id, lateness),
        grade=inner.grade,
        groups=inner.groups,
    )


# ------------------------------------------------------------------------------------------------- plans, and settings


def drawn(target: str, samples: int) -> Plan:
    """Plain self-consistency."""
    return Vote(members=(Single(target=target),), samples=samples)


EXPERTS_OF = {
    "lab-small": "easy sums and short words",
    "lab-large": "everything, at a price",
    "lab-numbers": "numbers",
    "lab-numbers-scratch": "hard numbers",
    "lab-text": "words and letters",
}


def task_plans() -> dict[str, list[Plan]]:
    """Plans for the fourteen tasks."""
    panel = ["lab-large", "lab-numbers-scratch", "lab-text"]
    return {
        "cascade": [
            plan(
                {"kind": "cascade", "steps": ["lab-small", "lab-large"], "accept": {"kind": "mean_logprob", "above": a}}
            )
            for a in (-0.02, -0.05, -0.1, -0.2)
        ],
        "sigma": [
            plan(
                {
                    "kind": "sigma",
                    "probe": probe,
                    "checks": checks,
                    "panel": panel,
                    "judge": "lab-judge",
                    "prompt": told(PICK),
                }
            )
            for probe in ("lab-small", "lab-large")
            for checks in (["lab-numbers", "lab-text"], ["lab-large", "lab-text"])
        ],
        "fast_slow": [
            plan(
                {
                    "kind": "fast_slow",
                    "fast": fast,
                    "slow": "lab-large",
                    "gate": "hard",
                    "low": low,
                    "high": low,
                    "best_of": n,
                }
            )
            for fast in ("lab-small",)
            for low in (0.2, 0.4, 0.6)
            for n in (1, 3)
        ],
        "merge": [
            plan(
                {
                    "kind": "merge",
                    "members": panel,
                    "merger": "lab-judge",
                    "analyse": told(PLAIN),
                    "prompt": told(MERGE),
                }
            ),
            plan({"kind": "merge", "members": panel, "weights": [1.1, 1.0, 1.0], "on_tie": "lab-large"}),
        ],
        "verify": [
            plan(
                {
                    "kind": "verify",
                    "steps": ["lab-small", "lab-large"],
                    "verifier": "lab-judge",
                    "samples": 1,
                    "by": "probability",
                    "tau": tau,
                    "prompt": told(VERIFY),
                }
            )
            for tau in (0.3, 0.5, 0.7, 0.9)
        ],
        "recruit": [
            plan(
                {
                    "kind": "recruit",
                    "gate": "skills",
                    "experts": panel,
                    "k": k,
                    "aggregator": aggregator,
                    "prompt": told(MERGE),
                }
            )
            for k in (1, 3)
            for aggregator in (None, "lab-judge")
        ],
        "refine": [
            plan(
                {
                    "kind": "refine",
                    "agents": EXPERTS_OF,
                    "default": "lab-large",
                    "refiner": "lab-judge",
                    "refining": told(MERGE),
                    "router": "lab-router",
                    "prompt": told(AGENTS),
                }
            )
        ],
        "refine, by a gate": [
            plan(
                {
                    "kind": "refine",
                    "agents": EXPERTS_OF,
                    "default": "lab-large",
                    "refiner": "lab-judge",
                    "refining": told(MERGE),
                    "gate": "hard",
                    "margin": margin,
                    "size_penalty": 0.05,
                }
            )
            for margin in (0.0, 0.05)
        ],
        "breadth": [
            plan(
                {
                    "kind": "breadth",
                    "members": members,
                    "breadth": breadth,
                    "merger": "lab-judge",
                    "prompt": {**told(MERGE), "text": "{question} | {references}"},
                }
            )
            for members, breadth in (
                (["lab-numbers", "lab-text"], [2]),
                (["lab-large"], [3]),
                (["lab-small", "lab-large"], [2]),
            )
        ],
    }


def number_plans() -> dict[str, list[Plan]]:
    """Plans for the tasks on numbers, where a model can work before it answers: `lab-numbers-scratch` is `lab-numbers` told to."""
    modes = {"kind": "mode", "instant": "lab-small", "reasoning": "lab-numbers-scratch", "gate": "hard"}
    return {
        "cascade": [
            plan(
                {
                    "kind": "cascade",
                    "steps": ["lab-small", "lab-numbers"],
                    "accept": {"kind": "mean_logprob", "above": a},
                }
            )
            for a in (-0.02, -0.1, -0.2)
        ],
        "prompting": [
            plan(
                {
                    "kind": "prompting",
                    "classifier": "lab-router",
                    "prompt": told(RATE),
                    "easy": easy,
                    "hard": "lab-numbers-scratch",
                }
            )
            for easy in ("lab-small", "lab-numbers")
        ],
        "prompting, by a gate": [
            plan({"kind": "prompting", "gate": "hard", "easy": easy, "hard": "lab-numbers-scratch", "easy_from": e})
            for easy in ("lab-small", "lab-numbers")
            for e in (0.5, 0.8, 0.9)
        ],
        "mode": [plan({**modes, "penalty": p, "usd_weight": w}) for p in (0.0, 1.0) for w in (0.0, 10_000.0, 30_000.0)],
    }


def step_plans() -> dict[str, list[Plan]]:
    """Plans for questions of several steps."""
    return {
        "glimpse": [
            plan(
                {
                    "kind": "glimpse",
                    "small": "step-working",
                    "large": "steps-working",
                    "tau": tau,
                    "stop": ";",
                    "end": ">",
                    "temperature": 0.0,
                    "top_p": 1.0,
                    "repeats": None,
                    "max_steps": 8,
                }
            )
            for tau in (0.05, 0.2, 0.5, 1.0)
        ],
        "topology": [
            plan({"kind": "topology", "solver": solver, "single": "lab-steps"})
            for solver in (
                "lab-large",
                {
                    "kind": "cascade",
                    "steps": ["lab-text", "lab-numbers"],
                    "accept": {"kind": "mean_logprob", "above": -0.2},
                },
                {
                    "kind": "cascade",
                    "steps": ["lab-small", "lab-numbers", "lab-text"],
                    "accept": {"kind": "mean_logprob", "above": -0.1},
                },
            )
        ],
        "topology, by skills": [
            plan(
                {
                    "kind": "topology",
                    "single": "lab-steps",
                    "solver": {
                        "kind": "mode",
                        "instant": "lab-text",
                        "reasoning": "lab-numbers",
                        "gate": "hard",
                        "penalty": 0.0,
                    },
                }
            )
        ],
        "rounds": [
            plan(
                {
                    "kind": "rounds",
                    "router": "lab-router",
                    "default": "lab-steps",
                    "prompt": told(ROUNDS),
                    "experts": {"lab-numbers": "sums", "lab-text": "words"},
                }
            )
        ],
    }


def table_plans() -> dict[str, list[Plan]]:
    """Plans for tables as text and pictures."""
    return {
        "modality": [plan({"kind": "modality", "gate": "ways", **BOTH})],
        "modality, always both": [BY_WAY["both"]],
    }


def look_up_plans() -> dict[str, list[Plan]]:
    """Plans for look-ups."""
    return {
        "retrieve": [plan({"kind": "retrieve", "experts": list(EXPERTS), "gate": "pilots", "most": 1})],
        "retrieve, two fused": [plan({"kind": "retrieve", "experts": list(EXPERTS), "gate": "pilots", "most": 2})],
        "retrieve, all fused": [plan({"kind": "retrieve", "experts": list(EXPERTS)})],
    }


def stall_plans() -> dict[str, list[Plan]]:
    """Hedging, with its bound and without."""
    base = {"kind": "hedge", "first": "lab-large", "second": "lab-text"}
    again = {**base, "second": "lab-large"}
    return {
        "hedge": [plan({**again, "otherwise": 0.02, "share": 0.1})],
        "hedge, no bound": [plan({**again, "otherwise": 0.02, "share": 1.0})],
    }


POOL = tuple(t.name for t in TARGETS)
KINDS = (
    Kind(name="tasks", singles=POOL, make=tasks_work, plans=task_plans, drawn=("lab-small", "lab-large")),
    Kind(
        name="numbers",
        singles=tuple(n for n in POOL if n != "lab-text"),
        make=numbers_work,
        plans=number_plans,
        drawn=("lab-large", "lab-numbers"),
    ),
    Kind(
        name="steps",
        singles=("lab-step", "lab-steps", "lab-steps-direct"),
        make=steps_work,
        plans=step_plans,
        drawn=("lab-steps",),
    ),
    Kind(name="tables", singles=("lab-text", "lab-eye", "lab-large"), make=tables_work, plans=table_plans),
    Kind(name="look-ups", singles=EXPERTS, make=look_ups_work, plans=look_up_plans),
    Kind(name="stalls", singles=("lab-large", "lab-text"), make=stalls_work, plans=stall_plans),
)


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One plan on one kind of work."""

    kind: str
    row: Row
    settings: Any
    tried: int
    """How many settings development prompts chose among."""
    over_two: Interval | None = None
    over_consistency: Interval | None = None
    sentence: str = ""
    single: bool = False
    above: bool = False
    """Whether it is one of the plans of the issue's table that lie above mixing with their whole interval."""


def chosen(kind: Kind, plans: Mapping[str, Sequence[Plan]]) -> dict[str, Plan]:
    """Choose each plan's settings: the highest gain over mixing on development prompts."""
    work = kind.make(DEV_PROMPTS, DEV_SEED, "dev")
    ways = {f"{name}/{i}": p for name, settings in plans.items() for i, p in enumerate(settings)}
    found = measure(ways, kind.singles, work.queries, look_up=work.look_up, grade=work.grade)
    gain = {r.name: r.gain.value for r in compare(found, resamples=2)}
    out = {}
    for name, settings in plans.items():
        best = max(range(len(settings)), key=lambda i, name=name: gain[f"{name}/{i}"])
        out[name] = settings[best]
    return out


def judge_kind(
    name: str, prompts: int, only: Sequence[str], resamples: int, seeds: Sequence[int] = SEEDS
) -> tuple[list[Judged], float]:
    """Judge all plans on one kind of work; also the oracle's accuracy."""
    kind = kind_of(name)
    offered = {n: s for n, s in kind.plans().items() if not only or n.partition(",")[0] in only}
    if not offered:
        return [], 0.0
    settled = chosen(kind, offered)
    votes = {f"{t} x {n}": drawn(t, n) for t in kind.drawn for n in (3, 5)}
    parts: list[Measured] = []
    groups: list[str] = []
    for seed in seeds:
        work = kind.make(prompts, seed, "test")
        parts.append(measure({**votes, **settled}, kind.singles, work.queries, look_up=work.look_up, grade=work.grade))
        groups += work.groups
    found = joined(parts)
    rows = compare(found, resamples=resamples)
    usd_S = found.usd_PQ[: found.singles].mean(axis=1)
    quality_S = found.quality_PQ[: found.singles].mean(axis=1)
    cheapest, strongest = found.names[int(usd_S.argmin())], found.names[int(quality_S.argmax())]
    out = []
    for p, row in enumerate(rows):
        single = p < found.singles
        if single or row.name in votes:
            out.append(Judged(kind=name, row=row, settings=None, tried=1, single=single))
            continue
        out.append(
            Judged(
                kind=name,
                row=row,
                settings=msgspec.to_builtins(settled[row.name]),
                tried=len(offered[row.name]),
                over_two=versus(found, row.name, sorted({cheapest, strongest}), resamples=resamples),
                over_consistency=versus(found, row.name, [*kind.singles, *votes], resamples=resamples)
                if votes
                else None,
                sentence=where(found, p, found[strongest], groups),
                above=row.gain.low > 0.0,
            )
        )
    oracle = float(found.quality_PQ[: found.singles].max(axis=0).mean())
    return out, oracle


def where(found: Measured, p: int, strongest: int, groups: Sequence[str]) -> str:
    """Say on which kinds of prompts a plan is furthest above and below the strongest single call."""
    difference_Q = found.quality_PQ[p] - found.quality_PQ[strongest]
    by: dict[str, list[float]] = {}
    for group, d in zip(groups, difference_Q.tolist(), strict=True):
        by.setdefault(group, []).append(d)
    mean = {g: sum(v) / len(v) for g, v in by.items() if len(v) >= 8}
    if not mean:
        return ""
    best, worst = max(mean, key=lambda g: mean[g]), min(mean, key=lambda g: mean[g])
    share = found.usd_PQ[p].mean() / max(found.usd_PQ[strongest].mean(), 1e-300)
    cost = f"at {share:.2f} of its cost" if found.usd_PQ[strongest].any() else "at no cost"
    wins = f"wins most on {best} ({mean[best]:+.2f})" if mean[best] > 0 else "wins nowhere"
    loses = f"loses most on {worst} ({mean[worst]:+.2f})" if mean[worst] < 0 else "loses nowhere"
    name = found.names[strongest]
    return f"against {name}: {difference_Q.mean():+.3f} {cost}; {wins}, {loses}"


# -------------------------------------------------------------------------------------------------- negative results


def negatives() -> dict[str, dict[str, Any]]:
    """What the papers say does not work, shown: each with its figures and whether it shows."""
    return {
        "sigma gains nothing where probes err alike": alike(),
        "a small model that goes round in circles costs more than the large one": circles(),
        "hedging without a bound raises load": unbounded(),
        "a judge that errs on a fifth of the answers makes a cascade worse than mixing": wrong_judge(),
    }


class Probes(LookUp):
    """Answers that are right with probability .6: all calls of a query say the same, or each is drawn apart."""

    def __init__(self, q: int, alike: bool) -> None:
        rng = np.random.default_rng(q)
        first = self.draw(rng)
        self.said = [first] + [first if alike else self.draw(rng) for _ in range(8)]

    @staticmethod
    def draw(rng: np.random.Generator) -> str:
        """Draw one answer."""
        return "right" if rng.random() < 0.6 else f"wrong {rng.integers(5)}"

    def outcome(self, call: Call, path: Path_) -> Outcome:
        """Say what the draw says."""
        draw = call.sample if call.target == "probe" else "bcd".find(call.target) + 3
        return Outcome(text=self.said[draw], target=call.target, usd=1.0)


def alike() -> dict[str, Any]:
    """Sigma on correlated and on independent errors, against the probe alone."""
    made = plan({"kind": "sigma", "probe": "probe", "checks": ["b", "c"], "panel": ["b", "c", "d"], "judge": "judge"})
    queries = [Query.ask("?", id=f"p{i}") for i in range(2000)]
    out: dict[str, Any] = {}
    for name, same in (("alike", True), ("apart", False)):
        found = measure(
            {"sigma": made},
            ["probe"],
            queries,
            look_up=lambda q, same=same: Probes(q, same),
            grade=lambda _, o: float(o.text == "right"),
        )
        row = compare(found, resamples=200)[1]
        out[name] = {"gain": row.over_best.value, "low": row.over_best.low, "high": row.over_best.high, "usd": row.usd}
    out["shows"] = bool(out["alike"]["gain"] == 0.0 and out["alike"]["usd"] > 1.0 and out["apart"]["low"] > 0.0)
    return out


class Circling(LookUp):
    """A small model that is sure of itself and repeats one step for ever; a large one that needs three steps."""

    def outcome(self, call: Call, path: Path_) -> Outcome:
        """Write the next step."""
        written = call.messages[-1].text if call.messages and call.messages[-1].role == "assistant" else ""
        price = 1.0 if call.target == "small" else 10.0
        read = len(written) / 400.0
        if call.purpose == "probe":
            return Outcome(text="s", target=call.target, first_entropy=0.1, usd=0.01 + price * read / 10)
        if "</think>" in written:
            return Outcome(text="answer", target=call.target, usd=price * (1 + read))
        step = "so it goes round" if call.target == "small" else "step" if written.count("\n\n") < 2 else "done</think>"
        return Outcome(text=step, target=call.target, usd=price * (1 + read), finish="stop")


def circles() -> dict[str, Any]:
    """Cost of thinking in turns with a model that circles: with the guard, without, and of the large model alone."""
    query = Query.ask("?", id="c")
    base = {"kind": "glimpse", "small": "small", "large": "large", "max_steps": 60}
    usd = {
        "without a guard": replay(plan({**base, "repeats": None}), query, Circling()).usd,
        "with repeats 4": replay(plan(base), query, Circling()).usd,
        "large alone": replay(plan({**base, "tau": -1.0}), query, Circling()).usd,
    }
    shows = usd["without a guard"] > usd["large alone"]  # type: ignore[operator]
    return {"usd": usd, "shows": bool(shows)}


def unbounded() -> dict[str, Any]:
    """A busy fleet and a delay that was right for a quiet one: nobody sent twice, all who are late, a share of them. Calls that nobody waits for
    go on."""
    fleet = Fleet(load=0.95, burst=None, stop=1e9)
    found: dict[str, Any] = {}
    for name, share in (("none", 0.0), ("no bound", 1.0), ("5% at most", 0.05)):
        late = Late(target="fleet", quantile=0.95, otherwise=3.0, share=share)
        runs = [simulate(fleet, Hedging(late=late, seconds=3.0), items=3000, seed=s) for s in range(5)]
        found[name] = {
            "work": float(np.mean([r.work for r in runs])),
            "p99": float(np.mean([r.quantile(0.99) for r in runs])),
            "duplicates": float(np.mean([r.duplicates for r in runs])) / 3000,
        }
    wild, none, kept = found["no bound"], found["none"], found["5% at most"]
    shows = wild["work"] > none["work"] and wild["p99"] > none["p99"] and kept["duplicates"] <= 0.05
    return {**found, "shows": bool(shows)}


class Judging(LookUp):
    """Six models that err on the same hard queries, mostly, each twice as dear as the one before, and a free judge that errs by chance."""

    RIGHT: ClassVar[dict[str, float]] = {"m1": 0.5, "m2": 0.6, "m3": 0.7, "m4": 0.75, "m5": 0.8, "m6": 0.82}

    def __init__(self, q: int, error: float) -> None:
        self.q, self.error = q, error

    def outcome(self, call: Call, path: Path_) -> Outcome:
        """Answer, or judge."""
        random = Random(f"{self.q} {call.target} {call.messages}")
        if call.target == "judge":
            right = "<<<\nright\n>>>" in (call.messages or ())[-1].text
            return Outcome(text="yes" if right != (random.random() < self.error) else "no", target="judge", usd=0.0)
        hardness = 0.8 * Random(self.q).random() + 0.2 * random.random()
        right = hardness < 0.1 + 0.8 * self.RIGHT[call.target]
        usd = 2.0 ** [*self.RIGHT].index(call.target)
        return Outcome(text="right" if right else "wrong", target=call.target, usd=usd)


def wrong_judge() -> dict[str, Any]:
    """A cascade of six models by a judge, over mixing them, by how often the judge errs."""
    names = [*Judging.RIGHT]
    made = plan({"kind": "verify", "steps": names, "verifier": "judge", "samples": 1, "tau": 0.5})
    queries = [Query.ask("?", id=f"v{i}") for i in range(1500)]
    gains = {}
    for error in (0.0, 0.1, 0.2, 0.3):
        found = measure(
            {"verify": made},
            names,
            queries,
            look_up=lambda q, error=error: Judging(q, error),
            grade=lambda _, o: float(o.text == "right"),
        )
        gains[error] = msgspec.to_builtins(compare(found, resamples=200)[-1].gain)
    return {"gain by error": gains, "shows": bool(gains[0.0]["low"] > 0.0 and gains[0.2]["high"] < 0.0)}


# -------------------------------------------------------------------------------------------------- recorded outcomes


def recorded(data: str, resamples: int) -> Report:
    """Cascades, and a router that chooses among them, on recorded answers with their confidence, five folds."""
    table = OutcomeTable.read(Path(data) / "outcomes" / "rational_cascades_train.parquet")
    confidence = ConfidenceColumns(column="confidence_logprob", usd_column="cost_usd_logged")
    routers = [Entrant(name=name, spec={"type": name}) for name in ("forest", "ridge")]
    result = evaluate(table, routers=routers, confidence=confidence, split="5-fold", seed=0)
    return report(msgspec.structs.replace(result, source="rational_cascades_train"), resamples=resamples)


# --------------------------------------------------------------------------------------------------------- the command


def to_text(judged: Sequence[Judged], oracle: float) -> str:
    """Lay one kind of work out for people."""
    width = max(len(j.row.name) for j in judged)
    lines = [
        f"{'':<{width}}  {'accuracy':>8}  {'USD/1M':>7}  {'calls':>5}  {'ms':>6}  {'99%':>6}  {'over mixing':<25}  {'over two':<25}  "
        "over consistency"
    ]
    for j in judged:
        r = j.row
        parts = [_gap(r.gain), _gap(j.over_two), _gap(j.over_consistency)]
        lines.append(
            f"{r.name:<{width}}  {r.quality.value:>8.3f}  {1e6 * r.usd:>7.1f}  {r.calls:>5.2f}  {1e3 * r.seconds:>6.1f}  "
            f"{1e3 * r.slow_seconds:>6.1f}  " + "  ".join(f"{p:<25}" for p in parts).rstrip()
        )
    lines.append(f"{'oracle':<{width}}  {oracle:>8.3f}  (of single calls)")
    lines += [f"  {j.row.name}: {j.sentence}" for j in judged if j.sentence]
    return "\n".join(lines)


def _gap(found: Interval | None) -> str:
    return "" if found is None else f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--data",
        default=os.environ.get("FAIRLEAD_DATA"),
        help="default: $FAIRLEAD_DATA; without it no recorded outcomes",
    )
    add("--prompts", type=int, default=500, help="test prompts for each of three seeds (default: %(default)s)")
    add("--seeds", default=",".join(map(str, SEEDS)), metavar="N,…", help="of the test prompts (default: %(default)s)")
    add("--only", default="", metavar="PLAN,…", help="these plans")
    add("--work", default="", metavar="KIND,…", help=f"of {', '.join(k.name for k in KINDS)}")
    add("--resamples", type=int, default=1000)
    add("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    add("--json", action="store_true")
    add("--check", action="store_true")
    args = parser.parse_args()
    if args.check and (args.only or args.work):
        parser.error("--check judges everything; leave --only and --work out")
    only = tuple(filter(None, args.only.split(",")))
    seeds = tuple(map(int, args.seeds.split(",")))
    kinds = tuple(filter(None, args.work.split(","))) or tuple(k.name for k in KINDS)
    out: dict[str, Any] = {"prompts": args.prompts, "seeds": seeds, "kinds": {}, "settings": {}}
    above: set[str] = set()
    with ProcessPoolExecutor(args.jobs) as pool:
        work = {name: pool.submit(judge_kind, name, args.prompts, only, args.resamples, seeds) for name in kinds}
        shown = pool.submit(negatives) if not only else None
        rational = pool.submit(recorded, args.data, args.resamples) if args.data and not only else None
        for name, future in work.items():
            judged, oracle = future.result()
            if not judged:
                continue
            out["kinds"][name] = {"oracle": oracle, "rows": [msgspec.to_builtins(j.row) for j in judged]}
            out["settings"] |= {f"{name}: {j.row.name}": j.settings for j in judged if j.settings is not None}
            above |= {
                j.row.name.partition(",")[0] for j in judged if j.above and j.row.name.partition(",")[0] in MARKED
            }
            if not args.json:
                print(f"{name}: {len(seeds)} x {args.prompts} test prompts\n\n{to_text(judged, oracle)}\n", flush=True)
        if shown is not None:
            out["negatives"] = shown.result()
        if rational is not None:
            found = rational.result()
            out["recorded"] = msgspec.to_builtins(found)
            if not args.json:
                print(report_text(found), end="\n\n")
    out["above"] = sorted(above)
    wrong = [name for name, n in out.get("negatives", {}).items() if not n["shows"]]
    good = not wrong and len(above) >= ABOVE
    if args.json:
        print(json.dumps({**out, "good": good}, indent=2, default=str))
    else:
        for name, figures in out.get("negatives", {}).items():
            print(f"{'shows' if figures['shows'] else 'DOES NOT SHOW'}: {name}\n    {json.dumps(figures, default=str)}")
        sign = "ok  " if len(above) >= ABOVE else "FAIL"
        print(
            f"\n{sign} plans above mixing with their whole interval: {', '.join(sorted(above)) or 'none'} (must: {ABOVE})"
        )
    return int(args.check and not good)


MARKED = frozenset(
    {
        "sigma", "fast_slow", "glimpse", "merge", "recruit", "refine", "prompting", "rounds", "topology", "verify", "breadth", "modality",
        "mode", "hedge", "retrieve",
    }
)  # fmt: skip
"""The multi-step methods; cascades and votes are older and are shown beside them."""


if __name__ == "__main__":
    sys.exit(main())
