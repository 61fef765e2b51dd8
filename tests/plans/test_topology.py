"""Features of graphs, the wiring that they call for, who waits for whom, what each part is told, and what stands when something fails."""

from __future__ import annotations

import re
from itertools import combinations
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from fairlead.lab.compound import check_compound, draw_compound
from fairlead.plans.gates import consult
from fairlead.plans.prompts import Prompt
from fairlead.plans.single import Single
from fairlead.plans.subtask import Asked
from fairlead.plans.topology import (
    Edge,
    Features,
    Graph,
    Subtask,
    Topology,
    Wiring,
    alike,
    choose,
    features,
    graph_of,
    levels,
    read,
    unused,
    waves,
)
from fairlead.plans.vote import Vote
from fairlead.types import Call, Do, Failure, Limits, Outcome, Path, Plan, Query, Steps
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, replay

WIRINGS: tuple[Wiring, ...] = ("parallel", "sequential", "hierarchical", "hybrid")
SOLVER, WHOLE = Single(target="solver"), Single(target="whole")


def graph(n: int, *edges: tuple[int, int]) -> Graph:
    return Graph(tuple(f"part {i}" for i in range(n)), tuple(Edge(a, b, 0.5) for a, b in edges))


def chain(n: int) -> Graph:
    return graph(n, *((i, i + 1) for i in range(n - 1)))


class World(LookUp):
    """Answers each text by itself, in a second; some fail."""

    def __init__(self, failing: tuple[str, ...] = (), **replies: str) -> None:
        self.failing, self.replies = failing, replies
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: Path) -> Outcome:
        self.calls.append(call)
        text = call.messages[-1].text if call.messages else "the whole"
        if call.target in self.failing or text in self.failing:
            return Outcome(target=call.target, error=Failure(kind="unavailable"), seconds=1.0)
        reply = self.replies.get(call.target, f"<{text}>")
        return Outcome(text=reply, target=call.target, usd=0.01, seconds=1.0)

    def texts(self, target: str = "solver") -> list[str]:
        return [c.messages[-1].text for c in self.calls if c.target == target and c.messages]


def ran(plan: Plan, text: str, world: World | None = None, limits: Limits | None = None) -> tuple[Run, World]:
    world = world or World()
    run = replay(plan, Query.ask(text, id="q"), world, limits=limits or Limits(), estimate=lambda c, q: 0.01)
    return run, world


# ------------------------------------------------------------------------------------------------------- features


def test_features_of_graphs_made_by_hand() -> None:
    assert features(chain(7))[:3] == (7, 1, 7)
    assert features(graph(5)) == Features(5, 5, 1, 0.0, 0)
    diamond = graph(4, (0, 1), (0, 2), (1, 3), (2, 3))
    assert features(diamond)[:3] == (4, 2, 3)
    k, m = 4, 3
    layered = graph(k * m, *((k * a + i, k * (a + 1) + j) for a in range(m - 1) for i in range(k) for j in range(k)))
    assert features(layered)[:3] == (12, 4, 3)


def test_a_circle_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"circle: #\d needs #\d needs #\d"):
        levels(graph(4, (0, 1), (1, 2), (2, 1), (2, 3)))
    with pytest.raises(ValueError, match="needs #9"):
        graph_of([Subtask(text="a"), Subtask(text="b #9")])
    with pytest.raises(ValueError, match="name another"):
        graph_of([Subtask(text="a"), Subtask(text="b", after=(2,))])


