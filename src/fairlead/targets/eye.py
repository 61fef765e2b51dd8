"""The laboratory's reader of pictures as a target, so that plans with two ways to see a question (`modality`) run live without key or network.

    targets:
      lab-text: {type: local, model: lab-text}
      lab-eye:  {type: eye}

It is asked for a table that is in the request as a small PNG (a data URL; see `fairlead.lab.eye`, which makes them) and answers ``key=number``. The key
asked for is the last word of the text, as in ``ka=31 mo=__; ka?``: the rest of the text is not read. The log-probabilities are those of finding the line,
and of the two digits. It knows nothing else, and neither streams nor draws: the same request gives the same answer.

A request without exactly one such picture, or without such a key, is a ``bad_request``. Priced like a model of its size (3,000 parameters) that reads
each character of the picture as four tokens. Cost: 0.2 ms, in the event loop. Ours, no paper.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, Self

import msgspec

from fairlead.errors import TargetError
from fairlead.lab import eye as lab
from fairlead.lab.pool import INPUT_PRICE_SHARE, USD_PER_MILLION_OUTPUT_PER_MILLION_PARAMETERS
from fairlead.targets import wire
from fairlead.targets.base import Driver
from fairlead.types import Call, Failure, Outcome, Profile, Query, Sink, Tokens

PREFIX: Final = "data:image/png;base64,"
TOKENS: Final = 4
"""What a character of a picture counts as."""
PRICE: Final = USD_PER_MILLION_OUTPUT_PER_MILLION_PARAMETERS * lab.PARAMETERS / 1e6
PROFILE: Final = Profile(
    input_usd_per_mtok=INPUT_PRICE_SHARE * PRICE,
    output_usd_per_mtok=PRICE,
    modalities=frozenset({"text", "image"}),
    tools=False,
    tags=frozenset({"lab"}),
)


class Eye(Driver):
    """Reads one number off the picture of a table.

    Args:
        name: what routes and traces call it.
        profile: None takes the price from the laboratory.
        timeout_seconds: for one call.
    """

    @classmethod
    def example(cls) -> Self:
        """Under some name."""
        return cls(name="a")

    def __init__(self, *, name: str, profile: Profile | None = None, timeout_seconds: float = 5.0) -> None:
        self.name = name
        self.profile = PROFILE if profile is None else profile
        self.timeout_seconds = timeout_seconds

    async def start(self) -> None:
        """Read the weights."""
        lab.eye()

    async def _ask(self, call: Call, query: Query, sink: Sink | None) -> Outcome:
        return self.look(call, query)

    def look(self, call: Call, query: Query) -> Outcome:
        """Return what is read, with its tokens and price.

        Raises:
            TargetError: ``bad_request``, without one picture of a table, or without a key.
        """
        texts, urls = _seen(msgspec.json.decode(wire.fields(call, query)["messages"]))
        if len(urls) != 1:
            raise _refused(f"the request has {len(urls)} pictures; lab-eye reads one")
        words = " ".join(texts).split()
        try:
            if not urls[0].startswith(PREFIX):
                raise ValueError(f"not a data URL of a PNG ({PREFIX}...)")
            picture = base64.b64decode(urls[0].removeprefix(PREFIX), validate=True)
            seen = lab.eye().read(picture, words[-1].rstrip("?") if words else "")
        except (ValueError, binascii.Error) as e:
            raise _refused(f"lab-eye reads tables that fairlead.lab.eye has drawn, and this is none: {e}") from e
        tokens = Tokens(input=TOKENS * seen.characters, output=len(seen.text))
        return Outcome(
            text=seen.text,
            model="lab-eye",
            tokens=tokens,
            usd=self.profile.usd(tokens),
            logprobs=seen.logprobs,
            finish="stop",
        )


def _seen(messages: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the texts of users, and the addresses of the pictures."""
    texts: list[str] = []
    urls: list[str] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for part in content or ():
            if part.get("type") == "text" and message.get("role") == "user":
                texts.append(str(part.get("text", "")))
            elif part.get("type") in ("image_url", "input_image"):
                url = part.get("image_url")
                urls.append(str(url.get("url") if isinstance(url, dict) else url))
    return texts, urls


def _refused(message: str) -> TargetError:
    return TargetError(Failure(kind="bad_request", message=message))
