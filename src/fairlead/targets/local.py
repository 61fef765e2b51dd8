"""The laboratory's tiny language models as targets, in process: real inference and true log-probabilities without key or network.

Inference is blocking numpy, so it runs in a small thread pool of the driver's own; cancelling a call stops it at the next token
(a call with ``n`` > 1 runs to its end, some tens of milliseconds). The seed is the request's ``seed``, or else follows from the
query's id; `Call.sample` shifts it. So the same query gives the same answer, and another sample another one.

A request that ends in an assistant's message is gone on with: the reply holds what is new, and what was there is counted as input. In ``working``
mode a model that works before it answers is asked the same way as in ``scratch`` mode, and all that it writes is the text: for plans that have it write
step by step.

In ``scratch`` mode what the model writes up to the first ``>`` is its reasoning: it is priced as output, counted as reasoning tokens,
and sent as ``reasoning_content``; the text, its log-probabilities and the entropy are those of the answer behind it.

Cost: 0.15 to 0.5 ms a token, by model.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import perf_counter
from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from fairlead.errors import ConfigError, TargetError, suggest
from fairlead.lab import pool as lab
from fairlead.lab.model import DEFAULT_MAX_TOKENS, SCRATCH_END, Completion, Model, Token, prompt_of, written_of
from fairlead.lab.shapes import Mode
from fairlead.targets import wire
from fairlead.targets.base import Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Tokens

THREADS: Final = 2
MOST_SAMPLES: Final = 64


class Asked(Struct):
    """The request fields that a lab model honours."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


_asked = msgspec.json.Decoder(Asked)


def profile_of(model: str) -> Profile:
    """Return what the laboratory knows about one of its models.

    Raises:
        ConfigError: if it has no such model.
    """
    try:
        known = lab.describe(model)
    except ValueError:
        raise ConfigError(f"unknown lab model {model!r}; {suggest(model, lab.names())}", path="$.model") from None
    return Profile(
        input_usd_per_mtok=known.usd_per_million_input_tokens,
        output_usd_per_mtok=known.usd_per_million_output_tokens,
        context_tokens=known.context_window,
        tools=False,
        tags=frozenset({"lab", *known.fields}),
        answers=bool(known.fields),
    )


