"""Train the lab's models from nothing: `python -m fairlead.lab.train` (needs torch; nothing else does).

The recipe, measured on this kind of machine (one core a process, bfloat16 products):

* **Loss on the answer only**, 2,048 tokens a step in two length-sorted micro-batches, so that
  nearly every position is useful and the causal mask is the only one.
* **Muon** (Jordan et al. 2024, as `torch.optim.Muon` with `match_rms_adamw`) at 5e-3 on the
  matrices and AdamW at 3e-3 on embedding and convolutions: twice the accuracy of AdamW alone in
  the same time.
* **A causal convolution over the three previous bytes** before each layer.
* **A curriculum**: every `CURRICULUM_STEPS` steps each cell (task x level) is measured on
  development prompts and weighted .25 + 2.2 (1 - x)(.15 + x), x its accuracy, once the level below
  passes .3; every cell keeps at least .25.
* **bfloat16 products with float32 masters** where the processor has the instructions, else float32
  (about three times slower).

The rate follows a cosine to 2% of max(step / steps, elapsed / minutes): with a clock limit the run
ends on time on a slow machine; without one (`--no-clock`) it repeats itself exactly for a seed.
Runs resume from a checkpoint written once a minute.
"""

import argparse
import json
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from fairlead.lab.shapes import (
    CONVOLUTION,
    END,
    MODE_BYTES,
    NORM_EPSILON,
    ROTARY_BASE,
    VOCABULARY,
    Shape,
    encode,
    save_weights,
)
from fairlead.lab.tasks import LEVELS, TASKS, Example, make_in, tasks_of

WEIGHTS: Final = Path(__file__).parent / "weights"

MUON_RATE: Final = 5e-3
ADAMW_RATE: Final = 3e-3
WARM_UP_STEPS: Final = 150
LAST_RATE: Final = 0.02
MICRO_TOKENS: Final = 1024
MICRO_BATCHES: Final = 2
POOL_BATCHES: Final = 16
CURRICULUM_STEPS: Final = 500
DEV_PER_CELL: Final = 8
CHECKPOINT_SECONDS: Final = 60.0
# Answer tokens a micro-batch holds on average: a constant divisor keeps a batch of long
# answers worth more than one of short ones.
ANSWER_TOKENS: Final = 200.0

Cell = tuple[str, int]


class Recipe(NamedTuple):
    """What a model is, what it sees, and for how long."""

    shape: Shape
    tasks: tuple[str, ...]
    level_weights: tuple[float, ...]
    scratch_share: float
    steps: int
    minutes: float
    seed: int
    # Of the rates above: the longer the run, the lower the best rate.
    rate: float = 1.0


RECIPES: Final[dict[str, Recipe]] = {
    "nano": Recipe(Shape(48, 2, 2), TASKS, (1.0, 1.0, 0.5, 0.2, 0.05), 0.0, 3_000, 4.0, 11),
    "small": Recipe(Shape(64, 3, 2), TASKS, (1.0, 1.0, 1.0, 0.5, 0.1), 0.0, 3_500, 5.0, 12),
    "text": Recipe(Shape(96, 4, 3), tasks_of("text"), (1.0, 1.0, 1.0, 1.0, 1.2), 0.0, 30_000, 17.0, 13),
    "numbers": Recipe(Shape(96, 4, 3), tasks_of("numbers"), (1.0, 1.0, 1.0, 1.0, 1.0), 0.3, 75_000, 44.0, 14, 0.6),
    "large": Recipe(Shape(128, 5, 4), TASKS, (1.0, 1.0, 1.0, 0.8, 0.1), 0.0, 70_000, 73.0, 15, 0.6),
}


