"""Pieces of streamed tool calls find their call, whatever a server writes as index; and all three who put calls together agree."""

import json
from typing import Any

import pytest

from fairlead.gateway.faces.message_blocks import Blocks
from fairlead.gateway.faces.output_items import Output
from fairlead.targets.openai_chat import StreamReader

F = {"id": "a", "function": {"name": "f", "arguments": '{"x":'}}
F_REST = {"function": {"arguments": "1}"}}
G = {"id": "b", "function": {"name": "g", "arguments": '{"y":2}'}}
WANTED = [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]

STREAMS: dict[str, list[dict[str, Any]]] = {
    "an index each": [{"index": 0, **F}, {"index": 0, **F_REST}, {"index": 1, **G}],
    "side by side": [{"index": 0, **F}, {"index": 1, **G}, {"index": 0, **F_REST}],
    "one index for all": [{"index": 0, **F}, {"index": 0, **F_REST}, {"index": 0, **G}],
    "the id in each piece": [{"index": 0, **F}, {"index": 0, "id": "a", **F_REST}, {"index": 0, **G}],
    "no index, whole": [{**F, "function": {"name": "f", "arguments": '{"x":1}'}}, G],
    "from 1 on": [{"index": 1, **F}, {"index": 1, **F_REST}, {"index": 2, **G}],
}


@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS.keys())
def test_calls_are_told_apart_alike_by_all_who_put_them_together(pieces: list[dict[str, Any]]) -> None:
    reader, blocks, output = StreamReader(id="x", pass_usage=False), Blocks("k"), Output("k")
    for piece in pieces:
        choice: dict[str, Any] = {"index": 0, "delta": {"tool_calls": [piece]}}
        reader.feed(b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n")
        blocks.take(choice)
        list(output.choice(choice))
    reader.feed(b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n')
    blocks.end()
    list(output.end())
    calls = json.loads(bytes(reader.outcome().tool_calls or b"[]"))
    read = [(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]
    items = [(i["call_id"], i["name"], json.loads(i["arguments"])) for i in output.items]
    assert read == [(b["id"], b["name"], b["input"]) for b in blocks.content] == items == WANTED
