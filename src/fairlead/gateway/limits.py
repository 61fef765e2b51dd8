"""Limits at the edge: how much a key, its team and its tenant may ask at a time, and what a client is told of it.

Requests and tokens of a minute and requests under way are accounts of the ledger (`fairlead.ledger`), as money is, so all processes of a
store share them; with `gateway.redis` all processes on one Redis server do (`shared_rates`). A request holds one request, one place among those
under way, and an estimate of its tokens: those of its messages (`pool.estimate_tokens`) and the answer's length that it asks for, or 256; never
more than the whole limit. When it ends, however it does, the place is given back and the tokens that were really used are charged, those of every
call of its plan. A request that is refused uses up nothing.

Minutes are those of the clock, not sliding, so twice a limit may pass around the turn of one. What a process has leased and does not use comes
back within a second: beside others it may refuse that much too early, and never lets too many in.

Cost: nothing for a key without limits; with all three limits 6 µs a request, 10 for a key, its team and its tenant, and 5 to 8 for the headers; a transaction
of the store for each lease, of which a busy process takes a few in a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw, Struct

from fairlead.gateway import shared_rates
from fairlead.gateway.refusal import Headers, Refused
from fairlead.gateway.shared_rates import SharedRates
from fairlead.ledger import Account, Exhausted, Hold, Ledger, Unknown, in_words, micros
from fairlead.pool import estimate_tokens
from fairlead.types import Query, Trace

UNSAID: Final = 256
"""Tokens held for an answer whose request does not say how long it may be."""
UNKNOWN_SECONDS: Final = 5.0
"""When to come again while the store cannot be asked."""

Kind: TypeAlias = Literal["requests", "tokens"]
Keeper: TypeAlias = Ledger | SharedRates
"""Who counts rates."""
Held: TypeAlias = Hold | shared_rates.Hold


class Rates(Struct, frozen=True, kw_only=True):
    """The accounts that each request of a caller is held on."""

    requests: tuple[Account, ...] = ()
    tokens: tuple[Account, ...] = ()
    concurrent: tuple[Account, ...] = ()

    def __add__(self, other: Rates) -> Rates:
        """Return both together."""
        return Rates(
            requests=self.requests + other.requests,
            tokens=self.tokens + other.tokens,
            concurrent=self.concurrent + other.concurrent,
        )

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens or self.concurrent)


class Shown(NamedTuple):
    """What a client is told of one limit: the tightest of its kind."""

    kind: Kind
    limit: int
    remaining: int
    ends: float
    """Unix time when it begins anew."""


class TooMany(Refused):
    """429: a limit has not so much left. `shown`: what the client is told of its limits."""

    shown: Sequence[Shown] = ()
    what: str = "tokens"
    """Which limit: ``requests``, ``tokens``, ``concurrent``."""


class Admitted:
    """What one request holds of its caller's limits."""

    __slots__ = ("concurrent", "ledger", "rates", "requests", "tokens")

    def __init__(self, ledger: Keeper, rates: Rates) -> None:
        self.ledger, self.rates = ledger, rates
        self.requests: Held | None = None
        self.tokens: Held | None = None
        self.concurrent: Held | None = None

    def release(self) -> None:
        """Give everything back: nothing was asked. A second time changes nothing."""
        for hold in (self.requests, self.tokens, self.concurrent):
            if hold is not None:
                hold.release()

    def end(self, trace: Trace | None, *, called: bool) -> None:
        """Give back the place, and charge the tokens that were used. A second time changes nothing.

        Args:
            trace: of the request, if one was written.
            called: whether somebody was called, so that tokens may have been used.
        """
        if self.concurrent is not None:
            self.concurrent.release()
        if self.tokens is not None:
            used = None if trace is None else tokens_of(trace)
            if not called:
                used = 0
            if used is None:
                used = max((amount for _, amount in self.tokens.amounts), default=0)
            self.tokens.use(used)

    def shown(self, now: float | None = None) -> list[Shown]:
        """Return how much is left of the tightest account of each kind, as far as this process knows."""
        return shown(self.ledger, self.rates, time.time() if now is None else now)


def shown(ledger: Keeper, rates: Rates, now: float) -> list[Shown]:
    """Return how much is left of the tightest account of each kind."""
    found = []
    if rates.requests:
        found.append(_tightest("requests", rates.requests, ledger, now))
    if rates.tokens:
        found.append(_tightest("tokens", rates.tokens, ledger, now))
    return found


def _tightest(kind: Kind, accounts: tuple[Account, ...], ledger: Keeper, now: float) -> Shown:
    tightest = accounts[0]
    least = ledger.left(tightest, now=now)
    for account in accounts[1:]:
        left = ledger.left(account, now=now)
        if left < least:
            tightest, least = account, left
    return Shown(kind, tightest.limit, int(least), tightest.window(now)[1])


