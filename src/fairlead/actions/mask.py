"""Put placeholders in the place of personal data and secrets, and the values back into the answer. Ours, no paper.

    "mail bo@example.org"  ->  "mail [EMAIL_1]"  ->  target: "I wrote to [EMAIL_1]."  ->  "I wrote to bo@example.org."

What is found and how well: `fairlead.detect.personal`. Every text of the request is masked: messages, tool results, arguments of tool calls,
and all further fields of the body that hold text (`user`, descriptions of tools …), but not media and what makes the format work: ids, names of tools,
speakers and parameters (`fairlead.detect.strings`).
The same value is the same placeholder all through a request: also where, in an earlier answer that was restored say, nothing beside it would give it away. A
number is taken only if no text of the request holds that placeholder already.

Restored are the answer's text, its reasoning, the arguments of its tool calls (escaped, being JSON), and the reply's own bytes; a stream
passes through a filter that holds back only what may be the beginning of a placeholder. If the request asks for JSON
(``response_format``), values are escaped in the text too. What a target writes in another way (``EMAIL_1``) stays as it is.

The map from placeholders to values lives in one call of `act`, and nowhere else. The trace keeps the masked query and the masked answer;
`Query.identity` is not text and stays, so a tenant or user named there should be no address. Until the query is masked the trace keeps no text.

About 13 µs for a message of 300 characters of prose, 29 µs if there is something to mask, 3 µs a streamed event; 0.24 s for 240 kB of JSON with 4,000
addresses. Large requests, and those that Presidio reads, are masked in a thread.
"""

from __future__ import annotations

import asyncio
import re
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import neg
from time import perf_counter
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Raw

from fairlead.actions.base import Action, Passage, Proceed
from fairlead.detect import personal
from fairlead.detect.finder import Finder
from fairlead.detect.span import Span
from fairlead.detect.strings import Walk, fields, messages, size
from fairlead.errors import FairleadError
from fairlead.types import Message, Outcome, Query, Sink

NAMES: Final = {
    **{kind: kind.upper() for kind in (*personal.KINDS, *personal.LEARNED)},
    "national_id": "ID",
    "api_key": "KEY",
}
PLACEHOLDER: Final = re.compile(rf"\[(?:{'|'.join(NAMES.values())})_[0-9]{{1,9}}\]")
_PLACEHOLDER_BYTES: Final = re.compile(PLACEHOLDER.pattern.encode())
_AGAIN: Final = 6
"""A value of so many characters is masked wherever it stands, found or not. Shorter ones are words of their own too often."""
_WORD_START: Final = re.compile(r"(?<!\w)(?=\S)")
_WORD_END: Final = re.compile(r"(?!\w)")
_FEW: Final = 8
"""So few values are looked for one by one, which is quicker where none of them is there."""
_LARGE: Final = 20_000
"""A body of more bytes is masked in a thread."""


class Mask(Action):
    """Mask on the way out, restore on the way back.

    Args:
        kinds: what to mask, as for the signal `pii`; None: all personal data that is looked for.
        secrets: mask keys, tokens, private keys and passwords too.
        restore: put the values back into the answer. False: the answer holds placeholders, and no map is kept.
        presidio: a spaCy model, by which Presidio finds names and addresses too.

    Raises:
        ConfigError: at `start` or the first query, for a kind that is not known, or if Presidio is not installed.
    """

    order: ClassVar[int] = 20

    @property
    def hides(self) -> bool:
        """Until the query is masked."""
        return True

    def __init__(
        self,
        *,
        kinds: list[str] | None = None,
        secrets: bool = True,
        restore: bool = True,
        presidio: str | None = None,
    ) -> None:
        self.kinds = kinds
        self.secrets = secrets
        self.restore = restore
        self.presidio = presidio

    @cached_property
    def finder(self) -> Finder:
        """What looks."""
        learned = personal.LEARNED if self.presidio is not None else ()
        kinds = [*(self.kinds if self.kinds is not None else (*personal.PERSONAL, *learned))]
        return Finder(kinds=[*kinds, *(personal.SECRET if self.secrets else ())], model=self.presidio)

    def check(self) -> None:
        """Raise `ConfigError` now rather than at the first query."""
        self.finder.load()

    async def start(self) -> None:
        """Load what finds names and addresses, if that is wanted. Raises `ConfigError`."""
        await asyncio.to_thread(self.check)

    async def act(self, passage: Passage, proceed: Proceed) -> Outcome:
        """Mask the query, proceed, restore the answer."""
        start = perf_counter()
        passage.keep_text = False  # until it is masked: the client may leave meanwhile
        if self.presidio is not None or size(passage.query) > _LARGE:
            query, values, counts = await asyncio.to_thread(masked, passage.query, self.finder)
        else:
            query, values, counts = masked(passage.query, self.finder)
        passage.keep_text = True
        if not values:
            passage.note(self, "passed", seconds=perf_counter() - start)
            return await proceed(passage)
        passage.query = query
        passage.note(self, "masked", seconds=perf_counter() - start, values=len(values), **counts)
        if not self.restore:
            values.clear()
            return await proceed(passage)
        restorer = Restorer(values, json=_wants_json(query))
        sink = passage.sink
        if sink is None:
            return restorer.outcome(await proceed(passage))
        stream = Stream(restorer, sink)
        passage.sink = stream.send
        try:
            outcome = await proceed(passage)
        finally:
            passage.sink = sink
        if outcome.error is None or outcome.error.kind != "client_gone":
            await stream.close()
        return restorer.outcome(outcome)


