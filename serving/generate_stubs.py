"""Generates reckg/v1/ from the .proto files.

    python -m serving.generate_stubs            # writes the stubs into the working tree
    python -m serving.generate_stubs --check    # writes nothing; exits with 1 where they are out of date

Needs grpcio-tools (in the extra ``dev``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = Path("reckg/v1/recommender.proto")
STUBS = tuple(
    PROTO.with_name(name) for name in ("recommender_pb2.py", "recommender_pb2.pyi", "recommender_pb2_grpc.py")
)


def generate(out: Path, proto_root: Path = ROOT / "proto") -> None:
    """Writes the three stubs of the contract under ``out``, in the folders of their Python package.

    Raises:
        RuntimeError: the compiler refused the .proto (it prints why), or grpcio-tools is missing.
    """
    try:
        from grpc_tools import protoc  # type: ignore[import-untyped]
    except ImportError as error:
        raise RuntimeError("grpcio-tools is missing; install it with: pip install 'reckg[dev]'") from error
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"--proto_path={proto_root}", *outputs, PROTO.as_posix()]) != 0:
        raise RuntimeError(f"protoc refused {proto_root / PROTO}; what is wrong is printed above.")


def outdated(root: Path = ROOT) -> list[Path]:
    """The stubs under ``root`` that differ from freshly generated ones."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        return [s for s in STUBS if not (root / s).is_file() or (root / s).read_bytes() != (fresh / s).read_bytes()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generate reckg/v1/ from the .proto files.")
    parser.add_argument("--check", action="store_true", help="only tell whether the stubs are up to date")
    if not parser.parse_args(arguments).check:
        generate(ROOT)
        print("\n".join(str(ROOT / stub) for stub in STUBS))
        return 0
    stale = outdated()
    for stub in stale:
        print(f"{stub} is out of date: run python -m serving.generate_stubs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
