"""``fairlead adopt``: let a trained predictor know a new target from at most 30 well-chosen calls."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fairlead import catalog
from fairlead.answers.base import extract, same
from fairlead.errors import ConfigError, FairleadError, TableError, UnknownName

if TYPE_CHECKING:
    from fairlead.bench.training import Manifest, Seen
    from fairlead.config import Config
    from fairlead.predictors.base import Predictor
    from fairlead.probing import Joining
    from fairlead.table import OutcomeTable
    from fairlead.targets.base import Driver
    from fairlead.types import Call, Outcome, Query

Grader: TypeAlias = Callable[[str, str, str | None], float | None]
"""(prompt, answer, reference) -> quality in [0, 1], or None where it cannot tell."""
NAMED = catalog.names("answers")
Z90 = 1.645


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "adopt",
        help="let a trained predictor know a new target from a few calls",
        description="Ask a target of the config a few prompts, chosen for what they tell of it, grade the answers, and write a trained "
        "predictor that knows it. The calls are real and cost what they cost.",
    )
    parser.add_argument(
        "--config", default="fairlead.yaml", metavar="FILE", help="where the target is (default: %(default)s)"
    )
    parser.add_argument(
        "--target", required=True, metavar="NAME", help="a target of the config that the predictor does not know"
    )
    parser.add_argument(
        "--prompts",
        required=True,
        metavar="TABLE",
        help="outcome table to choose prompts from: best the one trained on",
    )
    parser.add_argument("--trained", required=True, metavar="DIR", help="what `fairlead train` wrote (irt or profile)")
    parser.add_argument(
        "--calls", type=int, default=30, metavar="N", help="at most so many calls (default and most: 30)"
    )
    parser.add_argument(
        "--max-usd",
        type=float,
        default=1.0,
        metavar="USD",
        help="spend no more than this; inf: no limit, which a target without prices needs (default: %(default)s)",
    )
    parser.add_argument(
        "--grader",
        default="text",
        metavar="HOW",
        help=f"compare answer and reference as {', '.join(NAMED)}; or module:function",
    )
    parser.add_argument(
        "--reference", default="reference", metavar="COLUMN", help="right answers (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Ask, learn, save, report."""
    import msgspec

    from fairlead import config
    from fairlead.bench.training import MANIFEST, Manifest, load, save
    from fairlead.probing import MOST, Joining
    from fairlead.signals.base import Observer
    from fairlead.table import OutcomeTable

    if not 1 <= args.calls <= MOST:
        raise ConfigError(f"calls must lie in 1 … {MOST}, and {args.calls} does not", path="--calls")
    if not args.max_usd >= 0.0:
        raise ConfigError(f"{args.max_usd} is no sum of money", path="--max-usd")
    read = config.load(args.config)
    driver = read.drivers.get(args.target)
    if driver is None:
        raise UnknownName("target", args.target, read.drivers)
    predictor, seen = load(args.trained)
    manifest = msgspec.json.decode((Path(args.trained) / MANIFEST).read_bytes(), type=Manifest)
    table = OutcomeTable.read(args.prompts)
    grade = grader(args.grader)
    references = _references(table, args.reference, needed=args.grader in NAMED)
    asked = [
        q
        for q, prompt in enumerate(table.prompts)
        if prompt is not None and (args.grader not in NAMED or references[q])
    ]
    if not asked:
        raise TableError(f"{args.prompts}: no prompt has a right answer in the column {args.reference!r}")
    table, references = table.take(asked), [references[q] for q in asked]
    joining = Joining(
        predictor=predictor,
        target=driver.target,
        prompts=table.observed(Observer(signals=read.signals), predictor.needs),
        most=args.calls,
        seed=args.seed,
    )
    asking = _Asking(joining, driver, _bound(read), grade, references, args.max_usd)
    try:
        asyncio.run(asking.all())
    finally:
        if asking.meter.calls:
            # Said whatever comes of it: this much was asked for and spent.
            print(asking.spent(), file=sys.stderr)
    if joining.predictor is predictor:
        raise FairleadError(
            f"none of {len(joining.outcomes)} answers of {args.target} could be graded: {asking.trouble()}"
        )
    adopted = joining.predictor
    save(args.output, adopted, *_noted(manifest, seen, adopted, joining))
    found = _found(joining, predictor)
    if args.json:
        print(json.dumps({"target": args.target, "usd": asking.usd, **found}, indent=2))
    else:
        print(
            f"{args.target}: mean quality {found['quality']:.3f} (90%: {found['low']:.3f} to {found['high']:.3f}) over {len(table):,} "
            f"prompts, from {found['graded']} graded answers; {found['before']:.3f} ({found['before_low']:.3f} to "
            f"{found['before_high']:.3f}) before\nwritten to {args.output}; serve it with {{trained: {args.output}}}"
        )
    return 0


