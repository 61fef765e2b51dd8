"""``fairlead init``: write a first config from what is within reach, or from a LiteLLM config."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import yaml

from fairlead import config, discover, import_litellm, profiles
from fairlead.discover import ROUTE, Found
from fairlead.errors import ConfigError
from fairlead.import_litellm import Imported, Route
from fairlead.types import Profile, Tokens


def add_parser(subparsers: Any) -> None:
    """Add this verb."""
    parser = subparsers.add_parser(
        "init",
        help="write a first config from the keys and model servers found here",
        description="Write a commented config: targets for the keys in the environment and the model servers on this machine, "
        "or else the tiny models that ship with Fairlead.",
    )
    parser.add_argument("-o", "--output", default="fairlead.yaml", help="the file to write (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite the file if it is there")
    parser.add_argument("--from-litellm", metavar="FILE", help="take the targets from a LiteLLM proxy config")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the config; 1 if it is there already, nothing can be read, or what would be written does not load."""
    output = Path(args.output)
    if args.from_litellm:
        try:
            taken = import_litellm.read(args.from_litellm)
        except ConfigError as e:
            print(f"fairlead init: {e}", file=sys.stderr)
            return 1
        if not taken.targets:
            print("fairlead init: no model of that file can be taken over:", *taken.notes, sep="\n  ", file=sys.stderr)
            return 1
    else:
        taken = Imported(targets=discover.find(), notes=[])
    found = taken.targets
    text = render(found, taken.notes, taken.routes, keeps_text=taken.keeps_text)
    try:
        config.make(config.parse(text), folder=output.parent)
    except ConfigError as e:
        print(f"fairlead init: the config would not load, so it was not written: {e}", file=sys.stderr)
        return 1
    try:
        with output.open("w" if args.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"fairlead init: {output} is there already; use --force or -o another file", file=sys.stderr)
        return 1
    except OSError as e:
        print(f"fairlead init: cannot write {output}: {e.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {output} with {len(found)} target{'s' if len(found) != 1 else ''}:")
    for f in found:
        print(f"  {f.name:24} {f.model} ({f.source})")
    if taken.routes:
        print(f"and routes beside {ROUTE}:")
    for r in taken.routes:
        print(f"  {r.name:24} {', '.join(r.shares)} ({r.source})")
    for note in [*taken.notes, *_unpriced(found)]:
        print(f"note: {note}")
    print(f"next: fairlead serve {output}" if str(output) != "fairlead.yaml" else "next: fairlead serve")
    return 0


def render(
    found: Sequence[Found], notes: Sequence[str] = (), routes: Sequence[Route] = (), *, keeps_text: bool = True
) -> str:
    """Return the config's text: `found` behind one route that learns, and `routes` over some of them."""
    lines = [
        "# A Fairlead config, written by `fairlead init`. Keys are constructor arguments; an unknown key is an error.",
        "# Secrets are written as ${NAME} and read from the environment when the gateway starts.",
        "",
        *(f"# Note: {' '.join(note.split())}" for note in notes),
        *([""] if notes else []),
        "# Who can act. Model names and prices (USD per million tokens) age: check them against the provider's page.",
        *(f"# {note[0].upper()}{note[1:]}" for note in _unpriced(found)),
        "targets:",
    ]
    for f in found:
        lines.append(f"  {_quote(f.name)}:  # {_line(f.source)}")
        lines.append(f"    type: {f.type}")
        lines.append(f"    model: {_quote(f.model)}")
        if f.mode is not None:
            lines.append(f"    mode: {_quote(f.mode)}")
        if f.base_url is not None:
            lines.append(f"    base_url: {_quote(f.base_url)}")
        if f.key is not None:
            lines.append(f"    api_key: {_quote('${' + f.key + '}')}")
        lines += [f"    {key}: {_quote(v) if isinstance(v, str) else _plain(v)}" for key, v in f.options.items()]
        profile = msgspec.to_builtins(f.profile, order="deterministic")
        if profile:
            inner = ", ".join(f"{k}: {json.dumps(v)}" for k, v in profile.items())
            lines.append(f"    profile: {{{inner}}}")
        if not profile and not _priced(f):
            lines.append("    # profile: {input_usd_per_mtok: 0.0, output_usd_per_mtok: 0.0}")
    lines += [
        "",
        "# What a client may ask for as `model`. A target's own name works too.",
        "routes:",
        f"  {ROUTE}:",
        "    policy:",
        "      type: thompson  # learns from feedback which target answers which queries well",
        f"      # What is to be maximised: quality minus usd_weight times USD. {_weight(found)[1]}",
    ]
    if (unknown := _unknown(found)) is None:
        lines.append(f"      objective: {{usd_weight: {_weight(found)[0]}}}")
    else:
        lines.append(f"      # Where USD are not known, `unknown` is taken off instead: {unknown[1]}.")
        lines.append(f"      objective: {{usd_weight: {_weight(found)[0]}, unknown: {_plain(unknown[0])}}}")
    for r in routes:
        names = [_quote(name) for name in r.shares]
        even = set(r.shares.values()) == {1.0}
        weights = ", ".join(f"{name}: {_plain(share)}" for name, share in zip(names, r.shares.values(), strict=True))
        lines += [
            f"  {_quote(r.name)}:  # {_line(r.source)}",
            f"    policy: {{type: random{'' if even else f', weights: {{{weights}}}'}}}  # when one fails, the next takes over",
            f"    guards: [{{name: deployments, only: [{', '.join(names)}]}}]  # nobody else acts on this route",
        ]
    most = max((len(r.shares) for r in routes), default=0) - 1
    if most > 2:  # as many as a file that does not say
        lines += ["", f"fallbacks: {most}  # how many others take over at most"]
    lines += [
        "",
        "store: {path: fairlead.sqlite" + ("}" if keeps_text else ", text: false}  # prompts and answers are blanked"),
        "",
        "gateway:",
        "  host: 127.0.0.1",
        "  port: 4356",
    ]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """Write what a comment may hold: a name may have an end of line, after which the rest would not be one."""
    return "".join(c if c.isprintable() else " " for c in text)


