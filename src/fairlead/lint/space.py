"""Everything that signals can say, cut into as few cells as a set of conditions can tell apart, and a solver over these. Ours.

A condition compares one key with constants at a time. So the constants that stand in any condition or law cut the line of a key's numbers into
points and open intervals, inside of which no test changes; of strings, those that are mentioned count, and one that stands for the rest;
and there may be null. One value stands for each cell that the signal's range allows. This loses nothing: a condition is true of some
reading if and only if it is true of one made of such values.

The solver (z3, de Moura and Bjørner 2008) sees Booleans only: of a key with cells 0 … m-1 the variables "at least cell i", each implied by
the next. What signals promise (`Signal.laws`, `laws_at`) is added, and that a late signal says nothing: all null, confidence 0. The keys of different
signals are independent of each other, as far as is known here.

Any signal may be late, for one that breaks is. With a slow one that is expected, and every question counts with it; of the others only a
question that says so does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, TypeGuard

from fairlead.conditions import All, AnyOf, Condition, Not, Sure, Test, compile, parse, passes
from fairlead.errors import ConfigError, FairleadError
from fairlead.signals.base import Range, Signal, within
from fairlead.types import Reading, Scalar, Signals

Variable: TypeAlias = tuple[str, Literal["value", "confidence", "late"]]
"""A key's value, or a signal's confidence or lateness."""
Point: TypeAlias = dict[Variable, Scalar]
"""A value for every variable."""

_SURE: Final = Range(kind="number", low=0.0, high=1.0)
_OTHER: Final = "something else"


def solver_package() -> Any:
    """Return z3. Raises `ConfigError` where it is not installed."""
    try:
        import z3
    except ImportError as e:
        raise ConfigError("lint needs z3, which is not installed: pip install 'fairlead[rules]'") from e
    return z3


# --------------------------------------------------------------------------------------------------------------- cells


def cells(allowed: Range | None, constants: Iterable[Scalar]) -> tuple[Scalar, ...]:
    """Return a value for each part of a range that tests against `constants` tell apart. None: anything at all is allowed."""
    constants = list(constants)
    found: list[Scalar] = [None] if allowed is None or allowed.null else []
    kind = None if allowed is None else allowed.kind
    if kind in (None, "bool"):
        found += [False, True]
    if kind in (None, "int", "number"):
        points = {c for c in constants if _finite(c)}
        low, high = (None, None) if allowed is None else (allowed.low, allowed.high)
        found += _numbers(points, low, high, whole=kind == "int")
    if kind in (None, "string"):
        among = None if allowed is None else allowed.among
        said = sorted({c for c in constants if isinstance(c, str) and (among is None or c in among)})
        if among is None:
            rest = _OTHER
            while rest in said:
                rest += "…"
            found += [*said, rest]
        else:
            found += [*said, *[s for s in among if s not in said][:1]]
    return tuple(found)


def _finite(value: Scalar) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(points: set[int | float], low: float | None, high: float | None, *, whole: bool) -> Iterator[int | float]:
    ends = sorted(points | {e for e in (low, high) if e is not None})
    least = -math.inf if low is None else low
    most = math.inf if high is None else high
    for a, b in pairwise([-math.inf, *ends, math.inf]):
        if math.isfinite(a) and least <= a <= most and (not whole or a == math.floor(a)):
            yield int(a) if whole else a
        if least <= a and b <= most and (inside := _between(a, b, whole)) is not None:
            yield inside


def _between(a: float, b: float, whole: bool) -> int | float | None:
    """Return a plain number strictly between; None if there is none."""
    if a == -math.inf:
        # below -5: -6; below anything: 0
        return 0 if b == math.inf else math.ceil(b) - 1
    if b == math.inf or whole:
        next_ = math.floor(a) + 1
        return next_ if next_ < b else None
    middle = a + (b - a) / 2
    for digits in range(1, 17):
        short = float(f"{middle:.{digits}g}")
        if a < short < b:
            return short
    return middle if a < middle < b else None


# --------------------------------------------------------------------------------------------------------------- space


class Space:
    """What the signals named by `conditions` can say, and a solver over it.

    Args:
        signals: by name; those that no condition names are left out.
        conditions: everything that will be asked.
    """

    def __init__(self, *, signals: Mapping[str, Signal], conditions: Iterable[Condition]) -> None:
        self.z3 = solver_package()
        asked = list(conditions)
        self.signals = {n: signals[n] for n in dict.fromkeys(n for c in asked for n in _names(c)) if n in signals}
        self.slow = [n for n, s in self.signals.items() if s.slow or type(s).takes_long is not Signal.takes_long]
        constants: dict[Variable, list[Scalar]] = {}
        for c in asked:
            for variable, said in _constants(c):
                constants.setdefault(variable, []).extend(said)
        self.laws: dict[str, list[Condition]] = {}
        for name, signal in self.signals.items():
            own = [said for (key, what), said in constants.items() if what == "value" and key.partition(".")[0] == name]
            numbers = sorted({x for said in own for x in said if _finite(x)})
            self.laws[name] = [_of(parse(law), name) for law in (*signal.laws(), *signal.laws_at(numbers))]
        for c in (law for laws in self.laws.values() for law in laws):
            for variable, said in _constants(c):
                constants.setdefault(variable, []).extend(said)
        self.ranges: dict[str, Range | None] = {}
        for name, signal in self.signals.items():
            ranges, open_ended = signal.ranges(), signal.parts() is None
            for (key, what), _ in constants.items():
                if what == "value" and key.partition(".")[0] == name:
                    part = key.partition(".")[2] or "value"
                    if part in ranges or not open_ended:
                        # A value that there never is: null alone.
                        self.ranges[key] = ranges.get(part, Range(kind="string", among=(), null=True))
                    else:
                        self.ranges[key] = None
        self.cells: dict[Variable, tuple[Scalar, ...]] = {
            (key, "value"): cells(allowed, constants[key, "value"]) for key, allowed in self.ranges.items()
        }
        for variable, said in constants.items():
            if variable[1] == "confidence":
                self.cells[variable] = cells(_SURE, said)
        self.never_null: set[Variable] = set()
        """Keys that are null only where their signal is late."""
        for variable, values in self.cells.items():
            if variable[1] == "value" and None not in values:
                self.cells[variable] = (None, *values)
                self.never_null.add(variable)
        for name in self.signals:
            self.cells[name, "late"] = (False, True)
        # Finite domains: a SAT solver underneath, that keeps what it learned from one question to the next.
        self._solver = self.z3.SolverFor("QF_FD")
        self._steps: dict[Variable, list[Any]] = {}
        self._declared: dict[Variable, list[Any]] = {}
        self._true, self._false = self.z3.BoolVal(True), self.z3.BoolVal(False)
        for number, (variable, values) in enumerate(self.cells.items()):
            steps = [self.z3.Bool(f"v{number}_{i}") for i in range(1, len(values))]
            self._steps[variable] = steps
            self._declared[variable] = [step.decl().ast for step in steps]
            for a, b in pairwise(steps):
                self._solver.add(self.z3.Implies(b, a))
        for name, laws in self.laws.items():
            for law in laws:
                self._solver.add(self.z3.Or(self.late(name), self.formula(law)))
        for variable in self.never_null:
            null = self._region(variable, [v is None for v in self.cells[variable]])
            self._solver.add(self.z3.Implies(null, self.late(variable[0].partition(".")[0])))
        for name in self.signals:
            late = self.late(name)
            for variable in self.cells:
                if variable[0].partition(".")[0] == name and variable[1] != "late":
                    nothing = [v is None if variable[1] == "value" else v == 0.0 for v in self.cells[variable]]
                    self._solver.add(self.z3.Implies(late, self._region(variable, nothing)))
        self._fresh = 0
        self._in_time = self.name(self.z3.And([self.z3.Not(self.late(n)) for n in self.signals if n not in self.slow]))
        self._keys = [(v, *v[0].partition(".")[::2]) for v in self.cells if v[1] == "value"]
        self._bounded = [(k, k.partition(".")[0], allowed) for k, allowed in self.ranges.items() if allowed is not None]
        self._law = {name: compile(All(tuple(laws))) for name, laws in self.laws.items() if laws}

    # ---------------------------------------------------------------------------------------------------- formulas

    def formula(self, condition: Condition) -> Any:
        """Return `condition` as the solver's own."""
        match condition:
            case Test(key, op, value):
                variable: Variable = (key, "value")
                return self._region(variable, [passes(v, op, value) for v in self.cells.get(variable, (None,))])
            case Sure(signal, op, least):
                variable = (signal, "confidence")
                return self._region(variable, [passes(v, op, least) for v in self.cells[variable]])
            case All(parts):
                return self.z3.And([self.formula(p) for p in parts])
            case AnyOf(parts):
                return self.z3.Or([self.formula(p) for p in parts])
            case Not(part):
                return self.z3.Not(self.formula(part))

    def late(self, signal: str) -> Any:
        """Return that `signal` is late."""
        return self._steps[signal, "late"][0]

    def name(self, formula: Any) -> Any:
        """Return a Boolean that is true exactly where `formula` is: what questions are made of."""
        self._fresh += 1
        literal = self.z3.Bool(f"q{self._fresh}")
        self._solver.add(literal == formula)
        return literal

    def _region(self, variable: Variable, inside: Sequence[bool]) -> Any:
        """Return that `variable` is in one of the cells that are `inside`: runs of cells, each between two steps."""
        steps = self._steps.get(variable, [])
        runs = []
        i, n = 0, len(inside)
        while i < n:
            if not inside[i]:
                i += 1
                continue
            j = i
            while j < n and inside[j]:
                j += 1
            bounds = [*([steps[i - 1]] if i > 0 else []), *([self.z3.Not(steps[j - 1])] if j < n else [])]
            runs.append(self.z3.And(bounds) if len(bounds) > 1 else bounds[0] if bounds else self._true)
            i = j
        return runs[0] if len(runs) == 1 else self.z3.Or(runs) if runs else self._false

    # --------------------------------------------------------------------------------------------------- questions

    def find(self, *literals: Any, late: bool = False) -> Point | None:
        """Return a point at which all of `literals` are true, no more signals late than need be; None if it is proved that there is none.
        `late`: signals that are not slow may be late too."""
        in_time = [self.z3.Not(self.late(name)) for name in (self.signals if late else self.slow)]
        if not self.possible(*literals, *in_time, late=late):
            if not in_time or not self.possible(*literals, late=late):
                return None
            for literal in in_time:
                if self.possible(*literals, literal, late=late):
                    literals = (*literals, literal)
            self.possible(*literals, late=late)
        # The C interface: the comfortable one takes ten times as long to read a value.
        core, context, model, point = self.z3.z3core, self.z3.main_ctx().ref(), self._solver.model(), {}
        for variable, steps in self._declared.items():
            low, high = 0, len(steps)
            while low < high:  # the last step that is true
                middle = (low + high + 1) // 2
                value = core.Z3_model_get_const_interp(context, model.model, steps[middle - 1])
                if value and core.Z3_get_bool_value(context, value) == self.z3.Z3_L_TRUE:
                    low = middle
                else:
                    high = middle - 1
            point[variable] = self.cells[variable][low]
        return point

    def possible(self, *literals: Any, late: bool = False) -> bool:
        """Say whether all of `literals` can be true at once; `late`: also if signals that are not slow are late."""
        said = self._solver.check(*literals) if late else self._solver.check(self._in_time, *literals)
        if said == self.z3.unknown:
            raise FairleadError(f"internal error of lint: the solver gave up ({self._solver.reason_unknown()})")
        return bool(said == self.z3.sat)

    def culprits(self, fixed: Sequence[Any], suspects: Sequence[Any]) -> list[int]:
        """Of `suspects`, which with `fixed` cannot all be true, return the places of some that cannot be, and of which none can be spared."""
        left = list(range(len(suspects)))
        self.possible(*fixed, *suspects)
        core = {c.get_id() for c in self._solver.unsat_core()}
        left = [i for i in left if suspects[i].get_id() in core]
        for i in tuple(left):
            without = [j for j in left if j != i]
            if not self.possible(*fixed, *(suspects[j] for j in without)):
                left = without
        return left

    # --------------------------------------------------------------------------------------------------- witnesses

    def signals_at(self, point: Point) -> Signals:
        """Return readings as they are at `point`.

        Raises:
            FairleadError: if they are not what the signals say they can be: an error of lint's own.
        """
        signals = self.readings_at(point)
        if not self.lawful(signals):
            raise FairleadError(f"internal error of lint: a witness is not what the signals can say: {signals}")
        return signals

    def readings_at(self, point: Point) -> Signals:
        """Return readings as they are at `point`, which may be any."""
        values: dict[str, Scalar] = {}
        parts: dict[str, dict[str, bool | int | float | str]] = {name: {} for name in self.signals}
        for variable, name, part in self._keys:
            found = point[variable]
            if not part:
                values[name] = found
            elif found is not None:
                parts[name][part] = found
        readings = {}
        for name in self.signals:
            late = point.get((name, "late")) is True
            sure = point.get((name, "confidence"), 0.0 if late else 1.0)
            readings[name] = Reading(
                value=values.get(name), parts=parts[name], confidence=float(sure or 0.0), late=late
            )
        return Signals(readings=readings)

    def lawful(self, signals: Signals) -> bool:
        """Say whether `signals` keep to the ranges and laws, and what is late says nothing."""
        for reading in signals.readings.values():
            if reading.late and (reading.value is not None or reading.parts or reading.confidence):
                return False
        late = {name for name, reading in signals.readings.items() if reading.late}
        for key, name, allowed in self._bounded:
            if name not in late and not within(signals.get(key), allowed):
                return False
        return all(law(signals) for name, law in self._law.items() if name not in late)


