"""`fairlead serve` and `fairlead lab serve` as processes: one line when ready, a drain on SIGTERM, exit code 0."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

CONFIG = """
targets:
  slow: {type: scripted, replies: [{text: "one two three four five", word_seconds: 0.1}]}
routes:
  auto: {policy: {type: fixed, plan: slow}}
store: {path: STORE}
"""


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fairlead.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + (process.stderr.read() if process.stderr is not None else "")
        yield process, found[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "fairlead.yaml"
    file.write_text(CONFIG.replace("STORE", str(tmp_path / "store.sqlite")))
    return file


def test_serve_drains(config: Path) -> None:
    """A stream that is under way when SIGTERM comes is answered whole; then the process ends well."""
    with serving("serve", str(config), "--port", "0") as (process, url):
        got: list[str] = []
        begun = threading.Event()

        def ask() -> None:
            with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
                messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
                for chunk in client.chat.completions.create(model="auto", messages=messages, stream=True):
                    got.append(chunk.choices[0].delta.content or "")
                    begun.set()

        thread = threading.Thread(target=ask)
        thread.start()
        assert begun.wait(10)
        process.send_signal(signal.SIGTERM)
        thread.join(10)
        assert "".join(got) == "one two three four five"
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


def test_serve_says_what_is_wrong(config: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fairlead.cli", "serve", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    open_to_all = run(str(config), "--host", "0.0.0.0")
    assert open_to_all.returncode == 1
    assert "fairlead key" in open_to_all.stderr
    with serving("serve", str(config), "--port", "0") as (_, url):
        other = tmp_path / "other.yaml"
        other.write_text(CONFIG.replace("STORE", str(tmp_path / "other.sqlite")))
        taken = run(str(other), "--port", url.rpartition(":")[2])
        assert (taken.returncode, "--port" in taken.stderr) == (1, True)
        assert "Traceback" not in taken.stderr


def test_lab_serve() -> None:
    with serving("lab", "serve", "--port", "0") as (process, url):
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "3 + 4"}]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            assert "lab-numbers-scratch" in {m.id for m in client.models.list()}
            whole = client.chat.completions.create(
                model="lab-nano", messages=messages, temperature=0.8, n=3, seed=1, logprobs=True, top_logprobs=2
            )
            assert len(whole.choices) == 3
            assert whole.choices[0].logprobs is not None
            again = client.chat.completions.create(model="lab-nano", messages=messages, temperature=0.8, n=3, seed=1)
            assert [c.message.content for c in again.choices] == [c.message.content for c in whole.choices]
            greedy = client.chat.completions.create(model="lab-nano", messages=messages)
            stream = client.chat.completions.create(
                model="lab-nano", messages=messages, stream=True, stream_options={"include_usage": True}
            )
            chunks = list(stream)
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert text == greedy.choices[0].message.content
            assert chunks[-1].usage is not None
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="gpt", messages=messages)
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="lab-nano", messages=[{"role": "user", "content": "x" * 500}])
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
