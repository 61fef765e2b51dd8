"""`fairlead trace`: look at traces, check their chain, replay a decision from its record.

A verb's module has `add_parser`, which registers its parser and sets `func`: a function of the parsed arguments that returns the exit code.
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fairlead import chain, config
from fairlead.build import construct
from fairlead.errors import ChainBroken, ConfigError, StoreError
from fairlead.prove import replay_decision
from fairlead.sqlstore import SQLStore, kept_at
from fairlead.types import Feedback, Forecast, Outcome, Plan, Reading, Step, Trace

STORE = "fairlead.sqlite"
CONFIG = "fairlead.yaml"
SHORT_ID = 8
"""Characters of an id that tell it from others in a list."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    parser = subparsers.add_parser("trace", help="show, verify and replay recorded decisions")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    verify = actions.add_parser("verify", help="check that no trace was changed, removed or reordered")
    verify.add_argument("--head", metavar="HASH", help="also check that a head noted earlier is still in the chain")
    verify.set_defaults(func=run_verify)

    listing = actions.add_parser("list", help="list the newest traces")
    listing.add_argument("-n", type=int, default=20, help="how many (default: %(default)s)")
    listing.set_defaults(func=run_list)

    show = actions.add_parser("show", help="tell the whole story of one query")
    show.add_argument(
        "id", metavar="ID", help="the id of the response, or a part that only one of the newest traces has"
    )
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.set_defaults(func=run_show)

    replay = actions.add_parser("replay", help="make a decision again from its record, and compare")
    replay.add_argument("id", metavar="ID")
    replay.set_defaults(func=run_replay)

    for action in (verify, listing, show, replay):
        add_store(action)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the store."""
    parser.add_argument(
        "--store",
        metavar="WHERE",
        help="the store's file, its postgresql:// URL or the config that names it (default: $FAIRLEAD_STORE, else what fairlead.yaml says, else "
        f"{STORE})",
    )


def settings(where: str) -> config.StoreConfig:
    """Return what a config says of its store (nothing else of it is looked at), or of the store at a path or URL."""
    if not where.endswith((".yaml", ".yml")):
        return config.StoreConfig(url=where) if "://" in where or where[:1] == "$" else config.StoreConfig(path=where)
    file = Path(where)
    try:
        data = config.parse(file.read_text("utf-8"), name=where)
    except OSError as e:
        raise ConfigError(f"cannot read {where}: {e.strerror}") from e
    said = data.get("store") if isinstance(data, dict) else None
    read: config.StoreConfig = construct(config.StoreConfig, said or {}, path="$.store")
    return read.placed(file.parent)


def open_store(args: argparse.Namespace, *, write: bool = False) -> SQLStore:
    """Open the store that was named, and keep where it is as `args.store`; it must exist already."""
    args.store = settings(
        args.store or os.environ.get("FAIRLEAD_STORE") or (CONFIG if Path(CONFIG).exists() else STORE)
    ).where
    store = kept_at(args.store, read_only=True)
    store.start()
    if write:
        store = kept_at(args.store, outage="refuse")
        store.start()
    return store


def run_verify(args: argparse.Namespace) -> int:
    """Print the numbers of traces and judgements and the head's hash, or what is wrong."""
    store = open_store(args)
    try:
        n = store.verify()
    except ChainBroken as e:
        print(f"BROKEN  {e}")
        return 1
    judged = sum(1 for _ in store.judgements())
    print(f"ok  {n} trace{'s'[n == 1 :]}, {judged} judgement{'s'[judged == 1 :]}, head {store.head()}")
    if args.head is not None and not store.holds(args.head):
        print(f"BROKEN  no trace has the hash {args.head}: the chain was written anew, or cut before it")
        return 1
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print one line a trace, newest first, with the end of its id: ids begin with the time, so that is what differs."""
    for t in open_store(args).traces(newest_first=True, limit=args.n):
        result: str = "ok" if t.outcome.ok else (t.outcome.error.kind if t.outcome.error else "cancelled")
        result += "".join(f", {a.name} {a.did}" for a in t.acts if not t.steps)
        result += (
            f" by {t.decision.rule or ', '.join(t.decision.guards) or 'what the request asks'}"
            if not t.decision.options
            else ""
        )
        print(f"{t.id[-SHORT_ID:]}  {when(t.at)}  {t.query.route} -> {t.outcome.target or '-'}  {result}  {_took(t)}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one trace with its feedback."""
    store = open_store(args)
    trace = _find(store, args.id)
    feedback = store.feedback(trace.id)
    if args.json:
        both = {"trace": trace, "feedback": feedback}
        print(json.dumps(msgspec.json.decode(chain.encode(both)), indent=2, ensure_ascii=False))
    else:
        print("\n".join(tell(trace, feedback)))
    return 0