class _Asking:
    """Puts the chosen prompts to the target, a batch at a time, within the money: a call that may not fit is not made."""

    def __init__(
        self,
        joining: Joining,
        driver: Driver,
        bound: Callable[[Call, Query], float | None],
        grade: Grader,
        references: Sequence[str | None],
        max_usd: float,
    ) -> None:
        from fairlead.types import Call, Limits
        from fairlead.worlds.base import Meter

        self.joining, self.driver, self.grade = joining, driver, grade
        self.references, self.max_usd = references, max_usd
        self.queries = list(joining.prompts.queries())
        self.call = Call(target=driver.name, purpose="probe")
        self.meter = Meter(Limits(usd=max_usd), bound)
        self.unpriced = 0
        self.short = ""
        self.broken: list[str] = []

    @property
    def usd(self) -> float:
        """What the calls cost so far."""
        return self.meter.spent_usd

    async def all(self) -> None:
        """Ask until enough were asked, the money is short, or a whole batch fails."""
        await self.driver.start()
        try:
            while not self.short and (rows := self.joining.next()):
                held = self._held(rows)
                if not held:
                    return
                outcomes = await asyncio.gather(*(self._one(q, usd) for q, usd in held.items()))
                # Graded only now that all of the batch is paid for and booked.
                self.joining.tell({q: self._graded(q, o) for q, o in zip(held, outcomes, strict=True)})
                if all(o.error is not None for o in outcomes):
                    return
        finally:
            await self.driver.stop()

    def _held(self, rows: Sequence[int]) -> dict[int, float]:
        """Set aside what asking may cost, row by row, as far as the money goes."""
        from fairlead.types import Failure

        out: dict[int, float] = {}
        for q in rows:
            usd = self.meter.reserve(self.call, self.queries[q])
            if isinstance(usd, Failure):
                self.short = usd.message
                break
            out[q] = usd
        return out

    async def _one(self, q: int, held_usd: float) -> Outcome:
        from fairlead.types import Outcome
        from fairlead.worlds.base import may_cost

        query, outcome = self.queries[q], Outcome(target=self.driver.name, cancelled=True)
        try:
            outcome = await self.driver.ask(self.call, query)
        finally:
            outcome = self.meter.priced(self.call, query, outcome)
            self.meter.settle(held_usd, outcome)
            self.unpriced += outcome.usd is None and may_cost(outcome)
        return outcome

    def _graded(self, q: int, outcome: Outcome) -> Outcome:
        """Grade one answer. A grader that breaks on it costs this answer, not the others that were paid for."""
        import msgspec

        if not outcome.ok:
            return outcome
        try:
            quality = self.grade(self.queries[q].text, outcome.text, self.references[q])
            if quality is not None and not 0.0 <= quality <= 1.0:
                raise ValueError(f"it gave {quality}; a quality lies in [0, 1]")
        except Exception as e:  # noqa: BLE001 - somebody else's code; the answers it would take along are paid for
            self.broken.append(f"the grader broke: {type(e).__name__}: {e}")
            quality = None
        return msgspec.structs.replace(outcome, quality=quality)

    def spent(self) -> str:
        """Say what was asked and spent."""
        unknown = f", {self.unpriced} calls at no known price" if self.unpriced else ""
        broken = f"; {len(self.broken)} answers not graded: {self.broken[0]}" if self.broken else ""
        why = f"; stopped by --max-usd {self.max_usd:g}" if self.short else ""
        return f"{self.meter.calls} calls to {self.driver.name}, {self.usd:.6f} USD{unknown}{broken}{why}"

    def trouble(self) -> str:
        """Say what went wrong first."""
        errors = [o.error for o in self.joining.outcomes.values() if o.error is not None]
        if errors:
            return f"{errors[0].kind}: {errors[0].message}"
        if self.broken:
            return self.broken[0]
        return f"{self.short} (or raise --max-usd; inf: no limit)" if self.short else "the grader could tell of none"


