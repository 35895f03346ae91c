"""Verifying a bundle in a process of its own, so that one that crashes, hangs or fills the memory is only refused.

python -m serving.verify BUNDLE [--seconds S] [--nice]
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from reckg.errors import ArtifactError, ReckgError
from reckg.manifest import MANIFEST, read_manifest
from serving.child_process import child_command, child_environment

ADDRESS_SPACE = 16 << 30  # and MEMORY_PER_BYTE of the bundle's size: room for the libraries, none for a leak
MEMORY_PER_BYTE = 8
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, eq=False)
class VersionedBundle:
    """A bundle's folder as it was when it was verified."""

    path: Path
    version: str
    manifest_sha256: str


def described(path: Path) -> VersionedBundle:
    """A bundle by its manifest alone. Raises ArtifactError: there is none, or it is damaged."""
    path = Path(os.path.abspath(path))
    before = _sha256(path)
    manifest = read_manifest(path)
    if _sha256(path) != before:
        raise ArtifactError(f"{path} is being written; try again")
    return VersionedBundle(path, manifest["version"], before)


def verify(bundle: VersionedBundle, timeout_s: float, *, nice: bool = True) -> None:
    """Checks every hash, the shapes, and the golden requests in a child process with limits of time and memory.

    Raises:
        ArtifactError: the bundle is refused; the message says why.
    """
    command = child_command("serving.verify", str(bundle.path), "--seconds", str(timeout_s), *["--nice"] * nice)
    child = subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"{bundle.path} was not verified within {timeout_s:g} s") from None
    finally:
        child.kill()
        child.communicate()
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ArtifactError(f"{bundle.path} ended the process that verified it with {name}: {_last_line(err)}")
    try:
        said = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        raise ArtifactError(f"{bundle.path} could not be verified: {_last_line(err)}") from None
    if "error" in said:
        raise ArtifactError(said["error"])
    if said["manifest_sha256"] != bundle.manifest_sha256:
        raise ArtifactError(f"{bundle.path} was written again while it was verified; try again")


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return ""  # read_manifest tells


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def limit_process(seconds: float, bytes_on_disk: int) -> None:
    """Limits this process for good; it also ends with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    memory = ADDRESS_SPACE + MEMORY_PER_BYTE * bytes_on_disk
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify a bundle; the last line is JSON.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0, help="of processor time")
    parser.add_argument("--nice", action="store_true", help="give way to other processes")
    options = parser.parse_args(arguments)
    if options.nice:
        os.nice(10)
    try:
        bundle = described(options.bundle)
        limit_process(options.seconds, sum(f["bytes"] for f in read_manifest(bundle.path)["files"].values()))
        from reckg.bundle import load_bundle

        load_bundle(bundle.path, verify=True)
        said = {"version": bundle.version, "manifest_sha256": bundle.manifest_sha256}
    except ReckgError as error:
        said = {"error": str(error)}
    except MemoryError:
        said = {"error": f"{options.bundle} needs more memory than verifying it may take"}
    print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
