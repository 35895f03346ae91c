"""New items and users: read out as the graph's own nodes are, with everything unknown named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from reckg.errors import ArtifactError, DataError
from reckg.inductive.files import load_inductive
from reckg.live.add_items import _extend_inductive
from reckg.live.embed_items import NewItemEmbedder
from tests import small_world
from tests.small_world import ITEM_IDS, ITEMS, NEW, USERS, World, world

MODELS = [
    {"aggregator": aggregator, "combine": combine, "attention": attention, "layers": layers}
    for aggregator, combine, attention, layers in [
        ("sum", "mean", "uniform", 2),
        ("sum", "mean", "relation", 2),
        ("sum", "concat", "transr", 3),
        ("sum", "last", "transr", 1),
        ("gcn", "mean", "transr", 2),
        ("gcn", "concat", "uniform", 1),
        ("gcn", "last", "uniform", 3),
        ("bi-interaction", "mean", "uniform", 3),
        ("bi-interaction", "concat", "transr", 2),
        ("bi-interaction", "last", "transr", 1),
    ]
]


def folded(made: World) -> np.ndarray:
    rows = [made.inductive.embed_user(made.history.items(user), user_idx=user)[0] for user in range(USERS)]
    return np.stack(rows)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: "-".join(map(str, model.values())))
def test_a_known_user_s_whole_history_gives_the_stored_vector(
    model: dict[str, Any], linear: bool, encoder: Path, tmp_path: Path
) -> None:
    made = world(tmp_path, encoder=encoder, linear=linear, **model)
    np.testing.assert_allclose(folded(made), made.embeddings.users, atol=1e-5)


@pytest.mark.parametrize("half_life", [0.0, 5.0])
def test_a_user_without_an_id_is_what_history_and_attributes_say(half_life: float, tmp_path: Path) -> None:
    made = world(tmp_path, user_ids=False, half_life=half_life, attention="transr")
    rows = small_world.users().drop("user_id").to_dicts()
    for user in range(USERS):
        vector, unknown = made.inductive.embed_user(made.history.items(user), rows[user])
        np.testing.assert_allclose(vector, made.embeddings.users[user], atol=1e-5)
        assert unknown == []
    without = made.inductive.embed_user(made.history.items(0))[0]
    assert np.abs(without - made.embeddings.users[0]).max() > 1e-3


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: "-".join(map(str, model.values())))
def test_an_item_that_nobody_took_has_its_stored_vector(
    model: dict[str, Any], linear: bool, encoder: Path, tmp_path: Path
) -> None:
    """The graph's vectors have heard of the item already, so that its own presence changes nothing."""
    made = world(tmp_path, encoder=encoder, linear=linear, **model)
    new = (
        small_world.items()
        .tail(NEW)
        .with_columns(
            like=pl.Series([None, None, ["Q"], None]),  # i38, which the links made of B
            near=pl.Series([None, None, ["P"], None]),
        )
    )
    new = new.with_columns(pl.Series("^like", [None, None, ["i01"], None]))
    found = made.inductive.embed_items(new)
    stored = made.embeddings.items[-NEW:]
    assert (np.einsum("nd,nd->n", found.vectors, stored) > 0.99999).all()
    np.testing.assert_allclose(found.vectors, stored, atol=2e-3)  # the stored texts are float16
    assert found.unknown == [[]] * NEW


def test_without_texts_it_is_exact(tmp_path: Path) -> None:
    made = world(tmp_path, attention="transr", aggregator="gcn")
    rows = small_world.items()[[36, 37, 39]].drop("title").to_dicts()
    pairs = [("", {key: value for key, value in row.items() if key != "item_id"}) for row in rows]
    found = made.inductive.embed_items(pairs)
    np.testing.assert_allclose(found.vectors, made.embeddings.items[[36, 37, 39]], atol=1e-5)


def test_one_call_gives_what_single_calls_give(encoder: Path, tmp_path: Path) -> None:
    made = world(tmp_path, encoder=encoder, linear=True)
    rows = [("dune", {}), ("", {"genres": ["x", "z"]}), ("heidi the sea", {"price": 3, "genres": "y"})]
    together = made.inductive.embed_items(rows)
    for number, row in enumerate(rows):
        np.testing.assert_allclose(made.inductive.embed_items([row]).vectors[0], together.vectors[number], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1, atol=1e-6)
    assert together.vectors.shape[1] == made.embeddings.items.shape[1] == made.inductive.dim


