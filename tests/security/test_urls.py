"""Addresses in requests: none is passed on to a target unless its host is allowed, wherever it stands and however it is spelt."""

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateways import config, serving
from msgspec import Raw

from fairlead.config import GatewayConfig
from fairlead.gateway.refusal import Refused
from fairlead.gateway.urls import allowed, check

EVIL = "https://evil.example/a.png"


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


def refused(body: dict[str, Any], *allow: str) -> str | None:
    """Return where a request is refused."""
    try:
        check({k: Raw(msgspec.json.encode(v)) for k, v in body.items()}, allow)
    except Refused as e:
        return e.param if (e.status, e.code) == (400, "url_not_allowed") else None
    return None


@pytest.mark.parametrize(
    "body",
    [
        said([{"type": "image_url", "image_url": {"url": EVIL}}]),
        said([{"type": "image_url", "image_url": EVIL}]),
        said([{"image_url": {"url": EVIL}}]),
        said([{"type": "text", "text": "x", "image_url": EVIL}]),
        said([{"type": "input_image", "image_url": EVIL}]),
        said([{"type": "file", "file": {"file_url": EVIL}}]),
        said([{"type": "file", "file": {"file_data": EVIL, "filename": "a"}}]),
        said([{"type": "video_url", "video_url": {"url": EVIL}}]),
        said([{"type": "video", "video": [EVIL]}]),
        said([{"type": "x", "y": {"z": [{"w": EVIL}]}}]),
        said("x", images=[{"type": "image_url", "image_url": {"url": EVIL}}]),
        {"tools": [{"type": "mcp", "server_url": EVIL}]},
        {"mcp_servers": [{"type": "url", "url": EVIL}]},
        {"input": [{"image": EVIL}]},
        # Members of a message itself, bare or not, with no part in sight.
        said("x", image_url=EVIL),
        said("x", image_url={"url": EVIL}),
        said("x", image_url=[EVIL]),
        said("x", image=EVIL),
        said("x", images=[EVIL]),
        said("x", video_url=EVIL),
        said("x", file=EVIL),
        said("x", file_url=EVIL),
        said("x", url=EVIL),
        said("x", source={"type": "url", "url": EVIL}),
        said("x", attachments=[{"path": EVIL}]),
        said(None, audio={"url": EVIL}),
        said([{"type": "image", "source": {"type": "url", "url": EVIL}}]),
        said([{"type": "image", "source": EVIL}]),
        said([{"type": "document", "source": {"type": "url", "url": EVIL}}]),
        said([{"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": EVIL}}]}]),
        said([{"type": "input_file", "file_url": EVIL}]),
        said([{"type": "document_url", "document_url": EVIL}]),
        said([{"type": "file", "fileData": {"fileUri": EVIL}}]),
        # Fields beside the messages.
        {"image_url": EVIL},
        {"image_urls": [{"x": EVIL}]},
        {"search_parameters": {"sources": [{"type": "rss", "links": [EVIL]}]}},
        {"plugins": [{"id": "file", "file": {"source": EVIL}}]},
        {"tools": [{"type": "function", "function": {"name": "f"}, "server_url": EVIL}]},
        {"tools": [{"server_url": EVIL}]},
        {"tools": [{"type": "image_generation", "input_image_mask": {"image_url": EVIL}}]},
    ],
)
def test_an_address_is_found_wherever_it_stands(body: dict[str, Any]) -> None:
    assert refused(body) is not None
    assert refused(body, "other.example") is not None
    assert refused(body, "evil.example") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.example/",
        "HTTPS://EVIL.example/",
        " https://evil.example/",
        "\thttps://evil.example/",
        "https:evil.example",
        "https:\\\\evil.example",
        "//evil.example/x",
        "/etc/passwd",
        "file:///etc/passwd",
        "gs://bucket/private",
        "s3://bucket/private",
        "ftp://evil.example/",
        "gopher://evil.example/",
        "jar:http://evil.example!/",
        "https://good.example@evil.example/",
        "https://good.example:443@evil.example/",
        "https://good.example\\@evil.example/",
        "https://good.example#@evil.example/\n",
        "https://evil.example?good.example",
        "https://good.example.evil.example/",
        "https://evilgood.example/",
        "https://good.example./",
        "https://good.example:22/",
        "https://\uff47ood.example/",
        "https://good。example/",
        "https://good.example%2eevil.example/",
        "https://[::1]/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://",
        "https://good.example\x00.evil.example/",
    ],
)
def test_an_address_is_refused_however_it_is_spelt(url: str) -> None:
    assert refused(said([{"type": "image_url", "image_url": {"url": url}}]), "good.example", "*.good.example")
    assert not allowed(url, ["good.example", "*.good.example"])


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "0x7f.0.0.1", "[::1]", "1.1.1.0x"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_of_numbers_is_never_allowed(scheme: str, host: str) -> None:
    assert not allowed(f"{scheme}://{host}/", ["*", "http://*", f"{scheme}://{host}", host])


