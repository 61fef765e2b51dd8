"""Addresses in requests: which ones a target may be told to fetch.

The gateway fetches nothing that a request names. Targets do: a provider from its own network, a model server from yours, with whatever it can
reach there (server-side request forgery); ``gs://`` and ``s3://`` are fetched with the operator's credentials. So no address is passed on, unless
``gateway.urls.allow`` names its host. Bytes in the request itself (``data:``) always are.

==========================  =========================================================================================================
pattern                     allows
==========================  =========================================================================================================
``images.example.org``      ``https://images.example.org/…``, at the default port
``*.example.org``           hosts below ``example.org``, not itself
``example.org:8443``        that port
``http://example.org``      plain HTTP; in the same way ``gs://bucket`` and ``s3://bucket``
``*``                       every host by name over HTTPS; ``http://*`` over HTTP
==========================  =========================================================================================================

Never: an address of numbers in whatever spelling (``127.0.0.1``, ``2130706433``, ``0x7f.1``, ``[::1]``), user names, what URL parsers read
differently (backslashes, spaces, other alphabets in the host). Names are not resolved: whose name leads where is the business of whoever allows it,
as is where an allowed host redirects to.

Looked at are messages and the parts in them whatever their type, tools that are run elsewhere (MCP), and every other field with something within:
targets know more of them than we do. Text, names of files, schemas, and the arguments of calls are not: nobody fetches them.

Cost: two counts of bytes and one pass where messages are plain text (1 µs for 4 kB), else one decoding of the messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from fairlead.gateway.refusal import Refused
from fairlead.targets.wire import NULL

_ADDRESS: Final = re.compile(
    r"(https?|gs|s3)://([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::([0-9]{1,5}))?(?:[/?#][^\x00-\x20\x7f\\]*)?", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[\x00-\x20]*(?:(?:https?|ftps?|file|gs|s3):|[a-z][a-z0-9+.-]*:[/\\])", re.IGNORECASE)
_DATA: Final = re.compile(r"data:", re.IGNORECASE)
_NAMED: Final = ("url", "uri")
_PORTS: Final = {"https": "443", "http": "80"}
_WORDS: Final = frozenset(
    {"detail", "text", "refusal", "thinking", "filename", "title", "context", "role", "name", "type", "tool_call_id"}
)
"""Members that hold words, whatever these look like."""
_OURS: Final = frozenset({"tool_calls", "function_call", "annotations", "citations", "cache_control"})
"""Members that hold what a model has said."""
_SCHEMAS: Final = frozenset({"function", "custom", "parameters", "input_schema", "description", "format", "strict"})
"""Members of a tool that the client runs itself."""
_SILENT: Final = frozenset(
    {
        *(
            "metadata",
            "documents",
            "prediction",
            "response_format",
            "functions",
            "guided_json",
            "structured_outputs",
            "fairlead",
        ),
        *(
            "model",
            "stream",
            "user",
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "max_completion_tokens",
            "stop",
            "n",
            "seed",
        ),
        *("stream_options", "tool_choice", "logit_bias", "reasoning_effort", "parallel_tool_calls"),
    }
)
"""Fields of a request that hold what nobody fetches: notes, texts with their sources, schemas; and numbers and names."""


class _Said(Struct, forbid_unknown_fields=True):
    """A message that is nothing but text."""

    role: Raw = NULL
    content: Raw = NULL
    name: Raw = NULL
    tool_call_id: Raw = NULL
    refusal: Raw = NULL
    reasoning_content: Raw = NULL


_decode = msgspec.json.Decoder().decode
_said = msgspec.json.Decoder(list[_Said]).decode


def check(fields: Mapping[str, Raw], allow: Sequence[str]) -> None:
    """Raise `Refused` (400) if a request names an address that `allow` does not."""
    for field, given in fields.items():
        if field in _SILENT or _plain(field, raw := bytes(given)):
            continue
        for where, value, named in _strings(_read(raw), field):
            if value and _is_address(value, named) and not allowed(value, allow):
                found = _ADDRESS.fullmatch(value)
                what = f"the host {found[2][:100]!r} is" if found else "such an address is"
                text = f"{where}: {what} not allowed; send the data itself as a data: URL (or have the host put into `gateway.urls.allow`)"
                raise Refused(400, text, code="url_not_allowed", param=where, retry=False)


def allowed(url: str, allow: Sequence[str]) -> bool:
    """Whether one of the patterns allows an address."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return False
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    if scheme in _PORTS and _NUMBER.fullmatch(host.rpartition(".")[2]):
        return False
    port = port or _PORTS.get(scheme, "")
    for pattern in allow:
        of, _, name = pattern.lower().rpartition("://")
        name, _, at = name.partition(":")
        if (of or "https") != scheme or (at or _PORTS.get(scheme, "")) != port:
            continue
        if name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]) and host != name[2:]):
            return True
    return False


def _is_address(value: str, named: bool) -> bool:
    """Whether a target may take `value` for something to fetch; `named`: it stands where addresses do, and there a bare path is one, too."""
    return not _DATA.match(value) and (named or _SCHEME.match(value) is not None)


def _plain(field: str, raw: bytes) -> bool:
    """Whether there is nothing in it that could name an address: of messages, nothing but text in members that we know; else no object."""
    objects = raw.count(b"{")
    if not objects:
        return not field.endswith(_NAMED)
    if field != "messages" or raw.count(b"[") > 1:
        return False
    try:
        return objects == len(_said(raw))
    except (msgspec.DecodeError, RecursionError):
        return False


def _read(raw: bytes) -> Any:
    try:
        return _decode(raw)
    except msgspec.DecodeError:  # a number that is too large for us
        return json.loads(raw, parse_int=str, parse_float=str)


def _strings(value: Any, field: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (where, string, whether its name says that it is an address), of what a target may look at."""
    todo: list[tuple[str, Any, bool, int]] = [(field, value, field.endswith(_NAMED), 0)]
    while todo:
        where, item, named, depth = todo.pop()
        if isinstance(item, str):
            if depth > 1 or named:
                yield where, item, named
        elif isinstance(item, list):
            for i, inner in reversed(list(enumerate(item))):
                # A message's content in pieces may be bare strings, which are text.
                if not (isinstance(inner, str) and where.endswith(".content")):
                    todo.append((f"{where}[{i}]", inner, named, depth + 1))
        elif isinstance(item, dict):
            own = field == "tools" and depth == 1 and item.get("type", "function") in ("function", "custom")
            for key, inner in item.items():
                if own and key in _SCHEMAS:
                    continue
                here = named or key.lower().endswith(_NAMED)
                if key in _OURS or (depth < 2 and key.startswith(("reasoning", "thinking"))):
                    continue
                if isinstance(inner, str) and (
                    key in _WORDS or (depth < 2 and field == "messages" and key == "content")
                ):
                    continue
                todo.append((f"{where}.{key}", inner, here, depth + 1))
