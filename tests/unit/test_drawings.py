"""The drawings of docs/design.md are the ones that the present code makes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.drawings import FOLDER, REQUEST, drawings, reduced
from tests.house import file_arrows, read_modules


@pytest.mark.parametrize("name", ["house.svg", "run.svg", "request.svg"])
def test_drawings_are_current(name: str) -> None:
    drawn = drawings()[name]
    ElementTree.fromstring(drawn)
    assert (FOLDER / name).read_text(encoding="utf-8") == drawn, "make the drawings again: python -m tests.drawings"


def test_the_modules_of_a_request_call_each_other() -> None:
    arrows = file_arrows(read_modules())
    reached = {REQUEST[0], REQUEST[1], "serving.worker.server"}  # the server puts interceptor and handler together
    waiting = list(reached)
    while waiting:
        for target in arrows[waiting.pop()] - reached:
            reached.add(target)
            waiting.append(target)
    assert set(REQUEST) <= reached


def test_arrows_that_a_longer_way_replaces_are_left_out() -> None:
    assert reduced({"a": set(), "b": {"a"}, "c": {"a", "b"}}) == {"a": set(), "b": {"a"}, "c": {"b"}}
