"""``fairlead train-signal``: teach a signal by labelled examples and keep it in a folder."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fairlead.errors import ConfigError, TableError, suggest

if TYPE_CHECKING:
    from fairlead.signals.trained import Trained

HELD_OUT = 5
"""One example in so many is held out to judge by."""


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "train-signal",
        help="teach a signal by labelled examples",
        description="Teach a signal that learns, such as `domain`, by labelled examples, judge it on a fifth that it has not seen, teach it "
        "by all of them and write it to a folder that the config then names: `signals: {domain: {trained: DIR}}`.",
    )
    add = parser.add_argument
    add("signal", metavar="SIGNAL", help="its name, or YAML: '{type: domain, refuse: 0.05}', '{trained: DIR}'")
    add(
        "examples",
        metavar="EXAMPLES",
        help="table (.jsonl, .csv, .parquet): a text and its label a row, or an outcome table; the label `none` means none of the others",
    )
    add("--text", metavar="COLUMN", help="the column of the text (default: text, else prompt)")
    add("--label", default="label", metavar="COLUMN", help="the column of the label (default: %(default)s)")
    add("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="an argument of the signal")
    add(
        "--recalibrate",
        action="store_true",
        help="only set the threshold of a signal that was taught before, by texts that it should accept; they need no label",
    )
    add("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    add("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Teach, judge and save."""
    from fairlead.component import pack

    signal = _signal(args.signal, args.settings)
    start = perf_counter()
    if args.recalibrate:
        if not signal.fitted:
            raise ConfigError("--recalibrate takes a signal that was taught: write '{trained: DIR}'", path="SIGNAL")
        texts = _texts(_columns(args.examples), args.text)
        signal.recalibrate([text for text in dict.fromkeys(texts) if text])
        told: dict[str, Any] = {"texts": len(set(texts) - {""})}
    else:
        examples, told = _examples(args.examples, text=args.text, label=args.label)
        told["held_out"] = _judged(signal, examples)
        signal.fit([text for text, _ in examples], [label for _, label in examples])
    told = {"signal": signal.type_name(), **told, **signal.figures()}
    packed = pack([signal.spec(), signal.state()])
    told |= {"bytes": len(packed), "digest": signal.digest(), "seconds": round(perf_counter() - start, 1)}
    _save(Path(args.output), packed, signal, told)
    print(json.dumps(told, indent=2) if args.json else _shown(told, args.output))
    return 0


def _signal(written: str, settings: list[str]) -> Trained:
    import yaml

    from fairlead.build import build
    from fairlead.cli.train import settings as read_settings
    from fairlead.signals.trained import Trained

    try:
        spec = yaml.safe_load(written)
    except yaml.YAMLError as e:
        raise ConfigError(f"{written!r} is neither a name nor YAML", path="SIGNAL") from e
    if settings:
        spec = {**({"type": spec} if isinstance(spec, str) else spec), **read_settings(settings)}
    signal = build("signals", spec, path="SIGNAL")
    if not isinstance(signal, Trained):
        raise ConfigError(
            f"{signal.type_name()} learns nothing from examples; it serves as it is configured", path="SIGNAL"
        )
    return signal


def _columns(path: str) -> dict[str, list[Any]]:
    from fairlead.table import read_columns

    return {name: list(values) for name, values in read_columns(path).items()}


def _texts(columns: dict[str, list[Any]], name: str | None) -> list[str]:
    return [
        str(value or "").strip()
        for value in _column(columns, name or ("text" if "text" in columns else "prompt"), "--text")
    ]


def _column(columns: dict[str, list[Any]], name: str, option: str) -> list[Any]:
    if name not in columns:
        raise TableError(f"there is no column {name!r}; {suggest(name, columns)}: say which with {option}")
    return columns[name]


