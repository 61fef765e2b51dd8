"""Answers to questions over made-up documents, sentence by sentence supported or not, and how well `fairlead.detect.support` tells.

Each document is a handful of facts of one domain with made-up names and numbers, told from templates. An answer retells some of them. A sentence of it is
supported if it is a copy, a light rewording, or a hard paraphrase (other words, other order); it is not if a number or a name was changed,
a number was taken from another fact, it was negated or turned into its opposite, two names changed places, or it was made up. Domains
are split: what was chosen (the bar) was chosen on four, and is reported on six others, whose templates were written without looking at
the detector's misses. All templates are by one hand, so real answers will differ more than these domains do among themselves.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

from corpora import Section, Share, share
from fairlead.detect.support import BAR, judged, needs_facts
from fairlead.types import Message, Query


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact in several wordings. `{n1}` … are numbers, `{p1}` … names of the document."""

    source: str
    light: str
    hard: str
    negated: str
    opposite: str = ""
    swapped: str = ""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Facts about one kind of thing, and sentences that nothing supports."""

    facts: tuple[Fact, ...]
    invented: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A document, and an answer as sentences with the kind of each; kinds in `SUPPORTED` are supported."""

    domain: str
    document: str
    sentences: tuple[str, ...]
    kinds: tuple[str, ...]


SUPPORTED = ("copy", "light", "hard paraphrase")
UNSUPPORTED = ("number", "number of another fact", "name", "negated", "opposite", "names swapped", "invented")

