"""Vectors from a server that speaks ``POST {base_url}/embeddings`` as OpenAI's does. Ours, no paper.

A signal is read in the middle of a decision, so the server gets `budget_seconds` and no more: **the event loop waits
that long, at worst, and all its other requests with it.** What keeps that rare:

- an answer that comes too late is kept, so the same text has it the next time; so are the last `memory` answers;
- after `_PATIENCE` failures in a row the server is left alone for `rest_seconds`, in which texts get zeros at once.

No answer is a vector of zeros, which the signal `embedding` marks with confidence 0, and a logged warning: routing
goes on without it. So the same text may read differently at two times; what was read is on the trace, and replay reads
it from there. To train from an endpoint raise `budget_seconds`, or a slow answer becomes zeros in the table.

Standard library alone: one thread per question that is not answered from memory, one connection per thread, no
proxies, no redirects followed (a key must not travel on). Cost: about 0.3 ms of CPU, and however long the server
takes.
"""

from __future__ import annotations

import http.client
import logging
import threading
import urllib.request
from collections import OrderedDict
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from time import monotonic
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead.embeddings.base import Embedder
from fairlead.errors import ConfigError, FairleadError
from fairlead.secret import checked, redact, reveal

log = logging.getLogger(__name__)

CHARACTERS: Final = 8000
"""Characters of a text that are sent, the first ones: servers refuse what is too long for their model."""
_PATIENCE: Final = 3
_LATE: Final = 10.0
"""Seconds after which a thread gives up waiting for bytes, if the budget is not longer."""

Vector = NDArray[np.float32]


class _NoAnswer(FairleadError):
    """The server gave no vector; the message is safe to log."""


class _Item(msgspec.Struct):
    embedding: list[float]


class _Reply(msgspec.Struct):
    data: list[_Item]


class _AsItCame(urllib.request.HTTPErrorProcessor):
    """Hand over every status as it came, and so follow no redirect: it would carry the key to wherever the server says."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AsItCame())


class Endpoint(Embedder):
    """Embedding by a server.

    Args:
        model: its name there.
        size: length of its vectors.
        base_url: up to and with the version, such as ``https://host/v1``.
        api_key: ``${NAME}`` of an environment variable, read at each question; None: none is sent.
        budget_seconds: longest wait for one text.
        rest_seconds: how long the server is left alone after three failures in a row.
        memory: texts whose vectors are kept.

    Raises:
        ConfigError: for a key that is written out, a base_url that is not http(s), or a number that is not above zero.
    """

    def __init__(
        self,
        *,
        model: str,
        size: int,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        budget_seconds: float = 0.25,
        rest_seconds: float = 10.0,
        memory: int = 4096,
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username:
            raise ConfigError("write http://host/v1 or https://host/v1, without a user's name", path="$.base_url")
        for name, value in (("size", size), ("budget_seconds", budget_seconds), ("memory", memory)):
            if not value > 0:
                raise ConfigError(f"must be above 0, not {value}", path=f"$.{name}")
        self.model = model
        self._size = size
        self.base_url = base_url
        self.api_key = checked(api_key, path="$.api_key")
        self.budget_seconds = budget_seconds
        self.rest_seconds = rest_seconds
        self.memory = memory
        self._kept: OrderedDict[str, Vector] = OrderedDict()
        self._under_way: dict[str, Future[Vector]] = {}
        self._lock = threading.Lock()
        self._failures = 0
        self._rests_until = 0.0

    @classmethod
    def example(cls) -> Self:
        """Name a server; nothing is asked of it."""
        return cls(model="m", size=8, base_url="http://127.0.0.1:1/v1")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Threads and locks cannot be copied, and nothing here was learned.
        return type(self)(**self.params())

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self._size

    def embed(self, text: str) -> Vector:
        """Return the unit vector of `text`, shape (size,); zeros for white space alone, and where the server gave none in time."""
        text = text[:CHARACTERS]
        zeros = np.zeros(self._size, np.float32)
        if not text.strip():
            return zeros
        with self._lock:
            kept = self._kept.get(text)
            if kept is not None:
                self._kept.move_to_end(text)
                return kept.copy()
            if monotonic() < self._rests_until:
                return zeros
            asked = self._under_way.get(text)
            if asked is None:
                asked = Future()
                try:
                    # A daemon: a server that hangs must not keep the process from ending.
                    threading.Thread(target=self._ask, args=(text, asked), name="fairlead-embed", daemon=True).start()
                    self._under_way[text] = asked
                except RuntimeError as e:
                    asked.set_exception(_NoAnswer(str(e)))
        try:
            vector = asked.result(timeout=self.budget_seconds)
        except TooLate:
            self._failed(f"no answer within {self.budget_seconds} s")
            return zeros
        except _NoAnswer as e:
            self._failed(str(e))
            return zeros
        with self._lock:
            self._failures = 0
        return vector.copy()

    def _failed(self, why: str) -> None:
        with self._lock:
            self._failures += 1
            rests = self._failures >= _PATIENCE
            if rests:
                # One question after the rest decides whether it rests again.
                self._failures, self._rests_until = _PATIENCE - 1, monotonic() + self.rest_seconds
        then = f"; not asked again for {self.rest_seconds} s" if rests else ""
        log.warning("no embedding from %s: %s; going on without one%s", self.base_url, why, then)

    def _ask(self, text: str, asked: Future[Vector]) -> None:
        """Ask the server, in a thread of its own, and keep what it says."""
        said: Vector | _NoAnswer = _NoAnswer("the thread that asked died")
        try:
            said = self._fetch(text)
        except _NoAnswer as e:
            said = e
        finally:
            # Whatever happened: a text that stayed under way would be waited for at each question, and never asked again.
            with self._lock:
                self._under_way.pop(text, None)
                if not isinstance(said, _NoAnswer):
                    self._kept[text] = said
                    while len(self._kept) > self.memory:
                        self._kept.popitem(last=False)
            if isinstance(said, _NoAnswer):
                asked.set_exception(said)
            else:
                asked.set_result(said)

    def _fetch(self, text: str) -> Vector:
        """Return the unit vector that the server gives. Raises `_NoAnswer`, with a message that holds no secret."""
        key, status = "", 0
        try:
            key = "" if self.api_key is None else reveal(self.api_key, path="$.api_key")
            headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
            body = msgspec.json.encode({"model": self.model, "input": text, "encoding_format": "float"})
            url = f"{self.base_url.rstrip('/')}/embeddings"
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            with _opener.open(request, timeout=max(_LATE, self.budget_seconds)) as response:
                status = response.status
                if not 200 <= status < 300:
                    said = response.read(300).decode("utf-8", "replace")
                    raise _NoAnswer(redact(f"status {status}: {said}", key))
                # Some 25 characters a number, and the rest of the reply.
                data = response.read(64 * self._size + 65_536)
            vector = np.asarray(msgspec.json.decode(data, type=_Reply).data[0].embedding, np.float64)
        except (OSError, ConfigError, msgspec.DecodeError) as e:
            raise _NoAnswer(redact(f"{type(e).__name__}: {e}", key)) from None
        except (http.client.HTTPException, ValueError, IndexError) as e:
            # Not their text: it may quote a header.
            raise _NoAnswer(f"{type(e).__name__}{f', status {status}' if status else ''}") from None
        if vector.shape != (self._size,) or not np.isfinite(vector).all():
            raise _NoAnswer(f"{len(vector)} numbers came where size is {self._size}, or one is not finite")
        norm = float(np.sqrt(vector @ vector))
        if norm == 0.0:
            raise _NoAnswer("the vector is all zeros")
        return (vector / norm).astype(np.float32)
