"""`fairlead demo`: the main job, with real models and no key.

Starts the gateway over the embedded pool in a process of its own, sends prompts through it with the official OpenAI client (every
second one streamed), judges each answer by the task's exact solution, and sends the judgement back. Then it asks every model every
prompt by itself, for the baselines, and shows both: table, plot, one decision explained, and the chain of traces verified.

The router is given nothing but the judgement of the answer that it chose.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POLICY = """\
      # Linear Thompson sampling over hand features of the prompt. It starts with no opinion and learns from feedback alone.
      type: thompson
      objective: {usd_weight: 13000}   # a millionth of a dollar weighs as much as 1.3% of the answers being right
"""

CONFIG = """\
# Written by `fairlead demo`. Five tiny real language models, one of them asked in two ways, and a router that learns.
targets:
{targets}
signals:
  conversation: {{}}
routes:
  auto:
    policy:
{policy}
learning: {{batch: 16, seconds: 0.2}}
store: {{path: {store}}}
gateway: {{host: 127.0.0.1, port: {port}, strongest: lab-large}}
"""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the router, judged."""

    id: str
    target: str
    quality: float
    usd: float
    seconds: float


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the verb."""
    parser = subparsers.add_parser("demo", help="the main job, with the embedded models: ask, judge, learn, show")
    parser.add_argument("--prompts", type=int, default=900, help="how many prompts to send (default: 900)")
    parser.add_argument("--seed", type=int, default=7, help="which prompts (default: 7)")
    parser.add_argument("--folder", type=Path, default=Path("run/demo"), help="where config, traces and plot go")
    parser.add_argument("--serve", action="store_true", help="leave the gateway running until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail if the router's last third misses its mark")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    folder: Path = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("traces.sqlite*"):
        old.unlink()
    port = _free_port(4356)
    config = folder / "fairlead.yaml"
    config.write_text(_config(Path("traces.sqlite"), port), "utf-8")
    address = f"http://127.0.0.1:{port}"
    with _gateway(config, address, folder / "gateway.log") as process:
        _say(args, f"gateway on {address} (config: {config})")
        answers = asyncio.run(_ask_all(address, args.prompts, args.seed, quiet=args.json))
        explained = _explain(address, args.prompts, args.seed)
        table = _baselines(args.prompts, args.seed, quiet=args.json)
        figures = _figures(answers, table)
        plot = folder / "cost_quality.png"
        _plot(figures, plot)
        figures["traces"] = _verify(folder / "traces.sqlite")
        if args.json:
            print(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode())
        else:
            print(_table(figures))
            print(explained)
            print(f"{figures['traces']} traces, each chained to the one before: verified.")
            print(f"plot: {plot}")
            print(f"the page: {address}/" if args.serve else "`make serve` runs the demo and leaves its page open")
        if args.serve:
            print("Ctrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    passed = bool(figures["mark"]["met"])
    return 0 if passed or not args.check else 1


# ------------------------------------------------------------------------------------------------------ the gateway


def _config(store: Path, port: int) -> str:
    from fairlead.lab.pool import TARGETS

    lines = []
    for t in TARGETS:
        mode = "" if t.mode == "direct" else f", mode: {t.mode}"
        lines.append(f"  {t.name}: {{type: local, model: {t.model}{mode}}}")
    return CONFIG.format(targets="\n".join(lines), policy=POLICY.rstrip(), store=store, port=port)


@contextlib.contextmanager
def _gateway(config: Path, address: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        command = [sys.executable, "-m", "fairlead.cli", "serve", str(config)]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            for _ in range(300):
                if process.poll() is not None:
                    raise SystemExit(f"the gateway did not start:\n{log.read_text('utf-8', 'replace')}")
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/readyz", timeout=1):
                    break
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port(wish: int) -> int:
    for port in (wish, 0):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return int(s.getsockname()[1])
    raise SystemExit("no free port on 127.0.0.1")


# ------------------------------------------------------------------------------------------------- asking and judging


async def _ask_all(address: str, n: int, seed: int, *, quiet: bool) -> list[Answer]:
    import aiohttp
    from openai import AsyncOpenAI
    from tqdm import tqdm

    from fairlead.lab.tasks import check, draw

    answers: list[Answer] = []
    client = AsyncOpenAI(base_url=f"{address}/v1", api_key="none-needed-on-loopback", max_retries=0, timeout=30)
    async with client, aiohttp.ClientSession(address) as session:
        bar = tqdm(draw(n, seed, split="test"), desc="asking the router", unit="prompt", disable=quiet)
        right = 0.0
        for i, example in enumerate(bar):
            messages: Any = [{"role": "user", "content": example.prompt}]
            start = time.perf_counter()
            if i % 2:
                text = ""
                stream = await client.chat.completions.create(
                    model="auto", messages=messages, temperature=0, stream=True
                )
                async for chunk in stream:
                    id = chunk.id
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            else:
                reply = await client.chat.completions.create(model="auto", messages=messages, temperature=0)
                id, text = reply.id, reply.choices[0].message.content or ""
            seconds = time.perf_counter() - start
            quality = float(check(example, text))
            async with session.post("/v1/feedback", json={"id": id, "value": quality, "source": "solution"}) as r:
                r.raise_for_status()
            async with session.get(f"/v1/traces/{id}") as r:
                trace = (await r.json())["trace"]
            answers.append(
                Answer(id=id, target=trace["outcome"]["target"], quality=quality, usd=trace["usd"], seconds=seconds)
            )
            right += quality
            bar.set_postfix_str(f"right {right / (i + 1):.0%}")
    return answers


def _baselines(n: int, seed: int, *, quiet: bool) -> dict[str, Any]:
    """Ask every model every prompt, outside the gateway. Returns target names and (Q, T) arrays."""
    from tqdm import tqdm

    from fairlead.lab.pool import TARGETS
    from fairlead.lab.table import outcome_table

    with tqdm(total=n, desc="asking every model", unit="prompt", disable=quiet) as bar:

        def advance(done: int, _: int) -> None:
            bar.update(done - bar.n)

        rows = outcome_table(n, 1, seed, progress=advance)
    names = [t.name for t in TARGETS]

    def column(key: str) -> Floats:
        return np.array([float(row[key]) for row in rows]).reshape(n, len(names))  # type: ignore[literal-required]

    return {"names": names, "quality": column("quality"), "usd": column("cost_usd"), "seconds": column("latency_s")}


# ------------------------------------------------------------------------------------------------------ what happened


def _figures(answers: list[Answer], table: dict[str, Any]) -> dict[str, Any]:
    names: list[str] = table["names"]
    q_QT, usd_QT, s_QT = table["quality"], table["usd"], table["seconds"]
    n = len(answers)
    third = slice(n - n // 3, n)
    cheap, strong = int(usd_QT.mean(0).argmin()), int(q_QT.mean(0).argmax())
    # The oracle takes the cheapest right answer, else the cheapest.
    best_Q = np.lexsort((usd_QT.ravel(), -q_QT.ravel(), np.repeat(np.arange(n), len(names)))).reshape(n, -1)[:, 0]
    best_Q = best_Q % len(names)
    at = np.arange(n)
    r_q = np.array([a.quality for a in answers])
    r_usd, r_s = np.array([a.usd for a in answers]), np.array([a.seconds for a in answers])
    rows: list[dict[str, Any]] = []

    def row(name: str, q: Floats, usd: Floats, s: Floats, where: str = "all prompts") -> None:
        half = 1.96 * float(q.std()) / len(q) ** 0.5
        rows.append(
            {"name": name, "prompts": where, "accuracy": float(q.mean()), "accuracy_95": half,
             "usd_per_million": float(usd.mean()) * 1e6, "ms": float(s.mean()) * 1e3}
        )  # fmt: skip

    row(f"always cheapest ({names[cheap]})", q_QT[:, cheap], usd_QT[:, cheap], s_QT[:, cheap])
    row(f"always strongest ({names[strong]})", q_QT[:, strong], usd_QT[:, strong], s_QT[:, strong])
    row("random mix of all", q_QT.mean(1), usd_QT.mean(1), s_QT.mean(1))
    row("learning router", r_q[: n // 3], r_usd[: n // 3], r_s[: n // 3], "first third")
    row("learning router", r_q[third], r_usd[third], r_s[third], "last third")
    row(
        f"always strongest ({names[strong]})",
        q_QT[third, strong],
        usd_QT[third, strong],
        s_QT[third, strong],
        "last third",
    )
    row("oracle (cheapest right answer)", q_QT[at, best_Q], usd_QT[at, best_Q], s_QT[at, best_Q])
    row(
        "oracle (cheapest right answer)",
        q_QT[at, best_Q][third],
        usd_QT[at, best_Q][third],
        s_QT[at, best_Q][third],
        "last third",
    )
    accuracy = float(r_q[third].mean() / q_QT[third, strong].mean())
    cost = float(r_usd[third].mean() / usd_QT[third, strong].mean())
    return {
        "rows": rows,
        "singles": [
            {"name": name, "accuracy": float(q_QT[:, i].mean()), "usd_per_million": float(usd_QT[:, i].mean()) * 1e6}
            for i, name in enumerate(names)
        ],
        "share": {name: float(np.mean([a.target == name for a in answers[third]])) for name in names},
        "mark": {
            "accuracy_share_of_strongest": accuracy,
            "cost_share_of_strongest": cost,
            "met": bool((accuracy >= 0.97 and cost <= 0.60) or accuracy > 1.0),
        },
    }


def _table(figures: dict[str, Any]) -> str:
    lines = ["", f"{'':<34}{'prompts':<13}{'accuracy':>14}{'USD per 1M answers':>20}{'ms':>8}"]
    for r in figures["rows"]:
        accuracy = f"{r['accuracy']:.1%} ± {r['accuracy_95']:.1%}"
        lines.append(f"{r['name']:<34}{r['prompts']:<13}{accuracy:>14}{r['usd_per_million']:>20.1f}{r['ms']:>8.1f}")
    mark = figures["mark"]
    share = ", ".join(f"{k} {v:.0%}" for k, v in sorted(figures["share"].items(), key=lambda kv: -kv[1]) if v)
    lines += [
        "(± is half a 95% interval; ms of the router: at the client, with the gateway; of the others: the model alone)",
        "",
        f"The router's last third: {mark['accuracy_share_of_strongest']:.1%} of the strongest model's accuracy at "
        f"{mark['cost_share_of_strongest']:.0%} of its cost.",
        f"It went to: {share}.",
        "",
    ]
    return "\n".join(lines)


def _explain(address: str, n: int, seed: int) -> str:
    """Ask for one decision, without running it, and put it in words."""
    from fairlead.lab.tasks import draw

    prompt = draw(n, seed, split="test")[-1].prompt
    body = msgspec.json.encode({"model": "auto", "messages": [{"role": "user", "content": prompt}]})
    request = urllib.request.Request(f"{address}/v1/route", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        told = msgspec.json.decode(response.read())
    lines = [f'One decision explained: "{prompt}"']
    for option in told["options"]:
        forecast = option.get("forecast") or {}
        expected = f"  expected {forecast['quality']:.2f} ± {forecast.get('quality_sd', 0.0):.2f}" if forecast else ""
        mark = "->" if option.get("chosen") else "  "
        lines.append(f"  {mark} {option['target']:<22} probability {option['probability']:.2f}{expected}")
    lines += [f"  {reason}" for reason in told.get("reasons", [])]
    lines += [f"  {change}" for change in told.get("what_would_change_it", [])]
    return "\n".join([*lines, ""])


def _plot(figures: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from fairlead.bench.metrics import hull

    fig, ax = plt.subplots(figsize=(7.2, 4.6), dpi=150)
    singles = [(s["usd_per_million"], s["accuracy"], s["name"]) for s in figures["singles"]]
    hull_usd, hull_accuracy = hull([x for x, _, _ in singles], [y for _, y, _ in singles])
    ax.plot(hull_usd, hull_accuracy, color="#9aa5b1", lw=1.2, zorder=1, label="random mix of singles")

    for x, y, name in singles:
        ax.scatter(x, y, s=42, color="#5b6b7b", zorder=2)
        ax.annotate(
            name.removeprefix("lab-"), (x, y), (5, -12), textcoords="offset points", fontsize=8, color="#5b6b7b"
        )
    by = {(r["name"], r["prompts"]): r for r in figures["rows"]}
    first, last = by["learning router", "first third"], by["learning router", "last third"]
    oracle = by["oracle (cheapest right answer)", "all prompts"]
    ax.annotate(
        "",
        (last["usd_per_million"], last["accuracy"]),
        (first["usd_per_million"], first["accuracy"]),
        arrowprops={"arrowstyle": "-|>", "color": "#c2410c", "lw": 1.4},
        zorder=3,
    )
    for r, label, lift in ((first, "router, first third", -14), (last, "router, last third", 6)):
        ax.errorbar(r["usd_per_million"], r["accuracy"], r["accuracy_95"], color="#c2410c", lw=0.9, capsize=2, zorder=3)
        ax.scatter(r["usd_per_million"], r["accuracy"], s=60, color="#c2410c", zorder=4)
        ax.annotate(
            label,
            (r["usd_per_million"], r["accuracy"]),
            (8, lift),
            textcoords="offset points",
            fontsize=8.5,
            color="#c2410c",
        )
    ax.scatter(oracle["usd_per_million"], oracle["accuracy"], s=90, marker="*", color="#0f766e", zorder=4)
    ax.annotate(
        "oracle",
        (oracle["usd_per_million"], oracle["accuracy"]),
        (8, -4),
        textcoords="offset points",
        fontsize=8.5,
        color="#0f766e",
    )
    ax.margins(x=0.1, y=0.12)
    ax.set(xlabel="USD per million answers", ylabel="exactly right", title="Cost and quality on the embedded pool")
    ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    ax.grid(alpha=0.2)
    ax.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    fig.savefig(path)
    plt.close(fig)


def _verify(path: Path) -> int:
    from fairlead.sqlite import SQLiteStore

    return SQLiteStore(path=str(path)).verify()


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        print(text, flush=True)
