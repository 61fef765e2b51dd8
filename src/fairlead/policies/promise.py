"""A promise on quality that is tested before it is given, and watched while it serves.

    promised:  mean quality(chosen) >= keep * mean quality(reference),   with the stated confidence

**The rule.** One family of decision rules with one number, the weight w: argmax of forecast quality less w times the forecast amount (spend,
time or energy). Of all rules over the same forecasts it saves most at a given mean quality if they are right; cheapest-above-a-floor with
a slack takes up to twice the spend on the tables of `benchmarks/promise.py`.

**Calibration** (`calibrate`). Learn then test (Angelopoulos, Bates, Candès, Jordan, Lei, 2021, arXiv 2110.01052): from the reference alone,
which needs no test, through rising w on a grid that is fixed beforehand, each rule is tested on outcomes that the predictor has not seen
until one fails; the last that passed serves. Tested in a fixed order like this, the chance that *any* wrong rule passes is at
most 1 - confidence. The null hypothesis is "the mean of X = quality(chosen) - keep * quality(reference) is below 0". Its test bets on X
(Waudby-Smith, Ramdas, 2020, arXiv 2010.09686): wealth prod(1 + b_t X_t) with b_t = sqrt(2 ln(1/delta) / (n v_{t-1})), v the running mean
of X^2, is a supermartingale under the null, so by Ville's inequality it ever reaches 1/delta with chance delta at most. No model, no large
numbers: X need only be bounded and the draws alike. Rows with equal prompts are one draw, their mean: asked again, a prompt tells nothing
new. The test depends on the order of the draws, so that is no choice: it follows from a hash of each prompt. What it costs beside a normal
test: quality is kept with 2.5 standard errors to spare, not 1.6. Nothing passes: the reference serves, and every decision says so.

**While it serves** (`explore` > 0). Where the rule and the reference differ, the reference answers with the known probability `explore`. Each
judged answer gives a doubly robust estimate Z of X from the forecasts f and the recorded probabilities p:

    Z = f_c - keep f_r + [c served] (q - f_c) / p_c - keep [r served] (q - f_r) / p_r         c: the rule's choice, r: the reference

Two watches bet against "the promise holds". *measured* on Z: right whatever the forecasts, and slow, since few answers are the reference's.
*forecast* on q - keep (f_r + bias) of the answers that the rule chose: some ten times as quick, and right while the reference's
forecasts are (bias: theirs at calibration); where the reference fails its forecasts too, it retreats without need. Each is a CUSUM of wealth, averaged over five bets (e-detector: Shin, Ramdas, Rinaldo, 2022,
arXiv 2203.03532): while the promise holds (and, for *forecast*, the reference's forecasts), false alarms come on average no sooner than every
`patience` judged answers. (Evidence that never forgets, as in `fairlead.sequential`, would bound their number for ever, and find a late shift half as fast.) On an alarm
the reference serves, and with probability `explore` the rule's choice; the third watch bets on Z the other way round and leads back. A
retreat that was not needed costs money, not quality.

What it cannot do: promise for a single query, for a kind of query that calibration did not hold, for targets that calibration did not
know, or for judgements that come more often after bad answers. Where a calibrated target is away and would have been chosen, the
reference serves; likewise where a profile that the forecasts read has changed, with which the rule has become another than the one
tested. The predictor learns nothing while it serves: the rule that was tested is the rule that serves.

Cost per decision: the predictor's, plus about 10 µs. Shapes: Q queries, T targets, G bets.
Checked in tests/policies/test_promise.py: the error of the test at its boundary, broken promises over redrawn tables, retreat, return, replay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import isclose, isfinite
from math import log as ln
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta
from msgspec.structs import replace
from numpy.typing import NDArray

from fairlead.errors import NotFitted, TableError, UnknownName
from fairlead.plans.single import Single
from fairlead.policies.base import Policy, Proposal, answering
from fairlead.policies.floor import Unit, amount
from fairlead.policies.prior import credited
from fairlead.policies.utility import compared
from fairlead.predictors.base import Predictor
from fairlead.predictors.features import Features
from fairlead.types import Forecast, Option, Profile, Query, Reward, Signals, Target, Trace

if TYPE_CHECKING:
    from fairlead.table import OutcomeTable

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WEIGHTS = np.logspace(-7.0, 8.0, 181)
"""The grid of weights, in quality per unit of the amount: twelve a decade, wide enough for dollars, seconds and joules."""
BETS = np.asarray([0.05, 0.1, 0.2, 0.4, 0.8])
"""Stakes of the watches, as shares of what can be lost at most."""
_FIRST = 10.0
"""Observations that the guess of 0.05 for the mean square counts as, before any."""
_READ = (
    "input_usd_per_mtok",
    "output_usd_per_mtok",
    "first_token_seconds",
    "seconds_per_output_token",
    "joules_per_token",
    "quality",
)
"""Fields of a profile that forecasts may be made from."""
_STRANGE = Profile(**dict.fromkeys(_READ, 1e6))  # type: ignore[arg-type]
"""What nobody's profile says: a forecast that it does not change does not read profiles."""