TRAIN = {
    "bridge": Domain(
        facts=(
            Fact(source="The {p1} Bridge was opened in {n1} by Mayor {p2}.", light="Mayor {p2} opened the {p1} Bridge in {n1}.", hard="{n1} was the year in which {p2}, then mayor, inaugurated the crossing.", negated="The {p1} Bridge was not opened by Mayor {p2} in {n1}.", opposite="The {p1} Bridge was closed in {n1} by Mayor {p2}."),
            Fact(source="It spans {n2} metres across the river {p3}.", light="The bridge spans {n2} metres over the {p3} river.", hard="From bank to bank the {p3} is {n2} metres wide here.", negated="It does not span the river {p3}."),
            Fact(source="Traffic increased by {n3} percent after the toll was removed.", light="After removal of the toll, traffic increased by {n3} percent.", hard="Once crossing became free, {n3} percent more vehicles came.", negated="Traffic did not increase after the toll was removed.", opposite="Traffic decreased by {n3} percent after the toll was removed."),
            Fact(source="Engineer {p4} hired the firm of {p5} for the repairs.", light="For the repairs, the engineer {p4} hired {p5}'s firm.", hard="The mending was left by {p4} to a company belonging to {p5}.", negated="{p4} never hired the firm of {p5} for the repairs.", swapped="{p5} hired the firm of {p4} for the repairs."),
            Fact(source="Cyclists pay {n4} euros for a yearly pass.", light="A yearly pass costs cyclists {n4} euros.", hard="Whoever rides a bike across buys a ticket at {n4} euros that is good for twelve months.", negated="Cyclists do not pay for a yearly pass."),
        ),
        invented=("The bridge is painted green and lit at night.", "{p2} later wrote a memoir about the building works.", "A ferry still runs beside the bridge in summer.", "The steel came from a foundry in {p3}."),
    ),
    "company": Domain(
        facts=(
            Fact(source="{p1} Systems was founded in {n1} by {p2} in the city of {p3}.", light="In {n1}, {p2} founded {p1} Systems in {p3}.", hard="The firm goes back to {n1}, when {p2} set it up in {p3}.", negated="{p1} Systems was not founded by {p2}."),
            Fact(source="The company employs {n2} people in four countries.", light="It employs {n2} people across four countries.", hard="Its staff of {n2} is spread over four nations.", negated="The company does not employ people in four countries."),
            Fact(source="Revenue rose to {n3} million dollars last year.", light="Last year revenue rose to {n3} million dollars.", hard="Takings of {n3} million dollars were the most recent annual figure, up on the one before.", negated="Revenue did not rise last year.", opposite="Revenue fell to {n3} million dollars last year."),
            Fact(source="{p4} bought the storage division from {p5} for cash.", light="The storage division was bought from {p5} by {p4} for cash.", hard="{p5} parted with its storage arm, for which {p4} put money on the table.", negated="{p4} did not buy the storage division from {p5}.", swapped="{p5} bought the storage division from {p4} for cash."),
            Fact(source="The board approved a dividend of {n4} cents per share.", light="A dividend of {n4} cents per share was approved by the board.", hard="Holders get {n4} cents on each share, the directors agreed.", negated="The board did not approve a dividend.", opposite="The board rejected a dividend of {n4} cents per share."),
        ),
        invented=("The company plans to list its shares in London.", "{p2} owns a majority of the votes.", "Most customers are hospitals and universities.", "A lawsuit over patents was settled in secret."),
    ),
    "trial": Domain(
        facts=(
            Fact(source="The trial enrolled {n1} patients at a clinic in {p1}.", light="At a clinic in {p1} the trial enrolled {n1} patients.", hard="{n1} people took part, all of them treated in {p1}.", negated="The trial enrolled no patients in {p1}."),
            Fact(source="Doctor {p2} of the {p3} Institute led the study.", light="The study was led by Doctor {p2} of the {p3} Institute.", hard="In charge was {p2}, who works for the {p3} Institute.", negated="Doctor {p2} did not lead the study."),
            Fact(source="Blood pressure fell by {n2} points in the treated group.", light="In the treated group, blood pressure fell by {n2} points.", hard="Those given the drug saw readings lower by {n2} points.", negated="Blood pressure did not fall in the treated group.", opposite="Blood pressure rose by {n2} points in the treated group."),
            Fact(source="Side effects were seen in {n3} percent of patients.", light="Some {n3} percent of patients had side effects.", hard="Unwanted reactions turned up among {n3} percent of those treated.", negated="Side effects were not seen in patients."),
            Fact(source="The dose was {n4} milligrams, taken before meals.", light="Patients took a dose of {n4} milligrams before meals.", hard="One swallowed {n4} milligrams and only then sat down to eat.", negated="The dose was not taken before meals.", opposite="The dose was {n4} milligrams, taken after meals."),
        ),
        invented=("The drug also improved sleep in older patients.", "A second study in children is planned.", "{p2} has applied for a patent on the compound.", "Participants were paid for their travel."),
    ),
    "release": Domain(
        facts=(
            Fact(source="Version {n1} of {p1} was released by the {p2} team.", light="The {p2} team released version {n1} of {p1}.", hard="{p1} is now at {n1}, which the people of {p2} put out.", negated="Version {n1} of {p1} was not released by the {p2} team."),
            Fact(source="It requires at least {n2} gigabytes of memory.", light="At least {n2} gigabytes of memory are required.", hard="Machines with less than {n2} gigabytes of RAM cannot run it.", negated="It does not require {n2} gigabytes of memory."),
            Fact(source="Start-up time decreased by {n3} percent on older laptops.", light="On older laptops the start-up time decreased by {n3} percent.", hard="Ageing notebooks are ready {n3} percent sooner.", negated="Start-up time did not decrease on older laptops.", opposite="Start-up time increased by {n3} percent on older laptops."),
            Fact(source="{p3} reported the flaw, and {p4} fixed it.", light="The flaw was reported by {p3} and fixed by {p4}.", hard="It was {p4} who mended what {p3} had noticed.", negated="{p3} did not report the flaw.", swapped="{p4} reported the flaw, and {p3} fixed it."),
            Fact(source="Support for the old format ends after {n4} months.", light="After {n4} months, support for the old format ends.", hard="Files of the former kind are served for {n4} more months.", negated="Support for the old format does not end.", opposite="Support for the old format begins after {n4} months."),
        ),
        invented=("A dark theme can be chosen in the settings.", "The licence was changed to a permissive one.", "{p4} left the project soon afterwards.", "Translations exist for a dozen languages."),
    ),
}  # fmt: skip

