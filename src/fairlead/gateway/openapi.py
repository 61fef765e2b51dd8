"""``GET /openapi.json``: the gateway described as OpenAPI 3.1, made from the structs that it reads and writes.

`ENDPOINTS` is the one table: method, path, what is taken and given, and which errors there may be. Schemas come from msgspec, so nothing is
written twice; a test compares the table with the application's routes. Bodies in others' formats (OpenAI's, Anthropic's) and traces are loose objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from fairlead.config import ScopeConfig
from fairlead.gateway import admin
from fairlead.gateway.app import Judgement
from fairlead.gateway.batches import Batch, BatchList, Wanted
from fairlead.gateway.faces.base import Face
from fairlead.gateway.files import Deleted, File, FileList
from fairlead.gateway.keys import SCOPE, Change, IssuedKey, Key, NewKey
from fairlead.gateway.page import LONGEST, MOST_FOUND
from fairlead.gateway.search import Found, Sought
from fairlead.store import Snapshot
from fairlead.version import VERSION

Loose: TypeAlias = dict[str, Any]
"""An object in a format that is not ours, or too rich to be spelled out."""


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct, frozen=True, kw_only=True):
    """An error in OpenAI's shape."""

    error: ErrorDetail


class Text(Struct, frozen=True):
    """A reply that is no JSON."""

    media: str


class Param(Struct, frozen=True, kw_only=True):
    """A parameter of the query string."""

    name: str
    least: int = 0
    most: int = 0
    longest: int = 0
    """Characters, of one that is text; 0: it is a whole number."""
    among: tuple[str, ...] = ()
    """The texts that it may be; empty: any."""

    def schema(self) -> dict[str, Any]:
        """Return its schema."""
        if self.among:
            return {"type": "string", "enum": list(self.among)}
        if self.longest:
            return {"type": "string", "maxLength": self.longest}
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Endpoint(Struct, frozen=True, kw_only=True):
    """One method of one path."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    says: str
    takes: Any = None
    """The type of the request's body; None: there is none."""
    optional: bool = False
    """Whether the body may be left out."""
    gives: Any = Loose
    """The type of the reply; None: it has no body."""
    status: int = 200
    also: dict[int, Any] = {}
    """Further statuses whose reply is no error."""
    errors: tuple[int, ...] = ()
    """Statuses of errors, beside those that every endpoint may have."""
    params: tuple[Param, ...] = ()
    key: Literal["key", "admin", ""] = "key"
    """Which key is needed, where one is."""
    stream: bool = False
    """Whether it may answer in a stream of events."""


class Admin(Endpoint, frozen=True, kw_only=True):
    """One below ``/admin``."""

    key: Literal["key", "admin", ""] = "admin"


