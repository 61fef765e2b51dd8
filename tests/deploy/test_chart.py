"""The Helm chart: rendered by Helm's own library, checked against the schemas of Kubernetes, and read by the gateway itself."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead import config
from fairlead.cli import parser
from fairlead.gateway.door import OPEN, Door

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "fairlead"
PLAIN = ROOT / "deploy" / "kubernetes" / "fairlead.yaml"
PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
needs_helm = pytest.mark.skipif(not PYTHON.exists(), reason="Helm's library is not installed: make deploy-tools")

ONE = "sha256:" + "1" * 64
DATABASE = f"""
targets: {{small: {{type: scripted}}}}
routes: {{auto: {{policy: {{type: thompson}}}}}}
store: {{url: "${{FAIRLEAD_DATABASE_URL}}", spool: /var/lib/fairlead/spool}}
gateway: {{drain_seconds: 30, keys: {{alice: "{ONE}"}}}}
"""
SPOOL = ", spool: /var/lib/fairlead/spool"
PLACED = "store: {path: /var/lib/fairlead/fairlead.sqlite}"


def rendered(values: Mapping[str, Any] | None, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "deploy/render.py", *options]
    if values is not None:
        file = folder / "values.yaml"
        file.write_text(json.dumps(values), "utf-8")
        command.append(str(file))
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})


def by_kind(stream: str) -> dict[str, Any]:
    return {m["kind"]: m for m in yaml.safe_load_all(stream)}


@needs_helm
def test_the_linter_finds_nothing(tmp_path: Path) -> None:
    report = json.loads(rendered(None, tmp_path, "--lint").stdout)
    assert report["errors"] == []
    assert [m["error"] for m in report["messages"] if m["severity"] > 1] == []


@needs_helm
def test_the_plain_manifests_are_what_the_chart_renders(tmp_path: Path) -> None:
    done = rendered(None, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PLAIN.read_text("utf-8"), "run `make manifests`"


@needs_helm
def test_all_that_can_be_switched_on_renders_and_is_valid(tmp_path: Path) -> None:
    values = {
        "config": DATABASE,
        "secrets": {"OPENAI_API_KEY": {"secret": "fairlead", "key": "openai"}},
        "database": {"existingSecret": "fairlead-database"},
        "autoscaling": {"enabled": True},
        "serviceMonitor": {"enabled": True, "secret": "fairlead-scrape", "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "enabled": True,
            "from": [{"namespaceSelector": {"matchLabels": {"team": "apps"}}}],
            "to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}],
        },
        "service": {"annotations": {"a": "b"}},
        "serviceAccount": {"annotations": {"a": "b"}},
        "imagePullSecrets": [{"name": "registry"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"a": "b"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
                ]
            }
        },
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    }
    done = rendered(values, tmp_path)
    assert done.returncode == 0, done.stderr
    found = by_kind(done.stdout)
    assert {"HorizontalPodAutoscaler", "NetworkPolicy", "ServiceMonitor", "PodDisruptionBudget"} <= set(found)
    assert "PersistentVolumeClaim" not in found, "with a database no pod keeps a file"
    deployment = found["Deployment"]["spec"]
    assert "replicas" not in deployment, "the autoscaler says how many"
    assert deployment["strategy"]["type"] == "RollingUpdate"
    pod = deployment["template"]["spec"]
    references = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in pod["containers"][0]["env"]}
    assert references == {
        "OPENAI_API_KEY": {"name": "fairlead", "key": "openai"},
        "FAIRLEAD_DATABASE_URL": {"name": "fairlead-database", "key": "url"},
    }
    assert "Secret" not in found


@needs_helm
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 2}, "replica"),
        ({"secrets": {"KEY": "sk-written-out"}}, "secrets"),
        ({"config": "targets: ["}, "config is not YAML"),
        ({"config": "{gateway: {}}"}, "gateway.keys is empty"),
        ({"config": f"{PLACED}\ngateway: {{keys: {{}}}}"}, "gateway.keys is empty"),
        ({"config": f"gateway: {{keys: {{a: '{ONE}'}}}}"}, "store.path must lie in /var/lib/fairlead"),
        ({"replicas": 2}, "belongs to one pod"),
        ({"autoscaling": {"enabled": True}}, "belongs to one pod"),
        ({"database": {"existingSecret": "d"}}, "does not name ${FAIRLEAD_DATABASE_URL}"),
        ({"config": DATABASE.replace(SPOOL, ""), "database": {"existingSecret": "d"}}, "store.spool must lie in"),
        ({"terminationGracePeriodSeconds": 25}, "must be more than preStopSeconds"),
        ({"serviceMonitor": {"enabled": True}}, "/metrics asks for a key"),
        ({"resources": {"limit": {"cpu": 1}}}, "'limit' was unexpected"),
    ],
)
def test_what_would_not_run_is_refused_with_the_reason(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    done = rendered(values, tmp_path)
    assert done.returncode != 0
    assert said in done.stderr


@needs_helm
def test_a_changed_config_is_a_new_pod(tmp_path: Path) -> None:
    def digest(values: dict[str, Any] | None) -> str:
        template = by_kind(rendered(values, tmp_path).stdout)["Deployment"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["fairlead/config-sha256"])

    text = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["config"]
    assert digest(None) == digest({"config": text, "podLabels": {"a": "b"}})
    assert digest(None) != digest({"config": text + "seed: 1\n"})


def test_its_config_is_one_that_the_gateway_loads_and_nobody_can_come_in() -> None:
    text = by_kind(PLAIN.read_text("utf-8"))["ConfigMap"]["data"]["fairlead.yaml"]
    read = config.make(config.parse(text))
    door = Door(keys=read.gateway.keys, host="0.0.0.0")
    assert door.locked
    assert set(read.gateway.keys.values()) == {"sha256:" + "0" * 64}


def test_a_config_for_a_database_is_one_that_the_gateway_loads() -> None:
    read = config.make(config.parse(DATABASE))
    assert read.file.store.url == "${FAIRLEAD_DATABASE_URL}"


def test_the_pod_is_what_a_restricted_namespace_asks_for() -> None:
    pod = by_kind(PLAIN.read_text("utf-8"))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text("utf-8")
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert container["resources"]["limits"]["memory"]


def test_its_command_and_probes_are_what_the_gateway_has() -> None:
    manifests = by_kind(PLAIN.read_text("utf-8"))
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    args = parser("serve").parse_args(container["args"])
    (port,) = container["ports"]
    assert args.port == port["containerPort"]
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert str(Path(args.config).parent) in mounts
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in OPEN
        assert container[probe]["httpGet"]["port"] == port["name"]
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    chosen = manifests["Service"]["spec"]["selector"].items()
    assert chosen <= manifests["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_chart_and_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    from fairlead.version import VERSION

    assert chart["appVersion"] == chart["version"] == VERSION
