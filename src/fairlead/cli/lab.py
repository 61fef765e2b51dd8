"""`fairlead lab`: the tiny language models by themselves: serve them, ask one, measure a table."""

from __future__ import annotations

import argparse
import sys


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("lab", help="serve, ask or measure the tiny models that ship with Fairlead")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    serve = actions.add_parser("serve", help="serve them and their crew as an OpenAI-compatible upstream")
    serve.add_argument("--host", default="127.0.0.1", help="name or address to bind to (default: %(default)s)")
    serve.add_argument("--port", type=int, default=4357, help="port; 0 takes a free one (default: %(default)s)")
    serve.set_defaults(func=run_serve)

    table = actions.add_parser("table", help="measure all of them on fresh prompts and write an outcome table")
    table.add_argument("-n", type=int, default=500, help="prompts (default: %(default)s)")
    table.add_argument("-k", type=int, default=1, help="samples of each answer (default: %(default)s)")
    table.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    table.add_argument("-o", "--output", required=True, metavar="FILE", help=".csv or .parquet")
    table.set_defaults(func=run_table)

    ask = actions.add_parser("ask", help="ask one of them")
    ask.add_argument(
        "model",
        metavar="MODEL",
        help="lab-nano, lab-small, lab-large, lab-numbers, lab-text; of the crew lab-step, lab-steps, lab-judge, lab-router",
    )
    ask.add_argument("prompt", metavar="PROMPT")
    ask.add_argument(
        "--scratch", action="store_true", help="let it work before it answers (lab-numbers, lab-step, lab-steps)"
    )
    ask.set_defaults(func=run_ask)


def run_serve(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from fairlead.gateway import server
    from fairlead.gateway.lab_server import LabServer

    async def serve() -> None:
        app = LabServer()
        listening = server.Server(
            app,
            host=args.host,
            port=args.port,
            ready=lambda url: print(f"the lab's {len(app.drivers)} models are at {url}/v1", flush=True),
        )
        opened = listening.bind()
        async with app:
            await listening.run_on(opened)

    server.run(serve)
    return 0


def run_table(args: argparse.Namespace) -> int:
    """Measure and write."""
    from fairlead.errors import TableError
    from fairlead.lab.table import outcome_table, write_table

    def progress(done: int, n: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done}/{n} prompts", end="\n" if done == n else "", file=sys.stderr, flush=True)

    try:
        rows = outcome_table(args.n, args.k, args.seed, progress=progress)
        write_table(rows, args.output)
    except (ValueError, ImportError, OSError) as e:
        raise TableError(f"no table was written: {e}") from e
    print(f"wrote {len(rows)} rows to {args.output}")
    return 0


def run_ask(args: argparse.Namespace) -> int:
    """Print one answer, and what it took."""
    from fairlead.errors import FairleadError
    from fairlead.lab.pool import describe, load

    try:
        known = describe(args.model)
        mode = "scratch" if args.scratch else "direct"
        if mode not in known.modes:
            raise ValueError(f"{args.model} has no scratch mode")
        (completion,) = load(args.model).generate(args.prompt, mode=mode)
    except ValueError as e:
        raise FairleadError(str(e)) from e
    print(completion.text)
    usd = known.cost_usd(input_tokens=completion.prompt_tokens, output_tokens=completion.completion_tokens)
    print(
        f"{completion.prompt_tokens} + {completion.completion_tokens} tokens, {usd:.8f} USD, "
        f"mean log-probability {completion.mean_logprob:.3f}",
        file=sys.stderr,
    )
    return 0
