"""`import fairlead` stays light, and imports point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "fairlead"
HEAVY = [
    "torch",
    "sklearn",
    "starlette",
    "uvicorn",
    "aiohttp",
    "pyarrow",
    "matplotlib",
    "openai",
    "tqdm",
    "scipy",
    "psycopg",
]


@pytest.mark.parametrize(
    "what",
    [
        "fairlead",
        "fairlead.router",
        "fairlead.config",
        "fairlead.testing",
        "fairlead.policies.thompson",
        "fairlead.predictors.knn",
    ],
)
def test_importing_the_core_loads_nothing_heavy(what: str) -> None:
    code = f"import sys, {what}; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def imports_of(path: Path) -> set[str]:
    """Names of Fairlead modules that the file imports when it is loaded (not inside functions)."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fairlead"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(a.name for a in node.names if a.name.startswith("fairlead"))
    return found


LAYERS = [
    {
        "errors",
        "coalesce",
        "timeouts",
        "version",
        "types",
        "component",
        "objective",
        "catalog",
        "secret",
        "redis",
        "rewards",
        "trust",
        "ranking",
    },
    {
        "conditions",
        "detect",
        "pool",
        "preferences",
        "scorers",
        "table",
        "store",
        "sequential",
        "signals",
        "embeddings",
        "caches",
        "answers",
        "plans",
        "tokens",
        "lab",
    },
    {
        "build",
        "chain",
        "database",
        "spool",
        "writer",
        "sqlproof",
        "sqlstore",
        "sqlite",
        "postgres",
        "ledger",
        "predictors",
        "targets",
        "worlds",
    },
    {"policies", "actions", "guards"},
    {"learner", "replica", "router", "spending", "probing"},
    {"config", "lint", "profiles", "prove", "testing", "explain"},
    {"bench", "gateway", "cli", "discover", "import_litellm"},
]


def test_imports_point_one_way() -> None:
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path in SRC.rglob("*.py"):
        part = path.relative_to(SRC).parts[0].removesuffix(".py")
        if part in ("__init__", "lab"):
            continue
        for module in imports_of(path):
            other = module.split(".")[1] if "." in module else "__init__"
            if other != "__init__" and level[other] > level[part]:
                wrong.append(f"{path.relative_to(SRC)} imports {module}")
            if other == "gateway" and part not in ("gateway", "cli"):
                wrong.append(f"{path.relative_to(SRC)} imports the gateway")
    assert not wrong
