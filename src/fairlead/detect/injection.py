"""How much a text looks like an attempt to take over the model: prompt injection, jailbreak, or prying into the system prompt.

Three kinds of evidence, as in vLLM Semantic Router (2026, arXiv 2603.04444), which uses a fine-tuned transformer where this uses a small
linear model:

- **rules**: words that together, and near each other, cancel orders, ask for hidden ones, play a role without limits, forge turns, or
  speak to a machine that reads a document; in some twenty languages;
- **a classifier**: logistic regression on hashed words, stems and word pairs (Weinberger et al. 2009, arXiv:0902.2206), at the hottest
  `WINDOW` words of the text, so that a long document does not dilute one sentence in it:

      z = max over windows of  (sum of weights of the window's features) / sqrt(words in it) + bias

- **contrast**, as in the paper: delta = max cos(text, known attacks) - max cos(text, harmless look-alikes), over the hottest window, by any
  embedder. The paper fires at 0.10; here delta is one more number in the sum.

    risk = sigmoid(b + w . evidence),    w >= 0, so that more evidence never means less risk

`b` and `w` were fitted on attacks and look-alikes of other kinds than the classifier had seen (it then learned those too). One attack was
weighed against five harmless texts there: the risk is a probability in such a mix, and a score in traffic where attacks are rarer. The risk
of a text is the highest of the text as it reads and of all that `unhide` finds inside it. What is learned, is learned by `fit`; the shipped
weights come from `benchmarks/injection_model.py`.

A cue that an attacker can add at will (quotation marks, "for a lesson") counts for nothing by itself; but the classifier has seen such
words in look-alikes, and can be talked round by them. It is a sieve, not a wall.

Shapes: V weights, N features of a text, W words, F kinds of evidence, T texts, K known examples, E size of an embedding.
"""

# ruff: noqa: RUF001 - words of many languages

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib import resources
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fairlead.detect.unhide import unhide
from fairlead.embeddings.base import Embedder
from fairlead.errors import ConfigError

Floats = NDArray[np.float64]

WINDOW: Final = 40
"""Words that the classifier sees at once."""
FEATURES: Final = 65_536
"""Buckets that features are hashed to."""

KINDS: Final = ("override", "exfiltration", "persona", "suppression", "turns", "link", "address")
EVIDENCE: Final = ("classifier", "contrast", *KINDS, "concealed")
_DISGUISES: Final = frozenset({"invisible", "bidi", "look_alike"})
_USUAL: Final = frozenset({"leet", "camel", "spaced", "url", "entities", "escapes", "comment", "alt", "pieces"})
"""Ways of writing that many harmless texts use too: what is in them is judged, that it was so written is no evidence."""


class Finding(Struct, frozen=True, kw_only=True):
    """What was found in a text: names and numbers only, never words of it."""

    risk: float
    """In [0, 1]."""
    reasons: tuple[str, ...] = ()
    """Kinds of evidence in it, sorted: `KINDS`, ``classifier``, ``contrast``, and how things were hidden (see `unhide`)."""
    contrast: float = 0.0
    concealed: bool = False
    """Something in it was encoded, invisible or disguised, harmless or not."""
    partial: bool = False
    """It was too long to be read whole."""


class Model(Struct, frozen=True, kw_only=True):
    """What is learned. `weight_V` float32, its last entry the bias; `mix_F` float64: one weight for each of `EVIDENCE`, then the bias."""

    weight_V: NDArray[np.float32]
    mix_F: Floats


@lru_cache(maxsize=1)
def shipped() -> Model:
    """Return the weights that come with the package."""
    with (
        (resources.files("fairlead.detect") / "injection.npz").open("rb") as f,
        np.load(f, allow_pickle=False) as arrays,
    ):
        return Model(weight_V=arrays["weight_V"].astype(np.float32), mix_F=arrays["mix_F"].astype(np.float64))