TEST = {
    "match": Domain(
        facts=(
            Fact(source="{p1} United beat {p2} Rovers in front of {n1} spectators.", light="In front of {n1} spectators, {p1} United beat {p2} Rovers.", hard="A crowd of {n1} watched {p2} Rovers go down to {p1} United.", negated="{p1} United did not beat {p2} Rovers.", swapped="{p2} Rovers beat {p1} United in front of {n1} spectators.", opposite="{p1} United lost to {p2} Rovers in front of {n1} spectators."),
            Fact(source="Striker {p3} scored in minute {n2} from a free kick.", light="In minute {n2} striker {p3} scored from a free kick.", hard="The ball went in off {p3}'s boot, from a set piece on {n2} minutes.", negated="Striker {p3} did not score from a free kick."),
            Fact(source="The referee {p4} showed {n3} yellow cards.", light="{n3} yellow cards were shown by the referee {p4}.", hard="{p4}, who had the whistle, booked {n3} players.", negated="The referee {p4} showed no yellow cards."),
            Fact(source="The club sold {n4} season tickets this year, more than ever before.", light="This year the club sold more season tickets than ever before, {n4}.", hard="With {n4} of them gone, passes for all home games have never been so sought after.", negated="The club did not sell {n4} season tickets this year.", opposite="The club sold {n4} season tickets this year, fewer than ever before."),
        ),
        invented=("The coach praised the young goalkeeper afterwards.", "Rain had delayed the kick-off.", "{p3} is wanted by clubs abroad.", "The pitch had been renewed in the summer."),
    ),
    "festival": Domain(
        facts=(
            Fact(source="The {p1} Festival takes place every June in the park of {p2}.", light="Every June, the {p1} Festival takes place in {p2}'s park.", hard="People gather on the lawns of {p2} when {p1} comes round in early summer, in June.", negated="The {p1} Festival does not take place in {p2}."),
            Fact(source="A day ticket costs {n1} euros and children under {n2} enter free.", light="Day tickets cost {n1} euros, and children under {n2} are free.", hard="One gets in for {n1} euros; nothing is asked of those younger than {n2}.", negated="Children under {n2} do not enter free."),
            Fact(source="Singer {p3} opened the main stage with {n3} songs.", light="{p3}, the singer, opened the main stage with {n3} songs.", hard="It fell to {p3} to begin, {n3} pieces long.", negated="Singer {p3} did not open the main stage.", opposite="Singer {p3} closed the main stage with {n3} songs."),
            Fact(source="Attendance grew to {n4} visitors after two weak years.", light="After two weak years attendance grew to {n4} visitors.", hard="{n4} came, which ended a lean spell of two seasons.", negated="Attendance did not grow after two weak years.", opposite="Attendance shrank to {n4} visitors after two weak years."),
        ),
        invented=("Camping is possible on a field nearby.", "The food stalls were vegetarian for the first time.", "{p3} announced a new record on stage.", "Local hotels were fully booked."),
    ),
    "contract": Domain(
        facts=(
            Fact(source="The tenant {p1} pays {p2} a monthly rent of {n1} dollars.", light="Each month the tenant {p1} pays rent of {n1} dollars to {p2}.", hard="{n1} dollars go every month from {p1}, who lives there, to {p2}.", negated="The tenant {p1} does not pay {p2} rent.", swapped="The tenant {p2} pays {p1} a monthly rent of {n1} dollars."),
            Fact(source="Either party may end the lease with {n2} days of notice.", light="The lease may be ended by either party with {n2} days of notice.", hard="Both sides can get out of it if they say so {n2} days ahead.", negated="Neither party may end the lease with {n2} days of notice."),
            Fact(source="Pets are allowed in the garden flat on {p3} Street.", light="In the garden flat on {p3} Street, pets are allowed.", hard="One may keep a dog or a cat at the ground-floor home in {p3} Street.", negated="Pets are not allowed in the garden flat on {p3} Street.", opposite="Pets are forbidden in the garden flat on {p3} Street."),
            Fact(source="A deposit of {n3} dollars was paid at the start of the lease.", light="At the start of the lease a deposit of {n3} dollars was paid.", hard="{n3} dollars were handed over as security when they moved in.", negated="No deposit was paid at the start of the lease.", opposite="A deposit of {n3} dollars was paid at the end of the lease."),
        ),
        invented=("Parking behind the house is included.", "The kitchen was refitted by the owner.", "{p2} lives on the floor above.", "Smoking is tolerated on the balcony."),
    ),
    "species": Domain(
        facts=(
            Fact(source="The {p1} owl lives in the forests of {p2} at heights above {n1} metres.", light="In the forests of {p2}, the {p1} owl lives at heights above {n1} metres.", hard="One finds the {p1} kind in woodland of {p2}, {n1} metres up or higher.", negated="The {p1} owl does not live in the forests of {p2}.", opposite="The {p1} owl lives in the forests of {p2} at heights below {n1} metres."),
            Fact(source="Females lay {n2} eggs in hollow trees.", light="{n2} eggs are laid by females in hollow trees.", hard="A clutch has {n2}, hidden inside a dead trunk.", negated="Females do not lay eggs in hollow trees."),
            Fact(source="Biologist {p3} counted {n3} pairs in a survey.", light="In a survey, the biologist {p3} counted {n3} pairs.", hard="{p3} went out to look and came back with a figure of {n3} couples.", negated="Biologist {p3} did not count pairs in a survey."),
            Fact(source="The population has grown since logging was prohibited.", light="Since logging was prohibited, the population has grown.", hard="There are more of them now that no trees may be felled.", negated="The population has not grown since logging was prohibited.", opposite="The population has shrunk since logging was prohibited."),
        ),
        invented=("Its call can be heard from far away.", "Young birds are often taken by martens.", "{p3} has studied it for decades.", "The feathers were once used for hats."),
    ),
    "expedition": Domain(
        facts=(
            Fact(source="The ship {p1} left {p2} with {n1} sailors on board.", light="With {n1} sailors on board the ship {p1} left {p2}.", hard="{n1} hands sailed out of {p2} on the {p1}.", negated="The ship {p1} did not leave {p2}."),
            Fact(source="Captain {p3} reached the northern cape after {n2} days.", light="After {n2} days Captain {p3} reached the northern cape.", hard="It took {p3} {n2} days to get to the headland in the north.", negated="Captain {p3} never reached the northern cape.", opposite="Captain {p3} reached the southern cape after {n2} days."),
            Fact(source="The crew lost {n3} sledges in a storm.", light="{n3} sledges were lost by the crew in a storm.", hard="Foul weather took {n3} sleds from them.", negated="The crew did not lose sledges in a storm."),
            Fact(source="{p4} rescued {p5} from the ice.", light="From the ice, {p5} was rescued by {p4}.", hard="{p5} owed it to {p4} to have come off the floe alive.", negated="{p4} did not rescue {p5} from the ice.", swapped="{p5} rescued {p4} from the ice."),
        ),
        invented=("The diaries were sold at an auction.", "Dogs had been brought from Greenland.", "{p3} was knighted on his return.", "A monument stands in the harbour."),
    ),
    "school": Domain(
        facts=(
            Fact(source="The {p1} School has {n1} pupils and was renamed after {p2}.", light="Renamed after {p2}, the {p1} School has {n1} pupils.", hard="{n1} children go there; it now bears the name of {p2}.", negated="The {p1} School was not renamed after {p2}."),
            Fact(source="Classes begin at {n2} in the morning and lunch is free for all.", light="In the morning classes begin at {n2}, and lunch is free for all.", hard="The day starts at {n2}; nobody is charged for the midday meal.", negated="Lunch is not free for all."),
            Fact(source="Teacher {p3} won a prize of {n3} pounds for her lessons.", light="For her lessons the teacher {p3} won a prize of {n3} pounds.", hard="{n3} pounds went to {p3} in recognition of how she teaches.", negated="Teacher {p3} did not win a prize for her lessons.", opposite="Teacher {p3} lost a prize of {n3} pounds for her lessons."),
            Fact(source="The number of truants has fallen to {n4} this term.", light="This term the number of truants has fallen to {n4}.", hard="Only {n4} still skip lessons.", negated="The number of truants has not fallen this term.", opposite="The number of truants has risen to {n4} this term."),
        ),
        invented=("A new gym is being built behind the yard.", "Uniforms were given up long ago.", "{p3} also leads the choir.", "The library is open on Saturdays."),
    ),
}  # fmt: skip

