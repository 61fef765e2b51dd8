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
from fairlead.lab.pool import TARGETS

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
    litellm_params: {model: sagemaker/thing, aws_secret_access_key: hush-aws}
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
    assert list(made.drivers) == [t.name for t in TARGETS]
    assert made.drivers["lab-numbers-scratch"].mode == "scratch"
    assert "auto" in made.policies
    assert made.gateway.port == 4356
    assert "wrote fairlead.yaml with 6 targets" in capsys.readouterr().out


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
    taken = import_litellm.convert(yaml.safe_load(LITELLM))
    found, notes = taken.targets, taken.notes
    assert [f.name for f in found] == ["gpt-1", "gpt-2", "own", "llama", "proxied"]
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
    for word in ("temperature", "litellm_settings.drop_params", "sagemaker", "GPT_2_API_KEY", "model_list[4]"):
        assert word in told
    for secret in ("literal-9876", "hush-aws"):
        assert secret not in told + init.render(found, notes)


def test_from_litellm(run, tmp_path, capsys):
    (tmp_path / "litellm.yaml").write_text(LITELLM)
    assert run("--from-litellm", "litellm.yaml") == 0
    text = (tmp_path / "fairlead.yaml").read_text()
    assert "literal-9876" not in text
    assert "# Note: " in text
    made = config.load(tmp_path / "fairlead.yaml")
    assert made.drivers["gpt-1"].api_key == "${OPENAI_KEY}"
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


def litellm(*models):
    return {"model_list": [{"model_name": name, "litellm_params": params} for name, params in models]}


def test_the_clouds_are_taken_over_from_litellm(run, tmp_path):
    models = litellm(
        (
            "az",
            {
                "model": "azure/my-gpt",
                "api_base": "https://res.openai.azure.com",
                "api_key": "os.environ/AZ",
                "api_version": "2024-10-21",
            },
        ),
        ("az-token", {"model": "azure/gpt", "api_base": "https://r.azure.com/", "azure_ad_token": "eyJhush"}),
        (
            "aws",
            {
                "model": "bedrock/converse/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "aws_region_name": "eu-central-1",
                "aws_access_key_id": "os.environ/AWS_ID",
                "aws_secret_access_key": "hush-aws",
            },
        ),
        ("half", {"model": "bedrock/amazon.nova-lite-v1:0", "aws_secret_access_key": "os.environ/X"}),
        ("vx", {"model": "vertex_ai/gemini-2.5-pro", "vertex_project": "p", "vertex_location": "europe-west1"}),
        (
            "vc",
            {"model": "vertex_ai/claude-opus-4-5", "vertex_project": "os.environ/P", "vertex_credentials": "{hush}"},
        ),
        ("vm", {"model": "vertex_ai/meta/llama-4"}),
        ("ge", {"model": "gemini/gemini-2.5-flash"}),
        ("vl", {"model": "hosted_vllm/m", "api_base": "http://10.0.0.5:8000/v1"}),
    )
    (tmp_path / "l.yaml").write_text(yaml.safe_dump(models, sort_keys=False))
    assert run("--from-litellm", "l.yaml") == 0
    text = (tmp_path / "fairlead.yaml").read_text()
    assert "hush" not in text
    made = config.load(tmp_path / "fairlead.yaml").drivers
    assert list(made) == ["az", "az-token", "aws", "half", "vx", "vc", "ge", "vl"]
    assert [d.type_name() for d in made.values()] == [
        *("azure_openai", "azure_openai", "bedrock", "bedrock", "vertex", "vertex", "gemini", "openai_chat"),
    ]
    az, token, aws, half, vx, vc, ge, vl = made.values()
    assert (az.model, az.endpoint, az.api_version) == ("my-gpt", "https://res.openai.azure.com", "2024-10-21")
    assert az.api_key == "${AZ}"
    assert (token.token, token.api_key) == ("${AZ_TOKEN_AZURE_AD_TOKEN}", None)
    assert (aws.model, aws.region) == ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "eu-central-1")
    assert (aws.access_key, aws.secret_key) == ("${AWS_ID}", "${AWS_AWS_SECRET_ACCESS_KEY}")
    assert (half.access_key, half.secret_key) == (None, None)
    assert (vx.project, vx.location, vc.project, vc.credentials) == ("p", "europe-west1", None, None)
    assert (ge.api_key, ge.profile.input_usd_per_mtok) == ("${GEMINI_API_KEY}", 0.3)
    assert vl.provider == "vllm"
    for word in (
        "vertex_project stands in a variable",
        "vertex_credentials is written out",
        "meta/llama-4",
        "access key and secret",
    ):
        assert word in text


