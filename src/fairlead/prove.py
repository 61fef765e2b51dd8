"""Proof of one decision: made again from the record alone, and its plan run again on its own outcomes. Ours, no paper.

The store keeps the policy (spec and learned state), the pool and the guards that each trace names by digest, and the trace holds the
signals, the seed, and whom the request's own limits, a budget or a rest left out. So the decision is repeated to the last bit: which guards
held, whom they took away and what they ordered, who was eligible, options, probabilities and forecasts, choice and propensity.
The plan then runs in the replay world on the outcomes of the trace and must give the same answer. No target is called.
A refusal (nobody was eligible) is reproduced if deciding again is refused.

What it cannot show: that a target would answer the same again, that the signals were read rightly, that a target that is said to have
rested did so, or what the actions were configured to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fairlead import chain
from fairlead.build import build
from fairlead.errors import ConfigError, FairleadError, NoEligibleTarget, StoreError
from fairlead.guards import Guards
from fairlead.policies.base import Policy
from fairlead.pool import Eligibility, Pool
from fairlead.store import Store
from fairlead.types import Decision, Outcome, Signals, Trace
from fairlead.worlds.replay import Recorded, replay

ANSWER = ("target", "model", "text", "finish", "tool_calls", "tokens", "error", "cancelled")
"""Fields of an answer that a replay must give back."""
GUARDED = ("guards", "eligible", "excluded", "actions")
"""Fields of a decision, or of a refusal, that come of the guards."""
DECIDED = ("chosen", "propensity", "reasons", "fallbacks", "forecast_of", "objective", "shadow", "members", "rule")
"""Fields that come of the policy, its options apart."""


class Replayed(Struct, frozen=True, kw_only=True):
    """What came of a replay. `differences` is empty if everything is the same."""

    trace_id: str
    decision: Decision
    """Decided again; the recorded one, but for what the guards say, if deciding again was refused."""
    outcome: Outcome
    """Answered again, by the plan that ran, from the recorded outcomes; the recorded one if there is nothing to run."""
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be compared, and why."""

    @property
    def same(self) -> bool:
        """Whether the record was reproduced."""
        return not self.differences


def replay_decision(trace: Trace, store: Store) -> Replayed:
    """Decide and answer again from the record alone. Blocks: reads the store.

    Raises:
        StoreError: if the policy, the pool or the guards of this decision are not in the store, or cannot be built by this installation.
    """
    recorded = trace.decision
    policy = _policy(recorded, store)
    pool = Pool(targets=store.load_pool(recorded.pool_digest))
    guards = _guards(recorded, store)
    try:
        guarded = guards.apply(trace.signals, _before_guards(recorded, guards, trace.signals, pool))
        left = guarded.eligible
        try:
            decision = policy.decide(trace.query, trace.signals, pool, seed=recorded.seed, eligible=left)
            ordered = guards.ordered((*guarded.actions, *decision.actions))
            decision = replace(decision, guards=guarded.guards, actions=ordered)
            differences = _decisions(recorded, decision)
            if not recorded.options:
                differences.insert(0, f"refusal: {_show(decision.plan)} was chosen, recorded that nobody may answer")
        except NoEligibleTarget as e:
            decision = replace(
                recorded,
                eligible=tuple(t.name for t in left.targets),
                excluded={**e.excluded, **left.excluded},
                guards=guarded.guards,
                actions=guards.ordered(guarded.actions),
            )
            differences = _differing(GUARDED, recorded, decision)
            if recorded.options:
                differences.insert(0, f"decision: {e}, recorded {_show(recorded.plan)}")
    except FairleadError as e:
        raise StoreError(f"the decision of {trace.id} cannot be made again: {e}") from e
    for name, now, then in (
        ("policy", policy.digest(), recorded.policy_digest),
        ("pool", pool.digest, recorded.pool_digest),
        ("guards", guards.digest, recorded.guards_digest),
    ):
        if now != then:
            differences.append(f"{name}: its digest is {now}, recorded {then}")

    notes: list[str] = []
    plan = trace.plan
    if plan is None and recorded.options and not trace.acts:
        plan = recorded.plan
    outcome, answers = trace.outcome, []
    if plan is not None:
        run = replay(plan, trace.query, Recorded(trace.steps))
        outcome, answers = run.outcome, _answers(trace.outcome, run.outcome)
        if [s.path for s in trace.steps] != [s.path for s in run.steps]:
            answers.append(f"steps: the plan made {len(run.steps)}, recorded {len(trace.steps)}")
    elif trace.acts and not trace.steps:
        did = ", ".join(f"{a.name} {a.did}" for a in trace.acts)
        notes.append(f"no target was asked ({did}), so there is no answer to compare")
    elif trace.steps or trace.outcome.error is None or trace.outcome.error.kind != "no_target":
        answers.append(f"answer: {_show(trace.outcome)} and {len(trace.steps)} steps recorded where nobody may answer")
    if trace.outcome.error is not None and trace.outcome.error.kind == "client_gone":
        notes.append("the client went away while the plan ran, so its answer is not compared")
    elif answers and not trace.text_kept:
        notes.append("the text was not kept, so a plan that reads it goes another way: its answer is not compared")
    else:
        differences += answers
    return Replayed(
        trace_id=trace.id, decision=decision, outcome=outcome, differences=tuple(differences), notes=tuple(notes)
    )


