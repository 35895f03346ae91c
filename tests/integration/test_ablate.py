"""reckg ablate from the command line on small data: a graph that decides is found out, and nothing is done twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from jobs.cli import main
from reckg.arrays.ragged_rows import take_rows
from reckg.config.run_config import read_config, with_settings
from reckg.data.bookshop.write import write_bookshop
from reckg.data.read import write_dataset
from reckg.data.schema import ColumnKinds, Dataset
from reckg.evaluation.protocol import evaluate_system, held_out
from reckg.pipeline.run.folder import read_embeddings, read_prepared
from reckg.pipeline.stages.embed import embed
from reckg.retrieval.exact import exact_search
from reckg.retrieval.scored_items import ScoredItems

CONFIG = """
[run]
threads = 1

[graph]
min_entity_degree = 2

[text]
encoder = "{encoder}"
max_tokens = 32

[model]
embedding_dim = 16

[train]
epochs = {epochs}
patience = {epochs}
batch_size = 256

[evaluate]
bootstrap_samples = 500
"""
SLICES = ["all users", "sparse users", "long-tail items", "cold items"]


def write_planted(folder: Path, *, users: int = 300, items: int = 600, genres: int = 30, each: int = 5) -> None:
    """Users who take nearly nothing but one genre; items have a colour besides, which decides nothing.

    Two training interactions an item are too few to tell the genres without the graph.
    """
    rng = np.random.default_rng(0)
    genre, colour = rng.integers(0, genres, items), rng.integers(0, genres, items)
    rows = []
    for user in range(users):
        favourites = np.flatnonzero(genre == user % genres)
        taken = [rng.choice(favourites) if rng.random() < 0.95 else rng.integers(items) for _ in range(each)]
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(dict.fromkeys(taken))]
    catalogue = pl.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(items)],
            "genre": [f"g{value}" for value in genre],
            "colour": [f"c{value}" for value in colour],
        }
    )
    dataset = Dataset(
        name="planted",
        interactions=pl.LazyFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"),
        items=catalogue.lazy(),
        item_columns=ColumnKinds(categorical=("genre", "colour")),
        time="order",
        source="tests/integration/test_ablate.py",
        licence="Apache-2.0",
    )
    write_dataset(dataset, folder, False)


def figure_of_embed(out: Path) -> float:
    """Test NDCG@10 of the vectors that the embed stage writes for the variant "true", by the protocol of the report.

    With the weights of training, as an ablation measures them.
    """
    run = out / "variants/true/seed-4"
    embed(with_settings(read_config(run / "config.toml"), {"train.refresh_epochs": 0}, "test"), out, run)
    users, items = read_embeddings(run, "test")
    held = held_out(read_prepared(run).interactions, "test", ("train", "valid"), len(users))

    def recommend(user_idx: np.ndarray) -> ScoredItems:
        seen = take_rows(held.excluded, np.searchsorted(held.users, user_idx))
        return exact_search(users[user_idx], items, 10, seen=seen)

    result = evaluate_system(recommend, held.users, held.relevant, (10,), n_items=len(items), excluded=held.excluded)
    assert result.excluded_items == 0
    return float(result.per_user["ndcg@10"].mean())


def of(report: dict[str, Any], other: str, part: str) -> dict[str, Any]:
    found = [c for c in report["comparisons"] if (c["other"], c["slice"]) == (other, part)]
    assert len(found) == 1
    return found[0]


def test_a_graph_that_decides_taste_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_planted(tmp_path / "dataset")
    (tmp_path / "planted.toml").write_text(CONFIG.format(encoder="none", epochs=6))
    arguments = [str(tmp_path / "planted.toml"), "--data", str(tmp_path / "dataset"), "--out", str(tmp_path / "out")]
    assert main(["ablate", *arguments, "--seeds", "0,1"]) == 0
    report = json.loads((tmp_path / "out/ablation.json").read_text())
    for other, part in (("a shuffled one", "all users"), ("a shuffled one", "cold items"), ("none", "cold items")):
        found = of(report, other, part)
        assert found["judgement"] == "better", found
        assert found["ndcg@10"]["low"] > 0 and min(found["ndcg@10"]["by_seed"]) > 0
    assert {name: count["triples"] for name, count in report["shuffle"].items()} == {"genre": 600, "colour": 600}
    relations = {r["relation"]: r for r in report["relations"]}
    assert set(relations) == {"genre", "colour", "all relations"}
    assert relations["genre"]["judgement"] == "better"
    assert relations["colour"]["judgement"] != "better"
    assert report["skipped"] == dict.fromkeys(
        ("text-shuffled", "text-off", "graph-shuffled-text-off", "graph-none-text-off"), "text.encoder is 'none'"
    )
    printed = capsys.readouterr().out
    assert "verdict: The true graph is better than a shuffled one for all users" in printed
    assert re.search(r"^graph-shuffled +0\.\d{4}", printed, re.MULTILINE)
    assert f"report: {tmp_path / 'out' / 'ablation.md'}" in printed


def test_no_graph_and_no_text_leave_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_planted(tmp_path / "dataset", users=40)
    (tmp_path / "bare.toml").write_text('[graph]\nattributes = false\n[text]\nencoder = "none"\n')
    arguments = [str(tmp_path / "bare.toml"), "--data", str(tmp_path / "dataset"), "--out", str(tmp_path / "out")]
    assert main(["ablate", *arguments]) == 2
    assert "nothing to compare: graph-shuffled: the graph has no triples" in capsys.readouterr().err
    assert main(["ablate", *arguments, "--seeds", "1,1"]) == 2
    assert "the seeds of an ablation must differ, got 1,1" in capsys.readouterr().err


def test_a_bookshop_with_texts_resumes_and_answers_one_question_at_a_time(
    tmp_path: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bookshop(tmp_path / "dataset", users=150, items=100, seed=3)
    config, out = tmp_path / "shop.toml", tmp_path / "out"
    config.write_text(CONFIG.format(encoder=encoder, epochs=2))
    arguments = ["ablate", str(config), "--data", str(tmp_path / "dataset"), "--out", str(out), "--seeds", "4"]

    def trained() -> list[str]:
        """The variants that were trained since the last call, by what was printed."""
        blocks = re.split(r"^(\S+), seed 4: .*$", capsys.readouterr().out, flags=re.MULTILINE)
        return [n for n, text in zip(blocks[1::2], blocks[2::2], strict=True) if "train: train the" in text]

    assert main([*arguments, "--only", "text"]) == 0
    assert trained() == ["true", "text-shuffled", "text-off"]
    report = json.loads((out / "ablation.json").read_text())
    assert {c["name"] for c in report["comparisons"]} == {"text"} and "relations" not in report
    assert report["variants"]["true"]["test"]["all users"]["ndcg@10"]["mean"] == pytest.approx(figure_of_embed(out))
    assert list(report["slices"]) == SLICES

    assert main([*arguments, "--only", "relations"]) == 0
    assert trained() == []
    report = json.loads((out / "ablation.json").read_text())
    assert report["comparisons"] == [] and report["relations"][-1]["relation"] == "all relations"
    assert {"genres", "author", "language"} <= {r["relation"] for r in report["relations"]}

    assert main(arguments) == 0
    rest = ["graph-shuffled", "graph-none", "graph-shuffled-text-off", "graph-none-text-off"]
    assert trained() == rest
    report = json.loads((out / "ablation.json").read_text())
    assert len(report["comparisons"]) == 6 * len(SLICES) and report["skipped"] == {}
    assert report["items_without_vector"]["true"] == report["items_without_vector"]["graph-none"] == 0
    assert report["items_without_vector"]["graph-none-text-off"] > 0
    before = (out / "ablation.md").read_text()

    assert main(arguments) == 0
    assert trained() == []
    assert (out / "ablation.md").read_text() == before

    config.write_text(config.read_text().replace("epochs = 2", "epochs = 1"))
    assert main(arguments) == 2
    assert "train.epochs was 2, is 1" in capsys.readouterr().err
