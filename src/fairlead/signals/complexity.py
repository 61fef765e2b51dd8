"""Whether a query is like hard examples or like easy ones. As the complexity signal of vLLM Semantic Router (2026, arXiv 2603.04444):

    delta = max_i cos(e_query, e_hard_i) - max_j cos(e_query, e_easy_j),    hard: delta > theta,   easy: delta < -theta,   else medium

(Adaptive VLM Routing, 2026, arXiv 2603.12823, compares with prototypes of an easy and a hard base likewise.) The examples here are ours,
some thirty of each, over several fields; give your own, from your own traffic.

**What it is worth.** Against whether models really answered less well on average, on two tables of recorded outcomes, this delta with the
built-in examples is no better than a coin within a task (AUC .49 to .52), by `hashing` and by a sentence encoder, and worse than the mere length of
the prompt (.57, .58): see docs/guides/signals.md (`benchmarks/signals.py`). What makes a prompt hard for models is not what makes it
look hard. Use it as a statement of what you call hard, with examples of your own; to know what is hard for your models, train a predictor.

About 75 µs for 300 characters with `hashing`, of which all but 10 is the embedding, shared with other signals; else what the embedder takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fairlead.embeddings.base import Embedder, Examples
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import ConfigError
from fairlead.signals.base import Law, Range, Signal, alike
from fairlead.types import Query, Reading

HARD: Final = (
    "Prove that there are infinitely many primes congruent to 3 modulo 4.",
    "Derive the closed form of this recurrence and justify every step.",
    "Find all real solutions of the system and show that there are no others.",
    "Evaluate the definite integral using contour integration.",
    "A train leaves at noon and a second one an hour later; with three stops of different length, when and where do they meet?",
    "Design a distributed consensus protocol that tolerates Byzantine faults and analyse its message complexity.",
    "Refactor this module to remove the race condition without changing its public interface.",
    "Explain why this concurrent program deadlocks and give a minimal fix.",
    "Implement a persistent red-black tree with deletion and prove its bounds.",
    "Optimise this SQL query over five joined tables with window functions.",
    "Compare the three theories, weigh the evidence for each and argue which explains the data best.",
    "Given these conflicting witness statements, work out who cannot be telling the truth.",
    "Analyse the second-order effects of this policy on employment, prices and trade over ten years.",
    "Which of the following best explains the mechanism by which the mutation alters the protein's function?",
    "A patient with these symptoms, lab values and history presents at night: what is the most likely diagnosis and the next step?",
    "Assess the liability of each party under the contract and the applicable precedents.",
    "Estimate the error of this numerical scheme and show for which step sizes it is stable.",
    "Balance this redox reaction in basic solution and compute the cell potential.",
    "Derive the equations of motion of a double pendulum from its Lagrangian.",
    "Critique the methodology of this study and propose an experiment that separates the two causes.",
    "Plan a migration of a live database with no downtime and a way back at every step.",
    "Translate this poem so that metre, rhyme and the double meaning of the third line are kept.",
    "Write a proof by induction for the inequality above.",
    "How many ways are there to seat eight people at a round table if two of them refuse to sit together?",
    "Find the flaw in this argument and state the weakest assumption that would repair it.",
    "Given the following passage, infer the author's unstated assumption and support it with quotations.",
)  # fmt: skip
EASY: Final = (
    "Hello, how are you?",
    "Thanks, that is all.",
    "What is the capital of France?",
    "Who wrote Romeo and Juliet?",
    "What year did the Second World War end?",
    "What is 2 + 2?",
    "How many days are there in a week?",
    "Convert 10 kilometres to miles.",
    "What does the word 'happy' mean?",
    "Give me a synonym for fast.",
    "Correct the spelling of this sentence.",
    "Translate 'good morning' into Spanish.",
    "Summarise this paragraph in one sentence.",
    "Is this review positive or negative?",
    "Write a short birthday greeting for a friend.",
    "List three fruits that are red.",
    "What colour is the sky?",
    "Name the largest planet in the solar system.",
    "Tell me a joke.",
    "What time zone is London in?",
    "Print hello world in Python.",
    "How do I open a file in Python?",
    "Sort this list of names alphabetically.",
    "Extract the e-mail address from this text.",
    "Turn this sentence into a question.",
    "Which animal says moo?",
)  # fmt: skip


class Complexity(Signal):
    """Value: ``hard``, ``medium`` or ``easy``. Part `delta`, -2 to 2: how much nearer the query is to hard examples than to easy ones.

    Confidence: the cosine with the nearest example of either kind, at least 0: of a query that is like none of them little is known. Null,
    with confidence 0, for a query without text and while nobody embeds.

    Args:
        hard: examples; none: `HARD`.
        easy: examples; none: `EASY`.
        theta: how far delta must be from 0 to say hard or easy.
        embedder: what turns text into vectors.

    Raises:
        ConfigError: by `check`, for an empty example or a theta outside [0, 2).
    """

    __slots__ = ("_easy", "_hard")
    _easy: Examples
    _hard: Examples

    def __init__(
        self,
        *,
        hard: Sequence[str] = (),
        easy: Sequence[str] = (),
        theta: float = 0.05,
        embedder: Embedder = Hashing(),  # noqa: B008 - it is never changed
    ) -> None:
        self.hard = hard
        self.easy = easy
        self.theta = theta
        self.embedder = embedder

    @property
    def slow(self) -> bool:
        """Whether the embedder is."""
        return self.embedder.slow

    def check(self) -> None:
        """Raise `ConfigError` for what cannot be compared with."""
        for name, phrases in (("hard", self.hard), ("easy", self.easy)):
            for i, phrase in enumerate(phrases):
                if not phrase.strip():
                    raise ConfigError("an example is a text that is not empty", path=f"$.{name}[{i}]")
        if not 0.0 <= self.theta < 2.0:
            raise ConfigError(
                f"two cosines differ by less than 2: give a theta in [0, 2), not {self.theta}", path="$.theta"
            )

    def ranges(self) -> Mapping[str, Range]:
        """One of three, and a difference of cosines."""
        return {
            "value": Range(kind="string", among=("hard", "medium", "easy"), null=True),
            "delta": Range(kind="number", low=-2.0, high=2.0, null=True),
        }

    def laws(self) -> Sequence[Law]:
        """The value says on which side of theta delta lies."""
        return (
            alike({"value": "hard"}, {"delta": {"gt": self.theta}}),
            alike({"value": "easy"}, {"delta": {"lt": -self.theta}}),
            alike({"value": "medium"}, {"delta": {"ge": -self.theta, "le": self.theta}}),
        )

    def _read(self, query: Query) -> Reading:
        try:
            hard, easy = self._hard, self._easy
        except AttributeError:  # slots that are not filled yet
            self.check()
            hard = self._hard = Examples(self.embedder, self.hard or HARD)
            easy = self._easy = Examples(self.embedder, self.easy or EASY)
        vector = self.embedder.embed(query.text)
        if not vector.any():
            return Reading(confidence=0.0)
        near_hard, near_easy = hard.cosines(vector), easy.cosines(vector)
        if near_hard is None or near_easy is None:
            return Reading(confidence=0.0)
        to_hard, to_easy = float(near_hard.max()), float(near_easy.max())
        delta = to_hard - to_easy
        value = "hard" if delta > self.theta else "easy" if delta < -self.theta else "medium"
        return Reading(value=value, parts={"delta": delta}, confidence=max(to_hard, to_easy, 0.0))
