"""One call to one target: the plan that most queries take. Ours, no paper. 2 µs."""

from __future__ import annotations

from msgspec import Struct

from fairlead.types import Call, Do, Plan, Query, Steps


class Single(Struct, Plan, frozen=True, kw_only=True, tag="single", tag_field="kind", forbid_unknown_fields=True):
    """Ask `target`; its reply is the answer."""

    target: str

    def run(self, query: Query) -> Steps:
        """Make the one call."""
        (outcome,) = yield Do(branches=(Call(target=self.target),), final=True)
        return outcome

    def targets(self) -> tuple[str, ...]:
        """The one target."""
        return (self.target,)

    @classmethod
    def example(cls) -> Single:
        """One target."""
        return cls(target="a")
