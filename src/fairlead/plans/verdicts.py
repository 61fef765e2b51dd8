"""What judges say, read off their replies: yes or no with a probability, or the number of a candidate. Ours, no paper. 1 µs.

A reply that says neither is no verdict: None, and never taken for yes or for the first candidate.
"""

from __future__ import annotations

import re
from math import exp
from typing import Final

from fairlead.types import Outcome

_YES_NO: Final = re.compile(r"[^A-Za-z]*(yes|no)\b", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\d+")


def chance_of_yes(outcome: Outcome) -> float | None:
    """Return the probability of yes, in [0, 1]: 1 or 0, or by the first token's log-probability where it is known
    and the reply begins with the word. The word itself has the last say: a yes is never less than a half, a no never more, since the rest of
    the probability may lie on other ways to say the same."""
    match = _YES_NO.match(outcome.text) if outcome.ok else None
    if match is None:
        return None
    said = 1.0 if not outcome.logprobs or match.start(1) else max(0.5, exp(min(0.0, outcome.logprobs[0])))
    return said if match[1].lower() == "yes" else 1.0 - said


def picked(outcome: Outcome, candidates: int) -> int | None:
    """Return the index, from 0, of the candidate whose number the reply says first; None if it says none that is there."""
    match = _NUMBER.search(outcome.text) if outcome.ok else None
    number = 0 if match is None else int(match[0][:9])
    return number - 1 if 1 <= number <= candidates else None
