"""`fairlead key` and `fairlead ledger` on a config's store."""

import asyncio
from pathlib import Path

import pytest

from fairlead import cli
from fairlead.config import load
from fairlead.gateway import keys
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.keys import Actor, NewKey
from fairlead.ledger import micros
from fairlead.store import Connection
from fairlead.types import Query

ACTOR = Actor(who="test")

CONFIG = """
targets:
  a: {type: scripted, replies: [x], profile: {input_usd_per_mtok: 100, output_usd_per_mtok: 100, max_output_tokens: 1}}
routes: {auto: {policy: {type: fixed, plan: a}}}
gateway:
  keys: {own: {hash: "sha256:HASH", team: old}}
  limits: {"team:new": {limits: {concurrent: 3}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "fairlead.yaml"
    path.write_text(CONFIG.replace("HASH", "0" * 64))
    return str(path)


def say(*words: str) -> int:
    return cli.main(list(words))


def test_new(capsys: pytest.CaptureFixture[str]) -> None:
    for words, where in (([], "keys"), (["--admin"], "admin_keys")):
        assert say("key", "new", "bob", *words) == 0
        out = capsys.readouterr().out
        key = next(w for w in out.split() if w.startswith("fl-"))
        assert f'  {where}:\n    "bob": "{hashed(key)}"' in out
    assert say("key", "new", "no\nname") == 1


def test_the_life_of_a_key(file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        say(
            "key", "create", file, "bob", "--team", "new", "--budget", "0.00005/day", "--concurrent", "2", "--days", "9"
        )
        == 0
    )
    key, _, rest = capsys.readouterr().out.partition("\n")
    key, id = key.removeprefix("key (shown this once): "), rest.split()[0]
    assert key.startswith("fl-")
    assert "the first key" not in rest, "one stands in the config"
    assert say("key", "create", file, "bob") == 1
    assert say("key", "create", file, "own") == 1
    assert say("key", "create", file, "eve", "--budget", "much") == 1
    assert say("key", "create", file, "eve", "--budget", "1/week") == 1
    assert say("key", "create", file, "eve", "--target", "nobody") == 1
    assert "--target: no target is called 'nobody'" in capsys.readouterr().err
    assert say("key", "create", file) == 1
    assert "is a config, not whose key it is" in capsys.readouterr().err
    assert say("key", "rotate", file, "bob", "--overlap-seconds", "60") == 0
    capsys.readouterr()
    assert say("key", "list", file) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "config:own  own  (config)  team old"
    assert lines[1].startswith(f"{id}  bob  {key[:8]}  team new  expires 20")
    assert lines[2] == lines[4] == "    0.00005 USD/day; 2 at once"
    assert len(lines) == 5
    assert key not in "".join(lines)
    monkeypatch.chdir(Path(file).parent)
    assert say("key", "revoke", "bob") == 0, "of fairlead.yaml, where none is named"
    assert capsys.readouterr().out.count("is revoked") == 2
    assert say("key", "revoke", file, "nobody") == 1
    assert say("key", "rotate", file, "own") == 1


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e12", "-1"])
def test_an_overlap_without_end_is_refused(file: str, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("key", "create", file, "bob") == 0
    assert say("key", "rotate", file, "bob", "--overlap-seconds", seconds) == 1
    assert "from 0 to 2678400 (31 days)" in capsys.readouterr().err
    for days in ("nan", "1e12", "0", "inf"):
        assert say("key", "create", file, "eve", "--days", days) == 1
        assert "at most 36500 days" in capsys.readouterr().err


async def test_a_key_that_cannot_be_read_lets_nobody_in_and_keeps_nobody_out(
    file: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Gateway.of(load(file)) as gateway:
        store, ring = gateway.router.store, gateway.door.keyring
        made = {
            name: await store.transact("a key", lambda c, n=name: keys.create(c, ACTOR, NewKey(name=n)))  # type: ignore[misc]
            for name in ("ann", "bob")
        }

        def spoil(connection: Connection) -> None:
            connection.execute("UPDATE keys_issued SET body = ?, created = 'x' WHERE name = 'bob'", ("{}",))
            connection.execute("UPDATE keys_changes SET n = n + 1")

        await store.transact("spoil", spoil)
        await ring.refresh()
        assert [k.name for k in ring.shown()] == ["own", "ann"]
        assert f"the key {made['bob'].id} of the store cannot be read" in caplog.text
        await store.transact("a key", lambda c: keys.rotate(c, ACTOR, made["ann"].id, keys.MOST_OVERLAP_SECONDS))


def test_a_name_that_the_config_has_too(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in the store is revoked, and what cannot be is told."""
    path = Path(file)
    whole = path.read_text()
    path.write_text(whole.replace("own:", "other:"))
    assert say("key", "create", file, "own") == 0
    path.write_text(whole)
    capsys.readouterr()
    assert say("key", "revoke", file, "own") == 1
    said = capsys.readouterr()
    assert said.out.count("is revoked") == 1
    assert "'own' is a key of the config file, and works until" in said.err
    assert say("key", "revoke", file, "own") == 1
    said = capsys.readouterr()
    assert not said.out
    assert "'own' is a key of the config file, and works until" in said.err


@pytest.mark.parametrize("admins", [False, True])
def test_the_first_key_is_told_to_be_the_first(
    admins: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless an admin key asks everybody for one already."""
    path = tmp_path / "open.yaml"
    admin = f"gateway: {{admin_keys: {{root: {hashed('fl-root')}}}}}\n" if admins else ""
    path.write_text(f"targets: {{a: {{type: scripted}}}}\nroutes: {{}}\n{admin}")
    assert say("key", "list", str(path)) == 0
    assert ("nobody is let in" if admins else "whoever reaches the gateway is let in") in capsys.readouterr().out
    for name, first in (("ann", not admins), ("bob", False)):
        assert say("key", "create", str(path), name) == 0
        assert ("it is the first key" in capsys.readouterr().out) == first


async def _spend(file: str) -> int:
    """Answer one query that is charged to the key `bob`; return what it cost."""
    async with Gateway.of(load(file)) as gateway:
        accounts = gateway.door.keyring.callers["bob"].accounts
        outcome, trace = await gateway.router.handle(Query.ask("hi"), accounts=accounts)
        assert outcome.ok
        return micros(trace.usd or 0.0)


def test_ledger(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("key", "create", file, "bob", "--budget", "5/total") == 0
    spent = asyncio.run(_spend(file))
    assert spent > 0
    capsys.readouterr()
    assert say("ledger", file) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"key:bob/usd  total  spent {spent / 1e6:.6f}, held 0.000000, of 5.000000 USD",
        "team:new/concurrent  now  spent 0, held 0, of 3 concurrent",
    ]
    assert say("ledger", file, "--check") == 0
    assert capsys.readouterr().out.startswith("ok")
    store = load(file).file.store.make()
    store.start()
    store._blocking("test", lambda c, _: c.execute("UPDATE ledger_accounts SET spent = spent + 1"))
    store.stop()
    assert say("ledger", file, "--check") == 1
    assert f"DIFFERS  key:bob/usd/total: {spent + 1} micro-dollars by the ledger, {spent}" in capsys.readouterr().out
