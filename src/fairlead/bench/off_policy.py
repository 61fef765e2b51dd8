"""Off-policy evaluation: what another policy would have brought, from a log of what was decided with which probability.

`evaluate` takes a `Log` (made by `decision_log` from a store or a table, or by hand), estimates each outcome by the estimators of
`estimators.py`, sets beside it what the policy that served brought, and says how far the log covers the new policy. What an estimate
needs and the log cannot give is refused with the reason, see `Rules`:

- too much of the new policy's probability lies on options of which the log knows nothing (a deterministic log, a new target). For quality,
  which lies in [0, 1], a little is allowed and counted at its worst; for costs, times and utility nothing is, as they have no worst;
- the effective sample size is too small for the intervals to hold;
- the outcome is known far more often of one option than of another: it probably depends on the answer whether it is known;
- options were chosen more or less often than their recorded probabilities allow.

What is not known of a decision is taken as missing at random given the option. If people judge bad answers more often than good ones, of
every option alike, no estimator here can know.

Checked in tests/bench/test_off_policy.py, and against the truth of full tables by benchmarks/ope.py.

Shapes: Q decisions, A options.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from fairlead.bench.estimators import METHODS, Kind, Method, Sample, Scores, means
from fairlead.bench.metrics import Interval
from fairlead.errors import TableError
from fairlead.objective import Objective
from fairlead.predictors.calibration import folds
from fairlead.table import Floats, Ints
from fairlead.types import Signals

OUTCOMES = ("quality", "usd", "seconds", "joules")


class Log(Struct, frozen=True, kw_only=True):
    """Decisions with what they brought, and what the new policy would have done. Made by `decision_log`, or by hand."""

    actions: tuple[str, ...]
    chosen_Q: Ints
    """Which option was chosen."""
    logged_QA: Floats
    """Probability of each option under the policy that served; 0 where it was none."""
    new_QA: Floats
    """Probability of each option under the new policy."""
    outcomes: Mapping[str, Floats]
    """What the decision brought, (Q,) each, under names of `OUTCOMES`; NaN where not known."""
    groups_Q: Ints
    """Decisions that may hang together share a number."""
    signals: tuple[Signals, ...] = ()
    """Readings of each query, for forecasts by a predictor."""
    left_out: Mapping[str, int] = {}
    """Records that are no decisions to learn from, counted by reason."""
    notes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.chosen_Q), len(self.actions))
        if not shape[0]:
            why = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items())
            raise TableError(f"the log holds no decision to evaluate on{f' ({why})' if why else ''}")
        if self.logged_QA.shape != shape or self.new_QA.shape != shape:
            raise TableError(f"probabilities must be of {shape[0]} decisions x {shape[1]} options")
        for name, p_QA in (("logged", self.logged_QA), ("new", self.new_QA)):
            if not (p_QA >= 0.0).all() or not np.allclose(p_QA.sum(axis=1), 1.0, atol=1e-6):
                raise TableError(f"the {name} probabilities of a decision do not sum to 1")
        if not (self.logged_QA[np.arange(shape[0]), self.chosen_Q] > 0.0).all():
            raise TableError("a decision has a logged probability of 0, yet was made: its propensity is wrong")


class Rules(Struct, frozen=True, kw_only=True):
    """When the log cannot answer."""

    unsupported: float = 0.05
    """Most of the new policy's probability that may lie on options of which the log knows nothing, where quality is asked. Where an
    amount is, nothing may: what was never seen may cost more than all that was."""
    rare: float = 0.02
    """Logged probabilities below this are reported as thin overlap."""
    ess: float = 50.0
    """Least effective sample size: with less, the intervals do not hold."""
    known_gap: float = 0.2
    """Most that the share of decisions whose outcome is known may credibly differ between options."""


class Overlap(Struct, frozen=True, kw_only=True):
    """How far the log covers one option."""

    action: str
    new: float
    """Mean probability under the new policy."""
    logged: float
    chosen: int
    unsupported: float
    """Share of the new policy's whole probability that lies here where the log never goes."""
    rare: float
    """Likewise where the log hardly goes (`Rules.rare`)."""


class Estimate(Struct, frozen=True, kw_only=True):
    """One estimator's word on one outcome."""

    method: Method
    value: Interval
    gain: Interval
    """Difference to what the logging policy brought."""
    se: float
    bias: float
    """The most that it may be off by for lack of overlap, or by trusting its forecast; in the interval. Not known for `dm`."""


class Answer(Struct, frozen=True, kw_only=True):
    """All about one outcome."""

    what: str
    known: int
    """Decisions of which it is known."""
    ess: float
    """Effective sample size, (sum v w)^2 / sum (v w)^2, with v w summed over each group first."""
    largest: float
    """Share of the heaviest decision in all weight."""
    unsupported: float
    logged: Interval | None
    """What the logging policy brought."""
    estimates: tuple[Estimate, ...] = ()
    refusal: str | None = None
    """Why there is no estimate."""

    def __getitem__(self, method: Method) -> Estimate:
        """Return one estimator's word. Raises `TableError` with the refusal if there is none."""
        for e in self.estimates:
            if e.method == method:
                return e
        raise TableError(self.refusal or f"{method} was not asked for")


