"""One YAML file -> a router and its gateway. Config is constructor arguments: each mapping's keys are the keywords of what it builds.

::

    targets:                         # who can act; `type` names the wire format, the rest are its arguments
      small: {type: local, model: lab-small}
      gpt:   {type: openai_chat, model: gpt-x, base_url: "https://…/v1", api_key: "${OPENAI_API_KEY}"}
    signals:                         # optional: those of the catalogue that need no arguments are there when something reads them
      keyword: {rules: {legal: [contract, liability]}}
    routes:                          # what a client may ask for as `model`; a target's own name always works too
      auto: {policy: {type: thompson, objective: {usd_weight: 50}}}
    learning: {batch: 32, seconds: 1.0}
    store:   {path: fairlead.sqlite}
    guards:                          # what may never happen, whatever a policy would like
      - {name: private, when: {pii.found: true}, only: ["tag:local"], do: [mask]}
    gateway: {host: 127.0.0.1, port: 4356}

An unknown key is an error with its path and the nearest known name. Secrets are written as ``${NAME}`` and read from the environment
when a target is opened; they are never stored. Relative paths (``store.path``, ``trained``, models, tokenizers, a cache's file) start from
the folder of the file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct
from msgspec.structs import replace

from fairlead import catalog, conditions, guards, profiles, tokens
from fairlead.actions.base import Action
from fairlead.build import build, construct
from fairlead.component import Component, digest, pack
from fairlead.embeddings.base import share
from fairlead.errors import ConfigError, UnknownName, suggest
from fairlead.guards import Guard
from fairlead.ledger import Ledger
from fairlead.policies.base import Policy, check_records
from fairlead.pool import Health, Pool
from fairlead.predictors.base import Predictor
from fairlead.redis import Link
from fairlead.router import Router
from fairlead.signals.base import Observer, Signal
from fairlead.sqlstore import SQLStore, kept_at
from fairlead.store import Store
from fairlead.targets.base import Driver
from fairlead.targets.gate import Gate
from fairlead.targets.strategy import bind
from fairlead.trust import Trust
from fairlead.worlds.lanes import Lanes
from fairlead.worlds.live import Live
from fairlead.worlds.retries import Retries

log = logging.getLogger(__name__)

DEFAULT_SIGNALS = ("conversation", "embedding", "language", "length", "marks", "ngrams", "style")


class RouteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One route: a name that clients may ask for as `model`. `guards` are its own, beside those of every request."""

    policy: Any
    guards: list[Any] = []


class ObserveConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a decision waits for slow signals, and how many are read at a time."""

    budget_seconds: Annotated[float, Meta(gt=0.0)] = 0.1
    threads: Annotated[int, Meta(ge=1)] = 4


class TrustConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the sources of feedback are told apart: the arguments of `fairlead.trust.Trust`."""

    anchors: list[str] = []
    memory: Annotated[int, Meta(ge=1)] = 2000
    half_life: Annotated[float, Meta(gt=0.0)] = 1000.0


class LearningConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How feedback is learned: at most `batch` answers together, none waiting longer than `seconds`, weighed by `trust` if it is given."""

    batch: Annotated[int, Meta(ge=1)] = 32
    seconds: Annotated[float, Meta(ge=0.0)] = 1.0
    trust: TrustConfig | None = None


class StoreConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where traces go: the file `path`, or the PostgreSQL database `url`. `relaxed`: do not wait for the operating system; `text`: keep prompts
    and answers; `synchronous`: ``full`` survives a power cut too, at the price of a disk flush per commit; `outage`, `spool`, `spool_bytes`: what
    becomes of traces while the database is gone; `budgets`: and of requests whose budget or limit nobody can look up then; `retention_days`:
    forget what is older."""

    path: str = "fairlead.sqlite"
    url: str | None = None
    relaxed: bool = False
    text: bool = True
    synchronous: Literal["normal", "full"] = "normal"
    outage: Literal["refuse", "spool"] | None = None
    """None: ``spool`` with `url`, else ``refuse``."""
    spool: str | None = None
    """None: ``fairlead.spool`` with `url`, else the name of the file with ``.spool``."""
    spool_bytes: Annotated[int, Meta(ge=1)] = 256_000_000
    budgets: Literal["refuse", "serve"] = "refuse"
    retention_days: Annotated[float, Meta(gt=0.0)] | None = None

    @property
    def where(self) -> str:
        """The URL or the path."""
        return self.path if self.url is None else self.url

    def placed(self, folder: Path) -> StoreConfig:
        """Return it with relative paths starting from `folder`."""
        spool = self.spool or (None if self.url is None else "fairlead.spool")
        return replace(self, path=str(folder / self.path), spool=None if spool is None else str(folder / spool))

    def make(self, *, read_only: bool = False) -> SQLStore:
        """Make the store, not yet started. Raises `ConfigError`."""
        given = msgspec.structs.asdict(self)
        del given["path"], given["url"], given["budgets"]
        try:
            return kept_at(self.where, read_only=read_only, **{k: v for k, v in given.items() if v is not None})
        except ConfigError as e:
            raise ConfigError(e.message, path="$.store.url") from e


class BudgetConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `usd` in each calendar day or month (UTC), or in all."""

    usd: Annotated[float, Meta(ge=0.0, le=1e9)]
    period: Literal["day", "month", "total"]


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may be asked at a time. None: as much as there is."""

    requests_per_minute: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    concurrent: Annotated[int, Meta(ge=1, le=10**12)] | None = None


class ScopeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a team or a tenant may use up, all its keys together."""

    budgets: Annotated[list[BudgetConfig], Meta(max_length=3)] = []
    limits: LimitsConfig = LimitsConfig()


class KeyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key, and whom it stands for. What it leaves open a request may say of itself, but for roles and the team.

    `vouches`: it is a front end's, which has checked who asks and says so in headers (``x-fairlead-tenant``, ``-user``, ``-roles``).
    """

    hash: str
    tenant: str | None = None
    team: str | None = None
    user: str | None = None
    roles: list[str] = []
    vouches: bool = False
    routes: list[str] | None = None
    """What may be asked for as ``model``; None: all."""
    targets: list[str] | None = None
    """Who may act; None: all."""
    budgets: Annotated[list[BudgetConfig], Meta(max_length=3)] = []
    limits: LimitsConfig = LimitsConfig()
    expires: datetime | None = None
    """A moment without a time zone is in UTC."""


Host = Annotated[
    str,
    Meta(pattern=r"^(?i:((https?|gs|s3)://)?(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[0-9]{1,5})?)$", max_length=300),
]


class UrlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses that requests name for targets to fetch."""

    allow: list[Host] = []
    """Hosts: ``images.example.org``, ``*.example.org``, ``http://…``, ``*``; see `fairlead.gateway.urls`."""


class FilesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files and batches that clients keep here."""

    max_bytes: Annotated[int, Meta(ge=1)] = 100_000_000
    days: Annotated[float, Meta(gt=0.0)] = 30.0
    """How long a file is kept."""
    batch_concurrent: Annotated[int, Meta(ge=1)] = 8
    """Lines of a batch under way at once in one process."""


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `fairlead serve` writes to standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "warning"
    access: bool = False
    """A line for each request."""


class TelemetryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenTelemetry over OTLP/HTTP (see `fairlead.gateway.telemetry`)."""

    endpoint: str | None = None
    """The collector's address, without ``/v1/traces``; None: as ``OTEL_EXPORTER_OTLP_ENDPOINT`` says."""
    headers: dict[str, str] = {}
    """Sent to the collector; those that carry credentials must be references."""
    service: str = "fairlead"
    sample: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    """Share of requests whose spans are sent, of those without a ``traceparent``. Metrics count all."""
    text: bool = False
    """Send prompts and answers too, where traces keep them."""
    propagate: bool = False
    """Pass a ``traceparent`` on to upstreams."""
    delay_seconds: Annotated[float, Meta(gt=0.0)] = 2.0
    """How long a request's spans wait for others at most."""
    metrics_seconds: Annotated[float, Meta(gt=0.0)] = 15.0
    timeout_seconds: Annotated[float, Meta(gt=0.0)] = 5.0
    """For one sending, repeats included."""


class RedisConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Redis server through which gateways share rates and breakers (see `fairlead.gateway.shared`)."""

    url: str = "redis://127.0.0.1:6379/0"
    """``redis://host:port/number``, or ``rediss://`` for TLS; without a password."""
    username: str | None = None
    password: str | None = None
    """A reference, ``${NAME}``."""
    prefix: str = "fairlead:gateway:"
    """What all its keys begin with: gateways of different prefixes know nothing of each other."""
    timeout_seconds: Annotated[float, Meta(gt=0.0)] = 0.25
    """How long one question may take; beyond that Redis counts as gone."""

    def link(self) -> Link:
        """Make its connections, not yet opened. Raises `ConfigError`."""
        return Link(url=self.url, username=self.username, password=self.password, seconds=self.timeout_seconds)


class GatewayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP edge. `keys`: name -> ``sha256:…`` as printed by `fairlead key new`, or a `KeyConfig`; required unless bound to loopback."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 4356
    keys: dict[str, str | KeyConfig] = {}
    admin_keys: dict[str, str] = {}
    """Name -> ``sha256:…``: who may ask for ``/admin``."""
    limits: dict[str, ScopeConfig] = {}
    """``team:NAME`` or ``tenant:NAME`` -> what all its keys together may use up."""
    max_in_flight: Annotated[int, Meta(ge=1)] = 1000
    """Requests for answers under way in one process; beyond that a 503 is sent at once."""
    max_body_bytes: Annotated[int, Meta(ge=1)] = 20_000_000
    drain_seconds: Annotated[float, Meta(ge=0.0)] = 10.0
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processes that serve, see `fairlead.gateway.workers`."""
    shared: bool | None = None
    """Whether other gateways serve on the same store: one of them learns, and budgets are kept for all together. None: if there are several
    workers, or the store is a PostgreSQL database."""
    redis: RedisConfig | None = None
    """None: rates are shared through the store, and each process keeps breakers alone."""
    files: FilesConfig = FilesConfig()
    urls: UrlsConfig = UrlsConfig()
    """Which addresses of pictures and files are passed on to targets."""
    log: LogConfig = LogConfig()
    telemetry: TelemetryConfig | None = None
    """None: only if the environment names a collector."""
    strongest: str | None = None
    """The target that savings are measured against (default: the one with the highest output price)."""


class RetriesConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a call that cost nothing is sent again: the arguments of `fairlead.worlds.retries.Retries`."""

    most: Annotated[int, Meta(ge=0)] = 2
    base_seconds: Annotated[float, Meta(gt=0.0)] = 0.5
    patience_seconds: Annotated[float, Meta(ge=0.0)] = 8.0
    share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2


class QueueConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many calls wait for a target that takes only so many at once (`profile.concurrent`), and how long."""

    waiting: Annotated[int, Meta(ge=0)] = 200
    seconds: Annotated[float, Meta(gt=0.0)] = 30.0


class BreakerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a target rests after failures, and for how long: the arguments of `fairlead.pool.Health`."""

    failures: Annotated[int, Meta(ge=1)] = 3
    rest_seconds: Annotated[float, Meta(gt=0.0)] = 5.0
    most_seconds: Annotated[float, Meta(gt=0.0)] = 300.0
    probe_seconds: Annotated[float, Meta(gt=0.0)] = 2.0


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The top level of a config file."""

    targets: dict[str, Any]
    routes: dict[str, RouteConfig]
    signals: dict[str, Any] = {}
    learning: LearningConfig = LearningConfig()
    store: StoreConfig = StoreConfig()
    gateway: GatewayConfig = GatewayConfig()
    observe: ObserveConfig = ObserveConfig()
    conditions: dict[str, Any] = {}
    """Conditions by name, for guards and rules."""
    guards: list[Any] = []
    """Guards of every request."""
    actions: dict[str, Any] = {}
    """What guards and rules may order, by name. An action that needs no arguments goes by its catalogue name without standing here."""
    seed: int = 0
    fallbacks: Annotated[int, Meta(ge=0)] = 2
    retries: RetriesConfig = RetriesConfig()
    queue: QueueConfig = QueueConfig()
    breaker: BreakerConfig = BreakerConfig()
    profiles: str | None = None
    """A file that goes over the catalogue of profiles (see `fairlead.profiles`)."""


class Config(Struct, frozen=True, kw_only=True):
    """A config that has been checked and built; `router` puts it together."""

    drivers: dict[str, Driver]
    policies: dict[str, Policy]
    signals: dict[str, Signal]
    guards: tuple[Guard, ...] = ()
    route_guards: dict[str, tuple[Guard, ...]] = {}
    actions: dict[str, Action] = {}
    file: File
    digest: str = ""
    """Names what the file says, wherever it lies and whatever the command line says beside it, so that anybody can see which config is live.
    Secrets are no part of it but by the names of their variables."""

    @property
    def gateway(self) -> GatewayConfig:
        """Settings of the HTTP edge."""
        return self.file.gateway

    @property
    def shared(self) -> bool:
        """Whether other processes serve on the same store."""
        said = self.gateway.shared
        return self.gateway.workers > 1 if said is None else said

    def router(self, *, store: Store | None = None, ledger: Ledger | None = None) -> Router:
        """Make the router, not yet started. `store` and `ledger`: those of the router whose place it takes (see `Router.start`)."""
        for name, driver in self.drivers.items():
            if driver.remote and not profiles.priced(driver.profile):
                log.warning(
                    "target %s: no price is known, so what it costs is not counted; write it into its profile", name
                )
        trust = self.file.learning.trust
        health = Health(**msgspec.structs.asdict(self.file.breaker))
        pool = Pool(targets=(d.target for d in self.drivers.values()), health=health)
        if store is None:
            store = self.file.store.make()
        return Router(
            pool=pool,
            world=Live(
                drivers=self.drivers,
                health=health,
                estimate=pool.estimate_usd,
                lanes=Lanes(**msgspec.structs.asdict(self.file.queue)),
                retries=Retries(**msgspec.structs.asdict(self.file.retries)),
            ),
            observer=Observer(signals=self.signals, **msgspec.structs.asdict(self.file.observe)),
            guards=self.guards,
            route_guards=self.route_guards,
            actions=self.actions,
            policies=self.policies,
            store=store,
            ledger=ledger or Ledger(store, serve=self.file.store.budgets == "serve"),
            shared=self.shared,
            seed=self.file.seed,
            fallbacks=self.file.fallbacks,
            learn_batch=self.file.learning.batch,
            learn_seconds=self.file.learning.seconds,
            trust=None if trust is None else Trust(**msgspec.structs.asdict(trust)),
        )


def load(path: str | Path) -> Config:
    """Read, check and build a config file.

    Raises:
        ConfigError: if it cannot be read, or with the path of the wrong key.
    """
    try:
        text = Path(path).read_text("utf-8")
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}; `fairlead init` writes a config to start from") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path} is not YAML: {e}") from e
    return make(parse(text, name=str(path)), folder=Path(path).parent)


def parse(text: str, *, name: str = "the config") -> Any:
    """Read YAML as builtin data. Raises `ConfigError`, also for a key that is there twice: the first would be lost silently."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise ConfigError(f"{name} is not YAML: {e}") from e
    except ConfigError as e:
        raise ConfigError(f"{name}, {e.message}") from e