class Network(torch.nn.Module):
    """The transformer, its matrices kept float32 and used in `precision`."""

    def __init__(self, *, shape: Shape, precision: torch.dtype) -> None:
        super().__init__()
        self.shape = shape
        self.precision = precision
        width, layers = shape.width, shape.layers

        def matrix(rows: int, columns: int, scale: float) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(rows, columns) * scale / math.sqrt(columns))

        self.embed = torch.nn.Parameter(torch.randn(VOCABULARY, width) / math.sqrt(width))
        self.conv = torch.nn.ParameterList(
            torch.nn.Parameter(0.1 * torch.randn(CONVOLUTION, width)) for _ in range(layers)
        )
        self.qkv = torch.nn.ParameterList(matrix(3 * width, width, 1.0) for _ in range(layers))
        # Zero at the start: each layer begins as the identity.
        self.out = torch.nn.ParameterList(matrix(width, width, 0.0) for _ in range(layers))
        self.up = torch.nn.ParameterList(matrix(4 * width, width, 1.0) for _ in range(layers))
        self.down = torch.nn.ParameterList(matrix(width, 4 * width, 0.0) for _ in range(layers))
        half = shape.head_width // 2
        angle = torch.arange(shape.context)[:, None] * ROTARY_BASE ** (-torch.arange(half) / half)
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Logits for the next byte at every position, (B, T, V) float32."""
        batch, length = tokens_BT.shape
        shape = self.shape
        heads, head_width = shape.heads, shape.head_width
        cos = self.cosine[:length]
        sin = self.sine[:length]
        ahead = torch.ones(length, length, dtype=torch.bool, device=tokens_BT.device).triu(1)

        def norm(x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPSILON)

        def rotate(x_BHTK: torch.Tensor) -> torch.Tensor:
            one, two = x_BHTK.chunk(2, dim=-1)
            return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)

        x = norm(self.embed[tokens_BT])
        for conv, qkv, out, up, down in zip(self.conv, self.qkv, self.out, self.up, self.down, strict=True):
            padded = F.pad(norm(x), (0, 0, CONVOLUTION, 0))
            for back in range(1, CONVOLUTION + 1):
                start = CONVOLUTION - back
                x = x + conv[back - 1] * padded[:, start : start + length]
            y = norm(x).to(self.precision) @ qkv.to(self.precision).T
            q, k, v = y.view(batch, length, 3, heads, head_width).permute(2, 0, 3, 1, 4).unbind(0)
            q = rotate(q.float()).to(self.precision)
            k = rotate(k.float()).to(self.precision)
            scores = (q @ k.transpose(-1, -2)).float() * head_width**-0.5
            weights = scores.masked_fill(ahead, -1e9).softmax(-1).to(self.precision)
            mixed = (weights @ v).transpose(1, 2).reshape(batch, length, shape.width)
            x = x + (mixed @ out.to(self.precision).T).float()
            hidden = F.relu(norm(x).to(self.precision) @ up.to(self.precision).T).square()
            x = x + (hidden @ down.to(self.precision).T).float()
        return (norm(x).to(self.precision) @ self.embed.to(self.precision).T).float()

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The weights as the file wants them, layers stacked."""
        stacked = {
            name: torch.stack([p.detach().cpu() for p in getattr(self, name)]).numpy()
            for name in ("conv", "qkv", "out", "up", "down")
        }
        return {"embed": self.embed.detach().cpu().numpy(), **stacked}

    @torch.no_grad()
    def take(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """Start from the weights of a file."""
        self.embed.copy_(torch.from_numpy(arrays["embed"]))
        for name in ("conv", "qkv", "out", "up", "down"):
            for parameter, array in zip(getattr(self, name), arrays[name], strict=True):
                parameter.copy_(torch.from_numpy(array))


class Line(NamedTuple):
    """One training sequence: its bytes and where the loss begins."""

    codes: list[int]
    answer_at: int


def sequence_of(example: Example, *, scratch: bool) -> Line:
    """`END prompt mode answer END`; a task without scratch work has an empty scratch part."""
    head = [END, *encode(example.prompt), MODE_BYTES["scratch" if scratch else "direct"]]
    answer = (example.scratch_answer or f">{example.answer}") if scratch else example.answer
    return Line([*head, *answer.encode(), END], len(head))


def collate(sequences: Sequence[Line]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded inputs and targets; -100 where there is no loss."""
    longest = max(len(sequence.codes) for sequence in sequences) - 1
    inputs = np.full((len(sequences), longest), END, dtype=np.int64)
    targets = np.full((len(sequences), longest), -100, dtype=np.int64)
    for row, (codes, answer_at) in enumerate(sequences):
        size = len(codes) - 1
        inputs[row, :size] = codes[:-1]
        targets[row, answer_at - 1 : size] = codes[answer_at:]
    return torch.from_numpy(inputs), torch.from_numpy(targets)


class Source(ABC):
    """Where a run's micro-batches come from, and how it is measured."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.waiting: list[list[Line]] = []

    @abstractmethod
    def draw(self) -> list[Line]:
        """Return some new sequences."""

    @abstractmethod
    def measure(self, network: torch.nn.Module, device: torch.device, step: int) -> tuple[str, dict[str, Any]]:
        """Measure on development prompts: what to show, and what to log."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What the weight file says of the data."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rng": self.rng.getstate(), "waiting": [[tuple(line) for line in batch] for batch in self.waiting]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rng.setstate(state["rng"])
        self.waiting = [[Line(*line) for line in batch] for batch in state["waiting"]]

    def _refill(self) -> None:
        sequences: list[Line] = []
        tokens = 0
        while tokens < MICRO_TOKENS * POOL_BATCHES:
            for sequence in self.draw():
                sequences.append(sequence)
                tokens += len(sequence.codes) - 1
        sequences.sort(key=lambda sequence: len(sequence.codes))
        batch: list[Line] = []
        for sequence in sequences:
            if batch and (len(batch) + 1) * (len(sequence.codes) - 1) > MICRO_TOKENS:
                self.waiting.append(batch)
                batch = []
            batch.append(sequence)
        self.waiting.append(batch)
        self.rng.shuffle(self.waiting)

    def next_batch(self) -> list[Line]:
        """One micro-batch of sequences of about the same length."""
        if not self.waiting:
            self._refill()
        return self.waiting.pop()


class Curriculum(Source):
    """The fourteen tasks: weights over cells, and sequences drawn by them."""

    def __init__(self, *, recipe: Recipe) -> None:
        super().__init__(recipe.seed)
        self.recipe = recipe
        self.cells: list[Cell] = [(task, level) for task in recipe.tasks for level in LEVELS]
        self.accuracy: dict[Cell, float] = dict.fromkeys(self.cells, 0.0)

    def weights(self) -> list[float]:
        """The curriculum's weight of each cell, times the recipe's weight of its level."""
        weights = []
        for task, level in self.cells:
            x = self.accuracy[task, level]
            ready = level == 1 or self.accuracy[task, level - 1] > 0.3
            weight = 0.25 + (2.2 * (1 - x) * (0.15 + x) if ready else 0.0)
            if (task, level) == ("multiply", 5):
                # Out of reach without scratch work: kept as prompts nobody can do.
                weight = 0.15
            weights.append(weight * self.recipe.level_weights[level - 1])
        return weights

    def update(self, measured: dict[Cell, float]) -> None:
        """Take in new accuracies, half old and half new because each is of few prompts."""
        for cell, value in measured.items():
            self.accuracy[cell] = 0.5 * (self.accuracy[cell] + value)

    def draw(self) -> list[Line]:
        """Return sequences of 64 cells."""
        sequences = []
        for task, level in self.rng.choices(self.cells, weights=self.weights(), k=64):
            example = make_in(task, level, self.rng, split="train")
            sequences.append(sequence_of(example, scratch=self.rng.random() < self.recipe.scratch_share))
        return sequences

    def measure(self, network: torch.nn.Module, device: torch.device, step: int) -> tuple[str, dict[str, Any]]:
        """Measure every cell, and weigh them anew."""
        examples: list[Example] = []
        rng = random.Random(self.recipe.seed * 1_000_003 + step)
        for task, level in self.cells:
            examples += [make_in(task, level, rng, split="dev") for _ in range(DEV_PER_CELL)]
        measured = measure(network, examples, device)
        self.update(measured)
        tasks = self.recipe.tasks
        levels = [round(sum(measured[task, level] for task in tasks) / len(tasks), 3) for level in LEVELS]
        by_task = {task: [round(100 * self.accuracy[task, level]) for level in LEVELS] for task in tasks}
        return " ".join(f"{level:.2f}" for level in levels), {"levels": levels, "tasks": by_task}

    def about(self) -> dict[str, Any]:
        """Tasks, weights of levels, share of scratch work."""
        return {
            "tasks": list(self.recipe.tasks),
            "level_weights": list(self.recipe.level_weights),
            "scratch_share": self.recipe.scratch_share,
        }

    def state(self) -> dict[str, Any]:
        """The accuracies too."""
        return {**super().state(), "accuracy": self.accuracy}

    def restore(self, state: dict[str, Any]) -> None:
        """The accuracies too."""
        super().restore(state)
        self.accuracy = state["accuracy"]


def batched(sequences: list[Line], tokens: int) -> Iterator[list[int]]:
    """Indices of `sequences` by length, in batches of about `tokens` positions."""
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].codes))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * len(sequences[index].codes) > tokens:
            yield batch
            batch = []
        batch.append(index)
    yield batch


@torch.no_grad()
def exact(network: torch.nn.Module, sequences: list[Line], device: torch.device) -> list[bool]:
    """Whether each greedy answer is exactly the right one.

    One forward pass over the right answers suffices: greedy decoding gives exactly the answer
    if and only if every byte of it is the likeliest after the ones before.
    """
    right = [False] * len(sequences)
    for batch in batched(sequences, 4096):
        inputs, targets = collate([sequences[index] for index in batch])
        best = network(inputs.to(device)).argmax(-1).cpu()
        hit = ((best == targets) | (targets == -100)).all(-1)
        for index, value in zip(batch, hit.tolist(), strict=True):
            right[index] = value
    return right


def measure(network: torch.nn.Module, examples: list[Example], device: torch.device) -> dict[Cell, float]:
    """Exact-match accuracy of greedy answers by cell."""
    right: dict[Cell, list[bool]] = {}
    hits = exact(network, [sequence_of(example, scratch=False) for example in examples], device)
    for example, hit in zip(examples, hits, strict=True):
        right.setdefault((example.task, example.level), []).append(hit)
    return {cell: sum(values) / len(values) for cell, values in right.items()}


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 natively."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class Run:
    """One model's training: state, step, checkpoint, export.

    Of the recipe it reads shape, steps, seed and rate; what is learned comes from `source`.
    """

    def __init__(
        self, *, name: str, recipe: Any, source: Source, out: Path, scratch_dir: Path, device: torch.device
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.out = out
        self.checkpoint = scratch_dir / f"{name}.pt"
        self.log = scratch_dir / f"{name}.jsonl"
        self.device = device
        self.step = 0
        self.tokens = 0
        self.elapsed = 0.0
        torch.manual_seed(recipe.seed)
        precision = torch.bfloat16 if device.type == "cuda" or has_fast_bfloat16() else torch.float32
        self.network = Network(shape=recipe.shape, precision=precision).to(device)
        self.forward = torch.compile(self.network, dynamic=True)
        names = ("qkv", "out", "up", "down")
        matrices = [p for name_ in names for p in getattr(self.network, name_)]
        self.optimizers = (
            torch.optim.Muon(matrices, lr=MUON_RATE, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [self.network.embed, *self.network.conv], lr=ADAMW_RATE, betas=(0.9, 0.98), weight_decay=0.0
            ),
        )
        self.source = source

    def progress(self, minutes: float | None) -> float:
        """How much of the run is done, by steps or by the clock, whichever is further."""
        by_clock = self.elapsed / (60 * minutes) if minutes else 0.0
        return min(1.0, max(self.step / self.recipe.steps, by_clock))

    def one_step(self, rate: float) -> float:
        """One optimizer step; returns its loss per answer byte."""
        total = torch.zeros((), device=self.device)
        answer_tokens = 0
        for _ in range(MICRO_BATCHES):
            inputs, targets = collate(self.source.next_batch())
            logits = self.forward(inputs.to(self.device))
            loss = F.cross_entropy(
                logits.view(-1, VOCABULARY),
                targets.to(self.device).view(-1),
                ignore_index=-100,
                reduction="sum",
            )
            (loss / (ANSWER_TOKENS * MICRO_BATCHES)).backward()
            total += loss.detach()
            answer_tokens += int((targets != -100).sum())
            self.tokens += inputs.numel()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer, base in zip(self.optimizers, (MUON_RATE, ADAMW_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(total) / answer_tokens

    def save(self) -> None:
        """Write the checkpoint in one move."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "network": self.network.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                **self.source.state(),
                "step": self.step,
                "tokens": self.tokens,
                "elapsed": self.elapsed,
            },
            partial,
        )
        partial.replace(self.checkpoint)

    def resume(self) -> bool:
        """Continue from the checkpoint if there is one."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.source.restore(state)
        self.step, self.tokens, self.elapsed = state["step"], state["tokens"], state["elapsed"]
        return True

    def export(self) -> None:
        """Write the weight file that serving reads."""
        about = {
            "name": self.name,
            "steps": self.step,
            "tokens": self.tokens,
            "minutes": round(self.elapsed / 60, 1),
            "seed": self.recipe.seed,
            **self.source.about(),
        }
        save_weights(self.out / f"{self.name}.npz", shape=self.recipe.shape, arrays=self.network.arrays(), about=about)

    def measure_and_log(self, loss: float) -> str:
        """Measure on development prompts, and append to the log."""
        shown, found = self.source.measure(self.network, self.device, self.step)
        line = {
            "step": self.step,
            "tokens": self.tokens,
            "minutes": round(self.elapsed / 60, 2),
            "loss": round(loss, 4),
            **found,
        }
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return shown

    def train(self, minutes: float | None) -> None:
        """Train to the end of the schedule, with a progress bar, and export."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        mark = saved = time.monotonic()
        loss = math.log(VOCABULARY)
        shown = ""
        with tqdm(total=1.0, desc=self.name, bar_format="{l_bar}{bar}| {elapsed} {postfix}", mininterval=5) as bar:
            done = self.progress(minutes)
            bar.update(done)
            while done < 1.0:
                rate = self.recipe.rate * min(1.0, (self.step + 1) / WARM_UP_STEPS)
                rate *= LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))
                loss = 0.98 * loss + 0.02 * self.one_step(rate)
                if self.step % CURRICULUM_STEPS == 0:
                    shown = self.measure_and_log(loss)
                now = time.monotonic()
                self.elapsed += now - mark
                mark = now
                if now - saved > CHECKPOINT_SECONDS:
                    self.save()
                    self.export()
                    saved = now
                bar.set_postfix_str(f"step {self.step} loss {loss:.3f} right {shown}", refresh=False)
                progress = self.progress(minutes)
                bar.update(progress - done)
                done = progress
        self.measure_and_log(loss)
        self.save()
        self.export()


