"""The plan `glimpse`: who writes which step, what the text is, how thinking ends; and what it brings with two tiny models."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from math import exp, log
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import ConfigError
from fairlead.plans.base import decode, to_data
from fairlead.plans.glimpse import Glimpse
from fairlead.targets.scripted import Scripted
from fairlead.targets.wire import entropy
from fairlead.testing import ToyDriver, check_plan, comparable
from fairlead.types import Call, Failure, Limits, Outcome, Query, Tokens
from fairlead.worlds.base import Run
from fairlead.worlds.live import Live
from fairlead.worlds.replay import LookUp, Recorded, replay

QUERY = Query.ask("How many?", id="q", max_tokens=5, tools=[])
PLAN = Glimpse(small="s", large="l", thinking="<think>\n", continuing={"go_on": True})
USD = {"s": 0.1, "l": 1.0}


class Mock(LookUp):
    """Two models: the entropies of the look-aheads in turn, the steps in turn whoever writes them, and an answer."""

    def __init__(
        self,
        steps: Sequence[str | Outcome],
        entropies: Sequence[float | None] = (0.0,),
        *,
        fails: Callable[[Call], Any] | None = None,
    ) -> None:
        self.steps, self.entropies, self.fails = steps, entropies, fails
        self.calls: list[Call] = []

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        self.calls.append(call)
        kind = self.fails(call) if self.fails is not None else None
        if kind is not None:
            return Outcome(target=call.target, error=Failure(kind=kind), usd=0.0)
        if call.purpose == "probe":
            said = Outcome(text="Peek", first_entropy=self.entropies[min(call.sample, len(self.entropies) - 1)])
        elif not call.alone:
            said = Outcome(text="42")
        else:
            step = self.steps[min(call.sample, len(self.steps) - 1)]
            said = Outcome(text=step, finish="stop") if isinstance(step, str) else step
        return msgspec.structs.replace(said, target=call.target, usd=USD[call.target], seconds=1.0)

    @property
    def writers(self) -> str:
        return "".join(c.target for c in self.calls if c.purpose == "answer" and c.alone)

    @property
    def thought(self) -> str:
        """The text behind which the answer was asked for."""
        messages = self.calls[-1].messages
        assert messages is not None
        assert messages[:-1] == QUERY.messages
        return messages[-1].text


def run(table: LookUp, plan: Glimpse = PLAN, **more: Any) -> Run:
    done = replay(plan, QUERY, table, **more)
    assert comparable(replay(plan, QUERY, Recorded(done.steps))) == comparable(done)
    return done


def with_(**changes: Any) -> Glimpse:
    return msgspec.structs.replace(PLAN, **changes)


# ------------------------------------------------------------------------------------------------------ entropy

probabilities = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40).map(lambda p: [x / sum(p) for x in p])


def test_entropy_of_uniform_is_log_v_and_of_one_hot_0() -> None:
    for v in (1, 2, 10, 500):
        assert entropy([log(1 / v)] * v) == pytest.approx(log(v))
    assert entropy([0.0]) == 0.0
    assert entropy([0.0, float("-inf")]) == 0.0


@given(probabilities, st.floats(-50.0, 50.0))
def test_entropy_of_logits_is_shift_invariant(p: list[float], shift: float) -> None:
    def of(logits: list[float]) -> float:
        top = max(logits)
        total = top + log(sum(exp(x - top) for x in logits))
        return entropy([x - total for x in logits])

    logits = [log(x) for x in p]
    assert of([x + shift for x in logits]) == pytest.approx(of(logits), abs=1e-9)


@given(probabilities, st.integers(1, 40))
def test_top_k_entropy_is_at_most_the_full_one(p: list[float], k: int) -> None:
    logs = sorted((log(x) for x in p), reverse=True)
    assert entropy(logs[:k]) <= entropy(logs) + 1e-9


# ----------------------------------------------------------------------------------------------------- who writes

STEPS = ["One", "two", "three", "four", "done</think>"]
SEEN = [0.2, 1.0, 1.001, None, 0.9]


def test_entropy_decides_step_by_step_and_large_answers() -> None:
    table = Mock(STEPS, SEEN)
    done = run(table)
    assert table.writers == "sslls", "an entropy of tau itself is low; one that is missing is high"
    assert (done.outcome.text, done.outcome.target, done.outcome.confidence) == ("42", "l", None)
    last = table.calls[-1]
    assert (last.alone, last.params) == (False, {"go_on": True})


def test_tau_huge_only_small_writes_tau_negative_only_large() -> None:
    table = Mock(STEPS, [0.0, 3.0, 19.9])
    run(table, with_(tau=20.0))
    assert (table.writers, table.calls[-1].target) == ("sssss", "l")
    table = Mock(STEPS, [0.0])
    run(table, with_(tau=-1e-9))
    assert (table.writers, table.calls[-1].target) == ("lllll", "l")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 4.0), min_size=5, max_size=5), st.lists(st.floats(-1.0, 5.0), min_size=2, max_size=2))
def test_the_rate_of_interventions_does_not_rise_with_tau(seen: list[float], taus: list[float]) -> None:
    shares = []
    for tau in sorted(taus):
        table = Mock(STEPS, seen)
        run(table, with_(tau=tau))
        shares.append(table.writers.count("l"))
    assert shares[0] >= shares[1]


def test_large_is_never_called_before_the_decision_and_only_small_decides() -> None:
    table = Mock(STEPS, SEEN)
    run(table)
    thinking = table.calls[:-1]
    assert [(c.target, c.purpose) for c in thinking[::2]] == [("s", "probe")] * 5
    for c in thinking[::2]:
        assert c.params == {
            "go_on": True, "max_tokens": 1, "logprobs": True, "top_logprobs": 20, "temperature": 1.0
        }  # fmt: skip


def test_the_token_of_the_look_ahead_is_not_emitted() -> None:
    table = Mock(STEPS, SEEN)
    run(table)
    assert "Peek" not in table.thought
    for ahead, step in zip(table.calls[:-1:2], table.calls[1:-1:2], strict=True):
        assert (ahead.messages, ahead.sample) == (step.messages, step.sample)


# -------------------------------------------------------------------------------------------- scripted steps, the text


def test_the_text_is_the_exact_concatenation() -> None:
    table = Mock(STEPS, SEEN)
    run(table)
    assert table.thought == "<think>\nOne\n\ntwo\n\nthree\n\nfour\n\ndone</think>"
    for c in table.calls[:-1]:
        assert c.alone
        assert c.messages is not None
        assert table.thought.startswith(c.messages[-1].text)
    step = table.calls[1]
    assert step.params == {
        "go_on": True, "max_tokens": 512, "stop": ["\n\n"], "temperature": 0.6, "top_p": 0.95
    }  # fmt: skip


def test_a_delimiter_that_the_server_returns_is_not_put_twice() -> None:
    table = Mock(["One\n\n", "two</think>"])
    run(table)
    assert table.thought == "<think>\nOne\n\ntwo</think>"


def test_end_of_thinking_inside_a_step_ends_the_loop() -> None:
    table = Mock(["One", "two</think>\nThe answer is"])
    run(table)
    assert table.thought == "<think>\nOne\n\ntwo</think>"
    assert table.writers == "ss"
    table = Mock(["</think>"])
    run(table)
    assert table.thought == "<think>\n</think>"


def test_short_delimiters_and_marks() -> None:
    """A working such as ``3+4=7;7+5=12>``."""
    table = Mock(["3+4=7", "7+5=12>12"])
    run(table, Glimpse(small="s", large="l", stop=";", end=">"))
    assert table.thought == "3+4=7;7+5=12>"


def test_a_step_without_the_delimiter_ends_at_the_cap() -> None:
    cut = [Outcome(text=f"step {i} goes o", finish="length", tokens=Tokens(output=50)) for i in range(2)]
    table = Mock([*cut, "n</think>"])
    run(table, with_(step_tokens=50))
    assert table.thought == "<think>\nstep 0 goes ostep 1 goes on</think>"


def test_stops_at_the_budget() -> None:
    steps = [Outcome(text=f"{i}", finish="stop", tokens=Tokens(output=40)) for i in range(99)]
    table = Mock(steps)
    done = run(table, with_(budget_tokens=100))
    assert table.thought == "<think>\n0\n\n1\n\n2\n\n</think>"
    assert done.outcome.text == "42"
    assert [c.params["max_tokens"] for c in table.calls[1:-1:2]] == [100, 60, 20]
    table = Mock([f"{i:040}" for i in range(99)])
    run(table, with_(budget_tokens=25))
    assert len(table.writers) == 3, "where tokens are not counted, four characters are one"
    table = Mock([str(i) for i in range(99)])
    run(table, with_(max_steps=7))
    assert len(table.writers) == 7


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_an_empty_step_does_not_loop(nothing: str) -> None:
    table = Mock(["One", nothing])
    assert run(table).outcome.text == "42"
    assert table.writers == "ss"
    assert table.thought == "<think>\nOne\n\n</think>"


def test_without_any_thought_large_is_asked_as_the_client_asked() -> None:
    table = Mock([""])
    run(table, Glimpse(small="s", large="l", continuing={"go_on": True}))
    assert table.calls[-1] == Call(target="l")
    assert all("go_on" not in c.params for c in table.calls), "there is nothing yet to go on with"


# --------------------------------------------------------------------------------------------------- going in circles


def test_a_step_that_is_written_again_and_again_ends_the_thinking() -> None:
    for circle in (["Wait."], ["Wait.", "So,"]):
        table = Mock(circle * 99)
        run(table)
        assert len(table.writers) == 4 * len(circle) - len(circle) + 1
    table = Mock(["Wait."] * 2 + ["Yes."] + ["Wait."] + ["done</think>"])
    run(table)
    assert len(table.writers) == 5


def test_a_looping_small_model_can_cost_more_than_the_large_one() -> None:
    """Sure of itself and going round in circles; the large one by itself needs three steps."""

    class Looping(Mock):
        def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
            self.steps = ["Wait.", "So,"] * 500 if call.target == "s" else ["a", "b", "c</think>"]
            return super().outcome(call, path)

    alone = run(Looping([]), with_(tau=-1.0)).usd
    unguarded = run(Looping([]), with_(repeats=None)).usd
    guarded = run(Looping([])).usd
    assert alone is not None
    assert unguarded is not None
    assert guarded is not None
    assert alone == pytest.approx(3 * 1.1 + 1.0)
    assert unguarded > 10 * alone
    assert guarded < alone


# ------------------------------------------------------------------------------------------------- failures, limits


@pytest.mark.parametrize("kind", ["unavailable", "bad_request"])
def test_where_the_look_ahead_fails_large_writes(kind: str) -> None:
    table = Mock(STEPS, fails=lambda c: kind if c.purpose == "probe" else None)
    assert run(table).outcome.text == "42"
    assert table.writers == "lllll"


def test_a_step_that_small_fails_to_write_large_writes() -> None:
    table = Mock(STEPS, fails=lambda c: "timeout" if c.target == "s" and c.purpose == "answer" else None)
    assert run(table).outcome.text == "42"
    assert table.writers == "sl" * 5


def test_if_large_fails_thinking_is_over_and_small_answers() -> None:
    table = Mock(STEPS, SEEN, fails=lambda c: "unavailable" if c.target == "l" else None)
    done = run(table)
    assert (done.outcome.text, done.outcome.target) == ("42", "s")
    assert table.thought == "<think>\nOne\n\ntwo\n\n</think>"
    table = Mock(STEPS, fails=lambda c: "unavailable")
    error = run(table).outcome.error
    assert error is not None
    assert error.kind == "unavailable"


def test_answer_by_small() -> None:
    table = Mock(STEPS)
    assert run(table, with_(answer_by="small")).outcome.target == "s"
    table = Mock(STEPS, fails=lambda c: "timeout" if not c.alone and c.target == "s" else None)
    assert run(table, with_(answer_by="small")).outcome.target == "l"


def test_a_bad_request_is_returned() -> None:
    table = Mock(STEPS, fails=lambda c: "bad_request")
    error = run(table).outcome.error
    assert error is not None
    assert error.kind == "bad_request"
    assert [c.target for c in table.calls] == ["s", "l"]


@pytest.mark.parametrize("calls", range(1, 13))
def test_limits_on_calls(calls: int) -> None:
    table = Mock(STEPS, SEEN)
    done = run(table, limits=Limits(calls=calls))
    assert len(table.calls) == min(calls, 11)
    assert done.outcome.ok == (calls >= 11), "thoughts are no answer"
    if calls < 11:
        assert done.outcome.error is not None
        assert done.outcome.error.kind == "budget"


def test_where_large_does_not_fit_a_limit_on_spend_small_answers() -> None:
    table = Mock(STEPS, SEEN)
    done = run(table, limits=Limits(usd=0.9), estimate=lambda call, query: USD[call.target])
    assert (done.outcome.text, done.outcome.target, done.outcome.limited) == ("42", "s", "budget")
    assert done.usd is not None
    assert done.usd <= 0.9


async def test_only_the_answer_is_streamed() -> None:
    sent: list[bytes] = []

    async def sink(events: bytes) -> None:
        sent.append(events)

    drivers = {"s": Scripted(name="s", replies=("uno",)), "l": Scripted(name="l", replies=("dos</think>", "cinco"))}
    done = await Live(drivers=drivers).run(PLAN, QUERY, sink=sink)
    assert (done.outcome.text, done.outcome.streamed) == ("cinco", True)
    assert b"uno" not in b"".join(sent)
    assert b"dos" not in b"".join(sent)
    toys = {n: ToyDriver(name=n) for n in "sl"}
    done = await Live(drivers=toys, estimate=lambda call, query: 2e-5).run(PLAN, QUERY, limits=Limits(usd=1e-4))
    assert (done.usd or 0.0) <= 1e-4
    assert comparable(replay(PLAN, QUERY, Recorded(done.steps))) == comparable(done)


# ------------------------------------------------------------------------------------------- two tiny byte-level models
#
# A text is a key, as in ``k=7:``, and steps that end in ``;``. A dot or a question mark before it says what the next step must be: ``ok`` after a dot
# (easy: to be copied), the key after a question mark (hard: a branch). After ``!`` thinking ends with ``>``, and the answer is the key. Small sees the
# last two bytes; large sees them and the key.


def written(random: Random, key: int) -> str:
    text, mark = f"k={key}:", "."
    while mark != "!":
        say = "ok" if mark == "." and random.random() < 0.9 else "no" if mark == "." else str(key)
        mark = random.choices(".?!", (0.6, 0.3, 0.1))[0]
        text += say + mark + ";"
    return f"{text}>{key}\n"


class Ngram:
    """Counts of the next byte by context: the last two bytes, and the key if it sees that far."""

    def __init__(self, *, sees_key: bool) -> None:
        self.sees_key = sees_key
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        random = Random(1)
        for _ in range(400):
            text = written(random, random.randrange(10))
            for i in range(4, len(text)):
                self.counts[self.context(text[:i])][text[i]] += 1

    def context(self, text: str) -> str:
        return text[2] * self.sees_key + text[-2:]

    def next(self, text: str) -> dict[str, float]:
        counts = self.counts[self.context(text)] or Counter("\n")
        return {byte: n / counts.total() for byte, n in counts.items()}


@cache
def models() -> dict[str, Ngram]:
    return {"s": Ngram(sees_key=False), "l": Ngram(sees_key=True)}


SECONDS = {"s": 0.01, "l": 0.05}


class Two(LookUp):
    """The two models on one text; with `random`, look-aheads that know nothing, and ask for large at that rate."""

    def __init__(self, seed: int, *, random: float | None = None) -> None:
        self.seed, self.random = seed, random
        self.seen: list[tuple[bool, float]] = []
        self.bytes: Counter[str] = Counter()

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        assert call.messages is not None
        text = "".join(m.text for m in call.messages)
        chance = Random(f"{self.seed} {len(text)} {call.purpose}")
        if call.purpose == "probe":
            h = entropy([log(p) for p in models()["s"].next(text).values()])
            self.seen.append((text[-2:] == "?;", h))
            if self.random is not None:
                h = 9.0 if chance.random() < self.random else 0.0
            return Outcome(target=call.target, first_entropy=h, seconds=SECONDS["s"])
        start = len(text)
        stop = (call.params.get("stop") or ["\n"])[0]
        while len(text) < start + 40:
            options = models()[call.target].next(text)
            byte = chance.choices(list(options), list(options.values()))[0]
            if byte in (stop, "\n"):
                break
            text += byte
        self.bytes[call.target] += len(text) - start
        seconds = (len(text) - start) * SECONDS[call.target]
        return Outcome(text=text[start:], target=call.target, finish="stop", seconds=seconds)


class Many:
    """Many texts, thought through by the plan at one tau: what share large wrote, and how many had every branch right."""

    def __init__(self, tau: float, *, random: float | None = None, texts: int = 200) -> None:
        self.seen: list[tuple[bool, float]] = []
        right = large = steps = 0
        plan = Glimpse(small="s", large="l", tau=tau, stop=";", end=">", repeats=None)
        for i in range(texts):
            key, table = str(i % 10), Two(i, random=random)
            done = replay(plan, Query.ask(f"k={key}:", id=f"{i}"), table)
            calls = [s.call for s in done.steps if s.call is not None]
            said = calls[-1].messages
            assert said is not None
            digits = {c for c in said[-1].text + done.outcome.text if c.isdigit()}
            right += digits == {key}
            writers = [c.target for c in calls[:-1] if c.purpose == "answer"]
            large += writers.count("l")
            steps += len(writers)
            self.seen += table.seen
            looks = sum(c.purpose == "probe" for c in calls)
            n_s, n_l = table.bytes["s"], table.bytes["l"]
            assert done.seconds == pytest.approx(n_s * SECONDS["s"] + n_l * SECONDS["l"] + looks * SECONDS["s"])
        self.share, self.right = large / steps, right / texts


def test_entropies_of_easy_and_hard_steps_separate() -> None:
    """AUC above .9; and (in `Many`) latency is n_S t_S + n_L t_L + the look-aheads."""
    seen = Many(1.0).seen
    hard, easy = [h for is_hard, h in seen if is_hard], [h for is_hard, h in seen if not is_hard]
    assert min(len(hard), len(easy)) > 100
    auc = sum((a > b) + 0.5 * (a == b) for a in hard for b in easy) / (len(hard) * len(easy))
    assert auc > 0.9


def test_random_assignment_at_the_same_rate_is_worse() -> None:
    """By 200 texts: a difference of .1 would be seen (four standard errors are .14 of .5, at most)."""
    glimpse, small, large = Many(1.0), Many(20.0), Many(-1.0)
    blind = Many(1.0, random=glimpse.share)
    assert 0.1 < glimpse.share < 0.5
    assert blind.share == pytest.approx(glimpse.share, abs=0.05)
    assert glimpse.right > blind.right + 0.2
    assert glimpse.right > small.right + 0.2
    assert glimpse.right > large.right - 0.05


# ------------------------------------------------------------------------------------------------------------ as data


def test_it_is_data() -> None:
    plan = decode(
        {"kind": "glimpse", "small": "s", "large": "l", "thinking": "<think>\n", "continuing": {"go_on": True}}
    )
    assert plan == PLAN
    assert decode(to_data(plan)) == plan
    assert len({plan, PLAN}) == 1
    assert plan.targets() == ("s", "l")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau": float("inf")}, "tau must be a number"),
        ({"tau": float("nan")}, "tau must be a number"),
        ({"stop": ""}, "stop and end"),
        ({"end": "\n"}, "stop and end"),
        ({"max_steps": 0}, "at least 1"),
        ({"budget_tokens": 0}, "at least 1"),
        ({"repeats": 1}, "repeats"),
        ({"answer_by": "both"}, "answer_by"),
    ],
)
def test_wrong_ones_are_config_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "glimpse", "small": "s", "large": "l", **wrong})


def test_contract() -> None:
    check_plan(Glimpse.example)
    check_plan(lambda: PLAN)
