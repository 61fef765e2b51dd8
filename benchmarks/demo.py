"""The demo over several seeds: does the learning router reach its mark, or did one seed flatter it?

    python benchmarks/demo.py [--seeds 7 1 2 3 4] [--json] [--check]

Each seed draws other prompts (of the test split, which no model was trained on) and starts with nothing learned. The mark, per run: the
last third reaches 97% of the strongest model's accuracy on the same prompts at 60% of its cost or less, or is more accurate. The
demo's one free setting, what a dollar is worth, was chosen on prompts of the development split.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from typing import Any


def run(seed: int) -> dict[str, Any]:
    """Run the demo once; return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fairlead.cli", "demo", "--json", "--seed", str(seed), "--folder", folder]
        return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def main() -> int:
    """Print a line a seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 1, 2, 3, 4])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail if a run misses the mark")
    args = parser.parse_args()
    found = {seed: run(seed) for seed in args.seeds}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        print("seed   first third   last third   strongest there   share of its accuracy   of its cost   mark")
        for seed, figures in found.items():
            rows = {(r["name"].split(" (")[0], r["prompts"]): r["accuracy"] for r in figures["rows"]}
            mark = figures["mark"]
            print(
                f"{seed:>4}{rows['learning router', 'first third']:>14.1%}{rows['learning router', 'last third']:>13.1%}"
                f"{rows['always strongest', 'last third']:>18.1%}{mark['accuracy_share_of_strongest']:>24.1%}"
                f"{mark['cost_share_of_strongest']:>14.0%}   {'met' if mark['met'] else 'MISSED'}"
            )
    return 1 if args.check and not all(f["mark"]["met"] for f in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