def wealth(excess_Q: Floats, *, keep: float, confidence: float) -> float:
    """Return the log of the most that betting on a mean above 0 ever had, from 1; `excess_Q` lies in [-keep, 1], in random order."""
    n = len(excess_Q)
    if not n:
        return 0.0
    seen_Q = np.arange(n)
    square_Q = np.concatenate([[0.0], np.cumsum(excess_Q**2)[:-1]])
    mean_Q = (0.05 * _FIRST + square_Q) / (_FIRST + seen_Q)
    bet_Q = np.minimum(np.sqrt(2.0 * -ln(1.0 - confidence) / (n * mean_Q)), 0.75 / keep)
    return max(0.0, float(np.cumsum(np.log1p(bet_Q * excess_Q)).max()))


def choose(forecast_QT: Floats, amount_QT: Floats, weight: float) -> Ints:
    """Return what the rule with this weight chooses, (Q,); infinite amounts are never chosen while another is finite."""
    out: Ints = (forecast_QT - weight * amount_QT).argmax(axis=1)
    return out


def passing(excess: Iterable[Floats], *, keep: float, confidence: float) -> int:
    """Return how many rules pass before the first that does not, tested in the order given; see `wealth` for what is given of each."""
    count = 0
    for excess_Q in excess:
        if wealth(excess_Q, keep=keep, confidence=confidence) < -ln(1.0 - confidence):
            break
        count += 1
    return count


def rules(forecast_QT: Floats, amount_QT: Floats) -> list[tuple[float, Ints]]:
    """Return the rules of the family that differ on these queries, by rising weight: the largest weight of each, and its choices, (Q,)."""
    out: list[tuple[float, Ints]] = []
    for weight in WEIGHTS.tolist():
        chosen_Q = choose(forecast_QT, amount_QT, weight)
        if out and np.array_equal(chosen_Q, out[-1][1]):
            out.pop()
        out.append((weight, chosen_Q))
    return out


def draws(table: OutcomeTable, rows: Ints) -> Ints:
    """Number the draws that `rows` belong to, (Q,): equal prompts are one (a query without a prompt is one by its id).

    The numbers are the order of the test. They follow from the prompts, scattered by a hash: nobody can try another order, and a row
    more or less does not change that of the others.
    """
    names = [table.prompt_hashes[q] or table.query_ids[q] for q in rows.tolist()]
    keys = [blake2b(f"promise {name}".encode(), digest_size=16).digest() for name in names]
    number = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.asarray([number[key] for key in keys], dtype=np.int64)


def merged(value_Q: Floats, draw_Q: Ints) -> Floats:
    """Return the mean of each draw, by its number."""
    out: Floats = np.bincount(draw_Q, value_Q) / np.bincount(draw_Q)
    return out


