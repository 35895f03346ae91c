"""The generated stubs and the .proto they come from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from reckg.v1 import recommender_pb2 as pb
from serving.generate_stubs import PROTO, ROOT, generate, outdated


def test_the_stubs_are_those_of_the_proto(tmp_path: Path) -> None:
    """Another compiler may write other files, but no other descriptors."""
    generate(tmp_path)
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['DESCRIPTOR'].serialized_pb.hex())"
    fresh = tmp_path / PROTO.with_name("recommender_pb2.py")
    result = subprocess.run([sys.executable, "-c", code, str(fresh)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == pb.DESCRIPTOR.serialized_pb.hex()


def test_outdated_stubs_are_found(tmp_path: Path) -> None:
    generate(tmp_path)
    assert outdated(tmp_path) == []
    changed = tmp_path / PROTO.with_name("recommender_pb2.py")
    changed.write_text(changed.read_text() + "\n")
    assert outdated(tmp_path) == [PROTO.with_name("recommender_pb2.py")]
    shutil.rmtree(tmp_path / "reckg")
    assert len(outdated(tmp_path)) == 3


def test_every_field_of_the_contract_has_a_comment() -> None:
    lines = (ROOT / "proto" / PROTO).read_text().splitlines()
    fields = [
        n for n, line in enumerate(lines) if line.startswith("  ") and "//" not in line and line.strip().endswith(";")
    ]
    assert len(fields) > 15
    assert [lines[n] for n in fields if not lines[n - 1].strip().startswith("//")] == []
    for enum in (pb.Fallback, pb.DegradedReason):
        assert enum.Name(0).endswith("_UNSPECIFIED")
