"""The plan `refine`: the router's reply, the gate's set, refining and its fallbacks, limits, failures, and what sets are worth."""

import math
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.bench.shaping import undecided
from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.gates import said
from fairlead.plans.refine import Refine, described, named, within
from fairlead.testing import check_plan, comparable
from fairlead.types import Call, Failure, Forecast, Limits, Outcome, Query
from fairlead.worlds.base import Run
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("Why is my bill wrong since the network failed?", id="q")
AGENTS = {"billing": "bills and refunds", "network": "lines and outages", "sales": "offers"}
PLAN = Refine(router="router", agents=AGENTS, default="general", refiner="refiner")
GATED = Refine(gate="gate", agents=AGENTS, default="general", refiner="refiner")


def failed(kind: Any = "unavailable", **more: Any) -> Outcome:
    return Outcome(error=Failure(kind=kind), **more)


class World(LookUp):
    """Says what it is told to, by target; an agent says its own name otherwise."""

    def __init__(self, router: Outcome | str, **by_target: Outcome | str) -> None:
        self.told = {"router": router, "gate": router, "refiner": "both", **by_target}
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        found = self.told.get(call.target, call.target)
        outcome = Outcome(text=found) if isinstance(found, str) else found
        return msgspec.structs.replace(outcome, target=call.target, usd=1.0, seconds=1.0)

    @property
    def asked(self) -> list[str]:
        return [c.target for c in self.calls if c.purpose == "answer"]


def run(world: World, plan: Refine = PLAN, **more: Any) -> Run:
    done = replay(plan, QUERY, world, **more)
    assert comparable(replay(plan, QUERY, Recorded(done.steps))) == comparable(done)
    return done


def names(*agents: str) -> str:
    return f"<reason>because</reason><agents>{', '.join(agents)}</agents>"


# -------------------------------------------------------------------------------------------------------- the parser


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (names("billing"), ("billing",)),
        (names("network", "billing"), ("network", "billing")),
        ("<agents>Billing,\n- NETWORK</agents>", ("billing", "network")),
        ("<agents><agent>billing</agent><agent>sales</agent></agents>", ("billing", "sales")),
        ('<agents>"billing"; `sales`</agents>', ("billing", "sales")),
        ("<reason>not <agents>sales</agents></reason><AGENTS>billing</AGENTS>", ("billing",)),
        (names("billing", "billing", "Billing"), ("billing",)),
        (names("lawyers", "billing"), ("billing",)),
        (names("billing", "network", "sales"), ("billing", "network")),
        (names("lawyers"), ()),
        ("<agents></agents>", ()),
        ("<agents>billing", ()),
        ("billing</agents>", ()),
        ("billing", ()),
        ("", ()),
    ],
)
def test_the_reply_is_read(reply: str, found: tuple[str, ...]) -> None:
    assert named(reply, AGENTS, most=2) == found


SCRAPS = st.sampled_from(
    [
        "<agents>",
        "</agents>",
        "<reason>",
        "</reason>",
        "<agent>",
        "billing",
        "BILLING",
        "sales",
        "x",
        ",",
        "\n",
        "<",
        ">",
        "/",
        "\x00",
        "é",
    ]
)


@given(st.lists(SCRAPS, max_size=25).map("".join) | st.text(max_size=60), st.integers(1, 3))
@settings(deadline=None, max_examples=200)
def test_parser_fuzzing_never_crashes_and_falls_back_to_the_default(reply: str, most: int) -> None:
    found = named(reply, AGENTS, most=most)
    assert set(found) <= set(AGENTS)
    assert len(found) == len(set(found)) <= most
    world = World(reply)
    done = run(world, msgspec.structs.replace(PLAN, most=most))
    assert done.outcome.ok
    assert world.asked == list(found or ("general",))


@pytest.mark.parametrize("kind", ["unavailable", "timeout", "bad_request", "malformed"])
def test_a_router_that_fails_leaves_the_default(kind: str) -> None:
    world = World(failed(kind))
    assert run(world).outcome.text == "general"
    assert world.asked == ["general"]


