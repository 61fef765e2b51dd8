"""The endpoints of files and batches: who asks, what is asked, in OpenAI's shapes (see `files.py` and `batches.py`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from fairlead.gateway.batches import Batches, Wanted
from fairlead.gateway.door import CALLER
from fairlead.gateway.files import Files, encode, upload
from fairlead.gateway.refusal import Refused, of_validation

if TYPE_CHECKING:
    from fairlead.gateway.app import Gateway
    from fairlead.gateway.keys import Caller


class Shelf:
    """What clients keep here, as HTTP.

    Args:
        gateway: whose.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.files = Files(
            gateway.router.store,
            most_bytes=lambda: gateway.settings.files.max_bytes,
            days=lambda: gateway.settings.files.days,
        )
        self.batches = Batches(gateway, self.files, concurrent=lambda: gateway.settings.files.batch_concurrent)

    def endpoints(self) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
        """Return (method, path, what answers)."""
        return [
            ("POST", "/v1/files", self.upload),
            ("GET", "/v1/files", self.list_files),
            ("GET", "/v1/files/{id}", self.show_file),
            ("GET", "/v1/files/{id}/content", self.content),
            ("DELETE", "/v1/files/{id}", self.delete_file),
            ("POST", "/v1/batches", self.create_batch),
            ("GET", "/v1/batches", self.list_batches),
            ("GET", "/v1/batches/{id}", self.show_batch),
            ("POST", "/v1/batches/{id}/cancel", self.cancel_batch),
        ]

    async def upload(self, request: Request) -> Response:
        """Keep a file."""
        caller = _caller(request)
        return _json(await upload(request, self.files, (caller.tenant if caller else None) or ""))

    async def list_files(self, request: Request) -> Response:
        """List files, newest first."""
        after, limit = _page(request, 10_000)
        purpose = request.query_params.get("purpose")
        return _json(await self.files.listed(_sees(request), purpose=purpose, after=after, limit=limit))

    async def show_file(self, request: Request) -> Response:
        """Tell of a file."""
        return _json(await self.files.get(request.path_params["id"], _sees(request)))

    async def content(self, request: Request) -> Response:
        """Send a file, piece by piece."""
        file = await self.files.get(request.path_params["id"], _sees(request))

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in self.files.pieces(file.id):
                yield piece

        # Never as what a browser would show: it is whatever somebody has uploaded.
        headers = {
            "content-length": str(file.bytes),
            "content-disposition": "attachment",
            "x-content-type-options": "nosniff",
        }
        return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)

    async def delete_file(self, request: Request) -> Response:
        """Delete a file."""
        return _json(await self.files.delete(request.path_params["id"], _sees(request)))

    async def create_batch(self, request: Request) -> Response:
        """Begin a batch."""
        body = await self.gateway.body(request)
        try:
            wanted = msgspec.json.decode(body, type=Wanted)
        except msgspec.ValidationError as e:
            raise of_validation(e) from e
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise Refused(400, f"the body is not valid JSON: {e}", code="invalid_json") from e
        caller = _caller(request)
        tenant = (caller.tenant if caller else None) or ""
        return _json(await self.batches.create(wanted, tenant=tenant, caller=caller))

    async def list_batches(self, request: Request) -> Response:
        """List batches, newest first."""
        after, limit = _page(request, 100)
        return _json(await self.batches.listed(_sees(request), after=after, limit=limit))

    async def show_batch(self, request: Request) -> Response:
        """Tell how far a batch is."""
        return _json(await self.batches.get(request.path_params["id"], _sees(request)))

    async def cancel_batch(self, request: Request) -> Response:
        """Ask no more of a batch."""
        return _json(await self.batches.cancel(request.path_params["id"], _sees(request)))


def _caller(request: Request) -> Caller | None:
    caller: Caller | None = request.scope.get(CALLER)
    return caller


def _sees(request: Request) -> str | None:
    """Return whose files and batches a request may see; None: everybody's. A key that names no tenant is an operator's."""
    caller = _caller(request)
    return None if caller is None else caller.tenant


def _page(request: Request, most: int) -> tuple[str | None, int]:
    text = request.query_params.get("limit", "20")
    if not text.isascii() or not text.isdigit() or len(text) > 6 or not 1 <= int(text) <= most:
        raise Refused(400, f"limit must be a whole number from 1 to {most}", param="limit")
    return request.query_params.get("after"), int(text)


def _json(data: Any) -> Response:
    return Response(encode(data), media_type="application/json")
