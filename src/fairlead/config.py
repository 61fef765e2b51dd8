"""One YAML file -> a router and its gateway. Config is constructor arguments: each mapping's keys are the keywords of what it builds.

::

    targets:                         # who can act; `type` names the wire format, the rest are its arguments
      small: {type: local, model: lab-small}
      gpt:   {type: openai_chat, model: gpt-x, base_url: "https://…/v1", api_key: "${OPENAI_API_KEY}"}
    signals:                         # optional; these are there by default: length, marks, embedding, language, conversation
      keyword: {rules: {legal: [contract, liability]}}
    routes:                          # what a client may ask for as `model`; a target's own name always works too
      auto: {policy: {type: thompson, objective: {usd_weight: 50}}}
    learning: {batch: 32, seconds: 1.0}
    store:   {path: fairlead.sqlite}
    gateway: {host: 127.0.0.1, port: 4356}

An unknown key is an error with its path and the nearest known name. Secrets are written as ``${NAME}`` and read from the environment
when a target is opened; they are never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct

from fairlead import catalog
from fairlead.build import build, construct
from fairlead.component import Component
from fairlead.errors import ConfigError, UnknownName, suggest
from fairlead.policies.base import Policy
from fairlead.pool import Pool
from fairlead.predictors.base import Predictor
from fairlead.router import Router
from fairlead.signals.base import Observer, Signal
from fairlead.sqlite import SQLiteStore
from fairlead.targets.base import Driver
from fairlead.worlds.live import Live

DEFAULT_SIGNALS = ("conversation", "embedding", "language", "length", "marks")


class RouteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One route: a name that clients may ask for as `model`."""

    policy: Any


class LearningConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How feedback is learned: at most `batch` answers together, none waiting longer than `seconds`."""

    batch: int = 32
    seconds: float = 1.0


class StoreConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where traces go. `relaxed`: do not wait for the operating system; `text`: keep prompts and answers;
    `synchronous`: ``full`` survives a power cut too, at the price of a disk flush per commit."""

    path: str = "fairlead.sqlite"
    relaxed: bool = False
    text: bool = True
    synchronous: Literal["normal", "full"] = "normal"


class GatewayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP edge. `keys`: name -> ``sha256:…`` as printed by `fairlead key`; required unless bound to loopback."""

    host: str = "127.0.0.1"
    port: int = 4356
    keys: dict[str, str] = {}
    max_body_bytes: int = 20_000_000
    drain_seconds: float = 10.0
    strongest: str | None = None
    """The target that savings are measured against (default: the one with the highest output price)."""


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The top level of a config file."""

    targets: dict[str, Any]
    routes: dict[str, RouteConfig]
    signals: dict[str, Any] = {}
    learning: LearningConfig = LearningConfig()
    store: StoreConfig = StoreConfig()
    gateway: GatewayConfig = GatewayConfig()
    seed: int = 0
    fallbacks: int = 2


class Config(Struct, frozen=True, kw_only=True):
    """A config that has been checked and built; `router` puts it together."""

    drivers: dict[str, Driver]
    policies: dict[str, Policy]
    signals: dict[str, Signal]
    file: File

    @property
    def gateway(self) -> GatewayConfig:
        """Settings of the HTTP edge."""
        return self.file.gateway

    def router(self) -> Router:
        """Make the router, not yet started."""
        pool = Pool(targets=(d.target for d in self.drivers.values()))
        return Router(
            pool=pool,
            world=Live(drivers=self.drivers, health=pool.health, estimate=pool.estimate_usd),
            observer=Observer(signals=self.signals),
            policies=self.policies,
            store=SQLiteStore(**msgspec.structs.asdict(self.file.store)),
            seed=self.file.seed,
            fallbacks=self.file.fallbacks,
            learn_batch=self.file.learning.batch,
            learn_seconds=self.file.learning.seconds,
        )


def load(path: str | Path) -> Config:
    """Read, check and build a config file.

    Raises:
        ConfigError: if it cannot be read, or with the path of the wrong key.
    """
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}; `fairlead init` writes a config to start from") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} is not YAML: {e}") from e
    return make(data)


def make(data: Any) -> Config:
    """Check and build a config from builtin data. Raises `ConfigError` with the path of the wrong key."""
    if not isinstance(data, Mapping):
        raise ConfigError("a config is a mapping with `targets` and `routes`; `fairlead init` writes one to start from")
    file: File = construct(File, data, path="$")
    if not file.targets:
        raise ConfigError("name at least one target", path="$.targets")
    drivers = {name: build("targets", spec, path=f"$.targets.{name}", name=name) for name, spec in file.targets.items()}
    signals = {name: build("signals", name) for name in DEFAULT_SIGNALS}
    for name, spec in file.signals.items():
        spec = {"type": name, **spec} if isinstance(spec, Mapping) and "type" not in spec else (spec or name)
        signals[name] = build("signals", spec, path=f"$.signals.{name}")
        for path, part in signals[name].walk(f"$.signals.{name}"):
            _check(part, path, drivers)
    policies = {}
    observer = Observer(signals=signals)
    for name, route in file.routes.items():
        at = f"$.routes.{name}.policy"
        if name in drivers:
            raise ConfigError(f"a target is called {name!r} too; rename one of them", path=f"$.routes.{name}")
        policies[name] = build("policies", route.policy, path=at)
        for path, part in policies[name].walk(at):
            _check(part, path, drivers)
        try:
            observer.check(policies[name].needs)
        except UnknownName as e:
            raise ConfigError(f"the policy reads a signal that is not there: {e}", path=at) from e
    return Config(drivers=drivers, policies=policies, signals=signals, file=file)


def _check(part: Component, path: str, drivers: Mapping[str, Driver]) -> None:
    """Find what only shows once everything is there."""
    try:
        part.check()
    except ConfigError as e:
        raise ConfigError(e.message, path=path + e.path.removeprefix("$")) from e
    match part:
        case Policy():
            for name in part.names:
                if name not in drivers:
                    raise ConfigError(f"no target is called {name!r}; {suggest(name, drivers)}", path=path)
        case Predictor() if part.fitted and not set(part.targets_) & set(drivers):
            knows = ", ".join(part.targets_)
            raise ConfigError(f"the predictor was trained on none of the targets here; it knows {knows}", path=path)


def known() -> dict[str, list[str]]:
    """List every name that a config may use, family by family."""
    return {family: catalog.names(family) for family in catalog.CATALOG}


def show(config: Config) -> bytes:
    """Return the config as it was read, as JSON; secrets are still references."""
    return msgspec.json.encode(config.file)
