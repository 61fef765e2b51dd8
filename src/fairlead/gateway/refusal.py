"""Refusals: a status, and an error body in OpenAI's shape, so that a client's error classes fit.

========================  ======  =========================================================================
failure                   status  why
========================  ======  =========================================================================
bad_request               400     the target says that the request is wrong
context_too_long          400     code ``context_length_exceeded``
blocked                   403     a guard or rule said no; code ``blocked``
budget                    402     the query's own spend, or what its key, team or tenant may spend, is used up; 503 if nobody can say, since the
                                  store is gone
rate_limited              429     with the target's Retry-After
auth, not_found           502     the operator's key or model name is wrong, not the client's
malformed, broken_stream  502     the target broke off or sent nonsense
busy                      503     code ``overloaded``: the target takes no more calls at once
unavailable               502     503 if the target said so itself, or said when to come back
timeout, deadline         504
internal                  500
========================  ======  =========================================================================

``x-should-retry: false`` tells OpenAI's clients not to repeat what cannot help.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from fairlead.errors import FairleadError
from fairlead.types import Failure

Headers = list[tuple[bytes, bytes]]
LONGEST: Final = 2000
"""Characters of a message: what it repeats of a request may be as long as that."""

_OF_KIND: Final[dict[str, tuple[int, str, str, bool]]] = {
    # kind: status, type, code, whether a repeat may help
    "auth": (502, "upstream_error", "upstream_auth", False),
    "bad_request": (400, "invalid_request_error", "bad_request", False),
    "blocked": (403, "invalid_request_error", "blocked", False),
    "broken_stream": (502, "upstream_error", "broken_stream", True),
    "budget": (402, "insufficient_quota", "budget_exceeded", False),
    "busy": (503, "server_error", "overloaded", True),
    "client_gone": (499, "invalid_request_error", "client_gone", False),
    "context_too_long": (400, "invalid_request_error", "context_length_exceeded", False),
    "deadline": (504, "timeout_error", "deadline_exceeded", False),
    "internal": (500, "server_error", "internal_error", True),
    "malformed": (502, "upstream_error", "malformed_reply", True),
    "not_found": (502, "upstream_error", "upstream_not_found", False),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded", True),
    "timeout": (504, "timeout_error", "upstream_timeout", True),
    "unavailable": (502, "upstream_error", "upstream_unavailable", True),
}


class Refused(FairleadError):
    """A request that gets an error for an answer."""

    id: str = ""
    """The query's, once there is one: some faces write it into the error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        retry: bool = True,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"
        self.code = code or ("invalid_value" if status == 400 else None)
        self.param = param if param is None or len(param) <= LONGEST else param[: LONGEST - 1] + "…"
        self.type = type or ("invalid_request_error" if status < 500 else "server_error")
        self.headers = [*(headers or ()), *([] if retry else [(b"x-should-retry", b"false")])]

    @property
    def body(self) -> bytes:
        """The error in OpenAI's shape."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


def of_failure(failure: Failure) -> Refused:
    """Turn a failure into a refusal."""
    status, type, code, retry = _OF_KIND[failure.kind]
    headers: Headers = []
    after = failure.retry_after_seconds
    if after is not None:
        headers.append((b"retry-after", str(math.ceil(after)).encode()))
    if failure.kind == "budget" and failure.status == 503:  # not spent: nobody can say what is left
        return Refused(503, failure.message, code="ledger_unavailable", headers=headers)
    if failure.kind == "unavailable" and (failure.status == 503 or after is not None):
        status = 503
    if failure.kind == "unavailable" and failure.sent:
        code = "upstream_hung_up"  # it may have worked on it, and charge: whoever asks again should know
    message = failure.message or failure.kind
    if failure.kind == "context_too_long" and "maximum context length" not in message:
        # Clients (LiteLLM) know this error by OpenAI's words for it, not by its code.
        message = f"this model's maximum context length is exceeded: {message}"
    return Refused(status, message, code=code, type=type, retry=retry, headers=headers)


def of_validation(e: msgspec.ValidationError, field: str = "") -> Refused:
    """Turn a wrong type into a refusal that names where it is, such as ``messages[0].content``."""
    message, _, path = str(e).partition(" - at `$")
    param = (field + path.rstrip("`")).lstrip(".") or None
    where = f"{param}: " if param else ""
    return Refused(400, where + message[:1].lower() + message[1:], code="invalid_type", param=param)


async def respond(send: Any, status: int, body: bytes, headers: Headers, *, head: bool = False) -> None:
    """Send a whole JSON response over ASGI."""
    start: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": b"" if head else body})
