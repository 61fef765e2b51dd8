"""LiteLLM as a client: its one call over either format, streamed, asynchronous, with tools, structured; embeddings; its classes of errors."""

# ruff: noqa: D103 - the name of a case says what it is.
from __future__ import annotations

import json
import time
from typing import Any

import litellm
from cases import KEY, URL, case, check, main, once, over
from pydantic import BaseModel

litellm.suppress_debug_info = True
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FORMATS = ("openai", "anthropic")


class Person(BaseModel):
    """What is to be read off a sentence."""

    name: str
    age: int


def where(model: str, kind: str, **more: Any) -> dict[str, Any]:
    """The arguments that point LiteLLM at the gateway."""
    base = f"{URL}/v1" if kind == "openai" else URL
    return {"model": f"{kind}/{model}", "api_base": base, "api_key": KEY, "num_retries": 0, "timeout": 20, **more}


def user(text: str) -> Any:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


@over(*FORMATS)
def completion(model: str, kind: str) -> None:
    reply: Any = litellm.completion(**where(model, kind), messages=user("Hello"), max_tokens=50)
    check(reply.choices[0].message.content == "Hello! How are you today?", reply)
    check(reply.choices[0].finish_reason == "stop" and reply.usage.total_tokens > 0, reply)


@over(*FORMATS)
async def acompletion(model: str, kind: str) -> None:
    reply: Any = await litellm.acompletion(**where(model, kind), messages=user("Hello"), max_tokens=50)
    check(reply.choices[0].message.content == "Hello! How are you today?", reply)


@over(*FORMATS)
def streamed(model: str, kind: str) -> None:
    options = {"include_usage": True}
    chunks: Any = list(
        litellm.completion(**where(model, kind), messages=user("Hello"), stream=True, stream_options=options)
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check(text == "Hello! How are you today?", text)
    built: Any = litellm.stream_chunk_builder(chunks)
    check(built.usage.completion_tokens > 0, built)


@over(*FORMATS)
async def streamed_async(model: str, kind: str) -> None:
    text = ""
    stream: Any = await litellm.acompletion(**where(model, kind), messages=user("Hello"), stream=True)
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
    check(text == "Hello! How are you today?", text)


@over(*FORMATS)
def parallel_tools(model: str, kind: str) -> None:
    messages = user("What is the weather in Paris and Rome?")
    reply: Any = litellm.completion(**where(model, kind), messages=messages, tools=[WEATHER], max_tokens=100)
    calls = reply.choices[0].message.tool_calls
    check([json.loads(c.function.arguments)["city"] for c in calls] == ["Paris", "Rome"], reply)
    messages.append(reply.choices[0].message.model_dump())
    messages += [
        {"role": "tool", "tool_call_id": c.id, "content": w} for c, w in zip(calls, ("sun", "rain"), strict=True)
    ]
    then: Any = litellm.completion(**where(model, kind), messages=messages, tools=[WEATHER], max_tokens=100)
    check(then.choices[0].message.content == "The tools say: sun and rain", then)


@over(*FORMATS)
def tools_streamed(model: str, kind: str) -> None:
    asked = user("What is the weather in Paris?")
    chunks: Any = list(litellm.completion(**where(model, kind), messages=asked, tools=[WEATHER], stream=True))
    built: Any = litellm.stream_chunk_builder(chunks)
    check(json.loads(built.choices[0].message.tool_calls[0].function.arguments) == {"city": "Paris"}, built)


@over(*FORMATS)
def structured(model: str, kind: str) -> None:
    asked = user("Ann is 41 years old.")
    reply: Any = litellm.completion(**where(model, kind), messages=asked, response_format=Person, max_tokens=100)
    check(Person.model_validate_json(reply.choices[0].message.content) == Person(name="Ann", age=41), reply)


@case
def responses(model: str) -> None:
    reply: Any = litellm.responses(**where(model, "openai"), input="Hello")
    check(reply.output[-1].content[0].text == "Hello! How are you today?", reply)


@once
def embedding() -> None:
    reply: Any = litellm.embedding(**where("vectors", "openai"), input=["a cat", "the sea"])
    check(len(reply.data) == 2 and len(reply.data[0]["embedding"]) > 10, "vectors")


@over(*FORMATS)
def errors(model: str, kind: str) -> None:
    name = model.removeprefix("over-")
    time.sleep(0.2)  # the flaky target rests for a moment after the case before this one, as it asked for
    for error, more in (
        (litellm.AuthenticationError, {"api_key": "wrong"}),
        (litellm.NotFoundError, {"model": f"{kind}/none"}),
        (litellm.ContextWindowExceededError, {"model": f"{kind}/long-{name}"}),
        (litellm.RateLimitError, {"model": f"{kind}/flaky-{name}", "messages": user(f"{kind} {name}")}),
    ):
        try:
            litellm.completion(**{"messages": user("Hello"), "max_tokens": 50, **where(model, kind), **more})
        except error:
            continue
        raise AssertionError(f"no {error.__name__}")


@over(*FORMATS)
def retries(model: str, kind: str) -> None:
    name = model.removeprefix("over-")
    asked = where(f"flaky-{name}", kind, num_retries=2, retry_strategy="exponential_backoff_retry")
    reply: Any = litellm.completion(**asked, messages=user(f"Hello from {kind} to {name}"), max_tokens=50)
    check(reply.choices[0].message.content, reply)


if __name__ == "__main__":
    main()