def _known(f: Found) -> Profile:
    """Return what is known of a target: what its entry says, over what the catalogue does."""
    spec = {"type": f.type, "model": f.model, "base_url": f.base_url, **f.options}
    said = profiles.filled({**spec, "profile": msgspec.to_builtins(f.profile)}, profiles.shipped())
    return msgspec.convert(said["profile"], Profile, strict=False)


def _priced(f: Found) -> bool:
    return f.type == "local" or profiles.priced(_known(f))


def _unknown(found: Sequence[Found]) -> tuple[float, str] | None:
    """Return (what to take off the utility of an answer of unknown price, what that is); None if all prices are known.

    As much as a typical answer of the dearest target costs, so that nobody is preferred for want of a price.
    """
    if all(_priced(f) for f in found):
        return None
    usd, name = max((_typical_usd(_known(f)), f.name) for f in found)
    said = f"what 1,000 tokens in and 500 out cost at {name}, the dearest that has a price"
    if not usd:
        usd, said = 0.01, "one cent, as no target here has a price above 0"
    return round(_weight(found)[0] * usd, 6), said


def _typical_usd(profile: Profile) -> float:
    """Return the price of 1,000 tokens in and 500 out; 0 where it is not known."""
    return profile.usd(Tokens(input=1000, output=500)) or 0.0


def _unpriced(found: Sequence[Found]) -> list[str]:
    """Say of which targets no price is known, and what that does."""
    names = [f.name for f in found if not _priced(f)]
    unknown = _unknown(found)
    if unknown is None:
        return []
    return [
        f"no price is known for {', '.join(names)}: the route {ROUTE} takes {_plain(unknown[0])} off the utility of such an answer (`unknown` of its "
        f"objective: {unknown[1]}), and whoever pays from a budget is never sent there. Write prices into the profile (0.0 if there is none to pay)"
    ]


def _weight(found: Sequence[Found]) -> tuple[int, str]:
    """Return (a weight for the price of an answer, what it means): the laboratory's answers cost a thousandth of real ones."""
    if all(f.type == "local" for f in found):
        return 13000, "13000: 0.0000077 USD is worth a tenth of full quality (the tiny models are cheap)."
    return 10, "10: one cent is worth a tenth of full quality."


def _quote(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", text) is not None and yaml.safe_load(text) == text
    # YAML ends lines at more than JSON escapes.
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _plain(number: float) -> str:
    """Write a number without an exponent, which YAML would take for a text."""
    return format(Decimal(repr(number)).normalize(), "f")
