"""Publishing that is killed at any moment: a reader of the store finds the old version or the new one, whole."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reckg.bundle.manifest import manifest_text, read_manifest
from reckg.bundle.store import publish, resolve, versions
from reckg.errors import ArtifactError
from reckg.files.atomic_folder import check_files
from reckg.recommend.golden import save_with_golden
from tests.serving_process import ROOT
from tests.small_bundle import small_bundle

PUBLISHER = """
import sys
from pathlib import Path
from reckg.bundle.store import publish
for line in sys.stdin:
    publish(Path(line.strip()), Path(sys.argv[1]))
    print("done", flush=True)
"""


class Publisher:
    """A process that publishes what it is told to, and is ready to be told."""

    def __init__(self, store: Path) -> None:
        command = [sys.executable, "-c", PUBLISHER, str(store)]
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, bundle: Path) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{bundle}\n")
        self.process.stdin.flush()

    def kill(self) -> bool:
        """Whether it had published by then."""
        self.process.kill()
        return "done" in self.process.communicate()[0]


def kill_while_publishing(folder: Path, times: int) -> None:
    bundles = [folder / f"b{n}" for n in range(times)]
    save_with_golden(small_bundle(), bundles[0])
    for n, bundle in enumerate(bundles):
        if n:
            shutil.copytree(bundles[0], bundle)
        manifest = read_manifest(bundles[0]) | {"version": f"v{n}"}
        (bundle / "manifest.json").write_text(manifest_text(manifest))
    store, draw = folder / "store", random.Random(0)
    began = time.perf_counter()
    publish(bundles[0], store)
    takes_s = time.perf_counter() - began
    seen: list[str] = []
    done = threading.Event()
    reader = threading.Thread(target=read, args=(store, seen, done))
    reader.start()
    waiting = [Publisher(store) for _ in range(2)]  # they start while others are killed
    killed, latest = 0, "v0"
    for n, bundle in enumerate(bundles[1:], start=1):
        publisher = waiting.pop(0)
        waiting.append(Publisher(store))
        publisher.ask(bundle)
        time.sleep(draw.random() * 1.5 * takes_s)
        published = publisher.kill()
        killed += not published
        found = whole(store)
        assert found in ({f"v{n}"} if published else {latest, f"v{n}"})
        latest = found
    done.set()
    reader.join()
    for publisher in waiting:
        publisher.kill()
    assert killed >= times / 4
    assert set(seen) <= set(versions(store))
    assert len(seen) >= times / 4
    publish(bundles[-1], store)
    hidden = {path.name for path in store.iterdir() if path.name.startswith(".")}
    assert hidden == {".lock"}


def whole(store: Path) -> str:
    """The latest version; every hash of it is right."""
    folder = resolve(store)
    check_files(folder, read_manifest(folder)["files"])
    return folder.name


def read(store: Path, seen: list[str], done: threading.Event) -> None:
    while not done.wait(0.005):
        try:
            seen.append(whole(store))
        except ArtifactError as error:
            seen.append(str(error))  # is no version's name: the test fails with it


def test_killed_publishers_leave_the_old_or_the_new_version(tmp_path: Path) -> None:
    kill_while_publishing(tmp_path, 12)


@pytest.mark.long
def test_two_hundred_killed_publishers_leave_the_old_or_the_new_version(tmp_path: Path) -> None:
    kill_while_publishing(tmp_path, 200)
