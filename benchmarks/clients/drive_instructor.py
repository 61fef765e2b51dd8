"""Instructor: objects of a class out of prompts, by tools, by schema and in streams, over OpenAI's and Anthropic's clients."""

# ruff: noqa: D103 - the name of a case says what it is.
from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import anthropic
import instructor
import openai
from cases import KEY, URL, check, main, over
from pydantic import BaseModel, field_validator

MODES = {
    "tools": instructor.Mode.TOOLS,
    "schema": instructor.Mode.JSON_SCHEMA,
    "responses": instructor.Mode.RESPONSES_TOOLS,
    "anthropic tools": instructor.Mode.ANTHROPIC_TOOLS,
}
ASKED: Any = [{"role": "user", "content": "Ann is 41 years old."}]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Address(BaseModel):
    """Where somebody lives."""

    city: str
    kind: Literal["house", "flat"]


class Resident(BaseModel):
    """A person and where they live."""

    person: Person
    addresses: list[Address]
    note: str | None = None


def client(kind: str) -> Any:
    """The client of this kind."""
    if kind.startswith("anthropic"):
        return instructor.from_anthropic(
            anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0), mode=MODES[kind]
        )
    return instructor.from_openai(openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0), mode=MODES[kind])


def limit(kind: str) -> dict[str, int]:
    """What Anthropic's format insists on."""
    return {"max_tokens": 200} if kind.startswith("anthropic") else {}


@over(*MODES)
def an_object(model: str, kind: str) -> None:
    found = client(kind).chat.completions.create(model=model, messages=ASKED, response_model=Person, **limit(kind))
    check((found.name, found.age) == ("Ann", 41), found)


@over(*MODES)
def a_nested_object(model: str, kind: str) -> None:
    asked: Any = [{"role": "user", "content": "Ann is 41 years old and lives in Paris, in a flat."}]
    found = client(kind).chat.completions.create(model=model, messages=asked, response_model=Resident, **limit(kind))
    check(found.person.age == 41 and found.addresses[0].kind == "flat", found)


@over(*MODES)
def with_its_completion(model: str, kind: str) -> None:
    found, raw = client(kind).chat.completions.create_with_completion(
        model=model, messages=ASKED, response_model=Person, **limit(kind)
    )
    check(found.age == 41 and raw.usage, raw)


@over(*MODES)
def several_streamed(model: str, kind: str) -> None:
    found = list(
        client(kind).chat.completions.create(
            model=model, messages=ASKED, response_model=Iterable[Person], stream=True, **limit(kind)
        )
    )
    check([p.age for p in found] == [41], found)


@over(*MODES)
def partly_streamed(model: str, kind: str) -> None:
    found = list(
        client(kind).chat.completions.create_partial(model=model, messages=ASKED, response_model=Person, **limit(kind))
    )
    check(found and (found[-1].name, found[-1].age) == ("Ann", 41), found)


@over(*MODES)
def asked_again_after_a_wrong_object(model: str, kind: str) -> None:
    tries: list[int] = []

    class Picky(Person):
        """A person that is only taken the second time."""

        @field_validator("age")
        @classmethod
        def second(cls, age: int) -> int:
            """Refuse the first."""
            tries.append(age)
            if len(tries) == 1:
                raise ValueError("say that again")
            return age

    found = client(kind).chat.completions.create(
        model=model, messages=ASKED, response_model=Picky, max_retries=2, **limit(kind)
    )
    check(len(tries) == 2 and found.age == tries[1], tries)


@over("tools", "anthropic tools")
async def async_object(model: str, kind: str) -> None:
    made: Any
    if kind.startswith("anthropic"):
        made = instructor.from_anthropic(anthropic.AsyncAnthropic(base_url=URL, api_key=KEY), mode=MODES[kind])
    else:
        made = instructor.from_openai(openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY), mode=MODES[kind])
    found = await made.chat.completions.create(model=model, messages=ASKED, response_model=Person, **limit(kind))
    check((found.name, found.age) == ("Ann", 41), found)


if __name__ == "__main__":
    main()
