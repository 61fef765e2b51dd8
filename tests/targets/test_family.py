"""Drivers that call a server pass the public check of their family against a stub of it; tests/test_catalog.py checks the others."""

import msgspec
import pytest

from fairlead import catalog
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.testing import check_target

_MESSAGE = {"type": "message", "model": "m", "content": [{"type": "text", "text": "4"}], "stop_reason": "end_turn"}
_USAGE = {"input_tokens": 3, "output_tokens": 1}
_STREAM = b"".join(
    b"data: " + msgspec.json.encode(event) + b"\n\n"
    for event in (
        {"type": "message_start", "message": {"model": "m", "usage": _USAGE}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "4"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    )
)
WHOLE = Bytes(
    pieces=(msgspec.json.encode({**_MESSAGE, "usage": _USAGE}),), headers={"content-type": "application/json"}
)
_GEMINI = msgspec.json.encode(
    {
        "candidates": [{"content": {"parts": [{"text": "4"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1},
    }
)
_JSON = {"content-type": "application/json"}
SCRIPTS = {
    "openai_chat": ("two words",),
    "azure_openai": ("two words",),
    **dict.fromkeys(
        ("gemini", "vertex"),
        (
            Bytes(pieces=(_GEMINI,), headers=_JSON),
            Bytes(pieces=(b"data: " + _GEMINI + b"\n\n",)),
            *[Bytes(pieces=(_GEMINI,), headers=_JSON)] * 5,
        ),
    ),
    # The check asks whole, then streamed, then five times whole.
    "anthropic_messages": (WHOLE, Bytes(pieces=(_STREAM,)), *[WHOLE] * 5),
}


@pytest.mark.parametrize("kind", sorted(SCRIPTS))
async def test_check_target(kind, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "t")
    driver = catalog.find("targets", kind)
    assert driver.remote
    async with ScriptedServer(replies=SCRIPTS[kind]) as server:
        url = server.url if kind == "openai_chat" else server.url[:-3]
        options = {"endpoint": url} if kind == "azure_openai" else {"base_url": url}
        if kind == "vertex":
            options |= {"project": "p", "token": "${A_TOKEN}"}
        await check_target(lambda: driver(name="t", model="m", **options))
