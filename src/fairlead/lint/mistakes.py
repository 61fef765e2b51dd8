"""All mistakes of a config at once, where `config.make` tells the first: a wrong rule or guard is set aside, and the rest is read again."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, Final

from fairlead import config
from fairlead.errors import ConfigError

MOST: Final = 200
"""So many mistakes are told at most."""
_NEVER: Final = {"length": {"lt": 0}}
_PLACE: Final = re.compile(
    r"^(\$\..*?(?:\.rules|\bguards)\[\d+\]|\$\.conditions\.[^.]+|\$\.routes\..*?\.default)(?=[.\[]|$)"
)


def read(path: str | Path) -> tuple[config.Config | None, list[ConfigError], bool]:
    """Return the config, or None and all mistakes that can be told; and whether these are all.

    Raises:
        ConfigError: if the file cannot be read, or is not YAML.
    """
    try:
        return config.load(path), [], True
    except ConfigError as e:
        if e.path == "$":
            raise
    data = copy.deepcopy(config.parse(Path(path).read_text("utf-8"), name=str(path)))
    found: list[ConfigError] = []
    while len(found) < MOST:
        try:
            config.make(data, folder=Path(path).parent)
        except ConfigError as e:
            found.append(e)
            if not _set_aside(data, e.path):
                return None, found, False
        else:
            return None, found, True
    return None, found, False


def _set_aside(data: Any, path: str) -> bool:
    """Put something that says nothing in the place of the rule, guard, condition or default at `path`; False if it stands in none."""
    at = _PLACE.match(path)
    if at is None:
        return False
    place = at[1]
    own = f"(set aside: {place})"  # names must differ
    if place.endswith(".default"):
        new: Any = "refuse"
    elif place.startswith("$.conditions."):
        new = _NEVER
    elif "guards[" in place:
        new = {"name": own, "when": _NEVER, "do": ["block"]}
    else:
        new = {"name": own, "when": _NEVER, "use": "refuse"}
    return _put(data, place.removeprefix("$"), new)


def _put(data: Any, path: str, new: Any) -> bool:
    """Replace what stands at `path`. Names may hold dots, so all keys with which the path goes on are tried."""
    for key, rest in _steps(data, path):
        if not rest:
            if data[key] == new:  # it is the replacement that is wrong: no end otherwise
                return False
            data[key] = new
            return True
        if _put(data[key], rest, new):
            return True
    return False


def _steps(data: Any, path: str) -> list[tuple[Any, str]]:
    match data:
        case dict():
            return [
                (key, rest)
                for key in data
                if path.startswith(f".{key}") and ((rest := path[len(str(key)) + 1 :]) == "" or rest[0] in ".[")
            ]
        case list():
            index = re.match(r"\[(\d+)\]", path)
            if index and int(index[1]) < len(data):
                return [(int(index[1]), path[index.end() :])]
    return []