def _examples(path: str, *, text: str | None, label: str) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return different (text, label) pairs, and how many there are of each label; rows that say nothing are left out and counted."""
    columns = _columns(path)
    pairs: dict[str, str] = {}
    unlabelled, torn = 0, set()
    for said, name in zip(_texts(columns, text), _column(columns, label, "--label"), strict=True):
        named = "" if name is None or name != name else str(name).strip()
        if not said or not named:
            unlabelled += 1
        elif pairs.setdefault(said, named) != named:
            torn.add(said)
    examples = [(said, named) for said, named in pairs.items() if said not in torn]
    counts = dict(sorted(Counter(named for _, named in examples).items()))
    return examples, {
        "examples": len(examples),
        "labels": counts,
        "without_label": unlabelled,
        "of_two_labels": len(torn),
    }


def _judged(signal: Trained, examples: Sequence[tuple[str, str]]) -> dict[str, float | int]:
    """Teach a copy by four fifths and judge it on the rest, every label alike."""
    from fairlead.signals.trained import NONE
    from fairlead.types import Query

    seen: Counter[str] = Counter()
    held: list[tuple[str, str]] = []
    rest: list[tuple[str, str]] = []
    # Equal texts but for case and spaces stay together: judged by their first.
    first: dict[str, bool] = {}
    for said, named in sorted(examples, key=lambda pair: _shuffled(pair[0])):
        plain = " ".join(said.lower().split())
        if plain not in first:
            seen[named] += 1
            first[plain] = seen[named] % HELD_OUT == 0
        (held if first[plain] else rest).append((said, named))
    copy = signal.copy()
    copy.fit([text for text, _ in rest], [label for _, label in rest])
    said_of = [(copy.read(Query.ask(text, id="held-out")).value, label) for text, label in held]
    inside = [(value, label) for value, label in said_of if label != NONE]
    outside = [value for value, label in said_of if label == NONE]
    answered = [(value, label) for value, label in inside if value is not None]
    out: dict[str, float | int] = {"examples": len(held), "right": _share(v == n for v, n in inside)}
    out |= {"refused": _share(v is None for v, _ in inside), "right_of_answered": _share(v == n for v, n in answered)}
    return out | ({"refused_of_none": _share(v is None for v in outside)} if outside else {})


def _shuffled(text: str) -> str:
    from fairlead.component import digest

    return digest(text.encode("utf-8", "surrogatepass"))


def _share(which: Any) -> float:
    found = list(which)
    return round(sum(found) / len(found), 4) if found else 0.0


def _save(folder: Path, packed: bytes, signal: Trained, told: dict[str, Any]) -> None:
    from fairlead.build import TRAINED
    from fairlead.version import VERSION

    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINED["signals"][0]).write_bytes(packed)
    manifest = {"fairlead": VERSION, "spec": signal.spec(), **told}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _shown(told: dict[str, Any], output: str) -> str:
    name = told["signal"]
    lines = []
    if "texts" in told:
        lines.append(f"{name} calibrated by {told['texts']:,} texts")
    else:
        labels = ", ".join(f"{label} {n:,}" for label, n in told["labels"].items())
        lines.append(f"{name} taught by {told['examples']:,} examples ({labels}) in {told['seconds']} s")
        for key, why in (("without_label", "have no text or no label"), ("of_two_labels", "have two labels")):
            if told[key]:
                lines.append(f"left out: {told[key]:,} that {why}")
        held = told["held_out"]
        lines.append(
            f"on {held['examples']:,} that it had not seen: {held['right']:.1%} right, {held['refused']:.1%} refused; of those answered "
            f"{held['right_of_answered']:.1%} right"
        )
        if "refused_of_none" in held:
            lines.append(f"of those that are none of the domains {held['refused_of_none']:.1%} refused")
    if "threshold" in told:
        lines.append(
            f"threshold {told['threshold']:.4g}: at most {told['refuse']:.0%} of queries like the examples are to be refused"
        )
    lines.append(
        f"{told['bytes'] / 1e6:.1f} MB written to {output}; serve it: signals: {{{name}: {{trained: {output}}}}}"
    )
    return "\n".join(lines)
