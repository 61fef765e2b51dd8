"""Robustness of picks to rewording: the same questions asked in other words, and what the router makes of them. Ours, after the robustness
column of RouterArena (Lu et al. 2025, arXiv 2510.00202), whose reworded queries are its own; here they are made from any table's prompts.

Each perturbation is a pure function of a text and a generator, and keeps what the answer hangs on:

    typos        one word in twenty-five gets a slip of the finger     keeps numbers, code, short words, first letters, line structure
    paraphrase   stock phrases replaced by others, else a new opening  keeps everything else
    case         all letters small, or all capital (ASCII)             keeps everything but case
    choices      the contents of A, B, C ... change places             keeps the labels, the contents, and all other lines
    language     the request is introduced in another language         keeps the text verbatim, inside
    padding      boilerplate before, after or around                   keeps the text verbatim, inside

Assumption, stated with every figure: rewording does not change how well a target answers. So a pick that moved is worth what was recorded
for it on the *original* query. A target that is itself thrown by typos, or by the place of the right choice, is not seen.

Picks are those of the policy `utility` at one weight of a dollar: the one given, or else that at which the router's own picks on the
original texts are most varied (highest entropy). At the ends of the range everybody picks one target, and would look robust. Forecasts
are out of fold. Only queries whose text a perturbation changes are counted. Never read without the constant router, which has 1, and the random
one, which draws anew for each wording and has 1/M.

Shapes: Q queries judged, M models, K of them changed by a perturbation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct

from fairlead.bench.evaluate import Entrant, catalogued, choose, complete, forecasts, refuse_seen, splits, weights
from fairlead.bench.metrics import Floats, Interval, Ints, bootstrap_means
from fairlead.errors import TableError, UnknownName
from fairlead.table import OutcomeTable

Perturbation: TypeAlias = Callable[[str, np.random.Generator], str]

# ------------------------------------------------------------------------------------------------------- perturbations

TYPOS_PER_WORD: Final = 0.04
_WORD: Final = re.compile(r"(?<![\w\\`$_./@-])[A-Za-z]{4,}(?![\w`$_(/@]|\.\w)")
_NEAR: Final = {
    "a": "sqzw", "b": "vgn", "c": "xvd", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gju", "i": "uok",
    "j": "hkn", "k": "jli", "l": "ko", "m": "nj", "n": "bmh", "o": "ipl", "p": "ol", "q": "wa", "r": "etf",
    "s": "adw", "t": "ryg", "u": "yij", "v": "cbf", "w": "qes", "x": "zcs", "y": "tuh", "z": "xa",
}  # fmt: skip
"""Neighbours on the keyboard."""


def typos(text: str, rng: np.random.Generator) -> str:
    """Slip in one word of twenty-five, at least one: letters swapped, dropped, doubled, or hit beside.

    Only in words of four letters or more that stand alone (no code, paths, formulas), and never in their first letter.
    """
    words = list(_WORD.finditer(text))
    if not words:
        return text
    n = max(1, round(TYPOS_PER_WORD * len(words)))
    out, at = [], 0
    for i in sorted(rng.choice(len(words), size=n, replace=False).tolist()):
        word = words[i]
        out += [text[at : word.start()], _slip(word[0], rng)]
        at = word.end()
    return "".join((*out, text[at:]))


def _slip(word: str, rng: np.random.Generator) -> str:
    kind, i = int(rng.integers(4)), int(rng.integers(1, len(word) - 1))
    a, b = word[i], word[i + 1]
    if kind == 0 and a != b:
        return word[:i] + b + a + word[i + 2 :]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    if kind == 2:
        near = _NEAR[a.lower()]
        return word[:i] + near[int(rng.integers(len(near)))] + word[i + 1 :]
    return word[: i + 1] + a + word[i + 1 :]


_PHRASES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        r"answer the (?:multiple-choice )?question below",
        ("respond to the question that follows", "give the answer to this question"),
    ),
    (r"answer the following question", ("respond to the question that follows", "give the answer to this question")),
    (r"solve the following", ("work out the following", "find the solution of the following")),
    (r"write a (?:python )?function to", ("implement a function to", "code a function to")),
    (r"provide the", ("give the", "state the")),
    (r"for example", ("for instance", "to give an example")),
    (r"step[- ]by[- ]step", ("one step at a time", "stepwise")),
    (r"what is the", ("what would be the", "can you tell me the")),
    (r"what are the", ("which are the", "can you name the")),
    (r"how many", ("what number of", "what is the count of")),
    (r"which of the following", ("which one of these", "which among the following")),
    (r"explain", ("describe", "lay out")),
    (r"find the", ("determine the", "work out the")),
    (r"correct", ("right", "accurate")),
    (r"choose", ("select", "pick")),
    (r"is called", ("is known as", "is termed")),
    (r"because", ("since", "as")),
    (r"however", ("but", "yet")),
    (r"such as", ("like", "for instance")),
)
_RULES: Final = tuple((re.compile(rf"(?<![\w`]){p}(?![\w`])", re.IGNORECASE), others) for p, others in _PHRASES)
_OPENINGS: Final = (
    "I would like to know the following. ",
    "Could you help me with this? ",
    "Here is something I need answered: ",
    "Please consider this: ",
)


def paraphrase(text: str, rng: np.random.Generator) -> str:
    """Replace stock phrases by others of the same meaning, capital first letters kept; if there are none, give it a new opening."""
    found = text
    for pattern, others in _RULES:
        other = others[int(rng.integers(len(others)))]
        found = pattern.sub(lambda m, o=other: o[0].upper() + o[1:] if m[0][0].isupper() else o, found)  # type: ignore[misc]
    return found if found != text else _OPENINGS[int(rng.integers(len(_OPENINGS)))] + text


_LOWER: Final = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {c + 32: c for c in _LOWER}


def case(text: str, rng: np.random.Generator) -> str:
    """Write all ASCII letters small or all capital; of the two, one that changes something."""
    either = [text.translate(_LOWER), text.translate(_UPPER)]
    if rng.integers(2):
        either.reverse()
    return next((t for t in either if t != text), text)


_CHOICE: Final = re.compile(r"^([ \t]*\(?)([A-Z])([).:][ \t]+)(\S[^\n]*?)([ \t]*)$", re.MULTILINE)


def choices(text: str, rng: np.random.Generator) -> str:
    """Let the contents of a multiple choice change places; labels and everything else stay. Unchanged if there is no such list.

    A list: two lines or more that follow one another, labelled A, B, C … by ``A:``, ``A.``, ``A)`` or ``(A)``. Of several, the last.
    """
    best: list[re.Match[str]] = []
    run: list[re.Match[str]] = []
    for m in _CHOICE.finditer(text):
        follows = run and text[run[-1].end() : m.start()].strip() == "" and ord(m[2]) == ord(run[-1][2]) + 1
        run = [*run, m] if follows else [m]
        if run[0][2] == "A" and len(run) >= 2:
            best = run
    contents = [m[4] for m in best]
    if len(set(contents)) < 2:
        return text
    shuffled = contents
    while shuffled == contents:
        shuffled = [contents[i] for i in rng.permutation(len(contents))]
    out, at = [], 0
    for m, content in zip(best, shuffled, strict=True):
        out += [text[at : m.start(4)], content]
        at = m.end(4)
    return "".join((*out, text[at:]))


_WRAPPERS: Final = (
    "Bitte beantworte die folgende Anfrage auf Englisch:\n\n{}",
    "Veuillez répondre en anglais à la demande suivante :\n\n{}",
    "Responde en inglés a la siguiente consulta:\n\n{}",
    "Rispondi in inglese alla seguente richiesta:\n\n{}",
    "请用英语回答下面的问题。\n\n{}",
    "次の質問に英語で答えてください。\n\n{}",
)


def language(text: str, rng: np.random.Generator) -> str:
    """Introduce the text in German, French, Spanish, Italian, Chinese or Japanese, and ask for an answer in English."""
    return _around(_WRAPPERS[int(rng.integers(len(_WRAPPERS)))], text)


_PADDINGS: Final = (
    "Hello! I hope you are having a good day. I have a request, see below.\n\n{}",
    "{}\n\nThank you very much in advance for your help, I really appreciate it.",
    "You are a helpful assistant. Follow the instructions of the user as well as you can.\n\n{}\n\nAnswer now.",
    "-----\n{}\n-----\nSent from my phone. This message may contain confidential information.",
)


def padding(text: str, rng: np.random.Generator) -> str:
    """Put boilerplate before, after or around the text: greetings, thanks, a system-like preamble, a mail footer."""
    return _around(_PADDINGS[int(rng.integers(len(_PADDINGS)))], text)


def _around(template: str, text: str) -> str:
    # Not `format`: a text may have braces of its own, and is put in verbatim.
    before, after = template.split("{}")
    return before + text + after


PERTURBATIONS: Final[dict[str, Perturbation]] = {
    "typos": typos,
    "paraphrase": paraphrase,
    "case": case,
    "choices": choices,
    "language": language,
    "padding": padding,
}


def perturbed(name: str, text: str, *, query_id: str, seed: int = 0) -> str:
    """Apply a perturbation with a generator of its own for each query: the same seed gives the same text, whatever else is done.

    Raises:
        UnknownName: if there is no such perturbation.
    """
    if name not in PERTURBATIONS:
        raise UnknownName("perturbation", name, PERTURBATIONS)
    digest = blake2b(f"{seed}\0{name}\0{query_id}".encode(), digest_size=8).digest()
    return PERTURBATIONS[name](text, np.random.default_rng(int.from_bytes(digest, "little")))


# ----------------------------------------------------------------------------------------------------------- measuring


class Stressed(Struct, frozen=True, kw_only=True):
    """One router under one perturbation."""

    router: str
    perturbation: str
    queries: int
    """K, those whose text changed."""
    unchanged: Interval
    """Share of them with the same pick."""
    forecast_moved: float
    """Mean absolute change of forecast quality, over these queries and all targets."""
    forecast_shift: float
    """Mean change of forecast quality: below 0, the router thinks less of everybody."""
    quality_change: Interval
    """Recorded quality of the new pick less that of the old one, both on the original query."""
    usd_per_1k_change: float | None = None
    """The same in recorded cost. None: costs are not known."""
    reward_change: Interval | None = None
    """The same in quality less what the cost weighs, since a pick may lose quality and save as much. None: costs are not known."""


class Stress(Struct, frozen=True, kw_only=True):
    """What was found, and how."""

    source: str
    models: tuple[str, ...]
    queries: int
    dropped: int
    split: str
    seed: int
    random_unchanged: float
    """What a router has that draws uniformly for each wording anew: 1/M."""
    usd_weight: dict[str, float]
    """Per router: what a dollar was worth in quality."""
    quality: dict[str, float]
    """Per router: mean recorded quality of its picks on the original texts."""
    rows: list[Stressed]
    notes: tuple[str, ...] = ()


def stress(
    table: OutcomeTable,
    routers: Sequence[Entrant],
    *,
    perturbations: Sequence[str] = tuple(PERTURBATIONS),
    usd_weight: float | None = None,
    split: str = "5-fold",
    queries: int | None = 1000,
    seed: int = 0,
    resamples: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> Stress:
    """Ask every judged query in other words and compare picks.

    Args:
        table: recorded outcomes; queries with unknown cells are left out and counted.
        routers: predictors, fitted on the other folds, or trained earlier (then `split` is ``none`` and all queries are judged).
        perturbations: names out of `PERTURBATIONS`.
        usd_weight: quality that a dollar is worth. None: where each router's picks are most varied.
        split: as for `evaluate`.
        queries: judge at most that many, drawn with the seed; None: all. The fits use all the others in any case.
        seed: of split, draw, perturbations and ties.
        resamples: for the intervals.
        progress: told what was finished.

    Raises:
        TableError: if the table does not allow it.
        UnknownName: for an unknown perturbation.
    """
    for name in perturbations:
        if name not in PERTURBATIONS:
            raise UnknownName("perturbation", name, PERTURBATIONS)
    table, dropped = complete(table.with_models(sorted(table.models)))
    if any(p is None for p in table.prompts):
        raise TableError("some queries have no prompt, so nothing can be reworded; drop them or add their text")
    say = progress or (lambda _: None)
    needs = sorted({n for r in routers for n in r.needs})
    observer = catalogued(needs)
    table = table.observed(observer, needs)
    every = np.arange(len(table))
    parts = [(every[:0], every)] if split == "none" else splits(table, split, seed=seed)
    for train, test in parts if split != "none" else ():
        refuse_seen(table.take(train), table.take(test))
    judged = np.sort(np.concatenate([test for _, test in parts]))
    if queries is not None and queries < len(judged):
        judged = np.sort(np.random.default_rng(seed).choice(judged, size=queries, replace=False))
    texts = {name: _reworded(table, judged, name, seed) for name in perturbations}
    said = {name: text.observed(observer, needs) for name, text in texts.items()}
    say("signals")
    now = table.take(judged)
    changed = {
        name: np.asarray([a != b for a, b in zip(now.prompts, t.prompts, strict=True)]) for name, t in said.items()
    }
    weight_L = weights(table) if usd_weight is None else np.asarray([usd_weight])
    rows: list[Stressed] = []
    chosen_weight, quality = {}, {}
    for router in routers:
        found = {name: _blank(now) for name in ("", *perturbations)}
        for train, test in parts:
            at = np.flatnonzero(np.isin(judged, test))
            if not len(at):
                continue
            predictor = router.fitted(table.take(train))
            for name, (quality_QM, usd_QM) in found.items():
                asked = now if name == "" else said[name]
                quality_QM[at], usd_QM[at], _ = forecasts(predictor, asked.take(at))
        pick_LQ = choose(*found[""], weight_L, query_ids=now.query_ids, seed=seed)
        level = int(np.argmax([_entropy(pick_Q, len(now.models)) for pick_Q in pick_LQ]))
        weight, pick_Q = weight_L[level : level + 1], pick_LQ[level]
        chosen_weight[router.name] = float(weight[0])
        quality[router.name] = float(now.quality_QM[np.arange(len(now)), pick_Q].mean())
        for name in perturbations:
            again_Q = choose(*found[name], weight, query_ids=now.query_ids, seed=seed)[0]
            moved_QM = found[name][0] - found[""][0]
            if changed[name].any():
                rows.append(
                    _row(
                        router.name,
                        name,
                        now,
                        np.flatnonzero(changed[name]),
                        pick_Q,
                        again_Q,
                        moved_QM,
                        float(weight[0]),
                        seed,
                        resamples,
                    )
                )
        say(router.name)
    notes = [f"{name} changes no text of this table" for name in perturbations if not changed[name].any()]
    return Stress(
        source=table.source,
        models=tuple(table.models),
        queries=len(now),
        dropped=dropped,
        split=split,
        seed=seed,
        random_unchanged=1.0 / len(table.models),
        usd_weight=chosen_weight,
        quality=quality,
        rows=rows,
        notes=tuple(notes),
    )


def _reworded(table: OutcomeTable, judged: Ints, name: str, seed: int) -> OutcomeTable:
    now = table.take(judged)
    texts = [
        perturbed(name, prompt or "", query_id=query_id, seed=seed)
        for query_id, prompt in zip(now.query_ids, now.prompts, strict=True)
    ]
    return replace(now, prompts=list(texts), signals=None)


def _blank(table: OutcomeTable) -> tuple[Floats, Floats]:
    return np.full(table.quality_QM.shape, np.nan), np.full(table.quality_QM.shape, np.nan)


def _entropy(pick_Q: Ints, models: int) -> float:
    share_M = np.bincount(pick_Q, minlength=models) / max(len(pick_Q), 1)
    share_M = share_M[share_M > 0.0]
    return float(-(share_M * np.log(share_M)).sum())


def _row(
    router: str,
    name: str,
    now: OutcomeTable,
    at_K: Ints,
    pick_Q: Ints,
    again_Q: Ints,
    moved_QM: Floats,
    usd_weight: float,
    seed: int,
    resamples: int,
) -> Stressed:
    old_K, new_K = pick_Q[at_K], again_Q[at_K]
    gain_K = now.quality_QM[at_K, new_K] - now.quality_QM[at_K, old_K]
    usd_K = now.usd_QM[at_K, new_K] - now.usd_QM[at_K, old_K]
    same_K = (old_K == new_K).astype(np.float64)
    values_K3 = np.column_stack([same_K, gain_K, gain_K - usd_weight * np.nan_to_num(usd_K)])
    draws = bootstrap_means(values_K3, resamples=resamples, seed=seed, groups_Q=now.groups[at_K])
    low_3, high_3 = np.quantile(draws, [0.025, 0.975], axis=0)
    same, gain, reward = (
        Interval(value=float(values_K3[:, c].mean()), low=float(low_3[c]), high=float(high_3[c])) for c in range(3)
    )
    priced = not np.isnan(usd_K).any()
    return Stressed(
        router=router,
        perturbation=name,
        queries=len(at_K),
        unchanged=same,
        forecast_moved=float(np.abs(moved_QM[at_K]).mean()),
        forecast_shift=float(moved_QM[at_K].mean()),
        quality_change=gain,
        usd_per_1k_change=float(usd_K.mean()) * 1e3 if priced else None,
        reward_change=reward if priced else None,
    )


def to_text(found: Stress) -> str:
    """Return a table for a terminal, with what it rests on."""
    lines = [
        f"{found.source or 'table'}: {found.queries:,} queries reworded, {len(found.models)} targets, split {found.split}, seed "
        f"{found.seed}; intervals: 95% over queries",
        *found.notes,
        "",
        _columns("", "queries", "picks unchanged", "forecast moves", "quality of picks", "USD/1k", "quality less cost"),
    ]
    for n, r in enumerate(found.rows):
        if n == 0 or r.router != found.rows[n - 1].router:
            worth = f"a dollar is worth {found.usd_weight[r.router]:.4g}"
            lines.append(f"{r.router}: quality {found.quality[r.router]:.4f} for the original texts, where {worth}")
        u = r.unchanged
        lines.append(
            _columns(
                f"  {r.perturbation}",
                f"{r.queries:,}",
                f"{u.value:.3f} [{u.low:.3f}, {u.high:.3f}]",
                f"{r.forecast_moved:.4f} ({r.forecast_shift:+.4f})",
                str(r.quality_change),
                "" if r.usd_per_1k_change is None else f"{r.usd_per_1k_change:+.4f}",
                str(r.reward_change or ""),
            )
        )
    return "\n".join(
        [
            *lines,
            "any one target, always: picks unchanged 1.000",
            f"a target drawn anew for each wording: picks unchanged {found.random_unchanged:.3f}",
            "",
            "Assumed: rewording does not change how well a target answers, so a pick that moved is worth what was recorded for it on the",
            "original query. The last three columns are changes. forecast moves: mean absolute change of forecast quality (mean change).",
        ]
    )


def _columns(name: str, *cells: str) -> str:
    return f"{name:<14}" + "".join(f"{c:>{w}}" for c, w in zip(cells, (8, 23, 19, 28, 10, 28), strict=True))