async def admit(ledger: Keeper | None, rates: Rates, query: Query) -> Admitted:
    """Hold what `query` may use up of each limit.

    Raises:
        Refused: 429 if a limit has not so much left; 503 if nobody knows, since the store is gone.
    """
    if ledger is None:
        raise Refused(503, "this key has limits, and the gateway has no ledger to keep them", code="ledger_unavailable")
    now = time.time()
    admitted = Admitted(ledger, rates)
    try:
        if rates.requests:
            of = rates.requests
            admitted.requests = ledger.try_take(of, 1, now=now) or await ledger.take(of, 1, now=now)
        if rates.tokens:
            of, amount = rates.tokens, _estimate(query, rates.tokens)
            admitted.tokens = ledger.try_take(of, amount, now=now) or await ledger.take(of, amount, now=now)
        if rates.concurrent:
            of = rates.concurrent
            admitted.concurrent = ledger.try_take(of, 1, now=now) or await ledger.take(of, 1, now=now)
    except Exhausted as e:
        admitted.release()
        raise _too_many(e, ledger, rates, now) from e
    except Unknown as e:
        admitted.release()
        raise unknown(str(e)) from e
    except BaseException:
        admitted.release()
        raise
    if admitted.requests is not None:
        admitted.requests.use(1)
    return admitted


def _estimate(query: Query, accounts: Sequence[Account]) -> int:
    """Return the tokens to hold. Raises `Refused` if the messages alone are more than a whole limit."""
    said, account = estimate_tokens(query), min(accounts, key=lambda a: a.limit)
    if said > account.limit:
        text = (
            f"about {said} tokens are more than {account.name} may ever use in a minute ({account.limit}); send fewer"
        )
        raise Refused(429, text, code="rate_limit_exceeded", type="tokens", retry=False)
    return min(said + asked_for(query), account.limit)


def asked_for(query: Query) -> int:
    """Return how many tokens a request lets its answers have, or what is held where it does not say."""
    if query.task == "embeddings":
        return 0
    most = 0
    for field in ("max_tokens", "max_completion_tokens"):
        most = max(most, _whole(query.body.get(field)))
    return (most or UNSAID) * (_whole(query.body.get("n")) or 1)


_integer: Final = msgspec.json.Decoder(int)


def _whole(raw: Raw | None) -> int:
    """Read a whole number above 0; 0 if it is something else (whoever reads the field for good says what is wrong with it)."""
    if raw is None:
        return 0
    try:
        found = _integer.decode(raw)
    except msgspec.DecodeError:
        return 0
    return found if 0 < found < 2**31 else 0


def tokens_of(trace: Trace) -> int | None:
    """Return the tokens that all calls of a request used; None if one that answered did not tell."""
    used = 0
    for step in trace.steps:
        tokens = step.outcome.tokens
        if tokens is not None:
            used += tokens.input + tokens.output
        elif step.call is not None and (step.outcome.ok or step.outcome.streamed):
            return None
    return used


# ------------------------------------------------------------------------------------------------------ refusals


def _too_many(e: Exhausted, ledger: Keeper, rates: Rates, now: float) -> TooMany:
    account, seconds = e.account, math.ceil(e.until_seconds)
    said = {
        "requests": f"{account.limit} requests a minute are made",
        "tokens": f"{account.limit} tokens a minute are used up, or held by requests under way",
        "concurrent": f"{account.limit} requests are under way, as many as may be at once",
    }
    whose, _, what = account.name.rpartition("/")
    kind = "tokens" if what == "tokens" else "requests"
    text = f"{whose}: {said[what]}; try again in {seconds} s"
    headers: Headers = [(b"retry-after", b"%d" % seconds)]
    refused = TooMany(429, text, code="rate_limit_exceeded", type=kind, headers=headers)
    refused.shown = shown(ledger, rates, now)
    refused.what = what
    return refused


def unknown(message: str) -> Refused:
    """Say that the store cannot be asked what is left."""
    headers: Headers = [(b"retry-after", b"%d" % UNKNOWN_SECONDS)]
    return Refused(503, message, code="ledger_unavailable", headers=headers)


def broke(ledger: Ledger, accounts: Sequence[Account], usd: float, now: float | None = None) -> Refused | None:
    """Say which of a caller's accounts has least left, how much, and when it begins anew; None if `usd` could be paid from each."""
    now = time.time() if now is None else now
    left, account = min(((ledger.left(a, now=now), a) for a in accounts), key=lambda pair: pair[0])
    if micros(usd) <= left:
        return None
    return Refused(402, in_words(account, left, now), code="budget_exceeded", type="insufficient_quota", retry=False)


# ------------------------------------------------------------------------------------------------------ headers


_OPENAI: Final = {
    kind: tuple(f"x-ratelimit-{what}-{kind}".encode() for what in ("limit", "remaining", "reset"))
    for kind in ("requests", "tokens")
}


def openai(limits: Sequence[Shown], now: float | None = None) -> Headers:
    """Write limits under OpenAI's names."""
    now = time.time() if now is None else now
    out: Headers = []
    for limit in limits:
        most, left, reset = _OPENAI[limit.kind]
        out += [
            (most, b"%d" % limit.limit),
            (left, b"%d" % limit.remaining),
            (reset, duration(limit.ends - now)),
        ]
    return out


def anthropic(limits: Sequence[Shown]) -> Headers:
    """Write limits under Anthropic's names."""
    out: Headers = []
    for limit in limits:
        prefix = b"anthropic-ratelimit-" + limit.kind.encode()
        ends = datetime.fromtimestamp(math.ceil(limit.ends), UTC)
        out += [
            (prefix + b"-limit", b"%d" % limit.limit),
            (prefix + b"-remaining", b"%d" % limit.remaining),
            (prefix + b"-reset", f"{ends:%Y-%m-%dT%H:%M:%SZ}".encode()),
        ]
    return out


def duration(seconds: float) -> bytes:
    """Write a time as OpenAI does, in whole seconds: ``12s``, ``1m0s``."""
    minutes, rest = divmod(max(0, math.ceil(seconds)), 60)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
