from __future__ import annotations

import polars as pl
import pytest

from reckg.data.target import derive_target, repeat_share


def log(*rows: tuple[int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        ([(0, 5, 1), (0, 5, 2), (0, 6, 3)], 1 / 2),
        ([(0, 5, 1), (0, 5, 1), (0, 6, 2)], 0),  # the same moment is no repeat
        ([(0, 5, 3), (0, 6, 2), (0, 5, 1)], 1 / 2),  # the order of the rows has no effect
        ([(0, 5, 1), (1, 5, 2)], 0),  # another user's item is no repeat
        ([(0, 5, 1)], 0),
        ([(0, 5, 1), (0, 5, 2), (0, 5, 2)], 1),
        ([(7, 0, 1), (7, 1, 1), (7, 1, 9), (7, 0, 9)], 1),
    ],
)
def test_share_of_repeats(rows: list[tuple[int, int, int]], share: float) -> None:
    assert repeat_share(log(*rows)) == share


def test_an_empty_log_has_no_repeats() -> None:
    assert repeat_share(log((0, 0, 0)).clear()) == 0


def test_the_share_chooses_the_target() -> None:
    assert [derive_target(share) for share in (0.0, 0.09, 0.1, 0.8)] == ["new", "new", "any", "any"]
