"""Logs for off-policy evaluation: a store's traces with their judgements, or a table with a column of propensities.

The new policy is asked on what was recorded: the signals, the constraints, identity, arrival number and spend of the query, and who was
eligible. It sees no text and does not learn on the way. A target that the log never had in its pool is offered to it as well: what it
would give to that target then shows as lack of overlap. A *shadow* proposal (`Decision.shadow`) needs no asking.

What counts as the outcome of a decision:

- quality: the mean of the judgements that stand, one per source. Where there are none and the calls failed, it is 0 (nobody judges what
  did not come), but not known if the client went away or the request itself was wrong.
- usd, seconds, joules: of all calls together, as rewards count them.
- **Fallbacks.** If the chosen plan failed before its first byte and another took over, what came is still what the *decision* brought,
  time and spend of the failed call included, and the propensity is that of the decision. So by default it is credited to the decision,
  which is right as long as the new policy would be served with the same fallbacks. Leaving such decisions out flatters targets that
  often fail: their failures vanish from the record. Both are counted.

Decisions of one episode, one session, or on the same prompt may hang together and share a group: they stay in one fold, and intervals take
them as one draw.

Shapes: Q decisions, A options, M models of a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from fairlead import rewards
from fairlead.bench.off_policy import OUTCOMES, Log
from fairlead.build import build
from fairlead.errors import NoEligibleTarget, TableError
from fairlead.plans.fallback import Fallback
from fairlead.plans.single import Single
from fairlead.policies.base import Policy
from fairlead.pool import Eligibility, Pool
from fairlead.predictors.base import Predictor
from fairlead.predictors.calibration import folds
from fairlead.signals.base import Observer
from fairlead.store import Store
from fairlead.table import Floats, Ints, OutcomeTable, prompt_hash
from fairlead.types import EVIDENCE, Feedback, Option, Plan, Query, Signals, Target, Trace

NOBODY = "(refused)"
"""The option of a policy that lets nobody answer."""
NOT_ITS_FAULT = ("client_gone", "bad_request")
"""Failures that say nothing of the answer's quality."""


class Proposer(ABC):
    """Says what the new policy would have proposed."""

    lacking: ClassVar[str]
    """Why a decision is left out, where it cannot say."""

    @abstractmethod
    def __call__(self, trace: Trace) -> Sequence[Option] | None:
        """Return options with probabilities; empty if it would have refused; None if that cannot be said."""


class Shadowed(Proposer):
    """Reads off the record what a policy that decides but does not serve proposed."""

    lacking: ClassVar[str] = "without a shadow proposal"

    def __call__(self, trace: Trace) -> Sequence[Option] | None:
        """Return the recorded shadow options."""
        return trace.decision.shadow or None


class Asked(Proposer):
    """Asks a policy on the recorded signals and eligible targets.

    Args:
        policy: the new one, as it would start to serve.
        store: where the pools of the decisions are.
        targets: those that it would serve with, if they differ from the log's. One that a decision's pool did not have is offered too,
            as is one that the policy names: left out, the policy would quietly do with others.
    """

    lacking: ClassVar[str] = "without a signal that the new policy reads"

    def __init__(self, policy: Policy, store: Store, *, targets: Iterable[Target] | None = None) -> None:
        self.policy, self.store = policy, store
        self.targets = None if targets is None else tuple(targets)
        self._pools: dict[str, tuple[Target, ...]] = {}

    def __call__(self, trace: Trace) -> Sequence[Option] | None:
        """Ask it. Raises `StoreError` if the decision's pool is not in the store."""
        if not trace.signals.readings.keys() >= set(self.policy.needs):
            return None
        d = trace.decision
        targets = self.targets
        if targets is None:
            if d.pool_digest not in self._pools:
                pool = self.store.load_pool(d.pool_digest)
                self._pools[d.pool_digest] = (*pool, *_strangers(self.policy, {t.name for t in pool}))
            targets = self._pools[d.pool_digest]
        # Of those that the log's pool had, the record says who was eligible; of others the query does.
        others = Pool(targets=(t for t in targets if t.name not in d.eligible and t.name not in d.excluded))
        offered = (*(t for t in targets if t.name in d.eligible), *others.eligible(trace.query).targets)
        if not offered:
            return ()
        try:
            eligible = Eligibility(targets=offered, excluded=d.excluded)
            return self.policy.decide(trace.query, trace.signals, Pool(targets=offered), eligible=eligible).options
        except NoEligibleTarget:
            return ()


