"""The nouns. Frozen, keyword-only structs that every other module speaks in.

Units live in names: `usd`, `seconds`, `joules`, `tokens`. Quality and probabilities lie in [0, 1].
None means "not known", not zero; what weighs such an amount says what it counts as (`Objective.unknown`).

The one effect of a plan, `Do`, lives here too: a plan is a generator that yields `Do`s and is sent outcomes. It does no I/O
and sees no clock, so what is tested on recorded outcomes is what serves (see `fairlead.worlds`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Generator
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

Scalar: TypeAlias = bool | int | float | str | None
Sink: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Where a streamed answer goes: whole server-sent events in the OpenAI chat format, without the closing ``[DONE]``."""


# ---------------------------------------------------------------------------------------------------- what is asked


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of a message's content: text, or something else named by its type (image_url, input_audio, file …)."""

    type: str = "text"
    text: str = ""


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation, as far as routing reads it. The full bytes stay in `Query.body`."""

    role: str
    content: str | tuple[Part, ...] | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(p.text for p in self.content or () if p.text)


class Identity(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks, and in which longer story: tenant, user, session, episode (one task of an agent) and step in it."""

    tenant: str | None = None
    user: str | None = None
    session: str | None = None
    episode: str | None = None
    step: int = 0
    key: str | None = None
    """Name of the API key that let the request in. Like `roles` never self-declared: the edge sets both."""
    roles: tuple[str, ...] = ()
    """What the asker may do, as its key says, or a front end that the key vouches for."""


class Constraints(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the asker insists on. None: no wish."""

    allow: tuple[str, ...] | None = None
    """Only these targets may act."""
    max_usd: float | None = None
    """Spend for the whole plan, all calls together."""
    deadline_seconds: float | None = None
    """Time for the whole plan."""
    max_calls: int | None = None
    regions: tuple[str, ...] | None = None
    """The data may go to these regions only: targets that name none of them in `Profile.regions` may not act."""
    prefer: dict[str, float] = {}
    """Soft wishes with weights of at least 0, in quality at most given up for each (see `fairlead.preferences`)."""


class Spent(Struct, frozen=True, kw_only=True):
    """How far a route has come in its current budget period, when a query arrives."""

    usd: float
    """Settled, and reserved by calls under way."""
    elapsed: float
    """Share of the period that is over, in [0, 1)."""


Task: TypeAlias = Literal["chat", "embeddings"]


class Query(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to route.

    `body` is the request as it came, field by field, undecoded: drivers forward it untouched but for the model's name.
    `messages` is the typed view that signals read. `arrival` numbers the queries of one router, for policies that take turns.
    """

    id: str
    messages: tuple[Message, ...]
    route: str = "auto"
    tools: tuple[str, ...] = ()
    body: dict[str, Raw] = {}
    identity: Identity = Identity()
    constraints: Constraints = Constraints()
    arrival: int = 0
    spent: Spent | None = None
    """Stamped at admission where the route's policy keeps a budget: so the decision can be replayed from the record."""
    at: float = 0.0
    """Unix time of admission; 0: nobody admitted it. Signals of time read this, never a clock."""
    task: Task = "chat"
    """What is asked for: an answer, or vectors. Targets say which they can do (`Profile.tasks`)."""
    api: str = "chat"
    """The wire format that it came in: ``chat``, ``responses``, ``messages``, ``completions``, ``embeddings``. `body` is in the chat format
    whichever it was (for embeddings: in theirs)."""
    batch: bool = False
    """It is a line of a batch: nobody waits for it, and a provider may charge less (`Profile.batch_price`)."""
    dropped: tuple[str, ...] = ()
    """What the request asked for in its own format that the chat format has no place for: it was left out, and the client is told."""

    @classmethod
    def ask(cls, text: str, *, id: str | None = None, constraints: Constraints | None = None, **body: Any) -> Query:
        """Make a query from one user message; further keywords become fields of the request body."""
        messages = (Message(role="user", content=text),)
        fields = {"messages": messages, **body}
        return cls(
            id=id or new_id(),
            messages=messages,
            body={k: Raw(msgspec.json.encode(v)) for k, v in fields.items()},
            constraints=constraints or Constraints(),
        )

    @property
    def text(self) -> str:
        """The text of the last user message, or of the last message if no user spoke."""
        for m in reversed(self.messages):
            if m.role == "user":
                return m.text
        return self.messages[-1].text if self.messages else ""

    @property
    def modalities(self) -> frozenset[str]:
        """The kinds of content parts, as ``text``, ``image``, ``audio`` or ``file``."""
        found = {"text"}
        for m in self.messages:
            if not isinstance(m.content, str):
                found.update(MODALITY.get(p.type, p.type) for p in m.content or ())
        return frozenset(found)


MODALITY: Final = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "text",
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "file": "file",
    "input_file": "file",
}
"""Types of content parts -> what they are."""


