"""How a new target joins with few calls: which prompts to ask it, and what is believed of it then. Ours; the choice is the greedy one of
Bayesian experimental design (Chaloner & Verdinelli 1995) on the belief of `predictors/irt.py` or `predictors/profile.py`; that few
prompts tell a model's score if they are chosen well is from Polo et al. (tinyBenchmarks, 2024, arXiv:2402.14992).

A predictor's `Belief` on the target is a normal distribution with a vector e behind it. Asking prompt q takes told_q told_q' of precision
to e; what is wanted is a small variance of the forecasts over the traffic,

    trace(G Cov(e)),   G = the mean over the traffic of factor_q factor_q'

so each step takes the prompt that lowers it most (A-optimal): with C = Cov(e) its gain is told' C G C told / (1 + told' C told).

Information alone does harm: the prompts that tell most in the eyes of the model are those where the model is most wrong (extreme ones, and
many of one kind). So prompts are dealt into `STRATA` groups of alike ones, each step chooses within the group that is furthest behind its
share of the traffic, and only among `DRAWN` prompts drawn from it. On real outcomes the pure choice was no better than random prompts in error
and its 90% intervals held in 61%. This one was designed on one of two tables, where it is not told apart from random prompts; on the other it is
better (docs/guides/new-target.md has the figures, and how often its intervals hold).
Choosing anew after every few answers helps: `Joining` does.

Shapes: Q prompts, F dimensions of e, S strata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fairlead.errors import FairleadError
from fairlead.predictors.base import Belief, Floats, Predictor
from fairlead.predictors.kmeans import centres, sizes
from fairlead.predictors.statistics import unit
from fairlead.table import NUMBERS, OutcomeTable
from fairlead.types import Outcome, Target

Ints = NDArray[np.int64]

MOST: Final = 30
"""Calls that a new target costs at most."""
BATCH: Final = 5
"""Calls after which the next are chosen anew."""
STRATA: Final = 16
DRAWN: Final = 4
_SEED: Final = 0


def probes(
    predictor: Predictor,
    target: Target,
    prompts: OutcomeTable,
    *,
    n: int = MOST,
    without: Sequence[int] = (),
    seed: int = 0,
) -> list[int]:
    """Choose the prompts to ask `target`, most informative first.

    Args:
        predictor: fitted, and one that keeps a joint belief (`irt`, `profile`).
        target: known to it or not.
        prompts: observed, and like the traffic that is to come. Outcomes of known targets, where it has them, make probes tell more.
        n: how many.
        without: rows that have been asked already.
        seed: of the draws.

    Returns rows of `prompts`, fewer than `n` if there are no more. Of equal prompts one is asked at most.

    Raises:
        NotFitted: if the predictor knows no targets.
        StateError: if it keeps no joint belief.
        TableError: if the prompts have not been observed.
    """
    return _greedy(predictor.belief(target, prompts), _strata(predictor, prompts), prompts.groups, n, without, seed)


def _greedy(belief: Belief, stratum_Q: Ints, groups_Q: Ints, n: int, without: Sequence[int], seed: int) -> list[int]:
    weigh_FF = belief.factor_QF.T @ belief.factor_QF / len(groups_Q)
    share_S = np.bincount(stratum_Q) / len(groups_Q)
    gone = np.asarray(without, dtype=np.int64)
    asked_S = np.bincount(stratum_Q[gone], minlength=len(share_S))
    free_Q = ~np.isin(groups_Q, groups_Q[gone])
    cov_FF, out, rng = np.eye(len(weigh_FF)), list[int](), np.random.default_rng([seed, len(gone)])
    while len(out) < n and free_Q.any():
        behind_S = share_S * (asked_S.sum() + 1.0) - asked_S
        behind_S[np.bincount(stratum_Q[free_Q], minlength=len(share_S)) == 0] = -np.inf
        s = int(behind_S.argmax())
        drawn = rng.permutation(np.flatnonzero(free_Q & (stratum_Q == s)))[:DRAWN]
        told_NF = belief.told_QF[drawn]
        at_NF = told_NF @ cov_FF
        reach_N = 1.0 + (at_NF * told_NF).sum(axis=1)
        best = int((((at_NF @ weigh_FF) * at_NF).sum(axis=1) / reach_N).argmax())
        q = int(drawn[best])
        out.append(q)
        asked_S[s] += 1
        free_Q &= groups_Q != groups_Q[q]
        cov_FF -= np.outer(at_NF[best], at_NF[best]) / reach_N[best]
    return out


class Joining:
    """A target that is being asked, a few prompts at a time: `next` says which, `tell` takes what came back, `predictor` knows it by then.

    Args:
        predictor: fitted; it is not changed.
        target: the new one, with its profile.
        prompts: observed; a column of the target itself is left out. Outcomes of known targets say how hard the prompts are.
        most: calls in all.
        batch: calls after which the next are chosen anew.
        seed: of the draws.

    Raises:
        FairleadError: if the predictor knows the target already.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        target: Target,
        prompts: OutcomeTable,
        most: int = MOST,
        batch: int = BATCH,
        seed: int = 0,
    ) -> None:
        if target.name in predictor.targets_:
            raise FairleadError(f"{target.name} is known already; it goes on learning from feedback, without probes")
        others = [m for m in prompts.models if m != target.name]
        self.before, self.target, self.prompts = predictor, target, prompts.with_models(others)
        self.most, self.batch, self.seed = most, batch, seed
        self.predictor = predictor
        self.outcomes: dict[int, Outcome] = {}
        self._stratum_Q: Ints | None = None

    def next(self) -> list[int]:
        """Return the rows of `prompts` to ask now; none when enough were asked or there are no more."""
        left = min(self.batch, self.most - len(self.outcomes))
        if left <= 0:
            return []
        if self._stratum_Q is None:
            self._stratum_Q = _strata(self.before, self.prompts)
        belief = self.predictor.belief(self.target, self.prompts)
        return _greedy(belief, self._stratum_Q, self.prompts.groups, left, [*self.outcomes], self.seed)

    def tell(self, outcomes: Mapping[int, Outcome]) -> None:
        """Take what came back, by row; `quality` says how good it was, None that nobody could tell (a failed call, say)."""
        self.outcomes = {**self.outcomes, **outcomes}
        if any(o.quality is not None for o in self.outcomes.values()):
            # Anew from the beginning each time: the posterior then does not depend on how the answers were dealt into batches.
            self.predictor = adopt(self.before, self.target, self.prompts, self.outcomes)


