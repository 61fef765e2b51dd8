"""Domains and what lies outside them: generated topics, and benchmarks of GQR-Bench's kind made of recorded prompts.

Generated: three topics, and five kinds of queries that are none of them (other topics, short web questions, informal and rude ones, other
languages, noise). Terms are as uneven as words are (Zipf), so some of those judged are rare or new among those learned.

Recorded (``$FAIRLEAD_DATA``): every way to take three of five tasks as in-domain; the other tasks, and the questions of general knowledge, are
out-of-domain sets that count the same. An 80/20 split of the in-domain prompts by text; nothing out-of-domain is ever learned from. What the
sources write around their prompts (instructions, `Question:`, `Choices:`, option letters, `Answer:`) is cut off: it would give the
answer away. The score, its share of refusals and the net were chosen on `CHOSEN_ON` (one outcome table); `HELD` is of two others, whose tasks
were looked at for what to cut off, and two checks in development mixed prompts of these tables with others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any, Final

import numpy as np

from corpora import Section
from fairlead.bench.gqr import Guarded, judge
from fairlead.detect import widemlp
from fairlead.signals.domain import Domain
from fairlead.types import Query

MARK: Final = 87.0
LIMIT_US: Final = 1_000.0
REFUSE: Final = 0.1

Router = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts with their domains to learn from and to be judged on, and texts of no domain by set."""

    name: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    outside: Mapping[str, tuple[str, ...]]


# ------------------------------------------------------------------------------------------------------------ generated

_TOPICS: Final = {
    "law": (
        "landlord tenant lease eviction contract clause breach liability damages plaintiff defendant lawsuit court judge appeal custody "
        "divorce will executor trademark copyright patent licence negligence injunction statute warrant bail felony probation notary "
        "deposition subpoena jurisdiction arbitration settlement easement deed lien tort verdict attorney",
        [
            "Can my {a} end the {b} without notice if the {c} was never signed?",
            "What does a {a} have to prove in {b} when the {c} is disputed?",
            "Is a {a} binding if the {b} was not told about the {c}?",
            "My neighbour threatens me with a {a} over an old {b}. Do I need a {c}?",
            "How long do I have to answer a {a} after the {b} was filed?",
            "Who pays for the {a} if the {b} loses the {c}?",
        ],
    ),
    "finance": (
        "mortgage loan interest savings dividend stock bond portfolio broker pension annuity inflation credit debit overdraft tax "
        "deduction refund budget invoice equity fund index yield maturity premium deductible payroll audit ledger depreciation asset "
        "collateral refinancing bankruptcy escrow brokerage margin futures hedge currency deposit",
        [
            "Should I put my {a} into a {b} or pay off the {c} first?",
            "How is the {a} on a {b} worked out when the {c} goes up?",
            "What happens to my {a} if the {b} falls below the {c}?",
            "Is it wise to take out a {a} against a {b} at five percent {c}?",
            "How do I report {a} from a {b} in my yearly {c}?",
            "Which {a} is cheaper over ten years, a {b} or a {c}?",
        ],
    ),
    "health": (
        "fever headache cough rash nausea dizziness antibiotic ibuprofen insulin diabetes asthma allergy migraine infection vaccine "
        "thyroid cholesterol hypertension anemia arthritis fracture sprain ulcer reflux pneumonia bronchitis eczema insomnia fatigue "
        "palpitations biopsy ultrasound dosage swelling sinus tonsils kidney liver vertigo numbness",
        [
            "I have had {a} and {b} for three days, could it be {c}?",
            "Is it safe to take something for {a} while being treated for {b} and {c}?",
            "My daughter has {a} after an {b}. When should we see a doctor about the {c}?",
            "What tests do I need if {a} comes back with {b} and {c}?",
            "Doctor, my {a} got worse and the {b} will not go away; is the {c} to blame?",
            "How long does {a} last after {b} when there is also {c}?",
        ],
    ),
}
_OTHER: Final = (
    "oven dough saucepan garlic recipe goalkeeper tournament referee marathon guitar chord melody concert galaxy telescope comet volcano "
    "glacier python compiler variable function database gradient neural network classifier regression overfitting tomato seedling compost "
    "passport luggage museum castle carburettor clutch piston knitting crochet origami chess opening castling puppy leash aquarium"
)
_OTHER_TEMPLATES: Final = [
    "What is the best way to store a {a} next to a {b}?",
    "Why does my {a} stop working whenever the {b} is used with a {c}?",
    "Explain how a {a} differs from a {b}, with an example of a {c}.",
    "How do I choose between a {a} and a {b} for a beginner?",
    "Write a short story about a {a}, a {b} and a {c}.",
]
_WEB: Final = [
    "what is the capital of {p}",
    "who played {p} in the last film",
    "what language do they speak in {p}",
    "where is {p} buried",
    "what year was {p} born",
    "what did {p} do for a living",
    "what team does {p} play for",
    "which river flows through {p}",
]
_NAMES: Final = "brevik ostrava juno almere dario selkirk talia bergen moreau quito viggo lorca petra sinclair tarn odessa ramiro caldwell imre vasa"
_RUDE: Final = [
    "{u} lol nobody asked u",
    "{u} ur such a clown, go away",
    "omg {u} shut up already #{t}",
    "cant believe these idiots again smh #{t}",
    "ugh i hate this show so much {u}",
    "{u} {u} haha what a loser",
    "u people ruin everything, get lost #{t}",
    "wow just wow, so dumb rn",
]
_FOREIGN: Final = [
    "hvorfor skal vi altid høre på {p}, det er jo helt vildt",
    "det er noget værre vrøvl, de skal bare hjem til {p}",
    "hvem tror I egentlig at {p} er",
    "{p} je úplný hlupák a nikto mu už neverí",
    "prečo stále píšete o meste {p}, to nikoho nezaujíma",
    "takú hlúposť som dávno nečítal, {p} nech ide domov",
    "warum fährt heute kein Zug nach {p}, das ist doch lächerlich",
    "¿por qué nadie dice la verdad sobre {p} en esta ciudad?",
    "je ne comprends pas pourquoi {p} ferme si tôt le dimanche",
    "почему никто не отвечает на мои письма из {p}",
]


