"""A target that gives vectors with no server: an embedding of ours (`fairlead.embeddings`) behind the gateway.

    targets:
      vectors: {type: embedder, embedder: hashing}

Texts only; ``dimensions`` must be what the embedding has, if given. Tokens are estimated, at no price unless the profile names one. Texts are
embedded in a thread where that may take long. Cost: that of the embedding, and for a vector of 128 about 2 µs as base64, 40 µs as numbers.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from fairlead.embeddings.base import Embedder as Embedding
from fairlead.embeddings.hashing import Hashing
from fairlead.errors import TargetError
from fairlead.pool import estimate_tokens
from fairlead.targets import vectors
from fairlead.targets.base import Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Target, Tokens

_TASKS: Final = frozenset({"embeddings"})
GIVES: Final = Profile(tasks=_TASKS, input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)
"""The profile of what gives vectors, and costs nothing."""
_SHORT: Final = 20_000
"""Characters that are embedded in the event loop at most."""


class Embedder(Driver):
    """Vectors of an embedding of ours.

    Args:
        name: what routes and traces call it.
        embedder: what makes them.
        profile: what is known about it; its task is ``embeddings`` whatever it says.
        timeout_seconds: for one call.
    """

    @classmethod
    def example(cls) -> Self:
        """Of hashed words."""
        return cls(name="a")

    def __init__(
        self,
        *,
        name: str,
        embedder: Embedding = Hashing(),  # noqa: B008 - it is never changed
        profile: Profile = GIVES,
        timeout_seconds: float = 60.0,
    ) -> None:
        self.name = name
        self.embedder = embedder
        self.profile = profile
        self.timeout_seconds = timeout_seconds

    @property
    def target(self) -> Target:
        """The noun that policies see."""
        return Target(name=self.name, kind=self.kind, profile=replace(self.profile, tasks=_TASKS))

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        fields = vectors.request(call, query, model=self.name)
        given: dict[str, Any] = {name: msgspec.json.decode(raw) for name, raw in fields.items()}
        found = given.get("input")
        texts = [found] if isinstance(found, str) else found
        size = self.embedder.size
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise TargetError(Failure(kind="bad_request", message=f"{self.name} takes texts, not token numbers"))
        if given.get("dimensions") not in (None, size):
            message = f"{self.name} gives vectors of {size} dimensions, and no others"
            raise TargetError(Failure(kind="bad_request", message=message))
        if self.embedder.slow or sum(map(len, texts)) > _SHORT:
            made = await asyncio.to_thread(self._embedded, texts)
        else:
            made = self._embedded(texts)
        tokens = estimate_tokens(query)
        as_base64 = given.get("encoding_format") == "base64"
        reply = vectors.written(made, model=self.name, tokens=tokens, as_base64=as_base64)
        return Outcome(model=self.name, tokens=Tokens(input=tokens), finish="stop", reply=reply)

    def _embedded(self, texts: list[str]) -> list[NDArray[np.float32]]:
        made = [self.embedder.embed(text) for text in texts]
        if self.embedder.slow and any(t.strip() and not v.any() for t, v in zip(texts, made, strict=True)):
            # An embedder that waits for something gives zeros where it had no answer: no vector of a text.
            raise TargetError(Failure(kind="unavailable", message=f"the embedder of {self.name} gave no vector"))
        return made
