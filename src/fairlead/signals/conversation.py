r"""Where a conversation stands: its turns, its tools, whether the last tool calls failed, and whether the user is content. Ours; the kinds
of feedback and the re-ask are signals of vLLM Semantic Router (2026, arXiv 2603.04444), agent against chat and warm against cold axes of
the Workload-Router-Pool paper (2026, arXiv 2603.21354).

A tool result counts as an error by how it looks: a JSON object with a true ``error``, ``is_error`` or ``isError`` or with
``"status": "error"``, or a text that starts like an error message or a traceback. Results of more than `READ` characters are judged by
their beginning.

Re-ask: the largest Jaccard likeness of the last user message's character trigrams with those of the `BACK` user messages before it, each
read up to `READ_ASKED` characters. It sees the same words, not the same meaning: "capital of France?" after "capital of Spain?" is
like a repeat (.59), and a question put in new words is not. Messages under `SHORT` characters ("yes", "go on") repeat nothing.

Dissatisfied and wants clarification: phrases in the first `READ_ASKED` characters of the last user message, in English, German, French,
Spanish, Italian, Portuguese, Dutch, Polish, Russian, Chinese, Japanese and Korean, looked for only after an answer. A short list of what
people often write; the paper's router uses a trained classifier. False alarms are in docs/guides/signals.md (`benchmarks/signals.py`); how
many complaints are missed is not measured.

About 1 µs for a first message, 90 µs for a second one of 300 characters, 220 µs for a fifth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fairlead.signals.base import COUNT, SHARE, YES_NO, Law, Range, Signal, alike, implies
from fairlead.types import Message, Query, Reading

READ: Final = 4_000
READ_ASKED: Final = 300
BACK: Final = 4
SHORT: Final = 10
REASK: Final = 0.6
"""Likeness from which a message is a repeat."""
_RESULTS: Final = ("tool", "function")
_LOOKS: Final = re.compile(
    r"(?:Traceback \(most recent call last\)|\w{0,60}(?:Error|Exception)\b(?!:\s{0,8}(?:0|none)\b)|"
    r"(?:fatal|failed|failure|panic)(?::(?!\s{0,8}(?:0|none|no)\b)| (?:to|error|with)\b|[.!]?\Z)|"
    r'\{\s{0,40}"(?:error|is_error|isError)"\s{0,8}:\s{0,8}+(?!null|false|""|\{\}))',
    re.IGNORECASE,
)
# Patterns are of bounded length, so the time is linear in the text. Letters are made small and apostrophes straight before.
_WRONG: Final = re.compile(
    r"\b(?:(?:that|this|it|which)(?:'s| is| was) (?:just |still |completely |totally |simply |clearly )?"
    r"(?:wrong|incorrect|false|useless|nonsense|not (?:right|correct|true|working|helpful|it\b|what i))"
    r"|(?:that|this|it) (?:still )?(?:doesn't|does not|didn't|did not) (?:work|help|answer|make sense)|(?:that|this|it|which) isn't (?:right|correct|what i|working)"
    r"|(?:still|that is|this is|these are|they are) not (?:what i|working)|not what i (?:asked|meant|wanted|said)|wrong answer|you(?:'re| are| were) wrong"
    r"|you (?:misunderstood|misread|ignored|forgot|missed|made a mistake)|i (?:already|just) (?:said|told|asked)|no, (?:i (?:meant|said|asked|wanted)|not (?:that|this|so|like (?:that|this)))\b"
    r"|das (?:ist|war) (?:leider |immer noch |ganz |so )?(?:falsch|nicht (?:richtig|korrekt|das)|unsinn)|(?:das )?stimmt (?:so |leider )?nicht"
    r"|(?:geht|funktioniert) (?:so |immer noch |leider |aber )?nicht(?! um\b)|nein, (?:ich (?:meinte|wollte|sagte|habe gesagt)|nicht (?:das|so))\b|nicht das, was ich|falsche antwort"
    r"|c'est (?:faux|incorrect|pas (?:ça|correct|vrai|ce que))|(?:ce )?n'est pas (?:ça|correct|vrai|ce que)|(?:marche|fonctionne) (?:toujours )?pas"
    r"|non, (?:je (?:voulais|parlais|demandais)|pas (?:ça|cela|comme ça))\b|tu te trompes|vous vous trompez|(?:eso|esto) (?:está|es) (?:mal|incorrecto|falso)|no es (?:correcto|cierto|lo que)"
    r"|(?:no|sigue sin) funcion\w{1,3}\b|no, (?:quería|quise|me refería|eso no)\b|te equivocas|è sbagliato|non è (?:corretto|giusto|vero|quello che)"
    r"|non funziona|no, (?:intendevo|volevo|non (?:quello|così))\b|(?:isso )?(?:está|é) errad[oa]|não (?:é (?:isso|correto|o que)|está certo|funciona)"
    r"|não, (?:eu (?:quis|queria|pedi)|isso não|quis)\b|dat (?:klopt niet|is (?:fout|onjuist|niet))|werkt (?:nog steeds )?niet|nee, (?:ik (?:bedoelde|wilde|vroeg)|niet (?:dat|zo))\b"
    r"|to (?:jest )?(?:źle|błąd|błędne|nieprawda)|nie działa|nie o to|это (?:неверно|неправильно|не то|не так|ошибка)|не работает"
    r"|нет, (?:я (?:имел|имела|просил|просила|хотел|хотела)|не (?:то|так))\b|(?:ты|вы) ошиб)"
    r"|不对|不對|错了|錯了|不是这样|不是這樣|不是我(?:要|想)|还是不行|違います|違う|間違って|そうじゃな|動かない|動きません|틀렸|그게 아니|안 (?:돼|됩니다)"
)
_UNCLEAR: Final = re.compile(
    r"\b(?:what do you mean|i (?:don't|do not|didn't) (?:understand|get (?:it|this|that))|(?:(?:can|could|would) you (?:please )?|please )(?:explain|clarify|elaborate|rephrase)"
    r"(?: on)?(?: (?:that|this|it|yourself|again|more|further|your|what you)\b| ?[?.!]|\Z)"
    r"|simpler (?:terms|words)|(?:that|this|it)(?:'s| is) (?:not clear|unclear)(?! (?:if|whether|why|how|that)\b)|what does (?:that|this|it) mean|i'm confused"
    r"|was (?:meinst du|meinen sie|bedeutet das|heißt das)\b|verstehe (?:das |es |ich )?nicht|(?:kannst du|können sie) (?:(?:mir )?(?:das|es) (?:mir )?(?:bitte )?(?:genauer |näher |noch einmal )?|(?:mir )?(?:bitte )?(?:genauer |näher |noch einmal ))erklär"
    r"|je ne comprends pas|(?:que|qu'est-ce que) (?:veux-tu|voulez-vous|tu veux|vous voulez) dire|(?:peux-tu|pouvez-vous) (?:(?:me )?l'expliquer|(?:m')?expliquer (?:ça|cela)|préciser|clarifier)"
    r"|no (?:lo )?entiendo|qué quieres decir|(?:puedes|podrías) (?:explicar(?:lo|melo|me eso| eso)|aclarar)|non (?:ho )?capi(?:sco|to)|cosa (?:intendi|vuol dire)|puoi (?:spiegar(?:lo|melo| meglio)|chiarir)"
    r"|não (?:entendi|entendo|percebi)|o que (?:você )?quer dizer|pode(?:ria)? (?:explicar (?:isso|melhor|de novo)|esclarecer)|wat bedoel|(?:begrijp|snap) (?:het |dit |ik )?niet|kun je dat (?:nog eens |beter )?uitleggen"
    r"|nie rozumiem|co masz na myśli|możesz to (?:lepiej )?wyjaśnić|(?:я )?не понимаю|что (?:ты|вы) имее|объясни(?:те)? (?:это|подробнее|ещё раз|проще)|поясни|уточни)"
    r"|什么意思|什麼意思|不明白|没看懂|解释一下|解釋一下|どういう意味|わかりません|分かりません|もう一度説明|詳しく説明|무슨 (?:뜻|말)|이해가 안"
)


class Conversation(Signal):
    """Value: user messages so far.

    Counts: `messages`, `tools` (offered), `tool_results`, and `tool_errors_in_a_row`: failed tool results since the last good one, the last
    word of the user, or the last answer without a tool call. Yes or no: `has_system`; `warm` (something was answered before); `agent` (tools
    are offered, or have answered); `reask` (the user repeats an earlier message), `dissatisfied` and `wants_clarification` (both only if
    warm). `repeats` is the likeness that `reask` goes by, 0 to 1.
    """

    def ranges(self) -> Mapping[str, Range]:
        """Counts, yes or no, and a likeness."""
        counts = ("value", "messages", "tools", "tool_results", "tool_errors_in_a_row")
        marks = ("has_system", "warm", "agent", "reask", "dissatisfied", "wants_clarification")
        return {**dict.fromkeys(counts, COUNT), **dict.fromkeys(marks, YES_NO), "repeats": SHARE}

    def laws(self) -> Sequence[Law]:
        """What is counted stands in messages; who repeats has said something before, and who is not content has been answered."""
        said: tuple[Law, ...] = (
            {"value": {"ge": 1}},
            {"tool_results": {"ge": 1}},
            {"has_system": True},
            {"warm": True},
        )
        some: Law = {"any": [{"tools": {"ge": 1}}, {"tool_results": {"ge": 1}}]}
        return (
            *(implies(what, {"messages": {"ge": 1}}) for what in said),
            implies({"tool_errors_in_a_row": {"ge": 1}}, {"tool_results": {"ge": 1}}),
            alike({"agent": True}, some),
            alike({"reask": True}, {"repeats": {"ge": REASK}}),
            implies({"repeats": {"gt": 0.0}}, {"value": {"ge": 2}}),
            *(
                implies({key: True}, {"warm": True, "value": {"ge": 1}})
                for key in ("dissatisfied", "wants_clarification")
            ),
        )

    def _read(self, query: Query) -> Reading:
        messages = query.messages
        roles = [m.role for m in messages]
        turns = roles.count("user")
        results = sum(map(roles.count, _RESULTS))
        warm = "assistant" in roles
        repeats = _repeats(messages) if turns > 1 else 0.0
        text = ""
        if turns and warm and "assistant" in roles[: len(roles) - 1 - roles[::-1].index("user")]:
            text = query.text[:READ_ASKED].lower().replace("\u2019", "'")
        return Reading(
            value=turns,
            parts={
                "messages": len(messages),
                "tools": len(query.tools),
                "tool_results": results,
                "tool_errors_in_a_row": _errors_in_a_row(messages) if results else 0,
                "has_system": "system" in roles or "developer" in roles,
                "warm": warm,
                "agent": bool(query.tools) or results > 0,
                "repeats": repeats,
                "reask": repeats >= REASK,
                "dissatisfied": bool(text and _WRONG.search(text)),
                "wants_clarification": bool(text and _UNCLEAR.search(text)),
            },
        )


def _repeats(messages: tuple[Message, ...]) -> float:
    """Return how like the last user message is to one of those before it."""
    asked = (m.text[:READ_ASKED] for m in reversed(messages) if m.role == "user")
    last = _trigrams(next(asked))
    if not last:
        return 0.0
    most = 0.0
    for text, _ in zip(asked, range(BACK), strict=False):
        if own := _trigrams(text):
            shared = len(last & own)
            most = max(most, shared / (len(last) + len(own) - shared))
    return most


def _trigrams(text: str) -> set[str]:
    """Return the trigrams of a text; none of one that is too short to be a question."""
    text = f" {' '.join(text.lower().split())} "
    if len(text) - 2 < (SHORT if text.isascii() else SHORT // 2):
        return set()
    return {text[i : i + 3] for i in range(len(text) - 2)}


def _errors_in_a_row(messages: tuple[Message, ...]) -> int:
    n = 0
    for m in reversed(messages):
        if m.role in _RESULTS:
            if not looks_like_error(m.text):
                break
            n += 1
        elif m.role != "assistant" or not m.tool_calls:
            break
    return n


def looks_like_error(text: str) -> bool:
    """Say whether a tool's result reads like a failure."""
    text = text[: READ + 1].strip()
    if text.startswith("{") and len(text) <= READ:
        try:
            data = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):  # nested so deep that nobody reads it
            return bool(_LOOKS.match(text))
        return any(data.get(k) for k in ("error", "is_error", "isError")) or data.get("status") == "error"
    return bool(_LOOKS.match(text))
