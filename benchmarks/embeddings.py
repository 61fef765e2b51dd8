"""What does a sentence encoder bring to a predictor, and what does it cost? The table of docs/guides/embeddings.md.

    FAIRLEAD_DATA=… python benchmarks/embeddings.py --model minilm.onnx --tokenizer tokenizer.json [--predictor forest] [--queries 1800] [--json]

Five folds, equal prompts in one fold; AIQ above random mixing of targets with its 95% interval, for four sets of
features, on both tables of `benchmarks/routing.py` (of the larger one a sample: embedding all of it takes minutes).
Reported, not judged.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import process_time

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead.bench.evaluate import Entrant, evaluate, priced
from fairlead.bench.report import report
from fairlead.cli.bench import read_prices
from fairlead.embeddings.base import Embedder
from fairlead.embeddings.onnx import Onnx
from fairlead.signals.base import Observer
from fairlead.signals.embedding import Embedding
from fairlead.table import OutcomeTable
from fairlead.testing import observer_of

STYLE = ("length", "marks")
FEATURES = {
    "hashing, length, marks": ("embedding", *STYLE),
    "encoder, length, marks": ("encoder", *STYLE),
    "default": ("ngrams", "style", *STYLE),
    "default and encoder": ("ngrams", "style", "encoder", *STYLE),
}


class Timed(Embedder):
    """Embeds each text once, and adds up the CPU seconds."""

    def __init__(self, *, inner: Embedder) -> None:
        self.inner = inner
        self.texts: dict[str, NDArray[np.float32]] = {}
        self.seconds = 0.0

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self.inner.size

    def _embed(self, text: str) -> NDArray[np.float32]:
        """Make the vector of `text`."""
        if text not in self.texts:
            start = process_time()
            self.texts[text] = self.inner.embed(text)
            self.seconds += process_time() - start
        return self.texts[text]


def main() -> int:
    """Embed, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FAIRLEAD_DATA"), help="default: $FAIRLEAD_DATA")
    parser.add_argument("--model", required=True, help="ONNX file of a sentence encoder")
    parser.add_argument("--tokenizer", required=True, help="its tokenizer.json")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--predictor", default="forest")
    parser.add_argument("--queries", type=int, default=1800, help="at most so many of each table")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.data:
        print("embeddings.py: set FAIRLEAD_DATA to the folder that holds outcomes/ and reference/", file=sys.stderr)
        return 2
    data = Path(args.data)
    encoder = Timed(inner=Onnx(model=args.model, tokenizer=args.tokenizer, max_tokens=args.max_tokens))
    known = observer_of(("ngrams", "style", "embedding", *STYLE)).signals
    observer = Observer(signals={**known, "encoder": Embedding(embedder=encoder)})
    encoder.inner.embed("warm up")
    out = []
    for name in ("rational_cascades_train", "llmrouter_multitask_train"):
        table = OutcomeTable.read(data / "outcomes" / f"{name}.parquet")
        if name == "llmrouter_multitask_train":
            table = priced(table, read_prices(str(data / "reference" / "model_prices.csv")))
        if len(table) > args.queries:
            table = table.take(np.sort(np.random.default_rng(args.seed).permutation(len(table))[: args.queries]))
        encoder.texts.clear()
        encoder.seconds = 0.0
        entrants = [
            Entrant(name=n, spec={"type": args.predictor, "features": {"signals": list(s)}})
            for n, s in FEATURES.items()
        ]
        found = report(
            evaluate(table, routers=entrants, split="5-fold", seed=args.seed, observer=observer),
            resamples=args.resamples,
        )
        cost = 1e3 * encoder.seconds / max(1, len(encoder.texts))
        rows = {r.name: r.aiq_over_mix for r in found.rows if r.name in FEATURES}
        judged = {r.name: r.as_judged for r in found.rows if r.name in FEATURES}
        out.append(
            {
                "table": name,
                "queries": len(table),
                "cpu_ms_per_text": round(cost, 2),
                "aiq_over_mix": rows,
                "as_judged": judged,
            }
        )
        if not args.json:
            print(f"{name}, {len(table)} queries; encoder: {cost:.1f} CPU ms per text")
            for n, interval in rows.items():
                hull = judged[n]
                print(f"  {n:24} AIQ over the mix {interval}" + (f", as judged {hull.aiq.value:.4f}" if hull else ""))
            print()
    if args.json:
        print(msgspec.json.encode(out).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
