"""What the drivers share: cases that run one by one, each told as a line of JSON.

A driver is a script that is given its clients' side of the world in the environment (`FAIRLEAD_URL`, `FAIRLEAD_KEY`) and as argument the names of the
targets to ask for. Each function under `@case` is called with each of these names, each under `@once` with none. What it raises is why it failed;
`Skip` says that there is nothing to try.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

URL = os.environ.get("FAIRLEAD_URL", "http://127.0.0.1:4356")
KEY = os.environ.get("FAIRLEAD_KEY", "unused")
WHY_CHARACTERS = 600

_cases: list[tuple[Callable[..., Any], bool]] = []


class Skip(Exception):
    """There is nothing to try here; says why."""


def case(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run it with each target's name. Its name is the case's, its docstring is for readers."""
    _cases.append((function, True))
    return function


def over(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run it with each target's name and each of these kinds, such as formats that the client speaks."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for kind in kinds:
            made = functools.partial(function, kind=kind)
            made.__name__ = f"{kind}: {function.__name__}"  # type: ignore[attr-defined]
            _cases.append((made, True))
        return function

    return register


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run it once, without a name."""
    _cases.append((function, False))
    return function


def check(holds: object, what: object = "") -> None:
    """Fail with `what` was found, unless it holds: an assert that is not optimised away."""
    if not holds:
        raise AssertionError(str(what))


def tell(name: str, behind: str, outcome: str, why: str = "") -> None:
    """Print the result of one case."""
    print(json.dumps({"case": name, "behind": behind, "outcome": outcome, "why": why[:WHY_CHARACTERS]}), flush=True)


def _run(function: Callable[..., Any], behind: str) -> None:
    name = function.__name__.replace("_", " ")
    try:
        made = function(behind) if behind else function()
        if inspect.iscoroutine(made):
            asyncio.run(asyncio.wait_for(made, 60))
    except Skip as e:
        tell(name, behind, "skipped", str(e))
    except Exception as e:  # noqa: BLE001 - whatever it is, it is the result
        where = [f for f in traceback.extract_tb(e.__traceback__) if "clients" in f.filename]
        at = f" ({os.path.basename(where[-1].filename)}:{where[-1].lineno})" if where else ""
        tell(name, behind, "failed", f"{type(e).__name__}: {e}{at}")
    else:
        tell(name, behind, "passed")


def main() -> None:
    """Run every case of the driver."""
    for function, each in _cases:
        for behind in sys.argv[1:] if each else [""]:
            _run(function, behind)