_SYLLABLES = (
    "bar",
    "den",
    "fel",
    "gor",
    "hal",
    "jun",
    "kes",
    "lor",
    "mir",
    "nov",
    "orn",
    "pel",
    "quin",
    "ros",
    "sel",
    "tav",
    "ul",
    "ver",
    "win",
    "yar",
)
_FILLER = (
    "This overview was put together from public notices.",
    "Further details are kept in the archive.",
    "Readers who find a mistake are asked to write in.",
    "The figures were checked twice.",
)


def corpus(*, seed: int, domains: dict[str, Domain] | None = None, per_domain: int = 200) -> list[Example]:
    """Make documents with answers of three to four sentences each."""
    random = Random(seed)
    out = []
    for name, domain in (domains or TEST).items():
        for _ in range(per_domain):
            slots, numbers = _slots(random)
            document = [f.source.format(**slots) for f in domain.facts] + random.sample(_FILLER, 2)
            if random.random() < 0.5:
                random.shuffle(document)
            answer = []
            for fact in random.sample(domain.facts, min(len(domain.facts), random.randint(3, 4))):
                kind = random.choice((*SUPPORTED, *SUPPORTED, *UNSUPPORTED))
                answer.append(_sentence(random, kind, fact, domain, slots, numbers))
            out.append(
                Example(
                    domain=name,
                    document=" ".join(document),
                    sentences=tuple(s for s, _ in answer),
                    kinds=tuple(k for _, k in answer),
                )
            )
    return out


