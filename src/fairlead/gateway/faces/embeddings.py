"""``POST /v1/embeddings``: vectors of texts, in OpenAI's format, which is the house's own for them, so nothing is translated.

The request goes on as it came; signals read its texts as user messages. Inputs that are token numbers are forwarded, and signals see nothing of
them. Vectors are not streamed. Another target would answer from another space, so nobody takes over for one that fails but targets of the
same `Profile.space`.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from fairlead.gateway.faces.base import Face, Read, Writer
from fairlead.gateway.refusal import Refused, of_validation
from fairlead.targets import wire
from fairlead.types import Message, Outcome, Query, Trace

INPUTS: Final = 2048
"""Texts of one request at most, as OpenAI has it."""
_input = msgspec.json.Decoder(str | list[str | int | list[int]])
_dimensions = msgspec.json.Decoder(int | None)
_format = msgspec.json.Decoder(str | None)


class Embeddings(Face):
    """The identity, for vectors."""

    path = "/v1/embeddings"
    api = "embeddings"
    task = "embeddings"

    async def read(self, fields: dict[str, Raw]) -> Read:
        """Return the fields as they are, and the texts for signals to read."""
        if "input" not in fields:
            raise Refused(
                400, "input is missing: a text, or an array of texts", code="missing_required_parameter", param="input"
            )
        field = "input"
        try:
            found = _input.decode(fields["input"])
            if "dimensions" in fields:
                field = "dimensions"
                wanted = _dimensions.decode(fields["dimensions"])
                if wanted is not None and wanted < 1:
                    raise Refused(400, "dimensions must be at least 1", code="invalid_value", param=field)
            if "encoding_format" in fields:
                field = "encoding_format"
                if _format.decode(fields["encoding_format"]) not in (None, "float", "base64"):
                    raise Refused(400, "encoding_format must be float or base64", code="invalid_value", param=field)
        except msgspec.ValidationError as e:
            raise of_validation(e, field) from e
        inputs = [found] if isinstance(found, str) else found
        if not inputs:
            raise Refused(400, "input: at least one text is needed", code="empty_array", param="input")
        kinds = {type(i) for i in inputs}
        if len(kinds) > 1:
            raise Refused(400, "input: send texts, or token numbers, not both", code="invalid_type", param="input")
        if kinds != {int} and len(inputs) > INPUTS:
            text = f"input: {len(inputs)} texts; send at most {INPUTS} in one request"
            raise Refused(400, text, code="too_many_inputs", param="input", retry=False)
        texts = tuple(Message(role="user", content=i) for i in inputs if isinstance(i, str))
        dropped: tuple[str, ...] = ("stream",) if wire.is_true(fields.get("stream")) else ()
        rest = {name: raw for name, raw in fields.items() if name not in ("stream", "messages", "tools", "functions")}
        dropped += tuple(name for name in ("messages", "tools", "functions") if name in fields)
        return Read(fields=rest, messages=texts or (Message(role="user", content=""),), dropped=dropped)

    def whole(self, outcome: Outcome, query: Query, read: Read) -> bytes:
        """Return the reply's own bytes."""
        return outcome.reply

    async def keep(self, query: Query, read: Read, outcome: Outcome, trace: Trace) -> None:
        """Raise `Refused` (500) where an action, or a target that gives none, answered by a text in place of vectors."""
        if not outcome.reply or not outcome.reply.lstrip().startswith(b"{") or b'"embedding"' not in outcome.reply:
            whose = outcome.target or "an action"
            raise Refused(
                500, f"{whose} answered by a text, and vectors were asked for", code="no_vectors", retry=False
            )

    def writer(self, query: Query, read: Read) -> Writer:
        """Vectors are never streamed."""
        raise NotImplementedError("vectors are not streamed")
