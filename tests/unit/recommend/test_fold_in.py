"""Recommendations for users of a given history or of attributes, and of items that were added to a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from reckg.bundle.bundle import Bundle
from reckg.bundle.manifest import read_manifest
from reckg.data.history import History
from reckg.errors import ArtifactError, CannotEmbedError, DataError
from reckg.live.add_items import with_items
from reckg.ranking.features.extract import FEATURES
from reckg.ranking.sources.candidates import retrieve
from reckg.ranking.sources.user_scores import UserScores
from reckg.recommend.fold_in import UserRequest, fold_in
from reckg.recommend.golden import open_bundle, save_with_golden
from reckg.recommend.recommender import Recommender
from reckg.retrieval.scored_items import ScoredItems
from tests import small_world
from tests.small_features import extract_features
from tests.small_world import ITEM_IDS, ITEMS, USER_IDS

GIVEN = ["i07", "i02", "i11"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Bundle:
    made = small_world.world(
        tmp_path_factory.mktemp("world"), encoder=encoder, linear=True, attention="transr", user_ids=False
    )
    return small_world.bundle(made)


def ids(answer: object) -> list[str]:
    return [item.item_id for item in answer.items]  # type: ignore[attr-defined]


def test_an_unknown_user_with_a_known_history_is_served_as_the_known_one(bundle: Bundle) -> None:
    unranked = Recommender(replace(bundle, ranker=None))
    for user in (1, 4, 9):
        history = bundle.item_ids.raw(bundle.history.items(user))
        attributes = small_world.users().drop("user_id").row(user, named=True)
        answer = unranked.recommend(recent_items=history, attributes=attributes)
        expected = unranked.recommend(USER_IDS[user])
        assert ids(answer) == ids(expected) and not {*history} & {*ids(answer)}
        np.testing.assert_allclose([i.score for i in answer.items], [i.score for i in expected.items], atol=1e-5)
        assert (answer.fallback, answer.degraded) == (None, ())


def test_the_given_history_is_what_is_reranked_by(bundle: Bundle) -> None:
    assert bundle.ranker is not None
    recommender = Recommender(bundle)
    answer = recommender.recommend("nobody", k=20, recent_items=GIVEN)
    items = bundle.item_ids.indices(GIVEN)
    vector = bundle.embedder.embed_user(items)[0]
    seen = np.array([0, len(items)]), items
    history = History(seen[0], items, np.arange(3), np.ones(3, np.float32))
    users = np.array([[np.log1p(3), np.nan]], dtype=np.float32)
    nobody = sparse.csr_matrix((1, bundle.features.user_entities.shape[1]), dtype=np.float32)
    tables = replace(bundle.features, users=users, user_entities=nobody)
    scores = UserScores(tables, history, np.array([0]), vector[None], bundle.item_vectors)
    found = retrieve(scores, bundle.index, bundle.ranker.depths, seen)
    features = extract_features(tables, history, np.array([0]), found, vector[None], bundle.item_vectors)
    assert np.isfinite(features[:, FEATURES.index("profile_similarity_last")]).all()
    assert np.isfinite(features[:, FEATURES.index("cooccurrence_recent")]).all()
    assert np.isnan(features[:, FEATURES.index("user_recency")]).all()
    assert np.isnan(features[:, FEATURES.index("attribute_affinity")]).all()
    expected = bundle.ranker.rerank(found, features)
    assert ids(answer)[: found.item_idx.shape[1]] == bundle.item_ids.raw(expected.item_idx[0])[:20]
    assert ids(answer) != bundle.item_ids.raw(found.item_idx[0][:20]), "the ranker of the fixture changes nothing"
    plain = bundle.index.search(vector[None], 20, seen=seen)
    assert ids(recommender.recommend(k=20, recent_items=GIVEN, rerank=False)) == bundle.item_ids.raw(plain.item_idx[0])


def test_the_order_of_the_given_items_counts(bundle: Bundle) -> None:
    one, other = (fold_in(bundle, [UserRequest(None, order)]).vectors[0] for order in (GIVEN, GIVEN[::-1]))
    assert np.abs(one - other).max() > 1e-3


def test_given_items_follow_what_the_bundle_knows(bundle: Bundle) -> None:
    user, stored = 2, bundle.history.items(2)
    new = next(item for item in ITEM_IDS if bundle.item_ids.idx(item) not in stored)
    answer = Recommender(bundle).recommend(USER_IDS[user], k=ITEMS, recent_items=[new])
    whole = [*bundle.item_ids.raw(stored), new]
    assert not {*whole} & {*ids(answer)} and len(answer.items) == ITEMS - len({*whole})
    given = Recommender(bundle).recommend(USER_IDS[user], k=ITEMS, recent_items=[new], exclude_seen=False)
    assert sorted(ids(given)) == ITEM_IDS
    folded = fold_in(bundle, [UserRequest(USER_IDS[user], [new]), UserRequest(USER_IDS[user], ["i99"])])
    attributes = small_world.users().drop("user_id").row(user, named=True)
    np.testing.assert_allclose(
        folded.vectors[0], bundle.embedder.embed_user(bundle.item_ids.indices(whole), attributes)[0], atol=1e-6
    )
    assert np.isnan(folded.features.users[0, 1])
    np.testing.assert_array_equal(folded.features.users[1], bundle.features.users[user])


def test_recorded_items_take_their_places_in_the_history(bundle: Bundle) -> None:
    user, now, day = 2, 1_700_000_000, 86_400
    stored, times = bundle.history.items(user), bundle.history.timestamp[slice(*bundle.history.indptr[user : user + 2])]
    early, late = (bundle.item_ids.idx(item) for item in ("i07", "i11"))
    requests = [
        UserRequest(USER_IDS[user], ["i11", "gone", "i07"], recent_times=[now - 3 * day, 5, int(times[0]) + 1]),
        UserRequest(USER_IDS[user], ["i11"], recent_times=[now + day]),
        UserRequest(USER_IDS[user], ["i11", "i07"], recent_times=[now + day]),
        UserRequest(USER_IDS[user], ["gone"], recent_times=[now]),
        UserRequest("nobody", ["i11"], recent_times=[now - day]),
    ]
    folded = fold_in(bundle, requests)
    expected = np.array([stored[0], early, *stored[1:], late])
    np.testing.assert_array_equal(folded.history.items(0), expected)
    first = folded.history.timestamp[: len(expected)]
    np.testing.assert_array_equal(first, [times[0], times[0] + 1, *times[1:], now - 3 * day])
    assert folded.history.items(2).tolist() == [*stored, late, early]
    assert folded.history.timestamp[slice(*folded.history.indptr[2:4])][-2:].tolist() == [now + day, now + day]
    recency = [np.log1p(3), 0, np.nan, bundle.features.users[user, 1], np.log1p(1)]
    np.testing.assert_allclose(folded.features.users[:, 1], recency, rtol=1e-6)
    np.testing.assert_array_equal(folded.features.users[3], bundle.features.users[user])
    assert [unknown for unknown in folded.unknown_items if unknown] == [("gone",), ("gone",)]
    attributes = small_world.users().drop("user_id").row(user, named=True)
    np.testing.assert_allclose(folded.vectors[0], bundle.embedder.embed_user(expected, attributes)[0], atol=1e-6)
    untimed = replace(bundle, features=replace(bundle.features, now=None))
    assert np.isnan(fold_in(untimed, requests).features.users[[0, 1, 2, 4], 1]).all()
    with pytest.raises(ValueError, match="2 recent_times for 1 recent_items"):
        UserRequest("nobody", ["i01"], recent_times=[1, 2])


def test_attributes_alone_give_a_vector_and_the_answer_says_so(bundle: Bundle) -> None:
    answer = Recommender(bundle).recommend(attributes={"city": "Rome"}, k=6)
    assert (answer.fallback, answer.degraded) == (None, ("cold_user", "no_rerank"))
    vector = bundle.embedder.embed_user(np.array([], dtype=int), {"city": "Rome"})[0]
    assert ids(answer) == bundle.item_ids.raw(bundle.index.search(vector[None], 6).item_idx[0])
    unranked = Recommender(replace(bundle, ranker=None)).recommend(attributes={"city": "Rome"}, k=6)
    assert unranked.degraded == ("cold_user",)


def test_what_is_unknown_is_said_and_a_user_with_nothing_gets_the_popular_items(bundle: Bundle) -> None:
    recommender = Recommender(bundle)
    some = recommender.recommend("nobody", recent_items=["x1", *GIVEN, "x2"], attributes={"city": "Paris"})
    assert (some.fallback, some.degraded) == (None, ("unknown_recent_items", "unknown_attributes"))
    assert (some.unknown_recent_items, some.unknown_attributes) == (("x1", "x2"), ("city=Paris",))
    assert ids(some) == ids(recommender.recommend(recent_items=GIVEN))
    none = recommender.recommend("nobody", recent_items=["x1"], attributes={"shoe": 41})
    assert (none.fallback, none.unknown_recent_items, none.unknown_attributes) == ("popular", ("x1",), ("shoe",))
    assert none.degraded == ("cold_user", "unknown_recent_items", "unknown_attributes")
    assert ids(none) == ids(recommender.recommend("nobody")) == bundle.item_ids.raw(bundle.features.popular[:10])
    known = recommender.recommend(USER_IDS[0], recent_items=["x1"])
    assert (known.fallback, known.degraded) == (None, ("unknown_recent_items",))
    assert ids(known) == ids(recommender.recommend(USER_IDS[0]))
    for arguments in ({}, {"user_id": ""}):
        with pytest.raises(ValueError, match="give a user_id, recent_items or attributes"):
            recommender.recommend(**arguments)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        recommender.recommend(recent_items=GIVEN, k=0)


def new_items() -> pl.DataFrame:
    """Two copies of known items that nobody took, under new ids, and one of its own."""
    copies = small_world.items()[[36, 37]].with_columns(item_id=pl.Series(["n1", "n2"]))
    own = pl.DataFrame({"item_id": ["n3"], "title": ["dune"], "price": [4.0], "genres": [["x", "unheard of"]]})
    return pl.concat([copies, own])


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_new_items_are_recommended_at_once(bundle: Bundle, kind: str) -> None:
    from reckg.retrieval.index import build_index

    indexed = replace(bundle, index=build_index(bundle.item_vectors, kind=kind))  # type: ignore[arg-type]
    grown = with_items(indexed, new_items())
    assert grown.manifest["added_items"] == {"items": 3, "unknown": {"n3": ["genres=unheard of"]}}
    assert grown.version.startswith("world-1+") and indexed.index.n_items == ITEMS
    answer = Recommender(grown).recommend(USER_IDS[3], k=ITEMS + 3, exclude_seen=False)
    scores = {item.item_id: item.score for item in answer.items}
    assert sorted(scores) == [*ITEM_IDS, "n1", "n2", "n3"] and all(map(np.isfinite, scores.values()))
    assert {item.item_id: item.title for item in answer.items}["n3"] == "dune"
    # A copy has the vector and the features of the item that it copies, as far as the world's tables know it.
    np.testing.assert_allclose(grown.item_vectors[ITEMS : ITEMS + 2], bundle.item_vectors[36:38], atol=2e-3)
    pair = ScoredItems(np.array([[36, ITEMS], [37, ITEMS + 1]]), np.ones((2, 2), dtype=np.float32))
    some = np.array([3, 4])
    vectors = grown.user_vectors[some], grown.item_vectors
    found = extract_features(grown.features, grown.history, some, pair, *vectors).reshape(2, 2, -1)
    same = ("popularity", "recent_popularity", "latest_popularity", "popularity_trend", "item_age", "cooccurrence")
    for name in (*same, "walk", "linear", "number_distance"):
        column = FEATURES.index(name)
        np.testing.assert_allclose(found[:, 1, column], found[:, 0, column], err_msg=name)
    similar = Recommender(grown).similar_items("n1", k=3)
    assert "i36" in ids(similar)
    folded = Recommender(grown).recommend(recent_items=["n1", "i05"], k=ITEMS)
    assert not {"n1", "i05"} & {*ids(folded)} and folded.degraded == ()


def test_new_items_that_cannot_be_added_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    rows = new_items()
    for frame, message in (
        (rows.with_columns(item_id=pl.Series(["n1", "i03", "i04"])), r"2 of 3 new items .* already \(first: 'i03'\)"),
        (rows.with_columns(item_id=pl.lit("n1")), r"2 of 3 new item ids are repeated \(first: 'n1'\)"),
        (rows.drop("item_id"), "new items have no column item_id; they have title, price, genres"),
        (rows.with_columns(price=pl.lit("dear")), "3 of 3 values of 'price' are no number"),
    ):
        with pytest.raises(DataError, match=message):
            with_items(bundle, frame)
    with pytest.raises(ArtifactError, match="has added items or changed ones and is not saved"):
        save_with_golden(with_items(bundle, rows), tmp_path / "grown")


def test_a_saved_bundle_embeds_as_before_and_every_file_is_checked(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.inductive is not None and bundle.inductive.encoder_folder is not None
    extra = {"text_encoder": bundle.inductive.encoder_folder}
    save_with_golden(bundle, tmp_path / "bundle", extra_folders=extra)
    loaded = open_bundle(tmp_path / "bundle")
    for name in ("inductive.safetensors", "inductive.json", "entities.parquet"):
        path = tmp_path / "bundle" / "inductive" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ArtifactError, match=f"1 file is not as written: inductive/{name} has sha256"):
            open_bundle(tmp_path / "bundle")
        path.write_bytes(whole)
    golden = [json.loads(line) for line in (tmp_path / "bundle" / "golden.jsonl").read_text().splitlines()]
    assert any("recent_items" in entry["request"] for entry in golden)
    assert Recommender(loaded).recommend(recent_items=GIVEN) == Recommender(bundle).recommend(recent_items=GIVEN)
    np.testing.assert_array_equal(
        Recommender(loaded).embed_items([("dune", {})]).vectors, Recommender(bundle).embed_items([("dune", {})]).vectors
    )
    shutil.rmtree(tmp_path / "bundle" / "text_encoder")
    with pytest.raises(ArtifactError, match="its encoder, is missing: run 'reckg bundle' again"):
        Recommender(replace(bundle, inductive=reread(tmp_path / "bundle"))).embed_items([("dune", {})])


def reread(path: Path) -> object:
    from reckg.inductive.files import load_inductive

    return load_inductive(path / "inductive", ITEM_IDS)


def test_parts_of_different_runs_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = small_world.world(tmp_path)  # without the linear part's columns
    with pytest.raises(ArtifactError, match=r"inductive\.safetensors is of"):
        save_with_golden(replace(bundle, inductive=other.inductive), tmp_path / "bundle")


def test_a_bundle_of_an_older_reckg_serves_the_users_it_knows(bundle: Bundle, tmp_path: Path) -> None:
    save_with_golden(replace(bundle, inductive=None), tmp_path / "bundle")
    assert not any(name.startswith("inductive/") for name in read_manifest(tmp_path / "bundle")["files"])
    old = Recommender(open_bundle(tmp_path / "bundle"))
    assert ids(old.recommend(USER_IDS[0])) == ids(Recommender(bundle).recommend(USER_IDS[0]))
    calls: list[Callable[[], object]] = [
        lambda: old.recommend(recent_items=GIVEN),
        lambda: old.recommend(attributes={"city": "Rome"}),
        lambda: old.embed_items([("dune", {})]),
        lambda: with_items(old.bundle, new_items()),
    ]
    for call in calls:
        with pytest.raises(CannotEmbedError, match=r"was left out\. Run 'reckg bundle' again"):
            call()