def _slots(random: Random) -> tuple[dict[str, str], list[str]]:
    names = {_name(random) for _ in range(12)}
    numbers = [str(n) for n in random.sample(range(11, 999), 8)]
    slots = {f"p{i + 1}": n for i, n in enumerate(sorted(names)[:5])}
    slots |= {f"n{i + 1}": n for i, n in enumerate(numbers[:4])}
    return slots, numbers


def _name(random: Random) -> str:
    return "".join(random.choices(_SYLLABLES, k=random.randint(2, 3))).capitalize()


def _sentence(
    random: Random, kind: str, fact: Fact, domain: Domain, slots: dict[str, str], numbers: list[str]
) -> tuple[str, str]:
    """Tell `fact` in the way of `kind`; where the fact does not go that way, as something made up."""
    mine = [k for k in slots if "{" + k + "}" in fact.light]
    counts, people = [k for k in mine if k[0] == "n"], [k for k in mine if k[0] == "p"]
    wording = random.choice((fact.source, fact.light))
    match kind:
        case "copy":
            return fact.source.format(**slots), kind
        case "light":
            return fact.light.format(**slots), kind
        case "hard paraphrase":
            return fact.hard.format(**slots), kind
        case "number" if counts:
            return wording.format(**{**slots, random.choice(counts): random.choice(numbers[4:])}), kind
        case "number of another fact" if counts and (other := [k for k in _counted(domain) if k not in mine]):
            return wording.format(**{**slots, random.choice(counts): slots[random.choice(other)]}), kind
        case "name" if people:
            return wording.format(**{**slots, random.choice(people): _name(random)}), kind
        case "negated":
            return fact.negated.format(**slots), kind
        case "opposite" if fact.opposite:
            return fact.opposite.format(**slots), kind
        case "names swapped" if fact.swapped:
            return fact.swapped.format(**slots), kind
    return random.choice(domain.invented).format(**slots), "invented"