class Local(Driver):
    """One of the laboratory's models.

    Args:
        name: what routes and traces call it.
        model: ``lab-nano``, ``lab-small``, ``lab-large``, ``lab-numbers``, ``lab-text``, or one of the crew.
        mode: ``direct``, or ``scratch`` or ``working`` for the models that can work before they answer.
        profile: None takes prices and context from the laboratory.
        timeout_seconds: for one call.
        temperature: where the request names none. 0 is greedy.

    Raises:
        ConfigError: for a model or mode that is not there.
    """

    @classmethod
    def example(cls) -> Self:
        """Under some name."""
        return cls(name="a")

    def __init__(
        self,
        *,
        name: str,
        model: str = "lab-small",
        mode: Mode = "direct",
        profile: Profile | None = None,
        timeout_seconds: float = 60.0,
        temperature: float = 0.0,
    ) -> None:
        known = profile_of(model)
        if mode not in lab.describe(model).modes:
            modes = ", ".join(lab.describe(model).modes)
            raise ConfigError(f"{model} has no mode {mode!r}; it has {modes}", path="$.mode")
        self.name = name
        self.model = model
        self.mode: Mode = mode
        self.profile = known if profile is None else profile
        self.timeout_seconds = timeout_seconds
        self.temperature = temperature
        self._threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Read the weights and open the threads."""
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=f"fairlead-{self.name}")
        await asyncio.get_running_loop().run_in_executor(self._threads, lab.load, self.model)

    async def stop(self) -> None:
        """Close the threads."""
        if self._threads is not None:
            threads, self._threads = self._threads, None
            threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._threads is None:
            raise TargetError(Failure(kind="internal", message=f"{self.name} is not started; await start() first"))
        asked = asked_of(call, query)
        prompt = self.prompt(call, query)
        arguments = self.arguments(asked, call, query)
        model = lab.load(self.model)
        n = asked.n or 1
        stop = Event()
        work = self._write(model, prompt, arguments, n, stop, None)
        begun = perf_counter()
        first_seconds: float | None = None
        try:
            if sink is None or n > 1:
                done = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            else:
                done, first_seconds = await self._stream(model, prompt, arguments, stop, asked, query, sink, begun)
        finally:
            stop.set()
        outcome = self.outcome(done, asked, query, first_seconds)
        if sink is not None:
            include = wire.wants_usage(query.body)
            if n > 1:
                await sink(wire.chunks(outcome, id=query.id, created=int(time.time()), include_usage=include))
            elif include and outcome.tokens is not None:
                chunk = wire.Chunks(id=query.id, created=int(time.time()), model=self.model)
                await sink(chunk.usage(wire.usage(outcome.tokens)))
        return outcome

    def prompt(self, call: Call, query: Query) -> str:
        """Return what the model is asked: the text of the last message of a user.

        Raises:
            TargetError: ``context_too_long``, if it leaves no room for an answer, with what is to be gone on from.
        """
        shown = _shown(call, query)
        prompt, written = prompt_of(shown), written_of(shown)
        window = lab.describe(self.model).context_window
        if len(prompt) + len(written) + 3 > window:
            message = f"{len(prompt) + len(written)} characters do not fit the context of {window} bytes"
            raise TargetError(Failure(kind="context_too_long", message=message))
        return prompt

    def arguments(self, asked: Asked, call: Call, query: Query) -> dict[str, Any]:
        """Return what the model is to be called with, as `Model.generate` names it, but for the prompt and how many samples."""
        seed = asked.seed
        if seed is None:
            seed = int.from_bytes(hashlib.sha256(query.id.encode()).digest()[:6], "big")
        stop = asked.stop
        most = asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
        return {
            "mode": self.mode,
            "max_tokens": DEFAULT_MAX_TOKENS if most is None else most,
            "temperature": self.temperature if asked.temperature is None else asked.temperature,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            # A prime far above any count of samples, so that neighbouring seeds do not share draws.
            "seed": seed + 1_000_003 * call.sample,
            "stop": (stop,) if isinstance(stop, str) else tuple(stop or ()),
            "top_logprobs": asked.top_logprobs or 0,
            "written": written_of(_shown(call, query)),
        }

    def _write(
        self,
        model: Model,
        prompt: str,
        arguments: dict[str, Any],
        n: int,
        stop: Event,
        each: Callable[[Token], object] | None,
    ) -> Callable[[], tuple[Completion, ...]]:
        """Return the blocking work: one sample token by token, so that it can be stopped; several as one batch."""

        def work() -> tuple[Completion, ...]:
            try:
                if n > 1:
                    return model.generate(prompt, n=n, **arguments)
                tokens = model.stream(prompt, **arguments)
                while not stop.is_set():
                    try:
                        token = next(tokens)
                    except StopIteration as end:
                        return (end.value,)
                    if each is not None:
                        each(token)
                tokens.close()
            except ValueError as e:
                raise TargetError(Failure(kind="bad_request", message=str(e))) from e
            return ()

        return work

    async def _stream(
        self,
        model: Model,
        prompt: str,
        arguments: dict[str, Any],
        stop: Event,
        asked: Asked,
        query: Query,
        sink: Sink,
        begun: float,
    ) -> tuple[tuple[Completion, ...], float | None]:
        loop = asyncio.get_running_loop()
        written: asyncio.Queue[Token | None] = asyncio.Queue()

        def each(token: Token | None) -> None:
            loop.call_soon_threadsafe(written.put_nowait, token)

        done = loop.run_in_executor(self._threads, self._write(model, prompt, arguments, 1, stop, each))
        done.add_done_callback(lambda _: written.put_nowait(None))
        chunk = wire.Chunks(id=query.id, created=int(time.time()), model=self.model)
        answering = self.mode != "scratch"
        role: dict[str, str] = {"role": "assistant"}
        first: float | None = None
        while (token := await written.get()) is not None:
            if first is None:
                first = perf_counter() - begun
            key = "content" if answering else "reasoning_content"
            logprobs = {"content": [_entry(token)]} if asked.logprobs and answering else None
            await sink(chunk.delta({**role, key: token.text}, logprobs=logprobs))
            role = {}
            answering = answering or token.text == SCRATCH_END
        completions = await done
        if completions:
            await sink(chunk.delta(role, finish=completions[0].finish_reason))
        return completions, first

    def outcome(self, done: tuple[Completion, ...], asked: Asked, query: Query, first_seconds: float | None) -> Outcome:
        """Return what became of a call, from what the model wrote: the text is that of the first sample, all of them are in `reply`.

        `first_seconds` is when the first token was there, if that is known. Name, price and duration are left to `Driver.ask`.
        """
        answers = [_split(c, self.mode) for c in done]
        tokens = Tokens(
            input=done[0].prompt_tokens,
            output=sum(c.completion_tokens for c in done),
            reasoning=sum(len(reasoning) for reasoning, _ in answers),
        )
        choices = [
            wire.Choice(
                text=_text(answer),
                reasoning=_text(reasoning),
                finish=completion.finish_reason,
                logprobs=tuple(_entry(t) for t in answer) if asked.logprobs else None,
            )
            for completion, (reasoning, answer) in zip(done, answers, strict=True)
        ]
        answer = answers[0][1]
        return Outcome(
            text=choices[0].text,
            model=self.model,
            tokens=tokens,
            first_token_seconds=first_seconds,
            logprobs=tuple(t.logprob for t in answer),
            first_entropy=answer[0].entropy if answer else done[0].first_entropy,
            finish=choices[0].finish,
            reply=wire.completions(choices, id=query.id, created=int(time.time()), model=self.model, tokens=tokens),
        )


def asked_of(call: Call, query: Query) -> Asked:
    """Read the request's fields, with what the call replaces.

    Raises:
        TargetError: ``bad_request``, if one has the wrong type, or more samples are wanted than `MOST_SAMPLES`.
    """
    fields = wire.fields(call, query)
    try:
        asked = _asked.decode(msgspec.json.encode({k: v for k, v in fields.items() if k in Asked.__struct_fields__}))
    except msgspec.ValidationError as e:
        raise TargetError(Failure(kind="bad_request", message=str(e))) from e
    if asked.n is not None and not 1 <= asked.n <= MOST_SAMPLES:
        raise TargetError(Failure(kind="bad_request", message=f"n is {asked.n}; it must be 1 to {MOST_SAMPLES}"))
    return asked


def _shown(call: Call, query: Query) -> list[dict[str, Any]]:
    """Return the messages as the laboratory reads them: its models see text alone."""
    shown = []
    for message in query.messages if call.messages is None else call.messages:
        content = message.content
        parts = [{"type": p.type, "text": p.text} for p in content] if isinstance(content, tuple) else content
        shown.append({"role": message.role, "content": parts})
    return shown


def _split(completion: Completion, mode: Mode) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """Part a completion into (reasoning, answer), by the first end of scratch work: the only one a stream can know."""
    tokens = completion.tokens
    if mode != "scratch":
        return (), tokens
    for i, token in enumerate(tokens):
        if token.text == SCRATCH_END:
            return tokens[: i + 1], tokens[i + 1 :]
    return tokens, ()


def _text(tokens: tuple[Token, ...]) -> str:
    return "".join(t.text for t in tokens)


def _entry(token: Token) -> dict[str, Any]:
    return wire.token_logprob(token.text, token.logprob, token.top_logprobs)
