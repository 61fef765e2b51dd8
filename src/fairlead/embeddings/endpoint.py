"""Vectors from a server that speaks ``POST {base_url}/embeddings`` as OpenAI's does. Ours, no paper.

It is `slow`: signals that ask it are read in threads, and the decision waits for them no longer than the observer's budget. A text
whose answer comes later than that is late for this query, but its thread reads on, up to `timeout_seconds`, and the vector is
remembered for the next time, as the last `memory` ones are. After `_PATIENCE` failures in a row the server is left alone for
`rest_seconds`, in which texts get zeros at once, so that a server that hangs does not keep the threads from other signals.

No answer is a vector of zeros, which the signal `embedding` marks with confidence 0, and a logged warning: routing
goes on without it. So the same text may read differently at two times; what was read is on the trace, and replay reads
it from there. Outside a gateway (training from a table) nobody is in a hurry: texts are asked for one by one, each with
`timeout_seconds`; look at the log for warnings before you trust such a table.

`timeout_seconds` bounds the whole question, however slowly bytes come in, but for the look-up of the host's name and the TLS handshake, which
have the system's limits and one `timeout_seconds` for each step. When it is over the connection is shut.

Standard library alone: no proxies, no redirects followed (a key must not travel on), a connection per question. Cost: about 0.4 ms of
CPU, and however long the server takes.
"""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec
import numpy as np

from fairlead.embeddings.base import Embedder, Vector
from fairlead.errors import ConfigError, FairleadError
from fairlead.secret import checked, redact, reveal

log = logging.getLogger(__name__)

CHARACTERS: Final = 8000
"""Characters of a text that are sent, the first ones: servers refuse what is too long for their model."""
_PATIENCE: Final = 3


class _NoAnswer(FairleadError):
    """The server gave no vector; the message is safe to log."""


class _Item(msgspec.Struct):
    embedding: list[float]


class _Reply(msgspec.Struct):
    data: list[_Item]


class Endpoint(Embedder):
    """Embedding by a server.

    Args:
        model: its name there.
        size: length of its vectors.
        base_url: up to and with the version, such as ``https://host/v1``.
        api_key: ``${NAME}`` of an environment variable, read at each question; None: none is sent.
        timeout_seconds: longest wait for the server's whole answer.
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
        timeout_seconds: float = 5.0,
        rest_seconds: float = 10.0,
        memory: int = 4096,
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username:
            raise ConfigError("write http://host/v1 or https://host/v1, without a user's name", path="$.base_url")
        for name, value in (("size", size), ("timeout_seconds", timeout_seconds), ("memory", memory)):
            if not value > 0:
                raise ConfigError(f"must be above 0, not {value}", path=f"$.{name}")
        self.model = model
        self._size = size
        self.base_url = base_url
        self.api_key = checked(api_key, path="$.api_key")
        self.timeout_seconds = timeout_seconds
        self.rest_seconds = rest_seconds
        self.memory = memory
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

    @property
    def slow(self) -> bool:
        """A server takes its time."""
        return True

    @property
    def remembers(self) -> int:
        """How many texts it remembers."""
        return self.memory

    def _embed(self, text: str) -> Vector:
        """Ask for the unit vector of `text`, shape (size,); zeros for white space alone, and where the server gave none."""
        text = text[:CHARACTERS]
        zeros = np.zeros(self._size, np.float32)
        if not text.strip() or monotonic() < self._rests_until:
            return zeros
        try:
            vector = self._fetch(text)
        except _NoAnswer as e:
            self._failed(str(e))
            return zeros
        with self._lock:
            self._failures = 0
        return vector

    def _failed(self, why: str) -> None:
        with self._lock:
            self._failures += 1
            rests = self._failures >= _PATIENCE
            if rests:
                # One question after the rest decides whether it rests again.
                self._failures, self._rests_until = _PATIENCE - 1, monotonic() + self.rest_seconds
        then = f"; not asked again for {self.rest_seconds} s" if rests else ""
        log.warning("no embedding from %s: %s; going on without one%s", self.base_url, why, then)

    def _fetch(self, text: str) -> Vector:
        """Return the unit vector that the server gives. Raises `_NoAnswer`, with a message that holds no secret."""
        key, status = "", 0
        try:
            key = "" if self.api_key is None else reveal(self.api_key, path="$.api_key")
            headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
            body = msgspec.json.encode({"model": self.model, "input": text, "encoding_format": "float"})
            status, data = self._post(body, headers)
            if not 200 <= status < 300:
                raise _NoAnswer(redact(f"status {status}: {data[:300].decode('utf-8', 'replace')}", key))
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

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return the status and the answer, or as much as was wanted of it. Raises `TimeoutError` when the time is over, and as http.client does."""
        url = urlsplit(self.base_url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=self.timeout_seconds)
        over = threading.Event()
        # A socket's own time-out begins anew with each byte.
        timer = threading.Timer(self.timeout_seconds, _shut, (connection, over))
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", f"{url.path.rstrip('/')}/embeddings", body, dict(headers))
            if over.is_set():  # before there was a connection to shut
                raise TimeoutError
            response = connection.getresponse()
            good = 200 <= response.status < 300
            # Some 25 characters a number, and the rest of the reply.
            try:
                data = response.read(64 * self._size + 65_536 if good else 300)
            except http.client.HTTPException as e:
                raise _NoAnswer(f"{type(e).__name__}, status {response.status}") from None
            if over.is_set():
                raise TimeoutError
            return response.status, data
        except (OSError, http.client.HTTPException, _NoAnswer):
            if over.is_set():
                raise TimeoutError(f"no whole answer within {self.timeout_seconds} s") from None
            raise
        finally:
            timer.cancel()
            connection.close()


def _shut(connection: http.client.HTTPConnection, over: threading.Event) -> None:
    """Wake whoever reads from a connection: there will be no more."""
    over.set()
    if connection.sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