def _counted(domain: Domain) -> list[str]:
    text = "".join(f.source for f in domain.facts)
    return [k for k in ("n1", "n2", "n3", "n4") if "{" + k + "}" in text]


# ----------------------------------------------------------------------------------------------------- stage 1

_TOPICS = (
    "the harbour of Lorsel",
    "heat pumps",
    "the Peltav treaty",
    "honey bees",
    "our leave policy",
    "tidal power",
    "the Kesgor family",
    "index funds",
)
NEEDS: dict[bool, dict[str, tuple[str, ...]]] = {
    True: {
        "question": ("When was {t} first described?", "Who is responsible for {t}?", "How many people work on {t}?", "Is {t} subject to a tax?"),
        "task": ("Summarise what is known of {t}.", "Explain {t} to a newcomer.", "List three facts about {t}.", "Compare {t} with its nearest rival."),
        "document": ("Context:\n{t} has two parts.\n\nAnswer from it: what are they?", "<document>{t} began small.</document> How did it begin?"),
        "indirect": ("I need to know the date on which {t} was settled.", "Could you check whether {t} still counts?", "Fill me in on {t}, please."),
        "held back, facts": ("I'd like the capital invested in {t}, in euros.", "{t}: year of foundation?", "Look up the legal status of {t} for me.", "Does anybody still maintain {t}", "Please state the main causes behind {t}.", "The population affected by {t} is how large?"),
    },
    False: {
        "fiction": ("Write a poem about {t}.", "Tell me a short story set near {t}.", "Make up a slogan for {t}.", "Compose a limerick on {t}"),
        "code": ("Write a Python function that sorts records of {t}.", "Fix this bug:\n```py\nprint(1)\n```", "Implement a class for {t} in Rust."),
        "chat": ("Hi there!", "Thanks, that helped with {t}.", "How are you today?", "What do you think of {t}?", "Good morning"),
        "editing": ("Make this sentence friendlier: we closed {t}.", "Rewrite in the past tense: {t} grows.", "Shorten this: {t} is what it is and will be."),
        "held back, none": ("Cheer me up with something about {t}.", "I want a bedtime tale, {t} should be in it.", "Turn this into bullet points: {t} came, {t} went.", "Ok, sounds good.", "Convert this loop to a list comprehension please, it is on {t}.", "Be my interviewer for a job at {t}."),
    },
}  # fmt: skip


def asked() -> list[tuple[str, str, str, bool]]:
    """Return requests as (family, template, text, whether facts are needed)."""
    return [
        (family, text, text.format(t=topic), needed)
        for needed, families in NEEDS.items()
        for family, texts in families.items()
        for text in texts
        for topic in _TOPICS
    ]


# ----------------------------------------------------------------------------------------------------- figures


Found = dict[tuple[str, str], list[int]]
"""(domain, kind) -> how many sentences were flagged, of how many."""


def flagged(examples: list[Example], bar: float) -> tuple[Found, list[float]]:
    """Judge all answers; return also the microseconds of each."""
    found: Found = {}
    took = []
    for example in examples:
        answer = " ".join(example.sentences)
        start = perf_counter()
        support = judged(answer, [example.document], bar=bar)
        took.append(1e6 * (perf_counter() - start))
        bad = {c.start for c in support.unsupported}
        at = 0
        for sentence, kind in zip(example.sentences, example.kinds, strict=True):
            row = found.setdefault((example.domain, kind), [0, 0])
            row[0] += at in bad
            row[1] += 1
            at += len(sentence) + 1
    return found, took