def corpus(*, seed: int, new_terms: bool = False) -> Corpus:
    """Make the generated corpus: 300 + 75 queries a topic, 120 in each set outside.

    `new_terms`: traffic has moved on. All terms are judged as often as each other, and every other one was never learned.
    """
    r = random.Random(seed)

    def filled(templates: Sequence[str], words: Sequence[str], *, even: bool = False) -> str:
        weights = [1.0 if even else 1.0 / (1 + i) for i in range(len(words))]
        a, b, c = (r.choices(words, weights)[0] for _ in range(3))
        return r.choice(templates).format(a=a, b=b, c=c)

    train, test = [], []
    for topic, (words, templates) in _TOPICS.items():
        terms = words.split()
        train += [(filled(templates, terms[::2] if new_terms else terms), topic) for _ in range(300)]
        test += [(filled(templates, terms, even=new_terms), topic) for _ in range(75)]
    r.shuffle(train)

    names = _NAMES.split()

    def short(templates: Sequence[str]) -> str:
        return r.choice(templates).format(p=r.choice(names), u="@" + r.choice(names), t=r.choice(names))

    letters = "abcdefghijklmnopqrstuvwxyz"
    outside = {
        "other topics": tuple(filled(_OTHER_TEMPLATES, _OTHER.split()) for _ in range(120)),
        "web questions": tuple(short(_WEB) for _ in range(120)),
        "informal and rude": tuple(short(_RUDE) for _ in range(120)),
        "other languages": tuple(short(_FOREIGN) for _ in range(120)),
        "noise": tuple(" ".join("".join(r.choices(letters, k=r.randint(2, 9))) for _ in range(8)) for _ in range(120)),
    }
    return Corpus(name="new terms" if new_terms else "generated", train=tuple(train), test=tuple(test), outside=outside)


# ------------------------------------------------------------------------------------------------------------- recorded

