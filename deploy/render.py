"""Render the Helm chart with Helm's own library, as one stream of manifests on standard output.

Run by the environment of `make deploy-tools`: ``render.py [VALUES.yaml]``; with ``--lint`` it prints what Helm's linter says (JSON). Each
manifest is checked against the JSON schema of the Kubernetes version in `VERSIONS`, strictly: an unknown key is an error. What is no part
of Kubernetes itself (`ServiceMonitor`) has no schema here and is not checked. The manifests in ``deploy/kubernetes`` are what this prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import yaml

CHART = Path(__file__).parent / "helm" / "fairlead"
VERSIONS = ("1.25", "1.37")
HEAD = (
    "# The chart deploy/helm/fairlead with its own values, by `make manifests`. Put your config into the ConfigMap.\n"
)
# The order in which they are applied.
ORDER = ("ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Service", "Deployment")


def render(values: dict[str, Any] | None) -> list[str]:
    """Return the manifests of a release called `fairlead`, each as text."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="fairlead", namespace="default")
    found = [text.strip() for path, text in rendered.items() if path.endswith(".yaml") and text.strip()]

    def place(text: str) -> tuple[int, str]:
        kind = yaml.safe_load(text)["kind"]
        return (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)

    return sorted(found, key=place)


def main(arguments: list[str]) -> int:
    """Print, or say what is wrong and return 1."""
    files = [a for a in arguments if not a.startswith("--")]
    values = yaml.safe_load(Path(files[0]).read_text("utf-8")) if files else None
    if "--lint" in arguments:
        sys.stdout.write(json.dumps(helm_python.lint(CHART, values, strict=True)))
        return 0
    try:
        manifests = render(values)
    except helm_python.HelmError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    for manifest in map(yaml.safe_load, manifests):
        if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as e:
                where = ".".join(map(str, e.path))
                sys.stderr.write(f"{manifest['kind']} against Kubernetes {version}: {where}: {e.message}\n")
                return 1
    sys.stdout.write(HEAD + "---\n" + "\n---\n".join(manifests) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
