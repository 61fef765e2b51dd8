"""Take a task apart, wire the parts by the shape of what depends on what, and put the results together.

AdaptOrch (2026, arXiv 2602.16873). A task is a graph of subtasks; three features of it choose the wiring in O(V + E):

    omega   width: the most subtasks on one level (levels by Kahn's sort)
    delta   depth: subtasks on the longest path
    gamma   mean coupling of the edges, in [0, 1]

    no edges -> parallel;  width 1 -> sequential;  omega / V > .5 and gamma <= .6 -> parallel;  gamma > .6 and delta > 5 -> hierarchical;
    gamma > .6 -> sequential;  else hybrid

The thresholds are the paper's; the order of the branches is ours, as are the wirings, since it gives neither:

    parallel       a subtask starts as soon as the results that its text names (`#k`) are there, and is told nothing else
    sequential     one at a time, each told all results so far
    hierarchical   level by level; what a level found is first summed up by `lead`, and the next level is told that
    hybrid         level by level, each told the results that it depends on

**Reading a task.** `decompose: numbered` reads a list that stands in the question (``1) 12+30; 2) reverse abc; 3) #1*4``, or a line each); a
target's name has that model write such a list first. `tasks` gives the graph in the plan. `#k` in a text is replaced by the result of subtask k; a line may end in
``[after 1, 2]`` for results that it needs as context. An edge by `#k` has coupling .5 (a value is handed over), one by ``after`` 1.0 (the whole is needed).
What cannot be read, a cycle, or fewer than two subtasks: `single` answers, as it does where a subtask fails.

**Together.** Results that no other subtask uses are joined by ``, `` in order (`synthesise: join`), or a target writes the answer from all of
them. If `consistency` is set, a parallel wiring whose results' mean pairwise cosine (of hashed words and trigrams) is lower is run again as
hybrid, hierarchical, sequential, in this order and round again, `reroutings` times at most; the answer's confidence is the consistency that was
reached. That suits subtasks which answer the same question from different sides, and no others: it is off by default, and agreement is not correctness.

Everything hangs on the decomposition. Cost: a call for each subtask, those of the decomposer and of who puts together. Kept results let a limit return what
there is: the results so far that nothing has used.

Checked in tests/plans/test_topology.py.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

from msgspec import Meta, Struct

from fairlead.errors import LimitReached
from fairlead.plans import prompts
from fairlead.plans.base import saying, targets_of
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.subtask import Asked
from fairlead.types import Do, Outcome, Plan, Query, Steps

Wiring: TypeAlias = Literal["parallel", "sequential", "hierarchical", "hybrid"]
Share: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]

REROUTES: Final[tuple[Wiring, ...]] = ("hybrid", "hierarchical", "sequential", "parallel")
HANDED_OVER: Final = 0.5
NEEDED: Final = 1.0
MOST_SUBTASKS: Final = 64
"""A longer list is no plan but a flood."""

_ITEM: Final = re.compile(r"(?:^|[;\n])\s*(\d{1,3})[).]\s+")
_REFERENCE: Final = re.compile(r"#(\d{1,3})(?!\d)")
_FILLED: Final = re.compile(_REFERENCE.pattern + r"|\{question\}")
_AFTER: Final = re.compile(r"\s*\[after\s+([\d,\s#]+)\]\s*$", re.IGNORECASE)


class Subtask(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One part of a task. `text` may name results of earlier parts by `#k`, counted from 1, and in a plan the ``{question}``; `after`: parts whose
    results it needs beside those."""

    text: str
    after: tuple[int, ...] = ()


class Edge(NamedTuple):
    """Part `child` needs part `parent`, both counted from 0; how much, in [0, 1]."""

    parent: int
    child: int
    coupling: float


class Graph(NamedTuple):
    """A task as parts and what depends on what."""

    texts: tuple[str, ...]
    edges: tuple[Edge, ...]


class Features(NamedTuple):
    """What the wiring is chosen by."""

    parts: int
    width: int
    depth: int
    coupling: float
    edges: int