FORM: Final = {
    "multipart/form-data": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": {"type": "string", "pattern": "^[a-z_-]{1,40}$"},
        },
        "required": ["file", "purpose"],
    }
}
"""The form of an upload, by its media type."""
BODY: Final = (400, 413)
"""Errors of reading a body."""
STORE: Final = (503,)
"""The store cannot be asked."""
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(method="GET", path="/", says="The page.", gives=Text("text/html"), key=""),
    Endpoint(method="GET", path="/healthz", says="The process is up.", key=""),
    Endpoint(method="GET", path="/readyz", says="Requests can be answered.", also={503: Loose}, key=""),
    Endpoint(method="GET", path="/openapi.json", says="This document.", key=""),
    Endpoint(method="GET", path="/metrics", says="Metrics for Prometheus.", gives=Text("text/plain")),
    Endpoint(method="GET", path="/v1/models", says="Routes and targets that the key may ask for."),
    Endpoint(method="GET", path="/v1/models/{id}", says="One of them.", errors=(404,)),
    Endpoint(
        method="POST",
        path="/v1/messages/count_tokens",
        says="Count the tokens of a request in Anthropic's format.",
        takes=Loose,
        errors=(*BODY, 403, 404),
    ),
    Endpoint(
        method="POST",
        path="/v1/feedback",
        says="Judge an answer.",
        takes=Judgement,
        errors=(*BODY, 404, *STORE),
    ),
    Endpoint(
        method="POST",
        path="/v1/route",
        says="A dry run: what would be decided, and why.",
        takes=Loose,
        errors=(*BODY, 402, 403, 404, *STORE),
    ),
    Endpoint(method="GET", path="/v1/stats", says="Sums for the page.", errors=STORE),
    Endpoint(
        method="GET",
        path="/v1/decisions",
        says="Search among the newest decisions.",
        gives=Found,
        params=(
            Param(name="limit", least=1, most=MOST_FOUND),
            Param(name="before", least=1, most=2**62),
            Param(name="judged", among=("good", "bad", "yes", "no")),
            *(Param(name=field, longest=LONGEST) for field in Sought.__struct_fields__ if field != "judged"),
        ),
        errors=(400, *STORE),
    ),
    Endpoint(
        method="GET",
        path="/v1/traces",
        says="The newest traces.",
        params=(Param(name="limit", least=1, most=1000),),
        errors=(400, *STORE),
    ),
    Endpoint(method="GET", path="/v1/traces/{id}", says="One trace, explained.", errors=(404, *STORE)),
    Endpoint(
        method="POST",
        path="/v1/files",
        says="Upload a file.",
        takes=FORM,
        gives=File,
        errors=(*BODY, 415, *STORE),
    ),
    Endpoint(
        method="GET",
        path="/v1/files",
        says="Files, newest first.",
        gives=FileList,
        params=(Param(name="limit", least=1, most=10_000),),
        errors=(400, *STORE),
    ),
    Endpoint(method="GET", path="/v1/files/{id}", says="One file.", gives=File, errors=(404, *STORE)),
    Endpoint(
        method="GET",
        path="/v1/files/{id}/content",
        says="What is in a file.",
        gives=Text("application/octet-stream"),
        errors=(404, *STORE),
    ),
    Endpoint(method="DELETE", path="/v1/files/{id}", says="Delete a file.", gives=Deleted, errors=(404, *STORE)),
    Endpoint(
        method="POST",
        path="/v1/batches",
        says="Begin a batch.",
        takes=Wanted,
        gives=Batch,
        errors=(*BODY, 404, *STORE),
    ),
    Endpoint(
        method="GET",
        path="/v1/batches",
        says="Batches, newest first.",
        gives=BatchList,
        params=(Param(name="limit", least=1, most=100),),
        errors=(400, *STORE),
    ),
    Endpoint(method="GET", path="/v1/batches/{id}", says="How far a batch is.", gives=Batch, errors=(404, *STORE)),
    Endpoint(
        method="POST",
        path="/v1/batches/{id}/cancel",
        says="Ask no more of a batch.",
        gives=Batch,
        errors=(404, 409, *STORE),
    ),
    Endpoint(method="GET", path="/v1/responses/{id}", says="A kept response.", errors=(400, 404, *STORE)),
    Endpoint(method="DELETE", path="/v1/responses/{id}", says="Delete a kept response.", errors=(404, *STORE)),
    Endpoint(
        method="GET",
        path="/v1/responses/{id}/input_items",
        says="What a kept response was asked with.",
        errors=(400, 404, *STORE),
    ),
    Admin(method="GET", path="/admin/keys", says="All keys, without themselves.", gives=admin.KeyList, errors=STORE),
    Admin(
        method="POST",
        path="/admin/keys",
        says="Make a key. It is shown this once.",
        takes=NewKey,
        gives=IssuedKey,
        status=201,
        errors=(*BODY, 404, 409, *STORE),
    ),
    Admin(method="GET", path="/admin/keys/{id}", says="One key.", gives=Key, errors=(404, *STORE)),
    Admin(
        method="PATCH",
        path="/admin/keys/{id}",
        says="Change a key; what is left out stays.",
        takes=Change,
        gives=Key,
        errors=(*BODY, 404, 409, *STORE),
    ),
    Admin(method="DELETE", path="/admin/keys/{id}", says="Revoke a key.", gives=Key, errors=(404, 409, *STORE)),
    Admin(
        method="POST",
        path="/admin/keys/{id}/rotate",
        says="Make another key of the same name; the old one works until the overlap ends.",
        takes=admin.Rotation,
        optional=True,
        gives=IssuedKey,
        status=201,
        errors=(*BODY, 404, 409, *STORE),
    ),
    Admin(method="GET", path="/admin/limits", says="Limits of teams and tenants.", gives=admin.ScopeList, errors=STORE),
    Admin(
        method="GET",
        path="/admin/limits/{scope}",
        says="Limits of one, as team:NAME or tenant:NAME.",
        gives=admin.Scoped,
        errors=(400, 404, *STORE),
    ),
    Admin(
        method="PUT",
        path="/admin/limits/{scope}",
        says="Say what a team or tenant may use up.",
        takes=ScopeConfig,
        gives=admin.Scoped,
        errors=(*BODY, 409, *STORE),
    ),
    Admin(
        method="DELETE",
        path="/admin/limits/{scope}",
        says="Let a team or tenant use up what it likes.",
        gives=None,
        status=204,
        errors=(400, 404, 409, *STORE),
    ),
    Admin(
        method="GET", path="/admin/spend", says="Every account that has a limit.", gives=admin.SpendList, errors=STORE
    ),
    Admin(
        method="GET",
        path="/admin/audit",
        says="What was changed, newest first.",
        gives=admin.AuditList,
        params=(Param(name="limit", least=1, most=admin.MOST_LINES), Param(name="before", least=1, most=2**53)),
        errors=(400, *STORE),
    ),
    Admin(method="GET", path="/admin/config", says="Which config is live.", gives=admin.LiveConfig),
    Admin(
        method="POST",
        path="/admin/reload",
        says="Read the config file again, in all workers.",
        gives=admin.Reloaded,
        errors=(409, *STORE),
    ),
    Admin(
        method="GET",
        path="/admin/state",
        says="Versions of each route, the learner, the breakers.",
        gives=admin.State,
        errors=STORE,
    ),
    Admin(
        method="POST",
        path="/admin/routes/{route}/activate",
        says="Let a version of a route serve.",
        takes=admin.Activation,
        gives=Snapshot,
        errors=(*BODY, 404, 409, *STORE),
    ),
    Admin(
        method="POST",
        path="/admin/drain",
        says="Let /readyz of all workers answer 503, or no more.",
        takes=admin.Drain,
        optional=True,
        gives=admin.Draining,
        errors=(*BODY, *STORE),
    ),
)
PATTERNS: Final = {"{scope}": {"pattern": f"^{SCOPE.pattern}$"}}
"""What a part of a path looks like, where not anything goes."""
ALWAYS: Final = (403, 431, 500)
"""A foreign page where no key is needed; headers that are too large; a bug."""
OF_KEY: Final = {"key": (401,), "admin": (401, 404), "": ()}
ANSWERING: Final = (400, 401, 402, 403, 404, 413, 429, 431, 500, 502, 503, 504)
"""What an endpoint that asks targets may say."""