class Detector:
    """Looks at texts with one model and one set of known examples.

    Args:
        model: what was learned.
        embedder: turns a text into a vector, for the contrast.
        attacks: known attacks.
        harmless: known look-alikes.
        read: of a longer text, so many characters are read at either end.
    """

    def __init__(
        self, *, model: Model, embedder: Embedder, attacks: Sequence[str], harmless: Sequence[str], read: int
    ) -> None:
        self.model = model
        self.embedder = embedder
        self.read = read
        self._bad_KE = np.stack([embedder.embed(t) for t in attacks])
        self._good_KE = np.stack([embedder.embed(t) for t in harmless])
        self._mix = model.mix_F.tolist()

    def scan(self, text: str) -> Finding:
        """Judge `text`."""
        cut = len(text) > 2 * self.read
        if cut:
            text = text[: self.read] + "\n" + text[-self.read :]
        found = unhide(text)
        disguised = not found.marks.isdisjoint(_DISGUISES)
        evidence = self._evidence(found.text, disguised)
        best, reasons = self._risk(evidence), set(_named(evidence))
        contrast = evidence[1]
        for how, inner in found.layers:
            evidence = self._evidence(inner, disguised or how not in _USUAL)
            risk = self._risk(evidence)
            contrast = max(contrast, evidence[1])
            reasons.update(_named(evidence))
            best = max(best, risk)
        return Finding(
            risk=best,
            reasons=tuple(sorted(reasons | found.marks)),
            contrast=contrast,
            concealed=not found.marks <= _USUAL,
            partial=cut,
        )

    def evidence(self, text: str) -> list[float]:
        """Return the numbers of `EVIDENCE` of the layer of `text` that looks worst."""
        found = unhide(text)
        seen = [self._evidence(found.text, not found.marks.isdisjoint(_DISGUISES))]
        seen += [self._evidence(inner, how not in _USUAL) for how, inner in found.layers]
        return max(seen, key=lambda e: (sum(e[2:]), e[0]))

    def _evidence(self, text: str, disguised: bool) -> list[float]:
        words = _words(text)
        if not words:
            return [_FLOOR, 0.0, *[0.0] * len(KINDS), float(disguised)]
        logit, start = hottest(words, self.model.weight_V)
        seen = text if len(words) <= WINDOW else " ".join(words[start : start + WINDOW])
        vector_E = self.embedder.embed(seen)
        delta = float((self._bad_KE @ vector_E).max() - (self._good_KE @ vector_E).max())
        kinds, split = _rules(text, words)
        flags = [float(k in kinds) for k in KINDS]
        return [min(max(logit, _FLOOR), -_FLOOR), delta, *flags, float(disguised or split)]

    def _risk(self, evidence: list[float]) -> float:
        z = self._mix[-1]
        for w, e in zip(self._mix, evidence, strict=False):
            z += w * e
        return 1.0 / (1.0 + math.exp(-z)) if z > -700.0 else 0.0


_PRIOR: Final = 5.0
"""Harmless texts for one attack, by weight, whatever was given: real traffic has more, but a score that is never high tells little."""

_FLOOR: Final = -8.0
"""No text is surer than this for the classifier, either way."""


def _named(evidence: list[float]) -> list[str]:
    logit, delta, *flags = evidence
    names = [name for name, on in zip(EVIDENCE[2:], flags, strict=True) if on]
    return names + ["classifier"] * (logit > 0.0) + ["contrast"] * (delta >= CONTRAST)


CONTRAST: Final = 0.10
"""The paper's threshold on the contrast."""

# ------------------------------------------------------------------------------------------------------------- classifier

_WORD: Final = re.compile(
    # Vowel signs of India and Thailand are no letters to Python, but belong to their words.
    r"[\u3040-\u30ff\u3400-\u9fff]|(?:[^\W\u3040-\u30ff\u3400-\u9fff]|[\u0900-\u0903\u093a-\u0963\u0980-\u0e00\u0e31-\u0e4e])+|[^\w\s]"
)
_ASCII_WORD: Final = re.compile(r"\w+|[^\w\s]", re.ASCII)
_MIX_1: Final = np.uint32(0x9E3779B1)
_MIX_2: Final = np.uint32(0x85EBCA77)


