"""`fairlead trust`: how reliable each source of feedback is, and how its clients rank the targets."""

from __future__ import annotations

import argparse

from fairlead import ranking
from fairlead.cli.trace import add_store, open_store
from fairlead.errors import StoreError
from fairlead.trust import Trust


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "trust", help="how reliable each source of feedback is, and how its clients rank the targets"
    )
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a source that is right, such as a test suite; repeat for more",
    )
    parser.add_argument(
        "--memory",
        type=int,
        default=2000,
        metavar="N",
        help="newest judgements read of each key (default: %(default)s)",
    )
    parser.add_argument(
        "--trim",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="positions left out at either end, per target (default: %(default)s)",
    )
    add_store(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print two tables: sources with their reliability, and targets as all clients rank them, each client being one vote."""
    store = open_store(args)
    judged = store.judged(newest=args.memory, revised=True)
    if not judged:
        raise StoreError(f"{args.store} holds no judgements; POST /v1/feedback brings some")
    if not 0.0 <= args.trim < 0.5:
        raise StoreError(f"--trim is a share below 0.5, not {args.trim}")
    trust = Trust(anchors=args.anchor, memory=args.memory)
    trust.learn(judged)
    print(f"{'source':32} {'votes':>6}  {'reliability':>11}  {'95% interval':>15}  counts")
    for s in trust.standings():
        anchor = "  (anchor)" if s.anchor else ""
        print(
            f"{s.source:32} {s.votes:6}  {s.reliability:+11.2f}  {s.low:+7.2f} {s.high:+7.2f}  {s.weight:.2f}{anchor}"
        )
    standing = {(feedback.trace_id, feedback.voter): (feedback, target) for feedback, target in judged}
    clients = ranking.by_client(standing.values())
    mean = ranking.means(clients, trim=args.trim)
    order = ranking.aggregate(clients, mean, trim=args.trim)
    quality = ranking.reassigned([target for target, _ in order], mean)
    print(
        f"\n{'target':32} {'mean place':>10}  {'mean value':>10}  quality by rank      ({len(clients)} clients, one vote each)"
    )
    for target, place in order:
        print(f"{target:32} {place + 1.0:10.2f}  {mean[target]:10.2f}  {quality[target]:.2f}")
    return 0
