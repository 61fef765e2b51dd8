"""Recorded outcomes of a table, for the replay world. Ours, no paper.

    replay(plan, query, Tabled(table, query=i))

A call is looked up by target and sample. A cell that holds nothing comes back as a failure of kind ``not_found``: reported, never
counted as an answer of quality zero. So does a call with messages that a plan wrote: a table has answers to the query alone. Costs per call: a few µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from fairlead.errors import LimitReached, TableError
from fairlead.table import Floats, OutcomeTable
from fairlead.types import Call, Failure, Outcome, Path, Step, Tokens
from fairlead.worlds.replay import LookUp


class Tabled(LookUp):
    """Outcomes of one query of a table.

    Args:
        table: where they are recorded.
        query: index of the query in the table.
        confidence_column: the source's own column that holds a confidence, if a plan is to read it.
        usd_columns: the source's own column to charge instead of ``cost_usd``, by target. Where asking for the confidence costs
            extra, the targets whose confidence a plan reads must be charged for it.

    Raises:
        UnknownName: if the table has no such column.
        TableError: if there is no such query.
    """

    def __init__(
        self,
        table: OutcomeTable,
        query: int,
        *,
        confidence_column: str | None = None,
        usd_columns: Mapping[str, str] | None = None,
    ) -> None:
        if not 0 <= query < len(table):
            raise TableError(f"query {query} is not among the table's {len(table)} (they count from 0)")
        self.table, self.query = table, query
        self.confidence_column, self.usd_columns = confidence_column, dict(usd_columns or {})
        self.models = {name: m for m, name in enumerate(table.models)}
        self.usd_QMS = {target: table.extra(column) for target, column in self.usd_columns.items()}
        self.confidence_QMS = None if confidence_column is None else table.extra(confidence_column)

    def _differs(self, call: Call) -> bool:
        """Whether the call has messages that are not the query's own words."""
        return call.messages is not None and "\n".join(m.text for m in call.messages) != self.table.prompts[self.query]

    def outcome(self, call: Call, path: Path) -> Outcome:
        """Look up by target and sample."""
        t = self.table
        m, s = self.models.get(call.target), call.sample
        if m is None:
            return _failed(call, f"the table has no target {call.target!r}")
        if call.prompt or call.alone or self._differs(call):
            return _failed(
                call, f"what {call.target!r} replies to {call.prompt or 'what the plan wrote'} is not recorded"
            )
        if not 0 <= s < t.samples or not t.present_QMS[self.query, m, s]:
            return _failed(call, f"sample {s} of {call.target!r} is not recorded for {t.query_ids[self.query]!r}")
        at = (self.query, m, s)
        tokens_in, tokens_out = _known(t.input_tokens_QMS, at), _known(t.output_tokens_QMS, at)
        text = None if t.responses_QMS is None else t.responses_QMS[at]
        return Outcome(
            text=text or "",
            target=call.target,
            model=call.target,
            tokens=None
            if tokens_in is None or tokens_out is None
            else Tokens(input=int(tokens_in), output=int(tokens_out)),
            usd=_known(self.usd_QMS.get(call.target, t.usd_QMS), at),
            seconds=_known(t.seconds_QMS, at) or 0.0,
            joules=_known(t.joules_QMS, at),
            confidence=None if self.confidence_QMS is None else _known(self.confidence_QMS, at),
            quality=_known(t.quality_QMS, at),
            finish="stop",
        )


class Beside(LookUp):
    """Some targets' outcomes of one query as they are given, the others' looked up: gates, which no table has, beside a table.

    Args:
        look_up: where other outcomes come from.
        outcomes: by target.
    """

    def __init__(self, look_up: LookUp, outcomes: Mapping[str, Outcome]) -> None:
        self.look_up, self.outcomes = look_up, dict(outcomes)
        self.timed, self.lateness = look_up.timed, look_up.lateness

    def outcome(self, call: Call, path: Path) -> Outcome | None:
        """Look up by target, then elsewhere."""
        given = self.outcomes.get(call.target)
        return self.look_up.outcome(call, path) if given is None else given

    def limit(self, path: Path) -> LimitReached | None:
        """Look up elsewhere."""
        return self.look_up.limit(path)

    def cancelled(self, path: Path) -> list[Step] | None:
        """Look up elsewhere."""
        return self.look_up.cancelled(path)


def _failed(call: Call, message: str) -> Outcome:
    return Outcome(target=call.target, error=Failure(kind="not_found", message=message))


def _known(values_QMS: Floats, at: tuple[int, int, int]) -> float | None:
    value = float(values_QMS[at])
    return None if isnan(value) else value