def _words(text: str) -> list[str]:
    text = text.lower()
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


def _folded(words: str) -> frozenset[str]:
    return frozenset(unhide(words).text.lower().split())


_PLAIN: Final = _folded(
    """this that with from have they which what were when there their your will would could should about into than then them these those
    only other some very just also been being does each even more most much must many such over under after before again here where
    while because between both during upon against through every answer question text write word words give tell make show said says
    like first last next same once says step steps yours ours mine very please thanks"""
)
"""Words that are in every kind of text. By themselves they, signs, and words of up to three letters are no features."""


def _features(words: list[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the features of `words`, shape (N,), and the word at which each begins.

    Features are words, their first five letters, pairs of neighbours, and pairs with one word between. A pair counts if one of the two is more
    than a plain word; with a word between, both.
    """
    joined = " ".join(words)
    coded = joined.encode("utf-8", "surrogatepass").split(b" ")
    w = len(words)
    word_W = np.fromiter(map(zlib.crc32, coded), np.uint32, w)
    size_W = np.fromiter(map(len, words), np.intp, w)
    telling_W = (size_W > 3) & ~np.fromiter(map(_PLAIN.__contains__, words), bool, w)
    strong_W = telling_W
    long_S = np.flatnonzero(size_W > 5)
    if joined.isascii():
        stems = [coded[i][:5] for i in long_S.tolist()]
    else:
        stems = [words[i][:5].encode("utf-8", "surrogatepass") for i in long_S.tolist()]
        # One sign of Chinese or Japanese has three bytes: alone it says little, a pair of them much.
        strong_W = telling_W | ((size_W == 1) & (np.fromiter(map(len, coded), np.intp, w) == 3))
    one_W = np.flatnonzero(telling_W)
    pair_W = np.flatnonzero(strong_W[:-1] | strong_W[1:])
    far_W = np.flatnonzero(strong_W[:-2] & strong_W[2:])
    hash_N = np.concatenate(
        [
            word_W[one_W],
            np.fromiter(map(zlib.crc32, stems), np.uint32, len(stems)) * _MIX_2,
            word_W[pair_W] * _MIX_1 + word_W[pair_W + 1],
            (word_W[far_W] * _MIX_1 + word_W[far_W + 2]) * _MIX_1,
        ]
    )
    hash_N = (hash_N ^ (hash_N >> np.uint32(15))) * _MIX_2
    hash_N ^= hash_N >> np.uint32(13)
    return (hash_N & np.uint32(FEATURES - 1)).astype(np.intp), np.concatenate([one_W, long_S, pair_W, far_W])


def hottest(words: list[str], weight_V: NDArray[np.float32]) -> tuple[float, int]:
    """Return the highest logit of any `WINDOW` words in a row, and where they begin."""
    feature_N, owner_N = _features(words)
    weight_N = weight_V.take(feature_N).astype(np.float64)
    bias = float(weight_V[-1])
    if len(words) <= WINDOW:
        return float(weight_N.sum()) / math.sqrt(len(words)) + bias, 0
    sum_W = np.concatenate([[0.0], np.cumsum(np.bincount(owner_N, weights=weight_N, minlength=len(words)))])
    sums = sum_W[WINDOW:] - sum_W[:-WINDOW]
    start = int(sums.argmax())
    return float(sums[start]) / math.sqrt(WINDOW) + bias, start


def fit(
    texts: Sequence[str],
    labels: Sequence[bool],
    *,
    calibration: tuple[Sequence[str], Sequence[bool]],
    embedder: Embedder,
    attacks: Sequence[str],
    harmless: Sequence[str],
    l2: float = 1e-4,
    steps: int = 160,
) -> Model:
    """Learn the classifier from `texts` (true: an attack), weigh the evidence on other ones, then learn the classifier from both.

    The same input gives the same result. Of an attack longer than the window, the window that is hottest so far is taken to be the attack; of harmless ones all are learned.

    Raises:
        ConfigError: if a set lacks attacks or harmless texts.
    """
    for said, of in ((labels, "texts"), (calibration[1], "the calibration")):
        if len(set(map(bool, said))) < 2:
            raise ConfigError(f"{of} must hold both attacks and harmless examples")
    learn = partial(_learned, l2=l2, steps=steps)
    first = Model(weight_V=learn(texts, labels), mix_F=np.zeros(len(EVIDENCE) + 1))
    detector = Detector(model=first, embedder=embedder, attacks=attacks, harmless=harmless, read=1_000_000)
    evidence_TF = np.array([detector.evidence(t) for t in calibration[0]])
    mix_F = _mixed(evidence_TF, np.array(calibration[1], np.float64))
    return Model(weight_V=learn([*texts, *calibration[0]], [*labels, *calibration[1]]), mix_F=mix_F)


def _learned(texts: Sequence[str], labels: Sequence[bool], *, l2: float, steps: int) -> NDArray[np.float32]:
    """Cut texts into pieces of at most `WINDOW` words and fit the classifier on them."""
    pieces: list[list[str]] = []
    is_bad: list[bool] = []
    long: list[list[str]] = []
    for text, label in zip(texts, labels, strict=True):
        found = unhide(text)
        for part in (found.text, *(inner for _, inner in found.layers)):
            words = _words(part)
            if not words or (label and part is found.text and found.layers):
                continue  # of a concealed attack the cover is not learned as one
            if len(words) <= WINDOW:
                pieces.append(words)
                is_bad.append(label)
            elif label:
                long.append(words)
            else:
                for i in range(0, len(words), WINDOW):
                    pieces.append(words[i : i + WINDOW])
                    is_bad.append(False)
    weight_V = _logistic(pieces, is_bad, l2=l2, steps=steps)
    if long:
        for words in long:
            start = hottest(words, weight_V)[1]
            pieces.append(words[start : start + WINDOW])
            is_bad.append(True)
        weight_V = _logistic(pieces, is_bad, l2=l2, steps=steps)
    return weight_V.astype(np.float16).astype(np.float32)


def _logistic(pieces: list[list[str]], labels: list[bool], *, l2: float, steps: int) -> NDArray[np.float32]:
    """Fit by Adam (Kingma and Ba 2014, arXiv:1412.6980) on all data at once; harmless ones weigh `_PRIOR` to one, all together."""
    features, scales, starts, n = [], [], [], 0
    for words in pieces:
        feature_N, _ = _features(words)
        feature_N = np.append(feature_N, FEATURES)  # always 0: a piece without features has a place in the sums too
        scale_N = np.full(len(feature_N), 1.0 / math.sqrt(len(words)))
        features.append(feature_N)
        scales.append(scale_N)
        starts.append(n)
        n += len(feature_N)
    feature_N, scale_N, start_T = np.concatenate(features), np.concatenate(scales), np.array(starts)
    count_T = np.diff([*starts, n])
    y_T = np.array(labels, np.float64)
    share = y_T.mean()
    weight_T = np.where(y_T == 1.0, 1.0 / share, _PRIOR / (1.0 - share)) / (1.0 + _PRIOR) / len(y_T)
    w_V, bias = np.zeros(FEATURES + 1), 0.0
    m_V, v_V = np.zeros(FEATURES + 2), np.zeros(FEATURES + 2)
    for step in range(1, steps + 1):
        z_T = np.add.reduceat(w_V[feature_N] * scale_N, start_T) + bias
        error_T = (1.0 / (1.0 + np.exp(-np.clip(z_T, -30.0, 30.0))) - y_T) * weight_T
        slope_V = (
            np.bincount(feature_N, weights=np.repeat(error_T, count_T) * scale_N, minlength=FEATURES + 1) + l2 * w_V
        )
        slope_V[FEATURES] = 0.0
        g_V = np.append(slope_V, error_T.sum())
        m_V += 0.1 * (g_V - m_V)
        v_V += 0.001 * (g_V * g_V - v_V)
        move_V = 0.05 * (m_V / (1.0 - 0.9**step)) / (np.sqrt(v_V / (1.0 - 0.999**step)) + 1e-8)
        w_V -= move_V[:-1]
        bias -= float(move_V[-1])
    w_V[FEATURES] = bias
    return w_V.astype(np.float32)


def _mixed(evidence_TF: Floats, y_T: Floats) -> Floats:
    """Fit the weights of the evidence, none below 0, and the bias: logistic regression by projected gradients."""
    x_TF = np.column_stack([evidence_TF, np.ones(len(y_T))])
    scale_F = np.abs(x_TF).max(axis=0)
    scale_F[scale_F == 0.0] = 1.0
    x_TF = x_TF / scale_F
    share = y_T.mean()
    weight_T = np.where(y_T == 1.0, 1.0 / share, _PRIOR / (1.0 - share)) / (1.0 + _PRIOR) / len(y_T)
    # A kind that is rare there counts at least a little: a prior at 3 for each flag, 0 for the rest.
    prior_F = np.array([0.0, 0.0, *[3.0] * (len(EVIDENCE) - 2), 0.0])
    mix_F = prior_F.copy()
    for _ in range(4_000):
        z_T = (x_TF * mix_F).sum(axis=1)
        error_T = (1.0 / (1.0 + np.exp(-np.clip(z_T, -30.0, 30.0))) - y_T) * weight_T
        slope_F = (x_TF * error_T[:, None]).sum(axis=0)
        slope_F[2:-1] += 4e-2 * (mix_F - prior_F)[2:-1]
        mix_F = mix_F - 2.0 * slope_F
        mix_F[:-1] = np.maximum(mix_F[:-1], 0.0)
    found: Floats = mix_F / scale_F
    return found


# ------------------------------------------------------------------------------------------------------------------ rules


_CANCEL: Final = _folded(
    "ignore ignoring ignored disregard disregarding forget forgetting override overriding overrule bypass neglect discard nullify void "
    "abandon unlearn dismiss disobey ingore ignor circumvent ignora ignorar ignoren olvida olvide olviden descarta ignorez oublie oubliez "
    "ignorer ignoriere ignorieren ignorier vergiss vergesst vergessen missachte dimentica dimenticate ignorare ignorate trascura desconsidere "
    "esqueca ignorem negeer vergeet zignoruj zapomnij pomiń игнорируй игнорируйте забудь забудьте проигнорируй отбрось ігноруй ігноруйте "
    "забудь تجاهل انس انسى अनदेखा भूल नज़रअंदाज़ unut yoksay ignorera glöm ignorer glem 무시하고 무시해 무시하세요 무시하라 잊어 잊고 abaikan lupakan "
    "ignoruj ignorujte zapomeň ignoră uită αγνόησε התעלם"
)
_ORDERS: Final = _folded(
    "instruction instructions instrutions rules rule prompt prompts guideline guidelines direction directions directive directives orders "
    "commands constraints restrictions programming policies policy instrucciones reglas indicaciones consignes regles anweisungen anweisung "
    "regeln vorgaben instruktionen istruzioni regole instruções regras instructies regels instrukcje polecenia zasady инструкции правила "
    "указания інструкції правила вказівки التعليمات تعليمات القواعد الأوامر निर्देशों निर्देश नियमों talimatları talimatlar kuralları instruktioner "
    "regler 지시를 지시 지침을 지침 명령을 규칙을 instruksi aturan pokyny pravidla instrucțiunile οδηγίες ההוראות"
)
_EARLIER: Final = _folded(
    "previous prior above earlier preceding all every everything your any initial original former old system developer al previus "
    "anteriores previas precedentes anterior todas tus toutes tes bisherigen vorherigen vorigen alle obigen früheren deine precedenti tutte "
    "todas eerdere vorige poprzednie wszystkie предыдущие все всё прежние твои попередні усі всі السابقة جميع كل पिछले सभी önceki tüm tidigare "
    "tidligere 이전의 모든 이전 앞의 semua sebelumnya všechny předchozí toate anterioare προηγούμενες הקודמות כל"
)
_TOLD: Final = frozenset(
    ["told", "said", "instructed", "briefed", "taught", "read", "given", "written", "gesagt", "dicho", "dit", "detto"]
)
_REVEAL: Final = _folded(
    "reveal show print repeat output display dump tell share disclose expose leak give recite list translate summarise summarize quote "
    "return what copy echo spell write muestra muéstrame muestre revela affiche montre révèle donne gib zeig zeige nenne verrate mostra rivela "
    "mostre revele mostrar toon pokaż ujawnij покажи выведи раскрой покажи اعرض اكشف أظهر दिखाएं बताएं göster yaz visa 출력하세요 출력해 보여줘 tampilkan "
    "zobraz arată"
)
_HIDDEN_TEXT: Final = _folded(
    "prompt prompts promt instructions instruction rules guidelines configuration message context preamble directives mensaje instrucciones "
    "consignes anweisungen istruzioni instruções instrukcje промпт инструкции запит 프롬프트를 프롬프트 istemini istemi प्रॉम्प्ट موجه"
)
_WHOSE: Final = _folded(
    "your system initial hidden secret original internal developer confidential sistema système systeme systemowy tu ton deinen deine tuo seu "
    "je jouw swój sistem системный системний твой твои النظام सिस्टम 시스템 sytem yuor"
)
_ONE_WORD: Final = frozenset(
    ["systemprompt", "systemprompts", "systeemprompt", "systemprompten", "systemmeldung", "systemnachricht"]
)
_NO: Final = _folded(
    "no without any free freed beyond zero disable disabled lift lifted off never remove removed ignore ignoring sin sans ohne senza sem zonder "
    "bez без غير utan uten"
)
_LIMITS: Final = _folded(
    "restriction restrictions limit limits limitation limitations filter filters rules guidelines policy policies censorship ethics morals moral "
    "guardrails boundaries disclaimers constraints restricciones restricción límites restriction limites einschränkungen restriktionen grenzen "
    "restrizione restrizioni restrições restricties ograniczeń ограничений обмежень قيود begränsningar"
)
_FREE: Final = _folded(
    """unrestricted unfiltered uncensored jailbroken jailbreak amoral dan evilbot unlocked unbound uncontrolled stan aim"""
)
_ROLE: Final = _folded(
    "you act pretend simulate play become roleplay imagine mode respond answer character persona speak behave bot ai eres actúa tu agis du bist "
    "handle spiel sei agisci você responde réponds antworte rispondi responda antwoord ты отвечай"
)
_NEAR: Final = 10
_MACHINES: Final = r"(?:ai|ia|ki|llm|assistants?|agents?|chat ?bots?|bots?|language models?|(?:ai|language) (?:assistants?|agents?|models?|reviewers?|systems?))"
_ADDRESS: Final = re.compile(
    rf"(?:^|[\s>\"'(@\[#*-])@?{_MACHINES}\s{{0,2}}[:,!]\s|(?:if|when) you(?: are|'re) an? (?:ai|llm|assistant|agent|language model|bot)\b|"
    rf"\b(?:note|message|notice|instructions?|attention|nota|hinweis)\s{{0,2}}(?:to|for|para|an|all|:)?\s{{0,2}}(?:the |any |all |la |die )?{_MACHINES}\b|"
    rf"<important>|\b{_MACHINES} (?:should|must|has to|have to|need to|is to|are to)\b|\b(?:to|for) any {_MACHINES}\b|@{_MACHINES}\b",
    re.IGNORECASE,
)
_ADDRESSED: Final = _folded(
    "ai ia ki llm llms assistant assistants agent agents chatbot bot bots model models important"
)
_TURNS: Final = re.compile(
    r"<\|(?:im_start|im_end|system|user|assistant|eot_id|start_header_id|end_header_id|endoftext|begin_of_text|end|channel)\|>|\[/?INST\]|<</?SYS>>|"
    r"</?(?:system|sys|admin|developer|system[-_ ]prompt|instructions?)>|<(?:start|end)_of_turn>|"
    r"\"role\"\s{0,3}:\s{0,3}\"(?:system|developer)\"|^\s{0,4}#{2,4}\s{0,2}(?:system|instructions?|response|new instructions?)\s{0,2}:|"
    r"^\s{0,4}\[?(?:system|developer|admin)(?: message| prompt)?\]?\s{0,2}:|"
    r"(?:end|close) of (?:the )?(?:system )?(?:prompt|document|instructions|user input|context)\b|\[(?:policy|system|mode)\]",
    re.IGNORECASE | re.MULTILINE,
)
_TURN_SIGNS: Final = (
    "<|", "inst]", "<<", "<sys", "</", "<admin", "<dev", "<inst", "_of_turn", "\"role\"", "##", "system", "developer", "admin", "end of", "close of",
    "[policy", "[mode",
)  # fmt: skip
_FORGED: Final = re.compile(
    r"^\s{0,4}(?:human|user|q)\s{0,2}:.{0,400}\n\s{0,4}(?:assistant|ai|a|bot)\s{0,2}:", re.IGNORECASE | re.MULTILINE
)
_LINK: Final = re.compile(
    # A place to be filled in, in the query of a link: [the chat], {secret}, <key>, ${name}, or a word in capitals.
    r"\]\(\s{0,2}https?://[^)\s?]{0,300}\?[^)\s\[{<]{0,200}=(?:[\[{<]|\$\{|%7B|[A-Z_]{5,})|https?://[^\s)?]{0,200}\?[^\s)\[{<]{0,100}=(?:[\[{<]|\$\{|%7B)"
)
_SUPPRESSION: Final = re.compile(
    r"\b(?:begin|start|open)(?:ning|ing)? (?:your |the |each |every )?(?:\w+ )?(?:reply|response|answer|message)?s? ?with[: ]{1,2}[\"'“‘]?(?:sure|absolutely|of course|yes|certainly)\b|"
    r"\bnever (?:say|use|write|include|mention|refuse|decline|apologi[sz]e|warn)\b.{0,60}\b(?:cannot|can't|unable|sorry|refuse|will not|request|warnings?|no)\b|"
    r"\b(?:do not|don't|must not|cannot|can't|never|without|no) (?:refus\w{1,4}|apologi\w{2,6}|warn\w{0,4}|disclaimers?|moraliz\w{1,4}|lectur\w{1,4})\b",
    re.IGNORECASE,
)
_SUPPRESSED: Final = _folded(
    """begin beginning start starting open never refuse refusing refusal refusals apologise apologize warn warnings warning disclaimers
    disclaimer"""
)
_HAN: Final = re.compile(
    r"(?:忽略|无视|無視|忘记|忘記|忽視|忘れ|不要理会|不要理會).{0,16}(?:指令|指示|规则|規則|提示|设定|設定|命令|要求)|"
    r"(?:指令|指示|规则|規則|ルール|プロンプト|命令|設定).{0,10}(?:忽略|无视|無視|忘れ|破棄)"
)
_HAN_PROMPT: Final = re.compile(
    r"(?:系统提示|系統提示|系统指令|システムプロンプト|初期プロンプト|隐藏指令|内部指示).{0,12}(?:输出|輸出|显示|顯示|告诉|表示|見せ|出力|教え|泄露)|"
    r"(?:输出|輸出|显示|顯示|告诉我|重复|表示).{0,12}(?:系统提示|系統提示|系统指令|システムプロンプト|提示词)"
)
_HAN_FREE: Final = re.compile(
    r"(?:没有|沒有|不受|无|無|なし|ない).{0,6}(?:任何)?(?:限制|制限|约束|約束|审查)|制限(?:の|は)?(?:ない|なし)"
)

_PHRASES: Final = {
    "override": (
        "ignore all previous", "ignore previous", "previous instructions", "ignore the above", "disregard your",
        "disregard the above", "disregard all", "forget your instructions", "forget everything you", "prior instructions",
    ),
    "exfiltration": ("your system prompt", "the system prompt", "hidden instructions"),
    "persona": ("without any restrictions", "no restrictions", "do anything now", "you are now an ai", "answer every request"),
}  # fmt: skip


_NO_LETTERS: Final = bytes(i for i in range(128) if not 97 <= i <= 122)


def _squeezed(text: str) -> bytes:
    """Return the letters of `text` alone, each run of equal ones as one."""
    byte_N = np.frombuffer(text.encode("ascii", "ignore").translate(None, _NO_LETTERS), np.uint8)
    if not len(byte_N):
        return b""
    keep_N = np.empty(len(byte_N), bool)
    keep_N[0] = True
    np.not_equal(byte_N[1:], byte_N[:-1], out=keep_N[1:])
    return byte_N[keep_N].tobytes()


_TIGHT: Final = tuple((_squeezed(p), f" {p} ", kind) for kind, phrases in _PHRASES.items() for p in phrases)
_CLASS: Final[dict[str, int]] = {}
for _bit, _set in enumerate(
    (_CANCEL, _ORDERS, _EARLIER, _TOLD, _REVEAL, _HIDDEN_TEXT, _WHOSE, _NO, _LIMITS, _FREE, _ROLE, _ONE_WORD)
):
    for _word in _set:
        _CLASS[_word] = _CLASS.get(_word, 0) | 1 << _bit
_B: Final = [1 << i for i in range(12)]


def _rules(text: str, words: list[str]) -> tuple[set[str], bool]:
    """Return the kinds whose rules hold, and whether one held only when signs and spaces between letters were left out."""
    kinds: set[str] = set()
    get = _CLASS.get
    known = [(i, c) for i, w in enumerate(words) if (c := get(w)) is not None]
    if known:
        _near(known, kinds)
    vocabulary = set(words)
    if not _ADDRESSED.isdisjoint(vocabulary) and _ADDRESS.search(text):
        kinds.add("address")
    if not _SUPPRESSED.isdisjoint(vocabulary) and _SUPPRESSION.search(text):
        kinds.add("suppression")
    lower = text.lower()
    if (any(map(lower.__contains__, _TURN_SIGNS)) and _TURNS.search(text)) or (
        "\n" in text and ":" in vocabulary and _FORGED.search(text)
    ):
        kinds.add("turns")
    if "http" in text and _LINK.search(text):
        kinds.add("link")
    if not text.isascii():
        for pattern, kind in ((_HAN, "override"), (_HAN_PROMPT, "exfiltration"), (_HAN_FREE, "persona")):
            if pattern.search(text):
                kinds.add(kind)
    split = False
    tight = _squeezed(lower)
    spaced = ""
    for squeezed, phrase, kind in _TIGHT:
        if squeezed in tight:
            spaced = spaced or f" {' '.join(words)} "
            if phrase not in spaced:
                kinds.add(kind)
                split = True
    return kinds, split


def _near(known: list[tuple[int, int]], kinds: set[str]) -> None:
    """Add the kinds whose words stand near each other. `known`: place and classes of each word that has any."""
    cancel, orders, earlier, told, reveal, hidden, whose, no, limits, free, role, one_word = _B
    every = 0
    for _, c in known:
        every |= c
    if every & cancel and every & (orders | told | hidden):
        for i, c in known:
            if c & cancel:
                around = [(j, d) for j, d in known if abs(j - i) <= _NEAR and j != i]
                goals = [j for j, d in around if d & orders]
                if any(d & earlier and any(-3 <= g - j <= 4 for g in goals) for j, d in around) or any(
                    d & told and 0 < j - i <= 8 for j, d in around
                ):
                    kinds.add("override")
                    break
    if every & reveal and every & (hidden | one_word):
        for i, c in known:
            named = c & one_word or (c & hidden and any(-4 <= j - i <= 2 and j != i and d & whose for j, d in known))
            if named and any(abs(j - i) <= _NEAR and d & reveal for j, d in known):
                kinds.add("exfiltration")
                break
    if every & role and every & (free | limits):
        for i, c in known:
            freed = c & free or (c & limits and any(0 < i - j <= 3 and d & no for j, d in known))
            if freed and any(abs(j - i) <= 2 * _NEAR and d & role and j != i for j, d in known):
                kinds.add("persona")
                break
