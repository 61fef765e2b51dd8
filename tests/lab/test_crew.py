"""The crew: there, of the size and price that is said, and doing what its prompts ask for."""

from pathlib import Path

import pytest

from fairlead import cli
from fairlead.gateway.lab_server import LabServer
from fairlead.lab import crew_card
from fairlead.lab.compound import check_compound, draw_compound
from fairlead.lab.crew import AGENTS, CREW, MERGE, PICK, RATE, ROUNDS, TARGETS, VERIFY
from fairlead.lab.pool import MODELS, describe, load, names
from fairlead.lab.pool import TARGETS as POOL
from fairlead.lab.tasks import draw
from fairlead.plans.prompts import Prompt
from fairlead.plans.rounds import faults


def say(name: str, prompt: Prompt, most: int = 120, **fields: object) -> str:
    (message,) = prompt.messages(fields)  # type: ignore[arg-type]
    assert isinstance(message.content, str)
    (done,) = load(name).generate(message.content.strip(), max_tokens=most)
    return done.text


@pytest.mark.parametrize("name", CREW)
def test_weights_fit_what_is_said(name: str) -> None:
    known, model = describe(name), load(name)
    assert model.shape == known.shape
    assert sum(a.size for a in model.arrays.values()) == known.parameters
    assert known.usd_per_million_output_tokens == pytest.approx(known.parameters / 1e6)


def test_names_of_the_pool_and_of_the_crew_are_known_apart() -> None:
    assert names() == (*MODELS, *CREW)
    assert not set(MODELS) & set(CREW)
    with pytest.raises(ValueError, match="lab-judge"):
        describe("lab-judg")


def test_their_files_are_small() -> None:
    assert sum(CREW[name].file.stat().st_size for name in CREW) < 6e6


def test_working_step_by_step_is_right_more_often_with_the_large_one() -> None:
    right = {}
    examples = draw_compound(24, 4, split="test", level_mix=(1, 1, 0, 0, 0))
    for name in ("lab-step", "lab-steps"):
        done = [load(name).generate(e.prompt, mode="working")[0].text for e in examples]
        right[name] = sum(check_compound(e, text) for e, text in zip(examples, done, strict=True))
    assert right["lab-step"] < right["lab-steps"]
    assert right["lab-steps"] >= 12


def test_a_working_is_gone_on_with_from_anywhere() -> None:
    model = load("lab-steps")
    for example in draw_compound(3, 8, split="test"):
        whole = model.generate(example.prompt, mode="working")[0].text
        for cut in (0, 1, len(whole) // 2, len(whole) - 1):
            assert whole[:cut] + model.generate(example.prompt, mode="working", written=whole[:cut])[0].text == whole


def test_the_judge_says_yes_no_a_number_or_the_answer() -> None:
    verdicts, picks, merges = [], [], []
    examples = draw(20, 9, split="test", level_mix=(1, 1, 0, 0, 0))
    for i, e in enumerate(examples):
        wrong = examples[i - 1].answer if examples[i - 1].answer != e.answer else e.answer + "x"
        both = (e.answer, wrong) if i % 2 else (wrong, e.answer)
        said = {a: say("lab-judge", VERIFY, question=e.prompt, answer=a) for a in both}
        assert set(said.values()) <= {"yes", "no"}
        verdicts.append((said[e.answer], said[wrong]) == ("yes", "no"))
        picks.append(say("lab-judge", PICK, question=e.prompt, answers=both) == str(both.index(e.answer) + 1))
        merges.append(say("lab-judge", MERGE, question=e.prompt, answers=both) == e.answer)
    # Wrong answers of another question: easy, and so a test of the formats rather than of the judge, which is weak on near misses.
    for found in (verdicts, picks, merges):
        assert sum(found) > 10


def test_the_router_asks_part_by_part_names_agents_and_rates() -> None:
    experts = {"lab-numbers": "", "lab-text": ""}
    formed = 0
    for e in draw_compound(10, 7, split="test", most_steps=2, level_mix=(1, 1, 1, 0, 0)):
        reply = say("lab-router", ROUNDS, question=e.prompt, transcript="")
        formed += not faults(reply + "<information></information><answer></answer>", experts)
    assert formed >= 8
    for task in draw(6, 7, split="test"):
        agents = say("lab-router", AGENTS, question=task.prompt)
        assert agents.startswith("<reason>")
        assert agents.endswith("</agents>")
        assert say("lab-router", RATE, question=task.prompt) in ("Easy", "Medium", "Hard")


def test_it_is_asked_and_served_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "ask", "lab-judge", "17+25= -> 42 ok?"]) == 0
    assert capsys.readouterr().out.strip() in ("yes", "no")
    assert cli.main(["lab", "ask", "lab-steps", "1) 2+3; 2) #1*2", "--scratch"]) == 0
    assert ">" in capsys.readouterr().out
    assert {t.name for t in (*POOL, *TARGETS)} == set(LabServer().drivers)


def test_the_card_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, n in {"QUESTIONS": 3, "TASK_PROMPTS": 1, "EPISODES": 2, "TABLES": 20}.items():
        monkeypatch.setattr(crew_card, name, n)
    crew_card.main(["--out", str(tmp_path / "CREW.md")])
    card, kept = (tmp_path / "CREW.md").read_text(), crew_card.CARD.read_text()
    heads = [[line for line in text.splitlines() if line.startswith("#")] for text in (card, kept)]
    assert heads[0] == heads[1]
    for name in (*CREW, "lab-eye"):
        assert f"`{name}`" in kept