class _Loader(yaml.SafeLoader):
    """The safe loader, and no key twice. Asked where nodes are made, before a merge key (``<<``) adds what may be overridden."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise ConfigError(f"line {key.start_mark.line + 1}: the key {key.value!r} is there already")
                seen.add((key.tag, key.value))
        return node


def make(data: Any, *, folder: Path | None = None) -> Config:
    """Check and build a config from builtin data.

    `folder` is where relative paths start from; None: the working directory. Raises `ConfigError` with the path of the wrong key.
    """
    if not isinstance(data, Mapping):
        raise ConfigError("a config is a mapping with `targets` and `routes`; `fairlead init` writes one to start from")
    file: File = construct(File, data, path="$")
    as_written = file
    for name in file.gateway.keys:
        if not name or "/" in name:  # a source of feedback is named key/source
            raise ConfigError(f"{name!r} is no name of a key; give it one without a '/'", path="$.gateway.keys")
    if file.learning.trust is not None and file.learning.trust.anchors and not file.gateway.keys:
        log.warning(
            "learning.trust.anchors: without gateway.keys whoever sends feedback may call itself %s, and is believed",
            " or ".join(file.learning.trust.anchors),
        )
    if folder is not None:
        placed = None if file.profiles is None else str(folder / file.profiles)
        file = replace(file, store=file.store.placed(folder), profiles=placed)
    if file.store.url is not None:
        file.store.make(read_only=True)  # opens nothing; a wrong URL, or a password in it, is told here
    if file.gateway.redis is not None:
        try:
            file.gateway.redis.link()
        except ConfigError as e:
            raise ConfigError(e.message, path="$.gateway.redis" + e.path.removeprefix("$")) from e
    if not file.targets:
        raise ConfigError("name at least one target", path="$.targets")
    known = profiles.load(file.profiles)
    drivers = {
        name: build("targets", profiles.filled(_placed(spec, folder), known), path=f"$.targets.{name}", name=name)
        for name, spec in file.targets.items()
    }
    bind(drivers)
    for name, driver in drivers.items():
        _check_tokenizer(driver, f"$.targets.{name}.profile.tokenizer")
    _check_keys(file)
    signals = {name: build("signals", name) for name in DEFAULT_SIGNALS}
    for name, spec in file.signals.items():
        spec = _placed(spec, folder)
        untyped = isinstance(spec, Mapping) and "type" not in spec and set(spec) != {"trained"}
        spec = {"type": name, **spec} if untyped else (spec or name)
        signals[name] = build("signals", spec, path=f"$.signals.{name}")
    named = conditions.parse_named(file.conditions)
    policies = {}
    for name, route in file.routes.items():
        if name in drivers:
            raise ConfigError(f"a target is called {name!r} too; rename one of them", path=f"$.routes.{name}")
        spec = _with_conditions(_placed(route.policy, folder), file.conditions)
        policies[name] = build("policies", spec, path=f"$.routes.{name}.policy")
        _settle({f"$.routes.{name}.policy": policies[name]}, folder, drivers)
    house = guards.read(file.guards, path="$.guards", named=named)
    own = {
        r: guards.read(c.guards, path=f"$.routes.{r}.guards", named=named) for r, c in file.routes.items() if c.guards
    }
    every = [(f"$.guards[{i}]", g) for i, g in enumerate(house)]
    for r, found in own.items():
        for i, g in enumerate(found):
            if any(g.name == h.name for h in house):
                said = f"a guard of the whole file is called {g.name!r} too, so a trace could not tell them apart; rename one"
                raise ConfigError(said, path=f"$.routes.{r}.guards[{i}].name")
            every.append((f"$.routes.{r}.guards[{i}]", g))
    # A signal that needs no arguments need not stand in the file to be read.
    needed = dict.fromkeys(k.partition(".")[0] for _, guard in every for k in guard.keys)
    gates = {name: d for name, d in drivers.items() if isinstance(d, Gate)}
    for gate in gates.values():
        needed |= dict.fromkeys(gate.needs)
    for policy in policies.values():
        needed |= dict.fromkeys(policy.needs)
    for name in needed:
        if name not in signals and name in catalog.names("signals"):
            signals[name] = build("signals", name, path=f"$.signals.{name}")
    _settle({f"$.signals.{name}": signal for name, signal in signals.items()}, folder, drivers)
    _settle({f"$.targets.{name}": driver for name, driver in drivers.items()}, folder, drivers, beside=signals.values())
    observer = Observer(signals=signals)
    for name, policy in policies.items():
        at = f"$.routes.{name}.policy"
        for path, part in policy.walk(at):
            if isinstance(part, Policy):
                _check_tests(part, path, signals)
        try:
            observer.check(policy.needs)
        except UnknownName as e:
            raise ConfigError(f"the policy reads a signal that is not there: {e}", path=at) from e
    for name, gate in gates.items():
        try:
            observer.check(gate.needs)
        except UnknownName as e:
            raise ConfigError(f"the gate reads a signal that is not there: {e}", path=f"$.targets.{name}") from e
        gate.reads_with(observer)
    for path, guard in every:
        _check_guard(guard, path, drivers, signals)
    ordered = {name: f"{path}.do" for path, guard in every for name in guard.do}
    for of, policy in policies.items():
        for path, part in policy.walk(f"$.routes.{of}.policy"):
            if isinstance(part, Policy):
                ordered |= {name: path + inner.removeprefix("$") for inner, name in part.orders}
    actions = _actions(_placed(file.actions, folder), ordered)
    _settle({f"$.actions.{n}": action for n, action in actions.items()}, folder, drivers, beside=signals.values())
    return Config(
        drivers=drivers,
        policies=policies,
        signals=signals,
        guards=house,
        route_guards=own,
        actions=actions,
        file=file,
        digest=_named(as_written),
    )


def _named(file: File) -> str:
    """Return the digest of what a file says."""
    try:
        return digest(pack(msgspec.to_builtins(file, order="deterministic")))
    except OverflowError as e:  # such as the value of a key that nothing reads as a number
        raise ConfigError("a number in it has more than 64 bits") from e


def _check_keys(file: File) -> None:
    """Find what keys allow that is not there."""
    for name, key in file.gateway.keys.items():
        if isinstance(key, str):
            continue
        for kind, known in (("routes", {*file.routes, *file.targets}), ("targets", set(file.targets))):
            for said in getattr(key, kind) or ():
                if said not in known:
                    text = f"no {kind[:-1]} is called {said!r}; {suggest(said, known)}"
                    raise ConfigError(text, path=f"$.gateway.keys.{name}.{kind}")


def _placed(data: Any, folder: Path | None) -> Any:
    """Let relative paths that are read while components are built (trained ones, a profile's tokenizer) start from `folder`."""
    if folder is None:
        return data
    match data:
        case {"trained": str(path)} if len(data) == 1:
            return {"trained": str(folder / path)}
        case {"profile": {"tokenizer": str(path), **profile}, **rest}:
            return {**rest, "profile": {**profile, "tokenizer": str(folder / path)}}
        case Mapping():
            # A condition may well test a signal called trained.
            return {k: v if k in ("when", "conditions") else _placed(v, folder) for k, v in data.items()}
        case list() | tuple():
            return [_placed(v, folder) for v in data]
    return data


def _settle(
    components: Mapping[str, Component],
    folder: Path | None,
    drivers: Mapping[str, Driver],
    *,
    beside: Iterable[Component] = (),
) -> None:
    """Let the files that components (by path) and those inside them name (`Component.paths`) start from `folder`, and equal embedders, also
    of those `beside`, be one; then check each: a model is loaded once."""
    for path, component in components.items():
        for _, part in component.walk(path):
            for key in part.paths if folder is not None else ():
                if (file := getattr(part, key)) is not None:
                    setattr(part, key, str(folder / file))
    share([*beside, *components.values()])
    for path, component in components.items():
        for at, part in component.walk(path):
            _check(part, at, drivers)


def _check(part: Component, path: str, drivers: Mapping[str, Driver]) -> None:
    """Find what only shows once everything is there."""
    try:
        part.check()
        if isinstance(part, Policy):
            check_records(part)
    except ConfigError as e:
        raise ConfigError(e.message, path=path + e.path.removeprefix("$")) from e
    match part:
        case Policy():
            for inner, name in part.names:
                if name not in drivers:
                    at = path + inner.removeprefix("$")
                    raise ConfigError(f"no target is called {name!r}; {suggest(name, drivers)}", path=at)
        case Action():
            for name in part.names:
                if name not in drivers:
                    raise ConfigError(f"no target is called {name!r}; {suggest(name, drivers)}", path=path)
        # A gate may forecast what is no target: ways to answer, say, that a plan knows by name.
        case Predictor() if part.fitted and not set(part.targets_) & set(drivers) and not path.startswith("$.targets."):
            knows = ", ".join(part.targets_)
            raise ConfigError(f"the predictor was trained on none of the targets here; it knows {knows}", path=path)


def _check_tests(policy: Policy, path: str, signals: Mapping[str, Signal]) -> None:
    """Find tests of what no signal says: they would never hold."""
    for inner, key in policy.tests:
        _check_key(key, path + inner.removeprefix("$"), signals)


def _check_key(key: str, path: str, signals: Mapping[str, Signal]) -> None:
    name, _, part = key.partition(".")
    if name not in signals:
        raise ConfigError(
            f"{key}: no signal is called {name!r}; {suggest(name, {*signals, *catalog.names('signals')})}", path=path
        )
    parts = signals[name].parts() if part else None
    if parts is not None and part not in parts:
        hint = suggest(part, parts) if parts else "it has no parts"
        raise ConfigError(f"{key}: the signal {name!r} has no part {part!r}; {hint}", path=path)


def _check_guard(guard: Guard, path: str, drivers: Mapping[str, Driver], signals: Mapping[str, Signal]) -> None:
    """Find what a guard reads that no signal says, and whom it means that is not there: it would protect nobody, or refuse all."""
    for key in guard.keys:
        _check_key(key, f"{path}.when", signals)
    for field in ("only", "never"):
        for selector in getattr(guard, field) or ():
            if any(guards.selects(selector, d.target) for d in drivers.values()):
                continue
            kind, colon, name = selector.partition(":")
            if colon and kind in guards.KINDS:
                advice = f"write it in a target's profile: {{profile: {{{kind}s: [{name}]}}}}"
                raise ConfigError(f"no target has the {kind} {name!r}; {advice}", path=f"{path}.{field}")
            raise ConfigError(f"no target is called {selector!r}; {suggest(selector, drivers)}", path=f"{path}.{field}")


def _actions(specs: Mapping[str, Any], ordered: Mapping[str, str]) -> dict[str, Action]:
    """Build the actions that the config describes, and those that are ordered by their catalogue name alone."""
    built: dict[str, Action] = {}
    for name, spec in specs.items():
        at = f"$.actions.{name}"
        spec = {"type": name, **spec} if isinstance(spec, Mapping) and "type" not in spec else (spec or name)
        built[name] = build("actions", spec, path=at)
    for name, path in ordered.items():
        if name in built:
            continue
        if name not in catalog.names("actions"):
            known = [*specs, *catalog.names("actions")]
            raise ConfigError(f"no action is called {name!r}; {suggest(name, known)}", path=path)
        built[name] = build("actions", name, path=f"$.actions.{name}")
    return built


def _with_conditions(data: Any, named: Mapping[str, Any]) -> Any:
    """Give each `rules` policy in a policy's spec those of the file's conditions that it uses: a policy is whole in itself."""
    match data:
        case Mapping():
            found = {k: v if k == "when" else _with_conditions(v, named) for k, v in data.items()}
            if named and data.get("type") == "rules":
                found["conditions"] = _shared(data, named)
            return found
        case list() | tuple():
            return [_with_conditions(v, named) for v in data]
    return data


def _shared(policy: Mapping[str, Any], named: Mapping[str, Any]) -> Any:
    own, rules = policy.get("conditions") or {}, policy.get("rules") or ()
    if not isinstance(own, Mapping) or not isinstance(rules, list | tuple):
        return own  # the policy says what is wrong, and where
    named = {**named, **own}
    used = [r["when"] for r in rules if isinstance(r, Mapping) and "when" in r]
    wanted = conditions.mentioned({"all": [*used, *own.values()]}, named)
    return {name: spec for name, spec in named.items() if name in own or name in wanted}


def _check_tokenizer(driver: Driver, path: str) -> None:
    """Find a tokenizer that cannot be read."""
    tokenizer = driver.target.profile.tokenizer
    if tokenizer is not None:
        try:
            tokens.load(tokenizer)
        except ConfigError as e:
            raise ConfigError(e.message, path=path) from e