@pytest.mark.parametrize(
    ("url", "pattern", "may"),
    [
        ("https://a.example/x?y#z", "a.example", True),
        ("https://A.Example", "a.EXAMPLE", True),
        ("https://a.example:443/", "a.example", True),
        ("https://a.example:8443/", "a.example:8443", True),
        ("https://a.example/", "a.example:8443", False),
        ("https://b.a.example/", "*.a.example", True),
        ("https://c.b.a.example/", "*.a.example", True),
        ("https://a.example/", "*.a.example", False),
        ("https://b.a.example/", "a.example", False),
        ("http://a.example/", "http://a.example", True),
        ("http://a.example/", "*", False),
        ("http://a.example/", "http://*", True),
        ("https://a.example/", "http://*", False),
        ("https://a.example/", "*", True),
        ("https://a.example/ä", "*", True),
        ("gs://bucket/x", "gs://bucket", True),
        ("gs://other/x", "gs://bucket", False),
        ("gs://bucket/x", "*", False),
    ],
)
def test_patterns(url: str, pattern: str, may: bool) -> None:
    assert allowed(url, [pattern]) is may


@pytest.mark.parametrize(
    "body",
    [
        said("see https://evil.example/ and {braces}"),
        said([{"type": "text", "text": EVIL}]),
        said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
        said([{"type": "file", "file": {"file_data": "data:text/plain,x", "filename": "http://x"}}]),
        said([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]),
        said(None, tool_calls=[{"id": "a", "function": {"name": "f", "arguments": '{"url": "http://x"}'}}]),
        said("x", annotations=[{"type": "url_citation", "url_citation": {"url": EVIL}}]),
        said("x", reasoning_details=[{"url": EVIL}], name="http://x"),
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"examples": [{"url": EVIL}]}}}]},
        {"input": [EVIL, EVIL]},
        {"metadata": {"url": EVIL}},
        {"documents": [{"text": "x", "url": EVIL}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$schema": EVIL}}}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}, "logit_bias": {"1": 2}, "user": EVIL},
        said(EVIL),
        said(EVIL, name="ann", tool_call_id=EVIL, reasoning_content=EVIL, refusal=EVIL),
        said([{"type": "text", "text": EVIL, "annotations": [{"url": EVIL}]}], tool_call_id=EVIL),
    ],
)
def test_what_nobody_fetches_passes(body: dict[str, Any]) -> None:
    assert refused(body) is None


def test_escaped_and_huge_numbers_are_seen_through() -> None:
    number = b"1" + b"0" * 5000
    for raw in (
        b'[{"role":"user","content":[{"type":"image_url","image_url":{"\\u0075rl":"http\\u003a\\/\\/evil.example"}}]}]',
        b'[{"n":%b,"content":[{"type":"image_url","image_url":{"url":"http://evil.example"}}]}]' % number,
    ):
        with pytest.raises(Refused, match="not allowed"):
            check({"messages": Raw(raw)}, ())


