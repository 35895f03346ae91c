"""Imports DGL 2.1.0, the newest release on PyPI, beside a current torch and setuptools.

DGL needs two things that are gone: ``setuptools.extern`` (it uses the copy of ``packaging`` in there), and a GraphBolt
library built for the very torch release (GraphBolt also needs ``torchdata.datapipes``). Its core needs neither:
graphs, message passing, ``edge_softmax``, samplers, random walks and METIS work. So both are replaced while DGL is
imported: ``setuptools.extern`` only during the import and only if it is missing, ``dgl.graphbolt`` by an empty module
inside DGL's own namespace. Every other part of reckg imports DGL from here.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import packaging
import packaging.version

from reckg.errors import ArtifactError


@contextmanager
def _setuptools_extern() -> Iterator[None]:
    """Backs ``setuptools.extern.packaging`` by ``packaging`` while the block runs."""
    extern = ModuleType("setuptools.extern")
    extern.packaging = packaging  # type: ignore[attr-defined]
    stand_ins = {
        "setuptools.extern": extern,
        "setuptools.extern.packaging": packaging,
        "setuptools.extern.packaging.version": packaging.version,
    }
    added = [name for name in stand_ins if name not in sys.modules]
    try:
        importlib.import_module("setuptools.extern")
        added = []
    except ImportError:
        sys.modules.update({name: stand_ins[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def import_dgl() -> ModuleType:
    """Imports DGL, ready to use with torch.

    Raises:
        ArtifactError: the import fails; the message gives the reason and the tested versions.
    """
    if "dgl" in sys.modules:
        return sys.modules["dgl"]
    os.environ.setdefault("DGLBACKEND", "pytorch")
    sys.modules.setdefault("dgl.graphbolt", ModuleType("dgl.graphbolt"))
    try:
        with _setuptools_extern():
            return importlib.import_module("dgl")
    except Exception as error:
        del sys.modules["dgl.graphbolt"]
        raise ArtifactError(
            f"DGL cannot be imported ({type(error).__name__}: {error}). reckg is tested with dgl 2.1.0 and torch 2.13; "
            "install these with 'pip install -c constraints.txt reckg[cpu]'."
        ) from error


dgl = import_dgl()