def options_of(
    arguments: Sequence[str] | None, *, module: str, about: str, models: Sequence[str]
) -> argparse.Namespace:
    """Read the command line of a training: which models, how long, where to."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--model", nargs="+", choices=sorted(models), default=list(models))
    parser.add_argument("--minutes-scale", type=float, default=1.0, help="scale every model's steps and minutes")
    parser.add_argument("--minutes", type=float, help="wall-clock limit of each model, instead of the recipe's")
    parser.add_argument("--no-clock", action="store_true", help="run by steps alone (repeats itself for a seed)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where weight files go")
    parser.add_argument("--checkpoints", type=Path, default=Path(".lab"), help="where checkpoints and logs go")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    return options


def minutes_of(recipe: Any, options: argparse.Namespace) -> float | None:
    """How long a model is trained; None without a clock."""
    return None if options.no_clock else options.minutes or recipe.minutes * options.minutes_scale


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: train the named models, or all of them, one after another."""
    about = "Train the lab's models."
    options = options_of(arguments, module="fairlead.lab.train", about=about, models=list(RECIPES))
    for name in options.model:
        recipe = RECIPES[name]
        recipe = recipe._replace(steps=max(1, round(recipe.steps * options.minutes_scale)))
        minutes = minutes_of(RECIPES[name], options)
        run = Run(
            name=name,
            recipe=recipe,
            source=Curriculum(recipe=recipe),
            out=options.out,
            scratch_dir=options.checkpoints,
            device=torch.device(options.device),
        )
        run.resume()
        run.train(minutes)


if __name__ == "__main__":
    main()