class Topology(Struct, Plan, frozen=True, kw_only=True, tag="topology", tag_field="kind", forbid_unknown_fields=True):
    """Have `solver` answer the parts of a task, or of its `tasks`; `single` answers where there is nothing to take apart, or it fails.

    `decompose`: ``numbered``, or a target. `synthesise`: ``join``, or a target. `lead`: sums up levels of a hierarchical wiring; None: they are
    told as they are. `wiring`: one for all tasks, instead of by the features. Prompts: `dividing` may have the field question; `telling` question and results;
    `joining` question and results.
    """

    solver: Plan
    single: Plan
    decompose: str = "numbered"
    tasks: tuple[Subtask, ...] = ()
    synthesise: str = "join"
    lead: str | None = None
    wiring: Wiring | None = None
    theta_omega: Share = 0.5
    theta_gamma: Share = 0.6
    theta_delta: Annotated[int, Meta(ge=1)] = 5
    consistency: Share | None = None
    reroutings: Annotated[int, Meta(ge=0)] = 5
    dividing: Prompt | str = "decompose@1"
    telling: Prompt | str = "subtask@1"
    joining: Prompt | str = "synthesise@1"

    def __post_init__(self) -> None:
        prompts.check(self.dividing, "question")
        prompts.check(self.telling, "question", "results")
        prompts.check(self.joining, "question", "results")
        if self.tasks:
            graph_of(self.tasks)

    def run(self, query: Query) -> Steps:
        """Take apart, solve, put together."""
        done: dict[int, Outcome] = {}
        graph: Graph | None = None
        try:
            graph = yield from self._divided(query)
            if graph is not None:
                found = features(graph)
                wiring = self.wiring or choose(
                    found, omega=self.theta_omega, gamma=self.theta_gamma, delta=self.theta_delta
                )
                agreed: float | None = None
                for n in range(self.reroutings + 1):
                    done = {}
                    if not (yield from self._solved(graph, wiring, query, done)):
                        break
                    if self.consistency is None or (n == 0 and wiring != "parallel"):
                        return (yield from self._joined(query, graph, done, None))
                    agreed = alike([done[i].text for i in unused(graph)])
                    if agreed >= self.consistency:
                        break
                    wiring = REROUTES[n % len(REROUTES)]
                if agreed is not None and len(done) == len(graph.texts):
                    return (yield from self._joined(query, graph, done, agreed))
            (outcome,) = yield Do(branches=(self.single,), final=True)
        except LimitReached:
            partial = _partial(graph, done)
            if partial is None:
                raise
            return partial
        return outcome if outcome.ok or outcome.streamed else _partial(graph, done) or outcome

    def targets(self) -> tuple[str, ...]:
        """The decomposer, those of the solver, the lead, who puts together, those of `single`."""
        decomposer = None if self.tasks or self.decompose == "numbered" else self.decompose
        return targets_of(
            decomposer, self.solver, self.lead, None if self.synthesise == "join" else self.synthesise, self.single
        )

    @classmethod
    def example(cls) -> Topology:
        """Three parts, one of which uses another; all targets take part."""
        tasks = (Subtask(text="{question} (first)"), Subtask(text="second"), Subtask(text="#1 again", after=(2,)))
        return cls(
            solver=Single(target="a"),
            single=Single(target="b"),
            tasks=tasks,
            synthesise="c",
            lead="d",
            wiring="hierarchical",
        )

    def _divided(self, query: Query) -> Generator[Do, tuple[Outcome, ...], Graph | None]:
        if self.tasks:
            return graph_of(self.tasks)
        if self.decompose == "numbered":
            return read(query.text)
        (told,) = yield Do(branches=(prompts.ask(self.decompose, self.dividing, query, purpose="plan"),))
        return read(told.text) if told.ok else None

    def _solved(
        self, graph: Graph, wiring: Wiring, query: Query, done: dict[int, Outcome]
    ) -> Generator[Do, tuple[Outcome, ...], bool]:
        """Run the parts into `done`; False as soon as one fails."""
        summary = ""
        for wave in waves(graph, wiring):
            branches = tuple(self._part(graph, i, wiring, query, done, summary) for i in wave)
            outcomes = yield Do(branches=branches)
            for i, outcome in zip(wave, outcomes, strict=True):
                if outcome.ok and outcome.text.strip():
                    done[i] = outcome
            if any(i not in done for i in wave):
                return False
            if wiring == "hierarchical" and self.lead is not None and len(done) < len(graph.texts):
                results = [done[i].text for i in sorted(done)]
                call = prompts.ask(self.lead, self.joining, query, purpose="merge", results=results)
                (told,) = yield Do(branches=(call,))
                summary = told.text if told.ok else ""
        return True

    def _part(
        self, graph: Graph, i: int, wiring: Wiring, query: Query, done: Mapping[int, Outcome], summary: str
    ) -> Plan:
        """Return the call of one part, with results in the place of `#k` and what else it is told."""
        named = {int(k) - 1 for k in _REFERENCE.findall(graph.texts[i])}

        def filled(match: re.Match[str]) -> str:
            if match[1] is not None:
                return done[int(match[1]) - 1].text.strip()
            return prompts.question(query) if self.tasks else match[0]

        # In one pass: what stands in a question or a result is no reference.
        text = _FILLED.sub(filled, graph.texts[i])
        match wiring:
            case "parallel":
                told = []
            case "sequential":
                told = [done[j].text for j in sorted(done) if j not in named] if _needs(graph, i) - named else []
            case "hierarchical" if summary:
                told = [summary] if _needs(graph, i) - named else []
            case _:
                told = [done[j].text for j in sorted(_needs(graph, i) - named)]
        if told:
            (message,) = prompts.find(self.telling).messages({"question": text, "results": told})[-1:]
            text = message.text
        return Asked(plan=self.solver, text=text, part=str(i + 1))

    def _joined(self, query: Query, graph: Graph, done: Mapping[int, Outcome], agreed: float | None) -> Steps:
        """Put the results together."""
        last = unused(graph)
        joined = saying(done[last[-1]], ", ".join(done[i].text.strip() for i in last), confidence=agreed, finish="stop")
        if self.synthesise == "join":
            return joined
        results = [f"{graph.texts[i]}: {done[i].text.strip()}" for i in range(len(graph.texts))]
        call = prompts.ask(self.synthesise, self.joining, query, purpose="merge", alone=False, results=results)
        try:
            (outcome,) = yield Do(branches=(call,), final=True)
        except LimitReached:
            return joined
        return outcome if outcome.streamed or (outcome.ok and outcome.text.strip()) else joined


