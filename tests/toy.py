"""A world small enough to work out by hand: 4 users, 5 books, 3 genres, 8 interactions, 6 attribute triples.

    users        time     items                    genres      (lines cross left of the items, and join right of them)

    dee (3) ─────── 8 ──┐
                        ├── emma (4) ──────┬────── romance (10)
    ann (0) ──┬──── 1 ──┤                  │
              └──── 3 ──┼── heidi (7) ─────┼────── classic (9)
    bob (1) ──┬──── 6 ──┘                  │
              │             ulysses (8) ───┘       (nobody took it: a cold item)
              │
              ├──── 2 ──┬── dune (5) ──────┬────── space (11)
              └──── 4 ──┼─┬ solaris (6) ───┘
    cyd (2) ──┬──── 5 ──┘ │
              └──── 7 ────┘

The numbers in brackets are nodes. As tables:

              emma  dune  solaris  heidi  ulysses
        ann    1     .      .        3      .            emma     classic, romance
        bob    6     2      4        .      .            dune     space
        cyd    .     5      7        .      .            solaris  space
        dee    8     .      .        .      .            heidi    classic
                (the number is the time)                 ulysses  classic
"""

from __future__ import annotations

import numpy as np
import polars as pl

from reckg.data.history import History
from reckg.data.schema import ColumnKinds, Dataset

USER_IDS = ("ann", "bob", "cyd", "dee")
ITEM_IDS = ("emma", "dune", "solaris", "heidi", "ulysses")
ENTITIES = ("genres:classic", "genres:romance", "genres:space")  # in the order of their names
N_USERS, N_ITEMS, N_ENTITIES = 4, 5, 3

ITEMS = pl.DataFrame(
    {
        "item_id": ITEM_IDS,
        "title": ["Emma", "Dune", "Solaris", "Heidi", "Ulysses"],
        "genres": [["classic", "romance"], ["space"], ["space"], ["classic"], ["classic"]],
    }
)
USERS = pl.DataFrame({"user_id": USER_IDS, "city": ["Rome", "Rome", "Oslo", None]})

# (user_idx, item_idx, timestamp) in order of time.
ROWS = ((0, 0, 1), (1, 1, 2), (0, 3, 3), (1, 2, 4), (2, 1, 5), (1, 0, 6), (2, 2, 7), (3, 0, 8))
USER_IDX = np.array([row[0] for row in ROWS], dtype=np.int64)
ITEM_IDX = np.array([row[1] for row in ROWS], dtype=np.int64)
TIMESTAMP = np.array([row[2] for row in ROWS], dtype=np.int64)
WEIGHT = np.ones(len(ROWS), dtype=np.float32)

INTERACTIONS = pl.DataFrame(
    {
        "user_id": [USER_IDS[user] for user in USER_IDX],
        "item_id": [ITEM_IDS[item] for item in ITEM_IDX],
        "timestamp": TIMESTAMP,
        "weight": WEIGHT,
    }
)
INDEXED = pl.DataFrame({"user_idx": USER_IDX, "item_idx": ITEM_IDX, "timestamp": TIMESTAMP, "weight": WEIGHT})

TRIPLES = pl.DataFrame(
    [
        ("item_id:dune", "genres", "genres:space"),
        ("item_id:emma", "genres", "genres:classic"),
        ("item_id:emma", "genres", "genres:romance"),
        ("item_id:heidi", "genres", "genres:classic"),
        ("item_id:solaris", "genres", "genres:space"),
        ("item_id:ulysses", "genres", "genres:classic"),
    ],
    schema=["head", "relation", "tail"],
    orient="row",
)
RELATIONS = ("genres",)
# The same with node numbers (users 0-3, items 4-8, entities 9-11) and relation 0.
TRIPLE_HEAD = np.array([5, 4, 4, 7, 6, 8], dtype=np.int64)
TRIPLE_RELATION = np.zeros(6, dtype=np.int64)
TRIPLE_TAIL = np.array([11, 9, 10, 9, 11, 9], dtype=np.int64)

# Worked out by hand.
POPULARITY = np.array([3, 2, 2, 1, 0])  # interactions of each item: emma ann+bob+dee, dune bob+cyd, ...
USER_DEGREE = np.array([2, 3, 2, 1])
ENTITY_DEGREE = np.array([3, 1, 2])  # classic: emma, heidi, ulysses; romance: emma; space: dune, solaris
HISTORY_ITEMS = ((0, 3), (1, 2, 0), (1, 2), (0,))  # item_idx of each user, oldest first: bob took dune, solaris, emma
# Users two items have in common. dune and solaris share both their users (cosine 2 / sqrt(2 * 2) = 1); emma and
# heidi share ann (cosine 1 / sqrt(3 * 1) = 0.577); emma and dune share bob (cosine 1 / sqrt(3 * 2) = 0.408).
COMMON_USERS = np.array(
    [
        [3, 1, 1, 1, 0],
        [1, 2, 2, 0, 0],
        [1, 2, 2, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ]
)
# Genres two items have in common: ulysses, which no interaction reaches, is a neighbour of emma and heidi here.
COMMON_GENRES = np.array(
    [
        [2, 0, 0, 1, 1],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1],
        [1, 0, 0, 1, 1],
    ]
)
# The most popular item that a user has not taken (ties go to the lower item_idx): ann dune (2, as solaris),
# bob heidi, cyd emma, dee dune.
MOST_POPULAR_UNSEEN = np.array([1, 3, 0, 1])


def history() -> History:
    """All eight interactions."""
    return History.from_interactions(INDEXED, N_USERS)


def dataset() -> Dataset:
    """The world as a dataset; times count from 1970, so ``order`` is the honest kind."""
    return Dataset(
        name="toy",
        interactions=INTERACTIONS.lazy(),
        items=ITEMS.lazy(),
        users=USERS.lazy(),
        item_columns=ColumnKinds(text=("title",), list=("genres",)),
        user_columns=ColumnKinds(categorical=("city",)),
        time="order",
        source="tests/toy.py",
        licence="Apache-2.0",
    )
