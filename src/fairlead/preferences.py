"""What an asker would rather have, weighed against quality: small, recent, cheap, fast, terse. After Tryage (Hari, Thomson, 2023, arXiv 2308.11601).

    choose  argmax_i [ utility_i - sum_j lambda_j C_j(i) ],        C_j(i) = (a_j(i) - min_k a_j(k)) / (max_k a_j(k) - min_k a_j(k))

a_j(i) is what target i has of what wish j is against: billions of parameters (`small`), days since release (`recent`), dollars (`cheap`) and
seconds (`fast`) of an answer, tokens written (`terse`). C_j is scaled to [0, 1] over those who may act, so that lambda_j is the quality that is
given up at most for wish j. Who is not known in a counts as the worst, 1; where nobody is known, or all are alike, the wish changes
nothing. The reasons say both.

The form of the objective is inferred from the paper's abstract. Ours: the scaling; wishes come from structured fields of a request and are never
read out of its text; what is hard (regions, allowed targets, budgets) is no wish but takes targets away before anything is weighed
(`Pool.eligible`). `cheap`, `fast` and `terse` go by the policy's forecast of this query where it has one, else `cheap` and `fast` by
the profile: an answer of 500 tokens to 1,000. The scale is linear, so that a sweep of lambda traces the lower convex hull.

Every policy that ranks targets takes it from here: as if each target's answers were worse by its penalty. Checked in
tests/test_preferences.py. Cost: 0.1 µs without wishes; 25 µs for two wishes and 12 targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from math import isfinite
from typing import Final

from fairlead.errors import ConfigError, UnknownName
from fairlead.types import Forecast, Profile, Target, Tokens

DEFAULT_WEIGHT: Final = 0.1
"""What a wish without a weight may cost in quality."""
_TYPICAL: Final = Tokens(input=1000, output=500)


def _age(profile: Profile) -> float | None:
    return None if profile.released is None else _days_before(profile.released)


@lru_cache(maxsize=1024)
def _days_before(released: str) -> float | None:
    """Days from a release to the last day there is: as a scale, age on any day. None for what is no date."""
    try:
        return float((date.max - date.fromisoformat(released)).days)
    except ValueError:
        return None


def _seconds(profile: Profile) -> float | None:
    first, each = profile.first_token_seconds, profile.seconds_per_output_token
    return None if first is None or each is None else first + each * _TYPICAL.output


_OF_PROFILE: Final[Mapping[str, Callable[[Profile], float | None]]] = {
    "small": lambda p: p.parameters_b,
    "recent": _age,
    "cheap": lambda p: p.usd(_TYPICAL),
    "fast": _seconds,
    "terse": lambda _: None,
}
_OF_FORECAST: Final[Mapping[str, Callable[[Forecast], float | None]]] = {
    "cheap": lambda f: f.usd,
    "fast": lambda f: f.seconds,
    "terse": lambda f: f.output_tokens,
}
WISHES: Final = tuple(_OF_PROFILE)
"""What can be wished for."""


def read(text: str) -> dict[str, float]:
    """Read wishes as a header gives them: ``small=0.1, cheap``. A wish without a weight has `DEFAULT_WEIGHT`.

    Raises:
        ConfigError: for a weight that is no number; and as `check` does.
    """
    out: dict[str, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, given, weight = (part.strip() for part in item.partition("="))
        try:
            out[name] = float(weight) if given else DEFAULT_WEIGHT
        except ValueError:
            raise ConfigError(f"{name}={weight}: a weight is a number, as in {name}=0.1") from None
    check(out)
    return out


def check(prefer: Mapping[str, float]) -> None:
    """Raise `UnknownName` for a wish that there is not, `ConfigError` for a weight that is not finite or is below 0."""
    for name, weight in prefer.items():
        if name not in _OF_PROFILE:
            raise UnknownName("wish", name, WISHES)
        if not isfinite(weight) or weight < 0.0:
            raise ConfigError(
                f"the wish {name} has the weight {weight:g}; give the quality that may be given up for it, 0 or more"
            )


def penalties(
    prefer: Mapping[str, float],
    candidates: Sequence[tuple[Target, ...]],
    forecasts: Sequence[Forecast] | None = None,
) -> tuple[list[float], tuple[str, ...]]:
    """Return what is taken off the quality of each candidate, and the reasons in words.

    Args:
        prefer: wish -> weight.
        candidates: the targets of each; of a plan of several the worst counts, since any of them may answer.
        forecasts: of each candidate, where there are.

    Raises:
        UnknownName, ConfigError: as `check`.
    """
    if not prefer:
        return [0.0] * len(candidates), ()
    check(prefer)
    off, said = [0.0] * len(candidates), []
    names = [" then ".join(t.name for t in c) for c in candidates]
    for wish, weight in sorted(prefer.items()):
        found = _amounts(wish, candidates, forecasts)
        known = [a for a in found if a is not None]
        low, high = min(known, default=0.0), max(known, default=0.0)
        unknown = sorted(n for n, a in zip(names, found, strict=True) if a is None)
        if not known or (low == high and not unknown):
            said.append(
                f"wish {wish}={weight:g} changes nothing: {'nobody is known in it' if unknown else 'all are alike'}"
            )
            continue
        for i, a in enumerate(found):
            off[i] += weight * (1.0 if a is None else (a - low) / (high - low) if high > low else 0.0)
        also = f"; not known of {', '.join(unknown)}, which counts as the worst" if unknown else ""
        said.append(f"wish {wish}={weight:g}{also}")
    if any(off):
        taken = ", ".join(f"{n} {o:.3f}" for o, n in sorted(zip(off, names, strict=True)))
        said.append(f"taken off for wishes: {taken}")
    return off, tuple(said)


def _amounts(
    wish: str, candidates: Sequence[tuple[Target, ...]], forecasts: Sequence[Forecast] | None
) -> list[float | None]:
    of_forecast = _OF_FORECAST.get(wish)
    if forecasts is not None and of_forecast is not None:
        found = [of_forecast(f) for f in forecasts]
        if any(a is not None for a in found):
            return found
    of_profile = _OF_PROFILE[wish]
    out: list[float | None] = []
    for targets in candidates:
        amounts = [of_profile(t.profile) for t in targets]
        known = [a for a in amounts if a is not None]
        out.append(max(known) if len(known) == len(amounts) else None)
    return out