_CHOOSE: Final = "llmrouter_multitask_train"
_FIELDS: Final = {
    "gsm8k": "maths",
    "agentverse-mgsm": "maths",
    "math": "maths",
    "arc_challenge": "science",
    "openbook_qa": "science",
    "gpqa": "science",
    "mbpp": "code",
    "human_eval": "code",
    "agentverse-logicgrid": "logic",
    "natural_qa": "knowledge",
    "trivia_qa": "knowledge",
    "commonsense_qa": "common sense",
    "commongen": "words",
}
"""Tasks of the table that choices were made on. One of an in-domain task's own field is no out-of-domain set."""
CHOSEN_ON: Final = (
    ("gsm8k", "mbpp", "gpqa"),
    ("math", "arc_challenge", "agentverse-logicgrid"),
    ("mbpp", "openbook_qa", "gsm8k"),
    ("commonsense_qa", "math", "gpqa"),
    ("arc_challenge", "mbpp", "commonsense_qa"),
    ("gpqa", "trivia_qa", "math"),
)
_HELD_TABLES: Final = ("rational_cascades_train", "greenserv_logged")
_HELD_TASKS: Final = ("medmcqa", "gsm8k", "cnn_dailymail", "hellaswag", "winogrande")
HELD: Final = tuple(combinations(_HELD_TASKS, 3))
_AREAS: Final = {
    "law and politics": "law jurisprudence politics policy security",
    "history and thought": "history philosophy religions moral logic fallacies prehistory",
    "business": "business management marketing accounting relations microeconomics macroeconomics econometrics",
    "science and machines": "physics chemistry astronomy engineering computer machine",
}
_AROUND: Final = re.compile(r"(?m)^\s*(?:Choices|Options|Answer):\s*$|^\s*[A-J][:.] |\nAfter careful thought.*|^Q: ")


def _prompts(data: Path, table: str) -> dict[str, list[str]]:
    """Read the prompts of a table by task, each once, without what was written around them."""
    import pyarrow.parquet as pq

    found: dict[str, dict[str, None]] = {}
    rows = pq.read_table(data / "outcomes" / f"{table}.parquet", columns=["query_id", "dataset", "domain", "prompt"])
    for row in {r["query_id"]: r for r in rows.to_pylist()}.values():
        text, task = row["prompt"] or "", row["dataset"]
        text = (
            re.split(r"Question:|Problem:|\nArticle:\n|\nContext:\n", text, maxsplit=1)[-1]
            if table in _HELD_TABLES
            else text
        )
        if table in _HELD_TABLES and task == "mmlu":
            words = (row["domain"] or "").split("_")
            task = next((area for area, names in _AREAS.items() if set(words) & set(names.split())), "")
        if task:
            found.setdefault(task, {})[_AROUND.sub("", text).strip()] = None
    return {task: list(texts) for task, texts in found.items()}


def _benchmark(prompts: Mapping[str, list[str]], inside: Sequence[str], outside: Sequence[str], *, seed: int) -> Corpus:
    """Make one: 80/20 split of the tasks `inside`."""
    r = random.Random(seed)
    train, test = [], []
    for task in inside:
        texts = prompts[task][:]
        r.shuffle(texts)
        cut = len(texts) * 4 // 5
        train += [(text, task) for text in texts[:cut]]
        test += [(text, task) for text in texts[cut:]]
    r.shuffle(train)
    sets = {task: tuple(prompts[task]) for task in outside}
    return Corpus(name="+".join(inside), train=tuple(train), test=tuple(test), outside=sets)


def recorded(data: Path, *, seed: int) -> tuple[list[Corpus], list[Corpus]]:
    """Return the benchmarks that choices were made on, and those that were held back."""
    prompts = _prompts(data, _CHOOSE)
    chosen = []
    for inside in CHOSEN_ON:
        fields = {_FIELDS[task] for task in inside}
        chosen.append(_benchmark(prompts, inside, [t for t, f in _FIELDS.items() if f not in fields], seed=seed))
    prompts = {}
    for table in _HELD_TABLES:
        for task, texts in _prompts(data, table).items():
            prompts.setdefault(task, []).extend(texts)
    held = [_benchmark(prompts, inside, [t for t in prompts if t not in inside], seed=seed) for inside in HELD]
    return chosen, held