@pytest.mark.parametrize(
    "pattern", ["", "https://a.example/", "a.example/x", "*a.example", "file://x", "a b", "x@y", "**"]
)
def test_patterns_that_are_refused(pattern: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"urls": {"allow": [pattern]}}, GatewayConfig)


def _image(**more: Any) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "url", "url": EVIL, **more}}


def _user(part: Any) -> dict[str, Any]:
    return {"role": "user", "content": [part]}


_USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
_CALLED = [
    {"role": "user", "content": "x"},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
]
FACES: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        said([{"type": "image_url", "image_url": {"url": EVIL}}]),
        said([{"type": "image_url", "image_url": EVIL}]),
        said([{"type": "file", "file": {"file_url": EVIL}}]),
        said([{"type": "video_url", "video_url": {"url": EVIL}}]),
        said("x", image_url=EVIL),
        said("x", images=[EVIL]),
        {**said("x"), "search_parameters": {"sources": [{"type": "rss", "links": [EVIL]}]}},
        {**said("x"), "tools": [{"type": "mcp", "server_label": "x", "server_url": EVIL}]},
        {**said("x"), "image_url": EVIL},
    ],
    "/v1/route": [said([{"type": "image_url", "image_url": {"url": EVIL}}]), said("x", image_url=EVIL)],
    "/v1/completions": [{"prompt": "x", "image_url": EVIL}, {"prompt": "x", "images": [{"url": EVIL}]}],
    "/v1/embeddings": [{"input": "x", "image_url": EVIL}],
    "/v1/responses": [
        {"input": [_user({"type": "input_image", "image_url": EVIL})]},
        {"input": [_user({"type": "input_file", "file_url": EVIL})]},
        {"input": [{"type": "message", **_user({"type": "input_image", "image_url": EVIL})}]},
        {"input": [*_CALLED, {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": EVIL}]}]},
        {"input": "x", "tools": [{"type": "mcp", "server_label": "x", "server_url": EVIL}]},
    ],
    "/v1/messages": [
        {"messages": [_user(_image())]},
        {"messages": [_user({**_image(), "type": "document"})]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [_USE]}, _user({"type": "tool_result", "tool_use_id": "t", "content": [_image()]})]},
        {"messages": [{"role": "user", "content": "x"}], "mcp_servers": [{"type": "url", "url": EVIL, "name": "x"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("allow", [[], ["evil.example"]])
async def test_every_face_refuses_it_unless_it_is_allowed(tmp_path: Path, allow: list[str]) -> None:
    """What reaches the upstream is the proof: no shape of any face takes an address there, and most do once its host is allowed."""
    sent: list[bytes] = []

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: *(\d+)", head)
        sent.append(await reader.readexactly(int(found[1]) if found else 0))
        body = b'{"id":"x","choices":[{"message":{"content":"4"},"finish_reason":"stop"}],"data":[{"embedding":[1]}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    profile = {"modalities": ["text", "image", "file", "video"], "tools": True}
    targets = {"cheap": {"type": "openai_chat", "model": "m", "base_url": at, "profile": profile}}
    shapes = [(path, body) for path, bodies in FACES.items() for body in bodies]
    async with (
        server,
        serving(config(tmp_path, targets=targets, admin_keys={}, urls={"allow": allow})) as client,
    ):
        for path, body in shapes:
            more = {"max_tokens": 9} if path == "/v1/messages" else {}
            async with client.http.post(path, json={"model": "auto", **more, **body}) as reply:
                text = await reply.text()
                refused = reply.status == 400 and "not allowed" in text
                # What the pivot has no place for is left out, and told.
                told = reply.headers.get("x-fairlead-dropped", "")
                left_out = told.startswith(("tools", "mcp_servers"))
                assert refused is not bool(allow) or left_out, (path, body, text, told)
                assert reply.status in (200, 400, 503), (path, body, text)
        server.close()
    passed = sum(b"evil.example" in body for body in sent)
    assert passed > len(shapes) / 2 if allow else passed == 0