class Evaluation(Struct, frozen=True, kw_only=True):
    """What a log says of a new policy."""

    source: str
    decisions: int
    groups: int
    interval: Kind
    level: float
    agreement: float
    """Mean probability with which the new policy repeats the logged choice."""
    mean_weight: float
    """About 1 less the unsupported share, or propensities are wrong."""
    overlap: tuple[Overlap, ...]
    answers: tuple[Answer, ...]
    left_out: Mapping[str, int]
    notes: tuple[str, ...]
    refusal: str | None = None
    """Why nothing can be said at all."""

    def __getitem__(self, what: str) -> Answer:
        """Return what is said of one outcome. Raises `TableError` if it is in no record."""
        for a in self.answers:
            if a.what == what:
                return a
        raise TableError(f"the log does not tell {what}; it tells {', '.join(a.what for a in self.answers)}")


def evaluate(
    log: Log,
    *,
    objective: Objective | None = None,
    forecasts: Mapping[str, Floats] | None = None,
    methods: tuple[Method, ...] = METHODS,
    interval: Kind = "normal",
    level: float = 0.95,
    rules: Rules = Rules(),  # noqa: B008 - frozen
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Estimate what the new policy would have brought.

    Args:
        log: the decisions.
        objective: if given, its utility is estimated too.
        forecasts: of each outcome, (Q, A), made without the decision that they are for (`decision_log.forecasts`); where there is none,
            each option's mean over the other folds.
        methods: estimators.
        interval: ``normal``, ``bootstrap`` or ``bernstein``.
        level: of the intervals.
        rules: when to refuse.
        resamples: of the bootstrap.
        seed: of folds and bootstrap.
    """
    rows = np.arange(len(log.chosen_Q))
    _, groups_Q = np.unique(log.groups_Q, return_inverse=True)
    fold_Q = folds(log.groups_Q, seed=seed)
    given = forecasts or {}
    nothing = np.full(len(rows), np.nan)
    outcomes = {what: y_Q for what in OUTCOMES if not np.isnan(y_Q := log.outcomes.get(what, nothing)).all()}
    f_QA = {
        what: given[what] if what in given else means(log.chosen_Q, y_Q, fold_Q, len(log.actions))
        for what, y_Q in outcomes.items()
    }
    if objective is not None:
        parts = {k.removesuffix("_weight"): -v for k, v in objective.weights().items() if k != "unknown"} | {
            "quality": 1.0
        }
        if parts.keys() <= outcomes.keys():
            outcomes["utility"] = np.sum([c * outcomes[k] for k, c in parts.items()], axis=0)
            f_QA["utility"] = np.sum([c * f_QA[k] for k, c in parts.items()], axis=0)
    outcomes.setdefault("quality", nothing)
    refusal = _propensities(log)
    answers = (
        ()
        if refusal
        else tuple(
            _answer(
                log,
                what,
                y_Q,
                f_QA.get(what),
                groups_Q,
                methods=methods,
                rules=rules,
                kind=interval,
                level=level,
                resamples=resamples,
                seed=seed,
            )
            for what, y_Q in outcomes.items()
        )
    )
    return Evaluation(
        source=log.source,
        decisions=len(rows),
        groups=int(groups_Q.max()) + 1,
        interval=interval,
        level=level,
        agreement=float(log.new_QA[rows, log.chosen_Q].mean()),
        mean_weight=float((log.new_QA[rows, log.chosen_Q] / log.logged_QA[rows, log.chosen_Q]).mean()),
        overlap=overlap(log, rules),
        answers=answers,
        left_out=log.left_out,
        notes=log.notes,
        refusal=refusal,
    )


def overlap(log: Log, rules: Rules) -> tuple[Overlap, ...]:
    """Say of each option how far the log covers the new policy there, the least covered first."""
    taken_A = np.bincount(log.chosen_Q, minlength=len(log.actions))
    never_QA = (log.logged_QA <= 0.0) | (taken_A == 0)
    rare_QA = ~never_QA & (log.logged_QA < rules.rare)
    rows = [
        Overlap(
            action=name,
            new=float(log.new_QA[:, a].mean()),
            logged=float(log.logged_QA[:, a].mean()),
            chosen=int(taken_A[a]),
            unsupported=float((log.new_QA[:, a] * never_QA[:, a]).mean()),
            rare=float((log.new_QA[:, a] * rare_QA[:, a]).mean()),
        )
        for a, name in enumerate(log.actions)
    ]
    return tuple(sorted(rows, key=lambda o: (-o.unsupported, -o.rare, -o.new, o.action)))


def _answer(
    log: Log,
    what: str,
    y_Q: Floats,
    f_QA: Floats | None,
    groups_Q: Ints,
    *,
    methods: tuple[Method, ...],
    rules: Rules,
    kind: Kind,
    level: float,
    resamples: int,
    seed: int,
) -> Answer:
    """Estimate one outcome, or say why not."""
    known = y_Q[~np.isnan(y_Q)]
    bounded = what == "quality"
    span = (0.0, 1.0) if bounded or not len(known) else (float(known.min()), float(known.max()))
    sample = Sample(
        chosen_Q=log.chosen_Q,
        logged_QA=log.logged_QA,
        new_QA=log.new_QA,
        y_Q=y_Q,
        f_QA=f_QA,
        span=span,
        groups_Q=groups_Q,
        bounded=bounded,
    )

    refusal = _cannot(log, what, sample, rules)
    logged, estimates = None, []
    if len(known) and sample.G > 1:
        base = sample.logged()
        scores = {method: sample.scores(method) for method in methods} if refusal is None else {}
        if kind == "bootstrap":
            sample.resample([base, *scores.values()], resamples=resamples, seed=seed)

        def interval(s: Scores, base: Scores | None = None) -> Interval:
            found = sample.interval(s, base, kind=kind, level=level)
            if what != "quality":
                return found
            # Means of quality lie in [0, 1], differences in [-1, 1].
            least = 0.0 if base is None else -1.0
            return Interval(value=found.value, low=max(found.low, least), high=min(found.high, 1.0))

        logged = interval(base)
        estimates = [
            Estimate(method=method, value=interval(s), gain=interval(s, base), se=sample.se(s), bias=s.bias)
            for method, s in scores.items()
        ]
    return Answer(
        what=what,
        known=len(known),
        ess=sample.ess,
        largest=sample.largest,
        unsupported=sample.unsupported,
        logged=logged,
        estimates=tuple(estimates),
        refusal=refusal,
    )


def _cannot(log: Log, what: str, sample: Sample, rules: Rules) -> str | None:
    """Say why the log cannot tell this outcome of the new policy; None if it can."""
    if not sample.known_Q.any():
        return f"{what} is known of no decision: send feedback for served answers"
    if sample.unsupported > (rules.unsupported if sample.bounded else 1e-9):
        blind_A = (log.new_QA * sample.blind_QA).mean(axis=0)
        places = 0 if sample.unsupported >= 0.01 else 3
        worst = [f"{log.actions[a]} {blind_A[a]:.{places}%}" for a in np.argsort(-blind_A)[:5] if blind_A[a] > 0.0]
        certain = float((log.logged_QA.max(axis=1) > 0.999).mean())
        cause = (
            f"the log is deterministic ({certain:.0%} of its decisions were certain)" if certain > 0.5 else "no overlap"
        )
        unknown = "" if sample.bounded else f"; nothing that was seen bounds the {what} of such answers"
        return (
            f"{cause}: {sample.unsupported:.{places}%} of the new policy's choices are such as the log never makes, or of which {what} is never "
            f"known ({', '.join(worst)}){unknown}; serve with some `explore` (or thompson) over these targets"
        )
    if sample.G < 2 or not sample.ess or sample.ess < rules.ess - 1e-6:
        return (
            f"the effective sample size is {sample.ess:.0f} of {int(sample.known_Q.sum())} decisions, below {rules.ess:.0f} (the heaviest "
            f"alone is {sample.largest:.0%} of the weight): collect more, or explore more where the new policy goes"
        )
    # A share that rests on few decisions may differ by chance: two standard errors are granted to each side.
    often = (sample.made_A >= 10) & (log.new_QA.mean(axis=0) + log.logged_QA.mean(axis=0) > 0.02)
    if often.sum() > 1:
        share_A = sample.share_A[often]
        margin_A = 2.0 * np.sqrt(share_A * (1.0 - share_A) / sample.made_A[often])
        low, high = int(np.argmin(share_A + margin_A)), int(np.argmax(share_A - margin_A))
        if (share_A - margin_A)[high] - (share_A + margin_A)[low] > rules.known_gap:
            names = np.asarray(log.actions, dtype=object)[often]
            return (
                f"{what} is known of {share_A[high]:.0%} of the decisions for {names[high]} but of {share_A[low]:.0%} for {names[low]}, so "
                "that it probably depends on the answer whether it is known; judge a random sample, or grant a larger gap (--gap)"
            )
    return None


def _propensities(log: Log) -> str | None:
    """Compare how often each option was chosen with how often it should have been; say so if chance cannot explain it."""
    p_QA = log.logged_QA
    taken_A = np.bincount(log.chosen_Q, minlength=len(log.actions))
    expected_A, variance_A = p_QA.sum(axis=0), (p_QA * (1.0 - p_QA)).sum(axis=0)
    z_A = (taken_A - expected_A) / np.sqrt(variance_A + 4.0)  # 4: a few choices too many of a rare option are no proof
    worst = int(np.argmax(np.abs(z_A)))
    if abs(z_A[worst]) <= 5.0:
        return None
    return (
        f"the recorded probabilities are not those of the choices: {log.actions[worst]} was chosen {taken_A[worst]} times where "
        f"{expected_A[worst]:.1f} were to be expected; every estimate rests on them (was the log filtered, or drawn by something else?)"
    )
