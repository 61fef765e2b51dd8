"""LangChain's standard integration tests, over its clients of OpenAI (chat and responses) and of Anthropic.

    python drive_langchain.py chat|responses|messages TARGET …

The classes say of the models what LangChain's own packages say of theirs. Its tests download a picture and a PDF; here they get others, made in place.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import Any, ClassVar, Literal

import httpx
import pytest
from cases import KEY, URL, tell
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def downloaded(url: str, **_: Any) -> httpx.Response:
    """What would have been downloaded."""
    return httpx.Response(200, content=b"%PDF-1.4 tiny" if url.endswith(".pdf") else PNG)


class Standard(ChatModelIntegrationTests):
    """What all three have in common. `behind` is the target's name."""

    behind: ClassVar[str]
    details: ClassVar[Any]
    supports_image_inputs = True  # type: ignore[assignment]
    supports_image_urls = True  # type: ignore[assignment]
    supports_pdf_inputs = True  # type: ignore[assignment]
    supports_anthropic_inputs = True  # type: ignore[assignment]
    model_override_value = "lab"  # type: ignore[assignment]

    @property
    def supported_usage_metadata_details(self) -> Any:
        """Which counts are told apart."""
        return self.details

    def told(self, stream: bool, text: str, times: int = 1, **more: Any) -> AIMessage:
        """Ask something and give the last answer."""
        model = self.chat_model_class(**{**self.chat_model_params, **more})
        content: Any = [{"type": "text", "text": text * 40, "cache_control": {"type": "ephemeral"}}]
        if not isinstance(model, ChatAnthropic):
            content = text * 40
        full: Any = None
        for _ in range(times):
            if not stream:
                full = model.invoke([("user", content)])
                continue
            full = None
            for chunk in model.stream([("user", content)]):
                full = chunk if full is None else full + chunk
        assert isinstance(full, AIMessage)
        return full

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """Ask twice."""
        return self.told(stream, "Long and known. ", times=2)

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> AIMessage:
        """Ask what was not asked before."""
        return self.told(stream, f"Long and new over {self.behind}. ")

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        """Have it think."""
        return self.told(stream, "Why? ", reasoning_effort="medium")


class Chat(Standard):
    """`ChatOpenAI` over chat completions."""

    chat_model_class = ChatOpenAI  # type: ignore[assignment]
    details: ClassVar[Any] = {"invoke": ["reasoning_output", "cache_read_input"], "stream": []}
    supports_json_mode = True  # type: ignore[assignment]

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """How it is made."""
        # Of an address that is not OpenAI's it asks for no usage in streams unless told to.
        made = {"model": self.behind, "base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0, "timeout": 20}
        return {**made, "stream_usage": True}


class Responses(Chat):
    """`ChatOpenAI` over responses."""

    supports_image_tool_message = True  # type: ignore[assignment]
    supports_pdf_tool_message = True  # type: ignore[assignment]

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """How it is made."""
        return {**super().chat_model_params, "use_responses_api": True}

    @pytest.mark.xfail(reason="the Responses API has no stop sequences")
    def test_stop_sequence(self, model: BaseChatModel) -> None:
        """As in LangChain's own tests of it."""
        super().test_stop_sequence(model)


class Messages(Standard):
    """`ChatAnthropic`."""

    chat_model_class = ChatAnthropic  # type: ignore[assignment]
    supports_image_tool_message = True  # type: ignore[assignment]
    supports_pdf_tool_message = True  # type: ignore[assignment]
    details: ClassVar[Any] = {
        "invoke": ["cache_read_input", "cache_creation_input"],
        "stream": ["cache_read_input", "cache_creation_input"],
    }

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """How it is made."""
        return {
            "model": self.behind,
            "base_url": URL,
            "api_key": KEY,
            "max_retries": 0,
            "timeout": 20,
            "max_tokens": 500,
        }


class MessagesOfSchema(Messages):
    """`ChatAnthropic` with its native structured output."""

    structured_output_kwargs: ClassVar[Any] = {"method": "json_schema"}


class Told:
    """A plug-in of pytest that tells each test as a case."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Try native structured output only where it is asked for, as LangChain does."""
        items[:] = [i for i in items if "OfSchema" not in i.nodeid or "::test_structured_output" in i.nodeid]
        items[:] = [i for i in items if "OfSchema" not in i.nodeid or i.name.endswith("]")]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell one test when it is known how it went."""
        if report.when != "call" and report.outcome == "passed":
            return
        *_, where, name = report.nodeid.split("::")
        kind, _, behind = where.partition("Over")
        outcome: Literal["passed", "failed", "skipped"] = report.outcome
        why = ""
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            why = report.longrepr[2].removeprefix("Skipped: ")
        elif report.outcome == "failed":
            crash = getattr(report.longrepr, "reprcrash", None)
            why = " ".join(str(crash.message if crash else report.longrepr).split())
        if hasattr(report, "wasxfail"):
            why = f"expected to fail: {report.wasxfail}"
        schema = " (json_schema)" if "OfSchema" in kind else ""
        tell(name.removeprefix("test_").replace("_", " ") + schema, f"over-{behind.lower()}", outcome, why)


def made(base: type[Standard], behind: str) -> type[Standard]:
    """Make the class of tests over one target."""
    name = f"{base.__name__}Over{behind.removeprefix('over-').capitalize()}"
    return type(f"Test{name}", (base,), {"behind": behind, "__module__": __name__})


KINDS = {"chat": [Chat], "responses": [Responses], "messages": [Messages, MessagesOfSchema]}
if len(sys.argv) > 2 and sys.argv[1] in KINDS:
    # pytest reads this file a second time, with the same arguments.
    chat_models.httpx = type("Httpx", (), {"get": staticmethod(downloaded)})  # type: ignore[assignment]
    classes = [made(k, b) for k in KINDS[sys.argv[1]] for b in sys.argv[2:]]
    globals().update({c.__name__: c for c in classes})

if __name__ == "__main__":
    options = ["-s", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-c", os.devnull]
    # The packages keep one connection pool for all models: it must not outlive its loop.
    options += ["-o", "asyncio_default_test_loop_scope=session"]
    options += ["--rootdir", os.path.dirname(__file__), "--import-mode", "importlib"]
    if pytest.main([*options, __file__], plugins=[Told()]) > pytest.ExitCode.TESTS_FAILED:
        sys.exit("pytest could not run; without `-p no:terminal` it says why")
