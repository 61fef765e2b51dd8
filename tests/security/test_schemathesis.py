"""The description of the API, taken at its word and against it: requests generated from it, right and wrong, and none makes the gateway fail."""

from pathlib import Path
from typing import Any

import pytest
from gateways import ADMIN, config
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

KEY = "fl-key-of-the-security-tests"
EACH = 4
"""Requests to each endpoint, for each key and each kind of data."""
DOWN = frozenset({503})
"""What says that nobody can answer now: a drain that a request asked for, say."""


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("key", [KEY, ADMIN, None], ids=["key", "admin", "nobody"])
def test_no_request_makes_it_fail(tmp_path: Path, mode: str, key: str | None) -> None:
    app: Any = Gateway.of(config(tmp_path, keys={"ops": hashed(KEY)}))
    mode_ = schemathesis.GenerationMode(mode)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        seen: dict[str, set[int]] = {}
        operations = [found.ok() for found in schema.get_all_operations()]
        for operation in operations:
            cases: st.SearchStrategy[Any] = operation.as_strategy(generation_mode=mode_)
            seen[operation.label] = set()

            @seed(0)
            @settings(
                max_examples=EACH, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck)
            )
            @given(case=cases)
            def ask(case: Any) -> None:
                given_ = case.as_transport_kwargs(base_url="http://127.0.0.1")
                given_["headers"] = {**dict(given_.get("headers") or {}), **headers}
                given_.pop("cookies", None)
                given_ = {
                    k: v for k, v in given_.items() if k in ("method", "url", "params", "headers", "json", "data")
                }
                if isinstance(given_.get("data"), bytes | str):
                    given_["content"] = given_.pop("data")
                reply = client.request(**given_)
                assert reply.status_code < 500 or reply.status_code in DOWN, (given_, reply.text)
                seen[case.operation.label].add(reply.status_code)

            try:
                ask()
            except Exception as e:
                if type(e).__name__ in ("Unsatisfiable", "NoCoverage"):  # there is no wrong request without parameters
                    continue
                raise
    assert len(operations) > 30
    assert all(s <= {401, 404} for op, s in seen.items() if "/admin/" in op) or key == ADMIN