def run_replay(args: argparse.Namespace) -> int:
    """Print "same", or the differences."""
    store = open_store(args)
    replayed = replay_decision(_find(store, args.id), store)
    for note in replayed.notes:
        print(f"note: {note}")
    if replayed.same:
        d = replayed.decision
        what = (
            f"{len(d.options)} options, propensity {d.propensity:g}, {_plan(d.plan)}"
            if d.options
            else "nobody may answer"
        )
        print(f"same  {replayed.trace_id}: {what}")
        return 0
    for difference in replayed.differences:
        print(f"DIFFERENT  {difference}")
    return 1


def tell(trace: Trace, feedback: list[Feedback]) -> list[str]:
    """Write the story of one query as lines of text."""
    q, d = trace.query, trace.decision
    out = [f"trace     {trace.id}", f"at        {when(trace.at)}, {_took(trace)}, fairlead {trace.fairlead or '?'}"]
    who = {k: v for k, v in msgspec.to_builtins(q.identity).items() if v}
    wishes = {k: v for k, v in msgspec.to_builtins(q.constraints).items() if v is not None}
    out.append(f"route     {q.route}" + (f", arrival {q.arrival}" if q.arrival else ""))
    if who:
        out.append(f"asker     {_pairs(who)}")
    if wishes:
        out.append(f"insists   {_pairs(wishes)}")
    if q.tools:
        out.append(f"tools     {', '.join(q.tools)}")
    out += ["", "query" + ("" if trace.text_kept else " (text not kept)")]
    out += [f"  {m.role}: {_text(m.text, kept=trace.text_kept)}" for m in q.messages]
    if trace.signals.readings:
        out += ["", "signals", *(f"  {name}: {_reading(r)}" for name, r in trace.signals.readings.items())]
    policy, pool = short(d.policy_digest) or "no digest", short(d.pool_digest) or "?"
    name = f"{d.policy or '?'} version {d.version} ({policy}), pool {pool}"
    out += ["", f"decision  {name}, seed {d.seed}, {d.seconds * 1e3:.2f} ms"]
    for i, option in enumerate(d.options):
        chosen = "*" if i == d.chosen else " "
        out.append(
            f"  {chosen} {option.probability:.4f}  {_plan(option.plan)}{_forecast(option.forecast, d.forecast_of)}"
        )
    out.append(f"  propensity {d.propensity:g}" if d.options else "    refused: nobody may answer")
    out += [f"  guard {name} holds" for name in d.guards]
    out += [f"  rule {d.rule} decides"] if d.rule else []
    out += [f"  because {reason}" for reason in d.reasons]
    out += [f"  not {name}: {why}" for name, why in d.excluded.items()]
    if trace.plan is not None and not (d.options and trace.plan == d.plan):
        out += ["", f"ran       {_plan(trace.plan)}"]
    if d.actions:
        out += ["", f"actions   {', '.join(d.actions)}"]
        for a in trace.acts:
            out.append(f"  {a.name} {a.did}" + (f": {_pairs({**a.detail})}" if a.detail else ""))
    out += ["", "calls"] if trace.steps else []
    for s in trace.steps:
        out.append(f"  {'.'.join(map(str, s.path))}  at {s.start_seconds:.3f} s  {_step(s, kept=trace.text_kept)}")
    out += ["", f"outcome   {trace.outcome.target or '-'}: {_outcome(trace.outcome)}"]
    out.append(f"  {_text(trace.outcome.text, kept=trace.text_kept)}")
    if feedback:
        out += ["", "feedback"]
    for f in feedback:
        more = "".join(f", {k} {v!r}" for k, v in (("label", f.label), ("correction", f.correction)) if v is not None)
        late = max(0.0, f.at - trace.at - trace.seconds)
        out.append(
            f"  {f.voter} ({f.kind}): {f.value:g}, confidence {f.confidence:g}{more}, {late:.1f} s after the answer"
        )
    return out


