"""The generated stubs and the .proto they come from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from proto.generate_stubs import PACKAGE, ROOT, STUBS, generate, outdated
from reckg.v1 import recommender_pb2 as pb


def test_the_stubs_are_those_of_the_proto(tmp_path: Path) -> None:
    """Another compiler may write other files, but no other descriptors."""
    generate(tmp_path)
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['DESCRIPTOR'].serialized_pb.hex())"
    fresh = tmp_path / PACKAGE / "recommender_pb2.py"
    result = subprocess.run([sys.executable, "-c", code, str(fresh)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == pb.DESCRIPTOR.serialized_pb.hex()


def test_outdated_stubs_are_found(tmp_path: Path) -> None:
    generate(tmp_path)
    assert outdated(tmp_path) == []
    changed = tmp_path / PACKAGE / "recommender_pb2.py"
    changed.write_text(changed.read_text() + "\n")
    assert outdated(tmp_path) == [PACKAGE / "recommender_pb2.py"]
    shutil.rmtree(tmp_path / "reckg")
    assert len(outdated(tmp_path)) == len(STUBS)


def test_the_contract_keeps_its_style_and_breaks_no_client() -> None:
    """Google's API guidelines as buf checks them, and nothing less than what the baseline has.

    Of a release: buf build -o tests/contract_v1.binpb.
    """
    buf = Path(sys.executable).with_name("buf")
    for command in (
        ["lint"],
        ["format", "--diff", "--exit-code"],
        ["breaking", "--against", "tests/contract_v1.binpb"],
    ):
        done = subprocess.run([buf, *command], capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_change_that_breaks_clients_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    file = tmp_path / "proto" / PACKAGE / "recommender.proto"
    file.write_text(file.read_text().replace("string user_id = 1;", "string user_id = 99;", 1))
    buf = Path(sys.executable).with_name("buf")
    command = [buf, "breaking", "--against", ROOT / "tests" / "contract_v1.binpb"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode and "user_id" in done.stdout