def test_names_that_differ_in_case_alone_are_told_apart() -> None:
    assert named("<agents>A, a</agents>", ["a", "A"], most=3) == ("A", "a")


def test_what_the_router_sees() -> None:
    world = World(names("billing"))
    run(world, msgspec.structs.replace(PLAN, agents={"b": "x < y & z</agent>", "a": "first"}))
    call = world.calls[0]
    assert (call.target, call.purpose, call.prompt, call.alone) == ("router", "plan", "agents@1", True)
    assert call.messages is not None
    text = call.messages[-1].text
    assert '<agent name="a">first</agent>\n<agent name="b">x &lt; y &amp; z&lt;/agent&gt;</agent>' in text
    assert QUERY.text in text


# ----------------------------------------------------------------------------------------------------------- answers


def test_one_agents_answer_is_the_answer() -> None:
    world = World(names("network"))
    done = run(world)
    assert (done.outcome.text, done.outcome.target, done.usd) == ("network", "network", 2.0)
    steps = PLAN.run(QUERY)
    next(steps)
    assert steps.send((Outcome(text=names("network")),)).final, "it can stream"


def test_several_are_refined() -> None:
    world = World(names("billing", "network"))
    done = run(world)
    assert (done.outcome.text, done.outcome.target, done.usd) == ("both", "refiner", 4.0)
    assert world.asked == ["billing", "network"]
    for call in world.calls[1:3]:
        assert call.messages is None, "each by itself, asked as the client asked"
    call = world.calls[-1]
    assert (call.purpose, call.prompt, call.alone) == ("merge", "refine@1", False)
    assert call.messages is not None
    assert "[1]\n<<<\nbilling\n>>>\n\n[2]\n<<<\nnetwork\n>>>" in call.messages[-1].text


@pytest.mark.parametrize("refiner", [failed(), failed("bad_request"), "", "  "])
def test_a_refiner_that_fails_leaves_the_majority(refiner: Outcome | str) -> None:
    world = World(names("billing", "network", "sales"), refiner=refiner, billing="a", network="b", sales="b")
    done = run(world)
    assert (done.outcome.text, done.outcome.target) == ("b", "network")
    assert done.outcome.confidence == pytest.approx(2 / 3)
    world = World(names("network", "billing"), refiner=refiner)
    assert run(world).outcome.text == "network", "a tie goes to the one named first"


def test_without_a_refiner_the_majority_answers() -> None:
    plan = msgspec.structs.replace(PLAN, refiner=None)
    assert run(World(names("billing", "network", "sales"), billing="b", network="b"), plan).outcome.text == "b"


def test_what_all_agree_on_is_not_refined() -> None:
    world = World(names("billing", "network"), billing="Yes.", network="yes")
    done = run(world)
    assert (done.outcome.text, done.outcome.confidence, done.usd) == ("Yes.", 1.0, 3.0)


def test_an_agent_that_fails_is_left_out() -> None:
    world = World(names("billing", "network", "sales"), network=failed())
    assert run(world).outcome.target == "refiner"
    assert world.calls[-1].messages is not None
    assert "network\n>>>" not in world.calls[-1].messages[-1].text
    world = World(names("billing", "network"), billing=failed())
    assert run(world).outcome.target == "network"
    assert world.calls[-1].target == "network", "nothing to refine"


def test_if_nobody_answers_the_default_does() -> None:
    for chosen in (("billing",), ("billing", "network")):
        world = World(names(*chosen), billing=failed("timeout"), network=failed())
        assert run(world).outcome.text == "general"
    world = World(names("billing"), billing=failed("timeout"), general=failed())
    error = run(world).outcome.error
    assert error is not None
    assert error.kind == "timeout"


@pytest.mark.parametrize("fault", [failed("bad_request"), failed("broken_stream", streamed=True)])
def test_a_request_at_fault_is_not_asked_again(fault: Outcome) -> None:
    world = World(names("billing"), billing=fault)
    assert not run(world).outcome.ok
    assert world.asked == ["billing"]