def adopt(predictor: Predictor, target: Target, prompts: OutcomeTable, outcomes: Mapping[int, Outcome]) -> Predictor:
    """Return a copy of `predictor` that knows `target` too.

    Args:
        predictor: fitted, and one that learns without a new fit; others: see `filled`.
        target: not known to it.
        prompts: observed. Outcomes of the known targets, where it has them, say how hard the prompts are.
        outcomes: what came back from the target, by row of `prompts`, with `quality`.

    Raises: as `Predictor.adopt` does.
    """
    out = predictor.copy()
    out.adopt(target, with_outcomes(prompts, target.name, outcomes).take([*outcomes]))
    return out


def with_outcomes(prompts: OutcomeTable, name: str, outcomes: Mapping[int, Outcome]) -> OutcomeTable:
    """Return `prompts` with a column of the target `name`, which holds these outcomes by row and else nothing.

    A column of that name that is there already is left out.
    """
    prompts = prompts.with_models([m for m in prompts.models if m != name])
    shape = (len(prompts), 1, prompts.quality_QMS.shape[2])
    columns: dict[str, Any] = {attr: np.full(shape, nan) for attr in NUMBERS.values()}
    present = np.zeros(shape, dtype=np.bool_)
    for q, o in outcomes.items():
        present[q, 0, 0] = True
        tokens = o.tokens
        seen = {
            "quality_QMS": o.quality,
            "usd_QMS": o.usd,
            "seconds_QMS": o.seconds or None,
            "joules_QMS": o.joules,
            "input_tokens_QMS": None if tokens is None else tokens.input,
            "output_tokens_QMS": None if tokens is None else tokens.output,
        }
        for attr, value in seen.items():
            columns[attr][q, 0, 0] = nan if value is None or (o.error and attr != "usd_QMS") else value
    joined: dict[str, Any] = {
        attr: np.concatenate([getattr(prompts, attr), column], axis=1) for attr, column in columns.items()
    }
    return replace(
        prompts,
        models=[*prompts.models, name],
        **joined,
        present_QMS=np.concatenate([prompts.present_QMS, present], axis=1),
        responses_QMS=None,
        extras={},
        text_extras={},
    )


def filled(
    predictor: Predictor, target: Target, prompts: OutcomeTable, outcomes: Mapping[int, Outcome]
) -> OutcomeTable:
    """Return `prompts` with a full column of the target: its outcomes where there are any, the predictor's forecasts elsewhere.

    For methods that learn no target without a new fit (`ridge`, `logistic`, …): fit them on this. Their `quality_sd` is then too small for
    the new target, since forecasts count like answers.
    """
    quality_Q = np.clip(predictor.belief(target, prompts).quality_Q, 0.0, 1.0)
    table = with_outcomes(prompts, target.name, outcomes)
    quality_QMS = table.quality_QMS.copy()
    unknown_Q = np.isnan(quality_QMS[:, -1, 0])
    quality_QMS[unknown_Q, -1, 0] = quality_Q[unknown_Q]
    return replace(table, quality_QMS=quality_QMS)


def _strata(predictor: Predictor, prompts: OutcomeTable) -> Ints:
    """Deal prompts into groups of alike ones, (Q,)."""
    x_QD: Floats = predictor.features.read_all(prompts.observations(predictor.needs))
    _, out = centres(unit(x_QD - x_QD.mean(axis=0)), max(sizes((1, 2, 4, 8, STRATA), len(x_QD))), _SEED)
    return out