def test_a_large_graph_is_measured_at_once() -> None:
    """10^5 parts and 5 x 10^5 edges: in linear time this is a second or so; in quadratic time it would not come back."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(100_000, size=(2, 500_000))
    edges = tuple(Edge(int(min(x, y)), int(max(x, y)), 0.5) for x, y in zip(a, b, strict=True) if x != y)
    found = features(Graph(("",) * 100_000, edges))
    assert found.parts == 100_000
    assert 1 < found.depth < 200


def test_the_wiring_by_the_features() -> None:
    def of(parts: int, width: int, depth: int, coupling: float, edges: int = 3) -> Wiring:
        return choose(Features(parts, width, depth, coupling, edges))

    assert of(5, 5, 1, 0.0, edges=0) == "parallel"
    assert of(5, 1, 5, 0.9) == "sequential"
    assert of(5, 3, 2, 0.6) == "parallel"
    assert of(5, 3, 2, 0.61) == "sequential"
    assert of(20, 4, 6, 0.9) == "hierarchical"
    assert of(20, 4, 5, 0.9) == "sequential"
    assert of(20, 4, 6, 0.3) == "hybrid"


# -------------------------------------------------------------------------------------------------------- reading


def test_a_list_is_read() -> None:
    found = read("1) 12+30; 2) reverse abc; 3) #1*4 [after 2]")
    assert found is not None
    assert found.texts == ("12+30", "reverse abc", "#1*4")
    assert found.edges == (Edge(0, 2, 0.5), Edge(1, 2, 1.0))
    assert unused(found) == [2]
    lines = read("Please:\n1. find the year\n2. add 10 to #1\n")
    assert lines is not None
    assert lines.texts == ("find the year", "add 10 to #1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "1) only one",
        "1) a; 3) b",
        "2) a; 1) b",
        "1) a; 2) b #7",
        "1) #2; 2) #1",
        "1) ; 2) b",
        "f(1) and g(2)",
    ],
)
def test_what_is_no_plan_is_none(text: str) -> None:
    assert read(text) is None


def test_the_labs_questions_are_read_as_they_were_made() -> None:
    for example in draw_compound(200, 3, split="dev"):
        found = read(example.prompt)
        assert found is not None
        assert found.texts == example.subtasks
        assert {(e.parent, e.child) for e in found.edges} == {
            (p, i) for i, p in enumerate(example.parents) if p is not None
        }
        answer = ", ".join(example.results[i] for i in unused(found))
        assert check_compound(example, answer)


# ------------------------------------------------------------------------------------------------------- execution


def random_tasks(seed: int) -> tuple[Subtask, ...]:
    random = Random(seed)
    out = []
    for i in range(random.randint(2, 9)):
        parents = random.sample(range(1, i + 1), min(i, random.randint(0, 2)))
        text = f"part {i + 1}" + "".join(f" #{p}" for p in parents[:1])
        out.append(Subtask(text=text, after=tuple(parents[1:])))
    return tuple(out)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_no_part_starts_before_those_it_needs_and_each_runs_once(wiring: Wiring) -> None:
    for seed in range(40):
        tasks = random_tasks(seed)
        plan = Topology(solver=SOLVER, single=WHOLE, tasks=tasks, wiring=wiring)
        run, world = ran(plan, "task", World(solver="done"))
        order = [int(re.findall(r"part (\d+)", text)[0]) for text in world.texts()]
        assert sorted(order) == [*range(1, len(tasks) + 1)]
        found = graph_of(tasks)
        starts = {n: s.start_seconds for n, s in zip(order, (s for s in run.steps if s.call), strict=True)}
        for parent, child, coupling in found.edges:
            if wiring != "parallel" or coupling == 0.5:  # a parallel wiring waits for values only
                assert starts[parent + 1] + 1.0 <= starts[child + 1] + 1e-9


def test_makespan() -> None:
    for seed in range(40):
        tasks = random_tasks(seed)
        found = features(graph_of(tasks))
        took = {}
        for wiring in WIRINGS:
            plan = Topology(solver=SOLVER, single=WHOLE, tasks=tasks, wiring=wiring)
            took[wiring] = ran(plan, "task")[0].seconds
        assert took["parallel"] <= took["sequential"]
        assert took["hybrid"] == pytest.approx(found.depth)  # the critical path, with nothing on top
        assert took["sequential"] == pytest.approx(len(tasks))


def test_results_take_the_place_of_references_and_are_joined() -> None:
    run, world = ran(Topology(solver=SOLVER, single=WHOLE), "1) 12+30; 2) reverse abc; 3) #1*4")
    assert world.texts() == ["12+30", "reverse abc", "<12+30>*4"]
    assert run.outcome.text == "<reverse abc>, <<12+30>*4>"
    assert all(c.alone for c in world.calls)


def test_what_stands_in_a_result_is_no_reference() -> None:
    _, world = ran(Topology(solver=SOLVER, single=WHOLE), "1) a; 2) b #1; 3) c #2", World(solver="#3 {question}"))
    assert world.texts() == ["a", "b #3 {question}", "c #3 {question}"]
    tasks = (Subtask(text="about {question}"), Subtask(text="#1 once more"))
    _, world = ran(Topology(solver=SOLVER, single=WHOLE, tasks=tasks), "is #1 the best?")
    assert world.texts()[0] == "about is #1 the best?"


def test_context_goes_with_the_part_that_needs_it() -> None:
    tasks = (Subtask(text="one"), Subtask(text="two"), Subtask(text="three", after=(1,)))
    base = Topology(solver=SOLVER, single=WHOLE, tasks=tasks)
    for wiring, told in (("hybrid", ["<one>"]), ("sequential", ["<one>", "<two>"]), ("parallel", [])):
        _, world = ran(replace(base, wiring=wiring), "task")
        last = next(t for t in world.texts() if "three" in t)
        assert [name in last for name in ("<one>", "<two>")] == [name in told for name in ("<one>", "<two>")]
    _, world = ran(replace(base, wiring="hierarchical", lead="lead"), "task", World(lead="summed up"))
    assert "summed up" in next(t for t in world.texts() if "three" in t)


def test_a_target_may_put_together_and_a_decomposer_take_apart() -> None:
    plan = Topology(solver=SOLVER, single=WHOLE, decompose="head", synthesise="writer")
    run, world = ran(plan, "do it", World(head="1) a\n2) b #1", writer="all of it"))
    assert run.outcome.text == "all of it"
    assert [c.target for c in world.calls] == ["head", "solver", "solver", "writer"]
    assert [c.purpose for c in world.calls] == ["plan", "answer", "answer", "merge"]
    asked = world.texts("writer")[0]
    assert "a: <a>" in asked
    failed, _ = ran(plan, "do it", World(failing=("writer",), head="1) a\n2) b"))
    assert failed.outcome.text == "<a>, <b>"


@pytest.mark.parametrize("reply", ["none", "1) a; 2) #9", ""])
def test_the_strongest_single_answers_where_there_is_nothing_to_take_apart(reply: str) -> None:
    run, world = ran(Topology(solver=SOLVER, single=WHOLE, decompose="head"), "do it", World(head=reply))
    assert run.outcome.target == "whole"
    assert [c.target for c in world.calls] == ["head", "whole"]
    assert ran(Topology(solver=SOLVER, single=WHOLE), "What is 2 + 2?")[0].outcome.target == "whole"
    down = World(failing=("head",))
    assert ran(Topology(solver=SOLVER, single=WHOLE, decompose="head"), "do it", down)[0].outcome.target == "whole"


def test_a_part_that_fails_leaves_the_single() -> None:
    run, _ = ran(Topology(solver=SOLVER, single=WHOLE), "1) a; 2) b", World(failing=("b",)))
    assert run.outcome.target == "whole"
    both, _ = ran(Topology(solver=SOLVER, single=WHOLE), "1) a; 2) b", World(failing=("b", "whole")))
    assert both.outcome.text == "<a>"


@pytest.mark.parametrize("calls", range(1, 5))
def test_a_limit_leaves_what_nothing_has_used(calls: int) -> None:
    run, world = ran(Topology(solver=SOLVER, single=WHOLE), "1) a; 2) b #1; 3) c #2", limits=Limits(calls=calls))
    assert len(world.calls) <= calls
    assert run.outcome.ok
    assert run.outcome.text == {1: "<a>", 2: "<b <a>>", 3: "<c <b <a>>>", 4: "<c <b <a>>>"}[calls]
    assert bool(run.outcome.limited) == (calls < 3)


def test_any_plan_may_solve_and_gates_are_asked_about_the_part() -> None:
    class Gated(Vote, frozen=True, kw_only=True, tag="gated", tag_field="kind"):
        def run(self, query: Query) -> Steps:
            (told,) = yield Do(branches=(consult("gate"),))
            (outcome,) = yield Do(branches=(Vote(members=self.members),))
            return replace(outcome, text=f"{told.text}/{outcome.text}")

    nest = Gated(members=(Single(target="x"), Single(target="y")))
    run, world = ran(Topology(solver=nest, single=WHOLE), "1) a; 2) b")
    assert run.outcome.text == "<a>/<a>, <b>/<b>"
    assert world.texts("gate") == ["a", "b"]


def test_a_part_has_an_id_of_its_own() -> None:
    seen = []

    class Spy(Single, frozen=True, kw_only=True, tag="spy", tag_field="kind"):
        def run(self, query: Query) -> Steps:
            seen.append((query.id, query.text, dict(query.body), query.tools))
            return (yield from super().run(query))

    query = Query.ask("whole", id="q", tools=[{"type": "function"}], temperature=0.3)
    replay(Asked(plan=Spy(target="a"), text="part", part="2"), query, World())
    assert seen == [("q/2", "part", {}, ())]


# ------------------------------------------------------------------------------------------------------ agreement


def test_agreement_of_texts() -> None:
    assert alike(["one answer"]) == 1.0
    assert alike(["the year is 1990", "the year is 1990"]) == pytest.approx(1.0)
    assert alike(["the year is 1990", "purple horses sing"]) < 0.5
    texts = ["a b c", "a b d", "x y z"]
    mean = np.mean([alike(list(p)) for p in combinations(texts, 2)])
    assert alike(texts) == pytest.approx(mean)


def test_results_that_never_agree_stop_after_the_reroutings_with_a_verdict() -> None:
    tasks = (Subtask(text="one"), Subtask(text="two"))
    plan = Topology(solver=SOLVER, single=WHOLE, tasks=tasks, consistency=0.99, reroutings=5)
    run, world = ran(plan, "task")
    assert len(world.calls) == 2 * 6
    assert run.outcome.confidence is not None
    assert run.outcome.confidence < 0.99
    agreed, calm = ran(plan, "task", World(solver="the same"))
    assert len(calm.calls) == 2
    assert agreed.outcome.confidence == pytest.approx(1.0)


# ---------------------------------------------------------------------------------------------- simulated agents


def won(coupling: float, seed: int, *, handoff: float = 0.06, runs: int = 300) -> dict[Wiring, float]:
    """Success less the price of telling: a part's chance falls by `coupling` for each result that it needs and is not told."""
    random = Random(seed)
    total = dict.fromkeys(WIRINGS, 0.0)
    for _ in range(runs):
        tasks = random_tasks(random.getrandbits(30))
        found = graph_of(tasks)
        for wiring in WIRINGS:
            order = waves(found, wiring)
            told = [sum(map(len, order[:k])) for k in range(len(order))]
            score, price = 1.0, 0.0
            for k, wave in enumerate(order):
                for i in wave:
                    needs = sum(e.child == i for e in found.edges)
                    unmet = needs if wiring == "parallel" else 0
                    score *= 0.97 * max(0.0, 1.0 - coupling * unmet)
                    price += (
                        handoff * {"parallel": 0, "sequential": told[k], "hybrid": needs, "hierarchical": 1}[wiring]
                    )
            total[wiring] += score - price / len(tasks)
    return total


