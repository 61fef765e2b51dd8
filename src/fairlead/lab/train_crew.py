"""Train the crew from nothing: `python -m fairlead.lab.train_crew` (needs torch), after the pool, whose answers it learns from.

The loop is that of `fairlead.lab.train`, without its curriculum; what is learned is in `fairlead.lab.crew_lines`. First the pool answers 9,000 training
prompts, and 300 development prompts for the figures in the log; both are kept with the checkpoints. Judge and router learn in two runs, the second from the
first's weights and at a lower rate: the judge's on answers that are nearly right, in an order of chance (it had taken to the first one), the router's nearly all on
turns. Those are what each was still bad at.

The shipped weights were trained with these formats, distributions, models' seeds and minutes, on one core of two that were busy, by a clock. What
is not the same: the micro-batches were shuffled without a seed, and the second run of the router drew 6% of its lines from the mix of the first.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import torch
from tqdm import tqdm

from fairlead.lab.compound import draw_compound
from fairlead.lab.crew import CREW
from fairlead.lab.crew_lines import (
    Row,
    Sample,
    episode,
    judge_sample,
    near_miss_sample,
    pool_answers,
    read_rows,
    router_sample,
    step_sample,
    write_rows,
)
from fairlead.lab.shapes import END, MODE_BYTES, Shape, encode, load_weights
from fairlead.lab.tasks import Split
from fairlead.lab.train import Line, Run, Source, exact, minutes_of, options_of

Rows = Callable[[], list[Row]]
Make = Callable[[Random], Sample]

ANSWERS: Final[dict[Split, tuple[int, int]]] = {"train": (9_000, 11), "dev": (300, 12)}
"""How many prompts the pool is asked, and the seed."""
ROOM: Final = 14
"""Bytes of the context that no line of the judge or the router takes up."""


class CrewRecipe(NamedTuple):
    """What a model is, what it sees, and for how long."""

    shape: Shape
    make: Callable[..., Sample]
    """Draws a sample, from a generator of random numbers (and the pool's answers)."""
    steps: int
    minutes: float
    seed: int
    stream: int
    """Seed of what it sees."""
    answers: bool = False
    """Whether `make` takes the pool's answers."""
    rate: float = 1.0
    start: str | None = None
    """The run whose weights it goes on from."""


def _shape(name: str) -> Shape:
    return CREW[f"lab-{name}"].shape


RECIPES: Final[dict[str, CrewRecipe]] = {
    "steps": CrewRecipe(_shape("steps"), partial(step_sample, level_weights=(1, 1, 1.2, 1.4, 1.4)), 6_000, 11.0, 21, 7),
    "step": CrewRecipe(_shape("step"), partial(step_sample, level_weights=(1, 1, 1, 0.6, 0.3)), 2_800, 3.0, 21, 7),
    "judge-first": CrewRecipe(_shape("judge"), judge_sample, 4_300, 12.0, 31, 3, answers=True),
    "judge": CrewRecipe(
        _shape("judge"), near_miss_sample, 12_350, 17.0, 33, 7, answers=True, rate=0.7, start="judge-first"
    ),
    "router-first": CrewRecipe(_shape("router"), partial(router_sample, turns=0.6), 5_000, 9.0, 41, 5, answers=True),
    "router": CrewRecipe(
        _shape("router"),
        partial(router_sample, turns=0.94, shapes=("chain", "mixed", "chain", "parallel")),
        9_000,
        15.0,
        43,
        17,
        answers=True,
        rate=0.7,
        start="router-first",
    ),
}


class Samples(Source):
    """Samples drawn by a rule, and some of the development split to measure on."""

    def __init__(self, make: Make, dev: Sequence[Sample], *, seed: int, context: int) -> None:
        super().__init__(seed)
        self.make = make
        self.dev = [line_of(sample) for sample in dev]
        self.longest = context - ROOM

    def draw(self) -> list[Line]:
        """Return one that fits."""
        sample = self.make(self.rng)
        return [line_of(sample)] if len(sample.prompt) + len(sample.answer) < self.longest else []

    def measure(self, network: torch.nn.Module, device: torch.device, step: int) -> tuple[str, dict[str, Any]]:
        """Return the share that would be answered exactly right."""
        hits = exact(network, self.dev, device)
        share = round(sum(hits) / len(hits), 3)
        return f"{share:.2f}", {"right": share}

    def about(self) -> dict[str, Any]:
        """Nothing that the recipe does not say."""
        return {}


def line_of(sample: Sample) -> Line:
    """Write a sample as bytes: `END prompt mode answer END`."""
    head = [END, *encode(sample.prompt), MODE_BYTES[sample.mode]]
    return Line([*head, *sample.answer.encode(), END], len(head))


def answers(split: Split, folder: Path) -> list[Row]:
    """Return what the pool says to prompts of a split; asked once, then read."""
    n, seed = ANSWERS[split]
    path = folder / f"answers_{split}_{n}_{seed}.jsonl"
    if not path.exists():
        rows = pool_answers(n, seed, split=split)
        write_rows(path, iter(tqdm(rows, total=n, desc=f"the pool's answers ({split})")))
    return read_rows(path)


def dev_samples(name: str, rows: Rows) -> list[Sample]:
    """Draw what a model is measured on while it trains, from development prompts alone."""
    rng = Random(99)
    if name in ("step", "steps"):
        return [Sample(c.prompt, c.working, "scratch") for c in draw_compound(200, 5, split="dev")]
    if name in ("judge-first", "judge"):
        found = rows()
        return [(judge_sample if name == "judge-first" else near_miss_sample)(rng, found) for _ in range(150)]
    if name == "router-first":
        found = rows()
        return [router_sample(rng, found, turns=0.6, split="dev") for _ in range(120)]
    questions = draw_compound(60, 77, split="dev", most_steps=3)
    return [turn for question in questions for turn in episode(question)[1:]][:150]


def train(name: str, options: Any) -> None:
    """Train one model, and first what it starts from."""
    recipe = RECIPES[name]
    checkpoints: Path = options.checkpoints
    out: Path = options.out if f"lab-{name}" in CREW else checkpoints
    if recipe.start is not None and not (checkpoints / f"{recipe.start}.done").exists():
        train(recipe.start, options)
    make: Make = partial(recipe.make, rows=answers("train", checkpoints)) if recipe.answers else recipe.make
    dev = dev_samples(name, lambda: answers("dev", checkpoints))
    run = Run(
        name=name,
        recipe=recipe._replace(steps=max(1, round(recipe.steps * options.minutes_scale))),
        source=Samples(make, dev, seed=recipe.stream, context=recipe.shape.context),
        out=out,
        scratch_dir=checkpoints,
        device=torch.device(options.device),
    )
    if not run.resume() and recipe.start is not None:
        _, arrays, _ = load_weights(checkpoints / f"{recipe.start}.npz")
        run.network.take(arrays)
    run.train(minutes_of(recipe, options))
    (checkpoints / f"{name}.done").touch()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: train the named models, or all of them, one after another."""
    models = [name for name in RECIPES if f"lab-{name}" in CREW]
    options = options_of(arguments, module="fairlead.lab.train_crew", about="Train the lab's crew.", models=models)
    for name in options.model:
        train(name, options)


if __name__ == "__main__":
    main()