def test_tool_calls_are_not_refined() -> None:
    calls = msgspec.Raw(b'[{"id": "1"}]')
    world = World(names("billing", "network"), billing=Outcome(tool_calls=calls))
    assert run(world).outcome.text == "network"
    assert world.calls[-1].purpose == "answer"


@pytest.mark.parametrize(("calls", "text"), [(1, ""), (2, "billing"), (3, "billing"), (4, "both")])
def test_limits(calls: int, text: str) -> None:
    done = run(World(names("billing", "network")), limits=Limits(calls=calls))
    assert done.outcome.text == text
    assert bool(done.outcome.limited) == (1 < calls < 4)
    paid = run(World(names("billing", "network")), limits=Limits(usd=calls), estimate=lambda call, query: 1.0)
    assert (paid.outcome.text, (paid.usd or 0.0) <= calls) == (text, True)


# -------------------------------------------------------------------------------------------------------------- gates


def told(**quality: float) -> str:
    return said({name: Forecast(quality=q) for name, q in quality.items()})


@pytest.mark.parametrize(
    ("quality", "asked"),
    [
        ({"billing": 0.9, "network": 0.85, "sales": 0.2}, ["billing", "network"]),
        ({"billing": 0.9, "network": 0.5, "sales": 0.2}, ["billing"]),
        ({"billing": 0.5, "network": 0.5, "sales": 0.5}, ["billing", "network", "sales"]),
        ({"sales": 0.5, "stranger": 0.9}, ["sales"]),
        ({"stranger": 0.9}, ["general"]),
    ],
)
def test_a_gate_chooses_the_set(quality: dict[str, float], asked: list[str]) -> None:
    world = World(told(**quality))
    assert run(world, GATED).outcome.ok
    assert world.asked == asked


@pytest.mark.parametrize("gate", [failed(), failed("bad_request"), "}{", "{}", ""])
def test_a_gate_that_fails_leaves_the_default(gate: Outcome | str) -> None:
    world = World(gate)
    run(world, GATED)
    assert world.asked == ["general"]


QUALITIES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0, 1.0).map(lambda q: round(q, 3)), min_size=1)


@given(QUALITIES, st.floats(0.0, 1.0), st.floats(0.0, 0.3), st.integers(1, 4))
def test_a_larger_penalty_never_makes_a_larger_set(
    quality: Mapping[str, float], margin: float, penalty: float, most: int
) -> None:
    forecasts = {name: Forecast(quality=q) for name, q in quality.items()}
    loose = within(forecasts, quality, most=most, margin=margin, size_penalty=0.0)
    tight = within(forecasts, quality, most=most, margin=margin, size_penalty=penalty)
    assert tight == loose[: len(tight)]
    assert 1 <= len(tight) <= most
    assert quality[tight[0]] == max(quality.values())


# ------------------------------------------------------------------------------------------------------ what it is worth


def overlap(size_penalty: float, *, abilities: Mapping[str, float]) -> tuple[float, float, float]:
    """Replay queries of one class that agents solve in part (each a random part); return accuracy, set size, best single accuracy."""
    random = Random(7)
    plan = msgspec.structs.replace(
        GATED, agents=dict.fromkeys(abilities, "it"), size_penalty=size_penalty, margin=0.1, answers="number"
    )
    right, size, single = 0, 0, Counter[str]()
    queries = 400
    for _ in range(queries):
        solves = {name: random.random() < ability for name, ability in abilities.items()}
        texts = {name: "42" if ok else str(random.randint(100, 10_000)) for name, ok in solves.items()}
        refined = "42" if any(solves.values()) else "0"  # a refiner that knows a right answer when it sees one
        world = World(told(**abilities), **texts, refiner=refined)
        right += run(world, plan).outcome.text == "42"
        size += len(world.asked)
        single.update(name for name, ok in solves.items() if ok)
    return right / queries, size / queries, max(single.values()) / queries


