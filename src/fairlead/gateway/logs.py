"""Logs: standard `logging`, as text or as one JSON object a line, each record inside a request with its id.

`setup` is called by the command line alone; a gateway that is embedded logs where its host's configuration says. With ``access: true`` there is one line
for each request, under the logger ``fairlead.access``: figures and names, never text of prompts or answers, never an error's message.

Secrets are kept out where they arise. This is the second wall: `Redactor` takes the values that the config refers to, and whatever looks like a key, out of
every line. It cannot know a client's wrong key; nothing logs one.

Cost: nothing for a request that logs nothing but one `ContextVar.set` (50 ns); an access line about 15 µs, and the write.
"""

from __future__ import annotations

import contextvars
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec

from fairlead.secret import redact

if TYPE_CHECKING:
    from fairlead.config import Config, LogConfig
    from fairlead.types import Trace

REQUEST: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("fairlead_request", default="")
"""Id of the request that is being answered."""
ACCESS: Final = "fairlead.access"
SHORTEST: Final = 6
"""Characters of a value that is taken for a secret; what is shorter is a port or a flag."""

_REFERENCES: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_OWN_KEY: Final = re.compile(r"\bfl-[\w-]{20,}")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

access: Final = logging.getLogger(ACCESS)


class Redactor:
    """Takes secrets out of lines."""

    def __init__(self) -> None:
        self.secrets: tuple[str, ...] = ()

    def learn(self, config: Config) -> None:
        """Know the values of the variables that a config refers to, beside those of the config before."""
        names = {a or b for text in _strings(msgspec.to_builtins(config.file)) for a, b in _REFERENCES.findall(text)}
        values = {v.strip() for n in names if len(v := os.environ.get(n, "")) >= SHORTEST}
        # The longest first: one may be part of another.
        self.secrets = tuple(sorted({*self.secrets, *values}, key=lambda v: (-len(v), v)))

    def __call__(self, text: str) -> str:
        """Return `text` without them."""
        return _OWN_KEY.sub("[secret]", redact(text, *self.secrets))


redactor: Final = Redactor()
"""Of this process."""


class Plain(logging.Formatter):
    """Lines of text."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line = super().format(record)
        id, fields = REQUEST.get(), getattr(record, "fields", None)
        if fields:
            line += " " + " ".join(f"{k}={v}" for k, v in fields.items() if v is not None)
        if id and id not in line:
            line += f" [{id}]"
        return redactor(line)


class Json(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, the request's ``id``, and what else a record brings."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self.worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        at = time.gmtime(record.created)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', at)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redactor(record.getMessage()),
        }
        if self.worker is not None:
            line["worker"] = self.worker
        if id := REQUEST.get():
            line["id"] = id
        for key, value in (getattr(record, "fields", None) or {}).items():
            if value is not None:
                line[key] = redactor(value) if isinstance(value, str) else value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["stack"] = redactor(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def setup(settings: LogConfig, *, worker: int | None = None, stream: TextIO | None = None) -> None:
    """Log to `stream` (None: standard error) as configured, in place of whatever the root logger did.

    Args:
        settings: of the config file.
        worker: number of this process among several.
        stream: where to.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json(worker) if settings.format == "json" else Plain())
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    # The lines of an operator's interest come out at any level; those of requests only if they are wanted.
    access.setLevel(logging.INFO if settings.access else logging.CRITICAL)
    logging.getLogger(LIFE).setLevel(min(logging.INFO, root.level) if settings.format == "json" else logging.NOTSET)


LIFE: Final = "fairlead.life"
"""The logger of start, reload and end. As JSON its lines come out at any level: whoever collects logs wants to know when a process began."""
life: Final = logging.getLogger(LIFE)


def answered(
    trace: Trace, *, status: int, seconds: float, overhead: float, config: str, fallbacks: int, dropped: str = ""
) -> None:
    """Write the line of one request."""
    query, outcome = trace.query, trace.outcome
    tokens = outcome.tokens
    fields = {
        "id": trace.id,
        "api": query.api,
        "route": query.route,
        "target": outcome.target or None,
        "status": status,
        "seconds": round(seconds, 6),
        "overhead_seconds": round(overhead, 6),
        "input_tokens": None if tokens is None else tokens.input,
        "output_tokens": None if tokens is None else tokens.output,
        "usd": trace.usd,
        "key": query.identity.key,
        "tenant": query.identity.tenant,
        "config": config or None,
        "error": None if outcome.error is None else outcome.error.kind,
        "dropped": dropped or None,
        "retries": sum(s.outcome.retries for s in trace.steps) or None,
        "fallbacks": fallbacks or None,
    }
    access.info("answered", extra={"fields": fields})


def refused(path: str, *, status: int, code: str, seconds: float, key: str | None) -> None:
    """Write the line of a request that was refused before anything was decided. `key`: None where it was not read so far."""
    fields = {"path": path[:200], "status": status, "error": code, "seconds": round(seconds, 6), "key": key}
    access.info("refused", extra={"fields": fields})


def _strings(data: Any) -> Iterator[str]:
    match data:
        case str():
            yield data
        case dict():
            for value in data.values():
                yield from _strings(value)
        case list() | tuple():
            for value in data:
                yield from _strings(value)