def certify(
    quality_QT: Floats,
    forecast_QT: Floats,
    amount_QT: Floats,
    *,
    reference: int,
    keep: float,
    confidence: float,
    draw_Q: Ints | None = None,
) -> float:
    """Return the largest weight whose rule keeps the promise, by fixed-sequence testing; 0 if none does, or none saves anything.

    Args:
        quality_QT: what each target really brought.
        forecast_QT, amount_QT: what was forecast of them (amount: infinite where not known), by a predictor that has not seen them.
        reference: its index.
        keep: the share of the reference's quality.
        confidence: of the promise.
        draw_Q: which draw each query belongs to, numbered from 0 in random order; None: each is one, and they come in random order.
    """
    at_Q, owed_Q = np.arange(len(quality_QT)), keep * quality_QT[:, reference]
    draw_Q = at_Q if draw_Q is None else draw_Q
    family = rules(forecast_QT, amount_QT)
    excess = (merged(quality_QT[at_Q, c] - owed_Q, draw_Q) for _, c in family)
    n = passing(excess, keep=keep, confidence=confidence)
    if not n:
        return 0.0
    weight, chosen_Q = family[n - 1]
    saves = merged(amount_QT[at_Q, chosen_Q], draw_Q).mean() < merged(amount_QT[:, reference], draw_Q).mean()
    return weight if saves else 0.0


