"""The embedder behind a server, against a real one on a socket that misbehaves as told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.embeddings import endpoint
from fairlead.embeddings.endpoint import Endpoint
from fairlead.errors import ConfigError
from fairlead.signals.base import Observer
from fairlead.signals.embedding import Embedding, vector
from fairlead.types import Query

KEY = "sk-verysecret-0123456789"
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server was told, and notes what it was asked."""

    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(
            (self.path, {k.lower(): v for k, v in self.headers.items()}, msgspec.json.decode(body))
        )
        self.server.answer(self)

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Answer
    asked: list[Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def vectors(*numbers: float) -> Answer:
    body = msgspec.json.encode({"object": "list", "data": [{"index": 0, "embedding": numbers}], "usage": {}})
    return lambda handler: handler.say(200, body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TEST_KEY", KEY)
    found = Server(("127.0.0.1", 0), Handler)
    found.answer, found.asked = vectors(3.0, 0.0, 4.0), []
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def make(server: Server, **given: Any) -> Endpoint:
    # A long time-out: these tests run beside others on slow machines.
    fixed = {"model": "m", "size": 3, "base_url": server.url, "api_key": "${TEST_KEY}", "timeout_seconds": 5.0}
    return Endpoint(**{**fixed, **given})


def test_a_vector_is_asked_for_and_scaled(server: Server) -> None:
    found = make(server).embed("héllo")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0.6, 0.0, 0.8], atol=1e-6)
    (path, headers, body), *rest = server.asked
    assert not rest
    assert path == "/v1/embeddings"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {"model": "m", "input": "héllo", "encoding_format": "float"}


def test_without_a_key_none_is_sent(server: Server) -> None:
    make(server, api_key=None).embed("a")
    assert "authorization" not in server.asked[0][1]


def test_a_text_is_asked_for_once_while_it_is_remembered(server: Server) -> None:
    embedder = make(server, memory=2)
    for text in ("a", "a", "b", "a", "c", "a", "b"):
        assert embedder.embed(text).any()
        assert embedder.embed(text) is embedder.embed(text)
    assert [body["input"] for _, _, body in server.asked] == ["a", "b", "c", "b"]


