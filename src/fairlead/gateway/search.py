"""Search among the newest decisions: one short row for each that fits, never a whole trace.

Rows are read from the store newest first, a page at a time, and only the fields that are looked at are decoded (9 µs for a short
trace). A search ends with `limit` rows, after `MOST` traces or `SECONDS`, whichever comes first, and says where the next one may go on.
A trace of more than `LARGE` bytes is found by its id, route and target alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import Struct

from fairlead import chain
from fairlead.errors import StoreError
from fairlead.store import Store
from fairlead.types import Feedback, Identity, Message

if TYPE_CHECKING:
    from fairlead.gateway.sight import Sight

MOST: Final = 20_000
"""Newest traces that one search looks at."""
SECONDS: Final = 1.0
PAGE: Final = 64
LARGE: Final = 262_144
PROMPT: Final = 160
WHY: Final = 200
"""Characters of why a request was refused."""
_BUDGET: Final = ("budget:", "may cost", "has no known price")
"""How the pool's reasons begin that are about money."""

Judged = Literal["good", "bad", "yes", "no"]
"""Judged at 0.5 or above, below it, at all, not at all."""


class Sought(Struct, frozen=True, kw_only=True):
    """What a row must be; None: anything."""

    word: str | None = None
    """Somewhere in its text, its id, or a name in it, whatever the case."""
    route: str | None = None
    target: str | None = None
    tenant: str | None = None
    key: str | None = None
    rule: str | None = None
    guard: str | None = None
    action: str | None = None
    """The name of an action that did something."""
    error: str | None = None
    """A kind of failure; ``any``: it failed or was refused; ``none``: neither. ``budget`` finds those too that nobody could be paid for."""
    judged: Judged | None = None


class Row(Struct, kw_only=True):
    """One decision, in short."""

    id: str
    at: float
    route: str
    target: str
    seconds: float
    policy: str = ""
    tenant: str | None = None
    key: str | None = None
    rule: str = ""
    guards: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    """What actions did, such as ``mask masked``."""
    usd: float | None = None
    error: str | None = None
    why: str = ""
    """Of a refusal: what stood in the way of one of the targets, and of how many more something did; or what the asker was told."""
    tried: int = 0
    """Calls that failed before the answer, or with it."""
    prompt: str | None = None
    """The beginning of the last question; None: its text was not kept, or is too long to be looked at here."""
    judged: float | None = None
    """The latest judgement that stands."""


class Found(Struct, kw_only=True):
    """What a search found, newest first."""

    data: list[Row]
    searched: int
    """How many traces were looked at."""
    older: int | None = None
    """`before` for the next search; null: there is nothing older."""
    object: str = "list"


class _Failure(Struct):
    kind: str
    message: str = ""


class _Outcome(Struct):
    text: str = ""
    error: _Failure | None = None


class _Step(Struct):
    outcome: _Outcome


class _Act(Struct):
    name: str
    did: str


class _Query(Struct):
    messages: tuple[Message, ...] = ()
    identity: Identity = Identity()


class _Decision(Struct):
    policy: str = ""
    rule: str = ""
    guards: tuple[str, ...] = ()
    excluded: dict[str, str] = {}


class _Trace(Struct):
    query: _Query
    decision: _Decision
    outcome: _Outcome
    steps: tuple[_Step, ...] = ()
    acts: tuple[_Act, ...] = ()
    usd: float | None = None
    text_kept: bool = True


_decode = msgspec.json.Decoder(_Trace).decode


def search(
    store: Store,
    sought: Sought,
    *,
    limit: int,
    before: int | None = None,
    text: bool = True,
    sight: Sight | None = None,
) -> Found:
    """Find the newest decisions that fit. Blocks.

    Args:
        store: where.
        sought: what they must be.
        limit: how many at most.
        before: as an earlier search gave `older`.
        text: whether prompts may be shown.
        sight: what who asks may see; None: everything.

    Raises:
        StoreError: if the store cannot be asked.
    """
    where, values = ["seq < ?"], list[Any]()
    for column in ("route", "target"):
        if (value := getattr(sought, column)) is not None:
            where.append(f"{column} = ?")
            values.append(value.replace("\0", "\ufffd"))
    query = (
        f"SELECT seq, id, at, seconds, route, target, CASE WHEN length(body) <= {LARGE} THEN body END FROM traces "
        f"WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT {PAGE}"  # columns and numbers of ours
    )
    word = None if not sought.word else sought.word.lower()
    out = Found(data=[], searched=0)
    seq, until = 2**62 if before is None else before, monotonic() + SECONDS
    while rows := store.rows(query, (seq, *values)):
        fits = []
        for seq, id, at, seconds, route, target, body in rows:
            row = Row(id=id, at=at, route=route, target=target, seconds=seconds)
            body = None if body is None else bytes(body)
            if _read(row, body, sought, word, text, sight) and (sight is None or sight.row(row, body)):
                fits.append((seq, row))
        judged = _judgements(store, [row.id for _, row in fits])
        for at_seq, row in fits:
            row.judged = judged.get(row.id)
            if sought.judged is not None and not _is(row.judged, sought.judged):
                continue
            out.data.append(row)
            if len(out.data) == limit:
                out.searched += sum(r[0] >= at_seq for r in rows)
                out.older = at_seq
                return out
        out.searched += len(rows)
        if len(rows) < PAGE:
            return out
        if out.searched >= MOST or monotonic() > until:
            out.older = seq
            return out
    return out