# ------------------------------------------------------------------------------------------------------------- masking


def masked(query: Query, finder: Finder) -> tuple[Query, dict[str, str], dict[str, int]]:
    """Return (`query` masked, the value of each placeholder, how many values of each kind); the query as it was if nothing is found."""
    masks = _Masks(finder)
    typed: list[dict[str, Any]] = msgspec.to_builtins(query.messages)
    body: dict[str, Any] = {name: msgspec.json.decode(raw) for name, raw in fields(query).items()}
    if "messages" in query.body:
        body["messages"] = messages(query)
    learning, hiding = Walk(masks.learn, holds=masks.holds), Walk(masks.hide, holds=masks.hides)
    learning.request(typed)
    for key, value in body.items():
        learning.field(key, value)
    if not masks.kinds:
        return query, {}, {}
    masks.take(query.body.values())
    masks.number()
    sent = dict(query.body)
    for key, value in body.items():
        changed = hiding.field(key, value)
        if changed != value:
            sent[key] = Raw(msgspec.json.encode(changed))
    seen = tuple(
        m if (now := hiding.request(was)) == was else msgspec.convert(now, Message)
        for m, was in zip(query.messages, typed, strict=True)
    )
    values = {placeholder: value for value, placeholder in masks.placeholders.items()}
    return msgspec.structs.replace(query, messages=seen, body=sent), values, dict(Counter(masks.kinds.values()))


def masked_later(text: str, finder: Finder, answer: str) -> str:
    """Return `text` masked that is said of a masked `answer` when the request's map is gone, such as a correction.

    The first value of a kind gets the number of the first placeholder of that kind in the answer, and so on: so who says again what was
    answered says the same. What only the request gave away (a number that it called a telephone) is not found.
    """
    masks = _Masks(finder)
    Walk(masks.learn, holds=masks.holds).text(text)
    masks.take([text.encode()])
    given = [p for p in dict.fromkeys(PLACEHOLDER.findall(answer)) if p not in masks.taken]
    masks.take([answer.encode()])
    masks.number(given)
    return Walk(masks.hide, holds=masks.hides).text(text)


