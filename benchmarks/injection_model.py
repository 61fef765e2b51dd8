"""Generates the corpus of injections and look-alikes and trains the weights that ship in `src/fairlead/detect/injection.npz`.

    python benchmarks/injection_model.py            trains, writes the file, says how it does on what it learned from
    python benchmarks/injection_model.py --check    trains and fails if the file that is there is another one

The same seed gives the same file, byte for byte (on one machine; another processor may round a last bit otherwise). Some ten seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from corpora.injection import Example, corpus
from fairlead.detect.injection import Model, fit
from fairlead.embeddings.hashing import Hashing
from fairlead.signals.injection import ATTACKS, HARMLESS

FILE = Path(__file__).parents[1] / "src" / "fairlead" / "detect" / "injection.npz"


def train(*, seed: int) -> Model:
    """Train on the split `train`, weigh the evidence on `calibration`."""
    examples = corpus(seed=seed)

    def of(split: str) -> tuple[list[str], list[bool]]:
        found: list[Example] = [e for e in examples if e.split == split]
        return [e.text for e in found], [e.attack for e in found]

    return fit(*of("train"), calibration=of("calibration"), embedder=Hashing(), attacks=ATTACKS, harmless=HARMLESS)


def main() -> int:
    """Train, then write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the shipped file differs")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = train(seed=args.seed)
    weight_V, mix_F = model.weight_V.astype(np.float16), model.mix_F.astype(np.float32)
    same = None
    if args.check:
        with np.load(FILE) as there:
            same = all(np.allclose(there[k], v, atol=1e-2) for k, v in (("weight_V", weight_V), ("mix_F", mix_F)))
    else:
        np.savez_compressed(FILE, weight_V=weight_V, mix_F=mix_F)
    report: dict[str, object] = {
        "seed": args.seed,
        "bytes": FILE.stat().st_size,
        "mix": [round(float(w), 3) for w in mix_F.tolist()],
    }
    if same is not None:
        report["same"] = same
    print(json.dumps(report) if args.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    return 0 if same is not False else 1


if __name__ == "__main__":
    sys.exit(main())
