"""What `fairlead init --from-litellm` makes of names, deployments, settings and missing prices. Targets by themselves: test_init.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from fairlead import config
from fairlead.cli import init
from fairlead.gateway.app import Gateway
from fairlead.gateway.server import Server
from fairlead.import_litellm import PARAMS, SETTINGS, Imported, convert
from fairlead.objective import Objective
from fairlead.types import Forecast

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "from-litellm.md"
DOWN = {"error": {"kind": "unavailable", "message": "down"}}


def entry(name: str, model: str, *, info: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}, "model_info": info or {}}


def taken(*models: dict[str, Any], **sections: Any) -> tuple[Imported, dict[str, Any], str]:
    """Return what was taken over, the config that is written as data (it loads), and the notes as one text."""
    imported = convert({"model_list": list(models), **sections})
    data = yaml.safe_load(
        init.render(imported.targets, imported.notes, imported.routes, keeps_text=imported.keeps_text)
    )
    config.make(data)
    return imported, data, "\n".join(imported.notes)


# ---------------------------------------------------------------------------------------------------------- wildcards


@pytest.mark.parametrize(
    ("name", "model", "instead"),
    [
        ("openai/*", "openai/*", "openai/NAME"),
        ("*", "*", "NAME"),
        ("*", "openai/gpt-4o", "openai/gpt-4o"),
        ("azure", "azure/gpt-*", "azure/NAME"),
    ],
)
def test_a_wildcard_is_left_out_and_told_what_to_write(name: str, model: str, instead: str) -> None:
    _, data, notes = taken(entry("gpt", "openai/gpt-4o"), entry(name, model, api_key="os.environ/K"))
    assert list(data["targets"]) == ["gpt"]
    assert "*" not in str(data)
    assert "model_list[1]: left out" in notes
    assert "is a wildcard" in notes
    assert f"litellm_params: {{model: {instead}, …}}" in notes


def test_nothing_but_wildcards_is_no_config(tmp_path: Path) -> None:
    imported = convert({"model_list": [entry("openai/*", "openai/*")]})
    assert not imported.targets
    assert len(imported.notes) == 1


# ---------------------------------------------------------------------------------------------------------- variables


def test_addresses_in_variables_are_taken_as_they_are_now_and_secrets_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_BASE", "https://r.azure.com")
    monkeypatch.setenv("AZURE_API_KEY", "hush-hush")
    monkeypatch.setenv("PROJECT", "p1")
    monkeypatch.delenv("NOWHERE", raising=False)
    azure = {"api_base": "os.environ/AZURE_API_BASE", "api_key": "os.environ/AZURE_API_KEY"}
    imported, data, notes = taken(
        entry("gpt-4o", "azure/mine", **azure),
        entry(
            "gem",
            "vertex_ai/gemini-2.5-pro",
            vertex_project="os.environ/PROJECT",
            vertex_credentials="os.environ/AZURE_API_KEY",
        ),
        entry("lost", "azure/mine", api_base="os.environ/NOWHERE"),
    )
    assert data["targets"]["gpt-4o"]["endpoint"] == "https://r.azure.com"
    assert data["targets"]["gpt-4o"]["api_key"] == "${AZURE_API_KEY}"
    assert data["targets"]["gem"]["project"] == "p1"
    assert "lost" not in data["targets"]
    assert "model_list[0]: its api_base is what the variable AZURE_API_BASE says now" in notes
    assert "left out, its api_base stands in the variable NOWHERE, which is not set here; export it" in notes
    assert "hush" not in init.render(imported.targets, imported.notes, imported.routes)


# -------------------------------------------------------------------------------------------------------- deployments


def test_deployments_of_one_name_are_a_route_over_targets() -> None:
    azure = entry("gpt-4o", "azure/mine", api_base="https://r.azure.com", api_version="2024-10-21")
    imported, data, notes = taken(azure, entry("other", "openai/gpt-4o"), entry("gpt-4o", "openai/gpt-4o"))
    assert list(data["targets"]) == ["gpt-4o-1", "other", "gpt-4o-2"]
    assert list(data["routes"]) == ["auto", "gpt-4o"]
    assert data["routes"]["gpt-4o"]["policy"] == {"type": "random"}
    assert data["routes"]["gpt-4o"]["guards"] == [{"name": "deployments", "only": ["gpt-4o-1", "gpt-4o-2"]}]
    assert imported.routes[0].shares == {"gpt-4o-1": 1.0, "gpt-4o-2": 1.0}
    assert "model_list[2]: its target is called gpt-4o-2" in notes


def scripted(data: dict[str, Any], tmp_path: Path, **replies: Any) -> config.Config:
    """Return the config with targets that answer from a script, under the names that the import gave them."""
    targets = {
        name: {"type": "scripted", "replies": [replies.get(name.replace("-", "_"), name)]} for name in data["targets"]
    }
    own = {"breaker": {"failures": 1000}, "retries": {"most": 0}}  # nobody rests, so both are asked to the end
    gateway = {"port": 0}
    store = {"path": str(tmp_path / "s.sqlite")}
    return config.make({**data, **own, "targets": targets, "gateway": gateway, "store": store})


async def ask(made: config.Config, model: str, times: int) -> list[tuple[int, str | None, bool]]:
    """Return (status, who answered, whether another had failed first) of each request."""
    out = []
    async with (
        Gateway.of(made) as app,
        Server(app, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        for _ in range(times):
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            async with http.post("/v1/chat/completions", json=body) as r:
                h = r.headers
                out.append((r.status, h.get("x-fairlead-target"), "x-fairlead-fallbacks" in h))
    return out


DEPLOYMENTS = (entry("gpt-4o", "openai/gpt-4o"), entry("gpt-4o", "openai/gpt-4o"), entry("claude", "claude-sonnet-4-5"))


async def test_a_client_of_the_shared_name_gets_failover(tmp_path: Path) -> None:
    _, data, _ = taken(*DEPLOYMENTS)
    answers = await ask(scripted(data, tmp_path, gpt_4o_1=DOWN), "gpt-4o", 24)
    assert {(status, who) for status, who, _ in answers} == {(200, "gpt-4o-2")}
    # Both are asked first: with 24 even draws one of the two is missed with probability 2 ** -23.
    assert {failed for _, _, failed in answers} == {True, False}


async def test_both_answer_when_both_can(tmp_path: Path) -> None:
    _, data, _ = taken(*DEPLOYMENTS)
    answers = await ask(scripted(data, tmp_path), "gpt-4o", 24)
    assert {who for _, who, _ in answers} == {"gpt-4o-1", "gpt-4o-2"}


async def test_nobody_of_another_name_takes_over_without_fallbacks(tmp_path: Path) -> None:
    _, data, _ = taken(*DEPLOYMENTS)
    answers = await ask(scripted(data, tmp_path, gpt_4o_1=DOWN, gpt_4o_2=DOWN), "gpt-4o", 3)
    assert {status for status, _, _ in answers} == {502}


async def test_fallbacks_take_over_last(tmp_path: Path) -> None:
    _, data, _ = taken(*DEPLOYMENTS, router_settings={"fallbacks": [{"gpt-4o": ["claude"]}]})
    assert data["routes"]["gpt-4o"]["policy"]["weights"] == {"gpt-4o-1": 1, "gpt-4o-2": 1, "claude": 0}
    one = await ask(scripted(data, tmp_path / "a", gpt_4o_2=DOWN), "gpt-4o", 8)
    assert {who for _, who, _ in one} == {"gpt-4o-1"}
    both = await ask(scripted(data, tmp_path / "b", gpt_4o_1=DOWN, gpt_4o_2=DOWN), "gpt-4o", 3)
    assert {(status, who) for status, who, _ in both} == {(200, "claude")}


def test_a_single_deployment_with_fallbacks_keeps_its_name_as_a_route() -> None:
    settings = {"fallbacks": [{"a": ["b", "gone"]}, {"none": ["a"]}]}
    _, data, notes = taken(entry("a", "openai/a"), entry("b", "openai/b"), litellm_settings=settings)
    assert list(data["targets"]) == ["a-1", "b"]
    assert data["routes"]["a"]["policy"]["weights"] == {"a-1": 1, "b": 0}
    assert "litellm_settings.fallbacks: of a, left out" in notes
    assert "litellm_settings.fallbacks: of none, left out" in notes


@pytest.mark.parametrize("odd", ["os.environ/X", [["a"]], {"a": 3}, [{"a": [{"model": "b"}]}]])
def test_odd_fallbacks_and_aliases_are_told(odd: Any) -> None:
    _, data, notes = taken(entry("a", "openai/a"), router_settings={"fallbacks": odd, "model_group_alias": odd})
    assert list(data["routes"]) == ["auto"]
    assert "router_settings.fallbacks: " in notes
    assert "router_settings.model_group_alias" in notes


def test_names_with_ends_of_lines_and_absurd_numbers_leave_a_config_that_loads() -> None:
    odd = entry("a\nb\u2028c", "openai/gpt-4o", timeout=1e308, max_tokens=1e300, info={"max_input_tokens": 1e300})
    insists = entry("i", "anthropic/claude-sonnet-4-5", max_tokens=1e300)
    settings = {
        "fallbacks": [{"gpt": ["a\nb\u2028c"]}],
        "model_group_alias": {"al\nias": "a\nb\u2028c"},
        "timeout": 1e308,
    }
    _, data, notes = taken(entry("gpt", "openai/gpt-4o"), odd, insists, router_settings=settings)
    assert {"gpt", "al\nias", "a\nb\u2028c"} <= set(data["routes"])
    assert "router_settings.timeout: left out" in notes


def test_fallbacks_of_a_model_that_is_called_as_the_route_over_all() -> None:
    settings = {"fallbacks": [{"gpt": ["auto"]}, {"auto": ["gpt"]}], "model_group_alias": {"other": "auto"}}
    _, data, notes = taken(entry("auto", "openai/gpt-4o"), entry("gpt", "openai/gpt-4o"), router_settings=settings)
    assert "left out" not in notes
    assert data["routes"]["gpt"]["policy"]["weights"] == {"gpt-1": 1, "auto-target-1": 0}
    assert set(data["routes"]) == {"auto", "auto-target", "gpt", "other"}


def test_a_long_route_may_fail_over_to_its_end() -> None:
    _, data, _ = taken(*(entry("gpt", "openai/gpt-4o") for _ in range(5)))
    assert data["fallbacks"] == 4
    assert "fallbacks" not in taken(entry("gpt", "openai/gpt-4o"), entry("gpt", "openai/gpt-4o"))[1]


@pytest.mark.parametrize(
    ("first", "second", "weights"),
    [
        ({"weight": 3, "rpm": 1}, {"weight": 1, "rpm": 9}, {"m-1": 3, "m-2": 1}),
        ({"rpm": 600}, {"rpm": 60}, {"m-1": 600, "m-2": 60}),
        ({"tpm": 1e6}, {"tpm": 2000000}, {"m-1": 1000000, "m-2": 2000000}),
        ({"rpm": 600}, {}, None),
        ({"weight": "many"}, {"weight": 1}, None),
        ({"weight": 0}, {"weight": 0}, None),
    ],
)
def test_shares_are_what_litellm_shuffles_by(first: Any, second: Any, weights: Any) -> None:
    _, data, notes = taken(entry("m", "openai/a", **first), entry("m", "openai/b", **second))
    assert data["routes"]["m"]["policy"].get("weights") == weights
    left = {*first, *second} - ({"weight"} if weights == {"m-1": 3, "m-2": 1} else set(first) if weights else set())
    for key in left:
        assert f".{key}: not taken over; here: {PARAMS[key]}" in notes


def test_a_name_that_no_target_can_have_is_a_route(tmp_path: Path) -> None:
    _, data, _ = taken(entry("azure/gpt-4o", "openai/x"), entry("openai/gpt-4o", "openai/y"), entry("m:8b", "openai/z"))
    assert {name: route["guards"][0]["only"] for name, route in data["routes"].items() if "guards" in route} == {
        "azure/gpt-4o": ["gpt-4o"],
        "openai/gpt-4o": ["gpt-4o-1"],
        "m:8b": ["m-8b"],
    }


def test_names_that_clients_use_are_never_given_to_others() -> None:
    gpt = "openai/gpt-4o"
    _, data, _ = taken(
        entry("m", gpt), entry("m", gpt), entry("m-1", gpt), router_settings={"model_group_alias": {"m-2": "m"}}
    )
    assert list(data["targets"]) == ["m-1-2", "m-2-2", "m-1"]
    assert data["routes"]["m-2"]["guards"][0]["only"] == ["m-1-2", "m-2-2"]


def test_aliases_are_routes_over_the_same_targets() -> None:
    aliases = {"gpt-4": "gpt-4o", "old": {"model": "gpt-4o", "hidden": True}, "auto": "gpt-4o", "lost": "nobody"}
    _, data, notes = taken(entry("gpt-4o", "openai/gpt-4o"), router_settings={"model_group_alias": aliases})
    assert list(data["routes"]) == ["auto", "gpt-4", "old"]
    assert data["routes"]["old"]["guards"][0]["only"] == ["gpt-4o"]
    for lost in ("auto", "lost"):
        assert f"router_settings.model_group_alias.{lost}: left out" in notes


def test_embedding_models_of_one_name_take_over_for_each_other() -> None:
    small = "text-embedding-3-small"
    azure = entry(
        "vec", "azure/mine", api_base="https://r.azure.com", info={"mode": "embedding"}, input_cost_per_token=2e-8
    )
    _, data, notes = taken(azure, entry("vec", f"openai/{small}"), entry("one", f"openai/{small}"))
    profiles = [data["targets"][n]["profile"] for n in ("vec-1", "vec-2", "one")]
    assert [p["tasks"] for p in profiles] == [["embeddings"]] * 3
    assert [p.get("space") for p in profiles] == ["vec", "vec", None]
    assert profiles[0]["output_usd_per_mtok"] == 0.0
    assert notes.count("count as those of the space vec") == 2


# ------------------------------------------------------------------------------------------- settings, and their notes


def test_what_has_a_counterpart_is_taken_over() -> None:
    _, data, notes = taken(
        entry("own", "openai/a", timeout=30, max_parallel_requests=4),
        entry("rest", "claude-x", max_tokens=900, info={"supports_vision": True, "supports_function_calling": False}),
        entry("odd", "openai/b", timeout="os.environ/T", info={"max_tokens": 4096}),
        litellm_settings={"request_timeout": 90, "turn_off_message_logging": True},
        router_settings={"timeout": 60, "routing_strategy": "simple-shuffle", "num_retries": None},
    )
    own, rest, odd = data["targets"].values()
    assert (own["timeout_seconds"], own["profile"]["concurrent"]) == (30, 4)
    assert (rest["timeout_seconds"], rest["max_tokens"]) == (60, 900)
    assert (rest["profile"]["modalities"], rest["profile"]["tools"]) == (["image", "text"], False)
    assert (odd["timeout_seconds"], odd["profile"]["max_output_tokens"]) == (60, 4096)
    assert data["store"]["text"] is False
    assert "model_list[2]: its timeout is not a number" in notes
    assert "litellm_settings.request_timeout: left out" in notes
    assert "no counterpart" not in notes


def test_models_that_do_something_else_are_left_out() -> None:
    _, data, notes = taken(entry("m", "openai/m"), entry("dall", "openai/dall-e-3", info={"mode": "image_generation"}))
    assert list(data["targets"]) == ["m"]
    assert "models of the mode 'image_generation'" in notes


def test_notes_name_what_does_the_work_here() -> None:
    _, _, notes = taken(
        entry("m", "openai/m", rpm=5, temperature=0.2, unheard_of=1),
        router_settings={"num_retries": 3, "novel": 1},
        litellm_settings={"cache": True},
        general_settings={"master_key": "sk-hush", "database_url": "postgres://hush"},
        guardrails=[{"guardrail_name": "hush"}],
        novelty={"a": "hush"},
    )
    for key, words in {
        "model_list[0].litellm_params.rpm": PARAMS["rpm"],
        "model_list[0].litellm_params.temperature": PARAMS["temperature"],
        "router_settings.num_retries": SETTINGS["num_retries"],
        "litellm_settings.cache": SETTINGS["cache"],
        "general_settings.master_key": SETTINGS["master_key"],
        "guardrails": SETTINGS["guardrails"],
    }.items():
        assert f"{key}: not taken over; here: {words}" in notes
    for key in ("model_list[0].litellm_params.unheard_of", "router_settings.novel", "novelty"):
        assert f"{key}: not taken over; it has no counterpart here" in notes
    assert "hush" not in notes


def test_the_guide_and_the_notes_agree() -> None:
    """What a note names a counterpart for stands in the guide's tables; what these say of settings of the file is not called without one."""
    told = GUIDE.read_text("utf-8").partition("## Headers")[0]
    rows = [line.split("|")[1:3] for line in told.splitlines() if line.startswith("| ")]
    said = {
        word: there
        for theirs, there in rows
        for name in re.findall(r"`([^`]+)`", theirs)
        for word in re.findall(r"\w+", name)
    }
    for key in {*PARAMS, *SETTINGS}:
        assert key in said, f"{key} is in no table of the guide"
        assert "no counterpart" not in said[key], f"the guide knows no counterpart of {key}, and the note does"
    settings = told.partition("## What the settings become")[2]
    firsts = [line.split("|")[1] for line in settings.splitlines() if line.startswith("| `")]
    own = {"fallbacks", "model_group_alias", "turn_off_message_logging", "content_policy_fallbacks", "soft_budget"}
    of_keys = {"team_id", "user_id", "models", "duration", "rpm_limit", "tpm_limit", "max_parallel_requests"}
    strategies = {"latency-based-routing", "cost-based-routing", "least-busy", "usage-based-routing"}
    for cell in firsts:
        for name in re.findall(r"`([\w-]+)", cell):
            assert name in {*SETTINGS, *PARAMS, *own, *of_keys, *strategies}, (
                f"the guide maps {name}, and the import knows nothing of it"
            )


