"""The crew: small models that help in plans, beside the five of the pool.

- `lab-step`, `lab-steps`: answer questions of several steps (`fairlead.lab.compound`), working step by step; the small one often goes wrong.
- `lab-judge`: says whether an answer is right (`VERIFY`), which of several is (`PICK`), or gives the right one out of several (`MERGE`).
- `lab-router`: takes a question apart and asks others part by part (`ROUNDS`), names whom to ask (`AGENTS`), and rates how hard a question is (`RATE`).

They learned from the very answers that the pool gives on training prompts, right and wrong (`fairlead.lab.train_crew`). Each knows its formats and
nothing else, to the letter: the prompts below are for plans that call them (`prompt:` of a plan). Prices follow size as in the pool. Measured in
`weights/CREW.md`. Ours, no paper.
"""

from typing import Final

from fairlead.lab.pool import LabModel, LabTarget
from fairlead.lab.shapes import Shape
from fairlead.plans.prompts import Prompt

CREW: Final = {
    model.name: model
    for model in (
        LabModel("lab-step", Shape(48, 2, 2, 384), (), ("direct", "scratch", "working")),
        LabModel("lab-steps", Shape(96, 4, 3, 384), (), ("direct", "scratch", "working")),
        LabModel("lab-judge", Shape(128, 4, 4, 384), ()),
        LabModel("lab-router", Shape(96, 4, 3, 512), ()),
    )
}

TARGETS: Final = (
    LabTarget("lab-step", "lab-step", "working"),
    LabTarget("lab-steps", "lab-steps", "working"),
    LabTarget("lab-judge", "lab-judge"),
    LabTarget("lab-router", "lab-router"),
)
"""How each is asked, where it is served by its own name."""

VERIFY: Final = Prompt(name="lab-verify", text="{question} -> {answer} ok?")
"""Replies ``yes`` or ``no``; the probability of yes is that of the first byte."""
PICK: Final = Prompt(name="lab-pick", text="{question} {answers}", each="[{number}] {text}", between=" ")
"""Replies with the number of a right answer."""
MERGE: Final = Prompt(name="lab-merge", text="{question} | {answers}", each="{text}", between=" | ")
"""Replies with the right answer itself."""
ROUNDS: Final = Prompt(name="lab-rounds", text="{question} {transcript}")
AGENTS: Final = Prompt(name="lab-agents", text="agents for: {question}")
RATE: Final = Prompt(name="lab-rate", text="rate: {question}")
"""Replies ``Easy``, ``Medium`` or ``Hard``."""