def test_what_the_graph_does_not_know_is_named(tmp_path: Path) -> None:
    made = world(tmp_path)
    found = made.inductive.embed_items(
        [("", {"genres": ["x", "new", ""], "author": "Ann", "price": 4.0, "near": "Z"}), ("dune", {"genres": ["y"]})]
    )
    assert [sorted(unknown) for unknown in found.unknown] == [["author", "genres=new", "near=Z"], ["text"]]
    vector, unknown = made.inductive.embed_user(np.array([1, 2]), {"city": "Paris", "age": "old", "shoe": 41})
    assert sorted(unknown) == ["age=old", "city=Paris", "shoe"]
    np.testing.assert_array_equal(vector, made.inductive.embed_user(np.array([1, 2]))[0])


def test_an_item_of_which_nothing_can_be_said_is_refused(encoder: Path, tmp_path: Path) -> None:
    silent = world(tmp_path / "silent")
    message = r"1 of 2 new items have no attribute value that the model knows \(first: row 2; unknown: genres=q, text\)"
    with pytest.raises(DataError, match=message):
        silent.inductive.embed_items([("dune", {"genres": ["x"]}), ("dune", {"genres": ["q"]})])
    reading = world(tmp_path / "reading", encoder=encoder)
    with pytest.raises(DataError, match=r"neither a text nor an attribute .*unknown: nothing given\): complete them"):
        reading.inductive.embed_items([(" ", {})])
    with pytest.raises(DataError, match=r"1 of 1 values of 'price' are no number \(first: row 1, 'cheap'\)"):
        silent.inductive.embed_items([("", {"price": "cheap"})])
    with pytest.raises(DataError, match=r"text is given twice, as its text and as its 'title'"):
        reading.inductive.embed_items([("dune", {"title": "emma"})])
    one, other = reading.inductive.embed_items([("", {"title": "emma"}), ("emma", {})]).vectors
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_user_with_nothing_is_nowhere(tmp_path: Path) -> None:
    made = world(tmp_path, aggregator="gcn")
    vector, unknown = made.inductive.embed_user(np.array([], dtype=int), {"city": "Paris"})
    assert not vector.any() and unknown == ["city=Paris"]
    assert made.inductive.embed_user(np.array([], dtype=int), {"city": "Rome"})[0].any()


def test_given_attributes_replace_the_stored_ones(tmp_path: Path) -> None:
    made = world(tmp_path, user_ids=False)
    items = made.history.items(0)
    moved = made.inductive.embed_user(items, {"city": "Oslo"}, user_idx=0)[0]
    np.testing.assert_allclose(moved, made.inductive.embed_user(items, {"city": "Oslo", "age": 20})[0], atol=1e-6)


@pytest.mark.parametrize("attention", ["uniform", "transr"])
def test_added_items_are_heard_in_histories(attention: str, encoder: Path, tmp_path: Path) -> None:
    """An item that is added as a copy of one that nobody took does to a history what that one does."""
    made = world(tmp_path, encoder=encoder, linear=True, attention=attention)
    added = NewItemEmbedder(small_world.bundle(made)).embed(small_world.items().slice(ITEMS - NEW, 1))
    grown = _extend_inductive(made.inductive, added)
    known = np.append(made.history.items(2), ITEMS - NEW)
    new = np.append(made.history.items(2), ITEMS)
    np.testing.assert_allclose(grown.embed_user(new)[0], made.inductive.embed_user(known)[0], atol=1e-3)
    assert grown.info["n_items"] == ITEMS + 1 and made.inductive.info["n_items"] == ITEMS and grown.folder is None


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    made = world(tmp_path)
    (tmp_path / "inductive" / "inductive.json").write_text('{"format_version": 9}')
    with pytest.raises(ArtifactError, match=r"format 9, this version of reckg reads 1.*Run 'reckg bundle' again"):
        load_inductive(made.folder / "inductive", ITEM_IDS)
    (tmp_path / "inductive" / "entities.parquet").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_inductive(made.folder / "inductive", ITEM_IDS)
