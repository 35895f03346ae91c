"""Generates reckg/v1/ from the .proto files.

    python proto/generate_stubs.py            # writes the stubs into the working tree
    python proto/generate_stubs.py --check    # writes nothing; exits with 1 if they are out of date

Needs grpcio-tools (in the extra ``dev``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("reckg/v1")
SERVICES = tuple(PACKAGE / f"{name}.proto" for name in ("admin", "catalog", "event", "recommender"))
MESSAGES = (PACKAGE / "item.proto",)
STUBS = (
    *(proto.with_name(proto.stem + end) for proto in SERVICES + MESSAGES for end in ("_pb2.py", "_pb2.pyi")),
    *(proto.with_name(proto.stem + "_pb2_grpc.py") for proto in SERVICES),
)


def generate(out: Path, proto_root: Path = ROOT / "proto") -> None:
    """Generates the stubs.

    Args:
        out: folder that gets the stubs, in the folders of their Python package.
        proto_root: folder of the .proto files.

    Raises:
        RuntimeError: the compiler refused a .proto and printed the reason, or grpcio-tools is missing.
    """
    try:
        from grpc_tools import protoc  # type: ignore[import-untyped]
    except ImportError as error:
        raise RuntimeError("grpcio-tools is missing; install it with: pip install 'reckg[dev]'") from error
    command = ["protoc", f"--proto_path={proto_root}", f"--proto_path={files('grpc_tools') / '_proto'}"]
    for protos, kinds in ((SERVICES + MESSAGES, ("python", "pyi")), (SERVICES, ("grpc_python",))):
        outputs = [f"--{kind}_out={out}" for kind in kinds]
        if protoc.main([*command, *outputs, *map(Path.as_posix, protos)]) != 0:
            raise RuntimeError(f"protoc refused a file of {proto_root / PACKAGE}; the reason is printed above.")


def outdated(root: Path = ROOT) -> list[Path]:
    """Lists the stubs that differ from freshly generated ones.

    Args:
        root: folder of the checked stubs.
    """
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        return [s for s in STUBS if not (root / s).is_file() or (root / s).read_bytes() != (fresh / s).read_bytes()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generate reckg/v1/ from the .proto files.")
    parser.add_argument("--check", action="store_true", help="only check whether the stubs are up to date")
    if not parser.parse_args(arguments).check:
        generate(ROOT)
        print("\n".join(str(ROOT / stub) for stub in STUBS))
        return 0
    stale = outdated()
    for stub in stale:
        print(f"{stub} is out of date: run python proto/generate_stubs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