def _find(store: SQLStore, id: str) -> Trace:
    trace = store.read(id)
    if trace is not None:
        return trace
    near = store.like(id)
    if len(near) == 1 and (trace := store.read(near[0])) is not None:
        return trace
    if near:
        raise StoreError(f"several traces have {id!r} in their id, {near[0]} and {near[1]} among them; give more of it")
    raise StoreError(f"no trace {id!r} in {store.database.name}; `fairlead trace list` shows the newest")


def short(digest: str) -> str:
    """Write the first half of a digest: enough to tell it from others by eye."""
    return digest[:16]


def when(at: float) -> str:
    """Write a Unix time in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _took(trace: Trace) -> str:
    return f"{trace.seconds:.3f} s, {'unknown price' if trace.usd is None else f'{trace.usd:.6f} USD'}"


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items())


def _text(text: str, *, kept: bool) -> str:
    if not kept:
        return f"[{len(text)} characters]"
    return text.replace("\n", "\n    ") if len(text) <= 2000 else f"{text[:2000]}... [{len(text)} characters]"


def _reading(r: Reading) -> str:
    what = []
    if r.value is not None:
        what.append(f"{r.value:.4g}" if isinstance(r.value, float) else str(r.value))
    what += [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.parts.items()]
    if r.vector:
        what.append(f"vector of {len(r.vector) // 4}")
    sure = f" (confidence {r.confidence:.2f})" if r.confidence != 1.0 else ""
    return (", ".join(what) or "nothing") + sure


def _plan(plan: Plan) -> str:
    kind = str(msgspec.to_builtins(plan)["kind"])
    return f"{kind} {' > '.join(plan.targets())}"


def _forecast(f: Forecast | None, of: str) -> str:
    if f is None:
        return ""
    what = [f"{of} {f.quality:.3f}" + (f" ± {f.quality_sd:.3f}" if f.quality_sd else "")]
    if f.usd is not None:
        what.append(f"{f.usd:.6f} USD" + (f" ± {f.usd_sd:.6f}" if f.usd_sd else ""))
    if f.seconds is not None:
        what.append(f"{f.seconds:.3f} s")
    if f.joules is not None:
        what.append(f"{f.joules:.3g} J")
    return "  expects " + ", ".join(what)


def _step(step: Step, *, kept: bool) -> str:
    if step.call is None:
        return f"{'stopped' if step.outcome.cancelled else 'limit'}: {_outcome(step.outcome)}"
    prompt = f" ({step.call.prompt})" if step.call.prompt else ""
    said = " ".join(step.outcome.text.split())
    words = f": {said[:80]}{'...' if len(said) > 80 else ''}" if kept and said else ""
    return f"{step.call.purpose} by {step.call.target}{prompt}: {_outcome(step.outcome)}{words}"


def _outcome(o: Outcome) -> str:
    if o.error is not None:
        return f"failed ({o.error.kind}{': ' + o.error.message if o.error.message else ''}), {o.seconds:.3f} s"
    what = ["cancelled" if o.cancelled else (o.finish or "answered"), f"{o.seconds:.3f} s"]
    if o.tokens is not None:
        what.append(f"{o.tokens.input} tokens in, {o.tokens.output} out")
    if o.usd is not None:
        what.append(f"{o.usd:.6f} USD")
    if o.joules is not None:
        what.append(f"{o.joules:.3g} J")
    if o.limited:
        what.append(f"limited by its {o.limited}")
    return ", ".join(what)