def new_id() -> str:
    """Return a fresh id: it names the query, its decision, its trace and its response.

    It begins with the time in milliseconds, so that a store's index of ids grows at its end, and ends in 64 random bits.
    """
    try:
        tail = _tails.pop()
    except (
        IndexError
    ):  # drawn many at a time: each draw is a call to the system, at which another thread takes its turn
        drawn = os.urandom(8 * _TAILS).hex()
        _tails.extend(drawn[i : i + 16] for i in range(16, 16 * _TAILS, 16))
        tail = drawn[:16]
    return f"chatcmpl-{time.time_ns() // 1_000_000:012x}{tail}"


_TAILS: Final = 256
_tails: Final[list[str]] = []
"""The random bits of ids to come."""
if hasattr(os, "register_at_fork"):  # two processes must not draw the same
    os.register_at_fork(after_in_child=_tails.clear)


class Reading(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one signal says about a query: a value, or named parts, or a vector, or a bag; how sure; and the time it took to read."""

    value: Scalar = None
    parts: dict[str, bool | int | float | str] = {}
    vector: bytes = b""
    """Little-endian float32; `numpy.frombuffer(vector, "<f4")`."""
    bag: bytes | None = None
    """Counted features: pairs of little-endian uint16, a feature's number and how often it is there, in rising order. Empty if a text has
    none; None if the signal never gives a bag."""
    confidence: float = 1.0
    seconds: float = 0.0
    late: bool = False
    """It was not there in time, or its reader broke: it says nothing (confidence 0), and the decision went on without it."""


class Signals(Struct, frozen=True, kw_only=True):
    """Named readings of one query."""

    readings: dict[str, Reading] = {}

    def get(self, key: str) -> Scalar:
        """Return the value at ``signal`` or ``signal.part``; None if it was not read."""
        name, _, part = key.partition(".")
        reading = self.readings.get(name)
        if reading is None:
            return None
        return reading.parts.get(part) if part else reading.value


# ------------------------------------------------------------------------------------------------------ who can act


Price: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0)]
_TEXT_ONLY = frozenset({"text"})
_CHAT_ONLY = frozenset({"chat"})
_NO_TAGS: frozenset[str] = frozenset()


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known about a target. None: unknown, which is not zero."""

    input_usd_per_mtok: Price | None = None
    cached_input_usd_per_mtok: Price | None = None
    output_usd_per_mtok: Price | None = None
    cache_write_usd_per_mtok: Price | None = None
    """Input that is also written to the provider's prompt cache."""
    reasoning_usd_per_mtok: Price | None = None
    """None: as other output."""
    audio_input_usd_per_mtok: Price | None = None
    audio_output_usd_per_mtok: Price | None = None
    image_input_usd_per_mtok: Price | None = None
    """None: as text."""
    batch_price: Annotated[float, msgspec.Meta(ge=0.0)] | None = None
    """What a call of a batch costs, as a share of these prices, where the provider gives a discount; None: it gives none."""
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    modalities: frozenset[str] = _TEXT_ONLY
    tasks: frozenset[str] = _CHAT_ONLY
    """What it can do: ``chat``, ``embeddings``."""
    space: str | None = None
    """Names the space of its vectors: only targets of the same space may take over for one that fails to give vectors."""
    tools: bool = True
    first_token_seconds: float | None = None
    seconds_per_output_token: float | None = None
    joules_per_token: float | None = None
    quality: float | None = None
    """A prior for mean quality over everything, if somebody measured one."""
    skills: dict[str, float] = {}
    """Measured mean quality by kind of task."""
    tags: frozenset[str] = _NO_TAGS
    regions: frozenset[str] = _NO_TAGS
    """Where it keeps and works on data, such as ``eu`` or ``on-premise``."""
    parameters_b: float | None = None
    """Size in billions of parameters."""
    released: str | None = None
    """Date of release, ``YYYY-MM-DD``."""
    answers: bool = True
    """False: it acts only in plans that name it (a judge, a gate, an index), and no policy turns to it by itself."""
    concurrent: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many calls it takes at once from one process; others wait in line (see `fairlead.worlds.lanes`)."""
    side_effects: bool | None = None
    """Whether a call may do something that cannot be undone. None: agents and tools may, others do not."""
    tokenizer: str | None = None
    """Path of a ``tokenizer.json``: its contexts are then counted by it, not by rule of thumb."""

    def __post_init__(self) -> None:
        # msgspec leaves out a default by identity: equal profiles must be written alike, since digests name them.
        if self.modalities == _TEXT_ONLY:
            msgspec.structs.force_setattr(self, "modalities", _TEXT_ONLY)
        if self.tasks == _CHAT_ONLY:
            msgspec.structs.force_setattr(self, "tasks", _CHAT_ONLY)
        if not self.tags:
            msgspec.structs.force_setattr(self, "tags", _NO_TAGS)
        if not self.regions:
            msgspec.structs.force_setattr(self, "regions", _NO_TAGS)

    def usd(self, tokens: Tokens) -> float | None:
        """Price `tokens`, each of the disjoint kinds at its own price; None where a needed price is unknown.

        Cached input and pictures fall back to the price of input, reasoning to that of output: that is how they are billed where a
        provider names no price of their own. Sound and cache writes have no such rule: without their price the cost is unknown.
        """
        entry, output = self.input_usd_per_mtok, self.output_usd_per_mtok
        cached = entry if self.cached_input_usd_per_mtok is None else self.cached_input_usd_per_mtok
        t = tokens
        if t.simple and entry is not None and output is not None and cached is not None:
            read = min(t.cached_input, t.input)
            return ((t.input - read) * entry + read * cached + t.output * output) / 1e6
        if t.extras or (entry is None and output is None):
            return None
        prices = {
            "input": entry,
            "cached_input": cached,
            "cache_write": self.cache_write_usd_per_mtok,
            "audio_input": self.audio_input_usd_per_mtok,
            "image_input": entry if self.image_input_usd_per_mtok is None else self.image_input_usd_per_mtok,
            "output": output,
            "reasoning": output if self.reasoning_usd_per_mtok is None else self.reasoning_usd_per_mtok,
            "audio_output": self.audio_output_usd_per_mtok,
        }
        total = 0.0
        for kind, count in t.kinds().items():
            price = prices[kind]
            if price is None:
                return None
            total += count * price
        return total / 1e6


class Target(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that can act on a query."""

    name: str
    kind: Literal["model", "agent", "adapter", "tool", "retriever", "strategy"] = "model"
    profile: Profile = Profile()

    @property
    def side_effects(self) -> bool:
        """Whether a call may do something that cannot be undone, so that it must not be sent twice: agents and tools, unless told otherwise."""
        said = self.profile.side_effects
        return self.kind in ("agent", "tool") if said is None else said


# --------------------------------------------------------------------------------------------------- what is called


class Tokens(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Token counts of one call, as OpenAI counts: `input` and `output` are the sums, the others are parts of them.

    `cached_input` (read from the provider's cache), `cache_write`, `audio_input` and `image_input` are parts of `input`; `reasoning` and
    `audio_output` of `output`. `kinds` gives disjoint counts, which is what is priced: a token is never paid for twice.
    """

    input: int = 0
    cached_input: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write: int = 0
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0
    extras: int = 0
    """What else is billed that no price here covers: searches that the provider ran, tokens kept in its cache for an hour. The cost of the call is
    unknown then."""

    @property
    def simple(self) -> bool:
        """Whether nothing is there that needs a price of its own beside input, cached input and output."""
        return not (
            self.cache_write
            or self.audio_input
            or self.image_input
            or self.audio_output
            or self.reasoning
            or self.extras
        )

    def kinds(self) -> dict[str, int]:
        """Return disjoint counts, those above 0, whose sum is input + output.

        Where parts claim more than the whole (a provider that counts a cached picture as both), later kinds get what is left.
        """
        found: dict[str, int] = {}
        if self.simple and not self.cached_input:
            if self.input > 0:
                found["input"] = self.input
            if self.output > 0:
                found["output"] = self.output
            return found
        for whole, rest, parts in (
            ("input", self.input, ("cached_input", "cache_write", "audio_input", "image_input")),
            ("output", self.output, ("reasoning", "audio_output")),
        ):
            for part in parts:
                count = min(getattr(self, part), rest)
                if count > 0:
                    found[part] = count
                    rest -= count
            if rest > 0:
                found[whole] = rest
        return found


FailureKind: TypeAlias = Literal[
    "auth",
    "bad_request",
    "blocked",
    "broken_stream",
    "budget",
    "busy",
    "client_gone",
    "context_too_long",
    "deadline",
    "internal",
    "malformed",
    "no_target",
    "not_found",
    "rate_limited",
    "timeout",
    "unavailable",
]


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a call, or a whole plan, gave no answer. `message` is safe to show: it never holds a secret."""

    kind: FailureKind
    message: str = ""
    status: int | None = None
    retry_after_seconds: float | None = None
    sent: bool = False
    """The request had gone out whole when its target fell silent: it may have been worked on, and may be billed."""

    @property
    def elsewhere(self) -> bool:
        """Whether another target may well succeed where this one failed."""
        return self.kind not in ("bad_request", "blocked", "client_gone", "deadline", "no_target")


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="call", tag_field="kind"):
    """One call that a plan asks for. `messages` and `params` replace the query's own where given."""

    target: str
    purpose: Literal["answer", "probe", "judge", "merge", "gate", "plan", "retrieve"] = "answer"
    """What for: an answer; a look at how an answer would go; a verdict on answers; one answer out of several; a forecast of a learned part
    (see `fairlead.targets.gate`); whom to ask or in what steps; passages."""
    after: int = 0
    """In a record: how many of the query's own messages stand before `messages`, and are left out there."""
    prompt: str = ""
    """Which kept prompt `messages` were written by, as ``name@version``."""
    alone: bool = False
    """Send none of the request's own fields (tools, formats, limits), only `messages` and `params`: it is not the client's question."""
    sample: int = 0
    """Which draw, so that replays can tell draws apart."""
    messages: tuple[Message, ...] | None = None
    params: dict[str, Any] = {}
    """Fields of the request body to set, such as ``temperature`` or ``logprobs``."""


if TYPE_CHECKING:
    RawCalls: TypeAlias = Raw | None
else:
    RawCalls = Any  # msgspec decodes no union with Raw; `chain.decode` makes it Raw again


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came back from one call, or from a plan (then: the call whose answer it gave)."""

    text: str = ""
    target: str = ""
    model: str = ""
    """The model's name as the target itself reported it."""
    tokens: Tokens | None = None
    """None: the target did not say, and no count was made."""
    usd: float | None = None
    seconds: float = 0.0
    first_token_seconds: float | None = None
    joules: float | None = None
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each answer token under the model, in order."""
    first_entropy: float | None = None
    """Entropy in nats of the first answer token's distribution (over the alternatives that were reported)."""
    confidence: float | None = None
    """Confidence in [0, 1] or a log-probability recorded beside the answer, where a source has one and not the tokens."""
    quality: float | None = None
    """How good the answer was, where a table recorded it. For evaluation alone: no plan may read it."""
    finish: str = ""
    tool_calls: RawCalls = None
    error: Failure | None = None
    cancelled: bool = False
    limited: Literal["", "budget", "deadline"] = ""
    """Of a run's answer: a limit kept the plan from all it wanted to do, and this is the best that there was."""
    streamed: bool = False
    """Some of this answer has already gone to the client."""
    dropped: tuple[str, ...] = ()
    """What the request asked for that the target's format has no place for: it was left out, and the client is told."""
    retries: int = 0
    """How often the call was sent again before this came of it, after failures that cost nothing."""
    reply: bytes = b""
    """The reply's own bytes, to forward untouched. Never stored."""

    @property
    def ok(self) -> bool:
        """Whether this is an answer."""
        return self.error is None and not self.cancelled


class Plan:
    """How to act, as data: a frozen struct that can `run`. Kinds live in `fairlead.plans`, one file each."""

    def run(self, query: Query) -> Steps:
        """Yield what is wanted done, be sent the outcomes, return the answer."""
        raise NotImplementedError

    def targets(self) -> tuple[str, ...]:
        """Name every target that the plan may call, in order of first use."""
        raise NotImplementedError

    @classmethod
    def example(cls) -> Plan:
        """Return a small plan of this kind to check, over targets of any name."""
        raise NotImplementedError(f"{cls.__name__} needs a classmethod example() that returns a small plan of its kind")


class Limits(Struct, frozen=True, kw_only=True):
    """What a run, or a step of one, may take: all its calls together, those of nested plans included."""

    usd: float = inf
    seconds: float = inf
    calls: float = inf

    @classmethod
    def of(cls, constraints: Constraints) -> Limits:
        """Read the limits off a query's constraints."""
        c = constraints
        if c.max_usd is None and c.deadline_seconds is None and c.max_calls is None:
            return UNLIMITED
        return cls(
            usd=inf if c.max_usd is None else c.max_usd,
            seconds=inf if c.deadline_seconds is None else c.deadline_seconds,
            calls=inf if c.max_calls is None else c.max_calls,
        )


UNLIMITED: Final = Limits()


class Late(Struct, frozen=True, kw_only=True):
    """When a duplicate may start: a plan sees no clock, so the world that has one decides (see `fairlead.worlds.lateness`)."""

    target: str
    """Whose latency is watched: the duplicate starts when this target has taken longer than it mostly does."""
    quantile: float = 0.95
    otherwise: float = 1.0
    """Seconds to wait while too few of its latencies are known."""
    share: float = 0.05
    """At most this share of the steps that name this target starts its duplicate: without a bound, duplicates make a slow fleet slower."""


class Do(Struct, frozen=True, kw_only=True):
    """The one effect: run `branches` side by side.

    `need`: how many good ones must come back before the rest are cancelled (None: all are waited for, good or bad).
    `after`: when each starts, in seconds from this step, or a rule for it (a branch that is no longer needed never starts, and costs nothing;
    with `need`, the next one starts at once if all that had started failed).
    `final`: the reply *is* the answer, so that a world may stream it to the client.
    `limits`: what all branches together may take, within what the whole run may take.
    """

    branches: tuple[Call | Plan, ...]
    need: int | None = None
    after: tuple[float | Late, ...] | None = None
    final: bool = False
    limits: Limits | None = None


Steps: TypeAlias = Generator[Do, tuple[Outcome, ...], Outcome]
Path: TypeAlias = tuple[int, ...]
"""Address of a call in its plan: step, branch, step, branch …; an odd length names a step itself."""


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a plan's record: a call with its outcome, or (call None) a limit that stopped the plan at that step."""

    path: Path
    outcome: Outcome
    call: Call | None = None
    start_seconds: float = 0.0
    charged_usd: float | None = None
    """What a limit or budget was charged for a call that did not tell its cost: what had been set aside for it."""
    waited_seconds: float = 0.0
    """How long of that the call waited for its turn, or to be sent again; `Outcome.seconds` does not count it."""


# ---------------------------------------------------------------------------------------------------- what is decided


class Forecast(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is expected of one option. `_sd` is one standard deviation of the *expected* value (what more data would shrink)."""

    quality: float
    quality_sd: float = 0.0
    usd: float | None = None
    usd_sd: float = 0.0
    seconds: float | None = None
    joules: float | None = None
    output_tokens: float | None = None


class Option(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan that a policy considers, with the probability of choosing it and what it is expected to bring."""

    plan: Plan
    probability: float
    forecast: Forecast | None = None


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which options there were, which was chosen, with what probability, and why. Enough to decide again.

    A refusal, since nobody was eligible, is a decision without options.
    """

    options: tuple[Option, ...]
    chosen: int
    propensity: float
    reasons: tuple[str, ...] = ()
    policy: str = ""
    version: int = 0
    policy_digest: str = ""
    pool_digest: str = ""
    seed: int = 0
    eligible: tuple[str, ...] = ()
    excluded: dict[str, str] = {}
    fallbacks: tuple[Plan, ...] | None = None
    """Who may take over if the chosen plan fails before its first byte, in order. None: the other options, then all who are eligible."""
    forecast_of: Literal["quality", "utility"] = "quality"
    """What the forecasts' `quality` stands for: linear bandits learn quality less what it took, as one number."""
    objective: dict[str, float] = {}
    """What the forecasts were weighed by: the fields of an `Objective` that are not at their default."""
    shadow: tuple[Option, ...] = ()
    """What a policy that decides but does not serve would have proposed, with its probabilities."""
    members: dict[str, tuple[Option, ...]] = {}
    """What each member of a mixture proposed, by its name, without forecasts: a late judgement finds members that have moved on."""
    guards: tuple[str, ...] = ()
    """The route's guards that held, by name; what they forbade stands in `excluded`."""
    guards_digest: str = ""
    """Names all guards of the route as the store keeps them, those that did not hold included; empty if there was none to hold."""
    rule: str = ""
    """The rule that decided, where rules did."""
    actions: tuple[str, ...] = ()
    """What was to be done around the plan, by name, in the order in which it was done (see `fairlead.actions`)."""
    seconds: float = 0.0
    """Time to read the signals and decide."""

    @property
    def plan(self) -> Plan:
        """The chosen plan. Raises `IndexError` for a refusal."""
        return self.options[self.chosen].plan

    @property
    def may_answer(self) -> frozenset[str]:
        """Targets that may answer in this plan's place: all eligible ones where `fallbacks` is None, else its own and its fallbacks'."""
        if self.fallbacks is None:
            return frozenset(self.eligible)
        return frozenset(t for plan in (self.plan, *self.fallbacks) for t in plan.targets())


class Act(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one action did around a plan: for the record, so never the text it saw."""

    name: str
    did: str
    """In one word: blocked, masked, hit, stored, tagged, retried …"""
    detail: dict[str, bool | int | float | str] = {}
    seconds: float = 0.0


FeedbackKind: TypeAlias = Literal["value", "label", "correction", "rating", "test", "judge", "reask", "abandon"]


class Feedback(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A judgement of an answer, now or days later. `value` in [0, 1]: how good it was."""

    trace_id: str
    value: float
    kind: FeedbackKind = "value"
    source: str = "user"
    confidence: float = 1.0
    label: str | None = None
    correction: str | None = None
    at: float = 0.0
    by: str = ""
    """Name of the API key that sent it. Unlike `source` never self-declared: the edge sets it."""

    @property
    def voter(self) -> str:
        """Who judges, as far as that is known: ``key/source``, or the source alone where no key was needed."""
        return f"{self.by}/{self.source}" if self.by else self.source


EVIDENCE: Final = 0.5
"""Weight from which a judgement is evidence of an answer, beside what it teaches: all of it, or none."""


class Reward(Struct, frozen=True, kw_only=True):
    """What a decision brought: the judged quality and what it took. Objectives weigh it as they weigh a `Forecast`."""

    quality: float
    quality_sd: float = 0.0
    usd: float | None = None
    seconds: float | None = None
    joules: float | None = None
    weight: float = 1.0
    """How much it counts, in [0, 1], against a judgement that is beyond doubt."""
    further: bool = False
    """It adds to what an earlier judgement of the same answer taught."""
    whole: float | None = None
    """Of a further one: the quality that it says of the answer, if it is the first to count for half or more."""

    @property
    def evidence(self) -> float | None:
        """Quality of the answer for whoever counts answers as evidence: by the first judgement that counts for half or more (`EVIDENCE`).
        None: this is not that one."""
        return self.whole if self.further else self.quality if self.weight >= EVIDENCE else None


class Trace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole story of one query. The store chains its canonical bytes to the trace before."""

    id: str
    at: float
    """Unix time of arrival."""
    query: Query
    signals: Signals
    decision: Decision
    plan: Plan | None = None
    """The plan that ran: the chosen one, wrapped by the router with its fallbacks. None: the chosen one as it was."""
    steps: tuple[Step, ...] = ()
    outcome: Outcome
    acts: tuple[Act, ...] = ()
    """What the decision's actions did. `query` is as the plan saw it, and `outcome` as the plan gave it: masked, if it was masked."""
    usd: float | None = None
    """All calls together; None if one of them has an unknown price."""
    seconds: float = 0.0
    """From arrival to the end of the answer."""
    charged: dict[str, int] = {}
    """Micro-dollars that this query was charged, by account and period (see `fairlead.ledger`)."""
    fairlead: str = ""
    """The version of Fairlead that wrote it."""
    text_kept: bool = True
    """False: messages and answers were blanked before storing (spaces of the same length stand in their place)."""