def test_set_routing_on_a_simulated_overlap_beats_the_best_single() -> None:
    accuracy, size, best = overlap(0.02, abilities={"billing": 0.5, "network": 0.5})
    assert accuracy > best + 0.15
    assert size == 2.0
    _, size, _ = overlap(0.2, abilities={"billing": 0.5, "network": 0.5})
    assert size == 1.0, "a penalty above the margin leaves one"


def test_the_size_penalty_drives_the_set_to_one_when_one_agent_dominates() -> None:
    accuracy, size, best = overlap(0.02, abilities={"billing": 0.95, "network": 0.87, "sales": 0.3})
    assert size == 2.0
    accuracy, size, best = overlap(0.05, abilities={"billing": 0.95, "network": 0.87, "sales": 0.3})
    assert size == 1.0
    assert accuracy == best


class Describing(World):
    """A router that names the agents whose descriptions share the rarest words with the request: TF-IDF by hand."""

    def __init__(self, agents: Mapping[str, str]) -> None:
        super().__init__("")
        self.agents = agents

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        if call.target != "router":
            return super().outcome(call, path)
        assert call.messages is not None
        _, _, request = call.messages[-1].text.partition("<<<")
        asked = set(request.partition(">>>")[0].lower().split())
        assert described(self.agents) in call.messages[-1].text
        words = {name: set(text.lower().split()) for name, text in self.agents.items()}
        rare = Counter(w for known in words.values() for w in known)
        score = {n: sum(math.log(1 + len(words) / rare[w]) for w in known & asked) for n, known in words.items()}
        best = max(score.values())
        return Outcome(text=names(*[n for n in score if best and score[n] == best]), target="router", usd=1.0)


def test_onboarding() -> None:
    """A description of a new agent raises its recall from 0, and lowers no other's by more than 0.05."""
    agents = {
        "billing": "bill invoice refund payment",
        "network": "line outage router slow",
        "sales": "offer price buy",
    }
    new = {**agents, "roaming": "abroad travel foreign country"}
    random = Random(3)
    requests = [
        (name, " ".join(["my", *random.sample(text.split(), 2), "please", random.choice(["today", "help"])]))
        for name, text in new.items()
        for _ in range(20)
    ]

    def recall(known: Mapping[str, str]) -> Counter[str]:
        hits = Counter[str]()
        plan = msgspec.structs.replace(PLAN, agents=dict(known))
        for gold, text in requests:
            world = Describing(known)
            replay(plan, Query.ask(text, id=text), world)
            hits[gold] += gold in world.asked
        return hits

    before, after = recall(agents), recall(new)
    assert before["roaming"] == 0
    assert after["roaming"] >= 19
    assert all(after[name] >= before[name] - 1 for name in agents)


@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=8, max_size=8))
def test_consistency_filter_keeps_iff_the_modal_share_is_at_most_0_6(sets: list[set[str]]) -> None:
    share = max(sum(s == t for t in sets) for s in sets) / 8
    assert undecided(sets) == (share <= 0.6)


# ------------------------------------------------------------------------------------------------------------ as data


def test_the_family_check() -> None:
    check_plan(lambda: GATED)
    check_plan(lambda: msgspec.structs.replace(PLAN, refiner=None, default="billing"))


def test_written_and_read_back() -> None:
    turned = msgspec.structs.replace(PLAN, agents=dict(reversed(AGENTS.items())))
    assert decode(to_data(turned)) == PLAN
    assert hash(turned) == hash(PLAN)
    assert PLAN.targets() == ("router", "billing", "network", "sales", "general", "refiner")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"agents": {}}, "needs agents"),
        ({"router": None}, "router or a gate"),
        ({"gate": "g"}, "router or a gate"),
        ({"most": 0}, "most"),
        ({"margin": -1.0}, "not negative"),
        ({"answers": "runes"}, "runes"),
        ({"prompt": {"name": "p", "text": "{answers}"}}, "answers"),
        ({"refining": "refine@9"}, "refine@9"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "refine", "agents": AGENTS, "default": "general", "router": "router", **wrong})
