"""What the crew learns from: well formed, labelled right, from the split that is asked for, and in the words that its prompts use."""

from random import Random

import pytest

from fairlead.lab.compound import SHAPES, draw_compound
from fairlead.lab.crew_lines import (
    Row,
    agents_of,
    candidate,
    episode,
    judge_sample,
    near_miss_sample,
    pool_answers,
    rate_of,
    read_rows,
    router_sample,
    spoilt,
    step_sample,
    write_rows,
)
from fairlead.lab.tasks import draw, split_of
from fairlead.plans.rounds import faults, first_action, sub_query

POOL = ("lab-nano", "lab-small", "lab-large", "lab-numbers", "lab-text", "lab-numbers-scratch")


def row(answer="46", field="numbers", **right):
    said = {name: (answer if right.get(name.replace("-", "_"), False) else "0", "1", "47") for name in POOL}
    return Row("12+34=", answer, "add", 2, field, said)


ROWS = [row(lab_small=True, lab_large=True), row(answer="cba", field="text"), row(lab_numbers=True)]


def test_questions_with_their_working_and_of_their_split():
    rng, modes = Random(1), []
    for _ in range(200):
        sample = step_sample(rng, (1, 1, 1, 1, 1), split="dev")
        assert split_of(sample.prompt) == "dev"
        modes.append(sample.mode)
        assert (">" in sample.answer) == (sample.mode == "scratch")
    assert 160 <= modes.count("scratch") < 200


def test_what_the_judge_learns_is_right():
    rng, kinds = Random(2), []
    for _ in range(600):
        sample = judge_sample(rng, ROWS)
        if sample.prompt.endswith(" ok?"):
            kinds.append("verify")
            _, shown = sample.prompt.removesuffix(" ok?").split(" -> ")
            assert sample.answer == ("yes" if shown in ("46", "cba") and shown == _answer(sample.prompt) else "no")
        elif " [1] " in sample.prompt:
            kinds.append("pick")
            parts = sample.prompt.split(" [")[1:]
            found = {p.split("] ")[0]: p.split("] ")[1] for p in parts}
            assert found[sample.answer] in ("46", "cba")
            assert 2 <= len(found) <= 4
            # Of several right ones the first counts.
            assert all(found[str(i)] != found[sample.answer] for i in range(1, int(sample.answer)))
        else:
            kinds.append("merge")
            assert sample.answer in ("46", "cba")
            assert 2 <= sample.prompt.count(" | ") <= 4
    shares = {k: kinds.count(k) / 600 for k in ("verify", "pick", "merge")}
    assert shares == pytest.approx({"verify": 0.35, "pick": 0.25, "merge": 0.4}, abs=0.06)


def _answer(prompt):
    # Both rows have the same prompt: tell them by what a candidate of theirs looks like.
    return "46" if prompt.split(" -> ")[1][0].isdigit() else "cba"


@pytest.mark.parametrize("answer", ["7", "46", "a", "ab", "aa", "abcabc", "ka=31", "12, 8", ""])
def test_what_is_spoilt_is_never_right(answer):
    rng = Random(3)
    made = {spoilt(rng, answer) for _ in range(200)}
    assert answer not in made
    assert all(made)


def test_candidates_are_right_as_often_as_is_said_and_else_mistakes_of_the_pool():
    rng = Random(4)
    found = [candidate(rng, ROWS[1], right=0.5) for _ in range(1000)]
    assert 430 < found.count("cba") < 570
    assert found.count("47") > 50


@pytest.mark.parametrize("shape", SHAPES)
def test_episodes_are_well_formed_and_go_well(shape):
    experts = ("lab-numbers", "lab-text")
    for question in draw_compound(40, 5, shape=shape, most_steps=3):
        turns = episode(question)
        assert len(turns) == len(question.subtasks) + 1
        whole = ""
        for turn, result in zip(turns, (*question.results, ""), strict=True):
            assert turn.prompt == f"{question.prompt} {whole.strip()}".strip()
            assert first_action(turn.answer) == turn.answer
            whole += f"{turn.answer} <information>{result}</information> " if result else turn.answer
            assert "#" not in turn.answer
        assert faults(whole, experts) == ()
        for turn in turns[:-1]:
            asked = sub_query(turn.answer.split("<search>")[1].split("</search>")[0], experts)
            assert asked is not None
            assert (asked[0] == "lab-numbers") == asked[1][0].isdigit()


def test_agents_and_ratings_say_who_was_right():
    easy = row(lab_small=True, lab_numbers=True, lab_large=True)
    assert agents_of(easy) == "<reason>numbers</reason><agents>lab-small</agents>"
    assert rate_of(easy) == "Easy"
    middling = row(lab_numbers=True, lab_numbers_scratch=True)
    assert agents_of(middling).endswith("<agents>lab-numbers-scratch</agents>")
    assert rate_of(middling) == "Medium"
    hard = row(field="text", lab_large=True)
    assert agents_of(hard).endswith("<agents>lab-text, lab-large</agents>")
    assert rate_of(hard) == "Hard"


def test_the_router_learns_in_the_shares_that_are_said():
    rng = Random(6)
    prompts = [router_sample(rng, ROWS, turns=0.6).prompt for _ in range(500)]
    turns = sum(p.startswith("1) ") for p in prompts)
    assert 250 < turns < 350
    assert 60 < sum(p.startswith("agents for: ") for p in prompts) < 140
    assert 60 < sum(p.startswith("rate: ") for p in prompts) < 140


def test_the_pool_answers_its_own_fields_always_and_others_sometimes(tmp_path):
    rows = list(pool_answers(8, 3, split="dev"))
    assert [r.prompt for r in rows] == [e.prompt for e in draw(8, 3, split="dev")]
    for i, found in enumerate(rows):
        away = {"numbers": "lab-text", "text": "lab-numbers"}[found.field]
        assert (away in found.said) == (i % 4 == 0)
        assert f"lab-{found.field}" in found.said
        assert {len(v) for v in found.said.values()} == {3}
    path = tmp_path / "answers.jsonl"
    write_rows(path, iter(rows))
    assert read_rows(path) == rows


def test_near_misses_put_the_right_answer_anywhere_and_never_call_a_wrong_one_right() -> None:
    rng = Random(5)
    places = {"1": 0, "2": 0, "3": 0, "4": 0}
    verdicts = []
    for _ in range(600):
        sample = near_miss_sample(rng, ROWS)
        if sample.answer in ("yes", "no"):
            shown = sample.prompt.rpartition(" -> ")[2].removesuffix(" ok?")
            question = sample.prompt.rpartition(" -> ")[0]
            rights = {r.answer for r in ROWS if r.prompt == question}
            assert (shown in rights) or sample.answer == "no"
            assert sample.answer == "yes" or rights != {shown}
            verdicts.append(sample.answer)
        elif sample.answer in places and "[1]" in sample.prompt:
            places[sample.answer] += 1
    assert 0.4 < verdicts.count("yes") / len(verdicts) < 0.6
    assert places["1"] < 0.5 * sum(places.values())