def by_overlap(examples: list[Example], bar: float) -> Found:
    """Flag what has less than `bar` of its words in the document: what a first attempt would do."""
    found: Found = {}
    for example in examples:
        document = set(re.findall(r"\w+", example.document.lower()))
        for sentence, kind in zip(example.sentences, example.kinds, strict=True):
            words = re.findall(r"\w+", sentence.lower())
            row = found.setdefault((example.domain, kind), [0, 0])
            row[0] += sum(w in document for w in words) < bar * len(words)
            row[1] += 1
    return found


def rate(found: Found, kinds: Sequence[str], *, seed: int) -> Share:
    """Share of sentences of `kinds` that were flagged; the interval is by resampling domains."""
    cells = [(domain, row[0], row[1]) for (domain, kind), row in found.items() if kind in kinds]
    return share([c[1] for c in cells], [c[0] for c in cells], of_QK=[c[2] for c in cells], seed=seed)


def precision(found: Found, *, seed: int, supported: Sequence[str] = SUPPORTED) -> Share:
    """Share of the flags that are right; the interval is by resampling domains."""
    cells = [(d, kind, row[0]) for (d, kind), row in found.items() if kind in (*supported, *UNSUPPORTED)]
    right = [n if kind in UNSUPPORTED else 0 for _, kind, n in cells]
    return share(right, [c[0] for c in cells], of_QK=[c[2] for c in cells], seed=seed)


def totals(found: Found) -> tuple[int, int, int, int]:
    """Return (caught, unsupported, false alarms, supported)."""
    good = [v for (_, k), v in found.items() if k in SUPPORTED]
    bad = [v for (_, k), v in found.items() if k in UNSUPPORTED]
    return sum(v[0] for v in bad), sum(v[1] for v in bad), sum(v[0] for v in good), sum(v[1] for v in good)


def f1(found: Found) -> float:
    """Return F1 of flagging what is unsupported."""
    caught, unsupported, false, _ = totals(found)
    return 2 * caught / (caught + false + unsupported) if caught else 0.0


def best_bar(examples: list[Example]) -> float:
    """Return the bar of the best F1, the middle one of equals."""
    scores = {b / 20: f1(flagged(examples, b / 20)[0]) for b in range(2, 19)}
    top = max(scores.values())
    return statistics.median_low([b for b, s in scores.items() if s >= top - 1e-9])