def _read(row: Row, body: bytes | None, sought: Sought, word: str | None, text: bool, sight: Sight | None) -> bool:
    """Fill in what the body says; return whether it fits."""
    if body is None:
        of_body = ("tenant", "key", "rule", "guard", "action", "error")
        fits = all(getattr(sought, field) is None for field in of_body)
        return fits and (word is None or any(word in t.lower() for t in (row.id, row.route, row.target)))
    try:
        trace = _decode(body)
    except msgspec.MsgspecError as e:
        raise StoreError(f"trace {row.id} cannot be read: {e}") from e
    identity, decision, outcome = trace.query.identity, trace.decision, trace.outcome
    row.tenant, row.key, row.policy, row.rule, row.guards = (
        *(identity.tenant, identity.key, decision.policy, decision.rule, decision.guards),
    )
    row.acts = tuple(f"{a.name} {a.did}" for a in trace.acts)
    row.usd = trace.usd
    row.error = None if outcome.error is None else outcome.error.kind
    row.why, money = _why(outcome.error, decision.excluded, sight)
    row.tried = sum(s.outcome.error is not None for s in trace.steps)
    for field, value in (("tenant", row.tenant), ("key", row.key), ("rule", row.rule)):
        if getattr(sought, field) not in (None, value):
            return False
    if sought.guard is not None and sought.guard not in row.guards:
        return False
    if sought.action is not None and all(a.name != sought.action for a in trace.acts):
        return False
    kinds = {row.error or "none", "any" if row.error else "none", *(("budget",) if money else ())}
    if sought.error is not None and sought.error not in kinds:
        return False
    kept = text and trace.text_kept
    if kept:
        asked = [m.text for m in trace.query.messages if m.role == "user"]
        row.prompt = asked[-1][:PROMPT] if asked else ""
    if word is None:
        return True
    names = (
        row.id,
        row.route,
        row.target,
        row.policy,
        row.rule,
        row.tenant,
        row.key,
        row.error,
        row.why,
        *row.guards,
        *row.acts,
    )
    if any(word in n.lower() for n in names if n):
        return True
    return kept and (word in outcome.text.lower() or any(word in m.text.lower() for m in trace.query.messages))


def _why(error: _Failure | None, excluded: dict[str, str], sight: Sight | None) -> tuple[str, bool]:
    """Return why a request was refused, as who asks may know it, and whether money was in the way of anybody."""
    if error is None:
        return "", False
    if error.kind in ("blocked", "budget"):  # our own words, which the asker was told
        return error.message[:WHY] if sight is None or sight.says(error.message) else "", False
    if error.kind != "no_target":
        return "", False
    known = excluded if sight is None else sight.left_out(excluded)
    if not known:
        return "", False
    # What its asker ruled out says less than anything else, and money is what is asked about most.
    first = min(known, key=lambda n: (not known[n].startswith(_BUDGET), known[n].startswith("not among")))
    more = f"; {len(known) - 1} more" if len(known) > 1 else ""
    return f"{first}: {known[first]}"[:WHY] + more, known[first].startswith(_BUDGET)


def _judgements(store: Store, ids: Sequence[str]) -> dict[str, float]:
    """Return the latest judgement of each, where there is one."""
    if not ids:
        return {}
    marks = ", ".join("?" * len(ids))
    rows = store.rows(f"SELECT trace_id, body FROM feedback WHERE trace_id IN ({marks}) ORDER BY seq", tuple(ids))
    return {str(id): chain.decode(bytes(body), Feedback).value for id, body in rows}


def _is(value: float | None, judged: Judged) -> bool:
    match judged:
        case "good":
            return value is not None and value >= 0.5
        case "bad":
            return value is not None and value < 0.5
        case "yes":
            return value is not None
        case "no":
            return value is None