# -------------------------------------------------------------------------------------------------------- the graph


def read(text: str) -> Graph | None:
    """Read a numbered list of parts; None if there is none, or it makes no sense: fewer than two, numbers out of order, a reference to nothing, a
    cycle."""
    starts = list(_ITEM.finditer(text))
    if not 2 <= len(starts) <= MOST_SUBTASKS or [int(m[1]) for m in starts] != [*range(1, len(starts) + 1)]:
        return None
    ends = [*(m.start() for m in starts[1:]), len(text)]
    parts = []
    for match, end in zip(starts, ends, strict=True):
        part = text[match.end() : end].strip().rstrip(";").strip()
        after = _AFTER.search(part)
        needs = tuple(int(k) for k in re.findall(r"\d+", after[1])) if after else ()
        parts.append(Subtask(text=part if after is None else part[: after.start()], after=needs))
    if not all(p.text for p in parts):
        return None
    try:
        return graph_of(parts)
    except ValueError:
        return None


def graph_of(parts: Sequence[Subtask]) -> Graph:
    """Return the graph of parts.

    Raises:
        ValueError: if a part needs one that is not there, or itself, or there is a cycle: then it is named.
    """
    edges: list[Edge] = []
    for i, part in enumerate(parts):
        named = dict.fromkeys(int(k) for k in _REFERENCE.findall(part.text))
        for k in (*named, *(k for k in dict.fromkeys(part.after) if k not in named)):
            if not 1 <= k <= len(parts) or k == i + 1:
                raise ValueError(f"subtask {i + 1} needs #{k}, and there are {len(parts)}: name another one")
            edges.append(Edge(k - 1, i, HANDED_OVER if k in named else NEEDED))
    graph = Graph(tuple(p.text for p in parts), tuple(edges))
    levels(graph)
    return graph


