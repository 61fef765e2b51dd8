"""The lab: a pool of tiny real language models, and the exactly checkable tasks they were trained on.

* `tasks`: fourteen synthetic tasks with one right answer each.
* `pool`: the five shipped models, their prices, and `load`.
* `model`: inference in numpy, with true log-probabilities.
* `table`: outcome tables measured on the pool.
* `compound`: questions of several steps; `eye`: tables as pictures, and their reader; `corpus`: look-ups.
* `crew`: small models that help in plans: two that work step by step, a judge, a router.
* `world`: all of them as a source of outcomes for the replay world.
* `train`, `train_crew`: training from nothing (needs torch); `card`, `crew_card`: the measured model cards.

Importing this package loads no weights; the first `load` does.
"""

from fairlead.lab.model import Completion, Model, Token, load_model, prompt_of
from fairlead.lab.pool import MODELS, TARGETS, LabModel, LabTarget, describe, load
from fairlead.lab.table import OutcomeRow, outcome_table, write_table
from fairlead.lab.tasks import LEVEL_MIX, TASKS, Example, check, draw, make

__all__ = [
    "LEVEL_MIX",
    "MODELS",
    "TARGETS",
    "TASKS",
    "Completion",
    "Example",
    "LabModel",
    "LabTarget",
    "Model",
    "OutcomeRow",
    "Token",
    "check",
    "describe",
    "draw",
    "load",
    "load_model",
    "make",
    "outcome_table",
    "prompt_of",
    "write_table",
]
