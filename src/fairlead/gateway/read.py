"""From a request's bytes to a `Query`: decode what routing reads, keep the rest as it came.

The top level is split into undecoded fields, of which ``messages`` is read in a typed view; all else is forwarded byte for byte.
What the asker wants of Fairlead itself comes in ``x-fairlead-*`` headers or in a ``fairlead`` object of the body, which is not
forwarded; where both say something, the body wins.

An object that has a key twice is refused, wherever it stands: decoders keep one of the two, and which one a target keeps nobody knows, so
what guards read would not be what it gets.

About 10 µs for 1 kB, 45 µs for 24 kB.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from time import perf_counter
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from fairlead import preferences
from fairlead.errors import ConfigError, UnknownName, suggest
from fairlead.gateway import urls as addresses
from fairlead.gateway.door import Caller
from fairlead.gateway.faces.base import Read
from fairlead.gateway.refusal import Refused, of_validation
from fairlead.targets import wire
from fairlead.types import Constraints, Identity, Message, Query, Task, new_id

HEADER_BYTES: Final = 64 * 1024
LEAST_RATE: Final = 10_000
"""Bytes a second that a body comes at, beyond the first pause: slower ones would fill the house."""
PAUSE_SECONDS: Final = 30.0
"""How long a client may pause in the middle of a body."""
NODES: Final = 200_000
"""The most objects and arrays that a body may hold: a part of a message takes a kilobyte by the time that it is kept."""
MEMBERS: Final = 500_000
"""The most members that its objects may have together."""
_LIGHT: Final = 1_000_000
"""A body of fewer bytes cannot hold so many that it matters."""
_PREFIX: Final = b"x-fairlead-"
_ROLES: Final = b"x-fairlead-roles"
_SPARSE: Final = 500
"""Bytes to an object: in a body of more, mostly text, the standard library looks for keys faster than we write it again."""


class Wishes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request may ask of Fairlead, in headers or in its body."""

    tenant: str | None = None
    user: str | None = None
    session: str | None = None
    episode: str | None = None
    step: Annotated[int, Meta(ge=0)] = 0
    max_usd: Annotated[float, Meta(ge=0)] | None = None
    deadline_seconds: Annotated[float, Meta(gt=0)] | None = None
    max_calls: Annotated[int, Meta(ge=1)] | None = None
    allow: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = None
    prefer: dict[str, float] = {}


class Asked(Struct, frozen=True, kw_only=True):
    """A request, read."""

    query: Query
    stream: bool


class _Named(Struct):
    name: str | None = None


class _Tool(Struct):
    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw])
_messages = msgspec.json.Decoder(tuple[Message, ...])
_string = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)
_tools = msgspec.json.Decoder(tuple[_Tool, ...] | None)
_functions = msgspec.json.Decoder(tuple[_Named, ...] | None)
_wishes = msgspec.json.Decoder(dict[str, Any])
_NOBODY: Final = Identity()
_NOTHING: Final = Constraints()
_NAMES: Final = {b"x-fairlead-" + f.replace("_", "-").encode(): f for f in Wishes.__struct_fields__}


async def read_body(receive: Any, headers: dict[bytes, bytes], limit: int) -> bytes:
    """Read the whole body.

    Raises:
        Refused: 413 as soon as it is known to be larger than `limit`; 400 if the client leaves before its end; 408 if nothing of it comes for
            `PAUSE_SECONDS`, or it comes slower than `LEAST_RATE` thereafter.
    """
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size, since, more = 0, perf_counter(), True
    while more:
        try:
            if not parts:  # the server's protocol sees to it that something comes: most bodies are there already, and a timer is dear
                message = await receive()
            else:
                left = since + PAUSE_SECONDS + size / LEAST_RATE - perf_counter()
                async with asyncio.timeout(min(left, PAUSE_SECONDS)):
                    message = await receive()
        except TimeoutError as e:
            text = f"the body comes too slowly, or nothing of it for {PAUSE_SECONDS:g} s"
            raise Refused(408, text, code="request_timeout", headers=[(b"connection", b"close")]) from e
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request broke off before its end", code="incomplete_body")
        more = message.get("more_body", False)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read(
    body: bytes,
    headers: dict[bytes, bytes],
    known: Collection[str],
    targets: Collection[str],
    caller: Caller | None = None,
    *,
    urls: Sequence[str] | None = None,
) -> Asked:
    """Read a chat request as it came. Arguments and errors as `query`."""
    return query(Read(fields=split(body)), headers, known, targets, caller, urls=urls)