class _Masks:
    """What is to be masked in one request."""

    __slots__ = ("finder", "found", "kinds", "placeholders", "repeated", "taken")

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.found: dict[tuple[str, str], list[Span]] = {}
        self.kinds: dict[str, str] = {}
        """Value -> kind, in order of appearance."""
        self.taken: set[str] = set()
        self.placeholders: dict[str, str] = {}
        self.repeated: dict[str, list[int]] = {}
        """How long values are that begin so, the longest first."""

    def holds(self, text: str, key: str) -> bool:
        """Say whether something is found in one text."""
        spans = self.found.get((text, key))
        if spans is None:
            spans = self.found[text, key] = self.finder.find(text, key)
            if "[" in text:
                self.taken.update(PLACEHOLDER.findall(text))
        return bool(spans)

    def learn(self, text: str, key: str) -> str:
        """Take what is found in one text as values to mask."""
        if not self.holds(text, key):
            return text
        for span in self.found[text, key]:
            self.kinds.setdefault(text[span.start : span.end], span.kind)
        return ""

    def take(self, written: Iterable[bytes | Raw]) -> None:
        """Give no value a placeholder that stands there."""
        for raw in written:
            self.taken.update(p.decode() for p in _PLACEHOLDER_BYTES.findall(bytes(raw)))

    def number(self, given: Sequence[str] = ()) -> None:
        """Give each value its placeholder: the next of its kind that is `given`, else one that is not taken."""
        left: dict[str, list[str]] = {}
        for placeholder in given:
            left.setdefault(placeholder[1:].rpartition("_")[0], []).append(placeholder)
        last: Counter[str] = Counter()
        for value, kind in self.kinds.items():
            name = NAMES[kind]
            if left.get(name):
                self.placeholders[value] = left[name].pop(0)
                continue
            last[name] += 1
            while (placeholder := f"[{name}_{last[name]}]") in self.taken:
                last[name] += 1
            self.placeholders[value] = placeholder
        for value in self.placeholders:
            if len(value) >= _AGAIN:
                lengths = self.repeated.setdefault(value[:_AGAIN], [])
                if len(value) not in lengths:
                    insort(lengths, len(value), key=neg)

    def hides(self, text: str, key: str) -> bool:
        """Say whether there is something to mask in one text."""
        return self.holds(text, key) or self._repeats(text) != text

    def hide(self, text: str, key: str) -> str:
        """Return one text masked."""
        out, at = [], 0
        for span in self.found.get((text, key), ()):
            placeholder = self.placeholders.get(text[span.start : span.end])
            if placeholder is None:  # not a KeyError, whose message is the value
                raise FairleadError("something was found while masking that was not found before; nothing was sent")
            out += [self._repeats(text[at : span.start]), placeholder]
            at = span.end
        out.append(self._repeats(text[at:]))
        return "".join(out)

    def _repeats(self, text: str) -> str:
        """Mask values that stand in `text` as words of their own. The time does not grow with how many values there are."""
        if len(self.placeholders) <= _FEW and not any(v in text for v in self.placeholders):
            return text
        out, at = [], 0
        for m in _WORD_START.finditer(text):
            start = m.start()
            for length in self.repeated.get(text[start : start + _AGAIN], ()) if start >= at else ():
                placeholder = self.placeholders.get(text[start : start + length])
                if placeholder is not None and _WORD_END.match(text, start + length):
                    out += [text[at:start], placeholder]
                    at = start + length
                    break
        return "".join([*out, text[at:]]) if out else text


def _wants_json(query: Query) -> bool:
    raw = query.body.get("response_format")
    wanted = None if raw is None else msgspec.json.decode(raw)
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


# ----------------------------------------------------------------------------------------------------------- restoring


class Restorer:
    """Puts values in the place of placeholders.

    Args:
        values: by placeholder.
        json: whether the answer's text is JSON.
    """

    __slots__ = ("beginnings", "escaped", "json", "values")

    def __init__(self, values: Mapping[str, str], *, json: bool = False) -> None:
        self.values = values
        self.escaped = {p: msgspec.json.encode(v).decode()[1:-1] for p, v in values.items()}
        self.json = json
        self.beginnings = frozenset(p[:n] for p in values for n in range(1, len(p)))

    def text(self, text: str, *, json: bool) -> str:
        """Return `text` restored; `json`: it is JSON, whole or in part."""
        if "[" not in text:
            return text
        values = self.escaped if json else self.values
        return PLACEHOLDER.sub(lambda m: values.get(m[0], m[0]), text)

    def split(self, text: str) -> int:
        """Say where in `text` the beginning of a placeholder stands at its end; its length if none does."""
        at = text.rfind("[")
        return at if at >= 0 and text[at:] in self.beginnings else len(text)

    def message(self, message: dict[str, Any]) -> None:
        """Restore a whole message in place."""
        for key, value in message.items():
            if isinstance(value, str) and key != "role":
                message[key] = self.text(value, json=self.json and key == "content")
            elif key == "content" and isinstance(value, list):
                for part in value:
                    self._within(part, "text", json=self.json)
            elif key == "tool_calls" and isinstance(value, list):
                self.calls(value)
            elif key == "function_call":
                self._within(value, "arguments", json=True)

    def calls(self, calls: list[Any]) -> None:
        """Restore whole tool calls in place."""
        for call in calls:
            if isinstance(call, dict):
                self._within(call.get("function"), "arguments", json=True)
                self._within(call.get("custom"), "input", json=False)

    def outcome(self, outcome: Outcome) -> Outcome:
        """Return an answer restored."""
        calls = outcome.tool_calls
        if calls is not None:
            decoded = msgspec.json.decode(msgspec.json.encode(calls))
            if isinstance(decoded, list):
                self.calls(decoded)
            calls = Raw(msgspec.json.encode(decoded))
        return msgspec.structs.replace(
            outcome, text=self.text(outcome.text, json=self.json), tool_calls=calls, reply=self._reply(outcome.reply)
        )

    def _reply(self, reply: bytes) -> bytes:
        if not reply:
            return reply
        data = msgspec.json.decode(reply)
        before = msgspec.json.encode(data)
        for choice in data.get("choices") or ():
            if isinstance(message := choice.get("message"), dict):
                self.message(message)
        after = msgspec.json.encode(data)
        return reply if after == before else after

    def _within(self, value: Any, key: str, *, json: bool) -> None:
        if isinstance(value, dict) and isinstance(text := value.get(key), str):
            value[key] = self.text(text, json=json)


