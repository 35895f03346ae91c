"""Run folders derived from another: what is linked, what is rewritten, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jobs.ablation.ablate import parse_seeds
from jobs.ablation.measure import ALL, OTHERS, RELATIONS, relation_counts, relation_groups
from jobs.ablation.variants import (
    Variant,
    build_base,
    shuffle_texts,
    variant_folder,
    write_empty,
    write_shuffled,
)
from reckg.config.run_config import Config, with_settings
from reckg.data.bookshop.write import write_bookshop
from reckg.errors import ConfigError
from reckg.pipeline.run.code_hash import code_sha256
from reckg.pipeline.run.folder import read_prepared, write_json
from reckg.pipeline.run.stage_table import Stage, key_parts
from reckg.pipeline.run.state import RunState
from reckg.pipeline.training.model_inputs import item_texts, load_graph

SMALL = with_settings(Config(), {"graph.min_entity_degree": 2, "text.encoder": "none"}, "test")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_bookshop(folder / "dataset", users=40, items=80, seed=1)
    build_base(SMALL, folder / "dataset", folder / "base", False, lambda line: None)
    return folder / "base"


def rows(run: Path) -> list[tuple[int, int, int]]:
    return pl.read_parquet(run / "graph/triples.parquet").rows()


def test_a_shuffled_graph_has_the_same_degrees_and_says_what_it_changed(base: Path, tmp_path: Path) -> None:
    counts = write_shuffled(base, tmp_path, 5)
    true, shuffled = rows(base), rows(tmp_path)
    assert Counter((h, r) for h, r, _ in true) == Counter((h, r) for h, r, _ in shuffled)
    assert Counter((r, t) for _, r, t in true) == Counter((r, t) for _, r, t in shuffled)
    assert counts["triples"] == len(true)
    assert counts["unchanged"] == len(set(true) & set(shuffled)) < len(true) / 2
    description = json.loads((tmp_path / "graph/graph.json").read_text())
    assert sum(c["triples"] for c in description["shuffle"].values()) == len(true)
    assert (tmp_path / "graph/entities.parquet").resolve() == (base / "graph/entities.parquet").resolve()


def test_an_empty_graph_keeps_the_interactions(base: Path, tmp_path: Path) -> None:
    write_empty(base, tmp_path, 0)
    prepared = read_prepared(base)
    graph = load_graph(tmp_path, prepared, SMALL, "train")
    whole = load_graph(base, prepared, SMALL, "train")
    assert graph.n_entities == 0 and graph.relations == ("interact",)
    interactions = whole.relation % whole.n_relations == 0
    np.testing.assert_array_equal(graph.head, whole.head[interactions])
    np.testing.assert_array_equal(graph.tail, whole.tail[interactions])


def test_shuffled_texts_go_to_items_that_had_one(base: Path, tmp_path: Path) -> None:
    path = base / "prepared/items.parquet"
    items = pl.read_parquet(path)
    bare = pl.col("item_id").is_in(items["item_id"][:5].implode())
    texts = [pl.when(bare).then(None).otherwise(pl.col(c)).alias(c) for c in ("title", "description")]
    try:
        items.with_columns(texts).write_parquet(path)
        counts = shuffle_texts(base, tmp_path, 3)
        before, after = item_texts(read_prepared(base)), item_texts(read_prepared(tmp_path))
    finally:
        items.write_parquet(path)
    assert after[:5] == [""] * 5 and all(after[5:])
    assert Counter(before) == Counter(after)  # title and description stay together
    assert counts["texts"] == len(items) - 5
    assert counts["texts_unmoved"] < len(items) / 4
    changed, columns = pl.read_parquet(tmp_path / "prepared/items.parquet"), pl.exclude("title", "description")
    assert changed.select(columns).equals(items.select(columns))
    assert changed.columns == items.columns


def test_masking_a_relation_leaves_the_others_and_rescales_the_shares(base: Path) -> None:
    prepared, counts = read_prepared(base), relation_counts(base)
    name = next(iter(counts))
    whole = load_graph(base, prepared, SMALL, "test")
    masked = load_graph(base, prepared, SMALL, "test", without=(name,))
    assert masked.relations == whole.relations
    assert len(whole.head) - len(masked.head) == 2 * counts[name]
    assert whole.relations.index(name) not in set((masked.relation % masked.n_relations).tolist())
    total = np.bincount(masked.head, weights=masked.prior, minlength=masked.n_nodes)
    np.testing.assert_allclose(total[np.unique(masked.head)], 1, atol=1e-5)


def test_rare_relations_are_masked_together(tmp_path: Path) -> None:
    names = [f"r{number:02}" for number in range(RELATIONS + 2)]
    (tmp_path / "graph").mkdir()
    write_json(tmp_path / "graph/graph.json", {"relations": names})
    relation = [number for number in range(len(names)) for _ in range(number + 1)]
    pl.DataFrame({"relation": relation}).write_parquet(tmp_path / "graph/triples.parquet")
    groups = relation_groups(tmp_path)
    assert list(groups) == [*names[:1:-1], OTHERS, ALL]
    assert groups[OTHERS] == ("r01", "r00") and set(groups[ALL]) == set(names)
    assert groups["r21"] == ("r21",)


def test_settings_are_replaced_and_checked() -> None:
    changed = with_settings(Config(), {"model.layers": 3, "run.seed": 7}, "three layers")
    assert (changed.model.layers, changed.run.seed, changed.train) == (3, 7, Config().train)
    with pytest.raises(ConfigError, match=r"1 problem in nine layers: model\.layers: .*less than or equal to 6"):
        with_settings(Config(), {"model.layers": 9}, "nine layers")
    with pytest.raises(ConfigError, match=r"unknown key 'model\.layer' \(did you mean 'layers'\?\)"):
        with_settings(Config(), {"model.layer": 9}, "misspelt")


@pytest.mark.parametrize("text", ["", "a", "0,,1", "-1", "0;1"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds takes whole numbers from 0 separated by commas"):
        parse_seeds(text)


def test_seeds() -> None:
    assert parse_seeds("3,0") == (3, 0)


def test_a_stage_with_a_function_of_jobs_is_keyed_by_its_code(tmp_path: Path) -> None:
    stage = Stage("derive", "", (), (), (), function=build_base)  # any function of jobs.ablation.variants
    assert key_parts(stage, Config(), tmp_path, RunState(tmp_path))["code"] == code_sha256("jobs.ablation.variants")


def test_every_variant_and_seed_has_its_folder() -> None:
    assert variant_folder(Path("out"), Variant("x", ""), 3) == Path("out/variants/x/seed-3")
