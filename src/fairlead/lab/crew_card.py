"""Measure the crew and write its card: `python -m fairlead.lab.crew_card`.

Everything in `weights/CREW.md` comes from this file and the weight files: questions of several steps by level, how well the entropy of a step's first
byte tells that the small model will get the step wrong, verdicts on answers that the pool really gave, the router's episodes with real specialists, and
the reader of pictures by noise. Development and test prompts side by side: no model was trained on either.

All calls go through `fairlead.lab.world.Lab`, so they are what plans get. Cost: about two minutes on one core. Ours, no paper.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from tqdm import tqdm

from fairlead.lab.card import auroc, percent, share, table
from fairlead.lab.compound import check_compound, draw_compound
from fairlead.lab.crew import AGENTS, CREW, MERGE, PICK, RATE, ROUNDS, VERIFY
from fairlead.lab.crew_lines import Row, rate_of
from fairlead.lab.eye import LOST, NOISE, PARAMETERS, draw_tables, eye
from fairlead.lab.pool import TARGETS, WEIGHTS, LabTarget, load
from fairlead.lab.shapes import Mode
from fairlead.lab.tasks import LEVELS, TASKS, Split, check, draw
from fairlead.lab.world import Lab
from fairlead.plans import prompts
from fairlead.plans.prompts import Prompt
from fairlead.plans.rounds import Rounds
from fairlead.plans.single import Single
from fairlead.plans.tags import blocks
from fairlead.types import Call, Message, Outcome, Query
from fairlead.worlds.replay import replay

CARD: Final = WEIGHTS / "CREW.md"
SPLITS: Final[tuple[Split, ...]] = ("dev", "test")
SEED: Final = 2_027
QUESTIONS: Final = 150
TASK_PROMPTS: Final = 20
EPISODES: Final = 100
TABLES: Final = 2_000
SHOWN: Final = ("lab-nano", "lab-small", "lab-large")
"""Who answers what the judge is shown, beside the specialist."""

STEPPERS: Final = ("lab-step", "lab-steps")
MODES: Final[tuple[Mode, ...]] = ("direct", "working")

Told = Callable[[], object]


class _Step(NamedTuple):
    level: int
    small: bool
    large: bool
    entropy: float


class _Question(NamedTuple):
    level: int
    right: dict[str, bool]
    """By target."""


class _Verdict(NamedTuple):
    task: str
    yes: list[tuple[float, bool]]
    """For each different answer: the probability of `yes`, and whether it is right."""
    right: list[bool]
    """Of the answers that were shown."""
    plurality: bool
    picked: bool
    first: bool
    """Whether the one shown first was picked."""
    surest: bool
    """Whether the answer with the highest probability of `yes` is right."""
    merged: bool
    large: bool
    agents: bool
    """Whether one of those named was right."""
    named: int
    rated: str
    rate: str


class _Episode(NamedTuple):
    level: int
    parts: int
    right: bool
    turns: int
    formed: int
    alone: bool
    """Whether `lab-steps` is right by itself, working."""


def crew_lab() -> Lab:
    """Return the pool and the crew, as plans call them."""
    steps = [LabTarget(f"{name}-{mode}", name, mode) for name in STEPPERS for mode in MODES]
    return Lab(LabTarget("lab-judge", "lab-judge"), LabTarget("lab-router", "lab-router"), *steps)


# ---------------------------------------------------------------------------------------------------------- measuring


def _questions(lab: Lab, split: Split, told: Told) -> tuple[list[_Question], list[_Step]]:
    questions, steps = [], []
    for i, example in enumerate(draw_compound(QUESTIONS, SEED, split=split)):
        query = Query.ask(example.prompt, id=f"{split}-{i}")
        names = [f"{name}-{mode}" for name in STEPPERS for mode in MODES]
        said = {name: lab.answer(Call(target=name), query).text for name in names}
        questions.append(_Question(example.level, {n: check_compound(example, text) for n, text in said.items()}))
        for k, result in enumerate(example.results):
            before = "".join(f"{r};" for r in example.results[:k])
            messages = (*query.messages, Message(role="assistant", content=before)) if before else query.messages
            small, large = (
                lab.answer(Call(target=f"{name}-working", messages=messages, params={"stop": [";"]}), query)
                for name in STEPPERS
            )
            assert small.first_entropy is not None
            right = (small.text == result, large.text == result)
            steps.append(_Step(example.level, *right, small.first_entropy))
        told()
    return questions, steps


def _verdicts(lab: Lab, split: Split, told: Told) -> list[_Verdict]:
    out, rng = [], Random(SEED)
    examples = [e for j, t in enumerate(TASKS) for e in draw(TASK_PROMPTS, SEED + j, split=split, tasks=[t])]
    for i, example in enumerate(examples):
        query = Query.ask(example.prompt, id=f"{split}-{i}")

        def ask(prompt: Prompt, name: str = "lab-judge", query: Query = query, **fields: Any) -> Outcome:
            return lab.answer(prompts.ask(name, prompt, query, purpose="judge", **fields), query)

        said = {t.name: lab.answer(Call(target=t.name), query).text.strip() for t in TARGETS}
        # In an order of chance, since a judge may like a place better than an answer.
        order = rng.sample(names := (*SHOWN, f"lab-{example.field}"), len(names))
        shown = tuple(said[name] for name in order)
        yes = {}
        for answer in dict.fromkeys(said.values()):
            verdict = ask(VERIFY, answer=answer)
            first = math.exp((verdict.logprobs or (0.0,))[0])
            yes[answer] = first if verdict.text == "yes" else 1.0 - first
        pick = ask(PICK, answers=shown).text
        merged = ask(MERGE, answers=shown).text
        agents = ask(AGENTS, "lab-router").text
        named = [
            name for b in blocks(agents, ("reason", "agents")) or () if b.tag == "agents" for name in b.text.split(", ")
        ]
        row = Row(
            example.prompt,
            example.answer,
            example.task,
            example.level,
            example.field,
            {n: (t,) for n, t in said.items()},
        )
        out.append(
            _Verdict(
                task=example.task,
                yes=[(p, check(example, answer)) for answer, p in yes.items()],
                right=[check(example, a) for a in shown],
                plurality=check(example, Counter(shown).most_common(1)[0][0]),
                picked=pick.isdigit() and 1 <= int(pick) <= len(shown) and check(example, shown[int(pick) - 1]),
                first=pick == "1",
                surest=check(example, max(shown, key=lambda answer: yes[answer])),
                merged=check(example, merged),
                large=check(example, said["lab-large"]),
                agents=any(check(example, said.get(name, "")) for name in named),
                named=len(named),
                rated=ask(RATE, "lab-router").text,
                rate=rate_of(row),
            )
        )
        told()
    return out


def episode_plan(router: str = "lab-router") -> Rounds:
    """Return the rounds that are measured: three turns at most, and no second chance."""
    return Rounds(
        router=router,
        experts={"lab-numbers": "", "lab-text": ""},
        default=Single(target="lab-nano"),
        turns=3,
        retries=0,
        prompt=ROUNDS,
    )


def _episodes(lab: Lab, split: Split, told: Told) -> list[_Episode]:
    out = []
    plan = episode_plan()
    for i, example in enumerate(draw_compound(EPISODES, SEED + 1, split=split, most_steps=3)):
        query = Query.ask(example.prompt, id=f"{split}-{i}")
        run = replay(plan, query, lab.of(query))
        asked = [s.call.target for s in run.steps if s.call is not None]
        answered = run.outcome.target == "lab-router"
        right = check_compound(example, run.outcome.text) and answered
        formed = sum(name in plan.experts for name in asked) + answered
        alone = check_compound(example, lab.answer(Call(target="lab-steps-working"), query).text)
        out.append(_Episode(example.level, len(example.subtasks), right, asked.count("lab-router"), formed, alone))
        told()
    return out


# ------------------------------------------------------------------------------------------------------------ writing


def _runs() -> list[str]:
    rows = []
    for name, entry in CREW.items():
        about, shape = load(name).about, entry.shape
        rows.append(
            (
                f"`{name}`",
                f"{shape.width} x {shape.layers}, {shape.heads} heads, {shape.context} bytes",
                f"{entry.parameters:,}",
                about["seed"],
                f"{about['steps']:,}",
                about["minutes"],
                f"{entry.file.stat().st_size / 1e6:.2f} MB",
            )
        )
    return table(("model", "shape", "parameters", "seed", "steps", "minutes", "file"), rows)


def _of_levels(found: Sequence[tuple[int, bool]]) -> list[str]:
    return [percent(share(right for n, right in found if n in levels)) for levels in (LEVELS, *((n,) for n in LEVELS))]


def _about_questions(split: Split, questions: list[_Question]) -> Iterable[Sequence[object]]:
    for name in questions[0].right:
        yield f"`{name}`", split, *_of_levels([(q.level, q.right[name]) for q in questions])


def _about_steps(split: Split, steps: list[_Step]) -> Sequence[object]:
    sure = auroc([-s.entropy for s in steps], [s.small for s in steps])
    return (
        split,
        len(steps),
        percent(share(s.small for s in steps)),
        percent(share(s.large for s in steps)),
        percent(share(s.large and not s.small for s in steps)),
        percent(share(s.small and not s.large for s in steps)),
        f"{sure:.3f}",
    )


def _about_verdicts(found: dict[Split, list[_Verdict]]) -> list[str]:
    rows: list[Sequence[object]] = []
    every = [v for vs in found.values() for v in vs]
    for name, mine in [*found.items(), *((task, [v for v in every if v.task == task]) for task in TASKS)]:
        pairs = [pair for v in mine for pair in v.yes]
        split = [v for v in mine if any(v.right) and not all(v.right)]
        rows.append(
            (
                name,
                f"{auroc([p for p, _ in pairs], [right for _, right in pairs]):.3f}",
                percent(share((p > 0.5) == right for p, right in pairs)),
                len(split),
                percent(share(v.picked for v in split)),
                percent(share(v.first for v in split)),
                percent(share(v.surest for v in split)),
                percent(share(v.merged for v in split)),
                percent(share(v.plurality for v in split)),
                percent(share(v.merged for v in mine)),
                percent(share(v.plurality for v in mine)),
                percent(share(any(v.right) for v in mine)),
            )
        )
    head = (
        "prompts",
        "verify: AUROC",
        "verify: right",
        "split prompts",
        "pick",
        "picks the first",
        "surest yes",
        "merge",
        "plurality",
        "merge, all",
        "plurality, all",
        "some answer right, all",
    )
    return table(head, rows)


def _about_episodes(found: dict[Split, list[_Episode]]) -> list[str]:
    rows = []
    for split, episodes in found.items():
        rows.append(
            (
                split,
                percent(sum(e.formed for e in episodes) / sum(e.turns for e in episodes)),
                *_of_levels([(e.level, e.right) for e in episodes]),
                *(percent(share(e.right for e in episodes if e.parts == n)) for n in (2, 3)),
                percent(share(e.alone for e in episodes)),
            )
        )
    levels = (f"level {level}" for level in LEVELS)
    return table(("split", "turns well formed", "right", *levels, "2 parts", "3 parts", "`lab-steps` alone"), rows)


def _about_naming(found: dict[Split, list[_Verdict]]) -> list[str]:
    rows = []
    for split, verdicts in found.items():
        usual = Counter(v.rate for v in verdicts).most_common(1)[0]
        rows.append(
            (
                split,
                percent(share(v.agents for v in verdicts)),
                f"{sum(v.named for v in verdicts) / len(verdicts):.2f}",
                percent(share(v.large for v in verdicts)),
                percent(share(v.rated == v.rate for v in verdicts)),
                percent(usual[1] / len(verdicts)),
            )
        )
    head = (
        "split",
        "one of the named is right",
        "named",
        "`lab-large` is right",
        "rated right",
        "always the usual rating",
    )
    return table(head, rows)


def _about_eye() -> list[str]:
    rows = []
    for split in SPLITS:
        tables = draw_tables(TABLES, SEED, split=split)
        seen = [eye().read(t.picture, t.key) for t in tables]
        right = [s.text == t.answer for s, t in zip(seen, tables, strict=True)]
        mean = [sum(s.logprobs) / len(s.logprobs) for s in seen]
        by_noise = [share(r for r, t in zip(right, tables, strict=True) if t.noise == noise) for noise in NOISE]
        rows.append((split, percent(share(right)), *map(percent, by_noise), f"{auroc(mean, right):.3f}"))
    return table(("split", "right", *(f"noise {noise:g}" for noise in NOISE), "AUROC"), rows)


def make_card() -> str:
    """The card as Markdown, measured now."""
    lab = crew_lab()
    total = len(SPLITS) * (QUESTIONS + TASK_PROMPTS * len(TASKS) + EPISODES)
    with tqdm(total=total, desc="measuring") as bar:
        stepped = {split: _questions(lab, split, bar.update) for split in SPLITS}
        verdicts = {split: _verdicts(lab, split, bar.update) for split in SPLITS}
        episodes = {split: _episodes(lab, split, bar.update) for split in SPLITS}
    lines = [
        "# Card of the lab's crew",
        "",
        "Written by `python -m fairlead.lab.crew_card`; do not edit.",
        "",
        "Four byte-level transformers that help in plans, trained from nothing by `python -m fairlead.lab.train_crew`, and a reader of",
        "small pictures, by `python -m fairlead.lab.eye`. They do what is measured here and nothing else. Licence: that of this repository.",
        "",
        *_runs(),
        "Minutes are of one core of a shared two-core machine, by the clock. One seed each. Of `lab-router` they are those of its second run, which",
        "went on from the weights of one of 9 minutes.",
        "",
        f"Figures are in % unless they say otherwise, greedy, seed {SEED}. AUROC: how often what is right ranks above what is wrong.",
        "",
        "## Questions of several steps",
        "",
        f"Exactly right, {QUESTIONS} questions a split, levels even: a standard error of up to {50 / math.sqrt(QUESTIONS):.1f} points over all of them,",
        f"of {50 / math.sqrt(QUESTIONS / 5):.0f} at one level.",
        "",
        *table(
            ("target", "split", "all", *(f"level {level}" for level in LEVELS)),
            [row for split in SPLITS for row in _about_questions(split, stepped[split][0])],
        ),
        "One step, after steps that are all right, and whether the entropy of its first byte (that of `lab-step`) tells that `lab-step` gets it wrong:",
        "",
        *table(
            ("split", "steps", "`lab-step`", "`lab-steps`", "only `lab-steps`", "only `lab-step`", "AUROC of entropy"),
            [_about_steps(split, stepped[split][1]) for split in SPLITS],
        ),
        "## The judge",
        "",
        f"On real greedy answers of the pool to {TASK_PROMPTS} prompts of each task and split, levels in the usual mix. Verify: every different answer of",
        "the six targets. Pick and merge: the four answers of nano, small, large and the specialist, in an order of chance. Split prompts: those where",
        "some of the four are right and some wrong. Surest yes: the one of the four with the highest probability of yes is taken. Rows of tasks are of",
        "both splits.",
        "",
        *_about_verdicts(verdicts),
        "## The router",
        "",
        f"Episodes of `rounds` with `lab-numbers` and `lab-text`, {EPISODES} questions of at most 3 parts a split, no retries. A turn that is not well",
        "formed ends its episode, and that counts as wrong.",
        "",
        *_about_episodes(episodes),
        "Whom to ask, and how hard it is, on the prompts that the judge was measured on:",
        "",
        *_about_naming(verdicts),
        "## The reader of pictures",
        "",
        f"`lab-eye`, {PARAMETERS:,} parameters, {TABLES:,} tables a split; noise is the standard deviation where ink is 1. AUROC: of the mean",
        f"log-probability. Of texts, {', '.join(f'{100 * lost:g}' for lost in LOST)}% of the characters are lost, apart from the noise.",
        "",
        *_about_eye(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: measure and write the card."""
    parser = argparse.ArgumentParser(prog="python -m fairlead.lab.crew_card", description="Measure the lab's crew.")
    parser.add_argument("--out", type=Path, default=CARD)
    options = parser.parse_args(arguments)
    options.out.write_text(make_card())


if __name__ == "__main__":
    main()
