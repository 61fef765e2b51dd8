"""Ant-colony routing of paths: AMRO-S (2026, arXiv 2603.12933). A path takes one target per stage and runs as the plan `relay`.

    tau_ij      = sum over t of  w_t tau^t_ij                                 fused pheromone; w: how much the query looks like each task t
    eta_j       = ability_weight norm(A_j) + load_weight norm(1 / (load_j + eps)) + speed_weight norm(1 / (seconds_j + eps))
    p(j | i)    = tau_ij^alpha eta_j^beta / sum over the stage                p(path) = product of its hops
    tau^t_ij   <- clip((1 - rho w_t) tau^t_ij + [ij on the path] w_t Q / (f + eps_cost), tau_min, tau_max)    if the judge accepts

A_j is the sum of w_t times the profile's skill at t, else its quality. norm divides by the stage's largest; what is not known counts as the mean of what
is. f is what `objective` takes off the path for its cost (0 if nothing is weighed). What a judge rejects (quality below `gate`) changes nothing.

Not found in the source, so ours: all constants; evaporation scaled by w_t, of every edge that leaves a node of the path (of the path's own edges alone,
all would tend to one level); Q = rho and eps_cost = 1, so that tau is a moving average of accepted use with a level of at most 1; the bounds of
MAX-MIN ant system (Stützle and Hoos 2000), where tables start at tau_max. The load is a signal, since a policy sees nothing else: the response time is
that of the profile, not live. Off-line warm-up is `learn` with the truth in the judge's place. Lessons run on a copy, off the request path.

Of many paths only the `most` likely are proposed, renormalised: the others then have no chance, and the reasons say how much that was.

Limits, by the paper's rule: a judge who is wrong becomes pheromone, and a target that turns bad is not punished, it fades only as others are accepted.
With a judge who tosses a coin the table locks into some path; tau_min bounds the chance of each other hop from below (tests). Tables cannot be merged.

On a made-up 3 x 4 whose tasks disagree at every stage, 1500 requests: mean success .82 with tables apart, .37 with one for all, .31 uniform, .32 (of .81, after
900) without the gate.

Cost: about 0.35 ms for 3 stages of 4. Checked in tests/policies/test_pheromone.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Final, Self, TypeAlias

from msgspec import Meta

from fairlead.errors import ConfigError
from fairlead.objective import Objective
from fairlead.plans.relay import Relay
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Positive, Proposal, Share, answering
from fairlead.types import Option, Plan, Query, Reward, Signals, Target, Trace

Weight: TypeAlias = Annotated[float, Meta(ge=0.0)]
EPS: Final = 0.01
"""Added to loads and seconds."""
TOKENS: Final = 200
"""Output tokens by which a profile's speed is one number."""
_START: Final = ""
"""Where paths begin: no target has an empty name."""