_Place = tuple[int, str, int]
"""A text that grows in a stream: choice, field of its delta, number of the tool call."""


class Stream:
    """Restores a stream: events in the OpenAI chat format, whole ones at a time, on their way to `sink`."""

    __slots__ = ("_head", "_held", "_restorer", "_sink")

    def __init__(self, restorer: Restorer, sink: Sink) -> None:
        self._restorer, self._sink = restorer, sink
        self._held: dict[_Place, str] = {}
        self._head: dict[str, Any] = {}

    async def send(self, events: bytes) -> None:
        """Pass events on, restored; none if all that they bring is held back."""
        out = b"".join([self._event(e) for e in events.split(b"\n\n") if e])
        if out:
            await self._sink(out)

    async def close(self) -> None:
        """Pass on what is still held back: the stream has ended, so it was no placeholder."""
        held, self._held = self._held, {}
        choices = []
        for (index, field, call), text in sorted(held.items()):
            delta: dict[str, Any] = {}
            _put(delta, field, call, text)
            choices.append({"index": index, "delta": delta, "finish_reason": None})
        if choices:
            await self._sink(_written({**self._head, "choices": choices}))

    def _event(self, event: bytes) -> bytes:
        data = msgspec.json.decode(event[6:]) if event.startswith(b"data: {") else None
        if not isinstance(data, dict) or not isinstance(choices := data.get("choices"), list):
            return event + b"\n\n"
        self._head = {k: v for k, v in data.items() if k not in ("choices", "usage")}
        changed = [self._choice(c) for c in choices if isinstance(c, dict)]
        if not any(changed):
            return event + b"\n\n"
        empty = not any(
            c.get("finish_reason") or any((c.get("delta") or {}).values()) for c in choices if isinstance(c, dict)
        )
        return b"" if empty and not data.get("usage") else _written(data)

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Restore one choice of an event in place; say whether it changed."""
        delta, index = choice.get("delta"), int(choice.get("index") or 0)
        if not isinstance(delta, dict):
            if not choice.get("finish_reason"):
                return False
            delta = choice["delta"] = {}
        changed = False
        for field, value in list(delta.items()):
            if isinstance(value, str) and field != "role":
                json = self._restorer.json and field == "content"
                changed |= self._piece(delta, field, (index, field, -1), json=json)
            elif field == "tool_calls" and isinstance(value, list):
                for part in value:
                    if not isinstance(part, dict):
                        continue
                    number = part.get("index")
                    for kind, key in (("function", "arguments"), ("custom", "input")):
                        inner = part.get(kind)
                        if isinstance(inner, dict) and isinstance(inner.get(key), str):
                            if isinstance(number, int):
                                place = (index, f"{kind}.{key}", number)
                                changed |= self._piece(inner, key, place, json=kind == "function")
                            else:  # a server that sends no index sends each call whole
                                before = inner[key]
                                inner[key] = self._restorer.text(before, json=kind == "function")
                                changed |= inner[key] != before
            elif field == "function_call" and isinstance(value, dict) and isinstance(value.get("arguments"), str):
                changed |= self._piece(value, "arguments", (index, "function_call", -1), json=True)
            elif field == "content" and isinstance(value, list):
                self._restorer.message(delta)
                changed = True
        if choice.get("finish_reason"):
            for place in [p for p in self._held if p[0] == index]:
                _put(delta, place[1], place[2], self._held.pop(place))
                changed = True
        return changed

    def _piece(self, where: dict[str, Any], key: str, place: _Place, *, json: bool) -> bool:
        """Restore a piece of a growing text; hold back its end if that may be the beginning of a placeholder."""
        piece: str = where[key]
        held = self._held.pop(place, "")
        if not held and "[" not in piece:
            return False
        text = held + piece
        at = self._restorer.split(text)
        if at < len(text):
            self._held[place] = text[at:]
        # Split first: what a value holds is never taken for the beginning of a placeholder.
        where[key] = self._restorer.text(text[:at], json=json)
        return bool(where[key] != piece)


def _put(delta: dict[str, Any], field: str, call: int, text: str) -> None:
    """Append `text` to a field of a delta."""
    if call < 0 and field != "function_call":
        delta[field] = (delta.get(field) or "") + text
    elif field == "function_call":
        inner = delta.setdefault(field, {})
        inner["arguments"] = (inner.get("arguments") or "") + text
    else:
        kind, _, key = field.partition(".")
        calls = delta.get("tool_calls")
        delta["tool_calls"] = calls = calls if isinstance(calls, list) else []
        calls.append({"index": call, kind: {key: text}})


def _written(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