def _strangers(policy: Policy, known: Container[str]) -> tuple[Target, ...]:
    """Return the targets that a policy names and the log does not know."""
    named = {name: None for _, part in policy.walk() if isinstance(part, Policy) for _, name in part.names}
    return tuple(Target(name=name) for name in named if name not in known)


class _Rows:
    """Collects decisions; gives each plan a number."""

    def __init__(self) -> None:
        self.plans: dict[Plan | str, int] = {}
        self.chosen: list[int] = []
        self.logged: list[dict[int, float]] = []
        self.new: list[dict[int, float]] = []

    def add(self, logged: Sequence[Option], chosen: int, new: Sequence[Option]) -> None:
        self.logged.append(self._numbered(logged))
        self.new.append(self._numbered(new))
        self.chosen.append(self.plans[logged[chosen].plan])

    def _numbered(self, options: Sequence[Option]) -> dict[int, float]:
        if not options:
            return {self.plans.setdefault(NOBODY, len(self.plans)): 1.0}
        total = sum(o.probability for o in options)
        return {self.plans.setdefault(o.plan, len(self.plans)): o.probability / total for o in options}

    def dense(self, rows: list[dict[int, float]]) -> Floats:
        out = np.zeros((len(rows), len(self.plans)))
        for q, row in enumerate(rows):
            out[q, list(row)] = list(row.values())
        return out

    def names(self) -> tuple[str, ...]:
        """A target's name for a single call; else the kind of plan and its targets, numbered where several are called alike."""
        seen: Counter[str] = Counter()
        out = []
        for plan in self.plans:
            match plan:
                case str():
                    name = plan
                case Single():
                    name = plan.target
                case _:
                    name = f"{msgspec.to_builtins(plan)['kind']} {' > '.join(plan.targets())}"
            seen[name] += 1
            out.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
        return tuple(out)


def from_store(
    store: Store,
    new: Proposer,
    *,
    route: str = "auto",
    fallbacks: Literal["credit", "leave-out"] = "credit",
    source: str = "",
) -> Log:
    """Read a route's decisions with what they brought. Blocks: reads the whole store.

    Args:
        store: traces and judgements.
        new: says what the new policy would have proposed.
        route: whose decisions count.
        fallbacks: whether an answer by another than the chosen plan is credited to the decision, or the decision is left out.
        source: shown with the result.

    Raises `TableError` if no decision is left to evaluate on; the message counts why.
    """
    rows, left_out, odd = _Rows(), Counter[str](), Counter[str]()
    outcomes: dict[str, list[float]] = {what: [] for what in OUTCOMES}
    keys: list[str] = []
    signals: list[Signals] = []
    for trace in store.traces():
        d = trace.decision
        if trace.query.route != route:
            left_out["of other routes"] += 1
            continue
        if not d.options:
            left_out["refused, since nobody was eligible"] += 1
            continue
        if trace.acts and not trace.steps:
            left_out["answered or stopped by an action, so by no target"] += 1
            continue
        took_over = _took_over(trace)
        if took_over and fallbacks == "leave-out":
            left_out["answered by a fallback"] += 1
            continue
        proposed = new(trace)
        if proposed is None:
            left_out[new.lacking] += 1
            continue
        rows.add(d.options, d.chosen, proposed)
        signals.append(trace.signals)
        keys.append(_group(trace))
        judged = store.feedback(trace.id)
        odd["answered by a fallback, credited to the decision"] += took_over
        quality = _quality(trace, judged)
        odd["failed, quality 0"] += quality == 0.0 and not judged
        odd["judged by less than half a judgement, left out of quality"] += bool(judged) and np.isnan(quality)
        got = rewards.reward(trace, Feedback(trace_id=trace.id, value=quality))
        for what in OUTCOMES:
            amount = getattr(got, what)
            outcomes[what].append(np.nan if amount is None or (what == "joules" and not trace.steps) else amount)
    _, groups_Q = np.unique(np.asarray(keys, dtype=object), return_inverse=True)
    return Log(
        actions=rows.names(),
        chosen_Q=np.asarray(rows.chosen, dtype=np.int64),
        logged_QA=rows.dense(rows.logged),
        new_QA=rows.dense(rows.new),
        outcomes={what: np.asarray(values) for what, values in outcomes.items()},
        groups_Q=groups_Q,
        signals=tuple(signals),
        left_out=dict(left_out),
        notes=tuple(f"{n} decisions {what}" for what, n in odd.items() if n),
        source=source,
    )


