"""swaps: what is tried, when, and what is told of it. No process is started."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reckg.bundle.store import UnknownVersionError, keep, publish, versions
from reckg.errors import ArtifactError
from serving.processes.channel import CallError
from serving.settings import ServerSettings
from serving.supervisor.swaps import Swaps, find_bundle
from serving.supervisor.verify import VersionedBundle
from tests.unit.bundle.test_store import write_bundle


@dataclass
class FakeFleet:
    """Takes every bundle but those of ``refuses``."""

    committed: VersionedBundle
    refuses: set[str] = field(default_factory=set)
    taken: list[str] = field(default_factory=list)

    def swap(self, bundle: VersionedBundle) -> None:
        if bundle.version in self.refuses:
            raise CallError("FAILED_PRECONDITION", f"{bundle.version}: worker 1 has no room")
        self.taken.append(bundle.version)
        self.committed = bundle


Verified = list[str]


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Verified:
    """The versions that were verified; those that begin with "bad" are refused."""
    seen: Verified = []

    def verify(bundle: VersionedBundle, timeout_s: float) -> None:
        seen.append(bundle.version)
        if bundle.version.startswith("bad"):
            raise ArtifactError("golden.jsonl: the answer differs")

    monkeypatch.setattr("serving.supervisor.swaps.verify", verify)
    return seen


@pytest.fixture
def add(tmp_path: Path) -> Callable[[str], str]:
    """Publishes a version."""
    return lambda name: publish(write_bundle(tmp_path / name, name, name), tmp_path / "store")


@pytest.fixture
def swaps(tmp_path: Path, add: Callable[[str], str], verified: Verified) -> Iterator[Swaps]:
    add("v1")
    fleet = FakeFleet(find_bundle(tmp_path / "store"))
    swaps = Swaps(ServerSettings(bundle=tmp_path / "store"), fleet)  # type: ignore[arg-type]
    yield swaps
    swaps.close()


def told(swaps: Swaps) -> tuple[str, int, int, str]:
    return swaps.fleet.committed.version, swaps.done, swaps.failed, swaps.last_error


def test_latest_is_followed_when_it_changes(swaps: Swaps, add: Callable[[str], str], verified: Verified) -> None:
    swaps.look()
    assert verified == []
    add("v2")
    swaps.look()
    swaps.look()
    assert verified == ["v2"]
    assert told(swaps) == ("v2", 1, 0, "")


def test_a_version_that_failed_is_tried_once_and_again_when_latest_changes(
    swaps: Swaps, add: Callable[[str], str], verified: Verified
) -> None:
    add("bad-2")
    for _ in range(3):
        swaps.look()
    assert verified == ["bad-2"]
    assert told(swaps) == ("v1", 0, 1, "golden.jsonl: the answer differs")
    swaps.fleet.refuses.add("v3")  # type: ignore[attr-defined]
    add("v3")
    swaps.look()
    assert told(swaps) == ("v1", 0, 2, "v3: worker 1 has no room")
    add("v4")
    swaps.look()
    assert told(swaps) == ("v4", 1, 2, "")
    assert verified == ["bad-2", "v3", "v4"]


def test_what_was_loaded_or_rolled_back_stays_until_latest_changes(swaps: Swaps, add: Callable[[str], str]) -> None:
    add("v2")
    swaps.look()
    assert swaps.rollback() == {"bundle_version": "v1", "previous_bundle_version": "v2"}
    swaps.look()
    assert told(swaps)[0] == "v1"
    add("v3")
    swaps.load("v2")
    assert told(swaps)[0] == "v2"
    swaps.look()
    assert told(swaps) == ("v3", 4, 0, "")


def test_a_second_swap_is_refused_while_one_is_under_way(
    swaps: Swaps, add: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("v2")
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("serving.supervisor.swaps.verify", lambda *_: (begun.set(), go_on.wait(20)))
    thread = threading.Thread(target=swaps.load, args=("v2",))
    thread.start()
    assert begun.wait(20)
    with pytest.raises(CallError, match="another swap is under way") as raised:
        swaps.load("v1")
    assert raised.value.code == "ABORTED"
    swaps.look()  # comes back to it
    go_on.set()
    thread.join()
    assert told(swaps) == ("v2", 1, 0, "")
    swaps.look()
    assert swaps._seen == "v2"


def test_what_is_served_is_not_loaded_again(swaps: Swaps, verified: Verified) -> None:
    assert swaps.load("v1") == {"bundle_version": "v1", "previous_bundle_version": "v1"}
    assert verified == [] and swaps.previous is None


@pytest.mark.parametrize(
    ("version", "code", "reason"),
    [("v9", "NOT_FOUND", "holds no version 'v9'"), ("../store/v1", "NOT_FOUND", "is no name of a bundle's version")],
)
def test_refusals_have_their_code(swaps: Swaps, version: str, code: str, reason: str) -> None:
    with pytest.raises(CallError, match=reason) as raised:
        swaps.load(version)
    assert raised.value.code == code
    assert swaps.last_error == str(raised.value)
    with pytest.raises(CallError, match="no other bundle was served before") as raised:
        swaps.rollback()
    assert raised.value.code == "FAILED_PRECONDITION"


def test_a_store_that_cannot_be_read_is_told_once(swaps: Swaps, tmp_path: Path) -> None:
    (tmp_path / "store" / "latest").write_text("../v1")
    for _ in range(3):
        swaps.look()
    assert swaps.failed == 1
    assert "latest: '../v1' is no name of a bundle's version" in swaps.last_error


def test_what_is_served_and_what_was_before_outlive_pruning(
    swaps: Swaps, add: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("v2", "v3"):
        add(name)
        swaps.look()
    swaps.rollback()
    for name in ("v4", "v5", "v6"):
        add(name)
    assert keep(tmp_path / "store", 1) == ["v1", "v4"]
    assert versions(tmp_path / "store") == ["v2", "v3", "v5", "v6"]


def test_a_version_that_a_variant_names_outlives_pruning_and_must_be_there(
    add: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("v1", "v2", "v3", "v4"):
        add(name)
    fleet, variant = FakeFleet(find_bundle(tmp_path / "store")), {"name": "a", "share": 1, "bundle_version": "v1"}
    settings = {"bundle": tmp_path / "store", "experiment": {"variants": [variant]}}
    swaps = Swaps(ServerSettings.model_validate(settings), fleet)  # type: ignore[arg-type]
    assert keep(tmp_path / "store", 1) == ["v2"]
    swaps.close()
    variant["bundle_version"] = "v9"
    with pytest.raises(UnknownVersionError, match="holds no version 'v9'"):
        Swaps(ServerSettings.model_validate(settings), fleet)  # type: ignore[arg-type]


def test_a_single_bundle_is_found_and_loads_no_other(tmp_path: Path, verified: Verified) -> None:
    bundle = find_bundle(write_bundle(tmp_path / "bundle", "v1"))
    swaps = Swaps(ServerSettings(bundle=tmp_path / "bundle"), FakeFleet(bundle))  # type: ignore[arg-type]
    with pytest.raises(CallError, match="is a bundle and no store"):
        swaps.load("v1")
    swaps.close()
    with pytest.raises(ArtifactError, match="is no bundle"):
        find_bundle(tmp_path)
