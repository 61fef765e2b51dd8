"""What Bedrock's Converse takes and gives: botocore's own model of the service, with patterns and enumerations, and the rules behind its
ValidationExceptions that the model does not show. Event streams by hand. For tests of drivers."""

import base64
import re
import struct
import zlib
from functools import cache
from typing import Any

import msgspec
from botocore import parsers
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator


@cache
def service() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))


def check(request: dict[str, Any], *, operation: str = "Converse", model: str = "m") -> None:
    """Assert what the service checks of a request."""
    shape = service().operation_model(operation).input_shape
    report = ParamValidator().validate(_typed({"modelId": model, **request}, shape), shape)
    assert not report.has_errors(), report.generate_report()
    turns = request["messages"]
    assert turns[0]["role"] == "user", "a conversation must start with a user message"
    names: list[str] = []
    calls: list[str] = []
    for i, turn in enumerate(turns):
        assert i == 0 or turn["role"] != turns[i - 1]["role"]
        content = turn["content"]
        assert content, "the content field is empty"
        assert "cachePoint" not in content[0]
        texts = [b["text"] for b in content if "text" in b]
        documents = [b["document"] for b in content if "document" in b]
        assert not documents or texts, "a text must stand beside a document"
        uses = [b["toolUse"]["toolUseId"] for b in content if "toolUse" in b]
        after = turns[i + 1]["content"] if i + 1 < len(turns) else []
        results = [b["toolResult"]["toolUseId"] for b in after if "toolResult" in b]
        assert sorted(uses) == sorted(results) if turn["role"] == "assistant" else not uses
        calls += uses
        for block in content:
            inner = block.get("toolResult", {}).get("content", [])
            assert not any("cachePoint" in b for b in inner)
            texts += [b["text"] for b in inner if "text" in b]
            documents += [b["document"] for b in inner if "document" in b]
        assert all(t.strip() for t in texts), "the text field is blank"
        names += [d["name"] for d in documents]
    assert len(set(calls)) == len(calls)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9\-()\[\]]+( [a-zA-Z0-9\-()\[\]]+)*", n) for n in names), names
    assert not calls or request.get("toolConfig"), "toolConfig must be defined"


def _typed(value: Any, shape: Any) -> Any:
    """Return the request as botocore takes it, blobs as bytes; assert enumerations and patterns on the way."""
    match shape.type_name:
        case "structure" if shape.is_document_type:
            return value
        case "structure":
            return {k: _typed(v, shape.members[k]) if k in shape.members else v for k, v in value.items()}
        case "list":
            return [_typed(v, shape.member) for v in value]
        case "map":
            return {k: _typed(v, shape.value) for k, v in value.items()}
        case "blob":
            return base64.b64decode(value, validate=True)
        case "string":
            assert not shape.enum or value in shape.enum, value
            pattern = shape.metadata.get("pattern")
            assert pattern is None or re.fullmatch(pattern, value), (value, pattern)
    return value


def parsed(reply: dict[str, Any]) -> Any:
    """Read a whole reply as botocore does, and assert that the service could have sent it."""
    shape = service().operation_model("Converse").output_shape
    report = ParamValidator().validate(_typed(reply, shape), shape)
    assert not report.has_errors(), report.generate_report()
    return parsers.create_parser("rest-json").parse(
        {"status_code": 200, "headers": {}, "body": msgspec.json.encode(reply)}, shape
    )


def frame(kind: str, payload: dict[str, Any], *, message: str = "event") -> bytes:
    """Write one event as the wire has it: prelude, headers, payload, each with its CRC."""
    name = {"event": ":event-type", "exception": ":exception-type"}[message]
    return raw(
        {name: kind, ":content-type": "application/json", ":message-type": message}, msgspec.json.encode(payload)
    )


def raw(headers: dict[str, str], payload: bytes) -> bytes:
    head = b"".join(
        bytes([len(k)]) + k.encode() + b"\x07" + struct.pack(">H", len(v.encode())) + v.encode()
        for k, v in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    body = prelude + head + payload
    return body + struct.pack(">I", zlib.crc32(body))


def events(stream: bytes) -> list[dict[str, Any]]:
    """Read a stream as botocore does."""
    output = service().operation_model("ConverseStream").output_shape.members["stream"]
    parser = parsers.create_parser("rest-json")._event_stream_parser
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return [parser.parse(m.to_response_dict(), output) for m in buffer]


def check_signature(request: Any, host: str, keys: Credentials, region: str) -> None:
    """Work the signature out again from what arrived, with botocore, and assert that it is the one that was sent."""
    sent = request.headers["authorization"]
    match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]+)", sent)
    assert match is not None, sent
    assert match[1].startswith(f"{keys.access_key}/")
    assert match[1].endswith(f"/{region}/bedrock/aws4_request")
    headers = {h: request.headers[h] for h in match[2].split(";") if h != "host"}
    again = AWSRequest(method="POST", url=f"http://{host}{request.path}", headers=headers, data=request.body)
    again.context["timestamp"] = request.headers["x-amz-date"]
    auth = SigV4Auth(keys, "bedrock", region)
    assert request.headers["host"] == host
    assert auth.signed_headers(auth.headers_to_sign(again)) == match[2]
    assert auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again) == match[3]