def from_table(
    table: OutcomeTable,
    policy: Policy,
    *,
    targets: Iterable[Target] = (),
    column: str = "propensity",
    observer: Observer | None = None,
) -> Log:
    """Read a logged table: one answer per query, with the probability of having asked that model in `column`.

    A query may also have rows of models that were not asked, which hold nothing but their probability. Where it has none, the rest is spread
    over the other models as often as they were asked elsewhere; only the account of overlap, and `switch`, rest on that.

    Args:
        table: the log; prompts are needed if the policy reads signals.
        policy: the new one; each model of the table and of `targets` is eligible.
        targets: profiles, and targets that the log does not have.
        column: the table's own column.
        observer: signals to read; None: those in the catalogue, by their names.

    Raises:
        TableError: if the propensities do not make a log.
        UnknownName: if there is no such column.
    """
    p_QM = table.extra(column)[:, :, 0]
    told_QM = ~(np.isnan(table.quality_QM) & np.isnan(table.usd_QM) & np.isnan(table.seconds_QM))
    present_QM = table.present_QMS[:, :, 0]
    alone_Q1 = present_QM.sum(axis=1, keepdims=True) == 1
    asked_QM = np.where(alone_Q1, present_QM, told_QM)
    several = int((asked_QM.sum(axis=1) > 1).sum())
    if several:
        raise TableError(
            f"{several} queries have answers of several models: that is no log; compare with `fairlead bench`"
        )
    kept = np.flatnonzero((asked_QM & ~np.isnan(p_QM)).any(axis=1))
    left_out = {} if len(kept) == len(table) else {f"without an answer or its {column}": len(table) - len(kept)}
    table, p_QM, asked_QM = table.take(kept), p_QM[kept], asked_QM[kept]
    if not len(table):
        raise TableError(f"no query has an answer and its {column}")
    chosen_Q = asked_QM.argmax(axis=1)
    rows = np.arange(len(table))
    if not ((p_QM[rows, chosen_Q] > 0.0) & (p_QM[rows, chosen_Q] <= 1.0)).all():
        raise TableError(
            f"{column} must lie above 0, and not above 1, for every answer: it is how likely that answer was asked for"
        )
    by_name = {t.name: t for t in targets}
    offered = [by_name.get(m, Target(name=m)) for m in table.models]
    offered += [t for name, t in by_name.items() if name not in table.models]
    offered += _strangers(policy, {t.name for t in offered})
    logged_QA = np.zeros((len(table), len(offered)))
    logged_QA[:, : len(table.models)] = _filled(p_QM, chosen_Q, column)

    if policy.needs:
        observer = observer or Observer(signals={name: build("signals", name) for name in policy.needs})
        table = table.observed(observer, policy.needs)
    pool, found = Pool(targets=offered), _Rows()
    for t in offered:  # so that options are numbered in the order of the columns
        found.plans[Single(target=t.name)] = len(found.plans)
    queries = table.queries() if policy.needs else _blank(table)
    for query, signals in zip(queries, table.observations(policy.needs), strict=True):
        try:
            options: Sequence[Option] = policy.decide(query, signals, pool).options
        except NoEligibleTarget:
            options = ()
        found.new.append(found._numbered(options))
    new_QA = found.dense(found.new)
    return Log(
        actions=found.names(),
        chosen_Q=chosen_Q,
        logged_QA=np.pad(logged_QA, ((0, 0), (0, new_QA.shape[1] - logged_QA.shape[1]))),
        new_QA=new_QA,
        outcomes={what: getattr(table, f"{what}_QM")[rows, chosen_Q] for what in OUTCOMES},
        groups_Q=table.groups,
        signals=tuple(table.signals or ()),
        left_out=left_out,
        source=table.source,
    )


