"""`fairlead init`: what it finds, what it writes, and what it takes over from a LiteLLM config."""

import argparse
import http.server
import threading

import pytest
import yaml

from fairlead import config, discover, import_litellm
from fairlead.cli import init
from fairlead.discover import Found, find
from fairlead.errors import ConfigError

LITELLM = """
model_list:
  - model_name: gpt
    litellm_params: {model: openai/gpt-x, api_key: os.environ/OPENAI_KEY, temperature: 0.2}
    model_info: {input_cost_per_token: 0.0000025, output_cost_per_token: 1e-5, max_input_tokens: 128000, mode: chat}
  - model_name: gpt
    litellm_params: {model: anthropic/claude-x, api_key: sk-ant-literal-9876}
  - model_name: own
    litellm_params: {model: hosted_vllm/org/Model-7B, api_base: "http://10.0.0.5:8000/v1", input_cost_per_token: 0}
  - model_name: llama
    litellm_params: {model: ollama/llama3}
  - model_name: proxied
    litellm_params: {model: openai/m, api_base: "http://10.0.0.6/v1"}
  - model_name: cloud
    litellm_params: {model: bedrock/thing, aws_secret_access_key: hush-aws}
litellm_settings: {drop_params: true}
"""


def nobody(port):
    return ()


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the verb in an empty folder, without keys and servers."""
    for provider in discover.PROVIDERS:
        monkeypatch.delenv(provider.key, raising=False)
    monkeypatch.setattr(discover, "models_at", nobody)
    monkeypatch.chdir(tmp_path)

    def go(*argv):
        parser = argparse.ArgumentParser()
        init.add_parser(parser.add_subparsers())
        args = parser.parse_args(["init", *argv])
        return args.func(args)

    return go


def test_the_laboratory_if_there_is_nothing_else(run, tmp_path, capsys):
    assert run() == 0
    made = config.load(tmp_path / "fairlead.yaml")
    assert "lab-small" in made.drivers
    assert "auto" in made.policies
    assert made.gateway.port == 4356
    assert "wrote fairlead.yaml with 5 targets" in capsys.readouterr().out


def test_refuses_to_overwrite(run, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    assert run("-o", str(file)) == 1
    assert file.read_text() == "precious"
    assert "--force" in capsys.readouterr().err
    assert run("-o", str(file), "--force") == 0
    assert "targets:" in file.read_text()


def test_keys_become_references(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-live-hush")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-hush")
    monkeypatch.setenv("GROQ_API_KEY", " ")
    assert run() == 0
    text = (tmp_path / "fairlead.yaml").read_text()
    assert "hush" not in text
    assert "groq" not in text
    made = config.load(tmp_path / "fairlead.yaml")
    assert made.drivers["gpt-large"].api_key == "${OPENAI_API_KEY}"
    assert made.drivers["claude-small"].type_name() == "anthropic_messages"
    assert made.drivers["gpt-large"].profile.output_usd_per_mtok > 0


def test_every_provider_makes_a_config_that_loads():
    found = find({p.key: "x" for p in discover.PROVIDERS}, nobody)
    made = config.make(yaml.safe_load(init.render(found)))
    assert set(made.drivers) == {f.name for f in found}


def test_servers():
    models = {11434: ("llama3:8b",), 8000: ("org/Model-7B", "org/Other"), 1234: ("Model-7B",)}
    found = find({}, lambda port: models.get(port, ()))
    assert [f.name for f in found] == ["llama3-8b", "Model-7B", "Other", "Model-7B-1234"]
    assert found[0].base_url == "http://127.0.0.1:11434/v1"
    made = config.make(yaml.safe_load(init.render(found)))
    assert made.drivers["Model-7B"].model == "org/Model-7B"
    assert made.drivers["Model-7B"].profile.input_usd_per_mtok == 0.0


@pytest.mark.parametrize(
    ("body", "models"),
    [(b'{"data":[{"id":"m1","x":1},{"id":"m2"}]}', ("m1", "m2")), (b"<html>", ()), (b'{"data":3}', ())],
)
def test_asks_a_real_port(body, models):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert discover.models_at(port) == models
        thread.join()
    assert discover.models_at(port) == ()


def test_litellm():
    found, notes = import_litellm.convert(yaml.safe_load(LITELLM))
    by_name = {f.name: f for f in found}
    assert list(by_name) == ["gpt", "gpt-2", "own", "llama", "proxied"]
    gpt, claude, own, llama, proxied = found
    assert (gpt.type, gpt.model, gpt.key) == ("openai_chat", "gpt-x", "OPENAI_KEY")
    assert gpt.profile.input_usd_per_mtok == 2.5
    assert gpt.profile.output_usd_per_mtok == 10.0
    assert gpt.profile.context_tokens == 128000
    assert (claude.type, claude.key) == ("anthropic_messages", "GPT_2_API_KEY")
    assert (own.model, own.base_url, own.key) == ("org/Model-7B", "http://10.0.0.5:8000/v1", None)
    assert own.profile.input_usd_per_mtok == 0.0
    assert llama.base_url == "http://127.0.0.1:11434/v1"
    assert proxied.key is None
    told = "\n".join(notes)
    for word in ("temperature", "mode", "litellm_settings", "bedrock", "GPT_2_API_KEY", "model_list[4]"):
        assert word in told
    for secret in ("literal-9876", "hush-aws"):
        assert secret not in told + init.render(found, notes)


def test_from_litellm(run, tmp_path, capsys):
    (tmp_path / "litellm.yaml").write_text(LITELLM)
    assert run("--from-litellm", "litellm.yaml") == 0
    text = (tmp_path / "fairlead.yaml").read_text()
    assert "literal-9876" not in text
    assert "# Not taken over: " in text
    made = config.load(tmp_path / "fairlead.yaml")
    assert made.drivers["gpt"].api_key == "${OPENAI_KEY}"
    assert "note: " in capsys.readouterr().out


@pytest.mark.parametrize("text", ["model_list: 3", "[]", "a: {", "api_key: 'sk-hush\n: ["])
def test_not_a_litellm_config(run, tmp_path, capsys, text):
    (tmp_path / "x.yaml").write_text(text)
    assert run("--from-litellm", "x.yaml") == 1
    assert run("--from-litellm", "missing.yaml") == 1
    assert "hush" not in capsys.readouterr().err
    assert not (tmp_path / "fairlead.yaml").exists()
    with pytest.raises(ConfigError):
        import_litellm.read(tmp_path / "x.yaml")


def test_odd_names_survive_yaml():
    found = [Found(name="a-b", type="openai_chat", model='we"ird: #x\\', base_url="http://h/v1", source="test")]
    data = yaml.safe_load(init.render(found, ["line\nbreak: [x"]))
    assert data["targets"]["a-b"]["model"] == 'we"ird: #x\\'
