"""Signed thinking: marks that say who signed a block, so that it goes back to no one else.

A provider signs its thinking and refuses what another signed with a 400. So a driver writes its mark before each signature (and before the data of
redacted blocks) that it hands out, ``fl1:anthropic/MODEL:SIGNATURE``, and takes it off what comes back. The mark travels with the client, so
no state is kept. The model is part of it, since newer models read only their own blocks. Ours, no paper.

    provider names                                  `signer`
    what a driver hands out                         `sign`, `marked`
    what comes back: ours, another's, unmarked      `unsign`, `take`
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

MARK: Final = "fl1:"
_FIELD: Final = {"thinking": "signature", "redacted_thinking": "data"}


def signer(provider: str, model: str) -> str:
    """Name who signs: the provider whose drivers share signatures, and the model as it is called there. It holds no colon."""
    return f"{provider}/{quote(model, safe='/@+ ')}"


def sign(signature: str, by: str) -> str:
    """Write the mark of `by` (of `signer`) before a signature, or before the data of a redacted block."""
    return f"{MARK}{by}:{signature}"


def unsign(signed: str) -> tuple[str, str]:
    """Return (who signed, the signature as the provider wrote it). Who is empty where there is no mark."""
    if not signed.startswith(MARK):
        return "", signed
    by, colon, signature = signed[len(MARK) :].partition(":")
    return (by, signature) if colon else ("", signed)


def marked(block: dict[str, Any], by: str) -> dict[str, Any]:
    """Return a thinking block as it is handed out: with the mark of `by` (as it is if that is empty)."""
    field = _FIELD[block["type"]]
    return {**block, field: sign(block.get(field) or "", by)} if by else block


class Taken(NamedTuple):
    """Blocks that may be sent, marks taken off, and whose were left out."""

    blocks: list[dict[str, Any]]
    left_out: list[str]


def take(blocks: Iterable[dict[str, Any]], by: str, *, unmarked: bool = True) -> Taken:
    """Keep what `by` signed, and what nobody marked if `unmarked` (a session that began elsewhere, with a provider that signs alike).

    Raises:
        KeyError: for a block that is neither ``thinking`` nor ``redacted_thinking``.
    """
    out: list[dict[str, Any]] = []
    left_out: list[str] = []
    for block in blocks:
        field = _FIELD[block["type"]]
        who, signature = unsign(block.get(field) or "")
        if who == by or (not who and signature and unmarked):
            text = {"thinking": block.get("thinking") or ""} if field == "signature" else {}
            out.append({"type": block["type"], **text, field: signature})
        else:
            left_out.append(f"thinking of {who}" if who else "thinking that nobody signed")
    return Taken(out, left_out)