# ---------------------------------------------------------------------------------------------------------------- prices


def test_list_prices_of_the_catalogue_are_told() -> None:
    """Also of models whose prices the config does not hold itself: they come with the catalogue when it is loaded."""
    _, data, notes = taken(entry("claude", "anthropic/claude-sonnet-4-5"), entry("v", "openai/text-embedding-3-small"))
    for at, name in ((0, "claude"), (1, "v")):
        assert f"model_list[{at}]: it names no full price, so {name} has the list price" in notes
    assert config.make(data).drivers["claude"].profile.output_usd_per_mtok == 15
    assert "unknown" not in data["routes"]["auto"]["policy"]["objective"]


def test_a_deployment_is_priced_as_its_base_model() -> None:
    azure = entry("az", "azure/mine", api_base="https://r.azure.com", info={"base_model": "azure/gpt-4o"})
    _, data, notes = taken(azure)
    assert data["targets"]["az"]["profile"]["output_usd_per_mtok"] == 10
    assert "az has the list price that Fairlead knows of gpt-4o; check it" in notes


def test_an_unpriced_target_does_not_look_free() -> None:
    """It counts as dear as the dearest whose price is known, for a typical answer; only then does quality decide."""
    imported, data, _ = taken(
        entry("big", "openai/gpt-4o"), entry("small", "openai/gpt-4o-mini"), entry("odd", "openai/odd")
    )
    objective = Objective(**data["routes"]["auto"]["policy"]["objective"])
    assert objective.unknown == pytest.approx(10 * (1000 * 2.5 + 500 * 10) / 1e6)
    odd, big = Forecast(quality=0.8), Forecast(quality=0.8, usd=0.0075)
    assert objective.utility(odd) == pytest.approx(objective.utility(big))
    assert objective.utility(odd) < objective.utility(Forecast(quality=0.8, usd=0.0001))
    (note,) = init._unpriced(imported.targets)
    assert "no price is known for odd: the route auto takes 0.075 off" in note
    assert "at big, the dearest" in note


def test_where_no_price_is_above_zero_it_counts_a_cent() -> None:
    own = entry("own", "openai/own", api_base="http://h/v1", input_cost_per_token=0, output_cost_per_token=0)
    _, data, _ = taken(own, entry("odd", "openai/odd"))
    assert data["routes"]["auto"]["policy"]["objective"] == {"usd_weight": 10, "unknown": 0.1}