def forecasts(log: Log, spec: Any, *, seed: int = 0) -> dict[str, Floats]:
    """Forecast quality, USD and seconds of every option, each a target to it, by a predictor that has not seen the decision: (Q, A) each.

    Args:
        log: decisions with their signals.
        spec: a predictor as a config writes it.
        seed: of the folds; the one that is given to `evaluate`.

    Raises:
        TableError: if the log lacks signals that the predictor reads.
    """
    predictor: Predictor = build("predictors", spec)
    lacking = {n for n in predictor.needs if not log.signals or any(n not in s.readings for s in log.signals)}
    if lacking:
        raise TableError(
            f"{predictor.type_name()} reads the signals {', '.join(sorted(lacking))}, which the log does not hold throughout"
        )
    ids = [str(q) for q in range(len(log.chosen_Q))]
    nothing = np.full(len(ids), np.nan)
    table = replace(
        OutcomeTable.from_columns(
            {
                "query_id": ids,
                "model": [log.actions[a] for a in log.chosen_Q],
                "quality": log.outcomes.get("quality", nothing),
                "cost_usd": log.outcomes.get("usd", nothing),
                "latency_s": log.outcomes.get("seconds", nothing),
            }
        ),
        signals=list(log.signals),
    )
    targets = [Target(name=name) for name in log.actions]
    shape = log.logged_QA.shape
    out = {what: np.full(shape, np.nan) for what in ("quality", "usd", "seconds")}
    fold_Q = folds(log.groups_Q, seed=seed)
    for f in range(int(fold_Q.max()) + 1):
        fitted = predictor.copy()
        fitted.fit(table.take(np.flatnonzero(fold_Q != f)))
        for q in np.flatnonzero(fold_Q == f).tolist():
            for a, forecast in enumerate(fitted.predict(log.signals[q], targets)):
                for what, f_QA in out.items():
                    if (amount := getattr(forecast, what)) is not None:
                        f_QA[q, a] = amount
    return {what: f_QA for what, f_QA in out.items() if not np.isnan(f_QA).any()}


def _filled(p_QM: Floats, chosen_Q: Ints, column: str) -> Floats:
    """Return the probabilities of all models, those that are not told spread as the models were asked elsewhere."""
    count_M = np.bincount(chosen_Q, minlength=p_QM.shape[1]).astype(np.float64)
    untold_QM = np.isnan(p_QM)
    p_QM = np.where(untold_QM, 0.0, p_QM)
    rest_Q = 1.0 - p_QM.sum(axis=1)
    whole_Q = ~untold_QM.any(axis=1)
    if (np.abs(rest_Q[whole_Q]) > 1e-3).any() or (rest_Q < -1e-3).any():
        raise TableError(f"the column {column} of a query sums to more than 1, or to less over all models")
    share_QM = untold_QM * count_M
    total_Q = share_QM.sum(axis=1)
    if (rest_Q[total_Q == 0.0] > 1e-3).any():
        raise TableError(
            f"the column {column} leaves probability to other models, but no answer of another is in the table"
        )
    filled_QM = p_QM + share_QM * (np.maximum(rest_Q, 0.0) / np.maximum(total_Q, 1.0))[:, None]
    out: Floats = filled_QM / filled_QM.sum(axis=1, keepdims=True)
    return out


def _blank(table: OutcomeTable) -> Iterable[Query]:
    return (Query(id=name, messages=(), arrival=i + 1) for i, name in enumerate(table.query_ids))


def _took_over(trace: Trace) -> bool:
    """Whether another than the chosen plan was run in the end."""
    wrapped = isinstance(trace.plan, Fallback) and trace.plan != trace.decision.plan
    return wrapped and any(s.call is not None and s.path[0] > 0 for s in trace.steps)


def _quality(trace: Trace, judged: Sequence[Feedback]) -> float:
    said = rewards.judged(judged)
    if said is not None and said[1] >= EVIDENCE:
        return said[0]
    error = trace.outcome.error
    if error is not None and error.kind not in NOT_ITS_FAULT:
        return 0.0
    return float("nan")


def _group(trace: Trace) -> str:
    who = trace.query.identity
    for kind, name in (("episode", who.episode), ("session", who.session)):
        if name is not None:
            return f"{kind} {who.tenant} {name}"
    text = trace.query.text if trace.text_kept else ""
    return f"prompt {prompt_hash(text)}" if text.strip() else f"id {trace.id}"