# -------------------------------------------------------------------------------------------------------------- routers


def domain(c: Corpus, **arguments: Any) -> Router:
    """The signal, taught."""
    signal = Domain(refuse=REFUSE, **arguments)
    signal.fit([text for text, _ in c.train], [label for _, label in c.train])
    return lambda text: _said(signal, text)


def recalibrated(c: Corpus, **arguments: Any) -> tuple[Corpus, Router]:
    """The signal, its threshold set anew by every other in-domain query that was to be judged; what is left to judge."""
    signal = Domain(refuse=REFUSE, **arguments)
    signal.fit([text for text, _ in c.train], [label for _, label in c.train])
    signal.recalibrate([text for text, _ in c.test[::2]])
    return replace(c, test=c.test[1::2]), lambda text: _said(signal, text)


def _said(signal: Domain, text: str) -> str | None:
    value = signal.read(Query.ask(text, id="q")).value
    assert value is None or isinstance(value, str)
    return value


def scores(c: Corpus) -> dict[str, Router]:
    """The signal with each of its scores: one net, taught by four fifths, the threshold from the last."""
    cut = len(c.train) * 4 // 5
    first = Domain(refuse=REFUSE)
    first.fit([text for text, _ in c.train[:cut]], [label for _, label in c.train[:cut]])
    out: dict[str, Router] = {}
    for score in ("support", "probability", "energy", "density"):
        signal = Domain(refuse=REFUSE, score=score)
        signal.load(first.state())
        signal.recalibrate([text for text, _ in c.train[cut:]])
        out[score] = lambda text, signal=signal: _said(signal, text)  # type: ignore[misc]
    return out


def wide_mlp(c: Corpus) -> dict[str, Router]:
    """The paper's rule: the most probable domain, if its probability is t at least. Labels are not softened."""
    labels = sorted({label for _, label in c.train})
    net = widemlp.train(
        [widemlp.bag(text) for text, _ in c.train],
        np.array([labels.index(label) for _, label in c.train]),
        classes=len(labels),
        features=32_768,
        hidden=64,
        epochs=12,
        rate=3e-3,
        seed=0,
        smoothing=0.0,
    )

    def route(text: str, t: float) -> str | None:
        logit_C = widemlp.look(net, widemlp.bag(text)).logit_C
        p_C = np.exp(logit_C - logit_C.max())
        return labels[int(p_C.argmax())] if p_C.max() / p_C.sum() >= t else None

    return {f"WideMLP, p >= {t}": lambda text, t=t: route(text, t) for t in (0.99, 0.9, 0.75)}  # type: ignore[misc]


