"""What holds for every interleaved list."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.evaluation.logs.interleaving import team_draft

rankings = st.lists(st.integers(0, 15), unique=True, max_size=12)


@settings(max_examples=200, deadline=None)
@given(a=rankings, b=rankings, k=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_a_drafted_list(a: list[int], b: list[int], k: int, seed: int) -> None:
    items, team = team_draft(a, b, np.random.default_rng(seed), k)
    assert len(items) == len(team) == min(k, len(set(a) | set(b)))
    assert len(set(items.tolist())) == len(items)
    left: list[list[int]] = [list(a), list(b)]
    for place, (item, mine) in enumerate(zip(items.tolist(), team.tolist(), strict=True)):
        assert left[mine][0] == item  # its team's best that is not there yet
        left = [[other for other in ranking if other != item] for ranking in left]
        if all(left) and place % 2:
            assert np.bincount(team[: place + 1], minlength=2).tolist() == [(place + 1) // 2] * 2
    again = team_draft(a, b, np.random.default_rng(seed), k)
    assert np.array_equal(items, again[0]) and np.array_equal(team, again[1])