def query(
    read: Read,
    headers: dict[bytes, bytes],
    known: Collection[str],
    targets: Collection[str],
    caller: Caller | None = None,
    *,
    api: str = "chat",
    task: Task = "chat",
    urls: Sequence[str] | None = None,
) -> Asked:
    """Make the query of a request that its face has read.

    Args:
        read: its fields in the chat format.
        headers: lower-case names.
        known: what ``model`` may be: routes and targets.
        targets: what ``allow`` may hold.
        caller: whose key it came with.
        api: the face's name.
        task: what is asked for.
        urls: hosts whose addresses it may name; None: all, for what is sent to nobody.

    Raises:
        Refused: 400 with the path of what is wrong; 404 for an unknown model. What the key may not ask for is not known to it.
    """
    fields, messages = read.fields, read.messages
    field = ""
    try:
        for field in ("messages", "model"):
            if field not in fields and (field == "model" or messages is None):
                hint = 'an array of messages, such as [{"role": "user", "content": "…"}]'
                hint = hint if field == "messages" else '"auto", or a name that GET /v1/models lists'
                raise Refused(400, f"{field} is missing: {hint}", code="missing_required_parameter", param=field)
        if messages is None:
            field = "messages"
            messages = _messages.decode(fields[field])
            if not messages:
                raise Refused(400, "messages: at least one is needed", code="empty_array", param=field)
        field = "model"
        route = _route(_string.decode(fields[field]) or "", known, targets, caller)
        field = "stream"
        stream = field in fields and _flag.decode(fields[field]) is True
        tools: tuple[str, ...] = ()
        for field, names in (("tools", _tool_names), ("functions", _function_names)):
            if field in fields:
                tools += names(fields[field])
        field = "user"
        user = _string.decode(fields[field]) if field in fields else None
    except msgspec.ValidationError as e:
        raise of_validation(e, field) from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Refused(400, f"{field}: not valid JSON: {e}", code="invalid_json", param=field) from e
    if urls is not None:
        addresses.check(fields, urls)
    identity, constraints = _NOBODY, _NOTHING
    own = fields.pop("fairlead", None)
    if own is not None or _PREFIX in b",".join(headers):  # one look for all; `_read_wishes` says which
        roles = _roles(headers.get(_ROLES), caller)
        identity, constraints = _of_wishes(_read_wishes(headers, own), user, targets, caller)
        if roles:
            identity = msgspec.structs.replace(identity, roles=roles)
    elif user:
        identity = Identity(user=user)
    if caller is not None:
        identity = known_as(identity, caller)
        if caller.targets is not None and constraints.allow is None:
            constraints = msgspec.structs.replace(constraints, allow=tuple(sorted(caller.targets)))
    made = Query(
        id=new_id(),
        messages=messages,
        route=route,
        tools=tools,
        body=fields,
        identity=identity,
        constraints=constraints,
        task=task,
        api=api,
        dropped=read.dropped,
    )
    return Asked(query=made, stream=stream)


def known_as(identity: Identity, caller: Caller) -> Identity:
    """Put what a key says of its holder over what a request says of itself."""
    return msgspec.structs.replace(
        identity,
        key=caller.key,
        tenant=caller.tenant or identity.tenant,
        user=caller.user or identity.user,
        roles=tuple(dict.fromkeys((*caller.roles, *identity.roles))),
    )


def _roles(said: bytes | None, caller: Caller | None) -> tuple[str, ...]:
    """Read the roles that a front end vouches for. Raises `Refused` (403) if whoever says so may not."""
    if said is None:
        return ()
    if caller is None or not caller.vouches:
        text = "roles come from the key; only a key with `vouches: true` may state them in a header"
        raise Refused(403, text, code="roles_not_vouched", param=_ROLES.decode())
    return tuple(n for n in (p.strip() for p in said.decode("utf-8", "replace").split(",")) if n)


def split(body: bytes) -> dict[str, Raw]:
    """Split a JSON object into its undecoded fields. Raises `Refused`."""
    if (
        len(body) > _LIGHT
        and (body.count(b"{") + body.count(b"[") > NODES or body.count(b":") > MEMBERS)
        and _many(body)
    ):
        text = f"the body holds more than {NODES} objects and arrays, or more than {MEMBERS} members"
        raise Refused(400, text, code="too_complex")
    try:
        fields = _fields.decode(body)
        key = doubled(body)
    except msgspec.ValidationError as e:
        raise of_validation(e) from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Refused(400, f"the body is not valid JSON: {e}", code="invalid_json") from e
    if key is not None:
        where = next((name for name, raw in fields.items() if doubled(bytes(raw)) is not None), None)
        text = f"{where or 'the body'}: the key {key[:100]!r} stands twice in one object; send it once"
        raise Refused(400, text, code="duplicate_key", param=where or key[:100])
    return fields


def _many(body: bytes) -> bool:
    """Whether there are too many objects, arrays or members in a body, what stands in its texts left out. 6 ms for 1 MB; memory for one MB at a time."""
    import numpy as np

    plain = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    nodes = members = quotes = 0
    for start in range(0, len(plain), _LIGHT):
        block = np.frombuffer(plain[start : start + _LIGHT], np.uint8)
        seen = np.cumsum(block == ord('"'), dtype=np.uint32) + quotes
        bare = block[seen % 2 == 0]
        quotes = int(seen[-1])
        nodes += int(np.count_nonzero((bare == ord("{")) | (bare == ord("["))))
        members += int(np.count_nonzero(bare == ord(":")))
    return nodes > NODES or members > MEMBERS


