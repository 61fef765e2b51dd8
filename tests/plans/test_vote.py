import pytest

from fairlead.errors import ConfigError
from fairlead.plans.base import decode
from fairlead.plans.single import Single
from fairlead.plans.vote import Vote, elect
from fairlead.types import Call, Do, Failure, Outcome, Query
from fairlead.worlds.replay import LookUp, replay

QUERY = Query.ask("What is 2 + 2?", id="q")


class Table(LookUp):
    def __init__(self, texts: dict[tuple[str, int], str | None]) -> None:
        self.texts = texts

    def outcome(self, call: Call, path: tuple[int, ...]) -> Outcome:
        text = self.texts[call.target, call.sample]
        if text is None:
            return Outcome(target=call.target, error=Failure(kind="unavailable", message="down"))
        return Outcome(text=text, target=call.target, usd=1.0)


def members(*names: str) -> tuple[Single, ...]:
    return tuple(Single(target=n) for n in names)


def test_the_majority_wins_and_every_member_is_charged() -> None:
    run = replay(
        Vote(members=members("a", "b", "c")), QUERY, Table({("a", 0): "five", ("b", 0): "Four", ("c", 0): "four."})
    )
    assert (run.outcome.target, run.outcome.text) == ("b", "Four")
    assert run.outcome.confidence == pytest.approx(2 / 3)
    assert run.usd == 3.0


def test_weights_outvote_numbers() -> None:
    plan = Vote(members=members("a", "b", "c"), weights=(5.0, 1.0, 1.0))
    run = replay(plan, QUERY, Table({("a", 0): "five", ("b", 0): "four", ("c", 0): "four"}))
    assert run.outcome.target == "a"
    assert run.outcome.confidence == pytest.approx(5 / 7)


def test_ties_go_to_the_earliest_member() -> None:
    table = Table({("a", 0): "five", ("b", 0): "four"})
    assert replay(Vote(members=members("a", "b")), QUERY, table).outcome.target == "a"
    assert replay(Vote(members=members("b", "a")), QUERY, table).outcome.target == "b"


def test_failures_agree_with_nobody_and_lower_the_share() -> None:
    table = Table({("a", 0): None, ("b", 0): None, ("c", 0): "four"})
    run = replay(Vote(members=members("a", "b", "c")), QUERY, table)
    assert run.outcome.text == "four"
    assert run.outcome.confidence == pytest.approx(1 / 3)
    dead = replay(Vote(members=members("a", "b")), QUERY, table)
    assert dead.outcome.error is not None
    assert dead.outcome.error.kind == "unavailable"


def test_answers_that_cannot_be_read_do_not_vote() -> None:
    table = Table({("a", 0): "no idea", ("b", 0): "no idea", ("c", 0): "it is 4"})
    assert replay(Vote(members=members("a", "b", "c"), answers="number"), QUERY, table).outcome.target == "c"
    run = replay(Vote(members=members("a", "b"), answers="number"), QUERY, table)
    assert (run.outcome.target, run.outcome.confidence) == ("a", 0.0)


def test_draws_are_told_apart() -> None:
    plan = Vote(members=members("a", "b"), samples=3, temperature=0.7)
    do = next(plan.run(QUERY))
    assert isinstance(do, Do)
    drawn = [(c.target, c.sample, c.params) for c in do.branches if isinstance(c, Call)]
    hot = {"temperature": 0.7}
    assert drawn == [("a", 0, {}), ("a", 1, hot), ("a", 2, hot), ("b", 0, {}), ("b", 1, hot), ("b", 2, hot)]
    texts = {("a", 0): "5", ("a", 1): "4", ("a", 2): "4", ("b", 0): "4", ("b", 1): "5", ("b", 2): "4"}
    run = replay(plan, QUERY, Table(dict(texts)))
    assert run.outcome.text == "4"
    assert run.usd == 6.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"members": []}, "at least one member"),
        ({"members": ["a"], "samples": 0}, "samples"),
        ({"members": ["a", "b"], "weights": [1.0]}, "as many weights"),
        ({"members": ["a"], "weights": [0.0]}, "not all zero"),
        ({"members": [{"kind": "vote", "members": ["a"]}], "samples": 2}, "single call"),
        ({"members": ["a"], "answers": "letters"}, "letters"),
        ({"members": ["a"], "member": 1}, "member"),
    ],
)
def test_wrong_votes_are_config_errors(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode({"kind": "vote", **wrong})


def test_elect_says_so_if_nobody_came_back() -> None:
    assert elect([Outcome(cancelled=True)], [1.0], "text").error is not None
