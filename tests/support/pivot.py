"""Requests in the pivot format (`docs/decisions/0017-gateway.md`): well-formed conversations with every field of its table, for drivers' properties."""

import base64
import json
from typing import Any

from hypothesis import strategies as st

PNG = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,JVBERi0="
TEXT = "data:text/csv;base64," + base64.b64encode(b"a,b\n1,2\n").decode()
FUNCTION = {
    "name": "look",
    "description": "Looks something up.",
    "parameters": {
        "type": "object",
        "properties": {"what": {"type": "string", "minLength": 1}, "n": {"type": "integer", "minimum": 0}},
        "required": ["what"],
    },
}
TOOL = {"type": "function", "function": FUNCTION}

words = st.sampled_from(["hello", "", " ", "\n\t", "tell me more ", "weiß ich nicht"])
marks = st.sampled_from(
    [{}, {}, {"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}]
)


def parts(*, urls: bool, ids: bool) -> st.SearchStrategy[dict[str, Any]]:
    kinds = [
        words.map(lambda w: {"type": "text", "text": w}),
        st.just({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}),
        st.sampled_from([PDF, TEXT, PNG]).map(
            lambda d: {"type": "file", "file": {"file_data": d, "filename": "a b.c_d"}}
        ),
    ]
    if urls:
        kinds.append(st.just({"type": "image_url", "image_url": {"url": "https://host/cat.png"}}))
        kinds.append(st.just({"type": "file", "file": {"file_url": "https://host/a.pdf"}}))
    if ids:
        kinds.append(st.just({"type": "file", "file": {"file_id": "file_1"}}))
    return st.tuples(st.one_of(kinds), marks).map(lambda t: {**t[0], **t[1]})


def blocks(signers: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    signature = st.sampled_from(["", "sig", *(f"fl1:{s}:sig" for s in signers)])
    thinking = signature.map(lambda s: {"type": "thinking", "thinking": "hm", "signature": s})
    redacted = signature.map(lambda s: {"type": "redacted_thinking", "data": s})
    return st.lists(st.one_of(thinking, redacted), max_size=2)


@st.composite
def conversations(draw: st.DrawFn, signers: list[str], *, urls: bool = True, ids: bool = True) -> list[dict[str, Any]]:
    """Messages in any order that OpenAI takes: every tool call has its result before the next answer, results in any order, words between."""
    part = parts(urls=urls, ids=ids)
    content = st.one_of(words, st.lists(part, max_size=3))
    said = words | st.none()
    out: list[dict[str, Any]] = []
    n = 0
    for kind in draw(
        st.lists(st.sampled_from(["system", "developer", "user", "assistant", "calls"]), min_size=1, max_size=6)
    ):
        mark = draw(marks)
        if kind in ("system", "developer"):
            out.append({"role": kind, "content": draw(words), **mark})
        elif kind == "user":
            out.append({"role": "user", "content": draw(content), "name": "ann", **mark})
        else:
            message = {"role": "assistant", "content": draw(said), "thinking_blocks": draw(blocks(signers)), **mark}
            message["reasoning_content"] = draw(words)
            if kind == "assistant":
                out.append(message)
                continue
            ids_ = [draw(st.sampled_from(["call_1", "functions.look:0", "x" * 90, "é"])) + str(n + i) for i in range(2)]
            n += draw(st.integers(0, 2))  # some servers begin to count anew
            given = st.sampled_from(['{"what":"x"}', "", "{", "[1]", json.dumps({"what": "y", "n": 2})])
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": "look", "arguments": draw(given)}} for id in ids_
            ]
            out.append(message)
            results = [
                {
                    "role": "tool",
                    "tool_call_id": id,
                    "content": draw(content),
                    "is_error": draw(st.booleans()),
                    **draw(marks),
                }
                for id in draw(st.permutations(ids_))
            ]
            if draw(st.booleans()):
                results.insert(1, {"role": "user", "content": "meanwhile"})
            out += results
    return out


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": FUNCTION["parameters"]}}
CHOICES = ["auto", "none", "required", {"type": "function", "function": {"name": "look"}}]
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.sampled_from([1, 500, 5000, 64000]),
    "max_completion_tokens": st.sampled_from([2000]),
    "temperature": st.sampled_from([0, 0.7, 1, 1.7]),
    "top_p": st.sampled_from([0.5, 0.96, 1]),
    "top_k": st.just(40),
    "stop": st.sampled_from(["END", "\n", ["\n\n", "a"], [" "]]),
    "thinking": st.sampled_from(
        [
            {"type": "enabled", "budget_tokens": 1024},
            {"type": "enabled", "budget_tokens": 20},
            {"type": "enabled", "budget_tokens": 30000},
            {"type": "adaptive"},
            {"type": "disabled"},
            {"type": "between_tools"},
        ]
    ),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh"]),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}, SCHEMA]),
    "tools": st.sampled_from(
        [
            [TOOL],
            [{**TOOL, "cache_control": {"type": "ephemeral"}}],
            [{"type": "function", "function": {**FUNCTION, "strict": True}}],
            [TOOL, {"type": "function", "function": {"name": "bare"}}, {"type": "custom", "custom": {"name": "free"}}],
        ]
    ),
    "tool_choice": st.sampled_from(
        [*CHOICES, {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}}]
    ),
    "parallel_tool_calls": st.booleans(),
    "user": st.just("u-1"),
    "metadata": st.sampled_from([{"user_id": "m"}, {"run": "7"}]),
    "service_tier": st.sampled_from(["auto", "default", "flex", "priority"]),
    "n": st.sampled_from([1, 2]),
    "seed": st.just(7),
    "logprobs": st.booleans(),
    "logit_bias": st.sampled_from([{}, {"1": 5}]),
    "presence_penalty": st.sampled_from([0, 0.5]),
    "stream_options": st.just({"include_usage": True}),
}


def requests(signers: list[str], *, urls: bool = True, ids: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Whole requests, in the chat format with the pivot's extension fields."""
    return st.tuples(conversations(signers, urls=urls, ids=ids), st.fixed_dictionaries({}, optional=OPTIONS)).map(
        lambda t: {"messages": t[0], **t[1]}
    )