def test_parallel_wins_where_parts_hardly_need_each_other_and_loses_where_they_do() -> None:
    loose, tight = won(0.01, 1), won(0.6, 1)
    assert max(loose, key=lambda w: loose[w]) == "parallel"
    assert min(tight, key=lambda w: tight[w]) == "parallel"
    margin = [won(c, 2)["parallel"] - max(won(c, 2)[w] for w in WIRINGS[1:]) for c in (0.0, 0.1, 0.3, 0.6)]
    assert margin == sorted(margin, reverse=True)  # one crossover


def test_the_more_alike_the_models_the_more_the_wiring_matters() -> None:
    """Var(wiring) / Var(model) grows as the inverse square of the models' spread."""
    rng = np.random.default_rng(3)
    spreads = np.asarray([0.02, 0.04, 0.08, 0.16])
    wiring = rng.normal(0.0, 0.05, 4)
    ratios = []
    for spread in spreads:
        model = rng.permutation(np.linspace(-1.0, 1.0, 40)) * spread
        score = 0.5 + model[:, None] + wiring[None, :]
        ratios.append(score.mean(axis=0).var() / score.mean(axis=1).var())
    slope = np.polyfit(np.log(spreads), np.log(ratios), 1)[0]
    assert slope == pytest.approx(-2.0, abs=0.05)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"circle|name another"):
        Topology(solver=SOLVER, single=WHOLE, tasks=(Subtask(text="#2"), Subtask(text="#1")))
    with pytest.raises(ValueError, match="fields"):
        Topology(solver=SOLVER, single=WHOLE, joining=Prompt(name="x", text="{nothing}"))