class Promise(Policy):
    """Serve what saves most while keeping a share of the reference's mean quality, as far as outcomes have shown it.

    Args:
        predictor: what each target would bring; fitted on other queries than those of the calibration.
        reference: the target that quality is measured by; None: the best on average of the table of the calibration.
        keep: the share of its mean quality that is promised.
        confidence: of the promise.
        minimise: what is to be saved.
        explore: probability with which the reference answers where it was not chosen (after a retreat: the choice where the reference
            serves). 0: nothing is watched.
        patience: judged answers between false alarms, on average at least, while the promise holds and the reference is as forecast.
    """

    saves: ClassVar[bool] = True
    reference_: str = ""
    """The reference of the calibration. Empty: not calibrated."""
    targets_: Sequence[str] = ()
    """Targets that the calibration knew, sorted."""
    weight_: float = 0.0
    """Weight of the rule that serves. 0: none passed, the reference serves."""
    bias_: float = 0.0
    """How far the reference's answers were above its forecasts at calibration, on average."""
    figures_: dict[str, float]
    """What calibration found: `queries` (distinct prompts) in `rows`, and `quality` and `amount` as shares of the reference's, with
    the share `explore` of the reference's own answers in both."""
    profiles_: dict[str, str]
    """What the profiles said at calibration of the targets whose forecasts are read from them."""
    watches_: dict[str, Floats]
    """Log wealth of each bet, (G,), by watch: `measured` and `forecast` while the promise is kept, `back` after a retreat."""
    alarm_: str = ""
    """Which watch made the reference serve; empty: none."""
    alarms_: int = 0
    judged_: int = 0
    """Judged answers since the last alarm or return."""

    def __init__(
        self,
        *,
        predictor: Predictor,
        reference: str | None = None,
        keep: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.97,
        confidence: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.95,
        minimise: Unit = "usd",
        explore: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.05,
        patience: Annotated[float, Meta(ge=1.0)] = 5000.0,
    ) -> None:
        self.predictor = predictor
        self.reference = reference
        self.keep = keep
        self.confidence = confidence
        self.minimise = minimise
        self.explore = explore
        self.patience = patience
        self.figures_ = {}
        self.profiles_ = {}
        self.watches_ = {}

    @classmethod
    def example(cls) -> Self:
        """With a predictor that needs no fit; not calibrated, so that the reference serves."""
        from fairlead.predictors.knn import KNN

        return cls(predictor=KNN(features=Features(signals=("length",))), reference="ant")

    @property
    def still(self) -> tuple[str, ...]:
        """The predictor: the promise is that of its forecasts as they were calibrated."""
        return ("predictor",)

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals that the predictor reads."""
        return self.predictor.needs

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The reference, named or found by calibration."""
        found = {"$.reference": self.reference, "$.reference_": self.reference_}
        return tuple((path, name) for path, name in found.items() if name)

    # ------------------------------------------------------------------------------------------------ before it serves

    def calibrate(self, table: OutcomeTable, targets: Sequence[Target] = ()) -> None:
        """Find the rule that saves most and keeps the promise. What was watched before is forgotten.

        Args:
            table: outcomes of queries that the predictor has not seen, with signals read (`table.observed`). Queries with an unknown
                quality among the targets compared are left out. Each distinct prompt counts once, with the mean of its rows.
            targets: who will serve, with the profiles that they will have then; empty: the targets that table and predictor know,
                without profiles.

        Raises:
            NotFitted: if the predictor has learned nothing.
            TableError: if the table has no query with all qualities, or no amount is known.
            UnknownName: if the reference is not among the targets compared.
        """
        if not self.predictor.fitted:
            raise NotFitted(
                f"the promise's predictor {self.predictor.type_name()} has not been fitted; train it on other queries"
            )
        signals = table.observations(self.needs)
        pool = {t.name: t for t in targets} or {n: Target(name=n) for n in table.models}
        names = sorted(set(pool) & set(table.models) & set(self.predictor.targets_))
        if self.reference is not None and self.reference not in names:
            raise UnknownName(
                "reference among the targets that pool, table and predictor share:", self.reference, names
            )
        quality_QT = table.with_models(names).quality_QM if names else np.zeros((0, 0))
        whole = np.flatnonzero(~np.isnan(quality_QT).any(axis=1))
        if len(whole) < 2 or len(names) < 2:
            raise TableError(
                f"calibrating needs queries with the quality of each of two or more targets; {len(whole)} have that of {names}"
            )
        quality_QT, draw_Q = quality_QT[whole], draws(table, whole)
        asked = [pool[n] for n in names]
        found = [self.predictor.predict(signals[q], asked) for q in whole]
        forecast_QT = np.asarray([[f.quality for f in row] for row in found])
        amount_QT = np.asarray([[amount(f, self.minimise) for f in row] for row in found])
        if not np.isfinite(amount_QT).any(axis=1).all():
            raise TableError(f"{self.minimise} is not known of any target; record it in the table, or give profiles")
        mean_T = np.asarray([merged(quality_Q, draw_Q).mean() for quality_Q in quality_QT.T])
        r = int(mean_T.argmax()) if self.reference is None else names.index(self.reference)
        self.reference_, self.targets_ = names[r], names
        self.profiles_ = self._read(signals[whole[0]], asked)
        self.bias_ = float(merged(quality_QT[:, r] - forecast_QT[:, r], draw_Q).mean())
        self.weight_ = certify(
            quality_QT,
            forecast_QT,
            amount_QT,
            reference=r,
            keep=self.keep,
            confidence=self.confidence,
            draw_Q=draw_Q,
        )
        self.figures_ = {"queries": float(draw_Q.max() + 1), "rows": float(len(whole)), "quality": 1.0, "amount": 1.0}
        self.alarm_, self.alarms_ = "", 0
        self._rest()
        if self.weight_:
            rows, chosen_Q = np.arange(len(whole)), choose(forecast_QT, amount_QT, self.weight_)
            for name, value_QT in (("quality", quality_QT), ("amount", amount_QT)):
                by_rule, by_reference = (
                    merged(v_Q, draw_Q).mean() for v_Q in (value_QT[rows, chosen_Q], value_QT[:, r])
                )
                share = float((1.0 - self.explore) * by_rule / by_reference + self.explore)
                self.figures_[name] = share if isfinite(share) else 0.0

    def _read(self, signals: Signals, targets: Sequence[Target]) -> dict[str, str]:
        """Return what the profiles say of the targets whose forecasts depend on them."""
        strange = [replace(t, profile=_STRANGE) for t in targets]
        pairs = zip(self.predictor.predict(signals, targets), self.predictor.predict(signals, strange), strict=True)
        return {
            t.name: _said(t.profile)
            for t, (own, other) in zip(targets, pairs, strict=True)
            if (own.quality, amount(own, self.minimise)) != (other.quality, amount(other, self.minimise))
        }

    # ------------------------------------------------------------------------------------------------ serving

    def propose(self, query: Query, signals: Signals, targets: tuple[Target, ...]) -> Proposal:
        """Propose the rule's choice and the reference with their probabilities; the others follow, to take over if these fail."""
        targets = answering(targets)
        here = {t.name for t in targets}
        asked = sorted(
            [*targets, *(Target(name=n) for n in self.targets_ if n not in here)], key=lambda target: target.name
        )
        forecast = dict(zip((t.name for t in asked), self.predictor.predict(signals, asked), strict=True))
        reference = self.reference_ or self.reference
        choice = self._hidden(here, forecast) or self._choice(forecast)
        changed = [t.name for t in targets if t.name in self.profiles_ and self.profiles_[t.name] != _said(t.profile)]
        shares, said = self._shares(reference, choice, here, forecast, changed)
        order = sorted(here, key=lambda n: (-shares.get(n, 0.0), n != reference, -forecast[n].quality, n))
        options = [Option(plan=Single(target=n), probability=shares.get(n, 0.0), forecast=forecast[n]) for n in order]
        if query.constraints.prefer:
            said.append("wishes are not heeded: the promise is that of the rule as it was tested")
        return Proposal(options, *said, *compared(options))

    def _choice(self, forecast: dict[str, Forecast]) -> str | None:
        """Return what the rule chooses among all targets of the calibration, here or away; None if there is no rule."""
        if not self.weight_:
            return None
        score = {n: forecast[n].quality - self.weight_ * amount(forecast[n], self.minimise) for n in self.targets_}
        return max(self.targets_, key=score.__getitem__)  # the first of equals, as argmax takes it

    def _hidden(self, here: set[str], forecast: dict[str, Forecast]) -> str | None:
        """Name a target of the calibration that is away, its profile with it, so that nobody can say whether the rule would choose it."""
        away = (n for n in self.targets_ if n not in here and not isfinite(amount(forecast[n], self.minimise)))
        return next(away, None) if self.weight_ else None

    def _shares(
        self,
        reference: str | None,
        choice: str | None,
        here: set[str],
        forecast: dict[str, Forecast],
        changed: list[str],
    ) -> tuple[dict[str, float], list[str]]:
        """Return the probabilities of those that may be chosen, and what there is to say."""
        if reference is None or reference not in here:
            stand_in = min(here, key=lambda n: (-forecast[n].quality, n))
            why = (
                f"{reference} is not eligible now" if reference else "there is no reference before `fairlead calibrate`"
            )
            return {stand_in: 1.0}, [f"no promise: {why}; {stand_in} stands in, best by forecast"]
        if choice is None:
            why = "it was not calibrated; run `fairlead calibrate`"
            if self.reference_:
                why = f"nothing cheaper could be shown to keep it on {self.figures_['queries']:,.0f} queries"
            return {reference: 1.0}, [f"promise: the reference {reference} serves: {why}"]
        if changed:
            why = f"the profile of {', '.join(changed)} has changed since calibration; run `fairlead calibrate`"
            return {reference: 1.0}, [f"no promise now: the reference {reference} serves: {why}"]
        promised = f"{self.keep:.0%} of {reference}'s quality with {self.confidence:.0%} confidence"
        if choice not in here:
            return {reference: 1.0}, [f"promise of {promised}: {choice} is away, the reference serves"]
        if choice == reference:
            said = f"promise of {promised}: the rule chooses the reference itself"
            return {reference: 1.0}, [said, *self._retreat()]
        if self.alarm_:
            return {reference: 1.0 - self.explore, choice: self.explore}, [f"promise of {promised}", *self._retreat()]
        figures = self.figures_
        shown = f"shown on {figures['queries']:,.0f} queries: {figures['quality']:.1%} at {figures['amount']:.0%} of its {self.minimise}"
        return {choice: 1.0 - self.explore, reference: self.explore}, [f"promise of {promised}, {shown}"]

    def _retreat(self) -> list[str]:
        return [f"the promise cannot be kept now (alarm: {self.alarm_}): the reference serves"] if self.alarm_ else []

    # ------------------------------------------------------------------------------------------------ watching

    def learn(self, trace: Trace, reward: Reward) -> None:
        """Watch one judged answer. Left out are answers by a fallback and those whose choice the record does not show. An answer counts once and whole,
        by the first judgement of it that counts for half or more (`Reward.evidence`)."""
        if reward.evidence is None:
            return
        options = {o.plan.targets()[0]: o for o in trace.decision.options}
        forecast = {n: o.forecast for n, o in options.items() if o.forecast is not None}
        served = credited(trace)
        if served is None or not self.weight_ or not set(self.targets_) <= set(forecast):
            return
        choice = self._choice(forecast)
        assert choice is not None
        p_c, p_r = options[choice].probability, options[self.reference_].probability
        self.watch(
            reward.evidence,
            by_choice=served == choice,
            forecasts=(forecast[choice].quality, forecast[self.reference_].quality),
            probabilities=None if choice == self.reference_ else (p_c, p_r),
        )

    def watch(
        self,
        quality: float,
        *,
        by_choice: bool,
        forecasts: tuple[float, float],
        probabilities: tuple[float, float] | None,
    ) -> None:
        """Take one judged answer into account, and retreat or return if the evidence is there.

        Args:
            quality: of the answer.
            by_choice: whether the rule's choice gave it, not the reference.
            forecasts: quality forecast of (choice, reference).
            probabilities: of (choice, reference) in the decision; None where the two are one. An answer from before the last alarm or
                return, whose probabilities are the other way round, is left out.
        """
        keep, rare, (f_c, f_r) = self.keep, self.explore, forecasts
        if not rare:
            return
        if probabilities is None:
            z = (1.0 - keep) * quality
            short: float | None = z * (1.0 - rare)  # as often as where choice and reference differ
        else:
            p_c, p_r = probabilities
            seldom = p_c if self.alarm_ else p_r
            if not isclose(seldom, rare, abs_tol=1e-9) or not isclose(p_c + p_r, 1.0, abs_tol=1e-9):
                return
            error = (quality - f_c) / p_c if by_choice else -keep * (quality - f_r) / p_r
            z = f_c - keep * f_r + error
            short = quality - keep * min(1.0, max(0.0, f_r + self.bias_)) if by_choice else None
        self.judged_ += 1
        # Bounds for all queries alike: a bet that knew the query could win against a promise that holds on average.
        if self.alarm_:
            most = max(keep + 1.0 / rare - 1.0, keep / (1.0 - rare))
            if self._bet("back", z / most) >= ln(self.patience):
                log.warning("promise of %g of %s's quality: it can be kept again", keep, self.reference_)
                self.alarm_ = ""
                self._rest()
            return
        bar, most = ln(2.0 * self.patience), max(1.0 / (1.0 - rare), 1.0 + keep * (1.0 / rare - 1.0))
        if self._bet("measured", -z / most) >= bar:
            self._sound("measured")
        elif short is not None and self._bet("forecast", -short) >= bar:
            self._sound("forecast")

    def _bet(self, watch: str, gain: float) -> float:
        """Let the bets of a watch win or lose `gain`, which is at least -1; return the log of their mean wealth."""
        before_G = self.watches_.get(watch, np.zeros(len(BETS)))
        after_G: Floats = np.maximum(before_G, 0.0) + np.log1p(BETS * gain)
        self.watches_ = {**self.watches_, watch: after_G}
        most = float(after_G.max())
        return most + ln(float(np.exp(after_G - most).mean()))

    def _sound(self, watch: str) -> None:
        log.warning(
            "promise of %g of %s's quality: the watch %r says it is broken; %s serves from now on",
            *(self.keep, self.reference_, watch, self.reference_),
        )
        self.alarm_, self.alarms_ = watch, self.alarms_ + 1
        self._rest()

    def _rest(self) -> None:
        self.watches_, self.judged_ = {}, 0

    def decay(self, keep: float) -> None:
        """Weigh the evidence less. What calibration found stays."""
        self.watches_ = {name: keep * log_G for name, log_G in self.watches_.items()}


def _said(profile: Profile) -> str:
    return " ".join(str(getattr(profile, name)) for name in _READ)
