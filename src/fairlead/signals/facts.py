"""Does the request need facts? Stage 1 of HaluGate (vLLM Semantic Router, 2026, arXiv 2603.04444), here by marks in the text; ours.

Documents or tool results are there, or a fact is asked for; and not a poem, a story or code. The marks and their limits stand in
`fairlead.detect.support`; `benchmarks/corpora/support.py` says how often they are right. A rule can send what needs facts to a target that keeps
to them, or order the action `check`. Of long messages only the ends are read: about 10 µs for a
short request, 0.3 ms for one with long sources of prose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairlead.detect.support import needs_facts
from fairlead.signals.base import Law, Range, Signal
from fairlead.types import Query, Reading


class Facts(Signal):
    """Whether facts are needed; parts: `grounded` (sources are there), `question` (a fact is asked for), `creative`, `code`."""

    def ranges(self) -> Mapping[str, Range]:
        """All are yes or no."""
        return dict.fromkeys(("value", "grounded", "question", "creative", "code"), Range(kind="bool"))

    def laws(self) -> Sequence[Law]:
        """Facts are needed exactly where sources or a question are there, and neither fiction nor code is asked for."""
        need = {"any": [{"grounded": True}, {"question": True}]}
        return (
            {"any": [{"value": False}, {"all": [need, {"creative": False}, {"code": False}]}]},
            {"any": [{"value": True}, {"not": need}, {"creative": True}, {"code": True}]},
        )

    def _read(self, query: Query) -> Reading:
        need = needs_facts(query)
        return Reading(
            value=need.facts,
            parts={"grounded": need.grounded, "question": need.question, "creative": need.creative, "code": need.code},
        )