def _policy(recorded: Decision, store: Store) -> Policy:
    spec, state = store.load_policy(recorded.policy_digest)
    try:
        policy: Any = build("policies", spec)
        policy.load(state)
    except FairleadError as e:
        raise StoreError(f"the policy {recorded.policy_digest} cannot be built here: {e}") from e
    assert isinstance(policy, Policy)
    return policy


def _guards(recorded: Decision, store: Store) -> Guards:
    if not recorded.guards_digest:
        return Guards()
    try:
        return Guards.of(store.load_guards(recorded.guards_digest))
    except ConfigError as e:
        raise StoreError(f"the guards {recorded.guards_digest} cannot be read: {e}") from e


def _before_guards(recorded: Decision, guards: Guards, signals: Signals, pool: Pool) -> Eligibility:
    """Return who could act before any guard took somebody away: all but those left out for a reason that no guard gives.

    A refusal names whom the policy itself turned down, too; these stand among the eligible.
    """
    by_guards = guards.apply(signals, Eligibility(targets=pool.targets)).eligible.excluded
    others = {
        name: why
        for name, why in recorded.excluded.items()
        if by_guards.get(name) != why and name not in recorded.eligible
    }
    # Equal pools have one digest, whatever their order; the record's own is the one that counts.
    names = dict.fromkeys((*recorded.eligible, *(t.name for t in pool)))
    return Eligibility(targets=tuple(pool[n] for n in names if n not in others), excluded=others)


def _decisions(recorded: Decision, again: Decision) -> list[str]:
    """Compare what was proposed and what was chosen, number by number."""
    out = []
    for i in range(max(len(recorded.options), len(again.options))):
        then = recorded.options[i] if i < len(recorded.options) else None
        now = again.options[i] if i < len(again.options) else None
        if chain.encode(then) != chain.encode(now):
            out.append(f"option {i + 1}: {_show(now)}, recorded {_show(then)}")
    return out + _differing((*GUARDED, *DECIDED), recorded, again)


def _differing(names: Sequence[str], recorded: Decision, again: Decision) -> list[str]:
    out = []
    for name in names:
        then, now = getattr(recorded, name), getattr(again, name)
        if chain.encode(then) != chain.encode(now):
            out.append(f"{name}: {now!r}, recorded {then!r}")
    return out


def _answers(recorded: Outcome, again: Outcome) -> list[str]:
    out = []
    for name in ANSWER:
        then, now = getattr(recorded, name), getattr(again, name)
        if chain.encode(then) != chain.encode(now):
            out.append(f"answer.{name}: {_show(now)}, recorded {_show(then)}")
    return out


def _show(value: Any) -> str:
    text = "nothing" if value is None else chain.encode(value).decode()
    return text if len(text) <= 120 else text[:117] + "..."
