"""The command line. A verb is a file: its first docstring line is its help, its `add_parser` registers it and sets `func`.

Only the verb that was asked for is imported, so `fairlead --help` is quick and every verb needs just what it uses. `func` takes the
parsed arguments and returns the exit code. What is raised on purpose (`FairleadError`) is printed without a traceback: exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.resources import files

from fairlead.errors import FairleadError
from fairlead.version import VERSION


def verbs() -> dict[str, str]:
    """Return each verb with its help, read off the files of this folder without importing them."""
    found = {}
    for file in files(__package__).iterdir():
        name = file.name.removesuffix(".py")
        if name != file.name and not name.startswith("_"):
            with file.open("r", encoding="utf-8") as lines:
                line = lines.readline().strip().strip('"')
            found[name.replace("_", "-")] = re.sub(r"^`+[^`]*`+:\s*", "", line).rstrip(".")
    return dict(sorted(found.items()))


def parser(wanted: str | None) -> argparse.ArgumentParser:
    """Make the parser; of the verbs only `wanted` is imported."""
    top = argparse.ArgumentParser(
        prog="fairlead",
        description="Routes each LLM request to the right model, learns from the outcome, and proves why.",
        epilog="`fairlead VERB --help` tells more. Start with `fairlead demo` (no key needed) or `fairlead init`.",
    )
    top.add_argument("--version", action="version", version=f"fairlead {VERSION}")
    subparsers = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, text in verbs().items():
        if name == wanted:
            importlib.import_module(f"{__package__}.{name.replace('-', '_')}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    # Matrices here are small: more than one thread each only fight over the cores. Read when numpy is first imported.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    arguments = sys.argv[1:] if argv is None else list(argv)
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    try:
        args = parser(wanted).parse_args(arguments)
        code: int = args.func(args)
    except FairleadError as e:
        print(f"fairlead: {e}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as e:
        if (e.name or "fairlead").startswith("fairlead"):
            raise
        print(f"fairlead: this needs the package {e.name}: pip install 'fairlead[demo]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left (`| head`): the rest must not be flushed into a closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