def levels(graph: Graph) -> list[list[int]]:
    """Return the parts level by level: each stands one below the deepest that it needs (Kahn's sort, O(V + E)).

    Raises:
        ValueError: if there is a cycle, which it names.
    """
    missing, children = _counted(graph)
    level = [i for i, n in enumerate(missing) if n == 0]
    out: list[list[int]] = []
    while level:
        out.append(level)
        below: list[int] = []
        for i in level:
            for child in children[i]:
                missing[child] -= 1
                if missing[child] == 0:
                    below.append(child)
        level = sorted(below)
    if sum(map(len, out)) < len(graph.texts):
        raise ValueError(f"the subtasks go round in a circle: {_circle(graph, missing)}")
    return out


def _counted(graph: Graph) -> tuple[list[int], list[list[int]]]:
    missing = [0] * len(graph.texts)
    children: list[list[int]] = [[] for _ in graph.texts]
    for parent, child, _ in graph.edges:
        missing[child] += 1
        children[parent].append(child)
    return missing, children


def _circle(graph: Graph, missing: Sequence[int]) -> str:
    """Name one cycle among the parts that were never free."""
    parent = {child: p for p, child, _ in graph.edges if missing[p] and missing[child]}
    at, path = next(iter(parent)), []
    while at not in path:
        path.append(at)
        at = parent[at]
    ring = path[path.index(at) :]
    return " needs ".join(f"#{i + 1}" for i in (*ring, at))


def features(graph: Graph) -> Features:
    """Measure a graph, in O(V + E)."""
    found = levels(graph)
    coupling = sum(e.coupling for e in graph.edges) / len(graph.edges) if graph.edges else 0.0
    return Features(len(graph.texts), max(map(len, found), default=0), len(found), coupling, len(graph.edges))


def choose(found: Features, *, omega: float = 0.5, gamma: float = 0.6, delta: int = 5) -> Wiring:
    """Choose a wiring by the features."""
    if not found.edges:
        return "parallel"
    if found.width == 1:
        return "sequential"
    if found.width / found.parts > omega and found.coupling <= gamma:
        return "parallel"
    if found.coupling > gamma:
        return "hierarchical" if found.depth > delta else "sequential"
    return "hybrid"


def waves(graph: Graph, wiring: Wiring) -> list[list[int]]:
    """Return which parts run side by side, wave by wave; no part before one that it needs, but for a parallel wiring, where only results that a text
    names are waited for."""
    if wiring == "sequential":
        return [[i] for level in levels(graph) for i in level]
    if wiring == "parallel":
        return levels(Graph(graph.texts, tuple(e for e in graph.edges if e.coupling == HANDED_OVER)))
    return levels(graph)


def unused(graph: Graph) -> list[int]:
    """Return the parts whose results no other uses, in order."""
    used = {e.parent for e in graph.edges}
    return [i for i in range(len(graph.texts)) if i not in used]


def _needs(graph: Graph, i: int) -> set[int]:
    return {e.parent for e in graph.edges if e.child == i}


def alike(texts: Sequence[str]) -> float:
    """Return the mean pairwise cosine of texts, in [0, 1]; 1 for a single one."""
    from fairlead.embeddings.hashing import Hashing

    if len(texts) < 2:
        return 1.0
    made = [Hashing(size=256).embed(t) for t in texts]
    pairs = [max(0.0, float(a @ b)) for a, b in combinations(made, 2)]
    return min(1.0, sum(pairs) / len(pairs))


def _partial(graph: Graph | None, done: Mapping[int, Outcome]) -> Outcome | None:
    """Return what there is: the results that no finished part has used."""
    if graph is None or not done:
        return None
    used = {e.parent for e in graph.edges if e.child in done}
    left = [i for i in sorted(done) if i not in used]
    return saying(done[left[-1]], ", ".join(done[i].text.strip() for i in left), confidence=None)