def measure(*, data: Path | None = None, seed: int = 0) -> Section:  # noqa: ARG001 - nothing recorded is needed
    """Measure all three stages on the held-out domains. `data` is not needed: everything is made here."""
    train = corpus(seed=seed, domains=TRAIN, per_domain=150)
    chosen = best_bar(train)
    test = corpus(seed=seed + 1)
    found, took = flagged(test, BAR)
    caught, unsupported, false, supported = totals(found)
    count = {k: sum(row[1] for (_, kind), row in found.items() if kind == k) for k in (*SUPPORTED, *UNSUPPORTED)}
    rows: list[tuple[str | float | int | None, ...]] = [
        (f"flagged: {k}", str(rate(found, [k], seed=seed)), n, "false alarm" if k in SUPPORTED else "caught")
        for k, n in count.items()
    ]
    good = rate(found, UNSUPPORTED, seed=seed)
    rows.append(("precision of a flag", str(precision(found, seed=seed)), caught + false, ""))
    rows.append(("recall of unsupported", str(good), unsupported, ""))
    plain = precision(found, seed=seed, supported=("copy", "light"))
    hard = sum(row[0] for (_, kind), row in found.items() if kind == "hard paraphrase")
    rows.append(("precision without hard paraphrases", str(plain), caught + false - hard, ""))
    one_in_ten = 0.1 * good.value / (0.1 * good.value + 0.9 * false / supported)
    rows.append(
        (
            "precision if one sentence in ten were unsupported",
            round(one_in_ten, 3),
            None,
            "by Bayes from the rates above",
        )
    )
    overlap = max((b / 20 for b in range(1, 20)), key=lambda b: (f1(by_overlap(train, b)), -b))
    plain_found = by_overlap(test, overlap)
    p_caught, _, p_false, _ = totals(plain_found)
    rows.append(
        (
            "baseline: share of words found, precision",
            str(precision(plain_found, seed=seed)),
            p_caught + p_false,
            f"bar {overlap:g}, chosen likewise",
        )
    )
    rows.append(
        (
            "baseline: share of words found, recall",
            str(rate(plain_found, UNSUPPORTED, seed=seed)),
            unsupported,
            f"F1 {f1(plain_found):.3f}; ours {f1(found):.3f}",
        )
    )
    always = unsupported / (unsupported + supported)
    rows.append(("baseline: flag every sentence, precision", round(always, 3), unsupported + supported, "recall 1"))
    for family in dict.fromkeys(f for f, *_ in asked()):
        own = [(template, text, need) for f, template, text, need in asked() if f == family]
        hits = [needs_facts(Query.ask(text)).facts == need for _, text, need in own]
        right = share(hits, [template for template, *_ in own], seed=seed)
        rows.append((f"stage 1 right: {family}", str(right), len(own), "needs facts" if own[0][2] else "needs none"))
    given = [(made, f"Context: it began in 1978.\n\n{t}") for f, made, t, _ in asked() if f == "held back, facts"]
    right = share([needs_facts(Query.ask(t)).facts for _, t in given], [made for made, _ in given], seed=seed)
    rows.append(("stage 1 right: held back, facts, with a document", str(right), len(given), "needs facts"))
    start = perf_counter()
    queries = [Query(id="q", messages=(Message(role="user", content=t),)) for _, _, t, _ in asked()]
    first = [needs_facts(q).facts for q in queries]
    sentinel = 1e6 * (perf_counter() - start) / len(queries)
    detector = statistics.median(took)
    rows.append(("C_sent: stage 1, us a request", round(sentinel, 1), len(queries), ""))
    rows.append(
        (
            "C_det: stages 2 and 3, us an answer, median",
            round(detector, 1),
            len(took),
            "0.4 kB of sources, 0.2 kB of answer",
        )
    )
    asks = sum(first) / len(first)
    rows.append(
        (
            "E[cost] = C_sent + p C_det, us",
            round(sentinel + asks * detector, 1),
            None,
            f"at p = {asks:.2f} of these requests",
        )
    )
    precise, plainly = precision(found, seed=seed).value, rate(found, ("copy", "light"), seed=seed).value
    return Section(
        name="hallucination",
        setting=(
            f"{len(test)} made-up documents with answers, {unsupported + supported} sentences, in {len(TEST)} domains that nothing was chosen on; bar {BAR} (the best on"
            f" {len(TRAIN)} other domains: {chosen}); intervals: 95%, by resampling domains, of stage 1 templates; seed {seed}; requests of stage 1: {len(queries)}, templates"
            " but for those held back in sight when the marks were written"
        ),
        columns=("what", "share or figure", "n", "note"),
        rows=tuple(rows),
        marks={
            "recall of unsupported sentences is at least 0.75": good.value >= 0.75,
            "F1 beats plain overlap of words by 0.1": f1(found) >= f1(plain_found) + 0.1,
            "precision beats flagging everything by 0.2": precise >= always + 0.2,
            "copies and light rewordings raise less than 5% false alarms": plainly < 0.05,
            "the bar in use is within 0.1 of the best on the training domains": abs(chosen - BAR) <= 0.1 + 1e-9,
        },
        notes=(
            "Stage 1 misses most factual requests that are worded as none; it matters where there is something to check against: there the document alone decides.",
            "Lexical support is not truth: hard paraphrases raise false alarms, and names that change places are not seen.",
            "A model of entailment (scorer nli) is asked about flagged sentences only; no weights were at hand to measure one.",
        ),
    )
