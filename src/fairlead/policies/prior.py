"""What an online policy believes before its first answer. Ours, no paper.

    utility of target k on query x  =  known_k(x) + residual_k

- known_k(x) is what the prior, a predictor, forecasts *without the target's profile*, weighed by the objective: a function of the signals
  alone, so that it can be taken off a reward days later, when the trace is all there is. It is 0 without a prior.
- The residual is what is learned online. Before any answer it is believed to be `offset`, what the profile adds to the forecast: the
  price of a target that the prior has not seen, or (without a prior) all there is, the profile's `quality` (0.5 if nobody measured it)
  less what its prices say an answer costs. The answers outweigh the offset in time; the forecast they only correct.

So with no answer known + offset is the very utility that the policy `utility` would choose by. Every figure is kept twice, for the
utility and for the quality alone, as [utility, quality].

The prior itself learns nothing here: what replicas learn about the same prior adds up, and the order of lessons does not matter.
Cost: one forecast of the prior per decision, and per lesson.

Shapes: K targets, C = 2 figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairlead.errors import StateError
from fairlead.objective import Objective
from fairlead.predictors.base import Predictor
from fairlead.predictors.mean import Mean
from fairlead.types import Forecast, Reward, Signals, Target, Trace

Floats: TypeAlias = NDArray[np.float64]
Pair: TypeAlias = tuple[float, float]
"""Of the utility, and of the quality alone."""


def needs(prior: Predictor | None) -> tuple[str, ...]:
    """Return the signals that beliefs are formed from; without a prior the length, which says what an answer costs."""
    return ("length",) if prior is None else prior.needs


def believed(
    prior: Predictor | None, objective: Objective, signals: Signals, targets: Sequence[Target]
) -> tuple[Floats, Floats]:
    """Return known_KC and offset_KC of `targets`, in their order.

    Raises:
        NotFitted: if the prior needs a fit and has none.
    """
    if prior is None:
        whole = Mean().predict(signals, targets)  # not fitted: what profiles say
        return np.zeros((len(whole), 2)), np.array([_pair(objective, f) for f in whole])
    # One call for both, so that the features are read and weighed once.
    both = prior.predict(signals, (*targets, *(Target(name=t.name) for t in targets)))
    all_KC = np.array([_pair(objective, f) for f in both])
    known_KC = all_KC[len(targets) :]
    return known_KC, all_KC[: len(targets)] - known_KC


def residual(prior: Predictor | None, objective: Objective, trace: Trace, reward: Reward, name: str) -> Pair:
    """Return what `reward` was above what was known of the target `name` on the query of `trace`.

    Raises:
        StateError: if the reward is not finite.
    """
    utility, quality = _pair(objective, reward)
    if not isfinite(utility) or not isfinite(quality):
        raise StateError("an observation that is not finite was refused")
    if prior is None:
        return utility, quality
    known = _pair(objective, prior.predict(trace.signals, (Target(name=name),))[0])
    return utility - known[0], quality - known[1]


def credited(trace: Trace) -> str | None:
    """Return the target that a reward belongs to: the one that was decided on, if it gave the answer.

    None for an answer by a fallback: the spend and the time are also those of the target that failed, and the propensity on record is
    that of the one decided on. None for a plan over several targets: whose answer it kept depended on the answers, and to learn from that
    would flatter the targets that are kept only when they do well.
    """
    decided = trace.decision.plan.targets()
    return decided[0] if decided == (trace.outcome.target,) else None


def check_same(ours: Predictor | None, theirs: Predictor | None) -> None:
    """Raise `StateError` if two learners corrected different priors, so that what they learned does not add up."""
    if ours is not theirs and (ours is None or theirs is None or ours.digest() != theirs.digest()):
        raise StateError("learners that started from different priors cannot be merged; give all replicas the same")


def _pair(objective: Objective, what: Forecast | Reward) -> Pair:
    return objective.utility(what), what.quality