def test_a_model_called_auto_does_not_clash_with_the_route(run, tmp_path, capsys):
    x = {"model": "openai/gpt-x"}
    (tmp_path / "l.yaml").write_text(yaml.safe_dump(litellm(("auto", x), ("gpt-x", x), ("auto", x))))
    assert run("--from-litellm", "l.yaml") == 0
    made = config.load(tmp_path / "fairlead.yaml")
    assert list(made.drivers) == ["auto-target-1", "gpt-x", "auto-target-2"]
    assert list(made.policies) == ["auto", "auto-target"]
    out = capsys.readouterr().out
    assert "note: model_list[0]: auto is the name of the route over all, so auto-target stands for it" in out


def test_names_that_are_found_twice():
    models = {11434: ("auto", "x/A", "y/A", "z/A", "gpt-small")}
    found = find({"OPENAI_API_KEY": "k"}, lambda port: models.get(port, ()))
    names = [f.name for f in found]
    assert len(set(names)) == len(names) == 7
    assert "auto" not in names
    config.make(yaml.safe_load(init.render(found)))


@pytest.mark.parametrize("key", ["none", "None", "EMPTY", "dummy", "", "not-needed", "sk-no-key-required", None])
def test_a_key_that_stands_for_no_key(key):
    params = {"model": "openai/m", "api_base": "http://10.0.0.6/v1", "api_key": key}
    taken = import_litellm.convert(litellm(("m", params)))
    assert [f.key for f in taken.targets] == [None]
    assert not any("written out" in note for note in taken.notes)


def test_known_prices_are_filled_in_and_unknown_ones_told(run, tmp_path, capsys):
    free = {"model": "openai/m", "input_cost_per_token": 0, "output_cost_per_token": 0}
    models = litellm(("big", {"model": "openai/gpt-4o"}), ("odd", {"model": "openai/gpt-x"}), ("free", free))
    (tmp_path / "l.yaml").write_text(yaml.safe_dump(models))
    assert run("--from-litellm", "l.yaml") == 0
    made = config.load(tmp_path / "fairlead.yaml")
    assert made.drivers["big"].profile.input_usd_per_mtok == 2.5
    assert made.drivers["big"].profile.output_usd_per_mtok == 10.0
    assert made.drivers["odd"].profile.output_usd_per_mtok is None
    assert made.drivers["free"].profile.output_usd_per_mtok == 0.0
    out = capsys.readouterr().out
    assert "note: no price is known for odd:" in out
    assert "# No price is known for odd:" in (tmp_path / "fairlead.yaml").read_text()
    assert "note: model_list[0]: it names no full price, so big has the list price" in out


def test_what_the_catalogue_prices_is_not_called_unpriced(run, tmp_path, capsys):
    (tmp_path / "l.yaml").write_text(yaml.safe_dump(litellm(("five", {"model": "openai/gpt-5-mini-2025-08-07"}))))
    assert run("--from-litellm", "l.yaml") == 0
    out = capsys.readouterr().out
    assert "no price is known" not in out
    assert "five has the list price that the catalogue knows of gpt-5-mini" in out
    assert config.load(tmp_path / "fairlead.yaml").drivers["five"].profile.output_usd_per_mtok == 2.0


def test_what_would_not_load_is_not_written(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(discover, "find", lambda: [Found(name="a", type="openai_chat", model="m", base_url="ftp://h")])
    assert run() == 1
    assert not (tmp_path / "fairlead.yaml").exists()
    assert "$.targets.a.base_url" in capsys.readouterr().err
