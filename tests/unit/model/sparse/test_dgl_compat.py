"""DGL beside a current torch: what reckg uses of it works, the import leaves nothing behind, a failure is explained."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from reckg.errors import ArtifactError
from reckg.model.sparse import dgl_compat
from reckg.model.sparse.dgl_compat import dgl, import_dgl

ROOT = Path(__file__).resolve().parents[4]


def python(program: str, *first_on_path: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds the given folders before everything else."""
    path = os.pathsep.join(str(folder) for folder in (*first_on_path, ROOT))
    environment = {key: value for key, value in os.environ.items() if key != "DGLBACKEND"} | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def package(folder: Path, name: str, text: str) -> Path:
    """Writes folder/name/__init__.py; returns folder."""
    path = folder.joinpath(*name.split("."))
    path.mkdir(parents=True, exist_ok=True)
    (path / "__init__.py").write_text(dedent(text), encoding="utf-8")
    return folder


def test_what_reckg_uses_of_dgl_works() -> None:
    graph = dgl.graph((torch.tensor([1, 2, 0, 1]), torch.tensor([0, 0, 1, 2])), num_nodes=4)
    assert graph.in_degrees().tolist() == [2, 1, 1, 0]
    torch.testing.assert_close(
        dgl.nn.functional.edge_softmax(graph, torch.zeros(4)), torch.tensor([0.5, 0.5, 1.0, 1.0])
    )
    graph.ndata["h"] = torch.arange(4.0).unsqueeze(1)
    graph.update_all(dgl.function.copy_u("h", "m"), dgl.function.sum("m", "out"))
    assert graph.ndata["out"].squeeze(1).tolist() == [3, 0, 1, 0]


def test_samplers_and_walks_work() -> None:
    ring = torch.arange(12)
    graph = dgl.add_reverse_edges(dgl.graph((ring, (ring + 1) % 12)))
    loader = dgl.dataloading.DataLoader(
        graph, torch.arange(12), dgl.dataloading.NeighborSampler([2, 2]), batch_size=4, shuffle=False
    )
    sizes = [(len(inputs), len(outputs), len(blocks)) for inputs, outputs, blocks in loader]
    assert [size[1:] for size in sizes] == [(4, 2)] * 3
    walks, _ = dgl.sampling.random_walk(graph, torch.tensor([0, 5]), length=3)
    assert ((walks[:, 1:] - walks[:, :-1]).remainder(12).sub(6).abs() == 5).all()  # every step goes to a neighbour


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # DGL leaves /proc/self/status open
def test_metis_partitions_work() -> None:
    ring = torch.arange(12)
    graph = dgl.add_reverse_edges(dgl.graph((ring, (ring + 1) % 12)))
    parts = dgl.metis_partition_assignment(graph, 2)
    assert sorted(torch.bincount(parts).tolist()) == [6, 6]


def test_the_stand_in_is_not_left_behind() -> None:
    left = [name for name in sys.modules if name.startswith("setuptools.extern")]
    assert not left
    with pytest.raises(ImportError):
        importlib.import_module("setuptools.extern")


def test_a_second_import_is_the_same_module() -> None:
    assert import_dgl() is dgl is sys.modules["dgl"]


def test_in_a_fresh_process_other_packages_find_what_they_need_afterwards() -> None:
    result = python(
        """
        from reckg.model.sparse.dgl_compat import dgl
        import sys
        assert not [name for name in sys.modules if name.startswith("setuptools.extern")]
        import setuptools, packaging.version, torch
        assert not hasattr(setuptools, "extern")
        assert packaging.version.parse("2.1.0") < packaging.version.parse("2.13")
        graph = dgl.graph((torch.tensor([1]), torch.tensor([0])))
        print(dgl.__version__, graph.num_nodes(), sys.modules["setuptools"] is setuptools)
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-3:] == ["2.1.0", "2", "True"]


FAKE_DGL = """
    import sys
    from setuptools.extern import packaging
    import setuptools.extern.packaging.version
    where = packaging.__name__
    parsed = str(packaging.version.parse("1.2"))
    import dgl.graphbolt
"""


def test_the_stand_in_is_there_while_dgl_is_imported(tmp_path: Path) -> None:
    program = """
        from reckg.model.sparse.dgl_compat import dgl
        import os, sys
        print(dgl.where, dgl.parsed, os.environ["DGLBACKEND"])
        print([name for name in sys.modules if name.startswith("setuptools.extern")])
    """
    result = python(program, package(tmp_path, "dgl", FAKE_DGL))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["packaging 1.2 pytorch", "[]"]


def test_a_setuptools_that_still_has_its_own_is_not_touched(tmp_path: Path) -> None:
    package(tmp_path, "dgl", FAKE_DGL)
    package(tmp_path, "setuptools", "")
    package(tmp_path, "setuptools.extern", "")
    package(tmp_path, "setuptools.extern.packaging", "")
    (tmp_path / "setuptools" / "extern" / "packaging" / "version.py").write_text(
        "def parse(text): return 'own ' + text"
    )
    program = """
        from reckg.model.sparse.dgl_compat import dgl
        import setuptools.extern.packaging.version, sys
        print(dgl.where, dgl.parsed, sys.modules["setuptools.extern"] is setuptools.extern)
    """
    result = python(program, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["setuptools.extern.packaging", "own", "1.2", "True"]


def test_a_dgl_that_cannot_be_imported_is_a_clear_error(tmp_path: Path) -> None:
    program = """
        import sys
        try:
            import reckg.model.sparse.dgl_compat
        except Exception as error:
            print(type(error).__module__, type(error).__name__, error)
        print([name for name in sys.modules if name.startswith(("dgl", "setuptools.extern"))])
    """
    result = python(program, package(tmp_path, "dgl", "raise FileNotFoundError('libdgl.so is not there')"))
    assert result.returncode == 0, result.stderr
    message, left = result.stdout.splitlines()
    assert message.startswith(
        "reckg.errors ArtifactError DGL cannot be imported (FileNotFoundError: libdgl.so is not there)"
    )
    assert "2.1.0" in message and "torch 2.13" in message and "constraints.txt" in message
    assert left == "[]"


def test_a_missing_dgl_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.delitem(sys.modules, "dgl")
    monkeypatch.delitem(sys.modules, "dgl.graphbolt")
    monkeypatch.setattr(dgl_compat.importlib, "import_module", refuse)
    with pytest.raises(ArtifactError, match="No module named 'dgl'"):
        import_dgl()
    assert "dgl.graphbolt" not in sys.modules and "setuptools.extern" not in sys.modules
