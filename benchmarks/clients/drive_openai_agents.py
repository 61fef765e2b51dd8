"""OpenAI's agents: runs with tools, handoffs and typed output, over responses and over chat."""

# ruff: noqa: D103 - the name of a case says what it is.
from __future__ import annotations

from typing import Any

import openai
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from cases import KEY, URL, check, main, over
from pydantic import BaseModel

FORMATS = ("responses", "chat")
set_tracing_disabled(True)


class Person(BaseModel):
    """What is to be read off a sentence."""

    name: str
    age: int


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"sun over {city}"


def made(model: str, kind: str) -> Model:
    """The model of this kind."""
    client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=20)
    return (OpenAIResponsesModel if kind == "responses" else OpenAIChatCompletionsModel)(model, client)


def agent(model: str, kind: str, **more: Any) -> Agent[None]:
    """An agent."""
    return Agent(name="helper", model=made(model, kind), **{"instructions": "Help.", **more})


@over(*FORMATS)
async def a_run(model: str, kind: str) -> None:
    result = await Runner.run(agent(model, kind), "Hello")
    check(result.final_output == "Hello! How are you today?", result.final_output)
    check(result.context_wrapper.usage.output_tokens > 0, result.context_wrapper.usage)


@over(*FORMATS)
async def a_run_with_a_tool(model: str, kind: str) -> None:
    result = await Runner.run(agent(model, kind, tools=[get_weather]), "What is the weather in Paris?")
    check(result.final_output == "The tools say: sun over Paris", result.final_output)


@over(*FORMATS)
async def parallel_tools(model: str, kind: str) -> None:
    result = await Runner.run(agent(model, kind, tools=[get_weather]), "What is the weather in Paris and Rome?")
    check(result.final_output == "The tools say: sun over Paris and sun over Rome", result.final_output)


@over(*FORMATS)
async def a_forced_tool(model: str, kind: str) -> None:
    settings = ModelSettings(tool_choice="get_weather", parallel_tool_calls=False)
    asked = agent(model, kind, tools=[get_weather], model_settings=settings)
    result = await Runner.run(asked, "Hello, I am in Paris")
    check("sun over Paris" in result.final_output, result.final_output)


@over(*FORMATS)
async def a_run_streamed(model: str, kind: str) -> None:
    result = Runner.run_streamed(agent(model, kind, tools=[get_weather]), "What is the weather in Paris?")
    kinds = [e.type async for e in result.stream_events()]
    check(result.final_output == "The tools say: sun over Paris", result.final_output)
    check({"raw_response_event", "run_item_stream_event"} <= set(kinds), kinds)


@over(*FORMATS)
async def typed_output(model: str, kind: str) -> None:
    result = await Runner.run(agent(model, kind, output_type=Person), "Ann is 41 years old.")
    check(result.final_output == Person(name="Ann", age=41), result.final_output)


@over(*FORMATS)
async def a_handoff(model: str, kind: str) -> None:
    poet = agent(model, kind, instructions="You are the poet.", handoff_description="Writes poems.").clone(name="poet")
    first = agent(model, kind, handoffs=[poet])
    result = await Runner.run(first, "Please transfer_to_poet")
    check(result.last_agent.name == "poet", result.last_agent.name)


@over(*FORMATS)
async def a_second_turn(model: str, kind: str) -> None:
    asked = agent(model, kind)
    first = await Runner.run(asked, "My name is Ann.")
    talk = [*first.to_input_list(), {"role": "user", "content": "What is my name?"}]
    then = await Runner.run(asked, talk)  # type: ignore[arg-type]
    check(then.final_output == "Your name is Ann.", then.final_output)


@over("responses")
async def a_second_turn_kept_by_the_gateway(model: str, kind: str) -> None:
    asked = agent(model, kind)
    first = await Runner.run(asked, "My name is Ann.")
    then = await Runner.run(asked, "What is my name?", previous_response_id=first.last_response_id)
    check(then.final_output == "Your name is Ann.", then.final_output)


if __name__ == "__main__":
    main()