def shown(point: Point, about: Iterable[str]) -> dict[str, Scalar]:
    """Return of `point` what concerns the keys in `about`, for people: lateness and confidence by the name of their signal."""
    wanted = list(dict.fromkeys(about))
    signals = {key.partition(".")[0] for key in wanted}
    late = {name for name in signals if point.get((name, "late")) is True}
    found: dict[str, Scalar] = {f"{name} (late)": True for name in sorted(late)}
    found |= {
        key: point[key, "value"] for key in wanted if (key, "value") in point and key.partition(".")[0] not in late
    }
    sure = {n: point[n, "confidence"] for n in sorted(signals - late) if (n, "confidence") in point}
    return found | {f"{name} (confidence)": value for name, value in sure.items()}


def _names(condition: Condition) -> Iterator[str]:
    match condition:
        case Test(key):
            yield key.partition(".")[0]
        case Sure(signal):
            yield signal
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from _names(part)
        case Not(part):
            yield from _names(part)


def _constants(condition: Condition) -> Iterator[tuple[Variable, Sequence[Scalar]]]:
    match condition:
        case Test(key, op, value):
            yield (key, "value"), (value if op == "in" else (value,))
        case Sure(signal, _, value):
            yield (signal, "confidence"), (value,)
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from _constants(part)
        case Not(part):
            yield from _constants(part)


def _of(law: Condition, signal: str) -> Condition:
    """Return a law with its keys as rules write them."""
    match law:
        case Test(key, op, value):
            return Test(signal if key == "value" else f"{signal}.{key}", op, value)
        case All(parts):
            return All(tuple(_of(p, signal) for p in parts))
        case AnyOf(parts):
            return AnyOf(tuple(_of(p, signal) for p in parts))
        case Not(part):
            return Not(_of(part, signal))
        case Sure():
            return law
