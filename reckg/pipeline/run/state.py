"""A run folder's memory: the finished stages and their inputs, written to state.json after every step."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from reckg.errors import ArtifactError, ConfigError
from reckg.files.atomic_folder import write_atomically
from reckg.files.file_hash import file_sha256
from reckg.files.folder_lock import locked

FORMAT = 1
STATE_FILE = "state.json"
LOCK_FILE = ".lock"

Status = Literal["started", "done", "stale"]
StageCounts = dict[str, Any]  # what a stage says of its result, for state.json and its line of the log


class KeyParts(TypedDict):
    """Everything that a stage's result depends on.

    Args:
        settings: by "section.key".
        inputs: sha256 by file.
        code: sha256.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    code: str


@dataclass
class StageRecord:
    """A stage's record.

    ``started``: it ran and did not finish. ``done``: its outputs are complete. ``stale``: complete, and the user
    has allowed to replace them. ``parts`` are the named parts of ``key``, kept to name a change.
    """

    status: Status
    key: str
    parts: KeyParts
    outputs: dict[str, str] = field(default_factory=dict)  # path in the run folder -> sha256
    seconds: float = 0.0
    peak_memory_mb: float = 0.0  # of the process, up to the end of this stage
    finished: str = ""
    counts: StageCounts = field(default_factory=dict)


class RunState:
    """state.json of a run folder: stage records, and the known hashes of files by size and modification time."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.data = ""
        self.stages: dict[str, StageRecord] = {}
        self._known: dict[str, list[Any]] = {}  # absolute path -> [size, mtime_ns, sha256]

    @classmethod
    def read(cls, run: Path) -> RunState:
        """Reads a run folder; a new or empty one gives an empty state.

        Raises:
            ConfigError: the folder holds something else.
            ArtifactError: state.json is damaged or of a newer format.
        """
        state = cls(run)
        path = run / STATE_FILE
        if not path.exists():
            if run.exists() and not run.is_dir():
                raise ConfigError(f"{run} is a file; choose a folder for --out.")
            others = [p.name for p in run.iterdir() if p.name != LOCK_FILE] if run.exists() else []
            if others:
                raise ConfigError(
                    f"{run} is not empty and is not a reckg run (it holds {sorted(others)[0]!r} and has no "
                    f"{STATE_FILE}); choose another folder for --out."
                )
            return state
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise ArtifactError(
                    f"{path} has format {values['format']}, this reckg reads {FORMAT}; choose another folder for --out."
                )
            state.data = values["data"]
            state.stages = {name: StageRecord(**record) for name, record in values["stages"].items()}
            state._known = values["known_files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is damaged ({error}); delete it only together with the whole folder, or choose another --out."
            ) from error
        return state

    def save(self) -> None:
        """Writes state.json beside itself and renames it into place."""
        values = {
            "format": FORMAT,
            "data": self.data,
            "stages": {name: vars(record) for name, record in self.stages.items()},
            "known_files": self._known,
        }
        write_atomically(self.run / STATE_FILE, json.dumps(values, indent=1) + "\n")

    def hash_files(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Hashes files; a file with the size and modification time of before is not read again.

        Args:
            paths: files.
        Returns:
            sha256 by file.
        """
        hashes = {}
        for path in paths:
            status = path.stat()
            name = str(path.resolve())
            known = self._known.get(name)
            if known is None or known[:2] != [status.st_size, status.st_mtime_ns]:
                known = [status.st_size, status.st_mtime_ns, file_sha256(path)]
                if time.time_ns() - status.st_mtime_ns > 2e9:  # a younger file may change again at the same time stamp
                    self._known[name] = known
            hashes[path] = known[2]
        return hashes

    def hash_folders(self, folders: Iterable[str]) -> dict[str, str]:
        """Hashes every file in folders of the run.

        Args:
            folders: paths in the run folder; a missing one gives nothing.
        Returns:
            sha256 by path in the run folder.
        """
        paths = [path for folder in folders for path in files_below(self.run / folder)]
        return {path.relative_to(self.run).as_posix(): value for path, value in self.hash_files(paths).items()}

    def remove(self, folders: Iterable[str]) -> None:
        """Deletes folders (or files) of the run."""
        for folder in folders:
            path = self.run / folder
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Holds the run folder for one process. Raises ConfigError when another one holds it."""
    run.mkdir(parents=True, exist_ok=True)
    (run / LOCK_FILE).touch()
    with ExitStack() as held:
        try:
            held.enter_context(locked(run / LOCK_FILE, wait=False))
        except BlockingIOError:
            raise ConfigError(
                f"another reckg process is at work in {run}; wait for it, or choose another --out."
            ) from None
        yield


def files_below(folder: Path) -> list[Path]:
    """All regular files of a folder, sorted; a file stands for itself."""
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.rglob("*") if path.is_file())


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far, in MB of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