class Pheromone(Policy):
    """Propose paths through `layers` by what worked before on tasks like this.

    Args:
        layers: targets that may take each stage, in order. Where none of a stage may act, whoever may answer stands in.
        roles: what the stages are to do, one per layer; goes into the prompt.
        intent: task -> signal key that says how much of it the query is: a number, yes or no, or a string that is the task's name.
            Weights are made to sum to 1; if none is above 0, all tasks count alike. None: one task.
        busy: target -> signal key of the calls it has under way.
        objective: how a path's cost weighs in what it leaves.
        gate: quality from which a judge accepts.
        alpha, beta: exponents of pheromone and heuristic; beta 0: no heuristic.
        rho: evaporation.
        tau_min, tau_max: bounds of each entry.
        ability_weight, load_weight, speed_weight: of the heuristic.
        most: paths proposed at most.
    """

    objective: Objective
    tau_: dict[str, dict[str, dict[str, float]]]
    """Task -> stage and the target before, as ``stage target`` -> target -> pheromone. What is not there is at `tau_max`."""

    def __init__(
        self,
        *,
        layers: Annotated[tuple[Annotated[tuple[str, ...], Meta(min_length=1)], ...], Meta(min_length=1)],
        roles: tuple[str, ...] | None = None,
        intent: dict[str, str] | None = None,
        busy: dict[str, str] | None = None,
        objective: Objective = Objective(),  # noqa: B008 - frozen
        gate: Share = 0.5,
        alpha: Weight = 1.0,
        beta: Weight = 1.0,
        rho: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.1,
        tau_min: Positive = 0.02,
        tau_max: Positive = 1.0,
        ability_weight: Weight = 0.5,
        load_weight: Weight = 0.25,
        speed_weight: Weight = 0.25,
        most: Annotated[int, Meta(ge=1)] = 64,
    ) -> None:
        self.layers = layers
        self.roles = roles
        self.intent = intent
        self.busy = busy
        self.objective = objective
        self.gate = gate
        self.alpha = alpha
        self.beta = beta
        self.rho = rho
        self.tau_min = tau_min
        self.tau_max = tau_max
        self.ability_weight = ability_weight
        self.load_weight = load_weight
        self.speed_weight = speed_weight
        self.most = most
        self.tau_ = {}

    @classmethod
    def example(cls) -> Self:
        """One stage of three targets, whose judge is lenient."""
        return cls(layers=(("ant", "bee", "cat"),), gate=0.42)

    def check(self) -> None:
        """Raise `ConfigError` for roles that do not fit the layers, bounds that cross, or a heuristic without weight."""
        if self.roles is not None and len(self.roles) != len(self.layers):
            raise ConfigError(f"{len(self.layers)} layers need as many roles, not {len(self.roles)}", path="$.roles")
        if self.tau_min > self.tau_max:
            raise ConfigError(f"tau_min is above tau_max, which is {self.tau_max:g}", path="$.tau_min")
        if self.beta and not self.ability_weight + self.load_weight + self.speed_weight:
            raise ConfigError("a heuristic without weights rules everybody out; set beta to 0 instead", path="$.beta")

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The layers' targets."""
        return tuple((f"$.layers[{i}]", name) for i, layer in enumerate(self.layers) for name in layer)

    @property
    def tests(self) -> tuple[tuple[str, str], ...]:
        """Signals of tasks and loads."""
        keys = (("intent", self.intent), ("busy", self.busy))
        return tuple((f"$.{name}.{of}", key) for name, named in keys for of, key in (named or {}).items())

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals of tasks and loads."""
        return tuple(dict.fromkeys(key.partition(".")[0] for _, key in self.tests))

    def mixture(self, signals: Signals) -> dict[str, float]:
        """Return how much the query is of each task; sums to 1."""
        raw = {task: _weight(signals.get(key), task) for task, key in sorted((self.intent or {"": ""}).items())}
        total = sum(raw.values())
        return {task: w / total if total else 1.0 / len(raw) for task, w in raw.items()}

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Return the likeliest paths."""
        here = {t.name: t for t in targets}
        able = {t.name for t in answering(targets)}
        mix = self.mixture(signals)
        ends: dict[str, list[tuple[float, tuple[str, ...]]]] = {_START: [(1.0, ())]}
        for stage, layer in enumerate(self.layers):
            may = able if stage == len(self.layers) - 1 else here.keys()
            nodes = [here[n] for n in sorted({n for n in layer if n in may} or able)]
            eta = self._heuristic(nodes, mix, signals)
            found: dict[str, list[tuple[float, tuple[str, ...]]]] = {t.name: [] for t in nodes}
            for before, paths in ends.items():
                hops = self._hops(mix, stage, before, eta)
                for name, p in hops.items():
                    found[name] += [(q * p, (*path, name)) for q, path in paths]
            # The likeliest paths go on from the likeliest ways to each node, so nothing that will be proposed is dropped.
            ends = {name: sorted(paths, key=_likeliest)[: self.most] for name, paths in found.items()}
        best = sorted((path for paths in ends.values() for path in paths), key=_likeliest)[: self.most]
        kept = sum(p for p, _ in best)
        said = [f"{' then '.join(best[0][1])} is the likeliest path, {best[0][0]:.3f}"]
        if self.intent:
            said.insert(0, "looks like " + ", ".join(f"{task} {w:.2f}" for task, w in mix.items() if w))
        if total := prod(len({n for n in layer if n in here} or able) for layer in self.layers) - len(best):
            said.append(f"{total} less likely paths are left out; together they had {max(0.0, 1.0 - kept):.3f}")
        return Proposal([Option(plan=self._plan(path), probability=p / kept) for p, path in best], *said)

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Reinforce an accepted path in the tables of the tasks that the query looked like; anything else changes nothing."""
        quality, path = reward.evidence, _path(trace.decision.plan)
        if quality is None or quality < self.gate or len(path) != len(self.layers):
            return
        # Who stood in for a call that failed would earn another's pheromone.
        if not all(s.outcome.ok for s in trace.steps) or trace.outcome.target not in ("", path[-1]):
            return
        cost = max(0.0, reward.quality - self.objective.utility(reward))
        for task, w in self.mixture(trace.signals).items():
            table = self.tau_.setdefault(task, {})
            for stage, (before, name) in enumerate(zip((_START, *path), path, strict=False)):
                row = table.setdefault(f"{stage} {before}", {})
                for other in {*self.layers[stage], *row, name}:
                    left = w * self.rho / (cost + 1.0) if other == name else 0.0
                    tau = (1.0 - self.rho * w) * row.get(other, self.tau_max) + left
                    row[other] = min(self.tau_max, max(self.tau_min, tau))

    def decay(self, keep: float) -> None:
        """Let every entry go back towards where it started."""
        for table in self.tau_.values():
            for row in table.values():
                row.update((name, keep * tau + (1.0 - keep) * self.tau_max) for name, tau in row.items())

    def _hops(self, mix: dict[str, float], stage: int, before: str, eta: dict[str, float]) -> dict[str, float]:
        """Return the chance of each next target, by name."""
        rows = [(w, self.tau_.get(task, {}).get(f"{stage} {before}", {})) for task, w in mix.items()]
        raw = {
            name: sum(w * row.get(name, self.tau_max) for w, row in rows) ** self.alpha * e**self.beta
            for name, e in eta.items()
        }
        total = sum(raw.values())
        return {name: v / total for name, v in raw.items()}

    def _heuristic(self, nodes: Sequence[Target], mix: dict[str, float], signals: Signals) -> dict[str, float]:
        """Return eta of each target of a stage, in (0, 1] for weights that sum to 1; the same for all if nothing is known."""
        parts = (
            (self.ability_weight, [_ability(t, mix) for t in nodes]),
            (self.load_weight, [_over(signals.get((self.busy or {}).get(t.name, ""))) for t in nodes]),
            (self.speed_weight, [_over(_seconds(t)) for t in nodes]),
        )
        out = [0.0] * len(nodes)
        for weight, values in parts:
            known = [v for v in values if v is not None]
            mean, top = (sum(known) / len(known), max(known)) if known and max(known) > 0.0 else (1.0, 1.0)
            out = [o + weight * (mean if v is None else v) / top for o, v in zip(out, values, strict=True)]
        return {t.name: max(o, 1e-9) for t, o in zip(nodes, out, strict=True)}

    def _plan(self, path: tuple[str, ...]) -> Plan:
        if len(path) == 1 and self.roles is None:
            return Single(target=path[0])
        return Relay(steps=path, roles=self.roles)


def _likeliest(path: tuple[float, tuple[str, ...]]) -> tuple[float, tuple[str, ...]]:
    return -path[0], path[1]


def _path(plan: Plan) -> tuple[str, ...]:
    match plan:
        case Relay():
            return plan.steps
        case Single():
            return (plan.target,)
    return ()


def _weight(value: object, task: str) -> float:
    """Read a task's weight off a signal."""
    if isinstance(value, str):
        return float(value == task)
    return max(0.0, float(value)) if isinstance(value, int | float) else 0.0


def _ability(target: Target, mix: dict[str, float]) -> float | None:
    skills, quality = target.profile.skills, target.profile.quality
    known = [(w, v) for task, w in mix.items() if (v := skills.get(task, quality)) is not None]
    total = sum(w for w, _ in known)
    return sum(w * v for w, v in known) / total if total else None


def _seconds(target: Target) -> float | None:
    first, per = target.profile.first_token_seconds, target.profile.seconds_per_output_token
    return None if first is None and per is None else (first or 0.0) + TOKENS * (per or 0.0)


def _over(amount: object) -> float | None:
    return 1.0 / (max(0.0, float(amount)) + EPS) if isinstance(amount, int | float) else None