def document(faces: Iterable[Face]) -> bytes:
    """Write the document, `faces` included."""
    answering = [
        Endpoint(
            method="POST",
            path=face.path,
            says=f"Ask for an answer, in the format of {face.path}.",
            takes=Loose,
            errors=ANSWERING,
            stream=True,
        )
        for face in faces
    ]
    endpoints = (*answering, *ENDPOINTS)
    types = [
        t
        for e in endpoints
        for t in (e.takes, e.gives, *e.also.values())
        if t is not None and not isinstance(t, Text | dict)
    ]
    types = list(dict.fromkeys([*(t for t in types if t != Loose), ErrorBody]))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    known = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, known)
    secret = {"type": "http", "scheme": "bearer"}
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Fairlead",
            "version": VERSION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": secret, "admin": secret}},
    }
    return msgspec.json.encode(made)


def _operation(endpoint: Endpoint, known: dict[Any, Any]) -> dict[str, Any]:
    def content(kind: Any) -> dict[str, Any]:
        if kind is None:
            return {}
        if isinstance(kind, dict):
            return {"content": {media: {"schema": schema} for media, schema in kind.items()}}
        if isinstance(kind, Text):
            return {"content": {kind.media: {"schema": {"type": "string"}}}}
        found = {"application/json": {"schema": {"type": "object"} if kind == Loose else known[kind]}}
        return {"content": found}

    good = {"description": endpoint.says, **content(endpoint.gives)}
    if endpoint.stream:
        good["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    replies = {str(endpoint.status): good}
    for status, kind in endpoint.also.items():
        replies[str(status)] = {"description": endpoint.says, **content(kind)}
    for status in sorted({*endpoint.errors, *ALWAYS, *OF_KEY[endpoint.key]}):
        # Each face has a shape of errors of its own.
        replies.setdefault(
            str(status), {"description": "An error.", **content(Loose if endpoint.stream else ErrorBody)}
        )
    made: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}{endpoint.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "summary": endpoint.says,
        "responses": replies,
        "security": [{endpoint.key: []}] if endpoint.key else [],
    }
    params: list[dict[str, Any]] = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", **PATTERNS.get(part, {})}}
        for part in endpoint.path.split("/")
        if part.startswith("{")
    ]
    params += [{"name": p.name, "in": "query", "schema": p.schema()} for p in endpoint.params]
    if params:
        made["parameters"] = params
    if endpoint.takes is not None:
        made["requestBody"] = {"required": not endpoint.optional, **content(endpoint.takes)}
    return made
