"""Logs: JSON lines with the request's id, an access line without text, and a second wall around secrets."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from gateways import serving
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config import Config, LogConfig, make
from fairlead.gateway import logs
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.edge import Exchange
from fairlead.gateway.logs import REQUEST, Json, Plain, Redactor
from fairlead.types import Trace

WORDS = "the merger with Acme is called Bluebird"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    names = [logging.getLogger(n) for n in (logs.ACCESS, logs.LIFE)]
    handlers, levels = list(root.handlers), [(x, x.level) for x in (root, *names)]
    yield
    for handler in tuple(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    for logger, level in levels:
        logger.setLevel(level)


def setup(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    logs.setup(LogConfig(**settings), stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def made(tmp_path: Path, **file: Any) -> Config:
    data = {
        "targets": {"cheap": {"type": "scripted", "replies": ["not Bluebird"]}},
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "cheap"}}},
        "store": {"path": str(tmp_path / "store.sqlite")},
        "gateway": {"port": 0, "keys": {"ann": {"hash": hashed("fl-ann-key"), "tenant": "red"}}},
    }
    return make({**data, **file})


async def test_a_request_is_one_line_without_its_text(tmp_path: Path) -> None:
    stream = setup(format="json", access=True)
    async with serving(made(tmp_path)) as client:
        messages = [{"role": "user", "content": WORDS}]
        status, answer, _ = await client.ask("fl-ann-key", messages=messages)
        assert status == 200
        assert (await client.ask("fl-wrong-key", messages=messages))[0] == 401
        digest = client.gateway.config_digest
    found = [line for line in lines(stream) if line["logger"] == logs.ACCESS]
    answered, refused = found
    assert answered["message"] == "answered"
    assert answered["id"] == answer["id"]
    assert (answered["route"], answered["target"], answered["status"]) == ("auto", "cheap", 200)
    assert (answered["key"], answered["tenant"], answered["config"]) == ("ann", "red", digest)
    assert answered["output_tokens"] == 2
    assert 0 <= answered["overhead_seconds"] <= answered["seconds"] < 10
    assert not {"error", "dropped", "retries", "usd"} & set(answered), "what is not there is left out"
    assert (refused["status"], refused["error"], refused["path"]) == (401, "invalid_api_key", "/v1/chat/completions")
    text = stream.getvalue()
    for hidden in (WORDS, "Bluebird", "fl-ann-key", "fl-wrong-key", hashed("fl-ann-key")):
        assert hidden not in text


async def test_a_refusal_names_the_key_that_it_was_refused_to(tmp_path: Path) -> None:
    stream = setup(format="json", access=True)
    key = {"hash": hashed("fl-ann-key"), "tenant": "red", "limits": {"requests_per_minute": 1}}
    async with serving(made(tmp_path, gateway={"port": 0, "keys": {"ann": key}})) as client:
        assert (await client.ask("fl-ann-key"))[0] == 200
        assert (await client.ask("fl-ann-key"))[0] == 429
    refused = [line for line in lines(stream) if line["message"] == "refused"]
    assert [(line["status"], line["key"]) for line in refused] == [(429, "ann")]


async def test_a_failure_is_told_by_its_kind_alone(tmp_path: Path) -> None:
    stream = setup(format="json", access=True)
    reply = {"error": {"kind": "bad_request", "message": f"wrong: {WORDS}"}}
    async with serving(made(tmp_path, targets={"cheap": {"type": "scripted", "replies": [reply]}})) as client:
        assert (await client.ask("fl-ann-key"))[0] == 400
    (found,) = [line for line in lines(stream) if line["logger"] == logs.ACCESS]
    assert (found["error"], found["status"]) == ("bad_request", 400)
    assert "Bluebird" not in stream.getvalue()


async def test_every_record_inside_a_request_has_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = Gateway.note

    def noisy(self: Gateway, trace: Trace, exchange: Exchange, status: int) -> None:
        logging.getLogger("somebody.else").warning("inside")
        note(self, trace, exchange, status)

    monkeypatch.setattr(Gateway, "note", noisy)
    stream = setup(format="json")
    async with serving(made(tmp_path)) as client:
        ids = [(await client.ask("fl-ann-key"))[1]["id"] for _ in range(2)]
    assert [line["id"] for line in lines(stream) if line["message"] == "inside"] == ids
    assert all("id" not in line for line in lines(stream) if line["logger"] == logs.LIFE)


async def test_by_default_a_good_request_leaves_no_line(tmp_path: Path) -> None:
    stream = setup()
    async with serving(made(tmp_path)) as client:
        assert (await client.ask("fl-ann-key"))[0] == 200
    assert stream.getvalue() == ""
    logging.getLogger("fairlead.x").warning("as today")
    assert re.fullmatch(r"\S+ \S+ WARNING fairlead.x: as today\n", stream.getvalue())


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=logs.SHORTEST, max_size=30))
def test_a_known_secret_gets_into_no_line(secret: str) -> None:
    redact, before = logs.redactor, logs.redactor.secrets
    redact.secrets = (secret,)
    try:
        try:
            raise ValueError(f"cannot use {secret}")
        except ValueError:
            args = (logging.ERROR, "f", 1, "it failed: %s", (secret,), sys.exc_info())
            record = logging.LogRecord("n", *args)
        record.fields = {"path": secret, "n": 1}
        for line in (Plain().format(record), json.dumps(json.loads(Json().format(record)), ensure_ascii=False)):
            parts = [line] if not line.startswith("{") else [str(v) for v in json.loads(line).values()]
            assert not any(secret in part.replace("[secret]", "") for part in parts)
    finally:
        redact.secrets = before


def test_the_redactor_knows_what_a_config_refers_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "hush-hush-1")
    monkeypatch.setenv("TINY", "1")
    target: dict[str, Any] = {
        "type": "openai_chat",
        "model": "m",
        "base_url": "http://127.0.0.1:1/v1",
        "api_key": "${UPSTREAM_KEY}",
    }
    target["headers"] = {"x-tiny": "${TINY}"}
    redact = Redactor()
    redact.learn(made(tmp_path, targets={"cheap": target}))
    assert redact("a 1 and hush-hush-1") == "a 1 and [secret]"
    monkeypatch.setenv("UPSTREAM_KEY", "hush-hush-2")
    redact.learn(made(tmp_path, targets={"cheap": target}))
    assert redact("hush-hush-1 hush-hush-2") == "[secret] [secret]", "a rotated key is still a secret"
    assert "fl-" not in Redactor()("key fl-" + "a" * 43), "what looks like our own key"


def test_text_lines_name_the_request_and_its_fields() -> None:
    token = REQUEST.set("chatcmpl-1")
    try:
        record = logging.LogRecord("n", logging.INFO, "f", 1, "said", (), None)
        record.fields = {"status": 200, "none": None}
        assert Plain().format(record).endswith("INFO n: said status=200 [chatcmpl-1]")
    finally:
        REQUEST.reset(token)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs Unix signals")
def test_a_served_gateway_tells_its_life_in_json(tmp_path: Path) -> None:
    data = msgspec.to_builtins(
        {
            "targets": {"cheap": {"type": "openai_chat", "model": "m", "base_url": "http://127.0.0.1:9/v1"}},
            "routes": {"auto": {"policy": {"type": "fixed", "plan": "cheap"}}},
            "gateway": {"port": 0, "drain_seconds": 1, "log": {"format": "json", "access": True}},
            "retries": {"most": 0},
        }
    )
    data["targets"]["cheap"]["api_key"] = "${UPSTREAM_KEY}"
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(data))
    process = subprocess.Popen(
        [sys.executable, "-m", "fairlead.cli", "serve", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "UPSTREAM_KEY": "hush-hush-1", "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(r"at (http://\S+) ", process.stdout.readline())
        assert found is not None
        body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": WORDS}]}).encode()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(found[1] + "/v1/chat/completions", body), timeout=20)
        caught.value.close()
        path.write_text(yaml.safe_dump({**data, "seed": 7}))
        process.send_signal(signal.SIGHUP)
        err = ""
        while "is live" not in err:
            line = process.stderr.readline()
            assert line, err
            err += line
        process.send_signal(signal.SIGTERM)
        err += process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    told = [json.loads(line) for line in err.splitlines()]
    life = [line["message"] for line in told if line["logger"] == logs.LIFE]
    assert life[0] == "started"
    assert re.fullmatch(r"config [0-9a-f]{32} is live", life[1])
    assert life[2:] == ["stopped"]
    (access,) = [line for line in told if line["logger"] == logs.ACCESS]
    assert access["error"] == "unavailable"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in told)
    assert "hush-hush-1" not in err
    assert WORDS not in err