def grader(how: str) -> Grader:
    """Return the grader of that name, or the function ``module:function``.

    Raises:
        ConfigError: if there is none.
    """
    for name in NAMED:
        if how == name:
            return _matcher(name)
    module, colon, function = how.partition(":")
    if not colon:
        raise ConfigError(f"{how!r} is none of {', '.join(NAMED)}, and not module:function", path="--grader")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"{how}: {e}; the module must be on PYTHONPATH", path="--grader") from e
    if not callable(found):
        raise ConfigError(f"{how} is not a function", path="--grader")
    graded: Grader = found
    return graded


def _matcher(how: str) -> Grader:
    def match(_: str, answer: str, reference: str | None) -> float | None:
        if reference is None or extract(reference, how) is None:
            return None
        return float(same(answer, reference, how))

    return match


def _references(table: OutcomeTable, column: str, *, needed: bool) -> list[str | None]:
    """Return the right answer to each prompt: the first that one of its rows has."""
    if column in table.text_extras:
        rows = table.text_extras[column].reshape(len(table), -1)
        return [next((str(v) for v in row if v is not None), None) for row in rows]
    if column in table.extras:
        numbers = table.extras[column].reshape(len(table), -1)
        return [next((f"{v:g}" for v in row if v == v), None) for row in numbers]
    if needed:
        raise UnknownName("column of right answers", column, [*table.text_extras, *table.extras])
    return [None] * len(table)


def _bound(read: Config) -> Callable[[Call, Query], float | None]:
    from fairlead.pool import Pool

    return Pool(targets=[d.target for d in read.drivers.values()]).estimate_usd


def _found(joining: Joining, before: Predictor) -> dict[str, Any]:
    """Sum up what is believed of the target's mean quality over the prompts, before and after."""
    was, now = before.belief(joining.target, joining.prompts), joining.predictor.belief(joining.target, joining.prompts)
    graded = sum(o.quality is not None for o in joining.outcomes.values())
    out: dict[str, Any] = {"calls": len(joining.outcomes), "graded": graded}
    for prefix, belief in (("", now), ("before_", was)):
        out[prefix.rstrip("_") or "quality"] = round(belief.mean, 4)
        out[f"{prefix}low"] = round(max(0.0, belief.mean - Z90 * belief.mean_sd), 4)
        out[f"{prefix}high"] = round(min(1.0, belief.mean + Z90 * belief.mean_sd), 4)
    return out


def _noted(manifest: Manifest, seen: Seen, adopted: Predictor, joining: Joining) -> tuple[Manifest, Seen]:
    """Bring the notes beside the predictor up to date: the prompts that were asked have been seen."""
    import msgspec

    asked = joining.prompts.take([*joining.outcomes])
    graded = sum(o.quality is not None for o in joining.outcomes.values())
    manifest = msgspec.structs.replace(
        manifest, digest=adopted.digest(), models=tuple(adopted.targets_), scored=manifest.scored + graded
    )
    seen = msgspec.structs.replace(
        seen,
        ids=tuple(dict.fromkeys([*seen.ids, *asked.query_ids])),
        prompts=tuple(dict.fromkeys([*seen.prompts, *(h for h in asked.prompt_hashes if h is not None)])),
    )
    return manifest, seen
