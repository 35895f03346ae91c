"""fleet: workers are kept alive, and a bundle is taken by all of them or by none. The workers here only play."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reckg.errors import ArtifactError, ConfigError
from serving.processes.channel import CallError
from serving.settings import ServerSettings
from serving.supervisor.fleet import Fleet
from serving.supervisor.verify import VersionedBundle
from tests.waiting import wait_until

# Takes every call; a bundle's path says what becomes of ``prepare``, and of the first ``commit``. Each worker writes
# what it serves to a file of its process id.
PLAYER = """
    import os, pathlib, signal, socket, sys, time
    from serving.processes.channel import CallError, Channel

    here, number = pathlib.Path(sys.argv[1]), int(sys.argv[-1])
    prepared = served = None

    def once(name):
        try:
            (here / name).touch(exist_ok=False)
            return True
        except FileExistsError:
            return False

    def answer(what, arguments):
        global prepared, served
        if what == "start" and (here / "cannot start").exists():
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "prepare":
            prepared = arguments["path"]
            (here / "prepared").touch()
            if "refuses" in prepared and (served or "first" in prepared) and once("refused"):
                raise CallError("FAILED_PRECONDITION", "not this one")
            if "dies always" in prepared and served or "dies once" in prepared and served and once("died"):
                os._exit(1)
            if "hangs" in prepared and served:
                time.sleep(60)
        if what == "commit":
            if "fails to switch" in prepared and once("failed"):
                os._exit(1)
            if "slow" in prepared:
                time.sleep(0.5)
            served = prepared
        if what == "abort":
            (here / "aborted").touch()
        if what == "stop":
            os._exit(0)
        if served:
            (here / f"{os.getpid()}.serves").write_text(served)
        return {}

    Channel(socket.socket(fileno=number), answer).serve()
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the players, which take the place of workers."""
    (tmp_path / "player.py").write_text(textwrap.dedent(PLAYER))
    (tmp_path / "stage").mkdir()
    command = [sys.executable, str(tmp_path / "player.py"), str(tmp_path / "stage")]
    monkeypatch.setattr("serving.supervisor.fleet.child_command", lambda module, *arguments: [*command, *arguments])
    return tmp_path / "stage"


Begin = Callable[..., Fleet]


@pytest.fixture
def begin(stage: Path) -> Iterator[Begin]:
    """Starts a fleet of two on a bundle of this name."""
    fleets: list[Fleet] = []

    def start(name: str = "old", **given: float) -> Fleet:
        settings = ServerSettings(bundle=Path("store"), workers=2, **given)  # type: ignore[arg-type]
        fleets.append(Fleet(settings, bundle(name), lambda what, arguments: {}))
        fleets[0].start()
        fleets[0].set_hashed()
        fleets[0].set_verified()
        return fleets[0]

    yield start
    fleets[0].stop(0)


def bundle(name: str) -> VersionedBundle:
    return VersionedBundle(Path(name), name, name)


def serving(stage: Path) -> dict[int, str]:
    """What each process that runs serves."""
    versions = {int(path.stem): path.read_text() for path in stage.glob("*.serves")}
    return {pid: name for pid, name in versions.items() if Path(f"/proc/{pid}/exe").exists()}


def all_serve(stage: Path, fleet: Fleet, name: str) -> bool:
    return fleet.is_ready(0) and list(serving(stage).values()) == [name, name]


def test_all_workers_take_a_bundle(begin: Begin, stage: Path) -> None:
    fleet = begin("old and slow")
    assert fleet.is_ready(30)
    before = set(serving(stage))
    assert len(before) == 2  # they answer by then
    fleet.swap(bundle("new"))
    assert all_serve(stage, fleet, "new")
    assert set(serving(stage)) == before
    assert fleet.committed.version == "new"
    assert fleet.worker_counts() == {"ready_worker_count": 2, "worker_count": 2, "respawn_count": 0}


def test_nothing_is_served_before_it_is_verified(stage: Path) -> None:
    fleet = Fleet(ServerSettings(bundle=Path("store"), workers=2), bundle("old"), lambda what, arguments: {})
    fleet.start()
    assert not fleet.is_ready(0.7)
    assert not (stage / "prepared").exists()
    fleet.set_hashed()
    wait_until(lambda: (stage / "prepared").exists())
    assert not fleet.is_ready(0.3)
    assert serving(stage) == {}
    fleet.set_verified()
    assert fleet.is_ready(30)
    fleet.stop(0)


@pytest.mark.parametrize(
    ("name", "reason"), [("refuses", "refuses: not this one"), ("dies always", "dies always: the other end is gone")]
)
def test_none_takes_a_bundle_that_one_cannot_load(begin: Begin, stage: Path, name: str, reason: str) -> None:
    fleet = begin()
    assert fleet.is_ready(30)
    with pytest.raises(CallError, match=reason):
        fleet.swap(bundle(name))
    assert fleet.committed.version == "old"
    wait_until(lambda: all_serve(stage, fleet, "old"))
    fleet.swap(bundle("next"))
    assert all_serve(stage, fleet, "next")


def test_those_that_had_loaded_it_forget_a_bundle_that_another_refuses(begin: Begin, stage: Path) -> None:
    fleet = begin()
    assert fleet.is_ready(30)
    first, second = (fleet._ready[number] for number in (0, 1))
    second.prepare = lambda *_: refuse()  # type: ignore[method-assign]
    with pytest.raises(CallError, match="new: no room"):
        fleet.swap(bundle("new"))
    assert (stage / "aborted").exists()
    assert first.process.poll() is None
    assert all_serve(stage, fleet, "old")


def refuse() -> None:
    raise CallError("FAILED_PRECONDITION", "no room")


def test_a_worker_that_dies_while_it_loads_is_asked_again(begin: Begin, stage: Path) -> None:
    fleet = begin()
    assert fleet.is_ready(30)
    fleet.swap(bundle("dies once"))
    assert fleet.respawns == 1
    assert all_serve(stage, fleet, "dies once")


def test_a_worker_that_dies_as_it_switches_comes_back_on_the_new_bundle(begin: Begin, stage: Path) -> None:
    fleet = begin()
    assert fleet.is_ready(30)
    fleet.swap(bundle("fails to switch"))
    assert fleet.committed.version == "fails to switch"
    wait_until(lambda: fleet.respawns == 1 and all_serve(stage, fleet, "fails to switch"))


def test_a_worker_that_hangs_is_replaced_and_the_bundle_refused(begin: Begin, stage: Path) -> None:
    fleet = begin(swap_timeout_s=2.0)
    assert fleet.is_ready(30)
    with pytest.raises(CallError, match="hangs: "):
        fleet.swap(bundle("hangs"))
    wait_until(lambda: all_serve(stage, fleet, "old"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_is_replaced_and_the_other_goes_on(begin: Begin, stage: Path, how: signal.Signals) -> None:
    fleet = begin()
    assert fleet.is_ready(30)
    wait_until(lambda: all_serve(stage, fleet, "old"))
    one, other = sorted(serving(stage))
    os.kill(one, how)
    wait_until(lambda: fleet.respawns == 1 and all_serve(stage, fleet, "old"))
    assert other in serving(stage) and one not in serving(stage)


def test_swaps_and_ends_at_once_leave_all_on_the_committed_bundle(begin: Begin, stage: Path) -> None:
    fleet = begin()
    assert fleet.is_ready(30)
    done = threading.Event()

    def end_workers() -> None:
        while not done.wait(0.25):
            for pid in list(serving(stage))[:1]:
                os.kill(pid, signal.SIGKILL)

    ends = threading.Thread(target=end_workers)
    ends.start()
    for n in range(6):
        try:
            fleet.swap(bundle(f"new {n}"))
        except CallError as error:
            assert "gone" in str(error) or "no answer" in str(error)
    done.set()
    ends.join()
    wait_until(lambda: all_serve(stage, fleet, fleet.committed.version))


def test_a_reason_at_the_start_ends_the_server(begin: Begin) -> None:
    fleet = begin("refuses at first")
    with pytest.raises(ArtifactError, match="not this one"):
        fleet.is_ready(30)


def test_workers_that_keep_ending_at_the_start_end_the_server(begin: Begin, stage: Path) -> None:
    (stage / "cannot start").touch()
    fleet = begin()
    with pytest.raises(ConfigError, match="workers keep ending while they start; the last one ended with SIGSEGV"):
        fleet.is_ready(60)


def test_stopping_ends_all_workers(begin: Begin, stage: Path) -> None:
    fleet = begin()
    assert fleet.is_ready(30)
    wait_until(lambda: all_serve(stage, fleet, "old"))
    fleet.stop(5)
    assert serving(stage) == {}
    assert fleet.respawns == 0
    with pytest.raises(CallError, match="the server is stopping"):
        fleet.swap(bundle("new"))