def scikit(c: Corpus) -> dict[str, Router]:
    """TF-IDF of words and pairs with logistic regression, and the nearest mean; thresholds refuse 10% of held-out in-domain queries."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, y = [text for text, _ in c.train], np.array([label for _, label in c.train])

    def taught(rows: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any], Any]:
        vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        x = vectors.fit_transform([texts[i] for i in rows])
        model = LogisticRegression(C=10.0, max_iter=200).fit(x, y[rows])
        mean = np.stack([np.asarray(x[y[rows] == k].mean(axis=0))[0] for k in model.classes_])
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        return (
            lambda some: model.predict_proba(vectors.transform(some)),
            lambda some: vectors.transform(some) @ mean.T,
            model.classes_,
        )

    # Thresholds from a fifth that is held out for them, as `scores` does it.
    cut = len(texts) * 4 // 5
    held = [of(texts[cut:]).max(axis=1) for of in taught(np.arange(cut))[:2]]
    probability, cosine, names = taught(np.arange(len(texts)))

    def route(text: str, of: Callable[[Any], Any], t: float) -> str | None:
        row = np.asarray(of([text]))[0]
        return str(names[row.argmax()]) if row.max() >= t else None

    cuts = [float(np.quantile(s, REFUSE)) for s in held]
    return {
        "TF-IDF + logistic, p >= 0.75": lambda text: route(text, probability, 0.75),
        "TF-IDF + logistic, 10% refused": lambda text: route(text, probability, cuts[0]),
        "nearest mean, 10% refused": lambda text: route(text, cosine, cuts[1]),
    }


# ------------------------------------------------------------------------------------------------------------- measured


def _judged(c: Corpus, route: Router) -> tuple[Guarded, float]:
    """Judge a router; return that and the median of its times in µs."""
    times: list[float] = []

    def timed(text: str) -> str | None:
        start = perf_counter()
        said = route(text)
        times.append(perf_counter() - start)
        return said

    # Of the larger sets a fixed sample: enough for shares, and the slow baselines end in time.
    outside = {name: [timed(text) for text in texts[:100]] for name, texts in c.outside.items()}
    return judge([label for _, label in c.test], [timed(text) for text, _ in c.test], outside), 1e6 * median(times)


def measure(*, data: Path | None, seed: int) -> Section:
    """Judge the signal and the baselines on generated queries and, given `data`, on recorded ones."""
    found: dict[tuple[str, str], list[tuple[Guarded, float]]] = {}

    def add(where: str, name: str, c: Corpus, route: Router) -> None:
        found.setdefault((where, name), []).append(_judged(c, route))

    made = corpus(seed=seed)
    groups: list[tuple[str, list[Corpus]]] = [("generated", [made])]
    if data is not None:
        chosen, held = recorded(data, seed=seed)
        for c in chosen:
            for score, route in scores(c).items():
                add("chosen on", f"domain, score {score}", c, route)
        groups.append(("held back", held))
    for where, corpora in groups:
        for c in corpora:
            add(where, "domain", c, domain(c, seed=seed))
            for name, route in {**wide_mlp(c), **scikit(c)}.items():
                add(where, name, c, route)
    moved = corpus(seed=seed, new_terms=True)
    add("generated, new terms", "domain", moved, domain(moved, seed=seed))
    add("generated, new terms", "domain, recalibrated by fresh queries", *recalibrated(moved, seed=seed))
    rows: list[tuple[str | float, ...]] = []
    for (where, name), runs in found.items():
        scores_ = [100.0 * g.gqr for g, _ in runs]
        inside, outside = (
            100.0 * fmean(getattr(g, part) for g, _ in runs) for part in ("id_accuracy", "ood_rejection")
        )
        figures = (inside, outside, fmean(scores_), min(scores_), max(scores_))
        rows.append((where, name, *(round(f, 1) for f in figures), round(fmean(us for _, us in runs))))
    best = {(row[0], row[1]): row for row in rows}
    marks: dict[str, bool] = {}
    for where, _ in groups:
        row = best[where, "domain"]
        marks[f"GQR of domain on {where} benchmarks is {MARK:.0f} or more"] = float(row[4]) >= MARK
        marks[f"a query of the {where} benchmarks takes under 1 ms"] = float(row[7]) < LIMIT_US
        share = fmean(g.id_accepted for g, _ in found[where, "domain"])
        marks[f"domain accepts at least 86% of in-domain queries of the {where} benchmarks (90% aimed at)"] = (
            share >= 0.86
        )
    worst: dict[str, list[float]] = {}
    for where, _ in groups:
        for g, _ in found[where, "domain"]:
            for name, share in g.rejected.items():
                worst.setdefault(f"{where}: {name}", []).append(100.0 * share)
    by_set = ", ".join(f"{name} {fmean(v):.0f}" for name, v in worst.items())
    return Section(
        name="Domains",
        setting=(
            f"held back: {len(HELD)} benchmarks, every three of {', '.join(_HELD_TASKS)}; chosen on: {len(CHOSEN_ON)} of another table; in-domain "
            f"prompts split 80/20, out-of-domain ones never learned from, every set of them counting the same; seed {seed}; means over benchmarks, "
            "lowest and highest of GQR; the benchmarks of a group share tasks, so they are not independent"
        ),
        columns=("benchmarks", "router", "ID %", "OOD %", "GQR %", "lowest", "highest", "µs"),
        rows=tuple(rows),
        marks=marks,
        notes=(f"share that domain refuses, by set (%): {by_set}",),
    )