class _Doubled(Exception):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        raise _Doubled(next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1))


def doubled(body: bytes) -> str | None:
    """Return a key that an object has twice, at whatever depth of valid JSON; None if there is none.

    Decoded and written again, a body lacks the quotes of the keys that decoding dropped. So one that has as many has no key twice: that is
    seen in 4 µs for 1 kB, and only what differs is gone through with care.
    """
    if body.count(b"{") * _SPARSE > len(body):
        try:
            quotes = _encode(_decode(body)).count(b'"')
        except (msgspec.DecodeError, OverflowError):
            pass  # a number that is too large for us, which is forwarded as it came
        else:
            if quotes == body.count(b'"') + body.count(b"\\u0022"):
                return None
    try:
        json.loads(body, object_pairs_hook=_pairs, parse_int=str, parse_float=str)
    except _Doubled as e:
        return str(e)
    return None


def include_usage(query: Query) -> bool:
    """Whether the client asked for the usage event of a stream."""
    return wire.wants_usage(query.body)


def _route(model: str, known: Collection[str], targets: Collection[str], caller: Caller | None) -> str:
    if model in known and (caller is None or caller.may_ask(model, targets)):
        return model
    if caller is not None and caller.limited:
        known = [name for name in known if caller.may_ask(name, targets)]
    short = model.removeprefix("fairlead/")
    if short in known:
        return short
    message = f"no model is called {model!r}; {suggest(short, known)}"
    raise Refused(404, message, code="model_not_found", param="model")


def _tool_names(raw: Raw) -> tuple[str, ...]:
    found = _tools.decode(raw) or ()
    return tuple((t.function or t.custom or _Named()).name or t.type for t in found)


def _function_names(raw: Raw) -> tuple[str, ...]:
    return tuple(f.name or "function" for f in _functions.decode(raw) or ())


def _read_wishes(headers: dict[bytes, bytes], own: Raw | None) -> Wishes:
    said: dict[str, Any] = {}
    for key, value in headers.items():
        field = _NAMES.get(key)
        if field is None:
            if key.startswith(_PREFIX) and key != _ROLES:
                names = [n.decode() for n in _NAMES]
                name = key.decode("latin-1")
                text = f"unknown header {name!r}; {suggest(name, names)}"
                raise Refused(400, text, code="unknown_header", param=name)
            continue
        text = value.decode("utf-8", "replace")
        try:
            item: Any = text
            if field in ("allow", "regions"):
                item = [n for n in (p.strip() for p in text.split(",")) if n]
            elif field == "prefer":
                item = preferences.read(text)
            read = msgspec.convert({field: item}, Wishes, strict=False)
        except msgspec.ValidationError as e:
            refused = of_validation(e)
            name = key.decode()
            raise Refused(400, f"{name}: {refused.message}", code="invalid_header", param=name) from e
        except (ConfigError, UnknownName) as e:
            raise Refused(400, f"{key.decode()}: {e}", code="invalid_header", param=key.decode()) from e
        said[field] = getattr(read, field)
    if own is not None:
        try:
            said |= _wishes.decode(own)
        except msgspec.ValidationError as e:
            raise of_validation(e, "fairlead") from e
    try:
        wishes = msgspec.convert(said, Wishes)
    except msgspec.ValidationError as e:
        raise of_validation(e, "fairlead") from e
    for field in ("max_usd", "deadline_seconds"):
        value = getattr(wishes, field)
        if value is not None and not math.isfinite(value):
            raise Refused(400, f"{field} must be a finite number", code="invalid_value", param=field)
    return wishes


def _of_wishes(
    wishes: Wishes, user: str | None, targets: Collection[str], caller: Caller | None
) -> tuple[Identity, Constraints]:
    if wishes.allow and caller is not None and caller.targets is not None:
        targets = caller.targets.intersection(targets)
    for name in wishes.allow or ():
        if name not in targets:
            message = f"allow: no target is called {name!r}; {suggest(name, targets)}"
            raise Refused(400, message, code="unknown_target", param="allow")
    try:
        preferences.check(wishes.prefer)
    except (ConfigError, UnknownName) as e:
        raise Refused(400, f"prefer: {e}", code="invalid_value", param="prefer") from e
    identity = Identity(  # what is empty is not said: nobody is to share a session without a name
        tenant=wishes.tenant or None,
        user=wishes.user or user or None,
        session=wishes.session or None,
        episode=wishes.episode or None,
        step=wishes.step,
    )
    constraints = Constraints(
        allow=wishes.allow,
        max_usd=wishes.max_usd,
        deadline_seconds=wishes.deadline_seconds,
        max_calls=wishes.max_calls,
        regions=wishes.regions,
        prefer=wishes.prefer,
    )
    return identity, constraints


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body has more than {limit} bytes (gateway.max_body_bytes)", code="body_too_large")
