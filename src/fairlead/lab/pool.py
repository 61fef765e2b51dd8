"""The five shipped models: names, sizes, fields, prices, and `load`.

Prices are invented but follow size, as real ones roughly do: 1 USD per million completion tokens
for each million parameters, and a quarter of that for prompt tokens.  A token is a byte.

A target is a model and the way it is asked: `lab-numbers-scratch` is `lab-numbers` told to work
before it answers, which costs more tokens and gets more of the sums and stories right.
"""

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from fairlead.lab.model import Model, load_model
from fairlead.lab.shapes import CONTEXT, Mode, Shape
from fairlead.lab.tasks import Field

USD_PER_MILLION_OUTPUT_PER_MILLION_PARAMETERS: Final = 1.0
INPUT_PRICE_SHARE: Final = 0.25

WEIGHTS: Final = Path(__file__).parent / "weights"


class LabModel(NamedTuple):
    """One shipped model, known without reading its weights."""

    name: str
    shape: Shape
    fields: tuple[Field, ...]
    modes: tuple[Mode, ...] = ("direct",)

    @property
    def file(self) -> Path:
        """Its weight file."""
        return WEIGHTS / f"{self.name.removeprefix('lab-')}.npz"

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return self.shape.parameters

    @property
    def context_window(self) -> int:
        """The most bytes of prompt and answer together."""
        return self.shape.context

    @property
    def usd_per_million_output_tokens(self) -> float:
        """Price of what it writes."""
        return USD_PER_MILLION_OUTPUT_PER_MILLION_PARAMETERS * self.parameters / 1e6

    @property
    def usd_per_million_input_tokens(self) -> float:
        """Price of what it reads."""
        return INPUT_PRICE_SHARE * self.usd_per_million_output_tokens

    def cost_usd(self, *, input_tokens: int, output_tokens: int) -> float:
        """Price of one call."""
        return (
            input_tokens * self.usd_per_million_input_tokens + output_tokens * self.usd_per_million_output_tokens
        ) / 1e6


class LabTarget(NamedTuple):
    """A model and the mode it is asked in."""

    name: str
    model: str
    mode: Mode = "direct"


MODELS: Final = {
    model.name: model
    for model in (
        LabModel("lab-nano", Shape(48, 2, 2, CONTEXT), ("numbers", "text")),
        LabModel("lab-small", Shape(64, 3, 2, CONTEXT), ("numbers", "text")),
        LabModel("lab-large", Shape(128, 5, 4, CONTEXT), ("numbers", "text")),
        LabModel("lab-numbers", Shape(96, 4, 3, CONTEXT), ("numbers",), ("direct", "scratch", "working")),
        LabModel("lab-text", Shape(96, 4, 3, CONTEXT), ("text",)),
    )
}

TARGETS: Final = (
    *(LabTarget(name, name) for name in MODELS),
    LabTarget("lab-numbers-scratch", "lab-numbers", "scratch"),
)


def describe(name: str) -> LabModel:
    """The entry of this model, of the pool or of the crew."""
    from fairlead.lab.crew import CREW

    found = MODELS.get(name) or CREW.get(name)
    if found is None:
        raise ValueError(f"unknown lab model {name!r}; the models are {', '.join(names())}")
    return found


def names() -> tuple[str, ...]:
    """Names of all models, of the pool and of the crew."""
    from fairlead.lab.crew import CREW

    return (*MODELS, *CREW)


@cache
def load(name: str) -> Model:
    """The model itself; read from disk once a process."""
    return load_model(describe(name).file, name=name)
