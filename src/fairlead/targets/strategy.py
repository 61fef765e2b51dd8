"""A way to ask another target, as a target of its own: the same model with worked examples, a brief, other sampling.

    targets:
      coder:    {type: openai_chat, model: coder-32b}
      few-shot: {type: strategy, of: coder, prompt: few_shot@1, fields: {temperature: 0.8, top_p: 0.95, max_tokens: 300}}

RoutingGen (2025, arXiv 2512.14048) routes between prompting strategies, not models. Here a strategy has a name, a profile, prices and outcomes like any target, so policies
choose among strategies, tables compare them, and bandits learn which pays. The inner target is called once per call; what it cost is the strategy's outcome.

The client's last message is put into the prompt's field ``{question}``; earlier messages stay. Messages that a plan wrote (to a judge, say) are passed on as they
are, and so is a conversation that does not end with the user, such as the result of a tool. `fields` are set in the request unless the plan's call sets them itself; they hold over
the client's.

**Profile.** If none is given, that of the inner target, but for text alone (a prompt would drop pictures), and it answers clients also where the inner target does not. What may do
something that cannot be undone still may. A guard that names the inner target does not hold for its strategies: name them too, or write it with a tag, which is taken over. The
prompt's own length, and a `max_tokens` among `fields`, are not in the estimate by which a limit on spend reserves: such a limit may be passed by one call's worth of them.

**Health** is the strategy's own: a failure of the inner target rests the one that was asked. If the inner target is down, each finds out by its own failures.

Cost: that of the inner target, with a longer prompt, plus about 20 µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from msgspec.structs import replace

from fairlead.errors import ConfigError, TargetError, suggest
from fairlead.plans import prompts
from fairlead.plans.prompts import Prompt
from fairlead.targets.base import UNKNOWN, Driver
from fairlead.types import Call, Failure, Message, Outcome, Profile, Query, Sink


class Strategy(Driver):
    """Asks another target in its own way.

    Args:
        name: what policies and traces call it.
        of: the target that it asks.
        prompt: with the field question; None: the messages go as they are.
        fields: of the request, to set.
        profile: not given: the inner target's, see above.
        timeout_seconds: for one call; the inner target keeps its own beside it.
    """

    kind: ClassVar[Literal["model", "agent", "adapter", "tool", "retriever", "strategy"]] = "strategy"

    @classmethod
    def example(cls) -> Self:
        """Of a scripted target."""
        from fairlead.targets.scripted import Scripted

        made = cls(name="a", of="b")
        made.over(Scripted(name="b"))
        return made

    def __init__(
        self,
        *,
        name: str,
        of: str,
        prompt: Prompt | str | None = "few_shot@1",
        fields: dict[str, Any] | None = None,
        profile: Profile = UNKNOWN,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.name = name
        self.of = of
        self.prompt = prompt
        self.fields = fields
        self.profile = profile
        self.timeout_seconds = timeout_seconds
        self._inner: Driver | None = None

    def over(self, inner: Driver) -> None:
        """Say which driver it asks: a config does. Who starts and stops that driver is whoever made it."""
        self._inner = inner
        risky = inner.target.side_effects
        if self.profile == UNKNOWN:
            self.profile = replace(inner.profile, modalities=UNKNOWN.modalities, answers=True)
        if risky and self.profile.side_effects is None:
            self.profile = replace(self.profile, side_effects=True)

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        if self._inner is None:
            message = f"{self.name} is a strategy of {self.of}, which nobody gave it; call over(driver) first"
            raise TargetError(Failure(kind="not_found", message=message))
        asked = replace(call, target=self.of, messages=self._messages(call, query), params=self._fields(call))
        return await self._inner.ask(asked, query, sink)

    def _fields(self, call: Call) -> dict[str, Any]:
        return {**(self.fields or {}), **call.params}

    def _messages(self, call: Call, query: Query) -> tuple[Message, ...] | None:
        """Put the client's last message into the prompt; None: as they came."""
        if call.messages is not None or self.prompt is None or not query.messages or query.messages[-1].role != "user":
            return call.messages
        *before, last = query.messages
        *brief, asked = prompts.find(self.prompt).messages({"question": last.text})
        return (*brief, *before, asked)

    def check(self) -> None:
        """Raise `ConfigError` if there is no such prompt, or it has other fields than the question."""
        if self.prompt is None:
            return
        try:
            prompts.check(self.prompt, "question")
        except ValueError as e:
            raise ConfigError(str(e), path="$.prompt") from e


def bind(drivers: Mapping[str, Driver]) -> None:
    """Give every strategy among `drivers` the driver that it asks.

    Raises:
        ConfigError: with the path, if there is none of that name, or strategies ask each other in a circle.
    """
    done: set[str] = set()

    def settle(name: str, above: tuple[str, ...]) -> None:
        driver = drivers[name]
        if not isinstance(driver, Strategy) or name in done:
            return
        path = f"$.targets.{name}.of"
        if driver.of not in drivers:
            raise ConfigError(f"no target is called {driver.of!r}; {suggest(driver.of, drivers)}", path=path)
        if driver.of in (*above, name):
            circle = " -> ".join((*above, name, driver.of))
            raise ConfigError(f"strategies ask each other in a circle: {circle}", path=path)
        settle(driver.of, (*above, name))  # its profile first: this one may take it over
        driver.over(drivers[driver.of])
        done.add(name)

    for name in drivers:
        settle(name, ())