def test_white_space_and_long_texts(server: Server) -> None:
    embedder = make(server)
    assert not embedder.embed(" \n").any()
    assert not server.asked
    embedder.embed("x" * 20_000)
    assert len(server.asked[0][2]["input"]) == endpoint.CHARACTERS


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda h: h.say(500, b"out of order"), "status 500: out of order"),
        (lambda h: h.say(401, f"bad key {KEY}".encode()), "status 401: bad key [secret]"),
        (lambda h: h.say(200, b"not json"), "DecodeError"),
        (lambda h: h.say(200, b'{"data": []}'), "IndexError"),
        (lambda h: h.say(200, b'{"data": [{"embedding": ["x"]}]}'), "ValidationError"),
        (lambda h: h.connection.close(), "RemoteDisconnected"),
        (vectors(1.0, 2.0), "2 numbers came where size is 3"),
        (vectors(0.0, 0.0, 0.0), "all zeros"),
        (lambda h: h.say(307, b"", location="http://127.0.0.1:1/else"), "status 307"),
        # An error whose own text breaks off.
        (lambda h: h.say(500, b"out", **{"content-length": "99"}), "status 500: out"),
        (lambda h: h.wfile.write(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "status 500"),
    ],
)
def test_failures_are_zeros_and_a_warning(
    server: Server, answer: Answer, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = answer
    with caplog.at_level(logging.WARNING, endpoint.__name__):
        found = make(server).embed("a")
    assert found.tolist() == [0.0, 0.0, 0.0]
    assert [why in r.getMessage() for r in caplog.records] == [True]
    assert KEY not in caplog.text


def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    embedder = Endpoint(model="m", size=3, base_url="http://127.0.0.1:1/v1", timeout_seconds=5.0)
    assert not embedder.embed("a").any()
    assert "ConnectionRefusedError" in caplog.text


def test_a_variable_that_is_not_set_is_named(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert not make(server, api_key="${NO_SUCH_VARIABLE}").embed("a").any()
    assert "NO_SUCH_VARIABLE" in caplog.text
    assert not server.asked


def test_a_server_that_hangs_is_given_up(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    free = threading.Event()
    server.answer = lambda _: free.wait(10.0)
    try:
        assert not make(server, timeout_seconds=0.02).embed("a").any()
    finally:
        free.set()
    assert "TimeoutError" in caplog.text


async def test_a_slow_server_makes_a_late_reading_and_its_answer_is_kept(server: Server) -> None:
    free = threading.Event()

    def slow(handler: Handler) -> None:
        free.wait(10.0)
        vectors(3.0, 0.0, 4.0)(handler)

    server.answer = slow
    embedder = make(server)
    observer = Observer(signals={"embedding": Embedding(embedder=embedder)}, budget_seconds=0.02)
    query = Query.ask("a")
    try:
        late = (await observer.observe(query, ("embedding",))).readings["embedding"]
        assert (late.late, late.confidence, late.vector) == (True, 0.0, b"")
    finally:
        free.set()
    # The thread that asks goes on: the same question is not asked twice.
    assert (await asyncio.to_thread(embedder.embed, "a")).any()
    assert len(server.asked) == 1
    observer.stop()


def test_a_broken_server_is_left_alone_for_a_while(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(endpoint, "monotonic", lambda: now[0])
    works, server.answer = server.answer, lambda h: h.say(503, b"")
    embedder = make(server, rest_seconds=10.0)
    for i in range(6):
        assert not embedder.embed(f"text {i}").any()
    assert len(server.asked) == 3
    assert [("not asked again" in r.getMessage()) for r in caplog.records] == [False, False, True]
    now[0] += 10.5
    embedder.embed("one more")
    assert len(server.asked) == 4
    embedder.embed("and rests again")
    assert len(server.asked) == 4
    now[0] += 10.5
    server.answer = works
    assert embedder.embed("well").any()
    server.answer = lambda h: h.say(503, b"")
    embedder.embed("broken once")
    embedder.embed("asked all the same")
    assert len(server.asked) == 7


def test_the_signal_says_how_sure_it_is(server: Server) -> None:
    signal = Embedding(embedder=make(server))
    assert signal.read(Query.ask("a")).confidence == 1.0
    server.answer = lambda h: h.say(500, b"")
    reading = signal.read(Query.ask("b"))
    assert reading.confidence == 0.0
    assert vector(reading).tolist() == [0.0, 0.0, 0.0]


def test_what_is_written_wrong_is_refused() -> None:
    good: dict[str, Any] = {"model": "m", "size": 3}
    for bad, path in (
        ({"api_key": KEY}, "api_key"),
        ({"base_url": "ftp://host"}, "base_url"),
        ({"base_url": "https://me:word@host/v1"}, "base_url"),
        ({"size": 0}, "size"),
        ({"timeout_seconds": 0.0}, "timeout_seconds"),
    ):
        with pytest.raises(ConfigError) as e:
            Endpoint(**{**good, **bad})
        assert e.value.path == f"$.{path}"
        assert KEY not in str(e.value)
        assert "word" not in str(e.value).replace("password", "")


def test_a_copy_asks_for_itself(server: Server) -> None:
    embedder = make(server)
    embedder.embed("a")
    copy = embedder.copy()
    assert copy.digest() == embedder.digest()
    assert KEY not in repr(embedder)
    assert copy.embed("a").any()
    assert len(server.asked) == 2


@pytest.mark.parametrize("part", ["body", "headers"])
def test_a_server_that_drips_is_given_up(server: Server, part: str, caplog: pytest.LogCaptureFixture) -> None:
    free = threading.Event()

    def drip(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"content-length: 100000\r\n\r\n" if part == "body" else b"x: "))
        while not free.wait(0.02):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    server.answer = drip
    embedder = make(server, timeout_seconds=0.2)
    thread = threading.Thread(target=embedder.embed, args=("a",), daemon=True)
    thread.start()
    thread.join(5.0)
    given_up = not thread.is_alive()
    free.set()
    assert given_up
    assert "no whole answer within 0.2 s" in caplog.text
