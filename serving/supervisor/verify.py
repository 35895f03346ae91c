"""Verification of a bundle in a process of its own. A bundle that crashes, hangs or fills the memory is only refused.

python -m serving.supervisor.verify BUNDLE [--seconds S] [--nice]
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
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reckg.bundle.manifest import MANIFEST, Manifest, read_manifest
from reckg.errors import ArtifactError, ReckgError
from reckg.files.atomic_folder import check_files
from serving.processes.child_process import child_command, child_environment, do_without_pandas

ADDRESS_SPACE = 16 << 30  # bytes of address space for the libraries
MEMORY_PER_BYTE = 8  # further bytes per byte of the bundle: room to load it, none for a leak
NICE = 15  # gives a thirtieth of a worker's share of a busy processor
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, eq=False)
class VersionedBundle:
    """A bundle's folder with the hash of its manifest, as it was verified."""

    path: Path
    version: str
    manifest_sha256: str


def identify_bundle(path: Path) -> VersionedBundle:
    """Reads a bundle's version and the hash of its manifest.

    Args:
        path: the bundle.

    Raises:
        ArtifactError: the manifest is missing or damaged, or the bundle is being written.
    """
    path = Path(os.path.abspath(path))
    before = _sha256(path)
    manifest = read_manifest(path)
    if _sha256(path) != before:
        raise ArtifactError(f"{path} is being written; try again")
    return VersionedBundle(path, manifest["version"], before)


def verify(
    bundle: VersionedBundle, timeout_s: float, *, nice: bool = True, hashed: Callable[[], None] = lambda: None
) -> None:
    """Checks all hashes, the shapes and the golden requests in a child process with limits of time and memory.

    Args:
        bundle: the bundle as it was identified.
        timeout_s: longest time of the process.
        nice: whether the process gives way to workers.
        hashed: called once the hashes are right. From then on the bundle's files may be parsed.

    Raises:
        ArtifactError: the bundle is refused; the message names the reason.
    """
    command = child_command(
        "serving.supervisor.verify", str(bundle.path), "--seconds", str(timeout_s), *["--nice"] * nice
    )
    report: dict[str, Any] = {}
    late = threading.Event()
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, stderr=errors, text=True)
        limit = threading.Timer(timeout_s, _end, (child, late))
        limit.start()
        try:
            with child:
                for line in child.stdout or ():
                    report = json.loads(line) if line.startswith("{") else report  # libraries print too
                    if "hashed" in report:
                        hashed()
        finally:
            limit.cancel()
        errors.seek(0)
        last_words = (errors.read().strip().splitlines() or ["no output"])[-1]
    if late.is_set():
        raise ArtifactError(f"{bundle.path} was not verified within {timeout_s:g} s")
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ArtifactError(f"{bundle.path} ended the process that verified it with {name}: {last_words}")
    if "error" in report:
        raise ArtifactError(report["error"])
    if "manifest_sha256" not in report:
        raise ArtifactError(f"{bundle.path} could not be verified: {last_words}")
    if report["manifest_sha256"] != bundle.manifest_sha256:
        raise ArtifactError(f"{bundle.path} was written again while it was verified; try again")


def _end(child: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    child.kill()


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return ""  # read_manifest reports the reason


def limit_process(seconds: float, bytes_on_disk: int) -> None:
    """Limits the memory and processor time of this process for good. The process also ends with its parent.

    Args:
        seconds: of processor time.
        bytes_on_disk: size of the bundle.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    memory = ADDRESS_SPACE + MEMORY_PER_BYTE * bytes_on_disk
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load(path: Path, manifest: Manifest) -> None:
    """Checks shapes and golden requests. It imports native parsers late, so that no damaged file reaches one."""
    do_without_pandas()
    from reckg.bundle.manifest import GOLDEN
    from reckg.bundle.read import read_checked
    from reckg.recommend.golden import replay_golden_file

    replay_golden_file(read_checked(path, manifest), path / GOLDEN)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify a bundle; its lines are JSON.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0, help="of processor time")
    parser.add_argument("--nice", action="store_true", help="give way to other processes")
    options = parser.parse_args(arguments)
    if options.nice:
        os.nice(NICE)
    try:
        bundle = identify_bundle(options.bundle)
        manifest = read_manifest(bundle.path)
        files = manifest["files"]
        limit_process(options.seconds, sum(file["bytes"] for file in files.values()))
        check_files(bundle.path, files)
        print(json.dumps({"hashed": len(files)}), flush=True)
        _load(bundle.path, manifest)
        report: dict[str, Any] = {"version": bundle.version, "manifest_sha256": bundle.manifest_sha256}
    except ReckgError as error:
        report = {"error": str(error)}
    except MemoryError:
        report = {"error": f"{options.bundle} needs more memory than verifying it may take"}
    print(json.dumps(report), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
