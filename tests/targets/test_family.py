"""Every driver passes the public check of its family."""

import msgspec
import pytest

from fairlead import catalog
from fairlead.targets.anthropic_messages import AnthropicMessages
from fairlead.targets.local import Local
from fairlead.targets.openai_chat import OpenAIChat
from fairlead.targets.scripted import Scripted
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
SCRIPTS = {
    "openai_chat": ("two words",),
    # The check asks whole, then streamed, then five times whole.
    "anthropic_messages": (WHOLE, Bytes(pieces=(_STREAM,)), *[WHOLE] * 5),
}


@pytest.mark.parametrize("name", sorted(catalog.CATALOG["targets"]))
async def test_check_target(name):
    async with ScriptedServer(replies=SCRIPTS.get(name, ("ok",))) as server:
        make = {
            "local": lambda: Local(name="t", model="lab-nano"),
            "scripted": lambda: Scripted(name="t", replies=("two words",)),
            "openai_chat": lambda: OpenAIChat(name="t", model="m", base_url=server.url),
            "anthropic_messages": lambda: AnthropicMessages(name="t", model="m", base_url=server.url[:-3]),
        }
        await check_target(make[name])
