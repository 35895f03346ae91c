"""Overlays: changes of the catalogue over a bundle, one by one or at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reckg.bundle.bundle import Bundle
from reckg.errors import ArtifactError, UnknownIdError
from reckg.live.changes import CatalogChange, EmbeddedItem
from reckg.live.live_bundle import find_changed_rows
from reckg.live.new_item import NewItem
from reckg.live.overlay import Overlay
from reckg.live.rows import catalog_row
from reckg.ranking.diversity import Diversity, item_traits
from reckg.recommend.recommender import Recommender
from reckg.retrieval.filters import Filters, ItemFilters
from serving.catalog.embedder import Embedder
from tests import small_world
from tests.memory_store import MemoryStore
from tests.small_world import ITEM_IDS, ITEMS, USER_IDS

NEW = {"title": "dune", "genres": ["x"], "price": 3.0}
CHANGES = [
    [CatalogChange("n1", "upsert", NEW), CatalogChange("n2", "upsert", {"genres": ["y", "z"], "colour": "red"})],
    [CatalogChange("i03", "upsert", {"title": "other", "genres": ["x", "q"], "price": 7.0})],
    [CatalogChange("i05", "remove"), CatalogChange("i07", "unavailable"), CatalogChange("n2", "unavailable")],
    [CatalogChange("n1", "upsert", {"title": "dune", "genres": ["z"]}), CatalogChange("i08", "remove")],
    [CatalogChange("i08", "upsert", {"title": "back"}), CatalogChange("n3", "upsert", NEW)],
    [CatalogChange("n3", "remove"), CatalogChange("i07", "available"), CatalogChange("nobody", "remove")],
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_world.bundle(small_world.world(tmp_path_factory.mktemp("world"), linear=True))


def taken(overlay: Overlay, store: MemoryStore) -> Overlay:
    changes = store.catalog_changes(overlay.revision)
    made = store.embedded(overlay.base.version, [c.item_id for c in (*changes, *overlay.pending.values())])
    return overlay.apply(changes, made)


@pytest.fixture(scope="module")
def overlays(bundle: Bundle) -> tuple[Overlay, Overlay]:
    """After all changes: taken one by one, and all at once."""
    store, stepwise = MemoryStore(), Overlay.of(bundle)
    embedder = Embedder(bundle, store)
    for changes in CHANGES:
        store.change_catalog(changes)
        stepwise = taken(stepwise, store)  # what is new is not embedded yet
        embedder.catch_up()
        stepwise = taken(stepwise, store)
    return stepwise, taken(Overlay.of(bundle), store)


def answers(overlay: Overlay) -> list[object]:
    recommender = Recommender(overlay.served)
    filters = [None, Filters(where={"genres": ["x", "z"]}), Filters(deny=["n1"], where={"price": {"<": 20}})]
    mix = Diversity("calibrated", 0.5, "genres")
    return [
        recommender.recommend(user_id, 45, seen, filters=each, diversity=diversity)
        for user_id in (USER_IDS[3], USER_IDS[-1], "nobody")
        for seen in (False, True)
        for each in filters
        for diversity in (None, mix)
    ]


def test_changes_one_by_one_are_changes_at_once(overlays: tuple[Overlay, Overlay]) -> None:
    stepwise, at_once = overlays
    assert len(stepwise.served.item_ids) > len(at_once.served.item_ids)  # rows of former versions
    assert answers(stepwise) == answers(at_once)
    assert stepwise.known_revision == at_once.known_revision == len(CHANGES)
    for overlay in overlays:
        assert (overlay.added_count, overlay.blocked_count) == (2, 2)  # n1 and n2; i05 and n2
    one, other = Recommender(stepwise.served), Recommender(at_once.served)
    assert one.recommend(recent_items=["n1", "i02"], k=45) == other.recommend(recent_items=["n1", "i02"], k=45)
    assert one.similar_items("n1", 45) == other.similar_items("n1", 45)


def test_what_the_changes_say_is_what_is_answered(overlays: tuple[Overlay, Overlay]) -> None:
    for overlay in overlays:
        recommender = Recommender(overlay.served)
        found = {item.item_id: item for item in recommender.recommend(USER_IDS[3], 45, exclude_seen=False).items}
        assert sorted(found) == sorted({*ITEM_IDS, "n1"} - {"i05"})
        assert (found["n1"].title, found["i03"].title, found["i08"].title) == ("dune", "other", "back")
        assert overlay.served.row(overlay.served.item_ids.idx("n1"))["genres"] == ["z"]
        with pytest.raises(UnknownIdError):
            recommender.similar_items("n3")
        assert {"i05", "n2"} <= {i.item_id for i in recommender.rank_items("u03", ["n2", "i05", "i01"]).order.items}
        only_q = recommender.recommend(USER_IDS[3], exclude_seen=False, filters=Filters(where={"genres": "q"}))
        assert [item.item_id for item in only_q.items] == ["i03"]


def test_filters_and_traits_are_those_of_the_whole_table(overlays: tuple[Overlay, Overlay]) -> None:
    for overlay in overlays:
        bundle = overlay.served
        rows = [bundle.row(idx) for idx in range(len(bundle.item_ids))]
        whole = bundle.items.clear().extend(type(bundle.items)(rows, schema=bundle.items.schema))
        live = [idx for idx in range(len(rows)) if bundle.item_ids.get(rows[idx]["item_id"]) == idx]
        columns = bundle.manifest["item_columns"]
        plain = ItemFilters(whole, bundle.item_ids, columns)
        for filters in (
            Filters(where={"genres": ["q", "y"]}),
            Filters(where={"price": {">=": 3, "<": 8}}),
            Filters(where=[("price", {">=": 3}), ("price", {"<": 8}), ("genres", "x")]),
            Filters(allow=["n1", "i03", "i05", "gone"], deny=["i03"]),
        ):
            found, expected = bundle.item_filters.allowed(filters), plain.allowed(filters)
            assert found is not None and expected is not None and found[live].any()
            np.testing.assert_array_equal(found[live], expected[live])
        traits = bundle.traits(Diversity(column="genres", provider_column="title"))
        expected = item_traits(whole, bundle.item_vectors, Diversity(column="genres", provider_column="title"))
        names = [traits.value_names.index(name) for name in expected.value_names]
        np.testing.assert_array_equal(traits.values[live][:, names].toarray(), expected.values[live].toarray())
        said = [traits.provider_names[code] if code >= 0 else None for code in traits.provider[live]]
        assert said == [rows[idx]["title"] for idx in live]
        changed, table = find_changed_rows(bundle)
        assert table["item_id"].to_list() == ["i03", "i08", "n2", "n1"] and len(changed) == 4


def test_nothing_of_the_bundle_is_copied_or_changed(bundle: Bundle, overlays: tuple[Overlay, Overlay]) -> None:
    grown = overlays[1].served
    assert grown.item_vectors.base is bundle.item_vectors and grown.features.vectors.base is bundle.features.vectors
    assert grown.features.cooccurrence.base is bundle.features.cooccurrence and grown.index.base is bundle.index
    assert grown.embedder.vocabulary is bundle.embedder.vocabulary
    assert len(bundle.item_ids) == len(bundle.items) == ITEMS and not len(bundle.unavailable)


def test_an_upsert_is_known_when_it_is_embedded_and_others_wait_for_it(bundle: Bundle) -> None:
    store = MemoryStore()
    store.change_catalog([CatalogChange("n1", "upsert", NEW)])
    store.change_catalog([CatalogChange("n2", "upsert", NEW)])
    store.change_catalog([CatalogChange("i05", "remove")])
    overlay = taken(Overlay.of(bundle), store)
    assert overlay.known_revision == 0 and sorted(overlay.pending) == ["n1", "n2"]
    assert "i05" not in {i.item_id for i in Recommender(overlay.served).recommend("nobody", 45).items}
    Embedder(bundle, store).catch_up()
    of_second = store.embedded(bundle.version, ["n2"])
    assert overlay.apply([], of_second) is overlay
    waiting = overlay.apply([CatalogChange("i06", "remove", revision=4)], of_second)
    assert "n2" not in waiting.served.item_ids and sorted(waiting.pending) == ["n1", "n2"]
    whole = overlay.apply([], store.embedded(bundle.version, ["n1", "n2"]))
    assert (whole.known_revision, dict(whole.pending)) == (3, {})
    assert whole.apply([], of_second) is whole


def test_what_cannot_be_read_is_left_out_and_logged_without_its_id(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    store.change_catalog([CatalogChange("n1", "upsert", NEW), CatalogChange("secret", "upsert", NEW)])
    Embedder(bundle, store).catch_up()
    good = store.made[bundle.version, "n1"]
    for data in (b"", b"rubbish", good.data[:-8]):
        made = [good, EmbeddedItem("secret", 1, data)]
        overlay = Overlay.of(bundle).apply(store.catalog_changes(), made)
        assert "n1" in overlay.served.item_ids and "secret" not in overlay.served.item_ids and not overlay.pending
    assert "an item of catalogue revision 1 is not recommended" in caplog.text and "secret" not in caplog.text


def test_an_embedded_item_of_another_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    store = MemoryStore()
    store.change_catalog([CatalogChange("n1", "upsert", NEW)])
    Embedder(bundle, store).catch_up()
    data = store.made[bundle.version, "n1"].data
    item = NewItem.from_bytes(data, bundle)
    assert item.to_bytes() == data and item.unknown == ()
    other = small_world.bundle(small_world.world(tmp_path, layers=1))
    with pytest.raises(ArtifactError, match="does not fit bundle 'world-1': vector is float32 of shape"):
        NewItem.from_bytes(data, other)


def test_a_worn_overlay_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reckg.live.overlay.MANY_FORMER", 2)
    store, overlay = MemoryStore(), Overlay.of(bundle)
    embedder = Embedder(bundle, store)
    for number in range(3):
        assert not overlay.is_worn
        store.change_catalog([CatalogChange("n1", "upsert", NEW | {"price": float(number)})])
        embedder.catch_up()
        overlay = taken(overlay, store)
    assert overlay.is_worn and not taken(Overlay.of(bundle), store).is_worn


def test_values_that_do_not_fit_are_none(bundle: Bundle) -> None:
    row = catalog_row("n", {"title": 3.0, "price": "dear", "genres": "x", "colour": "red"}, bundle)
    assert row == {"item_id": "n", "title": None, "price": None, "genres": ["x"]}
