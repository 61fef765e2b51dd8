"""Vertex: addresses for both publishers, tokens fetched off the loop by google-auth, kept, and renewed in time."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from fairlead.errors import ConfigError
from fairlead.targets.scripted_server import Bytes, ScriptedServer
from fairlead.targets.vertex import EARLY_SECONDS, Tokens, Vertex
from fairlead.types import Call, Query

pytest.importorskip("google.auth", reason="google-auth is not installed")

JSON = {"content-type": "application/json"}
GEMINI = msgspec.json.encode(
    {
        "candidates": [{"content": {"parts": [{"text": "4"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1},
    }
)
CLAUDE = msgspec.json.encode(
    {
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "4"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
)


async def ask(reply, model, *, sink=None, messages=None, **options):
    async with ScriptedServer(replies=(reply,)) as server:
        driver = Vertex(name="t", model=model, base_url=server.url, location="europe-west1", **options)
        await driver.start()
        query = Query.ask("x", id="q1", **({} if messages is None else {"messages": messages}))
        o = await driver.ask(Call(target="t"), query, sink)
        await driver.stop()
        return o, server.requests


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("VERTEX_TOKEN", "ya29.secret")
    return {"project": "p-1", "token": "${VERTEX_TOKEN}"}


async def test_gemini(token):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    o, requests = await ask(Bytes(pieces=(GEMINI,), headers=JSON), "gemini-2.5-pro", messages=messages, **token)
    assert (o.text, o.tokens.input) == ("4", 3)
    place = "/v1/projects/p-1/locations/europe-west1/publishers/google/models/gemini-2.5-pro:generateContent"
    assert requests[0].path == place
    assert requests[0].headers["authorization"] == "Bearer ya29.secret"
    parts = [p for c in requests[0].json["contents"] for p in c["parts"]]
    assert parts[1:] == [
        {"functionCall": {"name": "f", "args": {}}},
        {"functionResponse": {"name": "f", "response": {"output": "3"}}},
    ]


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "claude-sonnet-4-5"])
async def test_no_token_survives_in_an_error(token, model):
    body = msgspec.json.encode({"error": {"code": 403, "message": "bad token ya29.secret", "status": "X"}})
    o, _ = await ask(Bytes(pieces=(body,), status=403, headers=JSON), model, **token)
    assert o.error.kind == "auth"
    assert "ya29" not in o.error.message


@pytest.mark.parametrize("streaming", [False, True])
async def test_claude(token, streaming):
    events = (
        {"type": "message_start", "message": {"model": "claude", "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "4"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    )
    body = b"".join(b"data: " + msgspec.json.encode(e) + b"\n\n" for e in events) if streaming else CLAUDE

    async def sink(events):
        pass

    headers = {"content-type": "text/event-stream"} if streaming else JSON
    o, requests = await ask(
        Bytes(pieces=(body,), headers=headers), "claude-sonnet-4-5@20250929", sink=sink if streaming else None, **token
    )
    assert (o.error, o.text) == (None, "4")
    verb = "streamRawPredict" if streaming else "rawPredict"
    assert requests[0].path.endswith(f"/publishers/anthropic/models/claude-sonnet-4-5@20250929:{verb}")
    sent = requests[0].json
    assert sent["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in sent
    assert sent.get("stream", False) is streaming


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_hosts(location, host):
    assert Vertex(name="t", model="m", location=location)._host() == host


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"token": "ya29.x", "project": "p"}, "token"),
        ({"token": "${T}"}, "project"),
        ({"token": "${T}", "project": "p", "credentials": "a.json"}, "token"),
    ],
)
def test_wrong_arguments(options, path):
    with pytest.raises(ConfigError) as e:
        Vertex(name="t", model="m", **options)
    assert e.value.path == f"$.{path}"
    assert "ya29" not in str(e.value)


# ------------------------------------------------------------------------------------------------------------- tokens


class TokenServer(ThreadingHTTPServer):
    """Google's token endpoint, as far as a service account needs it."""

    def __init__(self):
        self.answers = []
        self.asked = 0
        self.threads = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/token"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        self.rfile.read(int(self.headers["content-length"]))
        status, body = server.answers[min(server.asked, len(server.answers) - 1)]
        server.asked += 1
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def google():
    server = TokenServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def private_key():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    no_password = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password).decode()


@pytest.fixture
def account(tmp_path, google, private_key):
    path = tmp_path / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p-of-file",
                "private_key_id": "k",
                "private_key": private_key,
                "client_email": "a@p.iam.gserviceaccount.com",
                "token_uri": google.url,
            }
        )
    )
    return str(path)


async def test_a_service_account(google, account):
    google.answers = [(200, {"access_token": "tok-1", "expires_in": 3600, "token_type": "Bearer"})]
    async with ScriptedServer(replies=(Bytes(pieces=(GEMINI,), headers=JSON),) * 6) as server:
        driver = Vertex(name="t", model="gemini-2.5-pro", base_url=server.url, credentials=account)
        await driver.start()
        assert google.asked == 0
        asked = [driver.ask(Call(target="t"), Query.ask("x", id=f"q{i}")) for i in range(6)]
        assert all(o.ok for o in await asyncio.gather(*asked))
        await driver.stop()
    assert google.asked == 1  # six at once fetch one token, and it is kept
    assert {r.headers["authorization"] for r in server.requests} == {"Bearer tok-1"}
    assert server.requests[0].path.startswith("/v1/projects/p-of-file/locations/global/")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}), "auth"),
        ((503, {"error": "internal_failure"}), "unavailable"),
    ],
)
async def test_no_token(google, account, answer, kind, monkeypatch):
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    google.answers = [answer]
    o, requests = await ask(Bytes(pieces=(GEMINI,), headers=JSON), "gemini-2.5-pro", credentials=account)
    assert o.error.kind == kind
    assert requests == []
    assert "PRIVATE" not in o.error.message


async def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    for file in (str(path), str(tmp_path / "missing.json")):
        driver = Vertex(name="t", model="m", project="p", credentials=file)
        with pytest.raises(ConfigError) as e:
            await driver.start()
        assert e.value.path == "$.targets.t.credentials"


class Fake:
    """Credentials of google-auth, with a clock of their own."""

    def __init__(self):
        self.token, self.expiry, self.threads, self.fails = None, None, [], None

    def refresh(self, transport):
        self.threads.append(threading.current_thread())
        if self.fails is not None:
            raise self.fails
        self.token = f"tok-{len(self.threads)}"
        self.expiry = (datetime.now(UTC) + timedelta(seconds=3600)).replace(tzinfo=None)

    def left(self, seconds):
        self.expiry = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(tzinfo=None)


async def test_a_token_is_renewed_before_it_ends_and_off_the_loop():
    from google.auth.exceptions import RefreshError

    fake = Fake()
    tokens = Tokens(fake)
    assert (await tokens.headers())["Authorization"] == "Bearer tok-1"
    fake.left(EARLY_SECONDS + 60)
    assert (await tokens.headers())["Authorization"] == "Bearer tok-1"
    fake.left(EARLY_SECONDS - 60)
    assert (await tokens.headers())["Authorization"] == "Bearer tok-2"
    assert threading.main_thread() not in fake.threads
    # While the one at hand holds, a failure to renew it harms nobody.
    fake.left(60)
    fake.fails = RefreshError("no")
    assert (await tokens.headers())["Authorization"] == "Bearer tok-2"
    assert tokens.secrets == ("tok-2",)
